r"""Figures of what kernels learned."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from kgat.experiments.plots.draw import styled, styles
from kgat.experiments.plots.look import (
    CLASS_COLORS,
    UNLABELLED,
    WIDTH,
    figure_of_panels,
    headline,
    power_of_ten,
    shaded,
    shortened,
)
from kgat.experiments.plots.selection import Record, attention_of, field_of, finite_numbers


@styled
def profile(records: Sequence[Record], dataset: str | None = None) -> Figure | None:
    r"""The kernel of each head as a function of the distance between query and key."""
    found = field_of(records, dataset, "profile")
    if not found:
        return None
    looks = styles(records)
    columns = 3 if len(found) > 2 else 2
    figure, grid = figure_of_panels(len(found), columns, 2.2)
    for number, (axes, (model, curve)) in enumerate(zip(grid, found.items(), strict=True)):
        distance, heads = np.array(curve["distance"]), curve["kernel"]
        color = looks[model].color
        lows, highs = curve.get("low") or heads, curve.get("high") or heads
        axes.fill_between(distance, np.min(lows, 0), np.max(highs, 0), color=color, alpha=0.15, linewidth=0)
        for head, shade in zip(heads, shaded(color, len(heads)), strict=True):
            axes.plot(distance, head, color=shade, linewidth=1.3)
        # The band of a kernel that grows exponentially may be a thousand times the median.
        axes.set_ylim(0, min(1.1 * np.max(highs), 2.0 * np.max(heads)) or 1.0)
        axes.set_xlim(0, distance[-1] or 1.0)
        axes.set_title(shortened(model, 24), fontsize=9.5)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.grid(True)
        axes.set_ylabel("k(r) / k(0)" if curve.get("normalised") != "maximum" else "k(r) / max k")
        if number + columns >= len(found):
            axes.set_xlabel("distance r = ‖q − k‖")
    headline(figure, f"{shortened(str(dataset))}: one line per head")
    return figure


@styled
def spectrum(records: Sequence[Record], dataset: str | None = None) -> Figure | None:
    r"""The singular values of the Gram matrix: the median of the heads and their range."""
    found = {
        model: record for model, record in attention_of(records, dataset).items() if record.get("spectrum")
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
        ranks = finite_numbers(record.get("effective_rank"))
        label = shortened(model)
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
    axes.yaxis.set_major_formatter(FuncFormatter(power_of_ten))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel("index of the singular value")
    axes.set_ylabel("singular value / largest")
    axes.grid(True)
    figure.legend(loc="outside right upper", handlelength=2.6)
    nodes = next(iter(found.values())).get("nodes_sampled")
    sample = f": Gram matrix of {nodes} nodes" if nodes else ""
    axes.set_title(f"{shortened(str(dataset))}{sample}", loc="left")
    return figure


@styled
def law(records: Sequence[Record], dataset: str | None = None) -> Figure | None:
    r"""The frequencies of spectral kernels: samples per head in their leading plane, and both marginals."""
    found = field_of(records, dataset, "law")
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
        for head, shade in zip(heads, shaded(looks[model].color, len(heads)), strict=True):
            main.plot(head[:, 0], head[:, 1], ".", color=shade, ms=2.6, alpha=0.6, mew=0)
            for axes, axis in ((top, 0), (right, 1)):
                counts, _ = np.histogram(head[:, axis], edges, density=True)
                line = (middles, counts) if axes is top else (counts, middles)
                axes.plot(*line, color=shade, linewidth=0.9)
        main.set_xlim(-limit, limit)
        main.set_ylim(-limit, limit)
        for axes in (top, right):
            axes.axis("off")
        top.set_title(shortened(model, 18), fontsize=9)
        main.set_xlabel(f"{100 * one['share']:.0f} % of variance", fontsize=8)
        main.xaxis.set_major_locator(MaxNLocator(3, symmetric=True))
        main.yaxis.set_major_locator(MaxNLocator(3, symmetric=True))
        main.grid(True)
    headline(
        figure, f"{shortened(str(dataset))}: frequencies along their two leading axes, one shade per head"
    )
    return figure


@styled
def heads(records: Sequence[Record], dataset: str | None = None) -> Figure | None:
    r"""How a copula ties the heads of a layer: the mean correlation over channels."""
    found = field_of(records, dataset, "head_correlation")
    if not found:
        return None
    columns = min(3, len(found))
    figure, grid = figure_of_panels(len(found), columns, 2.2, width=2.1 * columns + 0.9)
    for axes, (model, matrix) in zip(grid, found.items(), strict=True):
        image = axes.imshow(np.array(matrix, dtype=float), cmap="RdBu_r", vmin=-1, vmax=1)
        ticks = range(len(matrix))
        axes.set_xticks(ticks, [str(head + 1) for head in ticks])
        axes.set_yticks(ticks, [str(head + 1) for head in ticks])
        axes.set_title(shortened(model, 24), fontsize=9.5)
        axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=grid, label="correlation", shrink=0.8)
    headline(figure, f"{shortened(str(dataset))}: correlation of heads")
    return figure


@styled
def importance(records: Sequence[Record], dataset: str | None = None) -> Figure | None:
    r"""What the L^p magnitude of a node adds to every score, against its number of in-edges."""
    found = field_of(records, dataset, "importance")
    if not found:
        return None
    columns = min(3, len(found))
    figure, grid = figure_of_panels(len(found), columns, 2.4)
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
        axes.set_title(shortened(model, 24), fontsize=9.5)
        axes.grid(True)
        if number % columns == 0:
            axes.set_ylabel("added to the score")
        if number + columns >= len(found):
            axes.set_xlabel("in-edges")
    headline(figure, f"{shortened(str(dataset))}: importance of nodes, coloured by class")
    return figure


@styled
def image(records: Sequence[Record], dataset: str | None = None) -> Figure | None:
    r"""The kernel as an image: the Gram matrix of a few nodes, sorted by class, of the first heads."""
    found = field_of(records, dataset, "image")
    if not found:
        return None
    columns = max(len(one["values"]) for one in found.values())
    figure = Figure(figsize=(WIDTH, 1.75 * len(found) + 0.5), layout="constrained")
    grid = figure.subplots(len(found), columns, squeeze=False)
    for place, (row, (model, one)) in enumerate(zip(grid, found.items(), strict=True)):
        borders = np.flatnonzero(np.diff(one["labels"])) + 0.5 if one["labels"] else np.empty(0)
        lowest = min(
            float(finite_numbers(one["values"]).min()), 0.99
        )  # a kernel near 1 everywhere has shades too
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
                axes.set_ylabel(shortened(model, 18), fontsize=8.5)
            if place == 0:
                axes.set_title(f"head {number + 1}", fontsize=9)
        figure.colorbar(shown, ax=list(row), label="k / largest")
    headline(figure, f"{shortened(str(dataset))}: kernel between nodes, sorted by class")
    return figure


@styled
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
    figure, grid = figure_of_panels(len(found), columns, 2.4)
    longest = max(len(curve) for layers in found.values() for curve in layers)
    for number, (axes, (model, layers)) in enumerate(zip(grid, found.items(), strict=True)):
        shades = shaded(looks[model].color, len(layers))
        for place, (curve, shade) in enumerate(zip(layers, shades, strict=True)):
            marker = "o" if len(curve) == 1 else None
            label = f"layer {place + 1}" if place in (0, len(layers) - 1) else None
            axes.plot(np.arange(1, len(curve) + 1), curve, color=shade, marker=marker, ms=3, label=label)
        axes.set_xlim(0, longest + 1)
        axes.set_ylim(0, 1.03)
        axes.set_title(shortened(model, 24), fontsize=9.5)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.grid(True)
        axes.legend(loc="lower right")
        if number % columns == 0:
            axes.set_ylabel("share of the sum")
        if number + columns >= len(found):
            axes.set_xlabel("singular values")
    headline(
        figure, f"{shortened(str(dataset))}: the largest singular values of attention, one line per layer"
    )
    return figure
