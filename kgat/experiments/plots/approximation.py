r"""How near feature maps come to their kernels, against the number of features."""

from collections.abc import Sequence
from itertools import product

import numpy as np
from matplotlib.figure import Figure

from kgat.experiments.plots.look import WIDTH, plain_log
from kgat.experiments.plots.plot import Looks, plot
from kgat.experiments.plots.selection import Record, models_of

TITLES = {"kernel": "of the Gram matrix, relative", "attention": "of attention, total variation"}


@plot(lambda records, _: [record for record in records if record.get("kind") == "approximation"])
def approximation(records: Sequence[Record], looks: Looks, dataset: str) -> Figure:
    r"""Median error over draws against the number of features, and the middle half of the draws."""
    scales = sorted({record["scale"] for record in records})
    figure = Figure(figsize=(WIDTH, 2.4 * len(scales) + 1.2), layout="constrained")
    grid = figure.subplots(len(scales), 2, sharex=True, squeeze=False)
    for (row, scale), (column, name) in product(enumerate(scales), enumerate(TITLES)):
        axes = grid[row, column]
        for model in models_of(records):
            draws = [r for r in records if (r["model"], r["scale"]) == (model, scale)]
            low, middle, high = np.quantile([record[name] for record in draws], [0.25, 0.5, 0.75], axis=0)
            look, x = looks[model], draws[0]["features"]
            axes.plot(x, middle, color=look.color, marker=look.marker, ms=3.5, ls=look.line, label=model)
            axes.fill_between(x, low, high, color=look.color, alpha=0.15, linewidth=0)
        plain_log(axes)
        axes.set(yscale="log", xlabel="features" if row == len(scales) - 1 else "")
        axes.set_ylabel("" if column else f"tokens of deviation {scale:g}")
        axes.set_title("" if row else f"error {TITLES[name]}", loc="left", fontsize=9.5)
        axes.grid(True)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
