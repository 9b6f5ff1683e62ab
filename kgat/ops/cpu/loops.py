r"""The loops of fused attention on the CPU; :mod:`kgat.ops.recipe` has the formulas.

Rows (or columns) are worked on in blocks of about :data:`BLOCK` edges, one head at a time: all scores of a
block stand in one buffer, so that link and exponential run over it as vectors, and what a block gathers twice
is still in cache the second time. Four edges are worked on at once. One task writes a row, in a fixed order:
the result does not depend on the number of threads. Rows of more than so many edges are left out: their
:mod:`~kgat.ops.cpu.pieces` are rows of a second run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kgat.ops.cpu.math import VOCABULARY, alike, apart, compile_rule, inlined, plain
from kgat.ops.cpu.runtime import chunk, next_slot, pointer, prefetch, shift
from kgat.ops.operands import TABLE
from kgat.ops.recipe import Recipe

BLOCK = 512  # edges and rows: scratch holds numbers of either
BUFFERS = 7  # of scratch, each for one number per edge or row of a block
AHEAD = 24  # edges between a prefetch and its use

# Places in the context of a loop: addresses (0 for what is absent) and sizes.
_OF_GRADIENTS = ("query", "key", "weight", "query_bias", "key_bias", "edge_bias", "edge_weight", "value")
FIELDS = (
    *("counter", "slots", "bounds", "longest", "scratch", "scratch_size"),
    *("ptr", "index", "edge", "place", "heads", "features", "channels"),
    *TABLE,
    *("scale", "keep", "base", "base_step", "sum", "out", "lse", "total", "grad", "packed", "dt", "add"),
    *(f"d_{name}" for name in _OF_GRADIENTS),
)
(
    COUNTER, SLOTS, BOUNDS, LONGEST, SCRATCH, SCRATCH_SIZE,
    PTR, INDEX, EDGE, PLACE, HEADS, FEATURES, CHANNELS,
    VALUE, PAIR_ARGS, LINK_ARGS,
    QUERY, KEY, WEIGHT, QUERY_BIAS, KEY_BIAS, EDGE_BIAS, EDGE_WEIGHT, SEED,
    SCALE, KEEP, BASE, BASE_STEP, SUM, OUT, LSE, TOTAL, GRAD, PACKED, DT, ADD,
    D_QUERY, D_KEY, D_WEIGHT, D_QUERY_BIAS, D_KEY_BIAS, D_EDGE_BIAS, D_EDGE_WEIGHT, D_VALUE,
) = range(len(FIELDS))  # fmt: skip

_i32 = np.int32(0)
_i64 = np.int64(0)


def scratch_size(degree: int) -> int:
    r"""Returns how many numbers each buffer of scratch has to hold.

    A block has at most :data:`BLOCK` rows and, unless it is a single row, at most :data:`BLOCK` edges.

    Args:
        degree (int): The most edges of any row.
    """
    return (max(BLOCK, degree) + 31) // 16 * 16  # threads write to cache lines apart


@plain
def _mix(x):
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@plain
def _kept(seed, counter, keep):
    # splitmix64, with the key mixed in twice: 32 of its bits against the rate, as a fraction of 2^32.
    x = _mix(np.uint64(counter) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed))
    x = _mix(x ^ (np.uint64(seed) * np.uint64(0xD1342543DE82EF95) + np.uint64(0x2545F4914F6CDD1D)))
    return (x >> np.uint64(32)) < np.uint64(keep)


@apart
def _add(out, x, y, size):
    for c in range(size):
        out[c] = x[c] + y[c]


@apart
def _axpy4(out, x0, x1, x2, x3, a0, a1, a2, a3, size):
    for c in range(size):
        out[c] += a0 * x0[c] + a1 * x1[c] + a2 * x2[c] + a3 * x3[c]


@apart
def _axpy1(out, x0, a0, size):
    for c in range(size):
        out[c] += a0 * x0[c]


@apart
def _touch4(out, v, x0, x1, x2, x3, a0, a1, a2, a3, zero, size):
    # Adds up the weighted rows and takes their inner products with v, in one reading of them.
    d0 = d1 = d2 = d3 = zero
    for c in range(size):
        y0, y1, y2, y3, y = x0[c], x1[c], x2[c], x3[c], v[c]
        out[c] += a0 * y0 + a1 * y1 + a2 * y2 + a3 * y3
        d0 += y0 * y
        d1 += y1 * y
        d2 += y2 * y
        d3 += y3 * y
    return d0, d1, d2, d3


@apart
def _touch1(out, v, x0, a0, zero, size):
    d0 = zero
    for c in range(size):
        y0 = x0[c]
        out[c] += a0 * y0
        d0 += y0 * v[c]
    return d0


@plain
def _fetch(table, index, e, last, heads, h, size):
    # Asks for the rows of four edges that are next but one: gathers wait for memory, not for arithmetic.
    if e + AHEAD + 4 <= last:
        for n in range(e + AHEAD, e + AHEAD + 4):
            row = (np.int64(index[n]) * heads + h) * size
            for c in range(0, size, 16):
                prefetch(table, row + c)


@inlined
def _rows(table, index, e, heads, h, size):
    # Those that four edges gather.
    return (
        chunk(table, np.int64(index[e]) * heads + h, size),
        chunk(table, np.int64(index[e + 1]) * heads + h, size),
        chunk(table, np.int64(index[e + 2]) * heads + h, size),
        chunk(table, np.int64(index[e + 3]) * heads + h, size),
    )


@plain
def _largest(x, size, least, zero):  # type: ignore[no-untyped-def]
    # Four at once: a maximum waits for the one before. What is -inf gives 0: nothing becomes inf - inf.
    a = b = c = d = least
    e = 0
    while e + 4 <= size:
        a = x[e] if x[e] > a else a
        b = x[e + 1] if x[e + 1] > b else b
        c = x[e + 2] if x[e + 2] > c else c
        d = x[e + 3] if x[e + 3] > d else d
        e += 4
    while e < size:
        a = x[e] if x[e] > a else a
        e += 1
    a = b if b > a else a
    c = d if d > c else c
    a = c if c > a else a
    return a if a > least else zero


@inlined
def _log_weight(s, top, rest, zero):  # type: ignore[no-untyped-def]
    # One after the other: beside a large score the rest of the log-sum-exp is lost. No weight is above one.
    below = (s - top) - rest
    return zero if below > zero else below


class Kernels:
    r"""The loops of one recipe in one type, not yet compiled.

    Args:
        recipe (Recipe): Says what they compute.
        dtype (str): ``"float32"`` or ``"float64"``.
        features (int): :math:`R`, fixed when compiled: loops over it are then unrolled. 0 leaves it open.
        channels (int): :math:`C`, as well.
    """

    def __init__(self, recipe: Recipe, dtype: str, features: int = 0, channels: int = 0) -> None:
        self.recipe = recipe
        self.dtype = dtype
        self._features = features
        self._channels = channels
        self._f = np.float32(0) if dtype == "float32" else np.float64(0)
        link = recipe.link
        assert link.derivative is not None
        self._link = compile_rule(link.in_scalars, dtype, 1)
        self._d_link = compile_rule(link.derivative, dtype, 1)
        if recipe.pair is not None:
            assert recipe.pair.derivative is not None
            self._pair = compile_rule(recipe.pair.in_scalars, dtype, 2)
            self._d_pair = compile_rule(recipe.pair.derivative, dtype, 2)

    def _make_sums(self, by_column: bool) -> Any:
        # Loops over the features of a row (or column) and of what its edges gather.
        pair, d_pair, weighted, f = self._pair, self._d_pair, self.recipe.weighted, self._f
        number = type(f)

        @inlined
        def term(own, other, a, b):
            return pair(other, own, a, b) if by_column else pair(own, other, a, b)

        @inlined
        def slope(own, other, a, b):
            return d_pair(other, own, a, b)[1] if by_column else d_pair(own, other, a, b)[0]

        @alike
        def sum4(own, x0, x1, x2, x3, w, a, b, size):
            t0 = t1 = t2 = t3 = number(0)
            for r in range(size):
                x = own[r]
                u = w[r] if weighted else number(1)
                t0 += u * term(x, x0[r], a, b)
                t1 += u * term(x, x1[r], a, b)
                t2 += u * term(x, x2[r], a, b)
                t3 += u * term(x, x3[r], a, b)
            return t0, t1, t2, t3

        @alike
        def sum1(own, x0, w, a, b, size):
            t0 = number(0)
            for r in range(size):
                t0 += (w[r] if weighted else number(1)) * term(own[r], x0[r], a, b)
            return t0

        @apart
        def add4(out, own, x0, x1, x2, x3, d0, d1, d2, d3, w, a, b, size):
            for r in range(size):
                x = own[r]
                total = d0 * slope(x, x0[r], a, b) + d1 * slope(x, x1[r], a, b)
                total += d2 * slope(x, x2[r], a, b) + d3 * slope(x, x3[r], a, b)
                out[r] += total * w[r] if weighted else total

        @apart
        def add1(out, own, x0, d0, w, a, b, size):
            for r in range(size):
                total = d0 * slope(own[r], x0[r], a, b)
                out[r] += total * w[r] if weighted else total

        @apart
        def add1_to_weight(out, own, x0, d0, a, b, size):
            for r in range(size):
                out[r] += d0 * term(own[r], x0[r], a, b)

        return sum4, sum1, add4, add1, add1_to_weight

    def forward(self) -> Callable[..., None]:
        r"""Scores, softmax and weighted sum of every row."""
        f = self._f
        fixed = np.int64(self._channels)
        number = type(f)
        paired, inside = self.recipe.pair is not None, self.recipe.pair is None or self.recipe.bias_inside
        exp, log = VOCABULARY[self.dtype]["exp"], VOCABULARY[self.dtype]["log"]
        lowest = number(-np.inf)
        least = number(1e-25 if self.dtype == "float32" else 1e-200)
        most = number(1e25 if self.dtype == "float32" else 1e200)
        link = self._link
        scores = self._scores() if paired else _no_scores

        @plain
        def block(ctx, scratch, slot, start, stop, h):
            heads, channels = ctx[HEADS], fixed if fixed > 0 else ctx[CHANNELS]
            ptr, col, edge = pointer(ctx[PTR], _i64), pointer(ctx[INDEX], _i32), pointer(ctx[EDGE], _i32)
            size = ctx[SCRATCH_SIZE]
            s, w, share = chunk(scratch, 0, size), chunk(scratch, 1, size), chunk(scratch, 2, size)
            first = ptr[start]
            n = ptr[stop] - first
            if paired:
                scores(ctx, s, start, stop, h)
            elif ctx[KEY_BIAS] != 0:
                a, b = pointer(ctx[QUERY_BIAS], f), pointer(ctx[KEY_BIAS], f)
                for i in range(start, stop):
                    own = a[i * heads + h]
                    for e in range(ptr[i], ptr[i + 1]):
                        s[e - first] = own + b[np.int64(col[e]) * heads + h]
            else:
                for e in range(n):
                    s[e] = number(0)
            if inside and ctx[EDGE_BIAS] != 0:
                c = pointer(ctx[EDGE_BIAS], f)
                for e in range(n):
                    s[e] += c[np.int64(edge[first + e]) * heads + h]
            l0, l1 = _constants(pointer(ctx[LINK_ARGS], f), h, heads)
            for e in range(n):
                s[e] = link(s[e], l0, l1)
            if paired and ctx[KEY_BIAS] != 0:
                b = pointer(ctx[KEY_BIAS], f)
                for e in range(n):
                    s[e] += b[np.int64(col[first + e]) * heads + h]
            if not inside and ctx[EDGE_BIAS] != 0:
                c = pointer(ctx[EDGE_BIAS], f)
                for e in range(n):
                    s[e] += c[np.int64(edge[first + e]) * heads + h]
            # Without a maximum where that is safe: one of the block would tie its rows to each other. A row
            # whose sum is so large or small that digits are lost is done again with its own.
            for e in range(n):
                w[e] = exp(s[e])
            lse = pointer(ctx[LSE], f)
            for i in range(start, stop):
                u, last = ptr[i] - first, ptr[i + 1] - first
                own = number(0)
                total = number(0)
                for e in range(u, last):
                    total += w[e]
                if not (total > least and total < most):
                    own = _largest(shift(s, u), last - u, lowest, number(0))
                    total = number(0)
                    for e in range(u, last):
                        w[e] = exp(s[e] - own)
                        total += w[e]
                if ctx[TOTAL] != 0:  # a piece of a row, whose sums are yet to be joined
                    pointer(ctx[TOTAL], f)[i * heads + h] = total
                    lse[2 * (i * heads + h)] = own
                    share[i - start] = number(1) / total if total != number(0) else number(0)
                elif total == number(0):  # no edges, or none that weighs anything
                    lse[2 * (i * heads + h)] = number(0)
                    lse[2 * (i * heads + h) + 1] = number(0)
                    share[i - start] = number(0)
                else:
                    lse[2 * (i * heads + h)] = own
                    lse[2 * (i * heads + h) + 1] = log(total)
                    share[i - start] = number(1) / total
            if ctx[KEEP] >= 0:
                seed = pointer(ctx[SEED], _i64)[0]
                keep = ctx[KEEP]
                rate = number(4294967296.0 / keep) if keep > 0 else number(0)
                for e in range(n):
                    kept = _kept(seed, np.int64(edge[first + e]) * heads + h, keep)
                    w[e] = w[e] * rate if kept else number(0)
            if ctx[EDGE_WEIGHT] != 0:
                factor = pointer(ctx[EDGE_WEIGHT], f)
                for e in range(n):
                    w[e] *= factor[np.int64(edge[first + e]) * heads + h]
            v, out = pointer(ctx[VALUE], f), pointer(ctx[OUT], f)
            base, summed = pointer(ctx[BASE], f), pointer(ctx[SUM], f)
            for i in range(start, stop):
                o = chunk(out, i * heads + h, channels)
                for c in range(channels):
                    o[c] = number(0)
                e, last, part = ptr[i], ptr[i + 1], share[i - start]
                while e + 4 <= last:
                    _fetch(v, col, e, ptr[stop], heads, h, channels)
                    u = e - first
                    _axpy4(
                        o,
                        *_rows(v, col, e, heads, h, channels),
                        *(w[u] * part, w[u + 1] * part, w[u + 2] * part, w[u + 3] * part),
                        channels,
                    )
                    e += 4
                while e < last:
                    row_of_v = chunk(v, np.int64(col[e]) * heads + h, channels)
                    _axpy1(o, row_of_v, w[e - first] * part, channels)
                    e += 1
                if ctx[SUM] != 0:  # apart from what backward reads, while it is in the cache
                    result = chunk(summed, i * heads + h, channels)
                    if ctx[BASE] != 0:
                        _add(result, o, shift(base, i * ctx[BASE_STEP] + h * channels), channels)
                    else:
                        for c in range(channels):
                            result[c] = o[c]

        return self._over_blocks(block)

    def backward(self) -> Callable[..., None]:
        r"""By columns: all but what belongs to queries, for which it leaves :math:`\dot t` per edge."""
        f = self._f
        fixed = np.int64(self._channels)
        number = type(f)
        paired, inside = self.recipe.pair is not None, self.recipe.pair is None or self.recipe.bias_inside
        exp = VOCABULARY[self.dtype]["exp"]
        link, d_link = self._link, self._d_link
        scores = self._scores(by_column=True) if paired else _no_scores
        key_gradient = self._gradient(by_column=True) if paired else _no_gradient

        @plain
        def block(ctx, scratch, slot, start, stop, h):
            heads, channels = ctx[HEADS], fixed if fixed > 0 else ctx[CHANNELS]
            ptr, row = pointer(ctx[PTR], _i64), pointer(ctx[INDEX], _i32)
            place, edge = pointer(ctx[PLACE], _i32), pointer(ctx[EDGE], _i32)
            packed = pointer(ctx[PACKED], f)  # [N, H, 4]: a, the parts of lse, D
            size = ctx[SCRATCH_SIZE]
            t, p, m = chunk(scratch, 0, size), chunk(scratch, 1, size), chunk(scratch, 2, size)
            d, delta = chunk(scratch, 3, size), chunk(scratch, 4, size)
            top, mean = chunk(scratch, 5, size), chunk(scratch, 6, size)
            rest = delta  # for now
            first = ptr[start]
            n = ptr[stop] - first
            for e in range(n):
                place_of_row = (np.int64(row[first + e]) * heads + h) * 4
                t[e] = packed[place_of_row]
                top[e] = packed[place_of_row + 1]
                rest[e] = packed[place_of_row + 2]
                mean[e] = packed[place_of_row + 3]
            if paired:
                scores(ctx, t, start, stop, h)
            elif ctx[KEY_BIAS] != 0:
                b = pointer(ctx[KEY_BIAS], f)
                for j in range(start, stop):
                    own = b[j * heads + h]
                    for e in range(ptr[j] - first, ptr[j + 1] - first):
                        t[e] += own
            if inside and ctx[EDGE_BIAS] != 0:
                c = pointer(ctx[EDGE_BIAS], f)
                for e in range(n):
                    t[e] += c[np.int64(edge[place[first + e]]) * heads + h]
            l0, l1 = _constants(pointer(ctx[LINK_ARGS], f), h, heads)
            for e in range(n):
                p[e] = link(t[e], l0, l1)
            if paired and ctx[KEY_BIAS] != 0:
                b = pointer(ctx[KEY_BIAS], f)
                for j in range(start, stop):
                    for e in range(ptr[j] - first, ptr[j + 1] - first):
                        p[e] += b[j * heads + h]
            if not inside and ctx[EDGE_BIAS] != 0:
                c = pointer(ctx[EDGE_BIAS], f)
                for e in range(n):
                    p[e] += c[np.int64(edge[place[first + e]]) * heads + h]
            for e in range(n):
                p[e] = exp(_log_weight(p[e], top[e], rest[e], number(0)))

            masked = ctx[KEEP] >= 0 or ctx[EDGE_WEIGHT] != 0
            if masked:  # m: what multiplies alpha
                for e in range(n):
                    m[e] = number(1)
                if ctx[KEEP] >= 0:
                    seed = pointer(ctx[SEED], _i64)[0]
                    keep = ctx[KEEP]
                    rate = number(4294967296.0 / keep) if keep > 0 else number(0)
                    for e in range(n):
                        kept = _kept(seed, np.int64(edge[place[first + e]]) * heads + h, keep)
                        m[e] = rate if kept else number(0)
                if ctx[D_EDGE_WEIGHT] != 0:  # m alpha for now: the inner product joins below
                    dw = pointer(ctx[D_EDGE_WEIGHT], f)
                    for e in range(n):
                        dw[np.int64(edge[place[first + e]]) * heads + h] = m[e] * p[e]
                if ctx[EDGE_WEIGHT] != 0:
                    w = pointer(ctx[EDGE_WEIGHT], f)
                    for e in range(n):
                        m[e] *= w[np.int64(edge[place[first + e]]) * heads + h]
                for e in range(n):
                    d[e] = m[e] * p[e]
            weight = d if masked else p

            v, g, dv = pointer(ctx[VALUE], f), pointer(ctx[GRAD], f), pointer(ctx[D_VALUE], f)
            for j in range(start, stop):
                own = chunk(v, j * heads + h, channels)
                o = chunk(dv, j * heads + h, channels)
                for c in range(channels):
                    o[c] = number(0)
                e, last = ptr[j], ptr[j + 1]
                while e + 4 <= last:
                    _fetch(g, row, e, ptr[stop], heads, h, channels)
                    u = e - first
                    delta[u], delta[u + 1], delta[u + 2], delta[u + 3] = _touch4(
                        o,
                        own,
                        *_rows(g, row, e, heads, h, channels),
                        *(weight[u], weight[u + 1], weight[u + 2], weight[u + 3]),
                        *(number(0), channels),
                    )
                    e += 4
                while e < last:
                    delta[e - first] = _touch1(
                        o,
                        own,
                        chunk(g, np.int64(row[e]) * heads + h, channels),
                        weight[e - first],
                        *(number(0), channels),
                    )
                    e += 1

            if ctx[D_EDGE_WEIGHT] != 0:
                dw = pointer(ctx[D_EDGE_WEIGHT], f)
                for e in range(n):
                    dw[np.int64(edge[place[first + e]]) * heads + h] *= delta[e]
            if masked:
                for e in range(n):
                    delta[e] *= m[e]
            for e in range(n):  # p becomes the gradient of s
                p[e] *= delta[e] - mean[e]
            if not inside and ctx[D_EDGE_BIAS] != 0:
                dc = pointer(ctx[D_EDGE_BIAS], f)
                for e in range(n):
                    dc[np.int64(edge[place[first + e]]) * heads + h] = p[e]
            if paired and ctx[D_KEY_BIAS] != 0:
                db = pointer(ctx[D_KEY_BIAS], f)
                for j in range(start, stop):
                    total = number(0)
                    for e in range(ptr[j] - first, ptr[j + 1] - first):
                        total += p[e]
                    db[j * heads + h] = total
            for e in range(n):  # and now that of t; an infinite slope at a weight of 0 is no gradient
                slope = d_link(t[e], l0, l1)
                p[e] = p[e] * slope if p[e] != number(0) else number(0)
            if inside and ctx[D_EDGE_BIAS] != 0:
                dc = pointer(ctx[D_EDGE_BIAS], f)
                for e in range(n):
                    dc[np.int64(edge[place[first + e]]) * heads + h] = p[e]
            if not paired and ctx[D_KEY_BIAS] != 0:
                db = pointer(ctx[D_KEY_BIAS], f)
                for j in range(start, stop):
                    total = number(0)
                    for e in range(ptr[j] - first, ptr[j + 1] - first):
                        total += p[e]
                    db[j * heads + h] = total
            if ctx[DT] != 0:
                dt = pointer(ctx[DT], f)
                for e in range(n):
                    dt[np.int64(place[first + e]) * heads + h] = p[e]
            if paired and ctx[D_KEY] != 0:
                scale = pointer(ctx[SCALE], f)[0]
                for e in range(n):
                    p[e] *= scale
                key_gradient(ctx, p, slot, start, stop, h)

        return self._over_blocks(block)

    def query_gradient(self) -> Callable[..., None]:
        r"""By rows: gradients of queries, and of the weight in one part per slot, from :math:`\dot t`."""
        return self._from_dt(self._gradient())

    def key_gradient(self) -> Callable[..., None]:
        r"""By columns: gradients of keys from :math:`\dot t`."""
        return self._from_dt(self._gradient(by_column=True))

    def score(self) -> Callable[..., None]:
        r"""The sums :math:`t` of all edges, in the caller's order."""
        f, scores = self._f, self._scores()

        @plain
        def block(ctx, scratch, slot, start, stop, h):
            heads = ctx[HEADS]
            ptr, edge, out = pointer(ctx[PTR], _i64), pointer(ctx[EDGE], _i32), pointer(ctx[OUT], f)
            first = ptr[start]
            scores(ctx, scratch, start, stop, h)
            for e in range(ptr[stop] - first):
                out[np.int64(edge[first + e]) * heads + h] = scratch[e]

        return self._over_blocks(block)

    def _from_dt(self, add: Any) -> Callable[..., None]:
        f = self._f

        @plain
        def block(ctx, scratch, slot, start, stop, h):
            heads = ctx[HEADS]
            ptr, dt = pointer(ctx[PTR], _i64), pointer(ctx[DT], f)
            scale = pointer(ctx[SCALE], f)[0]
            first = ptr[start]
            if ctx[PLACE] != 0:  # where in dt the edge stands, if not here
                place = pointer(ctx[PLACE], _i32)
                for e in range(ptr[stop] - first):
                    scratch[e] = dt[np.int64(place[first + e]) * heads + h] * scale
            else:
                for e in range(ptr[stop] - first):
                    scratch[e] = dt[(first + e) * heads + h] * scale
            add(ctx, scratch, slot, start, stop, h)

        return self._over_blocks(block)

    def _scores(self, by_column: bool = False) -> Any:
        f = self._f
        fixed = np.int64(self._features)
        sum4, sum1, *_ = self._make_sums(by_column)
        row_of, gathered = (KEY, QUERY) if by_column else (QUERY, KEY)

        @plain
        def scores(ctx, t, start, stop, h):
            heads, size = ctx[HEADS], fixed if fixed > 0 else ctx[FEATURES]
            ptr, index = pointer(ctx[PTR], _i64), pointer(ctx[INDEX], _i32)
            x, others = pointer(ctx[row_of], f), pointer(ctx[gathered], f)
            w = chunk(pointer(ctx[WEIGHT], f), h, size)
            a, b = _constants(pointer(ctx[PAIR_ARGS], f), h, heads)
            first = ptr[start]
            for i in range(start, stop):
                own = chunk(x, i * heads + h, size)
                e, last = ptr[i], ptr[i + 1]
                while e + 4 <= last:
                    _fetch(others, index, e, ptr[stop], heads, h, size)
                    u = e - first
                    four = _rows(others, index, e, heads, h, size)
                    t[u], t[u + 1], t[u + 2], t[u + 3] = sum4(own, *four, w, a, b, size)
                    e += 4
                while e < last:
                    other = chunk(others, np.int64(index[e]) * heads + h, size)
                    t[e - first] = sum1(own, other, w, a, b, size)
                    e += 1
            scale = pointer(ctx[SCALE], f)[0]
            for e in range(ptr[stop] - first):
                t[e] *= scale

        return scores

    def _gradient(self, by_column: bool = False) -> Any:
        f = self._f
        fixed = np.int64(self._features)
        number = type(f)
        _, _, add4, add1, add1_to_weight = self._make_sums(by_column)
        row_of, gathered, result = (KEY, QUERY, D_KEY) if by_column else (QUERY, KEY, D_QUERY)

        @plain
        def gradient(ctx, d, slot, start, stop, h):
            heads, size = ctx[HEADS], fixed if fixed > 0 else ctx[FEATURES]
            ptr, index = pointer(ctx[PTR], _i64), pointer(ctx[INDEX], _i32)
            x, others, out = pointer(ctx[row_of], f), pointer(ctx[gathered], f), pointer(ctx[result], f)
            w = chunk(pointer(ctx[WEIGHT], f), h, size)
            a, b = _constants(pointer(ctx[PAIR_ARGS], f), h, heads)
            first = ptr[start]
            for i in range(start, stop):
                own = chunk(x, i * heads + h, size)
                o = chunk(out, i * heads + h, size)
                if ctx[ADD] == 0:
                    for r in range(size):
                        o[r] = number(0)
                e, last = ptr[i], ptr[i + 1]
                while e + 4 <= last:
                    if not by_column:  # by columns, the scores have fetched them
                        _fetch(others, index, e, ptr[stop], heads, h, size)
                    u = e - first
                    four = _rows(others, index, e, heads, h, size)
                    add4(o, own, *four, d[u], d[u + 1], d[u + 2], d[u + 3], w, a, b, size)
                    e += 4
                while e < last:
                    other = chunk(others, np.int64(index[e]) * heads + h, size)
                    add1(o, own, other, d[e - first], w, a, b, size)
                    e += 1
                if not by_column and ctx[D_WEIGHT] != 0:
                    dw = chunk(pointer(ctx[D_WEIGHT], f), slot * heads + h, size)
                    for e in range(ptr[i], last):
                        other = chunk(others, np.int64(index[e]) * heads + h, size)
                        add1_to_weight(dw, own, other, d[e - first], a, b, size)

        return gradient

    def _over_blocks(self, block: Any) -> Callable[..., None]:
        f = self._f

        @plain
        def blocks(ctx, task, slot, start, end):
            heads, size, ptr = ctx[HEADS], ctx[SCRATCH_SIZE], pointer(ctx[PTR], _i64)
            scratch = chunk(pointer(ctx[SCRATCH], f), task, BUFFERS * size)
            while start < end:
                stop = start + 1
                # Rows count, too: thousands of them may be without any edge.
                limit = min(end, start + BLOCK)
                while stop < limit and ptr[stop + 1] - ptr[start] <= BLOCK:
                    stop += 1
                if ptr[stop] - ptr[start] <= ctx[LONGEST]:
                    for h in range(heads):
                        block(ctx, scratch, slot, start, stop, h)
                start = stop

        return _over_slots(blocks)


def _over_slots(work: Any) -> Callable[..., None]:
    def loop(begin, end, ctx):
        bounds = pointer(ctx[BOUNDS], _i64)
        for task in range(begin, end):
            while True:
                slot = next_slot(pointer(ctx[COUNTER], _i64))
                if slot >= ctx[SLOTS]:
                    break
                work(ctx, task, slot, bounds[2 * slot], bounds[2 * slot + 1])

    return loop


@plain
def _no_scores(ctx, t, start, stop, h):
    pass


@plain
def _no_gradient(ctx, d, slot, start, stop, h):
    pass


@plain
def _constants(args, h, heads):
    # Always two, of which a rule takes those it knows.
    return args[h], args[heads + h]


def pack(dtype: str) -> Callable[..., None]:
    r"""By rows: what the edges of a row need of it, together, :math:`a`, the parts of :math:`\lambda` and
    :math:`D`."""
    f = np.float32(0) if dtype == "float32" else np.float64(0)
    number = type(f)

    @plain
    def rows(ctx, task, slot, start, stop):
        heads, channels, lse = ctx[HEADS], ctx[CHANNELS], pointer(ctx[LSE], f)
        a, packed = pointer(ctx[QUERY_BIAS], f), pointer(ctx[PACKED], f)
        g, out = pointer(ctx[GRAD], f), pointer(ctx[OUT], f)
        for row in range(start * heads, stop * heads):
            own, other = chunk(g, row, channels), chunk(out, row, channels)
            total = number(0)
            for c in range(channels):
                total += own[c] * other[c]
            packed[row * 4] = a[row] if ctx[QUERY_BIAS] != 0 else number(0)
            packed[row * 4 + 1] = lse[2 * row]
            packed[row * 4 + 2] = lse[2 * row + 1]
            packed[row * 4 + 3] = total

    return _over_slots(rows)


def sum_rows(dtype: str) -> Callable[..., None]:
    r"""By rows: the sum of :math:`\dot t`."""
    f = np.float32(0) if dtype == "float32" else np.float64(0)
    number = type(f)

    @plain
    def rows(ctx, task, slot, start, stop):
        heads, ptr = ctx[HEADS], pointer(ctx[PTR], _i64)
        dt, out = pointer(ctx[DT], f), pointer(ctx[D_QUERY_BIAS], f)
        for i in range(start, stop):
            if ptr[i + 1] - ptr[i] <= ctx[LONGEST]:
                for h in range(heads):
                    total = number(0)
                    for e in range(ptr[i], ptr[i + 1]):
                        total += dt[e * heads + h]
                    out[i * heads + h] = total

    return _over_slots(rows)


def join(dtype: str) -> Callable[..., None]:
    r"""By long rows: the parts of :math:`\lambda`, and in place of the sum of a piece the part of the row
    that it is."""
    f = np.float32(0) if dtype == "float32" else np.float64(0)
    number = type(f)
    exp, log = VOCABULARY[dtype]["exp"], VOCABULARY[dtype]["log"]
    lowest = number(-np.inf)

    @plain
    def rows(ctx, task, slot, start, stop):
        heads, first = ctx[HEADS], pointer(ctx[PTR], _i64)
        top, total, lse = pointer(ctx[LSE], f), pointer(ctx[TOTAL], f), pointer(ctx[OUT], f)
        for i in range(start, stop):
            for h in range(heads):
                most = lowest
                for n in range(first[i], first[i + 1]):
                    p = n * heads + h
                    most = top[2 * p] if total[p] != number(0) and top[2 * p] > most else most
                most = most if most > lowest else number(0)
                whole = number(0)
                for n in range(first[i], first[i + 1]):
                    p = n * heads + h
                    total[p] = total[p] * exp(top[2 * p] - most) if total[p] != number(0) else number(0)
                    whole += total[p]
                lse[2 * (i * heads + h)] = most if whole != number(0) else number(0)
                lse[2 * (i * heads + h) + 1] = log(whole) if whole != number(0) else number(0)
                for n in range(first[i], first[i + 1]):
                    p = n * heads + h
                    total[p] = total[p] / whole if whole != number(0) else number(0)

    return _over_slots(rows)


def draws(dtype: str) -> Callable[..., None]:
    r"""Marks which draws are kept, by 1 and 0: its context is the seed, the rate and a number for each."""
    f = np.float32(0) if dtype == "float32" else np.float64(0)
    number = type(f)

    def loop(begin, end, ctx):
        out = pointer(ctx[2], f)
        for e in range(begin, end):
            out[e] = number(1) if _kept(ctx[0], e, ctx[1]) else number(0)

    return loop
