"""The formulas of kgat/ops/recipe.py in plain torch: what every fused backend is held against."""

import torch

from kgat.ops.graph.adjacency import Adjacency


def adjacency(targets, sources, edges):
    edge_index = torch.tensor(edges, dtype=torch.long).view(-1, 2).t()
    return edge_index, Adjacency.of(edge_index, 1, targets, sources)


def scores(recipe, edge_index, x):
    """``t`` and ``s`` of every edge, in the caller's order."""
    col, row = edge_index
    t = 0.0
    if recipe.pair is not None:
        constants = [_constant(a.unsqueeze(-1)) for a in x.pair_args]
        pair = recipe.pair.function(x.query[row], x.key[col], *constants)  # [E, H, R]
        t = x.scale * (pair * (1.0 if x.weight is None else x.weight)).sum(-1)
    elif x.key_bias is not None:
        t = x.query_bias[row] + x.key_bias[col]
    else:
        t = torch.zeros(len(row), x.value.size(1), dtype=x.link_args.dtype)
    inside = recipe.pair is None or recipe.bias_inside
    if x.edge_bias is not None and inside:
        t = t + x.edge_bias
    s = recipe.link.function(t, *map(_constant, x.link_args))
    if x.edge_bias is not None and not inside:
        s = s + x.edge_bias
    if x.key_bias is not None and recipe.pair is not None:
        s = s + x.key_bias[col]
    return t, s


def _constant(arg):
    # Functions of torch.nn.functional take numbers alone.
    return arg.flatten()[0].item() if (arg == arg.flatten()[0]).all() else arg


def attention(recipe, edge_index, targets, x, mask=1.0):
    """``out`` and ``lse``; :obj:`mask` is the dropout mask over ``1 - p``, in the caller's order."""
    col, row = edge_index
    _, s = scores(recipe, edge_index, x)
    total = torch.zeros(targets, s.size(1), dtype=s.dtype)
    top = torch.full_like(total, -torch.inf).scatter_reduce(0, row[:, None].expand_as(s), s.detach(), "amax")
    top = torch.where(top == -torch.inf, 0.0, top)
    total = total.index_add(0, row, (s - top[row]).exp())
    lse = torch.where(total > 0, top + torch.where(total > 0, total, 1.0).log(), 0.0)
    weight = (s - lse[row]).exp() * mask
    if x.edge_weight is not None:
        weight = weight * x.edge_weight
    out = torch.zeros(targets, *x.value.shape[1:], dtype=s.dtype)
    return out.index_add(0, row, weight.unsqueeze(-1) * x.value[col]), lse
