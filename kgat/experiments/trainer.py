r"""What one epoch is, for each level of a task: a step on the training part, and a look at validation."""

import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.module import register_module_forward_hook
from torch_geometric.data import Data, HeteroData
from torch_geometric.utils import subgraph

from kgat.datasets import METRICS, Visible
from kgat.datasets.metrics import known_labels
from kgat.datasets.task import PARTS
from kgat.experiments.config import Config
from kgat.experiments.loop import Diverged
from kgat.experiments.schedulers import build_scheduler
from kgat.kernels import Kernel
from kgat.models import StandardizedOutput

__all__ = ["LOSSES", "Trainer", "inputs_of"]

Inputs = tuple[Any, Any, dict[str, Any]]


def _known_cross_entropy(output: Tensor, y: Tensor) -> Tensor:
    known = ~y.isnan()
    return F.binary_cross_entropy_with_logits(output[known], y[known].to(output.dtype))


def _known_squares(output: Tensor, y: Tensor) -> Tensor:
    output, known = output.view(y.shape), ~y.isnan()
    return F.mse_loss(output[known], y[known].to(output.dtype))


# Of two classes it equals the binary cross-entropy of the difference of the two logits.
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "multiclass": F.cross_entropy,
    "binary": F.cross_entropy,
    "multilabel": _known_cross_entropy,
    "regression": _known_squares,
}


def inputs_of(graph: Any, device: str | torch.device = "cpu") -> Inputs:
    r"""Returns what models take of a graph: features, edges, and by name edge features and the graph of each
    node, if there are some; of a heterogeneous graph dictionaries by type."""
    if isinstance(graph, HeteroData):
        attr = graph.collect("edge_attr", allow_empty=True) or None
        graph = Data(graph.x_dict, graph.edge_index_dict, attr)
    extras = {name: getattr(graph, name, None) for name in ("edge_attr", "batch")}
    kwargs = {name: _moved(value, device) for name, value in extras.items() if value is not None}
    return _moved(graph.x, device), _moved(graph.edge_index, device), kwargs


def _moved(value: Any, device: str | torch.device) -> Any:
    if isinstance(value, Mapping):
        return {name: tensor.to(device) for name, tensor in value.items()}
    return value.to(device)


class Trainer:
    r"""One model, its optimiser and what it may see of a task on nodes, prepared once.

    The loss is the cross-entropy of the classes, also of a binary task scored by ROC-AUC (there it
    equals the binary cross-entropy of the difference of the two logits); a multi-label task takes
    the binary cross-entropy of the known labels, a regression the mean square of what is known, in units of
    the standard deviation of training values where the model is a
    :class:`~kgat.models.StandardizedOutput`.

    Args:
        model (torch.nn.Module): ``model(x, edge_index, edge_attr=...)`` returns logits, or values.
        visible (Visible): The task without the labels of test nodes.
        config (Config): The settings.
    """

    level: ClassVar[str] = "node"

    def __init__(self, model: torch.nn.Module, visible: Any, config: Config) -> None:
        self.device = next(model.parameters()).device
        self.module = self.model = model  # 'model' is what is called: the module, or it compiled
        self.config = config
        self.metric = METRICS[visible.metric]
        self.loss = LOSSES[visible.kind]
        self.prepare(visible)
        if isinstance(model, StandardizedOutput):
            model.standardize(self.train_y)
            scaled = model.standardized
            self.loss = lambda output, y: _known_squares(scaled(output), scaled(y))
        self.optimizer = torch.optim.Adam(
            _groups(model, config),
            lr=config.lr,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.scheduler = None
        if config.scheduler is not None:
            self.scheduler = build_scheduler(config.scheduler, self.optimizer, config.max_epochs)
        if config.accumulate > 1 and self.num_batches == 1:
            raise ValueError(
                f"Expected several batches in an epoch because 'accumulate={config.accumulate}' (got one of "
                f"all {self.train_size} training {self.level}s); set a smaller batch_size where there is "
                "one, or leave accumulate=1"
            )
        if config.compile:
            self.model = _compiled(model)

    def prepare(self, visible: Any) -> None:
        r"""Takes what is needed of the visible part of a task to the device of the model."""
        self.train_inputs = self.val_inputs = inputs_of(visible, self.device)
        train, val = visible.train, visible.val
        if visible.batch is not None:  # norms and statistics of training see no graph of another part
            self.train_inputs, train = _of_part(visible, train, self.device)
            self.val_inputs, val = _of_part(visible, val, self.device)
        self.train_nodes, self.val_nodes = (mask.nonzero().view(-1).to(self.device) for mask in (train, val))
        y = visible.y.to(self.device)
        self.train_y, self.val_y = (y[mask.to(self.device)] for mask in (visible.train, visible.val))
        self.train_size = self.train_nodes.numel()

    @property
    def stateful(self) -> dict[str, Any]:
        r"""What changes while it trains, beside the model and the generators that all share."""
        return {"optimizer": self.optimizer, **({"scheduler": self.scheduler} if self.scheduler else {})}

    @property
    def num_batches(self) -> int:
        r"""How many batches there are in an epoch."""
        return 1

    def step(self) -> float:
        r"""Trains for an epoch; returns the mean loss, without penalties of kernels."""
        self.model.train()
        self.optimizer.zero_grad()
        accumulate = self.config.accumulate
        total, rows, since = 0.0, 0, 0
        for number, (output, y, penalties) in enumerate(self._cast_batches(), start=1):
            loss = self.loss(output, y)
            value = self._finite(loss.item(), "training")
            for penalty in penalties:  # of the whole data, where the loss is a mean over what is trained on
                loss = loss + penalty / max(1, self.train_size)
            for module in self.module.modules():  # of the mean loss, as SuperGAT's
                auxiliary_loss: Any = getattr(module, "auxiliary_loss", None)
                if auxiliary_loss is not None:
                    loss = loss + auxiliary_loss()
            (loss * self.weight(y)).backward()
            total, rows, since = total + value * len(y), rows + len(y), since + int(known_labels(y).sum())
            if number % accumulate == 0 or number == self.num_batches:
                self._update(1 if accumulate == 1 else since)
                since = 0
        return total / rows

    def weight(self, y: Tensor) -> float:
        r"""Returns what the mean loss of a batch is multiplied by."""
        # A mean over all labels of a step, of which the last batch may have fewer.
        return 1.0 if self.config.accumulate == 1 else int(known_labels(y).sum())

    def _update(self, labels: int) -> None:
        if labels > 1:
            for parameter in self.module.parameters():
                if parameter.grad is not None:
                    parameter.grad /= labels
        if self.config.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def schedule(self, val_loss: float) -> None:
        r"""Sets the learning rate of the next epoch."""
        if isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self.scheduler.step(val_loss)
        elif self.scheduler is not None:
            self.scheduler.step()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.config.precision == "bf16")

    def _cast_batches(self) -> Iterator[tuple[Tensor, Tensor, list[Tensor]]]:
        batches = self.train_batches()
        while True:
            with self._autocast():  # around the forward pass alone, which the generator makes
                batch = next(batches, None)
            if batch is None:
                return
            output, y, penalties = batch
            yield _full(output), y, penalties

    @torch.no_grad()
    def validate(self) -> tuple[float, float]:
        r"""Returns loss and metric on the validation part."""
        self.model.eval()
        with self._autocast():
            output, y = self.validation()
        output = _full(output)
        value = self._finite(self.loss(output, y).item(), "validation")
        return value, self.metric(output, y, f"the validation {self.level}s")

    def train_batches(self) -> Iterator[tuple[Tensor, Tensor, list[Tensor]]]:
        r"""Yields outputs, truths and the penalties of kernels, step by step."""
        penalties: list[Tensor] = []
        x, edge_index, kwargs = self.train_inputs
        output = self.model(x, edge_index, **kwargs, **self.losses(penalties))
        yield output.index_select(0, self.train_nodes), self.train_y, penalties

    def validation(self) -> tuple[Tensor, Tensor]:
        r"""Returns outputs and truths of the validation part."""
        x, edge_index, kwargs = self.val_inputs
        return self.model(x, edge_index, **kwargs).index_select(0, self.val_nodes), self.val_y

    @staticmethod
    def outputs(model: torch.nn.Module, task: Any, split: Any) -> dict[str, Tensor]:
        r"""Returns of each part of a split what its score is taken of, in the mode that the model is in."""
        x, edge_index, kwargs = inputs_of(task.data, next(model.parameters()).device)
        return dict.fromkeys(PARTS, model(x, edge_index, **kwargs).cpu())

    def losses(self, penalties: list[Tensor]) -> dict[str, list[Tensor]]:
        r"""Returns the argument that takes the penalties of kernels, of a model that has some."""
        return {"losses": penalties} if getattr(self.module, "penalised", False) else {}

    def _finite(self, value: float, part: str) -> float:
        if math.isfinite(value):
            return value
        config = self.config
        stepped = bool(self.optimizer.state)
        raise Diverged(
            f"{part} loss of '{config.model}' on '{config.dataset}', seed {config.seed}",
            value,
            seen=self._first_non_finite(),
            hint=f"lower the learning rate with --set lr={config.lr / 10:g}"
            if stepped
            else "no step was taken yet: look at the model and its features",
        )

    @torch.no_grad()
    def _first_non_finite(self) -> str:
        self.model = self.module  # hooks see nothing of compiled code, and nothing is trained any more
        names = {module: name or "the model" for name, module in self.model.named_modules()}
        suspects: list[str] = []

        def watch(module: torch.nn.Module, _: Any, output: Any) -> None:
            outputs = output if isinstance(output, tuple) else (output,)
            tensors = [tensor for tensor in outputs if isinstance(tensor, Tensor)]
            if module in names and not all(bool(tensor.isfinite().all()) for tensor in tensors):
                suspects.append(f"'{names[module]}' ({type(module).__name__})")

        # The hook of a module runs after those of its parts: the first entry is the innermost.
        with register_module_forward_hook(watch), self._autocast():
            self.validation()
        if not suspects:
            return "all modules gave finite outputs when asked again"
        return f"the first module with a non-finite output is {suspects[0]}"


def _full(output: Tensor) -> Tensor:
    return output.float() if output.dtype is torch.bfloat16 else output


def _compiled(model: torch.nn.Module) -> Any:
    compilers = (os.environ.get("CXX"), "g++", "clang++", "c++", "cl")
    if next(model.parameters()).device.type == "cpu" and not any(map(shutil.which, filter(None, compilers))):
        raise ValueError(
            "Expected a C++ compiler because 'compile' is set (got none of g++, clang++, c++ and cl); "
            "install one, or leave compile=false"
        )
    return torch.compile(model)


def _of_part(visible: Visible, mask: Tensor, device: torch.device) -> tuple[Inputs, Tensor]:
    r"""Returns the graphs that hold nodes of a part, and the mask of these nodes there."""
    graph = visible.batch
    assert graph is not None
    nodes = torch.isin(graph, graph[mask])
    edge_index, edge_attr = subgraph(nodes, visible.edge_index, visible.edge_attr, relabel_nodes=True)
    batch = graph[nodes].unique(return_inverse=True)[1]
    kwargs = {"batch": batch.to(device)}
    if edge_attr is not None:
        kwargs["edge_attr"] = edge_attr.to(device)
    return (visible.x[nodes].to(device), edge_index.to(device), kwargs), mask[nodes]


def _groups(model: torch.nn.Module, config: Config) -> Any:
    r"""The parameters, in groups where some of kernels are trained in another way than all others; none of
    kernels where their rate is zero, as schedulers have floors."""
    kernels = [kernel for kernel in model.modules() if isinstance(kernel, Kernel)]
    own = {id(parameter) for kernel in kernels for parameter in kernel.parameters()}
    own |= {id(p) for name, p in model.named_parameters() if re.fullmatch(r"att(_\w+)?", name.split(".")[-1])}
    spared = {id(getattr(kernel, name)) for kernel in kernels for name in kernel.undecayed}
    slowed = config.kernel_lr != 1.0
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for parameter in model.parameters():
        if config.kernel_lr == 0.0 and id(parameter) in own:
            continue
        ways = (slowed and id(parameter) in own, not config.decay_kernels and id(parameter) in spared)
        groups.setdefault(ways, []).append(parameter)
    changes = ({"lr": config.lr * config.kernel_lr}, {"weight_decay": 0.0})
    return [
        {
            "params": parameters,
            **{k: v for way, change in zip(ways, changes, strict=True) if way for k, v in change.items()},
        }
        for ways, parameters in groups.items()
    ]
