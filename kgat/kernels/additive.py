r"""Additive attention: the scores of GAT and GATv2."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter
from torch_geometric.nn.inits import glorot

from kgat.kernels.kernel import Kernel, number
from kgat.score.gram import ComposedGram, LazyGram
from kgat.score.rules import ADD, LEAKY_RELU, LEAKY_RELU_SUM, ScoreRule


class Additive(Kernel):
    r"""The score of `"Graph Attention Networks" <https://arxiv.org/abs/1710.10903>`_.

    .. math::
        \log k(\mathbf{q}, \mathbf{k}) = \mathrm{LeakyReLU}(\mathbf{a}_q^\top \mathbf{q}
        + \mathbf{a}_k^\top \mathbf{k})

    As a lift it has two features, :math:`[s_i, 1]` and :math:`[1, t_j]`. It is an RBF between the
    pair and the prototype :math:`[\mathbf{a}_q; \mathbf{a}_k]` times the exponential of L2 norms:
    queries and keys are never compared with each other.

    Use it when GAT is what you compare with, or change one thing of: it is the cheapest score, made of two
    numbers a node. It is the default of :class:`~kgat.nn.KernelGATConv`. All nodes rank their neighbours
    alike, whoever asks (static attention).

    Args:
        negative_slope (float, optional): Slope of the LeakyReLU. (default: :obj:`0.2`)

    Example:
        >>> import torch
        >>> from kgat.kernels import Additive
        >>> Additive(4, heads=2)(torch.randn(3, 2, 4), torch.randn(5, 2, 4)).dense().shape
        torch.Size([3, 5, 2])
    """

    scalable = False
    stock = ("GATConv", {"att_key": "att_src", "att_query": "att_dst"})

    def __init__(self, channels: int, heads: int = 1, negative_slope: float = 0.2) -> None:
        super().__init__(channels, heads)
        self.negative_slope = number("negative_slope", negative_slope)
        self.att_query = Parameter(torch.empty(heads, channels))
        self.att_key = Parameter(torch.empty(heads, channels))
        self.reset_parameters()

    @property
    def masked_by_bias(self) -> bool:  # type: ignore[override]
        return self.negative_slope > 0.0 and type(self)._of is Additive._of

    def reset_parameters(self) -> None:
        # GATConv's [1, H, D] parameters take their fans from the last two dimensions, as these do.
        glorot(self.att_key)
        glorot(self.att_query)

    def lift(self, query: Tensor, key: Tensor) -> LazyGram:
        if key is query and not torch.compiler.is_compiling():  # which brings the passes together by itself
            s, t = _BothLogits.apply(query, self.att_query, self.att_key)  # type: ignore[no-untyped-call]
        else:
            s, t = _logits(query, self.att_query), _logits(key, self.att_key)
        return self._of(s.unsqueeze(-1), t.unsqueeze(-1))

    def of_features(
        self, x_query: Tensor, weight_query: Tensor, x_key: Tensor, weight_key: Tensor
    ) -> LazyGram | None:
        r"""By :math:`\mathbf{a}^\top (\mathbf{W} \mathbf{x}) = (\mathbf{W}^\top \mathbf{a})^\top \mathbf{x}`,
        two columns per head: cheaper than from the projections, unless features are many."""
        if max(x_query.size(1), x_key.size(1)) > 2 * self.heads * self.channels:
            return None
        by_query, by_key = _folded(weight_query, self.att_query), _folded(weight_key, self.att_key)
        if x_query is x_key:  # one product for both
            s, t = (x_query @ torch.cat([by_query, by_key], dim=-1)).split(self.heads, dim=-1)
        else:
            s, t = x_query @ by_query, x_key @ by_key
        return self._of(s.unsqueeze(-1), t.unsqueeze(-1))

    def _of(self, s: Tensor, t: Tensor) -> LazyGram:
        rule = ScoreRule(ADD, LEAKY_RELU, link_args=(self.negative_slope,), edge_bias_inside=True)
        return LazyGram.of(s, t, rule)


def _logits(x: Tensor, att: Tensor) -> Tensor:
    # A batched product of so narrow matrices takes five times as long as this sum.
    return (x * att).sum(dim=-1)


class _BothLogits(torch.autograd.Function):
    r"""The logits of nodes that are queries and keys: one pass over the nodes for both gradients of theirs,
    one matrix product for those of both vectors; by themselves they take half as long again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, att_query: Tensor, att_key: Tensor) -> tuple[Tensor, Tensor]:
        return _logits(x, att_query), _logits(x, att_key)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, d_s: Tensor, d_t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, att_query, att_key = ctx.saved_tensors
        d_x = torch.addcmul(d_s.unsqueeze(-1) * att_query, d_t.unsqueeze(-1), att_key)
        # Of the product of all heads with all heads, those of a head with itself.
        heads, channels = att_query.shape
        both = torch.cat([d_s, d_t], dim=-1).reshape(-1, 2 * heads)
        product = both.T @ x.reshape(-1, heads * channels)
        own = product.view(2, heads, heads, channels).diagonal(dim1=1, dim2=2)  # [2, C, H]
        d_query, d_key = own.transpose(1, 2)
        return d_x, d_query, d_key

    @staticmethod
    def jvp(
        ctx: Any, d_x: Tensor | None, d_query: Tensor | None, d_key: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        x, att_query, att_key = ctx.saved_tensors
        found = []
        for att, d_att in ((att_query, d_query), (att_key, d_key)):
            by_x = torch.zeros_like(x[..., 0]) if d_x is None else _logits(d_x, att)
            found.append(by_x if d_att is None else by_x + _logits(x, d_att))
        return found[0], found[1]


def _folded(weight: Tensor, att: Tensor) -> Tensor:
    # [H D, F], [H, D] -> [F, H]
    return torch.einsum("hdf,hd->fh", weight.unflatten(0, att.shape), att)


class AdditiveV2(Kernel):
    r"""The score of `"How Attentive are Graph Attention Networks?"
    <https://arxiv.org/abs/2105.14491>`_.

    .. math::
        \log k(\mathbf{q}, \mathbf{k}) = \mathbf{a}^\top \mathrm{LeakyReLU}(\mathbf{q} + \mathbf{k})

    Use it when the best neighbour shall differ from query to query, which :class:`Additive` cannot do, at the
    price of a pass over the channels of each edge.

    Args:
        negative_slope (float, optional): Slope of the LeakyReLU. (default: :obj:`0.2`)

    Example:
        >>> import torch
        >>> from kgat.kernels import AdditiveV2
        >>> AdditiveV2(4, heads=2)(torch.randn(3, 2, 4), torch.randn(5, 2, 4)).dense().shape
        torch.Size([3, 5, 2])
    """

    scalable = False
    symmetric = True
    stock = ("GATv2Conv", {"att": "att"})

    def __init__(self, channels: int, heads: int = 1, negative_slope: float = 0.2) -> None:
        super().__init__(channels, heads)
        self.negative_slope = number("negative_slope", negative_slope)
        self.att = Parameter(torch.empty(heads, channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        glorot(self.att)

    def lift(self, query: Tensor, key: Tensor) -> LazyGram:
        rule = ScoreRule(LEAKY_RELU_SUM, weight=self.att, pair_args=(self.negative_slope,))
        return LazyGram.of(query, key, rule)


class GatedAdditive(Additive):
    r"""The score of SuperGAT (MX) in `"How to Find Your Friendly Neighborhood: Graph Attention
    Design with Self-Supervision" <https://openreview.net/forum?id=Wi5KUNlqWty>`_.

    .. math::
        \log k(\mathbf{q}, \mathbf{k}) = \mathrm{LeakyReLU} \big( (\mathbf{a}_q^\top \mathbf{q}
        + \mathbf{a}_k^\top \mathbf{k}) \, \sigma(\mathbf{q}^\top \mathbf{k}) \big)

    :class:`Additive`, gated by the probability of an edge between the two nodes. Each of the two sums is one
    pass over the edges, which leaves a number per edge and head.

    Use it when a GAT shall listen to neighbours that resemble the query, as SuperGAT does.

    Args:
        negative_slope (float, optional): Slope of the LeakyReLU. (default: :obj:`0.2`)

    Example:
        >>> import torch
        >>> from kgat.kernels import GatedAdditive
        >>> GatedAdditive(4, heads=2)(torch.randn(3, 2, 4), torch.randn(5, 2, 4)).dense().shape
        torch.Size([3, 5, 2])
    """

    def lift(self, query: Tensor, key: Tensor) -> ComposedGram:  # type: ignore[override]
        s, t = _logits(query, self.att_query).unsqueeze(-1), _logits(key, self.att_key).unsqueeze(-1)
        parts = LazyGram.of(s, t, ScoreRule(ADD)), LazyGram.of(query, key)
        slope = self.negative_slope
        return ComposedGram(parts, lambda total, logit: F.leaky_relu(total * logit.sigmoid(), slope))
