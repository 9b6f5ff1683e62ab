r"""Graphs of pages and actors of `"Geom-GCN: Geometric Graph Convolutional Networks"
<https://arxiv.org/abs/2002.05287>`_, and its ten splits, which other graphs have, too."""

import warnings
from functools import partial
from pathlib import Path

import numpy as np

from kgat.datasets.files import RawFile, expect, raw_files, read_npz, reading
from kgat.datasets.graph import Array, Graph, Parts, each_with_its_list, numbered, presence
from kgat.datasets.source import GraphSource

# The commit whose files PyG loads.
URL = "https://raw.githubusercontent.com/graphdml-uiuc-jlu/geom-gcn/f1fc0d14b3b019c562737240d06ec83b07d16a8f"


def split_files(name: str, folder: str) -> tuple[RawFile, ...]:
    r"""Returns the files of the ten splits of a graph."""
    names = [f"{name}_split_0.6_0.2_{index}.npz" for index in range(10)]
    return raw_files(folder, f"{URL}/splits", names)


def fixed_parts(paths: list[Path]) -> list[Parts]:
    r"""Reads splits of which each has a file."""
    masks = (read_npz(path, "train_mask", "val_mask", "test_mask") for path in paths)
    return numbered("geom-gcn", ([part.astype(bool) for part in three] for three in masks))


def _read(paths: list[Path], *, listed: bool = False) -> Graph:
    with reading(paths[0]), paths[0].open(encoding="utf8") as file:
        next(file, None)
        rows = [line.rstrip("\n").split("\t") for line in file]
        node = np.array([int(row[0]) for row in rows])
        expect(np.array_equal(np.sort(node), np.arange(len(rows))), "other nodes than 0, 1, 2, ... once each")
        values = [_integers(row[1]) for row in rows]
        y = np.empty(len(rows), dtype=np.int64)
        y[node] = [int(row[2]) for row in rows]
        # Actor lists the columns of its ones, the others write out zeros and ones.
        columns = values if listed else [np.flatnonzero(value) for value in values]
        expect(listed or len({len(value) for value in values}) == 1, "features of several lengths")
        width = 1 + max(int(c.max(initial=-1)) for c in columns) if listed else len(values[0])
        x = presence(*each_with_its_list(node, columns), shape=(len(rows), width))
    with reading(paths[1]):
        row, col = np.loadtxt(paths[1], dtype=np.int64, skiprows=1, ndmin=2).T
    return Graph(x, row, col, y, fixed_parts(paths[2:]))


def _integers(text: str) -> Array:
    # np.fromstring stops at the first sign that it cannot read, some versions with a warning.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        numbers = np.fromstring(text, dtype=np.int64, sep=",")
    expect(len(numbers) == text.count(",") + 1, f"{text[:40]!r} where numbers belong")
    return numbers


SOURCES = [
    GraphSource(
        name=name,
        read=partial(_read, listed=name == "Actor"),
        citation="Pei et al., Geom-GCN: Geometric Graph Convolutional Networks (2020); "
        "graphdml-uiuc-jlu/geom-gcn, no licence stated",
        features="binary bag of words",
        files=raw_files(
            folder, f"{URL}/new_data/{key}", ("out1_node_feature_label.txt", "out1_graph_edges.txt")
        )
        + split_files(key, folder),
        undirected=False,
    )
    for name, key, folder in (
        ("Texas", "texas", "texas/raw"),
        ("Cornell", "cornell", "cornell/raw"),
        ("Wisconsin", "wisconsin", "wisconsin/raw"),
        ("chameleon", "chameleon", "chameleon/geom_gcn/raw"),
        ("squirrel", "squirrel", "squirrel/geom_gcn/raw"),
        ("Actor", "film", "Actor/raw"),
    )
]
