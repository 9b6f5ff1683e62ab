r"""Kernels of a distance that are not its exponential."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import Parameter
from torch_geometric.nn.inits import glorot

from kgat.kernels.kernel import Kernel, positive
from kgat.ops.precision import at_least_single
from kgat.score.gram import LazyGram
from kgat.score.rules import ABS_DIFFERENCE, HALF_LOG, RATIONAL_QUADRATIC, RELU, SQUARED_DIFFERENCE, ScoreRule


class L2Distance(Kernel):
    r"""The L2 distance itself, as compared in `"Transformers are Deep Infinite-Dimensional
    Non-Mercer Binary Kernel Machines" <https://arxiv.org/abs/2106.01506>`_.

    .. math::
        \log k(\mathbf{q}, \mathbf{k}) = \tfrac{1}{2} \log \big( \lVert \mathbf{q} - \mathbf{k}
        \rVert_2^2 + \epsilon \big)

    A *dissimilarity*: it attends to what is far, and its Gram matrix has exactly one positive
    eigenvalue. A scale would cancel in the softmax, so it has no parameter.

    Use it when neighbours that differ are the informative ones, or as the baseline of that paper.

    Args:
        eps (float, optional): Floor of the squared distance. (default: :obj:`1e-12`)

    Raises:
        ValueError: If :obj:`eps` is not positive.

    Example:
        >>> import torch
        >>> from kgat.kernels import L2Distance
        >>> gram = L2Distance(4)(torch.zeros(1, 1, 4), torch.ones(1, 1, 4))
        >>> round(gram.dense().exp().item(), 4)
        2.0
    """

    scalable = False
    symmetric = True
    translation_invariant = True

    def __init__(self, channels: int, heads: int = 1, eps: float = 1e-12) -> None:
        super().__init__(channels, heads)
        self.eps = positive("eps", eps)

    def lift(self, query: Tensor, key: Tensor) -> LazyGram:
        # The expanded square would cancel next to q = k, where the logarithm is steepest.
        rule = ScoreRule(SQUARED_DIFFERENCE, HALF_LOG, link_args=(self.eps,))
        return LazyGram.of(query, key, rule)


class RationalQuadratic(Kernel):
    r"""The rational quadratic kernel, a mixture of RBFs of many lengthscales: a stationary member
    of the family that `"Implicit Kernel Attention" <https://arxiv.org/abs/2006.06147>`_ learns.

    .. math::
        \log k(\mathbf{q}, \mathbf{k}) = - \alpha_h \log \Big( 1 + \frac{\lVert \mathbf{q} -
        \mathbf{k} \rVert_2^2}{2 \alpha_h \ell_h^2} \Big)

    Its tails are polynomial; with a large :math:`\alpha` it is :class:`RBF`. Both parameters are
    learned per head and stay positive, as they are stored as logarithms.

    Use it when both near and far neighbours matter: :class:`RBF` with one more number a head for its tails.

    Args:
        lengthscale (float, optional): Initial :math:`\ell_h`; :math:`D^{1/4}` if :obj:`None`.
            (default: :obj:`None`)
        alpha (float, optional): Initial :math:`\alpha_h`. (default: :obj:`1.0`)

    Raises:
        ValueError: If :obj:`lengthscale` or :obj:`alpha` is not positive.

    Example:
        >>> import torch
        >>> from kgat.kernels import RationalQuadratic
        >>> kernel = RationalQuadratic(4, lengthscale=1.0)
        >>> gram = kernel(torch.zeros(1, 1, 4), torch.ones(1, 1, 4))
        >>> round(gram.dense().exp().item(), 4)  # 1 / (1 + 4 / 2)
        0.3333
    """

    symmetric = True
    positive_definite = True
    translation_invariant = True
    log_lengthscale: Tensor
    log_alpha: Tensor

    def __init__(
        self, channels: int, heads: int = 1, lengthscale: float | None = None, alpha: float = 1.0
    ) -> None:
        super().__init__(channels, heads)
        self.learn_positive(lengthscale=channels**0.25 if lengthscale is None else lengthscale, alpha=alpha)

    def lift(self, query: Tensor, key: Tensor) -> LazyGram:
        # 1 / (2 alpha l^2): a weight, not a factor of both sides, since products round far from the origin.
        log_alpha = at_least_single(self.log_alpha)
        weight = (-2.0 * at_least_single(self.log_lengthscale) - log_alpha - math.log(2.0)).exp()
        alpha = log_alpha.exp().squeeze(-1)
        weight = weight.expand(self.heads, self.channels)
        rule = ScoreRule(SQUARED_DIFFERENCE, RATIONAL_QUADRATIC, weight=weight, link_args=(alpha,))
        return LazyGram.of(query, key, rule)


class AbsoluteDifference(Kernel):
    r"""The score of GLCN, `"Semi-supervised Learning with Graph Learning-Convolutional Networks"
    <https://arxiv.org/abs/1811.09971>`_.

    .. math::
        \log k(\mathbf{q}, \mathbf{k}) = \mathrm{ReLU}\Big( \sum_c a_{h c} \, |q_c - k_c| \Big)

    Use it when graphs are learned as in GLCN: each channel has a weight of its own, of either sign. A few
    coordinates may decide, and the data say which.

    Example:
        >>> import torch
        >>> from kgat.kernels import AbsoluteDifference
        >>> kernel = AbsoluteDifference(4, heads=2)
        >>> kernel(torch.randn(3, 2, 4), torch.randn(5, 2, 4)).dense().shape
        torch.Size([3, 5, 2])
    """

    symmetric = True
    translation_invariant = True

    def __init__(self, channels: int, heads: int = 1) -> None:
        super().__init__(channels, heads)
        self.att = Parameter(torch.empty(heads, channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        glorot(self.att)

    def lift(self, query: Tensor, key: Tensor) -> LazyGram:
        return LazyGram.of(query, key, ScoreRule(ABS_DIFFERENCE, RELU, weight=self.att))
