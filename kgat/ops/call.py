r"""One request for edge attention, as the backends see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kgat.brief import Brief
from kgat.names import bare
from kgat.score.gram import ComposedGram, Gram, HeadsGram, LazyGram, SumGram


@dataclass(frozen=True, eq=False, repr=False)
class Call(Brief):
    r"""The arguments of one edge attention, already validated.

    Args:
        gram (Gram): Scores of all pairs, not yet evaluated.
        value (torch.Tensor): What is averaged.
        edge_index (torch.Tensor): The edges.
        num_targets (int): :math:`N`.
        target (int): Which row of :obj:`edge_index` holds the targets: 1 for messages from source to
            target, 0 for the other flow.
        edge_bias (torch.Tensor, optional): Added to the scores, inside the link where the kernel says so.
            (default: :obj:`None`)
        edge_log_weight (torch.Tensor, optional): Added to the scores in any case. (default: :obj:`None`)
        edge_weight (torch.Tensor, optional): Multiplies the normalised weights. (default: :obj:`None`)
        dropout (float): Probability of dropping a normalised weight.
        base (torch.Tensor, optional): What the averages are added to. (default: :obj:`None`)

    Shapes:
        - **value:** :math:`(M, H, C)`, **edge_index:** :math:`(2, E)`
        - **edge_bias:** :math:`(E, H)`
        - **edge_log_weight, edge_weight:** :math:`(E, 1)` or :math:`(E, H)`
        - **base:** :math:`(N, H, C)` or :math:`(H, C)`
    """

    gram: Gram
    value: Tensor
    edge_index: Tensor
    num_targets: int
    target: int = 1
    edge_bias: Tensor | None = None
    edge_log_weight: Tensor | None = None
    edge_weight: Tensor | None = None
    dropout: float = 0.0
    base: Tensor | None = None

    @property
    def row(self) -> Tensor:
        return self.edge_index[self.target].long()  # torch scatters by no other type

    @property
    def col(self) -> Tensor:
        return self.edge_index[1 - self.target].long()

    def by_heads(self) -> list[Call]:
        r"""Returns the calls that this one is made of: one for each kernel that has heads of its own."""
        if not isinstance(self.gram, HeadsGram):
            return [self]
        heads = self.gram.heads
        names, dims = ("value", "edge_bias", "edge_log_weight", "edge_weight", "base"), (1, 1, 1, 1, -2)
        given = {n: (getattr(self, n), dim) for n, dim in zip(names, dims, strict=True)}
        of_parts: dict[str, Any] = {
            # What all heads have in common is one column.
            n: x.split(heads, dim=dim) if x.size(dim) == sum(heads) else [x] * len(heads)
            for n, (x, dim) in given.items()
            if x is not None
        }
        return [
            replace(self, gram=part, **{n: pieces[i] for n, pieces in of_parts.items()})
            for i, part in enumerate(self.gram.parts)
        ]

    def scores(self) -> Tensor:
        r"""Evaluates the kernel on the edges, with the edge bias, by the rules as they stand in torch.

        Shapes:
            - **output:** :math:`(E, H)`
        """
        row, col = self.row, self.col
        pairs = self.gram.map(
            lambda x, dim: x.index_select(dim, row), lambda x, dim: x.index_select(dim, col)
        )
        return _paired(pairs, self.edge_bias, (row.numel(), self.value.size(1)))

    def __str__(self) -> str:
        value, edges = list(self.value.shape), self.edge_index.size(1)
        kind = type(self.gram).__name__
        return (
            f"edge_attention({kind}, value {value} {bare(self.value.dtype)}, {edges} edges, "
            f"{self.num_targets} targets, {self.value.device.type})"
        )


def _paired(gram: Gram, edge_bias: Tensor | None, shape: tuple[int, int]) -> Tensor:
    if isinstance(gram, SumGram):
        score = torch.stack([_paired(part, None, shape) for part in gram.parts]).logsumexp(dim=0)
        return score if edge_bias is None else score + edge_bias
    if isinstance(gram, ComposedGram):
        score = gram.function(*(_paired(part, None, shape) for part in gram.parts))
        return score if edge_bias is None else score + edge_bias
    if isinstance(gram, LazyGram):
        return gram.total(lambda t, c: check_scores(t.rule(t.query, t.key, *c), *shape, t.rule), edge_bias)
    return gram.paired(edge_bias)


def check_scores(score: Tensor, edges: int, heads: int, rule: Callable[..., Tensor]) -> Tensor:
    r"""Checks what a rule that is a plain function made of pairs that stand side by side; returns it.

    Args:
        score (torch.Tensor): Its result.
        edges (int): How many pairs.
        heads (int): :math:`H`.
        rule (Callable): The function, to be named.

    Raises:
        ValueError: If it is not one number per pair and head.
    """
    if score.shape != (edges, heads):
        name = getattr(rule, "__qualname__", repr(rule))
        raise ValueError(
            f"Expected scores of shape [E={edges}, H={heads}] of {name} (got {list(score.shape)}); a rule "
            f"reduces the last dimension of query and key, and keeps all others"
        )
    return score
