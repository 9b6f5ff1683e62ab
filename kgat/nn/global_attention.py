r"""Local messages beside attention over all nodes of a graph."""

import inspect
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn.inits import reset
from torch_geometric.typing import Adj, OptTensor
from torch_geometric.utils import to_dense_batch


class GlobalAttention(torch.nn.Module):
    r"""A message passing layer plus attention over all nodes of the same graph, the sum inside GPSConv of
    `"Recipe for a General, Powerful, Scalable Graph Transformer" <https://arxiv.org/abs/2205.12454>`_ without
    its norms, skip connections and MLP.

    .. math::
        \mathbf{x}^{\prime}_i = \mathrm{local}(\mathbf{X}, \mathcal{E})_i +
        \mathrm{attention}(\mathbf{X}_{\mathcal{G}(i)})_i

    where :math:`\mathcal{G}(i)` are the nodes of the graph of :math:`i`. Edges tell what is near; attention
    reaches the rest. With :class:`~kgat.nn.PrimalAttention` the cost stays linear in the number of nodes, but
    the output depends on their order, to which some of its weights are tied.

    Args:
        local (torch.nn.Module): A layer called as ``local(x, edge_index)``, such as
            :class:`~kgat.nn.KernelGATConv`; it is also given :obj:`edge_attr` if there is any,
            :obj:`batch` and :obj:`losses` if it takes them, and what else is given by name.
        attention (torch.nn.Module): A layer called like :class:`torch.nn.MultiheadAttention` with
            ``batch_first=True``, such as :class:`~kgat.nn.PrimalAttention`; it is also given :obj:`losses` if
            it takes them.

    Shapes:
        - **x:** :math:`(N, F)`, **edge_index:** :math:`(2, E)`, **edge_attr:** :math:`(E, F_e)`,
          **batch:** :math:`(N)`
        - **output:** :math:`(N, F)`

    Raises:
        ValueError: If the attention is not ``batch_first``, or the two outputs differ in their channels.

    Example:
        >>> import torch
        >>> from kgat import KernelGATConv
        >>> from kgat.nn import GlobalAttention, PrimalAttention
        >>> layer = GlobalAttention(KernelGATConv(16, 4, heads=4), PrimalAttention(16, 4, rank=3))
        >>> x, edge_index = torch.randn(5, 16), torch.tensor([[0, 1, 3], [1, 2, 4]])
        >>> layer(x, edge_index, batch=torch.tensor([0, 0, 0, 1, 1])).shape
        torch.Size([5, 16])
    """

    def __init__(self, local: torch.nn.Module, attention: torch.nn.Module) -> None:
        super().__init__()
        if not getattr(attention, "batch_first", True):
            raise ValueError(
                "Expected an attention of batch_first=True (got False); graphs come before their nodes"
            )
        self.local = local
        self.attention = attention
        self._local_takes = set(inspect.signature(local.forward).parameters)
        self._attention_takes = set(inspect.signature(attention.forward).parameters)

    def reset_parameters(self) -> None:
        r"""Draws all learnable parameters anew."""
        reset(self.local)
        reset(self.attention)
        if isinstance(self.attention, torch.nn.MultiheadAttention):
            self.attention._reset_parameters()  # of those that are not in its children

    def forward(
        self,
        x: Tensor,
        edge_index: Adj,
        edge_attr: OptTensor = None,
        batch: OptTensor = None,
        losses: list[Tensor] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        r"""Runs the forward pass of the module.

        Args:
            x (torch.Tensor): Node features.
            edge_index (torch.Tensor, EdgeIndex or SparseTensor): The edges, as :obj:`local` takes them.
            edge_attr (torch.Tensor, optional): Edge features. (default: :obj:`None`)
            batch (torch.Tensor, optional): The graph of each node, in any order; graphs may be empty. One
                graph if :obj:`None`. (default: :obj:`None`)
            losses (list of torch.Tensor, optional): Takes the penalties of both layers.
                (default: :obj:`None`)
            **kwargs (optional): What :obj:`local` takes beside these, such as :obj:`position`.
        """
        size = getattr(self.attention, "embed_dim", x.size(-1))
        if x.dim() != 2 or x.size(1) != size:
            raise ValueError(
                f"Expected node features of shape [N, {size}] as the attention has embed_dim={size} (got "
                f"{list(x.shape)}); build both layers for the same channels"
            )
        if batch is not None and batch.shape != x.shape[:1]:
            raise ValueError(
                f"Expected 'batch' of shape [N={x.size(0)}] (got {list(batch.shape)}); give the graph of "
                f"each node"
            )
        given = {} if edge_attr is None else {"edge_attr": edge_attr}
        given |= kwargs | _taken(self._local_takes, batch=batch, losses=losses)
        near = self.local(x, edge_index, **given)
        far = self._attend(x, batch, losses)
        if near.shape != far.shape:
            raise ValueError(
                f"Expected outputs of equal shape from 'local' and 'attention' (got {list(near.shape)} and "
                f"{list(far.shape)}); give 'local' {far.size(-1)} output channels, all heads together"
            )
        return near + far

    def _attend(self, x: Tensor, batch: OptTensor, losses: list[Tensor] | None) -> Tensor:
        given = _taken(self._attention_takes, losses=losses)
        if batch is None or x.size(0) == 0:
            h = x.unsqueeze(0)
            return self.attention(h, h, h, need_weights=False, **given)[0].squeeze(0)
        # Numbered anew: attention divides by 0 where a graph has no nodes, and gradients would be NaN.
        graph = batch.unique(return_inverse=True)[1]
        order = graph.argsort(stable=True)
        h, mask = to_dense_batch(x[order], graph[order])
        out = self.attention(h, h, h, key_padding_mask=~mask, need_weights=False, **given)[0][mask]
        return torch.empty_like(out).index_copy(0, order, out)


def _taken(known: set[str], **options: Any) -> dict[str, Any]:
    return {name: option for name, option in options.items() if option is not None and name in known}
