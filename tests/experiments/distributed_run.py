r"""What each of several processes runs: python distributed_run.py FOLDER SETTINGS [EPOCH_OF_DEATH]."""

import json
import os
import signal
import sys
from pathlib import Path

import torch

from kgat.datasets import load
from kgat.experiments import distributed, training
from kgat.experiments.checkpoint import Checkpoint, Interval
from kgat.experiments.config import Config


def main(folder, settings, death=None):
    torch.set_default_dtype(torch.float64)
    task = load("karate")
    task.data.x = task.data.x.double()
    config = Config.of("karate", "rbf", overrides=json.loads(settings))

    def on_epoch(number, *_):
        if death is not None and number == int(death) and distributed.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    with distributed.joined() as device:
        checkpoint = Checkpoint(Path(folder) / "checkpoint", Interval(epochs=1))
        record, model = training.train(task, config, device=device, on_epoch=on_epoch, checkpoint=checkpoint)
        torch.save(model.state_dict(), Path(folder) / f"model-{distributed.rank()}.pt")
        if distributed.is_first():
            (Path(folder) / "record.json").write_text(json.dumps(record))
            checkpoint.remove()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (ValueError, OSError) as error:
        sys.exit(f"said: {error}")
