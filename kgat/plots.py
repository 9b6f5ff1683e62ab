r"""Figures of a comparison, drawn from its records alone.

Every function takes the records (dictionaries, one per line of :obj:`results.jsonl`) and the name
of a data set, the first one by default, and returns a :class:`matplotlib.figure.Figure`, or
:obj:`None` if the records hold nothing for it. A model looks the same in all of them.
"""

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import matplotlib as mpl
import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from kgat.records import BASELINE, write_atomically

__all__ = [
    "FIGURES",
    "Style",
    "accuracy",
    "attention",
    "cost",
    "datasets",
    "difference",
    "entropy",
    "file_name",
    "fits",
    "heads",
    "image",
    "importance",
    "law",
    "learning_curves",
    "png",
    "profile",
    "save_all",
    "spectra",
    "spectrum",
    "styles",
]

Record = Mapping[str, Any]

WIDTH = 7.2  # inches, of every figure: text is then equally large in all of them
DPI = 150
INK = "#222222"
FAINT = "#d0d0d0"
# Colours of Okabe-Ito and of Tol's "muted" that keep their distance on white and for all readers;
# the baseline is black. Beyond ten models colours return with another line style and marker.
PALETTE = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#882255",
    "#999933",
    "#332288",
    "#8c6d46",
)
MARKERS = ("o", "s", "D", "^", "v", "P")
LINES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 2, 1, 2)))
CLASS_COLORS = (
    "#4477aa",
    "#ee6677",
    "#228833",
    "#ccbb44",
    "#66ccee",
    "#aa3377",
    "#f4a582",
    "#44bb99",
    "#775533",
)
UNLABELLED = "#bbbbbb"
METRICS = {"accuracy": "accuracy", "roc_auc": "ROC AUC"}
RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so figures agree everywhere
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.labelsize": 9.0,
    "axes.edgecolor": "#666666",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "text.usetex": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 9.0,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
}


class Style(NamedTuple):
    r"""How a model looks in every figure."""

    color: str
    marker: str
    line: Any  # a line style of matplotlib


class Draw(Protocol):
    r"""A function that draws a figure from records."""

    __name__: str

    def __call__(self, records: Sequence[Record], dataset: str | None = None) -> Figure | None: ...


def styles(records: Sequence[Record]) -> dict[str, Style]:
    r"""Returns the style of each model: the baseline is black, the others follow in their order.

    Args:
        records (list of dict): All records of a comparison.

    Example:
        >>> styles([{"kind": "run", "model": "rbf"}, {"kind": "run", "model": "gat"}])["gat"].color
        '#222222'
    """
    found = {}
    for number, name in enumerate(name for name in _models(records) if name != BASELINE):
        turn, color = divmod(number, len(PALETTE))
        found[name] = Style(PALETTE[color], MARKERS[(1 + turn) % len(MARKERS)], LINES[turn % len(LINES)])
    return {BASELINE: Style(INK, MARKERS[0], LINES[0])} | found


def datasets(records: Sequence[Record]) -> list[str]:
    r"""Returns the data sets of the records, in the order of their first appearance.

    Example:
        >>> datasets([{"dataset": "Cora"}, {"dataset": "Actor"}, {"dataset": "Cora"}])
        ['Cora', 'Actor']
    """
    return list(dict.fromkeys(record["dataset"] for record in records if record.get("dataset")))


@contextmanager
def _own_style() -> Iterator[None]:
    # Not the user's style sheet: white text would be lost on our white ground.
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(RC)
        yield


def _styled(draw: Draw) -> Draw:
    @wraps(draw)
    def styled(records: Sequence[Record], dataset: str | None = None) -> Figure | None:
        names = datasets(records)
        if dataset is None and names:
            dataset = names[0]
        with _own_style():
            return draw(records, dataset)

    return styled


@_styled
def accuracy(records: Sequence[Record], dataset: str | None = None) -> Figure | None:
    r"""The test metric of each model: seeds as dots, the mean and its 95 % interval."""
    runs = _runs(records, dataset)
    if not runs:
        return None
    looks = styles(records)
    scores = {
        model: 100 * np.array([run["test"] for run in of_model.values()]) for model, of_model in runs.items()
    }
    figure, axes = _rows(len(scores))
    if BASELINE in scores:
        axes.axvline(scores[BASELINE].mean(), color=INK, linewidth=1, linestyle=(0, (4, 3)))
    for row, (model, values) in enumerate(scores.items()):
        _dots_and_interval(axes, row, values, looks[model])
        spread = f" ± {values.std(ddof=1):.1f}" if values.size > 1 else ""
        _right_of(axes, row, f"{values.mean():.1f}{spread}")
    several = max(map(np.size, scores.values())) > 1
    _column_head(axes, "mean ± std" if several else "value")
    _name_rows(axes, list(scores))
    axes.set_xlabel(f"test {_metric(runs)} (%)")
    axes.set_title(_title(dataset, _seeds(runs)), loc="left")
    return figure


@_styled
def difference(records: Sequence[Record], dataset: str | None = None) -> Figure | None:
    r"""The paired difference of each model to the baseline, seed by seed."""
    runs = _runs(records, dataset)
    reference = runs.pop(BASELINE, {})
    paired = {}
    for model, of_model in runs.items():
        common = [pair for pair in of_model if pair in reference]
        if common:
            paired[model] = 100 * np.array(
                [of_model[pair]["test"] - reference[pair]["test"] for pair in common]
            )
    if not paired:
        return None
    looks = styles(records)
    figure, axes = _rows(len(paired))
    axes.axvline(0, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    for row, (model, values) in enumerate(paired.items()):
        _dots_and_interval(axes, row, values, looks[model])
        half = _half_width(values)
        text = f"{values.mean():+.1f}"
        if half is not None:
            text += f"  [{values.mean() - half:+.1f}, {values.mean() + half:+.1f}]"
        _right_of(axes, row, text.replace("-", "−"))
    several = any(values.size > 1 for values in paired.values())
    _column_head(axes, "mean [95 %]" if several else "value")
    _name_rows(axes, list(paired))
    axes.set_xlabel(f"difference to {BASELINE} in test {_metric(runs)} (percentage points)")
    axes.set_title(_title(dataset, _seeds(runs)), loc="left")
    return figure


@_styled
def learning_curves(records: Sequence[Record], dataset: str | None = None) -> Figure | None:
    r"""Losses and validation metric over the epochs: the mean over seeds, and their spread."""
    runs = _runs(records, dataset)
    panels = (
        ("train_loss", "training loss", 1.0),
        ("val_loss", "validation loss", 1.0),
        ("val", f"validation {_metric(runs)} (%)", 100.0),
    )
    curves = {
        (model, name): _mean_curve([run.get("curve") or {} for run in of_model.values()], name)
        for model, of_model in runs.items()
        for name, _, _ in panels
    }
    if all(curve is None for curve in curves.values()):
        return None
    looks = styles(records)
    opacity = 0.15 if len(runs) <= 4 else 0.07  # many bands lie over one another
    figure = Figure(figsize=(WIDTH, 5.4), layout="constrained")
    grid = figure.subplots(2, 2).flatten()
    for axes, (name, label, scale) in zip(grid, panels, strict=False):
        for model, of_model in runs.items():
            curve = curves[model, name]
            if curve is None:
                continue
            epoch, mean, spread = curve[0], scale * curve[1], scale * curve[2]
            look = looks[model]
            axes.fill_between(
                epoch, mean - spread, mean + spread, color=look.color, alpha=opacity, linewidth=0
            )
            # A curve of one point has no line.
            marker = look.marker if epoch.size == 1 else None
            axes.plot(epoch, mean, color=look.color, linestyle=look.line, marker=marker)
            if name == "val":
                best = [run["best_epoch"] for run in of_model.values() if "best_epoch" in run]
                if best and epoch[0] <= np.mean(best) <= epoch[-1]:
                    height = np.interp(np.mean(best), epoch, mean)
                    axes.plot(np.mean(best), height, look.marker, color=look.color, mec="white", ms=7)
        axes.set_ylabel(label)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        axes.grid(True)
    grid[3].axis("off")
    handles = [
        Line2D([], [], color=look.color, linestyle=look.line, label=_short(model))
        for model, look in looks.items()
        if model in runs
    ]
    handles.append(Line2D([], [], color="#777777", marker="o", linestyle="", label="epoch that was kept"))
    grid[3].legend(handles=handles, loc="center", ncols=math.ceil(len(handles) / 13), handlelength=3)
    _head(figure, _title(dataset, _seeds(runs)))
    return figure


@_styled
def attention(records: Sequence[Record], dataset: str | None = None) -> Figure | None:
    r"""Attention on a real neighbourhood, one panel per model: the mean of the heads."""
    cuts = {
        model: record["neighbourhood"]
        for model, record in _attention(records, dataset).items()
        if (record.get("neighbourhood") or {}).get("edges")
    }
    if not cuts:
        return None
    weights = {model: np.array([np.mean(alpha) for alpha in cut["alpha"]]) for model, cut in cuts.items()}
    shown = {model: _into_targets(cut) for model, cut in cuts.items()}
    top = max((weights[model][shown[model]].max() for model in cuts if shown[model].any()), default=1.0)
    # The scale reaches twice the uniform weight at least: uniform attention then looks moderate.
    fewest = min(sum(target == cut["center"] for _, target in cut["edges"]) for cut in cuts.values())
    top = max(float(top), 2 / max(fewest, 2))
    scale = Normalize(0, top)
    colors = LinearSegmentedColormap.from_list(
        "weights", mpl.colormaps["magma_r"](np.linspace(0.12, 0.95, 256))
    )
    classes = _class_colors(cuts.values())

    columns = min(3, len(cuts)) if len(cuts) != 4 else 2
    rows = math.ceil(len(cuts) / columns)
    side = WIDTH / max(columns, 2)
    figure = Figure(figsize=(WIDTH, side * rows + 0.9), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in grid:
        axes.axis("off")
    for axes, (model, cut) in zip(grid, cuts.items(), strict=False):
        _draw_neighbourhood(axes, cut, weights[model], shown[model], scale, colors, classes)
        axes.set_title(_short(model, 26), fontsize=9.5)
    bar = figure.colorbar(
        mpl.cm.ScalarMappable(scale, colors),
        ax=list(grid),
        shrink=min(0.6, 3.0 / figure.get_figheight()),
        aspect=24,
        pad=0.02,
    )
    bar.set_label("attention weight α (mean of the heads)")
    bar.outline.set_visible(False)  # type: ignore[operator]
    present = {label for cut in cuts.values() for label in cut["labels"]}
    named = [label for label in sorted(present) if label in classes]
    handles = [_class_handle(classes[label], f"class {label}") for label in named if label >= 0]
    if len(named) < len(present) or -1 in named:
        handles.append(_class_handle(UNLABELLED, "other or unknown class"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(5, len(handles)))
    first = next(iter(cuts.values()))
    figure.suptitle(
        f"{_short(str(dataset))}: node {first['center']} and its {_plural(first)}",
        x=0.01,
        ha="left",
        fontsize=10,
    )
    return figure


@_styled
def entropy(records: Sequence[Record], dataset: str | None = None) -> Figure | None:
    r"""How evenly each head spreads its attention, per layer: one is uniform."""
    found = {
        model: record["layers"]
        for model, record in _attention(records, dataset).items()
        if any(_numbers(layer["entropy"]).size for layer in record.get("layers") or [])
    }
    if not found:
        return None
    looks = styles(records)
    depth = max(map(len, found.values()))
    columns = min(depth, 2)
    rows = math.ceil(depth / columns)
    figure = Figure(figsize=(WIDTH, rows * (0.34 * len(found) + 0.9) + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    everything = [_numbers(layer["entropy"]) for layers in found.values() for layer in layers]
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
            values = _numbers(layer["entropy"])
            axes.plot(
                values, np.full(values.size, row), looks[model].marker, color=color, ms=5,
                mec="white", mew=0.6, alpha=0.9,
            )  # fmt: skip
        axes.set_title(f"layer {depth_of_panel + 1}", loc="left")
        axes.set_xlabel("normalised entropy (1 = uniform)")
        axes.grid(True, axis="x")
        _name_rows(axes, list(found))
    left = max(0.0, math.floor(10 * (low - 0.02)) / 10)
    for axes in grid:
        axes.set_xlim(left, 1 + 0.03 * (1 - left))
    _head(figure, _short(str(dataset)))
    return figure


@_styled
def profile(records: Sequence[Record], dataset: str | None = None) -> Figure | None:
    r"""The kernel of each head as a function of the distance between query and key."""
    found = _field(records, dataset, "profile")
    if not found:
        return None
    looks = styles(records)
    columns = 3 if len(found) > 2 else 2
    figure, grid = _grid(len(found), columns, 2.2)
    for number, (axes, (model, curve)) in enumerate(zip(grid, found.items(), strict=True)):
        distance, heads = np.array(curve["distance"]), curve["kernel"]
        color = looks[model].color
        lows, highs = curve.get("low") or heads, curve.get("high") or heads
        axes.fill_between(distance, np.min(lows, 0), np.max(highs, 0), color=color, alpha=0.15, linewidth=0)
        for head, shade in zip(heads, _shades(color, len(heads)), strict=True):
            axes.plot(distance, head, color=shade, linewidth=1.3)
        # The band of a kernel that grows exponentially may be a thousand times the median.
        axes.set_ylim(0, min(1.1 * np.max(highs), 2.0 * np.max(heads)) or 1.0)
        axes.set_xlim(0, distance[-1] or 1.0)
        axes.set_title(_short(model, 24), fontsize=9.5)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.grid(True)
        axes.set_ylabel("k(r) / k(0)" if curve.get("normalised") != "maximum" else "k(r) / max k")
        if number + columns >= len(found):
            axes.set_xlabel("distance r = ‖q − k‖")
    _head(figure, f"{_short(str(dataset))}: one line per head")
    return figure


@_styled
def spectrum(records: Sequence[Record], dataset: str | None = None) -> Figure | None:
    r"""The singular values of the Gram matrix: the median of the heads and their range."""
    found = {
        model: record for model, record in _attention(records, dataset).items() if record.get("spectrum")
    }
    if not found:
        return None
    looks = styles(records)
    height = max(3.6, 0.19 * len(found) + 0.4)  # of the legend, if there are many
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    floor = 1e-7  # single precision: what lies below is rounding
    lowest = 1.0
    for model, record in found.items():
        values = np.maximum(np.array(record["spectrum"], dtype=float), floor)  # [H, n]
        index = np.arange(1, values.shape[1] + 1)
        middle = np.median(values, axis=0)
        lowest = min(lowest, float(middle.min()))
        ranks = _numbers(record.get("effective_rank"))
        label = _short(model)
        if ranks.size:
            label += f"  (rank {np.median(ranks):.1f})"
        look = looks[model]
        if len(found) <= 4:  # more bands than that hide one another
            lowest = min(lowest, float(values.min()))
            axes.fill_between(index, values.min(0), values.max(0), color=look.color, alpha=0.12, linewidth=0)
        marker = look.marker if index.size == 1 else None
        axes.plot(index, middle, color=look.color, linestyle=look.line, marker=marker, label=label)
    axes.set_yscale("log")
    axes.set_ylim(max(floor, lowest / 2), 1.5)
    axes.yaxis.set_major_formatter(FuncFormatter(_power_of_ten))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel("index of the singular value")
    axes.set_ylabel("singular value / largest")
    axes.grid(True)
    figure.legend(loc="outside right upper", handlelength=2.6)
    nodes = next(iter(found.values())).get("nodes_sampled")
    sample = f": Gram matrix of {nodes} nodes" if nodes else ""
    axes.set_title(f"{_short(str(dataset))}{sample}", loc="left")
    return figure


@_styled
def law(records: Sequence[Record], dataset: str | None = None) -> Figure | None:
    r"""The frequencies of spectral kernels: samples per head in their leading plane, and both marginals."""
    found = _field(records, dataset, "law")
    if not found:
        return None
    looks = styles(records)
    columns = min(3, len(found))
    rows = math.ceil(len(found) / columns)
    figure = Figure(figsize=(WIDTH, 2.9 * rows + 0.4), layout="constrained")
    grid = figure.add_gridspec(rows, columns)
    for number, (model, one) in enumerate(found.items()):
        inner = grid[divmod(number, columns)].subgridspec(
            2, 2, width_ratios=(4, 1), height_ratios=(1, 4), hspace=0.02, wspace=0.02
        )
        main = figure.add_subplot(inner[1, 0])
        top, right = (
            figure.add_subplot(inner[0, 0], sharex=main),
            figure.add_subplot(inner[1, 1], sharey=main),
        )
        heads = np.array(one["frequencies"], dtype=float)  # [H, n, 2]
        limit = float(np.quantile(np.abs(heads), 0.995)) or 1.0
        edges = np.linspace(-limit, limit, 14)
        middles = 0.5 * (edges[1:] + edges[:-1])
        for head, shade in zip(heads, _shades(looks[model].color, len(heads)), strict=True):
            main.plot(head[:, 0], head[:, 1], ".", color=shade, ms=2.6, alpha=0.6, mew=0)
            for axes, axis in ((top, 0), (right, 1)):
                counts, _ = np.histogram(head[:, axis], edges, density=True)
                line = (middles, counts) if axes is top else (counts, middles)
                axes.plot(*line, color=shade, linewidth=0.9)
        main.set_xlim(-limit, limit)
        main.set_ylim(-limit, limit)
        for axes in (top, right):
            axes.axis("off")
        top.set_title(_short(model, 18), fontsize=9)
        main.set_xlabel(f"{100 * one['share']:.0f} % of variance", fontsize=8)
        main.xaxis.set_major_locator(MaxNLocator(3, symmetric=True))
        main.yaxis.set_major_locator(MaxNLocator(3, symmetric=True))
        main.grid(True)
    _head(figure, f"{_short(str(dataset))}: frequencies along their two leading axes, one shade per head")
    return figure


@_styled
def heads(records: Sequence[Record], dataset: str | None = None) -> Figure | None:
    r"""How a copula ties the heads of a layer: the mean correlation over channels."""
    found = _field(records, dataset, "head_correlation")
    if not found:
        return None
    columns = min(3, len(found))
    figure, grid = _grid(len(found), columns, 2.2, width=2.1 * columns + 0.9)
    for axes, (model, matrix) in zip(grid, found.items(), strict=True):
        image = axes.imshow(np.array(matrix, dtype=float), cmap="RdBu_r", vmin=-1, vmax=1)
        ticks = range(len(matrix))
        axes.set_xticks(ticks, [str(head + 1) for head in ticks])
        axes.set_yticks(ticks, [str(head + 1) for head in ticks])
        axes.set_title(_short(model, 24), fontsize=9.5)
        axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=grid, label="correlation", shrink=0.8)
    _head(figure, f"{_short(str(dataset))}: correlation of heads")
    return figure


@_styled
def importance(records: Sequence[Record], dataset: str | None = None) -> Figure | None:
    r"""What the L^p magnitude of a node adds to every score, against its number of in-edges."""
    found = _field(records, dataset, "importance")
    if not found:
        return None
    columns = min(3, len(found))
    figure, grid = _grid(len(found), columns, 2.4)
    for number, (axes, (model, one)) in enumerate(zip(grid, found.items(), strict=True)):
        value, degree = np.array(one["value"], dtype=float), np.array(one["degree"], dtype=float)
        labels = one.get("labels") or [-1] * value.size
        colors = [CLASS_COLORS[label % len(CLASS_COLORS)] if label >= 0 else UNLABELLED for label in labels]
        axes.scatter(np.maximum(degree, 0.8), value, c=colors, s=7, alpha=0.7, linewidths=0)
        axes.set_xscale("log")
        few = degree.max() < 40 * max(1.0, degree.min())
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_title(_short(model, 24), fontsize=9.5)
        axes.grid(True)
        if number % columns == 0:
            axes.set_ylabel("added to the score")
        if number + columns >= len(found):
            axes.set_xlabel("in-edges")
    _head(figure, f"{_short(str(dataset))}: importance of nodes, coloured by class")
    return figure


@_styled
def image(records: Sequence[Record], dataset: str | None = None) -> Figure | None:
    r"""The kernel as an image: the Gram matrix of a few nodes, sorted by class, of the first heads."""
    found = _field(records, dataset, "image")
    if not found:
        return None
    columns = max(len(one["values"]) for one in found.values())
    figure = Figure(figsize=(WIDTH, 1.75 * len(found) + 0.5), layout="constrained")
    grid = figure.subplots(len(found), columns, squeeze=False)
    for place, (row, (model, one)) in enumerate(zip(grid, found.items(), strict=True)):
        borders = np.flatnonzero(np.diff(one["labels"])) + 0.5 if one["labels"] else np.empty(0)
        lowest = min(float(_numbers(one["values"]).min()), 0.99)  # a kernel near 1 everywhere has shades too
        for number, axes in enumerate(row):
            if number >= len(one["values"]):
                axes.axis("off")
                continue
            values = np.array(one["values"][number], dtype=float)
            shown = axes.imshow(values, cmap="viridis", vmin=lowest, vmax=1)
            for border in borders:
                axes.axhline(border, color="white", linewidth=0.5, alpha=0.7)
                axes.axvline(border, color="white", linewidth=0.5, alpha=0.7)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            if number == 0:
                axes.set_ylabel(_short(model, 18), fontsize=8.5)
            if place == 0:
                axes.set_title(f"head {number + 1}", fontsize=9)
        figure.colorbar(shown, ax=list(row), label="k / largest")
    _head(figure, f"{_short(str(dataset))}: kernel between nodes, sorted by class")
    return figure


@_styled
def cost(records: Sequence[Record], dataset: str | None = None) -> Figure | None:
    r"""Epoch time and peak memory of each model, as ratios to the baseline."""
    last = None
    for record in records:
        if record.get("kind") == "cost" and record.get("dataset") == dataset:
            last = record
    if last is None or not last.get("models"):
        return None
    looks = styles(records)
    models = last["models"]
    baseline = last.get("baseline", BASELINE)
    has_memory = any(entry.get("memory_ratio") is not None for entry in models.values())
    figure, *_ = _rows(len(models), axes=False)
    grid = figure.subplots(1, 2 if has_memory else 1, sharey=True, squeeze=False).flatten()
    for axes, name in zip(grid, ("seconds_ratio", "memory_ratio"), strict=False):
        largest, smallest = 1.0, 1.0
        for row, (model, entry) in enumerate(models.items()):
            value = _numbers(entry.get(name))
            if not value.size:
                continue
            look = looks.get(model, Style(INK, "o", "-"))
            middle = float(value[0])
            axes.plot([1, middle], [row, row], color=look.color, linewidth=1.2, alpha=0.45)
            if value.size == 3:
                axes.plot(value[1:], [row, row], color=look.color, linewidth=4, alpha=0.3)
            axes.plot(middle, row, look.marker, color=look.color, ms=7, mec="white")
            largest = max(largest, float(value.max()))
            smallest = min(smallest, float(value.min()))
            _right_of(axes, row, f"{middle:.2f}×")
        axes.axvline(1, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        if largest > 20 * smallest > 0:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_xlim(0, 1.08 * largest)
            axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.grid(True, axis="x")
        _name_rows(axes, list(models))
        what = "epoch time" if name == "seconds_ratio" else "peak memory"
        axes.set_xlabel(f"{what} / that of {_short(baseline)}")
    grid[0].set_title(_title(dataset, 0), loc="left")
    return figure


@_styled
def fits(records: Sequence[Record], dataset: str | None = None) -> Figure | None:
    r"""The curves that models fitted to a series, with two standard deviations where a model has some."""
    found = {
        record["model"]: record["curve"]
        for record in records
        if record.get("kind") == "regression" and record.get("dataset") == dataset and record.get("curve")
    }
    if not found:
        return None
    unit = next(record["unit"] for record in records if record.get("dataset") == dataset)
    rows = len(found)
    figure = Figure(figsize=(WIDTH, 1.35 * rows + 0.6), layout="constrained")
    grid = figure.subplots(rows, 1, sharex=True, squeeze=False).flatten()
    for number, (axes, (model, curve)) in enumerate(zip(grid, found.items(), strict=True)):
        color = PALETTE[number % len(PALETTE)]
        x, y, mean = (np.array(curve[name], dtype=float) for name in ("x", "y", "mean"))
        test = np.array(curve["part"]) == "test"
        axes.plot(x, mean, color=color, linewidth=1.0, label="fitted")
        if curve.get("std"):
            std = np.array(curve["std"], dtype=float)
            axes.fill_between(x, mean - 2 * std, mean + 2 * std, color=color, alpha=0.25, linewidth=0)
        axes.plot(x[~test], y[~test], ".", color=INK, ms=1.8, mew=0, label="known")
        axes.plot(x[test], y[test], "x", color="#d62728", ms=3, mew=0.8, label="test")
        axes.set_ylabel(unit)
        axes.set_title(_short(model, 30), fontsize=9, loc="left", pad=2)
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.grid(True)
    grid[0].legend(loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=3, borderaxespad=0.0)
    _head(figure, f"{_short(str(dataset))}: bands are two standard deviations over draws (GP: posterior)")
    return figure


@_styled
def spectra(records: Sequence[Record], dataset: str | None = None) -> Figure | None:
    r"""Which share of the sum of all singular values the largest hold, layer by layer, as
    :func:`kgat.diagnostics.spectra_record` stores it: steep curves mean low rank."""
    found = {
        record["model"]: record["layers"]
        for record in records
        if record.get("kind") == "spectra" and record.get("dataset") == dataset and record.get("layers")
    }
    if not found:
        return None
    looks = styles(records)
    columns = min(3, len(found))
    figure, grid = _grid(len(found), columns, 2.4)
    longest = max(len(curve) for layers in found.values() for curve in layers)
    for number, (axes, (model, layers)) in enumerate(zip(grid, found.items(), strict=True)):
        shades = _shades(looks[model].color, len(layers))
        for place, (curve, shade) in enumerate(zip(layers, shades, strict=True)):
            marker = "o" if len(curve) == 1 else None
            label = f"layer {place + 1}" if place in (0, len(layers) - 1) else None
            axes.plot(np.arange(1, len(curve) + 1), curve, color=shade, marker=marker, ms=3, label=label)
        axes.set_xlim(0, longest + 1)
        axes.set_ylim(0, 1.03)
        axes.set_title(_short(model, 24), fontsize=9.5)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.grid(True)
        axes.legend(loc="lower right")
        if number % columns == 0:
            axes.set_ylabel("share of the sum")
        if number + columns >= len(found):
            axes.set_xlabel("singular values")
    _head(figure, f"{_short(str(dataset))}: the largest singular values of attention, one line per layer")
    return figure


FIGURES: dict[str, Draw] = {
    "accuracy": accuracy,
    "difference": difference,
    "curves": learning_curves,
    "attention": attention,
    "entropy": entropy,
    "profile": profile,
    "image": image,
    "spectrum": spectrum,
    "law": law,
    "heads": heads,
    "importance": importance,
    "cost": cost,
}


def file_name(dataset: str, figure: str) -> str:
    r"""Returns the name of the file of a figure.

    Example:
        >>> file_name("ogbn-arxiv", "accuracy")
        'ogbn-arxiv-accuracy.png'
    """
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '_', dataset)}-{figure}.png"


def save_all(records: Sequence[Record], folder: str | os.PathLike[str]) -> list[Path]:
    r"""Draws every figure that the records allow, for every data set, as PNG files.

    A file is complete or not there: it is written beside its place and moved into it.

    Args:
        records (list of dict): The records of a comparison.
        folder (str or Path): Where to write; made if missing.

    Returns:
        list[Path]: The files, by data set and in the order of :obj:`FIGURES`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for dataset in datasets(records):
        for name, draw in FIGURES.items():
            figure = draw(records, dataset)
            if figure is None:
                continue
            path = folder / file_name(dataset, name)
            write_atomically(path, png(figure))
            paths.append(path)
    return paths


def png(figure: Figure) -> bytes:
    r"""Returns a figure as a PNG file; equal figures give equal bytes."""
    buffer = BytesIO()
    with _own_style():
        # Without the version number of matplotlib, which is in the file by default.
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def _models(records: Iterable[Record]) -> list[str]:
    names: dict[str, None] = {}
    for record in records:
        if record.get("kind") == "cost":
            names.update(dict.fromkeys(record.get("models") or {}))
        elif record.get("model") is not None:
            names[record["model"]] = None
    return list(names)


def _runs(records: Sequence[Record], dataset: str | None) -> dict[str, dict[Any, Record]]:
    r"""Model, then seed and split, then its last run; the baseline comes first."""
    found: dict[str, dict[Any, Record]] = {}
    for record in records:
        if record.get("kind") != "run" or record.get("dataset") != dataset:
            continue
        if _finite(record.get("test")):
            found.setdefault(record["model"], {})[record["seed"], record.get("split")] = record
    return dict(sorted(found.items(), key=lambda item: item[0] != BASELINE))


def _attention(records: Sequence[Record], dataset: str | None) -> dict[str, Record]:
    found: dict[str, Record] = {}
    for record in records:
        if record.get("kind") == "attention" and record.get("dataset") == dataset:
            found.setdefault(record["model"], record)
    return dict(sorted(found.items(), key=lambda item: item[0] != BASELINE))


def _field(records: Sequence[Record], dataset: str | None, name: str) -> dict[str, Any]:
    found = _attention(records, dataset).items()
    return {model: record[name] for model, record in found if record.get(name)}


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _numbers(values: Any) -> np.ndarray:
    if values is None:
        return np.empty(0)
    flat = np.ravel(np.array(values, dtype=float))  # None becomes nan
    return flat[np.isfinite(flat)]


def _half_width(values: np.ndarray) -> float | None:
    r"""Half of the 95 % interval of the mean (Student's t)."""
    from scipy.stats import t  # slow to import, and needed by two figures only

    if values.size < 2:
        return None
    return float(t.ppf(0.975, values.size - 1) * values.std(ddof=1) / math.sqrt(values.size))


def _dots_and_interval(axes: Axes, row: int, values: np.ndarray, look: Style) -> None:
    # Seeds lie below the mean, fanned out in a fixed pattern so that equal ones can be told apart.
    fan = row + 0.22 + 0.11 * (np.arange(values.size) % 3 - 1) * (values.size > 1)
    axes.plot(values, fan, "o", color=look.color, ms=4, alpha=0.5, mew=0)
    half = _half_width(values)
    if half is not None:
        axes.plot(
            [values.mean() - half, values.mean() + half],
            [row - 0.12] * 2,
            color=look.color,
            linewidth=2.4,
            solid_capstyle="butt",
        )
    axes.plot(values.mean(), row - 0.12, look.marker, color=look.color, ms=7.5, mec="white")


def _rows(count: int, axes: bool = True) -> Any:
    figure = Figure(figsize=(WIDTH, 0.44 * count + 1.25), layout="constrained")
    if not axes:
        return (figure,)
    panel = figure.subplots()
    panel.grid(True, axis="x")
    panel.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    return figure, panel


def _grid(count: int, columns: int, height: float, width: float = WIDTH) -> tuple[Figure, list[Axes]]:
    r"""A figure with so many panels of that height (inches), in rows of so many columns."""
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(width, height * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in grid[count:]:
        axes.axis("off")
    return figure, list(grid[:count])


def _head(figure: Figure, text: str) -> None:
    figure.suptitle(text, x=0.01, ha="left", fontsize=10)


def _name_rows(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), [_short(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _right_of(axes: Axes, row: float, text: str) -> None:
    axes.text(
        1.015,
        row,
        text,
        transform=axes.get_yaxis_transform(),
        va="center",
        clip_on=False,
        fontsize=8.5,
    )


def _column_head(axes: Axes, text: str) -> None:
    axes.text(1.015, 1.02, text, transform=axes.transAxes, fontsize=8.0, color="#666666")


def _short(name: str, most: int = 30) -> str:
    r"""A name that fits: without line breaks, its middle left out if it is long, and no formula."""
    name = " ".join(str(name).split())
    if len(name) > most:
        tail = most // 2 - 1
        name = f"{name[: most - tail - 1]}…{name[-tail:]}"
    return name.replace("$", r"\$")


def _power_of_ten(value: float, _: Any = None) -> str:
    exponent = str(round(math.log10(value)))
    return "10" + exponent.translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _title(dataset: str | None, seeds: int) -> str:
    return _short(str(dataset)) + (f", {seeds} seed{'s' * (seeds != 1)}" if seeds else "")


def _seeds(runs: Mapping[str, Mapping[Any, Record]]) -> int:
    return len({seed for of_model in runs.values() for seed, _ in of_model})


def _metric(runs: Mapping[str, Mapping[Any, Record]]) -> str:
    for of_model in runs.values():
        for run in of_model.values():
            return METRICS.get(run.get("metric", "accuracy"), str(run.get("metric")))
    return METRICS["accuracy"]


def _mean_curve(
    curves: list[Mapping[str, list[float]]], name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    r"""Epochs, mean and standard deviation. A run that stopped early keeps its last value, and the
    curve ends where half of the runs have stopped."""
    lines = []
    for curve in curves:
        epoch = np.array(curve.get("epoch") or [], dtype=float)
        value = np.array(curve.get(name) or [], dtype=float)
        if epoch.size != value.size:
            continue
        valid = np.isfinite(epoch) & np.isfinite(value)
        if valid.any():
            lines.append((epoch[valid], value[valid]))
    if not lines:
        return None
    epochs = np.unique(np.concatenate([epoch for epoch, _ in lines]))
    start = max(epoch[0] for epoch, _ in lines)
    end = np.median([epoch[-1] for epoch, _ in lines])
    epochs = epochs[(epochs >= start) & (epochs <= end)]
    if epochs.size == 0:
        epochs = np.array([start])
    values = np.array([np.interp(epochs, epoch, value) for epoch, value in lines])
    spread = values.std(axis=0, ddof=1) if len(lines) > 1 else np.zeros(epochs.size)
    return epochs, values.mean(axis=0), spread


def _shades(color: str, count: int) -> list[tuple[float, float, float]]:
    base = np.array(to_rgb(color))
    found = []
    for position in np.linspace(-0.35, 0.45, count) if count > 1 else [0.0]:
        toward = np.ones(3) if position > 0 else np.zeros(3)
        red, green, blue = base + abs(position) * (toward - base)
        found.append((float(red), float(green), float(blue)))
    return found


def _into_targets(cut: Mapping[str, Any]) -> np.ndarray:
    targets = set(cut.get("targets") or [cut["center"]])
    return np.array([target in targets for _, target in cut["edges"]])


def _plural(cut: Mapping[str, Any]) -> str:
    drawn = len(cut.get("nodes") or cut["labels"]) - 1
    total = cut.get("degree", drawn)
    if cut.get("hops", 1) > 1:
        return f"{cut['hops']}-hop neighbourhood ({drawn} nodes drawn)"
    if drawn < total:
        return f"{total} neighbours ({drawn} drawn)"
    return f"{total} neighbour{'s' * (total != 1)}"


def _class_colors(cuts: Iterable[Mapping[str, Any]]) -> dict[int, str]:
    r"""The most frequent classes have a colour of their own, the others that of unknown ones."""
    counts: dict[int, int] = {}
    for cut in cuts:
        for label in cut["labels"]:
            counts[label] = counts.get(label, 0) + 1
    ranked = sorted((label for label in counts if label >= 0), key=lambda c: (-counts[c], c))
    chosen = sorted(ranked[: len(CLASS_COLORS)])
    return dict(zip(chosen, CLASS_COLORS, strict=False))


def _class_handle(color: str, label: str) -> Line2D:
    return Line2D([], [], marker="o", linestyle="", color=color, ms=8, label=label)


def _positions(cut: Mapping[str, Any]) -> dict[int, np.ndarray]:
    r"""The center in the middle and the others around it, ordered by class so that classes stay
    together; on two rings if there are many."""
    nodes = cut.get("nodes") or sorted({node for edge in cut["edges"] for node in edge})
    labels = dict(zip(nodes, cut["labels"], strict=False))
    others = sorted(
        (node for node in nodes if node != cut["center"]),
        key=lambda node: (labels.get(node, -1), node),
    )
    places = {cut["center"]: np.zeros(2)}
    for number, node in enumerate(others):
        angle = math.pi / 2 + 2 * math.pi * number / len(others)
        radius = 1.0 if len(others) <= 14 or number % 2 == 0 else 0.68
        places[node] = radius * np.array([math.cos(angle), math.sin(angle)])
    return places


def _draw_neighbourhood(
    axes: Axes,
    cut: Mapping[str, Any],
    weights: np.ndarray,
    shown: np.ndarray,
    scale: Normalize,
    colors: Colormap,
    classes: Mapping[int, str],
) -> None:
    places = _positions(cut)
    nodes = list(places)
    given = cut.get("nodes") or nodes
    labels = dict(zip(given, cut["labels"], strict=False))
    size = 170 if len(nodes) <= 15 else 70
    graph = nx.DiGraph()
    graph.add_nodes_from(nodes)
    own = {source: weight for (source, target), weight in zip(cut["edges"], weights, strict=True)
           if source == target}  # fmt: skip
    context, edges, weight_of = [], [], []
    for (source, target), weight, is_shown in zip(cut["edges"], weights, shown, strict=True):
        if source == target or source not in places or target not in places:
            continue
        if is_shown:
            edges.append((source, target))
            weight_of.append(float(weight))
        else:
            context.append((source, target))
    graph.add_edges_from(context + edges)
    nx.draw_networkx_edges(graph, places, context, ax=axes, arrows=False, edge_color=FAINT, width=0.7)
    center = cut["center"]
    sizes = [1.5 * size if node == center else size for node in nodes]
    ring = {center} if cut.get("hops", 1) == 1 else set(cut.get("targets") or [center])
    ring &= own.keys()
    widths = [1.0 + 4.2 * float(scale(own[node])) if node in ring else 0.8 for node in nodes]
    # Arrows end outside of the ring; sizes of nodes are areas.
    room = [(math.sqrt(area) + 2 * width) ** 2 for area, width in zip(sizes, widths, strict=True)]
    order = np.argsort(weight_of)  # heavy edges on top
    nx.draw_networkx_edges(
        graph,
        places,
        [edges[i] for i in order],
        ax=axes,
        arrows=True,
        arrowsize=8,
        nodelist=nodes,
        node_size=room,
        edge_color=[colors(scale(weight_of[i])) for i in order],
        width=[0.8 + 4.2 * float(scale(weight_of[i])) for i in order],
    )
    nx.draw_networkx_nodes(
        graph,
        places,
        nodes,
        ax=axes,
        node_size=sizes,
        node_color=[classes.get(labels.get(node, -1), UNLABELLED) for node in nodes],
        edgecolors=[colors(scale(own[node])) if node in ring else "white" for node in nodes],
        linewidths=widths,
    )
    axes.set_xlim(-1.25, 1.25)
    axes.set_ylim(-1.25, 1.25)
    axes.set_aspect("equal")
    axes.axis("off")
