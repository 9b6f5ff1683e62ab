r"""Metrics by name: what an answer is scored by, which way is better, and how it is shown.

The numbers are scikit-learn's where it has the metric, which ranks of links are not.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from kgat.extras import require
from kgat.measures import MEASURES, Measure

__all__ = ["KINDS", "METRICS", "Metric", "known_labels", "roc_auc"]

KINDS = ("multiclass", "binary", "multilabel", "regression")
LINK = "link"  # beside the kinds: pairs of nodes, true ones and drawn ones
Compute = Callable[[Tensor, Tensor], float]


@dataclass(frozen=True)
class Metric(Measure):
    r"""What an answer is scored by.

    Args:
        name (str): The name, as records have it.
        label (str): What tables and figures call it.
        greater (bool, optional): Whether more is better. (default: :obj:`True`)
        percent (bool, optional): Whether it is shown as a percentage. (default: :obj:`True`)
        kinds (tuple of str): The kinds of tasks that it scores.
        compute (callable): Takes outputs and truths, as :meth:`__call__` does; :obj:`nan` where it is not
            defined.
        needs (str, optional): What there must be for it to be defined. (default: :obj:`"both classes"`)
    """

    _: KW_ONLY
    kinds: tuple[str, ...]
    compute: Compute
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
        score = self.compute(output.detach().cpu(), y.cpu())
        if math.isnan(score):
            raise ValueError(
                f"Expected {self.needs} among {where} because metric='{self.name}' (got one); use a split "
                "that holds more"
            )
        return score


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


def _f1(average: str) -> Compute:
    def compute(output: Tensor, y: Tensor) -> float:
        require("for F1", "sklearn")
        from sklearn.metrics import f1_score

        if y.dim() == 1:
            truth, answer = y, output.argmax(dim=-1)
        else:  # what is not known counts as rightly denied, and a label that never is does not count
            known = known_labels(y)
            y, output = y[:, known.any(dim=0)], output.view(y.shape)[:, known.any(dim=0)]
            truth = torch.nan_to_num(y, nan=0.0).long()
            answer = ((output > 0) & known_labels(y)).long()
            if y.numel() == 0:
                return math.nan
        # A single label is to scikit-learn a task of two classes, of which what is not known would be one.
        of = "binary" if y.dim() == 2 and y.size(1) == 1 else average
        return float(f1_score(truth.numpy(), answer.numpy(), average=of, zero_division=0.0))

    return compute


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


def _mean_of_labels(name: str, title: str) -> Compute:
    def compute(output: Tensor, y: Tensor) -> float:
        require(f"for {title}", "sklearn")
        from sklearn import metrics

        score = getattr(metrics, f"{name}_score")
        scores = [float(score(label.numpy(), answer.numpy())) for answer, label in _columns(output, y)]
        return sum(scores) / len(scores) if scores else math.nan

    return compute


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


def _of_values(error: Callable[[Tensor, Tensor], float]) -> Compute:
    r"""The mean over the columns of what is measured of known values."""

    def mean(output: Tensor, y: Tensor) -> float:
        output, y = output.reshape(len(y), -1).double(), y.reshape(len(y), -1).double()
        scores = []
        for truth, answer in zip(y.unbind(1), output.unbind(1), strict=True):
            known = known_labels(truth)
            if bool(known.any()):
                scores.append(error(answer[known], truth[known]))
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


def _hits(k: int) -> Compute:
    def compute(output: Tensor, y: Tensor) -> float:
        if y.dim() == 2:
            return float((_better(output, y) <= k - 1).double().mean())
        truth = y > 0.5
        negative = output[~truth]
        if negative.numel() < k:  # as OGB has it
            return 1.0
        return float((output[truth] > negative.topk(k).values[-1]).double().mean())

    return compute


_CLASSES, _TWO, _VALUES = ("multiclass", "binary"), ("binary", "multilabel"), ("regression",)
_COMPUTED: dict[str, tuple[tuple[str, ...], Compute]] = {
    "accuracy": (_CLASSES, _accuracy),
    "roc_auc": ((*_TWO, LINK), _mean_of_labels("roc_auc", "ROC-AUC")),
    "average_precision": ((*_TWO, LINK), _mean_of_labels("average_precision", "average precision")),
    "balanced_accuracy": (_CLASSES, _balanced_accuracy),
    "f1_macro": ((*_CLASSES, "multilabel"), _f1("macro")),
    "f1_micro": ((*_CLASSES, "multilabel"), _f1("micro")),
    "rmse": (_VALUES, _of_values(_rmse)),
    "mae": (_VALUES, _of_values(_mae)),
    "r2": (_VALUES, _of_values(_r2)),
    "mrr": ((LINK,), _mrr),
    **{f"hits@{k}": ((LINK,), _hits(k)) for k in (10, 20, 50, 100)},
}
METRICS: dict[str, Metric] = {
    name: Metric(
        **vars(MEASURES[name]),
        kinds=kinds,
        compute=compute,
        needs="two values" if kinds == _VALUES else "both classes",
    )
    for name, (kinds, compute) in _COMPUTED.items()
}
