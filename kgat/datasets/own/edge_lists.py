r"""Lists of edges: files with two ids of nodes a line, and what is to be said of the edge behind them."""

from __future__ import annotations

import ast
import csv
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from kgat.datasets.own.written import is_plain_number
from kgat.extras import require

__all__ = ["EDGE_LISTS", "EDGE_SOURCE", "EDGE_TARGET", "read_edge_list"]

EDGE_LISTS = (".edgelist", ".edges")
EDGE_SOURCE, EDGE_TARGET, WEIGHT = "edge source", "edge target", "weight"  # columns that files do not name
SEPARATORS = ",;\t"  # the one that is most often in the first line; spaces, if none is
COMMENT = re.compile(r"^\s*[#%].*|\s#.*")  # networkx and SNAP begin one by #, KONECT by %
ATTRIBUTES = re.compile(r"\{.*\}\s*$")  # a dictionary, as networkx writes the attributes of an edge
# How headers call the ends of edges. Other words may be nodes.
HEADS = (
    ("source", "target"),
    ("src", "dst"),
    ("from", "to"),
    ("fromnodeid", "tonodeid"),
    ("head", "tail"),
    ("start", "end"),
    ("u", "v"),
    ("i", "j"),
    ("node1", "node2"),
    ("id1", "id2"),
)
Line = tuple[int, list[str], dict[str, Any]]  # its number, its words and the attributes behind them


def read_edge_list(path: Path, ids: Collection[str]) -> tuple[Any, Callable[[int], str]]:
    r"""Reads a list of edges as a table, and returns what says where a row of it stands.

    Commas, semicolons, tabs or spaces separate two ids of nodes, and after them what is a column of edge
    features: the third word is the weight if there is no header. Attributes as networkx writes them
    (``{'weight': 0.5}``) are columns, too. Lines after ``#`` or ``%`` are comments.

    Args:
        path (Path): The file.
        ids (list of str): The ids of the nodes: a first line is a header if it names none of them, and calls
            its columns as headers do.

    Raises:
        ValueError: If a line is no edge, or has more or fewer words than the first; if there is no edge.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "known.edges"
        >>> _ = path.write_text("# who knows whom, how long\nann, bob, 2\nbob, cleo, 1\n")
        >>> table, where = read_edge_list(path, ["ann", "bob", "cleo"])
        >>> table.iloc[1].tolist(), where(1)
        (['bob', 'cleo', '1'], "line 3 of 'known.edges'")
    """
    require(f"to read '{path}'", "pandas")
    import pandas as pd

    lines = list(_lines(path))
    for number, words, _ in lines:
        if len(words) != (width := len(lines[0][1])):
            raise ValueError(
                f"Expected {width} words in line {number} of '{path}', as in line {lines[0][0]} (got "
                f"{len(words)}: {', '.join(words)}); correct it"
            )
    named = lines.pop(0)[1][2:] if lines and _is_header(lines, {*ids}) else None
    if not lines:
        raise ValueError(f"Expected edges in '{path}' (got none); write two ids of nodes a line")
    if named is None:
        named = [WEIGHT, *(f"column {place}" for place in range(4, 1 + len(lines[0][1])))]
    # What is empty behind the ids is missing, as it is in a table.
    rows = [[word or None for word in words] for _, words, _ in lines]
    names = [EDGE_SOURCE, EDGE_TARGET, *named][: len(rows[0])]
    table = pd.DataFrame(rows, columns=names, dtype=object)
    if any(attributes for *_, attributes in lines):
        attributes = pd.DataFrame([attributes for *_, attributes in lines])
        table = pd.concat([table, attributes], axis=1)
    return table, lambda row: f"line {lines[row][0]} of '{path.name}'"


def _lines(path: Path) -> Iterator[Line]:
    try:
        texts = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"Expected a list of edges in '{path}', in UTF-8 (got byte {error.object[error.start]:#x}, which "
            "is of another encoding); save it as UTF-8"
        ) from error
    bare = [COMMENT.sub("", text).strip() for text in texts]
    written = [(number, text) for number, text in enumerate(bare, start=1) if text]
    heads = [(number, ATTRIBUTES.sub("", text), text) for number, text in written]
    first = heads[0][1] if heads else ""
    most = max(SEPARATORS, key=first.count)
    # Beside tabs spaces are parts of names, but not where other lines have spaces alone.
    is_spaced = most not in first or (most == "\t" and not all("\t" in head for _, head, _ in heads))
    separator = None if is_spaced else most
    for number, head, text in heads:
        try:
            words = _words(head, separator)
            attributes = ast.literal_eval(text[len(head) :].strip() or "{}")
        except (csv.Error, SyntaxError, TypeError, ValueError) as error:
            raise _wrong(path, number, text) from error
        is_edge = len(words) > 1 and words[0] and words[1] and isinstance(attributes, dict)
        if not is_edge or (attributes and len(words) > 2):
            raise _wrong(path, number, text)
        yield number, words, attributes


def _words(text: str, separator: str | None) -> list[str]:
    if separator is None:
        return text.split()
    words = next(csv.reader([text], delimiter=separator, skipinitialspace=True, strict=True))
    return [word.strip() for word in words]


def _wrong(path: Path, number: int, text: str) -> ValueError:
    return ValueError(
        f"Expected two ids of nodes in line {number} of '{path}', and behind them what the edge has (got "
        f"'{text.strip()}'); separate them by commas, tabs or spaces, as in all lines"
    )


def _is_header(lines: list[Line], ids: set[str]) -> bool:
    words, others = lines[0][1], lines[1:]
    if {*words[:2]} & ids or any(map(is_plain_number, words)):
        return False
    ends = tuple(word.lower().replace("_", "").replace(" ", "") for word in words[:2])
    # Above numbers a word is the name of a column, whatever the ends are called.
    above_numbers = len(words) > 2 and bool(others) and all(is_plain_number(other[1][-1]) for other in others)
    return ends in HEADS or above_numbers
