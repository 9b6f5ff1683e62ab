r"""What layers and attention cores cost next to others, as graphs grow."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from kgat.experiments.bench.report import MEMORY, OURS, TIMES, WHATS
from kgat.experiments.plots.look import PALETTE, WIDTH, Style
from kgat.experiments.plots.plot import plot
from kgat.experiments.plots.selection import Record

# PyG's layers and what is written in their style look alike, and so do the compiled ones.
LOOKS = {
    OURS: ("ours", PALETTE[0], "o"),
    "PyG": ("PyG", PALETTE[1], "s"),
    "PyG style": ("PyG", PALETTE[1], "s"),
    "compiled PyG": ("PyG, torch.compile", PALETTE[2], "D"),
    "compiled PyG style": ("PyG, torch.compile", PALETTE[2], "D"),
    "compiled segments": ("segments, torch.compile", PALETTE[4], "^"),
    "DGL": ("DGL", PALETTE[3], "v"),
}
PANELS = 3  # side by side


def _measured(records: Sequence[Record], _: str | None) -> list[Record]:
    # On one kind of device, that of the first.
    measured = [r for r in records if r.get("kind") == "ops" and "skipped" not in r]
    return [record for record in measured if record["on"] == measured[0]["on"]]


@plot(_measured)
def ops(records: Sequence[Record], looks: Mapping[str, Style], dataset: str) -> Figure:
    r"""Draws time and peak memory of forward and backward against the number of edges, both on log scales."""
    subjects = list(dict.fromkeys(record["subject"] for record in records))
    blocks = [subjects[i : i + PANELS] for i in range(0, len(subjects), PANELS)]
    figure = Figure(figsize=(WIDTH, 0.6 + 3.2 * len(blocks)), layout="constrained")
    grid = figure.subplots(2 * len(blocks), min(PANELS, len(subjects)), squeeze=False, sharex=True)
    for axes in grid.flat:
        axes.set_visible(False)
    for number, block in enumerate(blocks):
        for column, subject in enumerate(block):
            for kind in (0, 1):
                axes = grid[2 * number + kind, column]
                axes.set_visible(True)
                _panel(axes, [r for r in records if r["subject"] == subject], bool(kind))
                if kind == 0:
                    axes.set_title(subject, loc="left")
                if column == 0:
                    axes.set_ylabel("peak memory, MB" if kind else "time, ms")
                axes.tick_params(labelbottom=bool(kind), labelleft=column == 0)
                if kind == 1:
                    axes.set_xlabel("edges")
    for kind in (0, 1):
        _same_decades([axes for axes in grid[kind::2].flat if axes.get_visible()])
    figure.legend(handles=list(_handles(records)), loc="outside upper center", ncols=3, handlelength=2.4)
    return figure


def _panel(axes: Axes, records: Sequence[Record], memory: bool) -> None:
    on = records[0]["on"]
    regimes = (MEMORY[on],) if memory else TIMES[on]
    lines: dict[tuple[str, str], dict[int, float]] = {}
    for record in records:
        if record["regime"] not in regimes or record["what"] not in ("memory", WHATS[1]):
            continue
        value = record.get("both_bytes") if memory else record["seconds"][0]
        if value:
            line = lines.setdefault((record["candidate"], record["regime"]), {})
            line[record["edges"]] = value / 1e6 if memory else 1e3 * value
    for (candidate, regime), points in lines.items():
        _, color, marker = LOOKS[candidate]
        x = sorted(points)
        first = regime == "R1"  # beside R2, which is the harder opponent
        axes.plot(
            x,
            [points[edges] for edges in x],
            color=color,
            marker=None if first and len(x) > 1 else marker,
            markersize=4.5,
            markerfacecolor="white" if first else color,
            linestyle=(0, (3, 2)) if first else "-",
            linewidth=1.0 if first else 1.5,
            zorder=3 if candidate == OURS else 2,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(True)


def _same_decades(panels: Sequence[Axes]) -> None:
    # Whole decades, so that there are ticks, and the same in all panels, so that they compare.
    for name in ("x", "y"):
        ends = [
            value
            for axes in panels
            for line in axes.lines
            for value in np.asarray(line.get_xdata() if name == "x" else line.get_ydata(), dtype=float)
        ]
        if not ends:
            continue
        low, high = min(ends), max(ends)
        for axes in panels:
            axis = axes.xaxis if name == "x" else axes.yaxis
            bottom, top = 10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high))
            (axes.set_xlim if name == "x" else axes.set_ylim)(bottom, max(top, 10 * bottom))
            axis.set_major_locator(LogLocator(base=10, numticks=12))
            axis.set_minor_formatter(NullFormatter())


def _handles(records: Sequence[Record]) -> Iterator[Line2D]:
    shown = set()
    present = {record["candidate"] for record in records}
    for candidate, (label, color, marker) in LOOKS.items():
        if candidate in present and label not in shown:
            shown.add(label)
            yield Line2D([], [], color=color, marker=marker, markersize=4.5, label=label)
    if records[0]["on"] == "cpu":
        yield Line2D([], [], color="#666666", label="memory is recycled (R2)")
        dashed = (0, (3, 2))
        yield Line2D(
            [], [], color="#666666", linestyle=dashed, linewidth=1.0, label="malloc as it comes (R1)"
        )
