r"""What a training epoch of each model costs, next to stock GAT."""

import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch_geometric import seed_everything

from kgat.datasets import VISIBLE
from kgat.experiments import allocator, processes
from kgat.experiments.bench import measure, worker
from kgat.experiments.circumstances import circumstances
from kgat.experiments.config import Config
from kgat.experiments.records import BASELINE
from kgat.experiments.registry import Model, given, is_found, resolve_model
from kgat.experiments.settings import SETTINGS
from kgat.experiments.training import build, trainer_of

Record = Mapping[str, Any]

ROUNDS = 20
ROUND_SECONDS = 60.0  # a slow epoch gets fewer rounds than ROUNDS


def measure_cost(
    task: Any,
    config: Config,
    models: Sequence[str] | Mapping[str, str],
    rounds: int = ROUNDS,
    *,
    device: str = "cpu",
    alone: bool = False,
    own: Mapping[str, Model] | None = None,
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
        models (list of str or dict): The models, or what the record calls each; the baseline is added if
            missing.
        rounds (int, optional): Number of rounds, fewer if they last more than a minute.
            (default: :obj:`20`)
        device (str, optional): Where to train. (default: :obj:`"cpu"`)
        alone (bool, optional): Whether time is taken in a process of its own, whose freed memory stays with
            it, as that of the processes that train: for all models alike. (default: :obj:`False`)
        own (dict, optional): Models of the user's own, which that process has to know, see
            :func:`kgat.experiments.registry.given`. (default: :obj:`None`)

    Returns:
        dict: A record of kind :obj:`"cost"`.
    """
    if not isinstance(models, Mapping):
        models = {resolve_model(name).name: name for name in models}
    settings = {name: getattr(config, name) for name in SETTINGS}
    configs = {
        name: Config.of(config.dataset, model, config.seed, settings)
        for name, model in {BASELINE: BASELINE, **models}.items()
    }
    visible = task.visible(task.split(config.seed))
    peaks: Mapping[str, int | None]
    if alone and not device.startswith("cuda"):
        threads = torch.get_num_threads()
        asked = (own or {}, visible, configs)
        try:
            seconds, kept = processes.alone(_seconds_alone, *asked, rounds, threads=threads)
        except BrokenProcessPool as error:
            raise OSError(str(error)) from error  # as that of the processes that train
        try:
            peaks = processes.alone(_peaks_alone, *asked, threads=threads)
        except (BrokenProcessPool, MemoryError, RuntimeError) as error:
            peaks = _unknown(error)
    else:
        steps = _steps(visible, configs, device)
        seconds, kept = _seconds(steps, rounds, device), False
        if device.startswith("cuda"):
            peaks = {name: measure.peak_bytes(step, device) for name, step in steps.items()}
        else:
            peaks = _peaks(visible, configs)

    of_models: dict[str, Any] = {}
    for name in configs:
        verdict = measure.verdict(measure.ratios(seconds[name], seconds[BASELINE]))
        peak, reference = peaks.get(name), peaks.get(BASELINE)
        of_models[name] = {
            "seconds_ratio": verdict["ratio"],
            "contended": verdict["contended"],
            "memory_ratio": float(f"{peak / reference:.4g}") if peak and reference else None,
            "epoch_seconds": measure.spread(seconds[name])[0],
            "peak_bytes": peak,
        }
    return {
        "kind": "cost",
        "dataset": task.name,
        "models": of_models,
        "baseline": BASELINE,
        "rounds": len(seconds[BASELINE]),
        **({"allocator": "recycling"} if kept else {}),
        **circumstances(device),
    }


def _steps(visible: Any, configs: Mapping[str, Config], device: str) -> dict[str, measure.Step]:
    steps: dict[str, measure.Step] = {}
    for name, config in configs.items():
        seed_everything(config.seed)
        steps[name] = trainer_of(build(visible, config).to(device), visible, config).step
        for _ in range(3):  # the first steps build caches and optimiser state
            steps[name]()
    return steps


def _seconds(steps: Mapping[str, measure.Step], rounds: int, device: str) -> dict[str, list[float]]:
    return measure.take_turns(steps, lambda: None, ROUND_SECONDS, device, most=rounds)


def _seconds_alone(
    own: Mapping[str, Model], visible: Any, configs: Mapping[str, Config], rounds: int
) -> tuple[dict[str, list[float]], bool]:
    with given(own):
        return _seconds(_steps(visible, configs, "cpu"), rounds, "cpu"), allocator.recycles()


def _peaks_alone(
    own: Mapping[str, Model], visible: Any, configs: Mapping[str, Config]
) -> dict[str, int | None]:
    allocator.gives_back()
    measure.limit_memory()
    with given(own):
        return dict(_peak_of_each(visible, configs))


def has_cost(records: Sequence[Record], dataset: str, models: Sequence[str]) -> bool:
    costs = [r for r in records if r.get("kind") == "cost" and r["dataset"] == dataset]
    return bool(costs) and set(models) <= set(costs[-1]["models"])


@dataclass(frozen=True)
class Question:
    r"""What a fresh process is asked.

    Args:
        path (str): A file with what it may see of a task and the settings of models.
        device (str): Where to run.
        threads (int): CPU threads.
    """

    path: str
    device: str
    threads: int


def _peaks(visible: Any, configs: Mapping[str, Config]) -> dict[str, int | None]:
    if not Path("/proc/self/clear_refs").exists():
        return {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "question.pt"
        # A factory that is not found by its name alone cannot be asked of another process.
        found = {name: config for name, config in configs.items() if is_found(config.model)}
        settings = {name: config.as_dict() for name, config in found.items()}
        torch.save({"level": visible.level, "visible": vars(visible), "configs": settings}, path)
        question = Question(str(path), "cpu", torch.get_num_threads())
        try:
            return {answer["model"]: answer["bytes"] for answer in worker.ask(__name__, question, "memory")}
        except ChildProcessError as error:
            return _unknown(error)


def _unknown(error: Exception) -> dict[str, int | None]:
    warnings.warn(f"peak memory could not be measured: {error}", stacklevel=3)
    return {}


def answers(question: Question) -> Iterator[dict[str, Any]]:
    r"""Yields the peak of each model, in a process of :func:`kgat.experiments.bench.worker.ask`."""
    asked = torch.load(question.path, weights_only=True)
    visible = VISIBLE[asked["level"]](**asked["visible"])
    configs = {name: Config.from_dict(settings) for name, settings in asked["configs"].items()}
    for name, peak in _peak_of_each(visible, configs):
        yield {"model": name, "bytes": peak}


def _peak_of_each(visible: Any, configs: Mapping[str, Config]) -> Iterator[tuple[str, int | None]]:
    for name, config in configs.items():
        seed_everything(config.seed)
        trainer = trainer_of(build(visible, config), visible, config)
        for _ in range(2):
            trainer.step()
        trainer.optimizer.zero_grad()
        yield name, measure.peak_bytes(trainer.step, "cpu")
