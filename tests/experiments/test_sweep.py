import json

import pytest
from made_runs import make_run

from kgat import cli
from kgat.experiments.plots.sweep import sweep as figure_of
from kgat.experiments.sweep import blocks, sweeps
from kgat.experiments.table import render

pytestmark = pytest.mark.quick


def make_runs():
    runs = []
    for name, gain in (
        ("made", 0.01),
        ("made-25-edges", 0.02),
        ("made-5-labels", 0.05),
        ("made-20-labels", 0.03),
    ):
        for model, score in (("gat", 0.5), ("rbf", 0.5 + gain)):
            runs += [make_run(model, seed, score + seed / 100, dataset=name) for seed in range(6)]
    return runs


def test_amounts_are_in_order_and_the_plain_graph_is_zero():
    found = sweeps([*make_runs(), {"kind": "cost"}])
    assert list(found) == [("made", "edges"), ("made", "labels")]
    _, of_edges = found["made", "edges"]
    assert {amount: of["rbf"].difference for amount, of in of_edges.items()} == pytest.approx(
        {0: 0.01, 25: 0.02}
    )
    _, of_labels = found["made", "labels"]  # the plain graph has other splits
    assert list(of_labels) == [5, 20]
    assert of_labels[5]["rbf"].p_value == pytest.approx(2 / 2**6)


def test_a_sweep_without_the_baseline_is_none():
    assert sweeps([run for run in make_runs() if run["model"] == "rbf"]) == {}
    assert figure_of([]) is None


def test_runs_of_two_kinds_are_not_set_side_by_side():
    runs = make_runs()
    of_amount = [run for run in runs if run["dataset"] == "made-25-edges"]
    others = [run for run in runs if run["dataset"] != "made-25-edges"]
    rbf = [run for run in of_amount if run["model"] == "rbf"]
    gat = [run for run in of_amount if run["model"] == "gat"]
    mark = {"tuned": {"settings": 4, "seeds": 2, "space": {"lr": [0.01]}}}
    one = [*gat, *rbf]
    assert sweeps([*others, *one])
    with pytest.raises(ValueError, match="on 'made-25-edges' with one metric"):
        sweeps([*gat, *({**run, "metric": "rmse"} for run in rbf)])
    with pytest.raises(ValueError, match="on 'made-25-edges' that are equally tuned"):
        sweeps([*gat, *({**run, **mark} for run in rbf)])
    with pytest.raises(ValueError, match="'gat' on 'made-25-edges' with equal settings"):
        sweeps([*one, make_run("gat", 0, 0.9, dataset="made-25-edges", lr=0.5)])
    # Amounts stand beside each other, the graph as it is among them.
    with pytest.raises(ValueError, match="on 'made' and 'made-25-edges' with one metric"):
        sweeps([*others, *({**run, "metric": "rmse"} for run in one)])
    with pytest.raises(ValueError, match="on 'made-5-labels' and 'made-20-labels' that are equally tuned"):
        sweeps([{**run, **mark} if run["dataset"] == "made-20-labels" else run for run in others])
    # What no sweep has is nobody's concern.
    assert sweeps([*others, *({**run, "dataset": "else", "metric": "rmse"} for run in one)])


def test_a_small_p_value_is_no_zero():
    runs = [
        make_run(m, s, t + s / 100, dataset="made-5-labels")
        for m, t in (("gat", 0.5), ("rbf", 0.6))
        for s in range(12)
    ]
    assert "| < 0.001 |" in render(blocks(sweeps(runs)))


def test_the_table():
    text = render(blocks(sweeps(make_runs())))
    assert "| made | 25 % edges | `rbf` | 6 | 52.5 ± 1.9 | 54.5 ± 1.9 | +2.0 [+2.0, +2.0] | 0.031 |" in text
    assert "| made | 5 labels | `rbf` |" in text


def test_the_figure_has_a_panel_of_each():
    axes = [axes for axes in figure_of(make_runs()).axes if axes.lines]
    assert [[label.get_text() for label in panel.get_xticklabels()] for panel in axes] == [
        ["5", "20"],
        ["0", "25"],
    ]


def test_the_command(tmp_path, capsys):
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(run) + "\n" for run in make_runs()))
    assert not cli.main(["table", str(tmp_path), "--sweep", "--figure", str(tmp_path / "sweep.svg")])
    assert "20 labels" in capsys.readouterr().out
    assert (tmp_path / "sweep.svg").exists()
    assert cli.main(["table", str(tmp_path), "--sweep", "--verdict", "--figure", str(tmp_path / "a.png")])
    assert "Expected one of --verdict and --sweep" in capsys.readouterr().err
