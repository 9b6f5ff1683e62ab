r"""How a copula ties the heads of a layer: the mean correlation over channels."""

import numpy as np
from matplotlib.figure import Figure

from kgat.experiments.plots.look import figure_of_panels, headline
from kgat.experiments.plots.plot import Looks, plot
from kgat.experiments.plots.selection import Chosen, with_field


@plot(with_field("attention", "head_correlation"), order=100)
def heads(chosen: Chosen, looks: Looks, dataset: str) -> Figure | None:
    r"""Correlation of heads.

    The correlation matrix of the copula that ties the noise of the heads, the mean over channels.
    """
    columns = min(3, len(chosen))
    figure, panels = figure_of_panels(chosen, 2.2, columns, width=2.1 * columns + 0.9)
    for axes, _, record in panels:
        matrix = record["head_correlation"]
        image = axes.imshow(np.array(matrix, dtype=float), cmap="RdBu_r", vmin=-1, vmax=1)
        names = [str(head + 1) for head in range(len(matrix))]
        axes.set_xticks(range(len(matrix)), names)
        axes.set_yticks(range(len(matrix)), names)
        axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=[axes for axes, *_ in panels], label="correlation", shrink=0.8)
    headline(figure, f"{dataset}: correlation of heads")
    return figure
