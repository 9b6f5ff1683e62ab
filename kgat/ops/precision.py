r"""What is computed in another precision than it is stored in: half types in the single one."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["HALF", "at_least_single", "score_dtype"]

# Types to store numbers in, whose few digits neither sums nor exponentials stand.
HALF = (torch.float16, torch.bfloat16)


def at_least_single(x: Tensor) -> Tensor:
    r"""Returns numbers of half precision in single precision, others as they are.

    Args:
        x (torch.Tensor): The numbers.

    Example:
        >>> at_least_single(torch.ones(2, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return x.float() if x.dtype in HALF else x


def score_dtype(*tensors: Tensor | None) -> torch.dtype:
    r"""Returns the type in which scores are normalised and sums kept: the widest of all tensors, and single
    precision at least.

    Args:
        *tensors (torch.Tensor, optional): What is computed with, the first of them at least.
    """
    types = [t.dtype for t in tensors if t is not None]
    wide = types[0]
    for dtype in types[1:]:
        if dtype is not wide:
            wide = torch.promote_types(wide, dtype)
    return torch.float32 if wide in HALF else wide
