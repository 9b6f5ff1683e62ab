r"""What is said of differences between paired runs."""

import math
from collections.abc import Hashable, Mapping
from operator import itemgetter
from typing import TypeVar

import numpy as np

T = TypeVar("T", bound=Hashable)

LEVEL = 0.05  # a p-value up to which a difference counts, everywhere

# With this many pairs or fewer, the exact distribution is enumerated; above, it is a normal one. The same
# number as scipy's, whose name for the normal one depends on its version.
EXACT_PAIRS = 50


def wilcoxon(differences: np.ndarray) -> float | None:
    r"""The two-sided p-value of the Wilcoxon signed-rank test that differences are symmetric about
    zero.

    Zeros are dropped, ties share the mean of their ranks. With up to 50 differences the
    distribution is the exact one, also with ties: scores on a few hundred nodes tie often.

    Args:
        differences (numpy.ndarray): Paired differences.

    Returns:
        float or None: 1 if all differences are zero; :obj:`None` with fewer than five, where no
        outcome could be significant.

    Example:
        >>> wilcoxon(np.array([0.1, 0.2, 0.3, 0.4, 0.5]))
        0.0625
    """
    if differences.size < 5:
        return None
    # Differences of equal shares differ in the last digits only; that is no order.
    rounded = np.round(np.asarray(differences, dtype=np.float64), 10)
    rounded = rounded[rounded != 0.0]
    if rounded.size == 0:
        return 1.0
    from scipy import stats  # slow to import

    if rounded.size > EXACT_PAIRS:
        return float(stats.wilcoxon(rounded).pvalue)  # with so many a normal one is its own choice
    ranks = np.round(2 * stats.rankdata(np.abs(rounded))).astype(int)  # halves become whole
    ways = np.zeros(ranks.sum() + 1)  # of each sum of positive ranks, over all choices of signs
    ways[0] = 1.0
    for rank in ranks:
        ways[rank:] += ways[:-rank].copy()
    positive = ranks[rounded > 0].sum()
    tail = min(ways[: positive + 1].sum(), ways[positive:].sum())
    return float(min(1.0, 2 * tail / ways.sum()))


def holm(p_values: Mapping[T, float | None]) -> dict[T, float | None]:
    r"""Adjusts p-values for their number after Holm (1979).

    Args:
        p_values (dict): p-values by name; those that are :obj:`None` are not counted.

    Example:
        >>> holm({"a": 0.01, "b": 0.04, "c": None})
        {'a': 0.02, 'b': 0.04, 'c': None}
    """
    known = sorted(((p, name) for name, p in p_values.items() if p is not None), key=itemgetter(0))
    adjusted: dict[T, float | None] = dict.fromkeys(p_values)
    largest = 0.0
    for rank, (p, name) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[name] = largest
    return adjusted


def direction(p_value: float | None, gain: float | None) -> int | None:
    r"""Returns which way a gain goes that is significant: 1 or -1; 0 if it is not, and :obj:`None` where too
    few pairs left it untested.

    Args:
        p_value (float, optional): Of the test of the gain.
        gain (float, optional): The mean difference, of which more is better.

    Example:
        >>> direction(0.03, -0.5), direction(0.06, 0.5), direction(None, 0.5)
        (-1, 0, None)
    """
    if p_value is None:
        return None
    if p_value > LEVEL or not gain:
        return 0
    return 1 if gain > 0 else -1


def interval(values: np.ndarray) -> tuple[float | None, float | None]:
    r"""Returns the ends of the 95 % t-interval of a mean, or nothing with fewer than two values.

    Args:
        values (numpy.ndarray): The values.

    Shapes:
        - **values:** :math:`(n)`

    Example:
        >>> interval(np.array([1.0, 2.0, 3.0]))
        (-0.48..., 4.48...)
    """
    if values.size < 2:
        return None, None
    from scipy import stats

    half = stats.t.ppf(0.975, values.size - 1) * values.std(ddof=1) / math.sqrt(values.size)
    return float(values.mean() - half), float(values.mean() + half)
