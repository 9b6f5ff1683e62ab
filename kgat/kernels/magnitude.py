r"""The L^p magnitude: how important a node is by itself."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter

from kgat.kernels.kernel import Kernel, Product, number
from kgat.names import one_of
from kgat.ops.precision import at_least_single
from kgat.score.gram import LazyGram
from kgat.score.rules import ADD, DROPOUT, ScoreRule


class Magnitude(Kernel):
    r"""The exponential of squared L^p norms, as in `"Implicit Kernel Attention"
    <https://arxiv.org/abs/2006.06147>`_.

    .. math::
        \log k(\mathbf{q}, \mathbf{k}) = \big( \lVert \mathbf{q} \rVert_p^2 + \lVert \mathbf{k}
        \rVert_p^2 \big) / (2 \sqrt D)

    It never compares query and key: it is the part of dot-product attention that says how much a
    key matters to everyone. The query's norm cancels in the softmax. Smaller :math:`p` makes it
    stronger, so that attention gets sparser. Multiply it with a similarity: ``RBF(D) * Magnitude(D,
    p=1.5)``.

    Use it when some nodes matter more to everyone, as one factor of a product. A layer multiplies by it with
    ``magnitude=1.5``, a name with ``rbf*l1.5``; ``rbf*lp`` learns the order.

    Args:
        p (float, optional): Order of the norm, at least 1, or :obj:`math.inf`, the largest entry; the initial
            value if it is learned. (default: :obj:`2.0`)
        learn_p (str, optional): :obj:`"layer"` or :obj:`"head"` learns :math:`p = 1 +
            \mathrm{softplus}(\rho)`, one for the layer or one per head. (default: :obj:`None`)
        scale_norm (bool, optional): Multiplies the squared norm by :math:`D^{1 - 2/p}`, which keeps
            its value at the all-ones vector, so that different :math:`p` compare fairly. (default:
            :obj:`False`)
        dropout (float, optional): Probability with which, in training, the score of a *pair* is dropped to 0,
            that of others divided by one minus it, as the released code does with 0.1. The query's norm then
            no longer cancels, and there is no finite feature map. (default: :obj:`0.0`)

    Raises:
        ValueError: If :obj:`p` is below 1 (or not above 1 where it is learned), :obj:`learn_p` unknown, or
            :obj:`dropout` not in [0, 1).

    Example:
        >>> import torch
        >>> from kgat.kernels import Magnitude
        >>> kernel = Magnitude(4, p=1.0)
        >>> kernel(torch.zeros(1, 1, 4), torch.ones(1, 1, 4)).dense().item()  # 4^2 / (2 * 2)
        4.0
    """

    symmetric = True
    positive_definite = True
    undecayed = ("rho",)

    def __init__(
        self,
        channels: int,
        heads: int = 1,
        p: float = 2.0,
        learn_p: str | None = None,
        scale_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(channels, heads)
        if not number("p", p, math.inf) >= 1.0 or (learn_p is not None and not 1.0 < p < math.inf):
            bound = "above 1, where it is learned, and finite" if learn_p is not None else "of at least 1"
            raise ValueError(f"Expected 'p' {bound} (got {p}); an L^p norm needs p >= 1")
        if not 0.0 <= number("dropout", dropout) < 1.0:
            raise ValueError(
                f"Expected 'dropout' in [0, 1) (got {dropout}); 0 drops nothing, 1 would drop all"
            )
        self.initial_p = float(p)
        self.learn_p = one_of("learn_p", learn_p, (None, "layer", "head"))
        self.scale_norm = scale_norm
        self.dropout = float(dropout)
        if learn_p is None:
            self.register_parameter("rho", None)
        else:
            self.rho = Parameter(torch.empty(heads if learn_p == "head" else 1, 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.rho is not None:  # the inverse of softplus
            above = self.initial_p - 1.0
            torch.nn.init.constant_(self.rho, above + math.log(-math.expm1(-above)))

    @property
    def p(self) -> float | Tensor:
        r"""The order of the norm: a number, or :math:`(1, 1)` or :math:`(H, 1)` where it is
        learned."""
        return self.initial_p if self.rho is None else 1.0 + F.softplus(at_least_single(self.rho))

    def lift(self, query: Tensor, key: Tensor) -> LazyGram:
        a = self.half_norm(query)
        b = a if key is query else self.half_norm(key)
        if self.training and self.dropout > 0.0:
            rule = ScoreRule(ADD, DROPOUT, link_args=(self.dropout,))
            return LazyGram.of(a.unsqueeze(-1), b.unsqueeze(-1), rule)
        return LazyGram(query_bias=a, key_bias=b)

    def half_norm(self, x: Tensor) -> Tensor:
        r"""Returns what a node adds to every score: :math:`\lVert \mathbf{x} \rVert_p^2 / (2 \sqrt D)`.

        Shapes:
            - **x:** :math:`(*, N, H, D)`, **output:** :math:`(*, N, H)`
        """
        p = self.p
        norm = squared_norm(x, p)
        if self.scale_norm:
            exponent = 1.0 - 2.0 / p
            factor = self.channels**exponent
            norm = norm * (factor if isinstance(factor, float) else factor.squeeze(-1))
        return norm / (2.0 * math.sqrt(self.channels))


def with_magnitude(kernel: Kernel, magnitude: float | str | None) -> Kernel:
    r"""Returns a kernel times a :class:`Magnitude` of its size, as layers take it.

    Args:
        kernel (Kernel): The similarity.
        magnitude (float or str, optional): The order p, :obj:`"learned"` for one of the layer, or :obj:`None`
            for the kernel alone.

    Raises:
        ValueError: If it is another text, a switch, or p is below 1.
    """
    if magnitude is None:
        return kernel
    if magnitude == "learned":
        return Product(kernel, Magnitude(kernel.channels, kernel.heads, learn_p="layer"))
    if isinstance(magnitude, (str, bool)):  # True would be the order 1
        raise ValueError(
            f"Expected 'magnitude' as None, a number p or 'learned' (got {magnitude!r}); p=2 is Euclidean"
        )
    return Product(kernel, Magnitude(kernel.channels, kernel.heads, p=magnitude))


def squared_norm(x: Tensor, p: float | Tensor) -> Tensor:
    r"""Computes :math:`\lVert \mathbf{x} \rVert_p^2 = (\sum_c |x_c|^p)^{2/p}`, twice differentiable
    at zeros.

    Args:
        x (torch.Tensor): Vectors along the last dimension.
        p (float or torch.Tensor): At least 1; a tensor broadcasts against :obj:`x`.

    Shapes:
        - **x:** :math:`(*, H, D)`, **p:** :math:`(H, 1)` or :math:`(1, 1)`
        - **output:** :math:`(*, H)`
    """
    if not isinstance(p, Tensor) and p == 2.0:
        return x.square().sum(dim=-1)
    if not isinstance(p, Tensor) and p == 1.0:
        return x.abs().sum(dim=-1).square()
    if not isinstance(p, Tensor) and p == math.inf:
        return x.abs().amax(dim=-1).square()
    # (x^2 + tiny)^(p/2) stands for |x|^p, whose second derivative at 0 is infinite for 1 < p < 2.
    # The largest entry is taken out, so that neither a large p nor a large x overflows.
    largest = x.detach().abs().amax(dim=-1, keepdim=True)
    # A zero vector has tiny itself taken out: its power of a large p is 0, and the slope of a root infinite.
    scale = torch.where(largest > 0, largest, 1e-6)
    tiny = torch.where(largest > 0, torch.full_like(largest, 1e-12), 1.0)
    powers = ((x / scale).square() + tiny).pow(0.5 * p)
    exponent = 2.0 / p if not isinstance(p, Tensor) else (2.0 / p).squeeze(-1)
    return scale.squeeze(-1).square() * powers.sum(dim=-1).pow(exponent)
