r"""Keeps compiled code on disk, so that what is cut short, damaged or cannot be written costs time alone.

Numba's own files end every later run if a full disk or a kill has cut them. Here each piece of code has a
file of its own that appears whole or not at all and carries a digest; what does not fit it is compiled again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache
from numba.core.serialize import dumps

from kgat.atomic import write_atomically

logger = logging.getLogger("kgat")

_HEAD = b"kgat code 1\n"
_said: set[str] = set()


class CodeFiles:
    r"""A folder of compiled code, by key; what Numba takes as the files of a cache.

    Args:
        folder (str): The folder.
        name (str): How the names of its files begin.
        stamp (Any): What the code was compiled from; another stamp is another file.
    """

    def __init__(self, folder: str, name: str, stamp: Any) -> None:
        self._folder, self._name = Path(folder), name
        self._stamp = (numba.__version__, sys.version, stamp)

    def path(self, key: Any) -> Path:
        r"""Returns the file of a key."""
        digest = hashlib.sha256(repr((self._stamp, key)).encode()).hexdigest()[:32]
        return self._folder / f"{self._name}-{digest}.code"

    def load(self, key: Any) -> Any:
        r"""Returns the code of a key, :obj:`None` if there is none that can be read."""
        path = self.path(key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            _say(f"kgat compiles again what it cannot read from {path}: {error}")
            return None
        head, digest, data = content[: len(_HEAD)], content[len(_HEAD) :][:32], content[len(_HEAD) + 32 :]
        if head != _HEAD or hashlib.sha256(data).digest() != digest:
            _say(f"kgat compiles again what was damaged in {path}")
            return None
        return pickle.loads(data)

    def save(self, key: Any, code: Any) -> None:
        r"""Writes the code of a key; where that fails, the next process compiles it again."""
        data = dumps(code)
        try:
            write_atomically(self.path(key), _HEAD + hashlib.sha256(data).digest() + data)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else error
            _say(f"kgat cannot keep compiled code in {self._folder}, so that it is compiled anew: {why}")

    def flush(self) -> None:
        r"""Removes all code of this name."""
        for path in self._folder.glob(f"{self._name}-*.code"):
            path.unlink(missing_ok=True)


def _say(line: str) -> None:
    if line not in _said:
        _said.add(line)
        logger.warning(line)


class CodeCache(FunctionCache):
    r"""Numba's cache of one function, kept in :class:`CodeFiles`.

    Args:
        function (Callable): The function before it is compiled.
        text (str, optional): All that is compiled, as text. Numba's own key holds the identity of functions
            that one closes over, which no other process has. (default: :obj:`None`)

    Raises:
        RuntimeError: If there is no folder to write to, neither beside the package nor the user's.
    """

    def __init__(self, function: Callable[..., Any], text: str | None = None) -> None:
        super().__init__(function)
        self._text = text
        locator = self._impl.locator
        stamp = locator.get_source_stamp() if text is None else text
        self._files = CodeFiles(self._cache_path, f"kgat.{function.__name__}", stamp)
        self._cache_file = self._files  # type: ignore[assignment]  # where Numba looks for them

    def holds(self, signature: Any) -> bool:
        r"""Whether there is a file for a signature."""
        target = numba.core.registry.cpu_target.target_context
        return self._files.path(self._index_key(signature, target.codegen())).exists()

    def _index_key(self, signature: Any, codegen: Any) -> Any:
        if self._text is None:
            return super()._index_key(signature, codegen)
        return signature, codegen.magic_tuple(), self._text

    def _save_overload(self, signature: Any, data: Any) -> None:
        try:
            super()._save_overload(signature, data)
        except OSError as error:  # the folder itself is gone, or no longer ours
            _say(
                f"kgat cannot keep compiled code in {self._cache_path}, so that it is compiled anew: {error}"
            )


def cache_of(function: Callable[..., Any], text: str | None = None) -> CodeCache | None:
    r"""Returns the cache of a function; :obj:`None` where there is no folder for it."""
    try:
        return CodeCache(function, text)
    except (RuntimeError, OSError):
        return None
