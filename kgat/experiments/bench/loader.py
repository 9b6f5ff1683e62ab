r"""Drawing a mini-batch next to the training step it feeds, and to PyG's samplers: ``kgat bench loader``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch_geometric.typing
from torch_geometric import seed_everything
from torch_geometric.data import Data
from torch_geometric.sampler import NeighborSampler as StockNeighborSampler
from torch_geometric.sampler import NodeSamplerInput

from kgat.experiments.bench import measure
from kgat.experiments.bench.scenarios import SCENARIOS, named
from kgat.experiments.circumstances import circumstances
from kgat.experiments.ledger import append
from kgat.loader import NeighborLoader, NeighborSampler
from kgat.models import KernelGAT
from kgat.ops.graph.adjacency import Adjacency

CLASSES, CHANNELS, HEADS = 40, 256, 4


def bench_loader(
    scenario: str = "arxiv",
    root: str | Path | None = None,
    num_neighbors: Sequence[int] = (15, 10),
    batch_size: int = 1024,
    rounds: int = 20,
    path: Path | None = None,
    say: Callable[[dict[str, Any]], None] = lambda record: None,
) -> list[dict[str, Any]]:
    r"""Times what stands between two training steps on sampled neighbourhoods.

    Args:
        scenario (str, optional): One of the graphs of ``kgat bench ops``. (default: :obj:`"arxiv"`)
        root (str or Path, optional): The folder of data sets, as of :func:`kgat.datasets.load`; without the
            files there a graph of the same size is drawn. (default: :obj:`None`)
        num_neighbors (list of int, optional): Neighbours per hop. (default: :obj:`(15, 10)`)
        batch_size (int, optional): Seeds of a batch. (default: :obj:`1024`)
        rounds (int, optional): Number of rounds. (default: :obj:`20`)
        path (Path, optional): The file of records; none is written if :obj:`None`. (default: :obj:`None`)
        say (callable, optional): Called with each record. (default: does nothing)

    Returns:
        list of dict: Records of kind :obj:`"loader"`: how many times longer the peer takes, as the median of
        per-round ratios with their smallest and largest.

    Raises:
        ValueError: If the scenario is unknown.
    """
    graph = named([scenario], SCENARIOS, "graphs")[0].load(root, "cpu")
    records = []
    for what, peer, ratio in _ratios(graph.x, graph.edge_index, list(num_neighbors), batch_size, rounds):
        records.append(
            {
                **{"kind": "loader", "graph": graph.source, "what": what, "peer": peer},
                **measure.verdict(ratio),
                **{"num_neighbors": list(num_neighbors), "batch_size": batch_size, "rounds": rounds},
                **circumstances("cpu"),
            }
        )
        say(records[-1])
        if path is not None:
            append(path, records[-1])
    return records


def _ratios(
    x: torch.Tensor, edge_index: torch.Tensor, num_neighbors: list[int], batch_size: int, rounds: int
) -> Iterator[tuple[str, str, list[float]]]:
    seed_everything(0)
    data = Data(x, edge_index, y=torch.randint(CLASSES, (x.size(0),)))
    sampler = NeighborSampler(data, num_neighbors)
    loader = NeighborLoader(data, num_neighbors, neighbor_sampler=sampler, filter_per_worker=True)
    seeds = [torch.randperm(x.size(0))[:batch_size] for _ in range(8)]
    turn = {"ours": 0, "peer": 0}

    def next_seeds(who: str) -> torch.Tensor:
        turn[who] += 1
        return seeds[turn[who] % len(seeds)]

    def draw() -> None:
        sampler.sample_from_nodes(NodeSamplerInput(None, next_seeds("ours")))

    if torch_geometric.typing.WITH_PYG_LIB or torch_geometric.typing.WITH_TORCH_SPARSE:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that torch-sparse is deprecated
            stock = StockNeighborSampler(data, num_neighbors)
        peer = "pyg-lib" if torch_geometric.typing.WITH_PYG_LIB else "torch-sparse"

        def draw_there() -> None:
            stock.sample_from_nodes(NodeSamplerInput(None, next_seeds("peer")))

        yield "sampling", peer, measure.paired(draw_there, draw, rounds)

    model = KernelGAT(x.size(1), CHANNELS, len(num_neighbors), CLASSES, heads=HEADS, out_heads=1)
    optimizer = torch.optim.Adam(model.parameters())
    batch = loader(seeds[0])

    def step() -> None:
        optimizer.zero_grad()
        # As a new batch is: nothing is known of its edges.
        out = model(
            batch.x,
            batch.edge_index.clone(),
            num_sampled_nodes_per_hop=batch.num_sampled_nodes,
            num_sampled_edges_per_hop=batch.num_sampled_edges,
        )[: seeds[0].numel()]
        torch.nn.functional.cross_entropy(out, batch.y[: seeds[0].numel()]).backward()
        optimizer.step()

    def sort() -> None:
        Adjacency.of(batch.edge_index.clone(), 1, batch.num_nodes, batch.num_nodes)

    feeds = "the training step it feeds"
    yield "sampling", feeds, measure.paired(step, draw, rounds)
    yield "sampling and features", feeds, measure.paired(step, lambda: loader(next_seeds("ours")), rounds)
    yield "ordering the edges of a batch for attention", feeds, measure.paired(step, sort, rounds)
