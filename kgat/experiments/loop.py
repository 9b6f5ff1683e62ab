r"""One training loop for all experiments: a step, a look at validation, and whose weights are kept."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kgat.experiments.checkpoint import Checkpoint

__all__ = ["Diverged", "Epoch", "Fitted", "fit"]


class Diverged(ValueError):
    r"""A loss is not finite any more.

    Args:
        what (str): Which loss, e.g. :obj:`"training loss"`.
        value (float): What it is.
        seen (str, optional): What else is known. (default: :obj:`""`)
        hint (str, optional): What to do. (default: :obj:`""`)

    Example:
        >>> raise Diverged("training loss", math.nan, hint="lower lr")
        Traceback (most recent call last):
        kgat.experiments.loop.Diverged: Expected a finite training loss (got nan); lower lr
    """

    epoch: int | None = None  # which 'fit' knows

    def __init__(self, what: str, value: float, *, seen: str = "", hint: str = "") -> None:
        super().__init__(what, value)
        self.what, self.value, self.seen, self.hint = what, value, seen, hint

    def __str__(self) -> str:
        epoch = "" if self.epoch is None else f" in epoch {self.epoch}"
        seen, hint = (f"; {text}" if text else "" for text in (self.seen, self.hint))
        return f"Expected a finite {self.what} (got {self.value}{epoch}{seen}){hint}"


class Epoch(NamedTuple):
    r"""What is known after an epoch: its number, counted from 1, the training loss, the validation loss, and
    the validation score, of which more is better."""

    number: int
    train_loss: float
    val_loss: float
    score: float


@dataclass(frozen=True)
class Fitted:
    r"""What :func:`fit` made.

    Args:
        state (dict): The state dict that was kept.
        history (list of Epoch): The epochs that were validated.
        best (Epoch): The one that was kept.
        seconds (float): Duration.
    """

    state: dict[str, Tensor]
    history: list[Epoch]
    best: Epoch
    seconds: float

    @property
    def best_epoch(self) -> int:
        r"""The number of the epoch that was kept."""
        return self.best.number

    @property
    def epochs(self) -> int:
        r"""How many epochs there were."""
        return self.history[-1].number

    @property
    def val(self) -> float:
        r"""The validation score of the kept epoch."""
        return self.best.score


def fit(
    model: torch.nn.Module,
    step: Callable[[], float],
    validate: Callable[[], tuple[float, float]],
    *,
    epochs: int,
    keep: str = "metric",
    patience: int | None = None,
    every: int = 1,
    callbacks: Sequence[Callable[[Epoch], object]] = (),
    checkpoint: Checkpoint | None = None,
    stateful: Mapping[str, Any] | None = None,
) -> Fitted:
    r"""Trains a model; at the end it has the weights of the epoch that was kept.

    Early stopping is that of `"Graph Attention Networks" <https://arxiv.org/abs/1710.10903>`_: an epoch
    counts as progress if the validation score is at least the best or the validation loss at most the lowest
    so far, and training stops after :obj:`patience` epochs without progress. That is so for all values of
    :obj:`keep`: every epoch that one of them keeps is progress, and a score that moves in steps, on few
    validation nodes, does not end a run whose loss still falls.

    Args:
        model (torch.nn.Module): The model.
        step (callable): Trains for an epoch and returns the training loss.
        validate (callable): Returns the validation loss and score.
        epochs (int): Epochs at most.
        keep (str, optional): Whose weights are kept: those of the epoch with the best score, of equal ones
            that with the lowest loss (:obj:`"metric"`), of the last one with the lowest loss (:obj:`"loss"`),
            or of the last one that had both at once when it came (:obj:`"both"`). (default: :obj:`"metric"`)
        patience (int, optional): Epochs without progress before training stops; never if :obj:`None`.
            (default: :obj:`None`)
        every (int, optional): How many epochs there are to a validation; the last is always validated.
            (default: :obj:`1`)
        callbacks (list of callable, optional): Called with each :class:`Epoch`; training stops when one
            returns :obj:`True`. (default: :obj:`()`)
        checkpoint (Checkpoint, optional): Where the run goes on if it was stopped, and what is written for
            that while it trains. (default: :obj:`None`)
        stateful (dict, optional): What changes beside the model and the generators that all share, by name:
            optimiser, scheduler, generators of loaders. (default: :obj:`None`)

    Raises:
        Diverged: If a loss is not finite, with its epoch.
        ValueError: If a checkpoint is one of another program.

    Example:
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> scores = iter([0.5, 0.9, 0.7])
        >>> fit(model, lambda: 0.0, lambda: (1.0, next(scores)), epochs=3).best_epoch
        2
    """
    course = _Course(keep)
    parts = {"course": course, "model": model, **(stateful or {})}
    if checkpoint is not None:
        checkpoint.load(parts)
    for number in range(course.number + 1, epochs + 1):
        course.number = number
        try:
            train_loss = step()
            if number % every and number < epochs:
                continue
            epoch = Epoch(number, train_loss, *validate())
        except Diverged as error:
            error.epoch = number
            raise
        answers = [callback(epoch) for callback in callbacks]
        course.take(epoch, model)
        if True in answers or course.waited == patience:
            break
        if checkpoint is not None and checkpoint.due(number):
            checkpoint.save(parts)
    if course.best is None:
        raise Diverged("validation loss", course.history[-1].val_loss, hint="lower the learning rate")
    model.load_state_dict(course.state)
    return Fitted(course.state, course.history, course.best, course.seconds)


class _Course:
    r"""What is known of a run so far, and the weights that are kept."""

    def __init__(self, keep: str) -> None:
        self.keep = keep
        self.number = self.waited = 0  # the last epoch, and how many there were without progress
        self.history: list[Epoch] = []
        self.state: dict[str, Tensor] = {}
        self.best: Epoch | None = None
        self.best_score, self.lowest_loss = -math.inf, math.inf
        self._start, self._before = time.perf_counter(), 0.0

    @property
    def seconds(self) -> float:
        r"""How long it has been under way, in all processes together."""
        return self._before + time.perf_counter() - self._start

    def take(self, epoch: Epoch, model: torch.nn.Module) -> None:
        r"""Counts an epoch, and keeps its weights if they are better."""
        self.history.append(epoch)
        score_holds, loss_holds = epoch.score >= self.best_score, epoch.val_loss <= self.lowest_loss
        kept = (-math.inf, -math.inf) if self.best is None else (self.best.score, -self.best.val_loss)
        keeps = {
            "metric": (epoch.score, -epoch.val_loss) > kept,
            "loss": loss_holds,
            "both": score_holds and loss_holds,
        }
        if keeps[self.keep]:
            self.state = {name: value.clone() for name, value in model.state_dict().items()}
            self.best = epoch
        self.best_score = max(self.best_score, epoch.score)
        self.lowest_loss = min(self.lowest_loss, epoch.val_loss)
        self.waited = 0 if score_holds or loss_holds else self.waited + 1

    def state_dict(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "waited": self.waited,
            "history": torch.tensor(self.history, dtype=torch.float64),
            "state": self.state,
            "best": None if self.best is None else tuple(self.best),
            "best_score": self.best_score,
            "lowest_loss": self.lowest_loss,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.number, self.waited, self.state = state["number"], state["waited"], state["state"]
        self.history = [Epoch(int(number), *values) for number, *values in state["history"].tolist()]
        self.best = None if state["best"] is None else Epoch(*state["best"])
        self.best_score, self.lowest_loss = state["best_score"], state["lowest_loss"]
        self._before = state["seconds"]
