r"""Files of tables: comma, semicolon or tab separated values, and Parquet."""

from __future__ import annotations

import csv
import gzip
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any

import numpy as np

from kgat.datasets.own.columns import kind_of
from kgat.datasets.own.raw import CODES, MISSING, TAKEN, WRITTEN, expect_no_twins
from kgat.datasets.own.written import code_in, with_decimal_commas
from kgat.extras import require

__all__ = ["TABLES", "are_names", "ending_of", "read_table", "table_in"]

TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")


def ending_of(path: Path) -> str:
    r"""Returns the ending of a file, with what it is compressed by.

    Example:
        >>> ending_of(Path("a.b.csv")), ending_of(Path("nodes.CSV.gz"))
        ('.csv', '.csv.gz')
    """
    return "".join(path.suffixes[-2 if path.suffix.lower() == ".gz" else -1 :]).lower()


def table_in(folder: Path, name: str) -> Path | None:
    r"""Returns the table of a name in a folder, if there is one."""
    return next((folder / f"{name}{end}" for end in TABLES if (folder / f"{name}{end}").is_file()), None)


def read_table(
    path: Path, ids: Sequence[str] = (), texts: Sequence[str] = ()
) -> tuple[Any, Callable[[int], str]]:
    r"""Reads a table, and returns what says where a row of it stands.

    Among numbers, truth values and dates "NA", "NaN" and the like mean that there is no value; among texts
    only an empty cell does.

    Args:
        path (Path): A file of comma, semicolon or tab separated values with a header, in UTF-8 or with a
            mark of its encoding, also compressed by gzip; or a Parquet file.
        ids (list of str, optional): Columns of texts in any case, whose "NA" or "007" are names.
            (default: :obj:`()`)
        texts (list of str, optional): Columns in which "NA" or "007" is a name, and an empty cell is missing.
            (default: :obj:`()`)

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a table, or two of its columns have one name.
    """
    require(f"to read '{path}'", "pandas")
    import pandas as pd

    if not path.is_file():
        raise FileNotFoundError(f"Expected a table at '{path}' (got no file); check the path")
    if path.suffix == ".parquet":
        require(f"to read '{path}'", "pyarrow")
        try:
            table = pd.read_parquet(path)
        except Exception as error:  # pyarrow has errors of its own
            raise _unreadable(path, error) from error
        return table, lambda number: f"row {number} of '{path.name}', counted from 0"
    with _telling(path):
        encoding = _encoding(path)
        names, separator = _header(path, encoding)
    expect_no_twins(names, f"'{path}'")
    form: dict[str, Any] = {
        "sep": separator,
        "encoding": encoding,
        "names": names,
        "header": 0,
        "index_col": False,
        "skip_blank_lines": False,
        "skipinitialspace": True,
        "keep_default_na": False,
    }
    with _telling(path), warnings.catch_warnings():
        # Of a row that is longer than the header pandas drops the rest, with a warning.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        table = _read(path, form, names, ids, texts)
    # Blank lines are kept where they are, so that rows are named by their lines, and dropped at the end.
    blank = (table.isna() | (table == "")).all(axis=1).to_numpy()
    while len(table) and blank[len(table) - 1]:
        table = table.iloc[:-1]
    return table, lambda number: f"line {number + 2} of '{path.name}'"


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    import pandas as pd

    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(
            f"Expected a table with a header in '{path}', in UTF-8 (got byte {error.object[error.start]:#x}, "
            "which is of another encoding); save it as CSV UTF-8"
        ) from error
    except (
        *(ValueError, pd.errors.ParserWarning, OverflowError, csv.Error),  # a ParserError is a ValueError
        *(gzip.BadGzipFile, EOFError, zlib.error),
    ) as error:
        raise _unreadable(path, error) from error


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")  # type: ignore[return-value]


def _encoding(path: Path) -> str:
    # Excel writes UTF-16, with its mark, as "Unicode text".
    with _open(path) as file:
        return "utf-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


def _header(path: Path, encoding: str) -> tuple[list[str], str]:
    r"""Returns the names of the columns, and what separates them."""
    with _open(path) as raw, TextIOWrapper(raw, encoding=encoding, newline="") as file:
        line = file.readline()
        separator = max(",;\t", key=line.count)
        file.seek(0)
        names = next(csv.reader(file, delimiter=separator, skipinitialspace=True), [])
    if not names:
        raise ValueError("No columns to parse from file")
    names = [name.strip() for name in names]
    for place, name in enumerate(names):
        if not name:  # it is called as pandas calls it
            names[place] = _unlike(f"Unnamed: {place}", names)
    return names, separator


def _unlike(name: str, names: Sequence[str]) -> str:
    # An index that was written twice has been called so before.
    return _unlike(f"{name}.1", names) if name in names else name


def _read(
    path: Path, form: dict[str, Any], names: Sequence[str], ids: Sequence[str], texts: Sequence[str]
) -> Any:
    import pandas as pd

    table = pd.read_csv(
        path,
        **form,
        low_memory=False,
        na_values={name: list(MISSING) for name in names if name not in ids},
        dtype={name: str for name in ids if name in names},
    )
    if form["sep"] == ";":
        table = with_decimal_commas(table, ids)
    numbers = {name: table[name] for name in names if name not in ids and table[name].dtype.kind in "iuf"}
    infinite = {name for name, values in numbers.items() if np.isinf(values).any()}
    whole = {name for name, values in numbers.items() if values.dtype.kind in "iu"}
    lacking = {name for name in names if name not in ids and bool(table[name].isna().any())}
    again = {*infinite, *whole, *lacking, *(name for name in texts if name in names and name not in ids)}
    if not again:
        return table
    written = pd.read_csv(
        path,
        **form,
        usecols=[name for name in names if name in again],
        na_values={name: [""] for name in again},
        dtype=str,
    )
    table = _with_names(table, written, texts)
    table.attrs[WRITTEN] = {
        name: {int(row): written[name].iloc[row] for row in np.flatnonzero(np.isinf(table[name]))}
        for name in infinite - {*texts}
    }
    codes = {name: code_in(written[name]) for name in names if name in again and name in numbers}
    table.attrs[CODES] = {name: code for name, code in codes.items() if code is not None}
    return table


def _with_names(table: Any, written: Any, texts: Sequence[str]) -> Any:
    # Columns of texts as they are written, and of others the texts that were taken for missing.
    taken = {}
    for name in written.columns:
        if name in texts or are_names(table[name]):
            table[name] = written[name]
        elif here := sorted(set(written[name][table[name].isna()].dropna())):
            taken[name] = here
    table.attrs[TAKEN] = taken
    return table


def are_names(values: Any) -> bool:
    r"""Whether a column holds texts: neither numbers, nor truth values, nor dates."""
    known = values.dropna()
    return bool(len(known)) and kind_of(known) == "category"


def _unreadable(path: Path, error: Exception | Warning) -> ValueError:
    why = " ".join(str(error).split()) or type(error).__name__
    return ValueError(f"Expected a table with a header in '{path}' (got: {why}); correct the file")
