import made_graphs
import networkx as nx
import numpy as np
import pytest
import torch

from kgat.datasets import Encoding, from_networkx, from_pandas, read_graph
from kgat.datasets.own.read import read_unlabelled


def network(cls=nx.Graph):
    nodes, edges = made_graphs.tables()
    graph = cls()
    for row in nodes.to_dict("records"):
        graph.add_node(row.pop("id"), **row)
    graph.add_edges_from(zip(edges["source"], edges["target"], strict=True))
    return graph


def test_attributes_are_columns():
    expected = from_pandas(*made_graphs.tables())
    task = from_networkx(network())
    assert torch.equal(task.data.x, expected.data.x)
    assert torch.equal(task.data.edge_index, expected.data.edge_index)
    assert (task.digest, task.data.node_id) == (expected.digest, expected.data.node_id)
    directed = from_networkx(network(nx.DiGraph))
    assert torch.equal(
        directed.data.edge_index, from_pandas(*made_graphs.tables(), directed=True).data.edge_index
    )
    assert from_networkx(network(nx.DiGraph), directed=False).digest == expected.digest


def test_edge_attributes_and_parallel_edges():
    graph = nx.MultiGraph()
    graph.add_nodes_from((i, {"label": "ab"[i % 2], "x": i}) for i in range(6))
    graph.add_edge(0, 1, weight=1.0)
    graph.add_edge(0, 1, weight=3.0)
    task = from_networkx(graph, standardize=False)
    assert task.data.edge_attr.tolist() == [[1.0], [3.0], [1.0], [3.0]]
    assert task.data.edge_index.tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("suffix", "write"), [("graphml", nx.write_graphml), ("gexf", nx.write_gexf), ("gml", nx.write_gml)]
)
def test_files_of_networkx(tmp_path, suffix, write):
    graph = network()
    for _, attributes in graph.nodes(data=True):
        attributes["color"] = attributes.pop("label")
        attributes["member"] = int(attributes["member"]) if suffix == "gml" else bool(attributes["member"])
    path = tmp_path / f"club.{suffix}"
    write(graph, path)
    # GEXF writes the name of a node as its label.
    task = read_graph(path, label="color", drop=["label"] if suffix == "gexf" else [])
    expected = from_networkx(graph, label="color")
    assert task.name == "club"
    assert torch.equal(task.data.edge_index, expected.data.edge_index)
    assert torch.equal(task.data.y, expected.data.y)
    torch.testing.assert_close(
        task.data.x.sort(dim=1).values, expected.data.x.sort(dim=1).values, atol=1, rtol=9
    )
    assert task.data.x.shape == expected.data.x.shape


def test_a_list_of_edges_beside_a_table(tmp_path):
    nodes, edges = made_graphs.tables()
    path = tmp_path / "known.edgelist"
    path.write_text("# who knows whom\n" + "".join(f"{a} {b}\n" for a, b in edges.to_numpy()))
    with pytest.raises(ValueError, match=r"a table of nodes beside the list of edges .*--nodes"):
        read_graph(path)
    made_graphs.write(tmp_path, nodes)
    task = read_graph(path, nodes="nodes.csv")
    expected = from_pandas(nodes, edges)
    assert task.digest == expected.digest
    path.write_text("p0 p1\np0 p99\n")
    with pytest.raises(IndexError, match=r"in line 2 of 'known.edgelist'.*got 'p99', which is none of 60"):
        read_graph(path, nodes="nodes.csv")
    with pytest.raises(ValueError, match=r"got 'knn', which is for tables or points"):
        read_graph(path, nodes="nodes.csv", knn=3)


def test_what_does_not_fit_is_named(tmp_path):
    graph = network()
    del graph.nodes["p5"]["age"]
    with pytest.raises(ValueError, match=r"a value in node 5, column 'age' .got none"):
        from_networkx(graph)
    with pytest.raises(ValueError, match=r"a column 'color' in the given Graph .got age, job"):
        from_networkx(network(), label="color")
    with pytest.raises(TypeError, match=r"a graph of networkx .got dict"):
        from_networkx({})
    with pytest.raises(ValueError, match=r"a table without rows"):
        from_networkx(nx.Graph())
    path = tmp_path / "g.graphml"
    path.write_text("<graphml")
    with pytest.raises(ValueError, match=r"networkx.read_graphml reads in '.*' .got") as caught:
        read_graph(path)
    assert "\n" not in str(caught.value)


def test_edges_without_directions_are_not_made_directed(tmp_path):
    message = r"edges with directions in .* \(got a Graph, whose edges have none\); give a networkx.DiGraph"
    with pytest.raises(ValueError, match=message):
        from_networkx(network(), directed=True)
    from_networkx(network(nx.DiGraph), directed=True)
    nx.write_graphml(network(), tmp_path / "g.graphml")
    with pytest.raises(ValueError, match=message):
        read_graph(tmp_path / "g.graphml", directed=True)
    # What answers was trained on edges that count one way.
    encoding = Encoding.of(from_networkx(network(nx.DiGraph)).data.encoding)
    with pytest.raises(ValueError, match=message):
        read_unlabelled(tmp_path / "g.graphml", encoding)


@pytest.mark.parametrize("suffix", ["graphml", "gexf"])
def test_ids_occur_once(tmp_path, suffix):
    path = tmp_path / f"g.{suffix}"
    getattr(nx, f"write_{suffix}")(network(), path)
    read_graph(path)
    text = path.read_text()
    path.write_text(text.replace('<node id="p5"', '<node id="p4"'))
    with pytest.raises(ValueError, match=r"ids of nodes that occur once in '.*' .got 'p4' again"):
        read_graph(path)


def test_structure_stands_for_features(tmp_path):
    graph = nx.karate_club_graph()
    task = from_networkx(graph, label="club", structure=["degree"])
    assert task.data.x.shape == (34, 5)
    assert np.asarray(task.data.edge_attr).shape == (156, 1)
