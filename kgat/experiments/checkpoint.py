r"""Checkpoints inside a run: a run that was stopped, however it was, goes on to the same numbers."""

import dataclasses
import hashlib
import pickle
import random
import re
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from kgat.atomic import make_folder, write_atomically
from kgat.datasets.digest import digest_of
from kgat.ops.graph.fingerprint import contents

__all__ = ["Checkpoint", "Checkpoints", "Interval", "fingerprint"]

FOLDER = "checkpoints"  # below that of the results
MAGIC = b"kgat checkpoint 1 "  # the first line of a file, with the digest of the rest
WHOLE = 2**26  # bytes of a tensor up to which all of it is in a fingerprint
PIECES, PIECE = 4096, 1024  # of a larger one: that many pieces of so many elements


@dataclass(frozen=True)
class Interval:
    r"""How often there is a checkpoint.

    Args:
        seconds (float, optional): Seconds between two of them. (default: :obj:`None`)
        epochs (int, optional): Epochs between two of them. (default: :obj:`None`)

    Example:
        >>> Interval.read("30s"), Interval.read("10"), Interval.read("0")
        (Interval(seconds=30.0, epochs=None), Interval(seconds=None, epochs=10), None)
    """

    seconds: float | None = None
    epochs: int | None = None

    @classmethod
    def read(cls, text: str) -> "Interval | None":
        r"""Reads seconds (:obj:`"30s"`), minutes (:obj:`"5m"`) or epochs (:obj:`"10"`); never is :obj:`"0"`.

        Raises:
            ValueError: If it is none of these.
        """
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m)|(\d+)", text.strip())
        if match is None:
            raise ValueError(
                f"Expected seconds, minutes or epochs between two checkpoints (got '{text}'); pass "
                "--checkpoint 30s, 5m or 10, or 0 for none"
            )
        amount, unit, epochs = match.groups()
        if epochs is not None:
            return cls(epochs=int(epochs)) if int(epochs) else None
        return cls(seconds=float(amount) * {"s": 1, "m": 60}[unit])


@dataclass(eq=False)
class Checkpoint:
    r"""The state of a run on disk: all that changes while it trains.

    It is in a folder of its own, which :meth:`remove` deletes when the result of the run is written. A file
    is whole, or as it was before; one that is damaged, or was written by a run with other settings, data or
    versions, is set aside with a warning, and the run starts anew.

    Args:
        folder (str or Path): Where it is; made if missing.
        interval (Interval, optional): How often it is written. (default: every 30 seconds)
        resume (bool, optional): Whether a run goes on from what is there. (default: :obj:`True`)
        identity (dict, optional): What the run is: whose checkpoint may be read. (default: :obj:`{}`)

    Example:
        >>> import tempfile
        >>> model = torch.nn.Linear(1, 1)
        >>> checkpoint = Checkpoint(tempfile.mkdtemp(), identity={"seed": 0})
        >>> checkpoint.save({"model": model})
        >>> before = model.weight.item()
        >>> torch.nn.init.zeros_(model.weight).item()
        0.0
        >>> checkpoint.load({"model": model}), model.weight.item() == before
        (True, True)
    """

    folder: Path | str
    interval: Interval = Interval(seconds=30.0)
    resume: bool = True
    identity: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.path = Path(self.folder) / "state.pt"
        self._written = time.monotonic()
        self._failed = False

    def due(self, epoch: int) -> bool:
        r"""Whether it is to be written after an epoch."""
        seconds, epochs = self.interval.seconds, self.interval.epochs
        return (seconds is not None and time.monotonic() - self._written >= seconds) or (
            epochs is not None and epoch % epochs == 0
        )

    def save(self, parts: Mapping[str, Any]) -> None:
        r"""Writes the state of all parts, and of the generators of torch, NumPy and Python. Where the disk
        refuses, a warning says so once and what was there stays: training need not stop for it.

        Args:
            parts (dict): What has a :meth:`state_dict`, and generators of torch and NumPy.
        """
        content = {
            "identity": dict(self.identity),
            "parts": {name: part_state(part) for name, part in parts.items()},
            "generators": generator_states(),
        }
        buffer = BytesIO()
        torch.save(content, buffer)
        payload = buffer.getvalue()
        try:
            make_folder(self.path.parent)
            write_atomically(
                self.path, MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload
            )
        except OSError as error:
            if not self._failed:
                self._failed = True
                reason = (error.__cause__ or error).args[-1]
                warnings.warn(
                    f"no checkpoint could be written to '{self.path}' (got: {reason}); training goes on, and "
                    "the checkpoint before, if there is one, stays",
                    stacklevel=2,
                )
        # Counted from here: one that takes long does not take all of the time.
        self._written = time.monotonic()

    def load(self, parts: Mapping[str, Any]) -> bool:
        r"""Brings all parts and generators into the state that is there; says whether there was one.

        Args:
            parts (dict): As in :meth:`save`.

        Raises:
            ValueError: If the parts are others than those that were saved.
        """
        for left in self.path.parent.glob(".*"):  # of a process that was killed while it wrote
            left.unlink(missing_ok=True)
        if not self.resume or not self.path.exists():
            self.remove()
            return False
        try:
            content = self._content()
        except ValueError as error:
            aside = self.path.with_name("aside.pt")
            self.path.replace(aside)
            warnings.warn(f"{error}; it is set aside as '{aside}', and the run starts anew", stacklevel=2)
            return False
        states = content["parts"]
        try:
            if states.keys() != parts.keys():
                raise ValueError(f"it has {', '.join(states)}, and the run {', '.join(parts)}")
            for name, part in parts.items():
                restore_part(part, states[name])
        except (ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"Expected a checkpoint of this very program in '{self.path}' (got one that does not fit: "
                f"{reason}); delete that file, or pass --no-resume to start anew"
            ) from error
        restore_generators(content["generators"])
        return True

    def remove(self) -> None:
        r"""Deletes it, with its folder, and the folder of checkpoints if it was the last one there."""
        shutil.rmtree(self.path.parent, ignore_errors=True)
        above = self.path.parent.parent
        if above.name == FOLDER:
            with suppress(OSError):  # others are in it, or it is gone
                above.rmdir()

    def _content(self) -> dict[str, Any]:
        content = self.path.read_bytes()
        head, _, payload = content.partition(b"\n")
        if head != MAGIC + hashlib.sha256(payload).hexdigest().encode():
            raise ValueError(f"expected a whole checkpoint in '{self.path}' (got a damaged one)")
        # Only data: nothing in it can run code.
        try:
            read: dict[str, Any] = torch.load(BytesIO(payload), map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:  # written by another torch
            reason = " ".join(str(error).split())
            raise ValueError(
                f"expected a checkpoint that this torch can read in '{self.path}' (got: {reason})"
            ) from error
        for name, value, other in _differences(self.identity, read["identity"]):
            raise ValueError(
                f"expected a checkpoint of a run with {name}={value} in '{self.path}' (got {name}={other})"
            )
        return read


@dataclass(frozen=True)
class Checkpoints:
    r"""Those of the runs of a folder, each below its key.

    Args:
        results (Path): The folder of the results.
        interval (Interval, optional): How often they are written; never if :obj:`None`.
        resume (bool, optional): Whether runs go on from what is there. (default: :obj:`True`)
    """

    results: Path
    interval: Interval | None
    resume: bool = True

    def of(self, key: str) -> Checkpoint | None:
        r"""Returns the checkpoint of a run, if there are any."""
        return Checkpoint(self._folder(key), self.interval, self.resume) if self.interval else None

    def remove(self, key: str) -> None:
        r"""Deletes what there is of a run."""
        Checkpoint(self._folder(key)).remove()

    def _folder(self, key: str) -> Path:
        return self.results / FOLDER / key


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in dict.fromkeys([*one, *other]):
        a, b = one.get(name), other.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from _differences(a, b)
        elif a != b:
            yield name, a, b


def part_state(part: Any) -> Any:
    r"""Returns the state of what has a :meth:`state_dict`, or of a generator of torch or NumPy."""
    if isinstance(part, torch.Generator):
        return part.get_state()
    if isinstance(part, np.random.Generator):
        return part.bit_generator.state
    return part.state_dict()


def restore_part(part: Any, state: Any) -> None:
    r"""Brings a part into the state that :func:`part_state` returned."""
    if isinstance(part, torch.Generator):
        part.set_state(state)
    elif isinstance(part, np.random.Generator):
        part.bit_generator.state = state
    else:
        part.load_state_dict(state)


def generator_states() -> dict[str, Any]:
    r"""Returns the states of the generators of torch, NumPy and Python."""
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 (what PyG draws from)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": [str(kind), keys.tolist(), *rest],  # type: ignore[union-attr]
        "python": random.getstate(),
    }


def restore_generators(states: Mapping[str, Any]) -> None:
    r"""Brings the generators into the states that :func:`generator_states` returned."""
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])
    np.random.set_state(tuple(states["numpy"]))  # noqa: NPY002
    random.setstate(states["python"])


def fingerprint(data: Any) -> str:
    r"""Returns a digest of data: tensors, and what holds some. Of a tensor above 64 MiB it is evenly spread
    pieces that count, so that one on disk need not be read from end to end.

    Args:
        data (object): A tensor, array, graph, mapping, sequence, dataclass or plain value.

    Example:
        >>> one, other = torch.zeros(3), torch.tensor([0.0, 0.0, 1.0])
        >>> fingerprint({"x": one}) == fingerprint({"x": one.clone()}), fingerprint(one) == fingerprint(other)
        (True, False)
    """
    return digest_of(_parts(data))


def _parts(data: Any) -> Iterator[Tensor | str]:
    if isinstance(data, Tensor):
        yield from _pieces(data)
    elif isinstance(data, np.ndarray):
        yield from _pieces(torch.from_numpy(data))
    elif isinstance(data, Data | HeteroData):
        yield from _parts(data.to_dict())
    elif isinstance(data, Mapping):
        for name, value in data.items():
            yield repr(name)
            yield from _parts(value)
    elif isinstance(data, Sequence) and not isinstance(data, str | bytes):
        yield f"{len(data)}"
        for value in data:
            yield from _parts(value)
    elif dataclasses.is_dataclass(data):
        yield from _parts(vars(data))
    elif data is None or isinstance(data, str | bytes | int | float | bool):
        yield repr(data)
    else:
        raise TypeError(
            f"Expected tensors, graphs, lists, dictionaries or plain values in what is trained on (got "
            f"{type(data).__name__}); convert it, or train without checkpoints"
        )


def _pieces(data: Tensor) -> Iterator[Tensor | str]:
    yield f"{tuple(data.shape)} {data.layout}"
    data = data.detach()
    if type(data) is not Tensor:  # torch cannot ask this of a sparse one
        data = data.as_subclass(Tensor)
    for part in contents(data, values=True):
        if part.numel() * part.element_size() > WHOLE:
            flat = part.reshape(-1)
            starts = torch.linspace(0, flat.numel() - PIECE, PIECES, dtype=torch.float64).long().tolist()
            yield torch.cat([flat[start : start + PIECE] for start in starts])
        else:
            yield part
