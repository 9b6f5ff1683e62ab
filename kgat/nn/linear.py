r"""A linear map of node features that may be stored sparsely."""

from __future__ import annotations

from typing import Any

import torch
import torch_geometric.nn.dense.linear as pyg
from torch import Tensor
from torch.autograd import Function

from kgat.nn.dtypes import check_dtype
from kgat.ops.dropout import dropout
from kgat.ops.graph.memory import CHANGED, Mark, keep, lasting, remember
from kgat.ops.graph.structure import Transpose


class Linear(pyg.Linear):
    r"""PyG's :class:`~torch_geometric.nn.dense.linear.Linear`, quick for ``torch.sparse_csr`` features.

    .. math::
        \mathbf{X}^{\prime} = \mathbf{X} \mathbf{W}^\top + \mathbf{b}

    The gradient :math:`\mathbf{G}^\top \mathbf{X}` needs the transposed features. Torch sorts them at every
    step, which costs ten times the product; here they are sorted once and remembered while :obj:`x` lives.

    Shapes:
        - **x:** :math:`(N, F_{in})`, **output:** :math:`(N, F_{out})`

    Example:
        >>> import torch
        >>> from kgat.nn.linear import Linear
        >>> x = torch.eye(3)
        >>> lin = Linear(3, 2)
        >>> torch.equal(lin(x.to_sparse_csr()), lin(x))
        True
    """

    def forward(self, x: Tensor) -> Tensor:
        plain = x.layout == torch.sparse_csr and x.device.type == "cpu" and not x.requires_grad
        if not plain or torch.compiler.is_compiling() or x.dtype not in (torch.float32, torch.float64):
            # A parametrised weight is computed anew at every look (spectral norm takes a step of its power
            # iteration in each), so that only a parameter is looked at.
            weight = self._parameters.get("weight")
            if weight is not None:
                check_dtype("features", x, weight)
            return super().forward(x)
        out = _Product.apply(self.weight, x)
        return out if self.bias is None else out + self.bias


class _Product(Function):
    # forward    X W^T
    # backward   dW = G^T X = (X^T G)^T
    @staticmethod
    def forward(ctx: Any, weight: Tensor, x: Tensor) -> Tensor:
        ctx.x = x
        ctx.mark = Mark.of(x, values=True) if lasting(x) else None
        with torch.autocast("cpu", enabled=False):
            return x @ weight.to(x.dtype).t().contiguous()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        x = ctx.x
        if ctx.mark is not None and not ctx.mark.equals(Mark.of(x, values=True)):
            raise RuntimeError(CHANGED)
        transpose = remember(x, Transpose, Transpose.of)
        return (transpose.apply(x.values()) @ grad).t(), None


def drop_features(x: Tensor, p: float) -> Tensor:
    r"""Dropout on node features, dense or ``torch.sparse_csr``.

    Entries that are 0 stay 0 under dropout: of sparse features only the stored ones are drawn.

    Args:
        x (torch.Tensor): Features.
        p (float): Probability.

    Shapes:
        - **x, output:** :math:`(N, F)`

    Example:
        >>> import torch
        >>> from kgat.nn.linear import drop_features
        >>> drop_features(torch.eye(3).to_sparse_csr(), 0.5).layout
        torch.sparse_csr
    """
    if x.layout != torch.sparse_csr:
        return dropout(x, p)
    values = dropout(x.values(), p)
    dropped = torch.sparse_csr_tensor(x.crow_indices(), x.col_indices(), values, size=x.shape)
    if lasting(x):  # its transpose is that of x, but for the values
        keep(dropped, Transpose, remember(x, Transpose, Transpose.of))
    return dropped
