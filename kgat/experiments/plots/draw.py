r"""What every function that draws a figure is."""

from collections.abc import Sequence
from functools import wraps
from typing import Protocol

from matplotlib.figure import Figure

from kgat.experiments.plots.look import INK, LINES, MARKERS, PALETTE, Style, own_style, shortened
from kgat.experiments.plots.selection import Record, datasets, models_of
from kgat.experiments.records import BASELINE


class Draw(Protocol):
    r"""A function that draws a figure from records."""

    __name__: str

    def __call__(self, records: Sequence[Record], dataset: str | None = None) -> Figure | None: ...


def styled(draw: Draw) -> Draw:
    @wraps(draw)
    def drawn(records: Sequence[Record], dataset: str | None = None) -> Figure | None:
        names = datasets(records)
        if dataset is None and names:
            dataset = names[0]
        with own_style():
            return draw(records, dataset)

    return drawn


def styles(records: Sequence[Record]) -> dict[str, Style]:
    r"""Returns the style of each model: the baseline is black, the others follow in their order.

    Args:
        records (list of dict): All records of a comparison.

    Example:
        >>> styles([{"kind": "run", "model": "rbf"}, {"kind": "run", "model": "gat"}])["gat"].color
        '#222222'
    """
    found = {}
    for number, name in enumerate(name for name in models_of(records) if name != BASELINE):
        turn, color = divmod(number, len(PALETTE))
        found[name] = Style(PALETTE[color], MARKERS[(1 + turn) % len(MARKERS)], LINES[turn % len(LINES)])
    return {BASELINE: Style(INK, MARKERS[0], LINES[0])} | found


def title_of(dataset: str | None, seeds: int) -> str:
    return shortened(str(dataset)) + (f", {seeds} seed{'s' * (seeds != 1)}" if seeds else "")
