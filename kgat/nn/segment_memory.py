r"""Hidden states of earlier segments, which tokens of the next one see too."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from kgat.brief import Brief
from kgat.nn.numbers import check_whole


@dataclass(repr=False)
class SegmentMemory(Brief):
    r"""What a layer of `"Transformer-XL" <https://arxiv.org/abs/1901.02860>`_ keeps of a text that comes
    segment by segment: its last inputs, without their gradients.

    .. math::
        \mathbf{y}_i = \sum_{j \in S_1 \cup S_{\mathrm{mem}}} \alpha_{ij} \mathbf{W}_v \mathbf{x}_j, \qquad
        S_1 = \{j : 0 \le j \le i\}, \quad S_{\mathrm{mem}} = \{-m, \dots, -1\}

    with places counted from the start of the segment: the set filter that `"Transformer Dissection"
    <https://arxiv.org/abs/1908.11775>`_ finds best (:func:`kgat.positions.memory`). The caller makes one per
    layer (:meth:`kgat.KernelTransformer.empty_memory`) and hands it over with every segment. Unlike a
    :class:`KeyValueCache`, it holds states that are projected anew, so that weights learn from what they do
    to it.

    Args:
        size (int): How many states :math:`m` it keeps.

    Shapes:
        - **states:** :math:`(B, M, F)` with :math:`M \le m`, :obj:`None` before the first segment

    Raises:
        ValueError: If :obj:`size` is negative or not whole.

    Example:
        >>> import torch
        >>> from kgat.nn import SegmentMemory
        >>> memory = SegmentMemory(3)
        >>> for segment in torch.randn(3, 2, 2, 8):
        ...     seen = memory.joined(segment)
        ...     memory.hold(seen)
        ...     print(seen.size(1), memory.states.size(1))
        2 2
        4 3
        5 3
    """

    size: int
    states: Tensor | None = field(default=None, init=False)  # [B, up to m, F]

    def __post_init__(self) -> None:
        check_whole(0, size=self.size)

    def joined(self, x: Tensor) -> Tensor:
        r"""Returns what is kept with the states of a segment behind it. The memory stays as it is until
        :meth:`hold` is called.

        Shapes:
            - **x:** :math:`(B, N, F)`, **output:** :math:`(B, M + N, F)` with :math:`M \le m`

        Raises:
            ValueError: If the segment has no batch, or is not of the rows of those before.
        """
        if x.dim() != 3:
            raise ValueError(f"Expected segments of shape [B, N, F] (got {list(x.shape)}); give them a batch")
        if self.states is None:
            return x
        if x.shape[::2] != self.states.shape[::2]:
            raise ValueError(
                f"Expected segments of shape [B={self.states.size(0)}, N, F={self.states.size(2)}] after "
                f"those before (got {list(x.shape)}); begin other texts with an empty memory"
            )
        return torch.cat([self.states, x], dim=1)

    def hold(self, x: Tensor) -> None:
        r"""Keeps the last of what :meth:`joined` returned."""
        if self.size > 0:
            # Not a view: the caller may write the next segment to the memory of this one.
            self.states = x[:, -self.size :].detach().clone()
