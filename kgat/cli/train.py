r"""``kgat train``: one model, one seed."""

from pathlib import Path
from typing import Annotated

import typer

from kgat.atomic import make_folder
from kgat.cli import options

__all__ = ["train"]

ORDER = 20


@options.takes_data
def train(
    dataset: options.Dataset = None,
    model: Annotated[str, typer.Option(help="The model, as in compare.")] = "rbf",
    seed: Annotated[int, typer.Option(help="Seed of split, weights and dropout.", min=0)] = 0,
    root: options.Root = None,
    metric: options.Metric = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for model.pt and config.json. Default: nothing is written.")
    ] = None,
    submission: Annotated[
        Path | None,
        typer.Option(help="File .npz for answers to the test part, as OGB's evaluators take them."),
    ] = None,
    overrides: options.Overrides = None,
    protocol: options.Protocol = None,
    batch_size: options.BatchSize = None,
    neighbors: options.Neighbors = None,
    threads: options.Threads = None,
    device: options.Device = "cpu",
    checkpoint: options.Checkpoint = "30s",
    resume: options.Resume = True,
    log: options.Log = None,
    *,
    own: options.OwnData,
) -> None:
    r"""Train one model with one seed, and save it if asked to.

    kgat predict --model FOLDER answers for new data; kgat.experiments.training.restore(folder) builds the
    model again. Started by torchrun, as in torchrun
    --nproc-per-node 2 -m kgat train ..., processes share the nodes of each batch of --batch-size.
    """
    from kgat.datasets import load, save_submission
    from kgat.experiments import distributed, training
    from kgat.experiments.checkpoint import Checkpoints, Interval
    from kgat.experiments.config import Config, on_task
    from kgat.experiments.logs import expect_log, logged
    from kgat.experiments.registry import expect_taken, warn_of_unseen_edges
    from kgat.measures import measure_of

    settings = options.settings_of(overrides, batch_size=batch_size, neighbors=neighbors)
    settings = options.protocol_of(protocol, dataset) | settings
    expect_taken([model], settings)
    interval = Interval.read(checkpoint)
    expect_log(log)
    if log is not None and out is None:
        raise ValueError(f"Expected a folder for the log (got none beside --log {log}); pass --out FOLDER")
    options.set_threads(threads)
    options.check_device(device)
    with distributed.joined(device) as here:
        with distributed.one_after_another():
            named = own.task(dataset, metric)
            task = load(named, root, metric=metric) if isinstance(named, str) else named
        warn_of_unseen_edges([model], task)
        config = Config.of(task.name, model, seed, on_task(settings, task))
        if out is not None:
            make_folder(out)
            training.expect_room(out, config)
        first = distributed.is_first()
        with logged(log if first else None, config, task.metric, out or Path()) as told:
            record, trained = training.train(
                task,
                config,
                device=here,
                on_epoch=told[0] if told else None,
                checkpoint=None if out is None else Checkpoints(out, interval, resume).of(config.key),
            )
        if not first:
            return
    if out is not None:
        training.save(out, trained, task, record)
        Checkpoints(out, interval).remove(config.key)
    if submission is not None:
        split = task.split(seed)
        save_submission(submission, task, split, training.outputs(trained, task, split, config)["test"])
    measure = measure_of(task.metric)
    scores = ", ".join(f"{part} {measure.shown(record[part])}" for part in ("train", "val", "test"))
    typer.echo(
        f"{task.name}, {config.model}, seed {seed}, split {record['split']}: "
        f"{measure.label} {scores}; epoch {record['best_epoch']} of {record['epochs']}, "
        f"{record['seconds']:.1f} s, {record['parameters']} parameters"
    )
    if out is not None:
        typer.echo(f"{out / 'model.pt'}  {out / 'config.json'}")
    if submission is not None:
        typer.echo(submission)
