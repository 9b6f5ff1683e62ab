r"""Kernels defined by finite feature maps, for linear attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kgat.kernels.cosine import unit
from kgat.kernels.kernel import Kernel, positive, whole
from kgat.names import one_of
from kgat.ops.precision import at_least_single
from kgat.ops.waves import components, waves
from kgat.score.gram import LazyGram
from kgat.score.rules import LOG, SIGNED, ScoreRule


class EluPlusOne(Kernel):
    r"""The kernel of `"Transformers are RNNs: Fast Autoregressive Transformers with Linear
    Attention" <https://arxiv.org/abs/2006.16236>`_.

    .. math::
        \log k(\mathbf{q}, \mathbf{k}) = \log \big( \langle \phi(\mathbf{q}), \phi(\mathbf{k})
        \rangle + \epsilon \big), \qquad \phi(\mathbf{x}) = \mathrm{elu}(\mathbf{x}) + 1

    Use it when sequences are long and a small, deterministic feature map is enough. On the edges of a graph
    there is nothing to gain by it.

    Args:
        eps (float, optional): Floor of the kernel. (default: :obj:`1e-6`)

    Raises:
        ValueError: If :obj:`eps` is not positive.

    Example:
        >>> import torch
        >>> from kgat.kernels import EluPlusOne
        >>> gram = EluPlusOne(4)(torch.zeros(1, 1, 4), torch.ones(1, 1, 4))
        >>> round(gram.dense().exp().item(), 4)
        8.0
    """

    symmetric = True
    positive_definite = True

    def __init__(self, channels: int, heads: int = 1, eps: float = 1e-6) -> None:
        super().__init__(channels, heads)
        self.eps = positive("eps", eps)

    def lift(self, query: Tensor, key: Tensor) -> LazyGram:
        rule = ScoreRule(link=LOG, link_args=(self.eps,))
        return LazyGram.of(_elu_plus_one(query), _elu_plus_one(key), rule)


class FAVORPlus(Kernel):
    r"""The positive random features of `"Rethinking Attention with Performers"
    <https://arxiv.org/abs/2009.14794>`_: an unbiased estimate of :class:`DotProduct` that costs a
    linear, not quadratic, number of products.

    .. math::
        \log k(\mathbf{q}, \mathbf{k}) &= \log \langle \phi(\mathbf{q}), \phi(\mathbf{k}) \rangle,
        \qquad \mathbf{x} \leftarrow \mathbf{x} / D^{1/4} \\ \phi(\mathbf{x}) &= \exp(\mathbf{W}
        \mathbf{x} - \lVert \mathbf{x} \rVert^2 / 2) / \sqrt m

    The hyperbolic kind uses :math:`\pm \mathbf{W}` and twice the features; its error is less than
    half. Each side is divided by its largest feature, which returns as a bias of the score, so
    nothing overflows and nothing changes. A floor :math:`\epsilon` is added to the product of these
    scaled features: it only acts where no feature is large on both sides.

    Use it when sequences are long and attention shall be that of :class:`DotProduct`.

    Args:
        num_features (int, optional): Number :math:`m` of random directions;
            :math:`\lfloor D \ln D \rfloor`, at least 1, if :obj:`None`. (default: :obj:`None`)
        kind (str, optional): :obj:`"positive"` or :obj:`"hyperbolic"`.
            (default: :obj:`"positive"`)
        orthogonal (bool, optional): Whether directions are orthogonal in blocks of :math:`D`, which
            lowers the variance. (default: :obj:`True`)
        eps (float, optional): Floor :math:`\epsilon`. (default: :obj:`1e-6`)

    Raises:
        ValueError: If :obj:`num_features` or :obj:`eps` is not positive, or :obj:`kind` unknown.

    Example:
        >>> import torch
        >>> from kgat.kernels import FAVORPlus
        >>> kernel = FAVORPlus(4, heads=2, num_features=6)
        >>> f, g = kernel(torch.randn(3, 2, 4), torch.randn(5, 2, 4)).features()
        >>> f.shape, g.shape  # one more feature for the floor
        (torch.Size([3, 2, 7]), torch.Size([5, 2, 7]))
    """

    symmetric = True
    positive_definite = True
    omega: Tensor

    def __init__(
        self,
        channels: int,
        heads: int = 1,
        num_features: int | None = None,
        kind: str = "positive",
        orthogonal: bool = True,
        eps: float = 1e-6,
    ) -> None:
        super().__init__(channels, heads)
        if num_features is None:
            num_features = max(1, int(channels * math.log(channels)))
        self.num_features = whole("num_features", num_features)
        self.kind = one_of("kind", kind, ("positive", "hyperbolic"))
        self.orthogonal = orthogonal
        self.eps = positive("eps", eps)
        self.register_buffer("omega", torch.empty(heads, channels, self.num_features))
        self.reset_parameters()

    def resample(self, generator: torch.Generator | None = None) -> None:
        draw = _orthogonal if self.orthogonal else normal
        self.omega.copy_(draw(self.omega, generator))

    def lift(self, query: Tensor, key: Tensor) -> LazyGram:
        f, a = self._features(query)
        g, b = self._features(key)
        return LazyGram.of(f, g, ScoreRule(link=LOG, link_args=(self.eps,)), a, b)

    def _features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x * self.channels**-0.25
        u = components(x, self.omega)  # [..., N, H, m]
        if self.kind == "hyperbolic":
            u = torch.cat([u, -u], dim=-1)
        largest = u.amax(dim=-1, keepdim=True)
        norm = 0.5 * x.square().sum(dim=-1)
        return (u - largest).exp() * u.size(-1) ** -0.5, largest.squeeze(-1) - norm


class RFA(Kernel):
    r"""The random features of `"Random Feature Attention" <https://arxiv.org/abs/2103.02143>`_.

    .. math::
        k(\mathbf{q}, \mathbf{k}) = \langle \phi(\mathbf{q}), \phi(\mathbf{k}) \rangle, \qquad
        \phi(\mathbf{x}) = [\sin \mathbf{W} \hat{\mathbf{x}}, \cos \mathbf{W} \hat{\mathbf{x}}] /
        \sqrt m, \quad \hat{\mathbf{x}} = \mathbf{x} / \lVert \mathbf{x} \rVert

    with rows of :math:`\mathbf{W}` from :math:`\mathcal{N}(\mathbf{0}, \mathbf{I} / \sigma_h^2)`:
    an unbiased estimate of :math:`\exp(-\lVert \hat{\mathbf{q}} - \hat{\mathbf{k}} \rVert^2 / (2
    \sigma_h^2))`, which is proportional to :class:`ScaledCosine` with :math:`\beta = 1 / \sigma^2`.
    The estimate can be negative, so it has no logarithm: the Gram matrix refuses scores and offers
    features.

    Use it when sequences are long and directions, not lengths, decide. :class:`FAVORPlus` is its positive
    relative.

    Args:
        num_features (int, optional): Number :math:`m` of random directions; there are twice as many
            features. (default: :obj:`64`)
        sigma (float, optional): Initial :math:`\sigma_h`. (default: :obj:`1.0`)
        learn_sigma (bool, optional): Whether :math:`\sigma_h` is learned, one per head.
            (default: :obj:`False`)

    Shapes:
        - **features:** :math:`(*, N, H, 2m)` and :math:`(*, M, H, 2m)`

    Raises:
        ValueError: If :obj:`num_features` or :obj:`sigma` is not positive.
        NotImplementedError: If scores are asked for.

    Example:
        >>> import torch
        >>> from kgat.kernels import RFA
        >>> x = torch.randn(3, 1, 4)
        >>> f, g = RFA(4)(x, x).features()
        >>> torch.allclose((f * g).sum(dim=-1), torch.ones(3, 1))
        True
    """

    symmetric = True
    positive_definite = True
    undecayed = ("log_sigma",)
    omega: Tensor
    log_sigma: Tensor | None

    def __init__(
        self,
        channels: int,
        heads: int = 1,
        num_features: int = 64,
        sigma: float = 1.0,
        learn_sigma: bool = False,
    ) -> None:
        super().__init__(channels, heads)
        self.num_features = whole("num_features", num_features)
        self.initial_sigma = positive("sigma", sigma)
        self.register_buffer("omega", torch.empty(heads, channels, self.num_features))
        if learn_sigma:
            self.learn_positive(sigma=sigma)
        else:
            self.register_parameter("log_sigma", None)
        self.reset_parameters()

    def resample(self, generator: torch.Generator | None = None) -> None:
        self.omega.copy_(normal(self.omega, generator))

    def lift(self, query: Tensor, key: Tensor) -> LazyGram:
        sigma = self.initial_sigma if self.log_sigma is None else at_least_single(self.log_sigma).exp()
        f, g = (waves(unit(x) / sigma, self.omega) for x in (query, key))
        return LazyGram.of(f, g, ScoreRule(link=SIGNED))


def normal(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    r"""Draws standard normal numbers in the shape of :obj:`like`, where the generator lives."""
    device = like.device if generator is None else generator.device
    return torch.randn(like.shape, generator=generator, dtype=torch.float32, device=device)


def symmetric_uniform(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    r"""Draws numbers from :math:`[-1, 1)` as :func:`normal` does those it draws."""
    device = like.device if generator is None else generator.device
    return 2.0 * torch.rand(like.shape, generator=generator, dtype=torch.float32, device=device) - 1.0


def _orthogonal(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    heads, channels, size = like.shape
    blocks = -(-size // channels)
    square = normal(like.new_empty(heads, blocks, channels, channels), generator)
    q, r = torch.linalg.qr(square)  # orthonormal columns, one direction each
    # QR fixes signs in its own way: a column has a preferred half space until they are undone.
    q = q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    # The length of a Gaussian vector, so that each direction by itself is standard normal.
    length = normal(like.new_empty(heads, blocks, channels, channels), generator).norm(dim=-2)
    directions = (q * length.unsqueeze(-2)).transpose(1, 2)  # [H, D, blocks, D]
    return directions.reshape(heads, channels, blocks * channels)[..., :size]


def _elu_plus_one(x: Tensor) -> Tensor:
    # Not elu(x) + 1, which loses all digits of exp(x) for x < -17.
    above = x > 0
    return torch.where(above, x + 1.0, torch.where(above, 0.0, x).exp())
