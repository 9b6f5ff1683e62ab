r"""The logits of additive attention: inner products of each node's heads with two vectors.

On the CPU one compiled pass over the nodes makes both, and another all of their gradients: of a small graph,
the ops of torch that do as much take longer than attention. Elsewhere, and inside of compilers and
transforms, torch's ops do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kgat.ops.batching import is_watched
from kgat.ops.graph.device import available


def logits(x: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns :math:`\langle \mathbf{x}_{ih}, \mathbf{a}_h \rangle` and :math:`\langle \mathbf{x}_{ih},
    \mathbf{b}_h \rangle`.

    Args:
        x (torch.Tensor): Nodes.
        first (torch.Tensor): :math:`\mathbf{a}`.
        second (torch.Tensor): :math:`\mathbf{b}`.

    Shapes:
        - **x:** :math:`(*, N, H, D)`, **first, second:** :math:`(H, D)`, **output:** twice
          :math:`(*, N, H, 1)`
    """
    if is_watched(x, first, second):  # a compiler brings the passes together by itself
        return logit(x, first), logit(x, second)
    if not torch.is_grad_enabled():
        return forward(x, first, second)
    return _Logits.apply(x, first, second)  # type: ignore[no-any-return, no-untyped-call]


def logit(x: Tensor, vector: Tensor) -> Tensor:
    r"""Returns one of the :func:`logits`."""
    # A batched product of so narrow matrices takes five times as long as this sum.
    return (x * vector).sum(dim=-1, keepdim=True)


def in_one_pass(x: Tensor, first: Tensor, second: Tensor) -> bool:
    r"""Returns whether a compiled pass takes these operands of :func:`logits`."""
    types = {x.dtype, first.dtype, second.dtype}
    return types <= _TYPES and len(types) == 1 and x.device.type == "cpu" and available() is None


_TYPES = {torch.float32, torch.float64}


class _Logits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        ctx.save_for_backward(x, first, second)
        return forward(x, first, second)

    @staticmethod
    def backward(ctx: Any, d_s: Tensor, d_t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, first, second = ctx.saved_tensors
        return backward(x, first, second, d_s, d_t)


def forward(x: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns :func:`logits` of what nobody looks at, without a graph for backward where a pass is
    compiled."""
    if not in_one_pass(x, first, second):
        return logit(x, first), logit(x, second)
    from kgat.ops.cpu.launch import logits as compiled

    return compiled(x, first, second)


def backward(
    x: Tensor, first: Tensor, second: Tensor, d_s: Tensor, d_t: Tensor, to: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Returns the gradients of :func:`logits`.

    Args:
        x (torch.Tensor): Nodes.
        first (torch.Tensor): :math:`\mathbf{a}`.
        second (torch.Tensor): :math:`\mathbf{b}`.
        d_s (torch.Tensor): The gradient of the first.
        d_t (torch.Tensor): That of the second.
        to (torch.Tensor, optional): Another gradient of the nodes, which theirs may be added to in place.
            (default: :obj:`None`)
    """
    tensors = (x, first, second, d_s, d_t)
    if torch.is_grad_enabled() or is_watched(*tensors, to) or not in_one_pass(x, first, second):
        d_x, *of_vectors = _gradients(*tensors)
        return (d_x if to is None else to + d_x, *of_vectors)  # type: ignore[return-value]
    from kgat.ops.cpu.launch import logits_backward as compiled

    return compiled(*tensors, to)


def _gradients(
    x: Tensor, first: Tensor, second: Tensor, d_s: Tensor, d_t: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    # In ops of torch, of which there are derivatives: one pass over the nodes for both gradients of theirs,
    # one product for those of both vectors.
    d_x = torch.addcmul(d_s * first, d_t, second)
    # Of the product of all heads with all heads, those of a head with itself.
    heads, channels = first.shape
    both = torch.cat([d_s, d_t], dim=-2).reshape(-1, 2 * heads)
    product = both.T @ x.reshape(-1, heads * channels)
    own = product.view(2, heads, heads, channels).diagonal(dim1=1, dim2=2)  # [2, D, H]
    d_first, d_second = own.transpose(1, 2)
    return d_x, d_first, d_second
