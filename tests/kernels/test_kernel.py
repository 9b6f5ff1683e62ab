r"""The contract of a kernel: one lift, with a context or without, hooks that speak of it, and its repr."""

import inspect

import pytest
import torch

from kgat import KernelGATConv, kernels
from kgat.kernels import Additive, Context, ImplicitSpectral, Kernel, Magnitude
from kgat.kernels.kernel import NOTHING
from kgat.score.gram import LazyGram

Q, K = torch.randn(4, 2, 3), torch.randn(5, 2, 3)


class Plain(Kernel):
    def lift(self, query, key):
        return LazyGram.of(query, key)


class OfGraph(Kernel):
    penalised = True

    def lift(self, query, key, context=NOTHING):
        if context.losses is not None:
            context.losses.append(key.sum())
        return LazyGram.of(query, key if context.batch is None else 2.0 * key)


def test_a_lift_takes_a_context_where_it_asks_for_one():
    losses, batch = [], torch.zeros(4)
    torch.testing.assert_close(Plain(3, 2)(Q, K, Context(batch)).dense(), Plain(3, 2)(Q, K).dense())
    scores = OfGraph(3, 2)(Q, K, Context(batch, losses)).dense()
    torch.testing.assert_close(scores, 2.0 * Plain(3, 2)(Q, K).dense())
    assert len(losses) == 1
    torch.testing.assert_close(OfGraph(3, 2).lift(Q, K).dense(), Plain(3, 2)(Q, K).dense())
    product = Plain(3, 2) * OfGraph(3, 2)  # the algebra hands the context on
    torch.testing.assert_close(product(Q, K, Context(batch)).dense(), 1.5 * scores)


def test_a_lift_without_context_goes_before_that_of_the_class_above():
    class Fixed(ImplicitSpectral):
        def lift(self, query, key):
            return LazyGram.of(query, key)

    torch.testing.assert_close(Fixed(3, 2)(Q, K).dense(), Plain(3, 2)(Q, K).dense())


def test_the_old_name_of_a_lift_in_context_works():
    with pytest.warns(FutureWarning, match=r"'Old.lift_within' .* 'lift\(query, key, context=NOTHING\)'"):

        class Old(ImplicitSpectral):
            def lift_within(self, query, key, context):
                return super().lift_within(query, 2.0 * key, context)

    old, new = Old(3, 2).eval(), ImplicitSpectral(3, 2).eval()
    old.load_state_dict(new.state_dict())
    losses = []
    found = old(Q, K, Context(losses=losses)).dense()
    torch.testing.assert_close(found, new(Q, 2.0 * K).dense())
    assert len(losses) == 1


def test_hooks_speak_of_one_lift():
    class Named(Additive):
        pass

    class Doubled(Additive):
        def lift(self, query, key):
            return super().lift(2.0 * query, 2.0 * key)

    assert Named(3, 2).masked_by_bias
    assert not Doubled(3, 2).masked_by_bias
    x, edges = torch.randn(4, 6), torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    named = KernelGATConv(6, 3, 2, kernel=Named)
    doubled = KernelGATConv(6, 3, 2, kernel=Doubled)
    doubled.load_state_dict(named.state_dict())
    torch.testing.assert_close(named.to_gat()(x, edges), named(x, edges))
    with pytest.raises(ValueError, match="it needs kernel='additive'"):
        doubled.to_gat()
    query, key, _ = doubled.project(x)
    expected = doubled.kernel(query, key).at(*edges.flip(0))
    _, (_, alpha) = doubled(x, edges, return_attention_weights=True)
    loops = doubled.kernel(query, key).at(torch.arange(4), torch.arange(4))
    wanted = torch.stack([expected[[3, 0, 1, 2]], loops]).softmax(0)[1]
    torch.testing.assert_close(alpha[4:], wanted)
    assert not hasattr(KernelGATConv(6, 3, 2, kernel=Magnitude), "att_src")


def test_features_are_folded_where_they_are_few(monkeypatch):
    kernel, weight = Additive(3, 2), torch.randn(6, 5)
    few, many = torch.randn(4, 5), torch.randn(4, 13)
    assert kernel.of_features(few, weight, few, weight) is None  # few numbers take one pass anyway
    monkeypatch.setattr("kgat.kernels.additive.SMALL", 0)
    folded = kernel.of_features(few, weight, few, weight)
    z = (few @ weight.T).view(4, 2, 3)
    torch.testing.assert_close(folded.dense(), kernel(z, z).dense(), rtol=1e-4, atol=1e-5)
    assert kernel.of_features(many, torch.randn(6, 13), many, torch.randn(6, 13)) is None
    assert Plain(3, 2).of_features(few, weight, few, weight) is None


class Learner(Kernel):
    def __init__(self, channels, heads=1):
        super().__init__(channels, heads)
        self.learn(offset=-2)
        self.learn_positive(scale=3.0)

    def score(self, query, key):
        return (query * key).sum(dim=-1) * self.log_scale.exp().squeeze(-1) + self.offset.squeeze(-1)


def test_numbers_that_a_kernel_learns():
    kernel = Learner(4, 2)
    start = {"offset": torch.full((2, 1), -2.0), "log_scale": torch.full((2, 1), 3.0).log()}
    for _ in range(2):
        assert kernel.state_dict().keys() == start.keys()
        assert all(torch.equal(kernel.state_dict()[name], value) for name, value in start.items())
        with torch.no_grad():
            for parameter in kernel.parameters():
                parameter.add_(1.0)
        kernel.reset_parameters()
    assert kernel.undecayed == ("log_scale",)
    assert (kernel.initial_offset, kernel.initial_scale) == (-2, 3.0)
    with pytest.raises(ValueError, match=r"positive 'scale' \(got 0.0\)"):
        kernel.learn_positive(scale=0.0)


# Of arguments that do not take any number, a value that is not the default.
OTHERS = {
    **{"num_features": 6, "degree": 4, "power": 6, "num_layers": 3, "grid_size": 3, "spline_order": 2},
    **{"draws": 2, "p": 1.5, "init": "official", "kind": "hyperbolic", "law": "cauchy", "per": "layer"},
    **{"learn_p": "head", "evaluation": "sobol"},
}


@pytest.mark.parametrize("name", kernels.names())
def test_a_repr_shows_what_is_not_as_usual(name):
    cls = getattr(kernels, name)
    usual = repr(cls(4, 2))
    assert usual.replace("\n  ", "").startswith(f"{name}(4, heads=2")
    for parameter in list(inspect.signature(cls).parameters.values())[2:]:
        value = not parameter.default if isinstance(parameter.default, bool) else 0.5
        value = OTHERS.get(parameter.name, value)
        assert f", {parameter.name}={value!r}" in repr(cls(4, 2, **{parameter.name: value}))
        assert parameter.name not in usual


class Fitted(Kernel):
    def __init__(self, channels, heads=1, points=None, net=None, **kwargs):
        super().__init__(channels, heads)
        self.net = net


def test_a_repr_takes_any_argument():
    assert repr(Fitted(4, points=torch.ones(2))) == "Fitted(4, heads=1, points=tensor([1., 1.]))"
    assert repr(Fitted(4, points=None, law="own")) == "Fitted(4, heads=1, law='own')"
    assert repr(Fitted(4, net=torch.nn.ReLU())).split() == [
        "Fitted(",
        "4,",
        "heads=1",
        "(net):",
        "ReLU()",
        ")",
    ]
    assert repr(Magnitude(4, p=2)) == "Magnitude(4, heads=1)"  # 2 is 2.0
