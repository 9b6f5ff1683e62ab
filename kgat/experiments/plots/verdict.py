r"""Where a family of kernels wins: its difference to the stock layer, graph by graph."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from kgat.experiments.plots.look import INK, PALETTE, Style, figure_of_scores
from kgat.experiments.plots.plot import Looks, plot
from kgat.experiments.plots.selection import Record, half_width
from kgat.experiments.verdict import Verdict, verdicts

COLORS = {"win": PALETTE[2], "loss": PALETTE[1], "tie": INK, "open": "#888888"}


def _judged(records: Sequence[Record], dataset: str | None) -> tuple[list[Verdict], set[str]] | None:
    judged = [verdict for verdict in verdicts(records) if verdict.differences]
    nearest = {
        record["dataset"] for record in records if record.get("kind") == "graph" and record.get("nearest")
    }
    return (judged, nearest) if any(verdict.measure.percent for verdict in judged) else None


@plot(_judged)
def verdict(found: tuple[Sequence[Verdict], set[str]], looks: Looks, dataset: str) -> Figure:
    r"""Difference of the kernel family to the stock layer that validation prefers.

    Dots are seeds, or the means of a split where there are several, the bar is the 95 % interval of the mean;
    graphs from the largest gain to the largest loss.
    Green and orange are significant after Holm's adjustment over graphs; grey has too few of them for a test.
    Diamonds are graphs whose edges join nearest points. Graphs whose metric is no percentage are left out.
    """
    judged, nearest = found
    percent = [v for v in judged if v.measure.percent]
    ordered = sorted(percent, key=lambda v: -float(np.mean(v.differences)))
    differences = {v.dataset: 100 * np.array(v.differences) for v in ordered}
    of_graphs = {
        v.dataset: Style(COLORS[v.outcome], "D" if v.dataset in nearest else "o", "-") for v in ordered
    }

    def text(values: np.ndarray) -> str:
        mean, half = values.mean(), half_width(values)
        ends = "" if half is None else f"  [{mean - half:+.1f}, {mean + half:+.1f}]"
        return f"{mean:+.1f}{ends}".replace("-", "−")

    figure, axes = figure_of_scores(differences, of_graphs, "mean [95 %]", text, reference=0)
    colors = {"win": "green: significantly better", "loss": "orange: significantly worse"}
    seen = {v.outcome for v in ordered}
    key = ["one dot: a split or seed"]
    key += [f"{said}, after Holm" for outcome, said in colors.items() if outcome in seen]
    key += ["diamonds: edges join nearest points"] * bool(nearest & set(differences))
    left = [v.dataset for v in judged if not v.measure.percent]
    key += [f"left out, no percentage: {', '.join(left)}"] * bool(left)
    axes.set_xlabel(
        "kernel family minus stock layer, percentage points of the test metric\n"
        + "\n".join(textwrap.wrap("; ".join(key), 90))
    )
    return figure
