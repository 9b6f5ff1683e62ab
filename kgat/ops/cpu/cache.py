r"""Keeps compiled code on disk, so that what is cut short, damaged or cannot be written costs time alone.

Each piece of code has a file of its own that appears whole or not at all and carries a digest; what does not
fit it is compiled again. Of several processes that need the same piece at once, one compiles it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kgat.atomic import write_atomically
from kgat.ops.notice import warn_once

try:
    import fcntl
except ImportError:  # Windows, where each process compiles for itself
    fcntl = None  # type: ignore[assignment]

_HEAD = b"kgat code 2\n"
DAY = 86_400.0
UNREAD = 90 * DAY  # after which code is removed: that of an earlier version is read by nobody
_swept: set[Path] = set()


def code_folder() -> Path | None:
    r"""Returns the folder of compiled code: what Numba's variable ``NUMBA_CACHE_DIR`` names, or beside the
    package, or the user's; :obj:`None` if none can be written to."""
    told = os.environ.get("NUMBA_CACHE_DIR")
    beside, users = Path(__file__).parent / "__pycache__", Path("~/.cache/kgat")
    for folder in [Path(told)] if told else [beside, users]:
        try:
            folder = folder.expanduser()  # which fails for a user without a home, as containers have them
            folder.mkdir(parents=True, exist_ok=True)
        except (OSError, RuntimeError):
            continue
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    return None


class CodeFiles:
    r"""A folder of compiled code, by key.

    Args:
        folder (str or Path): The folder.
        name (str): How the names of its files begin.
        stamp (Any): What the code was compiled from and by; another stamp is another file.
    """

    def __init__(self, folder: str | os.PathLike[str], name: str, stamp: Any) -> None:
        self._folder, self._name = Path(folder), name
        self._stamp = (sys.version, stamp)

    def path(self, key: Any) -> Path:
        r"""Returns the file of a key."""
        digest = hashlib.sha256(repr((self._stamp, key)).encode()).hexdigest()[:32]
        return self._folder / f"{self._name}-{digest}.code"

    def read(self, key: Any) -> bytes | None:
        r"""Returns the code of a key, :obj:`None` if there is none that can be read."""
        path = self.path(key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            warn_once(f"kgat compiles again what it cannot read from {path}: {error}")
            return None
        head, digest, data = content[: len(_HEAD)], content[len(_HEAD) :][:32], content[len(_HEAD) + 32 :]
        if head != _HEAD or hashlib.sha256(data).digest() != digest:
            warn_once(f"kgat compiles again what was damaged in {path}")
            return None
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < time.time() - DAY:
                os.utime(path)  # it is in use
        return data

    def write(self, key: Any, data: bytes) -> None:
        r"""Writes the code of a key; where that fails, the next process compiles it again."""
        try:
            write_atomically(self.path(key), _HEAD + hashlib.sha256(data).digest() + data)
            self._sweep()
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else error
            warn_once(f"kgat cannot keep compiled code in {self._folder}, so that it is compiled anew: {why}")

    @contextlib.contextmanager
    def claim(self, key: Any) -> Iterator[None]:
        r"""Waits for other processes that compile the same key; the end of a process ends its claim."""
        # One byte per key of one file, which stays empty: files of their own could not be removed safely.
        place = int.from_bytes(hashlib.sha256(self.path(key).name.encode()).digest()[:6])
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # a folder that is not ours, a file system without locks
                file = stack.enter_context(open(self._folder / "kgat.lock", "ab"))
                if fcntl is not None:
                    fcntl.lockf(file, fcntl.LOCK_EX, 1, place)
            yield

    def _sweep(self) -> None:
        # Names hold a digest of what they were compiled from, so that nothing ever replaces an old file.
        if self._folder in _swept:
            return
        _swept.add(self._folder)
        for path in self._folder.glob("kgat.*.code"):
            with contextlib.suppress(OSError):  # of another user, or removed by another process
                if path.stat().st_mtime < time.time() - UNREAD:
                    path.unlink()

    def flush(self) -> None:
        r"""Removes all code of this name."""
        for path in self._folder.glob(f"{self._name}-*.code"):
            path.unlink(missing_ok=True)
