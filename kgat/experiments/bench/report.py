r"""Tables and figure of ``kgat bench ops``, from its records alone."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from kgat.experiments.pages import markdown_table
from kgat.experiments.plots.look import PALETTE, RC, WIDTH

BEGIN, END = "<!-- ops:begin -->", "<!-- ops:end -->"

OURS = "ours"
WHATS = ("forward", "forward+backward")
PEAKS = ("forward_bytes", "both_bytes")
# Regimes of time and of memory on each kind of device, in the order of columns.
TIMES = {"cpu": ("R1", "R2"), "cuda": ("cuda",)}
MEMORY = {"cpu": "memory", "cuda": "cuda memory"}

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

Record = Mapping[str, Any]
Found = dict[tuple[str, str, str, str], Record]  # subject, candidate, what, regime -> its last record


def bars() -> list[dict[str, Any]]:
    r"""Returns the bars, one per scenario, subject and rival.

    Example:
        >>> bars()[0]["subject"]
        'gat layer'
    """
    table = tomllib.loads((files("kgat.experiments.bench") / "bars.toml").read_text(encoding="utf8"))
    found = []
    for bar in table["bar"]:
        subjects = [bar["subject"]] if isinstance(bar["subject"], str) else bar["subject"]
        found += [{**bar, "subject": subject} for subject in subjects]
    return found


def bar_of(scenario: str, subject: str, rival: str, regime: str, backward: bool) -> float | None:
    r"""Returns the ratio that ours is to reach, if there is a bar.

    Example:
        >>> bar_of("arxiv/10", "gat layer", "PyG", "R2", backward=True)
        4.2
    """
    for bar in bars():
        if (bar["scenario"], bar["subject"], bar["rival"]) == (scenario, subject, rival) and regime in bar:
            return float(bar[regime][backward])
    return None


def tables(records: Sequence[Record]) -> str:
    r"""Returns the results as Markdown: per scenario the rivals' ratios with the bars, then our own figures.

    Args:
        records (list of dict): What :func:`kgat.experiments.bench.ops.run` wrote. Of repeated ones the
            last counts.

    Raises:
        ValueError: If there are no such records.
    """
    own = [record for record in records if record.get("kind") == "ops"]
    if not any("skipped" not in record for record in own):
        raise ValueError("Expected records of 'kgat bench ops' (got none); run it first")
    parts = [
        "How many times longer, or how much more memory, a rival takes than ours: median of per-round ratios "
        "with [smallest, largest], paired in one process. R1: malloc as it comes; R2: memory is recycled. "
        "† contended: rounds vary by more than 1.6×, do not trust it."
    ]
    sections = dict.fromkeys((r["on"], r["cpu_threads"], r["scenario"]) for r in own)
    for on, threads, scenario in sections:
        part = [r for r in own if (r["on"], r["cpu_threads"], r["scenario"]) == (on, threads, scenario)]
        found: Found = {(r["subject"], r["candidate"], r["what"], r["regime"]): r for r in part}
        measured = [record for record in found.values() if "skipped" not in record]
        if measured:
            parts += [
                _heading(measured, on, scenario),
                _rivals(found, on, scenario),
                _ours(found, on),
            ]
        parts += _absent(found, scenario, named=not measured)
    parts.append(_epochs([record for record in records if record.get("kind") == "epoch"]))
    return "\n\n".join(filter(None, parts))


def _epochs(records: Sequence[Record]) -> str:
    # Of repeated ones the last counts.
    found = {(r["dataset"], r["features"], r["threads"]): r for r in records}
    if not found:
        return ""
    head = ["a training epoch of KernelGAT, kernel additive", "CPU threads", "stock GAT on dense features"]
    lines = [
        [f"{dataset}, {features} features", str(threads), _ratio(record)]
        for (dataset, features, threads), record in found.items()
    ]
    return "**Epochs.** How many times longer stock GAT takes.\n\n" + _markdown(head, lines)


def _heading(measured: Sequence[Record], on: str, scenario: str) -> str:
    one = measured[-1]
    device = one["processor"] if on == "cpu" else one["device"]
    threads = f", {one['cpu_threads']} thread{'s' * (one['cpu_threads'] != 1)}" if on == "cpu" else ""
    versions = one["versions"]
    names = ("torch", "torch_geometric", "numba", "triton", "dgl")
    commits = ", ".join(dict.fromkeys(str(record["commit"]) for record in measured))
    return (
        f"**{scenario}.** {one['graph']} graph, {one['nodes']:,} nodes, {one['edges']:,} edges with loops, "
        f"{one['in_channels']} → {one['heads']} × {one['out_channels']}. {device}{threads}; "
        f"{', '.join(f'{name} {versions[name]}' for name in names if name in versions)}; commit {commits}."
    )


def _rivals(found: Found, on: str, scenario: str) -> str:
    regimes = TIMES[on]
    head = ["ours", "against"]
    head += [f"{what}{f', {regime}' if len(regimes) > 1 else ''}" for what in WHATS for regime in regimes]
    head += ["memory, forward", "memory, forward+backward"]
    lines = []
    for subject, rival in dict.fromkeys((s, c) for s, c, _, _ in found if c != OURS):
        cells = [_time(found, scenario, subject, rival, w, r) for w in WHATS for r in regimes]
        cells += [_memory(found, on, scenario, subject, rival, backward) for backward in (False, True)]
        if any(cell != "–" for cell in cells):
            lines.append([subject, rival + _note(found, subject, rival), *cells])
    return _markdown(head, lines) if lines else ""


def _time(found: Found, scenario: str, subject: str, rival: str, what: str, regime: str) -> str:
    record = found.get((subject, rival, what, regime), {})
    if "ratio" not in record:
        return "–"
    bar = bar_of(scenario, subject, rival, regime, what == WHATS[1])
    return _ratio(record) + _judged(record["ratio"][0], bar)


def _ratio(record: Record) -> str:
    middle, low, high = record["ratio"]
    return f"{middle:.2f}{'†' if record['contended'] else ''} [{low:.2f}, {high:.2f}]"


def _memory(found: Found, on: str, scenario: str, subject: str, rival: str, backward: bool) -> str:
    name, regime = PEAKS[backward], MEMORY[on]
    ours = found.get((subject, OURS, "memory", regime), {}).get(name)
    peer = found.get((subject, rival, "memory", regime), {}).get(name)
    if not ours or peer is None:
        return "–"
    return f"{peer / ours:.1f}{_judged(peer / ours, bar_of(scenario, subject, rival, regime, backward))}"


def _judged(value: float, bar: float | None) -> str:
    if bar is None:
        return ""
    return f"<br>bar {bar:g}: {'met' if value >= bar else '**not met**'}"


def _note(found: Found, subject: str, candidate: str) -> str:
    own = [record for key, record in found.items() if key[:2] == (subject, candidate)]
    notes = dict.fromkeys(record["note"] for record in own if "note" in record)
    return f" ({', '.join(notes)})" if notes else ""


def _ours(found: Found, on: str) -> str:
    regimes = TIMES[on]
    head = ["ours", *(f"{what}, ms{f', {r}' if len(regimes) > 1 else ''}" for what in WHATS for r in regimes)]
    head += ["linear alone, ms", "of copy speed", "peak, MB", "first call, s", "sorting edges, s"]
    lines = []
    for subject in dict.fromkeys(s for s, _, _, _ in found):
        times = [found.get((subject, OURS, what, r), {}) for what in WHATS for r in regimes]
        last = [found.get((subject, OURS, what, regimes[-1]), {}) for what in WHATS]
        peak = found.get((subject, OURS, "memory", MEMORY[on]), {})
        cells = [
            *(_number(_middle(record, "seconds"), 1e3) for record in times),
            _pair([_middle(record, "linear_seconds") for record in last], 1e3),
            _pair([record.get("copy_fraction") for record in last], 1.0),
            _pair([peak.get(name) for name in PEAKS], 1e-6),
            _number(peak.get("first_seconds"), 1.0),
            _number(peak.get("structure_seconds"), 1.0),
        ]
        if any(cell != "–" for cell in cells):
            lines.append([subject, *cells])
    return _markdown(head, lines) if lines else ""


def _absent(found: Found, scenario: str, named: bool) -> Iterator[str]:
    reasons: dict[str, dict[str, None]] = {}
    for (subject, candidate, _, _), record in found.items():
        if "skipped" in record:
            reasons.setdefault(record["skipped"], {})[f"{candidate} ({subject})"] = None
    for reason, names in reasons.items():
        who = f"**{scenario}**" if named else ", ".join(names)
        yield f"Not measured, {who}: {reason}."


def _middle(record: Record, name: str) -> float | None:
    return record[name][0] if name in record else None


def _number(value: float | None, scale: float) -> str:
    if value is None:
        return "–"
    scaled = value * scale
    return f"{scaled:,.0f}" if scaled >= 100 else f"{scaled:.3g}"


def _pair(values: Sequence[float | None], scale: float) -> str:
    return "–" if all(v is None for v in values) else " / ".join(_number(v, scale) for v in values)


def _markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return markdown_table(head, lines, names=2)


# --- Figure -----------------------------------------------------------------------------------------------


def figure(records: Sequence[Record], on: str | None = None) -> Figure | None:
    r"""Draws time and peak memory of forward and backward against the number of edges, both on log scales.

    Args:
        records (list of dict): What :func:`kgat.experiments.bench.ops.run` wrote.
        on (str, optional): ``"cpu"`` or ``"cuda"``; the one of the first measurement if :obj:`None`.
            (default: :obj:`None`)

    Returns:
        matplotlib.figure.Figure: :obj:`None` if the records hold nothing for it.
    """
    own = [r for r in records if r.get("kind") == "ops" and "skipped" not in r]
    on = own[0]["on"] if on is None and own else on
    own = [record for record in own if record["on"] == on]
    subjects = list(dict.fromkeys(record["subject"] for record in own))
    if not subjects:
        return None
    blocks = [subjects[i : i + PANELS] for i in range(0, len(subjects), PANELS)]
    across = min(PANELS, len(subjects))
    with mpl.rc_context(RC):
        drawn = Figure(figsize=(WIDTH, 0.6 + 3.2 * len(blocks)), layout="constrained")
        grid = drawn.subplots(2 * len(blocks), across, squeeze=False, sharex=True)
        for axes in grid.flat:
            axes.set_visible(False)
        for number, block in enumerate(blocks):
            for column, subject in enumerate(block):
                for kind in (0, 1):
                    axes = grid[2 * number + kind, column]
                    axes.set_visible(True)
                    _panel(axes, [r for r in own if r["subject"] == subject], str(on), bool(kind))
                    if kind == 0:
                        axes.set_title(subject, loc="left")
                    if column == 0:
                        axes.set_ylabel("peak memory, MB" if kind else "time, ms")
                    axes.tick_params(labelbottom=bool(kind), labelleft=column == 0)
                    if kind == 1:
                        axes.set_xlabel("edges")
        for kind in (0, 1):
            _same_decades([axes for axes in grid[kind::2].flat if axes.get_visible()])
        drawn.legend(
            handles=list(_handles(own, str(on))), loc="outside upper center", ncols=3, handlelength=2.4
        )
    return drawn


def _panel(axes: Axes, records: Sequence[Record], on: str, memory: bool) -> None:
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


def _handles(records: Sequence[Record], on: str) -> Iterator[Line2D]:
    shown = set()
    present = {record["candidate"] for record in records}
    for candidate, (label, color, marker) in LOOKS.items():
        if candidate in present and label not in shown:
            shown.add(label)
            yield Line2D([], [], color=color, marker=marker, markersize=4.5, label=label)
    if on == "cpu":
        yield Line2D([], [], color="#666666", label="memory is recycled (R2)")
        dashed = (0, (3, 2))
        yield Line2D(
            [], [], color="#666666", linestyle=dashed, linewidth=1.0, label="malloc as it comes (R1)"
        )
