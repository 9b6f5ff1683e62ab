r"""``kgat bench ops``: all subjects in all scenarios, in fresh processes, each result kept at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import kgat
from kgat.experiments.bench import rivals
from kgat.experiments.bench.rivals import OURS, SUBJECTS
from kgat.experiments.bench.scenarios import Scenario, select
from kgat.experiments.bench.worker import BOTH, FORWARD, MEMORY, SEPARATOR, Question, Tell
from kgat.experiments.ledger import Interrupted, Ledger

# What each regime sets. R1 is malloc as it comes: glibc gives blocks above 32 MB back when they are freed,
# and every such temporary is paid for by page faults. R2 keeps them, as a caching allocator would. For peaks,
# blocks above 64 KB go back at once, so that what is counted is what is in use.
REGIMES: dict[str, dict[str, str]] = {
    "R1": {},
    "R2": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 36)},
    "memory": {"MALLOC_MMAP_THRESHOLD_": "65536"},
    "cuda": {},
    "cuda memory": {},
}

Record = dict[str, Any]
Launch = Callable[[Question, Mapping[str, str], Tell], None]


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
    """

    scenarios: Sequence[str]
    subjects: Sequence[str] = ()
    candidates: Sequence[str] = ()
    device: str = "cpu"
    threads: int = 1
    seconds: float = 20.0
    root: str | None = None

    def jobs(self) -> Iterator[tuple[Scenario, Question]]:
        r"""Yields one question per process, in the order of the processes.

        Raises:
            ValueError: If a name is unknown.
        """
        scenarios = select(list(self.scenarios))
        subjects = _named(self.subjects, SUBJECTS, "subjects")
        known = {name: name for subject in SUBJECTS.values() for name in subject.candidates[1:]}
        wanted = _named(self.candidates, known, "rivals")
        cuda = self.device.startswith("cuda")
        for scenario in scenarios:
            for subject in subjects:
                names = (OURS, *(name for name in subject.candidates if name in wanted))
                base = Question(
                    *(scenario.name, subject.name, names, (FORWARD, BOTH), "", self.device, self.threads),
                    *(self.seconds, self.root),
                )
                # First what a first call costs and the peaks: caches of compiled code are empty then.
                for name in names:
                    regime = "cuda memory" if cuda else "memory"
                    yield scenario, replace(base, candidates=(name,), whats=(MEMORY,), regime=regime)
                for regime in ("cuda",) if cuda else ("R1", "R2"):
                    yield scenario, replace(base, regime=regime)


class UnequalError(ValueError):
    r"""Some candidates did not compute what ours does, and were not timed."""


def run(
    plan: Plan,
    path: Path,
    *,
    fresh: bool = False,
    progress: bool = False,
    launch: Launch | None = None,
) -> list[Record]:
    r"""Measures what a file of records does not hold yet, and appends each result as soon as it is there.

    Args:
        plan (Plan): What to measure.
        path (Path): The file of records.
        fresh (bool, optional): Whether to measure also what is there. (default: :obj:`False`)
        progress (bool, optional): Whether to show a bar, or a line per process where stderr is no terminal.
            (default: :obj:`False`)
        launch (callable, optional): Runs one question; a fresh process if :obj:`None`. (default: :obj:`None`)

    Returns:
        list of dict: The new records.

    Raises:
        Interrupted: If the user stopped it.
        UnequalError: In the end, if candidates did not compute the same.
    """
    jobs = list(plan.jobs())
    _writable(path)
    new: list[Record] = []
    begun = 0  # from which record on answers count

    def last() -> dict[tuple[Any, ...], Record]:
        return {_key(r): r for r in results.records[begun:] if r.get("kind") == "ops"}

    def keep(record: Record) -> None:
        results.append(record)
        new.append(record)

    def answered(job: tuple[Scenario, Question]) -> bool:
        return all(
            not record.get("absent") and _key(record) in there
            for there in [last()]
            for name in job[1].candidates
            for what in job[1].whats
            for record in [there.get(_key(job[1].key(name, what)), {"absent": True})]
        )

    def tried(job: tuple[Scenario, Question]) -> bool:
        return id(job) in done or answered(job)

    done: set[int] = set()
    try:
        with (
            Ledger(path, ["ops"]) as results,
            _Caches() as caches,
            _progress(len(jobs), progress) as shown,
        ):
            begun = len(results.records) if fresh else 0
            for job in results.claim(jobs, lambda job: str(job[1]), tried):
                scenario, question = job
                done.add(id(job))
                name = f"{question.scenario}, {question.subject}, {question.regime}"
                found = len(new)
                todo = _remaining(question, scenario, last(), keep)
                if todo is not None:
                    shown.begin(name)

                    def tell(answer: dict[str, Any], name: str = name) -> None:
                        if "record" in answer:
                            keep(answer["record"])
                        else:
                            shown.begin(f"{name}: {answer['say']}")

                    try:
                        environment = {**REGIMES[todo.regime], **caches.of(todo)}
                        (launch or _launch)(todo, environment, tell)
                    except ChildProcessError as error:
                        for candidate, what in _unanswered(todo, new[found:]):
                            keep({**todo.key(candidate, what), "skipped": str(error)})
                shown.finished(name, new[found:])
    except KeyboardInterrupt:
        keys = {_key(q.key(name, what)) for _, q in jobs for name in q.candidates for what in q.whats}
        raise Interrupted(len(keys & {*last(), *map(_key, new)}), len(keys), path) from None
    unequal = [record for record in new if record.get("unequal")]
    if unequal:
        raise UnequalError(
            "; ".join(
                f"{record['candidate']} of {record['scenario']}, {record['subject']}: {record['skipped']}"
                for record in unequal
            )
        )
    return new


# --- What is left to do -----------------------------------------------------------------------------------


def _named(names: Sequence[str], known: Mapping[str, Any], what: str) -> list[Any]:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"Expected {what} that exist (got {', '.join(unknown)}); choose from: {', '.join(known)}"
        )
    return [known[name] for name in names or known]


def _key(record: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(record.get(field) for field in Question("", "", (), (), "", "cpu", 1, 0).key("", ""))


def _remaining(
    question: Question,
    scenario: Scenario,
    last: dict[tuple[Any, ...], Record],
    keep: Callable[[Record], None],
) -> Question | None:
    # The part of a question that has no answer yet; who cannot run here is written down at once.
    present, open_whats = [], set()
    for name in question.candidates:
        reason = scenario.not_here(question.device) or rivals.not_here(name, question.device)
        if reason is None:
            present.append(name)
        for what in question.whats:
            key = question.key(name, what)
            old = last.get(_key(key))
            if reason is not None:
                if old is None:
                    keep({**key, "skipped": reason, "absent": True})
            elif old is None or old.get("absent"):  # what was not here may be by now
                open_whats.add(what)
    if not present or not open_whats:
        return None
    whats = tuple(what for what in question.whats if what in open_whats)
    return replace(question, candidates=tuple(present), whats=whats)


def _unanswered(question: Question, records: Sequence[Record]) -> Iterator[tuple[str, str]]:
    answered = {(record["candidate"], record["what"]) for record in records}
    for name in question.candidates:
        for what in question.whats:
            if (name, what) not in answered:
                yield name, what


# --- Processes --------------------------------------------------------------------------------------------


class _Caches:
    r"""Folders for compiled code, empty for every subject: its first process compiles, all others load."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="kgat-bench-", ignore_cleanup_errors=True)

    def __enter__(self) -> _Caches:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def of(self, question: Question) -> dict[str, str]:
        name = "".join(c if c.isalnum() else "-" for c in f"{question.scenario} {question.subject}")
        folder = Path(self._folder.name) / name
        places = {
            "NUMBA_CACHE_DIR": "numba",
            "TORCHINDUCTOR_CACHE_DIR": "inductor",
            "TRITON_CACHE_DIR": "triton",
        }
        return {variable: str(folder / place) for variable, place in places.items()}


def _launch(question: Question, environment: Mapping[str, str], tell: Tell) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    here = str(Path(kgat.__file__).parents[1])
    process_environment = {
        **inherited,
        **environment,
        "OMP_NUM_THREADS": str(question.threads),
        # In the process itself: a pool of compilers would fill the cores while others are timed.
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "DGLBACKEND": "pytorch",  # or it writes a file to the user's home
        "PYTHONPATH": os.pathsep.join(filter(None, (here, inherited.get("PYTHONPATH")))),
    }
    with tempfile.TemporaryFile("w+", encoding="utf8", errors="replace") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "kgat.experiments.bench.worker", question.to_json()],
            env=process_environment,
            stdin=subprocess.PIPE,  # its end tells the process that this one is gone
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf8",
            errors="replace",
            # A group of its own, so that a stop reaches the compilers it may have started.
            start_new_session=True,
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(SEPARATOR):
                    tell(json.loads(line[1:]))
            code = process.wait()
        finally:
            _stop(process)
        if code != 0:
            errors.seek(0)
            said = errors.read().strip().splitlines() or [""]
            why = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}: {said[-1]}"
            raise ChildProcessError(f"the process ended with {why}"[:300])


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _writable(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            pass
    except OSError as error:
        raise PermissionError(
            f"Expected a file that can be written (got '{path}': {error.strerror}); choose another with --out"
        ) from None


# --- Progress ---------------------------------------------------------------------------------------------


class _Progress:
    r"""Shows nothing; its subclass shows a bar."""

    def begin(self, what: str) -> None:
        pass

    def finished(self, name: str, records: Sequence[Record]) -> None:
        pass


class _Bar(_Progress):
    def __init__(self, bar: Any, row: Any) -> None:
        self.bar = bar
        self.row = row

    def begin(self, what: str) -> None:
        self.bar.update(self.row, now=what)

    def finished(self, name: str, records: Sequence[Record]) -> None:
        self.bar.advance(self.row)
        lines = [summary(record) for record in records]
        if not self.bar.console.is_terminal and lines:
            task = self.bar.tasks[0]
            lines = [f"{task.completed:.0f}/{task.total:.0f} {name}", *lines]
        for line in lines:
            self.bar.console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def _progress(total: int, shown: bool) -> Iterator[_Progress]:
    if not shown:
        yield _Progress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[now]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as bar:
        row = bar.add_task("ops", total=total, now="")
        yield _Bar(bar, row)
        bar.update(row, now="")


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
