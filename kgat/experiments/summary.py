r"""What is said of paired runs: means, deviations, differences to a baseline and how sure they are."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kgat.experiments.pairs import AVERAGED, Pair, differences
from kgat.experiments.statistics import holm, interval, wilcoxon

__all__ = ["TESTED", "Summary", "least_seeds", "summarise", "summarise_runs"]

# How the differences of a page were found; over what p-values are adjusted, the page goes on to say.
TESTED = (
    f"paired by seed ({AVERAGED}), with a 95 % t-interval; p: Wilcoxon signed-rank test, adjusted after Holm"
)


@dataclass(frozen=True)
class Summary:
    r"""One competitor. All numbers are in units of the scores.

    Args:
        n (int): Number of runs.
        lost (int): How many of them have no score.
        mean (float, optional): Mean score; :obj:`None` without any.
        std (float, optional): Unbiased standard deviation; :obj:`None` with fewer than two scores.
        difference (float, optional): Mean difference to the baseline over common pairs.
        ci_low (float, optional): Lower end of its 95 % t-interval.
        ci_high (float, optional): Upper end.
        p_value (float, optional): Wilcoxon signed-rank test, adjusted for the number of competitors after
            Holm; :obj:`None` with fewer than five pairs.
        pairs (int): Number of differences to the baseline (:func:`~kgat.experiments.pairs.differences`).
        ups (int): How many of them are above zero.
        downs (int): How many are below.
    """

    n: int
    lost: int
    mean: float | None
    std: float | None
    difference: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    pairs: int
    ups: int
    downs: int


def summarise(
    scores: Mapping[str, Mapping[Hashable, float | None]], baseline: str, scale: float = 1.0
) -> dict[str, Summary]:
    r"""Compares competitors with one of them, paired by what their runs have in common.

    Args:
        scores (dict): Per competitor its scores by :class:`~kgat.experiments.pairs.Pair`, or by what else
            they have in common; :obj:`None` for a run without one.
        baseline (str): What the others are compared with; it need not be there.
        scale (float, optional): What means, deviations and differences are multiplied with.
            (default: :obj:`1.0`)

    Returns:
        dict: The competitors in their order.

    Example:
        >>> found = summarise({"gat": {0: 0.5, 1: 0.75}, "rbf": {0: 0.75, 1: 1.0, 2: None}}, "gat", 100)
        >>> found["rbf"].mean, found["rbf"].difference, found["rbf"].lost
        (87.5, 25.0, 1)
    """
    reference = scores.get(baseline, {})
    paired = {name: differences(runs, reference) for name, runs in scores.items() if name != baseline}
    adjusted = holm({name: wilcoxon(values) for name, values in paired.items()})
    return {
        name: _summary(
            len(runs),
            scale * np.array([score for score in runs.values() if score is not None]),
            scale * paired.get(name, np.empty(0)),
            adjusted.get(name),
        )
        for name, runs in scores.items()
    }


def summarise_runs(
    runs: Iterable[Mapping[str, Any]], competitor: str, baseline: str
) -> dict[str, dict[str, Summary]]:
    r"""Compares the test scores of runs, data set by data set, by seed and split.

    Args:
        runs (list of dict): Records of runs; of repeated ones the last counts.
        competitor (str): The entry of a record that names who competes.
        baseline (str): What the others are compared with.
    """
    scores: dict[str, dict[str, dict[Hashable, float | None]]] = {}
    for run in runs:
        of_competitor = scores.setdefault(run["dataset"], {}).setdefault(run[competitor], {})
        of_competitor[Pair.of(run)] = run["test"]
    return {dataset: summarise(of_dataset, baseline) for dataset, of_dataset in scores.items()}


def least_seeds(summaries: Mapping[str, Summary]) -> str:
    r"""Returns how many seeds all competitors have."""
    seeds = min(summary.n for summary in summaries.values())
    return f"{seeds} seed{'s' * (seeds != 1)}"


def _summary(n: int, values: np.ndarray, differences: np.ndarray, p_value: float | None) -> Summary:
    low, high = interval(differences)
    return Summary(
        n=n,
        lost=n - values.size,
        mean=float(values.mean()) if values.size else None,
        std=float(values.std(ddof=1)) if values.size > 1 else None,
        difference=float(differences.mean()) if differences.size else None,
        ci_low=low,
        ci_high=high,
        p_value=p_value,
        pairs=differences.size,
        ups=int((np.round(differences, 10) > 0).sum()),
        downs=int((np.round(differences, 10) < 0).sum()),
    )
