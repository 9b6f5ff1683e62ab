r"""Modules that know the arguments they were built with."""

import inspect
from typing import Any, Self

import torch

__all__ = ["KnowsArguments"]


class KnowsArguments(torch.nn.Module):
    r"""A module that keeps the arguments it was built with, those left at their defaults too.

    Example:
        >>> class Named(KnowsArguments):
        ...     def __init__(self, size, *parts, heads=1, **kwargs):
        ...         super().__init__()
        >>> Named(8, "a", "b", law="normal")._arguments
        {'size': 8, 'parts': ('a', 'b'), 'heads': 1, 'law': 'normal'}
    """

    _arguments: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Some versions of Python take the signature of __new__ for that of the class.
        _, *parameters = inspect.signature(cls.__init__).parameters.values()
        cls.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        # Partial, as a copy is made without arguments and then given those of the original.
        bound = inspect.signature(cls.__init__).bind_partial(self, *args, **kwargs)
        bound.apply_defaults()
        _, *arguments = bound.arguments.items()
        of_kind = {name: parameter.kind for name, parameter in bound.signature.parameters.items()}
        known: dict[str, Any] = {}
        for name, value in arguments:
            known |= value if of_kind[name] is inspect.Parameter.VAR_KEYWORD else {name: value}
        object.__setattr__(self, "_arguments", known)
        return self
