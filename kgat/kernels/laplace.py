r"""Kernels of the L1 distance and of the intersection."""

from __future__ import annotations

from torch import Tensor

from kgat.kernels.kernel import Kernel
from kgat.ops.precision import at_least_single
from kgat.score.gram import LazyGram
from kgat.score.rules import ABS_DIFFERENCE, MINIMUM, ScoreRule


class Laplace(Kernel):
    r"""The Laplace kernel with one lengthscale per head: the similarity inside the exponentiated
    intersection kernel of `"Transformers are Deep Infinite-Dimensional Non-Mercer Binary Kernel
    Machines" <https://arxiv.org/abs/2106.01506>`_.

    .. math::
        \log k(\mathbf{q}, \mathbf{k}) = - \lVert \mathbf{q} - \mathbf{k} \rVert_1 / \ell_h

    Its tails are heavier than those of :class:`RBF`. At the default :math:`\ell = 2 \sqrt D` it is
    :class:`Intersection` without the preference for large keys. ``RandomFourier(law="cauchy")`` estimates it
    by finitely many features.

    Use it when neighbours may be outliers: a large difference in one channel costs less than under
    :class:`RBF`. It has a peak where two points meet, not a round top.

    Args:
        lengthscale (float, optional): Initial :math:`\ell_h`; :math:`2 \sqrt D` if :obj:`None`.
            (default: :obj:`None`)

    Raises:
        ValueError: If :obj:`lengthscale` is not positive.

    Example:
        >>> import torch
        >>> from kgat.kernels import Laplace
        >>> kernel = Laplace(4, lengthscale=1.0)
        >>> kernel(torch.zeros(1, 1, 4), torch.ones(1, 1, 4)).dense().item()
        -4.0
    """

    symmetric = True
    positive_definite = True
    translation_invariant = True
    log_lengthscale: Tensor

    def __init__(self, channels: int, heads: int = 1, lengthscale: float | None = None) -> None:
        super().__init__(channels, heads)
        self.learn_positive(lengthscale=2.0 * channels**0.5 if lengthscale is None else lengthscale)

    def lift(self, query: Tensor, key: Tensor) -> LazyGram:
        # The lengthscale is a weight, not a factor of both sides: products round, far from the origin.
        weight = -(-at_least_single(self.log_lengthscale)).exp().expand(self.heads, self.channels)
        return LazyGram.of(query, key, ScoreRule(ABS_DIFFERENCE, weight=weight))


class Intersection(Kernel):
    r"""The exponentiated intersection kernel of `"Transformers are Deep Infinite-Dimensional
    Non-Mercer Binary Kernel Machines" <https://arxiv.org/abs/2106.01506>`_.

    .. math::
        \log k(\mathbf{q}, \mathbf{k}) = \sum_c \min(q_c, k_c) / \sqrt D

    As :math:`\min(a, b) = (a + b - |a - b|) / 2` it is :class:`Laplace` times a bias of each side,
    so it is positive definite for all real inputs.

    Use it when features are counts or other amounts: it says how much of them two nodes share. It fits
    histograms and other features that are not negative.

    Example:
        >>> import torch
        >>> from kgat.kernels import Intersection
        >>> Intersection(4)(torch.ones(1, 1, 4), 3 * torch.ones(1, 1, 4)).dense().item()
        2.0
    """

    symmetric = True
    positive_definite = True

    def lift(self, query: Tensor, key: Tensor) -> LazyGram:
        return LazyGram.of(query, key, ScoreRule(MINIMUM, weight=self.channels**-0.5))
