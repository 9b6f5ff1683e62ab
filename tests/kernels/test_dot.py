import copy
import itertools
import math

import pytest
import torch

from kgat import KernelAttention, KernelGATConv
from kgat.functional import edge_attention
from kgat.kernels import RBF, DotProduct, Linear, Magnitude, Polynomial, TruncatedExponential

pytestmark = pytest.mark.quick

H, D = 3, 5


def points(n: int, seed: int = 0, channels: int = D) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, H, channels, dtype=torch.float64, generator=generator)


# IKA T1
def test_dot_product_is_rbf_times_magnitude():
    q, k = points(7), points(6, 1)
    product = (RBF(D, H) * Magnitude(D, H, p=2.0)).double()
    product.reset_parameters()  # the lengthscale in double precision
    expected = DotProduct(D, H)(q, k).dense()
    torch.testing.assert_close(product(q, k).dense(), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(expected, torch.einsum("nhd,mhd->nmh", q, k) / math.sqrt(D))


# BKM T1: sum over multi-indices p of prod q^p k^p / (sqrt(D)^n p!), n = |p|.
@pytest.mark.parametrize(("degree", "tolerance"), [(14, 1e-10), (2, 1e-14), (4, 1e-14)])
def test_dot_product_has_a_graded_feature_map(degree, tolerance):
    channels = 3
    q, k = 0.5 * points(4, 0, channels), 0.5 * points(5, 1, channels)

    def feature_map(x: torch.Tensor) -> torch.Tensor:
        columns = []
        for p in itertools.product(range(degree), repeat=channels):
            n = sum(p)
            if n < degree:
                factorials = math.prod(math.factorial(i) for i in p)
                powers = torch.stack([x[..., c] ** p[c] for c in range(channels)]).prod(dim=0)
                columns.append(powers / (channels ** (n / 4) * math.sqrt(factorials)))
        return torch.stack(columns, dim=-1)

    f, g = feature_map(q), feature_map(k)
    assert f.size(-1) == math.comb(channels + degree - 1, channels)
    product = torch.einsum("nhr,mhr->nmh", f, g)
    score = DotProduct(channels, H)(q, k).dense()
    remainder = sum(score**n / float(math.factorial(n)) for n in range(degree, 60))
    torch.testing.assert_close(product + remainder, score.exp(), rtol=tolerance, atol=tolerance)
    if degree == 14:
        torch.testing.assert_close(product, score.exp(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("degree", [2, 4, 6, 8])
def test_truncated_exponential_by_its_remainder(degree):
    q, k = points(4, 0, 3), points(5, 1, 3)
    gram = TruncatedExponential(3, H, degree=degree)(q, k)
    t = torch.einsum("nhd,mhd->nmh", q, k) / math.sqrt(3)
    remainder = sum(t**n / float(math.factorial(n)) for n in range(degree + 1, 80))
    torch.testing.assert_close(gram.dense().exp() + remainder, t.exp(), rtol=1e-12, atol=1e-12)
    f, g = gram.features()
    assert f.size(-1) == math.comb(3 + degree, 3)
    product = torch.einsum("nhr,mhr->nmh", f, g)
    torch.testing.assert_close(product, gram.dense().exp(), rtol=1e-12, atol=1e-12)


def test_truncated_exponential_has_one_feature_map_for_both_sides():
    x = points(4, 0, 2)
    f, g = TruncatedExponential(2, H)(x, x.clone()).features()
    assert torch.equal(f, g)
    # BKM 2: q^i / (D^{n/4} sqrt(i!)), by degree.
    a, b = x.unbind(-1)
    squares = [a * a / 2.0, a * b / math.sqrt(2.0), b * b / 2.0]
    expected = torch.stack([torch.ones_like(a), a / 2**0.25, b / 2**0.25, *squares], dim=-1)
    for level in (slice(0, 1), slice(1, 3), slice(3, 6)):
        torch.testing.assert_close(f[..., level].sort(-1).values, expected[..., level].sort(-1).values)


def test_truncated_exponential_does_not_overflow():
    x = (1e4 * points(6)).float().requires_grad_()
    edges = torch.cartesian_prod(torch.arange(6), torch.arange(6)).T
    out = edge_attention(TruncatedExponential(D, H, degree=8)(x, x), x, edges, backend="eager")
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert torch.isfinite(out).all()
    assert torch.isfinite(grad).all()


def test_bad_degrees():
    for degree in (0, 1, 3, 10, -2, 2.5):
        with pytest.raises(ValueError, match=rf"even 'degree' from 2 to 8 \(got {degree}\)"):
            TruncatedExponential(4, degree=degree)
    x = torch.zeros(2, 1, 64)
    gram = TruncatedExponential(64, degree=4)(x, x)
    assert torch.equal(gram.dense(), torch.zeros(2, 2, 1))
    with pytest.raises(NotImplementedError, match="at most 16384 features"):
        gram.features()


# BKM T6
def test_a_shift_of_the_keys_cancels_and_a_joint_shift_does_not():
    q, k = points(7), points(6, 1)
    shift = points(1, 2)
    kernel = DotProduct(D, H)
    rows = kernel(q, k).dense().softmax(dim=1)
    torch.testing.assert_close(kernel(q, k + shift).dense().softmax(dim=1), rows)
    assert (kernel(q + shift, k + shift).dense().softmax(dim=1) - rows).abs().max() > 1e-3


# BKM T4 and TD 3
def test_polynomial_has_finite_rank():
    x = points(60)
    kernel = Polynomial(D, H, offset=0.3).double()
    gram = kernel(x, x).dense().exp().permute(2, 0, 1)
    assert (torch.linalg.matrix_rank(gram, hermitian=True) == D * (D + 1) // 2 + D + 1).all()
    assert torch.linalg.eigvalsh(gram).min() > -1e-10
    indefinite = Polynomial(D, H, offset=-0.3).double()
    assert not indefinite.positive_definite
    gram = indefinite(x, x).dense().exp().permute(2, 0, 1)
    assert (torch.linalg.eigvalsh(gram)[:, 0] < -1e-3).all()


def test_polynomial_equals_its_formula_and_its_feature_map():
    q, k = points(7), points(6, 1)
    kernel = Polynomial(D, H, offset=0.3, eps=1e-4).double()
    base = torch.einsum("nhd,mhd->nmh", q, k) / math.sqrt(D)
    gram = kernel(q, k)
    g = kernel.offset.detach()[0, 0]
    torch.testing.assert_close(gram.dense(), ((base + g).square() + 1e-4).log())

    def by_hand(x: torch.Tensor) -> torch.Tensor:  # BKM 4, all of one side
        row, col = torch.triu_indices(D, D)
        scale = torch.where(row == col, 1.0, 2.0).double().sqrt() / math.sqrt(D)
        linear = math.sqrt(2 * g) * x / D**0.25
        squares = x[..., row] * x[..., col] * scale
        return torch.cat([squares, linear, g.expand(*x.shape[:-1], 1)], dim=-1)

    expected = torch.einsum("nhr,mhr->nmh", by_hand(q), by_hand(k))
    f, h = gram.features()
    product = torch.einsum("nhr,mhr->nmh", f, h)
    torch.testing.assert_close(product - 1e-4, expected, rtol=1e-12, atol=1e-12)


# TD T5
def test_polynomial_rows_do_not_depend_on_the_scale():
    q, k = points(7) + 0.5, points(6, 1) + 0.5
    kernel = Polynomial(D, H, eps=1e-12).double()
    rows = kernel(q, k).dense().softmax(dim=1)
    torch.testing.assert_close(kernel(10.0 * q, k).dense().softmax(dim=1), rows, atol=1e-6, rtol=0)


def test_polynomial_slope_is_bounded_by_eps():
    k = torch.eye(1).double().view(1, 1, 1)
    q = torch.linspace(-0.1, 0.1, 20001).double().view(-1, 1, 1).requires_grad_()
    score = Polynomial(1, eps=1e-3).double()(q, k).dense()
    (grad,) = torch.autograd.grad(score.sum(), q)
    assert grad.abs().max().item() == pytest.approx(1e-3**-0.5, rel=1e-4)
    with pytest.raises(ValueError, match="positive 'eps'"):
        Polynomial(4, eps=0.0)


def test_linear_features():
    q, k = points(7), points(6, 1)
    f, g = Linear(D, H)(q, k).features()
    torch.testing.assert_close(torch.einsum("nhr,mhr->nmh", f, g), torch.einsum("nhd,mhd->nmh", q, k))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("backend", ["cpu", "eager"])
def test_a_polynomial_of_nodes_far_away(backend, dtype):
    # Products of 1e20, whose square no number of single precision is, though its logarithm is 92.
    torch.manual_seed(0)
    x, edges = torch.randn(12, 5), torch.randint(12, (2, 40))
    x[3] *= 1e10
    conv = KernelGATConv(5, 8, 2, kernel="polynomial", backend=backend).to(dtype)
    out = conv(x.to(dtype), edges)
    exact = copy.deepcopy(conv).double()(x.double(), edges)
    largest = exact.abs().amax(dim=-1, keepdim=True)
    torch.testing.assert_close(out.double() / largest, exact / largest, rtol=1e-4, atol=1e-4)

    # Of values of usual size, as the gradients of large ones are differences of large numbers.
    edges = torch.cat([edges, torch.tensor([[3], [3]])], dim=1)
    q, k, v, slope = (torch.randn(12, 2, 4) for _ in range(4))
    far = torch.ones(12, 1, 1).index_fill(0, torch.tensor(3), 1e10)
    q, k = far * q, far * k
    kernel, results = Polynomial(4, 2), []
    for one in (dtype, torch.float64):
        leaves = [x.to(one).requires_grad_() for x in (q, k, v)]
        gram = kernel.to(one)(*leaves[:2])
        assert gram.dense().max() > math.log(2.0**128)
        out = edge_attention(gram, leaves[2], edges, backend=backend)
        by_q, by_k, *others = torch.autograd.grad((out * slope).sum(), [*leaves, *kernel.parameters()])
        results.append([out, far * by_q, far * by_k, *others])  # a logarithm's slope by relative steps
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found.double(), wanted.double(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["dense", "linear", "edges"])
def test_a_polynomial_of_tokens_far_away(method):
    torch.manual_seed(0)
    x = torch.randn(1, 6, 8)
    x[0, 2] *= 1e10
    attention = KernelAttention(8, 2, kernel="polynomial", method=method).eval()
    found = attention(x.requires_grad_(), need_weights=False)[0]
    (grad,) = torch.autograd.grad(found.sum(), x)
    assert grad.isfinite().all()
    y = x.detach().double()
    exact = copy.deepcopy(attention).double()(y)[0].detach()
    largest = exact.abs().amax(dim=-1, keepdim=True)
    torch.testing.assert_close(found.double() / largest, exact / largest, rtol=1e-4, atol=1e-4)
