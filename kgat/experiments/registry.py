r"""Models by name: stock layers, kernels, products of kernels, magnitudes, arguments and projections."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from kgat import kernels, names
from kgat.experiments.stock import StockGAT, StockGATv2
from kgat.models import AttentionGNN, KernelGAT
from kgat.nn.kernel_gat_conv import PROJECTIONS

if TYPE_CHECKING:
    from kgat.experiments.config import Config

__all__ = ["MODELS", "Model", "resolve_model"]


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
            return {"projections": None, "decay_kernels": True, "start": None}
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
        if config.start is not None:  # of kernel models alone: stock layers have no such argument
            kwargs["start"] = config.start
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


# Names of kernels are those of kgat.kernels in lower case, but for these.
_SHORT = {
    "DotProduct": "dot",
    "SincProduct": "sinc",
    "KANScore": "kan",
    "ImplicitSpectral": "implicit",
    "CopulaSpectral": "copula",
}


def _signed(factor: names.Factor) -> bool:
    r"""Whether a kernel can be negative: it has no logarithm then, and no softmax."""
    with torch.random.fork_rng(devices=[]):  # building one may draw from the user's generator
        built = factor.cls(channels=2, **factor.arguments)
    zero = torch.zeros(1, 1, 2)
    return bool(built(zero, zero).signed)


def _text(tree: names.Factor | names.Joined) -> str:
    if isinstance(tree, names.Joined):
        texts = [
            f"({_text(part)})" if isinstance(part, names.Joined) and part.operator == "+" else _text(part)
            for part in tree.parts
        ]
        return tree.operator.join(texts)
    title, arguments = tree.cls.__name__, tree.arguments
    if title == "Magnitude" and list(arguments) == ["p"]:
        return f"l{names.shown(arguments['p'])}"
    if title == "Magnitude" and arguments == {"learn_p": "layer"}:
        return "lp"
    return tree.text(_SHORT.get(title, names.snake(title)))


def _kernel_model(text: str, name: str) -> Model:
    try:
        tree = kernels.CATALOGUE.read(text)
    except names.UnknownName as error:
        choices = [*MODELS, "products and sums such as rbf*laplace", "magnitudes such as rbf*l2 or rbf*lp"]
        choices += ["arguments such as spectral[num_features=4]", "projections such as rbf@separate"]
        names.unknown("the name of a model", name, choices, kernels.CATALOGUE.aliases, part=error.name)
    factors = list(tree.factors)
    if any(map(_signed, factors)):  # the kernel itself says where a value is not possible
        raise ValueError(
            f"Expected a model whose kernel is nowhere negative (got '{name}'), as a softmax needs its log; "
            f"choose from: {', '.join(MODELS)}"
        )
    text = _text(tree)
    kwargs: dict[str, Any] = {"kernel": text}
    if [factor.cls for factor in factors if factor.cls is not kernels.Magnitude] == [kernels.AdditiveV2]:
        # As GATv2Conv: values are keys, and projections have biases.
        kwargs.update(projections="shared_kv", projection_bias=True)
    return Model(text, KernelGAT, kwargs)


_STOCK = {"gat": Model("gat", StockGAT), "gatv2": Model("gatv2", StockGATv2)}
_FACTORS = [names.Factor(kernels.CATALOGUE.classes[title], {}) for title in kernels.names()]
MODELS: dict[str, Model] = {**_STOCK}
MODELS |= {model.name: model for model in [_kernel_model(_text(f), "") for f in _FACTORS if not _signed(f)]}


@functools.cache
def resolve_model(name: str) -> Model:
    r"""Returns the model of a name.

    Stock models are ``gat`` and ``gatv2``. What :func:`kgat.kernels.resolve` takes as a name is a model where
    it is nowhere negative: ``rbf``, ``rbf*laplace``, ``spectral[num_features=4]*l1.5``. Projections of
    :class:`~kgat.nn.KernelGATConv` may stand at the end: ``rbf@separate``, ``spectral*lp@shared_qk``.

    The name of the model then has all that was given, also where it is the default, with arguments in the
    order of the class. Projections in a name go before the setting :obj:`projections`.

    Args:
        name (str): The name; case, ``-``, ``_`` and spaces do not matter.

    Raises:
        ValueError: If there is no such model, argument or projections, with the choices; if a value is not
            possible.

    Example:
        >>> resolve_model("RBF * Lp").kwargs
        {'kernel': 'rbf*lp'}
        >>> resolve_model("IKAN[num_features=4] * L2 @ separate").name
        'implicit[num_features=4]*l2@separate'
    """
    text, at, projections = (part.strip() for part in name.partition("@"))
    model = _STOCK.get(names.normalized(text))
    for factor in re.split(r"\[[^][]*\]|[()+*]", text):
        stock = names.normalized(factor)
        if stock in _STOCK and (model is None or at):
            raise ValueError(
                f"Expected the name of a kernel (got '{name}'); a stock layer has neither arguments nor factors "
                f"nor a choice of projections: use '{stock}' alone, or its kernel, "
                f"'{'additive' if stock == 'gat' else 'additive_v2'}'"
            )
    if model is None:
        model = _kernel_model(text, name)
    if not at:
        return model
    known = {names.normalized(choice): choice for choice in PROJECTIONS}
    if names.normalized(projections) not in known:
        names.unknown("projections after '@'", name, PROJECTIONS)
    chosen = known[names.normalized(projections)]
    return Model(f"{model.name}@{chosen}", model.cls, {**model.kwargs, "projections": chosen})
