r"""A table of results, and what it looks like in Markdown, a terminal, CSV, LaTeX and HTML.

Texts may have ``**bold**``, ````code```` and ``\*``, which every renderer shows in its way.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from kgat.measures import Measure
from kgat.names import unknown

if TYPE_CHECKING:
    from rich.table import Table as RichTable

__all__ = [
    "FORMATS",
    "Cell",
    "Table",
    "code",
    "interval",
    "number",
    "pivot",
    "probability",
    "render",
    "spread",
    "terminal",
    "unit_of",
]

NONE = "–"


@dataclass(frozen=True)
class Cell:
    r"""What stands in one place of a table.

    Args:
        text (str): What a reader sees.
        values (dict, optional): The numbers behind it by name, which CSV has in full. (default: :obj:`{}`)
        is_code (bool, optional): Whether it is the name of something in code. (default: :obj:`False`)
        color (str, optional): The colour that stands for it in figures, for HTML. (default: :obj:`None`)
    """

    text: str
    values: Mapping[str, float | None] = field(default_factory=dict)
    is_code: bool = False
    color: str | None = None


@dataclass(frozen=True)
class Table:
    r"""A table.

    Args:
        head (list of str): Names of the columns.
        rows (list of list of Cell or str): The others lines.
        names (int, optional): Number of columns with names, which stand at the left; numbers follow.
            (default: :obj:`1`)
        title (str, optional): What it is of. (default: :obj:`""`)
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    names: int = 1
    title: str = ""

    @property
    def cells(self) -> list[list[Cell]]:
        r"""The rows, each text as a cell."""
        return [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in self.rows]


def shown(value: float | None, form: str, scale: float = 1) -> str:
    r"""Returns a number as text, with a minus sign that is as wide as a plus; a dash for none and
    not-a-number.

    Example:
        >>> shown(-0.125, "{:+.1f}", 100), shown(None, "{}")
        ('−12.5', '–')
    """
    return NONE if value is None or value != value else form.format(scale * value).replace("-", "−")


def _scaled(value: float | None, scale: float) -> float | None:
    return value if value is None or scale == 1 else float(f"{scale * value:.12g}")


def unit_of(measure: Measure) -> str:
    r"""Returns what stands behind the name of a data set whose scores are no percentages.

    Example:
        >>> from kgat.measures import measure_of
        >>> unit_of(measure_of("rmse")), unit_of(measure_of("accuracy"))
        (' (RMSE, less is better)', '')
    """
    said = ", ".join(filter(None, (measure.label, measure.direction)))
    return "" if measure.percent else f" ({said})"


def code(name: str, color: str | None = None) -> Cell:
    r"""Returns the name of a model as a cell."""
    return Cell(name, is_code=True, color=color)


def number(value: float | None, form: str, scale: float = 1) -> Cell:
    r"""Returns one number as a cell."""
    return Cell(shown(value, form, scale), {"": _scaled(value, scale)})


def probability(value: float | None) -> Cell:
    r"""Returns a p-value as a cell."""
    small = value is not None and value < 0.001
    return Cell("< 0.001", {"": value}) if small else number(value, "{:.3f}")


def _as_sure(form: str, deviation: float | None) -> str:
    # Of a number whose size nobody knows beforehand, as many places as its deviation has two digits in.
    if not form.endswith("g}") or not deviation or not math.isfinite(deviation):
        return form
    places = max(0, 1 - math.floor(math.log10(abs(deviation))))
    return f"{{:{'+' * ('+' in form)}.{places}f}}" if places <= MOST_PLACES else form


MOST_PLACES = 6


def spread(
    mean: float | None, std: float | None, form: str, scale: float = 1, p_value: float | None = None
) -> Cell:
    r"""Returns a mean with its deviation, and perhaps a p-value, as a cell.

    Example:
        >>> spread(0.805, 0.01, "{:.1f}", 100).text, spread(57.0215, 3.5291, "{:.4g}", p_value=0.03).text
        ('80.5 ± 1.0', '57.0 ± 3.5 (p = 0.03)')
    """
    form = _as_sure(form, None if std is None else scale * std)
    text = shown(mean, form, scale) + ("" if std is None else f" ± {shown(std, form, scale)}")
    text += "" if p_value is None else f" (p = {p_value:.2g})"
    values = {"": _scaled(mean, scale), "std": _scaled(std, scale)}
    return Cell(text, values if p_value is None else {**values, "p": p_value})


def interval(mean: float | None, low: float | None, high: float | None, form: str, scale: float = 1) -> Cell:
    r"""Returns a mean with the ends of its interval as a cell.

    Example:
        >>> interval(0.5, -0.25, 1.25, "{:+.1f}").text, interval(0.42413, -0.38, 1.231, "{:+.4g}").text
        ('+0.5 [−0.2, +1.2]', '+0.42 [−0.38, +1.23]')
    """
    form = _as_sure(form, None if low is None or high is None else scale * (high - low) / 2)
    text = shown(mean, form, scale)
    if low is not None and high is not None:
        text += f" [{shown(low, form, scale)}, {shown(high, form, scale)}]"
    ends = {"": mean, "low": low, "high": high}
    return Cell(text, {name: _scaled(value, scale) for name, value in ends.items()})


def pivot(
    corner: str, columns: Mapping[str, Mapping[str, Cell | str]], *, is_code: bool = False, first: str = ""
) -> Table:
    r"""Returns a table whose rows are all that have a cell in one of the columns, in the order they come.

    Args:
        corner (str): The name of the first column.
        columns (dict): Names of the others, each with its cells by row.
        is_code (bool, optional): Whether rows are names in code. (default: :obj:`False`)
        first (str, optional): The row that comes first, if there is one. (default: :obj:`""`)

    Example:
        >>> print(render([pivot("model", {"Cora": {"gat": "83", "rbf": "84"}, "Texas": {"rbf": "80"}})]))
        | model | Cora | Texas |
        | --- | ---: | ---: |
        | gat | 83 | – |
        | rbf | 84 | 80 |
    """
    names = dict.fromkeys(name for cells in columns.values() for name in cells)
    rows = [
        [Cell(name, is_code=is_code), *(cells.get(name, NONE) for cells in columns.values())]
        for name in sorted(names, key=lambda name: name != first)
    ]
    return Table([corner, *columns], rows)


# --- Renderers --------------------------------------------------------------------------------------------

MARKUP = re.compile(
    r"\*\*(?P<bold>.+?)\*\*|`(?P<code>[^`]+)`|\\(?P<sign>[*|])|(?P<line><br>)|(?P<text>.)", re.S
)


def _inline(text: str, plain: Callable[[str], str], forms: Mapping[str, str]) -> str:
    parts = []
    for match in MARKUP.finditer(text):
        kind = match.lastgroup or ""
        parts.append(forms.get(kind, "{}").format(plain("; " if kind == "line" else match[kind])))
    return "".join(parts)


def _plain(text: str) -> str:
    return _inline(text, str, {})


def markdown(blocks: Iterable[str | Table]) -> str:
    def one_line(text: str) -> str:
        # Of a bar that is escaped already neither sign may end the cell.
        return " ".join(text.split()).replace("\\|", "|").replace("|", "\\|")

    def lines(table: Table) -> str:
        rows = [[f"`{cell.text}`" if cell.is_code else cell.text for cell in row] for row in table.cells]
        cells = [list(map(one_line, line)) for line in (table.head, *rows)]
        cells.insert(1, ["---"] * table.names + ["---:"] * (len(table.head) - table.names))
        return "\n".join(f"| {' | '.join(line)} |" for line in cells)

    return "\n\n".join(block if isinstance(block, str) else lines(block) for block in blocks)


def comma_separated(blocks: Iterable[str | Table]) -> str:
    # One table: what has no title repeats the others, where they have one.
    tables = [block for block in blocks if isinstance(block, Table)]
    tables = [table for table in tables if table.title] or tables
    lines: list[dict[str, object]] = []
    for table in tables:
        for row in table.cells:
            line: dict[str, object] = {"table": table.title} if table.title else {}
            for column, (head, cell) in enumerate(zip(map(_plain, table.head), row, strict=True)):
                names = dict.fromkeys(name for other in table.cells for name in other[column].values)
                texts = {"": None if cell.text == NONE else cell.text if cell.is_code else _plain(cell.text)}
                for name in names or texts:
                    line[f"{head}: {name}" if name else head] = (cell.values if names else texts).get(name)
            lines.append(line)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(dict.fromkeys(name for line in lines for name in line)))
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue().rstrip("\r\n").replace("\r\n", "\n")


TEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"±": r"$\pm$", "−": "$-$", "×": r"$\times$", "–": "--", "†": r"\dag{}", "<": "$<$", ">": "$>$"},
    **{"⁸": "$^8$", "³": "$^3$"},
}


def _tex(text: str) -> str:
    return "".join(TEX.get(sign, sign) for sign in text)


def latex(blocks: Iterable[str | Table]) -> str:
    def inline(text: str) -> str:
        return _inline(text, _tex, {"bold": r"\textbf{{{}}}", "code": r"\texttt{{{}}}"})

    def cell_text(cell: Cell) -> str:
        return rf"\texttt{{{_tex(cell.text)}}}" if cell.is_code else inline(cell.text)

    def tabular(table: Table) -> str:
        lines = [list(map(inline, table.head)), *([cell_text(cell) for cell in row] for row in table.cells)]
        head, *rows = (" & ".join(line) + r" \\" for line in lines)
        columns = "l" * table.names + "r" * (len(table.head) - table.names)
        body = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *rows, r"\bottomrule"]
        return "\n".join([*body, r"\end{tabular}"])

    tables = "\n\n".join(inline(block) if isinstance(block, str) else tabular(block) for block in blocks)
    return f"% \\usepackage{{booktabs}}\n{tables}"


def html(blocks: Iterable[str | Table]) -> str:
    def inline(text: str) -> str:
        return _inline(text, escape, {"bold": "<strong>{}</strong>", "code": "<code>{}</code>"})

    return "\n".join(f"<p>{inline(b)}</p>" if isinstance(b, str) else html_table(b) for b in blocks)


def html_table(table: Table) -> str:
    r"""Returns a table as HTML, in a box that scrolls sideways where it is too wide."""
    # A style sheet puts the first column at the left; where there are more names they say so themselves.
    left = [1 < table.names > place for place in range(len(table.head))]

    def cell_html(cell: Cell, is_left: bool) -> str:
        text = escape(cell.text if cell.is_code else _plain(cell.text))
        if cell.color is not None:
            swatch = f'<span class="swatch" style="background:{cell.color}"></span>'
            return f'<td class="model">{swatch}{text}</td>'
        return f'<td class="left">{text}</td>' if is_left else f"<td>{text}</td>"

    lines = ['<div class="wide"><table><thead><tr>']
    for name, is_left in zip(table.head, left, strict=True):
        style = ' style="text-align:left"' if is_left else ""
        lines.append(f"<th{style}>{escape(_plain(name))}</th>")
    lines.append("</tr></thead><tbody>")
    lines += [f"<tr>{''.join(map(cell_html, row, left))}</tr>" for row in table.cells]
    lines.append("</tbody></table></div>")
    return "\n".join(lines)


def terminal(table: Table) -> RichTable:
    r"""Returns a table for a terminal, as :mod:`rich` prints it."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape as escaped
    from rich.table import Table as RichTable

    drawn = RichTable(title=escaped(table.title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    rows = [[cell.text if cell.is_code else _plain(cell.text) for cell in row] for row in table.cells]
    for place, name in enumerate(map(_plain, table.head)):
        # The words of a heading may stand above each other, numbers stay in one piece.
        drawn.add_column(
            escaped(name.replace(" [", "\n[")),
            justify="left" if place < table.names else "right",
            no_wrap=" [" in name,
            min_width=max((len(row[place]) for row in rows), default=0),
        )
    for row in rows:
        drawn.add_row(*map(escaped, row))
    return drawn


FORMATS: dict[str, Callable[[Iterable[str | Table]], str]] = {
    "markdown": markdown,
    "csv": comma_separated,
    "latex": latex,
    "html": html,
}


def render(blocks: Iterable[str | Table], form: str = "markdown") -> str:
    r"""Returns paragraphs and tables as text.

    CSV has the tables alone, as one, with all digits; where tables have titles, the title is the first
    column.

    Args:
        blocks (list of str or Table): Paragraphs and tables.
        form (str, optional): One of :data:`FORMATS`. (default: :obj:`"markdown"`)

    Raises:
        ValueError: If there is no such format.

    Example:
        >>> table = Table(["model", "accuracy"], [[code("rbf*l2"), spread(0.5, 0.25, "{:.1f}", 100)]])
        >>> print(render([table], "csv"))
        model,accuracy,accuracy: std
        rbf*l2,50.0,25.0
        >>> print(render(["**Cora.** With `rbf`."], "html"))
        <p><strong>Cora.</strong> With <code>rbf</code>.</p>
    """
    if form not in FORMATS:
        unknown("a format of tables", form, FORMATS)
    return FORMATS[form](blocks)
