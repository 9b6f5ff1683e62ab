import pytest
from made_runs import make_run

from kgat.experiments import controls
from kgat.experiments.table import render
from kgat.experiments.verdict import blocks, ranks, verdicts

pytestmark = pytest.mark.quick

THREE = {"gat": 0.5, "gatv2": 0.4, "kernel": 0.6}


def runs(dataset, scores, seeds=10):
    return [
        {
            **make_run("rbf" if model == "kernel" else model, seed, score + 0.001 * seed, 0.5, dataset),
            "model": model,
            "metric": "accuracy",
        }
        for model, score in scores.items()
        for seed in range(seeds)
    ]


def said(records, **options):
    return render(controls.blocks(records, verdicts(records, **options)))


def test_a_family_is_set_against_the_plain_mean():
    records = runs("up", {**THREE, "constant": 0.55, "gcn": 0.7, "mlp": 0.1})
    records += runs("down", {**THREE, "constant": 0.65})
    text = said(records)
    assert "of 2 graphs, the family is significantly better on 1 (up) and worse on 1 (down)." in text
    assert "| graph | seeds | `kernel` | `constant` | `gcn` | `mlp` | `kernel` − `constant` [95 %] |" in text
    up, down = (
        next(line for line in text.splitlines() if line.startswith(f"| {name} ")) for name in ("up", "down")
    )
    assert "| 60.5 ± 0.3 | 55.5 ± 0.3 | 70.4 ± 0.3 | 10.5 ± 0.3 | +5.0 [+5.0, +5.0] | 10 : 0 | 0.004 |" in up
    assert up.endswith("| −5.0 [−5.0, −5.0] | 0 : 10 | 0.004 |")
    assert (
        "Against `gcn` (a mean that degrees weigh), of 1 graph, the family is significantly better on 0"
        in text
    )
    assert (
        "Against `mlp` (no edges), of 1 graph, the family is significantly better on 1 (up) and worse" in text
    )
    assert "| 65.5 ± 0.3 | – | – | −5.0 [−5.0, −5.0] | 0 : 10 | 0.004 |" in down


def test_controls_change_nothing_of_the_verdict():
    plain = runs("made", THREE)
    records = [*plain, *runs("made", {"constant": 0.9, "gcn": 0.9, "mlp": 0.9})]
    assert verdicts(records) == verdicts(plain)
    assert ranks(verdicts(records)) == ranks(verdicts(plain))
    assert render(blocks(verdicts(records))) == render(blocks(verdicts(plain)))
    assert said(plain) == ""


def test_stock_is_the_layer_that_validation_prefers():
    records = runs("made", {**THREE, "constant": 0.45})
    for record in records:
        record["val"] = 0.9 if record["model"] == "gatv2" else 0.5
    assert "| −5.0 [−5.0, −5.0] | 0 : 10 |" in said(records)


def test_kinds_of_edges_are_told_apart():
    records = [r for name in "abcdefghij" for r in runs(name, {**THREE, "constant": 0.5})]
    records += [{"kind": "graph", "dataset": name, "nearest": name < "f"} for name in "abcdefghij"]
    text = said(records)
    assert "Where edges join nearest points, on 5 graphs, the family wins on 5" in text
    assert "Where edges are given, on 5 graphs, the family wins on 5" in text


def test_a_control_is_no_control_of_itself():
    records = runs("made", {**THREE, "constant": 0.5, "gcn": 0.4})
    for family in ("constant", "gcn"):
        assert said(records, family=family, stock=["gat"]) == ""
