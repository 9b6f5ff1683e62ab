r"""The edges of a graph, sorted both ways once and remembered while their tensor lives."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

# id of a tensor -> (weak reference, version, what was derived from it). The reference's callback drops the
# entry with the tensor, so that a reused id can never meet a stale one.
_MEMORY: dict[int, tuple[weakref.ref[Tensor], int, dict[Any, Any]]] = {}


def remember(tensor: Tensor, key: Any, build: Callable[[], T]) -> T:
    r"""Returns ``build()``, computed once per :obj:`key` for as long as :obj:`tensor` lives unchanged.

    Args:
        tensor (torch.Tensor): What the result is derived from. An in-place change forgets the result.
        key (Hashable): Names the result among others of the same tensor.
        build (Callable): Computes it; must not depend on anything but the tensor and the key.
    """
    if tensor.is_inference():  # such tensors count no versions: a change could not be noticed
        return build()
    entry = _MEMORY.get(id(tensor))
    if entry is None or entry[0]() is not tensor or entry[1] != tensor._version:
        identity = id(tensor)
        reference = weakref.ref(tensor, lambda _: _MEMORY.pop(identity, None))
        entry = _MEMORY[identity] = (reference, tensor._version, {})
    results = entry[2]
    if key not in results:
        results[key] = build()
    return results[key]


@dataclass(frozen=True, eq=False)
class Structure:
    r"""The edges of all heads as one sparse matrix, sorted by target (CSR) and by source (CSC).

    Head :math:`h` of node :math:`i` is row :math:`i H + h`, so that node tensors :math:`(N, H, C)` are dense
    factors :math:`(N H, C)` as they lie in memory, and one product serves all heads. An *entry* is an edge of
    one head; entries of a row stand together.

    Args:
        num_rows (int): :math:`N H`.
        num_cols (int): :math:`M H`.
        edge (torch.Tensor): For each entry its place in the caller's edge values, :math:`(E, H)` flattened.
        row (torch.Tensor): Row of each entry.
        col (torch.Tensor): Column of each entry.
        rowptr (torch.Tensor): First entry of each row.
        csc_perm (torch.Tensor): Place among the entries of each entry in CSC order.
        csc_row (torch.Tensor): Row of each entry, in CSC order.
        colptr (torch.Tensor): First entry, in CSC order, of each column.

    Shapes:
        - **edge, row, col, csc_perm, csc_row:** :math:`(E H)`
        - **rowptr:** :math:`(N H + 1)`, **colptr:** :math:`(M H + 1)`
    """

    num_rows: int
    num_cols: int
    edge: Tensor
    row: Tensor
    col: Tensor
    rowptr: Tensor
    csc_perm: Tensor
    csc_row: Tensor
    colptr: Tensor

    @classmethod
    def of(cls, edge_index: Tensor, target: int, num_targets: int, num_sources: int, heads: int) -> Structure:
        r"""Returns the structure of :obj:`edge_index`, remembered while that tensor lives.

        Args:
            edge_index (torch.Tensor): The edges.
            target (int): Which row of it holds the targets, 0 or 1.
            num_targets (int): :math:`N`.
            num_sources (int): :math:`M`.
            heads (int): :math:`H`.

        Raises:
            IndexError: If an index is negative or too large.
        """
        return remember(
            edge_index,
            (cls, target, num_targets, num_sources, heads),
            lambda: cls._build(
                edge_index[target].long(), edge_index[1 - target].long(), num_targets, num_sources, heads
            ),
        )

    @classmethod
    def _build(cls, row: Tensor, col: Tensor, num_targets: int, num_sources: int, heads: int) -> Structure:
        check_indices(row, col, num_targets, num_sources)
        edges = row.numel()
        row, perm = row.sort(stable=True)
        col = col.index_select(0, perm)
        rowptr = _pointer(row, num_targets)
        sorted_col, csc_perm = col.sort(stable=True)
        colptr = _pointer(sorted_col, num_sources)

        # The entries of row (i, h) are the edges of i once more: only edges are sorted, not entries.
        entry_row, entry_rowptr, e = _per_head(rowptr, heads)
        head = entry_row % heads
        entry_col, entry_colptr, c = _per_head(colptr, heads)
        csc_head = entry_col % heads
        csc_edge = csc_perm.index_select(0, c)
        csc_row = row.index_select(0, csc_edge)
        csc_entry_row = csc_row * heads + csc_head
        first = entry_rowptr.index_select(0, csc_entry_row)
        place = csc_edge - rowptr.index_select(0, csc_row)

        # MKL multiplies with 32-bit indices and would convert others at every product.
        largest = max(edges * heads, num_targets * heads, num_sources * heads)
        dtype = torch.int32 if largest < 2**31 else torch.int64
        return cls(
            num_targets * heads,
            num_sources * heads,
            (perm.index_select(0, e) * heads + head).to(dtype),
            entry_row.to(dtype),
            (col.index_select(0, e) * heads + head).to(dtype),
            entry_rowptr.to(dtype),
            (first + place).to(dtype),
            csc_entry_row.to(dtype),
            entry_colptr.to(dtype),
        )


def _per_head(pointer: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    # Repeats every segment once per head: the segment of each entry, where segments start, and the edge.
    length = pointer.diff().repeat_interleave(heads)
    entry_pointer = pointer.new_zeros(length.numel() + 1)
    torch.cumsum(length, dim=0, out=entry_pointer[1:])
    segment = torch.repeat_interleave(length)
    offset = pointer[:-1].repeat_interleave(heads) - entry_pointer[:-1]
    edge = torch.arange(segment.numel(), device=segment.device) + offset.index_select(0, segment)
    return segment, entry_pointer, edge


def check_indices(row: Tensor, col: Tensor, num_targets: int, num_sources: int) -> None:
    r"""Raises an :class:`IndexError` that names the first index outside its range.

    Args:
        row (torch.Tensor): Target indices.
        col (torch.Tensor): Source indices.
        num_targets (int): :math:`N`.
        num_sources (int): :math:`M`.
    """
    for name, index, bound in (("target", row, num_targets), ("source", col, num_sources)):
        if index.numel() == 0:
            continue
        low, high = (int(v) for v in torch.aminmax(index))
        if low < 0 or high >= bound:
            wrong = low if low < 0 else high
            raise IndexError(
                f"Expected {name} indices of 'edge_index' in [0, {bound - 1}] for {bound} {name} nodes "
                f"(got {wrong}); check that 'edge_index' and the node features belong together"
            )


def _pointer(index: Tensor, size: int) -> Tensor:
    pointer = index.new_zeros(size + 1)
    torch.cumsum(torch.bincount(index, minlength=size), dim=0, out=pointer[1:])
    return pointer


@dataclass(frozen=True, eq=False)
class Transpose:
    r"""How the entries of a CSR matrix stand in its transpose.

    Args:
        perm (torch.Tensor): Place among the entries of the matrix of each entry of the transpose.
        rowptr (torch.Tensor): First entry of each row of the transpose.
        col (torch.Tensor): Column of each entry of the transpose.
        size (tuple): Its shape.

    Shapes:
        - **perm, col:** :math:`(nnz)`, **rowptr:** :math:`(F + 1)` for a matrix of :math:`F` columns
    """

    perm: Tensor
    rowptr: Tensor
    col: Tensor
    size: tuple[int, int]

    @classmethod
    def of(cls, matrix: Tensor) -> Transpose:
        r"""Sorts the entries of a CSR matrix by column."""
        rows, cols = matrix.shape
        sorted_col, perm = matrix.col_indices().sort(stable=True)
        row = torch.repeat_interleave(matrix.crow_indices().diff()).index_select(0, perm)
        return cls(perm, _pointer(sorted_col.long(), cols), row, (cols, rows))

    def apply(self, values: Tensor) -> Tensor:
        r"""Returns the transpose of the matrix that holds :obj:`values`."""
        entries = values.index_select(0, self.perm)
        return torch.sparse_csr_tensor(self.rowptr, self.col, entries, size=self.size)
