r"""Features of types of nodes that have none."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.utils import degree

from kgat.ops.graph.adjacency import check_indices

__all__ = ["averaged_features"]


def averaged_features(data: HeteroData) -> HeteroData:
    r"""Gives each type of nodes without features the means of those of its neighbours, in whichever direction
    the edges go, one mean for each type of neighbours; then the types next to these, until all have some.

    A node without such neighbours gets zeros.

    Args:
        data (torch_geometric.data.HeteroData): The graph, which stays as it is.

    Raises:
        ValueError: If a type has neither features nor, over others, neighbours with features, or no number of
            nodes.
        IndexError: If an edge names a node that is not there.

    Example:
        >>> data = HeteroData()
        >>> data["paper"].x, data["author"].num_nodes = torch.tensor([[1.0], [3.0]]), 1
        >>> data["author", "writes", "paper"].edge_index = torch.tensor([[0, 0], [0, 1]])
        >>> averaged_features(data)["author"].x
        tensor([[2.]])
    """
    data = copy.copy(data)
    while lacking := [name for name in data.node_types if "x" not in data[name]]:
        made = {}
        for name in lacking:
            means = [
                _means(data, name, other)
                for other in data.node_types
                if "x" in data[other] and any({edge[0], edge[2]} == {name, other} for edge in data.edge_types)
            ]
            if means:
                made[name] = torch.cat(means, dim=1)
        if not made:
            raise ValueError(
                f"Expected features of the nodes of type '{lacking[0]}', or of its neighbours (got none); "
                f"make some: data['{lacking[0]}'].x = ..."
            )
        for name, x in made.items():
            data[name].x = x
    return data


def _means(data: HeteroData, name: str, other: str) -> Tensor:
    # The edges between two types, from the other to this one.
    pairs = []
    for edge in data.edge_types:
        if (edge[0], edge[2]) == (other, name):
            pairs.append(data[edge].edge_index)
        elif (edge[0], edge[2]) == (name, other):
            pairs.append(data[edge].edge_index.flip(0))
    source, target = torch.cat(pairs, dim=1)
    x, count = data[other].x, data[name].get("num_nodes")
    if count is None:
        raise ValueError(
            f"Expected the number of nodes of type '{name}', which has no features (got none); set "
            f"data['{name}'].num_nodes"
        )
    if x.layout != torch.strided:
        x = x.to_dense()
    check_indices(target, source, count, x.size(0))
    weight = degree(target, count, x.dtype).reciprocal()[target]
    # A product, which needs no row per edge.
    places, size = torch.stack([target, source]), (count, x.size(0))
    return torch.sparse_coo_tensor(places, weight, size, check_invariants=False) @ x
