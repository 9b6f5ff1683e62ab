r"""Citation graphs of `"Revisiting Semi-Supervised Learning with Graph Embeddings"
<https://arxiv.org/abs/1603.08861>`_, with their public split and with those of Geom-GCN."""

from pathlib import Path

import numpy as np

from kgat.datasets.files import RawFile, expect, reading, unpickle
from kgat.datasets.graph import Graph, Parts, each_with_its_list, mask
from kgat.datasets.graphs.geom_gcn import fixed_parts, split_files
from kgat.datasets.source import GraphSource

URL = "https://raw.githubusercontent.com/kimiyoung/planetoid/master/data"
CITATION = (
    "Yang et al., Revisiting Semi-Supervised Learning with Graph Embeddings (2016); kimiyoung/planetoid, MIT"
)


def _read(paths: list[Path]) -> Graph:
    import scipy.sparse as sp

    *pickles, index_path = paths[:8]
    x, tx, allx, _, ty, ally, neighbours = (unpickle(path) for path in pickles)
    with reading(index_path):
        test = np.loadtxt(index_path, dtype=np.int64, ndmin=1)
        first, last = test.min(), test.max()
        # The published lists have gaps of a few nodes; room is made for what lies between.
        expect(first >= 0 and last - first < 2 * len(test), f"test nodes from {first} to {last}")
    with reading(*paths[:8]):
        # Test nodes are listed in the order of 'tx'; CiteSeer has 15 isolated ones that 'tx'
        # leaves out, whose features are zero and whose class is 0, as everywhere else.
        fill = sp.csr_matrix(
            (np.ones(len(test)), (test - first, np.arange(len(test)))),
            shape=(last - first + 1, len(test)),
        )
        features = sp.vstack([allx, fill @ tx]).tocsr()
        y = np.concatenate([ally, fill @ ty]).argmax(axis=1)
        expect(len(y) == features.shape[0], f"{len(y)} labels for {features.shape[0]} nodes")
        train = np.arange(x.shape[0])
        val = np.arange(x.shape[0], x.shape[0] + 500)
        parts: list[Parts] = [("public", mask(train, len(y)), mask(val, len(y)), mask(test, len(y)))]
        row, col = each_with_its_list(neighbours, list(neighbours.values()))
    if len(paths) > 8:
        parts = fixed_parts(paths[8:])
    total = np.asarray(features.sum(axis=1)).ravel()
    scale = np.divide(1.0, total, out=np.zeros_like(total, dtype=np.float64), where=total != 0)
    return Graph(sp.diags(scale) @ features, row, col, y, parts)


def _sources(name: str, words: str) -> list[GraphSource]:
    keys = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")
    names = [f"ind.{name.lower()}.{key}" for key in keys]
    files = tuple(
        RawFile(f"{name}/raw/{file}", f"{URL}/{file}", also=(f"{name}/geom-gcn/raw/{file}",))
        for file in names
    )
    features = f"{words}, rows normalised to sum one"
    return [
        GraphSource(name=name, read=_read, citation=CITATION, features=features, files=files),
        GraphSource(
            name=f"{name}-geom-gcn",
            read=_read,
            citation=f"{CITATION}; splits of Pei et al., Geom-GCN (2020)",
            features=features,
            files=files + split_files(name.lower(), f"{name}/geom-gcn/raw"),
        ),
    ]


SOURCES = [
    *_sources("Cora", "binary bag of words"),
    *_sources("CiteSeer", "binary bag of words"),
    *_sources("PubMed", "TF-IDF features"),
]
