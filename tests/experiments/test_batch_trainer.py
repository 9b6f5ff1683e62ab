import dataclasses

import pytest
import torch
from made_tasks import make_config, make_graph_task, make_task

from kgat.experiments import training
from kgat.experiments.checkpoint import Checkpoints, Interval
from kgat.experiments.config import Config
from kgat.experiments.loop import Diverged
from kgat.experiments.registry import MODELS

pytestmark = pytest.mark.quick

NO_DROPOUT = {"dropout": 0.0, "input_dropout": 0.0}


def trainers(model, sparse=False, edge_dim=None, **settings):
    task = make_task(sparse=sparse, edge_dim=edge_dim)
    task.data.x = task.data.x.double()
    if edge_dim is not None:
        task.data.edge_attr = torch.rand_like(task.data.edge_attr).double()
    of_both = {name: settings[name] for name in ("jk",) if name in settings}
    configs = [make_config(model, **NO_DROPOUT, **more) for more in (of_both, settings)]
    built = [training.build(task, configs[0]).double() for _ in configs]
    built[1].load_state_dict(built[0].state_dict())
    visible = task.visible(task.split(0))
    return [training.trainer_of(*each) for each in zip(built, (visible, visible), configs, strict=True)]


@pytest.mark.parametrize("model", ["gat", "gatv2", "rbf*lp", "implicit"])
@pytest.mark.parametrize(("sparse", "edge_dim"), [(False, 2), (True, None)])
def test_all_neighbours_of_all_nodes_give_the_gradients_of_the_full_batch(model, sparse, edge_dim):
    gradients, losses = [], []
    for trainer in trainers(model, sparse, edge_dim, batch_size=1000, neighbors="-1,-1"):
        trainer.model.eval()  # a kernel that draws takes the same then
        (output, y, penalties), *rest = trainer.train_batches()
        assert not rest
        losses.append(trainer.loss(output, y) + sum(penalties) / trainer.train_size)
        losses[-1].backward()
        gradients.append([parameter.grad for parameter in trainer.model.parameters()])
    torch.testing.assert_close(*losses, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("jk", ["last", "cat", "max", "lstm"])
def test_layers_that_are_joined_are_of_the_nodes_of_a_step(jk):
    gradients = []
    for trainer in trainers("rbf", jk=jk, batch_size=1000, neighbors="-1,-1"):
        (output, y, _), *_ = trainer.train_batches()
        trainer.loss(output, y).backward()
        gradients.append([parameter.grad for parameter in trainer.model.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-12)


def test_an_epoch_takes_each_node_once_and_its_loss_is_the_mean():
    full, trainer = trainers("rbf", batch_size=7, lr=1e-30)
    sizes = [len(y) for _, y, _ in trainer.train_batches()]
    assert sizes == [7, 7, 6]
    full.model.eval()
    torch.testing.assert_close(trainer.validation(), full.validation())
    assert trainer.step() == pytest.approx(full.step(), rel=1e-12)


def test_batches_depend_on_seed_and_epoch():
    def labels(seed, epoch):
        task = make_task()
        config = make_config("gat", seed, batch_size=7, neighbors="2,1")
        trainer = training.trainer_of(training.build(task, config), task.visible(task.split(seed)), config)
        trainer.loader.set_epoch(epoch)
        return [batch.n_id.tolist() for batch in trainer.loader]

    assert labels(0, 1) == labels(0, 1)
    assert labels(0, 1) != labels(0, 2)
    assert labels(0, 1) != labels(1, 1)


@pytest.mark.parametrize("model", ["gat", "gatv2", "rbf*lp", "implicit"])
def test_runs_are_the_same_twice_and_learn_with_few_neighbours(model):
    task, config = make_task(), make_config(model, batch_size=7, neighbors="3, 2", max_epochs=3)
    records = [training.run(task, config) for _ in range(2)]
    assert records[0]["curve"] == records[1]["curve"]
    assert records[0]["config"]["neighbors"] == "3,2"
    assert Config.from_dict(records[0]["config"]) == config


def test_values_train_in_their_unit():
    y = torch.randn(60) * 3 + 50
    record = training.run(
        make_task(y, metric="rmse", classes=1),
        make_config("rbf", batch_size=7, neighbors="3,-1", max_epochs=3),
    )
    assert record["val"] < 10


class Stop(Exception):
    pass


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path):
    task, config = make_task(), make_config("rbf", batch_size=7, neighbors="3,2", max_epochs=6)
    whole = training.train(task, config)[1].state_dict()

    def stop(epoch, *_):
        if epoch == 4:
            raise Stop

    checkpoints = Checkpoints(tmp_path, Interval.read("1"), True)
    with pytest.raises(Stop):
        training.train(task, config, on_epoch=stop, checkpoint=checkpoints.of(config.key))
    numbers = []
    resumed = training.train(
        *(task, config),
        on_epoch=lambda epoch, *_: numbers.append(epoch),
        checkpoint=checkpoints.of(config.key),
    )[1].state_dict()
    assert numbers[0] == 4
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 8, "neighbors": "15"}, "'neighbors' with a number for each of 2 layers .got 15.;"),
        ({"batch_size": 8, "neighbors": "15,x"}, "'neighbors' as numbers of at least 1, or -1 for all"),
        ({"batch_size": 8, "neighbors": "15,0"}, "'neighbors' as numbers of at least 1, or -1 for all"),
        ({"neighbors": "15,10"}, "'neighbors' only beside a 'batch_size'"),
    ],
)
def test_neighbours_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        make_config("gat", **settings)


def test_whole_graphs_have_no_neighbours_to_draw():
    task, config = make_graph_task(), make_config("gat", batch_size=8, neighbors="15,10")
    with pytest.raises(ValueError, match="no 'neighbors' of a task on graphs"):
        training.run(task, config)


def test_a_loss_that_is_not_finite_is_named():
    task = make_task()
    task.data.x[:] = float("nan")
    with pytest.raises(Diverged, match="the first module with a non-finite output"):
        training.run(task, make_config("gat", batch_size=7))


def test_settings_without_batches_keep_their_key():
    config = make_config("gat")
    assert "neighbors" not in config.as_dict()
    assert dataclasses.replace(config, batch_size=8, neighbors="15,10").key != config.key


@pytest.mark.parametrize("model", [name for name in MODELS if not MODELS[name].has_kernel])
def test_every_stock_model_trains_in_mini_batches_and_is_scored_exactly(model):
    r"""Some look at more than the edges of a target: a slice of rows would give other numbers."""
    task = make_task()
    config = make_config(model, batch_size=7, neighbors="2,1", max_epochs=1)
    built = training.build(task, config)
    training.fit(built, task.visible(task.split(0)), config)
    answers = training.outputs(built, task, task.split(0), config)["test"]
    with torch.no_grad():
        torch.testing.assert_close(answers, built(task.data.x, task.data.edge_index))


@pytest.mark.parametrize("model", ["sgformer", "polynormer"])
def test_logits_are_those_of_the_last_layer(model):
    r"""PyG's models return log-probabilities, of which values and labels of a task cannot be made."""
    task = make_task()
    built = training.build(task, make_config(model)).eval()
    last = built.fc if model == "sgformer" else built.pred_global
    heard = []
    last.register_forward_hook(lambda module, inputs, output: heard.append(output))
    output = built(task.data.x, task.data.edge_index)
    torch.testing.assert_close(output, heard[0][:, :-1])
    assert output.exp().sum(dim=1).sub(1).abs().max() > 1e-3
