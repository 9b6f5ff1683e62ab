r"""Several graphs whose nodes are the task: some to train on, others that training does not see."""

from collections.abc import Sequence
from typing import Any

import torch
from torch_geometric.data import Data

from kgat.datasets.graph_task import Graphs
from kgat.datasets.task import Split, Task
from kgat.datasets.whole_numbers import signed_data

__all__ = ["inductive"]


def inductive(
    name: str,
    train: Sequence[Data],
    val: Sequence[Data],
    test: Sequence[Data],
    metric: str = "accuracy",
    num_classes: int | None = None,
    source: str = "data of one's own",
    preprocessing: str = "sorted by target",
    kind: str | None = None,
) -> Task:
    r"""Returns a task on the nodes of several graphs, as of proteins in tissues: the model is trained on
    some, chosen on others and scored on graphs of which training sees neither labels nor features nor edges.

    Args:
        name (str): The name.
        train (list of Data): Graphs for training, with :obj:`x`, :obj:`edge_index`, :obj:`y` and optionally
            :obj:`edge_attr`.
        val (list of Data): Graphs for validation.
        test (list of Data): Graphs for testing.
        metric (str, optional): The metric. (default: :obj:`"accuracy"`)
        num_classes (int, optional): Number of classes; what labels say if :obj:`None`. (default: :obj:`None`)
        source (str, optional): Where the data come from. (default: :obj:`"data of one's own"`)
        preprocessing (str, optional): What was done to them. (default: :obj:`"sorted by target"`)
        kind (str, optional): As of :class:`Task`. (default: :obj:`None`)

    Raises:
        ValueError: If a part has no graphs, or if graphs do not fit together.
        IndexError: If an edge or a class is out of range.

    Example:
        >>> graphs = [Data(torch.eye(2), torch.tensor([[0, 1], [1, 0]]), y=torch.tensor([0, 1]))] * 3
        >>> task = inductive("made", graphs[:1], graphs[1:2], graphs[2:])
        >>> task.visible(task.split(0)).x.size(0), task.data.x.size(0)
        (4, 6)
    """
    parts = {"train": list(train), "val": list(val), "test": list(test)}
    for part, graphs in parts.items():
        if not graphs:
            raise ValueError(
                f"Expected graphs in '{part}' of '{name}' (got none); give each part at least one"
            )
    several = [signed_data(graph, f"'{name}'") for graphs in parts.values() for graph in graphs]
    together = Graphs.of(name, several)
    for number, graph in enumerate(several):
        if graph.y is None or graph.y.size(0) != graph.x.size(0):
            got = "none" if graph.y is None else list(graph.y.shape)
            raise ValueError(
                f"Expected labels 'y' for the {graph.x.size(0)} nodes of graph {number} of '{name}' (got "
                f"{got}); pass one row per node"
            )
    y = torch.cat([graph.y for graph in several])
    everything: Any = together.batch_of(torch.arange(len(several)))
    everything.y = y
    if num_classes is None:
        columns = 1 if y.dim() == 1 else y.size(1)
        num_classes = columns if y.is_floating_point() else int(y.max()) + 1
    order = torch.arange(len(several))
    first_val, first_test = len(parts["train"]), len(parts["train"]) + len(parts["val"])
    masks = (order < first_val, (order >= first_val) & (order < first_test), order >= first_test)
    known = ~y.isnan().view(len(y), -1).all(1) if y.is_floating_point() else y >= 0
    split = Split("graphs", *(mask[everything.batch] & known for mask in masks))
    return Task(name, everything, (split,), metric, num_classes, source, preprocessing, kind)
