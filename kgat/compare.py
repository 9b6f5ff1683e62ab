r"""Compares models: the same seeds for all, resumable, in this process or in several."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from kgat import records as record_file
from kgat import tuning
from kgat.config import Config, differing, stored
from kgat.costs import ROUNDS, has_cost, measure_cost
from kgat.datasets import Task, load
from kgat.records import METRICS, RESULTS, Interrupted
from kgat.registry import resolve_model
from kgat.training import OnEpoch, train

Record = Mapping[str, Any]

DEFAULT_MODELS = ("gat", "gatv2", "dot", "rbf", "rbf*lp", "spectral")


def compare(
    dataset: str | Task,
    models: Sequence[str] = DEFAULT_MODELS,
    seeds: int = 5,
    out: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    progress: bool = False,
    *,
    device: str = "cpu",
    rounds: int = ROUNDS,
    figures: bool = True,
    jobs: int = 1,
    tune: int = 0,
    tune_seeds: int = 3,
) -> list[dict[str, Any]]:
    r"""Trains every model with every seed, measures their cost, and draws the figures.

    A seed picks the split and the initial weights, for all models alike, so that runs of one seed
    are paired. Each run is appended to ``results.jsonl`` as soon as it is done, and a run that is
    there already is not repeated: a comparison that was stopped goes on where it was.

    With :obj:`tune`, each model first chooses among so many settings, the same ones for all models: the
    protocol, and points of :data:`kgat.tuning.SPACE`. Trials see the labels of training and validation
    nodes alone, have seeds of their own, and go to ``results.jsonl`` as well. Of a set with several splits,
    validation nodes of one are test nodes of another, as wherever settings are chosen once for all splits.

    Args:
        dataset (str or Task): A name that :func:`kgat.datasets.load` takes, or a task.
        models (list of str, optional): Names that :func:`resolve_model` takes.
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
            threads as this one; the records are the same. (default: :obj:`1`)
        tune (int, optional): How many settings each model may choose from; 0 leaves all at the protocol.
            (default: :obj:`0`)
        tune_seeds (int, optional): How many seeds each of these settings is trained with.
            (default: :obj:`3`)

    Returns:
        list of dict: All records of the folder.

    Raises:
        ValueError: If a name or a setting is wrong, or if the folder holds runs of one of the
            models with other settings, or of any model with another budget of tuning.
        PermissionError: If the folder cannot be written.
        Interrupted: On Ctrl-C.
    """
    if seeds < 1:
        raise ValueError(f"Expected at least one seed (got {seeds}); pass --seeds 5")
    if jobs < 1:
        raise ValueError(f"Expected at least one job (got {jobs}); pass --jobs 1")
    names = list(dict.fromkeys(resolve_model(name).name for name in models))
    if not names:
        raise ValueError("Expected at least one model (got none); pass --models gat,rbf")
    budget = tuning.Budget(tune, tune_seeds) if tune else None
    _expect_taken(names, overrides or {})
    task = dataset if isinstance(dataset, Task) else load(dataset, root)
    trials = _trials(task.name, names, overrides, budget)
    tuned = budget.record(overrides) if budget else None
    given = {name: Config.of(task.name, name, overrides=overrides) for name in names}
    path = _writable(Path("runs") / task.name if out is None else Path(out)) / RESULTS
    records = record_file.read(path) if path.exists() else []
    _expect_same_budget(records, task.name, tuned, path)
    _expect_same_settings(records, given.values(), path, but=tuned["space"] if tuned else ())
    keys = {record["key"] for record in records if record.get("kind") in ("run", "tune")}
    drawn = {record.get("key") for record in records if record.get("kind") == "attention"}

    def keep(record: dict[str, Any]) -> None:
        if tuned is not None and record.get("kind") in ("run", "cost"):
            record["tuned"] = tuned
        record_file.append(path, record)
        records.append(record)

    total = len(trials) + len(names) * seeds
    wanted = {tuning.key(config) for config in trials}
    try:
        with _progress(task, total, progress) as bar:
            bar.found(len(wanted & keys))
            missing = [(config, "tune") for config in trials if tuning.key(config) not in keys]
            for record, _ in _runs(task, missing, device, jobs, bar):
                keep(record)
                bar.finished(record)
            chosen = {name: dict(overrides or {}) for name in names}
            if budget is not None:
                for name in names:
                    chosen[name] |= tuning.choose(records, task.name, name, budget, overrides)
            configs = [
                Config.of(task.name, name, seed, chosen[name]) for seed in range(seeds) for name in names
            ]
            _expect_same_settings(records, configs, path)
            wanted |= {config.key for config in configs}
            bar.found(sum(config.key in keys for config in configs))
            missing = []
            for config in configs:
                drawing = figures and config.seed == 0 and config.key not in drawn
                if config.key not in keys or drawing:
                    missing.append((config, "draw" if drawing else "run"))
            for record, attention in _runs(task, missing, device, jobs, bar):
                if record["key"] not in keys:
                    keep(record)
                    keys.add(record["key"])
                    bar.finished(record)
                if attention is not None:
                    keep(attention)
            if rounds and not has_cost(records, task.name, names):
                bar.say("measuring time and memory of an epoch")
                # Of a model that takes all settings, or what was set for others would be lost.
                config = min(given.values(), key=lambda config: len(resolve_model(config.model).fixed))
                keep(measure_cost(task, config, names, rounds, device=device))
            if figures:
                bar.say("drawing figures")
                draw(records, path.parent)
    except KeyboardInterrupt:
        # Asked of the file: the interrupt may have come between writing a line and counting it.
        keys = {r["key"] for r in record_file.read(path) if r.get("kind") in ("run", "tune")}
        raise Interrupted(len(wanted & keys), total, path) from None
    return records


def _trials(
    dataset: str, names: Sequence[str], overrides: Mapping[str, Any] | None, budget: tuning.Budget | None
) -> list[Config]:
    r"""In turns, so that a search that is stopped has given all models the same."""
    if budget is None:
        return []
    of_models = [budget.configs(dataset, name, overrides) for name in names]
    in_turns = [configs for of_setting in zip(*of_models, strict=True) for configs in of_setting]
    return [config for configs in in_turns for config in configs]


Job = tuple[Config, str]  # with what to do: "tune", "run", or "draw", which is a run whose attention is kept
Outcome = tuple[dict[str, Any], dict[str, Any] | None]


def _runs(task: Task, missing: Sequence[Job], device: str, jobs: int, bar: "_Progress") -> Iterator[Outcome]:
    if jobs == 1 or len(missing) < 2:
        for config, what in missing:
            yield _outcome(task, config, what, device, bar.epoch(config))
        return
    bar.say(f"{jobs} runs at once")
    context = multiprocessing.get_context("spawn")  # a fork of threads that hold locks may hang
    threads = torch.get_num_threads()
    # Leaving the block, also by Ctrl-C, ends the processes; results come in the order of the runs.
    with context.Pool(jobs, _start_worker, (task, device, threads)) as pool:
        yield from pool.imap(_work, missing)


def _outcome(task: Task, config: Config, what: str, device: str, on_epoch: OnEpoch | None = None) -> Outcome:
    if what == "tune":
        return tuning.trial(task, config, device=device, on_epoch=on_epoch), None
    record, model = train(task, config, device=device, on_epoch=on_epoch)
    if what == "run":
        return record, None
    return record, {**_attention(model, task, config), "key": config.key}


_worker: tuple[Task, str]  # what all runs of a worker process share


def _start_worker(task: Task, device: str, threads: int) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    torch.set_num_threads(threads)
    _worker = (task, device)


def _work(job: Job) -> Outcome:
    task, device = _worker
    return _outcome(task, *job, device)


def draw(records: Sequence[Record], folder: Path) -> list[Path]:
    r"""Writes all figures and ``report.html`` from the records alone.

    Args:
        records (list of dict): The records of a comparison.
        folder (Path): Where to write.

    Returns:
        list of Path: The files.
    """
    # Not at the top: the report is made of the tables of this file.
    from kgat import plots, report

    return [*plots.save_all(records, folder), report.write(records, folder)]


def _attention(model: torch.nn.Module, task: Task, config: Config) -> dict[str, Any]:
    from kgat import diagnostics

    return diagnostics.attention_record(model.cpu(), task, config)


def _expect_taken(names: Sequence[str], overrides: Mapping[str, Any]) -> None:
    for setting in overrides:
        if all(setting in resolve_model(name).fixed for name in names):
            raise ValueError(
                f"Expected a kernel model that leaves '{setting}' open because it is set (got "
                f"{', '.join(names)}); stock layers and projections in a name leave no choice"
            )


def _expect_same_budget(
    records: Sequence[Record], dataset: str, tuned: Mapping[str, Any] | None, path: Path
) -> None:
    for record in records:
        if record.get("kind") == "run" and record["dataset"] == dataset and record.get("tuned") != tuned:
            raise ValueError(
                f"Expected runs {tuning.said(tuned)} in '{path}' (got one of '{record['model']}' "
                f"{tuning.said(record.get('tuned'))}); choose another --out, or delete that file"
            )


def _expect_same_settings(
    records: Sequence[Record], configs: Iterable[Config], path: Path, but: Container[str] = ()
) -> None:
    wanted: dict[Any, Config] = {(config.dataset, config.model): config for config in configs}
    kept = {config.dataset: config.keep for config in wanted.values()}
    for record in records:
        if record.get("kind") == "run" and record["dataset"] in kept:
            rule, given = kept[record["dataset"]], stored(record["config"], "keep")
            if rule != given:  # also of other models: one table holds them all
                raise ValueError(
                    f"Expected runs with keep={rule} in '{path}' (got '{record['model']}' with "
                    f"keep={given}); choose another --out, or delete that file"
                )
        config = wanted.get((record.get("dataset"), record.get("model")))
        if record.get("kind") != "run" or config is None:
            continue
        for name, value, given in differing(config.as_dict(), record["config"]):
            if name not in but:
                raise ValueError(
                    f"Expected runs of '{config.model}' with {name}={value} in '{path}' (got "
                    f"{name}={given}); choose another --out, or delete that file"
                )


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / RESULTS).open("ab"):
            pass
    except OSError as error:
        raise PermissionError(
            f"Expected a folder that can be written (got '{folder}': {error.strerror}); choose "
            "another with --out"
        ) from None
    return folder


class _Progress:
    r"""Shows nothing; its subclass shows a bar."""

    def found(self, count: int) -> None:
        pass

    def epoch(self, config: Config) -> Callable[[int, float, float, float], None] | None:
        return None

    def finished(self, record: Record) -> None:
        pass

    def say(self, text: str) -> None:
        pass


class _Bar(_Progress):
    def __init__(self, bar: Any, row: Any, metric: str) -> None:
        self.bar = bar
        self.row = row
        self.metric = METRICS[metric]
        self.shown = 0.0

    def found(self, count: int) -> None:
        self.bar.advance(self.row, count)

    def epoch(self, config: Config) -> Callable[[int, float, float, float], None]:
        run = f"{config.model}, seed {config.seed}"
        self.bar.update(self.row, now=run)

        def on_epoch(epoch: int, train_loss: float, val_loss: float, score: float) -> None:
            # An epoch may take a few milliseconds: most are not worth a line.
            if time.monotonic() - self.shown > 0.1:
                self.shown = time.monotonic()
                now = f"{run}, epoch {epoch}, val {self.metric} {score:.1%}"
                self.bar.update(self.row, now=now)

        return on_epoch

    def finished(self, record: Record) -> None:
        self.bar.advance(self.row)
        if not self.bar.console.is_terminal:  # no bar moves there: a line per run instead
            task = self.bar.tasks[0]
            trial = "trial of " * (record.get("kind") == "tune")
            said = "diverged"  # which only a trial survives
            if record["val"] is not None:
                said = f"{record['epochs']} epochs, {record['seconds']:.1f} s, "
                said += f"val {self.metric} {record['val']:.1%}"
            self.bar.console.print(
                f"{task.completed:.0f}/{task.total:.0f} {trial}{record['model']}, "
                f"seed {record['seed']}: {said}",
                highlight=False,
                markup=False,  # a name may have brackets
                soft_wrap=True,
            )

    def say(self, text: str) -> None:
        self.bar.update(self.row, now=text)


@contextmanager
def _progress(task: Task, total: int, shown: bool) -> Iterator[_Progress]:
    if not shown:
        yield _Progress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[now]}", markup=False),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, refresh_per_second=4) as bar:
        row = bar.add_task(task.name, total=total, now="")
        yield _Bar(bar, row, task.metric)
        bar.update(row, now="")
