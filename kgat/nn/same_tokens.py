r"""Whether an attention module was called with one sequence for two of its arguments."""

from __future__ import annotations

from torch import Tensor

from kgat.capture import is_captured

__all__ = ["same_tokens"]


def same_tokens(x: Tensor, y: Tensor) -> bool:
    r"""Returns whether two tensors are one, or views of the same numbers: hooks on modules and
    :func:`torch.utils.checkpoint.checkpoint` make other objects of what they pass on.

    Args:
        x (torch.Tensor): A tensor.
        y (torch.Tensor): Another one.

    Example:
        >>> import torch
        >>> x = torch.ones(2, 3)
        >>> same_tokens(x, x.view_as(x)), same_tokens(x, x.clone())
        (True, False)
    """
    if x is y:
        return True
    if x.is_nested or y.is_nested or is_captured() or x.is_meta or y.is_meta:
        return False
    alike = x.shape == y.shape and x.dtype == y.dtype and x.device == y.device and x.stride() == y.stride()
    return alike and x.data_ptr() == y.data_ptr()
