import numpy as np
import pytest
from scipy import stats

from kgat.experiments.summary import summarise

pytestmark = pytest.mark.quick

GAT = [0.80, 0.82, 0.81, 0.79, 0.83, 0.80]
RBF = [0.82, 0.83, 0.85, 0.80, 0.88, 0.80]


def made():
    return {"rbf": dict(enumerate(RBF)), "gat": dict(enumerate(GAT)), "dot": {0: 0.8, 1: None, 9: 0.7}}


def test_summary_by_hand():
    found = summarise(made(), "gat")
    assert list(found) == ["rbf", "gat", "dot"]
    gat, rbf, dot = (found[name] for name in ("gat", "rbf", "dot"))
    assert (gat.n, gat.mean, gat.std) == (6, pytest.approx(np.mean(GAT)), pytest.approx(np.std(GAT, ddof=1)))
    assert (gat.difference, gat.ci_low, gat.ci_high, gat.p_value, gat.pairs) == (None, None, None, None, 0)
    expected = stats.ttest_rel(RBF, GAT).confidence_interval(0.95)
    assert (rbf.ci_low, rbf.ci_high) == pytest.approx((expected.low, expected.high))
    assert (rbf.difference, rbf.pairs, rbf.ups, rbf.downs) == (pytest.approx(0.13 / 6), 6, 5, 0)
    assert rbf.p_value == pytest.approx(2 / 2**5)  # the zero is dropped; 'dot' has too few pairs to count
    assert (dot.n, dot.lost, dot.mean, dot.pairs, dot.p_value) == (3, 1, pytest.approx(0.75), 1, None)


def test_scale_is_that_of_all_but_the_test():
    one, hundred = summarise(made(), "gat")["rbf"], summarise(made(), "gat", 100)["rbf"]
    assert hundred.p_value == one.p_value
    for name in ("mean", "std", "difference", "ci_low", "ci_high"):
        assert getattr(hundred, name) == pytest.approx(100 * getattr(one, name))


def test_p_values_are_adjusted_for_their_number():
    scores = made()
    alone = summarise(scores, "gat")["rbf"].p_value
    scores["other"] = scores["rbf"]
    assert summarise(scores, "gat")["rbf"].p_value == pytest.approx(2 * alone)


def test_without_baseline_and_without_scores():
    found = summarise({"rbf": {0: None}, "dot": {}}, "gat")
    assert (found["rbf"].n, found["rbf"].lost, found["rbf"].mean, found["rbf"].difference) == (
        1,
        1,
        None,
        None,
    )
    assert (found["dot"].n, found["dot"].mean) == (0, None)
