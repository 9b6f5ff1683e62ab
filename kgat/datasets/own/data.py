r"""Graphs that are PyG's :obj:`Data` already, and files of them."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData
from torch_geometric.data.separate import separate

from kgat.datasets.own.edges import with_edge_index
from kgat.datasets.own.encoding import Encoding
from kgat.datasets.own.hetero import float_features, make_hetero_task, target_in
from kgat.datasets.own.parts import given_split, numpy_of
from kgat.datasets.own.raw import Array, RawGraph, edge_features_in, no_column, several
from kgat.datasets.own.task import make_task
from kgat.datasets.task import Task
from kgat.datasets.whole_numbers import signed_data

__all__ = ["SeveralGraphs", "from_data", "names_of", "read_data", "read_several"]


def from_data(
    data: Data | HeteroData | Mapping[Any, Any],
    *,
    target: str = "y",
    source: str = "",
    like: Encoding | None = None,
    graphs: str | None = None,
    **options: Any,
) -> Task:
    r"""Makes a task of a graph, for :func:`kgat.experiments.compare.compare` and training.

    What is to be predicted is recognised by its values, whatever their type: whole numbers of at most 100
    different values, text and truth values are classes, other numbers a regression and several columns of
    zeros and ones labels. Unknown is :obj:`nan`, and of classes and labels also :obj:`-1`, but in a table,
    where an empty cell is unknown and :obj:`-1` a class. Other negative whole numbers are no classes: if they
    are few, they need ``kind="regression"``, in which each number is a value.

    Edges are made unique, without self-loops, sorted by target; :func:`describe` says in one line what was
    understood. What is said of labels, and of options from :obj:`name` on, holds for :func:`from_pandas`,
    :func:`from_networkx`, :func:`from_scipy`, :func:`from_points` and :func:`read_graph`, too.

    Args:
        data (torch_geometric.data.Data, torch_geometric.data.HeteroData or dict): Holds :obj:`edge_index`,
            or :obj:`adj_t` as :class:`~torch_geometric.transforms.ToSparseTensor` makes it, what is to be
            predicted, and optionally :obj:`x`, :obj:`edge_attr`, and masks :obj:`train_mask`,
            :obj:`val_mask` and :obj:`test_mask` with one column per split. Without :obj:`edge_attr`,
            :obj:`edge_weight` is the feature of edges; beside it, it is left out. A type of nodes of a
            heterogeneous graph that has no :obj:`x` gets :func:`averaged_features`.
        target (str, optional): The attribute that is to be predicted. Of a heterogeneous graph the type of
            nodes whose :obj:`y` it is, or ``type.attribute``; the one type that has a :obj:`y` if left out.
            (default: :obj:`"y"`)
        source (str, optional): Where the graph comes from, in one line. (default: what it is)
        like (Encoding, optional): As :func:`from_pandas` has it. (default: :obj:`None`)
        graphs (str, optional): The attribute with the graph of each node, where there are several.
            (default: :obj:`None`)
        name (str, optional): What tables call it. (default: :obj:`"graph"`)
        kind (str, optional): :obj:`"multiclass"`, :obj:`"binary"`, :obj:`"multilabel"` or
            :obj:`"regression"`; recognised if :obj:`None`. (default: :obj:`None`)
        metric (str, optional): What an answer is scored by; if :obj:`None`, accuracy of several classes,
            ROC-AUC of two or of labels, the root mean squared error of numbers. (default: :obj:`None`)
        split (str, optional): :obj:`"stratified"` or :obj:`"random"` draws twenty splits, ``column:NAME``
            reads a column of train, val and test, ``files:FOLDER`` reads ``train.txt``, ``val.txt`` and
            ``test.txt`` there, an id a line. If :obj:`None`, the split that the graph brings (masks, or names
            of parts in ``split``), else one by :obj:`time` or :obj:`group`, else drawn, stratified where
            there are classes. (default: :obj:`None`)
        time (str, optional): A column by which training comes before validation, and that before testing.
            A given split that does not keep to it is refused. (default: :obj:`None`)
        group (str, optional): A column whose equal values stay in one part. A given split that does not
            keep to it is refused. (default: :obj:`None`)
        shares (tuple of float, optional): The shares of training and validation nodes; the rest is for
            testing. (default: :obj:`(0.6, 0.2)`)
        directed (bool, optional): Whether an edge counts in its direction alone; as the graph says if
            :obj:`None`. (default: :obj:`None`)
        structure (list of str, optional): Features made of the edges: :obj:`"degree"`, ``walk:K``,
            ``laplacian:K``, see :func:`structural_features`. (default: :obj:`()`)

    Raises:
        ValueError: If something does not fit together, with the place of the first thing that does not.
        IndexError: If an edge names a node that is not there.

    Example:
        >>> from torch_geometric.utils import erdos_renyi_graph
        >>> x, y = torch.randn(60, 4), torch.arange(60) % 3
        >>> task = from_data(Data(x=x, edge_index=erdos_renyi_graph(60, 0.1), y=y), name="drawn")
        >>> task.num_classes, task.metric, len(task.splits)
        (3, 'accuracy', 20)
    """
    if isinstance(data, Mapping):
        data = _from_dict(data)
    if not isinstance(data, Data | HeteroData):
        raise TypeError(
            f"Expected a torch_geometric.data.Data (got {type(data).__name__}); pass Data(x=x, "
            "edge_index=edge_index, y=y)"
        )
    source = source or f"the given {type(data).__name__}"
    data = signed_data(with_edge_index(data), source)
    if like is not None and isinstance(data, HeteroData):
        raise NotImplementedError(
            f"Expected a graph with one type of nodes to predict on (got {source}, a HeteroData); call the "
            "model of kgat.experiments.training.restore with its features and edges"
        )
    if isinstance(data, HeteroData):
        if graphs is not None:
            raise ValueError(
                f"Expected no 'graphs' of a heterogeneous graph (got '{graphs}'); leave it out (--graphs)"
            )
        name, attribute = target_in(data, target, source)
        raw = _raw(data[name], attribute, f"{source}, type '{name}'", options)
        return make_hetero_task(data, name, raw, **options)
    if data.edge_index is None:
        raise ValueError(
            f"Expected 'edge_index' of shape [2, E] in {source} (got {sorted(data.keys())}); for points "
            "without edges use from_points(x, y, knn=10)"
        )
    if like is not None:
        target, data = "y", data.clone()
        data.y = np.full(data.num_nodes or 0, np.nan)
    raw = _raw(data, target, source, options if like is None else {"like": like}, graphs)
    return make_task(raw, like=like, **options)


def _from_dict(content: Mapping[Any, Any]) -> Data | HeteroData:
    several = any(isinstance(value, Mapping) for value in content.values())
    return (HeteroData if several else Data).from_dict(dict(content))


def _raw(data: Any, target: str, source: str, options: dict[str, Any], graphs: str | None = None) -> RawGraph:
    # Of a graph, or of the nodes of one type.
    def column(name: str) -> Array:
        if name not in data:
            no_column("an attribute", name, sorted(data.keys()), source, "name one of them")
        return numpy_of(data[name])

    labels = column(target)
    if labels.ndim not in (1, 2):
        raise ValueError(
            f"Expected one value, or one row, of '{target}' per node in {source} (got {list(labels.shape)}); "
            "choose another target"
        )
    x = data.get("x")
    nodes = x.size(0) if isinstance(x, Tensor) else data.get("num_nodes", len(labels))
    if len(labels) != nodes:
        raise ValueError(
            f"Expected '{target}' for the {nodes} nodes of {source} (got {list(labels.shape)}); pass one row "
            "per node"
        )
    edge_index, (edge_attr, said) = data.get("edge_index"), edge_features_in(data)
    return RawGraph(
        x=float_features(x, source),
        edge_index=np.empty((2, 0), np.int64) if edge_index is None else numpy_of(edge_index),
        edge_attr=None if edge_attr is None else numpy_of(edge_attr),
        labels=labels,
        label=target,
        column=column,
        row=lambda node: f"node {node}",
        source=source,
        masks=given_split(data, source, nodes, options),
        steps=said,
        extra={
            **({"node_id": names_of(data["node_id"], nodes, source)} if "node_id" in data else {}),
            **(several(data[graphs]) if graphs is not None else {}),
        },
    )


def names_of(ids: Any, nodes: int, source: str) -> list[Any]:
    r"""Returns the names of nodes, whatever holds them."""
    names = ids.tolist() if isinstance(ids, Tensor | np.ndarray) else list(ids)
    if len(names) != nodes:
        raise ValueError(
            f"Expected 'node_id' for the {nodes} nodes of {source} (got {len(names)}); pass one per node"
        )
    return names


class SeveralGraphs(ValueError):
    r"""A file holds several graphs where one is expected."""


def read_data(path: Path) -> Data | HeteroData:
    r"""Reads a file that :func:`torch.save` made of a :obj:`Data`, a :obj:`HeteroData` or the dictionary of
    one. Nothing in it is run.

    Args:
        path (Path): The file.

    Raises:
        SeveralGraphs: If it holds several.
        ValueError: If it is something else, or would run code.
    """
    content = _content(path)
    if isinstance(content, list) and content and isinstance(content[0], dict | Data):
        content = _only_graph(path, (content[0], {"graphs": range(len(content) + 1)}))
    if isinstance(content, tuple) and content and isinstance(content[0], dict | Data | HeteroData):
        content = _only_graph(path, content)
    if isinstance(content, dict):
        content = _from_dict(content)
    if not isinstance(content, Data | HeteroData):
        raise ValueError(
            f"Expected a graph in '{path}' (got {type(content).__name__}); write it with "
            f"torch.save(data.to_dict(), '{path.name}')"
        )
    return content


def _content(path: Path) -> Any:
    from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
    from torch_geometric.data.storage import BaseStorage, EdgeStorage, GlobalStorage, NodeStorage

    try:
        # PyG declares its classes safe, but not all that its files name.
        safe = [Data, DataEdgeAttr, DataTensorAttr, GlobalStorage]
        safe += [HeteroData, BaseStorage, NodeStorage, EdgeStorage]
        with torch.serialization.safe_globals(safe), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a pickle by others; it is refused in any case
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(
            f"Expected tensors of one graph in '{path}' (got a pickle, which could run anything, or a "
            f"damaged file); write it with torch.save(data.to_dict(), '{path.name}')"
        ) from error


def read_several(path: Path) -> list[Data]:
    r"""Reads the graphs of a file: a list of :obj:`Data` or of their dictionaries, what an
    :obj:`InMemoryDataset` of PyG keeps, or one graph.

    Args:
        path (Path): The file.

    Raises:
        ValueError: If it is something else, or would run code.
    """
    content = _content(path)
    if isinstance(content, tuple) and len(content) > 1 and isinstance(content[0], dict | Data):
        data = Data.from_dict(content[0]) if isinstance(content[0], dict) else content[0]
        slices: dict[str, Any] = content[1] or {}
        count = max((len(places) - 1 for places in slices.values()), default=1)
        graphs: list[Any] = [data] if not slices else [_slice(data, slices, i) for i in range(count)]
    else:
        graphs = [*content] if isinstance(content, list | tuple) else [content]
    graphs = [Data.from_dict(graph) if isinstance(graph, dict) else graph for graph in graphs]
    wrong = next((graph for graph in graphs if not isinstance(graph, Data)), None)
    if wrong is not None or not graphs:
        raise ValueError(
            f"Expected graphs in '{path}' (got {type(wrong).__name__ if graphs else 'an empty list'}); write "
            f"them with torch.save([data.to_dict() for data in graphs], '{path.name}')"
        )
    return graphs


def _slice(data: Data, slices: dict[str, Any], number: int) -> Data:
    return separate(Data, data, number, slices, decrement=False)  # type: ignore[no-any-return]


def _only_graph(path: Path, content: tuple[Any, ...]) -> Any:
    # As InMemoryDataset writes it: all graphs joined, and where each begins.
    slices = [content[1]] if len(content) > 1 and content[1] else []
    for each in slices:  # by type and attribute, or by attribute
        slices += [value for value in each.values() if isinstance(value, Mapping)]
    places = [value for each in slices for value in each.values() if not isinstance(value, Mapping)]
    graphs = max((len(each) - 1 for each in places), default=1)
    if graphs > 1:
        typed = any(isinstance(each, Mapping) for each in content[1].values())
        raise (ValueError if typed else SeveralGraphs)(
            f"Expected one graph in '{path}' (got {graphs}); a task on the nodes of one graph has one"
        )
    return content[0]
