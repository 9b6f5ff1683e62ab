r"""Queries and keys turned by their places."""

from __future__ import annotations

import torch
from torch import Tensor

from kgat.names import one_of
from kgat.positions.position import Index, Position, places

LAYOUTS = ("half", "interleaved")


class Rotary(Position):
    r"""Queries and keys that are turned by angles proportional to their places, as in `"RoFormer: Enhanced
    Transformer with Rotary Position Embedding" <https://arxiv.org/abs/2104.09864>`_ (RoPE).

    .. math::
        \begin{bmatrix} x'_{a(m)} \\ x'_{b(m)} \end{bmatrix} =
        \begin{bmatrix} \cos p\, \theta_m & -\sin p\, \theta_m \\ \sin p\, \theta_m & \cos p\, \theta_m
        \end{bmatrix} \begin{bmatrix} x_{a(m)} \\ x_{b(m)} \end{bmatrix}, \qquad
        \theta_m = \beta^{-2 m / R}, \qquad 0 \le m < R / 2

    with :math:`p` the place of a token and two channels of each head that make a pair: :math:`a(m) = m,\,
    b(m) = m + R / 2` in halves, :math:`a(m) = 2 m,\, b(m) = 2 m + 1` if interleaved. Rotations keep inner
    products and distances, :math:`\langle \mathbf{R}_i \mathbf{q}, \mathbf{R}_j \mathbf{k} \rangle = \langle
    \mathbf{q}, \mathbf{R}_{j - i} \mathbf{k} \rangle`: under the dot product, RBF and any other kernel of
    inner products or Euclidean distances, a score depends on the offset of two places alone. Other kernels
    see turned queries and keys as well, but may depend on both places.

    A :class:`~kgat.nn.KeyValueCache` holds turned keys, and the places of a call begin where those of the
    last one ended. Heads of keys that serve several heads of queries are turned once.

    Args:
        base (float, optional): :math:`\beta`, ``rope_theta`` in Hugging Face's configurations.
            (default: :obj:`10000.0`)
        channels (int, optional): Number of channels :math:`R` of each head that are turned: the first ones.
            All :math:`D` if :obj:`None`, but for the last one where :math:`D` is odd;
            ``partial_rotary_factor`` is :math:`R / D`. (default: :obj:`None`)
        layout (str, optional): Which channels make a pair: :obj:`"half"`, as Hugging Face's Llama and
            GPT-NeoX have it, or :obj:`"interleaved"`, as the paper and GPT-J have it.
            (default: :obj:`"half"`)

    Shapes:
        - **x:** :math:`(*, N, H, D)`, **index:** :math:`(N)`

    Raises:
        ValueError: If the number of channels is odd, or more than a head has, the base is not positive, or
            the layout is unknown.

    Example:
        >>> import torch
        >>> from kgat.positions import Rotary
        >>> position = Rotary(4, layout="interleaved")
        >>> position.rotate(torch.tensor([1.0, 0.0, 1.0, 0.0]).view(1, 1, 4), range(1, 2)).flatten()
        tensor([0.5403, 0.8415, 0.9999, 0.0100])
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int = 1,
        base: float = 10000.0,
        channels: int | None = None,
        layout: str = "half",
    ) -> None:
        super().__init__(embed_dim, num_heads)
        turned = self.channels - self.channels % 2 if channels is None else channels
        if not 0 < turned <= self.channels or turned % 2 != 0:
            raise ValueError(
                f"Expected an even number of 'channels' between 2 and D={self.channels} (got {turned}); two "
                f"of them turn together, the others stay as they are"
            )
        if not 0.0 < base < float("inf"):
            raise ValueError(f"Expected a positive and finite 'base' (got {base}); the paper's is 10000.0")
        self.base = base
        self.rotary_channels = turned
        self.layout = one_of("layout", layout, LAYOUTS)

    def rotate(self, x: Tensor, index: Index) -> Tensor:
        size = self.rotary_channels
        m = torch.arange(size // 2, device=x.device, dtype=torch.float64)
        # Far from 0, single precision has no phase.
        angle = places(index, x.device).unsqueeze(-1) * self.base ** (-2.0 * m / size)  # [N, R / 2]
        wide = torch.promote_types(x.dtype, torch.float32)
        cos, sin = (t.to(wide).unsqueeze(-2) for t in (angle.cos(), angle.sin()))  # [N, 1, R / 2]
        turned = x[..., :size].to(wide)
        if self.layout == "half":
            a, b = turned.chunk(2, dim=-1)
            turned = torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
        else:
            a, b = turned[..., ::2], turned[..., 1::2]
            turned = torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)
        turned = turned.to(x.dtype)
        return turned if size == self.channels else torch.cat([turned, x[..., size:]], dim=-1)
