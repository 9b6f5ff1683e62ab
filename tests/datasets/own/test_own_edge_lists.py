import made_graphs
import networkx as nx
import pandas as pd
import pytest
import torch

from kgat.datasets import Encoding, from_pandas, read_graph
from kgat.datasets.own.read import read_unlabelled

EDGES = [
    ("a", "b", 0.5),
    ("c", "a", 1.0),
    ("b", "a", 2.0),
    ("d", "b", 0.5),
    ("e f", "d", 4.0),
    ("c", "a", 1.0),
]


@pytest.fixture
def nodes(tmp_path):
    table = pd.DataFrame({"id": ["a", "b", "c", "d", "e f", "g"], "f": range(6), "label": list("xyxyxy")})
    made_graphs.write(tmp_path, table)
    return table


def expected(nodes, count=3, **options):
    edges = pd.DataFrame(EDGES, columns=["source", "target", "weight"])
    return from_pandas(nodes, edges.iloc[:, :count], **options)


def written(folder, text, suffix="edges"):
    path = folder / f"known.{suffix}"
    path.write_text(text, encoding="utf8")
    return path


def read(folder, text, suffix="edges", **options):
    return read_graph(written(folder, text, suffix), nodes="nodes.csv", **options)


def lines(separator, words=3):
    return "".join(separator.join(map(str, edge[:words])) + "\n" for edge in EDGES)


@pytest.mark.parametrize("suffix", ["edges", "edgelist"])
@pytest.mark.parametrize("directed", [None, True, False])
@pytest.mark.parametrize("separator", [",", ", ", ";", "\t", " "])
@pytest.mark.parametrize("words", [2, 3])
def test_separators_weights_and_directions(tmp_path, nodes, separator, words, directed, suffix):
    text = lines(separator, words)
    if separator == " ":  # which cannot be part of a name then
        nodes = nodes.replace("e f", "ef")
        made_graphs.write(tmp_path, nodes)
        text = text.replace("e f", "ef")
    task = read(tmp_path, text, suffix, directed=directed)
    known = expected(nodes.replace("ef", "e f"), words, directed=directed)
    assert task.digest == known.digest
    assert torch.equal(task.data.edge_index, known.data.edge_index)
    assert "0 self-loops and 1 duplicate edge dropped" in task.preprocessing
    assert (task.data.edge_attr is None) == (words == 2)
    assert words == 2 or "edge features weight" in task.preprocessing


@pytest.mark.parametrize(
    "text",
    [
        "# who knows whom\n% sym\n" + lines(","),
        "\ufeffsource,target,weight\n" + lines(","),
        "FromNodeId;ToNodeId;weight\n" + lines(";"),
        "one\tother\tweight\n\n" + lines("\t").replace("\n", " # known\n\n"),
        lines(",").replace("\n", "\r\n").rstrip(),
        lines(",").replace("e f", '"e f"'),
    ],
)
def test_headers_and_comments(tmp_path, nodes, text):
    assert read(tmp_path, text).digest == expected(nodes).digest


def test_columns_are_those_of_a_table_of_edges(tmp_path, nodes):
    edges = pd.DataFrame(EDGES, columns=["source", "target", "weight"]).assign(kind=["in", "out", "in"] * 2)
    text = edges.rename(columns={"source": "u", "target": "v"}).to_csv(index=False)
    task = read(tmp_path, text)
    assert task.digest == from_pandas(nodes, edges).digest
    assert "edge features weight, kind" in task.preprocessing
    assert "edge features weight, column 4" in read(tmp_path, text.split("\n", 1)[1]).preprocessing


def test_attributes_that_networkx_writes(tmp_path, nodes):
    graph = nx.DiGraph()
    for source, target, weight in EDGES:
        graph.add_edge(source.replace(" ", ""), target, weight=weight, kind="near, by")
    nodes = nodes.replace("e f", "ef")
    made_graphs.write(tmp_path, nodes)
    nx.write_edgelist(graph, tmp_path / "known.edgelist")
    task = read_graph(tmp_path / "known.edgelist", nodes="nodes.csv", directed=True)
    edges = nx.to_pandas_edgelist(graph)
    assert (
        task.digest == from_pandas(nodes, edges[["source", "target", "weight", "kind"]], directed=True).digest
    )
    nx.write_edgelist(graph, tmp_path / "known.edgelist", data=["weight"])
    task = read_graph(tmp_path / "known.edgelist", nodes="nodes.csv", directed=True)
    assert task.digest == from_pandas(nodes, edges[["source", "target", "weight"]], directed=True).digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n# c\nc\n", r"two ids of nodes in line 3 of '.*known.edges'.*got 'c'"),
        ("a,b\n,c\n", r"two ids of nodes in line 2 of .*got ',c'"),
        ("a,b\nc a\n", r"two ids of nodes in line 2 of .*got 'c a'.*commas, tabs or spaces"),
        ("a,b,1\nb,c\n", r"3 words in line 2 of '.*', as in line 1 \(got 2: b, c\)"),
        ("source,target\na,b,1\nb,c,2\n", r"2 words in line 2 of '.*', as in line 1 \(got 3: a, b, 1\)"),
        ("a b 1\nb c 2 3\n", r"3 words in line 2 .*got 4: b, c, 2, 3"),
        ('a,b\n"a,c\n', r"two ids of nodes in line 2 of .*got '\"a,c'"),
        ("a b {'w': 1}\na c {'w': x}\n", r"two ids of nodes in line 2 of"),
        ("a b {'w': 1}\na c 2 {'w': 3}\n", r"two ids of nodes in line 2 of"),
        ("a,b,1\nb,c,2\nc,a,old\n", r"a number in line 3 of 'known.edges', column 'weight' \(got 'old'"),
        ("a,b,1\nb,c,2\nc,a,\n", r"a value in line 3 of 'known.edges', column 'weight' \(got none"),
        ("# none\n\n", r"edges in '.*known.edges' \(got none\)"),
        ("source,target\n", r"edges in '.*known.edges' \(got none\)"),
        ("a,b\nb,h\n", r"in line 2 of 'known.edges', column 'edge target' \(got 'h', which is none of 6"),
        ("h,k\na,b\n", r"in line 1 of 'known.edges', column 'edge source' \(got 'h'"),  # no header's words
    ],
)
def test_no_line_is_lost(tmp_path, nodes, text, message):
    with pytest.raises((ValueError, IndexError), match=message) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_another_encoding_is_told(tmp_path, nodes):
    (tmp_path / "known.edges").write_bytes("a,b\nb,ä\n".encode("latin1"))
    with pytest.raises(ValueError, match=r"a list of edges in .* in UTF-8 .got byte 0xe4"):
        read_graph(tmp_path / "known.edges", nodes="nodes.csv")


def test_numbers_for_ids(tmp_path):
    nodes = pd.DataFrame({"id": range(6), "f": range(6), "label": list("xyxyxy")})
    made_graphs.write(tmp_path, nodes)
    for text in ("0,1,0.5\n2,1,1\n", "0 1 0.5\n2 1 1\n"):
        task = read(tmp_path, text, directed=True, standardize=False)
        assert task.data.edge_index.tolist() == [[0, 2], [1, 1]]
        assert task.data.edge_attr.tolist() == [[0.5], [1.0]]


def test_a_model_answers_for_a_list_of_edges(tmp_path, nodes):
    task = read(tmp_path, lines(","), directed=True)
    encoding = Encoding.of(task.data.encoding)
    assert encoding.read == {"id": "id"}
    again = read_unlabelled(tmp_path / "known.edges", encoding, nodes="nodes.csv")
    for name in ("x", "edge_index", "edge_attr"):
        assert torch.equal(again.data[name], task.data[name])
