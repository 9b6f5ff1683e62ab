r"""The paired difference of each model to the baseline, seed by seed."""

import numpy as np
from matplotlib.figure import Figure

from kgat.experiments.pairs import differences
from kgat.experiments.plots.look import figure_of_scores
from kgat.experiments.plots.plot import Looks, plot
from kgat.experiments.plots.selection import Runs, half_width, labelled, metric_of, runs_of, with_seeds
from kgat.experiments.records import BASELINE


@plot(runs_of, order=20)
def difference(runs: Runs, looks: Looks, dataset: str) -> Figure | None:
    r"""Difference to the baseline.

    The run of a model minus the run of the baseline with the same seed and split; seeds that share one of
    several splits count once. Dots are seeds or splits, the bar is the 95 % interval of the mean difference
    (Student's t). An interval that leaves out zero is evidence for one data set and one set of
    hyperparameters, without correction for the number of models; the table has the corrected p-values.
    """
    metric = metric_of(runs)
    reference = runs.get(BASELINE, {})
    runs = {model: of_model for model, of_model in runs.items() if model != BASELINE}
    tests = {pair: run["test"] for pair, run in reference.items()}
    paired = {
        model: metric.scale * values
        for model, of_model in runs.items()
        if (values := differences({pair: run["test"] for pair, run in of_model.items()}, tests)).size
    }
    if not paired:
        return None

    def text(values: np.ndarray) -> str:
        mean, half = values.mean(), half_width(values)
        form = metric.form(signed=True).format
        interval = "" if half is None else f"  [{form(mean - half)}, {form(mean + half)}]"
        return f"{form(mean)}{interval}".replace("-", "−")

    figure, axes = figure_of_scores(paired, looks, "mean [95 %]", text, reference=0)
    axes.set_xlabel(f"difference to {BASELINE} in test {labelled(metric, 'percentage points')}")
    axes.set_title(with_seeds(dataset, runs), loc="left")
    return figure
