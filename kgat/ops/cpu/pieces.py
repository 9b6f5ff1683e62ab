r"""The pieces of long rows: a row is written by one thread, and one of half a million edges would keep all
others waiting."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# Edges, at least those of a block (kgat.ops.cpu.loops.BLOCK). What a piece keeps in scratch stays in a cache.
LONG = 1 << 12


class Pieces(NamedTuple):
    r"""The pieces of all rows of more than :data:`LONG` edges, which depend on nothing but the graph.

    They are rows as well, over the same edges. Behind those of each long row stands one that is left out: its
    edges are those up to the next long row.

    Args:
        node (torch.Tensor): The long rows.
        owner (torch.Tensor): Which of them each piece is of.
        first (torch.Tensor): The first piece of each of them, and the number of pieces.
        ptr (torch.Tensor): The first edge of each piece.
        bounds (torch.Tensor): For each piece that is not left out, itself and the next.

    Shapes:
        - **node:** :math:`(K)`, **first:** :math:`(K + 1)`, **owner, ptr:** :math:`(V)`, **bounds:**
          :math:`(P, 2)`
    """

    node: Tensor
    owner: Tensor
    first: Tensor
    ptr: Tensor
    bounds: Tensor

    @classmethod
    def of(cls, ptr: Tensor) -> Pieces | None:
        r"""Cuts the rows of a graph; :obj:`None` if none is long.

        Args:
            ptr (torch.Tensor): The first edge of each row, and the number of edges.
        """
        degree = ptr.diff()
        node = (degree > LONG).nonzero().view(-1)
        if node.numel() == 0:
            return None
        begin, degree = ptr[node], degree[node]
        count = (degree + LONG - 1) // LONG
        first = torch.cat([count.new_zeros(1), (count + 1).cumsum(0)])
        owner = torch.repeat_interleave(count + 1)
        rank = torch.arange(owner.numel(), device=owner.device) - first[owner]
        piece = (rank < count[owner]).nonzero()
        return cls(
            node,
            owner,
            first,
            begin[owner] + degree[owner] * rank // count[owner],
            torch.cat([piece, piece + 1], dim=1),
        )
