r"""The data sets: for each, which raw files it has and how they become one graph.

Raw files lie where the loaders of :obj:`torch_geometric.datasets` and :obj:`ogb` look for them, so
a folder filled by those works as root. They are read into memory directly: nothing is written
beside them and nothing they contain is run.
"""

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kgat.datasets import splits
from kgat.datasets.files import (
    RawFile,
    checked_sparse,
    expect,
    read_npy,
    read_npz,
    read_object_npy,
    read_sparse_npz,
    reading,
    unpickle,
)

Array = NDArray[Any]
Parts = tuple[str, Array, Array, Array]

PLANETOID = "https://raw.githubusercontent.com/kimiyoung/planetoid/master/data"
# The commit whose files PyG loads.
GEOM_GCN = (
    "https://raw.githubusercontent.com/graphdml-uiuc-jlu/geom-gcn/f1fc0d14b3b019c562737240d06ec83b07d16a8f"
)
GRAPH2GAUSS = "https://raw.githubusercontent.com/abojchevski/graph2gauss/master/data"
PITFALLS = "https://raw.githubusercontent.com/shchur/gnn-benchmark/master/data/npz"
HETEROPHILOUS = "https://raw.githubusercontent.com/yandex-research/heterophilous-graphs/main/data"
LINKX = "https://raw.githubusercontent.com/CUAI/Non-Homophily-Large-Scale/master/data"
MUSAE = "https://raw.githubusercontent.com/benedekrozemberczki/MUSAE/master/input"
WIKI_CS = "https://raw.githubusercontent.com/pmernyei/wiki-cs-dataset/master/dataset"
GOOGLE_DRIVE = "https://drive.usercontent.google.com/download?confirm=t&id="
REDDIT = "https://data.dgl.ai/dataset/reddit.zip"
OGB = "https://snap.stanford.edu/ogb/data/nodeproppred"


@dataclass(frozen=True)
class Graph:
    r"""A graph as its raw files give it: NumPy arrays (a SciPy CSR matrix for sparse features)."""

    x: Any
    row: Array
    col: Array
    y: Array
    parts: list[Parts] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    r"""A data set: its raw files, how to read them, and what is said about it.

    Args:
        name (str): The canonical name.
        read (callable): Reads the raw files into a :class:`Graph`.
        citation (str): Paper, origin of the files, licence.
        features (str): What the features are and what was done to them.
        files (tuple of RawFile, optional): The raw files. (default: :obj:`()`)
        rule (callable, optional): How to draw splits if the benchmark fixes none.
            (default: :obj:`None`)
        metric (str, optional): The metric of the benchmark. (default: :obj:`"accuracy"`)
        undirected (bool, optional): Whether edges are made to count in both directions.
            (default: :obj:`True`)
        needs (str, optional): A package of the extra :obj:`ogb` that reading takes.
            (default: :obj:`None`)
    """

    name: str
    read: Callable[[list[Path]], Graph]
    citation: str
    features: str
    files: tuple[RawFile, ...] = ()
    rule: splits.Rule | None = None
    metric: str = "accuracy"
    undirected: bool = True
    needs: str | None = None


def _digits(paths: list[Path]) -> Graph:
    from sklearn.datasets import load_digits
    from sklearn.neighbors import kneighbors_graph

    pixels, y = load_digits(return_X_y=True)
    deviation = pixels.std(axis=0)
    # Some border pixels are blank in every image.
    x = (pixels - pixels.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    neighbours = kneighbors_graph(x, n_neighbors=8).tocoo()
    return Graph(x, neighbours.row, neighbours.col, y)


def _karate(paths: list[Path]) -> Graph:
    import networkx as nx

    club = nx.karate_club_graph()
    row, col = np.array(club.edges, dtype=np.int64).T
    y = np.array([club.nodes[node]["club"] == "Officer" for node in club], dtype=np.int64)
    return Graph(np.eye(len(club)), row, col, y)


def _planetoid(paths: list[Path]) -> Graph:
    import scipy.sparse as sp

    *pickles, index_path = paths[:8]
    x, tx, allx, _, ty, ally, neighbours = (unpickle(path) for path in pickles)
    with reading(index_path):
        test = np.loadtxt(index_path, dtype=np.int64, ndmin=1)
        first, last = test.min(), test.max()
        # The published lists have gaps of a few nodes; room is made for what lies between.
        expect(first >= 0 and last - first < 2 * len(test), f"test nodes from {first} to {last}")
    with reading(*paths[:8]):
        # Test nodes are listed in the order of 'tx'; CiteSeer has 15 isolated ones that 'tx'
        # leaves out, whose features are zero and whose class is 0, as everywhere else.
        fill = sp.csr_matrix(
            (np.ones(len(test)), (test - first, np.arange(len(test)))),
            shape=(last - first + 1, len(test)),
        )
        features = sp.vstack([allx, fill @ tx]).tocsr()
        y = np.concatenate([ally, fill @ ty]).argmax(axis=1)
        expect(len(y) == features.shape[0], f"{len(y)} labels for {features.shape[0]} nodes")
        train = np.arange(x.shape[0])
        val = np.arange(x.shape[0], x.shape[0] + 500)
        masks = [_mask(nodes, len(y)) for nodes in (train, val, test)]
        parts: list[Parts] = [("public", masks[0], masks[1], masks[2])]
        row = np.repeat(list(neighbours), [len(nodes) for nodes in neighbours.values()])
        col = np.concatenate([np.array(nodes, dtype=np.int64) for nodes in neighbours.values()])
    if len(paths) > 8:
        parts = _geom_gcn_parts(paths[8:])
    total = np.asarray(features.sum(axis=1)).ravel()
    scale = np.divide(1.0, total, out=np.zeros_like(total, dtype=np.float64), where=total != 0)
    return Graph(sp.diags(scale) @ features, row, col, y, parts)


def _geom_gcn_parts(paths: list[Path]) -> list[Parts]:
    parts = []
    for index, path in enumerate(paths):
        masks = read_npz(path, "train_mask", "val_mask", "test_mask")
        train, val, test = (mask.astype(bool) for mask in masks)
        parts.append((f"geom-gcn-{index}", train, val, test))
    return parts


def _geom_gcn(paths: list[Path], *, listed: bool = False) -> Graph:
    import scipy.sparse as sp

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
        where = np.repeat(node, [len(c) for c in columns]), np.concatenate(columns)
        x = sp.csr_matrix((np.ones(len(where[0])), where), shape=(len(rows), width))
        # A column may be listed twice; a word is there or it is not.
        x.data[:] = 1.0
    with reading(paths[1]):
        row, col = np.loadtxt(paths[1], dtype=np.int64, skiprows=1, ndmin=2).T
    return Graph(x, row, col, y, _geom_gcn_parts(paths[2:]))


def _integers(text: str) -> Array:
    # np.fromstring stops at the first sign that it cannot read, some versions with a warning.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        numbers = np.fromstring(text, dtype=np.int64, sep=",")
    expect(len(numbers) == text.count(",") + 1, f"{text[:40]!r} where numbers belong")
    return numbers


def _bag_of_words(paths: list[Path]) -> Graph:
    x, adjacency = (read_sparse_npz(paths[0], part) for part in ("attr_", "adj_"))
    (y,) = read_npz(paths[0], "labels")
    with reading(paths[0]):
        expect(bool(np.isfinite(x.data).all()), "features that are not finite")
    # Counts become presence, as in torch_geometric.
    x.data = (x.data > 0).astype(np.float64)
    edges = adjacency.tocoo()
    return Graph(x, edges.row, edges.col, y)


def _heterophilous(paths: list[Path]) -> Graph:
    x, y, edges = read_npz(paths[0], "node_features", "node_labels", "edges")
    masks = read_npz(paths[0], "train_masks", "val_masks", "test_masks")
    parts = [(f"fixed-{i}", *parts) for i, parts in enumerate(zip(*masks, strict=True))]
    return Graph(x, edges[:, 0], edges[:, 1], y, parts)


def _facebook100(paths: list[Path]) -> Graph:
    import scipy.sparse as sp
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
        x = sp.csr_matrix((np.ones(where.size), (node, where.ravel())), shape=(len(y), int(widths.sum())))
    parts = []
    if len(paths) > 1:
        for index, split in enumerate(read_object_npy(paths[1])):
            with reading(paths[1]):
                masks = (_mask(split[key], len(y)) for key in ("train", "valid", "test"))
                train, val, test = masks
                parts.append((f"fixed-{index}", train, val, test))
    return Graph(x, edges.row, edges.col, y, parts)


def _genius(paths: list[Path]) -> Graph:
    from scipy.io import loadmat

    with reading(paths[0]):
        content = loadmat(paths[0])
        row, col = content["edge_index"].astype(np.int64)
        return Graph(content["node_feat"], row, col, content["label"].ravel().astype(np.int64))


def _facebook_page_page(paths: list[Path]) -> Graph:
    import csv

    import scipy.sparse as sp

    edges_path, features_path, target_path = paths
    with reading(edges_path):
        row, col = np.loadtxt(edges_path, dtype=np.int64, delimiter=",", skiprows=1).T
    with reading(target_path), target_path.open(encoding="utf8", newline="") as file:
        page_type = {int(line["id"]): line["page_type"] for line in csv.DictReader(file)}
        kinds = sorted(set(page_type.values()))
        y = np.array([kinds.index(page_type[node]) for node in range(len(page_type))], dtype=np.int64)
    with reading(features_path):
        words = json.loads(features_path.read_text(encoding="utf8"))
        node = np.repeat([int(key) for key in words], [len(columns) for columns in words.values()])
        column = np.concatenate([np.array(c, dtype=np.int64) for c in words.values()])
        x = sp.csr_matrix((np.ones(len(node)), (node, column)), shape=(len(y), column.max() + 1))
        x.data[:] = 1.0
    return Graph(x, row, col, y)


def _wiki_cs(paths: list[Path]) -> Graph:
    with reading(paths[0]):
        content = json.loads(paths[0].read_text(encoding="utf8"))
        x = np.array(content["features"], dtype=np.float32)
        y = np.array(content["labels"], dtype=np.int64)
        links = content["links"]
        row = np.repeat(np.arange(len(links)), [len(nodes) for nodes in links])
        col = np.concatenate([np.array(nodes, dtype=np.int64) for nodes in links])
        test = np.array(content["test_mask"], dtype=bool)
        parts = []
        for index, masks in enumerate(zip(content["train_masks"], content["val_masks"], strict=True)):
            train, val = (np.array(mask, dtype=bool) for mask in masks)
            parts.append((f"fixed-{index}", train, val, test))
    return Graph(x, row, col, y, parts)


def _flickr(paths: list[Path]) -> Graph:
    edges = read_sparse_npz(paths[0]).tocoo()
    x = read_npy(paths[1])
    y = np.full(len(x), -1, dtype=np.int64)
    with reading(paths[2]):
        classes = json.loads(paths[2].read_text(encoding="utf8"))
        y[_nodes(np.array(list(classes), dtype=np.int64), len(y))] = list(classes.values())
    with reading(paths[3]):
        role = json.loads(paths[3].read_text(encoding="utf8"))
        train, val, test = (_mask(role[key], len(y)) for key in ("tr", "va", "te"))
    return Graph(x, edges.row, edges.col, y, [("public", train, val, test)])


def _reddit(paths: list[Path]) -> Graph:
    x, y, kind = read_npz(paths[0], "feature", "label", "node_types")
    edges = read_sparse_npz(paths[1]).tocoo()
    parts = [("public", kind == 1, kind == 2, kind == 3)]
    return Graph(x, edges.row, edges.col, y.astype(np.int64), parts)


def _csv(path: Path, dtype: Any) -> Array:
    import pandas as pd

    with reading(path):
        return pd.read_csv(path, header=None, dtype=dtype, compression="gzip").to_numpy()


def _ogb(paths: list[Path]) -> Graph:
    features, edges, labels, *split = paths
    row, col = _csv(edges, np.int64).T
    y = _csv(labels, np.int64)[:, 0]
    return Graph(_csv(features, np.float32), row, col, y, _ogb_parts(split, len(y)))


def _ogb_proteins(paths: list[Path]) -> Graph:
    features, edges, labels, *split = paths
    row, col = _csv(edges, np.int64).T
    value = _csv(features, np.float32)
    y = _csv(labels, np.float32)
    # Proteins have no features of their own: the mean over their edges, each counted at both ends.
    ends = np.concatenate([row, col])
    degree = np.bincount(ends, minlength=len(y)).clip(min=1)
    x = np.stack(
        [np.bincount(ends, np.tile(channel, 2), minlength=len(y)) / degree for channel in value.T],
        axis=1,
    )
    return Graph(x, row, col, y, _ogb_parts(split, len(y)))


def _ogb_papers100m(paths: list[Path]) -> Graph:
    data, labels, *split = paths
    x, (row, col) = read_npz(data, "node_feat", "edge_index")
    (label,) = read_npz(labels, "node_label")
    label = label.ravel()
    y = np.where(np.isnan(label), -1, label).astype(np.int64)
    return Graph(x, row, col, y, _ogb_parts(split, len(y)))


def _ogb_parts(paths: list[Path], num_nodes: int) -> list[Parts]:
    train, val, test = (_mask(_csv(path, np.int64)[:, 0], num_nodes) for path in paths)
    return [("public", train, val, test)]


def _mask(nodes: Any, num_nodes: int) -> Array:
    mask = np.zeros(num_nodes, dtype=bool)
    mask[_nodes(np.asarray(nodes, dtype=np.int64), num_nodes)] = True
    return mask


def _nodes(nodes: Array, num_nodes: int) -> Array:
    # NumPy would count a negative number from the end.
    wrong = nodes[(nodes < 0) | (nodes >= num_nodes)]
    expect(not wrong.size, f"node {wrong[:1]} where 0 to {num_nodes - 1} are possible")
    return nodes


def _geom_gcn_files(name: str, folder: str) -> tuple[RawFile, ...]:
    names = [f"{name}_split_0.6_0.2_{index}.npz" for index in range(10)]
    return tuple(RawFile(f"{folder}/{file}", f"{GEOM_GCN}/splits/{file}") for file in names)


def _planetoid_sources() -> list[Source]:
    sources = []
    for name in ("Cora", "CiteSeer", "PubMed"):
        keys = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")
        names = [f"ind.{name.lower()}.{key}" for key in keys]
        files = tuple(
            RawFile(f"{name}/raw/{file}", f"{PLANETOID}/{file}", also=(f"{name}/geom-gcn/raw/{file}",))
            for file in names
        )
        words = "TF-IDF features" if name == "PubMed" else "binary bag of words"
        citation = (
            "Yang et al., Revisiting Semi-Supervised Learning with Graph Embeddings (2016); "
            "kimiyoung/planetoid, MIT"
        )
        features = f"{words}, rows normalised to sum one"
        sources.append(Source(name, _planetoid, citation, features, files))
        geom_gcn = _geom_gcn_files(name.lower(), f"{name}/geom-gcn/raw")
        citation += "; splits of Pei et al., Geom-GCN (2020)"
        sources.append(Source(f"{name}-geom-gcn", _planetoid, citation, features, files + geom_gcn))
    return sources


def _bag_of_words_sources() -> list[Source]:
    pitfalls = "Shchur et al., Pitfalls of Graph Neural Network Evaluation (2018)"
    gauss = "Bojchevski and Günnemann, Deep Gaussian Embedding of Graphs (2018)"
    table = [
        ("CitationFull-Cora", "cora/raw/cora.npz", GRAPH2GAUSS, gauss),
        ("Cora_ML", "cora_ml/raw/cora_ml.npz", GRAPH2GAUSS, gauss),
        ("CitationFull-CiteSeer", "citeseer/raw/citeseer.npz", GRAPH2GAUSS, gauss),
        ("DBLP", "dblp/raw/dblp.npz", GRAPH2GAUSS, gauss),
        ("CitationFull-PubMed", "pubmed/raw/pubmed.npz", GRAPH2GAUSS, gauss),
        ("Computers", "Computers/raw/amazon_electronics_computers.npz", PITFALLS, pitfalls),
        ("Photo", "Photo/raw/amazon_electronics_photo.npz", PITFALLS, pitfalls),
        ("CS", "CS/raw/ms_academic_cs.npz", PITFALLS, pitfalls),
        ("Physics", "Physics/raw/ms_academic_phy.npz", PITFALLS, pitfalls),
    ]
    rule = partial(splits.per_class, train=20, val=30)
    return [
        Source(
            name,
            _bag_of_words,
            f"{paper}; {'/'.join(url.split('/')[3:5])}, MIT",
            "binary bag of words",
            (RawFile(path, f"{url}/{path.rsplit('/', 1)[-1]}"),),
            rule=rule,
        )
        for name, path, url, paper in table
    ]


def _geom_gcn_sources() -> list[Source]:
    table = [
        ("Texas", "texas", "texas/raw"),
        ("Cornell", "cornell", "cornell/raw"),
        ("Wisconsin", "wisconsin", "wisconsin/raw"),
        ("chameleon", "chameleon", "chameleon/geom_gcn/raw"),
        ("squirrel", "squirrel", "squirrel/geom_gcn/raw"),
        ("Actor", "film", "Actor/raw"),
    ]
    return [
        Source(
            name,
            partial(_geom_gcn, listed=name == "Actor"),
            "Pei et al., Geom-GCN: Geometric Graph Convolutional Networks (2020); "
            "graphdml-uiuc-jlu/geom-gcn, no licence stated",
            "binary bag of words",
            tuple(
                RawFile(f"{folder}/{file}", f"{GEOM_GCN}/new_data/{key}/{file}")
                for file in ("out1_node_feature_label.txt", "out1_graph_edges.txt")
            )
            + _geom_gcn_files(key, folder),
            undirected=False,
        )
        for name, key, folder in table
    ]


def _heterophilous_sources() -> list[Source]:
    table = [
        ("chameleon_filtered", "platonov_filtered", "binary bag of words", "accuracy"),
        ("squirrel_filtered", "platonov_filtered", "binary bag of words", "accuracy"),
        ("roman_empire", "roman_empire/raw", "word embeddings", "accuracy"),
        ("amazon_ratings", "amazon_ratings/raw", "mean word embeddings", "accuracy"),
        ("minesweeper", "minesweeper/raw", "one-hot features", "roc_auc"),
        ("tolokers", "tolokers/raw", "profile and task statistics", "roc_auc"),
        ("questions", "questions/raw", "mean word embeddings", "roc_auc"),
    ]
    return [
        Source(
            name,
            _heterophilous,
            "Platonov et al., A Critical Look at the Evaluation of GNNs under Heterophily (2023); "
            "yandex-research/heterophilous-graphs, MIT",
            features,
            (RawFile(f"{folder}/{name}.npz", f"{HETEROPHILOUS}/{name}.npz"),),
            metric=metric,
        )
        for name, folder, features, metric in table
    ]


def _linkx_sources() -> list[Source]:
    citation = (
        "Lim et al., Large Scale Learning on Non-Homophilous Graphs (2021); "
        "CUAI/Non-Homophily-Large-Scale, no licence stated"
    )
    table = {
        "cornell5": "Cornell5",
        "johnshopkins55": "Johns%20Hopkins55",
        "amherst41": "Amherst41",
        "reed98": "Reed98",
        "penn94": "Penn94",
    }
    rule = partial(splits.shares, train=0.5, val=0.25)
    sources = []
    for name, file in table.items():
        files = [RawFile(f"{name}/raw/data.mat", f"{LINKX}/facebook100/{file}.mat")]
        fixed = name == "penn94"
        if fixed:
            splits_file = "fb100-Penn94-splits.npy"
            files.append(RawFile(f"{name}/raw/{splits_file}", f"{LINKX}/splits/{splits_file}"))
        sources.append(
            Source(
                name,
                _facebook100,
                citation,
                "one-hot profile features",
                tuple(files),
                rule=None if fixed else rule,
            )
        )
    genius = (RawFile("genius/raw/data.mat", f"{LINKX}/genius.mat"),)
    sources.append(
        Source("genius", _genius, citation, "profile features", genius, rule=rule, metric="roc_auc")
    )
    return sources


def _single_sources() -> list[Source]:
    drive = {
        "adj_full.npz": "1crmsTbd1-2sEXsGwa2IKnIB7Zd3TmUsy",
        "feats.npy": "1join-XdvX3anJU_MLVtick7MgeAQiWIZ",
        "class_map.json": "1uxIkbtg5drHTsKt-PAsZZ4_yJmgFmle9",
        "role.json": "1htXCtuktuCW8TR8KiKfrFDAxUgekQoV7",
    }
    return [
        Source(
            "digits",
            _digits,
            "Alpaydin and Kaynak, Optical Recognition of Handwritten Digits (1998); inside "
            "scikit-learn, CC BY 4.0",
            "64 pixels, each standardised; edges to the 8 nearest images",
            rule=partial(splits.per_class_train, train=20, val=500),
        ),
        Source(
            "karate",
            _karate,
            "Zachary, An Information Flow Model for Conflict and Fission in Small Groups (1977); "
            "inside networkx, BSD-3",
            "one-hot node identity",
            rule=partial(splits.per_class_train, train=4, val=10),
        ),
        Source(
            "FacebookPagePage",
            _facebook_page_page,
            "Rozemberczki et al., Multi-scale Attributed Node Embedding (2021); "
            "benedekrozemberczki/MUSAE, GPL-3.0",
            "binary bag of words (the 4,714 raw features, not their 128 principal components)",
            (
                RawFile("musae_facebook/edges.csv", f"{MUSAE}/edges/facebook_edges.csv"),
                RawFile("musae_facebook/features.json", f"{MUSAE}/features/facebook_features.json"),
                RawFile("musae_facebook/target.csv", f"{MUSAE}/target/facebook_target.csv"),
            ),
            rule=partial(splits.per_class, train=20, val=30),
        ),
        Source(
            "WikiCS",
            _wiki_cs,
            "Mernyei and Cangea, Wiki-CS: A Wikipedia-Based Benchmark (2020); pmernyei/wiki-cs-dataset, MIT",
            "mean word embeddings",
            (RawFile("WikiCS/raw/data.json", f"{WIKI_CS}/data.json"),),
        ),
        Source(
            "Flickr",
            _flickr,
            "Zeng et al., GraphSAINT (2020); files of the authors, no licence stated",
            "bag of words as published",
            tuple(
                RawFile(f"Flickr/raw/{file}", GOOGLE_DRIVE + key, also=(f"flickr_no_feats/raw/{file}",))
                for file, key in drive.items()
            ),
        ),
        Source(
            "Reddit",
            _reddit,
            "Hamilton et al., Inductive Representation Learning on Large Graphs (2017); "
            "files of DGL, no licence stated",
            "mean word embeddings and post statistics",
            tuple(
                RawFile(f"Reddit/raw/{file}", REDDIT, file)
                for file in ("reddit_data.npz", "reddit_graph.npz")
            ),
        ),
    ]


def _ogb_sources() -> list[Source]:
    mag = "raw/relations/paper___cites___paper/edge.csv.gz"
    plain = ("raw/node-feat.csv.gz", "raw/edge.csv.gz", "raw/node-label.csv.gz")
    table: list[tuple[str, str, Callable[[list[Path]], Graph], tuple[str, ...], str, str, str]] = [
        ("arxiv", "arxiv", _ogb, plain, "time", "mean word embeddings", "ODC-BY"),
        (
            "products",
            "products",
            _ogb,
            plain,
            "sales_ranking",
            "100 principal components of a bag of words",
            "Amazon licence",
        ),
        (
            "mag",
            "mag",
            _ogb,
            ("raw/node-feat/paper/node-feat.csv.gz", mag, "raw/node-label/paper/node-label.csv.gz"),
            "time/paper",
            "mean word embeddings; papers and their citations only",
            "ODC-BY",
        ),
        (
            "proteins",
            "proteins",
            _ogb_proteins,
            ("raw/edge-feat.csv.gz", *plain[1:]),
            "species",
            "mean of the features of a protein's edges; 112 binary labels",
            "CC0",
        ),
        (
            "papers100M",
            "papers100M-bin",
            _ogb_papers100m,
            ("raw/data.npz", "raw/node-label.npz"),
            "time",
            "mean word embeddings",
            "ODC-BY",
        ),
    ]
    sources = []
    for name, archive, read, raw, split, features, licence in table:
        names = [*raw, *(f"split/{split}/{part}.csv.gz" for part in ("train", "valid", "test"))]
        files = tuple(
            RawFile(
                f"ogbn_{name}/{file}",
                f"{OGB}/{archive}.zip",
                f"{archive}/{file}",
                also=(f"ogbn_{name}_pyg/{file}",),
            )
            for file in names
        )
        citation = f"Hu et al., Open Graph Benchmark (2020); {OGB}, {licence}"
        metric = "roc_auc" if name == "proteins" else "accuracy"
        sources.append(Source(f"ogbn-{name}", read, citation, features, files, metric=metric, needs="pandas"))
    return sources


SOURCES: tuple[Source, ...] = (
    *_single_sources()[:2],
    *_planetoid_sources(),
    *_bag_of_words_sources(),
    *_geom_gcn_sources(),
    *_heterophilous_sources(),
    *_linkx_sources(),
    *_single_sources()[2:],
    *_ogb_sources(),
)
