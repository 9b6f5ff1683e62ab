import pytest
import torch
from torch_geometric.data import HeteroData
from torch_geometric.data.collate import collate
from torch_geometric.transforms import RemoveDuplicatedEdges, ToSparseTensor

from kgat.datasets import HeteroTask, describe, from_data, read_graph

pytestmark = pytest.mark.quick

WRITES, CITES = ("author", "writes", "paper"), ("paper", "cites", "paper")
N = 30


def graph(**papers):
    generator = torch.Generator().manual_seed(0)
    data = HeteroData()
    data["paper"].x = torch.randn(N, 4, generator=generator)
    data["paper"].y = torch.arange(N) % 3
    for name, value in papers.items():
        data["paper"][name] = value
    data["author"].num_nodes = 6
    data[WRITES].edge_index = torch.stack([torch.arange(N - 2) % 6, torch.arange(N - 2)])
    data[CITES].edge_index = torch.tensor([[5, 0, 5, 2, 1], [1, 1, 1, 2, 0]])
    return data


def test_a_task_of_the_nodes_of_one_type():
    data = graph()
    task = from_data(data, name="drawn")
    assert (task.target, task.kind, task.metric, task.num_classes) == ("paper", "multiclass", "accuracy", 3)
    assert (len(task.splits), task.level, isinstance(task, HeteroTask)) == (20, "node", True)
    assert torch.equal(task.y, data["paper"].y)
    # Each once and by target; a self-loop stays, as nothing else is added.
    assert task.data[CITES].edge_index.tolist() == [[1, 0, 5, 2], [0, 1, 1, 2]]
    assert torch.equal(task.data["author"].x[5], data["paper"].x[5 : N - 2 : 6].mean(dim=0))
    assert "x" not in data["author"]
    line = describe(task)
    assert line == (
        "drawn: nodes 30 paper (4 features), 6 author (4 features); directed edges 28 author writes paper, 4 "
        "paper cites paper; 2 paper without in-edges; predicts y of paper: 3 classes (0 33.3 %, 1 33.3 %, 2 "
        "33.3 %), by accuracy; 20 splits, the first of 18 train, 6 val, 6 test; 1 duplicate edge dropped; "
        "features of author are means of neighbours; seeded splits, stratified by class"
    )


def test_training_does_not_see_test_labels():
    task = from_data(graph(value=torch.randn(N)), target="paper.value")
    split = task.split(0)
    visible = task.visible(split)
    assert visible.y[split.test].isnan().all()
    assert torch.equal(visible.y[split.train], task.y[split.train])
    assert (visible.target, list(visible.x), list(visible.edge_index)) == (
        "paper",
        ["paper", "author"],
        [WRITES, CITES],
    )
    assert (visible.edge_attr, task.kind, task.num_classes) == (None, "regression", 1)
    assert task.score(task.y.view(-1, 1), split, "test") == 0.0
    with pytest.raises(ValueError, match=r"shape \[N, num_classes\]=\[30, 1\] .got \[6, 1\]"):
        task.score(torch.zeros(6, 1), split, "test")


@pytest.mark.parametrize("target", ["y", "paper", "paper.y"])
def test_files_and_dictionaries(target, tmp_path):
    data = graph()
    expected = from_data(data, target=target)
    assert from_data(data.to_dict(), target=target).digest == expected.digest
    for number, content in enumerate((data, data.to_dict(), (data.to_dict(), None, HeteroData))):
        path = tmp_path / f"graph{number}.pt"
        torch.save(content, path)
        task = read_graph(path, label=target)
        assert (task.name, task.digest, task.target) == (path.stem, expected.digest, "paper")
    several, slices, _ = collate(HeteroData, [data, data], add_batch=False)
    torch.save((several.to_dict(), slices), path)
    with pytest.raises(ValueError, match=r"Expected one graph in .*got 2"):
        read_graph(path)


def test_what_comes_with_the_graph():
    part = torch.arange(N) // 10
    data = graph(train_mask=part == 0, val_mask=part == 1, test_mask=part == 2)
    data[CITES].edge_attr = torch.tensor([1, 2, 3, 4, 5])
    task = from_data(data, directed=False)
    assert [int(mask.sum()) for mask in (task.splits[0].train, task.splits[0].test)] == [10, 10]
    assert len(task.splits) == 1
    # Edges that differ in what is on them are several; both ways where two types are joined.
    assert ("paper", "rev_writes", "author") in task.data.edge_types
    assert task.data[CITES].edge_attr.dtype == torch.float32
    assert "1 per edge" in describe(task)


def test_the_digest_is_that_of_the_content():
    def changed(edge=None, **papers):
        data = graph(**papers)
        if edge is not None:
            data[edge].edge_index = data[edge].edge_index.flip(1)[:, 1:]
        return from_data(data).digest

    digests = [
        changed(),
        changed(y=torch.arange(N) % 2),
        changed(x=torch.zeros(N, 4)),
        changed(CITES),
        changed(WRITES),
        from_data(graph(), directed=False).digest,
    ]
    assert len(set(digests)) == len(digests)
    assert changed() == digests[0]


def without(data, name):
    del data[name]
    return data


def wrong(edge, value, name="edge_index"):
    data = graph()
    data[edge][name] = value
    return data


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (HeteroData(), {}, r"types of nodes in the given HeteroData .got none"),
        (without(graph(), "paper"), {}, r"type of nodes of .* with 'y' .got none.; .*target='author'"),
        (graph(), {"target": "auther"}, r"with 'auther' .got none.; name the type"),
        (graph(), {"target": "papr.y"}, r"before '.' in 'target' .got 'papr.y'.*did you mean 'paper'"),
        (graph(), {"target": "paper.year"}, r"an attribute 'year' in .*type 'paper' .got x, y"),
        (graph(), {"target": "author"}, r"an attribute 'y' in .*type 'author'"),
        (graph(y=torch.zeros(N, dtype=torch.long)), {}, r"two values in 'y' .*got '0' for all 30"),
        (graph(y=torch.zeros(4, dtype=torch.long)), {}, r"'y' for the 30 nodes .*got \[4\]"),
        (graph(x=torch.full((N, 4), float("nan"))), {}, r"finite features in 'graph, type 'paper'' .got nan"),
        (wrong(WRITES, torch.tensor([[0, 6], [0, 1]])), {}, r"type 'author' from 0 to 5 .*got 6 in edge 1"),
        (wrong(WRITES, torch.tensor([[0, 1], [0, 30]])), {}, r"type 'paper' from 0 to 29 .*got 30 in edge 1"),
        (wrong(CITES, torch.rand(2, 3)), {}, r"whole numbers of shape \[2, E\] .*cites"),
        (wrong(CITES, torch.ones(3), "edge_attr"), {}, r"one row of 'edge_attr' per edge of .*, 5 .got 3"),
        (without(graph(), WRITES), {}, r"type 'author', or of its neighbours .got none"),
        (graph(), {"structure": ["degree"]}, r"no 'structure' of a heterogeneous graph .got degree"),
        (graph(), {"graphs": "x"}, r"no 'graphs' of a heterogeneous graph .got 'x'"),
        (graph(), {"metric": "rmse"}, r"a metric of a multiclass task"),
        (
            graph(
                train_mask=torch.ones(N).bool(), val_mask=torch.ones(N).bool(), test_mask=torch.ones(N).bool()
            ),
            {},
            r"disjoint masks .*node 0 in 'train' and 'val'",
        ),
        (graph(x=torch.zeros(0, 4), y=torch.zeros(0)), {}, r"nodes of type 'paper' .got none"),
    ],
)
def test_what_does_not_fit_is_named(data, options, message):
    with pytest.raises((ValueError, IndexError), match=message) as caught:
        from_data(data, **options)
    assert "\n" not in str(caught.value)


def test_a_type_of_unknown_size():
    data = graph()
    del data["author"].num_nodes
    with (
        pytest.raises(ValueError, match=r"the number of nodes of type 'author' .*got none"),
        pytest.warns(UserWarning, match="num_nodes"),
    ):
        from_data(data)


def test_tasks_are_checked_when_they_are_built():
    task = from_data(graph())
    given = {
        name: getattr(task, name) for name in ("name", "data", "splits", "metric", "num_classes", "source")
    }
    with pytest.raises(ValueError, match=r"'target' as a type of nodes of 'graph' .got 'papr'.*'paper'"):
        HeteroTask(**given, preprocessing="", target="papr")
    data = graph()
    with pytest.raises(ValueError, match=r"features 'x' .*'graph, type 'author'' .got none"):
        HeteroTask(**{**given, "data": data}, preprocessing="", target="paper")


def test_weights_are_edge_features():
    data = graph()
    weight = torch.tensor([0.5, 1.0, 0.5, 2.0, 3.0])
    data[CITES].edge_weight = weight
    task = from_data(data)
    data[CITES].edge_attr = weight
    both = from_data(data)
    del data[CITES].edge_weight
    named = from_data(data)
    assert task.data[CITES].edge_attr.tolist() == [[3.0], [1.0], [0.5], [2.0]]
    assert task.digest == both.digest == named.digest
    assert "edge features edge_weight of paper cites paper" in describe(task)
    assert "edge_weight left out beside edge_attr of paper cites paper" in describe(both)
    assert "edge_weight" not in describe(named)


@pytest.mark.parametrize("name", ["edge_attr", "edge_weight"])
@pytest.mark.parametrize("value", [float("nan"), 1e300])
def test_bad_edge_features_are_named_by_the_number_of_the_edge(name, value):
    data = graph()
    attr = torch.ones(5, 1, dtype=torch.double)
    attr[3] = value
    data[CITES][name] = attr
    message = (
        r"of edges in \('paper', 'cites', 'paper'\) .*got (nan|inf) at edge 3, from node 2 to 2, column 0"
    )
    with pytest.raises(ValueError, match=message):
        from_data(data)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.uint32, torch.uint64])
def test_unsigned_numbers(dtype):
    data, expected = graph(), from_data(graph())
    data["paper"].y = data["paper"].y.to(dtype)
    for edge in (WRITES, CITES):
        data[edge].edge_index = data[edge].edge_index.to(dtype)
    assert from_data(data).digest == expected.digest
    assert data["paper"].y.dtype == data[CITES].edge_index.dtype == dtype  # what was given stays


def test_edges_in_transposed_adjacency_matrices():
    data = RemoveDuplicatedEdges()(graph())
    data[WRITES].edge_weight = torch.arange(1.0, N - 1)
    given = ToSparseTensor(attr="edge_weight", layout=torch.sparse_csr)(data.clone())
    assert all("edge_index" not in given[edge] for edge in given.edge_types)
    assert from_data(given).digest == from_data(data).digest
    assert all("adj_t" in given[edge] for edge in given.edge_types)
