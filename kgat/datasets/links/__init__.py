r"""Data sets of links: :func:`load` gives a :class:`~kgat.datasets.LinkTask`, :func:`names` lists them.

Each family is a file beside this one. Raw files lie where the loaders of :obj:`ogb` look for them. They are
read into memory directly: nothing is written beside them and nothing they contain is run.
"""

import os

import numpy as np
import torch
from torch_geometric.data import Data

from kgat.datasets.files import fetch, naming, reading, resolve_root
from kgat.datasets.graph import Array, feature_tensor, sorted_edges
from kgat.datasets.link_task import LinkSplit, LinkTask, Pairs
from kgat.datasets.source import Links, LinkSource, discover, resolve
from kgat.datasets.task import PARTS
from kgat.extras import require

__all__ = ["SOURCES", "load", "names"]

SOURCES: tuple[LinkSource, ...] = discover(__name__, __path__, first=())


def names() -> list[str]:
    r"""Returns the names that :func:`load` takes.

    Example:
        >>> "ogbl-collab" in names()
        True
    """
    return [source.name for source in SOURCES]


def load(name: str, root: str | os.PathLike[str] | None = None, *, sparse: bool | str = "auto") -> LinkTask:
    r"""Loads a data set of links with the split of its benchmark. Messages pass along the edges for training,
    in both directions; these are scored against pairs without an edge of validation.

    Args:
        name (str): One of :func:`names`; case, :obj:`"-"` and :obj:`"_"` do not matter.
        root (str, optional): As of :func:`kgat.datasets.load`. (default: :obj:`None`)
        sparse (bool or str, optional): As of :func:`kgat.datasets.load`. (default: :obj:`"auto"`)

    Raises:
        ValueError: If the name is unknown, or a raw file is corrupt.
        FileNotFoundError: If a raw file is missing and cannot be downloaded.
        ImportError: If the data set needs an extra that is not installed.
    """
    source = resolve(SOURCES, name, "a data set of links")
    require(f"to read '{source.name}'", *source.needs)
    paths = fetch(resolve_root(root), source.files, source.name)
    with reading(*paths):
        links = source.read(paths)
    with naming(*paths):
        return _task(source, links, sparse)


def _task(source: LinkSource, links: Links, sparse: bool | str) -> LinkTask:
    x, layout = feature_tensor(links.x, sparse)
    row, col = links.edges["train"].T
    edge_index = sorted_edges(source.name, row, col, x.size(0), undirected=True)
    shared = links.others["val"] if links.others["val"].ndim == 2 else links.others["val"][:, 0]
    others = {"train": shared} | links.others
    pairs = {part: _pairs(links.edges[part], others[part]) for part in PARTS}
    split = LinkSplit("public", edge_index, None, **pairs, public=True)
    return LinkTask(
        name=source.name,
        data=Data(x=x, edge_index=edge_index),
        splits=(split,),
        metric=source.metric,
        source=source.citation,
        preprocessing=f"{source.features}, {layout}; messages along edges for training in both directions, "
        "no self-loops, no duplicate edges, sorted by target",
        undirected=source.undirected,
        digest=None,
    )


def _pairs(edges: Array, others: Array) -> Pairs:
    if others.ndim == 2:
        index, y = np.concatenate([edges, others]), np.arange(len(edges) + len(others)) < len(edges)
    else:  # each edge with its own
        index = np.concatenate([edges[:, None], others], axis=1)
        y = np.zeros(index.shape[:2], dtype=bool)
        y[:, 0] = True
    ends = np.ascontiguousarray(np.moveaxis(index, -1, 0), dtype=np.int64)
    return Pairs(index=torch.from_numpy(ends), y=torch.from_numpy(y.astype(np.int64)))
