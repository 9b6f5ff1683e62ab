r"""From a model of nodes to one of links."""

import torch
from torch import Tensor
from torch_geometric.nn.models import MLP
from torch_geometric.typing import OptTensor

from kgat.models.graph_readout import encode, takes
from kgat.models.penalty import penalised
from kgat.names import one_of
from kgat.nn.numbers import check_whole

__all__ = ["DECODERS", "LinkPredictor"]

DECODERS = ("dot", "mlp")
PAIRS = 1 << 18  # at once


class LinkPredictor(torch.nn.Module):
    r"""Scores pairs of nodes by what any model says of them.

    .. math::
        s_{ij} = \mathbf{z}_i^{\top} \mathbf{z}_j
        \quad \text{or} \quad
        s_{ij} = \mathrm{MLP}(\mathbf{z}_i \odot \mathbf{z}_j), \qquad
        \mathbf{Z} = f(\mathbf{X}, \mathcal{E})

    as in `"Variational Graph Auto-Encoders" <https://arxiv.org/abs/1611.07308>`_ and in the baselines of the
    `"Open Graph Benchmark" <https://arxiv.org/abs/2005.00687>`_. Both are symmetric in the two nodes.

    Args:
        encoder (torch.nn.Module): The model :math:`f` of nodes, called with features, edges, and those of
            :obj:`edge_attr`, :obj:`losses` and what a sampler says of its hops that it takes.
        channels (int): Columns of its output.
        decoder (str, optional): :obj:`"dot"` or :obj:`"mlp"`. (default: :obj:`"dot"`)

    Shapes:
        - **x:** :math:`(N, F)`, **edge_index:** :math:`(2, E)`, **pairs:** :math:`(2, *)`
        - **output:** :math:`(*)`; without pairs :math:`(N, C)`, the model's

    Raises:
        ValueError: If there is no such decoder, or :obj:`channels` is not positive.

    Example:
        >>> from kgat import KernelGAT
        >>> model = LinkPredictor(KernelGAT(4, 8, 2, heads=2, kernel="rbf"), 8)
        >>> x, edge_index = torch.randn(3, 4), torch.tensor([[0, 1, 2], [1, 2, 0]])
        >>> model(x, edge_index, pairs=torch.tensor([[0, 1], [2, 2]])).shape
        torch.Size([2])
    """

    def __init__(self, encoder: torch.nn.Module, channels: int, decoder: str = "dot") -> None:
        super().__init__()
        check_whole(channels=channels)
        self.encoder = encoder
        self.decoder = one_of("decoder", decoder, DECODERS)
        self.mlp = MLP([channels, channels, 1], norm=None) if decoder == "mlp" else None
        self.takes = takes(encoder)

    penalised = penalised

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_attr: OptTensor = None,
        pairs: OptTensor = None,
        losses: list[Tensor] | None = None,
        num_sampled_nodes_per_hop: list[int] | None = None,
        num_sampled_edges_per_hop: list[int] | None = None,
    ) -> Tensor:
        r"""Scores pairs.

        Args:
            x (torch.Tensor): Node features.
            edge_index (torch.Tensor): The edges that messages take: none that is asked for.
            edge_attr (torch.Tensor, optional): Edge features. (default: :obj:`None`)
            pairs (torch.Tensor, optional): The pairs. (default: :obj:`None`)
            losses (list of torch.Tensor, optional): Takes the penalties of kernels. (default: :obj:`None`)
            num_sampled_nodes_per_hop (list of int, optional): As in PyG: what no layer needs any more is left
                out, so that the nodes of pairs are among the first ones. (default: :obj:`None`)
            num_sampled_edges_per_hop (list of int, optional): Likewise. (default: :obj:`None`)
        """
        hops = {
            "num_sampled_nodes_per_hop": num_sampled_nodes_per_hop,
            "num_sampled_edges_per_hop": num_sampled_edges_per_hop,
        }
        # One that takes anything may hand them to a part of itself, and its other parts see all edges.
        hops = hops if hops.keys() <= self.takes else {}
        nodes = encode(self.encoder, self.takes, x, edge_index, edge_attr=edge_attr, losses=losses, **hops)
        return nodes if pairs is None else self.decode(nodes, pairs)

    def decode(self, nodes: Tensor, pairs: Tensor) -> Tensor:
        r"""Scores pairs by what is known of nodes.

        Args:
            nodes (torch.Tensor): What the encoder gave.
            pairs (torch.Tensor): The pairs.

        Shapes:
            - **nodes:** :math:`(N, C)`, **pairs:** :math:`(2, *)`, **output:** :math:`(*)`
        """
        every = pairs.flatten(1)
        # Without gradients nothing is kept of a pair but its score, so that a benchmark's millions fit.
        some = [every] if torch.is_grad_enabled() else every.split(PAIRS, dim=1)
        return torch.cat([self._scores(nodes, *each) for each in some]).view(pairs.shape[1:])

    def _scores(self, nodes: Tensor, one: Tensor, other: Tensor) -> Tensor:
        product = nodes.index_select(0, one) * nodes.index_select(0, other)
        return product.sum(dim=-1) if self.mlp is None else self.mlp(product).squeeze(-1)
