r"""What a layer needs as graphs grow, memory and time to sort edges: ``kgat bench memory``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kgat import KernelGATConv
from kgat.experiments.bench import measure, worker
from kgat.experiments.circumstances import circumstances
from kgat.experiments.ledger import append
from kgat.experiments.progress import progress
from kgat.ops.graph.adjacency import Adjacency

KERNELS = ("additive", "dot_product")
IN_CHANNELS = 128
PEAKS = ("sorting", "forward", "both")

Record = dict[str, Any]


@dataclass(frozen=True)
class Question:
    r"""What a process is asked.

    Args:
        kernel (str): The kernel of the layer.
        nodes (int): Number of nodes.
        edges (int): Number of edges, drawn between any of them.
        heads (int): Number of heads.
        channels (int): Channels of a head.
        threads (int, optional): Threads of torch. (default: :obj:`1`)
    """

    kernel: str
    nodes: int
    edges: int
    heads: int = 4
    channels: int = 64
    threads: int = 1
    device = "cpu"


def bench_memory(
    sizes: Sequence[tuple[int, int]],
    kernels: Sequence[str] = KERNELS,
    path: Path | None = None,
    shown: bool = False,
    fresh: bool = False,
    **options: Any,
) -> list[Record]:
    r"""Weighs forward and backward of a layer on graphs of some sizes, each in a process of its own.

    Args:
        sizes (list of (int, int)): Numbers of nodes and edges.
        kernels (list of str, optional): Kernels of the layer. (default: :data:`KERNELS`)
        path (Path, optional): The file of records; none is written if :obj:`None`. (default: :obj:`None`)
        shown (bool, optional): Whether to show a progress bar. (default: :obj:`False`)
        fresh (bool, optional): Whether to measure also what the file holds. (default: :obj:`False`)
        **options (optional): More of :class:`Question`.

    Returns:
        list of dict: Records of kind :obj:`"memory"`: seconds of CPU time that sorting takes per edge, and
        the largest memory above features, edges and weights, in bytes, of sorting, of forward, and of forward
        and backward with the gradient that backward starts from; sorted edges count in all.

    Raises:
        ValueError: If a size is not positive.
        ChildProcessError: If there is not enough memory.
    """
    for nodes, edges in sizes:
        if nodes < 1 or edges < 1:
            raise ValueError(
                f"Expected at least a node and an edge (got {nodes} and {edges}); pass --sizes 0.03x1"
            )
    records: list[Record] = []
    questions = [Question(kernel, *size, **options) for size in sizes for kernel in kernels]
    with progress("bench memory", len(questions), shown=shown) as bar:
        for question in questions:
            label = f"{question.kernel}, {question.nodes:,} nodes, {question.edges:,} edges"
            bar.note(label)
            known = [] if fresh else worker.there(path, "memory", asdict(question))
            if known:
                records.append(known[-1])
            else:
                (answer,) = worker.ask(__name__, question, "memory")
                records.append({"kind": "memory", **asdict(question), **answer})
                if path is not None:
                    append(path, records[-1])
            bar.done(label, [_line(records[-1])], everywhere=True)
    return records


def _line(record: Record) -> str:
    sorting, forward, both = ((record[f"{what}_bytes"] or 0) / 2**30 for what in PEAKS)
    return (
        f"  sorting {record['sorting_seconds_per_edge'] * 1e9:.0f} ns per edge, {sorting:.2f} GiB; "
        f"forward {forward:.2f} GiB, and backward {both:.2f} GiB"
    )


def answers(question: Question) -> Iterator[Record]:
    r"""Answers in a fresh process."""
    torch.manual_seed(0)
    nodes, width = question.nodes, question.heads * question.channels
    edge_index = torch.randint(nodes, (2, question.edges))
    x = torch.randn(nodes, IN_CHANNELS)
    layer = KernelGATConv(
        IN_CHANNELS, question.channels, question.heads, kernel=question.kernel, add_self_loops=False
    )
    # What is allocated once, whatever the graph, is not of this graph.
    small = torch.randint(9, (2, 30))
    Adjacency.of(small, 1, 9, 9)
    layer(x[:9], small).sum().backward()
    layer.zero_grad(set_to_none=True)
    spent: list[float] = []
    sorted_edges: list[Adjacency] = []

    def sort() -> None:
        start = time.process_time()
        sorted_edges.append(Adjacency.of(edge_index, 1, nodes, nodes))
        spent.append((time.process_time() - start) / question.edges)

    def forward() -> Tensor:
        with torch.no_grad():
            return layer(x, edge_index)  # type: ignore[no-any-return]

    def both() -> None:
        out = layer(x, edge_index)
        out.backward(torch.ones_like(out))

    steps: tuple[measure.Step, ...] = (sort, forward, both)
    peaks = {name: measure.peak_bytes(step, "cpu") for name, step in zip(PEAKS, steps, strict=True)}
    kept = sum(tensor.nbytes for tensor in vars(sorted_edges[0]).values() if isinstance(tensor, Tensor))
    yield {
        "sorted_bytes": kept,
        **{
            f"{name}_bytes": peak if peak is None or name == "sorting" else peak + kept
            for name, peak in peaks.items()
        },
        "sorting_seconds_per_edge": float(f"{spent[0]:.3g}"),
        "node_bytes": 4 * nodes * width,  # of one number per node, head and channel
        **{name: value for name, value in circumstances("cpu").items() if name != "threads"},
    }
