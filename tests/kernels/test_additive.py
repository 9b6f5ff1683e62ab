import torch
import torch.nn.functional as F
from torch_geometric.nn import GATConv, GATv2Conv, SuperGATConv
from torch_geometric.utils import softmax

from kgat.kernels import Additive, AdditiveV2, GatedAdditive

H, D = 3, 5
EDGES = torch.tensor([[0, 1, 2, 3, 1, 0, 4], [1, 0, 1, 2, 2, 2, 4]])


def heads(n: int) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(n, H, D, dtype=torch.float64)


# IKA T2: LeakyReLU(z) = c (-|a - x|^2 / 2 + |a|^2 / 2 + |x|^2 / 2), x = [q; k].
def test_additive_is_a_prototype_rbf_times_magnitudes():
    q, k = heads(4), heads(6)
    kernel = Additive(D, H).double()
    score = kernel(q, k).dense()
    for i in range(4):
        for j in range(6):
            a = torch.cat([kernel.att_query, kernel.att_key], dim=-1)
            x = torch.cat([q[i], k[j]], dim=-1)
            z = (a * x).sum(dim=-1)
            c = torch.where(z >= 0, torch.ones_like(z), torch.full_like(z, 0.2))
            norms = a.square().sum(-1) + x.square().sum(-1) - (a - x).square().sum(-1)
            torch.testing.assert_close(score[i, j], 0.5 * c * norms, rtol=1e-12, atol=1e-12)


def test_additive_lifts_to_one_number():
    gram = Additive(D, H).double()(heads(4), heads(6))
    (term,) = gram.terms
    assert term.query.shape == (4, H, 1)
    assert term.key.shape == (6, H, 1)


def test_additive_is_the_score_of_gat():
    conv = GATConv(7, D, heads=H, add_self_loops=False).double()
    kernel = Additive(D, H).double()
    with torch.no_grad():
        kernel.att_query.copy_(conv.att_dst[0])
        kernel.att_key.copy_(conv.att_src[0])
    x = torch.randn(5, 7, dtype=torch.float64)
    _, (_, alpha) = conv(x, EDGES, return_attention_weights=True)
    z = conv.lin(x).view(-1, H, D)
    source, target = EDGES
    expected = softmax(kernel(z, z).at(target, source), target)
    torch.testing.assert_close(alpha, expected, rtol=1e-12, atol=1e-12)


def test_additive_draws_its_parameters_as_gat_does():
    conv, kernel = GATConv(7, D, heads=H), Additive(D, H)
    torch.manual_seed(1)
    conv.reset_parameters()
    torch.manual_seed(1)
    conv.lin.reset_parameters()  # GATConv draws it before att_src and att_dst
    kernel.reset_parameters()
    assert torch.equal(kernel.att_key, conv.att_src[0])
    assert torch.equal(kernel.att_query, conv.att_dst[0])


def test_additive_v2_is_the_score_of_gatv2():
    conv = GATv2Conv(7, D, heads=H, add_self_loops=False).double()
    kernel = AdditiveV2(D, H).double()
    with torch.no_grad():
        kernel.att.copy_(conv.att[0])
    x = torch.randn(5, 7, dtype=torch.float64)
    _, (_, alpha) = conv(x, EDGES, return_attention_weights=True)
    query, key = conv.lin_r(x).view(-1, H, D), conv.lin_l(x).view(-1, H, D)
    source, target = EDGES
    expected = softmax(kernel(query, key).at(target, source), target)
    torch.testing.assert_close(alpha, expected, rtol=1e-12, atol=1e-12)


def test_gated_additive_is_the_score_of_supergat():
    conv = SuperGATConv(7, D, heads=H, attention_type="MX", add_self_loops=False).double()
    kernel = GatedAdditive(D, H).double()
    with torch.no_grad():
        kernel.att_query.copy_(conv.att_r[0])
        kernel.att_key.copy_(conv.att_l[0])
    z = torch.randn(5, H, D, dtype=torch.float64)
    source, target = EDGES
    alpha = conv.get_attention(target, z[target], z[source], num_nodes=5)
    expected = softmax(kernel(z, z).at(target, source), target)
    torch.testing.assert_close(alpha, expected, rtol=1e-12, atol=1e-12)


def test_negative_slope():
    q, k = heads(4), heads(6)
    kernel = Additive(D, H, negative_slope=0.7).double()
    z = (q * kernel.att_query).sum(-1)[:, None] + (k * kernel.att_key).sum(-1)
    torch.testing.assert_close(kernel(q, k).dense(), F.leaky_relu(z, 0.7))
    v2 = AdditiveV2(D, H, negative_slope=0.7).double()
    expected = (F.leaky_relu(q[:, None] + k, 0.7) * v2.att).sum(-1)
    torch.testing.assert_close(v2(q, k).dense(), expected)


def test_edge_bias_of_gat_is_inside_its_link():
    q, k = heads(4), heads(6)
    kernel = Additive(D, H).double()
    row, col = torch.tensor([0, 1, 2]), torch.tensor([5, 4, 3])
    c = torch.randn(3, H, dtype=torch.float64)
    z = (q * kernel.att_query).sum(-1)[row] + (k * kernel.att_key).sum(-1)[col]
    torch.testing.assert_close(kernel(q, k).at(row, col, c), F.leaky_relu(z + c, 0.2))
