r"""Which share of the sum of all singular values the largest hold, layer by layer, as
:func:`kgat.diagnostics.spectra_record` stores it: steep curves mean low rank."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kgat.experiments.plots.look import figure_of_panels, headline, shaded
from kgat.experiments.plots.plot import Looks, plot
from kgat.experiments.plots.selection import Chosen, with_field


@plot(with_field("spectra", "layers"))
def spectra(chosen: Chosen, looks: Looks, dataset: str) -> Figure | None:
    r"""Singular values of attention, as :func:`kgat.diagnostics.spectra_record` stores them."""
    figure, panels = figure_of_panels(chosen, 2.4, x="singular values", y="share of the sum")
    longest = max(len(curve) for record in chosen.values() for curve in record["layers"])
    for axes, model, record in panels:
        layers = record["layers"]
        shades = shaded(looks[model].color, len(layers))
        for place, (curve, shade) in enumerate(zip(layers, shades, strict=True)):
            marker = "o" if len(curve) == 1 else None
            label = f"layer {place + 1}" if place in (0, len(layers) - 1) else None
            axes.plot(np.arange(1, len(curve) + 1), curve, color=shade, marker=marker, ms=3, label=label)
        axes.set_xlim(0, longest + 1)
        axes.set_ylim(0, 1.03)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.grid(True)
        axes.legend(loc="lower right")
    headline(figure, f"{dataset}: the largest singular values of attention, one line per layer")
    return figure
