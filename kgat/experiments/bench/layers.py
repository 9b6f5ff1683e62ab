r"""How long our layers take next to PyG's: paired in one process, on the same weights and inputs."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric import seed_everything

from kgat.experiments.bench import measure, rivals
from kgat.experiments.bench.scenarios import Scenario, named
from kgat.experiments.circumstances import circumstances
from kgat.experiments.ledger import append

SIZES = {
    size.name: size
    for size in (
        Scenario("tiny", 50, 200, 16, 2, 4),
        Scenario("cora", 2708, 10556, 64, 8, 8),
        Scenario("pubmed", 19717, 88648, 64, 8, 8),
        Scenario("arxiv/10", 17000, 233000, 128, 4, 64),
    )
}


def draw(size: Scenario) -> Tensor:
    r"""Draws edges without loops whose degrees have a heavy tail, as those of citation graphs have.

    Shapes:
        - **output:** :math:`(2, E)`
    """
    generator = torch.Generator().manual_seed(0)
    rank = torch.rand(2, size.edges, generator=generator)
    return (size.nodes * rank.pow(2.5)).long().clamp_max(size.nodes - 1)


def pairs(size: Scenario) -> dict[str, tuple[torch.nn.Module, torch.nn.Module]]:
    r"""Returns PyG's layers, each with the one of ours that computes the same.

    Args:
        size (Scenario): Decides the channels.
    """
    shape = (size.in_channels, size.out_channels, size.heads)
    makers = {"GATConv": "additive", "GATv2Conv": "additive_v2", "TransformerConv": "dot_product"}
    return {name: rivals.layers(kernel, shape, add_self_loops=True) for name, kernel in makers.items()}


def bench_layers(size: Scenario, rounds: int = 20) -> list[dict[str, Any]]:
    r"""Times PyG's layers and ours, forward alone and with backward.

    Args:
        size (Scenario): The graph and the layer.
        rounds (int, optional): Number of rounds. (default: :obj:`20`)

    Returns:
        list of dict: Records of kind :obj:`"bench"`: how many times longer the peer takes, as the median of
        per-round ratios with their smallest and largest.

    Raises:
        ValueError: If the two layers do not compute the same.
    """
    seed_everything(0)
    edge_index = draw(size)
    x = torch.randn(size.nodes, size.in_channels, requires_grad=True)
    clock = measure.clock_of("cpu", torch.get_num_threads())
    records = []
    for peer, (stock, ours) in pairs(size).items():
        measure.expect_equal(ours(x, edge_index), stock(x, edge_index), f"{peer} and ours")
        for what, step in STEPS.items():
            theirs, own = (partial(step, layer, x, edge_index) for layer in (stock, ours))
            records.append(
                {
                    **{"kind": "bench", "size": size.name, "peer": peer, "what": what},
                    **measure.verdict(measure.paired(theirs, own, rounds, clock)),
                    "clock": clock,
                    **circumstances("cpu"),
                }
            )
    return records


def _forward(layer: torch.nn.Module, x: Tensor, edge_index: Tensor) -> None:
    with torch.no_grad():
        layer(x, edge_index)


def _both(layer: torch.nn.Module, x: Tensor, edge_index: Tensor) -> None:
    layer(x, edge_index).sum().backward()


STEPS = {"forward": _forward, "forward+backward": _both}


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
    records = []
    for size in named(names, SIZES, "sizes", some=True):
        for record in bench_layers(size, rounds):
            records.append(record)
            say(record)
            if path is not None:
                append(path, record)
    return records
