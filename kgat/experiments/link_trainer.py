r"""Training on links: edges against pairs that are drawn anew in each step."""

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from kgat.datasets import VisibleLinks
from kgat.datasets.link_task import negatives
from kgat.datasets.task import PARTS
from kgat.experiments.trainer import Trainer, inputs_of

__all__ = ["LinkTrainer"]


class LinkTrainer(Trainer):
    r"""As :class:`~kgat.experiments.trainer.Trainer`, of links. An epoch takes each training edge once, in an
    order that torch's generator draws, :obj:`batch_size` in a step, and against as many pairs that it draws
    among those that are neither training edges nor messages. The loss is the binary cross-entropy.

    The edges of a step are messages in it as well, as in `"Variational Graph Auto-Encoders"
    <https://arxiv.org/abs/1611.07308>`_.

    Args:
        model (torch.nn.Module): ``model(x, edge_index, edge_attr=..., pairs=...)`` returns a score per pair.
        visible (VisibleLinks): The graph without what validation and test ask for, and validation pairs.
        config (Config): The settings.
    """

    level: ClassVar[str] = "link"

    def prepare(self, visible: VisibleLinks) -> None:
        self.loss = F.binary_cross_entropy_with_logits
        self.inputs = inputs_of(visible, self.device)
        self.num_nodes = visible.x.size(0)
        self.edges = visible.train.to(self.device)
        self.val_pairs, self.val_y = visible.val.to(self.device), visible.val_y.to(self.device).float()
        # Messages may be more than what is trained on: neither is drawn as a pair without an edge.
        row, col = torch.cat([self.edges, self.inputs[1]], dim=1).long()
        ways = [row * self.num_nodes + col]
        ways += [col * self.num_nodes + row] if visible.undirected else []
        self.known = torch.cat(ways)[torch.cat([row != col] * len(ways))].unique()
        if self.known.numel() == self.num_nodes * (self.num_nodes - 1):
            raise ValueError(
                f"Expected pairs without an edge to train against (got {self.num_nodes} nodes, all of which "
                "are joined); leave some edges out"
            )
        self.train_size = self.edges.size(1)

    @property
    def num_batches(self) -> int:
        return math.ceil(self.train_size / (self.config.batch_size or self.train_size))

    def train_batches(self) -> Iterator[tuple[Tensor, Tensor, list[Tensor]]]:
        size = self.config.batch_size or self.train_size
        order = torch.randperm(self.train_size).to(self.device)
        for index in order.split(size):
            drawn = negatives(index.numel(), self.num_nodes, self.known)
            pairs = torch.cat([self.edges[:, index], drawn], dim=1)
            y = torch.cat([torch.ones(index.numel()), torch.zeros(index.numel())]).to(self.device)
            penalties: list[Tensor] = []
            yield self.scores(pairs, **self.losses(penalties)), y, penalties

    def scores(self, pairs: Tensor, **losses: list[Tensor]) -> Tensor:
        r"""Returns the scores of pairs of a step."""
        x, edge_index, kwargs = self.inputs
        scores: Tensor = self.model(x, edge_index, **kwargs, pairs=pairs, **losses)
        return scores

    def validation(self) -> tuple[Tensor, Tensor]:
        x, edge_index, kwargs = self.inputs
        return self.model(x, edge_index, **kwargs, pairs=self.val_pairs), self.val_y

    @staticmethod
    def outputs(model: torch.nn.Module, task: Any, split: Any) -> dict[str, Tensor]:
        device = next(model.parameters()).device
        graph = task.visible(split)
        x, edge_index, kwargs = inputs_of(graph, device)
        nodes = model(x, edge_index, **kwargs)
        decode: Any = model.decode
        return {part: decode(nodes, getattr(split, part).index.to(device)).cpu() for part in PARTS}
