r"""The kernel of each head as a function of the distance between query and key."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kgat.experiments.plots.look import Style, figure_of_panels, headline, shaded, shortened
from kgat.experiments.plots.plot import plot
from kgat.experiments.plots.selection import Record, with_field


@plot(
    with_field("attention", "profile"),
    order=60,
    title="Kernel profile",
    caption="How the learned kernel of the first layer changes when a key moves away from a query: from 8 "
    "queries of real nodes, 32 random directions each. A line is the median for one head, "
    "relative to distance zero on the same line (or to the largest median, where the axis says "
    "so). The band is the 10 % to 90 % quantile over queries and directions, over all heads: a "
    "kernel of the distance alone has none for a single head.",
)
def profile(chosen: Mapping[str, Record], looks: Mapping[str, Style], dataset: str) -> Figure | None:
    columns = 3 if len(chosen) > 2 else 2
    figure, grid = figure_of_panels(len(chosen), columns, 2.2)
    for number, (axes, (model, record)) in enumerate(zip(grid, chosen.items(), strict=True)):
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
        axes.set_title(shortened(model, 24), fontsize=9.5)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.grid(True)
        axes.set_ylabel("k(r) / k(0)" if curve.get("normalised") != "maximum" else "k(r) / max k")
        if number + columns >= len(chosen):
            axes.set_xlabel("distance r = ‖q − k‖")
    headline(figure, f"{dataset}: one line per head")
    return figure
