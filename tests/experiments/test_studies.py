import math
import random
import statistics

import pytest
from made_runs import make_run
from made_tasks import make_graph_task, make_task

from kgat.datasets import load
from kgat.experiments import compare as comparing
from kgat.experiments import ledger, studies, tables, tuning
from kgat.experiments.compare import compare
from kgat.experiments.config import Config
from kgat.experiments.families import families
from kgat.experiments.ledger import Interrupted
from kgat.experiments.pruner import LEAST, STEPS
from kgat.experiments.space import read_space
from kgat.experiments.studies import AT_RANDOM, Study, Trials
from kgat.names import shown

MODELS = ("gat", "gatv2", "kernel{rbf,dot,laplace}")
FAMILY = ["rbf", "dot", "laplace"]
BUDGET = {"trials": 9, "tune_seeds": 2}


@pytest.fixture
def scripted(monkeypatch):
    r"""What was tried and trained, in order, without training: four narrow heads suit all models, and dot
    suits the kernels; setting `stop_after` raises Ctrl-C there."""

    class Done(list):
        stop_after = None

        def add(self, *what):
            if self.stop_after == len(self):
                raise KeyboardInterrupt
            self.append(what)

    done = Done()

    def trial(task, config, **kwargs):
        done.add("trial", config.model, config.seed)
        split = task.split(config.seed).name
        record = make_run(config.model, config.seed, 0.0, dataset=task.name, split=split)
        del record["test"], record["train"], record["key"]
        narrow = abs(math.log2(config.hidden_channels / 32)) + abs(config.heads - 4)
        val = 0.9 - 0.05 * narrow - 0.1 * abs(math.log10(config.lr / 0.01)) + 0.05 * (config.model == "dot")
        val = None if config.num_layers == done.diverges else val + 1e-3 * (config.seed % 2)
        return record | {"kind": "tune", "val": val, "epochs": 1, "seconds": 0.1, "config": config.as_dict()}

    def train(task, config, **kwargs):
        done.add("run", config.model, config.seed)
        split = task.split(config.seed).name
        record = make_run(config.model, config.seed, 0.5, dataset=task.name, split=split)
        return record | {"config": config.as_dict(), "epochs": 1, "seconds": 0.1}, None

    done.diverges = None
    monkeypatch.setattr(tuning, "trial", trial)
    monkeypatch.setattr(comparing, "train", train)
    return done


def run(out, models=MODELS, seeds=2, **kwargs):
    return compare("karate", models, seeds, out, rounds=0, figures=False, **{**BUDGET, **kwargs})


def trials_of(records, model):
    r"""The settings of the trials of a model, in their order, each with the model that it was of."""
    of_model = [r for r in records if r["kind"] == "tune" and r["model"] == model]
    assert [(r["trial"], r["seed"]) for r in of_model] == [
        (number, tuning.FIRST_SEED + seed) for number in range(len(of_model) // 2) for seed in range(2)
    ]
    assert [r["setting"] for r in of_model[0::2]] == [r["setting"] for r in of_model[1::2]]
    return [(r["config"]["model"], r["setting"]) for r in of_model[0::2]]


def test_models_and_families_have_the_same_number_of_trials(tmp_path, scripted):
    records = run(tmp_path)
    assert records == ledger.read_results(tmp_path / "results.jsonl")
    assert len({record["key"] for record in records}) == len(records) == 3 * (9 * 2 + 2)
    tried = {name: trials_of(records, name) for name in ("gat", "gatv2", "kernel")}
    assert {len(of_model) for of_model in tried.values()} == {9}
    # In turns: a search that is stopped has given all of them the same.
    order = [record["model"] for record in records if record["kind"] == "tune"]
    assert order == ["gat", "gat", "gatv2", "gatv2", "kernel", "kernel"] * 9
    space = read_space()
    of_stock = {name for name in space if "." not in name} - {"projections", "start", "decay_kernels"}
    of_kernels = {name for name in space if "." not in name}
    searched = {("gat", None): of_stock, ("gatv2", None): of_stock, ("kernel", "dot"): of_kernels}
    for member in ("rbf", "laplace"):
        searched["kernel", member] = of_kernels | {f"{member}.lengthscale"}
    for name, of_model in tried.items():
        assert of_model[0] == ({"kernel": "rbf"}.get(name, name), {})  # the protocol
        for _, setting in of_model[1:]:
            assert set(setting) - {"model"} == searched[name, setting.get("model")]
            assert all(value in space[n] for n, value in setting.items() if n != "model")
        assert len({str(setting) for _, setting in of_model}) == 9
    members = {setting.get("model", "rbf") for _, setting in tried["kernel"]}
    assert members == set(FAMILY)
    assert any("[lengthscale=" in member for member, _ in tried["kernel"])
    # Those that are drawn at random are the same for all, those that are suggested differ.
    shared = [
        [{k: v for k, v in s.items() if k in of_stock} for _, s in of_model] for of_model in tried.values()
    ]
    assert shared[0][:AT_RANDOM] == shared[1][:AT_RANDOM] == shared[2][:AT_RANDOM]
    assert shared[0] == shared[1]  # they scored the same
    assert shared[0] != shared[2]


def test_runs_have_the_settings_with_the_best_mean_score(tmp_path, scripted):
    records = run(tmp_path)
    for name in ("gat", "gatv2", "kernel"):
        scores = {}
        for record in records:
            if record["kind"] == "tune" and record["model"] == name:
                scores.setdefault(record["trial"], []).append(record["val"])
        best = max(scores, key=lambda number: sum(scores[number]))
        member, setting = trials_of(records, name)[best]
        runs = [record for record in records if record["kind"] == "run" and record["model"] == name]
        assert [record["seed"] for record in runs] == [0, 1]
        for record in runs:
            settings = {n: value for n, value in setting.items() if n != "model"}
            assert record["config"] == Config.of("karate", member, record["seed"], settings).as_dict()
            assert record.get("family") == (FAMILY if name == "kernel" else None)
            assert (record["key"] == Config.from_dict(record["config"]).key) == (name != "kernel")
            assert (record["tuned"]["settings"], record["tuned"]["seeds"]) == (9, 2)
    assert member == "dot"
    text = tables.readme_tables(tmp_path)
    assert "**karate, 9 trials × 2.**" in text
    assert "| `kernel: dot` |" in text
    assert "every model had 9 trials, the protocol first, then what Optuna's TPE sampler" in text
    assert "suggested of lr 0.001..0.05 (log); weight_decay 0, 5e-05, 0.0005 or 0.005; dropout 0..0.8" in text
    assert "`kernel` `dot` (of rbf, dot, laplace), lr 0.0" in text


def lean(records):
    return [{name: value for name, value in r.items() if name not in ("date", "seconds")} for r in records]


@pytest.mark.parametrize("draw", range(2))
def test_after_a_kill_the_suggestions_are_the_same(tmp_path, scripted, draw):
    whole = run(tmp_path)
    path = tmp_path / "results.jsonl"
    content = path.read_bytes()
    # A killed process leaves half a line at most.
    path.write_bytes(content[: random.Random(draw).randrange(1, len(content) * 9 // 10)])
    with pytest.warns(UserWarning, match="unfinished last line") if path.read_bytes()[-1:] != b"\n" else []:
        assert lean(run(tmp_path)) == lean(whole)


def test_trials_go_on_where_they_stopped(tmp_path, scripted):
    whole = run(tmp_path / "whole")
    order = list(scripted)
    for stop in (17, 55):
        scripted.clear()
        scripted.stop_after = stop
        with pytest.raises(Interrupted, match=f"{stop} of 60 runs are kept"):
            run(tmp_path / str(stop))
        scripted.stop_after = None
        assert lean(run(tmp_path / str(stop))) == lean(whole)
        assert list(scripted) == order  # nothing twice
    scripted.clear()
    run(tmp_path / "whole", ("gat", "dot"), seeds=3)  # another model, another seed: their part alone
    assert [what for what in scripted if what[1] == "gat"] == [("run", "gat", 2)]
    assert len(scripted) == 1 + 9 * 2 + 3


def study(task=None, model="gat", overrides=None, search=None, **budget):
    (family,), _ = families(model)
    budget = {"settings": 9, "seeds": 1, "space": read_space(search), **budget}
    return Study(task or make_task(), family, Trials(**budget), overrides or {})


def tell(of_study, numbers, score):
    r"""Records of trials by hand."""
    records = []
    for number in numbers:
        trial = of_study.trial(records, number)
        for config in trial.configs:
            val = score(number, config)
            mark = of_study.mark(trial, config)
            record = {"kind": "tune", "model": config.model, "seed": config.seed, "config": config.as_dict()}
            records.append({**record, **mark, "val": val})
    return records


def test_suggestions_follow_the_scores():
    one, other = (study().trial(tell(study(), range(8), score), 8) for score in (
        lambda number, config: 0.5 + 0.01 * config.heads,
        lambda number, config: 0.5 - 0.01 * config.heads,
    ))  # fmt: skip
    assert one.setting != other.setting
    # Those of a larger budget begin with those of a smaller one.
    records = tell(study(), range(8), lambda number, config: 0.5)
    assert study(settings=30).trial(records, 8) == study().trial(records, 8)
    assert study(seeds=2).records(records) == study(search={"heads": "1,2"}).records(records) == {}
    assert study(overrides={"patience": 3}).records(records) == {}


@pytest.mark.parametrize(
    ("metric", "scores", "best"),
    [
        ("accuracy", [0.5, 0.9, 0.7], 1),
        ("accuracy", [0.5, 0.7, 0.7], 1),  # the first of equal ones
        ("accuracy", [0.5, None, 0.4], 0),  # one that diverged is out
        ("rmse", [0.5, 0.9, 0.3], 2),  # the least error
    ],
)
def test_choice_by_hand(metric, scores, best):
    task = make_graph_task("rmse") if metric == "rmse" else make_task()
    of_study = study(task, settings=3)
    records = tell(of_study, range(3), lambda number, _: scores[number])
    trial = of_study.trial(records, best)
    assert of_study.chosen(records) == Config.of("made", "gat", 0, trial.setting)


def test_a_trial_whose_last_seed_was_pruned_is_out():
    of_study = study(settings=2, seeds=2, prune=True)
    records = tell(of_study, range(2), lambda number, _: 0.5 + number / 10)
    assert of_study.chosen(records) != Config.of("made", "gat", 0)
    records[-1]["pruned"] = 16
    assert of_study.chosen(records) == Config.of("made", "gat", 0)


def test_a_trial_that_diverges_is_kept_as_such(tmp_path, scripted):
    scripted.diverges = 2
    records = run(tmp_path, ["gat"], search={"num_layers": "2,3"}, overrides={"heads": 2})
    lost = [record for record in records if record["kind"] == "tune" and record["val"] is None]
    assert {record["config"]["num_layers"] for record in lost} == {2}
    assert records[-1]["config"]["num_layers"] == 3
    assert run(tmp_path, ["gat"], search={"num_layers": "2,3"}, overrides={"heads": 2}) == records
    with pytest.raises(ValueError, match=r"finite loss of 'gat' on 'made' in one of the 2 trials .*--search"):
        study(settings=2).chosen(tell(study(), range(2), lambda *_: None))


def test_arguments_of_kernels_are_searched(tmp_path, scripted):
    search = {"RBF.lengthscale": "0.5,2", "magnitude.p": "1..3"}
    records = run(tmp_path, ["gat", "rbf*magnitude@separate"], search=search, trials=4)
    tried = trials_of(records, "rbf*magnitude@separate")
    assert tried[0] == ("rbf*magnitude@separate", {})
    for model, setting in tried[1:]:
        assert not {"spectral.num_features", "projections"}.intersection(setting)
        lengthscale, p = shown(setting["rbf.lengthscale"]), shown(setting["magnitude.p"])
        assert model == f"rbf[lengthscale={lengthscale}]*l{p}@separate"
    runs = [record for record in records if record["kind"] == "run" and record["model"] != "gat"]
    assert {record["model"] for record in runs} == {"rbf*magnitude@separate"}
    assert len({record["key"] for record in records}) == len(records)
    assert run(tmp_path, ["gat", "rbf*magnitude@separate"], search=search, trials=4) == records
    assert f"| `rbf*magnitude@separate: {runs[0]['config']['model']}` |" in tables.readme_tables(tmp_path)


def test_what_cannot_be_built_is_drawn_anew(tmp_path, scripted, monkeypatch):
    def build(task, config):
        if config.model == "dot" and config.heads < 4:
            raise ValueError("Expected more heads")

    monkeypatch.setattr(studies, "build", build)
    tried = trials_of(run(tmp_path, ["kernel{rbf,dot}", "gat"]), "kernel")
    assert min(setting["heads"] for model, setting in tried if model == "dot") == 4
    assert min(setting.get("heads", 8) for model, setting in tried if model != "dot") < 4
    assert len(tried) == 9
    with pytest.raises(ValueError, match="Expected more heads"):  # of this model alone it is a mistake
        run(tmp_path / "alone", ["dot"])


def test_a_pruned_trial_counts_and_is_not_chosen(tmp_path, scripted, monkeypatch):
    unpruned = tuning.trial

    def trial(task, config, *, pruner, **kwargs):
        record = unpruned(task, config, **kwargs)
        if pruner(16, 0.0, 0.0, record["val"]):
            return record | {"val": 1.0, **pruner.record([])}  # as if it were the best
        return record | {"by_epoch": [record["val"]] * len(STEPS)}

    monkeypatch.setattr(tuning, "trial", trial)
    records = run(tmp_path, MODELS[1:], prune=True)
    trials = [record for record in records if record["kind"] == "tune"]
    pruned = [record for record in trials if "pruned" in record]
    assert {record["pruned"] for record in pruned} == {16}
    assert 2 <= len(pruned) <= 10
    for record in pruned:  # only by trials that came before, of the same model, with the same seed
        others = [
            r["val"]
            for r in trials
            if (r["model"], r["seed"]) == (record["model"], record["seed"])
            and r["trial"] < record["trial"]
            and "pruned" not in r
        ]
        score = unpruned(load("karate"), Config.from_dict(record["config"]))["val"]
        assert len(others) >= LEAST
        assert score < statistics.median(others)
    # Whose first seed was pruned has no other.
    seeds = {}
    for record in trials:
        seeds.setdefault((record["model"], record["trial"]), []).append("pruned" in record)
    assert set(map(tuple, seeds.values())) == {(True,), (False, False)}
    assert {number for _, number in seeds} == set(range(9))
    assert all(record["val"] < 1.0 for record in records if record["kind"] == "run")
    assert {record["tuned"]["prune"] for record in records if record["kind"] == "run"} == {True}
    assert "below the median of the earlier ones was ended" in tables.readme_tables(tmp_path)
    # A kill changes nothing, and leaves nothing: not of a trial that was just ended, either.
    path = tmp_path / "results.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:20]))
    left = tmp_path / "checkpoints" / next(r["key"] for r in records[:20] if "pruned" in r)
    left.mkdir(parents=True)
    assert lean(run(tmp_path, MODELS[1:], prune=True)) == lean(records)
    assert not left.exists()


def test_a_kill_after_a_trial_diverged_changes_nothing(tmp_path, scripted):
    scripted.diverges = 1
    records = run(tmp_path, ["gat"])
    number, path = next(n for n, r in enumerate(records) if r["val"] is None), tmp_path / "results.jsonl"
    assert records[number]["trial"] == records[number + 1]["trial"]  # its second seed was under way
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[: number + 1]))
    assert lean(run(tmp_path, ["gat"])) == lean(records)


def test_what_is_given_is_not_searched(tmp_path, scripted):
    overrides = {"batch_size": 8, "neighbors": "3,3", "lr": 0.01}
    for _, setting in trials_of(run(tmp_path, ["gat"], overrides=overrides), "gat")[1:]:
        assert not {"batch_size", "neighbors", "lr", "num_layers"}.intersection(setting)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"trials": 1}, r"at least 2 trials .*got 1.*--trials 12"),
        ({"tune": 8}, r"either --tune or --trials .got 8 and 9."),
        ({"trials": 0}, r"--trials beside the family 'kernel', of which they choose a model .got none."),
        ({"trials": 0, "models": ["gat"], "search": {"lr": "0.1..1"}}, r"--trials beside --search"),
        ({"trials": 0, "models": ["gat"], "prune": True}, r"--trials beside --prune"),
        ({"search": {"width": "1..3"}}, r"settings that exist in the space .*got 'width'.; choose from: "),
        ({"search": {"rbf.width": "1..3"}}, r"arguments of RBF .got 'rbf.width'.; choose from: lengthscale"),
        ({"search": {"nope.width": "1..3"}}, r"the name of a kernel .got 'nope'."),
        ({"search": {"rbf.lengthscale": "-1,1"}}, r".*lengthscale.*-1"),
        ({"search": {"lr": "0.1..0.01"}}, r"a range of 'lr' from a lower to a higher value .got 0.1..0.01."),
        ({"search": {"lr": "0.1..nan"}}, r"a range of 'lr'"),
        ({"search": {"lr": "0.1"}}, r"several values of 'lr' to search .got 0.1.*--set lr=VALUE"),
        ({"search": {"heads": ""}}, r"'heads' as a whole number"),
        ({"search": {"heads": []}}, r"several values of 'heads' .*got none"),
        ({"search": {"norm": "a..b"}}, r"choices of 'norm', which is no number"),
        (
            {"search": {"dropout": "0.5..1"}},
            r"'dropout' in .0, 1. .got 1.0.; change it with --search dropout",
        ),
        ({"search": {"heads": "0,1"}}, r"'heads' of at least 1 .got 0.; change it with --search heads"),
        (
            {"search": {"norm": "none,batch_nrm"}},
            r"'norm' as a name that PyG resolves .got 'batch_nrm'.*did you mean 'BatchNorm'",
        ),
        ({"search": {"heads": "1,3"}}, r"'hidden_channels' divisible by 'heads=3'"),
        ({"search": {"keep": "loss,both"}}, r"settings that the runs of a table may differ in .got 'keep'"),
        ({"search": {"lr": "0.1..1"}, "overrides": {"lr": 0.1}}, r"'lr' either set or searched"),
        ({"search": {"dot.width": "1,2"}}, r"arguments of DotProduct .got 'dot.width'.; choose from: none"),
        ({"search": {"spectral.num_features": "4,8"}}, r"a model that takes 'spectral.num_features' "),
        ({"search": {"start": "none,unit"}, "models": ["gat"]}, r"a model that takes 'start' .*got gat."),
        (
            {"search": {"num_layers": "1..4"}, "overrides": {"batch_size": 8, "neighbors": "3,3"}},
            "'neighbors'",
        ),
    ],
)
def test_what_cannot_be_searched_is_said_before_anything_is_tried(tmp_path, scripted, kwargs, message):
    with pytest.raises(ValueError, match=f"Expected {message}"):
        run(tmp_path / "out", **kwargs)
    assert scripted == []
    assert not (tmp_path / "out").exists()


def test_a_space_may_be_too_small(tmp_path, scripted):
    path = tmp_path / "space.toml"
    path.write_text("heads = [2, 4]\nresidual = [false, true]\n", encoding="utf8")
    records = run(tmp_path / "whole", ["gat"], space=path, trials=5)  # the protocol is no point of it
    assert len({str(setting) for _, setting in trials_of(records, "gat")}) == 5
    scripted.clear()
    with pytest.raises(
        ValueError, match=r"at least 6 settings of 'gat' to try .got 5 of heads, residual.; lower --trials"
    ):
        run(tmp_path / "more", ["gat"], space=path, trials=6)
    path.write_text("", encoding="utf8")
    with pytest.raises(ValueError, match=r"at least 2 settings of 'gat' to try .got 1 of nothing."):
        run(tmp_path / "more", ["gat"], space=path, trials=2)
    assert scripted == []  # a search that has no end is not begun
    path.write_text("heads = [2, 4", encoding="utf8")
    with pytest.raises(ValueError, match=r"Expected TOML in '.*space.toml'"):
        run(tmp_path / "other", ["gat"], space=path)
    with pytest.raises(
        FileNotFoundError, match=r"Expected a file that declares what is searched .*none.toml"
    ):
        run(tmp_path / "other", ["gat"], space=tmp_path / "none.toml")


def test_trials_need_optuna(tmp_path, scripted, monkeypatch):
    monkeypatch.setattr("kgat.extras.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"'optuna' to suggest settings .*pip install 'kgat.tuning.'"):
        run(tmp_path / "out")


def test_a_folder_holds_trials_of_one_space(tmp_path, scripted):
    scripted.stop_after = 7
    with pytest.raises(Interrupted):
        run(tmp_path)
    for kwargs in ({"search": {"heads": "1,2"}}, {"overrides": {"patience": 7}}, {"tune_seeds": 3}):
        before = (tmp_path / "results.jsonl").read_bytes()
        with pytest.raises(ValueError, match=r"Expected trials of 'gat' over the space .*--out"):
            run(tmp_path, **kwargs)
        assert (tmp_path / "results.jsonl").read_bytes() == before
    with pytest.raises(ValueError, match=r"'kernel' to be one of rbf, dot in .*got one of rbf, dot, laplace"):
        run(tmp_path, ["kernel{rbf,dot}"])
    scripted.stop_after = None
    run(tmp_path)
    for kwargs, message in [
        ({"trials": 10}, r"tuned by 10 trials × 2 seeds over lr, .*tuned by 9 trials"),
        ({"trials": 0, "models": ["gat"]}, r"without tuning .*tuned by 9 trials"),
        ({"trials": 0, "tune": 9, "models": ["gat"]}, r"tuned over 9 settings .*tuned by 9 trials"),
    ]:
        with pytest.raises(ValueError, match=f"Expected runs {message}"):
            run(tmp_path, **kwargs)


@pytest.mark.parametrize("kind", ["graph", "link", "batch"])
def test_trials_of_every_task(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(comparing, "draw", lambda *_: [])
    settings = {"max_epochs": 2, "hidden_channels": 8, "heads": 2}
    if kind == "batch":
        settings |= {"batch_size": 16, "neighbors": "2,2"}
    task = (
        make_graph_task("rmse") if kind == "graph" else load("karate-links" if kind == "link" else "karate")
    )
    records = compare(
        *(task, ["kernel{rbf,dot}"], 1, tmp_path),
        **{"overrides": settings, "rounds": 0, "trials": 2, "tune_seeds": 1},
    )
    trials = [record for record in records if record["kind"] == "tune"]
    (found,) = [record for record in records if record["kind"] == "run"]
    best = (min if kind == "graph" else max)(trials, key=lambda record: record["val"])
    assert found["config"] == {**best["config"], "seed": 0}
    assert found["model"] == "kernel"
    keys = {record["key"] for record in records if record["kind"] == "attention"}
    assert keys == {found["key"]}
