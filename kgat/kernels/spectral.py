r"""Kernels given by a spectral density: random or learned frequencies."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import Parameter
from torch_geometric.nn.inits import glorot

from kgat.kernels.features import normal, symmetric_uniform
from kgat.kernels.kernel import Kernel, positive, whole
from kgat.names import one_of
from kgat.ops.precision import at_least_single
from kgat.ops.waves import components, waves
from kgat.score.gram import LazyGram
from kgat.score.rules import LOG_SQUARE, SIGNED, ScoreRule

INITS = ("dot", "official")


class RandomFourier(Kernel):
    r"""Random Fourier features of a translation-invariant kernel, as in `"Random Features for Large-Scale
    Kernel Machines"
    <https://papers.nips.cc/paper/3182-random-features-for-large-scale-kernel-machines>`_; the
    fixed-density case of `"Implicit Kernel Attention" <https://arxiv.org/abs/2006.06147>`_.

    .. math::
        \kappa(\mathbf{q}, \mathbf{k}) = \frac{1}{S} \sum_{s=1}^{S} \cos \big( 2 \pi \,
        \boldsymbol{\omega}_s^\top (\mathbf{q} - \mathbf{k}) \big), \qquad 2 \pi \ell \,
        \boldsymbol{\omega}_s \sim \text{law}

    An unbiased estimate of the kernel whose Fourier transform the law is:

    * :obj:`"normal"`: standard normal; :class:`RBF` of lengthscale :math:`\ell`,
    * :obj:`"cauchy"`: standard Cauchy in each channel; :class:`Laplace` of lengthscale :math:`\ell`,
    * :obj:`"sinc4"`, and so for any power: the sum of four uniform numbers of :math:`(-1, 1)` in each
      channel; :class:`SincProduct` of that power and :math:`R = 1 / \ell`.

    It can be negative, so it has no logarithm: the Gram matrix refuses scores and offers features. Its
    square, with a floor, :math:`k = \kappa^2 + \epsilon`, has scores as well, and estimates the square of
    the kernel: that of an RBF is one of lengthscale :math:`\ell / \sqrt 2`, of a Laplace kernel one of
    :math:`\ell / 2`, of ``"sinc2"`` the kernel of power 4. :class:`Spectral` learns the frequencies.

    Use it when :class:`RBF`, :class:`Laplace` or :class:`SincProduct` must be linear in the number of tokens.
    With ``squared=True`` it has a logarithm and serves attention.

    Args:
        num_features (int, optional): Number :math:`S` of frequencies per head; there are twice as
            many features. (default: :obj:`64`)
        lengthscale (float, optional): :math:`\ell`; if :obj:`None`, the one whose *square* is the kernel at
            its default: :math:`\sqrt 2 D^{1/4}` of a normal law (dot-product attention), :math:`4 \sqrt D`
            of a Cauchy law, :math:`1 / 2` of the others. (default: :obj:`None`)
        law (str, optional): The law of frequencies, see above. (default: :obj:`"normal"`)
        squared (bool, optional): Whether the kernel is :math:`\kappa^2 + \epsilon`, not :math:`\kappa`.
            (default: :obj:`False`)
        eps (float, optional): Floor :math:`\epsilon` of the square, as in :class:`Spectral`.
            (default: :obj:`1e-5`)

    Shapes:
        - **features:** :math:`(*, N, H, 2S)` and :math:`(*, M, H, 2S)`; :math:`S (2S + 1) + 1` if squared
        - **score:** if squared, :math:`(E, H)` at edges, :math:`(*, N, M, H)` dense

    Raises:
        ValueError: If :obj:`num_features`, :obj:`lengthscale` or :obj:`eps` is not positive, or :obj:`law`
            unknown.
        NotImplementedError: If scores are asked for of what is not squared.

    Example:
        >>> import torch
        >>> from kgat.kernels import RandomFourier
        >>> f, g = RandomFourier(4)(torch.randn(3, 1, 4), torch.randn(5, 1, 4)).features()
        >>> f.shape, g.shape
        (torch.Size([3, 1, 128]), torch.Size([5, 1, 128]))
    """

    symmetric = True
    positive_definite = True
    translation_invariant = True
    omega: Tensor

    def __init__(
        self,
        channels: int,
        heads: int = 1,
        num_features: int = 64,
        lengthscale: float | None = None,
        law: str = "normal",
        squared: bool = False,
        eps: float = 1e-5,
    ) -> None:
        super().__init__(channels, heads)
        self.num_features = whole("num_features", num_features)
        self.law = law
        self.power = _power(law)
        default = {"normal": math.sqrt(2.0) * channels**0.25, "cauchy": 4.0 * channels**0.5}.get(law, 0.5)
        self.lengthscale = positive("lengthscale", default if lengthscale is None else lengthscale)
        self.squared = squared
        self.eps = positive("eps", eps)
        self.register_buffer("omega", torch.empty(heads, channels, self.num_features))
        self.reset_parameters()

    def resample(self, generator: torch.Generator | None = None) -> None:
        if self.law == "normal":
            draw = normal(self.omega, generator)
        elif self.law == "cauchy":
            draw = torch.tan(0.5 * math.pi * symmetric_uniform(self.omega, generator))
        else:
            draw = sum(symmetric_uniform(self.omega, generator) for _ in range(self.power))  # type: ignore[assignment]
        self.omega.copy_(draw / (2.0 * math.pi * self.lengthscale))

    def lift(self, query: Tensor, key: Tensor) -> LazyGram:
        f = points(query, self.omega)
        g = f if key is query else points(key, self.omega)
        if self.squared:
            return LazyGram.of(f, g, ScoreRule(link=LOG_SQUARE, link_args=(self.eps,)))
        return LazyGram.of(f, g, ScoreRule(link=SIGNED))


class _LearnedFrequencies(Kernel):
    undecayed = ("omega1", "omega2")
    omega1: Parameter
    omega2: Parameter | None

    def _learn_frequencies(self, width: int, num_features: float, init: str, eps: float, tied: bool) -> None:
        self.num_features = whole("num_features", num_features)
        self.init = one_of("init", init, INITS)
        self.eps = positive("eps", eps)
        self.omega1 = Parameter(torch.empty(self.heads, width, self.num_features))
        self.register_parameter("omega2", None if tied else Parameter(torch.empty_like(self.omega1)))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        heads, channels, size = self.omega1.shape
        if self.init == "official":
            bound = (heads * size) ** -0.5
            for omega in self.frequencies():
                omega.uniform_(-bound, bound)
            return
        std = dot_std(channels)
        self.omega1.normal_(0.0, std)
        if self.omega2 is not None:
            self.omega2.copy_(self.omega1 + 0.1 * std * torch.randn_like(self.omega1))

    def frequencies(self) -> tuple[Tensor, ...]:
        r"""Returns :math:`\boldsymbol{\omega}_1` and :math:`\boldsymbol{\omega}_2`, only one where they are
        tied.

        Shapes:
            - **output:** each :math:`(H, D, S)`, of a pair that is concatenated :math:`(H, 2D, S)`
        """
        return (self.omega1,) if self.omega2 is None else (self.omega1, self.omega2)


class Spectral(_LearnedFrequencies):
    r"""The kernel with learned frequencies of `"Implicit Kernel Attention"
    <https://arxiv.org/abs/2006.06147>`_ (there: IKAN-direct).

    .. math::
        \log k(\mathbf{q}, \mathbf{k}) &= \log ( \kappa(\mathbf{q}, \mathbf{k})^2 + \epsilon ) \\
        \kappa(\mathbf{q}, \mathbf{k}) &= \frac{1}{4 S} \sum_{s=1}^{S} \sum_{a, b \in \{1, 2\}}
        \cos \big( 2 \pi (\boldsymbol{\omega}_{a s}^\top \mathbf{q}
        - \boldsymbol{\omega}_{b s}^\top \mathbf{k}) \big)

    Any kernel, stationary or not, has such a form, so learning the frequencies is learning the
    kernel. With the default initialisation it starts near the RBF that is inside dot-product
    attention; multiply it with a :class:`Magnitude` for the full model of the paper.

    Use it when the kernel itself is to be learned: no family is chosen, at the price of :math:`2 S` features
    a node. Spare its frequencies weight decay (``--set decay_kernels=false``), which pulls them to zero,
    where the kernel is constant.

    Args:
        num_features (int, optional): Number :math:`S` of frequency pairs per head; a node has
            :math:`2 S` features. The released code has 64; on graphs these features are most of the
            cost. (default: :obj:`16`)
        stationary (bool, optional): Ties :math:`\boldsymbol{\omega}_1 = \boldsymbol{\omega}_2`,
            which makes the kernel translation invariant. (default: :obj:`False`)
        init (str, optional): :obj:`"dot"` draws :math:`\boldsymbol{\omega}_1` from
            :math:`\mathcal{N}(0, s^2)`, :math:`s = 1 / (2 \pi \sqrt 2 D^{1/4})`, and
            :math:`\boldsymbol{\omega}_2` within :math:`0.1 s` of it; :obj:`"official"` draws both
            uniformly within :math:`1 / \sqrt{H S}`, as the released code does.
            (default: :obj:`"dot"`)
        eps (float, optional): Floor of the kernel: it bounds the range of the score below by
            :math:`\log \epsilon` and its slope by :math:`1 / \sqrt\epsilon`. In attention that slope is
            multiplied by a weight proportional to :math:`\kappa^2 + \epsilon`, so that gradients stay those
            of :math:`(\kappa^2 + \epsilon) / \sum (\kappa^2 + \epsilon)`, for any floor.
            (default: :obj:`1e-5`)

    Raises:
        ValueError: If :obj:`num_features` or :obj:`eps` is not positive, or :obj:`init` unknown.

    Example:
        >>> import torch
        >>> from kgat.kernels import Spectral
        >>> kernel = Spectral(4, heads=2, num_features=16)
        >>> kernel(torch.randn(3, 2, 4), torch.randn(5, 2, 4)).dense().shape
        torch.Size([3, 5, 2])
    """

    symmetric = True
    positive_definite = True

    def __init__(
        self,
        channels: int,
        heads: int = 1,
        num_features: int = 16,
        stationary: bool = False,
        init: str = "dot",
        eps: float = 1e-5,
    ) -> None:
        super().__init__(channels, heads)
        self.stationary = self.translation_invariant = stationary
        self._learn_frequencies(channels, num_features, init, eps, tied=stationary)

    def lift(self, query: Tensor, key: Tensor) -> LazyGram:
        families = self.frequencies()
        omega = torch.cat(families, dim=-1)
        # Where queries are the keys, their features need not be computed twice.
        f = points(query, omega, len(families))
        g = f if key is query else points(key, omega, len(families))
        return LazyGram.of(f, g, ScoreRule(link=LOG_SQUARE, link_args=(self.eps,)))


class SpectralConcat(_LearnedFrequencies):
    r"""The spectral kernel between a learned prototype and the concatenated pair, the form of
    `"Implicit Kernel Attention" <https://arxiv.org/abs/2006.06147>`_ that is closest to GAT.

    .. math::
        \log k(\mathbf{q}, \mathbf{k}) = \log \big( \kappa(\mathbf{a}_h, [\mathbf{q}; \mathbf{k}])^2
        + \epsilon \big)

    with :math:`\kappa` as in :class:`Spectral`. The angle sum splits into features of each node, so
    that a pair costs an inner product of :math:`4 S` of them; unlike :class:`Additive`, query and
    key do interact.

    Use it when a learned kernel shall see the pair as GAT does, against a prototype. It is not symmetric.

    Args:
        num_features (int, optional): Number :math:`S` of frequency pairs per head.
            (default: :obj:`64`)
        init (str, optional): :obj:`"dot"` or :obj:`"official"`, as in :class:`Spectral`, for the
            :math:`2 D` concatenated channels. (default: :obj:`"dot"`)
        eps (float, optional): Floor of the kernel. (default: :obj:`1e-5`)

    Raises:
        ValueError: If :obj:`num_features` or :obj:`eps` is not positive, or :obj:`init` unknown.

    Example:
        >>> import torch
        >>> from kgat.kernels import SpectralConcat
        >>> kernel = SpectralConcat(4, heads=2, num_features=16)
        >>> kernel(torch.randn(3, 2, 4), torch.randn(5, 2, 4)).dense().shape
        torch.Size([3, 5, 2])
    """

    def __init__(
        self, channels: int, heads: int = 1, num_features: int = 64, init: str = "dot", eps: float = 1e-5
    ) -> None:
        super().__init__(channels, heads)
        self.att = Parameter(torch.empty(heads, 2 * channels))
        self._learn_frequencies(2 * channels, num_features, init, eps, tied=False)

    def reset_parameters(self) -> None:
        glorot(self.att)
        super().reset_parameters()

    def lift(self, query: Tensor, key: Tensor) -> LazyGram:
        omega = torch.cat(self.frequencies(), dim=-1)
        return concatenated(
            components(self.att, 2.0 * math.pi * at_least_single(omega)),
            points(query, omega[:, : self.channels]),
            points(key, omega[:, self.channels :]),
            size=self.num_features,
            eps=self.eps,
        )


def concatenated(prototype: Tensor, by_query: Tensor, by_key: Tensor, size: int, eps: float) -> LazyGram:
    r"""Returns :math:`\log(\kappa(\mathbf{a}, [\mathbf{q}; \mathbf{k}])^2 + \epsilon)` from the angles of the
    prototype and the points of both parts of the pair.

    Args:
        prototype (torch.Tensor): The angles :math:`2 \pi \boldsymbol{\omega}^\top \mathbf{a}` of the
            prototype, one family of frequencies after the other; they broadcast against the points of
            queries.
        by_query (torch.Tensor): The :func:`points` of queries, of one family with all frequencies.
        by_key (torch.Tensor): Those of keys.
        size (int): The number :math:`S` of frequencies in a family; there are one or two.
        eps (float): :math:`\epsilon`.

    Shapes:
        - **prototype:** :math:`(*, H, F S)`, **by_query:** :math:`(*, N, H, 2 F S)`, **by_key:**
          :math:`(*, M, H, 2 F S)`
    """
    families = prototype.size(-1) // size
    a, b = (part.unflatten(-1, (families, size)).sum(dim=-2) for part in (prototype.cos(), prototype.sin()))
    a, b = torch.cat([a] * families, dim=-1) / families, torch.cat([b] * families, dim=-1) / families
    sin, cos = by_query.chunk(2, dim=-1)
    psi = torch.cat([b * cos - a * sin, a * cos + b * sin], dim=-1)
    return LazyGram.of(psi, by_key, ScoreRule(link=LOG_SQUARE, link_args=(eps,)))


def points(x: Tensor, omega: Tensor, families: int = 1) -> Tensor:
    r"""Returns the :func:`~kgat.ops.waves.waves` of nodes at frequencies, in turns."""
    return waves(x, 2.0 * math.pi * at_least_single(omega), families)


def dot_std(channels: int) -> float:
    r"""Returns the scale of frequencies with which :math:`\kappa^2` tends to the RBF that is inside
    dot-product attention, :math:`\exp(-\lVert \mathbf{q} - \mathbf{k} \rVert^2 / (2 \sqrt D))`: the square
    halves :math:`\ell^2`."""
    return 1.0 / (2.0 * math.pi * math.sqrt(2.0) * channels**0.25)


def _power(law: str) -> int:
    # How many uniform numbers are added; 0 of another law.
    if law in ("normal", "cauchy"):
        return 0
    name, power = law[:4], law[4:]
    if name != "sinc" or not power.isdecimal() or int(power) < 1:
        raise ValueError(
            f"Expected 'law' as 'normal', 'cauchy' or 'sinc' with a power (got {law!r}); write 'sinc4' "
            f"for the power 4"
        )
    return int(power)
