r"""The kernel of the Fourier integral theorem."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import Parameter

from kgat.kernels.kernel import Kernel, number, positive
from kgat.names import one_of
from kgat.ops.precision import at_least_single
from kgat.score.gram import LazyGram
from kgat.score.rules import LOG_ABS_SINC, ScoreRule

# The integral of a larger power is that of its asymptotic series in 1 / power (Medhurst and Roberts,
# 1965): what is left out is below 1e-15 there.
SUMMED = 200
SERIES = (1.0, -3 / 20, -13 / 1120, 27 / 3200, 52791 / 3942400, 482427 / 66560000)


class SincProduct(Kernel):
    r"""The kernel of `"Transformer with Fourier Integral Attentions"
    <https://arxiv.org/abs/2206.00206>`_ (FourierFormer).

    .. math::
        \log k(\mathbf{q}, \mathbf{k}) = l \sum_c \log \Big| \frac{\sin x_c}{x_c} \Big|, \qquad
        x_c = R_{h c} (q_c - k_c)

    The score is computed in log space, with a series near 0 and clamped zeros: the product itself
    underflows for as few as 32 channels. Close by, it is an RBF with :math:`\ell^2 = 3 / (l R^2)`;
    far away it decays like :math:`|x|^{-l}` in each channel, with zeros at multiples of
    :math:`\pi`. ``RandomFourier(law="sinc4")`` estimates it by finitely many features.

    Use it when a channel shall decide by itself: one that is far off drives the weight to 0, however near the
    others are. :class:`~kgat.nn.FourierAttention` is the layer made for it.

    Args:
        power (int, optional): :math:`l`, an even number, so that no weight is negative. Every even
            power gives a positive definite kernel; the convergence theorems of the Fourier integral
            estimator need :math:`l \ge 4`. (default: :obj:`4`)
        inverse_bandwidth (float, optional): Initial :math:`R`. The kernel is even in it.
            (default: :obj:`2.0`)
        per (str, optional): What owns an :math:`R` of its own: the :obj:`"layer"` (as in the
            released code), each :obj:`"channel"`, shared by the heads, or each channel of each
            :obj:`"head"`. (default: :obj:`"head"`)

    Raises:
        ValueError: If :obj:`power` is not a positive even number, :obj:`inverse_bandwidth` not
            positive or :obj:`per` unknown.

    Example:
        >>> import torch
        >>> from kgat.kernels import SincProduct
        >>> kernel = SincProduct(1, inverse_bandwidth=1.0)
        >>> gram = kernel(torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
        >>> round(gram.dense().exp().item(), 4)  # sin(1)^4
        0.5014
    """

    symmetric = True
    positive_definite = True
    translation_invariant = True
    undecayed = ("inverse_bandwidth",)

    def __init__(
        self, channels: int, heads: int = 1, power: int = 4, inverse_bandwidth: float = 2.0, per: str = "head"
    ) -> None:
        super().__init__(channels, heads)
        if number("power", power, 2**31) < 2 or power % 2:
            raise ValueError(
                f"Expected an even 'power' of at least 2 (got {power}); an odd one gives negative weights"
            )
        shapes = {"layer": (1, 1), "channel": (1, channels), "head": (heads, channels)}
        self.power = int(power)
        self.initial_inverse_bandwidth = positive("inverse_bandwidth", inverse_bandwidth)
        self.inverse_bandwidth = Parameter(torch.empty(shapes[one_of("per", per, shapes)]))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        torch.nn.init.constant_(self.inverse_bandwidth, self.initial_inverse_bandwidth)

    def lift(self, query: Tensor, key: Tensor) -> LazyGram:
        q = query * self.inverse_bandwidth
        k = q if key is query else key * self.inverse_bandwidth
        return LazyGram.of(q, k, ScoreRule(LOG_ABS_SINC, weight=float(self.power)))

    def log_density(self, query: Tensor, key: Tensor) -> Tensor:
        r"""Estimates the density from which keys were drawn, at the queries: the Fourier integral estimator.

        .. math::
            \hat p(\mathbf{q}) = \frac{1}{M} \sum_{j=1}^{M} k(\mathbf{q}, \mathbf{k}_j) \prod_c \frac{|R_{h
            c}|}{A_l}, \qquad A_l = \int \Big( \frac{\sin z}{z} \Big)^l dz

        Attention with this kernel is the regression that goes with it, in which the constants cancel. Without
        data the density is 0.

        Args:
            query (torch.Tensor): Where to estimate it.
            key (torch.Tensor): The data.

        Shapes:
            - **query:** :math:`(*, N, H, D)`, **key:** :math:`(*, M, H, D)`
            - **output:** :math:`(*, N, H)`, the logarithm of :math:`\hat p`

        Example:
            >>> import torch
            >>> from kgat.kernels import SincProduct
            >>> kernel = SincProduct(1, power=2, inverse_bandwidth=1.0)
            >>> point = torch.zeros(1, 1, 1)
            >>> round(kernel.log_density(point, point).exp().item(), 4)  # 1 / pi
            0.3183
        """
        score = self(query, key).dense()
        bandwidth = at_least_single(self.inverse_bandwidth).abs().log()
        if self.input_scale is not None:  # it is a part of R
            bandwidth = bandwidth + at_least_single(self.input_scale).abs().log()
        bandwidth = bandwidth.expand(self.heads, self.channels).sum(dim=-1)
        constant = math.log(max(1, key.size(-3))) + self.channels * math.log(sinc_integral(self.power))
        return score.logsumexp(dim=-2) + bandwidth - constant


def sinc_integral(power: int) -> float:
    r"""Computes :math:`A_l = \int_{-\infty}^{\infty} (\sin z / z)^l dz`.

    .. math::
        A_l = \frac{\pi}{2^{l - 1} (l - 1)!} \sum_{i=0}^{\lfloor l / 2 \rfloor} (-1)^i \binom{l}{i} (l - 2
        i)^{l - 1}

    Args:
        power (int): :math:`l`, at least 1.

    Example:
        >>> from kgat.kernels.sinc import sinc_integral
        >>> round(sinc_integral(4) / (2 * math.pi / 3), 12)
        1.0
    """
    if power > SUMMED:
        return math.sqrt(6.0 * math.pi / power) * sum(c * float(power) ** -n for n, c in enumerate(SERIES))
    terms = (
        (-1) ** i * math.comb(power, i) * (power - 2 * i) ** (power - 1) for i in range((power + 1) // 2)
    )
    # Whole numbers first: both are larger than a float may be, and their quotient is not.
    return math.pi * (sum(terms) / (2 ** (power - 1) * math.factorial(power - 1)))
