r"""Rivals on a batch of small graphs of one size: attention of all pairs of a graph, under a mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from kgat.score.gram import Gram, LazyGram
from kgat.score.rules import MUL, ScoreRule


def sdpa(edge_index: Tensor, nodes: int, graphs: int) -> Callable[[Gram, Tensor], Tensor]:
    r"""Returns attention by :func:`torch.nn.functional.scaled_dot_product_attention` with a boolean mask."""
    mask = _mask(edge_index, nodes, graphs).unsqueeze(1)
    return _batched(lambda q, k, v: scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0), graphs)


def flex(edge_index: Tensor, nodes: int, graphs: int) -> Callable[[Gram, Tensor], Tensor]:
    r"""Returns attention by torch's compiled flex attention. On the CPU it has no backward and refuses
    tensors that ask for one."""
    mask = _mask(edge_index, nodes, graphs)
    size = nodes // graphs
    blocks = create_block_mask(
        lambda graph, head, query, key: mask[graph, query, key], graphs, None, size, size, str(mask.device)
    )
    compiled: Callable[..., Any] = torch.compile(flex_attention, dynamic=False)

    def attention(*operands: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            operands = tuple(x.detach() for x in operands)
        out = compiled(*operands, block_mask=blocks, scale=1.0)
        assert isinstance(out, Tensor)
        return out

    return _batched(attention, graphs)


def _mask(edge_index: Tensor, nodes: int, graphs: int) -> Tensor:
    source, target = edge_index
    size = nodes // graphs
    mask = torch.zeros(graphs, size, size, dtype=torch.bool, device=edge_index.device)
    mask[target // size, target % size, source % size] = True
    return mask


def _batched(attention: Callable[..., Tensor], graphs: int) -> Callable[[Gram, Tensor], Tensor]:
    def attend(gram: Gram, value: Tensor) -> Tensor:
        operands = (*_inner_products(gram), value)
        out = attention(*(x.unflatten(0, (graphs, -1)).transpose(1, 2) for x in operands))
        return out.transpose(1, 2).flatten(0, 1)

    return attend


def _inner_products(gram: Gram) -> tuple[Tensor, Tensor]:
    # Queries and keys whose inner products are the scores, up to a number per query.
    assert isinstance(gram, LazyGram)
    ((query, key, rule),) = gram.terms
    assert isinstance(rule, ScoreRule)
    if rule.pair is MUL:
        return query * rule.weight, key
    # w (q - k)^2 = w q^2 - 2 w q k + w k^2
    one, square = torch.ones_like(query[..., :1]), (rule.weight * key.square()).sum(-1, keepdim=True)
    return torch.cat([-2 * rule.weight * query, one], -1), torch.cat([key, square], -1)
