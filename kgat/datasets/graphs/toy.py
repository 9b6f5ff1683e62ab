r"""Two graphs that come with packages and need no file."""

from functools import partial
from pathlib import Path

import numpy as np

from kgat.datasets import splits
from kgat.datasets.graph import Graph, neighbourhood
from kgat.datasets.source import GraphSource


def _digits(paths: list[Path]) -> Graph:
    from sklearn.datasets import load_digits

    return neighbourhood(*load_digits(return_X_y=True))


def _karate(paths: list[Path]) -> Graph:
    import networkx as nx

    club = nx.karate_club_graph()
    row, col = np.array(club.edges, dtype=np.int64).T
    y = np.array([club.nodes[node]["club"] == "Officer" for node in club], dtype=np.int64)
    return Graph(np.eye(len(club)), row, col, y)


SOURCES = [
    GraphSource(
        name="digits",
        read=_digits,
        citation="Alpaydin and Kaynak, Optical Recognition of Handwritten Digits (1998); "
        "inside scikit-learn, CC BY 4.0",
        features="64 pixels, each standardised; edges to the 8 nearest images",
        rule=partial(splits.per_class_train, train=20, val=500),
        needs=("sklearn",),
    ),
    GraphSource(
        name="karate",
        read=_karate,
        citation="Zachary, An Information Flow Model for Conflict and Fission in Small Groups (1977); "
        "inside networkx, BSD-3",
        features="one-hot node identity",
        rule=partial(splits.per_class_train, train=4, val=10),
        needs=("networkx",),
    ),
]
