import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from torch_geometric import seed_everything
from torch_geometric.data import Data
from torch_geometric.utils import barabasi_albert_graph, to_undirected

from kgat import datasets, kernels, training
from kgat.datasets import Split, Task
from kgat.models import KernelGAT
from kgat.training import Config, Trainer, evaluate, fit, resolve_model, run


def make_task(y=None, *, nodes=60, classes=3, metric="accuracy", edge_dim=None, sparse=False):
    generator = torch.Generator().manual_seed(0)
    seed_everything(0)  # the graph is drawn by Python's and NumPy's generators
    edge_index = to_undirected(barabasi_albert_graph(nodes, 3))
    x = torch.randn(nodes, 5, generator=generator)
    if y is None:
        y = torch.randint(0, classes, (nodes,), generator=generator)
    part = torch.arange(nodes) % 3
    split = Split("mod-3", part == 0, part == 1, part == 2)
    edge_attr = None if edge_dim is None else torch.ones(edge_index.size(1), edge_dim)
    data = Data(x=x.to_sparse_csr() if sparse else x, edge_index=edge_index, y=y)
    if edge_attr is not None:
        data.edge_attr = edge_attr
    return Task("made", data, (split,), metric, classes, "made here", "none")


def make_config(model="gat", seed=0, **settings):
    settings = {"max_epochs": 20, "hidden_channels": 8, "heads": 2, **settings}
    return Config.of("made", model, seed, settings)


# Settings


def test_every_data_set_has_a_protocol():
    for name in datasets.names():
        assert Config.of(name, "gat").dataset == name


def test_protocols_name_data_sets_that_exist():
    listed = [name for table in training._protocols().values() for name in table.get("datasets", ())]
    assert len(listed) == len(set(listed))
    assert set(listed) <= set(datasets.names())


def test_default_protocol_is_complete():
    assert set(training._protocols()["default"]) == set(training.SETTINGS)


@pytest.mark.parametrize(
    ("name", "out_heads", "lr", "weight_decay"),
    [("Cora", 1, 0.005, 5e-4), ("citeseer", 1, 0.005, 5e-4), ("PubMed", 8, 0.01, 1e-3)],
)
def test_planetoid_protocol_is_that_of_the_gat_paper(name, out_heads, lr, weight_decay):
    config = Config.of(name, "gat")
    assert (config.num_layers, config.heads, config.hidden_channels) == (2, 8, 64)
    assert (config.dropout, config.input_dropout, config.act) == (0.6, 0.6, "elu")
    assert (config.patience, config.norm, config.residual) == (100, None, False)
    assert (config.out_heads, config.lr, config.weight_decay) == (out_heads, lr, weight_decay)


def test_unknown_setting_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"overrides.*got 'learning_rate'.*lr, weight_decay"):
        Config.of("Cora", "gat", overrides={"learning_rate": 1})
    text = "[default]\nlr = 1.0\n[Cora]\nlrr = 1.0\n"
    with pytest.raises(ValueError, match=r"\[Cora\] of 'my.toml'.*got 'lrr'.*lr, weight_decay"):
        training.read_protocols(text, "my.toml")


def test_protocols_that_are_no_protocols():
    with pytest.raises(ValueError, match=r"Expected TOML in 'my.toml'"):
        training.read_protocols("lr = ", "my.toml")
    with pytest.raises(ValueError, match=r"Expected a table \[default\]"):
        training.read_protocols("[Cora]\n", "my.toml")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("lr", "fast", "'lr' as a number"),
        ("lr", "0", "'lr' above 0"),
        ("lr", "nan", "'lr' above 0"),
        ("weight_decay", -1, "'weight_decay' of at least 0"),
        ("max_epochs", "2.5", "'max_epochs' as a whole number"),
        ("max_epochs", True, "'max_epochs' as a whole number"),
        ("patience", 0, "'patience' of at least 1"),
        ("dropout", 1, r"'dropout' in \[0, 1\)"),
        ("residual", "yes", "'residual' as true or false"),
        ("heads", 7, "'hidden_channels' divisible by 'heads=7'"),
        ("act", 3, "'act' as a name"),
    ],
)
def test_impossible_settings(name, value, message):
    with pytest.raises(ValueError, match=f"Expected {message}.*--set"):
        Config.of("Cora", "gat", overrides={name: value})


def test_settings_from_strings():
    overrides = {"lr": "1", "heads": "4", "residual": "True", "norm": "none", "act": "relu"}
    config = Config.of("chameleon_filtered", "gat", overrides=overrides)
    assert (config.lr, config.heads, config.residual) == (1.0, 4, True)
    assert (config.norm, config.act) == (None, "relu")


def test_key_is_that_of_the_settings():
    config = make_config()
    assert config.key == make_config().key
    assert len(config.key) == 16
    for change in ({"seed": 1}, {"lr": 0.1}, {"model": "rbf"}, {"dataset": "other"}):
        assert dataclasses.replace(config, **change).key != config.key


RESULTS = sorted(Path(__file__).resolve().parents[1].glob("results/*/results.jsonl"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.parent.name)
def test_published_runs_keep_their_keys(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    first = {line["model"]: line for line in reversed(lines) if line["kind"] == "run"}
    assert len(first) >= 5
    for record in first.values():
        assert Config(**record["config"]).key == record["key"]
        again = Config.of(record["dataset"], record["model"], record["seed"])
        assert (again.key, again.as_dict()) == (record["key"], record["config"])


def test_a_later_setting_counts_where_it_differs():
    config = make_config("rbf")
    spared = make_config("rbf", decay_kernels="false")
    assert "decay_kernels" not in config.as_dict()
    assert spared.as_dict() == {**config.as_dict(), "decay_kernels": False}
    assert spared.key != config.key
    for one in (config, spared):
        assert Config(**one.as_dict()) == one
    assert make_config("gat", decay_kernels=False) == make_config("gat")  # it has no kernel


# Models


@pytest.mark.parametrize(
    ("given", "name", "kwargs"),
    [
        ("GAT", "gat", {}),
        ("Dot Product", "dot", {"kernel": "DotProduct"}),
        ("sinc_product", "sinc", {"kernel": "SincProduct"}),
        ("agnn", "scaled_cosine", {"kernel": "ScaledCosine"}),
        ("rbf*l2", "rbf*l2", {"kernel": "RBF", "magnitude": 2.0}),
        ("RBF * L1.50", "rbf*l1.5", {"kernel": "RBF", "magnitude": 1.5}),
        ("rbf*l2.0000001", "rbf*l2.0000001", {"kernel": "RBF", "magnitude": 2.0000001}),
        ("spectral*lp", "spectral*lp", {"kernel": "Spectral", "magnitude": "learned"}),
        ("rbf*laplace", "rbf*laplace", {"kernel": "RBF * Laplace"}),
        ("rbf+dot", "rbf+dot", {"kernel": "RBF + DotProduct"}),
        ("rbf@separate", "rbf@separate", {"kernel": "RBF", "projections": "separate"}),
        (
            "RBF * laplace @ Shared-QK",
            "rbf*laplace@shared_qk",
            {"kernel": "RBF * Laplace", "projections": "shared_qk"},
        ),
        (
            "spectral[num_features=4]",
            "spectral[num_features=4]",
            {"kernel": "Spectral", "kernel_kwargs": {"num_features": 4}},
        ),
        (
            "IKAN[ Stationary = True, num-features=32 ] * L1.50",
            "implicit[num_features=32,stationary=true]*l1.5",
            {
                "kernel": "ImplicitSpectral",
                "kernel_kwargs": {"num_features": 32, "stationary": True},
                "magnitude": 1.5,
            },
        ),
        (
            "spectral[eps=0.0000001,init=official]*lp@shared",
            "spectral[init=official,eps=1e-07]*lp@shared",
            {
                "kernel": "Spectral",
                "kernel_kwargs": {"init": "official", "eps": 1e-7},
                "magnitude": "learned",
                "projections": "shared",
            },
        ),
        (
            "rbf[lengthscale=2.0]",
            "rbf[lengthscale=2]",
            {"kernel": "RBF", "kernel_kwargs": {"lengthscale": 2.0}},
        ),
        (
            "favor_plus[num_features=none]",
            "favor_plus[num_features=none]",
            {"kernel": "FAVORPlus", "kernel_kwargs": {"num_features": None}},
        ),
        (
            "additive_v2@separate",
            "additive_v2@separate",
            {"kernel": "AdditiveV2", "projections": "separate", "projection_bias": True},
        ),
    ],
)
def test_names_of_models(given, name, kwargs):
    model = resolve_model(given)
    assert (model.name, dict(model.kwargs)) == (name, kwargs)
    assert resolve_model(model.name) == model


def test_every_kernel_is_a_model_or_can_be_negative():
    built = {model.kwargs["kernel"] for model in training.MODELS.values() if model.kwargs}
    x = torch.randn(9, 1, 4)
    signed = {name for name in kernels.names() if kernels.resolve(name, 4)(x, x).signed}
    assert built == set(kernels.names()) - signed


@pytest.mark.parametrize(
    "name", ["", "*", "gta", "cosine", "rff", "rbf*", "gat*l2", "rbf*l0.5", "rbf+dot*l2"]
)
def test_unknown_models(name):
    with pytest.raises(ValueError, match=r"Expected .* model .*gat, gatv2|Expected an L"):
        resolve_model(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gat[negative_slope=0.1]", "name of a kernel before.*stock layers.*use gat$"),
        ("gatv2@separate", "name of a kernel before.*stock layers.*use gatv2$"),
        ("gta@separate", "name of a model .*choose from: gat, gatv2"),
        ("rbf@apart", r"projections after '@' .*choose from: shared, shared_qk, shared_kv, separate"),
        ("rbf@", "projections after '@'"),
        ("rbf@separate@shared", r"KERNEL\[ARGUMENT=VALUE,...\]\*lP@PROJECTIONS"),
        ("rbf@separate*l2", "projections after '@'"),
        ("rbf[lengthscale=1", "KERNEL"),
        ("rb[lengthscale=1]f", "KERNEL"),
        ("[lengthscale=1]", "name of a model"),
        ("rbf[]", "ARGUMENT=VALUE.*choose from: lengthscale$"),
        ("rbf[lengthscale]", "ARGUMENT=VALUE.*got 'lengthscale'"),
        ("rbf[lengthscale=]", "ARGUMENT=VALUE"),
        ("spectral[features=4]", "got 'features=4'.*choose from: num_features, stationary, init, eps$"),
        ("spectral[channels=4]", "got 'channels=4'"),
        ("spectral[num_features=4,num_features=8]", "each once .got 'num_features=8'"),
        ("dot[offset=1]", "DotProduct takes no arguments"),
        ("spectral[num_features=4.5]", r"a whole number .*spectral\[num_features=VALUE\]"),
        ("spectral[stationary=yes]", "true or false"),
        ("implicit[num_features=3]", "even, positive 'num_features'"),
        ("rbf*spectral[num_features=4]", "a single kernel"),
        ("spectral[num_features=4]*rbf", "a single kernel"),
        ("rbf[lengthscale=1]*l0.5", r"L\^p magnitude with p of at least 1"),
    ],
)
def test_arguments_and_projections_that_cannot_be(name, message):
    with pytest.raises(ValueError, match=f"Expected .*{message}"):
        resolve_model(name)


def test_arguments_that_let_a_kernel_be_negative(monkeypatch):
    class Shifted(kernels.Kernel):
        def __init__(self, channels, heads=1, shift: float = 0.0):
            super().__init__(channels, heads)
            self.shift = shift

        def lift(self, query, key):
            rule = kernels.spectral.ScoreRule(link=kernels.spectral.SIGNED) if self.shift else None
            return kernels.spectral.LazyGram.of(query, key, *([rule] if rule else []))

    monkeypatch.setattr(kernels, "Shifted", Shifted, raising=False)
    monkeypatch.setattr(kernels, "__all__", [*kernels.__all__, "Shifted"])
    monkeypatch.setitem(
        training.MODELS, "shifted", training.Model("shifted", KernelGAT, {"kernel": "Shifted"})
    )
    assert resolve_model("shifted[shift=0]").name == "shifted[shift=0]"
    with pytest.raises(ValueError, match=r"nowhere negative .got 'shifted.shift=1.'"):
        resolve_model("shifted[shift=1]")


def test_arguments_and_projections_reach_the_layers():
    config = make_config("implicit[num_features=4]*l1.5@shared_qk", projections="separate")
    assert config.model == "implicit[num_features=4]*l1.5@shared_qk"
    assert config.projections is None  # the name has its own
    for one in (config, dataclasses.replace(config, projections="separate")):
        for conv in training.build(make_task(), one).convs:
            assert (conv.projections, conv.magnitude) == ("shared_qk", 1.5)
            assert conv.kernel.parts[0].num_features == 4
    assert run(make_task(), config)["model"] == config.model


@pytest.mark.parametrize("name", [*training.MODELS, "rbf*lp", "laplace*l1.5", "rbf+dot"])
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
    assert first.curve == second.curve
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

    def validate(self):
        return next(self.left)


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
    monkeypatch.setattr(training, "Trainer", Script)
    monkeypatch.setattr(Script, "validation", validation)
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    config = make_config(patience=2, max_epochs=len(validation))
    fitted = fit(model, None, config)
    assert (fitted.best_epoch, fitted.epochs) == (best_epoch, epochs)
    assert fitted.val == validation[best_epoch - 1][1]
    assert float(model.weight) == best_epoch  # has the kept weights, not the last
    assert float(fitted.state["weight"]) == best_epoch


@pytest.mark.parametrize(("keep", "best_epoch"), [("both", 2), ("loss", 4), ("metric", 6), (None, 2)])
def test_keep_names_whose_weights_are_kept(monkeypatch, keep, best_epoch):
    # Epoch 4 has the lowest loss, 6 ties for the best metric, and 2 was the last to have both.
    validation = [(1.0, 0.5), (0.9, 0.6), (1.1, 0.7), (0.8, 0.6), (2.0, 0.1), (2.0, 0.7), (2.0, 0.1)]
    monkeypatch.setattr(training, "Trainer", Script)
    monkeypatch.setattr(Script, "validation", validation)
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    chosen = {} if keep is None else {"keep": keep}
    fitted = fit(model, None, make_config(patience=2, max_epochs=len(validation), **chosen))
    assert (fitted.best_epoch, fitted.epochs) == (best_epoch, len(validation))  # all stop alike
    assert fitted.val == validation[best_epoch - 1][1]
    assert float(model.weight) == best_epoch


def test_keep_is_one_of_three():
    with pytest.raises(ValueError, match=r"'keep' as one of both, loss, metric \(got last\).*--set keep="):
        make_config(keep="last")
    assert "keep" not in make_config().as_dict()
    assert make_config(keep="loss").key != make_config().key


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
    with pytest.raises(
        ValueError, match=r"'gat' on 'made', seed 0 \(got nan in epoch 1; .*'convs.1.lin' \(Linear"
    ):
        fit(model, task.visible(task.split(0)), config)


def test_divergence_is_an_error():
    with pytest.raises(ValueError, match=r"Expected a finite .* loss .* --set lr="):
        run(make_task(), make_config("rbf", lr=1e30))


def test_curve_is_short_and_has_both_ends():
    history = [(1.0 / (i + 1), 2.0, 0.5) for i in range(1234)]
    curve = training._curve(history)
    assert curve["epoch"][0] == 1
    assert curve["epoch"][-1] == 1234
    assert all(len(values) == 100 for values in curve.values())
    assert training._curve(history[:1])["epoch"] == [1]


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
    assert model.convs[0].magnitude == 2.0
