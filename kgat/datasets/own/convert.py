r"""From arrays and lists of edges that may exceed memory to a memory-mapped graph, piece by piece."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from kgat.datasets import splits as rules
from kgat.datasets.metrics import KINDS
from kgat.datasets.own.labels import METRIC_OF, MOST_CLASSES, Target, target_of
from kgat.datasets.own.mapped import create, new_folder, write_meta
from kgat.datasets.own.raw import EDGE_FEATURES, RawGraph
from kgat.datasets.task import (
    PARTS,
    Split,
    check_edge_features,
    check_kind,
    check_labels,
    check_metric,
    check_splits,
)
from kgat.datasets.whole_numbers import signed
from kgat.extras import require
from kgat.names import one_of

__all__ = ["convert_arrays"]

Array = NDArray[Any]

EDGES = ("edges.npy", "edges.parquet", "edges.csv", "edges.tsv", "edges.txt")
PIECE = 1 << 22  # edges, or numbers of features, that are read together
BLOCK = 1 << 25  # edges that are placed together, in memory
SPOOL = "edges.tmp"
SHARES = (0.6, 0.2)
CLASSES = ("multiclass", "binary")


def convert_arrays(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    name: str | None = None,
    kind: str | None = None,
    metric: str | None = None,
    undirected: bool = False,
    progress_bar: bool = False,
) -> None:
    r"""Writes a graph that need not fit into memory as a folder that :func:`kgat.datasets.load_mapped` opens.

    ==============================  =================================================================
    file of the source              content
    ==============================  =================================================================
    ``edges.npy``                   :math:`(2, E)` or :math:`(E, 2)`, whole numbers: source and target
    or ``edges.parquet``            columns ``source`` and ``target``
    or ``edges.csv``, ``.tsv``      columns ``source`` and ``target``
    or ``edges.txt``                two numbers a line
    ``x.npy``                       features :math:`(N, F)`
    ``y.npy``                       labels, which mean what they mean to :func:`from_data`: classes, -1
                                    or NaN where unknown, or numbers, NaN where unknown
    ``edge_attr.npy``, optional     edge features, in the order of the edges; ``edge_weight.npy`` in its place
    ``train.npy`` and so on         nodes of the split ``train``, ``val``, ``test``, as ids or as a mask;
                                    without them, 60, 20 and 20 % of the labelled nodes
    ==============================  =================================================================

    Nodes are numbers from 0. Edges are counted, and then read once more for each 32 million of them, a piece
    at a time; memory holds these and a few numbers per node. Self-loops and duplicates stay. The folder is
    there when it is whole, and nothing is if the conversion was interrupted.

    Args:
        source (str or Path): The folder of the files above.
        folder (str or Path): The folder to write, which must not be there yet.
        name (str, optional): What tables call it. (default: the name of :obj:`source`)
        kind (str, optional): ``"multiclass"``, ``"binary"``, ``"multilabel"`` or ``"regression"``.
            (default: recognised by the labels)
        metric (str, optional): What scores. (default: that of the kind)
        undirected (bool, optional): Whether each edge counts in both directions, and is there in one alone.
            (default: :obj:`False`)
        progress_bar (bool, optional): Whether to show one. (default: :obj:`False`)

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If files do not fit together, with the place of what is wrong.
        IndexError: If an edge names a node that is not there.
        FileExistsError: If :obj:`folder` is there.

    Example:
        >>> import tempfile
        >>> from kgat.datasets import load_mapped
        >>> folder = Path(tempfile.mkdtemp())
        >>> np.save(folder / "edges.npy", [[0, 1, 2, 3], [1, 2, 3, 4]])
        >>> np.save(folder / "x.npy", np.eye(6))
        >>> np.save(folder / "y.npy", [0, 1, 0, 1, 0, 1])
        >>> convert_arrays(folder, folder / "mapped", undirected=True)
        >>> task = load_mapped(folder / "mapped")
        >>> task.kind, task.data.edge_index.shape
        ('binary', torch.Size([2, 8]))
    """
    source = Path(source)
    x, y = (_array(source / f"{part}.npy") for part in ("x", "y"))
    edges = _edges_of(source)
    attr_file = next((file for file in (source / f"{n}.npy" for n in EDGE_FEATURES) if file.is_file()), None)
    attr = None if attr_file is None else _edge_features(attr_file)
    if x.ndim != 2 or x.dtype.kind not in "fiu" or x.shape[1] == 0:
        raise ValueError(
            f"Expected numbers of shape [N, F] in '{source / 'x.npy'}' (got {_form(x)}); write a row of at "
            "least one feature for each node"
        )
    target = _target(source / "y.npy", y, len(x), None if kind is None else one_of("kind", kind, KINDS))
    kind_name = target.kind
    name = name or source.resolve().name
    metric = METRIC_OF[kind_name] if metric is None else metric
    part, split = _split(source, target, name)
    _check(name, target, metric, part, split)
    digest = hashlib.sha256(f"{kind_name} {undirected}".encode())
    with new_folder(folder) as place:
        bar = partial(tqdm, disable=not progress_bar, leave=False)
        _write_features(x, source / "x.npy", place / "x.npy", digest, bar)
        edges_there = _write_edges(edges, attr, place, len(x), undirected, digest, bar)
        for file, array in (("y", target.y.numpy()), ("splits", part[None])):
            np.save(place / f"{file}.npy", array)
            digest.update(array.tobytes())
        direction = "undirected" if undirected else "directed as they are listed"
        meta = {
            "name": name,
            "metric": metric,
            "kind": kind_name,
            "num_classes": target.num_columns,
            "source": f"'{source}'",
            "preprocessing": f"{edges_there:,} edges, {direction}; {split}",
            "digest": digest.hexdigest()[:16],
        }
        named = {"target": "y", "classes": list(target.classes)}
        write_meta(place, meta, [split], undirected=undirected, **named)


def _target(path: Path, y: Array, nodes: int, kind: str | None) -> Target:
    if y.ndim not in (1, 2) or y.shape[0] != nodes or y.dtype.kind not in "biufUS":
        raise ValueError(
            f"Expected a label for each of {nodes} nodes in '{path}' (got {_form(y)}); write one for each "
            "row of features"
        )
    raw = RawGraph(
        x=None,
        edge_index=np.empty((2, 0), np.int64),
        labels=signed(np.asarray(y), "y", f"'{path}'"),
        label="y",
        column=lambda name: np.empty(0),  # splits have files of their own
        row=lambda node: f"node {node}",
        source=f"'{path}'",
    )
    target = target_of(raw, kind)
    values = target.y.numpy()
    if kind is None and target.kind == "regression" and values.ndim == 1:
        # Of large graphs these are classes more often than amounts, and hours of work would tell.
        distinct = np.unique(values[target.labelled])
        if distinct[0] >= 0 and (distinct % 1 == 0).all():
            raise ValueError(
                f"Expected at most {MOST_CLASSES} different whole numbers in '{path}' (got "
                f"{len(distinct)}); say --kind multiclass if they are classes, --kind regression if they "
                "are amounts"
            )
    return target


def _split(source: Path, target: Target, name: str) -> tuple[Array, str]:
    part = np.zeros(len(target.y), np.uint8)
    paths = [source / f"{title}.npy" for title in PARTS]
    if not any(path.is_file() for path in paths):
        classes = target.kind in CLASSES
        rule = rules.class_shares if classes else rules.shares
        y = target.y.numpy() if classes else np.where(target.labelled, 0, -1)
        return rules.draw(name, 0, y, partial(rule, train=SHARES[0], val=SHARES[1])), "random-0"
    for number, path in enumerate(paths, 1):
        ids = _array(path)
        if ids.dtype == bool and ids.shape == part.shape:
            ids = np.flatnonzero(ids)
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise ValueError(
                f"Expected ids of nodes, or a mask of all, in '{path}' (got {_form(ids)}); write whole "
                f"numbers from 0, or {len(part)} bools"
            )
        _check_range(ids, len(part), path, 0)
        for wrong, what in (
            (part[ids] > 0, "is in another part, too"),
            (~target.labelled[ids], "has no label"),
        ):
            if wrong.any():
                raise ValueError(
                    f"Expected labelled nodes, each in one part, in '{path}' (got node {ids[wrong][0]}, "
                    f"which {what}); leave it out"
                )
        part[ids] = number
    return part, "given"


def _edge_features(path: Path) -> Array:
    attr = _array(path)
    if attr.ndim not in (1, 2) or attr.dtype.kind not in "biuf":
        raise ValueError(f"Expected a row of numbers per edge in '{path}' (got {_form(attr)}); convert them")
    return attr


def _check(name: str, target: Target, metric: str, part: Array, split: str) -> None:
    # What a task would refuse, before hours of work.
    check_metric(name, metric)
    check_labels(name, target.kind, target.y, len(target.y), target.num_columns)
    check_kind(name, target.kind, metric, target.y, target.num_columns)
    masks = (torch.from_numpy(part == number) for number in range(1, 1 + len(PARTS)))
    check_splits(name, (Split(split, *masks),), torch.from_numpy(target.labelled))


def _write_features(x: Array, origin: Path, path: Path, digest: Any, bar: Any) -> None:
    out = create(path, x.shape, np.float32)
    step = max(1, PIECE // x.shape[1])
    for begin in bar(range(0, len(x), step), desc="Features"):
        piece = x[begin : begin + step].astype(np.float32)
        wrong = np.argwhere(~np.isfinite(piece))
        if len(wrong):
            row, column = wrong[0]
            raise ValueError(
                f"Expected finite features in '{origin}' (got {piece[row, column]} at node {begin + row}, "
                f"column {column}); repair or drop them"
            )
        out[begin : begin + step] = piece
        digest.update(piece.tobytes())


def _write_edges(
    edges: Path, attr: Array | None, place: Path, nodes: int, undirected: bool, digest: Any, bar: Any
) -> int:
    count = np.zeros(nodes + 1, np.int64)
    sizes: list[int] = []
    with (place / SPOOL).open("wb") as spool:
        for first, ends in bar(_pieces(edges), desc="Counting edges"):
            _check_range(ends, nodes, edges, first)
            digest.update(ends.tobytes())
            sizes.append(ends.shape[1])
            for _, target, kept in _directions(ends, undirected):
                count[1:] += np.bincount(target[kept], minlength=nodes)
            if attr is not None:
                with np.errstate(over="ignore"):  # what is infinite in floats is told by its place
                    piece = attr[first : first + sizes[-1]].astype(np.float32)
                of = f"'{edges.parent}'"
                check_edge_features(of, torch.from_numpy(piece), ends, first)
                digest.update(piece.tobytes())
            if edges.suffix != ".npy":  # tables are slow to read
                spool.write(ends.tobytes())
    number = sum(sizes)
    if attr is not None and len(attr) != number:
        raise ValueError(
            f"Expected a row of edge features in '{edges.parent}' for each of {number} edges (got "
            f"{len(attr)}); write both in the same order"
        )
    indptr = count.cumsum()
    np.save(place / "indptr.npy", indptr)
    total = int(indptr[-1])
    out = {"edge_index": create(place / "edge_index.npy", (2, total), np.int64)}
    out["edge_id"] = create(place / "edge_id.npy", (total,), np.int64)
    if attr is not None:
        out["edge_attr"] = create(place / "edge_attr.npy", (total, *attr.shape[1:]), np.float32)
    # Of some targets at a time, so that places are random in memory alone: a disk writes one after the other.
    for begin, end in bar(list(_blocks(indptr)), desc="Placing edges"):
        again = _pieces(edges) if edges.suffix == ".npy" else _spooled(place / SPOOL, sizes)
        low, high = indptr[begin], indptr[end]
        block = _block(again, attr, indptr[begin : end + 1], begin, undirected)
        out["edge_index"][0, low:high], out["edge_id"][low:high] = block[:2]
        out["edge_index"][1, low:high] = np.repeat(np.arange(begin, end), np.diff(indptr[begin : end + 1]))
        if attr is not None:
            out["edge_attr"][low:high] = block[2]
    (place / SPOOL).unlink()
    return total


def _block(
    pieces: Iterator[tuple[int, Array]], attr: Array | None, indptr: Array, begin: int, undirected: bool
) -> list[Array]:
    # Sources, places in the list and features of all edges into some targets, by target.
    free = indptr[:-1] - indptr[0]
    size = int(indptr[-1] - indptr[0])
    sources, ids = np.empty(size, np.int64), np.empty(size, np.int64)
    features = np.empty((size, *attr.shape[1:]), np.float32) if attr is not None else np.empty(0, np.float32)
    for first, ends in pieces:
        for source, target, kept in _directions(ends, undirected):
            within = np.flatnonzero(kept & (target >= begin) & (target < begin + len(free)))
            order, where = _placed(target[within] - begin, free)
            chosen = within[order]
            sources[where], ids[where] = source[chosen], first + chosen
            if attr is not None:
                features[where] = attr[first : first + ends.shape[1]][chosen]
    return [sources, ids, features]


def _directions(ends: Array, undirected: bool) -> Iterator[tuple[Array, Array, Array]]:
    # Sources, targets and which edges they are of: a self-loop is the same in both directions.
    yield ends[0], ends[1], np.ones(ends.shape[1], bool)
    if undirected:
        yield ends[1], ends[0], ends[0] != ends[1]


def _blocks(indptr: Array) -> Iterator[tuple[int, int]]:
    # Ranges of targets with at most so many edges, or of one.
    begin, last = 0, len(indptr) - 1
    while begin < last:
        end = int(np.searchsorted(indptr, indptr[begin] + BLOCK, side="right")) - 1
        end = min(max(end, begin + 1), last)
        yield begin, end
        begin = end


def _spooled(path: Path, sizes: list[int]) -> Iterator[tuple[int, Array]]:
    first = 0
    with path.open("rb") as spool:
        for size in sizes:
            yield first, np.fromfile(spool, np.int64, 2 * size).reshape(2, size)
            first += size


def _placed(target: Array, free: Array) -> tuple[Array, Array]:
    # The edges of a piece by target, and the place of each; 'free' is the next place of each target.
    order = np.argsort(target, kind="stable")
    by_target = target[order]
    first = np.flatnonzero(np.diff(by_target, prepend=-1))
    count = np.diff(first, append=len(order))
    where = free[by_target] + np.arange(len(order)) - np.repeat(first, count)
    free[by_target[first]] += count
    return order, where


def _edges_of(source: Path) -> Path:
    there = [source / name for name in EDGES if (source / name).is_file()]
    if len(there) != 1:
        raise FileNotFoundError(
            f"Expected one of {', '.join(EDGES)} in '{source}' (got {len(there)} of them); put edges there"
        )
    return there[0]


def _pieces(path: Path) -> Iterator[tuple[int, Array]]:
    # The number of the first edge of a piece, and its sources above targets.
    first = 0
    for piece in _arrays(path):
        ends = np.ascontiguousarray(piece)
        if ends.dtype.kind not in "iu":
            raise ValueError(
                f"Expected whole numbers from 0 as ends of edges in '{path}' (got {ends.dtype} after edge "
                f"{first}); number the nodes, or read tables with ids by --data, in memory"
            )
        ends = signed(ends, "edges", f"'{path}' after edge {first}")
        yield first, ends.astype(np.int64, copy=False)
        first += ends.shape[1]


def _arrays(path: Path) -> Iterator[Array]:
    if path.suffix == ".npy":
        edges = _array(path)
        if edges.ndim != 2 or 2 not in edges.shape:
            raise ValueError(
                f"Expected ends of edges of shape [2, E] in '{path}' (got {_form(edges)}); write sources as "
                "the first row, targets as the second"
            )
        edges = edges if edges.shape[0] == 2 else edges.T
        for begin in range(0, edges.shape[1], PIECE):
            yield edges[:, begin : begin + PIECE]
        return
    names = ["source", "target"]
    require(f"to read '{path.name}'", "pyarrow" if path.suffix == ".parquet" else "pandas")
    try:
        if path.suffix == ".parquet":
            from pyarrow.parquet import ParquetFile

            for batch in ParquetFile(path).iter_batches(PIECE, columns=names):
                yield np.stack([batch[name].to_numpy(zero_copy_only=False) for name in names])
            return
        import pandas as pd

        form: dict[str, Any] = {"usecols": names, "sep": "\t" if path.suffix == ".tsv" else ","}
        if path.suffix == ".txt":
            form = {"header": None, "sep": r"\s+", "names": names, "comment": "#", "usecols": [0, 1]}
        for table in pd.read_csv(path, chunksize=PIECE, **form):
            yield table[names].to_numpy().T
    except (ValueError, KeyError) as error:
        cause = " ".join(str(error).split())
        raise ValueError(
            f"Expected columns 'source' and 'target' in '{path}' (got: {cause}); name them so, with a node's "
            "number in each row"
        ) from None


def _check_range(nodes: Array, number: int, path: Path, first: int) -> None:
    wrong = np.argwhere((nodes < 0) | (nodes >= number))
    if len(wrong):
        place = tuple(wrong[0])
        raise IndexError(
            f"Expected nodes from 0 to {number - 1} in '{path}' (got {nodes[place]} at {first + place[-1]}); "
            f"there are {number} rows of features"
        )


def _array(path: Path) -> Array:
    if not path.is_file():
        raise FileNotFoundError(f"Expected an array at '{path}' (got no file); write it with numpy.save")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
    except (ValueError, EOFError, OSError) as error:
        cause = " ".join(str(error).split())
        raise ValueError(f"Expected an array in '{path}' (got: {cause}); write it with numpy.save") from None


def _form(x: Array) -> str:
    return f"{x.dtype} {list(x.shape)}"
