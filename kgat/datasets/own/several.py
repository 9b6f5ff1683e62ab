r"""Several graphs at a path, whose nodes are one task: some to train on, others that training never sees."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data

from kgat.datasets.digest import digest_of
from kgat.datasets.own.data import from_data, read_several
from kgat.datasets.own.edges import with_edge_index
from kgat.datasets.own.networks import NETWORKS, read_network, tables_of
from kgat.datasets.own.raw import CODES, EDGE_FEATURES, TAKEN, WRITTEN, edge_features_in, listed, names_in
from kgat.datasets.own.row_numbers import without_row_numbers
from kgat.datasets.own.table_files import are_names, read_table, table_in
from kgat.datasets.own.tables import from_pandas
from kgat.datasets.task import PARTS, Task, check_edge_features
from kgat.datasets.whole_numbers import signed_data

__all__ = ["from_several", "graphs_at"]

TENSORS = (".pt", ".pth")
# Columns that are added, which no file has.
GRAPH, PART = "name of the graph", "part of the graph"


@dataclass(frozen=True)
class Member:
    r"""One of several graphs.

    Args:
        name (str): What it is called.
        part (str or None): The part that it belongs to, if that is given.
        content (Data or Path): The graph, or where it lies.
    """

    name: str
    part: str | None
    content: Data | Path


def graphs_at(path: Path) -> list[Member]:
    r"""Returns the graphs of a ``.pt`` file, or of a folder that holds several, nothing of another one.

    A folder has ``train``, ``val`` and ``test``, each a folder of graphs, a graph or a ``.pt`` file of
    several, or graphs alone: ``.pt`` files, graphs of networkx, folders with a table of nodes.

    Args:
        path (Path): The file or folder.

    Raises:
        FileNotFoundError: If one of the parts is missing.
        ValueError: If a part holds no graphs.
    """
    if path.is_file():
        return list(_below(path, None))
    if table_in(path, "nodes") is not None:
        return []
    files = sorted(path.iterdir())
    of_parts = {
        part: [file for file in files if _is_graph(file, some=True) and file.stem == part] for part in PARTS
    }
    if not any(of_parts.values()):
        return [member for file in files if _is_graph(file) for member in _below(file, None)]
    if missing := [part for part in PARTS if not of_parts[part]]:
        raise FileNotFoundError(
            f"Expected graphs for train, val and test in '{path}' (got none for {', '.join(missing)}); add "
            f"'{missing[0]}' or '{missing[0]}.pt', or give graphs without parts"
        )
    members = []
    for part, places in of_parts.items():
        found = [member for place in places for member in _below(place, part)]
        if not found:
            raise ValueError(
                f"Expected graphs in '{path / part}' (got none); add one, or leave all parts out"
            )
        members += found
    return members


def _is_graph(path: Path, some: bool = False) -> bool:
    # With some, also a folder of graphs.
    if path.is_dir():
        return some or table_in(path, "nodes") is not None
    return path.suffix.lower() in (*TENSORS, *NETWORKS)


def _below(path: Path, part: str | None) -> Iterator[Member]:
    name = path.stem if path.is_file() else path.name
    if path.is_dir() and table_in(path, "nodes") is None:
        for file in sorted(path.iterdir()):
            if _is_graph(file):
                yield from (Member(f"{name}/{m.name}", part, m.content) for m in _below(file, part))
    elif path.suffix.lower() in TENSORS:
        several = read_several(path)
        for number, graph in enumerate(several):
            yield Member(f"{name}/{number}" if len(several) > 1 else name, part, graph)
    else:
        yield Member(name, part, path)


def from_several(
    members: Sequence[Member],
    *,
    source: str,
    label: str | None = None,
    structure: str | Sequence[str] = (),
    **options: Any,
) -> Task:
    r"""Makes a task of the nodes of several graphs: by their parts, or seeded splits of whole graphs.

    Of graphs with parts, means, deviations and categories are those of the graphs for training.

    Args:
        members (list of Member): The graphs.
        source (str): Where they come from.
        label (str, optional): What is to be predicted. (default: as of :func:`read_graph`)
        structure (list of str, optional): As of :func:`from_data`, without eigenvectors.
        **options (optional): As :func:`from_pandas` and :func:`from_data` have them, but for splits.

    Raises:
        ValueError: If graphs do not fit together, or an option is not for several.
    """
    structure = names_in(structure)
    for name in ("split", "time", "group", "knn"):
        if options.pop(name, None) is not None:
            raise ValueError(
                f"Expected no '{name}' of several graphs in {source} (got one), which are in one part as a "
                "whole; leave it out"
            )
    if any(name.startswith("laplacian") for name in structure):
        raise ValueError(
            f"Expected 'degree' or 'walk:K' as features of several graphs in {source} (got 'laplacian'), as "
            "each has eigenvectors of its own; leave it out"
        )
    parts = [member.part for member in members]
    if options.get("like") is None:
        options |= {"split": f"column:{PART}"} if parts[0] is not None else {"group": GRAPH}
    options |= {"source": source, "structure": structure}
    if all(isinstance(member.content, Data) for member in members):
        for name in ("drop", "categories", "fill", "id", "edge_source", "edge_target", "standardize"):
            if options.pop(name, None) is not None:
                raise ValueError(
                    f"Expected options that the graphs of {source} take (got '{name}', which is for tables); "
                    "leave it out"
                )
        return _expect_others(_of_data(members, label or "y", options), options)
    if any(isinstance(member.content, Data) for member in members):
        raise ValueError(
            f"Expected graphs of one kind in {source} (got tables or networks beside .pt files); convert some"
        )
    return _expect_others(_of_tables(members, label or "label", options), options)


def _expect_others(task: Task, options: dict[str, Any]) -> Task:
    r"""Refuses a graph that is in two parts."""
    data = task.data
    if options.get("split") != f"column:{PART}" or data.x.layout != torch.strided:
        return task
    sizes = data.batch.bincount().tolist()
    # Nodes are in the order of graphs, edges in that of their sources.
    edges = data.batch[data.edge_index[0]].bincount(minlength=len(sizes)).tolist()
    parts = torch.stack([getattr(task.splits[0], part) for part in PARTS], dim=1)
    each = (data.x.split(sizes), data.y.split(sizes), parts.split(sizes), data.edge_index.split(edges, dim=1))
    first: dict[str, tuple[str, list[bool]]] = {}
    start = 0
    for name, x, y, part, index in zip(data.graph_name, *each, strict=True):
        here = part.any(dim=0).tolist()
        other, there = first.setdefault(digest_of([x, y, index - start]), (name, here))
        if here != there:
            raise ValueError(
                f"Expected each graph in one part of {options['source']} (got '{other}' and '{name}', which "
                "are the same): it would leak; keep it in one of them"
            )
        start += len(x)
    return task


def _of_data(members: Sequence[Member], target: str, options: dict[str, Any]) -> Task:
    graphs: list[Any] = [
        signed_data(with_edge_index(member.content), f"graph '{member.name}' of {options['source']}")
        for member in members
    ]
    joined: dict[str, Any] = {}
    sizes = [_size(graph, member, options["source"]) for graph, member in zip(graphs, members, strict=True)]
    wanted = ["x", *EDGE_FEATURES, *([] if options.get("like") is not None else [target])]
    for key in wanted:
        has = [graph.get(key) is not None for graph in graphs]
        values = [torch.as_tensor(graph[key]) for graph in graphs if graph.get(key) is not None]
        shapes = {tuple(value.shape[1:]) for value in values}
        if (any(has) and not all(has)) or len(shapes) > 1:
            lacking = f"none in '{members[has.index(False)].name}'" if not all(has) else ""
            got = lacking or f"rows of shapes {', '.join(str(list(shape)) for shape in sorted(shapes))}"
            raise ValueError(
                f"Expected the same columns of '{key}' in all graphs of {options['source']} (got {got}); "
                "correct them"
            )
        if values:
            joined[key] = torch.cat(values)
        if key == target and len(joined[key]) == len(members) != sum(sizes):
            raise ValueError(
                f"Expected '{target}' with a value per node of the graphs of {options['source']} (got one "
                "per graph); to predict for whole graphs make a kgat.datasets.GraphTask of them, in Python"
            )
    starts = np.cumsum([0, *sizes[:-1]]).tolist()
    joined["edge_index"] = torch.cat(
        [graph.edge_index.long() + start for graph, start in zip(graphs, starts, strict=True)], dim=1
    )
    rows = np.repeat(np.arange(len(members)), sizes)
    joined[GRAPH] = np.array([member.name for member in members], dtype=object)[rows]
    joined[PART] = np.array([member.part for member in members], dtype=object)[rows]
    joined["node_id"] = [f"{m.name}/{i}" for m, size in zip(members, sizes, strict=True) for i in range(size)]
    return from_data(joined, graphs=GRAPH, target=target, **options)


def _size(graph: Any, member: Member, source: str) -> int:
    where = f"graph '{member.name}' of {source}"
    if graph.edge_index is None or graph.edge_index.dim() != 2 or not graph.num_nodes:
        raise ValueError(
            f"Expected nodes and 'edge_index' of shape [2, E] in {where} (got {graph}); correct it"
        )
    size, edges = int(graph.num_nodes), graph.edge_index
    if edges.numel() and not 0 <= int(edges.min()) <= int(edges.max()) < size:
        raise IndexError(
            f"Expected edges of {where} between nodes 0 to {size - 1} (got {int(edges.min())} to "
            f"{int(edges.max())}); there are {size} nodes, counted from 0"
        )
    # Here, where it has the number that its owner knows.
    values, _ = edge_features_in(graph)
    if values is not None and len(values) == edges.size(1):
        check_edge_features(where, torch.as_tensor(values), edges)
    return size


def _of_tables(members: Sequence[Member], label: str, options: dict[str, Any]) -> Task:
    new = options.get("like") is not None
    id, read = options.get("id", "id"), {"nodes": _Rows(), "edges": _Rows()}
    ends = [options.get("edge_source", "source"), options.get("edge_target", "target")]
    tables: dict[str, list[Any]] = {"nodes": [], "edges": []}
    contents = _contents(members, id, ends, options)
    options["directed"] = _directed(members, [directed for directed, _ in contents], options)
    used = _asked(label, id, ends, options)
    for member, (_, of_member) in zip(members, contents, strict=True):
        for kind, table, where in of_member:
            # Of one table, as those of several begin again.
            table = without_row_numbers(table, used, f"the {kind} of '{member.name}'")
            read[kind].add(f"{member.name}: ", len(table), where)
            added = {GRAPH: member.name, **({} if new or member.part is None else {PART: member.part})}
            table = table.assign(**added if kind == "nodes" else {})
            for column in [id] if kind == "nodes" else ends:
                if column in table.columns:
                    missing = table[column].isna() | (table[column].astype(str) == "")
                    names = f"{member.name}/" + table[column].astype(str).str.strip()
                    table[column] = names.where(~missing, other="")
            tables[kind].append(table)
    first = tables["nodes"][0]
    for member, table in zip(members, tables["nodes"], strict=True):
        differing = sorted({*map(str, first.columns)} ^ {*map(str, table.columns)})
        if differing and not new:
            raise ValueError(
                f"Expected the same columns in all graphs of {options['source']} (got {listed(differing)} in "
                f"'{members[0].name}' or '{member.name}' alone); correct the tables"
            )
    nodes, edges = (_joined(of) for of in tables.values())
    fit = (nodes[PART] == "train").to_numpy(copy=True) if PART in nodes.columns else None
    return from_pandas(
        nodes,
        edges,
        label=label,
        **options,
        graphs=GRAPH,
        fit=fit,
        row=lambda table, number: read[table].name(number),
    )


def _asked(label: str, id: str, ends: Sequence[str], options: dict[str, Any]) -> set[str]:
    r"""Returns the columns that somebody asked for, or a model was trained on."""
    like = options.get("like")
    known = [] if like is None else [column.name for column in (*(like.columns or ()), *like.edge_columns)]
    asked = [name for option in ("drop", "categories") for name in names_in(options.get(option))]
    return {id, *ends, *names_in(label), *asked, *known}


# Whether edges have directions, if that is said, and the tables.
Content = tuple[bool | None, list[tuple[str, Any, Any]]]


def _directed(members: Sequence[Member], said: Sequence[bool | None], options: dict[str, Any]) -> bool | None:
    r"""Returns whether edges count in their direction alone, which is one answer for all graphs."""
    like, source = options.get("like"), options["source"]
    directed: bool | None = options.get("directed") if like is None else like.directed
    if directed and False in said:
        raise ValueError(
            f"Expected edges with directions in the graphs of {source}, as they are to be directed (got "
            f"'{members[said.index(False)].name}', whose edges have none); leave out 'directed' "
            "(--directed), or write them with directions"
        )
    if directed is not None or True not in said:
        return directed
    if other := next((m.name for m, is_directed in zip(members, said, strict=True) if not is_directed), None):
        raise ValueError(
            f"Expected directions in all graphs of {source}, or in none (got "
            f"'{members[said.index(True)].name}', which is directed, and '{other}', which is not); pass "
            "directed=False (--undirected) to count all edges both ways"
        )
    return True


def _contents(
    members: Sequence[Member], id: str, ends: Sequence[str], options: dict[str, Any]
) -> list[Content]:
    like = options.get("like")
    names: list[str] = names_in(options.get("categories")) if like is None else like.names()
    places: list[Any] = [member.content for member in members]
    contents = [_read(place, id, ends, names) for place in places]
    tables = [table for _, of_member in contents for _, table, _ in of_member]
    taken = {name for table in tables for name in table.attrs.get(TAKEN, {})}
    # NA is a name in all graphs if it is one in one of them, of which this one may have no other.
    more = [
        name for name in sorted(taken) if any(name in table and are_names(table[name]) for table in tables)
    ]
    return [_read(place, id, ends, [*names, *more]) for place in places] if more else contents


def _joined(tables: Sequence[Any]) -> Any:
    import pandas as pd

    joined, taken = pd.concat(tables, ignore_index=True), dict[str, list[str]]()
    written, codes, start = dict[str, dict[int, str]](), dict[str, str](), 0
    for table in tables:
        for name, rows in table.attrs.get(WRITTEN, {}).items():
            written.setdefault(name, {}).update({start + row: text for row, text in rows.items()})
        codes = {**table.attrs.get(CODES, {}), **codes}
        start += len(table)
        for name, texts in table.attrs.get(TAKEN, {}).items():
            taken[name] = sorted({*taken.get(name, ()), *texts})
    joined.attrs |= {TAKEN: taken, WRITTEN: written, CODES: codes}
    return joined


def _read(place: Path, id: str, ends: Sequence[str], names: Sequence[str]) -> Content:
    r"""Returns whether edges have directions, if that is said, and both tables with what says where a row
    is."""
    if place.is_file():
        graph = read_network(place)
        nodes, edges = tables_of(graph, None, id)
        edges = edges.rename(columns=dict(zip(edges.columns[:2], ends, strict=False)))
        return graph.is_directed(), [
            ("nodes", nodes, lambda number: f"node {number}"),
            ("edges", edges, lambda number: f"edge {number}"),
        ]
    tables = []
    for kind, texts in (("nodes", [id]), ("edges", ends)):
        file = table_in(place, kind)
        if file is None:
            raise FileNotFoundError(
                f"Expected a table of {kind} in '{place}': {kind}.csv, .tsv or .parquet (got none); add it"
            )
        tables.append((kind, *read_table(file, texts, names)))
    return None, tables


class _Rows:
    r"""Where the rows of tables that were joined come from."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.sources: list[tuple[str, Any]] = []
        self.count = 0

    def add(self, name: str, count: int, where: Any) -> None:
        self.starts.append(self.count)
        self.sources.append((name, where))
        self.count += count

    def name(self, number: int) -> str:
        at = bisect_right(self.starts, number) - 1
        name, where = self.sources[at]
        return f"{name}{where(number - self.starts[at])}"
