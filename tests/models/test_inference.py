import pytest
import torch
from torch_geometric.data import Data

from kgat import KernelGAT
from kgat.experiments.stock import StockGAT, StockGATv2
from kgat.loader import NeighborLoader
from kgat.models import StandardizedOutput
from kgat.models.inference import _slices, needs_all

pytestmark = pytest.mark.quick


def graph(nodes=40, edges=150):
    generator = torch.Generator().manual_seed(0)
    edge_index = torch.randint(nodes - 1, (2, edges), generator=generator)  # with loops, and a node alone
    edge_index[1, : edges // 3] = 3  # which has more in-edges than a slice
    return torch.randn(nodes, 6, generator=generator, dtype=torch.double), edge_index


def built(cls, **kwargs):
    torch.manual_seed(1)
    model = cls(6, 8, 3, 5, heads=2, out_heads=1, dropout=0.5, input_dropout=0.5, **kwargs).double()
    model(*graph(), **{"edge_attr": torch.ones(150, 2).double()} if "edge_dim" in kwargs else {})
    return model.eval()


STACKS = [
    (StockGAT, {}),
    (StockGATv2, {}),
    *[(KernelGAT, {"kernel": name}) for name in ("rbf*lp", "additive")],
]
STACKS += [(KernelGAT, {"kernel": "dot_product", "projections": "separate", "start": "unit"})]
STACKS += [(KernelGAT, {"kernel": "implicit"}), (KernelGAT, {"kernel": "implicit[data_dependent=true]"})]
OPTIONS = [
    {},
    {"residual": True, "norm": "batch_norm", "edge_dim": 2},
    {"jk": "cat", "norm": "layer_norm", "add_self_loops": False},
    {"jk": "lstm", "norm": "graph_norm", "residual": True, "fill_value": "add", "edge_dim": 2},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("cls", "kernel"), STACKS)
def test_equals_the_full_forward_pass(cls, kernel, options):
    model = built(cls, **kernel, **options)
    x, edge_index = graph()
    more = {"edge_attr": torch.randn(150, 2).double()} if "edge_dim" in options else {}
    expected = model(x, edge_index, **more)
    for bounds in ({"rows": 7}, {"edges": 11}, {}):
        out = model.inference(x, edge_index, **more, **bounds)
        torch.testing.assert_close(out, expected.detach(), rtol=1e-11, atol=1e-11)


def test_edges_by_target_are_taken_as_they_are(monkeypatch):
    r"""They may lie on disk."""
    model = built(KernelGAT, kernel="rbf", edge_dim=2)
    x, edge_index = graph()
    edge_index = edge_index[:, edge_index[1].argsort(stable=True)]
    attr = torch.randn(150, 2).double()
    monkeypatch.setattr("kgat.models.inference._order", None)
    out = model.inference(x, edge_index, attr, rows=7)
    torch.testing.assert_close(out, model(x, edge_index, edge_attr=attr).detach(), rtol=1e-11, atol=1e-11)


def test_takes_weights_positions_graphs_and_sparse_features():
    model = built(KernelGAT, kernel="rbf", norm="graph_norm")
    x, edge_index = graph()
    batch = (torch.arange(40) >= 20).long()
    edge_index = edge_index[:, batch[edge_index[0]] == batch[edge_index[1]]]
    more = {"edge_weight": torch.rand(edge_index.size(1)).double(), "batch": batch}
    x = x * (x > 0)
    expected = model(x, edge_index, **more)
    torch.testing.assert_close(model.inference(x, edge_index, **more, rows=6), expected)
    torch.testing.assert_close(model.inference(x.to_sparse_csr(), edge_index, **more, rows=6), expected)
    of_positions = KernelGAT(6, 8, 2, 5, position_dim=3).double().eval()
    position = torch.randn(40, 3).double()
    expected = of_positions(x, edge_index, position=position)
    torch.testing.assert_close(of_positions.inference(x, edge_index, position=position, rows=6), expected)


def test_other_adjacencies():
    model = built(KernelGAT, kernel="rbf")
    x, edge_index = graph()
    edge_index = edge_index.unique(dim=1)
    adjacency = torch.sparse_coo_tensor(
        edge_index.flip(0), torch.ones(edge_index.size(1)), (40, 40)
    ).to_sparse_csr()
    torch.testing.assert_close(model.inference(x, adjacency, rows=7), model(x, edge_index))


def test_slices_keep_to_both_bounds():
    ends = torch.tensor([0, 2, 2, 9, 10, 11, 12, 13])
    assert list(_slices(ends, 3, 4)) == [(0, 2), (2, 3), (3, 6), (6, 7)]
    assert list(_slices(torch.zeros(1), 3, 4)) == []


@pytest.mark.parametrize(
    ("kernel", "whole"),
    [
        ("rbf|additive", False),
        ("(rbf+additive)*l2|laplace", False),
        ("rbf|implicit[data_dependent=true]", True),
    ],
)
def test_kernels_of_kernels_need_all_nodes_where_a_part_does(kernel, whole):
    model = KernelGAT(6, 8, 1, heads=2, kernel=kernel).double().eval()
    assert needs_all(model.convs[0]) is whole
    x, edge_index = graph()
    out = model.inference(x, edge_index, rows=7)
    torch.testing.assert_close(out, model(x, edge_index).detach(), rtol=1e-11, atol=1e-11)


def test_nothing_to_do():
    model = built(KernelGAT, kernel="rbf")
    empty = torch.empty(2, 0, dtype=torch.long)
    x = graph()[0]
    torch.testing.assert_close(model.inference(x, empty, rows=7), model(x, empty))
    assert model.inference(x[:0], empty).shape == (0, 5)


def test_loaders_of_pyg_still_do():
    model = built(KernelGAT, kernel="rbf")
    x, edge_index = graph()
    loader = NeighborLoader(Data(x, edge_index), [-1], batch_size=9)
    for out in (model.inference(loader), model.inference(loader=loader, device="cpu", cache=True)):
        torch.testing.assert_close(out, model(x, edge_index))
    torch.testing.assert_close(
        model.inference(loader, torch.device("cpu"), "cpu", False), model(x, edge_index)
    )


def test_values_keep_their_unit():
    model = StandardizedOutput(built(KernelGAT, kernel="rbf"), 5).double()
    model.standardize(torch.randn(9, 5) * 3 + 7)
    x, edge_index = graph()
    torch.testing.assert_close(model.inference(x, edge_index, rows=7), model(x, edge_index))


def test_what_is_refused():
    model, (x, edge_index) = built(KernelGAT, kernel="rbf"), graph()
    with pytest.raises(ValueError, match=r"'rows' of at least 1 .got 0."):
        model.inference(x, edge_index, rows=0)
    with pytest.raises(TypeError, match=r"got also .'progress_bar'"):
        model.inference(x, edge_index, progress_bar=True)
    with pytest.raises(TypeError, match="no 'position'"):
        built(StockGAT).inference(x, edge_index, position=x)
    with pytest.raises(ValueError, match="in evaluation mode"):
        model.train().inference(x, edge_index)


@pytest.mark.parametrize("bad", [6, -1, 3_000_000, -300_000])
@pytest.mark.parametrize("row", [0, 1])
def test_indices_of_no_node_are_refused_by_name(bad, row):
    model = KernelGAT(4, 8, 2, 3, heads=2, kernel="rbf").eval()
    edge_index = torch.tensor([[0, 1, 2], [1, 2, 3]])
    edge_index[row, 1] = bad
    with pytest.raises(IndexError, match=rf"in \[0, 5\] for 6 .* nodes \(got {bad}\)"):
        model.inference(torch.randn(6, 4), edge_index)
