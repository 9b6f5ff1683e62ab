r"""How evenly each head spreads its attention, per layer: one is uniform."""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from kgat.experiments.plots.look import WIDTH, Style, headline, name_rows
from kgat.experiments.plots.plot import plot
from kgat.experiments.plots.selection import Record, finite_numbers, with_field


@plot(
    with_field("attention", "layers"),
    order=50,
    title="Entropy of attention",
    caption="Entropy of the weights of a node, divided by the logarithm of its number of in-edges: 1 is "
    "uniform attention (a plain mean), 0 is attention to one neighbour. Markers are heads (mean "
    "over the nodes with two or more in-edges, self-loops included); the shape behind is the "
    "histogram over nodes and heads.",
)
def entropy(chosen: Mapping[str, Record], looks: Mapping[str, Style], dataset: str) -> Figure | None:
    found = {
        model: record["layers"]
        for model, record in chosen.items()
        if any(finite_numbers(layer["entropy"]).size for layer in record.get("layers") or [])
    }
    if not found:
        return None
    depth = max(map(len, found.values()))
    columns = min(depth, 2)
    rows = math.ceil(depth / columns)
    figure = Figure(figsize=(WIDTH, rows * (0.34 * len(found) + 0.9) + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    everything = [finite_numbers(layer["entropy"]) for layers in found.values() for layer in layers]
    low = min((values.min() for values in everything if values.size), default=0.0)
    for depth_of_panel, axes in enumerate(grid):
        if depth_of_panel >= depth:
            axes.axis("off")
            continue
        for row, (model, layers) in enumerate(found.items()):
            if depth_of_panel >= len(layers):
                continue
            layer = layers[depth_of_panel]
            color = looks[model].color
            counts = np.array(layer.get("histogram") or [], dtype=float)
            if counts.sum() > 0:
                edges = np.linspace(0, 1, counts.size + 1)
                height = 0.42 * np.append(counts, counts[-1]) / counts.max()
                axes.fill_between(
                    edges, row - height, row + height, step="post", color=color, alpha=0.18, lw=0
                )
                share = np.cumsum(counts) / counts.sum()
                low = min(low, edges[int(np.argmax(share >= 0.05))])
            values = finite_numbers(layer["entropy"])
            axes.plot(
                values, np.full(values.size, row), looks[model].marker, color=color, ms=5,
                mec="white", mew=0.6, alpha=0.9,
            )  # fmt: skip
        axes.set_title(f"layer {depth_of_panel + 1}", loc="left")
        axes.set_xlabel("normalised entropy (1 = uniform)")
        axes.grid(True, axis="x")
        name_rows(axes, list(found))
    left = max(0.0, math.floor(10 * (low - 0.02)) / 10)
    for axes in grid:
        axes.set_xlim(left, 1 + 0.03 * (1 - left))
    headline(figure, dataset)
    return figure
