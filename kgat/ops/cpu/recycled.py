r"""Memory that passes over one graph take again."""

from __future__ import annotations

import math
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

# Numbers. Below, an allocator is as fast; above, memory that lies idle is worth more than its page faults.
LEAST, MOST = 1 << 18, 1 << 26
# Tensors of one shape that are kept: as many layers can wait for their backward.
KEPT = 16


class Recycled:
    r"""Tensors without values, whose memory is taken again once nobody else has it: an allocator gives large
    ones back to the system, and each page that comes anew costs as much as thousands of multiplications.

    Who has it is asked of the memory itself, so that neither views, hooks on saved tensors, checkpoints, a
    graph that is kept for a second backward nor another thread can see it change. What other processes may
    have is not taken again.
    """

    def __init__(self) -> None:
        self._tensors: dict[tuple[Any, ...], list[Tensor]] = {}
        _everywhere.add(self)

    def clear(self) -> None:
        r"""Forgets all of it: what nobody else has is free."""
        self._tensors.clear()

    def empty(self, like: Tensor, *size: int) -> Tensor:
        r"""Returns a tensor of a size, without values.

        Args:
            like (torch.Tensor): Has its type, and is on the CPU.
            *size (int): Its shape.
        """
        numbers = math.prod(size)
        if not LEAST <= numbers <= MOST or torch.is_inference_mode_enabled():
            return like.new_empty(size)
        tensors = self._tensors.setdefault((like.dtype, *size), [])
        for _ in range(len(tensors)):
            try:
                tensor = tensors.pop(0)  # out of the others' sight until it has a second owner
            except IndexError:
                break
            whole = tensor.untyped_storage().nbytes() >= numbers * like.itemsize
            if not whole or tensor.is_shared():
                continue
            result = tensor.detach() if _owners(tensor) == 1 else None
            tensors.append(tensor)
            if result is not None:
                return result
        new = like.new_empty(size)
        if len(tensors) < KEPT:
            tensors.append(new.detach())
        return new


_everywhere: WeakSet[Recycled] = WeakSet()


def clear() -> None:
    r"""Forgets what all graphs keep."""
    for memory in list(_everywhere):
        memory.clear()


def _owners(tensor: Tensor) -> int:
    # As torch's own graphs of CUDA ask; to ask makes one more.
    return torch._C._storage_Use_Count(tensor.untyped_storage()._cdata) - 1
