r"""Weights in the names of PyG's layers: checkpoints of GATConv and GATv2Conv, read and written."""

import copy
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import Parameter
from torch_geometric.nn.aggr import SumAggregation
from torch_geometric.nn.conv import GATConv, GATv2Conv

from kgat import kernels
from kgat.kernels import Kernel
from kgat.nn.overridden import expect_own
from kgat.nn.projections import MAPS

# The arguments that a KernelGATConv has in common with GATConv and GATv2Conv, beside a slope, a bias and an
# aggregation.
SHARED = (
    *("in_channels", "out_channels", "heads", "concat", "dropout", "add_self_loops", "edge_dim"),
    *("fill_value", "residual", "flow"),
)

# What GATv2Conv and TransformerConv call a skip connection and its bias.
SKIP = {"lin_skip.weight": "res.weight", "lin_skip.bias": "bias"}


def _stock_vector(name: str, side: str, parameter: str) -> property:
    def vector(layer: Any) -> Tensor:
        own = _own_name(layer.kernel, name)
        if own is None:
            raise AttributeError(f"{type(layer).__name__} has no attention vectors with {layer.kernel!r}")
        return getattr(layer.kernel, own).unsqueeze(0)  # type: ignore[no-any-return]

    doc = f"""GATConv's attention vector of {side} :math:`(1, H, D)`, of an additive kernel.

        A view of the parameter ``kernel.{parameter}``, to be read, changed in place and set: its gradient is
        ``kernel.{parameter}.grad``. What takes a parameter, such as an optimizer, ``requires_grad_``, pruning
        or a parametrisation, takes that one, a module and its name as ``conv.kernel, "{parameter}"``."""
    return property(vector, doc=doc)


class StockWeights(torch.nn.Module):
    r"""A :class:`~kgat.nn.KernelGATConv` that is built from GATConv and turned into PyG's layers again, where
    the ``stock`` of its kernel says so."""

    kernel: Kernel
    bias: Tensor | None
    heads: int
    out_channels: int
    projections: str
    _maps: tuple[str, str, str]
    edge_dim: int | None
    edge_mode: str
    value_dropout: float
    position_dim: int | None

    att_src = _stock_vector("att_src", "sources", "att_key")
    att_dst = _stock_vector("att_dst", "targets", "att_query")

    def __setattr__(self, name: str, value: Any) -> None:
        # A parameter under one of GATConv's names is that of the kernel.
        own = _own_name(self.kernel, name) if name in ("att_src", "att_dst") else None
        if own is None:
            super().__setattr__(name, value)
            return
        shape = (self.heads, self.out_channels)
        if not isinstance(value, Tensor) or value.shape not in (shape, (1, *shape)):
            got = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"Expected '{name}' as a tensor of shape [1, heads={shape[0]}, out_channels={shape[1]}] (got "
                f"{got}); it is the parameter 'kernel.{own}'"
            )
        # A tensor says nothing of whether it is learned.
        learned = (value if isinstance(value, Parameter) else getattr(self.kernel, own)).requires_grad
        setattr(self.kernel, own, Parameter(value.detach().reshape(shape), learned))

    @classmethod
    def from_gat(cls, conv: GATConv, **kwargs: Any) -> Self:
        r"""Makes the layer that computes what a :class:`GATConv` computes, with its weights, a copy of its
        aggregation, and those parameters frozen that it has frozen. Hooks stay where they are.

        Args:
            conv (GATConv): An initialised GATConv.
            **kwargs (optional): Keyword-only arguments of this class. What :obj:`position_dim` adds keeps its
                initial weights.

        Raises:
            TypeError: If it is another layer, or one of a subclass that computes something else.
            ValueError: If another kernel than GAT's is asked for.

        Example:
            >>> from kgat import KernelGATConv
            >>> from torch_geometric.nn import GATConv
            >>> KernelGATConv.from_gat(GATConv(16, 8, heads=4))
            KernelGATConv(16, 8, heads=4)
        """
        expect_own(
            conv,
            GATConv,
            "build KernelGATConv(...), load what weights it shares and override there what a subclass does",
        )
        if kernels.resolve(kwargs.get("kernel", "additive"), 1, 1).stock[0] != "GATConv":
            raise ValueError(
                f"Expected kernel='additive' for the weights of a GATConv (got {kwargs['kernel']!r}); build "
                f"KernelGATConv(kernel=...) where another kernel is to learn its own"
            )
        new = _built(cls, conv, conv.negative_slope, **kwargs)
        state = conv.state_dict()
        for name, value in new.state_dict().items():
            if name.startswith(("lin_position.", "position_kernel.")):
                state[name] = value
        new.load_state_dict(state)
        names = own_names(new)
        for name, parameter in conv.named_parameters():
            new.get_parameter(names.get(name, name)).requires_grad_(parameter.requires_grad)
        return new  # type: ignore[no-any-return]

    def to_gat(self) -> GATConv:
        r"""Makes the :class:`GATConv` that computes what this layer computes, with its weights.

        Its state dict is in GATConv's names, and what is frozen here is frozen there;
        ``KernelGATConv.from_gat`` is the way back.

        Raises:
            ValueError: If the layer has what GATConv has not, such as another kernel.
            TypeError: If a subclass of KernelGATConv computes something else.

        Example:
            >>> from kgat import KernelGATConv
            >>> KernelGATConv(16, 8, heads=4).to_gat()
            GATConv(16, 8, heads=4)
        """
        shared = self.projections == "shared"
        return self._to_stock(
            GATConv,
            {
                "kernel='additive'": _is_stock(self.kernel, "GATConv"),
                "projections='shared'": shared,
                "projection_bias=False": not shared or getattr(self, self._maps[1]).bias is None,
                "edge_mode='score'": self.edge_dim is None or self.edge_mode == "score",
            },
        )

    def to_gatv2(self) -> GATv2Conv:
        r"""Makes the :class:`GATv2Conv` that computes what this layer computes, with its weights, which are
        frozen there if they are here.

        The layer is one of ``kernel="additive_v2"``, ``projections="shared_kv"`` (or ``"shared"``, which is
        GATv2Conv's ``share_weights``), ``projection_bias`` as ``bias`` and ``edge_mode="key"``;
        :meth:`load_state_dict` reads what a GATv2Conv saves, with ``projections="shared"`` that of one with
        ``share_weights=True``.

        Raises:
            ValueError: If the layer has what GATv2Conv has not.
            TypeError: If a subclass of KernelGATConv computes something else.

        Example:
            >>> from kgat import KernelGATConv
            >>> KernelGATConv(
            ...     *(16, 8, 4), kernel="additive_v2", projections="shared_kv", projection_bias=True
            ... ).to_gatv2()
            GATv2Conv(16, 8, heads=4)
        """
        shared = self._maps == MAPS["shared"]
        conditions = {
            "kernel='additive_v2'": _is_stock(self.kernel, "GATv2Conv"),
            "projections='shared_kv'": self.projections in ("shared", "shared_kv"),
            f"projection_bias={self.bias is not None}": (getattr(self, self._maps[1]).bias is None)
            == (self.bias is None),
            "edge_mode='key'": self.edge_dim is None or self.edge_mode == "key",
        }
        return self._to_stock(GATv2Conv, conditions, **({"share_weights": True} if shared else {}))

    def _to_stock(self, cls: Any, conditions: dict[str, bool], **kwargs: Any) -> Any:
        conditions["value_dropout=0.0"] = self.value_dropout == 0.0
        conditions["position_dim=None"] = self.position_dim is None
        missing = [option for option, met in conditions.items() if not met]
        if missing:
            raise ValueError(
                f"Expected a layer that {cls.__name__} can compute (got {self!r}); it needs "
                f"{', '.join(missing)}"
            )
        own_class = next(base for base in type(self).__mro__ if StockWeights in base.__bases__)
        expect_own(
            self, own_class, f"override in a subclass of {cls.__name__} what it overrides", StockWeights
        )
        new = _built(cls, self, self.kernel.negative_slope, **kwargs)
        taken = new.state_dict().keys()
        stock: dict[str, list[str]] = {}
        for old, own in own_names(self).items():
            if old in taken:  # both of GATv2Conv's maps may be one here
                stock.setdefault(own, []).append(old)
        state = {}
        for own, value in self.state_dict().items():
            for old in stock.get(own, [own]):
                state[old] = value.unsqueeze(0) if own.startswith("kernel.") else value
        new.load_state_dict(state)
        for own, parameter in self.named_parameters():
            for old in stock.get(own, [own]):
                new.get_parameter(old).requires_grad_(parameter.requires_grad)
        return new


def _built(cls: Any, like: Any, negative_slope: Any, **kwargs: Any) -> Any:
    # A layer of the options, type, device and mode of another, before its weights are there.
    arguments = {name: getattr(like, name) for name in SHARED}
    # The name of an aggregation says nothing of its arguments, and that of a module is none.
    is_sum = type(like.aggr_module) is SumAggregation
    arguments["aggr"] = "add" if is_sum else copy.deepcopy(like.aggr_module)
    new = cls(**arguments, negative_slope=negative_slope, bias=like.bias is not None, **kwargs)
    new.aggr = like.aggr
    reference = next(like.parameters())
    return new.to(reference.device, reference.dtype).train(like.training)


def _own_name(kernel: Kernel, stock: str) -> str | None:
    return next((own for own, name in kernel.stock[1].items() if name == stock), None)


def _is_stock(kernel: Kernel, layer: str) -> bool:
    name, parameters = kernel.stock
    return name == layer and parameters.keys() == {own for own, _ in kernel.named_parameters()}


def _own_vectors(conv: Any) -> dict[str, str]:
    return {
        stock: f"{path}.{own}"
        for path, part in conv.kernel.named_modules(prefix="kernel")
        if isinstance(part, Kernel)
        for own, stock in part.stock[1].items()
    }


def own_names(conv: Any) -> dict[str, str]:
    r"""Returns the names in a KernelGATConv of what GATConv, GATv2Conv and TransformerConv call otherwise.

    Args:
        conv (KernelGATConv): The layer.
    """
    of_query, of_key, _ = conv._maps
    maps = {"lin_l": of_key, "lin_r": of_query}
    if conv.lin is not None:  # GATConv before PyG 2.5 had one map under two names
        maps |= {"lin_src": "lin", "lin_dst": "lin"}
    both = {f"{old}.{leaf}": f"{own}.{leaf}" for old, own in maps.items() for leaf in ("weight", "bias")}
    return SKIP | both | _own_vectors(conv)


def rename_stock(
    conv: Any,
    state: dict[str, Any],
    prefix: str,
    metadata: Any,
    strict: bool,
    missing: list[str],
    unexpected: list[str],
    errors: list[str],
) -> None:
    r"""Lets a layer load what GATConv, GATv2Conv and TransformerConv saved, and GATConv before PyG 2.5."""
    vectors = _own_vectors(conv)
    taken: dict[str, str] = {}  # from which name
    for old, own in own_names(conv).items():
        if prefix + old not in state:
            continue
        if prefix + own not in state:
            value = state.pop(prefix + old)
            state[prefix + own] = value.squeeze(0) if old in vectors else value
            taken[own] = old
        elif own in taken:
            value, other = state.pop(prefix + old), state[prefix + own]
            if value is not other and not _are_equal(value, other):
                errors.append(
                    f"Expected equal '{prefix}{taken[own]}' and '{prefix}{old}', which are one "
                    f"'{prefix}{own}' here (got two); build the layer with projections='shared_kv' for a "
                    f"GATv2Conv, with a pair as 'in_channels' for a GATConv"
                )


def _are_equal(x: Tensor, y: Tensor) -> bool:
    if x.is_meta or y.is_meta:  # there are no numbers to compare
        return x.shape == y.shape
    return torch.equal(x, y.to(x.device))
