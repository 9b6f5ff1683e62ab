r"""The fingerprint of :mod:`kgat.ops.graph.fingerprint`, by Numba."""

from __future__ import annotations

import numpy as np

from kgat.ops.cpu.math import kept_on_disk
from kgat.ops.graph.fingerprint import FIRST, SECOND, STEP, THIRD

_STEP, _FIRST, _SECOND, _THIRD = (np.uint64(c % (1 << 64)) for c in (STEP, FIRST, SECOND, THIRD))
_FOLD, _TURN = np.uint64(32), np.uint64(29)


@kept_on_disk(nogil=True)
def scan(words):  # type: ignore[no-untyped-def]
    r"""Returns both sums over the elements of an array of integers."""
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
