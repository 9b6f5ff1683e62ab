r"""Raw files: where they lie, how they get there, and how they are opened without trusting them.

A file is trusted as far as it was checked: known content is compared with its SHA-256 before it is
read, archives give out named members only, and a pickle may build arrays and nothing else.
"""

import hashlib
import math
import os
import pickle
import shutil
import ssl
import struct
import urllib.error
import urllib.request
import uuid
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from kgat.atomic import make_folder, replacing

CHUNK = 1 << 20
ELSEWHERE = "pass another 'root', or set KGAT_DATA to a folder of yours"


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


def raw_files(folder: str, url: str | None, names: Sequence[str]) -> tuple[RawFile, ...]:
    r"""Returns files that lie in one folder and come from one, or from nowhere."""
    return tuple(RawFile(f"{folder}/{name}", url and f"{url}/{name}") for name in names)


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


def fetch(root: Path, files: Sequence[RawFile], name: str, instead: Sequence[RawFile] = ()) -> list[Path]:
    r"""Returns the paths of raw files: all present, those of known content verified.

    Files that are missing are downloaded first; files that are there are never written to, so the
    root may be read-only. Where other files serve instead, they are taken if they alone are all there.

    Raises:
        FileNotFoundError: If a file is neither there nor to be had.
        PermissionError: If a download cannot be written below the root.
        ValueError: If a file does not have the content it must have.
    """
    paths = [_place(root, file) for file in files]
    if instead and not all(path.is_file() for path in paths):
        others = [_place(root, file) for file in instead]
        if all(path.is_file() for path in others):
            files, paths = instead, others
    or_else = "".join(f", or '{root / file.path}' instead" for file in instead)
    missing = [file for file, path in zip(files, paths, strict=True) if not path.is_file()]
    for file in missing:
        wanted = f"the raw file of '{name}' at '{root / file.path}'"
        if file.url is None:
            raise FileNotFoundError(
                f"Expected {wanted} (got no file, and no address is known); put it there{or_else}, or point "
                f"'root' or KGAT_DATA to a folder that has it"
            )
        if file.member is None:
            sha256, size = checksums().get(file.path, (None, None))
            download(file.url, root / file.path, sha256=sha256, size=size, wanted=wanted)
    packed = [file for file in missing if file.member is not None]
    for url in sorted({str(file.url) for file in packed}):
        _download_members(url, root, [file for file in packed if file.url == url], name)
    for file, path in zip(files, paths, strict=True):
        if file.path in checksums():
            verify(path, *checksums()[file.path])
    return paths


def _place(root: Path, file: RawFile) -> Path:
    places = [root / path for path in (file.path, *file.also)]
    return next((path for path in places if path.is_file()), places[0])


def verify(path: Path, sha256: str, size: int) -> None:
    r"""Raises a :class:`ValueError` unless a file has a given size and SHA-256."""
    length = path.stat().st_size
    if length != size:
        raise ValueError(
            f"Expected {size:,} bytes in '{path}' (got {length:,}); the file is truncated or not "
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
def atomic(path: Path, elsewhere: str = ELSEWHERE) -> Iterator[BinaryIO]:
    r"""Opens a file that appears at its path complete, or not at all; folders that it needs are made.

    Args:
        path (Path): The file.
        elsewhere (str, optional): How to have it written to another place.
            (default: what chooses the folder of all data sets)
    """
    make_folder(path.parent, elsewhere)
    with replacing(path, elsewhere) as file:
        yield file


def download(
    url: str, path: Path, *, sha256: str | None = None, size: int | None = None, wanted: str | None = None
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
    with ExitStack() as stack:
        # An explicit context: certificates are checked whatever the process-wide default is.
        context = ssl.create_default_context()
        request = urllib.request.Request(url, headers={"User-Agent": "kgat"})
        try:
            with urllib.request.urlopen(request, timeout=60, context=context) as response:
                # Only now: who has no network is left no empty folders.
                file = stack.enter_context(atomic(path))
                announced = response.headers.get("Content-Length")
                expected = size if size is not None else int(announced) if announced else None
                _check_room(path, expected or 0)
                # disable=None: a bar on a terminal, silence in a log.
                with tqdm(
                    total=expected, unit="B", unit_scale=True, desc=path.name, disable=None, leave=False
                ) as bar:
                    while chunk := response.read(CHUNK):
                        file.write(chunk)
                        digest.update(chunk)
                        received += len(chunk)
                        bar.update(len(chunk))
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", None) or error
            raise FileNotFoundError(
                f"Expected {what} (got no file, and no download from {url}: {reason}); connect to the "
                "network, put it there, or point 'root' or KGAT_DATA to a folder that has it"
            ) from error
        if expected is not None and received != expected:
            raise ValueError(
                f"Expected {expected:,} bytes from {url} (got {received:,}); the transfer broke "
                f"off or the file has changed: load again"
            )
        if sha256 is not None and digest.hexdigest() != sha256:
            raise ValueError(
                f"Expected SHA-256 {sha256} of {url} (got {digest.hexdigest()}); the transfer is corrupt or "
                f"the file has changed: load again, or put the published file at '{path}'"
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


class DamagedFile(ValueError):
    r"""What a raw file holds is not what it must hold; the sentence names the file."""


# What parsers raise on bytes that are not theirs. An OSError counts where no system call failed: SciPy and
# gzip report a short file so.
BROKEN = (
    *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError, NotImplementedError, EOFError),
    *(MemoryError, RecursionError, struct.error, zipfile.BadZipFile, zlib.error, pickle.UnpicklingError),
)


@contextmanager
def naming(*paths: Path) -> Iterator[None]:
    r"""Adds to what is said of the content of files which ones they are.

    Args:
        *paths (Path): The files, each of which could be read.
    """
    try:
        yield
    except BROKEN as error:
        read = ", ".join(f"'{path}'" for path in paths)
        kind = IndexError if isinstance(error, IndexError) else ValueError
        raise kind(f"{str(error) or type(error).__name__}; read from {read}") from error


@contextmanager
def reading(*paths: Path) -> Iterator[None]:
    r"""Turns what broken files make parsers raise into one error that names the file, or the files."""
    try:
        yield
    except DamagedFile:
        raise
    except (*BROKEN, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        several = len(paths) > 1
        named = ", ".join(f"'{path}'" for path in paths)
        why = " ".join(str(error).split()) or "no reason given"
        raise DamagedFile(
            f"Expected {'' if several else 'a '}complete and readable file{'s' * several} {named} (got "
            f"{type(error).__name__}: {why}); {'one of them' if several else 'the file'} is truncated or "
            f"corrupt: delete it and load again"
        ) from error


def expect(truth: bool, what: str) -> None:
    r"""Refuses a file: to be called where :func:`reading` says which."""
    if not truth:
        raise ValueError(what)


def read_lines(path: Path) -> list[str]:
    r"""Reads the lines of a text."""
    with reading(path):
        # A sentence may hold characters that splitlines() and files of text take for line ends.
        lines = path.read_bytes().decode("utf8").replace("\r\n", "\n").split("\n")
        lines = lines[:-1] if lines[-1] == "" else lines
        expect(any(line.strip() for line in lines), "no text")
    return lines


def read_csv(path: Path, dtype: Any) -> NDArray[Any]:
    r"""Reads a compressed table of numbers without a header, as those of OGB are."""
    import pandas as pd

    with reading(path):
        return pd.read_csv(path, header=None, dtype=dtype, compression="gzip").to_numpy()


def read_torch(path: Path) -> dict[str, NDArray[Any]]:
    r"""Reads arrays and tensors by name, as :func:`torch.save` wrote them. Nothing in the file is run."""
    import torch

    # NumPy's rebuilding function of arrays has no public name, and two that are not.
    reconstruct: Any = np.empty(0).__reduce__()[0]
    arrays = [(reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
    kinds = {type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"}
    with reading(path), torch.serialization.safe_globals([*arrays, np.ndarray, np.dtype, *kinds]):
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except RuntimeError as error:
            raise ValueError(str(error)) from error
        expect(isinstance(content, dict), f"a {type(content).__name__} where arrays by name belong")
        found = {name: np.asarray(values) for name, values in content.items()}
        _check_unpickled(found)
        return found


def read_npz(path: Path, *keys: str) -> list[Any]:
    r"""Reads arrays of a NumPy archive; object arrays, which are pickles, are refused."""
    with reading(path), zipfile.ZipFile(path) as content:
        return [_member(content, f"{key}.npy", path.stat().st_size) for key in keys]


def read_npy(path: Path) -> NDArray[Any]:
    r"""Reads an array of a NumPy file; an object array, which is a pickle, is refused."""
    with reading(path), path.open("rb") as file:
        return _array(file, path.stat().st_size)


def _member(content: zipfile.ZipFile, name: str, size: int) -> NDArray[Any]:
    info = content.getinfo(name)
    # Deflate packs at most 1,032 to one: what claims more claims room that its content cannot need.
    most = DEFLATE * info.compress_size
    expect(
        info.compress_size <= size and info.file_size <= most,
        f"{info.compress_size:,} bytes of {size:,} that claim to unpack to {info.file_size:,}, '{name}'",
    )
    with content.open(info) as file:
        return _array(file, info.file_size)  # type: ignore[arg-type]


DEFLATE = 1032


def _array(file: BinaryIO, size: int) -> NDArray[Any]:
    # The header is believed only as far as there are bytes: NumPy would make room for what it claims.
    version = np.lib.format.read_magic(file)
    expect(version in HEADERS, f"an array in version {version} of the format")
    shape, fortran_order, dtype = HEADERS[version](file)
    expect(not dtype.hasobject, "an array of objects, which is a pickle")
    expect(min(shape, default=0) >= 0, f"an array of shape {shape}")
    count = math.prod(shape)
    left = size - file.tell()
    expect(count * dtype.itemsize == left, f"an array of {count:,} {dtype} in {left:,} bytes")
    content, filled = bytearray(left), 0
    with memoryview(content) as view:
        while filled < left:
            part = file.read(min(CHUNK, left - filled))
            expect(bool(part), f"{filled:,} bytes of an array where {left:,} were promised")
            view[filled : filled + len(part)] = part
            filled += len(part)
    array = np.frombuffer(content, dtype=dtype, count=count)
    return array.reshape(shape, order="F" if fortran_order else "C")


HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_sparse_npz(path: Path, prefix: str = "") -> Any:
    r"""Reads a sparse matrix of a NumPy archive as :func:`scipy.sparse.save_npz` writes it, by
    compressed rows or by coordinates, as a CSR matrix.

    Args:
        path (Path): The file.
        prefix (str, optional): What stands before the names of its arrays; a matrix with a prefix is one of
            compressed rows. (default: :obj:`""`)
    """
    import scipy.sparse as sp

    with reading(path), zipfile.ZipFile(path) as content:
        named = "format.npy" in content.namelist() and not prefix
    form = read_npz(path, "format")[0] if named else np.array("csr")
    with reading(path):
        name = form.item().decode() if isinstance(form.item(), bytes) else str(form.item())
        expect(name in ("csr", "coo"), f"a sparse matrix in format '{name}'")
    names = ("data", "indices", "indptr", "shape") if name == "csr" else ("data", "row", "col", "shape")
    data, first, second, shape = read_npz(path, *(prefix + name for name in names))
    with reading(path):
        if name == "csr":
            return checked_csr(data, first, second, shape)
        rows, columns = _sizes(shape)
        _check_indices(first, rows)
        _check_indices(second, columns)
        return sp.csr_matrix((_numbers(data), (first, second)), shape=(rows, columns))


def checked_csr(data: Any, indices: Any, indptr: Any, shape: Any) -> Any:
    r"""Returns a CSR matrix of arrays that were checked in full: compiled loops of SciPy read and write
    wherever they point. To be called within :func:`reading`."""
    import scipy.sparse as sp

    rows, columns = _sizes(shape)
    _check_indices(indices, columns)
    _check_indices(indptr, len(indices) + 1)
    expect(len(indptr) == rows + 1, f"{len(indptr)} row pointers for {rows} rows")
    expect(int(indptr[0]) == 0, f"row pointers from {indptr[0]}, not from 0")
    expect(bool((indptr[1:] >= indptr[:-1]).all()), "row pointers that go back")
    expect(int(indptr[-1]) == len(indices), f"row pointers to {indptr[-1]} for {len(indices)} indices")
    expect(len(_numbers(data)) == len(indices), f"{len(data)} values for {len(indices)} indices")
    return sp.csr_matrix((data, indices, indptr), shape=(rows, columns))


def checked_sparse(matrix: Any) -> Any:
    r"""Returns a sparse matrix that a parser or a pickle made as a CSR matrix, checked in full. To be called
    within :func:`reading`."""
    from scipy.sparse import issparse

    expect(issparse(matrix), f"a {type(matrix).__name__} where a sparse matrix belongs")
    expect(matrix.format in ("csr", "csc"), f"a sparse matrix in format '{matrix.format}'")
    rows, columns = _sizes(matrix.shape)
    shape = (rows, columns) if matrix.format == "csr" else (columns, rows)
    checked = checked_csr(matrix.data, matrix.indices, matrix.indptr, shape)
    return checked if matrix.format == "csr" else checked.T.tocsr()


def _sizes(shape: Any) -> tuple[int, int]:
    shape = np.asarray(shape)
    expect(shape.shape == (2,) and shape.dtype.kind in "iu", f"a shape {shape.tolist()}")
    rows, columns = map(int, shape)
    expect(rows >= 0 and columns >= 0, f"a shape {shape.tolist()}")
    return rows, columns


def _check_indices(indices: Any, size: int) -> None:
    plain = isinstance(indices, np.ndarray) and indices.ndim == 1 and indices.dtype.kind in "iu"
    expect(plain, "indices that are no list of whole numbers")
    if len(indices):
        lowest, highest = int(indices.min()), int(indices.max())
        wrong = lowest if lowest < 0 else highest
        expect(0 <= wrong < size, f"index {wrong} where 0 to {size - 1} are possible")


def _numbers(data: Any) -> Any:
    plain = isinstance(data, np.ndarray) and data.ndim == 1 and data.dtype.kind in "biuf"
    expect(plain, "values that are no list of numbers")
    return data


def read_object_npy(path: Path) -> NDArray[Any]:
    r"""Reads an array of objects (a pickle inside an npy file) with :func:`unpickle`'s rules."""
    with reading(path), path.open("rb") as file:
        shape, fortran_order, _ = HEADERS[np.lib.format.read_magic(file)](file)
        array = _ArraysOnly(file, encoding="latin1").load()
        expect(isinstance(array, np.ndarray), f"a {type(array).__name__} where an array belongs")
        _check_unpickled(array)
        return array.reshape(shape, order="F" if fortran_order else "C")


def unpickle(path: Path) -> Any:
    r"""Reads a pickle that may hold arrays, SciPy's CSR matrices and plain containers only."""
    with reading(path), path.open("rb") as file:
        # The files are of Python 2, whose byte strings (array buffers) read as latin1.
        content = _ArraysOnly(file, encoding="latin1").load()
        _check_unpickled(content)
        return checked_sparse(content) if hasattr(content, "indptr") else content


def _check_unpickled(content: Any) -> None:
    # A pickle sets what it likes in a type and in a matrix: arrays of plain numbers or of objects that are
    # checked in turn, and matrices whose indices stay inside.
    seen, left = set[int](), [content]
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, np.ndarray):
            expect(value.dtype.kind in "biufSUO", f"an array of {value.dtype}")
            left += value.ravel().tolist() if value.dtype.kind == "O" else []
        elif isinstance(value, dict):
            left += [*value, *value.values()]
        elif isinstance(value, (list, tuple)):
            left += value
        elif hasattr(value, "indptr"):
            checked_sparse(value)


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
