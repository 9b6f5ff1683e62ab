import pytest
import torch

from kgat.functional import edge_attention
from kgat.kernels import RBF, Constant, Laplace, resolve

pytestmark = pytest.mark.quick

EDGES = torch.tensor([[0, 1, 2, 3, 4, 0, 2], [1, 2, 3, 4, 0, 0, 0]])


def test_alone_it_is_a_mean_and_as_a_factor_nothing():
    x = torch.randn(5, 2, 3)
    kernel, rbf = Constant(3, heads=2, weight=7.0), RBF(3, heads=2)
    mean = torch.zeros(5, 2, 3).index_reduce(0, EDGES[1], x[EDGES[0]], "mean", include_self=False)
    torch.testing.assert_close(edge_attention(kernel(x, x), x, EDGES), mean)
    product, alone = (edge_attention(k(x, x), x, EDGES) for k in (kernel * rbf, rbf))
    torch.testing.assert_close(product, alone)


@pytest.mark.parametrize("backend", ["eager", "cpu"])
def test_summands_weigh_what_it_says_and_it_learns(backend):
    x = torch.randn(5, 2, 3)
    kernel = resolve("constant[weight=3]*rbf + constant*laplace", 3, 2)
    score = (3 * RBF(3, 2)(x, x).dense().exp() + Laplace(3, 2)(x, x).dense().exp()).log()
    torch.testing.assert_close(kernel(x, x).dense(), score)
    edge_attention(kernel(x, x), x, EDGES, backend=backend).square().sum().backward()
    first, second = (part.parts[0].log_weight.grad for part in kernel.parts)
    assert first.abs().min() > 0
    torch.testing.assert_close(first, -second)  # both weights twice as large change nothing


def test_weights_are_positive():
    with pytest.raises(ValueError, match="positive 'weight'"):
        Constant(3, weight=0.0)
    assert Constant.undecayed == ()
    assert Constant(3).undecayed == ("log_weight",)
