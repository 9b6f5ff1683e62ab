r"""Kernels whose scores are drawn: what is computed twice is drawn once."""

import pytest
import torch
import torch.nn.functional as F

from kgat.kernels import RBF, Kernel, Magnitude
from kgat.nn import KernelGATConv
from kgat.ops import fused

pytestmark = pytest.mark.quick

NODES, EDGES = 30, 400


class Noisy(Kernel):
    def score(self, query, key):
        return -F.dropout((query - key).abs(), 0.3, self.training).sum(dim=-1)


KERNELS = {
    "noisy": Noisy,
    "magnitude": lambda channels, heads: Magnitude(channels, heads, p=1.5, dropout=0.5),
    "product": lambda channels, heads: RBF(channels, heads) * Magnitude(channels, heads, dropout=0.5),
    "sum": lambda channels, heads: RBF(channels, heads) + Noisy(channels, heads),
}


@pytest.fixture
def graph():
    generator = torch.Generator().manual_seed(0)
    edge_index = torch.randint(NODES, (2, EDGES), generator=generator)
    return torch.randn(NODES, 5, generator=generator, dtype=torch.double), edge_index


@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
@pytest.mark.parametrize("backend", [None, "eager", "reference"])
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("pieces", [True, False])
def test_weights_belong_to_the_output(name, backend, flow, pieces, graph, monkeypatch):
    if pieces:
        monkeypatch.setattr(fused, "CHUNK_BYTES", 1 << 12)
    x, edge_index = graph
    conv = KernelGATConv(
        5, 4, heads=2, kernel=KERNELS[name], dropout=0.4, flow=flow, backend=backend
    ).double()
    weight = torch.rand(EDGES, dtype=torch.double)
    for mode in ("kernel", "alpha"):
        conv.weight_mode = mode
        out, (edges, alpha) = conv(x, edge_index, edge_weight=weight, return_attention_weights=True)
        target = edges[1 if flow == "source_to_target" else 0]
        source = edges[0 if flow == "source_to_target" else 1]
        if mode == "alpha":  # the weights that a layer returns are those before
            kept = edge_index[:, edge_index[0] != edge_index[1]]
            rest = weight[edge_index[0] != edge_index[1]]
            assert torch.equal(edges[:, : rest.numel()], kept)
            alpha = alpha * torch.cat([rest, rest.new_ones(NODES)]).unsqueeze(-1)
        value = conv.project(x)[2]
        expected = torch.zeros(NODES, 2, 4, dtype=torch.double).index_add(
            0, target, alpha.unsqueeze(-1) * value[source]
        )
        torch.testing.assert_close(out, expected.flatten(1) + conv.bias)


@pytest.mark.parametrize("name", KERNELS)
def test_gradients_are_those_of_what_was_drawn(name, graph, monkeypatch):
    # On a graph of many edges, whose scores are computed again in backward.
    monkeypatch.setattr(fused, "CHUNK_BYTES", 1 << 12)
    x, edge_index = graph
    conv = KernelGATConv(5, 4, heads=2, kernel=KERNELS[name]).double()

    def total(x):
        torch.manual_seed(7)
        return conv(x, edge_index).square().sum()

    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(total(x), x)
    direction, step = torch.randn_like(x), 1e-6
    # Both with gradients: pieces draw in the same order then.
    difference = (total(x + step * direction) - total(x - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), difference, rtol=1e-5, atol=1e-6)
