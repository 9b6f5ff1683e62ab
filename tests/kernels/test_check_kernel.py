r"""Each law of check_kernel is seen to fail on a kernel that breaks it."""

import contextlib
import itertools
import math
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from kgat.kernels import RBF, Additive, DotProduct, Kernel, Linear, Polynomial
from kgat.score.gram import FeaturePart, LazyGram
from kgat.score.rules import ABS_DIFFERENCE, LOG, SIGNED, Link, Pair, ScoreRule
from kgat.score.scalar import absolute, maximum, where
from kgat.testing import check_backend, check_kernel


class Asymmetric(Kernel):
    symmetric = True

    def score(self, query, key):
        return (query * key.roll(1, dims=-1)).sum(dim=-1)


class Indefinite(Kernel):  # a dissimilarity
    symmetric = True
    positive_definite = True

    def score(self, query, key):
        return (query - key).square().sum(dim=-1)


class Anchored(Kernel):
    translation_invariant = True

    def score(self, query, key):
        return (query * key).sum(dim=-1)


class _TiltedGram(LazyGram):
    def dense(self) -> Tensor:
        return super().dense() * 1.001


class TiltedDense(Kernel):
    def lift(self, query, key):
        gram = LazyGram.of(query, key)
        return _TiltedGram(gram.terms)


class ScoreDiffers(DotProduct):
    def lift(self, query, key):  # beside a score, which alone would take its place
        return super().lift(query, key)

    def score(self, query, key):
        return (query * key).sum(dim=-1)


class HeadMixing(Kernel):
    def lift(self, query, key):
        return LazyGram.of(query, key + key.mean(dim=-2, keepdim=True))


class TokenMixing(Kernel):
    def lift(self, query, key):
        return LazyGram.of(query, key - key.mean(dim=-3, keepdim=True))


class BatchMixing(Kernel):
    def lift(self, query, key):
        if key.dim() > 3:
            key = key - key.mean(dim=0, keepdim=True)
        return LazyGram.of(query, key)


class OrderSeeing(Kernel):
    def lift(self, query, key):
        position = torch.arange(key.size(-3), dtype=key.dtype)
        return LazyGram.of(query, key, key_bias=position.unsqueeze(-1).expand(key.shape[:-1]))


class NaNAtZero(Kernel):
    def score(self, query, key):
        return (query / query.norm(dim=-1, keepdim=True) * key).sum(dim=-1)


class InfiniteAtEqual(Kernel):
    def score(self, query, key):
        return -(query - key).abs().sum(dim=-1).log()


class NaNGradientAtEqual(Kernel):
    def score(self, query, key):
        return -(query - key).square().sum(dim=-1).sqrt()


class OverflowFarAway(Kernel):
    def score(self, query, key):
        return -(query - key).square().exp().sum(dim=-1).log()


class UnderflowAtZero(Kernel):  # in single precision alone
    def score(self, query, key):
        return ((query.square() + 1e-12) ** 4).sum(dim=-1) ** 0.25 + (query * key).sum(dim=-1)


WRONG_LOG = Link("wrong_log", LOG.function, features=lambda q, eps: q)


class WrongFeatures(Kernel):
    def lift(self, query, key):
        return LazyGram.of(query.sigmoid(), key.sigmoid(), ScoreRule(link=WRONG_LOG, link_args=(0.1,)))


class SignedWithScores(Linear):
    def lift(self, query, key):
        return _LooseGram(super().lift(query, key).terms)


class _LooseGram(LazyGram):
    def dense(self) -> Tensor:
        return torch.zeros(1)


class SignedWithNothing(Kernel):
    def lift(self, query, key):
        return LazyGram.of(query, key, ScoreRule(ABS_DIFFERENCE, link=SIGNED))


class _HalfGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return 0.5 * grad


class WrongGradient(Kernel):
    def lift(self, query, key):
        return LazyGram.of(_HalfGradient.apply(query), key)


class WrongParameterGradient(Kernel):
    def __init__(self, channels, heads):
        super().__init__(channels, heads)
        self.slope = Parameter(torch.ones(heads, 1))

    def reset_parameters(self):
        torch.nn.init.ones_(self.slope)

    def lift(self, query, key):
        return LazyGram.of(query * _HalfGradient.apply(self.slope), key)


class _OnceDifferentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.x = x.detach()
        return x.square()

    @staticmethod
    def backward(ctx, grad):
        return 2.0 * grad * ctx.x  # the second derivative is lost


class WrongSecondGradient(Kernel):
    def lift(self, query, key):
        return LazyGram.of(_OnceDifferentiable.apply(query), key)


class LowPrecision(Kernel):
    def score(self, query, key):
        score = (query * key).sum(dim=-1)
        return score if score.dtype == torch.float64 else score.bfloat16().float()


class HalfScores(Kernel):
    def forward(self, query, key):  # overrides what raises half precision
        if query.shape[-2:] != key.shape[-2:] or query.size(-1) != self.channels:
            raise ValueError
        if query.size(-2) != self.heads:
            raise ValueError
        return LazyGram.of(query, key)


class AutocastScores(Kernel):
    def forward(self, query, key):
        gram = super().forward(query, key)
        bias = torch.einsum("...d,d->...", key.to(query.dtype), torch.ones(key.size(-1)).to(query))
        return LazyGram(gram.terms, key_bias=bias.to(gram.terms[0].key.dtype))

    def lift(self, query, key):
        return LazyGram.of(query, key)


class Unsaved(Kernel):
    def __init__(self, channels, heads):
        super().__init__(channels, heads)
        self.register_buffer("omega", torch.empty(channels), persistent=False)
        self.reset_parameters()

    def reset_parameters(self):
        self.omega.normal_()

    def resample(self, generator=None):
        self.omega.normal_(generator=generator)

    def lift(self, query, key):
        return LazyGram.of(query * self.omega, key)


class NoReset(Kernel):
    def __init__(self, channels, heads):
        super().__init__(channels, heads)
        self.slope = Parameter(torch.ones(heads, 1))

    def lift(self, query, key):
        return LazyGram.of(query * self.slope, key)


class DeafToGenerator(Unsaved):
    def __init__(self, channels, heads):
        Kernel.__init__(self, channels, heads)
        self.register_buffer("omega", torch.empty(channels))
        self.reset_parameters()

    def resample(self, generator=None):
        own = torch.Generator().manual_seed(next(_TICKS))
        self.omega.copy_(torch.randn(self.omega.shape, generator=own))


_TICKS = itertools.count()


class GlobalGenerator(DeafToGenerator):
    def resample(self, generator=None):
        self.omega.normal_()


class OneDraw(DeafToGenerator):
    def resample(self, generator=None):
        self.omega.normal_(generator=torch.Generator().manual_seed(7))


class NeverResampled(DeafToGenerator):
    def resample(self, generator=None):
        pass


class ResampledInPart(DeafToGenerator):
    def resample(self, generator=None):
        self.omega[1:].normal_(generator=generator)


class NotMasked(Additive):  # of the bias, ReLU leaves 0
    masked_by_bias = True

    def __init__(self, channels, heads):
        super().__init__(channels, heads, negative_slope=0.0)


class Undecayed(Kernel):
    undecayed = ("omega",)

    def score(self, query, key):
        return (query * key).sum(dim=-1)


class RandomEval(Kernel):
    def lift(self, query, key):
        return LazyGram.of(query * (1.0 + 1e-6 * torch.rand(())), key)


class RandomInTraining(Kernel):
    def lift(self, query, key):
        return LazyGram.of(query * (1.0 + self.training * torch.rand(())), key)


class Nameless(Kernel):
    def score(self, query, key):
        return (query * key).sum(dim=-1)

    def __repr__(self):
        return "Kernel()"


class Careless(Kernel):
    def forward(self, query, key):
        return LazyGram.of(query.flatten(-2).unsqueeze(-2), key.flatten(-2).unsqueeze(-2))


class OneHead(Kernel):
    def score(self, query, key):
        return (query * key).sum(dim=-1)[..., :1]


class GradientWithoutKeys(Kernel):  # the mean of no keys is NaN, and 0 * NaN is a NaN gradient
    def __init__(self, channels, heads):
        super().__init__(channels, heads)
        self.slope = Parameter(torch.ones(heads, 1))

    def reset_parameters(self):
        torch.nn.init.ones_(self.slope)

    def lift(self, query, key):
        centre = key.detach().mean(dim=-3, keepdim=True)
        q, k = (query - centre) * self.slope, (key - centre) * self.slope
        return LazyGram.of(q, k, None, -0.5 * q.square().sum(-1), -0.5 * k.square().sum(-1))


class Centred(Kernel):  # equal up to rounding, until another node is far away
    def lift(self, query, key):
        centre = key.detach().mean(dim=-3, keepdim=True).nan_to_num(0.0, 0.0, 0.0)
        return LazyGram.of(query - centre, key - centre, ScoreRule(ABS_DIFFERENCE, weight=-1.0))


class Expanded(Kernel):  # a difference of squares
    def lift(self, query, key):
        a, b = (-0.5 * x.square().sum(dim=-1) for x in (query, key))
        return LazyGram.of(query, key, None, a, b)


class Overflowing(Kernel):  # features of its own link, without their scales
    def lift(self, query, key):
        bias = [x.square().sum(dim=-1) for x in (query, key)]
        positive = [1.0 + x.abs() for x in (query, key)]
        return _UnscaledGram.of(*positive, ScoreRule(link=LOG, link_args=(1e-6,)), *bias)


class _UnscaledGram(LazyGram):
    def feature_parts(self):
        return [FeaturePart(*self.features())]

    def up_to_query(self):
        return _UnscaledGram(self.terms, None, self.key_bias)


class Remembering(Kernel):
    def lift(self, query, key):
        self.last = query
        return LazyGram.of(query, key)


class Counting(Kernel):
    def __init__(self, channels, heads):
        super().__init__(channels, heads)
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def lift(self, query, key):
        self.calls += self.training
        return LazyGram.of(query, key)


class OnlyWhenFresh(Polynomial):  # claims a property that holds at offset 0 and not after a step
    @property
    def positive_definite(self):
        return True


PLANTED = [
    (Asymmetric, "symmetric"),
    (Indefinite, "positive definite"),
    (Anchored, "translation invariant"),
    (TiltedDense, "at == dense"),
    (ScoreDiffers, "at == dense"),
    (HeadMixing, "pairs"),
    (TokenMixing, "pairs"),
    (BatchMixing, "pairs"),
    (OrderSeeing, "pairs"),
    (Centred, "independence"),
    (Expanded, "spread"),
    (Overflowing, "scales"),
    (Remembering, "forward"),
    (Counting, "forward"),
    (NaNAtZero, "finite"),
    (InfiniteAtEqual, "finite"),
    (NaNGradientAtEqual, "finite"),
    (OverflowFarAway, "finite"),
    (UnderflowAtZero, "finite"),
    (GradientWithoutKeys, "finite"),
    (WrongFeatures, "features"),
    (SignedWithScores, "signed"),
    (SignedWithNothing, "signed"),
    (WrongGradient, "gradient"),
    (WrongParameterGradient, "gradient"),
    (WrongSecondGradient, "second gradient"),
    (LowPrecision, "precision"),
    (HalfScores, "precision"),
    (AutocastScores, "precision"),
    (Unsaved, "state"),
    (NoReset, "reset"),
    (DeafToGenerator, "reset"),
    (GlobalGenerator, "reset"),
    (OneDraw, "reset"),
    (NeverResampled, "reset"),
    (ResampledInPart, "reset"),
    (NotMasked, "masked by bias"),
    (Undecayed, "undecayed"),
    (RandomEval, "eval"),
    (Nameless, "repr"),
    (Careless, "shape"),
    (OneHead, "shape"),
    (OnlyWhenFresh, "positive definite"),
]


@pytest.mark.parametrize(("broken", "law"), PLANTED, ids=[c.__name__ for c, _ in PLANTED])
def test_a_planted_error_is_named(broken, law):
    with pytest.raises(AssertionError, match=f"^Law '{law}' fails for ") as caught:
        check_kernel(broken)
    assert broken.__name__ in str(caught.value) or law == "repr"
    assert "\n" not in str(caught.value)


class Wide(RBF):
    def __init__(self, channels, heads=1, width=1.0, *, fast=False):
        super().__init__(channels, heads)


class Narrow(Wide):  # says one of its arguments
    def extra_repr(self):
        return f"{super().extra_repr().partition(', fast')[0]}, so_fast=True"


def test_a_repr_names_arguments_that_are_not_the_usual_ones():
    check_kernel(partial(Wide, fast=True))
    check_kernel(Narrow)
    for factory in (partial(Narrow, fast=True), lambda c, h: DotProduct(c, h) * Narrow(c, h, fast=True)):
        with pytest.raises(AssertionError, match=r"^Law 'repr' .*argument 'fast=True' \(got Narrow\(5"):
            check_kernel(factory)


def test_a_factory_must_give_the_kernel_it_was_asked_for():
    with pytest.raises(TypeError, match="Expected 'factory' to return a 'Kernel'"):
        check_kernel(lambda channels, heads: torch.nn.Linear(channels, heads))
    with pytest.raises(AssertionError, match="Law 'shape' fails"):
        check_kernel(lambda channels, heads: RBF(channels, 1))


class Fixed(RBF):
    def __init__(self):
        super().__init__(5, heads=3)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (RBF(5, heads=3), r"a class or a factory \(got RBF\(5, heads=3\), built already\); pass its class"),
        (
            Fixed,
            r"a class or a factory called with .*Fixed.*too many positional arguments\); write it as",
        ),
        (
            lambda: RBF(5, 3),
            r"a class or a factory called with \(channels, heads\) .*too many positional arguments",
        ),
    ],
    ids=["built", "class without arguments", "function without arguments"],
)
@pytest.mark.parametrize("check", [check_kernel, check_backend])
def test_what_is_no_factory_is_a_sentence(check, factory, message):
    with pytest.raises(TypeError, match=f"^Expected {message}"):
        check(factory)


def test_the_numbers_are_told():
    with pytest.raises(AssertionError, match=r"expected -?\d.*got -?\d.*tolerance"):
        check_kernel(Asymmetric)


def test_own_kernel_of_two_lines_passes():
    class Cauchy(Kernel):
        symmetric = positive_definite = translation_invariant = True

        def score(self, query, key):
            return -(1.0 + (query - key).square()).log().sum(dim=-1)

    check_kernel(Cauchy)


def test_a_kernel_may_sample_in_training():
    check_kernel(RandomInTraining)


def test_the_global_generator_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    check_kernel(RBF)
    assert torch.equal(torch.rand(3), expected)
    assert math.isfinite(expected.sum().item())


def _shrunk(x, y):
    return 0.999 * x * y


def _d_shrunk(x, y):
    return y, x


class CompiledDiffers(Kernel):
    def lift(self, query, key):
        return LazyGram.of(query, key, ScoreRule(SHRUNK))


SHRUNK = Pair("shrunk", lambda x, y: x * y, _d_shrunk, _shrunk)


def test_a_kernel_that_differs_between_backends():
    with pytest.raises(AssertionError, match=r"Law 'backends' fails for CompiledDiffers.*by cpu"):
        check_kernel(CompiledDiffers)


def _kinked(x, y):
    return absolute(x - y) + maximum(x, 0.0)


def _d_kinked(x, y):
    # Right but at the kinks: 2 is no slope of |x - y| at 0.
    sign = where(x > y, 1.0, where(x < y, -1.0, 2.0))
    return sign + where(x > 0.0, 1.0, 0.0), -sign


@pytest.mark.parametrize("derivative", [None, _d_kinked])
def test_a_derivative_that_is_wrong_at_equal_arguments(derivative):
    class Kinked(Kernel):
        def lift(self, query, key):
            return LazyGram.of(query, key, ScoreRule(Pair("kinked", _kinked, derivative), weight=-1.0))

    failure = r"Law 'derivatives' .* of 'kinked' at \(0.5, 0.5\) by argument 0"
    expected = pytest.raises(AssertionError, match=failure) if derivative else contextlib.nullcontext()
    with expected:
        check_backend(Kinked, "eager")
