r"""The relative waves of Transformer-XL."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter

from kgat.capture import is_exporting, without_autocast
from kgat.ops.plain import call_linear, is_plain
from kgat.positions.position import Index, Position, Span, consecutive, length, offsets, sinusoids


class TransformerXL(Position):
    r"""Projected waves of each offset, as in `"Transformer-XL: Attentive Language Models Beyond a
    Fixed-Length Context" <https://arxiv.org/abs/1901.02860>`_: the asymmetric product of `"Transformer
    Dissection" <https://arxiv.org/abs/1908.11775>`_, with the biases :math:`\mathbf{u}, \mathbf{v}` of the
    original.

    .. math::
        \mathrm{score}_{ij} = \frac{(\mathbf{q}_i + \mathbf{u})^\top \mathbf{k}_j
        + (\mathbf{q}_i + \mathbf{v})^\top \mathbf{W}_R \mathbf{r}_{i-j}}{\sqrt D}, \qquad
        \mathbf{r}_p = [\sin(p\, \omega_m) ; \cos(p\, \omega_m)]

    The first part is the dot-product kernel on :meth:`shift`, the second is :meth:`bias`, computed in one of
    two ways, neither of which holds a vector per pair. Consecutive places (a :class:`range` of several
    queries, a range of keys) have but :math:`N + M - 1` offsets: their scores are computed once and each row
    is shifted into place. For other places, and for one query, the waves are those of the difference of two
    angles, so that :math:`\mathbf{W}_R^\top (\mathbf{q}_i + \mathbf{v})` is turned by the angles of
    :math:`i` and meets the waves of :math:`j`:

    .. math::
        \sin((i - j) \omega) = \sin(i \omega) \cos(j \omega) - \cos(i \omega) \sin(j \omega), \qquad
        \cos((i - j) \omega) = \cos(i \omega) \cos(j \omega) + \sin(i \omega) \sin(j \omega)

    Args:
        embed_dim (int): Width of the tokens :math:`F = H D` and of :math:`\mathbf{r}`, which has one more if
            that is odd.
        num_heads (int, optional): Number of heads :math:`H`. (default: :obj:`1`)

    Shapes:
        - **query:** :math:`(*, N, H, D)`, **query_index:** :math:`(N)`, **key_index:** :math:`(M)`
        - **bias:** :math:`(*, N, M, H)`

    Raises:
        ValueError: If :obj:`embed_dim` is not a positive multiple of :obj:`num_heads`.

    Example:
        >>> import torch
        >>> from kgat.positions import TransformerXL
        >>> position = TransformerXL(8, num_heads=2)
        >>> query = position.shift(torch.ones(3, 2, 4))
        >>> position.bias(torch.ones(3, 2, 4), range(3), range(-2, 3)).shape  # two places of memory
        torch.Size([3, 5, 2])
    """

    def __init__(self, embed_dim: int, num_heads: int = 1) -> None:
        super().__init__(embed_dim, num_heads)
        self.wave_dim = embed_dim + embed_dim % 2  # a sine and a cosine of each frequency
        self.lin_wave = torch.nn.Linear(self.wave_dim, embed_dim, bias=False)  # W_R
        self.u = Parameter(torch.empty(num_heads, self.channels))
        self.v = Parameter(torch.empty(num_heads, self.channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        torch.nn.init.xavier_uniform_(self.lin_wave.weight)
        torch.nn.init.normal_(self.u, std=0.02)  # as in the released code
        torch.nn.init.normal_(self.v, std=0.02)

    def shift(self, query: Tensor) -> Tensor:
        return query + self.u.to(query.dtype)

    def bias(self, query: Tensor, query_index: Index, key_index: Index) -> Tensor:
        query = self._checked(query, query_index)
        with without_autocast(query.device):
            query = (query + self.v.to(query.dtype)) * self.channels**-0.5
            shifts = _consecutive(query_index) and _consecutive(key_index) and query.size(-3) > 1
            if shifts and not is_exporting():  # its shapes would leave out a length
                return self._shifted(query, query_index, key_index)  # type: ignore[arg-type]
            if is_plain(self.lin_wave, torch.nn.Linear):
                return self._turned(query, query_index, key_index)
            offset = offsets(query_index, key_index, query.device)
            w_r = call_linear(self.lin_wave, sinusoids(offset.flatten(), self.wave_dim, query))
            w_r = w_r.view(*offset.shape, self.num_heads, self.channels)
            return torch.einsum("...nhd,nmhd->...nmh", query, w_r)

    def _shifted(self, query: Tensor, query_index: range | Span, key_index: range | Span) -> Tensor:
        n, m = length(query_index), length(key_index)
        last = query_index.start + n - 1 - key_index.start
        r = sinusoids(consecutive(last, n + m - 1, -1), self.wave_dim, query)  # from far to near
        w_r = call_linear(self.lin_wave, r).view(-1, self.num_heads, self.channels)
        of_offset = torch.einsum("...nhd,phd->...hnp", query, w_r)  # [..., H, N, N + M - 1]
        return shifted(of_offset, m).movedim(-3, -1)

    def _turned(self, query: Tensor, query_index: Index, key_index: Index) -> Tensor:
        weight = self.lin_wave.weight.to(query.dtype).view(self.num_heads, self.channels, self.wave_dim)
        c_sin, c_cos = torch.einsum("...nhd,hdf->...nhf", query, weight).chunk(2, dim=-1)
        sin, cos = sinusoids(query_index, self.wave_dim, query).unsqueeze(-2).chunk(2, dim=-1)
        turned = torch.cat([c_cos * sin - c_sin * cos, c_sin * sin + c_cos * cos], dim=-1)
        return torch.einsum("...nhf,mf->...nmh", turned, sinusoids(key_index, self.wave_dim, query))


def _consecutive(index: Index) -> bool:
    return not isinstance(index, Tensor) and index.step == 1


def shifted(x: Tensor, width: int) -> Tensor:
    r"""Moves row :math:`i` of :math:`N \ge 2` rows to the left by :math:`N - 1 - i`: the relative shift.

    .. math::
        y_{ij} = x_{i,\, N - 1 - i + j}, \qquad 0 \le j < M

    Columns hold offsets from the largest to the smallest; after the shift, column :math:`j` is key
    :math:`j`. Only a reshape: with rows one shorter, each starts one later.

    Args:
        x (torch.Tensor): A number for each query and offset.
        width (int): Number of keys :math:`M`.

    Shapes:
        - **x:** :math:`(*, N, N + M - 1)`, **output:** :math:`(*, N, M)`

    Example:
        >>> import torch
        >>> from kgat.positions.transformer_xl import shifted
        >>> shifted(torch.arange(8).view(2, 4), 3)
        tensor([[1, 2, 3],
                [4, 5, 6]])
    """
    n, columns = x.shape[-2:]
    rows = x.flatten(-2)[..., n - 1 : n * columns - 1]
    return rows.unflatten(-1, (n, columns - 1))[..., :width]
