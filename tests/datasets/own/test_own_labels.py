r"""The same labels mean the same, however they come."""

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from torch_geometric.data import Data, HeteroData

from kgat.datasets import (
    convert_arrays,
    from_data,
    from_networkx,
    from_pandas,
    from_points,
    from_scipy,
    load_mapped,
    read_graph,
)

pytestmark = pytest.mark.filterwarnings("ignore:whole numbers of a floating type")

N = 150
I = np.arange(N)  # noqa: E741
X = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
RING = np.stack([I, np.roll(I, 1)])
MATRIX = np.zeros((N, N))
MATRIX[RING[0], RING[1]] = 1


def as_data(y, folder, **options):
    tensor = y if y.dtype.kind == "U" else torch.from_numpy(y)
    return from_data(Data(x=torch.from_numpy(X), edge_index=torch.from_numpy(RING), y=tensor), **options)


def as_one_of_several_types(y, folder, **options):
    data = HeteroData()
    data["a"].x, data["b"].x = torch.from_numpy(X), torch.from_numpy(X)
    data["a"].y = y if y.dtype.kind == "U" else torch.from_numpy(y)
    data["b", "to", "a"].edge_index = torch.from_numpy(RING)
    return from_data(data, **options)


def as_file(y, folder, *, knn=None, options=None, **arrays):
    np.savez(folder / "graph.npz", x=X, y=y, **arrays)
    return read_graph(folder / "graph.npz", knn=knn, **(options or {}))


def as_mapped(y, folder, **options):
    for name, array in (("x", X), ("y", y), ("edges", RING)):
        np.save(folder / f"{name}.npy", array)
    convert_arrays(folder, folder / "mapped", **options)
    return load_mapped(folder / "mapped")


ARRAYS = {
    "Data": as_data,
    "HeteroData": as_one_of_several_types,
    "edge_index": lambda y, folder, **options: as_file(y, folder, edge_index=RING, options=options),
    "adjacency": lambda y, folder, **options: as_file(y, folder, adjacency=MATRIX, options=options),
    "knn": lambda y, folder, **options: as_file(y, folder, knn=3, options=options),
    "scipy": lambda y, folder, **options: from_scipy(MATRIX, X, y, **options),
    "points": lambda y, folder, **options: from_points(X, y, knn=3, **options),
    "mapped": as_mapped,
}


def tables(y):
    columns = {"y": y.ravel()} if y.ndim == 1 or y.shape[1] == 1 else {f"{i}": c for i, c in enumerate(y.T)}
    nodes = pd.DataFrame({"id": I, "a": X[:, 0], "b": X[:, 1], **columns})
    return nodes, pd.DataFrame({"source": RING[0], "target": RING[1]}), list(columns)


def as_tables(y, folder, **options):
    nodes, edges, label = tables(y)
    return from_pandas(nodes, edges, label=label, **options)


def as_csv(y, folder, **options):
    nodes, edges, label = tables(y)
    nodes.to_csv(folder / "nodes.csv", index=False)
    edges.to_csv(folder / "edges.csv", index=False)
    return read_graph(folder, label=label, **options)


def as_network(y, folder, **options):
    nodes, _, label = tables(y)
    graph = nx.Graph()
    graph.add_nodes_from(I)
    graph.add_edges_from(RING.T.tolist())
    nx.set_node_attributes(graph, nodes.drop(columns="id").to_dict("index"))
    return from_networkx(graph, label=label, **options)


TABLES = {"pandas": as_tables, "csv": as_csv, "networkx": as_network}


def understood(task):
    y, data = task.y, task.data["a"] if isinstance(task.data, HeteroData) else task.data
    unknown = y.isnan() if y.is_floating_point() else y < 0
    values = "" if task.kind in ("multiclass", "binary") else y.nan_to_num(1234.5).tolist()
    return task.kind, list(data["classes"]), task.num_classes, unknown.tolist(), values


SOME = I % 7 == 0


def unknown_as(value, y):
    return np.where(SOME if y.ndim == 1 else SOME[:, None], value, y)


# What anybody may write, tables, too: what is predicted, and how many classes, labels or numbers.
CASES = {
    "classes": (I % 3, "multiclass", 3),
    "classes in bytes": ((I % 3).astype(np.uint8), "multiclass", 3),
    "classes with holes": (1 + I % 2, "binary", 2),
    "classes in floats": ((I % 3).astype(float), "multiclass", 3),
    "classes in single floats, some unknown": (unknown_as(np.nan, I % 3).astype("f4"), "multiclass", 3),
    "two classes in floats": ((I % 2).astype(float), "binary", 2),
    "truth values": (I % 3 == 0, "binary", 2),
    "texts": (np.array(["a", "b", "c"])[I % 3], "multiclass", 3),
    "texts, some empty": (unknown_as("", np.array(["a", "b", "c"])[I % 3]), "multiclass", 3),
    "amounts": (np.linspace(0, 1, N), "regression", 1),
    "amounts, some unknown": (unknown_as(np.nan, np.linspace(-1, 1, N)), "regression", 1),
    "many whole numbers below zero and above": (I - 60, "regression", 1),
    "a column": ((I % 3)[:, None], "multiclass", 3),
    "labels": (np.stack([I % 2, I % 3 == 0, I % 5 == 0], axis=1).astype(int), "multilabel", 3),
    "labels, some unknown": (
        unknown_as(np.nan, np.stack([I % 2, I % 3 == 0], axis=1)),
        "multilabel",
        2,
    ),
    "columns of numbers": (np.stack([I % 9 - 4, I % 5 - 2], axis=1), "regression", 2),
}
# What says by -1 that nothing is known, as tables do not.
CODED = {
    "classes": (unknown_as(-1, I % 3), "multiclass", 3),
    "two classes": (unknown_as(-1, I % 2), "binary", 2),
    "two classes with holes": (unknown_as(-1, 2 * (I % 2)), "binary", 2),
    "classes in floats": (unknown_as(-1.0, I % 3), "multiclass", 3),
    "classes, nothing and not a number": (np.where(I == 1, np.nan, unknown_as(-1, I % 3)), "multiclass", 3),
    "labels": (unknown_as(-1, np.stack([I % 2, I % 3 == 0], axis=1)), "multilabel", 2),
}


@pytest.mark.parametrize("entry", [*ARRAYS, *TABLES])
@pytest.mark.parametrize("case", CASES)
def test_labels_mean_the_same_in_all_forms(tmp_path, entry, case):
    y, kind, columns = CASES[case]
    task = {**ARRAYS, **TABLES}[entry](y, tmp_path)
    assert (task.kind, task.out_channels) == (kind, columns)
    assert understood(task) == understood(as_data(y, tmp_path))


@pytest.mark.parametrize("entry", ARRAYS)
@pytest.mark.parametrize("case", CODED)
def test_minus_one_is_unknown_in_all_arrays(tmp_path, entry, case):
    y, kind, columns = CODED[case]
    task = ARRAYS[entry](y, tmp_path)
    assert (task.kind, task.out_channels) == (kind, columns)
    assert understood(task) == understood(as_data(y, tmp_path))
    unknown = (y == -1) | (y != y)
    assert understood(task)[3] == unknown.tolist()


@pytest.mark.parametrize("entry", [*ARRAYS, *TABLES])
@pytest.mark.parametrize("y", [I % 80 - 40, (I % 4 - 1).astype(float), np.stack([I % 3 - 1, I % 2], axis=1)])
def test_all_numbers_of_a_regression_are_values(tmp_path, entry, y):
    task = {**ARRAYS, **TABLES}[entry](y, tmp_path, kind="regression")
    assert task.y.tolist() == y.tolist()
    assert sum(int(getattr(task.splits[0], part).sum()) for part in ("train", "val", "test")) == N


@pytest.mark.parametrize("entry", ARRAYS)
@pytest.mark.parametrize(
    ("y", "message"),
    [
        (I % 80 - 40, r"classes from 0, and -1 .* in 'y' of .*got -40 in node 0.*kind='regression'"),
        (unknown_as(-100, I % 3), r"classes from 0, and -1 .*got -100 in node 0"),
        (I % 2 * 2 - 1, r"two values in 'y' of .*got '1' for all 75 nodes.*write 0 for -1"),
        (np.stack([I % 2, I % 2], axis=1) * 2 - 1, r"two values in 'y' of .*got '1' for all.*write 0 for -1"),
        (unknown_as(-1, I), r"at most 100 different whole numbers beside -1 .*--kind multiclass"),
        (np.full(N, -1), r"labels in 'y' of .*got none for all 150 nodes"),
    ],
)
def test_what_may_mean_several_things_is_refused(tmp_path, entry, y, message):
    with pytest.raises(ValueError, match=message) as caught:
        ARRAYS[entry](y, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("entry", ARRAYS)
def test_more_classes_than_are_recognised(tmp_path, entry):
    y = unknown_as(-1, I)
    if entry == "mapped":  # it has no other rule than by class, of which each has one node here
        for number, part in enumerate(("train", "val", "test")):
            np.save(tmp_path / f"{part}.npy", np.flatnonzero(~SOME)[number::3])
    task = ARRAYS[entry](y, tmp_path, kind="multiclass", **({} if entry == "mapped" else {"split": "random"}))
    assert task.num_classes == len(set(y)) - 1
    assert understood(task)[3] == SOME.tolist()
    # Of what is large this is asked for: nobody sees the numbers before hours of work.
    if entry == "mapped":
        with pytest.raises(ValueError, match=r"at most 100 different whole numbers .*--kind multiclass"):
            as_mapped(I, tmp_path)


@pytest.mark.parametrize("entry", TABLES)
def test_in_a_table_an_empty_cell_is_unknown_and_minus_one_a_class(tmp_path, entry):
    task = TABLES[entry](unknown_as(np.nan, I % 3 - 1), tmp_path)
    assert task.data.classes == ["-1", "0", "1"]
    assert (task.y < 0).tolist() == SOME.tolist()


def test_whole_numbers_in_floats_are_told():
    y = torch.arange(N) % 3
    data = Data(x=torch.from_numpy(X), edge_index=torch.from_numpy(RING), y=y.float())
    with pytest.warns(
        UserWarning, match=r"in 'y' of the given Data are taken for 3 classes.*--kind regression"
    ):
        from_data(data)
    for options in ({"kind": "regression"}, {"kind": "multiclass"}):
        from_data(data, **options)
