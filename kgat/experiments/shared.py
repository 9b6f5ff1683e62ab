r"""Jobs whose results go to one file of JSON lines, shared among all processes that write it.

A process claims a job before it works on it, and looks once more whether the result is there already. The
claim is a lock of the operating system, so that it ends with its process, however that ends. Who finds all
jobs claimed waits for their results: in the end every process has all of them.
"""

import errno
import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, ClassVar, Self, TypeVar

from kgat.experiments import records as record_file

try:
    import fcntl
except ImportError:  # Windows: every claim is granted, and two processes do the same work twice
    fcntl = None  # type: ignore[assignment]

__all__ = ["SharedResults"]

Record = dict[str, Any]
Job = TypeVar("Job")

# Seconds between two looks at what others are doing: short at first, as tests and small jobs want it.
SOON, LATER = 0.05, 2.0


class SharedResults:
    r"""The records of a file that several processes may append to, and the jobs that make them.

    Args:
        path (str or Path): The file; made if missing.
        kinds (list of str, optional): The kinds of records that must have their form. (default: those of a
            comparison)

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "results.jsonl"
        >>> with SharedResults(path) as results:
        ...     for seed in results.claim(range(3), str, lambda seed: {"seed": seed} in results.records):
        ...         results.append({"seed": seed})
        >>> record_file.read(path)
        [{'seed': 0}, {'seed': 1}, {'seed': 2}]
    """

    def __init__(self, path: str | os.PathLike[str], kinds: Sequence[str] = record_file.COMPARISON) -> None:
        self.path = Path(path)
        self.kinds = kinds
        self.records: list[Record] = []
        self._read = 0  # bytes of the file that 'records' holds
        self._claims = _Claims(self.path.with_name(f".{self.path.name}.claims"))

    def __enter__(self) -> Self:
        if self.path.exists():
            record_file.read_results(self.path, self.kinds)  # says what is wrong with it
        record_file.repair(self.path)
        self.records, self._read = [], 0
        self.update()
        self._claims.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._claims.close()

    def append(self, record: Mapping[str, Any]) -> None:
        r"""Appends a record to the file, and to the records those that others have appended meanwhile."""
        record_file.append(self.path, record)
        self.update()

    def update(self) -> list[Record]:
        r"""Takes in what was appended since the last look; returns it."""
        new, self._read = record_file.read_from(self.path, self._read)
        self.records += new
        return new

    def claim(
        self,
        jobs: Sequence[Job],
        name: Callable[[Job], Hashable],
        finished: Callable[[Job], bool],
        waiting: Callable[[int], None] | None = None,
    ) -> Iterator[Job]:
        r"""Yields the jobs that are this process's to do; ends when all are finished, here or elsewhere.

        A job counts as done, or given up, when the next one is asked for.

        Args:
            jobs (list): All jobs.
            name (callable): What identifies a job, in all processes.
            finished (callable): Whether the records hold the result of a job.
            waiting (callable, optional): Called with the number of jobs that other processes are at, while
                there is nothing else to do. (default: :obj:`None`)
        """
        for job in self.claim_many(jobs, name, finished, waiting):
            if job is not None:
                yield job
                self.release(name(job))

    def claim_many(
        self,
        jobs: Sequence[Job],
        name: Callable[[Job], Hashable],
        finished: Callable[[Job], bool],
        waiting: Callable[[int], None] | None = None,
        idle: Callable[[], bool] = lambda: True,
    ) -> Iterator[Job | None]:
        r"""As :meth:`claim`, but a job stays claimed until :meth:`release`, so that several may be under way.

        Yields :obj:`None` where no job is to be had now; :obj:`idle` then says whether to wait for others."""
        left = list(jobs)
        pause = SOON
        while left:
            claimed = False
            for job in list(left):
                if not self._claims.take(name(job)):
                    continue
                # Another process may have finished it between the last look and the claim.
                self.update()
                left.remove(job)
                if finished(job):
                    self.release(name(job))
                    continue
                claimed = True
                yield job
            self.update()
            left = [job for job in left if not finished(job)]
            if left and not claimed:
                yield None
                if idle():
                    if waiting is not None:
                        waiting(len(left))
                    time.sleep(pause)
                    pause = min(2 * pause, LATER)
            else:
                pause = SOON

    def release(self, name: Hashable) -> None:
        r"""Gives a claim back, after its result is in the file."""
        self._claims.release(name)


class _Claims:
    r"""Locks on single bytes of a hidden file, one byte per name. They belong to the process: a set of the
    names that it holds keeps its own threads apart."""

    held: ClassVar[set[tuple[Path, int]]] = set()
    guard: ClassVar[threading.Lock] = threading.Lock()
    # One handle per file and process: closing any other one would give up all of its locks.
    handles: ClassVar[dict[Path, IO[bytes]]] = {}
    users: ClassVar[Counter[Path]] = Counter()

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.mine: set[int] = set()

    def open(self) -> None:
        with self.guard:
            self.users[self.path] += 1

    def take(self, name: Hashable) -> bool:
        byte = _byte(name)
        with self.guard:
            if (self.path, byte) in self.held or not self._lock(byte):
                return False
            self.held.add((self.path, byte))
            self.mine.add(byte)
            return True

    def release(self, name: Hashable) -> None:
        byte = _byte(name)
        with self.guard:
            if byte in self.mine:
                self._give_up(byte)

    def close(self) -> None:
        with self.guard:
            for byte in tuple(self.mine):
                self._give_up(byte)
            self.users[self.path] -= 1
            if self.users[self.path] > 0 or self.path not in self.handles:
                return
            # Where nobody holds a claim the file goes; who has it open notices, in '_lock'.
            with self.handles.pop(self.path) as file:
                if _system_lock(file, 0, 0):
                    self.path.unlink(missing_ok=True)

    def _lock(self, byte: int) -> bool:
        while True:
            file = self.handles.get(self.path)
            if file is None:
                file = self.handles[self.path] = self.path.open("ab")
            if not _system_lock(file, byte, 1):
                return False
            if self.path.exists() and os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                return True
            self.handles.pop(self.path).close()

    def _give_up(self, byte: int) -> None:
        self.mine.discard(byte)
        self.held.discard((self.path, byte))
        if fcntl is not None:
            fcntl.lockf(self.handles[self.path], fcntl.LOCK_UN, 1, byte)


def _byte(name: Hashable) -> int:
    return int.from_bytes(hashlib.sha256(repr(name).encode()).digest()[:7], "big")


def _system_lock(file: IO[bytes], start: int, length: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
    except OSError as error:
        if error.errno in record_file.NO_LOCKS:
            return True
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True
