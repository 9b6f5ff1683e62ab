r"""Data sets of whole graphs: :func:`load` gives a :class:`~kgat.datasets.GraphTask`, :func:`names` lists
them.

Each family is a file beside this one. Raw files lie where the loaders of :obj:`torch_geometric.datasets` and
:obj:`ogb` look for them. They are read into memory directly: nothing is written beside them.
"""

import os

import numpy as np
import torch
from torch import Tensor

from kgat.datasets import splits
from kgat.datasets.files import expect, fetch, naming, reading, resolve_root
from kgat.datasets.graph_task import Graphs, GraphTask
from kgat.datasets.source import Collection, CollectionSource, discover, resolve
from kgat.datasets.task import Split
from kgat.extras import require

__all__ = ["SOURCES", "load", "names"]

# The order of names that lists have; what is in no such file comes after them.
SOURCES: tuple[CollectionSource, ...] = discover(__name__, __path__, first=("tu", "ogb_molecules"))


def names() -> list[str]:
    r"""Returns the names that :func:`load` takes.

    Example:
        >>> "MUTAG" in names() and "ogbg-molesol" in names()
        True
    """
    return [source.name for source in SOURCES]


def load(name: str, root: str | os.PathLike[str] | None = None) -> GraphTask:
    r"""Loads a data set of whole graphs.

    Sets of TUDataset are split by stratified cross-validation in ten folds, drawn from the name alone: of
    seed :math:`k` fold :math:`k` is for testing and the next one for validating. Those of OGB are split by
    scaffold and scored as OGB's Evaluator does it.

    Args:
        name (str): One of :func:`names`; case, :obj:`"-"` and :obj:`"_"` do not matter.
        root (str, optional): As of :func:`kgat.datasets.load`. (default: :obj:`None`)

    Raises:
        ValueError: If the name is unknown, or a raw file is corrupt.
        FileNotFoundError: If a raw file is missing and cannot be downloaded.
        ImportError: If the data set needs an extra that is not installed.
    """
    source = resolve(SOURCES, name, "a data set of graphs")
    require(f"to read '{source.name}'", *source.needs)
    paths = fetch(resolve_root(root), source.files, source.name)
    with reading(*paths):
        collection = source.read(paths)
        graphs = _graphs(collection)
    with naming(*paths):
        return _task(source, collection, graphs)


def _task(source: CollectionSource, collection: Collection, graphs: Graphs) -> GraphTask:
    y = torch.from_numpy(np.array(collection.y))
    y = y.squeeze(1) if y.dim() == 2 and y.size(1) == 1 else y
    values = y.is_floating_point()
    parts = collection.parts
    if source.num_folds is not None:
        parts = splits.folds(source.name, collection.y, source.num_folds)
    return GraphTask(
        name=source.name,
        graphs=graphs,
        splits=tuple(Split(name, *map(torch.from_numpy, masks)) for name, *masks in parts),
        metric=source.metric,
        num_classes=(1 if y.dim() == 1 else y.size(1)) if values else int(y.max()) + 1,
        source=source.citation,
        preprocessing=f"{source.features}; no self-loops, no duplicate edges, sorted by target",
        y=y,
        digest=None,
    )


def _graphs(collection: Collection) -> Graphs:
    r"""To be called within :func:`kgat.datasets.files.reading`."""
    nodes, graph, num_graphs = len(collection.graph), collection.graph, len(collection.y)
    expect(len(collection.x) == nodes, f"{len(collection.x)} rows of features for {nodes} nodes")
    counts = np.bincount(graph, minlength=num_graphs)
    expect(len(counts) == num_graphs, f"{len(counts)} graphs with {num_graphs} labels")
    expect(bool((np.diff(graph) >= 0).all()), "graphs whose nodes are not together")
    expect(bool(counts.all()), f"graph {int(counts.argmin())} without nodes")
    row, col = collection.row, collection.col
    expect(bool(((row >= 0) & (row < nodes) & (col >= 0) & (col < nodes)).all()), "an edge to no node")
    expect(bool((graph[row] == graph[col]).all()), "an edge between two graphs")
    proper = np.flatnonzero(row != col)
    key, at = np.unique(col[proper] * nodes + row[proper], return_index=True)
    row, col = key % nodes, key // nodes
    attr = None if collection.edge_attr is None else collection.edge_attr[proper[at]]

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))

    return Graphs(
        x=tensor(collection.x),
        edge_index=torch.from_numpy(np.stack([row, col])),
        edge_attr=None if attr is None else tensor(attr),
        node_ptr=_pointer(counts),
        edge_ptr=_pointer(np.bincount(graph[col], minlength=num_graphs)),
    )


def _pointer(counts: np.ndarray) -> Tensor:
    return torch.from_numpy(np.concatenate([[0], counts.cumsum()]))
