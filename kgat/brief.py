r"""What the ``repr`` of an object that holds tensors says: their shapes, as PyG's ``Data`` has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

__all__ = ["Brief", "brief"]

MANY = 3  # things that are counted, no longer listed
LONG = 120  # characters


class Brief:
    r"""Base class of dataclasses (with ``repr=False``) that print shapes instead of numbers.

    Example:
        >>> from kgat.datasets import load
        >>> load("karate").split(0)
        Split(name='random-0', train=8 of [34], val=10 of [34], test=16 of [34])
    """

    def __repr__(self) -> str:
        said = (f"{field.name}={brief(getattr(self, field.name))}" for field in fields(self))  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(said)})"


def brief(value: Any) -> str:
    r"""Returns what a ``repr`` says of a value.

    Args:
        value (object): A tensor, of which the shape is said, and of a mask how many are true; a sequence or
            mapping, of which the entries are said or counted; anything else.

    Example:
        >>> brief(torch.zeros(2, 3)), brief(torch.tensor([True, False])), brief([torch.zeros(1)] * 9)
        ('[2, 3]', '1 of [2]', '9 x Tensor')
        >>> brief({"a": torch.zeros(4)}), brief("text")
        ("{'a': [4]}", "'text'")
    """
    if isinstance(value, Tensor):
        shape = "[ragged]" if value.is_nested else str(list(value.shape))
        # A look at another device would wait for it.
        is_mask = value.dtype == torch.bool and value.device.type == "cpu" and not value.is_nested
        return f"{int(value.sum())} of {shape}" if is_mask else shape
    if isinstance(value, str | bytes):
        return repr(value)
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key!r}: {brief(entry)}' for key, entry in value.items())}}}"
    if isinstance(value, list | tuple):
        if len(value) > MANY:
            return f"{len(value)} x {type(value[0]).__name__}"
        inside = ", ".join(map(brief, value))
        return f"({inside})" if isinstance(value, tuple) else f"[{inside}]"
    if isinstance(value, Sequence) and not isinstance(value, range):  # that may compute what is asked for
        return f"{type(value).__name__} of {len(value)}"
    said = repr(value)
    return said if len(said) <= LONG or isinstance(value, Brief) else f"{type(value).__name__}(...)"
