r"""Compares models: the same seeds for all, resumable, in this process or in several."""

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from kgat.datasets import Task, load
from kgat.experiments import ledger as record_file
from kgat.experiments import tuning
from kgat.experiments.config import Config, differing, stored
from kgat.experiments.costs import ROUNDS, has_cost, measure_cost
from kgat.experiments.ledger import Interrupted, Ledger
from kgat.experiments.records import METRICS, RESULTS
from kgat.experiments.registry import resolve_model
from kgat.experiments.training import OnEpoch, train

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
    protocol, and points of :data:`kgat.experiments.tuning.SPACE`. Trials see the labels of training and
    validation nodes alone, have seeds of their own, and go to ``results.jsonl`` as well. Of a set with
    several splits, validation nodes of one are test nodes of another, as wherever settings are chosen once
    for all splits.

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
    if not isinstance(dataset, str | Task):
        raise TypeError(
            f"Expected the name of a data set or a Task (got {type(dataset).__name__}); wrap a graph of your "
            "own with its splits: kgat.datasets.Task(name, data, splits, metric, num_classes, source, "
            "preprocessing)"
        )
    models = [models] if isinstance(models, str) else list(models)
    for model in models:
        if not isinstance(model, str):
            raise TypeError(
                f"Expected names of models (got {getattr(model, '__name__', repr(model))}); name a built-in "
                "one, e.g. 'gat' or 'rbf*l2', and train a model with a kernel of your own by "
                "kgat.experiments.training.fit"
            )
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
    total = len(trials) + len(names) * seeds
    wanted = {tuning.key(config) for config in trials}
    try:
        with Ledger(path) as results, _progress(task, total, progress) as bar:
            _expect_same_budget(results.records, task.name, tuned, path)
            _expect_same_settings(results.records, given.values(), path, but=tuned["space"] if tuned else ())
            work = _Work(task, results, device, jobs, bar, tuned)
            work.do([(config, "tune") for config in trials])
            chosen = {name: dict(overrides or {}) for name in names}
            if budget is not None:
                for name in names:
                    chosen[name] |= tuning.choose(results.records, task.name, name, budget, overrides)
            configs = [
                Config.of(task.name, name, seed, chosen[name]) for seed in range(seeds) for name in names
            ]
            _expect_same_settings(results.records, configs, path)
            wanted |= {config.key for config in configs}
            work.do([(config, "draw" if figures and config.seed == 0 else "run") for config in configs])
            if rounds:
                # Of a model that takes all settings, or what was set for others would be lost.
                config = min(given.values(), key=lambda config: len(resolve_model(config.model).fixed))
                work.measure(config, names, rounds)
            if figures:
                bar.say("drawing figures")
                draw(results.records, path.parent)
    except KeyboardInterrupt:
        # Asked of the file: the interrupt may have come between writing a line and counting it.
        keys = {r["key"] for r in record_file.read(path) if r.get("kind") in ("run", "tune")}
        raise Interrupted(len(wanted & keys), total, path) from None
    return results.records


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


class _Work:
    r"""Does the jobs of a comparison that are this process's to do, and keeps what came out."""

    def __init__(
        self,
        task: Task,
        results: Ledger,
        device: str,
        jobs: int,
        bar: "_Progress",
        tuned: Mapping[str, Any] | None,
    ) -> None:
        self.task = task
        self.results = results
        self.device = device
        self.jobs = jobs
        self.bar = bar
        self.tuned = tuned
        self.counted: set[str] = set()

    def do(self, jobs: Sequence[Job]) -> None:
        r"""Ends when all of them are done, here or in other processes."""
        for key in {_key(job) for job in jobs} & self._keys():
            self.counted.add(key)
        self.bar.found(len(self.counted & {_key(job) for job in jobs}))
        left = [job for job in jobs if not self._finished(job)]
        if self.jobs == 1 or len(left) < 2:
            for config, what in self.results.claim(left, _key, self._finished, self._waiting):
                self._keep(_outcome(self.task, config, what, self.device, self.bar.epoch(config)))
        else:
            self._do_at_once(left)
        self._count(jobs)

    def _do_at_once(self, left: Sequence[Job]) -> None:
        self.bar.say(f"{self.jobs} runs at once")
        context = multiprocessing.get_context("spawn")  # a fork of threads that hold locks may hang
        threads = torch.get_num_threads()
        # Results are kept in the order of the runs.
        under_way: deque[tuple[Job, Future[Outcome]]] = deque()

        def keep_first() -> None:
            job, outcome = under_way.popleft()
            self._keep(outcome.result())
            self.results.release(_key(job))

        def busy() -> int:
            return sum(not outcome.done() for _, outcome in under_way)

        # An executor notices a worker that was killed, which a pool waits for without end.
        executor = ProcessPoolExecutor(
            self.jobs, context, initializer=_start_worker, initargs=(self.task, self.device, threads)
        )
        try:
            jobs = self.results.claim_many(
                left, _key, self._finished, self._waiting, idle=lambda: not under_way
            )
            for job in jobs:
                if job is not None:
                    under_way.append((job, _without_interrupts(partial(executor.submit, _work, job))))
                while under_way and (job is None or busy() >= self.jobs or under_way[0][1].done()):
                    keep_first()
            while under_way:
                keep_first()
        except BrokenProcessPool as error:
            raise OSError(
                f"Expected {self.jobs} processes that live (got one that was ended, by hand or for lack of "
                "memory); run the same command again: it goes on where it stopped, with fewer --jobs on less "
                "memory"
            ) from error
        except BaseException:
            for process in multiprocessing.active_children():
                process.kill()
            raise
        finally:
            executor.shutdown(wait=False, cancel_futures=True)

    def measure(self, config: Config, names: Sequence[str], rounds: int) -> None:
        r"""Measures time and memory of models, unless that was done."""

        def there(_: str) -> bool:
            return has_cost(self.results.records, self.task.name, names)

        for _ in self.results.claim(["cost"], str, there, self._waiting):
            self.bar.say("measuring time and memory of an epoch")
            self._append(measure_cost(self.task, config, names, rounds, device=self.device))

    def _keep(self, outcome: Outcome) -> None:
        record, attention = outcome
        if record["key"] not in self._keys():
            self._append(record)
            self.counted.add(record["key"])
            self.bar.finished(record)
        if attention is not None:
            self._append(attention)

    def _append(self, record: dict[str, Any]) -> None:
        if self.tuned is not None and record.get("kind") in ("run", "cost"):
            record["tuned"] = self.tuned
        self.results.append(record)

    def _waiting(self, count: int) -> None:
        self.bar.say(f"waiting for {count} of another process")

    def _count(self, jobs: Sequence[Job]) -> None:
        of_others = {_key(job) for job in jobs} - self.counted
        self.bar.found(len(of_others))
        self.counted |= of_others

    def _keys(self, *kinds: str) -> set[str]:
        kinds = kinds or ("run", "tune")
        return {record["key"] for record in self.results.records if record.get("kind") in kinds}

    def _finished(self, job: Job) -> bool:
        drawn = job[1] != "draw" or job[0].key in self._keys("attention")
        return drawn and _key(job) in self._keys()


def _key(job: Job) -> str:
    config, what = job
    return tuning.key(config) if what == "tune" else config.key


def _without_interrupts(start: Callable[[], Any]) -> Any:
    # Ctrl-C reaches all processes of a terminal. It is the parent's to handle: those that start now are born
    # deaf to it, and it waits for them to be there.
    if not hasattr(signal, "pthread_sigmask"):
        return start()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
    from kgat.experiments import plots, report

    try:
        return [*plots.save_all(records, folder), report.write(records, folder)]
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        path = Path(folder) / RESULTS
        for number, record in record_file.numbered(path) if path.exists() else []:
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
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        return False
    return True


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
        TextColumn("{task.description}", markup=False),
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
