r"""Figures of a comparison, drawn from its records alone.

Every function takes the records (dictionaries, one per line of :obj:`results.jsonl`) and the name
of a data set, the first one by default, and returns a :class:`matplotlib.figure.Figure`, or
:obj:`None` if the records hold nothing for it. A model looks the same in all of them.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from kgat.atomic import write_atomically
from kgat.experiments.plots.draw import Draw, styles
from kgat.experiments.plots.learned import heads, image, importance, law, profile, spectra, spectrum
from kgat.experiments.plots.look import Style, png
from kgat.experiments.plots.results import accuracy, cost, difference, learning_curves
from kgat.experiments.plots.selection import Record, datasets
from kgat.experiments.plots.series import fits
from kgat.experiments.plots.weights import attention, entropy

__all__ = [
    "FIGURES",
    "Style",
    "accuracy",
    "attention",
    "cost",
    "datasets",
    "difference",
    "entropy",
    "file_name",
    "fits",
    "heads",
    "image",
    "importance",
    "law",
    "learning_curves",
    "png",
    "profile",
    "save_all",
    "spectra",
    "spectrum",
    "styles",
]

FIGURES: dict[str, Draw] = {
    "accuracy": accuracy,
    "difference": difference,
    "curves": learning_curves,
    "attention": attention,
    "entropy": entropy,
    "profile": profile,
    "image": image,
    "spectrum": spectrum,
    "law": law,
    "heads": heads,
    "importance": importance,
    "cost": cost,
}


def file_name(dataset: str, figure: str) -> str:
    r"""Returns the name of the file of a figure.

    Example:
        >>> file_name("ogbn-arxiv", "accuracy")
        'ogbn-arxiv-accuracy.png'
    """
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '_', dataset)}-{figure}.png"


def save_all(records: Sequence[Record], folder: str | os.PathLike[str]) -> list[Path]:
    r"""Draws every figure that the records allow, for every data set, as PNG files.

    A file is complete or not there: it is written beside its place and moved into it.

    Args:
        records (list of dict): The records of a comparison.
        folder (str or Path): Where to write; made if missing.

    Returns:
        list[Path]: The files, by data set and in the order of :obj:`FIGURES`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for dataset in datasets(records):
        for name, draw in FIGURES.items():
            figure = draw(records, dataset)
            if figure is None:
                continue
            path = folder / file_name(dataset, name)
            write_atomically(path, png(figure))
            paths.append(path)
    return paths
