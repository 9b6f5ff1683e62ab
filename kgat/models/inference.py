r"""Inference on all nodes, layer by layer and over slices of rows: exact, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch_geometric.index import index2ptr

from kgat.kernels import Kernel, PerHead, Product, Sum
from kgat.nn import GlobalAttention
from kgat.nn.edges import Edges
from kgat.nn.linear import select_rows
from kgat.nn.numbers import check_whole
from kgat.nn.start import is_open
from kgat.ops.graph.adjacency import check_indices
from kgat.ops.graph.memory import remember

ROWS, EDGES = 16_384, 262_144


def check_bounds(rows: int, edges: int) -> None:
    r"""Checks how many rows and edges a slice may have."""
    check_whole(rows=rows, edges=edges)


def by_slices(
    conv: torch.nn.Module,
    x: Tensor,
    edges: Edges,
    of_nodes: dict[str, Tensor],
    rows: int,
    edges_at_once: int,
) -> Tensor:
    r"""Returns ``conv(x, edges.index)``, computed for some targets after the other.

    A slice is a bipartite graph: its targets come first among its sources, so that self-loops join a node
    with itself.

    Args:
        conv (torch.nn.Module): The layer, in evaluation mode.
        x (torch.Tensor): Node features, dense or ``torch.sparse_csr``.
        edges (Edges): The edges with what belongs to them.
        of_nodes (dict): What else it takes by name, of each node.
        rows (int): Targets of a slice at most.
        edges_at_once (int): Edges of a slice at most, unless a single target has more.

    Shapes:
        - **x:** :math:`(N, F)`, **output:** :math:`(N, F')`
    """
    num_nodes = x.size(0)
    order, source, target = None, *edges.index
    check_indices(target, source, num_nodes, num_nodes)  # what counts them writes wherever they say
    if not bool((target[1:] >= target[:-1]).all()):  # else they may lie on disk, and are not copied
        order = remember(edges.index, "by target", _order)
        source, target = source.index_select(0, order), target.index_select(0, order)
    ends = index2ptr(target, num_nodes)
    place = torch.empty(num_nodes, dtype=torch.long, device=source.device)  # of a node among the sources
    out: Tensor | None = None
    for start, stop in _slices(ends.cpu(), rows, edges_at_once):
        begin, end = int(ends[start]), int(ends[stop])
        some = source[begin:end]
        targets = torch.arange(start, stop, device=source.device)
        nodes = torch.cat([targets, some[(some < start) | (some >= stop)].unique()])
        place[nodes] = torch.arange(nodes.numel(), device=source.device)
        count = ends[start + 1 : stop + 1] - ends[start:stop]
        index = torch.stack([place[some], torch.repeat_interleave(targets - start, count)])
        kwargs: dict[str, Any] = {
            name: (values.index_select(0, nodes), values[start:stop]) for name, values in of_nodes.items()
        }
        for name, values in (("edge_attr", edges.attr), ("edge_weight", edges.weight)):
            if values is not None:
                kwargs[name] = values[begin:end] if order is None else values[order[begin:end]]
        of_sources = select_rows(x, nodes)
        of_targets = select_rows(x, targets) if x.layout == torch.sparse_csr else x[start:stop]
        part = conv((of_sources, of_targets), index, **kwargs)
        if out is None:
            out = part.new_empty(num_nodes, part.size(1))
        out[start:stop] = part
    return conv(x, edges.index) if out is None else out


def needs_all(conv: torch.nn.Module) -> bool:
    r"""Whether a layer needs all nodes at once: it attends to all, its kernel computes something from all of
    them, as data-dependent laws do from means, or its start is still to be set."""
    if isinstance(conv, GlobalAttention) or (getattr(conv, "start", None) is not None and is_open(conv)):
        return True
    kernels = [part for part in conv.modules() if isinstance(part, Kernel)]
    return any(
        kernel._lift_takes_context and getattr(kernel, "data_dependent", True)
        for kernel in kernels
        if not isinstance(kernel, Product | Sum | PerHead)
    )


def _order(index: Tensor) -> Tensor:
    return index[1].argsort(stable=True)


def _slices(ends: Tensor, rows: int, edges: int) -> Iterator[tuple[int, int]]:
    start, last = 0, ends.numel() - 1
    while start < last:
        # The last row until which there are few enough edges, and one row at least.
        stop = int(torch.searchsorted(ends, ends[start] + edges, right=True)) - 1
        stop = min(max(stop, start + 1), start + rows, last)
        yield start, stop
        start = stop
