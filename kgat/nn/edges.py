r"""Adjacency formats and self-loops: whatever a layer is given becomes one list of edges, built once."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.index import index2ptr
from torch_geometric.typing import Adj, SparseTensor
from torch_geometric.utils import (
    add_self_loops,
    is_torch_sparse_tensor,
    to_edge_index,
)

from kgat.ops.memory import remember

FillValue = float | Tensor | str


@dataclass(frozen=True, eq=False)
class Edges:
    r"""A list of edges with what belongs to each of them, in the order that users see.

    Args:
        index (torch.Tensor): Sources above targets.
        attr (torch.Tensor, optional): Edge features.
        weight (torch.Tensor, optional): Edge weights.
        adjacency (Adj): What the edges were read from; self-loops that were added are in :obj:`index` alone.

    Shapes:
        - **index:** :math:`(2, E)`, **attr:** :math:`(E, F)` or :math:`(E)`, **weight:** :math:`(E)`
    """

    index: Tensor
    attr: Tensor | None
    weight: Tensor | None
    adjacency: Adj

    def with_alpha(self, alpha: Tensor) -> tuple[Adj, Tensor] | SparseTensor:
        r"""Attaches attention weights to the edges, in the adjacency's format, as :class:`GATConv` does."""
        if isinstance(self.adjacency, SparseTensor):
            col, row = self.index
            sizes = tuple(self.adjacency.sparse_sizes())
            return type(self.adjacency)(row=row, col=col, value=alpha, sparse_sizes=sizes, is_sorted=True)
        if is_torch_sparse_tensor(self.adjacency):
            return _sparse(self.index, alpha, self.adjacency), alpha
        return self.index, alpha


def read_edges(
    adjacency: Adj, attr: Tensor | None, weight: Tensor | None, edge_dim: int | None = None
) -> Edges:
    r"""Reads ``edge_index``, :class:`EdgeIndex`, ``torch.sparse`` and ``SparseTensor`` adjacencies.

    Sparse adjacencies are transposed, as everywhere in PyG: rows are targets. Their values stand in for
    missing edge features where a layer takes some, as in GATConv: those of a ``SparseTensor`` of any
    dimension, those of ``torch.sparse`` if they are vectors (it has scalars even where nobody gave any).

    Args:
        adjacency (Adj): The edges.
        attr (torch.Tensor, optional): Edge features.
        weight (torch.Tensor, optional): Edge weights.
        edge_dim (int, optional): Size of the features that the layer takes, if any. (default: :obj:`None`)

    Shapes:
        - **attr:** :math:`(E, F)` or :math:`(E)`, **weight:** :math:`(E)`
    """
    missing = attr is None and edge_dim is not None
    if isinstance(adjacency, SparseTensor):
        row, col, value = adjacency.coo()
        return Edges(torch.stack([col, row]), value if missing else attr, weight, adjacency)
    if is_torch_sparse_tensor(adjacency):
        if adjacency.layout == torch.sparse_coo and adjacency.is_coalesced():
            (row, col), value = adjacency.indices(), adjacency.values()  # which have gradients, unlike PyG's
        else:
            (row, col), value = to_edge_index(adjacency)
        index = _once(adjacency, "edges", lambda: torch.stack([col, row]))
        return Edges(index, value if missing and value.dim() > 1 else attr, weight, adjacency)
    if isinstance(adjacency, EdgeIndex):
        return Edges(_once(adjacency, "edges", adjacency.as_tensor), attr, weight, adjacency)
    if adjacency.dim() != 2 or adjacency.size(0) != 2 or adjacency.is_floating_point():
        dtype = str(adjacency.dtype).removeprefix("torch.")
        raise ValueError(
            f"Expected integer 'edge_index' of shape [2, E] (got {dtype} {list(adjacency.shape)}); "
            f"sources stand above targets"
        )
    return Edges(adjacency, attr, weight, adjacency)


def with_self_loops(edges: Edges, num_nodes: int, fill_value: FillValue) -> Edges:
    r"""Replaces all self-loops by one per node, after the other edges, as :class:`GATConv` does.

    The new list of edges is remembered while the old one lives, so that a layer sorts a graph only once.

    Args:
        edges (Edges): The edges.
        num_nodes (int): Number of nodes that are source and target.
        fill_value (float, torch.Tensor or str): Features of the new loops: a constant, or how to reduce the
            features of a node's in-edges (``"add"``, ``"mean"``, ``"min"``, ``"max"``, ``"mul"``). Weights
            of new loops are 1.
    """
    given = edges.index
    # One list of what is kept for all that belongs to the edges: compiled code then knows it as one length.
    kept = _once(given, "kept", lambda: (given[0] != given[1]).nonzero().view(-1))

    def looped(x: Tensor | None, fill: FillValue) -> tuple[Tensor, Tensor | None]:
        x = None if x is None else x.index_select(0, kept)
        return add_self_loops(given.index_select(1, kept), x, fill_value=fill, num_nodes=num_nodes)

    index = _once(given, ("loops", num_nodes), lambda: looped(None, 1.0)[0])
    attr = None if edges.attr is None else looped(edges.attr, fill_value)[1]
    weight = None if edges.weight is None else looped(edges.weight, 1.0)[1]
    if isinstance(edges.adjacency, Tensor) and not is_torch_sparse_tensor(edges.adjacency):
        return Edges(index, attr, weight, index)
    # Entries of a matrix have an order of their own, in which the loops stand among the others.
    major = 0 if getattr(edges.adjacency, "layout", None) == torch.sparse_csc else 1
    order = _once(index, ("order", major), lambda: _order(index, major))
    attr, weight = (None if x is None else x.index_select(0, order) for x in (attr, weight))
    return Edges(_once(index, ("entries", major), lambda: index[:, order]), attr, weight, edges.adjacency)


def _order(index: Tensor, major: int) -> Tensor:
    order = index[1 - major].argsort(stable=True)
    return order[index[major].index_select(0, order).argsort(stable=True)]


def _sparse(index: Tensor, value: Tensor, like: Tensor) -> Tensor:
    # Neither sorts nor sums: the values stay those of the edges, one for one.
    col, row = index
    rows, cols = like.shape[:2]
    size = (rows, cols, *value.shape[1:])
    if like.layout == torch.sparse_csr:
        return torch.sparse_csr_tensor(index2ptr(row, rows), col, value, size)
    if like.layout == torch.sparse_csc:
        return torch.sparse_csc_tensor(index2ptr(col, cols), row, value, size)
    return torch.sparse_coo_tensor(torch.stack([row, col]), value, size, is_coalesced=True)


def _once(tensor, key, build):  # type: ignore[no-untyped-def]
    return build() if torch.compiler.is_compiling() else remember(tensor, key, build)
