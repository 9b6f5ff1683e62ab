r"""Sorts the edges of a graph by counting: two passes over them, where a general sort makes many."""

from __future__ import annotations

import numpy as np

from kgat.ops.cpu.math import kept_on_disk


@kept_on_disk(nogil=True)
def sort_edges(row, col, num_targets, num_sources):  # type: ignore[no-untyped-def]
    r"""Returns the edges in CSR and in CSC order, each time in the given order among equals.

    Args:
        row (numpy.ndarray): Target of each edge, in range.
        col (numpy.ndarray): Source of each edge, in range.
        num_targets (int): :math:`N`.
        num_sources (int): :math:`M`.

    Returns:
        The fields of :class:`~kgat.ops.graph.adjacency.Adjacency`.

    Shapes:
        - **row, col:** :math:`(E)`
    """
    edges = row.size
    rowptr, colptr = np.zeros(num_targets + 1, np.int64), np.zeros(num_sources + 1, np.int64)
    for e in range(edges):
        rowptr[row[e] + 1] += 1
        colptr[col[e] + 1] += 1
    for i in range(num_targets):
        rowptr[i + 1] += rowptr[i]
    for j in range(num_sources):
        colptr[j + 1] += colptr[j]
    sorted_col, edge = np.empty(edges, np.int32), np.empty(edges, np.int32)
    sorted_row, place = np.empty(edges, np.int32), np.empty(edges, np.int32)
    free = rowptr[:-1].copy()
    for e in range(edges):
        i = row[e]
        sorted_col[free[i]] = col[e]
        edge[free[i]] = e
        free[i] += 1
    free = colptr[:-1].copy()
    for i in range(num_targets):
        for e in range(rowptr[i], rowptr[i + 1]):
            j = sorted_col[e]
            sorted_row[free[j]] = i
            place[free[j]] = e
            free[j] += 1
    return rowptr, sorted_col, edge, colptr, sorted_row, place
