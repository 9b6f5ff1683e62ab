r"""From a graph as its owner gives it to a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import is_undirected

from kgat.datasets.digest import digest_of
from kgat.datasets.graph import feature_tensor
from kgat.datasets.own.edges import Edges, cleaned
from kgat.datasets.own.encoding import Encoding
from kgat.datasets.own.labels import METRIC_OF, target_of
from kgat.datasets.own.raw import Array, RawGraph, counted, names_in
from kgat.datasets.own.splits import SHARES, splits_of
from kgat.datasets.own.structure import degree_moments, structural_features
from kgat.datasets.own.unlabelled import Unlabelled
from kgat.datasets.task import Task, check_edge_features
from kgat.datasets.whole_numbers import signed

__all__ = ["make_task"]


def make_task(
    raw: RawGraph,
    *,
    name: str = "graph",
    kind: str | None = None,
    metric: str | None = None,
    split: str | None = None,
    time: str | None = None,
    group: str | None = None,
    shares: str | Sequence[float] = SHARES,
    directed: bool | None = None,
    structure: str | Sequence[str] = (),
    like: Encoding | None = None,
) -> Task:
    r"""Makes a task of a graph; the arguments are those of :func:`from_data`, which says what they are.

    With :obj:`like`, it is a graph to predict on: encoded like another, and :class:`Unlabelled`.
    """
    if raw.num_nodes == 0:
        raise ValueError(
            f"Expected a graph with nodes (got none in {raw.source}); check that it is the right one"
        )
    raw = _in_signed_types(raw)
    _check_edges(raw)
    if like is not None:
        return _unlabelled(raw, like, name)
    target = target_of(raw, kind)
    splits, said = splits_of(raw, target, split=split, time=time, group=group, shares=shares)
    if directed is None and (directed := raw.directed) is None:
        attr = None if raw.edge_attr is None else torch.from_numpy(raw.edge_attr)
        directed = not is_undirected(torch.from_numpy(raw.edge_index), attr, raw.num_nodes)
    edges, edge_index, edge_attr = _cleaned(raw, directed)
    x, layout = _features(raw)
    structure = names_in(structure)
    metric = METRIC_OF[target.kind] if metric is None else metric
    masks = [mask for of in splits for mask in (of.train, of.val, of.test)]
    # Of what was given: eigenvectors are not the same to the last bit on every machine.
    digest = digest_of([x, edge_index, edge_attr, target.y, *masks, metric, ",".join(structure)])
    encoding: dict[str, Any] = {
        **raw.encoding,
        "directed": directed,
        "structure": structure,
        "features": None if "columns" in raw.encoding else 0 if x is None else x.size(1),
        "edge_features": 0 if edge_attr is None else edge_attr.size(1),
    }
    if structure:
        if "degree" in structure:
            encoding["degrees"] = degree_moments(
                edge_index, raw.num_nodes, None if raw.fit is None else torch.from_numpy(raw.fit)
            )
        x = _with_structure(x, edge_index, raw.num_nodes, Encoding(**encoding))
        layout = f"{layout}, beside {', '.join(structure)} of the graph" if layout else ", ".join(structure)
    if x is None or x.size(1) == 0:
        raise ValueError(
            f"Expected features of the nodes of {raw.source} (got none); make some of the graph: "
            "structure=['degree', 'walk:16', 'laplacian:8'] (--structure degree,walk:16)"
        )
    data = Data(x=x, edge_index=edge_index, y=target.y)
    if edge_attr is not None:
        data.edge_attr = edge_attr
    for key, value in {
        **raw.extra,
        "encoding": Encoding(**encoding).as_dict(),
        "target": raw.label,
        "classes": list(target.classes),
    }.items():
        data[key] = value
    steps = (
        *(*raw.steps, layout, "directed" if directed else "undirected"),
        f"{counted(edges.loops, 'self-loop')} and {counted(edges.duplicates, 'duplicate edge')} dropped",
        said,
    )
    return Task(
        name=name,
        data=data,
        splits=splits,
        metric=metric,
        num_classes=target.num_columns,
        source=raw.source,
        preprocessing="; ".join(step for step in steps if step),
        kind=target.kind,
        digest=digest,
    )


def _in_signed_types(raw: RawGraph) -> RawGraph:
    # Ids of nodes become numbers of pairs, for which narrow types have no room.
    edge_index, attr = signed(raw.edge_index, "edge_index", raw.source), raw.edge_attr
    return replace(
        raw,
        labels=signed(raw.labels, raw.label, raw.source),
        edge_index=edge_index.astype(np.int64, copy=False) if edge_index.dtype.kind == "i" else edge_index,
        edge_attr=attr.astype(np.float64) if attr is not None and attr.dtype.kind == "u" else attr,
    )


def _unlabelled(raw: RawGraph, like: Encoding, name: str) -> Task:
    directed = raw.directed if like.directed is None else like.directed
    _, edge_index, edge_attr = _cleaned(raw, bool(directed))
    x, _ = _features(raw)
    like.expect_table(raw.source, "columns" in raw.encoding)
    like.expect_sizes(
        raw.source, 0 if x is None else x.size(1), 0 if edge_attr is None else edge_attr.size(1)
    )
    x = _with_structure(x, edge_index, raw.num_nodes, like)
    data = Data(x=x, edge_index=edge_index, edge_attr=edge_attr, **raw.extra)
    return Unlabelled(name, data, (), "", 0, raw.source, "as in training")


def _cleaned(raw: RawGraph, directed: bool) -> tuple[Edges, Tensor, Tensor | None]:
    edges = cleaned(raw.edge_index, raw.edge_attr, directed=directed)
    attr = edges.edge_attr
    return (
        edges,
        torch.from_numpy(edges.edge_index),
        None if attr is None else torch.from_numpy(attr.astype(np.float32)),
    )


def _with_structure(
    x: Tensor | None, edge_index: Tensor, num_nodes: int, encoding: Encoding
) -> Tensor | None:
    if not encoding.structure:
        return x
    made = structural_features(edge_index, num_nodes, encoding.structure, encoding.degrees)
    dense = x.to_dense() if x is not None and x.layout == torch.sparse_csr else x
    return made if dense is None else torch.cat([dense, made], dim=1)


def _features(raw: RawGraph) -> tuple[Tensor | None, str]:
    if raw.x is None:
        return None, ""
    if isinstance(raw.x, Tensor):
        x, layout = raw.x, "sparse" if raw.x.layout == torch.sparse_csr else "dense"
    else:
        x, layout = feature_tensor(raw.x)
    if x.size(0) != raw.num_nodes:
        raise ValueError(
            f"Expected one row of features per node of {raw.source}, {raw.num_nodes} (got {x.size(0)}); pass "
            "all in the same order"
        )
    return x, f"features {layout}"


def _check_edges(raw: RawGraph) -> None:
    edge_index: Any = raw.edge_index
    if edge_index.ndim != 2 or edge_index.shape[0] != 2 or edge_index.dtype.kind not in "iu":
        raise ValueError(
            f"Expected whole numbers of shape [2, E] as 'edge_index' of {raw.source} (got "
            f"{list(edge_index.shape)} {edge_index.dtype}); row 0 has the sources, row 1 the targets"
        )
    wrong: Array = np.argwhere((edge_index < 0) | (edge_index >= raw.num_nodes))
    if len(wrong):
        end, edge = wrong[0]
        raise IndexError(
            f"Expected edges of {raw.source} between nodes 0 to {raw.num_nodes - 1} (got node "
            f"{edge_index[end, edge]} in edge {edge}); there are {raw.num_nodes} nodes, counted from 0"
        )
    attr = raw.edge_attr
    if attr is None:
        return
    if attr.ndim not in (1, 2) or attr.dtype.kind not in "biuf":
        raise ValueError(
            f"Expected one row of numbers per edge of {raw.source} as 'edge_attr' (got {list(attr.shape)} "
            f"{attr.dtype}); convert them"
        )
    if len(attr) != edge_index.shape[1]:
        raise ValueError(
            f"Expected one row of 'edge_attr' per edge of {raw.source}, {edge_index.shape[1]} (got "
            f"{len(attr)}); pass both in the same order"
        )
    with np.errstate(over="ignore"):  # what is infinite in floats is told by its place
        floats = torch.from_numpy(attr.astype(np.float32))
    check_edge_features(raw.source, floats, torch.from_numpy(edge_index))
