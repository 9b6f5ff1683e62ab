r"""EluPlusOne, FAVORPlus and RFA."""

import math

import pytest
import torch
import torch.nn.functional as F

from kgat.kernels import RFA, DotProduct, EluPlusOne, FAVORPlus
from kgat.ops.waves import circle, components, waves

H, D = 3, 4


def points(n: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, H, D, dtype=torch.float64, generator=generator)


def product(f: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    return torch.einsum("nhr,mhr->nmh", f, g)


def test_elu_plus_one_by_formula():
    q, k = points(4), points(6, 1)
    expected = (product(F.elu(q) + 1, F.elu(k) + 1) + 1e-6).log()
    torch.testing.assert_close(EluPlusOne(D, H)(q, k).dense(), expected)


def test_elu_plus_one_keeps_small_features():
    x = torch.full((1, H, D), -20.0)
    score = EluPlusOne(D, H, eps=1e-30)(x, -x).dense()
    expected = math.log(D * math.exp(-20.0) * 21.0)
    torch.testing.assert_close(score, torch.full((1, 1, H), expected))
    (grad,) = torch.autograd.grad(
        EluPlusOne(D, H)(zero := torch.zeros(1, H, D, requires_grad=True), zero).dense().sum(), zero
    )
    torch.testing.assert_close(grad, torch.full_like(grad, 2.0 / D))


def test_eps_keeps_scores_finite():
    x = torch.full((1, H, D), -200.0)
    score = EluPlusOne(D, H)(x, x).dense()
    torch.testing.assert_close(score, torch.full_like(score, math.log(1e-6)))


def favor_features(x: torch.Tensor, omega: torch.Tensor, kind: str) -> torch.Tensor:
    x = x / D**0.25
    u = torch.einsum("nhd,hdm->nhm", x, omega.double())
    if kind == "hyperbolic":
        u = torch.cat([u, -u], dim=-1)
    return (u - 0.5 * x.square().sum(-1, keepdim=True)).exp() / math.sqrt(u.size(-1))


@pytest.mark.parametrize("kind", ["positive", "hyperbolic"])
def test_favor_stabilisers_change_nothing(kind):
    q, k = 2.0 * points(4), 2.0 * points(6, 1)
    kernel = FAVORPlus(D, H, num_features=9, kind=kind, eps=1e-30)
    expected = product(*(favor_features(x, kernel.omega, kind) for x in (q, k)))
    gram = kernel(q, k)
    torch.testing.assert_close(gram.dense(), expected.log(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(product(*gram.features()), expected, rtol=1e-12, atol=1e-12)
    row, col = torch.tensor([3, 0]), torch.tensor([5, 0])
    torch.testing.assert_close(gram.at(row, col), expected[row, col].log(), rtol=1e-12, atol=1e-12)


def test_favor_does_not_overflow():
    q, k = 100.0 * points(4).float(), 100.0 * points(6, 1).float()
    kernel = FAVORPlus(D, H, num_features=9)
    assert torch.isfinite(kernel(q, k).dense()).all()


# REF 2: unbiased, and the stated mean squared errors of iid directions.
@pytest.mark.parametrize("kind", ["positive", "hyperbolic"])
def test_favor_is_unbiased_with_the_stated_error(kind):
    q, k = 0.5 * points(1), 0.5 * points(1, 1)
    exact = DotProduct(D, H)(q, k).dense().exp()[0, 0]  # [H]
    z = ((q + k) / D**0.25).square().sum(-1)[0]
    trials, m = 20_000, 4
    torch.manual_seed(0)
    omega = torch.randn(H, D, trials * m)
    f, g = (favor_features(x, omega, kind) for x in (q, k))
    if kind == "hyperbolic":
        terms = 0.5 * (f * g).view(H, 2, trials, m).sum(1) * 2 * trials * m
    else:
        terms = (f * g).view(H, trials, m) * trials * m
    estimates = terms.mean(-1)  # [H, trials]
    stated = z.exp() * exact.square() * (1 - (-z).exp()) / m
    if kind == "hyperbolic":
        stated = stated * (1 - (-z).exp()) / 2
    torch.testing.assert_close(estimates.mean(1), exact, rtol=0.03, atol=0)
    error = (estimates - exact[:, None]).square().mean(1)
    torch.testing.assert_close(error, stated, rtol=0.25, atol=0)


@pytest.mark.parametrize("orthogonal", [True, False])
@pytest.mark.parametrize("kind", ["positive", "hyperbolic"])
def test_favor_converges_to_the_dot_product(kind, orthogonal):
    torch.manual_seed(0)
    q, k = 0.4 * points(5), 0.4 * points(6, 1)  # the error grows like exp(|q + k|^2)
    exact = DotProduct(D, H)(q, k).dense()
    kernel = FAVORPlus(D, H, num_features=40_000, kind=kind, orthogonal=orthogonal, eps=1e-12)
    assert (kernel(q, k).dense() - exact).abs().max() < 0.05


def test_orthogonal_directions():
    torch.manual_seed(0)
    omega = FAVORPlus(D, 2, num_features=2 * D + 1).omega
    for block in omega.split(D, dim=-1):
        gram = torch.einsum("hds,hdt->hst", block, block)
        off = gram - torch.diag_embed(gram.diagonal(dim1=1, dim2=2))
        assert off.abs().max() < 1e-5
    many = FAVORPlus(D, 1, num_features=40_000).omega[0]  # each is a standard normal vector
    assert many.mean(dim=1).abs().max() < 0.03
    torch.testing.assert_close(many @ many.T / 40_000, torch.eye(D), rtol=0, atol=0.05)
    chi = many.norm(dim=0).square()
    assert chi.var().item() == pytest.approx(2 * D, rel=0.05)


def test_orthogonal_directions_have_a_smaller_error():
    q, k = 0.7 * points(1), 0.7 * points(1, 1)
    exact = DotProduct(D, H)(q, k).dense().exp()

    def error(orthogonal: bool) -> float:
        torch.manual_seed(0)
        kernel = FAVORPlus(D, H, num_features=D, orthogonal=orthogonal, eps=1e-12)
        errors = []
        for _ in range(1500):
            kernel.resample()
            errors.append((kernel(q, k).dense().exp() - exact).square().mean())
        return torch.stack(errors).mean().item()

    assert error(True) < error(False)


def test_favor_defaults_and_bad_options():
    assert FAVORPlus(8).num_features == int(8 * math.log(8))
    assert FAVORPlus(1).num_features == 1
    with pytest.raises(ValueError, match=r"'kind' as one of 'positive', 'hyperbolic' \(got 'trig'\)"):
        FAVORPlus(4, kind="trig")
    with pytest.raises(ValueError, match="positive 'num_features'"):
        FAVORPlus(4, num_features=-1)


def test_rfa_converges_to_the_exponential_of_the_cosine():
    torch.manual_seed(0)
    q, k = points(5), points(6, 1)
    f, g = RFA(D, H, num_features=40_000, sigma=0.8)(q, k).features()
    cos = F.cosine_similarity(q[:, None], k[None], dim=-1)
    expected = ((cos - 1.0) / 0.8**2).exp()
    assert (product(f, g) - expected).abs().max() < 0.02


def test_rfa_can_be_negative_and_refuses_scores():
    torch.manual_seed(0)
    q, k = points(50), points(60, 1)
    gram = RFA(D, H, num_features=2, sigma=0.3)(q, k)
    assert (product(*gram.features()) < 0).any()
    with pytest.raises(NotImplementedError, match="log k does not exist"):
        gram.dense()


def test_learned_sigma():
    kernel = RFA(D, H, sigma=0.5, learn_sigma=True)
    q, k = points(5).float(), points(6, 1).float()
    product(*kernel(q, k).features()).sum().backward()
    assert kernel.log_sigma.shape == (H, 1)
    assert (kernel.log_sigma.grad != 0).all()
    torch.testing.assert_close(kernel.log_sigma.exp(), torch.full((H, 1), 0.5))
    assert RFA(D, H).log_sigma is None


# Points on circles


@pytest.mark.parametrize("families", [1, 2])
def test_circle_is_the_mean_over_families(families):
    angle = torch.randn(5, 3, 4 * families, dtype=torch.double)
    parts = torch.stack([torch.cat([x.sin(), x.cos()], dim=-1) for x in angle.chunk(families, dim=-1)])
    torch.testing.assert_close(circle(angle, families), parts.mean(dim=0) / 2.0)
    assert circle(angle[:0], families).shape == (0, 3, 8)
    assert circle(angle.half(), families).dtype == torch.half


@pytest.mark.parametrize("families", [1, 2])
def test_circle_has_derivatives_of_every_kind(families):
    angle = torch.randn(3, 2, 4 * families, dtype=torch.double, requires_grad=True)

    def of(angle):
        return circle(angle, families)

    assert torch.autograd.gradcheck(of, angle, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(of, angle, check_fwd_over_rev=True)
    one_by_one = torch.stack([of(x) for x in angle.detach()])
    torch.testing.assert_close(torch.func.vmap(of)(angle.detach()), one_by_one)
    compiled = torch.compile(of, fullgraph=True, backend="aot_eager")
    (expected,) = torch.autograd.grad(of(angle).square().square().sum(), angle)
    (found,) = torch.autograd.grad(compiled(angle).square().square().sum(), angle)
    torch.testing.assert_close(found, expected)


def test_circle_computes_sines_in_one_pass():
    angle = torch.randn(6, 2, 8, requires_grad=True)
    with torch.profiler.profile() as seen:
        circle(angle, 2).sum().backward()
    names = {event.key for event in seen.key_averages()}
    assert not names & {"aten::sin", "aten::cos", "aten::slice_backward"}


def of_waves(nodes, heads, channels, size, families, dtype=torch.float):
    torch.manual_seed(0)
    x = torch.randn(nodes, heads, channels, dtype=torch.double)
    omega = torch.randn(heads, channels, families * size, dtype=torch.double)
    grad = torch.randn(nodes, heads, 2 * size, dtype=torch.double)
    return x.to(dtype).requires_grad_(), omega.to(dtype).requires_grad_(), grad.to(dtype)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize(
    "sizes",
    [
        (0, 2, 3, 4, 1),
        (1, 1, 1, 1, 1),
        (7, 3, 5, 6, 2),
        (1003, 3, 5, 7, 2),
        (50, 2, 40, 3, 1),
        (50, 2, 40, 48, 2),
    ],
)
def test_waves_in_one_pass_are_those_of_double_precision(sizes, scale):
    x, omega, grad = of_waves(*sizes)
    x = (x.detach() * scale).requires_grad_()
    wide, wide_omega = (t.detach().double().requires_grad_() for t in (x, omega))
    out, expected = waves(x, omega, sizes[-1]), circle(components(wide, wide_omega), sizes[-1])
    out.backward(grad)
    expected.backward(grad.double())
    # An angle is as exact as its size allows.
    close = 1e-6 * max(1.0, 10.0 * scale)
    for one, other in ((out, expected), (x.grad, wide.grad), (omega.grad, wide_omega.grad)):
        assert (one.double() - other).norm() <= close * other.norm()


def test_waves_have_second_and_batched_derivatives_in_single_precision():
    both = []
    for dtype in (torch.float, torch.double):
        x, omega, grad = of_waves(9, 3, 5, 6, 2, dtype)
        first = torch.autograd.grad(waves(x, omega, 2), (x, omega), grad, create_graph=True)
        second = torch.autograd.grad(sum(t.square().sum() for t in first), (x, omega))
        grads = torch.stack([grad, 2.0 * grad])
        batched = torch.autograd.grad(waves(x, omega, 2), (x, omega), grads, is_grads_batched=True)
        jacobian = torch.func.jacrev(lambda x, omega=omega: waves(x, omega, 2))(x)
        torch.testing.assert_close(batched[0][1], 2.0 * batched[0][0])
        both.append((*first, *second, *batched, jacobian))
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


def test_waves_do_not_depend_on_the_number_of_threads():
    results = []
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            x, omega, grad = of_waves(3000, 3, 8, 16, 2)
            out = waves(x, omega, 2)
            results.append((out, *torch.autograd.grad(out, (x, omega), grad)))
    finally:
        torch.set_num_threads(threads)
    for others in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(results[0], others, strict=True))


def test_waves_of_infinity_are_nan_there_alone():
    x, omega, _ = of_waves(5, 1, 3, 4, 1)
    with torch.no_grad():
        x[2, 0, 1] = float("inf")
    out = waves(x, omega)
    assert out[2].isnan().all()
    assert out[[0, 1, 3, 4]].isfinite().all()


def test_waves_read_what_is_negated_lazily():
    x, omega, grad = of_waves(6, 3, 5, 4, 2)
    expected = waves(-x, -omega, 2)
    out = waves(torch._neg_view(x), torch._neg_view(omega), 2)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(circle(torch._neg_view(grad)), circle(-grad))
    found = torch.autograd.grad(out, (x, omega), torch._neg_view(grad))
    torch.testing.assert_close(found, torch.autograd.grad(expected, (x, omega), -grad))


@pytest.mark.parametrize(("nodes", "heads", "channels"), [(0, 3, 5), (4, 0, 5), (4, 3, 0), (0, 0, 0)])
def test_waves_of_nothing(nodes, heads, channels):
    x, omega, grad = of_waves(nodes, heads, channels, 4, 2)
    out = waves(x, omega, 2)
    torch.testing.assert_close(out, circle(components(x, omega), 2))
    first = torch.autograd.grad(out, (x, omega), grad, create_graph=True)
    assert not any(t.count_nonzero() for t in first)
