r"""What layers of an encoder and of a decoder have in common."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import Dropout, LayerNorm, Linear
from torch_geometric.nn.resolver import activation_resolver

from kgat.names import resolved
from kgat.nn.dtypes import check_input
from kgat.nn.numbers import check_number, check_probability, check_whole


class TransformerLayer(torch.nn.Module):
    r"""Branches with skip connections and layer normalisations, the last of them a feed-forward network."""

    norm_first: bool
    norm1: LayerNorm
    norm2: LayerNorm
    norm3: LayerNorm

    @staticmethod
    def _check_sizes(
        embed_dim: int, num_heads: int, feedforward_channels: int, dropout: float, layer_norm_eps: float
    ) -> None:
        # Ahead of the attention module, which may be anyone's.
        check_whole(embed_dim=embed_dim, num_heads=num_heads, feedforward_channels=feedforward_channels)
        check_probability(dropout=dropout)
        check_number(0.0, layer_norm_eps=layer_norm_eps)

    def _build_branches(
        self,
        norms: int,
        embed_dim: int,
        feedforward_channels: int,
        dropout: float,
        act: str | Callable[[Tensor], Tensor],
        layer_norm_eps: float,
        bias: bool,
    ) -> None:
        self.linear1 = Linear(embed_dim, feedforward_channels, bias=bias)
        self.linear2 = Linear(feedforward_channels, embed_dim, bias=bias)
        for number in range(1, norms + 1):
            setattr(self, f"norm{number}", LayerNorm(embed_dim, eps=layer_norm_eps, bias=bias))
        self.dropout = Dropout(dropout)
        self.act = resolved("act", activation_resolver, act)

    def _added(self, x: Tensor, norm: torch.nn.Module, branch: Callable[[Tensor], Tensor]) -> Tensor:
        if self.norm_first:
            check_input("tokens", x, norm)
            return x + self.dropout(branch(norm(x)))
        return norm(x + self.dropout(branch(x)))  # type: ignore[no-any-return]

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(self.act(self.linear1(x))))
