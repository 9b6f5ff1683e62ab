r"""Differentiable products on the entries of a :class:`~kgat.ops.graph.structure.Structure`.

Four operations, two pairs, each pair closed under differentiation, so that any order of derivative exists
and none of them holds a tensor with a row of channels per edge:

=============  ==============================================================  ========================
operation      value                                                            derivative uses
=============  ==============================================================  ========================
``sddmm``      :math:`t_e = \langle q_{i(e)}, k_{j(e)} \rangle`                 ``spmm``, both ways
``spmm``       :math:`o_{ic} = \sum_{e \to i} \alpha_e v_{j(e)c}`               ``sddmm`` and ``spmm``
``collect``    :math:`z_i = \sum_{e \to i} x_e`                                 ``spread``
``spread``     :math:`x_e = z_{i(e)}`                                           ``collect``
=============  ==============================================================  ========================

Batched gradients, whose ``vmap`` knows no CSR matrices, gather and scatter instead.

Rows :math:`i` and columns :math:`j` are heads of nodes, entries :math:`e` are edges of heads. The products
over channels run on torch's own CSR matrices.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from kgat.ops.batching import is_mapped
from kgat.ops.graph.structure import Structure

# Torch says once per process that CSR tensors are in beta. It says it here, unheard, and not to users who
# never asked for one.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0, 1], [0], [1.0])


def _matrix(structure: Structure, values: Tensor, transposed: bool) -> Tensor:
    n, m = structure.num_rows, structure.num_cols
    if transposed:
        return torch.sparse_csr_tensor(
            structure.colptr, structure.csc_row, values, size=(m, n), device=values.device
        )
    return torch.sparse_csr_tensor(structure.rowptr, structure.col, values, size=(n, m), device=values.device)


def _full_precision() -> torch.autocast:
    # Autocast would lower the dense factor of a matrix product, and sums are kept in single precision.
    return torch.autocast("cpu", enabled=False)


class _SpMM(Function):
    # forward    o_i  = sum_{e -> i} alpha_e v_j(e)       transposed:  o_j = sum_{e <- j} alpha_e v_i(e)
    # backward   dalpha_e = <g_i(e), v_j(e)>,  dv = the other orientation of the forward, applied to g
    @staticmethod
    def forward(ctx: Any, alpha: Tensor, value: Tensor, structure: Structure, transposed: bool) -> Tensor:
        ctx.save_for_backward(alpha, value)
        ctx.structure, ctx.transposed = structure, transposed
        rows = structure.num_cols if transposed else structure.num_rows
        if rows == 0 or value.numel() == 0 or alpha.numel() == 0:
            return value.new_zeros(rows, value.size(1))
        if transposed:
            alpha = alpha.index_select(0, structure.csc_perm)
        with _full_precision():
            return _matrix(structure, alpha.contiguous(), transposed) @ value.contiguous()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        alpha, value = ctx.saved_tensors
        d_alpha = d_value = None
        if ctx.needs_input_grad[0]:
            query, key = (value, grad) if ctx.transposed else (grad, value)
            d_alpha = sddmm(query, key, ctx.structure)
        if ctx.needs_input_grad[1]:
            d_value = spmm(alpha, grad, ctx.structure, not ctx.transposed)
        return d_alpha, d_value, None, None


class _SDDMM(Function):
    # forward    t_e = <q_i(e), k_j(e)>
    # backward   dq = spmm(g, k),  dk = transposed spmm(g, q)
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, structure: Structure) -> Tensor:
        ctx.save_for_backward(query, key)
        ctx.structure = structure
        entries = structure.col.numel()
        out = query.new_zeros(entries)
        if entries == 0 or query.size(1) == 0:
            return out
        if entries > structure.num_rows * structure.num_cols:
            # sampled_addmm refuses more entries than cells, which duplicate edges of a tiny graph can have.
            q = query.index_select(0, structure.row)
            return (q * key.index_select(0, structure.col)).sum(dim=-1)
        with _full_precision():
            pattern = _matrix(structure, out, transposed=False)
            return torch.sparse.sampled_addmm(pattern, query.contiguous(), key.contiguous().t()).values()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        query, key = ctx.saved_tensors
        d_query = d_key = None
        if ctx.needs_input_grad[0]:
            d_query = spmm(grad, key, ctx.structure)
        if ctx.needs_input_grad[1]:
            d_key = spmm(grad, query, ctx.structure, True)
        return d_query, d_key, None


class _ToRows(Function):
    # forward    z_i = sum_{e -> i} x_e                    back:        x_e = z_i(e)
    # backward   the other one
    @staticmethod
    def forward(ctx: Any, x: Tensor, structure: Structure, back: bool) -> Tensor:
        ctx.structure, ctx.back = structure, back
        return x.index_select(0, structure.row) if back else _sums(x, structure)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return (collect if ctx.back else spread)(grad, ctx.structure), None, None


class _Softmax(Function):
    # forward    alpha_e = exp(s_e - max_i) / sum_i,       saves alpha alone
    # backward   ds_e = alpha_e (g_e - sum_{e' -> i} alpha_e' g_e')
    @staticmethod
    def forward(ctx: Any, score: Tensor, structure: Structure) -> Tensor:
        ctx.structure = structure
        if score.numel() == 0:
            alpha = torch.empty_like(score)
        else:
            top = torch.segment_reduce(score.contiguous(), "max", offsets=structure.rowptr.long())
            # A row whose scores are all -inf shifts by 0 instead: its weights are then 0, not NaN.
            top = torch.where(top == -torch.inf, 0.0, top)
            weight = (score - top.index_select(0, structure.row)).exp_()
            total = _sums(weight, structure)
            # With a finite maximum the total is at least 1.
            total = torch.where(total == 0, 1.0, total)
            alpha = weight.div_(total.index_select(0, structure.row))
        ctx.save_for_backward(alpha)
        return alpha

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (alpha,) = ctx.saved_tensors
        weighted = alpha * grad
        mean = spread(collect(weighted, ctx.structure), ctx.structure)
        return weighted - alpha * mean, None


def _sums(x: Tensor, structure: Structure) -> Tensor:
    if x.numel() == 0:
        return x.new_zeros(structure.num_rows)
    return torch.segment_reduce(x.contiguous(), "sum", offsets=structure.rowptr.long())


def spmm(alpha: Tensor, value: Tensor, structure: Structure, transposed: bool = False) -> Tensor:
    r"""Sums weighted values per row: :math:`o_{ic} = \sum_{e \to i} \alpha_e v_{j(e)c}`; per column, if
    transposed, those of the rows.

    Shapes:
        - **alpha:** :math:`(E H)`, **value:** :math:`(M H, C)`, **output:** :math:`(N H, C)`
    """
    if not is_mapped(alpha, value):
        return _SpMM.apply(alpha, value, structure, transposed)  # type: ignore[no-any-return]
    to, of = (structure.col, structure.row) if transposed else (structure.row, structure.col)
    rows = structure.num_cols if transposed else structure.num_rows
    return _scattered(alpha.unsqueeze(-1) * value.index_select(0, of), to, rows)


def sddmm(query: Tensor, key: Tensor, structure: Structure) -> Tensor:
    r"""Takes inner products at entries: :math:`t_e = \langle q_{i(e)}, k_{j(e)} \rangle`.

    Shapes:
        - **query:** :math:`(N H, R)`, **key:** :math:`(M H, R)`, **output:** :math:`(E H)`
    """
    if not is_mapped(query, key):
        return _SDDMM.apply(query, key, structure)  # type: ignore[no-any-return]
    return (query.index_select(0, structure.row) * key.index_select(0, structure.col)).sum(dim=-1)


def collect(x: Tensor, structure: Structure) -> Tensor:
    r"""Sums the entries of each row.

    Shapes:
        - **x:** :math:`(E H)`, **output:** :math:`(N H)`
    """
    if not is_mapped(x):
        return _ToRows.apply(x, structure, False)  # type: ignore[no-any-return]
    return _scattered(x, structure.row, structure.num_rows)


def spread(x: Tensor, structure: Structure) -> Tensor:
    r"""Copies each row's value to its entries.

    Shapes:
        - **x:** :math:`(N H)`, **output:** :math:`(E H)`
    """
    if not is_mapped(x):
        return _ToRows.apply(x, structure, True)  # type: ignore[no-any-return]
    return x.index_select(0, structure.row)


def _scattered(x: Tensor, index: Tensor, rows: int) -> Tensor:
    return x.new_zeros(rows, *x.shape[1:]).index_add(0, index, x)


def softmax(score: Tensor, structure: Structure) -> Tensor:
    r"""Normalises scores over the entries of each row.

    Shapes:
        - **score, output:** :math:`(E H)`
    """
    return _Softmax.apply(score, structure)  # type: ignore[no-any-return]
