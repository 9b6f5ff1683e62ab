r"""What figures take out of records."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kgat.experiments.pairs import Pair, latest
from kgat.experiments.records import BASELINE
from kgat.experiments.statistics import interval
from kgat.measures import Measure, measure_of

Record = Mapping[str, Any]
Chosen = Mapping[str, Record]  # of each model
Runs = Mapping[str, Mapping[Any, Record]]


def datasets(records: Sequence[Record]) -> list[str]:
    r"""Returns the data sets of the records, in the order of their first appearance.

    Example:
        >>> datasets([{"dataset": "Cora"}, {"dataset": "Actor"}, {"dataset": "Cora"}])
        ['Cora', 'Actor']
    """
    return list(dict.fromkeys(record["dataset"] for record in records if record.get("dataset")))


def models_of(records: Iterable[Record]) -> list[str]:
    of_records = (
        record.get("models") or () if record.get("kind") == "cost" else [record.get("model")]
        for record in records
    )
    return list(dict.fromkeys(name for names in of_records for name in names if name is not None))


def runs_of(records: Sequence[Record], dataset: str | None) -> dict[str, dict[Any, Record]]:
    r"""Model, then seed and split, then its last run; the baseline comes first."""
    runs: dict[str, dict[Any, Record]] = {}
    for record in _of(latest(records), "run", dataset):
        if is_finite(record.get("test")):
            runs.setdefault(record["model"], {})[Pair.of(record)] = record
    return _baseline_first(runs)


def with_field(kind: str, field: str) -> Callable[[Sequence[Record], str | None], dict[str, Record]]:
    r"""Chooses the records with a field: model, then its last one; the baseline comes first."""
    return lambda records, dataset: _baseline_first(
        {record["model"]: record for record in _of(records, kind, dataset) if record.get(field)}
    )


def last_cost(records: Sequence[Record], dataset: str | None) -> Record | None:
    costs = list(_of(records, "cost", dataset))
    return costs[-1] if costs and costs[-1].get("models") else None


def _of(records: Sequence[Record], kind: str, dataset: str | None) -> Iterable[Record]:
    return (r for r in records if r.get("kind") == kind and r.get("dataset") == dataset)


def _baseline_first(of_models: dict[str, Any]) -> dict[str, Any]:
    return dict(sorted(of_models.items(), key=lambda item: item[0] != BASELINE))


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


def with_seeds(dataset: str, runs: Runs) -> str:
    r"""A data set with the number of its seeds, as titles have it."""
    seeds = len({seed for of_model in runs.values() for seed, _ in of_model})
    return f"{dataset}, {seeds} seed{'s' * (seeds != 1)}"


def metric_of(runs: Runs) -> Measure:
    r"""What the runs are scored by."""
    run = next((run for of_model in runs.values() for run in of_model.values()), {})
    return measure_of(str(run.get("metric", "accuracy")))


def labelled(metric: Measure, unit: str = "%") -> str:
    r"""A metric as axes have it, with the unit of a percentage, or the direction of an error."""
    behind = unit if metric.percent else metric.direction
    return f"{metric.label} ({behind})" if behind else metric.label
