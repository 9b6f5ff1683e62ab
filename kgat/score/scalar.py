r"""The few functions that rules are written in.

A pair or link function is written once, as scalars: ``where(t > 0, t, slope * t)``. With the functions of
this module it runs on torch tensors; a backend that compiles rules calls :func:`translate` to have the same
source speak its own vocabulary (scalars in Numba, blocks in Triton).
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any

import torch

# Each is a function of its own, so that translate() can tell it from a torch function a rule might also use.


def where(condition: Any, x: Any, y: Any) -> Any:
    r"""Returns :obj:`x` where the condition holds, else :obj:`y`; both are evaluated.

    On tensors, a choice between two numbers is in single precision.
    """
    return torch.where(condition, x, y)


def exp(x: Any) -> Any:
    r"""Computes :math:`e^x`."""
    return torch.exp(x)


def log(x: Any) -> Any:
    r"""Computes the natural logarithm."""
    return torch.log(x)


def sin(x: Any) -> Any:
    r"""Computes the sine."""
    return torch.sin(x)


def cos(x: Any) -> Any:
    r"""Computes the cosine."""
    return torch.cos(x)


def sqrt(x: Any) -> Any:
    r"""Computes the square root."""
    return torch.sqrt(x)


def absolute(x: Any) -> Any:
    r"""Computes :math:`|x|`."""
    return torch.abs(x)


def minimum(x: Any, y: Any) -> Any:
    r"""Returns the smaller."""
    return torch.minimum(x, y)


def maximum(x: Any, y: Any) -> Any:
    r"""Returns the larger."""
    return torch.maximum(x, y)


VOCABULARY = (where, exp, log, sin, cos, sqrt, absolute, minimum, maximum)


def translate(
    function: Callable[..., Any],
    vocabulary: Mapping[str, Any],
    compiler: Callable[[types.FunctionType], Any],
) -> Any:
    r"""Compiles a copy of :obj:`function` that speaks another vocabulary.

    Args:
        function (Callable): A plain function, made with ``def``. Of global names it may use those of this
            module, numbers, and other such functions; it must not close over variables.
        vocabulary (Mapping): What stands for ``where``, ``exp`` and the others, by name.
        compiler (Callable): Compiles a function whose globals are already exchanged.

    Raises:
        TypeError: If :obj:`function` closes over variables, or uses a name that is none of these.

    Example:
        >>> import math
        >>> from kgat.score.scalar import exp, translate
        >>> def decay(x):
        ...     return exp(-x)
        >>> translate(decay, {"exp": math.exp}, lambda function: function)(1.0) == math.exp(-1.0)
        True
    """
    if not isinstance(function, types.FunctionType) or function.__closure__:
        raise TypeError(
            f"Expected a plain function without a closure (got {function!r}); make it with 'def' at the top "
            f"level of a module, and pass what it needs as an argument of the rule"
        )
    names: dict[str, Any] = {"__builtins__": {}, "__name__": function.__module__}
    for name in function.__code__.co_names:
        if name not in function.__globals__:
            raise TypeError(
                f"Expected '{function.__name__}' to use arithmetic and functions of kgat.score.scalar alone "
                f"(got '{name}'); of comparisons and branches it needs 'where', 'minimum' and 'maximum'"
            )
        value = function.__globals__[name]
        if any(value is known for known in VOCABULARY):
            names[name] = vocabulary[value.__name__]
        elif isinstance(value, types.FunctionType):
            names[name] = translate(value, vocabulary, compiler)
        elif isinstance(value, (int, float)):
            names[name] = value
        else:
            raise TypeError(
                f"Expected '{function.__name__}' to use numbers and functions of kgat.score.scalar (got "
                f"'{name}', a {type(value).__name__})"
            )
    return compiler(types.FunctionType(function.__code__, names, function.__name__, function.__defaults__))


def source(function: Callable[..., Any]) -> str:
    r"""Identifies what a function computes: its code and that of the functions it calls, as text."""
    assert isinstance(function, types.FunctionType)
    code = function.__code__
    parts = [code.co_code.hex(), repr(code.co_consts), repr(code.co_names)]
    for name in code.co_names:
        value = function.__globals__.get(name)
        if isinstance(value, types.FunctionType) and not any(value is known for known in VOCABULARY):
            parts.append(source(value))
        elif isinstance(value, (int, float)):
            parts.append(repr(value))
    return "|".join(parts)
