r"""What each of several processes runs: python distributed_run.py FOLDER JOBS, of which each has a port."""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from unittest.mock import patch

import torch
from torch.nn.parallel import DistributedDataParallel

from kgat.datasets import load
from kgat.experiments import distributed, training
from kgat.experiments.checkpoint import Checkpoint, Interval
from kgat.experiments.config import Config

KEPT = []  # modules that outlive their group


def main(folder, settings, dies_after=None):
    r"""Trains on karate; the second process kills itself after so many epochs."""
    torch.set_default_dtype(torch.float64)
    task = load("karate")
    task.data.x = task.data.x.double()
    model = settings.pop("model", "rbf")
    if model == "implicit":
        task = with_holes(task)
    config = Config.of("karate", model, overrides=settings)

    def on_epoch(number, *_):
        if number == dies_after and distributed.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    # The noise of implicit kernels is drawn in each process on its own: here there is none.
    with patch("torch.randn_like", torch.ones_like), distributed.joined() as device:
        if distributed.world_size() > 1:
            KEPT.append(DistributedDataParallel(torch.nn.Linear(1, 1)))
        checkpoint = Checkpoint(folder / "checkpoint", Interval(epochs=1))
        record, trained = training.train(
            task, config, device=device, on_epoch=on_epoch, checkpoint=checkpoint
        )
        torch.save(trained.state_dict(), folder / f"model-{distributed.rank()}.pt")
        if distributed.is_first():
            (folder / "record.json").write_text(json.dumps(record))
            checkpoint.remove()


def with_holes(task):
    r"""Returns a regression of three values, of which every node lacks some."""
    y = torch.randn(34, 3, generator=torch.Generator().manual_seed(0))
    known = torch.rand(34, 3, generator=torch.Generator().manual_seed(1)) > 0.5
    known[:, 0] |= ~known.any(dim=1)
    data = task.data.clone()
    data.y = y.where(known, torch.nan)
    return dataclasses.replace(task, data=data, kind="regression", metric="rmse", num_classes=3)


def threads_of_gloo():
    return [path.name for path in Path("/proc/self/task").glob("*") if "gloo" in (path / "comm").read_text()]


if __name__ == "__main__":
    for name, port, settings, *death in json.loads(sys.argv[2]):
        os.environ["MASTER_PORT"] = str(port)
        (Path(sys.argv[1]) / name).mkdir(parents=True, exist_ok=True)
        try:
            main(Path(sys.argv[1]) / name, settings, *death)
            said = "done"
        except (ValueError, OSError) as error:
            said = str(error)
        sys.stdout.write(f"{name}: {said}\n")
        if left := threads_of_gloo():
            sys.stdout.write(f"{name}: {len(left)} threads left\n")
        sys.stdout.flush()
