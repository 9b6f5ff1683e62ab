r"""Fused passes as ops of torch, so that ``torch.compile`` sees no break; anyone can call them.

There are two ops, the whole pass and its sums of pairs alone, and each has a backward op. They take the
edges, the operands in the order of their table, and the recipe as text. Each operand is an argument of its
own: torch has no rule for batched gradients of ops that take a list of tensors. A second derivative goes
through :mod:`kgat.ops.eager`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kgat.ops import logits
from kgat.ops.backend import on
from kgat.ops.batching import is_watched, one_by_one
from kgat.ops.eager import EAGER, call_of
from kgat.ops.graph.adjacency import Adjacency
from kgat.ops.notice import warn_once
from kgat.ops.operands import (
    LEARNED,
    LEARNED_OF_SCORES,
    OF_SCORES,
    TABLE,
    Operands,
    check_pass,
    check_score,
    schema,
)
from kgat.ops.recipe import BackendError, Recipe
from kgat.score.gram import LogitGram

_PASS = f"Tensor edge_index, {schema(Operands._fields)}, str recipe, SymInt target, SymInt num_targets"
_SCORE = f"Tensor edge_index, {schema(OF_SCORES)}, str recipe, SymInt target"


def _declared_op(name: str, arguments: str, results: int) -> Callable[[Callable[..., Any]], Any]:
    declared = f"({arguments}) -> ({', '.join(['Tensor'] * results)})"
    return torch.library.custom_op(f"kgat::{name}", mutates_args=(), schema=declared)


def _operands_of(inputs: Sequence[Any]) -> tuple[Operands, str, int, int]:
    *operands, recipe, target, num_targets = inputs
    return Operands(*operands), recipe, target, num_targets


def _operands_of_scores(inputs: Sequence[Any]) -> tuple[Operands, str, int]:
    query, key, weight, pair_args, recipe, target = inputs
    value = key.new_empty(*key.shape[:2], 0)
    return Operands(value, pair_args, pair_args, query, key, weight), recipe, target


def _all_gradients(names: Sequence[str], tensors: Mapping[str, Tensor], like: Tensor) -> tuple[Tensor, ...]:
    # Ops return tensors alone: an empty one stands for the gradient of an operand that is not there.
    return tuple([tensors[name] if name in tensors else like.new_empty(0) for name in names])


def _empty_gradients(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    layout = torch.contiguous_format
    return {name: torch.empty_like(x, memory_format=layout) for name, x in tensors.items()}


# The number in the name rises when an op returns other shapes: compilers keep graphs on disk by names of ops.
@_declared_op("edge_attention_2", _PASS, 3)
def edge_attention(edge_index: Tensor, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    r"""Returns the averages, the parts of the log-sum-exp of the scores, and the fingerprint of the edges.
    The first two have the type of scores."""
    x, text, target, num_targets = _operands_of(inputs)
    recipe = check_pass(x, edge_index, text, target, num_targets)
    adjacency = Adjacency.of(edge_index, target, num_targets, x.value.size(0))
    out, lse = on(edge_index.device).attention(recipe, adjacency, x.contiguous())
    return out, lse, adjacency.graph.clone()


@edge_attention.register_fake
def _(edge_index: Tensor, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    x, _, _, num_targets = _operands_of(inputs)
    out = x.link_args.new_empty(num_targets, x.value.size(1), x.value.size(2))
    lse = x.link_args.new_empty(num_targets, x.value.size(1), 2)
    return out, lse, edge_index.new_empty(2, dtype=torch.int64)


@_declared_op(
    "edge_attention_2_backward", f"Tensor grad, Tensor out, Tensor lse, Tensor? graph, {_PASS}", len(LEARNED)
)
def edge_attention_backward(
    grad: Tensor, out: Tensor, lse: Tensor, graph: Tensor | None, edge_index: Tensor, *inputs: Any
) -> tuple[Tensor, ...]:
    r"""Returns the gradients of all operands that are learned."""
    x, text, target, num_targets = _operands_of(inputs)
    recipe = check_pass(x, edge_index, text, target, num_targets, grad, out, lse)
    x = x._replace(**{name: t.view_as(t) for name, t in x.learned.items()})  # type: ignore[arg-type]  # one gradient each
    found = _attention_backward(grad, out, lse, graph, edge_index, x, recipe, target, num_targets)
    return _all_gradients(LEARNED, found, x.value)


def _attention_backward(
    grad: Tensor,
    out: Tensor,
    lse: Tensor,
    graph: Tensor | None,
    edge_index: Tensor,
    x: Operands,
    recipe: Recipe,
    target: int,
    num_targets: int,
    known: Adjacency | None = None,
) -> dict[str, Tensor]:
    if known is None or not known.is_of(edge_index):
        known = Adjacency.again(edge_index, target, num_targets, x.value.size(0), graph)
    results = (out.contiguous(), lse.contiguous(), grad.contiguous())
    return on(edge_index.device).attention_backward(recipe, known, x.contiguous(), *results)


@edge_attention_backward.register_fake
def _(grad: Tensor, out: Tensor, lse: Tensor, graph: Any, edge_index: Tensor, *inputs: Any) -> Any:
    x = _operands_of(inputs)[0]
    return _all_gradients(LEARNED, _empty_gradients(x.learned), x.value)


@_declared_op("edge_score", _SCORE, 2)
def edge_score(edge_index: Tensor, *inputs: Any) -> tuple[Tensor, Tensor]:
    r"""Returns the sums of pairs and the fingerprint of the edges."""
    recipe = check_score(dict(zip(OF_SCORES, inputs, strict=False)), edge_index, *inputs[-2:])
    x, _, target = _operands_of_scores(inputs)
    assert x.query is not None
    adjacency = Adjacency.of(edge_index, target, x.query.size(0), x.value.size(0))
    score = on(edge_index.device).score(recipe, adjacency, x.contiguous())
    return score, adjacency.graph.clone()


@edge_score.register_fake
def _(edge_index: Tensor, query: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    score = query.new_empty(edge_index.size(1), query.size(1))
    return score, edge_index.new_empty(2, dtype=torch.int64)


@_declared_op("edge_score_backward", f"Tensor grad, Tensor? graph, {_SCORE}", len(LEARNED_OF_SCORES))
def edge_score_backward(
    grad: Tensor, graph: Tensor | None, edge_index: Tensor, *inputs: Any
) -> tuple[Tensor, ...]:
    r"""Returns the gradients of query, key and weight."""
    recipe = check_score(dict(zip(OF_SCORES, inputs, strict=False)), edge_index, *inputs[-2:], grad)
    x, _, target = _operands_of_scores(inputs)
    assert x.query is not None
    adjacency = Adjacency.again(edge_index, target, x.query.size(0), x.value.size(0), graph)
    backend = on(edge_index.device)
    found = backend.score_backward(recipe, adjacency, x.contiguous(), grad.contiguous())
    return _all_gradients(LEARNED_OF_SCORES, found, x.query)


@edge_score_backward.register_fake
def _(grad: Tensor, graph: Any, edge_index: Tensor, *inputs: Any) -> Any:
    x = _operands_of_scores(inputs)[0]
    return _all_gradients(LEARNED_OF_SCORES, _empty_gradients(x.learned), grad)


@torch.library.custom_op("kgat::dropout_mask", mutates_args=())
def dropout_mask(seed: Tensor, edges: int, heads: int, p: float) -> Tensor:
    r"""Returns the dropout mask of a seed, over :math:`1 - p`."""
    return on(seed.device).dropout_mask(edges, heads, p, seed)


@dropout_mask.register_fake
def _(seed: Tensor, edges: int, heads: int, p: float) -> Tensor:
    return seed.new_empty(edges, heads, dtype=torch.float64)


# Batched gradients call the backward ops inside of vmap. Compiled code calls all ops there.
for _each in (edge_attention, edge_attention_backward, edge_score, edge_score_backward, dropout_mask):
    _each.register_vmap(partial(one_by_one, _each))


# --- Derivatives ------------------------------------------------------------------------------------------


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    tensors = 1 + (len(TABLE) if len(output) == 3 else len(OF_SCORES))
    ctx.save_for_backward(*(output if len(output) == 3 else output[1:]), *inputs[:tensors])
    ctx.rest, ctx.shared, ctx.adjacency = inputs[tensors:], (), None
    ctx.mark_non_differentiable(*output[1:])


def _attention_gradients(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Any, ...]:
    found = _found_gradients(grad, ctx.saved_tensors, ctx)
    return (None, *map(found.get, Operands._fields), None, None, None)


def _found_gradients(grad: Tensor, saved: tuple[Tensor, ...], ctx: Any) -> Mapping[str, Tensor | None]:
    # The caller unpacks 'saved' once and hands it on: where a checkpoint fills a context, every look at its
    # tensors would compute them again.
    out, lse, graph, edge_index, *tensors = saved
    x, text, target, num_targets = _operands_of((*tensors, *ctx.rest))
    x = x._replace(**dict.fromkeys(ctx.shared, x.value))  # type: ignore[arg-type]
    edges = (edge_index, target, num_targets)
    found: Mapping[str, Tensor | None]
    if _is_differentiated(grad, x):
        Adjacency.again(*edges, x.value.size(0), graph)
        found = _eager_gradients(grad, x, text, edges)
    else:
        results_of_forward = (grad, out, lse, graph, edge_index)
        try:
            if not is_watched(grad, edge_index, *tensors):
                rest = (Recipe.read(text), target, num_targets, ctx.adjacency)
                found = _attention_backward(*results_of_forward, x, *rest)
            else:
                results = edge_attention_backward(*results_of_forward, *x, text, target, num_targets)
                found = {name: d for name, d in zip(LEARNED, results, strict=True) if name in x.learned}
        except BackendError as error:
            fall_back("the backward of fused attention", error)
            leaves = {name: leaf.detach().requires_grad_() for name, leaf in x.learned.items()}
            with torch.enable_grad():
                found = _eager_gradients(grad, x._replace(**leaves), text, edges)  # type: ignore[arg-type]
            found = {name: None if d is None else d.detach() for name, d in found.items()}
    return found


def _score_gradients(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Any, ...]:
    graph, edge_index, *tensors = ctx.saved_tensors
    x, text, target = _operands_of_scores((*tensors, *ctx.rest))
    assert x.query is not None
    if _is_differentiated(grad, x):
        edges = (edge_index, target, x.query.size(0))
        Adjacency.again(*edges, x.value.size(0), graph)
        found = _eager_gradients(grad, x, text, edges, scores=True)
    else:
        results = edge_score_backward(grad, graph, edge_index, *tensors, *ctx.rest)
        found = dict(zip(LEARNED_OF_SCORES, results, strict=True))
    gradients = (None if t is None else found.get(name) for name, t in zip(OF_SCORES, tensors, strict=True))
    return (None, *gradients, None, None)


edge_attention.register_autograd(_attention_gradients, setup_context=_save)
edge_score.register_autograd(_score_gradients, setup_context=_save)


# --- The short way ----------------------------------------------------------------------------------------


def attend(
    edge_index: Tensor,
    x: Operands,
    recipe: Recipe,
    target: int,
    num_targets: int,
    base: Tensor | None,
    watched: bool,
    gram: LogitGram | None = None,
) -> Tensor:
    r"""Returns the averages of :func:`edge_attention` plus the base, in the type of values. The operands are
    known to fit. Where there is a Gram matrix of logits, these are both biases of nodes.

    Where :func:`~kgat.ops.batching.is_watched` says that nobody looks at ops, none of this module is called.
    To dispatch an op that is written in Python, and its derivative, takes longer than attention on a small
    graph.
    """
    nodes = () if gram is None or gram.nodes is None else gram.nodes
    tensors: Sequence[Any] = (base, *nodes, *x[: len(TABLE)])
    learns = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    if gram is not None and (watched or not learns or not logits.in_one_pass(*nodes)):
        ((s, t, _),) = gram.terms
        nodes, x = (), x._replace(query_bias=s, key_bias=t)
    inputs = (edge_index, *x, recipe.text, target, num_targets)
    if watched:
        return _sum_with_base(edge_attention(*inputs)[0], base, x.value.dtype)
    if learns:
        return EdgeAttention.apply(base, *(nodes or (None, None, None)), *inputs)  # type: ignore[no-any-return, no-untyped-call]
    adjacency = Adjacency.of(edge_index, target, num_targets, x.value.size(0))
    backend, dtype = on(edge_index.device), x.value.dtype
    return _rounded(
        backend.attention_and_base(recipe, adjacency, x.contiguous(), base, keeps=False)[2], dtype
    )


def _sum_with_base(out: Tensor, base: Tensor | None, dtype: torch.dtype) -> Tensor:
    # The sum is rounded once. Backward reads the averages without it: its differences would be lost beside a
    # large base, and the caller may change the sum in place.
    if base is None:
        return out.clone() if out.dtype is dtype else out.to(dtype)
    return _rounded(out + base, dtype)


def _rounded(out: Tensor, dtype: torch.dtype) -> Tensor:
    return out if out.dtype is dtype else out.to(dtype)


class EdgeAttention(torch.autograd.Function):
    r"""What :func:`edge_attention` is to autograd, with the logits ahead of it and the sum with a base."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        base: Tensor | None,
        nodes: Tensor | None,
        first: Tensor | None,
        second: Tensor | None,
        edge_index: Tensor,
        *inputs: Any,
    ) -> Tensor:
        x, text, target, num_targets = _operands_of(inputs)
        if nodes is not None and first is not None and second is not None:
            s, t = logits.forward(nodes, first, second)
            x = x._replace(query_bias=s, key_bias=t)
        adjacency = Adjacency.of(edge_index, target, num_targets, x.value.size(0))
        backend, recipe = on(edge_index.device), Recipe.read(text)
        out, lse, summed = backend.attention_and_base(recipe, adjacency, x.contiguous(), base, keeps=True)
        tensors = len(TABLE)
        ctx.save_for_backward(nodes, first, second, out, lse, adjacency.graph, edge_index, *x[:tensors])
        ctx.adjacency = adjacency
        ctx.rest = inputs[tensors:]
        ctx.nodes_are_values = nodes is x.value
        ctx.shared = [name for name in ("query", "key") if getattr(x, name) is x.value]
        ctx.base_dim = 0 if base is None or not ctx.needs_input_grad[0] else base.dim()
        return _rounded(summed, x.value.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        of_base = None if ctx.base_dim == 0 else grad.sum(dim=0) if ctx.base_dim == 2 else grad
        nodes, first, second, *saved = ctx.saved_tensors
        if nodes is None:
            found = _found_gradients(grad, saved, ctx)
            return (of_base, None, None, None, None, *map(found.get, Operands._fields), None, None, None)
        at = 4 + Operands._fields.index("query_bias")
        if torch.is_grad_enabled():
            saved[at], saved[at + 1] = logits.logits(nodes, first, second)
        found = dict(_found_gradients(grad, saved, ctx))
        d_s, d_t = found.pop("query_bias", None), found.pop("key_bias", None)
        of_nodes: tuple[Tensor | None, ...] = (None, None, None)
        if d_s is not None and d_t is not None:
            value = found.pop("value", None) if ctx.nodes_are_values else None
            of_nodes = logits.backward(nodes, first, second, d_s, d_t, value)
        return (of_base, *of_nodes, None, *map(found.get, Operands._fields), None, None, None)


def _is_differentiated(grad: Tensor, x: Operands) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in (grad, *x.learned.values()))


def _eager_gradients(
    grad: Tensor, x: Operands, recipe: str, edges: tuple[Tensor, int, int], scores: bool = False
) -> dict[str, Tensor | None]:
    # The same call runs once more, in ops that can be differentiated again. A key bias may be made of the
    # keys: views of the operands are no functions of each other.
    learned = {name: t.view_as(t) for name, t in x.learned.items()}
    x = x._replace(**learned)  # type: ignore[arg-type]
    mask = None
    if x.dropout > 0:
        assert x.seed is not None
        device = x.value.device
        mask = on(device).dropout_mask(edges[0].size(1), x.heads, x.dropout, x.seed)
    call = call_of(Recipe.read(recipe), x, *edges, mask)
    result = call.gram.at(call.row, call.col) if scores else EAGER.edge_attention(call)
    wanted = {name: t for name, t in learned.items() if t.requires_grad}
    if not result.requires_grad:
        return {}
    found = torch.autograd.grad(result, list(wanted.values()), grad, create_graph=True, allow_unused=True)
    return dict(zip(wanted, found, strict=True))


def fall_back(what: str, why: object) -> None:
    r"""Says, once, that the eager backend does what a fused one could not."""
    warn_once(f"{what} runs on the eager backend: {why}")
