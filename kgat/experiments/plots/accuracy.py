r"""The test metric of each model: seeds as dots, the mean and its 95 % interval."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from kgat.experiments.plots.look import (
    INK,
    Style,
    column_head,
    dots_and_interval,
    figure_of_rows,
    name_rows,
    right_of,
)
from kgat.experiments.plots.plot import plot
from kgat.experiments.plots.selection import Runs, metric_of, runs_of, with_seeds
from kgat.experiments.records import BASELINE


@plot(
    runs_of,
    order=10,
    title="Test metric",
    caption="Dots are single runs (one seed each) at the epoch with the best validation score. The large "
    "marker is their mean, the bar its 95 % interval (Student's t), cut at 100 %. The dashed line is the "
    "mean of the baseline.",
)
def accuracy(runs: Runs, looks: Mapping[str, Style], dataset: str) -> Figure | None:
    scores = {
        model: 100 * np.array([run["test"] for run in of_model.values()]) for model, of_model in runs.items()
    }
    figure, (axes,) = figure_of_rows(len(scores))
    if BASELINE in scores:
        axes.axvline(scores[BASELINE].mean(), color=INK, linewidth=1, linestyle=(0, (4, 3)))
    for row, (model, values) in enumerate(scores.items()):
        dots_and_interval(axes, row, values, looks[model], bounds=(0.0, 100.0))
        spread = f" ± {values.std(ddof=1):.1f}" if values.size > 1 else ""
        right_of(axes, row, f"{values.mean():.1f}{spread}")
    several = max(map(np.size, scores.values())) > 1
    column_head(axes, "mean ± std" if several else "value")
    name_rows(axes, list(scores))
    # No score passes it, nor does its axis but for the width of a marker.
    axes.set_xlim(right=min(axes.get_xlim()[1], 100.0 + 0.02 * np.ptp(axes.get_xlim())))
    axes.set_xlabel(f"test {metric_of(runs)} (%)")
    axes.set_title(with_seeds(dataset, runs), loc="left")
    return figure
