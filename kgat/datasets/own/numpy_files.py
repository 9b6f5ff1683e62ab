r"""Files of NumPy and SciPy, of which nothing is run and whose faults are told to their owner."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kgat.datasets.files import DamagedFile, read_npy, read_npz, read_sparse_npz
from kgat.datasets.own.raw import Array

__all__ = ["read_archive", "read_array", "read_folder"]


@contextmanager
def _of_user(path: Path) -> Iterator[None]:
    # What is said of downloaded files, to delete them, is no advice about one's own.
    try:
        yield
    except DamagedFile as error:
        cause = " ".join(str(error.__cause__ or error).split())
        raise ValueError(
            f"Expected arrays of numbers in '{path}' (got: {cause}); write it with numpy.save, numpy.savez "
            "or scipy.sparse.save_npz"
        ) from error


def read_array(path: Path) -> Array:
    r"""Reads an array of a NumPy file; a pickle is refused."""
    if not path.is_file():
        raise FileNotFoundError(f"Expected an array at '{path}' (got no file); check the path")
    with _of_user(path):
        return read_npy(path)


def read_folder(path: Path) -> dict[str, Any]:
    r"""Reads all arrays and sparse matrices of a folder, by the names of their files."""
    arrays: dict[str, Any] = {}
    for file in sorted(path.iterdir()):
        if file.suffix == ".npy":
            arrays[file.stem] = read_array(file)
        elif file.suffix == ".npz":
            content = read_archive(file)
            arrays |= {file.stem: content["adjacency"]} if set(content) == {"adjacency"} else content
    return arrays


def read_archive(path: Path) -> dict[str, Any]:
    r"""Reads all arrays and sparse matrices of an ``.npz`` file, by their names."""
    if not path.is_file():
        raise FileNotFoundError(f"Expected arrays at '{path}' (got no file); check the path")
    with _of_user(path):
        if not zipfile.is_zipfile(path):
            raise DamagedFile("no NumPy archive")
        with zipfile.ZipFile(path) as content:
            names = [name.removesuffix(".npy") for name in content.namelist()]
        # A matrix by save_npz, whose arrays have no prefix, or by hand, whose arrays have its name before.
        sparse = [name.removesuffix("indptr") for name in names if name.endswith("indptr")]
        sparse += [""] if {"row", "col", "shape", "data", "format"} <= set(names) else []
        arrays: dict[str, Any] = {}
        for prefix in sparse:
            title = prefix.rstrip("._-") or "adjacency"
            arrays[title] = read_sparse_npz(path, prefix)
            names = [
                name
                for name in names
                if name.removeprefix(prefix)
                not in ("data", "indices", "indptr", "shape", "format", "row", "col")
            ]
        arrays |= dict(zip(names, read_npz(path, *names), strict=True))
    return arrays
