r"""The loops of :mod:`kgat.ops.waves` on the CPU: projections, sines and cosines in one pass.

A node's angles stand in scratch of a few cache lines, forward and again backward, so that nothing is written
but the result. The cut into slots depends on sizes alone, and with it the sum over nodes in the gradient of
frequencies.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kgat.ops.cpu.loops import _axpy1, _axpy4
from kgat.ops.cpu.math import _cosine, _quadrant, _select, _sine, apart, inlined, plain
from kgat.ops.cpu.runtime import chunk, pointer, shift

# Places in the context: addresses (0 for what is absent) and sizes.
FIELDS = (
    *("x", "omega", "turned", "scale", "out", "grad", "d_x", "d_omega", "scratch"),
    *("nodes", "slots", "heads", "channels", "families", "size"),
)
(
    X, OMEGA, TURNED, SCALE, OUT, GRAD, D_X, D_OMEGA, SCRATCH,
    NODES, SLOTS, HEADS, CHANNELS, FAMILIES, SIZE,
) = range(len(FIELDS))  # fmt: skip
TOGETHER = 4  # nodes whose gradients are added up at once
BUFFERS = TOGETHER + 1  # of scratch, each for the angles of one node and head

_f = np.float32(0)


@inlined
def _point(angle):
    # The sine and the cosine.
    r, turn = _quadrant(angle)
    sine, cosine = _sine(r), _cosine(r)
    odd = (turn == np.float32(1.0)) | (turn == np.float32(3.0))
    y, x = _select(odd, cosine, sine), _select(odd, sine, cosine)
    left = (turn == np.float32(1.0)) | (turn == np.float32(2.0))
    return _select(turn >= np.float32(2.0), -y, y), _select(left, -x, x)


@apart
def _product(out, x, table, rows, size):
    # out = x^T table
    for s in range(size):
        out[s] = np.float32(0)
    full = rows // 4 * 4
    for d in range(0, full, 4):
        t0, t1, t2, t3 = (
            shift(table, d * size),
            shift(table, (d + 1) * size),
            shift(table, (d + 2) * size),
            shift(table, (d + 3) * size),
        )
        _axpy4(out, t0, t1, t2, t3, x[d], x[d + 1], x[d + 2], x[d + 3], size)
    for d in range(full, rows):
        _axpy1(out, shift(table, d * size), x[d], size)


@apart
def _points(angle, sin, cos, width):
    for s in range(width):
        sin[s], cos[s] = _point(angle[s])


@apart
def _mean(out, sin, cos, families, size, scale):
    for s in range(size):
        out[s] = sin[s] * scale
        out[size + s] = cos[s] * scale
    for family in range(1, families):
        for s in range(size):
            out[s] += sin[family * size + s] * scale
            out[size + s] += cos[family * size + s] * scale


@apart
def _mean_gradient(d_angle, angle, grad, families, size, scale):
    for family in range(families):
        for s in range(size):
            y, x = _point(angle[family * size + s])
            d_angle[family * size + s] = (x * grad[s] - y * grad[size + s]) * scale


@plain
def _add_products(total, x, step, d_angle, count, channels, width):
    # total += x^T d_angle over as many nodes, whose channels are so many steps apart.
    for c in range(channels):
        row = chunk(total, c, width)
        if count == TOGETHER:
            d0, d1, d2, d3 = (
                d_angle,
                shift(d_angle, width),
                shift(d_angle, 2 * width),
                shift(d_angle, 3 * width),
            )
            _axpy4(row, d0, d1, d2, d3, x[c], x[c + step], x[c + 2 * step], x[c + 3 * step], width)
        else:
            for n in range(count):
                _axpy1(row, chunk(d_angle, n, width), x[c + n * step], width)


def circle(dtype: str) -> Callable[..., None]:
    r"""The features of each node."""

    def loop(begin, end, ctx):
        heads, channels, families, size = ctx[HEADS], ctx[CHANNELS], ctx[FAMILIES], ctx[SIZE]
        width = families * size
        x, omega, out = pointer(ctx[X], _f), pointer(ctx[OMEGA], _f), pointer(ctx[OUT], _f)
        scale = pointer(ctx[SCALE], _f)[0]
        for slot in range(begin, end):
            buffer = chunk(pointer(ctx[SCRATCH], _f), slot, BUFFERS * width)
            sin, cos = shift(buffer, width), shift(buffer, 2 * width)
            first, last = ctx[NODES] * slot // ctx[SLOTS], ctx[NODES] * (slot + 1) // ctx[SLOTS]
            for row in range(first * heads, last * heads):
                angle = buffer
                if ctx[OMEGA] != 0:
                    table = chunk(omega, row % heads, channels * width)
                    _product(angle, chunk(x, row, channels), table, channels, width)
                else:
                    angle = chunk(x, row, width)
                _points(angle, sin, cos, width)
                _mean(chunk(out, row, 2 * size), sin, cos, families, size, scale)

    return loop


def circle_backward(dtype: str) -> Callable[..., None]:
    r"""The gradients of nodes and, for each slot, of frequencies."""

    def loop(begin, end, ctx):
        heads, channels, families, size = ctx[HEADS], ctx[CHANNELS], ctx[FAMILIES], ctx[SIZE]
        width = families * size
        x, omega, turned = pointer(ctx[X], _f), pointer(ctx[OMEGA], _f), pointer(ctx[TURNED], _f)
        grad, d_x, d_omega = pointer(ctx[GRAD], _f), pointer(ctx[D_X], _f), pointer(ctx[D_OMEGA], _f)
        scale = pointer(ctx[SCALE], _f)[0]
        for slot in range(begin, end):
            buffer = chunk(pointer(ctx[SCRATCH], _f), slot, BUFFERS * width)
            first, last = ctx[NODES] * slot // ctx[SLOTS], ctx[NODES] * (slot + 1) // ctx[SLOTS]
            if ctx[OMEGA] == 0:
                for row in range(first * heads, last * heads):
                    g, angle = chunk(grad, row, 2 * size), chunk(x, row, width)
                    _mean_gradient(chunk(d_x, row, width), angle, g, families, size, scale)
            else:
                angle = shift(buffer, TOGETHER * width)
                for group in range((last - first + TOGETHER - 1) // TOGETHER):
                    node = first + group * TOGETHER
                    count, place = min(TOGETHER, last - node), node * heads
                    for h in range(heads):
                        for n in range(count):
                            row, d_angle = place + n * heads + h, chunk(buffer, n, width)
                            table = chunk(omega, h, channels * width)
                            _product(angle, chunk(x, row, channels), table, channels, width)
                            g = chunk(grad, row, 2 * size)
                            _mean_gradient(d_angle, angle, g, families, size, scale)
                            table = chunk(turned, h, channels * width)
                            _product(chunk(d_x, row, channels), d_angle, table, width, channels)
                        total = chunk(d_omega, slot * heads + h, channels * width)
                        own = chunk(x, place + h, channels)
                        _add_products(total, own, heads * channels, buffer, count, channels, width)

    return loop
