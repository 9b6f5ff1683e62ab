r"""Attention over all pairs: routes of one meaning, and the choice between them.

A route is a function of a :class:`DenseCall`. It says in words what it cannot do, and what it would cost: an
estimate in nanoseconds on one core, there to be compared with the others.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kgat import ops
from kgat.brief import Brief
from kgat.capture import differentiates_forward, has_modes, is_exporting, is_transformed
from kgat.names import one_of
from kgat.ops.call import Call
from kgat.ops.linear import feature_size, linear_attention
from kgat.ops.precision import score_dtype
from kgat.score.gram import ComposedGram, Expansion, Gram, HeadsGram, LazyGram, SumGram, legible
from kgat.score.rules import IDENTITY, MUL, SQUARED_DIFFERENCE, ScoreRule

# Numbers of a block of scores; a larger matrix is computed block by block, and again in the backward pass.
BLOCK = 2**24


@dataclass(frozen=True, eq=False, repr=False)
class DenseCall(Brief):
    r"""The arguments of one attention over all pairs, already validated.

    Args:
        gram (Gram): Scores of all pairs, not yet evaluated.
        value (torch.Tensor): What is averaged.
        mask (torch.Tensor, optional): True where a query sees a key. (default: :obj:`None`)
        bias (torch.Tensor, optional): Added to the scores. (default: :obj:`None`)
        causal (bool): Whether a query sees the keys up to its own place only, counted from the end.
        dropout (float): Probability of dropping a normalised weight.

    Shapes:
        - **value:** :math:`(*, M, H, C)`, **mask:** :math:`(*, N, M)` or :math:`(*, 1, M)`
        - **bias:** :math:`(*, N, M, H)`, where :math:`N` and :math:`H` may be 1
    """

    gram: Gram
    value: Tensor
    mask: Tensor | None = None
    bias: Tensor | None = None
    causal: bool = False
    dropout: float = 0.0
    memory: dict[str, Any] = field(default_factory=dict, init=False, repr=False)  # of what is asked twice

    def by_heads(self) -> list[DenseCall]:
        r"""Returns the calls that this one is made of: one for each kernel that has heads of its own."""
        if not isinstance(self.gram, HeadsGram):
            return [self]
        heads = self.gram.heads
        values, biases = self.value.split(heads, dim=-2), [self.bias] * len(heads)
        if self.bias is not None and self.bias.size(-1) > 1:
            biases = list(self.bias.split(heads, dim=-1))
        parts = zip(self.gram.parts, values, biases, strict=True)
        return [replace(self, gram=gram, value=value, bias=bias) for gram, value, bias in parts]

    @property
    def hidden(self) -> Tensor | None:
        r"""True for keys that no query sees; :obj:`None` where neither mask nor bias can hide one.

        Shapes:
            - **output:** :math:`(*, M)`
        """
        return self._once("hidden", lambda: _hidden(self.mask, self.bias))

    @property
    def cleared(self) -> DenseCall:
        r"""The same without what nobody sees: the operands and values of such keys are 0, whatever they were
        (NaN times a weight of 0 is NaN)."""
        return self._once("cleared", self._clear)

    def _clear(self) -> DenseCall:
        if self.hidden is None:
            return self
        gram = _cleared(self.gram, self.hidden)
        return replace(self, gram=gram, value=_masked(self.value, -3, self.hidden))

    @property
    def expansion(self) -> Expansion | None:
        r"""Its squared differences as inner products; :obj:`None` if it has none."""
        return self._once("expansion", self._expand)

    def _expand(self) -> Expansion | None:
        gram = self.cleared.gram
        return gram.expansion(self.hidden) if isinstance(gram, LazyGram) else None

    @property
    def expands(self) -> bool:
        r"""Whether that keeps its digits; the first to ask waits for the device."""
        return self._once("expands", lambda: self.expansion is not None and self.expansion.tame)

    def _once(self, name: str, compute: Callable[[], Any]) -> Any:
        if name not in self.memory:
            self.memory[name] = compute()
        return self.memory[name]

    @property
    def pairs(self) -> int:
        r"""Number of scores, for the estimates."""
        queries, keys, heads = self.gram.size
        share = 2 if self.causal else 1
        return math.prod(self.value.shape[:-3]) * queries * keys * heads // share


def _visible(gram: Gram, mask: Tensor | None, causal: bool, device: torch.device) -> Tensor | None:
    # The mask and the causal order in one, [..., N or 1, M].
    queries, keys, _ = gram.size
    if not causal:
        return mask
    order = torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
    return order if mask is None else order & mask


def _hidden(mask: Tensor | None, bias: Tensor | None) -> Tensor | None:
    hidden = None
    if mask is not None:
        hidden = ~(mask.squeeze(-2) if mask.size(-2) == 1 else mask.any(dim=-2))
    if bias is not None:  # of numbers, -inf hides
        by_bias = (bias.detach() == -torch.inf).all(dim=-1).all(dim=-2)
        hidden = by_bias if hidden is None else hidden | by_bias
    return hidden


def _cleared(gram: Gram, hidden: Tensor) -> Gram:
    return gram.map(lambda x, dim: x, lambda x, dim: _masked(x, dim, hidden))


def _masked(x: Tensor, dim: int, hidden: Tensor) -> Tensor:
    # An operand that the items of a batch share is nobody's own.
    if torch.broadcast_shapes(x.shape[:dim], hidden.shape[:-1]) != x.shape[:dim]:
        return x
    return x.masked_fill(hidden.view(*hidden.shape, *[1] * (-1 - dim)), 0.0)


class Route(NamedTuple):
    r"""One way to compute a :class:`DenseCall`."""

    name: str
    reasons: Callable[[DenseCall], list[str]]
    cost: Callable[[DenseCall], float]
    attend: Callable[[DenseCall], Tensor]


def softmax(gram: Gram, mask: Tensor | None, bias: Tensor | None, causal: bool) -> Tensor:
    r"""Returns the normalised weights; those of a query that sees no key are 0, and so is their gradient.

    Args:
        gram (Gram): As of :class:`DenseCall`, as the others are.
        mask (torch.Tensor, optional): Which pairs see each other.
        bias (torch.Tensor, optional): Added to the scores.
        causal (bool): Whether a query sees the keys up to its own place only.

    Shapes:
        - **output:** :math:`(*, H, N, M)`, heads first as a product with values wants them
    """
    hidden = _hidden(mask, bias)
    gram = gram if hidden is None else _cleared(gram, hidden)
    return _softmax(gram.expanded(hidden), mask, bias, causal)


def _softmax(gram: Gram, mask: Tensor | None, bias: Tensor | None, causal: bool) -> Tensor:
    score = gram.up_to_query().dense().movedim(-1, -3)  # [..., H, N, M]
    score = score.to(score_dtype(score, bias))
    if bias is not None:
        score = score + bias.movedim(-1, -3)
    visible = _visible(gram, mask, causal, score.device)
    if visible is not None:
        score = score.masked_fill(~visible.unsqueeze(-3), -torch.inf)
    if (visible is None and bias is None) or score.size(-1) == 0:
        return score.softmax(dim=-1)
    # Rows of nothing are made finite first: no gradient is NaN. A bias may hide keys, too.
    unseen = score.detach().amax(dim=-1, keepdim=True) == -torch.inf
    return score.masked_fill(unseen, 0.0).softmax(dim=-1).masked_fill(unseen, 0.0)


def _sdpa_reasons(call: DenseCall) -> list[str]:
    gram = call.gram
    rules = [term.rule for term in gram.terms] if isinstance(gram, LazyGram) else [None]
    if not all(
        isinstance(r, ScoreRule) and r.pair in (MUL, SQUARED_DIFFERENCE) and r.link is IDENTITY for r in rules
    ):
        return ["the score is not an inner product plus biases of nodes"]
    if all(isinstance(r, ScoreRule) and r.pair is MUL for r in rules):
        return []
    if not legible():
        return ["a compiler or transform hides whether its squared differences may be expanded"]
    expansion = call.expansion
    if expansion is None or call.expands:
        return []
    size = float(expansion.size)
    return [
        f"its squared differences would be expanded, and lose digits: of {size:.2g} that cancel, at most "
        f"{expansion.limit:.2g} may"
    ]


def _sdpa_cost(call: DenseCall) -> float:
    return call.pairs * (1.5 + 0.03 * (_width(call.gram) + call.value.size(-1)))


def _sdpa(call: DenseCall) -> Tensor:
    r"""Runs torch's fused attention: :math:`[w \mathbf{q}, 1] \cdot [\mathbf{k}, b] = w \langle \mathbf{q},
    \mathbf{k} \rangle + b`. The bias of a query cancels."""
    expansion, call = call.expansion, call.cleared
    return _fused(call if expansion is None else replace(call, gram=expansion.gram))


def _fused(call: DenseCall) -> Tensor:
    gram: LazyGram = call.gram  # type: ignore[assignment]
    value = call.value
    lead = value.shape[:-3]
    queries, keys, heads = gram.size
    operands: list[tuple[Tensor, Tensor]] = []
    for query, key, rule in gram.terms:
        operands.append((query if _is_one(rule) else query * rule.weight, key))  # type: ignore[union-attr]
    key_bias = gram.key_bias
    extra = None
    if key_bias is not None:
        all_seen = call.mask is None and call.bias is None and not call.causal
        if operands and all_seen and not _records(key_bias):
            # Without a gradient it goes where a mask would, one number for all queries. Its last stride is 1:
            # a kernel that wants it so would copy the numbers of all pairs.
            extra = key_bias.transpose(-1, -2).contiguous().unsqueeze(-2)  # [..., H, 1, M]
        else:
            column = key_bias.unsqueeze(-1)
            operands.append((column.new_ones(1).expand(queries, heads, 1), column))
    if not operands:  # every key counts the same
        operands.append((value.new_zeros(queries, heads, 1), value.new_zeros(keys, heads, 1)))
    wide = score_dtype(value, *(x for pair in operands for x in pair))
    if len(operands) == 1 and key_bias is None:
        wide = value.dtype  # products of what is stored in half precision are summed in single, as everywhere
    width = max(sum(q.size(-1) for q, _ in operands), value.size(-1))
    q = _joined([q for q, _ in operands], lead, width, wide)
    k = _joined([k for _, k in operands], lead, width, wide)
    v = _joined([value], lead, width, wide)

    bias = call.bias
    # The kernel knows this order by itself; a mask of it would be as large as all scores.
    causal = False
    if call.causal and call.mask is None and bias is None and queries == keys:
        causal = True  # a branch: the comparison itself is no bool where sizes are symbols
    visible = None if causal else _visible(gram, call.mask, call.causal, value.device)
    attn_mask: Tensor | None = None
    if bias is not None:
        attn_mask = bias.movedim(-1, -3).to(wide)
        if visible is not None:
            attn_mask = attn_mask.masked_fill(~visible.unsqueeze(-3), -torch.inf)
    elif visible is not None:
        attn_mask = visible.unsqueeze(-3)
    elif extra is not None:
        attn_mask = extra.to(wide)
    if attn_mask is not None:
        # What is the same for all heads or queries stays one: fused attention makes numbers of a bool mask.
        shared = attn_mask.shape[-3:]
        if attn_mask.dim() == 3:
            attn_mask = attn_mask.unsqueeze(0)
        else:
            attn_mask = attn_mask.expand(*lead, *shared).reshape(math.prod(lead), *shared)
    q, k, v = (x.transpose(-2, -3) for x in (q, k, v))
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=attn_mask, dropout_p=call.dropout, is_causal=causal, scale=1.0
    )
    out = out.transpose(-2, -3)[..., : value.size(-1)]
    return out.reshape(*lead, queries, heads, value.size(-1)).to(value.dtype)


def _is_one(rule: object) -> bool:
    return isinstance(rule, ScoreRule) and isinstance(rule.weight, float | int) and rule.weight == 1


def _records(x: Tensor) -> bool:
    # Inside of vmap, a tensor does not tell.
    return torch.is_grad_enabled() and (x.requires_grad or is_transformed())


def _joined(parts: list[Tensor], lead: torch.Size, width: int, dtype: torch.dtype) -> Tensor:
    # [B, tokens, H, width], filled up with zeros: fused kernels want one width for all three.
    parts = [x.to(dtype).expand(*lead, *x.shape[-3:]) for x in parts]
    missing = width - sum(x.size(-1) for x in parts)
    if missing > 0:
        parts.append(parts[0].new_zeros(1).expand(*parts[0].shape[:-1], missing))
    x = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
    return x.reshape(math.prod(lead), *x.shape[-3:])


def _dense_reasons(call: DenseCall) -> list[str]:
    return ["the kernel can be negative: it has no scores"] if call.gram.signed else []


def _dense_cost(call: DenseCall) -> float:
    expands = not _sdpa_reasons(call)
    combine = 0.03 * _width(call.gram) if expands or _by_matmul(call.gram) else 5.0 * _width(call.gram)
    return call.pairs * (6.0 + combine + 0.03 * call.value.size(-1))


def _by_matmul(gram: Gram) -> bool:
    return isinstance(gram, LazyGram) and all(
        isinstance(term.rule, ScoreRule) and term.rule.pair is MUL for term in gram.terms
    )


def _dense(call: DenseCall) -> Tensor:
    cleared = call.cleared
    if call.expansion is None:  # of a sum of kernels, each part says
        gram = cleared.gram.expanded(call.hidden)
    elif legible() and call.expands:
        gram = call.expansion.gram
    else:
        gram = replace(cleared.gram, settled=True)  # type: ignore[type-var]
    call = replace(cleared, gram=gram)
    if is_exporting():  # blocks would hold a program to lengths that fit in one
        return _weighted(call)
    queries = call.gram.size[0]
    per_query = max(1, call.pairs // max(1, queries)) * (1 if _by_matmul(call.gram) else _width(call.gram))
    size = max(1, min(queries, BLOCK // per_query))
    if size >= queries:
        return _weighted(call)
    out = []
    for start in range(0, queries, size):
        block = _narrowed(call, start, min(size, queries - start))
        if torch.is_grad_enabled() and not is_transformed():  # whose gradients know no checkpoints
            out.append(checkpoint(_weighted, block, use_reentrant=False))
        else:
            out.append(_weighted(block))
    return torch.cat(out, dim=-3)


def _weighted(call: DenseCall) -> Tensor:
    alpha = _softmax(call.gram, call.mask, call.bias, call.causal)
    alpha = F.dropout(alpha, call.dropout).to(call.value.dtype)
    return (alpha @ call.value.movedim(-2, -3)).movedim(-3, -2)


def _narrowed(call: DenseCall, start: int, size: int) -> DenseCall:
    r"""The same for some of the queries; keys that none of them sees are left out."""
    queries, keys, _ = call.gram.size
    seen = min(keys, max(0, start + size + keys - queries)) if call.causal else keys

    def some(x: Tensor, dim: int) -> Tensor:
        return x if x.size(dim) == 1 else x.narrow(dim, start, size)

    mask = None if call.mask is None else some(call.mask[..., :seen], -2)
    bias = None if call.bias is None else some(call.bias[..., :seen, :], -3)
    gram = call.gram.map(some, lambda x, dim: x.narrow(dim, 0, seen))
    return replace(call, gram=gram, value=call.value.narrow(-3, 0, seen), mask=mask, bias=bias)


def _edges_reasons(call: DenseCall) -> list[str]:
    if torch.compiler.is_compiling():
        return ["the graph of all pairs is not traced"]
    if call.gram.signed:
        return ["the kernel can be negative: it has no scores"]
    small = _first_pair(call)
    if ops.choose(small).device is not None:
        return []
    return [f"no fused backend of edge attention ({ops.explain(small, fused=True)})"]


def _edges_cost(call: DenseCall) -> float:
    return call.pairs * (2.0 + 0.25 * _width(call.gram) + 0.15 * call.value.size(-1))


def _edges(call: DenseCall) -> Tensor:
    call = call.cleared
    out = ops.edge_attention(_edge_call(call))
    return out.view(*call.value.shape[:-3], call.gram.size[0], *out.shape[1:])


def _first_pair(call: DenseCall) -> Call:
    # One pair says as well as all of them which backend can run a call.
    queries, keys, _ = call.gram.size
    gram, value = _flat(call)

    def first(x: Tensor, dim: int) -> Tensor:
        return x.narrow(dim, 0, min(1, x.size(dim)))

    gram = gram.map(first, first)
    edge = torch.zeros(2, min(1, queries, keys), dtype=torch.long, device=value.device)
    return Call(gram, value[:1], edge, min(1, queries), dropout=call.dropout)


def _flat(call: DenseCall) -> tuple[Gram, Tensor]:
    r"""The sequences of a batch one behind the other, as the nodes of one graph."""
    lead = call.value.shape[:-3]

    def flat(x: Tensor, dim: int) -> Tensor:
        return x.expand(*lead, *x.shape[dim:]).flatten(0, dim)

    return call.gram.map(flat, flat), call.value.flatten(0, -3)


def _edge_call(call: DenseCall) -> Call:
    queries, keys, heads = call.gram.size
    lead = call.value.shape[:-3]
    gram, value = _flat(call)
    # What a mode makes of tensors, such as fakes, is no pair for those who come later.
    listed = _all_pairs.__wrapped__ if has_modes() else _all_pairs
    edge_index = listed(math.prod(lead), queries, keys, call.causal, str(call.value.device))
    rows, row, col = math.prod(lead) * queries, edge_index[1], edge_index[0] % max(keys, 1)
    log_weight: Tensor | None = None
    if call.bias is not None:
        log_weight = call.bias.expand(*lead, queries, keys, heads).reshape(rows, keys, heads)[row, col]
    if call.mask is not None:
        seen = call.mask.expand(*lead, queries, keys).reshape(rows, keys)[row, col].unsqueeze(-1)
        if log_weight is None:
            log_weight = torch.zeros_like(seen, dtype=score_dtype(call.value))
        log_weight = log_weight.masked_fill(~seen, -torch.inf)
    gram = gram.up_to_query()
    return Call(gram, value, edge_index, rows, edge_log_weight=log_weight, dropout=call.dropout)


@functools.lru_cache(maxsize=4)  # so that it is sorted once, as any graph
@torch.inference_mode(False)  # the pairs of a call without gradients serve later ones with them
def _all_pairs(graphs: int, queries: int, keys: int, causal: bool, device: str) -> Tensor:
    row = torch.arange(queries, device=device).view(-1, 1).expand(queries, keys)
    col = torch.arange(keys, device=device).expand(queries, keys)
    if causal:
        seen = col <= row + (keys - queries)
        row, col = row[seen], col[seen]
    graph = torch.arange(graphs, device=device).view(-1, 1)
    row = (row.reshape(1, -1) + graph * queries).flatten()
    col = (col.reshape(1, -1) + graph * keys).flatten()
    return torch.stack([col, row])


def _linear_reasons(call: DenseCall) -> list[str]:
    found = []
    if call.dropout > 0.0:
        found.append("it has no weights to drop")
    if call.bias is not None and call.bias.size(-3) != 1 and call.gram.size[0] != 1:
        found.append("the scores have a bias per pair")
    if call.mask is not None and call.mask.size(-2) != 1 and call.gram.size[0] != 1:
        found.append("the mask differs between queries")
    if call.gram.signed:
        found.append("the kernel can be negative, and with it the normaliser")
    try:
        feature_size(call.gram)
    except NotImplementedError as error:
        found.append(str(error))
    return found


def _linear_cost(call: DenseCall) -> float:
    queries, keys, heads = call.gram.size
    tokens = math.prod(call.value.shape[:-3]) * heads * (queries + keys)
    features = feature_size(call.gram)
    own = 64.0 * (features + call.value.size(-1)) if call.causal else 0.0
    return tokens * (6.0 * features + 0.1 * (features * call.value.size(-1) + own))


def _linear(call: DenseCall) -> Tensor:
    call = call.cleared
    mask = None if call.mask is None else call.mask.squeeze(-2)
    gram = call.gram
    if call.bias is not None:  # of keys alone
        _, keys, heads = gram.size
        key_bias = call.bias.squeeze(-3).expand(*call.bias.shape[:-3], keys, heads)
        query_bias = key_bias.new_zeros(gram.size[0], heads)
        gram = gram * LazyGram((), query_bias, key_bias)
    return linear_attention(gram, call.value, mask, call.causal)


ROUTES = (
    Route("sdpa", _sdpa_reasons, _sdpa_cost, _sdpa),
    Route("linear", _linear_reasons, _linear_cost, _linear),
    Route("edges", _edges_reasons, _edges_cost, _edges),
    Route("dense", _dense_reasons, _dense_cost, _dense),
)

METHODS = ("auto", *(route.name for route in ROUTES))


def choose(call: DenseCall, method: str = "auto") -> Route:
    r"""Returns the cheapest route that can run a call, or the named one.

    Raises:
        ValueError: If no route has that name.
        NotImplementedError: If the named route cannot run the call, or none can, with the reasons.
    """
    if one_of("method", method, METHODS) == "auto":
        able = [route for route in ROUTES if not route.reasons(call)]
        if is_transformed() or (not torch.compiler.is_compiling() and differentiates_forward()):
            # Torch has few derivatives of its fused attention there.
            able = [route for route in able if route.name != "sdpa"] or able
        if able:
            costs = [route.cost(call) for route in able]
            return able[costs.index(min(costs))]
        raise NotImplementedError(
            f"Expected a kernel that attention can normalise (got none). {explain(call)}"
        )
    (route,) = (route for route in ROUTES if route.name == method)
    if why := route.reasons(call):
        raise NotImplementedError(f"method={method!r} cannot run this: {', '.join(why)}. {explain(call)}")
    return route


def explain(call: DenseCall) -> str:
    r"""Says of each route what it would cost, or why it cannot run a call."""
    lines = []
    for route in ROUTES:
        why = route.reasons(call)
        lines.append(f"{route.name}: {', '.join(why) if why else f'about {route.cost(call) / 1e6:.2g} ms'}")
    return "; ".join(lines)


def _width(gram: Gram) -> int:
    # Numbers of a query that a score is made of.
    if isinstance(gram, LazyGram):
        return max(1, sum(term.query.size(-1) for term in gram.terms))
    return sum(_width(part) for part in gram.parts) if isinstance(gram, (SumGram, ComposedGram)) else 1
