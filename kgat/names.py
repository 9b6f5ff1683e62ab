r"""The grammar in which kernels, positions and models are named, and what is said of a name nobody knows.

.. code-block:: text

    heads    = sum ("|" sum)*
    sum      = product ("+" product)*
    product  = factor ("*" factor)*
    factor   = NAME ["[" ARGUMENT=VALUE, ... "]"]  |  "(" heads ")"

Case, ``-``, ``_`` and spaces of a name do not matter. A class of one's own is named by its path,
``package.module:Class``, as it is spelled.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar, get_args, get_type_hints

T = TypeVar("T")

NEAR = 0.6  # of a name that may be meant, in the measure of difflib: its own default

_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a name"}


_CHANGED = re.compile(r"(.+?)[-_\s]+(\d+)[-_\s]+(labels|edges|noise)", re.I)


class UnknownName(ValueError):
    r"""A name that nobody knows."""

    name: str


def normalized(name: str) -> str:
    r"""Returns a name without case, ``-``, ``_`` and spaces.

    Example:
        >>> normalized("Scaled-Cosine") == normalized("scaled_cosine")
        True
    """
    return re.sub(r"[-_\s]", "", name.lower())


def snake(name: str) -> str:
    r"""Returns the name of a class in lower case, words joined by ``_``.

    Example:
        >>> snake("RBF"), snake("FAVORPlus"), snake("L2Distance")
        ('rbf', 'favor_plus', 'l2_distance')
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def bare(thing: object) -> str:
    r"""Returns the name of a type or layout of torch, as messages have it.

    Example:
        >>> import torch
        >>> bare(torch.float32)
        'float32'
    """
    return str(thing).removeprefix("torch.")


def nearest(name: str, choices: Iterable[str]) -> str:
    r"""Returns the end of a sentence about a wrong name: the choice that may be meant, if there is one.

    Example:
        >>> nearest("laplac", ["rbf", "laplace"])
        "; did you mean 'laplace'?"
        >>> nearest("laplac", ["rbf"])
        ''
    """
    spelled = {normalized(choice): choice for choice in choices}
    wanted = normalized(name)
    # Of those that are equally near, the first: what is listed comes before what else it is called.
    ratios = {key: difflib.SequenceMatcher(None, key, wanted).ratio() for key in spelled}
    best = max(ratios, key=ratios.__getitem__, default="")
    return f"; did you mean '{spelled[best]}'?" if ratios.get(best, 0.0) >= NEAR else ""


def unknown(
    what: str, name: str, choices: Iterable[str], also: Iterable[str] = (), part: str | None = None
) -> NoReturn:
    r"""Raises the error of a name that nobody knows.

    Args:
        what (str): What a name was expected of.
        name (str): The name.
        choices (list of str): What could have been said.
        also (list of str, optional): Other names of them, which are not listed. (default: :obj:`()`)
        part (str, optional): What of the name is wrong; all of it if :obj:`None`. (default: :obj:`None`)

    Raises:
        UnknownName: Always, with the choices and the nearest of all names.
    """
    choices = list(choices)
    part = name if part is None else part
    error = UnknownName(
        f"Expected {what} (got '{name}'); choose from: {', '.join(choices) or 'none'}"
        f"{nearest(part, [*choices, *also])}"
    )
    error.name = part
    raise error


def one_of(argument: str, value: T, choices: Iterable[Any]) -> T:
    r"""Returns the value of an argument that takes few.

    Args:
        argument (str): Its name.
        value (object): Its value.
        choices (list): What it may be.

    Raises:
        ValueError: If it is none of them, with the choices and the nearest of them.

    Example:
        >>> one_of("init", "dto", ("dot", "official"))
        Traceback (most recent call last):
            ...
        ValueError: Expected 'init' as one of 'dot', 'official' (got 'dto'); did you mean 'dot'?
    """
    choices = list(choices)
    if value not in choices:
        listed = ", ".join(map(repr, choices))
        close = nearest(value, filter(None, choices)) if isinstance(value, str) else ""
        raise ValueError(f"Expected '{argument}' as one of {listed} (got {value!r}){close}")
    return value


def resolved(argument: str, resolver: Callable[..., T], value: Any, *args: Any, **kwargs: Any) -> T:
    r"""Returns what PyG makes of the value of an argument: of a name that it knows, a module.

    Args:
        argument (str): Its name.
        resolver (Callable): One of PyG's resolvers.
        value (object): Its value.
        *args, **kwargs (optional): What the module is built with.

    Raises:
        UnknownName: If PyG has no such name, with those it has and the nearest of them.

    Example:
        >>> from torch_geometric.nn.resolver import normalization_resolver
        >>> resolved("norm", normalization_resolver, "batch_norms", 8)
        Traceback (most recent call last):
            ...
        kgat.names.UnknownName: Expected 'norm' as ... (got 'batch_norms'); choose from: BatchNorm, ...
    """
    try:
        return resolver(value, *args, **kwargs)
    except ValueError as error:
        _, among, listed = str(error).partition(" among choices ")
        if not among:
            raise
        choices = set(re.findall(r"'(\w+)'", listed)) - NO_ACTIVATIONS
    unknown(f"'{argument}' as a name that PyG resolves", str(value), sorted(choices))


# What its resolver takes for names of activations, as they lie in the same module of torch.
NO_ACTIVATIONS = {"Module", "MultiheadAttention", "NonDynamicallyQuantizableLinear"}


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
    if NoneType in kinds and str(value).lower() == "none":
        return None
    kind = next(known for known in kinds if known in _KINDS)
    if kind is float and type(value) is int:
        return float(value)
    if isinstance(value, str) and kind is not str:
        if kind is bool and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if kind in (int, float):
            with suppress(ValueError):  # the error below says more
                value = kind(value)
    wide = kind is int and isinstance(value, int) and not -(2**63) <= value < 2**63  # torch takes no more
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)) and not wide:
        return value
    raise ValueError(
        f"Expected '{name}' as {_KINDS[kind]} (got {value!r}); change it with {where.format(name)}"
    )


def shown(value: Any) -> str:
    r"""Returns a value as :func:`converted` reads it.

    Example:
        >>> shown(2.0), shown(1.5), shown(True), shown(None)
        ('2', '1.5', 'true', 'none')
    """
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def unusual_arguments(**arguments: tuple[Any, Any]) -> str:
    r"""Returns what a ``repr`` says of arguments: those whose value is not the usual one.

    Args:
        **arguments (tuple): Their values, each with the usual one.

    Example:
        >>> unusual_arguments(draws=(2, 1), stationary=(False, False), law=("cauchy", "normal"))
        ", draws=2, law='cauchy'"
    """
    return "".join(f", {name}={value!r}" for name, (value, usual) in arguments.items() if value != usual)


def imported(path: str) -> Any:
    r"""Returns what a path such as ``package.module:Class`` names; the current directory is importable.

    Args:
        path (str): The path.

    Raises:
        ImportError: If the module does not import, with its own error.
        ValueError: If there is no such name in it.

    Example:
        >>> imported("collections:OrderedDict")
        <class 'collections.OrderedDict'>
    """
    module_name, _, names = (part.strip() for part in path.partition(":"))
    parts = [*module_name.split("."), *names.split(".")]
    if not all(part.isidentifier() for part in parts):
        raise ValueError(f"Expected package.module:Class (got '{path}'); write e.g. mypkg.nets:MyNet")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as 'python -m' has it
    try:
        thing: Any = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module raises
        raise ImportError(
            f"Expected a module that imports in '{path}' (got {type(error).__name__}: {error}); run from the "
            "folder that holds it, or correct it"
        ) from error
    for name in names.split("."):
        if not hasattr(thing, name):
            there = [other for other, value in vars(thing).items() if callable(value) and other[0] != "_"]
            raise ValueError(
                f"Expected the name of a class in '{module_name}' (got '{names}'); write package.module:Class"
                f"{nearest(name, there)}"
            )
        thing = getattr(thing, name)
    return thing


def check_arguments(factories: Sequence[Callable[..., Any]], kwargs: Iterable[str], given: int = 2) -> None:
    r"""Looks whether arguments are among those that classes or factories take.

    Args:
        factories (list of Callable): The classes or factories; it is enough that one takes an argument.
        kwargs (list of str): Names of arguments.
        given (int, optional): How many leading arguments come from elsewhere. (default: :obj:`2`)

    Raises:
        ValueError: If one is not, with those that are and the nearest of them.
    """
    known: list[str] = []
    for factory in factories:
        parameters = inspect.signature(factory).parameters
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            return
        known += [name for name in list(parameters)[given:] if name not in known]
    wrong = [name for name in kwargs if name not in known]
    if wrong:
        title = " * ".join(_title(factory) for factory in factories)
        takes = f"it takes {_quoted(known)}" if known else "it takes none"
        raise ValueError(
            f"Expected arguments of {title} (got {_quoted(wrong)}); {takes}{nearest(wrong[0], known)}"
        )


class Factor(NamedTuple):
    r"""A class by name, and what the name says of its arguments.

    Args:
        cls (type): The class.
        arguments (dict): The arguments, in the order of the class.
        path (str, optional): Where a class of one's own is, as :func:`imported` takes it.
            (default: :obj:`None`)
    """

    cls: type[Any]
    arguments: dict[str, Any]
    path: str | None = None

    @property
    def factors(self) -> Iterator[Factor]:
        r"""Itself."""
        yield self

    def text(self, name: str) -> str:
        r"""Returns what reads as this, with a name of its class."""
        said = ",".join(f"{argument}={shown(value)}" for argument, value in self.arguments.items())
        return name + (f"[{said}]" if said else "")


class Joined(NamedTuple):
    r"""Several classes, joined by ``*``, ``+`` or ``|``.

    Args:
        operator (str): The sign.
        parts (list): What it joins: each a :class:`Factor` or another :class:`Joined`.
    """

    operator: str
    parts: list[Factor | Joined]

    @property
    def factors(self) -> Iterator[Factor]:
        r"""All classes in it, from left to right."""
        for part in self.parts:
            yield from part.factors


@dataclass
class Catalogue(Generic[T]):
    r"""Classes by name: what turns a name, a class or a factory into an object.

    Args:
        kind (type): The class above them all.
        classes (dict): The classes by name.
        sizes (tuple of str): The two arguments that come from whoever asks, which are attributes as well.
        aliases (dict): Further names, as :func:`normalized` returns them, and what they stand for.
        orders (dict, optional): The same of names with a number in them: patterns and templates.
            (default: :obj:`{}`)
        joins (dict, optional): What ``*``, ``+`` and ``|`` make of objects; the parts of the last share the
            second size. (default: :obj:`{}`)
        abstract (tuple of type, optional): Classes that nobody can ask for. (default: :obj:`()`)
        others (tuple of str, optional): What may be said as well, and is not read here. (default: :obj:`()`)
    """

    kind: type[T]
    classes: dict[str, type[T]]
    sizes: tuple[str, str]
    aliases: dict[str, str]
    orders: Mapping[str, str] = field(default_factory=dict)
    joins: Mapping[str, Callable[..., T]] = field(default_factory=dict)
    abstract: tuple[type, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def noun(self) -> str:
        r"""What it holds, in lower case."""
        return self.kind.__name__.lower()

    @property
    def choices(self) -> list[str]:
        r"""The names of all classes, sorted, and of what else may be said."""
        return [*sorted(self.classes), *self.others]

    @property
    def spellings(self) -> list[str]:
        r"""How people write these names, and all others."""
        return [*map(snake, self.classes), *self.aliases]

    def resolve(self, thing: Any, *sizes: int, **kwargs: Any) -> T:
        r"""Builds an object from whatever names one.

        Args:
            thing (str or type or Callable or object): A text in the grammar, a class, a factory called with
                both sizes, or an object, which is returned after a look at its sizes.
            *sizes (int): The two sizes.
            **kwargs (optional): Further arguments. Of several names, each takes those that it knows; what it
                has in brackets goes before them.

        Raises:
            ValueError: If the name or an argument is unknown, or sizes differ.
            TypeError: If it is nothing that could be meant.
        """
        noun, name = self.noun, self.kind.__name__
        if isinstance(thing, str):
            tree = self.read(thing)
            check_arguments([factor.cls for factor in tree.factors], kwargs)
            return self._build(tree, sizes, kwargs)
        if isinstance(thing, self.kind):
            if kwargs:
                raise ValueError(
                    f"Expected no arguments beside a {noun} that is built already (got {_quoted(kwargs)}); "
                    f"pass them to its class"
                )
            built = thing
        else:
            if isinstance(thing, type) and (not issubclass(thing, self.kind) or thing in self.abstract):
                raise TypeError(
                    f"Expected a concrete subclass of '{name}' (got {thing!r}); derive one from it"
                )
            if not callable(thing) or (not isinstance(thing, type) and hasattr(thing, "parameters")):
                raise TypeError(  # a module is no factory
                    f"Expected a {noun}: a name, a class, a factory or a '{name}' (got {thing!r}); names are "
                    f"{', '.join(self.choices)}"
                )
            built = self._made(thing, sizes, kwargs)
        if tuple(getattr(built, size) for size in self.sizes) != sizes:
            wanted = ", ".join(f"{size}={value}" for size, value in zip(self.sizes, sizes, strict=True))
            raise ValueError(
                f"Expected a {noun} of {wanted} (got {built!r}); build it for this layer, or pass its class"
            )
        return built

    def _made(self, factory: Callable[..., Any], sizes: tuple[int, ...], kwargs: dict[str, Any]) -> T:
        called, name = ", ".join(self.sizes), self.kind.__name__
        try:
            inspect.signature(factory).bind(*sizes)
        except (TypeError, ValueError) as error:  # functions written in C have no signature
            raise TypeError(
                f"Expected a class or a factory called with ({called}) (got {factory!r}: {error}); write it "
                f"as lambda {called}: ..."
            ) from None
        check_arguments([factory], kwargs)
        try:
            built = factory(*sizes, **kwargs)
        except AttributeError as error:
            if isinstance(factory, type):
                raise
            raise TypeError(
                f"Expected a factory that is called with ({called}) and returns a '{name}' (got {factory!r}: "
                f"{error}); a formula of tokens belongs into a method of a class"
            ) from error
        if not isinstance(built, self.kind):
            raise TypeError(
                f"Expected {factory!r} to return a '{name}' (got {built!r}); return what it builds"
            )
        if not all(hasattr(built, size) for size in self.sizes):
            raise TypeError(
                f"Expected '{type(built).__name__}' to know its {' and '.join(self.sizes)} (got one that "
                f"does not); call super().__init__({called}) first in its constructor"
            )
        return built

    def _build(self, tree: Factor | Joined, sizes: tuple[int, ...], kwargs: dict[str, Any]) -> T:
        if isinstance(tree, Joined):
            each = self._dealt(tree, sizes) if tree.operator == "|" else [sizes] * len(tree.parts)
            built_parts = (self._build(part, own, kwargs) for part, own in zip(tree.parts, each, strict=True))
            return self.joins[tree.operator](*built_parts)
        known = inspect.signature(tree.cls).parameters
        built: T = tree.cls(*sizes, **{k: v for k, v in kwargs.items() if k in known} | tree.arguments)
        return built

    def _dealt(self, tree: Joined, sizes: tuple[int, ...]) -> list[tuple[int, ...]]:
        (*others, total), count = sizes, len(tree.parts)
        if total < count:
            raise ValueError(
                f"Expected {self.sizes[-1]} for each of {count} {self.noun}s that stand between '|' (got "
                f"{total}); have at least {count}, also in the last layer, or leave some out"
            )
        return [(*others, total // count + (place < total % count)) for place in range(count)]

    def read(self, text: str) -> Factor | Joined:
        r"""Returns what a text in the grammar means.

        Args:
            text (str): The text.

        Raises:
            UnknownName: If there is no such class.
            ValueError: If an argument is unknown, or its value, or the text is none of this grammar.
        """
        pieces = re.findall(r"[()+*|]|\[[^][]*\]|[^][()+*|]+|[][]", text)
        tokens = [piece.strip() for piece in pieces if piece.strip()]
        signs = [sign for sign in "|+*" if sign in self.joins]

        def joined(level: int) -> Factor | Joined:
            if level == len(signs):
                return factor()
            parts = [joined(level + 1)]
            while tokens[:1] == [signs[level]]:
                tokens.pop(0)
                parts.append(joined(level + 1))
            return parts[0] if len(parts) == 1 else Joined(signs[level], parts)

        def factor() -> Factor | Joined:
            if signs and tokens[:1] == ["("]:
                tokens.pop(0)
                inner = joined(0)
                tokens[:1] = [] if tokens[:1] == [")"] else ["("]  # what is left is an error
                return inner
            name = tokens.pop(0) if tokens and tokens[0][0] not in "()[]+*|" else ""
            if not name and text.strip():  # the empty name alone would not say where it is missing
                what = f"the name of a {self.noun} at each place of '{text}'"
                unknown(what, name, self.choices)
            found = self._find(name)
            if tokens and tokens[0][0] == "[" and len(tokens[0]) > 1:
                found = _with_arguments(found, tokens.pop(0)[1:-1], text)
            return found

        try:
            tree = joined(0)
        except RecursionError:
            raise ValueError(
                f"Expected a {self.noun} with few brackets inside each other (got {text.count('(')} in "
                f"'{text[:20]}...'); leave out those that change nothing"
            ) from None
        if tokens:
            example = ", joined by '*' and '+', e.g. rbf[lengthscale=2]*l1.5" if signs else ""
            raise ValueError(
                f"Expected a {self.noun} as NAME[ARGUMENT=VALUE,...]{example} (got '{text}'); "
                f"'{tokens[0]}' does not fit"
            )
        return tree

    def _find(self, name: str) -> Factor:
        if ":" in name:
            cls = imported(path := re.sub(r"\s", "", name))
            if not (isinstance(cls, type) and issubclass(cls, self.kind)) or cls in self.abstract:
                raise ValueError(
                    f"Expected a concrete subclass of '{self.kind.__name__}' (got {cls!r} at '{path}'); name "
                    "one"
                )
            return Factor(cls, {}, path)
        wanted = normalized(name)
        for choice, cls in self.classes.items():
            if normalized(choice) == wanted:
                return Factor(cls, {})
        meant = self.aliases.get(wanted)
        for pattern, template in self.orders.items():
            if match := re.fullmatch(pattern, name.strip().lower()):
                meant = match.expand(template)
        if meant is None:
            unknown(f"the name of a {self.noun}", name.strip(), self.choices, self.spellings)
        factor = self.read(meant)
        assert isinstance(factor, Factor)
        return factor


def _with_arguments(factor: Factor, brackets: str, text: str) -> Factor:
    said = arguments_of(factor.cls, brackets, text, given=2)
    arguments = factor.arguments | said
    order = [name for name in inspect.signature(factor.cls).parameters if name in arguments]
    return factor._replace(arguments={name: arguments[name] for name in order})


def arguments_of(factory: Callable[..., Any], brackets: str, text: str, given: int = 0) -> dict[str, Any]:
    r"""Returns the arguments that stand in brackets.

    Args:
        factory (Callable): The class or function whose arguments they are.
        brackets (str): What stands between the brackets.
        text (str): The whole name, for errors.
        given (int, optional): How many leading arguments come from elsewhere. (default: :obj:`0`)

    Raises:
        ValueError: If one is unknown, has no value, or has one of another type.
    """
    kinds = kinds_of(factory, given)
    known = {normalized(name): name for name in kinds}
    title = _title(factory)
    arguments: dict[str, Any] = {}
    for option in brackets.split(","):
        key, _, value = (part.strip() for part in option.partition("="))
        argument = known.get(normalized(key))
        if argument is None or argument in arguments or not value:
            takes = f"takes {', '.join(kinds)}{nearest(key, kinds)}" if kinds else "takes no arguments"
            raise ValueError(
                f"Expected ARGUMENT=VALUE,... in the brackets of '{text}', each once (got '{option}'); "
                f"{title} {takes}"
            )
        where = f"{snake(title)}[{{}}=VALUE]"
        arguments[argument] = converted(argument, kinds[argument], value, where)
    return {name: arguments[name] for name in kinds if name in arguments}


def kinds_of(factory: Callable[..., Any], given: int = 0) -> dict[str, Any]:
    r"""Returns the types of arguments that can be said in brackets: as annotated, else those of defaults.

    Args:
        factory (Callable): The class or function whose arguments they are.
        given (int, optional): How many leading arguments come from elsewhere. (default: :obj:`0`)
    """
    try:
        hints = get_type_hints(factory.__init__ if isinstance(factory, type) else factory)  # type: ignore[misc]
    except (NameError, TypeError):  # annotations that mean nothing at run time
        hints = {}
    kinds = {}
    for name, parameter in list(inspect.signature(factory).parameters.items())[given:]:
        kind = hints.get(name, type(parameter.default))
        if {*get_args(kind), kind} & {*_KINDS}:
            kinds[name] = kind
    return kinds


def _quoted(items: Iterable[Any]) -> str:
    return ", ".join(f"'{item}'" for item in items)


def _title(factory: Callable[..., Any]) -> str:
    named = factory.func if isinstance(factory, functools.partial) else factory
    return getattr(named, "__name__", repr(factory))


def change_of(name: str) -> tuple[str, int, str] | None:
    r"""Returns the graph, the amount and the change that the name of a data set speaks of: see
    :func:`kgat.datasets.changed`.

    Example:
        >>> change_of("Cora-5-labels"), change_of("Cora")
        (('Cora', 5, 'labels'), None)
    """
    match = _CHANGED.fullmatch(name.strip())
    return None if match is None else (match[1], int(match[2]), match[3].lower())
