r"""Scores that fall with the distance."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter

from kgat.names import one_of
from kgat.positions.position import Index, Position, offsets

FORMS = ("log", "power")


class Kerple(Position):
    r"""A score that falls with the distance, one law per head, as in `"KERPLE: Kernelized Relative Positional
    Embedding for Length Extrapolation" <https://arxiv.org/abs/2205.09921>`_.

    .. math::
        \text{log:} \quad & b_{ij} = -r_1 \log(1 + r_2 |i - j|), \qquad r_1, r_2 > 0

        \text{power:} \quad & b_{ij} = -r_1 |i - j|^{r_2}, \qquad r_1 > 0,\; 0 < r_2 < 2

    Both are conditionally positive definite, so that :math:`\exp(b)` is a kernel of places and attention a
    product of kernels. It is the law that is learned, not a vector for each offset: it holds for sequences
    longer than any in training. Instead of clamping :math:`r` after each step, as the released code does, it
    is kept in range by :math:`r = \exp(\rho)`, and :math:`r_2 = 2 / (1 + \exp(-\rho_2))` for the power.

    Args:
        form (str, optional): :obj:`"log"` or :obj:`"power"`. (default: :obj:`"log"`)

    Shapes:
        - **query_index:** :math:`(N)`, **key_index:** :math:`(M)`, **bias:** :math:`(N, M, H)`

    Raises:
        ValueError: If :obj:`form` is unknown.

    Example:
        >>> import torch
        >>> from kgat.positions import Kerple
        >>> position = Kerple(8, num_heads=2)
        >>> position.bias(torch.ones(3, 2, 4), range(2, 5), range(5)).shape
        torch.Size([3, 5, 2])
    """

    def __init__(self, embed_dim: int, num_heads: int = 1, form: str = "log") -> None:
        super().__init__(embed_dim, num_heads)
        self.form = one_of("form", form, FORMS)
        self.rho_1 = Parameter(torch.empty(num_heads))
        self.rho_2 = Parameter(torch.empty(num_heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        # As released: the factor of a log and the exponent of a power are drawn from U(0, 2), the other from
        # U(0, 1), none below 0.01.
        with torch.no_grad():
            if self.form == "log":
                self.rho_1.uniform_(0.0, 2.0).clamp_(min=0.01).log_()
                self.rho_2.uniform_(0.0, 1.0).clamp_(min=0.01).log_()
            else:
                self.rho_1.uniform_(0.0, 1.0).clamp_(min=0.01).log_()
                self.rho_2.uniform_(0.0, 1.0).clamp_(0.005, 0.995).logit_()

    @property
    def r_1(self) -> Tensor:
        r""":math:`r_1` of each head, of shape :math:`(H)`."""
        return self.rho_1.to(torch.promote_types(self.rho_1.dtype, torch.float32)).exp()

    @property
    def r_2(self) -> Tensor:
        r""":math:`r_2` of each head, of shape :math:`(H)`."""
        rho = self.rho_2.to(torch.promote_types(self.rho_2.dtype, torch.float32))
        return rho.exp() if self.form == "log" else 2.0 * rho.sigmoid()

    def bias(self, query: Tensor, query_index: Index, key_index: Index) -> Tensor:
        r_1, r_2 = self.r_1, self.r_2
        distance = offsets(query_index, key_index, r_1.device).abs().to(r_1.dtype).unsqueeze(-1)  # [N, M, 1]
        return -r_1 * ((r_2 * distance).log1p() if self.form == "log" else distance.pow(r_2))
