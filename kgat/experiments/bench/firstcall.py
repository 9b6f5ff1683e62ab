r"""What a first call costs, before anything is compiled and after: ``kgat bench firstcall``."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kgat import kernels
from kgat.experiments.bench import worker
from kgat.experiments.circumstances import circumstances
from kgat.experiments.ledger import append
from kgat.functional import edge_attention
from kgat.score.gram import Gram, LazyGram
from kgat.score.rules import Pair, ScoreRule
from kgat.score.scalar import exp

NEW_RULE = "a new rule"  # as a user writes one
HEADS, CHANNELS = 8, 8
NODES, EDGES = 20, 60  # so few that nothing but the compiler takes time


@dataclass(frozen=True)
class Question:
    r"""What a process is asked.

    Args:
        kernel (str): The name of a kernel, or :data:`NEW_RULE`.
        device (str, optional): Where to run. (default: :obj:`"cpu"`)
        threads (int, optional): Threads of torch. (default: :obj:`1`)
    """

    kernel: str
    device: str = "cpu"
    threads: int = 1


def bench_firstcall(
    names: Sequence[str] = (),
    path: Path | None = None,
    say: Callable[[dict[str, Any]], None] = lambda record: None,
) -> list[dict[str, Any]]:
    r"""Measures the CPU time of the first forward and backward pass of kernels, each in a process of its own.

    The first process of a kernel has an empty folder of compiled code, the second that which the first left.
    Importing torch and this package is not in it, sorting the edges is.

    Args:
        names (list, optional): Kernels, by name; all, and a new rule, if empty. (default: :obj:`()`)
        path (Path, optional): The file of records; none is written if :obj:`None`. (default: :obj:`None`)
        say (callable, optional): Called with each record. (default: does nothing)

    Returns:
        list of dict: Records of kind :obj:`"firstcall"`: seconds of forward and backward, :obj:`cold` and
        :obj:`warm`, and how many loops were compiled.

    Raises:
        ValueError: If there is no such kernel.
    """
    for name in names:
        if name != NEW_RULE:
            kernels.resolve(name, channels=CHANNELS)
    records = []
    for name in names or [*kernels.names(), NEW_RULE]:
        if name != NEW_RULE and _gram(name).signed:  # which has no attention of its own
            continue
        record: dict[str, Any] = {"kind": "firstcall", "kernel": name, "heads": HEADS, "channels": CHANNELS}
        with tempfile.TemporaryDirectory() as folder:
            for run in ("cold", "warm"):
                environment = {"NUMBA_CACHE_DIR": folder}
                record[run] = next(worker.ask(__name__, Question(name), "R1", environment))
        records.append({**record, **circumstances("cpu")})
        say(records[-1])
        if path is not None:
            append(path, records[-1])
    return records


def _gram(name: str) -> Gram:
    x = torch.randn(NODES, HEADS, CHANNELS, requires_grad=True)
    if name == NEW_RULE:
        return LazyGram.of(x, x, ScoreRule(Pair("unheard_of", lambda x, y: exp(-(x - y) * (x - y)))))
    return kernels.resolve(name, channels=CHANNELS, heads=HEADS)(x, x)


def answers(question: Question) -> Iterator[dict[str, Any]]:
    r"""Answers in a fresh process."""
    torch.manual_seed(0)
    value = torch.randn(NODES, HEADS, CHANNELS, requires_grad=True)
    edge_index = torch.randint(NODES, (2, EDGES))
    start = time.process_time()
    out = edge_attention(_gram(question.kernel), value, edge_index)
    middle = time.process_time()
    out.sum().backward()
    end = time.process_time()

    from kgat.ops.cpu.runtime import Loop

    yield {"forward": middle - start, "backward": end - middle, "compiled": Loop.compiled}
