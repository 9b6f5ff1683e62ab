r"""Data sets by name, whatever is predicted: of nodes, of whole graphs, of links."""

import dataclasses
import os
import re
from typing import Any

from kgat.datasets import collections, graphs, links
from kgat.datasets.changed import changed
from kgat.datasets.link_task import link_task
from kgat.datasets.source import resolve
from kgat.names import change_of, normalized

__all__ = ["load", "names"]

LINKS = "links"


def names() -> list[str]:
    r"""Returns the names that :func:`load` takes.

    Example:
        >>> "digits" in names() and "Cora" in names() and "MUTAG" in names()
        True
    """
    return [*graphs.names(), *collections.names(), *links.names()]


def load(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    sparse: bool | str = "auto",
    metric: str | None = None,
) -> Any:
    r"""Loads a data set.

    Args:
        name (str): One of :func:`names`; case, :obj:`"-"` and :obj:`"_"` do not matter. With :obj:`"-links"`
            behind that of one graph, :obj:`"Cora-links"`, its links are asked for by :func:`link_task`; with
            :obj:`"-5-labels"`, :obj:`"-25-edges"` or :obj:`"-50-noise"` it is changed by :func:`changed`.
        root (str, optional): The folder of all data sets, see :func:`kgat.datasets.graphs.load`.
            (default: :obj:`None`)
        sparse (bool or str, optional): Whether features are a :obj:`torch.sparse_csr` tensor, see
            :func:`kgat.datasets.graphs.load`; those of whole graphs are not. (default: :obj:`"auto"`)
        metric (str, optional): One of :data:`kgat.datasets.METRICS` that scores this kind of task; that of
            the benchmark if :obj:`None`. (default: :obj:`None`)

    Returns:
        Task, GraphTask or LinkTask: What is asked of nodes of one graph, of whole graphs, or of links.

    Raises:
        ValueError: If the name is unknown, or a raw file is corrupt.
        FileNotFoundError: If a raw file is missing and cannot be downloaded.
        PermissionError: If something has to be written and cannot be.
        ImportError: If the data set needs an extra that is not installed.

    Example:
        >>> load("digits", metric="f1_macro").metric, load("digits-links").level
        ('f1_macro', 'link')
    """
    task = _load(name, root, sparse)
    return task if metric is None else dataclasses.replace(task, metric=metric)


def _load(name: str, root: str | os.PathLike[str] | None, sparse: bool | str) -> Any:
    if (change := change_of(name)) is not None:
        plain, amount, kind = change
        return changed(_load(plain, root, sparse), amount, kind)
    if normalized(name).endswith(LINKS):
        plain = re.sub(r"[-_\s]*links$", "", name, flags=re.I)
        if change_of(plain) is not None:
            raise ValueError(
                f"Expected the links of a graph as it is (got '{name}'); ask for links or for a change, or "
                "pass a task of your own to kgat.datasets.link_task"
            )
        return link_task(graphs.load(plain, root, sparse=sparse))
    if normalized(name) in map(normalized, collections.names()):
        return collections.load(name, root)
    if normalized(name) in map(normalized, links.names()):
        return links.load(name, root, sparse=sparse)
    if normalized(name) not in map(normalized, graphs.names()):
        resolve((*graphs.SOURCES, *collections.SOURCES, *links.SOURCES), name, "a data set")  # type: ignore[type-var]
    return graphs.load(name, root, sparse=sparse)
