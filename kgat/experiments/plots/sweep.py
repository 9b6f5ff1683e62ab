r"""How the gain of models goes with labels, edges at random or noise."""

from itertools import product

from matplotlib.figure import Figure

from kgat.experiments.plots.look import figure_of_grid, shortened
from kgat.experiments.plots.plot import Looks, plot
from kgat.experiments.records import BASELINE
from kgat.experiments.sweep import AXES, Sweeps, sweeps


@plot(lambda records, _: sweeps(records))
def sweep(of_graphs: Sweeps, looks: Looks, dataset: str) -> Figure:
    r"""Difference to the baseline against the amount of a change.

    Mean over seeds, paired, with its 95 % interval.
    """
    # A row for each graph, a column for each change.
    names = list(dict.fromkeys(name for name, _ in of_graphs))
    changes = [change for change in AXES if any(change == of for _, of in of_graphs)]
    figure, grid = figure_of_grid(len(names) * len(changes), len(changes), 2.1, more=0.8, sharey="row")
    panels = dict(zip(product(names, changes), grid, strict=True))
    for which in panels.keys() - of_graphs.keys():
        panels[which].set_visible(False)
    for (name, change), (measure, of_amounts) in of_graphs.items():
        axes = panels[name, change]
        models = dict.fromkeys(model for of_models in of_amounts.values() for model in of_models)
        places = {amount: place for place, amount in enumerate(of_amounts)}
        for number, model in enumerate(name for name in models if name != BASELINE):
            points = [
                (places[amount] + 0.08 * number, of_models[model])
                for amount, of_models in of_amounts.items()
                if model in of_models and of_models[model].difference is not None
            ]
            x = [place for place, _ in points]
            y = [measure.scale * (summary.difference or 0.0) for _, summary in points]
            half = [
                0.0
                if summary.ci_high is None
                else measure.scale * (summary.ci_high - (summary.difference or 0.0))
                for _, summary in points
            ]
            look = looks[model]
            axes.errorbar(x, y, half, color=look.color, marker=look.marker, ms=4, ls=look.line, label=model)
        axes.axhline(0, color=looks[BASELINE].color, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_xticks(list(places.values()), list(map(str, places)))
        axes.set_xlabel(AXES[change])
        unit = "points" if measure.percent else measure.label
        axes.set_title(shortened(name), loc="left", fontsize=9.5)
        if change == next(of for of in changes if (name, of) in of_graphs):
            axes.set_ylabel(f"difference to {BASELINE}, {unit}")
        axes.grid(True)
    lines = {
        label: line for axes in grid for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=4)
    return figure
