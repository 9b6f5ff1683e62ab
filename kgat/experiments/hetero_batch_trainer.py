r"""Training on a heterogeneous graph in mini-batches."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch_geometric.data import HeteroData

from kgat.experiments.batch_trainer import BatchTrainer
from kgat.nn.linear import select_rows

__all__ = ["HeteroBatchTrainer"]


class HeteroBatchTrainer(BatchTrainer):
    r"""As :class:`~kgat.experiments.batch_trainer.BatchTrainer`, on sampled neighbourhoods of nodes of the
    target type, with as many :obj:`neighbors` for each type of edges. Validation and scores are those of the
    full forward pass.

    Args:
        model (torch.nn.Module): ``model(x_dict, edge_index_dict, edge_attr=...)`` returns logits, or values,
            of the target type.
        visible (Visible): The task without the labels of test nodes.
        config (Config): The settings, with a :obj:`batch_size`.
    """

    def prepare(self, visible: Any) -> None:
        self.target = visible.target
        super().prepare(visible)

    def graph(self, edge_index: Any, extras: dict[str, Any]) -> HeteroData:
        graph = HeteroData()
        for name, x in self.x.items():
            graph[name].num_nodes = x.size(0)
        for edge, index in edge_index.items():
            graph[edge].edge_index = index.cpu()
        for edge, attr in extras.get("edge_attr", {}).items():
            graph[edge].edge_attr = attr.cpu()
        return graph

    def seeds(self) -> Any:
        return self.target, self.train_nodes.cpu()

    def train_batches(self) -> Iterator[tuple[Tensor, Tensor, list[Tensor]]]:
        for batch in self.loader:
            penalties: list[Tensor] = []
            x = {name: select_rows(x, batch[name].n_id.to(self.device)) for name, x in self.x.items()}
            edges = {edge: index.to(self.device) for edge, index in batch.edge_index_dict.items()}
            attr = batch.collect("edge_attr", allow_empty=True)
            output = self.model(
                *(x, edges, {edge: values.to(self.device) for edge, values in attr.items()} or None),
                num_sampled_nodes_per_hop=batch.num_sampled_nodes_dict,
                num_sampled_edges_per_hop=batch.num_sampled_edges_dict,
                **self.losses(penalties),
            )
            seeds = batch[self.target]
            yield output[: seeds.batch_size], self.train_y[seeds.input_id.to(self.device)], penalties
