r"""Data sets of sequences: :func:`load_sequences` gives a :class:`~kgat.datasets.SequenceTask`.

Each family is a file beside this one. Raw files lie below the root in ``seq/``, series as the UEA
archive lays them out (``seq/uea/NAME/NAME_TRAIN.ts``). They are read into memory directly; nothing is
written beside them.
"""

import os
from typing import Any

from kgat.datasets.files import fetch, resolve_root
from kgat.datasets.sequence_task import SequenceTask
from kgat.datasets.source import SequenceSource, discover, resolve
from kgat.extras import require
from kgat.names import unknown

__all__ = ["SEQUENCES", "load_sequences", "resolve_source", "sequence_names"]

# The order of names that lists have; what is in no such file comes after them.
SEQUENCES: tuple[SequenceSource, ...] = discover(
    __name__, __path__, first=("uea", "sst2", "ptb", "multi30k", "listops", "digits")
)


def sequence_names() -> list[str]:
    r"""Returns the names that :func:`load_sequences` takes.

    Example:
        >>> "ListOps" in sequence_names() and "JapaneseVowels" in sequence_names()
        True
    """
    return [source.name for source in SEQUENCES]


def load_sequences(name: str, root: str | os.PathLike[str] | None = None, **options: Any) -> SequenceTask:
    r"""Loads a data set of sequences.

    Series of the UEA and UCR archives have no validation part: it is drawn from the official training
    part, a fifth of each class, so that the test is there to be read once. They are standardised with the
    statistics of what is left for training, and validation and test series are clipped to the longest of the
    official training part, as in `"Primal-Attention" <https://arxiv.org/abs/2305.19798>`_. ListOps is
    generated, see :func:`kgat.datasets.sequences.listops.generate`. The digits are images that scikit-learn
    ships, as sequences of patches; their parts are drawn. The other sets have their official parts,
    and vocabularies that are made of the training part alone: words for SST-2 and the Penn Treebank, byte
    pairs for Multi30k, whose test is that of 2016.

    Args:
        name (str): One of :func:`sequence_names`; case, :obj:`"-"` and :obj:`"_"` do not matter.
        root (str, optional): The folder of all data sets. If :obj:`None`, the environment variable
            :obj:`KGAT_DATA` names it, else it is :obj:`kgat` in the user's cache. (default: :obj:`None`)
        **options: What a set of this kind takes:

            - series: :obj:`seed` (default: :obj:`0`) of the validation part; :obj:`missing`, what becomes of
              missing values: :obj:`"error"` or :obj:`"mean"`, the channel's mean (default:
              :obj:`"error"`);
            - ListOps: :obj:`seed` (default: :obj:`0`) of the expressions; :obj:`lengths`, their fewest and
              most tokens (default: :obj:`(100, 300)`; Long Range Arena has :obj:`(501, 1999)`); :obj:`sizes`
              of the three parts (default: :obj:`(4000, 500, 500)`; there :obj:`(96000, 2000, 2000)`);
            - digits: :obj:`seed` (default: :obj:`0`) of the parts; :obj:`patch`, pixels along the side of a
              patch (default: :obj:`2`);
            - SST-2: :obj:`min_count`, how often a word must occur to be known (default: :obj:`2`);
            - Multi30k: :obj:`vocab_size` (default: :obj:`4000`); :obj:`shared`, whether both languages have
              one vocabulary (default: :obj:`True`).

    Raises:
        ValueError: If the name or an option is unknown, or a raw file is corrupt.
        FileNotFoundError: If a raw file is missing and cannot be downloaded.
        ImportError: If the data set needs an extra that is not installed.

    Example:
        >>> task = load_sequences("ListOps", lengths=(5, 20), sizes=(30, 10, 10))
        >>> inputs = task.test.inputs
        >>> text = task.vocabulary.decode(inputs.x[0, : inputs.lengths[0]].tolist())
        >>> from kgat.datasets.sequences import listops
        >>> listops.evaluate(text.split()) == task.test.y[0]
        tensor(True)
    """
    source = resolve_source(name)
    for option in options:
        if option not in source.options:
            unknown(f"an option of '{source.name}'", option, source.options)
    require(f"to read '{source.name}'", *source.needs)
    folder = resolve_root(root)
    return source.read(source, fetch(folder, source.files, source.name, source.instead), **options)


def resolve_source(name: str) -> SequenceSource:
    r"""Returns the data set of a name."""
    return resolve(SEQUENCES, name, "a set of sequences")
