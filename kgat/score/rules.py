r"""Score rules: how the lifted query and key of one pair become one number.

A rule is a *pair* function of two scalars, summed over the lifted features, and a *link* function
of that sum:

.. math::
    t_{ij} = \sum_{r=1}^{R} w_r \, \mathrm{pair}(q_{ir}, k_{jr}), \qquad
    s_{ij} = \mathrm{link}(t_{ij})

Both are small on purpose: a backend that compiles code needs no more than these two scalar
functions and their derivatives, and a new kernel that runs fused is a new :class:`Pair` or :class:`Link`.
"""

from __future__ import annotations

import functools
import math
import re
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from kgat.score.derive import Expression, read
from kgat.score.scalar import absolute, cos, log, maximum, minimum, sin, where

Argument = float | Tensor  # a constant of a rule; a tensor is per head, shape [H]

# Ops of torch take numbers, text and tensors: there a pair or link goes by its key, which says what it
# computes, and all that is equal has. Those of this module never go, and have their names for keys.
_LIVE: weakref.WeakValueDictionary[tuple[type, str], _Scalars] = weakref.WeakValueDictionary()
_NAMED: dict[tuple[type, str], _Scalars] = {}


def _original(value: Any) -> Any:
    # What a function was written from.
    return getattr(value, "original", value)


class _Scalars:
    # What a pair and a link share: functions of scalars, as they are run and as they are compiled.
    name: str
    function: Callable[..., Tensor]
    derivative: Callable[..., Any] | None
    scalar: Callable[..., Any] | None
    key: str
    reason: str  # why it runs on the eager backend alone, if it does
    operands: ClassVar[int]
    signed = False

    def __post_init__(self) -> None:
        function, derivative = (_original(f) for f in (self.function, self.derivative))
        key = reason = ""
        compiled: Any = None
        slope: Any = None
        try:
            if self.signed:
                raise TypeError("Expected a kernel that cannot be negative")
            expression = Expression(function if self.scalar is None else self.scalar, self.operands)
            slopes = derivative and Expression(derivative, self.operands, self.operands, "d_rule")
            written = expression.function()
            slope = (slopes or expression.derivative()).function()
        except Exception as error:  # noqa: BLE001  # whatever a function of tensors does with symbols
            reason = f"'{self.name}' is not written in scalars ({type(error).__name__}: {error})"
        else:
            compiled = written
            slope.original = derivative
            # A recipe sets keys apart by a stroke, and a key its name by the end of a line.
            name = re.sub(r"[|\s]+", " ", self.name).strip()
            key = f"{name}\n{compiled.text}{slope.text}"
            if self.scalar is None:
                compiled.original, function = function, compiled
        # Around the frozen fields, which hold what was given.
        self.__dict__.update(function=function, derivative=slope, key=key, reason=reason, _compiled=compiled)
        if key:
            _LIVE.setdefault((type(self), key), self)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:  # it never changes, and is told from others by identity
        return self

    def __reduce__(self) -> Any:  # of the functions that were given, those that were written are no one's
        if _NAMED.get((type(self), self.key)) is self:
            return type(self).of_key, (self.key,)
        arguments = (getattr(self, field.name) for field in fields(self) if field.init)  # type: ignore[arg-type]
        return type(self), tuple(_original(value) for value in arguments)

    @property
    def in_scalars(self) -> Callable[..., Any]:
        r"""The function as a compiling backend reads it."""
        compiled: Callable[..., Any] | None = self.__dict__["_compiled"]
        return compiled or self.scalar or self.function

    @classmethod
    def of_key(cls, key: str) -> Self:
        r"""Returns what has this key: the one in use or, where it is gone, one that computes the same.

        Raises:
            ValueError: If the key is not one.
        """
        return _NAMED.get((cls, key)) or _LIVE.get((cls, key)) or _again(cls, key)  # type: ignore


@functools.lru_cache(maxsize=64)
def _again(cls: Any, key: str) -> Any:
    name, _, text = key.partition("\n")
    function, derivative = read(text)
    rule = cls(name, function, derivative=derivative)
    if rule.key != key:
        raise ValueError(f"Expected the key of a rule (got {key!r})")
    return rule


@dataclass(frozen=True, eq=False)
class Pair(_Scalars):
    r"""A scalar function of one lifted query feature and one lifted key feature.

    Written in arithmetic and the functions of :mod:`kgat.score.scalar` it runs fused: its derivative is
    derived (see :mod:`kgat.score.derive`). Written in torch it runs on the eager backend.

    Args:
        name (str): Its name, in messages.
        function (Callable): ``function(x, y, *args)``, twice differentiable almost everywhere, finite at
            ``x == y``.
        derivative (Callable, optional): ``derivative(x, y, *args)`` returns the derivatives by ``x`` and by
            ``y``, as scalars, where that is faster or more accurate than the one that is derived.
            (default: :obj:`None`)
        scalar (Callable, optional): :obj:`function` as scalars, where :obj:`function` itself is in torch, for
            tensors. (default: :obj:`None`)

    Example:
        >>> import torch
        >>> from kgat.score.rules import Pair
        >>> from kgat.score.scalar import absolute
        >>> pair = Pair("abs_difference", lambda x, y: absolute(x - y))
        >>> pair.function(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.0]))
        tensor([2., 0.])
        >>> pair.derivative(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.0]))
        (tensor([-1.,  0.]), tensor([1., -0.]))
    """

    name: str
    function: Callable[..., Tensor]
    derivative: Callable[..., tuple[Any, Any]] | None = None
    scalar: Callable[..., Any] | None = None
    operands: ClassVar[int] = 2


@dataclass(frozen=True, eq=False)
class Link(_Scalars):
    r"""A scalar function of the summed pairs, with the finite feature map it allows, if any.

    Args:
        name (str): Its name.
        function (Callable): ``function(t, *args)``, as of :class:`Pair`. Written in torch, it is applied to
            the sums of all edges, outside of the fused pass.
        features (Callable, optional): ``features(q, *args)`` maps one side of an inner product to
            :math:`f` with :math:`\langle f(q), f(k) \rangle = \exp(\mathrm{link}(\langle q, k
            \rangle))`. :obj:`None` where no finite map exists. (default: :obj:`None`)
        signed (bool, optional): Whether the kernel behind the link can be negative, so that it has
            no logarithm and only its features can be used. (default: :obj:`False`)
        derivative (Callable, optional): ``derivative(t, *args)``, as of :class:`Pair`. (default: :obj:`None`)
        scalar (Callable, optional): As of :class:`Pair`. (default: :obj:`None`)
        scaled_features (Callable, optional): ``scaled_features(q, *args)`` maps one side to pairs of features
            and the logarithm of what they are to be multiplied with, one per node and head, for features that
            numbers of single precision do not hold: :math:`\sum_p \exp(a_p(q) + a_p(k)) \langle f_p(q),
            f_p(k) \rangle = \exp(\mathrm{link}(\langle q, k \rangle))`. (default: :obj:`None`)

    Example:
        >>> import torch
        >>> from kgat.score.rules import LOG
        >>> LOG.function(torch.tensor(1.0), 0.0)
        tensor(0.)
    """

    name: str
    function: Callable[..., Tensor]
    features: Callable[..., Tensor] | None = None
    signed: bool = False
    derivative: Callable[..., Any] | None = None
    scalar: Callable[..., Any] | None = None
    scaled_features: Callable[..., list[tuple[Tensor, Tensor]]] | None = None
    operands: ClassVar[int] = 1


def log_abs_sinc(x: Tensor) -> Tensor:
    r"""Computes :math:`\log \lvert \sin(x) / x \rvert`, accurate near 0 and finite at its poles.

    Near 0 it is the series :math:`-x^2/6 - x^4/180 - x^6/2835 - \dots`: the direct form loses all
    digits of the *gradient* :math:`\cot x - 1/x` in single precision there. At multiples of
    :math:`\pi` the sine is clamped at :math:`10^{-30}`.

    Args:
        x (torch.Tensor): Any shape.

    Example:
        >>> import torch
        >>> from kgat.score.rules import log_abs_sinc
        >>> log_abs_sinc(torch.tensor([0.0, 1.0]))
        tensor([-0.0000, -0.1726])
    """
    # With six terms the series errs by 6e-17 at 0.25 and 1e-12 at 0.5. Single precision switches
    # later, because log|sin x| - log|x| cancels there: 1e-5 relative at 0.25.
    switch = 0.25 if x.dtype == torch.float64 else 0.5
    near = x.abs() < switch
    x_near = torch.where(near, x, 0.0)
    x_far = torch.where(near, 1.0, x)
    u = x_near * x_near
    series = _polynomial(u, _SERIES)
    direct = x_far.sin().abs().clamp_min(1e-30).log() - x_far.abs().log()
    return torch.where(near, -u * series, direct)


# Of -log(sin(x) / x) in x^2, from its square on.
_SERIES = (1 / 6, 1 / 180, 1 / 2835, 1 / 37800, 1 / 467775, 691 / 3831077250)


def _polynomial(u: Any, terms: Sequence[float]) -> Any:
    total: Any = terms[-1]
    for term in reversed(terms[:-1]):
        total = total * u + term
    return total


def log_square(t: Tensor, eps: Argument) -> Tensor:
    r"""Computes :math:`\log(t^2 + \epsilon)`, also where the square is larger than numbers of its type.

    Args:
        t (torch.Tensor): Any shape.
        eps (float or torch.Tensor): The floor, a number or numbers that broadcast.

    Example:
        >>> import torch
        >>> from kgat.score.rules import log_square
        >>> log_square(torch.tensor([3.0, 1e30]), 1.0)
        tensor([  2.3026, 138.1551])
    """
    # A length, which torch takes without the square; a number is filled in where it is, as a copy would wait.
    root = eps.sqrt() if isinstance(eps, Tensor) else t.new_full((), eps**0.5)
    return 2.0 * torch.hypot(t, root).log()


def square_features(q: Tensor, eps: Argument) -> Tensor:
    r"""Maps :math:`q` to :math:`f` with :math:`\langle f(q), f(k) \rangle = \langle q, k \rangle^2
    + \epsilon`.

    The distinct products :math:`q_a q_b`, those off the diagonal times :math:`\sqrt 2`, and one
    constant :math:`\sqrt\epsilon`: :math:`R (R + 1) / 2 + 1` features.

    Args:
        q (torch.Tensor): Features.
        eps (float or torch.Tensor): The floor; a tensor is per head.

    Shapes:
        - **q:** :math:`(*, H, R)`
        - **output:** :math:`(*, H, R (R + 1) / 2 + 1)`
    """
    row, col = torch.triu_indices(q.size(-1), q.size(-1), device=q.device)
    scale = torch.where(row == col, 1.0, 2.0).to(q.dtype).sqrt()  # a root in q's own precision
    return _append_root(q[..., row] * q[..., col] * scale, eps)


def leaky_relu(t: Tensor, slope: Argument) -> Tensor:
    r"""Computes :math:`\max(t, 0) + \mathrm{slope} \cdot \min(t, 0)`; torch's own takes no slope per head.

    Args:
        t (torch.Tensor): Any shape.
        slope (float or torch.Tensor): A number, or numbers that broadcast.

    Example:
        >>> import torch
        >>> from kgat.score.rules import leaky_relu
        >>> leaky_relu(torch.tensor([-1.0, 2.0]), torch.tensor(0.5))
        tensor([-0.5000,  2.0000])
    """
    return torch.where(t > 0, t, slope * t) if isinstance(slope, Tensor) else F.leaky_relu(t, slope)


def scaled_square_features(q: Tensor, eps: Argument) -> list[tuple[Tensor, Tensor]]:
    r"""As :func:`square_features`, of :math:`q` divided by its largest entry.

    Shapes:
        - **q:** :math:`(*, H, R)`
        - **output:** :math:`(*, H, R (R + 1) / 2 + 1)` and :math:`(*, H)`
    """
    root = torch.as_tensor(eps, dtype=q.dtype, device=q.device).sqrt()
    scale = _largest(q, root.sqrt())  # so that the floor is no feature above 1
    f = square_features(q / scale.unsqueeze(-1), 1.0)
    floor = (root / scale.square()).unsqueeze(-1)
    return [(torch.cat([f[..., :-1], floor], dim=-1), 2.0 * scale.log())]


def _largest(q: Tensor, least: Argument) -> Tensor:
    # What a row is divided by: any number would do, so that it needs no gradient; a broken row breaks itself.
    largest = q.detach().abs().amax(dim=-1) if q.size(-1) else q.new_zeros(q.shape[:-1])
    least = torch.as_tensor(least, dtype=q.dtype, device=q.device)
    return torch.where(largest.isfinite(), torch.maximum(largest, least), 1.0)


MAX_DEGREE = 8  # of a truncated exponential: what its scalars are written out for
MAX_FEATURES = 2**14  # of a truncated exponential: 64 kB a token and head in single precision


def log_truncated_exp(t: Tensor, degree: float) -> Tensor:
    r"""Computes :math:`\log \sum_{n=0}^{p} t^n / n!` for an even :math:`p`, without overflow.

    With :math:`m = \max(|t|, 1)` the sum is :math:`m^p s_p` with :math:`s_0 = 1` and
    :math:`s_n = s_{n-1} / m + (t / m)^n / n!`, all of whose terms are at most 1.

    Args:
        t (torch.Tensor): Any shape.
        degree (float): :math:`p`.

    Example:
        >>> import torch
        >>> from kgat.score.rules import log_truncated_exp
        >>> log_truncated_exp(torch.tensor([0.0, 2.0]), 2).exp()  # 1 + 2 + 4 / 2
        tensor([1., 5.])
    """
    m = t.detach().abs().clamp_min(1.0)  # any m gives the same sum, so no gradient has to flow through it
    x = t / m
    s = term = torch.ones_like(t)
    for n in range(1, int(degree) + 1):
        term = term * x / n
        s = s / m + term
    return degree * m.log() + s.log()


def truncated_exp_features(q: Tensor, degree: float) -> Tensor:
    r"""Maps :math:`q` to :math:`f` with :math:`\langle f(q), f(k) \rangle = \sum_{n=0}^{p} \langle q, k
    \rangle^n / n!`.

    One feature :math:`\prod_r q_r^{i_r} / \sqrt{i_r!}` per multi-index of degree :math:`i_1 + \dots + i_R \le
    p`, by degree: :math:`\binom{R + p}{p}` features.

    Args:
        q (torch.Tensor): Features.
        degree (float): :math:`p`.

    Shapes:
        - **q:** :math:`(*, H, R)`
        - **output:** :math:`(*, H, \binom{R + p}{p})`

    Raises:
        NotImplementedError: If these are more than 16,384 features.
    """
    return torch.cat(_levels(q, degree), dim=-1)


def scaled_truncated_exp_features(q: Tensor, degree: float) -> list[tuple[Tensor, Tensor]]:
    r"""As :func:`truncated_exp_features`, degree by degree, of :math:`q` divided by its largest entry.

    Shapes:
        - **q:** :math:`(*, H, R)`
        - **output:** for each degree :math:`n` up to :math:`p`, :math:`(*, H, \binom{R + n - 1}{n})` and
          :math:`(*, H)`
    """
    scale = _largest(q, torch.finfo(q.dtype).tiny)
    levels = _levels(q / scale.unsqueeze(-1), degree)
    return [(level, n * scale.log()) for n, level in enumerate(levels)]


def _levels(q: Tensor, degree: float) -> list[Tensor]:
    channels, degree = q.size(-1), int(degree)
    size = math.comb(channels + degree, degree)
    if size > MAX_FEATURES:
        raise NotImplementedError(
            f"Expected at most {MAX_FEATURES} features of a truncated exponential (got {size} for {channels} "
            f"channels and degree {degree}); use a lower 'degree', fewer channels per head, or the dense or "
            f"edge route"
        )
    # Level n: the multi-indices of degree n in the channels so far.
    levels = [torch.ones_like(q[..., :1])] + [q[..., :0]] * degree
    for x in q.split(1, dim=-1):
        powers = [torch.ones_like(x)]
        for i in range(1, degree + 1):
            powers.append(powers[-1] * x * i**-0.5)
        levels = [
            torch.cat([levels[n - i] * powers[i] for i in range(n + 1)], dim=-1) for n in range(degree + 1)
        ]
    return levels


def _append_root(f: Tensor, eps: Argument) -> Tensor:
    root = torch.as_tensor(eps, dtype=f.dtype, device=f.device).sqrt()
    return torch.cat([f, root.unsqueeze(-1).expand(*f.shape[:-1], 1)], dim=-1)


# Rules as scalars, and for tensors the functions of torch where these are leaner.


def _log_abs_sinc(x, y):  # type: ignore[no-untyped-def]
    d = x - y
    near = absolute(d) < 0.5
    u = where(near, d * d, 0.0)
    series = _polynomial(u, _SERIES)
    far = where(near, 1.0, absolute(d))
    return where(near, -u * series, log(maximum(absolute(sin(far)), 1e-30) / far))


def _d_log_abs_sinc(x, y):  # type: ignore[no-untyped-def]
    d = x - y
    near = absolute(d) < 0.5
    u = where(near, d * d, 0.0)
    series = _polynomial(u, [2 * n * term for n, term in enumerate(_SERIES, 1)])
    far = where(near, 1.0, d)
    sine = sin(far)
    at_pole = absolute(sine) < 1e-30
    cot = where(at_pole, 0.0, cos(far)) / where(at_pole, 1.0, sine)
    slope = where(near, -d * series, cot - 1.0 / far)
    return slope, -slope


def _leaky_relu(t, slope):  # type: ignore[no-untyped-def]
    return where(t > 0.0, t, slope * t)


FAR = 1e18  # where a square still fits into single precision, and a floor beside it is lost in any


def _log_square(t, eps):  # type: ignore[no-untyped-def]
    # Of what is far, twice the logarithm of the size: its square may be larger than numbers are.
    far = absolute(t) > FAR
    y = log(where(far, absolute(t), t * t + eps))
    return where(far, 2.0 * y, y)


def _log1p(t):  # type: ignore[no-untyped-def]
    # What 1 + t rounds off, divided by the slope there, is put back (t is not negative).
    u = 1.0 + t
    return log(u) + (t - (u - 1.0)) / u


def _truncated_exp(t, degree):  # type: ignore[no-untyped-def]
    # As log_truncated_exp: s_{p-1}, s_p and m. Degrees that are not there repeat the one before.
    m = where(absolute(t) > 1.0, absolute(t), 1.0)
    r = 1.0 / m
    x = t * r
    u = x * x
    before = r + x
    s = before * r + u / 2.0
    term = u * x / 6.0
    for n in (4, 6, 8):
        odd = s * r + term
        even = odd * r + term * x / n
        before, s = where(degree > n - 1, odd, before), where(degree > n - 1, even, s)
        term = term * u / ((n + 1) * n)
    return before, s, m


def _log_truncated_exp(t, degree):  # type: ignore[no-untyped-def]
    _, s, m = _truncated_exp(t, degree)
    return degree * log(m) + log(s)


def _d_log_truncated_exp(t, degree):  # type: ignore[no-untyped-def]
    before, s, m = _truncated_exp(t, degree)
    return before / (s * m)


MUL = Pair("mul", lambda x, y: x * y)
ADD = Pair("add", lambda x, y: x + y)  # with one feature: a number of the query plus one of the key
ABS_DIFFERENCE = Pair("abs_difference", lambda x, y: absolute(x - y))
SQUARED_DIFFERENCE = Pair(
    "squared_difference", lambda x, y: (x - y).square(), scalar=lambda x, y: (x - y) ** 2
)
# By hand, because the derived one takes 1.26 of its time.
LOG_ABS_SINC = Pair("log_abs_sinc", lambda x, y: log_abs_sinc(x - y), _d_log_abs_sinc, _log_abs_sinc)
MINIMUM = Pair("minimum", minimum)
LEAKY_RELU_SUM = Pair(
    "leaky_relu_sum",
    lambda x, y, slope: leaky_relu(x + y, slope),
    scalar=lambda x, y, slope: _leaky_relu(x + y, slope),
)

IDENTITY = Link("identity", lambda t: t)
LEAKY_RELU = Link("leaky_relu", leaky_relu, scalar=_leaky_relu)
RELU = Link("relu", F.relu, scalar=lambda t: maximum(t, 0.0))
LOG = Link("log", lambda t, eps: log(t + eps), _append_root)
LOG_SQUARE = Link(
    "log_square",
    log_square,
    square_features,
    scalar=_log_square,
    scaled_features=scaled_square_features,
)
HALF_LOG = Link("half_log", lambda t, eps: 0.5 * log(t + eps))
RATIONAL_QUADRATIC = Link(
    "rational_quadratic",
    lambda t, alpha: -alpha * t.log1p(),
    scalar=lambda t, alpha: -alpha * _log1p(t),
)
# By hand, because the derived one takes 1.9 of its time: m gives the same sum whatever it is.
TRUNCATED_EXP = Link(
    "truncated_exp",
    log_truncated_exp,
    truncated_exp_features,
    derivative=_d_log_truncated_exp,
    scalar=_log_truncated_exp,
    scaled_features=scaled_truncated_exp_features,
)
DROPOUT = Link("dropout", F.dropout)  # not in scalars on purpose: a fused backward computes scores again
SIGNED = Link("signed", lambda t: t, features=lambda q: q, signed=True)

for _rule in (
    *(MUL, ADD, ABS_DIFFERENCE, SQUARED_DIFFERENCE, LOG_ABS_SINC, MINIMUM, LEAKY_RELU_SUM, IDENTITY),
    *(LEAKY_RELU, RELU, LOG, LOG_SQUARE, HALF_LOG, RATIONAL_QUADRATIC, TRUNCATED_EXP),
):
    _rule.__dict__["key"] = _rule.name
    _NAMED[type(_rule), _rule.name] = _rule


def _per_feature(args: tuple[Argument, ...]) -> tuple[Argument, ...]:
    # Beside [..., H, R], a constant per head is the same for all features.
    if not any(isinstance(arg, Tensor) for arg in args):
        return args
    return tuple(arg.unsqueeze(-1) if isinstance(arg, Tensor) and arg.dim() else arg for arg in args)


class ScoreRule:
    r"""One pair function, one link, and the constants they take.

    .. math::
        s = \mathrm{link}\Big( \sum_r w_r \, \mathrm{pair}(q_r, k_r) \;[\, + c \,] \Big) \;[\, + c
        \,]

    Args:
        pair (Pair, optional): (default: :obj:`MUL`)
        link (Link, optional): (default: :obj:`IDENTITY`)
        weight (float or torch.Tensor, optional): :math:`w`, a number, or a tensor that broadcasts to
            :math:`(H, R)`: :math:`(R)` and :math:`(1, R)` are shared by all heads, :math:`(H, 1)` by all
            features. Other shapes are refused where attention is computed. (default: :obj:`1.0`)
        pair_args (tuple, optional): Constants of the pair function, as many as it takes. Each is a number, or
            a tensor of shape :math:`(H)`, one number per head. (default: :obj:`()`)
        link_args (tuple, optional): Constants of the link, likewise. (default: :obj:`()`)
        edge_bias_inside (bool, optional): Whether an edge bias :math:`c` joins before the link, as
            the edge term of GAT does. (default: :obj:`False`)

    Shapes:
        - **query, key:** :math:`(*, H, R)`, broadcast against each other
        - **score:** :math:`(*, H)`

    Example:
        >>> import torch
        >>> from kgat.score.rules import ABS_DIFFERENCE, ScoreRule
        >>> rule = ScoreRule(ABS_DIFFERENCE, weight=-1.0)
        >>> rule(torch.zeros(1, 1, 3), torch.ones(1, 1, 3))
        tensor([[-3.]])
    """

    # A plain class, and no pair or link among the defaults: torch.compile traces through this, and cannot
    # through a dataclass whose defaults are objects.
    def __init__(
        self,
        pair: Pair | None = None,
        link: Link | None = None,
        weight: float | Tensor = 1.0,
        pair_args: tuple[Argument, ...] = (),
        link_args: tuple[Argument, ...] = (),
        edge_bias_inside: bool = False,
    ) -> None:
        self.pair = MUL if pair is None else pair
        self.link = IDENTITY if link is None else link
        self.weight = weight
        self.pair_args = pair_args
        self.link_args = link_args
        self.edge_bias_inside = edge_bias_inside

    def __call__(self, query: Tensor, key: Tensor, edge_bias: Tensor | None = None) -> Tensor:
        terms = self.pair.function(query, key, *_per_feature(self.pair_args))  # [..., H, R]
        if isinstance(self.weight, Tensor):
            total = (terms * self.weight).sum(dim=-1)
        else:
            total = terms.sum(dim=-1)
        return self.finish(total, edge_bias)

    def finish(self, total: Tensor, edge_bias: Tensor | None = None) -> Tensor:
        r"""Turns the summed pairs (before a scalar weight) into the score."""
        if not isinstance(self.weight, Tensor) and self.weight != 1.0:
            total = total * self.weight
        if edge_bias is not None and self.edge_bias_inside:
            return self.link.function(total + edge_bias, *self.link_args)
        score = self.link.function(total, *self.link_args)
        return score if edge_bias is None else score + edge_bias

    @property
    def linear(self) -> bool:
        r"""Whether the score is a plain sum over features, so that two such rules can share one
        sum."""
        return self.link is IDENTITY
