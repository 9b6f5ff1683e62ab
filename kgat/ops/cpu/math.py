r"""Elementary functions as scalars that LLVM can vectorise, and what turns rules into routines.

In single precision ``exp``, ``log``, ``sin`` and ``cos`` are polynomials after Cephes (errors under 1 unit in
the last place): a call of the C library would keep a loop from being vectorised. In double precision they are
the C library's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kgat.ops.cpu.compiler import FLOAT32, INT32, Intrinsic, Routine, Value
from kgat.score.scalar import translate

# Sums over features may be reordered, which makes them vectors. NaN and infinity keep their meaning.
FAST = ("reassoc", "contract", "nsz", "arcp")
# Inside a polynomial or a rule every rounding is meant, so that nothing is reordered there.
EXACT = ("contract",)

_f = np.float32
_i = np.int32


@Intrinsic
def _bits(builder, x):
    return Value(INT32, builder.bitcast(x.ir, INT32.ir))


@Intrinsic
def _from_bits(builder, x):
    return Value(FLOAT32, builder.bitcast(x.ir, FLOAT32.ir))


def _of_llvm(name: str) -> Intrinsic:
    # What LLVM knows, or has the C library compute.
    def function(builder, x):
        return Value(x.type, builder.call(builder.module.declare_intrinsic(name, [x.type.ir]), [x.ir]))

    return Intrinsic(function)


def plain(function: Callable[..., Any]) -> Routine:
    r"""Makes a routine of loops, whose sums may be reordered."""
    return Routine(function, FAST)


def apart(function: Callable[..., Any]) -> Routine:
    r"""As :func:`plain`, for pointers of which those written to overlap with no other.

    A loop then needs no checks before it is a vector.
    """
    return Routine(function, FAST, apart=True)


def alike(function: Callable[..., Any]) -> Routine:
    r"""As :func:`apart`, for sums that are made in several places and have to be the same number in all."""
    return Routine(function, FAST, apart=True, one_order=True)


def inlined(function: Callable[..., Any]) -> Routine:
    r"""Makes a routine in which every rounding is meant."""
    return Routine(function, EXACT)


@inlined
def _select(condition, x, y):
    return x if condition else y


@inlined
def _exp32(x):
    # 2^n exp(r) with |r| <= log(2) / 2; the sum with 1.5 2^23 rounds to an integer.
    known = _select(x == x, x, _f(0.0))
    bounded = _select(known < _f(-87.33), _f(-87.33), _select(known > _f(88.72), _f(88.72), known))
    n = (bounded * _f(1.44269504088896341) + _f(12582912.0)) - _f(12582912.0)
    r = bounded - n * _f(0.693359375)
    r = r - n * _f(-2.12194440e-4)
    p = _f(1.9875691500e-4)
    p = p * r + _f(1.3981999507e-3)
    p = p * r + _f(8.3334519073e-3)
    p = p * r + _f(4.1665795894e-2)
    p = p * r + _f(1.6666665459e-1)
    p = p * r + _f(5.0000001201e-1)
    p = p * r * r + r + _f(1.0)
    # In two factors, because 2^128 is no number of single precision.
    half = _i(n) >> _i(1)
    low = _from_bits((half + _i(127)) << _i(23))
    high = _from_bits((_i(n) - half + _i(127)) << _i(23))
    y = p * low * high
    y = _select(x < _f(-87.33), _f(0.0), _select(x > _f(88.72), _f(np.inf), y))
    return _select(x == x, y, x)


@inlined
def _log32(x):
    tiny = x < _f(1.17549435e-38)
    scaled = _select(tiny, x * _f(8388608.0), x)
    bits = _bits(scaled)
    # m in [sqrt(1/2), sqrt(2)), x = m 2^e
    e = (bits - _i(0x3F3504F3)) >> _i(23)
    m = _from_bits(bits - (e << _i(23))) - _f(1.0)
    exponent = _f(e) - _select(tiny, _f(23.0), _f(0.0))
    z = m * m
    p = _f(7.0376836292e-2)
    p = p * m + _f(-1.1514610310e-1)
    p = p * m + _f(1.1676998740e-1)
    p = p * m + _f(-1.2420140846e-1)
    p = p * m + _f(1.4249322787e-1)
    p = p * m + _f(-1.6668057665e-1)
    p = p * m + _f(2.0000714765e-1)
    p = p * m + _f(-2.4999993993e-1)
    p = p * m + _f(3.3333331174e-1)
    y = p * m * z + exponent * _f(-2.12194440e-4) - _f(0.5) * z
    y = m + y + exponent * _f(0.693359375)
    y = _select(x == _f(np.inf), x, _select(x == _f(0.0), _f(-np.inf), y))
    return _select(x >= _f(0.0), y, _f(np.nan))


@inlined
def _quadrant(x):
    # x = n pi / 2 + r. In double precision, so that large angles keep their digits.
    d = np.float64(x)
    n = (d * 0.6366197723675814 + 6755399441055744.0) - 6755399441055744.0
    r = (d - n * 1.5707963267948966) - n * 6.123233995736766e-17
    # Where doubles have no digits of it left, at 1e15 and above, any angle is as good, and polynomials would
    # leave [-1, 1]. That of infinity is NaN.
    r = _select(r * r <= 1.0, r, d - d)
    turn = n - 4.0 * ((n * 0.25 - 0.375 + 6755399441055744.0) - 6755399441055744.0)
    return _f(r), _f(turn)


@inlined
def _sine(r):
    z = r * r
    p = (_f(-1.9515295891e-4) * z + _f(8.3321608736e-3)) * z + _f(-1.6666654611e-1)
    return p * z * r + r


@inlined
def _cosine(r):
    z = r * r
    p = (_f(2.443315711809948e-5) * z + _f(-1.388731625493765e-3)) * z + _f(4.166664568298827e-2)
    return p * z * z - _f(0.5) * z + _f(1.0)


@inlined
def _sin32(x):
    r, turn = _quadrant(x)
    odd = (turn == _f(1.0)) | (turn == _f(3.0))
    y = _select(odd, _cosine(r), _sine(r))
    return _select(turn >= _f(2.0), -y, y)


@inlined
def _cos32(x):
    r, turn = _quadrant(x)
    odd = (turn == _f(1.0)) | (turn == _f(3.0))
    y = _select(odd, _sine(r), _cosine(r))
    return _select((turn == _f(1.0)) | (turn == _f(2.0)), -y, y)


@inlined
def _minimum(x, y):
    return x if (x < y) | (x != x) else y  # a NaN of either stays one


@inlined
def _maximum(x, y):
    return x if (x > y) | (x != x) else y


def _vocabulary(number: type, **functions: Any) -> dict[str, Any]:
    # A choice between two literals is in the precision of the rule.
    return {
        "where": Routine(_select.function, EXACT, number=number),
        "sqrt": _of_llvm("llvm.sqrt"),
        "absolute": _of_llvm("llvm.fabs"),
        "minimum": _minimum,
        "maximum": _maximum,
        **functions,
    }


VOCABULARY = {
    "float32": _vocabulary(np.float32, exp=_exp32, log=_log32, sin=_sin32, cos=_cos32),
    "float64": _vocabulary(
        np.float64, **{name: _of_llvm(f"llvm.{name}") for name in ("exp", "log", "sin", "cos")}
    ),
}


def compile_rule(function: Callable[..., Any], dtype: str, operands: int) -> Routine:
    r"""Makes a routine of a pair or link function, for scalars of one type.

    Args:
        function (Callable): The function, or its derivative.
        dtype (str): ``"float32"`` or ``"float64"``.
        operands (int): How many of its arguments are not constants of the rule: 2 for a pair, 1 for a link.

    Returns:
        A routine of the operands and always two constants, of which it takes as many as it knows.
    """
    constants = function.__code__.co_argcount - operands
    if not 0 <= constants <= 2:
        raise TypeError(
            f"Expected '{function.__name__}' to take {operands} numbers and at most 2 constants (got "
            f"{function.__code__.co_argcount} arguments); compute other constants ahead of it"
        )
    number = np.dtype(dtype).type
    takes = operands + constants
    return translate(  # type: ignore[no-any-return]
        function, VOCABULARY[dtype], lambda copy: Routine(copy, EXACT, number=number, takes=takes)
    )
