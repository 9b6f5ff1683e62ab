r"""The edges of a graph, sorted by target and by source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from kgat.brief import Brief
from kgat.names import bare
from kgat.ops.graph.device import assert_later, blocks, compiled, reads_at_once, recording
from kgat.ops.graph.fingerprint import fingerprint, on_device
from kgat.ops.graph.memory import remember

T = TypeVar("T")

# Programs of a GPU look some edges ahead in 32 bits.
LARGEST = 2**31 - 2**10


@dataclass(frozen=True, eq=False, repr=False)
class Adjacency(Brief):
    r"""The edges sorted by target (CSR) and by source (CSC), each time in the caller's order among equals.

    Args:
        rowptr (torch.Tensor): First edge of each target, in CSR order.
        col (torch.Tensor): Source of each edge, in CSR order.
        edge (torch.Tensor): Place of each edge in the caller's list, in CSR order.
        colptr (torch.Tensor): First edge of each source, in CSC order.
        row (torch.Tensor): Target of each edge, in CSC order.
        place (torch.Tensor): Place among the edges in CSR order of each edge in CSC order.
        graph (torch.Tensor): Fingerprint of the caller's list, by which backward knows that it is still the
            one that forward saw.

    Shapes:
        - **rowptr:** :math:`(N + 1)`, **colptr:** :math:`(M + 1)`, int64
        - **col, edge, row, place:** :math:`(E)`, int32, **graph:** :math:`(2)`, int64
    """

    rowptr: Tensor
    col: Tensor
    edge: Tensor
    colptr: Tensor
    row: Tensor
    place: Tensor
    graph: Tensor

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
            ValueError: If :obj:`edge_index` is no list of edges, or there are about :math:`2^{31}` edges or
                nodes, or more.
        """
        return remember(
            edge_index,
            (cls, target, num_targets, num_sources),
            lambda edges: cls._build(edges, target, num_targets, num_sources),
        )

    @classmethod
    def again(
        cls, edge_index: Tensor, target: int, num_targets: int, num_sources: int, graph: Tensor | None
    ) -> Adjacency:
        r"""Returns what :meth:`of` does for backward, if these are still the edges that forward saw.

        Args:
            edge_index (torch.Tensor): The edges.
            target (int): Which row of it holds the targets, 0 or 1.
            num_targets (int): :math:`N`.
            num_sources (int): :math:`M`.
            graph (torch.Tensor, optional): What :attr:`graph` was in forward; nothing is compared if
                :obj:`None`.

        Raises:
            RuntimeError: If the edges have changed; on a GPU, whenever it comes to compare them.
        """
        if graph is None:
            return cls.of(edge_index, target, num_targets, num_sources)
        alike = graph.shape == (2,) and graph.dtype == torch.int64 and graph.layout == torch.strided
        if not alike or graph.device != edge_index.device:
            raise ValueError(
                f"Expected 'graph' as forward returned it, of shape [2], int64, on {edge_index.device} (got "
                f"{list(graph.shape)} {bare(graph.dtype)} on {graph.device}); pass what it returned, or None"
            )
        try:
            adjacency = cls.of(edge_index, target, num_targets, num_sources)
        except (IndexError, ValueError) as error:
            raise RuntimeError(CHANGED_BEFORE_BACKWARD) from error
        if not reads_at_once(graph.device):
            assert_later((adjacency.graph == graph).all(), CHANGED_BEFORE_BACKWARD)
        elif graph is not adjacency.graph and not torch.equal(adjacency.graph, graph):
            raise RuntimeError(CHANGED_BEFORE_BACKWARD)
        return adjacency

    def is_of(self, edge_index: Tensor) -> bool:
        r"""Returns whether these are the edges, if that is to be had by one reading; else :obj:`False`, and
        :meth:`again` finds out."""
        if not reads_at_once(edge_index.device) or edge_index.dtype is not torch.int64:
            return False
        return edge_index.is_contiguous() and fingerprint(edge_index) == self._words

    @cached_property
    def _words(self) -> tuple[int, ...]:
        return tuple(self.graph.tolist())

    @cached_property
    def _derived(self) -> dict[Any, Any]:
        return {}

    def derive(self, key: Any, build: Callable[[], T]) -> T:
        r"""Returns ``build()``, computed once per :obj:`key`: nobody else writes to sorted edges.

        Args:
            key (Hashable): Names the result among others of the same edges.
            build (Callable): Computes it from the edges alone.
        """
        if key in self._derived:
            return self._derived[key]  # type: ignore[no-any-return]
        # It serves training, too, where autograd refuses tensors of inference mode.
        with torch.inference_mode(False), torch.no_grad():
            result = build()
        if not recording(self.col.device):
            self._derived[key] = result
        return result

    @classmethod
    def _build(cls, edge_index: Tensor, target: int, num_targets: int, num_sources: int) -> Adjacency:
        check_edges(edge_index)
        row, col = edge_index[target], edge_index[1 - target]
        check_indices(row, col, num_targets, num_sources)
        largest = max(row.numel(), num_targets, num_sources)
        if largest >= LARGEST:
            raise ValueError(
                f"Expected fewer than 2^31 - 2^10 nodes and edges (got {largest}); sample neighbourhoods or "
                f"cut the graph"
            )
        graph = _graph(edge_index.contiguous())
        loops = compiled(row.device)
        if loops is not None:
            pair = row.contiguous().numpy(), col.contiguous().numpy()
            few = max(num_targets, num_sources) <= loops.AT_ONCE
            sort = loops.sort_edges if few else loops.sort_many_edges
            fields = sort(*pair, num_targets, num_sources)
            rowptr, col, edge, colptr, row, place = map(torch.from_numpy, fields)
            return cls(rowptr, col, edge, colptr, row, place, graph)
        row, col = row.int(), col.int()  # half the digits to sort by
        sorted_row, edge = row.sort(stable=True)
        col = col.index_select(0, edge)
        sorted_col, place = col.sort(stable=True)
        return cls(
            first_of_each(sorted_row, num_targets),
            col,
            edge.int(),
            first_of_each(sorted_col, num_sources),
            sorted_row.index_select(0, place),
            place.int(),
            graph,
        )


CHANGED_BEFORE_BACKWARD = (
    "Expected 'edge_index' in backward as it was in forward (got other edges: something wrote to its memory "
    "in between that torch does not count, such as a numpy array, 'tensor.data' or another process); call "
    "backward first, or give forward a copy"
)


def _graph(edge_index: Tensor) -> Tensor:
    at_once = reads_at_once(edge_index.device)
    return (
        torch.tensor(fingerprint(edge_index), device=edge_index.device) if at_once else on_device(edge_index)
    )


def check_edges(edge_index: Tensor) -> None:
    r"""Raises a :class:`ValueError` unless :obj:`edge_index` is of shape :math:`(2, E)` and of an index type.

    Index types are int64 and int32, as everywhere in torch: other integers work in some of its ops alone.

    Args:
        edge_index (torch.Tensor): The edges.
    """
    if not isinstance(edge_index, Tensor):
        raise TypeError(
            f"Expected 'edge_index' as a tensor of shape [2, E] or a sparse adjacency (got "
            f"{type(edge_index).__name__}); make one with torch.as_tensor(edge_index)"
        )
    if edge_index.layout != torch.strided or edge_index.dim() != 2 or edge_index.size(0) != 2:
        raise ValueError(
            f"Expected integer 'edge_index' of shape [2, E] (got {bare(edge_index.dtype)} "
            f"{list(edge_index.shape)}); sources stand above targets"
        )
    check_index_type("edge_index", edge_index)


def check_index_type(name: str, index: Tensor) -> None:
    r"""Raises a :class:`ValueError` unless :obj:`index` is of type int64 or int32.

    Args:
        name (str): What it is called in the message.
        index (torch.Tensor): The indices.
    """
    if index.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"Expected integer '{name}' of type int64 or int32 (got {bare(index.dtype)} "
            f"{list(index.shape)}); convert it once with '{name}.long()'"
        )


def first_of_each(sorted_index: Tensor, size: int) -> Tensor:
    r"""Returns where each of :math:`0 \dots` :obj:`size` starts in a sorted list."""
    bounds = torch.arange(size + 1, device=sorted_index.device, dtype=sorted_index.dtype)
    return torch.searchsorted(sorted_index, bounds)


def check_indices(row: Tensor, col: Tensor, num_targets: int, num_sources: int) -> None:
    r"""Raises an :class:`IndexError` that names the first index outside its range.

    A GPU asserts it when it gets there, without the index: nobody waits. With ``CUDA_LAUNCH_BLOCKING=1`` the
    host waits anyway, and it is as on the CPU.

    Args:
        row (torch.Tensor): Target indices.
        col (torch.Tensor): Source indices.
        num_targets (int): :math:`N`.
        num_sources (int): :math:`M`.
    """
    for name, index, bound in (("target", row, num_targets), ("source", col, num_sources)):
        if index.numel() == 0:
            continue
        expected = (
            f"Expected {name} indices of 'edge_index' in [0, {bound - 1}] for {bound} {name} nodes{{}}; "
            f"check that 'edge_index' and the node features belong together"
        )
        low, high = torch.aminmax(index)
        if not blocks(index.device):
            assert_later((low >= 0) & (high < bound), expected.format(""))
        elif low < 0 or high >= bound:
            raise IndexError(expected.format(f" (got {int(low if low < 0 else high)})"))
