import json
import multiprocessing
import platform
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch_geometric.data import HeteroData

from kgat.datasets import convert_arrays, from_data, from_pandas, load, load_mapped, read_graph, save_mapped
from kgat.datasets.own import convert, labels
from kgat.datasets.own import mapped as mapped_files
from kgat.experiments import training
from kgat.experiments.config import Config

pytestmark = pytest.mark.quick

N, E = 40, 300


def written(folder, **arrays):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def source(tmp_path, **change):
    rng = np.random.default_rng(0)
    arrays = {
        "edges": rng.integers(0, N, (2, E)),
        "x": rng.normal(size=(N, 5)).astype(np.float32),
        "y": rng.integers(0, 3, N),
        "edge_attr": rng.normal(size=(E, 2)).astype(np.float32),
    }
    return written(tmp_path / "source", **{k: v for k, v in {**arrays, **change}.items() if v is not None})


def edges_of(data):
    r"""Edges with their features and ids, in the order of ids."""
    order = data.edge_id.argsort(stable=True)
    return data.edge_index[:, order], None if data.edge_attr is None else data.edge_attr[order]


def test_a_task_comes_back_by_target(tmp_path):
    task = load("karate")
    save_mapped(tmp_path / "karate", task)
    again = load_mapped(tmp_path / "karate")
    assert torch.equal(edges_of(again.data)[0], task.data.edge_index)
    assert bool((again.data.edge_index[1].diff() >= 0).all())
    assert torch.equal(again.data.x, task.data.x)
    assert torch.equal(again.data.y, task.data.y)
    assert (again.name, again.metric, again.kind, again.num_classes) == ("karate", "accuracy", "binary", 2)
    for one, other in zip(task.splits, again.splits, strict=True):
        assert one.name == other.name
        assert all(torch.equal(getattr(one, part), getattr(other, part)) for part in ("train", "val", "test"))
    indptr = np.load(tmp_path / "karate" / "indptr.npy")
    np.testing.assert_array_equal(indptr[1:], np.bincount(task.data.edge_index[1], minlength=34).cumsum())
    save_mapped(tmp_path / "twice", again)
    assert torch.equal(edges_of(load_mapped(tmp_path / "twice").data)[0], task.data.edge_index)
    assert load_mapped(tmp_path / "twice").data.undirected is True


def test_what_a_table_has_beside_comes_back(tmp_path):
    nodes = pd.DataFrame({"id": list("abcdef"), "label": ["u", "v"] * 3, "color": ["red", "blue", "red"] * 2})
    edges = pd.DataFrame({"source": list("abcde"), "target": list("bcdef")})
    data = from_pandas(nodes, edges).data
    save_mapped(tmp_path / "table", from_pandas(nodes, edges))
    again = load_mapped(tmp_path / "table").data
    kept = [name for name, value in data.to_dict().items() if not isinstance(value, torch.Tensor)]
    assert {"node_id", "columns", "classes"} <= set(kept)
    assert {name: again[name] for name in kept} == json.loads(json.dumps({name: data[name] for name in kept}))


def test_tensors_are_maps_whose_files_stay_as_they_are(tmp_path):
    save_mapped(tmp_path / "karate", load("karate"))
    before = (tmp_path / "karate" / "x.npy").read_bytes()
    x = load_mapped(tmp_path / "karate").data.x
    maps = Path("/proc/self/maps")
    assert not maps.exists() or "karate/x.npy" in maps.read_text()
    x.zero_()
    assert (tmp_path / "karate" / "x.npy").read_bytes() == before


def _read(folder, queue):
    queue.put(float(load_mapped(folder).data.x.sum()))


def test_another_process_opens_it(tmp_path):
    save_mapped(tmp_path / "karate", load("karate"))
    queue = multiprocessing.get_context("fork").Queue()
    process = multiprocessing.get_context("fork").Process(target=_read, args=(tmp_path / "karate", queue))
    process.start()
    assert queue.get(timeout=30) == 34.0
    process.join()


@pytest.mark.parametrize("ending", ["npy", "columns", "csv", "tsv", "txt", "parquet"])
@pytest.mark.parametrize(("piece", "block"), [(7, 20), (1 << 22, 3), (1 << 22, 1 << 25)])
def test_edges_of_every_file_in_pieces(tmp_path, monkeypatch, ending, piece, block):
    if ending == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet is read by pyarrow")
    monkeypatch.setattr(convert, "PIECE", piece)
    monkeypatch.setattr(convert, "BLOCK", block)  # at 3, single targets have more
    folder = source(tmp_path)
    edges = np.load(folder / "edges.npy")
    table = pd.DataFrame({"source": edges[0], "more": 1.5, "target": edges[1]})
    if ending != "npy":
        (folder / "edges.npy").unlink()
    if ending == "columns":
        np.save(folder / "edges.npy", edges.T)
    elif ending == "txt":
        np.savetxt(folder / "edges.txt", edges.T, fmt="%d", header="from to")
    elif ending == "parquet":
        table.to_parquet(folder / "edges.parquet")
    elif ending != "npy":
        table.to_csv(folder / f"edges.{ending}", index=False, sep="," if ending == "csv" else "\t")
    convert_arrays(folder, tmp_path / "out", name="mine")
    task = load_mapped(tmp_path / "out")
    index, attr = edges_of(task.data)
    np.testing.assert_array_equal(index, edges)
    np.testing.assert_array_equal(attr, np.load(folder / "edge_attr.npy"))
    target = task.data.edge_index[1]
    assert bool((target.diff() >= 0).all())
    # Among equals the order that was given, however large the pieces are.
    assert bool((task.data.edge_id.diff()[target.diff() == 0] > 0).all())
    np.testing.assert_array_equal(task.data.x, np.load(folder / "x.npy"))
    assert (task.name, task.kind, task.num_classes, task.splits[0].name) == (
        "mine",
        "multiclass",
        3,
        "random-0",
    )


@pytest.mark.parametrize("block", [50, 1 << 25])
def test_both_directions(tmp_path, monkeypatch, block):
    monkeypatch.setattr(convert, "BLOCK", block)
    folder = source(tmp_path)
    convert_arrays(folder, tmp_path / "out", undirected=True)
    data = load_mapped(tmp_path / "out").data
    edges = torch.from_numpy(np.load(folder / "edges.npy"))
    loops = edges[0] == edges[1]
    assert bool(loops.any())
    both = torch.cat([edges, edges.flip(0)[:, ~loops]], dim=1)  # a self-loop is there once
    assert sorted(map(tuple, data.edge_index.T.tolist())) == sorted(map(tuple, both.T.tolist()))
    ends = edges[:, data.edge_id]
    assert bool(((ends == data.edge_index) | (ends.flip(0) == data.edge_index)).all())
    np.testing.assert_array_equal(data.edge_attr, np.load(folder / "edge_attr.npy")[data.edge_id])


def test_given_splits_and_kinds(tmp_path):
    ids = {"train": np.arange(10), "val": np.arange(10, 20), "test": np.arange(N) >= 20}
    convert_arrays(source(tmp_path, **ids), tmp_path / "out")
    split = load_mapped(tmp_path / "out").splits[0]
    assert [int(m.sum()) for m in (split.train, split.val, split.test)] == [10, 10, 20]
    y = np.random.default_rng(1).normal(size=N)
    y[3] = np.nan
    convert_arrays(source(tmp_path, y=y, **ids | {"train": np.arange(3)}), tmp_path / "values")
    assert load_mapped(tmp_path / "values").kind == "regression"
    classes = np.where(np.arange(N) == 3, np.nan, np.arange(N) % 3)
    with pytest.warns(UserWarning, match="taken for 3 classes"):
        convert_arrays(source(tmp_path, y=classes, **ids | {"train": np.arange(3)}), tmp_path / "classes")
    assert load_mapped(tmp_path / "classes").kind == "multiclass"
    assert load_mapped(tmp_path / "classes").data.y[:4].tolist() == [0, 1, 2, -1]
    labels = (np.random.default_rng(1).random((N, 4)) > 0.5).astype(float)
    convert_arrays(source(tmp_path, y=labels), tmp_path / "labels", metric="average_precision")
    task = load_mapped(tmp_path / "labels")
    assert (task.kind, task.num_classes, task.metric) == ("multilabel", 4, "average_precision")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"edges": np.array([[0, 1], [1, N]])},
            IndexError,
            rf"nodes from 0 to 39 in '.*edges.npy' \(got {N} at 1",
        ),
        ({"edges": np.array([[0, -1], [1, 0]])}, IndexError, r"got -1 at 1"),
        ({"edges": np.ones((2, 3))}, ValueError, "whole numbers from 0 as ends .*float64 after edge 0"),
        ({"edges": np.ones((3, 3), int)}, ValueError, r"shape \[2, E\]"),
        ({"edges": None}, FileNotFoundError, r"Expected one of edges.npy.*got 0 of them"),
        ({"x": np.full((N, 5), np.nan)}, ValueError, "finite features .*got nan at node 0, column 0"),
        ({"x": np.ones(N)}, ValueError, r"shape \[N, F\] .*float64 \[40\]"),
        ({"y": np.zeros(3, int)}, ValueError, "a label for each of 40 nodes"),
        ({"y": np.full(N, -1)}, ValueError, "Expected labels in 'y' .*got none for all 40 nodes"),
        ({"y": np.full(N, 2)}, ValueError, "at least two values .*got '2' for all"),
        ({"val": np.arange(3), "train": np.arange(3, 9), "test": np.array([], int)}, ValueError, "test"),
        ({"edge_attr": np.ones((3, 2))}, ValueError, r"for each of 300 edges \(got 3\)"),
        (
            {"train": np.array([0]), "val": np.array([0]), "test": np.array([1])},
            ValueError,
            "is in another part",
        ),
        ({"train": np.array([0])}, FileNotFoundError, "val.npy"),
        ({"train": np.array([99])}, IndexError, r"train.npy' \(got 99 at 0\)"),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_leaves_nothing(tmp_path, change, error, message):
    folder = source(tmp_path, **change)
    with pytest.raises(error, match=message) as raised:
        convert_arrays(folder, tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_what_labels_and_scores_are_is_asked_before_anything_is_written(tmp_path, monkeypatch):
    for module in (convert, labels):
        monkeypatch.setattr(module, "MOST_CLASSES", 2)
    with pytest.raises(ValueError, match=r"at most 2 different whole numbers .*--kind multiclass"):
        convert_arrays(source(tmp_path), tmp_path / "out")
    for y in (np.arange(N) - 3, np.arange(N) - 3.0):  # where -1 is a number
        convert_arrays(source(tmp_path, y=y), tmp_path / f"amounts-{y.dtype}", metric="rmse")
        task = load_mapped(tmp_path / f"amounts-{y.dtype}")
        assert task.kind == "regression"
        assert task.data.y[:4].tolist() == [-3, -2, -1, 0]
        assert sum(int(getattr(task.splits[0], part).sum()) for part in ("train", "val", "test")) == N
    monkeypatch.setattr(convert, "new_folder", None)
    for metric in ("none", "rmse"):
        with pytest.raises(ValueError, match=f"'{metric}'"):
            convert_arrays(source(tmp_path), tmp_path / "out", kind="multiclass", metric=metric)


def test_interruption_leaves_nothing_and_a_killed_one_is_cleared(tmp_path, monkeypatch):
    folder = source(tmp_path)
    host = platform.node().replace(".", "-")
    # Numbers of processes are those of a host; who puts something else there has it left alone, too.
    for name in (f"abc.{host}.999999999", "abc.elsewhere.999999999", "abc.mine"):
        (tmp_path / f".out.{name}.partial").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "_placed", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            convert_arrays(folder, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {
        *("source", ".out.abc.elsewhere.999999999.partial", ".out.abc.mine.partial")
    }
    convert_arrays(folder, tmp_path / "out")
    with pytest.raises(FileExistsError, match="Expected a new folder"):
        convert_arrays(folder, tmp_path / "out")


def test_several_types_of_nodes_are_refused(tmp_path):
    data = HeteroData()
    data["paper"].x, data["paper"].y = torch.rand(6, 2), torch.arange(6) % 2
    data["author"].x = torch.rand(3, 2)
    data["author", "writes", "paper"].edge_index = torch.stack([torch.arange(6) % 3, torch.arange(6)])
    with pytest.raises(ValueError, match=r"one type of nodes and edges in 'drawn' .got 2 and 1.; train on"):
        save_mapped(tmp_path / "out", from_data(data, name="drawn"))
    assert not list(tmp_path.iterdir())


def test_damaged_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="kgat convert wrote"):
        load_mapped(tmp_path)
    save_mapped(tmp_path / "karate", load("karate"))
    x = tmp_path / "karate" / "x.npy"
    whole = x.read_bytes()
    x.write_bytes(whole[:300])
    with pytest.raises(ValueError, match=r"shape \[34, 34\] in '.*x.npy'"):
        load_mapped(tmp_path / "karate")
    np.save(x, np.ones((3, 34), np.float32))
    with pytest.raises(ValueError, match=r"got \[3, 34\]"):
        load_mapped(tmp_path / "karate")
    x.write_bytes(whole)
    meta = json.loads((tmp_path / "karate" / "meta.json").read_text())
    (tmp_path / "karate" / "meta.json").write_text(json.dumps({**meta, "format": "other"}))
    with pytest.raises(ValueError, match="'other'"):
        load_mapped(tmp_path / "karate")
    (tmp_path / "karate" / "meta.json").write_text("{")
    with pytest.raises(ValueError, match="Expected JSON"):
        load_mapped(tmp_path / "karate")


def test_read_as_a_graph_of_ones_own(tmp_path):
    save_mapped(tmp_path / "karate", load("karate"))
    assert read_graph(tmp_path / "karate", name="club", metric="accuracy").name == "club"
    with pytest.raises(ValueError, match="Expected no 'structure'"):
        read_graph(tmp_path / "karate", structure=["degree"])


def test_training_on_it_is_training_on_what_it_was_written_from(tmp_path):
    task = load("karate")
    save_mapped(tmp_path / "karate", task)
    settings = {"max_epochs": 3, "batch_size": 4, "neighbors": "-1,-1", "dropout": 0.0, "input_dropout": 0.0}
    config = Config.of("karate", "rbf", overrides=settings)
    one, other = (training.run(t, config) for t in (task, load_mapped(tmp_path / "karate")))
    for name, values in one["curve"].items():
        assert values == pytest.approx(other["curve"][name], rel=1e-4)


def test_room_is_taken_before_it_is_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mapped_files.os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match="Expected room on the disk to write"):
        save_mapped(tmp_path / "karate", load("karate"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["edge_attr", "edge_weight"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
@pytest.mark.parametrize("piece", [7, 1 << 22])
def test_bad_edge_features_are_named(tmp_path, monkeypatch, name, value, piece):
    monkeypatch.setattr(convert, "PIECE", piece)
    attr = np.ones((E, 2))
    attr[201, 1] = attr[202, 0] = value
    folder = source(tmp_path, **{"edge_attr": None, name: attr})
    row, col = np.load(folder / "edges.npy")[:, 201]
    message = rf"of edges in '.*source' .got (nan|inf) at edge 201, from node {row} to {col}, column 1\)"
    with pytest.raises(ValueError, match=message):
        convert_arrays(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_mapped_graph_with_bad_edge_features(tmp_path):
    convert_arrays(source(tmp_path), tmp_path / "out", name="mine")
    attr = np.load(tmp_path / "out" / "edge_attr.npy", mmap_mode="r+")
    attr[5, 1] = np.nan
    attr.flush()
    row, col = np.load(tmp_path / "out" / "edge_index.npy")[:, 5]
    message = rf"of edges in 'mine' .got nan at edge 5, from node {row} to {col}, column 1\)"
    with pytest.raises(ValueError, match=message):
        load_mapped(tmp_path / "out")


def test_weights_are_edge_features(tmp_path):
    weight = np.random.default_rng(1).random(E).astype(np.float32)
    convert_arrays(source(tmp_path, edge_attr=None, edge_weight=weight), tmp_path / "out")
    np.testing.assert_array_equal(edges_of(load_mapped(tmp_path / "out").data)[1], weight)
    np.save(tmp_path / "source" / "edge_attr.npy", 2 * weight)
    convert_arrays(tmp_path / "source", tmp_path / "both")
    np.testing.assert_array_equal(edges_of(load_mapped(tmp_path / "both").data)[1], 2 * weight)


def test_infinite_values_are_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(convert, "_write_features", lambda *_: pytest.fail("written"))
    y = np.linspace(0, 1, N)
    y[4] = np.inf
    with pytest.raises(ValueError, match=r"finite numbers in 'y' of '.*y.npy' .got inf in node 4"):
        convert_arrays(source(tmp_path, y=y), tmp_path / "out")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64"])
def test_unsigned_numbers(tmp_path, dtype):
    folder = source(tmp_path, train=np.arange(10), val=np.arange(10, 20), test=np.arange(20, 30))
    convert_arrays(folder, tmp_path / "signed")
    for name in ("edges", "y", "train", "val", "test"):
        np.save(folder / f"{name}.npy", np.load(folder / f"{name}.npy").astype(dtype))
    convert_arrays(folder, tmp_path / "unsigned")
    assert load_mapped(tmp_path / "signed").digest == load_mapped(tmp_path / "unsigned").digest
    large = np.load(folder / "edges.npy").astype("uint64")
    large[1, 5] = 2**64 - 1
    np.save(folder / "edges.npy", large)
    with pytest.raises(ValueError, match=r"in 'edges' of .*got 18446744073709551615 at 1, 5"):
        convert_arrays(folder, tmp_path / "large")
