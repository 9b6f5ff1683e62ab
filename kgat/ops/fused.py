r"""Fused edge attention: from a call to one pass, which holds nothing of the size of edges times channels.

A call becomes a :class:`~kgat.ops.recipe.Recipe` and its operands. A score that is one compiled rule runs in
one pass. Products and sums of kernels, and rules that are not written in scalars, first become one score per
edge and head, by :func:`edge_score` or by the kernel's own code on some of the edges at a time. The pass
takes these scores as its edge bias.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kgat.capture import differentiates_forward, is_captured, is_exporting
from kgat.ops import passes
from kgat.ops.backend import Passes, named
from kgat.ops.batching import is_watched
from kgat.ops.call import Call, check_scores
from kgat.ops.eager import edge_softmax
from kgat.ops.graph.device import recording
from kgat.ops.operands import Operands
from kgat.ops.precision import score_dtype
from kgat.ops.recipe import Recipe
from kgat.score.gram import ComposedGram, Gram, LazyGram, LogitGram, SumGram, Term
from kgat.score.rules import ADD, DROPOUT, IDENTITY, Argument, Link, Pair, ScoreRule

# A rule that is not compiled scores so many edges at a time that it gathers this many bytes of features. What
# it makes of them on the way may be ten times as large.
CHUNK_BYTES = 1 << 24


def reasons(call: Call) -> list[str]:
    r"""Returns why a call cannot run fused on any device; empty if it can."""
    why = []
    if call.gram.signed:
        why.append("the kernel can be negative")
    if is_exporting():
        why.append("torch.export keeps to torch's own ops")
    elif not torch.compiler.is_compiling():
        if is_captured():
            why.append("inside of vmap, grad or jvp of torch.func, or of torch.jit.trace")
        if differentiates_forward():
            why.append("forward-mode differentiation")
    return why


class FusedBackend(Passes):
    r"""A backend that turns each call into passes. The backend of a device inherits from it."""

    def reasons(self, call: Call) -> list[str]:
        if call.value.device.type != self.device:
            return [f"tensors are on {call.value.device.type}"]
        missing = _absence(self.name)
        return reasons(call) + ([] if missing is None else [missing])

    def remarks(self, call: Call) -> list[str]:
        return [f"but its score runs in ops of torch: {why}" for why in _obstacles(call.gram)]

    def edge_attention(self, call: Call) -> Tensor:
        return self._attend(call, _drawn_seed(call))

    def edge_attention_with_weights(self, call: Call) -> tuple[Tensor, Tensor]:
        seed = _drawn_seed(call)
        if _unmade_logits(call) is None and _compiled_term(call.gram) is None:
            # The same scores for both: a rule that torch computes may draw some of them.
            score = _sum(_scores(call.gram, call), call.edge_log_weight)
            out = self._attend(call, seed, score)
        else:
            out = self._attend(call, seed)
            score = _sum(_scores(call.gram, call), call.edge_log_weight)
        alpha = edge_softmax(score, call.row, call.num_targets)
        if seed is not None:
            alpha = alpha * passes.dropout_mask(seed, *alpha.shape, call.dropout).to(alpha.dtype)
        return out, alpha

    def _attend(self, call: Call, seed: Tensor | None, score: Tensor | None = None) -> Tensor:
        gram = _unmade_logits(call) if self.device == "cpu" and score is None else None
        if score is not None:
            operands, recipe, rule = _pass_of_scores(call, score)
        else:
            operands, recipe, rule = _pass_of(call) if gram is None else _pass_of_logits(call, gram)
        nodes = () if gram is None or gram.nodes is None else gram.nodes
        dtype = score_dtype(call.value, *nodes[:1], *operands.values())
        value, heads, base = call.value, call.value.size(1), call.base
        if dtype == torch.float64:
            value = value.to(dtype)
        if base is not None and base.dtype is not dtype:
            base = base.to(dtype)
        args = () if recipe.pair is None else _pair_args(rule), _link_args(rule)
        of_rule = [arg for part in args for arg in part if isinstance(arg, Tensor)]
        watched = is_watched(call.edge_index, value, base, *nodes, *operands.values(), *of_rule)
        of_pair, of_link = _constants(args, heads, dtype, value.device, watched)
        x = Operands(
            value,
            of_pair,
            of_link,
            # An operand that has the type is left alone: to ask torch for the same type costs a microsecond.
            **{name: t if t.dtype is dtype else t.to(dtype) for name, t in operands.items()},
            seed=seed,
            scale=1.0 if isinstance(rule.weight, Tensor) or recipe.pair is None else float(rule.weight),
            dropout=call.dropout,
        )
        out = passes.attend(call.edge_index, x, recipe, call.target, call.num_targets, base, watched, gram)
        return out if out.dtype is call.value.dtype else out.to(call.value.dtype)


@torch.compiler.assume_constant_result
def _absence(name: str) -> str | None:
    return named(name).available()  # type: ignore[attr-defined, no-any-return]


def _drawn_seed(call: Call) -> Tensor | None:
    return torch.randint(2**62, (1,), device=call.value.device) if call.dropout > 0 else None


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
    watched = is_watched(query, key, weight)
    (args,) = _constants((_pair_args(rule),), query.size(1), dtype, query.device, watched)
    weight = None if weight is None else weight.to(dtype).expand(query.shape[1:])
    return passes.edge_score(call.edge_index, query, key, weight, args, recipe.text, call.target)[0]  # type: ignore[no-any-return]


# --- From a call to one pass ------------------------------------------------------------------------------


def _pass_of(call: Call) -> tuple[dict[str, Tensor], Recipe, ScoreRule]:
    # Returns the operands and the recipe of the pass, and the rule whose constants it takes.
    gram, heads = call.gram, call.value.size(1)
    weight = None if call.edge_log_weight is None else call.edge_log_weight.expand(-1, heads)
    operands: dict[str, Tensor | None] = {}
    term = _compiled_term(gram)
    one = None if term is None else _pass_of_rule(call, term, weight)
    if term is None and not torch.compiler.is_compiling():
        for why in _obstacles(gram):
            passes.fall_back("the score of fused attention", why)
    recipe, rule = _PASS_OF_SCORES
    if one is not None:
        operands, recipe = one
        rule = term.rule  # type: ignore[assignment, union-attr]
    elif isinstance(gram, LazyGram):
        # The query bias cancels in the softmax. The key bias stays one number per node.
        operands["edge_bias"] = weight
        if gram.terms or call.edge_bias is not None:
            operands["edge_bias"] = _sum(_scores(LazyGram(gram.terms), call), weight)
        if gram.key_bias is not None:
            operands["key_bias"] = gram.key_bias
            operands["query_bias"] = gram.key_bias.new_zeros(call.num_targets, heads)
    else:
        operands["edge_bias"] = _sum(_scores(gram, call), weight)
    if call.edge_weight is not None:
        operands["edge_weight"] = call.edge_weight.expand(-1, heads)
    return {name: x for name, x in operands.items() if x is not None}, recipe, rule


_PASS_OF_SCORES = Recipe(None, IDENTITY), ScoreRule()


def _pass_of_scores(call: Call, score: Tensor) -> tuple[dict[str, Tensor], Recipe, ScoreRule]:
    operands = {"edge_bias": score}
    if call.edge_weight is not None:
        operands["edge_weight"] = call.edge_weight.expand(-1, score.size(1))
    return operands, *_PASS_OF_SCORES


def _unmade_logits(call: Call) -> LogitGram | None:
    # Returns the Gram matrix if the pass may make its logits. It makes them in the type of the nodes, so that
    # no other operand may be wider. Logits that are there already are not made again.
    gram = call.gram
    if not isinstance(gram, LogitGram) or gram.nodes is None or "terms" in vars(gram):
        return None
    x, first, second = gram.nodes
    alike = x.dtype is first.dtype is second.dtype and x.device == first.device == second.device
    others = (call.value, call.edge_bias, call.edge_weight)
    return gram if alike and call.edge_log_weight is None and score_dtype(x, *others) is x.dtype else None


def _pass_of_logits(call: Call, gram: LogitGram) -> tuple[dict[str, Tensor], Recipe, ScoreRule]:
    rule, operands = gram.rule, {}
    if call.edge_bias is not None:
        operands["edge_bias"] = call.edge_bias
    if call.edge_weight is not None:
        operands["edge_weight"] = call.edge_weight.expand(-1, call.value.size(1))
    return operands, Recipe(None, rule.link), rule


def _pass_of_rule(
    call: Call, term: Term, weight: Tensor | None
) -> tuple[dict[str, Tensor | None], Recipe] | None:
    # Returns the operands and the recipe of one compiled rule. A pass takes one edge bias: there is none for
    # a bias inside of the link beside a weight outside of it.
    rule, key_bias = term.rule, call.gram.key_bias  # type: ignore[attr-defined]
    assert isinstance(rule, ScoreRule)
    inside = rule.edge_bias_inside and call.edge_bias is not None
    outer = weight if inside or call.edge_bias is None else _sum(call.edge_bias, weight)
    edge_bias = call.edge_bias if inside else outer
    plain = not isinstance(rule.weight, Tensor) and rule.weight == 1.0
    by_bias = rule.pair is ADD and term.query.size(-1) == 1 and plain and key_bias is None
    if by_bias and (outer is None or rule.link is IDENTITY):
        operands = {"query_bias": term.query, "key_bias": term.key, "edge_bias": edge_bias}
        return operands, Recipe(None, rule.link)
    if inside and outer is not None:
        return None
    operands = {"query": term.query, "key": term.key, "key_bias": key_bias, "edge_bias": edge_bias}
    if isinstance(rule.weight, Tensor):
        operands["weight"] = rule.weight.expand(term.query.shape[1:])
    return operands, Recipe(rule.pair, rule.link, "weight" in operands, inside)


def _obstacles(gram: Gram) -> list[str]:
    # Returns why functions of the kernel that should have been compiled were not.
    if isinstance(gram, SumGram | ComposedGram):
        return [why for part in gram.parts for why in _obstacles(part)]
    rules = [term.rule for term in gram.terms] if isinstance(gram, LazyGram) else []
    functions = [f for rule in rules if isinstance(rule, ScoreRule) for f in (rule.pair, rule.link)]
    return [f.reason for f in functions if f.reason and f is not DROPOUT]


def _compiled_term(gram: Gram) -> Term | None:
    # Returns the term of a kernel that is one compiled rule.
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
    # A compiled function is written in scalars. It takes two constants at most, and learns none of them.
    return (
        function.derivative is not None
        and len(args) <= 2
        and not any(isinstance(arg, Tensor) and arg.requires_grad for arg in args)
    )


def _pair_args(rule: ScoreRule) -> tuple[Argument, ...]:
    return _all_constants(rule.pair, rule.pair_args, 2)


def _link_args(rule: ScoreRule) -> tuple[Argument, ...]:
    return _all_constants(rule.link, rule.link_args, 1)


def _all_constants(function: Pair | Link, args: tuple[Argument, ...], operands: int) -> tuple[Argument, ...]:
    # Compiled code takes all constants. Those that the rule leaves out are the defaults of the function.
    if function.derivative is None:
        return args
    missing = function.in_scalars.__code__.co_argcount - operands - len(args)
    if missing <= 0:
        return args
    return (*args, *(function.in_scalars.__defaults__ or ())[-missing:])


def _constants(
    functions: Sequence[tuple[Argument, ...]],
    heads: int,
    dtype: torch.dtype,
    device: torch.device,
    watched: bool,
) -> list[Tensor]:
    # Returns two rows of each function, because compiled code always takes two.
    of_numbers = _constant_rows if watched or recording(device) else _kept_rows
    return [
        (_constant_rows if any(isinstance(arg, Tensor) for arg in args) else of_numbers)(
            args, heads, dtype, device
        )
        for args in functions
    ]


def _constant_rows(
    args: tuple[Argument, ...], heads: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    # The device fills a row with a number: to copy the number there would wait for the device.
    return torch.stack(
        [
            arg.to(device, dtype).expand(heads)
            if isinstance(arg, Tensor)
            else torch.full((heads,), float(arg), dtype=dtype, device=device)
            for arg in (*args, *[0.0] * (2 - len(args)))
        ]
    )


@functools.lru_cache(maxsize=256)
def _kept_rows(args: tuple[Argument, ...], heads: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # later calls may train with these rows
        return _constant_rows(args, heads, dtype, device)


def _scores(gram: Gram, call: Call) -> Tensor:
    # Returns one score per edge and head of any kernel, with the edge bias.
    if isinstance(gram, SumGram):
        parts = torch.stack([_scores(part, _unbiased_call(call)) for part in gram.parts])
        return _sum(parts.logsumexp(dim=0), call.edge_bias)
    if isinstance(gram, ComposedGram):
        scores = (_scores(part, _unbiased_call(call)) for part in gram.parts)
        return _sum(gram.function(*scores), call.edge_bias)
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
            return _scores_in_pieces(term, inside, call)
        assert isinstance(rule, ScoreRule)
        return rule.finish(edge_score(term, call), *inside)

    return LazyGram(gram.terms).total(score, call.edge_bias, nodes)


def _scores_in_pieces(term: Term, inside: tuple[Tensor, ...], call: Call) -> Tensor:
    # A rule that only torch computes runs on few edges at a time, so that what it gathers is small. Backward
    # gathers it again, and draws the same numbers if it draws some.
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
                piece,
                term.query,
                term.key,
                row[part],
                col[part],
                *(c[part] for c in inside),
                use_reentrant=False,
            )
        )
    return torch.cat(pieces)


def _unbiased_call(call: Call) -> Call:
    return Call(call.gram, call.value, call.edge_index, call.num_targets, call.target)


def _sum(x: Tensor, y: Tensor | None) -> Tensor:
    return x if y is None else x + y
