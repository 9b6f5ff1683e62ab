import copy
import math

import pytest
import torch

from kgat import KernelGAT, KernelGATConv
from kgat.kernels import Context, CopulaSpectral, ImplicitSpectral, Magnitude
from kgat.kernels.implicit import Law

H, D, S = 3, 5, 8
CLASSES = [ImplicitSpectral, CopulaSpectral]


def points(n: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, H, D, dtype=torch.float64, generator=generator)


def built(cls, heads=H, seed=0, **kwargs):
    torch.manual_seed(seed)
    return cls(D, heads, **{"num_features": S, **kwargs}).double().eval()


def four_terms(q, k, omegas):  # 1/(4S) sum_s sum_ab cos(2 pi (w_a.q - w_b.k)), also for one family
    total = 0.0
    for a in omegas:
        for b in omegas:
            u = torch.einsum("nhd,hds->nhs", q, a)[:, None]
            v = torch.einsum("mhd,hds->mhs", k, b)
            total = total + (2 * math.pi * (u - v)).cos().mean(-1)
    return total / len(omegas) ** 2


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("stationary", [False, True])
def test_score_is_that_of_the_drawn_frequencies(cls, stationary):
    q, k = points(4), points(6, 1)
    kernel = built(cls, stationary=stationary, eps=1e-3, draws=3)
    omegas = kernel.frequencies()
    assert [omega.shape for omega in omegas] == [(H, D, 3 * S)] * (1 if stationary else 2)
    kappa = four_terms(q, k, omegas)
    torch.testing.assert_close(kernel(q, k).dense(), (kappa.square() + 1e-3).log())


# IKA T11
@pytest.mark.parametrize("stationary", [False, True])
def test_concatenated_form(stationary):
    q, k = points(4), points(6, 1)
    kernel = built(ImplicitSpectral, concat=True, stationary=stationary, eps=1e-3)
    pair = torch.cat([q[:, None].expand(-1, 6, -1, -1), k[None].expand(4, -1, -1, -1)], dim=-1)
    omegas = kernel.frequencies()
    kappa = four_terms(kernel.att[None], pair.flatten(0, 1), omegas)[0].view(4, 6, H)
    torch.testing.assert_close(kernel(q, k).dense(), (kappa.square() + 1e-3).log())


# IKA T7
@pytest.mark.parametrize("init", ["dot", "official"])
def test_generators_are_odd(init):
    kernel = built(ImplicitSpectral, init=init)
    z = points(7)
    for generator in kernel.generators:
        for lin in generator.lins:
            torch.nn.init.normal_(lin.bias)
        assert torch.equal(generator(-z), -generator(z))
        assert not torch.allclose(generator(2 * z), 2 * generator(z))  # but not linear


def test_half_of_the_noise_has_the_opposite_mean():
    kernel = built(ImplicitSpectral, num_features=20_000)
    with torch.no_grad():
        kernel.law_parameters[0] = 0.5
    for generator in kernel.generators:  # so that frequencies are the noise
        for parameter in generator.parameters():
            torch.nn.init.zeros_(parameter)
        generator.skip.fill_(1.0)
    omega, _ = kernel.frequencies()
    first, second = omega.split(10_000, dim=-1)
    assert (first.mean(-1) - 0.5).abs().max() < 0.01
    assert (second.mean(-1) + 0.5).abs().max() < 0.01
    assert (first.std(-1) - kernel.prior_scale).abs().max() < 0.01


# IKA T6
def test_starts_at_the_rbf_of_dot_product_attention():
    kernel = built(ImplicitSpectral, num_features=200_000, stationary=True, kl_weight=0.0)
    with torch.no_grad():
        kernel.law_parameters.zero_()
        for parameter in kernel.generators.parameters():
            parameter.zero_()
    q, k = points(4), points(6, 1)
    square = (q[:, None] - k).square().sum(-1)
    value = kernel(q, k).dense().exp()
    assert (value - (-square / (2 * math.sqrt(D))).exp()).abs().max() < 5e-3


# IKA T8
def test_correlation_total_correlation_and_divergence():
    kernel = built(CopulaSpectral)
    with torch.no_grad():
        kernel.law_parameters.normal_()
    law = kernel.law()
    correlation = kernel.correlation(law)
    assert correlation.shape == (D, H, H)
    torch.testing.assert_close(correlation.diagonal(dim1=-2, dim2=-1), torch.ones(D, H).double())
    total = kernel.total_correlation(law)
    torch.testing.assert_close(total, -0.5 * correlation.logdet().sum())
    assert total > 0.1

    prior = torch.distributions.MultivariateNormal(
        torch.zeros(D, H).double(), kernel.prior_scale**2 * torch.eye(H).double()
    )
    sigma = law.sigma.t()
    covariance = sigma.unsqueeze(-1) * correlation * sigma.unsqueeze(-2)
    joint = torch.distributions.MultivariateNormal(law.mu.t(), covariance)
    expected = torch.distributions.kl_divergence(joint, prior).sum()
    torch.testing.assert_close(kernel.divergence(law) + total, expected, rtol=1e-10, atol=1e-10)


# IKA T9: with the released code's index slip, heads are scaled but independent.
def test_heads_are_as_correlated_as_the_copula_says():
    kernel = built(CopulaSpectral)
    with torch.no_grad():
        kernel.law_parameters[2] = torch.tensor([2.0, 2.0, -1.0])[:, None]
    law = kernel.law()
    size = 40_000
    noise = torch.randn(H, size, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    tied = kernel.tied(noise, law)
    correlation = kernel.correlation(law)
    assert correlation[:, 0, 1].min() > 0.5
    assert correlation[:, 0, 2].max() < -0.4
    for c in range(D):
        found = torch.corrcoef(tied[:, :, c])
        assert (found - correlation[c]).abs().max() < 5 / math.sqrt(size)
    assert (tied.std(dim=1) - 1.0).abs().max() < 0.02  # each head's own law is as without a copula


def noise_as_frequencies(kernel):
    # Generators that return the noise, scaled and shifted as the law says: z is what frequencies are.
    for generator in kernel.generators:
        for parameter in generator.parameters():
            torch.nn.init.zeros_(parameter)
        generator.skip.fill_(1.0)
    return kernel


def tied_law(kernel):
    with torch.no_grad():
        kernel.law_parameters[0].normal_(0.0, 0.1)
        kernel.law_parameters[1].normal_(0.0, 0.5)
        kernel.law_parameters[2] = torch.tensor([2.0, 2.0, -1.0])[:, None]
    return kernel.law()


@pytest.mark.parametrize("evaluation", [None, "frozen", "sobol"])
def test_margins_of_tied_heads_are_normal(evaluation):
    size = 1 << 15  # of each sign; for Sobol points a power of two
    kernel = built(CopulaSpectral, num_features=2 * size, evaluation=evaluation or "frozen")
    kernel = noise_as_frequencies(kernel).train(evaluation is None)
    law = tied_law(kernel)
    plus, minus = kernel.frequencies()[0].split(size, dim=-1)
    for sign, z in ((1.0, plus), (-1.0, minus)):
        noise = (z - sign * law.mu.unsqueeze(-1)) / law.sigma.unsqueeze(-1)  # [H, D, S]
        assert noise.mean(-1).abs().max() < 5 / math.sqrt(size)
        assert (noise.var(-1) - 1.0).abs().max() < 5 * math.sqrt(2 / size)
        beyond = (noise.abs() > 2.0).double().mean(-1)  # where a bound would show first
        assert (beyond - math.erfc(math.sqrt(2.0))).abs().max() < 5 * math.sqrt(0.0455 / size)
        for c in range(D):
            found = torch.corrcoef(noise[:, c])
            assert (found - kernel.correlation(law)[c]).abs().max() < 5 / math.sqrt(size)


def test_penalties_are_those_of_the_noise_that_is_drawn():
    # KL = E[log p(z) - log prior(z)]: the expectation of the prior from draws, the entropy by its formula.
    size = 1 << 15
    kernel = noise_as_frequencies(built(CopulaSpectral, num_features=2 * size)).train()
    law = tied_law(kernel)
    z = torch.stack(kernel.frequencies()[0].split(size, dim=-1))  # [2, H, D, S]
    prior = torch.distributions.Normal(torch.tensor(0.0).double(), kernel.prior_scale)
    log_prior = prior.log_prob(z).sum(dim=(1, 2))
    covariance = law.sigma.t().unsqueeze(-1) * kernel.correlation(law) * law.sigma.t().unsqueeze(-2)
    entropy = torch.distributions.MultivariateNormal(law.mu.t(), covariance).entropy().sum()
    expected = kernel.divergence(law) + kernel.total_correlation(law)
    error = 5 * log_prior.std() / math.sqrt(2 * size)
    assert error < 0.02 * expected
    assert (-entropy - log_prior.mean() - expected).abs() < error


@pytest.mark.parametrize(
    "options", [{}, {"data_dependent": True}, {"concat": True}, {"stationary": True}], ids=str
)
def test_a_single_head_has_no_ties(options):
    q, k = points(4)[:, :1], points(6, 1)[:, :1]
    single, plain = (built(cls, heads=1, draws=2, **options) for cls in (CopulaSpectral, ImplicitSpectral))
    assert single.total_correlation(single.law(q, k)) == 0.0
    torch.testing.assert_close(
        single.correlation(single.law(q, k)), torch.ones(single.noise.size(-1), 1, 1).double()
    )
    for mode in (False, True):
        found = []
        for kernel in (single.train(mode), plain.train(mode)):
            torch.manual_seed(5)
            losses = []
            scores = kernel(q, k, Context(losses=losses)).dense()
            found.append(
                (scores, *losses, *torch.autograd.grad(scores.sum() + losses[0], kernel.parameters()))
            )
        assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
    plain.load_state_dict(single.state_dict())


# --- Features of any scale --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cls", CLASSES)
def test_a_law_of_data_stays_finite_far_from_the_origin(cls, dtype):
    for seed in range(3):
        kernel = built(cls, data_dependent=True, seed=seed)
        kernel = kernel.to(dtype)
        for sign in (1.0, -1.0):
            last = 0.0
            for mean in (3.0, 10.0, 30.0, 100.0, 1e3, 1e4):
                q = (points(20) + sign * mean).to(dtype).requires_grad_()
                losses = []
                scores = kernel(q, q, Context(losses=losses)).dense()
                (penalty,) = losses
                parameters = list(kernel.encoder.parameters())
                grads = torch.autograd.grad(penalty, [q, *parameters], retain_graph=True)
                assert last < penalty.item() < 1e5
                last = penalty.item()
                assert grads[0].sum() * sign > 0  # it still says where to go
                assert all(grad.isfinite().all() and grad.abs().max() > 0 for grad in grads)
                law = kernel.law(q, q)
                assert law.sigma.max() <= kernel.prior_scale * math.exp(4.0)
                assert law.sigma.min() >= kernel.prior_scale * math.exp(-4.0)
                if law.tie is not None:
                    total = kernel.total_correlation(law)
                    (grad,) = torch.autograd.grad(total, kernel.encoder.outputs[2].weight)
                    assert total.isfinite()
                    assert grad.abs().max() > 0
                assert scores.isfinite().all()
                assert all(g.isfinite().all() for g in torch.autograd.grad(scores.sum(), parameters))


def test_a_law_of_tame_data_is_what_its_network_says():
    kernel = built(CopulaSpectral, data_dependent=True)
    q, k = points(4), points(6, 1)
    mean, log_ratio, tie = kernel.encoder(torch.cat([q.mean(0), k.mean(0)], dim=-1))
    expected = Law(mean, kernel.prior_scale * log_ratio.exp(), tie.tanh())
    assert all(torch.equal(*pair) for pair in zip(kernel.law(q, k), expected, strict=True))


def test_data_dependent_copula():
    kernel = built(CopulaSpectral, data_dependent=True)
    law = kernel.law(points(4), points(6, 1))
    assert law.mu.shape == law.sigma.shape == law.tie.shape == (H, D)
    assert kernel.correlation(law).shape == (D, H, H)


def test_a_law_of_the_data_moves_with_them():
    x = points(4)
    for data_dependent in (False, True):
        kernel = built(ImplicitSpectral, stationary=True, data_dependent=data_dependent)
        same = torch.allclose(kernel(x, x).dense(), kernel(x + 3.0, x + 3.0).dense())
        assert same == kernel.translation_invariant == (not data_dependent)
    assert ImplicitSpectral(D, num_features=4.0).num_features == 4


# IKA T12
@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("evaluation", ["frozen", "sobol"])
def test_evaluation_is_deterministic_and_training_is_not(cls, evaluation):
    q, k = points(4), points(6, 1)
    kernel = built(cls, evaluation=evaluation)
    value = kernel(q, k).dense()
    kernel.train()
    assert not torch.equal(kernel(q, k).dense(), kernel(q, k).dense())
    kernel.eval()
    assert torch.equal(kernel(q, k).dense(), value)  # nor has training changed it

    other = built(cls, seed=1, evaluation=evaluation)
    assert not torch.allclose(other(q, k).dense(), value)
    other.load_state_dict(copy.deepcopy(kernel.state_dict()))
    assert torch.equal(other(q, k).dense(), value)

    kernel.resample(torch.Generator().manual_seed(3))
    anew = kernel(q, k).dense()
    assert not torch.allclose(anew, value)
    kernel.resample(torch.Generator().manual_seed(3))
    assert torch.equal(kernel(q, k).dense(), anew)


def test_more_draws_and_sobol_points_come_closer_to_the_law():
    # The kernel of the law itself is the mean over very many draws.
    q, k = points(4), points(6, 1)
    kwargs = {"num_features": 64, "eps": 1e-3}
    reference = built(ImplicitSpectral, draws=500, **kwargs)
    expected = reference(q, k).dense().exp()

    def error(**more):
        total = 0.0
        for seed in range(10):
            kernel = built(ImplicitSpectral, **kwargs, **more)
            kernel.load_state_dict({**reference.state_dict(), "noise": kernel.noise})
            kernel.resample(torch.Generator().manual_seed(seed))
            total += (kernel(q, k).dense().exp() - expected).square().mean().sqrt().item()
        return total / 10

    one = error()
    assert error(draws=16) < 0.5 * one
    assert error(evaluation="sobol") < 0.6 * one


# IKA T14: the released code mixes the items of a batch.
@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("concat", [False, True])
def test_graphs_of_a_batch_do_not_see_each_other(cls, concat):
    kernel = built(cls, data_dependent=True, concat=concat)
    q, k = points(12), points(9, 1)
    of_query = torch.tensor([3, 0, 1, 0, 1, 1, 3, 0, 3, 1, 0, 1])  # graph 2 is empty, and no order
    of_key = torch.tensor([0, 1, 3, 3, 0, 1, 1, 0, 0])
    whole = kernel(q, k, Context((of_query, of_key))).dense()
    for graph in (0, 1, 3):
        rows, cols = of_query == graph, of_key == graph
        alone = kernel(q[rows], k[cols]).dense()
        torch.testing.assert_close(whole[rows][:, cols], alone)
    assert not torch.allclose(whole, kernel(q, k).dense())
    # As a batch dimension too.
    stacked = kernel(torch.stack([q, 2 * q]), torch.stack([k, -k])).dense()
    torch.testing.assert_close(stacked[1], kernel(2 * q, -k).dense())


@pytest.mark.parametrize("cls", CLASSES)
def test_gradients_of_a_data_dependent_kernel(cls):
    kernel = built(cls, heads=2, num_features=2, data_dependent=True, eps=1e-2)
    q, k = points(3)[:, :2].requires_grad_(), points(4, 1)[:, :2].requires_grad_()
    of_query, of_key = torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0, 1])

    def function(q, k, *parameters):
        named = dict(zip(dict(kernel.named_parameters()), parameters, strict=True))
        losses = []
        context = Context((of_query, of_key), losses)
        gram = torch.func.functional_call(kernel, named, (q, k, context))
        return gram.dense(), losses[0]

    assert torch.autograd.gradcheck(function, (q, k, *kernel.parameters()))


def test_no_nodes_at_all():
    kernel = built(ImplicitSpectral, data_dependent=True)
    nothing = torch.empty(0, dtype=torch.long)
    for context in (Context(), Context(nothing)):
        assert kernel(points(0), points(0), context).dense().shape == (0, 0, H)
    losses = []
    kernel(points(0), points(0), Context(nothing, losses))
    assert losses[0].isfinite()


# --- Penalties --------------------------------------------------------------------------------------------


def test_penalty_by_formula():
    kernel = built(CopulaSpectral, kl_weight=0.3, copula_weight=-0.2, prior_scale=0.5)
    with torch.no_grad():
        kernel.law_parameters.normal_()
    law, losses = kernel.law(), []
    kernel(points(2), points(2), Context(losses=losses))
    ratio = law.sigma / 0.5
    kl = (-ratio.log() + (ratio.square() + (law.mu / 0.5).square()) / 2 - 0.5).sum()
    torch.testing.assert_close(losses, [0.3 * kl - 0.2 * kernel.total_correlation(law)])
    prior = Law(torch.zeros(H, D), torch.full((H, D), 0.5))
    torch.testing.assert_close(kernel.divergence(prior), torch.tensor(0.0))


def test_penalty_is_the_mean_over_graphs():
    kernel = built(ImplicitSpectral, data_dependent=True)
    x, batch = points(6), torch.tensor([0, 0, 1, 1, 1, 0])
    found = []
    kernel(x, x, Context(batch, found))
    for graph in (0, 1):
        part = x[batch == graph]
        kernel(part, part, Context(losses=found))
    torch.testing.assert_close(found[0], (found[1] + found[2]) / 2)


def test_penalties_leave_layers_and_models_one_way():
    edges = torch.randint(0, 6, (2, 20), generator=torch.Generator().manual_seed(0))
    x = torch.randn(6, 4)
    conv = KernelGATConv(4, D, heads=H, kernel="copula_spectral * rbf", magnitude=1.5)
    losses = []
    conv(x, edges, losses=losses)
    conv(x, edges, return_attention_weights=True, losses=losses)
    torch.testing.assert_close(losses[0], losses[1])
    losses[0].backward()
    assert conv.kernel.kernels[0].law_parameters.grad.abs().sum() > 0

    model = KernelGAT(4, 6, 2, 3, heads=3, kernel="implicit_spectral")
    assert model.penalised
    losses = []
    model(x, edges, losses=losses)
    model(x, edges)  # without a list nothing is left behind
    assert len(losses) == 2
    assert not KernelGAT(4, 6, 2, 3, heads=3, kernel="rbf").penalised
    assert (conv.kernel * Magnitude(D, H)).penalised


def test_a_model_sees_the_graphs_of_a_batch():
    torch.manual_seed(0)
    kwargs = {"data_dependent": True}
    model = KernelGAT(4, 6, 2, 3, heads=3, kernel="implicit_spectral", kernel_kwargs=kwargs).eval()
    x, edges = torch.randn(7, 4), torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 0, 4, 5, 6]])
    batch = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    whole = model(x, edges, batch=batch)
    torch.testing.assert_close(whole[:3], model(x[:3], edges[:, :3]))
    torch.testing.assert_close(whole[3:], model(x[3:], edges[:, 3:] - 3))
    # Bipartite, and with edge vectors, which are scored pair by pair.
    conv = KernelGATConv(
        (4, 4), D, kernel="implicit_spectral", kernel_kwargs=kwargs, add_self_loops=False
    ).eval()
    out = conv((x, x[:5]), edges[:, :4], batch=(batch, batch[:5]))
    torch.testing.assert_close(out[:3], conv((x[:3], x[:3]), edges[:, :3]))


# --- Bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_features": 0}, r"even, positive 'num_features' \(got 0\)"),
        ({"num_features": 5}, r"even, positive 'num_features' \(got 5\)"),
        ({"eps": 0.0}, r"positive 'eps' \(got 0.0\)"),
        ({"prior_scale": -1.0}, r"positive 'prior_scale' \(got -1.0\)"),
        ({"num_features": 4.5}, r"even, positive 'num_features' \(got 4.5\)"),
        ({"draws": 0}, r"positive 'draws' \(got 0\)"),
        ({"draws": 1.5}, r"whole, positive 'draws' \(got 1.5\)"),
        ({"kl_weight": math.nan}, r"a finite number as 'kl_weight' \(got nan\)"),
        ({"kl_weight": -0.1}, r"'kl_weight' of at least 0 \(got -0.1\)"),
        ({"evaluation": "mean"}, r"'evaluation' as one of 'frozen', 'sobol' \(got 'mean'\)"),
        ({"init": "zero"}, r"'init' as one of 'dot', 'official' \(got 'zero'\)"),
    ],
)
def test_bad_options(cls, kwargs, message):
    with pytest.raises(ValueError, match=message):
        cls(D, H, **kwargs)


def test_bad_batches():
    kernel = built(ImplicitSpectral, data_dependent=True)
    with pytest.raises(ValueError, match=r"Expected queries and keys because data_dependent=True"):
        kernel.frequencies()
    with pytest.raises(ValueError, match=r"'batch' of shape \[4\], the graph of each query \(got \[3\]"):
        kernel(points(4), points(4), Context(torch.zeros(3, dtype=torch.long)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("data_dependent", [False, True])
def test_half_precision_scores_are_single(dtype, data_dependent):
    torch.manual_seed(0)
    kernel = ImplicitSpectral(D, H, data_dependent=data_dependent).eval()
    q, k = points(4).to(dtype), points(6, 1).to(dtype)
    expected = kernel(q.float(), k.float()).dense()
    torch.testing.assert_close(kernel(q, k).dense(), expected)
    assert kernel.to(dtype)(q, k).dense().dtype == torch.float32
