import itertools

import numpy as np
import pytest
from scipy import stats

from kgat.experiments.statistics import holm, wilcoxon

pytestmark = pytest.mark.quick


def test_holm_by_hand():
    # Sorted .005 .01 .03 .04, times 4 3 2 1: .02 .03 .06 .04, and no smaller than the one before.
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005, "e": None})
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02, "e": None})
    assert holm({"a": 0.6, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


@pytest.mark.parametrize("n", [5, 6, 10, 20])
def test_wilcoxon_is_that_of_scipy(n):
    values = np.random.default_rng(n).normal(0.3, 1.0, n)
    expected = stats.wilcoxon(values, method="exact").pvalue
    assert wilcoxon(values) == pytest.approx(expected)
    assert wilcoxon(-values) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(4))
def test_wilcoxon_with_ties_counts_all_signs(seed):
    values = np.random.default_rng(seed).integers(-3, 5, 9) / 1000
    size = np.abs(values[values != 0])
    ranks = stats.rankdata(size)
    sums = [
        sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign)
        for signs in itertools.product([0, 1], repeat=len(ranks))
    ]
    observed = ranks[values[values != 0] > 0].sum()
    below = np.mean([s <= observed for s in sums])
    above = np.mean([s >= observed for s in sums])
    assert wilcoxon(values) == pytest.approx(min(1.0, 2 * min(below, above)))


def test_wilcoxon_takes_rounding_for_ties():
    # All are .01, but for the last digits, by which they would have an order.
    values = np.array([0.83 - 0.82, 0.81 - 0.80, 0.15 - 0.14, 0.57 - 0.58, 0.07 - 0.06, 0.1 - 0.1])
    assert len({float(size) for size in np.abs(values) if size}) > 1
    assert wilcoxon(values) == pytest.approx(wilcoxon(np.array([1, 1, 1, -1, 1, 0])))
    assert wilcoxon(values) == pytest.approx(2 * 6 / 32)


def test_wilcoxon_degenerate():
    assert wilcoxon(np.zeros(10)) == 1.0
    assert wilcoxon(np.full(10, 1e-15)) == 1.0
    assert wilcoxon(np.array([0.1, 0.2, 0.3, 0.4])) is None
    assert wilcoxon(np.empty(0)) is None
    assert wilcoxon(np.array([0.5, 0, 0, 0, 0])) == 1.0
    assert wilcoxon(np.arange(1.0, 61.0)) < 1e-9
