import dataclasses

import pytest
import torch
from made_tasks import make_task
from torch_geometric.data import Data, HeteroData

from kgat.datasets import LinkSplit, LinkTask, Pairs, RandomLinkSplits, from_data, link_task, load
from kgat.datasets.link_task import negatives

pytestmark = pytest.mark.quick


def keys(index, nodes=60):
    low, high = index.min(0)[0], index.max(0)[0]
    return set((low * nodes + high).tolist())


def test_splits_neither_leak_nor_overlap():
    task = link_task(make_task(), val=0.1, test=0.2)
    edges = keys(task.data.edge_index)
    for split in task.splits[:3]:
        parts = {part: getattr(split, part) for part in ("train", "val", "test")}
        positive = {part: keys(pairs.index[:, pairs.y == 1]) for part, pairs in parts.items()}
        negative = {part: keys(pairs.index[:, pairs.y == 0]) for part, pairs in parts.items()}
        assert set.union(*positive.values()) == edges
        assert sum(map(len, positive.values())) == len(edges)
        assert len(set.union(*negative.values())) == len(edges)  # all differ
        assert not edges & set.union(*negative.values())
        assert keys(split.edge_index) == positive["train"]
        assert split.edge_index.size(1) == 2 * len(positive["train"])  # both directions
        assert len(positive["val"]) == round(0.1 * len(edges))
        assert len(positive["test"]) == round(0.2 * len(edges))


def test_splits_are_drawn_from_their_name():
    one, two = link_task(make_task()), link_task(make_task())
    assert torch.equal(one.split(3).test.index, two.split(13).test.index)
    assert not torch.equal(one.split(0).test.index, one.split(1).test.index)
    other = dataclasses.replace(make_task(), name="other")
    assert not torch.equal(link_task(other).split(0).test.index, one.split(0).test.index)


def test_more_edges_than_other_pairs_are_refused():
    # Parts want different ones: a draw would go on without end.
    edge_index = torch.combinations(torch.arange(10))[:24].T
    with pytest.raises(ValueError, match=r"as many pairs without an edge .*got 21 of them and 24 edges"):
        RandomLinkSplits(
            "dense", Data(x=torch.eye(10), edge_index=torch.cat([edge_index, edge_index.flip(0)], 1))
        )


def test_directed_edges_stay_directed():
    edge_index = torch.tensor([list(range(20)), [(k + 1) % 20 for k in range(20)]])
    splits = RandomLinkSplits("ring", Data(x=torch.eye(20), edge_index=edge_index), val=0.2, test=0.2)
    assert not splits.undirected
    split = splits[0]
    asked = {
        tuple(pair) for part in (split.val, split.test) for pair in part.index[:, part.y == 1].T.tolist()
    }
    assert asked <= {tuple(pair) for pair in edge_index.T.tolist()}
    assert not asked & {tuple(pair) for pair in split.edge_index.T.tolist()}
    assert len(asked) + split.edge_index.size(1) == 20


def test_loops_and_features_of_edges_stay_with_their_edges():
    edge_index = torch.tensor([[0, 1, 1, 2, 2, 3, 3, 4, 4, 0, 2], [1, 0, 2, 1, 3, 2, 4, 3, 0, 4, 2]])
    data = Data(x=torch.eye(5), edge_index=edge_index, edge_attr=(5 * edge_index[0] + edge_index[1]).float())
    split = RandomLinkSplits("made", data, val=0.2, test=0.2)[0]
    assert torch.equal(split.edge_attr, (5 * split.edge_index[0] + split.edge_index[1]).float())
    assert (split.edge_index[0] == split.edge_index[1]).sum() == 1


def test_training_sees_nothing_of_test_edges():
    task = link_task(make_task())
    split = task.split(0)
    visible = task.visible(split)
    test = keys(split.test.index[:, split.test.y == 1])
    assert not test & (keys(visible.edge_index) | keys(visible.train) | keys(visible.val))


def test_negatives_are_no_known_pairs():
    known = torch.tensor([k for k in range(25) if k % 5 != 3])
    torch.manual_seed(0)
    row, col = negatives(200, 5, known)
    assert row.numel() == 200
    assert set(col.tolist()) == {3}
    assert bool((row != col).all())


def pairs(index, y):
    return Pairs(torch.tensor(index), torch.tensor(y))


def made(**change):
    x, edge_index = torch.eye(4), torch.tensor([[0, 1], [1, 0]])
    val, test = pairs([[2, 0], [3, 3]], [1, 0]), pairs([[1, 0], [2, 3]], [1, 0])
    parts = {"edge_index": edge_index, "train": pairs([[0], [1]], [1]), "val": val, "test": test, **change}
    split = LinkSplit("one", parts["edge_index"], None, parts["train"], parts["val"], parts["test"])
    metric = change.get("metric", "roc_auc")
    return LinkTask("toy", Data(x=x, edge_index=edge_index), (split,), metric, "here", "none")


def test_scores_are_of_pairs():
    task = made()
    split = task.split(0)
    assert task.score(torch.tensor([1.0, 0.0]), split, "test") == 1.0
    assert task.score(torch.tensor([0.0, 1.0]), split, "val") == 0.0
    with pytest.raises(ValueError, match=r"shape \[2\] for part 'test' of 'toy' \(got \[3\]\)"):
        task.score(torch.zeros(3), split, "test")
    with pytest.raises(ValueError, match=r"finite 'output' \(got nan of pair 1\)"):
        task.score(torch.tensor([0.0, torch.nan]), split, "test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "accuracy"}, r"metric of links as 'metric' of 'toy' \(got 'accuracy'\)"),
        ({"test": pairs([[1, 0], [0, 3]], [1, 0])}, r"no edge of 'test' among the messages.*\(got 1 to 0\)"),
        ({"val": pairs([[1, 0], [2, 3]], [0, 0])}, r"edges in 'val' of split 'one' of 'toy' \(got none\)"),
        ({"val": pairs([[1, 0], [2, 3]], [1])}, r"as 'val'.*\(got \[2, 2\] and \[1\]\)"),
        ({"test": pairs([[3, 0], [2, 3]], [1, 0])}, r"disjoint.*edge 3 to 2 in 'val' and 'test'"),
        ({"train": pairs([[0, 3], [1, 2]], [1, 1])}, r"disjoint.*edge 2 to 3 in 'train' and 'val'"),
        ({"val": pairs([[2, 3], [3, 2]], [1, 0])}, r"no edges of 'val' .* where 'y' is 0 \(got 3 to 2"),
    ],
)
def test_bad_splits_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        made(**change)


def test_pairs_out_of_range_are_named():
    with pytest.raises(IndexError, match=r"nodes 0 to 3 in 'test'.*\(got 0 to 4\)"):
        made(test=pairs([[2, 0], [3, 4]], [1, 0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"val": 0.0}, "change the shares"), ({"val": 0.5, "test": 0.5}, "leave 0"), ({"test": 1e-9}, "and 0")],
)
def test_bad_shares_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        link_task(make_task(), **change)


def test_a_complete_graph_has_no_links_to_ask_for():
    row, col = torch.ones(6, 6).tril(-1).nonzero().T
    data = Data(x=torch.eye(6), edge_index=torch.stack([torch.cat([row, col]), torch.cat([col, row])]))
    with pytest.raises(ValueError, match=r"pairs without an edge as edges in 'made' \(got 0"):
        RandomLinkSplits("made", data, val=0.2, test=0.2)


def test_links_of_any_graph_by_name():
    for name in ("karate-links", "Karate links", "KARATE_LINKS"):
        assert load(name).name == "karate-links"
    with pytest.raises(ValueError, match="did you mean 'karate'"):
        load("karat-links")


def test_features_of_messages_are_finite():
    task = link_task(make_task())
    split = task.split(0)
    attr = torch.ones(split.edge_index.size(1), 1)
    attr[5] = float("nan")
    row, col = split.edge_index[:, 5].tolist()
    bad = dataclasses.replace(split, edge_attr=attr)
    message = rf"finite features of edges in .*split 'random-0'.*got nan at edge 5, from node {row} to {col}"
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(task, splits=[bad])
    data = task.data.clone()
    data.edge_attr = torch.full((data.edge_index.size(1),), float("inf"))
    with pytest.raises(ValueError, match=r"finite features of edges in .*got inf at edge 0"):
        dataclasses.replace(task, data=data)


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint64])
def test_pairs_of_unsigned_types_are_refused(dtype):
    task = link_task(make_task())
    split = task.split(0)
    wrong = dataclasses.replace(split, val=Pairs(split.val.index.to(dtype), split.val.y))
    with pytest.raises(ValueError, match=rf"torch.int64 as 'val' of .*got {dtype} and torch.int64"):
        dataclasses.replace(task, splits=[wrong])


def test_features_that_tell_held_out_edges_are_refused():
    data = load("karate").data
    given = Data(x=data.x, edge_index=data.edge_index, y=data.y)
    with pytest.raises(
        ValueError, match=r"not made of the edges .*got structure=degree,walk:4.*position_dim"
    ):
        link_task(from_data(given, structure=["degree", "walk:4"]))
    assert link_task(from_data(given)).level == "link"


@pytest.mark.parametrize(
    "name", ["ogbn-arxiv-structure", "ogbn-arxiv-structure-10-noise", "ogbn-proteins-5-labels"]
)
def test_features_of_edges_are_no_secret_with_noise(name):
    task = dataclasses.replace(load("karate"), name=name)
    with pytest.raises(ValueError, match=r"not made of the edges .*got degrees or means over edges"):
        link_task(task)
    assert link_task(dataclasses.replace(task, digest="content")).name == f"{name}-links"  # one of one's own


def test_the_digest_is_that_of_the_content():
    karate = load("karate")
    flipped = Data(karate.data.x.flip(1), karate.data.edge_index, y=karate.data.y)
    own = [
        dataclasses.replace(karate, name="mine", digest="content", data=data)
        for data in (karate.data, flipped)
    ]
    tasks = [*map(link_task, own), link_task(own[0], val=0.2), link_task(own[0], metric="average_precision")]
    tasks.append(dataclasses.replace(tasks[0], splits=list(tasks[0].splits), digest="content"))
    digests = {task.digest for task in tasks}
    assert len(digests) == len(tasks)
    assert None not in digests
    assert link_task(own[0]).digest == tasks[0].digest
    # A name that all know tells the shares that are usual, and no others.
    assert link_task(karate).digest is load("karate-links").digest is None
    assert link_task(karate, test=0.2).digest is not None


def test_links_between_nodes_of_several_types_are_refused():
    data = HeteroData()
    data["paper"].x, data["paper"].y = torch.randn(30, 4), torch.arange(30) % 3
    data["paper", "cites", "paper"].edge_index = torch.stack([torch.arange(29), torch.arange(1, 30)])
    with pytest.raises(
        ValueError, match=r"Expected a graph with one type of nodes \(got 'graph', with several"
    ):
        link_task(from_data(data))
