r"""What attention costs on sequences, as they grow."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from kgat.experiments.plots.look import PALETTE, WIDTH
from kgat.experiments.plots.plot import Looks, plot
from kgat.experiments.plots.selection import Record
from kgat.experiments.records import SEQUENCE_BASELINE


@plot(lambda records, _: [record for record in records if record.get("kind") == "sequence cost"])
def sequence_costs(records: Sequence[Record], looks: Looks, dataset: str) -> Figure:
    r"""Draws time, how fast that is in turns with the baseline, and peak memory against the number of tokens,
    on log scales."""
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    panels = figure.subplots(1, 3, sharex=True)
    for number, subject in enumerate(dict.fromkeys(record["subject"] for record in records)):
        of_subject = [r for r in records if r["subject"] == subject and "failed" not in r]
        of_subject.sort(key=lambda record: record["length"])
        lines = (
            [(r["length"], 1e3 * r["seconds"][0]) for r in of_subject],
            [(r["length"], r["speed"][0]) for r in of_subject if r.get("speed")],
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
    # Lines that lie upon each other in the first panel do not in the second.
    panels[1].axhline(1.0, color="#666666", linewidth=1.0, linestyle="--", zorder=1)
    titles = ("time, ms", f"speed, {SEQUENCE_BASELINE} = 1", "peak memory, MB")
    for axes, title in zip(panels, titles, strict=True):
        axes.set(xscale="log", yscale="log", xlabel="tokens")
        axes.set_title(title, loc="left")
        axes.grid(True)
    ratios = panels[1].yaxis
    ratios.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    ratios.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}"))
    ratios.set_minor_formatter(NullFormatter())
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure
