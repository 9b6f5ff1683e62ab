r"""What one fresh process of ``kgat bench ops`` does: one subject on one graph, timed or weighed."""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kgat.experiments.bench import measure, rivals, worker
from kgat.experiments.bench.measure import Candidate
from kgat.experiments.bench.rivals import OURS, SUBJECTS
from kgat.experiments.bench.scenarios import SCENARIOS, SEED
from kgat.experiments.circumstances import circumstances
from kgat.ops.graph.adjacency import Adjacency

FORWARD, BOTH, MEMORY = "forward", "forward+backward", "memory"

# What a candidate that does not fit, or that torch.compile cannot compile, raises.
FAILURES = (RuntimeError, MemoryError, OSError)

Answers = Iterator[dict[str, Any]]


@dataclass(frozen=True)
class Question:
    r"""One job.

    Args:
        scenario (str): Name of the scenario.
        subject (str): Name of the subject.
        candidates (list of str): Which candidates take part, ours first.
        whats (list of str): What is asked: :data:`FORWARD` and :data:`BOTH`, or :data:`MEMORY` alone.
        regime (str): Name of the allocator regime the process was started in.
        device (str): Where to run.
        threads (int): CPU threads of torch.
        seconds (float): Time for all rounds.
        root (str, optional): Folder of the data sets. (default: :obj:`None`)
        other (str, optional): Folder of another copy of the package, which is the second candidate.
            (default: :obj:`None`)
        told (str, optional): Ours alone runs, when it is told to; this file takes what it computes, and its
            weights. (default: :obj:`None`)
        weights (str, optional): Such a file, whose weights it takes: copies of a package may draw others from
            one seed. (default: :obj:`None`)
    """

    scenario: str
    subject: str
    candidates: Sequence[str]
    whats: Sequence[str]
    regime: str
    device: str
    threads: int
    seconds: float
    root: str | None = None
    other: str | None = None
    told: str | None = None
    weights: str | None = None

    def key(self, candidate: str, what: str) -> dict[str, Any]:
        r"""Returns the fields that tell a record from all others."""
        return {
            "kind": "ops",
            "scenario": self.scenario,
            "subject": self.subject,
            "candidate": candidate,
            "what": what,
            "regime": self.regime,
            "on": torch.device(self.device).type,
            "cpu_threads": self.threads,
        }


def answers(question: Question) -> Answers:
    r"""Does the job; yields ``{"say": ...}`` for what is under way, ``{"record": ...}`` for a result.

    Args:
        question (Question): The job.
    """
    yield {"say": "reads the graph"}
    contest = _Contest(question)
    if question.told is not None:
        yield from contest.obey(question.told)
    elif MEMORY in question.whats:
        for name in question.candidates:
            yield from contest.weigh(name)
    else:
        yield {"say": "builds and checks"}
        yield from contest.check()
        yield from contest.take_turns()


def exact(question: Question) -> list[Tensor]:
    r"""Computes output and gradients in double precision."""
    return _Contest(question).exact()


class _Contest:
    def __init__(self, question: Question) -> None:
        self.question = question
        self.scenario = SCENARIOS[question.scenario]
        self.subject = SUBJECTS[question.subject]
        self.graph = self.scenario.load(question.root, question.device)
        self.candidates: dict[str, Candidate] = {}  # that compute the same
        self.forward_only: set[str] = set()
        self.clock = measure.clock_of(question.device, question.threads)
        self.on_cuda = question.device.startswith("cuda")
        self.sizes: dict[str, Any] = {
            "nodes": self.graph.x.size(0),
            "edges": self.graph.edge_index.size(1),
            "in_channels": self.graph.x.size(1),
            "heads": self.scenario.heads,
            "out_channels": self.scenario.out_channels,
            "graph": self.graph.source,
            "core": self.subject.core,
        }
        self.circumstances = {**circumstances(question.device), "processor": _processor()}
        for package in ("numba", "llvmlite", "triton", "dgl"):
            with suppress(PackageNotFoundError):
                self.circumstances["versions"][package] = version(package)
        generator = torch.Generator().manual_seed(SEED + 1)
        width = self.scenario.heads * self.scenario.out_channels
        grad = torch.randn(self.graph.x.size(0), width, generator=generator)
        self.grad = grad.to(self.graph.x.device)

    def build(self, name: str) -> Candidate:
        return rivals.build(self.subject, self.scenario, self.graph, [name])[name]

    def record(self, name: str, what: str, **result: Any) -> dict[str, Any]:
        key = self.question.key(name, what)
        return {"record": {**key, **self.sizes, **result, **self.circumstances}}

    def skip(self, name: str, reason: str, **more: Any) -> Answers:
        for what in self.question.whats:
            yield self.record(name, what, skipped=reason, **more)

    def check(self) -> Answers:
        r"""Builds all candidates and keeps those that compute what ours does."""
        ours, *others = self.question.candidates
        expected: list[Tensor] | None = None  # what ours computes
        for name in (ours, *others):
            if name != ours and expected is None:
                yield from self.skip(name, "not timed, as ours did not run")
                continue
            try:
                candidate = self.build(name)
                candidate.forward()
                found, why_not = self.values(candidate, expected is not None)
                if expected is None:
                    expected = found
                elif unequal := measure.check_equal(found, expected[: len(found)], self.exact):
                    yield from self.skip(name, unequal, unequal=True)
                    continue
                self.candidates[name] = candidate
            except FAILURES as error:
                yield from self.skip(name, _reason(error))
                continue
            if why_not is not None and BOTH in self.question.whats:
                self.forward_only.add(name)
                yield self.record(name, BOTH, skipped=why_not)

    def values(self, candidate: Candidate, rival: bool) -> tuple[list[Tensor], str | None]:
        r"""What a candidate computes; of a rival without a backward the output alone, and why."""
        try:
            return measure.run_once(candidate, self.grad), None
        except NotImplementedError as error:
            if not rival:
                raise
            candidate.clear()
            return [candidate.forward()], _reason(error)

    def exact(self) -> list[Tensor]:
        return measure.run_once(self.build(rivals.EXACT), self.grad.double())

    def obey(self, path: str) -> Answers:
        r"""Runs ours when it is told to. Its first answer is what records say of it."""
        candidate = self.build(OURS)
        if self.question.weights is not None:
            candidate.take(torch.load(self.question.weights)["weights"])
        values = measure.run_once(candidate, self.grad)
        torch.save({"values": values, "weights": candidate.weights}, path)
        candidate.forward()
        steps: dict[str, measure.Step] = {
            FORWARD: candidate.forward,
            BOTH: partial(candidate.forward_and_backward, self.grad),
        }
        yield {**self.sizes, **self.circumstances, "clock": self.clock}
        gc.collect()
        gc.disable()
        try:
            while True:
                what, repeats = worker.TOLD.get()
                once = {what: steps[what]}
                options: dict[str, Any] = {"most": 1, "clock": self.clock, "repeats": repeats}
                seconds = measure.take_turns(once, candidate.clear, math.inf, self.question.device, **options)
                candidate.clear()
                yield {"seconds": seconds[what][0]}
        finally:
            gc.enable()

    def weigh(self, name: str) -> Answers:
        r"""The peaks of one candidate, and what its first call costs."""
        device = self.question.device
        yield {"say": f"weighs {name}"}
        grad = self.grad
        result: dict[str, Any] = {}
        if name == OURS:
            edge_index, nodes = self.graph.edge_index.clone(), self.graph.x.size(0)
            Adjacency.of(edge_index.new_zeros(2, 1), 1, 1, 1)  # what is loaded or compiled for the first time
            seconds = measure.seconds_of(lambda: Adjacency.of(edge_index, 1, nodes, nodes), device)
            result["structure_seconds"] = float(f"{seconds:.4g}")
            # What the layer finds is remembered with the edges of the graph.
            Adjacency.of(self.graph.edge_index, 1, nodes, nodes)
        try:
            start = time.perf_counter()
            candidate = self.build(name)
            _, why_not = self.values(candidate, name != OURS)
            if self.on_cuda:
                torch.cuda.synchronize(device)
            result["first_seconds"] = float(f"{time.perf_counter() - start:.4g}")
            candidate.clear()
            candidate.forward()
            result["forward_bytes"] = measure.peak_bytes(candidate.forward, device)
            result["both_bytes"] = None
            if why_not is None:
                both = partial(candidate.forward_and_backward, grad)
                result["both_bytes"] = measure.peak_bytes(both, device)
        except FAILURES as error:
            yield from self.skip(name, _reason(error))
            return
        yield self.record(name, MEMORY, **result, **({"note": candidate.note} if candidate.note else {}))

    def take_turns(self) -> Answers:
        r"""Times the candidates."""
        question, candidates = self.question, self.candidates
        if not candidates:
            return
        linear = rivals.linear(self.scenario, self.graph, self.subject)
        all_of_them = {**candidates, "linear": linear}
        # The linear maps of a layer may be wider than its output.
        grads = dict.fromkeys(candidates, self.grad) | {"linear": torch.ones_like(linear.forward())}
        # A test has no time for large copies, and its figures mean nothing.
        block = 1 << 16 if self.scenario.name == "tiny" else measure.COPY_BYTES
        copy = measure.copy_speed(question.device, block)

        def prepare() -> None:
            for candidate in all_of_them.values():
                candidate.clear()

        for what in question.whats:
            yield {"say": what}
            steps: dict[str, measure.Step] = {
                name: one.forward if what == FORWARD else partial(one.forward_and_backward, grads[name])
                for name, one in all_of_them.items()
                if what == FORWARD or name not in self.forward_only
            }
            gc.collect()
            gc.disable()
            try:
                steps["linear"]()  # the others have run already
                budget = question.seconds / len(question.whats)
                repeats = measure.repeats_of(self.once(steps.values()), budget)
                options: dict[str, Any] = {"clock": self.clock, "repeats": repeats}
                seconds = measure.take_turns(steps, prepare, budget, question.device, **options)
            finally:
                gc.enable()
            prepare()
            for name in (name for name in candidates if name in steps):
                yield self.record(
                    name, what, **options, **self.timing(name, what, seconds, copy, candidates[name].note)
                )

    def once(self, steps: Iterable[measure.Step]) -> list[float]:
        r"""How long each step takes, up to the first that is not short."""
        seconds: list[float] = []
        for step in steps:
            seconds.append(measure.seconds_of(step, self.question.device, self.clock))
            if seconds[-1] >= measure.TURN:
                break
        return seconds

    def timing(
        self, name: str, what: str, seconds: dict[str, list[float]], copy: float, note: str | None
    ) -> dict[str, Any]:
        result: dict[str, Any] = {
            "seconds": measure.spread(seconds[name]),
            "rounds": len(seconds[name]),
            "linear_seconds": measure.spread(seconds["linear"]),
        }
        if note is not None:
            result["note"] = note
        if name != OURS:
            result |= measure.verdict(measure.ratios(seconds[name], seconds[OURS]))
            if not self.subject.core:
                result["ceiling"] = measure.ratios(seconds[name], seconds["linear"])
                result["own_part"] = measure.ratios(
                    *(_without(seconds[one], seconds["linear"]) for one in (name, OURS))
                )
        elif self.subject.core:
            moved = measure.compulsory_bytes(
                *(self.sizes["nodes"], self.sizes["edges"], self.scenario.heads, self.scenario.out_channels),
                features=rivals.features(self.subject, self.scenario),
                backward=what == BOTH,
            )
            speed = moved / result["seconds"][0]
            result["compulsory_bytes"] = moved
            result["bytes_per_second"] = float(f"{speed:.4g}")
            result["copy_bytes_per_second"] = float(f"{copy:.4g}")
            result["copy_fraction"] = float(f"{speed / copy:.4g}")
        return result


def _without(seconds: list[float], linear: list[float]) -> list[float]:
    # What is left of a layer without its projections; next to nothing where rounds vary by more than that.
    return [max(one - of_linear, 0.01 * one) for one, of_linear in zip(seconds, linear, strict=True)]


def _reason(error: BaseException) -> str:
    text = str(error).strip()
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text:
        return "out of memory"
    lines = text.splitlines()
    return f"{type(error).__name__}: {lines[0]}"[:200] if lines else type(error).__name__


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return os.environ.get("PROCESSOR_IDENTIFIER", "unknown")
