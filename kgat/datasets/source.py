r"""What a file of data sets declares, and how declarations are found.

A family of data sets is a file in :mod:`kgat.datasets.graphs`, :mod:`kgat.datasets.collections`,
:mod:`kgat.datasets.links` or :mod:`kgat.datasets.sequences`, whose ``SOURCES`` say everything about them. A
new file there needs no line anywhere else.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from kgat.datasets.files import RawFile
from kgat.datasets.graph import Array, Graph, Parts
from kgat.datasets.sequence_task import SequenceTask
from kgat.datasets.splits import Rule
from kgat.names import normalized, unknown

__all__ = [
    "Collection",
    "CollectionSource",
    "GraphSource",
    "LinkSource",
    "Links",
    "SequenceSource",
    "discover",
    "resolve",
]


@dataclass(frozen=True, kw_only=True)
class GraphSource:
    r"""A graph: its raw files, how to read them, and what is said about it.

    Args:
        name (str): The canonical name.
        read (callable): Reads the raw files into a :class:`Graph`.
        citation (str): Paper, origin of the files, licence.
        features (str): What the features are and what was done to them.
        files (tuple of RawFile, optional): The raw files. (default: :obj:`()`)
        instead (tuple of RawFile, optional): Files that serve where they alone are all there.
            (default: :obj:`()`)
        rule (callable, optional): How to draw splits if the benchmark fixes none.
            (default: :obj:`None`)
        metric (str, optional): The metric of the benchmark. (default: :obj:`"accuracy"`)
        undirected (bool, optional): Whether edges are made to count in both directions.
            (default: :obj:`True`)
        needs (tuple of str, optional): Packages that reading takes beyond kgat's own.
            (default: :obj:`("scipy",)`)
    """

    name: str
    read: Callable[[list[Path]], Graph]
    citation: str
    features: str
    files: tuple[RawFile, ...] = ()
    instead: tuple[RawFile, ...] = ()
    rule: Rule | None = None
    metric: str = "accuracy"
    undirected: bool = True
    needs: tuple[str, ...] = ("scipy",)


@dataclass(frozen=True, kw_only=True)
class SequenceSource:
    r"""A data set of sequences: its raw files, how to read them, and what is said about it.

    Args:
        name (str): The canonical name.
        read (callable): Makes the task from the source, the paths of its files and the options.
        citation (str): Paper, origin of the files, licence.
        files (tuple of RawFile, optional): The raw files. (default: :obj:`()`)
        instead (tuple of RawFile, optional): Files that serve where they alone are all there.
            (default: :obj:`()`)
        needs (tuple of str, optional): Packages that reading takes beyond kgat's own.
            (default: :obj:`()`)
    """

    name: str
    read: Callable[..., SequenceTask]
    citation: str
    files: tuple[RawFile, ...] = ()
    instead: tuple[RawFile, ...] = ()
    needs: tuple[str, ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        r"""The options that reading takes, with their defaults."""
        parameters = inspect.signature(self.read).parameters.values()
        return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


@dataclass(frozen=True)
class Collection:
    r"""Many graphs as raw files give them: NumPy arrays of all of them, one graph after the other.

    Args:
        x (numpy.ndarray): Features of nodes.
        row, col (numpy.ndarray): The ends of edges, nodes counted through all graphs.
        graph (numpy.ndarray): The graph of each node, sorted.
        y (numpy.ndarray): A class per graph, or a row of labels or values.
        edge_attr (numpy.ndarray, optional): Features of edges. (default: :obj:`None`)
        parts (list of tuple, optional): Splits that the benchmark fixes: names and masks of graphs for
            training, validation and test. (default: :obj:`()`)
    """

    x: Array
    row: Array
    col: Array
    graph: Array
    y: Array
    edge_attr: Array | None = None
    parts: Sequence[Parts] = ()


@dataclass(frozen=True, kw_only=True)
class CollectionSource:
    r"""A collection of graphs: its raw files, how to read them, and what is said about it.

    Args:
        name (str): The canonical name.
        read (callable): Reads the raw files into a :class:`Collection`.
        citation (str): Paper, origin of the files, licence.
        features (str): What the features are and what was done to them.
        files (tuple of RawFile, optional): The raw files. (default: :obj:`()`)
        num_folds (int, optional): Folds of stratified cross-validation if the benchmark fixes no splits.
            (default: :obj:`None`)
        metric (str, optional): The metric of the benchmark. (default: :obj:`"accuracy"`)
        needs (tuple of str, optional): Packages that reading takes beyond kgat's own. (default: :obj:`()`)
    """

    name: str
    read: Callable[[list[Path]], Collection]
    citation: str
    features: str
    files: tuple[RawFile, ...] = ()
    num_folds: int | None = None
    metric: str = "accuracy"
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Links:
    r"""Pairs of nodes as raw files give them: NumPy arrays, source first.

    Args:
        x (numpy.ndarray or scipy.sparse.csr_matrix): Features of nodes.
        edges (dict): The edges of :obj:`"train"`, :obj:`"val"` and :obj:`"test"`.
        others (dict): The pairs without an edge of :obj:`"val"` and :obj:`"test"`, and of :obj:`"train"` if
            there are some: those that all edges of the part are told from, or of each edge those it is ranked
            among.

    Shapes:
        - **edges:** :math:`(M, 2)`, **others:** :math:`(K, 2)` or :math:`(M, K, 2)`
    """

    x: Any
    edges: dict[str, Array]
    others: dict[str, Array]


@dataclass(frozen=True, kw_only=True)
class LinkSource:
    r"""A graph whose links are asked for: its raw files, how to read them, and what is said about it.

    Args:
        name (str): The canonical name.
        read (callable): Reads the raw files into :class:`Links`.
        citation (str): Paper, origin of the files, licence.
        features (str): What the features are and what was done to them.
        files (tuple of RawFile): The raw files.
        metric (str): The metric of the benchmark.
        undirected (bool, optional): Whether a pair is the same in both orders. (default: :obj:`True`)
        needs (tuple of str, optional): Packages that reading takes beyond kgat's own. (default: :obj:`()`)
    """

    name: str
    read: Callable[[list[Path]], Links]
    citation: str
    features: str
    files: tuple[RawFile, ...]
    metric: str
    undirected: bool = True
    needs: tuple[str, ...] = ()


SomeSource = TypeVar("SomeSource", GraphSource, CollectionSource, LinkSource, SequenceSource)


def discover(package: str, path: Sequence[str], first: Sequence[str]) -> tuple[Any, ...]:
    r"""Returns the ``SOURCES`` of all modules in a package.

    Args:
        package (str): The name of the package.
        path (list of str): Where its modules are.
        first (list of str): Modules whose sources come first, in this order; the others follow in that of
            the alphabet.

    Raises:
        ValueError: If two sources have one name.
    """
    present = sorted(module.name for module in pkgutil.iter_modules(path))
    modules = [*first, *(name for name in present if name not in first)]
    sources = [source for name in modules for source in import_module(f"{package}.{name}").SOURCES]
    names = [normalized(source.name) for source in sources]
    for source, name in zip(sources, names, strict=True):
        if names.count(name) > 1:
            raise ValueError(
                f"Expected names of data sets that differ (got '{source.name}' twice); rename one"
            )
    return tuple(sources)


def resolve(sources: Sequence[SomeSource], name: str, kind: str) -> SomeSource:
    r"""Returns the data set of a name; case, :obj:`"-"` and :obj:`"_"` do not matter.

    Args:
        sources (list of GraphSource or SequenceSource): The data sets.
        name (str): The name.
        kind (str): What an error calls one of them.

    Raises:
        ValueError: If there is none of this name.
    """
    by_name = {normalized(source.name): source for source in sources}
    if normalized(name) not in by_name:
        unknown(f"the name of {kind}", name, [source.name for source in sources])
    return by_name[normalized(name)]
