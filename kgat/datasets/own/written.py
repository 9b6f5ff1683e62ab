r"""How numbers, dates and codes are written in texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from kgat.datasets.own.raw import MISSING, Array

__all__ = ["code_in", "days_of", "expect_words", "is_plain_number", "with_decimal_commas"]

DATE = r"\d{4}-\d\d(?:-\d\d(?:[T ]\d\d(?::?\d\d(?::?\d\d(?:\.\d+)?)?)?(?:Z|[+-]\d\d(?::?\d\d)?)?)?)?"
DECIMAL_COMMA = r"[+-]?(?:\d+(?:,\d*)?|,\d+)(?:[eE][+-]?\d+)?"
# Units that are known: after any letter a number may be a name, as 4G or 12b is.
UNITS = """
    % ‰ ° °C °F € $ £ ¥ EUR USD GBP k bn ns us µs ms s sec min h hr hrs hour hours day days week weeks
    month months y yr yrs year years mg g kg t lb lbs oz nm µm um mm cm m km mi mile miles ft in inch
    inches km/h kmh mph m/s m² m2 km² km2 ml cl l kB KB MB GB TB Hz kHz MHz GHz W kW MW kWh V mV kcal kJ
"""
_AMOUNT = r"(?:\d+(?:[.,]\d*)?|[.,]\d+|\d{1,3}(?:[.,'’ \u00a0\u202f]\d{3})+(?:[.,]\d+)?)(?:[eE][+-]?\d+)?"
NUMBER = re.compile(
    rf"(?:[€$£¥]\s?)?[+\-−]?(?:[€$£¥]\s?)?{_AMOUNT}(?:\s?(?:{'|'.join(map(re.escape, UNITS.split()))}))?"
)
NEARLY_ALL = 0.9  # of the texts of a column: the others are mistakes, or words for nothing


def days_of(values: Any) -> Array:
    r"""Returns dates as days since 1970, in UTC where they say a zone; what is no ISO date is not a number.

    Args:
        values (pandas.Series): Times, or texts.

    Example:
        >>> import pandas as pd
        >>> days_of(pd.Series(["1970-01-02", "1970-01-01T12:00Z", "1970-02", "1970", "soon"])).tolist()
        [1.0, 0.5, 31.0, nan, nan]
    """
    import pandas as pd

    if not pd.api.types.is_datetime64_any_dtype(values):
        texts = values.astype(str).str.strip().str.upper()
        # A year alone is a number, and pandas knows more forms than ISO has.
        texts = texts.where(texts.str.fullmatch(DATE, na=False))
        values = pd.to_datetime(texts, errors="coerce", format="ISO8601", utc=True)
    if values.dt.tz is not None:
        values = values.dt.tz_convert(None)  # which is UTC
    moments = np.asarray(values.to_numpy(), dtype="datetime64[us]")
    days = moments.astype(np.int64) / 86_400e6
    return np.where(np.isnat(moments), np.nan, days)


def with_decimal_commas(table: Any, words: Collection[str]) -> Any:
    r"""Reads numbers with a decimal comma, where all texts of a column are such.

    Args:
        table (pandas.DataFrame): A table whose columns are not separated by commas.
        words (list of str): Columns of texts in any case.

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({"a": ["49,4", "7"], "b": ["49,4", "x"]})
        >>> with_decimal_commas(table, ())["a"].tolist()
        [49.4, 7.0]
    """
    import pandas as pd

    for name in table.columns:
        known = table[name].dropna()
        if name in words or not len(known) or pd.api.types.is_numeric_dtype(known):
            continue
        texts = known.astype(str).str.strip()
        if texts.str.contains(",", regex=False).any() and texts.str.fullmatch(DECIMAL_COMMA).all():
            table[name] = pd.to_numeric(texts.str.replace(",", ".", regex=False)).reindex(table.index)
    return table


def expect_words(values: Any, missing: Array, name: str, where: Callable[[int, str], str]) -> None:
    r"""Refuses categories that are numbers in another form, as 49,4 or 49.4% or 1,049.

    Args:
        values (pandas.Series): The texts of a column, of which those for nothing do not count.
        missing (numpy.ndarray): Where there is none.
        name (str): The column.
        where (callable): Says where a value stands, from its row and column.

    Raises:
        ValueError: If nearly all different texts look like numbers.
    """
    texts = values.astype(str).str.strip().where(~missing, "")
    distinct = [text for text in texts.unique() if text not in MISSING]
    numbers = {text for text in distinct if NUMBER.fullmatch(text)}
    if not distinct or len(numbers) < NEARLY_ALL * len(distinct):
        return
    # As an example one that is not written so.
    row = next(i for i, text in enumerate(texts) if text in numbers and not is_plain_number(text))
    raise ValueError(
        f"Expected numbers as 49.4 in {where(row, name)} (got '{texts.iloc[row]}'; "
        f"{len(numbers)} of {len(distinct)} different texts of the column look like numbers); write them "
        f"so, drop the column (--drop {name}), or say that they are words (--categories {name})"
    )


def is_plain_number(text: str) -> bool:
    r"""Returns whether a text is a number as Python writes it.

    Example:
        >>> is_plain_number("49.4"), is_plain_number("49.4%")
        (True, False)
    """
    try:
        float(text)
    except ValueError:
        return False
    return True


def code_in(values: Any) -> str | None:
    r"""Returns the first number with zeros before it, as codes have, if a column of texts has one.

    Example:
        >>> import pandas as pd
        >>> code_in(pd.Series(["10", "0", "0.5", "007"])), code_in(pd.Series(["10", "0"]))
        ('007', None)
    """
    texts = values.dropna().astype(str).str.strip()
    codes = texts[texts.str.fullmatch(r"0\d+", na=False)]
    return str(codes.iloc[0]) if len(codes) else None
