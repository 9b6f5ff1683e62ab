import pytest
from made_runs import make_run
from test_properties import make_graphs, make_runs

from kgat.experiments.equal_settings import at_equal_settings, cell
from kgat.experiments.properties import blocks
from kgat.experiments.table import render
from kgat.experiments.verdict import verdicts
from kgat.measures import measure_of

pytestmark = pytest.mark.quick


def trial(model, number, val, dataset="made", seed=0, **setting):
    run = make_run("rbf" if model == "kernel" else model, seed, None, val, dataset)
    return {**run, "kind": "tune", "model": model, "trial": number, "setting": setting}


def test_trials_of_other_settings_are_left_out():
    records = [
        trial("gat", 0, 0.5),
        trial("kernel", 0, 0.75, start="unit"),  # what stock layers do not have may differ
        trial("gat", 1, 0.5, lr=0.1, kernel_lr=1.0),
        trial("kernel", 1, 0.25, lr=0.1, kernel_lr=10.0),
        trial("gat", 1, 0.5, seed=1, lr=0.1),
        trial("kernel", 1, 0.5, seed=1, lr=0.1),
        trial("gat", 2, 0.5, lr=0.1),
        trial("kernel", 2, 1.0, lr=0.2),
        trial("gat", 3, None, lr=0.1),
        trial("kernel", 3, 1.0, lr=0.1),
        trial("gatv2", 4, 0.5, lr=0.1),
        trial("kernel", 4, 1.0, lr=0.1),
        trial("kernel", 0, 0.5, "other"),
    ]
    assert at_equal_settings(records, "kernel", "gat") == {"made": [0.25, -0.125]}
    assert at_equal_settings(records, "kernel", "gatv2") == {"made": [0.5]}


def test_a_cell_says_which_way_is_better():
    differences = [-0.5, -0.25, 0.125]
    assert cell(differences, measure_of("accuracy")).text == "−25.0 (1 : 2)"
    assert cell(differences, measure_of("rmse")).text == "−0.25 (2 : 1)"
    assert cell([], measure_of("rmse")).text == "–"


def test_the_page_has_them_where_there_are_trials():
    names = "abcdefgh"
    trials = [trial("gat", 0, 0.5, "h"), trial("kernel", 0, 0.53, "h")]
    text = render(blocks([*make_graphs(names), *trials], verdicts(make_runs(names))))
    assert "| h | +4.0 | 9 | 2 | 2 | 3 | 0.7 | – | 0.1 | +3.0 (1 : 0) |" in text
    assert "| a | −3.0 | 9 | 2 | 2 | 3 | 0 | – | 0.1 | – |" in text
    assert text.count("Same settings: trials of the family") == 1
    assert "Same settings" not in render(blocks(make_graphs(names), verdicts(make_runs(names))))
