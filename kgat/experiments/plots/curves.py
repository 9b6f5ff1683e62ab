r"""Losses and validation metric over the epochs: the mean over seeds, and their spread."""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from kgat.experiments.plots.look import figure_of_grid, headline, shortened
from kgat.experiments.plots.plot import Looks, plot
from kgat.experiments.plots.selection import Runs, labelled, metric_of, runs_of, with_seeds


@plot(runs_of, order=30)
def learning_curves(runs: Runs, looks: Looks, dataset: str) -> Figure | None:
    r"""Learning curves.

    Mean over the seeds; the band is one standard deviation to either side. A run that stopped early keeps its
    last value, and a curve ends where half of its runs have stopped. The marker is the mean of the epochs
    that were kept.
    """
    metric = metric_of(runs)
    panels = (
        ("train_loss", "training loss", 1.0),
        ("val_loss", "validation loss", 1.0),
        ("val", f"validation {labelled(metric)}", metric.scale),
    )
    curves = {
        (model, name): _mean_curve([run.get("curve") or {} for run in of_model.values()], name)
        for model, of_model in runs.items()
        for name, _, _ in panels
    }
    if all(curve is None for curve in curves.values()):
        return None
    opacity = 0.15 if len(runs) <= 4 else 0.07  # many bands lie over one another
    figure, grid = figure_of_grid(4, 2, 2.7, more=0.0)
    for axes, (name, label, scale) in zip(grid, panels, strict=False):
        for model, of_model in runs.items():
            curve = curves[model, name]
            if curve is None:
                continue
            epoch, mean, spread = curve[0], scale * curve[1], scale * curve[2]
            look = looks[model]
            band = (mean - spread, mean + spread)
            axes.fill_between(epoch, *band, color=look.color, alpha=opacity, linewidth=0)
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
    headline(figure, with_seeds(dataset, runs))
    return figure


def _mean_curve(
    curves: list[Mapping[str, list[float]]], name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    r"""Epochs, mean and standard deviation. A run that stopped early keeps its last value, and the
    curve ends where half of the runs have stopped."""
    lines = []
    for curve in curves:
        epoch, value = (np.array(curve.get(key) or [], dtype=float) for key in ("epoch", name))
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
