r"""Ends trials early whose validation score stays below that of others."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from kgat.experiments.loop import Epoch

__all__ = ["Pruner"]

STEPS = (16, 32, 64, 128, 256, 512)  # epochs after which a run may be ended
LEAST = 4  # others, before one is


class Pruner:
    r"""Ends a run whose best validation score so far is worse than the median of others at the same epoch.

    What others had by then is taken from records of trials that were finished before this one began, so that
    it depends on no clock. They should have the same seed: the same split and initial generators.

    Args:
        others (list of list of float): For each of them its best score by each epoch of :data:`STEPS`.
        sign (int): Whether more is better, :obj:`1`, or less, :obj:`-1`.

    Example:
        >>> pruner = Pruner([[0.5] * 6, [0.6] * 6, [0.7] * 6, [0.8] * 6], sign=1)
        >>> [pruner(epoch, 1.0, 1.0, score=0.6) for epoch in (15, 16)], pruner.epoch
        ([False, True], 16)
    """

    def __init__(self, others: Sequence[Sequence[float]], sign: int) -> None:
        self.sign = sign
        medians = map(statistics.median, zip(*others, strict=True)) if len(others) >= LEAST else ()
        self.bars = {step: sign * median for step, median in zip(STEPS, medians, strict=False)}
        self.best: float | None = None
        self.epoch: int | None = None  # when it ended the run

    def __call__(self, epoch: int, train_loss: float, val_loss: float, score: float) -> bool:
        r"""Takes in an epoch; says whether it is the last."""
        score *= self.sign
        self.best = score if self.best is None else max(self.best, score)
        if epoch in self.bars and self.best < self.bars[epoch]:
            self.epoch = epoch
        return self.epoch is not None

    def after(self, on_epoch: Any) -> Any:
        r"""Returns what calls another hook first, and itself in any case."""

        def both(*values: Any) -> bool:
            stops = on_epoch is not None and on_epoch(*values) is True
            return self(*values) or stops

        return both

    def record(self, history: Sequence[Epoch]) -> dict[str, Any]:
        r"""Returns what the record of a run says: after which epoch it was :obj:`pruned`, or the best score
        by each epoch of :data:`STEPS`."""
        if self.epoch is not None:
            return {"pruned": self.epoch}
        scores = [[self.sign * epoch.score for epoch in history if epoch.number <= step] for step in STEPS]
        return {"by_epoch": [self.sign * max(of_step) for of_step in scores]}

    def state_dict(self) -> dict[str, Any]:
        r"""What a checkpoint holds."""
        return {"best": self.best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        r"""Goes on from a checkpoint."""
        self.best = state["best"]
