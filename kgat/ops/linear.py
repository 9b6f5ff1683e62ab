r"""Attention in linear time: sums over features of keys, which no pair of tokens appears in."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from kgat.ops.precision import score_dtype
from kgat.score.gram import Gram

CHUNK = 128  # tokens whose pairs the causal form looks at one by one


def feature_size(gram: Gram) -> int:
    r"""Returns the number of features of a kernel, without computing them for any token.

    Raises:
        NotImplementedError: If it has no finite feature map, with the reason.
    """
    none = gram.map(lambda x, dim: x.narrow(dim, 0, 0), lambda x, dim: x.narrow(dim, 0, 0))
    return sum(part.query.size(-1) for part in none.feature_parts())


def linear_attention(gram: Gram, value: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    r"""Computes :math:`\mathbf{o}_i = f_i^\top \sum_j g_j \mathbf{v}_j^\top / f_i^\top \sum_j g_j`.

    Features come in parts with logarithmic scales, :math:`f_i = [\exp(a_{pi}) f_{pi}]_p` and :math:`g_j =
    [\exp(b_{pj}) g_{pj}]_p`. No exponential overflows: of each part, the largest scale of the keys is taken
    out (in the causal form the largest so far), and the largest of a query's parts, which cancels in the
    quotient. Sums are kept in single precision at least.

    Args:
        gram (Gram): The kernel of all pairs.
        value (torch.Tensor): What is averaged.
        mask (torch.Tensor, optional): True for the keys that are there.
        causal (bool): Whether a query sees the keys up to its own place only, counted from the end.

    Shapes:
        - **value:** :math:`(*, M, H, C)`, **mask:** :math:`(*, M)`, **output:** :math:`(*, N, H, C)`
    """
    parts = gram.up_to_query().feature_parts()
    wide = score_dtype(value, *(x for part in parts for x in part[:2]))
    lead = torch.broadcast_shapes(value.shape[:-3], *(x.shape[:-3] for part in parts for x in part[:2]))
    tokens = gram.size[:2]

    def by_head(x: Tensor, dim: int) -> Tensor:
        return x.to(wide).expand(*lead, *x.shape[dim:]).transpose(dim, dim + 1)

    # Of each part [..., H, tokens, R].
    f, g = [by_head(part.query, -3) for part in parts], [by_head(part.key, -3) for part in parts]
    v = value.to(wide).transpose(-2, -3)
    # One more value that is always 1: its average is the normaliser.
    v = torch.cat([v, v.new_ones(*v.shape[:-1], 1)], dim=-1)
    if all(part.query_log is None and part.key_log is None for part in parts):
        f, g, a, b = [torch.cat(f, dim=-1)], [torch.cat(g, dim=-1)], None, None
    else:
        logs = [(_log(part.query_log, part.query), _log(part.key_log, part.key)) for part in parts]
        a, b = (torch.stack([by_head(log, -2) for log in side], dim=-1) for side in zip(*logs, strict=True))
    if mask is not None:
        there = mask.unsqueeze(-2).unsqueeze(-1)  # [..., 1, M, 1]
        g = [x * there.to(wide) for x in g]
        b = None if b is None else b.masked_fill(~there, -torch.inf)
    if len(parts) == 1:
        a = None  # it cancels
    out = _causal(f, g, a, b, v, *tokens) if causal else _whole(f, g, a, b, v)
    total = out[..., -1:]
    # A query that sees no key gets 0, and no gradient.
    seen = total != 0
    out = torch.where(seen, out[..., :-1] / torch.where(seen, total, 1.0), 0.0)
    return out.transpose(-2, -3).to(value.dtype)


def _log(log: Tensor | None, features: Tensor) -> Tensor:
    return features.new_zeros(features.shape[:-1]) if log is None else log


def _whole(f: list[Tensor], g: list[Tensor], a: Tensor | None, b: Tensor | None, v: Tensor) -> Tensor:
    sums = _Sums(f, g, b, v)
    sums.add(0, v.size(-2))
    return sums.at(f, a, None if a is None or sums.top is None else (a + sums.top).detach())


def _causal(
    f: list[Tensor], g: list[Tensor], a: Tensor | None, b: Tensor | None, v: Tensor, queries: int, keys: int
) -> Tensor:
    r"""Goes through the tokens in chunks and carries the sums of all earlier ones.

    .. code-block:: text

        S_p = 0, top_p = -inf                         # S_p = sum_j exp(b_pj - top_p) g_pj v_j^T
        for each chunk:
            m_pi = max(top_p, max_{j <= i} b_pj)      # of each query, so that early ones lose no digits
            c_i = max_p (a_pi + m_pi)
            out_i = sum_p exp(a_pi + top_p - c_i) f_pi S_p
                    + sum_{j <= i} sum_p exp(a_pi + b_pj - c_i) <f_pi, g_pj> v_j
            S_p, top_p = sums over the keys of the chunk, too
    """
    # The last query stands at the place of the last key.
    unseeing, before = max(queries - keys, 0), max(keys - queries, 0)
    sums = _Sums(f, g, b, v)
    out = [v.new_zeros(*sums.add(0, before)[0].shape[:-2], unseeing, v.size(-1))]
    for start in range(before, keys, CHUNK):
        size = min(CHUNK, keys - start)
        place = start - before + unseeing
        f_own = [x.narrow(-2, place, size) for x in f]
        a_own = None if a is None else a.narrow(-2, place, size)
        pairs = [x @ y.narrow(-2, start, size).transpose(-1, -2) for x, y in zip(f_own, g, strict=True)]
        scale = None
        if b is not None and sums.top is not None:
            b_own = b.narrow(-2, start, size)
            with torch.no_grad():
                scale = torch.maximum(b_own.cummax(dim=-2).values, sums.top)
                scale = scale if a_own is None else scale + a_own
                top = scale.amax(dim=-1, keepdim=True)
            later = torch.ones(size, size, dtype=torch.bool, device=b.device).triu(1)
            for p in range(len(pairs)):
                exponent = b_own[..., p].unsqueeze(-2)
                exponent = exponent if a_own is None else exponent + a_own[..., p].unsqueeze(-1)
                pairs[p] = pairs[p] * _finite_exp(exponent.masked_fill(later, -torch.inf), top)
        own = functools.reduce(torch.add, pairs).tril()
        out.append(sums.at(f_own, a_own, scale) + own @ v.narrow(-2, start, size))
        sums.add(start, size)
    return torch.cat(out, dim=-2)


class _Sums:
    # S_p = sum_j exp(b_pj - top_p) g_pj v_j^T over the keys so far, of which top_p is the largest scale.

    def __init__(self, f: list[Tensor], g: list[Tensor], b: Tensor | None, v: Tensor) -> None:
        self.g, self.b, self.v = g, b, v
        lead = torch.broadcast_shapes(f[0].shape[:-2], g[0].shape[:-2], v.shape[:-2])
        self.state = [v.new_zeros(*lead, x.size(-1), v.size(-1)) for x in g]
        self.top = None if b is None else b.new_full((*b.shape[:-2], 1, b.size(-1)), -torch.inf)

    def add(self, start: int, size: int) -> list[Tensor]:
        g = [x.narrow(-2, start, size) for x in self.g]
        if self.b is not None and self.top is not None and size > 0:
            b = self.b.narrow(-2, start, size)
            top = torch.maximum(self.top, b.detach().amax(dim=-2, keepdim=True))
            kept, share = _finite_exp(self.top, top), _finite_exp(b, top)
            self.state = [s * kept[..., p : p + 1] for p, s in enumerate(self.state)]
            self.top = top
            g = [x * share[..., p : p + 1] for p, x in enumerate(g)]
        v = self.v.narrow(-2, start, size)
        self.state = [s + x.transpose(-1, -2) @ v for s, x in zip(self.state, g, strict=True)]
        return self.state

    def at(self, f: list[Tensor], a: Tensor | None, scale: Tensor | None) -> Tensor:
        # Of each query, over exp of the largest scale it has among its parts.
        if scale is not None and self.top is not None:
            own = self.top if a is None else a + self.top
            share = _finite_exp(own, scale.amax(dim=-1, keepdim=True))
            f = [x * share[..., p : p + 1] for p, x in enumerate(f)]
        return functools.reduce(torch.add, (x @ s for x, s in zip(f, self.state, strict=True)))


def _finite_exp(b: Tensor, top: Tensor) -> Tensor:
    # exp(b - top); 0 where there is no key at all and both are -inf.
    return (b - torch.where(top == -torch.inf, 0.0, top)).exp()
