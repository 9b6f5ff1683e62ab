r"""Adjacency formats and self-loops: whatever a layer is given becomes one list of edges, built once."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.typing import Adj, SparseTensor, torch_sparse
from torch_geometric.utils import (
    add_self_loops,
    is_torch_sparse_tensor,
    remove_self_loops,
    to_edge_index,
)
from torch_geometric.utils.loop import compute_loop_attr
from torch_geometric.utils.sparse import set_sparse_value

from kgat.ops.memory import remember

FillValue = float | Tensor | str


@dataclass(frozen=True, eq=False)
class Edges:
    r"""A list of edges with what belongs to each of them, in the order that users see.

    Args:
        index (torch.Tensor): Sources above targets.
        attr (torch.Tensor, optional): Edge features.
        weight (torch.Tensor, optional): Edge weights.
        adjacency (Adj): What the edges were read from, with self-loops added.

    Shapes:
        - **index:** :math:`(2, E)`, **attr:** :math:`(E, F)` or :math:`(E)`, **weight:** :math:`(E)`
    """

    index: Tensor
    attr: Tensor | None
    weight: Tensor | None
    adjacency: Adj

    def with_alpha(self, alpha: Tensor) -> tuple[Adj, Tensor] | SparseTensor:
        r"""Attaches attention weights to the adjacency as :class:`GATConv` does."""
        if isinstance(self.adjacency, SparseTensor):
            return self.adjacency.set_value(alpha, layout="coo")
        if is_torch_sparse_tensor(self.adjacency):
            return set_sparse_value(self.adjacency, alpha), alpha
        return self.index, alpha


def read_edges(adjacency: Adj, attr: Tensor | None, weight: Tensor | None) -> Edges:
    r"""Reads ``edge_index``, :class:`EdgeIndex`, ``torch.sparse`` and ``SparseTensor`` adjacencies.

    Sparse adjacencies are transposed, as everywhere in PyG: rows are targets. Vector values stand in for
    missing edge features; scalar ones are not read, as in GATConv.

    Args:
        adjacency (Adj): The edges.
        attr (torch.Tensor, optional): Edge features.
        weight (torch.Tensor, optional): Edge weights.

    Shapes:
        - **attr:** :math:`(E, F)` or :math:`(E)`, **weight:** :math:`(E)`
    """
    if isinstance(adjacency, SparseTensor):
        row, col, value = adjacency.coo()
        return Edges(torch.stack([col, row]), _features(attr, value), weight, adjacency)
    if is_torch_sparse_tensor(adjacency):
        (row, col), value = to_edge_index(adjacency)
        index = _once(adjacency, "edges", lambda: torch.stack([col, row]))
        return Edges(index, _features(attr, value), weight, adjacency)
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
    if isinstance(edges.adjacency, SparseTensor):
        if edges.attr is not None and edges.adjacency.storage.value() is None:
            raise NotImplementedError(
                "Expected 'edge_index' as a tensor where 'edge_attr' meets 'add_self_loops=True' (got a "
                "SparseTensor); pass 'edge_index' of shape [2, E], or add the loops beforehand"
            )
        return read_edges(torch_sparse.set_diag(edges.adjacency), None, edges.weight)
    if is_torch_sparse_tensor(edges.adjacency):
        adjacency, _ = remove_self_loops(edges.adjacency)
        adjacency, _ = add_self_loops(adjacency, fill_value=fill_value, num_nodes=num_nodes)
        return read_edges(adjacency, None, edges.weight)
    given = edges.index
    index = _once(given, ("loops", num_nodes), lambda: _looped(given, None, num_nodes, 1.0)[0])
    attr = weight = None
    if edges.attr is not None:
        attr = _looped(given, edges.attr, num_nodes, fill_value)[1]
    if edges.weight is not None:
        weight = _looped(given, edges.weight, num_nodes, 1.0)[1]
    return Edges(index, attr, weight, index)


def _features(attr: Tensor | None, value: Tensor | None) -> Tensor | None:
    return value if attr is None and value is not None and value.dim() > 1 else attr


def _looped(
    index: Tensor, attr: Tensor | None, num_nodes: int, fill_value: FillValue
) -> tuple[Tensor, Tensor | None]:
    index, attr = remove_self_loops(index, attr)
    return add_self_loops(index, attr, fill_value=fill_value, num_nodes=num_nodes)


def with_self_loops_beside(
    edges: Edges, num_nodes: int, fill_value: FillValue
) -> tuple[Edges, Tensor | None]:
    r"""As :func:`with_self_loops`, but keeps the self-loops that were there and returns a bias of
    :math:`-\infty` for their scores, which takes them out of a softmax.

    How many edges there are then depends on no data. Compiled code knows the number, also that it is the same
    in all layers: of a list that is as long as its mask says, the default backend of ``torch.compile`` loses
    the length where two layers make one.

    Args:
        edges (Edges): The edges.
        num_nodes (int): As of :func:`with_self_loops`.
        fill_value (float, torch.Tensor or str): As of :func:`with_self_loops`.

    Shapes:
        - **bias:** :math:`(E)`; :obj:`None` where the edges are no plain tensor and none are left to hide
    """
    if edges.adjacency is not edges.index:
        return with_self_loops(edges, num_nodes, fill_value), None
    given = edges.index
    loop = given[0] == given[1]
    node = torch.arange(num_nodes, dtype=given.dtype, device=given.device)
    index = torch.cat([given, node.expand(2, -1)], dim=1)
    attr = weight = None
    if edges.attr is not None:
        # One more node takes what would count for the mean of a node's features.
        elsewhere = torch.stack([given[0], torch.where(loop, num_nodes, given[1])])
        of_loops = compute_loop_attr(elsewhere, edges.attr, num_nodes + 1, False, fill_value)
        attr = torch.cat([edges.attr, of_loops[:num_nodes]])
    if edges.weight is not None:
        weight = torch.cat([edges.weight, edges.weight.new_ones(num_nodes)])
    bias = torch.zeros(index.size(1), device=given.device)
    bias = torch.where(torch.cat([loop, loop.new_zeros(num_nodes)]), -torch.inf, bias)
    return Edges(index, attr, weight, index), bias


def _once(tensor, key, build):  # type: ignore[no-untyped-def]
    return build() if torch.compiler.is_compiling() else remember(tensor, key, build)
