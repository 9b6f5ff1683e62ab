r"""Files that are whole or as they were before, whatever ends the process that writes them."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["replacing", "write_atomically", "writing"]


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    r"""Turns a failure of the disk into one sentence with the path; what the file held stays."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EROFS):
            raise
        failure = OSError(
            f"Expected room on the disk to write '{path}' (got: {error.strerror}); make room and run the "
            "same command again: it goes on where it stopped"
        )
        failure.errno = error.errno
        raise failure from error


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    r"""Opens a file beside its place, where the end of the block moves it: it is complete, or as it was.

    Args:
        path (str or Path): The file.
    """
    path = Path(path)
    with writing(path):
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            # mkstemp leaves it readable by its owner only
            os.chmod(temporary, path.stat().st_mode if path.exists() else 0o644)
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    r"""Writes a file beside its place and moves it there: it is complete, or as before.

    Args:
        path (str or Path): The file.
        content (bytes): All of its content.
    """
    with replacing(path) as file:
        file.write(content)
