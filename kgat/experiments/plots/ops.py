r"""What layers and attention cores cost next to others, as graphs grow."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from kgat.experiments.bench.report import MEMORY, OURS, TIMES, WHATS
from kgat.experiments.plots.look import PALETTE, WIDTH
from kgat.experiments.plots.plot import Looks, plot
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
    "PyG on SparseTensor": ("PyG, torch-sparse", PALETTE[1], "<"),
    "PyG with pyg-lib": ("PyG, pyg-lib", PALETTE[1], ">"),
    "JAX segments": ("segments, JAX", PALETTE[5], "P"),
    "masked SDPA": ("masked SDPA", PALETTE[6], "X"),
    "flex_attention": ("flex_attention", PALETTE[7], "*"),
}
PANELS = 3  # side by side
DASHED = (0, (3, 2))


def _measured(records: Sequence[Record], _: str | None) -> list[Record]:
    # On one kind of device, that of the first.
    measured = [r for r in records if r.get("kind") == "ops" and "skipped" not in r]
    return [record for record in measured if record["on"] == measured[0]["on"]]


@plot(_measured)
def ops(records: Sequence[Record], looks: Looks, dataset: str) -> Figure:
    r"""Draws time and peak memory of forward and backward against the number of edges, both on log scales, of
    the subjects that were measured on several graphs; of all, if none was."""
    sizes: dict[str, set[int]] = {}
    for record in records:
        sizes.setdefault(record["subject"], set()).add(record["edges"])
    subjects = [subject for subject, edges in sizes.items() if len(edges) > 1] or list(sizes)
    blocks = math.ceil(len(subjects) / PANELS)
    figure = Figure(figsize=(WIDTH, 0.6 + 3.2 * blocks), layout="constrained")
    grid = figure.subplots(2 * blocks, min(PANELS, len(subjects)), squeeze=False, sharex=True)
    for axes in grid.flat:
        axes.set_visible(False)
    for kind, label in enumerate(("time, ms", "peak memory, MB")):
        panels = []
        for number, subject in enumerate(subjects):
            block, column = divmod(number, PANELS)
            axes = grid[2 * block + kind, column]
            axes.set_visible(True)
            _panel(axes, [r for r in records if r["subject"] == subject], bool(kind))
            axes.set_title("" if kind else subject, loc="left")
            axes.set_xlabel("edges" if kind else "")
            axes.set_ylabel("" if column else label)
            axes.tick_params(labelbottom=bool(kind), labelleft=column == 0)
            panels.append(axes)
        _same_decades(panels)
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
        _, color, marker = _look(candidate)
        x = sorted(points)
        first = regime == "R1"  # beside R2, which is the harder opponent
        axes.plot(
            x,
            [points[edges] for edges in x],
            color=color,
            marker=None if first and len(x) > 1 else marker,
            markersize=4.5,
            markerfacecolor="white" if first else color,
            linestyle=DASHED if first else "-",
            linewidth=1.0 if first else 1.5,
            zorder=3 if candidate == OURS else 2,
        )
    axes.set(xscale="log", yscale="log")
    axes.grid(True)


def _look(candidate: str) -> tuple[str, str, str]:
    # What has no look of its own is another copy of the package.
    return LOOKS.get(candidate, (candidate, PALETTE[8], "d"))


def _same_decades(panels: Sequence[Axes]) -> None:
    # Whole decades, so that there are ticks, and the same in all panels, so that they compare.
    for name in ("x", "y"):
        drawn = [np.asarray(getattr(line, f"get_{name}data")()) for axes in panels for line in axes.lines]
        if not drawn:
            continue
        ends = np.log10([np.concatenate(drawn).min(), np.concatenate(drawn).max()])
        bottom, top = 10.0 ** math.floor(ends[0]), 10.0 ** math.ceil(ends[1])
        for axes in panels:
            axes.set(**{f"{name}lim": (bottom, max(top, 10 * bottom))})
            axis = getattr(axes, f"{name}axis")
            axis.set_major_locator(LogLocator(base=10, numticks=12))
            axis.set_minor_formatter(NullFormatter())


def _handles(records: Sequence[Record]) -> Iterator[Line2D]:
    shown = set()
    present = {record["candidate"] for record in records}
    for candidate in (*(name for name in LOOKS if name in present), *sorted(present - LOOKS.keys())):
        label, color, marker = _look(candidate)
        if label not in shown:
            shown.add(label)
            yield Line2D([], [], color=color, marker=marker, markersize=4.5, label=label)
    if records[0]["on"] == "cpu":
        yield Line2D([], [], color="#666666", label="memory is recycled (R2)")
        label = "malloc as it comes (R1)"
        yield Line2D([], [], color="#666666", linestyle=DASHED, linewidth=1.0, label=label)
