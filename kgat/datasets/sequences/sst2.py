r"""Sentences of reviews, of `"Recursive Deep Models for Semantic Compositionality Over a Sentiment Treebank"
<https://aclanthology.org/D13-1170>`_."""

from pathlib import Path

import torch

from kgat.datasets.files import raw_files, read_lines
from kgat.datasets.sequence_task import Labelled, Padded, SequenceTask
from kgat.datasets.source import SequenceSource
from kgat.datasets.vocabulary import PAD, UNK, Words

GITHUB = "https://raw.githubusercontent.com"
PAPER = "Socher et al., Recursive Deep Models for Semantic Compositionality (2013)"


def sentences(path: Path) -> list[list[str]]:
    r"""Returns the lines of a file of sentences: each a text, and 0 or 1."""
    rows = [line.rsplit("\t", 1) for line in read_lines(path)]
    header = rows[:1] == [["sentence", "label"]]
    rows = rows[header:]
    for number, row in enumerate(rows, start=1 + header):
        if len(row) != 2 or row[1] not in ("0", "1") or not row[0].strip():
            raise ValueError(
                f"Expected a sentence, a tab and 0 or 1 in line {number} of '{path}' (got "
                f"{row[-1][:40]!r}); the file is truncated or corrupt: delete it and load again"
            )
    if not rows:
        raise ValueError(f"Expected sentences in '{path}' (got none); delete it and load again")
    return rows


def _read(source: SequenceSource, paths: list[Path], *, min_count: int = 2) -> SequenceTask:
    parts = list(map(sentences, paths))
    words = Words.of([text for text, _ in parts[0]], min_count, (PAD, UNK))
    train, val, test = (
        Labelled(
            Padded.of([torch.tensor(words.encode(text)) for text, _ in rows]),
            torch.tensor([int(label) for _, label in rows]),
        )
        for rows in parts
    )
    return SequenceTask(
        name=source.name,
        kind="classification",
        train=train,
        val=val,
        test=test,
        source=source.citation,
        preprocessing=f"{len(words)} words, those that occur {min_count} times or more in the training "
        f"part; others: {UNK}",
        num_classes=2,
        vocabulary=words,
    )


SOURCES = [
    SequenceSource(
        name=name,
        read=_read,
        citation=f"{PAPER}; {origin}",
        files=raw_files(f"seq/{name}", f"{GITHUB}/{url}", ("train.tsv", "dev.tsv", "test.tsv")),
    )
    for name, origin, url in (
        (
            "SST2",
            "clairett/pytorch-sentiment-classification, no licence stated",
            "clairett/pytorch-sentiment-classification/master/data/SST2",
        ),
        ("SST2_glue", "phrases as in GLUE, forest-snow/alps, MIT", "forest-snow/alps/main/data/SST-2"),
    )
]
