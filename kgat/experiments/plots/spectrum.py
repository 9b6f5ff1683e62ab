r"""The singular values of the Gram matrix: the median of the heads and their range."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from kgat.experiments.plots.look import WIDTH, power_of_ten, shortened
from kgat.experiments.plots.plot import Looks, plot
from kgat.experiments.plots.selection import Chosen, finite_numbers, with_field


@plot(with_field("attention", "spectrum"), order=80)
def spectrum(chosen: Chosen, looks: Looks, dataset: str) -> Figure | None:
    r"""Spectrum of the Gram matrix.

    Singular values of K = exp(score) between the queries and keys of the first layer on a fixed random sample
    of nodes, divided by the largest. The line is the median over the heads, the band (with up to four models)
    their range. The rank in the legend is the effective rank (Roy and Vetterli, 2007), the exponential of the
    entropy of the singular values: near 1, one direction, which may be one node of large norm, is all of K.
    """
    height = max(3.6, 0.19 * len(chosen) + 0.4)  # of the legend, if there are many
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    floor = 1e-7  # single precision: what lies below is rounding
    lowest = 1.0
    for model, record in chosen.items():
        values = np.maximum(np.array(record["spectrum"], dtype=float), floor)  # [H, n]
        index = np.arange(1, values.shape[1] + 1)
        middle = np.median(values, axis=0)
        lowest = min(lowest, float(middle.min()))
        ranks = finite_numbers(record.get("effective_rank"))
        label = shortened(model)
        if ranks.size:
            label += f"  (rank {np.median(ranks):.1f})"
        look = looks[model]
        if len(chosen) <= 4:  # more bands than that hide one another
            lowest = min(lowest, float(values.min()))
            axes.fill_between(index, values.min(0), values.max(0), color=look.color, alpha=0.12, linewidth=0)
        marker = look.marker if index.size == 1 else None
        axes.plot(index, middle, color=look.color, linestyle=look.line, marker=marker, label=label)
    axes.set_yscale("log")
    axes.set_ylim(max(floor, lowest / 2), 1.5)
    axes.yaxis.set_major_formatter(FuncFormatter(power_of_ten))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel("index of the singular value")
    axes.set_ylabel("singular value / largest")
    axes.grid(True)
    figure.legend(loc="outside right upper", handlelength=2.6)
    nodes = next(iter(chosen.values())).get("nodes_sampled")
    sample = f": Gram matrix of {nodes} nodes" if nodes else ""
    axes.set_title(f"{dataset}{sample}", loc="left")
    return figure
