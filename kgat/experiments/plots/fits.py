r"""The curves that models fitted to a series, with two standard deviations where a model has some."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kgat.experiments.plots.look import INK, figure_of_grid, headline, shortened
from kgat.experiments.plots.plot import Looks, plot
from kgat.experiments.plots.selection import Chosen, with_field


@plot(with_field("regression", "curve"))
def fits(chosen: Chosen, looks: Looks, dataset: str) -> Figure | None:
    r"""Fitted curves of the first seed, with two standard deviations where a model has some."""
    figure, grid = figure_of_grid(len(chosen), 1, 1.35, more=0.6, sharex=True)
    for axes, (model, record) in zip(grid, chosen.items(), strict=True):
        curve, color = record["curve"], looks[model].color
        x, y, mean = (np.array(curve[name], dtype=float) for name in ("x", "y", "mean"))
        test = np.array(curve["part"]) == "test"
        axes.plot(x, mean, color=color, linewidth=1.0, label="fitted")
        if curve.get("std"):
            std = np.array(curve["std"], dtype=float)
            axes.fill_between(x, mean - 2 * std, mean + 2 * std, color=color, alpha=0.25, linewidth=0)
        axes.plot(x[~test], y[~test], ".", color=INK, ms=1.8, mew=0, label="known")
        axes.plot(x[test], y[test], "x", color="#d62728", ms=3, mew=0.8, label="test")
        axes.set_ylabel(record["unit"])
        axes.set_title(shortened(model, 30), fontsize=9, loc="left", pad=2)
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.grid(True)
    grid[-1].set_xlabel("year")  # of every series there is
    grid[0].legend(loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=3, borderaxespad=0.0)
    headline(figure, f"{dataset}: bands are two standard deviations over draws (GP: posterior)")
    return figure
