r"""Articles on computer science, of `"Wiki-CS: A Wikipedia-Based Benchmark for Graph Neural Networks"
<https://arxiv.org/abs/2007.02901>`_."""

import json
from pathlib import Path

import numpy as np

from kgat.datasets.files import raw_files
from kgat.datasets.graph import Graph, each_with_its_list, numbered
from kgat.datasets.source import GraphSource

URL = "https://raw.githubusercontent.com/pmernyei/wiki-cs-dataset/master/dataset"


def _read(paths: list[Path]) -> Graph:
    content = json.loads(paths[0].read_text(encoding="utf8"))
    x = np.array(content["features"], dtype=np.float32)
    y = np.array(content["labels"], dtype=np.int64)
    links = content["links"]
    row, col = each_with_its_list(range(len(links)), links)
    test = np.array(content["test_mask"], dtype=bool)
    masks = zip(content["train_masks"], content["val_masks"], strict=True)
    parts = numbered("fixed", ((np.array(train), np.array(val), test) for train, val in masks))
    return Graph(x, row, col, y, parts)


SOURCES = [
    GraphSource(
        name="WikiCS",
        read=_read,
        citation="Mernyei and Cangea, Wiki-CS: A Wikipedia-Based Benchmark (2020); "
        "pmernyei/wiki-cs-dataset, MIT",
        features="mean word embeddings",
        files=raw_files("WikiCS/raw", URL, ["data.json"]),
    )
]
