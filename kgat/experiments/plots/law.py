r"""The frequencies of spectral kernels: samples per head in their leading plane, and both marginals."""

import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kgat.experiments.plots.look import WIDTH, headline, shaded, shortened
from kgat.experiments.plots.plot import Looks, plot
from kgat.experiments.plots.selection import Chosen, with_field


@plot(with_field("attention", "law"), order=90)
def law(chosen: Chosen, looks: Looks, dataset: str) -> Figure | None:
    r"""Spectral law.

    Frequencies of the first layer's kernel in the plane of their two leading principal axes, which all heads
    share, with the histograms of both coordinates. A kernel that samples its frequencies is shown by new
    draws, one with free frequencies by these and their mirror images.
    """
    columns = min(3, len(chosen))
    rows = math.ceil(len(chosen) / columns)
    figure = Figure(figsize=(WIDTH, 2.9 * rows + 0.4), layout="constrained")
    grid = figure.add_gridspec(rows, columns)
    for number, (model, record) in enumerate(chosen.items()):
        one = record["law"]
        inner = grid[divmod(number, columns)].subgridspec(
            2, 2, width_ratios=(4, 1), height_ratios=(1, 4), hspace=0.02, wspace=0.02
        )
        main = figure.add_subplot(inner[1, 0])
        top = figure.add_subplot(inner[0, 0], sharex=main)
        right = figure.add_subplot(inner[1, 1], sharey=main)
        heads = np.array(one["frequencies"], dtype=float)  # [H, n, 2]
        # All of them are in the frame, unless a law with heavy tails throws some far out.
        distances = np.abs(heads)
        limit = 1.05 * min(float(distances.max()), 2.0 * float(np.quantile(distances, 0.99))) or 1.0
        edges = np.linspace(-limit, limit, 14)
        middles = 0.5 * (edges[1:] + edges[:-1])
        for head, shade in zip(heads, shaded(looks[model].color, len(heads)), strict=True):
            main.plot(head[:, 0], head[:, 1], ".", color=shade, ms=2.6, alpha=0.6, mew=0)
            for axes, axis in ((top, 0), (right, 1)):
                counts, _ = np.histogram(head[:, axis], edges, density=True)
                line = (middles, counts) if axes is top else (counts, middles)
                axes.plot(*line, color=shade, linewidth=0.9)
        main.set(xlim=(-limit, limit), ylim=(-limit, limit))
        for axes in (top, right):
            axes.axis("off")
        top.set_title(shortened(model, 18), fontsize=9)
        main.set_xlabel(f"{100 * one['share']:.0f} % of variance", fontsize=8)
        main.xaxis.set_major_locator(MaxNLocator(3, symmetric=True))
        main.yaxis.set_major_locator(MaxNLocator(3, symmetric=True))
        main.grid(True)
    headline(figure, f"{dataset}: frequencies along their two leading axes, one shade per head")
    return figure
