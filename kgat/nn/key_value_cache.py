r"""Keys and values that decoding need not project anew."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from kgat.brief import Brief
from kgat.names import bare


@dataclass(repr=False)
class KeyValueCache(Brief):
    r"""Projected keys and values of earlier calls, for decoding one token after the other.

    The caller makes one per layer and hands it over with every call. The keys of a call join those that are
    held; a :obj:`fixed` one holds those of its first call, as attention to the output of an encoder wants.

    Args:
        fixed (bool, optional): Whether keys and values stay those of the first call. (default: :obj:`False`)

    Shapes:
        - **key, value:** :math:`(B, M, H, D)`, **padding:** :math:`(B, M)`

    Example:
        >>> import torch
        >>> from kgat.nn import KernelAttention, KeyValueCache
        >>> attention, cache, x = KernelAttention(8, 2), KeyValueCache(), torch.randn(1, 3, 8)
        >>> steps = [attention(x[:, i : i + 1], is_causal=True, cache=cache)[0] for i in range(3)]
        >>> torch.allclose(torch.cat(steps, dim=1), attention(x, is_causal=True)[0], atol=1e-6)
        True
    """

    fixed: bool = False
    key: Tensor | None = field(default=None, init=False)  # [B, M, H, D]
    value: Tensor | None = field(default=None, init=False)
    padding: Tensor | None = field(default=None, init=False)  # [B, M], True is padding
    queries: int = field(default=0, init=False)  # of earlier calls: the place of the next one

    def __len__(self) -> int:
        return 0 if self.key is None else self.key.size(1)

    @property
    def complete(self) -> bool:
        r"""Whether further calls bring no keys."""
        return self.fixed and self.key is not None

    @property
    def held(self) -> tuple[Tensor, Tensor, Tensor | None]:
        r"""The keys and values of all calls so far, and which of them are padding."""
        assert self.key is not None
        assert self.value is not None
        return self.key, self.value, self.padding

    def joined(
        self, key: Tensor, value: Tensor, padding: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        r"""Returns what is :attr:`held` with keys and values behind it, and which of all are padding. The
        cache stays as it is until :meth:`hold` is called.

        Raises:
            ValueError: If padding is not bool, or keys are not of the sequences of earlier calls.
        """
        if padding is not None and padding.dtype != torch.bool:
            raise ValueError(
                f"Expected a bool 'key_padding_mask' beside a cache (got {bare(padding.dtype)}); True hides "
                f"a key"
            )
        if self.key is None or self.value is None:
            # The mask is the caller's, who may use its memory for the next call.
            return key, value, None if padding is None else padding.clone()
        self.check(key)
        if self.padding is not None or padding is not None:
            parts = ((self.padding, self.key), (padding, key))
            padding = torch.cat(
                [x.new_zeros(x.shape[:2], dtype=torch.bool) if p is None else p for p, x in parts], dim=1
            )
        return torch.cat([self.key, key], dim=1), torch.cat([self.value, value], dim=1), padding

    def check(self, tokens: Tensor) -> None:
        r"""Refuses tokens of other sequences than those whose keys are held.

        Shapes:
            - **tokens:** :math:`(B, ...)`
        """
        if self.key is not None and tokens.size(0) != self.key.size(0):
            raise ValueError(
                f"Expected {self.key.size(0)} sequences, as in earlier calls with this cache (got "
                f"{tokens.size(0)}); begin others with an empty cache"
            )

    def hold(self, key: Tensor, value: Tensor, padding: Tensor | None, queries: int) -> None:
        r"""Keeps what :meth:`joined` returned, after a call with so many queries."""
        self.key, self.value, self.padding = key, value, padding
        self.queries += queries

    def select(self, index: Tensor) -> None:
        r"""Keeps the sequences of the batch that :obj:`index` names, as a beam search does.

        Shapes:
            - **index:** :math:`(B')`
        """
        if self.key is not None and self.value is not None:
            self.key, self.value = self.key.index_select(0, index), self.value.index_select(0, index)
        if self.padding is not None:
            self.padding = self.padding.index_select(0, index)
