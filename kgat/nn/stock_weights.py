r"""Weights in the names of PyG's layers: checkpoints of GATConv and GATv2Conv, read and written."""

from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import Parameter
from torch_geometric.nn.conv import GATConv, GATv2Conv

from kgat import kernels
from kgat.kernels import Kernel
from kgat.nn.projections import MAPS

# The arguments that a KernelGATConv has in common with GATConv and GATv2Conv, beside a slope and a bias.
SHARED = (
    *("in_channels", "out_channels", "heads", "concat", "dropout", "add_self_loops", "edge_dim"),
    *("fill_value", "residual", "aggr", "flow"),
)

# What GATv2Conv and TransformerConv call their maps. GATConv's are called as ours, since PyG 2.5.
RENAMED = {
    "lin_skip.weight": "res.weight",
    "lin_skip.bias": "bias",
    "lin_l.weight": "lin_key.weight",
    "lin_l.bias": "lin_key.bias",
    "lin_r.weight": "lin_query.weight",
    "lin_r.bias": "lin_query.bias",
}


def _stock_vector(name: str, side: str) -> property:
    def vector(layer: Any) -> Tensor:
        own = _own_name(layer.kernel, name)
        if own is None:
            raise AttributeError(f"{type(layer).__name__} has no attention vectors with {layer.kernel!r}")
        return getattr(layer.kernel, own).unsqueeze(0)  # type: ignore[no-any-return]

    doc = f"GATConv's attention vector of {side} :math:`(1, H, D)`, as its parameter of this name, of an "
    return property(vector, doc=f"{doc}additive kernel.")


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

    att_src = _stock_vector("att_src", "sources")
    att_dst = _stock_vector("att_dst", "targets")

    def __setattr__(self, name: str, value: Any) -> None:
        # A parameter under one of GATConv's names is that of the kernel.
        own = _own_name(self.kernel, name) if name in ("att_src", "att_dst") else None
        if own is None:
            super().__setattr__(name, value)
        else:
            value = value.detach().reshape(self.heads, self.out_channels)
            setattr(self.kernel, own, Parameter(value, getattr(self.kernel, own).requires_grad))

    @classmethod
    def from_gat(cls, conv: GATConv, **kwargs: Any) -> Self:
        r"""Makes the layer that computes what a :class:`GATConv` computes, with its weights.

        Args:
            conv (GATConv): An initialised GATConv.
            **kwargs (optional): Keyword-only arguments of this class. What :obj:`position_dim` adds keeps its
                initial weights.

        Raises:
            TypeError: If it is another layer.
            ValueError: If another kernel than GAT's is asked for.

        Example:
            >>> from kgat import KernelGATConv
            >>> from torch_geometric.nn import GATConv
            >>> KernelGATConv.from_gat(GATConv(16, 8, heads=4))
            KernelGATConv(16, 8, heads=4)
        """
        if not isinstance(conv, GATConv):
            raise TypeError(
                f"Expected a GATConv (got {type(conv).__name__}); build another layer with its own arguments "
                f"and load what weights it shares"
            )
        if kernels.resolve(kwargs.get("kernel", "additive"), 1, 1).stock[0] != "GATConv":
            raise ValueError(
                f"Expected kernel='additive' for the weights of a GATConv (got {kwargs['kernel']!r}); build "
                f"KernelGATConv(kernel=...) where another kernel is to learn its own"
            )
        new = cls(**_arguments(conv, conv.negative_slope), **kwargs)
        state = conv.state_dict()
        for name, value in new.state_dict().items():
            if name.startswith(("lin_position.", "position_kernel.")):
                state[name] = value
        return _loaded(new, state, conv)

    def to_gat(self) -> GATConv:
        r"""Makes the :class:`GATConv` that computes what this layer computes, with its weights.

        Its state dict is in GATConv's names; ``KernelGATConv.from_gat`` is the way back.

        Raises:
            ValueError: If the layer has what GATConv has not, such as another kernel.

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
        r"""Makes the :class:`GATv2Conv` that computes what this layer computes, with its weights.

        The layer is one of ``kernel="additive_v2"``, ``projections="shared_kv"`` (or ``"shared"``, which is
        GATv2Conv's ``share_weights``), ``projection_bias`` as ``bias`` and ``edge_mode="key"``;
        :meth:`load_state_dict` reads what a GATv2Conv saves.

        Raises:
            ValueError: If the layer has what GATv2Conv has not.

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
            "projections='shared_kv'": shared or self.projections == "shared_kv",
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
        names = {own: stock for stock, own in RENAMED.items()} if cls is GATv2Conv else {}
        vectors = {f"kernel.{own}": stock for own, stock in self.kernel.stock[1].items()}
        state = {}
        for name, value in self.state_dict().items():
            if name in vectors:
                state[vectors[name]] = value.unsqueeze(0)
            elif kwargs.get("share_weights") and name.startswith("lin."):
                state[name.replace("lin.", "lin_l.")] = state[name.replace("lin.", "lin_r.")] = value
            else:
                state[names.get(name, name) if name.startswith("lin_") else name] = value
        return _loaded(cls(**_arguments(self, self.kernel.negative_slope), **kwargs), state, self)


def _arguments(conv: Any, negative_slope: Any) -> dict[str, Any]:
    arguments = {name: getattr(conv, name) for name in SHARED}
    return arguments | {"negative_slope": negative_slope, "bias": conv.bias is not None}


def _loaded(new: Any, state: dict[str, Tensor], like: Any) -> Any:
    new.load_state_dict(state)
    reference = next(like.parameters())
    return new.to(reference.device, reference.dtype).train(like.training)


def _own_name(kernel: Kernel, stock: str) -> str | None:
    return next((own for own, name in kernel.stock[1].items() if name == stock), None)


def _is_stock(kernel: Kernel, layer: str) -> bool:
    name, parameters = kernel.stock
    return name == layer and parameters.keys() == {own for own, _ in kernel.named_parameters()}


def rename_stock(conv: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    r"""Lets a layer load what GATConv, GATv2Conv and TransformerConv saved, and GATConv before PyG 2.5."""
    names = dict(RENAMED)
    if conv.lin is not None:
        names["lin_src.weight"] = "lin.weight"
    vectors = {
        stock: f"{path}.{own}"
        for path, part in conv.kernel.named_modules(prefix="kernel")
        if isinstance(part, Kernel)
        for own, stock in part.stock[1].items()
    }
    for old, new in (names | vectors).items():
        if prefix + old in state and prefix + new not in state:
            value = state.pop(prefix + old)
            state[prefix + new] = value.squeeze(0) if old in vectors else value
