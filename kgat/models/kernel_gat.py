r"""Stacks of attention layers: ours, and the frame that our layers and others have in common."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Final

import torch
from torch import Tensor
from torch_geometric.nn import norm as norms
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.nn.dense.linear import Linear as PyGLinear
from torch_geometric.nn.models.basic_gnn import BasicGNN
from torch_geometric.nn.resolver import activation_resolver, normalization_resolver
from torch_geometric.typing import Adj, OptTensor
from torch_geometric.utils._trim_to_layer import trim_feat

from kgat.indices import as_long
from kgat.models.inference import EDGES, ROWS, by_slices, check_bounds, needs_all
from kgat.models.penalty import penalised
from kgat.models.pretrained import Pretrained
from kgat.moved import old_names
from kgat.names import arguments_of, normalized, resolved
from kgat.nn import GlobalAttention, KernelAttention, KernelGATConv, PrimalAttention
from kgat.nn.edges import read_edges
from kgat.nn.linear import Linear, drop_features
from kgat.nn.numbers import check_probability, check_whole, read_channels
from kgat.ops.dropout import dropout


class AttentionGNN(BasicGNN):
    r"""A stack of attention layers; subclasses name the layer.

    As :class:`torch_geometric.nn.models.GAT`, with some additions: dropout on the input features, which may
    be a ``torch.sparse_csr`` tensor; dropout on values; dropout on weights apart from that between layers; a
    number of heads for the last layer; and a linear layer in front.

    Args:
        in_channels (int or tuple): As in :class:`KernelGAT`, as the others are.
        hidden_channels (int): As in :class:`KernelGAT`.
        num_layers (int): As in :class:`KernelGAT`.
        out_channels (int, optional): As in :class:`KernelGAT`. (default: :obj:`None`)
        heads (int, optional): As in :class:`KernelGAT`. (default: :obj:`1`)
        out_heads (int, optional): As in :class:`KernelGAT`. (default: :obj:`None`)
        dropout (float, optional): As in :class:`KernelGAT`. (default: :obj:`0.0`)
        input_dropout (float, optional): As in :class:`KernelGAT`. (default: :obj:`0.0`)
        value_dropout (float, optional): As in :class:`KernelGAT`. (default: :obj:`0.0`)
        attention_dropout (float, optional): As in :class:`KernelGAT`. (default: :obj:`None`)
        pre_linear (bool, optional): As in :class:`KernelGAT`. (default: :obj:`False`)
        global_attention (str, optional): As in :class:`KernelGAT`. (default: :obj:`None`)
        norm (str or Callable, optional): As in :class:`KernelGAT`. (default: :obj:`None`)
        norm_kwargs (dict, optional): As in :class:`KernelGAT`. (default: :obj:`None`)
        **kwargs (optional): As in :class:`KernelGAT`, but for the keyword arguments of the layer, which are
            those of :attr:`conv_class`.

    Shapes:
        - **input:** node features :math:`(N, F_{in})`, edges :math:`(2, E)`
        - **output:** :math:`(N, F_{out})`

    Raises:
        ValueError: If a number is out of range, or arguments do not fit together.

    Example:
        >>> import torch
        >>> from kgat.models import AttentionGNN
        >>> from torch_geometric.nn import GATConv
        >>> class Stack(AttentionGNN):
        ...     conv_class = GATConv
        >>> model = Stack(16, 32, num_layers=2, out_channels=3, heads=4, input_dropout=0.5)
        >>> model(torch.randn(5, 16), torch.tensor([[0, 1], [1, 2]])).shape
        torch.Size([5, 3])
    """

    supports_edge_weight: Final[bool] = False  # type: ignore[misc]
    supports_edge_attr: Final[bool] = True  # type: ignore[misc]
    conv_class: ClassVar[type[MessagePassing]]
    conv_takes: ClassVar[tuple[str, ...]] = ()  # of what forward is given beside edges and what is on them

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        hidden_channels: int,
        num_layers: int,
        out_channels: int | None = None,
        *,
        heads: int = 1,
        out_heads: int | None = None,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        value_dropout: float = 0.0,
        attention_dropout: float | None = None,
        pre_linear: bool = False,
        global_attention: str | None = None,
        norm: str | Callable[..., Any] | None = None,
        norm_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        check_whole(hidden_channels=hidden_channels, num_layers=num_layers, heads=heads)
        check_whole(out_channels=out_channels, out_heads=out_heads, optional=True)
        check_probability(dropout=dropout, input_dropout=input_dropout, value_dropout=value_dropout)
        check_probability(attention_dropout=attention_dropout, optional=True)
        # Layers of PyG take no other kinds of whole numbers.
        in_channels, hidden_channels = read_channels(in_channels), int(hidden_channels)
        self.heads = heads
        self.out_heads = heads if out_heads is None else out_heads
        self.value_dropout = value_dropout
        self.attention_dropout = dropout if attention_dropout is None else attention_dropout
        self.pre_linear = pre_linear
        self.global_attention = global_attention
        if isinstance(norm, str):
            norm, norm_kwargs = _norm(norm, hidden_channels, norm_kwargs or {})
        if isinstance(act := kwargs.get("act"), str):
            resolved("act", activation_resolver, act, **(kwargs.get("act_kwargs") or {}))
        if pre_linear and not isinstance(in_channels, int):
            raise ValueError(
                f"Expected one size of all nodes because 'pre_linear' is set (got "
                f"in_channels={in_channels}); map sources and targets before the model"
            )
        first = hidden_channels if pre_linear else in_channels
        kwargs |= {"dropout": dropout, "norm": norm, "norm_kwargs": norm_kwargs}
        super().__init__(first, hidden_channels, num_layers, out_channels, **kwargs)
        self.in_channels = in_channels
        self.lin_in = Linear(in_channels, hidden_channels) if pre_linear else None
        # Modules, so that what is traced of them keeps to the mode they are in.
        self.drop_input = _Dropout(input_dropout)
        # Two: a heterogeneous model copies each.
        self._trim_nodes, self._trim_edges = _TrimRows(), _TrimRows()
        self._long_batch = _AsLong()
        # The same cheap dropout and sparse product for all layers alike, so that only attention differs.
        self.dropout = _Dropout(dropout)
        if global_attention is not None and not any(isinstance(c, GlobalAttention) for c in self.convs):
            raise ValueError(
                f"Expected a layer between hidden ones for global_attention='{global_attention}' (got "
                f"{num_layers} without); pass pre_linear=True, jk='last' or more layers"
            )
        for module in getattr(self.convs[0], "local", self.convs[0]).children():
            if type(module) is PyGLinear:
                module.__class__ = Linear

    @property
    def input_dropout(self) -> float:
        r"""Probability of dropping a feature of the input."""
        return self.drop_input.p

    @input_dropout.setter
    def input_dropout(self, p: float) -> None:
        self.drop_input.p = p

    def init_conv(
        self, in_channels: int | tuple[int, int], out_channels: int, **kwargs: Any
    ) -> MessagePassing:
        last = getattr(self, "_is_conv_to_out", False)
        concat = kwargs.pop("concat", True) and not last
        heads = self.out_heads if last else self.heads
        if concat and out_channels % heads != 0:
            raise ValueError(
                f"Expected 'hidden_channels' divisible by 'heads={heads}' (got {out_channels}); every head "
                f"takes an equal part of them"
            )
        if concat:
            out_channels //= heads
        kwargs |= {"heads": heads, "concat": concat, "dropout": self.attention_dropout}
        conv = self.conv_class(in_channels, out_channels, **kwargs)
        if self.value_dropout > 0.0:
            self._drop_values(conv)
        if self.global_attention is None or last or not (self.pre_linear or len(self.convs)):
            return conv
        return GlobalAttention(conv, self._attention(self.global_attention, in_channels))  # type: ignore[arg-type, return-value]

    def _attention(self, kernel: str, channels: int) -> torch.nn.Module:
        if kernel == "primal":
            return PrimalAttention(channels, self.heads)
        return KernelAttention(channels, self.heads, kernel=kernel, dropout=self.attention_dropout)

    penalised = penalised

    def _takes(self, conv: torch.nn.Module) -> tuple[str, ...]:
        # By name, of what belongs to nodes or graphs.
        others = ("batch", "losses") if isinstance(conv, GlobalAttention) else ()
        return tuple(dict.fromkeys((*self.conv_takes, *others)))

    def reset_parameters(self) -> None:
        r"""Draws all learnable parameters anew."""
        super().reset_parameters()
        if self.lin_in is not None:
            self.lin_in.reset_parameters()

    def _entered(self, x: Tensor) -> Tensor:
        # What the first layer is given.
        return x if self.lin_in is None else self.dropout(self.lin_in(x))

    def _drop_values(self, conv: MessagePassing) -> None:
        # Stock layers have no such option, but what they propagate can be changed on the way.
        conv.register_propagate_forward_pre_hook(partial(_drop_propagated, self.value_dropout))

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        edge_index: Adj,
        edge_weight: OptTensor = None,
        edge_attr: OptTensor = None,
        batch: OptTensor = None,
        batch_size: int | None = None,
        num_sampled_nodes_per_hop: list[int] | None = None,
        num_sampled_edges_per_hop: list[int] | None = None,
        losses: list[Tensor] | None = None,
        position: OptTensor = None,
    ) -> Tensor:
        r"""As :meth:`torch_geometric.nn.models.basic_gnn.BasicGNN.forward`, with dropout on :obj:`x` first,
        and with what layers of PyG do not take.

        Args:
            x (torch.Tensor): Node features.
            edge_index (torch.Tensor, EdgeIndex or torch.sparse tensor): The edges.
            edge_weight (torch.Tensor, optional): A number per edge. (default: :obj:`None`)
            edge_attr (torch.Tensor, optional): Edge features. (default: :obj:`None`)
            batch (torch.Tensor, optional): The graph of each node, for normalisation and for kernels that
                depend on the graph. (default: :obj:`None`)
            batch_size (int, optional): Number of graphs. (default: :obj:`None`)
            num_sampled_nodes_per_hop (list of int, optional): As in PyG. (default: :obj:`None`)
            num_sampled_edges_per_hop (list of int, optional): As in PyG. (default: :obj:`None`)
            losses (list of torch.Tensor, optional): Takes the penalties of the kernels of all layers: add
                them, divided by the number of training examples, to the mean loss. (default: :obj:`None`)
            position (torch.Tensor, optional): Positional encodings of the nodes, the same for all layers, of
                a model with ``position_dim``. (default: :obj:`None`)

        Shapes:
            - **x:** :math:`(N, F_{in})`, **edge_index:** :math:`(2, E)`, **batch:** :math:`(N)`
            - **position:** :math:`(N, F_p)`, **output:** :math:`(N, F_{out})`

        Example:
            >>> import torch
            >>> from kgat import KernelGAT
            >>> from torch_geometric.data import Data
            >>> from torch_geometric.transforms import AddRandomWalkPE
            >>> edges = torch.tensor([[0, 1, 2, 2, 3], [1, 2, 0, 3, 2]])
            >>> data = AddRandomWalkPE(walk_length=6)(Data(torch.randn(4, 16), edges))
            >>> model = KernelGAT(16, 32, 2, 3, heads=4, kernel="dot_product", position_dim=6)
            >>> model(data.x, data.edge_index, position=data.random_walk_pe).shape
            torch.Size([4, 3])
        """
        # It is traced: no looking into tensors, and what is not given may be a proxy of nothing.
        for name, extra in (("losses", losses), ("position", position)):
            known = any(name in self._takes(conv) for conv in self.convs)
            if not known and isinstance(extra, (list, Tensor)):
                raise TypeError(f"Expected no '{name}' (got one); layers of {type(self).__name__} take none")
        x = self._entered(self.drop_input(x))
        xs: list[Tensor] = []
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            if num_sampled_nodes_per_hop is not None:
                edge_weight = self._trim_edges(i, num_sampled_edges_per_hop, edge_weight)
                x, edge_index, _ = self._trim(
                    i, num_sampled_nodes_per_hop, num_sampled_edges_per_hop, x, edge_index
                )
                edge_attr = self._trim_edges(i, num_sampled_edges_per_hop, edge_attr)
                batch = self._trim_nodes(i, num_sampled_nodes_per_hop, batch)
                position = self._trim_nodes(i, num_sampled_nodes_per_hop, position)
                if self.jk_mode is not None:
                    xs = [self._trim_nodes(i, num_sampled_nodes_per_hop, of_layer) for of_layer in xs]
            given: dict[str, Any] = {"edge_attr": edge_attr}
            if self.supports_edge_weight:
                given["edge_weight"] = edge_weight
            joining = {"batch": batch, "losses": losses, "position": position}
            given |= {name: joining[name] for name in self._takes(conv) if joining[name] is not None}
            x = conv(x, edge_index, **given)
            if i < self.num_layers - 1 or self.jk_mode is not None:
                x = self._activated(x, norm, batch, batch_size)
                xs.append(x)
        x = self.jk(xs) if hasattr(self, "jk") else x
        return self.lin(x) if hasattr(self, "lin") else x  # type: ignore[no-any-return]

    def _activated(self, x: Tensor, norm: Any, batch: OptTensor, batch_size: int | None) -> Tensor:
        # What stands between two layers.
        if self.act is not None and self.act_first:
            x = self.act(x)
        x = norm(x, self._long_batch(batch), batch_size) if self.supports_norm_batch else norm(x)
        if self.act is not None and not self.act_first:
            x = self.act(x)
        return self.dropout(x)  # type: ignore[no-any-return]

    @torch.no_grad()
    def inference(  # type: ignore[override]
        self,
        x: Any = None,
        edge_index: Any = None,
        edge_attr: OptTensor = None,
        *args: Any,
        edge_weight: OptTensor = None,
        batch: OptTensor = None,
        batch_size: int | None = None,
        position: OptTensor = None,
        rows: int = ROWS,
        edges: int = EDGES,
        **kwargs: Any,
    ) -> Tensor:
        r"""Returns what :meth:`forward` does in evaluation mode, up to rounding, layer by layer and in each
        over slices of targets with all of their neighbours.

        A slice has at most :obj:`rows` targets and :obj:`edges` edges (a target with more is a slice of its
        own), so at most as many sources as both together. Memory is that of one slice, beside the edges by
        target and inputs and outputs of a layer, one row per node each (all layers with ``jk``).

        A layer whose kernel computes something from all nodes (a data-dependent law) or whose ``start`` is
        not set yet is not sliced. Called with a loader, it is
        :meth:`torch_geometric.nn.models.basic_gnn.BasicGNN.inference`, with the same arguments.

        Args:
            x (torch.Tensor or NeighborLoader): Node features, dense or ``torch.sparse_csr``, or a loader.
            edge_index (torch.Tensor, EdgeIndex or torch.sparse tensor): The edges.
            edge_attr (torch.Tensor, optional): As in :meth:`forward`. (default: :obj:`None`)
            *args (optional): With a loader, as in PyG.
            edge_weight (torch.Tensor, optional): As in :meth:`forward`. (default: :obj:`None`)
            batch (torch.Tensor, optional): As in :meth:`forward`. (default: :obj:`None`)
            batch_size (int, optional): As in :meth:`forward`. (default: :obj:`None`)
            position (torch.Tensor, optional): As in :meth:`forward`. (default: :obj:`None`)
            rows (int, optional): Targets of a slice at most. (default: :obj:`16384`)
            edges (int, optional): Edges of a slice at most. (default: :obj:`262144`)
            **kwargs (optional): With a loader, as in PyG.

        Shapes:
            - **x:** :math:`(N, F_{in})`, **edge_index:** :math:`(2, E)`, **output:** :math:`(N, F_{out})`

        Raises:
            ValueError: If the model is in training mode, or a bound is below 1.

        Example:
            >>> import torch
            >>> from kgat import KernelGAT
            >>> model = KernelGAT(16, 32, num_layers=2, out_channels=3, heads=4, kernel="rbf").eval()
            >>> x, edge_index = torch.randn(5, 16), torch.tensor([[0, 1, 3], [1, 2, 4]])
            >>> torch.allclose(model.inference(x, edge_index, rows=2), model(x, edge_index), atol=1e-6)
            True
        """
        if not isinstance(x, Tensor):
            of_loader = {"device": edge_index, "embedding_device": edge_attr}
            kwargs |= {name: value for name, value in of_loader.items() if value is not None}
            names = ("progress_bar", "cache")
            kwargs |= dict(zip(names, args, strict=False))
            return super().inference(kwargs.pop("loader", x), **kwargs)
        if args or kwargs:
            raise TypeError(
                f"Expected node features and edges, or a loader with arguments of PyG (got also "
                f"{[*args, *kwargs]}); name the others as 'forward' does"
            )
        check_bounds(rows, edges)
        if self.training:
            raise ValueError("Expected a model in evaluation mode (got one in training); call model.eval()")
        first: Any = getattr(self.convs[0], "local", self.convs[0])
        if first.flow != "source_to_target":
            raise ValueError(
                f"Expected flow='source_to_target' (got '{first.flow}'); call the model, which takes it"
            )
        weight = edge_weight if self.supports_edge_weight else None
        read = read_edges(edge_index, edge_attr, weight, first.edge_dim)
        joining = {"batch": batch, "position": position}
        of_nodes: dict[str, Any] = {
            name: value for name, value in joining.items() if value is not None and name in self.conv_takes
        }
        given = {name: value for name, value in joining.items() if value is not None}
        if position is not None and "position" not in self.conv_takes:
            raise TypeError(f"Expected no 'position' (got one); layers of {type(self).__name__} take none")
        of_edges = {"edge_attr": edge_attr}
        if self.supports_edge_weight:
            of_edges["edge_weight"] = edge_weight
        x = self._entered(x)
        xs: list[Tensor] = []
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            if needs_all(conv):
                of_all = {name: given[name] for name in self._takes(conv) if name in given}
                x = conv(x, edge_index, **of_edges, **of_all)
            else:
                x = by_slices(conv, x, read, of_nodes, rows, edges)
            if i < self.num_layers - 1 or self.jk_mode is not None:
                x = self._activated(x, norm, batch, batch_size)
                if hasattr(self, "jk"):
                    xs.append(x)
        x = self.jk(xs) if hasattr(self, "jk") else x
        return self.lin(x) if hasattr(self, "lin") else x  # type: ignore[no-any-return]


class KernelGAT(Pretrained, AttentionGNN):
    r"""Graph attention with any kernel: a stack of :class:`~kgat.nn.KernelGATConv`, which
    :meth:`~kgat.models.pretrained.Pretrained.save_pretrained` writes into a folder.

    Args:
        in_channels (int or tuple): Size of each input sample, or :obj:`-1`.
        hidden_channels (int): Width of the hidden layers, all heads together.
        num_layers (int): Number of layers.
        out_channels (int, optional): Size of the output. (default: :obj:`None`)
        heads (int, optional): Heads of every layer but the last. (default: :obj:`1`)
        out_heads (int, optional): Heads of the last layer, which are averaged; as :obj:`heads` if
            :obj:`None`. (default: :obj:`None`)
        dropout (float, optional): Dropout between layers and on attention weights. (default: :obj:`0.0`)
        input_dropout (float, optional): Dropout on the features. (default: :obj:`0.0`)
        value_dropout (float, optional): Dropout on projected features where they are averaged, not where
            they are scored, as in the original GAT code. (default: :obj:`0.0`)
        attention_dropout (float, optional): Dropout on attention weights; as :obj:`dropout` if :obj:`None`.
            (default: :obj:`None`)
        pre_linear (bool, optional): Whether a linear map to the hidden width, and dropout, come before the
            first layer. (default: :obj:`False`)
        global_attention (str, optional): The kernel of attention over all nodes of a graph, or
            :obj:`"primal"` for :class:`~kgat.nn.PrimalAttention`, which is linear in their number. Layers
            between hidden ones add it to their output, see :class:`~kgat.nn.GlobalAttention`: all but the
            first (with ``pre_linear``, it too) and the last (with ``jk``, it too). (default: :obj:`None`)
        norm (str or Callable, optional): Normalisation, as PyG resolves it, with arguments where there are
            some: :obj:`"layer_norm[mode=node]"`. (default: :obj:`None`)
        norm_kwargs (dict, optional): Further arguments of it. (default: :obj:`None`)
        **kwargs (optional): ``act``, ``jk`` and so on of
            :class:`torch_geometric.nn.models.basic_gnn.BasicGNN` (``jk="last"`` puts a linear layer behind
            the last one, which is then as wide as the others), and keyword arguments
            (``kernel``, ``magnitude``, ``projections``, ``residual``, ``position_dim``, ...) of every
            :class:`~kgat.nn.KernelGATConv`.

    Shapes:
        - **input:** node features :math:`(N, F_{in})`, edges :math:`(2, E)`
        - **output:** :math:`(N, F_{out})`

    Raises:
        ValueError: If a number is out of range, or arguments do not fit together.

    Example:
        >>> import torch
        >>> from kgat import KernelGAT
        >>> model = KernelGAT(16, 32, num_layers=2, out_channels=3, heads=4, out_heads=1, kernel="rbf")
        >>> model(torch.randn(5, 16), torch.tensor([[0, 1], [1, 2]])).shape
        torch.Size([5, 3])
    """

    supports_edge_weight: Final[bool] = True  # type: ignore[misc]
    conv_class = inner = KernelGATConv
    conv_takes = ("batch", "losses", "position")

    def _drop_values(self, conv: MessagePassing) -> None:
        conv.value_dropout = self.value_dropout


def _drop_propagated(p: float, conv: MessagePassing, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    edge_index, size, kwargs = inputs
    if not conv.training:
        return inputs
    source, target = kwargs["x"]
    return edge_index, size, {**kwargs, "x": (dropout(source, p), target)}


def _norm(name: str, channels: int, kwargs: dict[str, Any]) -> tuple[str, dict[str, Any] | None]:
    match = re.fullmatch(r"([^][]*)\[([^][]*)\]", name.strip())
    short, brackets = (name, None) if match is None else match.groups()
    if brackets is not None:
        kwargs = {**kwargs, **arguments_of(_class_of(short), brackets, name, given=1)}
    try:
        resolved("norm", normalization_resolver, short, channels, **kwargs)
    except TypeError as error:
        raise ValueError(
            f"Expected 'norm' as a norm of PyG that takes channels, with its other arguments (got '{name}': "
            f"{error}); e.g. diff_group_norm[groups=4]"
        ) from None
    return short, kwargs or None


def _class_of(name: str) -> Callable[..., Any]:
    # Of a norm that PyG knows by this name, which may need more than channels.
    for title in norms.__all__:
        if normalized(name) in (title.lower(), title.lower().removesuffix("norm")):
            return getattr(norms, title)  # type: ignore[no-any-return]
    return type(resolved("norm", normalization_resolver, name))


class _Dropout(torch.nn.Dropout):
    def forward(self, x: Tensor) -> Tensor:
        return drop_features(x, self.p) if self.training else x


class _AsLong(torch.nn.Module):
    # Norms scatter by it. A module, as what is traced knows no types of its inputs.
    def forward(self, batch: OptTensor) -> OptTensor:
        return None if batch is None else as_long(batch)


class _TrimRows(torch.nn.Module):
    # What belongs to each node or edge, without those that layer 'layer' of a sampled batch no longer needs.
    def forward(self, layer: int, num_sampled_per_hop: list[int] | None, x: OptTensor) -> OptTensor:
        if isinstance(num_sampled_per_hop, list) and layer > len(num_sampled_per_hop):
            hops = len(num_sampled_per_hop)
            raise ValueError(
                f"Expected a batch of as many hops as the model has layers, less one, or more (got {hops} "
                f"for layer {layer + 1}); sample more hops, or pass no 'num_sampled_nodes_per_hop'"
            )
        if x is None or num_sampled_per_hop is None:
            return x
        return trim_feat(x, layer, num_sampled_per_hop)


__getattr__ = old_names(__name__)
