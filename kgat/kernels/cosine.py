r"""Kernels of the angle between query and key."""

from __future__ import annotations

import torch
from torch import Tensor

from kgat.kernels.kernel import Kernel, number
from kgat.score.gram import LazyGram
from kgat.score.rules import LEAKY_RELU, SIGNED, ScoreRule


class Cosine(Kernel):
    r"""The cosine similarity, as in `"Primal-Attention" <https://arxiv.org/abs/2305.19798>`_.

    .. math::
        k(\mathbf{q}, \mathbf{k}) = \cos(\mathbf{q}, \mathbf{k})
        = \frac{\mathbf{q}^\top \mathbf{k}}{\lVert \mathbf{q} \rVert \lVert \mathbf{k} \rVert}

    It can be negative, so it has no logarithm: the Gram matrix refuses scores and offers features,
    the unit vectors. :class:`ScaledCosine` is its exponential.

    Use it when attention is linear and takes features, not scores, as :class:`~kgat.nn.PrimalAttention` does.
    It is that layer's default, as in its paper.

    Shapes:
        - **features:** :math:`(*, N, H, D)` and :math:`(*, M, H, D)`

    Raises:
        NotImplementedError: If scores are asked for.

    Example:
        >>> import torch
        >>> from kgat.kernels import Cosine
        >>> f, g = Cosine(4)(torch.ones(1, 1, 4), -torch.ones(1, 1, 4)).features()
        >>> (f * g).sum().item()
        -1.0
    """

    symmetric = True
    positive_definite = True

    def lift(self, query: Tensor, key: Tensor) -> LazyGram:
        return LazyGram.of(unit(query), unit(key), ScoreRule(link=SIGNED))


class ScaledCosine(Kernel):
    r"""The score of AGNN, `"Attention-based Graph Neural Network for Semi-supervised Learning"
    <https://arxiv.org/abs/1803.03735>`_.

    .. math::
        \log k(\mathbf{q}, \mathbf{k}) = \beta_h \cos(\mathbf{q}, \mathbf{k})

    A similarity without magnitude: how long a key is does not matter. It is positive definite as
    long as no :math:`\beta_h` is negative.

    Use it when only the direction of features speaks, as in a bag of words or after a normalisation.

    Args:
        beta (float, optional): Initial :math:`\beta_h`. (default: :obj:`1.0`)

    Example:
        >>> import torch
        >>> from kgat.kernels import ScaledCosine
        >>> ScaledCosine(4, beta=3.0)(torch.ones(1, 1, 4), torch.ones(1, 1, 4)).dense().item()
        3.0
    """

    symmetric = True
    beta: Tensor

    def __init__(self, channels: int, heads: int = 1, beta: float = 1.0) -> None:
        super().__init__(channels, heads)
        self.learn(beta=beta)

    @property
    def positive_definite(self) -> bool:  # type: ignore[override]
        r"""Whether no head has a negative :math:`\beta_h`."""
        return bool((self.beta >= 0).all())

    def lift(self, query: Tensor, key: Tensor) -> LazyGram:
        return LazyGram.of(unit(query) * self.beta, unit(key))


class LeakyCosine(Kernel):
    r"""The score of CFGAT, one of the baselines of `"KAA: Kolmogorov-Arnold Attention for Enhancing
    Attentive Graph Neural Networks" <https://arxiv.org/abs/2501.13456>`_.

    .. math::
        \log k(\mathbf{q}, \mathbf{k}) = \mathrm{LeakyReLU}(\cos(\mathbf{q}, \mathbf{k}))

    Use it when you compare with CFGAT; its scores lie between minus the slope and 1, so that attention is
    nearly a mean.

    Args:
        negative_slope (float, optional): Slope of the LeakyReLU. (default: :obj:`0.2`)

    Example:
        >>> import torch
        >>> from kgat.kernels import LeakyCosine
        >>> gram = LeakyCosine(4)(torch.ones(1, 1, 4), -torch.ones(1, 1, 4))
        >>> round(gram.dense().item(), 4)
        -0.2
    """

    scalable = False
    symmetric = True

    def __init__(self, channels: int, heads: int = 1, negative_slope: float = 0.2) -> None:
        super().__init__(channels, heads)
        self.negative_slope = number("negative_slope", negative_slope)

    def lift(self, query: Tensor, key: Tensor) -> LazyGram:
        rule = ScoreRule(link=LEAKY_RELU, link_args=(self.negative_slope,))
        return LazyGram.of(unit(query), unit(key), rule)


def unit(x: Tensor) -> Tensor:
    r"""Divides vectors by their length: :func:`torch.nn.functional.normalize`, except that a vector
    shorter than its :obj:`eps` of :math:`10^{-12}` gets a zero gradient instead of one of
    :math:`10^{12}`.

    Args:
        x (torch.Tensor): Vectors along the last dimension.

    Shapes:
        - **x, output:** :math:`(*, D)`
    """
    square = x.square().sum(dim=-1, keepdim=True)
    x = torch.where(square > 1e-24, x, x.detach())
    return x / square.clamp_min(1e-24).sqrt()
