r"""What a figure is: a function that draws, what it takes out of the records, and what is said below it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import update_wrapper
from typing import Any

from matplotlib.figure import Figure

from kgat.experiments.plots.look import Style, own_style, shortened, styles
from kgat.experiments.plots.selection import Record, datasets

Needs = Callable[[Sequence[Record], str | None], Any]
Looks = Mapping[str, Style]  # of each model
Draw = Callable[[Any, Looks, str], Figure | None]


class Plot:
    r"""A figure of one data set: called with records and, if it is not the first, the name of a data set.

    Args:
        draw (callable): Takes what :obj:`needs` returned, the style of each model, and the data set as
            figures show it. The first line of its docstring is the title of the figure, the rest its caption.
        needs (callable): Takes records and the name of a data set, and returns what the figure shows; if that
            is empty there is no figure.
        order (int, optional): Its place on the page of a comparison; it is on no such page if :obj:`None`.
    """

    def __init__(self, draw: Draw, needs: Needs, order: int | None) -> None:
        update_wrapper(self, draw)
        self.draw, self.needs, self.order = draw, needs, order
        self.name = draw.__module__.rpartition(".")[2]
        title, _, caption = (draw.__doc__ or "").partition("\n")
        self.title, self.caption = title.removesuffix("."), " ".join(caption.split())

    def __call__(self, records: Sequence[Record], dataset: str | None = None) -> Figure | None:
        if dataset is None:
            dataset = next(iter(datasets(records)), None)
        chosen = self.needs(records, dataset)
        if not chosen:
            return None
        with own_style():
            return self.draw(chosen, styles(records), shortened(str(dataset)))


def plot(needs: Needs, order: int | None = None) -> Callable[[Draw], Plot]:
    r"""Declares a figure. Its file in this folder is all there is to it: the folder is searched for them.

    Args:
        needs (callable): As of :class:`Plot`; :mod:`~kgat.experiments.plots.selection` has the usual ones.
        order (int, optional): As of :class:`Plot`. (default: :obj:`None`)
    """
    return lambda draw: Plot(draw, needs, order)
