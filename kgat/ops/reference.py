r"""The specification: edge attention as loops over nodes, edges and heads. Never chosen by itself."""

from __future__ import annotations

import torch
from torch import Tensor

from kgat.ops.backend import Backend
from kgat.ops.call import Call


class Reference(Backend):
    r"""Computes :math:`\mathbf{o}_{ih} = \sum_{e \to i} w_e\, m_{eh}\, \alpha_{eh} \mathbf{v}_{j(e)h}`, plus
    the base, one target and head at a time, where :math:`m` is the (scaled) dropout mask."""

    name, on_request = "reference", True

    def edge_attention_with_weights(self, call: Call) -> tuple[Tensor, Tensor]:
        value = call.value
        heads, channels = value.shape[1:]
        score = call.scores()  # [E, H]
        if call.edge_log_weight is not None:
            score = score + call.edge_log_weight
        keep = torch.nn.functional.dropout(torch.ones_like(score), call.dropout)
        edges_of: list[list[int]] = [[] for _ in range(call.num_targets)]
        for e, i in enumerate(call.row.tolist()):
            edges_of[i].append(e)
        source = call.col.tolist()
        out = []
        weights = [[score.new_zeros(())] * heads for _ in source]
        for i in range(call.num_targets):
            for h in range(heads):
                o = value.new_zeros(channels)
                edges = edges_of[i]
                if edges:
                    s = torch.stack([score[e, h] for e in edges])
                    top = s.detach().max()
                    if top == -torch.inf:  # all of them are removed: their weights are 0, not NaN
                        alpha = s.exp()
                    else:
                        k = (s - top).exp()
                        alpha = k / k.sum()
                    for weight, e in zip(alpha, edges, strict=True):
                        weights[e][h] = weight = weight * keep[e, h]
                        if call.edge_weight is not None:
                            weight = weight * call.edge_weight[e].expand(heads)[h]
                        o = o + weight.to(value.dtype) * value[source[e], h]
                out.append(o)
        of_edges = torch.zeros_like(score)
        if score.numel():
            of_edges = torch.stack([torch.stack(row) for row in weights])
        shape = (call.num_targets, heads, channels)
        averages = torch.stack(out).view(shape) if out else value.new_zeros(shape)
        averages = averages + value[:0].sum()  # there is a gradient, even without an edge
        return averages if call.base is None else (averages + call.base).to(value.dtype), of_edges
