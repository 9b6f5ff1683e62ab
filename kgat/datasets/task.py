r"""What a model is asked to do: a graph, its splits and the metric that scores an answer."""

from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor
from torch_geometric.data import Data

from kgat.extras import require

METRICS = ("accuracy", "roc_auc")
PARTS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Split:
    r"""Which nodes are trained on, which choose the model and which score it.

    Args:
        name (str): The name, *e.g.*, :obj:`"public"` or :obj:`"random-0"`.
        train (torch.Tensor): The boolean training mask.
        val (torch.Tensor): The boolean validation mask.
        test (torch.Tensor): The boolean test mask.

    Shapes:
        - **train, val, test:** :math:`(N)`, disjoint
    """

    name: str
    train: Tensor
    val: Tensor
    test: Tensor


@dataclass(frozen=True, eq=False)
class Visible:
    r"""What training may see of a :class:`Task`: everything but the test nodes' labels and mask.

    Labels outside the training and validation nodes are :obj:`-1` (:obj:`nan` for the float
    targets of a multi-label task).
    """

    x: Tensor
    edge_index: Tensor
    edge_attr: Tensor | None
    y: Tensor
    train: Tensor
    val: Tensor
    num_classes: int
    metric: str


@dataclass(frozen=True, eq=False)
class Task:
    r"""Node classification on one graph.

    The task owns the metric and the splits, so that two models can only be compared on the same
    question. Everything is checked once, here, at construction.

    Args:
        name (str): The canonical name of the data set.
        data (torch_geometric.data.Data): Holds :obj:`x` (dense, or :obj:`torch.sparse_csr` for
            bags of words), :obj:`edge_index`, :obj:`y` and optionally :obj:`edge_attr`.
            In :obj:`y`, :obj:`-1` is an unlabelled node; a multi-label task has one float column
            per label and :obj:`nan` where it is unknown.
        splits (tuple of Split): The benchmark's fixed splits, or seeded ones.
        metric (str): :obj:`"accuracy"` or :obj:`"roc_auc"`.
        num_classes (int): Number of classes, or of labels of a multi-label task.
        source (str): Where the data come from, in one line.
        preprocessing (str): What was done to them, in one line.
        digest (str, optional): Tells this content from any other, of data without a name that all know: runs
            on one are not continued on another. (default: :obj:`None`)

    Shapes:
        - **x:** :math:`(N, F)`, **edge_index:** :math:`(2, E)`, **y:** :math:`(N)` or
          :math:`(N, T)`

    Raises:
        ValueError: If features are not finite, or if shapes, labels or masks do not fit together.
        IndexError: If :obj:`edge_index` or :obj:`y` hold a value out of range.

    Example:
        >>> from kgat.datasets import load
        >>> task = load("karate")
        >>> task.data.num_nodes, task.num_classes, len(task.splits)
        (34, 2, 10)
        >>> split = task.split(seed=0)
        >>> visible = task.visible(split)
        >>> bool((visible.y[split.test] == -1).all())
        True
        >>> answer = torch.nn.functional.one_hot(task.data.y, task.num_classes).float()
        >>> task.score(answer, split, "test")
        1.0
    """

    name: str
    data: Data
    splits: tuple[Split, ...]
    metric: str
    num_classes: int
    source: str
    preprocessing: str
    kind: str | None = None
    digest: str | None = None

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ValueError(
                f"Expected 'metric' of '{self.name}' to be one of {METRICS} "
                f"(got '{self.metric}'); choose one of them"
            )
        x, y = self.data.x, self.data.y
        _check_features(self.name, x)
        _check_edges(self.name, self.data, x.size(0))
        _check_labels(self.name, y, x.size(0), self.num_classes)
        if self.metric == "roc_auc" and y.dim() == 1 and self.num_classes != 2:
            raise ValueError(
                f"Expected two classes in '{self.name}' because metric='roc_auc' "
                f"(got num_classes={self.num_classes}); use metric='accuracy'"
            )
        if self.metric == "accuracy" and y.dim() == 2:
            raise ValueError(
                f"Expected 'y' of '{self.name}' to be one-dimensional because metric='accuracy' "
                f"(got {list(y.shape)}); use metric='roc_auc' for a multi-label task"
            )
        if len(self.splits) == 0:
            raise ValueError(
                f"Expected at least one split of '{self.name}' (got none); pass a tuple of Split"
            )
        labelled = _labelled(y)
        for split in self.splits:
            _check_split(self.name, split, labelled)

    def split(self, seed: int) -> Split:
        r"""Returns the split that belongs to a seed: they take turns."""
        return self.splits[seed % len(self.splits)]

    def visible(self, split: Split) -> Visible:
        r"""Returns the task without the labels that training must not see."""
        hidden = ~(split.train | split.val)
        y = self.data.y.clone()
        y[hidden] = float("nan") if y.is_floating_point() else -1
        x, edge_index, edge_attr = self.data.x, self.data.edge_index, self.data.edge_attr
        return Visible(x, edge_index, edge_attr, y, split.train, split.val, self.num_classes, self.metric)

    def score(self, output: Tensor, split: Split, part: str) -> float:
        r"""Scores an answer on one part of a split.

        Accuracy is the share of nodes whose largest output is their class. ROC-AUC takes the
        difference of the two outputs of a binary task; on a multi-label task it is the mean over
        the labels that occur with both values in this part.

        Args:
            output (torch.Tensor): One row of logits per node.
            split (Split): The split.
            part (str): :obj:`"train"`, :obj:`"val"` or :obj:`"test"`.

        Shapes:
            - **output:** :math:`(N, C)` with :math:`C` = :obj:`num_classes`

        Raises:
            ValueError: If the output has the wrong shape, is not a number somewhere, or the part
                holds one class only (ROC-AUC).
        """
        if part not in PARTS:
            raise ValueError(f"Expected 'part' to be one of {PARTS} (got '{part}'); choose one")
        expected = [int(self.data.x.size(0)), self.num_classes]
        if list(output.shape) != expected:
            raise ValueError(
                f"Expected 'output' of shape [N, num_classes]={expected} "
                f"(got {list(output.shape)}); return one row of logits per node"
            )
        mask: Tensor = getattr(split, part)
        output = output.detach()[mask.to(output.device)].cpu()
        y = self.data.y[mask].cpu()
        bad = ~torch.isfinite(output) if self.metric == "roc_auc" else torch.isnan(output)
        if at := first(bad):
            node = int(mask.nonzero()[at[0]])
            raise ValueError(
                f"Expected a finite 'output' (got {output[at].item()} at node {node}, column {at[1]}); the "
                f"model diverged, lower its learning rate"
            )
        if self.metric == "accuracy":
            return float((output.argmax(dim=-1) == y).double().mean())
        return roc_auc(output, y, f"part '{part}' of '{self.name}'")


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
    require("for ROC-AUC", "sklearn")
    from sklearn.metrics import roc_auc_score

    if y.dim() == 1:
        output, y = (output[:, 1:].double() - output[:, :1].double()), y.view(-1, 1)
    scores = []
    for label, answer in zip(y.unbind(1), output.unbind(1), strict=True):
        known = _labelled(label)
        if label[known].unique().numel() == 2:
            scores.append(float(roc_auc_score(label[known].cpu().numpy(), answer[known].cpu().numpy())))
    if not scores:
        raise ValueError(
            f"Expected both classes among {where} because metric='roc_auc' (got one); use a split that "
            f"holds both"
        )
    return sum(scores) / len(scores)


def _labelled(y: Tensor) -> Tensor:
    if y.dim() == 2:
        return ~torch.isnan(y).all(dim=1)
    return ~torch.isnan(y) if y.is_floating_point() else y >= 0


def first(wrong: Tensor) -> tuple[int, ...]:
    r"""Returns where the first :obj:`True` of a mask is, nothing if there is none."""
    return tuple(wrong.nonzero()[0].tolist()) if bool(wrong.any()) else ()


def _check_features(name: str, x: Tensor | None) -> None:
    if x is None or x.dim() != 2 or not x.is_floating_point():
        got = "none" if x is None else f"{list(x.shape)} {x.dtype}"
        raise ValueError(
            f"Expected floating point features 'x' of shape [N, F] in '{name}' (got {got}); convert them"
        )
    sparse = x.layout == torch.sparse_csr
    values = x.values() if sparse else x
    wrong = ~torch.isfinite(values)
    if at := first(wrong):
        node, column = _row_and_column(x, *at) if sparse else at
        raise ValueError(
            f"Expected finite features in '{name}' (got {values[at].item()} at node {node}, column {column}; "
            f"{int(wrong.sum())} in all); repair or drop them"
        )


def _row_and_column(x: Tensor, place: int) -> tuple[int, int]:
    # Of a value of a sparse matrix.
    return int(torch.searchsorted(x.crow_indices(), place, right=True)) - 1, int(x.col_indices()[place])


def _check_edges(name: str, data: Data, num_nodes: int) -> None:
    edge_index = data.edge_index
    if edge_index is None or edge_index.dim() != 2 or edge_index.size(0) != 2:
        got = "none" if edge_index is None else f"{list(edge_index.shape)}"
        raise ValueError(f"Expected 'edge_index' of shape [2, E] in '{name}' (got {got}); pass it")
    if edge_index.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"Expected integers in 'edge_index' of '{name}' (got {edge_index.dtype}); use torch.int64"
        )
    if at := first((edge_index < 0) | (edge_index >= num_nodes)):
        raise IndexError(
            f"Expected 'edge_index' of '{name}' in [0, {num_nodes - 1}] (got {int(edge_index[at])} in row "
            f"{at[0]} of edge {at[1]}); there are {num_nodes} nodes, counted from 0"
        )
    edge_attr = data.edge_attr
    if edge_attr is not None and edge_attr.size(0) != edge_index.size(1):
        raise ValueError(
            f"Expected one row of 'edge_attr' per edge in '{name}', {edge_index.size(1)} "
            f"(got {edge_attr.size(0)}); pass both in the same order"
        )


def _check_labels(name: str, y: Tensor | None, num_nodes: int, num_classes: int) -> None:
    if y is None or y.dim() not in (1, 2) or y.size(0) != num_nodes:
        got = "none" if y is None else f"{list(y.shape)}"
        raise ValueError(
            f"Expected labels 'y' for the {num_nodes} nodes of '{name}' (got {got}); pass one row per node"
        )
    if y.dim() == 2:
        if not y.is_floating_point() or y.size(1) != num_classes:
            raise ValueError(
                f"Expected float labels 'y' of shape [{num_nodes}, {num_classes}] in '{name}' "
                f"(got {list(y.shape)} {y.dtype}); a multi-label task has one column per label"
            )
        wrong = ~(torch.isnan(y) | (y == 0) | (y == 1))
        choices = "0, 1 or nan (unknown)"
    else:
        if y.dtype != torch.int64:
            raise ValueError(f"Expected 'y' of '{name}' in torch.int64 (got {y.dtype}); convert it")
        wrong = (y < -1) | (y >= num_classes)
        choices = f"-1 (unlabelled) to {num_classes - 1}"
    if at := first(wrong):
        raise IndexError(
            f"Expected labels of '{name}' to be {choices} (got {y[at].item()} at node {at[0]}); count "
            f"classes from 0"
        )


def _check_split(name: str, split: Split, labelled: Tensor) -> None:
    where = f"split '{split.name}' of '{name}'"
    masks = {part: getattr(split, part) for part in PARTS}
    for part, mask in masks.items():
        if mask.dtype != torch.bool or mask.shape != labelled.shape:
            raise ValueError(
                f"Expected a boolean mask of shape {list(labelled.shape)} as '{part}' of {where} (got "
                f"{list(mask.shape)} {mask.dtype}); convert it"
            )
        if not bool(mask.any()):
            raise ValueError(f"Expected nodes in '{part}' of {where} (got none); give each part at least one")
        if at := first(mask & ~labelled):
            raise ValueError(
                f"Expected labelled nodes in '{part}' of {where} (got node {at[0]} without label); leave it "
                f"out of the split"
            )
    for one, other in combinations(PARTS, 2):
        if at := first(masks[one] & masks[other]):
            raise ValueError(
                f"Expected disjoint masks in {where} (got node {at[0]} in '{one}' and '{other}'); keep it in "
                f"one of them"
            )
