import math
import pickle

import pytest
import torch

from kgat.experiments.loop import Diverged, Epoch, fit


def scripted(validation, **options):
    r"""A model whose only weight is the number of steps."""
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    left = iter(validation)

    def step():
        with torch.no_grad():
            model.weight += 1
        return float(model.weight.detach())

    fitted = fit(model, step, lambda: next(left), **{"epochs": len(validation), **options})
    assert float(model.weight.detach()) == float(fitted.state["weight"]) == fitted.best_epoch
    return fitted


# The lowest loss is that of epoch 4, the best score that of 3 and 6; 2 was the last to have both.
VALIDATION = [(1.0, 0.5), (0.9, 0.6), (1.1, 0.7), (0.8, 0.6), (2.0, 0.1), (2.0, 0.7)]


@pytest.mark.parametrize(("keep", "best"), [("metric", 3), ("loss", 4), ("both", 2)])
def test_whose_weights_are_kept(keep, best):
    fitted = scripted(VALIDATION, keep=keep)
    assert (fitted.best_epoch, fitted.epochs, fitted.val) == (best, 6, VALIDATION[best - 1][1])
    assert fitted.history[1] == Epoch(2, 2.0, 0.9, 0.6)


def test_scores_below_zero_and_ties():
    assert scripted([(0.5, -0.5), (0.3, -0.3), (0.4, -0.4)]).best_epoch == 2
    assert scripted([(1.0, 0.7), (0.6, 0.7), (0.7, 0.7)]).best_epoch == 2  # of equal scores the lowest loss
    assert scripted([(1.0, 0.7), (1.0, 0.7)]).best_epoch == 1  # of equal ones the first


def test_patience_counts_epochs_without_progress():
    worse = [(1.0, 0.5), *[(2.0, 0.1)] * 5]
    assert scripted(worse, patience=2).epochs == 3
    assert scripted(worse).epochs == 6
    assert scripted([*worse[:2], (1.0, 0.1), *worse[1:]], patience=2).epochs == 5


def test_callbacks_see_every_epoch_and_may_stop():
    seen, other = [], []

    def stop(epoch):
        seen.append(epoch.number)
        return epoch.number == 2

    assert scripted(VALIDATION, callbacks=[stop, other.append]).epochs == 2
    assert seen == [1, 2]
    assert [epoch.score for epoch in other] == [0.5, 0.6]


def test_validation_every_few_epochs_and_at_the_end():
    fitted = scripted([(1.0, 0.1), (1.0, 0.2), (1.0, 0.3)], epochs=7, every=3)
    assert [epoch.number for epoch in fitted.history] == [3, 6, 7]
    assert fitted.best_epoch == 7


def test_divergence_names_the_loss_and_the_epoch():
    def third():
        raise Diverged("training loss of 'rbf'", math.inf, seen="all else is well", hint="lower lr")

    steps = iter([lambda: 0.0, lambda: 0.0, third])
    with pytest.raises(Diverged) as caught:
        fit(torch.nn.Linear(1, 1), lambda: next(steps)(), lambda: (1.0, 0.5), epochs=5)
    said = "Expected a finite training loss of 'rbf' (got inf in epoch 3; all else is well); lower lr"
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):  # also out of another process
        assert str(error) == said
    with pytest.raises(Diverged, match=r"Expected a finite validation loss \(got nan\)"):
        scripted([(math.nan, math.nan)] * 2)
