r"""Graphs as arrays: an adjacency matrix or a list of edges beside features and labels, and points alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from kgat.datasets.own.data import from_data, names_of
from kgat.datasets.own.edges import nearest_neighbours
from kgat.datasets.own.encoding import Encoding
from kgat.datasets.own.numpy_files import read_archive, read_folder
from kgat.datasets.own.parts import given_split, with_masks
from kgat.datasets.own.raw import EDGE_FEATURES, Array, RawGraph, listed, no_column
from kgat.datasets.own.task import make_task
from kgat.datasets.task import Task
from kgat.datasets.whole_numbers import signed
from kgat.extras import require

__all__ = ["from_points", "from_scipy", "read_arrays"]

# Names that arrays have in files, the first is ours.
EDGES = ("edge_index", "edges")
ADJACENCY = ("adjacency", "adj", "adj_matrix", "A")
FEATURES = ("x", "features", "attr", "attr_matrix", "X", "points")
LABELS = ("y", "labels", "label")


def from_scipy(
    adjacency: Any,
    x: Any,
    y: Any,
    *,
    columns: Mapping[str, Any] | None = None,
    source: str = "",
    **options: Any,
) -> Task:
    r"""Makes a task of an adjacency matrix.

    The entry in row i and column j is an edge from i to j. If entries are not all one, they are edge
    features. A matrix that is not symmetric is directed.

    Args:
        adjacency (scipy.sparse matrix or numpy.ndarray): The matrix.
        x (numpy.ndarray or scipy.sparse matrix or None): Features, with a row per node.
        y (numpy.ndarray): What is to be predicted: a value per node, or a row.
        columns (dict, optional): More arrays of the nodes by their names: what :obj:`time`, :obj:`group` and
            :obj:`split` name, ``train_mask``, ``val_mask`` and ``test_mask``, ``node_id``.
            (default: :obj:`None`)
        source (str, optional): Where the graph comes from. (default: what it is)
        **options (optional): As :func:`from_data` has them.

    Shapes:
        - **adjacency:** :math:`(N, N)`, **x:** :math:`(N, F)`, **y:** :math:`(N)` or :math:`(N, T)`

    Raises:
        ValueError: If shapes do not fit together.

    Example:
        >>> from scipy.sparse import eye
        >>> ring = eye(6, k=1) + eye(6, k=-5)
        >>> from_scipy(ring, np.ones((6, 2)), [0, 1, 0, 1, 0, 1], directed=False).data.num_edges
        12
    """
    source = source or "the given matrix"
    if len(shape := np.shape(adjacency)) != 2 or shape[0] != shape[1]:
        raise ValueError(
            f"Expected a square adjacency matrix in {source} (got shape {list(shape)}); correct it"
        )
    if shape[:1] != np.shape(y)[:1]:
        raise ValueError(
            f"Expected a row of the adjacency matrix per value of 'y' in {source}, {len(np.atleast_1d(y))} "
            f"(got {shape[0]}); pass all in the same order"
        )
    edge_index, weights = _entries(adjacency, source)
    return _task(
        x,
        y,
        edge_index,
        source,
        options,
        columns=columns,
        edge_attr=weights,
        steps=() if weights is None else ("edge features weight",),
    )


def _entries(adjacency: Any, source: str) -> tuple[Array, Array | None]:
    # The edges of a matrix, and their features, if they are not all one.
    require("for an adjacency matrix", "scipy")
    from scipy.sparse import coo_matrix

    matrix = coo_matrix(adjacency)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    wrong = np.flatnonzero(~np.isfinite(matrix.data))
    if len(wrong):
        raise ValueError(
            f"Expected finite weights in the adjacency matrix of {source} (got {matrix.data[wrong[0]]} in "
            f"row {matrix.row[wrong[0]]}, column {matrix.col[wrong[0]]}); correct it"
        )
    weights = matrix.data[:, None] if len(matrix.data) and (matrix.data != 1).any() else None
    return np.stack([matrix.row, matrix.col]).astype(np.int64), weights


def from_points(
    x: Any,
    y: Any,
    *,
    knn: int = 10,
    standardize: bool = True,
    columns: Mapping[str, Any] | None = None,
    source: str = "",
    **options: Any,
) -> Task:
    r"""Makes a task of points without edges: each is joined to its nearest neighbours.

    Args:
        x (numpy.ndarray or scipy.sparse matrix): Points.
        y (numpy.ndarray): What is to be predicted.
        knn (int, optional): Number of neighbours. (default: :obj:`10`)
        standardize (bool, optional): Whether each column gets mean 0 and deviation 1 first, which decides
            what is near; a sparse matrix is left as it is. (default: :obj:`True`)
        columns (dict, optional): As :func:`from_scipy` has it. (default: :obj:`None`)
        source (str, optional): Where the points come from. (default: what they are)
        **options (optional): As :func:`from_data` has them.

    Shapes:
        - **x:** :math:`(N, F)`, **y:** :math:`(N)` or :math:`(N, T)`

    Raises:
        ValueError: If there are no more than :obj:`knn` points.

    Example:
        >>> x = np.arange(12.0).reshape(12, 1)
        >>> from_points(x, [0] * 6 + [1] * 6, knn=2).data.num_edges
        26
    """
    source = source or "the given points"
    steps = [f"edges from the {knn} nearest points"]
    x = _checked_features(x, source)
    encoding: dict[str, Any] = {"read": {"knn": knn}}
    like: Encoding | None = options.get("like")
    if like is not None:
        like.expect_table(source, False)
        like.expect_sizes(source, x.shape[1], like.edge_features)
        x = like.scaled(x)
    elif standardize and isinstance(x, np.ndarray):
        deviation = x.std(axis=0)
        constant = x.min(axis=0, initial=np.inf) >= x.max(axis=0, initial=-np.inf)
        encoding["scale"] = x.mean(axis=0).tolist(), np.where(constant, 1.0, deviation).tolist()
        x = Encoding(**encoding).scaled(x)
        steps.insert(0, "numbers standardised")
    edges = nearest_neighbours(x, knn)
    return _task(
        *(x, y, edges, source, options),
        columns=columns,
        directed=False,
        steps=tuple(steps),
        encoding=encoding,
    )


def _task(
    x: Any,
    y: Any,
    edge_index: Array,
    source: str,
    options: dict[str, Any],
    columns: Mapping[str, Any] | None,
    edge_attr: Array | None = None,
    directed: bool | None = None,
    steps: tuple[str, ...] = (),
    encoding: Mapping[str, Any] = MappingProxyType({}),
) -> Task:
    label = options.pop("label", "y")
    arrays = {name: np.asarray(values) for name, values in (columns or {}).items()}
    labels = signed(np.asarray(y), label, source)
    nodes = len(labels) if labels.ndim else 0
    expected = x.shape[0] if x is not None else nodes
    if labels.ndim not in (1, 2) or nodes != expected:
        raise ValueError(
            f"Expected one value, or one row, of '{label}' per node of {source}, {expected} (got "
            f"{list(labels.shape)}); pass all in the same order"
        )

    def column(name: str) -> Array:
        if name not in arrays:
            no_column("an array", name, sorted(arrays), source, "name one of them")
        return arrays[name]

    raw = RawGraph(
        x=None if x is None else _checked_features(x, source),
        edge_index=edge_index,
        edge_attr=edge_attr,
        labels=labels,
        label=label,
        column=column,
        row=lambda node: f"node {node}",
        source=source,
        directed=directed,
        masks=given_split(arrays, source, nodes, options),
        steps=steps,
        extra={"node_id": names_of(arrays["node_id"], nodes, source)} if "node_id" in arrays else {},
        encoding=encoding,
    )
    return make_task(raw, **options)


def _checked_features(x: Any, source: str) -> Any:
    if not hasattr(x, "nnz"):
        x = np.asarray(x)
    if x.ndim != 2 or x.dtype.kind not in "biuf":
        raise ValueError(
            f"Expected one row of numbers per node of {source} (got {list(x.shape)} {x.dtype}); convert them"
        )
    values = x.data if hasattr(x, "nnz") else x
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        if hasattr(x, "nnz"):
            coo = x.tocoo()
            at = int(np.flatnonzero(~np.isfinite(coo.data))[0])
            row, column, value = coo.row[at], coo.col[at], coo.data[at]
        else:
            row, column = wrong[0]
            value = x[row, column]
        raise ValueError(
            f"Expected finite features in {source} (got {value} in row {row}, column {column}; {len(wrong)} "
            "in all); repair or drop them"
        )
    return x if hasattr(x, "nnz") else x.astype(np.float64)


# --- Files ------------------------------------------------------------------------------------------------


def read_arrays(path: Path, *, knn: int | None = None, standardize: bool = True, **options: Any) -> Task:
    r"""Reads a graph from arrays: one ``.npz`` with all, or a folder with one file for each.

    Args:
        path (Path): The file or the folder. Names in it are ``edge_index``, ``adjacency`` or ``adj``; ``x``,
            ``features`` or ``attr``; ``y`` or ``labels``; ``edge_attr`` beside ``edge_index``;
            ``train_mask``, ``val_mask``, ``test_mask``, or ``train``, ``val``, ``test`` with numbers of
            nodes, or ``split`` with names of parts; ``node_id``. A sparse matrix is a file by
            :func:`scipy.sparse.save_npz`, or its arrays with ``NAME_`` before theirs.
        knn (int, optional): Instead of edges: how many nearest neighbours. (default: :obj:`None`)
        standardize (bool, optional): As :func:`from_points` has it. (default: :obj:`True`)
        **options (optional): As :func:`from_data` has them.

    Raises:
        ValueError: If there are no labels, or neither edges nor :obj:`knn`; if edges or features are there
            twice, as ``edge_index`` and ``adj``.
    """
    arrays = read_folder(path) if path.is_dir() else read_archive(path)
    source = f"'{path}'"
    label = options.pop("label", None)
    label = label or next((name for name in LABELS if name in arrays), "y")
    x = _only(arrays, [name for name in FEATURES if name != label], "features", source)
    edge_index = _only(arrays, EDGES, "edges", source, beside=ADJACENCY)
    adjacency = _only(arrays, ADJACENCY, "edges", source)
    if options.get("like") is not None:  # labels do not count
        first = next((values for values in (x, adjacency) if values is not None), np.zeros(0))
        arrays[label] = np.full(first.shape[0], np.nan)
    if label not in arrays:
        no_column("an array", label, sorted(arrays), source, "it is what is to be predicted (--label)")
    arrays = with_masks(arrays, len(np.atleast_1d(arrays[label])), source)
    is_graph = edge_index is not None or adjacency is not None
    if is_graph != (knn is None):
        raise ValueError(
            f"Expected either edges ({listed([*EDGES[:1], *ADJACENCY[:2]])}) in {source} or a number of "
            f"nearest neighbours (got {'both' if is_graph else f'neither among {listed(sorted(arrays))}'}); "
            "for points alone pass knn=10 (--knn 10)"
        )
    if edge_index is not None:
        return _from_edges(edge_index, x, arrays, label, source, options)
    for name in EDGE_FEATURES:
        if name in arrays:
            raise ValueError(
                f"Expected '{name}' beside 'edge_index' in {source} (got it without), whose order it has; "
                "write edges as 'edge_index', or weights as the entries of the matrix"
            )
    named: dict[str, Any] = {"source": source, "label": label, "columns": _columns(arrays), **options}
    if adjacency is not None:
        return from_scipy(adjacency, x, arrays[label], **named)
    if x is None:
        no_column("an array", "x", sorted(arrays), source, "it holds the points")
    return from_points(x, arrays[label], knn=int(knn or 0), standardize=standardize, **named)


def _only(
    arrays: Mapping[str, Any], names: Sequence[str], what: str, source: str, beside: Sequence[str] = ()
) -> Any:
    # The array of one of these names, if there is one.
    present = [name for name in (*names, *beside) if name in arrays]
    if len(present) > 1:
        raise ValueError(
            f"Expected {what} once in {source} (got {listed(present)}); leave out what is not to be used"
        )
    return next((arrays[name] for name in names if name in arrays), None)


def _from_edges(
    edge_index: Any, x: Any, arrays: dict[str, Any], label: str, source: str, options: dict[str, Any]
) -> Task:
    import torch

    content: dict[str, Any] = {**_columns(arrays), label: arrays[label]}
    ends = signed(np.asarray(edge_index), "edge_index", source)
    content["edge_index"] = torch.from_numpy(ends) if ends.dtype.kind in "if" else ends
    if x is not None:
        from kgat.datasets.graph import feature_tensor

        content["x"] = feature_tensor(_checked_features(x, source))[0]
    content |= {name: np.asarray(arrays[name]) for name in EDGE_FEATURES if name in arrays}
    return from_data(content, target=label, source=source, **options)


def _columns(arrays: dict[str, Any]) -> dict[str, Array]:
    taken = {*EDGES, *ADJACENCY, *FEATURES, *EDGE_FEATURES}
    return {
        name: values
        for name, values in arrays.items()
        if name not in taken and isinstance(values, np.ndarray)
    }
