r"""What is to be predicted: classes, labels or numbers, recognised from the values."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kgat.datasets.metrics import KINDS
from kgat.datasets.own.raw import Array, RawGraph, listed, none_of
from kgat.names import one_of

__all__ = ["METRIC_OF", "Target", "target_of"]

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
    r"""Recognises what is to be predicted.

    Text, truth values and whole numbers of at most 100 different values are classes; other numbers are a
    regression. Several columns of zeros and ones are labels, several columns of other numbers a regression.

    Args:
        raw (RawGraph): The graph.
        kind (str, optional): One of :data:`kgat.datasets.metrics.KINDS`, if it is not to be recognised.
            (default: :obj:`None`)

    Raises:
        ValueError: If no label is known, all are the same, or the values are not of this kind.
    """
    if kind is not None:
        one_of("kind", kind, KINDS)
    labels, missing = raw.labels, raw.missing
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels, missing = labels[:, 0], missing[:, 0]
    if bool(missing.all()):
        none = none_of(raw.taken, *raw.label.split(","))
        raise ValueError(
            f"Expected labels in '{raw.label}' of {raw.source} (got {none} for all {raw.num_nodes} nodes); "
            "name the column that is to be predicted with 'label' (--label)"
        )
    if labels.ndim == 2:
        return _columns(raw, labels, missing, kind)
    if kind == "multilabel":
        raise ValueError(
            f"Expected several columns of zeros and ones for kind='multilabel' (got '{raw.label}' alone); "
            "name them all with 'label' (--label a,b,c)"
        )
    distinct = np.unique(labels[~missing].astype(str) if labels.dtype.kind == "O" else labels[~missing])
    if len(distinct) < 2:
        raise ValueError(
            f"Expected at least two values in '{raw.label}' of {raw.source} (got '{distinct[0]}' for all "
            f"{int((~missing).sum())} nodes that have one); choose another label"
        )
    if kind == "regression" or (kind is None and _is_amount(distinct)):
        return Target("regression", torch.from_numpy(_numbers(raw, labels, missing)), (raw.label,))
    return _classes(raw, labels, missing, distinct, kind)


def _is_amount(distinct: Array) -> bool:
    if distinct.dtype.kind not in "iuf":
        return False
    return bool((distinct % 1 != 0).any()) or len(distinct) > MOST_CLASSES


def _classes(raw: RawGraph, labels: Array, missing: Array, distinct: Array, kind: str | None) -> Target:
    if kind == "binary" and len(distinct) != 2:
        raise ValueError(
            f"Expected two classes in '{raw.label}' for kind='binary' (got {len(distinct)}: "
            f"{listed(distinct.tolist())}); leave 'kind' out"
        )
    known = labels[~missing].astype(str) if labels.dtype.kind == "O" else labels[~missing]
    y = np.full(raw.num_nodes, -1, dtype=np.int64)
    y[~missing] = np.searchsorted(distinct, known)
    names = [f"{value:g}" if isinstance(value, float) else str(value) for value in distinct.tolist()]
    kind = kind or ("binary" if len(distinct) == 2 else "multiclass")
    return Target(kind, torch.from_numpy(y), tuple(names))


def _columns(raw: RawGraph, labels: Array, missing: Array, kind: str | None) -> Target:
    if kind in ("multiclass", "binary"):
        raise ValueError(
            f"Expected one column for kind='{kind}' (got {labels.shape[1]}: '{raw.label}'); name one with "
            "'label' (--label)"
        )
    y = _numbers(raw, labels, missing)
    are_labels = bool(np.isin(y[~missing], (0.0, 1.0)).all())
    if kind == "multilabel" and not are_labels:
        row, column = np.argwhere(~missing & ~np.isin(y, (0.0, 1.0)))[0]
        raise ValueError(
            f"Expected 0, 1 or nothing in the labels '{raw.label}' (got {y[row, column]:g} in "
            f"{raw.row(row)}); correct it, or pass kind='regression' (--kind regression)"
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
            f"Expected finite numbers in '{raw.label}' (got {y[tuple(wrong[0])]} in "
            f"{raw.row(int(wrong[0][0]))}); correct it, or leave it empty"
        )
    return y
