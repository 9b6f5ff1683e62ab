r"""Models by name: stock layers, kernels, products of kernels, magnitudes, arguments and projections."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from types import NoneType
from typing import Any, get_args, get_type_hints

import torch
from torch_geometric.resolver import normalize_string

from kgat import kernels
from kgat.experiments.stock import StockGAT, StockGATv2
from kgat.models import AttentionGNN, KernelGAT
from kgat.nn.kernel_gat_conv import PROJECTIONS

__all__ = ["MODELS", "Model", "converted", "resolve_model"]


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
        given[argument] = converted(argument, kinds[argument], value.strip(), f"{short}[{{}}=VALUE]")
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
        return str(value).lower()  # as converted reads them
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


def converted(name: str, kind: Any, value: Any, where: str = "--set {}=VALUE") -> Any:
    r"""Returns the value of a setting or an argument, which may be given as text.

    Args:
        name (str): What it is called.
        kind (type): Its type, or that or :obj:`None`.
        value (object): The value; a text is read as one of this type.
        where (str, optional): How it is given, with braces for the name. (default: :obj:`"--set {}=VALUE"`)

    Raises:
        ValueError: If it is not of this type.
    """
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
