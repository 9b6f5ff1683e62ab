r"""The test metric of each model: seeds as dots, the mean and its 95 % interval."""

import numpy as np
from matplotlib.figure import Figure

from kgat.experiments.pairs import averaged
from kgat.experiments.plots.look import figure_of_scores
from kgat.experiments.plots.plot import Looks, plot
from kgat.experiments.plots.selection import Runs, labelled, metric_of, runs_of, with_seeds
from kgat.experiments.records import BASELINE


@plot(runs_of, order=10)
def accuracy(runs: Runs, looks: Looks, dataset: str) -> Figure | None:
    r"""Test metric.

    Dots are single runs (one seed each) at the epoch with the best validation score. The large marker is
    their mean, the bar its 95 % interval (Student's t; seeds that share one of several splits count once),
    cut at 100 %. The dashed line is the mean of the baseline.
    """
    metric = metric_of(runs)
    scores = {
        model: metric.scale * np.array([run["test"] for run in of_model.values()])
        for model, of_model in runs.items()
    }

    def text(values: np.ndarray) -> str:
        spread = f" ± {metric.form().format(values.std(ddof=1))}" if values.size > 1 else ""
        return f"{metric.form().format(values.mean())}{spread}"

    baseline = scores[BASELINE].mean() if BASELINE in scores else None
    bounds = (0.0, 100.0) if metric.percent else (-np.inf, np.inf)
    of_splits = {
        model: metric.scale * averaged({pair: run["test"] for pair, run in of_model.items()})
        for model, of_model in runs.items()
    }
    figure, axes = figure_of_scores(scores, looks, "mean ± std", text, baseline, bounds, of_splits)
    if metric.percent:  # no score passes it, nor does its axis but for the width of a marker
        axes.set_xlim(right=min(axes.get_xlim()[1], 100.0 + 0.02 * np.ptp(axes.get_xlim())))
    axes.set_xlabel(f"test {labelled(metric)}")
    axes.set_title(with_seeds(dataset, runs), loc="left")
    return figure
