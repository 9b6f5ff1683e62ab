r"""What a model is asked to do with sequences: their parts, their vocabulary and the metric of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kgat.brief import Brief
from kgat.datasets.task import first
from kgat.datasets.vocabulary import Vocabulary

METRICS = {"classification": "accuracy", "language_model": "perplexity", "translation": "bleu"}


@dataclass(frozen=True, eq=False, repr=False)
class Padded(Brief):
    r"""Sequences of several lengths in one tensor, zero beyond the end of each.

    Args:
        x (torch.Tensor): Token ids, or the channels of series.
        lengths (torch.Tensor): How many entries of each sequence count.

    Shapes:
        - **x:** :math:`(B, N)` int64 or :math:`(B, N, F)` float32, **lengths:** :math:`(B)`

    Example:
        >>> padded = Padded.of([torch.tensor([5, 6, 7]), torch.tensor([8])])
        >>> padded.x.tolist(), padded.lengths.tolist()
        ([[5, 6, 7], [8, 0, 0]], [3, 1])
        >>> padded.take(torch.tensor([1])).x.tolist()
        [[8]]
    """

    x: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, sequences: Sequence[Tensor]) -> Padded:
        r"""Pads sequences to the length of the longest."""
        lengths = torch.tensor([len(sequence) for sequence in sequences])
        return cls(torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True), lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def padding(self) -> Tensor:
        r"""The mask :math:`(B, N)` that attention takes as its padding mask: :obj:`True` beyond the end."""
        return torch.arange(self.x.size(1), device=self.x.device) >= self.lengths.unsqueeze(-1)

    def take(self, index: Tensor) -> Padded:
        r"""Returns some of the sequences, without padding that none of them needs."""
        lengths = self.lengths[index]
        longest = int(lengths.max()) if len(lengths) else 0
        return Padded(self.x[index, :longest], lengths)

    def to(self, device: torch.device | str) -> Padded:
        r"""Returns the same sequences on a device."""
        return Padded(self.x.to(device), self.lengths.to(device))


@dataclass(frozen=True, eq=False, repr=False)
class Labelled(Brief):
    r"""Sequences and their classes.

    Shapes:
        - **y:** :math:`(B)` int64
    """

    inputs: Padded
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: Tensor) -> Labelled:
        r"""Returns some of them."""
        return Labelled(self.inputs.take(index), self.y[index])


@dataclass(frozen=True, eq=False, repr=False)
class Stream(Brief):
    r"""One text as token ids, to be predicted token by token.

    Shapes:
        - **tokens:** :math:`(T)` int64
    """

    tokens: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, index: Tensor) -> Stream:
        r"""Returns the tokens at some places."""
        return Stream(self.tokens[index])


@dataclass(frozen=True, eq=False, repr=False)
class Pairs(Brief):
    r"""Sentences and their translations.

    Args:
        source (Padded): Token ids; each sentence ends in ``<eos>``.
        target (Padded): Token ids; each sentence is between ``<bos>`` and ``<eos>``.
        references (tuple of str): The translations as text, which BLEU compares with.
    """

    source: Padded
    target: Padded
    references: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.references)

    def take(self, index: Tensor) -> Pairs:
        r"""Returns some of them."""
        texts = tuple(self.references[i] for i in index.tolist())
        return Pairs(self.source.take(index), self.target.take(index), texts)


Part = Labelled | Stream | Pairs


@dataclass(frozen=True, eq=False, repr=False)
class SequenceTask(Brief):
    r"""Classification of sequences, language modelling or translation.

    The task owns its three parts and its metric. A function that trains takes :obj:`train` and :obj:`val`
    and never the task, so that it cannot see the test. Everything is checked once, here, at construction.

    Args:
        name (str): The canonical name of the data set.
        kind (str): :obj:`"classification"` (parts are :class:`Labelled`), :obj:`"language_model"`
            (:class:`Stream`) or :obj:`"translation"` (:class:`Pairs`).
        train (Labelled or Stream or Pairs): What is trained on.
        val (Labelled or Stream or Pairs): What chooses the model.
        test (Labelled or Stream or Pairs): What scores it, once.
        source (str): Paper, origin of the files, licence.
        preprocessing (str): What was done to the raw data, in one line.
        num_classes (int, optional): Number of classes of a classification. (default: :obj:`None`)
        vocabulary (Words or BytePairs, optional): What token ids stand for; :obj:`None` for series of
            numbers. (default: :obj:`None`)
        target_vocabulary (Words or BytePairs, optional): The same for translations. (default: :obj:`None`)

    Raises:
        ValueError: If parts are empty, of the wrong kind, not finite, or do not fit together.
        IndexError: If a class or a token id is out of range.

    Example:
        >>> from kgat.datasets import load_sequences
        >>> task = load_sequences("ListOps", lengths=(5, 20), sizes=(30, 10, 10))
        >>> task.kind, task.metric, task.num_classes, len(task.train), len(task.test)
        ('classification', 'accuracy', 10, 30, 10)
    """

    name: str
    kind: str
    train: Any
    val: Any
    test: Any
    source: str
    preprocessing: str
    num_classes: int | None = None
    vocabulary: Vocabulary | None = None
    target_vocabulary: Vocabulary | None = None

    def __post_init__(self) -> None:
        expected = {"classification": Labelled, "language_model": Stream, "translation": Pairs}
        if self.kind not in expected:
            raise ValueError(
                f"Expected 'kind' of '{self.name}' to be one of {tuple(expected)} (got '{self.kind}'); "
                "choose one of them"
            )
        for name, part in self.parts.items():
            where = f"part '{name}' of '{self.name}'"
            if not isinstance(part, expected[self.kind]):
                raise ValueError(
                    f"Expected {where} to be of {expected[self.kind].__name__} because "
                    f"kind='{self.kind}' (got {type(part).__name__}); build it so"
                )
            if len(part) == 0:
                raise ValueError(f"Expected sequences in {where} (got none); give each part at least one")
            if isinstance(part, Stream):
                _check_tokens(part.tokens, self.vocabulary, where)
            elif isinstance(part, Labelled):
                _check_inputs(part.inputs, self.vocabulary, len(part.y), where)
                _check_range(part.y, self.num_classes or 0, "classes", where)
            else:
                _check_inputs(part.source, self.vocabulary, len(part), where)
                _check_inputs(part.target, self.target_vocabulary, len(part), where)
        widths = {part.inputs.x.shape[2:] for part in self.parts.values() if isinstance(part, Labelled)}
        if len(widths) > 1:
            raise ValueError(
                f"Expected all parts of '{self.name}' to have the same channels (got "
                f"{sorted(list(width) for width in widths)}); the files do not belong together"
            )

    @property
    def parts(self) -> dict[str, Part]:
        r"""The three parts by name."""
        return {"train": self.train, "val": self.val, "test": self.test}

    @property
    def metric(self) -> str:
        r""":obj:`"accuracy"`, :obj:`"perplexity"` (smaller is better) or :obj:`"bleu"`."""
        return METRICS[self.kind]

    @property
    def in_channels(self) -> int | None:
        r"""Channels of a series; :obj:`None` for tokens."""
        return int(self.train.inputs.x.size(2)) if self.vocabulary is None else None

    @property
    def max_len(self) -> int | None:
        r"""Length of the longest sequence in any part; :obj:`None` for a stream, which has none."""
        padded: list[Padded] = []
        for part in self.parts.values():
            if not isinstance(part, Stream):
                padded += [part.inputs] if isinstance(part, Labelled) else [part.source, part.target]
        return max((sequences.x.size(1) for sequences in padded), default=None)


def _check_inputs(padded: Padded, vocabulary: Vocabulary | None, count: int, where: str) -> None:
    x, lengths = padded.x, padded.lengths
    if x.size(0) != count or lengths.shape != (count,):
        raise ValueError(
            f"Expected {count} sequences and lengths in {where} (got {list(x.shape)} and "
            f"{list(lengths.shape)}); pass one of each per sequence"
        )
    if at := first((lengths < 1) | (lengths > x.size(1))):
        raise ValueError(
            f"Expected lengths between 1 and {x.size(1)} in {where} (got {int(lengths[at])}); leave out "
            "empty ones"
        )
    if vocabulary is not None:
        _check_tokens(x, vocabulary, where)
    elif x.dim() != 3 or not x.is_floating_point():
        raise ValueError(
            f"Expected series of shape [B, N, F] in {where} (got {list(x.shape)} {x.dtype}); pass floats, or "
            "a vocabulary with token ids"
        )
    elif at := first(~x.isfinite()):
        row, step, channel = at
        raise ValueError(
            f"Expected finite values in {where} (got {float(x[at])} in series {row}, step {step}, channel "
            f"{channel}); repair or drop them"
        )


def _check_tokens(tokens: Tensor, vocabulary: Vocabulary | None, where: str) -> None:
    if vocabulary is None or tokens.dtype != torch.int64:
        got = "no vocabulary" if vocabulary is None else str(tokens.dtype)
        raise ValueError(f"Expected a vocabulary and int64 token ids in {where} (got {got}); pass both")
    _check_range(tokens, len(vocabulary), "token ids", where)


def _check_range(values: Tensor, size: int, what: str, where: str) -> None:
    if at := first((values < 0) | (values >= size)):
        raise IndexError(
            f"Expected {what} from 0 to {size - 1} in {where} (got {int(values[at])}); count from 0"
        )
