r"""Attention on graphs of several types of nodes and edges."""

from collections.abc import Mapping
from typing import Any

from torch_geometric.typing import Metadata, NodeType

from kgat.models.hetero_gnn import HeteroGNN
from kgat.models.kernel_gat import KernelGAT


class KernelHeteroGAT(HeteroGNN):
    r"""Graph attention with any kernel on a heterogeneous graph: in each layer, every type of edges
    :math:`r` has a :class:`~kgat.nn.KernelGATConv` of its own.

    .. math::
        \mathbf{h}^{(0)}_i = \sigma(\mathbf{W}_{t(i)} \mathbf{x}_i), \qquad
        \mathbf{h}^{(l+1)}_i = \sigma \Big( \mathbf{W}^{(l)}_{t(i)} \mathbf{h}^{(l)}_i +
        \bigoplus_{r} \mathrm{conv}^{(l)}_r \big( \mathbf{h}^{(l)}_i, \{ \mathbf{h}^{(l)}_j :
        j \in \mathcal{N}_r(i) \} \big) \Big)

    with :math:`t(i)` the type of node :math:`i` and :math:`\sigma` activation, norm and dropout, which do not
    follow the last layer. Weights are normalised within a type of edges, as in
    :class:`~torch_geometric.nn.conv.HeteroConv`; the map of a node itself is that of `"Modeling Relational
    Data with Graph Convolutional Networks" <https://arxiv.org/abs/1703.06103>`_.

    Args:
        in_channels (int or dict): Size of the features of each type of nodes, or :obj:`-1` to derive it from
            the first input; a number stands for all types.
        hidden_channels (int): Width of the hidden layers, all heads together, also of the projected features.
        num_layers (int): Number of layers.
        out_channels (int, optional): Size of the output. (default: :obj:`None`, which is
            :obj:`hidden_channels`)
        metadata (tuple): The types of nodes and the types of edges, ``data.metadata()``.
        target (str, optional): The one type of nodes whose outputs are wanted: what they do not depend on is
            neither computed nor given parameters. All types if :obj:`None`. (default: :obj:`None`)
        aggr (str, optional): How what comes to a node over several types of edges is joined: :obj:`"sum"`,
            :obj:`"mean"`, :obj:`"min"` or :obj:`"max"`. (default: :obj:`"sum"`)
        residual (bool, optional): Whether a linear map of the node itself is added, one for each type of
            nodes. A type that no edges point to has it in any case. (default: :obj:`True`)
        add_self_loops (bool, optional): Whether nodes attend to themselves over the types of edges that stay
            within one type of nodes. (default: :obj:`False`)
        edge_dim (int or dict, optional): Size of edge features, or that of each type of edges that has some.
            (default: :obj:`None`)
        **kwargs (optional): Other arguments of :class:`KernelGAT`: ``heads``, ``out_heads``, ``dropout``,
            ``input_dropout``, ``value_dropout``, ``act``, ``norm``, and those of every
            :class:`~kgat.nn.KernelGATConv` (``kernel``, ``magnitude``, ``projections``, ``start``, ...).

    Shapes:
        - **input:** node features :math:`(N_t, F_t)` and edges :math:`(2, E_r)`, by type
        - **output:** :math:`(N_t, F_{out})`, by type

    Raises:
        ValueError: If types or sizes do not fit together.

    Example:
        >>> import torch
        >>> from kgat.models import KernelHeteroGAT
        >>> from torch_geometric.data import HeteroData
        >>> data = HeteroData()
        >>> data["paper"].x, data["author"].x = torch.randn(4, 16), torch.randn(3, 8)
        >>> data["author", "writes", "paper"].edge_index = torch.tensor([[0, 1, 2], [0, 1, 3]])
        >>> data["paper", "cites", "paper"].edge_index = torch.tensor([[0, 1], [1, 2]])
        >>> model = KernelHeteroGAT(-1, 32, 2, 5, metadata=data.metadata(), heads=4, kernel="rbf")
        >>> {name: out.shape for name, out in model(data.x_dict, data.edge_index_dict).items()}
        {'paper': torch.Size([4, 5]), 'author': torch.Size([3, 5])}
    """

    def __init__(
        self,
        in_channels: int | Mapping[NodeType, int],
        hidden_channels: int,
        num_layers: int,
        out_channels: int | None = None,
        *,
        metadata: Metadata,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            *(KernelGAT, in_channels, hidden_channels, num_layers, out_channels), metadata=metadata, **kwargs
        )
