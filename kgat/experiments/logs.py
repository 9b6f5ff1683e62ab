r"""Losses and scores of runs, epoch by epoch, where other programs show them."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kgat.atomic import make_folder
from kgat.experiments.config import Config
from kgat.extras import require
from kgat.names import unknown

__all__ = ["LOGS", "expect_log", "logged"]

OnEpoch = Callable[[int, float, float, float], Any]


def _scalars(train_loss: float, val_loss: float, metric: str, score: float) -> dict[str, float]:
    return {"loss/train": train_loss, "loss/val": val_loss, f"{metric}/val": score}


def _name(config: Config) -> str:
    model = re.sub(r"[^\w.=@-]+", "-", config.model)
    return f"{model}-seed{config.seed}-{config.key[:8]}"


@contextmanager
def _tensorboard(config: Config, metric: str, folder: Path) -> Iterator[OnEpoch]:
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = None

    def on_epoch(epoch: int, train_loss: float, val_loss: float, score: float) -> None:
        nonlocal writer
        if writer is None:  # a run that goes on from a checkpoint replaces what came after it
            writer = SummaryWriter(folder / "tensorboard" / _name(config), purge_step=epoch)
        for name, value in _scalars(train_loss, val_loss, metric, score).items():
            writer.add_scalar(name, value, epoch)

    try:
        yield on_epoch
    finally:
        if writer is not None:
            writer.close()


@contextmanager
def _wandb(config: Config, metric: str, folder: Path) -> Iterator[OnEpoch]:
    import wandb

    run = wandb.init(
        project=f"kgat-{config.dataset}",
        name=f"{config.model}, seed {config.seed}",
        id=config.key,
        resume="allow",
        dir=str(folder),
        config=config.as_dict(),
    )

    def on_epoch(epoch: int, train_loss: float, val_loss: float, score: float) -> None:
        run.log(_scalars(train_loss, val_loss, metric, score), step=epoch)

    try:
        yield on_epoch
    finally:
        run.finish()


LOGS = {"tensorboard": _tensorboard, "wandb": _wandb}


def expect_log(log: str | None) -> None:
    r"""Refuses a log that is unknown or whose package is missing.

    Raises:
        ValueError: If it is unknown.
        ImportError: If its package is missing.
    """
    if log is None:
        return
    if log not in LOGS:
        unknown("a log", log, LOGS)
    require(f"for --log {log}", log)


@contextmanager
def logged(log: str | None, config: Config, metric: str, folder: Path) -> Iterator[list[OnEpoch]]:
    r"""Opens the log of a run, and gives what is called after each of its epochs.

    Args:
        log (str, optional): :obj:`"tensorboard"` writes below ``folder/tensorboard``, :obj:`"wandb"` a run of
            Weights & Biases; nothing if :obj:`None`.
        config (Config): The settings of the run.
        metric (str): What is scored.
        folder (Path): The folder of the results.
    """
    if log is None:
        yield []
        return
    make_folder(folder)
    with LOGS[log](config, metric, folder) as on_epoch:
        yield [on_epoch]
