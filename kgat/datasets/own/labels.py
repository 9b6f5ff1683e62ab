r"""What is to be predicted: classes, labels or numbers, recognised from the values."""

from __future__ import annotations

import warnings
from numbers import Real
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kgat.datasets.metrics import KINDS
from kgat.datasets.own.raw import Array, RawGraph, absent, listed, none_of
from kgat.names import one_of

__all__ = ["METRIC_OF", "Target", "plain", "target_of"]

# What is scored by unless something else is asked for. ROC-AUC does not reward the larger class.
METRIC_OF = {"multiclass": "accuracy", "binary": "roc_auc", "multilabel": "roc_auc", "regression": "rmse"}
MOST_CLASSES = 100  # whole numbers of more values are amounts


class Target(NamedTuple):
    r"""What is to be predicted.

    Args:
        kind (str): One of :data:`kgat.datasets.metrics.KINDS`.
        y (torch.Tensor): Classes with :obj:`-1` where unknown; labels or numbers with :obj:`nan` there.
        classes (tuple of str): The names of classes or labels; of a number, its own.
    """

    kind: str
    y: Tensor
    classes: tuple[str, ...]

    @property
    def num_columns(self) -> int:
        r"""Columns of an answer: classes, labels or values."""
        if self.y.dim() == 2:
            return self.y.size(1)
        return 1 if self.y.is_floating_point() else int(self.y.max()) + 1

    @property
    def labelled(self) -> Array:
        r"""Which nodes have a label."""
        known = ~self.y.isnan() if self.y.is_floating_point() else self.y >= 0
        return (known.any(dim=1) if known.dim() == 2 else known).numpy()


def target_of(raw: RawGraph, kind: str | None = None) -> Target:
    r"""Recognises what is to be predicted, by its values alone: the same numbers mean the same in whole and
    in floating types, in tables, arrays and tensors.

    Text, truth values and whole numbers of at most 100 different values are classes; other numbers are a
    regression. Several columns of zeros and ones are labels, several columns of other numbers a regression.
    Unknown is what is missing, and :obj:`-1` among classes and labels, but in a table, whose cells can be
    empty. In a regression :obj:`-1` is a number like any other.

    Args:
        raw (RawGraph): The graph.
        kind (str, optional): One of :data:`kgat.datasets.metrics.KINDS`, if it is not to be recognised.
            (default: :obj:`None`)

    Raises:
        ValueError: If no label is known, all are the same, or the values are not of this kind; if nobody
            could say whether whole numbers of an array are classes or amounts.

    Example:
        >>> raw = RawGraph(
        ...     x=None,
        ...     edge_index=np.empty((2, 0)),
        ...     labels=np.array([0, 2, -1]),
        ...     label="y",
        ...     column=lambda name: np.empty(0),
        ...     row=lambda node: f"node {node}",
        ...     source="the given array",
        ... )
        >>> target_of(raw).kind, target_of(raw).y.tolist(), target_of(raw).classes
        ('binary', [0, 1, -1], ('0', '2'))
        >>> target_of(raw, "regression").y.tolist()
        [0.0, 2.0, -1.0]
    """
    if kind is not None:
        one_of("kind", kind, KINDS)
    labels = plain(raw.labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2:
        return _columns(raw, labels, kind)
    if kind == "multilabel":
        raise ValueError(
            f"Expected several columns of zeros and ones for kind='multilabel' (got '{raw.label}' alone); "
            "name them all with 'label' (--label a,b,c)"
        )
    kind, missing = _kind_and_unknown(raw, labels, kind)
    _expect_known(raw, missing)
    distinct = _distinct(labels[~missing])
    _expect_two(raw, labels, missing, distinct)
    if kind == "regression":
        return Target("regression", torch.from_numpy(_numbers(raw, labels, missing)), (raw.label,))
    return _classes(raw, labels, missing, distinct, kind)


def plain(labels: Array) -> Array:
    r"""Returns labels as numbers, if all that are known are such, else as texts without spaces around.

    Example:
        >>> plain(np.array([2, None], dtype=object)), plain(np.array(["a ", None], dtype=object))
        (array([ 2., nan]), array(['a', None], dtype=object))
    """
    if labels.dtype.kind not in "OSU":
        return labels
    if labels.dtype.kind != "O":
        return np.char.strip(labels.astype(str))
    missing = absent(labels)
    known = labels[~missing].tolist()
    if known and all(isinstance(value, Real) and not isinstance(value, bool) for value in known):
        numbers = np.full(labels.shape, np.nan)
        numbers[~missing] = known
        return numbers
    texts = [value.strip() if isinstance(value, str) else value for value in labels.ravel().tolist()]
    out = np.empty(len(texts), dtype=object)
    out[:] = texts
    return out.reshape(labels.shape)


def _kind_and_unknown(raw: RawGraph, labels: Array, kind: str | None) -> tuple[str | None, Array]:
    # Of one column: whether it is a regression (else what was asked for), and where nothing is known.
    missing = absent(labels)
    if labels.dtype.kind not in "iuf":
        return kind, missing
    if kind == "regression" or raw.of_table:
        amounts = kind is None and _are_amounts(np.unique(labels[~missing]))
        return "regression" if amounts else kind, missing
    unknown = labels == -1
    distinct = np.unique(labels[~missing & ~unknown])
    if kind is None and _are_amounts(distinct):
        if unknown.any() and _are_whole(distinct) and distinct[0] >= 0:
            raise ValueError(
                f"Expected at most {MOST_CLASSES} different whole numbers beside -1 in '{raw.label}' of "
                f"{raw.source} (got {len(distinct)}); say kind='multiclass' (--kind multiclass) if they are "
                "classes, of which -1 is unknown, kind='regression' (--kind regression) if they are amounts"
            )
        return "regression", missing
    if len(distinct) and distinct[0] < 0:
        node = int((labels == distinct[0]).argmax())
        raise ValueError(
            f"Expected classes from 0, and -1 where there is none, in '{raw.label}' of {raw.source} (got "
            f"{labels[node]:g} in {raw.row(node)}); number them so, or pass kind='regression' (--kind "
            "regression) if they are amounts"
        )
    if kind is None and labels.dtype.kind == "f" and len(distinct) > 2:
        warnings.warn(
            f"whole numbers of a floating type in '{raw.label}' of {raw.source} are taken for "
            f"{len(distinct)} classes; if they are amounts, pass kind='regression' (--kind regression)",
            stacklevel=5,
        )
    return kind, missing | unknown


def _are_amounts(distinct: Array) -> bool:
    return len(distinct) > MOST_CLASSES or not _are_whole(distinct)


def _are_whole(numbers: Array) -> bool:
    with np.errstate(invalid="ignore"):  # what is infinite is no whole number
        return bool((numbers % 1 == 0).all())


def _distinct(known: Array) -> Array:
    return np.unique(known.astype(str) if known.dtype.kind == "O" else known)


def _expect_known(raw: RawGraph, missing: Array) -> None:
    if bool(missing.all()):
        none = none_of(raw.taken, *raw.label.split(","))
        raise ValueError(
            f"Expected labels in '{raw.label}' of {raw.source} (got {none} for all {raw.num_nodes} nodes); "
            "name the column that is to be predicted with 'label' (--label)"
        )


def _expect_two(raw: RawGraph, labels: Array, missing: Array, distinct: Array) -> None:
    if len(distinct) > 1:
        return
    known = ~missing if missing.ndim == 1 else (~missing).any(axis=1)
    is_coded = labels.dtype.kind in "if" and bool((labels[missing] == -1).any())
    raise ValueError(
        f"Expected at least two values in '{raw.label}' of {raw.source} (got '{distinct[0]}' for all "
        f"{int(known.sum())} nodes that have one); "
        + ("write 0 for -1, which is unknown, if it is a class" if is_coded else "choose another label")
    )


def _classes(raw: RawGraph, labels: Array, missing: Array, distinct: Array, kind: str | None) -> Target:
    if kind == "binary" and len(distinct) != 2:
        raise ValueError(
            f"Expected two classes in '{raw.label}' for kind='binary' (got {len(distinct)}: "
            f"{listed(distinct.tolist())}); leave 'kind' out"
        )
    known = labels[~missing].astype(str) if labels.dtype.kind == "O" else labels[~missing]
    y = np.full(raw.num_nodes, -1, dtype=np.int64)
    y[~missing] = np.searchsorted(distinct, known)
    kind = kind or ("binary" if len(distinct) == 2 else "multiclass")
    return Target(kind, torch.from_numpy(y), tuple(map(_name, distinct.tolist())))


def _name(value: float | str) -> str:
    if isinstance(value, float):  # a class is called 2, were it a float for the sake of a missing one
        return str(int(value)) if value.is_integer() else f"{value:g}"
    return str(value)


def _columns(raw: RawGraph, labels: Array, kind: str | None) -> Target:
    if kind in ("multiclass", "binary"):
        raise ValueError(
            f"Expected one column for kind='{kind}' (got {labels.shape[1]}: '{raw.label}'); name one with "
            "'label' (--label)"
        )
    missing = absent(labels)
    if labels.dtype.kind in "if" and kind != "regression" and not raw.of_table:
        unknown = labels == -1
        if kind == "multilabel" or bool(np.isin(labels[~missing & ~unknown], (0, 1)).all()):
            missing |= unknown
    _expect_known(raw, missing)
    y = _numbers(raw, labels, missing)
    are_labels = bool(np.isin(y[~missing], (0.0, 1.0)).all())
    if kind == "multilabel" and not are_labels:
        row, column = np.argwhere(~missing & ~np.isin(y, (0.0, 1.0)))[0]
        raise ValueError(
            f"Expected 0, 1 or nothing in the labels '{raw.label}' (got {y[row, column]:g} in "
            f"{raw.row(row)}); correct it, or pass kind='regression' (--kind regression)"
        )
    _expect_two(
        raw, labels, missing, np.unique(labels[~missing] if labels.dtype.kind != "O" else y[~missing])
    )
    names = tuple(name.strip() for name in raw.label.split(","))
    names = names if len(names) == y.shape[1] else tuple(map(str, range(y.shape[1])))
    return Target(kind or ("multilabel" if are_labels else "regression"), torch.from_numpy(y), names)


def _numbers(raw: RawGraph, labels: Array, missing: Array) -> Array:
    y = np.full(labels.shape, np.nan, dtype=np.float32)
    for place in np.argwhere(~missing).tolist() if labels.dtype.kind in "OUS" else ():
        at = tuple(place)
        try:
            y[at] = float(labels[at])
        except (TypeError, ValueError):
            raise ValueError(
                f"Expected a number in '{raw.label}' (got '{labels[at]}' in {raw.row(place[0])}); correct "
                "it, or leave 'kind' out for classes"
            ) from None
    if labels.dtype.kind not in "OUS":
        y[~missing] = labels[~missing]
    wrong = np.argwhere(np.isinf(y))
    if len(wrong):
        raise ValueError(
            f"Expected finite numbers in '{raw.label}' of {raw.source} (got {y[tuple(wrong[0])]} in "
            f"{raw.row(int(wrong[0][0]))}); correct it, or leave it empty"
        )
    return y
