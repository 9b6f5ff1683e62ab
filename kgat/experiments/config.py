r"""Settings of a run, and the protocol that each data set gives them."""

import dataclasses
import functools
import hashlib
import json
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_geometric.resolver import normalize_string

from kgat.experiments.registry import resolve_model
from kgat.experiments.schedulers import expect_steps
from kgat.experiments.settings import SETTINGS, Settings
from kgat.models.link_predictor import DECODERS
from kgat.names import change_of, converted, unknown
from kgat.nn.start import STARTS

__all__ = ["Config", "differing", "on_data", "on_task", "protocol", "read_protocols", "stored"]

# Settings that came after results were published, with the value of records that lack them: it is left out
# of records, so that a run keeps its key, whatever the default is today.
ADDED: dict[str, Any] = {"decay_kernels": True, "keep": "both", "start": None}
ADDED |= {"batch_size": None, "pooling": "mean", "decoder": "dot", "data": None, "code": None}
ADDED |= {"clip": None, "scheduler": None, "precision": "fp32", "compile": False, "accumulate": 1}
ADDED |= {"neighbors": None}
ADDED |= {"attention_dropout": None, "pre_linear": False, "jk": None, "position_dim": None}
ADDED |= {"add_self_loops": True, "kernel_lr": 1.0, "global_attention": None}
KEEP = ("both", "loss", "metric")
PRECISIONS = ("fp32", "bf16")
JK = (None, "last", "cat", "max", "lstm")
# Names of settings, which values fit (no not-a-number does), and how that is said.
RANGES: tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...] = (
    (
        ("hidden_channels", "heads", "out_heads", "num_layers", "max_epochs", "patience", "accumulate"),
        lambda value: value >= 1,
        "of at least 1",
    ),
    (("seed",), lambda value: value >= 0, "of at least 0"),
    (("batch_size", "position_dim"), lambda value: value is None or value >= 1, "of at least 1, or none"),
    (("decoder",), lambda value: value in DECODERS, f"as one of {', '.join(DECODERS)}"),
    (("clip",), lambda value: value is None or 0.0 < value < math.inf, "above 0, or none"),
    (("precision",), lambda value: value in PRECISIONS, f"as one of {', '.join(PRECISIONS)}"),
    (("keep",), lambda value: value in KEEP, f"as one of {', '.join(KEEP)}"),
    (("start",), lambda value: value in STARTS, f"as one of {', '.join(name or 'none' for name in STARTS)}"),
    (("jk",), lambda value: value in JK, f"as one of {', '.join(name or 'none' for name in JK)}"),
    (("attention_dropout",), lambda value: value is None or 0.0 <= value < 1.0, "in [0, 1), or none"),
    (("dropout", "input_dropout", "value_dropout"), lambda value: 0.0 <= value < 1.0, "in [0, 1)"),
    (("lr",), lambda value: 0.0 < value < math.inf, "above 0"),
    (("weight_decay", "kernel_lr"), lambda value: 0.0 <= value < math.inf, "of at least 0"),
)


@dataclass(frozen=True)
class Config(Settings):
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
        dropout (float, optional): Dropout between layers, and on attention weights where
            :obj:`attention_dropout` does not say another. (default: :obj:`0.5`)
        attention_dropout (float, optional): Dropout on attention weights; as :obj:`dropout` if :obj:`None`.
            (default: :obj:`None`)
        input_dropout (float, optional): Dropout on the features. (default: :obj:`0.5`)
        value_dropout (float, optional): Dropout on the projected features where they are averaged, not
            where they are scored. (default: :obj:`0.0`)
        act (str, optional): Activation, a name that PyG resolves. (default: :obj:`"elu"`)
        norm (str, optional): Normalisation, a name that PyG resolves, with arguments where there are some, as
            in :obj:`"layer_norm[mode=node]"`. (default: :obj:`None`)
        residual (bool, optional): Whether each layer adds a linear map of its input.
            (default: :obj:`False`)
        pre_linear (bool, optional): Whether a linear map to the hidden width, and dropout, come before the
            first layer. (default: :obj:`False`)
        jk (str, optional): Which layers a linear map at the end sees: the :obj:`"last"` one, or all of them,
            side by side (:obj:`"cat"`), by their maximum (:obj:`"max"`) or weighted by an :obj:`"lstm"`. The
            last layer is then as wide as the others. Without it, the last layer itself gives the answer.
            (default: :obj:`None`)
        add_self_loops (bool, optional): Whether each node attends to itself. (default: :obj:`True`)
        position_dim (int, optional): Steps of a random walk, whose chances to be back at a node are its
            positional encoding: a kernel of its own multiplies that of a kernel model, see
            :class:`~kgat.nn.KernelGATConv`; other models have it as further features. (default: :obj:`None`)
        global_attention (str, optional): The kernel of attention over all nodes beside that over edges, or
            :obj:`"primal"`, see :class:`~kgat.models.KernelGAT`; also of ``gat`` and ``gatv2``.
            (default: :obj:`None`)
        projections (str, optional): Which projections of a kernel model are shared, see
            :class:`~kgat.nn.KernelGATConv`; the model's own if :obj:`None`. Stock models have no
            choice. (default: :obj:`None`)
        lr (float, optional): Learning rate of Adam. (default: :obj:`0.005`)
        kernel_lr (float, optional): Learning rate of the parameters of kernels, of stock layers that of their
            attention vectors, as a multiple of :obj:`lr`; :obj:`0` leaves them as they start.
            (default: :obj:`1.0`)
        weight_decay (float, optional): Factor of the L2 penalty. (default: :obj:`5e-4`)
        decay_kernels (bool, optional): Whether weight decay is also on the parameters that a kernel names as
            :obj:`undecayed`: frequencies, lengthscales and exponents, which it draws towards a constant
            kernel or another arbitrary one. (default: :obj:`True`)
        max_epochs (int, optional): Epochs at most. (default: :obj:`1000`)
        patience (int, optional): Epochs without progress on validation nodes before training stops.
            (default: :obj:`100`)
        keep (str, optional): Whose weights are kept: those of the epoch with the best validation metric, of
            equal ones that with the lowest loss (:obj:`"metric"`), of the one with the lowest validation loss
            (:obj:`"loss"`), or of the last one that had both at once when it came (:obj:`"both"`), which an
            early epoch with a lucky metric can keep from ever happening again. (default: :obj:`"metric"`)
        start (str, optional): How scores of a kernel model start, see :class:`~kgat.nn.KernelGATConv`:
            :obj:`"unit"`, :obj:`"median"` or :obj:`None`. Stock models have no choice. (default: :obj:`None`)
        batch_size (int, optional): Nodes, graphs or pairs of nodes in a step; all at once if :obj:`None`.
            (default: :obj:`None`)
        pooling (str, optional): How nodes become a graph, see :class:`~kgat.models.GraphReadout`.
            (default: :obj:`"mean"`)
        decoder (str, optional): How two nodes become a link, see :class:`~kgat.models.LinkPredictor`:
            :obj:`"dot"` or :obj:`"mlp"`. (default: :obj:`"dot"`)
        neighbors (str, optional): How many neighbours a step with a :obj:`batch_size` draws for each layer of
            a task on nodes or links, as in :obj:`"15,10"`, the first for the nodes of the step; -1 takes all,
            as :obj:`None` does throughout. (default: :obj:`None`)
        clip (float, optional): Norm that the gradient of a step is scaled down to where it is larger.
            (default: :obj:`None`)
        scheduler (str, optional): How the learning rate changes from epoch to epoch, see
            :func:`~kgat.experiments.schedulers.build_scheduler`. (default: :obj:`None`)
        precision (str, optional): What training and validation compute matrix products in:
            :obj:`"fp32"`, or :obj:`"bf16"` by autocast. Parameters, losses and the scores of the kept
            weights are in single precision in any case. (default: :obj:`"fp32"`)
        compile (bool, optional): Whether :func:`torch.compile` compiles the model for training and
            validation. (default: :obj:`False`)
        accumulate (int, optional): Mini-batches whose mean gradient makes a step of the optimiser, of a task
            whose epochs have several. (default: :obj:`1`)
        data (str, optional): The digest of data of one's own, see :func:`on_data`; it is no setting to
            choose. (default: :obj:`None`)

    Raises:
        ValueError: If a value has the wrong type or is out of range.

    Example:
        >>> config = Config.of("Cora", "gat", overrides={"lr": "0.01"})
        >>> config.lr, config.heads, config.weight_decay
        (0.01, 8, 0.0005)
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = converted(field.name, field.type, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        for names, fits, what in RANGES:
            for name in names:
                self._expect(name, fits(getattr(self, name)), what)
        if self.scheduler is not None:
            expect_steps(self.scheduler, self.lr, self.max_epochs)
        self._check_neighbors()
        divisible = self.hidden_channels % self.heads == 0
        self._expect("hidden_channels", divisible, f"divisible by 'heads={self.heads}'")

    def _check_neighbors(self) -> None:
        if self.neighbors is None:
            return
        counts = [count.strip() for count in self.neighbors.split(",")]
        fits = all(re.fullmatch("-1|[1-9][0-9]*", count) for count in counts)
        self._expect("neighbors", fits, "as numbers of at least 1, or -1 for all, as in 15,10")
        of_layers = f"with a number for each of {self.num_layers} layers"
        self._expect("neighbors", len(counts) == self.num_layers, of_layers)
        self._expect("neighbors", self.batch_size is not None, "only beside a 'batch_size'")
        object.__setattr__(self, "neighbors", ",".join(counts))

    def _expect(self, name: str, fits: bool, what: str) -> None:
        if not fits:
            is_named = f"@{name}=" in self.model  # which goes before what is set
            where = f"in the name '{self.model}'" if is_named else f"with --set {name}=VALUE"
            raise ValueError(f"Expected '{name}' {what} (got {getattr(self, name)}); change it {where}")

    @classmethod
    def of(
        cls, dataset: str, model: str, seed: int = 0, overrides: Mapping[str, Any] | None = None
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
        resolved = resolve_model(model)
        _check_known((overrides or {}).keys() - {"data"}, "the overrides")
        settings = {**protocol(dataset), **(overrides or {}), **resolved.fixed}
        return cls(dataset=dataset, model=resolved.name, seed=seed, code=resolved.code, **settings)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "Config":
        r"""Returns what :meth:`as_dict` was made of: a setting that came later and is not there has the value
        that stood before it.

        Args:
            settings (dict): The settings, as a record holds them.

        Raises:
            ValueError: If a value is impossible.
        """
        return cls(**{**ADDED, **settings})

    def as_dict(self) -> dict[str, Any]:
        r"""Returns the settings as a dictionary, in their order; later ones only where they differ from what
        was before."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ADDED or getattr(self, field.name) != ADDED[field.name]
        }

    @property
    def key(self) -> str:
        r"""Identifies the run: equal for equal settings, and for no others."""
        text = json.dumps(self.as_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def on_data(overrides: Mapping[str, Any], digest: str | None, target: str | None = None) -> dict[str, Any]:
    r"""Returns settings that tell the content of the data, too: its runs have keys of their own then.

    Args:
        overrides (dict): Settings that differ from the protocol.
        digest (str or None): The digest of the task; data sets that have a name for all need none.
        target (str, optional): The type of nodes that is asked for, of a heterogeneous graph, where
            :obj:`residual` is set and :obj:`add_self_loops` is not, unless they are given: no self-loop goes
            from one type to another.
            (default: :obj:`None`)

    Raises:
        ValueError: If a setting is unknown.

    Example:
        >>> on_data({"lr": 0.01}, "5f0e"), on_data({"lr": 0.01}, None)
        ({'lr': 0.01, 'data': '5f0e'}, {'lr': 0.01})
    """
    _check_known(overrides, "the overrides")
    typed = {} if target is None else {"residual": True, "add_self_loops": False}
    return {**typed, **overrides, **({} if digest is None else {"data": digest})}


def on_task(overrides: Mapping[str, Any], task: Any) -> dict[str, Any]:
    r"""As :func:`on_data`, of a task."""
    return on_data(overrides, task.digest, getattr(task, "target", None))


def stored(config: Mapping[str, Any], name: str) -> Any:
    r"""Returns a setting as a record holds it: one that came later is not stored at what stood before it.

    Example:
        >>> stored({"lr": 0.01}, "decay_kernels"), stored({"lr": 0.01}, "keep")
        (True, 'both')
    """
    return config.get(name, ADDED.get(name, getattr(Config, name, None)))


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
    dataset, *_ = change_of(dataset) or (dataset,)
    for table in tables.values():
        if normalize_string(dataset) in map(normalize_string, table.get("datasets", ())):
            settings.update(table)
    if normalize_string(dataset).endswith("links"):  # of any graph
        settings.update(tables["links"])
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
        _check_known(table.keys() - {"datasets"}, f"[{title}] of '{name}'")
    return tables


def _check_known(names: Iterable[str], where: str) -> None:
    for name in names:
        if name not in SETTINGS:
            unknown(f"settings that exist in {where}", name, SETTINGS)
