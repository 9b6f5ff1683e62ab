r"""Graphs whose labels nobody knows: what a trained model is asked about."""

from __future__ import annotations

from dataclasses import dataclass

from kgat.datasets.task import Task, check_edges, check_features

__all__ = ["Unlabelled"]


@dataclass(frozen=True, eq=False, repr=False)
class Unlabelled(Task):
    r"""A graph without labels, splits and metric, encoded as that of a task.

    Args:
        name (str): What it is called.
        data (torch_geometric.data.Data): The graph.
    """

    def __post_init__(self) -> None:
        check_features(self.name, self.data.x)
        check_edges(self.name, self.data, self.data.x.size(0))
