r"""A layer of a transformer's encoder around any attention module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kgat.nn.attention import AttentionLike, attend, build, empty_cache
from kgat.nn.key_value_cache import KeyValueCache
from kgat.nn.segment_memory import SegmentMemory
from kgat.nn.transformer_layer import TransformerLayer


class KernelEncoderLayer(TransformerLayer):
    r"""Self-attention and a feed-forward network, each with a skip connection and layer normalisation:
    :class:`torch.nn.TransformerEncoderLayer` with any attention, as in `"Transformer Dissection"
    <https://arxiv.org/abs/1908.11775>`_.

    .. math::
        \mathbf{X}' &= \mathrm{LN}(\mathbf{X} + \mathrm{Attention}(\mathbf{X})) \qquad &
        \mathbf{X}' &= \mathbf{X} + \mathrm{Attention}(\mathrm{LN}(\mathbf{X})) \\
        \mathbf{O} &= \mathrm{LN}(\mathbf{X}' + \mathrm{FF}(\mathbf{X}')) &
        \mathbf{O} &= \mathbf{X}' + \mathrm{FF}(\mathrm{LN}(\mathbf{X}'))

    to the left as by default, to the right with :obj:`norm_first`, where
    :math:`\mathrm{FF}(\mathbf{X}) = \sigma(\mathbf{X} \mathbf{W}_1^\top + \mathbf{b}_1) \mathbf{W}_2^\top +
    \mathbf{b}_2`.

    Positional arguments stand in torch's order. What differs from :class:`torch.nn.TransformerEncoderLayer`:

    ============================== ================================================================
    torch                          here
    ============================== ================================================================
    ``d_model``, ``nhead``         ``embed_dim``, ``num_heads``, as in the attention modules
    ``dim_feedforward``            ``feedforward_channels``
    ``activation``                 ``act``, also any name that PyG knows
    ``batch_first=False``          ``batch_first=True``
    ``is_causal`` is a hint        ``is_causal=True`` suffices, no mask is needed
    a fused path in evaluation     none: the attention module is called, whatever it is
    a padded sequence gives NaN    a token that sees nothing gets attention 0
    ============================== ================================================================

    It may stand in a :class:`torch.nn.TransformerEncoder` (with ``enable_nested_tensor=False``).

    Args:
        embed_dim (int): Channels of a token.
        num_heads (int): Number of heads :math:`H`.
        feedforward_channels (int, optional): Hidden channels of the feed-forward network.
            (default: :obj:`2048`)
        dropout (float, optional): Dropout on attention weights, on hidden channels and on both branches
            before they are added. (default: :obj:`0.1`)
        act (str or Callable, optional): The activation :math:`\sigma`. (default: :obj:`"relu"`)
        layer_norm_eps (float, optional): Epsilon of the layer normalisations. (default: :obj:`1e-5`)
        batch_first (bool, optional): Whether tensors are :math:`(B, N, F)` and not :math:`(N, B, F)`.
            (default: :obj:`True`)
        norm_first (bool, optional): Whether branches are normalised where they begin, not where they end.
            (default: :obj:`False`)
        bias (bool, optional): Whether linear maps and normalisations have biases. (default: :obj:`True`)
        device (torch.device, optional): Where the parameters live. (default: :obj:`None`)
        dtype (torch.dtype, optional): Their type. (default: :obj:`None`)
        attention (str or Callable, optional): ``"kernel"``, ``"fourier"``, ``"primal"``, the name of a
            kernel, or a factory: see :func:`kgat.nn.attention.resolve`. (default: :obj:`"kernel"`)
        attention_kwargs (dict, optional): Further arguments of the attention module, which go before those of
            this layer. (default: :obj:`None`)

    Shapes:
        - **input, output:** :math:`(B, N, F)`, or :math:`(N, F)` of one sequence

    Raises:
        ValueError: If the attention module lacks an argument.
        TypeError: If :obj:`attention` is no name and no factory.

    Example:
        >>> import torch
        >>> from kgat.nn import KernelEncoderLayer
        >>> layer = KernelEncoderLayer(32, num_heads=4, attention="rbf")
        >>> layer(torch.randn(2, 7, 32)).shape
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
    ) -> None:
        super().__init__()
        self._check_sizes(embed_dim, num_heads, feedforward_channels, dropout, layer_norm_eps)
        offered = {"dropout": dropout, "bias": bias, "batch_first": batch_first}
        self.self_attn = build(attention, embed_dim, num_heads, offered, attention_kwargs)
        sizes = embed_dim, feedforward_channels, dropout, act, layer_norm_eps, bias
        self._build_branches(2, *sizes)
        self.norm_first = norm_first
        self.to(device=device, dtype=dtype)

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
        *,
        losses: list[Tensor] | None = None,
        cache: KeyValueCache | None = None,
        memory: SegmentMemory | None = None,
    ) -> Tensor:
        r"""Runs the forward pass of the module.

        Args:
            src (torch.Tensor): The tokens.
            src_mask (torch.Tensor, optional): As ``attn_mask`` of :class:`torch.nn.MultiheadAttention`: True
                hides a key from a query, numbers are added to the scores. (default: :obj:`None`)
            src_key_padding_mask (torch.Tensor, optional): True (or a number of :math:`-\infty`) where a token
                is padding. (default: :obj:`None`)
            is_causal (bool, optional): Whether tokens see no later ones. (default: :obj:`False`)
            losses (list of torch.Tensor, optional): Takes the penalties of the attention module.
                (default: :obj:`None`)
            cache (KeyValueCache, optional): Keys and values of earlier tokens, see :meth:`empty_cache`;
                :obj:`src` then holds only the tokens that follow. (default: :obj:`None`)
            memory (SegmentMemory, optional): Tokens of earlier segments, which those of this one see too;
                masks are of them all. It needs :obj:`is_causal`. (default: :obj:`None`)

        Shapes:
            - **src, output:** :math:`(B, N, F)`, **src_mask:** :math:`(N, N)` or :math:`(B H, N, N)`
            - **src_key_padding_mask:** :math:`(B, N)`

        Raises:
            ValueError: If there is a memory beside a cache, or tokens of a segment see later ones.
        """
        if memory is not None and (cache is not None or not is_causal):
            raise ValueError(
                f"Expected is_causal=True and no cache beside a memory (got is_causal={is_causal} and "
                f"{'no' if cache is None else 'a'} cache); a memory holds what came before a segment"
            )
        first = getattr(self.self_attn, "batch_first", True)  # a memory is
        seen = None if memory is None else memory.joined(src if first else src.transpose(0, 1))

        def attention(x: Tensor) -> Tensor:
            mask, padding = src_mask, src_key_padding_mask
            key = x
            if seen is not None:
                key = seen if first else seen.transpose(0, 1)
                key = self.norm1(key) if self.norm_first else key
            return attend(self.self_attn, x, key, mask, padding, is_causal, losses, cache)

        x = self._added(src, self.norm1, attention)
        x = self._added(x, self.norm2, self._feed_forward)
        if memory is not None and seen is not None:  # a call that fails keeps nothing
            memory.hold(seen)
        return x

    def empty_cache(self) -> KeyValueCache | None:
        r"""Returns an empty cache of the attention module, to be passed with every call that goes on where
        the last one ended; :obj:`None` if the module has none and needs all tokens anew."""
        return empty_cache(self.self_attn)
