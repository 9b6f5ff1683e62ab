r"""The periodic kernel."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kgat.kernels.kernel import Kernel
from kgat.ops.precision import at_least_single
from kgat.score.gram import LazyGram


class Periodic(Kernel):
    r"""The periodic kernel, a stationary member of the family that `"Implicit Kernel Attention"
    <https://arxiv.org/abs/2006.06147>`_ learns.

    .. math::
        \log k(\mathbf{q}, \mathbf{k}) = - \frac{2}{\ell_h^2} \sum_c \sin^2 \Big( \frac{\pi (q_c -
        k_c)} {P_h} \Big) = \frac{1}{\ell_h^2} \sum_c \Big( \cos \frac{2 \pi q_c}{P_h} \cos \frac{2
        \pi k_c}{P_h} + \sin \frac{2 \pi q_c}{P_h} \sin \frac{2 \pi k_c}{P_h} - 1 \Big)

    The second form is an inner product of :math:`2 D` features and a constant bias.

    Use it when channels are phases, angles or times of a cycle.

    Args:
        period (float, optional): Initial :math:`P_h`. (default: :obj:`1.0`)
        lengthscale (float, optional): Initial :math:`\ell_h`. (default: :obj:`1.0`)

    Raises:
        ValueError: If :obj:`period` or :obj:`lengthscale` is not positive.

    Example:
        >>> import torch
        >>> from kgat.kernels import Periodic
        >>> kernel = Periodic(4, period=2.0)
        >>> gram = kernel(torch.zeros(1, 1, 4), torch.ones(1, 1, 4))
        >>> round(gram.dense().item(), 4)  # half a period away in each channel
        -8.0
    """

    symmetric = True
    positive_definite = True
    translation_invariant = True
    log_period: Tensor
    log_lengthscale: Tensor

    def __init__(self, channels: int, heads: int = 1, period: float = 1.0, lengthscale: float = 1.0) -> None:
        super().__init__(channels, heads)
        self.learn_positive(period=period, lengthscale=lengthscale)

    def lift(self, query: Tensor, key: Tensor) -> LazyGram:
        period = at_least_single(self.log_period).exp()
        period = period.to(torch.promote_types(query.dtype, period.dtype))
        scale = (-at_least_single(self.log_lengthscale)).exp()
        constant = -self.channels * scale.square().squeeze(-1)  # [H]
        q = _circle(query, period) * scale
        k = q if key is query else _circle(key, period) * scale
        return LazyGram.of(q, k, key_bias=constant.expand(k.shape[:-1]))


def _circle(x: Tensor, period: Tensor) -> Tensor:
    # An angle of many turns loses its digits. A remainder does not: it is exact.
    x = x.to(period.dtype)
    still, still_period = x.detach(), period.detach()  # 'no_grad' would let forward derivatives through
    rest = torch.fmod(still, still_period)
    turns = ((still - rest) / still_period).round()
    # Of that value, and with the derivatives of x - turns * period.
    rest = rest + (x - still) - turns * (period - still_period)
    angle = rest * (2.0 * math.pi / period)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)
