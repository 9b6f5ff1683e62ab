r"""How evenly each head spreads its attention, per layer: one is uniform."""

import math

import numpy as np
from matplotlib.figure import Figure

from kgat.experiments.plots.look import figure_of_grid, headline, name_rows
from kgat.experiments.plots.plot import Looks, plot
from kgat.experiments.plots.selection import Chosen, finite_numbers, with_field


@plot(with_field("attention", "layers"), order=50)
def entropy(chosen: Chosen, looks: Looks, dataset: str) -> Figure | None:
    r"""Entropy of attention.

    Entropy of the weights of a node, divided by the logarithm of its number of in-edges: 1 is uniform
    attention (a plain mean), 0 is attention to one neighbour. Markers are heads (mean over the nodes with two
    or more in-edges, self-loops included); the shape behind is the histogram over nodes and heads.
    """
    of_models = {
        model: record["layers"]
        for model, record in chosen.items()
        if any(finite_numbers(layer["entropy"]).size for layer in record.get("layers") or [])
    }
    if not of_models:
        return None
    depth = max(map(len, of_models.values()))
    figure, grid = figure_of_grid(depth, min(depth, 2), 0.34 * len(of_models) + 0.9, more=0.4, sharey=True)
    everything = [finite_numbers(layer["entropy"]) for layers in of_models.values() for layer in layers]
    low = min((values.min() for values in everything if values.size), default=0.0)
    for number, axes in enumerate(grid):
        for row, (model, layers) in enumerate(of_models.items()):
            if number >= len(layers):
                continue
            layer, look = layers[number], looks[model]
            counts = np.array(layer.get("histogram") or [], dtype=float)
            if counts.sum() > 0:
                edges = np.linspace(0, 1, counts.size + 1)
                height = 0.42 * np.append(counts, counts[-1]) / counts.max()
                band = (row - height, row + height)
                axes.fill_between(edges, *band, step="post", color=look.color, alpha=0.18, lw=0)
                share = np.cumsum(counts) / counts.sum()
                low = min(low, edges[int(np.argmax(share >= 0.05))])
            values = finite_numbers(layer["entropy"])
            heights = np.full(values.size, row)
            axes.plot(values, heights, look.marker, color=look.color, ms=5, mec="white", mew=0.6, alpha=0.9)
        axes.set_title(f"layer {number + 1}", loc="left")
        axes.set_xlabel("normalised entropy (1 = uniform)")
        axes.grid(True, axis="x")
        name_rows(axes, list(of_models))
    left = max(0.0, math.floor(10 * (low - 0.02)) / 10)
    for axes in grid:
        axes.set_xlim(left, 1 + 0.03 * (1 - left))
    headline(figure, dataset)
    return figure
