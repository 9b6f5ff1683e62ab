r"""The kernel of each head as a function of the distance between query and key."""

import numpy as np
from matplotlib.figure import Figure

from kgat.experiments.plots.look import few_ticks, figure_of_panels, headline, shaded
from kgat.experiments.plots.plot import Looks, plot
from kgat.experiments.plots.selection import Chosen, with_field


@plot(with_field("attention", "profile"), order=60)
def profile(chosen: Chosen, looks: Looks, dataset: str) -> Figure | None:
    r"""Kernel profile.

    How the learned kernel of the first layer changes when a key moves away from a query: from 8 queries of
    real nodes, 32 random directions each. A line is the median for one head, relative to distance zero on the
    same line (or to the largest median, where the axis says so). The band is the 10 % to 90 % quantile over
    queries and directions, over all heads: a kernel of the distance alone has none for a single head.
    """
    figure, panels = figure_of_panels(chosen, 2.2, 3 if len(chosen) > 2 else 2, x="distance r = ‖q − k‖")
    for axes, model, record in panels:
        curve = record["profile"]
        distance, heads = np.array(curve["distance"]), curve["kernel"]
        color = looks[model].color
        lows, highs = curve.get("low") or heads, curve.get("high") or heads
        axes.fill_between(distance, np.min(lows, 0), np.max(highs, 0), color=color, alpha=0.15, linewidth=0)
        for head, shade in zip(heads, shaded(color, len(heads)), strict=True):
            axes.plot(distance, head, color=shade, linewidth=1.3)
        # The band of a kernel that grows exponentially may be a thousand times the median.
        axes.set_ylim(0, min(1.1 * np.max(highs), 2.0 * np.max(heads)) or 1.0)
        axes.set_xlim(0, distance[-1] or 1.0)
        few_ticks(axes.xaxis, 4)
        few_ticks(axes.yaxis, 4)
        axes.grid(True)
        axes.set_ylabel("k(r) / k(0)" if curve.get("normalised") != "maximum" else "k(r) / max k")
    headline(figure, f"{dataset}: one line per head")
    return figure
