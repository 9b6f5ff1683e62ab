r"""Figures of attention weights on a graph."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kgat.experiments.plots.draw import styled, styles
from kgat.experiments.plots.look import CLASS_COLORS, FAINT, UNLABELLED, WIDTH, headline, name_rows, shortened
from kgat.experiments.plots.selection import Record, attention_of, finite_numbers


@styled
def attention(records: Sequence[Record], dataset: str | None = None) -> Figure | None:
    r"""Attention on a real neighbourhood, one panel per model: the mean of the heads."""
    cuts = {
        model: record["neighbourhood"]
        for model, record in attention_of(records, dataset).items()
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
        axes.set_title(shortened(model, 26), fontsize=9.5)
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
        f"{shortened(str(dataset))}: node {first['center']} and its {_plural(first)}",
        x=0.01,
        ha="left",
        fontsize=10,
    )
    return figure


@styled
def entropy(records: Sequence[Record], dataset: str | None = None) -> Figure | None:
    r"""How evenly each head spreads its attention, per layer: one is uniform."""
    found = {
        model: record["layers"]
        for model, record in attention_of(records, dataset).items()
        if any(finite_numbers(layer["entropy"]).size for layer in record.get("layers") or [])
    }
    if not found:
        return None
    looks = styles(records)
    depth = max(map(len, found.values()))
    columns = min(depth, 2)
    rows = math.ceil(depth / columns)
    figure = Figure(figsize=(WIDTH, rows * (0.34 * len(found) + 0.9) + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    everything = [finite_numbers(layer["entropy"]) for layers in found.values() for layer in layers]
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
            values = finite_numbers(layer["entropy"])
            axes.plot(
                values, np.full(values.size, row), looks[model].marker, color=color, ms=5,
                mec="white", mew=0.6, alpha=0.9,
            )  # fmt: skip
        axes.set_title(f"layer {depth_of_panel + 1}", loc="left")
        axes.set_xlabel("normalised entropy (1 = uniform)")
        axes.grid(True, axis="x")
        name_rows(axes, list(found))
    left = max(0.0, math.floor(10 * (low - 0.02)) / 10)
    for axes in grid:
        axes.set_xlim(left, 1 + 0.03 * (1 - left))
    headline(figure, shortened(str(dataset)))
    return figure


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
