import copy

import pytest
import torch
from torch_geometric.nn import GCNConv

from kgat import KernelGATConv
from kgat.nn import GlobalAttention, PrimalAttention

WIDTH = 12


def primal(**kwargs):
    return PrimalAttention(WIDTH, 3, rank=2, **kwargs)


def multihead(**kwargs):
    return torch.nn.MultiheadAttention(WIDTH, 3, **{"batch_first": True, **kwargs})


class Plain(torch.nn.Module):
    r"""Softmax attention that knows nothing of items without tokens: their gradients are NaN."""

    def __init__(self):
        super().__init__()
        self.lin = torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, query, key, value, key_padding_mask=None, need_weights=False):
        score = self.lin(query) @ key.transpose(-1, -2)
        if key_padding_mask is not None:
            score = score.masked_fill(key_padding_mask.unsqueeze(-2), -torch.inf)
        return score.softmax(dim=-1) @ self.lin(value), None


def built(attention, local=None, seed=0):
    torch.manual_seed(seed)
    local = KernelGATConv(WIDTH, 4, heads=3) if local is None else local
    return GlobalAttention(local, attention()).double().eval()


def graphs(sizes, seed=0):
    # Nodes, edges within each graph, and the graph of each node.
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(sum(sizes), WIDTH, dtype=torch.float64, generator=generator)
    start, edges = 0, []
    for size in sizes:
        if size:
            edges.append(start + torch.randint(0, size, (2, 3 * size), generator=generator))
        start += size
    return x, torch.cat(edges, dim=1), torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


@pytest.mark.parametrize("attention", [primal, multihead, Plain])
@pytest.mark.parametrize("sizes", [[5], [3, 0, 4, 1], [0, 0, 2], [2, 6, 0]], ids=str)
def test_graphs_of_a_batch_are_as_alone(attention, sizes):
    layer = built(attention)
    x, edges, batch = graphs(sizes)
    x.requires_grad_()
    losses = []
    out = layer(x, edges, batch=batch, losses=losses)
    expected, alone, start = [], [], 0
    near = layer.local(x, edges)
    for size in sizes:
        if size:
            h = x[start : start + size][None]
            if attention is primal:
                far = layer.attention(h, losses=alone)[0][0]
            else:
                far = layer.attention(h, h, h)[0][0]
            expected.append(near[start : start + size] + far)
        start += size
    expected = torch.cat(expected)
    torch.testing.assert_close(out, expected)
    slope = torch.randn_like(out)
    parameters = [x, *layer.parameters()]
    total, wanted = (out * slope).sum(), (expected * slope).sum()
    if attention is primal:
        torch.testing.assert_close(losses, [torch.stack(alone).mean()])
        total, wanted = total + losses[0], wanted + torch.stack(alone).mean()
    else:
        assert losses == []
    found, reference = (torch.autograd.grad(y, parameters, allow_unused=True) for y in (total, wanted))
    torch.testing.assert_close(found, reference)
    assert found[0].isfinite().all()
    assert all(grad is None or grad.isfinite().all() for grad in found[1:])


@pytest.mark.parametrize("attention", [primal, multihead])
def test_order_of_nodes_and_names_of_graphs_do_not_matter(attention):
    # Rows of PrimalAttention go by the order of the nodes within their graph, which stays.
    layer = built(attention)
    x, edges, batch = graphs([3, 4])
    out = layer(x, edges, batch=batch)
    order = torch.tensor([3, 0, 4, 1, 5, 6, 2])
    place = order.argsort()
    torch.testing.assert_close(layer(x[order], place[edges], batch=5 * batch[order]), out[order])


@pytest.mark.parametrize("attention", [primal, multihead])
def test_one_graph_and_none(attention):
    layer = built(attention)
    x, edges, _ = graphs([5])
    torch.testing.assert_close(layer(x, edges), layer(x, edges, batch=torch.zeros(5).long()))
    nothing = torch.empty(2, 0).long()
    assert layer(x[:0], nothing).shape == (0, WIDTH)
    assert layer(x[:0], nothing, batch=torch.empty(0).long()).shape == (0, WIDTH)


def test_attention_reaches_where_edges_do_not():
    layer = built(multihead)
    x, edges = graphs([4])[0].requires_grad_(), torch.empty(2, 0).long()
    (grad,) = torch.autograd.grad(layer(x, edges, batch=torch.tensor([0, 0, 0, 1]))[0].sum(), x)
    assert grad[:3].any(dim=1).all()
    assert not grad[3].any()


def test_what_local_takes_is_passed_on():
    torch.manual_seed(0)
    x, edges, batch = graphs([3, 2])
    options = {"kernel": "implicit_spectral", "kernel_kwargs": {"data_dependent": True}}
    layer = built(primal, KernelGATConv(WIDTH, 4, heads=3, edge_dim=2, **options))
    attr, losses, other = torch.randn(edges.size(1), 2).double(), [], []
    out = layer(x, edges, attr, batch, losses)
    near = layer.local(x, edges, attr, batch=batch, losses=other)
    assert len(losses) == 2
    torch.testing.assert_close(losses[:1], other)
    far = torch.cat([layer.attention(x[:3])[0], layer.attention(x[3:])[0]])
    torch.testing.assert_close(out, near + far)
    stock = built(primal, GCNConv(WIDTH, WIDTH))
    torch.testing.assert_close(
        stock(x, edges, batch=batch, losses=[]), stock.local(x, edges) + far_of(stock, x)
    )


def far_of(layer, x):
    return torch.cat([layer.attention(x[:3])[0], layer.attention(x[3:])[0]])


@pytest.mark.parametrize("attention", [primal, multihead])
def test_reset_and_state(attention):
    layer, other = built(attention), built(attention, seed=1)
    x, edges, batch = graphs([3, 2])
    other.load_state_dict(copy.deepcopy(layer.state_dict()))
    assert torch.equal(layer(x, edges, batch=batch), other(x, edges, batch=batch))
    before = [p.clone() for p in layer.parameters()]
    layer.reset_parameters()
    drawn = [not torch.equal(a, b) for a, b in zip(before, layer.parameters(), strict=True) if b.std() > 0]
    assert all(drawn)


def test_compiles_whole_for_one_graph():
    torch._dynamo.reset()
    layer = built(primal, GCNConv(WIDTH, WIDTH))
    x, edges, _ = graphs([5])

    def function(x, edges):
        losses = []
        return layer(x, edges, losses=losses), losses[0]

    found = torch.compile(function, fullgraph=True, backend="aot_eager")(x, edges)
    torch.testing.assert_close(found, function(x, edges))


def test_channels_and_layout_have_to_fit():
    x, edges, _ = graphs([5])
    with pytest.raises(ValueError, match=r"batch_first=True \(got False\)"):
        GlobalAttention(GCNConv(WIDTH, WIDTH), multihead(batch_first=False))
    with pytest.raises(
        ValueError, match=r"outputs of equal shape .*\[5, 8\] and \[5, 12\].*12 output channels"
    ):
        built(primal, GCNConv(WIDTH, 8))(x, edges)
    with pytest.raises(
        ValueError, match=r"shape \[N, 12\] as the attention has embed_dim=12 \(got \[5, 8\]\)"
    ):
        built(primal)(x[:, :8], edges)


def test_every_node_has_a_graph():
    layer = GlobalAttention(KernelGATConv(12, 4, heads=3), PrimalAttention(12, 3, rank=2))
    with pytest.raises(ValueError, match=r"'batch' of shape \[N=5\] \(got \[4\]\); give"):
        layer(torch.randn(5, 12), torch.tensor([[0], [1]]), batch=torch.zeros(4, dtype=torch.long))
