r"""Posts of `"Inductive Representation Learning on Large Graphs" <https://arxiv.org/abs/1706.02216>`_."""

from pathlib import Path

import numpy as np

from kgat.datasets.files import RawFile, read_npz, read_sparse_npz
from kgat.datasets.graph import Graph
from kgat.datasets.source import GraphSource

URL = "https://data.dgl.ai/dataset/reddit.zip"


def _read(paths: list[Path]) -> Graph:
    x, y, kind = read_npz(paths[0], "feature", "label", "node_types")
    edges = read_sparse_npz(paths[1]).tocoo()
    parts = [("public", kind == 1, kind == 2, kind == 3)]
    return Graph(x, edges.row, edges.col, y.astype(np.int64), parts)


SOURCES = [
    GraphSource(
        name="Reddit",
        read=_read,
        citation="Hamilton et al., Inductive Representation Learning on Large Graphs (2017); "
        "files of DGL, no licence stated",
        features="mean word embeddings and post statistics",
        files=tuple(
            RawFile(f"Reddit/raw/{file}", URL, file) for file in ("reddit_data.npz", "reddit_graph.npz")
        ),
    )
]
