r"""Links of the `"Open Graph Benchmark" <https://arxiv.org/abs/2005.00687>`_; its knowledge graphs, whose
relations have types, are not among them."""

from pathlib import Path

import numpy as np

from kgat.datasets.files import RawFile, expect, read_csv, read_npz, read_torch
from kgat.datasets.graph import Array, inside
from kgat.datasets.source import Links, LinkSource

URL = "https://snap.stanford.edu/ogb/data/linkproppred"


def _read(paths: list[Path]) -> Links:
    *raw, train, valid, test = paths
    x = _features(raw)
    parts = {part: read_torch(path) for part, path in (("train", train), ("val", valid), ("test", test))}
    edges = {part: _between(split, "edge", "target_node", x.shape[0]) for part, split in parts.items()}
    others = {
        part: _between(split, "edge_neg", "target_node_neg", x.shape[0])
        for part, split in parts.items()
        if part != "train" or "edge_neg" in split
    }
    return Links(x, edges, others)


def _features(raw: list[Path]) -> Array:
    if raw[0].suffix == ".npz":  # coordinates
        (x,) = read_npz(raw[0], "node_feat")
        return (x - x.mean(axis=0)) / x.std(axis=0)
    if raw[0].name.startswith("num-node"):
        from scipy.sparse import identity

        return identity(int(read_csv(raw[0], np.int64)[0, 0]), np.float32, "csr")
    return read_csv(raw[0], np.float32)


def _between(split: dict[str, Array], pairs: str, targets: str, num_nodes: int) -> Array:
    r"""Returns pairs of nodes, source first: :math:`(M, 2)`, or with several targets :math:`(M, K, 2)`."""
    if "source_node" in split:
        target = split[targets]
        source = split["source_node"].reshape(-1, *[1] * (target.ndim - 1))
        between = np.stack(np.broadcast_arrays(source, target), axis=-1)
    else:
        between = split[pairs]
    expect(between.ndim in (2, 3) and between.shape[-1] == 2, f"pairs of shape {list(between.shape)}")
    return inside(between, num_nodes)


def _source(
    name: str,
    archive: str,
    metric: str,
    split: str,
    what: str,
    features: str,
    raw: str = "node-feat.csv.gz",
    *,
    undirected: bool = True,
) -> LinkSource:
    files = [f"raw/{raw}", *(f"split/{split}/{part}.pt" for part in ("train", "valid", "test"))]
    return LinkSource(
        name=f"ogbl-{name}",
        read=_read,
        citation=f"{what}; Hu et al., Open Graph Benchmark (2020), {URL}",
        features=features,
        files=tuple(
            RawFile(
                f"ogbl_{name}/{file}",
                f"{URL}/{archive}.zip",
                f"{archive}/{file}",
                (f"ogbl_{name}_pyg/{file}",),
            )
            for file in files
        ),
        metric=metric,
        undirected=undirected,
        needs=("pandas", "scipy"),
    )


SOURCES = [
    _source("ppa", "ppassoc", "hits@100", "throughput", "Associations of proteins", "one-hot species"),
    _source("collab", "collab", "hits@50", "time", "Collaborations of authors", "mean word embeddings"),
    _source(
        *("ddi", "ddi", "hits@20", "target", "Interactions of drugs", "one-hot node identity"),
        raw="num-node-list.csv.gz",
    ),
    _source(
        *("citation2", "citation-v2", "mrr", "time", "Citations among papers", "mean word embeddings"),
        undirected=False,
    ),
    _source(
        *("vessel", "vessel", "roc_auc", "spatial", "Vessels in a brain", "coordinates, standardised"),
        raw="data.npz",
    ),
]
