r"""Citation, co-author and co-purchase graphs of `"Deep Gaussian Embedding of Graphs"
<https://arxiv.org/abs/1707.03815>`_ and `"Pitfalls of Graph Neural Network Evaluation"
<https://arxiv.org/abs/1811.05868>`_, in one format of sparse matrices. Splits take 20 nodes of a class for
training, as the latter paper has it; those of a name that ends in ``-60-20-20`` take shares of all nodes, as
`"Exphormer" <https://arxiv.org/abs/2303.06147>`_ and others after it do."""

from functools import partial
from pathlib import Path

import numpy as np

from kgat.datasets import splits
from kgat.datasets.files import expect, raw_files, read_npz, read_sparse_npz, reading
from kgat.datasets.graph import Graph
from kgat.datasets.source import GraphSource

GAUSS = (
    "Bojchevski and Günnemann, Deep Gaussian Embedding of Graphs (2018); abojchevski/graph2gauss, MIT",
    "https://raw.githubusercontent.com/abojchevski/graph2gauss/master/data",
)
PITFALLS = (
    "Shchur et al., Pitfalls of Graph Neural Network Evaluation (2018); shchur/gnn-benchmark, MIT",
    "https://raw.githubusercontent.com/shchur/gnn-benchmark/master/data/npz",
)


def _read(paths: list[Path]) -> Graph:
    x, adjacency = (read_sparse_npz(paths[0], part) for part in ("attr_", "adj_"))
    (y,) = read_npz(paths[0], "labels")
    with reading(paths[0]):
        expect(bool(np.isfinite(x.data).all()), "features that are not finite")
    # Counts become presence, as in torch_geometric.
    x.data = (x.data > 0).astype(np.float64)
    edges = adjacency.tocoo()
    return Graph(x, edges.row, edges.col, y)


FEW = partial(splits.per_class, train=20, val=30)
MANY = partial(splits.shares, train=0.6, val=0.2)

SOURCES = [
    GraphSource(
        name=name + suffix,
        read=_read,
        citation=citation,
        features="binary bag of words",
        files=raw_files(f"{folder}/raw", url, [f"{file}.npz"]),
        rule=rule,
    )
    for suffix, rule in (("", FEW), ("-60-20-20", MANY))
    for name, folder, file, (citation, url) in (
        ("CitationFull-Cora", "cora", "cora", GAUSS),
        ("Cora_ML", "cora_ml", "cora_ml", GAUSS),
        ("CitationFull-CiteSeer", "citeseer", "citeseer", GAUSS),
        ("DBLP", "dblp", "dblp", GAUSS),
        ("CitationFull-PubMed", "pubmed", "pubmed", GAUSS),
        ("Computers", "Computers", "amazon_electronics_computers", PITFALLS),
        ("Photo", "Photo", "amazon_electronics_photo", PITFALLS),
        ("CS", "CS", "ms_academic_cs", PITFALLS),
        ("Physics", "Physics", "ms_academic_phy", PITFALLS),
    )
    if not suffix or url == PITFALLS[1]
]
