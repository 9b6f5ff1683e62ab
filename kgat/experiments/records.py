r"""Results as JSON lines: appended one at a time, so that a killed process loses at most its own."""

import errno
import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from kgat.atomic import writing

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "BASELINE",
    "METRICS",
    "RESULTS",
    "Interrupted",
    "append",
    "numbered",
    "read",
    "read_from",
    "read_results",
    "repair",
]

RESULTS = "results.jsonl"
METRICS = {"accuracy": "accuracy", "roc_auc": "ROC AUC"}  # as tables and figures call them
BASELINE = "gat"  # the model that others are compared with
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)  # of file systems that have none


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
    line = json.dumps(record, allow_nan=False).encode() + b"\n"
    # Unbuffered, so that a line goes out in one piece even if the process is stopped here.
    with writing(path), Path(path).open("ab", buffering=0) as file, _locked(file, exclusive=True):
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


@contextmanager
def _locked(file: IO[bytes], *, exclusive: bool) -> Iterator[None]:
    # Between processes: half a line of another one is neither read nor cut off. The end of the process, or of
    # the file's handle, ends the lock.
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
    yield


def read(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    r"""Reads all records of a file. An unfinished last line is left out, with a warning.

    Args:
        path (str or Path): The file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line other than the last is not a JSON object.
    """
    return [record for _, record in numbered(path)]


def numbered(path: str | os.PathLike[str]) -> list[tuple[int, dict[str, Any]]]:
    r"""As :func:`read`, each record with the number of its line."""
    records: list[tuple[int, dict[str, Any]]] = []
    with Path(path).open("rb") as file, _locked(file, exclusive=False):
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
                f"dropped the unfinished last line {number} of '{path}'; its run is repeated",
                stacklevel=3,
            )
        else:
            shown = line[:40].decode(errors="replace")
            raise ValueError(
                f"Expected a JSON object in line {number} of '{path}' (got {shown!r}); "
                "delete that line, its run is then repeated"
            )
    return records


def repair(path: str | os.PathLike[str]) -> None:
    r"""Cuts off the unfinished last line of a file and ends a finished one; makes a file that is missing."""
    with writing(path), Path(path).open("ab", buffering=0) as file, _locked(file, exclusive=True):
        if _repair(Path(path)):
            file.write(b"\n")


def read_from(path: str | os.PathLike[str], offset: int) -> tuple[list[dict[str, Any]], int]:
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
    with path.open("rb") as file, _locked(file, exclusive=False):
        file.seek(offset)
        content = file.read()
    end = content.rfind(b"\n") + 1
    found = [record for line in content[:end].split(b"\n") if (record := _parse(line)) is not None]
    return found, offset + end


COMPARISON = ("run", "tune", "cost", "attention")


def read_results(path: str | os.PathLike[str], kinds: Sequence[str] = COMPARISON) -> list[dict[str, Any]]:
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
        wrong = _wrong(record, FORMS[record["kind"]] if record.get("kind") in kinds else {})
        if wrong is not None:
            name, expected, value = wrong
            shown = json.dumps(value)[:40]
            raise ValueError(
                f"Expected '{name}' as {expected} in line {number} of '{path}' (got {shown}); delete that "
                "line, its run is then repeated"
            )
        records.append(record)
    return records


# --- What a record of each kind must hold -----------------------------------------------------------------

Form = Mapping[str, Any]
Check = tuple[str, Callable[[Any], bool]]


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # As bounds: a whole number of JSON may be larger than any float.
    return -1e300 < value < 1e300 and math.isfinite(value)


TEXT: Check = ("a text", lambda value: isinstance(value, str))
NUMBER: Check = ("a finite number", _is_number)
WHOLE: Check = (
    "a whole number",
    lambda value: isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63,
)
TRUTH: Check = ("true or false", lambda value: isinstance(value, bool))
OBJECT: Check = ("an object", lambda value: isinstance(value, dict))
METRIC: Check = (f"one of {', '.join(METRICS)}", lambda value: isinstance(value, str) and value in METRICS)
ANY: Check = ("anything", lambda value: True)


def _list_of(check: Check) -> Check:
    def holds(value: Any) -> bool:
        return isinstance(value, list) and all(map(check[1], value))

    return f"a list, each {check[0]}", holds


def _or_null(check: Check) -> Check:
    return f"{check[0]} or null", lambda value: value is None or check[1](value)


class Optional:
    r"""What a record may lack, or have as null."""

    def __init__(self, form: "Check | Form") -> None:
        self.form = form


def _wrong(value: Any, form: Form, within: str = "") -> tuple[str, str, Any] | None:
    r"""The first name that is wrong, what was expected of it and what it is."""
    for name, check in form.items():
        full = f"{within}{name}"
        if isinstance(check, Optional):
            if value.get(name) is None:
                continue
            check = check.form
        if isinstance(check, Mapping):
            inner = value.get(name)
            if not isinstance(inner, dict):
                return full, OBJECT[0], inner
            parts = dict.fromkeys(inner, check["*"]) if "*" in check else check
            for key in parts if "*" in check else ():
                if not isinstance(inner[key], dict):
                    return f"{full}.{key}", OBJECT[0], inner[key]
            found = _wrong(inner, parts, f"{full}.")
            if found is not None:
                return found
        elif name not in value or not check[1](value[name]):
            return full, check[0], value.get(name)
    return None


SETTINGS = (
    *("num_layers", "heads", "hidden_channels", "out_heads", "act", "norm", "residual", "projections"),
    *("dropout", "input_dropout", "value_dropout", "lr", "weight_decay", "max_epochs", "patience"),
)
SETTING: Check = (
    "a number, a text, true, false or null",
    lambda value: value is None or isinstance(value, str | bool) or _is_number(value),
)
CONFIG = dict.fromkeys(SETTINGS, SETTING)
OF_RUNS: Form = {"dataset": TEXT, "model": TEXT, "seed": WHOLE, "config": CONFIG, "metric": METRIC}
FORMS: Mapping[str, Form] = {
    "run": {
        **OF_RUNS,
        "split": TEXT,
        "test": NUMBER,
        "val": NUMBER,
        "train": Optional(NUMBER),
        "parameters": WHOLE,
        "best_epoch": Optional(WHOLE),
        "epochs": Optional(WHOLE),
        "seconds": Optional(NUMBER),
        "versions": {"torch": TEXT, "torch_geometric": TEXT},
        "curve": Optional(OBJECT),
        "tuned": Optional({"settings": WHOLE, "seeds": WHOLE, "space": OBJECT}),
    },
    "tune": {**OF_RUNS, "key": TEXT, "val": _or_null(NUMBER)},
    "cost": {
        "dataset": TEXT,
        "baseline": TEXT,
        "models": {
            "*": {"seconds_ratio": _list_of(NUMBER), "memory_ratio": _or_null(NUMBER), "contended": TRUTH}
        },
    },
    "attention": {"dataset": TEXT, "model": TEXT, "key": Optional(TEXT)},
    "sequence": {
        "dataset": TEXT,
        "variant": TEXT,
        "seed": WHOLE,
        "metric": TEXT,
        "setting": OBJECT,
        "attention": OBJECT,
        "val": _or_null(NUMBER),
        "test": _or_null(NUMBER),
    },
    "regression": {
        "dataset": TEXT,
        "model": TEXT,
        "seed": WHOLE,
        "unit": TEXT,
        "setting": OBJECT,
        "test": NUMBER,
    },
    "ops": dict.fromkeys(("scenario", "subject", "candidate", "what", "regime"), TEXT),
    "sequence cost": {"subject": TEXT, "length": WHOLE, "sizes": OBJECT},
}


def _parse(line: bytes) -> dict[str, Any] | None:
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
