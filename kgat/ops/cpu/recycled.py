r"""Memory that passes over one graph take again."""

from __future__ import annotations

import functools
import math
import sys
import threading
from weakref import WeakSet

import torch
from torch import Tensor

# Numbers of a tensor. Below, an allocator is as fast; above, idle memory is worth more than its pages.
LEAST, MOST = 1 << 18, 1 << 26
# Numbers of all that one graph keeps: what was used longest ago is forgotten first.
ROOM = 1 << 27
# Of torch's own graphs of CUDA, which ask in the same way. Nothing is taken again where it is not there.
_use_count = getattr(torch._C, "_storage_Use_Count", None)


class Recycled:
    r"""Tensors without values, whose memory is taken again once nobody else has it: an allocator gives large
    ones back to the system, and each page that comes anew costs as much as thousands of multiplications.

    Who has it is asked of the memory itself, so that neither views, hooks on saved tensors, checkpoints, a
    graph that is kept for a second backward nor another thread can see it change. What other processes may
    have is not taken again.
    """

    def __init__(self) -> None:
        self._tensors: list[Tensor] = []  # in the order of their last use
        self._lock = threading.Lock()
        _everywhere.add(self)

    def empty(self, like: Tensor, *size: int) -> Tensor:
        r"""Returns a tensor of a size, without values.

        Args:
            like (torch.Tensor): Has its type, and is on the CPU.
            *size (int): Its shape.
        """
        numbers = math.prod(size)
        if not LEAST <= numbers <= MOST or torch.is_inference_mode_enabled() or _use_count is None:
            return like.new_empty(size)
        # Nobody waits for another thread, so that no process is forked into waiting forever.
        if not self._lock.acquire(blocking=False):
            return like.new_empty(size)
        try:
            for place, tensor in enumerate(self._tensors):
                if tensor.dtype is like.dtype and tensor.shape == size and _is_idle(tensor):
                    del self._tensors[place]
                    break
            else:
                tensor = like.new_empty(size)
            self._tensors.append(tensor)
            while sum(map(Tensor.numel, self._tensors)) > ROOM:
                del self._tensors[0]
            return tensor.data  # counts its own changes, unlike what is detached
        finally:
            self._lock.release()

    def clear(self) -> None:
        r"""Forgets all of it: what nobody else has is free."""
        with self._lock:
            self._tensors.clear()


_everywhere: WeakSet[Recycled] = WeakSet()


def clear() -> None:
    r"""Forgets what all graphs keep."""
    for memory in list(_everywhere):
        memory.clear()


def _is_idle(tensor: Tensor) -> bool:
    whole = tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.itemsize
    return whole and not tensor.is_shared() and _owners(tensor) == _owners_of_one()


def _owners(tensor: Tensor) -> tuple[int, int]:
    # Of the memory, and of the one Python object that stands for it.
    storage = tensor.untyped_storage()
    return _use_count(storage._cdata), sys.getrefcount(storage)  # type: ignore[misc]


@functools.cache
def _owners_of_one() -> tuple[int, int]:
    return _owners(torch.empty(1))
