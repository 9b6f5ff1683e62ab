r"""What trials search: a range or choices per setting, as declared in ``space.toml`` or said by the user."""

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from kgat.experiments.registry import argument_named
from kgat.experiments.settings import SETTINGS, TYPES
from kgat.names import converted, shown, unknown

__all__ = ["Choices", "Dimension", "Range", "read_space"]

DIGITS = 3  # of a number drawn from a range: it is written in tables and typed again
WIDE = 10  # times the lower end, from which on a range is searched in logarithms
WHERE = "--search {}=VALUE,VALUE"


@dataclass(frozen=True)
class Range:
    r"""All numbers between two; whole ones, if both ends are.

    Args:
        low (float): The lower end, which belongs to it.
        high (float): The upper end, which does, too.

    Example:
        >>> print(Range(0.001, 0.1), Range(1, 4), Range(0.0, 0.8))
        0.001..0.1 (log) 1..4 0..0.8
    """

    low: float
    high: float

    @property
    def log(self) -> bool:
        r"""Whether it is searched in logarithms: if it spans a factor of ten or more."""
        return 0 < self.low <= self.high / WIDE

    @property
    def stored(self) -> str:
        r"""What records hold."""
        return str(self)

    @property
    def ends(self) -> tuple[float, ...]:
        r"""The smallest and the largest value."""
        return self.low, self.high

    def __str__(self) -> str:
        return f"{shown(self.low)}..{shown(self.high)}" + " (log)" * self.log

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    @property
    def distribution(self) -> Any:
        r"""What Optuna calls it."""
        from optuna import distributions

        kind = "IntDistribution" if isinstance(self.low, int) else "FloatDistribution"
        return getattr(distributions, kind)(self.low, self.high, log=self.log)

    def suggested(self, trial: Any, name: str) -> float:
        r"""Returns what a trial of Optuna suggests, with few digits."""
        if isinstance(self.low, int):
            return int(trial.suggest_int(name, self.low, self.high, log=self.log))
        value = trial.suggest_float(name, self.low, self.high, log=self.log)
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)


@dataclass(frozen=True)
class Choices:
    r"""Some values.

    Args:
        values (tuple): The values.

    Example:
        >>> print(Choices((1, 4, 8)), Choices((None, "batch_norm")))
        1, 4 or 8 none or batch_norm
    """

    values: tuple[Any, ...]

    @property
    def stored(self) -> list[Any]:
        r"""What records hold."""
        return list(self.values)

    @property
    def ends(self) -> tuple[Any, ...]:
        r"""All values."""
        return self.values

    def __str__(self) -> str:
        *others, last = map(shown, self.values)
        return f"{', '.join(others)} or {last}" if others else last

    def __contains__(self, value: Any) -> bool:
        return value in self.values

    @property
    def distribution(self) -> Any:
        r"""What Optuna calls it."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)

    def suggested(self, trial: Any, name: str) -> Any:
        r"""Returns what a trial of Optuna suggests."""
        return trial.suggest_categorical(name, self.values)


Dimension = Range | Choices


def read_space(
    search: Mapping[str, Any] | None = None, path: str | os.PathLike[str] | None = None
) -> dict[str, Dimension]:
    r"""Reads what is searched.

    Args:
        search (dict, optional): What is searched beside the declared space, or instead of what it says of the
            same setting: a range as in :obj:`"0.001..0.1"`, or choices, as a list or as in :obj:`"1,4,8"`.
            (default: :obj:`None`)
        path (str or Path, optional): A file as ``space.toml``, which replaces it. (default: :obj:`None`)

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a setting is unknown, a value impossible, or there is nothing to choose from.

    Example:
        >>> for name, dimension in list(read_space({"heads": "1,4"}).items())[:2]:
        ...     print(name, dimension)
        lr 0.001..0.05 (log)
        weight_decay 0, 5e-05, 0.0005 or 0.005
    """
    path = Path(__file__).with_name("space.toml") if path is None else Path(path)
    try:
        given = tomllib.loads(path.read_text(encoding="utf8"))
    except OSError as error:
        raise FileNotFoundError(
            f"Expected a file that declares what is searched (got '{path}': {error.strerror}); write one as "
            "kgat/experiments/space.toml"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"Expected TOML in '{path}' (got an error: {error}); correct it") from None
    space = {}
    for spelled, values in {**_flat(given), **(search or {})}.items():
        name, kind = _named(spelled)
        space[name] = _dimension(name, kind, values)
    return space


def _named(name: str) -> tuple[str, Any]:
    if "." in name:
        return argument_named(name)
    if name not in SETTINGS:
        unknown("settings that exist in the space that is searched", name, SETTINGS)
    return name, TYPES[name]


def _flat(tables: Mapping[str, Any]) -> dict[str, Any]:
    r"""Of a table of TOML, ``rbf.lengthscale`` is a table in a table."""
    return {
        f"{name}.{argument}" if isinstance(values, Mapping) else name: of_name
        for name, values in tables.items()
        for argument, of_name in (values if isinstance(values, Mapping) else {"": values}).items()
    }


def _dimension(name: str, kind: Any, values: Any) -> Dimension:
    if name == "keep":  # one table has one rule
        raise ValueError(
            "Expected settings that the runs of a table may differ in (got 'keep' in the space that is "
            "searched); choose it for all models with --set keep=VALUE"
        )
    if isinstance(values, str) and ".." in values:
        return _range(name, kind, values)
    if isinstance(values, str):
        values = [value.strip() for value in re.split(r",(?![^\[\]]*\])", values)]
    if not isinstance(values, Sequence):
        values = [values]
    read = tuple(dict.fromkeys(converted(name, kind, value, WHERE) for value in values))
    if len(read) < 2:
        raise ValueError(
            f"Expected several values of '{name}' to search (got {', '.join(map(shown, read)) or 'none'}); "
            f"write --search {name}=LOW..HIGH or {name}=ONE,OTHER, or fix it with --set {name}=VALUE"
        )
    return Choices(read)


def _range(name: str, kind: Any, text: str) -> Range:
    kinds = get_args(kind) or (kind,)
    if not {int, float}.intersection(kinds):
        raise ValueError(
            f"Expected choices of '{name}', which is no number (got the range {text}); list them as in "
            f"--search {name}=ONE,OTHER"
        )
    low, high = (converted(name, kind, end.strip(), WHERE) for end in text.split("..", 1))
    if None in (low, high) or not low < high:
        raise ValueError(
            f"Expected a range of '{name}' from a lower to a higher value (got {text}); write --search "
            f"{name}=LOW..HIGH"
        )
    return Range(low, high)
