r"""Numbers of rows that came into a table when it was written."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection
from typing import Any

__all__ = ["without_row_numbers"]

# As pandas writes and reads an index: without a name, or with this one in other programs.
NAMELESS = re.compile(r"(Unnamed: \d+(\.\d+)*|__index_level_\d+__|)", re.IGNORECASE)


def without_row_numbers(table: Any, used: Collection[str] = (), source: str = "the table") -> Any:
    r"""Returns a table without columns that have no name and hold another whole number in each row, as
    :meth:`pandas.DataFrame.to_csv` writes them unless it is told ``index=False``. What is left out is told.

    They need not be in order, as rows may have been chosen or mixed.

    Args:
        table (pandas.DataFrame): The table.
        used (list of str, optional): Columns that are asked for, and stay. (default: :obj:`()`)
        source (str, optional): What warnings call the table. (default: :obj:`"the table"`)

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({"Unnamed: 0": [0, 2], "Unnamed: 1": [7, 7]})
        >>> with warnings.catch_warnings(action="ignore"):
        ...     list(without_row_numbers(table))
        ['Unnamed: 1']
    """
    found = [
        name
        for name in table.columns
        if NAMELESS.fullmatch(str(name).strip()) and name not in used and _number_rows(table[name])
    ]
    for name in found:
        warnings.warn(
            f"column '{name}' of {source} has no name and numbers the rows, so it is left out; write tables "
            "without it (to_csv(index=False)), or give it a name if it is a feature",
            stacklevel=4,
        )
    return table.drop(columns=found) if found else table


def _number_rows(values: Any) -> bool:
    import pandas as pd

    if values.dtype.kind in "bmMc" or not len(values):
        return False
    numbers = pd.to_numeric(values, errors="coerce")
    return bool((numbers % 1 == 0).all()) and bool(numbers.is_unique)
