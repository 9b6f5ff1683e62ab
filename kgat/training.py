r"""Trains one model on one task: settings, model, fit, evaluation, and the record of it all."""

import dataclasses
import functools
import hashlib
import json
import math
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from inspect import signature
from io import BytesIO
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric import seed_everything
from torch_geometric.resolver import normalize_string

import kgat
from kgat import kernels
from kgat.datasets import Split, Task, Visible
from kgat.datasets.task import roc_auc
from kgat.kernels import Kernel
from kgat.models import AttentionGNN, KernelGAT, StockGAT, StockGATv2
from kgat.nn.kernel_gat_conv import PROJECTIONS
from kgat.records import write_atomically

__all__ = [
    "MODELS",
    "Config",
    "Diverged",
    "Fitted",
    "Model",
    "Trainer",
    "evaluate",
    "fit",
    "resolve_model",
    "restore",
    "run",
    "save",
    "train",
]

CURVE_POINTS = 100  # of a stored learning curve
# Settings that came after results were published: left out at their default, so that a run keeps its key.
ADDED = ("decay_kernels", "keep")
KEEP = ("both", "loss", "metric")
OnEpoch = Callable[[int, float, float, float], None]


@dataclass(frozen=True)
class Config:
    r"""Everything that decides how a run goes, but the data themselves.

    :meth:`of` fills in the protocol of a data set from ``protocols.toml``.

    Args:
        dataset (str): The data set.
        model (str): A name that :func:`resolve_model` takes.
        seed (int, optional): Decides initial weights, dropout and which split. (default: :obj:`0`)
        hidden_channels (int, optional): Width of the hidden layers, all heads together.
            (default: :obj:`64`)
        heads (int, optional): Heads of every layer but the last. (default: :obj:`8`)
        out_heads (int, optional): Heads of the last layer, averaged. (default: :obj:`1`)
        num_layers (int, optional): Number of layers. (default: :obj:`2`)
        dropout (float, optional): Dropout between layers and on attention weights.
            (default: :obj:`0.5`)
        input_dropout (float, optional): Dropout on the features. (default: :obj:`0.5`)
        value_dropout (float, optional): Dropout on the projected features where they are averaged, not
            where they are scored. (default: :obj:`0.0`)
        act (str, optional): Activation, a name that PyG resolves. (default: :obj:`"elu"`)
        norm (str, optional): Normalisation, a name that PyG resolves. (default: :obj:`None`)
        residual (bool, optional): Whether each layer adds a linear map of its input.
            (default: :obj:`False`)
        projections (str, optional): Which projections of a kernel model are shared, see
            :class:`~kgat.nn.KernelGATConv`; the model's own if :obj:`None`. Stock models have no
            choice. (default: :obj:`None`)
        lr (float, optional): Learning rate of Adam. (default: :obj:`0.005`)
        weight_decay (float, optional): Factor of the L2 penalty. (default: :obj:`5e-4`)
        decay_kernels (bool, optional): Whether weight decay is also on the parameters that a kernel names as
            :obj:`undecayed`: frequencies, lengthscales and exponents, which it draws towards a constant
            kernel or another arbitrary one. (default: :obj:`True`)
        max_epochs (int, optional): Epochs at most. (default: :obj:`1000`)
        patience (int, optional): Epochs without progress on validation nodes before training stops.
            (default: :obj:`100`)
        keep (str, optional): Whose weights are kept: those of the last epoch that has the lowest validation
            loss so far (:obj:`"loss"`), the best validation metric (:obj:`"metric"`) or both at once
            (:obj:`"both"`). (default: :obj:`"both"`)

    Raises:
        ValueError: If a value has the wrong type or is out of range.

    Example:
        >>> config = Config.of("Cora", "gat", overrides={"lr": "0.01"})
        >>> config.lr, config.heads, config.weight_decay
        (0.01, 8, 0.0005)
    """

    dataset: str
    model: str
    seed: int = 0
    hidden_channels: int = 64
    heads: int = 8
    out_heads: int = 1
    num_layers: int = 2
    dropout: float = 0.5
    input_dropout: float = 0.5
    value_dropout: float = 0.0
    act: str = "elu"
    norm: str | None = None
    residual: bool = False
    projections: str | None = None
    lr: float = 0.005
    weight_decay: float = 5e-4
    decay_kernels: bool = True
    max_epochs: int = 1000
    patience: int = 100
    keep: str = "both"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = _converted(field.name, field.type, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        for name in ("hidden_channels", "heads", "out_heads", "num_layers", "max_epochs"):
            self._expect(name, getattr(self, name) >= 1, "of at least 1")
        self._expect("patience", self.patience >= 1, "of at least 1")
        self._expect("seed", self.seed >= 0, "of at least 0")
        self._expect("keep", self.keep in KEEP, f"as one of {', '.join(KEEP)}")
        for name in ("dropout", "input_dropout", "value_dropout"):
            self._expect(name, 0.0 <= getattr(self, name) < 1.0, "in [0, 1)")
        self._expect("lr", 0.0 < self.lr < math.inf, "above 0")
        self._expect("weight_decay", 0.0 <= self.weight_decay < math.inf, "of at least 0")
        self._expect(
            "hidden_channels",
            self.hidden_channels % self.heads == 0,
            f"divisible by 'heads={self.heads}'",
        )

    def _expect(self, name: str, fits: bool, what: str) -> None:
        if not fits:
            raise ValueError(
                f"Expected '{name}' {what} (got {getattr(self, name)}); change it with --set {name}=VALUE"
            )

    @classmethod
    def of(
        cls,
        dataset: str,
        model: str,
        seed: int = 0,
        overrides: Mapping[str, Any] | None = None,
    ) -> "Config":
        r"""Returns the protocol of a data set, with some settings changed.

        Args:
            dataset (str): The data set.
            model (str): The model.
            seed (int, optional): The seed. (default: :obj:`0`)
            overrides (dict, optional): Settings to change; values may be strings.
                (default: :obj:`None`)

        Raises:
            ValueError: If a setting is unknown or its value impossible.
        """
        found = resolve_model(model)
        settings = protocol(dataset)
        _check_known(overrides or {}, "the overrides")
        settings.update(overrides or {})
        settings.update(found.fixed)
        return cls(dataset=dataset, model=found.name, seed=seed, **settings)

    def as_dict(self) -> dict[str, Any]:
        r"""Returns the settings as a dictionary, in their order; later ones only where they differ from what
        was before."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ADDED or getattr(self, field.name) != field.default
        }

    @property
    def key(self) -> str:
        r"""Identifies the run: equal for equal settings, and for no others."""
        text = json.dumps(self.as_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


SETTINGS = tuple(
    field.name for field in dataclasses.fields(Config) if field.name not in ("dataset", "model", "seed")
)


def stored(config: Mapping[str, Any], name: str) -> Any:
    r"""Returns a setting as a record holds it: one that came later is not stored at its default.

    Example:
        >>> stored({"lr": 0.01}, "decay_kernels")
        True
    """
    return config.get(name, getattr(Config, name, None))


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    r"""Returns the settings in which two stored configurations of a model differ, with the values of both.

    Example:
        >>> differing({"lr": 0.01, "seed": 0}, {"lr": 0.02, "seed": 1})
        [('lr', 0.01, 0.02)]
    """
    pairs = [(name, stored(one, name), stored(other, name)) for name in dict.fromkeys([*one, *other])]
    return [(name, a, b) for name, a, b in pairs if name != "seed" and a != b]


def protocol(dataset: str) -> dict[str, Any]:
    r"""Returns the settings that belong to a data set.

    Example:
        >>> protocol("pub-med")["out_heads"]
        8
    """
    tables = _protocols()
    settings = dict(tables["default"])
    for table in tables.values():
        if normalize_string(dataset) in map(normalize_string, table.get("datasets", ())):
            settings.update(table)
    settings.pop("datasets", None)
    return settings


@functools.cache
def _protocols() -> dict[str, dict[str, Any]]:
    path = Path(__file__).with_name("protocols.toml")
    return read_protocols(path.read_text(encoding="utf8"), path.name)


def read_protocols(text: str, name: str) -> dict[str, dict[str, Any]]:
    r"""Reads a file of protocols.

    Args:
        text (str): Its content.
        name (str): What errors call it.

    Raises:
        ValueError: If it is no TOML, has no table ``[default]`` or an unknown setting.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"Expected TOML in '{name}' (got an error: {error}); correct it") from None
    if "default" not in tables:
        raise ValueError(f"Expected a table [default] in '{name}' (got {list(tables)}); add it")
    for title, table in tables.items():
        settings = {key: value for key, value in table.items() if key != "datasets"}
        _check_known(settings, f"[{title}] of '{name}'")
    return tables


def _check_known(settings: Mapping[str, Any], where: str) -> None:
    for name in settings:
        if name not in SETTINGS:
            raise ValueError(
                f"Expected settings that exist in {where} (got '{name}'); choose from: {', '.join(SETTINGS)}"
            )


def _converted(name: str, kind: Any, value: Any, where: str = "--set {}=VALUE") -> Any:
    kinds = get_args(kind) or (kind,)
    if NoneType in kinds and (value is None or value == "none"):
        return None
    kind = kinds[0]
    expected = {int: "a whole number", float: "a number", bool: "true or false", str: "a name"}
    right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if right:
        return value
    if isinstance(value, str):
        if kind is bool and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if kind in (int, float):
            try:
                return kind(value)
            except ValueError:
                pass  # the error below says more
    raise ValueError(
        f"Expected '{name}' as {expected[kind]} (got {value!r}); change it with {where.format(name)}"
    )


@dataclass(frozen=True)
class Model:
    r"""A model that can be trained by name: which stack, and which kernel in it.

    Args:
        name (str): The name.
        cls (type): The stack of layers.
        kwargs (dict): What its layers take beside the settings.
    """

    name: str
    cls: type[AttentionGNN]
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def has_kernel(self) -> bool:
        r"""Whether it is one of ours, not a stock one."""
        return self.cls is KernelGAT

    @property
    def fixed(self) -> dict[str, Any]:
        r"""The settings that it does not take, with the values that then stand for them."""
        if not self.has_kernel:
            return {"projections": None, "decay_kernels": True}
        return {"projections": None} if "@" in self.name else {}

    def build(
        self, config: Config, in_channels: int, out_channels: int, edge_dim: int | None = None
    ) -> AttentionGNN:
        r"""Builds the model.

        Args:
            config (Config): The settings.
            in_channels (int): Number of features.
            out_channels (int): Number of classes.
            edge_dim (int, optional): Number of edge features. (default: :obj:`None`)
        """
        kwargs = dict(self.kwargs)
        if config.projections is not None and "projections" not in self.fixed:
            kwargs["projections"] = config.projections
        return self.cls(
            in_channels,
            config.hidden_channels,
            config.num_layers,
            out_channels,
            heads=config.heads,
            out_heads=config.out_heads,
            dropout=config.dropout,
            input_dropout=config.input_dropout,
            value_dropout=config.value_dropout,
            act=config.act,
            norm=config.norm,
            residual=config.residual,
            edge_dim=edge_dim,
            **kwargs,
        )


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


# Names of kernels are those of kgat.kernels in lower case, but for these.
_SHORT = {
    "DotProduct": "dot",
    "SincProduct": "sinc",
    "KANScore": "kan",
    "ImplicitSpectral": "implicit",
    "CopulaSpectral": "copula",
}


def _signed(kernel: str, **options: Any) -> bool:
    r"""Whether a kernel can be negative: it has no logarithm then, and no softmax."""
    with torch.random.fork_rng(devices=[]):  # building one may draw from the user's generator
        built = kernels.resolve(kernel, channels=2, **options)
    zero = torch.zeros(1, 1, 2)
    return built(zero, zero).signed


def _kernel_models() -> dict[str, Model]:
    found = {}
    for kernel in kernels.names():
        if _signed(kernel):
            continue
        name = _SHORT.get(kernel, _snake(kernel))
        kwargs: dict[str, Any] = {"kernel": kernel}
        if kernel == "AdditiveV2":  # as GATv2Conv: values are keys, and projections have biases
            kwargs.update(projections="shared_kv", projection_bias=True)
        found[name] = Model(name, KernelGAT, kwargs)
    return found


MODELS: dict[str, Model] = {
    "gat": Model("gat", StockGAT),
    "gatv2": Model("gatv2", StockGATv2),
    **_kernel_models(),
}


def resolve_model(name: str) -> Model:
    r"""Returns the model of a name.

    Stock models are ``gat`` and ``gatv2``. Every kernel of :mod:`kgat.kernels` that is nowhere negative is a
    model under its name in lower case, and so are products (``rbf*laplace``) and sums (``rbf+dot``) of them.
    A product may end in an L^p magnitude: ``rbf*l2``, ``rbf*l1.5``, or ``rbf*lp`` where p is learned.

    A single kernel takes arguments of its class in brackets, and every kernel model takes projections of
    :class:`~kgat.nn.KernelGATConv` at the end, as ``KERNEL[ARGUMENT=VALUE,...]*lP@PROJECTIONS``:

    * ``spectral[num_features=4]``, ``implicit[num_features=32,stationary=true]*l2``;
    * ``rbf@separate``, ``spectral[num_features=4]*lp@shared_qk``.

    The name of the model then has all that was given, also where it is the default, with arguments in the
    order of the class. Projections in a name go before the setting :obj:`projections`.

    Args:
        name (str): The name; case, ``-``, ``_`` and spaces do not matter.

    Raises:
        ValueError: If there is no such model, argument or projections, with the choices; if a value is not
            possible.

    Example:
        >>> resolve_model("RBF * Lp").kwargs
        {'kernel': 'RBF', 'magnitude': 'learned'}
        >>> resolve_model("IKAN[num_features=4] * L2 @ separate").name
        'implicit[num_features=4]*l2@separate'
    """
    match = re.fullmatch(r"([^][@]*)(?:\[([^][@]*)\]\s*((?:\*[^][@]*)?))?(?:@([^][@]*))?", name)
    if match is None:
        raise ValueError(
            f"Expected a model as KERNEL[ARGUMENT=VALUE,...]*lP@PROJECTIONS (got '{name}'); e.g. "
            "spectral[num_features=4]*l2@separate"
        )
    kernel, options, magnitude, projections = match.groups()
    model = _plain_model(kernel + (magnitude or ""))
    if not model.has_kernel and (options is not None or projections is not None):
        raise ValueError(
            f"Expected the name of a kernel before '[' or '@' (got '{name}'); stock layers have neither "
            f"arguments nor a choice of projections: use {model.name}"
        )
    if options is not None:
        model = _with_arguments(model, options, name)
    if projections is not None:
        known = {normalize_string(choice): choice for choice in PROJECTIONS}
        if normalize_string(projections) not in known:
            raise ValueError(
                f"Expected projections after '@' (got '{name}'); choose from: {', '.join(PROJECTIONS)}"
            )
        chosen = known[normalize_string(projections)]
        model = Model(f"{model.name}@{chosen}", model.cls, {**model.kwargs, "projections": chosen})
    return model


def _with_arguments(model: Model, options: str, name: str) -> Model:
    title = model.kwargs["kernel"]
    if title not in kernels.names():
        raise ValueError(
            f"Expected arguments of a single kernel (got '{name}'); a product or sum of kernels takes none"
        )
    cls = getattr(kernels, title)
    kinds = {n: kind for n, kind in get_type_hints(cls.__init__).items() if n in signature(cls).parameters}
    known = {normalize_string(n): n for n in kinds if n not in ("channels", "heads")}
    short, star, magnitude = model.name.partition("*")
    given: dict[str, Any] = {}
    for option in options.split(","):
        key, separator, value = option.partition("=")
        argument = known.get(normalize_string(key))
        if argument is None or argument in given or not separator or not value.strip():
            raise ValueError(
                f"Expected ARGUMENT=VALUE,... in the brackets of '{name}', each once (got '{option}'); "
                + (f"choose from: {', '.join(known.values())}" if known else f"{title} takes no arguments")
            )
        given[argument] = _converted(argument, kinds[argument], value.strip(), f"{short}[{{}}=VALUE]")
    given = {argument: given[argument] for argument in known.values() if argument in given}
    if _signed(title, **given):  # the kernel itself says where a value is not possible
        raise ValueError(
            f"Expected a kernel that is nowhere negative (got '{name}'); a softmax needs its log"
        )
    shown = ",".join(f"{argument}={_shown(value)}" for argument, value in given.items())
    kwargs = {**model.kwargs, "kernel_kwargs": given}
    return Model(f"{short}[{shown}]{star}{magnitude}", model.cls, kwargs)


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()  # as _converted reads them
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _plain_model(name: str) -> Model:
    known = {normalize_string(choice): model for choice, model in MODELS.items()}
    whole = normalize_string(name)
    if whole in known:
        return known[whole]

    terms = [[factor.strip() for factor in term.split("*")] for term in name.split("+")]
    kwargs: dict[str, Any] = {}
    suffix = ""
    if len(terms) == 1 and len(terms[0]) > 1:
        match = re.fullmatch(r"l(p|\d+(?:\.\d+)?)", terms[0][-1].lower())
        if match is not None:
            order = match[1]
            kwargs["magnitude"] = "learned" if order == "p" else float(order)
            if order != "p" and float(order) < 1.0:
                raise ValueError(f"Expected an L^p magnitude with p of at least 1 (got '{name}'); use *l1")
            suffix = "*l" + (order if order == "p" else _shown(float(order)))
            terms[0].pop()
    named = [[_kernel_model(factor, name) for factor in term] for term in terms]
    if len(named) == 1 and len(named[0]) == 1:
        model = named[0][0]
        return Model(model.name + suffix, model.cls, {**model.kwargs, **kwargs})
    short = "+".join("*".join(model.name for model in term) for term in named)
    kernel = " + ".join(" * ".join(model.kwargs["kernel"] for model in term) for term in named)
    return Model(short + suffix, KernelGAT, {"kernel": kernel, **kwargs})


def _kernel_model(factor: str, name: str) -> Model:
    own = {normalize_string(choice): m for choice, m in MODELS.items() if m.has_kernel}
    wanted = normalize_string(factor)
    if wanted in own:
        return own[wanted]
    if wanted not in ("", "gat", "gatv2"):  # these are the stock layers here
        try:
            title = type(kernels.resolve(factor, channels=2)).__name__
        except ValueError:
            title = ""  # the error below names the models too
        wanted = normalize_string(_SHORT.get(title, title))
        if wanted in own:
            return own[wanted]
    raise ValueError(
        f"Expected the name of a model (got '{name}'); choose from: {', '.join(MODELS)}, products "
        "and sums of kernels such as rbf*laplace, magnitudes such as rbf*l2 or rbf*lp, arguments such as "
        "spectral[num_features=4], and projections such as rbf@separate"
    )


def build(task: Task, config: Config) -> AttentionGNN:
    r"""Builds the model of a configuration for a task."""
    attr = task.data.edge_attr
    edge_dim = None if attr is None else (attr.size(-1) if attr.dim() > 1 else 1)
    model = resolve_model(config.model)
    return model.build(config, task.data.x.size(1), task.num_classes, edge_dim)


class Diverged(ValueError):
    r"""A loss is not finite any more."""


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
        self.x = visible.x.to(device)
        self.edge_index = visible.edge_index.to(device)
        self.edge_attr = None if visible.edge_attr is None else visible.edge_attr.to(device)
        self.train_nodes = visible.train.nonzero().view(-1).to(device)
        self.val_nodes = visible.val.nonzero().view(-1).to(device)
        y = visible.y.to(device)
        self.train_y, self.val_y = y[self.train_nodes], y[self.val_nodes]
        self.loss = _cross_entropy if y.dim() == 1 else _known_cross_entropy
        self.optimizer = torch.optim.Adam(
            model.parameters() if config.decay_kernels else _spared(model),
            lr=config.lr,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.epoch = 0

    def step(self) -> float:
        r"""Takes one step on all training nodes; returns their loss, without penalties of kernels."""
        self.epoch += 1
        self.model.train()
        self.optimizer.zero_grad()
        penalties: list[Tensor] = []
        loss = self.loss(self._output(self.train_nodes, penalties), self.train_y)
        value = loss.item()
        if not math.isfinite(value):
            raise self._diverged("training", value)
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
        value = self.loss(output, self.val_y).item()
        if not math.isfinite(value):
            raise self._diverged("validation", value)
        if self.metric == "accuracy":
            return value, int((output.argmax(dim=-1) == self.val_y).sum()) / len(self.val_y)
        return value, roc_auc(output, self.val_y, "the validation nodes")

    def _output(self, nodes: Tensor, penalties: list[Tensor] | None = None) -> Tensor:
        given: dict[str, Any] = {} if self.edge_attr is None else {"edge_attr": self.edge_attr}
        if penalties is not None and getattr(self.model, "penalised", False):
            given["losses"] = penalties
        return self.model(self.x, self.edge_index, **given).index_select(0, nodes)

    def _diverged(self, part: str, value: float) -> "Diverged":
        config = self.config
        return Diverged(
            f"Expected a finite {part} loss of '{config.model}' on '{config.dataset}', seed "
            f"{config.seed} (got {value} in epoch {self.epoch}; {self._first_non_finite()}); "
            f"lower the learning rate with --set lr={config.lr / 10:g}"
        )

    @torch.no_grad()
    def _first_non_finite(self) -> str:
        found: list[str] = []

        def watch(name: str) -> Callable[..., None]:
            def hook(module: torch.nn.Module, _: Any, output: Any) -> None:
                outputs = output if isinstance(output, tuple) else (output,)
                tensors = [tensor for tensor in outputs if isinstance(tensor, Tensor)]
                if not all(bool(tensor.isfinite().all()) for tensor in tensors):
                    found.append(f"'{name}' ({type(module).__name__})")

            return hook

        # The hook of a module runs after those of its parts: the first entry is the innermost.
        handles = [
            module.register_forward_hook(watch(name or "the model"))
            for name, module in self.model.named_modules()
        ]
        self._output(self.val_nodes)
        for handle in handles:
            handle.remove()
        if not found:
            return "all modules gave finite outputs when asked again"
        return f"the first module with a non-finite output is {found[0]}"


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


@dataclass(frozen=True)
class Fitted:
    r"""What :func:`fit` found.

    Args:
        state (dict): The state dict that was kept.
        curve (dict): Lists :obj:`epoch`, :obj:`train_loss`, :obj:`val_loss` and :obj:`val`.
        best_epoch (int): The epoch that was kept, counted from 1.
        epochs (int): How many there were.
        val (float): The validation metric of the kept epoch.
        seconds (float): Duration.
    """

    state: dict[str, Tensor]
    curve: dict[str, list[float]]
    best_epoch: int
    epochs: int
    val: float
    seconds: float


def fit(
    model: torch.nn.Module,
    visible: Visible,
    config: Config,
    *,
    on_epoch: OnEpoch | None = None,
) -> Fitted:
    r"""Trains a model; at the end it has the weights of the epoch that was kept.

    Early stopping is that of `"Graph Attention Networks" <https://arxiv.org/abs/1710.10903>`_: an
    epoch counts as progress if the validation metric is at least the best or the validation loss at
    most the lowest so far; it is kept if both hold, or the one that :obj:`config.keep` names. Training
    stops after :obj:`patience` epochs without progress. Nothing here can see the labels of test nodes:
    they are not in :obj:`visible`.

    Args:
        model (torch.nn.Module): The model.
        visible (Visible): The task without the labels of test nodes.
        config (Config): The settings.
        on_epoch (callable, optional): Called with the epoch, the training loss, the validation
            loss and the validation metric. (default: :obj:`None`)

    Raises:
        Diverged: If a loss is not finite, with the first module whose output is not.
    """
    start = time.perf_counter()
    trainer = Trainer(model, visible, config)
    history: list[tuple[float, float, float]] = []
    best_epoch, best_score, kept_score, lowest_loss = 0, 0.0, 0.0, math.inf
    state: dict[str, Tensor] = {}
    waited = 0
    for epoch in range(1, config.max_epochs + 1):
        train_loss = trainer.step()
        val_loss, score = trainer.validate()
        history.append((train_loss, val_loss, score))
        if on_epoch is not None:
            on_epoch(epoch, train_loss, val_loss, score)
        holds = {"metric": score >= best_score, "loss": val_loss <= lowest_loss}
        if any(holds.values()):
            if holds.get(config.keep, all(holds.values())):
                state = {name: value.clone() for name, value in model.state_dict().items()}
                best_epoch, kept_score = epoch, score
            best_score, lowest_loss = max(best_score, score), min(lowest_loss, val_loss)
            waited = 0
        else:
            waited += 1
            if waited == config.patience:
                break
    model.load_state_dict(state)
    seconds = time.perf_counter() - start
    return Fitted(state, _curve(history), best_epoch, len(history), kept_score, seconds)


def evaluate(model: torch.nn.Module, task: Task, split: Split) -> dict[str, float]:
    r"""Scores a trained model, once, on all three parts of a split.

    Args:
        model (torch.nn.Module): The model, with the weights that were kept.
        task (Task): The task.
        split (Split): The split.

    Returns:
        dict: The metric on :obj:`train`, :obj:`val` and :obj:`test`.
    """
    device = next(model.parameters()).device
    data = task.data
    kwargs = {} if data.edge_attr is None else {"edge_attr": data.edge_attr.to(device)}
    model.eval()
    with torch.no_grad():
        output = model(data.x.to(device), data.edge_index.to(device), **kwargs).cpu()
    return {part: task.score(output, split, part) for part in ("train", "val", "test")}


def _cross_entropy(output: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(output, y)


def _known_cross_entropy(output: Tensor, y: Tensor) -> Tensor:
    known = ~y.isnan()
    return F.binary_cross_entropy_with_logits(output[known], y[known].to(output.dtype))


def _curve(history: list[tuple[float, float, float]]) -> dict[str, list[float]]:
    last = len(history) - 1
    count = min(CURVE_POINTS, len(history))
    points = sorted({round(i * last / max(count - 1, 1)) for i in range(count)})
    curve: dict[str, list[float]] = {"epoch": [point + 1 for point in points]}
    for column, name in enumerate(("train_loss", "val_loss", "val")):
        curve[name] = [float(f"{history[point][column]:.5g}") for point in points]
    return curve


def train(
    task: Task,
    config: Config,
    *,
    device: str = "cpu",
    on_epoch: OnEpoch | None = None,
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
    seed_everything(config.seed)
    split = task.split(config.seed)
    model = build(task, config).to(device)
    fitted = fit(model, task.visible(split), config, on_epoch=on_epoch)
    scores = evaluate(model, task, split)
    record = {
        "kind": "run",
        "key": config.key,
        "dataset": task.name,
        "model": config.model,
        "seed": config.seed,
        "split": split.name,
        "config": config.as_dict(),
        "metric": task.metric,
        **scores,
        "best_epoch": fitted.best_epoch,
        "epochs": fitted.epochs,
        "seconds": round(fitted.seconds, 4),
        "epoch_seconds": round(fitted.seconds / fitted.epochs, 6),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "curve": fitted.curve,
        "preprocessing": task.preprocessing,
        **circumstances(device),
    }
    return record, model


def run(
    task: Task,
    config: Config,
    *,
    device: str = "cpu",
    on_epoch: OnEpoch | None = None,
) -> dict[str, Any]:
    r"""As :func:`train`, and returns the record alone.

    Example:
        >>> from kgat.datasets import load
        >>> from kgat.training import Config, run
        >>> config = Config.of("karate", "rbf", overrides={"max_epochs": 3})
        >>> record = run(load("karate"), config)
        >>> record["epochs"], 0 <= record["test"] <= 1
        (3, True)
    """
    return train(task, config, device=device, on_epoch=on_epoch)[0]


def circumstances(device: str) -> dict[str, Any]:
    r"""Returns versions, commit, device, number of threads and date, as records hold them."""
    return {
        "versions": {
            "kgat": kgat.__version__,
            "torch": torch.__version__,
            "torch_geometric": version("torch_geometric"),
            "python": ".".join(map(str, sys.version_info[:3])),
            "numpy": version("numpy"),
        },
        "commit": _commit(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "threads": torch.get_num_threads(),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


@functools.cache
def _commit() -> str | None:
    root = Path(kgat.__file__).resolve().parents[1]
    if not (root / ".git").exists():  # installed: a repository further up is another project's
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


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
    attr = task.data.edge_attr
    description = {
        "config": record["config"],
        "in_channels": task.data.x.size(1),
        "out_channels": task.num_classes,
        "edge_dim": None if attr is None else (attr.size(-1) if attr.dim() > 1 else 1),
        "versions": record["versions"],
    }
    write_atomically(folder / "model.pt", buffer.getvalue())
    text = json.dumps(description, indent=2) + "\n"
    write_atomically(folder / "config.json", text.encode())


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
    config = Config(**description["config"])
    model = resolve_model(config.model).build(
        config, description["in_channels"], description["out_channels"], description["edge_dim"]
    )
    state = torch.load(folder / "model.pt", map_location="cpu", weights_only=True)
    model.load_state_dict(state)
    return model.eval()
