r"""Results as JSON lines: appended one at a time, so that a killed process loses at most its own."""

import json
import os
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["BASELINE", "METRICS", "RESULTS", "Interrupted", "append", "read", "write_atomically"]

RESULTS = "results.jsonl"
METRICS = {"accuracy": "accuracy", "roc_auc": "ROC AUC"}  # as tables and figures call them
BASELINE = "gat"  # the model that others are compared with


def append(path: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
    r"""Appends one record as one line and waits until it is on disk.

    A line that an earlier process did not finish is cut off first; :func:`read` did not count it.

    Args:
        path (str or Path): The file; made if missing.
        record (dict): What :func:`json.dumps` takes, without infinities or not-a-numbers.

    Raises:
        ValueError: If a number in the record is not finite.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "results.jsonl"
        >>> append(path, {"kind": "run", "test": 0.5})
        >>> read(path)
        [{'kind': 'run', 'test': 0.5}]
    """
    line = json.dumps(record, allow_nan=False).encode() + b"\n"
    # Unbuffered, so that a line goes out in one piece even if the process is stopped here.
    with Path(path).open("ab", buffering=0) as file:
        missing = _repair(Path(path))
        line = b"\n" * missing + line
        while line:
            line = line[file.write(line) :]
        os.fsync(file.fileno())


def read(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    r"""Reads all records of a file. An unfinished last line is left out, with a warning.

    Args:
        path (str or Path): The file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line other than the last is not a JSON object.
    """
    records: list[dict[str, Any]] = []
    content = Path(path).read_bytes()
    lines = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        record = _parse(line)
        if record is not None:
            records.append(record)
        elif number == len(lines):  # nothing ends this line: its writer was stopped
            warnings.warn(
                f"dropped the unfinished last line {number} of '{path}'; its run is repeated",
                stacklevel=2,
            )
        else:
            shown = line[:40].decode(errors="replace")
            raise ValueError(
                f"Expected a JSON object in line {number} of '{path}' (got {shown!r}); "
                "delete that line, its run is then repeated"
            )
    return records


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    r"""Writes a file beside its place and moves it there: it is complete, or as it was before.

    Args:
        path (str or Path): The file.
        content (bytes): All of its content.
    """
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp leaves it readable by its owner only
        os.chmod(temporary, path.stat().st_mode if path.exists() else 0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:  # not JSON, or not even UTF-8
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
    r"""A comparison was stopped; what it had finished is kept.

    Args:
        kept (int): How many of its runs are in the file.
        total (int): How many there will be.
        path (Path): The file.
    """

    def __init__(self, kept: int, total: int, path: Path) -> None:
        super().__init__(
            f"interrupted: {kept} of {total} runs are kept in {path}; run the same command again to go on"
        )
        self.kept = kept
        self.total = total
        self.path = path
