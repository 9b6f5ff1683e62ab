r"""What one fresh process of ``kgat bench ops`` does: one subject on one graph, timed or weighed.

The process gets its question as JSON on the command line and answers on stdout, in JSON text sequences (RFC
7464), so that whatever a library prints is told apart.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kgat.experiments.bench import measure, rivals
from kgat.experiments.bench.rivals import OURS, SUBJECTS, Candidate
from kgat.experiments.bench.scenarios import SCENARIOS, SEED, Graph
from kgat.experiments.circumstances import circumstances
from kgat.experiments.costs import CONTENDED
from kgat.ops.graph.adjacency import Adjacency

FORWARD, BOTH, MEMORY = "forward", "forward+backward", "memory"
SEPARATOR = "\x1e"
ORPHANED = 3  # exit code

# What a candidate that does not fit, or that torch.compile cannot compile, raises.
FAILURES = (RuntimeError, MemoryError, OSError)

Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Question:
    r"""One job.

    Args:
        scenario (str): Name of the scenario.
        subject (str): Name of the subject.
        candidates (tuple of str): Which candidates take part, ours first.
        whats (tuple of str): What is asked: :data:`FORWARD` and :data:`BOTH`, or :data:`MEMORY` alone.
        regime (str): Name of the allocator regime the process was started in.
        device (str): Where to run.
        threads (int): CPU threads of torch.
        seconds (float): Time for all rounds.
        root (str, optional): Folder of the data sets. (default: :obj:`None`)
    """

    scenario: str
    subject: str
    candidates: tuple[str, ...]
    whats: tuple[str, ...]
    regime: str
    device: str
    threads: int
    seconds: float
    root: str | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Question:
        fields = json.loads(text)
        fields["candidates"], fields["whats"] = tuple(fields["candidates"]), tuple(fields["whats"])
        return cls(**fields)

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


def main() -> None:
    r"""Answers the question on the command line."""
    question = Question.from_json(sys.argv[-1])
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    logging.getLogger("kgat").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    torch.set_num_threads(question.threads)
    if question.device == "cpu":
        measure.limit_memory()
    else:
        torch.cuda.set_device(question.device)  # events are of the current device

    def tell(answer: dict[str, Any]) -> None:
        sys.stdout.write(f"{SEPARATOR}{json.dumps(answer, allow_nan=False)}\n")
        sys.stdout.flush()

    answer_question(question, tell)


def _leave_with_parent() -> None:
    # The parent never writes; where it was killed, the pipe ends, and nobody waits for an answer any more.
    sys.stdin.read()
    os._exit(ORPHANED)


def answer_question(question: Question, tell: Tell) -> None:
    r"""Does the job.

    Args:
        question (Question): The job.
        tell (callable): Called with ``{"say": ...}`` for what is under way, ``{"record": ...}`` for a result.
    """
    scenario, subject = SCENARIOS[question.scenario], SUBJECTS[question.subject]
    tell({"say": "reads the graph"})
    graph = scenario.load(question.root, question.device)
    job = _Job(question, graph, tell)
    if question.whats == (MEMORY,):
        for name in question.candidates:
            job.weigh(name)
        return
    tell({"say": "builds and checks"})
    candidates, expected, grad = {}, None, job.gradient()
    for name in question.candidates:
        try:
            candidate = rivals.build(subject, scenario, graph, [name])[name]
            if expected is None:
                candidate.forward()
                expected = measure.run_once(candidate, grad)
                unequal = None
            else:
                candidate.forward()
                unequal = measure.check_equal(candidate, expected, grad)
        except FAILURES as error:
            job.skip(name, _reason(error))
            if name == OURS:
                for other in question.candidates[1:]:
                    job.skip(other, "not timed, as ours did not run")
                return
            continue
        if unequal is None:
            candidates[name] = candidate
        else:
            job.skip(name, unequal, unequal=True)
    del expected
    job.take_turns(candidates, grad)


class _Job:
    def __init__(self, question: Question, graph: Graph, tell: Tell) -> None:
        self.question = question
        self.graph = graph
        self.tell = tell
        self.scenario = SCENARIOS[question.scenario]
        self.subject = SUBJECTS[question.subject]
        self.sizes: dict[str, Any] = {
            "nodes": graph.x.size(0),
            "edges": graph.edge_index.size(1),
            "in_channels": graph.x.size(1),
            "heads": self.scenario.heads,
            "out_channels": self.scenario.out_channels,
            "graph": graph.source,
            "core": self.subject.core,
        }
        found = circumstances(question.device)
        for package in ("numba", "triton", "dgl"):
            try:
                found["versions"][package] = version(package)
            except PackageNotFoundError:
                continue
        self.circumstances = {**found, "processor": _processor()}

    def gradient(self) -> Tensor:
        generator = torch.Generator().manual_seed(SEED + 1)
        width = self.scenario.heads * self.scenario.out_channels
        return torch.randn(self.graph.x.size(0), width, generator=generator).to(self.graph.x.device)

    def record(self, name: str, what: str, **found: Any) -> None:
        key = self.question.key(name, what)
        self.tell({"record": {**key, **self.sizes, **found, **self.circumstances}})

    def skip(self, name: str, reason: str, **more: Any) -> None:
        for what in self.question.whats:
            self.record(name, what, skipped=reason, **more)

    def weigh(self, name: str) -> None:
        r"""The peaks of one candidate, and what its first call costs."""
        device = self.question.device
        self.tell({"say": f"weighs {name}"})
        grad = self.gradient()
        found: dict[str, Any] = {}
        if name == OURS:
            edge_index, nodes = self.graph.edge_index.clone(), self.graph.x.size(0)
            Adjacency.of(edge_index.new_zeros(2, 1), 1, 1, 1)  # what is loaded or compiled for the first time
            seconds = measure.seconds_of(lambda: Adjacency.of(edge_index, 1, nodes, nodes), device)
            found["structure_seconds"] = float(f"{seconds:.4g}")
            # What the layer finds is remembered with the edges of the graph.
            Adjacency.of(self.graph.edge_index, 1, nodes, nodes)
        try:
            start = time.perf_counter()
            candidate = rivals.build(self.subject, self.scenario, self.graph, [name])[name]
            candidate.forward_and_backward(grad)
            if device.startswith("cuda"):
                torch.cuda.synchronize(device)
            found["first_seconds"] = float(f"{time.perf_counter() - start:.4g}")
            candidate.clear()
            candidate.forward()
            found["forward_bytes"] = measure.peak_bytes(candidate.forward, device)
            found["both_bytes"] = measure.peak_bytes(lambda: candidate.forward_and_backward(grad), device)
        except FAILURES as error:
            self.skip(name, _reason(error))
            return
        self.record(name, MEMORY, **found, **({"note": candidate.note} if candidate.note else {}))

    def take_turns(self, candidates: dict[str, Candidate], grad: Tensor) -> None:
        question = self.question
        linear = rivals.linear(self.scenario, self.graph, self.subject)
        all_of_them = {**candidates, "linear": linear}
        copy = measure.copy_speed(question.device, self.copy_bytes())

        def prepare() -> None:
            for candidate in all_of_them.values():
                candidate.clear()

        for what in question.whats:
            self.tell({"say": what})
            # The linear maps of a layer may be wider than its output.
            grads = dict.fromkeys(candidates, grad) | {"linear": torch.ones_like(linear.forward())}

            def step(name: str, what: str = what, grads: dict[str, Tensor] = grads) -> Callable[[], Tensor]:
                candidate = all_of_them[name]
                if what == FORWARD:
                    return candidate.forward
                return lambda: candidate.forward_and_backward(grads[name])

            gc.collect()
            gc.disable()
            try:
                steps = {name: step(name) for name in all_of_them}
                steps["linear"]()  # the others have run already
                budget = question.seconds / len(question.whats)
                seconds = measure.take_turns(steps, prepare, budget, question.device)
            finally:
                gc.enable()
            prepare()
            for name in candidates:
                self.record(name, what, **self.timing(name, what, seconds, copy, candidates[name].note))

    def timing(
        self, name: str, what: str, seconds: dict[str, list[float]], copy: float, note: str | None
    ) -> dict[str, Any]:
        found: dict[str, Any] = {
            "seconds": measure.spread(seconds[name]),
            "rounds": len(seconds[name]),
            "linear_seconds": measure.spread(seconds["linear"]),
        }
        if note is not None:
            found["note"] = note
        if name != OURS:
            found["ratio"] = measure.ratios(seconds[name], seconds[OURS])
            found["contended"] = found["ratio"][2] / found["ratio"][1] > CONTENDED
            if not self.subject.core:
                found["ceiling"] = measure.ratios(seconds[name], seconds["linear"])
        elif self.subject.core:
            moved = measure.compulsory_bytes(
                *(self.sizes["nodes"], self.sizes["edges"], self.scenario.heads, self.scenario.out_channels),
                features=rivals.features(self.subject, self.scenario),
                backward=what == BOTH,
            )
            speed = moved / found["seconds"][0]
            found["compulsory_bytes"] = moved
            found["bytes_per_second"] = float(f"{speed:.4g}")
            found["copy_bytes_per_second"] = float(f"{copy:.4g}")
            found["copy_fraction"] = float(f"{speed / copy:.4g}")
        return found

    def copy_bytes(self) -> int:
        # A test has no time for large copies, and its figures mean nothing.
        return 1 << 16 if self.scenario.name == "tiny" else measure.COPY_BYTES


def _reason(error: BaseException) -> str:
    text = str(error).strip()
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text:
        return "out of memory"
    lines = text.splitlines()
    return f"{type(error).__name__}: {lines[0]}"[:200] if lines else type(error).__name__


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return os.environ.get("PROCESSOR_IDENTIFIER", "unknown")


if __name__ == "__main__":
    main()
