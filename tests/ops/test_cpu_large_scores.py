r"""Weights in backward are those of forward, however large scores are: one sum in one order, and a
log-sum-exp whose small part is not lost beside the large one."""

import pytest
import torch
from test_cpu import RECIPES, H, operands

from kgat import KernelGATConv
from kgat.functional import edge_attention
from kgat.kernels import resolve
from kgat.ops.cpu import launch as cpu
from kgat.ops.graph.adjacency import Adjacency

SIZES = (1, 5, 24, 100, 16, 128)  # of which loops are compiled for the last two, and for any other once


def weights_of(recipe, sorted_edges, x):
    r"""Per head the weights that forward averages with, and those whose gradients backward hands on."""
    out, lse = cpu.attention(recipe, sorted_edges, x)
    rows = out.size(0)
    backward = torch.stack(
        [
            cpu.attention_backward(recipe, sorted_edges, x, out, lse, slope.contiguous())["value"][..., 0]
            for slope in torch.eye(rows, dtype=out.dtype)[:, :, None, None].expand(-1, -1, H, out.size(2))
        ]
    )
    return out, backward.transpose(1, 2).contiguous()


# Some also with the oldest and newest LLVM, which decides on the order of sums.
SOME = (RECIPES[2], RECIPES[-1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "recipe",
    [pytest.param(each, marks=[pytest.mark.versions] * (each in SOME)) for each in RECIPES],
    ids=str,
)
def test_weights_in_backward_are_those_of_forward(recipe, dtype):
    torch.manual_seed(0)
    nodes = 12
    # Rows and columns of all lengths: edges are worked on in fours, and what is left one by one.
    edge_index = (torch.rand(nodes, nodes) < torch.linspace(0, 1, nodes)).nonzero().T.contiguous()
    sorted_edges = Adjacency.of(edge_index, 1, nodes, nodes)
    for features in SIZES if recipe.pair is not None else (24,):
        for extras in (False, True) if features == 24 else (False,):
            x = operands(recipe, nodes, nodes, edge_index.size(1), dtype, extras, features, nodes)
            x = x._replace(value=torch.eye(nodes, dtype=dtype)[:, None].expand(-1, H, -1).contiguous())
            x = x._replace(edge_weight=None)
            size = 1e4 if dtype is torch.float32 else 1e8
            large = {
                n: size * getattr(x, n) for n in ("query", "key", "query_bias") if getattr(x, n) is not None
            }
            forward, backward = weights_of(recipe, sorted_edges, x._replace(**large))
            torch.testing.assert_close(backward, forward, rtol=1e-5, atol=1e-6)


@pytest.mark.versions
@pytest.mark.parametrize(
    "name", ["dot", "rbf", "additive_v2", "intersection", "laplace", "rbf*l1", "additive"]
)
@pytest.mark.parametrize("scale", [1e4, 1e6, 1e8])
def test_equal_scores_share_a_row_at_any_scale(name, scale):
    # All rows alike: each edge has its share of one, in forward and in backward.
    x = (scale * torch.linspace(1, 2, 24)).expand(30, 1, 24).contiguous()
    edge_index = torch.cartesian_prod(torch.arange(30), torch.arange(7)).T.contiguous()
    value = torch.randn(30, 1, 4, requires_grad=True)
    kernel = resolve(name, channels=24)
    out = edge_attention(kernel.lift(x, x), value, edge_index, backend="cpu")
    (grad,) = torch.autograd.grad(out.sum(), value)
    torch.testing.assert_close(grad, torch.full_like(grad, 7 / 30), rtol=1e-5, atol=0)


@pytest.mark.parametrize("kernel", ["additive_v2", "dot", "additive"])
def test_a_column_of_large_numbers_does_not_break_gradients(kernel):
    torch.manual_seed(0)
    x = torch.randn(200, 6)
    x[:, 0] = 1.7e9 + 1e7 * torch.randn(200)  # seconds since 1970
    conv = KernelGATConv(6, 8, 2, kernel=kernel)
    edge_index = torch.randint(0, 200, (2, 2000))
    for backend in ("cpu", "eager"):
        conv.backend = backend
        conv.zero_grad()
        conv(x, edge_index).mean().backward()
        assert all(p.grad.isfinite().all() for p in conv.parameters() if p.grad is not None)
