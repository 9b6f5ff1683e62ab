r"""From a path to a task, whatever lies there."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch_geometric.data import HeteroData

from kgat.datasets.own.arrays import read_arrays
from kgat.datasets.own.data import SeveralGraphs, from_data, names_of, read_data
from kgat.datasets.own.edge_lists import EDGE_LISTS, EDGE_SOURCE, EDGE_TARGET, read_edge_list
from kgat.datasets.own.encoding import Encoding
from kgat.datasets.own.hetero import expect_types, prepared
from kgat.datasets.own.mapped import is_mapped, load_mapped
from kgat.datasets.own.networks import NETWORKS, from_networkx, read_network, without_names_of_ends
from kgat.datasets.own.raw import names_in
from kgat.datasets.own.several import from_several, graphs_at
from kgat.datasets.own.table_files import TABLES, ending_of, read_table, table_in
from kgat.datasets.own.tables import from_pandas
from kgat.datasets.task import Task, check_features

__all__ = ["read_graph", "read_unlabelled", "read_unlabelled_types"]

# Which options belong to which files; all others belong to all.
OF_TABLES = ("drop", "categories", "fill", "id")
OF_EDGE_TABLES = ("edge_source", "edge_target")
ENDINGS = (".pt", ".pth", ".npz", *NETWORKS, *EDGE_LISTS, *TABLES)


def read_graph(
    path: str | os.PathLike[str],
    *,
    nodes: str | None = None,
    edges: str | None = None,
    label: str | None = None,
    knn: int | None = None,
    name: str | None = None,
    **options: Any,
) -> Task:
    r"""Reads a graph of one's own and makes a task of it.

    ======================================  =======================================================
    what lies there                         how it is read
    ======================================  =======================================================
    a folder with ``nodes`` and ``edges``   tables: :func:`from_pandas`
    a folder that ``kgat convert`` wrote    as it is: :func:`~kgat.datasets.load_mapped`
    a folder of ``.npy`` and ``.npz``       arrays: :func:`from_scipy`, :func:`from_points`
    ``.csv``, ``.tsv``, ``.parquet``        points, with ``knn``: :func:`from_pandas`; as all tables also
                                            ``.csv.gz`` and ``.tsv.gz``
    ``.pt``, ``.pth``                       a :obj:`Data` or :obj:`HeteroData` of PyG: :func:`from_data`
    ``.graphml``, ``.gexf``, ``.gml``       networkx: :func:`from_networkx`
    ``.edgelist``, ``.edges``               a list of edges, with ``nodes``: :func:`from_pandas`
    ``.npz``                                arrays: :func:`from_scipy`, :func:`from_points`
    a folder with ``train``, ``val`` and    several graphs, those of testing unseen by training: folders or
    ``test``                                ``.pt`` files of graphs
    a folder, or a ``.pt``, of graphs       several graphs; seeded splits of them
    ======================================  =======================================================

    Args:
        path (str): The file or folder.
        nodes (str, optional): The table of nodes, below the folder or beside the file. (default:
            ``nodes.csv``, ``.tsv`` or ``.parquet`` of a folder)
        edges (str, optional): The table of edges. (default: ``edges.csv``, ``.tsv`` or ``.parquet`` of a
            folder)
        label (str, optional): What is to be predicted. (default: :obj:`"label"` of tables and networks,
            :obj:`"y"` of arrays)
        knn (int, optional): Of points without edges: how many nearest neighbours each gets.
            (default: :obj:`None`)
        name (str, optional): What tables call it. (default: the name of the file or folder)
        **options (optional): As :func:`from_pandas` and :func:`from_data` have them.

    Raises:
        FileNotFoundError: If there is nothing.
        ValueError: If it is nothing that is read here, or an option is not for it.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> rows = [f"{name},{i},{'xy'[i % 2]}" for i, name in enumerate("abcdef")]
        >>> _ = (folder / "nodes.csv").write_text("\n".join(["id,age,label", *rows]))
        >>> _ = (folder / "edges.csv").write_text("source,target\na,b\nb,c\nc,d\nd,e\ne,f")
        >>> task = read_graph(folder, name="letters")
        >>> task.data.classes, task.data.num_edges
        (['x', 'y'], 10)
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"Expected a graph at '{path}' (got no file or folder); check the path")
    ending = ending_of(path)
    title = path.resolve().name
    is_named_by = bool(ending) and path.is_file() and title.lower().endswith(ending)
    options["name"] = name or (title[: -len(ending)] if is_named_by else title)
    labelled: dict[str, Any] = {} if label is None else {"label": label}
    is_other = (
        is_mapped(path) or (path.is_dir() and _has_arrays(path)) or nodes is not None or edges is not None
    )
    if path.is_dir() and not is_other and (members := graphs_at(path)):
        return from_several(members, source=f"'{path}'", knn=knn, **labelled, **options)
    if is_mapped(path):
        return _mapped(path, {**options, "nodes": nodes, "edges": edges, "knn": knn, **labelled}, name)
    if (
        path.is_dir()
        and nodes is None
        and edges is None
        and table_in(path, "nodes") is None
        and _has_arrays(path)
    ):
        _refuse(path, options, OF_TABLES + OF_EDGE_TABLES)
        return read_arrays(path, knn=knn, **labelled, **options)
    if path.is_dir():
        return _tables(path, nodes, edges, knn, labelled | options)
    if ending in TABLES:
        if edges is not None or nodes is not None:
            raise ValueError(
                f"Expected a folder with tables of nodes and edges (got '{path}' with nodes='{nodes}', "
                f"edges='{edges}'); pass the folder they lie in"
            )
        table, where = read_table(path, [options.get("id", "id")], _names(options))
        _refuse(path, options, OF_EDGE_TABLES)
        return from_pandas(
            table, None, knn=knn, source=f"'{path}'", row=lambda _, i: where(i), **labelled, **options
        )
    if ending in (*NETWORKS, *EDGE_LISTS):
        _refuse(path, {**options, "edges": edges, "knn": knn}, ("edges", "knn", *OF_EDGE_TABLES))
        return (_network if ending in NETWORKS else _edge_list)(path, nodes, labelled | options)
    if ending in (".pt", ".pth", ".npz"):
        _refuse(
            path, {**options, "nodes": nodes, "edges": edges}, ("nodes", "edges", *OF_TABLES, *OF_EDGE_TABLES)
        )
        if ending == ".npz":
            return read_arrays(path, knn=knn, **labelled, **options)
        _refuse(path, {**options, "knn": knn}, ("knn", "standardize"))
        try:
            data = read_data(path)
        except SeveralGraphs:
            return from_several(graphs_at(path), source=f"'{path}'", **labelled, **options)
        return from_data(data, target=label or "y", source=f"'{path}'", **options)
    raise ValueError(
        f"Expected a folder or a file with one of the endings {', '.join(ENDINGS)} (got '{path}'); convert it"
    )


def read_unlabelled(path: str | os.PathLike[str], like: Encoding, **options: Any) -> Task:
    r"""Reads a graph that a trained model is to predict on; its labels, if there are some, do not count.

    Args:
        path (str): As of :func:`read_graph`.
        like (Encoding): How the graph was encoded that the model was trained on.
        **options (optional): Those of :func:`read_graph` that say where things are, if not where they were in
            training: ``nodes``, ``edges``, ``id``, ``edge_source``, ``edge_target``, ``knn``, ``drop``,
            ``fill``.

    Raises:
        ValueError: If features are not those of training, with the name or number of those that differ; as
            :func:`read_graph` otherwise.

    Example:
        >>> import tempfile
        >>> import pandas as pd
        >>> from kgat.datasets import from_pandas
        >>> nodes = pd.DataFrame({"id": list("abcdef"), "age": range(6), "label": ["x", "y"] * 3})
        >>> edges = pd.DataFrame({"source": list("abcde"), "target": list("bcdef")})
        >>> trained = from_pandas(nodes, edges, standardize=False)
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "nodes.csv").write_text("id,age\ng,40\nh,41")
        >>> _ = (folder / "edges.csv").write_text("source,target\ng,h")
        >>> read_unlabelled(folder, Encoding.of(trained.data.encoding)).data.x.tolist()
        [[40.0], [41.0]]
    """
    path = Path(path)
    if is_mapped(path):
        task = _mapped(path, {**options, "name": None}, None)
        if like.columns is not None and task.data.get("encoding") != like.as_dict():
            raise ValueError(
                f"Expected a graph that was encoded as in training (got '{path}', which was not); give "
                "its tables"
            )
        edge_attr = task.data.edge_attr
        like.expect_sizes(f"'{path}'", task.data.x.size(1), 0 if edge_attr is None else edge_attr.size(1))
        return task
    kind = path.suffix.lower()
    known = tuple(like.read)  # but for what such files do not have
    if kind in (*NETWORKS, *EDGE_LISTS):
        known = ("id",)
    elif kind in (".pt", ".pth"):
        known = ()
    read = {name: value for name, value in like.read.items() if name in known}
    return read_graph(path, like=like, **read | options)


def read_unlabelled_types(
    path: Path,
    features: Mapping[str, int],
    edge_features: Mapping[tuple[str, str, str], int],
    directed: bool | None = None,
) -> tuple[HeteroData, dict[str, Sequence[Any]]]:
    r"""Reads a heterogeneous graph that a trained model is to predict on; its labels do not count.

    Args:
        path (Path): The file that holds a :class:`~torch_geometric.data.HeteroData`.
        features (dict): How many features each type of nodes had in training.
        edge_features (dict): How many each type of edges had, 0 for none.
        directed (bool, optional): As it was in training. (default: :obj:`None`)

    Returns:
        (torch_geometric.data.HeteroData, dict): The graph as training had it, and by type of nodes the ids
        that the graph names.

    Raises:
        ValueError: If types or features are not those of training; if a feature is not finite, or nodes have
            more or fewer ids.

    Example:
        >>> import tempfile
        >>> import torch
        >>> data = HeteroData()
        >>> data["author"].x, data["author"].node_id = torch.ones(2, 3), ["ann", "bob"]
        >>> data["paper"].x = torch.ones(1, 4)
        >>> data["author", "wrote", "paper"].edge_index = torch.tensor([[0, 1], [0, 0]])
        >>> path = Path(tempfile.mkdtemp()) / "new.pt"
        >>> torch.save(data.to_dict(), path)
        >>> features, edge_features = {"author": 3, "paper": 4}, {("author", "wrote", "paper"): 0}
        >>> read_unlabelled_types(path, features, edge_features)[1]
        {'author': ['ann', 'bob']}
    """
    source = f"'{path}'"
    data = read_data(path)
    if not isinstance(data, HeteroData):
        raise ValueError(
            f"Expected a HeteroData in {source}, as the model was trained on (got a {type(data).__name__}); "
            "give its nodes and edges types"
        )
    graph, _ = prepared(data, source, directed)
    expect_types(graph, source, features, edge_features)
    ids: dict[str, Sequence[Any]] = {}
    for name in graph.node_types:
        check_features(f"{path}, type '{name}'", graph[name].x)
        if "node_id" in data[name]:
            ids[name] = names_of(data[name].node_id, graph[name].x.size(0), f"{source}, type '{name}'")
    return graph, ids


def _refuse(path: Path, options: dict[str, Any], names: Sequence[str]) -> None:
    for name in names:
        if options.pop(name, None) is not None:
            raise ValueError(
                f"Expected options that '{path}' takes (got '{name}', which is for tables or points); "
                "leave it out"
            )


def _mapped(path: Path, options: dict[str, Any], name: str | None) -> Task:
    metric = options.pop("metric", None)
    options.pop("name")
    for option in (option for option, value in options.items() if value is not None):
        raise ValueError(
            f"Expected no '{option}' of '{path}', which kgat convert wrote as it is (got one); leave it out, "
            "or say it to kgat convert"
        )
    task = load_mapped(path)
    return dataclasses.replace(task, name=name or task.name, metric=metric or task.metric)


def _has_arrays(path: Path) -> bool:
    return any(file.suffix in (".npy", ".npz") for file in path.iterdir())


def _names(options: Mapping[str, Any]) -> list[str]:
    like: Encoding | None = options.get("like")
    return names_in(options.get("categories")) if like is None else like.names()


def _place(folder: Path, given: str | None, name: str) -> Path | None:
    if given is None:
        return table_in(folder, name)
    if (folder / given).is_file():
        return folder / given
    raise FileNotFoundError(f"Expected a table of {name} at '{folder / given}' (got no file); check --{name}")


def _tables(
    path: Path, nodes: str | None, edges: str | None, knn: int | None, options: dict[str, Any]
) -> Task:
    place = _place(path, nodes, "nodes")
    if place is None:
        present = ", ".join(sorted(file.name for file in path.iterdir())[:10]) or "nothing"
        raise FileNotFoundError(
            f"Expected a table of nodes in '{path}': nodes.csv, nodes.tsv or nodes.parquet (got {present}); "
            "name it with --nodes"
        )
    of_edges = _place(path, edges, "edges")
    if of_edges is None and knn is None:
        # A model that was trained on edges has no use for others.
        otherwise = "" if options.get("like") is not None else ", or pass --knn 10 for points without edges"
        raise FileNotFoundError(
            f"Expected a table of edges in '{path}': edges.csv, edges.tsv or edges.parquet (got none); name "
            f"it with --edges{otherwise}"
        )
    node_table, node_row = read_table(place, [options.get("id", "id")], _names(options))
    rows = {"nodes": node_row, "points": node_row}
    edge_table = None
    if of_edges is not None:
        ends = [options.get("edge_source", "source"), options.get("edge_target", "target")]
        edge_table, rows["edges"] = read_table(of_edges, ends, _names(options))
    else:
        _refuse(path, options, OF_EDGE_TABLES)
    return from_pandas(
        node_table,
        edge_table,
        knn=knn,
        source=f"'{path}'",
        row=lambda table, i: rows[table](i),
        **options,
    )


def _edge_list(path: Path, nodes: str | None, options: dict[str, Any]) -> Task:
    place = _place(path.parent, nodes, "nodes") if nodes is not None else None
    if place is None:
        raise ValueError(
            f"Expected a table of nodes beside the list of edges '{path}' (got none); name it with --nodes"
        )
    id = options.get("id", "id")
    table, node_row = read_table(place, [id], _names(options))
    ids = set(table[id].dropna().astype(str).str.strip()) if id in table.columns else set[str]()
    edges, edge_row = read_edge_list(path, ids)
    rows = {"nodes": node_row, "edges": edge_row}
    task = from_pandas(
        table,
        edges,
        source=f"'{path}'",
        row=lambda of, i: rows[of](i),
        edge_source=EDGE_SOURCE,
        edge_target=EDGE_TARGET,
        **options,
    )
    return without_names_of_ends(task)


def _network(path: Path, nodes: str | None, options: dict[str, Any]) -> Task:
    place = None if nodes is None else _place(path.parent, nodes, "nodes")
    graph = read_network(path)
    if place is None:
        return from_networkx(graph, source=f"'{path}'", **options)
    table, where = read_table(place, [options.get("id", "id")], _names(options))
    return from_networkx(
        graph,
        table,
        source=f"'{path}'",
        row=lambda of, i: f"edge {i} of '{path.name}'" if of == "edges" else where(i),
        **options,
    )
