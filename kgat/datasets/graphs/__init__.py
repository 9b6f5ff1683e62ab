r"""Data sets on a graph: :func:`load` gives a :class:`~kgat.datasets.Task`, :func:`names` lists them.

Each family is a file beside this one. Raw files lie where the loaders of
:obj:`torch_geometric.datasets` and :obj:`ogb` look for them, so a folder filled by those works as
root. They are read into memory directly: nothing is written beside them and nothing they contain is
run.

The graph surgery that every layer would otherwise repeat is done here, once: edges are unique,
without self-loops, in both directions where the benchmark's graph is undirected, and sorted by
target, then source. Bags of words stay sparse.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from kgat.datasets import splits
from kgat.datasets.files import fetch, naming, reading, resolve_root
from kgat.datasets.graph import DAMAGED, Graph, feature_tensor, sorted_edges
from kgat.datasets.source import GraphSource, discover, resolve
from kgat.datasets.task import Split, Task
from kgat.extras import require

__all__ = ["SOURCES", "load", "names"]

# The order of names that lists have; what is in no such file comes after them.
SOURCES: tuple[GraphSource, ...] = discover(
    __name__,
    __path__,
    first=(
        *("toy", "planetoid", "bag_of_words", "geom_gcn", "heterophilous", "linkx"),
        *("musae", "wiki_cs", "flickr", "reddit", "ogb", "nearest"),
    ),
)


def names() -> list[str]:
    r"""Returns the names that :func:`load` takes.

    Example:
        >>> "digits" in names() and "Cora" in names()
        True
    """
    return [source.name for source in SOURCES]


def load(name: str, root: str | os.PathLike[str] | None = None, *, sparse: bool | str = "auto") -> Task:
    r"""Loads a data set.

    Raw files are looked for below the root, laid out as :obj:`torch_geometric.datasets` and
    :obj:`ogb` do it, and downloaded if they are not there; :obj:`"digits"`, :obj:`"wine"`,
    :obj:`"breast_cancer"`, :obj:`"diabetes"` and :obj:`"karate"` come with packages of the extra
    :obj:`experiments` and need no file. Splits that the benchmark
    does not fix are drawn from the name alone and written to ``splits/NAME.npz`` below the root
    (below the user's cache if the root is read-only), from where they are read again. A graph is
    read into memory whole; :obj:`"ogbn-papers100M"`, undirected, wants a machine with hundreds of GB.

    Args:
        name (str): One of :func:`names`; case, :obj:`"-"` and :obj:`"_"` do not matter.
        root (str, optional): The folder of all data sets. If :obj:`None`, the environment variable
            :obj:`KGAT_DATA` names it, else it is :obj:`kgat` in the user's cache.
            (default: :obj:`None`)
        sparse (bool or str, optional): Whether features are a :obj:`torch.sparse_csr` tensor.
            :obj:`"auto"`: if they have at least 100 columns and less than 11 % non-zeros.
            (default: :obj:`"auto"`)

    Raises:
        ValueError: If the name is unknown, or a raw file is corrupt.
        FileNotFoundError: If a raw file is missing and cannot be downloaded.
        PermissionError: If something has to be written and cannot be.
        ImportError: If the data set needs an extra that is not installed.

    Example:
        >>> task = load("digits")
        >>> task.data.x.shape, task.num_classes, task.metric
        (torch.Size([1797, 64]), 10, 'accuracy')
        >>> split = task.split(seed=0)
        >>> int(split.train.sum()), int(split.val.sum()), int(split.test.sum())
        (200, 500, 1097)
    """
    source = resolve(SOURCES, name, "a data set")
    if sparse not in ("auto", True, False):
        raise ValueError(
            f"Expected 'sparse' to be 'auto', True or False (got '{sparse}'); 'auto' goes by the zeros"
        )
    require(f"to read '{source.name}'", *source.needs)
    folder = resolve_root(root)
    paths = fetch(folder, source.files, source.name, source.instead)
    with reading(*paths):
        graph = source.read(paths)
    with naming(*paths):
        return _task(source, graph, folder, sparse)


def _task(source: GraphSource, graph: Graph, folder: Path, sparse: bool | str) -> Task:
    x, layout = _features(source, graph.x, sparse)
    y = _labels(source, graph.y)
    edge_index = sorted_edges(source.name, graph.row, graph.col, x.size(0), source.undirected)
    directions = "undirected" if source.undirected else "directed"
    return Task(
        name=source.name,
        data=Data(x=x, edge_index=edge_index, y=y),
        splits=_splits(source, graph, folder),
        metric=source.metric,
        num_classes=int(y.max()) + 1 if y.dim() == 1 else y.size(1),
        source=source.citation,
        preprocessing=f"{source.features}, {layout}; {directions}, no self-loops, no duplicate "
        f"edges, sorted by target",
        digest=None,
    )


def _labels(source: GraphSource, y: Any) -> Tensor:
    y = np.asarray(y)
    if y.ndim == 2:
        return torch.from_numpy(np.array(y))
    whole = y.dtype.kind in "biu" or (y.dtype.kind == "f" and bool((np.isfinite(y) & (y % 1 == 0)).all()))
    if y.ndim != 1 or y.size == 0 or not whole:
        raise ValueError(
            f"Expected one class per node of '{source.name}' (got labels {list(y.shape)} {y.dtype}); "
            f"{DAMAGED}"
        )
    # A class that no node could have is a damaged number, and would be a last layer of that size.
    if int(y.max()) >= len(y):
        raise IndexError(
            f"Expected classes of '{source.name}' below the number of its nodes, {len(y)} (got {y.max()}); "
            f"{DAMAGED}"
        )
    return torch.from_numpy(y.astype(np.int64))


def _features(source: GraphSource, x: Any, sparse: bool | str) -> tuple[Tensor, str]:
    if x.ndim != 2 or x.dtype.kind not in "biuf":
        raise ValueError(
            f"Expected one row of numbers per node of '{source.name}' (got features {list(x.shape)} "
            f"{x.dtype}); {DAMAGED}"
        )
    return feature_tensor(x, sparse)


def _splits(source: GraphSource, graph: Graph, folder: Path) -> tuple[Split, ...]:
    if source.rule is not None:
        y = graph.y if graph.y.ndim == 1 else np.zeros(len(graph.y), dtype=np.int64)  # values have no classes
        return splits.seeded(source.name, y, source.rule, folder)
    return tuple(
        Split(name, *(torch.from_numpy(np.array(mask, dtype=bool)) for mask in masks))
        for name, *masks in graph.parts
    )
