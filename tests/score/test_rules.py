import itertools
import math
from fractions import Fraction

import pytest
import torch

from kgat.score.rules import (
    ABS_DIFFERENCE,
    HALF_LOG,
    IDENTITY,
    LEAKY_RELU,
    LEAKY_RELU_SUM,
    LOG,
    LOG_ABS_SINC,
    LOG_SQUARE,
    MINIMUM,
    MUL,
    RATIONAL_QUADRATIC,
    RELU,
    SIGNED,
    SQUARED_DIFFERENCE,
    TRUNCATED_EXP,
    ScoreRule,
    log_abs_sinc,
    log_truncated_exp,
    square_features,
    truncated_exp_features,
)

pytestmark = pytest.mark.quick

PAIRS = [
    (MUL, (), -6.0),
    (ABS_DIFFERENCE, (), 5.0),
    (SQUARED_DIFFERENCE, (), 25.0),
    (LOG_ABS_SINC, (), math.log(abs(math.sin(5.0) / 5.0))),
    (MINIMUM, (), -3.0),
    (LEAKY_RELU_SUM, (0.1,), -0.1),
]
LINKS = [
    (IDENTITY, (), -3.0),
    (LEAKY_RELU, (0.2,), -0.6),
    (RELU, (), 0.0),
    (LOG_SQUARE, (1.0,), math.log(10.0)),
    (SIGNED, (), -3.0),
    (TRUNCATED_EXP, (4.0,), math.log(1 - 3 + 4.5 - 4.5 + 3.375)),
]


@pytest.mark.parametrize(("pair", "args", "expected"), PAIRS, ids=[p[0].name for p in PAIRS])
def test_pairs_by_hand(pair, args, expected):
    x, y = torch.tensor(2.0).double(), torch.tensor(-3.0).double()
    assert pair.function(x, y, *args).item() == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(("link", "args", "expected"), LINKS, ids=[k[0].name for k in LINKS])
def test_links_by_hand(link, args, expected):
    t = torch.tensor(-3.0).double()
    assert link.function(t, *args).item() == pytest.approx(expected, abs=1e-15)


def test_links_of_positive_arguments_by_hand():
    t = torch.tensor(3.0).double()
    assert LOG.function(t, 1.0).item() == pytest.approx(math.log(4.0))
    assert HALF_LOG.function(t, 1.0).item() == pytest.approx(math.log(2.0))
    assert RATIONAL_QUADRATIC.function(t, 2.0).item() == pytest.approx(-2.0 * math.log(4.0))


def test_score_is_link_of_weighted_pairs():
    q, k = torch.randn(7, 3, 5), torch.randn(7, 3, 5)
    w = torch.randn(3, 5)
    rule = ScoreRule(ABS_DIFFERENCE, LEAKY_RELU, weight=w, link_args=(0.3,))
    total = (w * (q - k).abs()).sum(dim=-1)
    torch.testing.assert_close(rule(q, k), torch.nn.functional.leaky_relu(total, 0.3))
    rule = ScoreRule(SQUARED_DIFFERENCE, weight=-0.5)
    torch.testing.assert_close(rule(q, k), -0.5 * (q - k).square().sum(dim=-1))


def test_edge_bias_inside_and_outside_the_link():
    q, k, c = torch.randn(7, 3, 5), torch.randn(7, 3, 5), torch.randn(7, 3)
    total = (q * k).sum(dim=-1)
    leaky = torch.nn.functional.leaky_relu
    inside = ScoreRule(link=LEAKY_RELU, link_args=(0.2,), edge_bias_inside=True)
    outside = ScoreRule(link=LEAKY_RELU, link_args=(0.2,))
    torch.testing.assert_close(inside(q, k, c), leaky(total + c, 0.2))
    torch.testing.assert_close(outside(q, k, c), leaky(total, 0.2) + c)
    assert not torch.allclose(inside(q, k, c), outside(q, k, c))


def test_link_argument_per_head():
    q, k = torch.randn(7, 3, 5), torch.randn(7, 3, 5)
    alpha = torch.tensor([0.5, 1.0, 2.0])
    score = ScoreRule(SQUARED_DIFFERENCE, RATIONAL_QUADRATIC, link_args=(alpha,))(q, k)
    for h, a in enumerate(alpha.tolist()):
        one = ScoreRule(SQUARED_DIFFERENCE, RATIONAL_QUADRATIC, link_args=(a,))
        torch.testing.assert_close(score[:, h : h + 1], one(q[:, h : h + 1], k[:, h : h + 1]))


SIZES = [0.0, 1e-20, 1e-3, 1.0, 9e8, 9.9e17, 1.1e18, 1.8e19, 1.9e19, 1e30, 3e38]


@pytest.mark.parametrize("eps", [1e-5, 1.0, 100.0, "per head"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_logarithm_of_a_square_that_is_larger_than_numbers_are(dtype, eps):
    size = torch.tensor(SIZES if dtype == torch.float32 else [*SIZES, 1e150, 1e160, 1e300], dtype=dtype)
    t = torch.cat([size, -size]).requires_grad_()
    if eps == "per head":
        eps = torch.linspace(0.1, 2.0, t.numel(), dtype=dtype)
    floors = eps.tolist() if isinstance(eps, torch.Tensor) else [eps] * t.numel()

    def exact(x, floor):  # by fractions, which have any size
        square = Fraction(x) ** 2 + Fraction(floor)
        large = 2 * math.log(abs(x)) + math.log1p(Fraction(floor) / Fraction(x) ** 2) if abs(x) > 1e9 else 0.0
        return large or math.log(square), float(2 * Fraction(x) / square)

    value, slope = torch.tensor(list(map(exact, t.tolist(), floors)), dtype=dtype).T
    found = LOG_SQUARE.function(t, eps), LOG_SQUARE.in_scalars(t, eps)
    slopes = [torch.autograd.grad(y.sum(), t, create_graph=True)[0] for y in found]
    for y in found:
        torch.testing.assert_close(y, value, atol=4 * torch.finfo(dtype).eps, rtol=4 * torch.finfo(dtype).eps)
    for d in (slopes[0], LOG_SQUARE.derivative(t, eps)):
        torch.testing.assert_close(d, slope, atol=0.0, rtol=8 * torch.finfo(dtype).eps)
    again = torch.autograd.grad(slopes[0].sum(), t)[0]
    assert again.isfinite().all()
    far = t.detach().abs() > 1e9
    assert (again[far] <= 0).all()


@pytest.mark.parametrize("eps", [0.0, 1e-5, 0.3])
def test_square_features(eps):
    q, k = torch.randn(2, 4, 3, 6, dtype=torch.float64)
    f, g = square_features(q, eps), square_features(k, eps)
    assert f.shape == (4, 3, 6 * 7 // 2 + 1)
    expected = (q * k).sum(dim=-1).square() + eps
    torch.testing.assert_close((f * g).sum(dim=-1), expected, rtol=1e-14, atol=1e-14)


def test_square_features_with_eps_per_head():
    q, k = torch.randn(2, 4, 3, 2, dtype=torch.float64)
    eps = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    product = (square_features(q, eps) * square_features(k, eps)).sum(dim=-1)
    torch.testing.assert_close(product, (q * k).sum(dim=-1).square() + eps)


def test_log_features():
    q, k = torch.rand(2, 4, 3, 2, dtype=torch.float64)
    assert LOG.features is not None
    product = (LOG.features(q, 0.1) * LOG.features(k, 0.1)).sum(dim=-1)
    torch.testing.assert_close(product.log(), LOG.function((q * k).sum(dim=-1), 0.1))


# FF T3: values and gradients around the switch of the series, in both precisions.
def test_log_abs_sinc_equals_the_direct_form():
    x = torch.cat([torch.linspace(-20, 20, 4001), torch.tensor([0.2499, 0.25, 0.2501, 0.5])])
    x = x.double()
    x = x[(x.sin().abs() > 1e-3) & (x.abs() > 1e-2)].requires_grad_()
    score = log_abs_sinc(x)
    direct = torch.sinc(x / math.pi).abs().log()
    torch.testing.assert_close(score, direct, rtol=1e-12, atol=1e-13)
    (grad,) = torch.autograd.grad(score.sum(), x)
    expected = x.cos() / x.sin() - 1.0 / x
    torch.testing.assert_close(grad, expected.detach(), rtol=1e-10, atol=1e-10)


# FF T4
def test_log_abs_sinc_in_single_precision():
    x = torch.cat([torch.logspace(-8, 0, 2000), torch.linspace(1, 20, 20000)])
    x = x[(x.double().sin().abs() > 1e-2) | (x < 1)]
    x32, x64 = x.clone().requires_grad_(), x.double().requires_grad_()
    f32, f64 = log_abs_sinc(x32), log_abs_sinc(x64)
    (g32,) = torch.autograd.grad(f32.sum(), x32)
    (g64,) = torch.autograd.grad(f64.sum(), x64)
    # Relative error above 1, as x itself is only known to 1e-7 near a zero of the sine.
    assert ((f32 - f64).abs() / f64.abs()).max() < 5e-6
    assert ((g32 - g64).abs() / g64.abs().clamp_min(0.1)).max() < 5e-6
    near = x < 0.5
    assert ((f32 - f64).abs() / f64.abs())[near].max() < 5e-7


# FF T5
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_abs_sinc_at_its_zeros(dtype):
    x = (math.pi * torch.arange(-3, 4)).to(dtype).requires_grad_()
    score = log_abs_sinc(x)
    (grad,) = torch.autograd.grad(score.sum(), x, create_graph=True)
    assert torch.isfinite(score).all()
    assert torch.isfinite(grad).all()
    assert torch.isfinite(torch.autograd.grad(grad.sum(), x)[0]).all()
    assert score[3] == 0
    assert grad[3] == 0


def test_log_abs_sinc_has_a_second_derivative_at_zero():
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(log_abs_sinc(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(grad.sum(), x)
    assert second.item() == pytest.approx(-1 / 3)


def test_only_plain_sums_are_linear():
    assert ScoreRule().linear
    assert ScoreRule(ABS_DIFFERENCE, weight=-2.0).linear
    assert not ScoreRule(link=RELU).linear
    assert ScoreRule(weight=torch.ones(3, 5)).linear


def polynomial(t: torch.Tensor, degree: int) -> torch.Tensor:
    return sum(t**n / math.factorial(n) for n in range(degree + 1))


@pytest.mark.parametrize("degree", [2, 4, 6, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_truncated_exp_equals_the_polynomial(degree, dtype):
    t = torch.cat([torch.linspace(-9, 9, 401), torch.tensor([0.0, -1.0, 1.0, -2e4, 2e4, 1e9])]).to(dtype)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    constant = torch.full((), float(degree), dtype=dtype)
    t.requires_grad_()
    score = log_truncated_exp(t, degree)
    (slope,) = torch.autograd.grad(score.sum(), t)
    exact = t.detach().double().requires_grad_()
    expected = polynomial(exact, degree).log()
    (expected_slope,) = torch.autograd.grad(expected.sum(), exact)
    for found in (score, TRUNCATED_EXP.in_scalars(t, constant)):
        torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)
    for found in (slope, TRUNCATED_EXP.derivative(t, constant)):
        torch.testing.assert_close(found.double(), expected_slope, rtol=tolerance, atol=tolerance)


def test_log_truncated_exp_has_second_derivatives():
    t = torch.linspace(-3, 3, 25).double().requires_grad_()  # -1, 0 and 1 among them
    assert torch.autograd.gradgradcheck(lambda t: log_truncated_exp(t, 4), t)


# BKM T1: products of the maps, and the remainder; degree 13 is T = 14 of the paper.
@pytest.mark.parametrize("degree", [0, 1, 2, 3, 4, 13])
def test_truncated_exp_features(degree):
    q, k = 0.5 * torch.randn(2, 4, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    f, g = truncated_exp_features(q, degree), truncated_exp_features(k, degree)
    assert f.shape == (4, 2, math.comb(3 + degree, degree))
    t = (q * k).sum(dim=-1)
    remainder = sum(t**n / float(math.factorial(n)) for n in range(degree + 1, 60))
    torch.testing.assert_close((f * g).sum(dim=-1) + remainder, t.exp(), rtol=1e-14, atol=1e-14)
    if degree == 13:
        torch.testing.assert_close((f * g).sum(dim=-1), t.exp(), rtol=1e-10, atol=1e-10)
    # One feature per multi-index, and those of lower degree first.
    powers = itertools.product(range(degree + 1), repeat=3)
    indices = sorted((i for i in powers if sum(i) <= degree), key=sum)
    by_hand = [(q ** torch.tensor(i)).prod(-1) / math.prod(map(math.factorial, i)) ** 0.5 for i in indices]
    for n in range(degree + 1):
        level = slice(math.comb(n + 2, 3), math.comb(n + 3, 3))
        expected = torch.stack(by_hand[level], dim=-1).sort(dim=-1).values
        torch.testing.assert_close(f[..., level].sort(dim=-1).values, expected, rtol=1e-13, atol=1e-13)


def test_too_many_features_are_refused():
    q = torch.zeros(1, 1, 32)
    assert truncated_exp_features(q, 2).size(-1) == 561
    with pytest.raises(NotImplementedError, match=r"at most 16384 features.*got 58905 for 32 channels"):
        truncated_exp_features(q, 4)
