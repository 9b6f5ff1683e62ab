import copy
import math

import pytest
import torch

from kgat.functional import dense_attention, edge_attention
from kgat.kernels import RBF, RandomFourier, SincProduct
from kgat.kernels.sinc import sinc_integral

H, D = 3, 5


def points(n: int, seed: int = 0, channels: int = D) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, H, channels, dtype=torch.float64, generator=generator)


def direct(q: torch.Tensor, k: torch.Tensor, r: torch.Tensor, power: int) -> torch.Tensor:
    return torch.sinc(r * (q[:, None] - k) / math.pi).pow(power).prod(dim=-1)


# FF T1
@pytest.mark.parametrize("power", [2, 4, 6])
def test_weights_are_the_normalised_product(power):
    q, k = 0.3 * points(7), 0.3 * points(6, 1)
    kernel = SincProduct(D, H, power=power).double()
    weight = direct(q, k, kernel.inverse_bandwidth, power)
    torch.testing.assert_close(
        kernel(q, k).dense().softmax(dim=1), weight / weight.sum(1, keepdim=True), rtol=1e-13, atol=1e-13
    )


# FF T3: the gradients of section 2.1 and autograd of the direct form, R included.
def test_gradients_equal_those_of_the_direct_form():
    q, k = points(7).requires_grad_(), points(6, 1).requires_grad_()
    kernel = SincProduct(D, H).double()
    leaves = (q, k, kernel.inverse_bandwidth)
    upstream = torch.randn(7, 6, H, dtype=torch.float64)
    got = torch.autograd.grad((kernel(q, k).dense() * upstream).sum(), leaves)
    score = direct(q, k, kernel.inverse_bandwidth, 4).log()
    expected = torch.autograd.grad((score * upstream).sum(), leaves)
    for x, y in zip(got, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10)
    r, difference = kernel.inverse_bandwidth.detach(), (q[:, None] - k).detach()
    x = r * difference
    slope = upstream[..., None] * 4.0 * (x.cos() / x.sin() - 1.0 / x)
    torch.testing.assert_close(got[0], (slope * r).sum(1), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got[1], -(slope * r).sum(0), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got[2], (slope * difference).sum((0, 1)), rtol=1e-9, atol=1e-9)


def test_gradcheck_within_at_and_beyond_the_switch_and_at_equal_points():
    kernel = SincProduct(1, inverse_bandwidth=1.0).double()
    q = torch.tensor([0.0, 0.1, 0.25, 0.2500001, 0.3, 2.0, 4.0]).double().view(-1, 1, 1)
    k = torch.zeros(1, 1, 1, dtype=torch.float64)

    def score(q, k, r):
        return torch.func.functional_call(kernel, {"inverse_bandwidth": r}, (q, k)).dense()

    r = torch.ones(1, 1, dtype=torch.float64)
    leaves = tuple(x.clone().requires_grad_() for x in (q, k, r))
    assert torch.autograd.gradcheck(score, leaves)
    assert torch.autograd.gradgradcheck(score, leaves)


# FF T5
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_poles_are_finite(dtype):
    kernel = SincProduct(1, inverse_bandwidth=1.0).to(dtype)
    q = (math.pi * torch.tensor([1.0, 2.0, 5.0])).to(dtype).view(-1, 1, 1).requires_grad_()
    k = torch.zeros(1, 1, 1, dtype=dtype)
    score = kernel(q, k).dense()
    rows = score.transpose(0, 1).softmax(dim=1)  # every visible key at a zero
    grads = torch.autograd.grad(rows.square().sum(), (q, kernel.inverse_bandwidth))
    assert torch.isfinite(score).all()
    assert rows.sum().item() == pytest.approx(1.0)
    assert all(torch.isfinite(g).all() for g in grads)


# FF T6
def test_rows_of_many_channels_do_not_underflow():
    q, k = points(7, 0, 64).float(), points(256, 1, 64).float()
    kernel = SincProduct(64, H)
    rows = kernel(q, k).dense().softmax(dim=1)
    torch.testing.assert_close(rows.sum(1), torch.ones(7, H))
    assert (direct(q, k, kernel.inverse_bandwidth, 4).sum(1) == 0).all()


# FF T7
def test_gaussian_limit():
    channels = 6
    q, k = points(20, 0, channels), points(50, 1, channels)
    kernel = SincProduct(channels, H).double()
    gaussian = RBF(channels, H, lengthscale=math.sqrt(3 / (4 * 2.0**2))).double()

    def error(scale: float) -> float:
        rows = [g(scale * q, scale * k).dense().softmax(dim=1) for g in (kernel, gaussian)]
        return (rows[0] - rows[1]).abs().max().item()

    errors = [error(scale) for scale in (0.3, 0.1, 0.03)]
    assert 30 < errors[0] / errors[1] < 300  # of fourth order: 81
    assert 30 < errors[1] / errors[2] < 300


# FF T8
def test_the_kernel_is_even_in_its_bandwidth_and_one_on_the_diagonal():
    q, k = points(7), points(6, 1)
    kernel = SincProduct(D, H).double()
    score = kernel(q, k).dense()
    with torch.no_grad():
        kernel.inverse_bandwidth.neg_()
    torch.testing.assert_close(kernel(q, k).dense(), score)
    assert torch.equal(kernel(q, q).dense().diagonal(), torch.zeros(H, 7, dtype=torch.float64))
    assert (score <= 0).all()


@pytest.mark.parametrize("power", [2, 4, 6])
def test_gram_is_positive_definite_and_translation_invariant(power):
    x, shift = points(30), points(1, 2)
    kernel = SincProduct(D, H, power=power).double()
    score = kernel(x, x).dense()
    assert torch.linalg.eigvalsh(score.exp().permute(2, 0, 1)).min() > -1e-12
    moved = kernel(x + shift, x + shift).dense()
    torch.testing.assert_close(moved.exp(), score.exp(), rtol=1e-9, atol=1e-12)


# FF T9
def test_random_features_are_box_convolutions():
    generator = torch.Generator().manual_seed(0)
    difference = torch.tensor([0.4, -0.7], dtype=torch.float64)
    draws = torch.rand(400_000, 4, 2, dtype=torch.float64, generator=generator) * 2 - 1
    estimate = ((2.0 * draws.sum(1)) @ difference).cos().mean().item()
    kernel = SincProduct(2).double()
    score = kernel(difference.view(1, 1, 2), torch.zeros(1, 1, 2).double()).dense().item()
    assert abs(estimate - math.exp(score)) < 3e-3


@pytest.mark.parametrize(("law", "squared"), [("sinc4", False), ("sinc2", True)])
def test_random_features_estimate_the_kernel(law, squared):
    q, k = 0.4 * points(4).float(), 0.4 * points(5, 1).float()
    exact = SincProduct(D, H)(q, k).dense().exp()
    estimate = torch.zeros(4, 5, H)
    generator = torch.Generator().manual_seed(0)
    draws = 4
    kernel = RandomFourier(D, H, num_features=100_000, law=law, squared=squared)
    assert kernel.lengthscale == 1 / 2.0  # 1 / R
    for _ in range(draws):
        kernel.resample(generator)
        gram = kernel(q, k)
        if squared:
            (term,) = gram.terms
            f, g = term.query, term.key  # kappa, before it is squared
        else:
            f, g = gram.features()
        estimate += torch.einsum("nhr,mhr->nmh", f, g) / draws
    estimate = estimate.square() if squared else estimate
    assert (estimate - exact).abs().max() < 5e-3


# FF T2: the slow tail of l = 2 sets its tolerance.
@pytest.mark.parametrize(
    ("power", "value", "tolerance"),
    [
        (2, math.pi, 1e-4),
        (4, 2 * math.pi / 3, 1e-9),
        (6, 11 * math.pi / 20, 1e-9),
        (8, 151 * math.pi / 315, 1e-9),
    ],
)
def test_integrals_by_quadrature(power, value, tolerance):
    assert sinc_integral(power) == pytest.approx(value, rel=1e-14)
    # Band-limited to [-l, l], so that a sum with steps below 2 pi / l has no error but its tails.
    z = torch.arange(-400_000, 400_001, dtype=torch.float64) * 0.1
    quadrature = 0.1 * torch.sinc(z / math.pi).pow(power).sum().item()
    assert quadrature == pytest.approx(value, abs=tolerance)


# FF T10, and the formula, whose constants attention does not see.
@pytest.mark.parametrize("per", ["layer", "channel", "head"])
def test_density_by_formula(per):
    q, k = 0.3 * points(4), 0.3 * points(6, 1)
    kernel = SincProduct(D, H, inverse_bandwidth=1.5, per=per).double()
    with torch.no_grad():
        kernel.inverse_bandwidth.mul_(
            torch.linspace(-1, -2, kernel.inverse_bandwidth.numel()).view_as(kernel.inverse_bandwidth)
        )
    bandwidth = kernel.inverse_bandwidth.expand(H, D)
    area = (2 * math.pi / 3) ** D
    expected = direct(q, k, bandwidth, 4).mean(dim=1) * bandwidth.abs().prod(dim=-1) / area
    torch.testing.assert_close(kernel.log_density(q, k).exp(), expected, rtol=1e-12, atol=0)
    assert torch.equal(kernel.log_density(q, k[:0]).exp(), torch.zeros_like(expected))


def test_density_of_two_channels_integrates_to_one():
    data = torch.randn(7, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    axis = torch.arange(-150, 151, dtype=torch.float64) * 0.25
    grid = torch.cartesian_prod(axis, axis).view(-1, 1, 2)
    kernel = SincProduct(2, inverse_bandwidth=2.0).double()
    total = kernel.log_density(grid, data).exp().sum().item() * 0.25**2
    assert total == pytest.approx(1.0, abs=1e-4)  # the tails of the grid's ends


# FF T11
def test_masked_keys_are_irrelevant_and_empty_rows_zero():
    q, k, v = points(4), points(6, 1), points(6, 2)
    kernel = SincProduct(D, H).double()
    mask = torch.rand(4, 6, generator=torch.Generator().manual_seed(0)) < 0.5
    mask[1], mask[:, 3], mask[0, 0] = False, False, True
    edges = mask.nonzero().T.flip(0)
    out = edge_attention(kernel(q, k), v, edges, backend="eager")
    torch.testing.assert_close(dense_attention(kernel(q, k), v, mask), out)
    assert torch.equal(out[1], torch.zeros(H, D, dtype=torch.float64))
    weight = direct(q, k, kernel.inverse_bandwidth, 4) * mask[..., None]
    expected = torch.einsum("nmh,mhc->nhc", weight, v) / weight.sum(1).clamp_min(1e-300)[..., None]
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-12)
    k[3], v[3] = 1e3, 1e3
    torch.testing.assert_close(edge_attention(kernel(q, k), v, edges, backend="eager"), out)
    torch.testing.assert_close(dense_attention(kernel(q, k), v, mask), out)


# FF T10: p(x) = R / (N A) sum_i sinc(R (x - x_i))^4 with A = 2 pi / 3 (FF T2).
def test_the_density_estimate_integrates_to_one():
    data = torch.randn(50, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    # Band-limited, so that a coarse trapezoid rule is exact; the tails decay like x^-4.
    grid = torch.linspace(-200, 200, 4001, dtype=torch.float64).view(-1, 1, 1)
    kernel = SincProduct(1, inverse_bandwidth=3.0).double()
    density = kernel(grid, data).dense().exp().sum((1, 2)) * 3.0 / (50 * 2 * math.pi / 3)
    torch.testing.assert_close(kernel.log_density(grid, data)[:, 0].exp(), density)
    assert torch.trapezoid(density, dx=0.1).item() == pytest.approx(1.0, abs=1e-8)


def test_ownership_of_the_bandwidth():
    shapes = {"layer": (1, 1), "channel": (1, D), "head": (H, D)}
    for per, shape in shapes.items():
        kernel = SincProduct(D, H, per=per)
        assert kernel.inverse_bandwidth.shape == shape
        assert (kernel.inverse_bandwidth == 2.0).all()


def test_bad_options():
    for power in (0, 1, 3, -2):
        with pytest.raises(ValueError, match=rf"even 'power' of at least 2 \(got {power}\)"):
            SincProduct(4, power=power)
    with pytest.raises(ValueError, match="'per' as one of 'layer', 'channel', 'head'"):
        SincProduct(4, per="node")
    with pytest.raises(ValueError, match="positive 'inverse_bandwidth'"):
        SincProduct(4, inverse_bandwidth=0.0)


def test_a_density_integrates_to_one_at_any_scale_of_the_input():
    kernel = SincProduct(1, 2).double()
    kernel.input_scale = torch.tensor([[2.0], [-0.5]])
    grid = torch.linspace(-60.0, 60.0, 24001, dtype=torch.float64).view(-1, 1, 1).expand(-1, 2, 1)
    density = kernel.log_density(grid, grid.new_zeros(1, 2, 1)).exp()
    torch.testing.assert_close(density.sum(0) * 0.005, torch.ones(2).double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("power", [170, 200, 202, 1000, 2**31 - 2])
def test_the_density_of_every_power_that_is_taken(power):
    point = torch.zeros(1, 1, 1, dtype=torch.float64)
    kernel = SincProduct(1, power=power, inverse_bandwidth=1.0).double()
    # Laplace's method: an error of the order of 1 / power.
    found = kernel.log_density(point, point).item() + 0.5 * math.log(6 * math.pi / power)
    assert found == pytest.approx(0.15 / power, rel=0.01, abs=1e-12)


def test_the_series_of_the_integral_goes_on_where_the_sum_ends(monkeypatch):
    exact = [sinc_integral(power) for power in (160, 180, 200)]
    monkeypatch.setattr("kgat.kernels.sinc.SUMMED", 150)
    assert [sinc_integral(power) for power in (160, 180, 200)] == pytest.approx(exact, rel=3e-15)


def test_the_density_of_a_module_in_half_precision():
    x = torch.randn(6, 1, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    kernel = SincProduct(32, inverse_bandwidth=0.3).bfloat16()
    expected = copy.deepcopy(kernel).double().log_density(x.double(), x.double())
    torch.testing.assert_close(kernel.log_density(x, x).double(), expected, rtol=1e-5, atol=1e-5)
