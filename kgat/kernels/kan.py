r"""The score of Kolmogorov-Arnold attention."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter
from torch_geometric.nn.inits import glorot

from kgat.gram import LazyGram
from kgat.kernels.kernel import Kernel


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
    even depend on the query.

    Args:
        channels (int): Channels per head :math:`D`.
        heads (int, optional): Number of heads :math:`H`. (default: :obj:`1`)
        num_layers (int, optional): Number of layers. (default: :obj:`2`)
        grid_size (int, optional): Number of grid intervals. (default: :obj:`4`)
        spline_order (int, optional): Degree of the splines; 3 has two continuous derivatives.
            (default: :obj:`3`)

    Shapes:
        - **query:** :math:`(*, N, H, D)`, **key:** :math:`(*, M, H, D)`
        - **score:** :math:`(E, H)` at edges, :math:`(*, N, M, H)` dense

    Raises:
        ValueError: If :obj:`num_layers`, :obj:`grid_size` or :obj:`spline_order` is below 1.

    Example:
        >>> import torch
        >>> from kgat.kernels import KANScore
        >>> KANScore(4, heads=2)(torch.randn(3, 2, 4), torch.randn(5, 2, 4)).dense().shape
        torch.Size([3, 5, 2])
    """

    def __init__(
        self,
        channels: int,
        heads: int = 1,
        num_layers: int = 2,
        grid_size: int = 4,
        spline_order: int = 3,
    ) -> None:
        super().__init__(channels, heads)
        if min(num_layers, grid_size, spline_order) < 1:
            raise ValueError(
                f"Expected 'num_layers', 'grid_size' and 'spline_order' of at least 1 (got "
                f"{num_layers}, {grid_size} and {spline_order})"
            )
        self.num_layers = num_layers
        self.grid_size = grid_size
        self.spline_order = spline_order
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
        return LazyGram.of(u, v, self._rest)

    def _rest(self, u: Tensor, v: Tensor) -> Tensor:
        x = u + v
        for layer in list(self.layers)[1:]:
            x = layer(x)
        return x.squeeze(-1)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, num_layers={self.num_layers}"


class _KANLayer(torch.nn.Module):
    knots: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, heads: int, grid_size: int, spline_order: int
    ) -> None:
        super().__init__()
        self.spline_order = spline_order
        self.base = Parameter(torch.empty(heads, in_channels, out_channels))
        self.spline = Parameter(torch.empty(heads, in_channels, grid_size + spline_order, out_channels))
        # The grid over [-1, 1] and as many intervals on each side as a spline overlaps.
        steps = torch.arange(-spline_order, grid_size + spline_order + 1)
        self.register_buffer("knots", 2.0 / grid_size * steps - 1.0, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        glorot(self.base)
        torch.nn.init.normal_(self.spline, std=0.1 / math.sqrt(self.spline.size(1)))

    def forward(self, x: Tensor, part: slice = slice(None)) -> Tensor:
        dtype = torch.promote_types(x.dtype, self.base.dtype)
        x = x.to(dtype)
        base, spline = self.base[:, part].to(dtype), self.spline[:, part].to(dtype)
        out = torch.einsum("...hi,hio->...ho", F.silu(x), base)
        basis = b_splines(x, self.knots.to(dtype), self.spline_order)
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
    x = x.unsqueeze(-1)
    basis = ((x >= knots[:-1]) & (x < knots[1:])).to(x.dtype)
    for degree in range(1, order + 1):
        left = (x - knots[: -degree - 1]) / (knots[degree:-1] - knots[: -degree - 1])
        right = (knots[degree + 1 :] - x) / (knots[degree + 1 :] - knots[1:-degree])
        basis = left * basis[..., :-1] + right * basis[..., 1:]
    return basis
