import functools
import gzip
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch
import warm_process
from torch_geometric import datasets as pyg
from torch_geometric.utils import coalesce, remove_self_loops, to_undirected

from kgat.datasets import graphs
from kgat.datasets.files import checksums
from kgat.datasets.graphs import load, names, nearest, ogb, reddit
from kgat.datasets.source import discover

NAMES = {
    "digits", "karate", "Cora", "Cora-geom-gcn", "CiteSeer", "CiteSeer-geom-gcn", "PubMed",
    "PubMed-geom-gcn", "CitationFull-Cora", "Cora_ML", "CitationFull-CiteSeer", "DBLP",
    "CitationFull-PubMed", "Computers", "Photo", "CS", "Physics", "Computers-60-20-20", "Photo-60-20-20",
    "CS-60-20-20", "Physics-60-20-20", "wine", "breast_cancer", "diabetes", "PenDigits-nearest",
    "JapaneseVowels-nearest", "SST2-nearest", "ERing-nearest", "RacketSports-nearest", "Libras-nearest",
    "UWaveGestureLibrary-nearest", "OSULeaf-nearest", "Handwriting-nearest",
    "ItalyPowerDemand-nearest", "Epilepsy-nearest", "ArrowHead-nearest", "GunPoint-nearest", "ACSF1-nearest",
    "ogbn-arxiv-structure", "Texas", "Cornell", "Wisconsin",
    "chameleon", "squirrel", "chameleon_filtered", "squirrel_filtered", "Actor", "roman_empire",
    "amazon_ratings", "minesweeper", "tolokers", "questions", "cornell5", "johnshopkins55",
    "amherst41", "reed98", "penn94", "genius", "FacebookPagePage", "WikiCS", "Flickr", "Reddit",
    "ogbn-arxiv", "ogbn-products", "ogbn-mag", "ogbn-proteins", "ogbn-papers100M",
}  # fmt: skip
ROC_AUC = {"minesweeper", "tolokers", "questions", "genius", "ogbn-proteins"}

# Nodes, edges in both directions without self-loops, features, classes, splits, and the parts of
# the first split, as the data sets' publishers and PyG's loaders count them.
COUNTS = {
    "Cora": (2708, 10556, 1433, 7, 1, (140, 500, 1000)),
    "Cora-geom-gcn": (2708, 10556, 1433, 7, 10, (1192, 796, 497)),
    "CiteSeer": (3327, 9104, 3703, 6, 1, (120, 500, 1000)),
    "CiteSeer-geom-gcn": (3327, 9104, 3703, 6, 10, (1596, 1065, 666)),
    "PubMed": (19717, 88648, 500, 3, 1, (60, 500, 1000)),
    "PubMed-geom-gcn": (19717, 88648, 500, 3, 10, (9463, 6310, 3944)),
    "Cora_ML": (2995, 16316, 2879, 7, 20, (140, 210, 2645)),
    "DBLP": (17716, 105734, 1639, 4, 20, (80, 120, 17516)),
    "Computers": (13752, 491722, 767, 10, 20, (200, 300, 13252)),
    "Physics": (34493, 495924, 8415, 5, 20, (100, 150, 34243)),
    "Texas": (183, 325 - 16, 1703, 5, 10, (87, 59, 37)),
    "Cornell": (183, 298 - 3, 1703, 5, 10, (87, 59, 37)),
    "Wisconsin": (251, 515 - 16, 1703, 5, 10, (120, 80, 51)),
    "chameleon": (2277, 36101 - 50, 2325, 5, 10, (1092, 729, 456)),
    "squirrel": (5201, 217073 - 140, 2089, 5, 10, (2496, 1664, 1041)),
    "chameleon_filtered": (890, 2 * 8854, 2325, 5, 10, None),
    "squirrel_filtered": (2223, 2 * 46998, 2089, 5, 10, None),
    "tolokers": (11758, 1038000, 10, 2, 10, (5879, 2939, 2940)),
    "cornell5": (18660, 1581554, 4735, 2, 20, None),
    "johnshopkins55": (5180, 373172, 2406, 2, 20, None),
    "amherst41": (2235, 181908, 1193, 2, 20, None),
    "reed98": (962, 37624, 745, 2, 20, None),
    "FacebookPagePage": (22470, 2 * (171002 - 179), 4714, 4, 20, (80, 120, 22270)),
}


def dense(x):
    return x.to_dense() if x.layout == torch.sparse_csr else x


def parts(split):
    return tuple(int(mask.sum()) for mask in (split.train, split.val, split.test))


def check(task):
    r"""What a task promises of any data set."""
    x, edge_index = task.data.x, task.data.edge_index
    assert x.dtype == torch.float32
    assert edge_index.dtype == torch.int64
    row, col = edge_index
    assert bool((row != col).all())
    key = col * x.size(0) + row
    assert bool((key[1:] > key[:-1]).all())
    assert "\n" not in task.source + task.preprocessing
    if "undirected" in task.preprocessing:
        assert torch.equal(key, (row * x.size(0) + col).sort()[0])


def present(name, root):
    (source,) = (source for source in graphs.SOURCES if source.name == name)
    return any(
        all(any((root / path).is_file() for path in (file.path, *file.also)) for file in files)
        for files in filter(None, (source.files, source.instead))
    )


@pytest.mark.quick
def test_names():
    assert len(names()) == len(set(names()))
    assert set(names()) == NAMES


@pytest.mark.quick
def test_a_file_is_all_that_a_data_set_takes(tmp_path, monkeypatch):
    (tmp_path / "triangle.py").write_text(
        "import numpy as np\n"
        "from functools import partial\n"
        "from kgat.datasets import splits\n"
        "from kgat.datasets.graph import Graph\n"
        "from kgat.datasets.source import GraphSource\n"
        "def read(paths):\n"
        "    return Graph(np.eye(9), np.arange(8), np.arange(1, 9), np.arange(9) % 3)\n"
        "rule = partial(splits.per_class, train=1, val=1)\n"
        "SOURCES = [GraphSource(name='tri-angle', read=read, citation='none', features='ones', rule=rule)]\n"
    )
    monkeypatch.setattr(graphs, "__path__", [*graphs.__path__, str(tmp_path)])
    sources = discover(graphs.__name__, graphs.__path__, first=("toy",))
    assert {source.name for source in sources} == NAMES | {"tri-angle"}
    assert [source.name for source in sources[:2]] == ["digits", "karate"]
    monkeypatch.setattr(graphs, "SOURCES", sources)
    assert "tri-angle" in names()
    task = load("Triangle", tmp_path)
    check(task)
    assert (task.name, task.num_classes, task.metric) == ("tri-angle", 3, "accuracy")
    (tmp_path / "again.py").write_text("from kgat.datasets.graphs.triangle import SOURCES\n")
    with pytest.raises(ValueError, match=r"names of data sets that differ \(got 'tri-angle' twice\)"):
        discover(graphs.__name__, graphs.__path__, first=())


@pytest.mark.quick
def test_name_is_taken_loosely(tmp_path):
    assert load("Kar_AtE", tmp_path).name == "karate"
    with pytest.raises(
        ValueError, match=r"'corra'\); choose from: digits, karate, Cora, .*; did you mean 'Cora'\?$"
    ):
        load("corra", tmp_path)
    with pytest.raises(ValueError, match="got 'maybe'"):
        load("karate", tmp_path, sparse="maybe")


def test_every_address_is_encrypted_and_every_checksum_used():
    paths = {file.path for source in graphs.SOURCES for file in source.files}
    urls = {file.url for source in graphs.SOURCES for file in source.files}
    assert all(url.startswith("https://") for url in urls if url is not None)
    assert {path for path in checksums() if not path.startswith("seq/")} <= paths


@pytest.mark.quick
def test_digits():
    task = load("digits")
    check(task)
    x, edge_index = task.data.x.double(), task.data.edge_index
    assert (task.data.num_nodes, x.size(1), task.num_classes) == (1797, 64, 10)
    assert torch.allclose(x.mean(dim=0), torch.zeros(64, dtype=torch.double), atol=1e-6)
    assert set(x.var(dim=0, correction=0).round(decimals=4).tolist()) == {0.0, 1.0}
    # The oracle of the graph: 8 nearest by all distances, in either direction.
    near = torch.cdist(x, x).fill_diagonal_(torch.inf).topk(8, largest=False).indices
    adjacency = torch.zeros(1797, 1797, dtype=torch.bool)
    adjacency[torch.arange(1797).view(-1, 1), near] = True
    found = torch.zeros(1797, 1797, dtype=torch.bool)
    found[edge_index[0], edge_index[1]] = True
    assert torch.equal(found, adjacency | adjacency.T)
    assert len(task.splits) == 20
    assert {parts(split) for split in task.splits} == {(200, 500, 1097)}
    assert all(task.data.y[split.train].bincount().tolist() == [20] * 10 for split in task.splits)


@pytest.mark.quick
def test_tables_as_graphs_of_their_nearest_points():
    for name, counts, sizes in (
        ("wine", (178, 13, 3), (30, 40, 108)),
        ("breast_cancer", (569, 30, 2), (40, 100, 429)),
    ):
        task = load(name)
        check(task)
        assert (task.data.num_nodes, task.data.x.size(1), task.num_classes) == counts
        assert {parts(split) for split in task.splits} == {sizes}
        assert task.data.edge_index[1].bincount().min() >= 8
    task = load("diabetes")
    assert (task.kind, task.metric, task.data.y.shape) == ("regression", "rmse", (442, 1))
    assert (task.data.y.min(), task.data.y.max()) == (25.0, 346.0)
    assert [parts(split) for split in task.splits] == [(221, 110, 111)] * 20
    assert len({tuple(split.train.tolist()) for split in task.splits}) == 20


@pytest.mark.parametrize(
    ("name", "points", "features", "classes", "homophily"),
    [
        ("PenDigits", 10992, 16, 10, 0.98),
        ("JapaneseVowels", 640, 24, 9, 0.90),
        ("ERing", 300, 260, 6, 0.92),
        ("RacketSports", 303, 180, 4, 0.66),
        ("Libras", 360, 90, 15, 0.52),
        ("UWaveGestureLibrary", 440, 945, 8, 0.84),
        ("OSULeaf", 442, 427, 6, 0.46),
        ("Handwriting", 1000, 456, 26, 0.25),
        ("ItalyPowerDemand", 1096, 24, 2, 0.95),
        ("Epilepsy", 275, 618, 4, 0.44),
        ("ArrowHead", 211, 251, 3, 0.81),
        ("GunPoint", 200, 150, 2, 0.82),
        ("ACSF1", 200, 1460, 10, 0.45),
    ],
)
def test_series_as_graphs_of_their_nearest_points(name, points, features, classes, homophily, data_root):
    if not present(f"{name}-nearest", data_root):
        pytest.skip(f"needs the raw files of {name}")
    task = load(f"{name}-nearest", data_root)
    check(task)
    assert (*task.data.x.shape, task.num_classes) == (points, features, classes)
    assert task.data.edge_index[1].bincount().min() >= 8
    # What is near is alike, on these more and on those less.
    source, target = task.data.edge_index
    assert (task.data.y[source] == task.data.y[target]).float().mean() == pytest.approx(homophily, abs=0.01)


def test_series_of_the_archive_and_packed_ones_are_one_graph(tmp_path, random, monkeypatch):
    monkeypatch.setattr("kgat.datasets.files.checksums", dict)
    x, y = random.normal(size=(180, 5, 4)).round(3), np.arange(180) % 6
    graphs_of = []
    for form in ("packed", "archive"):
        root = tmp_path / form
        if form == "packed":
            (root / "seq/uea_npz").mkdir(parents=True)
            np.savez(root / "seq/uea_npz/ERing.npz", X=x, y=y, n_train=30)
        else:
            for part, rows in (("TRAIN", range(30)), ("TEST", range(30, 180))):
                cases = [
                    ":".join([*(",".join(map(str, x[row, :, channel])) for channel in range(4)), str(y[row])])
                    for row in rows
                ]
                head = ["@dimensions 4", "@classLabel true 0 1 2 3 4 5", "@data"]
                write(root / "seq/uea/ERing" / f"ERing_{part}.ts", "\n".join([*head, *cases]))
        graphs_of.append(load("ERing-nearest", root))
    packed, archive = (task.data for task in graphs_of)
    assert packed.num_nodes == 180
    for name in ("x", "edge_index", "y"):
        assert torch.equal(packed[name], archive[name])
    with pytest.raises(FileNotFoundError, match=r"ERing_TRAIN.ts"):
        load("ERing-nearest", tmp_path / "none")


def test_sentences_as_a_graph_of_their_nearest(tmp_path):
    # Zipf's words, so that some occur in one sentence alone, which has no features then.
    rng = np.random.default_rng(0)
    (source,) = (source for source in nearest.SOURCES if source.name == "SST2-nearest")
    for file, count in zip(source.files, (40, 10, 20), strict=True):
        lines = [f"{' '.join(f'w{n}' for n in rng.zipf(1.3, 9))} !\t{rng.integers(2)}" for _ in range(count)]
        (tmp_path / file.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file.path).write_text("\n".join([*lines[:-1], f"odd\t{count % 2}"]) + "\n")
    graph = source.read([tmp_path / file.path for file in source.files])
    x = torch.from_numpy(graph.x.toarray())
    assert [[part.sum() for part in parts[1:]] for parts in graph.parts] == [[40, 10, 20]]
    assert (len(graph.y), graph.y[-1]) == (70, 0)
    lengths = x.square().sum(dim=1)
    assert ((lengths - 1).abs().lt(1e-9) | (lengths == 0)).all()
    assert (x > 0).sum(dim=0).min() == 2  # "odd" is in three
    near = (x @ x.T).fill_diagonal_(-1.0).topk(8).values
    for node in range(70):
        cosines = x[graph.col[graph.row == node]] @ x[node]
        torch.testing.assert_close(cosines.sort(descending=True).values, near[node])


def test_shares_of_all_nodes(data_root):
    if not present("Computers", data_root):
        pytest.skip("needs the raw files of Computers")
    few, many = (load(name, data_root) for name in ("Computers", "Computers-60-20-20"))
    assert torch.equal(few.data.x, many.data.x)
    assert torch.equal(few.data.edge_index, many.data.edge_index)
    assert {parts(split) for split in many.splits} == {(8251, 2750, 2751)}


def test_karate():
    task = load("karate")
    check(task)
    assert (task.data.num_nodes, task.data.num_edges, task.num_classes) == (34, 2 * 78, 2)
    assert torch.equal(task.data.x, torch.eye(34))
    assert task.data.y.bincount().tolist() == [17, 17]
    assert {parts(split) for split in task.splits} == {(8, 10, 16)}


def test_sparse_can_be_chosen(data_root):
    assert load("digits", sparse=True).data.x.layout == torch.sparse_csr
    assert load("Texas", data_root).data.x.layout == torch.sparse_csr
    x = load("Texas", data_root, sparse=False).data.x
    assert x.layout == torch.strided
    assert torch.equal(x, load("Texas", data_root).data.x.to_dense())


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name, data_root):
    if not present(name, data_root):
        pytest.skip(f"needs the raw files of {name}")
    task = load(name, data_root)
    check(task)
    *counts, sizes = COUNTS[name]
    assert [
        task.data.num_nodes, task.data.num_edges, task.data.x.size(1), task.num_classes,
        len(task.splits),
    ] == counts  # fmt: skip
    if sizes is not None:
        assert parts(task.splits[0]) == sizes
    assert task.metric == ("roc_auc" if name in ROC_AUC else "accuracy")
    assert task.data.x.layout == (torch.strided if name in ("Computers", "tolokers")
                                  else torch.sparse_csr)  # fmt: skip


@pytest.mark.parametrize("name", ["Cora", "CiteSeer", "PubMed"])
def test_planetoid_rows_sum_to_one(name, data_root):
    total = load(name, data_root, sparse=False).data.x.sum(dim=1)
    one = (total - 1).abs() < 1e-5
    assert bool((one | (total == 0)).all())
    # CiteSeer has 15 nodes without a word.
    assert int((~one).sum()) == {"Cora": 0, "CiteSeer": 15, "PubMed": 0}[name]


def linked(origin, target):
    r"""A copy of a folder where PyG's loaders may write."""
    for path in origin.rglob("*"):
        if path.is_file() and "processed" not in path.parts:
            place = target / path.relative_to(origin)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(path.resolve())


def same(task, data, *, undirected, normalised=False):
    r"""Compares a task with what PyG's loader gives, after the surgery that we promise."""
    check(task)
    x = data.x.float()
    if normalised:
        x = x / x.sum(dim=1, keepdim=True).where(x.sum(dim=1, keepdim=True) > 0, torch.tensor(1.0))
    torch.testing.assert_close(dense(task.data.x), x)
    edge_index, _ = remove_self_loops(data.edge_index)
    edge_index = to_undirected(edge_index, num_nodes=len(x)) if undirected else edge_index
    edge_index = coalesce(edge_index, num_nodes=len(x), sort_by_row=False)
    assert torch.equal(task.data.edge_index, edge_index)
    assert torch.equal(task.data.y, data.y.view(task.data.y.shape).to(task.data.y.dtype))
    if "train_mask" in data:
        for part in ("train", "val", "test"):
            masks = data[f"{part}_mask"]
            masks = masks if masks.dim() == 2 else masks.view(-1, 1)
            for i, split in enumerate(task.splits):
                assert torch.equal(getattr(split, part), masks[:, i % masks.size(1)])


@pytest.mark.parametrize(
    ("name", "folder", "loader", "undirected"),
    [
        ("Cora", "Cora", lambda root: pyg.Planetoid(root, "Cora"), True),
        ("CiteSeer", "CiteSeer", lambda root: pyg.Planetoid(root, "CiteSeer"), True),
        ("PubMed", "PubMed", lambda root: pyg.Planetoid(root, "PubMed"), True),
        ("CiteSeer-geom-gcn", "CiteSeer",
         lambda root: pyg.Planetoid(root, "CiteSeer", split="geom-gcn"), True),
        ("Cora_ML", "cora_ml", lambda root: pyg.CitationFull(root, "Cora_ML"), True),
        ("Computers", "Computers", lambda root: pyg.Amazon(root, "Computers"), True),
        ("Texas", "texas", lambda root: pyg.WebKB(root, "Texas"), False),
        ("Cornell", "cornell", lambda root: pyg.WebKB(root, "Cornell"), False),
        ("chameleon", "chameleon", lambda root: pyg.WikipediaNetwork(root, "chameleon"), False),
        ("tolokers", "tolokers",
         lambda root: pyg.HeterophilousGraphDataset(root, "Tolokers"), True),
        ("reed98", "reed98", lambda root: pyg.LINKXDataset(root, "reed98"), True),
    ],
)  # fmt: skip
def test_equals_the_loader_of_pyg(name, folder, loader, undirected, data_root, tmp_path):
    if not present(name, data_root):
        pytest.skip(f"needs the raw files of {name}")
    linked(data_root / folder, tmp_path / folder)
    data = loader(str(tmp_path))[0]
    same(load(name, data_root), data, undirected=undirected, normalised=folder in
         ("Cora", "CiteSeer", "PubMed"))  # fmt: skip


def test_loading_writes_nothing_beside_the_raw_files(data_root, tmp_path):
    linked(data_root / "Cora", tmp_path / "Cora")
    before = sorted(tmp_path.rglob("*"))
    load("Cora", tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("content", [b"", b"cos\nsystem\n(S'true'\ntR."])
def test_corrupt_planetoid_file(content, data_root, tmp_path):
    linked(data_root / "Cora", tmp_path / "Cora")
    path = tmp_path / "Cora" / "raw" / "ind.cora.allx"
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"257,305 bytes in '.*ind.cora.allx' \(got .*delete it"):
        load("Cora", tmp_path)


def test_truncated_file_of_unknown_content(data_root, tmp_path):
    linked(data_root / "cora_ml", tmp_path / "cora_ml")
    path = tmp_path / "cora_ml" / "raw" / "cora_ml.npz"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:5000])
    with pytest.raises(ValueError, match=r"readable file '.*cora_ml.npz' .*delete it"):
        load("Cora_ML", tmp_path)


def test_edge_to_a_node_that_is_not_there(tmp_path):
    masks = np.eye(3, dtype=bool)
    path = tmp_path / "questions" / "raw" / "questions.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, node_features=np.ones((3, 2)), node_labels=[0, 1, 0], edges=[[0, 1], [1, 3]],
             train_masks=masks[:1], val_masks=masks[1:2], test_masks=masks[2:])  # fmt: skip
    with pytest.raises(IndexError, match=r"nodes 0 to 2 \(got node 3\)"):
        load("questions", tmp_path)


# Sets whose raw files are too large or were not to be had: small files of the same form, which
# the loaders of PyG and OGB read too.

N = 12


@pytest.fixture
def random():
    return np.random.default_rng(0)


def edges(random, num=40):
    return random.integers(0, N, size=(num, 2))


def some_masks(random):
    order = random.permutation(N)
    return [np.isin(np.arange(N), nodes) for nodes in (order[:5], order[5:8], order[8:])]


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def test_actor(random, tmp_path):
    raw = tmp_path / "Actor" / "raw"
    words = [random.choice(30, size=4, replace=False) for _ in range(N)]
    lines = [f"{i}\t{','.join(map(str, w))}\t{i % 5}" for i, w in enumerate(words)]
    header = "node_id\tfeature\tlabel\n"
    write(raw / "out1_node_feature_label.txt", header + "\n".join(lines[::-1]) + "\n")
    pairs = [f"{a}\t{b}" for a, b in edges(random)]
    write(raw / "out1_graph_edges.txt", "a\tb\n" + "\n".join(pairs) + "\n")
    for index in range(10):
        train, val, test = some_masks(random)
        np.savez(raw / f"film_split_0.6_0.2_{index}.npz", train_mask=train, val_mask=val,
                 test_mask=test)  # fmt: skip
    task = load("Actor", tmp_path)
    same(task, pyg.Actor(str(tmp_path / "Actor"))[0], undirected=False)
    assert len(task.splits) == 10


def test_penn94_has_fixed_splits(random, tmp_path):
    raw = tmp_path / "penn94" / "raw"
    raw.mkdir(parents=True)
    adjacency = scipy.sparse.csc_matrix((np.ones(40), edges(random).T), shape=(N, N))
    table = random.integers(0, 4, size=(N, 7)).astype(np.uint16)
    table[:, 1] = [1, 2] * (N // 2)
    scipy.io.savemat(raw / "data.mat", {"A": adjacency, "local_info": table})
    fixed = []
    for _ in range(5):
        train, val, test = (np.flatnonzero(mask) for mask in some_masks(random))
        fixed.append({"train": train, "valid": val, "test": test})
    np.save(raw / "fb100-Penn94-splits.npy", np.array(fixed))
    task = load("penn94", tmp_path)
    same(task, pyg.LINKXDataset(str(tmp_path), "penn94")[0], undirected=True)
    assert [split.name for split in task.splits] == [f"fixed-{i}" for i in range(5)]
    assert not (tmp_path / "splits").exists()


def test_genius(random, tmp_path):
    raw = tmp_path / "genius" / "raw"
    raw.mkdir(parents=True)
    content = {
        "edge_index": edges(random).T,
        "node_feat": random.normal(size=(N, 4)),
        "label": np.arange(N).reshape(-1, 1) % 2,
    }
    scipy.io.savemat(raw / "data.mat", content)
    task = load("genius", tmp_path)
    same(task, pyg.LINKXDataset(str(tmp_path), "genius")[0], undirected=True)
    assert task.metric == "roc_auc"
    assert parts(task.splits[0]) == (6, 3, 3)


def test_wiki_cs(random, tmp_path):
    links = [random.integers(0, N, size=3).tolist() for _ in range(N)]
    # One test set for all splits; the others divide the rest.
    *_, test = some_masks(random)
    rest = [random.permutation(np.flatnonzero(~test)) for _ in range(20)]
    train, val, stopping = (
        [np.isin(np.arange(N), nodes[part]).tolist() for nodes in rest]
        for part in (slice(0, 3), slice(3, 5), slice(5, None))
    )
    content = {
        "features": random.normal(size=(N, 5)).tolist(),
        "labels": [i % 3 for i in range(N)],
        "links": links,
        "train_masks": train,
        "val_masks": val,
        "stopping_masks": stopping,
        "test_mask": test.tolist(),
    }
    write(tmp_path / "WikiCS" / "raw" / "data.json", json.dumps(content))
    task = load("WikiCS", tmp_path)
    data = pyg.WikiCS(str(tmp_path / "WikiCS"), is_undirected=True)[0]
    # The loader keeps the one test mask apart from the 20 others.
    same(task, data, undirected=True)
    assert len(task.splits) == 20


def test_flickr(random, tmp_path):
    raw = tmp_path / "Flickr" / "raw"
    raw.mkdir(parents=True)
    adjacency = scipy.sparse.csr_matrix((np.ones(40), edges(random).T), shape=(N, N))
    scipy.sparse.save_npz(raw / "adj_full.npz", adjacency + adjacency.T)
    np.save(raw / "feats.npy", random.normal(size=(N, 5)))
    write(raw / "class_map.json", json.dumps({str(i): i % 7 for i in range(N)}))
    train, val, test = (np.flatnonzero(mask).tolist() for mask in some_masks(random))
    write(raw / "role.json", json.dumps({"tr": train, "va": val, "te": test}))
    same(load("Flickr", tmp_path), pyg.Flickr(str(tmp_path / "Flickr"))[0], undirected=True)


def test_reddit_comes_in_an_archive(random, tmp_path, monkeypatch):
    arrays = io.BytesIO()
    kind = np.array([1, 2, 3] * (N // 3))
    np.savez(arrays, feature=random.normal(size=(N, 5)), label=np.arange(N) % 4, node_types=kind)
    graph = io.BytesIO()
    adjacency = scipy.sparse.coo_matrix((np.ones(40), edges(random).T), shape=(N, N))
    scipy.sparse.save_npz(graph, (adjacency + adjacency.T).tocoo())
    archive = tmp_path / "reddit.zip"
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("reddit_data.npz", arrays.getvalue())
        content.writestr("reddit_graph.npz", graph.getvalue())
    redirect(monkeypatch, {reddit.URL: archive})
    root = tmp_path / "root"
    task = load("Reddit", root)
    assert {path.name for path in root.rglob("*") if path.is_file()} == {
        "reddit_data.npz", "reddit_graph.npz"
    }  # fmt: skip
    same(task, pyg.Reddit(str(root / "Reddit"))[0], undirected=True)


def redirect(monkeypatch, places):
    r"""Lets addresses answer with local files."""
    from urllib.request import Request, urlopen

    def local(request, **options):
        return urlopen(Request(places[request.full_url].as_uri()))

    monkeypatch.setattr("kgat.datasets.files.urllib.request.urlopen", local)


def table(values):
    buffer = io.StringIO()
    np.savetxt(buffer, np.atleast_2d(values), delimiter=",", fmt="%.6g")
    return gzip.compress(buffer.getvalue().encode())


def ogb_folder(root, name, random, files):
    folder = root / name.replace("-", "_")
    # One edge each way at most, as OGB lists undirected edges once.
    unique = np.unique(np.sort(edges(random), axis=1), axis=0)
    write(folder / f"RELEASE_v{2 if name == 'ogbn-mag' else 1}.txt", "")
    for path, values in files(unique).items():
        write(folder / path, table(values))
    return folder


def split_files(folder, random):
    order = random.permutation(N).reshape(-1, 1)
    return {
        f"split/{folder}/{part}.csv.gz": nodes
        for part, nodes in zip(("train", "valid", "test"), (order[:5], order[5:8], order[8:]), strict=True)
    }


def simple(random, split):
    return lambda unique: {
        "raw/edge.csv.gz": unique,
        "raw/num-node-list.csv.gz": [[N]],
        "raw/num-edge-list.csv.gz": [[len(unique)]],
        "raw/node-feat.csv.gz": random.normal(size=(N, 5)).round(3),
        "raw/node-label.csv.gz": np.arange(N).reshape(-1, 1) % 3,
        "raw/node_year.csv.gz": np.full((N, 1), 2018),
        **split_files(split, random),
    }


def ogb_dataset(name, root, monkeypatch):
    ogb = pytest.importorskip("ogb.nodeproppred", reason="compares with the package 'ogb'")
    # OGB's own files are pickles; here it reads those it has just written itself.
    monkeypatch.setattr(torch, "load", functools.partial(torch.load, weights_only=False))
    return ogb.PygNodePropPredDataset(name, str(root))


def ogb_masks(split):
    def mask(nodes):
        return torch.zeros(N, dtype=torch.bool).index_fill(0, nodes, True)

    return [mask(split[part]) for part in ("train", "valid", "test")]


@pytest.mark.parametrize(("name", "split"), [("ogbn-arxiv", "time"), ("ogbn-products", "sales_ranking")])
def test_ogbn_plain(name, split, random, tmp_path, monkeypatch):
    ogb_folder(tmp_path, name, random, simple(random, split))
    task = load(name, tmp_path)
    dataset = ogb_dataset(name, tmp_path, monkeypatch)
    same(task, dataset[0], undirected=True)
    expected = ogb_masks(dataset.get_idx_split())
    found = (task.splits[0].train, task.splits[0].val, task.splits[0].test)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_ogbn_folder_of_ogb_for_pyg(random, tmp_path):
    ogb_folder(tmp_path, "ogbn-arxiv", random, simple(random, "time")).rename(tmp_path / "ogbn_arxiv_pyg")
    assert load("ogbn_arxiv", tmp_path).data.num_nodes == N


def test_ogbn_mag_keeps_papers_only(random, tmp_path, monkeypatch):
    cites = "raw/relations/paper___cites___paper"

    def files(unique):
        return {
            f"{cites}/edge.csv.gz": unique,
            f"{cites}/edge_reltype.csv.gz": np.zeros((len(unique), 1)),
            f"{cites}/num-edge-list.csv.gz": [[len(unique)]],
            "raw/node-feat/paper/node-feat.csv.gz": random.normal(size=(N, 5)).round(3),
            "raw/node-feat/paper/node_year.csv.gz": np.full((N, 1), 2018),
            "raw/node-label/paper/node-label.csv.gz": np.arange(N).reshape(-1, 1) % 3,
            **split_files("time/paper", random),
        }

    folder = ogb_folder(tmp_path, "ogbn-mag", random, files)
    for path, text in {
        "raw/triplet-type-list.csv.gz": "paper,cites,paper\n",
        "raw/num-node-dict.csv.gz": f"paper\n{N}\n",
        "raw/nodetype-has-label.csv.gz": "paper\nTrue\n",
        "split/time/nodetype-has-split.csv.gz": "paper\nTrue\n",
    }.items():
        write(folder / path, gzip.compress(text.encode()))
    task = load("ogbn-mag", tmp_path)
    dataset = ogb_dataset("ogbn-mag", tmp_path, monkeypatch)
    data = dataset[0]
    assert torch.equal(task.data.x, data.x_dict["paper"])
    assert torch.equal(task.data.y, data.y_dict["paper"].view(-1))
    edge_index = data.edge_index_dict[("paper", "cites", "paper")]
    edge_index = to_undirected(remove_self_loops(edge_index)[0], num_nodes=N)
    assert torch.equal(task.data.edge_index, coalesce(edge_index, sort_by_row=False))
    split = {part: nodes["paper"] for part, nodes in dataset.get_idx_split().items()}
    assert torch.equal(task.splits[0].val, ogb_masks(split)[1])


def test_ogbn_proteins_averages_edge_features(random, tmp_path, monkeypatch):
    def files(unique):
        unique = unique[unique[:, 0] != unique[:, 1]]
        return {
            "raw/edge.csv.gz": unique,
            "raw/edge-feat.csv.gz": random.uniform(size=(len(unique), 8)).round(3),
            "raw/num-node-list.csv.gz": [[N]],
            "raw/num-edge-list.csv.gz": [[len(unique)]],
            "raw/node-label.csv.gz": random.integers(0, 2, size=(N, 112)),
            "raw/node_species.csv.gz": np.zeros((N, 1)),
            **split_files("species", random),
        }

    ogb_folder(tmp_path, "ogbn-proteins", random, files)
    task = load("ogbn-proteins", tmp_path)
    check(task)
    data = ogb_dataset("ogbn-proteins", tmp_path, monkeypatch)[0]
    # As the example of OGB: the mean over the in-edges, of which there is one for each direction.
    total = torch.zeros(N, 8).index_add(0, data.edge_index[1], data.edge_attr)
    degree = data.edge_index[1].bincount(minlength=N).clamp(min=1).view(-1, 1)
    torch.testing.assert_close(task.data.x, total / degree)
    assert torch.equal(task.data.edge_index, coalesce(data.edge_index, sort_by_row=False))
    assert (task.metric, task.num_classes) == ("roc_auc", 112)
    assert torch.equal(task.data.y, data.y.float())
    assert 0.0 <= task.score(torch.randn(N, 112), task.splits[0], "train") <= 1.0


def test_ogbn_papers100m(random, tmp_path):
    folder = tmp_path / "ogbn_papers100M"
    files = split_files("time", random)
    # Most papers have neither label nor part.
    *known, unknown = files["split/time/test.csv.gz"]
    files["split/time/test.csv.gz"] = np.array(known)
    for path, values in files.items():
        write(folder / path, table(values))
    (folder / "raw").mkdir()
    x, ends = random.normal(size=(N, 5)).astype(np.float32), edges(random).T
    label = np.arange(N, dtype=np.float32).reshape(-1, 1) % 3
    label[unknown] = np.nan
    np.savez(folder / "raw" / "data.npz", node_feat=x, edge_index=ends)
    np.savez(folder / "raw" / "node-label.npz", node_label=label)
    task = load("ogbn-papers100M", tmp_path)
    check(task)
    assert torch.equal(task.data.x, torch.from_numpy(x))
    expected = torch.tensor([0, 1, 2] * 4)
    expected[unknown] = -1
    assert torch.equal(task.data.y, expected)
    assert parts(task.splits[0]) == (5, 3, 3)


def test_ogbn_without_its_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("kgat.extras.find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=r"'pandas' to read 'ogbn-arxiv' .*pip install 'kgat\[experiments\]'"
    ):
        load("ogbn-arxiv", tmp_path)


@pytest.mark.parametrize(
    ("name", "package"), [("digits", "scikit-learn"), ("karate", "networkx"), ("DBLP", "scipy")]
)
def test_what_an_installation_without_extras_says(name, package, tmp_path, monkeypatch):
    monkeypatch.setattr("kgat.extras.find_spec", lambda name: None)
    message = (
        rf"the package '{package}' to read '{name}' \(got none\); run: pip install 'kgat\[experiments\]'"
    )
    with pytest.raises(ImportError, match=message):
        load(name, tmp_path)


def test_ogbn_arxiv_without_features_says_which_file(data_root, monkeypatch):
    if not (data_root / "ogbn_arxiv").is_dir():
        pytest.skip("needs the raw files of ogbn-arxiv")
    redirect(monkeypatch, {f"{ogb.URL}/arxiv.zip": Path("/nowhere/arxiv.zip")})
    with pytest.raises(FileNotFoundError, match=r"raw files of 'ogbn-arxiv' at '[^,]*node-feat"):
        load("ogbn-arxiv", data_root)


# Numbers by which compiled loops of SciPy would read and write outside of their arrays. In a process of its
# own: what is wrong here ends it without a word.
DAMAGE = """
import sys, traceback
from pathlib import Path
import numpy as np, scipy.io, scipy.sparse
from kgat.datasets import load

root, n, random = Path(sys.argv[1]), 60, np.random.default_rng(0)
FAR = 2**31 - 1

def sound(rows, columns):
    return scipy.sparse.random(rows, columns, 0.2, "csr", random_state=0, dtype=np.float64)

def parts(matrix):
    return {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr,
            "shape": np.array(matrix.shape)}

def at(place, number):
    def damage(array):
        array = array.copy()
        array[place] = number
        return array
    return damage

DAMAGES = [
    *(("indices", at(3, number)) for number in (FAR, -FAR, -1, n + 5)),
    ("indices", lambda x: x[:-5]), ("indices", lambda x: x.astype(float)), ("indices", lambda x: x[:, None]),
    *(("indptr", at(place, number)) for place in (0, 5, -1) for number in (FAR, -FAR, 3)),
    ("indptr", lambda x: x[:-1]), ("indptr", lambda x: np.append(x, x[-1])), ("indptr", lambda x: x[::-1]),
    ("indptr", lambda x: x.astype(float)), ("indptr", lambda x: x[:0]),
    ("data", lambda x: x[:-1]), ("data", lambda x: x.astype("U3")), ("data", lambda x: x.astype(complex)),
    ("shape", lambda x: x * 1000), ("shape", lambda x: x // 2), ("shape", lambda x: -x),
    ("shape", lambda x: x[:1]), ("shape", lambda x: x + 0.5),
]

def expect_refusal(name, what):
    try:
        load(name, root, sparse=False)
    except (ValueError, IndexError) as error:
        assert str(root) in str(error) and str(error).startswith("Expected "), error
        print(name, what, "refused", flush=True)
        return
    raise SystemExit(f"{name} {what}: taken")

def place(path):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    return root / path

labels = np.arange(n) % 3
photo = place("Photo/raw/amazon_electronics_photo.npz")
def write_photo(attr, adj, labels=labels):
    fields = {f"attr_{k}": v for k, v in attr.items()} | {f"adj_{k}": v for k, v in adj.items()}
    np.savez(photo, labels=labels, **fields)
attr, adj = parts(sound(n, 30)), parts(sound(n, n))
write_photo(attr, adj)
load("Photo", root, sparse=False)
for number, (key, damage) in enumerate(DAMAGES):
    write_photo(attr | {key: damage(attr[key])}, adj)
    expect_refusal("Photo", f"attr {key} {number}")
    write_photo(attr, adj | {key: damage(adj[key])})
    expect_refusal("Photo", f"adj {key} {number}")
for number in (np.nan, np.inf):
    write_photo(attr | {"data": at(2, number)(attr["data"])}, adj)
    expect_refusal("Photo", f"{number} among the features")
for wrong in (at(4, 10**9)(labels), at(4, -7)(labels), labels[:-1], labels[:, None], labels + 0.5,
              labels.astype("U1"), labels[:0]):
    write_photo(attr, adj, wrong)
    expect_refusal("Photo", "labels")

def write_flickr(adj):
    np.savez(place("Flickr/raw/adj_full.npz"), format=b"csr", **adj)
np.save(place("Flickr/raw/feats.npy"), np.ones((n, 4)))
place("Flickr/raw/class_map.json").write_text(str({str(i): i % 3 for i in range(n)}).replace("'", '"'))
ROLES = (('{"tr": [0], "va": [1], "te": [2]}', True), ('{"tr": [0], "va": [-1], "te": [2]}', False))
for role, good in ROLES:
    place("Flickr/raw/role.json").write_text(role)
    write_flickr(adj)
    if good:
        load("Flickr", root)
        for number, (key, damage) in enumerate(DAMAGES):
            write_flickr(adj | {key: damage(adj[key])})
            expect_refusal("Flickr", f"{key} {number}")
    else:
        expect_refusal("Flickr", "a negative node in a split")

coo = sound(n, n).tocoo()
reddit = {"row": coo.row, "col": coo.col, "data": coo.data, "shape": np.array(coo.shape)}
np.savez(place("Reddit/raw/reddit_data.npz"), feature=np.ones((n, 4)), label=labels,
         node_types=np.array([1, 2, 3] * (n // 3)))
def write_reddit(graph, form=b"coo"):
    np.savez(place("Reddit/raw/reddit_graph.npz"), format=form, **graph)
write_reddit(reddit)
load("Reddit", root)
for key in ("row", "col"):
    for damage in (at(3, FAR), at(3, -1), lambda x: x[:-1], lambda x: x.astype(float)):
        write_reddit(reddit | {key: damage(reddit[key])})
        expect_refusal("Reddit", key)
write_reddit(reddit, b"dia")
expect_refusal("Reddit", "format")

table = np.stack([labels] * 7, axis=1).astype(np.uint16)
csc = sound(n, n).tocsc()
for place_, number in (("indices", FAR), ("indptr", FAR), ("indptr", -FAR)):
    wrong = csc.copy()
    getattr(wrong, place_)[4] = number
    wrong.has_sorted_indices = True  # or SciPy sorts them here
    scipy.io.savemat(place("reed98/raw/data.mat"), {"A": wrong, "local_info": table})
    expect_refusal("reed98", place_)

def write_questions(**other):
    masks = np.eye(3, dtype=bool)
    content = {"node_features": np.ones((3, 2)), "node_labels": [0, 1, 0], "edges": [[0, 1]],
               "train_masks": masks[:1], "val_masks": masks[1:2], "test_masks": masks[2:]}
    np.savez(place("questions/raw/questions.npz"), **(content | other))
for other in ({"edges": [[0, 2**40]]}, {"edges": [[0.5, 1]]}, {"edges": [0, 1]}, {"edges": [["0", "1"]]},
              {"node_features": [[1, np.nan]] * 3}, {"node_features": [["a"]] * 3},
              {"node_labels": [0, 1, 5]}, {"node_labels": [0, np.nan, 1]},
              {"train_masks": [[True]]}, {"train_masks": 3}):
    write_questions(**other)
    expect_refusal("questions", list(other))
print("all refused")
"""


def test_damaged_files_are_refused_by_name(tmp_path):
    done = warm_process.run(DAMAGE, tmp_path)
    assert done.stdout.splitlines()[-1:] == ["all refused"], done.stdout + done.stderr
