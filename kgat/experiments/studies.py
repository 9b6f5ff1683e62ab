r"""Tuning by trials: Optuna suggests settings from what earlier trials of a model scored on validation nodes.

A study has no file of its own. Its trials are records among the others, and what comes next is made of them:
each value that is suggested has a generator of its own, seeded by the data set, the number of the trial and
the name of the setting. So a search that was stopped, however it was, goes on to the same suggestions, with
any number of processes; and trials that are drawn at random, the first ones, draw the same for all models.
"""

import hashlib
import itertools
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from kgat.experiments.config import Config, stored
from kgat.experiments.families import Family
from kgat.experiments.pruner import Pruner
from kgat.experiments.registry import open_arguments, resolve_model, with_arguments
from kgat.experiments.settings import SETTINGS
from kgat.experiments.space import Choices, Dimension, Range
from kgat.experiments.training import build
from kgat.experiments.tuning import FIRST_SEED
from kgat.measures import measure_of
from kgat.names import shown

__all__ = ["Study", "Trial", "Trials"]

Record = Mapping[str, Any]

# Trials, the protocol among them, before suggestions look at what they scored. On functions drawn over this
# space, 4, 6 and 10 were hardly told apart within 12 and 24 trials; all were better than chance alone.
AT_RANDOM = 6
ATTEMPTS = 100  # to suggest what was not tried before, and can be built
MEMBER = "model"  # what the choice among a family is called, beside the settings


@dataclass(frozen=True)
class Trials:
    r"""How many trials each model or family is given, over what, and how many seeds each trial has.

    Args:
        settings (int): Number of trials; the protocol is the first.
        seeds (int): Number of seeds.
        space (dict): What is searched, see :func:`kgat.experiments.space.read_space`.
        prune (bool, optional): Whether a trial ends whose validation score is below the median of the
            earlier ones at the same epoch, with the same seed. (default: :obj:`False`)

    Raises:
        ValueError: If there is nothing to choose from, or no seed.
    """

    settings: int
    seeds: int
    space: Mapping[str, Dimension]
    prune: bool = False

    def __post_init__(self) -> None:
        for count, least, what, option in (
            (self.settings, 2, "at least 2 trials to choose from", "--trials 12"),
            (self.seeds, 1, "at least one seed per trial", "--tune-seeds 3"),
        ):
            if count < least:
                raise ValueError(f"Expected {what} (got {count}); pass {option}")

    def record(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        r"""Returns what a run that was tuned says of it."""
        space = {name: values.stored for name, values in self.space.items() if name not in overrides}
        tuned = {"settings": self.settings, "seeds": self.seeds, "sampler": "TPE", "space": space}
        return {**tuned, "prune": True} if self.prune else tuned


@dataclass(frozen=True)
class Trial:
    r"""One setting of one model.

    Args:
        number (int): Counted from 0, which is the protocol.
        setting (dict): What differs from the protocol, and which model it is of a family.
        configs (list of Config): The same for each seed.
    """

    number: int
    setting: Mapping[str, Any]
    configs: Sequence[Config]


class Study:
    r"""The trials of a model or family on a task.

    Args:
        task (Task, GraphTask or LinkTask): The task.
        family (Family): The model or models.
        trials (Trials): The budget.
        overrides (dict): Settings that are given and not searched.

    Raises:
        ValueError: If a value of the space is impossible.
    """

    def __init__(self, task: Any, family: Family, trials: Trials, overrides: Mapping[str, Any]) -> None:
        self.task, self.dataset, self.sign = task, task.name, measure_of(task.metric).sign
        self.family, self.trials, self.overrides = family, trials, dict(overrides)
        self.members = None if len(family.members) == 1 else Choices(family.members)
        self.spaces: dict[str, dict[str, Dimension]] = {}
        for member in family.members:
            fixed = {*overrides, *resolve_model(member).fixed}
            searched = {*open_arguments(member), *(name for name in SETTINGS if name not in fixed)}
            self.spaces[member] = {n: values for n, values in trials.space.items() if n in searched}
        self.protocols = {member: self._config({MEMBER: member}) for member in family.members}
        self._expect_possible()
        self._expect_enough()
        self.digest = self._digest()

    def _config(self, setting: Mapping[str, Any], seed: int = FIRST_SEED) -> Config:
        arguments = {name: value for name, value in setting.items() if "." in name}
        model = with_arguments(setting.get(MEMBER, self.family.members[0]), arguments)
        settings = {n: value for n, value in setting.items() if n != MEMBER and n not in arguments}
        return Config.of(self.dataset, model, seed, {**self.overrides, **settings})

    def _expect_possible(self) -> None:
        r"""Looks at the protocol, at each value of the space beside it, and at each width with each number of
        heads. What no model can be built with is a mistake; what some can is left to these."""
        space = {name: values for of_member in self.spaces.values() for name, values in of_member.items()}
        width, heads = (space.pop(name, None) for name in ("hidden_channels", "heads"))
        settings = [
            {name: value for name, value in pair.items() if value is not None}
            for pair in (
                {"hidden_channels": channels, "heads": count}
                for channels, count in itertools.product(_values(width), _values(heads))
            )
        ]
        settings += [{name: value} for name, values in space.items() for value in values.ends]
        for setting in settings:
            faults: list[ValueError] = []
            for member in (m for m, of_member in self.spaces.items() if setting.keys() <= of_member.keys()):
                fault = self._fault({MEMBER: member, **setting})
                if fault is None:
                    break
                faults.append(fault)
            else:
                if faults:
                    said = str(faults[0])
                    for name in setting:
                        said = said.replace(f"--set {name}=VALUE", f"--search {name}=VALUE,VALUE")
                    if not said.startswith("Expected"):  # of PyG or torch
                        values = ", ".join(f"{name}={shown(value)}" for name, value in setting.items())
                        said = f"Expected values that a model can be built with (got {values}: {said})"
                    raise ValueError(said)

    def _expect_enough(self) -> None:
        r"""Counts a space that is small, so that no search is begun that would not come to its end."""
        keys = {self._config({MEMBER: member}).key for member in self.family.members[:1]}
        for member, space in self.spaces.items():
            if any(isinstance(v, Range) and not isinstance(v.low, int) for v in space.values()):
                return
            for point in itertools.product(*map(_values, space.values())):
                setting = {MEMBER: member, **dict(zip(space, point, strict=True))}
                if self._fault(setting) is None:
                    keys.add(self._config(setting).key)
                if len(keys) >= self.trials.settings:
                    return
        raise self._too_few(len(keys))

    def _too_few(self, count: int) -> ValueError:
        names = dict.fromkeys(name for space in self.spaces.values() for name in space)
        return ValueError(
            f"Expected at least {self.trials.settings} settings of '{self.family.name}' to try (got {count} "
            f"of {', '.join(names) or 'nothing'}); lower --trials, or search more"
        )

    def _fault(self, setting: Mapping[str, Any]) -> ValueError | None:
        r"""Why a model cannot be built with a setting, if it cannot."""
        try:
            with torch.random.fork_rng(devices=[]):
                build(self.task, self._config(setting))
        except ValueError as error:
            return error
        return None

    def _digest(self) -> str:
        r"""Tells trials of the same suggestions: a larger budget begins with a smaller."""
        record = self.trials.record(self.overrides) | {"settings": 0}
        protocols = [config.as_dict() for config in self.protocols.values()]
        text = json.dumps([self.family.name, protocols, record])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    # --- Trials -------------------------------------------------------------------------------------------

    def records(self, records: Sequence[Record]) -> dict[int, dict[int, Record]]:
        r"""Returns the records of its trials: by number, and by seed."""
        of_trials: dict[int, dict[int, Record]] = {}
        for record in records:
            if record.get("kind") == "tune" and record.get("study") == self.digest:
                of_trials.setdefault(record["trial"], {})[record["seed"]] = record
        return of_trials

    def trial(self, records: Sequence[Record], number: int) -> Trial:
        r"""Returns a trial: as it was begun, or as it is suggested by all that come before it.

        Args:
            records (list of dict): Records among which are those of all earlier trials.
            number (int): Its number.

        Raises:
            ValueError: If there is nothing left that was not tried.
        """
        of_trials = self.records(records)
        if number in of_trials:
            return self._trial(number, self._setting(of_trials[number]))
        return self._suggested(of_trials, number) if number else self._trial(0, {})

    def _trial(self, number: int, setting: Mapping[str, Any]) -> Trial:
        seeds = range(FIRST_SEED, FIRST_SEED + self.trials.seeds)
        return Trial(number, setting, [self._config(setting, seed) for seed in seeds])

    def _suggested(self, of_trials: Mapping[int, Mapping[int, Record]], number: int) -> Trial:
        tried = {self._config(self._setting(of_seeds)).key for of_seeds in of_trials.values()}
        with _quiet() as optuna:
            past = [self._told(optuna, of_trials[n]) for n in range(number)]
            for attempt in range(ATTEMPTS):
                study = optuna.create_study(direction="maximize")
                study.add_trials(past)
                setting = self._drawn(optuna, study, number, attempt)
                if self._fault(setting) is None and self._config(setting).key not in tried:
                    return self._trial(number, setting)
        raise self._too_few(number)

    def _drawn(self, optuna: Any, study: Any, number: int, attempt: int) -> dict[str, Any]:
        asked = study.ask()
        # What the sampler insists on may be what cannot be built, or was tried.
        at_random = AT_RANDOM if attempt < ATTEMPTS // 10 else number + 1

        def draw(name: str, dimension: Dimension) -> Any:
            text = json.dumps([self.dataset, number, attempt, name])
            seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
            study.sampler = optuna.samplers.TPESampler(
                n_startup_trials=at_random, multivariate=False, seed=seed
            )
            return dimension.suggested(asked, name)

        setting: dict[str, Any] = {} if self.members is None else {MEMBER: draw(MEMBER, self.members)}
        space = self.spaces[setting.get(MEMBER, self.family.members[0])]
        return setting | {name: draw(name, values) for name, values in space.items()}

    def _setting(self, of_seeds: Mapping[int, Record]) -> dict[str, Any]:
        record = next(iter(of_seeds.values()))
        model = record["config"]["model"]  # of the protocol no setting says it
        member = {} if self.members is None or model not in self.members else {MEMBER: model}
        return {**member, **record["setting"]}

    def _told(self, optuna: Any, of_seeds: Mapping[int, Record]) -> Any:
        r"""What Optuna is told of a trial."""
        setting = self._setting(of_seeds)
        member = setting.get(MEMBER, self.family.members[0])
        usual = {MEMBER: member, **self.protocols[member].as_dict()}
        space = {**self.spaces[member], **({} if self.members is None else {MEMBER: self.members})}
        # The protocol need not lie in the space.
        values = {name: setting.get(name, stored(usual, name)) for name in space}
        params = {name: value for name, value in values.items() if value in space[name]}
        score = self._score(of_seeds)
        state = optuna.trial.TrialState
        return optuna.trial.create_trial(
            state=state.PRUNED if score is None else state.COMPLETE,  # of all, a pruned trial is the worst
            value=score,
            params=params,
            distributions={name: space[name].distribution for name in params},
        )

    def _score(self, of_seeds: Mapping[int, Record]) -> float | None:
        r"""The mean validation score of a trial, of which more is better; none of one that diverged, was
        pruned, or is not finished."""
        if len(of_seeds) < self.trials.seeds or any(map(_is_out, of_seeds.values())):
            return None
        return self.sign * statistics.fmean(record["val"] for record in of_seeds.values())

    def mark(self, trial: Trial, config: Config) -> dict[str, Any]:
        r"""Returns what the record of a trial says of it."""
        key = f"trial-{self.digest}-{trial.number}-{config.seed}"
        mark = {"study": self.digest, "trial": trial.number, "setting": dict(trial.setting)}
        return {"key": key, **self.family.mark, **mark}

    def is_out(self, records: Sequence[Record], trial: Trial, seed: int) -> bool:
        r"""Whether a trial need not be gone on with, after what earlier seeds gave: what a seed gave itself
        says nothing of it, so that a search that was stopped does what one does that was not."""
        of_seeds = self.records(records).get(trial.number, {})
        return any(_is_out(of_seeds[s.seed]) for s in trial.configs[:seed] if s.seed in of_seeds)

    def pruner(self, records: Sequence[Record], seed: int) -> Pruner | None:
        r"""Returns what may end a run of the next trial: the median of those before, with the same seed."""
        if not self.trials.prune:
            return None
        others = [
            of_seeds[seed]["by_epoch"]
            for of_seeds in self.records(records).values()
            if self._score(of_seeds) is not None
        ]
        return Pruner(others, self.sign)

    def chosen(self, records: Sequence[Record]) -> Config:
        r"""Returns the settings of the trial with the best mean validation score, of equal ones the first,
        with the first seed of runs.

        Args:
            records (list of dict): Records among which are those of all trials.

        Raises:
            ValueError: If no trial has a score.
        """
        of_trials = self.records(records)
        scores = {n: self._score(of_trials[n]) for n in range(self.trials.settings)}
        scored = [(score, -number) for number, score in scores.items() if score is not None]
        if not scored:
            raise ValueError(
                f"Expected a finite loss of '{self.family.name}' on '{self.dataset}' in one of the "
                f"{self.trials.settings} trials (got none); lower the learning rate with --search "
                "lr=0.0001..0.01"
            )
        return self._config(self._setting(of_trials[-max(scored)[1]]), seed=0)

    @property
    def largest(self) -> Config:
        r"""The widest and deepest settings."""
        member = self.family.members[0]
        space = self.spaces[member]
        sizes = ("hidden_channels", "num_layers")
        widest = {name: max(space[name].ends) for name in sizes if name in space}
        return self._config(widest | ({"heads": 1} if "heads" in space else {}))


def _is_out(record: Record) -> bool:
    return record["val"] is None or "pruned" in record


def _values(dimension: Dimension | None) -> Sequence[Any]:
    r"""All values of whole numbers."""
    if dimension is None:
        return (None,)
    if isinstance(dimension, Choices):
        return dimension.values
    return range(int(dimension.low), int(dimension.high) + 1)


@contextmanager
def _quiet() -> Iterator[Any]:
    r"""Optuna, which says nothing of each study."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield optuna
    finally:
        optuna.logging.set_verbosity(before)
