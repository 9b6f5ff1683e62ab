r"""Figures of what models score and cost."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from kgat.experiments.plots.draw import styled, styles, title_of
from kgat.experiments.plots.look import (
    INK,
    WIDTH,
    Style,
    column_head,
    dots_and_interval,
    figure_of_rows,
    headline,
    name_rows,
    right_of,
    shortened,
)
from kgat.experiments.plots.selection import (
    Record,
    count_seeds,
    finite_numbers,
    half_width,
    metric_of,
    runs_of,
)
from kgat.experiments.records import BASELINE


@styled
def accuracy(records: Sequence[Record], dataset: str | None = None) -> Figure | None:
    r"""The test metric of each model: seeds as dots, the mean and its 95 % interval."""
    runs = runs_of(records, dataset)
    if not runs:
        return None
    looks = styles(records)
    scores = {
        model: 100 * np.array([run["test"] for run in of_model.values()]) for model, of_model in runs.items()
    }
    figure, axes = figure_of_rows(len(scores))
    if BASELINE in scores:
        axes.axvline(scores[BASELINE].mean(), color=INK, linewidth=1, linestyle=(0, (4, 3)))
    for row, (model, values) in enumerate(scores.items()):
        dots_and_interval(axes, row, values, looks[model])
        spread = f" ± {values.std(ddof=1):.1f}" if values.size > 1 else ""
        right_of(axes, row, f"{values.mean():.1f}{spread}")
    several = max(map(np.size, scores.values())) > 1
    column_head(axes, "mean ± std" if several else "value")
    name_rows(axes, list(scores))
    axes.set_xlabel(f"test {metric_of(runs)} (%)")
    axes.set_title(title_of(dataset, count_seeds(runs)), loc="left")
    return figure


@styled
def difference(records: Sequence[Record], dataset: str | None = None) -> Figure | None:
    r"""The paired difference of each model to the baseline, seed by seed."""
    runs = runs_of(records, dataset)
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
    figure, axes = figure_of_rows(len(paired))
    axes.axvline(0, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    for row, (model, values) in enumerate(paired.items()):
        dots_and_interval(axes, row, values, looks[model])
        half = half_width(values)
        text = f"{values.mean():+.1f}"
        if half is not None:
            text += f"  [{values.mean() - half:+.1f}, {values.mean() + half:+.1f}]"
        right_of(axes, row, text.replace("-", "−"))
    several = any(values.size > 1 for values in paired.values())
    column_head(axes, "mean [95 %]" if several else "value")
    name_rows(axes, list(paired))
    axes.set_xlabel(f"difference to {BASELINE} in test {metric_of(runs)} (percentage points)")
    axes.set_title(title_of(dataset, count_seeds(runs)), loc="left")
    return figure


@styled
def learning_curves(records: Sequence[Record], dataset: str | None = None) -> Figure | None:
    r"""Losses and validation metric over the epochs: the mean over seeds, and their spread."""
    runs = runs_of(records, dataset)
    panels = (
        ("train_loss", "training loss", 1.0),
        ("val_loss", "validation loss", 1.0),
        ("val", f"validation {metric_of(runs)} (%)", 100.0),
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
        Line2D([], [], color=look.color, linestyle=look.line, label=shortened(model))
        for model, look in looks.items()
        if model in runs
    ]
    handles.append(Line2D([], [], color="#777777", marker="o", linestyle="", label="epoch that was kept"))
    grid[3].legend(handles=handles, loc="center", ncols=math.ceil(len(handles) / 13), handlelength=3)
    headline(figure, title_of(dataset, count_seeds(runs)))
    return figure


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


@styled
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
    figure, *_ = figure_of_rows(len(models), axes=False)
    grid = figure.subplots(1, 2 if has_memory else 1, sharey=True, squeeze=False).flatten()
    for axes, name in zip(grid, ("seconds_ratio", "memory_ratio"), strict=False):
        largest, smallest = 1.0, 1.0
        for row, (model, entry) in enumerate(models.items()):
            value = finite_numbers(entry.get(name))
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
            right_of(axes, row, f"{middle:.2f}×")
        axes.axvline(1, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        if largest > 20 * smallest > 0:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_xlim(0, 1.08 * largest)
            axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.grid(True, axis="x")
        name_rows(axes, list(models))
        what = "epoch time" if name == "seconds_ratio" else "peak memory"
        axes.set_xlabel(f"{what} / that of {shortened(baseline)}")
    grid[0].set_title(title_of(dataset, 0), loc="left")
    return figure
