import copy
import dataclasses
import math
import pickle
from types import SimpleNamespace

import pytest
import torch
from made_tasks import make_config, make_graph_task, make_task
from torch_geometric.utils import degree

from kgat import kernels
from kgat.datasets import METRICS, Task, load
from kgat.datasets.own.structure import structural_features
from kgat.experiments import training, tuning
from kgat.experiments.config import Config
from kgat.experiments.loop import Epoch
from kgat.experiments.registry import MODELS
from kgat.experiments.training import Trainer, evaluate, fit, run
from kgat.models import KernelGAT

# Models


def test_arguments_and_projections_reach_the_layers():
    config = make_config("implicit[num_features=4]*l1.5@shared_qk", projections="separate")
    assert config.model == "implicit[num_features=4]*l1.5@shared_qk"
    assert config.projections is None  # the name has its own
    for one in (config, dataclasses.replace(config, projections="separate")):
        for conv in training.build(make_task(), one).convs:
            assert (conv.projections, conv.kernel.kernels[1].p) == ("shared_qk", 1.5)
            assert conv.kernel.parts[0].num_features == 4
    assert run(make_task(), config)["model"] == config.model


@pytest.mark.parametrize("name", [*MODELS, "rbf*lp", "laplace*l1.5", "rbf+dot"])
def test_every_model_trains(name):
    record = run(make_task(), make_config(name, max_epochs=2))
    assert record["model"] == name
    assert record["epochs"] == 2
    assert all(0.0 <= record[part] <= 1.0 for part in ("train", "val", "test"))


def test_projections_are_those_of_kernel_models():
    task = make_task()
    separate = make_config("dot", projections="separate")
    shared = make_config("dot")
    assert run(task, separate)["parameters"] > run(task, shared)["parameters"]
    assert make_config("gat", projections="separate").projections is None


def test_additive_models_are_the_stock_ones():
    task = make_task()
    for stock, kernel in (("gat", "additive"), ("gatv2", "additive_v2")):
        first = run(task, make_config(stock, dropout=0, input_dropout=0))
        second = run(task, make_config(kernel, dropout=0, input_dropout=0))
        assert first["parameters"] == second["parameters"]


# Weight decay


def test_what_kernels_want_without_decay_exists():
    for name in kernels.names():
        kernel = kernels.resolve(name, 4)
        own = {key for key, _ in kernel.named_parameters()} | {
            k for k, v in kernel._parameters.items() if v is None
        }
        assert set(kernel.undecayed) <= own, name
        # What has a logarithm, a frequency or an exponent for a name is among them.
        assert {key for key in own if key.startswith(("log_", "omega", "rho"))} <= set(kernel.undecayed), name


def moved_by_decay(name, **settings):
    r"""The parameters that a step without any gradient changes."""
    task = make_task()
    config = make_config(name, weight_decay=0.1, **settings)
    model = training.build(task, config)
    trainer = Trainer(model, task.visible(task.split(0)), config)
    optimised = [parameter for group in trainer.optimizer.param_groups for parameter in group["params"]]
    assert sorted(map(id, optimised)) == sorted(map(id, model.parameters()))
    before = {}
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter += 1.0  # none rests at zero
            parameter.grad = torch.zeros_like(parameter)
            before[key] = parameter.clone()
    trainer.optimizer.step()
    return {key for key, parameter in model.named_parameters() if not torch.equal(parameter, before[key])}


@pytest.mark.parametrize(
    ("name", "spared"),
    [
        ("spectral*lp", {"kernels.0.omega1", "kernels.0.omega2", "kernels.1.rho"}),
        (
            "rbf+periodic",
            {f"kernels.{n}" for n in ("0.log_lengthscale", "1.log_lengthscale", "1.log_period")},
        ),
        ("spectral[stationary=true]", {"omega1"}),
        ("sinc", {"inverse_bandwidth"}),
        ("dot", set()),
        ("gat", set()),
    ],
)
def test_decay_spares_what_kernels_want_without(name, spared):
    everything = moved_by_decay(name)
    model = training.build(make_task(), make_config(name))
    assert everything == {key for key, _ in model.named_parameters()}
    expected = {f"convs.{layer}.kernel.{key}" for layer in (0, 1) for key in spared}
    assert everything - moved_by_decay(name, decay_kernels=False) == expected


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("rbf*lp", {"kernel.kernels.0.log_lengthscale", "kernel.kernels.1.rho"}),
        ("additive", {"kernel.att_query", "kernel.att_key"}),
        ("gat", {"att_src", "att_dst"}),
        ("gatv2", {"att"}),
    ],
)
@pytest.mark.parametrize("decays", [True, False])
def test_kernels_learn_at_a_rate_of_their_own(name, own, decays):
    task = make_task()
    config = make_config(name, lr=0.5, kernel_lr=0.1, decay_kernels=decays)
    model = training.build(task, config)
    optimizer = Trainer(model, task.visible(task.split(0)), config).optimizer
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates.keys() == set(names.values())
    slow = {f"convs.{layer}.{key}" for layer in (0, 1) for key in own}
    assert {key for key, rate in rates.items() if rate == pytest.approx(0.05)} == slow
    assert {rate for key, rate in rates.items() if key not in slow} == {0.5}


@pytest.mark.parametrize("name", ["gat", "gatv2", "gcn", "supergat", "rbf", "spectral*lp"])
def test_settings_of_tuned_stacks_reach_the_layers(name):
    options = {"pre_linear": True, "jk": "last", "add_self_loops": False, "attention_dropout": 0.25}
    config = make_config(name, dropout=0.5, norm="layer_norm[mode=node]", **options)
    model = training.build(make_task(), config)
    layers = [getattr(conv, "conv", conv) for conv in model.convs]
    assert [layer.add_self_loops for layer in layers] == [False, False]
    assert {layer.in_channels for layer in layers} == {config.hidden_channels}
    assert {getattr(layer, "dropout", 0.25) for layer in layers} == {0.25}
    assert model.dropout.p == 0.5
    assert [norm.mode for norm in model.norms] == ["node", "node"]
    assert (model.lin_in.in_channels, model.lin.out_features) == (make_task().data.x.size(1), 3)


@pytest.mark.parametrize("name", ["rbf", "gat", "gcn", "mlp"])
def test_positions_are_those_of_random_walks(name):
    task = make_task()
    config = make_config(name, position_dim=3, max_epochs=2)
    model = training.build(task, config).eval()
    x, edge_index = task.data.x, task.data.edge_index
    walk = structural_features(edge_index, x.size(0), ["walk:3"])
    assert walk.abs().sum() > 0
    found = model(x, edge_index)
    model._forward_pre_hooks.clear()
    if name == "rbf":
        expected = model(x, edge_index, position=walk)
    else:
        expected = model(torch.cat([x, walk], dim=1), edge_index)
    torch.testing.assert_close(found, expected)
    record = run(task, config)
    assert record["config"]["position_dim"] == 3
    with pytest.raises(ValueError, match=r"no 'position_dim' where a step draws neighbours \(got 3\)"):
        run(task, make_config(name, position_dim=3, batch_size=4))


@pytest.mark.parametrize("name", ["rbf", "gat"])
@pytest.mark.parametrize("kernel", ["primal", "dot"])
def test_attention_over_all_nodes_can_be_trained(name, kernel):
    task = make_task()
    config = make_config(f"{name}@global_attention={kernel}@pre_linear=true", max_epochs=2)
    plain = make_config(name, pre_linear=True)
    assert "global_attention" not in plain.as_dict()  # keys of older runs stay
    model = training.build(task, config)
    assert sum(p.numel() for p in model.parameters()) > sum(
        p.numel() for p in training.build(task, plain).parameters()
    )
    assert run(task, config)["config"]["global_attention"] == kernel
    with pytest.raises(ValueError, match=rf"no 'global_attention' where .* neighbours \(got {kernel}\)"):
        run(task, make_config(name, pre_linear=True, global_attention=kernel, batch_size=4))


def test_positions_are_those_of_the_graph_that_is_given():
    model = training.build(make_task(), make_config("rbf", position_dim=2)).eval()
    x, path = torch.randn(4, make_task().data.x.size(1)), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    ring = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    first = model(x, path)
    assert not torch.equal(model(x, ring), first)
    torch.testing.assert_close(model(x, path), first)
    torch.testing.assert_close(copy.deepcopy(model)(x, path), first)
    path[1, 0] = 3
    changed = model(x, path)
    torch.testing.assert_close(model(x, path.clone()), changed)
    path.numpy()[1, 0] = 2  # which torch does not count
    torch.testing.assert_close(model(x, path), model(x, path.clone()))
    torch.testing.assert_close(pickle.loads(pickle.dumps(model))(x, path), model(x, path))
    more = torch.cat([x, torch.randn_like(x)])
    torch.testing.assert_close(model(more, path), model(more, path.clone()))


# Fit


def test_fit_cannot_see_test_labels():
    task = make_task()
    split = task.split(0)
    y = task.data.y.clone()
    y[split.test] = (y[split.test] + 1) % 3
    other = make_task(y)
    config = make_config(max_epochs=30)
    fitted = []
    for one in (task, other):
        torch.manual_seed(0)
        model = training.build(one, config)
        fitted.append(fit(model, one.visible(split), config))
    first, second = fitted
    assert first.history == second.history
    assert first.best_epoch == second.best_epoch
    assert all(torch.equal(first.state[name], second.state[name]) for name in first.state)
    records = [run(one, config) for one in (task, other)]
    for name in ("curve", "best_epoch", "epochs", "train", "val"):
        assert records[0][name] == records[1][name]
    assert records[0]["test"] != records[1]["test"]


def test_test_labels_are_read_once(monkeypatch):
    asked = []
    score = Task.score

    def counted(self, output, split, part):
        asked.append(part)
        return score(self, output, split, part)

    monkeypatch.setattr(Task, "score", counted)
    run(make_task(), make_config())
    assert sorted(asked) == ["test", "train", "val"]


class Script:
    r"""Stands for a trainer whose validation is written down; a step counts up the weight."""

    validation = ()

    def __init__(self, model, visible, config):
        self.model = model
        self.left = iter(self.validation)

    def step(self):
        with torch.no_grad():
            self.model.weight += 1
        return 0.0

    def schedule(self, val_loss):
        pass

    def validate(self):
        return next(self.left)


def scripted(monkeypatch, validation, metric="accuracy", **settings):
    monkeypatch.setitem(training.TRAINERS, "node", Script)
    monkeypatch.setattr(Script, "metric", METRICS[metric], raising=False)
    monkeypatch.setattr(Script, "validation", validation)
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    visible = SimpleNamespace(level="node")
    fitted = fit(model, visible, make_config(max_epochs=len(validation), **settings))
    assert fitted.val == validation[fitted.best_epoch - 1][1]
    assert float(model.weight.detach()) == fitted.best_epoch  # has the kept weights, not the last
    assert float(fitted.state["weight"]) == fitted.best_epoch
    return fitted


@pytest.mark.parametrize(
    ("validation", "best_epoch", "epochs"),
    [
        # Both at once are kept; one of them alone only buys time.
        ([(1.0, 0.5), (0.9, 0.6), (1.1, 0.7), (0.8, 0.6), (2.0, 0.1), (2.0, 0.1)], 2, 6),
        # Ties count as progress, and are kept.
        ([(1.0, 0.5), (1.0, 0.5), (2.0, 0.1), (2.0, 0.1), (0.1, 0.9)], 2, 4),
        ([(1.0, 0.0), (2.0, 0.0), (3.0, 0.0), (0.5, 0.0)], 4, 4),
        ([(1.0, 0.5), (2.0, 0.4), (0.5, 0.6), (2.0, 0.1), (2.0, 0.1)], 3, 5),
    ],
)
def test_early_stopping_by_hand(monkeypatch, validation, best_epoch, epochs):
    fitted = scripted(monkeypatch, validation, patience=2, keep="both")
    assert (fitted.best_epoch, fitted.epochs) == (best_epoch, epochs)
    for keep in ("metric", "loss"):  # all stop alike
        assert scripted(monkeypatch, validation, patience=2, keep=keep).epochs == epochs


@pytest.mark.parametrize(("keep", "best_epoch"), [("both", 2), ("loss", 4), ("metric", 3), (None, 3)])
def test_keep_names_whose_weights_are_kept(monkeypatch, keep, best_epoch):
    # Epoch 4 has the lowest loss, 3 and 6 the best metric, and 2 was the last to have both.
    validation = [(1.0, 0.5), (0.9, 0.6), (1.1, 0.7), (0.8, 0.6), (2.0, 0.1), (2.0, 0.7), (2.0, 0.1)]
    chosen = {} if keep is None else {"keep": keep}
    fitted = scripted(monkeypatch, validation, patience=2, **chosen)
    assert (fitted.best_epoch, fitted.epochs) == (best_epoch, len(validation))


def test_a_lucky_early_epoch_does_not_freeze_a_run(monkeypatch):
    # Of an untrained model, by chance: its metric is passed only where the loss has begun to rise again.
    lucky = [(1.5, 0.40)]
    better = [(1.4 - 0.01 * epoch, 0.30 + 0.002 * epoch) for epoch in range(49)]
    overfitting = [(1.0 + 0.01 * epoch, 0.41 + 0.002 * epoch) for epoch in range(30)]
    validation = lucky + better + overfitting
    assert scripted(monkeypatch, validation, keep="both").best_epoch == 1
    assert scripted(monkeypatch, validation).best_epoch == len(validation)


def test_the_least_error_is_kept_and_told_as_it_is(monkeypatch):
    validation = [(1.0, 3.0), (0.8, 1.0), (0.6, 2.0), (0.7, 0.5), (0.5, 2.0)]
    fitted = scripted(monkeypatch, validation, metric="rmse")
    assert fitted.best_epoch == 4
    assert [epoch.score for epoch in fitted.history] == [3.0, 1.0, 2.0, 0.5, 2.0]


def test_ties_of_the_metric_go_by_loss(monkeypatch):
    validation = [(1.0, 0.5), (0.8, 0.7), (0.6, 0.7), (0.7, 0.7), (0.5, 0.6), (0.9, 0.7)]
    assert scripted(monkeypatch, validation).best_epoch == 3


def test_a_trial_scores_what_a_run_keeps():
    # On few nodes, so that the metric ties; the loss of another epoch is lower.
    config = make_config("rbf", max_epochs=60, lr=0.05)
    task = make_task()
    record, found = run(task, config), tuning.trial(task, config)
    assert config.keep == "metric"
    assert (found["val"], found["best_epoch"]) == (record["val"], record["best_epoch"])
    curve = record["curve"]
    assert found["val"] == pytest.approx(max(curve["val"]), rel=1e-4)
    tied = [i for i, value in enumerate(curve["val"]) if value == max(curve["val"])]
    assert found["best_epoch"] == curve["epoch"][min(tied, key=lambda i: curve["val_loss"][i])]


def test_the_kept_epoch_is_what_is_scored():
    task = make_task()
    config = make_config(max_epochs=60, norm="batch_norm", lr=0.05)
    torch.manual_seed(0)
    model = training.build(task, config)
    split = task.split(0)
    fitted = fit(model, task.visible(split), config)
    assert fitted.best_epoch < fitted.epochs
    assert evaluate(model, task, split)["val"] == pytest.approx(fitted.val)


def test_training_learns():
    y = (make_task(nodes=300).data.x[:, 0] > 0).long()
    config = make_config("rbf", max_epochs=100, lr=0.02, residual=True, input_dropout=0)
    record = run(make_task(y, nodes=300), config)
    assert record["test"] > 0.8
    assert record["curve"]["train_loss"][-1] < 0.7 * record["curve"]["train_loss"][0]


def test_same_seed_same_record():
    task = make_task()
    records = [run(task, make_config("rbf*lp", seed=3)) for _ in range(2)]
    for record in records:
        for name in ("seconds", "epoch_seconds", "date"):
            record.pop(name)
    assert records[0] == records[1]
    assert run(task, make_config("rbf*lp", seed=4))["curve"] != records[0]["curve"]


def test_sparse_features_train_as_dense_ones():
    config = make_config(input_dropout=0)
    dense, sparse = (run(make_task(sparse=sparse), config) for sparse in (False, True))
    assert sparse["curve"]["train_loss"] == pytest.approx(dense["curve"]["train_loss"], rel=1e-3)
    assert run(make_task(sparse=True), make_config(input_dropout=0.5))["epochs"] > 0


@pytest.mark.parametrize("name", ["gat", "gatv2", "rbf"])
def test_edge_features_reach_the_layers(name):
    task = make_task(edge_dim=2)
    with_features, without = run(task, make_config(name)), run(make_task(), make_config(name))
    assert with_features["parameters"] > without["parameters"]
    assert with_features["curve"] != without["curve"]


def test_multi_label_loss_and_metric_by_hand():
    generator = torch.Generator().manual_seed(1)
    y = torch.randint(0, 2, (60, 3), generator=generator).float()
    y[torch.rand(60, 3, generator=generator) < 0.2] = math.nan
    y[:, 0] = torch.arange(60) % 2  # so that no node is without any label
    task = make_task(y, metric="roc_auc")
    split = task.split(0)
    config = make_config(dropout=0, input_dropout=0)
    model = training.build(task, config)
    trainer = Trainer(model, task.visible(split), config)
    loss, score = trainer.validate()
    output = model(task.data.x, task.data.edge_index)[split.val].detach()
    known = ~y[split.val].isnan()
    p, t = output.sigmoid()[known], y[split.val][known]
    assert loss == pytest.approx(float(-(t * p.log() + (1 - t) * (1 - p).log()).mean()))
    assert score == pytest.approx(task.score(model(task.data.x, task.data.edge_index), split, "val"))
    assert run(task, config)["metric"] == "roc_auc"


def test_non_finite_loss_names_the_module():
    task = make_task()
    config = make_config()
    model = training.build(task, config)
    with torch.no_grad():
        model.convs[1].lin.weight[0, 0] = math.nan
    said = r"'gat' on 'made', seed 0 \(got nan in epoch 1; .*'convs.1.lin' \(Linear.*no step was taken"
    with pytest.raises(ValueError, match=said):
        fit(model, task.visible(task.split(0)), config)


def test_divergence_is_an_error():
    with pytest.raises(ValueError, match=r"Expected a finite .* loss .* --set lr="):
        run(make_task(), make_config("rbf", lr=1e30))


def test_curve_is_short_and_has_both_ends():
    history = [Epoch(i + 1, 1.0 / (i + 1), 2.0, 0.5) for i in range(1234)]
    curve = training.curve(history)
    assert curve["epoch"][0] == 1
    assert curve["epoch"][-1] == 1234
    assert all(len(values) == 60 for values in curve.values())
    assert training.curve(history[:1])["epoch"] == [1]


def test_on_epoch_sees_every_epoch():
    seen = []
    record = run(make_task(), make_config(max_epochs=5), on_epoch=lambda *a: seen.append(a))
    assert [epoch for epoch, *_ in seen] == [1, 2, 3, 4, 5]
    assert [float(f"{loss:.5g}") for _, loss, *_ in seen] == record["curve"]["train_loss"]


@pytest.mark.parametrize("name", ["gatv2", "rbf*lp"])
def test_saved_models_are_restored(tmp_path, name):
    task = make_task(edge_dim=2)
    record, model = training.train(task, make_config(name, norm="batch_norm"))
    training.save(str(tmp_path / "new"), model, task, record)  # a path or its text
    restored = training.restore(str(tmp_path / "new"))
    assert type(restored) is type(model)
    split = task.split(0)
    assert evaluate(restored, task, split) == evaluate(model, task, split)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"model.pt", "config.json"}


def test_build_passes_the_settings():
    config = make_config("rbf*l2", out_heads=3, num_layers=3, dropout=0.25, input_dropout=0.125)
    model = training.build(make_task(), config)
    assert isinstance(model, KernelGAT)
    assert [conv.heads for conv in model.convs] == [2, 2, 3]
    assert [conv.dropout for conv in model.convs] == [0.25] * 3
    assert model.input_dropout == 0.125
    assert model.convs[0].kernel.kernels[1].p == 2.0


def degrees(edge_index, nodes):
    return degree(edge_index[1], nodes, torch.long).bincount(minlength=2)


def test_models_that_ask_for_degrees_see_none_of_what_is_held_out():
    links = load("karate-links")
    config = Config.of("karate-links", "pna", overrides={"hidden_channels": 8, "max_epochs": 1})
    asked = training._asked(links, config)["deg"]
    assert asked.equal(degrees(links.split(0).edge_index, 34))
    assert not asked.equal(degrees(links.data.edge_index, 34))
    graphs = make_graph_task()
    visible = graphs.visible(graphs.split(0))
    asked = training._asked(graphs, make_config("pna"))["deg"]
    assert asked.equal(degrees(visible.edge_index, visible.x.size(0)))
    task = make_task()
    assert training._asked(task, make_config("pna"))["deg"].equal(degrees(task.data.edge_index, 60))


def test_settings_of_other_tasks_are_refused():
    for name, value, level in (("pooling", "max", "graph"), ("decoder", "mlp", "link")):
        expected = f"Expected no '{name}' of a task on nodes .*tasks on {level}s have it"
        with pytest.raises(ValueError, match=expected):
            training.build(make_task(), make_config(**{name: value}))
