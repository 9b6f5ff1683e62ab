r"""Graphs of networkx, and the files that it reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import iterparse

from kgat.datasets.own.edge_lists import EDGE_SOURCE, EDGE_TARGET
from kgat.datasets.own.encoding import Encoding
from kgat.datasets.own.tables import from_pandas
from kgat.datasets.task import Task
from kgat.extras import require

__all__ = ["NETWORKS", "from_networkx", "read_network", "tables_of", "without_names_of_ends"]

# What reads a file with this ending.
NETWORKS: dict[str, str] = {
    ".graphml": "read_graphml",
    ".gexf": "read_gexf",
    ".gml": "read_gml",
}


def from_networkx(graph: Any, nodes: Any = None, *, source: str = "", id: str = "id", **options: Any) -> Task:
    r"""Makes a task of a graph of networkx: attributes of nodes are the columns of a table, those of edges of
    another.

    Args:
        graph (networkx.Graph): The graph, directed or not, with or without parallel edges.
        nodes (pandas.DataFrame, optional): A table of the nodes, if they have no attributes; ids are
            compared as texts. (default: :obj:`None`)
        source (str, optional): Where the graph comes from. (default: what it is)
        id (str, optional): The column of ids in :obj:`nodes`. (default: :obj:`"id"`)
        **options (optional): As :func:`from_pandas` and :func:`from_data` have them.

    Raises:
        ValueError: As :func:`from_pandas`; if a graph without directions is to be directed.

    Example:
        >>> import networkx as nx
        >>> task = from_networkx(nx.karate_club_graph(), label="club", structure=["walk:4"], name="club")
        >>> task.data.classes, task.data.x.shape
        (['Mr. Hi', 'Officer'], torch.Size([34, 4]))
    """
    require("to read a graph of networkx", "networkx", "pandas")
    import networkx as nx

    if not isinstance(graph, nx.Graph):
        raise TypeError(
            f"Expected a graph of networkx (got {type(graph).__name__}); build one, e.g. "
            "networkx.Graph(edges)"
        )
    names = list(graph.nodes)
    source = source or f"the given {type(graph).__name__}"
    like: Encoding | None = options.get("like")
    _expect_directions(graph, options.get("directed") if like is None else like.directed, source)
    nodes, edges = tables_of(graph, nodes, id)
    if "directed" not in options or options["directed"] is None:
        options["directed"] = graph.is_directed()
    options.setdefault("row", _row_of(nodes, names))
    task = from_pandas(
        nodes,
        edges,
        **options,
        source=source,
        id=id,
        edge_source=EDGE_SOURCE,
        edge_target=EDGE_TARGET,
    )
    return without_names_of_ends(task)


def without_names_of_ends(task: Task) -> Task:
    r"""Returns a task whose encoding does not say how its columns of ends are called: the names are ours, not
    those of a file."""
    if "encoding" in task.data:
        read = {key: value for key, value in task.data.encoding["read"].items() if key == "id"}
        task.data.encoding = {**task.data.encoding, "read": read}
    return task


def tables_of(graph: Any, nodes: Any, id: str) -> tuple[Any, Any]:
    r"""Returns a graph as a table of nodes, if there is none, and one of edges; ids are texts.

    Args:
        graph (networkx.Graph): The graph.
        nodes (pandas.DataFrame, optional): The table of nodes, if there is one.
        id (str): What the column of ids is called.
    """
    import pandas as pd

    names = list(graph.nodes)
    if nodes is None:
        nodes = pd.DataFrame([dict(graph.nodes[name]) for name in names])
        nodes = pd.DataFrame({id: range(len(names))}) if nodes.empty else nodes
        nodes[id] = [str(name) for name in names]
    ends = pd.DataFrame(
        [(str(one), str(other)) for one, other in graph.edges()], columns=[EDGE_SOURCE, EDGE_TARGET]
    )
    attributes = pd.DataFrame([dict(values) for *_, values in graph.edges(data=True)]).drop(
        # What GEXF numbers edges by.
        columns=["id"],
        errors="ignore",
    )
    edges = pd.concat([ends, attributes], axis=1) if len(attributes.columns) else ends
    return nodes, edges


def _expect_directions(graph: Any, directed: bool | None, source: str) -> None:
    # The order of the ends of an edge without directions says nothing.
    if directed and not graph.is_directed():
        raise ValueError(
            f"Expected edges with directions in {source}, as they are to be directed (got a "
            f"{type(graph).__name__}, whose edges have none); give a networkx.DiGraph, or a list or a table "
            "of edges, or leave out 'directed' (--directed)"
        )


def _row_of(nodes: Any, names: list[Any]) -> Callable[[str, int], str]:
    return lambda table, number: f"edge {number}" if table == "edges" else f"node {number}"


def read_network(path: Path) -> Any:
    r"""Reads a file of a graph by networkx.

    Args:
        path (Path): A file in GraphML, GEXF or GML.

    Raises:
        ValueError: If it is no such file.
    """
    require(f"to read '{path}'", "networkx")
    import networkx as nx

    name = NETWORKS[path.suffix.lower()]
    try:
        graph = getattr(nx, name)(path)
    except OSError:
        raise
    except Exception as error:  # XML and GEXF have errors of their own
        why = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"Expected a graph that networkx.{name} reads in '{path}' (got {type(error).__name__}: {why}); "
            "correct the file"
        ) from error
    if path.suffix.lower() in (".graphml", ".gexf"):
        _expect_unlike_ids(path)
    return graph


def _expect_unlike_ids(path: Path) -> None:
    # networkx makes one node of all with an id, which has what the last of them says.
    seen: set[str | None] = set()
    for _, element in iterparse(path):
        if element.tag.rpartition("}")[2] == "node":
            node = element.get("id")
            if node in seen:
                raise ValueError(
                    f"Expected ids of nodes that occur once in '{path}' (got '{node}' again); remove one of "
                    "them"
                )
            seen.add(node)
            element.clear()
