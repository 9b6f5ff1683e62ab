r"""How a copula ties the heads of a layer: the mean correlation over channels."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from kgat.experiments.plots.look import Style, figure_of_panels, headline, shortened
from kgat.experiments.plots.plot import plot
from kgat.experiments.plots.selection import Record, with_field


@plot(
    with_field("attention", "head_correlation"),
    order=100,
    title="Correlation of heads",
    caption="The correlation matrix of the copula that ties the noise of the heads, the mean over channels.",
)
def heads(chosen: Mapping[str, Record], looks: Mapping[str, Style], dataset: str) -> Figure | None:
    columns = min(3, len(chosen))
    figure, grid = figure_of_panels(len(chosen), columns, 2.2, width=2.1 * columns + 0.9)
    for axes, (model, record) in zip(grid, chosen.items(), strict=True):
        matrix = record["head_correlation"]
        image = axes.imshow(np.array(matrix, dtype=float), cmap="RdBu_r", vmin=-1, vmax=1)
        ticks = range(len(matrix))
        axes.set_xticks(ticks, [str(head + 1) for head in ticks])
        axes.set_yticks(ticks, [str(head + 1) for head in ticks])
        axes.set_title(shortened(model, 24), fontsize=9.5)
        axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=grid, label="correlation", shrink=0.8)
    headline(figure, f"{dataset}: correlation of heads")
    return figure
