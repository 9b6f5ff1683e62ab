r"""Models in a folder: how they are built, as JSON, and their weights, as safetensors."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from pathlib import Path
from typing import Any, ClassVar, Self

import safetensors.torch
import torch

from kgat import __version__, kernels
from kgat.arguments import KnowsArguments
from kgat.atomic import make_folder, write_atomically
from kgat.kernels import Kernel
from kgat.models.penalty import penalised
from kgat.names import imported

CONFIG, WEIGHTS = "config.json", "model.safetensors"


class Pretrained(KnowsArguments):
    r"""A module that remembers the arguments it was built with, so that it can be saved and built again.

    Two are not among them, :obj:`device` and :obj:`dtype`: its weights have both.

    The folder holds ``config.json``, with all arguments and the checksum of the weights, and
    ``model.safetensors``. Neither can run code when it is read, but that the module of a kernel of one's own
    is imported. A kernel that was given as a class or an object is written as such.

    Example:
        >>> import tempfile
        >>> from kgat.models import KernelTransformer
        >>> model = KernelTransformer(8, 2, kernel="rbf")
        >>> folder = tempfile.mkdtemp()
        >>> model.save_pretrained(folder)
        >>> KernelTransformer.from_pretrained(folder).config == model.config
        True
    """

    # The class of the part inside whose arguments this class takes, and those that it sets itself.
    inner: ClassVar[type[torch.nn.Module] | None] = None
    fixed: ClassVar[tuple[str, ...]] = ()

    @property
    def config(self) -> dict[str, Any]:
        r"""All arguments that it was built with, those left at their defaults too."""
        # Where it is and how precise is a matter of the weights, not of the model.
        arguments = {name: x for name, x in self._arguments.items() if name not in ("device", "dtype")}
        if isinstance(inner := getattr(self, "transformer", None), Pretrained):
            passed = {name: value for name, value in inner.config.items() if name not in self.fixed}
            return passed | arguments
        return arguments

    penalised = penalised

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        r"""Writes the model into a folder; each file is complete, or as it was before.

        Args:
            folder (str or Path): The folder; made if missing.

        Raises:
            TypeError: If an argument is nothing that JSON holds.
        """
        content = {"class": type(self).__name__, "kgat": __version__}
        config = {name: _plain(name, value) for name, value in self.config.items()}
        weights = safetensors.torch.save(_apart(self.state_dict()))
        folder = Path(folder)
        make_folder(folder)
        write_atomically(folder / WEIGHTS, weights)
        content |= {"sha256": hashlib.sha256(weights).hexdigest(), "arguments": config}  # type: ignore[dict-item]
        write_atomically(folder / CONFIG, json.dumps(content, indent=2).encode() + b"\n")

    @classmethod
    def from_pretrained(
        cls, folder: str | os.PathLike[str], device: torch.device | str | None = None
    ) -> Self:
        r"""Builds the model that a folder holds, in evaluation mode and in the precision it was saved in.

        Args:
            folder (str or Path): The folder.
            device (torch.device, optional): Where the model shall be. (default: :obj:`None`)

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If the configuration is damaged or of another class, an argument is unknown or
                missing, or the weights are not those that were saved with it.
            RuntimeError: If the weights do not fit the model.
        """
        folder = Path(folder)
        try:
            content = json.loads((folder / CONFIG).read_text(encoding="utf8"))
            name, sha256, arguments = content["class"], content["sha256"], dict(content["arguments"])
        except (ValueError, LookupError, TypeError) as error:
            raise ValueError(
                f"Expected '{folder / CONFIG}' as 'save_pretrained' writes it (got {type(error).__name__}: "
                f"{error}); save the model again"
            ) from error
        if name != cls.__name__:
            raise ValueError(
                f"Expected a '{cls.__name__}' in '{folder}' (got '{name}'); load it with "
                f"'{name}.from_pretrained'"
            )
        weights = (folder / WEIGHTS).read_bytes()
        if sha256 != hashlib.sha256(weights).hexdigest():
            raise ValueError(
                f"Expected the weights that were saved with '{folder / CONFIG}' (got others, or damaged "
                f"ones); save the model again"
            )
        try:
            model = cls(**{name: _built(value, folder / CONFIG) for name, value in arguments.items()})
        except TypeError as error:
            line, name = _unknown(cls, folder / CONFIG, arguments)
            if name is None and (missing := _missing(cls, arguments)):
                raise ValueError(
                    f"Expected all arguments of '{cls.__name__}' in '{folder / CONFIG}' (got none of the "
                    f"name {', '.join(missing)}); add them, or save the model again"
                ) from error
            if name is None:
                raise
            raise ValueError(
                f"Expected arguments that '{cls.__name__}' takes in line {line} of '{folder / CONFIG}' (got "
                f"'{name}'); correct the line, or save the model again with this version of kgat"
            ) from error
        model.load_state_dict(safetensors.torch.load(weights), strict=True, assign=True)
        return model.to(device).eval()


def _unknown(cls: type[Pretrained], path: Path, arguments: dict[str, Any]) -> tuple[int, str | None]:
    # Where classes pass arguments on, the last one says what it does not know: all that take names are asked.
    known: set[str] = set()
    for one in (*cls.__mro__, *(() if cls.inner is None else cls.inner.__mro__)):
        known |= set(inspect.signature(one.__init__).parameters)  # type: ignore[misc]
    name = next((name for name in arguments if name not in known), None)
    lines = path.read_text(encoding="utf8").splitlines()
    line = next((number for number, text in enumerate(lines, 1) if f'"{name}":' in text), 0)
    return line, name


def _missing(cls: type[Pretrained], arguments: dict[str, Any]) -> list[str]:
    parameters = inspect.signature(cls).parameters.values()
    needed = (p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD)
    return [name for name in needed if name not in arguments]


def _apart(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # Layers may share a kernel: the file has its numbers once for each, as it takes no tensor twice.
    places: set[int] = set()
    apart = {}
    for name, x in state.items():
        x = x.contiguous()
        place = x.untyped_storage().data_ptr()
        apart[name] = x.clone() if place in places else x
        places.add(place)
    return apart


def _path_of(cls: type) -> str:
    return cls.__name__ if vars(kernels).get(cls.__name__) is cls else f"{cls.__module__}:{cls.__qualname__}"


def _class_at(path: str, file: Path) -> type[Kernel]:
    cls = imported(path) if ":" in path else vars(kernels).get(path)
    if not (isinstance(cls, type) and issubclass(cls, Kernel)):
        raise ValueError(
            f"Expected the class of a kernel in '{file}' (got '{path}'); correct it, or save the model again"
        )
    return cls


def _built(value: Any, file: Path) -> Any:
    r"""What :func:`_plain` made plain."""
    if isinstance(value, list):
        return tuple(_built(item, file) for item in value)  # as sizes of sources and targets have to be
    if not isinstance(value, dict):
        return value
    if value.keys() == {"kernel class"}:
        return _class_at(value["kernel class"], file)
    content = {name: _built(item, file) for name, item in value.items()}
    if content.keys() != {"kernel class", "arguments"}:
        return content
    cls, arguments = _class_at(content["kernel class"], file), content["arguments"]
    several = [p.name for p in inspect.signature(cls).parameters.values() if p.kind is p.VAR_POSITIONAL]
    parts = [part for name in several for part in arguments.pop(name)]
    return cls(*parts, **arguments)


def _plain(name: str, value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(name, item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(name, item) for key, item in value.items()}
    cls = value if isinstance(value, type) else type(value)
    if issubclass(cls, Kernel) and "<locals>" not in cls.__qualname__ and cls.__module__ != "__main__":
        content: dict[str, Any] = {"kernel class": _path_of(cls)}
        return content if value is cls else content | {"arguments": _plain(name, value._arguments)}
    raise TypeError(
        f"Expected arguments that JSON holds to save a model (got {name}={value!r}); give a name and its "
        "arguments, as kernel='rbf' with 'kernel_kwargs', or a kernel whose class a module has, or save the "
        "'state_dict()' alone"
    )
