import math

import pytest
import torch

from kgat.functional import edge_attention
from kgat.kernels import RBF, DotProduct, Magnitude, RandomFourier, Spectral, SpectralConcat

H, D, S = 3, 5, 7


def points(n: int, seed: int = 0, channels: int = D) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, H, channels, dtype=torch.float64, generator=generator)


def four_terms(q, k, w1, w2):  # 1/(4S) sum_s sum_ab cos(2 pi (w_a.q - w_b.k))
    total = 0.0
    for a in (w1, w2):
        for b in (w1, w2):
            u = torch.einsum("nhd,hds->nhs", q, a)[:, None]
            v = torch.einsum("mhd,hds->mhs", k, b)
            total = total + (2 * math.pi * (u - v)).cos().sum(-1)
    return total / (4 * w1.size(-1))


def spectral(**kwargs) -> Spectral:
    torch.manual_seed(0)
    kernel = Spectral(D, H, num_features=S, **kwargs).double()
    if not kernel.stationary:
        with torch.no_grad():  # far from stationary
            kernel.omega2.normal_(0.0, 0.2)
    return kernel


# IKA T3
def test_features_equal_the_sum_of_cosines():
    q, k = points(4), points(6, 1)
    kernel = spectral(eps=1e-3)
    kappa = four_terms(q, k, kernel.omega1, kernel.omega2)
    torch.testing.assert_close(kernel(q, k).dense(), (kappa.square() + 1e-3).log())
    assert kappa.abs().max() <= 1.0


def test_diagonal():
    x = points(4)
    kernel = spectral(eps=1e-12)
    difference = torch.einsum("nhd,hds->nhs", x, kernel.omega1 - kernel.omega2)
    expected = (1.0 + (2 * math.pi * difference).cos().mean(-1)) / 2.0
    value = (0.5 * kernel(x, x).dense()).exp()[range(4), range(4)]
    torch.testing.assert_close(value, expected)


# IKA T4
def test_the_square_is_positive_definite():
    x = points(20)
    value = spectral()(x, x).dense().exp().permute(2, 0, 1)
    assert torch.linalg.eigvalsh(value).min() > -1e-10


# IKA T5
def test_stationary_frequencies_are_translation_invariant_and_others_are_not():
    q, k, shift = points(4), points(6, 1), points(1, 2)
    kernel = spectral(stationary=True)
    assert kernel.omega2 is None
    assert kernel.translation_invariant
    torch.testing.assert_close(kernel(q + shift, k + shift).dense(), kernel(q, k).dense())
    kappa = four_terms(q, k, kernel.omega1, kernel.omega1)
    torch.testing.assert_close(kernel(q, k).dense(), (kappa.square() + 1e-5).log())
    other = spectral()
    assert not other.translation_invariant
    assert (other(q + shift, k + shift).dense() - other(q, k).dense()).abs().max() > 1e-2


# IKA T6, in blocks that fit a small machine
def test_many_frequencies_give_the_rbf_of_dot_product_attention():
    torch.manual_seed(0)
    channels, blocks, size = 4, 8, 50_000
    q, k = (torch.randn(n, 1, channels) for n in (5, 6))
    kernel = Spectral(channels, num_features=size, stationary=True)
    kappa = torch.zeros(5, 6, 1)
    for _ in range(blocks):
        kernel.reset_parameters()
        (term,) = kernel(q, k).terms
        kappa += torch.einsum("nhr,mhr->nmh", term.query, term.key).detach() / blocks
    expected = RBF(channels)(q, k).dense().exp()
    assert (kappa.square() - expected).abs().max() < 5e-3
    score = kappa.square().log() + Magnitude(channels)(q, k).dense()
    near = expected > 0.3
    dot = DotProduct(channels)(q, k).dense()
    assert near.any()
    assert (score - dot)[near].abs().max() < 5e-2


def test_initial_frequencies():
    torch.manual_seed(0)
    std = 1 / (2 * math.pi * math.sqrt(2) * D**0.25)
    kernel = Spectral(D, 8, num_features=5000)
    assert kernel.omega1.std().item() == pytest.approx(std, rel=0.02)
    assert (kernel.omega2 - kernel.omega1).std().item() == pytest.approx(0.1 * std, rel=0.02)
    kernel = Spectral(D, 8, num_features=64, init="official")
    bound = 1 / math.sqrt(8 * 64)
    for omega in (kernel.omega1, kernel.omega2):
        assert omega.abs().max() <= bound
        assert omega.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_eps_bounds_the_score():
    q = 50.0 * points(40)
    score = spectral(eps=1e-3)(q, q.flip(0)).dense()
    assert score.min() >= math.log(1e-3)


# IKA T11
def test_concat_equals_the_kernel_to_the_prototype():
    q, k = points(4), points(6, 1)
    torch.manual_seed(0)
    kernel = SpectralConcat(D, H, num_features=S, eps=1e-3).double()
    with torch.no_grad():
        kernel.omega2.normal_(0.0, 0.2)
    score = kernel(q, k).dense()
    (term,) = kernel(q, k).terms
    assert term.query.shape == (4, H, 4 * S)
    for i in range(4):
        for j in range(6):
            pair = torch.cat([q[i : i + 1], k[j : j + 1]], dim=-1)
            kappa = four_terms(kernel.att[None], pair, kernel.omega1, kernel.omega2)
            expected = (kappa.square() + 1e-3).log()[0, 0]
            torch.testing.assert_close(score[i, j], expected, rtol=1e-12, atol=1e-12)


def test_concat_does_compare_query_and_key():
    q, k = points(4), points(6, 1)
    score = SpectralConcat(D, H, num_features=S).double()(q, k).dense()
    mixed = score - score.mean(0, keepdim=True) - score.mean(1, keepdim=True) + score.mean((0, 1))
    assert mixed.abs().max() > 1e-3  # no sum of a query and a key term


# RandomFourier
def test_random_features_converge_to_the_rbf():
    torch.manual_seed(0)
    q, k = points(5).float(), points(6, 1).float()
    exact = RBF(D, H, lengthscale=1.3)(q, k).dense().exp()
    errors = []
    for size in (100, 40_000):
        f, g = RandomFourier(D, H, num_features=size, lengthscale=1.3)(q, k).features()
        assert f.shape == (5, H, 2 * size)
        errors.append((torch.einsum("nhr,mhr->nmh", f, g) - exact).abs().max().item())
    assert errors[1] < 0.02 < errors[0]


def test_default_random_features_square_to_the_default_rbf():
    torch.manual_seed(0)
    q, k = points(5).float(), points(6, 1).float()
    f, g = RandomFourier(D, H, num_features=40_000)(q, k).features()
    square = torch.einsum("nhr,mhr->nmh", f, g).square()
    assert (square - RBF(D, H)(q, k).dense().exp()).abs().max() < 0.03


def test_resampling():
    kernel = RandomFourier(D, H)
    before = kernel.omega.clone()
    assert torch.equal(kernel.omega, before)
    kernel.resample(torch.Generator().manual_seed(1))
    first = kernel.omega.clone()
    assert not torch.equal(first, before)
    kernel.resample(torch.Generator().manual_seed(1))
    assert torch.equal(kernel.omega, first)
    for law in ("cauchy", "sinc4"):
        other = RandomFourier(D, H, law=law)
        drawn = []
        for seed in (1, 1, 2):
            other.resample(torch.Generator().manual_seed(seed))
            drawn.append(other.omega.clone())
        assert torch.equal(drawn[0], drawn[1])
        assert not torch.equal(drawn[0], drawn[2])
    torch.manual_seed(4)
    kernel.reset_parameters()
    torch.manual_seed(4)
    kernel.resample()
    assert "omega" in kernel.state_dict()
    assert not any(True for _ in kernel.parameters())


def test_laws_of_frequencies():
    torch.manual_seed(0)
    size = 40_000
    for law, lengthscale, power in (("sinc1", 0.3, 1), ("sinc4", 2.0, 4)):
        omega = RandomFourier(2, 2, size, lengthscale, law).omega * (2 * math.pi * lengthscale)
        assert omega.abs().max() <= power
        assert omega.var().item() == pytest.approx(power / 3, rel=0.02)
        assert omega.mean().abs() < 0.02
        assert omega.flatten(0, 1).corrcoef().fill_diagonal_(0).abs().max() < 0.02
    omega = RandomFourier(2, 2, size, 1.7, "cauchy").omega * (2 * math.pi * 1.7)
    quartiles = omega.flatten().quantile(torch.tensor([0.25, 0.5, 0.75]))
    torch.testing.assert_close(quartiles, torch.tensor([-1.0, 0.0, 1.0]), rtol=0.02, atol=0.02)
    assert torch.isfinite(omega).all()


def test_the_default_law_is_drawn_as_ever():
    kernel = RandomFourier(D, H)
    kernel.resample(torch.Generator().manual_seed(3))
    numbers = torch.randn(H, D, 64, generator=torch.Generator().manual_seed(3))
    assert torch.equal(kernel.omega, numbers / (2 * math.pi * math.sqrt(2) * D**0.25))


def test_default_lengthscales_are_those_of_squares():
    assert RandomFourier(16, law="cauchy").lengthscale == pytest.approx(16.0)  # 2 of Laplace(16)
    assert RandomFourier(16, law="sinc2").lengthscale == 0.5
    assert RandomFourier(16).lengthscale == pytest.approx(2 * math.sqrt(2))


def test_the_square_has_scores_and_features():
    q, k = points(4), points(6, 1)
    torch.manual_seed(0)
    kernel = RandomFourier(D, H, num_features=S, law="sinc2", squared=True, eps=1e-3)
    plain = RandomFourier(D, H, num_features=S, law="sinc2")
    plain.load_state_dict(kernel.state_dict())
    f, g = plain(q, k).features()
    kappa = torch.einsum("nhr,mhr->nmh", f, g)
    assert (kappa < 0).any()
    gram = kernel(q, k)
    torch.testing.assert_close(gram.dense(), (kappa.square() + 1e-3).log())
    f, g = gram.features()
    assert f.size(-1) == S * (2 * S + 1) + 1
    torch.testing.assert_close(torch.einsum("nhr,mhr->nmh", f, g), gram.dense().exp())
    with pytest.raises(NotImplementedError, match="log k does not exist"):
        plain(q, k).dense()


def test_bad_laws():
    for law in ("gauss", "sinc", "sinc0", "sinc-2", "sinc2.5", "Normal"):
        with pytest.raises(ValueError, match=rf"'law' as 'normal', 'cauchy' or 'sinc'.*got '{law}'"):
            RandomFourier(4, law=law)
    with pytest.raises(ValueError, match="positive 'eps'"):
        RandomFourier(4, squared=True, eps=0.0)


@pytest.mark.parametrize("cls", [Spectral, SpectralConcat])
def test_bad_options(cls):
    with pytest.raises(ValueError, match=r"'init' as one of 'dot', 'official' \(got 'xavier'\)"):
        cls(4, init="xavier")
    with pytest.raises(ValueError, match="positive 'num_features'"):
        cls(4, num_features=0)
    for share, what in ((0.5, "whole, positive"), (2.7, "whole, positive"), (math.inf, "finite number as")):
        with pytest.raises(ValueError, match=rf"{what} 'num_features' \(got {share}\)"):
            cls(4, num_features=share)
    with pytest.raises(ValueError, match="positive 'eps'"):
        cls(4, eps=0.0)


# IKA 8.3: alpha = (kappa^2 + eps) e^g / sum of the same. The slope of the logarithm, 2 kappa / (kappa^2 +
# eps), meets its own inverse in the weight: gradients of attention have no spike where kappa vanishes.
@pytest.mark.parametrize("backend", ["cpu", "eager"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_attention_equals_the_form_without_a_logarithm(backend, dtype):
    eps, nodes = 1e-10, 12
    torch.manual_seed(0)
    kernel = Spectral(D, H, num_features=2, stationary=True, eps=eps)
    with torch.no_grad():
        kernel.omega1.zero_()[:, 0] = torch.tensor([1.0, 3.0])
    kernel = (kernel * Magnitude(D, H, p=1.5)).to(dtype)
    x = points(nodes)
    # cos t + cos 3 t = 2 cos 2t cos t vanishes at t = pi / 4: some pairs are that far apart.
    x[:, :, 0] = torch.arange(nodes).view(-1, 1) % 3 / 8.0
    value = points(nodes, 1)
    edges = torch.cartesian_prod(torch.arange(nodes), torch.arange(nodes)).T.contiguous()

    leaf = x.to(dtype, copy=True).requires_grad_()
    gram = kernel(leaf, leaf)
    out = edge_attention(gram, value.to(dtype), edges, backend=backend)
    out.backward(points(nodes, 2).to(dtype))

    exact = x.clone().requires_grad_()
    t = 2 * math.pi * (exact[:, None, :, 0] - exact[None, :, :, 0])
    kappa = (t.cos() + (3 * t).cos()) / 2
    assert kappa.abs().min() < 1e-8
    weight = (kappa.square() + eps) * Magnitude(D, H, p=1.5)(exact, exact).key_bias.exp()
    expected = torch.einsum("nmh,mhc->nhc", weight / weight.sum(1, keepdim=True), value)
    expected.backward(points(nodes, 2))
    tolerance = {"rtol": 1e-9, "atol": 1e-9} if dtype == torch.float64 else {"rtol": 1e-3, "atol": 1e-4}
    torch.testing.assert_close(out.double(), expected, **tolerance)
    torch.testing.assert_close(leaf.grad.double(), exact.grad, **tolerance)
