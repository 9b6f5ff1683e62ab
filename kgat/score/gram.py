r"""The Gram matrix of a kernel, not yet evaluated: scores ``log k`` for whichever pairs are asked
for."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, NoReturn, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from kgat.brief import Brief
from kgat.capture import is_captured, without_autocast
from kgat.score.rules import IDENTITY, MUL, SQUARED_DIFFERENCE, ScoreRule


class Gram(Brief, ABC):
    r"""Scores :math:`\log k(\mathbf{q}_i, \mathbf{k}_j)` of all pairs, evaluated on demand.

    A kernel lifts queries and keys once, on nodes; what a pair then costs is the combination alone.
    Three ways to ask, one meaning: :meth:`at` for edges, :meth:`dense` for all pairs, and
    :meth:`features` for linear attention.
    """

    @abstractmethod
    def map(self, query: Callable[[Tensor, int], Tensor], key: Callable[[Tensor, int], Tensor]) -> Gram:
        r"""Applies ``query(operand, dim)`` to all query operands and ``key(operand, dim)`` to all
        key operands, where ``dim`` (negative) is the operand's token dimension."""

    @abstractmethod
    def paired(self, edge_bias: Tensor | None = None) -> Tensor:
        r"""Returns the scores of operands that already stand side by side (they broadcast).

        Shapes:
            - **edge_bias:** :math:`(*, H)`
            - **score:** :math:`(*, H)`
        """

    @abstractmethod
    def features(self) -> tuple[Tensor, Tensor]:
        r"""Returns :math:`f, g` with :math:`\langle f_i, g_j \rangle = k(\mathbf{q}_i,
        \mathbf{k}_j)`.

        Shapes:
            - **f:** :math:`(*, N, H, R)`, **g:** :math:`(*, M, H, R)`

        They are infinite where a kernel is larger than numbers of their type; :meth:`feature_parts` are not.

        Raises:
            NotImplementedError: If the kernel has no exact finite feature map.
        """

    def feature_parts(self) -> list[FeaturePart]:
        r"""Returns the features of :meth:`features` in parts, each with its logarithmic scales, so that
        sums and products of kernels of any size are put together without an exponential that overflows.

        .. math::
            k(\mathbf{q}_i, \mathbf{k}_j) = \sum_p \exp(a_{pi} + b_{pj}) \langle f_{pi}, g_{pj} \rangle

        Raises:
            NotImplementedError: If the kernel has no exact finite feature map.
        """
        f, g = self.features()
        return [FeaturePart(f, g)]

    @property
    @abstractmethod
    def signed(self) -> bool:
        r"""Whether the kernel can be negative, so that it has features but no scores."""

    @property
    @abstractmethod
    def size(self) -> tuple[int, int, int]:
        r"""The numbers of queries :math:`N`, keys :math:`M` and heads :math:`H`."""

    @property
    @abstractmethod
    def batch(self) -> torch.Size:
        r"""The leading dimensions, those before the tokens."""

    @abstractmethod
    def __mul__(self, other: Gram) -> Gram:
        r"""The Gram matrix of the product of two kernels: scores add."""

    def up_to_query(self) -> Gram:
        r"""Returns scores that differ by one number per query, which cancels where weights are normalised:
        what a query adds to all of its scores is left out, because the large numbers that it may be take the
        digits of the others with them."""
        return self

    def expanded(self, hidden: Tensor | None = None) -> Gram:
        r"""Returns the same scores in the form in which they are computed for all pairs: sums of squared
        differences become inner products, :math:`w (q - k)^2 = w q^2 - 2 w q k + w k^2` about the mean key,
        where points lie so close that this keeps their digits.

        A sum that is about as large as :math:`|w| q^2 + |w| k^2` loses of them what its own rounding takes.
        Where that is too much (:data:`TAME`), or where nobody can look at the numbers because a transform or
        a compiler runs, differences stay what they are.

        Args:
            hidden (torch.Tensor, optional): True for keys that no query sees: they are no part of the mean,
                and may be anywhere. (default: :obj:`None`)

        Shapes:
            - **hidden:** :math:`(*, M)`
        """
        return self

    def at(self, row: Tensor, col: Tensor, edge_bias: Tensor | None = None) -> Tensor:
        r"""Returns the scores of the pairs ``(row[e], col[e])``.

        Args:
            row (torch.Tensor): Query (target) indices.
            col (torch.Tensor): Key (source) indices.
            edge_bias (torch.Tensor, optional): Added to the scores, or inside the link where the
                rule says so. (default: :obj:`None`)

        Shapes:
            - **row, col:** :math:`(E)`, **edge_bias:** :math:`(E, H)`
            - **score:** :math:`(E, H)`
        """
        return self.map(
            lambda x, dim: x.index_select(dim, row), lambda x, dim: x.index_select(dim, col)
        ).paired(edge_bias)

    def dense(self) -> Tensor:
        r"""Returns the scores of all pairs.

        Shapes:
            - **score:** :math:`(*, N, M, H)`
        """
        return self.map(lambda x, dim: x.unsqueeze(dim), lambda x, dim: x.unsqueeze(dim - 1)).paired()


class FeaturePart(NamedTuple):
    r"""Some of the features of a kernel, and the logarithm of what they are to be multiplied with: 0 if
    :obj:`None`.

    Shapes:
        - **query:** :math:`(*, N, H, R)`, **key:** :math:`(*, M, H, R)`
        - **query_log:** :math:`(*, N, H)`, **key_log:** :math:`(*, M, H)`
    """

    query: Tensor
    key: Tensor
    query_log: Tensor | None = None
    key_log: Tensor | None = None


class Term(NamedTuple):
    r"""Lifted queries and keys and the rule that combines them."""

    query: Tensor  # [..., N, H, R]
    key: Tensor  # [..., M, H, R]
    rule: ScoreRule | Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False, repr=False)
class LazyGram(Gram):
    r"""A sum of score rules on lifted operands, plus one bias per query and one per key.

    .. math::
        s_{ij} = \sum_{\text{terms}} \mathrm{link}\Big( \sum_r w_r \, \mathrm{pair}(q_{ir}, k_{jr})
        \Big) + a_i + b_j

    Almost every kernel is one term; a product of kernels whose terms do not merge has several.

    Args:
        terms (tuple of Term): Lifted queries, keys and rules; may be empty (a pure magnitude).
        query_bias (torch.Tensor, optional): :math:`a`. (default: :obj:`None`)
        key_bias (torch.Tensor, optional): :math:`b`. (default: :obj:`None`)
        settled (bool): Whether :meth:`expanded` has said how to compute all pairs. (default: :obj:`False`)

    Shapes:
        - **query:** :math:`(*, N, H, R)`, **key:** :math:`(*, M, H, R)`
        - **query_bias:** :math:`(*, N, H)`, **key_bias:** :math:`(*, M, H)`

    Example:
        >>> import torch
        >>> from kgat.score.gram import LazyGram
        >>> gram = LazyGram.of(torch.eye(2).view(2, 1, 2), torch.ones(3, 1, 2))
        >>> gram.dense().shape
        torch.Size([2, 3, 1])
        >>> gram.at(torch.tensor([0, 1]), torch.tensor([2, 2]))
        tensor([[1.],
                [1.]])
    """

    terms: tuple[Term, ...] = ()
    query_bias: Tensor | None = None
    key_bias: Tensor | None = None
    settled: bool = False

    @classmethod
    def of(
        cls,
        query: Tensor,
        key: Tensor,
        rule: ScoreRule | Callable[[Tensor, Tensor], Tensor] | None = None,
        query_bias: Tensor | None = None,
        key_bias: Tensor | None = None,
    ) -> LazyGram:
        r"""The Gram matrix of one term. A plain function ``rule(query, key)`` that broadcasts over
        leading dimensions and reduces the last is allowed: it runs on the eager backend."""
        return cls((Term(query, key, ScoreRule() if rule is None else rule),), query_bias, key_bias)

    @property
    def signed(self) -> bool:
        return any(isinstance(t.rule, ScoreRule) and t.rule.link.signed for t in self.terms)

    @property
    def size(self) -> tuple[int, int, int]:
        if self.terms:
            query, key = self.terms[0].query, self.terms[0].key  # there may be no features
            return query.size(-3), key.size(-3), query.size(-2)
        assert self.query_bias is not None
        assert self.key_bias is not None
        return self.query_bias.size(-2), self.key_bias.size(-2), self.query_bias.size(-1)

    @property
    def batch(self) -> torch.Size:
        shapes = [x.shape[:-3] for t in self.terms for x in (t.query, t.key)]
        shapes += [b.shape[:-2] for b in (self.query_bias, self.key_bias) if b is not None]
        return torch.broadcast_shapes(*shapes)

    def map(self, query: Callable[[Tensor, int], Tensor], key: Callable[[Tensor, int], Tensor]) -> LazyGram:
        return LazyGram(
            tuple(Term(query(t.query, -3), key(t.key, -3), t.rule) for t in self.terms),
            None if self.query_bias is None else query(self.query_bias, -2),
            None if self.key_bias is None else key(self.key_bias, -2),
            self.settled,
        )

    def paired(self, edge_bias: Tensor | None = None) -> Tensor:
        return self.total(lambda t, c: t.rule(t.query, t.key, *c), edge_bias)

    def dense(self) -> Tensor:
        if not self.settled:
            return self.expanded().dense()
        sides = ((self.query_bias, -2), (self.key_bias, -3))
        biases = [bias.unsqueeze(dim) for bias, dim in sides if bias is not None]
        return LazyGram(self.terms).total(_dense_score, None, biases)

    def total(
        self,
        score: Callable[[Term, tuple[Tensor, ...]], Tensor],
        edge_bias: Tensor | None = None,
        biases: Sequence[Tensor] = (),
    ) -> Tensor:
        r"""Adds up the terms as ``score(term, edge_bias)`` computes them, and the biases.

        The one place that knows what a score is made of: a backend with its own way to combine the
        pairs of a term brings that as :obj:`score`. Its second argument is ``(edge_bias,)`` for the
        one term that takes the edge bias inside its link, else ``()``.
        """
        if self.signed:
            _refuse_scores()
        extra = () if edge_bias is None else (edge_bias,)
        inside = [t for t in self.terms if extra and getattr(t.rule, "edge_bias_inside", False)][:1]
        parts = []
        for t in self.terms:
            # A score goes through an exponential: it keeps its digits under autocast too.
            with without_autocast(t.query.device):
                parts.append(score(t, extra if inside and t is inside[0] else ()))
        outside = () if inside else extra
        parts += [b for b in (self.query_bias, self.key_bias, *biases, *outside) if b is not None]
        return sum(parts[1:], parts[0])

    def feature_parts(self) -> list[FeaturePart]:
        return self._parts(_parts_of)

    def features(self) -> tuple[Tensor, Tensor]:
        ((f, g, query_log, key_log),) = self._parts(_one_part_of)
        f = f if query_log is None else f * query_log.exp().unsqueeze(-1)
        g = g if key_log is None else g * key_log.exp().unsqueeze(-1)
        return f, g

    def _parts(self, parts_of: Callable[[Term], list[FeaturePart]]) -> list[FeaturePart]:
        a, b = self.query_bias, self.key_bias
        parts: list[FeaturePart] = []
        for t in self.terms:
            of_term = parts_of(t)
            parts = [_times(x, y) for x in parts for y in of_term] if parts else of_term
        if not parts:  # a pure magnitude is its own, single feature
            if a is None or b is None:
                _refuse_features("it has one bias and no terms")
            parts = [FeaturePart(torch.ones_like(a).unsqueeze(-1), torch.ones_like(b).unsqueeze(-1))]
        return [p._replace(query_log=_add(p.query_log, a), key_log=_add(p.key_log, b)) for p in parts]

    def up_to_query(self) -> LazyGram:
        if self.query_bias is None:
            return self
        # A Gram matrix without terms has its size from its biases.
        bias = None if self.terms else torch.zeros_like(self.query_bias)
        return replace(self, query_bias=bias)

    def expanded(self, hidden: Tensor | None = None) -> LazyGram:
        if self.settled:
            return self
        expansion = self.expansion(hidden) if legible() else None
        return replace(self, settled=True) if expansion is None or not expansion.tame else expansion.gram

    def expansion(self, hidden: Tensor | None = None) -> Expansion | None:
        r"""Returns the inner products of :meth:`expanded`, and how large what cancels in them is;
        :obj:`None` if there is no plain sum of squared differences.

        Args:
            hidden (torch.Tensor, optional): As in :meth:`expanded`. (default: :obj:`None`)
        """
        squares = [_expand(t, hidden) for t in self.terms if _is_squared_difference(t)]
        if not squares:
            return None
        gram: Gram = LazyGram()
        for inner, _ in squares:
            gram = gram * inner
        gram = gram * replace(self, terms=tuple(t for t in self.terms if not _is_squared_difference(t)))
        assert isinstance(gram, LazyGram)
        return Expansion(replace(gram, settled=True), sum(size for _, size in squares))  # type: ignore[arg-type]

    def __mul__(self, other: Gram) -> Gram:
        r"""The product of two kernels: scores add. Terms that are plain sums of the same pair merge
        into one, so that they are still one pass over the edges."""
        if not isinstance(other, LazyGram):
            return other * self
        terms = list(self.terms)
        for new in other.terms:
            for i, old in enumerate(terms):
                merged = _merge(old, new)
                if merged is not None:
                    terms[i] = merged
                    break
            else:
                terms.append(new)
        return replace(
            self,
            terms=tuple(terms),
            query_bias=_add(self.query_bias, other.query_bias),
            key_bias=_add(self.key_bias, other.key_bias),
            settled=False,
        )


class LogitGram(LazyGram):
    r"""The Gram matrix of one term, whose operands are inner products of nodes with two vectors.

    They are computed when somebody asks for :attr:`terms`: a fused pass computes them by itself, and their
    gradients with its own.

    Attributes:
        nodes (tuple of torch.Tensor, optional): Nodes and both vectors; :obj:`None` of what was made of it
            by :func:`dataclasses.replace`. (default: :obj:`None`)
        rule (ScoreRule): How the inner products are combined.

    Shapes:
        - **nodes:** :math:`(*, N, H, D)` and twice :math:`(H, D)`
    """

    nodes: tuple[Tensor, Tensor, Tensor] | None = None
    rule: ScoreRule
    _logits: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]

    @classmethod
    def of_nodes(
        cls,
        x: Tensor,
        first: Tensor,
        second: Tensor,
        rule: ScoreRule,
        logits: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
    ) -> LogitGram:
        r"""Returns it for nodes that are both queries and keys.

        Args:
            x (torch.Tensor): The nodes.
            first (torch.Tensor): The vector of queries.
            second (torch.Tensor): That of keys.
            rule (ScoreRule): How both inner products are combined.
            logits (Callable): ``logits(x, first, second)`` computes them.
        """
        gram = cls()
        del vars(gram)["terms"]
        vars(gram).update(nodes=(x, first, second), rule=rule, _logits=logits)
        return gram

    @functools.cached_property
    def terms(self) -> tuple[Term, ...]:  # type: ignore[override]
        assert self.nodes is not None
        # Whoever asks first may do so without gradients, and others afterwards.
        with torch.inference_mode(False), torch.enable_grad():
            query, key = self._logits(*self.nodes)
        return (Term(query, key, self.rule),)

    @property
    def signed(self) -> bool:
        return super().signed if self.nodes is None else self.rule.link.signed

    @property
    def size(self) -> tuple[int, int, int]:
        if self.nodes is None:
            return super().size
        nodes, heads = self.nodes[0].shape[-3:-1]
        return nodes, nodes, heads


class _Parts(Gram):
    # Several Gram matrices of the same nodes, whose scores become one.
    parts: tuple[Gram, ...]

    @abstractmethod
    def _combined(self, scores: list[Tensor]) -> Tensor: ...

    def paired(self, edge_bias: Tensor | None = None) -> Tensor:
        score = self._combined([part.paired() for part in self.parts])
        return score if edge_bias is None else score + edge_bias

    def dense(self) -> Tensor:
        return self._combined([part.dense() for part in self.parts])

    @property
    def signed(self) -> bool:
        return any(part.signed for part in self.parts)

    @property
    def size(self) -> tuple[int, int, int]:
        return self.parts[0].size

    @property
    def batch(self) -> torch.Size:
        return torch.broadcast_shapes(*(part.batch for part in self.parts))

    def map(self, query: Callable[[Tensor, int], Tensor], key: Callable[[Tensor, int], Tensor]) -> Self:
        return replace(self, parts=tuple(part.map(query, key) for part in self.parts))  # type: ignore[type-var]


@dataclass(frozen=True, eq=False, repr=False)
class SumGram(_Parts):
    r"""The Gram matrix of a sum of kernels: :math:`s_{ij} = \log \sum_m \exp(s^{(m)}_{ij})`.

    Args:
        parts (tuple of Gram): The Gram matrices of the summands.
    """

    parts: tuple[Gram, ...]

    def _combined(self, scores: list[Tensor]) -> Tensor:
        return torch.stack(scores).logsumexp(dim=0)

    def up_to_query(self) -> SumGram:
        # The largest of the parts' biases is left out, so that the parts still stand to each other as before.
        parts = [part for part in _flat(self) if isinstance(part, LazyGram)]
        biases = [part.query_bias for part in parts if part.query_bias is not None]
        if not biases or len(parts) < len(_flat(self)):
            return self
        with torch.no_grad():
            # Detached, because forward derivatives do not stop at 'no_grad'.
            top = functools.reduce(torch.maximum, (bias.detach() for bias in biases))
            if len(biases) < len(parts):
                top = top.clamp_min(0.0)
            top = torch.where(top.isfinite(), top, 0.0)
        shifted = [-top if part.query_bias is None else part.query_bias - top for part in parts]
        return SumGram(tuple(replace(p, query_bias=bias) for p, bias in zip(parts, shifted, strict=True)))

    def expanded(self, hidden: Tensor | None = None) -> SumGram:
        return SumGram(tuple(part.expanded(hidden) for part in self.parts))

    def features(self) -> tuple[Tensor, Tensor]:
        sides = zip(*(part.features() for part in self.parts), strict=True)
        f, g = (torch.cat(side, dim=-1) for side in sides)
        return f, g

    def feature_parts(self) -> list[FeaturePart]:
        return [x for part in self.parts for x in part.feature_parts()]

    def __mul__(self, other: Gram) -> Gram:
        if isinstance(other, SumGram):
            return SumGram(tuple(p * o for p in self.parts for o in other.parts))
        return SumGram(tuple(p * other for p in self.parts))


@dataclass(frozen=True, eq=False, repr=False)
class ComposedGram(_Parts):
    r"""Scores that are a function of several scores of the same pair: :math:`s_{ij} = f(s^{(1)}_{ij}, \dots,
    s^{(n)}_{ij})`.

    For a rule of more than one sum: each part still is one pass over the edges.

    Args:
        parts (tuple of Gram): The Gram matrices of the scores.
        function (Callable): :math:`f`, elementwise on tensors.

    Example:
        >>> import torch
        >>> from kgat.score.gram import ComposedGram, LazyGram
        >>> x = torch.ones(2, 1, 3)
        >>> gram = ComposedGram((LazyGram.of(x, x), LazyGram.of(x, 2 * x)), torch.minimum)
        >>> gram.at(torch.tensor([0]), torch.tensor([1]))
        tensor([[3.]])
    """

    parts: tuple[Gram, ...]
    function: Callable[..., Tensor]

    def _combined(self, scores: list[Tensor]) -> Tensor:
        return self.function(*scores)

    def features(self) -> tuple[Tensor, Tensor]:
        _refuse_features("its score is a function of several sums")

    def __mul__(self, other: Gram) -> Gram:
        if isinstance(other, SumGram):
            return other * self
        count, function = len(self.parts), self.function
        return ComposedGram((*self.parts, other), lambda *scores: function(*scores[:count]) + scores[count])


@dataclass(frozen=True, eq=False, repr=False)
class HeadsGram(_Parts):
    r"""The Gram matrix of a kernel that is another one from head to head: those of some heads beside those of
    the next. Attention runs each part by itself.

    Args:
        parts (tuple of Gram): The Gram matrices, each of its own heads.
    """

    parts: tuple[Gram, ...]

    @property
    def heads(self) -> list[int]:
        r"""The number of heads of each part."""
        return [part.size[2] for part in self.parts]

    @property
    def size(self) -> tuple[int, int, int]:
        return (*self.parts[0].size[:2], sum(self.heads))

    def _combined(self, scores: list[Tensor]) -> Tensor:
        return torch.cat(_leading(scores), dim=-1)

    def paired(self, edge_bias: Tensor | None = None) -> Tensor:
        if edge_bias is None:
            return super().paired()
        biases = edge_bias.split(self.heads, dim=-1)
        return self._combined([part.paired(bias) for part, bias in zip(self.parts, biases, strict=True)])

    def up_to_query(self) -> HeadsGram:
        return HeadsGram(tuple(part.up_to_query() for part in self.parts))

    def expanded(self, hidden: Tensor | None = None) -> HeadsGram:
        return HeadsGram(tuple(part.expanded(hidden) for part in self.parts))

    def features(self) -> tuple[Tensor, Tensor]:
        of_parts = [part.features() for part in self.parts]
        widest = max(f.size(-1) for f, _ in of_parts)
        f, g = (
            torch.cat(_leading([F.pad(x, (0, widest - x.size(-1))) for x in side], 3), dim=-2)
            for side in zip(*of_parts, strict=True)
        )
        return f, g

    def __mul__(self, other: Gram) -> Gram:
        if isinstance(other, HeadsGram) and other.heads == self.heads:
            return HeadsGram(tuple(p * o for p, o in zip(self.parts, other.parts, strict=True)))
        if isinstance(other, SumGram):
            return other * self
        return ComposedGram((self, other), torch.add)


def _leading(xs: list[Tensor], own: int = 1) -> list[Tensor]:
    # Parts may differ in dimensions that broadcast.
    lead = torch.broadcast_shapes(*(x.shape[: x.dim() - own] for x in xs))
    return [x.expand(*lead, *x.shape[x.dim() - own :]) for x in xs]


def _dense_score(term: Term, edge_bias: tuple[Tensor, ...]) -> Tensor:
    query, key, rule = term
    if not isinstance(rule, ScoreRule) or rule.pair is not MUL:
        return rule(query.unsqueeze(-3), key.unsqueeze(-4))
    if isinstance(rule.weight, Tensor):
        query = query * rule.weight
    return rule.finish(torch.einsum("...nhr,...mhr->...nmh", query, key))


def _merge(left: Term, right: Term) -> Term | None:
    a, b = left.rule, right.rule
    if not isinstance(a, ScoreRule) or not isinstance(b, ScoreRule):
        return None
    if not a.linear or not b.linear or a.pair is not b.pair:
        return None
    if a.pair_args or b.pair_args or a.edge_bias_inside or b.edge_bias_inside:
        return None
    query, other = left.query, right.query
    if isinstance(a.weight, Tensor) or isinstance(b.weight, Tensor) or a.weight != b.weight:
        if a.pair is MUL:
            query, other, a = query * a.weight, other * b.weight, ScoreRule()
        else:
            a = ScoreRule(a.pair, weight=torch.cat([_weights(left), _weights(right)], dim=-1))
    query = torch.cat(_broadcast(query, other), dim=-1)
    key = torch.cat(_broadcast(left.key, right.key), dim=-1)
    return Term(query, key, a)


def _weights(term: Term) -> Tensor:
    # One weight per head and feature.
    assert isinstance(term.rule, ScoreRule)
    query = term.query
    weight = torch.as_tensor(term.rule.weight, dtype=query.dtype, device=query.device)
    return weight.expand(query.shape[-2:])


@dataclass(frozen=True, eq=False, repr=False)
class Expansion(Brief):
    r"""Squared differences as inner products, and whether they keep their digits.

    Args:
        gram (LazyGram): The inner products, and the biases that belong to them.
        size (torch.Tensor): The largest :math:`\sum_r |w_r| q_r^2 + \sum_r |w_r| k_r^2` of a query and a key
            that somebody sees, about the mean of these keys: what cancels in a score near 0.
    """

    gram: LazyGram
    size: Tensor

    @property
    def limit(self) -> float:
        r"""How large that may be; see :data:`TAME`."""
        return TAME.get(self.size.dtype, 0.0)

    @property
    def tame(self) -> bool:
        r"""Whether scores keep their digits; to ask waits for the device."""
        return self.size.device.type == "meta" or bool(self.size <= self.limit)


# Rounding errors of an expanded square are about half of an epsilon times its size: 1e-5 of a score in single
# precision, 1e-9 in double.
TAME = {torch.float32: 2.0**7, torch.float64: 2.0**22}


def legible() -> bool:
    r"""Whether a decision may depend on numbers of operands: not where a compiler or tracer looks for what
    holds for all numbers, nor inside of transforms of :mod:`torch.func`."""
    return not is_captured()


def _is_squared_difference(term: Term) -> bool:
    rule = term.rule
    return isinstance(rule, ScoreRule) and rule.pair is SQUARED_DIFFERENCE and rule.link is IDENTITY


def _expand(term: Term, hidden: Tensor | None) -> tuple[LazyGram, Tensor]:
    query, key, weight = term.query, term.key, _weights(term)
    same = key is query and hidden is None
    with torch.no_grad():
        # The score does not depend on the centre, so no gradient has to flow through it. It is 0 where the
        # mean does not exist: without keys, and next to a broken feature.
        if hidden is None:
            centre = key.mean(dim=-3, keepdim=True)
        else:
            absent = hidden.unsqueeze(-1).unsqueeze(-1)
            count = (~absent).sum(dim=-3, keepdim=True).clamp_min(1)
            centre = key.masked_fill(absent, 0.0).sum(dim=-3, keepdim=True) / count
        centre = centre.nan_to_num(0.0, 0.0, 0.0)
    q = query - centre
    k = q if same else key - centre
    if hidden is not None:
        k = k.masked_fill(absent, 0.0)
    q_weighted = q * weight
    a = (q_weighted * q).sum(dim=-1)
    b = a if same else (k * weight * k).sum(dim=-1)
    with torch.no_grad():
        largest = [
            (x.square() * weight.abs()).sum(dim=-1).amax() if x.numel() else a.new_zeros(())
            for x in ((q,) if same else (q, k))
        ]
    return LazyGram((Term(-2.0 * q_weighted, k, ScoreRule()),), a, b), largest[0] + largest[-1]


def _flat(gram: Gram) -> list[Gram]:
    # The summands, however deep.
    return [p for part in gram.parts for p in _flat(part)] if isinstance(gram, SumGram) else [gram]


def _broadcast(x: Tensor, y: Tensor) -> list[Tensor]:
    shape = torch.broadcast_shapes(x.shape[:-1], y.shape[:-1])
    return [x.expand(*shape, x.size(-1)), y.expand(*shape, y.size(-1))]


def _featured(term: Term) -> ScoreRule:
    # The rule of a term that has features.
    rule = term.rule
    if not isinstance(rule, ScoreRule) or rule.pair is not MUL:
        _refuse_features("its score is no function of an inner product and has no finite feature map")
    if rule.link.features is None:
        _refuse_features(f"exp({rule.link.name}(<q, k>)) has no finite feature map")
    return rule


def _one_part_of(term: Term) -> list[FeaturePart]:
    rule = _featured(term)
    assert rule.link.features is not None
    f, g = (rule.link.features(x, *rule.link_args) for x in (term.query * rule.weight, term.key))
    return [FeaturePart(f, g)]


def _parts_of(term: Term) -> list[FeaturePart]:
    rule = _featured(term)
    if rule.link.scaled_features is None:
        return _one_part_of(term)
    sides = (rule.link.scaled_features(x, *rule.link_args) for x in (term.query * rule.weight, term.key))
    return [FeaturePart(f, g, a, b) for (f, a), (g, b) in zip(*sides, strict=True)]


def _times(x: FeaturePart, y: FeaturePart) -> FeaturePart:
    return FeaturePart(
        query=_kronecker(x.query, y.query),
        key=_kronecker(x.key, y.key),
        query_log=_add(x.query_log, y.query_log),
        key_log=_add(x.key_log, y.key_log),
    )


def _kronecker(f: Tensor, g: Tensor) -> Tensor:
    return (f.unsqueeze(-1) * g.unsqueeze(-2)).flatten(-2)


def _add(x: Tensor | None, y: Tensor | None) -> Tensor | None:
    if x is None or y is None:
        return y if x is None else x
    return x + y


def _refuse_scores() -> NoReturn:
    raise NotImplementedError(
        "Expected a non-negative kernel (got one that can be negative, so log k does not exist); use its "
        "'features()', its square (Spectral, Polynomial), or positive features (EluPlusOne, FAVORPlus)"
    )


def _refuse_features(why: str) -> NoReturn:
    raise NotImplementedError(
        f"Expected a kernel with an exact finite feature map (got one without: {why}); use "
        f"Polynomial, Spectral, EluPlusOne or FAVORPlus, or the dense or edge route"
    )
