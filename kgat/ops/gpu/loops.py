# mypy: disallow-untyped-defs=False
r"""The Triton kernels of :mod:`kgat.ops.gpu`, in the symbols of :mod:`kgat.ops.recipe`.

A *segment* is a run of edges of one node, by target (CSR) or by source (CSC): all of them, or one part of
those of a heavy node; a row of a table without a node is nobody's. A *lane* is a segment and a head, heads
fastest. A program works on a block of ``LANES`` lanes by ``SLOTS`` edges by all features: it strides over the
edges, each slot with a sum (or a softmax) of its own, and joins the slots once at the end. So loops hold no
reduction over edges, every row has one writer, and every sum has a fixed order.

Whole nodes are written in place, parts to scratch, which :func:`merge` and :func:`merge_sums` join as a tree:
some parts at a time to one part more, in order. Operands that do not exist are :obj:`None`, which Triton
specialises on as on any constant.
"""

import triton
import triton.language as tl

from kgat.ops.graph import mixing

# The vocabulary of rules. All of it is wrapped: the interpreter exchanges the functions of ``tl`` by name.
# A choice between two constants is made single precision by Triton: adding a zero of the type wanted to them
# keeps their digits.


@triton.jit
def _exp(x):
    return tl.exp(x)


@triton.jit
def _log(x):
    return tl.log(x)


@triton.jit
def _sin(x):
    return tl.sin(x)


@triton.jit
def _cos(x):
    return tl.cos(x)


@triton.jit
def _sqrt(x):
    return tl.sqrt(x)


@triton.jit
def _absolute(x):
    return tl.abs(x)


@triton.jit
def _where(condition, x, y):
    return tl.where(condition, x, y)


@triton.jit
def _where_double(condition, x, y):
    zero = tl.full((), 0.0, tl.float64)
    return tl.where(condition, x + zero, y + zero)


@triton.jit
def _minimum(x, y):
    return tl.minimum(x, y, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _maximum(x, y):
    return tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL)


_WRAPPED = (_where, _exp, _log, _sin, _cos, _sqrt, _absolute, _minimum, _maximum)
_SINGLE = {function.fn.__name__.removeprefix("_"): function for function in _WRAPPED}
_DOUBLE = _SINGLE | {"where": _where_double}


def vocabulary(double):
    r"""What stands for the functions of :mod:`kgat.score.scalar`, in double or single precision."""
    return _DOUBLE if double else _SINGLE


def compiler(function):
    r"""Compiles a function whose globals :func:`kgat.score.scalar.translate` has exchanged."""
    names = function.__globals__
    names["tl"] = tl  # the interpreter looks for it
    if isinstance(_where, triton.JITFunction):  # compiled code reads numbers of modules as constants only
        names.update({k: tl.constexpr(v) for k, v in names.items() if isinstance(v, (int, float))})
    return triton.jit(function)


# Parts of kernels. Blocks of lanes are [P], of edges [P, S], of features [P, S, R] or [P, S, C].


@triton.jit
def _assign(table, lane, lanes, heads):
    # Offsets of nodes times heads times channels can pass 2^31.
    segment = table + lane // heads * 4
    head = lane % heads
    node = tl.load(segment, mask=lane < lanes, other=-1)
    live = node >= 0
    node = tl.where(live, node, 0).to(tl.int64) * heads + head
    begin = tl.load(segment + 1, mask=live, other=0)
    end = tl.load(segment + 2, mask=live, other=0)
    part = tl.load(segment + 3, mask=live, other=-1).to(tl.int64)
    return live, head, node, begin, end, tl.where(part < 0, -1, part * heads + head)


@triton.jit
def _vectors(pointer, index, live, dtype: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    channel = tl.arange(0, BLOCK)[None, None, :]
    mask = live[:, :, None] & (channel < SIZE)
    return tl.load(pointer + index[:, :, None] * SIZE + channel, mask=mask, other=0.0).to(dtype)


@triton.jit
def _write(pointer, parts, node, part, live, x, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    channel = tl.arange(0, BLOCK)[None, :]
    inside = channel < SIZE
    whole = live & (part < 0)
    tl.store(pointer + node[:, None] * SIZE + channel, x, mask=whole[:, None] & inside)
    if parts is not None:
        split = live & (part >= 0)
        tl.store(parts + part[:, None] * SIZE + channel, x, mask=split[:, None] & inside)


@triton.jit
def _constants(pointer, head, heads, COUNT: tl.constexpr):
    constants = ()
    for n in tl.static_range(COUNT):
        constants = constants + (tl.load(pointer + n * heads + head),)  # type: ignore[assignment]  # noqa: RUF005
    return constants


@triton.jit
def _weights(weight, head, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    channel = tl.arange(0, BLOCK)[None, None, :]
    return tl.load(weight + head[:, None, None] * SIZE + channel, mask=channel < SIZE, other=0.0)


@triton.jit
def _sum_pairs(q, k, w, constants, PAIR: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    pairs = PAIR(q, k, *constants)
    if w is not None:
        pairs = pairs * w
    inside = tl.arange(0, BLOCK)[None, None, :] < SIZE
    return tl.sum(tl.where(inside, pairs, 0.0), axis=2)


@triton.jit
def _join(t, a, b, c, HAS_PAIR: tl.constexpr, INSIDE: tl.constexpr):
    if a is not None:
        t = t + a
    if b is not None and not HAS_PAIR:
        t = t + b
    if c is not None and (INSIDE or not HAS_PAIR):
        t = t + c
    return t


@triton.jit
def _score(t, b, c, constants, LINK: tl.constexpr, HAS_PAIR: tl.constexpr, INSIDE: tl.constexpr):
    s = LINK(t, *constants)
    if b is not None and HAS_PAIR:
        s = s + b
    if c is not None and HAS_PAIR and not INSIDE:
        s = s + c
    return s


@triton.jit
def _ahead(index, begin, end, step, SLOTS: tl.constexpr):
    # The neighbours of a step, which are asked for one step before theirs: rows of features wait for them.
    e = begin[:, None] + step + tl.arange(0, SLOTS)[None, :]
    return tl.load(index + e, mask=e < end[:, None], other=0)


@triton.jit
def _biases(pointer, index, live):
    if pointer is None:
        return None
    else:
        return tl.load(pointer + index, mask=live, other=0.0)


@triton.jit
def _kept(seed, index, drop, keep):
    # The mask over 1 - p. Philox: the same bits whenever the same edge and head are asked for.
    return tl.where(tl.rand(tl.load(seed), index) >= drop, keep, 0.0)


# The kernels. Counts that differ from graph to graph are not specialised on: no batch of a new size should
# compile anew.


@triton.jit(do_not_specialize=["lanes"])
def attend(
    table, lanes, col, edge,
    query, key, weight, pair_args, link_args, query_bias, key_bias, edge_bias, edge_weight, value, seed,
    out, lse, out_parts, lse_parts,
    heads: tl.constexpr, scale: tl.float64, drop, keep: tl.float64,
    PAIR: tl.constexpr, LINK: tl.constexpr, PAIR_ARGS: tl.constexpr, LINK_ARGS: tl.constexpr,
    INSIDE: tl.constexpr, R: tl.constexpr, C: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
    LANES: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    r"""Forward, by target.

    .. code-block:: none

        for e of i:  s = link(scale sum_r w pair(q_i, k_j) + ...)
                     (top, total, acc) = online softmax of s, with values w_e m_e v_j
        o_i, lse_i = acc / total, (top, log(total))
    """
    dtype: tl.constexpr = lse.dtype.element_ty
    lane = tl.program_id(0).to(tl.int64) * LANES + tl.arange(0, LANES)
    live_lane, head, i, begin, end, part = _assign(table, lane, lanes, heads)
    scale = tl.full((1, 1), scale, dtype)
    keep = tl.full((1, 1), keep, dtype)
    link_constants = _constants(link_args, head[:, None], heads, LINK_ARGS)
    if PAIR is not None:
        pair_constants = _constants(pair_args, head[:, None, None], heads, PAIR_ARGS)
        q = _vectors(query, i[:, None], live_lane[:, None], dtype, R, BLOCK_R)
        w_r = None if weight is None else _weights(weight, head, R, BLOCK_R)
    a = _biases(query_bias, i[:, None], live_lane[:, None])

    top = tl.full((LANES, SLOTS), float("-inf"), dtype)
    total = tl.full((LANES, SLOTS), 0.0, dtype)
    acc = tl.full((LANES, SLOTS, BLOCK_C), 0.0, dtype)
    ahead = _ahead(col, begin, end, 0, SLOTS)
    for step in range(0, tl.max(end - begin, axis=0), SLOTS):
        e = begin[:, None] + step + tl.arange(0, SLOTS)[None, :]
        live = e < end[:, None]
        j = ahead.to(tl.int64) * heads + head[:, None]
        ahead = _ahead(col, begin, end, step + SLOTS, SLOTS)
        origin = tl.load(edge + e, mask=live, other=0).to(tl.int64) * heads + head[:, None]
        t = tl.full((LANES, SLOTS), 0.0, dtype)
        if PAIR is not None:
            k = _vectors(key, j, live, dtype, R, BLOCK_R)
            t = t + _sum_pairs(q, k, w_r, pair_constants, PAIR, R, BLOCK_R) * scale
        b = _biases(key_bias, j, live)
        c = _biases(edge_bias, origin, live)
        t = _join(t, a, b, c, PAIR is not None, INSIDE)
        s = tl.where(live, _score(t, b, c, link_constants, LINK, PAIR is not None, INSIDE), float("-inf"))

        new = tl.maximum(top, s)
        shift = tl.where(new == float("-inf"), 0.0, new)  # -inf - -inf is no number
        shrink = tl.exp(top - shift)
        alpha = tl.exp(s - shift)
        total = total * shrink + alpha
        top = new
        if edge_weight is not None:
            alpha = alpha * tl.load(edge_weight + origin, mask=live, other=0.0)
        if seed is not None:
            alpha = alpha * _kept(seed, origin, drop, keep)
        v = _vectors(value, j, live, dtype, C, BLOCK_C)
        acc = acc * shrink[:, :, None] + alpha[:, :, None] * v

    peak = tl.max(top, axis=1)
    shift = tl.where(peak == float("-inf"), 0.0, peak)
    share = tl.exp(top - shift[:, None])
    norm = tl.sum(total * share, axis=1)
    empty = norm == 0.0  # no edge, or all scores -inf
    norm = tl.where(empty, 1.0, norm)
    o = tl.sum(acc * share[:, :, None], axis=1) / norm[:, None]
    _write(out, out_parts, i, part, live_lane, o, C, BLOCK_C)
    _write_lse(lse, lse_parts, i, part, live_lane, shift, tl.log(norm), empty)


@triton.jit(do_not_specialize=["lanes"])
def merge(
    table, lanes,
    out, lse, out_parts, lse_parts,
    heads: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    r"""Averages the outputs of parts of heavy nodes by the exponentials of ``lse_parts``, in order."""
    dtype: tl.constexpr = lse.dtype.element_ty
    lane = tl.program_id(0).to(tl.int64) + tl.arange(0, 1)
    live_lane, head, node, begin, end, part = _assign(table, lane, lanes, heads)
    count = tl.max(end - begin, axis=0)
    if count == 0:  # nobody's
        return
    top = tl.full((1, SLOTS), float("-inf"), dtype)
    for step in range(0, count, SLOTS):
        index, live = _parts(begin, end, head, heads, step, SLOTS)
        top = tl.maximum(top, tl.load(lse_parts + 2 * index, mask=live, other=float("-inf")))
    peak = tl.max(top, axis=1)
    shift = tl.where(peak == float("-inf"), 0.0, peak)
    total = tl.full((1, SLOTS), 0.0, dtype)
    acc = tl.full((1, SLOTS, BLOCK), 0.0, dtype)
    for step in range(0, count, SLOTS):
        index, live = _parts(begin, end, head, heads, step, SLOTS)
        part_top = tl.load(lse_parts + 2 * index, mask=live, other=float("-inf"))
        log_part = tl.load(lse_parts + 2 * index + 1, mask=live, other=0.0)
        share = tl.exp((part_top - shift[:, None]) + log_part)
        total += share
        acc += _vectors(out_parts, index, live, dtype, SIZE, BLOCK) * share[:, :, None]
    norm = tl.sum(total, axis=1)
    empty = norm == 0.0
    norm = tl.where(empty, 1.0, norm)
    o = tl.sum(acc, axis=1) / norm[:, None]
    _write(out, out_parts, node, part, live_lane, o, SIZE, BLOCK)
    _write_lse(lse, lse_parts, node, part, live_lane, shift, tl.log(norm), empty)


@triton.jit
def _write_lse(lse, lse_parts, i, part, live, top, log_norm, empty):
    # 0 where empty, of a part -inf: it has no share of its node.
    tl.store(lse + 2 * i, top, mask=live & (part < 0))
    tl.store(lse + 2 * i + 1, log_norm, mask=live & (part < 0))
    if lse_parts is not None:
        tl.store(lse_parts + 2 * part, tl.where(empty, float("-inf"), top), mask=live & (part >= 0))
        tl.store(lse_parts + 2 * part + 1, log_norm, mask=live & (part >= 0))


@triton.jit
def _parts(begin, end, head, heads, step, SLOTS: tl.constexpr):
    p = begin[:, None] + step + tl.arange(0, SLOTS)[None, :]
    return p.to(tl.int64) * heads + head[:, None], p < end[:, None]


@triton.jit
def _merge_sum(
    table, lane, lanes, out, parts,
    heads: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    if out is not None:
        dtype: tl.constexpr = parts.dtype.element_ty
        live_lane, head, node, begin, end, part = _assign(table, lane, lanes, heads)
        count = tl.max(end - begin, axis=0)
        if count > 0:  # else nobody's
            acc = tl.full((1, SLOTS, BLOCK), 0.0, dtype)
            for step in range(0, count, SLOTS):
                index, live = _parts(begin, end, head, heads, step, SLOTS)
                acc += _vectors(parts, index, live, dtype, SIZE, BLOCK)
            _write(out, parts, node, part, live_lane, tl.sum(acc, axis=1), SIZE, BLOCK)


@triton.jit(do_not_specialize=["by_source_lanes", "by_target_lanes"])
def merge_sums(
    by_source, by_source_lanes, by_target, by_target_lanes,
    d_value, d_key, d_key_bias, d_query, d_query_bias,
    d_value_parts, d_key_parts, d_key_bias_parts, d_query_parts, d_query_bias_parts,
    heads: tl.constexpr, R: tl.constexpr, C: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
    SLOTS: tl.constexpr,
):  # fmt: skip
    r"""Adds up the parts of all gradients of heavy nodes, in order."""
    lane = tl.program_id(0).to(tl.int64) + tl.arange(0, 1)
    if by_source is not None:
        _merge_sum(by_source, lane, by_source_lanes, d_value, d_value_parts, heads, C, BLOCK_C, SLOTS)
        _merge_sum(by_source, lane, by_source_lanes, d_key, d_key_parts, heads, R, BLOCK_R, SLOTS)
        _merge_sum(by_source, lane, by_source_lanes, d_key_bias, d_key_bias_parts, heads, 1, 1, SLOTS)
    if by_target is not None:
        _merge_sum(by_target, lane, by_target_lanes, d_query, d_query_parts, heads, R, BLOCK_R, SLOTS)
        _merge_sum(by_target, lane, by_target_lanes, d_query_bias, d_query_bias_parts, heads, 1, 1, SLOTS)


@triton.jit(do_not_specialize=["rows"])
def dot_rows(
    x, y, out,
    rows,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    r"""Inner products of the rows of two matrices: :math:`D_i = \langle g_i, o_i \rangle`."""
    dtype: tl.constexpr = out.dtype.element_ty
    row = tl.program_id(0).to(tl.int64) * LANES + tl.arange(0, LANES)
    live = row < rows
    a = _vectors(x, row[:, None], live[:, None], dtype, SIZE, BLOCK)
    b = _vectors(y, row[:, None], live[:, None], dtype, SIZE, BLOCK)
    tl.store(out + row[:, None], tl.sum(a * b, axis=2), mask=live[:, None])


@triton.jit(do_not_specialize=["size"])
def write_mask(seed, mask, size, drop, keep: tl.float64, BLOCK: tl.constexpr):
    r"""The dropout mask of all edges and heads, which the other kernels do not store."""
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    keep = tl.full((1,), keep, mask.dtype.element_ty)
    tl.store(mask + index, _kept(seed, index, drop, keep), mask=index < size)


_STEP, _FIRST, _SECOND, _THIRD = (
    tl.constexpr(constant) for constant in (mixing.STEP, mixing.FIRST, mixing.SECOND, mixing.THIRD)
)


@triton.jit
def _folded(y, BITS: tl.constexpr):
    return y ^ (y >> BITS)


@triton.jit(do_not_specialize=["size"])
def scan(words, sums, size, BLOCK: tl.constexpr):
    r"""The sums of :func:`kgat.ops.graph.fingerprint.fingerprint`; a program strides over blocks."""
    first = tl.full((BLOCK,), 0, tl.uint64)
    second = tl.full((BLOCK,), 0, tl.uint64)
    for begin in range(tl.program_id(0) * BLOCK, size, tl.num_programs(0) * BLOCK):
        place = begin + tl.arange(0, BLOCK).to(tl.int64)
        x = tl.load(words + place, mask=place < size, other=0).to(tl.int64).to(tl.uint64, bitcast=True)
        y = x + (place + 1).to(tl.uint64, bitcast=True) * _STEP
        y = _folded(_folded(_folded(y, 32) * _FIRST, 29) * _SECOND, 32)
        first += tl.where(place < size, y, 0)
        second += tl.where(place < size, _folded(y * _THIRD, 32), 0)
    out = sums + tl.program_id(0) * 2
    tl.store(out, tl.sum(first, axis=0).to(tl.int64, bitcast=True))
    tl.store(out + 1, tl.sum(second, axis=0).to(tl.int64, bitcast=True))


@triton.jit(do_not_specialize=["lanes"])
def by_source(
    table, lanes, row, place, edge,
    query, key, weight, pair_args, link_args, query_bias, key_bias, edge_bias, edge_weight, value, seed,
    lse, grad, mean, d_total,
    d_value, d_key, d_key_bias, d_edge_bias, d_edge_weight,
    d_value_parts, d_key_parts, d_key_bias_parts,
    heads: tl.constexpr, scale: tl.float64, drop, keep: tl.float64,
    PAIR: tl.constexpr, D_PAIR: tl.constexpr, LINK: tl.constexpr, D_LINK: tl.constexpr,
    PAIR_ARGS: tl.constexpr, LINK_ARGS: tl.constexpr,
    INSIDE: tl.constexpr, R: tl.constexpr, C: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
    LANES: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    r"""Backward, by source; ``d_total`` is written at the CSR place of each edge for :func:`by_target`.

    .. code-block:: none

        for e of j:  t, s again;  alpha = exp(s - sum lse_i);  delta = <g_i, v_j>
                     ds = alpha (w_e m_e delta - D_i);  dt = ds link'(t)
                     dv_j += w_e m_e alpha g_i;  dk_j += scale dt w_r d_2 pair;  db_j += ds or dt
                     dw_e = m_e alpha delta;  dc_e = ds or dt

    Without a ``value``, ``d_total`` is given and only ``d_key`` is computed.
    """
    dtype: tl.constexpr = d_total.dtype.element_ty
    lane = tl.program_id(0).to(tl.int64) * LANES + tl.arange(0, LANES)
    live_lane, head, j, begin, end, part = _assign(table, lane, lanes, heads)
    scale = tl.full((1, 1), scale, dtype)
    keep = tl.full((1, 1), keep, dtype)
    if PAIR is not None:
        pair_constants = _constants(pair_args, head[:, None, None], heads, PAIR_ARGS)
        k = _vectors(key, j[:, None], live_lane[:, None], dtype, R, BLOCK_R)
        w_r = None if weight is None else _weights(weight, head, R, BLOCK_R)
        key_acc = tl.full((LANES, SLOTS, BLOCK_R), 0.0, dtype)
    if value is not None:
        link_constants = _constants(link_args, head[:, None], heads, LINK_ARGS)
        v = _vectors(value, j[:, None], live_lane[:, None], dtype, C, BLOCK_C)
        b = _biases(key_bias, j[:, None], live_lane[:, None])
        value_acc = tl.full((LANES, SLOTS, BLOCK_C), 0.0, dtype)
        bias_acc = tl.full((LANES, SLOTS), 0.0, dtype)

    for step in range(0, tl.max(end - begin, axis=0), SLOTS):
        e = begin[:, None] + step + tl.arange(0, SLOTS)[None, :]
        live = e < end[:, None]
        i = tl.load(row + e, mask=live, other=0).to(tl.int64) * heads + head[:, None]
        sorted_place = tl.load(place + e, mask=live, other=0)
        total_place = sorted_place.to(tl.int64) * heads + head[:, None]
        if PAIR is not None:
            q = _vectors(query, i, live, dtype, R, BLOCK_R)
        if value is None:
            dt = tl.load(d_total + total_place, mask=live, other=0.0)
        else:
            origin = tl.load(edge + sorted_place, mask=live, other=0).to(tl.int64) * heads + head[:, None]
            t = tl.full((LANES, SLOTS), 0.0, dtype)
            if PAIR is not None:
                t = t + _sum_pairs(q, k, w_r, pair_constants, PAIR, R, BLOCK_R) * scale
            a = _biases(query_bias, i, live)
            c = _biases(edge_bias, origin, live)
            t = _join(t, a, b, c, PAIR is not None, INSIDE)
            s = _score(t, b, c, link_constants, LINK, PAIR is not None, INSIDE)
            top = tl.load(lse + 2 * i, mask=live, other=0.0)
            less = (s - top) - tl.load(lse + 2 * i + 1, mask=live, other=0.0)
            # No weight is above one, whatever rounding makes of scores that are summed in another order.
            alpha = tl.where(live, tl.exp(tl.where(less > 0.0, 0.0, less)), 0.0)

            g = _vectors(grad, i, live, dtype, C, BLOCK_C)
            delta = tl.sum(g * v, axis=2)
            factor = tl.full((LANES, SLOTS), 1.0, dtype)
            if seed is not None:
                factor = factor * _kept(seed, origin, drop, keep)
            if d_edge_weight is not None:
                tl.store(d_edge_weight + origin, factor * alpha * delta, mask=live)
                factor = factor * tl.load(edge_weight + origin, mask=live, other=0.0)
            value_acc += (factor * alpha)[:, :, None] * g
            ds = alpha * (factor * delta - tl.load(mean + i, mask=live, other=0.0))
            # The slope of a link can be infinite where the weight is 0: that is no gradient.
            dt = tl.where(alpha == 0.0, 0.0, ds * D_LINK(t, *link_constants))
            tl.store(d_total + total_place, dt, mask=live)
            if d_edge_bias is not None:
                tl.store(d_edge_bias + origin, ds if PAIR is not None and not INSIDE else dt, mask=live)
            if d_key_bias is not None:
                bias_acc += ds if PAIR is not None else dt
        if PAIR is not None:
            _, slope = D_PAIR(q, k, *pair_constants)
            slope = dt[:, :, None] * slope
            if w_r is not None:
                slope = slope * w_r
            key_acc += tl.where(live[:, :, None], slope, 0.0)

    if value is not None:
        _write(d_value, d_value_parts, j, part, live_lane, tl.sum(value_acc, axis=1), C, BLOCK_C)
        if d_key_bias is not None:
            total = tl.sum(bias_acc, axis=1)[:, None]
            _write(d_key_bias, d_key_bias_parts, j, part, live_lane, total, 1, 1)
    if PAIR is not None:
        _write(d_key, d_key_parts, j, part, live_lane, tl.sum(key_acc, axis=1) * scale, R, BLOCK_R)


@triton.jit(do_not_specialize=["lanes", "rounds"])
def by_target(
    table, lanes, rounds, col,
    query, key, weight, pair_args,
    d_total,
    d_query, d_query_bias, d_weight,
    d_query_parts, d_query_bias_parts,
    heads: tl.constexpr, scale: tl.float64,
    PAIR: tl.constexpr, D_PAIR: tl.constexpr, PAIR_ARGS: tl.constexpr,
    R: tl.constexpr, BLOCK_R: tl.constexpr, LANES: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    r"""Backward, by target, from the ``d_total`` of :func:`by_source`.

    .. code-block:: none

        for e of i:  dq_i += scale dt w_r d_1 pair;  dw_r += scale dt pair;  da_i += dt

    For the weight a program takes several rounds of lanes. The lanes of all programs are a multiple of the
    heads, so that a lane stays with its head and its sum is one row of ``d_weight``.
    """
    dtype: tl.constexpr = d_total.dtype.element_ty
    scale = tl.full((1, 1), scale, dtype)
    first = tl.program_id(0).to(tl.int64) * LANES + tl.arange(0, LANES)
    if d_weight is not None:
        w_r = _weights(weight, first % heads, R, BLOCK_R)
        weight_acc = tl.full((LANES, SLOTS, BLOCK_R), 0.0, dtype)
    for turn in range(0, rounds):
        lane = first + turn * tl.num_programs(0).to(tl.int64) * LANES
        live_lane, head, i, begin, end, part = _assign(table, lane, lanes, heads)
        if PAIR is not None:
            pair_constants = _constants(pair_args, head[:, None, None], heads, PAIR_ARGS)
            q = _vectors(query, i[:, None], live_lane[:, None], dtype, R, BLOCK_R)
            query_acc = tl.full((LANES, SLOTS, BLOCK_R), 0.0, dtype)
        bias_acc = tl.full((LANES, SLOTS), 0.0, dtype)
        if PAIR is not None:
            ahead = _ahead(col, begin, end, 0, SLOTS)
        for step in range(0, tl.max(end - begin, axis=0), SLOTS):
            e = begin[:, None] + step + tl.arange(0, SLOTS)[None, :]
            live = e < end[:, None]
            dt = tl.load(d_total + e.to(tl.int64) * heads + head[:, None], mask=live, other=0.0)
            if d_query_bias is not None:
                bias_acc += dt
            if PAIR is not None:
                j = ahead.to(tl.int64) * heads + head[:, None]
                ahead = _ahead(col, begin, end, step + SLOTS, SLOTS)
                k = _vectors(key, j, live, dtype, R, BLOCK_R)
                slope, _ = D_PAIR(q, k, *pair_constants)
                slope = dt[:, :, None] * slope
                if d_weight is not None:
                    slope = slope * w_r
                    pairs = dt[:, :, None] * PAIR(q, k, *pair_constants)
                    weight_acc += tl.where(live[:, :, None], pairs, 0.0)
                query_acc += tl.where(live[:, :, None], slope, 0.0)
        if PAIR is not None:
            total = tl.sum(query_acc, axis=1) * scale
            _write(d_query, d_query_parts, i, part, live_lane, total, R, BLOCK_R)
        if d_query_bias is not None:
            total = tl.sum(bias_acc, axis=1)[:, None]
            _write(d_query_bias, d_query_bias_parts, i, part, live_lane, total, 1, 1)
    if d_weight is not None:
        channel = tl.arange(0, BLOCK_R)[None, :]
        total = tl.sum(weight_acc, axis=1) * scale
        tl.store(d_weight + first[:, None] * R + channel, total, mask=channel < R)


@triton.jit(do_not_specialize=["lanes"])
def sum_pairs(
    table, lanes, col, edge,
    query, key, weight, pair_args,
    total,
    heads: tl.constexpr, scale: tl.float64,
    PAIR: tl.constexpr, PAIR_ARGS: tl.constexpr,
    R: tl.constexpr, BLOCK_R: tl.constexpr, LANES: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    r"""The sums :math:`t_e` alone, in the caller's order of edges."""
    dtype: tl.constexpr = total.dtype.element_ty
    lane = tl.program_id(0).to(tl.int64) * LANES + tl.arange(0, LANES)
    live_lane, head, i, begin, end, _ = _assign(table, lane, lanes, heads)
    scale = tl.full((1, 1), scale, dtype)
    pair_constants = _constants(pair_args, head[:, None, None], heads, PAIR_ARGS)
    q = _vectors(query, i[:, None], live_lane[:, None], dtype, R, BLOCK_R)
    w_r = None if weight is None else _weights(weight, head, R, BLOCK_R)
    for step in range(0, tl.max(end - begin, axis=0), SLOTS):
        e = begin[:, None] + step + tl.arange(0, SLOTS)[None, :]
        live = e < end[:, None]
        j = tl.load(col + e, mask=live, other=0).to(tl.int64) * heads + head[:, None]
        origin = tl.load(edge + e, mask=live, other=0).to(tl.int64) * heads + head[:, None]
        k = _vectors(key, j, live, dtype, R, BLOCK_R)
        t = _sum_pairs(q, k, w_r, pair_constants, PAIR, R, BLOCK_R) * scale
        tl.store(total + origin, t, mask=live)
