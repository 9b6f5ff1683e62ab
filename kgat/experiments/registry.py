r"""Models by name: stock layers, kernels and their products, models of PyG, and one's own by path."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import pickle
import re
import sys
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from kgat import kernels, names
from kgat.experiments import stock
from kgat.experiments.settings import SETTINGS, TYPES
from kgat.experiments.source_digest import digest
from kgat.experiments.walk_encoding import WalkEncoding
from kgat.models import AttentionGNN, HeteroGNN, KernelGAT, KernelHeteroGAT
from kgat.nn.kernel_gat_conv import PROJECTIONS

__all__ = [
    "MODELS",
    "Model",
    "argument_named",
    "expect_picklable",
    "expect_taken",
    "given",
    "named",
    "open_arguments",
    "resolve_model",
    "warn_of_unseen_edges",
    "with_arguments",
]

SIMPLE_SETTINGS = ("hidden_channels", "num_layers", "dropout", "input_dropout")
FRAME_SETTINGS = (*SIMPLE_SETTINGS, "act", "norm", "residual", "pre_linear", "jk", "position_dim")
STOCK_SETTINGS = (
    *FRAME_SETTINGS,
    "global_attention",
    "heads",
    "out_heads",
    "attention_dropout",
    "add_self_loops",
    "value_dropout",
    "kernel_lr",
)
KERNEL_SETTINGS = (*STOCK_SETTINGS, "projections", "decay_kernels", "start")
# What decides how a model is trained, not how it is built.
OF_TRAINING = ("decay_kernels", "kernel_lr")
# What stands for a setting that a model does not take.
WITHOUT: dict[str, Any] = {
    **{"hidden_channels": 64, "num_layers": 2, "dropout": 0.0, "input_dropout": 0.0, "act": "none"},
    **{"norm": None, "residual": False, "heads": 1, "out_heads": 1, "value_dropout": 0.0},
    **{"projections": None, "decay_kernels": True, "start": None, "kernel_lr": 1.0},
    **{"attention_dropout": None, "pre_linear": False, "jk": None, "add_self_loops": True},
    **{"position_dim": None, "global_attention": None},
}
# What a constructor may ask for of a task; the last two are those of a heterogeneous graph.
SIZES = ("in_channels", "out_channels", "edge_dim", "deg", "metadata", "target")


@dataclass(frozen=True)
class Model:
    r"""A model that can be trained by name: which module, and what it takes.

    Args:
        name (str): The name.
        cls (type or Callable): The stack of layers, or any class or factory of modules.
        kwargs (dict): What it takes beside the settings.
        takes (tuple of str): The settings that it takes.
        instead (dict): What stands for some that it does not take, where that is not nothing.
        code (str, optional): Of code of one's own, where it is and a digest of its source.
            (default: :obj:`None`)
        types (str, optional): Which graphs it takes: those of :obj:`"one"` type of nodes and edges, of
            :obj:`"several"`, or :obj:`"any"`. (default: :obj:`"any"`)
        settings (dict, optional): Settings that its name says. (default: :obj:`{}`)
    """

    name: str
    cls: Callable[..., torch.nn.Module]
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    takes: tuple[str, ...] = KERNEL_SETTINGS
    instead: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    code: str | None = None
    types: str = "any"
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def has_kernel(self) -> bool:
        r"""Whether it is one of ours, not a stock one."""
        return self.cls is KernelGAT

    @property
    def has_attention(self) -> bool:
        r"""Whether its layers are known to give attention weights; a model of one's own may do so, too."""
        return isinstance(self.cls, type) and getattr(self.cls, "conv_class", None) is not None

    @property
    def fixed(self) -> dict[str, Any]:
        r"""The settings that it does not leave open: those of its name, and those that it does not take, with
        the values that then stand for them."""
        usual = {**WITHOUT, **self.instead}
        return {n: value for n, value in usual.items() if n not in self.takes} | dict(self.settings)

    @property
    def asks(self) -> tuple[str, ...]:
        r"""What its constructor takes of a task, of :data:`SIZES`."""
        if isinstance(self.cls, type) and issubclass(self.cls, AttentionGNN):
            return SIZES[: 4 if self.cls is stock.StockPNA else 3]
        return tuple(name for name in SIZES if name in inspect.signature(self.cls).parameters)

    @property
    def sees_edge_attr(self) -> bool:
        r"""Whether it takes edge features; of a function that builds a module nobody knows before."""
        cls: Any = self.cls
        if not isinstance(cls, type):
            return True
        if cls.__module__ == stock.__name__ and hasattr(cls, "takes_edge_attr"):
            return bool(cls.takes_edge_attr)
        known = inspect.signature(cls.forward).parameters  # type: ignore[attr-defined]
        return "edge_attr" in known or any(p.kind is p.VAR_KEYWORD for p in known.values())

    def build(
        self, config: Any, in_channels: Any, out_channels: int, edge_dim: Any = None, **more: Any
    ) -> torch.nn.Module:
        r"""Builds the module.

        Args:
            config (Config): The settings.
            in_channels (int or dict): Number of features, of a heterogeneous graph by type of nodes.
            out_channels (int): Size of the output.
            edge_dim (int or list, optional): Number of edge features, of a heterogeneous graph pairs of a
                type of edges and its number. (default: :obj:`None`)
            **more (optional): What else it :attr:`asks` for; with :obj:`metadata` and :obj:`target` it is a
                model of a heterogeneous graph.

        Raises:
            ValueError: If it cannot be built of this, or has no parameters.
        """
        several = "metadata" in more
        if self.types not in ("any", "several" if several else "one"):
            what = "several types of nodes or edges" if several else "one type of nodes and edges"
            raise ValueError(
                f"Expected a model of a graph of {what} (got '{self.name}'); choose from: "
                f"{', '.join(name for name, model in _NAMED.items() if model.types != self.types)}, kernels, "
                "modules of your own"
            )
        taken = {name: getattr(config, name) for name in self.takes if name not in OF_TRAINING}
        for name in ("projections", "start"):  # the kernel model's own, where the setting leaves it open
            if taken.get(name, "") is None:
                del taken[name]
        if several:
            edge_dim = {tuple(edge): channels for edge, channels in edge_dim or []} or None
        sizes = {"in_channels": in_channels, "out_channels": out_channels, "edge_dim": edge_dim, **more}
        taken |= {name: sizes[name] for name in self.asks if name in sizes} | dict(self.kwargs)
        if several and isinstance(self.cls, type) and issubclass(self.cls, AttentionGNN):
            # Layers that add a map of the node itself, whatever is set, need no other.
            taken = {"residual": False, **taken, "metadata": more["metadata"], "target": more["target"]}
            return KernelHeteroGAT(**taken) if self.cls is KernelGAT else HeteroGNN(self.cls, **taken)
        if self.code is None or self.has_kernel:
            return self._placed(taken)
        try:
            model = self.cls(**taken)
        except Exception as error:  # whatever the user's code raises
            raise ValueError(
                f"Expected '{self.name}' to be built with {_listed(taken)} (got {type(error).__name__}: "
                f"{error}); correct it"
            ) from error
        return _adapted(model, self.name, out_channels, several)

    def _placed(self, arguments: dict[str, Any]) -> torch.nn.Module:
        # Encodings are an argument of kernel models, and further features of others.
        steps = arguments.get("position_dim")
        if steps is not None and not self.has_kernel:
            arguments["in_channels"] += steps
        if not self.has_kernel:
            arguments.pop("position_dim", None)
        model = self.cls(**arguments)
        if steps is not None:
            model.register_forward_pre_hook(WalkEncoding(steps, self.has_kernel), with_kwargs=True)
        return model


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in settings.items()) or "no arguments"


# --- Code of one's own ------------------------------------------------------------------------------------


def _adapted(model: Any, name: str, out_channels: int, several: bool) -> torch.nn.Module:
    r"""Returns the module itself, with a look at what goes in and comes out."""
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"Expected '{name}' to give a torch.nn.Module (got {model!r}); return one")
    parameters = list(model.parameters())
    if not parameters or any(map(torch.nn.parameter.is_lazy, parameters)):
        raise ValueError(
            f"Expected parameters with sizes in '{name}' (got {'lazy ones' if parameters else 'none'}); "
            "there is nothing to train before the first call"
        )
    known = inspect.signature(model.forward).parameters
    positional = [p for p in known.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [
        p.name
        for p in known.values()
        if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    inputs = "x_dict, edge_index_dict" if several else "x, edge_index"
    optional = ["edge_attr_dict"] if several else ["edge_attr", "batch"]
    wrong = [n for n in required[2:] if n not in optional]
    if (len(positional) < 2 and not any(p.kind is p.VAR_POSITIONAL for p in known.values())) or wrong:
        raise ValueError(
            f"Expected '{name}' to be called as model({inputs}), optionally with {' and '.join(optional)} "
            f"(got forward({', '.join(known)})); write such a forward"
        )
    if several:
        return model
    takes_any = any(p.kind is p.VAR_KEYWORD for p in known.values())
    taken = None if takes_any else frozenset(known)
    model.register_forward_pre_hook(_Given(taken, frozenset(required)), with_kwargs=True)
    model.register_forward_hook(_Expected(name, out_channels))
    return model


@dataclass(frozen=True)
class _Given:
    r"""Hands a model what its signature has, and features that are dense, unless it takes sparse ones."""

    taken: frozenset[str] | None
    required: frozenset[str]

    def __call__(self, module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, Any]:
        x, *others = args
        if isinstance(x, Tensor) and x.layout != torch.strided:
            x = x.to_dense()
        if self.taken is not None:
            kwargs = {name: value for name, value in kwargs.items() if name in self.taken}
        if "batch" in self.required and "batch" not in kwargs:
            kwargs["batch"] = torch.zeros(x.size(0), dtype=torch.long, device=x.device)
        if "edge_attr" in self.required:
            kwargs.setdefault("edge_attr", None)
        return (x, *others), kwargs


@dataclass(frozen=True)
class _Expected:
    r"""Looks at the shape of what a model returns."""

    name: str
    out_channels: int

    def __call__(self, module: torch.nn.Module, args: Any, output: Any) -> None:
        shape = [args[0].size(0), self.out_channels]
        if not isinstance(output, Tensor) or list(output.shape) != shape:
            got = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"Expected '{self.name}' to return a tensor of shape [N, out_channels]={shape} (got {got}); "
                "return one row per node, as wide as 'out_channels'"
            )


def _own_model(name: str, path: str, thing: Any, brackets: str | None = None) -> Model:
    if isinstance(thing, torch.nn.Module):
        raise TypeError(
            f"Expected a class or a factory for '{name}' (got a {type(thing).__name__} that is built); each "
            "seed needs a new one, pass the class or a function that builds it"
        )
    if not callable(thing) or (isinstance(thing, type) and not issubclass(thing, torch.nn.Module)):
        raise TypeError(
            f"Expected a torch.nn.Module or a factory of one for '{name}' (got {thing!r}); name a class of "
            "modules or a function that builds one"
        )
    arguments = {} if brackets is None else names.arguments_of(thing, brackets, name)
    parameters = inspect.signature(thing).parameters
    known = [setting for setting in STOCK_SETTINGS if setting not in OF_TRAINING]
    takes = tuple(setting for setting in known if setting in parameters and setting not in arguments)
    for parameter in parameters.values():
        required = parameter.default is parameter.empty and parameter.kind in (
            *(parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY),
        )
        if required and parameter.name not in (*takes, *SIZES, *arguments):
            raise ValueError(
                f"Expected '{name}' to be built with arguments among {', '.join((*SIZES, *known))} (got "
                f"'{parameter.name}' without a default); give it one, or a value in brackets, "
                f"{path}[{parameter.name}=VALUE]"
            )
    return Model(name, thing, arguments, takes, code=f"{path} {digest(thing)}")


def _by_path(text: str) -> Model | None:
    r"""The model of a path, if it is one of a module and not of a kernel."""
    match = re.fullmatch(r"\s*([\w.]+\s*:\s*[\w.]+)\s*(?:\[([^][]*)\]\s*)?", text)
    if match is None:
        return None
    path = re.sub(r"\s", "", match[1])
    thing = names.imported(path)
    if isinstance(thing, type) and issubclass(thing, kernels.Kernel):
        return None
    model = _own_model(path, path, thing, match[2])
    said = names.Factor(model.cls, dict(model.kwargs)).text(path)  # type: ignore[arg-type]
    return dataclasses.replace(model, name=said)


_GIVEN: ContextVar[Mapping[str, Model]] = ContextVar("given", default=MappingProxyType({}))


def named(models: Any) -> tuple[list[str], dict[str, Model]]:
    r"""Returns the names of models, and the models whose name alone does not find them.

    Args:
        models (str or list or dict): Names, classes and factories of modules, and classes of kernels; a
            dictionary says what they are called.

    Raises:
        TypeError: If one is nothing that could be a model.
        ValueError: If one is called as a model that there is.
    """
    if isinstance(models, str):
        models = [models]
    pairs = list(models.items()) if isinstance(models, Mapping) else [(None, model) for model in models]
    known: list[str] = []
    own: dict[str, Model] = {}
    for label, thing in pairs:
        model = resolve_model(thing) if isinstance(thing, str) else _given_model(label, thing)
        there = None if label is None else _canonical(label)
        if label is not None and not (isinstance(thing, str) and there == model.name):
            if there is not None:
                raise ValueError(
                    f"Expected another name for a model (got '{label}', which there is already); choose one"
                )
            model = dataclasses.replace(model, name=label, code=model.code or model.name)
            own[label] = model
        elif not isinstance(thing, str):
            own[model.name] = model
        known.append(model.name)
    return list(dict.fromkeys(known)), own


def _canonical(label: str) -> str | None:
    try:
        return resolve_model(label).name
    except (ValueError, ImportError):
        return None


def _given_model(label: str | None, thing: Any) -> Model:
    if not callable(thing) and not isinstance(thing, torch.nn.Module):
        raise TypeError(
            f"Expected a model: a name, a class or a factory (got {thing!r}); pass a class of modules or a "
            "function that builds one"
        )
    title = getattr(thing, "__qualname__", type(thing).__name__)
    path = f"{getattr(thing, '__module__', '__main__')}:{title}"
    name = label or path
    if label is None and not re.fullmatch(r"[\w.]+:[\w.]+", path):
        raise TypeError(f"Expected a name for {title} (got none); pass a dictionary, {{'mine': factory}}")
    if isinstance(thing, type) and issubclass(thing, kernels.Kernel):
        return Model(name, KernelGAT, {"kernel": thing}, code=f"{path} {digest(thing)}")
    return _own_model(name, path, thing)


def expect_picklable(own: Mapping[str, Model]) -> None:
    r"""Raises an error if other processes could not have these models."""
    for name, model in own.items():
        try:
            pickle.dumps(model)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ValueError(
                f"Expected a factory that several jobs can import (got '{name}': {error}); "
                "define it at the top of a module, or pass jobs=1"
            ) from None


def expect_taken(models: Sequence[str], overrides: Mapping[str, Any]) -> None:
    r"""Checks that what is set is left open by one of several models at least.

    Args:
        models (list of str): Their names.
        overrides (dict): Settings that are given for all of them.

    Raises:
        ValueError: If a setting is one that none of them takes.
    """
    for setting in overrides:
        if all(setting in resolve_model(name).fixed for name in models):
            if setting in STOCK_SETTINGS:
                raise ValueError(
                    f"Expected a model that takes '{setting}' because it is set (got {', '.join(models)}); "
                    "leave it out for these"
                )
            raise ValueError(
                f"Expected a kernel model that leaves '{setting}' open because it is set (got "
                f"{', '.join(models)}); leave it out for stock layers, settings and projections in a name"
            )


def warn_of_unseen_edges(models: Iterable[str], task: Any) -> None:
    r"""Warns once of models that do not see the edge features of a task, which others in a table do."""
    unseen = [name for name in models if not resolve_model(name).sees_edge_attr]
    if unseen and getattr(task, "target", None) is None and task.data.edge_attr is not None:
        warnings.warn(
            f"the edge features of '{task.name}' are not seen by {', '.join(unseen)}, which take none",
            stacklevel=3,
        )


def is_found(name: str) -> bool:
    r"""Returns whether the name of a model is all that another process needs."""
    return name not in _GIVEN.get()


@contextmanager
def given(models: Mapping[str, Model]) -> Iterator[None]:
    r"""Has :func:`resolve_model` know further models, within the block."""
    token = _GIVEN.set(models)
    try:
        yield
    finally:
        _GIVEN.reset(token)


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
            f"({_text(part)})" if isinstance(part, names.Joined) and part.operator != "*" else _text(part)
            for part in tree.parts
        ]
        return tree.operator.join(texts)
    title, arguments = tree.cls.__name__, tree.arguments
    if tree.path is not None:
        return tree.text(tree.path)
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
        names.unknown("the name of a model", name, choices, kernels.CATALOGUE.spellings, part=error.name)
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
    own = [f"{factor.path} {digest(factor.cls)}" for factor in factors if factor.path is not None]
    return Model(text, KernelGAT, kwargs, code="; ".join(own) or None)


# --- Arguments that a name leaves open --------------------------------------------------------------------


def argument_named(name: str) -> tuple[str, Any]:
    r"""Returns the name of an argument of a kernel as :func:`open_arguments` has it, and its type.

    Args:
        name (str): The name of a kernel and that of an argument, as in :obj:`"RBF.lengthscale"`.

    Raises:
        ValueError: If there is no such kernel or argument.

    Example:
        >>> argument_named("spectral.num_features")
        ('spectral.num_features', <class 'int'>)
    """
    kernel, _, argument = name.partition(".")
    (factor, *others) = kernels.CATALOGUE.read(kernel).factors
    kinds = names.kinds_of(factor.cls, given=2)
    known = {names.normalized(choice): choice for choice in kinds if choice not in factor.arguments}
    if others or names.normalized(argument) not in known:
        names.unknown(f"arguments of {factor.cls.__name__}", name, known.values(), part=argument)
    argument = known[names.normalized(argument)]
    return f"{_title(factor)}.{argument}", kinds[argument]


def _title(factor: names.Factor) -> str:
    return _text(factor._replace(arguments={}))


def _tree_of(name: str) -> names.Factor | names.Joined | None:
    kernel = resolve_model(name).kwargs.get("kernel")
    return kernels.CATALOGUE.read(kernel) if isinstance(kernel, str) else None


def open_arguments(name: str) -> list[str]:
    r"""Returns the arguments of the kernels in the name of a model that it does not give.

    Example:
        >>> open_arguments("rbf*l2"), open_arguments("rbf[lengthscale=2]"), open_arguments("gat")
        (['rbf.lengthscale', 'magnitude.learn_p', 'magnitude.scale_norm', 'magnitude.dropout'], [], [])
    """
    tree = _tree_of(name)
    return [
        f"{_title(factor)}.{argument}"
        for factor in (() if tree is None else tree.factors)
        for argument in names.kinds_of(factor.cls, given=2)
        if argument not in factor.arguments
    ]


def with_arguments(name: str, values: Mapping[str, Any]) -> str:
    r"""Returns the name of a model with values of :func:`open_arguments`; usual ones are left out.

    Example:
        >>> with_arguments("rbf*l2@separate", {"rbf.lengthscale": 0.5})
        'rbf[lengthscale=0.5]*l2@separate'
    """
    tree = _tree_of(name)
    if tree is None or not values:
        return name

    def filled(tree: names.Factor | names.Joined) -> names.Factor | names.Joined:
        if isinstance(tree, names.Joined):
            return tree._replace(parts=[filled(part) for part in tree.parts])
        parameters = inspect.signature(tree.cls).parameters
        arguments = {
            argument: values[f"{_title(tree)}.{argument}"]
            for argument in parameters
            if argument not in tree.arguments and f"{_title(tree)}.{argument}" in values
        }
        usual = {argument: parameters[argument].default for argument in arguments}
        said = {a: value for a, value in arguments.items() if value != usual[a]} | tree.arguments
        return tree._replace(
            arguments={argument: said[argument] for argument in parameters if argument in said}
        )

    return "@".join([_text(filled(tree)), *name.split("@")[1:]])


_RELU = {"act": "relu"}
_HEADS = ("heads", "out_heads", "attention_dropout")
_SKIP = {"residual": True}  # they have a linear map of their input in any case
_NO_SKIP = tuple(name for name in FRAME_SETTINGS if name != "residual")
_STOCK = {
    model.name: model
    for model in (
        Model("gat", stock.StockGAT, takes=STOCK_SETTINGS),
        Model("gatv2", stock.StockGATv2, takes=STOCK_SETTINGS),
        Model("mlp", stock.StockMLP, takes=FRAME_SETTINGS),
        Model("gcn", stock.StockGCN, takes=(*FRAME_SETTINGS, "add_self_loops")),
        Model("sage", stock.StockSAGE, takes=_NO_SKIP, instead=_SKIP),
        Model("gin", stock.StockGIN, takes=FRAME_SETTINGS),
        Model("pna", stock.StockPNA, takes=FRAME_SETTINGS),
        Model("appnp", stock.StockAPPNP, takes=FRAME_SETTINGS),
        Model("gcn2", stock.StockGCN2, takes=SIMPLE_SETTINGS, instead=_RELU),
        Model("supergat", stock.StockSuperGAT, takes=(*FRAME_SETTINGS, *_HEADS, "add_self_loops")),
        Model("transformer", stock.StockTransformer, takes=(*_NO_SKIP, *_HEADS), instead=_SKIP),
        Model("sgformer", stock.StockSGFormer, takes=SIMPLE_SETTINGS[:3], instead=_RELU),
        Model("polynormer", stock.StockPolynormer, takes=SIMPLE_SETTINGS, instead=_RELU),
    )
}
for _name in ("mlp", "gcn", "gin", "pna", "appnp", "gcn2", "supergat", "sgformer", "polynormer"):
    _STOCK[_name] = dataclasses.replace(_STOCK[_name], types="one")
_NAMED = _STOCK | {
    model.name: model
    for model in (
        Model("rgcn", stock.StockRGCN, _SKIP, takes=_NO_SKIP, instead=_SKIP, types="several"),
        Model("hgt", stock.StockHGT, takes=(*SIMPLE_SETTINGS, "heads"), instead=_RELU, types="several"),
    )
}
_FACTORS = [names.Factor(kernels.CATALOGUE.classes[title], {}) for title in kernels.names()]
MODELS: dict[str, Model] = {**_STOCK}
MODELS |= {model.name: model for model in [_kernel_model(_text(f), "") for f in _FACTORS if not _signed(f)]}


def resolve_model(name: str) -> Model:
    r"""Returns the model of a name.

    Stock models are ``gat`` and ``gatv2``; of PyG there are also ``mlp``, ``gcn``, ``sage``, ``gin``,
    ``pna``, ``appnp``, ``gcn2``, ``supergat``, ``transformer``, ``sgformer`` and ``polynormer``, some with
    arguments: ``appnp[K=5]``; of heterogeneous graphs ``rgcn`` and ``hgt``, and those whose layers go from
    one type of nodes to another. ``package.module:Class`` is a module or a kernel of one's own, as is a
    factory at such a path. What :func:`kgat.kernels.resolve` takes as a name is a model where
    it is nowhere negative: ``rbf``, ``rbf*laplace``, ``spectral[num_features=4]*l1.5``. Projections of
    :class:`~kgat.nn.KernelGATConv` may stand at the end: ``rbf@separate``, ``spectral*lp@shared_qk``; and any
    setting that a model takes, so that one table can hold it with several: ``rbf@start=unit``,
    ``gat@heads=1@lr=0.01``.

    The name of the model then has all that was given, also where it is the default, with arguments in the
    order of the class. What stands in a name goes before what is set for all models.

    Args:
        name (str): The name; case, ``-``, ``_`` and spaces do not matter.

    Raises:
        ValueError: If there is no such model, argument, projections or setting, with the choices; if a value
            is not possible.

    Example:
        >>> resolve_model("RBF * Lp").kwargs
        {'kernel': 'rbf*lp'}
        >>> resolve_model("IKAN[num_features=4] * L2 @ separate").name
        'implicit[num_features=4]*l2@separate'
    """
    return _GIVEN.get().get(name) or _resolved(name, _at_paths(name))


KEPT_NAMES = 512  # more than a comparison asks for in turns; trials suggest ever new ones


def _at_paths(name: str) -> tuple[Any, ...]:
    r"""What stands at the paths in a name by now: after a reload it is another class, with other code."""
    found = []
    for module, path in re.findall(r"([\w.]+)\s*:\s*([\w.]+)", name):
        thing: Any = sys.modules.get(module)
        for part in path.split("."):
            thing = getattr(thing, part, None)
        found.append(thing if callable(thing) and isinstance(thing, Hashable) else None)
    return tuple(found)


@functools.lru_cache(maxsize=KEPT_NAMES)
def _resolved(name: str, _: tuple[Any, ...]) -> Model:
    text, *ends = (part.strip() for part in name.split("@"))
    if all("=" in end for end in ends):  # projections have a shorter name
        ends = [re.sub(r"(?i)^projections\s*=\s*", "", end) for end in ends]
    at = [end for end in ends if "=" not in end]
    return _with_settings(_with_projections(text, at, name), [end for end in ends if "=" in end], name)


def _with_projections(text: str, at: list[str], name: str) -> Model:
    model = _stock_with_arguments(text) or _by_path(text)
    if model is not None:
        if at:
            raise ValueError(
                f"Expected a kernel before '@' (got '{name}'); other models have no projections to share"
            )
        return model
    model = _NAMED.get(names.normalized(text))
    for factor in re.split(r"\[[^][]*\]|[()+*]", text):
        layer = names.normalized(factor)
        if layer in _NAMED and (model is None or at):
            if layer not in _KERNELS_OF_STOCK:
                raise ValueError(
                    f"Expected the name of a kernel (got '{name}'); '{layer}' has neither factors nor "
                    f"projections: use '{layer}' alone"
                )
            raise ValueError(
                f"Expected the name of a kernel (got '{name}'); a stock layer has neither arguments nor "
                f"factors nor a choice of projections: use '{layer}' alone, or its kernel, "
                f"'{_KERNELS_OF_STOCK[layer]}'"
            )
    if model is None:
        model = _kernel_model(text, name)
    if not at:
        return model
    known = {names.normalized(choice): choice for choice in PROJECTIONS}
    if names.normalized(projections := "@".join(at)) not in known:
        names.unknown("projections after '@'", name, PROJECTIONS)
    chosen = known[names.normalized(projections)]
    return dataclasses.replace(
        model,
        name=f"{model.name}@{chosen}",
        kwargs={**model.kwargs, "projections": chosen},
        takes=tuple(name for name in model.takes if name != "projections"),
    )


def _with_settings(model: Model, ends: list[str], name: str) -> Model:
    # One table has one rule for the weights that are kept.
    open_ = {names.normalized(s): s for s in SETTINGS if s not in model.fixed and s != "keep"}
    settings: dict[str, Any] = {}
    for key, _, value in (end.partition("=") for end in ends):
        setting = open_.pop(names.normalized(key), None)
        if setting is None:
            what = f"settings after '@' that '{model.name}' leaves open, each once"
            names.unknown(what, name, open_.values(), part=key)
        settings[setting] = names.converted(
            setting, TYPES[setting], value.strip(), f"@{{}}=VALUE in '{name}'"
        )
    if not settings:
        return model
    settings = {setting: settings[setting] for setting in SETTINGS if setting in settings}
    said = [f"{setting}={names.shown(value)}" for setting, value in settings.items()]
    return dataclasses.replace(model, name="@".join([model.name, *said]), settings=settings)


_KERNELS_OF_STOCK = {"gat": "additive", "gatv2": "additive_v2"}


def _stock_with_arguments(text: str) -> Model | None:
    r"""A model of PyG with arguments in brackets: of ours, those of GAT and GATv2 have none."""
    match = re.fullmatch(r"([^][]*)\[([^][]*)\]", text.strip())
    model = _NAMED.get(names.normalized(match[1])) if match else None
    if match is None or model is None or model.name in _KERNELS_OF_STOCK:
        return None
    arguments = names.arguments_of(model.cls, match[2], text)
    arguments = {name: value for name, value in arguments.items() if name not in (*STOCK_SETTINGS, *SIZES)}
    if not arguments:
        raise ValueError(f"Expected arguments of '{model.name}' (got '{text}'); change settings with --set")
    said = names.Factor(model.cls, arguments).text(model.name)  # type: ignore[arg-type]
    return dataclasses.replace(model, name=said, kwargs=arguments)
