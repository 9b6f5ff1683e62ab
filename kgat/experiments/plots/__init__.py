r"""Figures, drawn from records alone.

A figure is a function in a file of its own here, declared by :func:`~kgat.experiments.plots.plot.plot`; no
list elsewhere holds its name. It takes the records (dictionaries, one per line of :obj:`results.jsonl`) and
the name of a data set, the first one by default, and returns a :class:`matplotlib.figure.Figure`, or
:obj:`None` if the records hold nothing for it. A model looks the same in all of them.
"""

import os
import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from matplotlib.figure import Figure

from kgat.atomic import make_folder, write_atomically
from kgat.experiments.plots.look import Style, expect_formats, file_content, png, styles
from kgat.experiments.plots.plot import Plot
from kgat.experiments.plots.selection import Record, datasets


def _found() -> dict[str, Plot]:
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    plots = [value for module in modules for value in vars(module).values() if isinstance(value, Plot)]
    return {plot.name: plot for plot in sorted(plots, key=lambda plot: plot.order or 0)}


# Those of the page of a comparison, in their order there.
FIGURES = {name: plot for name, plot in _found().items() if plot.order}
# As attributes of the package, instead of the modules that they stand in.
globals().update({plot.draw.__name__: plot for plot in _found().values()})

__all__ = ["FIGURES", "Style", "datasets", "expect_formats", "file_name", "png", "save", "save_all", "styles"]


def file_name(dataset: str, figure: str, form: str = "png") -> str:
    r"""Returns the name of the file of a figure.

    Example:
        >>> file_name("ogbn-arxiv", "accuracy")
        'ogbn-arxiv-accuracy.png'
    """
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '_', dataset)}-{figure}.{form}"


def save(path: Path, figure: Figure | None) -> Path | None:
    r"""Writes a figure as a PNG, SVG or PDF file, as its name ends (PNG if it does not), complete or not at
    all, into a folder that is made if missing; returns the file, or :obj:`None` if there is no figure.

    Raises:
        ValueError: If the name ends otherwise.
    """
    if figure is None:
        return None
    form = path.suffix.removeprefix(".").lower() or "png"
    expect_formats([form])
    make_folder(path.parent)
    write_atomically(path, file_content(figure, form))
    return path


def save_all(
    records: Sequence[Record], folder: str | os.PathLike[str], formats: Sequence[str] = ("png",)
) -> list[Path]:
    r"""Draws every figure that the records allow, for every data set.

    Args:
        records (list of dict): The records of a comparison.
        folder (str or Path): Where to write; made if missing.
        formats (list of str, optional): :obj:`"png"`, :obj:`"svg"`, :obj:`"pdf"`: a file for each.
            (default: :obj:`("png",)`)

    Raises:
        ValueError: If a format is unknown.

    Returns:
        list[Path]: The files, by data set and in the order of :obj:`FIGURES`.
    """
    expect_formats(formats)
    # Drawn for each: the layout of a figure that was written before is another one.
    paths = (
        save(Path(folder) / file_name(dataset, name, form), draw(records, dataset))
        for dataset in datasets(records)
        for name, draw in FIGURES.items()
        for form in formats
    )
    return [path for path in paths if path is not None]
