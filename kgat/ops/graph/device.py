r"""What the room of graphs asks of a device."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from types import ModuleType

import torch
from torch import Tensor

# What CUDA takes of the sentence of an assertion.
LONGEST = 254


def compiled(device: torch.device) -> ModuleType | None:
    r"""Returns the loops over graphs that are compiled for a device, :mod:`kgat.ops.cpu.graph`; :obj:`None`
    where torch does what they do."""
    return _by_llvm() if device.type == "cpu" else None


@functools.cache
def available() -> str | None:
    r"""Returns why nothing can be compiled for the CPU; :obj:`None` if it can."""
    try:
        # What any graph needs: where it cannot be compiled, as without the sources, nothing can.
        importlib.import_module("kgat.ops.cpu.graph").scanning(torch.int64)
    except (ImportError, OSError, RuntimeError) as error:
        return f"llvmlite cannot be used ({error})"
    return None


@functools.cache
def _by_llvm() -> ModuleType | None:
    return None if available() is not None else importlib.import_module("kgat.ops.cpu.graph")


def reads_at_once(device: torch.device) -> bool:
    r"""Returns whether the host reads a number of the device without waiting for it, or must wait because the
    device cannot assert."""
    return device.type != "cuda"


def blocks(device: torch.device) -> bool:
    r"""Returns whether the host may read a number of the device: also where the user lets it wait for every
    launch anyway, to see what fails."""
    return reads_at_once(device) or os.environ.get("CUDA_LAUNCH_BLOCKING") == "1"


def recording(device: torch.device) -> bool:
    r"""Returns whether a CUDA graph is being recorded: what is launched now computes nothing yet."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def runs_triton(device: torch.device) -> bool:
    r"""Returns whether programs of Triton may run there."""
    return device.type == "cuda" and importlib.util.find_spec("triton") is not None


def assert_later(condition: Tensor, sentence: str) -> None:
    r"""Lets the device raise a :class:`RuntimeError` when it gets there, unless :obj:`condition` holds.

    Args:
        condition (torch.Tensor): One bool.
        sentence (str): What was expected, of which a device says the first :data:`LONGEST` characters.
    """
    torch._assert_async(condition, sentence[:LONGEST])
