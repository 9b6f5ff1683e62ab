r"""Trains one model on one task: fit, evaluation, and the record of it all."""

import dataclasses
import hashlib
import json
import os
import pickle
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch_geometric import seed_everything
from torch_geometric.utils import degree

from kgat.atomic import make_folder, write_atomically
from kgat.datasets.metrics import KINDS
from kgat.experiments import distributed, loop
from kgat.experiments.batch_trainer import BatchTrainer
from kgat.experiments.checkpoint import Checkpoint, fingerprint
from kgat.experiments.circumstances import circumstances
from kgat.experiments.config import ADDED, Config
from kgat.experiments.distributed_checkpoint import DistributedCheckpoint
from kgat.experiments.distributed_trainer import DistributedTrainer
from kgat.experiments.graph_trainer import GraphTrainer
from kgat.experiments.hetero_batch_trainer import HeteroBatchTrainer
from kgat.experiments.link_batch_trainer import LinkBatchTrainer
from kgat.experiments.link_trainer import LinkTrainer
from kgat.experiments.loop import Diverged, Epoch, Fitted
from kgat.experiments.registry import resolve_model
from kgat.experiments.trainer import Trainer, inputs_of
from kgat.models import GraphReadout, LinkPredictor, StandardizedOutput, TargetOutput
from kgat.names import one_of

__all__ = [
    "Diverged",
    "Fitted",
    "Trainer",
    "evaluate",
    "expect_room",
    "fit",
    "outputs",
    "restore",
    "run",
    "save",
    "train",
]

CONFIG, WEIGHTS = "config.json", "model.pt"
CURVE_POINTS = 60  # of a stored learning curve
PACKAGE = Path(__file__).parents[1]  # the folder of kgat
OnEpoch = Callable[[int, float, float, float], None]


OF_LEVELS = {"pooling": "graph", "decoder": "link"}  # settings that only tasks on these have
# How a model is trained and scored, by the level of its task.
TRAINERS: dict[str, type[Trainer]] = {
    trainer.level: trainer for trainer in (Trainer, GraphTrainer, LinkTrainer)
}


def trainer_of(model: torch.nn.Module, visible: Any, config: Config) -> Trainer:
    r"""Returns the trainer of what a task lets training see."""
    return _trainer_class(visible, config)(model, visible, config)


def _trainer_class(task: Any, config: Config | None) -> type[Trainer]:
    level = task.level
    if config is None or (level == "node" and config.batch_size is None):
        return TRAINERS[level]
    if level == "node":
        if getattr(task, "target", None) is not None:
            if distributed.world_size() > 1:
                raise ValueError(
                    "Expected one process for a heterogeneous graph (got several); start it without torchrun"
                )
            return HeteroBatchTrainer
        return BatchTrainer if distributed.world_size() == 1 else DistributedTrainer
    if config.neighbors is not None and level == "link":
        return LinkBatchTrainer
    if config.neighbors is not None:
        raise ValueError(
            f"Expected no 'neighbors' of a task on {level}s (got {config.neighbors}); it takes whole graphs: "
            "leave it out"
        )
    return TRAINERS[level]


def build(task: Any, config: Config) -> torch.nn.Module:
    r"""Builds the model of a configuration for a task.

    Args:
        task (Task): The task, or what training may see of it.
        config (Config): The settings.

    Raises:
        ValueError: If a setting is one of tasks on something else.
    """
    for name, level in OF_LEVELS.items():
        value, default = getattr(config, name), ADDED[name]
        if task.level != level and value != default:
            raise ValueError(
                f"Expected no '{name}' of a task on {task.level}s (got {value}); leave it out: tasks on "
                f"{level}s have it"
            )
    return build_model(config, **_sizes(task), **_asked(task, config))


def _asked(task: Any, config: Config) -> dict[str, Any]:
    if "deg" not in resolve_model(config.model).asks or getattr(task, "target", None) is not None:
        return {}
    # What is held out tells no degrees: edges that are asked for, graphs for testing.
    seen = task.visible(task.split(config.seed)) if hasattr(task, "visible") else task
    return {"deg": degree(seen.edge_index[1], seen.x.size(0), torch.long).bincount(minlength=2)}


def _sizes(task: Any) -> dict[str, Any]:
    graph = getattr(task, "data", task)  # what training may see of it has them itself
    answers = {"out_channels": task.out_channels, "level": task.level, "kind": task.kind}
    if (target := getattr(task, "target", None)) is not None:
        x, edge_index, extras = inputs_of(graph)
        return answers | {
            "in_channels": {name: features.size(1) for name, features in x.items()},
            # JSON has no keys that are tuples.
            "edge_dim": [[edge, attr.size(1)] for edge, attr in extras.get("edge_attr", {}).items()] or None,
            "metadata": [list(x), list(edge_index)],
            "target": target,
        }
    edge_attr = graph.edge_attr
    edge_dim = None if edge_attr is None else edge_attr.size(-1) if edge_attr.dim() > 1 else 1
    return {"in_channels": graph.x.size(1), "edge_dim": edge_dim} | answers


def build_model(
    config: Config,
    in_channels: int | dict[str, int],
    out_channels: int,
    edge_dim: Any = None,
    level: str = "node",
    kind: str = "multiclass",
    **more: Any,
) -> torch.nn.Module:
    r"""Builds the model of a configuration.

    Args:
        config (Config): The settings.
        in_channels (int or dict): Number of features, of a heterogeneous graph by type of nodes.
        out_channels (int): Number of classes, labels or values.
        edge_dim (int or list, optional): Number of edge features, of a heterogeneous graph pairs of a type of
            edges and its number. (default: :obj:`None`)
        level (str, optional): What is predicted: of each :obj:`"node"`, of a :obj:`"graph"` through
            :class:`~kgat.models.GraphReadout`, of a :obj:`"link"` through
            :class:`~kgat.models.LinkPredictor`. (default: :obj:`"node"`)
        kind (str, optional): The kind of the task; a :obj:`"regression"` has a
            :class:`~kgat.models.StandardizedOutput`. (default: :obj:`"multiclass"`)
        **more (optional): What else the model asks for, as :obj:`deg`, the histogram of in-degrees, or
            :obj:`metadata` and :obj:`target` of a heterogeneous graph.
    """
    resolved = resolve_model(config.model)
    if resolved.code != config.code:
        raise ValueError(
            f"Expected the code of '{config.model}' that the settings name, {config.code} (got "
            f"{resolved.code}); restore it, or choose another folder"
        )
    model: torch.nn.Module
    if level == "node":
        model = resolved.build(config, in_channels, out_channels, edge_dim, **more)
        if "target" in more:
            model = TargetOutput(model, more["target"], out_channels)
    else:
        channels = config.hidden_channels
        encoder = resolved.build(config, in_channels, channels, edge_dim, **more)
        if level == "graph":
            model = GraphReadout(encoder, channels, out_channels, config.pooling, dropout=config.dropout)
        else:
            model = LinkPredictor(encoder, channels, config.decoder)
    return StandardizedOutput(model, out_channels) if kind == "regression" else model


def fit(
    model: torch.nn.Module,
    visible: Any,
    config: Config,
    *,
    on_epoch: OnEpoch | None = None,
    checkpoint: Checkpoint | None = None,
    stateful: Mapping[str, Any] | None = None,
) -> Fitted:
    r"""Trains a model by :func:`kgat.experiments.loop.fit`; at the end it has the weights of the epoch that
    was kept. Nothing here can see the labels of test nodes: they are not in :obj:`visible`.

    Args:
        model (torch.nn.Module): The model.
        visible (Visible): What a task lets training see: nothing of the labels of its test part.
        config (Config): The settings.
        on_epoch (callable, optional): Called with the epoch, the training loss, the validation
            loss and the validation metric. (default: :obj:`None`)
        checkpoint (Checkpoint, optional): Where the state is written while it trains, and where it goes on
            if it was stopped. (default: :obj:`None`)
        stateful (dict, optional): What of :obj:`on_epoch` belongs into a checkpoint, by name.
            (default: :obj:`None`)

    Raises:
        Diverged: If a loss is not finite, with the first module whose output is not.
        ValueError: If code of one's own raises something, with the place.
    """
    processes = distributed.world_size()
    of_types = getattr(visible, "target", None) is not None
    if processes > 1 and (visible.level != "node" or config.batch_size is None or of_types):
        raise ValueError(
            f"Expected a task on nodes in mini-batches, which {processes} processes share (got a task on "
            f"{'nodes of types' if of_types else f'{visible.level}s'} with batch_size={config.batch_size}); "
            "pass --batch-size, or start one process"
        )
    trainer = trainer_of(model, visible, config)
    sign = trainer.metric.sign  # the loop takes more for better

    def step() -> float:
        with _own_code(config):
            return trainer.step()

    def validate() -> tuple[float, float]:
        with _own_code(config):
            loss, score = trainer.validate()
        return loss, sign * score

    if checkpoint is not None:
        device = next(model.parameters()).device.type
        identity = {
            **config.as_dict(),
            "data": fingerprint(visible),
            "device": device,
            **{name: str(version) for name, version in circumstances("cpu")["versions"].items()},
        }
        checkpoint = dataclasses.replace(checkpoint, identity=identity)
        if processes > 1:
            checkpoint = DistributedCheckpoint.of(checkpoint)
    # What the first process answers: one that stopped alone would leave the others waiting.
    told = [] if on_epoch is None else [lambda epoch: distributed.agreed(on_epoch(*_signed(epoch, sign)))]
    fitted = loop.fit(
        model,
        step,
        validate,
        epochs=config.max_epochs,
        keep=config.keep,
        patience=config.patience,
        callbacks=[*told, lambda epoch: trainer.schedule(epoch.val_loss)],
        checkpoint=checkpoint,
        stateful=None if checkpoint is None else {**trainer.stateful, **(stateful or {})},
    )
    history = [_signed(epoch, sign) for epoch in fitted.history]
    return dataclasses.replace(fitted, history=history, best=_signed(fitted.best, sign))


@contextmanager
def _own_code(config: Config) -> Iterator[None]:
    r"""Says in one sentence what code of the user's own raised, and where."""
    try:
        yield
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError) as error:
        frames = traceback.extract_tb(error.__traceback__)
        # With too little memory nothing is wrong in the code, which a smaller batch would run.
        if config.code is None or isinstance(error, torch.OutOfMemoryError) or _is_ours(error, frames):
            raise
        file = config.code.partition(":")[0].rpartition(".")[2] + ".py"
        places = [frame for frame in frames if Path(frame.filename).name == file]
        where = f" in {places[-1].filename}, line {places[-1].lineno}" if places else ""
        raise ValueError(
            f"Expected '{config.model}' to be trained (got {type(error).__name__}: {error}{where}); correct "
            "it, --debug shows the traceback"
        ) from error


def _is_ours(error: Exception, frames: traceback.StackSummary) -> bool:
    r"""Whether kgat itself says what it expected: torch begins some of its messages so, too."""
    raised = Path(frames[-1].filename)
    return raised.is_relative_to(PACKAGE) and str(error).startswith("Expected ")


def _signed(epoch: Epoch, sign: int) -> Epoch:
    return epoch._replace(score=sign * epoch.score)


def evaluate(model: torch.nn.Module, task: Any, split: Any, config: Config | None = None) -> dict[str, float]:
    r"""Scores a trained model, once, on all three parts of a split.

    Args:
        model (torch.nn.Module): The model, with the weights that were kept.
        task (Task): The task.
        split (Split): The split.
        config (Config, optional): The settings: with a :obj:`batch_size`, nodes are scored layer by layer, in
            less memory. (default: :obj:`None`)

    Returns:
        dict: The metric on :obj:`train`, :obj:`val` and :obj:`test`.
    """
    answers = outputs(model, task, split, config)
    return {part: task.score(output, split, part) for part, output in answers.items()}


def outputs(
    model: torch.nn.Module, task: Any, split: Any, config: Config | None = None
) -> dict[str, torch.Tensor]:
    r"""Returns what a trained model says, in evaluation mode: of each part of a split what the task scores, a
    row for each node or graph of all parts, or a number for each pair of the part.

    Args:
        model (torch.nn.Module): The model.
        task (Task, GraphTask or LinkTask): The task.
        split (Split or LinkSplit): The split.
        config (Config, optional): As in :func:`evaluate`. (default: :obj:`None`)
    """
    model.eval()
    with torch.no_grad():
        return _trainer_class(task, config).outputs(model, task, split)


def curve(history: Sequence[Epoch]) -> dict[str, list[float]]:
    r"""Returns a learning curve as records hold it: short, and with both of its ends."""
    last = len(history) - 1
    count = min(CURVE_POINTS, len(history))
    points = [history[i] for i in sorted({round(i * last / max(count - 1, 1)) for i in range(count)})]
    epochs, *columns = zip(*points, strict=True)
    shortened = ([float(f"{value:.5g}") for value in column] for column in columns)
    return {"epoch": list(epochs), **dict(zip(("train_loss", "val_loss", "val"), shortened, strict=True))}


def begun(kind: str, key: str, task: Any, config: Config) -> dict[str, Any]:
    r"""Seeds everything, and returns what the record of a run begins with."""
    seed_everything(config.seed)
    level = {} if task.level == "node" else {"level": task.level}
    return {
        "kind": kind,
        "key": key,
        "dataset": task.name,
        "model": config.model,
        "seed": config.seed,
        "split": task.split(config.seed).name,
        "config": config.as_dict(),
        "metric": task.metric,
        **level,
    }


def train(
    task: Any,
    config: Config,
    *,
    device: str = "cpu",
    on_epoch: OnEpoch | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[dict[str, Any], torch.nn.Module]:
    r"""Builds, fits and scores a model; seeds everything first.

    The seed also picks the split, so that all models of a seed answer the same question. On the CPU
    the same seed gives the same record, but for its durations and date. Of several processes
    (:func:`kgat.experiments.distributed.joined`) the first one alone scores the model.

    Args:
        task (Task): The task.
        config (Config): The settings.
        device (str, optional): Where to train. (default: :obj:`"cpu"`)
        on_epoch (callable, optional): As in :func:`fit`. (default: :obj:`None`)
        checkpoint (Checkpoint, optional): As in :func:`fit`. (default: :obj:`None`)

    Returns:
        (dict, torch.nn.Module): The record of the run, and the trained model.
    """
    record = begun("run", config.key, task, config)
    split = task.split(config.seed)
    model = build(task, config).to(device)
    fitted = fit(model, task.visible(split), config, on_epoch=on_epoch, checkpoint=checkpoint)
    if distributed.world_size() > 1:
        record["processes"] = distributed.world_size()
    record |= {
        **(evaluate(model, task, split, config) if distributed.is_first() else {}),
        "best_epoch": fitted.best_epoch,
        "epochs": fitted.epochs,
        "seconds": round(fitted.seconds, 4),
        "epoch_seconds": round(fitted.seconds / fitted.epochs, 6),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "curve": curve(fitted.history),
        "preprocessing": task.preprocessing,
        **circumstances(device),
    }
    return record, model


def run(task: Any, config: Config, *, device: str = "cpu", on_epoch: OnEpoch | None = None) -> dict[str, Any]:
    r"""As :func:`train`, and returns the record alone.

    Example:
        >>> from kgat.datasets import load
        >>> from kgat.experiments.config import Config
        >>> from kgat.experiments.training import run
        >>> config = Config.of("karate", "rbf", overrides={"max_epochs": 3})
        >>> record = run(load("karate"), config)
        >>> record["epochs"], 0 <= record["test"] <= 1
        (3, True)
    """
    return train(task, config, device=device, on_epoch=on_epoch)[0]


def save(
    folder: str | os.PathLike[str], model: torch.nn.Module, task: Any, record: Mapping[str, Any]
) -> None:
    r"""Writes ``model.pt``, a state dict, and ``config.json``, all that rebuilds the model.

    Args:
        folder (str or Path): Where to write; made if missing.
        model (torch.nn.Module): The trained model.
        task (Task): The task that it was trained on.
        record (dict): The record of the run.
    """
    folder = Path(folder)
    make_folder(folder)
    config = Config.from_dict(record["config"])
    buffer = BytesIO()
    torch.save({name: value.cpu() for name, value in model.state_dict().items()}, buffer)
    description = {"config": record["config"], **_sizes(task), "versions": record["versions"]}
    description |= {name: value.tolist() for name, value in _asked(task, config).items()}
    target = getattr(task, "target", None)
    data = task.data if target is None else task.data[target]
    if known := {name: data[name] for name in ("encoding", "classes", "target") if name in data}:
        description["data"] = known  # so that another graph becomes numbers in the same way
    # Should it be stopped between the two files, they are told to belong to different models.
    description["weights"] = hashlib.sha256(buffer.getvalue()).hexdigest()
    write_atomically(folder / WEIGHTS, buffer.getvalue())
    write_atomically(folder / CONFIG, f"{json.dumps(description, indent=2)}\n".encode())


def expect_room(folder: str | os.PathLike[str], config: Config) -> None:
    r"""Refuses a folder that holds a model of other data or of another name, which :func:`save` would
    replace. The same once more, with other settings or newer data, replaces it.

    Args:
        folder (str or Path): Where to write.
        config (Config): The settings of the run.

    Raises:
        ValueError: If there is another model.
    """
    path = Path(folder) / CONFIG
    held = json.loads(path.read_text(encoding="utf8"))["config"] if path.is_file() else config.as_dict()
    if (held["dataset"], held["model"]) != (config.dataset, config.model):
        raise ValueError(
            f"Expected no other model in '{folder}' (got '{held['model']}' of '{held['dataset']}', which "
            f"'{config.model}' of '{config.dataset}' would replace); choose another --out, or remove it"
        )


def restore(folder: str | os.PathLike[str]) -> torch.nn.Module:
    r"""Rebuilds a model that :func:`save` wrote.

    Args:
        folder (str or Path): The folder.

    Raises:
        FileNotFoundError: If one of the two files is missing.
        ValueError: If the settings are not those of a model.
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"Expected a model in '{folder}' (got no {name}); run: kgat train --out {folder}"
            )
    path = folder / CONFIG
    # Of these, some are missing in old ones, and the last two are those of heterogeneous graphs.
    names = ("in_channels", "out_channels", "edge_dim", "level", "kind", "deg", "metadata", "target")
    try:
        description = json.loads(path.read_text(encoding="utf8"))
        sizes = {name: description[name] for name in names if name in description}
        if "deg" in sizes:
            sizes["deg"] = torch.tensor(sizes["deg"])
        config = Config.from_dict(dict(description["config"]))
        one_of("kind", sizes.get("kind", KINDS[0]), KINDS)
        path = folder / WEIGHTS
        content = path.read_bytes()
        weights = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except (ValueError, LookupError, TypeError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"Expected '{path}' as kgat train writes it (got {type(error).__name__}: {error}); train again"
        ) from error
    if description.get("weights", digest := hashlib.sha256(content).hexdigest()) != digest:
        raise ValueError(
            f"Expected the weights in '{path}' that '{folder / CONFIG}' was written with (got others); train "
            "again, or take 'weights' out of that file if you changed them"
        )
    model = build_model(config, **sizes)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(
            f"Expected weights of the model of '{folder / CONFIG}' in '{path}' (got {error}); train again"
        ) from error
    return model.eval()
