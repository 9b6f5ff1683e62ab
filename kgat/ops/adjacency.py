r"""The edges of a graph, sorted by target and by source."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import torch
from torch import Tensor

from kgat.ops.memory import remember


@dataclass(frozen=True, eq=False)
class Adjacency:
    r"""The edges sorted by target (CSR) and by source (CSC), each time in the caller's order among equals.

    Args:
        rowptr (torch.Tensor): First edge of each target, in CSR order.
        col (torch.Tensor): Source of each edge, in CSR order.
        edge (torch.Tensor): Place of each edge in the caller's list, in CSR order.
        colptr (torch.Tensor): First edge of each source, in CSC order.
        row (torch.Tensor): Target of each edge, in CSC order.
        place (torch.Tensor): Place among the edges in CSR order of each edge in CSC order.

    Shapes:
        - **rowptr:** :math:`(N + 1)`, **colptr:** :math:`(M + 1)`, int64
        - **col, edge, row, place:** :math:`(E)`, int32
    """

    rowptr: Tensor
    col: Tensor
    edge: Tensor
    colptr: Tensor
    row: Tensor
    place: Tensor

    @property
    def num_targets(self) -> int:
        return self.rowptr.numel() - 1

    @property
    def num_sources(self) -> int:
        return self.colptr.numel() - 1

    @property
    def num_edges(self) -> int:
        return self.col.numel()

    @classmethod
    def of(cls, edge_index: Tensor, target: int, num_targets: int, num_sources: int) -> Adjacency:
        r"""Returns the sorted edges, remembered while :obj:`edge_index` lives.

        Args:
            edge_index (torch.Tensor): The edges.
            target (int): Which row of it holds the targets, 0 or 1.
            num_targets (int): :math:`N`.
            num_sources (int): :math:`M`.

        Shapes:
            - **edge_index:** :math:`(2, E)`

        Raises:
            IndexError: If an index is negative or too large.
            ValueError: If there are :math:`2^{31}` edges or nodes, or more.
        """
        return remember(
            edge_index,
            (cls, target, num_targets, num_sources),
            lambda: cls._build(edge_index[target], edge_index[1 - target], num_targets, num_sources),
        )

    @classmethod
    def _build(cls, row: Tensor, col: Tensor, num_targets: int, num_sources: int) -> Adjacency:
        check_indices(row, col, num_targets, num_sources)
        largest = max(row.numel(), num_targets, num_sources)
        if largest >= 2**31:
            raise ValueError(
                f"Expected fewer than 2^31 nodes and edges (got {largest}); sample neighbourhoods or cut "
                f"the graph"
            )
        if row.device.type == "cpu" and importlib.util.find_spec("numba") is not None:
            from kgat.ops.cpu_sort import sort_edges

            pair = row.contiguous().numpy(), col.contiguous().numpy()
            fields = sort_edges(*pair, num_targets, num_sources)
            return cls(*(torch.from_numpy(field) for field in fields))
        row, col = row.long(), col.long()
        sorted_row, edge = row.sort(stable=True)
        col = col.index_select(0, edge)
        sorted_col, place = col.sort(stable=True)
        return cls(
            _pointer(sorted_row, num_targets),
            col.int(),
            edge.int(),
            _pointer(sorted_col, num_sources),
            sorted_row.index_select(0, place).int(),
            place.int(),
        )


def _pointer(sorted_index: Tensor, size: int) -> Tensor:
    # Where each of 0 .. size starts in a sorted list.
    bounds = torch.arange(size + 1, device=sorted_index.device, dtype=sorted_index.dtype)
    return torch.searchsorted(sorted_index, bounds)


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
