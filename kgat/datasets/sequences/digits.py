r"""Images of handwritten digits that scikit-learn ships, as sequences of patches."""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from kgat.datasets import splits
from kgat.datasets.sequence_task import Labelled, Padded, SequenceTask
from kgat.datasets.source import SequenceSource

SIDE = 8  # pixels of an image, whose values are from 0 to 16
TRAIN_SHARE, VAL_SHARE = 0.6, 0.2  # of each class; the rest is for the test


def _read(source: SequenceSource, paths: list[Path], *, seed: int = 0, patch: int = 2) -> SequenceTask:
    from sklearn.datasets import load_digits

    if patch < 1 or SIDE % patch != 0:
        raise ValueError(f"Expected 'patch' to divide {SIDE} pixels (got {patch}); take 1, 2, 4 or 8")
    pixels, y = load_digits(return_X_y=True)
    side = SIDE // patch
    cut = torch.from_numpy(pixels / 16).float().view(-1, side, patch, side, patch)
    x = cut.transpose(2, 3).flatten(3).flatten(1, 2)  # row by row, [N, side^2, patch^2]
    rule = partial(splits.class_shares, train=TRAIN_SHARE, val=VAL_SHARE)
    of_image = splits.draw(source.name, seed, y, rule)

    def part(number: int) -> Labelled:
        index = np.flatnonzero(of_image == number)
        return Labelled(
            Padded(x[index], torch.full((len(index),), side**2)), torch.from_numpy(y[index]).long()
        )

    return SequenceTask(
        name=source.name,
        kind="classification",
        train=part(1),
        val=part(2),
        test=part(3),
        source=source.citation,
        preprocessing=f"{side**2} patches of {patch} x {patch} pixels from 0 to 1; 60/20/20 % of each "
        f"class, seed {seed}",
        num_classes=10,
    )


SOURCES = [
    SequenceSource(
        name="digits",
        read=_read,
        citation="Alpaydin and Kaynak, Optical Recognition of Handwritten Digits (1998), CC BY 4.0, UCI; the "
        "1,797 images of scikit-learn",
        needs=("sklearn",),
    )
]
