r"""A small search over settings on validation nodes alone: the same settings and order for all models."""

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kgat.datasets import Task
from kgat.experiments.checkpoint import Checkpoint
from kgat.experiments.circumstances import circumstances
from kgat.experiments.config import Config, protocol
from kgat.experiments.pruner import Pruner
from kgat.experiments.registry import resolve_model
from kgat.experiments.training import Diverged, OnEpoch, begun, build, fit
from kgat.measures import measure_of

__all__ = ["SPACE", "Budget", "choose", "trial"]

# What is searched. The width is not: models would no longer be of one size.
SPACE: dict[str, tuple[float, ...]] = {
    "lr": (0.005, 0.01, 0.02),
    "weight_decay": (0.0, 5e-4, 5e-3),
    "dropout": (0.2, 0.5, 0.7),
    "input_dropout": (0.2, 0.5, 0.7),
}
ORDER = 0  # the seed that shuffles the space
# Runs count their seeds from 0: none has the initial weights by which its settings were chosen. A multiple of
# the number of splits of most sets, so that trials begin with the first split.
FIRST_SEED = 1_000_000


@dataclass(frozen=True)
class Budget:
    r"""How many settings each model is given, and how many seeds each of them is trained with.

    Args:
        settings (int): Number of settings, the protocol among them.
        seeds (int, optional): Number of seeds. (default: :obj:`3`)

    Raises:
        ValueError: If there is nothing to choose from, or no seed.

    Example:
        >>> for setting in Budget(3).drawn("Cora"):
        ...     print(setting)
        {}
        {'lr': 0.005, 'weight_decay': 0.005, 'dropout': 0.7, 'input_dropout': 0.2}
        {'lr': 0.01, 'weight_decay': 0.005, 'dropout': 0.5, 'input_dropout': 0.2}
    """

    settings: int
    seeds: int = 3

    def __post_init__(self) -> None:
        for count, least, what, option in (
            (self.settings, 2, "at least 2 settings to choose from", "--tune 8"),
            (self.seeds, 1, "at least one seed per setting", "--tune-seeds 3"),
        ):
            if count < least:
                raise ValueError(f"Expected {what} (got {count}); pass {option}")

    def drawn(
        self, dataset: str, overrides: Mapping[str, Any] | None = None, model: str | None = None
    ) -> list[dict[str, Any]]:
        r"""Returns what the settings change: nothing in the first, which is the protocol, then distinct
        points of :data:`SPACE` in an order that is always the same: a larger budget begins with a smaller.

        Args:
            dataset (str): The data set.
            overrides (dict, optional): Settings that are given and not searched. (default: :obj:`None`)
            model (str, optional): The model: what it does not take is not searched, so that as many distinct
                settings are tried of it as of others. (default: :obj:`None`)

        Raises:
            ValueError: If the space does not have so many.
        """
        base = {**protocol(dataset), **(overrides or {})}
        space = _searched({**(overrides or {}), **(resolve_model(model).fixed if model else {})})
        points = [dict(zip(space, point, strict=True)) for point in itertools.product(*space.values())]
        random.Random(ORDER).shuffle(points)
        others = [point for point in points if any(base[name] != value for name, value in point.items())]
        if len(others) < self.settings - 1:
            raise ValueError(
                f"Expected at most {len(others) + 1} settings of {', '.join(space) or 'nothing'} (got "
                f"{self.settings}); lower --tune, or leave more open"
            )
        return [{}, *others[: self.settings - 1]]

    def configs(
        self, dataset: str, model: str, overrides: Mapping[str, Any] | None = None
    ) -> list[list[Config]]:
        r"""Returns the trials of a model: a list of settings, each with all its seeds."""
        seeds = range(FIRST_SEED, FIRST_SEED + self.seeds)
        return [
            [Config.of(dataset, model, seed, {**(overrides or {}), **setting}) for seed in seeds]
            for setting in self.drawn(dataset, overrides, model)
        ]

    def record(self, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
        r"""Returns what a run that was tuned says of it."""
        space = {name: list(values) for name, values in _searched(overrides).items()}
        return {"settings": self.settings, "seeds": self.seeds, "space": space}


def _searched(overrides: Mapping[str, Any] | None) -> dict[str, tuple[float, ...]]:
    return {name: values for name, values in SPACE.items() if name not in (overrides or {})}


def key(config: Config) -> str:
    r"""Identifies a trial; no run has this key."""
    return f"tune-{config.key}"


def trial(
    task: Task,
    config: Config,
    *,
    device: str = "cpu",
    on_epoch: OnEpoch | None = None,
    checkpoint: Checkpoint | None = None,
    pruner: Pruner | None = None,
) -> dict[str, Any]:
    r"""Trains one setting with one seed; never scores the test nodes, nor hands anything on that could.

    Args:
        task (Task): The task.
        config (Config): The settings.
        device (str, optional): Where to train. (default: :obj:`"cpu"`)
        on_epoch (callable, optional): As in :func:`kgat.experiments.training.fit`. (default: :obj:`None`)
        checkpoint (Checkpoint, optional): As there. (default: :obj:`None`)
        pruner (Pruner, optional): What may end it early; the record then says after which epoch it was
            :obj:`pruned`, and of one that was not, how good it was :obj:`by_epoch`. (default: :obj:`None`)

    Returns:
        dict: A record of kind :obj:`"tune"`, whose only score :obj:`val` is that of the kept epoch, or
        :obj:`None` if the loss did not stay finite.

    Example:
        >>> from kgat.datasets import load
        >>> config = Config.of("karate", "rbf", overrides={"max_epochs": 3})
        >>> record = trial(load("karate"), config)
        >>> record["kind"], 0 <= record["val"] <= 1, "test" in record
        ('tune', True, False)
    """
    record = {**begun("tune", key(config), task, config), "val": None, **circumstances(device)}
    model = build(task, config).to(device)
    told = on_epoch if pruner is None else pruner.after(on_epoch)
    stateful = None if pruner is None else {"pruner": pruner}
    visible = task.visible(task.split(config.seed))
    try:
        fitted = fit(model, visible, config, on_epoch=told, checkpoint=checkpoint, stateful=stateful)
    except Diverged:
        return record
    record |= {
        "val": fitted.val,
        "best_epoch": fitted.best_epoch,
        "epochs": fitted.epochs,
        "seconds": round(fitted.seconds, 4),
    }
    return record if pruner is None else record | pruner.record(fitted.history)


def choose(
    records: Sequence[Mapping[str, Any]],
    dataset: str,
    model: str,
    budget: Budget,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    r"""Returns the setting with the best mean validation score, of equal ones the first; one that diverged
    with any seed is out.

    Args:
        records (list of dict): Records among which are all trials of the model.
        dataset (str): The data set.
        model (str): The model.
        budget (Budget): The budget.
        overrides (dict, optional): Settings that are given and not searched. (default: :obj:`None`)

    Returns:
        dict: What it changes, as :meth:`Budget.drawn` has it.

    Raises:
        ValueError: If all settings diverged.
    """
    trials = {record["key"]: record for record in records if record.get("kind") == "tune"}
    scores = {name: record["val"] for name, record in trials.items()}
    sign = next((measure_of(record.get("metric", "accuracy")).sign for record in trials.values()), 1)
    best, chosen = -math.inf, None
    settings = budget.drawn(dataset, overrides, model)
    for setting, configs in zip(settings, budget.configs(dataset, model, overrides), strict=True):
        of_seeds = [scores[key(config)] for config in configs]
        if None not in of_seeds and sign * sum(of_seeds) / len(of_seeds) > best:
            best, chosen = sign * sum(of_seeds) / len(of_seeds), setting
    if chosen is None:
        raise ValueError(
            f"Expected a finite loss of '{resolve_model(model).name}' on '{dataset}' with one of the "
            f"{budget.settings} settings (got none); lower the learning rate with --set lr=0.001"
        )
    return chosen


def said(tuned: Mapping[str, Any] | None) -> str:
    r"""Says in words how runs were tuned.

    Args:
        tuned (dict, optional): What their records hold; :obj:`None` if they were not.

    Example:
        >>> said(None)
        'without tuning'
    """
    if tuned is None:
        return "without tuning"
    space = ", ".join(tuned["space"])
    if "sampler" in tuned:
        pruned = ", pruned" if tuned.get("prune") else ""
        return f"tuned by {tuned['settings']} trials{pruned} × {tuned['seeds']} seeds over {space}"
    return f"tuned over {tuned['settings']} settings × {tuned['seeds']} seeds of {space}"
