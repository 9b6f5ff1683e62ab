r"""Friends at five universities and a list of users, of `"Large Scale Learning on Non-Homophilous Graphs"
<https://arxiv.org/abs/2110.14446>`_."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kgat.datasets import splits
from kgat.datasets.files import RawFile, checked_sparse, read_object_npy, reading
from kgat.datasets.graph import Graph, mask, numbered, presence
from kgat.datasets.source import GraphSource

URL = "https://raw.githubusercontent.com/CUAI/Non-Homophily-Large-Scale/master/data"
RULE = partial(splits.shares, train=0.5, val=0.25)


def _facebook100(paths: list[Path]) -> Graph:
    from scipy.io import loadmat

    with reading(paths[0]):
        content = loadmat(paths[0])
        edges = checked_sparse(content["A"]).tocoo()
        table = content["local_info"].astype(np.int64)
        # Column 1 is the gender, 0 where unknown; the others are categories.
        y = table[:, 1] - 1
        columns = [
            np.unique(table[:, column], return_inverse=True)[1].ravel()
            for column in range(table.shape[1])
            if column != 1
        ]
        widths = np.array([column.max() + 1 for column in columns])
        offsets = np.cumsum(widths) - widths
        where = np.stack(columns, axis=1) + offsets
        node = np.repeat(np.arange(len(y)), len(columns))
        x = presence(node, where.ravel(), shape=(len(y), int(widths.sum())))
    parts = []
    if len(paths) > 1:
        fixed = read_object_npy(paths[1])
        with reading(paths[1]):
            keys = ("train", "valid", "test")
            parts = numbered("fixed", [[mask(split[key], len(y)) for key in keys] for split in fixed])
    return Graph(x, edges.row, edges.col, y, parts)


def _genius(paths: list[Path]) -> Graph:
    from scipy.io import loadmat

    content = loadmat(paths[0])
    row, col = content["edge_index"].astype(np.int64)
    return Graph(content["node_feat"], row, col, content["label"].ravel().astype(np.int64))


def _source(name: str, file: str, *more: RawFile, **changes: Any) -> GraphSource:
    description = {
        "name": name,
        "read": _facebook100,
        "citation": "Lim et al., Large Scale Learning on Non-Homophilous Graphs (2021); "
        "CUAI/Non-Homophily-Large-Scale, no licence stated",
        "features": "one-hot profile features",
        "files": (RawFile(f"{name}/raw/data.mat", f"{URL}/{file}.mat"), *more),
        "rule": RULE,
    }
    return GraphSource(**{**description, **changes})


SPLITS = "fb100-Penn94-splits.npy"
SOURCES = [
    _source("cornell5", "facebook100/Cornell5"),
    _source("johnshopkins55", "facebook100/Johns%20Hopkins55"),
    _source("amherst41", "facebook100/Amherst41"),
    _source("reed98", "facebook100/Reed98"),
    _source(
        "penn94",
        "facebook100/Penn94",
        RawFile(f"penn94/raw/{SPLITS}", f"{URL}/splits/{SPLITS}"),
        rule=None,
    ),
    _source("genius", "genius", read=_genius, features="profile features", metric="roc_auc"),
]
