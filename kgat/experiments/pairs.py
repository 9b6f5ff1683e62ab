r"""Which runs are compared with which, and how many independent differences that gives."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

__all__ = ["AVERAGED", "Pair", "averaged", "differences", "latest"]

Record = Mapping[str, Any]

# Beside what is said of pairs.
AVERAGED = "seeds that share one of several splits count once"


class Pair(NamedTuple):
    r"""What two runs have in common that are compared."""

    seed: int
    split: str | None

    @classmethod
    def of(cls, run: Record) -> Pair:
        r"""Returns the pair that the record of a run belongs to."""
        return cls(run["seed"], run.get("split"))


def differences(
    scores: Mapping[Hashable, float | None], reference: Mapping[Hashable, float | None]
) -> np.ndarray:
    r"""Returns the differences of scores over what they have in common, in the order of the scores.

    Seeds that share a split have nodes for training and testing in common, so that they say less than as
    many splits do, and a test that took them for independent would be too sure. Where there are several
    splits, each counts once, with the mean over its seeds; where there is one, the seeds are what is drawn.

    Args:
        scores (dict): Scores by pair, where :class:`Pair` tells splits apart and anything else counts for
            itself; :obj:`None` for a run without one.
        reference (dict): What is subtracted, likewise.

    Example:
        >>> stock = {Pair(seed, f"split-{seed % 2}"): 0.5 for seed in range(4)}
        >>> kernel = {pair: 0.5 + pair.seed for pair in stock}
        >>> differences(kernel, stock).tolist()
        [1.0, 2.0]
        >>> stock, kernel = ({Pair(seed, "public"): of[seed, _] for seed, _ in of} for of in (stock, kernel))
        >>> differences(kernel, stock).tolist()
        [0.0, 1.0, 2.0, 3.0]
    """
    return averaged(
        {
            pair: score - other
            for pair, score in scores.items()
            if score is not None and (other := reference.get(pair)) is not None
        }
    )


def averaged(values: Mapping[Hashable, float]) -> np.ndarray:
    r"""Returns values as :func:`differences` counts them: of seeds that share one of several splits the mean.

    Args:
        values (dict): Values by pair.
    """
    several = len({pair.split for pair in values if isinstance(pair, Pair)}) > 1
    of_units: dict[Hashable, list[float]] = {}
    for pair, value in values.items():
        unit = pair.split if several and isinstance(pair, Pair) else pair
        of_units.setdefault(unit, []).append(value)
    return np.array([np.mean(of_unit) for of_unit in of_units.values()])


def latest(records: Iterable[Record]) -> list[Record]:
    r"""Drops runs that were made again on another split, because the splits of their data set have changed.

    Args:
        records (list of dict): Records, of runs among others.

    Example:
        >>> run = {"kind": "run", "dataset": "wine", "model": "gat", "seed": 10}
        >>> [run["split"] for run in latest([{**run, "split": split} for split in ("random-0", "random-10")])]
        ['random-10']
    """
    records = list(records)
    splits = {_seed_of(record): record.get("split") for record in records if record.get("kind") == "run"}
    return [r for r in records if r.get("kind") != "run" or r.get("split") == splits[_seed_of(r)]]


def _seed_of(run: Record) -> tuple[str, str, int]:
    return run["dataset"], run["model"], run["seed"]
