r"""Where a family of kernels wins: its difference to the stock layer, graph by graph."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from kgat.experiments.plots.look import INK, PALETTE, Style, figure_of_scores
from kgat.experiments.plots.plot import Looks, plot
from kgat.experiments.plots.selection import half_width
from kgat.experiments.verdict import Verdict, verdicts

COLORS = {"win": PALETTE[2], "loss": PALETTE[1], "tie": INK, "open": "#888888"}


@plot(lambda records, _: [v for v in verdicts(records) if v.measure.percent and v.differences])
def verdict(judged: Sequence[Verdict], looks: Looks, dataset: str) -> Figure:
    r"""Difference of the kernel family to the stock layer that validation prefers.

    Dots are seeds, or the means of a split where there are several, the bar is the 95 % interval of the mean;
    graphs from the largest gain to the largest loss.
    Green and orange are significant after Holm's adjustment over graphs; grey has too few of them for a test.
    Graphs whose metric is no percentage are left out.
    """
    ordered = sorted(judged, key=lambda v: -float(np.mean(v.differences)))
    differences = {v.dataset: 100 * np.array(v.differences) for v in ordered}
    of_graphs = {v.dataset: Style(COLORS[v.outcome], "o", "-") for v in ordered}

    def text(values: np.ndarray) -> str:
        mean, half = values.mean(), half_width(values)
        ends = "" if half is None else f"  [{mean - half:+.1f}, {mean + half:+.1f}]"
        return f"{mean:+.1f}{ends}".replace("-", "−")

    figure, axes = figure_of_scores(differences, of_graphs, "mean [95 %]", text, reference=0)
    axes.set_xlabel("kernel family minus stock layer, percentage points of the test metric")
    return figure
