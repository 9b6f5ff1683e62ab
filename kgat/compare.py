r"""Compares models: runs over seeds, the cost of an epoch, paired statistics, and their tables."""

import gc
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch_geometric import seed_everything

import kgat
from kgat import records as record_file
from kgat import tuning
from kgat.datasets import Task, Visible, load
from kgat.training import (
    MODELS,
    SETTINGS,
    Config,
    OnEpoch,
    Trainer,
    build,
    circumstances,
    resolve_model,
    train,
)

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "DEFAULT_MODELS",
    "MODELS",
    "Interrupted",
    "Row",
    "compare",
    "draw",
    "holm",
    "markdown",
    "measure_cost",
    "readme_tables",
    "resolve_model",
    "result_files",
    "rich_table",
    "table",
    "tables",
    "tuning_line",
    "update_readme",
    "wilcoxon",
]

Record = Mapping[str, Any]

BASELINE = "gat"
DEFAULT_MODELS = ("gat", "gatv2", "dot", "rbf", "rbf*lp", "spectral")
RESULTS = "results.jsonl"
ROUNDS = 20
ROUND_SECONDS = 60.0  # a slow epoch gets fewer rounds than ROUNDS
CONTENDED = 1.6  # largest over smallest ratio of a round above which a timing is not to be trusted
# With this many pairs or fewer, the exact distribution is enumerated; above, it is a normal one.
EXACT_PAIRS = 50
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
METRICS = {"accuracy": "accuracy", "roc_auc": "ROC AUC"}


class Interrupted(KeyboardInterrupt):
    r"""A comparison was stopped; what it had finished is kept.

    Args:
        kept (int): How many of its runs are in the file.
        total (int): How many there will be.
        path (Path): The file.
    """

    def __init__(self, kept: int, total: int, path: Path) -> None:
        super().__init__(
            f"interrupted: {kept} of {total} runs are kept in {path}; run the same command again to go on"
        )
        self.kept = kept
        self.total = total
        self.path = path


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
    names = _unique(resolve_model(name).name for name in models)
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
            if rounds and not _has_cost(records, task.name, names):
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


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


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
                f"Expected runs {_budget(tuned)} in '{path}' (got one of '{record['model']}' "
                f"{_budget(record.get('tuned'))}); choose another --out, or delete that file"
            )


def _budget(tuned: Mapping[str, Any] | None) -> str:
    if tuned is None:
        return "without tuning"
    space = ", ".join(tuned["space"])
    return f"tuned over {tuned['settings']} settings × {tuned['seeds']} seeds of {space}"


def _expect_same_settings(
    records: Sequence[Record], configs: Iterable[Config], path: Path, but: Container[str] = ()
) -> None:
    wanted: dict[Any, Config] = {(config.dataset, config.model): config for config in configs}
    for record in records:
        config = wanted.get((record.get("dataset"), record.get("model")))
        if record.get("kind") != "run" or config is None:
            continue
        for name, value, given in _differing(config.as_dict(), record["config"]):
            if name not in but:
                raise ValueError(
                    f"Expected runs of '{config.model}' with {name}={value} in '{path}' (got "
                    f"{name}={given}); choose another --out, or delete that file"
                )


def _differing(one: Record, other: Record) -> list[tuple[str, Any, Any]]:
    r"""The settings in which two configurations of a model differ, with the values of both."""
    pairs = [(name, _value(one, name), _value(other, name)) for name in _unique([*one, *other])]
    return [(name, a, b) for name, a, b in pairs if name != "seed" and a != b]


def _value(config: Record, name: str) -> Any:
    return config.get(name, getattr(Config, name, None))  # a later setting is not stored at its default


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


def measure_cost(
    task: Task,
    config: Config,
    models: Sequence[str],
    rounds: int = ROUNDS,
    *,
    device: str = "cpu",
) -> dict[str, Any]:
    r"""Measures a training epoch of each model against that of stock GAT.

    Time: in one process the models take turns, one full-batch step each, in reversed order every
    other round; what counts is the median over the rounds of the ratio to the baseline in the same
    round. Memory: the peak of a step above the memory in use before it; on the CPU in a fresh
    process whose allocator gives freed blocks back (Linux only, else :obj:`None`), on CUDA as its
    allocator counts.

    Args:
        task (Task): The task.
        config (Config): The settings, of a model that takes all that matter.
        models (list of str): The models; the baseline is added if missing.
        rounds (int, optional): Number of rounds, fewer if they last more than a minute.
            (default: :obj:`20`)
        device (str, optional): Where to train. (default: :obj:`"cpu"`)

    Returns:
        dict: A record of kind :obj:`"cost"`.
    """
    names = _unique([BASELINE, *(resolve_model(name).name for name in models)])
    given = {name: getattr(config, name) for name in SETTINGS}
    configs = {name: Config.of(config.dataset, name, config.seed, given) for name in names}
    visible = task.visible(task.split(config.seed))
    trainers = {}
    for name, own in configs.items():
        seed_everything(config.seed)
        trainers[name] = Trainer(build(task, own).to(device), visible, own)
        for _ in range(3):  # the first steps build caches and optimiser state
            trainers[name].step()

    seconds: dict[str, list[float]] = {name: [] for name in names}
    start = time.perf_counter()
    for number in range(rounds):
        # In pairs, so that both orders count alike.
        if number >= 2 and number % 2 == 0 and time.perf_counter() - start > ROUND_SECONDS:
            break
        for name in names if number % 2 == 0 else reversed(names):
            seconds[name].append(_seconds_of_step(trainers[name], device))
    if device.startswith("cuda"):
        peaks = {name: _cuda_peak(trainer, device) for name, trainer in trainers.items()}
    else:
        peaks = _peaks(task, visible, configs)

    found = {}
    for name in names:
        ratios = np.array(seconds[name]) / np.array(seconds[BASELINE])
        peak, reference = peaks.get(name), peaks.get(BASELINE)
        found[name] = {
            "seconds_ratio": [
                float(f"{value:.4g}") for value in (np.median(ratios), ratios.min(), ratios.max())
            ],
            "contended": bool(ratios.max() / ratios.min() > CONTENDED),
            "memory_ratio": float(f"{peak / reference:.4g}") if peak and reference else None,
            "epoch_seconds": float(f"{np.median(seconds[name]):.4g}"),
            "peak_bytes": peak,
        }
    return {
        "kind": "cost",
        "dataset": task.name,
        "models": found,
        "baseline": BASELINE,
        "rounds": len(seconds[BASELINE]),
        **circumstances(device),
    }


def _has_cost(records: Sequence[Record], dataset: str, models: Sequence[str]) -> bool:
    costs = [r for r in records if r.get("kind") == "cost" and r["dataset"] == dataset]
    return bool(costs) and set(models) <= set(costs[-1]["models"])


def _seconds_of_step(trainer: Trainer, device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    trainer.step()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _cuda_peak(trainer: Trainer, device: str) -> int:
    gc.collect()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    trainer.step()
    return torch.cuda.max_memory_allocated(device) - before


def _peaks(task: Task, visible: Visible, configs: Mapping[str, Config]) -> dict[str, int]:
    if not Path("/proc/self/clear_refs").exists():
        return {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "question.pt"
        question = {
            "visible": vars(visible),
            "configs": {name: config.as_dict() for name, config in configs.items()},
            "threads": torch.get_num_threads(),
        }
        torch.save(question, path)
        done = subprocess.run(
            [sys.executable, "-c", "import kgat.compare; kgat.compare._answer_peaks()", str(path)],
            env={
                # Another tuning of the allocator would hide the peaks.
                **{name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")},
                # Blocks above this size go back to the system as soon as they are freed.
                "MALLOC_MMAP_THRESHOLD_": "65536",
                "PYTHONPATH": os.pathsep.join(
                    [str(Path(kgat.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
                ),
            },
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        warnings.warn(f"peak memory could not be measured: {last}", stacklevel=2)
        return {}
    return json.loads(done.stdout.splitlines()[-1])


def _answer_peaks() -> None:
    r"""Runs in the process that :func:`_peaks` starts: prints the peak of each model."""
    question = torch.load(sys.argv[-1], weights_only=True)
    torch.set_num_threads(question["threads"])
    visible = Visible(**question["visible"])
    peaks: dict[str, int] = {}
    for name, settings in question["configs"].items():
        config = Config(**settings)
        seed_everything(config.seed)
        attr = visible.edge_attr
        edge_dim = None if attr is None else (attr.size(-1) if attr.dim() > 1 else 1)
        model = resolve_model(config.model).build(config, visible.x.size(1), visible.num_classes, edge_dim)
        trainer = Trainer(model, visible, config)
        for _ in range(2):
            trainer.step()
        trainer.optimizer.zero_grad()
        peaks[name] = _peak_of_step(trainer)
        del trainer, model
    print(json.dumps(peaks))  # noqa: T201


def _peak_of_step(trainer: Trainer) -> int:
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = _kilobytes("VmRSS")
    trainer.step()
    return 1024 * max(_kilobytes("VmHWM") - before, 0)


def _kilobytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise OSError(f"Expected '{name}' in /proc/self/status (got none); this needs Linux")


@dataclass(frozen=True)
class Row:
    r"""One model in the table of a data set. Scores are shares, not per cent.

    Args:
        model (str): The model.
        n (int): Number of seeds.
        mean (float): Mean test metric.
        std (float, optional): Unbiased standard deviation; :obj:`None` with one seed.
        difference (float, optional): Mean difference to the baseline over common seeds.
        ci_low (float, optional): Lower end of its 95 % t-interval.
        ci_high (float, optional): Upper end.
        p_value (float, optional): Wilcoxon signed-rank test, adjusted for the number of models
            after Holm; :obj:`None` with fewer than five pairs.
        val_mean (float): Mean validation metric of the same runs.
        epoch_ratio (float, optional): Time of a training epoch over that of the baseline.
        memory_ratio (float, optional): Peak memory over that of the baseline.
        parameters (int): Number of parameters.
        pairs (int): Number of seeds that baseline and model share.
    """

    model: str
    n: int
    mean: float
    std: float | None
    difference: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    val_mean: float
    epoch_ratio: float | None
    memory_ratio: float | None
    parameters: int
    pairs: int = 0


def table(records: Sequence[Record], baseline: str = BASELINE) -> list[Row]:
    r"""Summarises the runs of one data set: the baseline first, then models as they came.

    Args:
        records (list of dict): Records of one data set.
        baseline (str, optional): What the others are compared with. (default: :obj:`"gat"`)

    Raises:
        ValueError: If the records are of several data sets, if some runs were tuned and others not, or with
            another budget, or if a model has runs of several settings.
    """
    runs = [record for record in records if record.get("kind") == "run"]
    datasets = _unique(record["dataset"] for record in runs)
    if len(datasets) > 1:
        raise ValueError(f"Expected records of one data set (got {', '.join(datasets)}); pass those of one")
    _expect_one_kind(runs)
    found: dict[str, dict[tuple[int, str], Record]] = {}
    for record in runs:  # a later run of the same seed replaces an earlier one
        found.setdefault(record["model"], {})[record["seed"], record["split"]] = record
    order = sorted(found, key=lambda model: model != baseline)
    reference = found.get(baseline, {})
    costs = _costs(records, datasets, baseline)

    differences = {
        model: np.array(
            [run["test"] - reference[pair]["test"] for pair, run in found[model].items() if pair in reference]
        )
        for model in order
        if model != baseline
    }
    adjusted = holm({model: wilcoxon(values) for model, values in differences.items()})
    rows = []
    for model in order:
        own = list(found[model].values())
        test = np.array([run["test"] for run in own])
        values = differences.get(model, np.empty(0))
        low, high = _interval(values)
        epoch_ratio, memory_ratio = costs.get(model, (None, None))
        rows.append(
            Row(
                model=model,
                n=len(own),
                mean=float(test.mean()),
                std=float(test.std(ddof=1)) if len(own) > 1 else None,
                difference=float(values.mean()) if values.size else None,
                ci_low=low,
                ci_high=high,
                p_value=adjusted.get(model),
                val_mean=float(np.mean([run["val"] for run in own])),
                epoch_ratio=epoch_ratio,
                memory_ratio=memory_ratio,
                parameters=own[-1]["parameters"],
                pairs=values.size,
            )
        )
    return rows


def _expect_one_kind(runs: Sequence[Record]) -> None:
    first: dict[str, Record] = {}
    for run in runs:
        if run.get("tuned") != runs[0].get("tuned"):
            raise ValueError(
                f"Expected runs on '{run['dataset']}' that are equally tuned (got '{runs[0]['model']}' "
                f"{_budget(runs[0].get('tuned'))} and '{run['model']}' {_budget(run.get('tuned'))}); show "
                "them in tables apart"
            )
        other = first.setdefault(run["model"], run)
        for name, one, two in _differing(other.get("config") or {}, run.get("config") or {}):
            raise ValueError(
                f"Expected runs of '{run['model']}' on '{run['dataset']}' with equal settings (got "
                f"{name}={one} and {name}={two}); show them in tables apart"
            )


def tables(records: Sequence[Record]) -> dict[str, list[Record]]:
    r"""Sorts runs, and what they cost, by the table that they belong to: one per data set, and one more per
    budget of tuning.

    Args:
        records (list of dict): Any records.

    Returns:
        dict: Titles, each with the records that :func:`table` takes; only those with runs.
    """
    found: dict[str, list[Record]] = {}
    for record in records:
        if record.get("kind") in ("run", "cost"):
            tuned = record.get("tuned")
            budget = f", tuned {tuned['settings']} × {tuned['seeds']}" if tuned else ""
            found.setdefault(record["dataset"] + budget, []).append(record)
    return {title: own for title, own in found.items() if any(record.get("kind") == "run" for record in own)}


def _costs(
    records: Sequence[Record], datasets: Sequence[str], baseline: str
) -> dict[str, tuple[float | None, float | None]]:
    found: dict[str, tuple[float | None, float | None]] = {}
    for record in records:
        if record.get("kind") == "cost" and record["dataset"] in datasets and record["baseline"] == baseline:
            for model, entry in record["models"].items():
                found[model] = (entry["seconds_ratio"][0], entry["memory_ratio"])
    return found


def wilcoxon(differences: np.ndarray) -> float | None:
    r"""The two-sided p-value of the Wilcoxon signed-rank test that differences are symmetric about
    zero.

    Zeros are dropped, ties share the mean of their ranks. With up to 50 differences the
    distribution is the exact one, also with ties: scores on a few hundred nodes tie often.

    Args:
        differences (numpy.ndarray): Paired differences.

    Returns:
        float or None: 1 if all differences are zero; :obj:`None` with fewer than five, where no
        outcome could be significant.

    Example:
        >>> wilcoxon(np.array([0.1, 0.2, 0.3, 0.4, 0.5]))
        0.0625
    """
    if differences.size < 5:
        return None
    # Differences of equal shares differ in the last digits only; that is no order.
    rounded = np.round(np.asarray(differences, dtype=np.float64), 10)
    rounded = rounded[rounded != 0.0]
    if rounded.size == 0:
        return 1.0
    from scipy import stats  # slow to import

    if rounded.size > EXACT_PAIRS:
        return float(stats.wilcoxon(rounded, method="asymptotic").pvalue)
    ranks = np.round(2 * stats.rankdata(np.abs(rounded))).astype(int)  # halves become whole
    ways = np.zeros(ranks.sum() + 1)  # of each sum of positive ranks, over all choices of signs
    ways[0] = 1.0
    for rank in ranks:
        ways[rank:] += ways[:-rank].copy()
    positive = ranks[rounded > 0].sum()
    tail = min(ways[: positive + 1].sum(), ways[positive:].sum())
    return float(min(1.0, 2 * tail / ways.sum()))


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    r"""Adjusts p-values for their number after Holm (1979).

    Args:
        p_values (dict): p-values by name; those that are :obj:`None` are not counted.

    Example:
        >>> holm({"a": 0.01, "b": 0.04, "c": None})
        {'a': 0.02, 'b': 0.04, 'c': None}
    """
    known = sorted((p, name) for name, p in p_values.items() if p is not None)
    adjusted: dict[str, float | None] = dict.fromkeys(p_values)
    largest = 0.0
    for rank, (p, name) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[name] = largest
    return adjusted


def _interval(values: np.ndarray) -> tuple[float | None, float | None]:
    if values.size < 2:
        return None, None
    from scipy import stats

    half = stats.t.ppf(0.975, values.size - 1) * values.std(ddof=1) / math.sqrt(values.size)
    return float(values.mean() - half), float(values.mean() + half)


def markdown(rows: Sequence[Row], metric: str = "accuracy", baseline: str = BASELINE) -> str:
    r"""Returns the table of one data set in Markdown.

    Args:
        rows (list of Row): What :func:`table` returned.
        metric (str, optional): The metric. (default: :obj:`"accuracy"`)
        baseline (str, optional): The baseline. (default: :obj:`"gat"`)
    """
    lines = [_headings(metric, baseline), ["---"] + ["---:"] * 8, *map(_cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rich_table(
    rows: Sequence[Row], title: str, metric: str = "accuracy", baseline: str = BASELINE
) -> "Table":
    r"""Returns the table of one data set for a terminal.

    Args:
        rows (list of Row): What :func:`table` returned.
        title (str): The title.
        metric (str, optional): The metric. (default: :obj:`"accuracy"`)
        baseline (str, optional): The baseline. (default: :obj:`"gat"`)
    """
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    drawn = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, name in enumerate(_headings(metric, baseline)):
        # The words of a heading may stand above each other, numbers stay in one piece.
        drawn.add_column(
            name.replace(" [", "\n["),
            justify="right" if number else "left",
            no_wrap=number == 3,
            min_width=max((len(_plain(_cells(row)[number])) for row in rows), default=0),
        )
    for row in rows:
        drawn.add_row(*(escape(_plain(cell)) for cell in _cells(row)))
    return drawn


def _plain(cell: str) -> str:
    return cell.strip("`")


def _headings(metric: str, baseline: str) -> list[str]:
    return [
        "model",
        "seeds",
        f"test {METRICS[metric]} %",
        f"difference to {baseline} [95 %]",
        "p",
        "val %",
        "epoch time",
        "memory",
        "parameters",
    ]


def _cells(row: Row) -> list[str]:
    difference = _text(row.difference, "{:+.1f}", 100)
    if row.ci_low is not None and row.ci_high is not None:
        low, high = (_text(end, "{:+.1f}", 100) for end in (row.ci_low, row.ci_high))
        difference += f" [{low}, {high}]"
    p_value = _text(row.p_value, "{:.3f}")
    if row.p_value is not None and row.p_value < 0.001:
        p_value = "< 0.001"
    return [
        f"`{row.model}`",
        str(row.n),
        _score(row),
        difference,
        p_value,
        _text(row.val_mean, "{:.1f}", 100),
        _text(row.epoch_ratio, "{:.2f}×"),
        _text(row.memory_ratio, "{:.2f}×"),
        f"{row.parameters:,}",
    ]


def _score(row: Row) -> str:
    mean = _text(row.mean, "{:.1f}", 100)
    return mean if row.std is None else f"{mean} ± {_text(row.std, '{:.1f}', 100)}"


def _text(value: float | None, form: str, scale: float = 1.0) -> str:
    if value is None:
        return "–"
    return form.format(scale * value).replace("-", "−")


def readme_tables(*sources: str | os.PathLike[str], baseline: str = BASELINE) -> str:
    r"""Returns all results as Markdown: models by data sets, then one full table per data set.

    Args:
        *sources (str or Path): Files of records, or folders below which every ``results.jsonl``
            is read.
        baseline (str, optional): The baseline. (default: :obj:`"gat"`)

    Raises:
        FileNotFoundError: If a source holds no results.
    """
    records = [record for path in result_files(sources) for record in record_file.read(path)]
    of_tables = tables(records)
    made = {title: table(own, baseline) for title, own in of_tables.items()}
    if not made:
        shown = ", ".join(str(source) for source in sources)
        raise FileNotFoundError(f"Expected runs in {shown} (got none); run: kgat compare")
    models = _unique(row.model for rows in made.values() for row in rows)
    models.sort(key=lambda model: model != baseline)
    lines = [["model", *made], ["---"] + ["---:"] * len(made)]
    for model in models:
        cells = [next((_score(row) for row in rows if row.model == model), "–") for rows in made.values()]
        lines.append([f"`{model}`", *cells])
    parts = [
        "Test metric in %, mean ± unbiased standard deviation over seeds. A seed picks split and "
        "initial weights, for all models alike. The epoch is chosen on validation nodes and test "
        "nodes are scored once, at that epoch.",
        "\n".join(f"| {' | '.join(line)} |" for line in lines),
    ]
    for title, rows in made.items():
        runs = [record for record in of_tables[title] if record.get("kind") == "run"]
        parts += [f"**{title}.** {_protocol_line(runs)}", markdown(rows, runs[0]["metric"], baseline)]
        parts += filter(None, (tuning_line(runs), _contended(of_tables[title])))
    parts.append(
        f"Difference: paired by seed, in percentage points, with a 95 % t-interval. p: Wilcoxon "
        f"signed-rank test of the paired differences, adjusted over the models of a data set after "
        f"Holm; with n seeds it cannot fall below 2^(1 − n). Epoch time and peak memory: one "
        f"training epoch, measured in turns with `{baseline}`, as ratios to it."
    )
    return "\n\n".join(parts)


def update_readme(
    path: str | os.PathLike[str], tables: str, begin_line: str = BEGIN, end_line: str = END
) -> bool:
    r"""Replaces what stands between the two markers of a Markdown file.

    Args:
        path (str or Path): The file.
        tables (str): What :func:`readme_tables` returned.
        begin_line (str, optional): The first marker. (default: that of results)
        end_line (str, optional): The second marker. (default: that of results)

    Returns:
        bool: Whether the file changed.

    Raises:
        ValueError: If the file does not have both markers once, in their order.
    """
    before, old, after = split_readme(path, begin_line, end_line)
    new = f"\n{tables}\n"
    if new != old:
        record_file.write_atomically(path, f"{before}{new}{after}".encode())
    return new != old


def split_readme(
    path: str | os.PathLike[str], begin_line: str = BEGIN, end_line: str = END
) -> tuple[str, str, str]:
    r"""Returns a Markdown file up to the end of the first marker, what stands between the two, and the rest.

    Args:
        path (str or Path): The file.
        begin_line (str, optional): The first marker. (default: that of results)
        end_line (str, optional): The second marker. (default: that of results)

    Raises:
        ValueError: If the file does not have both markers once, in their order.
    """
    old = Path(path).read_text(encoding="utf8")
    begin, end = old.find(begin_line), old.find(end_line)
    if not 0 <= begin < end or old.count(begin_line) != 1 or old.count(end_line) != 1:
        raise ValueError(
            f"Expected the lines '{begin_line}' and '{end_line}' in '{path}', once and in this order (got "
            f"{old.count(begin_line)} and {old.count(end_line)}); add them where the tables belong"
        )
    begin += len(begin_line)
    return old[:begin], old[begin:end], old[end:]


def result_files(sources: Sequence[str | os.PathLike[str]]) -> list[Path]:
    r"""Returns the files of records that sources name.

    Args:
        sources (list of str or Path): Files, or folders below which every ``results.jsonl`` counts.

    Raises:
        FileNotFoundError: If a source holds none.
    """
    found = []
    for source in map(Path, sources):
        if source.is_file():
            found.append(source)
            continue
        below = sorted(source.rglob(RESULTS)) if source.is_dir() else []
        if not below:
            raise FileNotFoundError(
                f"Expected results in '{source}' (got no {RESULTS} there); run: kgat compare --out {source}"
            )
        found += below
    return list({path.resolve(): path for path in found}.values())


def _contended(records: Sequence[Record]) -> str:
    costs = [record for record in records if record.get("kind") == "cost"]
    models = costs[-1]["models"] if costs else {}
    unreliable = [model for model, entry in models.items() if entry["contended"]]
    if not unreliable:
        return ""
    return (
        f"Unreliable, varied by more than {CONTENDED}× between rounds: epoch time of {', '.join(unreliable)}."
    )


def tuning_line(runs: Sequence[Record]) -> str:
    r"""Says how the runs of a table were tuned and what was chosen for each model; nothing if they were not.

    Args:
        runs (list of dict): The runs of one table.
    """
    tuned = runs[0].get("tuned")
    if tuned is None:
        return ""
    space = "; ".join(f"{name} {_choices(map(_setting, values))}" for name, values in tuned["space"].items())
    seeds = f"{tuned['seeds']} seed{'s' * (tuned['seeds'] != 1)}"
    configs = {run["model"]: run["config"] for run in runs}
    chosen = (
        f"`{model}` " + ", ".join(f"{name} {_setting(config[name])}" for name in tuned["space"])
        for model, config in configs.items()
    )
    return (
        f"Tuned on validation nodes alone: every model had the same {tuned['settings']} settings, the "
        f"protocol and random points of the grid {space}, each trained with {seeds} that no run has. The "
        f"best mean validation score chose: {'; '.join(chosen)}."
    )


def _choices(values: Iterable[str]) -> str:
    *others, last = values
    return f"{', '.join(others)} or {last}" if others else last


def _protocol_line(runs: Sequence[Record]) -> str:
    def of(name: str) -> str:
        values = _unique(_setting(run["config"][name]) for run in runs)
        return " or ".join(values)

    spared = _models([run for run in runs if not _value(run["config"], "decay_kernels")])
    undecayed = f" (not on frequencies, lengthscales and exponents in {', '.join(spared)})" if spared else ""

    splits = _unique(run["split"] for run in runs)
    split = f"Split {splits[0]}" if len(splits) == 1 else f"{len(splits)} splits ({splits[0]}, ...)"
    seeds = _unique(str(len({r["seed"] for r in runs if r["model"] == m})) for m in _models(runs))
    width = "{} heads, {} channels in all".format(of("heads"), of("hidden_channels"))
    normalised = "" if of("norm") == "none" else f", {of('norm')}"
    skip = ", residual" if of("residual") == "true" else ""
    shared = "" if of("projections") == "none" else f", projections {of('projections')}"
    values = "" if of("value_dropout") == "0" else f", on values {of('value_dropout')}"
    versions = _unique(
        f"torch {run['versions']['torch']}, torch_geometric {run['versions']['torch_geometric']}"
        for run in runs
    )
    return (
        f"{split}, {' or '.join(seeds)} seeds; {of('num_layers')} layers of {width}, last layer "
        f"{of('out_heads')} head{'s' * (of('out_heads') != '1')}, {of('act')}{normalised}{skip}"
        f"{shared}; dropout {of('dropout')}, on the input {of('input_dropout')}{values}; Adam, learning "
        f"rate {of('lr')}, weight decay {of('weight_decay')}{undecayed}; at most {of('max_epochs')} epochs, "
        f"early stopping on validation loss and {METRICS[runs[0]['metric']]}, patience "
        f"{of('patience')}; {' or '.join(versions)}."
    )


def _models(runs: Sequence[Record]) -> list[str]:
    return _unique(run["model"] for run in runs)


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)
