import os
import pickle

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.utils import coalesce, erdos_renyi_graph, remove_self_loops, to_undirected

from kgat.datasets import describe, from_data, read_graph, structural_features

N = 40


def make(**change):
    generator = torch.Generator().manual_seed(0)
    data = Data(
        x=torch.randn(N, 3, generator=generator),
        edge_index=torch.randint(0, N, (2, 90), generator=generator),
        y=torch.arange(N) % 4,
    )
    for name, value in change.items():
        if value is None:
            del data[name]
        else:
            data[name] = value
    return data


def mask(*nodes):
    out = torch.zeros(N, dtype=torch.bool)
    out[list(nodes)] = True
    return out


MASKS = {"train_mask": mask(0, 1), "val_mask": mask(2), "test_mask": mask(3, 4)}


def test_edges_are_cleaned_as_pyg_cleans_them():
    data = make()
    task = from_data(data)  # as many edges go one way only, it is a directed graph
    clean = coalesce(remove_self_loops(data.edge_index)[0], sort_by_row=False)
    assert torch.equal(task.data.edge_index, clean)
    undirected = from_data(data, directed=False)
    assert torch.equal(undirected.data.edge_index, coalesce(to_undirected(clean), sort_by_row=False))
    assert "directed edges" in describe(task)
    assert torch.equal(task.data.x, data.x)


@pytest.mark.parametrize(
    ("y", "kind", "metric", "columns"),
    [
        (torch.arange(N) % 4, "multiclass", "accuracy", 4),
        (torch.arange(N) % 2, "binary", "roc_auc", 2),
        (torch.arange(N) % 2 == 0, "binary", "roc_auc", 2),
        ((torch.arange(N) % 2).float(), "binary", "roc_auc", 2),
        ((torch.arange(N) % 4).float(), "multiclass", "accuracy", 4),
        (torch.linspace(0, 1, N), "regression", "rmse", 1),
        (torch.linspace(0, 1, N).view(-1, 1), "regression", "rmse", 1),
        (torch.linspace(0, 1, 2 * N).view(-1, 2), "regression", "rmse", 2),
        ((torch.arange(3 * N) % 2).view(-1, 3), "multilabel", "roc_auc", 3),
        (10 * torch.arange(N), "multiclass", None, 40),
    ],
)
def test_what_is_predicted_is_recognised(y, kind, metric, columns):
    if metric is None:
        with pytest.raises(ValueError, match=r"a class of at least three nodes in 'y'.*--kind regression"):
            from_data(make(y=y))
        assert from_data(make(y=y), kind="regression").metric == "rmse"
        return
    task = from_data(make(y=y))
    assert (task.kind, task.metric, task.out_channels) == (kind, metric, columns)
    described = {
        "multiclass": "4 classes",
        "binary": "2 classes",
        "multilabel": "3 labels",
        "regression": "a number",
    }
    assert f"predicts y: {described[kind]}" in describe(task)
    output = torch.randn(N, columns)
    assert isinstance(task.score(output, task.splits[0], "test"), float)


def test_many_whole_numbers_are_amounts():
    x, edge_index = torch.zeros(150, 1), torch.tensor([[0], [1]])
    assert from_data(Data(x=x, edge_index=edge_index, y=torch.arange(150))).kind == "regression"


def test_unknown_labels_are_kept_out():
    y = torch.arange(N) % 4
    y[:8] = -1
    task = from_data(make(y=y))
    assert task.data.y[:8].tolist() == [-1] * 8
    values = torch.linspace(0, 1, N)
    values[:8] = float("nan")
    regression = from_data(make(y=values))
    for t in (task, regression):
        assert not any((split.train | split.val | split.test)[:8].any() for split in t.splits)
        assert "8 nodes without" in describe(t)


def test_masks_are_the_split():
    task = from_data(make(**MASKS))
    assert [split.name for split in task.splits] == ["given"]
    assert torch.equal(task.splits[0].test, MASKS["test_mask"])
    several = torch.stack([mask(0, 1), mask(5, 6)], dim=1)
    task = from_data(make(**{**MASKS, "train_mask": several}))
    assert [split.train.nonzero().flatten().tolist() for split in task.splits] == [[0, 1], [5, 6]]
    assert torch.equal(task.splits[1].val, MASKS["val_mask"])
    assert len(from_data(make(**MASKS), split="random").splits) == 20


def test_unlabelled_nodes_leave_a_given_split():
    y = torch.arange(N) % 4
    y[1] = -1
    assert from_data(make(y=y, **MASKS)).splits[0].train.nonzero().flatten().tolist() == [0]


def test_other_attributes_decide_splits():
    data = make(year=torch.arange(N), town=torch.arange(N) % 8)
    (split,) = from_data(data, time="year").splits
    assert split.train.nonzero().flatten().tolist() == list(range(24))
    assert len(from_data(data, group="town").splits) == 18
    task = from_data(make(color=torch.arange(N) % 2, node_id=[f"n{i}" for i in range(N)]), target="color")
    assert (task.num_classes, task.data.node_id[3]) == (2, "n3")


def test_files_of_data(tmp_path):
    expected = from_data(make(**MASKS))
    for number, content in enumerate(
        (make(**MASKS), make(**MASKS).to_dict(), (make(**MASKS).to_dict(), None, Data))
    ):
        path = tmp_path / f"graph{number}.pt"
        torch.save(content, path)
        task = read_graph(path)
        assert (task.name, task.digest) == (path.stem, expected.digest)


class Trap:
    def __reduce__(self):
        return os.mkdir, ("sprung",)


def test_a_pickle_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, (write, said) in enumerate(
        [
            (lambda path: torch.save({"x": Trap()}, path), "a pickle, which could run anything"),
            (lambda path: path.write_bytes(pickle.dumps(Trap())), "a pickle, which could run anything"),
            (lambda path: path.write_bytes(b""), "a damaged file"),
            (lambda path: path.write_bytes(b"no file"), "a damaged file"),
            (lambda path: torch.save(torch.ones(2), path), "got Tensor"),
            (
                lambda path: torch.save(
                    ({"x": torch.ones(4, 1)}, {"x": torch.tensor([0, 2, 4])}, Data), path
                ),
                r"Expected nodes and 'edge_index' .* in graph '.*/0' of",
            ),
        ]
    ):
        path = tmp_path / f"graph{number}.pt"
        write(path)
        with pytest.raises(ValueError, match=said) as caught:
            read_graph(path)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"edge_index": None}, {}, r"'edge_index' of shape \[2, E\] .*got \['x', 'y'\].*from_points"),
        ({"edge_index": torch.tensor([[0, 1], [1, N]])}, {}, r"nodes 0 to 39 \(got node 40 in edge 1\)"),
        ({"edge_index": torch.tensor([[0, -1], [1, 0]])}, {}, r"nodes 0 to 39 \(got node -1 in edge 1\)"),
        ({"edge_index": torch.rand(2, 3)}, {}, r"whole numbers of shape \[2, E\]"),
        ({"edge_attr": torch.ones(3)}, {}, r"one row of 'edge_attr' per edge .*90 \(got 3\)"),
        ({"y": None}, {}, r"an attribute 'y' in the given Data \(got edge_index, x\)"),
        ({"y": torch.arange(N - 1)}, {}, r"'y' for the 40 nodes .*got \[39\]"),
        ({"y": torch.zeros(N, dtype=torch.long)}, {}, r"two values in 'y' .*got '0' for all 40"),
        ({"y": -torch.ones(N, dtype=torch.long)}, {}, r"labels in 'y' .*got none for all 40"),
        (
            {"y": torch.full((N,), float("inf")).cumsum(0)},
            {"kind": "regression"},
            r"two values|finite numbers",
        ),
        ({"x": torch.full((N, 2), float("nan"))}, {}, r"finite features in 'graph' \(got nan at node 0"),
        ({"x": None}, {}, r"features of the nodes .*got none.*--structure"),
        ({"val_mask": mask(1)}, {}, r"'train_mask', 'val_mask' and 'test_mask' .*got no 'train_mask'"),
        ({**MASKS, "val_mask": mask(1)}, {}, r"disjoint masks .*got node 1 in 'train' and 'val'"),
        ({**MASKS, "val_mask": torch.ones(N)}, {}, r"a boolean 'val_mask' .*got \[40\] torch|float32"),
        ({**MASKS, "val_mask": mask(1)[:-1]}, {}, r"'val_mask' for the 40 nodes .*got \[39\]"),
        ({**MASKS, "val_mask": mask()}, {}, r"nodes in 'val' of split 'given'"),
        ({}, {"kind": "binary"}, r"two classes in 'y' for kind='binary' \(got 4: 0, 1, 2, 3\)"),
        ({}, {"kind": "multilabel"}, r"several columns of zeros and ones .*got 'y' alone"),
        ({}, {"kind": "clas"}, r"Expected 'kind' .*got 'clas'"),
        ({}, {"metric": "rmse"}, r"a metric of a multiclass task"),
        ({}, {"metric": "acuracy"}, r"got 'acuracy'.*did you mean 'accuracy'"),
        ({"y": torch.full((N, 2), 0.5)}, {"kind": "multilabel"}, r"0, 1 or nothing .*got 0.5 in node 0"),
        ({"y": torch.ones(N, 2)}, {"kind": "multiclass"}, r"one column for kind='multiclass' \(got 2"),
    ],
)
def test_what_does_not_fit_is_named(change, options, message):
    with pytest.raises((ValueError, IndexError), match=message) as caught:
        from_data(make(**change), **options)
    assert "\n" not in str(caught.value)


def test_a_graph_without_nodes():
    empty = Data(x=torch.zeros(0, 2), edge_index=torch.zeros(2, 0, dtype=torch.long), y=torch.zeros(0))
    with pytest.raises(ValueError, match=r"a graph with nodes .got none in the given Data"):
        from_data(empty)


def test_other_things_are_refused():
    with pytest.raises(TypeError, match=r"torch_geometric.data.Data .got list"):
        from_data([1])


def test_the_digest_is_that_of_the_content():
    x = torch.ones(N, 3)
    digests = [
        from_data(make(**change), **options).digest
        for change, options in [
            ({}, {}),
            ({"x": x}, {}),
            ({"x": x.to_sparse_csr()}, {}),
            ({"x": torch.eye(N).roll(1, 0).to_sparse_csr()}, {}),
            ({"x": torch.eye(N).roll(2, 0).to_sparse_csr()}, {}),
            ({"edge_index": torch.tensor([[0], [1]])}, {}),
            ({"edge_attr": torch.ones(90, 1)}, {}),
            ({"y": torch.arange(N) % 2}, {}),
            (MASKS, {}),
            ({}, {"metric": "f1_macro"}),
            ({}, {"shares": (0.5, 0.2)}),
            ({}, {"structure": ["degree"]}),
            ({}, {"directed": False}),
        ]
    ]
    assert len(set(digests)) == len(digests)
    assert from_data(make(), name="other").digest == digests[0]


def test_structural_features_are_those_of_pyg_and_always_the_same():
    from torch_geometric.transforms import AddRandomWalkPE, LocalDegreeProfile

    edge_index = to_undirected(erdos_renyi_graph(120, 0.06))
    graph = Data(edge_index=edge_index, num_nodes=120)
    assert torch.equal(
        structural_features(edge_index, 120, ["walk:5"]), AddRandomWalkPE(5, attr_name=None)(graph.clone()).x
    )
    degree = LocalDegreeProfile()(graph.clone()).x
    expected = (degree - degree.mean(0)) / degree.std(0, correction=0)
    torch.testing.assert_close(structural_features(edge_index, 120, ["degree"]), expected)
    torch.manual_seed(1)
    laplacian = structural_features(edge_index, 120, ["laplacian:4"])
    torch.manual_seed(2)
    assert torch.equal(laplacian, structural_features(edge_index, 120, ["laplacian:4"]))
    assert laplacian.std(dim=0, correction=0).tolist() == pytest.approx([1.0] * 4)
    # Eigenvectors of the symmetric Laplacian: the product is a multiple of each (before the mean was taken).
    dense = torch.zeros(120, 120, dtype=torch.double)
    dense[edge_index[0], edge_index[1]] = 1.0
    scale = dense.sum(0).clamp(min=1).rsqrt()
    _, vectors = torch.linalg.eigh(torch.eye(120).double() - scale[:, None] * dense * scale)
    expected = vectors[:, 1:5]
    expected = (expected - expected.mean(0)) / expected.std(0, correction=0)
    overlap = (laplacian.double().T @ expected).abs() / 120
    torch.testing.assert_close(overlap.diagonal(), torch.ones(4).double(), atol=1e-3, rtol=0)


def test_structure_joins_features_or_stands_alone():
    data = make()
    task = from_data(data, structure=["walk:3", "degree"])
    assert torch.equal(task.data.x[:, :3], data.x)
    assert task.data.x.size(1) == 3 + 3 + 5
    assert from_data(make(x=None), structure="walk:2").data.x.shape == (N, 2)
    assert from_data(make(x=data.x.to_sparse_csr()), structure=["walk:2"]).data.x.shape == (N, 5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("degrees", r"structural features .got 'degrees'.*did you mean 'degree'"),
        ("degree:3", r"'degree' without a number"),
        ("walk:x", r"a number of columns above 0 .got 'walk:x'"),
        ("laplacian:39", r"at most 38 eigenvectors of a graph of 40 nodes .got laplacian:39"),
    ],
)
def test_wrong_structure(name, message):
    with pytest.raises(ValueError, match=message):
        from_data(make(), structure=[name])


@pytest.mark.parametrize("columns", [None, 2])
@pytest.mark.parametrize("name", ["edge_attr", "edge_weight"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_bad_edge_features_are_named_by_the_number_of_the_edge(tmp_path, columns, name, value):
    data = make()
    attr = torch.ones((90,) if columns is None else (90, columns), dtype=torch.double)
    attr[41] = value
    data[name] = attr
    row, col = data.edge_index[:, 41].tolist()
    column = "" if columns is None else ", column 0"
    message = (
        rf"finite features of edges in .* \(got (nan|inf) at edge 41, from node {row} to {col}{column}\)"
    )
    with pytest.raises(ValueError, match=message):
        from_data(data)
    torch.save(data.to_dict(), tmp_path / "g.pt")
    with pytest.raises(ValueError, match=message):
        read_graph(tmp_path / "g.pt")


def test_weights_are_edge_features(tmp_path):
    weight = torch.linspace(0, 1, 90)
    task = from_data(make(edge_weight=weight))
    named = from_data(make(edge_attr=weight))
    both = from_data(make(edge_attr=weight, edge_weight=torch.ones(90)))
    assert task.data.edge_attr.shape == (task.data.edge_index.size(1), 1)
    assert task.digest == named.digest == both.digest
    assert "edge features edge_weight" in describe(task)
    assert "edge_weight left out beside edge_attr" in describe(both)
    assert "edge_weight" not in describe(named)
    torch.save(make(edge_weight=weight), tmp_path / "g.pt")
    assert read_graph(tmp_path / "g.pt").digest == named.digest


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.uint32, torch.uint64])
def test_unsigned_numbers(tmp_path, dtype):
    weight = torch.arange(90) % 7
    year = torch.arange(N) // 4
    signed = make(edge_weight=weight, year=year, batch=year // 5, **MASKS)
    data = make()
    for name in ("edge_index", "y", "edge_weight", "year", "batch", *MASKS):
        data[name] = signed[name].to(dtype)
    assert from_data(data).digest == from_data(signed).digest
    assert data.y.dtype == dtype  # what was given stays
    torch.save(data.to_dict(), tmp_path / "g.pt")
    assert read_graph(tmp_path / "g.pt").digest == from_data(signed).digest
    for name in (*MASKS, "edge_weight"):
        del data[name], signed[name]
    assert from_data(data, time="year").digest == from_data(signed, time="year").digest
    assert from_data(data, group="year").digest == from_data(signed, group="year").digest
    index = torch.arange(N).view(2, -1)  # within a half
    data.edge_index, signed.edge_index = index.to(dtype), index
    data.batch = signed.batch = torch.zeros(N, dtype=torch.long)
    assert from_data(data, graphs="batch").digest == from_data(signed, graphs="batch").digest


@pytest.mark.parametrize("name", ["y", "edge_index", "year"])
def test_numbers_beyond_int64_are_refused(name):
    data = make(year=torch.arange(N))
    values = data[name].numpy().astype("uint64")
    values.flat[1] = 2**64 - 1  # a -1 that was written so
    data[name] = torch.from_numpy(values)
    message = (
        rf"up to 9223372036854775807 in '{name}' of the given Data \(got 18446744073709551615 at (0, )?1\)"
    )
    with pytest.raises(ValueError, match=message):
        from_data(data)


def test_numbers_that_are_no_mask():
    masks = {name: mask.to(torch.uint8) for name, mask in MASKS.items()}
    masks["val_mask"][7] = 2
    with pytest.raises(ValueError, match=r"a boolean 'val_mask' .*got \[40\] uint8"):
        from_data(make(**masks))


def test_narrow_ids_of_nodes_tell_directions():
    # Of 200 nodes a pair has a number that a byte does not hold.
    generator = torch.Generator().manual_seed(0)
    edge_index = to_undirected(torch.randint(0, 200, (2, 400), generator=generator))
    data = Data(x=torch.ones(200, 1), edge_index=edge_index.to(torch.uint8), y=torch.arange(200) % 2)
    assert "; undirected; " in from_data(data).preprocessing


@pytest.mark.parametrize("value", [float("inf"), "inf", "nan"])
def test_times_are_finite(value):
    year = [2000.0 + i // 5 for i in range(N)]
    if isinstance(value, str):
        year = list(map(str, year))
    year[6] = value
    with pytest.raises(ValueError, match=rf"finite times in 'year' .got {value} in node 6"):
        from_data(make(year=year), time="year")


@pytest.mark.parametrize("attr", [torch.ones(90, 2, 2), torch.ones(90, dtype=torch.cfloat)])
def test_edge_features_are_rows_of_numbers(attr):
    with pytest.raises(ValueError, match=r"one row of numbers per edge of the given Data .*got \[90"):
        from_data(make(edge_attr=attr))


def test_bfloat16():
    y = torch.linspace(0, 1, N).bfloat16()
    data = make(edge_attr=torch.ones(90).bfloat16(), y=y)
    assert torch.equal(from_data(data).y, y.float())
