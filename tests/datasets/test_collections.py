import shutil

import numpy as np
import pytest
import torch

from kgat.datasets import collections, load, names, splits

COUNTS = {
    # Graphs, nodes, edges, columns of nodes and edges, as torch_geometric and ogb load them.
    "MUTAG": (188, 3371, 7442, 7, 4),
    "ENZYMES": (600, 19580, 74564, 21, None),
    "PROTEINS": (1113, 43471, 162088, 4, None),
    "ogbg-molbace": (1513, 51577, 111536, 174, 13),
    "ogbg-molbbbp": (2039, 49068, 105842, 174, 13),
    "ogbg-molesol": (1128, 14991, 30856, 174, 13),
    "ogbg-molfreesolv": (642, 5600, 10770, 174, 13),
}


@pytest.mark.quick
def test_names():
    assert set(COUNTS) <= set(collections.names())
    assert set(collections.names()) <= set(names())
    with pytest.raises(ValueError, match=r"name of a data set.*did you mean 'MUTAG'"):
        load("mutagg")


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name, data_root):
    task = load(name, data_root)
    graphs = task.graphs
    width = None if graphs.edge_attr is None else graphs.edge_attr.size(1)
    found = (len(graphs), graphs.x.size(0), graphs.edge_index.size(1), graphs.x.size(1), width)
    assert found == COUNTS[name]
    row, col = graphs.edge_index
    key = col * graphs.x.size(0) + row
    assert bool((key[1:] > key[:-1]).all())
    assert int(graphs.edge_ptr[-1]) == row.numel()
    assert "\n" not in task.source + task.preprocessing
    if name.startswith("ogbg"):
        assert torch.equal(graphs.x.sum(1), torch.full_like(graphs.x[:, 0], 9))
        sizes = [int(getattr(task.split(0), part).sum()) for part in ("train", "val", "test")]
        assert sum(sizes) == len(graphs)
        assert task.split(0).name == "scaffold"


@pytest.mark.parametrize("name", ["MUTAG", "ENZYMES"])
def test_graphs_are_those_of_torch_geometric(name, data_root, tmp_path):
    from torch_geometric.datasets import TUDataset

    shutil.copytree(data_root / name / "raw", tmp_path / name / "raw")
    theirs = TUDataset(tmp_path, name, use_node_attr=True)
    task = load(name, data_root)
    assert torch.equal(task.y, theirs.y)
    types = theirs.num_node_labels
    for index in (0, 17, len(theirs) - 1):
        ours, data = task.graphs.batch_of(torch.tensor([index])), theirs[index]
        assert torch.equal(ours.x[:, -types:], data.x[:, -types:])
        edges = {tuple(edge) for edge in data.edge_index.T.tolist()}
        assert {tuple(edge) for edge in ours.edge_index.T.tolist()} == edges


@pytest.mark.parametrize("name", ["ogbg-molbace", "ogbg-molesol"])
def test_scores_are_those_of_ogb(name, data_root):
    pytest.importorskip("ogb")
    from ogb.graphproppred import Evaluator

    task = load(name, data_root)
    split = task.split(0)
    output = torch.randn(len(task.graphs), task.out_channels, generator=torch.Generator().manual_seed(0))
    answer = output if task.kind == "regression" else output[:, 1:] - output[:, :1]
    theirs = Evaluator(name).eval(
        {"y_true": task.y.view(-1, 1)[split.test].numpy(), "y_pred": answer[split.test].numpy()}
    )
    assert task.score(output, split, "test") == pytest.approx(float(next(iter(theirs.values()))), rel=1e-6)


@pytest.mark.quick
def test_folds_are_stratified_and_each_is_tested_once():
    y = np.array([0] * 23 + [1] * 14)
    parts = splits.folds("made", y, 10)
    assert [name for name, *_ in parts] == [f"fold-{k}" for k in range(10)]
    tests = np.stack([test for *_, test in parts])
    assert (tests.sum(0) == 1).all()
    for label in (0, 1):
        assert np.ptp(tests[:, y == label].sum(1)) <= 1
    for k, (_, train, val, test) in enumerate(parts):
        assert (train.astype(int) + val + test == 1).all()
        assert (val == tests[(k + 1) % 10]).all()
    assert all((a[3] == b[3]).all() for a, b in zip(parts, splits.folds("made", y, 10), strict=True))
    assert any((a[3] != b[3]).any() for a, b in zip(parts, splits.folds("other", y, 10), strict=True))


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("A", "1, 4000\n", "0 to 3370 are possible"),
        ("A", "1, 20\n", "an edge between two graphs"),
        ("graph_indicator", "1\n2\n1\n", "MUTAG_A.txt"),
        ("graph_labels", "1\n", "188 graphs with 1 labels"),
        ("node_labels", "one\n", "complete and readable file"),
    ],
)
def test_broken_files_are_named(file, text, message, data_root, tmp_path):
    shutil.copytree(data_root / "MUTAG" / "raw", tmp_path / "MUTAG" / "raw")
    path = tmp_path / "MUTAG" / "raw" / f"MUTAG_{file}.txt"
    path.unlink()
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load("MUTAG", tmp_path)
