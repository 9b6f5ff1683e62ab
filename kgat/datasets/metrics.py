r"""Metrics by name: what an answer is scored by, which way is better, and how it is shown.

The numbers are scikit-learn's where it has the metric, which ranks of links are not.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kgat.extras import require

__all__ = ["KINDS", "METRICS", "Metric", "known_labels", "metric_of", "roc_auc"]

KINDS = ("multiclass", "binary", "multilabel", "regression")
LINK = "link"  # beside the kinds: pairs of nodes, true ones and drawn ones
Measure = Callable[[Tensor, Tensor], float]


@dataclass(frozen=True)
class Metric:
    r"""What an answer is scored by.

    Args:
        name (str): The name, as records have it.
        label (str): What tables and figures call it.
        kinds (tuple of str): The kinds of tasks that it scores.
        measure (callable): Takes outputs and truths, as :meth:`__call__` does.
        greater (bool, optional): Whether more is better. (default: :obj:`True`)
        percent (bool, optional): Whether it is shown as a percentage. (default: :obj:`True`)
        needs (str, optional): What there must be for it to be defined. (default: :obj:`"both classes"`)
    """

    name: str
    label: str
    kinds: tuple[str, ...]
    measure: Measure
    greater: bool = True
    percent: bool = True
    needs: str = "both classes"

    def __call__(self, output: Tensor, y: Tensor, where: str = "the nodes that are scored") -> float:
        r"""Scores an answer.

        Args:
            output (torch.Tensor): Logits of classes, two of a binary task; one logit per label; values of a
                regression; scores of pairs of nodes.
            y (torch.Tensor): Classes; labels or values, :obj:`nan` where unknown; of pairs, whether they are
                edges. Pairs in a row have only each other to be ranked among, those in one dimension all.
            where (str, optional): What an error calls what is scored.

        Shapes:
            - **output:** :math:`(N, C)`, of pairs :math:`(M)` or :math:`(P, 1 + K)`
            - **y:** :math:`(N)` or :math:`(N, C)`, of pairs as :obj:`output`

        Raises:
            ValueError: If the metric is not defined, as only one of two classes is there.

        Example:
            >>> METRICS["accuracy"](torch.tensor([[0.0, 1.0], [2.0, 0.0]]), torch.tensor([1, 1]))
            0.5
            >>> METRICS["rmse"](torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 4.0]))
            1.4142135623730951
            >>> METRICS["mrr"](torch.tensor([3.0, 1.0, 2.0]), torch.tensor([1, 1, 0]))
            0.75
        """
        score = self.measure(output.detach().cpu(), y.cpu())
        if math.isnan(score):
            raise ValueError(
                f"Expected {self.needs} among {where} because metric='{self.name}' (got one); use a split "
                "that holds more"
            )
        return score

    @property
    def sign(self) -> int:
        r"""What a score is multiplied with so that more is better."""
        return 1 if self.greater else -1

    @property
    def scale(self) -> float:
        r"""What a score is multiplied with to be shown."""
        return 100.0 if self.percent else 1.0

    @property
    def form(self) -> str:
        r"""How a scaled score is shown."""
        return "{:.1f}" if self.percent else "{:.4g}"

    @property
    def unit(self) -> str:
        r"""What stands behind its label in the head of a table: the unit, or which way is better."""
        return " %" if self.percent else "" if self.greater else ", less is better"

    def shown(self, value: float) -> str:
        r"""Returns a score as a text.

        Example:
            >>> METRICS["accuracy"].shown(0.8321), METRICS["rmse"].shown(0.8321)
            ('83.2%', '0.8321')
        """
        return self.form.format(self.scale * value) + "%" * self.percent


def metric_of(name: str) -> Metric:
    r"""Returns the metric of a name that a record has, whatever name that is."""
    return METRICS.get(name) or Metric(name, name, (), _unknown)


def _unknown(output: Tensor, y: Tensor) -> float:
    raise ValueError(f"Expected a metric that is known (got none of them); choose from: {', '.join(METRICS)}")


def known_labels(y: Tensor) -> Tensor:
    r"""Returns where labels, or values, are known: not :obj:`nan`, and no class below zero.

    Example:
        >>> known_labels(torch.tensor([0, -1])), known_labels(torch.tensor([0.0, float("nan")]))
        (tensor([ True, False]), tensor([ True, False]))
    """
    return ~torch.isnan(y) if y.is_floating_point() else y >= 0


# --- Classes ----------------------------------------------------------------------------------------------


def _accuracy(output: Tensor, y: Tensor) -> float:
    return float((output.argmax(dim=-1) == y).double().mean())


def _balanced_accuracy(output: Tensor, y: Tensor) -> float:
    require("for balanced accuracy", "sklearn")
    from sklearn.metrics import balanced_accuracy_score

    return float(balanced_accuracy_score(y.numpy(), output.argmax(dim=-1).numpy()))


def _f1(average: str) -> Measure:
    def measure(output: Tensor, y: Tensor) -> float:
        require("for F1", "sklearn")
        from sklearn.metrics import f1_score

        if y.dim() == 1:
            truth, answer = y, output.argmax(dim=-1)
        else:  # what is not known counts as rightly denied
            truth = torch.nan_to_num(y, nan=0.0).long()
            answer = ((output > 0) & known_labels(y)).long()
        return float(f1_score(truth.numpy(), answer.numpy(), average=average, zero_division=0.0))

    return measure


def _columns(output: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    r"""Yields of each label that occurs with both values its outputs and truths, where these are known."""
    if y.dim() == 1:
        if output.dim() == 2:
            output = output[:, 1:].double() - output[:, :1].double()
        output, y = output.view(-1, 1), y.view(-1, 1)
    elif output.shape != y.shape:
        output = output.view(y.shape)
    for label, answer in zip(y.unbind(1), output.unbind(1), strict=True):
        known = known_labels(label)
        if label[known].unique().numel() == 2:
            yield answer[known], label[known]


def _mean_of_labels(name: str, title: str) -> Measure:
    def measure(output: Tensor, y: Tensor) -> float:
        require(f"for {title}", "sklearn")
        from sklearn import metrics

        score = getattr(metrics, f"{name}_score")
        scores = [float(score(label.numpy(), answer.numpy())) for answer, label in _columns(output, y)]
        return sum(scores) / len(scores) if scores else math.nan

    return measure


def roc_auc(output: Tensor, y: Tensor, where: str = "the nodes that are scored") -> float:
    r"""The area under the ROC curve, as scikit-learn has it.

    Args:
        output (torch.Tensor): Logits; of two classes, or one per label.
        y (torch.Tensor): Classes, or labels with :obj:`nan` where unknown. The area is then the mean over the
            labels that occur with both values.
        where (str, optional): What an error calls these nodes.

    Shapes:
        - **output:** :math:`(N, C)`, **y:** :math:`(N)` or :math:`(N, C)`

    Raises:
        ValueError: If no label occurs with both values.

    Example:
        >>> roc_auc(torch.tensor([[0.0, 1.0], [0.0, 2.0]]), torch.tensor([0, 1]))
        1.0
    """
    return METRICS["roc_auc"](output, y, where)


# --- Values -----------------------------------------------------------------------------------------------


def _of_values(measure: Callable[[Tensor, Tensor], float]) -> Measure:
    r"""The mean over the columns of what is measured of known values."""

    def mean(output: Tensor, y: Tensor) -> float:
        output, y = output.reshape(len(y), -1).double(), y.reshape(len(y), -1).double()
        scores = []
        for truth, answer in zip(y.unbind(1), output.unbind(1), strict=True):
            known = known_labels(truth)
            if bool(known.any()):
                scores.append(measure(answer[known], truth[known]))
        return sum(scores) / len(scores) if scores else math.nan

    return mean


def _rmse(output: Tensor, y: Tensor) -> float:
    return float((output - y).square().mean().sqrt())


def _mae(output: Tensor, y: Tensor) -> float:
    return float((output - y).abs().mean())


def _r2(output: Tensor, y: Tensor) -> float:
    require("for R²", "sklearn")
    from sklearn.metrics import r2_score

    return float(r2_score(y.numpy(), output.numpy())) if len(y) > 1 else math.nan


# --- Ranks of links ---------------------------------------------------------------------------------------


def _better(output: Tensor, y: Tensor) -> Tensor:
    r"""Returns how many negatives each positive stands behind; of equals half do, as OGB has it."""
    if y.dim() == 1:
        truth = y > 0.5
        positive, negative = output[truth], output[~truth].sort().values
        below = torch.searchsorted(negative, positive, side="left")
        not_above = torch.searchsorted(negative, positive, side="right")
        pessimistic, optimistic = negative.numel() - below, negative.numel() - not_above
        return 0.5 * (pessimistic + optimistic).double()
    truth = y[0] > 0.5
    positive, negative = output[:, truth], output[:, ~truth]
    return 0.5 * ((negative > positive).sum(1) + (negative >= positive).sum(1)).double()


def _mrr(output: Tensor, y: Tensor) -> float:
    return float((1.0 / (1.0 + _better(output, y))).mean())


def _hits(k: int) -> Measure:
    def measure(output: Tensor, y: Tensor) -> float:
        if y.dim() == 2:
            return float((_better(output, y) <= k - 1).double().mean())
        truth = y > 0.5
        negative = output[~truth]
        if negative.numel() < k:  # as OGB has it
            return 1.0
        return float((output[truth] > negative.topk(k).values[-1]).double().mean())

    return measure


_CLASSES, _TWO, _VALUES = ("multiclass", "binary"), ("binary", "multilabel"), ("regression",)
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "accuracy", _CLASSES, _accuracy),
        Metric("roc_auc", "ROC AUC", (*_TWO, LINK), _mean_of_labels("roc_auc", "ROC-AUC")),
        Metric(
            "average_precision",
            "average precision",
            (*_TWO, LINK),
            _mean_of_labels("average_precision", "average precision"),
        ),
        Metric("balanced_accuracy", "balanced accuracy", _CLASSES, _balanced_accuracy),
        Metric("f1_macro", "macro F1", (*_CLASSES, "multilabel"), _f1("macro")),
        Metric("f1_micro", "micro F1", (*_CLASSES, "multilabel"), _f1("micro")),
        Metric("rmse", "RMSE", _VALUES, _of_values(_rmse), greater=False, percent=False, needs="values"),
        Metric("mae", "MAE", _VALUES, _of_values(_mae), greater=False, percent=False, needs="values"),
        Metric("r2", "R²", _VALUES, _of_values(_r2), percent=False, needs="two values"),
        Metric("mrr", "MRR", (LINK,), _mrr),
        *(Metric(f"hits@{k}", f"Hits@{k}", (LINK,), _hits(k)) for k in (10, 20, 50, 100)),
    )
}
