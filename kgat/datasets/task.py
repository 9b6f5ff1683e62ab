r"""What a model is asked to do: a graph, its splits and the metric that scores an answer."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import subgraph

from kgat.brief import Brief
from kgat.datasets.digest import CONTENT, digest_of
from kgat.datasets.evaluator import official
from kgat.datasets.metrics import KINDS, METRICS, known_labels, roc_auc
from kgat.names import unknown

__all__ = ["PARTS", "Split", "Task", "Visible", "first", "roc_auc"]

PARTS = ("train", "val", "test")
PIECE = 1 << 16  # rows of features that are looked at together: they may lie on disk


@dataclass(frozen=True, eq=False, repr=False)
class Split(Brief):
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


@dataclass(frozen=True, eq=False, repr=False)
class Visible(Brief):
    r"""What training may see of a :class:`Task`: everything but the test nodes' labels and mask.

    Labels outside the training and validation nodes are :obj:`-1` (:obj:`nan` for the float
    targets of a multi-label task and of a regression). Of a heterogeneous graph features and edges are
    dictionaries by type, and :obj:`target` is the type that labels are of.
    """

    x: Any
    edge_index: Any
    edge_attr: Any
    y: Tensor
    train: Tensor
    val: Tensor
    num_classes: int
    metric: str
    kind: str = "multiclass"
    batch: Tensor | None = None
    target: str | None = None

    level: ClassVar[str] = "node"

    @property
    def out_channels(self) -> int:
        r"""Columns of the output of a model."""
        return self.num_classes


@dataclass(frozen=True, eq=False, repr=False)
class Task(Brief):
    r"""Classification or regression of the nodes of one graph.

    The task owns the metric and the splits, so that two models can only be compared on the same
    question. Everything is checked once, here, at construction.

    Args:
        name (str): The canonical name of the data set.
        data (torch_geometric.data.Data): Holds :obj:`x` (dense, or :obj:`torch.sparse_csr` for
            bags of words), :obj:`edge_index`, :obj:`y` and optionally :obj:`edge_attr`. With
            :obj:`batch`, the graph of each node, it is several graphs: training sees those alone that have
            nodes to train or to validate with (see :func:`kgat.datasets.inductive`).
            In :obj:`y`, :obj:`-1` is an unlabelled node; a multi-label task has one float column
            per label, a regression one per value (or one dimension), :obj:`nan` where it is unknown.
        splits (tuple of Split): The benchmark's fixed splits, or seeded ones.
        metric (str): One of :data:`kgat.datasets.metrics.METRICS` that scores this kind of task.
        num_classes (int): Number of classes, of labels of a multi-label task, or of values of a regression:
            the columns of a model's output.
        source (str): Where the data come from, in one line.
        preprocessing (str): What was done to them, in one line.
        kind (str, optional): :obj:`"multiclass"`, :obj:`"binary"` (two classes), :obj:`"multilabel"` or
            :obj:`"regression"`; what labels and metric say if :obj:`None`. (default: :obj:`None`)
        digest (str or None, optional): Tells this content from any other: runs on one are not continued on
            another. :obj:`"content"` has it taken of features, edges, labels, splits and metric; :obj:`None`
            is for content that a name tells, which all know. Who replaces a part of such a task
            (:func:`dataclasses.replace`) says :obj:`digest="content"`. (default: :obj:`"content"`)

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
        (34, 2, 20)
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
    digest: str | None = CONTENT

    level: ClassVar[str] = "node"

    def __post_init__(self) -> None:
        check_metric(self.name, self.metric)
        self._check_graph()
        kind = self.kind or kind_of(self.y, self.metric, self.num_classes)
        object.__setattr__(self, "kind", kind)
        check_labels(self.name, kind, self.y, self._num_rows, self.num_classes)
        check_kind(self.name, kind, self.metric, self.y, self.num_classes)
        check_splits(self.name, self.splits, labelled(self.y))
        if self.digest == CONTENT:
            content = [*self._content(), self.y, *masks_of(self.splits), self.metric, str(kind)]
            object.__setattr__(self, "digest", digest_of(content))

    def _content(self) -> Iterator[Tensor | str | None]:
        yield from (self.data.x, self.data.edge_index, self.data.edge_attr, self.data.batch)

    def _check_graph(self) -> None:
        check_features(self.name, self.data.x)
        check_edges(self.name, self.data, self._num_rows)
        if self.data.batch is not None:
            _check_batch(self.name, self.data)

    @property
    def y(self) -> Tensor:
        r"""The labels."""
        return self.data.y  # type: ignore[no-any-return]

    @property
    def _num_rows(self) -> int:
        return int(self.data.x.size(0))

    @property
    def out_channels(self) -> int:
        r"""Columns of the output of a model."""
        return self.num_classes

    def split(self, seed: int) -> Split:
        r"""Returns the split that belongs to a seed: they take turns."""
        return self.splits[seed % len(self.splits)]

    def visible(self, split: Split) -> Visible:
        r"""Returns the task without the labels that training must not see."""
        y = self._visible_labels(split)
        x, edge_index, edge_attr = self.data.x, self.data.edge_index, self.data.edge_attr
        train, val = split.train, split.val
        batch = self.data.batch
        if batch is not None:
            nodes = torch.isin(batch, batch[split.train | split.val])
            edge_index, edge_attr = subgraph(nodes, edge_index, edge_attr, relabel_nodes=True)
            x, y, batch, train, val = (each[nodes] for each in (x, y, batch, train, val))
        return Visible(
            x=x,
            edge_index=edge_index,
            edge_attr=edge_attr,
            y=y,
            train=train,
            val=val,
            num_classes=self.num_classes,
            metric=self.metric,
            kind=str(self.kind),
            batch=batch,
        )

    def _visible_labels(self, split: Split) -> Tensor:
        y = self.y.clone()
        y[~(split.train | split.val)] = float("nan") if y.is_floating_point() else -1
        return y

    def score(self, output: Tensor, split: Split, part: str) -> float:
        r"""Scores an answer on one part of a split.

        Accuracy is the share of nodes whose largest output is their class. ROC-AUC takes the
        difference of the two outputs of a binary task; on a multi-label task it is the mean over
        the labels that occur with both values in this part. A regression is scored over known values.
        Validation and test of OGB's sets are scored by its Evaluator where the package ``ogb`` is installed.

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
        mask = mask_of(split, part)
        expected = [self._num_rows, self.num_classes]
        if list(output.shape) != expected:
            raise ValueError(
                f"Expected 'output' of shape [N, num_classes]={expected} "
                f"(got {list(output.shape)}); return one row of logits per node"
            )
        score = score_rows(self.name, self.metric, output, self.y, mask, part)
        return official(self, split, part, output, score)


def masks_of(splits: Iterable[Split]) -> Iterator[Tensor]:
    r"""Yields the masks of splits, part by part."""
    for split in splits:
        yield from (split.train, split.val, split.test)


def mask_of(split: Split, part: str) -> Tensor:
    r"""Returns the mask of a part of a split."""
    if part not in PARTS:
        raise ValueError(f"Expected 'part' to be one of {PARTS} (got '{part}'); choose one")
    mask: Tensor = getattr(split, part)
    return mask


def score_rows(
    name: str, metric: str, output: Tensor, y: Tensor, mask: Tensor, part: str, row: str = "node"
) -> float:
    r"""Scores the rows of an answer that are in a part."""
    output = output.detach()[mask.to(output.device)].cpu()
    # An infinite logit still is the largest.
    bad = torch.isnan(output) if metric == "accuracy" else ~torch.isfinite(output)
    if at := first(bad):
        number = int(mask.nonzero()[at[0]])
        raise ValueError(
            f"Expected a finite 'output' (got {output[at].item()} at {row} {number}, column {at[1]}); the "
            f"model diverged, lower its learning rate"
        )
    return METRICS[metric](output, y[mask].cpu(), f"part '{part}' of '{name}'")


def kind_of(y: Tensor | None, metric: str, num_classes: int) -> str:
    r"""Returns the kind of a task that its labels and its metric speak of.

    Example:
        >>> kind_of(torch.tensor([0, 1]), "accuracy", 2), kind_of(torch.tensor([0.5]), "rmse", 1)
        ('binary', 'regression')
    """
    if METRICS[metric].kinds == ("regression",):
        return "regression"
    if y is not None and y.dim() == 2:
        return "multilabel"
    return "binary" if num_classes == 2 else "multiclass"


def labelled(y: Tensor) -> Tensor:
    r"""Returns which rows have a label, or one of several."""
    known = known_labels(y)
    return known.any(dim=1) if y.dim() == 2 else known


def first(wrong: Tensor) -> tuple[int, ...]:
    r"""Returns where the first :obj:`True` of a mask is, nothing if there is none."""
    return tuple(wrong.nonzero()[0].tolist()) if bool(wrong.any()) else ()


def check_metric(name: str, metric: str) -> None:
    if metric not in METRICS:
        unknown(f"a metric of '{name}'", metric, METRICS)


def check_kind(name: str, kind: str, metric: str, y: Tensor, num_classes: int) -> None:
    r"""Refuses a metric that does not score a kind of task."""
    if kind in METRICS[metric].kinds:
        return
    fitting = [other.name for other in METRICS.values() if kind in other.kinds]
    if kind == "multilabel":
        raise ValueError(
            f"Expected 'y' of '{name}' to be one-dimensional because metric='{metric}' (got "
            f"{list(y.shape)}); use metric='roc_auc' for a multi-label task"
        )
    if kind == "multiclass" and "binary" in METRICS[metric].kinds:
        raise ValueError(
            f"Expected two classes in '{name}' because metric='{metric}' (got num_classes={num_classes}); "
            "use metric='accuracy'"
        )
    raise ValueError(
        f"Expected a metric of a {kind} task as 'metric' of '{name}' (got '{metric}'); choose from: "
        f"{', '.join(fitting)}"
    )


def check_features(name: str, x: Tensor | None) -> None:
    if x is None or x.dim() != 2 or not x.is_floating_point():
        got = "none" if x is None else f"{list(x.shape)} {x.dtype}"
        raise ValueError(
            f"Expected floating point features 'x' of shape [N, F] in '{name}' (got {got}); convert them"
        )
    sparse = x.layout == torch.sparse_csr
    values = x.values() if sparse else x
    if all(bool(piece.isfinite().all()) for piece in values.split(PIECE)):
        return
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


def check_edges(name: str, data: Data, num_nodes: int) -> None:
    edge_index = data.edge_index
    if edge_index is None or edge_index.dim() != 2 or edge_index.size(0) != 2:
        got = "none" if edge_index is None else f"{list(edge_index.shape)}"
        raise ValueError(f"Expected 'edge_index' of shape [2, E] in '{name}' (got {got}); pass it")
    if edge_index.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"Expected integers in 'edge_index' of '{name}' (got {edge_index.dtype}); use torch.int64"
        )
    low, high = edge_index.aminmax() if edge_index.numel() else (0, -1)
    if low < 0 or high >= num_nodes:
        at = first((edge_index < 0) | (edge_index >= num_nodes))
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
    check_edge_features(f"'{name}'", edge_attr, edge_index)


def check_edge_features(of: str, edge_attr: Tensor | None, edge_index: Any, before: int = 0) -> None:
    r"""Refuses features of edges that are not finite, with the first edge that has one.

    Args:
        of (str): What errors say they are of.
        edge_attr (torch.Tensor or None): The features.
        edge_index (torch.Tensor or numpy.ndarray): The edges.
        before (int, optional): How many edges are before these. (default: :obj:`0`)
    """
    if edge_attr is None or not edge_attr.is_floating_point():
        return
    for number, piece in enumerate(edge_attr.split(PIECE)):
        if bool(piece.isfinite().all()):
            continue
        place, *column = first(~piece.isfinite())
        edge = number * PIECE + place
        source, target = edge_index[:, edge].tolist()
        of_column = f", column {column[0]}" if column else ""
        raise ValueError(
            f"Expected finite features of edges in {of} (got {piece[(place, *column)].item()} at edge "
            f"{before + edge}, from node {source} to {target}{of_column}); repair them, or drop such edges"
        )


def _check_batch(name: str, data: Data) -> None:
    batch, (row, col) = data.batch, data.edge_index
    if batch.shape != data.x.shape[:1] or batch.dtype != torch.int64 or bool((batch < 0).any()):
        raise ValueError(
            f"Expected the graph of each node of '{name}' as 'batch', {data.x.size(0)} numbers from 0 (got "
            f"{list(batch.shape)} {batch.dtype}); build it with kgat.datasets.inductive"
        )
    if at := first(batch[row] != batch[col]):
        raise ValueError(
            f"Expected edges of '{name}' within one graph (got edge {at[0]} from graph "
            f"{int(batch[row[at]])} to {int(batch[col[at]])}); leave 'batch' out if it is one graph"
        )
    if data.x.layout != torch.strided:
        raise ValueError(
            f"Expected dense features of the graphs of '{name}' (got {data.x.layout}); convert them"
        )


def check_labels(
    name: str, kind: str, y: Tensor | None, rows: int, num_classes: int, row: str = "node"
) -> None:
    r"""Refuses labels that do not fit to a number of rows and a kind of task."""
    if kind not in KINDS:
        unknown(f"the kind of '{name}'", kind, KINDS)
    if y is None or y.dim() not in (1, 2) or y.size(0) != rows:
        got = "none" if y is None else f"{list(y.shape)}"
        raise ValueError(
            f"Expected labels 'y' for the {rows} {row}s of '{name}' (got {got}); pass one row per {row}"
        )
    if kind == "binary" and num_classes != 2:
        raise ValueError(
            f"Expected two classes in '{name}' because kind='binary' (got num_classes={num_classes}); use "
            "kind='multiclass'"
        )
    if kind == "regression":
        _check_values(name, y, num_classes, row)
    elif y.dim() == 2:
        if not y.is_floating_point() or y.size(1) != num_classes or kind != "multilabel":
            raise ValueError(
                f"Expected float labels 'y' of shape [{rows}, {num_classes}] in '{name}' "
                f"(got {list(y.shape)} {y.dtype}); a multi-label task has one column per label"
            )
        wrong = ~(torch.isnan(y) | (y == 0) | (y == 1))
        _refuse_label(name, y, wrong, "0, 1 or nan (unknown)", row)
    else:
        if y.dtype != torch.int64 or kind == "multilabel":
            raise ValueError(f"Expected 'y' of '{name}' in torch.int64 (got {y.dtype}); convert it")
        wrong = (y < -1) | (y >= num_classes)
        _refuse_label(name, y, wrong, f"-1 (unlabelled) to {num_classes - 1}", row)


def _refuse_label(name: str, y: Tensor, wrong: Tensor, choices: str, row: str) -> None:
    if at := first(wrong):
        raise IndexError(
            f"Expected labels of '{name}' to be {choices} (got {y[at].item()} at {row} {at[0]}); count "
            f"classes from 0"
        )


def _check_values(name: str, y: Tensor, columns: int, row: str) -> None:
    has = 1 if y.dim() == 1 else y.size(1)
    if not y.is_floating_point() or has != columns:
        raise ValueError(
            f"Expected floating point values 'y' with num_classes={columns} columns in '{name}' because it "
            f"is a regression (got {list(y.shape)} {y.dtype}); convert them, or give their number"
        )
    if at := first(torch.isinf(y)):
        raise ValueError(
            f"Expected finite values of '{name}' (got {y[at].item()} at {row} {at[0]}); repair it, or make "
            "it nan (unknown)"
        )


def check_splits(name: str, splits: tuple[Split, ...], labelled: Tensor, row: str = "node") -> None:
    r"""Refuses splits that are none, overlap, or have parts without labels."""
    if len(splits) == 0:
        raise ValueError(f"Expected at least one split of '{name}' (got none); pass a tuple of Split")
    for split in splits:
        _check_split(name, split, labelled, row)


def _check_split(name: str, split: Split, labelled: Tensor, row: str) -> None:
    where = f"split '{split.name}' of '{name}'"
    masks = {part: getattr(split, part) for part in PARTS}
    for part, mask in masks.items():
        if mask.dtype != torch.bool or mask.shape != labelled.shape:
            raise ValueError(
                f"Expected a boolean mask of shape {list(labelled.shape)} as '{part}' of {where} (got "
                f"{list(mask.shape)} {mask.dtype}); convert it"
            )
        if not bool(mask.any()):
            raise ValueError(
                f"Expected {row}s in '{part}' of {where} (got none); give each part at least one"
            )
        if at := first(mask & ~labelled):
            raise ValueError(
                f"Expected labelled {row}s in '{part}' of {where} (got {row} {at[0]} without label); leave "
                f"it out of the split"
            )
    for one, other in combinations(PARTS, 2):
        if at := first(masks[one] & masks[other]):
            raise ValueError(
                f"Expected disjoint masks in {where} (got {row} {at[0]} in '{one}' and '{other}'); keep it "
                f"in one of them"
            )
