r"""Neighbour sampling on the CPU, by Numba.

Numbers are drawn by counter (splitmix64): the draws of a node depend on the key of the batch and on the place
of the node in it, so that neither threads nor what was drawn before decide. Optional arrays are empty where
they are absent.
"""

from __future__ import annotations

import numba
import numpy as np

from kgat.ops.cpu.kept import kept_on_disk
from kgat.ops.graph.mixing import FIRST, SECOND, STEP, THIRD

_STEP, _FIRST, _SECOND, _THIRD = map(np.uint64, (STEP, FIRST, SECOND, THIRD))
_ULP = 2.0**-53


@numba.njit
def _mix(x):  # type: ignore[no-untyped-def]
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return x ^ (x >> np.uint64(31))


@numba.njit
def _uniform(stream, number):  # type: ignore[no-untyped-def]
    # In [0, 1), all 53 bits: times n it is below n after rounding, and hits each of n numbers alike.
    return np.float64(_mix(stream + np.uint64(number + 1) * _STEP) >> np.uint64(11)) * _ULP


@numba.njit
def _after(values, start, end, bound):  # type: ignore[no-untyped-def]
    # The first place in a sorted range whose value is larger.
    while start < end:
        middle = (start + end) // 2
        if values[middle] > bound:
            end = middle
        else:
            start = middle + 1
    return start


@numba.njit
def _end(colptr, time, node, until, i):  # type: ignore[no-untyped-def]
    # Where the edges into node i of a batch end that are not later than its tree.
    start, end = colptr[node[i]], colptr[node[i] + 1]
    return _after(time, start, end, until[i]) if time.size > 0 else end


@numba.njit
def _distinct(edge, at, start, degree, count, stream, taken):  # type: ignore[no-untyped-def]
    # Floyd's method: 'count' draws, whatever the degree.
    for n in range(degree - count, degree):
        draw = np.int64(_uniform(stream, n) * (n + 1))
        if taken[draw]:
            draw = np.int64(n)
        taken[draw] = True
        edge[at + n - degree + count] = start + draw
    for p in range(at, at + count):
        taken[edge[p] - start] = False
    return count


@numba.njit
def _weighted_again(edge, at, cumulative, start, end, count, stream):  # type: ignore[no-untyped-def]
    total = cumulative[end - 1]
    if total <= 0.0:
        return 0
    for p in range(count):
        edge[at + p] = _after(cumulative, start, end, _uniform(stream, p) * total)
    return count


@numba.njit
def _weighted_distinct(edge, at, weight, cumulative, start, end, count, stream, race):  # type: ignore[no-untyped-def]
    # Each edge arrives at a time of Exp(weight), and the first 'count' win: the law of drawing one after the
    # other. Of edges later in the list only those that beat the slowest winner are looked at, by jumps over
    # an exponential amount of weight (Efraimidis and Spirakis, 2006).
    drawn, place, number = 0, start, 0
    while place < end and drawn < count:
        if weight[place] > 0.0:
            race[drawn] = -np.log1p(-_uniform(stream, number)) / weight[place]
            edge[at + drawn] = place
            number += 1
            drawn += 1
        place += 1
    while drawn == count and place < end:
        slowest = np.argmax(race)
        jump = -np.log1p(-_uniform(stream, number)) / race[slowest]
        place = _after(cumulative, place, end, cumulative[place - 1] + jump)
        if place < end:
            # Given that it beats the slowest.
            beaten = -np.expm1(-race[slowest] * weight[place])
            race[slowest] = -np.log1p(-_uniform(stream, number + 1) * beaten) / weight[place]
            edge[at + slowest] = place
            number += 2
            place += 1
    return drawn


@kept_on_disk(nogil=True)
def draw(  # type: ignore[no-untyped-def]
    colptr, weight, cumulative, time, node, until, count, replace, last, key
):
    r"""Draws edges into each of some nodes.

    Args:
        colptr (numpy.ndarray): First edge into each node.
        weight (numpy.ndarray): Weight of each edge; empty if all are alike.
        cumulative (numpy.ndarray): Sum of the weights of an edge and those before it into the same node.
        time (numpy.ndarray): Time of each edge, sorted within each node; empty if there is none.
        node (numpy.ndarray): The nodes.
        until (numpy.ndarray): The latest time for each of them.
        count (int): How many edges into each; all if negative.
        replace (bool): Whether an edge may be drawn again.
        last (bool): Whether to take the latest edges instead of drawing.
        key (int): The key of the draws.

    Returns:
        First place of each node among what was drawn, and the edges.
    """
    bound = widest = 0
    for i in range(node.size):
        degree = _end(colptr, time, node, until, i) - colptr[node[i]]
        bound += degree if count < 0 or (degree <= count and (not replace or degree == 0)) else count
        widest = max(widest, degree)
    ptr, edge = np.zeros(node.size + 1, np.int64), np.empty(bound, np.int64)
    taken = np.zeros(widest if not replace and count >= 0 and weight.size == 0 else 0, np.bool_)
    race = np.empty(max(count, 0), np.float64)
    for i in range(node.size):
        at, start = ptr[i], colptr[node[i]]
        end = _end(colptr, time, node, until, i)
        degree = end - start
        stream = _mix((np.uint64(key) + np.uint64(i + 1) * _STEP) * _THIRD)
        if degree == 0:
            drawn = np.int64(0)
        elif count < 0 or (degree <= count and not replace) or (last and degree <= count):
            drawn = degree
            for p in range(degree):
                edge[at + p] = start + p
        elif last:
            drawn = count
            for p in range(count):
                edge[at + p] = end - count + p
        elif weight.size > 0 and replace:
            drawn = _weighted_again(edge, at, cumulative, start, end, count, stream)
        elif weight.size > 0:
            drawn = _weighted_distinct(edge, at, weight, cumulative, start, end, count, stream, race)
        elif replace:
            drawn = count
            for p in range(count):
                edge[at + p] = start + np.int64(_uniform(stream, p) * degree)
        else:
            drawn = _distinct(edge, at, start, degree, count, stream, taken)
        ptr[i + 1] = at + drawn
    return ptr, edge[: ptr[-1]]


@kept_on_disk(nogil=True)
def in_order(index):  # type: ignore[no-untyped-def]
    r"""Returns whether numbers never fall."""
    falls = 0
    for e in range(1, index.size):
        falls += index[e - 1] > index[e]
    return falls == 0


@kept_on_disk(nogil=True)
def running_sums(colptr, weight):  # type: ignore[no-untyped-def]
    r"""Returns the sum of the weights of each edge and those before it into the same node."""
    sums = np.empty(weight.size, np.float64)
    for i in range(colptr.size - 1):
        total = 0.0
        for e in range(colptr[i], colptr[i + 1]):
            total += weight[e]
            sums[e] = total
    return sums


@numba.njit
def _slot(table, key):  # type: ignore[no-untyped-def]
    # Where a key stands in the table, or may be put.
    mask = table.shape[0] - 1
    place = np.int64((np.uint64(key) * _STEP) >> np.uint64(32)) & mask
    while table[place, 0] >= 0 and table[place, 0] != key:
        place = (place + 1) & mask
    return place


@kept_on_disk(nogil=True)
def grown(table, size):  # type: ignore[no-untyped-def]
    r"""Returns a table of numbers by key with places for at least :obj:`size` keys, half of it free."""
    places = 16
    while places < 2 * size:
        places *= 2
    if places <= table.shape[0]:
        return table
    larger = np.empty((places, 2), np.int64)
    larger[:, 0] = -1
    for place in range(table.shape[0]):
        if table[place, 0] >= 0:
            larger[_slot(larger, table[place, 0])] = table[place]
    return larger


@kept_on_disk(nogil=True)
def enter(table, node, first_tree, num_nodes):  # type: ignore[no-untyped-def]
    r"""Enters seeds, the first of each that is there twice; of trees from :obj:`first_tree` on, if any."""
    for i in range(node.size):
        key = node[i] + (first_tree + i) * num_nodes if first_tree >= 0 else node[i]
        place = _slot(table, key)
        if table[place, 0] < 0:
            table[place, 0], table[place, 1] = key, i


@kept_on_disk(nogil=True)
def relabel(  # type: ignore[no-untyped-def]
    row, edge, ptr, begin, tree, table, node, tree_of, count, num_nodes
):
    r"""Numbers the sources of drawn edges within the batch, new ones as they come.

    Args:
        row (numpy.ndarray): Source of each edge of the graph.
        edge (numpy.ndarray): The drawn edges.
        ptr (numpy.ndarray): First place among them of each target.
        begin (int): Number of the first target.
        tree (numpy.ndarray): Tree of each target; empty if there is one for all.
        table (numpy.ndarray): Numbers of the sources that are known, by key; takes the new ones.
        node (numpy.ndarray): Sources by number; takes the new ones.
        tree_of (numpy.ndarray): Trees of sources by number; takes those of new ones.
        count (int): How many sources are known.
        num_nodes (int): Number of sources in the graph.

    Returns:
        Numbers of source and target of each drawn edge, and how many sources are known now.
    """
    source, target = np.empty(edge.size, np.int64), np.empty(edge.size, np.int64)
    for i in range(ptr.size - 1):
        shift = tree[i] * num_nodes if tree.size > 0 else 0
        for p in range(ptr[i], ptr[i + 1]):
            j = np.int64(row[edge[p]])
            place = _slot(table, shift + j)
            if table[place, 0] < 0:
                table[place, 0], table[place, 1] = shift + j, count
                node[count] = j
                if tree.size > 0:
                    tree_of[count] = tree[i]
                count += 1
            source[p] = table[place, 1]
            target[p] = begin + i
    return source, target, count


@kept_on_disk(nogil=True)
def induce(colptr, row, time, node, until, tree, table, num_nodes):  # type: ignore[no-untyped-def]
    r"""Returns all edges into :obj:`node` whose sources are known: their numbers, and the edges."""
    total = 0
    for write in range(2):
        source, target, edge = np.empty(total, np.int64), np.empty(total, np.int64), np.empty(total, np.int64)
        total = 0
        for i in range(node.size):
            shift = tree[i] * num_nodes if tree.size > 0 else 0
            for e in range(colptr[node[i]], _end(colptr, time, node, until, i)):
                place = _slot(table, shift + row[e])
                if table[place, 0] >= 0:
                    if write == 1:
                        source[total], target[total], edge[total] = table[place, 1], i, e
                    total += 1
    return source, target, edge


@kept_on_disk(nogil=True)
def grow_parts(rowptr, col, colptr, row, order, num_parts):  # type: ignore[no-untyped-def]
    r"""Returns the part of each node: parts grow one after the other, breadth first along edges of either
    direction, each to its share of the nodes, from where the one before it stopped or else from the next node
    of an order."""
    nodes = order.size
    part, queue = np.full(nodes, -1, np.int64), np.empty(nodes, np.int64)
    seen = np.zeros(nodes, np.bool_)
    tail = start = 0
    for head in range(nodes):
        if head == tail:
            while seen[order[start]]:
                start += 1
            queue[tail] = order[start]
            seen[order[start]] = True
            tail += 1
        i = queue[head]
        part[i] = head * num_parts // nodes
        for e in range(rowptr[i], rowptr[i + 1]):
            if not seen[col[e]]:
                seen[col[e]] = True
                queue[tail] = col[e]
                tail += 1
        for e in range(colptr[i], colptr[i + 1]):
            if not seen[row[e]]:
                seen[row[e]] = True
                queue[tail] = row[e]
                tail += 1
    return part
