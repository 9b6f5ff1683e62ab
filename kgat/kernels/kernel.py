r"""The contract of a kernel, and the algebra: products and sums."""

from __future__ import annotations

import functools
import inspect
import math
import operator
import warnings
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

from kgat.arguments import KnowsArguments
from kgat.capture import without_autocast
from kgat.indices import as_long
from kgat.ops.precision import at_least_single
from kgat.score.gram import Gram, HeadsGram, LazyGram, SumGram


class Context(NamedTuple):
    r"""What few kernels ask for beside queries and keys.

    Args:
        batch (torch.Tensor or (torch.Tensor, torch.Tensor), optional): The graph of each node, or of each
            query and each key; one graph if :obj:`None`. (default: :obj:`None`)
        losses (list of torch.Tensor, optional): Takes what a kernel adds to the loss of its user.
            (default: :obj:`None`)
        present ((torch.Tensor, torch.Tensor), optional): False for queries and for keys that are padding;
            :obj:`None` where none is. (default: :obj:`(None, None)`)
        whole ((torch.Tensor, torch.Tensor, Context), optional): All queries, all keys and their context,
            where those of a call are only some of them, or stand side by side, one per edge: what a kernel
            computes from a whole side, such as a mean, is that of these. (default: :obj:`None`)

    Shapes:
        - **batch:** :math:`(N)`, or :math:`(N)` and :math:`(M)`
        - **present:** :math:`(*, N)` and :math:`(*, M)`
    """

    batch: Tensor | tuple[Tensor, Tensor] | None = None
    losses: list[Tensor] | None = None
    present: tuple[Tensor | None, Tensor | None] = (None, None)
    whole: tuple[Tensor, Tensor, Context] | None = None

    @property
    def graphs(self) -> tuple[Tensor, Tensor] | tuple[None, None]:
        r"""The graph of each query and of each key, as kernels may scatter by it: never int32."""
        of_query, of_key = self.batch if isinstance(self.batch, tuple) else (self.batch, self.batch)
        if of_query is None or of_key is None:
            return None, None
        long = as_long(of_query)
        return long, long if of_key is of_query else as_long(of_key)  # one tensor stays one

    def batch_at(self, row: Tensor, col: Tensor) -> tuple[Tensor, Tensor] | None:
        r"""Returns the graphs of some queries and some keys."""
        of_query, of_key = self.graphs
        if of_query is None or of_key is None:
            return None
        return of_query.index_select(0, row), of_key.index_select(0, col)


NOTHING = Context()

# The methods that a kernel is written as, and what is said of the one that it is.
WAYS = {"forward", "lift", "lift_within", "score"}
HOOKS = ("of_features", "stock", "masked_by_bias")


class Kernel(KnowsArguments):
    r"""A similarity of queries and keys, in log space: :math:`\mathrm{score} = \log k(\mathbf{q},
    \mathbf{k})`.

    Softmax of the score over the keys is the kernel smoother
    :math:`\sum_j k(\mathbf{q}_i, \mathbf{k}_j) \mathbf{v}_j / \sum_j k(\mathbf{q}_i,
    \mathbf{k}_j)`. A kernel owns the parameters of the similarity and nothing else: it knows no
    edges, values or softmax.

    Write one by overriding *one* method. :meth:`score` is the simple way: it broadcasts over
    leading dimensions and reduces the last. :meth:`lift` is the fast way: it transforms queries and
    keys on nodes and names the rule that combines a pair. Then ``kernel(query, key)`` is a
    :class:`~kgat.score.gram.LazyGram`, and ``k1 * k2`` and ``k1 + k2`` are kernels again.

    Three hooks tell layers more: :meth:`of_features` how to score projections without them, ``stock``, a
    pair, which layer of PyG has this score and what it calls the parameters, and ``masked_by_bias`` whether
    an edge bias of minus infinity takes an edge out. They speak of one :meth:`lift`: a subclass that
    overrides it has none of them, unless it says them anew.

    Inputs in half precision are raised to single precision and autocast is off while lifting: a
    score goes through an exponential, where bfloat16 keeps no digits.

    What follows holds for every kernel; its own docstring says the rest: formula, paper, when to use it, and
    arguments of its own.

    Args:
        channels (int): Channels per head :math:`D`.
        heads (int, optional): Number of heads :math:`H`. (default: :obj:`1`)

    Shapes:
        - **query:** :math:`(*, N, H, D)`, **key:** :math:`(*, M, H, D)`
        - **score:** :math:`(E, H)` at edges, :math:`(*, N, M, H)` dense
        - **features**, where there are some: :math:`(*, N, H, R)` and :math:`(*, M, H, R)`

    Raises:
        ValueError: If query or key do not end in ``[heads, channels]``.

    Example:
        >>> import torch
        >>> from kgat.kernels import Kernel
        >>> class Triangle(Kernel):
        ...     def score(self, query, key):
        ...         return -(query - key).abs().amax(dim=-1)
        >>> kernel = Triangle(channels=4, heads=2)
        >>> gram = kernel(torch.zeros(3, 2, 4), torch.ones(5, 2, 4))
        >>> gram.dense().shape
        torch.Size([3, 5, 2])
        >>> gram.at(torch.tensor([0]), torch.tensor([1]))
        tensor([[-1., -1.]])
    """

    # Claims that check_kernel verifies: k(q, k) = k(k, q); a Gram matrix without negative
    # eigenvalues; k(q + c, k + c) = k(q, k). They speak of the kernel: attention is asymmetric as
    # soon as queries and keys are projected apart.
    symmetric: bool = False
    positive_definite: bool = False
    translation_invariant: bool = False

    # Whether it adds a penalty to the losses of its context.
    penalised: bool = False

    # Whether an edge bias of minus infinity takes an edge out of a softmax, also where it joins inside.
    masked_by_bias: bool = False

    # Parameters for which zero is no place to rest, such as frequencies (the kernel is constant there),
    # logarithms and exponents: a trainer may spare them weight decay.
    undecayed: tuple[str, ...] = ()

    # Whether a layer may scale its inputs: not those of networks, which learn their scale and start as in
    # their papers, nor those of kernels whose scores do not depend on it. The number is below.
    scalable: bool = True

    # What queries and keys are multiplied by, one number per head: by it a layer gives scores the start that
    # it wants, see kgat.nn.start. Part of the state where there is one.
    input_scale: Tensor | None

    # The layer of PyG whose score this is, and the names of its parameters there: checkpoints of one are read
    # and written in the names of the other.
    stock: ClassVar[tuple[str, dict[str, str]]] = ("", {})

    _lift_takes_context: ClassVar[bool] = False

    # Of a class whose score took the place of one.
    _replaced_lift: ClassVar[Callable[..., Gram] | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "lift_within" in vars(cls):
            warnings.warn(
                f"'{cls.__name__}.lift_within' is an old name: override 'lift(query, key, context=NOTHING)'",
                FutureWarning,
                stacklevel=2,
            )
        # Of classes that say how a pair is scored the nearest one counts, also one that is mixed in.
        depth, ways = next((i, w) for i, base in enumerate(cls.__mro__) if (w := vars(base).keys() & WAYS))
        above = [base for base in cls.__mro__[depth + 1 :] if base is not Kernel]
        # A lift beside a score asks for the score, whose it is; any other would be run in its place.
        if ways == {"score"} and not any("score" in vars(base) for base in above):
            cls._replace_lift()
        for hook in HOOKS:
            if all(
                hook not in vars(base) for base in cls.__mro__[: depth + 1]
            ):  # it was said of another lift
                setattr(cls, hook, vars(Kernel)[hook])
        cls._lift_takes_context = _takes_context(cls.lift)

    @classmethod
    def _replace_lift(cls) -> None:
        for route in ("forward", "lift_within"):
            if getattr(cls, route) is not getattr(Kernel, route):
                raise TypeError(
                    f"Expected no 'score' in '{cls.__name__}' (got one below a class with its own '{route}', "
                    f"which may not ask for it); override '{route}', or derive from Kernel"
                )
        if cls.lift is not Kernel.lift:
            cls._replaced_lift = cls.lift
            cls.lift = Kernel.lift  # type: ignore[method-assign]
            cls.penalised = False  # a score has no losses to add to

    def __init__(self, channels: int, heads: int = 1) -> None:
        super().__init__()
        if channels < 1 or heads < 1:
            raise ValueError(
                f"Expected positive 'channels' and 'heads' (got channels={channels}, heads={heads}); a head "
                f"has one channel at least"
            )
        self.channels = channels
        self.heads = heads
        self.register_buffer("input_scale", None)
        self._starts: dict[str, float] = {}

    def learn(self, **initial: float) -> None:
        r"""Adds learned numbers, one per head, of shape :math:`(H, 1)`.

        Args:
            **initial (float): Their names and what they start from.
        """
        for name, value in initial.items():
            setattr(self, f"initial_{name}", value)
            self._starts[name] = start = float(number(name, value, 1e18))
            self.register_parameter(name, Parameter(torch.full((self.heads, 1), start)))

    def learn_positive(self, **initial: float) -> None:
        r"""Adds learned numbers, one per head, that stay positive: a parameter ``log_NAME`` of shape
        :math:`(H, 1)` holds the logarithm, and is spared weight decay.

        Args:
            **initial (float): Their names and what they start from.
        """
        for name, value in initial.items():
            positive(name, value, squared=True)
            self.learn(**{f"log_{name}": math.log(value)})
            setattr(self, f"initial_{name}", value)
            self.undecayed = tuple(dict.fromkeys((*self.undecayed, f"log_{name}")))

    def reset_parameters(self) -> None:
        r"""Draws all learnable parameters (and random buffers) anew; the default has the numbers of
        :meth:`learn` start again, and calls :meth:`resample`."""
        for name, value in self._starts.items():
            torch.nn.init.constant_(getattr(self, name), value)
        self.resample()

    def resample(self, generator: torch.Generator | None = None) -> None:
        r"""Draws all random buffers anew; a kernel without any has nothing to do.

        Args:
            generator (torch.Generator, optional): Source of the numbers; torch's global one if
                :obj:`None`. (default: :obj:`None`)
        """

    def forward(self, query: Tensor, key: Tensor, context: Context = NOTHING) -> Gram:
        r"""Returns the lazy Gram matrix of :obj:`query` and :obj:`key`.

        Args:
            query (torch.Tensor): Queries.
            key (torch.Tensor): Keys.
            context (Context, optional): The graphs of a batch, and where penalties go; most kernels need
                neither. (default: :obj:`Context()`)

        Shapes:
            - **query:** :math:`(*, N, H, D)`, **key:** :math:`(*, M, H, D)`
        """
        for name, x in (("query", query), ("key", key)):
            if x.dim() < 3 or x.shape[-2:] != (self.heads, self.channels):
                raise ValueError(
                    f"Expected '{name}' of shape [..., nodes, heads={self.heads}, "
                    f"channels={self.channels}] (got {list(x.shape)}); build the kernel with the "
                    f"heads and channels of its input"
                )
        with without_autocast(query.device):
            sides = self.scaled(at_least_single(query), at_least_single(key))
            if context.whole is not None and self.input_scale is not None:
                query, key, own = context.whole
                whole = *self.scaled(at_least_single(query), at_least_single(key)), own
                context = context._replace(whole=whole)
            if type(self).lift_within is not Kernel.lift_within:
                return self.lift_within(*sides, context)
            return self._lifted(*sides, context)

    def scaled(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns what :meth:`lift` is given: both sides times :attr:`input_scale`, if there is one."""
        if self.input_scale is None:
            return query, key
        scale = self.input_scale.to(query.dtype)
        by_query = query * scale
        return by_query, by_query if key is query else key * scale

    def lift(self, query: Tensor, key: Tensor) -> Gram:
        r"""Transforms queries and keys on nodes; the default leaves them as they are and calls
        :meth:`score` on every pair.

        A kernel that depends on the graph of a node, on means or other numbers of a whole side (those of
        ``context.whole``, where it is there) or has a penalty takes a third argument, ``context: Context =
        NOTHING``, and appends the penalty to ``context.losses`` where there is such a list.
        """
        if type(self).score is Kernel.score:
            raise NotImplementedError(
                f"Expected '{type(self).__name__}' to override 'score' or 'lift' (got neither); "
                f"'score(query, key)' broadcasts over leading dimensions and reduces the last"
            )
        return LazyGram.of(query, key, self.score)

    def _lifted(self, query: Tensor, key: Tensor, context: Context) -> Gram:
        if self._lift_takes_context:
            return self.lift(query, key, context)  # type: ignore[call-arg]
        return self.lift(query, key)

    lift_within = _lifted  # as it was called by kernels that take a context

    def of_features(
        self, x_query: Tensor, weight_query: Tensor, x_key: Tensor, weight_key: Tensor
    ) -> Gram | None:
        r"""Returns the Gram matrix of the queries :math:`\mathbf{W}_q \mathbf{x}_i` and the keys
        :math:`\mathbf{W}_k \mathbf{x}_j` from features and weights, of a kernel that needs no projections and
        is cheaper without; else :obj:`None`, and it is called with the projections.

        Args:
            x_query (torch.Tensor): Features of queries, in single or double precision.
            weight_query (torch.Tensor): :math:`\mathbf{W}_q`.
            x_key (torch.Tensor): Features of keys.
            weight_key (torch.Tensor): :math:`\mathbf{W}_k`.

        Shapes:
            - **x_query:** :math:`(N, F)`, **weight_query:** :math:`(H D, F)`
            - **x_key:** :math:`(M, F)`, **weight_key:** :math:`(H D, F)`
        """
        return None

    def score(self, query: Tensor, key: Tensor) -> Tensor:
        r"""Returns the scores of operands that stand side by side.

        Shapes:
            - **query, key:** :math:`(*, H, D)`, broadcast against each other
            - **score:** :math:`(*, H)`

        Raises:
            NotImplementedError: If a score of a subclass asks for this one, where it depends on more than the
                pair.
        """
        lift = self._replaced_lift
        if lift is None:
            return self(query, key).paired()
        # Of operands that are scaled, and some of all: one after another, and once more in backward.
        for part in self.modules():
            if isinstance(part, Kernel) and not isinstance(part, _OfParts):
                replaced = part._replaced_lift
                if part._lift_takes_context or (replaced and _takes_context(replaced)):
                    raise NotImplementedError(
                        f"Expected a 'score' that does not ask for that of the class above (got "
                        f"'{type(self).__name__}'), which depends on more than the pair; override "
                        f"'lift(query, key, context=NOTHING)' and change what 'super().lift' returns"
                    )
        return lift(query, key).paired()

    def __mul__(self, other: Kernel) -> Product:
        return Product(self, other) if isinstance(other, Kernel) else NotImplemented

    def __add__(self, other: Kernel) -> Sum:
        return Sum(self, other) if isinstance(other, Kernel) else NotImplemented

    def extra_repr(self) -> str:
        return self._shown("channels", "heads")


def _takes_context(lift: Callable[..., Gram]) -> bool:
    return "context" in inspect.signature(lift).parameters


def _of_all(claim: str) -> property:
    return property(lambda self: all(getattr(kernel, claim) for kernel in self.parts))


class _OfParts(Kernel):
    def __init__(self, channels: int, heads: int, kernels: Sequence[Kernel]) -> None:
        super().__init__(channels, heads)
        self.kernels = torch.nn.ModuleList(kernels)

    @property
    def parts(self) -> list[Kernel]:
        r"""The kernels it is made of."""
        return list(self.kernels)  # type: ignore[arg-type]

    # Asked anew each time: a learned part may gain or lose a property.
    symmetric = _of_all("symmetric")  # type: ignore[assignment]
    positive_definite = _of_all("positive_definite")  # type: ignore[assignment]
    translation_invariant = _of_all("translation_invariant")  # type: ignore[assignment]

    @property
    def penalised(self) -> bool:  # type: ignore[override]
        return any(kernel.penalised for kernel in self.parts)

    def reset_parameters(self) -> None:
        for kernel in self.parts:
            kernel.reset_parameters()

    def resample(self, generator: torch.Generator | None = None) -> None:
        for kernel in self.parts:
            kernel.resample(generator)


def _first(owner: Kernel, kernels: Sequence[Kernel]) -> Kernel:
    if not kernels:
        raise ValueError(
            f"Expected at least one kernel for '{type(owner).__name__}' (got none); pass one or more"
        )
    return kernels[0]


class _Composite(_OfParts):
    def __init__(self, *kernels: Kernel) -> None:
        first = _first(self, kernels)
        flat: list[Kernel] = []
        for kernel in kernels:
            if (kernel.channels, kernel.heads) != (first.channels, first.heads):
                raise ValueError(
                    f"Expected kernels of equal channels and heads (got {first!r} and {kernel!r}); "
                    f"build both for the same layer"
                )
            flat += kernel.parts if type(kernel) is type(self) else [kernel]  # type: ignore[attr-defined]
        super().__init__(first.channels, first.heads, flat)


class Product(_Composite):
    r"""The product of kernels: scores add.

    .. math::
        \log k(\mathbf{q}, \mathbf{k}) = \sum_m \log k_m(\mathbf{q}, \mathbf{k})

    Parts whose rules are sums over features merge into one; a magnitude only adds node biases.

    Use it when two similarities must both hold, or to give one a :class:`Magnitude`.

    Args:
        *kernels (Kernel): The factors, of equal channels and heads.

    Raises:
        ValueError: If channels or heads differ.

    Example:
        >>> from kgat.kernels import RBF, Magnitude, Product
        >>> Product(RBF(8), Magnitude(8))  # the same as RBF(8) * Magnitude(8)
        Product(RBF(8, heads=1) * Magnitude(8, heads=1))
    """

    def lift(self, query: Tensor, key: Tensor, context: Context = NOTHING) -> Gram:
        return functools.reduce(operator.mul, (kernel(query, key, context) for kernel in self.parts))

    def __repr__(self) -> str:
        return f"Product({' * '.join(repr(k) for k in self.parts)})"


class Sum(_Composite):
    r"""The sum of kernels: log-sum-exp of the scores.

    .. math::
        \log k(\mathbf{q}, \mathbf{k}) = \log \sum_m k_m(\mathbf{q}, \mathbf{k})

    Use it when either of two similarities is enough.

    Args:
        *kernels (Kernel): The summands, of equal channels and heads.

    Raises:
        ValueError: If channels or heads differ.

    Example:
        >>> from kgat.kernels import RBF, DotProduct, Sum
        >>> Sum(RBF(8), DotProduct(8))
        Sum(RBF(8, heads=1) + DotProduct(8, heads=1))
    """

    def lift(self, query: Tensor, key: Tensor, context: Context = NOTHING) -> Gram:
        return SumGram(tuple(kernel(query, key, context) for kernel in self.parts))

    def __repr__(self) -> str:
        return f"Sum({' + '.join(repr(k) for k in self.parts)})"


class PerHead(_OfParts):
    r"""Kernels that share the heads of a layer: each has some heads of its own.

    .. math::
        \log k(\mathbf{q}_h, \mathbf{k}_h) = \log k_{m(h)}(\mathbf{q}_h, \mathbf{k}_h)

    Use it when it is not known which similarity fits: what follows the layer weighs the heads. Attention runs
    each of them as it would run alone.

    Args:
        *kernels (Kernel): The kernels, of equal channels; heads in their order.

    Raises:
        ValueError: If channels differ.

    Example:
        >>> from kgat.kernels import RBF, Additive, PerHead
        >>> kernel = PerHead(RBF(8, heads=2), Additive(8, heads=2))  # as resolve("rbf|additive", 8, heads=4)
        >>> kernel, kernel.heads
        (PerHead(RBF(8, heads=2) | Additive(8, heads=2)), 4)
    """

    scalable = False  # its parts are

    def __init__(self, *kernels: Kernel) -> None:
        first = _first(self, kernels)
        if len({kernel.channels for kernel in kernels}) > 1:
            raise ValueError(
                f"Expected kernels of equal channels (got {', '.join(map(repr, kernels))}); build them for "
                "the same layer"
            )
        super().__init__(first.channels, sum(kernel.heads for kernel in kernels), kernels)

    def of_parts(self, x: Tensor) -> tuple[Tensor, ...]:
        r"""Returns what each part is given of queries or keys.

        Shapes:
            - **x:** :math:`(*, N, H, D)`
        """
        return x.split([kernel.heads for kernel in self.parts], dim=-2)

    def lift(self, query: Tensor, key: Tensor, context: Context = NOTHING) -> Gram:
        queries = self.of_parts(query)
        keys = queries if key is query else self.of_parts(key)
        contexts = [context] * len(queries)
        if context.whole is not None:
            q, k, own = context.whole
            sides = zip(self.of_parts(q), self.of_parts(k), strict=True)
            contexts = [context._replace(whole=(*side, own)) for side in sides]
        calls = zip(self.parts, queries, keys, contexts, strict=True)
        return HeadsGram(tuple(kernel(q, k, own) for kernel, q, k, own in calls))

    def __repr__(self) -> str:
        return f"PerHead({' | '.join(repr(k) for k in self.parts)})"


def number(name: str, value: float, most: float = 1e36) -> float:
    r"""Returns a finite number, or says which argument is not one."""
    if not hasattr(value, "__float__") or not abs(value) <= most:
        raise ValueError(f"Expected a finite number as '{name}' (got {value!r}); give one up to {most:g}")
    return value


def positive(name: str, value: float, *, squared: bool = False) -> float:
    r"""Returns a positive number that single precision holds, or its square, or says which is not one."""
    least, most = (1e-18, 1e18) if squared else (1e-36, 1e36)
    if not hasattr(value, "__float__") or not least <= value <= most:
        raise ValueError(f"Expected a positive '{name}' (got {value!r}); give one from {least:g} to {most:g}")
    return value


def whole(name: str, value: float) -> int:
    r"""Returns a positive whole number, or says which argument is not one."""
    if not number(name, value, 2**31) > 0 or value % 1 != 0:
        raise ValueError(f"Expected a whole, positive '{name}' (got {value}); give 1 or more")
    return int(value)
