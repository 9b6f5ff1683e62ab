r"""The frame that layers have in common on graphs of several types of nodes and edges."""

import copy
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import ModuleList
from torch_geometric.nn import BatchNorm, HeteroConv
from torch_geometric.nn.module_dict import ModuleDict
from torch_geometric.typing import Adj, EdgeType, Metadata, NodeType
from torch_geometric.utils import trim_to_layer

from kgat.models.kernel_gat import AttentionGNN
from kgat.models.penalty import penalised
from kgat.names import one_of, unknown
from kgat.nn.linear import Linear
from kgat.nn.numbers import check_whole

__all__ = ["AGGREGATIONS", "HeteroGNN"]

AGGREGATIONS = ("sum", "mean", "min", "max")
T = TypeVar("T")


class HeteroGNN(torch.nn.Module):
    r"""The layers of a stack on a heterogeneous graph, with parameters of their own for each type of edges.

    Args:
        stack (type): The stack whose layers are taken, a subclass of :class:`AttentionGNN`.
        in_channels (int or dict): As :class:`KernelHeteroGAT`.
        hidden_channels (int): As :class:`KernelHeteroGAT`.
        num_layers (int): As :class:`KernelHeteroGAT`.
        out_channels (int, optional): As :class:`KernelHeteroGAT`. (default: :obj:`None`)
        metadata (tuple): As :class:`KernelHeteroGAT`.
        target (str, optional): As :class:`KernelHeteroGAT`. (default: :obj:`None`)
        aggr (str, optional): As :class:`KernelHeteroGAT`. (default: :obj:`"sum"`)
        residual (bool, optional): As :class:`KernelHeteroGAT`. (default: :obj:`True`)
        add_self_loops (bool, optional): As :class:`KernelHeteroGAT`. (default: :obj:`False`)
        edge_dim (int or dict, optional): As :class:`KernelHeteroGAT`. (default: :obj:`None`)
        **kwargs (optional): As :class:`KernelHeteroGAT`, but for the keyword arguments of the layers, which
            are those of the stack.

    Shapes:
        - **input:** node features :math:`(N_t, F_t)` and edges :math:`(2, E_r)`, by type
        - **output:** :math:`(N_t, F_{out})`, by type

    Raises:
        ValueError: If types or sizes do not fit together.

    Example:
        >>> import torch
        >>> from kgat.models import HeteroGNN, KernelGAT
        >>> metadata = (["author", "paper"], [("author", "writes", "paper")])
        >>> model = HeteroGNN(KernelGAT, 4, 8, 2, 3, metadata=metadata, target="paper", kernel="rbf")
        >>> x = {"author": torch.randn(2, 4), "paper": torch.randn(5, 4)}
        >>> edges = {("author", "writes", "paper"): torch.tensor([[0, 1], [3, 3]])}
        >>> model(x, edges)["paper"].shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        stack: type[AttentionGNN],
        in_channels: int | Mapping[NodeType, int],
        hidden_channels: int,
        num_layers: int,
        out_channels: int | None = None,
        *,
        metadata: Metadata,
        target: NodeType | None = None,
        aggr: str = "sum",
        residual: bool = True,
        add_self_loops: bool = False,
        edge_dim: int | Mapping[EdgeType, int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        for name in ("jk", "pre_linear", "position_dim", "global_attention"):
            if value := kwargs.pop(name, None):
                raise ValueError(
                    f"Expected no '{name}' of a heterogeneous model (got '{value}'); leave it out"
                )
        check_whole(hidden_channels=hidden_channels, num_layers=num_layers)
        _check_sizes("in_channels", in_channels)
        _check_sizes("edge_dim", edge_dim)
        self.node_types, self.edge_types = _checked(metadata)
        if target is not None and target not in self.node_types:
            unknown("'target' as a type of nodes", str(target), self.node_types)
        self.target = target
        self.hidden_channels = hidden_channels
        self.num_layers = num_layers
        self.out_channels = hidden_channels if out_channels is None else out_channels
        self.aggr = one_of("aggr", aggr, AGGREGATIONS)
        self.residual = residual

        # The types that are asked for, from the last layer back: others would have parameters in vain.
        needed = [set(self.node_types if target is None else [target])]
        for _ in range(num_layers):
            needed.insert(0, needed[0] | {edge[0] for edge in self.edge_types if edge[2] in needed[0]})
        inputs, *outputs = ([name for name in self.node_types if name in each] for each in needed)
        widths = _by_type("in_channels", in_channels, self.node_types, inputs)
        edge_dims = dict.fromkeys(self.edge_types, edge_dim)
        if isinstance(edge_dim, Mapping):
            edge_dims |= dict.fromkeys(self.edge_types)
            edge_dims |= _by_type("edge_dim", edge_dim, self.edge_types)

        stacks: dict[EdgeType, AttentionGNN] = {}  # one for each type of edges, which then stand side by side
        for edge in self.edge_types:
            alike = edge[0] == edge[2]
            width: Any = hidden_channels if alike else (hidden_channels, hidden_channels)
            stacks[edge] = stack(
                width, hidden_channels, num_layers, out_channels, edge_dim=edge_dims[edge], **kwargs
            )
            for conv in stacks[edge].convs:
                if hasattr(conv, "add_self_loops"):  # from one type to another there is no self
                    conv.add_self_loops = add_self_loops and alike
        frame = next(iter(stacks.values()))
        self.act, self.act_first = frame.act, frame.act_first
        self.drop_input, self.dropout = frame.drop_input, frame.dropout
        self.lins = ModuleDict({name: Linear(widths[name], hidden_channels) for name in inputs})
        self.convs, self.norms, self.lins_res = ModuleList(), ModuleList(), ModuleList()
        for layer, names in enumerate(outputs):
            last = layer == num_layers - 1
            edges = [edge for edge in self.edge_types if edge[2] in names]
            with warnings.catch_warnings():  # of types that receive nothing, which have a map of their own
                warnings.simplefilter("ignore", UserWarning)
                self.convs.append(HeteroConv({edge: stacks[edge].convs[layer] for edge in edges}, aggr))
            self.norms.append(ModuleDict({name: copy.deepcopy(frame.norms[layer]) for name in names}))
            reached = set() if residual else {edge[2] for edge in edges}
            size = self.out_channels if last else hidden_channels
            self.lins_res.append(
                ModuleDict({name: Linear(hidden_channels, size) for name in names if name not in reached})
            )
        for module in self.norms.modules():
            if isinstance(module, BatchNorm):  # a mini-batch may have one node of a type, or none
                module.allow_single_element = True

    penalised = penalised

    def reset_parameters(self) -> None:
        r"""Draws all learnable parameters anew."""
        modules: list[Any] = [*self.lins.values(), *self.convs]
        for of_types in (*self.norms, *self.lins_res):
            modules += of_types.children()
        for module in modules:
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()

    def forward(
        self,
        x_dict: Mapping[NodeType, Tensor],
        edge_index_dict: Mapping[EdgeType, Adj],
        edge_attr_dict: Mapping[EdgeType, Tensor] | None = None,
        num_sampled_nodes_dict: Mapping[NodeType, list[int]] | None = None,
        num_sampled_edges_dict: Mapping[EdgeType, list[int]] | None = None,
        losses: list[Tensor] | None = None,
    ) -> dict[NodeType, Tensor]:
        r"""Runs the forward pass of the model.

        Args:
            x_dict (dict): Node features of each type of nodes.
            edge_index_dict (dict): Edges of each type; a type that is missing has none.
            edge_attr_dict (dict, optional): Edge features of the types that have some.
                (default: :obj:`None`)
            num_sampled_nodes_dict (dict, optional): As a batch of a neighbour loader has it: what a layer no
                longer needs is left out. (default: :obj:`None`)
            num_sampled_edges_dict (dict, optional): As :obj:`num_sampled_nodes_dict`.
                (default: :obj:`None`)
            losses (list of torch.Tensor, optional): Takes the penalties of the kernels of all layers.
                (default: :obj:`None`)

        Shapes:
            - **x_dict:** :math:`(N_t, F_t)`, **edge_index_dict:** :math:`(2, E_r)`
            - **output:** :math:`(N_t, F_{out})` of each type, or of :obj:`target` alone
        """
        x, edges, attr = self._checked_inputs(x_dict, edge_index_dict, edge_attr_dict or {})
        for hops in (num_sampled_edges_dict or {}).values():
            if len(hops) < self.num_layers - 1:
                raise ValueError(
                    "Expected a batch of as many hops as the model has layers, less one, or more (got "
                    f"{len(hops)} for {self.num_layers} layers); sample more hops, or pass no "
                    "'num_sampled_nodes_dict'"
                )
        more = {"losses_dict": dict.fromkeys(self.edge_types, losses)} if losses is not None else {}
        x = {name: self._between(lin(self.drop_input(x[name]))) for name, lin in self.lins.items()}
        for layer, conv in enumerate(self.convs):
            if num_sampled_nodes_dict is not None and num_sampled_edges_dict is not None:
                x, edges, attr = trim_to_layer(
                    *(layer, dict(num_sampled_nodes_dict), dict(num_sampled_edges_dict), x, edges, attr)
                )
            some = next(iter(x.values()))
            none = torch.empty(2, 0, dtype=torch.long, device=some.device)
            out = conv(x, {**dict.fromkeys(self.edge_types, none), **edges}, edge_attr_dict=attr, **more)
            maps: Any = self.lins_res[layer]
            for name, lin in maps.items():
                out[name] = lin(x[name]) + out[name] if name in out else lin(x[name])
            if layer < self.num_layers - 1:
                norms: Any = self.norms[layer]
                out = {name: self._between(h, norms[name]) for name, h in out.items()}
            x = out
        return x

    def _between(self, x: Tensor, norm: torch.nn.Module | None = None) -> Tensor:
        # What stands between two layers.
        steps = (self.act, norm) if self.act_first else (norm, self.act)
        for step in (*steps, self.dropout):
            if step is not None:
                x = step(x)
        return x

    def _checked_inputs(
        self, x: Mapping[NodeType, Tensor], edges: Mapping[EdgeType, Adj], attr: Mapping[EdgeType, Tensor]
    ) -> tuple[dict[NodeType, Tensor], dict[EdgeType, Adj], dict[EdgeType, Tensor]]:
        # Without the types that no output depends on.
        for name, lin in self.lins.items():
            if name not in x:
                raise ValueError(
                    f"Expected features of the nodes of type '{name}' in 'x_dict' (got those of "
                    f"{', '.join(map(repr, x)) or 'none'}); make some"
                )
            if x[name].dim() != 2 or lin.in_channels not in (-1, x[name].size(1)):
                raise ValueError(
                    f"Expected node features of shape [nodes, {lin.in_channels}] of type '{name}' (got "
                    f"{list(x[name].shape)}); build the model with the sizes of all types"
                )
        for given, name in ((edges, "edge_index_dict"), (attr, "edge_attr_dict")):
            for edge in given:
                if edge not in self.edge_types:
                    unknown(
                        f"types of edges of the model as keys of '{name}'",
                        str(edge),
                        map(str, self.edge_types),
                    )
        used = [edge for edge in edges if edge[0] in self.lins and edge[2] in self.lins]
        attr = {edge: attr[edge] for edge in used if edge in attr}
        return dict(x), {edge: edges[edge] for edge in used}, attr

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.hidden_channels}, {self.out_channels}, "
            f"num_layers={self.num_layers}, edge_types={len(self.edge_types)})"
        )


def _checked(metadata: Metadata) -> tuple[list[NodeType], list[EdgeType]]:
    names, edges = list(metadata[0]), [tuple(edge) for edge in metadata[1]]
    for edge in edges:
        for end in (edge[0], edge[-1]):
            if end not in names:
                unknown(f"types of nodes at the ends of {edge} in 'metadata'", end, names)
    if not edges:
        raise ValueError("Expected types of edges in 'metadata' (got none); use a model of nodes alone")
    return names, edges


def _check_sizes(what: str, given: Any) -> None:
    for size in given.values() if isinstance(given, Mapping) else [given]:
        if what != "in_channels" or size != -1:  # which is that of the first input
            check_whole(optional=what == "edge_dim", **{what: size})


def _by_type(
    what: str, given: int | Mapping[T, int], types: Sequence[T], wanted: Iterable[T] = ()
) -> dict[T, int]:
    if not isinstance(given, Mapping):
        return dict.fromkeys(types, given)
    for name in given:
        if name not in types:
            unknown(f"types of 'metadata' as keys of '{what}'", str(name), map(str, types))
    for name in wanted:
        if name not in given:
            raise ValueError(
                f"Expected '{what}' of type '{name}' (got {dict(given)}); name it, or pass -1 for what the "
                "first input has"
            )
    return dict(given)
