r"""Time and memory of training and inference on drawn graphs that lie on disk: ``kgat bench scale``."""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kgat.datasets import convert_arrays, load_mapped
from kgat.experiments import distributed, training
from kgat.experiments.bench import worker
from kgat.experiments.bench.measure import kilobytes, ratios, verdict
from kgat.experiments.circumstances import circumstances
from kgat.experiments.config import Config
from kgat.experiments.ledger import append

__all__ = ["bench_scale", "laid_out", "slopes"]

FAR = 100  # times: the memory of small graphs is that of libraries, whose slopes are noise
PHASES = ("convert", "train", "inference")
CLASSES = 40
TRAINED = 0.1  # of the nodes; half as many validate, and as many test
PIECE = 1 << 22
STATUS = Path("/proc/self/status")
OFTEN = 0.05  # seconds between two looks at memory
MEASURED = ("cpu_seconds", "resident", "anonymous")
UNITS = {"CPU seconds": 1, "MiB resident": 2**20, "MiB not of files": 2**20}  # in which slopes are said
TOGETHER: tuple[Callable[[list[Any]], Any], ...] = (sum, max, sum)  # of several processes

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
    processes: int = 1
    device = "cpu"  # of a worker

    @property
    def place(self) -> Path:
        return Path(self.folder) / f"drawn-{self.nodes}-{self.edges}-{self.channels}"


def bench_scale(
    sizes: Sequence[tuple[int, int]],
    folder: Path,
    path: Path | None = None,
    say: Callable[[Record], None] = lambda record: None,
    processes: int = 1,
    rounds: int = 1,
    **options: Any,
) -> list[Record]:
    r"""Draws graphs whose degrees follow a power law, trains an epoch of mini-batches on each and infers all
    of their nodes, each in a process of its own.

    Args:
        sizes (list of (int, int)): Numbers of nodes and edges.
        folder (Path): Where graphs are written; one that is there is taken.
        path (Path, optional): The file of records; none is written if :obj:`None`. (default: :obj:`None`)
        say (callable, optional): Called with each record. (default: does nothing)
        processes (int, optional): How many train together, in turns with one, if more than one.
            (default: :obj:`1`)
        rounds (int, optional): How often they take turns. (default: :obj:`1`)
        **options (optional): More of :class:`Question`.

    Returns:
        list of dict: Records of kind :obj:`"scale"`: seconds of CPUs and of the clock, and in bytes the
        largest memory that was resident, with the pages of files that were looked at (:obj:`resident`) and
        without them, which the system cannot take back (:obj:`anonymous`). With several processes, CPU
        seconds and :obj:`anonymous` are sums, :obj:`resident` is that of the largest; a record of phase
        :obj:`"speedup"` has the ratios of their samples per second to those of one, round by round.

    Raises:
        ValueError: If a size is not positive.
        ChildProcessError: If a process ends early, as for want of memory.
    """
    for nodes, edges in sizes:
        if nodes < 100 or edges < 1:
            raise ValueError(
                f"Expected at least 100 nodes and an edge (got {nodes} and {edges}); pass --sizes 2.4x60"
            )
    folder.mkdir(parents=True, exist_ok=True)
    records: list[Record] = []

    def put(question: Question, answer: Record) -> Record:
        asked = {name: value for name, value in asdict(question).items() if name not in ("folder", "threads")}
        record = {"kind": "scale", **asked, **answer}
        records.append(record)
        say(record)
        if path is not None:
            append(path, record)
        return record

    for nodes, edges in sizes:
        convert, train, infer = (Question(phase, str(folder), nodes, edges, **options) for phase in PHASES)
        if not convert.place.exists():
            put(convert, _asked(convert))
        rates: dict[int, list[float]] = {1: [], processes: []}
        for number in range(rounds):
            for many in sorted(rates, reverse=number % 2 == 1):
                question = replace(train, processes=many)
                rates[many].append(put(question, _asked(question))["samples_per_second"])
        if processes > 1:
            of_all = replace(train, phase="speedup", processes=processes)
            of_last = {name: records[-1][name] for name in circumstances(train.device)}
            put(of_all, {**of_last, **verdict(ratios(rates[processes], rates[1]))})
        put(infer, _asked(infer))
    return records


def _asked(question: Question) -> Record:
    # What all processes say, and of what is theirs together the sum.
    number = question.processes
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def ask(rank: int) -> Record:
        names = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": number, "RANK": rank}
        environment = {name: str(value) for name, value in {**names, "LOCAL_RANK": rank}.items()}
        return next(iter(list(worker.ask(__name__, question, "R1", environment))))

    with ThreadPoolExecutor(number) as pool:
        answers = list(pool.map(ask, range(number)))
    values = {name: [answer[name] for answer in answers] for name in MEASURED}
    together = {
        name: None if None in values[name] else round(join(values[name]), 2)
        for name, join in zip(MEASURED, TOGETHER, strict=True)
    }
    return {**answers[0], **together}


def answers(question: Question) -> Iterator[Record]:
    r"""Runs a phase in this process."""
    if question.phase == "convert":
        draw(question.place.with_suffix(".source"), question.nodes, question.edges, question.channels)
    load = round(os.getloadavg()[0], 2)  # of others: the number of processes that would run
    with _watched() as memory:
        more = {"convert": _convert, "train": _train, "inference": _infer}[question.phase](question)
    yield {
        **circumstances(question.device),
        "cores": os.cpu_count(),
        "load": load,
        **memory,
        **more,
    }


@contextmanager
def _timed() -> Iterator[dict[str, float]]:
    spent: dict[str, float] = {}
    start, begin = time.process_time(), time.perf_counter()
    yield spent
    spent["cpu_seconds"] = round(time.process_time() - start, 2)
    spent["seconds"] = round(time.perf_counter() - begin, 2)


@contextmanager
def _watched() -> Iterator[dict[str, int | None]]:
    # The system keeps the peak of all that is resident, and not of what is not a file's.
    memory: dict[str, int | None] = {"resident": None, "anonymous": None}
    done, largest = threading.Event(), 0

    def watch() -> None:
        nonlocal largest
        while not done.wait(OFTEN):
            largest = max(largest, kilobytes(str(STATUS), "RssAnon"))

    known = STATUS.exists()
    watcher = threading.Thread(target=watch, daemon=True)
    if known:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is in use
        watcher.start()
    yield memory
    done.set()
    if known:
        watcher.join()
        largest = max(largest, kilobytes(str(STATUS), "RssAnon"))
        memory |= {"resident": 1024 * kilobytes(str(STATUS), "VmHWM"), "anonymous": 1024 * largest}


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
    with _timed() as spent:
        convert_arrays(source, question.place, name="drawn")
    for path in source.iterdir():
        path.unlink()
    source.rmdir()
    return spent


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
        with _timed() as spent:
            loss = trainer.step()
    return {
        **spent,
        **{"batches": trainer.num_batches, "samples": trainer.train_size, "loss": round(loss, 4)},
        "samples_per_second": round(trainer.train_size / max(spent["seconds"], 0.01), 1),
    }


def _infer(question: Question) -> Record:
    task, config = load_mapped(question.place), _config(question)
    model: Any = training.build(task, config).to(question.device).eval()
    bounds = {"rows": question.rows, "edges": question.slice_edges}
    model.inference(torch.zeros(2, question.channels), torch.tensor([[0], [1]]), **bounds)  # as above
    with _timed() as spent:
        output = model.inference(task.data.x, task.data.edge_index, **bounds)
    return {**spent, "mean": round(float(output.mean()), 6)}


def slopes(records: Sequence[Record], phase: str) -> dict[str, tuple[float, float, float]] | None:
    r"""Returns what a phase takes at the start, per node and per edge, by the plane through what was measured
    in one process; nothing unless there are three sizes that are not on one line.

    .. math::
        a + b N + c E

    Args:
        records (list of dict): Records of :func:`bench_scale`.
        phase (str): The phase.

    Example:
        >>> records = [
        ...     {"phase": "train", "processes": 1, "nodes": n, "edges": e}
        ...     | dict.fromkeys(MEASURED, 10 + 2 * n + 3 * e)
        ...     for n, e in ((100, 100), (100, 200), (200, 200))
        ... ]
        >>> [round(slope) for slope in slopes(records, "train")["resident"]]
        [10, 2, 3]
    """
    chosen = [r for r in records if r["phase"] == phase and r["processes"] == 1 and r["resident"] is not None]
    plane = np.array([[1.0, record["nodes"], record["edges"]] for record in chosen]).reshape(-1, 3)
    largest = plane.max(axis=0, initial=1.0)
    if np.linalg.matrix_rank(plane / largest, tol=1e-6) < 3:
        return None
    measured = np.array([[float(record[name]) for name in MEASURED] for record in chosen])
    # Small and large graphs count alike: what matters is the share by which it is missed.
    fit = [
        np.linalg.lstsq(plane / largest / column[:, None], np.ones(len(chosen)), rcond=None)[0] / largest
        for column in measured.T
    ]
    return {name: tuple(map(float, line)) for name, line in zip(MEASURED, fit, strict=True)}  # type: ignore[misc]


def laid_out(records: Sequence[Record], nodes: int, edges: int) -> str:
    r"""Returns records as a table in Markdown, and what slopes say of a graph of another size, if it is at
    most :data:`FAR` times as large as the largest that was measured.

    Args:
        records (list of dict): Records of :func:`bench_scale`, of one setting.
        nodes (int): Number of nodes of that graph.
        edges (int): Number of edges of that graph.
    """
    lines = [
        "| phase | nodes | edges | CPU seconds | resident | of it not of files | nodes a second | load |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]

    def line(what: str, nodes: int, edges: int, values: Sequence[float | None], *rest: object) -> str:
        seconds, *memory = values
        shown = " | ".join("?" if size is None else f"{size / 2**30:,.2f} GiB" for size in memory)
        return f"| {what} | {nodes:,} | {edges:,} | {seconds:,.0f} | {shown} | {' | '.join(map(str, rest))} |"

    target = {"nodes": nodes, "edges": edges}
    notes = []
    for record in records:
        several = f" in {record['processes']} processes" if record["processes"] > 1 else ""
        if record["phase"] == "speedup":
            middle, low, high = record["ratio"]
            notes.append(
                f"On {record['nodes']:,} nodes and {record['edges']:,} edges, "
                f"{record['processes']} processes "
                f"train {middle:.2f} times the nodes a second of one ({low:.2f} to {high:.2f})"
                f"{', which others disturbed' * record['contended']}."
            )
            continue
        rate = f"{record['samples_per_second']:,.0f}" if "samples_per_second" in record else ""
        values = [record[name] for name in MEASURED]
        lines.append(
            line(record["phase"] + several, record["nodes"], record["edges"], values, rate, record["load"])
        )
    for phase in ("train", "inference"):
        of_phase = [record for record in records if record["phase"] == phase]
        near = all(FAR * max((r[name] for r in of_phase), default=0) >= size for name, size in target.items())
        if near and (fit := slopes(records, phase)):
            expected = [a + b * nodes + c * edges for a, b, c in fit.values()]
            lines.append(line(f"{phase}, by slopes", nodes, edges, expected, "", ""))
            per = "; ".join(
                f"{b * 1e6 / unit:,.1f} {name} per million nodes and {c * 1e6 / unit:,.1f} per million edges"
                for (name, unit), (_, b, c) in zip(UNITS.items(), fit.values(), strict=True)
            )
            notes.append(f"Slopes of {phase}: {per}.")
    return "\n\n".join(["\n".join(lines), *notes])
