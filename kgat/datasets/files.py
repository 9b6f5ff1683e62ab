r"""Raw files: where they lie, how they get there, and how they are opened without trusting them.

A file is trusted as far as it was checked: known content is compared with its SHA-256 before it is
read, archives give out named members only, and a pickle may build arrays and nothing else.
"""

import hashlib
import os
import pickle
import shutil
import ssl
import urllib.error
import urllib.request
import uuid
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

CHUNK = 1 << 20


@dataclass(frozen=True)
class RawFile:
    r"""One raw file of a data set.

    Args:
        path (str): Where it belongs, below the root.
        url (str or None): Where it comes from; the address of a zip archive if :obj:`member` is given.
            :obj:`None` if there is no address that will last: the user puts the file there.
        member (str, optional): Its name inside the archive. (default: :obj:`None`)
        also (tuple of str, optional): Other places below the root where it may lie already.
            (default: :obj:`()`)
    """

    path: str
    url: str | None
    member: str | None = None
    also: tuple[str, ...] = ()


def user_cache() -> Path:
    r"""The folder for data of the user who runs this process."""
    cache_home = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache_home) if cache_home else Path.home() / ".cache") / "kgat"


def resolve_root(root: str | os.PathLike[str] | None) -> Path:
    r"""The folder of all data sets: the argument, else :obj:`KGAT_DATA`, else the user's cache."""
    if root is not None:
        return Path(root).expanduser()
    variable = os.environ.get("KGAT_DATA")
    return Path(variable).expanduser() if variable else user_cache()


@cache
def checksums() -> dict[str, tuple[str, int]]:
    r"""SHA-256 and size of the raw files whose content is known, by path below the root."""
    lines = Path(__file__).with_name("checksums.txt").read_text(encoding="utf8").splitlines()
    rows = [line.split(maxsplit=2) for line in lines if not line.startswith("#")]
    return {path: (sha256, int(size)) for sha256, size, path in rows}


def fetch(root: Path, files: Sequence[RawFile], name: str) -> list[Path]:
    r"""Returns the paths of raw files: all present, those of known content verified.

    Files that are missing are downloaded first; files that are there are never written to, so the
    root may be read-only.

    Raises:
        FileNotFoundError: If a file is neither there nor to be had.
        PermissionError: If a download cannot be written below the root.
        ValueError: If a file does not have the content it must have.
    """
    paths = [_locate(root, file) for file in files]
    missing = [file for file, path in zip(files, paths, strict=True) if not path.is_file()]
    for file in missing:
        wanted = f"the raw file of '{name}' at '{root / file.path}'"
        if file.url is None:
            raise FileNotFoundError(
                f"Expected {wanted} (got no file, and no address is known); put it there, or point 'root' or "
                f"KGAT_DATA to a folder that has it"
            )
        if file.member is None:
            sha256, size = checksums().get(file.path, (None, None))
            download(file.url, root / file.path, sha256=sha256, size=size, wanted=wanted)
    archives = {file.url for file in missing if file.member is not None and file.url is not None}
    for url in sorted(archives):
        members = [file for file in missing if file.url == url and file.member is not None]
        _download_members(url, root, members, name)
    for file, path in zip(files, paths, strict=True):
        if file.path in checksums():
            verify(path, *checksums()[file.path])
    return paths


def _locate(root: Path, file: RawFile) -> Path:
    for path in (file.path, *file.also):
        if (root / path).is_file():
            return root / path
    return root / file.path


def verify(path: Path, sha256: str, size: int) -> None:
    r"""Raises a :class:`ValueError` unless a file has a given size and SHA-256."""
    found = path.stat().st_size
    if found != size:
        raise ValueError(
            f"Expected {size:,} bytes in '{path}' (got {found:,}); the file is truncated or not "
            f"the published one: delete it and load again"
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != sha256:
        raise ValueError(
            f"Expected SHA-256 {sha256} of '{path}' (got {digest}); the file is corrupt or not "
            f"the published one: delete it and load again"
        )


@contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    r"""Opens a file that appears at its path complete, or not at all."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = part.open("wb")
    except OSError as error:
        raise PermissionError(
            f"Expected a writable folder '{path.parent}' to store '{path.name}' (got "
            f"'{error.strerror}'); pass another 'root', or set KGAT_DATA to a folder of yours"
        ) from error
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def download(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    size: int | None = None,
    wanted: str | None = None,
) -> None:
    r"""Downloads a file under a temporary name, checks it and moves it to its place.

    The server's certificate is verified. What was promised (a known size and SHA-256, else the
    length that the server announces) must arrive; otherwise nothing is left behind.

    Args:
        url (str): The address.
        path (Path): The place.
        sha256 (str, optional): The expected SHA-256. (default: :obj:`None`)
        size (int, optional): The expected number of bytes. (default: :obj:`None`)
        wanted (str, optional): What is missing without it and where, for the message.
            (default: the file and its place)

    Raises:
        FileNotFoundError: If the address does not answer.
        PermissionError: If the place is not writable.
        OSError: If there is not enough room on the disk.
        ValueError: If something else arrives than was expected.
    """
    from tqdm import tqdm

    what = wanted or f"'{path.name}' at '{path}'"
    digest, received = hashlib.sha256(), 0
    with atomic(path) as file:
        # An explicit context: certificates are checked whatever the process-wide default is.
        context = ssl.create_default_context()
        request = urllib.request.Request(url, headers={"User-Agent": "kgat"})
        try:
            with urllib.request.urlopen(request, timeout=60, context=context) as response:
                announced = response.headers.get("Content-Length")
                expected = size if size is not None else int(announced) if announced else None
                _check_room(path, expected or 0)
                # disable=None: a bar on a terminal, silence in a log.
                with tqdm(
                    total=expected,
                    unit="B",
                    unit_scale=True,
                    desc=path.name,
                    disable=None,
                    leave=False,
                ) as bar:
                    while chunk := response.read(CHUNK):
                        file.write(chunk)
                        digest.update(chunk)
                        received += len(chunk)
                        bar.update(len(chunk))
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", None) or error
            raise FileNotFoundError(
                f"Expected {what} (got no file, and no download "
                f"from {url}: {reason}); connect to the network, put it there, or point 'root' or "
                f"KGAT_DATA to a folder that has it"
            ) from error
        if expected is not None and received != expected:
            raise ValueError(
                f"Expected {expected:,} bytes from {url} (got {received:,}); the transfer broke "
                f"off or the file has changed: load again"
            )
        if sha256 is not None and digest.hexdigest() != sha256:
            raise ValueError(
                f"Expected SHA-256 {sha256} of {url} (got {digest.hexdigest()}); the transfer is "
                f"corrupt or the file has changed: load again, or put the published file at "
                f"'{path}'"
            )


def _check_room(path: Path, size: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise OSError(
            f"Expected {size:,} bytes of free disk for '{path}' (got {free:,}); make room, or "
            f"pass another 'root'"
        )


def _download_members(url: str, root: Path, files: list[RawFile], name: str) -> None:
    archive = root / f".{uuid.uuid4().hex}-{url.rsplit('/', 1)[-1]}"
    places = ", ".join(f"'{root / file.path}'" for file in files)
    try:
        download(url, archive, wanted=f"the raw files of '{name}' at {places}")
        with reading(archive), zipfile.ZipFile(archive) as content:
            for file in files:
                # Only members we name are unpacked, to places we name, so no path inside an
                # archive can lead out of the root; a declared size beyond the disk is refused.
                info = content.getinfo(str(file.member))
                with content.open(info) as source, atomic(root / file.path) as target:
                    _check_room(root / file.path, info.file_size)
                    shutil.copyfileobj(source, target, CHUNK)
    finally:
        archive.unlink(missing_ok=True)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    r"""Turns what broken files make parsers raise into one error that names the file."""
    try:
        yield
    except (
        ValueError,
        LookupError,
        TypeError,
        EOFError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
        pickle.UnpicklingError,
    ) as error:
        raise ValueError(
            f"Expected a complete and readable file '{path}' (got {type(error).__name__}: "
            f"{' '.join(str(error).split()) or 'no reason given'}); the file is truncated or "
            f"corrupt: delete it and load again"
        ) from error


def read_npz(path: Path, *keys: str) -> list[Any]:
    r"""Reads arrays of a NumPy archive; object arrays, which are pickles, are refused."""
    with reading(path), np.load(path, allow_pickle=False) as content:
        return [content[key] for key in keys]


def read_object_npy(path: Path) -> NDArray[Any]:
    r"""Reads an array of objects (a pickle inside an npy file) with :func:`unpickle`'s rules."""
    with reading(path), path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran_order, _ = header(file)
        array = _ArraysOnly(file, encoding="latin1").load()
        return array.reshape(shape, order="F" if fortran_order else "C")


def unpickle(path: Path) -> Any:
    r"""Reads a pickle that may hold arrays, SciPy's CSR matrices and plain containers only."""
    with reading(path), path.open("rb") as file:
        # The files are of Python 2, whose byte strings (array buffers) read as latin1.
        return _ArraysOnly(file, encoding="latin1").load()


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        from scipy.sparse import csr_matrix

        # NumPy's rebuilding function of arrays has no public name: an array tells it.
        reconstruct = np.empty(0).__reduce__()[0]
        allowed = {
            "__builtin__.list": list,
            "builtins.list": list,
            "collections.defaultdict": defaultdict,
            "numpy.dtype": np.dtype,
            "numpy.ndarray": np.ndarray,
            "numpy.core.multiarray._reconstruct": reconstruct,
            "numpy._core.multiarray._reconstruct": reconstruct,
            "scipy.sparse.csr.csr_matrix": csr_matrix,
            "scipy.sparse._csr.csr_matrix": csr_matrix,
        }
        full = f"{module}.{name}"
        if full not in allowed:
            raise pickle.UnpicklingError(f"it wants to call {full}, which is not allowed")
        return allowed[full]
