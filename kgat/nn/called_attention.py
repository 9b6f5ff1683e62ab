r"""What torch's transformer layers ask of the attention module inside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class CalledAttention:
    r"""An attention module that :class:`torch.nn.TransformerEncoderLayer` and its relatives always call.

    In evaluation without gradients, those layers take weights out of their attention module and compute plain
    softmax attention by themselves. They ask first whether one matrix projects queries, keys and values; the
    answer here is no, even where it is so.

    A :class:`torch.nn.TransformerEncoder` whose attention modules were exchanged after it was built asks
    nothing and looks at the weights alone, in order to make nested tensors of padded ones: a module without
    such weights shows :attr:`NO_WEIGHT` instead.

    Example:
        >>> import torch
        >>> from kgat.nn import KernelAttention
        >>> layer = torch.nn.TransformerEncoderLayer(8, 2, batch_first=True)
        >>> layer.self_attn = KernelAttention(8, 2, kernel="rbf")
        >>> layer.eval()(torch.randn(1, 3, 8)).shape
        torch.Size([1, 3, 8])
    """

    _qkv_same_embed_dim = False

    class _NoWeight:
        # A tensor of a kind that torch knows nothing about, which turns its shortcuts off.
        @classmethod
        def __torch_function__(
            cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            return NotImplemented

        def __bool__(self) -> bool:
            return False

    #: Stands for a weight that the module does not have.
    NO_WEIGHT = _NoWeight()
