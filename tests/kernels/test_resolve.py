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


def test_registry():
    assert names() == sorted(names())
    assert not {"Kernel", "Product", "Sum"} & set(names())
    assert len(names()) == len(kernels.__all__) - 3
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
    for alias, name in kernels._ALIASES.items():
        assert name in names()
        assert type(resolve(alias, 4)).__name__ == name


def test_short_names_of_models_name_kernels():  # what 'kgat compare' calls them, a layer takes too
    for model in MODELS.values():
        if model.has_kernel:
            assert type(resolve(model.name, 4)).__name__ == model.kwargs["kernel"]


def test_products_and_sums():
    kernel = resolve("rbf * magnitude", 4, 2)
    assert type(kernel) is Product
    assert [type(k) for k in kernel.kernels] == [RBF, Magnitude]
    kernel = resolve("dot + rbf*laplace", 4, 2)
    assert type(kernel) is Sum
    assert [type(k) for k in kernel.kernels] == [DotProduct, Product]
    assert (kernel.channels, kernel.heads) == (4, 2)


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
    with pytest.raises(ValueError, match=r"got 'rbg'\); choose from AbsoluteDifference, .*Spectral"):
        resolve("rbf*rbg", 4)
    for name in ("", "rbf*", "kernel", "product", "rbf+"):
        with pytest.raises(ValueError, match="Expected the name of a kernel"):
            resolve(name, 4)


def test_unknown_arguments_name_the_known_ones():
    with pytest.raises(ValueError, match=r"got 'scale'\); it takes 'lengthscale'"):
        resolve("rbf", 4, scale=1.0)
    with pytest.raises(ValueError, match=r"got 'scale'\); it takes none"):
        resolve(DotProduct, 4, scale=1.0)
    with pytest.raises(ValueError, match=r"RBF \* Magnitude \(got 'q'\).*'learn_p', 'lengthscale', 'p'"):
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
