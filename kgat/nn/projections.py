r"""Linear maps of layers on graphs and on sequences: how weights of queries, keys and values are laid out and
shared, under the names of PyG's GATConv and of torch's MultiheadAttention."""

from __future__ import annotations

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter
from torch_geometric.typing import OptPairTensor, OptTensor

from kgat.names import one_of
from kgat.nn.called_attention import CalledAttention
from kgat.nn.dtypes import check_dtype
from kgat.nn.edges import Edges, EdgeTerms, log_weights
from kgat.nn.linear import Linear
from kgat.nn.masks import Masks
from kgat.nn.numbers import check_heads, check_whole
from kgat.nn.overridden import expect_own
from kgat.ops.plain import is_plain

# Which map makes queries, keys and values of nodes.
MAPS = {
    "shared": ("lin", "lin", "lin"),
    "shared_qk": ("lin_query", "lin_query", "lin_value"),
    "shared_kv": ("lin_query", "lin_key", "lin_key"),
    "separate": ("lin_query", "lin_key", "lin_value"),
}
MAPS_OF_SIDES = ("lin_dst", "lin_src", "lin_src")  # shared, of sources and targets with channels of their own
NAMES = ("lin", "lin_src", "lin_dst", "lin_query", "lin_key", "lin_value")

EDGE_MODES = ("score", "key", "key_value")
WEIGHT_MODES = ("kernel", "alpha")


class NodeProjections(torch.nn.Module):
    r"""The linear maps of :class:`~kgat.nn.KernelGATConv`: of nodes, their positions and their edges."""

    in_channels: int | tuple[int, int]
    out_channels: int
    heads: int
    projections: str
    position_dim: int | None
    edge_mode: str
    weight_mode: str
    lin_position: Linear | None
    lin_edge: Linear | None
    att_edge: Tensor

    def _build_projections(self, bias: bool) -> None:
        sources, targets = self._sides()
        if self.projections == "shared_qk" and sources != targets:
            raise ValueError(
                f"Expected equal 'in_channels' of sources and targets where projections='shared_qk' "
                f"(got {self.in_channels}); use 'separate'"
            )
        self._maps = MAPS[self.projections]
        if self.projections == "shared" and not isinstance(self.in_channels, int):
            self._maps = MAPS_OF_SIDES
        for name in NAMES:
            channels = targets if name in ("lin_query", "lin_dst") else sources
            setattr(self, name, self._linear(channels, bias) if name in self._maps else None)

    def _linear(self, in_channels: int, bias: bool = False) -> Linear:
        width = self.heads * self.out_channels
        return Linear(in_channels, width, bias=bias, weight_initializer="glorot")

    def _sides(self) -> tuple[int, int]:
        channels = self.in_channels
        return (channels, channels) if isinstance(channels, int) else channels

    def _by_head(self, x: Tensor) -> Tensor:
        return x.view(-1, self.heads, self.out_channels)

    def project(
        self, x: Tensor | OptPairTensor, num_targets: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        r"""Returns queries, keys and values of all heads.

        Args:
            x (torch.Tensor or tuple): Node features, of sources and targets if a tuple; targets may be
                :obj:`None`, whose queries are then zero vectors.
            num_targets (int, optional): Number of targets where they have no features.
                (default: :obj:`None`)

        Shapes:
            - **x:** :math:`(N, F_{in})` or :math:`((M, F_s), (N, F_t))`
            - **query:** :math:`(N, H, D)`, **key, value:** :math:`(M, H, D)`
        """
        x_key, x_query = x if isinstance(x, tuple) else (x, x)
        self._check_features(x_key, x_query)
        of_query, of_key, of_value = self._maps
        key = self._by_head(getattr(self, of_key)(x_key))
        value = key if of_value == of_key else self._by_head(getattr(self, of_value)(x_key))
        if x_query is None:
            targets = key.size(0) if num_targets is None else num_targets
            query = key.new_zeros(targets, self.heads, self.out_channels)
        elif of_query == of_key and not isinstance(x, tuple):
            query = key
        else:
            query = self._by_head(getattr(self, of_query)(x_query))
        return query, key, value

    def _unprojected(
        self, x: Tensor | OptPairTensor, key: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        # What Kernel.of_features takes, where the projections are nothing but W_q x and W_k x.
        x_key, x_query = x if isinstance(x, tuple) else (x, x)
        if self.projections != "shared" or x_query is None or key.dtype not in (torch.float32, torch.float64):
            return None
        lin_query, lin_key = (getattr(self, name) for name in self._maps[:2])
        plain = is_plain(lin_key, Linear) and is_plain(lin_query, Linear)
        dense = x_query.layout == x_key.layout == torch.strided
        if not (plain and dense and lin_key.bias is None and lin_query.bias is None):
            return None
        return x_query, lin_query.weight, x_key, lin_key.weight

    def _project_position(
        self, position: OptTensor | tuple[OptTensor, OptTensor], targets: int, sources: int
    ) -> tuple[Tensor, Tensor] | None:
        # W_T t of targets and sources.
        of_key, of_query = position if isinstance(position, tuple) else (position, position)
        either = of_query if of_key is None else of_key
        if self.lin_position is None:
            if either is None:
                return None
            raise ValueError(
                f"Expected no 'position' because 'position_dim=None' (got {list(either.shape)}); build the "
                f"layer with 'position_dim={either.size(-1)}'"
            )
        if either is None:
            raise ValueError(
                f"Expected 'position' of shape [N={targets}, {self.position_dim}] because "
                f"'position_dim={self.position_dim}' (got 'None'); pass it, or build the layer with "
                f"'position_dim=None'"
            )
        for side, nodes, t in (("sources", sources, of_key), ("targets", targets, of_query)):
            if t is None or t.shape != (nodes, self.position_dim):
                raise ValueError(
                    f"Expected 'position' of shape [{nodes}, position_dim={self.position_dim}] for the "
                    f"{side} (got {None if t is None else list(t.shape)}); where they are not the targets, "
                    f"give a pair"
                )
        key = self._by_head(self.lin_position(of_key))
        return key if of_query is of_key else self._by_head(self.lin_position(of_query)), key

    def _edge_terms(self, edges: Edges) -> EdgeTerms:
        vector = bias = log_weight = None
        if edges.attr is not None and self.lin_edge is not None:
            attr = edges.attr if edges.attr.dim() > 1 else edges.attr.view(-1, 1)
            edge = self._by_head(self.lin_edge(attr))
            if self.edge_mode == "score":
                bias = (edge * self.att_edge).sum(dim=-1)
            else:
                vector = edge
        weight = edges.weight
        if weight is not None and self.weight_mode == "kernel":
            log_weight, weight = log_weights(weight), None
        if edges.hidden is not None:
            # One pass then, where a mask outside of the link takes another.
            if self.kernel.masked_by_bias:  # type: ignore[union-attr]
                hidden = edges.hidden.unsqueeze(-1).expand(-1, self.heads)
                bias = hidden if bias is None else bias + hidden
            else:
                log_weight = edges.hidden if log_weight is None else log_weight + edges.hidden
        return EdgeTerms(vector, bias, log_weight, weight)

    def _check_features(self, x_key: OptTensor, x_query: OptTensor) -> None:
        if x_key is None:
            raise ValueError("Expected features of the sources (got 'None'); only targets may have none")
        for x, expected in zip((x_key, x_query), self._sides(), strict=True):
            if x is not None and not isinstance(x, Tensor):
                raise TypeError(
                    f"Expected node features as a tensor (got {type(x).__name__}); make one with "
                    f"torch.as_tensor(x)"
                )
            if x is not None and (x.dim() != 2 or (expected != -1 and x.size(1) != expected)):
                want = "in_channels" if expected == -1 else f"in_channels={expected}"
                raise ValueError(
                    f"Expected node features of shape [nodes, {want}] (got {list(x.shape)}); a batch of "
                    f"graphs is one graph of many components in PyG"
                )


class TokenProjections(CalledAttention, torch.nn.Module):
    r"""The linear maps of :class:`~kgat.nn.KernelAttention`, under the names of
    :class:`torch.nn.MultiheadAttention`: one matrix for all three where they share their input."""

    embed_dim: int
    head_dim: int
    num_heads: int
    num_kv_heads: int
    kdim: int
    vdim: int
    projections: str
    batch_first: bool
    add_zero_attn: bool
    query_map: torch.nn.Module | None
    key_map: torch.nn.Module | None
    in_proj_weight: Tensor
    in_proj_bias: Tensor | None
    bias_k: Tensor | None
    bias_v: Tensor | None

    def _build_projections(
        self,
        embed_dim: int,
        num_heads: int,
        num_kv_heads: int | None,
        kdim: int | None,
        vdim: int | None,
        projections: str,
        bias: bool,
        bias_kv: bool,
    ) -> None:
        check_heads(embed_dim, num_heads)
        check_whole(num_kv_heads=num_kv_heads, kdim=kdim, vdim=vdim, optional=True)
        kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if num_heads % kv_heads != 0:
            raise ValueError(
                f"Expected 'num_heads={num_heads}' divisible by 'num_kv_heads' (got {num_kv_heads}); every "
                f"head of keys serves an equal number of heads of queries"
            )
        shared = one_of("projections", projections, ("shared_qk", "separate")) == "shared_qk"
        if shared and (kv_heads != num_heads or kdim not in (None, embed_dim)):
            raise ValueError(
                "Expected keys of the same size and heads as queries with projections='shared_qk' (got "
                f"kdim={kdim}, num_kv_heads={num_kv_heads}); use projections='separate'"
            )
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.num_kv_heads = kv_heads
        self.head_dim = embed_dim // num_heads
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.projections = projections
        width = kv_heads * self.head_dim
        self._joint = not shared and self.kdim == self.vdim == embed_dim and kv_heads == num_heads
        if self._joint:
            self.in_proj_weight = Parameter(torch.empty(3 * embed_dim, embed_dim))
        else:
            self.__dict__["in_proj_weight"] = self.NO_WEIGHT
            self.q_proj_weight = Parameter(torch.empty(embed_dim, embed_dim))
            if not shared:
                self.k_proj_weight = Parameter(torch.empty(width, self.kdim))
            self.v_proj_weight = Parameter(torch.empty(width, self.vdim))
        rows = embed_dim + width + (0 if shared else width)
        for name, shape, there in (
            ("in_proj_bias", (rows,), bias),
            ("bias_k", (1, 1, width), bias_kv),
            ("bias_v", (1, 1, width), bias_kv),
        ):
            self.register_parameter(name, Parameter(torch.empty(shape)) if there else None)
        self.out_proj = torch.nn.Linear(embed_dim, embed_dim, bias=bias)

    @classmethod
    def from_torch(cls, attention: torch.nn.MultiheadAttention, **kwargs: Any) -> Self:
        r"""Builds a layer with the sizes, projections and layout of one of torch, and those parameters frozen
        that it has frozen. Hooks stay where they are.

        Args:
            attention (torch.nn.MultiheadAttention): The layer.
            **kwargs (optional): Further arguments of :class:`KernelAttention`, such as :obj:`kernel`.

        Raises:
            TypeError: If it is another layer, or one of a subclass that computes something else.
            ValueError: If the arguments leave no place for its projections.

        Example:
            >>> import torch
            >>> from kgat.nn import KernelAttention
            >>> stock = torch.nn.MultiheadAttention(16, 4, batch_first=True)
            >>> KernelAttention.from_torch(stock, kernel="rbf").kernel
            RBF(4, heads=4)
        """
        expect_own(
            attention,
            torch.nn.MultiheadAttention,
            "build KernelAttention(...), load what weights it shares and override there what a subclass does",
        )
        layer = cls(
            attention.embed_dim,
            attention.num_heads,
            dropout=attention.dropout,
            bias=attention.in_proj_bias is not None,
            add_bias_kv=attention.bias_k is not None,
            add_zero_attn=attention.add_zero_attn,
            kdim=attention.kdim,
            vdim=attention.vdim,
            batch_first=attention.batch_first,
            device=attention.out_proj.weight.device,
            dtype=attention.out_proj.weight.dtype,
            **kwargs,
        )
        missing = attention.state_dict().keys() - dict(layer.named_parameters()).keys()
        if missing:
            raise ValueError(
                f"Expected a layer with the projections of torch's (got none for "
                f"{', '.join(sorted(missing))}); leave 'projections' and 'num_kv_heads' as they are"
            )
        layer.load_state_dict(attention.state_dict(), strict=False)
        for name, parameter in attention.named_parameters():
            layer.get_parameter(name).requires_grad_(parameter.requires_grad)
        return layer.train(attention.training)

    def _reset_projections(self) -> None:
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            if isinstance(weight := getattr(self, name, None), Tensor):
                torch.nn.init.xavier_uniform_(weight)
        self.out_proj.reset_parameters()
        if self.in_proj_bias is not None:
            torch.nn.init.zeros_(self.in_proj_bias)
            torch.nn.init.zeros_(self.out_proj.bias)
        for x in (self.bias_k, self.bias_v):
            if x is not None:
                torch.nn.init.xavier_normal_(x)

    def project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r"""Returns queries, keys and values of all heads.

        Args:
            query (torch.Tensor): What queries are made of.
            key (torch.Tensor): What keys are made of.
            value (torch.Tensor): What values are made of.

        Shapes:
            - **output:** :math:`(B, N, H, D)`, and twice :math:`(B, M, H_{kv}, D)`
        """
        if self._joint and query is key and key is value:
            weight = self.in_proj_weight  # asked for once: a parametrisation may change with each look
            check_dtype("'query'", query, weight)
            q, k, v = F.linear(query, weight, self.in_proj_bias).chunk(3, dim=-1)
        else:
            q, v = self._linear(query, "q"), self._linear(value, "v")
            k = q if self.projections == "shared_qk" and query is key else self._linear(key, "k")
        by_head = self._by_head(q, self.query_map)
        if k is q and self.query_map is self.key_map:  # one tensor, which a kernel lifts once
            return by_head, by_head, self._by_head(v)
        return by_head, self._by_head(k, self.key_map), self._by_head(v)

    def _project_query(self, query: Tensor) -> Tensor:
        return self._by_head(self._linear(query, "q"), self.query_map)

    def _linear(self, x: Tensor, part: str) -> Tensor:
        size, width = self.embed_dim, self.num_kv_heads * self.head_dim
        shared = self.projections == "shared_qk"
        start = {"q": 0, "k": 0 if shared else size, "v": size if shared else size + width}[part]
        rows = slice(start, start + (size if part == "q" else width))
        bias = None if self.in_proj_bias is None else self.in_proj_bias[rows]
        if self._joint:
            weight = self.in_proj_weight[rows]
        else:
            weight = getattr(self, f"{'q' if shared and part == 'k' else part}_proj_weight")
        check_dtype({"q": "'query'", "k": "'key'", "v": "'value'"}[part], x, weight)
        return F.linear(x, weight, bias)

    def _by_head(self, x: Tensor, network: torch.nn.Module | None = None) -> Tensor:
        return (x if network is None else network(x)).unflatten(-1, (-1, self.head_dim))

    def _batched(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # The tokens [B, tokens, F]. One tensor stays one: it is projected once. Asked by 'is': compiled code
        # would be bound to an id.
        layout = "[B, tokens, F]" if self.batch_first else "[tokens, B, F]"
        for name, x, size in (
            ("query", query, self.embed_dim),
            ("key", key, self.kdim),
            ("value", value, self.vdim),
        ):
            if x.dim() not in (2, 3) or x.dim() != query.dim() or x.size(-1) != size:
                raise ValueError(
                    f"Expected '{name}' of shape {layout} or [tokens, F] with F={size}, batched as 'query' "
                    f"is (got {list(x.shape)} beside {list(query.shape)}); 'batch_first', 'kdim' and 'vdim' "
                    f"tell the layer of other layouts and sizes"
                )
        if key.shape[:-1] != value.shape[:-1]:
            raise ValueError(
                f"Expected as many values as keys (got {list(value.shape)} and {list(key.shape)}); each key "
                f"has one"
            )

        def batched(x: Tensor) -> Tensor:
            if x.dim() == 2:
                return x.unsqueeze(0)
            return x if self.batch_first else x.transpose(0, 1)

        q = batched(query)
        k = q if key is query else batched(key)
        v = q if value is query else k if value is key else batched(value)
        if q.size(0) != k.size(0):
            raise ValueError(
                f"Expected queries and keys of the same batch (got {q.size(0)} and {k.size(0)}); expand "
                f"those that are the same for all"
            )
        return q, k, v

    def _with_extra_keys(
        self, k: Tensor, v: Tensor, masks: Masks, queries: int, is_causal: bool
    ) -> tuple[Tensor, Tensor, Masks]:
        # Those of add_bias_kv and add_zero_attn come last, and every query sees them.
        batch, keys = k.size(0), k.size(1)
        later = None
        if is_causal:
            later = torch.ones(queries, keys, dtype=torch.bool, device=k.device).triu(keys - queries + 1)
        if self.bias_k is not None and self.bias_v is not None:
            k, v = (
                torch.cat([x, self._by_head(b).to(x.dtype).expand(batch, -1, -1, -1)], dim=1)
                for x, b in ((k, self.bias_k), (v, self.bias_v))
            )
        if self.add_zero_attn:
            k, v = (F.pad(x, (0, 0, 0, 0, 0, 1)) for x in (k, v))
        return k, v, masks.extended(k.size(1) - keys, later)
