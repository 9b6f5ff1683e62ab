r"""Attention as messages of PyG: what explainers, hooks and subclasses reach into."""

import functools
from typing import Any, ClassVar, NoReturn

import torch.nn.functional as F
from torch import Tensor
from torch_geometric.inspector import Inspector
from torch_geometric.nn.aggr import SumAggregation
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.typing import OptPairTensor, OptTensor

from kgat import functional
from kgat.indices import as_long
from kgat.kernels import Context, Kernel
from kgat.nn.edges import Edges, EdgeTerms
from kgat.ops.graph.adjacency import check_indices
from kgat.ops.plain import is_plain

Places = tuple[Tensor, Tensor]

OVERRIDABLE = ("message", "aggregate", "update", "message_and_aggregate")
NO_EDGE_UPDATE = "scores are not made of numbers of nodes alone here"


class _Inspector(Inspector):
    @functools.cached_property
    def _globals(self) -> dict[str, Any]:  # type: ignore[override]
        return super()._globals

    def __getstate__(self) -> dict[str, Any]:  # modules cannot be copied
        return {name: value for name, value in self.__dict__.items() if name != "_globals"}


class KernelMessages(MessagePassing):
    r"""Message passing of a layer whose weights :math:`\alpha` come from a kernel.

    .. math::
        \mathbf{x}^{\prime}_i = \bigoplus_{j \in \mathcal{N}(i)} \alpha_{ij} (\mathbf{v}_j + \mathbf{e}_{ij})
    """

    kernel: Kernel
    position_kernel: Kernel | None
    edge_mode: str
    dropout: float
    backend: str | None
    flow: str

    # Of what propagate is called with: PyG compiles it once per class, where it need not guess.
    propagate_type: ClassVar[dict[str, Any]] = {"x": OptPairTensor, "alpha": Tensor, "edge": OptTensor}

    _inspector: ClassVar[Inspector]
    _own_propagate: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Asked before PyG puts what it compiles in the place of 'propagate'.
        above = cls.__mro__[: cls.__mro__.index(KernelMessages)]
        mixed_in = [base for base in above if base is cls or not issubclass(base, KernelMessages)]
        if any("edge_update" in vars(base) for base in mixed_in):
            raise TypeError(
                f"Expected no 'edge_update' in '{cls.__name__}' (got one); {NO_EDGE_UPDATE}: write a kernel "
                "with another score, or a 'message'"
            )
        cls._own_propagate |= any("propagate" in vars(base) for base in mixed_in)
        if cls._own_propagate and "propagate" not in vars(cls):
            cls.propagate = cls.propagate  # type: ignore[method-assign]  # else PyG compiles its own over it

    # PyG makes an inspector for every layer that is built, which walks the modules of all base classes for
    # each argument of each method. Layers of a class have one, which remembers them.
    @property
    def inspector(self) -> Inspector:  # type: ignore[override]
        cls = type(self)
        if "_inspector" not in vars(cls):
            cls._inspector = _Inspector(cls)
        return cls._inspector

    @inspector.setter
    def inspector(self, inspector: Inspector) -> None:
        self.__dict__["inspector"] = self.inspector  # where a heterogeneous model looks for it

    @property
    def _target(self) -> int:  # which row of edge_index holds the targets
        return 1 if self.flow == "source_to_target" else 0

    def message(self, x_j: Tensor, alpha: Tensor, edge: OptTensor = None) -> Tensor:
        if edge is not None:
            x_j = x_j + edge
        return alpha.unsqueeze(-1) * x_j

    def _needs_messages(self) -> bool:
        own = type(self)
        return bool(
            own.message is not KernelMessages.message
            or own.aggregate is not KernelMessages.aggregate
            or own.update is not KernelMessages.update
            or own.message_and_aggregate is not KernelMessages.message_and_aggregate
            or own._own_propagate
            or any(name in self.__dict__ for name in OVERRIDABLE)  # of this layer alone
            or self.explain
            or self._propagate_forward_pre_hooks
            or self._propagate_forward_hooks
            or self._message_forward_pre_hooks
            or self._message_forward_hooks
            or self._aggregate_forward_pre_hooks
            or self._aggregate_forward_hooks
            or not is_plain(self.aggr_module, SumAggregation)
        )

    def _pass_messages(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        places: Places | None,
        edges: Edges,
        terms: EdgeTerms,
        context: Context,
    ) -> tuple[Tensor, Tensor]:
        if self.backend not in (None, "eager"):
            raise NotImplementedError(
                f"backend={self.backend!r} cannot call hooks or an overridden message, explain, take edge "
                f"vectors or aggregate with '{self.aggr}'. eager: ok"
            )
        row, col = edges.index[self._target], edges.index[1 - self._target]
        try:
            if terms.vector is None:
                score = self._gram(query, key, places, context).at(row, col, terms.bias)
            else:
                # An edge moves its own key alone: all else that a kernel computes is that of the nodes.
                of_pairs = Context(context.batch_at(row, col), context.losses, whole=(query, key, context))
                at_key = key.index_select(0, col) + terms.vector
                pairs = self.kernel(query.index_select(0, row), at_key, of_pairs)
                if places is not None and self.position_kernel is not None:
                    pairs = pairs * self.position_kernel(*places, context).map(
                        lambda x, dim: x.index_select(dim, row), lambda x, dim: x.index_select(dim, col)
                    )
                score = pairs.paired(terms.bias)
        except (IndexError, RuntimeError):
            check_indices(row, col, query.size(0), key.size(0))
            raise
        if terms.log_weight is not None:
            score = score + terms.log_weight.unsqueeze(-1)
        alpha = functional.edge_softmax(score, row, query.size(0))
        alpha = F.dropout(alpha, p=self.dropout, training=self.training)
        weight = alpha if terms.weight is None else alpha * terms.weight.unsqueeze(-1)
        size = (key.size(0), query.size(0))
        # Values stand for the sources and queries for the targets, as in GATConv: explainers ask for them.
        propagate: Any = self.propagate
        x: Tensor | tuple[Tensor, Tensor] = (value, query)
        if self.explain and propagate.__module__.endswith("_propagate"):
            # Of a class above, PyG gives back what it compiled: it explains nothing.
            propagate = super().propagate
        if self._target == 0:
            # What PyG compiles takes the first of a pair for the sources, whatever the flow; what it does not
            # compile, the one that the flow names.
            x = (query, value) if self.explain else value
        out = propagate(
            as_long(edges.index),
            x=x,
            alpha=weight.to(value.dtype),
            edge=terms.vector if self.edge_mode == "key_value" else None,
            size=size if self._target == 1 else size[::-1],
        )
        return out, alpha

    def register_edge_update_forward_pre_hook(self, hook: Any) -> NoReturn:
        raise NotImplementedError(
            f"Expected no hook of 'edge_update' (got one); {NO_EDGE_UPDATE}: hook 'message', whose input "
            "'alpha' holds the weights"
        )

    register_edge_update_forward_hook = register_edge_update_forward_pre_hook
