import pytest
import torch

from kgat import kernels
from kgat.experiments.registry import MODELS, Model, resolve_model
from kgat.models import KernelGAT


@pytest.mark.parametrize(
    ("given", "name", "kwargs"),
    [
        ("GAT", "gat", {}),
        ("Dot Product", "dot", {"kernel": "DotProduct"}),
        ("sinc_product", "sinc", {"kernel": "SincProduct"}),
        ("agnn", "scaled_cosine", {"kernel": "ScaledCosine"}),
        ("rbf*l2", "rbf*l2", {"kernel": "RBF", "magnitude": 2.0}),
        ("RBF * L1.50", "rbf*l1.5", {"kernel": "RBF", "magnitude": 1.5}),
        ("rbf*l2.0000001", "rbf*l2.0000001", {"kernel": "RBF", "magnitude": 2.0000001}),
        ("spectral*lp", "spectral*lp", {"kernel": "Spectral", "magnitude": "learned"}),
        ("rbf*laplace", "rbf*laplace", {"kernel": "RBF * Laplace"}),
        ("rbf+dot", "rbf+dot", {"kernel": "RBF + DotProduct"}),
        ("rbf@separate", "rbf@separate", {"kernel": "RBF", "projections": "separate"}),
        (
            "RBF * laplace @ Shared-QK",
            "rbf*laplace@shared_qk",
            {"kernel": "RBF * Laplace", "projections": "shared_qk"},
        ),
        (
            "spectral[num_features=4]",
            "spectral[num_features=4]",
            {"kernel": "Spectral", "kernel_kwargs": {"num_features": 4}},
        ),
        (
            "IKAN[ Stationary = True, num-features=32 ] * L1.50",
            "implicit[num_features=32,stationary=true]*l1.5",
            {
                "kernel": "ImplicitSpectral",
                "kernel_kwargs": {"num_features": 32, "stationary": True},
                "magnitude": 1.5,
            },
        ),
        (
            "spectral[eps=0.0000001,init=official]*lp@shared",
            "spectral[init=official,eps=1e-07]*lp@shared",
            {
                "kernel": "Spectral",
                "kernel_kwargs": {"init": "official", "eps": 1e-7},
                "magnitude": "learned",
                "projections": "shared",
            },
        ),
        (
            "rbf[lengthscale=2.0]",
            "rbf[lengthscale=2]",
            {"kernel": "RBF", "kernel_kwargs": {"lengthscale": 2.0}},
        ),
        (
            "favor_plus[num_features=none]",
            "favor_plus[num_features=none]",
            {"kernel": "FAVORPlus", "kernel_kwargs": {"num_features": None}},
        ),
        (
            "additive_v2@separate",
            "additive_v2@separate",
            {"kernel": "AdditiveV2", "projections": "separate", "projection_bias": True},
        ),
    ],
)
def test_names_of_models(given, name, kwargs):
    model = resolve_model(given)
    assert (model.name, dict(model.kwargs)) == (name, kwargs)
    assert resolve_model(model.name) == model


def test_every_kernel_is_a_model_or_can_be_negative():
    built = {model.kwargs["kernel"] for model in MODELS.values() if model.kwargs}
    x = torch.randn(9, 1, 4)
    signed = {name for name in kernels.names() if kernels.resolve(name, 4)(x, x).signed}
    assert built == set(kernels.names()) - signed


@pytest.mark.parametrize(
    "name", ["", "*", "gta", "cosine", "rff", "rbf*", "gat*l2", "rbf*l0.5", "rbf+dot*l2"]
)
def test_unknown_models(name):
    with pytest.raises(ValueError, match=r"Expected .* model .*gat, gatv2|Expected an L"):
        resolve_model(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gat[negative_slope=0.1]", "name of a kernel before.*stock layers.*use gat$"),
        ("gatv2@separate", "name of a kernel before.*stock layers.*use gatv2$"),
        ("gta@separate", "name of a model .*choose from: gat, gatv2"),
        ("rbf@apart", r"projections after '@' .*choose from: shared, shared_qk, shared_kv, separate"),
        ("rbf@", "projections after '@'"),
        ("rbf@separate@shared", r"KERNEL\[ARGUMENT=VALUE,...\]\*lP@PROJECTIONS"),
        ("rbf@separate*l2", "projections after '@'"),
        ("rbf[lengthscale=1", "KERNEL"),
        ("rb[lengthscale=1]f", "KERNEL"),
        ("[lengthscale=1]", "name of a model"),
        ("rbf[]", "ARGUMENT=VALUE.*choose from: lengthscale$"),
        ("rbf[lengthscale]", "ARGUMENT=VALUE.*got 'lengthscale'"),
        ("rbf[lengthscale=]", "ARGUMENT=VALUE"),
        ("spectral[features=4]", "got 'features=4'.*choose from: num_features, stationary, init, eps$"),
        ("spectral[channels=4]", "got 'channels=4'"),
        ("spectral[num_features=4,num_features=8]", "each once .got 'num_features=8'"),
        ("dot[offset=1]", "DotProduct takes no arguments"),
        ("spectral[num_features=4.5]", r"a whole number .*spectral\[num_features=VALUE\]"),
        ("spectral[stationary=yes]", "true or false"),
        ("implicit[num_features=3]", "even, positive 'num_features'"),
        ("rbf*spectral[num_features=4]", "a single kernel"),
        ("spectral[num_features=4]*rbf", "a single kernel"),
        ("rbf[lengthscale=1]*l0.5", r"L\^p magnitude with p of at least 1"),
    ],
)
def test_arguments_and_projections_that_cannot_be(name, message):
    with pytest.raises(ValueError, match=f"Expected .*{message}"):
        resolve_model(name)


def test_arguments_that_let_a_kernel_be_negative(monkeypatch):
    class Shifted(kernels.Kernel):
        def __init__(self, channels, heads=1, shift: float = 0.0):
            super().__init__(channels, heads)
            self.shift = shift

        def lift(self, query, key):
            rule = kernels.spectral.ScoreRule(link=kernels.spectral.SIGNED) if self.shift else None
            return kernels.spectral.LazyGram.of(query, key, *([rule] if rule else []))

    monkeypatch.setattr(kernels, "Shifted", Shifted, raising=False)
    monkeypatch.setattr(kernels, "__all__", [*kernels.__all__, "Shifted"])
    monkeypatch.setitem(MODELS, "shifted", Model("shifted", KernelGAT, {"kernel": "Shifted"}))
    assert resolve_model("shifted[shift=0]").name == "shifted[shift=0]"
    with pytest.raises(ValueError, match=r"nowhere negative .got 'shifted.shift=1.'"):
        resolve_model("shifted[shift=1]")
