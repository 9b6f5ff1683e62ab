r"""A learned number: how much a summand weighs."""

from __future__ import annotations

import torch
from torch import Tensor

from kgat.kernels.kernel import Kernel
from kgat.score.gram import LazyGram


class Constant(Kernel):
    r"""A positive number per head, as in `"Multiple Kernel Learning Algorithms"
    <https://jmlr.org/papers/v12/gonen11a.html>`_ the weight of each of several kernels.

    .. math::
        \log k(\mathbf{q}, \mathbf{k}) = \log w

    It cancels where weights are normalised: alone it is the mean over neighbours, and as a factor it changes
    nothing. In a sum it says how much each summand counts: ``constant*rbf + constant*additive`` learns it, a
    convex combination, as the sum of the weights cancels, too. It is positive definite where all summands
    are, and runs as one pass over the edges for each of them.

    Use it when several similarities may matter, and it is not known how much each does; ``constant`` alone is
    the plain mean that a learned attention has to beat.

    Args:
        weight (float, optional): Initial :math:`w`. (default: :obj:`1.0`)

    Raises:
        ValueError: If :obj:`weight` is not positive.

    Example:
        >>> import torch
        >>> from kgat.kernels import resolve
        >>> kernel = resolve("constant[weight=3]*rbf + constant*rbf", channels=2)
        >>> kernel(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2)).dense().exp().item()
        4.0
    """

    symmetric = True
    positive_definite = True
    translation_invariant = True
    scalable = False

    def __init__(self, channels: int, heads: int = 1, weight: float = 1.0) -> None:
        super().__init__(channels, heads)
        self.learn_positive(weight=weight)

    def lift(self, query: Tensor, key: Tensor) -> LazyGram:
        weight = self.log_weight.squeeze(-1).to(query.dtype)  # type: ignore[operator]
        # Beside the keys: what queries add is left out of a softmax, and the weight would have no gradient.
        return LazyGram(query_bias=torch.zeros_like(query[..., 0]), key_bias=weight.expand(key.shape[:-1]))
