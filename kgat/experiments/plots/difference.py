r"""The paired difference of each model to the baseline, seed by seed."""

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
from kgat.experiments.plots.selection import Runs, half_width, metric_of, runs_of, with_seeds
from kgat.experiments.records import BASELINE


@plot(
    runs_of,
    order=20,
    title="Difference to the baseline",
    caption="Paired by seed: the run of a model minus the run of the baseline with the same seed and "
    "split. Dots are seeds, the bar is the 95 % interval of the mean difference (Student's t). An "
    "interval that leaves out zero is evidence for one data set and one set of hyperparameters, "
    "without correction for the number of models; the table has the corrected p-values.",
)
def difference(runs: Runs, looks: Mapping[str, Style], dataset: str) -> Figure | None:
    reference = runs.get(BASELINE, {})
    runs = {model: of_model for model, of_model in runs.items() if model != BASELINE}
    paired = {}
    for model, of_model in runs.items():
        common = [pair for pair in of_model if pair in reference]
        if common:
            paired[model] = 100 * np.array(
                [of_model[pair]["test"] - reference[pair]["test"] for pair in common]
            )
    if not paired:
        return None
    figure, (axes,) = figure_of_rows(len(paired))
    axes.axvline(0, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    for row, (model, values) in enumerate(paired.items()):
        dots_and_interval(axes, row, values, looks[model])
        half = half_width(values)
        text = f"{values.mean():+.1f}"
        if half is not None:
            text += f"  [{values.mean() - half:+.1f}, {values.mean() + half:+.1f}]"
        right_of(axes, row, text.replace("-", "−"))
    several = any(values.size > 1 for values in paired.values())
    column_head(axes, "mean [95 %]" if several else "value")
    name_rows(axes, list(paired))
    axes.set_xlabel(f"difference to {BASELINE} in test {metric_of(runs)} (percentage points)")
    axes.set_title(with_seeds(dataset, runs), loc="left")
    return figure
