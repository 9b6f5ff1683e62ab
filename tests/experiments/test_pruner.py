import pytest
from made_tasks import make_config, make_task

from kgat.experiments import tuning
from kgat.experiments.checkpoint import Checkpoint, Interval
from kgat.experiments.pruner import LEAST, STEPS, Pruner

OTHERS = [[0.3] * 6, [0.5] * 6, [0.7] * 6, [0.4, 0.5, 0.6, 0.7, 0.8, 0.9]]


@pytest.mark.parametrize(
    ("scores", "sign", "epoch"),
    [
        ({1: 0.5}, 1, 64),  # the median is 0.45, 0.5, 0.55: one that is reached is enough
        ({1: 0.4, 16: 0.46}, 1, 32),  # its best so far counts
        ({1: 0.4, 17: 0.9}, 1, 16),
        ({1: 0.6, 64: 0.1}, 1, None),
        ({1: 0.44}, -1, None),  # of an error less is better
        ({1: 0.46}, -1, 16),
    ],
)
def test_bars_are_medians(scores, sign, epoch):
    pruner = Pruner(OTHERS, sign)
    score = None
    for number in range(1, 100):
        score = scores.get(number, score)
        assert pruner(number, 0.0, 0.0, score) == (number == epoch)
        if number == epoch:
            break
    assert pruner.epoch == epoch
    assert Pruner(OTHERS[1:], sign).bars == {}
    assert len(OTHERS) == LEAST


def trial(pruner, on_epoch=None, checkpoint=None, **settings):
    settings = {"max_epochs": 40, "patience": 40, **settings}
    return tuning.trial(
        make_task(), make_config("gat", **settings), on_epoch=on_epoch, checkpoint=checkpoint, pruner=pruner
    )


def test_a_trial_says_how_good_it_was_by_each_epoch():
    scores = []
    record = trial(Pruner([], 1), on_epoch=lambda *values: scores.append(values[-1]))
    assert record["by_epoch"] == [max(scores[:step]) for step in STEPS]
    assert record["epochs"] == 40
    assert "pruned" not in record
    # One that stopped before a step has what it ended with there.
    assert trial(Pruner([], 1), max_epochs=5)["by_epoch"] == [max(scores[:5])] * len(STEPS)
    assert "by_epoch" not in trial(None, max_epochs=1)


def test_a_pruned_trial_is_recorded_as_such():
    record = trial(Pruner([[0.9] * len(STEPS)] * LEAST, 1))
    assert (record["pruned"], record["epochs"]) == (16, 16)
    assert record["val"] is not None
    assert "by_epoch" not in record


def test_the_best_score_is_in_checkpoints(tmp_path):
    scores = []
    trial(Pruner([], 1), on_epoch=lambda *values: scores.append(values[-1]))
    highest = max(scores[:16])
    assert highest > max(scores[10:16])  # it came before the run was stopped
    others = [[highest, 0, 0, 0, 0, 0]] * LEAST

    def stop(epoch, *_):
        if epoch == 11:
            raise KeyboardInterrupt

    checkpoint = Checkpoint(tmp_path / "state", Interval(epochs=5))
    with pytest.raises(KeyboardInterrupt):
        trial(Pruner(others, 1), stop, checkpoint)
    found = trial(Pruner(others, 1), checkpoint=checkpoint)
    assert "pruned" not in found
    assert found["by_epoch"] == [max(scores[:step]) for step in STEPS]
