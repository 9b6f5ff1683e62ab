r"""Training on whole graphs: some of them in each step."""

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from kgat.datasets import Graphs
from kgat.datasets.task import PARTS
from kgat.experiments.trainer import Trainer

__all__ = ["GraphTrainer"]

AT_ONCE = 512  # graphs that are looked at together where nothing is learned


class GraphTrainer(Trainer):
    r"""As :class:`~kgat.experiments.trainer.Trainer`, of whole graphs. An epoch takes each training graph
    once, in an order that torch's generator draws, :obj:`batch_size` in a step.

    Args:
        model (torch.nn.Module): ``model(x, edge_index, edge_attr=..., batch=..., batch_size=...)`` returns a
            row of logits or values per graph.
        visible (VisibleGraphs): The graphs for training and validation.
        config (Config): The settings.
    """

    level: ClassVar[str] = "graph"

    def prepare(self, visible: Any) -> None:
        self.graphs = _on(visible.graphs, self.device)
        self.train_graphs, self.val_graphs = (
            mask.nonzero().view(-1).to(self.device) for mask in (visible.train, visible.val)
        )
        self.y = visible.y.to(self.device)
        self.train_y, self.val_y = self.y[self.train_graphs], self.y[self.val_graphs]
        self.train_size = self.train_graphs.numel()

    @property
    def num_batches(self) -> int:
        return math.ceil(self.train_size / (self.config.batch_size or self.train_size))

    def train_batches(self) -> Iterator[tuple[Tensor, Tensor, list[Tensor]]]:
        size = self.config.batch_size or self.train_size
        order = torch.randperm(self.train_size).to(self.device)  # the same graphs on all devices
        for index in self.train_graphs[order].split(size):
            penalties: list[Tensor] = []
            yield _answers(self.model, self.graphs, index, **self.losses(penalties)), self.y[index], penalties

    def validation(self) -> tuple[Tensor, Tensor]:
        return _all_answers(self.model, self.graphs, self.val_graphs), self.val_y

    @staticmethod
    def outputs(model: torch.nn.Module, task: Any, split: Any) -> dict[str, Tensor]:
        device = next(model.parameters()).device
        index = torch.arange(len(task.graphs), device=device)
        return dict.fromkeys(PARTS, _all_answers(model, _on(task.graphs, device), index).cpu())


def _on(graphs: Graphs, device: torch.device) -> Graphs:
    moved: dict[str, Any] = {
        name: None if each is None else each.to(device) for name, each in vars(graphs).items()
    }
    return Graphs(**moved)


def _answers(model: torch.nn.Module, graphs: Graphs, index: Tensor, **kwargs: Any) -> Tensor:
    data = graphs.batch_of(index)
    if data.edge_attr is not None:
        kwargs["edge_attr"] = data.edge_attr
    output: Tensor = model(data.x, data.edge_index, batch=data.batch, batch_size=index.numel(), **kwargs)
    return output


def _all_answers(model: torch.nn.Module, graphs: Graphs, index: Tensor) -> Tensor:
    return torch.cat([_answers(model, graphs, some) for some in index.split(AT_ONCE)])
