r"""A kernel of places beside the kernel of tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kgat import kernels
from kgat.capture import without_autocast
from kgat.kernels import Context, KernelLike
from kgat.ops.plain import call_linear
from kgat.positions.position import Index, Position, sinusoids
from kgat.score.gram import Gram


class SymmetricProduct(Position):
    r"""The product of a kernel of tokens and a kernel of places, as proposed in `"Transformer Dissection"
    <https://arxiv.org/abs/1908.11775>`_.

    .. math::
        k\big( (\mathbf{f}_i, t_i), (\mathbf{f}_j, t_j) \big) = k_F(\mathbf{f}_i, \mathbf{f}_j)\;
        k_T(\mathbf{W}_T \mathbf{t}_i, \mathbf{W}_T \mathbf{t}_j)

    One :math:`\mathbf{W}_T` for queries and keys makes :math:`k_T` symmetric. With the dot product on both
    sides this is dot-product attention on :math:`[\mathbf{W}_F \mathbf{f} ; \mathbf{W}_T \mathbf{t}]`, with
    the scale :math:`1 / \sqrt D` of one part (not :math:`1 / \sqrt{2 D}`); no term crosses tokens and places.

    Args:
        embed_dim (int): Width :math:`F = H D` of the tokens and of :math:`\mathbf{t}`, which are
            :func:`~kgat.positions.sinusoids`.
        num_heads (int, optional): Number of heads :math:`H`. (default: :obj:`1`)
        kernel (str, type, callable or Kernel, optional): :math:`k_T`, as :func:`kgat.kernels.resolve` takes
            it. (default: :obj:`"dot_product"`)
        kernel_kwargs (dict, optional): Further arguments of the kernel. (default: :obj:`None`)

    Shapes:
        - **query_index:** :math:`(N)`, **key_index:** :math:`(M)`

    Raises:
        ValueError: If the kernel is unknown or made for other heads and channels.

    Example:
        >>> import torch
        >>> from kgat.kernels import DotProduct
        >>> from kgat.positions import SymmetricProduct
        >>> position = SymmetricProduct(8, num_heads=2)
        >>> query, key = torch.randn(3, 2, 4), torch.randn(5, 2, 4)
        >>> gram = DotProduct(4, heads=2)(query, key) * position.gram(range(2, 5), range(5))
        >>> gram.dense().shape
        torch.Size([3, 5, 2])
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int = 1,
        kernel: KernelLike = "dot_product",
        kernel_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(embed_dim, num_heads)
        self.kernel = kernels.resolve(kernel, self.channels, num_heads, **(kernel_kwargs or {}))
        # The kernel shows itself; what it was built by may be a function, which no pickle takes.
        for name in ("kernel", "kernel_kwargs"):
            self._arguments.pop(name, None)
        self.lin_place = torch.nn.Linear(embed_dim, embed_dim, bias=False)  # W_T
        self.reset_parameters()

    def reset_parameters(self) -> None:
        self.kernel.reset_parameters()
        torch.nn.init.xavier_uniform_(self.lin_place.weight)

    def gram(self, query_index: Index, key_index: Index, losses: list[Tensor] | None = None) -> Gram:
        query = self._lifted(query_index)
        key = query if key_index is query_index else self._lifted(key_index)
        return self.kernel(query, key, Context(losses=losses))

    def _lifted(self, index: Index) -> Tensor:
        # A quantised module has no parameters.
        like = next(self.lin_place.parameters(), torch.empty(0))
        with without_autocast(like.device):
            t = sinusoids(index, self.embed_dim, like)
            return call_linear(self.lin_place, t).view(-1, self.num_heads, self.channels)
