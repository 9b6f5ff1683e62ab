r"""The kernel as an image: the Gram matrix of a few nodes, sorted by class, of the first heads."""

import numpy as np
from matplotlib.figure import Figure

from kgat.experiments.plots.look import WIDTH, headline, shortened
from kgat.experiments.plots.plot import Looks, plot
from kgat.experiments.plots.selection import Chosen, finite_numbers, with_field


@plot(with_field("attention", "image"), order=70)
def image(chosen: Chosen, looks: Looks, dataset: str) -> Figure | None:
    r"""The kernel as an image.

    exp(score) between the queries (rows) and keys (columns) of 24 random nodes of the first layer, sorted by
    class (white lines), divided by the largest, for two heads.
    """
    columns = max(len(record["image"]["values"]) for record in chosen.values())
    figure = Figure(figsize=(WIDTH, 1.75 * len(chosen) + 0.5), layout="constrained")
    grid = figure.subplots(len(chosen), columns, squeeze=False)
    for place, (row, (model, record)) in enumerate(zip(grid, chosen.items(), strict=True)):
        one = record["image"]
        borders = np.flatnonzero(np.diff(one["labels"])) + 0.5 if one["labels"] else np.empty(0)
        # A kernel near 1 everywhere has shades too.
        lowest = min(float(finite_numbers(one["values"]).min()), 0.99)
        for number, axes in enumerate(row):
            if number >= len(one["values"]):
                axes.axis("off")
                continue
            values = np.array(one["values"][number], dtype=float)
            shown = axes.imshow(values, cmap="viridis", vmin=lowest, vmax=1)
            for border in borders:
                axes.axhline(border, color="white", linewidth=0.5, alpha=0.7)
                axes.axvline(border, color="white", linewidth=0.5, alpha=0.7)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            if number == 0:
                axes.set_ylabel(shortened(model, 18), fontsize=8.5)
            if place == 0:
                axes.set_title(f"head {number + 1}", fontsize=9)
        figure.colorbar(shown, ax=list(row), label="k / largest")
    headline(figure, f"{dataset}: kernel between nodes, sorted by class")
    return figure
