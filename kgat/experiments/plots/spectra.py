r"""Which share of the sum of all singular values the largest hold, layer by layer, as
:func:`kgat.diagnostics.spectra_record` stores it: steep curves mean low rank."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kgat.experiments.plots.look import Style, figure_of_panels, headline, shaded, shortened
from kgat.experiments.plots.plot import plot
from kgat.experiments.plots.selection import Record, with_field


@plot(with_field("spectra", "layers"))
def spectra(chosen: Mapping[str, Record], looks: Mapping[str, Style], dataset: str) -> Figure | None:
    columns = min(3, len(chosen))
    figure, grid = figure_of_panels(len(chosen), columns, 2.4)
    longest = max(len(curve) for record in chosen.values() for curve in record["layers"])
    for number, (axes, (model, record)) in enumerate(zip(grid, chosen.items(), strict=True)):
        layers = record["layers"]
        shades = shaded(looks[model].color, len(layers))
        for place, (curve, shade) in enumerate(zip(layers, shades, strict=True)):
            marker = "o" if len(curve) == 1 else None
            label = f"layer {place + 1}" if place in (0, len(layers) - 1) else None
            axes.plot(np.arange(1, len(curve) + 1), curve, color=shade, marker=marker, ms=3, label=label)
        axes.set_xlim(0, longest + 1)
        axes.set_ylim(0, 1.03)
        axes.set_title(shortened(model, 24), fontsize=9.5)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.grid(True)
        axes.legend(loc="lower right")
        if number % columns == 0:
            axes.set_ylabel("share of the sum")
        if number + columns >= len(chosen):
            axes.set_xlabel("singular values")
    headline(figure, f"{dataset}: the largest singular values of attention, one line per layer")
    return figure
