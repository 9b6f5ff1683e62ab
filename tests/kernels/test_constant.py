import numpy as np
import pytest
import torch

from kgat.functional import dense_attention, edge_attention
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


@pytest.mark.parametrize("route", ["eager", "cpu", "reference", "pairs"])
def test_a_learned_combination_is_that_of_its_formula_on_every_route(route):
    # k = (w_1 k_1 + w_2 k_2) / (w_1 + w_2), of which the denominator cancels.
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(5, 2, 3, generator=generator, dtype=torch.float64) for _ in range(3))
    kernel = resolve("constant[weight=0.5]*additive + constant[weight=2]*rbf[lengthscale=0.7]", 3, 2).double()
    additive = kernel.parts[0].parts[1]
    att_q, att_k = (vector.detach().numpy() for vector in (additive.att_query, additive.att_key))
    # As they are held: in single precision before they are doubled.
    w_1, w_2, length = (np.exp(float(np.float32(np.log(number)))) for number in (0.5, 2.0, 0.7))
    out = np.zeros((5, 2, 3))
    row, col = (EDGES[1], EDGES[0]) if route != "pairs" else torch.ones(5, 5).nonzero().T
    for i, h in np.ndindex(5, 2):
        weights = {}
        for j in col[row == i].tolist():
            qi, kj = q[i, h].numpy(), k[j, h].numpy()
            t = att_q[h] @ qi + att_k[h] @ kj
            gat, nearness = np.exp(max(t, 0.2 * t)), np.exp(-((qi - kj) ** 2).sum() / 2 / length**2)
            weights[j] = (w_1 * gat + w_2 * nearness) / (w_1 + w_2)
        total = sum(weights.values())
        out[i, h] = sum((w / total * v[j, h].numpy() for j, w in weights.items()), np.zeros(3))
    gram = kernel(q, k)
    told = dense_attention(gram, v) if route == "pairs" else edge_attention(gram, v, EDGES, backend=route)
    np.testing.assert_allclose(told.detach().numpy(), out, rtol=1e-12, atol=1e-12)


def test_weights_are_positive():
    with pytest.raises(ValueError, match="positive 'weight'"):
        Constant(3, weight=0.0)
    assert Constant.undecayed == ()
    assert Constant(3).undecayed == ("log_weight",)
