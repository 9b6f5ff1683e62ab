r"""Multi-head attention on sequences with any kernel, called as torch's MultiheadAttention is."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kgat import functional, positions
from kgat.hidden import hide_unseen
from kgat.kernels import Context, KernelLike, resolve
from kgat.kernels.magnitude import with_magnitude
from kgat.names import one_of, unusual_arguments
from kgat.nn.key_value_cache import KeyValueCache as KeyValueCache
from kgat.nn.masks import read_masks
from kgat.nn.nested import check_nested, lengths_of, padding_of, to_nested, to_padded
from kgat.nn.numbers import check_probability
from kgat.nn.projections import TokenProjections
from kgat.nn.same_tokens import same_tokens
from kgat.ops.dense import METHODS
from kgat.positions import Index, PositionLike
from kgat.positions.position import are_same, consecutive
from kgat.score.gram import Gram


class Pairs(NamedTuple):
    r"""What attention is computed of: scores and values, and who sees whom."""

    gram: Gram
    value: Tensor  # [B, M, H, D]
    mask: Tensor | None  # [B, N or 1, M], True where a query sees a key
    bias: Tensor | None  # [B, N, M, H], added to scores
    causal: bool  # whether the order of the tokens says who sees whom, too
    value_bias: Tensor | None  # [N, M, H, D], added to the value of each pair
    held: tuple[Tensor, Tensor, Tensor | None, int] | None  # what a cache is to hold after the call


class KernelAttention(TokenProjections):
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
        check_probability(dropout=dropout)
        self._build_projections(
            embed_dim, num_heads, num_kv_heads, kdim, vdim, projections, bias, add_bias_kv
        )
        self.dropout = dropout
        self.batch_first = batch_first
        self.add_zero_attn = add_zero_attn
        self.method = one_of("method", method, METHODS)
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
        self._reset_projections()
        # What is passed in as a module stays what it is: it may have been trained.
        if not isinstance(kernel, torch.nn.Module):
            self.kernel.reset_parameters()
        if not isinstance(position, torch.nn.Module):
            _reset(self.position)
        self.to(device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        r"""Draws all learnable parameters anew, as torch's layer does; those of modules that were passed in,
        too."""
        self._reset_projections()
        self.kernel.reset_parameters()
        for module in (self.query_map, self.key_map, self.position):
            _reset(module)

    @property
    def looks_ahead(self) -> bool:
        r"""Whether the kernel is computed from all tokens: it would tell a token of later ones, and it is
        another one for each token that is decoded."""
        parts = itertools.chain(
            *(part.modules() for part in (self.kernel, self.position) if part is not None)
        )
        return any(getattr(part, "data_dependent", False) for part in parts)

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
            ValueError: If shapes do not fit, or if a token must not see all of a sequence that the kernel is
                computed from (:attr:`looks_ahead`).
            NotImplementedError: If the kernel can be negative or :attr:`method` cannot run the call.
        """
        key = query if key is None else key
        value = key if value is None else value
        options: dict[str, Any] = {
            "attn_mask": attn_mask,
            "is_causal": is_causal,
            "losses": losses,
            "cache": cache,
        }
        if query.is_nested or key.is_nested or value.is_nested:
            options |= {"need_weights": need_weights, "average_attn_weights": average_attn_weights}
            return self._of_nested(query, key, value, key_padding_mask, **options)
        pairs = self._pairs(*self._batched(query, key, value), key_padding_mask, **options)
        dropout = self.dropout if self.training else 0.0
        weights: Tensor | None = None
        if need_weights or pairs.value_bias is not None:
            out, weights = _weighted(pairs, dropout)
        else:
            gram, v, mask, bias, causal, *_ = pairs
            out = functional.dense_attention(
                *(gram, v, mask, dropout), bias=bias, causal=causal, method=self.method
            )
        out = self.out_proj(out.flatten(-2))
        if cache is not None and pairs.held is not None:  # a call that fails adds nothing
            cache.hold(*pairs.held)
        batched = query.dim() == 3
        if not batched:
            out = out.squeeze(0)
        elif not self.batch_first:
            out = out.transpose(0, 1)
        if weights is None or not need_weights:
            return out, None
        weights = weights.mean(dim=-1) if average_attn_weights else weights.movedim(-1, 1)
        return out, weights if batched else weights.squeeze(0)

    def _pairs(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None,
        attn_mask: Tensor | None,
        is_causal: bool,
        losses: list[Tensor] | None = None,
        cache: KeyValueCache | None = None,
    ) -> Pairs:
        if (is_causal or cache is not None or attn_mask is not None) and self.looks_ahead:
            beside = "is_causal=True" if is_causal else "attn_mask" if cache is None else "a cache"
            raise ValueError(
                f"Expected a kernel that sees one pair at a time with {beside} (got one that depends on the "
                f"whole sequence, of which it would tell tokens what they must not see); build it with "
                "data_dependent=False"
            )
        padding = key_padding_mask
        if padding is not None and padding.dim() == 1:
            padding = padding.unsqueeze(0)
        at_query: Index = consecutive(0, 0)
        at_key = at_query
        if self.position is not None:
            at_query, at_key = _places(query, key, is_causal, cache)
        if cache is not None and cache.complete:
            q, (k, v, padding) = self._query_heads(query, at_query), cache.held
            cache.check(q)
        else:
            q, k, v = self._heads(query, key, value, at_query, at_key)
            if cache is not None:
                k, v, padding = cache.joined(k, v, padding)
        held = None if cache is None else (k, v, padding, q.size(1))
        masks = read_masks(padding, attn_mask, q, k)
        if self.bias_k is not None or self.add_zero_attn:
            k, v, masks = self._with_extra_keys(k, v, masks, q.size(1), is_causal)
            is_causal = False
        if self.num_kv_heads != self.num_heads:
            groups = self.num_heads // self.num_kv_heads
            k, v = (x.repeat_interleave(groups, dim=-2) for x in (k, v))
        hidden, bias, present = masks
        context = Context(losses=losses, present=(_present_queries(self, query, key, present), present))
        mask = None if hidden is None else ~hidden
        position = self.position
        if position is None:
            return Pairs(self.kernel(q, k, context), v, mask, bias, is_causal, None, held)
        at_key = consecutive(0, k.size(1))
        if are_same(at_key, at_query):
            at_query = at_key  # one object: it is lifted once
        gram = self.kernel(position.shift(q), k, context)
        if (of_places := position.gram(at_query, at_key, losses)) is not None:
            gram = gram * of_places
        if (of_pairs := position.bias(q, at_query, at_key)) is not None:
            bias = of_pairs if bias is None else bias + of_pairs
        return Pairs(gram, v, mask, bias, is_causal, position.value_bias(at_query, at_key), held)

    def _heads(
        self, query: Tensor, key: Tensor, value: Tensor, at_query: Index, at_key: Index
    ) -> tuple[Tensor, Tensor, Tensor]:
        # Queries, keys and values as they look from their places.
        position = self.position
        if position is None:
            return self.project(query, key, value)
        placed_query = position.add(query, at_query)
        placed_key = placed_query if key is query else position.add(key, at_key)
        if position.in_values:  # values stand where their keys do
            value = placed_key if value is key else position.add(value, at_key)
        q, k, v = self.project(placed_query, placed_key, value)
        turned = position.rotate(q, at_query)
        if k is q and are_same(at_key, at_query):  # one tensor stays one: it is lifted once
            return turned, turned, v
        return turned, position.rotate(k, at_key), v

    def _query_heads(self, query: Tensor, at_query: Index) -> Tensor:
        if self.position is None:
            return self._project_query(query)
        return self.position.rotate(self._project_query(self.position.add(query, at_query)), at_query)

    def _of_nested(
        self, query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        # As padded tensors: what is padding is hidden, and left out again.
        masks = {"key_padding_mask": padding, "attn_mask": options["attn_mask"]}
        check_nested(masks, self.batch_first)
        of_query, of_key, of_value = (lengths_of(x) for x in (query, key, value))
        if of_key != of_value:
            raise ValueError(
                f"Expected as many values as keys (got {of_value} and {of_key}); each key has one"
            )
        if options["is_causal"] and of_query != of_key:
            raise ValueError(
                f"Expected as many keys as queries of nested tensors with is_causal=True (got {of_key} and "
                f"{of_query}); pass such sequences one by one, or padded"
            )
        q = to_padded(query, self.embed_dim)
        k = q if key is query else to_padded(key, self.kdim)
        v = q if value is query else k if value is key else to_padded(value, self.vdim)
        out, weights = self(q, k, v, padding_of(of_key, query.device), **options)
        if weights is not None:
            absent = padding_of(of_query, query.device).unsqueeze(-1)  # as torch has it
            weights = weights.masked_fill(absent if weights.dim() == 3 else absent.unsqueeze(1), 0.0)
        return to_nested(out, query) if query.is_nested else out, weights

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
        run. Arguments are those of :meth:`forward`."""
        key = query if key is None else key
        tokens = self._batched(query, key, key if value is None else value)
        gram, v, mask, bias, causal, *_ = self._pairs(*tokens, key_padding_mask, attn_mask, is_causal)
        dropout = self.dropout if self.training else 0.0
        return functional.explain(gram, v, mask=mask, dropout=dropout, bias=bias, causal=causal)

    def extra_repr(self) -> str:
        return f"{self.embed_dim}, num_heads={self.num_heads}" + unusual_arguments(
            num_kv_heads=(self.num_kv_heads, self.num_heads),
            projections=(self.projections, "separate"),
            dropout=(self.dropout, 0.0),
        )


def _reset(module: torch.nn.Module | None) -> None:
    for part in () if module is None else module.modules():
        if callable(reset := getattr(part, "reset_parameters", None)):
            reset()


def _present_queries(
    attention: KernelAttention, query: Tensor, key: Tensor, present: Tensor | None
) -> Tensor | None:
    # Which queries are tokens is known of self-attention alone.
    if present is None:
        return None
    if same_tokens(query, key):
        return present[:, : query.size(1)]  # without keys that the layer adds
    if attention.looks_ahead:
        raise ValueError(
            "Expected 'query' as 'key' itself beside a mask of padding (got another tensor), because the "
            "kernel is computed from all queries, padding or not; build it with data_dependent=False"
        )
    return None


def _places(query: Tensor, key: Tensor, is_causal: bool, cache: KeyValueCache | None) -> tuple[Index, Index]:
    # Where tokens stand: in causal order the last query stands at the place of the last key.
    before, held = key.size(1) - query.size(1) if is_causal else 0, 0
    if cache is not None:
        before, held = cache.queries, 0 if cache.fixed else len(cache)
    return consecutive(before, query.size(1)), consecutive(held, key.size(1))


def _weighted(pairs: Pairs, dropout: float) -> tuple[Tensor, Tensor]:
    gram, v, mask, bias, causal, value_bias, _ = pairs
    mask = hide_unseen(mask, bias, causal, *gram.size[:2])
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
    return out, weights
