"""Gradients for many cotangents at once: jacobian(vectorize=True), is_grads_batched, torch.func and vmap."""

import pytest
import torch
from torch.autograd import gradcheck
from torch.autograd.functional import hessian, jacobian
from torch_geometric.utils import total_influence

from kgat import KernelGAT, kernels
from kgat.functional import edge_attention
from kgat.kernels import RBF, Additive
from kgat.nn import FourierAttention, KernelAttention, PrimalAttention

H, D = 2, 3
NAMES = [name for name in kernels.__all__ if name != "Kernel"]


def built(name, channels=D, heads=H):
    kernel = getattr(kernels, name)
    if kernel in (kernels.Product, kernels.Sum):
        kernel = kernel(RBF(channels, heads), Additive(channels, heads))
    elif kernel is kernels.PerHead:
        kernel = kernel(RBF(channels, 1), Additive(channels, heads - 1))
    else:
        kernel = kernel(channels, heads)
    return kernel.double().eval()


def on_edges(name, backend):
    torch.manual_seed(0)
    kernel = built(name)
    x = torch.randn(4, H, D, dtype=torch.float64)
    if kernel(x, x).signed:
        pytest.skip("it has no scores: it can be negative")
    edges = torch.randint(4, (2, 9))
    return (lambda x: edge_attention(kernel(x, x), x, edges, backend=backend)), x


def by_rows(function, x):
    """The Jacobian, one row after another."""
    leaf = x.clone().requires_grad_()
    out = function(leaf)
    rows = [torch.autograd.grad(y, leaf, retain_graph=True)[0] for y in out.flatten()]
    return torch.stack(rows).view(*out.shape, *x.shape)


def check(function, x, transformed=True):
    expected = by_rows(function, x)
    torch.testing.assert_close(jacobian(function, x, vectorize=True), expected)
    leaf = x.clone().requires_grad_()
    out = function(leaf)
    slopes = torch.eye(out.numel(), dtype=x.dtype).view(-1, *out.shape)
    (batched,) = torch.autograd.grad(out, leaf, slopes, is_grads_batched=True, retain_graph=True)
    torch.testing.assert_close(batched.view_as(expected), expected)
    mapped = torch.func.vmap(lambda s: torch.autograd.grad(out, leaf, s, retain_graph=True)[0])(slopes)
    torch.testing.assert_close(mapped.view_as(expected), expected)
    if transformed:  # the whole call inside of a transform, where a fused route that is named says no
        torch.testing.assert_close(torch.func.jacrev(function)(x), expected)


@pytest.mark.parametrize("backend", ["cpu", "eager", "reference"])
@pytest.mark.parametrize("name", NAMES)
def test_every_kernel_on_edges(name, backend):
    function, x = on_edges(name, backend if backend != "cpu" else None)
    check(function, x)


@pytest.mark.parametrize("backend", [None, "eager"])
@pytest.mark.parametrize("name", ["Additive", "RBF", "Laplace", "Sum", "Spectral", "GatedAdditive"])
def test_second_derivatives(name, backend):
    function, x = on_edges(name, backend)
    total = lambda x: function(x).square().sum()  # noqa: E731
    torch.testing.assert_close(hessian(total, x, vectorize=True), hessian(total, x))
    gradcheck(function, x.clone().requires_grad_(), check_batched_grad=True)
    torch.testing.assert_close(torch.func.jacfwd(function)(x), by_rows(function, x))


ROUTES = [
    ("laplace", "auto"),
    ("laplace", "edges"),
    ("laplace", "dense"),
    ("polynomial", "linear"),
    ("polynomial", "dense"),
    ("polynomial", "edges"),
    ("rbf", "sdpa"),
    ("rbf", "auto"),
    ("dot_product", "sdpa"),
    ("rbf*laplace", "edges"),
    ("rbf+dot_product", "edges"),
    ("elu_plus_one", "linear"),
]


@pytest.mark.parametrize(("kernel", "method"), ROUTES)
def test_attention_on_every_route(kernel, method):
    torch.manual_seed(0)
    layer = KernelAttention(4, 2, kernel=kernel, method=method).double().eval()
    x = torch.randn(1, 3, 4, dtype=torch.float64)
    # Loops take no part in transforms of torch.func, nor can they say there whether a square may be expanded.
    refused = method == "edges" or (kernel, method) == ("rbf", "sdpa")
    check(lambda x: layer(x, x, x, need_weights=False)[0], x, transformed=not refused)


@pytest.mark.parametrize("layer", [FourierAttention, PrimalAttention])
def test_other_attention(layer):
    torch.manual_seed(0)
    layer = layer(4, 2).double().eval()
    check(lambda x: layer(x, x, x, need_weights=False)[0], torch.randn(1, 3, 4, dtype=torch.float64))


@pytest.mark.parametrize("backend", [None, "eager"])
def test_total_influence_of_a_model(backend):
    torch.manual_seed(0)
    model = KernelGAT(3, 4, 2, 3, heads=2, kernel="rbf", backend=backend).eval()
    x, edges = torch.randn(5, 3), torch.randint(5, (2, 12))
    from torch_geometric.data import Data

    influence, breadth = total_influence(model, Data(x, edges), max_hops=2, num_samples=2)
    assert influence.isfinite().all()
    assert breadth > 0
