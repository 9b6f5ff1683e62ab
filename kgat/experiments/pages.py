r"""Markdown pages in which tables are replaced."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from kgat.atomic import write_atomically

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
OVERVIEW = "<!-- overview:begin -->", "<!-- overview:end -->"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], names: int = 1) -> str:
    r"""Returns a table in Markdown: names at the left, numbers at the right.

    Args:
        head (list of str): The cells of the first line.
        rows (list of list of str): Those of the others; whatever they hold, it stays in its cell.
        names (int, optional): Number of columns with names. (default: :obj:`1`)

    Example:
        >>> print(markdown_table(["model", "mean"], [["`a|b`", "1.0"]]))
        | model | mean |
        | --- | ---: |
        | `a\|b` | 1.0 |
    """
    lines = [[_cell(cell) for cell in line] for line in (head, *rows)]
    lines.insert(1, ["---"] * names + ["---:"] * (len(head) - names))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    # Of a bar that is escaped already neither sign may end the cell.
    return " ".join(text.split()).replace("\\|", "|").replace("|", "\\|")


def split_readme(
    path: str | os.PathLike[str], begin_line: str = BEGIN, end_line: str = END
) -> tuple[str, str, str]:
    r"""Returns a Markdown file up to the end of the first marker, what stands between the two, and the rest.

    Args:
        path (str or Path): The file.
        begin_line (str, optional): The first marker. (default: that of results)
        end_line (str, optional): The second marker. (default: that of results)

    Raises:
        ValueError: If the file does not have both markers once, in their order.
    """
    old = Path(path).read_text(encoding="utf8")
    begin, end = old.find(begin_line), old.find(end_line)
    if not 0 <= begin < end or old.count(begin_line) != 1 or old.count(end_line) != 1:
        raise ValueError(
            f"Expected the lines '{begin_line}' and '{end_line}' in '{path}', once and in this order (got "
            f"{old.count(begin_line)} and {old.count(end_line)}); add them where the tables belong"
        )
    begin += len(begin_line)
    return old[:begin], old[begin:end], old[end:]


def update_readme(
    path: str | os.PathLike[str], tables: str, begin_line: str = BEGIN, end_line: str = END
) -> bool:
    r"""Replaces what stands between the two markers of a Markdown file.

    Args:
        path (str or Path): The file.
        tables (str): What :func:`kgat.experiments.tables.readme_tables` returned.
        begin_line (str, optional): The first marker. (default: that of results)
        end_line (str, optional): The second marker. (default: that of results)

    Returns:
        bool: Whether the file changed.

    Raises:
        ValueError: If the file does not have both markers once, in their order.
    """
    before, old, after = split_readme(path, begin_line, end_line)
    new = f"\n{tables}\n"
    if new != old:
        write_atomically(path, f"{before}{new}{after}".encode())
    return new != old
