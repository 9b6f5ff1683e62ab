r"""RBF, Laplace, Intersection, L2Distance, RationalQuadratic, AbsoluteDifference and Periodic."""

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.gaussian_process.kernels import ExpSineSquared
from sklearn.gaussian_process.kernels import RationalQuadratic as SklearnRationalQuadratic
from sklearn.metrics.pairwise import laplacian_kernel, rbf_kernel

from kgat import kernels
from kgat.functional import dense_attention, edge_attention
from kgat.kernels import (
    RBF,
    AbsoluteDifference,
    DotProduct,
    Intersection,
    L2Distance,
    Laplace,
    Periodic,
    Polynomial,
    RandomFourier,
    RationalQuadratic,
    TruncatedExponential,
)

H, D = 3, 5


def points(n: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, H, D, dtype=torch.float64, generator=generator)


def head(x: torch.Tensor, h: int) -> np.ndarray:
    return x[:, h].numpy()


def test_rbf_equals_sklearn():
    q, k = points(7), points(6, 1)
    kernel = RBF(D, H).double()
    with torch.no_grad():
        kernel.log_lengthscale.copy_(torch.tensor([[0.5], [1.0], [3.0]]).log())
    value = kernel(q, k).dense().exp().detach().numpy()
    for h, scale in enumerate((0.5, 1.0, 3.0)):
        expected = rbf_kernel(head(q, h), head(k, h), gamma=0.5 / scale**2)
        np.testing.assert_allclose(value[..., h], expected, rtol=1e-6)  # float32 logarithms


def test_laplace_equals_sklearn():
    q, k = points(7), points(6, 1)
    value = Laplace(D, H, lengthscale=1.7).double()(q, k).dense().exp().detach().numpy()
    for h in range(H):
        expected = laplacian_kernel(head(q, h), head(k, h), gamma=1 / 1.7)
        np.testing.assert_allclose(value[..., h], expected, rtol=1e-6)


def test_rational_quadratic_equals_sklearn():
    q, k = points(7), points(6, 1)
    kernel = RationalQuadratic(D, H, lengthscale=0.8, alpha=2.5).double()
    value = kernel(q, k).dense().exp().detach().numpy()
    reference = SklearnRationalQuadratic(length_scale=0.8, alpha=2.5)
    for h in range(H):
        np.testing.assert_allclose(value[..., h], reference(head(q, h), head(k, h)), rtol=1e-6)


def test_rational_quadratic_tends_to_rbf():
    q, k = points(7), points(6, 1)
    value = RationalQuadratic(D, H, alpha=1e7).double()(q, k).dense()
    torch.testing.assert_close(value, RBF(D, H).double()(q, k).dense(), rtol=1e-5, atol=1e-5)


def test_periodic_equals_sklearn():
    q, k = points(7), points(6, 1)
    kernel = Periodic(D, H, period=1.3, lengthscale=0.9).double()
    value = kernel(q, k).dense().exp().detach().numpy()
    reference = ExpSineSquared(length_scale=0.9, periodicity=1.3)  # of one channel
    for h in range(H):
        expected = np.ones((7, 6))
        for c in range(D):
            expected *= reference(head(q, h)[:, c : c + 1], head(k, h)[:, c : c + 1])
        np.testing.assert_allclose(value[..., h], expected, rtol=1e-5)


def test_periodic_repeats():
    q, k = points(7), points(6, 1)
    kernel = Periodic(D, H, period=2.0).double()
    period = kernel.log_period.exp()
    torch.testing.assert_close(kernel(q + 3 * period, k).dense(), kernel(q, k).dense())


# TD T4, BKM T5: the query norm cancels.
def test_rbf_rows_are_those_of_a_dot_product_with_a_key_penalty():
    q, k = points(7), points(6, 1)
    rows = RBF(D, H).double()(q, k).dense().softmax(dim=1)
    penalised = DotProduct(D, H)(q, k).dense() - 0.5 * k.square().sum(-1) / math.sqrt(D)
    torch.testing.assert_close(rows, penalised.softmax(dim=1), rtol=1e-6, atol=1e-9)
    # One more channel: [2 tau q, 1].[k, -tau |k|^2] at scale 1.
    tau = 0.5 / math.sqrt(D)
    wide_q = torch.cat([2 * tau * q, torch.ones_like(q[..., :1])], dim=-1)
    wide_k = torch.cat([k, -tau * k.square().sum(-1, keepdim=True)], dim=-1)
    wide = torch.einsum("nhr,mhr->nmh", wide_q, wide_k).softmax(dim=1)
    torch.testing.assert_close(rows, wide, rtol=1e-6, atol=1e-9)


# TD T3: k is positive definite, so D^-1 K has eigenvalues in [0, 1].
@pytest.mark.parametrize("kernel", [RBF(D, H), DotProduct(D, H)], ids=["RBF", "DotProduct"])
def test_symmetric_attention_has_real_eigenvalues(kernel):
    x = points(20)
    rows = kernel(x, x).dense().softmax(dim=1).permute(2, 0, 1)
    eigenvalues = torch.linalg.eigvals(rows)
    assert eigenvalues.imag.abs().max() < 1e-7
    assert eigenvalues.real.min() > -1e-7
    assert (eigenvalues.real.amax(dim=-1) - 1.0).abs().max() < 1e-7


def test_rbf_keeps_its_digits_far_from_the_origin():
    q, k = points(50).float() + 1e3, points(40, 1).float() + 1e3
    kernel = RBF(D, H)
    exact = RBF(D, H).double()(q.double(), k.double()).dense()
    assert (kernel(q, k).dense().double() - exact).abs().max() < 1e-5
    row, col = torch.arange(40), torch.arange(40)
    assert (kernel(q, k).at(row, col).double() - exact[row, col]).abs().max() < 1e-5


def test_rbf_of_a_broken_node_breaks_its_own_pairs_only():
    q, k = points(7).float(), points(6, 1).float()
    k[2] = float("nan")
    k[3] = float("inf")
    score = RBF(D, H)(q, k).dense()
    good = torch.tensor([0, 1, 4, 5])
    torch.testing.assert_close(score[:, good], RBF(D, H)(q, k[good]).dense())


def test_rbf_is_largest_at_equal_points():
    x = points(9)
    score = RBF(D, H).double()(x, x).dense()
    torch.testing.assert_close(score.diagonal(), torch.zeros(H, 9).double(), rtol=0, atol=1e-12)
    assert (score <= 1e-12).all()


# BKM T2
def test_intersection_is_laplace_times_biases():
    q, k = points(7), points(6, 1)
    score = Intersection(D, H)(q, k).dense()
    laplace = Laplace(D, H).double()
    with torch.no_grad():
        laplace.log_lengthscale.fill_(math.log(2.0 * math.sqrt(D)))
    bias = [x.sum(-1) / (2.0 * math.sqrt(D)) for x in (q, k)]
    expected = laplace(q, k).dense() + bias[0][:, None] + bias[1]
    torch.testing.assert_close(score, expected, rtol=1e-12, atol=1e-12)
    rows = (laplace(q, k).dense() + bias[1]).softmax(dim=1)
    torch.testing.assert_close(score.softmax(dim=1), rows, rtol=1e-12, atol=1e-12)


def test_only_the_exponentiated_intersection_is_positive_definite():
    x = points(20)
    score = Intersection(D, H)(x, x).dense().permute(2, 0, 1)
    assert torch.linalg.eigvalsh(score.exp()).min() > -1e-10
    assert (torch.linalg.eigvalsh(score)[:, 0] < -1e-2).all()


# BKM T3
def test_the_l2_distance_has_one_positive_eigenvalue():
    x = points(20)
    distance = L2Distance(D, H, eps=1e-30)(x, x).dense().exp().permute(2, 0, 1)
    assert ((torch.linalg.eigvalsh(distance) > 1e-10).sum(dim=-1) == 1).all()
    torch.testing.assert_close(distance[0], torch.cdist(x[:, 0], x[:, 0]), rtol=1e-10, atol=1e-10)


def test_a_scale_of_the_l2_distance_cancels():
    q, k = points(7), points(6, 1)
    kernel = L2Distance(D, H)
    rows = kernel(q, k).dense().softmax(dim=1)
    torch.testing.assert_close(kernel(3.0 * q, 3.0 * k).dense().softmax(dim=1), rows)


# BKM T6
@pytest.mark.parametrize("kernel", [RBF(D, H), Intersection(D, H)], ids=["RBF", "Intersection"])
def test_rows_are_invariant_to_a_joint_shift(kernel):
    q, k, shift = points(7), points(6, 1), points(1, 2)
    rows = kernel(q, k).dense().softmax(dim=1)
    torch.testing.assert_close(kernel(q + shift, k + shift).dense().softmax(dim=1), rows)


# BKM T8
@pytest.mark.parametrize("kernel", [L2Distance(D, H), Laplace(D, H), AbsoluteDifference(D, H)])
def test_equal_points_get_a_zero_subgradient(kernel):
    x = points(4)
    q, k = x.clone().requires_grad_(), x.clone().requires_grad_()
    index = torch.arange(4)
    score = kernel(q, k).at(index, index)
    assert torch.isfinite(score).all()
    for grad in torch.autograd.grad(score.sum(), (q, k)):
        assert torch.equal(grad, torch.zeros_like(grad))


# BKM T7: what the laws of kernels do not say; two domains of different sizes.
@pytest.mark.parametrize("cls", [DotProduct, RBF, L2Distance, Intersection, Polynomial, TruncatedExponential])
def test_smoothers_of_two_domains(cls):
    kernel = cls(D, H).double()
    q, k, v = points(4), points(7, 1), points(7, 2)
    mask = torch.rand(4, 7, generator=torch.Generator().manual_seed(0)) < 0.5
    mask[2], mask[0, 0] = False, True
    weight = kernel(q, k).dense().exp() * mask[..., None]
    expected = torch.einsum("nmh,mhc->nhc", weight, v) / weight.sum(1).clamp_min(1e-300)[..., None]
    out = edge_attention(kernel(q, k), v, mask.nonzero().T.flip(0), backend="eager")
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(dense_attention(kernel(q, k), v, mask), expected)
    assert torch.equal(out[2], torch.zeros(H, D, dtype=torch.float64))
    nothing = edge_attention(kernel(q, k), v, torch.empty(2, 0, dtype=torch.long), backend="eager")
    assert torch.equal(nothing, torch.zeros_like(out))
    assert torch.equal(dense_attention(kernel(q, k), v, torch.zeros_like(mask)), torch.zeros_like(out))


# BKM T9
def test_laplace_is_the_mean_of_cauchy_features():
    generator = torch.Generator().manual_seed(0)
    scale, n = 1.5, 10**6
    difference = torch.tensor([0.3, -0.8], dtype=torch.float64)
    uniform = torch.rand(n, 2, dtype=torch.float64, generator=generator)
    omega = torch.tan(math.pi * (uniform - 0.5)) / scale
    estimate = (omega @ difference).cos().mean().item()
    kernel = Laplace(2, lengthscale=scale).double()
    score = kernel(difference.view(1, 1, 2), torch.zeros(1, 1, 2).double()).dense().item()
    assert abs(estimate - math.exp(score)) < 3e-3


@pytest.mark.parametrize("squared", [False, True])
def test_random_features_estimate_the_laplace_kernel(squared):
    q, k = points(4).float(), points(5, 1).float()
    # A square has half the lengthscale.
    exact = Laplace(D, H, lengthscale=3.0)(q, k).dense().exp()
    kernel = RandomFourier(
        D, H, num_features=100_000, lengthscale=6.0 if squared else 3.0, law="cauchy", squared=squared
    )
    estimate = torch.zeros(4, 5, H)
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        kernel.resample(generator)
        (term,) = kernel(q, k).terms
        estimate += torch.einsum("nhr,mhr->nmh", term.query, term.key) / 4
    estimate = estimate.square() if squared else estimate
    assert (estimate - exact).abs().max() < 1e-2


def test_absolute_difference_by_formula():
    q, k = points(7), points(6, 1)
    kernel = AbsoluteDifference(D, H).double()
    expected = ((q[:, None] - k).abs() * kernel.att).sum(-1).relu()
    torch.testing.assert_close(kernel(q, k).dense(), expected)
    assert (expected == 0).any()
    assert (expected > 0).any()


@pytest.mark.parametrize("kernel", [RBF, Laplace, RationalQuadratic, Periodic])
def test_lengthscales_are_positive(kernel):
    with pytest.raises(ValueError, match=r"positive 'lengthscale' \(got -1.0\)"):
        kernel(4, lengthscale=-1.0)


def test_other_constants_are_positive():
    with pytest.raises(ValueError, match="positive 'alpha'"):
        RationalQuadratic(4, alpha=0.0)
    with pytest.raises(ValueError, match="positive 'period'"):
        Periodic(4, period=float("nan"))
    with pytest.raises(ValueError, match="positive 'eps'"):
        L2Distance(4, eps=-1.0)


def test_default_lengthscales():
    assert RBF(16).log_lengthscale.exp().item() == pytest.approx(2.0)
    assert Laplace(16).log_lengthscale.exp().item() == pytest.approx(8.0)
    assert RationalQuadratic(16).log_lengthscale.exp().item() == pytest.approx(2.0)
    assert Periodic(16).log_lengthscale.exp().item() == pytest.approx(1.0)


# What an expansion about the mean of all nodes gets wrong: true differences in double precision.
DISTANCES = {
    "RBF": (partial(RBF, lengthscale=10.0), lambda d: -(d**2).sum(-1) / 200.0),
    "Laplace": (partial(Laplace, lengthscale=10.0), lambda d: -np.abs(d).sum(-1) / 10.0),
    "RationalQuadratic": (
        partial(RationalQuadratic, lengthscale=10.0, alpha=2.0),
        lambda d: -2.0 * np.log1p((d**2).sum(-1) / 400.0),
    ),
    "L2Distance": (L2Distance, lambda d: 0.5 * np.log((d**2).sum(-1) + 1e-12)),
    "Periodic": (
        partial(Periodic, period=8.0, lengthscale=2.0),
        lambda d: -0.5 * (np.sin(np.pi * d / 8.0) ** 2).sum(-1),
    ),
}


def clumps(seed: int = 0) -> torch.Tensor:
    # Coordinates in a box of 10,000, as a map has them.
    generator = torch.Generator().manual_seed(seed)
    centre = 1e4 * torch.rand(12, 1, 1, 2, generator=generator)
    return (centre + 10.0 * torch.randn(12, 10, 1, 2, generator=generator)).flatten(0, 1)


@pytest.mark.parametrize("name", DISTANCES)
def test_clumps_in_a_large_box_keep_their_digits(name):
    factory, formula = DISTANCES[name]
    kernel, x = factory(2), clumps()
    difference = x.double().numpy()[:, None] - x.double().numpy()
    wanted = torch.from_numpy(formula(difference)).squeeze(-1)
    gram = kernel(x, x)
    row, col = torch.cartesian_prod(torch.arange(120), torch.arange(120)).T
    for score in (gram.dense().squeeze(-1), gram.at(row, col).view(120, 120)):
        near = wanted > -20.0  # the others weigh nothing
        assert (score.double() - wanted)[near].abs().max() < 2e-5
    value = torch.randn(120, 1, 3)
    average = wanted.softmax(dim=1) @ value[:, 0].double()
    edge_index = torch.stack([col, row])
    found = [edge_attention(gram, value, edge_index, backend=backend) for backend in ("cpu", "eager")]
    found += [dense_attention(gram, value), dense_attention(gram, value, method="dense")]
    for out in found:
        assert (out[:, 0].double() - average).abs().max() < 1e-5


@pytest.mark.parametrize("kernel", [RBF, Laplace, RationalQuadratic])
def test_no_point_is_nearer_than_itself(kernel):
    x = torch.randn(40, 1, 4, generator=torch.Generator().manual_seed(0))
    x[:20] += 1e3
    x[20:] -= 1e3
    gram = kernel(4)(x, x)
    index = torch.arange(40)
    assert torch.equal(gram.at(index, index).exp(), torch.ones(40, 1))
    assert gram.dense().max() <= 0.0


@pytest.mark.parametrize("missing", [-99999.0, math.inf, math.nan])
@pytest.mark.parametrize("name", kernels.names())
def test_a_missing_value_of_another_graph_moves_nothing(name, missing):
    torch.manual_seed(0)
    kernel = getattr(kernels, name)(4, 2).eval()
    x = torch.randn(30, 2, 4)
    gram = kernel(x, x)
    if gram.signed or getattr(kernel, "data_dependent", False):
        return  # no scores; a law of one graph, which check_kernel gives each its own
    edge_index = torch.cat([torch.randint(15, (2, 60)), 15 + torch.randint(15, (2, 60))], dim=1)
    value = torch.randn(30, 2, 3)
    broken = x.clone()
    broken[15, :, 2] = missing
    expected, found = (
        edge_attention(kernel(nodes, nodes), value, edge_index, backend="eager") for nodes in (x, broken)
    )
    assert torch.equal(found[:15], expected[:15])


def test_periods_do_not_wear_off():
    # Times far from 0 in units of the period; also a derivative, which knows how many turns there were.
    kernel = Periodic(1, period=0.1, lengthscale=1.0)
    times = torch.arange(0.0, 2000.0, 7.3).view(-1, 1, 1)
    exact = copy.deepcopy(kernel).double()
    wanted, found = exact(times.double(), times.double()).dense(), kernel(times, times).dense()
    turns = (kernel.log_period.exp().double() - exact.log_period.exp()).abs().item() * 2000.0 / 0.01
    assert (found.double() - wanted).abs().max() < 1e-5 + 2.0 * math.pi * turns
    assert found.diagonal().abs().max() < 1e-6


def test_the_slope_of_a_period_counts_its_turns():
    kernel = Periodic(1, period=0.1, lengthscale=1.0)
    times = torch.arange(0.0, 20.0, 0.073).view(-1, 1, 1)
    exact = copy.deepcopy(kernel).double()
    weight = torch.randn(274, 274, 1, generator=torch.Generator().manual_seed(0))
    wanted = (exact(times.double(), times.double()).dense() * weight).sum()
    found = (kernel(times, times).dense() * weight).sum()
    slopes = [torch.autograd.grad(x, m.log_period)[0].double() for x, m in ((found, kernel), (wanted, exact))]
    torch.testing.assert_close(*slopes, rtol=1e-2, atol=0.0)
