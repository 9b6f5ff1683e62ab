"""Checkpoints and hooks on saved tensors: the gradients of a plain call, with dropout too."""

from functools import partial

import pytest
import torch
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from kgat import KernelGATConv


def hooked(hooks, layer, *args):
    with hooks():
        return layer(*args)


def copied():
    return saved_tensors_hooks(lambda x: x.detach().clone(), lambda x: x.clone())


WAYS = {
    "reentrant": lambda layer, *args: checkpoint(layer, *args, use_reentrant=True),
    "not reentrant": lambda layer, *args: checkpoint(layer, *args, use_reentrant=False),
    "nested": lambda layer, *args: checkpoint(
        partial(checkpoint, layer, use_reentrant=False), *args, use_reentrant=False
    ),
    "on the CPU": partial(hooked, save_on_cpu),
    "copied": partial(hooked, copied),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("backend", [None, "eager"])
@pytest.mark.parametrize(
    "kernel", ["additive", "rbf*laplace", "rbf+dot_product", "gated_additive", "positions"]
)
def test_gradients_are_those_of_a_plain_call(kernel, backend, way):
    torch.manual_seed(0)
    places = {"position_dim": 2} if kernel == "positions" else {}
    kernel = "rbf" if kernel == "positions" else kernel
    layer = KernelGATConv(6, 4, heads=3, dropout=0.4, kernel=kernel, backend=backend, **places)
    x, edges, position = torch.randn(9, 6), torch.randint(9, (2, 40)), torch.randn(9, 2)

    def forward(x):
        return layer(x, edges, position=position if places else None)

    results = []
    for run in (WAYS[way], lambda f, *args: f(*args)):
        torch.manual_seed(1)
        leaf = x.clone().requires_grad_()
        out = run(forward, leaf)
        results.append(
            [out, *torch.autograd.grad(out.square().sum(), [leaf, *layer.parameters()])]
            if way != "reentrant"
            else [out, *backward(out, leaf, layer)]
        )
    torch.testing.assert_close(*results)


def backward(out, leaf, layer):
    # A reentrant checkpoint has no part in torch.autograd.grad.
    layer.zero_grad()
    out.square().sum().backward()
    return [leaf.grad, *(p.grad.clone() for p in layer.parameters())]
