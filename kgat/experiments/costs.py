r"""What a training epoch of each model costs, next to stock GAT."""

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric import seed_everything

import kgat
from kgat.datasets import Task, Visible
from kgat.experiments.circumstances import circumstances
from kgat.experiments.config import SETTINGS, Config
from kgat.experiments.records import BASELINE
from kgat.experiments.registry import resolve_model
from kgat.experiments.training import Trainer, build, build_model, edge_dim_of

Record = Mapping[str, Any]

ROUNDS = 20
ROUND_SECONDS = 60.0  # a slow epoch gets fewer rounds than ROUNDS
CONTENDED = 1.6  # largest over smallest ratio of a round above which a timing is not to be trusted


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
    names = list(dict.fromkeys([BASELINE, *(resolve_model(name).name for name in models)]))
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


def has_cost(records: Sequence[Record], dataset: str, models: Sequence[str]) -> bool:
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
            [
                sys.executable,
                "-c",
                "import kgat.experiments.costs; kgat.experiments.costs._answer_peaks()",
                str(path),
            ],
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
        config = Config.from_dict(settings)
        seed_everything(config.seed)
        edge_dim = edge_dim_of(visible.edge_attr)
        model = build_model(config, visible.x.size(1), visible.num_classes, edge_dim)
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
