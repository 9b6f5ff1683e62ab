r"""The loops of :mod:`kgat.ops.logits` on the CPU: both inner products of a row in one reading of it, and all
of their gradients in another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kgat.ops.cpu.math import apart
from kgat.ops.cpu.runtime import chunk, pointer

# Places in the context: addresses and sizes.
FIELDS = ("x", "first", "second", "s", "t", "d_x", "d_vectors", "nodes", "slots", "heads", "channels")
X, FIRST, SECOND, S, T, D_X, D_VECTORS, NODES, SLOTS, HEADS, CHANNELS = range(len(FIELDS))


@apart
def _two_products(x, a, b, zero, size):
    s = t = zero
    for c in range(size):
        s += x[c] * a[c]
        t += x[c] * b[c]
    return s, t


@apart
def _two_gradients_added(out, d_a, d_b, x, a, b, s, t, size):
    for c in range(size):
        out[c] += s * a[c] + t * b[c]
        d_a[c] += s * x[c]
        d_b[c] += t * x[c]


@apart
def _two_gradients(out, d_a, d_b, x, a, b, s, t, size):
    for c in range(size):
        out[c] = s * a[c] + t * b[c]
        d_a[c] += s * x[c]
        d_b[c] += t * x[c]


def logits(dtype: str) -> Callable[..., None]:
    r"""The inner products of each node and head."""
    f = np.float32(0) if dtype == "float32" else np.float64(0)

    def loop(begin, end, ctx):
        heads, channels, s, t = ctx[HEADS], ctx[CHANNELS], pointer(ctx[S], f), pointer(ctx[T], f)
        x, a, b = pointer(ctx[X], f), pointer(ctx[FIRST], f), pointer(ctx[SECOND], f)
        rows = ctx[NODES] * heads
        for row in range(rows * begin // ctx[SLOTS], rows * end // ctx[SLOTS]):
            of_a, of_b = chunk(a, row % heads, channels), chunk(b, row % heads, channels)
            s[row], t[row] = _two_products(chunk(x, row, channels), of_a, of_b, f, channels)

    return loop


def logits_backward(dtype: str) -> Callable[..., None]:
    r"""The gradients of nodes and, for each slot, of both vectors."""
    return _gradients(dtype, _two_gradients)


def logits_backward_added(dtype: str) -> Callable[..., None]:
    r"""As :func:`logits_backward`, to nodes that have a gradient already."""
    return _gradients(dtype, _two_gradients_added)


def _gradients(dtype: str, of_row: Callable[..., None]) -> Callable[..., None]:
    f = np.float32(0) if dtype == "float32" else np.float64(0)

    def loop(begin, end, ctx):
        heads, channels, s, t = ctx[HEADS], ctx[CHANNELS], pointer(ctx[S], f), pointer(ctx[T], f)
        x, a, b = pointer(ctx[X], f), pointer(ctx[FIRST], f), pointer(ctx[SECOND], f)
        d_x, d_vectors, rows = pointer(ctx[D_X], f), pointer(ctx[D_VECTORS], f), ctx[NODES] * heads
        for slot in range(begin, end):
            d_a, d_b = (
                chunk(d_vectors, 2 * slot, heads * channels),
                chunk(d_vectors, 2 * slot + 1, heads * channels),
            )
            for row in range(rows * slot // ctx[SLOTS], rows * (slot + 1) // ctx[SLOTS]):
                h = row % heads
                of_row(
                    chunk(d_x, row, channels),
                    *(chunk(d_a, h, channels), chunk(d_b, h, channels), chunk(x, row, channels)),
                    *(chunk(a, h, channels), chunk(b, h, channels), s[row], t[row], channels),
                )

    return loop
