r"""Attention on a real neighbourhood, one panel per model: the mean of the heads."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import matplotlib as mpl
import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kgat.experiments.plots.look import (
    CLASS_COLORS,
    FAINT,
    UNLABELLED,
    WIDTH,
    figure_of_grid,
    headline,
    shortened,
)
from kgat.experiments.plots.plot import Looks, plot
from kgat.experiments.plots.selection import Chosen, with_field

Cut = Mapping[str, Any]  # the neighbourhood of a record


@plot(with_field("attention", "neighbourhood"), order=40)
def attention(chosen: Chosen, looks: Looks, dataset: str) -> Figure | None:
    r"""Attention in a real neighbourhood.

    A node with more neighbours than most whose neighbourhood mixes the most classes; the same node for every
    model, the model trained with the first seed, the first layer, the mean over its heads. Width and colour
    of an arrow are the weight that the node in the middle gives to that neighbour, the ring around it is the
    weight it gives to itself; these add up to one. Thin grey lines are other edges of the graph.
    """
    cuts = {model: record["neighbourhood"] for model, record in chosen.items()}
    cuts = {model: cut for model, cut in cuts.items() if cut.get("edges")}
    if not cuts:
        return None
    top = max((w[shown].max() for w, shown in map(_weights, cuts.values()) if shown.any()), default=1.0)
    # The scale reaches twice the uniform weight at least: uniform attention then looks moderate.
    fewest = min(sum(target == cut["center"] for _, target in cut["edges"]) for cut in cuts.values())
    top = max(float(top), 2 / max(fewest, 2))
    scale = Normalize(0, top)
    shades = mpl.colormaps["magma_r"](np.linspace(0.12, 0.95, 256))
    colors = LinearSegmentedColormap.from_list("weights", shades)
    classes = _class_colors(cuts.values())

    columns = min(3, len(cuts)) if len(cuts) != 4 else 2
    figure, grid = figure_of_grid(len(cuts), columns, WIDTH / max(columns, 2), more=0.9)
    everywhere = list(figure.axes)
    for axes, (model, cut) in zip(grid, cuts.items(), strict=True):
        _draw_neighbourhood(axes, cut, scale, colors, classes)
        axes.set_title(shortened(model, 26), fontsize=9.5)
    shrink = min(0.6, 3.0 / figure.get_figheight())
    legend = mpl.cm.ScalarMappable(scale, colors)
    bar = figure.colorbar(legend, ax=everywhere, shrink=shrink, aspect=24, pad=0.02)
    bar.set_label("attention weight α (mean of the heads)")
    bar.outline.set_visible(False)  # type: ignore[operator]
    present = {label for cut in cuts.values() for label in cut["labels"]}
    named = [label for label in sorted(present) if label in classes]
    first = next(iter(cuts.values()))
    names = {label: f"class {label}" for label in named}
    names |= {int(label): shortened(name, 20) for label, name in first.get("classes", {}).items()}
    handles = [_class_handle(classes[label], names[label]) for label in named if label >= 0]
    if len(named) < len(present) or -1 in named:
        handles.append(_class_handle(UNLABELLED, "other or unknown class"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(5, len(handles)))
    headline(
        figure,
        f"{dataset}: node {shortened(str(first.get('name', first['center'])), 20)} and its {_plural(first)}",
    )
    return figure


def _weights(cut: Cut) -> tuple[np.ndarray, np.ndarray]:
    r"""Of each edge its weight, the mean of the heads, and whether it is drawn with it."""
    targets = set(cut.get("targets") or [cut["center"]])
    weights = np.array([np.mean(alpha) for alpha in cut["alpha"]])
    return weights, np.array([target in targets for _, target in cut["edges"]])


def _plural(cut: Cut) -> str:
    drawn = len(cut.get("nodes") or cut["labels"]) - 1
    total = cut.get("degree", drawn)
    if cut.get("hops", 1) > 1:
        return f"{cut['hops']}-hop neighbourhood ({drawn} nodes drawn)"
    if drawn < total:
        return f"{total} neighbours ({drawn} drawn)"
    return f"{total} neighbour{'s' * (total != 1)}"


def _class_colors(cuts: Iterable[Cut]) -> dict[int, str]:
    r"""The most frequent classes have a colour of their own, the others that of unknown ones."""
    counts = Counter(label for cut in cuts for label in cut["labels"])
    ranked = sorted((label for label in counts if label >= 0), key=lambda c: (-counts[c], c))
    chosen = sorted(ranked[: len(CLASS_COLORS)])
    return dict(zip(chosen, CLASS_COLORS, strict=False))


def _class_handle(color: str, label: str) -> Line2D:
    return Line2D([], [], marker="o", linestyle="", color=color, ms=8, label=label)


def _positions(cut: Cut) -> dict[int, np.ndarray]:
    r"""The center in the middle and the others around it, ordered by class so that classes stay
    together; on two rings if there are many."""
    nodes = cut.get("nodes") or sorted({node for edge in cut["edges"] for node in edge})
    labels = dict(zip(nodes, cut["labels"], strict=False))
    others = sorted(set(nodes) - {cut["center"]}, key=lambda node: (labels.get(node, -1), node))
    places = {cut["center"]: np.zeros(2)}
    for number, node in enumerate(others):
        angle = math.pi / 2 + 2 * math.pi * number / len(others)
        radius = 1.0 if len(others) <= 14 or number % 2 == 0 else 0.68
        places[node] = radius * np.array([math.cos(angle), math.sin(angle)])
    return places


def _draw_neighbourhood(
    axes: Axes, cut: Cut, scale: Normalize, colors: Colormap, classes: Mapping[int, str]
) -> None:
    places = _positions(cut)
    nodes = list(places)
    labels = dict(zip(cut.get("nodes") or nodes, cut["labels"], strict=False))
    size = 170 if len(nodes) <= 15 else 70
    own, context, edges, weight_of = {}, [], [], []
    for (source, target), weight, is_shown in zip(cut["edges"], *_weights(cut), strict=True):
        if source == target:
            own[source] = weight
        elif source in places and target in places and is_shown:
            edges.append((source, target))
            weight_of.append(float(weight))
        elif source in places and target in places:
            context.append((source, target))
    graph = nx.DiGraph()
    graph.add_nodes_from(nodes)
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
    axes.set(xlim=(-1.25, 1.25), ylim=(-1.25, 1.25), aspect="equal")
    axes.axis("off")
