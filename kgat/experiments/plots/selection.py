r"""What figures take out of records."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kgat.experiments.records import BASELINE, METRICS
from kgat.experiments.statistics import interval

Record = Mapping[str, Any]


def datasets(records: Sequence[Record]) -> list[str]:
    r"""Returns the data sets of the records, in the order of their first appearance.

    Example:
        >>> datasets([{"dataset": "Cora"}, {"dataset": "Actor"}, {"dataset": "Cora"}])
        ['Cora', 'Actor']
    """
    return list(dict.fromkeys(record["dataset"] for record in records if record.get("dataset")))


def models_of(records: Iterable[Record]) -> list[str]:
    names: dict[str, None] = {}
    for record in records:
        if record.get("kind") == "cost":
            names.update(dict.fromkeys(record.get("models") or {}))
        elif record.get("model") is not None:
            names[record["model"]] = None
    return list(names)


def runs_of(records: Sequence[Record], dataset: str | None) -> dict[str, dict[Any, Record]]:
    r"""Model, then seed and split, then its last run; the baseline comes first."""
    found: dict[str, dict[Any, Record]] = {}
    for record in records:
        if record.get("kind") != "run" or record.get("dataset") != dataset:
            continue
        if is_finite(record.get("test")):
            found.setdefault(record["model"], {})[record["seed"], record.get("split")] = record
    return dict(sorted(found.items(), key=lambda item: item[0] != BASELINE))


def attention_of(records: Sequence[Record], dataset: str | None) -> dict[str, Record]:
    found: dict[str, Record] = {}
    for record in records:
        if record.get("kind") == "attention" and record.get("dataset") == dataset:
            found.setdefault(record["model"], record)
    return dict(sorted(found.items(), key=lambda item: item[0] != BASELINE))


def field_of(records: Sequence[Record], dataset: str | None, name: str) -> dict[str, Any]:
    found = attention_of(records, dataset).items()
    return {model: record[name] for model, record in found if record.get(name)}


def is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def finite_numbers(values: Any) -> np.ndarray:
    if values is None:
        return np.empty(0)
    flat = np.ravel(np.array(values, dtype=float))  # None becomes nan
    return flat[np.isfinite(flat)]


def half_width(values: np.ndarray) -> float | None:
    r"""Half of the 95 % interval of the mean (Student's t)."""
    low, high = interval(values)
    return None if low is None or high is None else 0.5 * (high - low)


def count_seeds(runs: Mapping[str, Mapping[Any, Record]]) -> int:
    return len({seed for of_model in runs.values() for seed, _ in of_model})


def metric_of(runs: Mapping[str, Mapping[Any, Record]]) -> str:
    for of_model in runs.values():
        for run in of_model.values():
            return METRICS.get(run.get("metric", "accuracy"), str(run.get("metric")))
    return METRICS["accuracy"]
