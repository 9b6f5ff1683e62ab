r"""From a heterogeneous graph as its owner gives it to a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.transforms import ToUndirected

from kgat.datasets.digest import digest_of
from kgat.datasets.hetero_task import HeteroTask, check_edges_of_type
from kgat.datasets.own.averaged_features import averaged_features
from kgat.datasets.own.edges import first_of_each, with_edge_index
from kgat.datasets.own.encoding import Encoding
from kgat.datasets.own.labels import METRIC_OF, target_of
from kgat.datasets.own.raw import RawGraph, counted, edge_features_in
from kgat.datasets.own.splits import SHARES, splits_of
from kgat.datasets.whole_numbers import signed_data
from kgat.names import unknown

__all__ = ["expect_types", "make_hetero_task", "prepared", "target_in"]


def target_in(data: HeteroData, target: str, source: str) -> tuple[str, str]:
    r"""Returns the type of nodes that is asked for, and the attribute.

    Args:
        data (torch_geometric.data.HeteroData): The graph.
        target (str): A type, ``type.attribute``, or an attribute that one type has.
        source (str): Where the graph comes from.
    """
    name, _, attribute = target.rpartition(".")
    if target in data.node_types:
        return target, "y"
    if name:
        if name not in data.node_types:
            unknown(f"a type of nodes of {source} before '.' in 'target'", target, data.node_types, part=name)
        return name, attribute
    if not data.node_types:
        raise ValueError(f"Expected types of nodes in {source} (got none); check that it is the right one")
    having = [name for name in data.node_types if target in data[name]]
    if len(having) != 1:
        some = having[0] if having else data.node_types[0]
        raise ValueError(
            f"Expected one type of nodes of {source} with '{target}' (got {', '.join(having) or 'none'}); "
            f"name the type whose nodes are asked for: target='{some}' (--label {some})"
        )
    return having[0], target


def make_hetero_task(
    data: HeteroData,
    target_type: str,
    raw: RawGraph,
    *,
    name: str = "graph",
    kind: str | None = None,
    metric: str | None = None,
    split: str | None = None,
    time: str | None = None,
    group: str | None = None,
    shares: Sequence[float] = SHARES,
    directed: bool | None = None,
    structure: Sequence[str] = (),
) -> HeteroTask:
    r"""Makes a task of a graph, of which :obj:`raw` has the nodes that are asked for; the other arguments are
    those of :func:`kgat.datasets.from_data`."""
    if raw.num_nodes == 0:
        raise ValueError(
            f"Expected a graph with nodes of type '{target_type}' (got none in {raw.source}); check that it "
            "is the right one"
        )
    if structure:
        raise ValueError(
            f"Expected no 'structure' of a heterogeneous graph (got {', '.join(structure)}); make features "
            "of each type before"
        )
    target = target_of(raw, kind)
    splits, said = splits_of(raw, target, split=split, time=time, group=group, shares=shares)
    graph, steps = prepared(data, raw.source, directed)
    graph[target_type].y = target.y
    graph[target_type].encoding = Encoding(directed=directed).as_dict()
    for key, value in {**raw.extra, "target": raw.label, "classes": list(target.classes)}.items():
        graph[target_type][key] = value
    metric = METRIC_OF[target.kind] if metric is None else metric
    masks = [mask for of in splits for mask in (of.train, of.val, of.test)]
    content: list[Any] = [target_type, target.y, *masks, metric]
    for store in graph.stores:
        content += [
            str(getattr(store, "_key", "")),
            *(store.get(key) for key in ("x", "edge_index", "edge_attr")),
        ]
    return HeteroTask(
        name=name,
        data=graph,
        splits=splits,
        metric=metric,
        num_classes=target.num_columns,
        source=raw.source,
        preprocessing="; ".join([*steps, said]),
        kind=target.kind,
        digest=digest_of(content),
        target=target_type,
    )


def expect_types(
    data: HeteroData,
    source: str,
    features: Mapping[str, int],
    edge_features: Mapping[tuple[str, str, str], int],
) -> None:
    r"""Refuses a graph whose types or features are not those that a model was trained on.

    Args:
        data (torch_geometric.data.HeteroData): The graph.
        source (str): Where it comes from.
        features (dict): How many features each type of nodes had.
        edge_features (dict): How many each type of edges had, 0 for none.
    """
    for what, there, known in (
        ("nodes", data.node_types, features),
        ("edges", data.edge_types, edge_features),
    ):
        if set(there) != set(known):
            expected, got = (", ".join(map(str, sorted(types))) or "none" for types in (known, there))
            raise ValueError(
                f"Expected the types of {what} of training, {expected}, in {source} (got {got}); pass all of "
                "them and no other"
            )
    attr = data.collect("edge_attr", allow_empty=True)
    widths = [(name, data[name].x.size(1), number) for name, number in features.items()]
    for edge, number in edge_features.items():
        widths.append((str(edge), attr[edge].size(1) if edge in attr else 0, number))
    for of, width, trained in widths:
        if width != trained:
            raise ValueError(
                f"Expected {trained} features of type {of} as in training (got {width} in {source}); pass "
                "the same ones in the same order"
            )


def prepared(data: HeteroData, source: str, directed: bool | None) -> tuple[HeteroData, list[str]]:
    r"""Returns the graph as models take it, and what was done to it."""
    graph, steps = _cleaned(data, source)
    if directed is False:
        graph = ToUndirected()(graph)
        steps.append("each type of edges in both directions")
    lacking = [of for of in graph.node_types if "x" not in graph[of]]
    if lacking:
        graph = averaged_features(graph)
        steps.append(f"features of {', '.join(lacking)} are means of neighbours")
    return graph, steps


def _cleaned(data: HeteroData, source: str) -> tuple[HeteroData, list[str]]:
    # Features in floats, edges once each and by target.
    data = signed_data(with_edge_index(data), source)  # a copy
    graph, duplicates, steps = HeteroData(), 0, list[str]()
    for name in data.node_types:
        x = data[name].get("x")
        if x is not None:
            graph[name].x = float_features(x, f"{source}, type '{name}'")
        elif (nodes := data[name].num_nodes) is not None:
            graph[name].num_nodes = nodes
    for edge in data.edge_types:
        attr, said = edge_features_in(data[edge])
        steps += [f"{step} of {' '.join(edge)}" for step in said]
        if attr is not None:
            # In floats before they are looked at: a large number of another type may be infinite.
            data[edge].edge_attr = attr = (attr.unsqueeze(1) if attr.dim() == 1 else attr).float()
        check_edges_of_type(source, data, edge)
        index = data[edge].edge_index
        row, col = index.long().numpy()
        first = torch.from_numpy(first_of_each(row, col, None if attr is None else attr.numpy()))
        duplicates += index.size(1) - first.numel()
        graph[edge].edge_index = index.long()[:, first]
        if attr is not None:
            graph[edge].edge_attr = attr[first]
    return graph, [*steps, f"{counted(duplicates, 'duplicate edge')} dropped"]


def float_features(x: Any, source: str) -> Tensor | None:
    r"""Returns features in floats, dense or by row."""
    if x is None:
        return None
    if not isinstance(x, Tensor) or x.is_complex() or x.dim() not in (1, 2):
        got = type(x).__name__ if not isinstance(x, Tensor) else f"{list(x.shape)} {x.dtype}"
        raise ValueError(f"Expected features 'x' of shape [N, F] in {source} (got {got}); convert them")
    x = x.detach().cpu()
    if x.layout == torch.strided:
        return (x.unsqueeze(1) if x.dim() == 1 else x).float()
    return x.to_sparse_csr().float()
