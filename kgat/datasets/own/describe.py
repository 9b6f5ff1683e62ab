r"""One line that says how a graph was understood."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.utils import is_undirected

from kgat.datasets.hetero_task import HeteroTask
from kgat.datasets.own.raw import counted
from kgat.datasets.task import Task

__all__ = ["describe"]

PIECE = 1 << 22  # edges that are looked at together
NAMED = 6  # classes in the line; of more only the largest and the smallest


def describe(task: Task) -> str:
    r"""Says in one line what a task on the nodes of a graph is: its size, directions, isolated nodes,
    features, classes and their balance, homophily, what is predicted, by which metric and on which splits,
    and what was done to it.

    Homophily is the share of edges between nodes of the same class, among edges between labelled nodes.

    Args:
        task (Task): The task.

    Example:
        >>> from kgat.datasets import load
        >>> describe(load("karate"))
        'karate: 34 nodes, 78 undirected edges, 0 isolated, 34 features; predicts y: 2 classes (0 50.0 %,
        1 50.0 %), homophily 0.86, by accuracy; 20 splits, the first of 8 train, 10 val, 16 test;
        one-hot node identity, dense; undirected, no self-loops, no duplicate edges, sorted by target'
    """
    graph = _types(task) if isinstance(task, HeteroTask) else _graph(task)
    split = task.splits[0]
    sizes = ", ".join(f"{int(getattr(split, part).sum()):,} {part}" for part in ("train", "val", "test"))
    several = f"{len(task.splits)} splits, the first of" if len(task.splits) > 1 else "a split of"
    return (
        f"{task.name}: {graph}; predicts {_target(task)}, by {task.metric}; {several} {sizes}; "
        f"{task.preprocessing}"
    )


def _graph(task: Task) -> str:
    data = task.data
    nodes, edges = data.x.size(0), data.edge_index.size(1)
    undirected = data.get("undirected")  # of a graph that may exceed memory, said where it was written
    if undirected is None:
        undirected = is_undirected(data.edge_index, num_nodes=nodes)
    graphs = f" in {counted(len(data.graph_name), 'graph')}" if "graph_name" in data else ""
    return (
        f"{counted(nodes, 'node')}{graphs}, "
        f"{counted(edges // 2 if undirected else edges, 'un' * undirected + 'directed edge')}, "
        f"{_untouched(nodes, *data.edge_index):,} isolated, "
        f"{counted(data.x.size(1), 'feature')}{_of_edges(data.edge_attr)}"
    )


def _types(task: HeteroTask) -> str:
    data, target = task.data, task.target
    nodes = [f"{data[t].x.size(0):,} {t} ({counted(data[t].x.size(1), 'feature')})" for t in data.node_types]
    edges = [
        f"{data[e].edge_index.size(1):,} {' '.join(e)}{_of_edges(data[e].get('edge_attr'))}"
        for e in data.edge_types
    ]
    into = [data[e].edge_index[1] for e in data.edge_types if e[2] == target]
    reached = torch.cat(into) if into else torch.empty(0, dtype=torch.long)
    return (
        f"nodes {', '.join(nodes)}; directed edges {', '.join(edges) or 'none'}; "
        f"{_untouched(data[target].x.size(0), reached):,} {target} without in-edges"
    )


def _untouched(nodes: int, *ends: Tensor) -> int:
    touched = torch.zeros(nodes, dtype=torch.bool)
    for some in ends:
        touched[some] = True
    return int((~touched).sum())


def _of_edges(attr: Tensor | None) -> str:
    return "" if attr is None else f", {attr.size(1) if attr.dim() > 1 else 1} per edge"


def _labelled(task: Task) -> Any:
    return task.data[task.target] if isinstance(task, HeteroTask) else task.data


def _target(task: Task) -> str:
    y, name = task.y, _labelled(task).get("target", "y")
    if isinstance(task, HeteroTask):
        name += f" of {task.target}"
    known = ~y.isnan() if y.is_floating_point() else y >= 0
    without = int((~(known.any(dim=1) if known.dim() == 2 else known)).sum())
    rest = f", {counted(without, 'node')} without" if without else ""
    if y.dim() == 1 and not y.is_floating_point():
        return f"{name}: {task.num_classes} classes ({_balance(task)}){rest}{_homophily(task)}"
    values = y[known]
    if task.kind == "multilabel":
        columns = torch.nanmean(y, dim=0)
        return (
            f"{name}: {y.size(1)} labels, true for {columns.min():.1%} to {columns.max():.1%} of "
            f"the nodes{rest}"
        )
    several = f" in each of {y.size(1)} columns" if y.dim() == 2 else ""
    return (
        f"{name}: a number{several} from {values.min():g} to {values.max():g}, mean {values.mean():g}{rest}"
    )


def _balance(task: Task) -> str:
    y = task.y
    counts = torch.bincount(y[y >= 0], minlength=task.num_classes)
    names = _labelled(task).get("classes") or [str(i) for i in range(task.num_classes)]
    shares = [f"{name} {100 * share:.1f} %" for name, share in zip(names, counts / counts.sum(), strict=True)]
    if len(shares) <= NAMED:
        return ", ".join(shares)
    return f"{shares[int(counts.argmax())]} to {shares[int(counts.argmin())]}"


def _homophily(task: Task) -> str:
    if isinstance(task, HeteroTask):
        return ""
    y, alike, pairs = task.data.y, 0, 0
    for edges in task.data.edge_index.split(PIECE, dim=1):
        row, col = y[edges]
        known = (row >= 0) & (col >= 0)
        alike, pairs = alike + int((known & (row == col)).sum()), pairs + int(known.sum())
    return f", homophily {alike / pairs:.2f}" if pairs else ""
