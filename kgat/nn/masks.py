r"""Who sees whom: the masks of torch's attention, read into what a score is given."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kgat.names import bare


class Masks(NamedTuple):
    r"""What masks say of pairs and of keys; each is :obj:`None` where they say nothing.

    Shapes:
        - **hidden:** :math:`(B, N, M)` or :math:`(B, 1, M)`, True where no head sees a key
        - **bias:** :math:`(B, N, M, H)`, where all but :math:`M` may be 1: what is added to scores
        - **present:** :math:`(B, M)`, False for padding, which is left out of numbers of a whole sequence
    """

    hidden: Tensor | None
    bias: Tensor | None
    present: Tensor | None

    def extended(self, extra: int, later: Tensor | None) -> Masks:
        r"""Returns the masks for some more keys at the end, which every query sees.

        Args:
            extra (int): How many.
            later (torch.Tensor, optional): True for pairs that the order of the tokens hides.

        Shapes:
            - **later:** :math:`(N, M)`
        """
        hidden, bias, present = self
        if later is not None:
            hidden = later if hidden is None else hidden | later
        return Masks(
            None if hidden is None else F.pad(hidden, (0, extra)),
            None if bias is None else F.pad(bias, (0, 0, 0, extra)),
            None if present is None else F.pad(present, (0, extra), value=True),
        )


def read_masks(
    key_padding_mask: Tensor | None, attn_mask: Tensor | None, query: Tensor, key: Tensor
) -> Masks:
    r"""Reads masks as :class:`torch.nn.MultiheadAttention` takes them: True hides, numbers are added.

    Args:
        key_padding_mask (torch.Tensor, optional): Which keys nobody sees.
        attn_mask (torch.Tensor, optional): Which pairs do not see each other.
        query (torch.Tensor): Queries.
        key (torch.Tensor): Keys.

    Shapes:
        - **key_padding_mask:** :math:`(B, M)`, **attn_mask:** :math:`(N, M)`, :math:`(B H, N, M)` or
          :math:`(B, H, N, M)`, where :math:`B`, :math:`H` and :math:`N` may be 1
        - **query:** :math:`(B, N, H, D)`, **key:** :math:`(B, M, H, D)`

    Raises:
        ValueError: If shapes do not fit, or a mask is neither bool nor of floating numbers.
    """
    hidden: Tensor | None = None
    bias: Tensor | None = None
    present: Tensor | None = None
    batch, queries, heads, keys = *query.shape[:3], key.size(1)
    if key_padding_mask is not None:
        if key_padding_mask.shape != (batch, keys):
            raise ValueError(
                f"Expected 'key_padding_mask' of shape [B={batch}, M={keys}] (got "
                f"{list(key_padding_mask.shape)}); True hides a key"
            )
        if _is_bool("key_padding_mask", key_padding_mask):
            hidden, present = key_padding_mask.unsqueeze(1), ~key_padding_mask
        else:
            bias, present = key_padding_mask.view(batch, 1, keys, 1), key_padding_mask > -torch.inf
    if attn_mask is not None:
        of_heads = _of_heads(attn_mask, batch, heads, queries, keys)  # [B or 1, H or 1, N or 1, M]
        if not _is_bool("attn_mask", attn_mask):
            numbers = of_heads
        elif of_heads.size(1) == 1:
            pairs = of_heads.squeeze(1)
            return Masks(pairs if hidden is None else hidden | pairs, bias, present)
        else:
            numbers = torch.zeros_like(of_heads, dtype=query.dtype).masked_fill(of_heads, -torch.inf)
        numbers = numbers.movedim(1, -1)
        bias = numbers if bias is None else bias + numbers
    return Masks(hidden, bias, present)


def _of_heads(attn_mask: Tensor, batch: int, heads: int, queries: int, keys: int) -> Tensor:
    if attn_mask.shape == (queries, keys):
        return attn_mask.view(1, 1, queries, keys)
    if attn_mask.shape == (batch * heads, queries, keys):
        return attn_mask.unflatten(0, (batch, heads))
    sizes = zip(attn_mask.shape, (batch, heads, queries), strict=False)
    fits = attn_mask.dim() == 4 and all(size in (1, wanted) for size, wanted in sizes)
    if not fits or attn_mask.size(-1) != keys:
        raise ValueError(
            f"Expected 'attn_mask' of shape [N={queries}, M={keys}], [B * H={batch * heads}, "
            f"N={queries}, M={keys}] or [B={batch} or 1, H={heads} or 1, N={queries} or 1, M={keys}] "
            f"(got {list(attn_mask.shape)}); True hides a pair"
        )
    return attn_mask


def _is_bool(name: str, mask: Tensor) -> bool:
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise ValueError(
            f"Expected a bool or floating '{name}' (got {bare(mask.dtype)}); True hides, a number is added "
            f"to the score"
        )
    return mask.dtype == torch.bool
