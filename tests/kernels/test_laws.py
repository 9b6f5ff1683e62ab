import copy
import inspect
import math
from functools import partial

import pytest
import torch

from kgat import kernels
from kgat.kernels import (
    RBF,
    RFA,
    Additive,
    Constant,
    CopulaSpectral,
    Cosine,
    DotProduct,
    FAVORPlus,
    ImplicitSpectral,
    KANScore,
    Laplace,
    LeakyCosine,
    Linear,
    Magnitude,
    Polynomial,
    Product,
    RandomFourier,
    ScaledCosine,
    SincProduct,
    Spectral,
    SpectralConcat,
    Sum,
    TruncatedExponential,
)
from kgat.testing import check_kernel


@pytest.mark.parametrize("name", kernels.names())
def test_every_kernel_of_the_registry(name):
    check_kernel(getattr(kernels, name))


@pytest.mark.parametrize("name", kernels.names())
def test_every_kernel_with_one_channel_in_single_precision(name):
    check_kernel(getattr(kernels, name), channels=1, heads=2, dtype=torch.float32, seed=1)


OPTIONS = [
    partial(Additive, negative_slope=0.0),
    partial(Additive, negative_slope=1e-300),
    partial(CopulaSpectral, num_features=4, concat=True, draws=2),
    partial(FAVORPlus, kind="hyperbolic"),
    partial(FAVORPlus, num_features=3, orthogonal=False),
    partial(ImplicitSpectral, num_features=4, stationary=True, evaluation="sobol"),
    partial(ImplicitSpectral, num_features=2, concat=True, stationary=True, init="official"),
    partial(KANScore, num_layers=1),
    partial(KANScore, num_layers=3, grid_size=1, spline_order=2),
    partial(LeakyCosine, negative_slope=1.0),
    partial(Magnitude, p=1.0),
    partial(Magnitude, p=1.5),
    partial(Magnitude, p=3.0, scale_norm=True),
    partial(Magnitude, dropout=0.5),
    partial(Magnitude, p=1.8, learn_p="layer"),
    partial(Magnitude, p=2.0, learn_p="head", scale_norm=True),
    partial(Polynomial, offset=0.5, eps=1e-3),
    partial(Polynomial, offset=-0.5),
    *(partial(RandomFourier, num_features=9, law=law) for law in ("cauchy", "sinc1", "sinc4")),
    *(partial(RandomFourier, num_features=3, law=law, squared=True) for law in ("normal", "cauchy", "sinc2")),
    partial(ScaledCosine, beta=-1.0),
    partial(RFA, num_features=7, learn_sigma=True),
    partial(SincProduct, per="layer", power=2),
    partial(SincProduct, per="channel", power=6),
    partial(Spectral, num_features=3, stationary=True),
    partial(Spectral, num_features=3, init="official"),
    partial(SpectralConcat, num_features=2, init="official"),
    partial(TruncatedExponential, degree=4),
    partial(TruncatedExponential, degree=6),
    partial(TruncatedExponential, degree=8),
]


@pytest.mark.parametrize("factory", OPTIONS, ids=lambda f: f"{f.func.__name__}-{f.keywords}")
def test_options(factory):
    check_kernel(factory)


COMPOSITES = {
    "rbf*magnitude": lambda c, h: RBF(c, h) * Magnitude(c, h, p=1.5, learn_p="head"),
    "dot*laplace": lambda c, h: DotProduct(c, h) * Laplace(c, h),
    "spectral*magnitude": lambda c, h: Spectral(c, h, num_features=2) * Magnitude(c, h, p=3.0),
    "truncated*laplace": lambda c, h: TruncatedExponential(c, h) * Laplace(c, h),
    "linear*cosine": lambda c, h: Linear(c, h) * Cosine(c, h),
    "dot+laplace": lambda c, h: DotProduct(c, h) + Laplace(c, h),
    "polynomial+polynomial": lambda c, h: Polynomial(c, h) + Polynomial(c, h, offset=1.0),
    "linear+cosine": lambda c, h: Linear(c, h) + Cosine(c, h),
    "(dot+rbf)*additive": lambda c, h: (DotProduct(c, h) + RBF(c, h)) * Additive(c, h),
    "additive*(dot+(rbf+laplace)*laplace)": lambda c, h: (
        Additive(c, h) * Sum(DotProduct(c, h), Product(RBF(c, h) + Laplace(c, h), Laplace(c, h)))
    ),
    "constant*additive+constant*rbf": lambda c, h: (
        Constant(c, h, 3.0) * Additive(c, h) + Constant(c, h) * RBF(c, h)
    ),
    "(dot+rbf)*(dot+laplace)": lambda c, h: (
        (DotProduct(c, h) + RBF(c, h)) * (DotProduct(c, h) + Laplace(c, h))
    ),
}


@pytest.mark.parametrize("factory", COMPOSITES.values(), ids=COMPOSITES.keys())
def test_products_and_sums(factory):
    check_kernel(factory)


FACTORIES = {
    **{name: getattr(kernels, name) for name in kernels.names()},
    **{f"{f.func.__name__}-{f.keywords}": f for f in OPTIONS},
    **COMPOSITES,
}


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES.keys())
def test_forward_and_backward_derivatives_are_the_same(factory):
    generator = torch.Generator().manual_seed(0)
    kernel = factory(4, 2).double().eval()
    x = torch.randn(3, 2, 4, generator=generator).double()
    parameters = {name: p.detach().clone() for name, p in kernel.named_parameters()}

    def score(x, parameters):
        gram = torch.func.functional_call(kernel, parameters, (x, x + 0.3))
        if gram.signed:
            f, g = gram.features()
            return torch.einsum("nhr,mhr->nmh", f, g)
        # Weights alone would not see a factor in all scores of a query.
        return torch.cat(
            [gram.dense().softmax(dim=1), gram.up_to_query().dense().softmax(dim=1), gram.dense()]
        )

    forward = torch.func.jacfwd(score, argnums=(0, 1))(x, parameters)
    backward = torch.func.jacrev(score, argnums=(0, 1))(x, parameters)
    torch.testing.assert_close(forward, backward, rtol=1e-9, atol=1e-9)


NUMBERS = (math.nan, math.inf, -math.inf, 0, -1, 1e-310, 1e-18, 1e18, 1e39, 1e200, "a")


@pytest.mark.parametrize("name", kernels.names())
def test_numbers_that_serve_no_one_are_refused_in_a_sentence(name):
    cls = getattr(kernels, name)
    x = torch.ones(3, 2, 4).cumsum(0) / 4
    for parameter in inspect.signature(cls).parameters.values():
        number = isinstance(parameter.default, int | float | None) and not isinstance(parameter.default, bool)
        if parameter.name in ("channels", "heads", "p") or not number:
            continue
        for value in NUMBERS:
            try:
                gram = cls(4, 2, **{parameter.name: value})(x, x)
            except ValueError as error:
                assert str(error).startswith("Expected ")  # noqa: PT017
            else:
                assert gram.signed or gram.dense().isfinite().all(), (parameter.name, value)


# The logarithm of a square near 0 magnifies the rounding of single precision.
OF_SQUARES = ("Spectral", "spectral", "squared")
DATA_DEPENDENT = {
    f"{cls.__name__}-{options}": partial(cls, num_features=4, data_dependent=True, **options)
    for cls in (ImplicitSpectral, CopulaSpectral)
    for options in ({}, {"concat": True})
}


def of_pairs(kernel, query, key):
    gram = kernel(query, key)
    if gram.signed:
        f, g = gram.features()
        return torch.einsum("nhr,mhr->nmh", f, g)
    row, col = torch.arange(5).repeat(2), torch.arange(10)
    return torch.cat([gram.dense().flatten(0, 1), gram.at(row, col)])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", {**FACTORIES, **DATA_DEPENDENT})
def test_modules_in_half_precision_compute_in_single_precision(name, dtype):
    generator = torch.Generator().manual_seed(0)
    kernel = {**FACTORIES, **DATA_DEPENDENT}[name](16, 2).eval()
    with torch.no_grad():
        for p in kernel.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    half = kernel.to(dtype)
    x, y = (torch.randn(n, 2, 16, generator=generator).to(dtype) for n in (5, 10))
    single, double = copy.deepcopy(half).float(), copy.deepcopy(half).double()  # of the same, rounded numbers
    found = of_pairs(half, x, y)
    wanted = of_pairs(single, x.float(), y.float())
    assert found.dtype == torch.float32
    assert torch.equal(found, wanted)
    tolerance = 3e-4 if any(part in name for part in OF_SQUARES) else 2e-5
    torch.testing.assert_close(
        found.double(), of_pairs(double, x.double(), y.double()), rtol=tolerance, atol=tolerance
    )
    slope = torch.linspace(-1, 1, found.numel()).view_as(found)
    for scores in (found, wanted):
        if scores.requires_grad:
            (scores * slope).sum().backward()
    for (own, p), q in zip(half.named_parameters(), single.parameters(), strict=True):
        if q.grad is not None:  # rounded once for each time that a kernel takes the parameter
            assert p.grad.dtype == dtype
            eps = 4 * torch.finfo(dtype).eps
            scale = eps * max(1e-3, float(q.grad.abs().max()))
            torch.testing.assert_close(p.grad.float(), q.grad, rtol=eps, atol=scale, msg=own)
