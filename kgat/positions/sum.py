r"""Places added to tokens."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter

from kgat.positions.position import Index, Position, places, sinusoids


class Sum(Position):
    r"""Places added to the tokens, as in `"Attention Is All You Need" <https://arxiv.org/abs/1706.03762>`_:
    the direct sum of `"Transformer Dissection" <https://arxiv.org/abs/1908.11775>`_.

    .. math::
        k(\mathbf{q}, \mathbf{k}) = k\big( \mathbf{W}_q (\mathbf{f}_i + \mathbf{t}_i),
        \mathbf{W}_k (\mathbf{f}_j + \mathbf{t}_j) \big)

    For the dot product these are four terms: token to token, token to place, place to token and place to
    place.

    Args:
        embed_dim (int): Width of the tokens :math:`F`.
        num_heads (int, optional): Number of heads :math:`H`. (default: :obj:`1`)
        max_length (int, optional): Number of places of a learned :math:`\mathbf{t}`, which has none below 0;
            if :obj:`None`, they are :func:`~kgat.positions.sinusoids` and go on for ever.
            (default: :obj:`None`)
        in_values (bool, optional): Whether values are :math:`\mathbf{W}_v (\mathbf{f}_j + \mathbf{t}_j)`
            (v1 of the paper) and not :math:`\mathbf{W}_v \mathbf{f}_j` (v2). (default: :obj:`False`)

    Shapes:
        - **x:** :math:`(*, N, F)`, **index:** :math:`(N)`

    Raises:
        ValueError: If :obj:`max_length` is not positive.

    Example:
        >>> import torch
        >>> from kgat.positions import Sum
        >>> Sum(4).add(torch.zeros(2, 4), range(2))
        tensor([[0.0000, 0.0000, 1.0000, 1.0000],
                [0.8415, 0.0100, 0.5403, 0.9999]])
    """

    def __init__(
        self, embed_dim: int, num_heads: int = 1, max_length: int | None = None, in_values: bool = False
    ) -> None:
        super().__init__(embed_dim, num_heads)
        if max_length is not None and max_length < 1:
            raise ValueError(
                f"Expected 'max_length' as None or positive (got {max_length}); None makes sinusoids"
            )
        self.max_length = max_length
        self.in_values = in_values
        self.register_parameter("t", None)
        if max_length is not None:
            self.t = Parameter(torch.empty(max_length, embed_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.t is not None:
            torch.nn.init.normal_(self.t, std=0.02)  # small beside tokens, as BERT and GPT have it

    def add(self, x: Tensor, index: Index) -> Tensor:
        if self.t is None or self.max_length is None:
            t = sinusoids(index, self.embed_dim, x)
        else:
            p = places(index, x.device)
            try:
                t = self.t.index_select(0, p)
            except (IndexError, RuntimeError) as error:
                raise IndexError(
                    f"Expected places in [0, {self.max_length - 1}] because 'max_length={self.max_length}' "
                    f"(got {p.tolist()}); build it longer, or sinusoidal with 'max_length=None'"
                ) from error
        return x + t.to(x.dtype)
