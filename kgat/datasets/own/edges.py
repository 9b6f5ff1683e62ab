r"""Edges as layers want them, and edges of points that have none."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData
from torch_geometric.utils import is_sparse, to_edge_index

from kgat.datasets.nearest import nearest
from kgat.datasets.own.raw import EDGE_FEATURES, Array

__all__ = ["Edges", "cleaned", "first_of_each", "nearest_neighbours", "with_edge_index"]


class Edges(NamedTuple):
    r"""Edges that were cleaned, and what was dropped.

    Args:
        edge_index (numpy.ndarray): Sources and targets, sorted by target, then source.
        edge_attr (numpy.ndarray or None): Their features.
        loops (int): Number of self-loops that were dropped.
        duplicates (int): Number of repetitions that were dropped.
    """

    edge_index: Array
    edge_attr: Array | None
    loops: int
    duplicates: int


def cleaned(edge_index: Array, edge_attr: Array | None, *, directed: bool) -> Edges:
    r"""Does once what every layer would otherwise repeat: no self-loops, which layers add themselves, no
    repetitions, both directions of what has none, sorted by target, then source.

    Edges between the same nodes that differ in their features are several edges.

    Args:
        edge_index (numpy.ndarray): Sources and targets.
        edge_attr (numpy.ndarray or None): Their features.
        directed (bool): Whether an edge counts in its direction alone.

    Example:
        >>> edges = cleaned(np.array([[0, 0, 1, 2], [1, 1, 0, 2]]), None, directed=False)
        >>> edges.edge_index.tolist(), edges.loops, edges.duplicates
        ([[1, 0], [0, 1]], 1, 1)
    """
    row, col = edge_index.astype(np.int64)
    attr = edge_attr if edge_attr is None or edge_attr.ndim == 2 else edge_attr.reshape(-1, 1)
    other = row != col
    row, col, attr = row[other], col[other], None if attr is None else attr[other]
    first = first_of_each(row, col, attr)
    row, col, attr = row[first], col[first], None if attr is None else attr[first]
    duplicates = int(other.sum()) - len(first)
    if not directed:
        row, col = np.concatenate([row, col]), np.concatenate([col, row])
        attr = None if attr is None else np.concatenate([attr, attr])
        first = first_of_each(row, col, attr)
        row, col, attr = row[first], col[first], None if attr is None else attr[first]
    return Edges(np.stack([row, col]), attr, int((~other).sum()), duplicates)


def first_of_each(row: Array, col: Array, attr: Array | None) -> Array:
    r"""Returns the places of edges, each once, in the order of targets, then sources."""
    columns = () if attr is None else tuple(attr.T[::-1])
    order = np.lexsort((*columns, row, col))
    differs = np.ones(len(order), dtype=bool)
    for values in (row, col, *columns):
        ordered = values[order]
        same = ordered[1:] == ordered[:-1]
        differs[1:] = ~same if values is row else differs[1:] | ~same
    return order[differs]


def nearest_neighbours(x: Array, k: int) -> Array:
    r"""Returns the edges from the nearest neighbours of each point to it, by Euclidean distance.

    Args:
        x (numpy.ndarray or scipy.sparse matrix): Points.
        k (int): Number of neighbours.

    Raises:
        ValueError: If there are not as many other points.

    Example:
        >>> nearest_neighbours(np.array([[0.0], [1.0], [5.0]]), 1).tolist()
        [[1, 0, 1], [0, 1, 2]]
    """
    points = x.shape[0]
    if not 1 <= k < points:
        raise ValueError(
            f"Expected from 1 to {points - 1} neighbours of {points} points (got knn={k}); choose "
            "another number"
        )
    if x.shape[1] == 0:
        raise ValueError("Expected features to find neighbours by (got none); give points columns of numbers")
    return np.stack([nearest(x, k).ravel(), np.arange(points).repeat(k)]).astype(np.int64)


def with_edge_index(data: Any) -> Any:
    r"""Returns a graph whose edges are in :obj:`edge_index`, if they are in a transposed adjacency matrix
    alone, whose rows are targets; its values, unless all are one, are the features of edges. Of a
    heterogeneous graph, each type of edges by itself.

    Example:
        >>> adj_t = torch.tensor([[0.0, 0.5], [0.0, 0.0]]).to_sparse_csr()
        >>> data = with_edge_index(Data(adj_t=adj_t))
        >>> data.edge_index.tolist(), data.edge_weight.tolist()
        ([[1], [0]], [0.5])
    """
    if not isinstance(data, Data | HeteroData) or not any(map(_is_transposed, data.edge_stores)):
        return data
    data = data.clone()
    for store in filter(_is_transposed, data.edge_stores):
        adjacency = store.pop("adj_t")
        if isinstance(adjacency, Tensor) and adjacency.layout == torch.sparse_coo:
            adjacency = adjacency.coalesce()
        ends, values = to_edge_index(adjacency)
        store["edge_index"] = ends.flip(0)
        # PyG writes ones where edges have no weights.
        if all(store.get(name) is None for name in EDGE_FEATURES) and bool((values != 1).any()):
            store["edge_weight" if values.dim() == 1 else "edge_attr"] = values
    return data


def _is_transposed(store: Any) -> bool:
    return store.get("edge_index") is None and is_sparse(store.get("adj_t"))
