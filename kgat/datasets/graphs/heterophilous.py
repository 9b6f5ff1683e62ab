r"""Graphs of `"A Critical Look at the Evaluation of GNNs under Heterophily"
<https://arxiv.org/abs/2302.11640>`_."""

from pathlib import Path

from kgat.datasets.files import raw_files, read_npz
from kgat.datasets.graph import Graph, numbered
from kgat.datasets.source import GraphSource

URL = "https://raw.githubusercontent.com/yandex-research/heterophilous-graphs/main/data"


def _read(paths: list[Path]) -> Graph:
    x, y, edges = read_npz(paths[0], "node_features", "node_labels", "edges")
    masks = read_npz(paths[0], "train_masks", "val_masks", "test_masks")
    return Graph(x, edges[:, 0], edges[:, 1], y, numbered("fixed", zip(*masks, strict=True)))


SOURCES = [
    GraphSource(
        name=name,
        read=_read,
        citation="Platonov et al., A Critical Look at the Evaluation of GNNs under Heterophily (2023); "
        "yandex-research/heterophilous-graphs, MIT",
        features=features,
        files=raw_files(folder, URL, [f"{name}.npz"]),
        metric=metric,
    )
    for name, folder, features, metric in (
        ("chameleon_filtered", "platonov_filtered", "binary bag of words", "accuracy"),
        ("squirrel_filtered", "platonov_filtered", "binary bag of words", "accuracy"),
        ("roman_empire", "roman_empire/raw", "word embeddings", "accuracy"),
        ("amazon_ratings", "amazon_ratings/raw", "mean word embeddings", "accuracy"),
        ("minesweeper", "minesweeper/raw", "one-hot features", "roc_auc"),
        ("tolokers", "tolokers/raw", "profile and task statistics", "roc_auc"),
        ("questions", "questions/raw", "mean word embeddings", "roc_auc"),
    )
]
