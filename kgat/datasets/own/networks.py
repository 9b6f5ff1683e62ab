r"""Graphs of networkx, and the files that it reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import iterparse

from kgat.datasets.own.tables import from_pandas
from kgat.datasets.task import Task
from kgat.extras import require

__all__ = ["NETWORKS", "from_networkx", "read_network", "tables_of"]

# What reads a file with this ending.
NETWORKS: dict[str, str] = {
    ".graphml": "read_graphml",
    ".gexf": "read_gexf",
    ".gml": "read_gml",
    ".edgelist": "read_edgelist",
    ".edges": "read_edgelist",
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
        ValueError: As :func:`from_pandas`.

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
        edge_source="edge source",
        edge_target="edge target",
    )
    if "encoding" in task.data:  # the names of these columns are ours, not those of a file
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
        [(str(one), str(other)) for one, other in graph.edges()], columns=["edge source", "edge target"]
    )
    attributes = pd.DataFrame([dict(values) for *_, values in graph.edges(data=True)]).drop(
        # What GEXF numbers edges by.
        columns=["id"],
        errors="ignore",
    )
    edges = pd.concat([ends, attributes], axis=1) if len(attributes.columns) else ends
    return nodes, edges


def _row_of(nodes: Any, names: list[Any]) -> Callable[[str, int], str]:
    return lambda table, number: f"edge {number}" if table == "edges" else f"node {number}"


def read_network(path: Path) -> Any:
    r"""Reads a file of a graph by networkx.

    Args:
        path (Path): A file in GraphML, GEXF, GML, or a list of edges.

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
    except Exception as error:  # XML, GEXF and lists have errors of their own
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
