r"""What a family of kernels gains in trials that had the settings of a trial of stock attention.

Families are judged at the settings that each of them chose, so that a difference is one of kernels and of
what was chosen with them. The first trials of all families draw the same settings: there, nothing differs but
attention.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kgat.experiments.table import NONE, Cell, shown
from kgat.measures import Measure

__all__ = ["at_equal_settings", "cell"]

Record = Mapping[str, Any]

# Of trials of stock layers, too, which have no use for it.
UNUSED = {"kernel_lr"}


def at_equal_settings(records: Iterable[Record], family: str, stock: str) -> dict[str, list[float]]:
    r"""Returns per data set the differences on validation nodes, one for each trial, the mean over its seeds.

    Args:
        records (list of dict): Records among which are those of trials.
        family (str): The family.
        stock (str): What it is compared with.

    Example:
        >>> trial = {"kind": "tune", "dataset": "wine", "trial": 0, "seed": 0, "setting": {"lr": 0.1}}
        >>> records = [{**trial, "model": "gat", "val": 0.5}, {**trial, "model": "kernel", "val": 0.75}]
        >>> at_equal_settings(records, "kernel", "gat")
        {'wine': [0.25]}
    """
    trials: dict[tuple[str, int, int], dict[str, Record]] = {}
    for record in records:
        if record.get("kind") == "tune" and record["model"] in (family, stock) and record["val"] is not None:
            which = record["dataset"], record["trial"], record["seed"]
            trials.setdefault(which, {})[record["model"]] = record
    of_trials: dict[str, dict[int, list[float]]] = {}
    for (dataset, number, _), pair in trials.items():
        if len(pair) == 2 and _are_equal(pair[family]["setting"], pair[stock]["setting"]):
            difference = pair[family]["val"] - pair[stock]["val"]
            of_trials.setdefault(dataset, {}).setdefault(number, []).append(difference)
    return {
        dataset: [statistics.fmean(of_seeds) for of_seeds in of_numbers.values()]
        for dataset, of_numbers in of_trials.items()
    }


def _are_equal(setting: Mapping[str, Any], stock: Mapping[str, Any]) -> bool:
    return all(setting.get(name) == value for name, value in stock.items() if name not in UNUSED)


def cell(differences: Sequence[float], measure: Measure) -> Cell:
    r"""Returns the median difference, and in how many trials the family was better and worse."""
    if not differences:
        return Cell(NONE)
    rounded = [round(measure.sign * difference, 10) for difference in differences]
    better, worse = sum(d > 0 for d in rounded), sum(d < 0 for d in rounded)
    median = measure.scale * statistics.median(differences)
    text = f"{shown(median, measure.form(signed=True))} ({better} : {worse})"
    return Cell(text, {"": median, "better": better, "worse": worse})
