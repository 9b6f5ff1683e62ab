r"""How metrics are called and shown, which takes no torch: what computes them is
:mod:`kgat.datasets.metrics`."""

import math
from dataclasses import dataclass

__all__ = ["MEASURES", "Measure", "measure_of"]


@dataclass(frozen=True)
class Measure:
    r"""How a metric is called and shown.

    Args:
        name (str): The name, as records have it.
        label (str): What tables and figures call it.
        greater (bool, optional): Whether more is better. (default: :obj:`True`)
        percent (bool, optional): Whether it is shown as a percentage. (default: :obj:`True`)
    """

    name: str
    label: str
    greater: bool = True
    percent: bool = True

    @property
    def sign(self) -> int:
        r"""What a score is multiplied with so that more is better."""
        return 1 if self.greater else -1

    @property
    def scale(self) -> float:
        r"""What a score is multiplied with to be shown."""
        return 100.0 if self.percent else 1.0

    def form(self, digits: int = 1, *, signed: bool = False) -> str:
        r"""Returns the format of a scaled score, with so many decimal places of a percentage.

        Example:
            >>> MEASURES["accuracy"].form(signed=True).format(1.23), MEASURES["rmse"].form().format(1.23456)
            ('+1.2', '1.235')
        """
        return f"{{:{'+' * signed}{f'.{digits}f' if self.percent else '.4g'}}}"

    @property
    def bounds(self) -> tuple[float, float]:
        r"""The least and the largest score there is.

        Example:
            >>> MEASURES["accuracy"].bounds, MEASURES["rmse"].bounds
            ((0.0, 1.0), (0.0, inf))
        """
        return (-math.inf if self.greater and not self.percent else 0.0), (1.0 if self.greater else math.inf)

    @property
    def unit(self) -> str:
        r"""What stands behind its label in the head of a column."""
        return " %" * self.percent

    @property
    def direction(self) -> str:
        r"""Says which way is better, where that is not plain."""
        return "" if self.greater else "less is better"

    def shown(self, value: float) -> str:
        r"""Returns a score as a text.

        Example:
            >>> MEASURES["accuracy"].shown(0.8321), MEASURES["rmse"].shown(0.8321)
            ('83.2%', '0.8321')
        """
        return self.form().format(self.scale * value) + "%" * self.percent


MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure("accuracy", "accuracy"),
        Measure("roc_auc", "ROC AUC"),
        Measure("average_precision", "average precision"),
        Measure("balanced_accuracy", "balanced accuracy"),
        Measure("f1_macro", "macro F1"),
        Measure("f1_micro", "micro F1"),
        Measure("rmse", "RMSE", greater=False, percent=False),
        Measure("mae", "MAE", greater=False, percent=False),
        Measure("r2", "R²", percent=False),
        Measure("mrr", "MRR"),
        *(Measure(f"hits@{k}", f"Hits@{k}") for k in (10, 20, 50, 100)),
    )
}


def measure_of(name: str) -> Measure:
    r"""Returns how a metric is shown, also one that only a record knows.

    Example:
        >>> measure_of("roc_auc").label, measure_of("kappa").label
        ('ROC AUC', 'kappa')
    """
    return MEASURES.get(name) or Measure(name, name)
