r"""From text to token ids and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any

PAD, UNK, BOS, EOS = "<pad>", "<unk>", "<bos>", "<eos>"
SPECIALS = (PAD, UNK, BOS, EOS)


class Words:
    r"""A vocabulary of words that white space separates.

    Args:
        words (list of str): The words; a word's id is its place. Those that are not in it become
            :obj:`"<unk>"`.

    Raises:
        ValueError: If a word occurs twice.

    Example:
        >>> words = Words.of(["a rose is a rose", "is it"], min_count=2)
        >>> words.words
        ('<pad>', '<unk>', '<bos>', '<eos>', 'a', 'is', 'rose')
        >>> words.encode("a red rose"), words.decode([4, 1, 6, 3, 0])
        ([4, 1, 6], 'a <unk> rose')
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self.index = {word: i for i, word in enumerate(self.words)}
        if len(self.index) != len(self.words):
            twice = next(word for word, count in Counter(self.words).items() if count > 1)
            raise ValueError(f"Expected words that occur once (got '{twice}' twice); drop one")

    @classmethod
    def of(cls, texts: Iterable[str], min_count: int = 1, specials: Sequence[str] = SPECIALS) -> Words:
        r"""Counts the words of texts: frequent ones first, equally frequent ones in alphabetical order.

        Args:
            texts (list of str): The texts.
            min_count (int, optional): How often a word must occur. (default: :obj:`1`)
            specials (list of str, optional): Words that come first in any case. (default: ``<pad>``,
                ``<unk>``, ``<bos>`` and ``<eos>``)
        """
        counts = Counter(word for text in texts for word in text.split())
        kept = [word for word, count in counts.items() if count >= min_count and word not in specials]
        return cls([*specials, *sorted(kept, key=lambda word: (-counts[word], word))])

    def __repr__(self) -> str:
        return f"{type(self).__name__} of {len(self)}"

    def __len__(self) -> int:
        return len(self.words)

    def id(self, word: str) -> int:
        r"""Returns the id of a word, that of :obj:`"<unk>"` if there is none."""
        place = self.index.get(word, self.index.get(UNK))
        if place is None:
            raise ValueError(f"Expected a word of the vocabulary (got '{word}'); it has no '{UNK}'")
        return place

    def encode(self, text: str) -> list[int]:
        r"""Returns the ids of the words of a text."""
        return [self.id(word) for word in text.split()]

    def decode(self, ids: Iterable[int]) -> str:
        r"""Returns the text of ids up to the first ``<eos>``, without ``<pad>`` and ``<bos>``."""
        return " ".join(word for word in _until_end(self.words[i] for i in ids))


class BytePairs:
    r"""A vocabulary of byte pair encoding, as in `"Neural Machine Translation of Rare Words with Subword
    Units" <https://arxiv.org/abs/1508.07909>`_: merges of frequent neighbours within words, learned from
    texts by the package :obj:`tokenizers`.

    Args:
        texts (list of str): What merges are learned from.
        size (int): Number of tokens, with ``<pad>``, ``<unk>``, ``<bos>`` and ``<eos>``.

    Raises:
        ImportError: If :obj:`tokenizers` is not installed.

    Example:
        >>> pairs = BytePairs(["low lower lowest", "new newer newest"], size=30)
        >>> pairs.decode(pairs.encode("newer low"))
        'newer low'
    """

    def __init__(self, texts: Iterable[str], size: int) -> None:
        try:
            from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
        except ImportError as error:
            raise ImportError(
                f"Expected the package 'tokenizers' for byte pair encoding (got: {error}); run: pip install "
                "'kgat[sequences]'"
            ) from None
        # The mark stands at the beginning of words: with one at their end, the trainer numbers the characters
        # that carry it in an order that differs between processes, and ties between merges with it.
        self.tokenizer: Any = Tokenizer(models.BPE(unk_token=UNK))
        self.tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
        )
        self.tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(SPECIALS), show_progress=False)
        self.tokenizer.train_from_iterator(texts, trainer)

    def __repr__(self) -> str:
        return f"{type(self).__name__} of {len(self)}"

    def __len__(self) -> int:
        return int(self.tokenizer.get_vocab_size())

    def id(self, token: str) -> int:
        r"""Returns the id of a token, that of :obj:`"<unk>"` if there is none."""
        place = self.tokenizer.token_to_id(token)
        return SPECIALS.index(UNK) if place is None else int(place)

    def encode(self, text: str) -> list[int]:
        r"""Returns the ids of the tokens of a text."""
        return list(self.tokenizer.encode(text).ids)

    def decode(self, ids: Iterable[int]) -> str:
        r"""Returns the text of ids up to the first ``<eos>``, without ``<pad>`` and ``<bos>``."""
        tokens = _until_end(self.tokenizer.id_to_token(i) for i in ids)
        return str(self.tokenizer.decoder.decode(tokens))


Vocabulary = Words | BytePairs


def _until_end(words: Iterable[str]) -> list[str]:
    text = takewhile(lambda word: word != EOS, words)
    return [word for word in text if word not in (PAD, BOS)]
