r"""Multi-head attention on sequences with any kernel, called as torch's MultiheadAttention is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter

from kgat import functional, positions
from kgat.kernels import Context, KernelLike, resolve
from kgat.kernels.magnitude import with_magnitude
from kgat.names import one_of
from kgat.nn.called_attention import CalledAttention
from kgat.nn.nested import lengths_of, padding_of, to_nested, to_padded
from kgat.positions import PositionLike
from kgat.score.gram import Gram

PROJECTIONS = ("shared_qk", "separate")


@dataclass
class KeyValueCache:
    r"""Projected keys and values of earlier calls, for decoding one token after the other.

    The caller makes one per layer and hands it over with every call. The keys of a call join those that are
    held; a :obj:`fixed` one holds those of its first call, as attention to the output of an encoder wants.

    Args:
        fixed (bool, optional): Whether keys and values stay those of the first call. (default: :obj:`False`)

    Shapes:
        - **key, value:** :math:`(B, M, H, D)`, **padding:** :math:`(B, M)`

    Example:
        >>> import torch
        >>> from kgat.nn import KernelAttention, KeyValueCache
        >>> attention, cache, x = KernelAttention(8, 2), KeyValueCache(), torch.randn(1, 3, 8)
        >>> steps = [attention(x[:, i : i + 1], is_causal=True, cache=cache)[0] for i in range(3)]
        >>> torch.allclose(torch.cat(steps, dim=1), attention(x, is_causal=True)[0], atol=1e-6)
        True
    """

    fixed: bool = False
    key: Tensor | None = field(default=None, init=False)  # [B, M, H, D]
    value: Tensor | None = field(default=None, init=False)
    padding: Tensor | None = field(default=None, init=False)  # [B, M], True is padding
    queries: int = field(default=0, init=False)  # of earlier calls: the place of the next one

    def __len__(self) -> int:
        return 0 if self.key is None else self.key.size(1)

    @property
    def complete(self) -> bool:
        r"""Whether further calls bring no keys."""
        return self.fixed and self.key is not None

    def extend(self, key: Tensor, value: Tensor, padding: Tensor | None) -> None:
        r"""Appends keys and values, and which of them are padding."""
        if padding is not None and padding.dtype != torch.bool:
            raise ValueError(
                f"Expected a bool 'key_padding_mask' beside a cache (got {padding.dtype}); True hides a key"
            )
        if self.key is None or self.value is None:
            self.key, self.value, self.padding = key, value, padding
            return
        if self.padding is not None or padding is not None:
            parts = (
                (self.padding, self.key.shape[:2]),
                (padding, key.shape[:2]),
            )
            self.padding = torch.cat(
                [key.new_zeros(size, dtype=torch.bool) if p is None else p for p, size in parts], dim=1
            )
        self.key = torch.cat([self.key, key], dim=1)
        self.value = torch.cat([self.value, value], dim=1)

    def select(self, index: Tensor) -> None:
        r"""Keeps the sequences of the batch that :obj:`index` names, as a beam search does.

        Shapes:
            - **index:** :math:`(B')`
        """
        if self.key is not None and self.value is not None:
            self.key, self.value = self.key.index_select(0, index), self.value.index_select(0, index)
        if self.padding is not None:
            self.padding = self.padding.index_select(0, index)


class KernelAttention(CalledAttention, torch.nn.Module):
    r"""Multi-head attention whose score is a kernel, called as :class:`torch.nn.MultiheadAttention` is.

    .. math::
        \mathbf{y}_i = \mathbf{W}_o \, \big\Vert_h \sum_j \alpha_{ij}^h \mathbf{W}_v^h \mathbf{x}_j, \qquad
        \alpha_{ij}^h = \frac{k_h(\mathbf{W}_q^h \mathbf{x}_i, \mathbf{W}_k^h \mathbf{x}_j)}
        {\sum_{j'} k_h(\mathbf{W}_q^h \mathbf{x}_i, \mathbf{W}_k^h \mathbf{x}_{j'})}

    This is the kernel smoother of `"Transformer Dissection" <https://arxiv.org/abs/1908.11775>`_ on the
    tokens that a query may see. With ``kernel="dot_product"`` it is torch's layer, number for number, and
    loads its state dict; with ``kernel="sinc_product"`` it is the attention of `"Transformer with Fourier
    Integral Attentions" <https://arxiv.org/abs/2206.00206>`_, see :class:`FourierAttention`.

    What differs from torch's layer: :obj:`batch_first` is :obj:`True` unless told otherwise, a query that
    sees no key gets 0 and no NaN, keys and values default to the queries, and with :obj:`is_causal` no mask
    need be given. Masks mean what they mean there: True *hides*. (In Hugging Face's bool masks True keeps:
    negate those. Masks of numbers are the same in both.)

    It may stand in torch's own :class:`~torch.nn.TransformerEncoderLayer`,
    :class:`~torch.nn.TransformerDecoderLayer`, :class:`~torch.nn.TransformerEncoder` and
    :class:`~torch.nn.Transformer` as ``self_attn`` or ``multihead_attn``: they call it in evaluation too.

    Args:
        embed_dim (int): Size of a token, :math:`H D`.
        num_heads (int): Number of heads :math:`H`.
        dropout (float, optional): Dropout on the normalised weights. (default: :obj:`0.0`)
        bias (bool, optional): Whether the projections have biases. (default: :obj:`True`)
        add_bias_kv (bool, optional): Whether a learned key and value join those of every sequence.
            (default: :obj:`False`)
        add_zero_attn (bool, optional): Whether a key and value of zeros join them. To a kernel of distances
            such a key is near small queries. (default: :obj:`False`)
        kdim (int, optional): Size of what keys are made of; :obj:`embed_dim` if :obj:`None`.
            (default: :obj:`None`)
        vdim (int, optional): Size of what values are made of; :obj:`embed_dim` if :obj:`None`.
            (default: :obj:`None`)
        batch_first (bool, optional): Whether the batch comes before the tokens. (default: :obj:`True`)
        device (torch.device, optional): Where the parameters live. (default: :obj:`None`)
        dtype (torch.dtype, optional): Their type. (default: :obj:`None`)
        kernel (str, type, callable or Kernel, optional): As in :class:`KernelGATConv`.
            (default: :obj:`"dot_product"`)
        kernel_kwargs (dict, optional): Further arguments of the kernel class. (default: :obj:`None`)
        magnitude (float or str, optional): Multiplies the kernel by an L^p
            :class:`~kgat.kernels.Magnitude`: the order p, or :obj:`"learned"`. (default: :obj:`None`)
        projections (str, optional): :obj:`"separate"` maps for queries and keys, or :obj:`"shared_qk"`, which
            makes attention of a symmetric kernel symmetric. (default: :obj:`"separate"`)
        num_kv_heads (int, optional): Heads of keys and values, each of which serves a group of
            ``num_heads / num_kv_heads`` query heads; :obj:`num_heads` if :obj:`None`. (default: :obj:`None`)
        query_map (torch.nn.Module, optional): Applied to projected queries, such as a network, with which
            a dot product can stand for any positive kernel (`"Transformers are Deep Infinite-Dimensional
            Non-Mercer Binary Kernel Machines" <https://arxiv.org/abs/2106.01506>`_). (default: :obj:`None`)
        key_map (torch.nn.Module, optional): Applied to projected keys. (default: :obj:`None`)
        position (str or Position, optional): How positions enter the kernel, as
            :func:`kgat.positions.resolve` takes it. (default: :obj:`None`)
        method (str, optional): The route of :func:`kgat.functional.dense_attention`.
            (default: :obj:`"auto"`)

    Shapes:
        - **query:** :math:`(B, N, F)`, **key:** :math:`(B, M, F_k)`, **value:** :math:`(B, M, F_v)`, all
          without :math:`B`, or tokens first if not :obj:`batch_first`; or nested tensors
        - **output:** as :obj:`query`; **weights:** :math:`(B, N, M)`, or :math:`(B, H, N, M)`

    Raises:
        ValueError: If sizes do not fit.

    Example:
        >>> import torch
        >>> from kgat.nn import KernelAttention
        >>> attention = KernelAttention(16, num_heads=4, kernel="rbf")
        >>> x = torch.randn(2, 10, 16)
        >>> out, weights = attention(x, is_causal=True)
        >>> out.shape, weights.shape
        (torch.Size([2, 10, 16]), torch.Size([2, 10, 10]))
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        kernel: KernelLike = "dot_product",
        kernel_kwargs: dict[str, Any] | None = None,
        magnitude: float | str | None = None,
        projections: str = "separate",
        num_kv_heads: int | None = None,
        query_map: torch.nn.Module | None = None,
        key_map: torch.nn.Module | None = None,
        position: PositionLike = None,
        method: str = "auto",
    ) -> None:
        super().__init__()
        if embed_dim < 1 or num_heads < 1 or embed_dim % num_heads != 0:
            raise ValueError(
                f"Expected 'embed_dim' divisible by 'num_heads' (got embed_dim={embed_dim}, "
                f"num_heads={num_heads}); every head takes an equal part of the channels"
            )
        kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if kv_heads < 1 or num_heads % kv_heads != 0:
            raise ValueError(
                f"Expected 'num_heads={num_heads}' divisible by 'num_kv_heads' (got {num_kv_heads}); every "
                f"head of keys serves an equal number of heads of queries"
            )
        one_of("projections", projections, PROJECTIONS)
        shared = projections == "shared_qk"
        if shared and (kv_heads != num_heads or kdim not in (None, embed_dim)):
            raise ValueError(
                "Expected keys of the same size and heads as queries with projections='shared_qk' (got "
                f"kdim={kdim}, num_kv_heads={num_kv_heads}); use projections='separate'"
            )
        if not 0.0 <= dropout <= 1.0:
            raise ValueError(f"Expected 'dropout' in [0, 1] (got {dropout})")
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.num_kv_heads = kv_heads
        self.head_dim = embed_dim // num_heads
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.dropout = dropout
        self.batch_first = batch_first
        self.add_zero_attn = add_zero_attn
        self.projections = projections
        self.method = method

        width = kv_heads * self.head_dim
        # One matrix for all three where they share their input, under the names of torch's layer.
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
        if bias:
            self.in_proj_bias = Parameter(torch.empty(rows))
        else:
            self.register_parameter("in_proj_bias", None)
        if add_bias_kv:
            self.bias_k = Parameter(torch.empty(1, 1, width))
            self.bias_v = Parameter(torch.empty(1, 1, width))
        else:
            self.register_parameter("bias_k", None)
            self.register_parameter("bias_v", None)
        self.out_proj = torch.nn.Linear(embed_dim, embed_dim, bias=bias)
        built = resolve(kernel, self.head_dim, num_heads, **(kernel_kwargs or {}))
        self.kernel = with_magnitude(built, magnitude)
        self.query_map = query_map
        self.key_map = key_map
        self.position = positions.resolve(position, embed_dim, num_heads)
        if self.position is not None and (add_bias_kv or add_zero_attn):
            raise ValueError(
                "Expected no 'position' beside 'add_bias_kv' or 'add_zero_attn' (got both); the keys that "
                "these add stand nowhere"
            )
        # A kernel that computes its parameters from all tokens would tell a token of later ones, and it has
        # others for each token that is decoded.
        parts = [*self.kernel.modules(), *(() if self.position is None else self.position.modules())]
        self._looks_ahead = any(getattr(part, "data_dependent", False) for part in parts)
        self.reset_parameters()
        if device is not None or dtype is not None:
            self.to(device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        r"""Draws all learnable parameters anew, as torch's layer does."""
        names = ("in_proj_weight",) if self._joint else ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        for name in names:
            if name != "k_proj_weight" or self.projections != "shared_qk":
                torch.nn.init.xavier_uniform_(getattr(self, name))
        self.out_proj.reset_parameters()
        if self.in_proj_bias is not None:
            torch.nn.init.zeros_(self.in_proj_bias)
            torch.nn.init.zeros_(self.out_proj.bias)
        for x in (self.bias_k, self.bias_v):
            if x is not None:
                torch.nn.init.xavier_normal_(x)
        self.kernel.reset_parameters()
        for module in (self.query_map, self.key_map, self.position):
            for part in () if module is None else module.modules():
                if callable(reset := getattr(part, "reset_parameters", None)):
                    reset()

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
            q, k, v = F.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        else:
            q, k, v = self._linear(query, "q"), None, self._linear(value, "v")
            if self.projections != "shared_qk" or query is not key:
                k = self._linear(key, "k")
        by_head = self._query_heads(q)
        if k is None and self.query_map is self.key_map:  # one tensor, which a kernel lifts once
            return by_head, by_head, self._split(v)
        return by_head, self._key_heads(q if k is None else k), self._split(v)

    def _linear(self, x: Tensor, part: str) -> Tensor:
        size, width = self.embed_dim, self.num_kv_heads * self.head_dim
        rows = {
            "q": slice(0, size),
            "k": slice(size, size + width),
            "v": slice(size + width, size + 2 * width),
        }
        if self.projections == "shared_qk":
            rows["k"], rows["v"] = rows["q"], rows["k"]
            part_of_weight = "q" if part == "k" else part
        else:
            part_of_weight = part
        bias = None if self.in_proj_bias is None else self.in_proj_bias[rows[part]]
        if self._joint:
            return F.linear(x, self.in_proj_weight[rows[part]], bias)
        return F.linear(x, getattr(self, f"{part_of_weight}_proj_weight"), bias)

    def _query_heads(self, q: Tensor) -> Tensor:
        return self._split(q if self.query_map is None else self.query_map(q))

    def _key_heads(self, k: Tensor) -> Tensor:
        return self._split(k if self.key_map is None else self.key_map(k))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim))

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        *,
        losses: list[Tensor] | None = None,
        cache: KeyValueCache | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        r"""Returns what every token gathers, and the weights if :obj:`need_weights`.

        Args:
            query (torch.Tensor): The tokens that look.
            key (torch.Tensor, optional): The tokens that are looked at; :obj:`query` if :obj:`None`.
                (default: :obj:`None`)
            value (torch.Tensor, optional): What is averaged; :obj:`key` if :obj:`None`.
                (default: :obj:`None`)
            key_padding_mask (torch.Tensor, optional): True for keys that nobody sees, or numbers that are
                added to their scores. (default: :obj:`None`)
            need_weights (bool, optional): Whether to return the weights too, which takes memory for all
                pairs and one route only. (default: :obj:`True`)
            attn_mask (torch.Tensor, optional): True for pairs that do not see each other, or numbers that are
                added to their scores, for all heads or each; of four dimensions, what is of size 1 there is
                the same for all sequences, heads or queries. (default: :obj:`None`)
            average_attn_weights (bool, optional): Whether weights are averaged over heads.
                (default: :obj:`True`)
            is_causal (bool, optional): Whether a token sees those before it and itself only; the last query
                stands at the place of the last key. (default: :obj:`False`)
            losses (list of torch.Tensor, optional): Takes the penalty of the kernel. (default: :obj:`None`)
            cache (KeyValueCache, optional): Keys and values of earlier calls, which those of this call join.
                (default: :obj:`None`)

        Shapes:
            - **query, key, value:** see the class; **key_padding_mask:** :math:`(B, M)`
            - **attn_mask:** :math:`(N, M)`, :math:`(B H, N, M)` or :math:`(B, H, N, M)`
            - **weights:** :math:`(B, N, M)` or :math:`(B, H, N, M)`; of nested tensors they are padded with 0

        Raises:
            ValueError: If shapes do not fit.
            NotImplementedError: If the kernel can be negative or :attr:`method` cannot run the call.
        """
        key = query if key is None else key
        value = key if value is None else value
        if query.is_nested or key.is_nested or value.is_nested:
            return self._nested(
                *(query, key, value),
                key_padding_mask=key_padding_mask,
                need_weights=need_weights,
                attn_mask=attn_mask,
                average_attn_weights=average_attn_weights,
                is_causal=is_causal,
                losses=losses,
                cache=cache,
            )
        batched = query.dim() == 3
        tokens = self._batch_first(query, key, value)
        before = self._before(*tokens[:2], is_causal, cache)
        gram, v, mask, bias, causal = self._pairs(
            *tokens, key_padding_mask, attn_mask, is_causal, losses, cache
        )
        dropout = self.dropout if self.training else 0.0
        value_bias = self._value_bias(gram, before)
        weights: Tensor | None = None
        if need_weights or value_bias is not None:
            weights = F.dropout(functional.dense_softmax(gram, mask, bias=bias, causal=causal), dropout)
            alpha = weights.to(v.dtype)  # [B, N, M, H]
            # What nobody sees may hold anything, and 0 times NaN is NaN.
            if mask is not None:
                v = v.masked_fill(~mask.any(dim=-2)[..., None, None], 0.0)
            if bias is not None:
                v = v.masked_fill((bias == -torch.inf).all(dim=-1).all(dim=-2)[..., None, None], 0.0)
            out = torch.einsum("bnmh,bmhc->bnhc", alpha, v)
            if value_bias is not None:
                out = out + torch.einsum("bnmh,nmhc->bnhc", alpha, value_bias.to(v.dtype))
        else:
            out = functional.dense_attention(
                *(gram, v, mask, dropout), bias=bias, causal=causal, method=self.method
            )
        out = self.out_proj(out.flatten(-2))
        if not batched:
            out = out.squeeze(0)
        elif not self.batch_first:
            out = out.transpose(0, 1)
        if weights is None or not need_weights:
            return out, None
        weights = weights.mean(dim=-1) if average_attn_weights else weights.movedim(-1, 1)
        return out, weights if batched else weights.squeeze(0)

    def explain(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> str:
        r"""Says what each route of :func:`kgat.functional.dense_attention` would cost here, or why it cannot
        run.

        Args:
            query (torch.Tensor): As in :meth:`forward`, as the others are.
            key (torch.Tensor, optional): (default: :obj:`None`)
            value (torch.Tensor, optional): (default: :obj:`None`)
            key_padding_mask (torch.Tensor, optional): (default: :obj:`None`)
            attn_mask (torch.Tensor, optional): (default: :obj:`None`)
            is_causal (bool, optional): (default: :obj:`False`)
        """
        key = query if key is None else key
        tokens = self._batch_first(query, key, key if value is None else value)
        gram, v, mask, bias, causal = self._pairs(*tokens, key_padding_mask, attn_mask, is_causal, None, None)
        dropout = self.dropout if self.training else 0.0
        return functional.explain(gram, v, mask=mask, dropout=dropout, bias=bias, causal=causal)

    @classmethod
    def from_torch(cls, attention: torch.nn.MultiheadAttention, **kwargs: Any) -> KernelAttention:
        r"""Builds a layer with the sizes, projections and layout of one of torch.

        Args:
            attention (torch.nn.MultiheadAttention): The layer.
            **kwargs (optional): Further arguments of :class:`KernelAttention`, such as :obj:`kernel`.

        Example:
            >>> import torch
            >>> from kgat.nn import KernelAttention
            >>> stock = torch.nn.MultiheadAttention(16, 4, batch_first=True)
            >>> KernelAttention.from_torch(stock, kernel="rbf").kernel
            RBF(4, heads=4)
        """
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
        own = {name for name, _ in layer.named_parameters()}
        missing = set(attention.state_dict()) - own
        if missing:
            raise ValueError(
                f"Expected a layer with the projections of torch's (got none for "
                f"{', '.join(sorted(missing))}); leave 'projections' and 'num_kv_heads' as they are"
            )
        layer.load_state_dict(attention.state_dict(), strict=False)
        return layer.train(attention.training)

    def _batch_first(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tensors = (query, key, value)
        names = ("query", "key", "value")
        sizes = (self.embed_dim, self.kdim, self.vdim)
        layout = "[B, tokens, F]" if self.batch_first else "[tokens, B, F]"
        for name, x, size in zip(names, tensors, sizes, strict=True):
            if x.dim() not in (2, 3) or x.dim() != query.dim() or x.size(-1) != size:
                raise ValueError(
                    f"Expected '{name}' of shape {layout} or [tokens, F] with F={size}, batched as 'query' "
                    f"is (got {list(x.shape)} beside {list(query.shape)})"
                )
        if key.shape[:-1] != value.shape[:-1]:
            raise ValueError(
                f"Expected as many values as keys (got {list(value.shape)} and {list(key.shape)})"
            )
        if query.dim() == 2:
            query, key, value = _each(lambda x: x.unsqueeze(0), *tensors)
        elif not self.batch_first:
            query, key, value = _each(lambda x: x.transpose(0, 1), *tensors)
        if query.size(0) != key.size(0):
            raise ValueError(
                f"Expected queries and keys of the same batch (got {query.size(0)} and {key.size(0)})"
            )
        return query, key, value

    def _before(self, query: Tensor, key: Tensor, is_causal: bool, cache: KeyValueCache | None) -> int:
        # The place of the first query: in causal order the last one stands at the place of the last key.
        if cache is not None:
            return cache.queries
        return key.size(1) - query.size(1) if is_causal else 0

    def _pairs(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None,
        attn_mask: Tensor | None,
        is_causal: bool,
        losses: list[Tensor] | None,
        cache: KeyValueCache | None,
    ) -> tuple[Gram, Tensor, Tensor | None, Tensor | None, bool]:
        r"""Returns the Gram matrix, the values, who sees whom (True), what is added to the scores, and
        whether the order of the tokens says who sees whom, too."""
        if (is_causal or cache is not None) and self._looks_ahead:
            beside = "is_causal=True" if is_causal else "a cache"
            raise ValueError(
                f"Expected a kernel that sees one pair at a time with {beside} (got one that depends on the "
                f"whole sequence); build it with data_dependent=False"
            )
        if key_padding_mask is not None and key_padding_mask.dim() == 1:
            key_padding_mask = key_padding_mask.unsqueeze(0)
        alone = query is key  # self-attention
        position = self.position
        query_index, key_index = range(0), range(0)
        if position is not None:
            before = self._before(query, key, is_causal, cache)
            query_index = range(before, before + query.size(1))
            held = 0 if cache is None or cache.fixed else len(cache)
            key_index = range(held, held + key.size(1))
            in_values = position.in_values and value is key
            query = position.add(query, query_index)
            key = query if alone else position.add(key, key_index)
            value = key if in_values else value
        if cache is not None and cache.complete:
            q = self._query_heads(self._linear(query, "q"))
            q = q if position is None else position.rotate(q, query_index)
        else:
            q, k, v = self.project(query, key, value)
            if position is not None:
                one = k is q and key_index == query_index  # lifted once
                q = position.rotate(q, query_index)
                k = q if one else position.rotate(k, key_index)  # so that a cache holds it
            if cache is not None:
                cache.extend(k, v, key_padding_mask)
        if cache is not None:
            cache.queries += q.size(1)
            k, v, key_padding_mask = cache.key, cache.value, cache.padding  # type: ignore[assignment]
        hidden, bias = self._hidden(key_padding_mask, attn_mask, q, k)
        present = None  # a kernel that depends on a whole sequence leaves padding out of it
        if key_padding_mask is not None:
            numbers = key_padding_mask.is_floating_point()
            present = key_padding_mask > -torch.inf if numbers else ~key_padding_mask
        if self.bias_k is not None or self.add_zero_attn:
            k, v, hidden, bias, present = self._joined_by_extra_keys(
                k, v, hidden, bias, present, is_causal, q
            )
            is_causal = False
        groups = self.num_heads // self.num_kv_heads
        if groups > 1:
            k, v = (x.repeat_interleave(groups, dim=-2) for x in (k, v))
        of_queries = present if alone and present is not None and present.size(1) == q.size(1) else None
        context = Context(losses=losses, present=(of_queries, present))
        mask = None if hidden is None else ~hidden
        if position is None:
            return self.kernel(q, k, context), v, mask, bias, is_causal
        key_index = range(k.size(1))
        if key_index == query_index:
            query_index = key_index  # one object: it is lifted once
        gram = self.kernel(position.shift(q), k, context)
        of_positions = position.gram(query_index, key_index, losses)
        if of_positions is not None:
            gram = gram * of_positions
        of_pairs = position.bias(q, query_index, key_index)
        if of_pairs is not None:
            bias = of_pairs if bias is None else bias + of_pairs
        return gram, v, mask, bias, is_causal

    def _hidden(
        self, key_padding_mask: Tensor | None, attn_mask: Tensor | None, q: Tensor, k: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        r"""Reads both masks: what is hidden for all heads, and what is added to the scores."""
        batch, queries, keys = q.size(0), q.size(1), k.size(1)
        hidden: Tensor | None = None
        bias: Tensor | None = None
        if key_padding_mask is not None:
            if key_padding_mask.shape != (batch, keys):
                raise ValueError(
                    f"Expected 'key_padding_mask' of shape [B={batch}, M={keys}] (got "
                    f"{list(key_padding_mask.shape)}); True hides a key"
                )
            if key_padding_mask.dtype == torch.bool:
                hidden = key_padding_mask.unsqueeze(1)
            else:
                bias = _numbers("key_padding_mask", key_padding_mask).view(batch, 1, keys, 1)
        if attn_mask is not None:
            of_heads = self._of_heads(attn_mask, batch, queries, keys)  # [B or 1, H or 1, N or 1, M]
            if attn_mask.dtype == torch.bool and of_heads.size(1) == 1:
                pairs = of_heads.squeeze(1)
                hidden = pairs if hidden is None else hidden | pairs
            else:
                if attn_mask.dtype == torch.bool:
                    numbers = torch.zeros_like(of_heads, dtype=q.dtype).masked_fill(of_heads, -torch.inf)
                else:
                    numbers = _numbers("attn_mask", of_heads)
                numbers = numbers.movedim(1, -1)
                bias = numbers if bias is None else bias + numbers
        return hidden, bias

    def _of_heads(self, attn_mask: Tensor, batch: int, queries: int, keys: int) -> Tensor:
        heads = self.num_heads
        if attn_mask.shape == (queries, keys):
            return attn_mask.view(1, 1, queries, keys)
        if attn_mask.shape == (batch * heads, queries, keys):
            return attn_mask.unflatten(0, (batch, heads))
        sizes = zip(attn_mask.shape, (batch, heads, queries), strict=False)
        fits = attn_mask.dim() == 4 and all(size in (1, wanted) for size, wanted in sizes)
        if not fits or attn_mask.size(-1) != keys:
            raise ValueError(
                f"Expected 'attn_mask' of shape [N={queries}, M={keys}], [B * H={batch * heads}, "
                f"N={queries}, M={keys}] or [B={batch} or 1, H={heads} or 1, N={queries} or 1, M={keys}] "
                f"(got {list(attn_mask.shape)}); True hides a pair"
            )
        return attn_mask

    def _joined_by_extra_keys(
        self,
        k: Tensor,
        v: Tensor,
        hidden: Tensor | None,
        bias: Tensor | None,
        present: Tensor | None,
        is_causal: bool,
        q: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
        # They come last, and every query sees them.
        batch, queries, keys = q.size(0), q.size(1), k.size(1)
        if is_causal:
            later = torch.ones(queries, keys, dtype=torch.bool, device=k.device).triu(keys - queries + 1)
            hidden = later if hidden is None else hidden | later
        extra = 0
        if self.bias_k is not None and self.bias_v is not None:
            k, v = (
                torch.cat([x, self._split(b).to(x.dtype).expand(batch, -1, -1, -1)], dim=1)
                for x, b in ((k, self.bias_k), (v, self.bias_v))
            )
            extra += 1
        if self.add_zero_attn:
            k, v = (F.pad(x, (0, 0, 0, 0, 0, 1)) for x in (k, v))
            extra += 1
        if hidden is not None:
            hidden = F.pad(hidden, (0, extra))
        if bias is not None:
            bias = F.pad(bias, (0, 0, 0, extra))
        if present is not None:
            present = F.pad(present, (0, extra), value=True)
        return k, v, hidden, bias, present

    def _value_bias(self, gram: Gram, before: int) -> Tensor | None:
        if self.position is None:
            return None
        queries, keys, _ = gram.size
        return self.position.value_bias(range(before, before + queries), range(keys))

    def _nested(
        self, query: Tensor, key: Tensor, value: Tensor, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        r"""Runs nested tensors as padded ones: what is padding is hidden, and left out again."""
        if kwargs["key_padding_mask"] is not None or kwargs["attn_mask"] is not None:
            raise ValueError(
                "Expected no mask beside nested tensors (got one); their lengths say what is padding"
            )
        if not self.batch_first:
            raise ValueError("Expected batch_first=True for nested tensors (got False)")
        lengths = [lengths_of(x) for x in (query, key, value)]
        if lengths[1] != lengths[2]:
            raise ValueError(f"Expected as many values as keys (got {lengths[2]} and {lengths[1]})")
        if kwargs["is_causal"] and lengths[0] != lengths[1]:
            raise ValueError(
                f"Expected as many keys as queries of nested tensors with is_causal=True (got {lengths[1]} "
                f"and {lengths[0]})"
            )
        q = to_padded(query, self.embed_dim)
        k = q if key is query else to_padded(key, self.kdim)
        v = q if value is query else k if value is key else to_padded(value, self.vdim)
        kwargs["key_padding_mask"] = padding_of(lengths[1], query.device)
        out, weights = self(q, k, v, **kwargs)
        if weights is not None:
            absent = padding_of(lengths[0], query.device).unsqueeze(-1)  # as torch has it
            weights = weights.masked_fill(absent if weights.dim() == 3 else absent.unsqueeze(1), 0.0)
        return to_nested(out, query) if query.is_nested else out, weights

    def extra_repr(self) -> str:
        said = [f"{self.embed_dim}, num_heads={self.num_heads}"]
        if self.num_kv_heads != self.num_heads:
            said.append(f"num_kv_heads={self.num_kv_heads}")
        if self.projections != "separate":
            said.append(f"projections={self.projections!r}")
        if self.dropout > 0.0:
            said.append(f"dropout={self.dropout}")
        return ", ".join(said)


def _each(
    function: Callable[[Tensor], Tensor], query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    # One tensor stays one: it is projected once. Asked by 'is': compiled code would be bound to an id.
    q = function(query)
    k = q if key is query else function(key)
    return q, k, q if value is query else k if value is key else function(value)


def _numbers(name: str, mask: Tensor) -> Tensor:
    if not mask.is_floating_point():
        dtype = str(mask.dtype).removeprefix("torch.")
        raise ValueError(
            f"Expected a bool or floating '{name}' (got {dtype}); True hides, a number is added to the score"
        )
    return mask
