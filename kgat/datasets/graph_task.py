r"""A task on whole graphs: each has a class, labels or values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch_geometric.data import Data

from kgat.brief import Brief
from kgat.datasets.digest import CONTENT, digest_of
from kgat.datasets.evaluator import official
from kgat.datasets.task import (
    Split,
    check_edges,
    check_features,
    check_kind,
    check_labels,
    check_metric,
    check_splits,
    kind_of,
    labelled,
    mask_of,
    masks_of,
    score_rows,
)

__all__ = ["GraphTask", "Graphs", "VisibleGraphs"]

SHOWN = 64  # graphs that figures look into


@dataclass(frozen=True, eq=False, repr=False)
class Graphs(Brief):
    r"""Many graphs in a few tensors, one after the other.

    Args:
        x (torch.Tensor): Features of all nodes.
        edge_index (torch.Tensor): Edges of all graphs, between nodes counted through all of them.
        edge_attr (torch.Tensor, optional): Features of all edges.
        node_ptr (torch.Tensor): Where the nodes of each graph begin, and the end.
        edge_ptr (torch.Tensor): Where the edges of each graph begin, and the end.

    Shapes:
        - **x:** :math:`(N, F)`, **edge_index:** :math:`(2, E)`, **node_ptr, edge_ptr:** :math:`(G + 1)`

    Example:
        >>> one = Data(x=torch.zeros(2, 3), edge_index=torch.tensor([[0, 1], [1, 0]]))
        >>> other = Data(x=torch.ones(1, 3), edge_index=torch.empty(2, 0, dtype=torch.long))
        >>> graphs = Graphs.of("made", [one, other, one])
        >>> len(graphs), graphs.batch_of(torch.tensor([1, 2])).edge_index.tolist()
        (3, [[2, 1], [1, 2]])
    """

    x: Tensor
    edge_index: Tensor
    edge_attr: Tensor | None
    node_ptr: Tensor
    edge_ptr: Tensor

    @classmethod
    def of(cls, name: str, graphs: Sequence[Data]) -> Graphs:
        r"""Puts graphs together, each sorted by target, then source.

        Args:
            name (str): What errors call them.
            graphs (list of Data): The graphs, with :obj:`x`, :obj:`edge_index` and optionally
                :obj:`edge_attr`.

        Raises:
            ValueError: If there are none, one has no nodes, or their features do not fit together.
            IndexError: If an edge leads out of its graph.
        """
        if len(graphs) == 0:
            raise ValueError(f"Expected at least one graph in '{name}' (got none); pass a list of Data")
        first = graphs[0]
        for number, graph in enumerate(graphs):
            where = f"graph {number} of '{name}'"
            check_features(where, graph.x)
            if graph.x.size(0) == 0:
                raise ValueError(f"Expected nodes in {where} (got none); leave that graph out")
            check_edges(where, graph, graph.x.size(0))
            for what in ("x", "edge_attr"):
                one, other = _width(getattr(first, what)), _width(getattr(graph, what))
                if one != other:
                    raise ValueError(
                        f"Expected as many columns of '{what}' in all graphs of '{name}' (got {one} in "
                        f"graph 0 and {other} in graph {number}); give all graphs the same features"
                    )
        xs = [graph.x.to_dense() if graph.x.layout != torch.strided else graph.x for graph in graphs]
        nodes = [graph.x.size(0) for graph in graphs]
        orders = [
            torch.argsort(graph.edge_index[1].long() * n + graph.edge_index[0], stable=True)
            for graph, n in zip(graphs, nodes, strict=True)
        ]
        node_ptr = torch.tensor([0, *nodes]).cumsum(0)
        edge_ptr = torch.tensor([0, *(graph.edge_index.size(1) for graph in graphs)]).cumsum(0)
        edges = [
            graph.edge_index.long()[:, order] + start
            for graph, order, start in zip(graphs, orders, node_ptr.tolist(), strict=False)
        ]
        has_attr = first.edge_attr is not None
        attrs = (
            [graph.edge_attr[order] for graph, order in zip(graphs, orders, strict=True)] if has_attr else []
        )
        return cls(
            torch.cat(xs).float(),
            torch.cat(edges, dim=1),
            torch.cat(attrs).float() if has_attr else None,
            node_ptr,
            edge_ptr,
        )

    def __len__(self) -> int:
        return self.node_ptr.numel() - 1

    def batch_of(self, index: Tensor) -> Data:
        r"""Returns some graphs as one, with :obj:`batch`, the graph of each node, and their number.

        Args:
            index (torch.Tensor): Numbers of graphs.

        Shapes:
            - **index:** :math:`(B)`
        """
        nodes, batch = _ranges(self.node_ptr, index)
        edges, of_edge = _ranges(self.edge_ptr, index)
        counts = (self.node_ptr[1:] - self.node_ptr[:-1])[index]
        moved = torch.cat([counts.new_zeros(1), counts.cumsum(0)[:-1]]) - self.node_ptr[:-1][index]
        data = Data(
            x=self.x.index_select(0, nodes),
            edge_index=self.edge_index.index_select(1, edges) + moved[of_edge],
            edge_attr=None if self.edge_attr is None else self.edge_attr.index_select(0, edges),
        )
        data.batch, data.num_graphs = batch, index.numel()
        return data

    def take(self, index: Tensor) -> Graphs:
        r"""Returns some graphs."""
        data = self.batch_of(index)
        ends = [
            torch.cat([pointer.new_zeros(1), (pointer[1:] - pointer[:-1])[index].cumsum(0)])
            for pointer in (self.node_ptr, self.edge_ptr)
        ]
        return Graphs(data.x, data.edge_index, data.edge_attr, *ends)


def _width(values: Tensor | None) -> int | None:
    return None if values is None else values.size(-1) if values.dim() > 1 else 1


def _ranges(pointer: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns the rows of some graphs, and for each the place of its graph among them."""
    counts = (pointer[1:] - pointer[:-1])[index]
    place = torch.repeat_interleave(torch.arange(index.numel(), device=index.device), counts)
    before = counts.cumsum(0) - counts
    rows = torch.arange(place.numel(), device=index.device) - before[place] + pointer[:-1][index][place]
    return rows, place


@dataclass(frozen=True, eq=False, repr=False)
class VisibleGraphs(Brief):
    r"""What training may see of a :class:`GraphTask`: its graphs for training and validation alone."""

    x: Tensor
    edge_index: Tensor
    edge_attr: Tensor | None
    node_ptr: Tensor
    edge_ptr: Tensor
    y: Tensor
    train: Tensor
    val: Tensor
    num_classes: int
    metric: str
    kind: str

    level: ClassVar[str] = "graph"

    @property
    def out_channels(self) -> int:
        r"""Columns of the output of a model."""
        return self.num_classes

    @property
    def graphs(self) -> Graphs:
        r"""The graphs."""
        return Graphs(self.x, self.edge_index, self.edge_attr, self.node_ptr, self.edge_ptr)


@dataclass(frozen=True, eq=False, repr=False)
class GraphTask(Brief):
    r"""Classification or regression of whole graphs.

    Args:
        name (str): The canonical name of the data set.
        graphs (list of Data or Graphs): The graphs, with :obj:`x`, :obj:`edge_index`, and optionally
            :obj:`edge_attr` and :obj:`y`.
        splits (tuple of Split): Masks of graphs.
        metric (str): One of :data:`kgat.datasets.metrics.METRICS` that scores this kind of task.
        num_classes (int): Number of classes, of labels, or of values of a regression.
        source (str): Where the data come from, in one line.
        preprocessing (str): What was done to them, in one line.
        kind (str, optional): As of :class:`Task`. (default: :obj:`None`)
        y (torch.Tensor, optional): A class per graph, or a row of labels or values; that of each graph, if
            :obj:`None`. (default: :obj:`None`)
        digest (str, optional): As of :class:`Task`. (default: :obj:`"content"`)

    Shapes:
        - **y:** :math:`(G)` or :math:`(G, T)`

    Raises:
        ValueError: If there are no graphs, one has no nodes, or if features, labels or masks do not fit.
        IndexError: If an edge or a class is out of range.

    Example:
        >>> edge_index = torch.tensor([[0, 1], [1, 0]])
        >>> graphs = [Data(x=torch.randn(2, 4), edge_index=edge_index, y=k % 2) for k in range(6)]
        >>> part = torch.arange(6) // 2
        >>> split = Split("thirds", part == 0, part == 1, part == 2)
        >>> task = GraphTask("made", graphs, (split,), "accuracy", 2, "made here", "none")
        >>> task.level, task.kind, len(task.visible(split).graphs)
        ('graph', 'binary', 4)
    """

    name: str
    graphs: Any
    splits: tuple[Split, ...]
    metric: str
    num_classes: int
    source: str
    preprocessing: str
    kind: str | None = None
    y: Any = field(default=None)
    digest: str | None = CONTENT

    level: ClassVar[str] = "graph"

    def __post_init__(self) -> None:
        check_metric(self.name, self.metric)
        y = self.y
        if not isinstance(self.graphs, Graphs):
            together = Graphs.of(self.name, self.graphs)
            y = _labels(self.name, self.graphs) if y is None else y
            object.__setattr__(self, "graphs", together)
        kind = self.kind or kind_of(y, self.metric, self.num_classes)
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "y", y)
        check_labels(self.name, kind, y, len(self.graphs), self.num_classes, "graph")
        check_kind(self.name, kind, self.metric, y, self.num_classes)
        check_splits(self.name, self.splits, labelled(y), "graph")
        if self.digest == CONTENT:
            content = [*vars(self.graphs).values(), y, *masks_of(self.splits), self.metric, kind]
            object.__setattr__(self, "digest", digest_of(content))

    @property
    def out_channels(self) -> int:
        r"""Columns of the output of a model."""
        return self.num_classes

    @property
    def data(self) -> Data:
        r"""A graph for diagnostics: the first graphs of the task, and as :obj:`y` the class of its graph for
        each node."""
        index = torch.arange(min(SHOWN, len(self.graphs)))
        data = self.graphs.batch_of(index)
        if self.y.dim() == 1 and not self.y.is_floating_point():
            data.y = self.y[index][data.batch]
        return data

    def split(self, seed: int) -> Split:
        r"""Returns the split that belongs to a seed: they take turns."""
        return self.splits[seed % len(self.splits)]

    def visible(self, split: Split) -> VisibleGraphs:
        r"""Returns the graphs that training may see."""
        seen = split.train | split.val
        graphs = self.graphs.take(seen.nonzero().view(-1))
        rows = self.y[seen].clone(), split.train[seen], split.val[seen]
        return VisibleGraphs(
            **vars(graphs), **dict(zip(("y", "train", "val"), rows, strict=True)), **self._kind()
        )

    def _kind(self) -> dict[str, Any]:
        return {"num_classes": self.num_classes, "metric": self.metric, "kind": str(self.kind)}

    def score(self, output: Tensor, split: Split, part: str) -> float:
        r"""Scores an answer on one part of a split, of OGB's sets as :meth:`Task.score` does.

        Args:
            output (torch.Tensor): One row of logits or values per graph.
            split (Split): The split.
            part (str): :obj:`"train"`, :obj:`"val"` or :obj:`"test"`.

        Shapes:
            - **output:** :math:`(G, C)` with :math:`C` = :obj:`num_classes`

        Raises:
            ValueError: If the output has the wrong shape or is not a number somewhere, or if the metric is
                not defined on the part.
        """
        mask = mask_of(split, part)
        expected = [len(self.graphs), self.num_classes]
        if list(output.shape) != expected:
            raise ValueError(
                f"Expected 'output' of shape [G, num_classes]={expected} (got {list(output.shape)}); return "
                "one row of logits per graph"
            )
        score = score_rows(self.name, self.metric, output, self.y, mask, part, "graph")
        return official(self, split, part, output, score)


def _labels(name: str, graphs: Sequence[Data]) -> Tensor:
    missing = [number for number, graph in enumerate(graphs) if graph.y is None]
    if missing:
        raise ValueError(
            f"Expected a label 'y' of each graph of '{name}' (got none of graph {missing[0]}); set it, to -1 "
            "or nan where it is unknown"
        )
    rows = [torch.as_tensor(graph.y) for graph in graphs]
    shapes = {tuple(row.shape) for row in rows}
    if len(shapes) > 1:
        raise ValueError(
            f"Expected labels 'y' of one shape in '{name}' (got {sorted(map(list, shapes))}); give all "
            "graphs as many"
        )
    y = torch.stack(rows)
    return y.view(len(y), -1).squeeze(1) if y[0].numel() == 1 else y.view(len(y), -1)
