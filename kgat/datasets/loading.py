r"""Data sets by name, whatever is predicted: of nodes, of whole graphs, of links."""

import os
from typing import Any

from kgat.datasets import collections, graphs
from kgat.datasets.source import resolve
from kgat.names import normalized

__all__ = ["load", "names"]


def names() -> list[str]:
    r"""Returns the names that :func:`load` takes.

    Example:
        >>> "digits" in names() and "Cora" in names() and "MUTAG" in names()
        True
    """
    return [*graphs.names(), *collections.names()]


def load(name: str, root: str | os.PathLike[str] | None = None, *, sparse: bool | str = "auto") -> Any:
    r"""Loads a data set.

    Args:
        name (str): One of :func:`names`; case, :obj:`"-"` and :obj:`"_"` do not matter.
        root (str, optional): The folder of all data sets, see :func:`kgat.datasets.graphs.load`.
            (default: :obj:`None`)
        sparse (bool or str, optional): Whether features are a :obj:`torch.sparse_csr` tensor, see
            :func:`kgat.datasets.graphs.load`; those of whole graphs are not. (default: :obj:`"auto"`)

    Returns:
        Task, GraphTask: What is asked of nodes of one graph, or of whole graphs.

    Raises:
        ValueError: If the name is unknown, or a raw file is corrupt.
        FileNotFoundError: If a raw file is missing and cannot be downloaded.
        PermissionError: If something has to be written and cannot be.
        ImportError: If the data set needs an extra that is not installed.

    Example:
        >>> load("digits").level
        'node'
    """
    if normalized(name) in map(normalized, collections.names()):
        return collections.load(name, root)
    if normalized(name) not in map(normalized, graphs.names()):
        resolve((*graphs.SOURCES, *collections.SOURCES), name, "a data set")  # type: ignore[type-var]
    return graphs.load(name, root, sparse=sparse)
