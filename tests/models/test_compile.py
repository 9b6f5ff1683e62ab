"""Models under ``torch.compile`` with its default backend, and how often it has to break off."""

import shutil

import pytest
import torch
from torch_geometric.nn import GAT, GATConv

from kgat import KernelGAT, KernelGATConv
from kgat.nn import KernelAttention

compiles = pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler: no g++")


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    torch.manual_seed(0)


def graph(nodes, edges):
    edge_index = torch.randint(nodes, (2, edges))
    edge_index[:, :3] = torch.tensor([0, 0, 1])  # self-loops, one of them twice
    return torch.randn(nodes, 6, requires_grad=True), edge_index


@compiles
@pytest.mark.parametrize("kernel", ["additive", "rbf*laplace"])
def test_two_layers_with_self_loops_in_inductor(kernel):
    model = KernelGAT(6, 8, 2, 3, heads=2, kernel=kernel, dropout=0.4).eval()
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    for nodes, edges in ((7, 20), (9, 31)):
        x, edge_index = graph(nodes, edges)
        found, expected = compiled(x, edge_index), model(x, edge_index)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        leaves = [x, *model.parameters()]
        grads, wanted = (torch.autograd.grad(out.square().sum(), leaves) for out in (found, expected))
        torch.testing.assert_close(grads, wanted, rtol=1e-3, atol=1e-4)


@compiles
def test_training_with_dropout_in_inductor():
    model = KernelGAT(6, 8, 2, 3, heads=2, kernel="rbf", dropout=0.4)
    compiled = torch.compile(model, fullgraph=True)
    x, edge_index = graph(7, 20)
    first, second = compiled(x, edge_index), compiled(x, edge_index)
    assert not torch.equal(first, second)
    first.square().sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.parameters())


@compiles
@pytest.mark.parametrize("kernel", ["rbf", "laplace"])
def test_attention_in_inductor(kernel):
    layer = KernelAttention(8, 2, kernel=kernel)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True)
    for tokens in (5, 7):
        x = torch.randn(2, tokens, 8, requires_grad=True)
        found, expected = (f(x, x, x, need_weights=False)[0] for f in (compiled, layer))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        grads, wanted = (torch.autograd.grad(out.square().sum(), x) for out in (found, expected))
        torch.testing.assert_close(grads, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("fill_value", ["mean", "max", 0.5])
@pytest.mark.parametrize("kernel", ["additive", "rbf"])
@pytest.mark.parametrize("weighted", [False, True])
def test_self_loops_that_are_there_count_once(fill_value, kernel, weighted):
    layer = KernelGATConv(6, 4, heads=3, kernel=kernel, edge_dim=2, fill_value=fill_value)
    x, edge_index = graph(8, 20)
    rest = {"edge_attr": torch.randn(20, 2)}
    if weighted:
        rest["edge_weight"] = torch.rand(20)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    found, expected = (f(x, edge_index, **rest) for f in (compiled, layer))
    torch.testing.assert_close(found, expected)
    leaves = [x, *layer.parameters()]
    grads, wanted = (torch.autograd.grad(out.square().sum(), leaves) for out in (found, expected))
    torch.testing.assert_close(grads, wanted, rtol=1e-4, atol=1e-5)


def test_no_more_graph_breaks_than_stock():
    x, edge_index = graph(7, 20)
    for ours, stock in (
        (KernelGATConv(6, 4, heads=2), GATConv(6, 4, heads=2)),
        (KernelGAT(6, 8, 2, 3, heads=2), GAT(6, 8, 2, 3, heads=2)),
    ):
        breaks = []
        for model in (ours, stock):
            torch._dynamo.reset()
            breaks.append(torch._dynamo.explain(model)(x, edge_index).graph_break_count)
        assert breaks[0] <= breaks[1]
