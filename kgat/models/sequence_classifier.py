r"""A transformer that classifies sequences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear, Parameter
from torch_geometric.nn.resolver import activation_resolver

from kgat.models.kernel_transformer import KernelTransformer
from kgat.models.pretrained import Pretrained
from kgat.models.token_embedding import TokenEmbedding
from kgat.names import one_of, resolved
from kgat.nn.dtypes import check_input
from kgat.nn.nested import unnested
from kgat.nn.numbers import check_number, check_whole

POOLINGS = ("mean", "last", "cls", "flatten")


class SequenceClassifier(Pretrained):
    r"""Classifies series of vectors or sequences of tokens with a :class:`~kgat.models.KernelTransformer`.

    .. math::
        \mathbf{o} = \mathbf{W} \, \mathrm{pool}\big( \mathrm{Transformer}(\mathrm{embed}(\mathbf{x})) \big)
        + \mathbf{b}

    With ``pooling="flatten"``, ``act="gelu"``, ``position="sum"``, ``position_kwargs={"max_length": ...}``
    and ``input_scale=embed_dim**0.5`` it is the model of `"Primal-Attention"
    <https://arxiv.org/abs/2305.19798>`_ for time series; with ``pooling="mean"`` that for the Long Range
    Arena.

    Args:
        num_classes (int): Number of classes.
        in_channels (int, optional): Channels of a series; either they or :obj:`vocab_size` are given.
            (default: :obj:`None`)
        vocab_size (int, optional): Number of tokens. (default: :obj:`None`)
        embed_dim (int, optional): Channels of a token. (default: :obj:`64`)
        num_heads (int, optional): Number of heads. (default: :obj:`4`)
        num_layers (int, optional): Number of layers. (default: :obj:`2`)
        feedforward_channels (int, optional): As in :class:`~kgat.models.KernelTransformer`.
            (default: :obj:`None`)
        dropout (float, optional): As in :class:`~kgat.models.KernelTransformer`. (default: :obj:`0.1`)
        act (str or Callable, optional): The activation of the feed-forward networks and, for
            ``pooling="flatten"``, before the last map. (default: :obj:`"relu"`)
        norm_first (bool, optional): As in :class:`~kgat.models.KernelTransformer`. (default: :obj:`False`)
        pooling (str, optional): What is read: the :obj:`"mean"` of the tokens, the :obj:`"last"` one, a
            learned one that is put first (:obj:`"cls"`), or all of them (:obj:`"flatten"`), each with weights
            of its own. Padding counts nowhere. (default: :obj:`"mean"`)
        max_len (int, optional): Longer sequences are cut; ``pooling="flatten"`` needs it.
            (default: :obj:`None`)
        input_scale (float, optional): Multiplies an embedded series. (default: :obj:`1.0`)
        device (torch.device, optional): Where the parameters live. (default: :obj:`None`)
        dtype (torch.dtype, optional): Their type. (default: :obj:`None`)
        **kwargs (optional): Keyword arguments of :class:`~kgat.models.KernelTransformer`: ``attention``,
            ``kernel``, ``position``, ``causal`` and so on.

    Shapes:
        - **input:** :math:`(B, N, F_{in})` or tokens :math:`(B, N)`, padding :math:`(B, N)` *(optional)*;
          or a nested tensor
        - **output:** :math:`(B, \mathrm{num\_classes})`

    Raises:
        ValueError: If :obj:`pooling` is unknown, or not one of :obj:`in_channels` and :obj:`vocab_size`
        given.

    Example:
        >>> import torch
        >>> from kgat.models import SequenceClassifier
        >>> model = SequenceClassifier(5, in_channels=3, embed_dim=32, attention="primal", position="sum")
        >>> model(torch.randn(2, 20, 3)).shape
        torch.Size([2, 5])
    """

    inner = KernelTransformer
    fixed = ("decoder_layers",)

    def __init__(
        self,
        num_classes: int,
        in_channels: int | None = None,
        vocab_size: int | None = None,
        embed_dim: int = 64,
        num_heads: int = 4,
        num_layers: int = 2,
        feedforward_channels: int | None = None,
        dropout: float = 0.1,
        act: str | Callable[[Tensor], Tensor] = "relu",
        norm_first: bool = False,
        *,
        pooling: str = "mean",
        max_len: int | None = None,
        input_scale: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if (in_channels is None) == (vocab_size is None):
            raise ValueError(
                f"Expected one of 'in_channels' and 'vocab_size' (got {in_channels} and {vocab_size}); a "
                f"series has channels, a sequence of tokens a vocabulary"
            )
        check_whole(num_classes=num_classes, embed_dim=embed_dim)
        check_whole(in_channels=in_channels, vocab_size=vocab_size, max_len=max_len, optional=True)
        check_number(input_scale=input_scale)
        one_of("pooling", pooling, POOLINGS)
        if pooling == "flatten" and max_len is None:
            raise ValueError("Expected 'max_len' for pooling='flatten' (got None); give the longest length")
        if pooling == "cls" and kwargs.get("causal", False):
            raise ValueError(
                "Expected causal=False for pooling='cls' (got True); the token of the class comes first and "
                "would see no other, 'last' pools the last"
            )
        self.in_channels = in_channels
        self.pooling = pooling
        self.max_len = max_len
        self.input_scale = input_scale
        self.embed: Linear | TokenEmbedding
        if in_channels is not None:
            self.embed = Linear(in_channels, embed_dim)
        else:
            assert vocab_size is not None
            self.embed = TokenEmbedding(vocab_size, embed_dim)
        self.cls = Parameter(torch.randn(embed_dim) * 0.02) if pooling == "cls" else None  # as BERT has it
        self.transformer = KernelTransformer(
            *(embed_dim, num_heads, num_layers, 0, feedforward_channels, dropout, act, norm_first), **kwargs
        )
        self.act = resolved("act", activation_resolver, act)
        self.dropout = torch.nn.Dropout(dropout)
        tokens = max_len if pooling == "flatten" and max_len is not None else 1
        self.out = Linear(tokens * embed_dim, num_classes)
        self.to(device=device, dtype=dtype)

    def forward(
        self, x: Tensor, padding_mask: Tensor | None = None, losses: list[Tensor] | None = None
    ) -> Tensor:
        r"""Returns the logits of the classes.

        Args:
            x (torch.Tensor): The series, or the tokens.
            padding_mask (torch.Tensor, optional): True where there is *no* token; whatever stands there, has
                no influence. (default: :obj:`None`)
            losses (list of torch.Tensor, optional): Takes the penalties of all attention modules.
                (default: :obj:`None`)

        Shapes:
            - **x:** :math:`(B, N, F_{in})` or :math:`(B, N)`, **padding_mask:** :math:`(B, N)`
            - **output:** :math:`(B, \mathrm{num\_classes})`

        Raises:
            ValueError: If shapes do not fit.
        """
        channels = () if self.in_channels is None else (self.in_channels,)
        dim = 2 + len(channels)
        if x.is_nested:
            x, padding_mask = unnested("padding_mask", x, padding_mask, *channels)
        if (
            x.dim() != dim
            or x.shape[2:] != channels
            or (padding_mask is not None and padding_mask.shape != x.shape[:2])
        ):
            raise ValueError(
                f"Expected 'x' of shape {'[B, N]' if dim == 2 else f'[B, N, {self.in_channels}]'} and "
                f"'padding_mask' of shape [B, N] or None (got {list(x.shape)} and "
                f"{None if padding_mask is None else list(padding_mask.shape)}); build the model for it"
            )
        x = x[:, : self.max_len]
        mask = None if padding_mask is None else padding_mask[:, : self.max_len]
        if mask is not None:
            x = x.masked_fill(mask.view(*mask.shape, *[1] * (dim - 2)), 0)  # not even a NaN comes through
        check_input("'x'", x, self.embed)
        h = self.embed(x)
        if self.in_channels is not None:
            h = h * self.input_scale
        if self.cls is not None:
            h = torch.cat([self.cls.expand(h.size(0), 1, -1), h], dim=1)
            mask = None if mask is None else F.pad(mask, (1, 0))
        h = self.transformer(h, padding_mask=mask, losses=losses)
        return self.out(self._pooled(h, mask))

    def _pooled(self, h: Tensor, mask: Tensor | None) -> Tensor:
        # [B, N, F] and where there is no token [B, N] -> [B, F], or [B, max_len * F]; no token reads as 0.
        if self.pooling == "cls":
            return h[:, 0]
        if self.pooling == "flatten":
            h = self.dropout(self.act(h))
        if mask is not None:
            h = h.masked_fill(mask.unsqueeze(-1), 0.0)
        if self.pooling == "flatten":
            assert self.max_len is not None
            return F.pad(h, (0, 0, 0, self.max_len - h.size(1))).flatten(1)
        if self.pooling == "mean":
            count = max(1, h.size(1)) if mask is None else (~mask).sum(dim=1, keepdim=True).clamp(min=1)
            # A sum of many tokens can be more than half precision holds.
            return (h.sum(dim=1, dtype=torch.promote_types(h.dtype, torch.float32)) / count).to(h.dtype)
        if h.size(1) == 0:
            return h.sum(dim=1)
        if mask is None:
            return h[:, -1]
        place = torch.arange(h.size(1), device=h.device).where(~mask, 0).amax(dim=1)
        return h[torch.arange(h.size(0), device=h.device), place]
