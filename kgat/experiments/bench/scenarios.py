r"""The graphs of ``kgat bench ops`` and the layers on them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from kgat.datasets import load
from kgat.datasets.files import resolve_root
from kgat.datasets.graphs import SOURCES
from kgat.names import nearest

SEED = 0
T = TypeVar("T")


@dataclass(frozen=True)
class Scenario:
    r"""A graph and a layer on it.

    Args:
        name (str): Its name.
        nodes (int): Number of nodes.
        edges (int): Number of directed edges, in both directions and with one self-loop per node.
        in_channels (int): Number of features of a node.
        heads (int): Number of heads :math:`H`.
        out_channels (int): Channels per head :math:`C`.
        real (str, optional): The data set whose graph it is, where that is to be had. (default: :obj:`None`)
        large (bool, optional): Whether it is for a GPU only. (default: :obj:`False`)
        graphs (int, optional): How many rings of equal size it is made of, a batch of small molecules; one
            graph of any shape if 0. (default: :obj:`0`)
        hub (int, optional): How many of the edges lead to one node, and as many from another, each from or to
            any node. (default: :obj:`0`)
    """

    name: str
    nodes: int
    edges: int
    in_channels: int
    heads: int
    out_channels: int
    real: str | None = None
    large: bool = False
    graphs: int = 0
    hub: int = 0

    def not_here(self, device: str) -> str | None:
        r"""Returns why it is not measured on a device, if it is not."""
        if self.large and not device.startswith("cuda"):
            return f"{self.edges / 1e6:.0f} M edges are for a GPU: --device cuda"
        return None

    def load(self, root: str | os.PathLike[str] | None, device: str) -> Graph:
        r"""Reads the graph if its files are below the root, else draws one of its size. Never downloads.

        Args:
            root (str or Path, optional): The folder of data sets, as of :func:`kgat.datasets.load`.
            device (str): Where the graph shall be.
        """
        x = torch.randn(self.nodes, self.in_channels, generator=torch.Generator().manual_seed(SEED))
        paths = None if self.real is None else _present(self.real, root)
        if self.graphs:
            return Graph("rings", x.to(device), _rings(self.nodes, self.nodes // self.graphs, device))
        if self.hub:
            return Graph("hub", x.to(device), _hub(self.nodes, self.hub, device))
        if self.real is None or paths is None:
            edge_index = _draw(self.nodes, (self.edges - self.nodes) // 2, device)
            return Graph("synthetic", x.to(device), edge_index)
        if self.real.startswith("ogbn"):
            edges = torch.from_numpy(np.loadtxt(paths[0], delimiter=",", dtype=np.int64)).T
        else:
            data = load(self.real, root, sparse=False).data
            edges, x = data.edge_index, data.x
        edges = _both_ways(edges[:, edges[0] != edges[1]], x.size(0), distinct=True)
        return Graph(self.real, x.to(device), edges.to(device))


@dataclass(frozen=True, eq=False)
class Graph:
    r"""Node features and edges that are sorted by target, symmetric and with a self-loop per node.

    Args:
        source (str): The data set it is from, or :obj:`"synthetic"`.
        x (torch.Tensor): Node features.
        edge_index (torch.Tensor): The edges.

    Shapes:
        - **x:** :math:`(N, F)`, **edge_index:** :math:`(2, E)`
    """

    source: str
    x: Tensor
    edge_index: Tensor


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("tiny", 50, 250, 16, 2, 4),
        Scenario("molecule", 20, 80, 16, 4, 8),  # where a call costs more than what it computes
        Scenario("molecules", 2048, 6144, 64, 4, 16, graphs=128),
        Scenario("cora", 2708, 13264, 1433, 8, 8, real="Cora"),
        Scenario("arxiv/10", 17000, 250000, 128, 4, 64),
        Scenario("hub", 20000, 1020000, 128, 4, 64, hub=500_000),
        Scenario("arxiv", 169343, 2484941, 128, 4, 64, real="ogbn-arxiv"),
        Scenario("products", 2449029, 126167053, 100, 4, 64, large=True),
    )
}


def named(names: Sequence[str], known: Mapping[str, T], what: str, some: bool = False) -> list[T]:
    r"""Returns what is called by some names, all if there are none.

    Args:
        names (list of str): The names.
        known (dict): What there is, by name.
        what (str): What an error calls it.
        some (bool, optional): Whether there must be names. (default: :obj:`False`)

    Raises:
        ValueError: If one is unknown, or there must be some and are none.
    """
    if some and not names:
        raise ValueError(f"Expected {what} to measure (got none); choose from: {', '.join(known)}")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"Expected {what} that exist (got {', '.join(unknown)}); choose from: {', '.join(known)}"
            f"{nearest(unknown[0], known)}"
        )
    return [known[name] for name in names or known]


def _present(name: str, root: str | os.PathLike[str] | None) -> list[Path] | None:
    # The files of a data set; of OGB's the edges are enough, as features cost the same whatever they are.
    source = next(source for source in SOURCES if source.name == name)
    folder = resolve_root(root)
    files = [file for file in source.files if not name.startswith("ogbn") or "raw/edge" in file.path]
    paths = []
    for file in files:
        found = [folder / path for path in (file.path, *file.also) if (folder / path).is_file()]
        if not found:
            return None
        paths.append(found[0])
    return paths


def _draw(nodes: int, pairs: int, device: str) -> Tensor:
    # Degrees have a heavy tail, as those of citation graphs have. Hubs stand anywhere among the nodes, as in
    # real graphs: side by side they would share caches.
    generator = torch.Generator(device).manual_seed(SEED)
    place = torch.randperm(nodes, generator=generator, device=device)
    ends = []
    for _ in range(2):
        rank = torch.rand(pairs, generator=generator, device=device, dtype=torch.float64)
        ends.append(place[(nodes * rank.pow_(2.5)).long().clamp_(max=nodes - 1)])
    source, target = ends
    source = torch.where(source == target, (source + 1) % nodes, source)
    return _both_ways(torch.stack([source, target]), nodes)


def _rings(nodes: int, size: int, device: str) -> Tensor:
    node = torch.arange(nodes, device=device)
    after = node - node % size + (node + 1) % size
    return _both_ways(torch.stack([node, after]), nodes, distinct=True)


def _hub(nodes: int, edges: int, device: str) -> Tensor:
    generator = torch.Generator(device).manual_seed(SEED)
    ends = torch.randint(nodes, (2, edges), generator=generator, device=device)
    loops = torch.arange(nodes, device=device)
    source = torch.cat([ends[0], torch.ones_like(ends[1]), loops])
    target = torch.cat([torch.zeros_like(ends[0]), ends[1], loops])
    order = (target * nodes + source).argsort()
    return torch.stack([source[order], target[order]])


def _both_ways(edges: Tensor, nodes: int, distinct: bool = False) -> Tensor:
    # With all loops, sorted by target, then source.
    source, target = edges
    loops = torch.arange(nodes, device=edges.device) * (nodes + 1)
    key = torch.cat([target * nodes + source, source * nodes + target, loops])
    key = key.unique() if distinct else key.sort().values
    return torch.stack([key % nodes, key // nodes])
