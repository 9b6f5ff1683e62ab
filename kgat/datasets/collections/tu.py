r"""Collections of graphs of `"TUDataset" <https://arxiv.org/abs/2007.08663>`_."""

from functools import partial
from pathlib import Path

import numpy as np

from kgat.datasets.files import RawFile, expect, reading
from kgat.datasets.graph import Array, inside
from kgat.datasets.source import Collection, CollectionSource

URL = "https://www.chrsmrrs.com/graphkerneldatasets"


def _table(path: Path, dtype: type) -> Array:
    with reading(path):
        return np.loadtxt(path, dtype=dtype, delimiter=",", ndmin=2)


def _one_hot(labels: Array) -> Array:
    labels = labels[:, 0] - labels.min()
    expect(int(labels.max()) < 1000, f"a label of {labels.max()}")
    return np.eye(int(labels.max()) + 1, dtype=np.float32)[labels]


def _read(paths: list[Path], has: tuple[str, ...]) -> Collection:
    edges, indicator, labels, *more = paths
    tables = {
        name: _table(path, float if name == "node_attributes" else int)
        for name, path in zip(has, more, strict=True)
    }
    graph = _table(indicator, int)[:, 0] - 1
    row, col = (inside(end - 1, len(graph)) for end in _table(edges, int).T)
    columns = []
    if "node_attributes" in tables:
        values = tables["node_attributes"]
        deviation = values.std(axis=0)
        columns.append((values - values.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0))
    columns.append(_one_hot(tables["node_labels"]))
    _, y = np.unique(_table(labels, int)[:, 0], return_inverse=True)
    edge_attr = _one_hot(tables["edge_labels"]) if "edge_labels" in tables else None
    return Collection(np.concatenate(columns, axis=1), row, col, graph, y, edge_attr)


def _source(name: str, features: str, origin: str, *has: str) -> CollectionSource:
    files = ("A", "graph_indicator", "graph_labels", *has)
    return CollectionSource(
        name=name,
        read=partial(_read, has=has),
        citation=f"{origin}; Morris et al., TUDataset (2020)",
        features=features,
        files=tuple(
            RawFile(f"{name}/raw/{name}_{file}.txt", f"{URL}/{name}.zip", f"{name}/{name}_{file}.txt")
            for file in files
        ),
        num_folds=10,
    )


SOURCES = [
    _source(
        "MUTAG",
        "one-hot atoms; edges: one-hot bonds",
        "Debnath et al., Mutagenic aromatic and heteroaromatic nitro compounds (1991)",
        *("node_labels", "edge_labels"),
    ),
    _source(
        "ENZYMES",
        "18 attributes of secondary structure elements, standardised over all graphs, and their one-hot type",
        "Borgwardt et al., Protein function prediction via graph kernels (2005)",
        *("node_attributes", "node_labels"),
    ),
    _source(
        "PROTEINS",
        "length of secondary structure elements, standardised over all graphs, and their one-hot type",
        "Dobson and Doig, Distinguishing enzyme structures from non-enzymes (2003)",
        *("node_attributes", "node_labels"),
    ),
]
