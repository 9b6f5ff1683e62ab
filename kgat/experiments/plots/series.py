r"""Figures of regression."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kgat.experiments.plots.draw import styled
from kgat.experiments.plots.look import INK, PALETTE, WIDTH, headline, shortened
from kgat.experiments.plots.selection import Record


@styled
def fits(records: Sequence[Record], dataset: str | None = None) -> Figure | None:
    r"""The curves that models fitted to a series, with two standard deviations where a model has some."""
    found = {
        record["model"]: record["curve"]
        for record in records
        if record.get("kind") == "regression" and record.get("dataset") == dataset and record.get("curve")
    }
    if not found:
        return None
    unit = next(record["unit"] for record in records if record.get("dataset") == dataset)
    rows = len(found)
    figure = Figure(figsize=(WIDTH, 1.35 * rows + 0.6), layout="constrained")
    grid = figure.subplots(rows, 1, sharex=True, squeeze=False).flatten()
    for number, (axes, (model, curve)) in enumerate(zip(grid, found.items(), strict=True)):
        color = PALETTE[number % len(PALETTE)]
        x, y, mean = (np.array(curve[name], dtype=float) for name in ("x", "y", "mean"))
        test = np.array(curve["part"]) == "test"
        axes.plot(x, mean, color=color, linewidth=1.0, label="fitted")
        if curve.get("std"):
            std = np.array(curve["std"], dtype=float)
            axes.fill_between(x, mean - 2 * std, mean + 2 * std, color=color, alpha=0.25, linewidth=0)
        axes.plot(x[~test], y[~test], ".", color=INK, ms=1.8, mew=0, label="known")
        axes.plot(x[test], y[test], "x", color="#d62728", ms=3, mew=0.8, label="test")
        axes.set_ylabel(unit)
        axes.set_title(shortened(model, 30), fontsize=9, loc="left", pad=2)
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.grid(True)
    grid[-1].set_xlabel("year")  # of every series there is
    grid[0].legend(loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=3, borderaxespad=0.0)
    headline(
        figure, f"{shortened(str(dataset))}: bands are two standard deviations over draws (GP: posterior)"
    )
    return figure
