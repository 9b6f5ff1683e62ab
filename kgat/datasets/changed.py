r"""Graphs with fewer labels, with edges that mean nothing, or with noise in their features."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch_geometric.utils import coalesce

from kgat.datasets import splits
from kgat.datasets.task import Split, Task

__all__ = ["changed"]

MOST = 10_000  # per cent
POOL, VAL = 100, 30  # nodes of a class that may be for training, and that are for validating


def changed(task: Task, amount: int, change: str) -> Task:
    r"""Changes a task, to see what a model makes of it.

    - :obj:`"labels"`: so many training nodes of each class, as :obj:`"Cora-5-labels"`. Twenty splits are
      drawn; of each class 30 nodes are for validating (a third, if there are fewer), 100 may be for training
      (a third) and the others are for testing, which are the same for any amount up to 100.
    - :obj:`"edges"`: so many per cent more edges are drawn, each between two nodes, uniformly, as
      :obj:`"Cora-25-edges"`; in both directions where all edges of the graph are. A draw that is there
      already, or leads from a node to itself, adds none.
    - :obj:`"noise"`: Gaussian noise on features, with so many per cent of the standard deviation of all of
      them, as :obj:`"Cora-50-noise"`. Sparse features become dense.

    What is drawn follows from the names alone.

    Args:
        task (Task): A task on the nodes of one graph.
        amount (int): How much.
        change (str): One of the three.

    Raises:
        ValueError: If the task is another, or the amount is none of this change.

    Example:
        >>> from kgat.datasets import load
        >>> task = load("digits-5-labels")
        >>> task.name, int(task.split(0).train.sum()), len(task.splits)
        ('digits-5-labels', 50, 20)
    """
    name = f"{task.name}-{amount}-{change}"
    if type(task) is not Task:
        raise ValueError(f"Expected nodes of one graph for '{name}' (got {type(task).__name__}); name one")
    if amount < 1:
        raise ValueError(f"Expected at least 1 in '{name}' (got {amount}); name the data set alone for none")
    if amount > MOST and change != "labels":
        raise ValueError(f"Expected at most {MOST} % (got {amount} in '{name}'); ask for less")
    done = {"labels": _with_labels, "edges": _with_edges, "noise": _with_noise}[change](task, amount, name)
    return dataclasses.replace(done, name=name)


def _with_labels(task: Task, amount: int, name: str) -> Task:
    if task.kind not in ("multiclass", "binary"):
        raise ValueError(f"Expected classes for '{name}' (got a {task.kind} task); name one with classes")
    if amount > POOL:
        raise ValueError(
            f"Expected at most {POOL} labels of a class (got {amount} in '{name}'); ask for fewer"
        )
    y = task.data.y.numpy()
    drawn = [
        splits.draw(f"{task.name}/labels", i, y, partial(_labels, amount=amount))
        for i in range(splits.NUM_SPLITS)
    ]
    masks = enumerate(map(torch.from_numpy, drawn))
    of_amount = tuple(Split(f"random-{i}", train=m == 1, val=m == 2, test=m == 3) for i, m in masks)
    least = min(int(np.unique(y[part == 1], return_counts=True)[1].min()) for part in drawn)
    fewer = f", {least} or more of those with less than {3 * amount}" if least < amount else ""
    said = f"{task.preprocessing}; {amount} training nodes of each class{fewer}"
    return dataclasses.replace(task, splits=of_amount, preprocessing=said)


def _labels(order: np.ndarray, y: np.ndarray, *, amount: int) -> np.ndarray:
    part = np.zeros(len(y), dtype=np.uint8)
    for label in np.unique(y[order]):
        nodes = order[y[order] == label]
        third = max(1, len(nodes) // 3)
        pool, val = min(POOL, third), min(VAL, third)
        part[nodes[:pool][:amount]] = 1
        part[nodes[pool : pool + val]] = 2
        part[nodes[pool + val :]] = 3
    return part


def _with_edges(task: Task, amount: int, name: str) -> Task:
    data = task.data.clone()
    if data.edge_attr is not None:
        raise ValueError(f"Expected a graph without edge attributes for '{name}'; none can be drawn")
    edge_index, num_nodes = data.edge_index, int(data.x.size(0))
    both = _is_symmetric(edge_index, num_nodes)
    count = edge_index.size(1) * amount // (100 * (1 + both))
    drawn = splits.words(f"{task.name}/edges", 2 * count) % max(num_nodes, 1)
    more = torch.from_numpy(drawn.astype(np.int64)).view(2, count)
    more = more[:, more[0] != more[1]]
    pieces = [edge_index, more, more.flip(0)] if both else [edge_index, more]
    data.edge_index = coalesce(torch.cat(pieces, dim=1), num_nodes=num_nodes, sort_by_row=False)
    added = (data.edge_index.size(1) - edge_index.size(1)) // (1 + both)
    said = f"{task.preprocessing}; {added} more edges, of {amount} % drawn between nodes at random"
    return dataclasses.replace(task, data=data, preprocessing=said)


def _is_symmetric(edge_index: Tensor, num_nodes: int) -> bool:
    row, col = edge_index
    return torch.equal((row * num_nodes + col).unique(), (col * num_nodes + row).unique())


def _with_noise(task: Task, amount: int, name: str) -> Task:
    data = task.data.clone()
    x = data.x if data.x.layout == torch.strided else data.x.to_dense()
    seed = int(splits.words(f"{task.name}/noise", 1)[0] >> np.uint64(1))
    generator = torch.Generator("cpu").manual_seed(seed)
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device="cpu")
    data.x = x + amount / 100 * x.std() * noise
    said = f"{task.preprocessing}; noise of {amount} % of the features' standard deviation"
    return dataclasses.replace(task, data=data, preprocessing=said)
