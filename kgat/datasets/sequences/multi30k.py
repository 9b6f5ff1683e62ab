r"""Captions in German and English, of `"Multi30K: Multilingual English-German Image Descriptions"
<https://arxiv.org/abs/1605.00459>`_."""

from collections.abc import Sequence
from pathlib import Path

import torch

from kgat.datasets.files import raw_files, read_lines
from kgat.datasets.sequence_task import Padded, Pairs, SequenceTask
from kgat.datasets.source import SequenceSource
from kgat.datasets.vocabulary import BOS, EOS, BytePairs

URL = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/tok"


def _read(
    source: SequenceSource, paths: list[Path], *, vocab_size: int = 4000, shared: bool = True
) -> SequenceTask:
    texts = [read_lines(path) for path in paths]
    sides = list(zip(paths[::2], texts[::2], texts[1::2], strict=True))
    for path, sources, targets in sides:
        if len(sources) != len(targets):
            raise ValueError(
                f"Expected as many lines in '{path}' as in its translation (got {len(sources)} and "
                f"{len(targets)}); a file is truncated: delete both and load again"
            )
    _, sources, targets = sides[0]
    vocabulary = BytePairs([*sources, *targets] if shared else sources, vocab_size)
    target_vocabulary = vocabulary if shared else BytePairs(targets, vocab_size)
    begin, end = (target_vocabulary.id(token) for token in (BOS, EOS))

    def pairs(sources: Sequence[str], targets: Sequence[str]) -> Pairs:
        # A blank line would be an empty sentence, so it is left out with its translation.
        kept = [(s, t) for s, t in zip(sources, targets, strict=True) if s.strip() and t.strip()]
        return Pairs(
            Padded.of([torch.tensor([*vocabulary.encode(s), end]) for s, _ in kept]),
            Padded.of([torch.tensor([begin, *target_vocabulary.encode(t), end]) for _, t in kept]),
            tuple(t for _, t in kept),
        )

    train, val, test = (pairs(sources, targets) for _, sources, targets in sides)
    which = "one vocabulary for both languages" if shared else "one vocabulary per language"
    return SequenceTask(
        name=source.name,
        kind="translation",
        train=train,
        val=val,
        test=test,
        source=source.citation,
        preprocessing=f"lower-cased and tokenised as published; byte pairs of the training part, "
        f"{which} of {vocab_size}",
        vocabulary=vocabulary,
        target_vocabulary=target_vocabulary,
    )


SOURCES = [
    SequenceSource(
        name="Multi30k",
        read=_read,
        citation="Elliott et al., Multi30K: Multilingual English-German Image Descriptions (2016); "
        "multi30k/dataset, no licence stated",
        files=raw_files(
            "seq/multi30k/tok",
            URL,
            [
                f"{part}.lc.norm.tok.{language}"
                for part in ("train", "val", "test_2016_flickr")
                for language in ("de", "en")
            ],
        ),
        needs=("tokenizers",),
    )
]
