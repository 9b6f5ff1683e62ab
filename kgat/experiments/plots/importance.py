r"""What the L^p magnitude of a node adds to every score, against its number of in-edges."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from kgat.experiments.plots.look import CLASS_COLORS, UNLABELLED, figure_of_panels, headline, plain_log
from kgat.experiments.plots.plot import Looks, plot
from kgat.experiments.plots.selection import Chosen, with_field


@plot(with_field("attention", "importance"), order=110)
def importance(chosen: Chosen, looks: Looks, dataset: str) -> Figure | None:
    r"""Importance of nodes.

    What the L^p magnitude of a node adds to the score of every edge that leaves it (mean over heads) against
    its number of in-edges with the self-loop, for up to 200 random nodes.
    """
    figure, panels = figure_of_panels(chosen, 2.4, x="in-edges", y="added to the score")
    for axes, _, record in panels:
        one = record["importance"]
        value, degree = np.array(one["value"], dtype=float), np.array(one["degree"], dtype=float)
        labels = one.get("labels") or [-1] * value.size
        colors = [CLASS_COLORS[label % len(CLASS_COLORS)] if label >= 0 else UNLABELLED for label in labels]
        axes.scatter(np.maximum(degree, 0.8), value, c=colors, s=7, alpha=0.7, linewidths=0)
        plain_log(axes)
        few = degree.max() < 40 * max(1.0, degree.min())
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.grid(True)
    headline(figure, f"{dataset}: importance of nodes, coloured by class")
    return figure
