r"""Graphs of the `"Open Graph Benchmark" <https://arxiv.org/abs/2005.00687>`_."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from kgat.datasets.files import RawFile, read_csv, read_npz
from kgat.datasets.graph import Graph, Parts, mask
from kgat.datasets.own.structure import structural_features
from kgat.datasets.source import GraphSource

URL = "https://snap.stanford.edu/ogb/data/nodeproppred"


def _parts(paths: list[Path], num_nodes: int) -> list[Parts]:
    train, val, test = (mask(read_csv(path, np.int64)[:, 0], num_nodes) for path in paths)
    return [("public", train, val, test)]


def _read(paths: list[Path]) -> Graph:
    features, edges, labels, *split = paths
    row, col = read_csv(edges, np.int64).T
    y = read_csv(labels, np.int64)[:, 0]
    return Graph(read_csv(features, np.float32), row, col, y, _parts(split, len(y)))


def _structure(paths: list[Path]) -> Graph:
    edges, labels, *split = paths
    row, col = read_csv(edges, np.int64).T
    y = read_csv(labels, np.int64)[:, 0]
    both = torch.from_numpy(np.concatenate([[row, col], [col, row]], axis=1))
    x = structural_features(both, len(y), ["degree", "laplacian:32"]).numpy()
    # Who cites and who is cited: the graph itself is read as undirected.
    counts = np.log1p([np.bincount(end, minlength=len(y)) for end in (row, col)]).T
    return Graph(np.concatenate([x, counts], axis=1), row, col, y, _parts(split, len(y)))


def _proteins(paths: list[Path]) -> Graph:
    features, edges, labels, *split = paths
    row, col = read_csv(edges, np.int64).T
    value = read_csv(features, np.float32)
    y = read_csv(labels, np.float32)
    # Proteins have no features of their own: the mean over their edges, each counted at both ends.
    ends = np.concatenate([row, col])
    degree = np.bincount(ends, minlength=len(y)).clip(min=1)
    x = np.stack(
        [np.bincount(ends, np.tile(channel, 2), minlength=len(y)) / degree for channel in value.T], axis=1
    )
    return Graph(x, row, col, y, _parts(split, len(y)))


def _papers100m(paths: list[Path]) -> Graph:
    data, labels, *split = paths
    x, (row, col) = read_npz(data, "node_feat", "edge_index")
    (label,) = read_npz(labels, "node_label")
    label = label.ravel()
    y = np.where(np.isnan(label), -1, label).astype(np.int64)
    return Graph(x, row, col, y, _parts(split, len(y)))


def _source(
    name: str,
    features: str,
    licence: str,
    split: str,
    raw: Sequence[str] = ("node-feat", "edge", "node-label"),
    *,
    read: Callable[[list[Path]], Graph] = _read,
    binary: bool = False,
    metric: str = "accuracy",
    suffix: str = "",
) -> GraphSource:
    archive = f"{name}-bin" if binary else name
    names = [f"raw/{file}{'.npz' if binary else '.csv.gz'}" for file in raw]
    names += [f"split/{split}/{part}.csv.gz" for part in ("train", "valid", "test")]
    return GraphSource(
        name=f"ogbn-{name}{suffix}",
        read=read,
        citation=f"Hu et al., Open Graph Benchmark (2020); {URL}, {licence}",
        features=features,
        files=tuple(
            RawFile(
                f"ogbn_{name}/{file}",
                f"{URL}/{archive}.zip",
                f"{archive}/{file}",
                (f"ogbn_{name}_pyg/{file}",),
            )
            for file in names
        ),
        metric=metric,
        needs=("pandas", "scipy"),
    )


SOURCES = [
    _source("arxiv", "mean word embeddings", "ODC-BY", "time"),
    _source(
        "arxiv",
        "degrees and 32 eigenvectors of the Laplacian, no words",
        "ODC-BY",
        "time",
        ("edge", "node-label"),
        read=_structure,
        suffix="-structure",
    ),
    _source("products", "100 principal components of a bag of words", "Amazon licence", "sales_ranking"),
    _source(
        "mag",
        "mean word embeddings; papers and their citations only",
        "ODC-BY",
        "time/paper",
        ("node-feat/paper/node-feat", "relations/paper___cites___paper/edge", "node-label/paper/node-label"),
    ),
    _source(
        "proteins",
        "mean of the features of a protein's edges; 112 binary labels",
        "CC0",
        "species",
        ("edge-feat", "edge", "node-label"),
        read=_proteins,
        metric="roc_auc",
    ),
    _source(
        "papers100M",
        "mean word embeddings",
        "ODC-BY",
        "time",
        ("data", "node-label"),
        read=_papers100m,
        binary=True,
    ),
]
