r"""Markdown pages in which tables are replaced."""

import os
from pathlib import Path

from kgat.atomic import write_atomically

__all__ = ["markers", "split_readme", "update_readme"]


def markers(name: str) -> tuple[str, str]:
    r"""Returns the lines between which a page has the tables of a name.

    Example:
        >>> markers("ops")
        ('<!-- ops:begin -->', '<!-- ops:end -->')
    """
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def split_readme(path: str | os.PathLike[str], name: str = "results") -> tuple[str, str, str]:
    r"""Returns a Markdown file up to the end of the first marker, what stands between the two, and the rest.

    Args:
        path (str or Path): The file.
        name (str, optional): What stands between its :func:`markers`. (default: :obj:`"results"`)

    Raises:
        ValueError: If the file does not have both markers once, in their order.
    """
    begin_line, end_line = markers(name)
    old = Path(path).read_text(encoding="utf8")
    begin, end = old.find(begin_line), old.find(end_line)
    if not 0 <= begin < end or old.count(begin_line) != 1 or old.count(end_line) != 1:
        raise ValueError(
            f"Expected the lines '{begin_line}' and '{end_line}' in '{path}', once and in this order (got "
            f"{old.count(begin_line)} and {old.count(end_line)}); add them where the tables belong"
        )
    begin += len(begin_line)
    return old[:begin], old[begin:end], old[end:]


def update_readme(path: str | os.PathLike[str], tables: str, name: str = "results") -> bool:
    r"""Replaces what stands between the two markers of a Markdown file.

    Args:
        path (str or Path): The file.
        tables (str): What :func:`kgat.experiments.tables.readme_tables` returned.
        name (str, optional): What stands between its :func:`markers`. (default: :obj:`"results"`)

    Returns:
        bool: Whether the file changed.

    Raises:
        ValueError: If the file does not have both markers once, in their order.
    """
    before, old, after = split_readme(path, name)
    new = f"\n{tables}\n"
    if new != old:
        write_atomically(path, f"{before}{new}{after}".encode())
    return new != old
