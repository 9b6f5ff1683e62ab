r"""Fused edge attention: one op, whose forward and backward hold nothing of the size of edges times channels.

A call is turned into a :class:`~kgat.ops.recipe.Recipe` and its operands. Where the score is one rule, all of
it runs in one pass. A product or sum of kernels, and a rule that is not written in scalars, first become one
score per edge and head (:func:`edge_score`, or the kernel's own code on a piece of the edges at a time), and
the pass takes that as its edge bias.

The ops are registered with torch, so that ``torch.compile`` sees no break. A derivative of their derivative
goes through :mod:`kgat.ops.eager`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kgat.ops import cpu, eager, gpu
from kgat.ops.batching import one_by_one
from kgat.ops.call import Call, score_dtype
from kgat.ops.graph.adjacency import Adjacency
from kgat.ops.operands import check_pass, check_score, check_scores
from kgat.ops.recipe import BackendError, Operands, Recipe
from kgat.ops.trial import require_trial
from kgat.score.gram import ComposedGram, Gram, LazyGram, SumGram, Term
from kgat.score.rules import ADD, IDENTITY, Argument, Link, Pair, ScoreRule

logger = logging.getLogger("kgat")

# Scores of a rule that is not compiled are computed for so many bytes of gathered features at a time; what
# the rule makes of them on the way may be ten times as large.
CHUNK_BYTES = 1 << 24


def reasons(call: Call) -> list[str]:
    r"""Returns why a call cannot run fused on any device; empty if it can."""
    why = []
    if call.gram.signed:
        why.append("the kernel can be negative")
    # Before 2.12, is_exporting() says yes to all code that torch compiles.
    if torch.compiler._is_exporting_flag:
        why.append("torch.export keeps to torch's own ops")
    elif not torch.compiler.is_compiling():
        if torch.jit.is_tracing() or torch._C._functorch.peek_interpreter_stack() is not None:
            why.append("inside of vmap, grad or jvp of torch.func, or of torch.jit.trace")
        if torch.autograd.forward_ad._current_level >= 0:
            why.append("forward-mode differentiation")
    if call.value.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        why.append(f"values are {str(call.value.dtype).removeprefix('torch.')}")
    if call.value.dim() != 3:
        why.append("values are batched")
    return why


def edge_attention(call: Call, seed: Tensor | None = None) -> Tensor:
    r"""Computes what :func:`kgat.functional.edge_attention` says.

    Args:
        call (Call): The request.
        seed (torch.Tensor, optional): Names the dropout mask; drawn if :obj:`None`. (default: :obj:`None`)

    Shapes:
        - **output:** :math:`(N, H, C)`

    Raises:
        BackendError: If a rule could not be compiled.
    """
    operands, recipe = _one_pass(call)
    dtype = score_dtype(call.value, *(x for x in operands.values() if x is not None))
    value = call.value
    if dtype == torch.float64:
        value = value.to(dtype)
    given = {name: None if x is None else x.to(dtype) for name, x in operands.items()}
    if seed is None:
        seed = _seed(call)
    rule = _rule(call.gram, recipe)
    heads = value.size(1)
    pair_args = _constants(() if recipe.pair is None else _pair_args(rule), heads, dtype, value.device)
    link_args = _constants(_link_args(rule), heads, dtype, value.device)
    scale = 1.0 if isinstance(rule.weight, Tensor) or recipe.pair is None else float(rule.weight)
    tensors = [given[name] for name in _INPUTS]
    base = None if call.base is None or value.is_cuda else call.base.to(dtype)
    out, _, _ = _edge_attention(
        *(value, *tensors, base, pair_args, link_args, call.edge_index, seed),
        *(recipe.text, scale, call.dropout, call.target, call.num_targets),
    )
    if value.is_cuda and call.base is not None:
        out = out + call.base
    return out.to(call.value.dtype)


def edge_score(term: Term, call: Call) -> Tensor:
    r"""Computes :math:`t = \sum_r w_r \mathrm{pair}(q_{ir}, k_{jr})` of a term, before its scalar weight.

    Shapes:
        - **output:** :math:`(E, H)`
    """
    rule = term.rule
    assert isinstance(rule, ScoreRule)
    weight = rule.weight if isinstance(rule.weight, Tensor) else None
    dtype = score_dtype(term.query, term.key, weight)
    query, key = term.query.to(dtype), term.key.to(dtype)
    recipe = Recipe(rule.pair, IDENTITY, weight is not None)
    args = _constants(_pair_args(rule), query.size(1), dtype, query.device)
    weight = None if weight is None else weight.to(dtype).expand(query.shape[1:])
    score, _ = _edge_score(query, key, weight, args, call.edge_index, recipe.text, call.target)
    return score  # type: ignore[no-any-return]


def edge_attention_with_weights(call: Call) -> tuple[Tensor, Tensor]:
    r"""Computes :func:`edge_attention`, in the same op, and the weights in it, after dropout.

    Shapes:
        - **output:** :math:`(N, H, C)` and :math:`(E, H)`

    Raises:
        BackendError: If a rule could not be compiled.
    """
    seed = _seed(call)
    out = edge_attention(call, seed)
    score = _add(_scores(call.gram, call), call.edge_log_weight)
    alpha = eager.edge_softmax(score, call.row, call.num_targets)
    if seed is not None:
        alpha = alpha * _dropout_mask(seed, *alpha.shape, call.dropout).to(alpha.dtype)
    return out, alpha


def _seed(call: Call) -> Tensor | None:
    return torch.randint(2**62, (1,), device=call.value.device) if call.dropout > 0 else None


@torch.compiler.assume_constant_result
def _missing(device: str) -> str | None:
    return (gpu if device == "cuda" else cpu).available()


class FusedBackend:
    r"""The fused ops on one kind of device, as a backend that :func:`kgat.ops.choose` can choose.

    Args:
        name (str): ``"cpu"`` or ``"gpu"``.
        device (str): The type of the devices it runs on, ``"cpu"`` or ``"cuda"``.
    """

    def __init__(self, name: str, device: str) -> None:
        self.NAME = name
        self._device = device

    def reasons(self, call: Call) -> list[str]:
        r"""Returns why it cannot run :obj:`call`; empty if it can."""
        if call.value.device.type != self._device:
            return [f"tensors are on {call.value.device.type}"]
        missing = _missing(self._device)
        return reasons(call) + ([] if missing is None else [missing])

    def edge_attention(self, call: Call) -> Tensor:
        r"""Computes it, or raises a :class:`BackendError` if a rule could not be compiled."""
        return edge_attention(call)

    def edge_attention_with_weights(self, call: Call) -> tuple[Tensor, Tensor]:
        r"""Computes it and its weights, or raises a :class:`BackendError` as :meth:`edge_attention`."""
        return edge_attention_with_weights(call)


# --- From a call to one pass ------------------------------------------------------------------------------

_INPUTS = ("query", "key", "weight", "query_bias", "key_bias", "edge_bias", "edge_weight")


def _one_pass(call: Call) -> tuple[dict[str, Tensor | None], Recipe]:
    # The operands and the recipe of the pass; where the score is more than one rule it comes as an edge bias.
    gram, heads = call.gram, call.value.size(1)
    operands: dict[str, Tensor | None] = dict.fromkeys(_INPUTS)
    if call.edge_weight is not None:
        operands["edge_weight"] = call.edge_weight.expand(-1, heads)
    weight = None if call.edge_log_weight is None else call.edge_log_weight.expand(-1, heads)
    term = _only_term(gram)
    if term is not None:
        assert isinstance(gram, LazyGram)
        assert isinstance(term.rule, ScoreRule)
        rule = term.rule
        inside = rule.edge_bias_inside and call.edge_bias is not None
        plain = not isinstance(rule.weight, Tensor) and rule.weight == 1.0
        by_bias = rule.pair is ADD and term.query.size(-1) == 1 and plain and gram.key_bias is None
        outer = weight if inside or call.edge_bias is None else _add(call.edge_bias, weight)
        if by_bias and (outer is None or (rule.link is IDENTITY)):
            operands["query_bias"], operands["key_bias"] = term.query[..., 0], term.key[..., 0]
            operands["edge_bias"] = call.edge_bias if inside else outer
            return operands, Recipe(None, rule.link)
        if not (inside and outer is not None):
            operands["query"], operands["key"], operands["key_bias"] = term.query, term.key, gram.key_bias
            if isinstance(rule.weight, Tensor):
                operands["weight"] = rule.weight.expand(term.query.shape[1:])
            operands["edge_bias"] = call.edge_bias if inside else outer
            weighted = operands["weight"] is not None
            return operands, Recipe(rule.pair, rule.link, weighted, inside)
    if isinstance(gram, LazyGram):
        # The query bias cancels in the softmax; the key bias goes by node, as it came.
        bias = gram.key_bias
        if gram.terms or call.edge_bias is not None:
            rest = LazyGram(gram.terms)
            operands["edge_bias"] = _add(_scores(rest, call), weight)
        else:
            operands["edge_bias"] = weight
        if bias is not None:
            operands["key_bias"] = bias
            operands["query_bias"] = bias.new_zeros(call.num_targets, heads)
    else:
        operands["edge_bias"] = _add(_scores(gram, call), weight)
    return operands, Recipe(None, IDENTITY)


def _only_term(gram: Gram) -> Term | None:
    # The term of a kernel that is one compiled rule.
    if not isinstance(gram, LazyGram) or len(gram.terms) != 1:
        return None
    term = gram.terms[0]
    rule = term.rule
    if not isinstance(rule, ScoreRule) or not _has_compiled_pair(term):
        return None
    return term if _is_compiled(rule.link, _link_args(rule)) else None


def _has_compiled_pair(term: Term) -> bool:
    rule = term.rule
    return isinstance(rule, ScoreRule) and _is_compiled(rule.pair, _pair_args(rule))


def _is_compiled(function: Pair | Link, args: tuple[Argument, ...]) -> bool:
    # It has scalars, and takes two constants at most, none of which is learned.
    return (
        function.derivative is not None
        and len(args) <= 2
        and not any(isinstance(arg, Tensor) and arg.requires_grad for arg in args)
    )


def _pair_args(rule: ScoreRule) -> tuple[Argument, ...]:
    return _with_defaults(rule.pair, rule.pair_args, 2)


def _link_args(rule: ScoreRule) -> tuple[Argument, ...]:
    return _with_defaults(rule.link, rule.link_args, 1)


def _with_defaults(function: Pair | Link, args: tuple[Argument, ...], operands: int) -> tuple[Argument, ...]:
    # Compiled code takes all constants: those that were left out are those of the function.
    if function.derivative is None:
        return args
    missing = _arity(function.in_scalars) - operands - len(args)
    if missing <= 0:
        return args
    return (*args, *(function.in_scalars.__defaults__ or ())[-missing:])


def _rule(gram: Gram, recipe: Recipe) -> ScoreRule:
    # Whose constants the pass takes: those of its one rule, if it has one.
    term = _only_term(gram)
    if term is None or (recipe.pair is None and recipe.link is IDENTITY):
        return ScoreRule()
    assert isinstance(term.rule, ScoreRule)
    return term.rule


def _constants(args: tuple[Argument, ...], heads: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # Two rows always, because compiled code takes two.
    if all(isinstance(arg, float | int) for arg in args):
        numbers = [float(arg) for arg in args] + [0.0] * (2 - len(args))  # type: ignore[arg-type]
        return torch.tensor(numbers, dtype=dtype, device=device).unsqueeze(-1).expand(2, heads).contiguous()
    rows = [torch.as_tensor(arg, dtype=dtype, device=device).expand(heads) for arg in args]
    rows += [torch.zeros(heads, dtype=dtype, device=device)] * (2 - len(rows))
    return torch.stack(rows)


def _scores(gram: Gram, call: Call) -> Tensor:
    # One score per edge and head, of any kernel, with the edge bias.
    if isinstance(gram, SumGram):
        parts = torch.stack([_scores(part, _without_bias(call)) for part in gram.parts])
        return _add(parts.logsumexp(dim=0), call.edge_bias)
    if isinstance(gram, ComposedGram):
        scores = (_scores(part, _without_bias(call)) for part in gram.parts)
        return _add(gram.function(*scores), call.edge_bias)
    if not isinstance(gram, LazyGram):
        return gram.at(call.row, call.col, call.edge_bias)
    nodes = []
    if gram.query_bias is not None or gram.key_bias is not None:
        a, b = gram.query_bias, gram.key_bias
        a = b.new_zeros(call.num_targets, b.size(1)) if a is None else a  # type: ignore[union-attr]
        b = a.new_zeros(call.value.size(0), a.size(1)) if b is None else b
        nodes.append(edge_score(Term(a.unsqueeze(-1), b.unsqueeze(-1), ScoreRule(ADD)), call))

    def score(term: Term, inside: tuple[Tensor, ...]) -> Tensor:
        rule = term.rule
        if not _has_compiled_pair(term):
            return _in_pieces(term, inside, call)
        assert isinstance(rule, ScoreRule)
        return rule.finish(edge_score(term, call), *inside)

    return LazyGram(gram.terms).total(score, call.edge_bias, nodes)


def _in_pieces(term: Term, inside: tuple[Tensor, ...], call: Call) -> Tensor:
    # A rule of torch alone: on so few edges at a time that what it gathers is small, once more in backward.
    row, col = call.row, call.col
    per_edge = 2 * term.query.size(-1) * term.query.size(-2) * term.query.element_size()
    size = max(1, CHUNK_BYTES // max(1, per_edge))

    def piece(query: Tensor, key: Tensor, row: Tensor, col: Tensor, *inside: Tensor) -> Tensor:
        score = term.rule(query.index_select(0, row), key.index_select(0, col), *inside)
        return check_scores(score, row.numel(), query.size(1), term.rule)

    if row.numel() <= size:
        return piece(term.query, term.key, row, col, *inside)
    pieces = []
    for start in range(0, row.numel(), size):
        part = slice(start, start + size)
        pieces.append(
            checkpoint(
                *(piece, term.query, term.key, row[part], col[part], *(c[part] for c in inside)),
                use_reentrant=False,
                preserve_rng_state=False,
            )
        )
    return torch.cat(pieces)


def _without_bias(call: Call) -> Call:
    return Call(call.gram, call.value, call.edge_index, call.num_targets, call.target)


def _add(x: Tensor, y: Tensor | None) -> Tensor:
    return x if y is None else x + y


# --- The ops ----------------------------------------------------------------------------------------------


def _backend(x: Tensor) -> ModuleType:
    return gpu if x.is_cuda else cpu


def _contiguous(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()


@torch.library.custom_op("kgat::edge_attention", mutates_args=())
def _edge_attention(
    value: Tensor,
    query: Tensor | None,
    key: Tensor | None,
    weight: Tensor | None,
    query_bias: Tensor | None,
    key_bias: Tensor | None,
    edge_bias: Tensor | None,
    edge_weight: Tensor | None,
    base: Tensor | None,
    pair_args: Tensor,
    link_args: Tensor,
    edge_index: Tensor,
    seed: Tensor | None,
    recipe: str,
    scale: float,
    dropout: float,
    target: int,
    num_targets: int,
) -> tuple[Tensor, Tensor, Tensor]:
    nodes = (query, key, weight, query_bias, key_bias, edge_bias, edge_weight)
    known = check_pass(
        *(value, nodes, base, pair_args, link_args, edge_index, seed),
        *(recipe, dropout, target, num_targets),
    )
    adjacency = Adjacency.of(edge_index, target, num_targets, value.size(0))
    operands = _operands(value, nodes, pair_args, link_args, seed, scale, dropout, base)
    backend = _backend(value)
    if backend is gpu:
        require_trial(known, operands)
    out, lse = backend.attention(known, adjacency, operands)
    return out, lse, adjacency.graph.clone()


@_edge_attention.register_fake
def _(value: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    link_args, edge_index, num_targets = rest[9], rest[10], rest[-1]
    out = value.new_empty(num_targets, value.size(1), value.size(2))
    lse = link_args.new_empty(num_targets, value.size(1))
    return out, lse, edge_index.new_empty(2, dtype=torch.int64)


@torch.library.custom_op("kgat::edge_attention_backward", mutates_args=())
def _edge_attention_backward(
    grad: Tensor,
    out: Tensor,
    lse: Tensor,
    value: Tensor,
    query: Tensor | None,
    key: Tensor | None,
    weight: Tensor | None,
    query_bias: Tensor | None,
    key_bias: Tensor | None,
    edge_bias: Tensor | None,
    edge_weight: Tensor | None,
    base: Tensor | None,
    pair_args: Tensor,
    link_args: Tensor,
    edge_index: Tensor,
    seed: Tensor | None,
    recipe: str,
    scale: float,
    dropout: float,
    target: int,
    num_targets: int,
    graph: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    nodes = (query, key, weight, query_bias, key_bias, edge_bias, edge_weight)
    known = check_pass(
        *(value, nodes, base, pair_args, link_args, edge_index, seed),
        *(recipe, dropout, target, num_targets, (grad, out, lse)),
    )
    adjacency = Adjacency.again(edge_index, target, num_targets, value.size(0), graph)
    operands = _operands(value, nodes, pair_args, link_args, seed, scale, dropout, base)
    results = (out.contiguous(), lse.contiguous(), grad.contiguous())
    found = _backend(value).attention_backward(known, adjacency, operands, *results)
    return _without_gaps([getattr(found, name) for name in ("value", *_INPUTS)], value)


@_edge_attention_backward.register_fake
def _(grad: Tensor, out: Tensor, lse: Tensor, *rest: Any) -> Any:
    return _without_gaps(_like(rest[:8]), rest[0])


def _without_gaps(gradients: list[Tensor | None], like: Tensor) -> Any:
    # Ops return tensors: one that is empty stands for the gradient of an operand that is not there. A list of
    # those that are would have no part in batched gradients, which torch makes up for tuples alone.
    return tuple(like.new_empty(0) if x is None else x for x in gradients)


def _like(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    return [
        None if x is None else torch.empty_like(x, memory_format=torch.contiguous_format) for x in tensors
    ]


def _operands(
    value: Tensor,
    tensors: tuple[Tensor | None, ...],
    pair_args: Tensor,
    link_args: Tensor,
    seed: Tensor | None,
    scale: float,
    dropout: float,
    base: Tensor | None,
) -> Operands:
    given = {name: _contiguous(x) for name, x in zip(_INPUTS, tensors, strict=True)}
    rest = {"scale": scale, "dropout": dropout, "seed": seed, "base": _contiguous(base)}
    value, pair_args, link_args = value.contiguous(), pair_args.contiguous(), link_args.contiguous()
    return Operands(value, pair_args, link_args, **given, **rest)  # type: ignore[arg-type]


def _save_attention(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*output, *inputs[:13])
    ctx.rest = inputs[13:]
    ctx.mark_non_differentiable(*output[1:])


def _attention_gradients(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Any, ...]:
    out, lse, graph, *inputs = ctx.saved_tensors
    base = inputs[8]
    d_base = None if base is None else (grad.sum(dim=0) if base.dim() == 2 else grad)
    rest = (d_base, *(None,) * (4 + len(ctx.rest)))
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (grad, *inputs[:8])):
        target, num_targets = ctx.rest[-2:]
        Adjacency.again(inputs[11], target, num_targets, inputs[0].size(0), graph)
        return (*_through_eager(grad, inputs, ctx.rest), *rest)
    try:
        found = _edge_attention_backward(grad, out, lse, *inputs, *ctx.rest, graph)
    except BackendError as error:
        fall_back("the backward of fused attention", error)
        with torch.enable_grad():
            slow = _through_eager(grad, inputs, ctx.rest, leaves=True)
        return (*(None if x is None else x.detach() for x in slow), *rest)
    return (*(None if x is None else g for x, g in zip(inputs[:8], found, strict=True)), *rest)


_edge_attention.register_autograd(_attention_gradients, setup_context=_save_attention)


@torch.library.custom_op("kgat::edge_score", mutates_args=())
def _edge_score(
    query: Tensor,
    key: Tensor,
    weight: Tensor | None,
    pair_args: Tensor,
    edge_index: Tensor,
    recipe: str,
    target: int,
) -> tuple[Tensor, Tensor]:
    known = check_score(query, key, weight, pair_args, edge_index, recipe, target)
    adjacency = Adjacency.of(edge_index, target, query.size(0), key.size(0))
    operands = _score_operands(query, key, weight, pair_args)
    backend = _backend(query)
    if backend is gpu:
        require_trial(known, operands, scores=True)
    return backend.score(known, adjacency, operands), adjacency.graph.clone()


@_edge_score.register_fake
def _(
    query: Tensor, key: Tensor, weight: Any, pair_args: Any, edge_index: Tensor, *_: Any
) -> tuple[Tensor, Tensor]:
    score = query.new_empty(edge_index.size(1), query.size(1))
    return score, edge_index.new_empty(2, dtype=torch.int64)


@torch.library.custom_op("kgat::edge_score_backward", mutates_args=())
def _edge_score_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    weight: Tensor | None,
    pair_args: Tensor,
    edge_index: Tensor,
    recipe: str,
    target: int,
    graph: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    known = check_score(query, key, weight, pair_args, edge_index, recipe, target, (grad,))
    adjacency = Adjacency.again(edge_index, target, query.size(0), key.size(0), graph)
    operands = _score_operands(query, key, weight, pair_args)
    found = _backend(query).score_backward(known, adjacency, operands, grad.contiguous())
    return _without_gaps(list(found), query)  # type: ignore[no-any-return]


@_edge_score_backward.register_fake
def _(grad: Tensor, query: Tensor, key: Tensor, weight: Tensor | None, *_: Any) -> Any:
    return _without_gaps(_like((query, key, weight)), query)


def _score_operands(query: Tensor, key: Tensor, weight: Tensor | None, pair_args: Tensor) -> Operands:
    value, constants = key.new_empty(*key.shape[:2], 0), pair_args.contiguous()
    return Operands(value, constants, constants, query.contiguous(), key.contiguous(), _contiguous(weight))


def _save_score(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:5], output[1])
    ctx.rest = inputs[5:]
    ctx.mark_non_differentiable(output[1])


def _score_gradients(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Any, ...]:
    query, key, weight, pair_args, edge_index, graph = ctx.saved_tensors  # a checkpoint gives them once
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (grad, query, key, weight)):
        recipe, target = ctx.rest
        Adjacency.again(edge_index, target, query.size(0), key.size(0), graph)
        pair = Recipe.read(recipe).pair
        assert pair is not None
        constants = eager.numbers(pair_args)[: _arity(pair.in_scalars) - 2]
        rule = ScoreRule(pair, weight=1.0 if weight is None else weight, pair_args=constants)
        q, k = query.view_as(query), key.view_as(key)  # as in _apart
        if weight is not None:
            rule.weight = weight = weight.view_as(weight)
        score = LazyGram.of(q, k, rule).at(edge_index[target], edge_index[1 - target])
        found = _grad(score, grad, (q, k, weight))
    else:
        inputs = (query, key, weight, pair_args, edge_index)
        result = _edge_score_backward(grad, *inputs, *ctx.rest, graph)
        found = [None if x is None else g for x, g in zip((query, key, weight), result, strict=True)]
    return (*found, None, None, None, None)


_edge_score.register_autograd(_score_gradients, setup_context=_save_score)


@torch.library.custom_op("kgat::dropout_mask", mutates_args=())
def _dropout_mask(seed: Tensor, edges: int, heads: int, p: float) -> Tensor:
    return _backend(seed).dropout_mask(edges, heads, p, seed)  # type: ignore[no-any-return]


@_dropout_mask.register_fake
def _(seed: Tensor, edges: int, heads: int, p: float) -> Tensor:
    return seed.new_empty(edges, heads, dtype=torch.float64)


# Batched gradients call the backward ops inside of vmap, compiled code all of them.
for _op in (_edge_attention, _edge_attention_backward, _edge_score, _edge_score_backward, _dropout_mask):
    _op.register_vmap(partial(one_by_one, _op))


# --- Where the fused ops end ------------------------------------------------------------------------------


def _through_eager(
    grad: Tensor, inputs: list[Tensor | None], rest: tuple[Any, ...], leaves: bool = False
) -> list[Tensor | None]:
    # The same call once more, in ops that can be differentiated again.
    value, query, key, weight, query_bias, key_bias, edge_bias, edge_weight = (
        x.detach().requires_grad_() if leaves and x is not None else _apart(x) for x in inputs[:8]
    )
    _, pair_args, link_args, edge_index, seed = inputs[8:]
    assert value is not None
    assert edge_index is not None
    assert pair_args is not None
    assert link_args is not None
    name, scale, dropout, target, num_targets = rest
    mask = None
    if dropout > 0:
        assert seed is not None
        mask = _backend(value).dropout_mask(edge_index.size(1), value.size(1), dropout, seed)
    given = (value, query, key, weight, query_bias, key_bias, edge_bias, edge_weight)
    operands = Operands(value, pair_args, link_args, *given[1:], scale)
    call = eager.call_of(Recipe.read(name), operands, edge_index, num_targets, target, mask)
    return _grad(eager.edge_attention(call), grad, given)


def _apart(x: Tensor | None) -> Tensor | None:
    # A key bias may be made of the keys: as views, inputs are no functions of each other.
    return None if x is None else x.view_as(x)


def _grad(output: Tensor, grad: Tensor, inputs: tuple[Tensor | None, ...]) -> list[Tensor | None]:
    wanted = [x for x in inputs if x is not None and x.requires_grad]
    if not output.requires_grad:
        return [None] * len(inputs)
    found = iter(torch.autograd.grad(output, wanted, grad, create_graph=True, allow_unused=True))
    return [next(found) if x is not None and x.requires_grad else None for x in inputs]


def _arity(function: Any) -> int:
    return int(function.__code__.co_argcount)


_said: set[str] = set()


def fall_back(what: str, error: Exception) -> None:
    r"""Says, once, that the eager backend does what a fused one could not."""
    line = f"{what} runs on the eager backend: {error}"
    if line not in _said:
        _said.add(line)
        logger.warning(line)
