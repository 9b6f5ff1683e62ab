r"""Epoch time and peak memory of each model, as ratios to the baseline."""

from matplotlib.figure import Figure

from kgat.experiments.plots.look import (
    INK,
    Style,
    few_ticks,
    figure_of_rows,
    name_rows,
    plain_log,
    reference_line,
    right_of,
    shortened,
)
from kgat.experiments.plots.plot import Looks, plot
from kgat.experiments.plots.selection import Record, finite_numbers, last_cost
from kgat.experiments.records import BASELINE


@plot(last_cost, order=120)
def cost(record: Record, looks: Looks, dataset: str) -> Figure | None:
    r"""Cost.

    Time of a training epoch and peak memory, measured in turns with the baseline in one process, as ratios to
    it. The marker is the median over the rounds, the bar their range.
    """
    models, baseline = record["models"], record.get("baseline", BASELINE)
    has_memory = any(entry.get("memory_ratio") is not None for entry in models.values())
    figure, grid = figure_of_rows(len(models), 2 if has_memory else 1)
    for axes, name in zip(grid, ("seconds_ratio", "memory_ratio"), strict=False):
        drawn = [1.0]
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
            drawn += map(float, value)
            right_of(axes, row, f"{middle:.2f}×")
        reference_line(axes, 1)
        if max(drawn) > 20 * min(drawn) > 0:
            plain_log(axes)
        else:
            axes.set_xlim(0, 1.08 * max(drawn))
            few_ticks(axes.xaxis, 5)
        name_rows(axes, list(models))
        what = "epoch time" if name == "seconds_ratio" else "peak memory"
        axes.set_xlabel(f"{what} / that of {shortened(baseline)}")
    grid[0].set_title(dataset, loc="left")
    return figure
