import pytest
import torch
import torch.nn.functional as F
from torch_geometric.nn import AGNNConv

from kgat.kernels import Cosine, LeakyCosine, ScaledCosine
from kgat.kernels.cosine import unit

pytestmark = pytest.mark.quick

H, D = 3, 5


def test_unit_is_the_normalisation_of_torch():
    for dtype in (torch.float32, torch.float64):
        x = torch.randn(50, H, D).to(dtype)
        x[0] = 0.0
        x[1] = 1e-14
        torch.testing.assert_close(unit(x), F.normalize(x, dim=-1), rtol=1e-6, atol=0.0)
    x = torch.randn(50, H, D, dtype=torch.float64, requires_grad=True)
    w = torch.randn_like(x)
    (grad,) = torch.autograd.grad((unit(x) * w).sum(), x)
    (expected,) = torch.autograd.grad((F.normalize(x, dim=-1) * w).sum(), x)
    torch.testing.assert_close(grad, expected)


def test_a_zero_vector_gets_a_zero_gradient():
    x = torch.zeros(1, H, D, requires_grad=True)
    (grad,) = torch.autograd.grad(unit(x).sum(), x)
    assert torch.equal(grad, torch.zeros_like(grad))


def test_scaled_cosine_is_agnn():
    torch.manual_seed(0)
    x = torch.randn(6, D)
    edge_index = torch.tensor([[0, 1, 2, 3, 1, 0, 5], [1, 0, 1, 2, 2, 2, 4]])
    conv = AGNNConv(add_self_loops=False)
    kernel = ScaledCosine(D)
    with torch.no_grad():
        conv.beta.fill_(2.5)
        kernel.beta.fill_(2.5)
    z = x.view(-1, 1, D)
    mask = torch.full((6, 6), float("-inf"))
    mask[edge_index[1], edge_index[0]] = 0.0
    alpha = (kernel(z, z).dense().squeeze(-1) + mask).softmax(dim=1).nan_to_num()
    torch.testing.assert_close(alpha @ x, conv(x, edge_index), rtol=1e-6, atol=1e-6)


def test_cosines_by_formula():
    torch.manual_seed(0)
    q, k = torch.randn(4, H, D).double(), torch.randn(6, H, D).double()
    cos = F.cosine_similarity(q[:, None], k[None], dim=-1)
    f, g = Cosine(D, H)(q, k).features()
    torch.testing.assert_close(torch.einsum("nhr,mhr->nmh", f, g), cos)
    torch.testing.assert_close(LeakyCosine(D, H)(q, k).dense(), F.leaky_relu(cos, 0.2))
    kernel = ScaledCosine(D, H).double()
    with torch.no_grad():
        kernel.beta.copy_(torch.tensor([[1.0], [-2.0], [0.5]]))
    torch.testing.assert_close(kernel(q, k).dense(), cos * torch.tensor([1.0, -2.0, 0.5]))
    assert not kernel.positive_definite


def test_length_does_not_matter():
    torch.manual_seed(0)
    q, k = torch.randn(4, H, D).double(), torch.randn(6, H, D).double()
    kernel = ScaledCosine(D, H).double()
    torch.testing.assert_close(kernel(7.0 * q, 0.1 * k).dense(), kernel(q, k).dense())
