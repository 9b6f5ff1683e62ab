import gzip
import warnings

import made_graphs
import numpy as np
import pandas as pd
import pytest
import torch

from kgat.datasets import from_data, from_pandas, read_graph
from kgat.datasets.own.columns import encode
from kgat.datasets.own.encoding import Encoding
from kgat.datasets.own.read import read_unlabelled


@pytest.fixture
def nodes():
    return made_graphs.tables()[0]


@pytest.fixture
def edges():
    return made_graphs.tables()[1]


def written(folder, nodes, edges, separator=",", encoding="utf8", first=""):
    folder.mkdir(exist_ok=True)
    for name, table in (("nodes", nodes), ("edges", edges)):
        rows = [list(table.columns), *table.astype(object).values.tolist()]
        text = "\n".join(separator.join("" if pd.isna(v) else str(v) for v in row) for row in rows)
        (folder / f"{name}.csv").write_text(first + text + "\n", encoding=encoding)
    return folder


def test_spaces_beside_separators_are_no_part_of_names(tmp_path, nodes, edges):
    nodes.loc[3, "age"], nodes["job"] = None, ["NA", "smith", "cook"] * 20
    plain = read_graph(written(tmp_path / "a", nodes, edges), fill=True)
    spaced = read_graph(written(tmp_path / "b", nodes, edges, ", ", first=" "), fill=True)
    assert spaced.digest == plain.digest
    assert spaced.data.node_id == nodes["id"].tolist()
    numbers = nodes.assign(id=[f"{i:03d}" for i in range(60)])
    numbered = dict(zip(nodes["id"], numbers["id"], strict=True))
    ends = edges.replace(dict.fromkeys(("source", "target"), numbered))
    ids = read_graph(written(tmp_path / "c", numbers, ends, " , "), fill=True).data.node_id
    assert ids[7] == "007"


def test_dates_in_a_file_are_those_of_a_table(tmp_path, nodes, edges):
    nodes["since"] = pd.date_range("2020-01-01", periods=60)
    table = from_pandas(nodes, edges)
    file = read_graph(written(tmp_path / "a", nodes.assign(since=nodes["since"].dt.date), edges))
    assert file.digest == table.digest == from_pandas(nodes.astype({"since": str}), edges).digest
    assert file.data.columns[-1]["kind"] == "date"
    assert "of the columns age, job, member, since, numbers standardised, since in days" in file.preprocessing
    # A date that training did not see, and one that is none.
    later = nodes.assign(since="2031-05-01T06:00Z").drop(columns="label")
    new = read_unlabelled(written(tmp_path / "b", later, edges), Encoding.of(file.data.encoding))
    column = file.data.columns[-1]
    days = pd.Timestamp("2031-05-01T06:00").timestamp() / 86_400
    assert new.data.x[0, -1] == pytest.approx((days - column["mean"]) / column["deviation"])
    since = nodes["since"].astype(str)
    since[7] = "2020-13-01"
    wrong = written(tmp_path / "c", nodes.assign(since=since), edges)
    with pytest.raises(
        ValueError, match=r"a date as 2026-11-29 in line 9 of 'nodes.csv', .*got '2020-13-01'"
    ):
        read_graph(wrong)
    assert read_graph(wrong, categories=["since"]).data.x.size(1) == 5 + 60


def test_lengths_of_time_are_numbers_and_complex_ones_are_refused(nodes, edges):
    nodes["stay"] = pd.to_timedelta(np.arange(60) * 12, unit="h")
    x = from_pandas(nodes, edges, standardize=False).data.x[:, -1]
    assert x.tolist() == (np.arange(60) / 2).tolist()
    nodes["stay"] = np.arange(60) * 1j
    with pytest.raises(ValueError, match=r"real numbers in column 'stay' \(got complex128\).*--drop stay"):
        from_pandas(nodes, edges)


def test_decimal_commas_beside_semicolons(tmp_path, nodes, edges):
    plain = read_graph(written(tmp_path / "a", nodes, edges))
    excel = nodes.assign(age=nodes["age"].astype(str).str.replace(".", ","))
    assert read_graph(written(tmp_path / "b", excel, edges, ";")).digest == plain.digest
    excel.loc[5, "age"] = "NA"
    folder = written(tmp_path / "c", excel, edges, ";")
    assert "NA in age taken for missing" in read_graph(folder, fill=True).preprocessing
    words = {column["name"]: column for column in read_graph(folder, categories="age").data.columns}
    assert {"NA", excel["age"][0]} <= {*words["age"]["categories"]}


@pytest.mark.parametrize("form", ["{:.1f}%", "{:.1f} kg", "{:.1f}€", "$1,0{:.0f}", "1 0{:.0f}", "4,{:.0f}"])
def test_numbers_in_another_form_are_told(nodes, edges, form):
    ages = [form.format(age) for age in nodes["age"].clip(10, 99)]
    nodes["age"] = ["NA", *ages[1:]]
    with pytest.raises(
        ValueError, match=r"numbers as 49.4 in row 1 .*column 'age' .*--categories age"
    ) as told:
        from_pandas(nodes, edges)
    assert f"got '{ages[1]}'" in str(told.value)
    assert from_pandas(nodes, edges, categories=["age"]).data.x.size(1) > 10


@pytest.mark.parametrize(
    "texts", [["4G", "5G"], ["1st", "2nd", "3rd"], ["12b", "7", "x"], ["1.2.3", "1.2.4"]]
)
def test_names_with_digits_are_names(texts):
    table = pd.DataFrame({"a": texts * 3})
    assert encode(table, lambda row, name: name)[1][0].categories == tuple(sorted(texts))


def test_columns_of_one_name_are_refused(tmp_path, nodes, edges):
    twice = nodes.rename(columns={"job": "age"})
    with pytest.raises(ValueError, match=r"different names in the nodes of .* \(got 'age' twice\)"):
        from_pandas(twice, edges)
    with pytest.raises(ValueError, match=r"different names in '.*nodes.csv' \(got 'age' twice\)"):
        read_graph(written(tmp_path / "g", twice, edges))
    with pytest.raises(ValueError, match=r"different names in the edges of .* \(got 'w' twice\)"):
        from_pandas(nodes, pd.concat([edges, pd.DataFrame(0.0, edges.index, ["w", "w"])], axis=1))


def test_lists_may_be_texts(nodes, edges):
    nodes["zip"] = [10115, 20095, 50667] * 20
    listed = from_pandas(
        nodes,
        edges,
        drop=["job", "member"],
        categories=["zip"],
        shares=[0.5, 0.25],
        structure=["degree", "walk:2"],
    )
    texts = from_pandas(
        nodes, edges, drop="job,member", categories="zip", shares="0.5,0.25", structure="degree, walk:2"
    )
    assert texts.digest == listed.digest
    assert texts.data.x.size(1) == listed.data.x.size(1)
    assert from_pandas(nodes, edges, drop="label", label="job").data.classes == ["clerk", "cook", "smith"]
    with pytest.raises(ValueError, match=r"a column 'nope'"):
        from_pandas(nodes, edges, categories="nope")
    with pytest.raises(ValueError, match=r"sum below 1.*got 0.9,0.9\)"):
        from_pandas(nodes, edges, shares="0.9,0.9")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_marks_of_encodings_are_read(tmp_path, nodes, edges, encoding):
    nodes["job"] = nodes["job"].replace("cook", "Köchin")
    plain = read_graph(written(tmp_path / "a", nodes, edges))
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    assert read_graph(written(tmp_path / "b", nodes, edges, "\t", encoding, mark)).digest == plain.digest


def test_another_encoding_is_told(tmp_path, nodes, edges):
    nodes["job"] = nodes["job"].replace("cook", "Köchin")
    with pytest.raises(ValueError, match=r"nodes.csv', in UTF-8 \(got byte 0xf6, .*save it as CSV UTF-8"):
        read_graph(written(tmp_path / "g", nodes, edges, encoding="latin1"))


def test_compressed_tables_are_read(tmp_path, nodes, edges):
    folder = written(tmp_path / "g", nodes, edges)
    plain = read_graph(folder)
    for name in ("nodes", "edges"):
        (folder / f"{name}.csv.gz").write_bytes(gzip.compress((folder / f"{name}.csv").read_bytes()))
        (folder / f"{name}.csv").unlink()
    assert read_graph(folder).digest == plain.digest
    points = read_graph(folder / "nodes.csv.gz", knn=3)
    assert points.name == "nodes"
    (folder / "edges.csv.gz").write_bytes(b"source,target\n")
    with pytest.raises(ValueError, match=r"a table with a header in '.*edges.csv.gz'"):
        read_graph(folder)


def test_a_number_too_large_is_told_as_it_is_written(tmp_path, nodes, edges):
    nodes["age"] = nodes["age"].astype(object)
    nodes.loc[4, "age"] = "1e400"
    with pytest.raises(ValueError, match=r"a number in line 6 of 'nodes.csv', column 'age' \(got '1e400'"):
        read_graph(written(tmp_path / "g", nodes, edges))
    nodes.loc[4, "age"] = 1.0
    edges["w"] = ["1", "-1e999", *["2"] * (len(edges) - 2)]
    with pytest.raises(ValueError, match=r"line 3 of 'edges.csv', column 'w' \(got '-1e999'"):
        read_graph(written(tmp_path / "g", nodes, edges))


def test_edges_are_named_where_a_model_answers(tmp_path, nodes, edges):
    edges["w"] = np.linspace(0, 1, len(edges))
    encoding = Encoding.of(read_graph(written(tmp_path / "g", nodes, edges)).data.encoding)
    lacking = written(tmp_path / "new", nodes, edges.drop(columns="w"))
    with pytest.raises(ValueError, match=r"columns w in the edges of '.*new' \(got none of the name w\)"):
        read_unlabelled(lacking, encoding)
    (lacking / "edges.csv").unlink()
    for place in (lacking, lacking / "nodes.csv"):
        with pytest.raises((ValueError, FileNotFoundError), match="edges") as told:
            read_unlabelled(place, encoding)
        assert "knn" not in str(told.value)


def test_numbers_with_zeros_before_them_look_like_codes(tmp_path, nodes, edges):
    nodes["zip"] = [f"{i % 5:05d}" for i in range(60)]
    folder = written(tmp_path / "g", nodes, edges)
    for read in (lambda **options: read_graph(folder, **options), lambda **o: from_pandas(nodes, edges, **o)):
        with pytest.warns(UserWarning, match=r"column 'zip' .* has '00000', .*--categories zip"):
            task = read()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            words = read(categories=["zip"])
        assert words.data.columns[-1]["categories"][1] == "00001"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            new = read_unlabelled(folder, Encoding.of(task.data.encoding))
            assert torch.equal(new.data.x, task.data.x)
            new = read_unlabelled(folder, Encoding.of(words.data.encoding))
            assert torch.equal(new.data.x, words.data.x)


@pytest.mark.parametrize("layout", ["csr", "coo", "csc"])
@pytest.mark.parametrize("weighted", [False, True])
def test_edges_in_a_transposed_adjacency_matrix(layout, weighted):
    from torch_geometric.data import Data

    torch.manual_seed(0)
    index = torch.tensor([[0, 1, 2, 2, 5, 3], [1, 2, 0, 4, 3, 1]])
    data = Data(x=torch.randn(9, 2), y=torch.arange(9) % 3, edge_index=index)
    weights = torch.rand(6) if weighted else torch.ones(6)
    adj_t = torch.sparse_coo_tensor(index.flip(0), weights, (9, 9))
    adj_t = {"csr": adj_t.to_sparse_csr, "csc": adj_t.to_sparse_csc, "coo": adj_t.clone}[layout]()
    given = Data(x=data.x, y=data.y, adj_t=adj_t)
    if weighted:
        data.edge_weight = weights
    assert from_data(given).digest == from_data(data).digest
    assert "adj_t" in given
