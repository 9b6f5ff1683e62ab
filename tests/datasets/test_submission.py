import numpy as np
import pytest
import torch
from made_tasks import make_graph_task, make_task

from kgat.datasets import Pairs, link_task, load, save_submission, submission

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("task", "columns"),
    [
        (make_task(), 1),
        (make_task(classes=2, metric="roc_auc"), 1),
        (make_task(torch.zeros(60, 4), classes=4, metric="f1_micro"), 4),
        (make_graph_task("rmse"), 1),
        (make_graph_task("roc_auc"), 1),
    ],
    ids=["classes", "binary", "labels", "values", "graphs"],
)
def test_a_row_for_each_of_the_test_part(task, columns, tmp_path):
    split = task.split(0)
    rows = split.test.numel()
    output = torch.randn(rows, task.out_channels, generator=torch.Generator().manual_seed(0))
    save_submission(tmp_path / "test.npz", task, split, output)
    answer = np.load(tmp_path / "test.npz")["y_pred"]
    assert answer.shape == (int(split.test.sum()), columns)
    if task.metric == "accuracy":
        assert (answer[:, 0] == output[split.test].argmax(1).numpy()).all()
    elif task.kind == "binary":
        assert (answer[:, 0] == (output[:, 1] - output[:, 0])[split.test].numpy()).all()


def test_links_are_apart_from_pairs_that_are_none():
    task = link_task(make_task())
    split = task.split(0)
    output = torch.arange(split.test.y.numel()).float()
    found = submission(task, split, output)
    assert (found["y_pred_pos"] == output[split.test.y == 1].numpy()).all()
    assert (found["y_pred_neg"] == output[split.test.y == 0].numpy()).all()
    own = Pairs(torch.zeros(2, 3, 4).long(), torch.tensor([[1, 0, 0, 0]] * 3))
    object.__setattr__(split, "test", own)
    found = submission(task, split, torch.arange(12.0).view(3, 4))
    assert found["y_pred_pos"].tolist() == [0, 4, 8]
    assert found["y_pred_neg"].shape == (3, 3)


def test_a_place_that_cannot_be_written(tmp_path):
    task = load("karate")
    (tmp_path / "file").write_text("")
    with pytest.raises(PermissionError, match=r"folder that can be written .*choose another 'path'"):
        save_submission(tmp_path / "file" / "test.npz", task, task.split(0), torch.zeros(34, 2))
