r"""Links in mini-batches of neighbourhoods."""

from dataclasses import replace

import pytest
import torch
from made_tasks import make_config, make_task

from kgat.datasets import link_task
from kgat.experiments import training
from kgat.experiments.link_batch_trainer import LinkBatchTrainer
from kgat.experiments.link_trainer import LinkTrainer

pytestmark = pytest.mark.quick

MODELS = ["rbf*lp", "gat", "sage", "spectral[num_features=4]"]


def make(name, neighbors, **options):
    task = link_task(make_task(edge_dim=None if name == "sage" else 2), "mrr")
    options = {"dropout": 0.0, "input_dropout": 0.0, "attention_dropout": 0.0, "batch_size": 20, **options}
    config = make_config(name, neighbors=neighbors, **options)
    torch.manual_seed(0)
    return task, config, training.build(task, config).double()


def double(visible):
    edge_attr = visible.edge_attr
    if edge_attr is not None:  # no two alike
        edge_attr = torch.arange(edge_attr.numel()).view_as(edge_attr).double().cos()
    return replace(visible, x=visible.x.double(), edge_attr=edge_attr)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("decoder", ["dot", "mlp"])
@pytest.mark.parametrize("jk", [None, "cat"])
def test_all_neighbours_give_the_gradients_of_the_whole_graph(name, decoder, jk):
    gradients = []
    for neighbors in (None, "-1,-1"):
        task, config, model = make(name, neighbors, decoder=decoder, jk=jk)
        visible = double(task.visible(task.split(0)))
        trainer = training.trainer_of(model, visible, config)
        assert type(trainer) is (LinkTrainer if neighbors is None else LinkBatchTrainer)
        torch.manual_seed(1)
        output, y, _ = next(trainer.train_batches())
        trainer.loss(output, y.double()).backward()
        gradients.append([output, *(p.grad for p in model.parameters() if p.grad is not None)])
        with torch.no_grad():
            gradients[-1].append(trainer.validation()[0])
    for sampled, whole in zip(*gradients[::-1], strict=True):
        torch.testing.assert_close(sampled, whole, rtol=1e-9, atol=1e-11)


# 'appnp' takes anything, and spreads what its linear layers say along all edges.
@pytest.mark.parametrize("name", ["rbf", "gatv2", "appnp"])
def test_sampled_links_train_and_are_scored_exactly(name):
    task, config, _ = make(name, "2,1", max_epochs=2, dropout=0.5)
    record, trained = training.train(task, config)
    assert record["epochs"] == 2
    whole = training.evaluate(trained, task, task.split(0))
    for part in ("train", "val", "test"):
        assert record[part] == pytest.approx(whole[part], abs=1e-6)
    assert training.train(task, config)[0]["curve"] == record["curve"]


def test_a_step_sees_what_is_drawn_alone():
    task, config, model = make("rbf", "1,1")
    trainer = training.trainer_of(model, double(task.visible(task.split(0))), config)
    seen = []
    model.register_forward_pre_hook(lambda *call: seen.append(call), with_kwargs=True)
    for _ in trainer.train_batches():
        pass
    assert len(seen) == trainer.num_batches > 1
    for _, (x, edge_index), kwargs in seen:
        seeds = kwargs["num_sampled_nodes_per_hop"][0]
        assert kwargs["pairs"].max() < seeds <= x.size(0)
        assert edge_index.size(1) == kwargs["edge_attr"].size(0) == sum(kwargs["num_sampled_edges_per_hop"])
        assert edge_index[1].bincount().max() <= 1


def test_positions_of_the_whole_graph_are_refused():
    task, config, model = make("rbf", "1,1", position_dim=3)
    with pytest.raises(ValueError, match=r"no 'position_dim' where a step draws neighbours \(got 3\)"):
        training.trainer_of(model, task.visible(task.split(0)), config)
