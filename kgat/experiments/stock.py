r"""The layers of PyG that ours are compared with, in the very same stack."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import Linear as PyGLinear
from torch_geometric.nn.conv import (
    APPNP,
    GATConv,
    GATv2Conv,
    GCN2Conv,
    GCNConv,
    GINConv,
    HGTConv,
    PNAConv,
    SAGEConv,
    SuperGATConv,
    TransformerConv,
)
from torch_geometric.nn.models import MLP, Polynormer, SGFormer

from kgat.models import AttentionGNN
from kgat.nn.linear import Linear, drop_features

__all__ = [
    *("StockAPPNP", "StockGAT", "StockGATv2", "StockGCN", "StockGCN2", "StockGIN", "StockMLP"),
    *("StockHGT", "StockPNA", "StockPolynormer", "StockRGCN", "StockSAGE", "StockSGFormer"),
    *("StockSuperGAT", "StockTransformer"),
]


class StockGAT(AttentionGNN):
    r"""PyG's own :class:`GATConv` in the stack of :class:`KernelGAT`: only the layer differs.

    Args:
        *args: As :class:`AttentionGNN`.
        **kwargs: As :class:`AttentionGNN`.

    Shapes:
        - **input:** node features :math:`(N, F_{in})`, edges :math:`(2, E)`
        - **output:** :math:`(N, F_{out})`

    Example:
        >>> from kgat.experiments.stock import StockGAT
        >>> StockGAT(16, 32, num_layers=2, out_channels=3, heads=4)
        StockGAT(16, 3, num_layers=2)
    """

    conv_class = GATConv


class StockGATv2(AttentionGNN):
    r"""PyG's own :class:`GATv2Conv` in the stack of :class:`KernelGAT`: only the layer differs.

    Args:
        *args: As :class:`AttentionGNN`.
        **kwargs: As :class:`AttentionGNN`.

    Shapes:
        - **input:** node features :math:`(N, F_{in})`, edges :math:`(2, E)`
        - **output:** :math:`(N, F_{out})`

    Example:
        >>> from kgat.experiments.stock import StockGATv2
        >>> StockGATv2(16, 32, num_layers=2, out_channels=3, heads=4)
        StockGATv2(16, 3, num_layers=2)
    """

    conv_class = GATv2Conv


class Framed(torch.nn.Module):
    r"""A layer of PyG where an attention layer is expected: it is given the edge features that it takes, and
    adds a linear map of its input if it is to be residual.

    Args:
        conv (torch.nn.Module): The layer.
        residual (torch.nn.Module, optional): The map. (default: :obj:`None`)
        takes_edges (bool, optional): Whether it sees the graph. (default: :obj:`True`)
        takes_edge_attr (bool, optional): Whether it sees edge features. (default: :obj:`False`)
        takes_sparse (bool, optional): Whether it sees sparse features. (default: :obj:`False`)
    """

    def __init__(
        self,
        conv: torch.nn.Module,
        residual: torch.nn.Module | None = None,
        *,
        takes_edges: bool = True,
        takes_edge_attr: bool = False,
        takes_sparse: bool = False,
    ) -> None:
        super().__init__()
        self.conv, self.res = conv, residual
        self.takes_edges, self.takes_edge_attr = takes_edges, takes_edge_attr
        self.takes_sparse = takes_sparse

    def reset_parameters(self) -> None:
        for module in filter(None, (self.conv, self.res)):
            module.reset_parameters()  # type: ignore[operator]

    def forward(self, x: Any, edge_index: Any, edge_attr: Tensor | None = None) -> Tensor:
        shown = x if self.takes_sparse or isinstance(x, tuple) else _dense(x)
        inputs = (shown, edge_index) if self.takes_edges else (shown,)
        out: Tensor = self.conv(*inputs, **({"edge_attr": edge_attr} if self.takes_edge_attr else {}))
        return out if self.res is None else out + self.res(x)


def _dense(x: Tensor) -> Tensor:
    return x if x.layout == torch.strided else x.to_dense()


class StockGNN(AttentionGNN):
    r"""A layer of PyG without heads in the stack of :class:`KernelGAT`; subclasses build the layer.

    Args:
        *args: As :class:`AttentionGNN`.
        **kwargs: As :class:`AttentionGNN`, without heads and dropout on values.

    Shapes:
        - **input:** node features :math:`(N, F_{in})`, edges :math:`(2, E)`
        - **output:** :math:`(N, F_{out})`
    """

    takes_edges: ClassVar[bool] = True
    takes_edge_attr: ClassVar[bool] = False
    takes_sparse: ClassVar[bool] = False  # only of a layer that projects before it looks at neighbours

    def init_conv(self, in_channels: Any, out_channels: int, **kwargs: Any) -> Any:
        residual = Linear(in_channels, out_channels, bias=False) if kwargs.pop("residual", False) else None
        edge_dim = kwargs.pop("edge_dim", None)
        sees_attr = self.takes_edge_attr and edge_dim is not None
        layer = self.layer(
            in_channels, out_channels, **({"edge_dim": edge_dim} if sees_attr else {}), **kwargs
        )
        if self.takes_sparse:
            for module in layer.children():
                if type(module) is PyGLinear:
                    module.__class__ = Linear
        return Framed(
            layer,
            residual,
            takes_edges=self.takes_edges,
            takes_edge_attr=sees_attr,
            takes_sparse=self.takes_sparse,
        )

    def layer(self, in_channels: int, out_channels: int, **kwargs: Any) -> torch.nn.Module:
        r"""Builds a layer."""
        raise NotImplementedError

    @torch.no_grad()
    def inference(self, x: Tensor, edge_index: Any, edge_attr: Any = None, **kwargs: Any) -> Tensor:  # type: ignore[override]
        r"""As :meth:`forward`, of all nodes at once: some of these layers look at more than the edges of a
        target (GCN at the degrees of its sources, APPNP at the whole graph), so that slices would differ."""
        return self(x, edge_index, edge_attr=edge_attr, **kwargs)  # type: ignore[no-any-return]


class StockMLP(StockGNN):
    r"""Linear layers that do not see the graph, in the stack of :class:`KernelGAT`."""

    takes_edges, takes_sparse = False, True

    def layer(self, in_channels: int, out_channels: int, **kwargs: Any) -> torch.nn.Module:
        return Linear(in_channels, out_channels, **kwargs)


class StockGCN(StockGNN):
    r"""PyG's :class:`GCNConv` in the stack of :class:`KernelGAT`."""

    takes_sparse = True

    def layer(self, in_channels: int, out_channels: int, **kwargs: Any) -> torch.nn.Module:
        return GCNConv(in_channels, out_channels, **kwargs)


class StockSAGE(StockGNN):
    r"""PyG's :class:`SAGEConv` in the stack of :class:`KernelGAT`."""

    def __init__(self, *args: Any, aggr: str = "mean", **kwargs: Any) -> None:
        super().__init__(*args, aggr=aggr, **kwargs)

    def layer(self, in_channels: int, out_channels: int, **kwargs: Any) -> torch.nn.Module:
        return SAGEConv(in_channels, out_channels, **kwargs)


class StockRGCN(StockGNN):
    r"""PyG's :class:`SAGEConv` without the part of the node itself: one for each type of edges, with a map of
    each type of nodes, is `"Modeling Relational Data with Graph Convolutional Networks"
    <https://arxiv.org/abs/1703.06103>`_ without shared bases."""

    def layer(self, in_channels: int, out_channels: int, **kwargs: Any) -> torch.nn.Module:
        return SAGEConv(in_channels, out_channels, root_weight=False, **kwargs)


class StockGIN(StockGNN):
    r"""PyG's :class:`GINConv`, as :class:`torch_geometric.nn.models.GIN` has it, in the stack of
    :class:`KernelGAT`."""

    def __init__(self, *args: Any, train_eps: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, train_eps=train_eps, **kwargs)

    def layer(self, in_channels: int, out_channels: int, **kwargs: Any) -> torch.nn.Module:
        return GINConv(MLP([in_channels, out_channels, out_channels], norm=None), **kwargs)


class StockPNA(StockGNN):
    r"""PyG's :class:`PNAConv` with its usual aggregators and scalers in the stack of :class:`KernelGAT`.

    Args:
        *args: As :class:`AttentionGNN`.
        deg (torch.Tensor, optional): The histogram of in-degrees of the training graph; a trained model has
            it in its state. (default: :obj:`None`)
        **kwargs: As :class:`StockGNN`.
    """

    takes_edge_attr = True

    def __init__(self, *args: Any, deg: Tensor | None = None, **kwargs: Any) -> None:
        if deg is not None and not bool(deg[1:].any()):
            raise ValueError("Expected a graph with edges for 'pna' (got none); choose another model")
        super().__init__(*args, deg=torch.ones(2, dtype=torch.long) if deg is None else deg, **kwargs)

    def layer(self, in_channels: int, out_channels: int, **kwargs: Any) -> torch.nn.Module:
        scalers = ["identity", "amplification", "attenuation"]
        return PNAConv(in_channels, out_channels, ["mean", "min", "max", "std"], scalers, **kwargs)


class StockAPPNP(StockMLP):
    r"""The linear layers of :class:`StockMLP`, whose answers PyG's :class:`APPNP` spreads over the graph.

    Args:
        *args: As :class:`AttentionGNN`.
        K (int, optional): Number of steps. (default: :obj:`10`)
        alpha (float, optional): Share of the restart. (default: :obj:`0.1`)
        **kwargs: As :class:`StockGNN`.
    """

    def __init__(self, *args: Any, K: int = 10, alpha: float = 0.1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.spread = APPNP(K, alpha)

    def forward(self, x: Tensor, edge_index: Any, *args: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        return self.spread(super().forward(x, edge_index, *args, **kwargs), edge_index)  # type: ignore[no-any-return]


class StockSuperGAT(StockGNN):
    r"""PyG's :class:`SuperGATConv` with its self-supervised loss, in the stack of :class:`KernelGAT`.

    Args:
        *args: As :class:`AttentionGNN`.
        weight (float, optional): Of the loss of its layers, as in PyG's example. (default: :obj:`4.0`)
        **kwargs: As :class:`StockGNN`, with heads.
    """

    takes_sparse = True

    def __init__(self, *args: Any, weight: float = 4.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.weight = weight

    def layer(self, in_channels: int, out_channels: int, **kwargs: Any) -> torch.nn.Module:
        last = getattr(self, "_is_conv_to_out", False)
        heads = self.out_heads if last else self.heads
        width = out_channels if last else out_channels // heads
        return SuperGATConv(
            in_channels, width, heads, concat=not last, dropout=self.attention_dropout, **kwargs
        )

    def auxiliary_loss(self) -> Tensor:
        r"""Returns what training adds to the loss of the last forward pass."""
        losses = [framed.conv.get_attention_loss() for framed in self.convs]  # type: ignore[union-attr]
        return self.weight * torch.stack([loss.view(()) for loss in losses]).sum()


class StockTransformer(AttentionGNN):
    r"""PyG's :class:`TransformerConv`, with its own skip connection, in the stack of :class:`KernelGAT`."""

    conv_class = TransformerConv

    def init_conv(self, in_channels: Any, out_channels: int, **kwargs: Any) -> Any:
        kwargs.pop("residual", None)
        return super().init_conv(in_channels, out_channels, **kwargs)


class _WithoutEdgeAttr:
    # Of a whole model: it is called with edge features as all are, and does not look at them.
    takes_edge_attr: ClassVar[bool] = False


class _Logits(_WithoutEdgeAttr):
    # Before a model of PyG that takes dense features and a batch, and returns log-probabilities.
    def forward(
        self, x: Tensor, edge_index: Any, batch: Tensor | None = None, *, edge_attr: Any = None
    ) -> Tensor:
        batch = torch.zeros(x.size(0), dtype=torch.long, device=x.device) if batch is None else batch
        log_probabilities: Tensor = super().forward(_dense(x), edge_index, batch)  # type: ignore[misc]
        return log_probabilities[:, :-1] - log_probabilities[:, -1:]


class StockGCN2(_WithoutEdgeAttr, torch.nn.Module):
    r"""PyG's :class:`GCN2Conv` between two linear layers.

    Args:
        in_channels (int): Number of features.
        hidden_channels (int): Width.
        num_layers (int): Number of convolutions.
        out_channels (int): Size of the output.
        dropout (float, optional): Dropout between layers. (default: :obj:`0.0`)
        input_dropout (float, optional): Dropout on the features. (default: :obj:`0.0`)
        alpha (float, optional): Strength of the initial residual connection. (default: :obj:`0.1`)
        theta (float, optional): Strength of the identity mapping. (default: :obj:`0.5`)

    Shapes:
        - **input:** node features :math:`(N, F_{in})`, edges :math:`(2, E)`
        - **output:** :math:`(N, F_{out})`
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        num_layers: int,
        out_channels: int,
        *,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        alpha: float = 0.1,
        theta: float = 0.5,
    ) -> None:
        super().__init__()
        self.input_dropout = input_dropout
        self.dropout = torch.nn.Dropout(dropout)
        self.lin_in = Linear(in_channels, hidden_channels)
        self.convs = torch.nn.ModuleList(
            GCN2Conv(hidden_channels, alpha, theta, layer) for layer in range(1, num_layers + 1)
        )
        self.lin_out = Linear(hidden_channels, out_channels)

    def forward(
        self, x: Tensor, edge_index: Any, batch: Tensor | None = None, *, edge_attr: Any = None
    ) -> Tensor:
        x = drop_features(x, self.input_dropout) if self.training else x
        x = x_0 = self.lin_in(x).relu()
        for conv in self.convs:
            x = conv(self.dropout(x), x_0, edge_index).relu()
        out: Tensor = self.lin_out(self.dropout(x))
        return out


class StockHGT(_WithoutEdgeAttr, torch.nn.Module):
    r"""PyG's :class:`HGTConv` between two linear layers, as its example has it.

    Args:
        in_channels (dict): Number of features of each type of nodes.
        hidden_channels (int): Width.
        num_layers (int): Number of convolutions.
        out_channels (int): Size of the output.
        metadata (tuple): The types of nodes and of edges.
        target (str): The type of nodes that is asked for.
        heads (int, optional): Heads of each layer. (default: :obj:`1`)
        dropout (float, optional): Dropout between layers. (default: :obj:`0.0`)
        input_dropout (float, optional): Dropout on the features. (default: :obj:`0.0`)

    Shapes:
        - **input:** node features :math:`(N_t, F_t)` and edges :math:`(2, E_r)`, by type
        - **output:** :math:`(N, F_{out})` of the target type
    """

    def __init__(
        self,
        in_channels: dict[str, int],
        hidden_channels: int,
        num_layers: int,
        out_channels: int,
        *,
        metadata: Any,
        target: str,
        heads: int = 1,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.target = target
        self.input_dropout = input_dropout
        self.dropout = torch.nn.Dropout(dropout)
        self.lins = torch.nn.ModuleList(Linear(size, hidden_channels) for size in in_channels.values())
        self.types = list(in_channels)
        metadata = (metadata[0], [tuple(edge) for edge in metadata[1]])
        self.convs = torch.nn.ModuleList(
            HGTConv(hidden_channels, hidden_channels, metadata, heads) for _ in range(num_layers)
        )
        self.lin_out = Linear(hidden_channels, out_channels)

    def forward(
        self, x: dict[str, Tensor], edge_index: dict[Any, Tensor], *, edge_attr: Any = None
    ) -> Tensor:
        p = self.input_dropout if self.training else 0.0
        x = {
            name: lin(drop_features(x[name], p)).relu()
            for name, lin in zip(self.types, self.lins, strict=True)
        }
        for conv in self.convs:
            # A type that receives nothing stays as it is.
            x = x | conv({name: self.dropout(h) for name, h in x.items()}, edge_index)
        out: Tensor = self.lin_out(self.dropout(x[self.target]))
        return out


class StockSGFormer(_Logits, SGFormer):
    r"""PyG's :class:`SGFormer`, which returns logits.

    Args:
        in_channels (int): Number of features.
        hidden_channels (int): Width.
        num_layers (int): Number of its convolutions.
        out_channels (int): Size of the output.
        dropout (float, optional): Dropout everywhere. (default: :obj:`0.0`)
        trans_num_layers (int, optional): Number of its layers of attention. (default: :obj:`2`)
        trans_num_heads (int, optional): Heads of these. (default: :obj:`1`)
        graph_weight (float, optional): Share of the convolutions. (default: :obj:`0.5`)

    Shapes:
        - **input:** node features :math:`(N, F_{in})`, edges :math:`(2, E)`
        - **output:** :math:`(N, F_{out})`
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        num_layers: int,
        out_channels: int,
        *,
        dropout: float = 0.0,
        trans_num_layers: int = 2,
        trans_num_heads: int = 1,
        graph_weight: float = 0.5,
    ) -> None:
        super().__init__(
            in_channels,
            hidden_channels,
            out_channels,
            trans_num_layers=trans_num_layers,
            trans_num_heads=trans_num_heads,
            trans_dropout=dropout,
            gnn_num_layers=num_layers,
            gnn_dropout=dropout,
            graph_weight=graph_weight,
        )
        self.fc.__class__ = _WithZero


class StockPolynormer(_Logits, Polynormer):
    r"""PyG's :class:`Polynormer`, which returns logits; local and global attention are trained at once.
    It has one head: with more, its global attention does not fit its local layers.

    Args:
        in_channels (int): Number of features.
        hidden_channels (int): Width.
        num_layers (int): Number of its local layers.
        out_channels (int): Size of the output.
        dropout (float, optional): Dropout between layers. (default: :obj:`0.0`)
        input_dropout (float, optional): Dropout on the features. (default: :obj:`0.0`)
        global_layers (int, optional): Number of its global layers. (default: :obj:`2`)
        local_only (bool, optional): Whether to leave global attention out. (default: :obj:`False`)

    Shapes:
        - **input:** node features :math:`(N, F_{in})`, edges :math:`(2, E)`
        - **output:** :math:`(N, F_{out})`
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        num_layers: int,
        out_channels: int,
        *,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        global_layers: int = 2,
        local_only: bool = False,
    ) -> None:
        super().__init__(
            in_channels,
            hidden_channels,
            out_channels,
            local_layers=num_layers,
            global_layers=global_layers,
            in_dropout=input_dropout,
            dropout=dropout,
            global_dropout=dropout,
        )
        self._global = not local_only
        self.pred_global.__class__ = self.pred_local.__class__ = _WithZero


class _WithZero(torch.nn.Linear):
    # A last layer with one more class, whose logit is 0: a log-softmax of its output keeps all logits, which
    # a task other than one of classes needs.
    def forward(self, x: Tensor) -> Tensor:
        return F.pad(super().forward(x), (0, 1))
