import functools
import pickle

import pytest
import torch

from kgat import KernelGATConv, datasets, functional, kernels, names
from kgat.experiments.registry import resolve_model
from kgat.models import KernelGAT, KernelTransformer
from kgat.nn import KernelAttention, PrimalAttention
from kgat.nn.attention import resolve as resolve_attention

pytestmark = pytest.mark.quick

X = torch.randn(7, 6)
EDGES = torch.randint(7, (2, 20))


def seeded(factory):
    torch.manual_seed(0)
    return factory().eval()


def pairs(kernel):
    x = torch.randn(7, kernel.heads, kernel.channels)
    return [term.rule.pair for term in kernel(x, x).terms]


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("rbf*l1.5", {"kernel": "rbf", "magnitude": 1.5}),
        ("RBF * Lp", {"kernel": "rbf", "magnitude": "learned"}),
        (
            "spectral[num_features=4]*l2",
            {"kernel": "spectral", "kernel_kwargs": {"num_features": 4}, "magnitude": 2},
        ),
        ("rbf[lengthscale=2]", {"kernel": functools.partial(kernels.RBF, lengthscale=2.0)}),
        (
            "rbf[lengthscale=2]*laplace",
            {
                "kernel": lambda channels, heads: (
                    kernels.RBF(channels, heads, 2.0) * kernels.Laplace(channels, heads)
                )
            },
        ),
        (
            "additive+rbf",
            {"kernel": lambda *sizes: kernels.Sum(kernels.Additive(*sizes), kernels.RBF(*sizes))},
        ),
    ],
)
def test_a_name_means_the_same_wherever_a_kernel_is_asked_for(name, kwargs):
    conv, expected = (
        seeded(lambda: KernelGATConv(6, 4, 2, kernel=name)),
        seeded(lambda: KernelGATConv(6, 4, 2, **kwargs)),
    )
    assert repr(conv) == repr(expected)
    assert conv.state_dict().keys() == expected.state_dict().keys()
    assert torch.equal(conv(X, EDGES), expected(X, EDGES))
    if "+" not in name:  # one pass over the edges each, by the same rules
        assert pairs(conv.kernel) == pairs(expected.kernel)

    built = repr(kernels.resolve(name, 4, 2))
    width = {"in_channels": 6, "hidden_channels": 8, "num_layers": 2, "out_channels": 8, "heads": 2}
    stack = KernelGAT(**width, kernel=resolve_model(name).kwargs["kernel"])
    transformer = KernelTransformer(8, num_layers=1, num_heads=2, attention=name)
    attentions = [KernelAttention(8, 2, kernel=name), resolve_attention(name)(8, num_heads=2)]
    attentions += [layer.self_attn for layer in transformer.encoder]
    assert {repr(module.kernel) for module in [conv, *attentions, stack.convs[0]]} == {built}


def test_features_of_a_named_kernel_reach_primal_attention():
    attention = PrimalAttention(8, 2, kernel="favor_plus[num_features=5]")
    assert attention.kernel.num_features == 5


@pytest.mark.parametrize(
    ("call", "nearest"),
    [
        (lambda: KernelGATConv(6, 4, kernel="laplac"), "laplace"),
        (lambda: KernelGATConv(6, 4, kernel="rbff"), "rbf"),
        (lambda: KernelAttention(8, 2, kernel="gausian*l2"), "gaussian"),
        (lambda: KernelAttention(8, 2, position="rotry"), "rotary"),
        (lambda: resolve_attention("furier"), "fourier"),
        (lambda: resolve_attention("rbf*laplac"), "laplace"),
        (lambda: resolve_model("implict*l2"), "implicit"),
        (lambda: resolve_model("rbff"), "rbf"),  # 'rff' is as near, and not among the choices
        (lambda: datasets.load("Corra"), "Cora"),
        (lambda: datasets.load_sequences("ListOp"), "ListOps"),
    ],
)
def test_an_unknown_name_meets_the_nearest(call, nearest):
    with pytest.raises(ValueError, match=rf"choose from: .*; did you mean '{nearest}'\?$"):
        call()


def test_unknown_names_travel_between_processes():
    with pytest.raises(names.UnknownName) as caught:
        names.unknown("a fruit", "aple", ["apple", "pear"])
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.name) == (str(caught.value), "aple")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (int, "4", 4),
        (float, "2", 2.0),
        (float, 2, 2.0),
        (bool, "True", True),
        (str, "a", "a"),
        (int | None, "none", None),
        (float | None, "None", None),
    ],
)
def test_values_in_text(kind, text, value):
    converted = names.converted("x", kind, text)
    assert (type(converted), converted) == (type(value), value)
    assert names.converted("x", kind, names.shown(value)) == value


@pytest.mark.parametrize(
    ("kind", "text"), [(int, "4.5"), (int, True), (float, "two"), (bool, "yes"), (int, "none")]
)
def test_values_of_another_type(kind, text):
    with pytest.raises(ValueError, match=r"Expected 'x' as .* .got .*change it with --set x=VALUE"):
        names.converted("x", kind, text)


@pytest.mark.parametrize("text", ["rbf**l2", "additive+", "+additive", "rbf*", "()", "[lengthscale=2]"])
def test_a_missing_name_is_told_with_the_whole_text(text):
    with pytest.raises(ValueError, match=r"choose from: AbsoluteDifference") as caught:
        kernels.resolve(text, 1, 4)
    assert f"'{text}'" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["(" * 5000 + "rbf" + ")" * 5000, "spectral[num_features=99999999999999999999]"]
)
def test_what_is_too_deep_or_too_large_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"^Expected .*got"):
        kernels.resolve(text, 1, 4)


def test_an_unknown_backend_or_method_meets_the_nearest():
    x = torch.randn(7, 1, 4)
    gram = kernels.RBF(4)(x, x)
    with pytest.raises(ValueError, match=r"'backend' as .* .got 'eagr'.; did you mean 'eager'\?$"):
        functional.edge_attention(gram, x, EDGES, backend="eagr")
    with pytest.raises(ValueError, match=r"'method' as .* .got 'liner'.; did you mean 'linear'\?$"):
        functional.dense_attention(gram, x, method="liner")
