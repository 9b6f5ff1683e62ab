import json

import pytest
from made_runs import make_run

from kgat import cli
from kgat.experiments.questions import answers, blocks
from kgat.experiments.table import render

pytestmark = pytest.mark.quick


def runs(dataset, gains, seeds=10, val_gains=None):
    r"""Records of `rbf` and of changes of it that differ from it by so much in every seed."""
    records = []
    for change, gain in {"": 0.0, **gains}.items():
        for seed in range(seeds):
            base = 0.5 + 0.01 * seed
            val = base + (gain if val_gains is None else val_gains.get(change, 0.0))
            made = make_run("rbf", seed, base + gain, val, dataset)
            records.append({**made, "model": f"rbf@{change}" if change else "rbf"})
    return records


def test_each_change_is_compared_with_the_model_without_it():
    found = answers([*runs("one", {"start=unit": 0.1, "shared_qk": -0.1}), *runs("two", {"start=unit": 0.0})])
    assert [(a.dataset, a.setting, a.model, a.default, a.outcome("test")) for a in found] == [
        ("one", "start", "rbf@start=unit", "rbf", "helped"),
        ("two", "start", "rbf@start=unit", "rbf", "neither"),
        ("one", "projections", "rbf@shared_qk", "rbf", "hurt"),
    ]
    # Holm within a question: two rows of the first, one of the other.
    assert [a.p_values["test"] for a in found] == [2 * 2 / 2**10, 1.0, 2 / 2**10]


def test_a_change_of_a_change_is_compared_with_the_first():
    records = [r for r in runs("one", {"separate": 0.1, "separate@lr=1": 0.2}) if r["model"] != "rbf"]
    (found,) = answers(records)
    assert (found.default, found.setting) == ("rbf@separate", "lr")
    assert found.summaries["test"][found.model].difference == pytest.approx(0.1)


def test_any_of_several_settings_may_be_the_change():
    made = runs("one", {"start=unit": 0.1, "lr=1@start=unit": 0.2, "shared_qk@start=unit": 0.3})
    found = answers([record for record in made if record["model"] != "rbf"])
    assert [(a.setting, a.model, a.default) for a in found] == [
        ("projections", "rbf@shared_qk@start=unit", "rbf@start=unit"),
        ("lr", "rbf@lr=1@start=unit", "rbf@start=unit"),
    ]


def test_runs_of_two_kinds_are_not_compared():
    records = runs("one", {"start=unit": 0.1})
    with pytest.raises(ValueError, match=r"one metric \(got 'rbf' with accuracy and 'rbf@start=unit'"):
        answers(records[:10] + [{**record, "metric": "rmse"} for record in records[10:]])
    tuned = {"settings": 4, "seeds": 2, "space": {"lr": [0.01]}}
    with pytest.raises(ValueError, match="equally tuned"):
        answers(records[:10] + [{**record, "tuned": tuned} for record in records[10:]])
    with pytest.raises(ValueError, match=r"'rbf' on 'one' with equal settings \(got lr=0.005 and"):
        answers([*records, make_run("rbf", 0, 0.9, dataset="one", lr=0.5)])


def test_a_change_that_lacks_a_graph_has_not_helped_on_every_one():
    made = runs("one", {"start=unit": 0.1, "start=median": 0.1}) + runs("two", {"start=median": 0.1})
    said = render(blocks(answers(made)))
    assert "validation says on every graph that `rbf@start=median` is better." in said


def test_validation_decides_and_errors_are_better_when_small():
    records = runs("one", {"start=unit": -0.1}, val_gains={"start=unit": 0.1})
    (found,) = answers(records)
    assert (found.outcome("val"), found.outcome("test")) == ("helped", "hurt")
    (found,) = answers([{**record, "metric": "rmse"} for record in records])
    assert (found.outcome("val"), found.outcome("test")) == ("hurt", "helped")
    (found,) = answers(runs("one", {"start=unit": 0.1}, seeds=4))
    assert found.outcome("val") == "open"


def test_the_page():
    made = runs("one", {"start=unit": 0.1, "kernel_lr=10": 0.1}) + runs(
        "two", {"kernel_lr=10": -0.1}, seeds=4
    )
    text = render(blocks(answers(made)))
    assert (
        "on validation nodes helped 1 (one), hurt 0, neither 0; on test nodes helped 1 (one), hurt 0" in text
    )
    assert (
        "neither 0. The default is `start=none`; validation says on every graph that `rbf@start=unit`" in text
    )
    assert "helped 1 (one), hurt 0, neither 0, untested 1; on test" in text
    assert "The default is `kernel_lr=1`, and stays: no change helped on every graph." in text
    row = "| one | `rbf@start=unit` | 10 | 54.5 ± 3.0 | 64.5 ± 3.0 | +10.0 [+10.0, +10.0] | 0.002 | +10.0"
    assert row in text


def test_the_command(tmp_path, capsys):
    page, results = tmp_path / "README.md", tmp_path / "results.jsonl"
    page.write_text("<!-- questions:begin -->\n<!-- questions:end -->\n")
    results.write_text("".join(json.dumps(run) + "\n" for run in runs("one", {})))
    assert cli.main(["table", str(tmp_path), "--questions", "--readme", str(page)])
    assert (
        "Expected runs of models with a setting in their name, and without (got rbf)"
        in capsys.readouterr().err
    )
    results.write_text("".join(json.dumps(run) + "\n" for run in runs("one", {"shared_qk": 0.1})))
    assert not cli.main(["table", str(tmp_path), "--questions", "--readme", str(page)])
    assert "`rbf@shared_qk`, of 1 graph" in page.read_text()
