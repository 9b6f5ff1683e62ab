r"""Compares models: the same seeds for all, resumable, in this process or in several."""

import dataclasses
import os
import pickle
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from kgat.datasets import GraphTask, LinkTask, Task, load
from kgat.experiments import tuning
from kgat.experiments.checkpoint import Checkpoints, Interval
from kgat.experiments.concurrency import runs_at_once
from kgat.experiments.config import Config, differing, on_task, stored
from kgat.experiments.costs import ROUNDS, has_cost, measure_cost
from kgat.experiments.engine import Engine, Job, Note
from kgat.experiments.families import Family, families
from kgat.experiments.ledger import numbered
from kgat.experiments.logs import expect_log, logged
from kgat.experiments.pruner import Pruner
from kgat.experiments.records import BASELINE, RESULTS
from kgat.experiments.registry import (
    Model,
    argument_named,
    expect_picklable,
    expect_taken,
    given,
    resolve_model,
    warn_of_unseen_edges,
)
from kgat.experiments.space import read_space
from kgat.experiments.studies import Study, Trial, Trials
from kgat.experiments.tables import runs_in
from kgat.experiments.training import OnEpoch, train
from kgat.extras import require
from kgat.measures import measure_of

Record = Mapping[str, Any]
Hook = Callable[..., Any]  # of a configuration, an epoch, both losses and the score

# What drawing a record raises that is not as kgat writes it.
MALFORMED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
Models = str | Sequence[Any] | Mapping[str, Any]
DEFAULT_MODELS = ("gat", "gatv2", "dot", "rbf", "rbf*lp", "spectral")


def compare(
    dataset: str | Task | GraphTask | LinkTask,
    models: Models = DEFAULT_MODELS,
    seeds: int = 10,
    out: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    progress: bool = False,
    *,
    device: str = "cpu",
    rounds: int = ROUNDS,
    figures: bool = True,
    jobs: int | None = 1,
    tune: int = 0,
    tune_seeds: int = 3,
    trials: int = 0,
    search: Mapping[str, Any] | None = None,
    space: str | os.PathLike[str] | None = None,
    prune: bool = False,
    metric: str | None = None,
    checkpoint: str = "30s",
    resume: bool = True,
    on_epoch: Hook | None = None,
    log: str | None = None,
    formats: Sequence[str] = ("png",),
) -> list[dict[str, Any]]:
    r"""Trains every model with every seed, measures their cost, and draws the figures.

    A seed picks the split and the initial weights, for all models alike, so that runs of one seed
    are paired. Each run is appended to ``results.jsonl`` as soon as it is done, and a run that is
    there already is not repeated: a comparison that was stopped goes on where it was.

    With :obj:`tune`, each model first chooses among so many settings, the same ones for all models: the
    protocol, and points of :data:`kgat.experiments.tuning.SPACE`. Trials see the labels of training and
    validation nodes alone, have seeds of their own, and go to ``results.jsonl`` as well. Of a set with
    several splits, validation nodes of one are test nodes of another, as wherever settings are chosen once
    for all splits.

    With :obj:`trials`, Optuna suggests so many settings for each model instead, out of a larger space and by
    what earlier trials of the model scored on validation nodes, the protocol first. A family of models is
    tuned as one: which of them it stands for is chosen inside its trials.

    Args:
        dataset (str or Task): A name that :func:`kgat.datasets.load` takes, or a task.
        models (list or dict, optional): Names that :func:`resolve_model` takes, and classes and factories of
            modules, whose arguments are matched by name, and classes of kernels; a dictionary says what they
            are called: ``{"mine": factory, "rbf": "rbf"}``. With several :obj:`jobs`, a factory must be
            importable: at the top of a module. With :obj:`trials`, also families,
            :obj:`"kernel{rbf,dot}"` or ``{"kernel": ["rbf", "dot"]}``.
        seeds (int, optional): Number of seeds, counted from 0. (default: :obj:`10`)
        out (str or Path, optional): The folder of the results; ``runs/DATASET`` if :obj:`None`.
            (default: :obj:`None`)
        root (str or Path, optional): The folder of the data sets. (default: :obj:`None`)
        overrides (dict, optional): Settings that differ from the protocol. (default: :obj:`None`)
        progress (bool, optional): Whether to show a progress bar. (default: :obj:`False`)
        device (str, optional): Where to train. (default: :obj:`"cpu"`)
        rounds (int, optional): Rounds of the measurement of cost; 0 leaves it out.
            (default: :obj:`20`)
        figures (bool, optional): Whether to draw figures and report. (default: :obj:`True`)
        jobs (int, optional): How many runs go on at once, each in a process of its own with as many
            threads as this one; the records are the same. With :obj:`None`, as many as threads and free
            memory allow, among which the threads of this process are divided. (default: :obj:`1`)
        tune (int, optional): How many settings each model may choose from; 0 leaves all at the protocol.
            (default: :obj:`0`)
        tune_seeds (int, optional): How many seeds each of these settings, or each trial, is trained with.
            (default: :obj:`3`)
        trials (int, optional): How many trials each model or family is given; 0 for none.
            (default: :obj:`0`)
        search (dict, optional): What trials search beside the declared space or instead of what it says of a
            setting, see :func:`kgat.experiments.space.read_space`. (default: :obj:`None`)
        space (str or Path, optional): A file that declares the space instead. (default: :obj:`None`)
        prune (bool, optional): Whether trials end early that are worse on validation nodes than the median of
            the earlier ones at the same epoch. (default: :obj:`False`)
        metric (str, optional): What is scored, of a data set that is loaded by its name; that of the
            benchmark if :obj:`None`. (default: :obj:`None`)
        checkpoint (str, optional): How often a run writes its state to :obj:`out`, as
            :meth:`kgat.experiments.checkpoint.Interval.read` has it; never if :obj:`"0"`.
            (default: :obj:`"30s"`)
        resume (bool, optional): Whether a run that was stopped goes on from there, or begins anew.
            (default: :obj:`True`)
        on_epoch (callable, optional): Called as ``on_epoch(config, epoch, train_loss, val_loss, score)``
            after each epoch of each run and trial; training stops when it returns :obj:`True`. With several
            :obj:`jobs` it is called in their processes, and must be importable. (default: :obj:`None`)
        log (str, optional): Where losses and scores of all epochs go as well: :obj:`"tensorboard"`, below
            :obj:`out`, or :obj:`"wandb"`. (default: :obj:`None`)
        formats (list of str, optional): In which formats figures are written: :obj:`"png"`, :obj:`"svg"`,
            :obj:`"pdf"`. (default: :obj:`("png",)`)

    Returns:
        list of dict: All records of the folder.

    Raises:
        ValueError: If a name or a setting is wrong, or if the folder holds runs of one of the
            models with other settings, or of any model with another budget of tuning.
        PermissionError: If the folder cannot be written.
        Interrupted: On Ctrl-C.
    """
    overrides = overrides or {}
    entrants, own = _checked(dataset, models, seeds, jobs)
    expect_log(log)
    if figures:  # before hours of training, not behind them
        require("for figures and report, which figures=False leaves out", "matplotlib", "networkx")
        _expect_formats(formats)
    interval = Interval.read(checkpoint)
    budget = _budget(entrants, overrides, tune, tune_seeds, trials, prune, search, space)
    with given(own):
        names = [member for family in entrants for member in family.members]
        expect_taken(names, overrides)
        task = load(dataset, root, metric=metric) if isinstance(dataset, str) else dataset
        warn_of_unseen_edges(names, task)
        overrides = on_task(overrides, task)
        tuned = budget.record(overrides) if budget else None
        plan = Plan(task, entrants, overrides, budget, search or {})
        total = len(entrants) * (seeds + (budget.settings * budget.seeds if budget else 0))
        threads = torch.get_num_threads()
        if jobs is None:
            jobs = min(runs_at_once(task, plan.largest, device), total)
            threads = max(1, threads // jobs)
        if jobs > 1:
            expect_picklable(own)
            _expect_importable(on_epoch)
        path = (Path("runs") / task.name if out is None else Path(out)) / RESULTS
        checkpoints = Checkpoints(path.parent, interval, resume)
        engine = Engine(
            path,
            total,
            key_of=partial(_key, task),
            shared=(task, device, {"tuned": tuned} if tuned else {}, checkpoints, own, Watch(on_epoch, log)),
            workers=jobs,
            title=task.name,
            shown=progress,
            describe=_described,
            on_finished=lambda job: checkpoints.remove(str(job.key)),
        )
        with _torch_threads(threads), engine:
            chosen = _run_all(engine, plan, seeds, figures)
            if rounds:
                # Of a model that takes all settings, or what was set for others would be lost.
                bare = [c.model.partition("@")[0] for c in plan.protocols if resolve_model(c.model).settings]
                usual = [Config.of(task.name, name, overrides=overrides) for name in (BASELINE, *bare)]
                candidates = [c for c in plan.protocols if not resolve_model(c.model).settings] + usual
                config = min(candidates, key=lambda config: len(resolve_model(config.model).fixed))
                _measure(engine, config, {name: config.model for name, config in chosen.items()}, rounds)
            if figures:
                engine.progress.note("drawing figures")
                draw(engine.records, path.parent, formats)
    return engine.records


class Plan:
    r"""What is compared, and how it is tuned before.

    Args:
        task (Task, GraphTask or LinkTask): The task.
        entrants (list of Family): The models and families.
        overrides (dict): Settings that are given for all of them.
        budget (Budget or Trials, optional): How they are tuned.
        search (dict): What the user asked to have searched.

    Raises:
        ValueError: If there is less to choose from than the budget has.
    """

    def __init__(
        self,
        task: Any,
        entrants: Sequence[Family],
        overrides: Mapping[str, Any],
        budget: tuning.Budget | Trials | None,
        search: Mapping[str, Any],
    ) -> None:
        self.task, self.entrants, self.overrides, self.budget = task, entrants, overrides, budget
        self.protocols = [
            Config.of(task.name, member, overrides=overrides)
            for family in entrants
            for member in family.members
        ]
        self.trials: list[Config] = []
        self.studies: list[Study] = []
        if isinstance(budget, Trials):
            self.studies = [Study(task, family, budget, overrides) for family in entrants]
            _expect_searched(self.studies, search)
        elif budget is not None:
            self.trials = _trials(task.name, [family.name for family in entrants], overrides, budget)

    @property
    def largest(self) -> Config:
        r"""The settings that take the most memory."""
        return self.studies[0].largest if self.studies else self.protocols[0]

    def choose(self, engine: Engine) -> dict[str, Config]:
        r"""Tunes; returns the settings of each model or family, with the first seed."""
        if self.studies:
            _run_studies(engine, self.studies)
            return {study.family.name: study.chosen(engine.records) for study in self.studies}
        engine.run(
            [Job(tuning.key(config), f"trial of {_label(config)}", _try, (config,)) for config in self.trials]
        )
        settings = {family.name: dict(self.overrides) for family in self.entrants}
        if isinstance(self.budget, tuning.Budget):
            for name, of_model in settings.items():
                of_model |= tuning.choose(engine.records, self.task.name, name, self.budget, self.overrides)
        return {name: Config.of(self.task.name, name, 0, of_model) for name, of_model in settings.items()}


def _run_studies(engine: Engine, studies: Sequence[Study]) -> None:
    r"""In turns: trial after trial, each of all studies, so that a search that is stopped has given them the
    same, and what is suggested does not depend on how many processes there are."""
    for number in range(studies[0].trials.settings):
        trials = [(study, study.trial(engine.records, number)) for study in studies]
        seeds = range(studies[0].trials.seeds)
        # Whose first seed was pruned needs no other.
        for at_once in [[seed] for seed in seeds] if studies[0].trials.prune else [seeds]:
            going = [each for each in trials if not each[0].is_out(engine.records, each[1], at_once[0])]
            engine.progress.count((len(trials) - len(going)) * len(at_once))
            engine.run([_trial_of(engine, *each, seed) for each in going for seed in at_once])


def _trial_of(engine: Engine, study: Study, trial: Trial, seed: int) -> Job:
    config = trial.configs[seed]
    mark = study.mark(trial, config)
    label = f"trial {trial.number} of {study.family.name}, seed {config.seed}"
    return Job(mark["key"], label, _try, (config, mark, study.pruner(engine.records, config.seed)))


@contextmanager
def _torch_threads(number: int) -> Iterator[None]:
    # They are the caller's: what is computed after a comparison has as many as before.
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _run_all(engine: Engine, plan: Plan, seeds: int, figures: bool) -> dict[str, Config]:
    r"""Trials, then runs with what they chose."""
    task, _, mark, *_ = engine.shared
    path, tuned = Path(engine.path), mark.get("tuned")

    def expect(records: Sequence[Record]) -> None:
        _expect_same_metric(records, task, path)
        _expect_same_data(records, task, path)
        _expect_same_families(records, task.name, plan.entrants, path)
        _expect_same_budget(records, task.name, tuned, path)
        _expect_same_studies(records, plan.studies, path)

    def expect_chosen(records: Sequence[Record]) -> None:
        expect(records)
        _expect_same_settings(records, {name: [config] for name, config in chosen.items()}, path)

    # Also of what other processes append meanwhile.
    engine.expect = expect
    expect(engine.records)
    by_name = {
        family.name: [config for config in plan.protocols if config.model in family.members]
        for family in plan.entrants
    }
    _expect_same_settings(engine.records, by_name, path, but=(*tuned["space"], "model") if tuned else ())
    chosen = plan.choose(engine)
    engine.expect = expect_chosen
    expect_chosen(engine.records)
    # What is drawn of attention is that of a graph of one type.
    figures = figures and getattr(task, "target", None) is None
    runs = [
        _run_of(family, dataclasses.replace(chosen[family.name], seed=seed), figures and seed == 0)
        for seed in range(seeds)
        for family in plan.entrants
    ]
    engine.run(runs)
    return chosen


def _checked(
    dataset: object, models: Models, seeds: int, jobs: int | None
) -> tuple[list[Family], dict[str, Model]]:
    if not isinstance(dataset, str | Task | GraphTask | LinkTask):
        raise TypeError(
            f"Expected the name of a data set or a Task (got {type(dataset).__name__}); wrap a graph of your "
            "own with its splits: kgat.datasets.Task(name, data, splits, metric, num_classes, source, "
            "preprocessing)"
        )
    if seeds < 1:
        raise ValueError(f"Expected at least one seed (got {seeds}); pass --seeds 10")
    if jobs is not None and jobs < 1:
        raise ValueError(f"Expected at least one job (got {jobs}); pass --jobs 1")
    if not models:
        raise ValueError("Expected at least one model (got none); pass --models gat,rbf")
    return families(models)


def _budget(
    entrants: Sequence[Family],
    overrides: Mapping[str, Any],
    tune: int,
    seeds: int,
    trials: int,
    prune: bool,
    search: Mapping[str, Any] | None,
    space: str | os.PathLike[str] | None,
) -> tuning.Budget | Trials | None:
    if tune and trials:
        raise ValueError(f"Expected either --tune or --trials (got {tune} and {trials}); leave one out")
    if not trials:
        for option, value in (("search", search), ("space", space), ("prune", prune)):
            if value:
                raise ValueError(f"Expected --trials beside --{option} (got none); pass --trials 12")
        for family in entrants:
            if not family.is_single:
                raise ValueError(
                    f"Expected --trials beside the family '{family.name}', of which they choose a model (got "
                    "none); pass --trials 12, or name one model"
                )
        return tuning.Budget(tune, seeds) if tune else None
    require("to suggest settings by --trials", "optuna")
    searched = read_space(search, space)
    if overrides.get("neighbors") is not None and "num_layers" not in (search or {}):
        searched.pop("num_layers", None)  # it has a number for each layer
    return Trials(trials, seeds, searched, prune)


def _trials(
    dataset: str, names: Sequence[str], overrides: Mapping[str, Any], budget: tuning.Budget
) -> list[Config]:
    r"""In turns, so that a search that is stopped has given all models the same."""
    of_models = [budget.configs(dataset, name, overrides) for name in names]
    in_turns = zip(*of_models, strict=True)
    return [config for of_setting in in_turns for configs in of_setting for config in configs]


# --- Jobs -------------------------------------------------------------------------------------------------


def _label(config: Config) -> str:
    return f"{config.model}, seed {config.seed}"


def _key(task: Any, record: Record) -> tuple[str, str] | str | None:
    if record.get("kind") == "attention":
        return "attention", record.get("key", "")
    if record.get("kind") not in ("run", "tune"):
        return None
    # A data set may have got other splits since.
    return record["key"] if record.get("split") in (None, task.split(record["seed"]).name) else None


def _run_of(family: Family, config: Config, is_drawn: bool) -> Job:
    draws = is_drawn and resolve_model(config.model).has_attention
    key = family.key(config)
    gives = (key, ("attention", key)) if draws else ()
    label = f"{family.name}, seed {config.seed}"
    return Job(key, label, _train, (config, is_drawn, {"key": key, **family.mark}), gives)


def _noting(note: Note, task: Task) -> OnEpoch:
    metric = measure_of(task.metric)
    return lambda epoch, _, __, score: note(f"epoch {epoch}, val {metric.label} {metric.shown(score)}")


@dataclass(frozen=True)
class Watch:
    r"""Who is told of the epochs of all runs.

    Args:
        hook (callable, optional): As :func:`compare` takes it.
        log (str, optional): As :func:`compare` takes it.
    """

    hook: Hook | None
    log: str | None

    @contextmanager
    def of(self, config: Config, task: Any, note: Note, folder: Path) -> Iterator[OnEpoch]:
        r"""Gives what is called after each epoch of a run, and closes its log after the last."""
        noted = _noting(note, task)
        with logged(self.log, config, task.metric, folder) as told:

            def on_epoch(*values: Any) -> Any:
                for each in (noted, *told):
                    each(*values)
                return None if self.hook is None else self.hook(config, *values)

            yield on_epoch


def _expect_importable(on_epoch: Hook | None) -> None:
    try:
        pickle.dumps(on_epoch)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"Expected an 'on_epoch' that other processes can import because there are several jobs (got "
            f"{error}); define it at the top of a module, or pass jobs=1"
        ) from error


def _try(
    task: Task,
    device: str,
    _: Record,
    checkpoints: Checkpoints,
    own: Mapping[str, Model],
    watch: Watch,
    config: Config,
    of_study: Record | None = None,
    pruner: Pruner | None = None,
    *,
    note: Note,
) -> Iterator[dict[str, Any]]:
    mark = {"key": tuning.key(config)} if of_study is None else of_study
    with given(own), watch.of(config, task, note, checkpoints.results) as on_epoch:
        record = tuning.trial(
            task,
            config,
            device=device,
            on_epoch=on_epoch,
            checkpoint=checkpoints.of(mark["key"]),
            pruner=pruner,
        )
    yield {**record, **mark}


def _train(
    task: Task,
    device: str,
    mark: Record,
    checkpoints: Checkpoints,
    own: Mapping[str, Model],
    watch: Watch,
    config: Config,
    is_drawn: bool,
    of_family: Record,
    *,
    note: Note,
) -> Iterator[dict[str, Any]]:
    with given(own):
        with watch.of(config, task, note, checkpoints.results) as on_epoch:
            checkpoint = checkpoints.of(of_family["key"])
            record, model = train(task, config, device=device, on_epoch=on_epoch, checkpoint=checkpoint)
        yield {**record, **of_family, **mark}
        if is_drawn:
            from kgat import diagnostics

            if diagnostics.has_attention(model):
                yield {**diagnostics.attention_record(model.cpu(), task, config), **of_family}


def _measure(engine: Engine, config: Config, models: Mapping[str, str], rounds: int) -> None:
    task, device, mark, _, own, _ = engine.shared

    def is_there(_: str) -> bool:
        return has_cost(engine.records, task.name, list(models))

    for _ in engine.ledger.claim(["cost"], str, is_there, engine.waiting):
        engine.progress.note("measuring time and memory of an epoch")
        # Here, where there is one process: what trains there need not be known to another.
        cost = measure_cost(task, config, models, rounds, device=device, alone=engine.workers > 1, own=own)
        engine.keep({**cost, **mark})


def _described(records: Sequence[Record]) -> Iterator[str]:
    for record in records:
        if record.get("kind") not in ("run", "tune"):
            continue
        if record["val"] is None:  # only a trial survives that it diverged
            yield "diverged"
        else:
            metric = measure_of(record["metric"])
            score = f"{metric.label} {metric.shown(record['val'])}"
            pruned = ", pruned" if "pruned" in record else ""
            yield f"{record['epochs']} epochs, {record['seconds']:.1f} s, val {score}{pruned}"


# --- Figures ----------------------------------------------------------------------------------------------


def _expect_formats(formats: Sequence[str]) -> None:
    # Not at the top: without figures a comparison does without matplotlib and networkx.
    from kgat.experiments import plots

    plots.expect_formats(formats)


def draw(records: Sequence[Record], folder: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    r"""Writes all figures and ``report.html`` from the records alone.

    Args:
        records (list of dict): The records of a comparison.
        folder (Path): Where to write.
        formats (list of str, optional): As :func:`compare` takes them; figures in the report are PNG.
            (default: :obj:`("png",)`)

    Returns:
        list of Path: The files.
    """
    from kgat.experiments import plots, report  # as in _expect_formats

    try:
        paths = plots.save_all(records, folder, formats)
        return [*paths, report.write(records, folder, paths)]
    except MALFORMED as error:
        path = Path(folder) / RESULTS
        for number, record in numbered(path) if path.exists() else []:
            if not _drawable(record):
                raise ValueError(
                    f"Expected a record as kgat writes it in line {number} of '{path}' (got "
                    f"{type(error).__name__}: {error} when it was drawn); delete that line, its run is then "
                    "repeated"
                ) from error
        raise


def _drawable(record: Record) -> bool:
    from kgat.experiments import plots

    try:
        for figure in plots.FIGURES.values():
            figure([record])
    except MALFORMED:
        return False
    return True


# --- What a folder may hold ------------------------------------------------------------------------------


def _expect_same_metric(records: Sequence[Record], task: Any, path: Path) -> None:
    for run in records:  # and trials, which choose settings by it
        if run.get("kind") not in ("run", "tune") or run["dataset"] != task.name:
            continue
        if run["metric"] != task.metric:
            raise ValueError(
                f"Expected runs that are scored by {task.metric} in '{path}' (got one of '{run['model']}' "
                f"scored by {run['metric']}); choose another --out, or delete that file"
            )


def _expect_same_data(records: Sequence[Record], task: Any, path: Path) -> None:
    for record in records:
        if record.get("kind") not in ("run", "tune") or record["dataset"] != task.name:
            continue
        if (digest := stored(record["config"], "data")) != task.digest:
            raise ValueError(
                f"Expected runs on the same data in '{path}' (got one of '{record['model']}' on other data "
                f"of the name '{task.name}': digest {digest}, not {task.digest}); choose another --out or "
                "--name, or delete that file"
            )


def _expect_same_budget(
    records: Sequence[Record], dataset: str, tuned: Mapping[str, Any] | None, path: Path
) -> None:
    for run in runs_in(records):
        if run["dataset"] == dataset and run.get("tuned") != tuned:
            raise ValueError(
                f"Expected runs {tuning.said(tuned)} in '{path}' (got one of '{run['model']}' "
                f"{tuning.said(run.get('tuned'))}); choose another --out, or delete that file"
            )


def _expect_same_settings(
    records: Sequence[Record],
    by_name: Mapping[str, Sequence[Config]],
    path: Path,
    but: Container[str] = (),
) -> None:
    ((dataset, keep),) = {(c.dataset, c.keep) for configs in by_name.values() for c in configs}
    for run in (run for run in runs_in(records) if run["dataset"] == dataset):
        kept = stored(run["config"], "keep")
        if kept != keep:  # also of other models: one table holds them all
            raise ValueError(
                f"Expected runs with keep={keep} in '{path}' (got '{run['model']}' with keep={kept}); choose "
                "another --out, or delete that file"
            )
        configs = by_name.get(run["model"], ())
        # Of a family, that of the model that the run is of.
        config = next(
            (c for c in configs if c.model == run["config"].get("model")), next(iter(configs), None)
        )
        for name, value, other in differing(config.as_dict(), run["config"]) if config else ():
            if name == "code":
                raise ValueError(
                    f"Expected runs of '{run['model']}' with the code as it is, {value}, in '{path}' (got "
                    f"{other}); choose another --out, or delete that file"
                )
            if name not in but:
                raise ValueError(
                    f"Expected runs of '{run['model']}' with {name}={value} in '{path}' (got "
                    f"{name}={other}); choose another --out, or delete that file"
                )


def _expect_same_families(
    records: Sequence[Record], dataset: str, entrants: Sequence[Family], path: Path
) -> None:
    members = {family.name: family.mark.get("family") for family in entrants}
    for record in records:
        if record.get("kind") not in ("run", "tune") or record["dataset"] != dataset:
            continue
        name, listed = record["model"], record.get("family")
        if members.get(name, listed) != listed:
            raise ValueError(
                f"Expected '{name}' to be {_said_of(members[name])} in '{path}' (got {_said_of(listed)} "
                "there); choose another --out or name, or delete that file"
            )


def _said_of(members: Sequence[str] | None) -> str:
    return "a model" if members is None else f"one of {', '.join(members)}"


def _expect_same_studies(records: Sequence[Record], studies: Sequence[Study], path: Path) -> None:
    digests = {(study.dataset, study.family.name): study.digest for study in studies}
    for record in records:
        digest = digests.get((record.get("dataset", ""), record.get("model", "")))
        if record.get("kind") == "tune" and "study" in record and digest not in (None, record["study"]):
            raise ValueError(
                f"Expected trials of '{record['model']}' over the space and with the settings of today in "
                f"'{path}' (got trial {record['trial']} over another space or with others); choose another "
                "--out, or delete that file"
            )


def _expect_searched(studies: Sequence[Study], search: Mapping[str, Any]) -> None:
    for name in (argument_named(name)[0] if "." in name else name for name in search):
        if name in studies[0].overrides:
            raise ValueError(
                f"Expected '{name}' either set or searched (got both); leave out --set {name}=VALUE or "
                f"--search {name}=VALUES"
            )
        if not any(name in space for study in studies for space in study.spaces.values()):
            models = ", ".join(study.family.name for study in studies)
            raise ValueError(
                f"Expected a model that takes '{name}' because it is searched (got {models}); leave it out"
            )
