r"""Memory that passes over one graph take again."""

from __future__ import annotations

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
    graph that is kept for a second backward nor another thread can see it change.
    """

    def __init__(self) -> None:
        self._tensors: dict[tuple[torch.dtype, torch.Size], list[Tensor]] = {}

    def empty(self, like: Tensor, *size: int) -> Tensor:
        r"""Returns a tensor of a size, without values.

        Args:
            like (torch.Tensor): Has its type, and is on the CPU.
            *size (int): Its shape.
        """
        new = like.new_empty(size)
        if not LEAST <= new.numel() <= MOST:
            return new
        tensors = self._tensors.setdefault((new.dtype, new.shape), [])
        for _ in range(len(tensors)):
            try:
                tensor = tensors.pop(0)  # out of the others' sight until it has a second owner
            except IndexError:
                break
            result = tensor.detach() if _owners(tensor) == 1 else None
            tensors.append(tensor)
            if result is not None:
                return result
        if len(tensors) < KEPT:
            tensors.append(new.detach())
        return new


def _owners(tensor: Tensor) -> int:
    # As torch's own graphs of CUDA ask; to ask makes one more.
    return torch._C._storage_Use_Count(tensor.untyped_storage()._cdata) - 1
