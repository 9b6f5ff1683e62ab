r"""What the allocator of this process does with memory that is freed, where it is glibc's."""

import ctypes
import functools
import sys
from typing import Any

__all__ = ["gives_back", "recycles"]

# Parameters of mallopt(3).
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
LARGEST = 2**31 - 1
MAPPED = 32 * 2**20  # glibc takes no more; above it a block is the system's own, and large graphs stay lean


def recycles() -> bool:
    r"""Has freed memory stay with this process, to be used again. Else glibc gives the end of its heap back
    after each step of a layer that has a row per edge, and takes it anew, page by page, in the next. Says
    whether it could."""
    return _set({MMAP_THRESHOLD: MAPPED, TRIM_THRESHOLD: LARGEST})


def gives_back() -> bool:
    r"""Has freed blocks above 64 KB go back at once, so that what is in use can be counted. Says whether it
    could."""
    return _set({MMAP_THRESHOLD: 2**16, TRIM_THRESHOLD: 2**16})


def _set(values: dict[int, int]) -> bool:
    mallopt = _mallopt()
    return mallopt is not None and all(mallopt(*each) == 1 for each in values.items())


@functools.cache
def _mallopt() -> Any:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    # Another allocator, as that of musl, may have the function and do nothing.
    return library.mallopt if hasattr(library, "gnu_get_libc_version") else None
