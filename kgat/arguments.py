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
        >>> named = Named(8, "a", "b", law="normal")
        >>> named._arguments
        {'size': 8, 'parts': ('a', 'b'), 'heads': 1, 'law': 'normal'}
        >>> named._changed_arguments("size")
        {'law': 'normal'}
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

    def _shown(self, first: str, *others: str) -> str:
        # What goes into a repr: sizes, which are attributes, and arguments whose value is not the default.
        shown = {name: getattr(self, name) for name in others} | self._changed_arguments(first, *others)
        return ", ".join(
            [repr(getattr(self, first)), *(f"{name}={value!r}" for name, value in shown.items())]
        )

    def _changed_arguments(self, *besides: str) -> dict[str, Any]:
        # Those whose value is not the default, but for modules, of which torch shows those that became parts,
        # and for what has no name.
        parameters = inspect.signature(type(self).__init__).parameters
        changed = {}
        for name, value in self._arguments.items():
            parameter = parameters.get(name)  # none of what came by **kwargs
            unnamed = parameter is not None and parameter.kind is inspect.Parameter.VAR_POSITIONAL
            if unnamed or name in besides or isinstance(value, torch.nn.Module):
                continue
            if parameter is None or not _alike(value, parameter.default):
                changed[name] = value
        return changed


def _alike(value: Any, usual: Any) -> bool:
    if isinstance(value, int | float) and isinstance(usual, int | float):
        return value == usual
    # Of tensors and arrays, == is no truth value: they are alike if they look so.
    return value is usual or repr(value) == repr(usual)
