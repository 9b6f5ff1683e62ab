r"""The Gram matrix of a kernel, not yet evaluated: scores ``log k`` for whichever pairs are asked
for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor

from kgat.rules import MUL, ScoreRule


class Gram(ABC):
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

        Raises:
            NotImplementedError: If the kernel has no exact finite feature map.
        """

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


class Term(NamedTuple):
    r"""Lifted queries and keys and the rule that combines them."""

    query: Tensor  # [..., N, H, R]
    key: Tensor  # [..., M, H, R]
    rule: ScoreRule | Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
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

    Shapes:
        - **query:** :math:`(*, N, H, R)`, **key:** :math:`(*, M, H, R)`
        - **query_bias:** :math:`(*, N, H)`, **key_bias:** :math:`(*, M, H)`

    Example:
        >>> import torch
        >>> from kgat.gram import LazyGram
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
            query, key = self.terms[0].query[..., 0], self.terms[0].key[..., 0]
        else:
            query, key = self.query_bias, self.key_bias  # type: ignore[assignment]
        return query.size(-2), key.size(-2), query.size(-1)

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
        )

    def paired(self, edge_bias: Tensor | None = None) -> Tensor:
        return self.total(lambda t, c: t.rule(t.query, t.key, *c), edge_bias)

    def dense(self) -> Tensor:
        biases = []
        if self.query_bias is not None:
            biases.append(self.query_bias.unsqueeze(-2))
        if self.key_bias is not None:
            biases.append(self.key_bias.unsqueeze(-3))
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
        inside = None
        if edge_bias is not None:
            takers = [t for t in self.terms if getattr(t.rule, "edge_bias_inside", False)]
            inside = takers[0] if takers else None
        parts = []
        for t in self.terms:
            # A score goes through an exponential: it keeps its digits under autocast too.
            with torch.autocast(t.query.device.type, enabled=False):
                parts.append(score(t, (edge_bias,) if t is inside and edge_bias is not None else ()))
        parts += [b for b in (self.query_bias, self.key_bias, *biases) if b is not None]
        if edge_bias is not None and inside is None:
            parts.append(edge_bias)
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def features(self) -> tuple[Tensor, Tensor]:
        f: Tensor | None = None
        g: Tensor | None = None
        for t in self.terms:
            if not isinstance(t.rule, ScoreRule) or t.rule.pair is not MUL:
                _refuse_features("its score is no function of an inner product")
            if t.rule.link.features is None:
                _refuse_features(f"exp({t.rule.link.name}(<q, k>)) has no finite feature map")
            f_t = t.rule.link.features(t.query * t.rule.weight, *t.rule.link_args)
            g_t = t.rule.link.features(t.key, *t.rule.link_args)
            f = f_t if f is None else _kronecker(f, f_t)
            g = g_t if g is None else _kronecker(g, g_t)
        if f is None or g is None:  # a pure magnitude is its own, single feature
            if self.query_bias is None or self.key_bias is None:
                _refuse_features("it has one bias and no terms")
            f = torch.ones_like(self.query_bias).unsqueeze(-1)
            g = torch.ones_like(self.key_bias).unsqueeze(-1)
        if self.query_bias is not None:
            f = f * self.query_bias.exp().unsqueeze(-1)
        if self.key_bias is not None:
            g = g * self.key_bias.exp().unsqueeze(-1)
        return f, g

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
        )


@dataclass(frozen=True, eq=False)
class SumGram(Gram):
    r"""The Gram matrix of a sum of kernels: :math:`s_{ij} = \log \sum_m \exp(s^{(m)}_{ij})`.

    Args:
        parts (tuple of Gram): The Gram matrices of the summands.
    """

    parts: tuple[Gram, ...]

    @property
    def signed(self) -> bool:
        return any(part.signed for part in self.parts)

    @property
    def size(self) -> tuple[int, int, int]:
        return self.parts[0].size

    @property
    def batch(self) -> torch.Size:
        return torch.broadcast_shapes(*(part.batch for part in self.parts))

    def map(self, query: Callable[[Tensor, int], Tensor], key: Callable[[Tensor, int], Tensor]) -> SumGram:
        return SumGram(tuple(part.map(query, key) for part in self.parts))

    def paired(self, edge_bias: Tensor | None = None) -> Tensor:
        score = torch.stack([part.paired() for part in self.parts]).logsumexp(dim=0)
        return score if edge_bias is None else score + edge_bias

    def dense(self) -> Tensor:
        return torch.stack([part.dense() for part in self.parts]).logsumexp(dim=0)

    def features(self) -> tuple[Tensor, Tensor]:
        sides = zip(*(part.features() for part in self.parts), strict=True)
        f, g = (torch.cat(side, dim=-1) for side in sides)
        return f, g

    def __mul__(self, other: Gram) -> Gram:
        if isinstance(other, SumGram):
            return SumGram(tuple(p * o for p in self.parts for o in other.parts))
        return SumGram(tuple(p * other for p in self.parts))


@dataclass(frozen=True, eq=False)
class ComposedGram(Gram):
    r"""Scores that are a function of several scores of the same pair: :math:`s_{ij} = f(s^{(1)}_{ij}, \dots,
    s^{(n)}_{ij})`.

    For a rule of more than one sum: each part still is one pass over the edges.

    Args:
        parts (tuple of Gram): The Gram matrices of the scores.
        function (Callable): :math:`f`, elementwise on tensors.

    Example:
        >>> import torch
        >>> from kgat.gram import ComposedGram, LazyGram
        >>> x = torch.ones(2, 1, 3)
        >>> gram = ComposedGram((LazyGram.of(x, x), LazyGram.of(x, 2 * x)), torch.minimum)
        >>> gram.at(torch.tensor([0]), torch.tensor([1]))
        tensor([[3.]])
    """

    parts: tuple[Gram, ...]
    function: Callable[..., Tensor]

    @property
    def signed(self) -> bool:
        return any(part.signed for part in self.parts)

    @property
    def size(self) -> tuple[int, int, int]:
        return self.parts[0].size

    @property
    def batch(self) -> torch.Size:
        return torch.broadcast_shapes(*(part.batch for part in self.parts))

    def map(
        self, query: Callable[[Tensor, int], Tensor], key: Callable[[Tensor, int], Tensor]
    ) -> ComposedGram:
        return ComposedGram(tuple(part.map(query, key) for part in self.parts), self.function)

    def paired(self, edge_bias: Tensor | None = None) -> Tensor:
        score = self.function(*(part.paired() for part in self.parts))
        return score if edge_bias is None else score + edge_bias

    def dense(self) -> Tensor:
        return self.function(*(part.dense() for part in self.parts))

    def features(self) -> tuple[Tensor, Tensor]:
        _refuse_features("its score is a function of several sums")

    def __mul__(self, other: Gram) -> Gram:
        if isinstance(other, SumGram):
            return other * self
        count, function = len(self.parts), self.function
        return ComposedGram((*self.parts, other), lambda *scores: function(*scores[:count]) + scores[count])


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
    if a.weight != b.weight:
        if a.pair is not MUL:
            return None
        query, other, a = query * a.weight, other * b.weight, ScoreRule()
    query = torch.cat(_broadcast(query, other), dim=-1)
    key = torch.cat(_broadcast(left.key, right.key), dim=-1)
    return Term(query, key, a)


def _broadcast(x: Tensor, y: Tensor) -> list[Tensor]:
    shape = torch.broadcast_shapes(x.shape[:-1], y.shape[:-1])
    return [x.expand(*shape, x.size(-1)), y.expand(*shape, y.size(-1))]


def _kronecker(f: Tensor, g: Tensor) -> Tensor:
    return (f.unsqueeze(-1) * g.unsqueeze(-2)).flatten(-2)


def _add(x: Tensor | None, y: Tensor | None) -> Tensor | None:
    if x is None or y is None:
        return y if x is None else x
    return x + y


def _refuse_scores() -> NoReturn:
    raise NotImplementedError(
        "Expected a non-negative kernel (got one that can be negative, so log k does not exist); "
        "use its 'features()', its square (Spectral, Polynomial), or positive features "
        "(EluPlusOne, FAVORPlus)"
    )


def _refuse_features(why: str) -> NoReturn:
    raise NotImplementedError(
        f"Expected a kernel with an exact finite feature map (got one without: {why}); use "
        f"Polynomial, Spectral, EluPlusOne or FAVORPlus, or the dense or edge route"
    )
