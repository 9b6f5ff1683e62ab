r"""The few functions that rules are written in.

A pair or link function is written once, as scalars: ``where(t > 0, t, slope * t)``. With the functions of
this module it runs on torch tensors and on numbers. Called with symbols it is written down instead, as text
that :mod:`kgat.score.derive` differentiates and that a compiling backend has speak its own vocabulary
(scalars on the CPU, blocks in Triton).
"""

from __future__ import annotations

import itertools
import linecache
import math
import types
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(slots=True, eq=False, repr=False)
class Symbol:
    r"""A number that is not known yet: what is done with it is written down.

    Args:
        tape (Tape): What it is written down on, a :class:`~kgat.score.derive.Tape`.
        operation (str): What it is the result of, ``"input"`` if of nothing.
        operands (tuple): Of what: symbols and numbers.
        place (int): Its place among all symbols of the tape.
        varies (bool): Whether it depends on what one differentiates by, rather than on constants alone.
    """

    tape: Any
    operation: str
    operands: tuple[Any, ...]
    place: int
    varies: bool
    __array_ufunc__ = None  # a number of NumPy leaves arithmetic with it to this class

    def __pow__(self, exponent: Any) -> Any:
        return self.tape.power(self, exponent)

    def __bool__(self) -> bool:
        raise TypeError(
            "Expected a rule without branches on its arguments (got a comparison where Python needs true or "
            "false); use 'where', 'minimum' and 'maximum' of kgat.score.scalar"
        )


def _method(operation: str, reflected: bool = False) -> Callable[..., Any]:
    def method(self: Any, *other: Any) -> Any:
        return self.tape.apply(operation, *((*other, self) if reflected else (self, *other)))

    return method


for _name in ("neg", "abs", "add", "sub", "mul", "truediv", "lt", "le", "gt", "ge", "eq", "ne", "and", "or"):
    setattr(Symbol, f"__{_name}__", _method("absolute" if _name == "abs" else _name))
for _name in ("add", "sub", "mul", "truediv"):
    setattr(Symbol, f"__r{_name}__", _method(_name, reflected=True))


def where(condition: Any, x: Any, y: Any) -> Any:
    r"""Returns :obj:`x` where the condition holds, else :obj:`y`; both are evaluated.

    On tensors, a choice between two numbers is in single precision; in a rule, in that of its arguments.
    """
    if isinstance(condition, bool):
        return x if condition else y
    if isinstance(condition, Symbol):
        return condition.tape.apply("where", condition, x, y)
    return torch.where(condition, _held(x, y), _held(y, x))


def exp(x: Any) -> Any:
    r"""Computes :math:`e^x`."""
    return _unary("exp", x)


def log(x: Any) -> Any:
    r"""Computes the natural logarithm."""
    return _unary("log", x)


def sin(x: Any) -> Any:
    r"""Computes the sine."""
    return _unary("sin", x)


def cos(x: Any) -> Any:
    r"""Computes the cosine."""
    return _unary("cos", x)


def sqrt(x: Any) -> Any:
    r"""Computes the square root."""
    return _unary("sqrt", x)


def absolute(x: Any) -> Any:
    r"""Computes :math:`|x|`; its derivative at 0 is 0."""
    return abs(x)


def minimum(x: Any, y: Any) -> Any:
    r"""Returns the smaller; at a tie each has half of the derivative, a constant none."""
    return _extreme("minimum", x, y)


def maximum(x: Any, y: Any) -> Any:
    r"""Returns the larger; at a tie each has half of the derivative, a constant none: ``maximum(t, 0.0)`` is
    the ReLU."""
    return _extreme("maximum", x, y)


def _unary(name: str, x: Any) -> Any:
    if isinstance(x, Tensor):
        return getattr(torch, name)(x)
    return x.tape.apply(name, x) if isinstance(x, Symbol) else getattr(math, name)(x)


def _extreme(name: str, x: Any, y: Any) -> Any:
    for operand in (x, y):
        if isinstance(operand, Symbol):
            return operand.tape.apply(name, x, y)
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        return getattr(torch, name)(x, y)
    if not isinstance(x, Tensor):
        x, y = y, x
    if not isinstance(x, Tensor):
        return min(x, y) if name == "minimum" else max(x, y)
    return torch.where(x >= y if name == "minimum" else x <= y, _held(y, x), x)


def _held(x: Any, like: Any) -> Any:
    # Torch refuses a number that a precision does not hold. Compiled, and in arithmetic, it is infinite.
    if isinstance(x, Tensor) or not isinstance(like, Tensor) or not like.is_floating_point():
        return x
    return math.copysign(math.inf, x) if abs(x) > torch.finfo(like.dtype).max else x


def typed(x: Any, like: Tensor) -> Any:
    r"""Returns a number in the precision of a tensor, so that a choice between two numbers keeps it."""
    return x if isinstance(x, Tensor) or not isinstance(like, Tensor) else like.new_full((), _held(x, like))


def taken(condition: Any, x: Any, holds: bool) -> Any:
    r"""Returns what it is given, which has a gradient where a condition holds, or where it does not."""
    if not (isinstance(x, Tensor) and isinstance(condition, Tensor)):
        return x
    still = x.detach()
    return torch.where(condition, x, still) if holds else torch.where(condition, still, x)


VOCABULARY = (where, exp, log, sin, cos, sqrt, absolute, minimum, maximum)


def translate(
    function: Callable[..., Any] | str,
    vocabulary: Mapping[str, Any],
    compiler: Callable[[types.FunctionType], Any],
) -> Any:
    r"""Compiles a copy of :obj:`function` that speaks another vocabulary.

    Args:
        function (Callable or str): A function that :mod:`kgat.score.derive` wrote (:obj:`in_scalars` or
            :obj:`derivative` of a rule), or its ``text``.
        vocabulary (Mapping): What stands for ``where``, ``exp`` and the others, by name.
        compiler (Callable): Compiles a function whose globals are already exchanged.

    Raises:
        TypeError: If :obj:`function` is no such function.

    Example:
        >>> import math
        >>> from kgat.score.rules import Link
        >>> from kgat.score.scalar import exp, translate
        >>> decay = Link("decay", lambda t: exp(-t)).in_scalars
        >>> translate(decay, {"exp": math.exp}, lambda function: function)(1.0) == math.exp(-1.0)
        True
    """
    text = getattr(function, "text", function)
    if not isinstance(text, str):
        raise TypeError(
            f"Expected a function that was written from a rule (got {function!r}); rules are written with "
            f"arithmetic and the functions of kgat.score.scalar"
        )
    file = f"<kgat rule {next(_count)}>"
    names: dict[str, Any] = {"__builtins__": {}, "__name__": __name__, **vocabulary}
    exec(compile(text, file, "exec"), names)
    copy: types.FunctionType = names.pop(text[len("def ") : text.index("(")])
    # Triton reads the source of what it compiles. It stays as long as the code does.
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    weakref.finalize(copy.__code__, linecache.cache.pop, file, None).atexit = False
    return compiler(copy)


_count = itertools.count()
