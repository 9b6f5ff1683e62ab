r"""Scores that fall linearly with the distance."""

from __future__ import annotations

import torch
from torch import Tensor

from kgat.names import one_of
from kgat.positions.position import Index, Position, offsets

FORMS = ("symmetric", "causal")


class ALiBi(Position):
    r"""A score that falls linearly with the distance, with a fixed slope per head, as in `"Train Short, Test
    Long: Attention with Linear Biases Enables Input Length Extrapolation" <https://arxiv.org/abs/2108.12409>`_.

    .. math::
        b_{ij} = -m_h\, |i - j|, \qquad m_h = 2^{-8 h / H}, \qquad 1 \le h \le H

    for a number of heads :math:`H` that is a power of 2. For other numbers, the first slopes are those of
    :math:`P`, the largest power of 2 below :math:`H`, and the others the 1st, 3rd, 5th and so on of those of
    :math:`2 P`, as in the released code. Nothing is learned; :math:`\exp(b)` is a Laplace kernel of places.

    Args:
        form (str, optional): :obj:`"symmetric"`, which is the paper's too where attention is causal, or
            :obj:`"causal"`, which hides later keys by itself (:math:`b_{ij} = -\infty` for :math:`j > i`).
            (default: :obj:`"symmetric"`)

    Shapes:
        - **query_index:** :math:`(N)`, **key_index:** :math:`(M)`, **bias:** :math:`(N, M, H)`

    Raises:
        ValueError: If :obj:`form` is unknown.

    Example:
        >>> import torch
        >>> from kgat.positions import ALiBi
        >>> position = ALiBi(8, num_heads=2)
        >>> position.slopes
        tensor([0.0625, 0.0039])
        >>> position.bias(torch.ones(1, 2, 4), range(2, 3), range(4))[..., 0]
        tensor([[-0.1250, -0.0625, -0.0000, -0.0625]])
    """

    def __init__(self, embed_dim: int, num_heads: int = 1, form: str = "symmetric") -> None:
        super().__init__(embed_dim, num_heads)
        self.form = one_of("form", form, FORMS)

    @property
    def slopes(self) -> Tensor:
        r""":math:`m` of each head, of shape :math:`(H)`."""
        return self._slopes(torch.empty(0))

    def _slopes(self, like: Tensor) -> Tensor:
        # Made where they are needed: a buffer would be rounded with a module in half precision.
        power = 2 ** (self.num_heads.bit_length() - 1)
        h = torch.arange(1, self.num_heads + 1, device=like.device, dtype=torch.float64)
        exponent = torch.where(h <= power, 8.0 * h / power, 4.0 * (2.0 * (h - power) - 1.0) / power)
        return (-exponent).exp2().to(torch.promote_types(like.dtype, torch.float32))

    def bias(self, query: Tensor, query_index: Index, key_index: Index) -> Tensor:
        slopes = self._slopes(query)
        offset = offsets(query_index, key_index, query.device).to(slopes.dtype).unsqueeze(-1)  # [N, M, 1]
        bias = -slopes * offset.abs()
        return bias if self.form == "symmetric" else bias.masked_fill(offset < 0, -torch.inf)
