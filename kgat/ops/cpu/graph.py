r"""What the room of graphs computes on the CPU, by Numba: the order of edges, and fingerprints."""

from __future__ import annotations

import numba
import numpy as np

from kgat.ops.cpu.math import kept_on_disk
from kgat.ops.graph.mixing import FIRST, SECOND, STEP, THIRD

_STEP, _FIRST, _SECOND, _THIRD = map(np.uint64, (STEP, FIRST, SECOND, THIRD))
_FOLD, _TURN = np.uint64(32), np.uint64(29)


# Of so many nodes the counters of edges stay in a cache. Of more, edges are dealt out to runs of nodes first,
# whose counters and edges do.
AT_ONCE = 1 << 18
RUNS = 1 << 11


@kept_on_disk(nogil=True)
def sort_edges(row, col, num_targets, num_sources):  # type: ignore[no-untyped-def]
    r"""Returns the edges in CSR and in CSC order, each time in the given order among equals.

    By counting: two passes over them, where a general sort makes many. Edges that come sorted by target, as
    those of a sampled batch do, stay where they are. Of more than :data:`AT_ONCE` nodes
    :func:`sort_many_edges` is faster.

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
    in_order = True
    for e in range(edges):
        rowptr[row[e] + 1] += 1
        colptr[col[e] + 1] += 1
        in_order &= e == 0 or row[e - 1] <= row[e]
    for i in range(num_targets):
        rowptr[i + 1] += rowptr[i]
    for j in range(num_sources):
        colptr[j + 1] += colptr[j]
    sorted_col, edge = np.empty(edges, np.int32), np.empty(edges, np.int32)
    sorted_row, place = np.empty(edges, np.int32), np.empty(edges, np.int32)
    if in_order:
        for e in range(edges):
            sorted_col[e] = col[e]
            edge[e] = e
    else:
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


@numba.njit(nogil=True)
def _dealt_out(key, other, size):  # type: ignore[no-untyped-def]
    r"""Returns where each key starts, and :obj:`other` and the edges in the order of keys."""
    edges, bits = key.size, 0
    while size > RUNS << bits:
        bits += 1
    width = 1 << bits
    runs = (size + width - 1) >> bits
    begin = np.zeros(runs + 1, np.int64)
    for e in range(edges):
        begin[(key[e] >> bits) + 1] += 1
    for run in range(runs):
        begin[run + 1] += begin[run]
    node, beside, origin = np.empty(edges, np.int32), np.empty(edges, np.int32), np.empty(edges, np.int32)
    free = begin[:-1].copy()
    for e in range(edges):
        run = key[e] >> bits
        f = free[run]
        node[f], beside[f], origin[f] = key[e], other[e], e
        free[run] = f + 1
    start = np.empty(size + 1, np.int64)
    start[size] = edges
    sorted_other, place = np.empty(edges, np.int32), np.empty(edges, np.int32)
    for run in range(runs):
        base, last = begin[run], begin[run + 1]
        first = run * width
        width_here = min(width, size - first)
        room = np.zeros(width_here + 1, np.int64)
        for f in range(base, last):
            room[node[f] - first + 1] += 1
        room[0] = base
        for i in range(width_here):
            start[first + i] = room[i]
            room[i + 1] += room[i]
        for f in range(base, last):
            i = node[f] - first
            sorted_other[room[i]], place[room[i]] = beside[f], origin[f]
            room[i] += 1
    return start, sorted_other, place


@kept_on_disk(nogil=True)
def sort_many_edges(row, col, num_targets, num_sources):  # type: ignore[no-untyped-def]
    r"""Returns what :func:`sort_edges` does."""
    rowptr, sorted_col, edge = _dealt_out(row, col, num_targets)
    target = np.empty(row.size, np.int32)  # of each edge in CSR order
    for i in range(num_targets):
        target[rowptr[i] : rowptr[i + 1]] = i
    colptr, sorted_row, place = _dealt_out(sorted_col, target, num_sources)
    return rowptr, sorted_col, edge, colptr, sorted_row, place


@kept_on_disk(nogil=True)
def scan(words):  # type: ignore[no-untyped-def]
    r"""Returns both sums of :func:`kgat.ops.graph.fingerprint.fingerprint` over an array of integers."""
    first = second = np.int64(0)
    for n in range(words.size):
        y = np.uint64(words[n]) + np.uint64(n + 1) * _STEP
        y = (y ^ (y >> _FOLD)) * _FIRST
        y = (y ^ (y >> _TURN)) * _SECOND
        y = y ^ (y >> _FOLD)
        z = y * _THIRD
        first += np.int64(y)
        second += np.int64(z ^ (z >> _FOLD))
    return first, second
