import dataclasses
import json
import sys

import pytest
import torch
from made_runs import make_cost
from made_tasks import make_task

from kgat import datasets
from kgat.experiments import compare as comparing
from kgat.experiments import costs, ledger, tables, training, tuning
from kgat.experiments.compare import compare
from kgat.experiments.config import Config
from kgat.experiments.ledger import Interrupted

FAST = {"max_epochs": 3, "hidden_channels": 8, "heads": 2}


@pytest.fixture
def trained(monkeypatch):
    r"""What was trained, in order; setting `stop_after` raises Ctrl-C there."""

    class Done(list):
        stop_after = None

    done = Done()

    def train(task, config, **kwargs):
        if done.stop_after == len(done):
            raise KeyboardInterrupt
        done.append((config.model, config.seed))
        return training.train(task, config, **kwargs)

    monkeypatch.setattr(comparing, "train", train)
    return done


class MadeModel(torch.nn.Linear):
    def __init__(self, in_channels, out_channels):
        super().__init__(in_channels, out_channels)

    def forward(self, x, edge_index):
        return super().forward(x)


def run(out, models=("gat", "rbf"), seeds=2, **kwargs):
    kwargs = {"rounds": 0, "figures": False, "overrides": FAST, **kwargs}
    return compare("karate", models, seeds, out, **kwargs)


def test_compare_trains_what_is_missing(tmp_path, trained):
    first = run(tmp_path)
    assert trained == [("gat", 0), ("rbf", 0), ("gat", 1), ("rbf", 1)]
    assert first == ledger.read(tmp_path / "results.jsonl")
    trained.clear()
    second = run(tmp_path, ("rbf", "GAT", "gat", "dot"), seeds=3)
    assert trained == [("dot", 0), ("dot", 1), ("rbf", 2), ("gat", 2), ("dot", 2)]
    assert second[:4] == first
    assert run(tmp_path, ("gat", "rbf", "dot"), seeds=3) == second


def test_compare_pairs_seeds(tmp_path):
    found = run(tmp_path, seeds=3)
    splits = datasets.load("karate").splits
    for record in found:
        assert record["split"] == splits[record["seed"]].name
        assert record["config"]["seed"] == record["seed"]
    assert len({record["key"] for record in found}) == 6


def test_compare_repeats_the_run_of_a_truncated_line(tmp_path, trained):
    run(tmp_path)
    path = tmp_path / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    trained.clear()
    with pytest.warns(UserWarning, match=r"unfinished"):
        found = run(tmp_path)
    assert trained == [("rbf", 1)]
    assert len(found) == len(ledger.read(path)) == 4


def test_runs_on_splits_that_have_changed_are_made_again(tmp_path, trained):
    run(tmp_path, ("gat",), 2)
    path = tmp_path / "results.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        if line["kind"] == "run" and line["seed"] == 1:
            line["split"] = "random-7"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    trained.clear()
    records = run(tmp_path, ("gat", "rbf"), 2)
    assert trained == [("rbf", 0), ("gat", 1), ("rbf", 1)]
    gat, rbf = tables.table(records)
    assert (gat.n, rbf.n, rbf.pairs) == (2, 2, 2)


def test_interrupt_keeps_what_is_done(tmp_path, trained):
    trained.stop_after = 3
    with pytest.raises(Interrupted, match=r"3 of 4 runs are kept in .*same command again") as caught:
        run(tmp_path)
    assert (caught.value.kept, caught.value.total) == (3, 4)
    trained.stop_after = None
    trained.clear()
    run(tmp_path)
    assert trained == [("rbf", 1)]


def test_compare_refuses_to_mix_settings(tmp_path):
    run(tmp_path)
    before = (tmp_path / "results.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"runs of 'gat' with lr=0.1 .*got lr=0.01.*--out"):
        run(tmp_path, overrides={**FAST, "lr": 0.1})
    assert (tmp_path / "results.jsonl").read_bytes() == before
    run(tmp_path, ("dot",), overrides={**FAST, "lr": 0.1})


def test_compare_checks_names_before_it_loads(tmp_path):
    out = tmp_path / "out"
    for wrong in ({"models": ("gat", "gta")}, {"seeds": 0}, {"models": ()}):
        with pytest.raises(ValueError, match=r"Expected"):
            run(out, **wrong)
    with pytest.raises(ValueError, match=r"choose from: digits"):
        compare("Corra", out=out)
    with pytest.raises(ValueError, match=r"'projections'.*stock layers"):
        run(out, ("gat", "gatv2"), overrides={"projections": "separate"})
    with pytest.raises(ValueError, match=r"'decay_kernels'.*stock layers"):
        run(out, ("gat",), overrides={"decay_kernels": False})
    with pytest.raises(ValueError, match=r"'projections'.*projections in a name"):
        run(out, ("gat", "rbf@shared"), overrides={"projections": "separate"})
    with pytest.raises(ValueError, match=r"Expected settings that exist"):
        run(out, overrides={"lrr": 1})
    with pytest.raises(ValueError, match=r"at least 2 settings"):
        run(out, tune=1)
    with pytest.raises(ValueError, match=r"at least one seed per setting"):
        run(out, tune=2, tune_seeds=0)
    with pytest.raises(ValueError, match=r"at most 3 settings of lr .got 4.*lower --tune"):
        run(out, overrides={**FAST, "weight_decay": 0, "dropout": 0, "input_dropout": 0}, tune=4)
    assert not out.exists()


def test_compare_into_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PermissionError, match=r"Expected a folder that can be written .*--out"):
        run(tmp_path / "file")


def test_compare_draws_one_model_of_each_name(tmp_path, trained):
    found = run(tmp_path, figures=True)
    attention = [record for record in found if record["kind"] == "attention"]
    runs = {record["key"]: record for record in found if record["kind"] == "run"}
    assert [record["model"] for record in attention] == ["gat", "rbf"]
    assert all(runs[record["key"]]["seed"] == 0 for record in attention)
    assert (tmp_path / "report.html").stat().st_size > 1000
    assert (tmp_path / "karate-accuracy.png").exists()

    # A record of attention that was lost is made again, without another record of its run.
    lines = (tmp_path / "results.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["kind"] != "attention"]
    (tmp_path / "results.jsonl").write_text("".join(kept))
    trained.clear()
    again = run(tmp_path, figures=True)
    assert trained == [("gat", 0), ("rbf", 0)]
    assert sorted(map(str, again)) == sorted(map(str, found))


def test_runs_at_once_give_the_same_records(tmp_path):
    files = []
    for jobs in (1, 2):
        found = compare(
            *("karate", ["rbf", "gat"], 2, tmp_path / str(jobs)),
            overrides=FAST,
            rounds=0,
            figures=False,
            jobs=jobs,
            tune=2,
            tune_seeds=1,
        )
        volatile = {"seconds", "epoch_seconds", "date"}
        files.append([{k: v for k, v in record.items() if k not in volatile} for record in found])
    assert files[0] == files[1]


def test_costs_of_runs_at_once_are_measured_apart_in_one_way_for_all(warm_workers, tmp_path):
    models = {"gat": "gat", "mine": MadeModel}
    found = compare(make_task(), models, 1, tmp_path, overrides=FAST, rounds=2, figures=False, jobs=2)
    cost = found[-1]
    assert list(cost["models"]) == ["gat", "mine"]
    if sys.platform == "linux":
        assert cost["allocator"] == "recycling"
        assert all(entry["peak_bytes"] is not None for entry in cost["models"].values())
        assert "for all models alike" in tables.allocator_line(found)
    (alone,) = (r for r in run(tmp_path / "one", rounds=2, seeds=1) if r["kind"] == "cost")
    assert "allocator" not in alone
    assert tables.allocator_line([alone]) == ""


def test_an_error_in_one_of_the_runs_at_once_arrives(tmp_path):
    overrides = {**FAST, "lr": 1e30}
    with pytest.raises(ValueError, match="finite"):
        compare("karate", ["gat"], 2, tmp_path, overrides=overrides, rounds=0, figures=False, jobs=2)


# Tuning


def searched(config):
    return {name: config[name] for name in tuning.SPACE}


def test_all_models_get_the_same_settings_in_the_same_order(tmp_path):
    models = ("gat", "rbf", "dot@separate")
    found = run(tmp_path, models, tune=4, tune_seeds=2)
    assert found == ledger.read(tmp_path / "results.jsonl")
    trials = [record for record in found if record["kind"] == "tune"]
    assert len(trials) == 3 * 4 * 2
    assert found[: len(trials)] == trials
    # In turns: a search that is stopped has given all models as much.
    assert [record["model"] for record in trials] == [model for model in models * 4 for _ in range(2)]
    given = {
        model: [(record["seed"], searched(record["config"])) for record in trials if record["model"] == model]
        for model in models
    }
    assert given["gat"] == given["rbf"] == given["dot@separate"]
    settings = [setting for _, setting in given["gat"]]
    assert settings[0::2] == settings[1::2]
    protocol = Config.of("karate", "gat").as_dict()
    assert settings[0] == searched(protocol)
    assert len({str(setting) for setting in settings}) == 4
    for setting in settings[2:]:
        assert all(setting[name] in values for name, values in tuning.SPACE.items())
    # Nothing but the settings that are searched differs, and no run has the seed of a trial.
    for record in trials:
        rest = {name: value for name, value in record["config"].items() if name not in tuning.SPACE}
        expected = Config.of("karate", record["model"], record["seed"], FAST).as_dict()
        assert rest == {name: value for name, value in expected.items() if name not in tuning.SPACE}
    runs = [record for record in found if record["kind"] == "run"]
    assert {record["seed"] for record in runs}.isdisjoint(record["seed"] for record in trials)
    assert len({record["key"] for record in found}) == len(found)


def test_a_larger_budget_begins_with_a_smaller():
    drawn = tuning.Budget(30).drawn("Cora")
    assert tuning.Budget(5).drawn("Cora") == drawn[:5]
    # That of another data set is the same but for its protocol.
    other = tuning.Budget(30).drawn("Wisconsin")
    assert [point for point in drawn[:29] if point not in other] == []
    assert len(tuning.Budget(82).drawn("Cora")) == 82
    with pytest.raises(ValueError, match="at most 82 settings of lr, weight_decay, dropout, input_dropout"):
        tuning.Budget(83).drawn("Cora")
    # What is given is not searched.
    points = tuning.Budget(5).drawn("Cora", {"lr": "0.1", "decay_kernels": "false"})
    assert all("lr" not in point for point in points)
    (first, *_), *_ = tuning.Budget(2).configs("Cora", "rbf", {"lr": "0.1", "decay_kernels": "false"})
    assert (first.lr, first.decay_kernels, first.dropout) == (0.1, False, 0.6)


def one_split(flipped=False):
    r"""Karate with one split; its test labels may be wrong."""
    task = datasets.load("karate")
    split = task.splits[0]
    data = task.data.clone()
    if flipped:
        data.y[split.test] = 1 - data.y[split.test]
    return dataclasses.replace(task, data=data, splits=(split,))


@pytest.mark.parametrize("budget", [{"tune": 6, "tune_seeds": 2}, {"trials": 3, "tune_seeds": 1}])
def test_tuning_never_sees_a_test_label(tmp_path, monkeypatch, budget):
    asked = []
    score = datasets.Task.score

    def counted(self, output, split, part):
        asked.append(part)
        return score(self, output, split, part)

    monkeypatch.setattr(datasets.Task, "score", counted)
    parts = []
    trial = tuning.trial

    def watched(*args, **kwargs):
        before = len(asked)
        record = trial(*args, **kwargs)
        parts.extend(asked[before:])
        return record

    monkeypatch.setattr(tuning, "trial", watched)
    kwargs = {"overrides": {**FAST, "max_epochs": 20}, "rounds": 0, "figures": False, **budget}
    models = ["gat", "dot"] if "tune" in budget else ["gat", "kernel{dot,rbf}"]
    volatile = ("seconds", "epoch_seconds", "date")
    trials, chosen, tests = [], [], []
    for flipped in (False, True):
        found = compare(one_split(flipped), models, 2, tmp_path / str(flipped), **kwargs)
        trials.append(
            [{k: v for k, v in r.items() if k not in volatile} for r in found if r["kind"] == "tune"]
        )
        chosen.append([r["config"] for r in found if r["kind"] == "run"])
        tests.append([r["test"] for r in found if r["kind"] == "run"])
    assert parts == []
    assert asked.count("test") == 2 * 4  # once per run
    assert len(trials[0]) == (24 if "tune" in budget else 6)
    assert trials[0] == trials[1]
    assert all("test" not in record and "train" not in record for record in trials[0])
    assert chosen[0] == chosen[1]
    assert tests[1] == pytest.approx([1 - score for score in tests[0]])


def test_the_score_of_a_trial_is_that_of_the_kept_epoch():
    task = datasets.load("karate")
    config = Config.of("karate", "rbf", 2, FAST)
    record = tuning.trial(task, config)
    expected = training.run(task, config)
    for name in ("val", "best_epoch", "epochs", "config", "split", "dataset", "model", "seed", "metric"):
        assert record[name] == expected[name]
    assert record["key"] != expected["key"]


BUDGET = tuning.Budget(3, seeds=2)


def make_trials(model, *scores):
    configs = [config for configs in BUDGET.configs("made", model) for config in configs]
    return [
        {"kind": "tune", "key": tuning.key(config), "val": val}
        for config, val in zip(configs, scores, strict=True)
    ]


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([0.5, 0.5, 0.9, 0.2, 0.6, 0.6], 2),  # by the mean, not by the best seed
        ([0.5, 0.5, 0.6, 0.6, 0.5, 0.6], 1),
        ([0.5, 0.7, 0.6, 0.6, 0.7, 0.5], 0),  # the first of equal ones
        ([None, 0.9, 0.2, 0.2, 0.3, None], 1),  # one that diverged is out
        ([None, 0.9, 0.0, 0.0, 0.3, None], 1),
    ],
)
def test_choice_by_hand(scores, best):
    others = [{"kind": "run", "key": "x", "val": 1.0, "test": 1.0}, *make_trials("dot", *[1.0] * 6)]
    trials = make_trials("gat", *scores)
    settings = BUDGET.drawn("made")
    assert tuning.choose([*others, *trials], "made", "gat", BUDGET) == settings[best]


def test_no_choice():
    with pytest.raises(ValueError, match="finite loss of 'gat' on 'made' with one of the 3 settings"):
        tuning.choose(make_trials("gat", None, 0.5, None, None, 0.5, None), "made", "gat", BUDGET)


def test_a_trial_that_diverges_is_kept_as_such(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tuning, "SPACE", {"lr": (1e30,)})
    found = run(tmp_path, ("rbf",), seeds=1, tune=2, tune_seeds=1, progress=True)
    assert [record["val"] is None for record in found] == [False, True, False]
    assert "2/3 trial of rbf, seed 1000000: diverged" in capsys.readouterr().err
    assert found[2]["config"]["lr"] == 0.01
    assert run(tmp_path, ("rbf",), seeds=1, tune=2, tune_seeds=1) == found


@pytest.fixture
def tried(monkeypatch):
    r"""What was tried, in order: the second setting suits rbf, the first all others."""

    class Done(list):
        stop_after = None

    done = Done()
    second = tuning.Budget(3).drawn("karate")[1]

    def trial(task, config, **kwargs):
        if done.stop_after == len(done):
            raise KeyboardInterrupt
        done.append((config.model, config.lr, config.seed))
        is_second = all(getattr(config, name) == value for name, value in second.items())
        val = 0.9 if is_second == (config.model == "rbf") else 0.1
        return tuning_trial(task, config, **kwargs) | {"val": val}

    tuning_trial = tuning.trial
    monkeypatch.setattr(tuning, "trial", trial)
    return done


TUNED = {"tune": 3, "tune_seeds": 2}


def test_runs_have_the_settings_that_were_chosen(tmp_path, tried):
    found = run(tmp_path, ("gat", "rbf"), **TUNED)
    assert len(tried) == 12
    runs = [record for record in found if record["kind"] == "run"]
    protocol = searched(Config.of("karate", "gat").as_dict())
    expected = {"gat": protocol, "rbf": tuning.Budget(3).drawn("karate")[1]}
    assert [(record["model"], record["seed"]) for record in runs] == [
        ("gat", 0), ("rbf", 0), ("gat", 1), ("rbf", 1),
    ]  # fmt: skip
    for record in runs:
        assert searched(record["config"]) == expected[record["model"]]
        assert record["key"] == Config.from_dict(record["config"]).key
        space = {name: list(values) for name, values in tuning.SPACE.items()}
        assert record["tuned"] == {"settings": 3, "seeds": 2, "space": space}
    line = tables.tuning_line(runs)
    assert "every model had the same 3 settings" in line
    assert "grid lr 0.005, 0.01 or 0.02; weight_decay 0, 0.0005 or 0.005; dropout" in line
    assert "each trained with 2 seeds" in line
    assert "chose: `gat` lr 0.01, weight_decay 0.0005, dropout 0.3, input_dropout 0.1; `rbf` lr " in line


def test_tuning_goes_on_where_it_stopped(tmp_path, tried, trained):
    whole = run(tmp_path / "whole", **TUNED)
    order = list(tried)
    tried.clear()
    trained.clear()
    tried.stop_after = 5
    with pytest.raises(Interrupted, match=r"5 of 16 runs are kept") as caught:
        run(tmp_path / "part", **TUNED)
    assert (caught.value.kept, caught.value.total) == (5, 16)
    assert (list(tried), list(trained)) == (order[:5], [])
    tried.stop_after = None
    trained.stop_after = 3
    with pytest.raises(Interrupted, match=r"15 of 16 runs are kept"):
        run(tmp_path / "part", **TUNED)
    assert list(tried) == order
    trained.stop_after = None
    trained.clear()
    found = run(tmp_path / "part", **TUNED)
    assert (list(tried), list(trained)) == (order, [("rbf", 1)])
    assert [record["key"] for record in found] == [record["key"] for record in whole]
    # Another seed, another model: their part alone.
    tried.clear()
    trained.clear()
    run(tmp_path / "part", ("gat", "rbf", "dot"), seeds=3, **TUNED)
    assert {model for model, _, _ in tried} == {"dot"}
    assert len(tried) == 6
    assert sorted(trained) == [("dot", 0), ("dot", 1), ("dot", 2), ("gat", 2), ("rbf", 2)]


def test_a_folder_holds_runs_of_one_budget(tmp_path, tried):
    run(tmp_path / "plain", seeds=1)
    run(tmp_path / "tuned", seeds=1, **TUNED)
    tried.clear()
    for folder, models, kwargs, message in [
        ("plain", ("gat", "rbf"), TUNED, r"tuned over 3 settings .*got one of 'gat' without tuning"),
        ("plain", ("dot",), TUNED, r"tuned over 3 .*without tuning"),
        ("tuned", ("gat", "rbf"), {}, r"without tuning .*'gat' tuned over 3 settings × 2 seeds of lr, "),
        ("tuned", ("dot",), {}, r"without tuning .*tuned over"),
        ("tuned", ("gat",), {"tune": 4, "tune_seeds": 2}, r"tuned over 4 settings"),
        ("tuned", ("gat",), {"tune": 3, "tune_seeds": 1}, r"× 1 seeds"),
        # Said before anything is tried.
        (
            "tuned",
            ("gat",),
            {**TUNED, "overrides": {**FAST, "patience": 7}},
            "of 'gat' with patience=7 .*=30",
        ),
        (
            "tuned",
            ("gat",),
            {**TUNED, "overrides": {**FAST, "lr": 0.1}},
            r"2 seeds of weight_decay, dropout",
        ),
    ]:
        before = (tmp_path / folder / "results.jsonl").read_bytes()
        with pytest.raises(ValueError, match=f"Expected runs .*{message}.*--out"):
            run(tmp_path / folder, models, **kwargs)
        assert (tmp_path / folder / "results.jsonl").read_bytes() == before
    assert tried == []


def test_compare_refuses_other_decay(tmp_path):
    run(tmp_path)
    with pytest.raises(ValueError, match=r"runs of 'rbf' with decay_kernels=False .*got decay_kernels=True"):
        run(tmp_path, overrides={**FAST, "decay_kernels": False})
    run(tmp_path, ("gat", "dot"), overrides={**FAST, "decay_kernels": False})
    with pytest.raises(ValueError, match=r"runs of 'dot' with decay_kernels=True .*got decay_kernels=False"):
        run(tmp_path, ("gat", "dot"))


def test_progress_says_what_is_going_on(tmp_path, capsys):
    run(tmp_path, progress=True)
    shown = capsys.readouterr().err
    assert "karate" in shown
    assert "4/4 rbf, seed 1: 3 epochs" in shown


def test_cost_has_the_settings_of_kernel_models(tmp_path, monkeypatch):
    asked = []

    def build(task, config):
        asked.append((config.model, config.projections, config.decay_kernels))
        return training.build(task, config)

    monkeypatch.setattr(costs, "build", build)
    monkeypatch.setattr(costs, "_peaks", lambda *args: {})
    overrides = {**FAST, "projections": "separate", "decay_kernels": False}
    found = run(tmp_path, ("gat", "rbf@shared", "dot"), seeds=1, overrides=overrides, rounds=2)
    assert asked == [("gat", None, True), ("rbf@shared", None, False), ("dot", "separate", False)]
    assert "tuned" not in found[-1]


def test_cost_is_measured_once(tmp_path, monkeypatch):
    asked = []

    def cost(task, config, models, rounds, **kwargs):
        asked.append(list(models))
        return make_cost("karate", **dict.fromkeys(models, (1.0, None)))

    monkeypatch.setattr(comparing, "measure_cost", cost)
    run(tmp_path, rounds=3)
    run(tmp_path, rounds=3)
    assert asked == [["gat", "rbf"]]
    run(tmp_path, ("gat", "dot"), rounds=3)
    assert asked == [["gat", "rbf"], ["gat", "dot"]]


def test_runs_under_another_rule_for_the_weights_are_not_mixed(tmp_path):
    settings = {"max_epochs": 2, "hidden_channels": 8, "heads": 2}
    given = {"seeds": 1, "out": tmp_path, "rounds": 0, "figures": False}
    compare(make_task(), ["gat"], overrides={**settings, "keep": "both"}, **given)
    with pytest.raises(
        ValueError, match=r"keep=metric in '.*results.jsonl' .got 'gat' with keep=both.; choose"
    ):
        compare(make_task(), ["rbf"], overrides=settings, **given)


def test_what_python_passes_is_checked_with_a_sentence(tmp_path):
    graph = datasets.load("karate").data
    with pytest.raises(TypeError, match=r"name of a data set or a Task \(got Data\); wrap a graph .*Task\("):
        compare(graph, ["gat"], out=tmp_path / "out")
    for wrong in (3, None):
        with pytest.raises(TypeError, match=r"Expected a model: a name, a class or a factory \(got"):
            compare(datasets.load("karate"), ["gat", wrong], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert len(run(tmp_path, "gat", seeds=1)) == 1  # one name alone


def test_the_least_error_is_chosen():
    trials = [{**trial, "metric": "rmse"} for trial in make_trials("gat", 9.0, 9.0, 3.0, 4.0, 5.0, 5.0)]
    assert tuning.choose(trials, "made", "gat", BUDGET) == BUDGET.drawn("made")[1]


def test_trials_by_one_metric_choose_nothing_for_another(tmp_path):
    options = {
        "models": "gat",
        "seeds": 1,
        "rounds": 0,
        "tune": 2,
        "tune_seeds": 1,
        "overrides": {"max_epochs": 2},
    }
    compare("karate", out=tmp_path / "all", **options)
    tried = [r for r in ledger.read(tmp_path / "all" / "results.jsonl") if r["kind"] == "tune"]
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "results.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in tried))
    with pytest.raises(ValueError, match=r"scored by f1_macro in .*scored by accuracy"):
        compare("karate", out=tmp_path / "cut", metric="f1_macro", **options)


@pytest.mark.parametrize("task_of", [lambda task: task, datasets.link_task], ids=["nodes", "links"])
def test_data_of_one_name_are_not_taken_for_each_other(task_of, tmp_path):
    # Also where nobody gave them a digest.
    one, other = make_task(), make_task(nodes=61)
    compare(task_of(one), ["rbf"], seeds=1, out=tmp_path, overrides=FAST, figures=False)
    with pytest.raises(ValueError, match=r"Expected runs on the same data .*choose another --out"):
        compare(task_of(other), ["rbf"], seeds=1, out=tmp_path, overrides=FAST, figures=False)
