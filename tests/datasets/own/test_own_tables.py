import warnings

import made_graphs
import numpy as np
import pandas as pd
import pytest
import torch

from kgat.datasets import describe, from_pandas, read_graph
from kgat.datasets.own.columns import encode
from kgat.datasets.own.encoding import Encoding
from kgat.datasets.own.read import read_unlabelled


@pytest.fixture
def nodes():
    return made_graphs.tables()[0]


@pytest.fixture
def edges():
    return made_graphs.tables()[1]


def place(row, name):
    return f"row {row}, column '{name}'"


def test_columns_become_features(nodes, edges):
    task = from_pandas(nodes, edges, name="people")
    x = task.data.x
    assert x.shape == (60, 5)  # age, three jobs, member
    age = torch.tensor(nodes["age"].to_numpy(), dtype=torch.float64)
    torch.testing.assert_close(
        x[:, 0].double(), (age - age.mean()) / age.std(correction=0), atol=1e-6, rtol=1e-5
    )
    jobs = pd.get_dummies(nodes["job"]).to_numpy(dtype=np.float32)
    assert torch.equal(x[:, 1:4], torch.tensor(jobs))
    assert torch.equal(x[:, 4], torch.tensor(nodes["member"].to_numpy()).float())
    assert (task.kind, task.metric, task.data.classes) == ("multiclass", "accuracy", ["blue", "green", "red"])
    assert [task.data.classes[y] for y in task.data.y.tolist()] == nodes["label"].tolist()
    assert task.data.node_id == nodes["id"].tolist()


def test_edges_are_those_of_the_table(nodes, edges):
    task = from_pandas(nodes, edges)
    pairs = {(a, b) for a, b in zip(edges["source"], edges["target"], strict=True) if a != b}
    pairs |= {(b, a) for a, b in pairs}
    ids = task.data.node_id
    assert [(ids[j], ids[i]) for j, i in task.data.edge_index.T.tolist()] == sorted(
        pairs, key=lambda pair: (ids.index(pair[1]), ids.index(pair[0]))
    )
    directed = from_pandas(nodes, edges, directed=True)
    own = {(ids[j], ids[i]) for j, i in directed.data.edge_index.T.tolist()}
    assert own == {(a, b) for a, b in zip(edges["source"], edges["target"], strict=True) if a != b}
    assert directed.digest != task.digest


def test_edge_features_go_with_their_edges(nodes):
    edges = pd.DataFrame(
        {
            "source": ["p0", "p1", "p1", "p2", "p3"],
            "target": ["p1", "p0", "p2", "p2", "p4"],
            "weight": [2.0, 2.0, 5.0, 9.0, 5.0],
            "kind": ["a", "a", "b", "a", "a"],
        }
    )
    task = from_pandas(nodes, edges, standardize=False)
    # p0-p1 is there in both directions with the same features, the loop at p2 is dropped.
    assert task.data.edge_index.tolist() == [[1, 0, 2, 1, 4, 3], [0, 1, 1, 2, 3, 4]]
    assert task.data.edge_attr.tolist() == [[2, 1, 0], [2, 1, 0], [5, 0, 1], [5, 0, 1], [5, 1, 0], [5, 1, 0]]
    assert "1 self-loop and 0 duplicate edges" in task.preprocessing
    several = pd.concat([edges, edges.iloc[[4]].assign(weight=7.0)])
    parallel = from_pandas(nodes, several, standardize=False)
    assert parallel.data.edge_attr[-4:].tolist() == [[5, 1, 0], [7, 1, 0], [5, 1, 0], [7, 1, 0]]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_files_say_what_tables_say(tmp_path, nodes, edges, suffix):
    if suffix == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet is read by pyarrow")
    expected = from_pandas(nodes, edges)
    task = read_graph(made_graphs.write(tmp_path / "people", nodes, edges, suffix))
    assert task.name == "people"
    assert torch.equal(task.data.x, expected.data.x)
    assert torch.equal(task.data.edge_index, expected.data.edge_index)
    assert torch.equal(task.data.y, expected.data.y)
    assert task.digest == expected.digest
    assert task.data.node_id == expected.data.node_id


def test_other_names_of_files_and_columns(tmp_path, nodes, edges):
    expected = from_pandas(nodes, edges)
    nodes = nodes.rename(columns={"id": "who", "label": "color"})
    edges = edges.rename(columns={"source": "from", "target": "to"})
    nodes.to_csv(tmp_path / "people.csv", index=False, sep=";")
    edges.to_csv(tmp_path / "known.csv", index=False)
    task = read_graph(
        tmp_path,
        nodes="people.csv",
        edges="known.csv",
        id="who",
        label="color",
        edge_source="from",
        edge_target="to",
        name="mine",
    )
    assert (task.name, task.digest) == ("mine", expected.digest)


def test_ids_are_texts(tmp_path):
    folder = tmp_path / "g"
    folder.mkdir()
    rows = "".join(
        f"{name},{i},{'ab'[i % 2]}\n" for i, name in enumerate(["007", "7", "NA", "nan", "8", "9"])
    )
    (folder / "nodes.csv").write_text(f"id,x,label\n{rows}\n\n")  # blank lines at the end are none
    (folder / "edges.csv").write_text("source,target\n007,7\nNA,nan\n")
    task = read_graph(folder)
    assert task.data.node_id == ["007", "7", "NA", "nan", "8", "9"]
    assert task.data.edge_index.tolist() == [[1, 0, 3, 2], [0, 1, 2, 3]]


def test_numbers_for_ids_match_texts():
    nodes = pd.DataFrame({"id": range(6), "x": range(6), "label": ["a", "b"] * 3})
    edges = pd.DataFrame({"source": [0.0, 1.0], "target": ["1", "2"]})
    assert from_pandas(nodes, edges).data.edge_index.tolist() == [[1, 0, 2, 1], [0, 1, 1, 2]]


def test_a_column_of_lists_is_a_column_each(nodes, edges):
    nodes["vector"] = [[i, -i] for i in range(60)]
    task = from_pandas(nodes, edges, standardize=False)
    assert task.data.x[:, -2:].tolist() == [[i, -i] for i in range(60)]
    nodes.at[3, "vector"] = [1.0]
    with pytest.raises(ValueError, match=r"lists of one length in column 'vector' .got lengths 1, 2"):
        from_pandas(nodes, edges)


def test_points_without_edges(tmp_path, nodes):
    nodes.drop(columns="id").to_csv(tmp_path / "points.csv", index=False)
    task = read_graph(tmp_path / "points.csv", knn=4)
    x = task.data.x
    distance = torch.cdist(x, x).fill_diagonal_(float("inf"))
    for node in (0, 17, 59):
        near = distance[node].topk(4, largest=False).indices.tolist()
        sources = task.data.edge_index[0, task.data.edge_index[1] == node].tolist()
        assert set(near) <= set(sources)
    assert task.data.node_id == [str(i) for i in range(60)]
    folder = made_graphs.write(tmp_path / "folder", nodes)
    assert read_graph(folder, knn=4).digest == task.digest


def test_missing_values_are_filled_on_request(nodes, edges):
    nodes.loc[7, "age"] = np.nan
    nodes.loc[8, "job"] = None
    nodes["member"] = nodes["member"].astype(object)
    nodes.loc[9, "member"] = None
    task = from_pandas(nodes, edges, fill=True)
    assert float(task.data.x[7, 0]) == 0.0
    assert task.data.x[8, 1:4].tolist() == [0, 0, 0]
    known = [bool(value) for i, value in enumerate(nodes["member"]) if i != 9]
    assert float(task.data.x[9, 4]) == pytest.approx(sum(known) / 59)


def test_an_encoding_is_used_again():
    where = place
    table = pd.DataFrame({"age": [20.0, 40.0], "job": ["a", "b"], "ok": [True, False]})
    x, columns = encode(table, where)
    assert encode(table.iloc[[1]], where, columns=columns)[0].tolist() == x[1:].tolist()
    with pytest.raises(ValueError, match=r"Expected one of a, b in row 0, column 'job' .got 'c'"):
        encode(table.assign(job="c"), where, columns=columns)
    with pytest.raises(ValueError, match=r"the columns age, job, ok .got none of the name job"):
        encode(table.drop(columns="job"), where, columns=columns)
    with pytest.raises(ValueError, match=r"no columns but age, job, ok .got more"):
        encode(table.assign(more=1), where, columns=columns)


def test_numbers_may_be_names(nodes, edges):
    nodes["zip"] = [10115, 20095, 50667] * 20
    assert from_pandas(nodes, edges).data.x.size(1) == 6
    assert from_pandas(nodes, edges, categories=["zip"]).data.x.size(1) == 8
    assert from_pandas(nodes, edges, drop=["zip", "job"]).data.x.size(1) == 2


def test_times_are_numbers(nodes, edges):
    nodes["since"] = pd.date_range("2020-01-01", periods=60)
    x = from_pandas(nodes, edges, standardize=False).data.x[:, -1]
    assert (x[1:] - x[:-1]).tolist() == [1.0] * 59


def test_a_copy_of_the_label_is_told(nodes, edges):
    nodes["number"] = nodes["label"].map({"red": 2, "green": 0, "blue": 1})
    with pytest.warns(UserWarning, match=r"column 'number' tells the label 'label' exactly"):
        from_pandas(nodes, edges)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_pandas(nodes, edges, drop=["number"])


def test_the_line_says_what_was_understood():
    nodes = pd.DataFrame({"id": list("abcdefgh"), "x": range(8), "label": [*"uuuvvvv", None]})
    edges = pd.DataFrame({"source": list("aabcde"), "target": list("bbaddf")})
    line = describe(from_pandas(nodes, edges, name="letters"))
    # a-b twice and once the other way, a loop at d.
    assert line == (
        "letters: 8 nodes, 3 undirected edges, 2 isolated, 1 feature; predicts label: 2 classes (u 42.9 %, "
        "v 57.1 %), 1 node without, homophily 0.67, by roc_auc; 17 splits, the first of 3 train, 2 val, "
        "2 test; of the columns x, numbers standardised; features dense; undirected; 1 self-loop and "
        "1 duplicate edge dropped; seeded splits, stratified by class"
    )


def change(table, row, column, value):
    table[column] = table[column].astype(object)
    table.loc[row, column] = value


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda n, e: change(n, 4, "age", "old"),
            r"a number in line 6 of 'nodes.csv', column 'age' \(got 'old",
        ),
        (
            lambda n, e: change(n, 4, "age", None),
            r"line 6 of 'nodes.csv', column 'age' \(got none; 1 of",
        ),
        (
            lambda n, e: change(n, 4, "age", "inf"),
            r"a number in line 6 of 'nodes.csv', column 'age' \(got 'inf'",
        ),
        (lambda n, e: change(n, 4, "job", ""), r"a value in line 6 of 'nodes.csv', column 'job' \(got none"),
        (
            lambda n, e: change(n, 4, "id", "p2"),
            r"once \(got 'p2' in line 4 .* and line 6 of 'nodes.csv'",
        ),
        (lambda n, e: change(n, 4, "id", ""), r"an id in line 6 of 'nodes.csv', column 'id' \(got none"),
        (
            lambda n, e: change(e, 9, "target", "p60"),
            r"line 11 of 'edges.csv', column 'target' \(got 'p60'",
        ),
        (
            lambda n, e: change(e, 9, "source", ""),
            r"an id in line 11 of 'edges.csv', column 'source'",
        ),
        (lambda n, e: n.pop("label"), r"column 'label' in '.*' \(got id, age, job, member\).*--label"),
        (lambda n, e: n.pop("id"), r"column 'id' in .*--id"),
        (lambda n, e: e.pop("source"), r"column 'source' in the edges of .*--source"),
        (lambda n, e: n.__setitem__("label", "red"), r"two values in 'label' .*got 'red' for all 60 nodes"),
        (lambda n, e: n.__setitem__("label", ""), r"labels in 'label' .*got none for all 60 nodes"),
        (lambda n, e: n.__setitem__("label", n["id"]), r"a class of at least three nodes .*got 60 classes"),
        (lambda n, e: n.drop(index=range(60), inplace=True), r"Expected nodes in .*table without rows"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, nodes, edges, spoil, message):
    spoil(nodes, edges)
    folder = made_graphs.write(tmp_path / "g", nodes, edges)
    with pytest.raises((ValueError, IndexError), match=message) as caught:
        read_graph(folder)
    assert "\n" not in str(caught.value)


def test_too_many_texts_are_names(edges):
    nodes = pd.DataFrame(
        {"id": range(150), "title": [f"t{i}" for i in range(150)], "label": ["a", "b", "c"] * 50}
    )
    edges = pd.DataFrame({"source": [0], "target": [1]})
    with pytest.raises(
        ValueError, match=r"at most 100 different texts in column 'title' .got 150.*--drop title"
    ):
        from_pandas(nodes, edges)
    assert from_pandas(nodes, edges, categories=["title"]).data.x.size(1) == 150


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"a table with a header in '.*nodes.csv' \(got: No columns"),
        ("id,label\na,b,c\n", r"a table with a header in '.*nodes.csv'"),
        ("id,label\na\0,\xff\n", None),
    ],
)
def test_files_that_are_no_tables(tmp_path, content, message):
    folder = tmp_path / "g"
    folder.mkdir()
    (folder / "nodes.csv").write_bytes(content.encode("latin1"))
    (folder / "edges.csv").write_text("source,target\n")
    with pytest.raises(ValueError, match=message or "a table with a header"):
        read_graph(folder)


def test_what_is_not_there_is_said(tmp_path, nodes):
    with pytest.raises(FileNotFoundError, match=r"Expected a graph at '.*none'"):
        read_graph(tmp_path / "none")
    with pytest.raises(
        FileNotFoundError, match=r"a table of nodes in .* \(got nothing\); name it with --nodes"
    ):
        read_graph(tmp_path)
    folder = made_graphs.write(tmp_path / "g", nodes)
    with pytest.raises(FileNotFoundError, match=r"a table of edges in .*--knn 10"):
        read_graph(folder)
    with pytest.raises(FileNotFoundError, match=r"check --edges"):
        read_graph(folder, edges="e.csv")
    with pytest.raises(ValueError, match=r"either edges or a number of nearest neighbours .got neither"):
        read_graph(folder / "nodes.csv")
    (tmp_path / "graph.xls").touch()
    with pytest.raises(ValueError, match=r"one of the endings \.pt, .*\.parquet .got"):
        read_graph(tmp_path / "graph.xls")
    with pytest.raises(ValueError, match=r"from 1 to 59 neighbours of 60 points .got knn=60"):
        read_graph(folder, knn=60)
    with pytest.raises(ValueError, match=r"columns? 'agee' in .*got id, age"):
        read_graph(folder, knn=3, drop=["agee"])


@pytest.mark.parametrize("ending", ["csv", "tsv"])
@pytest.mark.parametrize("name", ["NA", "null", "None", "NaN"])
def test_among_texts_only_an_empty_cell_is_missing(tmp_path, nodes, edges, name, ending):
    nodes["label"] = [name, "EU", "AS"] * 20
    nodes["region"] = [name, "EU", "AS", "AF"] * 15
    nodes.loc[5, "label"] = ""
    task = read_graph(made_graphs.write(tmp_path / "g", nodes, edges, ending))
    assert task.data.classes == sorted([name, "EU", "AS"])
    assert (task.y < 0).nonzero().tolist() == [[5]]
    region = next(column for column in task.data.columns if column["name"] == "region")
    assert name in region["categories"]
    for column in ("label", "region"):
        assert f"{name} in {column} taken for a name, as only an empty cell is missing there" in describe(
            task
        )
    # In memory, texts are what they are.
    assert from_pandas(nodes, edges).digest == task.digest


def test_two_classes_that_look_like_nothing(tmp_path, nodes, edges):
    nodes["label"] = ["null", "none"] * 30
    assert read_graph(made_graphs.write(tmp_path / "g", nodes, edges)).data.classes == ["none", "null"]


@pytest.mark.parametrize("text", ["NA", "NaN", "null"])
def test_among_numbers_flags_and_dates_words_for_nothing_are_missing(tmp_path, nodes, edges, text):
    def column(values, places=(3, 8)):
        return [text if i in places else value for i, value in enumerate(map(str, values))]

    nodes["age"], nodes["member"] = column(nodes["age"]), column(nodes["member"])
    nodes["label"] = column([i % 3 for i in range(60)], (4,))
    nodes["year"] = column([f"{2000 + i // 6}-05-01" for i in range(60)], (4,))
    edges["weight"] = column(np.linspace(0, 1, len(edges)))
    folder = made_graphs.write(tmp_path / "g", nodes, edges)
    task = read_graph(folder, fill=True, time="year")
    assert task.data.classes == ["0", "1", "2"]
    assert (task.y < 0).nonzero().tolist() == [[4]]
    for name in ("age", "member", "label", "weight"):
        assert f"{text} in {name} taken for missing" in task.preprocessing
    message = rf"line 5 of 'nodes.csv', column 'age' \(got none \('{text}' is taken for missing\); 2 of 60"
    with pytest.raises(ValueError, match=message):
        read_graph(folder, time="year")
    nodes["label"] = text
    made_graphs.write(folder, nodes, edges)
    with pytest.raises(ValueError, match=rf"labels in 'label' .*got none \('{text}' is taken .* for all 60"):
        read_graph(folder, fill=True)
    nodes["label"] = ["a", "b", "c"] * 20
    made_graphs.write(folder, nodes, edges)
    message = rf"a value of 'year' .*got none \('{text}' is taken for missing\) in line 6"
    with pytest.raises(ValueError, match=message):
        read_graph(folder, fill=True, time="year")


def test_words_for_nothing_in_a_column_of_parts(tmp_path, nodes, edges):
    nodes["split"] = ["train", "val", "test", "NA"] * 15
    split = read_graph(made_graphs.write(tmp_path / "g", nodes, edges)).splits[0]
    assert [int(mask.sum()) for mask in (split.train, split.val, split.test)] == [15, 15, 15]


def test_a_name_stays_one_where_a_model_answers(tmp_path, nodes, edges):
    nodes["region"] = ["NA", "EU", "AS", "AF"] * 15
    task = read_graph(made_graphs.write(tmp_path / "g", nodes, edges))
    few = nodes[nodes["region"] == "NA"].drop(columns="label")
    here = edges[edges["source"].isin(few["id"]) & edges["target"].isin(few["id"])]
    folder = made_graphs.write(tmp_path / "new", few, here)
    new = read_unlabelled(folder, Encoding.of(task.data.encoding))
    assert torch.equal(new.data.x, task.data.x[::4])


@pytest.mark.parametrize("rows", [slice(None), slice(None, None, -1), slice(0, None, 2)])
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_numbers_of_rows_are_no_features(tmp_path, nodes, edges, suffix, rows):
    # As to_csv writes an index, and once more where a table was read and written again.
    folder = made_graphs.write(tmp_path / "g", nodes, edges)
    separator = "," if suffix == "csv" else "\t"
    for name, table in (("nodes", nodes), ("edges", edges)):
        (folder / f"{name}.csv").unlink()
        chosen = table.iloc[rows] if name == "edges" else table
        chosen.to_csv(folder / f"{name}.{suffix}", sep=separator)
        again = pd.read_csv(folder / f"{name}.{suffix}", sep=separator)
        assert again.columns[0] == "Unnamed: 0"
        again.to_csv(folder / f"{name}.{suffix}", sep=separator)
    expected = from_pandas(nodes, edges.iloc[rows])
    with pytest.warns(
        UserWarning, match=r"of the (nodes|edges) of .* has no name and numbers the rows"
    ) as told:
        task = read_graph(folder)
    assert [str(each.message).split("'")[1] for each in told] == ["Unnamed: 0.1", "Unnamed: 0"] * 2
    assert task.digest == expected.digest
    # Unless they are asked for.
    nameless = ["Unnamed: 0", "Unnamed: 0.1"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_graph(folder, drop=nameless)
        assert read_graph(folder, categories=nameless).data.x.size(1) == 5 + 2 * 60
        points = read_graph(folder / f"nodes.{suffix}", knn=3, id=nameless[0], drop=["id", nameless[1]])
    assert points.data.node_id == [str(row) for row in range(60)]


def test_nameless_columns_that_number_nothing_stay(nodes, edges):
    for values in ([7, 8] * 30, [i / 2 for i in range(60)], ["a", "b"] * 30, [True, False] * 30):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            task = from_pandas(nodes.assign(**{"Unnamed: 4": values}), edges)
        assert task.data.columns[-1]["name"] == "Unnamed: 4"
    with pytest.warns(UserWarning, match="column '' of the points of the given tables has no name"):
        task = from_pandas(nodes.assign(**{"": range(60)}), knn=3)
    assert [column["name"] for column in task.data.columns] == ["age", "job", "member"]


def test_columns_may_be_called_by_numbers(nodes, edges):
    named = ["id", "age", "job", "member", "label"]
    expected = from_pandas(nodes, edges)
    by_number = {name: number for number, name in enumerate(named)}
    numbered, ends = nodes.rename(columns=by_number), edges.rename(columns={"source": 0, "target": 1})
    form = {"id": 0, "edge_source": 0, "edge_target": 1}
    assert from_pandas(numbered, ends, label=4, **form).digest == expected.digest
    assert from_pandas(numbered, ends, label=[4], drop=2, **form).data.x.size(1) == 2
    assert from_pandas(numbered, ends, label=4, categories=1, **form).data.x.size(1) > 5
    task = from_pandas(numbered, ends, label=2, group=4, drop=[], **form)
    assert (task.kind, len(task.splits)) == ("multiclass", 6)
    assert from_pandas(numbered, ends, label=2, time=1, **form).splits[0].name == "time"
    with pytest.raises(ValueError, match=r"a column '7' in the given tables .got 0, 1, 2, 3, 4"):
        from_pandas(numbered, ends, label=7, **form)
