import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch_geometric.data import Data

from kgat.datasets import from_data, from_points, from_scipy, read_graph

N = 30


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    adjacency = sp.random(N, N, 0.1, random_state=0, format="csr")
    adjacency.data[:] = 1
    return adjacency, rng.normal(size=(N, 4)).astype(np.float32), np.arange(N) % 3


def test_an_entry_is_an_edge_from_its_row_to_its_column(arrays):
    adjacency, x, y = arrays
    edge_index = torch.from_numpy(np.stack(adjacency.nonzero()).astype(np.int64))
    expected = from_data(Data(x=torch.from_numpy(x), edge_index=edge_index, y=torch.from_numpy(y)))
    task = from_scipy(adjacency, x, y)
    assert torch.equal(task.data.edge_index, expected.data.edge_index)
    assert task.digest == expected.digest
    assert from_scipy(adjacency.toarray(), x, y).digest == expected.digest
    both = from_scipy(adjacency + adjacency.T > 0, x, y)
    assert both.preprocessing.split("; ")[1] == "undirected"
    assert from_scipy(adjacency, x, y, directed=False).digest == both.digest


def test_weights_are_edge_features(arrays):
    _, x, y = arrays
    weights = sp.coo_matrix(([0.5, 2.0], ([0, 3], [1, 4])), shape=(N, N))
    task = from_scipy(weights, x, y)
    assert task.data.edge_index.tolist() == [[0, 3], [1, 4]]
    assert task.data.edge_attr.tolist() == [[0.5], [2.0]]


def test_wide_sparse_features_stay_sparse(arrays):
    adjacency, _, y = arrays
    words = sp.random(N, 200, 0.05, random_state=1, format="csr")
    task = from_scipy(adjacency, words, y)
    assert task.data.x.layout == torch.sparse_csr
    assert np.allclose(task.data.x.to_dense().numpy(), words.toarray())


def test_arrays_in_one_file_and_in_a_folder(tmp_path, arrays):
    adjacency, x, y = arrays
    expected = from_scipy(adjacency, x, y)
    coo = adjacency.tocoo()
    np.savez(tmp_path / "one.npz", x=x, y=y, edge_index=np.stack([coo.row, coo.col]))
    csr = {f"adj_{name}": getattr(adjacency, name) for name in ("data", "indices", "indptr", "shape")}
    np.savez_compressed(tmp_path / "two.npz", attr=x, labels=y, **csr)
    folder = tmp_path / "three"
    folder.mkdir()
    sp.save_npz(folder / "adjacency.npz", adjacency)
    np.save(folder / "features.npy", x)
    np.save(folder / "labels.npy", y)
    for name in ("one.npz", "two.npz", "three"):
        task = read_graph(tmp_path / name)
        assert (task.digest, task.name) == (expected.digest, name.partition(".")[0])
    np.save(folder / "year.npy", np.arange(N))
    assert read_graph(folder, time="year").splits[0].train.nonzero().flatten().tolist() == list(range(18))
    parts = np.arange(N) % 3
    for number, name in enumerate(("train_mask", "val_mask", "test_mask")):
        np.save(folder / f"{name}.npy", parts == number)
    assert torch.equal(read_graph(folder).splits[0].test, torch.from_numpy(parts == 2))


def test_points(tmp_path, arrays):
    _, x, y = arrays
    task = from_points(1000 * x + 5, y, knn=3)
    assert task.data.x.mean(dim=0).abs().max() < 1e-5
    assert bool((torch.bincount(task.data.edge_index[1]) >= 3).all())
    np.savez(tmp_path / "points.npz", x=1000 * x + 5, y=y)
    assert read_graph(tmp_path / "points.npz", knn=3).digest == task.digest
    raw = from_points(x, y, knn=3, standardize=False, directed=True)
    assert torch.equal(raw.data.x, torch.from_numpy(x))
    assert torch.bincount(raw.data.edge_index[1]).tolist() == [3] * N


def test_what_does_not_fit_is_named(tmp_path, arrays):
    adjacency, x, y = arrays
    for call, message in [
        (lambda: from_scipy(adjacency[:5], x, y), r"a square adjacency matrix .*got shape \[5, 30\]"),
        (lambda: from_scipy(adjacency, x, y[:5]), r"per value of 'y' .*, 5 \(got 30\)"),
        (
            lambda: from_scipy(adjacency[:9, :9], x, y),
            r"a row of the adjacency matrix per value of 'y' .*, 30 \(got 9\)",
        ),
        (lambda: from_scipy(adjacency, x.astype(str), y), r"one row of numbers per node .*<U"),
        (lambda: from_points(x, y, knn=30), r"from 1 to 29 neighbours of 30 points \(got knn=30\)"),
        (lambda: from_points(np.where(x > 2, np.nan, x), y), r"finite features .*got nan in row \d+, column"),
        (lambda: from_scipy(adjacency * np.inf, x, y), r"finite weights in the adjacency matrix"),
        (lambda: from_scipy(adjacency, x, y, time="year"), r"an array 'year'"),
    ]:
        with pytest.raises((ValueError, IndexError), match=message):
            call()
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"arrays of numbers in '.*objects.npy' .got: .*a pickle"):
        read_graph(tmp_path)
    (tmp_path / "objects.npy").unlink()
    np.savez(tmp_path / "some.npz", x=x, y=y)
    with pytest.raises(
        ValueError, match=r"either edges .edge_index, adjacency, adj. in .*got neither among x, y"
    ):
        read_graph(tmp_path / "some.npz")
    with pytest.raises(ValueError, match=r"an array 'color' in .*got x, y"):
        read_graph(tmp_path / "some.npz", label="color", knn=3)
    with pytest.raises(ValueError, match=r"got 'drop', which is for tables"):
        read_graph(tmp_path / "some.npz", drop=["x"], knn=3)
    (tmp_path / "bad.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"arrays of numbers in '.*bad.npz'"):
        read_graph(tmp_path / "bad.npz")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64"])
def test_unsigned_numbers(tmp_path, arrays, dtype):
    adjacency, x, y = arrays
    edge_index = np.stack(adjacency.nonzero())
    more = {"year": np.arange(N) // 3, "edge_weight": np.arange(edge_index.shape[1]) % 5}
    signed = {"x": np.round(9 * x**2), "y": y, "edge_index": edge_index, **more}
    for name, kind in (("signed", "int64"), ("unsigned", dtype)):
        np.savez(tmp_path / f"{name}.npz", **{key: values.astype(kind) for key, values in signed.items()})
    for options in ({}, {"time": "year"}, {"group": "year"}):
        digests = {read_graph(tmp_path / f"{name}.npz", **options).digest for name in ("signed", "unsigned")}
        assert len(digests) == 1
    assert from_scipy(adjacency, x, y.astype(dtype)).digest == from_scipy(adjacency, x, y).digest


@pytest.mark.parametrize("name", ["y", "edge_index"])
def test_numbers_beyond_int64_are_refused(tmp_path, arrays, name):
    adjacency, x, y = arrays
    content = {"x": x, "y": y, "edge_index": np.stack(adjacency.nonzero())}
    content[name] = content[name].astype("uint64")
    content[name].flat[1] = 2**63
    np.savez(tmp_path / "g.npz", **content)
    with pytest.raises(ValueError, match=rf"in '{name}' of '.*g.npz' \(got 9223372036854775808 at (0, )?1\)"):
        read_graph(tmp_path / "g.npz")


def test_bad_edge_features_are_named(tmp_path, arrays):
    adjacency, x, y = arrays
    edge_index = np.stack(adjacency.nonzero())
    content = {"x": x, "y": y, "edge_index": edge_index}
    weight = np.ones(edge_index.shape[1])
    weight[4] = np.nan
    row, col = edge_index[:, 4]
    for name in ("edge_attr", "edge_weight"):
        np.savez(tmp_path / "g.npz", **content, **{name: weight})
        message = rf"of edges in '.*g.npz' \(got nan at edge 4, from node {row} to {col}\)"
        with pytest.raises(ValueError, match=message):
            read_graph(tmp_path / "g.npz")
    np.savez(tmp_path / "g.npz", **content, edge_attr=weight.astype(str))
    with pytest.raises(ValueError, match=r"one row of numbers per edge of '.*g.npz' as 'edge_attr'"):
        read_graph(tmp_path / "g.npz")


def test_weights_of_a_matrix_beside_masks(tmp_path, arrays):
    _, x, y = arrays
    masks = {f"{part}_mask": np.arange(N) % 3 == i for i, part in enumerate(("train", "val", "test"))}
    weights = np.zeros((N, N))
    weights[0, 1], weights[3, 4] = 0.5, 2.0
    np.savez(tmp_path / "g.npz", x=x, y=y, adjacency=weights, **masks)
    task = read_graph(tmp_path / "g.npz")
    assert task.data.edge_index.tolist() == [[0, 3], [1, 4]]
    assert task.data.edge_attr.tolist() == [[0.5], [2.0]]
    np.savez(tmp_path / "g.npz", x=x, y=y, adjacency=weights > 0, **masks)
    assert read_graph(tmp_path / "g.npz").data.edge_attr is None


MASKS = {f"{part}_mask": np.arange(N) % 3 == i for i, part in enumerate(("train", "val", "test"))}


def edges_of(arrays):
    adjacency, x, y = arrays
    edge_index = np.stack(adjacency.nonzero())
    return x, y, {"edge_index": {"edge_index": edge_index}, "adj": {"adj": adjacency.toarray()}, "knn": {}}


@pytest.mark.parametrize("form", ["edge_index", "adj", "knn"])
def test_splits_come_with_arrays_of_every_form(tmp_path, arrays, form):
    x, y, edges = edges_of(arrays)
    options = {"knn": 3} if form == "knn" else {}

    def read(**more):
        np.savez(tmp_path / "g.npz", x=x, y=y, **edges[form], **more)
        return read_graph(tmp_path / "g.npz", **options)

    names = np.array(["train", "val", "test"])[np.arange(N) % 3]
    ids = {part: np.flatnonzero(MASKS[f"{part}_mask"]) for part in ("train", "val", "test")}
    for more, title in ((MASKS, "given"), ({"split": names}, "split"), (ids, "given")):
        task = read(**more)
        assert [split.name for split in task.splits] == [title]
        for part in ("train", "val", "test"):
            assert torch.equal(getattr(task.splits[0], part), torch.from_numpy(MASKS[f"{part}_mask"]))
        assert len(read_graph(tmp_path / "g.npz", split="random", **options).splits) == 20
    several = {name: np.stack([mask, np.roll(mask, 1)], axis=1) for name, mask in MASKS.items()}
    assert [split.name for split in read(**several).splits] == ["given-0", "given-1"]
    assert len(read(split=y, train=y).splits) == 20  # neither names parts
    for more, message in [
        ({"train_mask": MASKS["train_mask"], "val_mask": MASKS["val_mask"]}, r"got no 'test_mask'.*or let"),
        ({**MASKS, "test_mask": MASKS["val_mask"]}, r"disjoint masks in split 'given' of '.*g.npz'"),
        ({**MASKS, "test_mask": np.ones(3, bool)}, r"'test_mask' for the 30 nodes of .*got \[3\]"),
        ({**MASKS, "split": names}, r"one split in '.*g.npz' \(got masks and 'split'\)"),
        ({**ids, "test": np.array([N])}, r"nodes from 0 to 29 in 'test' of '.*g.npz' \(got 30\)"),
    ]:
        with pytest.raises((ValueError, IndexError), match=message):
            read(**more)


def test_masks_beside_arrays_in_memory(arrays):
    adjacency, x, y = arrays
    columns = {**MASKS, "node_id": np.arange(100, 100 + N), "year": np.arange(N)}
    for task in (from_points(x, y, knn=3, columns=columns), from_scipy(adjacency, x, y, columns=columns)):
        assert torch.equal(task.splits[0].test, torch.from_numpy(MASKS["test_mask"]))
        assert task.data.node_id[:2] == [100, 101]
    del columns["test_mask"]
    with pytest.raises(ValueError, match=r"got no 'test_mask'"):
        from_points(x, y, knn=3, columns=columns)
    assert from_points(x, y, knn=3, columns={"year": columns["year"]}, time="year").splits[0].name == "time"


@pytest.mark.parametrize("masks", [{}, MASKS])
def test_edges_are_there_once(tmp_path, arrays, masks):
    x, y, edges = edges_of(arrays)
    np.savez(tmp_path / "g.npz", x=x, y=y, **edges["edge_index"], **edges["adj"], **masks)
    for options in ({}, {"knn": 3}):
        with pytest.raises(ValueError, match=r"edges once in '.*g.npz' \(got edge_index, adj\); leave out"):
            read_graph(tmp_path / "g.npz", **options)
    np.savez(tmp_path / "g.npz", x=x, features=x, y=y, **edges["adj"], **masks)
    with pytest.raises(ValueError, match=r"features once in '.*g.npz' \(got x, features\)"):
        read_graph(tmp_path / "g.npz")
    assert read_graph(tmp_path / "g.npz", label="features", kind="regression").data.x.size(1) == 4
    # Nobody could say which entry of a matrix a row of them belongs to.
    for form, options in (("adj", {}), ("knn", {"knn": 3})):
        np.savez(tmp_path / "g.npz", x=x, y=y, **edges[form], edge_attr=np.ones((9, 2)), **masks)
        with pytest.raises(ValueError, match=r"'edge_attr' beside 'edge_index' in '.*g.npz' .got it without"):
            read_graph(tmp_path / "g.npz", **options)
