r"""Markdown pages in which tables are replaced."""

import os
from pathlib import Path

from kgat.atomic import write_atomically

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
OVERVIEW = "<!-- overview:begin -->", "<!-- overview:end -->"


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
