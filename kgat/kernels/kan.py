r"""The score of Kolmogorov-Arnold attention."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter
from torch_geometric.nn.inits import glorot

from kgat.kernels.kernel import Kernel, whole
from kgat.ops.plain import is_plain
from kgat.score.gram import LazyGram, Term
from kgat.score.rules import Pair, ScoreRule
from kgat.score.scalar import absolute, exp, maximum, where


class KANScore(Kernel):
    r"""The score of KAA-GAT in `"KAA: Kolmogorov-Arnold Attention for Enhancing Attentive Graph
    Neural Networks" <https://arxiv.org/abs/2501.13456>`_.

    .. math::
        \log k(\mathbf{q}, \mathbf{k}) = \mathrm{KAN}_h([\mathbf{q}; \mathbf{k}]), \qquad
        \mathrm{KAN}^{(l)}(\mathbf{x})_o = \sum_i \Big( b^{(l)}_{i o} \, \mathrm{SiLU}(x_i)
        + \sum_g c^{(l)}_{i o g} B_g(x_i) \Big)

    with B-splines :math:`B_g` on a grid over :math:`[-1, 1]`. The widths are :math:`2D, D, \dots,
    D, 1`, one network per head. The first layer is a sum over the entries of :math:`[\mathbf{q};
    \mathbf{k}]`, so it is computed on nodes; a pair costs the layers after it. With a *single*
    layer the score is thus :math:`f(\mathbf{q}) + g(\mathbf{k})`, static attention that does not
    even depend on the query. With *two*, it is a sum of functions of sums of two numbers, all of them
    :math:`\mathrm{SiLU}` or the same spline, shifted, which runs fused for splines of degree 1 to 3. Further
    layers, and other degrees, hold :math:`D` splines of an edge, for a part of the edges at a time.

    Use it when the shape of the score is unknown and edges are few enough for a network on each. It is the
    most flexible score; three layers are slower than all others.

    Args:
        num_layers (int, optional): Number of layers. (default: :obj:`2`)
        grid_size (int, optional): Number of grid intervals. (default: :obj:`4`)
        spline_order (int, optional): Degree of the splines; 3 has two continuous derivatives.
            (default: :obj:`3`)

    Raises:
        ValueError: If :obj:`num_layers`, :obj:`grid_size` or :obj:`spline_order` is below 1.

    Example:
        >>> import torch
        >>> from kgat.kernels import KANScore
        >>> KANScore(4, heads=2)(torch.randn(3, 2, 4), torch.randn(5, 2, 4)).dense().shape
        torch.Size([3, 5, 2])
    """

    scalable = False

    def __init__(
        self, channels: int, heads: int = 1, num_layers: int = 2, grid_size: int = 4, spline_order: int = 3
    ) -> None:
        super().__init__(channels, heads)
        self.num_layers = num_layers = whole("num_layers", num_layers)
        self.grid_size = grid_size = whole("grid_size", grid_size)
        self.spline_order = spline_order = whole("spline_order", spline_order)
        widths = [2 * channels] + [channels] * (num_layers - 1) + [1]
        self.layers = torch.nn.ModuleList(
            _KANLayer(i, o, heads, grid_size, spline_order) for i, o in itertools.pairwise(widths)
        )

    def reset_parameters(self) -> None:
        for layer in self.layers:
            layer.reset_parameters()  # type: ignore[operator]

    def lift(self, query: Tensor, key: Tensor) -> LazyGram:
        first = self.layers[0]
        u = first(query, slice(None, self.channels))  # [..., N, H, D] or [..., N, H, 1]
        v = first(key, slice(self.channels, None))
        if self.num_layers == 1:
            return LazyGram(query_bias=u.squeeze(-1), key_bias=v.squeeze(-1))
        last: _KANLayer = self.layers[1]  # type: ignore[assignment]
        fused = self.num_layers == 2 and self.spline_order in _SPLINE_SUMS
        if not fused or not is_plain(last, _KANLayer):
            return LazyGram.of(u, v, self._rest)
        # In units of an interval, from the centre of each spline.
        base, spline = last.base.squeeze(-1), last.spline.squeeze(-1)  # [H, D], [H, D, G]
        splines = torch.arange(spline.size(-1), dtype=u.dtype, device=u.device)
        place = u.unsqueeze(-1) * (0.5 * self.grid_size) + (
            0.5 * self.grid_size + 0.5 * (self.spline_order - 1) - splines
        )
        shift = (v * (0.5 * self.grid_size)).unsqueeze(-1).expand(*v.shape, spline.size(-1))
        of_splines = ScoreRule(_SPLINE_SUMS[self.spline_order], weight=spline.flatten(-2))
        of_base = Term(u, v, ScoreRule(_SILU_SUM, weight=base))
        return LazyGram((of_base, Term(place.flatten(-2), shift.flatten(-2), of_splines)))

    def _rest(self, u: Tensor, v: Tensor) -> Tensor:
        x = u + v
        for layer in list(self.layers)[1:]:
            x = layer(x)
        return x.squeeze(-1)


class _KANLayer(torch.nn.Module):
    def __init__(
        self, in_channels: int, out_channels: int, heads: int, grid_size: int, spline_order: int
    ) -> None:
        super().__init__()
        self.grid_size = grid_size
        self.spline_order = spline_order
        self.base = Parameter(torch.empty(heads, in_channels, out_channels))
        self.spline = Parameter(torch.empty(heads, in_channels, grid_size + spline_order, out_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        glorot(self.base)
        torch.nn.init.normal_(self.spline, std=0.1 / math.sqrt(self.spline.size(1)))

    def knots(self, like: Tensor) -> Tensor:
        r"""Returns the grid over [-1, 1] and as many intervals on each side as a spline overlaps, in the
        precision of a tensor: a module that changes its own would keep the digits of its first."""
        steps = torch.arange(-self.spline_order, self.grid_size + self.spline_order + 1, device=like.device)
        return 2.0 / self.grid_size * steps.to(like) - 1.0

    def forward(self, x: Tensor, part: slice = slice(None)) -> Tensor:
        dtype = torch.promote_types(x.dtype, self.base.dtype)
        x = x.to(dtype)
        base, spline = self.base[:, part].to(dtype), self.spline[:, part].to(dtype)
        out = torch.einsum("...hi,hio->...ho", F.silu(x), base)
        basis = b_splines(x, self.knots(x), self.spline_order)
        return out + torch.einsum("...hig,higo->...ho", basis, spline)


def b_splines(x: Tensor, knots: Tensor, order: int) -> Tensor:
    r"""Evaluates all B-splines of degree :obj:`order` on :obj:`knots` (Cox-de Boor recursion).

    Args:
        x (torch.Tensor): Where.
        knots (torch.Tensor): :math:`K` increasing numbers.
        order (int): Degree.

    Shapes:
        - **x:** any, **knots:** :math:`(K)`
        - **output:** :math:`(*, K - 1 - \mathrm{order})`
    """
    # All are 0 beyond the knots, where products of distances could be larger than numbers are.
    x = x.clamp(knots[0] - 1.0, knots[-1] + 1.0).unsqueeze(-1)
    basis = ((x >= knots[:-1]) & (x < knots[1:])).to(x.dtype)
    for degree in range(1, order + 1):
        left = (x - knots[: -degree - 1]) / (knots[degree:-1] - knots[: -degree - 1])
        right = (knots[degree + 1 :] - x) / (knots[degree + 1 :] - knots[1:-degree])
        basis = left * basis[..., :-1] + right * basis[..., 1:]
    return basis


# Pairs: functions of the sum of a number of the query and one of the key. Knots of a spline are one apart,
# its centre is 0. Powers are of what is cut off at 0: those of any number could be larger than numbers are.


def _silu_sum(x, y):  # type: ignore[no-untyped-def]
    t = x + y
    fall = exp(-absolute(t))
    return t * where(t > 0.0, 1.0, fall) / (1.0 + fall)


def _spline_1(x, y):  # type: ignore[no-untyped-def]
    return maximum(1.0 - absolute(x + y), 0.0)


def _spline_2(x, y):  # type: ignore[no-untyped-def]
    t = absolute(x + y)
    return 0.5 * maximum(1.5 - t, 0.0) ** 2 - 1.5 * maximum(0.5 - t, 0.0) ** 2


def _spline_3(x, y):  # type: ignore[no-untyped-def]
    t = absolute(x + y)
    return maximum(2.0 - t, 0.0) ** 3 / 6.0 - 2 / 3 * maximum(1.0 - t, 0.0) ** 3


_SILU_SUM = Pair("silu_sum", lambda x, y: F.silu(x + y), scalar=_silu_sum)
_SPLINE_SUMS = {
    1: Pair("spline_1_sum", _spline_1),
    2: Pair("spline_2_sum", _spline_2),
    3: Pair("spline_3_sum", _spline_3),
}
