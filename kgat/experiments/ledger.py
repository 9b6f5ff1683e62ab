r"""Results as JSON lines, in a file that several processes may append to.

Lines are appended one at a time, so that a killed process loses at most its own. A process claims a job
before it works on it, and looks once more whether the result is there already. The claim is a lock of the
operating system, so that it ends with its process, however that ends. Who finds all jobs claimed waits for
their results: in the end every process has all of them.
"""

import errno
import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self, TypeVar

from kgat.atomic import make_folder, writing
from kgat.experiments.records import COMPARISON, fault

try:
    import fcntl
except ImportError:  # Windows: every claim is granted, and two processes do the same work twice
    fcntl = None  # type: ignore[assignment]

__all__ = ["Interrupted", "Ledger", "append", "numbered", "read", "read_from", "read_results", "repair"]

Record = dict[str, Any]
T = TypeVar("T")

NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)  # of file systems that have none
BUSY = (errno.EAGAIN, errno.EACCES)  # another one has it


def append(path: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
    r"""Appends one record as one line and waits until it is on disk.

    A line that an earlier process did not finish is cut off first; :func:`read` did not count it.

    Args:
        path (str or Path): The file; made if missing.
        record (dict): What :func:`json.dumps` takes, without infinities or not-a-numbers.

    Raises:
        ValueError: If a number in the record is not finite.
        OSError: If the disk is full; the file is then as it was.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "results.jsonl"
        >>> append(path, {"kind": "run", "test": 0.5})
        >>> read(path)
        [{'kind': 'run', 'test': 0.5}]
    """
    line = json.dumps(record, allow_nan=False, separators=(",", ":")).encode() + b"\n"
    # Unbuffered, so that a line goes out in one piece even if the process is stopped here.
    with writing(path), Path(path).open("ab", buffering=0) as file:
        _lock(file, exclusive=True)
        missing = _repair(Path(path))
        size = file.seek(0, os.SEEK_END)
        line = b"\n" * missing + line
        try:
            while line:
                line = line[file.write(line) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)
            raise


def _lock(file: IO[bytes], *, exclusive: bool, waits: bool = True) -> bool:
    r"""Locks a file against other processes, so that half a line of one is neither read nor cut off; says
    whether it could, or need not as there are no locks. The end of the process, or of the handle, ends it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | (0 if waits else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno not in (*BUSY, *NO_LOCKS):
            raise
        return error.errno in NO_LOCKS
    return True


def read(path: str | os.PathLike[str]) -> list[Record]:
    r"""Reads all records of a file. An unfinished last line is left out, with a warning.

    Args:
        path (str or Path): The file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line other than the last is not a JSON object.
    """
    return [record for _, record in numbered(path)]


def numbered(path: str | os.PathLike[str]) -> list[tuple[int, Record]]:
    r"""As :func:`read`, each record with the number of its line."""
    records: list[tuple[int, Record]] = []
    with Path(path).open("rb") as file:
        _lock(file, exclusive=False)
        content = file.read()
    lines = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        record = _parse(line)
        if record is not None:
            records.append((number, record))
        elif number == len(lines):  # nothing ends this line: its writer was stopped
            warnings.warn(
                f"dropped the unfinished last line {number} of '{path}'; its run is repeated", stacklevel=3
            )
        else:
            shown = line[:40].decode(errors="replace")
            raise ValueError(
                f"Expected a JSON object in line {number} of '{path}' (got {shown!r}); "
                "delete that line, its run is then repeated"
            )
    return records


def read_results(path: str | os.PathLike[str], kinds: Sequence[str] = COMPARISON) -> list[Record]:
    r"""As :func:`read`, but records of the kinds that tables and figures are made of must have their form.

    Args:
        path (str or Path): The file.
        kinds (list of str, optional): These kinds. (default: those of a comparison)

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line is not a JSON object, or lacks what its kind has, with the line.
    """
    records = []
    for number, record in numbered(path):
        if record.get("kind") in kinds and (wrong := fault(record)) is not None:
            name, expected, value = wrong
            raise ValueError(
                f"Expected '{name}' as {expected} in line {number} of '{path}' "
                f"(got {json.dumps(value)[:40]}); delete that line, its run is then repeated"
            )
        records.append(record)
    return records


def repair(path: str | os.PathLike[str]) -> None:
    r"""Cuts off the unfinished last line of a file and ends a finished one; makes a file that is missing."""
    with writing(path), Path(path).open("ab", buffering=0) as file:
        _lock(file, exclusive=True)
        if _repair(Path(path)):
            file.write(b"\n")


def read_from(path: str | os.PathLike[str], offset: int) -> tuple[list[Record], int]:
    r"""Reads the records that stand behind a place in a file, up to the last whole line.

    Args:
        path (str or Path): The file; one that is missing holds nothing.
        offset (int): The place, in bytes, at the beginning of a line.

    Returns:
        tuple: The records, and the place behind them.
    """
    path = Path(path)
    if not path.exists() or path.stat().st_size <= offset:
        return [], offset
    with path.open("rb") as file:
        _lock(file, exclusive=False)
        file.seek(offset)
        content = file.read()
    end = content.rfind(b"\n") + 1
    found = [record for line in content[:end].split(b"\n") if (record := _parse(line)) is not None]
    return found, offset + end


def _parse(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # not JSON, nested without end, or not even UTF-8
        return None
    return record if isinstance(record, dict) else None


def _repair(path: Path) -> bool:
    r"""Cuts off an unfinished last line; says whether a finished one lacks its line end."""
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return False
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return False
        file.seek(0)
        content = file.read()
        start = content.rfind(b"\n") + 1
        if _parse(content[start:]) is not None:
            return True
        file.truncate(start)
        return False


class Interrupted(KeyboardInterrupt):
    r"""Jobs were stopped; what was finished is kept.

    Args:
        kept (int): How many of them are in the file.
        total (int): How many there will be.
        path (Path): The file.
    """

    def __init__(self, kept: int, total: int, path: Path) -> None:
        super().__init__(
            f"interrupted: {kept} of {total} runs are kept in {path}; run the same command again to go on"
        )
        self.kept, self.total, self.path = kept, total, path


# Seconds between two looks at what others are doing: short at first, as tests and small jobs want it.
SOON, LATER = 0.05, 2.0


class Ledger:
    r"""The records of a file that several processes may append to, and the claims on the jobs that make them.

    Args:
        path (str or Path): The file; made if missing.
        kinds (list of str, optional): The kinds of records that must have their form. (default: those of a
            comparison)

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "results.jsonl"
        >>> with Ledger(path) as results:
        ...     for seed in results.claim(range(3), str, lambda seed: {"seed": seed} in results.records):
        ...         results.append({"seed": seed})
        >>> read(path)
        [{'seed': 0}, {'seed': 1}, {'seed': 2}]
    """

    def __init__(self, path: str | os.PathLike[str], kinds: Sequence[str] = COMPARISON) -> None:
        self.path = Path(path)
        self.kinds = kinds
        self.records: list[Record] = []
        self._read = 0  # bytes of the file that 'records' holds
        self._claims = _Claims(self.path.with_name(f".{self.path.name}.locks"))

    def __enter__(self) -> Self:
        make_folder(self.path.parent)
        with writing(self.path):
            self.path.open("ab").close()
        read_results(self.path, self.kinds)  # says what is wrong with it
        repair(self.path)
        self.records, self._read = [], 0
        self.update()
        return self

    def __exit__(self, *_: object) -> None:
        self._claims.close()

    def append(self, record: Mapping[str, Any]) -> None:
        r"""Appends a record to the file, and to the records those that others have appended meanwhile."""
        append(self.path, record)
        self.update()

    def update(self) -> list[Record]:
        r"""Takes in what was appended since the last look; returns it."""
        new, self._read = read_from(self.path, self._read)
        self.records += new
        return new

    def claim(
        self,
        jobs: Sequence[T],
        name: Callable[[T], Hashable],
        finished: Callable[[T], bool],
        waiting: Callable[[int], None] | None = None,
        idle: Callable[[], None] | None = None,
    ) -> Iterator[T]:
        r"""Yields the jobs that are this process's to do; ends when all are finished, here or elsewhere.

        A job counts as done, or given up, when the next one is asked for; with :obj:`idle` it stays claimed
        until :meth:`release`, so that several may be under way.

        Args:
            jobs (list): All jobs.
            name (callable): What identifies a job, in all processes.
            finished (callable): Whether the records hold the result of a job.
            waiting (callable, optional): Called with the number of jobs that other processes are at, while
                there is nothing else to do. (default: :obj:`None`)
            idle (callable, optional): Called where no job is to be had now; ends those that are under way.
                (default: :obj:`None`)
        """
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
                if not finished(job):
                    claimed = True
                    yield job
                    if idle is not None:
                        continue
                self.release(name(job))
            self.update()
            left = [job for job in left if not finished(job)]
            if claimed or not left:
                pause = SOON
                continue
            if idle is not None:
                idle()
            if waiting is not None:
                waiting(len(left))
            time.sleep(pause)
            pause = min(2 * pause, LATER)

    def release(self, name: Hashable) -> None:
        r"""Gives a claim back, after its result is in the file."""
        self._claims.release(name)


class _Claims:
    r"""Locks on files of a hidden folder, one file per name. Every claim has a handle of its own, which keeps
    threads of this process apart, too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[Hashable, IO[bytes]] = {}

    def take(self, name: Hashable) -> bool:
        if fcntl is None:
            return True
        path = self._path(name)
        while True:
            with writing(self.folder):
                self.folder.mkdir(exist_ok=True)
            try:
                file = path.open("ab")
            except FileNotFoundError:  # another process has just removed the folder
                continue
            if not _lock(file, exclusive=True, waits=False):
                file.close()
                return False
            with suppress(FileNotFoundError):  # who had the claim before has removed the file
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    self.files[name] = file
                    return True
            file.close()

    def release(self, name: Hashable) -> None:
        file = self.files.pop(name, None)
        if file is not None:
            self._path(name).unlink(missing_ok=True)
            file.close()

    def close(self) -> None:
        for name in tuple(self.files):
            self.release(name)
        with suppress(OSError):  # not empty while others are at work
            self.folder.rmdir()

    def _path(self, name: Hashable) -> Path:
        return self.folder / hashlib.sha256(repr(name).encode()).hexdigest()
