r"""Keeps on disk what Numba compiles.

Numba's own files end every later run if a full disk or a kill has cut them.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable
from typing import Any

import numba
from numba.core.caching import FunctionCache
from numba.core.serialize import dumps

from kgat.ops.cpu.cache import CodeFiles
from kgat.ops.notice import warn_once


class _Files(CodeFiles):
    # What Numba takes as the files of a cache.

    def load(self, key: Any) -> Any:
        data = self.read(key)
        return None if data is None else pickle.loads(data)

    def save(self, key: Any, code: Any) -> None:
        self.write(key, dumps(code))


class CodeCache(FunctionCache):
    r"""Numba's cache of one function, kept in :class:`~kgat.ops.cpu.cache.CodeFiles`.

    Args:
        function (Callable): The function before it is compiled.

    Raises:
        RuntimeError: If there is no folder to write to, neither beside the package nor the user's.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        stamp = (numba.__version__, self._impl.locator.get_source_stamp())
        self._files = _Files(self._cache_path, f"kgat.{function.__name__}", stamp)
        self._cache_file = self._files  # type: ignore[assignment]  # where Numba looks for them

    def _save_overload(self, signature: Any, data: Any) -> None:
        try:
            super()._save_overload(signature, data)
        except OSError as error:  # the folder itself is gone, or no longer ours
            warn_once(
                f"kgat cannot keep compiled code in {self._cache_path}, so that it is compiled anew: {error}"
            )


def kept_on_disk(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    r"""As :func:`numba.njit`, with the code kept where there is a folder for it."""

    def decorator(function: Callable[..., Any]) -> Any:
        compiled = numba.njit(**options)(function)
        with contextlib.suppress(RuntimeError, OSError):  # there is no folder for it
            compiled._cache = CodeCache(function)
        return compiled

    return decorator
