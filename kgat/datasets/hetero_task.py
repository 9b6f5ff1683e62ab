r"""Tasks on the nodes of one type of a heterogeneous graph."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from kgat.datasets.task import Split, Task, Visible, check_edge_features, check_features, first
from kgat.names import unknown

__all__ = ["HeteroTask", "check_edges_of_type"]


@dataclass(frozen=True, eq=False, repr=False)
class HeteroTask(Task):
    r"""Classification or regression of the nodes of one type of a heterogeneous graph.

    Models are called as ``model(x_dict, edge_index_dict)`` and give a row for each node of this type, or a
    dictionary that has them.

    Args:
        *args: As :class:`Task`, with a :class:`~torch_geometric.data.HeteroData` as :obj:`data`: all types of
            nodes hold :obj:`x`, all types of edges :obj:`edge_index` and optionally :obj:`edge_attr`, and the
            target type :obj:`y`, which splits are of, too.
        target (str): The type of nodes that is asked for.
        **kwargs (optional): As :class:`Task`.

    Shapes:
        - **x:** :math:`(N_t, F_t)`, **edge_index:** :math:`(2, E_r)`, **y:** :math:`(N)` or :math:`(N, T)`

    Raises:
        ValueError: If features are not finite, or if types, shapes, labels or masks do not fit together.
        IndexError: If an edge or a label is out of range.

    Example:
        >>> from kgat.datasets import from_data
        >>> data = HeteroData()
        >>> data["paper"].x, data["paper"].y = torch.randn(30, 4), torch.arange(30) % 3
        >>> data["author"].x = torch.randn(5, 2)
        >>> data["author", "writes", "paper"].edge_index = torch.tensor([[0, 1, 2], [3, 4, 5]])
        >>> task = from_data(data)
        >>> task.target, task.num_classes, task.visible(task.split(0)).x["author"].shape
        ('paper', 3, torch.Size([5, 2]))
    """

    data: HeteroData  # type: ignore[assignment]
    target: str = ""

    def _check_graph(self) -> None:
        if self.target not in self.data.node_types:
            unknown(f"'target' as a type of nodes of '{self.name}'", self.target, self.data.node_types)
        for name in self.data.node_types:
            check_features(f"{self.name}, type '{name}'", self.data[name].get("x"))
        for edge in self.data.edge_types:
            check_edges_of_type(self.name, self.data, edge)

    def _content(self) -> Iterator[Tensor | str | None]:
        for name in self.data.node_types:
            yield from (name, self.data[name].x)
        for edge in self.data.edge_types:
            yield from ("|".join(edge), self.data[edge].edge_index, self.data[edge].get("edge_attr"))
        yield self.target

    @property
    def y(self) -> Tensor:
        r"""The labels."""
        return self.data[self.target].get("y")  # type: ignore[no-any-return]

    @property
    def _num_rows(self) -> int:
        return int(self.data[self.target].x.size(0))

    def visible(self, split: Split) -> Visible:
        r"""Returns the task without the labels that training must not see."""
        return Visible(
            x=self.data.x_dict,
            edge_index=self.data.edge_index_dict,
            edge_attr=self.data.collect("edge_attr", allow_empty=True) or None,
            y=self._visible_labels(split),
            train=split.train,
            val=split.val,
            num_classes=self.num_classes,
            metric=self.metric,
            kind=str(self.kind),
            target=self.target,
        )


def check_edges_of_type(name: str, data: HeteroData, edge: tuple[str, str, str]) -> None:
    r"""Refuses edges that are not between nodes that there are."""
    edge_index, edge_attr = data[edge].get("edge_index"), data[edge].get("edge_attr")
    of = f"{edge} in {name}"
    shape = None if edge_index is None else list(edge_index.shape)
    if (
        shape is None
        or len(shape) != 2
        or shape[0] != 2
        or edge_index.dtype not in (torch.int64, torch.int32)
    ):
        got = "none" if shape is None else f"{shape} {edge_index.dtype}"
        raise ValueError(
            f"Expected whole numbers of shape [2, E] as 'edge_index' of {of} (got {got}); row 0 has the "
            "sources, row 1 the targets"
        )
    for row, of_end in ((0, edge[0]), (1, edge[2])):
        nodes = data[of_end].num_nodes
        if nodes is None:
            raise ValueError(
                f"Expected features or the number of nodes of type '{of_end}' in {name} (got none); set "
                f"data['{of_end}'].num_nodes"
            )
        if at := first((edge_index[row] < 0) | (edge_index[row] >= nodes)):
            raise IndexError(
                f"Expected nodes of type '{of_end}' from 0 to {nodes - 1} in row {row} of 'edge_index' of "
                f"{of} (got {int(edge_index[row][at])} in edge {at[0]}); there are {nodes}, counted from 0"
            )
    if edge_attr is not None and edge_attr.size(0) != shape[1]:
        raise ValueError(
            f"Expected one row of 'edge_attr' per edge of {of}, {shape[1]} (got {edge_attr.size(0)}); pass "
            "both in the same order"
        )
    check_edge_features(of, edge_attr, edge_index)
