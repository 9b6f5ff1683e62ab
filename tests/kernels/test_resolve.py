import math
from functools import partial

import pytest
import torch

from kgat import kernels
from kgat.experiments.registry import MODELS
from kgat.kernels import (
    RBF,
    Additive,
    AdditiveV2,
    DotProduct,
    FAVORPlus,
    ImplicitSpectral,
    Kernel,
    Laplace,
    Magnitude,
    Product,
    ScaledCosine,
    SincProduct,
    Spectral,
    Sum,
    names,
    resolve,
)
from kgat.names import normalized

pytestmark = pytest.mark.quick


def test_registry():
    assert names() == sorted(names())
    assert not {"Kernel", "PerHead", "Product", "Sum"} & set(names())
    assert len(names()) == len(kernels.__all__) - 4
    defined = {
        name for name, value in vars(kernels).items() if isinstance(value, type) and issubclass(value, Kernel)
    }
    assert defined == set(kernels.__all__)


@pytest.mark.parametrize("name", names())
def test_every_name(name):
    for spelling in (name, name.lower(), name.upper(), f" {name[:2]}-{name[2:4]}_{name[4:]} "):
        kernel = resolve(spelling, 4, 2)
        assert type(kernel) is getattr(kernels, name)
        assert (kernel.channels, kernel.heads) == (4, 2)


ALIASES = {
    "dot": DotProduct,
    "gat": Additive,
    "GATv2": AdditiveV2,
    "agnn": ScaledCosine,
    "sinc": SincProduct,
    "gaussian": RBF,
    "ikan_direct": Spectral,
    "dot_product": DotProduct,
    "performer": FAVORPlus,
}


@pytest.mark.parametrize(("name", "cls"), ALIASES.items())
def test_aliases(name, cls):
    assert type(resolve(name, 4)) is cls


def test_every_alias_names_a_kernel():
    for alias, name in kernels.CATALOGUE.aliases.items():
        assert alias == normalized(alias)
        assert type(resolve(alias, 4)) is type(resolve(name, 4))


def test_short_names_of_models_name_kernels():  # what 'kgat compare' calls them, a layer takes too
    for model in MODELS.values():
        if model.has_kernel:
            assert type(resolve(model.name, 4)) is type(resolve(model.kwargs["kernel"], 4))
            assert model.kwargs["kernel"] == model.name


def test_products_and_sums():
    kernel = resolve("rbf * magnitude", 4, 2)
    assert type(kernel) is Product
    assert [type(k) for k in kernel.kernels] == [RBF, Magnitude]
    kernel = resolve("dot + rbf*laplace", 4, 2)
    assert type(kernel) is Sum
    assert [type(k) for k in kernel.kernels] == [DotProduct, Product]
    assert (kernel.channels, kernel.heads) == (4, 2)


def test_parentheses():
    kernel = resolve("(rbf + laplace) * l2 * (dot)", 4, 2)
    assert type(kernel) is Product
    assert [type(k) for k in kernel.kernels] == [Sum, Magnitude, DotProduct]
    assert repr(resolve("(rbf*laplace)*dot", 4)) == repr(resolve("rbf*laplace*dot", 4))


@pytest.mark.parametrize(
    ("name", "built"),
    [
        ("rbf*l1.5", lambda: RBF(4, 2) * Magnitude(4, 2, p=1.5)),
        ("RBF * L2", lambda: RBF(4, 2) * Magnitude(4, 2, p=2.0)),
        ("rbf*linf", lambda: RBF(4, 2) * Magnitude(4, 2, p=math.inf)),
        ("rbf*lp", lambda: RBF(4, 2) * Magnitude(4, 2, learn_p="layer")),
        ("magnitude[p=3, learn-p=head]*rbf", lambda: Magnitude(4, 2, 3.0, "head") * RBF(4, 2)),
        ("rbf[lengthscale=2]*laplace", lambda: RBF(4, 2, 2.0) * Laplace(4, 2)),
        ("rbf[lengthscale=none]", lambda: RBF(4, 2)),
        ("spectral[num_features=3, stationary=true]", lambda: Spectral(4, 2, 3, True)),
        ("spectral[num_features=4]*l2", lambda: Spectral(4, 2, 4) * Magnitude(4, 2)),
        ("additive+rbf[lengthscale=3]", lambda: Additive(4, 2) + RBF(4, 2, 3.0)),
        ("implicit[init=official]", lambda: ImplicitSpectral(4, 2, init="official")),
    ],
)
def test_orders_and_arguments_in_names(name, built):
    torch.manual_seed(0)
    kernel = resolve(name, 4, 2).eval()
    torch.manual_seed(0)
    expected = built().eval()
    assert repr(kernel) == repr(expected)
    assert kernel.state_dict().keys() == expected.state_dict().keys()
    q, k = torch.randn(5, 2, 4), torch.randn(3, 2, 4)
    assert torch.equal(kernel(q, k).dense(), expected(q, k).dense())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("laplac", r"did you mean 'laplace'\?$"),
        ("rbf*scaled_cosin", r"got 'scaled_cosin'.*did you mean 'scaled_cosine'\?$"),
        ("spectral[num_feature=4]", r"Spectral takes num_features, .*did you mean 'num_features'\?$"),
        ("rbf[length=2]", r"RBF takes lengthscale"),
        ("rbf[lengthscale=2,lengthscale=3]", "each once .got 'lengthscale=3'"),
        ("rbf[]", r"ARGUMENT=VALUE.* .got ''.; RBF takes lengthscale$"),
        ("dot[scale=2]", r"DotProduct takes no arguments$"),
        ("rbf[lengthscale=two]", r"a number .got 'two'.*rbf\[lengthscale=VALUE\]"),
        ("rbf[channels=2]", r"got 'channels=2'"),
        ("rbf[lengthscale=2", r"NAME\[ARGUMENT=VALUE.*'\[' does not fit"),
        ("rbf[lengthscale=2]laplace", "'laplace' does not fit"),
        ("(rbf*laplace", r"'\(' does not fit"),
        ("rbf)", r"'\)' does not fit"),
        ("rbf*l0.5", "'p' of at least 1"),
        ("rbf*l-1", "name of a kernel .got 'l-1'"),
    ],
)
def test_errors_of_the_grammar(name, message):
    with pytest.raises(ValueError, match=message):
        resolve(name, 4)


def test_brackets_go_before_arguments_for_all():
    rbf, laplace = resolve("rbf[lengthscale=2]*laplace", 4, lengthscale=3.0).kernels
    assert (rbf.initial_lengthscale, laplace.initial_lengthscale) == (2.0, 3.0)


def test_arguments_reach_the_parts_that_know_them():
    assert resolve("rbf", 4, lengthscale=3.0).initial_lengthscale == 3.0
    product = resolve("rbf*magnitude*laplace", 4, p=1.5, lengthscale=3.0)
    rbf, magnitude, laplace = product.kernels
    assert rbf.initial_lengthscale == laplace.initial_lengthscale == 3.0
    assert magnitude.initial_p == 1.5
    assert resolve(RBF, 4, lengthscale=3.0).initial_lengthscale == 3.0
    assert resolve(partial(RBF, lengthscale=3.0), 4).initial_lengthscale == 3.0
    assert resolve(partial(RBF), 4, lengthscale=3.0).initial_lengthscale == 3.0


def test_factories_and_instances():
    assert type(resolve(lambda c, h: RBF(c, h) * Laplace(c, h), 4, 2)) is Product
    kernel = RBF(4, 2)
    assert resolve(kernel, 4, 2) is kernel


def test_unknown_names_list_the_choices():
    with pytest.raises(
        ValueError, match=r"got 'rbg'\); choose from: AbsoluteDifference, .*; did you mean 'rbf'\?"
    ):
        resolve("rbf*rbg", 4)
    for name in ("", "rbf*", "kernel", "product", "rbf+"):
        with pytest.raises(ValueError, match="Expected the name of a kernel"):
            resolve(name, 4)


def test_unknown_arguments_name_the_known_ones():
    with pytest.raises(ValueError, match=r"got 'scale'\); it takes 'lengthscale'"):
        resolve("rbf", 4, scale=1.0)
    with pytest.raises(ValueError, match=r"got 'scale'\); it takes none"):
        resolve(DotProduct, 4, scale=1.0)
    with pytest.raises(ValueError, match=r"RBF \* Magnitude \(got 'q'\).*'lengthscale', 'p', 'learn_p'"):
        resolve("rbf*magnitude", 4, q=1.0)
    with pytest.raises(ValueError, match=r"no arguments beside a kernel .*\(got 'p'\)"):
        resolve(RBF(4), 4, p=1.0)


def test_wrong_sizes():
    with pytest.raises(ValueError, match=r"channels=4, heads=2 \(got RBF\(4, heads=1\)\)"):
        resolve(RBF(4), 4, 2)
    with pytest.raises(ValueError, match=r"channels=4, heads=2 \(got RBF\(5, heads=2\)\)"):
        resolve(lambda c, h: RBF(c + 1, h), 4, 2)


@pytest.mark.parametrize("thing", [None, 3, dict, torch.nn.Linear, torch.nn.Linear(4, 2), Kernel, Sum])
def test_what_is_no_kernel(thing):
    with pytest.raises(TypeError, match="Expected a"):
        resolve(thing, 4, 2)


def test_a_factory_of_something_else():
    with pytest.raises(TypeError, match="to return a 'Kernel'"):
        resolve(lambda c, h: torch.nn.Linear(c, h), 4, 2)
    with pytest.raises(
        TypeError, match=r"called with \(channels, heads\) and returns a 'Kernel'.*a formula of"
    ):
        resolve(lambda query, key: (query * key).sum(-1), 4, 2)
    for factory in (lambda channels: RBF(channels, 2), torch.nn.functional.cosine_similarity):
        with pytest.raises(TypeError, match=r"a class or a factory called with \(channels, heads\)"):
            resolve(factory, 4, 2)

    class Forgetful(RBF):
        def __init__(self, channels, heads=1):
            pass

    with pytest.raises(
        TypeError, match=r"'Forgetful' to know its channels and heads.*super\(\).__init__\(ch"
    ):
        resolve(Forgetful, 4, 2)
