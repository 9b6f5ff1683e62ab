import dataclasses
import json
from pathlib import Path

import pytest
from made_tasks import make_config

from kgat import datasets
from kgat.experiments import config as settings
from kgat.experiments.config import KEEP, SETTINGS, Config, differing, protocol, read_protocols, stored

pytestmark = pytest.mark.quick


def test_every_data_set_has_a_protocol():
    for name in datasets.names():
        assert Config.of(name, "gat").dataset == name


def test_protocols_name_data_sets_that_exist():
    listed = [name for table in settings._protocols().values() for name in table.get("datasets", ())]
    assert len(listed) == len(set(listed))
    assert set(listed) <= set(datasets.names())


def test_default_protocol_is_complete():
    assert set(settings._protocols()["default"]) == set(SETTINGS)


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
        read_protocols(text, "my.toml")


def test_protocols_that_are_no_protocols():
    with pytest.raises(ValueError, match=r"Expected TOML in 'my.toml'"):
        read_protocols("lr = ", "my.toml")
    with pytest.raises(ValueError, match=r"Expected a table \[default\]"):
        read_protocols("[Cora]\n", "my.toml")


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
    one = make_config()
    assert one.key == make_config().key
    assert len(one.key) == 16
    for change in ({"seed": 1}, {"lr": 0.1}, {"model": "rbf"}, {"dataset": "other"}):
        assert dataclasses.replace(one, **change).key != one.key


RESULTS = sorted(Path(__file__).resolve().parents[2].glob("results/*/results.jsonl"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.parent.name)
def test_published_runs_keep_their_keys(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    first = {line["model"]: line for line in reversed(lines) if line["kind"] == "run"}
    assert len(first) >= 5
    for record in first.values():
        assert Config.from_dict(record["config"]).key == record["key"]
        # Some were made when the protocol kept other weights; nothing else has changed since.
        kept = {"keep": stored(record["config"], "keep")}
        again = Config.of(record["dataset"], record["model"], record["seed"], kept)
        assert (again.key, again.as_dict()) == (record["key"], record["config"])


def test_a_later_setting_counts_where_it_differs():
    config = make_config("rbf")
    spared = make_config("rbf", decay_kernels="false")
    assert "decay_kernels" not in config.as_dict()
    assert spared.as_dict() == {**config.as_dict(), "decay_kernels": False}
    assert spared.key != config.key
    for one in (config, spared):
        assert Config.from_dict(one.as_dict()) == one
    assert make_config("gat", decay_kernels=False) == make_config("gat")  # it has no kernel


def test_keep_is_one_of_three():
    with pytest.raises(ValueError, match=r"'keep' as one of both, loss, metric \(got last\).*--set keep="):
        make_config(keep="last")
    assert len({make_config(keep=keep).key for keep in KEEP}) == 3


def test_what_a_record_does_not_say_is_what_stood_before():
    # The default has changed since: a record without the setting was made with the old one.
    assert make_config().keep == "metric"
    assert make_config().as_dict()["keep"] == "metric"
    both = make_config(keep="both")
    assert "keep" not in both.as_dict()
    assert Config.from_dict(both.as_dict()) == both
    assert differing(both.as_dict(), make_config().as_dict()) == [("keep", "both", "metric")]


def test_the_paper_of_gat_keeps_its_rule_and_nothing_else_does():
    tables = settings._protocols()
    named = {name for table in tables.values() for name in table.get("datasets", ())}
    kept = {name: protocol(name)["keep"] for name in (*named, "any other")}
    assert {name: keep for name, keep in kept.items() if keep != "metric"} == {
        "Cora": "both",
        "CiteSeer": "both",
        "PubMed": "loss",
    }


def test_start_is_that_of_kernel_models():
    unit = make_config("rbf", start="unit")
    assert "start" not in make_config("rbf").as_dict()
    assert make_config("rbf", start="none") == make_config("rbf")
    assert unit.as_dict()["start"] == "unit"
    assert unit.key != make_config("rbf").key
    assert make_config("gat", start="unit") == make_config("gat")
    with pytest.raises(ValueError, match=r"'start' as one of none, unit, median \(got two\).*--set start="):
        make_config("rbf", start="two")


def test_settings_of_tuned_stacks_are_of_all_models_that_can_have_them():
    changes = {"pre_linear": "true", "jk": "last", "add_self_loops": "false", "attention_dropout": "0"}
    changes |= {"kernel_lr": "0.1", "norm": "layer_norm[mode=node]"}
    values = {"pre_linear": True, "jk": "last", "add_self_loops": False, "attention_dropout": 0.0}
    values |= {"kernel_lr": 0.1, "norm": "layer_norm[mode=node]"}
    for name in ("gat", "gatv2", "rbf"):
        config, before = make_config(name, **changes), make_config(name)
        assert {key: config.as_dict()[key] for key in values} == values
        assert before.as_dict().keys() & values.keys() == {"norm"}  # runs from before keep their keys
        assert Config.from_dict(config.as_dict()) == config
    assert make_config("gcn", **changes) == make_config("gcn", **{**changes, "kernel_lr": 1.0})
    assert make_config("mlp", add_self_loops=False) == make_config("mlp")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("jk", "sum", "'jk' as one of none, last, cat, max, lstm"),
        ("attention_dropout", 1, r"'attention_dropout' in \[0, 1\), or none"),
        ("position_dim", 0, "'position_dim' of at least 1, or none"),
        ("kernel_lr", -1, "'kernel_lr' of at least 0"),
        ("kernel_lr", "nan", "'kernel_lr' of at least 0"),
        ("pre_linear", "yes", "'pre_linear' as true or false"),
        ("add_self_loops", 1, "'add_self_loops' as true or false"),
    ],
)
def test_impossible_settings_of_tuned_stacks(name, value, message):
    with pytest.raises(ValueError, match=f"Expected {message}.*--set"):
        make_config("rbf", **{name: value})
