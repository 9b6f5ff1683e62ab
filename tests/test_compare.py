import dataclasses
import io
import itertools
import math

import numpy as np
import pytest
from scipy import stats

from kgat import compare as comparing
from kgat import datasets, records, training
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
    with pytest.raises(ValueError, match=r"Expected settings that exist"):
        run(out, overrides={"lrr": 1})
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
        )
        volatile = {"seconds", "epoch_seconds", "date"}
        files.append([{k: v for k, v in record.items() if k not in volatile} for record in found])
    assert files[0] == files[1]


def test_an_error_in_one_of_the_runs_at_once_arrives(tmp_path):
    overrides = {**FAST, "lr": 1e30}
    with pytest.raises(ValueError, match="finite"):
        compare("karate", ["gat"], 2, tmp_path, overrides=overrides, rounds=0, figures=False, jobs=2)


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
