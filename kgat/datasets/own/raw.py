r"""A graph as its owner gives it, before anything is decided about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = [
    "CODES",
    "EDGE_FEATURES",
    "MISSING",
    "TAKEN",
    "WRITTEN",
    "Array",
    "RawGraph",
    "absent",
    "counted",
    "edge_features_in",
    "expect_no_twins",
    "is_na",
    "listed",
    "names_in",
    "no_column",
    "none_of",
    "several",
]

Array = NDArray[Any]
EDGE_FEATURES = ("edge_attr", "edge_weight")  # what features of edges are called, the first is taken
# Texts that mean that there is no value among numbers, truth values and dates. Among texts NA is a name like
# any other (of Namibia, of North America), and only an empty cell has no value; so it is among ids.
MISSING = ("", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL", "None", "<NA>")
# In 'attrs' of a table that was read, by column:
TAKEN = "texts taken for missing"
WRITTEN = "texts of infinite numbers"  # by row, as 1e400 is one in a file alone
CODES = "number with zeros before it"  # the first
SHOWN = 20  # names in a message: more are no help


@dataclass(frozen=True, kw_only=True)
class RawGraph:
    r"""A graph as its owner gives it: what tables, networks, arrays and :obj:`Data` have in common.

    Args:
        x (numpy.ndarray, scipy.sparse matrix, torch.Tensor or None): Features.
        edge_index (numpy.ndarray): Sources and targets, as places in the list of nodes.
        labels (numpy.ndarray): What is to be predicted: one value per node, or one column per label.
        label (str): What :obj:`labels` are called.
        column (callable): Returns a column of the nodes by its name.
        row (callable): Says where a node stands, as in "row 7 of 'nodes.csv'".
        source (str): Where all of it comes from.
        of_table (bool, optional): Whether :obj:`labels` are columns of a table, whose cells are empty where a
            label is not known; else :obj:`-1` among classes says so. (default: :obj:`False`)
        edge_attr (numpy.ndarray, optional): Features of edges. (default: :obj:`None`)
        masks (list of tuple, optional): Splits that are there: their names and three masks.
            (default: :obj:`()`)
        directed (bool, optional): Whether edges count in their direction alone, if the caller does not say;
            if :obj:`None`, they do unless each is there in both. (default: :obj:`None`)
        steps (tuple of str, optional): What was done to make features and edges. (default: :obj:`()`)
        extra (dict, optional): What the :obj:`Data` keeps besides. (default: :obj:`{}`)
        fit (numpy.ndarray, optional): Which nodes decide about means and deviations. (default: :obj:`None`)
        taken (dict, optional): By column the texts that were taken for missing values. (default: :obj:`{}`)
        encoding (dict, optional): What there is of an :class:`~kgat.datasets.own.encoding.Encoding`.
            (default: :obj:`{}`)
    """

    x: Any
    edge_index: Array
    labels: Array
    label: str
    column: Callable[[str], Array]
    row: Callable[[int], str]
    source: str
    of_table: bool = False
    edge_attr: Array | None = None
    masks: Sequence[tuple[str, Array, Array, Array]] = ()
    directed: bool | None = None
    steps: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    fit: Array | None = None
    taken: Mapping[str, Sequence[str]] = field(default_factory=dict)
    encoding: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_nodes(self) -> int:
        r"""The number of nodes."""
        return len(self.labels)


def edge_features_in(store: Any) -> tuple[Any, tuple[str, ...]]:
    r"""Returns what a :obj:`Data`, or one of its types, has as features of edges, and what is to be
    said of it.

    Example:
        >>> edge_features_in({"edge_weight": [0.5]})
        ([0.5], ('edge features edge_weight',))
    """
    present = [name for name in EDGE_FEATURES if store.get(name) is not None]
    if not present:
        return None, ()
    values = store.get(present[0])
    if len(present) > 1:
        return values, (f"{present[1]} left out beside {present[0]}",)
    return values, () if present[0] == EDGE_FEATURES[0] else (f"edge features {present[0]}",)


def several(names: Array) -> dict[str, Any]:
    r"""Returns what a :obj:`Data` of several graphs keeps: the graph of each node, and what they are called.

    Example:
        >>> several(np.array(["b", "b", "a"], dtype=object))
        {'batch': tensor([0, 0, 1]), 'graph_name': ['b', 'a']}
    """
    number = {name: i for i, name in enumerate(dict.fromkeys(names.tolist()))}
    return {"batch": torch.tensor([number[name] for name in names.tolist()]), "graph_name": list(number)}


def absent(values: Array) -> Array:
    r"""Returns where a value is missing: :obj:`None`, not a number, or an empty text.

    Example:
        >>> absent(np.array(["a", "", None, float("nan")], dtype=object)).tolist()
        [False, True, True, True]
    """
    values = np.asarray(values)
    if values.dtype.kind == "f":
        return np.isnan(values)
    if values.dtype.kind in "mM":
        return np.isnat(values)
    if values.dtype.kind not in "OUS":
        return np.zeros(values.shape, dtype=bool)
    # What is not equal to itself is not a number, nor a date; pandas' NA has no truth value at all.
    flat = [value is None or is_na(value) or str(value).strip() == "" for value in values.ravel().tolist()]
    return np.array(flat, dtype=bool).reshape(values.shape)


def is_na(value: Any) -> bool:
    r"""Whether a value is not a number, or what pandas has in its place.

    Example:
        >>> is_na(float("nan")), is_na("nan")
        (True, False)
    """
    return type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)


def none_of(taken: Mapping[str, Sequence[str]], *names: str) -> str:
    r"""Returns how a message calls missing values of columns, which need not be empty cells.

    Example:
        >>> none_of({"age": ["NA"]}, "age"), none_of({}, "age")
        ("none ('NA' is taken for missing)", 'none')
    """
    texts = sorted({text for name in names for text in taken.get(name, ())})
    if not texts:
        return "none"
    quoted = ", ".join(f"'{text}'" for text in texts)
    return f"none ({quoted} {'are' if len(texts) > 1 else 'is'} taken for missing)"


def no_column(what: str, name: str, there: Sequence[str], where: str, advice: str) -> NoReturn:
    r"""Raises the error of a column that is not there, with those that are."""
    raise ValueError(f"Expected {what} '{name}' in {where} (got {listed(there) or 'no columns'}); {advice}")


def expect_no_twins(names: Sequence[Any], where: str) -> None:
    r"""Refuses columns of one name, of which nobody could say which is meant.

    Example:
        >>> expect_no_twins(["a", "b", "a"], "'nodes.csv'")
        Traceback (most recent call last):
        ValueError: Expected columns of different names in 'nodes.csv' (got 'a' twice); rename one of them
    """
    seen: set[str] = set()
    for name in map(str, names):
        if name in seen:
            raise ValueError(
                f"Expected columns of different names in {where} (got '{name}' twice); rename one of them"
            )
        seen.add(name)


def names_in(given: Any) -> list[str]:
    r"""Returns names that are given as a list, or as one text with commas. A number is a name, too, as
    columns may be called by numbers.

    Example:
        >>> names_in("a, b"), names_in(["a,b"]), names_in(0), names_in(None)
        (['a', 'b'], ['a,b'], ['0'], [])
    """
    if isinstance(given, str):
        return [name.strip() for name in given.split(",") if name.strip()]
    if given is None:
        return []
    return list(map(str, given)) if isinstance(given, Iterable) else [str(given)]


def listed(names: Sequence[Any]) -> str:
    r"""Returns names, separated by commas, not more than a reader takes in.

    Example:
        >>> listed(["a", "b"]), listed(range(25))[-8:]
        ('a, b', ', 5 more')
    """
    text = ", ".join(map(str, list(names)[:SHOWN]))
    return f"{text}, {len(names) - SHOWN} more" if len(names) > SHOWN else text


def counted(count: int, noun: str) -> str:
    r"""Returns a number with its noun.

    Example:
        >>> counted(1, "node"), counted(1200, "node")
        ('1 node', '1,200 nodes')
    """
    return f"{count:,} {noun}{'s' * (count != 1)}"
