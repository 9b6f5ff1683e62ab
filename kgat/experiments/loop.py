r"""One training loop for all experiments: a step, a look at validation, and whose weights are kept."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

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

    Raises:
        Diverged: If a loss is not finite, with its epoch.

    Example:
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> scores = iter([0.5, 0.9, 0.7])
        >>> fit(model, lambda: 0.0, lambda: (1.0, next(scores)), epochs=3).best_epoch
        2
    """
    start = time.perf_counter()
    history: list[Epoch] = []
    state: dict[str, Tensor] = {}
    best_score, lowest_loss = -math.inf, math.inf
    kept = (-math.inf, -math.inf)  # score and negative loss of the kept epoch
    waited = 0
    for number in range(1, epochs + 1):
        try:
            train_loss = step()
            if number % every and number < epochs:
                continue
            epoch = Epoch(number, train_loss, *validate())
        except Diverged as error:
            error.epoch = number
            raise
        history.append(epoch)
        answers = [callback(epoch) for callback in callbacks]
        score_holds, loss_holds = epoch.score >= best_score, epoch.val_loss <= lowest_loss
        keeps = {
            "metric": (epoch.score, -epoch.val_loss) > kept,
            "loss": loss_holds,
            "both": score_holds and loss_holds,
        }
        if keeps[keep]:
            state = {name: value.clone() for name, value in model.state_dict().items()}
            best, kept = epoch, (epoch.score, -epoch.val_loss)
        best_score, lowest_loss = max(best_score, epoch.score), min(lowest_loss, epoch.val_loss)
        waited = 0 if score_holds or loss_holds else waited + 1
        if True in answers or waited == patience:
            break
    if not state:
        raise Diverged("validation loss", epoch.val_loss)
    model.load_state_dict(state)
    return Fitted(state, history, best, time.perf_counter() - start)
