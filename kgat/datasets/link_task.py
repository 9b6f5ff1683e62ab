r"""A task on links: which pairs of nodes are edges, told from pairs that are not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from kgat.brief import Brief
from kgat.datasets.digest import CONTENT, digest_of
from kgat.datasets.evaluator import official
from kgat.datasets.metrics import LINK, METRICS
from kgat.datasets.splits import words
from kgat.datasets.task import PARTS, check_edges, check_features, check_metric, first
from kgat.datasets.whole_numbers import UNSIGNED

__all__ = ["LinkSplit", "LinkTask", "Pairs", "RandomLinkSplits", "VisibleLinks", "link_task", "negatives"]

VAL, TEST, NUM_SPLITS = 0.05, 0.1, 10
FROM_EDGES = ("ogbn-arxiv-structure", "ogbn-proteins")  # sets whose features are made of their edges


@dataclass(frozen=True, eq=False, repr=False)
class Pairs(Brief):
    r"""Pairs of nodes, and which of them are edges.

    Args:
        index (torch.Tensor): The pairs, source first.
        y (torch.Tensor): One for an edge, zero for a pair that is none. In two dimensions each row holds one
            edge, which comes first, and the pairs that it is ranked among.

    Shapes:
        - **index:** :math:`(2, M)` or :math:`(2, P, 1 + K)`, **y:** without the first dimension
    """

    index: Tensor
    y: Tensor


@dataclass(frozen=True, eq=False, repr=False)
class LinkSplit(Brief):
    r"""What messages pass along, and the pairs that are trained on, choose the model and score it.

    Args:
        name (str): The name.
        edge_index (torch.Tensor): Edges of messages: none that validation or test ask for.
        edge_attr (torch.Tensor, optional): Their features.
        train (Pairs): Edges for training, and pairs that training is scored against; in a step others are
            drawn.
        val (Pairs): Those for validation.
        test (Pairs): Those for testing.
        public (bool, optional): Whether it is the split of a benchmark, which is taken as it is: an edge may
            come again in another part, or among the messages. (default: :obj:`False`)
    """

    name: str
    edge_index: Tensor
    edge_attr: Tensor | None
    train: Pairs
    val: Pairs
    test: Pairs
    public: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class VisibleLinks(Brief):
    r"""What training may see of a :class:`LinkTask`: no edge for testing, as a message or a pair."""

    x: Tensor
    edge_index: Tensor
    edge_attr: Tensor | None
    train: Tensor  # edges, source first
    val: Tensor
    val_y: Tensor
    metric: str
    undirected: bool

    level: ClassVar[str] = "link"
    kind: ClassVar[str] = "binary"
    out_channels: ClassVar[int] = 1


@dataclass(frozen=True, eq=False, repr=False)
class LinkTask(Brief):
    r"""Prediction of links in one graph.

    Args:
        name (str): The name.
        data (torch_geometric.data.Data): The graph: :obj:`x`, :obj:`edge_index` and optionally
            :obj:`edge_attr`, and :obj:`y` for figures.
        splits (list of LinkSplit): Splits, e.g. :class:`RandomLinkSplits`.
        metric (str): :obj:`"roc_auc"`, :obj:`"average_precision"`, :obj:`"mrr"` or :obj:`"hits@K"`.
        source (str): Where the data come from, in one line.
        preprocessing (str): What was done to them, in one line.
        undirected (bool, optional): Whether a pair is the same in both orders. (default: :obj:`True`)
        digest (str, optional): As of :class:`Task`. (default: :obj:`"content"`)

    Raises:
        ValueError: If features are not finite, the metric is not one of links, or a split leaks: messages
            pass along an edge that is asked for, or two parts ask for it.
        IndexError: If an edge leads to no node.

    Example:
        >>> from kgat.datasets import load
        >>> task = link_task(load("karate"))
        >>> split = task.split(seed=0)
        >>> task.name, task.metric, int(split.test.y.sum()), split.test.y.numel()
        ('karate-links', 'roc_auc', 8, 16)
    """

    name: str
    data: Data
    splits: Sequence[LinkSplit]
    metric: str
    source: str
    preprocessing: str
    undirected: bool = True
    digest: str | None = CONTENT

    level: ClassVar[str] = "link"
    kind: ClassVar[str] = "binary"
    num_classes: ClassVar[int] = 2
    out_channels: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_metric(self.name, self.metric)
        if LINK not in METRICS[self.metric].kinds:
            fitting = [metric.name for metric in METRICS.values() if LINK in metric.kinds]
            raise ValueError(
                f"Expected a metric of links as 'metric' of '{self.name}' (got '{self.metric}'); choose "
                f"from: {', '.join(fitting)}"
            )
        check_features(self.name, self.data.x)
        check_edges(self.name, self.data, self.data.x.size(0))
        if len(self.splits) == 0:
            raise ValueError(f"Expected at least one split of '{self.name}' (got none); pass LinkSplit")
        if not isinstance(self.splits, RandomLinkSplits):  # those are drawn so that they hold
            for split in self.splits:
                where = f"{self.name}, split '{split.name}'"
                messages = Data(edge_index=split.edge_index, edge_attr=split.edge_attr)
                check_edges(where, messages, self.data.x.size(0))
                _check_split(self.name, split, self.data.x.size(0), self.undirected)
        if self.digest == CONTENT:
            content = [self.data.x, self.data.edge_index, self.data.edge_attr, *_content(self.splits)]
            object.__setattr__(self, "digest", digest_of([*content, self.metric, f"{self.undirected}"]))

    def split(self, seed: int) -> LinkSplit:
        r"""Returns the split that belongs to a seed: they take turns."""
        return self.splits[seed % len(self.splits)]

    def visible(self, split: LinkSplit) -> VisibleLinks:
        r"""Returns the task without anything about test edges."""
        positive = split.train.index[:, split.train.y > 0]
        return VisibleLinks(
            x=self.data.x,
            edge_index=split.edge_index,
            edge_attr=split.edge_attr,
            train=positive,
            val=split.val.index,
            val_y=split.val.y,
            metric=self.metric,
            undirected=self.undirected,
        )

    def score(self, output: Tensor, split: LinkSplit, part: str) -> float:
        r"""Scores an answer on one part of a split, of OGB's sets as :meth:`Task.score` does.

        Args:
            output (torch.Tensor): A score for each pair of the part.
            split (LinkSplit): The split.
            part (str): :obj:`"train"`, :obj:`"val"` or :obj:`"test"`.

        Shapes:
            - **output:** that of :obj:`y` of the part

        Raises:
            ValueError: If the output has the wrong shape or is not a number somewhere.
        """
        if part not in PARTS:
            raise ValueError(f"Expected 'part' to be one of {PARTS} (got '{part}'); choose one")
        y = getattr(split, part).y
        if output.shape != y.shape:
            raise ValueError(
                f"Expected 'output' of shape {list(y.shape)} for part '{part}' of '{self.name}' (got "
                f"{list(output.shape)}); return a score for each pair"
            )
        output = output.detach().cpu()
        if at := first(~torch.isfinite(output)):
            raise ValueError(
                f"Expected a finite 'output' (got {output[at].item()} of pair {at[0]}); the model diverged, "
                "lower its learning rate"
            )
        score = METRICS[self.metric](output, y, f"part '{part}' of '{self.name}'")
        return official(self, split, part, output, score)


def _content(splits: Sequence[LinkSplit]) -> Iterator[Tensor | str | None]:
    if isinstance(splits, RandomLinkSplits):  # follow from these
        yield f"{splits.name} {splits.counts} {len(splits)}"
        return
    for split in splits:
        yield from (split.edge_index, split.edge_attr)
        for pairs in (split.train, split.val, split.test):
            yield from (pairs.index, pairs.y)


def link_task(
    task: Any, metric: str = "roc_auc", *, val: float = VAL, test: float = TEST, num_splits: int = NUM_SPLITS
) -> LinkTask:
    r"""Asks for the links of a graph instead of its labels: seeded random splits, as in `"Variational Graph
    Auto-Encoders" <https://arxiv.org/abs/1611.07308>`_.

    Edges for validation and testing are taken out of the graph, in both directions where it is undirected,
    and each part gets as many pairs that are no edges.

    Args:
        task (Task): A task on the nodes of the graph.
        metric (str, optional): The metric. (default: :obj:`"roc_auc"`)
        val (float, optional): Share of edges for validation. (default: :obj:`0.05`)
        test (float, optional): Share of edges for testing. (default: :obj:`0.1`)
        num_splits (int, optional): Number of splits. (default: :obj:`10`)

    Raises:
        ValueError: If shares leave no edges for a part, if features are made of the edges, or if nodes have
            several types.
    """
    if getattr(task, "target", None) is not None:
        raise ValueError(
            f"Expected a graph with one type of nodes (got '{task.name}', with several); links are asked "
            "for between nodes of one type: make a graph of it"
        )
    published = task.digest is None
    changed = tuple(f"{name}-" for name in FROM_EDGES)  # features with noise are still made of edges
    of_edges = published and (task.name in FROM_EDGES or task.name.startswith(changed))
    made = (task.data.get("encoding") or {}).get("structure") or of_edges
    if made:
        said = f"structure={','.join(made)}" if isinstance(made, Sequence) else "degrees or means over edges"
        raise ValueError(
            f"Expected features of '{task.name}' that are not made of the edges which are asked for (got "
            f"{said}: they tell those that are held out); leave 'structure' out, or set position_dim, "
            "which sees the edges of training alone"
        )
    name = f"{task.name}-links"
    splits = RandomLinkSplits(name, task.data, val=val, test=test, num_splits=num_splits)
    return LinkTask(
        name=name,
        data=task.data,
        splits=splits,
        metric=metric,
        source=task.source,
        preprocessing=f"{task.preprocessing}; {val:.0%} of the edges are for validation, {test:.0%} for "
        "testing, against as many pairs without one",
        undirected=splits.undirected,
        # A name tells the splits of these shares alone.
        digest=None if published and (val, test, num_splits) == (VAL, TEST, NUM_SPLITS) else CONTENT,
    )


class RandomLinkSplits(Sequence[LinkSplit]):
    r"""Splits of the edges of a graph, drawn from a name and their number alone when they are asked for.

    Args:
        name (str): The name.
        data (torch_geometric.data.Data): The graph. Self-loops stay messages and are not asked for.
        val (float, optional): Share of edges for validation. (default: :obj:`0.05`)
        test (float, optional): Share of edges for testing. (default: :obj:`0.1`)
        num_splits (int, optional): Number of splits. (default: :obj:`10`)

    Raises:
        ValueError: If shares leave no edges for a part, or there are fewer pairs without an edge than edges.
    """

    def __init__(
        self, name: str, data: Data, *, val: float = VAL, test: float = TEST, num_splits: int = NUM_SPLITS
    ) -> None:
        self.name, self.data, self.num_splits = name, data, num_splits
        num_nodes = data.x.size(0)
        row, col = data.edge_index.long().numpy()
        key = row * num_nodes + col
        self.undirected = bool(np.isin(col * num_nodes + row, key).all())
        asked = (row < col) if self.undirected else (row != col)
        self.keys = np.unique(key[asked])  # of pairs that are asked for, each once
        count = len(self.keys)
        self.counts = {"val": round(val * count), "test": round(test * count)}
        left = count - sum(self.counts.values())
        room = (num_nodes * (num_nodes - 1)) // (2 if self.undirected else 1) - count
        if min(val, test) <= 0 or min(*self.counts.values(), left) < 1 or num_splits < 1:
            raise ValueError(
                f"Expected edges for training, validation and testing in '{name}' (got {count} edges, of "
                f"which val={val} and test={test} leave {left}, {self.counts['val']} and "
                f"{self.counts['test']}); change the shares"
            )
        if room < count:
            raise ValueError(
                f"Expected as many pairs without an edge as edges in '{name}' (got {room} of them and "
                f"{count} edges); links of so dense a graph cannot be told from chance"
            )

    def __len__(self) -> int:
        return self.num_splits

    def __iter__(self) -> Iterator[LinkSplit]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(
                f"Expected the number of a split below {len(self)} (got {index}); 'num_splits' asks for more"
            )
        return self._drawn(index % len(self))

    def _drawn(self, index: int) -> LinkSplit:
        num_nodes = self.data.x.size(0)
        text = f"{self.name}/{index}"
        keys = self.keys[np.argsort(words(text, len(self.keys)), kind="stable")]
        ends = np.cumsum([self.counts["test"], self.counts["val"]])
        positives = dict(zip(("test", "val", "train"), np.split(keys, ends), strict=True))
        total = len(keys)
        drawn = torch.from_numpy(_drawn_keys(f"{text}/pairs", total, num_nodes, self.keys, self.undirected))
        parts: dict[str, Any] = {}
        start = 0
        for part, of_part in positives.items():
            key = torch.cat([torch.from_numpy(of_part), drawn[start : start + len(of_part)]])
            start += len(of_part)
            y = (torch.arange(len(key)) < len(of_part)).long()
            parts[part] = Pairs(torch.stack([key // num_nodes, key % num_nodes]), y)
        row, col = self.data.edge_index.long().numpy()
        low, high = (np.minimum(row, col), np.maximum(row, col)) if self.undirected else (row, col)
        held = np.isin(low * num_nodes + high, np.concatenate([positives["val"], positives["test"]]))
        kept = torch.from_numpy(~held)
        edge_attr = self.data.edge_attr
        return LinkSplit(
            f"random-{index}",
            self.data.edge_index[:, kept],
            None if edge_attr is None else edge_attr[kept],
            **parts,
        )


def _drawn_keys(text: str, count: int, num_nodes: int, known: np.ndarray, undirected: bool) -> np.ndarray:
    r"""Draws different pairs that are not known, from a text alone."""
    keys = np.empty(0, dtype=np.int64)
    attempt = 0
    while len(keys) < count:
        stream = words(f"{text}/{attempt}", 2 * count)
        row, col = (stream % np.uint64(num_nodes)).astype(np.int64).reshape(2, -1)
        if undirected:
            row, col = np.minimum(row, col), np.maximum(row, col)
        new = (row * num_nodes + col)[row != col]
        both = np.concatenate([keys, new[~np.isin(new, known)]])
        _, at = np.unique(both, return_index=True)
        keys, attempt = both[np.sort(at)], attempt + 1
    return keys[:count]


def negatives(count: int, num_nodes: int, known: Tensor) -> Tensor:
    r"""Draws pairs of different nodes that are not known, by torch's generator; they may repeat.

    Args:
        count (int): How many.
        num_nodes (int): Number of nodes.
        known (torch.Tensor): Numbers :math:`i N + j` of pairs, sorted.

    Shapes:
        - **known:** :math:`(E)`, **output:** :math:`(2, M)`

    Example:
        >>> negatives(3, 2, torch.tensor([1]))
        tensor([[1, 1, 1],
                [0, 0, 0]])
    """
    drawn = known.new_empty(0)
    while drawn.numel() < count:
        # On the CPU, so that all devices get the same.
        row, col = torch.randint(num_nodes, (2, 2 * count)).to(known.device)
        key = (row * num_nodes + col)[row != col]
        place = torch.searchsorted(known, key).clamp(max=max(0, known.numel() - 1))
        drawn = torch.cat([drawn, key if known.numel() == 0 else key[known[place] != key]])
    drawn = drawn[:count]
    return torch.stack([drawn // num_nodes, drawn % num_nodes])


def _check_split(name: str, split: LinkSplit, num_nodes: int, undirected: bool) -> None:
    where = f"split '{split.name}' of '{name}'"
    messages = _keys(split.edge_index, num_nodes, undirected)
    before: list[tuple[str, Tensor]] = []
    for part in PARTS:
        pairs = getattr(split, part)
        index, y = pairs.index, pairs.y
        if index.dim() not in (2, 3) or index.size(0) != 2 or index.shape[1:] != y.shape:
            raise ValueError(
                f"Expected pairs of shape [2, M] with a 'y' of each as '{part}' of {where} (got "
                f"{list(index.shape)} and {list(y.shape)}); pass Pairs(index, y)"
            )
        if index.dtype not in (torch.int64, torch.int32) or y.dtype in UNSIGNED[1:]:
            raise ValueError(
                f"Expected pairs and 'y' in torch.int64 as '{part}' of {where} (got {index.dtype} and "
                f"{y.dtype}); convert them"
            )
        if index.numel() > 0 and not 0 <= int(index.min()) <= int(index.max()) < num_nodes:
            raise IndexError(
                f"Expected pairs of nodes 0 to {num_nodes - 1} in '{part}' of {where} (got "
                f"{int(index.min())} to {int(index.max())}); count nodes from 0"
            )
        if not bool((y > 0).any()):
            raise ValueError(f"Expected edges in '{part}' of {where} (got none); give each part at least one")
        if split.public:
            continue
        asked = index[:, y > 0]
        key = _keys(asked, num_nodes, undirected)
        if part != "train" and (at := first(torch.isin(key, messages))):
            one, other = asked[:, at[0]].tolist()
            raise ValueError(
                f"Expected no edge of '{part}' among the messages of {where} (got {one} to {other}); it "
                "would give the answer away: take it out of 'edge_index'"
            )
        for earlier, there in before:
            if at := first(torch.isin(key, there)):
                one, other = asked[:, at[0]].tolist()
                raise ValueError(
                    f"Expected disjoint parts in {where} (got the edge {one} to {other} in '{earlier}' and "
                    f"'{part}'); keep it in one of them"
                )
        before.append((part, key))
        denied = index[:, y <= 0]
        if y.dim() == 1 and (at := first(torch.isin(_keys(denied, num_nodes, undirected), key))):
            one, other = denied[:, at[0]].tolist()
            raise ValueError(
                f"Expected pairs that are no edges of '{part}' of {where} where 'y' is 0 (got {one} to "
                f"{other}, which is one); take it out"
            )


def _keys(index: Tensor, num_nodes: int, undirected: bool) -> Tensor:
    one, other = index.long().unbind(0)
    if undirected:
        one, other = torch.minimum(one, other), torch.maximum(one, other)
    return one * num_nodes + other
