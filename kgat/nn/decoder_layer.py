r"""A layer of a transformer's decoder around any attention modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kgat.nn.attention import AttentionLike, attend, build, empty_cache
from kgat.nn.key_value_cache import KeyValueCache
from kgat.nn.transformer_layer import TransformerLayer


class KernelDecoderLayer(TransformerLayer):
    r"""Self-attention, attention to the tokens of an encoder and a feed-forward network:
    :class:`torch.nn.TransformerDecoderLayer` with any attention, as in `"Transformer Dissection"
    <https://arxiv.org/abs/1908.11775>`_.

    .. math::
        \mathbf{Y}' &= \mathrm{LN}(\mathbf{Y} + \mathrm{Attention}(\mathbf{Y})) \\
        \mathbf{Y}'' &= \mathrm{LN}(\mathbf{Y}' + \mathrm{CrossAttention}(\mathbf{Y}', \mathbf{X})) \\
        \mathbf{O} &= \mathrm{LN}(\mathbf{Y}'' + \mathrm{FF}(\mathbf{Y}''))

    with :math:`\mathbf{X}` the encoder's tokens; with :obj:`norm_first`, branches are normalised where they
    begin. What differs from torch's layer is listed at :class:`~kgat.nn.KernelEncoderLayer`.

    Args:
        embed_dim (int): Channels of a token.
        num_heads (int): Number of heads :math:`H`.
        feedforward_channels (int, optional): Hidden channels of the feed-forward network.
            (default: :obj:`2048`)
        dropout (float, optional): Dropout on attention weights, on hidden channels and on all branches
            before they are added. (default: :obj:`0.1`)
        act (str or Callable, optional): The activation of the feed-forward network. (default: :obj:`"relu"`)
        layer_norm_eps (float, optional): Epsilon of the layer normalisations. (default: :obj:`1e-5`)
        batch_first (bool, optional): Whether tensors are :math:`(B, N, F)` and not :math:`(N, B, F)`.
            (default: :obj:`True`)
        norm_first (bool, optional): Whether branches are normalised where they begin, not where they end.
            (default: :obj:`False`)
        bias (bool, optional): Whether linear maps and normalisations have biases. (default: :obj:`True`)
        device (torch.device, optional): Where the parameters live. (default: :obj:`None`)
        dtype (torch.dtype, optional): Their type. (default: :obj:`None`)
        attention (str or Callable, optional): That among the decoder's tokens, as in
            :class:`~kgat.nn.KernelEncoderLayer`. (default: :obj:`"kernel"`)
        attention_kwargs (dict, optional): Further arguments of that module. (default: :obj:`None`)
        cross_attention (str or Callable, optional): That to the encoder's tokens.
            (default: :obj:`"kernel"`)
        cross_attention_kwargs (dict, optional): Further arguments of that module. (default: :obj:`None`)

    Shapes:
        - **tgt, output:** :math:`(B, N, F)`, **memory:** :math:`(B, M, F)`, all without :math:`B` for one
          pair of sequences

    Raises:
        ValueError: If an attention module lacks an argument, or the kernel of :obj:`cross_attention` is
            computed from all queries.
        TypeError: If an attention is no name and no factory.

    Example:
        >>> import torch
        >>> from kgat.nn import KernelDecoderLayer
        >>> layer = KernelDecoderLayer(32, num_heads=4, attention="rbf", cross_attention="rbf")
        >>> layer(torch.randn(2, 7, 32), torch.randn(2, 9, 32), tgt_is_causal=True).shape
        torch.Size([2, 7, 32])
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        feedforward_channels: int = 2048,
        dropout: float = 0.1,
        act: str | Callable[[Tensor], Tensor] = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = True,
        norm_first: bool = False,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        attention: AttentionLike = "kernel",
        attention_kwargs: dict[str, Any] | None = None,
        cross_attention: AttentionLike = "kernel",
        cross_attention_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._check_sizes(embed_dim, num_heads, feedforward_channels, dropout, layer_norm_eps)
        offered = {"dropout": dropout, "bias": bias, "batch_first": batch_first}
        self.self_attn = build(attention, embed_dim, num_heads, offered, attention_kwargs)
        self.multihead_attn = build(cross_attention, embed_dim, num_heads, offered, cross_attention_kwargs)
        if getattr(self.multihead_attn, "looks_ahead", False):
            raise ValueError(
                f"Expected a 'cross_attention' that sees one pair at a time (got {self.multihead_attn!r}, "
                "whose kernel is computed from all queries, later ones too); take data_dependent=False"
            )
        sizes = embed_dim, feedforward_channels, dropout, act, layer_norm_eps, bias
        self._build_branches(3, *sizes)
        self.norm_first = norm_first
        self.to(device=device, dtype=dtype)

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
        *,
        losses: list[Tensor] | None = None,
        cache: tuple[KeyValueCache, KeyValueCache] | None = None,
    ) -> Tensor:
        r"""Runs the forward pass of the module.

        Args:
            tgt (torch.Tensor): The decoder's tokens :math:`\mathbf{Y}`.
            memory (torch.Tensor): The encoder's tokens :math:`\mathbf{X}`.
            tgt_mask (torch.Tensor, optional): As ``attn_mask`` of :class:`torch.nn.MultiheadAttention`: True
                hides a key from a query, numbers are added to the scores. (default: :obj:`None`)
            memory_mask (torch.Tensor, optional): The same for the encoder's tokens. (default: :obj:`None`)
            tgt_key_padding_mask (torch.Tensor, optional): True (or a number of :math:`-\infty`) where a token
                is padding. (default: :obj:`None`)
            memory_key_padding_mask (torch.Tensor, optional): The same for the encoder's tokens.
                (default: :obj:`None`)
            tgt_is_causal (bool, optional): Whether tokens see no later ones. Unlike the rest of this
                signature, it is usually :obj:`True`. (default: :obj:`False`)
            memory_is_causal (bool, optional): Whether tokens see no later ones of the encoder.
                (default: :obj:`False`)
            losses (list of torch.Tensor, optional): Takes the penalties of the attention modules.
                (default: :obj:`None`)
            cache (tuple of KeyValueCache, optional): Keys and values of earlier tokens and of the encoder's,
                see :meth:`empty_cache`; :obj:`tgt` then holds only the tokens that follow.
                (default: :obj:`None`)

        Shapes:
            - **tgt, output:** :math:`(B, N, F)`, **memory:** :math:`(B, M, F)`
            - **tgt_mask:** :math:`(N, N)` or :math:`(B H, N, N)`, **memory_mask:** the same with :math:`M`
              keys
            - **tgt_key_padding_mask:** :math:`(B, N)`, **memory_key_padding_mask:** :math:`(B, M)`
        """
        own, cross = (None, None) if cache is None else cache

        def attention(y: Tensor) -> Tensor:
            mask, padding = tgt_mask, tgt_key_padding_mask
            return attend(self.self_attn, y, y, mask, padding, tgt_is_causal, losses, own)

        def cross_attention(y: Tensor) -> Tensor:
            mask, padding = memory_mask, memory_key_padding_mask
            return attend(self.multihead_attn, y, memory, mask, padding, memory_is_causal, losses, cross)

        y = self._added(tgt, self.norm1, attention)
        y = self._added(y, self.norm2, cross_attention)
        return self._added(y, self.norm3, self._feed_forward)

    def empty_cache(self) -> tuple[KeyValueCache, KeyValueCache] | None:
        r"""Returns empty caches of both attention modules, to be passed with every call that goes on where
        the last one ended; :obj:`None` if one of them has none and needs all tokens anew."""
        own, cross = empty_cache(self.self_attn), empty_cache(self.multihead_attn, fixed=True)
        return None if own is None or cross is None else (own, cross)
