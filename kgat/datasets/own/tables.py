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
from kgat.datasets.own.labels import plain
from kgat.datasets.own.parts import SPLIT, Masks, expect_one_split, is_mask, masks_in, tells_parts
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
from kgat.datasets.own.row_numbers import without_row_numbers
from kgat.datasets.own.task import make_task
from kgat.datasets.own.written import code_in
from kgat.datasets.task import Task
from kgat.extras import require

__all__ = ["ends_of", "from_pandas"]

DECIDE = ("split", "time", "group")  # options that name columns
Names = str | int | Sequence[str | int]
TRUTH = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


def from_pandas(
    nodes: Any,
    edges: Any = None,
    *,
    label: Names = "label",
    id: str | int = "id",
    edge_source: str | int = "source",
    edge_target: str | int = "target",
    knn: int | None = None,
    drop: Names = (),
    categories: Names = (),
    fill: bool = False,
    standardize: bool = True,
    source: str = "",
    row: Callable[[str, int], str] | None = None,
    like: Encoding | None = None,
    graphs: str | int | None = None,
    fit: Array | None = None,
    **options: Any,
) -> Task:
    r"""Makes a task of a table of nodes and a table of edges.

    Every column of the nodes is a feature but the ids, the labels, and what decides about splits. Numbers are
    standardised, truth values are zeros and ones, texts are categories; dates, also as ISO texts, and lengths
    of time are numbers of days. All columns of the edges but both ends are edge features in the same way.

    Columns ``train_mask``, ``val_mask`` and ``test_mask``, or ``split``, are the split, if no other is asked
    for. They are never features, and neither is another column of nothing but names of parts, nor one
    without a name that numbers the rows; these are left out with a warning.

    Args:
        nodes (pandas.DataFrame): The nodes, a row each.
        edges (pandas.DataFrame, optional): The edges, a row each. (default: :obj:`None`)
        label (str or list of str, optional): What is to be predicted; several, also as one text with commas,
            for several labels. A missing value or an empty text is unknown, and -1 is a value; "NA" among
            texts is a class, but :func:`pandas.read_csv` makes a missing value of it unless it is told
            ``keep_default_na=False, na_values=[""]``. A column may be called by a number.
            (default: :obj:`"label"`)
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
    # Columns may be called by numbers, which are texts from here on.
    id, edge_source, edge_target = map(str, (id, edge_source, edge_target))
    graphs, *decides = (None if name is None else str(name) for name in (graphs, *map(options.get, DECIDE)))
    options |= dict(zip(DECIDE, decides, strict=True))
    _expect_edges_or_knn(edges, knn, like)
    taken = {**nodes.attrs.get(TAKEN, {})}
    nodes = _expanded(nodes, f"the {of_nodes} of {source}")
    asked = [id, *labels, *drop, *categories, *_deciding(options, graphs), *_known(like)]
    nodes = without_row_numbers(nodes, asked, f"the {of_nodes} of {source}")
    _expect_columns(nodes, edges, labels, [*drop, *categories], source, like)
    ids = _ids_of_nodes(nodes, id, edges is not None, source, of_nodes, row)
    masks = [] if like is not None else _given_split(nodes, labels, options, source, partial(row, of_nodes))
    features, ignored = _features_of(nodes, id, labels, drop, graphs, like, options, masks)
    encoding: dict[str, Any] = {"categories": categories, "fill": fill, "standardize": standardize}
    known = None if like is None else like.columns
    x, columns = encode(nodes[features], partial(_in_cell, row, of_nodes), **encoding, columns=known, fit=fit)
    ends = {"edge_source": edge_source, "edge_target": edge_target}
    form: dict[str, Any] = {"source": source, "row": row, "drop": set(drop), "encoding": encoding, **ends}
    edge_index, edge_attr, edge_columns, steps = _edges_or_nearest(
        edges, knn, x, ids=ids, fit=fit, like=like, **form
    )
    values = np.full(len(nodes), np.nan) if like is not None else _told_values(nodes, labels, columns)
    raw = RawGraph(
        x=x if x.shape[1] else None,
        edge_index=edge_index,
        edge_attr=edge_attr,
        labels=values,
        of_table=True,
        label=",".join(labels),
        column=partial(_column, nodes, source),
        row=lambda number: row(of_nodes, number),
        source=source,
        directed=False,
        masks=masks,
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


def _given_split(
    nodes: Any, labels: Sequence[str], options: dict[str, Any], source: str, row: Callable[[int], str]
) -> Masks:
    r"""Returns the masks among the columns, unless another split is asked for. A column ``split``, in small
    letters or others, becomes the option instead."""
    if options.get("split"):
        return []
    names = [name for name in nodes.columns if name not in labels]
    columns: dict[str, list[Array]] = {}
    for name in filter(is_mask, names):  # a list of masks is a column for each
        of_part = columns.setdefault(name.lower().partition("[")[0], [])
        of_part.append(_truth(nodes[name], partial(_in_column, row, name)))
    masks = masks_in({name: np.stack(of, axis=1) for name, of in columns.items()}, source, len(nodes))
    if column := next((name for name in (SPLIT, *names) if name in names and name.lower() == SPLIT), None):
        expect_one_split(column, masks, source)
        options["split"] = f"column:{column}"
    return masks


def _truth(values: Any, where: Callable[[int], str]) -> Array:
    truth = values.astype(str).str.strip().str.lower().map(TRUTH)
    wrong = truth.isna().to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"Expected true or false in {where(row)} (got '{values.iloc[row]}'), as it is a mask of a split; "
            "correct it, or draw a split (--split random)"
        )
    return truth.to_numpy(dtype=np.bool_)


def _deciding(options: Mapping[str, Any], graphs: str | None) -> list[str]:
    split = (options.get("split") or "").partition("column:")[2]
    return [name for name in (options.get("time"), options.get("group"), split, graphs) if name]


def _known(like: Encoding | None, of_edges: bool = False) -> list[str]:
    # Columns that a model was trained on, whatever they are called.
    return [] if like is None else [c.name for c in (like.edge_columns if of_edges else like.columns or ())]


def _features_of(
    nodes: Any,
    id: str,
    labels: Sequence[str],
    drop: Sequence[str],
    graphs: str | None,
    like: Encoding | None,
    options: Mapping[str, Any],
    masks: Masks,
) -> tuple[list[str], list[str]]:
    r"""Returns the columns that are features, and those that are none."""
    ignored = [*labels, *drop, *_deciding(options, graphs), *(() if like is None else like.ignored)]
    ignored += filter(is_mask, nodes.columns) if masks else ()
    names = [name for name in nodes.columns if name not in {id, *ignored}]
    parts = _of_parts(nodes, names, like, _known(like))
    return [name for name in names if name not in parts], [*ignored, *parts]


def _of_parts(table: Any, names: Sequence[str], like: Encoding | None, known: Sequence[str]) -> list[str]:
    # Columns that tell the parts of a split, with warnings that they are no features.
    parts = [name for name in names if name not in known and tells_parts(name, table[name])]
    for name in parts if like is None else ():
        use = "" if is_mask(name) else f"use it as the split (--split column:{name}), or "
        warnings.warn(
            f"column '{name}' tells the parts of a split, so it is no feature; {use}drop it (--drop {name})",
            stacklevel=4,
        )
    return parts


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
    if len(labels) == 1 and nodes[labels[0]].dtype.kind in "biuf":
        return plain(np.asarray(nodes[labels[0]].to_numpy()))
    # Nullable types and texts; what are numbers but for missing ones are read as floats before.
    columns = [np.asarray(nodes[name].astype(object), dtype=object) for name in labels]
    return plain(columns[0] if len(labels) == 1 else np.stack(columns, axis=1))


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
    used = [edge_source, edge_target, *drop, *encoding["categories"], *_known(like, of_edges=True)]
    edges = without_row_numbers(edges, used, f"the edges of {source}")
    ends = ends_of(edges, ids, edge_source, edge_target, f"the edges of {source}", partial(row, "edges"))
    known = None if like is None else like.edge_columns
    if like is not None:  # what was no feature of a node may be one of an edge
        drop = {*drop, *like.ignored} - {column.name for column in like.edge_columns}
    features = [name for name in edges.columns if name not in {edge_source, edge_target, *drop}]
    parts = _of_parts(edges, features, like, _known(like, of_edges=True))
    features = [name for name in features if name not in parts]
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
