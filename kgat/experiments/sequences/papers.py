r"""What five papers compare on sequences, with which sizes, and how models are trained: ``papers.toml``."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch_geometric.resolver import normalize_string

from kgat.datasets.sequences import resolve_source
from kgat.models.sequence_classifier import POOLINGS
from kgat.names import converted, one_of, unknown

BASELINE = "softmax"
OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "radam": torch.optim.RAdam}
SCHEDULES = ("constant", "cosine", "linear", "inverse_sqrt")
_COUNTS = (
    *("embed_dim", "num_heads", "num_layers", "feedforward_channels", "num_features"),
    *("batch_size", "block", "epochs", "steps", "max_train", "beam"),
)
# Names of numbers, which ones fit (no not-a-number does), and how that is said.
_RANGES: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
    (_COUNTS, lambda x: x >= 1, "'{}' of at least 1"),
    (("warmup",), lambda x: x >= 0, "'{}' of at least 0"),
    (
        ("dropout", "attention_dropout", "label_smoothing", "beta2"),
        lambda x: 0.0 <= x < 1.0,
        "'{}' in [0, 1)",
    ),
    (("lr", "weight_decay", "eps"), lambda x: 0.0 <= x < math.inf, "a finite '{}' of at least 0"),
    (("clip",), lambda x: 0.0 < x < math.inf, "a finite '{}' above 0, or none"),
)


@dataclass(frozen=True)
class Setting:
    r"""How a model is built and trained, whatever its attention.

    Args:
        embed_dim (int): Channels of a token.
        num_heads (int): Number of heads.
        num_layers (int): Number of layers; a translator has as many in its decoder.
        feedforward_channels (int): Hidden channels of the feed-forward networks.
        dropout (float): Dropout everywhere.
        attention_dropout (float, optional): Dropout on attention weights; as everywhere if :obj:`None`.
        attention_bias (bool): Whether the maps of attention have biases.
        norm_first (bool): Whether branches are normalised where they begin.
        learned_positions (bool): Whether places that are added to tokens of sentences and expressions are
            learned, as those of series are, and not sinusoidal.
        pooling (str): What is read of a series or an image, see :class:`~kgat.models.SequenceClassifier`.
        tied (bool): Whether the last map of a language model or translator is the embedding.
        num_features (int): Number :math:`S` of frequencies of spectral kernels.
        optimizer (str): ``"adam"``, ``"adamw"`` or ``"radam"``.
        lr (float): The largest learning rate.
        beta2 (float): The second decay rate of the optimiser.
        eps (float): What it adds to the denominator.
        weight_decay (float): Weight decay.
        warmup (int): Steps in which the learning rate rises from 0.
        schedule (str): What it does then: ``"constant"``, ``"cosine"``, ``"linear"`` (both to 0) or
            ``"inverse_sqrt"``.
        clip (float, optional): Largest norm of the gradient.
        label_smoothing (float): Of the training loss.
        batch_size (int): Sequences per step.
        block (int): Tokens per sequence of a language model.
        epochs (int): Number of epochs; the one that is best on the validation part is kept.
        steps (int, optional): Steps at most: the last epoch ends there.
        max_train (int, optional): Training sequences at most (tokens, for a language model): the first ones.
        beam (int): Translations that the search follows.
        options (dict): Options of :func:`kgat.datasets.load_sequences`.

    Raises:
        ValueError: If the optimiser, the schedule or the pooling is unknown, or a number is out of range.
    """

    embed_dim: int = 64
    num_heads: int = 4
    num_layers: int = 2
    feedforward_channels: int = 128
    dropout: float = 0.1
    attention_dropout: float | None = None
    attention_bias: bool = True
    norm_first: bool = False
    learned_positions: bool = False
    pooling: str = "flatten"
    tied: bool = False
    num_features: int = 32
    optimizer: str = "adam"
    lr: float = 1e-3
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup: int = 100
    schedule: str = "cosine"
    clip: float | None = 1.0
    label_smoothing: float = 0.0
    batch_size: int = 32
    block: int = 64
    epochs: int = 10
    steps: int | None = None
    max_train: int | None = None
    beam: int = 1
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, known in (("optimizer", tuple(OPTIMIZERS)), ("schedule", SCHEDULES), ("pooling", POOLINGS)):
            one_of(name, getattr(self, name), known)
        for names, fits, said in _RANGES:
            for name in names:
                value = getattr(self, name)
                if value is not None and not fits(value):
                    raise ValueError(f"Expected {said.format(name)} (got {value}); choose such a number")

    def with_changes(self, changes: Mapping[str, str]) -> Setting:
        r"""Returns the setting with other values, given as text.

        Example:
            >>> Setting().with_changes({"epochs": "3", "clip": "none"}).epochs
            3
        """
        kinds = {name: kind for name, kind in get_type_hints(type(self)).items() if name != "options"}
        for name in changes.keys() - kinds:
            unknown("a setting", name, kinds)
        return dataclasses.replace(
            self, **{name: converted(name, kinds[name], text) for name, text in changes.items()}
        )


@dataclass(frozen=True)
class Paper:
    r"""What a paper compares.

    Args:
        title (str): Its title.
        link (str): Its address.
        datasets (tuple of str): The data sets that are here for its experiments.
        variants (dict): Names of attentions and the arguments of :class:`~kgat.models.KernelTransformer`
            that make them; the first is :obj:`"softmax"`, which the others are compared with.
    """

    title: str
    link: str
    datasets: tuple[str, ...]
    variants: Mapping[str, Mapping[str, Any]]


def plain(value: Any) -> Any:
    r"""Returns what a TOML file holds with :obj:`None` for ``"none"``, which it has no sign for, and with
    tuples for lists, which nobody changes."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return tuple(map(plain, value))
    return None if value == "none" else value


_FILE = plain(tomllib.loads(Path(__file__).with_name("papers.toml").read_text(encoding="utf8")))
PAPERS = {name: Paper(**paper) for name, paper in _FILE["papers"].items()}
PRIMAL: dict[str, Any] = _FILE["primal"]
SCALES = {
    scale: {group: Setting(**setting) for group, setting in _FILE[scale].items()}
    for scale in ("small", "full")
}
_GROUPS = {
    "ListOps": "listops",
    "SST2": "sentences",
    "SST2_glue": "sentences",
    "PTB": "language_model",
    "Multi30k": "translation",
    "digits": "images",
}


def settings_of(dataset: str, scale: str = "small") -> Setting:
    r"""Returns the setting of a data set.

    Those of ``"full"`` are, as far as they are known:

    * series: that of Primal-Attention, whose code trains all its sets so;
    * ListOps: that of Primal-Attention for the Long Range Arena, 5,000 steps; its learning rate starts at
      a 25th of the largest instead of 0;
    * PTB: the small FourierFormer for WikiText-103, whose 500,000 steps became 100 epochs of a smaller text;
    * Multi30k: fairseq's recipe for IWSLT'14, which Transformer Dissection is said to use; 128 sentences are
      about its 4,096 tokens;
    * digits: DeiT-tiny, in which FourierFormer classifies ImageNet, without its augmentation;
    * sentences: nobody's, as no size of such a model is published.

    Args:
        dataset (str): Its name.
        scale (str, optional): ``"small"``, for CPUs, or ``"full"``. (default: :obj:`"small"`)

    Example:
        >>> settings_of("PTB", "full").num_layers
        16
    """
    return SCALES[one_of("scale", scale, SCALES)][_GROUPS.get(resolve_source(dataset).name, "series")]


def resolve_paper(name: str) -> Paper:
    r"""Returns what a paper compares.

    Example:
        >>> list(resolve_paper("primal").variants)
        ['softmax', 'primal', 'primal+']
    """
    if name not in PAPERS:
        unknown("the name of a paper", name, PAPERS)
    return PAPERS[name]


def arguments(dataset: str, attention: Mapping[str, Any], setting: Setting) -> dict[str, Any]:
    r"""Returns the arguments of :class:`~kgat.models.KernelTransformer` that make an attention.

    Places are added to the tokens unless the attention says otherwise; a list of one position is that of each
    layer, of a decoder too. ``"primal+"`` is softmax attention in all layers but the last. Primal attention
    has no more components than a head has channels: more would not be of low rank, and the paper's heads are
    wider. Each primal layer adds a KSVD loss of its own, and the paper's scripts take the mean over these
    layers: the weight of one is that of the script over their number.

    Args:
        dataset (str): The data set, which some arguments depend on.
        attention (dict): One of the variants of a :class:`Paper`.
        setting (Setting): The sizes.

    Example:
        >>> arguments("ERing", {"attention": "primal+"}, Setting(num_layers=2))["attention"]
        ['kernel', 'primal']
    """
    kwargs = {"position": "sum", **attention}
    position, name = kwargs["position"], kwargs.get("attention")
    if isinstance(position, (list, tuple)) and len(position) == 1:
        stacks = 2 if _GROUPS.get(dataset) == "translation" else 1
        kwargs["position"] = [*position] * (stacks * setting.num_layers)
    of_attention: dict[str, Any] = {}
    # Primal attention has no weights to drop, and its maps are not those of the other papers.
    if setting.attention_dropout is not None and name != "primal":
        of_attention["dropout"] = setting.attention_dropout
    if not setting.attention_bias:
        of_attention["bias"] = False
    if name in ("primal", "primal+"):
        rank, ksvd_weight, rank_multi = PRIMAL.get(dataset, {}).get(name, PRIMAL["default"])
        rank = min(rank, setting.embed_dim // setting.num_heads)
        layers = 1 if name == "primal+" else setting.num_layers
        of_attention.update(rank=rank, ksvd_weight=ksvd_weight / layers, rank_multi=rank_multi)
        if name == "primal+":
            kwargs["attention"] = ["kernel"] * (setting.num_layers - 1) + ["primal"]
    if "spectral" in str(kwargs.get("kernel")):
        kwargs["kernel_kwargs"] = {"num_features": setting.num_features}
    if of_attention:
        kwargs["attention_kwargs"] = {**of_attention, **kwargs.get("attention_kwargs", {})}
    return kwargs


def completed(setting: Mapping[str, Any]) -> dict[str, Any]:
    r"""Returns a setting as records hold it, with what was added to :class:`Setting` since.

    Example:
        >>> completed({"epochs": 3})["steps"] is None
        True
    """
    return {**dataclasses.asdict(Setting()), **setting}


def choose(paper: Paper, datasets: Sequence[str], variants: Sequence[str]) -> Paper:
    r"""Returns a paper with some of its data sets and attentions: those that are named, all if none is.

    Raises:
        ValueError: If the paper has no such data set or attention.
    """

    def chosen(wanted: Sequence[str], known: Sequence[str], what: str) -> list[str]:
        by_name = {normalize_string(name): name for name in known}
        for name in wanted:
            if normalize_string(name) not in by_name:
                unknown(what, name, known)
        names = {by_name[normalize_string(name)] for name in wanted}
        return [name for name in known if not wanted or name in names]

    kept = chosen(variants, list(paper.variants), "an attention of this paper")
    return dataclasses.replace(
        paper,
        datasets=tuple(chosen(datasets, paper.datasets, "a data set of this paper")),
        variants={name: paper.variants[name] for name in kept},
    )
