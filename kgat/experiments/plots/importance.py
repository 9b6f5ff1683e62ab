r"""What the L^p magnitude of a node adds to every score, against its number of in-edges."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from kgat.experiments.plots.look import CLASS_COLORS, UNLABELLED, Style, figure_of_panels, headline, shortened
from kgat.experiments.plots.plot import plot
from kgat.experiments.plots.selection import Record, with_field


@plot(
    with_field("attention", "importance"),
    order=110,
    title="Importance of nodes",
    caption="What the L^p magnitude of a node adds to the score of every edge that leaves it (mean over "
    "heads) against its number of in-edges with the self-loop, for up to 200 random nodes.",
)
def importance(chosen: Mapping[str, Record], looks: Mapping[str, Style], dataset: str) -> Figure | None:
    columns = min(3, len(chosen))
    figure, grid = figure_of_panels(len(chosen), columns, 2.4)
    for number, (axes, (model, record)) in enumerate(zip(grid, chosen.items(), strict=True)):
        one = record["importance"]
        value, degree = np.array(one["value"], dtype=float), np.array(one["degree"], dtype=float)
        labels = one.get("labels") or [-1] * value.size
        colors = [CLASS_COLORS[label % len(CLASS_COLORS)] if label >= 0 else UNLABELLED for label in labels]
        axes.scatter(np.maximum(degree, 0.8), value, c=colors, s=7, alpha=0.7, linewidths=0)
        axes.set_xscale("log")
        few = degree.max() < 40 * max(1.0, degree.min())
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_title(shortened(model, 24), fontsize=9.5)
        axes.grid(True)
        if number % columns == 0:
            axes.set_ylabel("added to the score")
        if number + columns >= len(chosen):
            axes.set_xlabel("in-edges")
    headline(figure, f"{dataset}: importance of nodes, coloured by class")
    return figure
