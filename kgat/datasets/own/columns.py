r"""Columns of a table as features: numbers, truth values and categories, with their encoding."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kgat.datasets.own.raw import TAKEN, Array, none_of, shown

__all__ = ["Column", "encode", "kind_of"]

MOST_CATEGORIES = 100  # a column of more different texts is a name, not a feature
Where = Callable[[int, str], str]


@dataclass(frozen=True)
class Column:
    r"""How one column of a table becomes features.

    Args:
        name (str): Its name.
        kind (str): :obj:`"number"`, :obj:`"flag"` (true or false) or :obj:`"category"` (one column each).
        mean, deviation (float, optional): What numbers are standardised by. (default: :obj:`0.0`,
            :obj:`1.0`)
        categories (list of str, optional): The categories. (default: :obj:`()`)
        fill (float, optional): The number instead of a missing one. (default: :obj:`0.0`)
    """

    name: str
    kind: str
    mean: float = 0.0
    deviation: float = 1.0
    categories: Sequence[str] = ()
    fill: float = 0.0

    @property
    def width(self) -> int:
        r"""The number of features."""
        return len(self.categories) if self.kind == "category" else 1


def encode(
    table: Any,
    where: Where,
    *,
    categories: Collection[str] = (),
    fill: bool = False,
    standardize: bool = True,
    columns: Sequence[Column] | None = None,
    fit: Array | None = None,
) -> tuple[Array, list[Column]]:
    r"""Makes features of the columns of a table.

    Args:
        table (pandas.DataFrame): The columns.
        where (callable): Says where a value stands, from its row and column.
        categories (list of str, optional): Columns whose numbers are names. (default: :obj:`()`)
        fill (bool, optional): Whether a missing number is the mean of its column and a missing category none
            of them; else it is refused. (default: :obj:`False`)
        standardize (bool, optional): Whether numbers get mean 0 and deviation 1. (default: :obj:`True`)
        columns (list of Column, optional): An encoding that was made before, which the table then has to
            fit. (default: :obj:`None`)
        fit (numpy.ndarray, optional): Which rows decide about categories, means and deviations; all if
            :obj:`None`. (default: :obj:`None`)

    Returns:
        tuple: The features, and the encoding.

    Raises:
        ValueError: If a value is missing, or not as the others of its column; if columns are not those of the
            encoding.

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({"age": [20, 40], "job": ["smith", "cook"]})
        >>> x, columns = encode(table, lambda row, name: f"row {row}, column '{name}'")
        >>> x.tolist()
        [[-1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]
    """
    import pandas as pd

    if fit is not None and columns is None:
        rows = np.flatnonzero(fit)
        _, columns = encode(
            *(table.iloc[rows], lambda row, name: where(int(rows[row]), name)),
            categories=categories,
            fill=fill,
            standardize=standardize,
        )
    if columns is not None:
        lacking = [column.name for column in columns if column.name not in table.columns]
        known = {column.name for column in columns}
        more = [name for name in map(str, table.columns) if name not in known]
        if lacking or more:
            raise ValueError(
                f"Expected the columns {shown([column.name for column in columns])} (got none of the name "
                f"{shown(lacking)}); give all that were encoded first" if lacking else
                f"Expected no columns but {shown([column.name for column in columns]) or 'ids'} (got "
                f"{shown(more)}); drop what was not encoded first (--drop)"
            )  # fmt: skip
    parts, made, taken = [], [], table.attrs.get(TAKEN, {})
    wanted: list[tuple[str, Column | None]] = (
        [(name, None) for name in table.columns]
        if columns is None
        else [(column.name, column) for column in columns]
    )
    for name, column in wanted:
        values = table[name]
        missing = np.asarray(values.isna(), dtype=bool)
        if missing.any() and not fill:
            row = int(missing.argmax())
            raise ValueError(
                f"Expected a value in {where(row, str(name))} (got {none_of(taken, str(name))}; "
                f"{int(missing.sum())} of {len(missing)} are missing); fill it in, drop the column (--drop), "
                "or pass fill=True (--fill)"
            )
        if column is None:
            kind = "category" if name in categories else kind_of(values[~missing])
        else:
            kind = column.kind
        if kind == "category":
            part, column = _categories(values, missing, str(name), where, column, name in categories)
        else:
            numbers = _numbers(values, missing, str(name), where, pd)
            part, column = _scaled(numbers, missing, str(name), kind, column, standardize)
        parts.append(part)
        made.append(column)
    x = np.concatenate(parts, axis=1) if parts else np.zeros((len(table), 0))
    return x.astype(np.float32), made


def kind_of(values: Any) -> str:
    r"""Returns what a column without its missing values holds: :obj:`"number"`, :obj:`"flag"` or
    :obj:`"category"`.

    Args:
        values (pandas.Series): The values.

    Example:
        >>> import pandas as pd
        >>> kind_of(pd.Series(["1", "2", "three"])), kind_of(pd.Series(["a", "2"]))
        ('number', 'category')
    """
    import pandas as pd

    types = pd.api.types
    texts = None if types.is_numeric_dtype(values) else values.astype(str).str.strip().str.lower()
    if types.is_bool_dtype(values) or (
        texts is not None and len(texts) and texts.isin(["true", "false"]).all()
    ):
        return "flag"
    if texts is None or types.is_datetime64_any_dtype(values):
        return "number"
    are_numbers = pd.to_numeric(texts, errors="coerce").notna()
    # Most of them: the others are mistakes, which have to be told.
    return "number" if len(texts) and are_numbers.mean() > 0.5 else "category"


def _numbers(values: Any, missing: Array, name: str, where: Where, pd: Any) -> Array:
    types = pd.api.types
    if types.is_datetime64_any_dtype(values):
        moments = np.asarray(values.to_numpy(), dtype="datetime64[ns]").astype(np.int64)
        return np.where(missing, np.nan, moments / 86_400e9)  # in days
    if types.is_numeric_dtype(values):
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        texts = values.astype(str).str.strip().str.lower().replace({"true": "1", "false": "0"})
        numbers = pd.to_numeric(texts, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = (~np.isfinite(numbers)) & ~missing
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"Expected a number in {where(row, name)} (got '{values.iloc[row]}'; {int(wrong.sum())} in all); "
            "correct it, or say that the column holds names (--categories)"
        )
    return np.where(missing, np.nan, numbers)


def _scaled(
    numbers: Array, missing: Array, name: str, kind: str, column: Column | None, standardize: bool
) -> tuple[Array, Column]:
    if column is None:
        known = numbers[~missing]
        mean = float(known.mean()) if len(known) else 0.0
        deviation = float(known.std()) if len(known) else 0.0
        if kind == "number" and standardize:
            # A column of one value says nothing, whatever rounding makes of its deviation.
            column = Column(name, kind, mean, deviation if len(np.unique(known)) > 1 else 1.0, fill=mean)
        else:
            column = Column(name, kind, fill=mean)
    filled = np.where(np.isnan(numbers), column.fill, numbers)
    return ((filled - column.mean) / column.deviation)[:, None], column


def _categories(
    values: Any, missing: Array, name: str, where: Where, column: Column | None, asked: bool
) -> tuple[Array, Column]:
    texts = np.asarray(values.astype(str).str.strip(), dtype=object).astype(str)
    if column is None:
        distinct = np.unique(texts[~missing]).tolist()
        if len(distinct) > MOST_CATEGORIES and not asked:
            raise ValueError(
                f"Expected at most {MOST_CATEGORIES} different texts in column '{name}' (got "
                f"{len(distinct)}, the first '{texts[0]}'); drop it (--drop {name}), or say that they are "
                f"categories (--categories {name})"
            )
        column = Column(name, "category", categories=tuple(distinct))
    part = np.zeros((len(texts), len(column.categories)), dtype=np.float32)
    if not column.categories:
        return part, column
    place = np.searchsorted(column.categories, texts).clip(max=len(column.categories) - 1)
    strange = (np.asarray(column.categories)[place] != texts) & ~missing
    if strange.any():
        row = int(strange.argmax())
        raise ValueError(
            f"Expected one of {shown(column.categories)} in {where(row, name)} (got '{texts[row]}'); the "
            "encoding of these features knows no other"
        )
    part[np.flatnonzero(~missing), place[~missing]] = 1.0
    return part, column
