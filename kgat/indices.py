r"""Indices as torch scatters by them."""

import torch
from torch import Tensor

__all__ = ["as_long"]


def as_long(index: Tensor) -> Tensor:
    r"""Returns int32 indices as int64, others as they are.

    Torch selects, adds and copies rows by both types. Its scatter takes both too, but the gradient of it is a
    gather, which reads int32 indices that are spread over channels as if they were int64: it is wrong, and
    nothing says so. Whatever goes into a scatter, of torch or of PyG, goes through this first.

    Args:
        index (torch.Tensor): The indices.

    Example:
        >>> as_long(torch.tensor([2, 0], dtype=torch.int32))
        tensor([2, 0])
    """
    return index.long() if index.dtype == torch.int32 else index
