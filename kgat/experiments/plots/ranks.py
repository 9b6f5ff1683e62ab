r"""Numerical rank of trained kernels beside test scores."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from kgat.experiments.plots.look import WIDTH
from kgat.experiments.plots.plot import Looks, plot
from kgat.experiments.plots.selection import Record, models_of


@plot(lambda records, _: [record for record in records if record.get("kind") == "rank"])
def ranks(records: Sequence[Record], looks: Looks, dataset: str) -> Figure:
    r"""A dot per seed, and the mean of a model."""
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = figure.subplots()
    for model in models_of(records):
        points = np.array([(r["rank"], r["test"]) for r in records if r["model"] == model], dtype=float)
        look = looks[model]
        axes.plot(*points.T, "o", color=look.color, ms=4, alpha=0.5, mew=0)
        axes.plot(*points.mean(axis=0), look.marker, color=look.color, ms=8, mec="white", label=model)
    axes.set(xlabel=records[0]["what"], ylabel=records[0]["unit"])
    axes.grid(True)
    figure.legend(loc="outside right center")
    return figure
