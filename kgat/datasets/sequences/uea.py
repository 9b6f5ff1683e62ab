r"""Series of `"The UEA Multivariate Time Series Classification Archive" <https://arxiv.org/abs/1811.00075>`_
and of `"The UCR Time Series Archive" <https://arxiv.org/abs/1810.07758>`_."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from kgat.datasets import splits
from kgat.datasets.files import RawFile, expect, raw_files, read_npz, reading
from kgat.datasets.sequence_task import Labelled, Padded, SequenceTask
from kgat.datasets.series import Array, Series, read_ts
from kgat.datasets.source import SequenceSource

GITHUB = "https://raw.githubusercontent.com"
URLS = {
    "Handwriting": f"{GITHUB}/thuml/Time-Series-Library/main/dataset/Handwriting",
    "UWaveGestureLibrary": f"{GITHUB}/KeremOzfo/TSBD-COMP541/b2f2aa289fb93711a9385c43d356bdea70044f53/"
    "dataset/UWaveGestureLibrary",
}
VAL_SHARE = 0.2  # of the official training series


def _read(
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


UEA = "Bagnall et al., The UEA Multivariate Time Series Classification Archive (2018)"
UCR = "Dau et al., The UCR Time Series Archive (2019)"
PACKED = ("ERing", "Epilepsy", "RacketSports", "Libras", "PenDigits")
MULTIVARIATE = (
    *("JapaneseVowels", "BasicMotions", "UWaveGestureLibrary", "Handwriting", "ERing", "Epilepsy"),
    *("RacketSports", "Libras", "PenDigits", "EthanolConcentration", "FaceDetection", "Heartbeat"),
    *("PEMS-SF", "SelfRegulationSCP1", "SelfRegulationSCP2", "SpokenArabicDigits"),
)
UNIVARIATE = ("ArrowHead", "GunPoint", "ItalyPowerDemand", "OSULeaf", "ACSF1")


def of_series(name: str) -> tuple[RawFile, ...]:
    r"""Returns the files of a set of series as the archives have them."""
    return raw_files(f"seq/uea/{name}", URLS.get(name), (f"{name}_TRAIN.ts", f"{name}_TEST.ts"))


def packed(name: str) -> tuple[RawFile, ...]:
    r"""Returns the file of arrays that some sets of series come in."""
    return (RawFile(f"seq/uea_npz/{name}.npz", None),) if name in PACKED else ()


SOURCES = [
    SequenceSource(
        name=name,
        read=_read,
        citation=f"{paper}; timeseriesclassification.com",
        files=of_series(name),
        instead=packed(name),
    )
    for paper, names in ((UEA, MULTIVARIATE), (UCR, UNIVARIATE))
    for name in names
]
