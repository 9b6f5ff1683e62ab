r"""How long our layers take next to PyG's: paired in one process, on the same weights and inputs."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric import seed_everything
from torch_geometric.nn import GATConv, GATv2Conv, TransformerConv

from kgat import KernelGATConv
from kgat.experiments.circumstances import circumstances
from kgat.experiments.costs import CONTENDED
from kgat.experiments.ledger import append


@dataclass(frozen=True)
class Size:
    r"""A graph and a layer on it.

    Args:
        name (str): Its name.
        nodes (int): Number of nodes.
        edges (int): Number of directed edges, without self-loops.
        in_channels (int): Number of features.
        heads (int): Number of heads.
        out_channels (int): Channels per head.
    """

    name: str
    nodes: int
    edges: int
    in_channels: int
    heads: int
    out_channels: int

    def graph(self) -> Tensor:
        r"""Draws edges whose degrees have a heavy tail, as those of citation graphs have.

        Shapes:
            - **output:** :math:`(2, E)`
        """
        generator = torch.Generator().manual_seed(0)
        rank = torch.rand(2, self.edges, generator=generator)
        return (self.nodes * rank.pow(2.5)).long().clamp_max(self.nodes - 1)


SIZES = {
    size.name: size
    for size in (
        Size("tiny", 50, 200, 16, 2, 4),
        Size("cora", 2708, 10556, 64, 8, 8),
        Size("pubmed", 19717, 88648, 64, 8, 8),
        Size("arxiv/10", 17000, 233000, 128, 4, 64),
    )
}


def pairs(size: Size) -> dict[str, tuple[torch.nn.Module, torch.nn.Module]]:
    r"""Returns PyG's layers, each with the one of ours that computes the same.

    Args:
        size (Size): Decides the channels.
    """
    shape = (size.in_channels, size.out_channels, size.heads)
    gat, gatv2, transformer = GATConv(*shape), GATv2Conv(*shape), TransformerConv(*shape)
    v2 = KernelGATConv(*shape, kernel="additive_v2", projections="shared_kv", projection_bias=True)
    v2.load_state_dict(gatv2.state_dict())
    dot = KernelGATConv(
        *shape,
        add_self_loops=False,
        residual=True,
        kernel="dot_product",
        projections="separate",
        projection_bias=True,
    )
    dot.load_state_dict(transformer.state_dict())
    return {
        "GATConv": (gat, KernelGATConv.from_gat(gat)),
        "GATv2Conv": (gatv2, v2),
        "TransformerConv": (transformer, dot),
    }


def bench_layers(size: Size, rounds: int = 20) -> list[dict[str, Any]]:
    r"""Times PyG's layers and ours, forward alone and with backward.

    Args:
        size (Size): The graph and the layer.
        rounds (int, optional): Number of rounds. (default: :obj:`20`)

    Returns:
        list of dict: Records of kind :obj:`"bench"`: how many times longer the peer takes, as the median of
        per-round ratios with their smallest and largest.

    Raises:
        ValueError: If the two layers do not compute the same.
    """
    seed_everything(0)
    edge_index = size.graph()
    x = torch.randn(size.nodes, size.in_channels, requires_grad=True)
    found = []
    for peer, (stock, ours) in pairs(size).items():
        expected, out = stock(x, edge_index), ours(x, edge_index)
        if not torch.allclose(out, expected, rtol=1e-3, atol=1e-4):
            error = (out - expected).abs().max().item()
            raise ValueError(
                f"Expected equal outputs of {peer} and ours before timing (got {error:.2g} apart)"
            )
        for backward in (False, True):
            ratio = paired(
                _step(stock, x, edge_index, backward), _step(ours, x, edge_index, backward), rounds
            )
            found.append(_record(size, peer, "forward+backward" if backward else "forward", ratio))
    return found


def paired(peer: Callable[[], Any], ours: Callable[[], Any], rounds: int) -> list[float]:
    r"""Returns the median, smallest and largest of per-round ratios: time of the peer over ours.

    The two take turns in one process, in reversed order every other round.

    Args:
        peer (callable): What ours is compared with.
        ours (callable): What is timed.
        rounds (int): Number of rounds, after two that are not counted.
    """
    ratios = []
    for number in range(-2, rounds):
        seconds = {}
        for step in (peer, ours) if number % 2 == 0 else (ours, peer):
            start = time.perf_counter()
            step()
            seconds[step] = time.perf_counter() - start
        if number >= 0:
            ratios.append(seconds[peer] / seconds[ours])
    return [float(f"{value:.4g}") for value in (statistics.median(ratios), min(ratios), max(ratios))]


def run(
    names: list[str], rounds: int, path: Path | None, say: Callable[[dict[str, Any]], None]
) -> list[dict[str, Any]]:
    r"""Runs all benchmarks at the sizes of :obj:`names` and appends their records to a file.

    Args:
        names (list of str): Keys of :data:`SIZES`.
        rounds (int): Number of rounds.
        path (Path, optional): The file of records; none is written if :obj:`None`.
        say (callable): Called with each record.

    Raises:
        ValueError: If a size is unknown.
    """
    unknown = [name for name in names if name not in SIZES]
    if unknown or not names:
        raise ValueError(
            f"Expected sizes to measure (got {', '.join(unknown) or 'none'}); choose from: {', '.join(SIZES)}"
        )
    found = []
    for name in names:
        for record in bench_layers(SIZES[name], rounds):
            found.append(record)
            say(record)
            if path is not None:
                append(path, record)
    return found


def _step(layer: torch.nn.Module, x: Tensor, edge_index: Tensor, backward: bool) -> Callable[[], None]:
    def forward_and_backward() -> None:
        layer(x, edge_index).sum().backward()

    def forward() -> None:
        with torch.no_grad():
            layer(x, edge_index)

    return forward_and_backward if backward else forward


def _record(size: Size, peer: str, what: str, ratio: list[float]) -> dict[str, Any]:
    return {
        "kind": "bench",
        "size": size.name,
        "peer": peer,
        "what": what,
        "ratio": ratio,
        "contended": ratio[2] / ratio[1] > CONTENDED,
        **circumstances("cpu"),
    }
