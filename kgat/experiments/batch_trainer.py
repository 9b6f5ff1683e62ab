r"""Training on a graph in mini-batches: sampled neighbourhoods of some nodes in each step."""

import inspect
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch_geometric.data import Data

from kgat.datasets.task import PARTS
from kgat.experiments.config import Config
from kgat.experiments.trainer import Inputs, Trainer, inputs_of
from kgat.loader import NeighborLoader
from kgat.loader.neighbor_sampler import is_sorted
from kgat.models import AttentionGNN, StandardizedOutput
from kgat.nn.linear import select_rows

__all__ = ["BatchTrainer", "inferred", "neighbors_of"]


class BatchTrainer(Trainer):
    r"""As :class:`~kgat.experiments.trainer.Trainer`, but an epoch takes each training node once,
    :obj:`batch_size` in a step, with :obj:`neighbors` drawn for each layer. The order and what is drawn
    depend on the seed of the run and the number of the epoch.

    Validation and scores are exact: layer by layer over all neighbours
    (:meth:`~kgat.models.AttentionGNN.inference`), or by the full forward pass of a model without that.

    Args:
        model (torch.nn.Module): ``model(x, edge_index, edge_attr=...)`` returns logits, or values.
        visible (Visible): The task without the labels of test nodes.
        config (Config): The settings, with a :obj:`batch_size`.
    """

    level: ClassVar[str] = "node"

    def prepare(self, visible: Any) -> None:
        super().prepare(visible)
        self.x: Any
        self.x, edge_index, kwargs = self.train_inputs
        self.loader = NeighborLoader(
            self.graph(edge_index, kwargs),
            neighbors_of(self.config),
            input_nodes=self.seeds(),
            seed=self.config.seed,
            is_sorted=isinstance(edge_index, Tensor) and is_sorted(edge_index),
            **self.order(),
        )
        model = self.model.model if isinstance(self.model, StandardizedOutput) else self.model
        taken = inspect.signature(model.forward).parameters
        names = ("num_sampled_nodes_per_hop", "num_sampled_edges_per_hop")
        self._takes_hops = all(name in taken for name in names)

    def order(self) -> dict[str, Any]:
        r"""Returns the arguments of a loader that say which nodes make a batch."""
        return {"batch_size": self.config.batch_size, "shuffle": True}

    def graph(self, edge_index: Any, extras: dict[str, Any]) -> Any:
        r"""Returns what the loader draws from: features stay out of it, as it cannot slice sparse ones."""
        graph = Data(edge_index=edge_index.cpu(), num_nodes=self.x.size(0))
        for name, value in extras.items():
            graph["graph" if name == "batch" else name] = value.cpu()
        return graph

    def seeds(self) -> Any:
        r"""Returns the nodes whose neighbourhoods are drawn."""
        return self.train_nodes.cpu()

    @property
    def stateful(self) -> dict[str, Any]:
        return {**super().stateful, "loader": self.loader}

    @property
    def num_batches(self) -> int:
        return len(self.loader)

    def train_batches(self) -> Iterator[tuple[Tensor, Tensor, list[Tensor]]]:
        for batch in self.loader:
            kwargs = self._extras(batch)
            penalties: list[Tensor] = []
            x = select_rows(self.x, batch.n_id.to(self.device))
            output = self.model(x, batch.edge_index.to(self.device), **kwargs, **self.losses(penalties))
            y = self.train_y[batch.input_id.to(self.device)]
            yield output[: batch.batch_size], y, penalties

    def _extras(self, batch: Any) -> dict[str, Any]:
        kwargs: dict[str, Any] = {}
        for name, attribute in (("edge_attr", "edge_attr"), ("batch", "graph")):
            if attribute in batch:
                kwargs[name] = batch[attribute].to(self.device)
        if self._takes_hops:  # leaves out what a layer no longer needs
            kwargs["num_sampled_nodes_per_hop"] = batch.num_sampled_nodes
            kwargs["num_sampled_edges_per_hop"] = batch.num_sampled_edges
        return kwargs

    def validation(self) -> tuple[Tensor, Tensor]:
        self.model.eval()  # also where a loss of training was not finite
        return inferred(self.module, self.val_inputs).index_select(0, self.val_nodes), self.val_y

    @staticmethod
    def outputs(model: torch.nn.Module, task: Any, split: Any) -> dict[str, Tensor]:
        inputs = inputs_of(task.data, next(model.parameters()).device)
        return dict.fromkeys(PARTS, inferred(model, inputs).cpu())


def neighbors_of(config: Config) -> list[int]:
    r"""Returns how many neighbours a step draws for each layer, -1 for all.

    Raises:
        ValueError: If the settings ask for positions or attention over all nodes, which need the whole graph.
    """
    if config.position_dim is not None:
        raise ValueError(
            f"Expected no 'position_dim' where a step draws neighbours (got {config.position_dim}): walks "
            "leave what is sampled; leave it out, or batch_size"
        )
    if config.global_attention is not None:
        raise ValueError(
            f"Expected no 'global_attention' where a step draws neighbours (got {config.global_attention}): "
            "it is over all nodes; leave it out, or batch_size"
        )
    if config.neighbors is None:
        return [-1] * config.num_layers
    return [int(count) for count in config.neighbors.split(",")]


def inferred(model: torch.nn.Module, inputs: Inputs) -> Tensor:
    r"""Returns what a model says of all nodes over all neighbours, layer by layer where it can."""
    x, edge_index, kwargs = inputs
    stack = model.model if isinstance(model, StandardizedOutput) else model
    infers: Any = model
    by_layer = isinstance(stack, AttentionGNN)
    output: Tensor = (infers.inference if by_layer else model)(x, edge_index, **kwargs)
    return output
