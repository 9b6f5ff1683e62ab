r"""The sorted edges of a graph as one sparse matrix of all heads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kgat.brief import Brief
from kgat.ops.graph.adjacency import Adjacency, first_of_each


@dataclass(frozen=True, eq=False, repr=False)
class Structure(Brief):
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
        adjacency = Adjacency.of(edge_index, target, num_targets, num_sources)
        return adjacency.derive((cls, heads), lambda: cls._build(adjacency, heads))

    @classmethod
    def _build(cls, adjacency: Adjacency, heads: int) -> Structure:
        edges, targets, sources = adjacency.num_edges, adjacency.num_targets, adjacency.num_sources
        # The entries of row (i, h) are the edges of i once more: only edges are sorted, not entries.
        entry_row, entry_rowptr, e = _per_head(adjacency.rowptr, heads)
        head = entry_row % heads
        entry_col, entry_colptr, c = _per_head(adjacency.colptr, heads)
        csc_head = entry_col % heads
        csc_edge = adjacency.place.long().index_select(0, c)
        csc_row = adjacency.row.long().index_select(0, c)
        csc_entry_row = csc_row * heads + csc_head
        first = entry_rowptr.index_select(0, csc_entry_row)
        place = csc_edge - adjacency.rowptr.index_select(0, csc_row)

        # MKL multiplies with 32-bit indices and would convert others at every product.
        largest = max(edges, targets, sources) * heads
        dtype = torch.int32 if largest < 2**31 else torch.int64
        return cls(
            targets * heads,
            sources * heads,
            (adjacency.edge.long().index_select(0, e) * heads + head).to(dtype),
            entry_row.to(dtype),
            (adjacency.col.long().index_select(0, e) * heads + head).to(dtype),
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


@dataclass(frozen=True, eq=False, repr=False)
class Transpose(Brief):
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
        return cls(perm, first_of_each(sorted_col.long(), cols), row, (cols, rows))

    def apply(self, values: Tensor) -> Tensor:
        r"""Returns the transpose of the matrix that holds :obj:`values`."""
        entries = values.index_select(0, self.perm)
        return torch.sparse_csr_tensor(self.rowptr, self.col, entries, size=self.size, device=entries.device)
