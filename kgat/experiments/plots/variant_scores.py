r"""Test scores of variants on several data sets, each on its own scale."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from kgat.experiments.plots.look import dots_and_interval, figure_of_grid, name_rows, shortened
from kgat.experiments.plots.plot import Looks, plot
from kgat.experiments.plots.selection import Record, datasets, models_of


@plot(lambda records, _: [record for record in records if record.get("kind") == "variant score"])
def variant_scores(records: Sequence[Record], looks: Looks, dataset: str) -> Figure:
    r"""A dot per seed, their mean and its 95 % t-interval."""
    names, models = datasets(records), models_of(records)
    columns = min(2, len(names))
    figure, grid = figure_of_grid(len(names), columns, 0.3 * len(models) + 0.75)
    for place, (axes, name) in enumerate(zip(grid, names, strict=True)):
        of_set = [record for record in records if record["dataset"] == name]
        for row, model in enumerate(models):
            values = np.array([r["test"] for r in of_set if r["model"] == model], dtype=float)
            if values.size:
                dots_and_interval(axes, row, values, looks[model])
        name_rows(axes, models if place % columns == 0 else [""] * len(models))
        axes.set_title(f"{shortened(name)}, {of_set[0]['unit']}", fontsize=9.5, loc="left")
        axes.grid(True, axis="x")
    return figure
