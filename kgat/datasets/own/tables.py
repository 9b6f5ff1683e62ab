r"""Graphs as tables: one of the nodes, one of the edges."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from kgat.datasets.own.columns import Column, encode
from kgat.datasets.own.edges import nearest_neighbours
from kgat.datasets.own.encoding import Encoding
from kgat.datasets.own.raw import (
    CODES,
    MISSING,
    TAKEN,
    Array,
    RawGraph,
    absent,
    expect_no_twins,
    listed,
    names_in,
    no_column,
    several,
)
from kgat.datasets.own.task import make_task
from kgat.datasets.own.written import code_in
from kgat.datasets.task import Task
from kgat.extras import require

__all__ = ["ends_of", "from_pandas"]

SPLIT = "split"  # a column of this name is a split, if nothing else is said


def from_pandas(
    nodes: Any,
    edges: Any = None,
    *,
    label: str | Sequence[str] = "label",
    id: str = "id",
    edge_source: str = "source",
    edge_target: str = "target",
    knn: int | None = None,
    drop: str | Sequence[str] = (),
    categories: str | Sequence[str] = (),
    fill: bool = False,
    standardize: bool = True,
    source: str = "",
    row: Callable[[str, int], str] | None = None,
    like: Encoding | None = None,
    graphs: str | None = None,
    fit: Array | None = None,
    **options: Any,
) -> Task:
    r"""Makes a task of a table of nodes and a table of edges.

    Every column of the nodes is a feature but the ids, the labels, and what decides about splits. Numbers are
    standardised, truth values are zeros and ones, texts are categories; dates, also as ISO texts, and lengths
    of time are numbers of days. All columns of the edges but both ends are edge features in the same way.

    Args:
        nodes (pandas.DataFrame): The nodes, a row each.
        edges (pandas.DataFrame, optional): The edges, a row each. (default: :obj:`None`)
        label (str or list of str, optional): What is to be predicted; several, also as one text with commas,
            for several labels. A missing value or an empty text is unknown; "NA" among texts is a class, but
            :func:`pandas.read_csv` makes a missing value of it unless it is told ``keep_default_na=False,
            na_values=[""]``. (default: :obj:`"label"`)
        id (str, optional): The column of the ids of nodes; points without edges need none.
            (default: :obj:`"id"`)
        edge_source, edge_target (str, optional): The columns of the ends of edges. (default:
            :obj:`"source"`, :obj:`"target"`)
        knn (int, optional): Instead of edges: how many nearest neighbours each node gets, by its features.
            (default: :obj:`None`)
        drop (list of str, optional): Columns that are no features; also as one text with commas.
            (default: :obj:`()`)
        categories (list of str, optional): Columns whose numbers or dates are names; also as one text with
            commas. (default: :obj:`()`)
        fill (bool, optional): Whether missing numbers become the mean of their column and missing texts none
            of the categories; else they are refused. (default: :obj:`False`)
        standardize (bool, optional): Whether numbers get mean 0 and deviation 1 over all nodes.
            (default: :obj:`True`)
        source (str, optional): Where the tables come from. (default: what they are)
        row (callable, optional): Says where a row is, from "nodes" or "edges" and its number. (default: by
            the number, counted from 0)
        like (Encoding, optional): How another graph was encoded, that a model was trained on: this one is to
            be predicted on, in the same way and without labels. (default: :obj:`None`)
        graphs (str, optional): A column with the graph of each node, where there are several: training sees
            those alone that have nodes to train or to validate with. (default: :obj:`None`)
        fit (numpy.ndarray, optional): Which nodes decide about categories, means and deviations; all if
            :obj:`None`. (default: :obj:`None`)
        **options (optional): As :func:`from_data` has them.

    Raises:
        ValueError: If a value is missing, a text where numbers are, an id there twice, an edge without its
            nodes, or a column not there or there twice: each with row and column.

    Example:
        >>> import pandas as pd
        >>> nodes = pd.DataFrame({"id": list("abcdef"), "age": range(6), "label": ["x", "y"] * 3})
        >>> edges = pd.DataFrame({"source": list("abcde"), "target": list("bcdef")})
        >>> task = from_pandas(nodes, edges, name="letters")
        >>> task.data.node_id[:2], task.data.classes, task.kind
        (['a', 'b'], ['x', 'y'], 'binary')
    """
    require("to read tables", "pandas")
    source = source or "the given tables"
    row = row or (lambda table, number: f"row {number} of '{table}'")
    of_nodes = "nodes" if edges is not None else "points"
    labels, drop, categories = names_in(label) or [""], names_in(drop), names_in(categories)
    _expect_edges_or_knn(edges, knn, like)
    taken = {**nodes.attrs.get(TAKEN, {})}
    nodes = _expanded(nodes, f"the {of_nodes} of {source}")
    names = list(nodes.columns)
    _expect_columns(nodes, edges, labels, [*drop, *categories], source, like)
    ids = _ids_of_nodes(nodes, id, edges is not None, source, of_nodes, row)
    features, ignored = _features_of(names, id, labels, drop, graphs, like, options)
    encoding: dict[str, Any] = {"categories": categories, "fill": fill, "standardize": standardize}
    known = None if like is None else like.columns
    x, columns = encode(nodes[features], partial(_in_cell, row, of_nodes), **encoding, columns=known, fit=fit)
    edge_index, edge_attr, edge_columns, steps = _edges_or_nearest(
        edges,
        knn,
        x,
        ids=ids,
        edge_source=edge_source,
        edge_target=edge_target,
        source=source,
        row=row,
        drop=set(drop),
        encoding=encoding,
        fit=fit,
        like=like,
    )
    values = np.full(len(nodes), np.nan) if like is not None else _told_values(nodes, labels, columns)
    ends = {"edge_source": edge_source, "edge_target": edge_target}
    raw = RawGraph(
        x=x if x.shape[1] else None,
        edge_index=edge_index,
        edge_attr=edge_attr,
        labels=values,
        missing=absent(values),
        label=",".join(labels),
        column=partial(_column, nodes, source),
        row=lambda number: row(of_nodes, number),
        source=source,
        directed=False,
        steps=(
            *_said(columns, standardize),
            *steps,
            *_said_of_missing(nodes, [*labels, *features] if like is None else features, taken),
        ),
        extra={"node_id": ids, "columns": [asdict(column) for column in columns]}
        | (several(nodes[graphs].to_numpy()) if graphs is not None else {}),
        fit=fit,
        taken=taken,
        encoding={
            "columns": columns,
            "edge_columns": edge_columns,
            "ignored": ignored,
            "read": {"id": id, **({"knn": knn} if edges is None else ends)},
        },
    )
    return make_task(raw, like=like, **options)


def _expect_edges_or_knn(edges: Any, knn: int | None, like: Encoding | None) -> None:
    if (edges is None) == (knn is None):
        got = "neither" if knn is None else "both"
        # A model that was trained on edges has no use for others.
        otherwise = "" if like is not None else ", or points alone and knn=10 (--knn 10)"
        raise ValueError(
            f"Expected either edges or a number of nearest neighbours (got {got}); give a table of edges "
            f"beside that of nodes{otherwise}"
        )


def _features_of(
    names: Sequence[str],
    id: str,
    labels: Sequence[str],
    drop: Sequence[str],
    graphs: str | None,
    like: Encoding | None,
    options: dict[str, Any],
) -> tuple[list[str], list[str]]:
    r"""Returns the columns that are features, and those that are none; a split that is there is an option."""
    if options.get("split") is None and SPLIT in names and SPLIT not in labels:
        options["split"] = f"column:{SPLIT}"
    decides = [
        options.get("time"),
        options.get("group"),
        (options.get("split") or "").partition("column:")[2],
    ]
    ignored = [*labels, *drop, *filter(None, [*decides, graphs]), *(() if like is None else like.ignored)]
    return [name for name in names if name not in {id, *ignored}], ignored


def _in_cell(row: Callable[[str, int], str], table: str, number: int, name: str) -> str:
    return f"{row(table, number)}, column '{name}'"


def _column(nodes: Any, source: str, name: str) -> Array:
    if name not in nodes.columns:
        no_column("a column", name, list(nodes.columns), source, "name one of them")
    return nodes[name].to_numpy()  # type: ignore[no-any-return]


def _expect_columns(
    nodes: Any,
    edges: Any,
    labels: Sequence[str],
    others: Sequence[str],
    source: str,
    like: Encoding | None,
) -> None:
    if len(nodes) == 0:
        raise ValueError(f"Expected nodes in {source} (got a table without rows); fill it in")
    names = list(nodes.columns)
    advice = "it is what is to be predicted: name the right one with 'label' (--label)"
    for name in labels if like is None else ():
        if name not in names:
            no_column("a column", name, names, source, advice)
    for name in others:
        if name not in names and (edges is None or name not in edges.columns):
            no_column("a column", name, names, source, "name one of them")
    if like is not None:
        like.expect_table(source, True)


def _said(columns: Sequence[Any], standardize: bool) -> tuple[str, ...]:
    if not columns:
        return ()
    standardised = (
        ", numbers standardised" if standardize and any(c.kind in ("number", "date") for c in columns) else ""
    )
    dates = [column.name for column in columns if column.kind == "date"]
    days = f", {listed(dates)} in days" if dates else ""
    return (f"of the columns {listed([column.name for column in columns])}{standardised}{days}",)


def _said_of_missing(nodes: Any, names: Sequence[str], taken: Mapping[str, Sequence[str]]) -> Iterator[str]:
    # NA may be a name or the lack of one: whoever meant the other has to see which it was taken for.
    for name in dict.fromkeys(names):
        values = nodes[name]
        if name in taken:
            yield f"{listed(taken[name])} in {name} taken for missing"
        elif values.dtype.kind not in "biufmMc":
            texts = [text for text in MISSING if text and bool((values == text).any())]
            if texts:
                yield f"{listed(texts)} in {name} taken for a name, as only an empty cell is missing there"


def _told_values(nodes: Any, labels: Sequence[str], columns: Sequence[Column]) -> Array:
    # What is to be predicted, with warnings of features that are something else than they seem.
    values = _label_values(nodes, labels)
    _warn_of_codes(nodes, columns)
    _warn_of_copies(nodes, [column.name for column in columns], values, labels)
    return values


def _label_values(nodes: Any, labels: Sequence[str]) -> Array:
    if len(labels) == 1:
        values = nodes[labels[0]]
        if values.dtype.kind in "biuf":
            return np.asarray(values.to_numpy())
        # Nullable types and texts; what are numbers but for missing ones are read as floats before.
        as_objects = np.asarray(values.astype(object), dtype=object)
        known = as_objects[~absent(as_objects)]
        if len(known) and all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in known
        ):
            return np.asarray(values.astype(float))
        return np.array([v.strip() if isinstance(v, str) else v for v in as_objects], dtype=object)
    return np.stack([np.asarray(nodes[name].astype(object), dtype=object) for name in labels], axis=1)


def _warn_of_copies(nodes: Any, features: Sequence[str], values: Array, labels: Sequence[str]) -> None:
    if values.ndim != 1:
        return
    known = ~absent(values)
    texts = values[known].astype(str)
    distinct = len(set(texts))
    if not 1 < distinct < len(texts):
        return
    for name in features:
        column = nodes[name].to_numpy()[known].astype(str)
        if len(set(column)) == distinct and len(set(zip(column, texts, strict=True))) == distinct:
            warnings.warn(
                f"column '{name}' tells the label '{labels[0]}' exactly; if it says the same in other words, "
                f"drop it (--drop {name})",
                stacklevel=4,
            )


def _warn_of_codes(table: Any, columns: Sequence[Column]) -> None:
    codes = table.attrs.get(CODES, {})
    for name in (column.name for column in columns if column.kind == "number"):
        # Files have become numbers by now, texts in memory have not.
        code = codes.get(name) if table[name].dtype.kind in "iufmM" else code_in(table[name])
        if code is not None:
            warnings.warn(
                f"column '{name}' is taken for numbers, but has '{code}', which looks like a code; if it is "
                f"one, say so (--categories {name})",
                stacklevel=4,
            )


def _expanded(table: Any, source: str) -> Any:
    r"""A copy in which a column of lists of numbers is a column for each of them."""
    import pandas as pd

    expect_no_twins(table.columns, source)
    table = table.copy(deep=False)
    for name in list(table.columns):
        values = table[name]
        if (
            values.dtype != object
            or not len(values)
            or not isinstance(values.iloc[0], list | tuple | np.ndarray)
        ):
            continue
        lengths = {len(value) if isinstance(value, list | tuple | np.ndarray) else None for value in values}
        if len(lengths) > 1:
            raise ValueError(
                f"Expected lists of one length in column '{name}' (got lengths "
                f"{listed(sorted(map(str, lengths)))}); correct it"
            )
        wide = pd.DataFrame(np.array(values.tolist()), index=table.index)
        wide.columns = [f"{name}[{place}]" for place in range(wide.shape[1])]
        table = pd.concat([table.drop(columns=[name]), wide], axis=1)
    expect_no_twins(table.columns, source)
    table.columns = list(map(str, table.columns))
    return table.reset_index(drop=True)


# --- Ids and edges ----------------------------------------------------------------------------------------


def _ids_of_nodes(
    nodes: Any, id: str, needed: bool, source: str, table: str, row: Callable[[str, int], str]
) -> list[str]:
    if id not in nodes.columns:
        if not needed:
            return [str(number) for number in range(len(nodes))]
        no_column(
            *("a column", id, list(nodes.columns), source),
            advice="it holds the ids that edges refer to: name the right one with 'id' (--id)",
        )
    ids = _ids(nodes[id], lambda number: f"{row(table, number)}, column '{id}'")
    first: dict[str, int] = {}
    for number, node_id in enumerate(ids):
        if first.setdefault(node_id, number) != number:
            raise ValueError(
                f"Expected ids of nodes that occur once (got '{node_id}' in {row(table, first[node_id])} and "
                f"{row(table, number)}); remove one of them"
            )
    return ids


def _in_column(row: Callable[[int], str], name: str, number: int) -> str:
    return f"{row(number)}, column '{name}'"


def _ids(values: Any, where: Callable[[int], str]) -> list[str]:
    missing = (values.isna() | (values == "")).to_numpy(dtype=bool)
    if missing.any():
        raise ValueError(f"Expected an id in {where(int(missing.argmax()))} (got none); fill it in")
    if values.dtype.kind == "f" and bool((values % 1 == 0).all()):
        values = values.astype(np.int64)  # whole numbers that were floats for the sake of a missing one
    return [str(value).strip() for value in values.tolist()]


Edges = tuple[Array, Array | None, Sequence[Column], tuple[str, ...]]


def _edges_or_nearest(edges: Any, knn: int | None, x: Array, **form: Any) -> Edges:
    if edges is None:
        return nearest_neighbours(x, int(knn or 0)), None, (), (f"edges from the {knn} nearest nodes",)
    return _edges(edges, **form)


def _edges(
    edges: Any,
    ids: Sequence[str],
    *,
    edge_source: str,
    edge_target: str,
    source: str,
    row: Callable[[str, int], str],
    drop: set[str],
    encoding: dict[str, Any],
    fit: Array | None,
    like: Encoding | None,
) -> Edges:
    taken = edges.attrs.get(TAKEN, {})
    edges = edges.reset_index(drop=True)
    expect_no_twins(edges.columns, f"the edges of {source}")
    edges.columns = list(map(str, edges.columns))
    ends = ends_of(edges, ids, edge_source, edge_target, f"the edges of {source}", partial(row, "edges"))
    known = None if like is None else like.edge_columns
    if like is not None:  # what was no feature of a node may be one of an edge
        drop = {*drop, *like.ignored} - {column.name for column in like.edge_columns}
    features = [name for name in edges.columns if name not in {edge_source, edge_target, *drop}]
    if (not features or not len(edges)) and not known:
        return np.stack(ends), None, (), ()
    attr, columns = encode(
        edges[features],
        partial(_in_cell, row, "edges"),
        **encoding,
        columns=known,
        fit=None if fit is None else fit[ends[0]],
        source=f"the edges of {source}",
    )
    if known is None:
        _warn_of_codes(edges, columns)
    said = f"edge features {listed([column.name for column in columns])}"
    return np.stack(ends), attr, columns, (said, *_said_of_missing(edges, features, taken))


def ends_of(
    edges: Any,
    ids: Sequence[str],
    edge_source: str,
    edge_target: str,
    source: str,
    row: Callable[[int], str],
) -> list[Array]:
    r"""Returns the nodes that the two columns of a table name, by their places among the ids.

    Args:
        edges (pandas.DataFrame): The table.
        ids (list of str): The ids of the nodes.
        edge_source, edge_target (str): The columns.
        source (str): What errors call the table.
        row (callable): Says where a row is.

    Raises:
        ValueError: If a column is not there, or an id is missing.
        IndexError: If a node is not there.
    """
    import pandas as pd

    place = pd.Index(ids, dtype=object)
    ends = []
    for name, option in ((edge_source, "--source"), (edge_target, "--target")):
        if name not in edges.columns:
            advice = f"it holds one end of each edge: name the right one with {option}"
            no_column("a column", name, list(edges.columns), source, advice)
        end = _ids(edges[name], partial(_in_column, row, name))
        numbers = place.get_indexer(pd.Index(end, dtype=object)).astype(np.int64)
        strange = np.flatnonzero(numbers < 0)
        if len(strange):
            raise IndexError(
                f"Expected the id of a node in {row(int(strange[0]))}, column '{name}' (got "
                f"'{end[strange[0]]}', which is none of {len(ids)}; {len(strange)} in all); add the node, or "
                "remove the row"
            )
        ends.append(numbers)
    return ends
