import dataclasses
import io
import itertools
import math

import numpy as np
import pytest
from scipy import stats

from kgat import compare as comparing
from kgat import datasets, records, training, tuning
from kgat.compare import Interrupted, compare, holm, markdown, measure_cost, table, wilcoxon

FAST = {"max_epochs": 3, "hidden_channels": 8, "heads": 2}


def make_run(model, seed, test, val=0.5, dataset="made", split=None, **config):
    return {
        "kind": "run",
        "key": f"{dataset}-{model}-{seed}",
        "dataset": dataset,
        "model": model,
        "seed": seed,
        "split": f"random-{seed}" if split is None else split,
        "config": training.Config.of(dataset, model, seed, config).as_dict(),
        "metric": "accuracy",
        "train": 1.0,
        "val": val,
        "test": test,
        "parameters": 1000 + len(model),
        "versions": {"torch": "2.13.0", "torch_geometric": "2.8.1"},
    }


def make_cost(dataset="made", contended=False, **ratios):
    entries = {
        model: {
            "seconds_ratio": [time, 0.9 * time, 1.1 * time],
            "memory_ratio": memory,
            "contended": contended and model != "gat",
        }
        for model, (time, memory) in {"gat": (1.0, 1.0), **ratios}.items()
    }
    return {"kind": "cost", "dataset": dataset, "baseline": "gat", "models": entries}


GAT = [0.80, 0.82, 0.81, 0.79, 0.83, 0.80]
RBF = [0.82, 0.83, 0.85, 0.80, 0.88, 0.86]  # differences .02 .01 .04 .01 .05 .06


def made():
    runs = [make_run("rbf", seed, test) for seed, test in enumerate(RBF)]
    runs += [make_run("gat", seed, test, val=0.25) for seed, test in enumerate(GAT)]
    runs += [make_run("dot", seed, test) for seed, test in enumerate(GAT[:3])]
    return [*runs, make_cost(rbf=(0.5, 0.25)), {"kind": "attention", "dataset": "made"}]


# Statistics


def test_table_by_hand():
    gat, rbf, dot = table(made())
    assert (gat.model, rbf.model, dot.model) == ("gat", "rbf", "dot")
    assert (gat.n, rbf.n, dot.n) == (6, 6, 3)
    assert gat.mean == pytest.approx(sum(GAT) / 6)
    variance = sum((x - sum(GAT) / 6) ** 2 for x in GAT) / 5
    assert gat.std == pytest.approx(math.sqrt(variance))
    assert (gat.difference, gat.ci_low, gat.p_value) == (None, None, None)
    assert (gat.val_mean, rbf.val_mean) == (0.25, 0.5)
    assert (gat.epoch_ratio, rbf.epoch_ratio, rbf.memory_ratio) == (1.0, 0.5, 0.25)
    assert (dot.epoch_ratio, dot.memory_ratio) == (None, None)
    assert rbf.parameters == 1003

    assert rbf.difference == pytest.approx(0.19 / 6)
    expected = stats.ttest_rel(RBF, GAT).confidence_interval(0.95)
    assert (rbf.ci_low, rbf.ci_high) == pytest.approx((expected.low, expected.high))
    # Six of six differences are positive: 2 / 2^6. 'dot' has too few pairs to be counted.
    assert rbf.p_value == pytest.approx(1 / 32)
    assert (dot.difference, dot.p_value, dot.pairs) == (0.0, None, 3)


def test_table_pairs_seeds_and_splits():
    runs = [make_run("gat", seed, 0.5) for seed in range(4)]
    runs += [make_run("rbf", seed, 0.5 + 0.1 * seed) for seed in range(2, 6)]
    runs += [make_run("dot", 0, 0.9, split="another")]
    rows = {row.model: row for row in table(runs)}
    assert rows["rbf"].pairs == 2
    assert rows["rbf"].difference == pytest.approx(0.25)
    assert (rows["dot"].pairs, rows["dot"].difference) == (0, None)


def test_table_of_one_seed_and_of_a_repeated_one():
    runs = [make_run("gat", 0, 0.1), make_run("gat", 0, 0.6), make_run("rbf", 0, 0.7)]
    gat, rbf = table(runs)
    assert (gat.n, gat.mean, gat.std) == (1, 0.6, None)
    assert rbf.difference == pytest.approx(0.1)
    assert (rbf.ci_low, rbf.ci_high, rbf.p_value) == (None, None, None)


def test_table_without_baseline_and_without_runs():
    (row,) = table([make_run("rbf", seed, 0.5) for seed in range(5)])
    assert (row.n, row.difference, row.p_value) == (5, None, None)
    assert table([]) == []
    assert table([make_cost()]) == []


def test_table_refuses_several_data_sets():
    with pytest.raises(ValueError, match=r"Expected records of one data set .got a, b"):
        table([make_run("gat", 0, 0.5, dataset="a"), make_run("gat", 0, 0.5, dataset="b")])


def test_holm_by_hand():
    # Sorted .005 .01 .03 .04, times 4 3 2 1: .02 .03 .06 .04, and no smaller than the one before.
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005, "e": None})
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02, "e": None})
    assert holm({"a": 0.6, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


@pytest.mark.parametrize("n", [5, 6, 10, 20])
def test_wilcoxon_is_that_of_scipy(n):
    values = np.random.default_rng(n).normal(0.3, 1.0, n)
    expected = stats.wilcoxon(values, method="exact").pvalue
    assert wilcoxon(values) == pytest.approx(expected)
    assert wilcoxon(-values) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(4))
def test_wilcoxon_with_ties_counts_all_signs(seed):
    values = np.random.default_rng(seed).integers(-3, 5, 9) / 1000
    size = np.abs(values[values != 0])
    ranks = stats.rankdata(size)
    sums = [
        sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign)
        for signs in itertools.product([0, 1], repeat=len(ranks))
    ]
    observed = ranks[values[values != 0] > 0].sum()
    below = np.mean([s <= observed for s in sums])
    above = np.mean([s >= observed for s in sums])
    assert wilcoxon(values) == pytest.approx(min(1.0, 2 * min(below, above)))


def test_wilcoxon_takes_rounding_for_ties():
    # All are .01, but for the last digits, by which they would have an order.
    values = np.array([0.83 - 0.82, 0.81 - 0.80, 0.15 - 0.14, 0.57 - 0.58, 0.07 - 0.06, 0.1 - 0.1])
    assert len({float(size) for size in np.abs(values) if size}) > 1
    assert wilcoxon(values) == pytest.approx(wilcoxon(np.array([1, 1, 1, -1, 1, 0])))
    assert wilcoxon(values) == pytest.approx(2 * 6 / 32)


def test_wilcoxon_degenerate():
    assert wilcoxon(np.zeros(10)) == 1.0
    assert wilcoxon(np.full(10, 1e-15)) == 1.0
    assert wilcoxon(np.array([0.1, 0.2, 0.3, 0.4])) is None
    assert wilcoxon(np.empty(0)) is None
    assert wilcoxon(np.array([0.5, 0, 0, 0, 0])) == 1.0
    assert wilcoxon(np.arange(1.0, 61.0)) < 1e-9


# Tables

MARKDOWN = """\
| model | seeds | test accuracy % | difference to gat [95 %] | p | val % | epoch time | memory | \
parameters |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| `gat` | 6 | 80.8 ± 1.5 | – | – | 25.0 | 1.00× | 1.00× | 1,003 |
| `rbf` | 6 | 84.0 ± 2.9 | +3.2 [+0.9, +5.4] | 0.031 | 50.0 | 0.50× | 0.25× | 1,003 |
| `dot` | 3 | 81.0 ± 1.0 | +0.0 [+0.0, +0.0] | – | 50.0 | – | – | 1,003 |"""


def test_markdown_is_stable():
    assert markdown(table(made())) == MARKDOWN


def test_markdown_of_unusual_rows():
    row = dataclasses.replace(table(made())[1], difference=-0.012, ci_low=None, p_value=0.0001)
    line = markdown([row], "roc_auc").splitlines()[-1]
    assert "| −1.2 | < 0.001 |" in line
    assert "test ROC AUC %" in markdown([row], "roc_auc")


def test_terminal_table_has_the_same_cells():
    from rich.console import Console

    console = Console(width=120, record=True, file=io.StringIO())
    console.print(comparing.rich_table(table(made()), "made"))
    text = console.export_text()
    for cell in ("made", "84.0 ± 2.9", "+3.2 [+0.9, +5.4]", "0.031", "0.25×", "1,003"):
        assert cell in text


def write(folder, written):
    folder.mkdir(parents=True)
    for record in written:
        records.append(folder / "results.jsonl", record)


def test_readme_tables(tmp_path):
    write(tmp_path / "one", made())
    other = [make_run("sinc", seed, 0.3, dataset="PubMed", split="public") for seed in range(2)]
    write(tmp_path / "two", [*other, make_cost("PubMed", contended=True, sinc=(2.0, None))])
    text = comparing.readme_tables(tmp_path)
    assert "| model | made | PubMed |" in text
    assert "| `gat` | 80.8 ± 1.5 | – |" in text
    assert "| `sinc` | – | 30.0 ± 0.0 |" in text
    assert MARKDOWN in text
    assert "**PubMed.** Split public, 2 seeds" in text
    assert "last layer 8 heads" in text
    assert "weight decay 0.001" in text
    assert "6 or 3 seeds" in text
    assert "Unreliable, varied by more than 1.6× between rounds: epoch time of sinc." in text
    assert text.count("Unreliable") == 1
    assert text == comparing.readme_tables(tmp_path / "one", tmp_path / "two/results.jsonl")


def test_readme_tables_without_results(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Expected results in .*kgat compare"):
        comparing.readme_tables(tmp_path)
    write(tmp_path / "one", [make_cost()])
    with pytest.raises(FileNotFoundError, match=r"Expected runs in"):
        comparing.readme_tables(tmp_path)


def test_readme_is_regenerated_between_its_markers(tmp_path):
    path = tmp_path / "README.md"
    begin, end = comparing.BEGIN, comparing.END
    path.write_text(f"# Title ±\n\n{begin}\n| typed | by hand |\n{end}\n\nThe end.\n")
    assert comparing.update_readme(path, "generated")
    expected = f"# Title ±\n\n{begin}\ngenerated\n{end}\n\nThe end.\n"
    assert path.read_text() == expected
    assert not comparing.update_readme(path, "generated")
    assert path.read_text() == expected


@pytest.mark.parametrize("text", ["", "{b}", "{e}\n{b}", "{b}\n{e}\n{b}\n{e}"])
def test_readme_without_markers(tmp_path, text):
    path = tmp_path / "README.md"
    path.write_text(text.format(b=comparing.BEGIN, e=comparing.END))
    with pytest.raises(ValueError, match=r"Expected the lines .*add them where"):
        comparing.update_readme(path, "generated")
    assert path.read_text() == text.format(b=comparing.BEGIN, e=comparing.END)


# Runs


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


def run(out, models=("gat", "rbf"), seeds=2, **kwargs):
    kwargs = {"rounds": 0, "figures": False, "overrides": FAST, **kwargs}
    return compare("karate", models, seeds, out, **kwargs)


def test_compare_trains_what_is_missing(tmp_path, trained):
    first = run(tmp_path)
    assert trained == [("gat", 0), ("rbf", 0), ("gat", 1), ("rbf", 1)]
    assert first == records.read(tmp_path / "results.jsonl")
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
    assert len(found) == len(records.read(path)) == 4


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
    kept = [line for line in lines if '"kind": "attention", ' not in line]
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
    assert found == records.read(tmp_path / "results.jsonl")
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
    protocol = training.Config.of("karate", "gat").as_dict()
    assert settings[0] == searched(protocol)
    assert len({str(setting) for setting in settings}) == 4
    for setting in settings[2:]:
        assert all(setting[name] in values for name, values in tuning.SPACE.items())
    # Nothing but the settings that are searched differs, and no run has the seed of a trial.
    for record in trials:
        rest = {name: value for name, value in record["config"].items() if name not in tuning.SPACE}
        expected = training.Config.of("karate", record["model"], record["seed"], FAST).as_dict()
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


def test_tuning_never_sees_a_test_label(tmp_path, monkeypatch):
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
    kwargs = {
        "overrides": {**FAST, "max_epochs": 20},
        "rounds": 0,
        "figures": False,
        "tune": 6,
        "tune_seeds": 2,
    }
    volatile = ("seconds", "epoch_seconds", "date")
    trials, chosen, tests = [], [], []
    for flipped in (False, True):
        found = compare(one_split(flipped), ["gat", "dot"], 2, tmp_path / str(flipped), **kwargs)
        trials.append(
            [{k: v for k, v in r.items() if k not in volatile} for r in found if r["kind"] == "tune"]
        )
        chosen.append([r["config"] for r in found if r["kind"] == "run"])
        tests.append([r["test"] for r in found if r["kind"] == "run"])
    assert parts == []
    assert asked.count("test") == 2 * 4  # once per run
    assert len(trials[0]) == 24
    assert trials[0] == trials[1]
    assert all("test" not in record and "train" not in record for record in trials[0])
    assert chosen[0] == chosen[1]
    assert tests[1] == pytest.approx([1 - score for score in tests[0]])


def test_the_score_of_a_trial_is_that_of_the_kept_epoch():
    task = datasets.load("karate")
    config = training.Config.of("karate", "rbf", 2, FAST)
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
    protocol = searched(training.Config.of("karate", "gat").as_dict())
    expected = {"gat": protocol, "rbf": tuning.Budget(3).drawn("karate")[1]}
    assert [(record["model"], record["seed"]) for record in runs] == [
        ("gat", 0), ("rbf", 0), ("gat", 1), ("rbf", 1),
    ]  # fmt: skip
    for record in runs:
        assert searched(record["config"]) == expected[record["model"]]
        assert record["key"] == training.Config(**record["config"]).key
        space = {name: list(values) for name, values in tuning.SPACE.items()}
        assert record["tuned"] == {"settings": 3, "seeds": 2, "space": space}
    line = comparing.tuning_line(runs)
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


def test_tables_of_tuned_and_untuned_runs_are_apart(tmp_path):
    mark = {"settings": 8, "seeds": 3, "space": {"lr": [0.1, 0.2], "dropout": [0.5]}}
    plain = [make_run(model, seed, 0.5) for model in ("gat", "rbf") for seed in range(2)]
    tuned = [{**make_run("gat", seed, 0.7, lr=0.2), "tuned": mark} for seed in range(2)]
    tuned += [{**make_run("rbf", seed, 0.9, lr=0.1), "tuned": mark} for seed in range(2)]
    write(tmp_path / "plain", [*plain, make_cost(rbf=(2.0, None))])
    trials = [{"kind": "tune", "dataset": "made", "model": "gat", "key": "tune-0", "val": 0.99}]
    write(tmp_path / "tuned", [*trials, *tuned, {**make_cost(rbf=(3.0, None)), "tuned": mark}])
    with pytest.raises(
        ValueError, match=r"equally tuned .*'gat' without tuning and 'gat' tuned over 8 settings"
    ):
        table([*plain, *tuned])
    with pytest.raises(ValueError, match=r"equally tuned"):  # also where the models differ
        table([*tuned[:2], *plain[2:]])
    text = comparing.readme_tables(tmp_path)
    assert "| model | made | made, tuned 8 × 3 |" in text
    assert "| `rbf` | 50.0 ± 0.0 | 90.0 ± 0.0 |" in text
    first, second = text.split("**made, tuned 8 × 3.**")
    assert "| `rbf` | 2 | 50.0 ± 0.0 | +0.0 [+0.0, +0.0] | – | 50.0 | 2.00× |" in first
    assert "Tuned" not in first
    assert "| `rbf` | 2 | 90.0 ± 0.0 | +20.0 [+20.0, +20.0] | – | 50.0 | 3.00× |" in second
    assert "learning rate 0.2 or 0.1" in second
    assert "the same 8 settings" in second
    assert "grid lr 0.1 or 0.2; dropout 0.5, each trained with 3 seeds" in second
    assert "chose: `gat` lr 0.2, dropout 0.5; `rbf` lr 0.1, dropout 0.5.\n" in second


def test_table_refuses_runs_of_other_settings():
    runs = [make_run("gat", 0, 0.5), make_run("gat", 1, 0.5, lr=0.1)]
    with pytest.raises(ValueError, match=r"'gat' on 'made' with equal settings .got lr=0.005 and lr=0.1."):
        table(runs)
    with pytest.raises(ValueError, match=r"decay_kernels=True and decay_kernels=False"):
        table([make_run("rbf", 0, 0.5), make_run("rbf", 0, 0.5, decay_kernels=False)])
    assert len(table([make_run("gat", 0, 0.5), make_run("rbf", 0, 0.5, lr=0.1)])) == 2


def test_compare_refuses_other_decay(tmp_path):
    run(tmp_path)
    with pytest.raises(ValueError, match=r"runs of 'rbf' with decay_kernels=False .*got decay_kernels=True"):
        run(tmp_path, overrides={**FAST, "decay_kernels": False})
    run(tmp_path, ("gat", "dot"), overrides={**FAST, "decay_kernels": False})
    with pytest.raises(ValueError, match=r"runs of 'dot' with decay_kernels=True .*got decay_kernels=False"):
        run(tmp_path, ("gat", "dot"))


def test_protocol_line_says_what_has_no_decay():
    runs = [make_run(model, 0, 0.5, decay_kernels=False) for model in ("gat", "rbf")]
    line = comparing._protocol_line(runs)
    assert "weight decay 0.0005 (not on frequencies, lengthscales and exponents in rbf); at most" in line
    assert "(not" not in comparing._protocol_line([make_run("rbf", 0, 0.5)])


def test_brackets_of_names_are_shown():
    from rich.console import Console

    console = Console(width=160, record=True, file=io.StringIO())
    console.print(
        comparing.rich_table(table([make_run("spectral[num_features=4]*l2@shared", 0, 0.5)]), "made")
    )
    assert "spectral[num_features=4]*l2@shared" in console.export_text()


def test_cost_has_the_settings_of_kernel_models(tmp_path, monkeypatch):
    asked = []

    def build(task, config):
        asked.append((config.model, config.projections, config.decay_kernels))
        return training.build(task, config)

    monkeypatch.setattr(comparing, "build", build)
    monkeypatch.setattr(comparing, "_peaks", lambda *args: {})
    overrides = {**FAST, "projections": "separate", "decay_kernels": False}
    found = run(tmp_path, ("gat", "rbf@shared", "dot"), seeds=1, overrides=overrides, rounds=2)
    assert asked == [("gat", None, True), ("rbf@shared", None, False), ("dot", "separate", False)]
    assert "tuned" not in found[-1]


def test_progress_says_what_is_going_on(tmp_path, capsys):
    run(tmp_path, progress=True)
    shown = capsys.readouterr().err
    assert "karate" in shown
    assert "4/4 rbf, seed 1: 3 epochs" in shown


def test_cost_is_a_ratio_to_the_baseline():
    task = datasets.load("karate")
    config = training.Config.of("karate", "rbf", overrides=FAST)
    record = measure_cost(task, config, ["rbf", "dot"], rounds=4)
    assert list(record["models"]) == ["gat", "rbf", "dot"]
    assert (record["kind"], record["baseline"], record["rounds"]) == ("cost", "gat", 4)
    assert record["models"]["gat"]["seconds_ratio"] == [1.0, 1.0, 1.0]
    for entry in record["models"].values():
        median, low, high = entry["seconds_ratio"]
        assert 0 < low <= median <= high
        assert entry["epoch_seconds"] > 0
        assert entry["contended"] == (high / low > 1.6)


@pytest.mark.skipif(not comparing.Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_peak_memory_grows_with_the_width():
    task = datasets.load("digits")
    visible = task.visible(task.split(0))
    configs = {
        name: training.Config.of("digits", "gat", overrides={"hidden_channels": width})
        for name, width in (("gat", 64), ("wide", 256), ("again", 64))
    }
    peaks = comparing._peaks(task, visible, configs)
    edges = task.data.edge_index.size(1)
    assert peaks["gat"] > edges * 64 * 4  # one tensor of a row per edge
    assert 2 < peaks["wide"] / peaks["gat"] < 8
    assert peaks["again"] / peaks["gat"] == pytest.approx(1.0, abs=0.1)


def test_cost_is_measured_once(tmp_path, monkeypatch):
    asked = []

    def cost(task, config, models, rounds, *, device):
        asked.append(models)
        return make_cost("karate", **dict.fromkeys(models, (1.0, None)))

    monkeypatch.setattr(comparing, "measure_cost", cost)
    run(tmp_path, rounds=3)
    run(tmp_path, rounds=3)
    assert asked == [["gat", "rbf"]]
    run(tmp_path, ("gat", "dot"), rounds=3)
    assert asked == [["gat", "rbf"], ["gat", "dot"]]
