r"""A score that a subclass of any kernel writes is what all routes compute. What was said of the lift that it
takes the place of is said no more."""

import pytest
import torch

from kgat import KernelAttention, KernelGATConv, kernels
from kgat.kernels import RBF, Additive, Context, ImplicitSpectral, Kernel, PerHead, Product, Sum
from kgat.testing import check_kernel

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(6, 8, generator=GENERATOR)
TOKENS = torch.randn(2, 6, 8, generator=GENERATOR)
EDGES = torch.tensor([[0, 1, 2, 3, 3, 0, 0, 4], [1, 2, 0, 3, 1, 1, 1, 0]])


def lopsided(query, key):
    return -(query - 2.0 * key).abs().sum(dim=-1)


class Own(Kernel):
    def score(self, query, key):
        return lopsided(query, key)


def below(name):
    r"""A factory of a kernel of a class below one of kgat's, with another score."""
    cls = getattr(kernels, name)
    Below = type(f"Below{name}", (cls,), {"score": lambda self, query, key: lopsided(query, key)})
    if not issubclass(cls, Product | Sum | PerHead):
        return Below
    heads = {PerHead: 1}.get(cls)
    return lambda c, h: Below(*(RBF(c, heads or h) for _ in range(2)))


EVERY = [*kernels.names(), "PerHead", "Product", "Sum"]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", EVERY)
def test_layers_compute_the_score_of_a_subclass(name, training, monkeypatch):
    monkeypatch.setattr("kgat.kernels.additive.SMALL", 0)  # features are folded, where a kernel can
    for build, args in ((KernelGATConv, (X, EDGES)), (KernelAttention, (TOKENS,))):
        sizes = (8, 4, 2) if build is KernelGATConv else (8, 2)
        found, wanted = (build(*sizes, kernel=kernel).train(training) for kernel in (below(name), Own))
        wanted.load_state_dict(
            {k: v for k, v in found.state_dict().items() if not k.startswith("kernel.") and "att_" not in k}
        )
        calls = [{}, {"return_attention_weights": True}] if build is KernelGATConv else [{}]
        if build is KernelAttention:
            calls += [{"need_weights": False}, {"need_weights": False, "is_causal": True}]
        for options in calls:
            torch.testing.assert_close(found(*args, **options), wanted(*args, **options))
        if build is KernelGATConv:
            found.register_message_forward_hook(lambda module, inputs, out: None)
            torch.testing.assert_close(found(*args), wanted(*args))
        assert not found.kernel.penalised


@pytest.mark.parametrize("name", EVERY)
def test_nothing_is_said_of_the_lift_that_a_score_takes_the_place_of(name):
    factory = below(name)
    kernel = factory(4, 2)
    assert kernel.stock == ("", {})
    assert not kernel.masked_by_bias
    assert type(kernel).of_features is Kernel.of_features
    assert not type(kernel)._lift_takes_context
    x = X.view(6, 2, 4)
    with pytest.raises(NotImplementedError, match="finite feature map"):
        kernel(x, x).features()
    torch.testing.assert_close(kernel.score(x, x), kernel(x, x).at(*torch.arange(6).expand(2, -1)))


@pytest.mark.parametrize("name", EVERY)
def test_a_score_may_ask_for_the_one_above(name):
    cls = getattr(kernels, name)

    class Twice(cls):
        def score(self, query, key):
            return 2.0 * super().score(query, key)

    class FourTimes(Twice):
        def score(self, query, key):
            return 2.0 * super().score(query, key)

    arguments = (4, 2)
    if issubclass(cls, Product | Sum | PerHead):
        arguments = [RBF(4, 1 if cls is PerHead else 2) for _ in range(2)]
    plain, more = cls(*arguments).eval(), FourTimes(*arguments).eval()
    more.load_state_dict(plain.state_dict())
    for kernel in (plain, more):
        kernel.input_scale = torch.full((2, 1), 0.5)  # which is taken once
    x = X.view(6, 2, 4)
    gram = plain(x, x)
    if gram.signed:
        with pytest.raises(NotImplementedError, match="non-negative kernel"):
            more(x, x).dense()
    elif cls._lift_takes_context and name.endswith("Spectral"):
        with pytest.raises(
            NotImplementedError, match=r"does not ask for that of the class above .* override"
        ):
            more(x, x).dense()
    else:
        torch.testing.assert_close(more(x, x).dense(), 4.0 * gram.dense())
        torch.testing.assert_close(more(x, x).at(*EDGES), 4.0 * gram.at(*EDGES))


def test_a_score_that_is_mixed_in_counts_where_it_comes_first():
    class Scored:
        def score(self, query, key):
            return lopsided(query, key)

    class First(Scored, Additive):
        pass

    class Again(First):
        pass

    class Last(Additive, Scored):
        pass

    x = X.view(6, 2, 4)
    wanted = Own(4, 2)(x, x).dense()
    for cls in (First, Again):
        torch.testing.assert_close(cls(4, 2)(x, x).dense(), wanted)
        assert cls.stock == ("", {})
        assert not cls(4, 2).masked_by_bias
    assert Last.stock == Additive.stock
    assert not torch.allclose(Last(4, 2)(x, x).dense(), wanted)


def test_hooks_speak_of_a_lift_that_is_mixed_in():
    class Lifted:
        def lift(self, query, key):
            return super().lift(2.0 * query, 2.0 * key)

    class Mixed(Lifted, Additive):
        pass

    assert Mixed.stock == ("", {})
    assert not Mixed(4, 2).masked_by_bias
    assert Mixed.of_features is Kernel.of_features


def test_a_lift_that_asks_for_a_score_keeps_it():
    class Doubled(Own):
        def lift(self, query, key):
            return super().lift(2.0 * query, 2.0 * key)

    class Other(Doubled):
        def score(self, query, key):
            return -(query - key).square().sum(dim=-1)

    class Both(RBF):
        def lift(self, query, key):
            return Kernel.lift(self, 2.0 * query, 2.0 * key)

        def score(self, query, key):
            return lopsided(query, key)

    x = X.view(6, 2, 4)
    torch.testing.assert_close(Doubled(4, 2)(x, x).dense(), Own(4, 2)(2 * x, 2 * x).dense())
    torch.testing.assert_close(Both(4, 2)(x, x).dense(), Own(4, 2)(2 * x, 2 * x).dense())
    difference = x.unsqueeze(1) - x
    torch.testing.assert_close(Other(4, 2)(x, x).dense(), -4.0 * difference.square().sum(dim=-1))


def test_a_score_below_a_forward_that_may_not_ask_for_it_is_refused():
    class Forward(RBF):
        def forward(self, query, key, context=Context()):  # noqa: B008
            return RBF.lift(self, query, key)

    with pytest.raises(TypeError, match=r"no 'score' in 'Scored' .* its own 'forward'.* override 'forward'"):

        class Scored(Forward):
            def score(self, query, key):
                return lopsided(query, key)


@pytest.mark.parametrize("cls", [RBF, Additive, ImplicitSpectral])
def test_the_laws_hold_for_a_score_below(cls):
    class Below(cls):
        symmetric = translation_invariant = True

        def __init__(self, channels, heads=1):
            super().__init__(channels, heads)
            self.positive_definite = False
            self.symmetric = self.translation_invariant = True

        def score(self, query, key):
            return -(query - key).abs().sum(dim=-1)

    check_kernel(Below)
