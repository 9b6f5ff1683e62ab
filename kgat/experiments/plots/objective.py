r"""The objective of the asymmetric kernel SVD, epoch by epoch."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from kgat.experiments.plots.look import figure_of_grid, shortened
from kgat.experiments.plots.plot import Looks, plot
from kgat.experiments.plots.selection import Record, datasets, models_of


@plot(lambda records, _: [record for record in records if record.get("kind") == "objective"])
def objective(records: Sequence[Record], looks: Looks, dataset: str) -> Figure:
    r"""Root mean square of J on validation sequences, a line per seed."""
    names = datasets(records)
    figure, grid = figure_of_grid(len(names), min(2, len(names)), 2.2, more=0.8)
    for place, (axes, name) in enumerate(zip(grid, names, strict=True)):
        for model in models_of(records):
            runs = [r["ksvd"] for r in records if (r["dataset"], r["model"]) == (name, model)]
            for number, curve in enumerate(runs):
                look = looks[model]
                label = None if number else model
                axes.plot(np.arange(1, len(curve) + 1), curve, color=look.color, ls=look.line, label=label)
        axes.set(yscale="log", xlabel="epoch", ylabel="" if place % 2 else "J, root mean square")
        axes.set_title(shortened(name), fontsize=9.5, loc="left")
        axes.grid(True)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure
