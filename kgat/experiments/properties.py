r"""What a graph is like, and whether that says where a family of kernels gains."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kgat.datasets import Task
from kgat.experiments.equal_settings import at_equal_settings, cell
from kgat.experiments.statistics import holm, wilcoxon
from kgat.experiments.table import Cell, Table, number
from kgat.experiments.verdict import Verdict
from kgat.names import change_of

__all__ = ["PROPERTIES", "blocks", "by_edges", "properties", "rule_of_thumb"]

Record = Mapping[str, Any]

# As tables call them.
PROPERTIES = {
    "degree": "mean degree",
    "labels": "labels per class",
    "homophily": "homophily",
    "adjusted_homophily": "adjusted homophily",
    "similarity": "similarity of features and labels",
}
GAUGED = {"classes": "number of classes", **PROPERTIES}  # which may go with the gain
EDGES = 200_000  # of which similarities are taken
PIECE = 4096  # of them at a time
NEAREST = re.compile(r"\bedges (?:to|from) the \d+ nearest\b")  # what data sets say of edges that nobody gave
GRAPHS = 8  # with fewer, a half says nothing
HELPFUL = 0.9  # of the error without a rule, below which one is of use


def properties(task: Task) -> dict[str, Any]:
    r"""Measures what may decide whether attention by similarity pays.

    Homophily is the share :math:`h` of edges between nodes of the same class, self-loops left out. Adjusted
    homophily, :math:`(h - \sum_k p_k^2) / (1 - \sum_k p_k^2)` with the share :math:`p_k` of the ends of
    edges in class :math:`k`, is 0 where edges ignore classes (Platonov et al., NeurIPS 2023). Similarity is
    the correlation, along edges, between the cosine of raw features and whether labels agree (minus the
    distance of values, in regression). Numbers of nodes for training, validation and testing, and labels per
    class, are those of the first split. Whether edges join nearest points is what the data set says of
    itself.

    Args:
        task (Task): A task of nodes.

    Returns:
        dict: A record of kind :obj:`"graph"`; what a graph has none of is :obj:`None`.

    Raises:
        ValueError: If the task is no task of nodes of one type.

    Example:
        >>> from kgat.datasets import load
        >>> found = properties(load("wine"))
        >>> found["nodes"], found["classes"], found["homophily"] > 0.8
        (178, 3, True)
    """
    if task.level != "node" or getattr(task, "target", None) is not None:
        raise ValueError(
            f"Expected a task of nodes of one type (got '{task.name}', of {task.level}s); choose another "
            "data set"
        )
    data, y = task.data, task.data.y
    y = y.squeeze(1) if y.dim() == 2 and y.size(1) == 1 else y
    row, col = data.edge_index[:, data.edge_index[0] != data.edge_index[1]]
    split = task.split(0)
    of_split = [
        int(part.sum()) if part.dtype == torch.bool else part.numel()
        for part in (split.train, split.val, split.test)
    ]
    is_class = task.kind in ("multiclass", "binary")
    change = change_of(task.name)  # edges at random join no nearest points
    found: dict[str, Any] = {
        "kind": "graph",
        "dataset": task.name,
        "nodes": data.num_nodes,
        "edges": row.numel(),
        "features": data.num_features,
        "classes": task.num_classes if is_class else None,
        "degree": row.numel() / max(data.num_nodes, 1),
        "labels": of_split[0] / task.num_classes if is_class else None,
        "nodes_of_split": of_split,
        "nearest": bool(NEAREST.search(task.preprocessing)) and not (change and change[2] == "edges"),
        **dict.fromkeys(("homophily", "adjusted_homophily", "similarity")),
    }
    if y.dim() > 1:
        return found
    known = ~y.isnan() if y.is_floating_point() else y >= 0
    row, col = (ends[known[row] & known[col]] for ends in (row, col))
    if is_class and row.numel():
        same = float((y[row] == y[col]).double().mean())
        ends = torch.bincount(y[torch.cat([row, col])].long()).double()
        chance = float((ends / ends.sum()).square().sum())
        found["homophily"] = same
        found["adjusted_homophily"] = (same - chance) / (1 - chance) if chance < 1 else None
    found["similarity"] = _similarity(data.x, y.double(), row, col, is_class)
    return found


def _similarity(x: Tensor, y: Tensor, row: Tensor, col: Tensor, is_class: bool) -> float | None:
    if row.numel() < 3:
        return None
    chosen = torch.randperm(row.numel(), generator=torch.Generator().manual_seed(0))[:EDGES]
    row, col = row[chosen], col[chosen]
    x = torch.nn.functional.normalize((x.to_dense() if x.layout != torch.strided else x).float())
    pieces = zip(row.split(PIECE), col.split(PIECE), strict=True)
    cosines = torch.cat([(x[start] * x[end]).sum(dim=1) for start, end in pieces])
    alike = (y[row] == y[col]).double() if is_class else -(y[row] - y[col]).abs()
    if min(float(cosines.std()), float(alike.std())) < 1e-9:
        return None
    return float(np.corrcoef(cosines.numpy(), alike.numpy())[0, 1])


def blocks(graphs: Iterable[Record], judged: Sequence[Verdict]) -> list[str | Table]:
    r"""Lays out what graphs are like beside the gain of a family, and whether the first says the second.

    Args:
        graphs (list of dict): Records of :func:`properties`.
        judged (list of Verdict): What :func:`kgat.experiments.verdict.verdicts` returned.
    """
    records = list(graphs)
    of_graphs = {record["dataset"]: record for record in records if record.get("kind") == "graph"}
    percent = [v for v in judged if v.differences and v.measure.percent]
    gains = _gains(percent)
    names = [name for name in of_graphs if name in gains]
    if not names:
        return []
    names.sort(key=lambda name: -gains[name])
    head = ["graph", "gain, points", "nodes", "classes", *PROPERTIES.values()]
    looked_at = any(v.entropies for v in percent)
    head += ["entropy of attention, stock", "and kernel"] * looked_at
    of_verdicts = {verdict.dataset: verdict for verdict in percent}
    equal = {
        name: at_equal_settings(
            (record for record in records if record.get("dataset") == name), of.family, of.stock
        ).get(name, [])
        for name, of in of_verdicts.items()
    }
    tried = any(equal.values())
    head += ["same settings, validation"] * tried
    rows = [
        [
            name,
            number(gains[name], "{:+.1f}"),
            number(of_graphs[name]["nodes"], "{:,}"),
            number(of_graphs[name]["classes"], "{}"),
            *(_property(of_graphs[name][entry]) for entry in PROPERTIES),
            *_entropies(of_verdicts[name]) * looked_at,
            *[cell(equal[name], of_verdicts[name].measure)] * tried,
        ]
        for name in names
    ]
    measured = {name: {entry: of_graphs[name][entry] for entry in GAUGED} for name in names}
    return [
        *by_edges(records, judged),
        Table(head, rows),
        *[SAME.format(*_trials(equal.values()))] * tried,
        *_nearer_to_the_mean(percent),
        _correlations(measured, gains),
        rule_of_thumb(measured, gains),
    ]


SAME = (
    "Entropies are those of seed 0, where 1 is a plain mean over neighbours. Same settings: trials of the "
    "family that had the settings of a trial of the stock layer, so that they differ in attention and in "
    "what stock attention does not have (`projections`, `start`, `decay_kernels`): the median difference on "
    "validation nodes, and in how many trials the family, each time with a kernel drawn anew, was better : "
    "worse. Over all graphs it was better in {} and worse in {}."
)


def _property(value: float | None) -> Cell:
    return number(value, "{:.3g}" if value is None or abs(value) < 1000 else "{:,.0f}")


def _trials(of_graphs: Iterable[Sequence[float]]) -> tuple[int, int]:
    differences = [round(difference, 10) for of_graph in of_graphs for difference in of_graph]
    return sum(d > 0 for d in differences), sum(d < 0 for d in differences)


def _nearer_to_the_mean(judged: Sequence[Verdict]) -> list[str]:
    known = [v for v in judged if {v.stock, v.family} <= v.entropies.keys()]
    if not known:
        return []
    nearer = sum(v.entropies[v.family] > v.entropies[v.stock] for v in known)
    return [
        f"Attention of the family is nearer to a plain mean than the stock layer's on {nearer} of "
        f"{len(known)} graphs."
    ]


def _gains(judged: Sequence[Verdict]) -> dict[str, float]:
    return {
        v.dataset: 100 * float(np.mean(v.differences)) for v in judged if v.differences and v.measure.percent
    }


def by_edges(graphs: Iterable[Record], judged: Sequence[Verdict]) -> list[str]:
    r"""Says how a family does where edges join nearest points, and where they are given; nothing if either
    has no graph.

    Args:
        graphs (list of dict): Records of :func:`properties`.
        judged (list of Verdict): What :func:`kgat.experiments.verdict.verdicts` returned.
    """
    nearest = {record["dataset"]: record.get("nearest") for record in graphs if record.get("kind") == "graph"}
    groups = {
        edges: [v for v in judged if nearest.get(v.dataset) is is_nearest and v.outcome != "open"]
        for edges, is_nearest in (("join nearest points", True), ("are given", False))
    }
    if not all(groups.values()):
        return []
    gains = _gains(judged)
    of_gains = {
        edges: np.array([gains[v.dataset] for v in of_group if v.dataset in gains])
        for edges, of_group in groups.items()
    }
    fresh = {
        edges: np.array([100 * np.mean(v.untried) for v in of_group if v.untried and v.measure.percent])
        for edges, of_group in groups.items()
    }
    p_values = holm({edges: wilcoxon(values) for edges, values in of_gains.items()})
    said = []
    for edges, of_group in groups.items():
        outcomes = [verdict.outcome for verdict in of_group]
        wins, ties, losses = (outcomes.count(outcome) for outcome in ("win", "tie", "loss"))
        text = (
            f"Where edges {edges}, on {len(outcomes)} graph{'s' * (len(outcomes) != 1)}, the family wins on "
            f"{wins}, ties on {ties} and loses on {losses}"
        )
        values, p_value = of_gains[edges], p_values[edges]
        if p_value is not None:
            text += (
                f"; on the {values.size} whose metric is a percentage its gain is {values.mean():+.1f} "
                f"points on average, the median {np.median(values):+.1f} (p = {p_value:.2g} over graphs)"
            )
        if (again := wilcoxon(fresh[edges])) is not None:
            text += (
                f", and {fresh[edges].mean():+.1f} on splits that no trial had (of {fresh[edges].size} "
                f"graphs, p = {again:.2g} unadjusted)"
            )
        said.append(f"{text}.".replace("-", "−"))
    return [f"{' '.join(said)} {OVER_GRAPHS * any(p is not None for p in p_values.values())}".strip()]


OVER_GRAPHS = "(Wilcoxon's test of mean gains, after Holm over both.)"


def _entropies(verdict: Verdict) -> list[Cell]:
    return [number(verdict.entropies.get(model), "{:.3f}") for model in (verdict.stock, verdict.family)]


def _correlations(measured: Mapping[str, Mapping[str, float | None]], gains: Mapping[str, float]) -> str:
    from scipy import stats  # slow to import

    said, p_values = {}, {}
    for entry, label in GAUGED.items():
        pairs = [(of[entry], gains[name]) for name, of in measured.items() if of[entry] is not None]
        if len(pairs) < GRAPHS or len({value for value, _ in pairs}) < 3:
            continue
        found = stats.spearmanr(*zip(*pairs, strict=True))
        said[label], p_values[label] = found.statistic, float(found.pvalue)
    if not said:
        return f"With fewer than {GRAPHS} graphs, nothing is said of what goes with the gain."
    adjusted = holm(p_values)
    parts = "; ".join(f"{label} {rho:+.2f} (p = {adjusted[label]:.2g})" for label, rho in said.items())
    return f"Spearman's correlation with the gain, p after Holm: {parts}.".replace("-", "−")


def rule_of_thumb(measured: Mapping[str, Mapping[str, float | None]], gains: Mapping[str, float]) -> str:
    r"""Fits the best single threshold on one half of the graphs, and says how it does on the other.

    Halves are every other graph in alphabetical order, so that nobody chose them.

    Args:
        measured (dict): Properties by graph.
        gains (dict): The gain by graph.

    Example:
        >>> gains = {name: 1.0 if number % 4 > 1 else -1.0 for number, name in enumerate("abcdefghijkl")}
        >>> rule_of_thumb({name: {"homophily": gain / 4 + 0.5} for name, gain in gains.items()}, gains)
        'Rule found on 6 graphs: homophily above 0.5: gain +1.0 points, else −1.0. On ... it holds there.'
    """
    names = sorted(measured)
    if len(names) < GRAPHS:
        return f"With fewer than {GRAPHS} graphs, no rule of thumb is tried."
    seen, unseen = names[::2], names[1::2]
    best: tuple[float, str, float, list[float]] | None = None
    for entry in next(iter(measured.values())):
        values = sorted({value for name in seen if (value := measured[name][entry]) is not None})
        for low, high in itertools.pairwise(values):
            threshold = (low + high) / 2
            sides = {name: _is_above(measured[name][entry], threshold) for name in seen}
            halves = [
                [gains[n] for n, is_above in sides.items() if is_above is side] for side in (True, False)
            ]
            if min(map(len, halves)) < 2:
                continue
            error = sum(float(np.square(np.array(half) - np.mean(half)).sum()) for half in halves)
            if best is None or error < best[0]:
                best = error, entry, threshold, [float(np.mean(half)) for half in halves]
    if best is None:
        return "No property splits the graphs."
    _, entry, threshold, (above, below) = best
    told = [above if _is_above(measured[name][entry], threshold) else below for name in unseen]
    truth = np.array([gains[name] for name in unseen])
    plain = np.mean([gains[name] for name in seen])
    error, usual = np.abs(truth - told).mean(), np.abs(truth - plain).mean()
    verdict = "it does not hold there"
    if error < usual:
        verdict = "it holds there" if error < HELPFUL * usual else "it is hardly better there than that mean"
    return (
        f"Rule found on {len(seen)} graphs: {GAUGED.get(entry, entry)} above {threshold:.3g}: gain "
        f"{above:+.1f} points, else {below:+.1f}. On the {len(unseen)} others it is off by {error:.1f} "
        f"points on average, the mean gain of the first half by {usual:.1f}: {verdict}."
    ).replace("-", "−")


def _is_above(value: float | None, threshold: float) -> bool:
    return value is not None and value > threshold
