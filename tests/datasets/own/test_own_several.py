import networkx as nx
import pandas as pd
import pytest
import torch
from made_graphs import tables, write
from torch_geometric.data import Data

from kgat.datasets import Encoding, describe, read_graph
from kgat.datasets.own.read import read_unlabelled
from kgat.experiments.config import Config, on_data
from kgat.experiments.prediction import Trained
from kgat.experiments.training import outputs, save, train

pytestmark = pytest.mark.quick

PARTS = {"train": (0, 1), "val": (2,), "test": (3,)}


def people(folder, parts=PARTS, **changes):
    r"""A folder of tables per graph, below that of its part."""
    folder.mkdir()
    for part, seeds in parts.items():
        (folder / part).mkdir(exist_ok=True)
        for seed in seeds:
            nodes, edges = tables(seed)
            if seed in changes.get("age", {}):
                nodes["age"] += changes["age"][seed]
            write(folder / part / f"town {seed}", nodes, edges)
    return folder


def data(seed, nodes=12, **change):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(nodes, 4, generator=generator)
    index = torch.arange(nodes)
    parts = {"x": x, "edge_index": torch.stack([index, (index + 1) % nodes]), "y": (x[:, 0] > 0).long()}
    return Data(**{**parts, **change})


def test_parts_of_tables(tmp_path):
    task = read_graph(people(tmp_path / "people"), structure="degree")
    split = task.split(0)
    assert task.data.graph_name == ["train/town 0", "train/town 1", "val/town 2", "test/town 3"]
    assert [int(mask.sum()) for mask in (split.train, split.val, split.test)] == [120, 60, 60]
    assert task.data.node_id[60:62] == ["train/town 1/p0", "train/town 1/p1"]
    assert torch.equal(task.data.batch, torch.arange(4).repeat_interleave(60))
    row, col = task.data.batch[task.data.edge_index]
    assert torch.equal(row, col)
    assert describe(task).startswith("people: 240 nodes in 4 graphs, ")
    assert task.visible(split).x.size(0) == 180


def test_numbers_of_training_decide(tmp_path):
    one = read_graph(people(tmp_path / "one"), structure="degree")
    other = read_graph(people(tmp_path / "other", age={3: 1e4}), structure="degree")
    assert torch.equal(one.data.x[:180], other.data.x[:180])
    train = one.data.x[one.split(0).train]
    numbers = [0, *range(train.size(1) - 5, train.size(1))]  # ages and what is made of degrees
    assert torch.allclose(train[:, numbers].mean(0), torch.zeros(6), atol=1e-5)
    assert torch.allclose(train[:, numbers].std(0, correction=0), torch.ones(6), atol=1e-5)


def test_graphs_without_parts_are_split_as_wholes(tmp_path):
    folder = tmp_path / "towns"
    folder.mkdir()
    for seed in range(6):
        write(folder / f"town{seed}", *tables(seed))
    task = read_graph(folder)
    assert len(task.splits) == 16
    for split in task.splits:
        for mask in (split.train, split.val, split.test):
            counts = mask.view(6, 60).sum(dim=1)
            assert bool(((counts == 0) | (counts == 60)).all())
            assert counts.any()


@pytest.mark.parametrize("form", ["files", "lists", "one list", "collated"])
def test_files_of_pyg(tmp_path, form):
    graphs = [data(seed, 12 + seed) for seed in range(6)]
    path = tmp_path / "graphs"
    path.mkdir()
    if form == "files":
        for number, graph in enumerate(graphs):
            part = path / ("train" if number < 3 else "val" if number < 4 else "test")
            part.mkdir(exist_ok=True)
            torch.save(graph, part / f"{number}.pt")
    elif form == "lists":
        for part, some in (("train", graphs[:3]), ("val", graphs[3:4]), ("test", graphs[4:])):
            torch.save([graph.to_dict() for graph in some], path / f"{part}.pt")
    elif form == "one list":
        path = path / "all.pt"
        torch.save(graphs, path)
    else:
        from torch_geometric.data import InMemoryDataset

        joined, slices = InMemoryDataset.collate(graphs)
        path = path / "all.pt"
        torch.save((joined.to_dict(), slices, Data), path)
    task = read_graph(path)
    assert torch.equal(task.data.x, torch.cat([graph.x for graph in graphs]))
    assert torch.equal(task.data.y, torch.cat([graph.y for graph in graphs]))
    assert int(task.data.batch.max()) == 5
    assert len(task.splits) == (1 if form in ("files", "lists") else 18)
    start = 12 + 13
    of_third = task.data.batch[task.data.edge_index[0]] == 2
    wanted = {tuple(edge) for edge in (graphs[2].edge_index + start).t().tolist()}
    assert {tuple(edge) for edge in task.data.edge_index[:, of_third].t().tolist()} == wanted
    if len(task.splits) == 1:
        split = task.split(0)
        assert [int(mask.sum()) for mask in (split.train, split.val, split.test)] == [39, 15, 33]


def test_networks(tmp_path):
    for part, seeds in PARTS.items():
        (tmp_path / "nets" / part).mkdir(parents=True)
        for seed in seeds:
            graph = nx.gnp_random_graph(20, 0.2, seed=seed, directed=True)
            nx.set_node_attributes(graph, {i: float(i) for i in graph}, "age")
            nx.set_node_attributes(graph, {i: "ab"[i % 2] for i in graph}, "label")
            nx.set_edge_attributes(graph, 0.5, "weight")
            nx.write_graphml(graph, tmp_path / "nets" / part / f"{seed}.graphml")
    task = read_graph(tmp_path / "nets")
    assert (task.data.num_nodes, task.data.edge_attr.size(1)) == (80, 1)
    assert "; directed" in task.preprocessing
    assert task.data.graph_name[-1] == "test/3"


def test_one_command_trains_and_answers_for_new_graphs(tmp_path):
    task = read_graph(people(tmp_path / "people"), structure="degree")
    settings = {"max_epochs": 2, "hidden_channels": 8, "heads": 2, "norm": "graph_norm"}
    config = Config.of(task.name, "rbf", overrides=on_data(settings, task.digest))
    record, model = train(task, config)
    save(tmp_path / "model", model, task, record)
    wanted = outputs(model, task, task.split(0), config)["test"]
    trained = Trained.load(tmp_path / "model")
    answers = trained.on_data(tmp_path / "people")
    assert torch.equal(answers.output, wanted)
    names = answers.table().columns
    assert (names["graph"][60], names["id"][60]) == ("train/town 1", "p0")
    alone = trained.on_data(tmp_path / "people" / "test" / "town 3")
    assert torch.allclose(alone.output, wanted[180:], atol=1e-5)
    new = tmp_path / "new"
    for seed in (8, 9):
        nodes, edges = tables(seed)
        new.mkdir(exist_ok=True)
        write(new / f"t{seed}", nodes.drop(columns="label"), edges)
    table = trained.on_data(new).table()
    assert (len(table), table.columns["graph"][::60]) == (120, ["t8", "t9"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "random"}, r"Expected no 'split' of several graphs"),
        ({"group": "job"}, r"Expected no 'group' of several graphs"),
        ({"knn": 3}, r"Expected no 'knn' of several graphs"),
        ({"structure": ["laplacian:2"]}, r"'degree' or 'walk:K' .*\(got 'laplacian'\)"),
        ({"label": "colour"}, r"Expected a column 'colour'"),
    ],
)
def test_options_that_are_not_for_several(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        read_graph(people(tmp_path / "people"), **options)


def test_what_is_wrong_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train, val and test in .*\(got none for val, test\)"):
        read_graph(people(tmp_path / "one", {"train": (0,)}))
    folder = people(tmp_path / "two")
    (folder / "val" / "town 2" / "edges.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"table of edges in '.*town 2'"):
        read_graph(folder)
    folder = people(tmp_path / "three")
    nodes, _ = tables(3)
    nodes.assign(height=1).to_csv(folder / "test" / "town 3" / "nodes.csv", index=False)
    with pytest.raises(
        ValueError, match=r"the same columns in all graphs .*\(got height in 'train/town 0' or"
    ):
        read_graph(folder)
    nodes.assign(job="pilot").to_csv(folder / "test" / "town 3" / "nodes.csv", index=False)
    with pytest.raises(
        ValueError, match=r"in test/town 3: line 2 of 'nodes.csv', column 'job' \(got 'pilot'\)"
    ):
        read_graph(folder)
    folder = people(tmp_path / "four")
    edges = pd.DataFrame({"source": ["p0", "p1"], "target": ["p1", "q"]})
    edges.to_csv(folder / "train" / "town 1" / "edges.csv", index=False)
    with pytest.raises(IndexError, match=r"train/town 1: line 3 of 'edges.csv', column 'target'"):
        read_graph(folder)
    torch.save([data(0), data(1)], folder / "train" / "more.pt")
    with pytest.raises(ValueError, match=r"graphs of one kind in .*beside .pt files"):
        read_graph(folder)
    (tmp_path / "empty" / "train").mkdir(parents=True)
    for part in ("val", "test"):
        torch.save(data(0), tmp_path / "empty" / f"{part}.pt")
    with pytest.raises(ValueError, match=r"Expected graphs in '.*train' \(got none\)"):
        read_graph(tmp_path / "empty")


@pytest.mark.parametrize(
    ("graph", "options", "message"),
    [
        (data(1, x=torch.ones(12, 3)), {}, r"same columns of 'x' .*\(got rows of shapes \[3\], \[4\]\)"),
        (data(1, y=None), {}, r"same columns of 'y' .*\(got none in '.*/1'\)"),
        (data(1, edge_attr=torch.ones(12, 1)), {}, r"same columns of 'edge_attr' .*\(got none in '.*/0'\)"),
        (data(1, edge_index=torch.tensor([[0], [12]])), {}, r"nodes 0 to 11 \(got 0 to 12\)"),
        (data(1, edge_index=None), {}, r"'edge_index' of shape \[2, E\] in graph '.*/1'"),
        (data(1), {"fill": True}, r"'fill'"),
    ],
)
def test_graphs_that_do_not_fit_together(tmp_path, graph, options, message):
    torch.save([data(0), graph, data(2)], tmp_path / "graphs.pt")
    with pytest.raises((ValueError, IndexError), match=message):
        read_graph(tmp_path / "graphs.pt", **options)


def test_a_graph_is_in_one_part(tmp_path):
    for part, graphs in {"train": [0, 1], "val": [2], "test": [3, 1]}.items():
        torch.save([data(number) for number in graphs], tmp_path / f"{part}.pt")
    with pytest.raises(ValueError, match=r"each graph in one part .*got 'train/1' and 'test/1'.*would leak"):
        read_graph(tmp_path)
    torch.save([data(3), data(4), data(3)], tmp_path / "test.pt")  # twice in one part is no leak
    assert read_graph(tmp_path).data.graph_name[-1] == "test/2"
    folder = people(tmp_path / "towns")
    rows = (folder / "train" / "town 1" / "nodes.csv").read_text()
    (folder / "test" / "town 3" / "nodes.csv").write_text(rows)
    edges = (folder / "train" / "town 1" / "edges.csv").read_text()
    (folder / "test" / "town 3" / "edges.csv").write_text(edges)
    with pytest.raises(ValueError, match=r"each graph in one part .*got 'train/town 1' and 'test/town 3'"):
        read_graph(folder)


def test_labels_of_whole_graphs_are_said_to_be_such(tmp_path):
    torch.save([data(number, y=torch.tensor([number % 2])) for number in range(4)], tmp_path / "graphs.pt")
    with pytest.raises(ValueError, match=r"'y' with a value per node .*one per graph.*GraphTask"):
        read_graph(tmp_path / "graphs.pt")


def test_weights_of_tensors_are_edge_features(tmp_path):
    weights = [torch.rand(12) for _ in range(4)]
    for name in ("edge_weight", "edge_attr"):
        graphs = [data(seed, **{name: weight}).to_dict() for seed, weight in enumerate(weights)]
        torch.save(graphs, tmp_path / f"{name}.pt")
    tasks = [read_graph(tmp_path / f"{name}.pt") for name in ("edge_weight", "edge_attr")]
    assert tasks[0].data.edge_attr.shape == (48, 1)
    assert tasks[0].digest == tasks[1].digest


def test_bad_edge_features_are_named_by_graph_and_edge(tmp_path):
    attr = torch.ones(12, 2)
    attr[7, 1] = float("nan")
    graphs = [data(seed, edge_attr=attr if seed == 2 else torch.ones(12, 2)) for seed in range(4)]
    torch.save([graph.to_dict() for graph in graphs], tmp_path / "g.pt")
    message = r"of edges in graph 'g/2' of '.*g.pt' \(got nan at edge 7, from node 7 to 8, column 1\)"
    with pytest.raises(ValueError, match=message):
        read_graph(tmp_path / "g.pt")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.uint32, torch.uint64])
def test_unsigned_numbers_of_tensors(tmp_path, dtype):
    signed = [data(seed) for seed in range(4)]
    graphs = [data(s, y=g.y.to(dtype), edge_index=g.edge_index.to(dtype)) for s, g in enumerate(signed)]
    for name, some in (("signed", signed), ("unsigned", graphs)):
        torch.save([graph.to_dict() for graph in some], tmp_path / f"{name}.pt")
    assert read_graph(tmp_path / "signed.pt").digest == read_graph(tmp_path / "unsigned.pt").digest


def test_a_name_is_one_in_all_graphs(tmp_path):
    # In Oslo all are called NA, which by itself could be the lack of numbers.
    folder = tmp_path / "towns"
    folder.mkdir()
    for seed, town in enumerate(("rome", "oslo", "bonn", "lyon")):
        nodes, edges = tables(seed)
        labels = ["NA"] if town == "oslo" else ["NA", "EU", "AS"]
        nodes["label"] = [labels[i % len(labels)] for i in range(60)]
        nodes["region"] = [labels[i // 20 % len(labels)] for i in range(60)]
        nodes["age"] = nodes["age"].astype(object)
        nodes.loc[3, "age"] = "NaN" if town == "oslo" else "NA"
        write(folder / town, nodes, edges)
    task = read_graph(folder, fill=True)
    assert task.data.classes == ["AS", "EU", "NA"]
    assert bool((task.y >= 0).all())
    assert "NA, NaN in age taken for missing; " in task.preprocessing
    assert "NA in region taken for a name, as only an empty cell is missing there" in task.preprocessing


def networks(folder, kinds):
    for (part, seeds), kind in zip(PARTS.items(), kinds, strict=True):
        (folder / part).mkdir(parents=True)
        for seed in seeds:
            graph = nx.gnp_random_graph(20, 0.2, seed=seed, directed=kind == "directed")
            nx.set_node_attributes(graph, {i: {"age": float(i), "label": "ab"[i % 2]} for i in graph})
            if kind == "tables":
                place = folder / part / f"{seed}"
                nodes = pd.DataFrame({"id": list(graph), "age": list(graph), "label": list("ab" * 10)})
                write(place, nodes, nx.to_pandas_edgelist(graph))
            else:
                nx.write_graphml(graph, folder / part / f"{seed}.graphml")
    return folder


def test_edges_of_all_graphs_have_directions_or_none(tmp_path):
    task = read_graph(networks(tmp_path / "none", ["", "", ""]))
    assert task.data.is_undirected()
    with pytest.raises(ValueError, match=r"as they are to be directed .got 'train/0', whose edges have none"):
        read_graph(tmp_path / "none", directed=True)
    for other in ("", "tables"):
        folder = networks(tmp_path / f"mixed{other}", ["directed", other, "directed"])
        with pytest.raises(ValueError, match=r"got 'train/0', which is directed, and 'val/2', which is not"):
            read_graph(folder)
        assert read_graph(folder, directed=False).data.is_undirected()
    assert not read_graph(tmp_path / "mixedtables", directed=True).data.is_undirected()
    all_directed = read_graph(networks(tmp_path / "all", ["directed"] * 3))
    with pytest.raises(ValueError, match=r"as they are to be directed .got 'train/0'"):
        read_unlabelled(tmp_path / "none", Encoding.of(all_directed.data.encoding))


def test_what_is_no_feature_of_one_graph_is_none_of_several(tmp_path):
    expected = read_graph(people(tmp_path / "people"))
    folder = people(tmp_path / "more")
    for path in sorted(folder.glob("*/*/*.csv")):
        table = pd.read_csv(path)
        if path.name == "nodes.csv":
            table["split"], table["train_mask"] = "train", True
        table.to_csv(path)
    with pytest.warns(UserWarning, match="tells the parts of a split|numbers the rows") as told:
        task = read_graph(folder)
    assert task.digest == expected.digest
    assert {"split", "train_mask", "Unnamed: 0"} == {str(each.message).split("'")[1] for each in told}
    again = read_unlabelled(folder / "train" / "town 0", Encoding.of(task.data.encoding))
    assert again.data.x.shape == (60, task.data.x.size(1))
