import json
from dataclasses import replace

import numpy as np
import pytest
import typer
from made_runs import make_run
from scipy import stats

from kgat import cli
from kgat.experiments import verdict
from kgat.experiments.judgements import JUDGEMENTS, judgement
from kgat.experiments.plots.verdict import verdict as figure_of
from kgat.experiments.table import render
from kgat.experiments.verdict import blocks, ranks, verdicts

pytestmark = pytest.mark.quick


def runs(dataset, scores, vals=None, metric="accuracy", seeds=10, noise=0.01):
    r"""Records of models with so many seeds; two differ by what their scores do, in every seed."""
    records = []
    for model, score in scores.items():
        for seed in range(seeds):
            test = None if score is None else score + noise * seed
            member = "rbf" if model == "kernel" else model
            record = make_run(member, seed, test, (vals or {}).get(model, 0.5), dataset)
            records.append({**record, "model": model, "metric": metric})
    return records


NAMES = ("verdict", "sweep", "published")
THREE = {"gat": 0.5, "gatv2": 0.4, "kernel": 0.6}


def test_a_family_wins_loses_and_ties():
    records = runs("won", THREE) + runs("lost", {**THREE, "kernel": 0.1})
    mixed = runs("tied", {"gat": 0.5, "kernel": 0.5})
    for number, record in enumerate(mixed[10:]):
        record["test"] += 0.01 if number % 2 or number == 0 else -0.01
    judged = verdicts(records + mixed + runs("few", THREE, seeds=3))
    assert [v.outcome for v in judged] == ["win", "loss", "tie", "open"]
    # Three tests, of which the smallest p counts thrice.
    assert judged[0].p_value == pytest.approx(3 * 2 / 2**10)
    said = blocks(judged)[0]
    assert "better than the stock layer that validation prefers on 1 (won), worse on 1 (lost)" in said
    assert "neither on 1. 1 more have too few pairs" in said


def test_what_validation_would_have_chosen_is_told():
    better, worse = {"gat": 0.5, "kernel": 0.6}, {"gat": 0.5, "kernel": 0.3}
    records = [r for n in range(4) for r in runs(f"right {n}", better, {"kernel": 0.6})]
    records += [
        r for n in range(2) for r in runs(f"shy {n}", {"gat": 0.5, "kernel": 0.7}, {"kernel": 0.5})
    ]  # a tie is no preference
    records += runs("wrong", worse, {"kernel": 0.6}) + runs("bad", worse, {"kernel": None})
    records += runs("error", worse, {"kernel": 0.4}, metric="rmse")  # less is better
    judged = verdicts(records)
    preferred = [v.dataset for v in judged if v.preferred]
    assert preferred == [*(f"right {n}" for n in range(4)), "wrong", "error"]
    said = (
        "Mean validation scores prefer the family on 6 of 9 graphs: there its gain is +4.0 points on "
        "average, where they do not +6.7. Of its 7 wins 5 are among the former, of its 2 losses 1 "
        "among the latter."
    )
    assert said in blocks(judged)
    assert not any("prefer the family" in str(block) for block in blocks(judged[:5]))


def tuned(records, trials=6, splits=3, at_protocol=()):
    r"""The same, of twenty splits, behind trials on the first of them."""
    runs = [{**r, "split": f"random-{r['seed']}", "tuned": {"settings": trials}} for r in records]
    chosen = {"dropout": 0.7}
    tries = [
        {**run, "kind": "tune", "trial": trial, "seed": 10**6 + seed, "split": f"random-{seed}"}
        for run in runs
        if run["seed"] == 0
        for trial in range(trials)
        for seed in range(splits)
    ]
    for run in runs:
        run["config"] = run["config"] | (chosen if run["model"] not in at_protocol else {})
    return [*tries, *runs]


def test_what_trials_saw_is_told():
    (judged,) = verdicts(tuned(runs("made", THREE), at_protocol=("gat",)))
    assert (judged.trials, judged.at_protocol) == (6, ("gat",))
    assert (len(judged.differences), len(judged.untried)) == (10, 7)
    text = render(blocks([replace(judged, chosen="rbf")]))
    assert "| graph | trials | seeds | `gat` | `gatv2` | `kernel` | chosen kernel |" in text
    assert "| made | 6 | 10 |" in text
    assert "`gat` on 1, `gatv2` on 0, `kernel` on 0 of 1 graphs" in text
    (plain,) = verdicts(runs("made", THREE))
    assert (plain.trials, plain.at_protocol, plain.untried) == (None, (), ())
    assert "protocol" not in render(blocks([plain]))


def test_a_tie_that_had_to_be_one_is_named():
    # Of three graphs, one with seven pairs of which five differ, all for the family.
    few = runs("few", {"gat": 0.5, "kernel": 0.6}, seeds=7)
    few[-1]["test"], few[-2]["test"] = few[6]["test"], few[5]["test"]
    even = runs("even", {"gat": 0.5, "kernel": 0.5})
    for number, record in enumerate(even[10:]):
        record["test"] += 0.01 * (-1) ** number
    text = render(blocks(verdicts([*runs("won", THREE), *few, *even])))
    assert "A tie is not equality: on 1 of 3 graphs (few) fewer pairs differ" in text
    assert "Among the ties, unadjusted intervals exclude zero in favour of the family on few." in text
    text = render(blocks(verdicts([*runs("won", THREE), *runs("errors", THREE, metric="rmse", seeds=5)])))
    assert "exclude zero against it on errors." in text
    assert "exclude zero" not in render(blocks(verdicts(runs("won", THREE))))


def test_runs_of_two_kinds_are_not_judged():
    budget = {"settings": 4, "seeds": 2, "space": {"lr": [0.01]}}
    tuned = [{**record, "tuned": budget} for record in runs("made", {"kernel": 0.6})]
    with pytest.raises(ValueError, match="Expected runs on 'made' that are equally tuned"):
        verdicts(runs("made", {"gat": 0.5}) + tuned)
    with pytest.raises(ValueError, match="Expected runs on 'made' with one metric"):
        verdicts(runs("made", {"gat": 0.5}) + runs("made", {"kernel": 0.6}, metric="rmse"))


def test_validation_picks_the_stock_layer_whatever_the_test_says():
    judged = verdicts(runs("made", THREE, {"gat": 0.5, "gatv2": 0.6, "kernel": 0.7}))
    assert judged[0].stock == "gatv2"
    assert judged[0].differences == pytest.approx([0.2] * 10)
    errors = verdicts(runs("made", THREE, {"gat": 0.5, "gatv2": 0.6, "kernel": 0.7}, metric="rmse"))
    assert errors[0].stock == "gat"  # less is better
    assert errors[0].outcome == "loss"
    assert errors[0].contest.difference > 0


def test_a_stock_layer_that_diverged_is_not_preferred():
    records = runs("made", THREE)
    records[0]["val"] = records[0]["test"] = None
    (judged,) = verdicts(records)
    assert judged.stock == "gatv2"
    records = runs("made", {"gat": 0.5, "kernel": 0.6})
    records[-1]["test"] = None
    (judged,) = verdicts(records)
    assert len(judged.differences) == 9


def test_ranks_are_those_of_scipy():
    graphs = [(0.5, 0.4, 0.6), (0.5, 0.6, 0.7), (0.2, 0.3, 0.1), (0.1, 0.2, 0.3), (0.7, 0.6, 0.1)]
    names = ("gat", "gatv2", "kernel")
    judged = verdicts(
        [r for n, row in enumerate(graphs) for r in runs(f"g{n}", dict(zip(names, row, strict=True)))]
    )
    found = ranks(judged)
    places = stats.rankdata(-np.array(graphs), axis=1)
    assert list(found.means.values()) == pytest.approx(places.mean(0))
    assert found.p_value == pytest.approx(stats.friedmanchisquare(*np.array(graphs).T).pvalue)
    # Table 5 of Demsar: q = 2.343 for three.
    assert found.distance == pytest.approx(2.343 * (3 * 4 / (6 * 5)) ** 0.5, rel=1e-3)
    assert ranks(judged[:4]) is None
    assert ranks(verdicts([r for name in "abcde" for r in runs(name, {"gat": 1, "kernel": 2})])) is None


def test_a_graph_without_the_family_or_without_stock_is_left_out():
    assert verdicts(runs("a", {"gat": 0.5}) + runs("b", {"kernel": 0.5}) + [{"kind": "cost"}]) == []


def test_the_table_marks_the_stock_layer_and_the_kernel():
    records = runs("made", THREE)
    for record in records:
        if record["model"] == "kernel":
            record |= {"family": ["rbf", "dot"], "config": {**record["config"], "model": "dot"}}
    text = render(blocks(verdicts(records)))
    assert "54.5 ± 3.0 †" in text
    assert "| `dot` | +10.0 [+10.0, +10.0] | 10 : 0 | 0.002 | 0.002 | win |" in text
    records = runs("made", THREE, metric="rmse")
    assert "| made (RMSE, less is better) | 10 |" in render(blocks(verdicts(records)))
    assert "| 0 : 10 | 0.002 | 0.002 | loss |" in render(blocks(verdicts(records)))


def test_any_model_is_judged_against_any_others(tmp_path, capsys):
    scores = {"gat": 0.5, "rbf": 0.6, "rbf|additive": 0.7, "dot": 0.5}
    records = [{**r, "model": model} for model in scores for r in runs("made", {"gat": scores[model]})]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    options = ["--verdict", "--against", "gat,rbf", "--family"]
    cli.main(["table", str(tmp_path), *options, "rbf|additive,dot"])
    said = capsys.readouterr().out
    assert "On 1 graph `rbf|additive` is significantly better than the `gat` or `rbf` that validation" in said
    assert "| graph | seeds | `gat` | `rbf` | `rbf\\|additive` | difference [95 %] | better : worse |" in said
    assert "mean ± unbiased" in said
    assert "equal trials" not in said
    assert said.count("| made | 10 |") == 2
    assert cli.main(["table", str(tmp_path), *options, "laplace"])
    assert (
        "Expected runs of 'laplace' and of gat or rbf (got gat, rbf, rbf|additive, dot); run: kgat compare"
        in (capsys.readouterr().err)
    )
    assert cli.main(["table", str(tmp_path), *options, "dot", "--figure", str(tmp_path / "a.png")])
    assert "Expected the usual --family" in capsys.readouterr().err
    assert "is significantly better than `gat` on 1" in blocks(verdicts(records, "rbf", ["gat"]))[0]


@pytest.mark.parametrize("option", ["family", "against"])
def test_who_is_judged_is_said_with_the_verdict_alone(tmp_path, capsys, option):
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in runs("made", THREE)))
    for others in ([], ["--sweep"], ["--markdown"]):
        assert cli.main(["table", str(tmp_path), f"--{option}", "gat", *others]) == 2
        said = capsys.readouterr()
        assert f"Expected --verdict beside --{option} (got none); add it, or leave" in said.err
        assert said.out == ""
    assert cli.main(["table", str(tmp_path), "--verdict", f"--{option}", ""]) == 2
    assert "(got none); name some, or leave the option out" in capsys.readouterr().err
    (usual,) = [p for p in typer.main.get_command(cli.app).commands["table"].params if p.name == option]
    names = {"family": [verdict.FAMILY], "against": verdict.STOCK}[option]
    assert usual.help.endswith(f"Default: {','.join(names)}.")


def test_the_figure_has_graphs_in_order_and_no_errors_of_regression():
    records = runs("lost", {**THREE, "kernel": 0.1}) + runs("won", THREE) + runs("rmse", THREE, metric="rmse")
    axes = figure_of(records).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["won", "lost"]
    assert figure_of(runs("a", {"gat": 0.5})) is None


def test_the_command_writes_page_and_figure(tmp_path, capsys):
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in runs("made", THREE)))
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- verdict:begin -->\n<!-- verdict:end -->\nafter\n")
    options = ["--verdict", "--readme", str(page), "--figure", str(tmp_path / "verdict.png")]
    cli.main(["table", str(tmp_path), *options])
    assert "| made | 10 |" in page.read_text()
    assert (tmp_path / "verdict.png").stat().st_size > 1000
    assert cli.main(["table", str(tmp_path), "--figure", str(tmp_path / "verdict.png")])
    assert "Expected --verdict or --sweep with --figure" in capsys.readouterr().err


def test_judgements_have_names():
    with pytest.raises(ValueError, match=f"Expected 'judgement' as one of '{JUDGEMENTS[0]}'.*got 'verdicts'"):
        judgement("verdicts", runs("made", THREE))


def test_a_page_keeps_its_tables_where_there_is_nothing_to_judge(tmp_path, capsys):
    records = runs("made", {"gat": 0.5, "rbf": 0.5})
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    page = tmp_path / "page.md"
    page.write_text(before := "".join(f"<!-- {n}:begin -->\nkept\n<!-- {n}:end -->\n" for n in NAMES))
    for options, expected in (
        (["--verdict"], "Expected runs of 'kernel' and of gat or gatv2 (got gat, rbf); run: kgat compare"),
        (["--sweep"], "Expected runs of gat and others on data sets such as Cora-5-labels (got made)"),
        (["--verdict", "--format", "latex"], "Expected --format markdown with --verdict (got latex)"),
        (["--verdict", "--figure", str(tmp_path / "a.txt")], "Expected a format of figures"),
        (["--verdict", "--sweep", "--figure", str(tmp_path / "a.png")], "Expected one of --verdict and"),
        (["--published", "--figure", str(tmp_path / "a.png")], "Expected one of --verdict and"),
    ):
        assert cli.main(["table", str(tmp_path), "--readme", str(page), *options]) == 2
        assert expected in capsys.readouterr().err
        assert page.read_text() == before
