r"""A neighbourhood with its attention weights, to be drawn."""

from typing import Any

import torch
from torch import Tensor
from torch_geometric.utils import degree

EDGES = 100  # of a stored neighbourhood; with 8 heads this keeps a record below 30 kB
CANDIDATES = 4096  # among which the center of a neighbourhood is chosen


def neighbourhood(
    edge_index: Tensor,
    alpha: Tensor,
    center: int | None = None,
    hops: int = 1,
    max_nodes: int = 40,
    labels: Tensor | None = None,
    max_edges: int = EDGES,
) -> dict[str, Any]:
    r"""Cuts out the neighbourhood of a node, with the attention weights on its edges.

    Without :obj:`center`, a node with more neighbours than most (80 % to 97 % quantile of the
    degrees) is taken whose labels in the neighbourhood are the most mixed: the one place where
    attention can matter. The choice depends on the graph and the labels only, hence is the same
    for every model.

    Args:
        edge_index (torch.Tensor): The edges, with the self-loops of the layer.
        alpha (torch.Tensor): The attention weights.
        center (int, optional): The node. (default: :obj:`None`)
        hops (int, optional): How far to go against the edges. (default: :obj:`1`)
        max_nodes (int, optional): Nodes are dropped beyond this, the farthest and, among these,
            those of highest index first. (default: :obj:`40`)
        labels (torch.Tensor, optional): The class of each node. (default: :obj:`None`)
        max_edges (int, optional): Edges that end farther from the center are dropped beyond this.
            (default: :obj:`100`)

    Returns:
        dict: :obj:`center`, :obj:`nodes`, :obj:`edges` (source, target), :obj:`alpha` of each edge
        and head, :obj:`labels` of the nodes (-1 if unknown), :obj:`targets` (the nodes all of
        whose in-edges are there, if nothing was dropped), :obj:`hops` and :obj:`degree`, the
        number of neighbours of the center in the graph.

    Shapes:
        - **edge_index:** :math:`(2, E)`, **alpha:** :math:`(E, H)`, **labels:** :math:`(N,)`

    Raises:
        ValueError: If a center is to be chosen of no nodes.
        IndexError: If there is no such node.

    Example:
        >>> import torch
        >>> from kgat.diagnostics import neighbourhood
        >>> edge_index = torch.tensor([[0, 1, 2], [1, 0, 0]])
        >>> cut = neighbourhood(edge_index, torch.tensor([[1.0], [0.4], [0.6]]), center=0)
        >>> cut["nodes"], cut["edges"]
        ([0, 1, 2], [[1, 0], [2, 0], [0, 1]])
    """
    source, target = edge_index.cpu()
    num_nodes = max(
        int(edge_index.max()) + 1 if edge_index.numel() else 0, 0 if labels is None else labels.size(0)
    )
    if center is None:
        center = _mixed_node(source, target, num_nodes, labels, max_nodes)
    if not 0 <= center < num_nodes:
        raise IndexError(f"Expected 'center' in 0..{num_nodes - 1} (got {center}); pass a node of the graph")
    distance = torch.full((num_nodes,), hops + 1)
    distance[center] = 0
    for hop in range(1, hops + 1):
        reached = source[distance[target] == hop - 1]
        distance[reached] = distance[reached].clamp(max=hop)
    inside = (distance <= hops).nonzero().flatten()
    nodes = inside[distance[inside].argsort(stable=True)][:max_nodes]

    kept = torch.zeros(num_nodes, dtype=torch.bool)
    kept[nodes] = True
    edges = (kept[source] & kept[target]).nonzero().flatten()
    edges = edges[distance[target[edges]].argsort(stable=True)][:max_edges]
    neighbours = source[(target == center) & (source != center)].unique()
    classes = labels.cpu()[nodes].tolist() if labels is not None else [-1] * nodes.numel()
    return {
        "center": int(center),
        "nodes": nodes.tolist(),
        "labels": [int(label) for label in classes],
        "edges": torch.stack([source[edges], target[edges]], dim=1).tolist(),
        "alpha": alpha.cpu()[edges].tolist(),
        "targets": nodes[distance[nodes] < hops].tolist(),
        "hops": hops,
        "degree": neighbours.numel(),
    }


def _mixed_node(source: Tensor, target: Tensor, num_nodes: int, labels: Tensor | None, max_nodes: int) -> int:
    if num_nodes == 0:
        raise ValueError("Expected a graph with nodes (got none); pass the edges of a layer")
    proper = source != target
    source, target = source[proper], target[proper]
    degrees = degree(target, num_nodes)
    low, high = _quantiles(degrees, 0.8, 0.97)
    fits = (degrees >= low) & (degrees <= high) & (degrees < max_nodes) & (degrees >= 2)
    if not bool(fits.any()):
        fits = degrees == degrees.clamp(max=max_nodes - 1).max()
    if not bool(fits.any()):
        fits = torch.ones_like(degrees, dtype=torch.bool)
    nodes = fits.nonzero().flatten()
    # Every n-th of very many, so that the choice costs no more on a huge graph.
    nodes = nodes[:: -(-nodes.numel() // CANDIDATES)]
    mixed = torch.zeros(nodes.numel())
    if labels is not None:
        position = torch.full((num_nodes,), -1).scatter(0, nodes, torch.arange(nodes.numel()))
        ends = position[target]
        classes = labels.cpu().long().clamp(min=-1) + 1  # unknown is a class of its own
        count = torch.zeros(nodes.numel(), int(classes.max()) + 1)
        one = torch.ones(())
        count.index_put_((ends[ends >= 0], classes[source[ends >= 0]]), one, accumulate=True)
        count.index_put_((torch.arange(nodes.numel()), classes[nodes]), one, accumulate=True)
        share = count / count.sum(dim=1, keepdim=True)
        mixed = (-torch.xlogy(share, share)).sum(dim=1)
    # Rounded, so that the order of a sum cannot decide; then the larger, then the first node.
    order = [
        (-round(disorder, 4), -float(degrees[node]), node)
        for disorder, node in zip(mixed.tolist(), nodes.tolist(), strict=True)
    ]
    return min(order)[2]


def _quantiles(values: Tensor, *levels: float) -> list[float]:
    # torch.quantile refuses more than 16 million values; a sort does not.
    ordered = values.sort().values
    last = ordered.numel() - 1
    return [float(ordered[round(level * last)]) for level in levels]
