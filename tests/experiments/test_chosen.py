import pytest
from made_runs import make_run

from kgat.experiments.judgements import judgement

pytestmark = pytest.mark.quick

GRAPH = {"kind": "graph", "dataset": "made", "nodes_of_split": [1200, 30, 5]}


def tuned(model, changes, family=None, epochs=(10, 20, 60)):
    r"""Records of a first trial and of runs with settings that were chosen."""
    runs = []
    for seed, epoch in enumerate(epochs):
        run = make_run(model, seed, 0.5, dataset="made") | {"tuned": {"settings": 6}, "best_epoch": epoch}
        run["epochs"] = epoch + run["config"]["patience"] if epoch < 60 else run["config"]["max_epochs"]
        run["model"] = family or model
        runs.append(run | ({"family": True} if family else {}))
    first = {**runs[0], "kind": "tune", "trial": 0, "config": {**runs[0]["config"], "model": "rbf"}}
    for run in runs:
        kept = {name: value for name, value in run["config"].items() if changes.get(name, value) is not ...}
        run["config"] = kept | {name: value for name, value in changes.items() if value is not ...}
    return [first, *runs]


def test_what_trials_chose_differs_from_the_protocol():
    records = [
        GRAPH,
        *tuned("gat", {}),
        *tuned("laplace", {"dropout": 0.125, "start": None, "patience": ..., "kernel_lr": 10.0}, "kernel"),
    ]
    text = judgement("settings", records)
    assert "| made | 1,200 / 30 / 5 | `gat` | – | of the protocol | 6 |" in text
    assert "| `kernel` | `laplace` | `dropout=0.125` no `patience` `kernel_lr=10` | 6 |" in text
    assert text.count("| 20 | 1 of 3 |") == 2


def test_a_setting_that_a_model_has_no_use_for_is_no_choice():
    assert "`gat` | – | of the protocol" in judgement("settings", tuned("gat", {"kernel_lr": 0.1}))


def test_runs_that_nobody_tuned_have_no_chosen_settings():
    with pytest.raises(ValueError, match=r"Expected runs whose settings trials chose \(got gat without\)"):
        judgement("settings", [make_run("gat", 0, 0.5)])
