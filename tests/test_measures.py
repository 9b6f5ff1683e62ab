import pytest

from kgat.measures import MEASURES, Measure, measure_of

pytestmark = pytest.mark.quick


def test_percentages_and_errors_are_shown_apart():
    assert MEASURES["roc_auc"].shown(0.5) == "50.0%"
    assert MEASURES["mae"].shown(1234.5) == "1234"
    assert (MEASURES["rmse"].sign, MEASURES["rmse"].direction) == (-1, "less is better")
    assert (MEASURES["mrr"].sign, MEASURES["mrr"].direction) == (1, "")


def test_a_metric_that_only_a_record_knows_is_shown():
    assert measure_of("kappa") == Measure("kappa", "kappa")
