r"""Time and memory of training and inference on drawn graphs that lie on disk: ``kgat bench scale``."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kgat.datasets import convert_arrays, load_mapped
from kgat.experiments import distributed, training
from kgat.experiments.bench import worker
from kgat.experiments.bench.measure import kilobytes
from kgat.experiments.circumstances import circumstances
from kgat.experiments.config import Config
from kgat.experiments.ledger import append

__all__ = ["bench_scale", "extrapolated"]

PHASES = ("convert", "train", "inference")
CLASSES = 40
TRAINED = 0.1  # of the nodes; half as many validate, and as many test
PIECE = 1 << 22

Array = NDArray[Any]
Record = dict[str, Any]


@dataclass(frozen=True)
class Question:
    r"""One phase on one graph, in a process of its own.

    Args:
        phase (str): One of :data:`PHASES`.
        folder (str): Where graphs lie.
        nodes (int): Number of nodes.
        edges (int): Number of edges.
        channels (int): Number of features.
        model (str): The model.
        batch_size (int): Nodes of a batch.
        neighbors (str): Neighbours per hop.
        hidden_channels (int): Width of the hidden layers.
        heads (int): Number of heads.
        rows (int): Targets of a slice of inference.
        slice_edges (int): Edges of a slice of inference.
        threads (int): CPU threads.
        device (str): Where to run.
        processes (int): How many train together.
    """

    phase: str
    folder: str
    nodes: int
    edges: int
    channels: int = 128
    model: str = "rbf"
    batch_size: int = 1024
    neighbors: str = "15,10"
    hidden_channels: int = 128
    heads: int = 4
    rows: int = 16_384
    slice_edges: int = 262_144
    threads: int = 1
    device: str = "cpu"
    processes: int = 1

    @property
    def place(self) -> Path:
        return Path(self.folder) / f"drawn-{self.nodes}-{self.edges}-{self.channels}"


def bench_scale(
    sizes: Sequence[tuple[int, int]],
    folder: Path,
    path: Path | None = None,
    say: Callable[[Record], None] = lambda record: None,
    processes: int = 1,
    **options: Any,
) -> list[Record]:
    r"""Draws graphs whose degrees follow a power law, trains an epoch of mini-batches on each and infers all
    of their nodes, each in a process of its own.

    Args:
        sizes (list of (int, int)): Numbers of nodes and edges.
        folder (Path): Where graphs are written; one that is there is taken.
        path (Path, optional): The file of records; none is written if :obj:`None`. (default: :obj:`None`)
        say (callable, optional): Called with each record. (default: does nothing)
        processes (int, optional): How many train together in one more run of each size. (default: :obj:`1`)
        **options (optional): More of :class:`Question`.

    Returns:
        list of dict: Records of kind :obj:`"scale"`: seconds of one CPU and of the clock, the largest
        resident memory in bytes with the pages of files that were looked at (:obj:`resident`), and without
        them at the end (:obj:`anonymous`).

    Raises:
        ValueError: If a size is not positive.
        ChildProcessError: If a process ends early, as for want of memory.
    """
    for nodes, edges in sizes:
        if nodes < 100 or edges < 1:
            raise ValueError(f"Expected at least 100 nodes and an edge (got {nodes} and {edges})")
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for nodes, edges in sizes:
        questions = [Question(phase, str(folder), nodes, edges, **options) for phase in PHASES]
        if processes > 1:
            questions.append(replace(questions[1], processes=processes))
        for question in questions:
            if question.phase == "convert" and question.place.exists():
                continue
            for answer in _asked(question):
                sizes_of = {name: value for name, value in asdict(question).items() if name != "folder"}
                # Last what is of the process that was asked, such as its threads.
                record = {"kind": "scale", **circumstances(question.device), **sizes_of, **answer}
                records.append(record)
                say(records[-1])
                if path is not None:
                    append(path, records[-1])
    return records


def _asked(question: Question) -> list[Record]:
    # What the first of the processes says.
    number = question.processes
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def ask(rank: int) -> list[Record]:
        names = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": number, "RANK": rank}
        environment = {name: str(value) for name, value in {**names, "LOCAL_RANK": rank}.items()}
        return list(worker.ask(__name__, question, "R1", environment))

    with ThreadPoolExecutor(number) as pool:
        return next(iter(list(pool.map(ask, range(number)))))


def answers(question: Question) -> Iterator[Record]:
    r"""Runs a phase in this process."""
    if question.phase == "convert":
        draw(question.place.with_suffix(".source"), question.nodes, question.edges, question.channels)
    start, begin = time.process_time(), time.perf_counter()
    more = {"convert": _convert, "train": _train, "inference": _infer}[question.phase](question)
    status = "/proc/self/status"
    known = Path(status).exists()
    yield {
        "cpu_seconds": round(time.process_time() - start, 2),
        "seconds": round(time.perf_counter() - begin, 2),
        "resident": 1024 * kilobytes(status, "VmHWM") if known else None,
        "anonymous": 1024 * kilobytes(status, "RssAnon") if known else None,
        **more,
    }


def draw(folder: Path, nodes: int, edges: int, channels: int) -> None:
    r"""Writes what :func:`kgat.datasets.convert_arrays` reads: a graph whose degrees of both directions
    follow a power law with exponent 3, random features and classes."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    spread = next(number for number in range(0x9E3779B1, 1 << 33, 2) if math.gcd(number, nodes) == 1)
    ends = np.lib.format.open_memmap(folder / "edges.npy", mode="w+", dtype=np.int64, shape=(2, edges))
    for begin in range(0, edges, PIECE):
        for row in ends:
            piece = row[begin : begin + PIECE]
            rank = (nodes * rng.random(len(piece)) ** 2).astype(np.int64)
            piece[:] = rank * spread % nodes  # or a node would be the neighbour of those with its degree
    x = np.lib.format.open_memmap(folder / "x.npy", mode="w+", dtype=np.float32, shape=(nodes, channels))
    step = max(1, PIECE // channels)
    for begin in range(0, nodes, step):
        x[begin : begin + step] = rng.standard_normal((min(step, nodes - begin), channels), np.float32)
    np.save(folder / "y.npy", rng.integers(0, CLASSES, nodes))
    order, part = rng.permutation(nodes), int(TRAINED * nodes / 2)
    for name, begin, end in (("train", 0, 2), ("val", 2, 3), ("test", 3, 4)):
        np.save(folder / f"{name}.npy", np.sort(order[begin * part : end * part]))


def _convert(question: Question) -> Record:
    source = question.place.with_suffix(".source")
    convert_arrays(source, question.place, name="drawn")
    for path in source.iterdir():
        path.unlink()
    source.rmdir()
    return {}


def _config(question: Question) -> Config:
    return Config(
        dataset="drawn",
        model=question.model,
        batch_size=question.batch_size,
        neighbors=question.neighbors,
        num_layers=len(question.neighbors.split(",")),
        hidden_channels=question.hidden_channels,
        heads=question.heads,
    )


def _train(question: Question) -> Record:
    task, config = load_mapped(question.place), _config(question)
    with distributed.joined(question.device) as device:
        model = training.build(task, config).to(device)
        trainer = training.trainer_of(model, task.visible(task.split(0)), config)
        for output, _, _ in trainer.train_batches():  # what is compiled is compiled before the clock starts
            output.sum().backward()
            break
        begin = time.perf_counter()
        loss = trainer.step()
        rate = trainer.train_size / (time.perf_counter() - begin)
    return {
        **{"batches": trainer.num_batches, "samples": trainer.train_size},
        **{"samples_per_second": round(rate, 1), "loss": round(loss, 4)},
    }


def _infer(question: Question) -> Record:
    task, config = load_mapped(question.place), _config(question)
    model: Any = training.build(task, config).to(question.device).eval()
    with torch.no_grad():
        output = model.inference(
            task.data.x, task.data.edge_index, rows=question.rows, edges=question.slice_edges
        )
    return {"mean": round(float(output.mean()), 6)}


def extrapolated(records: Sequence[Record], phase: str, nodes: int, edges: int) -> dict[str, float] | None:
    r"""Returns what a phase would take on another graph, by the plane through what was measured:
    :math:`a + b N + c E`; nothing unless there are three sizes that are not on one line.

    Args:
        records (list of dict): Records of :func:`bench_scale`.
        phase (str): The phase.
        nodes (int): Number of nodes :math:`N`.
        edges (int): Number of edges :math:`E`.

    Example:
        >>> records = [
        ...     {"phase": "train", "nodes": n, "edges": e, "resident": 10 + 2 * n + 3 * e, "cpu_seconds": n}
        ...     for n, e in ((100, 100), (100, 200), (200, 200))
        ... ]
        >>> extrapolated(records, "train", 1000, 1000)
        {'resident': 5010.0, 'cpu_seconds': 1000.0}
    """
    chosen = [
        record
        for record in records
        if record["phase"] == phase and record["resident"] is not None and record.get("processes", 1) == 1
    ]
    plane = np.array([[1.0, record["nodes"], record["edges"]] for record in chosen]).reshape(-1, 3)
    plane, scale = plane / (largest := plane.max(axis=0, initial=1.0)), largest
    if np.linalg.matrix_rank(plane, tol=1e-6) < 3:
        return None
    names = ("resident", "cpu_seconds")
    measured = np.array([[float(record[name]) for name in names] for record in chosen])
    slopes = np.linalg.lstsq(plane, measured, rcond=None)[0]
    at = np.array([1.0, nodes, edges]) / scale
    return {name: round(float(value), 1) for name, value in zip(names, at @ slopes, strict=True)}
