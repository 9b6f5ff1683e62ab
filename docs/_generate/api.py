r"""The API reference: a page for each room of the package, and one for each name in its ``__all__``."""

import inspect
import pkgutil
from importlib import import_module
from pathlib import Path
from types import ModuleType

import kgat
from _generate import drop_others, save

# How backends compute is no part of the API.
INSIDE = {"ops"}

INTRODUCTION = """
Made from the docstrings: each public name of each room of the package, with links to its source.
:class:`~kgat.nn.KernelGATConv`, :class:`~kgat.models.KernelGAT` and the other classes that are used most can
be imported from ``kgat`` itself.

"""


def rooms() -> list[str]:
    r"""The rooms of the package that have an API, those of the core first: of ``kgat.__all__``, which
    names no room that the others only lean on."""
    found = {module.name for module in pkgutil.iter_modules(kgat.__path__)}
    names = [name for name in kgat.__all__ if name in found - INSIDE]
    first = [
        "nn",
        "models",
        "kernels",
        "positions",
        "functional",
        "diagnostics",
        "datasets",
        "testing",
        "score",
    ]
    return sorted(names, key=lambda name: (first.index(name) if name in first else len(first), name))


def public(module: ModuleType) -> list[str]:
    r"""What a module offers: its ``__all__``, and the functions and classes that it defines itself."""
    listed = list(getattr(module, "__all__", []))
    defined = [
        name
        for name, item in vars(module).items()
        if (inspect.isclass(item) or inspect.isfunction(item))
        and item.__module__ == module.__name__
        and not name.startswith("_")
    ]
    return list(dict.fromkeys(listed + defined))


def modules(name: str) -> list[ModuleType]:
    r"""A room, if it lists names of its own, else the modules in it."""
    module = import_module(name)
    if public(module) or not hasattr(module, "__path__"):
        return [module]
    inner = [f"{name}.{item.name}" for item in pkgutil.iter_modules(module.__path__)]
    return [found for path in inner for found in modules(path)]


def documented(module: ModuleType) -> list[str]:
    r"""The classes and functions among the public names, and no constants, which have no docstring."""
    names = public(module)
    items = {name: getattr(module, name) for name in names}
    kept = [name for name, item in items.items() if inspect.isclass(item) or inspect.isfunction(item)]
    return sorted(kept, key=lambda name: (not inspect.isclass(items[name]), name.lower()))


def exists(target: str) -> bool:
    r"""Whether a dotted name leads to a module or to an attribute of one."""
    parts = target.split(".")
    for count in range(len(parts), 0, -1):
        try:
            item = import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        return all((item := getattr(item, part, None)) is not None for part in parts[count:])
    return False


def write(folder: Path) -> None:
    pages, index = [], []
    for room in rooms():
        found = [module for module in modules(f"kgat.{room}") if documented(module)]
        pages += [page for module in found for page in _pages_of(module, folder)]
        if len(found) > 1 or found[0].__name__ != f"kgat.{room}":
            pages.append(_room(f"kgat.{room}", found, folder))
        index.append(f"kgat.{room}")
    lines = "\n".join(f"   {name}" for name in index)
    summaries = "\n".join(f"   * - :doc:`{name}`\n     - {_summary(import_module(name))}" for name in index)
    text = _title("API reference") + ".. py:module:: kgat\n\n" + INTRODUCTION
    text += f".. list-table::\n   :widths: 30 70\n\n{summaries}\n\n.. toctree::\n   :hidden:\n\n{lines}\n"
    pages.append(save(folder / "index.rst", text))
    drop_others(folder, pages)


def _title(text: str) -> str:
    return f"{text}\n{'=' * len(text)}\n\n"


def _summary(module: ModuleType) -> str:
    doc = inspect.getdoc(module) or ""
    return " ".join(doc.split("\n\n")[0].split())


def _room(name: str, found: list[ModuleType], folder: Path) -> Path:
    rows = "\n".join(f"   * - :doc:`{m.__name__}`\n     - {_summary(m)}" for m in found)
    tree = "\n".join(f"   {module.__name__}" for module in found)
    text = f"{_title(name)}.. automodule:: {name}\n\n"
    text += f".. list-table::\n   :widths: 40 60\n\n{rows}\n\n.. toctree::\n   :hidden:\n\n{tree}\n"
    return save(folder / f"{name}.rst", text)


def _pages_of(module: ModuleType, folder: Path) -> list[Path]:
    names, path = documented(module), module.__name__
    rows = "\n".join(f"   {name}" for name in names)
    # A class of an own room is documented there; here it only has its line in the table.
    own = [name for name in names if not _elsewhere(module, name)]
    tree = "\n".join(f"   {path}.{name}" for name in own)
    text = f"{_title(path)}.. automodule:: {path}\n\n.. currentmodule:: {path}\n\n"
    text += f".. autosummary::\n   :nosignatures:\n\n{rows}\n\n.. toctree::\n   :hidden:\n\n{tree}\n"
    pages = [save(folder / f"{path}.rst", text)]
    for name in own:
        if inspect.isclass(getattr(module, name)):
            body = f".. autoclass:: {name}\n   :members:\n   :show-inheritance:\n"
        else:
            body = f".. autofunction:: {name}\n"
        page = f"{_title(name)}.. currentmodule:: {path}\n\n{body}"
        pages.append(save(folder / f"{path}.{name}.rst", page))
    return pages


def _elsewhere(module: ModuleType, name: str) -> bool:
    home = getattr(module, name).__module__
    return not (home + ".").startswith(module.__name__ + ".")
