r"""How figures look: sizes, colours, and the parts that several of them have."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from kgat.experiments.plots.selection import Record, half_width, models_of
from kgat.experiments.records import BASELINE
from kgat.names import unknown

T = TypeVar("T")
WIDTH = 7.2  # inches, of every figure: text is then equally large in all of them
DPI = 150
INK = "#222222"
FAINT = "#d0d0d0"
# Colours of Okabe-Ito and of Tol's "muted" that keep their distance on white and for all readers;
# the baseline is black. Beyond ten places colours return with another line style and marker.
PALETTE = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"),
    *("#56b4e9", "#882255", "#999933", "#332288", "#8c6d46"),
)
MARKERS = ("o", "s", "D", "^", "v", "P")
LINES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 2, 1, 2)))
# Models that have a place of their own, whatever they are drawn with and whichever data set it is: those that
# are compared most have each a colour, and a kernel shares it with its product with a magnitude.
PLACES = (
    *("gatv2", "dot", "rbf*lp", "spectral", "rbf", "implicit", "copula", "rbf*l1", "rbf*l1.5", "magnitude"),
    *(
        "additive",
        "laplace",
        "rbf*l3",
        "spectral*l2",
        "rbf*l2",
        "implicit*l2",
        "copula*l2",
        "gp-rbf",
        "gp-sm",
    ),
)
CLASS_COLORS = (
    *("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee"),
    *("#aa3377", "#f4a582", "#44bb99", "#775533"),
)
UNLABELLED = "#bbbbbb"


class Style(NamedTuple):
    r"""How a model looks in every figure."""

    color: str
    marker: str
    line: Any  # a line style of matplotlib


def styles(records: Sequence[Record]) -> dict[str, Style]:
    r"""Returns the style of each model: the baseline is black, the models of :data:`PLACES` have theirs, and
    the place of any other one follows from its name, or is the next that is free.

    Args:
        records (list of dict): All records of a comparison.

    Example:
        >>> styles([{"kind": "run", "model": "rbf"}])["gat"].color
        '#222222'
    """
    names = [name for name in models_of(records) if name != BASELINE]
    places: dict[str, int] = {}
    for name in sorted(names, key=lambda name: (name not in PLACES, name)):
        place = PLACES.index(name) if name in PLACES else sha256(name.encode()).digest()[0] % len(PALETTE)
        places[name] = next(free for free in count(place) if free not in places.values())
    of_models = {BASELINE: Style(INK, MARKERS[0], LINES[0])}
    for name in names:
        turn, color = divmod(places[name], len(PALETTE))
        of_models[name] = Style(PALETTE[color], MARKERS[(1 + turn) % len(MARKERS)], LINES[turn % len(LINES)])
    return of_models


@contextmanager
def own_style() -> Iterator[None]:
    # Not the user's style sheet: white text would be lost on our white ground.
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_own())
        yield


@cache
def _own() -> mpl.RcParams:
    return mpl.rc_params_from_file(Path(__file__).with_name("kgat.mplstyle"), use_default_template=False)


def dots_and_interval(
    axes: Axes,
    row: int,
    values: np.ndarray,
    look: Style,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    independent: np.ndarray | None = None,
) -> None:
    # Seeds lie below the mean, fanned out in a fixed pattern so that equal ones can be told apart.
    fan = row + 0.22 + 0.11 * (np.arange(values.size) % 3 - 1) * (values.size > 1)
    axes.plot(values, fan, "o", color=look.color, ms=4, alpha=0.5, mew=0)
    # Dots may belong together.
    of_mean = values if independent is None else independent
    half = half_width(of_mean)
    if half is not None:
        ends = np.clip([of_mean.mean() - half, of_mean.mean() + half], *bounds)
        # Ends are taller than the marker of the mean, which would hide a narrow interval.
        places = [row - 0.12] * 2
        axes.plot(ends, places, "|-", color=look.color, lw=2.4, ms=11, mew=1.2, solid_capstyle="butt")
    axes.plot(values.mean(), row - 0.12, look.marker, color=look.color, ms=7.5, mec="white")


def figure_of_scores(
    scores: Mapping[str, np.ndarray],
    looks: Mapping[str, Style],
    head: str,
    text: Callable[[np.ndarray], str],
    reference: float | None = None,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    independent: Mapping[str, np.ndarray] | None = None,
) -> tuple[Figure, Axes]:
    r"""A figure with a row for each model: its seeds, their mean with its interval (that of
    :obj:`independent` values if they are given), and at the right what :obj:`text` says, under a head."""
    figure, (axes,) = figure_of_rows(len(scores))
    if reference is not None:
        reference_line(axes, reference)
    for row, (model, values) in enumerate(scores.items()):
        dots_and_interval(axes, row, values, looks[model], bounds, (independent or {}).get(model))
        right_of(axes, row, text(values))
    several = any(values.size > 1 for values in scores.values())
    axes.text(
        1.015, 1.02, head if several else "value", transform=axes.transAxes, fontsize=8.0, color="#666666"
    )
    name_rows(axes, list(scores))
    return figure, axes


def reference_line(axes: Axes, value: float) -> None:
    axes.axvline(value, color=INK, linewidth=1, linestyle=(0, (4, 3)))


def figure_of_rows(count: int, columns: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH, 0.44 * count + 1.25), layout="constrained")
    grid = figure.subplots(1, columns, sharey=True, squeeze=False).flatten()
    for axes in grid:
        axes.grid(True, axis="x")
        axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    return figure, list(grid)


def figure_of_panels(
    chosen: Mapping[str, T],
    height: float,
    columns: int | None = None,
    width: float = WIDTH,
    x: str = "",
    y: str = "",
) -> tuple[Figure, list[tuple[Axes, str, T]]]:
    r"""A figure with a panel of that height (inches) for each model, in rows of up to three, or of so many
    columns; outer panels say what stands at their axes."""
    columns = columns or min(3, len(chosen))
    figure, grid = figure_of_grid(len(chosen), columns, height, width=width)
    for number, (axes, model) in enumerate(zip(grid, chosen, strict=True)):
        axes.set_title(shortened(model, 24), fontsize=9.5)
        axes.set_ylabel(y if number % columns == 0 else "")
        axes.set_xlabel(x if number + columns >= len(chosen) else "")
    return figure, [(axes, *item) for axes, item in zip(grid, chosen.items(), strict=True)]


def figure_of_grid(
    count: int, columns: int, height: float, more: float = 0.5, width: float = WIDTH, **shared: Any
) -> tuple[Figure, list[Axes]]:
    r"""A figure with so many panels, in rows of that height (inches) and columns, and more room around."""
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(width, height * rows + more), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False, **shared).flatten())
    for axes in grid[count:]:
        axes.axis("off")
    return figure, grid[:count]


def headline(figure: Figure, text: str) -> None:
    figure.suptitle(text, x=0.01, ha="left", fontsize=10)


def name_rows(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), [shortened(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def right_of(axes: Axes, row: float, text: str) -> None:
    place = axes.get_yaxis_transform()
    axes.text(1.015, row, text, transform=place, va="center", clip_on=False, fontsize=8.5)


def shortened(name: str, most: int = 30) -> str:
    r"""A name that fits: without line breaks, its middle left out if it is long, and no formula."""
    name = " ".join(str(name).split())
    if len(name) > most:
        tail = most // 2 - 1
        name = f"{name[: most - tail - 1]}…{name[-tail:]}"
    return name.replace("$", r"\$")


def few_ticks(axis: Axis, most: int) -> None:
    axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 5, 10]))


def plain_log(axes: Axes) -> None:
    r"""A log scale along x whose ticks are numbers as they are, rather than powers of ten."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def power_of_ten(value: float, _: Any = None) -> str:
    exponent = str(round(math.log10(value)))
    return "10" + exponent.translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def shaded(color: str, count: int) -> list[tuple[float, float, float]]:
    base = np.array(to_rgb(color))
    positions = np.linspace(-0.35, 0.45, count) if count > 1 else np.zeros(1)
    shades = (base + abs(position) * ((position > 0) - base) for position in positions)
    return [(float(red), float(green), float(blue)) for red, green, blue in shades]


# Of each format, what matplotlib would write into a file: its version, and the moment.
FORMATS: dict[str, tuple[str, ...]] = {
    "png": ("Software",),
    "svg": ("Creator", "Date"),
    "pdf": ("Creator", "Producer", "CreationDate"),
}


def expect_formats(formats: Sequence[str]) -> None:
    r"""Refuses a format that figures are not written in.

    Raises:
        ValueError: If one is unknown, or there is none.
    """
    for form in formats or [""]:
        if form not in FORMATS:
            unknown("a format of figures", form, FORMATS)


def file_content(figure: Figure, form: str) -> bytes:
    r"""Returns a figure as a file of one of :data:`FORMATS`; equal figures give equal bytes."""
    buffer = BytesIO()
    with own_style():
        mpl.rcParams["svg.hashsalt"] = "kgat"  # else names of parts are drawn anew
        figure.savefig(buffer, format=form, dpi=DPI, metadata=dict.fromkeys(FORMATS[form]))
    return buffer.getvalue()


def png(figure: Figure) -> bytes:
    r"""Returns a figure as a PNG file."""
    return file_content(figure, "png")
