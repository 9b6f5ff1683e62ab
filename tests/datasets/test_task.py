import dataclasses

import pytest
import torch
from torch_geometric.data import Data

from kgat.datasets import Split, Task, load
from kgat.datasets import task as task_module

pytestmark = pytest.mark.quick

N = 6


def mask(*nodes):
    out = torch.zeros(N, dtype=torch.bool)
    out[list(nodes)] = True
    return out


def make(**change):
    parts = {
        "x": torch.arange(2.0 * N).view(N, 2),
        "edge_index": torch.tensor([[1, 0, 3], [0, 1, 2]]),
        "y": torch.tensor([0, 1, 0, 1, 0, 1]),
        "edge_attr": None,
        "splits": (Split("one", mask(0, 1), mask(2, 3), mask(4, 5)),),
        "metric": "accuracy",
        "num_classes": 2,
    }
    parts.update(change)
    data = Data(x=parts["x"], edge_index=parts["edge_index"], y=parts["y"])
    if parts["edge_attr"] is not None:
        data.edge_attr = parts["edge_attr"]
    return Task("toy", data, parts["splits"], parts["metric"], parts["num_classes"], "here", "nothing")


def test_the_digest_is_that_of_the_content():
    changes = [
        {},
        {"x": torch.ones(N, 2)},
        {"edge_index": torch.tensor([[1, 0, 3], [0, 1, 4]])},
        {"y": torch.tensor([0, 1, 0, 1, 1, 1])},
        {"edge_attr": torch.ones(3, 1)},
        {"splits": (Split("one", mask(0, 1), mask(2), mask(4, 5)),)},
        {"metric": "f1_macro"},
    ]
    digests = [make(**change).digest for change in changes]
    assert len(set(digests)) == len(digests)
    assert None not in digests
    assert make().digest == digests[0]
    # What a name tells has none, and keeps it; whoever replaces a part can say so.
    known = load("karate")
    assert known.digest is dataclasses.replace(known, metric="f1_macro").digest is None
    assert dataclasses.replace(known, metric="f1_macro", digest="content").digest is not None


def sparse(x):
    return x.to_sparse_csr()


@pytest.mark.parametrize("layout", [lambda x: x, sparse], ids=["dense", "csr"])
@pytest.mark.parametrize("column", [0, 1])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_first_bad_feature_is_named(layout, column, value):
    x = torch.ones(N, 3)
    x[2] = 0.0
    x[4, column] = x[5, 0] = value
    message = rf"finite features in 'toy' \(got {value} at node 4, column {column}; 2 in all\)"
    with pytest.raises(ValueError, match=message):
        make(x=layout(x))


@pytest.mark.parametrize("value", [-1, N])
def test_bad_edge_is_named(value):
    edge_index = torch.tensor([[0, 1, 2], [1, 0, value]])
    with pytest.raises(IndexError, match=rf"\[0, 5\] \(got {value} in row 1 of edge 2\)"):
        make(edge_index=edge_index)


@pytest.mark.parametrize("value", [-2, 2])
def test_bad_label_is_named(value):
    y = torch.tensor([0, 1, 0, value, 0, 1])
    with pytest.raises(IndexError, match=rf"to 1 \(got {value} at node 3\)"):
        make(y=y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": None}, r"features 'x' of shape \[N, F\] in 'toy' \(got none\)"),
        ({"x": torch.ones(N, 2, dtype=torch.long)}, r"got \[6, 2\] torch.int64"),
        ({"edge_index": torch.zeros(3, 2, dtype=torch.long)}, r"shape \[2, E\].*got \[3, 2\]"),
        ({"edge_index": torch.zeros(2, 2)}, r"integers in 'edge_index'"),
        ({"edge_attr": torch.ones(2, 1)}, r"per edge in 'toy', 3 \(got 2\)"),
        ({"y": torch.zeros(N - 1, dtype=torch.long)}, r"labels 'y' for the 6 nodes.*got \[5\]"),
        ({"y": torch.zeros(N)}, r"'y' of 'toy' in torch.int64 \(got torch.float32\)"),
        ({"metric": "f1"}, r"got 'f1'"),
        ({"metric": "roc_auc", "num_classes": 3}, r"two classes.*num_classes=3"),
        ({"y": torch.zeros(N, 2)}, r"one-dimensional because metric='accuracy'"),
        ({"splits": ()}, r"at least one split"),
        (
            {"splits": (Split("s", mask(0, 1), mask(1), mask(2)),)},
            r"disjoint masks in split 's'.*got node 1 in 'train' and 'val'",
        ),
        (
            {"splits": (Split("s", mask(0), mask(1), mask(0, 2)),)},
            r"got node 0 in 'train' and 'test'",
        ),
        ({"splits": (Split("s", mask(0), mask(), mask(2)),)}, r"nodes in 'val' of split 's'"),
        ({"splits": (Split("s", mask(0).long(), mask(1), mask(2)),)}, r"'train'.*torch.int64"),
        (
            {"y": torch.tensor([0, 1, 0, 1, -1, 1])},
            r"labelled nodes in 'test' of split 'one'.*got node 4 without label",
        ),
    ],
)
def test_invalid_task(change, message):
    with pytest.raises(ValueError, match=message):
        make(**change)


def test_split_takes_turns():
    one = Split("one", mask(0), mask(1), mask(2))
    two = Split("two", mask(3), mask(4), mask(5))
    task = make(splits=(one, two))
    assert [task.split(seed).name for seed in range(4)] == ["one", "two", "one", "two"]


def test_visible_hides_test_and_unlabelled_nodes():
    y = torch.tensor([0, 1, 0, 1, -1, 1])
    task = make(y=y, splits=(Split("s", mask(0, 1), mask(2), mask(5)),))
    visible = task.visible(task.split(0))
    assert visible.y.tolist() == [0, 1, 0, -1, -1, -1]
    assert not hasattr(visible, "test")
    assert task.data.y.tolist() == y.tolist()
    visible.y[5] = 0
    assert int(task.data.y[5]) == 1


def test_visible_of_multi_label_task_is_nan():
    y = torch.tensor([[0.0, 1.0]]).repeat(N, 1)
    task = make(y=y, metric="roc_auc")
    visible = task.visible(task.split(0))
    assert torch.isnan(visible.y[4:]).all()
    assert torch.equal(visible.y[:4], y[:4])


def test_accuracy():
    task = make()
    output = torch.tensor([[2.0, 1], [2, 1], [2, 1], [1, 2], [1, 2], [2, 1]])
    parts = {part: task.score(output, task.split(0), part) for part in ("train", "val", "test")}
    assert parts == {"train": 0.5, "val": 1.0, "test": 0.0}


def test_roc_auc_counts_ordered_pairs():
    y = torch.tensor([0, 1, 0, 0, 1, 1])
    split = Split("s", mask(0), mask(1), mask(2, 3, 4, 5))
    task = make(y=y, metric="roc_auc", splits=(split,))
    # Score differences of the test nodes: 0: -1, 0: 2, 1: 1, 1: 3, so 3 of 4 pairs are in order.
    output = torch.tensor([[0.0, 0], [0, 0], [1, 0], [3, 5], [0, 1], [-3, 0]])
    assert task.score(output, split, "test") == 0.75
    with pytest.raises(ValueError, match="both classes among part 'train' of 'toy'"):
        task.score(output, split, "train")


def test_roc_auc_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr("kgat.extras.find_spec", lambda name: None)
    task = make(metric="roc_auc")
    with pytest.raises(
        ImportError, match=r"'scikit-learn' for ROC-AUC .got none.; run: pip install 'kgat\[exp"
    ):
        task.score(torch.zeros(N, 2), task.split(0), "test")


def test_roc_auc_is_the_mean_over_labels_with_both_values():
    nan = float("nan")
    y = torch.tensor([[0.0, 0, 1], [0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1], [nan, 0, 1]])
    split = Split("s", mask(0), mask(1), mask(2, 3, 4, 5))
    task = make(y=y, metric="roc_auc", splits=(split,), num_classes=3)
    output = torch.tensor([[0.0], [0], [1], [2], [3], [9]]).repeat(1, 3)
    # Label 0: both pairs in order (node 5 is unknown); label 1: 1 of 4 pairs; label 2: no pair.
    assert task.score(output, split, "test") == pytest.approx((1.0 + 0.25) / 2)


def test_score_refuses_what_it_cannot_score():
    task = make()
    split = task.split(0)
    output = torch.zeros(N, 2)
    with pytest.raises(ValueError, match=r"\[N, num_classes\]=\[6, 2\] \(got \[6, 3\]\)"):
        task.score(torch.zeros(N, 3), split, "test")
    with pytest.raises(ValueError, match="got 'dev'"):
        task.score(output, split, "dev")
    output[5, 1] = float("nan")
    with pytest.raises(ValueError, match="got nan at node 5, column 1"):
        task.score(output, split, "test")
    assert task.score(output, split, "train") == 0.5


@pytest.mark.parametrize(
    ("y", "metric", "num_classes", "kind"),
    [
        (torch.tensor([0, 1, 2] * 2), "accuracy", 3, "multiclass"),
        (torch.tensor([0, 1] * 3), "average_precision", 2, "binary"),
        (torch.zeros(N, 3), "f1_micro", 3, "multilabel"),
        (torch.zeros(N), "rmse", 1, "regression"),
        (torch.zeros(N, 2), "r2", 2, "regression"),
    ],
)
def test_kind_is_what_labels_and_metric_say(y, metric, num_classes, kind):
    task = make(y=y, metric=metric, num_classes=num_classes)
    visible = task.visible(task.split(0))
    assert task.kind == visible.kind == kind
    assert task.level == visible.level == "node"
    assert task.out_channels == visible.out_channels == num_classes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "rmse"}, r"floating point values 'y' with num_classes=2 columns.*torch.int64"),
        ({"y": torch.zeros(N), "metric": "rmse"}, r"num_classes=2 columns"),
        (
            {"y": torch.full((N,), float("inf")), "metric": "rmse", "num_classes": 1},
            r"finite values of 'toy' \(got inf at node 0\)",
        ),
        (
            {"y": torch.full((N,), float("nan")), "metric": "rmse", "num_classes": 1},
            r"labelled nodes in 'train'.*got node 0 without label",
        ),
        ({"metric": "hits@10"}, r"metric of a binary task as 'metric' of 'toy' \(got 'hits@10'\); choose"),
        ({"metric": "acuracy"}, r"got 'acuracy'\).*accuracy"),
    ],
)
def test_invalid_values_and_metrics(change, message):
    with pytest.raises(ValueError, match=message):
        make(**change)


def test_regression_hides_and_scores_values():
    y = torch.tensor([1.0, 2, 3, 4, 5, 6])
    task = make(y=y, metric="rmse", num_classes=1)
    visible = task.visible(task.split(0))
    assert visible.y[:4].tolist() == [1, 2, 3, 4]
    assert visible.y[4:].isnan().all()
    assert task.score(y.view(-1, 1) + 2, task.split(0), "test") == 2.0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("piece", [1, 2, 1 << 16])
def test_first_bad_edge_feature_is_named(monkeypatch, piece, value):
    monkeypatch.setattr(task_module, "PIECE", piece)  # they are looked at in pieces, as they may lie on disk
    attr = torch.ones(3, 2)
    attr[1, 1] = attr[2, 0] = value
    message = rf"of edges in 'toy' \(got {value} at edge 1, from node 0 to 1, column 1\)"
    with pytest.raises(ValueError, match=message):
        make(edge_attr=attr)
    with pytest.raises(ValueError, match=rf"got {value} at edge 1, from node 0 to 1\)"):
        make(edge_attr=attr[:, 1])
    assert make(edge_attr=torch.tensor([1, 2, 3])).data.edge_attr.tolist() == [1, 2, 3]
