r"""The Gaussian kernel."""

from __future__ import annotations

from torch import Tensor

from kgat.kernels.kernel import Kernel
from kgat.ops.precision import at_least_single
from kgat.score.gram import LazyGram
from kgat.score.rules import SQUARED_DIFFERENCE, ScoreRule


class RBF(Kernel):
    r"""The Gaussian kernel with one lengthscale per head, as in `"Implicit Kernel Attention"
    <https://arxiv.org/abs/2006.06147>`_ and `"Transformer Dissection"
    <https://arxiv.org/abs/1908.11775>`_.

    .. math::
        \log k(\mathbf{q}, \mathbf{k}) = - \lVert \mathbf{q} - \mathbf{k} \rVert_2^2 / (2 \ell_h^2)

    At the default :math:`\ell = D^{1/4}` it is scaled dot-product attention without its preference
    for long keys: ``DotProduct(D) == RBF(D) * Magnitude(D, p=2)``. Edges take the
    difference itself. Attention over all pairs expands the square into an inner product and two biases where
    points lie close enough to their mean for that to keep its digits; see
    :meth:`~kgat.score.gram.Gram.expanded`.

    Use it when nearness is what counts, and as the first kernel to try: it is smooth and has one number a
    head. An ablation between it and ``rbf*l2``, the dot product, asks whether the length of keys matters.

    Args:
        lengthscale (float, optional): Initial :math:`\ell_h`, in units of the queries;
            :math:`D^{1/4}` if :obj:`None`. (default: :obj:`None`)

    Raises:
        ValueError: If :obj:`lengthscale` is not positive.

    Example:
        >>> import torch
        >>> from kgat.kernels import RBF
        >>> kernel = RBF(4, lengthscale=1.0)
        >>> kernel(torch.zeros(1, 1, 4), torch.ones(1, 1, 4)).dense().item()
        -2.0
    """

    symmetric = True
    positive_definite = True
    translation_invariant = True
    log_lengthscale: Tensor

    def __init__(self, channels: int, heads: int = 1, lengthscale: float | None = None) -> None:
        super().__init__(channels, heads)
        self.learn_positive(lengthscale=channels**0.25 if lengthscale is None else lengthscale)

    def lift(self, query: Tensor, key: Tensor) -> LazyGram:
        # The lengthscale is a weight, not a factor of both sides: products round, far from the origin.
        weight = (-0.5 * (-2.0 * at_least_single(self.log_lengthscale)).exp()).expand(
            self.heads, self.channels
        )
        return LazyGram.of(query, key, ScoreRule(SQUARED_DIFFERENCE, weight=weight))
