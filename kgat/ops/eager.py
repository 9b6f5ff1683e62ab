r"""Edge attention in plain torch: takes every kernel, every device, every transform and every derivative.

On the CPU it works on the edges sorted by target, with sparse matrix products: inner-product kernels then
never hold a tensor with a row of channels per edge. Elsewhere, and under ``torch.compile``, ``torch.export``,
``vmap`` and forward-mode differentiation, it gathers and scatters.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kgat.capture import differentiates_forward, is_captured
from kgat.ops import sparse
from kgat.ops.backend import Backend
from kgat.ops.call import Call
from kgat.ops.dropout import dropout as drop
from kgat.ops.graph.structure import Structure
from kgat.ops.operands import Operands
from kgat.ops.precision import score_dtype
from kgat.ops.recipe import Recipe
from kgat.score.gram import ComposedGram, LazyGram, Term
from kgat.score.rules import ADD, MUL, Argument, ScoreRule


class Eager(Backend):
    r"""Computes :math:`\mathbf{o}_{ih} = \sum_{e \to i} w_e\, m_{eh}\, \alpha_{eh} \mathbf{v}_{j(e)h}` with
    :math:`\alpha = \mathrm{softmax}` of the scores over the edges of a target."""

    name = "eager"

    def edge_attention(self, call: Call) -> Tensor:
        return _attention(call, weights=False)[0]

    def edge_attention_with_weights(self, call: Call) -> tuple[Tensor, Tensor]:
        return _attention(call, weights=True)  # type: ignore[return-value]


EAGER = Eager()


def _attention(call: Call, weights: bool) -> tuple[Tensor, Tensor | None]:
    attention = _sorted_attention if sorts_edges(call.value) else _scattered_attention
    out, alpha = attention(call, weights)
    return out if call.base is None else (out + call.base).to(call.value.dtype), alpha


def _scattered_attention(call: Call, weights: bool) -> tuple[Tensor, Tensor]:
    score = call.scores()  # [E, H]
    if call.edge_log_weight is not None:
        score = score + call.edge_log_weight
    alpha = drop(edge_softmax(score, call.row, call.num_targets), call.dropout)
    return aggregate(alpha if call.edge_weight is None else alpha * call.edge_weight, call), alpha


def edge_softmax(score: Tensor, index: Tensor, num_nodes: int, power: float = 1.0) -> Tensor:
    r"""Normalises scores over equal :obj:`index`; see :func:`kgat.functional.edge_softmax`.

    Shapes:
        - **score, output:** :math:`(E, H)`, **index:** :math:`(E)`
    """
    dtype, index = score_dtype(score), index.long()  # torch scatters by no other type
    s = score.to(dtype)
    shape = (num_nodes, *s.shape[1:])
    spread = index.view(-1, *[1] * (s.dim() - 1)).expand_as(s)
    top = s.new_full(shape, -torch.inf).scatter_reduce(0, spread, s.detach(), "amax")
    # A group whose scores are all -inf shifts by 0 instead: its weights are then 0, not NaN.
    top = torch.where(top == -torch.inf, 0.0, top)
    shifted = s - top.index_select(0, index)
    total = s.new_zeros(shape).index_add(0, index, (power * shifted).exp())
    total = torch.where(total == 0, 1.0, total)
    if power == 1.0:
        alpha = shifted.exp() / total.index_select(0, index)
    else:
        alpha = (shifted - total.log().index_select(0, index) / power).exp()
    return alpha.to(score.dtype)


def aggregate(alpha: Tensor, call: Call) -> Tensor:
    r"""Sums weighted values per target by gathering and scattering.

    Shapes:
        - **alpha:** :math:`(E, H)`, **output:** :math:`(N, H, C)`
    """
    value = call.value
    dtype = score_dtype(value)  # half values are summed in single precision
    message = alpha.unsqueeze(-1).to(dtype) * value.index_select(0, call.col).to(dtype)
    out = torch.zeros(call.num_targets, *value.shape[1:], dtype=dtype, device=value.device).index_add(
        0, call.row, message
    )
    return out.to(value.dtype)


def sorts_edges(value: Tensor) -> bool:
    r"""Returns whether attention on :obj:`value` sorts the edges: on the CPU, outside of transforms that
    custom autograd functions do not take part in."""
    return value.device.type == "cpu" and not is_captured() and not differentiates_forward()


def _sorted_attention(call: Call, weights: bool) -> tuple[Tensor, Tensor | None]:
    value = call.value
    sources, heads, channels = value.shape
    structure = Structure.of(call.edge_index, call.target, call.num_targets, sources, heads)
    score = _sorted_score(call, structure)  # [E H]
    if call.edge_log_weight is not None:
        score = score + _entries(call.edge_log_weight, heads, structure)
    dtype = score_dtype(score, value)
    alpha = drop(sparse.softmax(score.to(dtype), structure), call.dropout)
    weight = alpha if call.edge_weight is None else alpha * _entries(call.edge_weight, heads, structure)
    out = sparse.spmm(weight.to(dtype), value.to(dtype).reshape(sources * heads, channels), structure)
    out = out.view(call.num_targets, heads, channels).to(value.dtype)
    if not weights:
        return out, None
    placed = torch.empty_like(alpha).index_copy(0, structure.edge.long(), alpha)
    return out, placed.view(-1, heads).to(score.dtype)


def _sorted_score(call: Call, structure: Structure) -> Tensor:
    gram, heads = call.gram, call.value.size(1)
    if isinstance(gram, ComposedGram):
        scores = (_sorted_score(replace(call, gram=part, edge_bias=None), structure) for part in gram.parts)
        composed = gram.function(*scores)
        return composed if call.edge_bias is None else composed + _entries(call.edge_bias, heads, structure)
    if not isinstance(gram, LazyGram) or not all(_is_inner_product(t) for t in gram.terms):
        return _entries(call.scores(), heads, structure)
    edge_bias = None if call.edge_bias is None else _entries(call.edge_bias, heads, structure)

    def score(term: Term, inside: tuple[Tensor, ...]) -> Tensor:
        rule = term.rule
        assert isinstance(rule, ScoreRule)
        query = term.query * rule.weight if isinstance(rule.weight, Tensor) else term.query
        dtype = torch.promote_types(query.dtype, term.key.dtype)
        q, k = query.to(dtype).flatten(0, 1), term.key.to(dtype).flatten(0, 1)
        if rule.pair is ADD:
            total = sparse.spread(q.flatten(), structure) + k.flatten().index_select(0, structure.col)
        else:
            total = sparse.sddmm(q, k, structure)
        if any(isinstance(arg, Tensor) for arg in rule.link_args):  # one per head, so one per row
            head = structure.row % heads
            rule, args = copy.copy(rule), rule.link_args
            rule.link_args = tuple(
                a.expand(heads).index_select(0, head) if isinstance(a, Tensor) else a for a in args
            )
        return rule.finish(total, *inside)

    biases = []
    if gram.query_bias is not None:
        biases.append(sparse.spread(gram.query_bias.flatten(), structure))
    if gram.key_bias is not None:
        biases.append(gram.key_bias.flatten().index_select(0, structure.col))
    return LazyGram(gram.terms).total(score, edge_bias, biases)


def _entries(x: Tensor, heads: int, structure: Structure) -> Tensor:
    # [E, H] or [E, 1] in the caller's order -> [E H] in that of the structure
    return x.expand(-1, heads).reshape(-1).index_select(0, structure.edge)


def _is_inner_product(term: Term) -> bool:
    # Or what costs as little: a sum of two numbers.
    if not isinstance(term.rule, ScoreRule) or term.query.dim() != 3:
        return False
    return term.rule.pair is MUL or (term.rule.pair is ADD and term.query.size(-1) == 1)


# --- What a fused pass computes, as a call ----------------------------------------------------------------


def call_of(
    recipe: Recipe, x: Operands, edge_index: Tensor, target: int, num_targets: int, mask: Tensor | None = None
) -> Call:
    r"""Returns the call that a fused pass computes.

    Args:
        recipe (Recipe): What the pass computes.
        x (Operands): What on; of its dropout the mask alone counts, and of its base nothing.
        edge_index (torch.Tensor): The edges.
        target (int): Which row of :obj:`edge_index` holds the targets.
        num_targets (int): :math:`N`.
        mask (torch.Tensor, optional): The dropout mask over :math:`1 - p`. (default: :obj:`None`)

    Shapes:
        - **edge_index:** :math:`(2, E)`, **mask:** :math:`(E, H)`
    """
    link_args = _constants(x.link_args, recipe.link.in_scalars, 1)
    a, b = (None if bias is None else bias.flatten(1) for bias in (x.query_bias, x.key_bias))
    if recipe.pair is None:
        a = x.value.new_zeros(num_targets, x.heads) if a is None else a
        b = x.value.new_zeros(x.value.shape[:2]) if b is None else b
        rule = ScoreRule(ADD, recipe.link, link_args=link_args, edge_bias_inside=True)
        gram = LazyGram.of(a.unsqueeze(-1), b.unsqueeze(-1), rule)
    else:
        assert x.query is not None
        assert x.key is not None
        pair_args = _constants(x.pair_args, recipe.pair.in_scalars, 2)
        weight = x.scale if x.weight is None else x.weight if x.scale == 1.0 else x.scale * x.weight
        rule = ScoreRule(recipe.pair, recipe.link, weight, pair_args, link_args, recipe.bias_inside)
        gram = LazyGram.of(x.query, x.key, rule, key_bias=b)
    factor = x.edge_weight
    if mask is not None:
        factor = mask.to(x.value.dtype) if factor is None else factor * mask
    return Call(gram, x.value, edge_index, num_targets, target, x.edge_bias, None, factor)


def _constants(args: Tensor, function: Callable[..., Any], operands: int) -> tuple[Argument, ...]:
    # As functions of torch take them: as many as there are, and numbers, unless heads differ.
    count = function.__code__.co_argcount - operands  # type: ignore[attr-defined]
    return tuple(
        row[0].item() if row.numel() and bool((row == row[0]).all()) else row for row in args[:count]
    )
