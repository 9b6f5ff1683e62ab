import pytest
import torch
from made_tasks import make_config
from torch_geometric.data import Data

from kgat.datasets import inductive
from kgat.experiments import training
from kgat.experiments.training import evaluate, run

pytestmark = pytest.mark.quick


def graph(seed, nodes=8, **change):
    generator = torch.Generator().manual_seed(seed)
    index = torch.arange(nodes)
    edge_index = torch.stack(
        [torch.cat([index, (index + 1) % nodes]), torch.cat([(index + 1) % nodes, index])]
    )
    x = torch.randn(nodes, 5, generator=generator)
    parts = {"x": x, "edge_index": edge_index, "y": (x[:, 0] > 0).long()}
    return Data(**{**parts, **change})


def make(**change):
    graphs = [graph(seed, 8 + seed) for seed in range(6)]
    return inductive("made", **{"train": graphs[:3], "val": graphs[3:4], "test": graphs[4:], **change})


def test_training_sees_its_own_graphs_alone():
    task = make()
    visible = task.visible(task.split(0))
    assert visible.x.size(0) == 8 + 9 + 10 + 11
    assert int(visible.batch.max()) == 3
    assert torch.equal(visible.x, task.data.x[:38])
    config = make_config()
    trainer = training.trainer_of(training.build(task, config), visible, config)
    assert trainer.train_inputs[0].size(0) == 27
    assert torch.equal(trainer.val_inputs[0], task.data.x[27:38])
    assert torch.equal(trainer.val_inputs[1], graph(3, 11).edge_index[:, trainer_order(graph(3, 11))])
    assert torch.equal(trainer.val_y, graph(3, 11).y)


def trainer_order(data):
    return (data.edge_index[1] * data.x.size(0) + data.edge_index[0]).argsort()


@pytest.mark.parametrize("model", ["gat", "rbf", "implicit"])
def test_what_other_graphs_hold_changes_nothing(model):
    config = make_config(model, max_epochs=3, norm="batch_norm", dropout=0)
    one = run(make(), config)
    other = run(make(test=[graph(9, 50, x=100 * torch.randn(50, 5))]), config)
    assert one["curve"] == other["curve"]
    assert 0.0 <= one["test"] <= 1.0


def test_a_model_learns_from_other_graphs():
    train = [graph(seed, 30) for seed in range(5)]
    task = make(train=train)
    config = make_config("rbf", max_epochs=60, lr=0.02, residual=True, dropout=0, input_dropout=0)
    record, model = training.train(task, config)
    assert record["test"] > 0.8
    assert evaluate(model, task, task.split(0))["test"] == record["test"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"val": []}, r"graphs in 'val' of 'made' \(got none\)"),
        ({"test": [graph(0, y=None)]}, r"the 8 nodes of graph 4 of 'made' \(got none\)"),
        ({"test": [graph(0, y=torch.zeros(3).long())]}, r"nodes of graph 4 of 'made' \(got \[3\]\)"),
        ({"test": [graph(0, x=torch.ones(8, 2))]}, r"columns of 'x'.*and 2 in graph 4"),
        ({"metric": "rmse"}, "floating point values"),
    ],
)
def test_bad_graphs_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        make(**change)


def test_features_of_edges_are_finite():
    attr = torch.ones(16, 1)
    attr[3] = float("inf")
    graphs = [graph(seed, edge_attr=attr if seed == 1 else torch.ones(16, 1)) for seed in range(3)]
    message = r"of edges in 'graph 1 of 'made'' \(got inf at edge 3, from node 3 to 4, column 0\)"
    with pytest.raises(ValueError, match=message):
        make(train=graphs[:1], val=graphs[1:2], test=graphs[2:])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.uint32, torch.uint64])
def test_unsigned_numbers(dtype):
    signed = [graph(seed) for seed in range(3)]
    graphs = [graph(s, y=g.y.to(dtype), edge_index=g.edge_index.to(dtype)) for s, g in enumerate(signed)]
    task = make(train=graphs[:1], val=graphs[1:2], test=graphs[2:])
    assert torch.equal(task.y, torch.cat([g.y for g in signed]))
    assert graphs[0].y.dtype == dtype  # what was given stays
