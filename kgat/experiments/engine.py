r"""Runs jobs whose records go to one file: each once, in this process or several, from where it stopped.

A job has a key, a label, and a function that makes its records. What the file holds already is not made
again, also where several processes work at one file (see :mod:`kgat.experiments.ledger`).
"""

import os
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import KW_ONLY, dataclass
from functools import partial
from operator import attrgetter
from types import TracebackType
from typing import Any, NamedTuple, Self

from kgat.experiments import ledger, processes
from kgat.experiments.ledger import Interrupted, Ledger
from kgat.experiments.progress import Progress, progress
from kgat.experiments.records import COMPARISON

__all__ = ["Engine", "Job"]

Record = dict[str, Any]
Note = Callable[[str], None]
KEY = attrgetter("key")


class Job(NamedTuple):
    r"""What one process does at a time.

    Args:
        key (hashable): Identifies the job in all processes, by its :func:`repr`.
        label (str): What the bar calls it.
        work (callable): ``work(*shared, *arguments, note=note)`` returns or yields its records, each of which
            is kept as soon as it is there; ``note(text)`` says what goes on. A function of a module, if
            several processes are to run it.
        arguments (tuple, optional): What is this job's alone. (default: :obj:`()`)
        gives (tuple, optional): The keys of the records without which it is not finished; its own key if
            empty. (default: :obj:`()`)
    """

    key: Hashable
    label: str
    work: Callable[..., Iterable[Record]]
    arguments: tuple[Any, ...] = ()
    gives: tuple[Hashable, ...] = ()


def _key(record: Mapping[str, Any]) -> Hashable:
    return record.get("key")


@dataclass(eq=False, repr=False)
class Engine:
    r"""Runs jobs and appends their records to a file, which it shares with other processes.

    Args:
        path (str or Path): The file of JSON lines; made if missing.
        total (int): Number of jobs that there will be.
        kinds (list of str, optional): The kinds of records that must have their form. (default: those of a
            comparison)
        key_of (callable, optional): Returns the key of a record, as :obj:`gives` of a job names it, or
            :obj:`None` for one that finishes nothing. (default: the entry :obj:`"key"`)
        shared (tuple, optional): First arguments of all jobs, sent to a process once. (default: :obj:`()`)
        workers (int, optional): How many jobs run at once, each in a process of its own with as many threads
            as this one, see :mod:`kgat.experiments.processes`; records come in the order of jobs.
            (default: :obj:`1`)
        fresh (bool, optional): Whether records that are there finish nothing. (default: :obj:`False`)
        repeats (bool, optional): Whether records whose key is there are kept, too. (default: :obj:`False`)
        title (str, optional): What stands before the bar. (default: :obj:`""`)
        shown (bool, optional): Whether there is a bar. (default: :obj:`False`)
        describe (callable, optional): Returns the lines that stay of a job, from its new records.
            (default: :obj:`None`)
        everywhere (bool, optional): Whether they stay on a terminal, too. (default: :obj:`False`)
        on_finished (callable, optional): Called with each job whose records are in the file.
            (default: :obj:`None`)
        expect (callable, optional): Called with what came to the file since the job before; raises where that
            does not belong to these jobs. (default: :obj:`None`)

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> def square(number, note):
        ...     yield {"key": number, "square": number**2}
        >>> jobs = [Job(number, f"{number} squared", square, (number,)) for number in range(3)]
        >>> with Engine(Path(tempfile.mkdtemp()) / "squares.jsonl", len(jobs)) as engine:
        ...     engine.run(jobs)
        >>> [record["square"] for record in engine.records]
        [0, 1, 4]
    """

    path: str | os.PathLike[str]
    total: int
    _: KW_ONLY
    kinds: Sequence[str] = COMPARISON
    key_of: Callable[[Record], Hashable] = _key
    shared: tuple[Any, ...] = ()
    workers: int = 1
    fresh: bool = False
    repeats: bool = False
    title: str = ""
    shown: bool = False
    describe: Callable[[Sequence[Record]], Iterable[str]] | None = None
    everywhere: bool = False
    on_finished: Callable[[Job], object] | None = None
    expect: Callable[[Sequence[Record]], None] | None = None

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.path, self.kinds)
        self.progress = Progress()
        self.new: list[Record] = []  # what this process appended
        self._jobs: dict[Hashable, Job] = {}  # all that were ever given to 'run'
        self._counted: set[Hashable] = set()
        self._seen = 0  # up to which record 'expect' has looked
        self._begun = self._indexed = 0  # from which record on they count, and up to which 'keys' has them
        self._keys: set[Hashable] = set()
        self._executor: processes.Processes | None = None

    def __enter__(self) -> Self:
        if self.workers > 1:
            processes.expect_main()
        with ExitStack() as stack:
            stack.enter_context(self.ledger)
            self.progress = stack.enter_context(progress(self.title, self.total, shown=self.shown))
            self._stack = stack.pop_all()
        if self.fresh:
            self._begun = self._indexed = len(self.records)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            # Asked of the file: the interrupt may have come between writing a line and counting it.
            keys = {self.key_of(record) for record in ledger.read(self.ledger.path)[self._begun :]}
            kept = sum(keys.issuperset(job.gives or (job.key,)) for job in self._jobs.values())
            raise Interrupted(kept, self.total, self.ledger.path) from None

    @property
    def records(self) -> list[Record]:
        r"""All records of the file."""
        return self.ledger.records

    @property
    def keys(self) -> set[Hashable]:
        r"""The keys of the records that count."""
        self._keys.update(map(self.key_of, self.records[self._indexed :]))
        self._indexed = len(self.records)
        return self._keys

    def finished(self, job: Job) -> bool:
        r"""Whether the records of a job are there."""
        return self.keys.issuperset(job.gives or (job.key,))

    def run(self, jobs: Sequence[Job]) -> None:
        r"""Does the jobs that are this process's to do; ends when all are finished, here or in others. May be
        called several times, with other jobs."""
        self._jobs.update((job.key, job) for job in jobs)
        self._count(jobs)
        left = [job for job in jobs if not self.finished(job)]
        if self.workers == 1 or len(left) < 2:
            for job in self.ledger.claim(left, KEY, self.finished, self.waiting):
                self._look()
                self.progress.note(job.label)
                self._keep(job, job.work(*self.shared, *job.arguments, note=partial(self._note, job)))
        else:
            self._run_at_once(left)
        self._count(jobs)

    def _look(self) -> None:
        new = self.records[self._seen :]
        self._seen = len(self.records)
        if self.expect is not None and new:
            self.expect(new)

    def keep(self, record: Record) -> None:
        r"""Appends a record of this process."""
        self.ledger.append(record)
        self.new.append(record)

    def _keep(self, job: Job, records: Iterable[Record]) -> None:
        before = len(self.new)
        for record in records:
            # A job may be repeated for the sake of another record.
            if self.repeats or (key := self.key_of(record)) is None or key not in self.keys:
                self.keep(record)
        self._counted.add(job.key)
        if self.on_finished is not None:
            self.on_finished(job)
        new = self.new[before:]
        self.progress.done(job.label, self.describe(new) if self.describe else (), everywhere=self.everywhere)

    def _count(self, jobs: Sequence[Job]) -> None:
        keys = {job.key for job in jobs if self.finished(job)} - self._counted
        self.progress.count(len(keys))
        self._counted |= keys
        for job in jobs if self.on_finished is not None else ():
            if job.key in keys:  # finished before, or elsewhere
                self.on_finished(job)  # type: ignore[misc]

    def _note(self, job: Job, text: str) -> None:
        self.progress.note(f"{job.label}, {text}", always=False)

    def waiting(self, count: int) -> None:
        r"""Says that there is nothing to do but wait."""
        self.progress.note(f"waiting for {count} of another process")

    def _run_at_once(self, left: Sequence[Job]) -> None:
        import torch

        self.progress.note(f"{self.workers} runs at once")
        if self._executor is None:  # its processes serve all calls of 'run'
            threads = torch.get_num_threads()
            executor = processes.started(self.workers, threads, _share, self.shared)
            self._executor = self._stack.enter_context(executor)
        executor = self._executor
        # Results are kept in the order of the jobs.
        under_way: deque[tuple[Job, Future[list[Record]]]] = deque()

        def keep_first() -> None:
            job, records = under_way.popleft()
            self._keep(job, records.result())
            self.ledger.release(job.key)

        def keep_all() -> None:
            while under_way:
                keep_first()

        def busy() -> int:
            return sum(not records.done() for _, records in under_way)

        try:
            for job in self.ledger.claim(left, KEY, self.finished, self.waiting, keep_all):
                self._look()
                with processes.without_interrupts():
                    under_way.append((job, executor.submit(_work, job)))
                while under_way and (busy() >= self.workers or under_way[0][1].done()):
                    keep_first()
            keep_all()
        except BrokenProcessPool as error:
            raise OSError(executor.why_broken("with fewer --jobs on less memory")) from error


_shared: tuple[Any, ...]  # by all jobs of a worker process


def _share(shared: tuple[Any, ...]) -> None:
    global _shared
    _shared = shared


def _work(job: Job) -> list[Record]:
    return list(job.work(*_shared, *job.arguments, note=lambda _: None))
