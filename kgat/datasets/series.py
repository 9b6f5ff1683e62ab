r"""The text format ``.ts`` of the UEA and UCR archives of time series."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Series(NamedTuple):
    r"""Labelled series.

    Args:
        x (list of numpy.ndarray): Each series with its steps and channels; :obj:`nan` where missing.
        labels (list of str): The class of each.
        classes (tuple of str): The classes that the file declares; :obj:`()` if it declares none.

    Shapes:
        - **x:** :math:`(N_i, F)` each
    """

    x: list[Array]
    labels: list[str]
    classes: tuple[str, ...]


def read_ts(path: Path) -> Series:
    r"""Reads a file of series: ``@`` headers, then one case per line.

    A case is ``channel:channel:...:label``, a channel ``value,value,...`` with ``?`` for missing ones; all
    channels of a case have one length, which may differ between cases. Lines that begin with ``#`` are
    comments.

    Args:
        path (Path): The file.

    Raises:
        ValueError: If the file is not of this form, with the line, or holds no case; time stamps and
            regression targets are not read.
    """
    x: list[Array] = []
    labels: list[str] = []
    classes: tuple[str, ...] = ()
    channels, in_data = None, False
    # Comments hold names in other encodings.
    with path.open(encoding="utf8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            where = f"line {number} of '{path}'"
            if in_data:
                case, label = _case(line, channels, classes, where)
                channels = case.shape[1]
                x.append(case)
                labels.append(label)
                continue
            tag, *values = line.split()
            match tag.lower():
                case "@data":
                    in_data = True
                case "@timestamps" if _truth(values, where):
                    raise ValueError(
                        f"Expected series without time stamps in {where} (got {line!r}); drop them"
                    )
                case "@classlabel":
                    if not _truth(values, where):
                        raise ValueError(
                            f"Expected class labels in {where} (got {line!r}); they are the task"
                        )
                    classes = tuple(values[1:])
                case "@dimensions":
                    channels = _whole(values, where)
                case "@targetlabel" if _truth(values, where):
                    raise ValueError(f"Expected class labels in {where} (got regression); use another set")
                case _ if not tag.startswith("@"):
                    raise ValueError(
                        f"Expected a header or '@data' in {where} (got {line[:40]!r}); {_BROKEN}"
                    )
    if not x:
        raise ValueError(f"Expected series after '@data' in '{path}' (got none); {_BROKEN}")
    return Series(x, labels, classes)


_BROKEN = "the file is truncated or corrupt: delete it and put the published one there"


def _case(line: str, channels: int | None, classes: tuple[str, ...], where: str) -> tuple[Array, str]:
    *dimensions, label = (part.strip() for part in line.split(":"))
    if not dimensions or (channels is not None and len(dimensions) != channels):
        expected = "at least one channel" if channels is None else f"{channels} channels"
        raise ValueError(f"Expected {expected} and a label in {where} (got {len(dimensions)}); {_BROKEN}")
    if not label or (classes and label not in classes):
        raise ValueError(f"Expected a class of {classes} at the end of {where} (got '{label}'); {_BROKEN}")
    try:
        values = [
            np.array([float("nan") if value.strip() == "?" else float(value) for value in part.split(",")])
            for part in dimensions
        ]
    except ValueError as error:
        raise ValueError(f"Expected numbers or '?' in {where} (got: {error}); {_BROKEN}") from None
    lengths = sorted({len(value) for value in values})
    if len(lengths) > 1:
        raise ValueError(f"Expected channels of one length in {where} (got {lengths}); {_BROKEN}")
    return np.stack(values, axis=1), label


def _truth(values: list[str], where: str) -> bool:
    if not values or values[0].lower() not in ("true", "false"):
        raise ValueError(f"Expected 'true' or 'false' in {where} (got {values[:1]}); {_BROKEN}")
    return values[0].lower() == "true"


def _whole(values: list[str], where: str) -> int:
    if len(values) != 1 or not values[0].isdigit():
        raise ValueError(f"Expected a whole number in {where} (got {values}); {_BROKEN}")
    return int(values[0])
