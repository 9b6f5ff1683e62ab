r"""Additive attention: the scores of GAT and GATv2."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter
from torch_geometric.nn.inits import glorot

from kgat.capture import autocasts
from kgat.kernels.kernel import Kernel, number
from kgat.ops.batching import is_watched
from kgat.ops.logits import logit, logits
from kgat.score.gram import ComposedGram, LazyGram, LogitGram
from kgat.score.rules import ADD, LEAKY_RELU, LEAKY_RELU_SUM, ScoreRule

# Numbers of projections that stay in a cache: to read them once more costs less than other products.
SMALL = 1 << 19

# A slope that single precision rounds to 0 makes NaN of minus infinity.
TINY = torch.finfo(torch.float32).tiny


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
        return self.negative_slope >= TINY and type(self)._of is Additive._of

    def reset_parameters(self) -> None:
        # GATConv's [1, H, D] parameters take their fans from the last two dimensions, as these do.
        glorot(self.att_key)
        glorot(self.att_query)

    def lift(self, query: Tensor, key: Tensor) -> LazyGram:
        if key is query:
            nodes = query, self.att_query, self.att_key
            if torch.is_grad_enabled() and type(self)._of is Additive._of and not is_watched(*nodes):
                return LogitGram.of_nodes(*nodes, self._rule, logits)
            return self._of(*logits(*nodes))
        return self._of(logit(query, self.att_query), logit(key, self.att_key))

    def of_features(
        self, x_query: Tensor, weight_query: Tensor, x_key: Tensor, weight_key: Tensor
    ) -> LazyGram | None:
        r"""By :math:`\mathbf{a}^\top (\mathbf{W} \mathbf{x}) = (\mathbf{W}^\top \mathbf{a})^\top \mathbf{x}`,
        two columns per head: cheaper than from the projections, unless features are many."""
        if max(x_query.size(1), x_key.size(1)) > 2 * self.heads * self.channels:
            return None
        if x_query is not x_key or weight_query is not weight_key:
            s, t = x_query @ _folded(weight_query, self.att_query), x_key @ _folded(weight_key, self.att_key)
        elif not torch.compiler.is_compiling() and x_query.size(0) * self.heads * self.channels <= SMALL:
            return None
        elif is_watched(x_query) or autocasts(x_query.device):
            both = _folded(weight_query, self.att_query), _folded(weight_query, self.att_key)
            s, t = (x_query @ torch.cat(both, dim=-1)).split(self.heads, dim=-1)
        else:
            s, t = _FoldedLogits.apply(x_query, weight_query, self.att_query, self.att_key)  # type: ignore[no-untyped-call]
        return self._of(s.unsqueeze(-1), t.unsqueeze(-1))

    @property
    def _rule(self) -> ScoreRule:
        return ScoreRule(ADD, LEAKY_RELU, link_args=(self.negative_slope,), edge_bias_inside=True)

    def _of(self, s: Tensor, t: Tensor) -> LazyGram:
        return LazyGram.of(s, t, self._rule)


class _FoldedLogits(torch.autograd.Function):
    r"""The logits of nodes that are queries and keys, from features: one product for both, and few more for
    all gradients. What einsum and its derivative are made of takes longer than attention on a small graph."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, weight: Tensor, att_query: Tensor, att_key: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, weight, att_query, att_key)
        both = x @ _fold(weight, torch.stack([att_query, att_key], dim=1)).T
        return both[:, ::2].contiguous(), both[:, 1::2].contiguous()

    @staticmethod
    def backward(ctx: Any, d_s: Tensor, d_t: Tensor) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
        x, weight, att_query, att_key = ctx.saved_tensors
        heads, channels = att_key.shape
        att = torch.stack([att_query, att_key], dim=1)
        d_both = torch.stack([d_s, d_t], dim=-1).reshape(-1, 2 * heads)  # [N, 2 H]
        d_folded = (d_both.t() @ x).reshape(heads, 2, x.size(1))
        d_query, d_key = (d_folded @ weight.view(heads, channels, x.size(1)).transpose(1, 2)).unbind(1)
        d_x = d_both @ _fold(weight, att) if ctx.needs_input_grad[0] else None
        return d_x, (att.transpose(1, 2) @ d_folded).reshape(weight.shape), d_query, d_key


def _fold(weight: Tensor, att: Tensor) -> Tensor:
    # [H D, F], [H, 2, D] -> [2 H, F]
    heads, _, channels = att.shape
    return (att @ weight.view(heads, channels, weight.size(1))).flatten(0, 1)


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

    masked_by_bias = True  # it joins outside of the link

    def lift(self, query: Tensor, key: Tensor) -> ComposedGram:  # type: ignore[override]
        s, t = logit(query, self.att_query), logit(key, self.att_key)
        parts = LazyGram.of(s, t, ScoreRule(ADD)), LazyGram.of(query, key)
        slope = self.negative_slope
        return ComposedGram(parts, lambda total, logit: F.leaky_relu(total * logit.sigmoid(), slope))
