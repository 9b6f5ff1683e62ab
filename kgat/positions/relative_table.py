r"""A learned vector for each offset."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter

from kgat.capture import without_autocast
from kgat.names import one_of
from kgat.positions.position import Index, Position, offsets

FORMS = ("table", "table-S")


class RelativeTable(Position):
    r"""A learned vector for each offset, as in `"Self-Attention with Relative Position Representations"
    <https://arxiv.org/abs/1803.02155>`_ and the look-up of `"Transformer Dissection"
    <https://arxiv.org/abs/1908.11775>`_.

    .. math::
        \text{table:} \quad & b_{ij} = \mathbf{q}_i^\top \mathbf{a}_{i-j}

        \text{table-S:} \quad & b_{ij} = \mathbf{q}_i^\top \mathbf{a}^K_{i-j} / \sqrt{D}, \qquad
        \mathbf{v}_{ij} = \mathbf{v}_j + \mathbf{a}^V_{i-j}

    with offsets clipped to :math:`[-L, L]`. The first form, without :math:`\sqrt D`, is how Transformer
    Dissection writes it, the second is the original (whose vectors are shared by all heads). A query is
    multiplied by :math:`2 L + 1` vectors, whatever the number of keys.

    Args:
        max_offset (int, optional): :math:`L`: what is further away counts as so far. (default: :obj:`16`)
        form (str, optional): :obj:`"table"` or :obj:`"table-S"`. (default: :obj:`"table"`)

    Shapes:
        - **query:** :math:`(*, N, H, D)`, **query_index:** :math:`(N)`, **key_index:** :math:`(M)`
        - **bias:** :math:`(*, N, M, H)`, **value_bias:** :math:`(N, M, H, D)`

    Raises:
        ValueError: If :obj:`max_offset` is negative or :obj:`form` unknown.

    Example:
        >>> import torch
        >>> from kgat.positions import RelativeTable
        >>> position = RelativeTable(8, num_heads=2, max_offset=4)
        >>> position.bias(torch.ones(3, 2, 4), range(3), range(5)).shape
        torch.Size([3, 5, 2])
    """

    def __init__(self, embed_dim: int, num_heads: int = 1, max_offset: int = 16, form: str = "table") -> None:
        super().__init__(embed_dim, num_heads)
        if max_offset < 0:
            raise ValueError(
                f"Expected 'max_offset' of at least 0 (got {max_offset}); 0 takes all offsets for one"
            )
        self.max_offset = max_offset
        self.form = one_of("form", form, FORMS)
        shape = (2 * max_offset + 1, num_heads, self.channels)
        self.a_key = Parameter(torch.empty(shape))
        self.register_parameter("a_value", None)
        if form == "table-S":
            self.a_value = Parameter(torch.empty(shape))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for table in (self.a_key, self.a_value):
            if table is not None:
                torch.nn.init.normal_(table, std=0.02)  # starts close to attention without places

    def bias(self, query: Tensor, query_index: Index, key_index: Index) -> Tensor:
        query = self._checked(query, query_index)
        rows = self._rows(query_index, key_index, query.device)
        with without_autocast(query.device):
            of_offset = torch.einsum("...nhd,phd->...hnp", query, self.a_key.to(query.dtype))
        if self.form == "table-S":
            of_offset = of_offset * self.channels**-0.5
        # One number per pair and head is gathered, never a vector.
        return of_offset.gather(-1, rows.expand(*of_offset.shape[:-1], -1)).movedim(-3, -1)

    def value_bias(self, query_index: Index, key_index: Index) -> Tensor | None:
        if self.a_value is None:
            return None
        rows = self._rows(query_index, key_index, self.a_value.device)
        return self.a_value.index_select(0, rows.flatten()).view(*rows.shape, *self.a_value.shape[1:])

    def _rows(self, query_index: Index, key_index: Index, device: torch.device) -> Tensor:
        limit = self.max_offset
        return offsets(query_index, key_index, device).clamp(-limit, limit).long() + limit  # [N, M]
