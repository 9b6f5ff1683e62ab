r"""Keys that no query sees, whichever of several reasons hides them from each."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["hide_unseen"]


def hide_unseen(
    mask: Tensor | None, bias: Tensor | None, causal: bool, queries: int, keys: int
) -> Tensor | None:
    r"""Returns a mask that also hides the keys that mask, bias and order of the tokens hide together: from
    some queries the one, from the others the other. What such a key holds, NaN too, then is nobody's.

    A mask or a bias that is one row for all queries hides a key by itself or not at all, and the order of the
    tokens lets the last query see all of them: these need no look at all pairs.

    Args:
        mask (torch.Tensor, optional): True where a query sees a key.
        bias (torch.Tensor, optional): Added to the scores; :math:`-\infty` hides.
        causal (bool): Whether a query sees the keys up to its own place only, counted from the end.
        queries (int): :math:`N`.
        keys (int): :math:`M`.

    Shapes:
        - **mask, output:** :math:`(*, N, M)` or :math:`(*, 1, M)`, **bias:** :math:`(*, N, M, H)`, where
          :math:`N` and :math:`H` may be 1

    Example:
        >>> import torch
        >>> mask = torch.tensor([[True, True], [True, False]])
        >>> hide_unseen(mask, None, True, 2, 2)
        tensor([[ True, False],
                [ True, False]])
    """
    visible = mask if mask is not None and mask.size(-2) != 1 else None
    reasons = int(causal) + (visible is not None)
    if bias is not None and bias.size(-3) != 1:
        reasons += 1
        if reasons > 1:
            by_bias = (bias.detach() != -torch.inf).any(dim=-1)
            visible = by_bias if visible is None else visible & by_bias
    if reasons < 2:
        return mask
    assert visible is not None
    if causal:
        order = torch.ones(queries, keys, dtype=torch.bool, device=visible.device)
        visible = visible & order.tril(keys - queries)
    seen = visible.any(dim=-2, keepdim=True)
    return seen if mask is None else mask & seen
