r"""The error of the Fourier integral estimator of a density, against its inverse bandwidth."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from kgat.experiments.plots.look import PALETTE, figure_of_grid, plain_log, shaded
from kgat.experiments.plots.plot import Looks, plot
from kgat.experiments.plots.selection import Record


@plot(lambda records, _: [record for record in records if record.get("kind") == "density"])
def density(records: Sequence[Record], looks: Looks, dataset: str) -> Figure:
    r"""Mean integrated squared error over draws of the data; a ring marks the best R of each size."""
    panels = sorted({(record["channels"], record["power"]) for record in records})
    figure, grid = figure_of_grid(len(panels), 2, 2.5, sharey="row", sharex="row")
    for place, (axes, (channels, power)) in enumerate(zip(grid, panels, strict=True)):
        chosen = [r for r in records if (r["channels"], r["power"]) == (channels, power)]
        sizes = sorted({record["size"] for record in chosen})
        for size, shade in zip(sizes, shaded(PALETTE[0], len(sizes))[::-1], strict=True):
            draws = [record for record in chosen if record["size"] == size]
            x, mean = draws[0]["bandwidths"], np.mean([record["errors"] for record in draws], axis=0)
            best = int(mean.argmin())
            axes.plot(x, mean, color=shade, label=f"N = {size:,}")
            axes.plot(x[best], mean[best], "o", ms=7, mfc="none", mec=shade)
        plain_log(axes)
        axes.set(yscale="log", xlabel="R", ylabel="" if place % 2 else "mean integrated squared error")
        axes.set_title(f"D = {channels}, power {power}", loc="left", fontsize=9.5)
        axes.grid(True)
        if place % 2:
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
