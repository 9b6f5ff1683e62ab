r"""Training on links of a graph in mini-batches: sampled neighbourhoods of the pairs of each step."""

from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.sampler import NodeSamplerInput

from kgat.datasets.task import PARTS
from kgat.experiments.batch_trainer import inferred, neighbors_of
from kgat.experiments.link_trainer import LinkTrainer
from kgat.experiments.trainer import Inputs, inputs_of
from kgat.loader.neighbor_sampler import NeighborSampler, is_sorted
from kgat.models import AttentionGNN, LinkPredictor
from kgat.nn.linear import select_rows

__all__ = ["LinkBatchTrainer", "nodes_of"]


class LinkBatchTrainer(LinkTrainer):
    r"""As :class:`~kgat.experiments.link_trainer.LinkTrainer`, but a step knows of the graph what is
    drawn around the ends of its pairs, :obj:`neighbors` for each layer. Draws depend on torch's generator, as
    pairs do.

    Validation and scores are exact: nodes layer by layer over all neighbours, then pairs.

    Args:
        model (LinkPredictor): The model.
        visible (VisibleLinks): The graph without what validation and test ask for, and validation pairs.
        config (Config): The settings, with :obj:`batch_size` and :obj:`neighbors`.
    """

    def prepare(self, visible: Any) -> None:
        neighbors = neighbors_of(self.config)
        super().prepare(visible)
        edge_index = self.inputs[1]
        graph = Data(edge_index=edge_index.cpu(), num_nodes=self.num_nodes)
        self.sampler = NeighborSampler(graph, neighbors, is_sorted=is_sorted(edge_index))

    def scores(self, pairs: Tensor, **losses: list[Tensor]) -> Tensor:
        nodes, places = pairs.cpu().unique(return_inverse=True)
        key = int(torch.randint((1 << 63) - 1, ()))
        drawn: Any = self.sampler.sample_from_nodes(NodeSamplerInput(None, nodes), key)
        x, _, kwargs = self.inputs
        edge_attr = kwargs.get("edge_attr")
        scores: Tensor = self.model(
            select_rows(x, drawn.node.to(self.device)),
            torch.stack([drawn.row, drawn.col]).to(self.device),
            edge_attr=None if edge_attr is None else edge_attr[drawn.edge.to(self.device)],
            pairs=places.to(self.device),
            num_sampled_nodes_per_hop=drawn.num_sampled_nodes,
            num_sampled_edges_per_hop=drawn.num_sampled_edges,
            **losses,
        )
        return scores

    def validation(self) -> tuple[Tensor, Tensor]:
        self.model.eval()  # also where a loss of training was not finite
        decode: Any = self.module.decode
        return decode(nodes_of(self.module, self.inputs), self.val_pairs), self.val_y

    @staticmethod
    def outputs(model: torch.nn.Module, task: Any, split: Any) -> dict[str, Tensor]:
        device = next(model.parameters()).device
        nodes = nodes_of(model, inputs_of(task.visible(split), device))
        decode: Any = model.decode
        return {part: decode(nodes, getattr(split, part).index.to(device)).cpu() for part in PARTS}


def nodes_of(model: Any, inputs: Inputs) -> Tensor:
    r"""Returns what a model of links says of all nodes over all neighbours, layer by layer where it can."""
    by_layer = isinstance(model, LinkPredictor) and isinstance(model.encoder, AttentionGNN)
    return inferred(model.encoder if by_layer else model, inputs)
