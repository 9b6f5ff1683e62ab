r"""A linear map of node features that may be stored sparsely."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
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
            weight = self.weight  # asked for once: a parametrisation may change with each look at it
            check_dtype("features", x, weight)
            return F.linear(x, weight, self.bias)
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
    dropped = torch.sparse_csr_tensor(
        x.crow_indices(), x.col_indices(), values, size=x.shape, device=x.device
    )
    if lasting(x):  # its transpose is that of x, but for the values
        keep(dropped, Transpose, remember(x, Transpose, Transpose.of))
    return dropped


def select_rows(x: Tensor, index: Tensor) -> Tensor:
    r"""Returns rows of node features, dense or ``torch.sparse_csr``.

    Args:
        x (torch.Tensor): Features.
        index (torch.Tensor): The rows.

    Shapes:
        - **x:** :math:`(N, F)`, **index:** :math:`(M)`, **output:** :math:`(M, F)`

    Example:
        >>> import torch
        >>> from kgat.nn.linear import select_rows
        >>> select_rows(torch.eye(3).to_sparse_csr(), torch.tensor([2, 0])).to_dense()
        tensor([[0., 0., 1.],
                [1., 0., 0.]])
    """
    if x.layout != torch.sparse_csr:
        return x.index_select(0, index)
    ends = x.crow_indices()
    begin = ends.index_select(0, index)
    count = ends.index_select(0, index + 1) - begin
    rows = F.pad(count.cumsum(0), (1, 0)).to(ends.dtype)
    # The entries of a row are next to each other: where it begins, and how far each entry is from there.
    entry = torch.arange(int(rows[-1]), device=x.device) + torch.repeat_interleave(begin - rows[:-1], count)
    columns, values = x.col_indices().index_select(0, entry), x.values().index_select(0, entry)
    return torch.sparse_csr_tensor(rows, columns, values, size=(index.numel(), x.size(1)), device=x.device)
