r"""Files that are whole or as they were before, whatever ends the process that writes them."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["make_folder", "replacing", "write_atomically", "writing"]

# What a disk without room for more fails with.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)


@contextmanager
def writing(path: str | os.PathLike[str], elsewhere: str = "choose another folder") -> Iterator[None]:
    r"""Turns a failure of the disk, or a refusal, into a sentence with the path; what the file held stays.

    Args:
        path (str or Path): The file.
        elsewhere (str, optional): How to have it written to another place.
            (default: :obj:`"choose another folder"`)
    """
    try:
        yield
    except OSError as error:
        named = error.filename is not None and Path(error.filename).is_relative_to(Path(path).parent)
        if error.errno in FULL:
            failure = OSError(
                f"Expected room on the disk to write '{path}' (got: {error.strerror}); make room and run the "
                "same command again: it goes on where it stopped"
            )
        elif named:  # what else is read or asked for meanwhile fails in its own words
            failure = type(error)(
                f"Expected a file that can be written (got '{path}': {error.strerror}); {elsewhere}"
            )
        else:
            raise
        failure.errno = error.errno
        raise failure from error


def make_folder(folder: str | os.PathLike[str], elsewhere: str = "choose another with --out") -> None:
    r"""Makes a folder and those above it, if they are missing.

    Args:
        folder (str or Path): The folder.
        elsewhere (str, optional): How to have it made in another place.
            (default: :obj:`"choose another with --out"`)

    Raises:
        PermissionError: If it cannot be made, as something else is in the way.
        OSError: If the disk is full.
    """
    with writing(folder):
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno in FULL:
                raise
            raise PermissionError(
                f"Expected a folder that can be written (got '{folder}': {error.strerror}); {elsewhere}"
            ) from None


@contextmanager
def replacing(path: str | os.PathLike[str], elsewhere: str = "choose another folder") -> Iterator[BinaryIO]:
    r"""Opens a file beside its place, where the end of the block moves it: it is complete, or as it was.

    Args:
        path (str or Path): The file.
        elsewhere (str, optional): As of :func:`writing`. (default: :obj:`"choose another folder"`)
    """
    path = Path(path)
    with writing(path, elsewhere):
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
