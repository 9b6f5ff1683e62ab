r"""Columns of a table as features: numbers, truth values and categories, with their encoding."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kgat.datasets.own.raw import TAKEN, WRITTEN, Array, listed, none_of
from kgat.datasets.own.written import days_of, expect_words

__all__ = ["Column", "encode", "kind_of"]

MOST_CATEGORIES = 100  # a column of more different texts is a name, not a feature
Where = Callable[[int, str], str]


@dataclass(frozen=True)
class Column:
    r"""How one column of a table becomes features.

    Args:
        name (str): Its name.
        kind (str): :obj:`"number"`, :obj:`"date"` (a number of days), :obj:`"flag"` (true or false) or
            :obj:`"category"` (one column each).
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
    source: str = "",
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
        source (str, optional): What errors call the table. (default: nothing)

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
    if fit is not None and columns is None:
        rows = np.flatnonzero(fit)
        _, columns = encode(
            table.iloc[rows],
            lambda row, name: where(int(rows[row]), name),
            categories=categories,
            fill=fill,
            standardize=standardize,
        )
    if columns is not None:
        source = f" in {source}" if source else ""
        lacking = [column.name for column in columns if column.name not in table.columns]
        known = {column.name for column in columns}
        more = [name for name in map(str, table.columns) if name not in known]
        if lacking or more:
            raise ValueError(
                f"Expected the columns {listed([column.name for column in columns])}{source} (got none of "
                f"the name {listed(lacking)}); give all that were encoded first" if lacking else
                f"Expected no columns but {listed([column.name for column in columns]) or 'ids'}{source} "
                f"(got {listed(more)}); drop what was not encoded first (--drop)"
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
            if column is None and name not in categories:
                expect_words(values, missing, str(name), where)
            part, column = _categories(values, missing, str(name), where, column, name in categories)
        else:
            numbers = _numbers(
                values, missing, str(name), where, kind, table.attrs.get(WRITTEN, {}).get(name, {})
            )
            part, column = _scaled(numbers, missing, str(name), kind, column, standardize)
        parts.append(part)
        made.append(column)
    x = np.concatenate(parts, axis=1) if parts else np.zeros((len(table), 0))
    return x.astype(np.float32), made


def kind_of(values: Any) -> str:
    r"""Returns what a column without its missing values holds: :obj:`"number"`, :obj:`"date"`,
    :obj:`"flag"` or :obj:`"category"`.

    Args:
        values (pandas.Series): The values.

    Example:
        >>> import pandas as pd
        >>> texts = (["1", "2", "three"], ["a", "2"], ["2026-11-29", "2026-11-30"])
        >>> [kind_of(pd.Series(each)) for each in texts]
        ['number', 'category', 'date']
    """
    import pandas as pd

    types = pd.api.types
    if types.is_datetime64_any_dtype(values):
        return "date"
    if types.is_timedelta64_dtype(values):
        return "number"
    texts = None if types.is_numeric_dtype(values) else values.astype(str).str.strip().str.lower()
    if types.is_bool_dtype(values) or (
        texts is not None and len(texts) and texts.isin(["true", "false"]).all()
    ):
        return "flag"
    if texts is None:
        return "number"
    # Most of them: the others are mistakes, which have to be told.
    if len(texts) and pd.to_numeric(texts, errors="coerce").notna().mean() > 0.5:
        return "number"
    return "date" if len(texts) and (~np.isnan(days_of(texts))).mean() > 0.5 else "category"


def _numbers(
    values: Any, missing: Array, name: str, where: Where, kind: str, written: Mapping[int, str]
) -> Array:
    import pandas as pd

    types = pd.api.types
    if types.is_complex_dtype(values):
        raise ValueError(
            f"Expected real numbers in column '{name}' (got {values.dtype}); make a column each of their "
            f"real and imaginary parts, or drop it (--drop {name})"
        )
    if kind == "date" or types.is_datetime64_any_dtype(values):
        numbers = days_of(values)
    elif types.is_timedelta64_dtype(values):
        numbers = values.to_numpy().astype("timedelta64[us]").astype(np.int64) / 86_400e6
    elif types.is_numeric_dtype(values):
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        texts = values.astype(str).str.strip().str.lower().replace({"true": "1", "false": "0"})
        numbers = pd.to_numeric(texts, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = (~np.isfinite(numbers)) & ~missing
    if wrong.any():
        row = int(wrong.argmax())
        got = written.get(values.index[row], values.iloc[row])
        wanted = "date as 2026-11-29" if kind == "date" else "number"
        raise ValueError(
            f"Expected a {wanted} in {where(row, name)} (got '{got}'; {int(wrong.sum())} in all); correct "
            "it, or say that the column holds names (--categories)"
        )
    return np.where(missing, np.nan, numbers)


def _scaled(
    numbers: Array, missing: Array, name: str, kind: str, column: Column | None, standardize: bool
) -> tuple[Array, Column]:
    if column is None:
        known = numbers[~missing]
        mean = float(known.mean()) if len(known) else 0.0
        deviation = float(known.std()) if len(known) else 0.0
        if kind in ("number", "date") and standardize:
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
            f"Expected one of {listed(column.categories)} in {where(row, name)} (got '{texts[row]}'); the "
            "encoding of these features knows no other"
        )
    part[np.flatnonzero(~missing), place[~missing]] = 1.0
    return part, column
