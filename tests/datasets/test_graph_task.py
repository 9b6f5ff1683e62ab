import pytest
import torch
from made_tasks import make_graph_task
from torch_geometric.data import Batch, Data

from kgat.datasets import Graphs, GraphTask, Split

pytestmark = pytest.mark.quick


def one(nodes=2, **change):
    parts = {"x": torch.ones(nodes, 3), "edge_index": torch.tensor([[0, 1], [1, 0]]), "y": 1}
    return Data(**{**parts, **change})


def make(graphs, metric="accuracy", num_classes=2, **more):
    part = torch.arange(len(graphs)) % 3
    split = Split("thirds", part == 0, part == 1, part == 2)
    return GraphTask("toy", graphs, (split,), metric, num_classes, "here", "none", **more)


def test_batches_are_those_of_pyg():
    torch.manual_seed(0)
    graphs = []
    for nodes in (3, 1, 5, 2):
        edge_index = torch.randint(nodes, (2, 2 * nodes))
        edge_index = edge_index[:, (edge_index[1] * nodes + edge_index[0]).argsort(stable=True)]
        attr = torch.randn(2 * nodes, 2)
        graphs.append(Data(x=torch.randn(nodes, 3), edge_index=edge_index, edge_attr=attr))
    many = Graphs.of("toy", graphs)
    for index in ([2, 0], [1], [3, 1, 2, 0]):
        batch = many.batch_of(torch.tensor(index))
        expected = Batch.from_data_list([graphs[k] for k in index])
        taken = many.take(torch.tensor(index))
        for name in ("x", "edge_index", "edge_attr"):
            assert torch.equal(batch[name], expected[name])
            assert torch.equal(getattr(taken, name), expected[name])
        assert torch.equal(batch.batch, expected.batch)
        assert torch.equal(taken.node_ptr, expected.ptr)
        assert torch.equal(taken.batch_of(torch.arange(len(index))).edge_index, expected.edge_index)


def test_test_graphs_are_not_visible():
    task = make_graph_task()
    split = task.split(0)
    visible = task.visible(split)
    seen = split.train | split.val
    assert len(visible.graphs) == int(seen.sum()) < len(task.graphs)
    assert torch.equal(visible.y, task.y[seen])
    assert torch.equal(visible.train, split.train[seen])
    rows = torch.cat([task.graphs.batch_of(k.view(1)).x for k in seen.nonzero().view(-1)])
    assert torch.equal(visible.x, rows)


def test_figures_have_classes_of_nodes():
    task = make_graph_task()
    assert torch.equal(task.data.y, task.y[task.data.batch])
    assert make_graph_task(metric="rmse").data.y is None


@pytest.mark.parametrize(
    ("graphs", "message"),
    [
        ([], "at least one graph in 'toy'"),
        (
            [one(), one(0, edge_index=torch.empty(2, 0, dtype=torch.long))],
            r"nodes in graph 1 of 'toy' \(got none",
        ),
        ([one(), one(x=torch.ones(2, 4))], r"columns of 'x'.*\(got 3 in graph 0 and 4 in graph 1\)"),
        ([one(), one(edge_attr=torch.ones(2, 1))], r"columns of 'edge_attr'.*\(got None in graph 0 and 1"),
        ([one(), one(y=None)], r"label 'y' of each graph of 'toy' \(got none of graph 1\)"),
        ([one(), one(y=torch.ones(2))], "labels 'y' of one shape in 'toy'"),
        ([one(), one(x=torch.full((2, 3), torch.nan))], r"finite features in 'graph 1 of 'toy''"),
        ([one(), one(), one(y=-1)], r"labelled graphs in 'test'.*got graph 2 without label"),
    ],
)
def test_bad_graphs_are_named(graphs, message):
    with pytest.raises(ValueError, match=message):
        make(graphs)


def test_bad_edges_and_classes_are_named():
    with pytest.raises(IndexError, match=r"'edge_index' of 'graph 1 of 'toy'' in \[0, 1\] \(got 2 in row 0"):
        make([one(), one(edge_index=torch.tensor([[2], [0]])), one()])
    with pytest.raises(IndexError, match=r"got 2 at graph 1"):
        make([one(), one(y=2), one()])


def test_scores_take_a_row_per_graph():
    task = make([one(y=k % 2) for k in range(6)])
    output = torch.nn.functional.one_hot(task.y, 2).float()
    output[5] = output[4]
    parts = [task.score(output, task.split(0), part) for part in ("train", "val", "test")]
    assert parts == [1.0, 1.0, 0.5]
    with pytest.raises(ValueError, match=r"\[G, num_classes\]=\[6, 2\] \(got \[5, 2\]\)"):
        task.score(output[:5], task.split(0), "test")


def test_features_of_edges_are_finite():
    attr = torch.tensor([1.0, float("nan")])
    graphs = [one(edge_attr=torch.ones(2)), one(edge_attr=attr), one(edge_attr=torch.ones(2))]
    message = r"of edges in 'graph 1 of 'toy'' \(got nan at edge 1, from node 1 to 0\)"
    with pytest.raises(ValueError, match=message):
        make(graphs)


def test_the_digest_is_that_of_the_content():
    def task(**change):
        edge_index = torch.tensor([[0, 1], [1, 0]])
        values = {"x": 0.0, "y": 0, "edge_index": edge_index, "metric": "accuracy"} | change
        graphs = [
            Data(torch.full((2, 4), k + values["x"]), values["edge_index"], y=(k + values["y"]) % 2)
            for k in range(6)
        ]
        part = torch.arange(6) // 2
        split = Split("thirds", part == 0, part == 1, part == 2)
        return GraphTask("mine", graphs, (split,), values["metric"], 2, "made here", "none")

    tasks = [
        task(),
        task(x=1.0),
        task(y=1),
        task(edge_index=torch.tensor([[0], [1]])),
        task(metric="f1_macro"),
    ]
    assert len({one.digest for one in tasks} - {None}) == len(tasks)
    assert task().digest == tasks[0].digest
