r"""``kgat bench ops``: all subjects in all scenarios, in fresh processes, each result kept at once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kgat.experiments.bench import against, contest, rivals, worker
from kgat.experiments.bench.contest import BOTH, FORWARD, MEMORY, Question
from kgat.experiments.bench.rivals import OURS, SUBJECTS
from kgat.experiments.bench.scenarios import SCENARIOS, named
from kgat.experiments.engine import Engine, Job

Record = dict[str, Any]
Launch = Callable[[Question, Mapping[str, str]], Iterator[Record]]
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Plan:
    r"""What shall be measured.

    Args:
        scenarios (list of str): Names of scenarios.
        subjects (list of str, optional): Names of subjects, all if empty. (default: :obj:`()`)
        candidates (list of str, optional): Names of rivals, all if empty. (default: :obj:`()`)
        device (str, optional): Where to run. (default: :obj:`"cpu"`)
        threads (int, optional): CPU threads of torch. (default: :obj:`1`)
        seconds (float, optional): Time for the rounds of one subject in one regime. (default: :obj:`20`)
        root (str, optional): Folder of the data sets. (default: :obj:`None`)
        other (str, optional): Folder of another copy of the package, which is then the only rival.
            (default: :obj:`None`)
        regimes (list of str, optional): Names of allocator regimes and of what weighs, all if empty.
            (default: :obj:`()`)
    """

    scenarios: Sequence[str]
    subjects: Sequence[str] = ()
    candidates: Sequence[str] = ()
    device: str = "cpu"
    threads: int = 1
    seconds: float = 20.0
    root: str | None = None
    other: str | None = None
    regimes: Sequence[str] = ()

    def jobs(self) -> Iterator[Question]:
        r"""Yields one question per process, in the order of the processes.

        Raises:
            ValueError: If a name is unknown, or the other copy is none or not the only rival.
        """
        if self.other is not None and self.candidates:
            raise ValueError(
                f"Expected another copy as the only rival (got {', '.join(self.candidates)}); leave one out"
            )
        copies = None if self.other is None else [OURS, against.name_of(self.other)]
        scenarios = named(self.scenarios, SCENARIOS, "scenarios", some=True)
        subjects = named(self.subjects, SUBJECTS, "subjects")
        known = {name: name for subject in SUBJECTS.values() for name in subject.candidates[1:]}
        wanted = named(self.candidates, known, "rivals")
        cuda = self.device.startswith("cuda")
        memory, *times = ("cuda memory", "cuda") if cuda else ("memory", "R1", "R2")
        asked = named(self.regimes, {name: name for name in (memory, *times)}, "regimes")
        for scenario in scenarios:
            for subject in subjects:
                there = (name for name in subject.candidates if rivals.fits(name, scenario))
                names = copies or [OURS, *(name for name in there if name in wanted)]
                here = (self.device, self.threads, self.seconds, self.root, self.other)
                # First what a first call costs and the peaks: caches of compiled code are empty then.
                for name in names if memory in asked else ():
                    yield Question(scenario.name, subject.name, [name], [MEMORY], memory, *here)
                for regime in (regime for regime in times if regime in asked):
                    yield Question(scenario.name, subject.name, names, [FORWARD, BOTH], regime, *here)


class UnequalError(ValueError):
    r"""Some candidates did not compute what ours does, and were not timed."""


def run(
    plan: Plan, path: Path, *, fresh: bool = False, progress: bool = False, launch: Launch | None = None
) -> list[Record]:
    r"""Measures what a file of records does not hold yet, and appends each result as soon as it is there.

    Args:
        plan (Plan): What to measure.
        path (Path): The file of records.
        fresh (bool, optional): Whether to measure also what is there. (default: :obj:`False`)
        progress (bool, optional): Whether to show a bar, or a line per process where stderr is no terminal.
            (default: :obj:`False`)
        launch (callable, optional): Yields the answers to one question, given variables of the environment;
            those of a fresh process if :obj:`None`. (default: :obj:`None`)

    Returns:
        list of dict: The new records.

    Raises:
        Interrupted: If the user stopped it.
        UnequalError: In the end, if candidates did not compute the same.
    """
    jobs: list[Job] = []
    with tempfile.TemporaryDirectory(prefix="kgat-bench-", ignore_cleanup_errors=True) as caches:

        def work(question: Question, note: Callable[[str], None]) -> Iterator[Record]:
            todo, absent = _remaining(question, {_key(record): record for record in engine.records[begun:]})
            yield from absent
            if todo is None:
                return
            answered = set()
            try:
                for answer in (launch or _launch)(todo, _environment(Path(caches), todo)):
                    if "record" in answer:
                        answered.add((answer["record"]["candidate"], answer["record"]["what"]))
                        yield answer["record"]
                    else:
                        note(answer["say"])
            except ChildProcessError as error:
                for name, what in _pairs(todo):
                    if (name, what) not in answered:
                        yield {**todo.key(name, what), "skipped": str(error)}

        for question in plan.jobs():
            label = f"{question.scenario}, {question.subject}, {question.regime}"
            gives = tuple(_key(question.key(name, what)) for name, what in _pairs(question))
            jobs.append(Job(str(question), label, work, (question,), gives))
        with Engine(
            *(path, len(jobs)),
            kinds=["ops"],
            key_of=lambda record: None if record.get("absent") else _key(record),
            fresh=fresh,
            repeats=True,
            title="ops",
            shown=progress,
            describe=lambda records: map(summary, records),
            everywhere=True,
        ) as engine:
            begun = len(engine.records) if fresh else 0
            engine.run(jobs)
    unequal = [
        f"{record['candidate']} of {record['scenario']}, {record['subject']}: {record['skipped']}"
        for record in engine.new
        if record.get("unequal")
    ]
    if unequal:
        raise UnequalError("; ".join(unequal))
    return engine.new


def _pairs(question: Question) -> Iterator[tuple[str, str]]:
    return ((name, what) for name in question.candidates for what in question.whats)


def _key(record: Mapping[str, Any]) -> Key | None:
    if record.get("kind") != "ops":
        return None
    return tuple(record.get(field) for field in Question("", "", (), (), "", "cpu", 1, 0).key("", ""))


def _remaining(question: Question, last: Mapping[Key | None, Record]) -> tuple[Question | None, list[Record]]:
    # The part of a question that has no answer yet, and what is said of who cannot run here.
    gone = SCENARIOS[question.scenario].not_here(question.device)
    reasons = {name: gone or rivals.not_here(name, question.device) for name in question.candidates}
    absent, open_whats = [], set()
    for name, what in _pairs(question):
        key = question.key(name, what)
        old = last.get(_key(key))
        if reasons[name] is None and (old is None or old.get("absent")):  # what was not here may be by now
            open_whats.add(what)
        elif reasons[name] is not None and old is None:
            absent.append({**key, "skipped": reasons[name], "absent": True})
    if not open_whats:
        return None, absent
    present = [name for name, reason in reasons.items() if reason is None]
    whats = [what for what in question.whats if what in open_whats]
    return replace(question, candidates=present, whats=whats), absent


def _environment(folder: Path, question: Question) -> dict[str, str]:
    # Folders for compiled code, empty for every subject: its first process compiles, all others load.
    name = "".join(c if c.isalnum() else "-" for c in f"{question.scenario} {question.subject}")
    places = {"NUMBA_CACHE_DIR": "numba", "TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
    return {variable: str(folder / name / place) for variable, place in places.items()}


def _launch(question: Question, environment: Mapping[str, str]) -> Iterator[Record]:
    if question.other is not None:
        return against.answers(question, environment)
    return worker.ask(contest.__name__, question, question.regime, environment)


def summary(record: Mapping[str, Any]) -> str:
    r"""Says in one line what a record holds."""
    fields = ("scenario", "subject", "candidate", "what", "regime")
    name = "  ".join(record[field] for field in fields)
    if "skipped" in record:
        return f"{name:<76} skipped: {record['skipped']}"
    if record["what"] == MEMORY:
        peaks = (record.get("forward_bytes"), record.get("both_bytes"))
        shown = " / ".join("?" if peak is None else f"{peak / 1e6:.1f}" for peak in peaks)
        return f"{name:<76} {shown} MB, first call {record['first_seconds']:.2f} s"
    line = f"{name:<76} {1000 * record['seconds'][0]:.4g} ms"
    if "ratio" in record:
        middle, low, high = record["ratio"]
        line += f", {middle:.2f}x ours [{low:.2f}, {high:.2f}]{' contended' * record['contended']}"
    return line
