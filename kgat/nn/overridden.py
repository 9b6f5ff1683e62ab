r"""Whether a layer computes what its class does, so that another one can take its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch_geometric.nn.conv import MessagePassing

# What a subclass may override and still compute what its class does, beside names between underscores.
HARMLESS = ("reset_parameters", "_reset_parameters", "extra_repr")


def expect_own(
    layer: torch.nn.Module, cls: type[torch.nn.Module], what_to_do: str, *harmless: type[torch.nn.Module]
) -> None:
    r"""Refuses a layer that does not compute what its class does, because a subclass, or the layer alone,
    overrides some of it.

    Args:
        layer (torch.nn.Module): The layer.
        cls (type): The class.
        what_to_do (str): What is to be done instead, for the message.
        *harmless (type): Bases of the class whose methods compute nothing that a layer puts out.

    Raises:
        TypeError: If it is such a layer, or none of the class.

    Example:
        >>> import torch
        >>> from kgat.nn.overridden import expect_own
        >>> class Doubled(torch.nn.Linear):
        ...     def forward(self, x):
        ...         return 2 * super().forward(x)
        >>> expect_own(Doubled(2, 2), torch.nn.Linear, "use it as it is")
        Traceback (most recent call last):
            ...
        TypeError: Expected a Linear that computes what its class does (got Doubled with its own 'forward'...
    """
    name, mro = type(layer).__name__, type(layer).__mro__
    if not isinstance(layer, cls):
        raise TypeError(f"Expected a {cls.__name__} (got {name}); {what_to_do}")
    apart = (*torch.nn.Module.__mro__, *harmless)
    own = {"forward", "__call__"} | {
        m for base in cls.__mro__ if base not in apart for m in _methods(vars(base))
    }
    places = (vars(layer), *map(vars, mro[: mro.index(cls)]))
    found = {
        method for place in places for method in _methods(place) & own if not _is_compiled(place[method])
    }
    if found:
        raise TypeError(
            f"Expected a {cls.__name__} that computes what its class does (got {name} with its own "
            f"{', '.join(map(repr, sorted(found)))}, which would be lost); {what_to_do}"
        )


def _methods(place: Mapping[str, Any]) -> set[str]:
    # PyG keeps the methods that it compiles under names of their own.
    return {
        name
        for name, value in place.items()
        if callable(value) or isinstance(value, property)
        if name == "__call__" or not (name in HARMLESS or name.startswith(("__", "_orig_", "_jinja_")))
    }


def _is_compiled(function: Any) -> bool:
    # What PyG writes on the class of the first layer, or on a layer; there also what it compiled it from.
    module = getattr(function, "__module__", None) or ""
    return module == MessagePassing.__module__ or module.endswith(("_propagate", "_edge_updater"))
