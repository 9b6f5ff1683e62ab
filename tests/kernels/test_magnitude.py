import itertools
import math

import pytest
import torch

from kgat.diagnostics import importance
from kgat.functional import dense_attention, edge_attention
from kgat.kernels import RBF, Magnitude, Spectral
from kgat.kernels.magnitude import squared_norm, with_magnitude
from kgat.testing import check_kernel

H, D = 3, 5


def points(n: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, H, D, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("p", [1.0, 1.5, 1.8, 2.0, 3.0, 10.0])
def test_squared_norm_equals_torch(p):
    x = points(50).requires_grad_()
    expected = torch.linalg.vector_norm(x, p, dim=-1).square()
    torch.testing.assert_close(squared_norm(x, p), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        squared_norm(x, torch.full((H, 1), p, dtype=torch.float64)), expected, rtol=1e-9, atol=1e-9
    )
    (grad,) = torch.autograd.grad(squared_norm(x, p).sum(), x)
    (wanted,) = torch.autograd.grad(expected.sum(), x)
    torch.testing.assert_close(grad, wanted, rtol=1e-6, atol=1e-6)


# IKA T15
def test_norms_of_order_two_and_decreasing_in_the_order():
    x = points(50)
    assert torch.equal(squared_norm(x, 2.0), x.square().sum(-1))
    norms = [squared_norm(x, p) for p in (1.0, 1.3, 1.8, 2.0, 2.5, 4.0, 20.0)]
    for larger, smaller in itertools.pairwise(norms):
        assert (larger > smaller).all()
    torch.testing.assert_close(norms[-1], x.abs().amax(-1).square(), rtol=0.2, atol=0)


# IKA T13: zero rows and zero entries.
@pytest.mark.parametrize("p", [1.0, 1.2, 1.5, 1.8, 2.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_squared_norm_is_twice_differentiable_at_zeros(p, dtype):
    x = points(4).to(dtype)
    x[0] = 0.0
    x[1, :, ::2] = 0.0
    x.requires_grad_()
    order = torch.full((H, 1), p, dtype=dtype, requires_grad=True)
    for p_ in (p, order):
        norm = squared_norm(x, p_)
        (grad,) = torch.autograd.grad(norm.sum(), x, create_graph=True)
        assert torch.isfinite(grad).all()
        assert torch.equal(grad[0], torch.zeros_like(grad[0]))
        seconds = torch.autograd.grad(grad.sum(), (x, order), allow_unused=True)
        assert all(s is None or torch.isfinite(s).all() for s in seconds)


# (1e-12)^(p/2) is 0 in single precision from p = 8 on, and the root of 0 has an infinite slope.
@pytest.mark.parametrize("p", [7.0, 8.0, 50.0, 1000.0, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_orders_have_finite_gradients_at_zeros(p, dtype):
    x = points(4).to(dtype)
    x[0] = 0.0
    x[1, :, ::2] = 0.0
    x.requires_grad_()
    orders = [p] if p == math.inf else [p, torch.full((H, 1), p, dtype=dtype, requires_grad=True)]
    for order in orders:
        norm = squared_norm(x, order)
        torch.testing.assert_close(norm[0], torch.zeros_like(norm[0]), rtol=0, atol=1e-10)
        grads = torch.autograd.grad(norm.sum(), (x, order) if torch.is_tensor(order) else (x,))
        assert all(torch.isfinite(grad).all() for grad in grads)
        assert torch.equal(grads[0][0], torch.zeros_like(grads[0][0]))


def test_the_largest_entry_is_the_norm_of_infinite_order():
    x = points(50).requires_grad_()
    norm = squared_norm(x, math.inf)
    assert torch.equal(norm, x.abs().amax(-1).square())
    (grad,) = torch.autograd.grad(norm.sum(), x)
    torch.testing.assert_close(grad, torch.where(x.abs() == x.abs().amax(-1, keepdim=True), 2 * x, 0.0))
    check_kernel(lambda channels, heads: Magnitude(channels, heads, p=math.inf, scale_norm=True))


# Away from zero entries: |x|^p is smoothed within 1e-6 of them, which is the step of the check.
@pytest.mark.parametrize("p", [1.5, 2.0, 3.0])
def test_gradcheck_and_gradgradcheck(p):
    x = points(3).requires_grad_()
    order = torch.full((H, 1), p, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(squared_norm, (x, order))
    assert torch.autograd.gradgradcheck(squared_norm, (x, order))


def test_large_vectors_and_orders_do_not_overflow():
    x = 1e15 * points(4).float()
    for p in (1.5, 30.0, torch.full((H, 1), 30.0)):
        norm = squared_norm(x, p)
        assert torch.isfinite(norm).all()
        reference = p if isinstance(p, float) else 30.0
        expected = torch.linalg.vector_norm(x.double() / 1e15, reference, dim=-1).square()
        torch.testing.assert_close(norm.double() / 1e30, expected, rtol=1e-4, atol=0)


def test_magnitude_by_formula():
    q, k = points(4), points(6, 1)
    score = Magnitude(D, H, p=3.0).double()(q, k).dense()
    norms = [torch.linalg.vector_norm(x, 3.0, dim=-1).square() for x in (q, k)]
    expected = (norms[0][:, None] + norms[1]) / (2 * math.sqrt(D))
    torch.testing.assert_close(score, expected)


@pytest.mark.parametrize("learn_p", ["layer", "head"])
def test_learned_order(learn_p):
    q, k = points(4), points(6, 1)
    kernel = Magnitude(D, H, p=1.7, learn_p=learn_p).double()
    assert kernel.rho.shape == (H if learn_p == "head" else 1, 1)
    torch.testing.assert_close(kernel.p, torch.full_like(kernel.rho, 1.7))
    fixed = Magnitude(D, H, p=1.7).double()
    torch.testing.assert_close(
        kernel(q, k).dense(), fixed(q, k).dense(), rtol=1e-6, atol=1e-6
    )  # rho is stored in single precision
    kernel(q, k).dense().sum().backward()
    assert (kernel.rho.grad < 0).all()


def test_scale_norm_keeps_the_value_at_ones():
    ones = torch.ones(1, H, D, dtype=torch.float64)
    for p in (1.0, 1.5, 2.0, 3.0):
        for learn_p in (None, "head") if p > 1 else (None,):
            score = Magnitude(D, H, p=p, scale_norm=True, learn_p=learn_p).double()(ones, ones)
            expected = torch.full((1, 1, H), math.sqrt(D), dtype=torch.float64)
            torch.testing.assert_close(score.dense(), expected, rtol=1e-6, atol=1e-6)


# IKA T10: gathered, dense and linear routes with a magnitude of order 3.
def test_spectral_with_magnitude_by_all_routes():
    q, k = points(4), points(6, 1)
    kernel = (Spectral(D, H, num_features=3) * Magnitude(D, H, p=3.0)).double()
    gram = kernel(q, k)
    dense = gram.dense()
    row, col = torch.cartesian_prod(torch.arange(4), torch.arange(6)).T
    torch.testing.assert_close(gram.at(row, col).view(4, 6, H), dense, rtol=1e-12, atol=1e-12)
    f, g = gram.features()
    v = points(6, 2)
    linear = torch.einsum("nhr,mhr,mhc->nhc", f, g, v) / torch.einsum("nhr,mhr->nh", f, g)[..., None]
    softmax = torch.einsum("nmh,mhc->nhc", dense.softmax(dim=1), v)
    torch.testing.assert_close(linear, softmax, rtol=1e-12, atol=1e-12)


def test_the_query_norm_cancels():
    q, k = points(4), points(6, 1)
    rbf = RBF(D, H).double()
    rows = (rbf * Magnitude(D, H))(q, k).dense().softmax(dim=1)
    key_only = rbf(q, k).dense() + k.square().sum(-1) / (2 * math.sqrt(D))
    torch.testing.assert_close(rows, key_only.softmax(dim=1))


# IKA 6: inverted dropout of the pair's magnitude, in training.
def test_dropout_is_per_pair_and_of_training_only():
    q, k = points(80), points(60, 1)
    kernel = Magnitude(D, H, p=3.0, dropout=0.25).double()
    plain = Magnitude(D, H, p=3.0).double()(q, k).dense()
    torch.manual_seed(0)
    score = kernel(q, k).dense()
    kept = score != 0
    torch.testing.assert_close(score, torch.where(kept, plain / 0.75, 0.0))
    assert (kept.double().mean((0, 1)) - 0.75).abs().max() < 0.02
    assert (kept.double().mean((0, 2)) - 0.75).abs().max() < 0.15
    assert (kept.double().mean((1, 2)) - 0.75).abs().max() < 0.15
    assert not torch.equal(kernel(q, k).dense(), score)  # drawn anew
    with pytest.raises(NotImplementedError, match="finite feature map"):
        kernel(q, k).features()
    kernel.eval()
    assert torch.equal(kernel(q, k).dense(), plain)
    kernel(q, k).features()


@pytest.mark.parametrize("backend", ["cpu", "eager"])
def test_gradients_are_those_of_what_was_dropped(backend):
    kernel = (Spectral(D, H, num_features=3) * Magnitude(D, H, dropout=0.5)).double()
    edges = torch.cartesian_prod(torch.arange(4), torch.arange(3)).T.contiguous()

    def attention(q, k):
        torch.manual_seed(0)
        return edge_attention(kernel(q, k), points(4, 2), edges, backend=backend)

    inputs = points(3).requires_grad_(), points(4, 1).requires_grad_()
    assert torch.autograd.gradcheck(attention, inputs, fast_mode=True)
    dropped = attention(*inputs)
    kernel.eval()
    assert (dropped - attention(*inputs)).abs().max() > 1e-2


def test_dropout_within_a_product():
    q, k = points(4), points(6, 1)
    kernel = (RBF(D, H) * Magnitude(D, H, dropout=0.3)).double()
    gram = kernel(q, k)
    torch.manual_seed(0)
    score = gram.dense()
    torch.manual_seed(0)
    alone = Magnitude(D, H, dropout=0.3).double()(q, k).dense()
    torch.testing.assert_close(score, kernel.parts[0](q, k).dense() + alone)
    torch.manual_seed(0)
    torch.testing.assert_close(dense_attention(gram, k), torch.einsum("nmh,mhc->nhc", score.softmax(1), k))
    torch.testing.assert_close(importance(kernel, k), k.square().sum(-1) / (2 * math.sqrt(D)))


def test_a_switch_is_no_order():
    for switch in (True, False):
        with pytest.raises(
            ValueError, match=rf"'magnitude' as None, a number p or 'learned' \(got {switch}\)"
        ):
            with_magnitude(RBF(4), switch)


def test_bad_options():
    with pytest.raises(ValueError, match=r"Expected a finite number as 'dropout' \(got nan\)"):
        Magnitude(4, dropout=math.nan)
    for dropout in (-0.1, 1.0):
        with pytest.raises(ValueError, match=rf"'dropout' in \[0, 1\) \(got {dropout}\)"):
            Magnitude(4, dropout=dropout)
    with pytest.raises(ValueError, match=r"Expected 'p' of at least 1 \(got 0.5\)"):
        Magnitude(4, p=0.5)
    with pytest.raises(ValueError, match="above 1, where it is learned"):
        Magnitude(4, p=1.0, learn_p="head")
    with pytest.raises(ValueError, match="above 1, where it is learned, and finite"):
        Magnitude(4, p=math.inf, learn_p="head")
    with pytest.raises(ValueError, match="'learn_p' as one of None, 'layer', 'head'"):
        Magnitude(4, learn_p="channel")
