import math

import pytest
import torch

from kgat.datasets.metrics import METRICS

pytestmark = pytest.mark.quick
NAN = math.nan


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_names_are_those_of_their_keys():
    assert [metric.name for metric in METRICS.values()] == list(METRICS)
    assert {name for name, metric in METRICS.items() if not metric.greater} == {"rmse", "mae"}


@pytest.mark.parametrize(
    ("name", "output", "y", "expected"),
    [
        ("accuracy", [[2.0, 1.0], [2.0, 1.0], [0.0, 1.0]], [0, 1, 1], 2 / 3),
        ("balanced_accuracy", [[2.0, 1.0], [2.0, 1.0], [0.0, 1.0]], [0, 1, 1], 0.75),
        ("f1_macro", [[2.0, 1.0], [2.0, 1.0], [0.0, 1.0]], [0, 1, 1], 2 / 3),
        # 2 of 3 known labels that are there are found, and one is invented.
        ("f1_micro", [[1.0, 1.0], [1.0, -1.0]], [[1.0, 0.0], [1.0, 1.0]], 2 / 3),
        ("f1_micro", [[1.0, 1.0], [1.0, -1.0]], [[1.0, NAN], [1.0, 1.0]], 0.8),
        ("f1_macro", [[1.0, 1.0], [1.0, -1.0]], [[1.0, NAN], [1.0, NAN]], 1.0),
        (
            "f1_macro",
            [[1.0], [1.0], [-1.0], [1.0]],
            [[1.0], [0.0], [0.0], [NAN]],
            2 / 3,
        ),  # of the label alone
        ("f1_micro", [[1.0], [1.0], [-1.0], [1.0]], [[1.0], [0.0], [0.0], [NAN]], 2 / 3),
        ("average_precision", [[0.0, 3.0], [0.0, 2.0], [0.0, 1.0]], [1, 0, 1], (1 + 2 / 3) / 2),
        ("rmse", [[1.0], [2.0], [9.0]], [1.0, 4.0, NAN], math.sqrt(2)),
        ("rmse", [[1.0, 0.0], [2.0, 3.0]], [[1.0, 0.0], [4.0, NAN]], math.sqrt(2) / 2),
        ("mae", [[1.0], [2.0]], [1.0, 4.0], 1.0),
        ("r2", [[1.0], [2.0]], [1.0, 3.0], 0.5),
        # One negative is above the second positive; of an equal one half is.
        ("mrr", [3.0, 1.0, 2.0, 0.0], [1, 1, 0, 0], (1 + 1 / 2) / 2),
        ("mrr", [3.0, 3.0], [1, 0], 1 / 1.5),
        ("mrr", [[3.0, 4.0, 5.0], [2.0, 1.0, 0.0]], [[1, 0, 0], [1, 0, 0]], (1 / 3 + 1) / 2),
        ("hits@10", [*range(20, 8, -1), *range(0, 20, 2)], [1] * 12 + [0] * 10, 1.0),
        ("hits@10", [0.0, -0.5, *range(1, 11)], [1, 1, *[0] * 10], 0.0),
        ("hits@10", [0.0], [1], 1.0),
        ("hits@10", [[0.0, *[1.0] * 9], [0.0, *[0.0, *[1.0] * 8]]], [[1, *[0] * 9]] * 2, 1.0),
        ("hits@10", [[0.0, *[1.0] * 10], [0.0, 0.0, *[1.0] * 9]], [[1, *[0] * 10]] * 2, 0.0),
    ],
)
def test_small_tables(name, output, y, expected):
    assert METRICS[name](torch.tensor(output), torch.tensor(y)) == pytest.approx(expected)


def test_links_and_two_logits_are_scored_alike():
    score, y = drawn(50), (drawn(2, 50)[1] > 0).long()
    logits = torch.stack([-score, score], dim=1)
    for name in ("roc_auc", "average_precision"):
        assert METRICS[name](score, y) == METRICS[name](logits, y)


@pytest.mark.parametrize("name", ["mrr", "hits@10", "hits@20"])
def test_ranks_are_those_of_ogb(name):
    pytest.importorskip("ogb")
    from ogb.linkproppred import Evaluator

    evaluator = Evaluator("ogbl-citation2" if name == "mrr" else "ogbl-ddi")
    positive, negative = drawn(30).round(decimals=1), drawn(3, 30, 40).round(decimals=1)[2]
    if name == "mrr":
        theirs = evaluator.eval({"y_pred_pos": positive, "y_pred_neg": negative})["mrr_list"].mean()
        output = torch.cat([positive.unsqueeze(1), negative], dim=1)
        y = torch.zeros_like(output).long()
        y[:, 0] = 1
    else:
        evaluator.K = int(name.partition("@")[2])
        shared = negative.flatten()[:200]
        theirs = evaluator.eval({"y_pred_pos": positive, "y_pred_neg": shared})[name]
        output = torch.cat([positive, shared])
        y = torch.cat([torch.ones(30), torch.zeros(200)]).long()
    assert METRICS[name](output, y) == pytest.approx(float(theirs))


@pytest.mark.parametrize(("name", "y"), [("roc_auc", [1, 1]), ("average_precision", [0, 0])])
def test_one_class_is_refused(name, y):
    with pytest.raises(ValueError, match=rf"both classes among the test nodes because metric='{name}'"):
        METRICS[name](torch.zeros(2, 2), torch.tensor(y), "the test nodes")
