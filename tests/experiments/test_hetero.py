r"""Comparisons on heterogeneous graphs: models, training, mini-batches, records."""

import pytest
import torch
from torch_geometric import seed_everything
from torch_geometric.data import HeteroData

from kgat.datasets import VISIBLE, from_data, load
from kgat.experiments import training
from kgat.experiments.checkpoint import fingerprint
from kgat.experiments.compare import compare
from kgat.experiments.concurrency import memory_of_run
from kgat.experiments.config import Config, on_data
from kgat.experiments.prediction import Trained
from kgat.models import HeteroGNN, KernelHeteroGAT

WRITES, CITES = ("author", "writes", "paper"), ("paper", "cites", "paper")
N = 60


def raw():
    generator = torch.Generator().manual_seed(0)
    data = HeteroData()
    data["paper"].y = torch.arange(N) % 3
    data["paper"].x = torch.eye(4)[data["paper"].y] + 0.1 * torch.randn(N, 4, generator=generator)
    data["paper"].value = 10 + torch.randn(N, generator=generator)
    data["author"].x = torch.randn(12, 3, generator=generator)
    data[WRITES].edge_index = torch.stack([torch.arange(2 * N) % 12, torch.arange(2 * N) % N])
    data[CITES].edge_index = torch.randint(N, (2, 150), generator=generator)
    data[CITES].edge_attr = torch.rand(150, generator=generator)
    return data


def make(**options):
    return from_data(raw(), name="drawn", directed=False, **options)


TASK = make()
SAMPLED = {"batch_size": 20, "neighbors": "3,2"}


def config(model, task=TASK, **settings):
    settings = {"max_epochs": 2, "hidden_channels": 8, "heads": 2, **settings}
    return Config.of(task.name, model, 0, on_data(settings, task.digest, task.target))


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        *[
            (name, {})
            for name in ("gat", "gatv2", "sage", "transformer", "rgcn", "hgt", "spectral*lp@shared_qk")
        ],
        *[(name, SAMPLED) for name in ("sage", "hgt", "rbf")],
    ],
)
def test_models_learn(model, settings):
    learning = {"max_epochs": 15, "lr": 0.05, "dropout": 0.1, "input_dropout": 0.0}
    record, trained = training.train(TASK, config(model, **learning, **settings))
    assert record["test"] > 0.6  # of three classes
    assert ("level" in record, record["split"]) == (False, "random-0")
    frame = trained.model
    if model == "rbf":
        assert isinstance(frame, KernelHeteroGAT)
    # One map of the node itself, be it the layer's or the frame's.
    if isinstance(frame, HeteroGNN):
        own = model in ("sage", "transformer")
        assert any(name.startswith("lins_res") for name, _ in frame.named_parameters()) is not own


def test_the_map_of_the_node_itself_is_a_setting():
    maps = [
        sum(
            name.startswith("model.lins_res")
            for name, _ in training.build(TASK, config("rbf", **of)).named_parameters()
        )
        for of in ({}, {"residual": False})
    ]
    assert maps == [6, 0]  # weight and bias: of two types in the first layer, of the target in the last
    assert config("rbf").residual
    assert not Config.of("Cora", "rbf", 0, on_data({}, None)).residual


@pytest.mark.parametrize("model", ["rbf", "hgt"])
def test_full_neighbourhoods_give_the_gradients_of_the_full_batch(model):
    gradients = []
    for settings in ({}, {"batch_size": 13, "neighbors": "-1,-1", "accumulate": 3}):
        of = config(model, dropout=0.0, input_dropout=0.0, **settings)
        seed_everything(0)
        built = training.build(TASK, of).double()
        trainer = training.trainer_of(built, TASK.visible(TASK.split(0)), of)
        inputs = [trainer.x] if settings else [trainer.train_inputs[0]]
        for x in inputs:
            x.update({name: h.double() for name, h in x.items()})
        for edges in [] if settings else [trainer.train_inputs[2]["edge_attr"]]:
            edges.update({edge: attr.double() for edge, attr in edges.items()})
        if settings:
            for store in trainer.loader.data.edge_stores:
                if "edge_attr" in store:
                    store.edge_attr = store.edge_attr.double()
        grads = {}
        trainer.optimizer.step = lambda built=built, grads=grads: grads.update(
            {name: p.grad.clone() for name, p in built.named_parameters() if p.grad is not None}
        )
        trainer.step()
        gradients.append(grads)
    assert gradients[0].keys() == gradients[1].keys()
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


def test_a_regression_is_in_its_units():
    task = make(target="paper.value")
    record, trained = training.train(task, config("rbf", task, max_epochs=3))
    assert record["metric"] == "rmse"
    assert record["test"] < 5  # not of zeros: the values are around ten
    assert trained.mean.item() == pytest.approx(10, abs=1)


def test_a_trained_model_is_restored(tmp_path):
    for model in ("rbf", "hgt"):
        record, trained = training.train(TASK, config(model))
        training.save(tmp_path / model, trained, TASK, record)
        restored = training.restore(tmp_path / model)
        split = TASK.split(0)
        expected, found = (training.outputs(m, TASK, split)["test"] for m in (trained, restored))
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


class Own(torch.nn.Module):
    def __init__(self, in_channels, out_channels, metadata, target):
        super().__init__()
        assert metadata[1][0] == WRITES
        self.lin = torch.nn.Linear(in_channels[target], out_channels)
        self.target = target

    def forward(self, x_dict, edge_index_dict):
        return {self.target: self.lin(x_dict[self.target])}


class Narrow(Own):
    def forward(self, x_dict, edge_index_dict):
        return self.lin(x_dict[self.target])[:, 1:]


class OfOneType(Own):
    def forward(self, x, edge_index, batch):
        return x


@pytest.fixture
def predicting(tmp_path):
    r"""A model of papers whose authors have no features, what it says of them, and the file of the graph."""

    def without_features():
        data = raw()
        del data["author"].x
        data["author"].num_nodes = 12
        data["paper"].node_id = [f"p{number}" for number in range(N)]
        return data

    task = from_data(without_features(), name="drawn", directed=False)
    record, model = training.train(task, config("rbf", task))
    training.save(tmp_path / "model", model, task, record)
    data = without_features()
    del data["paper"].y, data["paper"].value
    torch.save(data.to_dict(), tmp_path / "graph.pt")
    return Trained.load(tmp_path / "model"), training.outputs(model, task, task.split(0))["test"], data


def test_predictions_for_a_graph_of_types(predicting, tmp_path):
    trained, wanted, _ = predicting
    answers = trained.on_data(tmp_path / "graph.pt")
    torch.testing.assert_close(answers.output, wanted)
    assert list(answers.names["id"])[:2] == ["p0", "p1"]
    assert set(answers.table().columns["prediction"]) <= {"0", "1", "2"}


@pytest.mark.parametrize("model", ["rbf", "rgcn", "hgt", "sage"])
def test_types_may_come_in_another_order(model, tmp_path):
    record, trained = training.train(TASK, config(model))
    training.save(tmp_path / "model", trained, TASK, record)
    data, other = raw(), HeteroData()
    other["author"].x, other["paper"].x = data["author"].x, data["paper"].x
    for edge in (CITES, WRITES):
        other[edge].edge_index = data[edge].edge_index
    other[CITES].edge_attr = data[CITES].edge_attr
    torch.save(other.to_dict(), tmp_path / "graph.pt")
    answers = Trained.load(tmp_path / "model").on_data(tmp_path / "graph.pt")
    wanted = training.outputs(trained, TASK, TASK.split(0))["test"]
    torch.testing.assert_close(answers.output, wanted, rtol=0, atol=0)


def test_ids_and_features_of_types_are_read_or_refused(predicting, tmp_path):
    trained, _, data = predicting
    data["paper"].node_id = torch.arange(N) + 100
    torch.save(data.to_dict(), tmp_path / "graph.pt")
    assert trained.on_data(tmp_path / "graph.pt").table().columns["id"][:2] == [100, 101]
    data["paper"].node_id = ["a", "b"]
    torch.save(data.to_dict(), tmp_path / "graph.pt")
    with pytest.raises(ValueError, match=r"'node_id' for the 60 nodes of .*type 'paper' \(got 2\)"):
        trained.on_data(tmp_path / "graph.pt")
    del data["paper"].node_id
    data["paper"].x[3, 1] = float("nan")
    torch.save(data.to_dict(), tmp_path / "graph.pt")
    with pytest.raises(ValueError, match=r"Expected finite features in .*type '.*' \(got nan at node"):
        trained.on_data(tmp_path / "graph.pt")


def test_graphs_of_other_types_are_refused(predicting, tmp_path):
    trained, _, data = predicting

    def refused(change, message):
        changed = data.clone()
        change(changed)
        torch.save(changed.to_dict(), tmp_path / "graph.pt")
        with pytest.raises(ValueError, match=message):
            trained.on_data(tmp_path / "graph.pt")

    def narrow(data):
        data["paper"].x = data["paper"].x[:, :3]

    def further(data):
        data["venue"].x = torch.ones(2, 1)

    def lost(data):
        del data[CITES]

    def unweighted(data):
        del data[CITES].edge_attr

    # Authors have the mean of their papers.
    refused(narrow, r"Expected 4 features of type paper as in training \(got 3 in ")
    refused(further, r"types of nodes of training, author, paper, in .* \(got author, paper, venue\)")
    refused(lost, r"types of edges of training, .*'cites'.* \(got \('author', 'writes', 'paper'\), ")
    refused(unweighted, r"Expected 1 features of type \('paper', 'cites', 'paper'\) .*got 0")
    torch.save(load("karate").data.to_dict(), tmp_path / "graph.pt")
    with pytest.raises(ValueError, match=r"Expected a HeteroData in .*got a Data"):
        trained.on_data(tmp_path / "graph.pt")
    with pytest.raises(ValueError, match="no 'drop' of a heterogeneous graph"):
        trained.on_data(tmp_path / "graph.pt", drop=["shoe"])
    with pytest.raises(ValueError, match=r"as the model was trained on \(got 'karate', of one type"):
        trained.on_dataset("karate")


def test_a_comparison_with_models_of_ones_own(tmp_path):
    options = {"overrides": {"max_epochs": 1, "hidden_channels": 8, "heads": 2}, "jobs": 1}
    options |= {"figures": False, "rounds": 0}
    given = {"mine": Own, "rgcn": "rgcn", "rbf": "rbf"}
    records = compare(TASK, given, 2, tmp_path, **options)
    runs = [record for record in records if record["kind"] == "run"]
    assert sorted((run["model"], run["seed"]) for run in runs) == sorted(
        (n, s) for n in given for s in (0, 1)
    )
    assert len({run["config"]["data"] for run in runs}) == 1
    again = compare(TASK, given, 2, tmp_path, **options)
    assert len(again) == len(records)  # nothing is repeated


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            "gcn",
            r"several types of nodes or edges .got 'gcn'.; choose from: gat, .*hgt, kernels",
        ),
        (Narrow, r"\[nodes of type 'paper', out_channels\]=\[60, 3\].*got \[60, 2\]"),
        (OfOneType, r"called as model\(x_dict, edge_index_dict\).*got forward\(x, edge_index, batch\)"),
    ],
)
def test_models_that_do_not_fit(model, message, tmp_path):
    given = [model] if isinstance(model, str) else {"mine": model}
    with pytest.raises(ValueError, match=message) as caught:
        compare(TASK, given, 1, tmp_path, overrides={"max_epochs": 1}, rounds=0, figures=False)
    assert "\n" not in str(caught.value)


def test_models_of_several_types_on_one():
    task = load("karate")
    for name in ("rgcn", "hgt"):
        with pytest.raises(ValueError, match=rf"one type of nodes and edges .got '{name}'.; .*gcn"):
            training.build(task, Config.of("karate", name))


def test_what_training_sees_goes_to_other_processes(tmp_path):
    visible = TASK.visible(TASK.split(0))
    torch.save(vars(visible), tmp_path / "visible.pt")
    content = torch.load(tmp_path / "visible.pt", weights_only=True)
    assert fingerprint(VISIBLE[visible.level](**content)) == fingerprint(visible)


def test_memory_is_that_of_all_types():
    few = memory_of_run(TASK, config("rbf"))
    data = TASK.data.clone()
    data[WRITES].edge_index = data[WRITES].edge_index.repeat(1, 1000)
    more = from_data(TASK.data, name="drawn")
    object.__setattr__(more, "data", data)
    assert memory_of_run(more, config("rbf")) > few + 8 * 4 * 2 * 4 * 50_000
