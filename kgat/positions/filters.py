r"""Set filters: which keys a query sees, by their places.

The filters of `"Transformer Dissection" <https://arxiv.org/abs/1908.11775>`_ (section on set filtering):
:data:`full` is that of encoders, :data:`causal` of decoders, :func:`memory` of Transformer-XL,
:func:`strided` of Sparse Transformers; :func:`window` is local attention. Called with the places of queries
and keys, a filter returns the mask of :func:`kgat.functional.dense_attention`; :func:`visible_edges` lists
the same pairs as a graph for :func:`kgat.functional.edge_attention`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kgat.positions.position import Index, offsets, places


@dataclass(frozen=True)
class Filter:
    r"""The keys :math:`j` that a query :math:`i` sees, as a rule of their places.

    Args:
        name (str): Its name.
        of_offset (Callable): ``of_offset(i - j)`` is True where it lets through.
        first (int, optional): The first place of a key that is seen. (default: :obj:`None`)

    Shapes:
        - **query_index:** :math:`(N)`, **key_index:** :math:`(M)`, **output:** :math:`(N, M)`

    Example:
        >>> from kgat.positions import causal
        >>> causal(range(2), range(3))
        tensor([[ True, False, False],
                [ True,  True, False]])
    """

    name: str
    of_offset: Callable[[Tensor], Tensor]
    first: int | None = None

    def __call__(
        self, query_index: Index, key_index: Index, device: torch.device | str | None = None
    ) -> Tensor:
        r"""Returns the mask: True where a query sees a key.

        Args:
            query_index (torch.Tensor or range): Places of the queries.
            key_index (torch.Tensor or range): Places of the keys.
            device (torch.device, optional): Where the mask shall be; as the places, if :obj:`None`.
                (default: :obj:`None`)
        """
        mask = self.of_offset(offsets(query_index, key_index, device))
        return mask if self.first is None else mask & (places(key_index, device) >= self.first)

    def __repr__(self) -> str:
        return self.name


#: All keys.
full = Filter("full", lambda offset: torch.ones_like(offset, dtype=torch.bool))

#: :math:`\{ j : j \le i \}`.
causal = Filter("causal", lambda offset: offset >= 0)


def window(radius: int) -> Filter:
    r"""Sees the neighbourhood :math:`\{ j : |i - j| \le r \}`.

    Args:
        radius (int): :math:`r`.

    Raises:
        ValueError: If :obj:`radius` is negative.

    Example:
        >>> from kgat.positions import window
        >>> window(1)(range(3), range(3)).int()
        tensor([[1, 1, 0],
                [1, 1, 1],
                [0, 1, 1]], dtype=torch.int32)
    """
    if radius < 0:
        raise ValueError(f"Expected 'radius' of at least 0 (got {radius}); with 0 a token sees itself")
    return Filter(f"window({radius})", lambda offset: offset.abs() <= radius)


def strided(local: int, stride: int) -> Filter:
    r"""Sees the near past and every so-many-th key before, as in `"Generating Long Sequences with Sparse
    Transformers" <https://arxiv.org/abs/1904.10509>`_: :math:`\{ j : i - l \le j \le i \} \cup \{ j \le i :
    (i - j) \bmod s = 0 \}`.

    Args:
        local (int): :math:`l`.
        stride (int): :math:`s`.

    Raises:
        ValueError: If :obj:`local` is negative or :obj:`stride` is not positive.

    Example:
        >>> from kgat.positions import strided
        >>> strided(1, 3)(range(4, 6), range(6)).int()
        tensor([[0, 1, 0, 1, 1, 0],
                [0, 0, 1, 0, 1, 1]], dtype=torch.int32)
    """
    if local < 0 or stride < 1:
        raise ValueError(
            f"Expected 'local' of at least 0 and a positive 'stride' (got local={local}, stride={stride}); "
            f"with stride=1 all of the past is seen"
        )
    return Filter(
        f"strided({local}, {stride})",
        lambda offset: (offset >= 0) & ((offset <= local) | (offset % stride == 0)),
    )


def memory(size: int) -> Filter:
    r"""Sees the past of the segment and the memory before it, as in `"Transformer-XL"
    <https://arxiv.org/abs/1901.02860>`_: :math:`\{ j : -m \le j \le i \}`.

    The segment starts at place 0, its memory stands at the places :math:`-m, \dots, -1`.

    Args:
        size (int): :math:`m`.

    Raises:
        ValueError: If :obj:`size` is negative.

    Example:
        >>> from kgat.positions import memory
        >>> memory(1)(range(2), range(-2, 2)).int()
        tensor([[0, 1, 1, 0],
                [0, 1, 1, 1]], dtype=torch.int32)
    """
    if size < 0:
        raise ValueError(f"Expected 'size' of at least 0 (got {size}); 'causal' is the filter without memory")
    return Filter(f"memory({size})", lambda offset: offset >= 0, first=-size)


def visible_edges(
    visible: Filter,
    query_index: range | int,
    key_index: range | int,
    device: torch.device | str | None = None,
) -> Tensor:
    r"""Lists the pairs that a filter lets through as edges, keys above queries.

    What is built has the size of queries times *visible* offsets: for a window not that of all pairs.

    Args:
        visible (Filter): The filter.
        query_index (range or int): Places of the queries, one behind the other; :math:`N` means
            ``range(N)``.
        key_index (range or int): Places of the keys, likewise.
        device (torch.device, optional): Where the edges shall be. (default: :obj:`None`)

    Shapes:
        - **output:** :math:`(2, E)`: the number of the key and of the query in its sequence (not its place),
          ordered by query, then key

    Raises:
        ValueError: If places have gaps.

    Example:
        >>> from kgat.positions import visible_edges, window
        >>> visible_edges(window(1), 3, 3)
        tensor([[0, 1, 0, 1, 2, 1, 2],
                [0, 0, 1, 1, 1, 2, 2]])
    """
    queries, keys = (range(x) if isinstance(x, int) else x for x in (query_index, key_index))
    if queries.step != 1 or keys.step != 1:
        raise ValueError(f"Expected places without gaps (got {queries} and {keys}); use the mask's 'nonzero'")
    last = queries.start + len(queries) - 1 - keys.start
    offset = places(range(last, last - (len(queries) + len(keys) - 1), -1), device)
    offset = offset[visible.of_offset(offset)]  # from far to near, which is from the first key to the last
    row = torch.arange(len(queries), device=device).unsqueeze(-1)
    col = row + (queries.start - keys.start) - offset  # [N, visible offsets]
    first = 0 if visible.first is None else max(visible.first - keys.start, 0)
    seen = (col >= first) & (col < len(keys))
    return torch.stack([col[seen], row.expand_as(col)[seen]])
