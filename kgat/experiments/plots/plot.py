r"""What a figure is: a function that draws, what it takes out of the records, and what is said below it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import update_wrapper
from typing import Any

from matplotlib.figure import Figure

from kgat.experiments.plots.look import Style, own_style, shortened, styles
from kgat.experiments.plots.selection import Record, datasets

Draw = Callable[[Any, Mapping[str, Style], str], Figure | None]


class Plot:
    r"""A figure of one data set: called with records and, if it is not the first, the name of a data set.

    Args:
        draw (callable): Takes what :obj:`needs` returned, the style of each model, and the data set as
            figures show it.
        needs (callable): Takes records and the name of a data set, and returns what the figure shows; if that
            is empty there is no figure.
        order (int): Its place among the others.
        title (str): What it is called on the page of a comparison.
        caption (str): What is said below it there; one without is on no such page.
    """

    def __init__(
        self,
        draw: Draw,
        needs: Callable[[Sequence[Record], str | None], Any],
        order: int,
        title: str,
        caption: str,
    ) -> None:
        update_wrapper(self, draw)
        self.draw, self.needs, self.order, self.title, self.caption = draw, needs, order, title, caption
        self.name = draw.__module__.rpartition(".")[2]

    def __call__(self, records: Sequence[Record], dataset: str | None = None) -> Figure | None:
        if dataset is None:
            dataset = next(iter(datasets(records)), None)
        chosen = self.needs(records, dataset)
        if not chosen:
            return None
        with own_style():
            return self.draw(chosen, styles(records), shortened(str(dataset)))


def plot(
    needs: Callable[[Sequence[Record], str | None], Any], order: int = 0, title: str = "", caption: str = ""
) -> Callable[[Draw], Plot]:
    r"""Declares a figure. Its file in this folder is all there is to it: the folder is searched for them.

    Args:
        needs (callable): As of :class:`Plot`; :mod:`~kgat.experiments.plots.selection` has the usual ones.
        order (int, optional): As of :class:`Plot`. (default: :obj:`0`)
        title (str, optional): As of :class:`Plot`. (default: :obj:`""`)
        caption (str, optional): As of :class:`Plot`. (default: :obj:`""`)
    """
    return lambda draw: Plot(draw, needs, order, title, caption)
