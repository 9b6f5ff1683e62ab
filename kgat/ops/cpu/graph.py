r"""What the room of graphs computes on the CPU, compiled: the order of edges, and fingerprints."""

from __future__ import annotations

import functools
from array import array
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kgat.names import bare
from kgat.ops.cpu.math import plain
from kgat.ops.cpu.runtime import Loop, pointer
from kgat.ops.graph.mixing import FIRST, SECOND, STEP, THIRD

_STEP, _FIRST, _SECOND, _THIRD = map(np.uint64, (STEP, FIRST, SECOND, THIRD))
_FOLD, _TURN = np.uint64(32), np.uint64(29)
_i32, _i64 = np.int32(0), np.int64(0)
Array = np.ndarray[Any, Any]

# Of so many nodes the counters of edges stay in a cache. Of more, edges are dealt out to runs of nodes first,
# whose counters and edges do.
AT_ONCE = 1 << 18
RUNS = 1 << 11


def sort_edges(row: Array, col: Array, num_targets: int, num_sources: int) -> tuple[Array, ...]:
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
        - **row, col:** :math:`(E)`, contiguous and of one type
    """
    edges = row.size
    rowptr, colptr = np.zeros(num_targets + 1, np.int64), np.zeros(num_sources + 1, np.int64)
    sorted_col, edge, sorted_row, place = (np.empty(edges, np.int32) for _ in range(4))
    found = rowptr, sorted_col, edge, colptr, sorted_row, place
    free = np.empty(max(num_targets, num_sources), np.int64)
    _sorting(row.dtype.name).run([row, col, *found, free, edges, num_targets, num_sources], 1)
    return found


def sort_many_edges(row: Array, col: Array, num_targets: int, num_sources: int) -> tuple[Array, ...]:
    r"""Returns what :func:`sort_edges` does."""
    rowptr, sorted_col, edge = _dealt_out(row, col, num_targets)
    target = np.repeat(np.arange(num_targets, dtype=np.int32), np.diff(rowptr))  # of each edge in CSR order
    colptr, sorted_row, place = _dealt_out(sorted_col, target, num_sources)
    return rowptr, sorted_col, edge, colptr, sorted_row, place


def _dealt_out(key: Array, other: Array, size: int) -> tuple[Array, ...]:
    # Where each key starts, and 'other' and the edges in the order of keys.
    bits = 0
    while size > RUNS << bits:
        bits += 1
    runs = (size + (1 << bits) - 1) >> bits
    start, begin, free = (np.zeros(n + 1, np.int64) for n in (size, runs, runs))
    node, beside, origin, sorted_other, place = (np.empty(key.size, np.int32) for _ in range(5))
    room = np.empty((1 << bits) + 1, np.int64)
    tables = [key, other, start, sorted_other, place, begin, free, node, beside, origin, room]
    _dealing(key.dtype.name).run([*tables, key.size, size, bits, runs], 1)
    return start, sorted_other, place


def scan(words: Tensor) -> tuple[int, int]:
    r"""Returns both sums of :func:`kgat.ops.graph.fingerprint.fingerprint` over a contiguous tensor of
    integers."""
    context = array("q", (words.data_ptr(), words.numel(), 0, 0))
    scanning(words.dtype).run(context, 1)
    return context[2], context[3]


@plain
def _count(ptr, index, edges, nodes):  # type: ignore[no-untyped-def]
    # Where the edges of each node begin, and whether they stand there already.
    in_order = True
    for e in range(edges):
        ptr[np.int64(index[e]) + 1] += 1
        in_order &= index[max(e - 1, 0)] <= index[e]
    for i in range(nodes):
        ptr[i + 1] += ptr[i]
    return in_order


@functools.cache
def _sorting(dtype: str) -> Loop:
    number = np.dtype(dtype).type(0)

    def sort(begin, end, ctx):  # type: ignore[no-untyped-def]
        row, col = pointer(ctx[0], number), pointer(ctx[1], number)
        rowptr, sorted_col, edge = pointer(ctx[2], _i64), pointer(ctx[3], _i32), pointer(ctx[4], _i32)
        colptr, sorted_row, place = pointer(ctx[5], _i64), pointer(ctx[6], _i32), pointer(ctx[7], _i32)
        free, edges = pointer(ctx[8], _i64), ctx[9]
        targets, sources = ctx[10], ctx[11]
        in_order = _count(rowptr, row, edges, targets)
        _count(colptr, col, edges, sources)
        if in_order:
            for e in range(edges):
                sorted_col[e] = col[e]
                edge[e] = e
        else:
            for i in range(targets):
                free[i] = rowptr[i]
            for e in range(edges):
                at = free[row[e]]
                sorted_col[at] = col[e]
                edge[at] = e
                free[row[e]] = at + 1
        for j in range(sources):
            free[j] = colptr[j]
        for i in range(targets):
            for e in range(rowptr[i], rowptr[i + 1]):
                at = free[sorted_col[e]]
                sorted_row[at] = i
                place[at] = e
                free[sorted_col[e]] = at + 1

    return Loop(sort, f"sort of edges in {dtype}", f"sort|{dtype}")


@functools.cache
def _dealing(dtype: str) -> Loop:
    number = np.dtype(dtype).type(0)

    def deal(_, end, ctx):  # type: ignore[no-untyped-def]
        key, other, start = pointer(ctx[0], number), pointer(ctx[1], number), pointer(ctx[2], _i64)
        sorted_other, place = pointer(ctx[3], _i32), pointer(ctx[4], _i32)
        begin, free = pointer(ctx[5], _i64), pointer(ctx[6], _i64)
        node, beside, origin = pointer(ctx[7], _i32), pointer(ctx[8], _i32), pointer(ctx[9], _i32)
        room, edges, size, bits, runs = pointer(ctx[10], _i64), ctx[11], ctx[12], ctx[13], ctx[14]
        for e in range(edges):
            begin[(np.int64(key[e]) >> bits) + 1] += 1
        for run in range(runs):
            begin[run + 1] += begin[run]
            free[run] = begin[run]
        for e in range(edges):
            run_of_key = np.int64(key[e]) >> bits
            f = free[run_of_key]
            node[f], beside[f], origin[f] = key[e], other[e], e
            free[run_of_key] = f + 1
        for run in range(runs):
            first = run << bits
            width = min(first + (1 << bits), size) - first
            for i in range(width + 1):
                room[i] = 0
            for f in range(begin[run], begin[run + 1]):
                room[node[f] - first + 1] += 1
            room[0] = begin[run]
            for i in range(width):
                start[first + i] = room[i]
                room[i + 1] += room[i]
            for f in range(begin[run], begin[run + 1]):
                i = node[f] - first
                sorted_other[room[i]] = beside[f]
                place[room[i]] = origin[f]
                room[i] += 1
        start[size] = edges

    return Loop(deal, f"sort of many edges in {dtype}", f"deal|{dtype}")


@functools.cache
def scanning(dtype: torch.dtype) -> Loop:
    name = bare(dtype)
    number = np.dtype(name).type(0)

    def scan_words(begin, end, ctx):  # type: ignore[no-untyped-def]
        words = pointer(ctx[0], number)
        first, second = np.uint64(0), np.uint64(0)
        for n in range(ctx[1]):
            y = np.uint64(words[n]) + np.uint64(n + 1) * _STEP
            y = (y ^ (y >> _FOLD)) * _FIRST
            y = (y ^ (y >> _TURN)) * _SECOND
            y = y ^ (y >> _FOLD)
            z = y * _THIRD
            first += y
            second += z ^ (z >> _FOLD)
        ctx[2] = first
        ctx[3] = second

    return Loop(scan_words, f"fingerprint of {name}", f"scan|{name}")
