r"""Compares models: the same seeds for all, resumable, in this process or in several."""

import os
import pickle
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kgat.datasets import GraphTask, LinkTask, Task, load
from kgat.experiments import tuning
from kgat.experiments.checkpoint import Checkpoints, Interval
from kgat.experiments.concurrency import runs_at_once
from kgat.experiments.config import Config, differing, on_data, stored
from kgat.experiments.costs import ROUNDS, has_cost, measure_cost
from kgat.experiments.engine import Engine, Job, Note
from kgat.experiments.ledger import numbered
from kgat.experiments.logs import expect_log, logged
from kgat.experiments.records import BASELINE, RESULTS
from kgat.experiments.registry import (
    STOCK,
    Model,
    expect_picklable,
    given,
    named,
    resolve_model,
    warn_of_unseen_edges,
)
from kgat.experiments.tables import runs_in
from kgat.experiments.training import OnEpoch, train
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
    seeds: int = 5,
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

    Args:
        dataset (str or Task): A name that :func:`kgat.datasets.load` takes, or a task.
        models (list or dict, optional): Names that :func:`resolve_model` takes, and classes and factories of
            modules, whose arguments are matched by name, and classes of kernels; a dictionary says what they
            are called: ``{"mine": factory, "rbf": "rbf"}``. With several :obj:`jobs`, a factory must be
            importable: at the top of a module.
        seeds (int, optional): Number of seeds, counted from 0. (default: :obj:`5`)
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
        tune_seeds (int, optional): How many seeds each of these settings is trained with.
            (default: :obj:`3`)
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
    names, own = _checked(dataset, models, seeds, jobs)
    expect_log(log)
    if figures:
        _expect_formats(formats)
    interval = Interval.read(checkpoint)
    budget = tuning.Budget(tune, tune_seeds) if tune else None
    with given(own):
        _expect_taken(names, overrides)
        task = load(dataset, root, metric=metric) if isinstance(dataset, str) else dataset
        warn_of_unseen_edges(names, task)
        overrides = on_data(overrides, task.digest, getattr(task, "target", None))
        tuned = budget.record(overrides) if budget else None
        protocols = [Config.of(task.name, name, overrides=overrides) for name in names]
        trials = _trials(task.name, names, overrides, budget) if budget else []
        threads = torch.get_num_threads()
        if jobs is None:
            jobs = min(runs_at_once(task, protocols[0], device), max(len(trials), len(names) * seeds))
            threads = max(1, threads // jobs)
        if jobs > 1:
            expect_picklable(own)
            _expect_importable(on_epoch)
        path = (Path("runs") / task.name if out is None else Path(out)) / RESULTS
        checkpoints = Checkpoints(path.parent, interval, resume)
        engine = Engine(
            path,
            len(trials) + len(names) * seeds,
            key_of=_key,
            shared=(task, device, {"tuned": tuned} if tuned else {}, checkpoints, own, Watch(on_epoch, log)),
            workers=jobs,
            title=task.name,
            shown=progress,
            describe=_described,
            on_finished=lambda job: checkpoints.remove(str(job.key)),
        )
        with _torch_threads(threads), engine:
            _run_all(engine, protocols, trials, seeds, overrides, budget, figures)
            if rounds:
                # Of a model that takes all settings, or what was set for others would be lost.
                candidates = [*protocols, Config.of(task.name, BASELINE, overrides=overrides)]
                config = min(candidates, key=lambda config: len(resolve_model(config.model).fixed))
                _measure(engine, config, names, rounds)
            if figures:
                engine.progress.note("drawing figures")
                draw(engine.records, path.parent, formats)
    return engine.records


@contextmanager
def _torch_threads(number: int) -> Iterator[None]:
    # They are the caller's: what is computed after a comparison has as many as before.
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _run_all(
    engine: Engine,
    protocols: Sequence[Config],
    trials: Sequence[Config],
    seeds: int,
    overrides: Mapping[str, Any],
    budget: tuning.Budget | None,
    figures: bool,
) -> None:
    r"""Trials, then runs with what they chose."""
    task, _, mark, *_ = engine.shared
    path, tuned = Path(engine.path), mark.get("tuned")
    names = [config.model for config in protocols]
    _expect_same_metric(engine.records, task, path)
    _expect_same_data(engine.records, task, path)
    _expect_same_budget(engine.records, task.name, tuned, path)
    _expect_same_settings(engine.records, protocols, path, but=tuned["space"] if tuned else ())
    engine.run([Job(tuning.key(config), f"trial of {_label(config)}", _try, (config,)) for config in trials])
    chosen = {name: dict(overrides) for name in names}
    if budget is not None:
        for name in names:
            chosen[name] |= tuning.choose(engine.records, task.name, name, budget, overrides)
    configs = [Config.of(task.name, name, seed, chosen[name]) for seed in range(seeds) for name in names]
    _expect_same_settings(engine.records, configs, path)
    # What is drawn of attention is that of a graph of one type.
    figures = figures and getattr(task, "target", None) is None
    engine.run([_run_of(config, is_drawn=figures and config.seed == 0) for config in configs])


def _checked(
    dataset: object, models: Models, seeds: int, jobs: int | None
) -> tuple[list[str], dict[str, Model]]:
    if not isinstance(dataset, str | Task | GraphTask | LinkTask):
        raise TypeError(
            f"Expected the name of a data set or a Task (got {type(dataset).__name__}); wrap a graph of your "
            "own with its splits: kgat.datasets.Task(name, data, splits, metric, num_classes, source, "
            "preprocessing)"
        )
    if seeds < 1:
        raise ValueError(f"Expected at least one seed (got {seeds}); pass --seeds 5")
    if jobs is not None and jobs < 1:
        raise ValueError(f"Expected at least one job (got {jobs}); pass --jobs 1")
    if not models:
        raise ValueError("Expected at least one model (got none); pass --models gat,rbf")
    return named(models)


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


def _key(record: Record) -> tuple[str, str] | str | None:
    if record.get("kind") == "attention":
        return "attention", record.get("key", "")
    return record["key"] if record.get("kind") in ("run", "tune") else None


def _run_of(config: Config, is_drawn: bool) -> Job:
    draws = is_drawn and resolve_model(config.model).has_attention
    gives = (config.key, ("attention", config.key)) if draws else ()
    return Job(config.key, _label(config), _train, (config, is_drawn), gives)


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
    *,
    note: Note,
) -> Iterator[dict[str, Any]]:
    checkpoint = checkpoints.of(tuning.key(config))
    with given(own), watch.of(config, task, note, checkpoints.results) as on_epoch:
        record = tuning.trial(task, config, device=device, on_epoch=on_epoch, checkpoint=checkpoint)
    yield record


def _train(
    task: Task,
    device: str,
    mark: Record,
    checkpoints: Checkpoints,
    own: Mapping[str, Model],
    watch: Watch,
    config: Config,
    is_drawn: bool,
    *,
    note: Note,
) -> Iterator[dict[str, Any]]:
    with given(own):
        with watch.of(config, task, note, checkpoints.results) as on_epoch:
            record, model = train(
                task, config, device=device, on_epoch=on_epoch, checkpoint=checkpoints.of(config.key)
            )
        yield {**record, **mark}
        if is_drawn:
            from kgat import diagnostics

            if diagnostics.has_attention(model):
                yield {**diagnostics.attention_record(model.cpu(), task, config), "key": config.key}


def _measure(engine: Engine, config: Config, names: Sequence[str], rounds: int) -> None:
    task, device, mark, *_ = engine.shared

    def is_there(_: str) -> bool:
        return has_cost(engine.records, task.name, names)

    for _ in engine.ledger.claim(["cost"], str, is_there, engine.waiting):
        engine.progress.note("measuring time and memory of an epoch")
        engine.keep({**measure_cost(task, config, names, rounds, device=device), **mark})


def _described(records: Sequence[Record]) -> Iterator[str]:
    for record in records:
        if record.get("kind") not in ("run", "tune"):
            continue
        if record["val"] is None:  # only a trial survives that it diverged
            yield "diverged"
        else:
            metric = measure_of(record["metric"])
            score = f"{metric.label} {metric.shown(record['val'])}"
            yield f"{record['epochs']} epochs, {record['seconds']:.1f} s, val {score}"


# --- Figures ----------------------------------------------------------------------------------------------


def _expect_formats(formats: Sequence[str]) -> None:
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
    # Not at the top: the report is made of the tables of this file.
    from kgat.experiments import plots, report

    try:
        return [*plots.save_all(records, folder, formats), report.write(records, folder)]
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


def _expect_taken(names: Sequence[str], overrides: Mapping[str, Any]) -> None:
    for setting in overrides:
        if all(setting in resolve_model(name).fixed for name in names):
            if setting in STOCK:
                raise ValueError(
                    f"Expected a model that takes '{setting}' because it is set (got {', '.join(names)}); "
                    "leave it out for these"
                )
            raise ValueError(
                f"Expected a kernel model that leaves '{setting}' open because it is set (got "
                f"{', '.join(names)}); stock layers and projections in a name leave no choice"
            )


def _expect_same_metric(records: Sequence[Record], task: Any, path: Path) -> None:
    for run in runs_in(records):
        if run["dataset"] == task.name and run["metric"] != task.metric:
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
    records: Sequence[Record], configs: Iterable[Config], path: Path, but: Container[str] = ()
) -> None:
    by_model = {config.model: config for config in configs}
    ((dataset, keep),) = {(config.dataset, config.keep) for config in by_model.values()}
    for run in (run for run in runs_in(records) if run["dataset"] == dataset):
        kept = stored(run["config"], "keep")
        if kept != keep:  # also of other models: one table holds them all
            raise ValueError(
                f"Expected runs with keep={keep} in '{path}' (got '{run['model']}' with keep={kept}); choose "
                "another --out, or delete that file"
            )
        config = by_model.get(run["model"])
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
