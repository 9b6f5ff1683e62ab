r"""How figures look: sizes, colours, and the parts that several of them have."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from io import BytesIO
from itertools import count
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kgat.experiments.plots.selection import Record, half_width, models_of
from kgat.experiments.records import BASELINE

WIDTH = 7.2  # inches, of every figure: text is then equally large in all of them
DPI = 150
INK = "#222222"
FAINT = "#d0d0d0"
# Colours of Okabe-Ito and of Tol's "muted" that keep their distance on white and for all readers;
# the baseline is black. Beyond ten places colours return with another line style and marker.
PALETTE = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#882255",
    "#999933",
    "#332288",
    "#8c6d46",
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
    "#4477aa",
    "#ee6677",
    "#228833",
    "#ccbb44",
    "#66ccee",
    "#aa3377",
    "#f4a582",
    "#44bb99",
    "#775533",
)
UNLABELLED = "#bbbbbb"
RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so figures agree everywhere
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.labelsize": 9.0,
    "axes.edgecolor": "#666666",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "text.usetex": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 9.0,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
}


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
        mpl.rcParams.update(RC)
        yield


def dots_and_interval(
    axes: Axes, row: int, values: np.ndarray, look: Style, bounds: tuple[float, float] = (-math.inf, math.inf)
) -> None:
    # Seeds lie below the mean, fanned out in a fixed pattern so that equal ones can be told apart.
    fan = row + 0.22 + 0.11 * (np.arange(values.size) % 3 - 1) * (values.size > 1)
    axes.plot(values, fan, "o", color=look.color, ms=4, alpha=0.5, mew=0)
    half = half_width(values)
    if half is not None:
        axes.plot(
            np.clip([values.mean() - half, values.mean() + half], *bounds),
            [row - 0.12] * 2,
            color=look.color,
            linewidth=2.4,
            solid_capstyle="butt",
        )
    axes.plot(values.mean(), row - 0.12, look.marker, color=look.color, ms=7.5, mec="white")


def figure_of_rows(count: int, columns: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH, 0.44 * count + 1.25), layout="constrained")
    grid = figure.subplots(1, columns, sharey=True, squeeze=False).flatten()
    for axes in grid:
        axes.grid(True, axis="x")
        axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    return figure, list(grid)


def figure_of_panels(
    count: int, columns: int, height: float, width: float = WIDTH
) -> tuple[Figure, list[Axes]]:
    r"""A figure with so many panels of that height (inches), in rows of so many columns."""
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(width, height * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in grid[count:]:
        axes.axis("off")
    return figure, list(grid[:count])


def headline(figure: Figure, text: str) -> None:
    figure.suptitle(text, x=0.01, ha="left", fontsize=10)


def name_rows(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), [shortened(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def right_of(axes: Axes, row: float, text: str) -> None:
    axes.text(
        1.015,
        row,
        text,
        transform=axes.get_yaxis_transform(),
        va="center",
        clip_on=False,
        fontsize=8.5,
    )


def column_head(axes: Axes, text: str) -> None:
    axes.text(1.015, 1.02, text, transform=axes.transAxes, fontsize=8.0, color="#666666")


def shortened(name: str, most: int = 30) -> str:
    r"""A name that fits: without line breaks, its middle left out if it is long, and no formula."""
    name = " ".join(str(name).split())
    if len(name) > most:
        tail = most // 2 - 1
        name = f"{name[: most - tail - 1]}…{name[-tail:]}"
    return name.replace("$", r"\$")


def power_of_ten(value: float, _: Any = None) -> str:
    exponent = str(round(math.log10(value)))
    return "10" + exponent.translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def shaded(color: str, count: int) -> list[tuple[float, float, float]]:
    base = np.array(to_rgb(color))
    positions = np.linspace(-0.35, 0.45, count) if count > 1 else np.zeros(1)
    shades = (base + abs(position) * ((position > 0) - base) for position in positions)
    return [(float(red), float(green), float(blue)) for red, green, blue in shades]


def png(figure: Figure) -> bytes:
    r"""Returns a figure as a PNG file; equal figures give equal bytes."""
    buffer = BytesIO()
    with own_style():
        # Without the version number of matplotlib, which is in the file by default.
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
