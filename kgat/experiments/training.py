r"""Trains one model on one task: fit, evaluation, and the record of it all."""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.module import register_module_forward_hook
from torch_geometric import seed_everything

from kgat.atomic import write_atomically
from kgat.datasets import Split, Task, Visible
from kgat.datasets.task import roc_auc
from kgat.experiments import loop
from kgat.experiments.circumstances import circumstances
from kgat.experiments.config import Config
from kgat.experiments.loop import Diverged, Epoch, Fitted
from kgat.experiments.registry import resolve_model
from kgat.kernels import Kernel
from kgat.models import AttentionGNN

__all__ = ["Diverged", "Fitted", "Trainer", "evaluate", "fit", "restore", "run", "save", "train"]

CURVE_POINTS = 100  # of a stored learning curve
OnEpoch = Callable[[int, float, float, float], None]


def build(task: Task | Visible, config: Config) -> AttentionGNN:
    r"""Builds the model of a configuration for a task."""
    return build_model(config, **_sizes(task))


def _sizes(task: Task | Visible) -> dict[str, Any]:
    graph = task.data if isinstance(task, Task) else task
    edge_attr = graph.edge_attr
    edge_dim = None if edge_attr is None else edge_attr.size(-1) if edge_attr.dim() > 1 else 1
    return {"in_channels": graph.x.size(1), "out_channels": task.num_classes, "edge_dim": edge_dim}


def build_model(
    config: Config, in_channels: int, out_channels: int, edge_dim: int | None = None
) -> AttentionGNN:
    r"""Builds the model of a configuration.

    Args:
        config (Config): The settings.
        in_channels (int): Number of features.
        out_channels (int): Number of classes.
        edge_dim (int, optional): Number of edge features. (default: :obj:`None`)
    """
    model = resolve_model(config.model)
    names = ("heads", "out_heads", "dropout", "input_dropout", "value_dropout", "act", "norm", "residual")
    kwargs: dict[str, Any] = {**{name: getattr(config, name) for name in names}, **model.kwargs}
    if config.projections is not None and "projections" not in model.fixed:
        kwargs["projections"] = config.projections
    if config.start is not None:  # of kernel models alone: stock layers have no such argument
        kwargs["start"] = config.start
    sizes = (in_channels, config.hidden_channels, config.num_layers, out_channels)
    return model.cls(*sizes, edge_dim=edge_dim, **kwargs)


def inputs_of(graph: Any, device: str | torch.device = "cpu") -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    r"""Returns what models take of a graph: features, edges, and edge features by name if there are some."""
    edge_attr = graph.edge_attr
    kwargs = {} if edge_attr is None else {"edge_attr": edge_attr.to(device)}
    return graph.x.to(device), graph.edge_index.to(device), kwargs


class Trainer:
    r"""One model, its optimiser and what it may see of a task, prepared once.

    The loss is the cross-entropy of the classes, also of a binary task scored by ROC-AUC (there it
    equals the binary cross-entropy of the difference of the two logits); a multi-label task takes
    the binary cross-entropy of the known labels.

    Args:
        model (torch.nn.Module): ``model(x, edge_index, edge_attr=...)`` returns logits.
        visible (Visible): The task without the labels of test nodes.
        config (Config): The settings.
    """

    def __init__(self, model: torch.nn.Module, visible: Visible, config: Config) -> None:
        device = next(model.parameters()).device
        self.model = model
        self.config = config
        self.metric = visible.metric
        self.x, self.edge_index, self.kwargs = inputs_of(visible, device)
        self.train_nodes = visible.train.nonzero().view(-1).to(device)
        self.val_nodes = visible.val.nonzero().view(-1).to(device)
        y = visible.y.to(device)
        self.train_y, self.val_y = y[self.train_nodes], y[self.val_nodes]
        self.loss = F.cross_entropy if y.dim() == 1 else _known_cross_entropy
        self.optimizer = torch.optim.Adam(
            model.parameters() if config.decay_kernels else _spared(model),
            lr=config.lr,
            weight_decay=config.weight_decay,
            fused=True,
        )

    def step(self) -> float:
        r"""Takes one step on all training nodes; returns their loss, without penalties of kernels."""
        self.model.train()
        self.optimizer.zero_grad()
        penalties: list[Tensor] = []
        loss = self.loss(self._output(self.train_nodes, penalties), self.train_y)
        value = self._finite(loss.item(), "training")
        for penalty in penalties:  # of the whole data, where the loss is a mean over nodes
            loss = loss + penalty / max(1, self.train_nodes.numel())
        loss.backward()
        self.optimizer.step()
        return value

    @torch.no_grad()
    def validate(self) -> tuple[float, float]:
        r"""Returns loss and metric on the validation nodes."""
        self.model.eval()
        output = self._output(self.val_nodes)
        value = self._finite(self.loss(output, self.val_y).item(), "validation")
        if self.metric == "accuracy":
            return value, int((output.argmax(dim=-1) == self.val_y).sum()) / len(self.val_y)
        return value, roc_auc(output, self.val_y, "the validation nodes")

    def _output(self, nodes: Tensor, penalties: list[Tensor] | None = None) -> Tensor:
        takes_losses = penalties is not None and getattr(self.model, "penalised", False)
        losses = {"losses": penalties} if takes_losses else {}
        return self.model(self.x, self.edge_index, **self.kwargs, **losses).index_select(0, nodes)

    def _finite(self, value: float, part: str) -> float:
        if math.isfinite(value):
            return value
        config = self.config
        raise Diverged(
            f"{part} loss of '{config.model}' on '{config.dataset}', seed {config.seed}",
            value,
            seen=self._first_non_finite(),
            hint=f"lower the learning rate with --set lr={config.lr / 10:g}",
        )

    @torch.no_grad()
    def _first_non_finite(self) -> str:
        names = {module: name or "the model" for name, module in self.model.named_modules()}
        suspects: list[str] = []

        def watch(module: torch.nn.Module, _: Any, output: Any) -> None:
            outputs = output if isinstance(output, tuple) else (output,)
            tensors = [tensor for tensor in outputs if isinstance(tensor, Tensor)]
            if module in names and not all(bool(tensor.isfinite().all()) for tensor in tensors):
                suspects.append(f"'{names[module]}' ({type(module).__name__})")

        # The hook of a module runs after those of its parts: the first entry is the innermost.
        with register_module_forward_hook(watch):
            self._output(self.val_nodes)
        if not suspects:
            return "all modules gave finite outputs when asked again"
        return f"the first module with a non-finite output is {suspects[0]}"


def _spared(model: torch.nn.Module) -> list[dict[str, Any]]:
    r"""The parameters in two groups: those under weight decay, and those that kernels want without."""
    named = [
        getattr(kernel, name)
        for kernel in model.modules()
        if isinstance(kernel, Kernel)
        for name in kernel.undecayed
    ]
    spared = {id(parameter): parameter for parameter in named if parameter is not None}
    others = [parameter for parameter in model.parameters() if id(parameter) not in spared]
    return [{"params": others}, {"params": list(spared.values()), "weight_decay": 0.0}]


def fit(
    model: torch.nn.Module, visible: Visible, config: Config, *, on_epoch: OnEpoch | None = None
) -> Fitted:
    r"""Trains a model by :func:`kgat.experiments.loop.fit`; at the end it has the weights of the epoch that
    was kept. Nothing here can see the labels of test nodes: they are not in :obj:`visible`.

    Args:
        model (torch.nn.Module): The model.
        visible (Visible): The task without the labels of test nodes.
        config (Config): The settings.
        on_epoch (callable, optional): Called with the epoch, the training loss, the validation
            loss and the validation metric. (default: :obj:`None`)

    Raises:
        Diverged: If a loss is not finite, with the first module whose output is not.
    """
    trainer = Trainer(model, visible, config)
    return loop.fit(
        model,
        trainer.step,
        trainer.validate,
        epochs=config.max_epochs,
        keep=config.keep,
        patience=config.patience,
        callbacks=[] if on_epoch is None else [lambda epoch: on_epoch(*epoch)],
    )


def evaluate(model: torch.nn.Module, task: Task, split: Split) -> dict[str, float]:
    r"""Scores a trained model, once, on all three parts of a split.

    Args:
        model (torch.nn.Module): The model, with the weights that were kept.
        task (Task): The task.
        split (Split): The split.

    Returns:
        dict: The metric on :obj:`train`, :obj:`val` and :obj:`test`.
    """
    x, edge_index, kwargs = inputs_of(task.data, next(model.parameters()).device)
    model.eval()
    with torch.no_grad():
        output = model(x, edge_index, **kwargs).cpu()
    return {part: task.score(output, split, part) for part in ("train", "val", "test")}


def _known_cross_entropy(output: Tensor, y: Tensor) -> Tensor:
    known = ~y.isnan()
    return F.binary_cross_entropy_with_logits(output[known], y[known].to(output.dtype))


def curve(history: Sequence[Epoch]) -> dict[str, list[float]]:
    r"""Returns a learning curve as records hold it: short, and with both of its ends."""
    last = len(history) - 1
    count = min(CURVE_POINTS, len(history))
    points = [history[i] for i in sorted({round(i * last / max(count - 1, 1)) for i in range(count)})]
    epochs, *columns = zip(*points, strict=True)
    shortened = ([float(f"{value:.5g}") for value in column] for column in columns)
    return {"epoch": list(epochs), **dict(zip(("train_loss", "val_loss", "val"), shortened, strict=True))}


def begun(kind: str, key: str, task: Task, config: Config) -> dict[str, Any]:
    r"""Seeds everything, and returns what the record of a run begins with."""
    seed_everything(config.seed)
    return {
        "kind": kind,
        "key": key,
        "dataset": task.name,
        "model": config.model,
        "seed": config.seed,
        "split": task.split(config.seed).name,
        "config": config.as_dict(),
        "metric": task.metric,
    }


def train(
    task: Task, config: Config, *, device: str = "cpu", on_epoch: OnEpoch | None = None
) -> tuple[dict[str, Any], AttentionGNN]:
    r"""Builds, fits and scores a model; seeds everything first.

    The seed also picks the split, so that all models of a seed answer the same question. On the CPU
    the same seed gives the same record, but for its durations and date.

    Args:
        task (Task): The task.
        config (Config): The settings.
        device (str, optional): Where to train. (default: :obj:`"cpu"`)
        on_epoch (callable, optional): As in :func:`fit`. (default: :obj:`None`)

    Returns:
        (dict, torch.nn.Module): The record of the run, and the trained model.
    """
    record = begun("run", config.key, task, config)
    split = task.split(config.seed)
    model = build(task, config).to(device)
    fitted = fit(model, task.visible(split), config, on_epoch=on_epoch)
    record |= {
        **evaluate(model, task, split),
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


def run(
    task: Task, config: Config, *, device: str = "cpu", on_epoch: OnEpoch | None = None
) -> dict[str, Any]:
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


def save(folder: str | os.PathLike[str], model: AttentionGNN, task: Task, record: Mapping[str, Any]) -> None:
    r"""Writes ``model.pt``, a state dict, and ``config.json``, all that rebuilds the model.

    Args:
        folder (str or Path): Where to write; made if missing.
        model (torch.nn.Module): The trained model.
        task (Task): The task that it was trained on.
        record (dict): The record of the run.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    buffer = BytesIO()
    torch.save({name: value.cpu() for name, value in model.state_dict().items()}, buffer)
    description = {"config": record["config"], **_sizes(task), "versions": record["versions"]}
    write_atomically(folder / "model.pt", buffer.getvalue())
    write_atomically(folder / "config.json", f"{json.dumps(description, indent=2)}\n".encode())


def restore(folder: str | os.PathLike[str]) -> AttentionGNN:
    r"""Rebuilds a model that :func:`save` wrote.

    Args:
        folder (str or Path): The folder.

    Raises:
        FileNotFoundError: If one of the two files is missing.
        ValueError: If the settings are not those of a model.
    """
    folder = Path(folder)
    description = json.loads((folder / "config.json").read_text(encoding="utf8"))
    config = Config.from_dict(description["config"])
    model = build_model(config, *(description[name] for name in ("in_channels", "out_channels", "edge_dim")))
    model.load_state_dict(torch.load(folder / "model.pt", map_location="cpu", weights_only=True))
    return model.eval()
