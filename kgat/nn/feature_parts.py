r"""Features of tokens in parts, each with the logarithm of what it is to be multiplied with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kgat.ops.precision import at_least_single

# Features [B, N, H, P] of one side, and the logarithms of their scales [B, N, H]; None where they are 1.
Parts = list[tuple[Tensor, Tensor | None]]


def mapped(parts: Parts, function: Callable[[Tensor], Tensor]) -> Parts:
    r"""Applies a function of tokens to features and to the logarithms of their scales."""
    return [(function(f), None if log is None else function(log)) for f, log in parts]


def joined(parts: Parts) -> Tensor:
    r"""Returns all features, times their scales.

    Shapes:
        - **output:** :math:`(B, N, H, P)`
    """
    return torch.cat([f if log is None else f * log.exp().unsqueeze(-1) for f, log in parts], dim=-1)


def projected(parts: Parts, rows: Parts | None, weight: Tensor) -> Tensor:
    r"""Returns :math:`(\mathbf{F}^\top \mathbf{W})^\top \phi` of each token. A scale is multiplied in last,
    where all of it is together.

    Args:
        parts (list): The features :math:`\phi`.
        rows (list, optional): The rows :math:`\mathbf{F}`: lifted as the features are, or in one part of
            channels as they are; the identity if :obj:`None`.
        weight (torch.Tensor): :math:`\mathbf{W}`.

    Shapes:
        - **weight:** :math:`(H, n, s)`, **output:** :math:`(B, N, H, s)`
    """
    matrices: Parts
    if rows is None or len(rows) != len(parts):
        by_row = weight.unsqueeze(0) if rows is None else _times_rows(rows[0][0], weight)
        matrices = [(w, None) for w in by_row.split([f.size(-1) for f, _ in parts], dim=-2)]
    else:
        matrices = [_scaled_rows(g, log, weight) for g, log in rows]
    out: Tensor | None = None
    for (f, log), (matrix, top) in zip(parts, matrices, strict=True):
        part = torch.einsum("bnhp,bhps->bnhs", f, matrix.expand(f.size(0), *matrix.shape[1:]))
        if top is not None:
            log = top if log is None else log + top
        if log is not None:
            part = part * log.exp().unsqueeze(-1)
        out = part if out is None else out + part
    assert out is not None
    return out


def _scaled_rows(g: Tensor, log: Tensor | None, weight: Tensor) -> tuple[Tensor, Tensor | None]:
    # F^T W of some features over exp of the largest scale of a row, and that scale [B, 1, H].
    if log is None:
        return _times_rows(g, weight), None
    top = log.detach().amax(dim=1, keepdim=True)
    top = torch.where(top.isfinite(), top, 0.0)
    return _times_rows(g * (log - top).exp().unsqueeze(-1), weight), top


def _times_rows(rows: Tensor, weight: Tensor) -> Tensor:
    # F^T W, for each item: [B, H, P, s].
    return torch.einsum("bnhp,hns->bhps", rows, weight)


def running_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    r"""Returns the means of the tokens up to each, in single precision at least.

    Args:
        x (torch.Tensor): The tokens.
        mask (torch.Tensor, optional): True where there is a token.

    Shapes:
        - **x, output:** :math:`(B, N, H, D)`, **mask:** :math:`(B, N)`
    """
    x = at_least_single(x)
    if mask is None:
        count = torch.arange(1, x.size(1) + 1, device=x.device)[:, None, None]
    else:
        x = x.masked_fill(~mask[..., None, None], 0.0)
        count = mask.cumsum(dim=1).clamp(min=1)[..., None, None]
    return x.cumsum(dim=1) / count


def evenly_spaced(x: Tensor, mask: Tensor | None, rows: int) -> Tensor:
    r"""Returns rows that are evenly spaced among the tokens of each item.

    Args:
        x (torch.Tensor): The tokens.
        mask (torch.Tensor, optional): True where there is a token.
        rows (int): How many; of fewer tokens some are repeated.

    Shapes:
        - **x:** :math:`(B, N, F)`, **mask:** :math:`(B, N)`, **output:** :math:`(B, n, F)`
    """
    tokens = x.size(1)
    if tokens == 0:
        return x.new_zeros(x.size(0), rows, x.size(-1))
    steps, last = torch.arange(rows, device=x.device), max(1, rows - 1)
    if mask is None:
        return x.index_select(1, steps * (tokens - 1) // last)
    count = mask.sum(dim=-1, keepdim=True)  # [B, 1]
    order = (~mask).long().argsort(dim=-1, stable=True)  # tokens first
    places = order.gather(1, steps * (count - 1).clamp(min=0) // last)  # [B, n]
    return x.gather(1, places.unsqueeze(-1).expand(-1, -1, x.size(-1)))
