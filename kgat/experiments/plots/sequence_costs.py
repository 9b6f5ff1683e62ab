r"""What attention costs on sequences, as they grow."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from kgat.experiments.plots.look import PALETTE, WIDTH
from kgat.experiments.plots.plot import Looks, plot
from kgat.experiments.plots.selection import Record


@plot(lambda records, _: [record for record in records if record.get("kind") == "sequence cost"])
def sequence_costs(records: Sequence[Record], looks: Looks, dataset: str) -> Figure:
    r"""Draws time and peak memory against the number of tokens, on log scales."""
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True)
    for number, subject in enumerate(dict.fromkeys(record["subject"] for record in records)):
        of_subject = [r for r in records if r["subject"] == subject and "failed" not in r]
        of_subject.sort(key=lambda record: record["length"])
        lines = (
            [(r["length"], 1e3 * r["seconds"][0]) for r in of_subject],
            [(r["length"], r["bytes"] / 1e6) for r in of_subject if r["bytes"]],
        )
        for axes, points in zip(panels, lines, strict=True):
            axes.plot(
                *zip(*points, strict=True) if points else ([], []),
                marker="o",
                markersize=3.5,
                color=PALETTE[number % len(PALETTE)],
                linestyle="-" if number < len(PALETTE) else "--",
                label=subject,
            )
    for axes, title in zip(panels, ("time, ms", "peak memory, MB"), strict=True):
        axes.set(xscale="log", yscale="log", xlabel="tokens")
        axes.set_title(title, loc="left")
        axes.grid(True)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure
