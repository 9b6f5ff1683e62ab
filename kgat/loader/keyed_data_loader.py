r"""Batches that carry what their random numbers depend on, whichever process draws them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any

import torch
from torch.utils.data import DataLoader

from kgat.ops.graph.mixing import FIRST, SECOND

_BITS = (1 << 63) - 1


class KeyedIndices(list[int]):
    r"""The places of a batch among the inputs, with the key of its draws."""

    key: int | None = None


class _Inputs:
    # A batch passes as it is, with its key.
    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        return index

    def __getitems__(self, indices: list[int]) -> list[int]:
        return indices


class _Batches:
    # Iterators that keep their workers keep this object, too, for all epochs.
    def __init__(self, batches: Any, loader: KeyedDataLoader) -> None:
        self.batches, self.loader = batches, loader

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[KeyedIndices]:
        # The key is read now, and not with the first batch: another iterator may begin before that.
        return self._keyed(self.loader._key, self.loader.stream << 32)

    def _keyed(self, key: int, first: int) -> Iterator[KeyedIndices]:
        if self.loader.seed is not None:
            # Torch draws a seed for workers first, but not for those that it keeps.
            generator = self.loader.generator.manual_seed(key)
            torch.empty((), dtype=torch.int64).random_(generator=generator)
        for number, batch in enumerate(self.batches):
            indices = KeyedIndices(batch)
            indices.key = ((key + (first + number) * FIRST) * SECOND) & _BITS
            yield indices


class KeyedDataLoader(DataLoader[Any]):
    r"""A data loader whose batches depend on a seed, the epoch and their number, and not on its workers.

    Args:
        dataset (range): The places of the inputs.
        seed (int, optional): If given, also what ``shuffle`` draws depends on it and the epoch alone; else
            torch's own generator decides. (default: :obj:`None`)
        **kwargs (optional): As of :class:`torch.utils.data.DataLoader`.

    Raises:
        ValueError: If the seed is out of range.
    """

    stream = 0  # of draws: processes that share batches have one each

    def __init__(self, dataset: Sized, seed: int | None = None, **kwargs: Any) -> None:
        if seed is not None and not 0 <= seed < 1 << 63:
            raise ValueError(f"Expected 'seed' in [0, 2^63) (got {seed}); None takes torch's generator")
        self.seed, self.epoch, self._key = seed, 0, 0
        if seed is not None and kwargs.get("generator") is None:
            kwargs["generator"] = torch.Generator()
        super().__init__(_Inputs(len(dataset)), **kwargs)  # type: ignore[arg-type]

    def set_epoch(self, epoch: int) -> None:
        r"""Says which epoch comes next, as after a restart; otherwise they are counted from 0.

        Args:
            epoch (int): Its number.
        """
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        r"""Returns what a checkpoint needs for the epochs that follow."""
        return {"epoch": self.epoch}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        r"""Goes on after the epoch that :meth:`state_dict` was called at.

        Args:
            state (dict): What it returned.
        """
        self.set_epoch(state["epoch"])

    @property
    def _index_sampler(self) -> Iterable[Any]:
        batches: Any = super()._index_sampler  # type: ignore[misc]
        return _Batches(batches, self) if self._auto_collation else batches  # type: ignore[attr-defined]

    def __iter__(self) -> Any:
        if self.seed is None:
            self._key = int(torch.randint(_BITS, ()))
        else:
            self._key = ((self.seed + 1) * FIRST ^ (self.epoch + 1) * SECOND) & _BITS
            self.generator.manual_seed(self._key)
        self.epoch += 1
        return super().__iter__()
