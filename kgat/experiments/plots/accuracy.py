r"""The test metric of each model: seeds as dots, the mean and its 95 % interval."""

import numpy as np
from matplotlib.figure import Figure

from kgat.experiments.plots.look import figure_of_scores
from kgat.experiments.plots.plot import Looks, plot
from kgat.experiments.plots.selection import Runs, metric_of, runs_of, with_seeds
from kgat.experiments.records import BASELINE


@plot(runs_of, order=10)
def accuracy(runs: Runs, looks: Looks, dataset: str) -> Figure | None:
    r"""Test metric.

    Dots are single runs (one seed each) at the epoch with the best validation score. The large marker is
    their mean, the bar its 95 % interval (Student's t), cut at 100 %. The dashed line is the mean of the
    baseline.
    """
    scores = {
        model: 100 * np.array([run["test"] for run in of_model.values()]) for model, of_model in runs.items()
    }

    def text(values: np.ndarray) -> str:
        spread = f" ± {values.std(ddof=1):.1f}" if values.size > 1 else ""
        return f"{values.mean():.1f}{spread}"

    baseline = scores[BASELINE].mean() if BASELINE in scores else None
    figure, axes = figure_of_scores(scores, looks, "mean ± std", text, baseline, bounds=(0.0, 100.0))
    # No score passes it, nor does its axis but for the width of a marker.
    axes.set_xlim(right=min(axes.get_xlim()[1], 100.0 + 0.02 * np.ptp(axes.get_xlim())))
    axes.set_xlabel(f"test {metric_of(runs)} (%)")
    axes.set_title(with_seeds(dataset, runs), loc="left")
    return figure
