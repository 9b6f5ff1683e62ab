r"""A number of each attention module of trained models, beside that of others."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kgat.experiments.plots.look import figure_of_grid, shortened
from kgat.experiments.plots.plot import Looks, plot
from kgat.experiments.plots.selection import Record, datasets, models_of


@plot(lambda records, _: [record for record in records if record.get("kind") == "layer value"])
def layer_values(records: Sequence[Record], looks: Looks, dataset: str) -> Figure:
    r"""A dot per seed and their mean, layer by layer."""
    names, models = datasets(records), models_of(records)
    figure, grid = figure_of_grid(len(names), min(3, len(names)), 2.1, more=0.8)
    for place, (axes, name) in enumerate(zip(grid, names, strict=True)):
        for number, model in enumerate(models):
            runs = [r["values"] for r in records if (r["dataset"], r["model"]) == (name, model)]
            if not runs:
                continue
            values, look = np.array(runs, dtype=float), looks[model]
            x = np.arange(1, values.shape[1] + 1) + 0.12 * (number - 0.5 * (len(models) - 1))
            for run in values:
                axes.plot(x, run, "o", color=look.color, ms=3, alpha=0.5, mew=0)
            axes.plot(x, values.mean(axis=0), look.marker, color=look.color, ms=7, mec="white", label=model)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(0.5, values.shape[1] + 0.5)
        axes.set_title(shortened(name), fontsize=9.5, loc="left")
        axes.set(xlabel="layer", ylabel=records[0]["what"] if place % 3 == 0 else "")
        axes.grid(True, axis="y")
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure
