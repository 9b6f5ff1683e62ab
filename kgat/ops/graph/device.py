r"""What the room of graphs asks of a device."""

from __future__ import annotations

import functools
from types import ModuleType

import torch


def compiled(device: torch.device) -> ModuleType | None:
    r"""Returns the loops over graphs that are compiled for a device, :mod:`kgat.ops.cpu.graph`; :obj:`None`
    where torch does what they do."""
    return _by_llvm() if device.type == "cpu" else None


@functools.cache
def _by_llvm() -> ModuleType | None:
    from kgat.ops.cpu.launch import available

    if available() is not None:
        return None
    from kgat.ops.cpu import graph

    return graph


def reads_at_once(device: torch.device) -> bool:
    r"""Returns whether the host reads a number of the device without waiting for it, or must wait because the
    device cannot assert."""
    return device.type != "cuda"
