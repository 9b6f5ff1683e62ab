r"""A model of several types of nodes whose answers for one of them count."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kgat.models.graph_readout import takes
from kgat.models.hetero_gnn import HeteroGNN
from kgat.models.penalty import penalised
from kgat.nn.numbers import check_whole

__all__ = ["TargetOutput"]


class TargetOutput(torch.nn.Module):
    r"""What a model of a heterogeneous graph says of one type of nodes.

    Args:
        model (torch.nn.Module): The model, called with the features and the edges of all types and, of
            :obj:`edge_attr_dict`, :obj:`losses`, :obj:`num_sampled_nodes_dict` and
            :obj:`num_sampled_edges_dict`, with what it takes. It returns a dictionary by type, or the answers
            for the target.
        target (str): The type of nodes.
        out_channels (int): Columns of the answers.

    Shapes:
        - **output:** :math:`(N, C)` with :math:`C` = :obj:`out_channels`, of the nodes of the type

    Raises:
        ValueError: If the model returns something else, or :obj:`out_channels` is not positive.

    Example:
        >>> from kgat.models import KernelHeteroGAT
        >>> metadata = (["author", "paper"], [("author", "writes", "paper")])
        >>> model = TargetOutput(KernelHeteroGAT(4, 8, 2, 3, metadata=metadata), "paper", 3)
        >>> x = {"author": torch.randn(2, 4), "paper": torch.randn(5, 4)}
        >>> model(x, {("author", "writes", "paper"): torch.tensor([[0, 1], [3, 3]])}).shape
        torch.Size([5, 3])
    """

    def __init__(self, model: torch.nn.Module, target: str, out_channels: int) -> None:
        super().__init__()
        check_whole(out_channels=out_channels)
        self.model, self.target, self.out_channels = model, target, out_channels
        self.takes = takes(model)

    penalised = penalised

    def forward(
        self,
        x: dict[str, Tensor],
        edge_index: dict[Any, Tensor],
        edge_attr: dict[Any, Tensor] | None = None,
        losses: list[Tensor] | None = None,
        num_sampled_nodes_per_hop: dict[str, list[int]] | None = None,
        num_sampled_edges_per_hop: dict[Any, list[int]] | None = None,
    ) -> Tensor:
        r"""Answers for the nodes of the target type; the arguments are those of the model."""
        if not isinstance(self.model, HeteroGNN):
            x = {name: h if h.layout == torch.strided else h.to_dense() for name, h in x.items()}
        extras = {
            "edge_attr_dict": edge_attr,
            "losses": losses,
            "num_sampled_nodes_dict": num_sampled_nodes_per_hop,
            "num_sampled_edges_dict": num_sampled_edges_per_hop,
        }
        known = extras if "**" in self.takes else self.takes
        out = self.model(x, edge_index, **{k: v for k, v in extras.items() if v is not None and k in known})
        out = out.get(self.target) if isinstance(out, Mapping) else out
        shape = [x[self.target].size(0), self.out_channels]
        if isinstance(out, Tensor) and num_sampled_nodes_per_hop is not None:
            shape[0] = min(shape[0], out.size(0))  # without what the last layer need not know
        if not isinstance(out, Tensor) or list(out.shape) != shape:
            got = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ValueError(
                f"Expected {type(self.model).__name__} to return a tensor of shape [nodes of type "
                f"'{self.target}', out_channels]={shape}, or a dictionary that has it (got {got}); return a "
                "row per node, as wide as 'out_channels'"
            )
        return out
