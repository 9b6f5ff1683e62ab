r"""Pages of Facebook that like each other, of `"Multi-scale Attributed Node Embedding"
<https://arxiv.org/abs/1909.13021>`_."""

import csv
import json
from functools import partial
from pathlib import Path

import numpy as np

from kgat.datasets import splits
from kgat.datasets.files import RawFile, reading
from kgat.datasets.graph import Graph, each_with_its_list, presence
from kgat.datasets.source import GraphSource

URL = "https://raw.githubusercontent.com/benedekrozemberczki/MUSAE/master/input"


def _read(paths: list[Path]) -> Graph:
    edges_path, features_path, target_path = paths
    with reading(edges_path):
        row, col = np.loadtxt(edges_path, dtype=np.int64, delimiter=",", skiprows=1).T
    with reading(target_path), target_path.open(encoding="utf8", newline="") as file:
        page_type = {int(line["id"]): line["page_type"] for line in csv.DictReader(file)}
        kinds = sorted(set(page_type.values()))
        y = np.array([kinds.index(page_type[node]) for node in range(len(page_type))], dtype=np.int64)
    with reading(features_path):
        words = json.loads(features_path.read_text(encoding="utf8"))
        node, column = each_with_its_list(map(int, words), list(words.values()))
        x = presence(node, column, shape=(len(y), column.max() + 1))
    return Graph(x, row, col, y)


SOURCES = [
    GraphSource(
        name="FacebookPagePage",
        read=_read,
        citation="Rozemberczki et al., Multi-scale Attributed Node Embedding (2021); "
        "benedekrozemberczki/MUSAE, GPL-3.0",
        features="binary bag of words (the 4,714 raw features, not their 128 principal components)",
        files=(
            RawFile("musae_facebook/edges.csv", f"{URL}/edges/facebook_edges.csv"),
            RawFile("musae_facebook/features.json", f"{URL}/features/facebook_features.json"),
            RawFile("musae_facebook/target.csv", f"{URL}/target/facebook_target.csv"),
        ),
        rule=partial(splits.per_class, train=20, val=30),
    )
]
