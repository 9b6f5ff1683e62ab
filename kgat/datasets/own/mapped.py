r"""Graphs that lie in memory-mapped files: processes of a machine share them, and they may exceed memory."""

from __future__ import annotations

import json
import mmap
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from kgat.atomic import write_atomically, writing
from kgat.datasets.digest import digest_of
from kgat.datasets.task import PARTS, Split, Task
from kgat.nn.linear import select_rows
from kgat.ops.graph.adjacency import first_of_each

__all__ = ["is_mapped", "load_mapped", "new_folder", "save_mapped"]

Array = NDArray[Any]

META = "meta.json"
FORMATS = "kgat mapped graph"  # with a number
FORMAT = f"{FORMATS} 1"
ROWS = 1 << 16  # of features that are written together
EXTRA = ("node_id", "columns", "target", "classes", "encoding")  # what graphs of one's own have beside
OF_TASK = ("name", "metric", "kind", "num_classes", "source", "preprocessing", "digest")


def save_mapped(folder: str | os.PathLike[str], task: Task) -> None:
    r"""Writes a task on the nodes of a graph as a folder that :func:`load_mapped` opens.

    ===================  ==========================================================================
    file                 content
    ===================  ==========================================================================
    ``x.npy``            features :math:`(N, F)`, dense
    ``edge_index.npy``   edges :math:`(2, E)` by target: sources above targets
    ``indptr.npy``       first edge of each target :math:`(N + 1)`, so that with the sources it is CSC
    ``edge_id.npy``      place of each edge in the list that was given :math:`(E)`
    ``edge_attr.npy``    edge features by target, if there are some
    ``y.npy``            labels
    ``splits.npy``       of each split (row) and node 1, 2, 3 for train, val, test, or 0
    ``meta.json``        all else; written last
    ===================  ==========================================================================

    It is written beside its place and moved there when it is whole: a folder that is there is complete.

    Args:
        folder (str or Path): The folder, which must not be there yet.
        task (Task): The task.

    Raises:
        FileExistsError: If the folder is there.
        OSError: If the disk is full.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from kgat.datasets import load, load_mapped, save_mapped
        >>> folder = Path(tempfile.mkdtemp()) / "karate"
        >>> save_mapped(folder, load("karate"))
        >>> load_mapped(folder).data
        Data(x=[34, 34], edge_index=[2, 156], y=[34], edge_id=[156], undirected=True)
    """
    data = task.data
    if isinstance(data, HeteroData):
        raise ValueError(
            f"Expected a graph with one type of nodes and edges in '{task.name}' (got {len(data.node_types)} "
            f"and {len(data.edge_types)}); train on the file itself, in memory"
        )
    if data.batch is not None:
        raise ValueError(f"Expected one graph in '{task.name}' (got several, with 'batch'); write each alone")
    with new_folder(folder) as place:
        x, nodes = data.x, data.x.size(0)
        target, order = data.edge_index[1].sort(stable=True)
        out = create(place / "x.npy", (nodes, x.size(1)), x.numpy().dtype if _dense(x) else "<f4")
        for rows in torch.arange(nodes).split(ROWS):
            part = select_rows(x, rows)
            out[rows[0] : rows[-1] + 1] = (part if _dense(part) else part.to_dense()).numpy()
        save(place / "edge_index.npy", torch.stack([data.edge_index[0][order], target]).long())
        save(place / "indptr.npy", first_of_each(target.long(), nodes))
        # One that has been sorted before keeps the ids of the first list.
        save(place / "edge_id.npy", order if data.get("edge_id") is None else data.edge_id[order])
        if data.edge_attr is not None:
            save(place / "edge_attr.npy", data.edge_attr[order])
        save(place / "y.npy", data.y)
        parts = [sum(i * getattr(s, part).byte() for i, part in enumerate(PARTS, 1)) for s in task.splits]
        save(place / "splits.npy", torch.stack(parts))  # type: ignore[arg-type]
        meta = {name: getattr(task, name) for name in OF_TASK}
        # Named data sets are known by their names; a folder could hold anything.
        digest = task.digest or digest_of([x, data.edge_index, data.edge_attr, data.y, *parts, task.metric])  # type: ignore[list-item]
        undirected = data.is_undirected() if data.get("undirected") is None else data.undirected
        extra = {name: data[name] for name in EXTRA if name in data}
        write_meta(
            place, {**meta, "digest": digest}, [s.name for s in task.splits], undirected=undirected, **extra
        )


def load_mapped(folder: str | os.PathLike[str]) -> Task:
    r"""Opens a graph that :func:`save_mapped` or ``kgat convert`` wrote. Its tensors are maps of the files:
    memory holds what is looked at, processes share it, and what is written to a tensor stays out of the file.

    Args:
        folder (str or Path): The folder.

    Raises:
        FileNotFoundError: If it is not there, or no such folder.
        ValueError: If a file is damaged or belongs to another graph.
    """
    folder = Path(folder)
    meta = _meta(folder)
    arrays = {name: _opened(folder / f"{name}.npy", *expected) for name, expected in meta["arrays"].items()}
    parts = arrays.pop("splits")
    del arrays["indptr"]
    splits = tuple(
        Split(name, *(part == i for i in range(1, 1 + len(PARTS))))
        for name, part in zip(meta["splits"], parts, strict=True)
    )
    names = ("x", "edge_index", "edge_attr", "y")
    data = Data(**{name: arrays.pop(name) for name in names if name in arrays}, **arrays)
    for name in ("undirected", *EXTRA):
        if name in meta:
            data[name] = meta[name]
    return Task(data=data, splits=splits, **{name: meta[name] for name in OF_TASK})


def is_mapped(folder: str | os.PathLike[str]) -> bool:
    r"""Whether a folder is a graph that :func:`load_mapped` opens."""
    path = Path(folder) / META
    return path.is_file() and FORMATS in path.read_text(encoding="utf8")


def _dense(x: Tensor) -> bool:
    return x.layout == torch.strided


def _meta(folder: Path) -> dict[str, Any]:
    try:
        meta: dict[str, Any] = json.loads((folder / META).read_text(encoding="utf8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"Expected a folder that kgat convert wrote, with '{META}' (got '{folder}'); check the path"
        ) from None
    except ValueError as error:
        raise ValueError(
            f"Expected JSON in '{folder / META}' (got an error: {error}); convert again"
        ) from None
    if meta.get("format") != FORMAT:
        raise ValueError(
            f"Expected '{FORMAT}' as 'format' in '{folder / META}' (got {meta.get('format')!r}); convert "
            "again with this version"
        )
    return meta


def _opened(path: Path, shape: list[int], dtype: str) -> Tensor:
    try:
        array = np.load(path, allow_pickle=False) if 0 in shape else _map(path)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(
            f"Expected an array of shape {shape} in '{path}' (got an error: {error}); convert again"
        ) from None
    if list(array.shape) != shape or array.dtype.str != dtype:
        raise ValueError(
            f"Expected shape {shape} of type {dtype} in '{path}', as '{META}' says (got {list(array.shape)} "
            f"of {array.dtype.str}); convert again"
        )
    return torch.from_numpy(array)


def _map(path: Path) -> Array:
    # Copy on write: torch wants to be able to write, and the file is not to change. Without a reserve: Linux
    # would else refuse a private map that is larger than memory.
    usual = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")
    reserve = getattr(mmap, "MAP_NORESERVE", 0x4000 if usual else 0)  # not every Python has the name
    header = np.load(path, mmap_mode="r", allow_pickle=False)
    if not hasattr(mmap, "MAP_PRIVATE") or header.flags.fnc:
        return np.load(path, mmap_mode="c", allow_pickle=False)  # type: ignore[no-any-return]
    with path.open("rb") as file:
        flags, access = mmap.MAP_PRIVATE | reserve, mmap.PROT_READ | mmap.PROT_WRITE
        content = mmap.mmap(file.fileno(), 0, flags=flags, prot=access)
    return np.frombuffer(content, header.dtype, header.size, header.offset).reshape(header.shape)  # type: ignore[attr-defined]


@contextmanager
def new_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    r"""Makes a folder that is there when the block has ended well, and is not if it has not.

    Args:
        folder (str or Path): The folder.

    Raises:
        FileExistsError: If it is there.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"Expected a new folder (got '{folder}', which is there); choose another name")
    folder.parent.mkdir(parents=True, exist_ok=True)
    host = platform.node().replace(".", "-") or "host"  # whose processes it is that numbers are of
    for left in folder.parent.glob(f".{folder.name}.*.partial"):
        *_, of_host, process, _ = left.name.split(".")
        if of_host == host and process.isdecimal() and not _alive(int(process)):  # it was killed
            shutil.rmtree(left, ignore_errors=True)
    suffix = f".{host}.{os.getpid()}.partial"
    place = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=suffix, dir=folder.parent))
    try:
        with writing(folder):
            yield place
            place.chmod(0o755)
            os.replace(place, folder)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def create(path: Path, shape: Iterable[int], dtype: Any) -> Array:
    r"""Returns a new array in a file, with room for all of it on the disk: of a map without, a full disk
    would end the process."""
    shape = tuple(int(size) for size in shape)
    if 0 in shape:
        np.save(path, np.empty(shape, dtype))
        return np.empty(shape, dtype)
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def save(path: Path, x: Tensor) -> None:
    r"""Writes a tensor as ``.npy``."""
    np.save(path, x.contiguous().numpy())


def write_meta(place: Path, task: Mapping[str, Any], splits: list[str], **more: Any) -> None:
    r"""Writes what the arrays of a folder do not say, and what they are."""
    arrays = {}
    for path in sorted(place.glob("*.npy")):
        array = np.load(path, mmap_mode="r") if path.stat().st_size > 1024 else np.load(path)
        arrays[path.stem] = [list(array.shape), array.dtype.str]
    meta = {"format": FORMAT, **task, "splits": splits, "arrays": arrays, **more}
    write_atomically(place / META, f"{json.dumps(meta, indent=1)}\n".encode())
