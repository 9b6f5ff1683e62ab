import csv
import json
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
import torch
from made_tasks import make_graph_task
from torch_geometric.data import Data

from kgat.datasets import from_data, load, read_graph, save_mapped
from kgat.experiments import prediction
from kgat.experiments.config import Config, on_data
from kgat.experiments.prediction import Predictions, Trained
from kgat.experiments.training import outputs, restore, save, train

pytestmark = pytest.mark.quick

SMALL = {"max_epochs": 2, "hidden_channels": 8, "heads": 2}


def write_people(folder, nodes=40, seed=0, *, labelled=True, drop=(), **more):
    r"""A folder of tables; of the same seed the nodes of a smaller one are the first ones of a larger one."""
    rows = np.random.default_rng(seed).random((200, 4))[:nodes]
    table = pd.DataFrame(
        {
            "id": [f"p{i}" for i in range(nodes)],
            "age": (20 + 50 * rows[:, 0]).round(2),
            "job": np.where(rows[:, 1] > 0.5, "smith", "cook"),
            "member": rows[:, 2] > 0.5,
            "price": (100 + 900 * rows[:, 0]).round(1),
            "red": (rows[:, 3] > 0.5).astype(int),
            "tall": (rows[:, 1] > 0.3).astype(int),
            "label": np.where(rows[:, 3] > 0.6, "yes", np.where(rows[:, 3] > 0.3, "no", "maybe")),
        }
    )
    table = table.drop(columns=[*([] if labelled else ["label", "price", "red", "tall"]), *drop]).assign(
        **more
    )
    ends = np.random.default_rng(seed + 1).integers(0, nodes, (3 * nodes, 2))
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "nodes.csv", index=False)
    edges = pd.DataFrame({"source": ends[:, 0], "target": ends[:, 1]}).map("p{}".format)
    edges.assign(weight=ends.sum(axis=1) / nodes).to_csv(folder / "edges.csv", index=False)
    return folder


def trained_on(task, folder, model="rbf", **settings):
    config = Config.of(task.name, model, overrides=on_data({**SMALL, **settings}, task.digest))
    record, module = train(task, config)
    save(folder, module, task, record)
    return outputs(module, task, task.split(0), config)["test"]


LABELS = {
    "classes": {"label": "label", "drop": ["price", "red", "tall"]},
    "labels": {"label": "red,tall", "drop": ["price", "label"]},
    "values": {"label": "price", "drop": ["red", "tall", "label", "age"]},
}


@pytest.mark.parametrize("settings", [{}, {"batch_size": 8, "neighbors": "3,-1"}])
@pytest.mark.parametrize("kind", LABELS)
def test_tables_are_encoded_as_in_training(tmp_path, kind, settings):
    task = read_graph(write_people(tmp_path / "people"), structure=["degree", "walk:2"], **LABELS[kind])
    wanted = trained_on(task, tmp_path / "model", **settings)
    new = write_people(tmp_path / "new", labelled=False, drop=["age"] if kind == "values" else [])
    answers = Trained.load(tmp_path / "model").on_data(new)
    assert torch.equal(answers.output, wanted)
    columns = answers.table().columns
    assert list(columns["id"]) == [f"p{i}" for i in range(40)]
    if kind == "classes":
        assert columns["prediction"] == [task.data.classes[i] for i in wanted.argmax(1).tolist()]
        table = answers.table(probabilities=True).columns
        assert list(table)[2:] == ["probability maybe", "probability no", "probability yes"]
        assert np.allclose(np.stack([table[name] for name in list(table)[2:]]).T, wanted.softmax(1))
    elif kind == "labels":
        assert list(columns) == ["id", "red", "tall"]
        assert columns["tall"] == (wanted[:, 1] > 0).long().tolist()
        chances = answers.table(probabilities=True).columns["probability red"]
        assert chances == pytest.approx(wanted[:, 0].sigmoid().tolist())
    else:
        assert columns["prediction"] == wanted[:, 0].tolist()
        assert min(columns["prediction"]) > 90  # in the unit of prices, which start at 100
        with pytest.raises(ValueError, match=r"for probabilities \(got a regression\)"):
            answers.table(probabilities=True)


def test_other_nodes_have_the_mean_and_the_categories_of_training(tmp_path):
    task = read_graph(write_people(tmp_path / "people"), structure="degree", **LABELS["classes"])
    trained_on(task, tmp_path / "model")
    trained = Trained.load(tmp_path / "model")
    folder = write_people(tmp_path / "few", nodes=5, labelled=False)
    (folder / "edges.csv").write_text("source,target,weight\np0,p1,0.5\np3,p3,1\n")
    (folder / "nodes.csv").write_text((folder / "nodes.csv").read_text().replace("cook", "smith"))
    x = prediction.read_unlabelled(folder, trained.encoding).data.x
    # Age, two columns of jobs, of which the graph has one, and membership.
    first = ["age", "job", "job", "member"]
    age = pd.read_csv(tmp_path / "people" / "nodes.csv")["age"]
    few = pd.read_csv(folder / "nodes.csv")
    assert torch.allclose(x[:, 0], torch.tensor(((few["age"] - age.mean()) / age.std(ddof=0)).values).float())
    assert x[:, 1].tolist() == [0.0] * 5
    assert x[:, 2].tolist() == [1.0] * 5
    degrees = task.data.edge_index[1].bincount(minlength=40).double()
    wanted = (torch.tensor([1.0, 1, 0, 0, 0]) - degrees.mean()) / degrees.std(correction=0)
    assert torch.allclose(x[:, len(first)], wanted.float(), atol=1e-5)
    assert len(trained.on_data(folder).table()) == 5


def test_a_missing_number_is_the_mean_of_training(tmp_path):
    for raw in (False, True):
        options = {"standardize": not raw, **LABELS["classes"]}
        task = read_graph(write_people(tmp_path / "people"), **options)
        trained_on(task, tmp_path / "model")
        trained = Trained.load(tmp_path / "model")
        folder = write_people(tmp_path / "few", nodes=3, labelled=False)
        table = pd.read_csv(folder / "nodes.csv")
        table.loc[1, "age"] = np.nan
        table.to_csv(folder / "nodes.csv", index=False)
        with pytest.raises(ValueError, match=r"line 3 of 'nodes.csv', column 'age'.*--fill"):
            trained.on_data(folder)
        x = prediction.read_unlabelled(folder, trained.encoding, fill=True).data.x
        mean = pd.read_csv(tmp_path / "people" / "nodes.csv")["age"].mean()
        assert x[1, 0].item() == pytest.approx(mean if raw else 0.0, abs=1e-5)


def test_graphs_of_all_kinds(tmp_path):
    task = read_graph(write_people(tmp_path / "people"), **LABELS["classes"])
    torch.save(task.data.to_dict() | {"encoding": None}, tmp_path / "graph.pt")
    content = {"x": task.data.x, "edge_index": task.data.edge_index, "y": task.data.y}
    bare = {name: content[name].numpy() for name in ("x", "edge_index")}
    np.savez(tmp_path / "graph.npz", **bare, y=content["y"].numpy())
    np.savez(tmp_path / "bare.npz", **bare)
    np.savez(tmp_path / "labelled points.npz", x=bare["x"] * 7 + 3, y=content["y"].numpy())
    np.savez(tmp_path / "points.npz", x=bare["x"] * 7 + 3)
    torch.save({name: content[name] for name in ("x", "edge_index")}, tmp_path / "bare.pt")
    torch.save(content, tmp_path / "labelled.pt")
    for source, target, options in (
        ("labelled.pt", "bare.pt", {}),
        ("graph.npz", "bare.npz", {}),
        ("labelled.pt", "bare.npz", {"structure": ["walk:2"]}),
        ("labelled points.npz", "points.npz", {"knn": 3}),
        ("labelled points.npz", "points.npz", {"knn": 3, "standardize": False}),
    ):
        wanted = trained_on(read_graph(tmp_path / source, **options), tmp_path / "model")
        assert torch.equal(Trained.load(tmp_path / "model").on_data(tmp_path / target).output, wanted)


def test_networks_and_tables_of_points(tmp_path):
    import networkx as nx

    graph = nx.karate_club_graph()
    nx.set_node_attributes(graph, {i: i % 5 for i in graph}, "age")
    nx.write_graphml(graph, tmp_path / "club.graphml")
    task = read_graph(tmp_path / "club.graphml", label="club")
    wanted = trained_on(task, tmp_path / "model")
    for i in graph:
        del graph.nodes[i]["club"]
    nx.write_graphml(graph, tmp_path / "other.graphml")
    assert torch.equal(Trained.load(tmp_path / "model").on_data(tmp_path / "other.graphml").output, wanted)
    task = read_graph(write_people(tmp_path / "p") / "nodes.csv", knn=4, **LABELS["classes"])
    wanted = trained_on(task, tmp_path / "points")
    new = write_people(tmp_path / "q", labelled=False) / "nodes.csv"
    assert torch.equal(Trained.load(tmp_path / "points").on_data(new).output, wanted)


def test_a_graph_in_mapped_files(tmp_path):
    task = read_graph(write_people(tmp_path / "people"), **LABELS["classes"])
    save_mapped(tmp_path / "mapped", task)
    mapped = read_graph(tmp_path / "mapped")
    wanted = trained_on(mapped, tmp_path / "model", batch_size=8)
    trained = Trained.load(tmp_path / "model")
    assert torch.equal(trained.on_data(tmp_path / "mapped").output, wanted)
    assert torch.allclose(trained.on_data(tmp_path / "people").output, wanted, atol=1e-6)
    other = read_graph(write_people(tmp_path / "others", seed=7), **LABELS["classes"])
    save_mapped(tmp_path / "other", other)
    with pytest.raises(ValueError, match=r"encoded as in training \(got .*other'"):
        trained.on_data(tmp_path / "other")


def test_large_graphs_are_answered_for_by_layer(tmp_path, monkeypatch):
    task = read_graph(write_people(tmp_path / "people"), **LABELS["classes"])
    wanted = trained_on(task, tmp_path / "model")
    trained = Trained.load(tmp_path / "model")
    called = []
    inference = type(trained.model).inference

    def watched(self, *args, **kwargs):
        called.append(kwargs)
        return inference(self, *args, **kwargs)

    monkeypatch.setattr(type(trained.model), "inference", watched)
    monkeypatch.setattr(prediction, "EDGES", 10)
    assert torch.allclose(trained.on_data(tmp_path / "people").output, wanted, atol=1e-6)
    assert len(called) == 1


@pytest.mark.parametrize("model", ["rbf", "gat"])
def test_large_graphs_with_walks_are_answered_for(tmp_path, monkeypatch, model):
    task = read_graph(write_people(tmp_path / "people"), **LABELS["classes"])
    wanted = trained_on(task, tmp_path / "model", model, position_dim=2)
    monkeypatch.setattr(prediction, "EDGES", 10)
    assert torch.equal(Trained.load(tmp_path / "model").on_data(tmp_path / "people").output, wanted)


@pytest.mark.parametrize("model", ["rbf", "gat"])
def test_links_of_large_graphs_with_walks_are_answered_for(tmp_path, monkeypatch, model):
    trained_on(load("karate-links"), tmp_path / "model", model, position_dim=2)
    (tmp_path / "pairs.csv").write_text("source,target\n3,5\n5,3\n0,33\n")
    trained = Trained.load(tmp_path / "model")
    wanted = trained.on_dataset(pairs=tmp_path / "pairs.csv").output
    monkeypatch.setattr(prediction, "EDGES", 10)
    assert torch.equal(trained.on_dataset(pairs=tmp_path / "pairs.csv").output, wanted)


def test_ids_may_be_a_tensor(tmp_path):
    graph = Data(x=torch.rand(9, 2), edge_index=torch.tensor([[0], [1]]), y=torch.arange(9) % 2)
    graph.node_id = torch.arange(9) + 100
    torch.save(graph.to_dict(), tmp_path / "graph.pt")
    task = read_graph(tmp_path / "graph.pt")
    trained_on(task, tmp_path / "model")
    answers = Trained.load(tmp_path / "model").on_data(tmp_path / "graph.pt")
    assert [line.split(",")[0] for line in answers.table().text().splitlines()[1:3]] == ["100", "101"]


def test_whole_graphs(tmp_path):
    for metric in ("accuracy", "rmse"):
        task = make_graph_task(metric)
        wanted = trained_on(task, tmp_path / "model", batch_size=8)
        graphs = [task.graphs.batch_of(torch.tensor([i])) for i in range(len(task.graphs))]
        bare = [Data(x=g.x, edge_index=g.edge_index) for g in graphs]
        torch.save([g.to_dict() for g in bare], tmp_path / "graphs.pt")
        answers = Trained.load(tmp_path / "model").on_data(tmp_path / "graphs.pt")
        torch.testing.assert_close(answers.output, wanted)
        (tmp_path / "folder").mkdir(exist_ok=True)
        torch.save(bare[3].to_dict(), tmp_path / "folder" / "b.pt")
        torch.save(bare[:2], tmp_path / "folder" / "a.pt")
        answers = Trained.load(tmp_path / "model").on_data(tmp_path / "folder")
        assert list(answers.table().columns["graph"]) == ["a/0", "a/1", "b"]
        torch.testing.assert_close(answers.output, wanted[[0, 1, 3]])
    (tmp_path / "none").mkdir()
    trained = Trained.load(tmp_path / "model")
    with pytest.raises(FileNotFoundError, match=r"files .pt of graphs .*\(got nothing\)"):
        trained.on_data(tmp_path / "none")
    torch.save([], tmp_path / "empty.pt")
    with pytest.raises(ValueError, match=r"Expected graphs .*\(got an empty list\)"):
        trained.on_data(tmp_path / "empty.pt")
    torch.save([Data(x=torch.ones(2, 3), edge_index=torch.tensor([[0], [1]]))], tmp_path / "narrow.pt")
    with pytest.raises(ValueError, match=r"Expected 5 features per node as in training \(got 3 in "):
        trained.on_data(tmp_path / "narrow.pt")


def test_links(monkeypatch, tmp_path):
    task = load("karate-links")
    wanted = trained_on(task, tmp_path / "model")
    trained = Trained.load(tmp_path / "model")
    answers = trained.on_dataset()
    assert torch.equal(answers.output, wanted)
    columns = answers.table(probabilities=True).columns
    assert list(columns) == ["source", "target", "score", "probability"]
    assert [columns["source"], columns["target"]] == task.split(0).test.index.tolist()
    assert columns["probability"] == pytest.approx(wanted.sigmoid().tolist())
    (tmp_path / "pairs.csv").write_text("source,target\n3,5\n5,3\n0,33\n")
    answers = trained.on_dataset(pairs=tmp_path / "pairs.csv")
    assert answers.table().columns["target"] == [5, 3, 33]
    model = trained.model
    nodes = model(task.data.x, task.data.edge_index)
    assert torch.equal(answers.output, model.decode(nodes, torch.tensor([[3, 5, 0], [5, 3, 33]])).detach())
    torch.save({"x": task.data.x, "edge_index": task.data.edge_index}, tmp_path / "graph.pt")
    assert torch.equal(
        trained.on_data(tmp_path / "graph.pt", pairs=tmp_path / "pairs.csv").output, answers.output
    )
    monkeypatch.setattr(prediction, "EDGES", 0)  # as of a large graph: layer by layer
    by_layer = trained.on_dataset(pairs=tmp_path / "pairs.csv").output
    torch.testing.assert_close(by_layer, answers.output)
    with pytest.raises(ValueError, match=r"Expected pairs of nodes to score \(got none\).*--pairs"):
        trained.on_data(tmp_path / "graph.pt")
    (tmp_path / "pairs.csv").write_text("source,target\n3,34\n")
    with pytest.raises(IndexError, match=r"line 2 of 'pairs.csv', column 'target' \(got '34', which is none"):
        trained.on_dataset(pairs=tmp_path / "pairs.csv")
    (tmp_path / "pairs.csv").write_text("from,target\n3,4\n")
    with pytest.raises(ValueError, match=r"Expected a column 'source' .*\(got from, target\)"):
        trained.on_dataset(pairs=tmp_path / "pairs.csv")


def test_data_sets_by_name(tmp_path):
    task = load("karate")
    wanted = trained_on(task, tmp_path / "model", "gat")
    trained = Trained.load(tmp_path / "model")
    assert torch.equal(trained.on_dataset().output, wanted)
    with pytest.raises(ValueError, match=r"Expected 34 features per node .*\(got 64 in 'digits'\)"):
        trained.on_dataset("digits")
    with pytest.raises(ValueError, match=r"Expected a data set of nodes.*\(got 'karate-links' of links\)"):
        trained.on_dataset("karate-links")


def test_a_model_that_asked_for_degrees(tmp_path):
    task = load("karate")
    wanted = trained_on(task, tmp_path / "model", "pna")
    assert torch.equal(Trained.load(tmp_path / "model").on_dataset().output, wanted)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shoe": 1.0}, r"Expected no columns but age, job, member \(got shoe\); .*--drop"),
        ({"drop": ["job"]}, r"Expected the columns age, job, member \(got none of the name job\)"),
        ({"job": "tailor"}, r"Expected one of cook, smith in line 2 .* column 'job' \(got 'tailor'\)"),
        ({"age": "old"}, r"Expected a number in line 2 of 'nodes.csv', column 'age' \(got 'old'"),
    ],
)
def test_other_columns_are_named(tmp_path, changes, message):
    trained_on(read_graph(write_people(tmp_path / "people"), **LABELS["classes"]), tmp_path / "model")
    new = write_people(tmp_path / "new", labelled=False, **changes)
    with pytest.raises(ValueError, match=message):
        Trained.load(tmp_path / "model").on_data(new)


def test_columns_that_training_left_out_do_not_count(tmp_path):
    towns = np.resize(["rome", "oslo", "lima", "bonn", "kiev"], 40)
    folder = write_people(tmp_path / "people", town=towns)
    task = read_graph(folder, group="town", **LABELS["classes"])
    wanted = trained_on(task, tmp_path / "model")
    trained = Trained.load(tmp_path / "model")
    for new in (folder, write_people(tmp_path / "new", labelled=False)):
        assert torch.equal(trained.on_data(new).output, wanted)


def test_tables_are_not_taken_for_numbers(tmp_path):
    task = read_graph(write_people(tmp_path / "people"), **LABELS["classes"])
    trained_on(task, tmp_path / "of table")
    torch.save({"x": task.data.x, "edge_index": task.data.edge_index}, tmp_path / "graph.pt")
    with pytest.raises(
        ValueError, match=r"table with the columns age, job, member as in training \(got '.*pt'"
    ):
        Trained.load(tmp_path / "of table").on_data(tmp_path / "graph.pt")
    content = {"x": task.data.x, "edge_index": task.data.edge_index, "y": task.data.y}
    trained_on(from_data(content), tmp_path / "of numbers")
    trained = Trained.load(tmp_path / "of numbers")
    with pytest.raises(ValueError, match=r"rows of 4 numbers as in training \(got the table"):
        trained.on_data(tmp_path / "people")
    for change, message in (
        ({"x": torch.ones(40, 3)}, r"Expected 4 features per node as in training \(got 3 in '.*graph.pt'\)"),
        ({"edge_attr": torch.ones(task.data.num_edges)}, r"Expected 0 features per edge .*\(got 1 in "),
    ):
        torch.save(content | change, tmp_path / "graph.pt")
        with pytest.raises(ValueError, match=message):
            trained.on_data(tmp_path / "graph.pt")


def test_folders_that_hold_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Expected a model in .*no config.json\).*kgat train --out"):
        Trained.load(tmp_path)
    trained_on(load("karate"), tmp_path)
    config, weights = tmp_path / "config.json", tmp_path / "model.pt"
    text, content = config.read_text(), weights.read_bytes()
    for broken in ("", text[:50], "[]", json.dumps({"config": None})):
        config.write_text(broken)
        with pytest.raises(ValueError, match=r"Expected '.*config.json' as kgat train writes it"):
            Trained.load(tmp_path)
    content_of = json.loads(text)
    for change in ({"config": content_of["config"] | {"colour": 1}}, {"kind": "colours"}):
        config.write_text(json.dumps(content_of | change))
        with pytest.raises(ValueError, match=r"as kgat train writes it .*colour"):
            Trained.load(tmp_path)
    config.write_text(json.dumps(content_of | {"data": {"encoding": {"colour": 1}}}))
    with pytest.raises(ValueError, match=r"as kgat train writes it .*colour"):
        Trained.load(tmp_path)
    config.write_text(json.dumps(content_of | {"data": {"classes": ["one"]}}))
    with pytest.raises(ValueError, match=r"as kgat train writes it, with 2 classes \(got \['one'\]\)"):
        Trained.load(tmp_path)
    buffer = BytesIO()
    torch.save({name: x + 1.0 for name, x in torch.load(weights).items()}, buffer)
    config.write_text(text)
    weights.write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match=r"Expected the weights in .* \(got others\)"):
        restore(tmp_path)
    weights.write_bytes(content[:100])
    with pytest.raises(ValueError, match=r"Expected '.*model.pt' as kgat train writes it"):
        Trained.load(tmp_path)
    config.write_text(text.replace('"in_channels": 34', '"in_channels": 33'))
    weights.write_bytes(content)
    with pytest.raises(ValueError, match="Expected weights of the model"):
        restore(tmp_path)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"no model.pt"):
        Trained.load(tmp_path)


def test_own_data_have_to_be_named(tmp_path):
    trained_on(read_graph(write_people(tmp_path / "people"), **LABELS["classes"]), tmp_path / "model")
    with pytest.raises(ValueError, match=r"graph to predict on \(got none, and 'people' is .*--data"):
        Trained.load(tmp_path / "model").on_dataset()


def test_tables_as_files(tmp_path):
    table = Predictions({"id": ["a,b", "c"], "prediction": [1 / 3, 2.0]})
    table.save(tmp_path / "new" / "out.csv")
    with (tmp_path / "new" / "out.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows == [["id", "prediction"], ["a,b", repr(1 / 3)], ["c", "2.0"]]
    (tmp_path / "file").write_text("")
    with pytest.raises(PermissionError, match=r"file that can be written \(got .*--output"):
        table.save(tmp_path / "file" / "out.csv")
