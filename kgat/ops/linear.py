r"""Attention in linear time: sums over features of keys, which no pair of tokens appears in."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kgat.gram import Gram, LazyGram

CHUNK = 128  # tokens whose pairs the causal form looks at one by one


def feature_size(gram: Gram) -> int:
    r"""Returns the number of features of a kernel, without computing them for any token.

    Raises:
        NotImplementedError: If it has no finite feature map, with the reason.
    """
    none = gram.map(lambda x, dim: x.narrow(dim, 0, 0), lambda x, dim: x.narrow(dim, 0, 0))
    return none.features()[0].size(-1)


def linear_attention(gram: Gram, value: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    r"""Computes :math:`\mathbf{o}_i = f_i^\top \sum_j g_j \mathbf{v}_j^\top / f_i^\top \sum_j g_j`.

    A bias of the queries cancels in the quotient. The largest bias of the keys is taken out of it, in the
    causal form the largest so far, so that no exponential overflows. Sums are kept in single precision at
    least.

    Args:
        gram (Gram): The kernel of all pairs.
        value (torch.Tensor): What is averaged.
        mask (torch.Tensor, optional): True for the keys that are there.
        causal (bool): Whether a query sees the keys up to its own place only, counted from the end.

    Shapes:
        - **value:** :math:`(*, M, H, C)`, **mask:** :math:`(*, M)`, **output:** :math:`(*, N, H, C)`
    """
    bias = None
    if isinstance(gram, LazyGram):
        bias = gram.key_bias
        gram = _without_biases(gram)
    f, g = gram.features()  # [..., N, H, R], [..., M, H, R]
    wide = torch.promote_types(torch.promote_types(f.dtype, g.dtype), value.dtype)
    wide = torch.float32 if wide in (torch.float16, torch.bfloat16) else wide
    f, g, v = (x.to(wide).transpose(-2, -3) for x in (f, g, value))  # [..., H, tokens, R or C]
    # One more value that is always 1: its average is the normaliser.
    v = torch.cat([v, v.new_ones(*v.shape[:-1], 1)], dim=-1)
    if mask is not None:
        g = g * mask.unsqueeze(-2).unsqueeze(-1).to(wide)
    b = None if bias is None else bias.to(wide).transpose(-1, -2)  # [..., H, M]
    if b is not None and mask is not None:
        b = b.masked_fill(~mask.unsqueeze(-2), -torch.inf)
    out = _causal(f, g, b, v) if causal else _whole(f, g, b, v)
    total = out[..., -1:]
    # A query that sees no key gets 0, and no gradient.
    seen = total != 0
    out = torch.where(seen, out[..., :-1] / torch.where(seen, total, 1.0), 0.0)
    return out.transpose(-2, -3).to(value.dtype)


def _without_biases(gram: LazyGram) -> LazyGram:
    if gram.terms:
        return replace(gram, query_bias=None, key_bias=None)
    zero = LazyGram((), gram.query_bias, gram.key_bias)  # a pure magnitude: one feature, which is 1
    return zero.map(lambda x, dim: torch.zeros_like(x), lambda x, dim: torch.zeros_like(x))


def _whole(f: Tensor, g: Tensor, b: Tensor | None, v: Tensor) -> Tensor:
    return f @ _Sums(f, g, b, v).add(0, g.size(-2))


def _causal(f: Tensor, g: Tensor, b: Tensor | None, v: Tensor) -> Tensor:
    r"""Goes through the tokens in chunks and carries the sums of all earlier ones.

    .. code-block:: text

        S = 0, top = -inf                             # S = sum_j exp(b_j - top) g_j v_j^T
        for each chunk:
            m_i = max(top, max_{j <= i} b_j)          # of each query, so that early ones lose no digits
            out_i = exp(top - m_i) f_i S + sum_{j <= i} exp(b_j - m_i) <f_i, g_j> v_j
            S, top = sums over the keys of the chunk, too
    """
    queries, keys = f.size(-2), g.size(-2)
    # The last query stands at the place of the last key.
    unseeing, before = max(queries - keys, 0), max(keys - queries, 0)
    sums = _Sums(f, g, b, v)
    out = [f.new_zeros(*sums.add(0, before).shape[:-2], unseeing, v.size(-1))]
    for start in range(before, keys, CHUNK):
        size = min(CHUNK, keys - start)
        f_own = f.narrow(-2, start - before + unseeing, size)
        earlier = f_own @ sums.state
        own = (f_own @ g.narrow(-2, start, size).transpose(-1, -2)).tril()
        if b is not None and sums.top is not None:
            b_own = b.narrow(-1, start, size)
            m = torch.maximum(b_own.detach().cummax(dim=-1).values, sums.top)
            earlier = earlier * _finite_exp(sums.top, m).unsqueeze(-1)
            later = torch.ones(size, size, dtype=torch.bool, device=b.device).triu(1)
            own = own * _finite_exp(b_own.unsqueeze(-2).masked_fill(later, -torch.inf), m.unsqueeze(-1))
        out.append(earlier + own @ v.narrow(-2, start, size))
        sums.add(start, size)
    return torch.cat(out, dim=-2)


class _Sums:
    # S = sum_j exp(b_j - top) g_j v_j^T over the keys so far, of which top is the largest bias.

    def __init__(self, f: Tensor, g: Tensor, b: Tensor | None, v: Tensor) -> None:
        self.g, self.b, self.v = g, b, v
        lead = torch.broadcast_shapes(f.shape[:-2], g.shape[:-2], v.shape[:-2])
        self.state = v.new_zeros(*lead, g.size(-1), v.size(-1))
        self.top = None if b is None else b.new_full((*b.shape[:-1], 1), -torch.inf)

    def add(self, start: int, size: int) -> Tensor:
        g = self.g.narrow(-2, start, size)
        if self.b is not None and self.top is not None and size > 0:
            b = self.b.narrow(-1, start, size)
            top = torch.maximum(self.top, b.detach().amax(dim=-1, keepdim=True))
            self.state = self.state * _finite_exp(self.top, top).unsqueeze(-1)
            self.top = top
            g = g * _finite_exp(b, top).unsqueeze(-1)
        self.state = self.state + g.transpose(-1, -2) @ self.v.narrow(-2, start, size)
        return self.state


def _finite_exp(b: Tensor, top: Tensor) -> Tensor:
    # exp(b - top); 0 where there is no key at all and both are -inf.
    return (b - torch.where(top == -torch.inf, 0.0, top)).exp()
