r"""Pictures of `"GraphSAINT: Graph Sampling Based Inductive Learning Method"
<https://arxiv.org/abs/1907.04931>`_."""

import json
from pathlib import Path

import numpy as np

from kgat.datasets.files import RawFile, read_npy, read_sparse_npz, reading
from kgat.datasets.graph import Graph, inside, mask
from kgat.datasets.source import GraphSource

URL = "https://drive.usercontent.google.com/download?confirm=t&id="
FILES = {
    "adj_full.npz": "1crmsTbd1-2sEXsGwa2IKnIB7Zd3TmUsy",
    "feats.npy": "1join-XdvX3anJU_MLVtick7MgeAQiWIZ",
    "class_map.json": "1uxIkbtg5drHTsKt-PAsZZ4_yJmgFmle9",
    "role.json": "1htXCtuktuCW8TR8KiKfrFDAxUgekQoV7",
}


def _read(paths: list[Path]) -> Graph:
    edges = read_sparse_npz(paths[0]).tocoo()
    x = read_npy(paths[1])
    y = np.full(len(x), -1, dtype=np.int64)
    with reading(paths[2]):
        classes = json.loads(paths[2].read_text(encoding="utf8"))
        y[inside(list(map(int, classes)), len(y))] = list(classes.values())
    with reading(paths[3]):
        role = json.loads(paths[3].read_text(encoding="utf8"))
        train, val, test = (mask(role[key], len(y)) for key in ("tr", "va", "te"))
    return Graph(x, edges.row, edges.col, y, [("public", train, val, test)])


SOURCES = [
    GraphSource(
        name="Flickr",
        read=_read,
        citation="Zeng et al., GraphSAINT (2020); files of the authors, no licence stated",
        features="bag of words as published",
        files=tuple(
            RawFile(f"Flickr/raw/{file}", URL + key, also=(f"flickr_no_feats/raw/{file}",))
            for file, key in FILES.items()
        ),
    )
]
