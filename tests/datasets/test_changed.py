import dataclasses

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.utils import contains_self_loops, is_undirected

from kgat.datasets import changed, from_data, load
from kgat.experiments.config import protocol
from kgat.names import change_of

pytestmark = pytest.mark.quick


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def masks(task):
    return [torch.stack([split.train, split.val, split.test]) for split in task.splits]


def test_names():
    assert change_of("Cora_geom-gcn_10_Labels") == ("Cora_geom-gcn", 10, "labels")
    assert change_of("Physics-60-20-20") is None
    assert change_of("Cora-links") is None
    assert protocol("Cora-5-labels") == protocol("Cora")
    with pytest.raises(ValueError, match=r"'Koraa'.*Cora"):
        load("Koraa-5-labels")


def test_labels_are_nested_and_the_test_nodes_stay(digits):
    five, ten = changed(digits, 5, "labels"), changed(digits, 10, "labels")
    y = digits.data.y
    for few, more in zip(five.splits, ten.splits, strict=True):
        assert torch.bincount(y[few.train]).tolist() == [5] * 10
        assert torch.bincount(y[more.train]).tolist() == [10] * 10
        assert (more.train | ~few.train).all()
        assert torch.equal(few.test, more.test)
        assert torch.equal(few.val, more.val)
        assert torch.bincount(y[few.val]).tolist() == [30] * 10
    assert len({tuple(split.train.tolist()) for split in five.splits}) == 20
    assert five.preprocessing.endswith("; 5 training nodes of each class")
    # What is drawn follows from names alone.
    for one, other in zip(masks(five), masks(load("digits-5-labels")), strict=True):
        assert torch.equal(one, other)


def test_a_small_class_gives_a_third():
    y = torch.tensor([0] * 3 + [1] * 300)
    mask = torch.arange(303) % 3
    parts = {f"{name}_mask": mask == place for place, name in enumerate(("train", "val", "test"))}
    data = Data(x=torch.eye(303), edge_index=torch.tensor([[0], [1]]), y=y, **parts)
    task = changed(from_data(data, name="made"), 100, "labels")
    split = task.split(0)
    assert task.preprocessing.endswith(
        "100 training nodes of each class, 1 or more of those with less than 300"
    )
    assert torch.bincount(y[split.train]).tolist() == [1, 100]
    assert torch.bincount(y[split.val]).tolist() == [1, 30]
    assert torch.bincount(y[split.test]).tolist() == [1, 170]


def test_edges_are_added_and_none_is_lost(digits):
    noisy = load("digits-25-edges")
    before, after = digits.data.edge_index, noisy.data.edge_index
    n = digits.data.num_nodes
    assert is_undirected(after)
    assert set((before[0] * n + before[1]).tolist()) <= set((after[0] * n + after[1]).tolist())
    share = after.size(1) / before.size(1) - 1
    assert 0.23 < share <= 0.25  # some are drawn twice
    added = (after.size(1) - before.size(1)) // 2
    assert noisy.preprocessing.endswith(f"; {added} more edges, of 25 % drawn between nodes at random")
    # As it is said of the graph without.
    many = load("digits-1000-edges").data.edge_index
    assert not contains_self_loops(many)
    assert (many[1].diff() >= 0).all()
    assert ((many[0].diff() > 0) | (many[1].diff() > 0)).all()
    assert torch.equal(noisy.data.x, digits.data.x)
    directed = dataclasses.replace(digits, data=digits.data.clone())
    directed.data.edge_index = before[:, before[0] < before[1]]
    after = changed(directed, 50, "edges").data.edge_index
    assert not is_undirected(after)
    assert 0.45 < after.size(1) / directed.data.edge_index.size(1) - 1 <= 0.5


def test_noise_has_the_deviation_that_it_says(digits):
    noisy = changed(digits, 50, "noise")
    noise = noisy.data.x - digits.data.x
    assert float(noise.std() / digits.data.x.std()) == pytest.approx(0.5, rel=0.01)
    assert torch.equal(changed(digits, 50, "noise").data.x, noisy.data.x)
    sparse = dataclasses.replace(digits, data=digits.data.clone())
    sparse.data.x = sparse.data.x.to_sparse_csr()
    assert torch.allclose(changed(sparse, 50, "noise").data.x, noisy.data.x)
    assert not contains_self_loops(noisy.data.edge_index)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("digits-0-labels", "at least 1"),
        ("digits-101-labels", "at most 100"),
        ("diabetes-5-labels", "Expected classes"),
        ("digits-links-5-labels", "nodes of one graph"),
        ("digits-5-edges-links", "links of a graph as it is .*got 'digits-5-edges-links'"),
    ],
)
def test_errors(name, said):
    with pytest.raises(ValueError, match=said):
        load(name)


@pytest.mark.parametrize("change", ["edges", "noise"])
def test_an_amount_has_an_end(change):
    # Far beyond it there are more edges than memory holds, or than an integer of 64 bits counts.
    for amount in (10_001, 10**20):
        with pytest.raises(ValueError, match=rf"Expected at most 10000 % \(got {amount} in 'digits-"):
            load(f"digits-{amount}-{change}")
