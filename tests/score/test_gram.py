import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kgat.kernels import RBF, Additive, DotProduct, Kernel, Laplace, Linear, Magnitude, Polynomial
from kgat.score.gram import LazyGram, SumGram
from kgat.score.rules import (
    ABS_DIFFERENCE,
    LEAKY_RELU,
    LOG,
    LOG_SQUARE,
    MUL,
    SIGNED,
    SQUARED_DIFFERENCE,
    TRUNCATED_EXP,
    ScoreRule,
)

pytestmark = pytest.mark.quick

N, M, H, R = 6, 4, 3, 5
ROW, COL = torch.tensor([0, 5, 5, 2, 0]), torch.tensor([3, 0, 1, 2, 3])


def operands(*batch: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    q = torch.randn(*batch, N, H, R, dtype=torch.float64)
    k = torch.randn(*batch, M, H, R, dtype=torch.float64)
    a = torch.randn(*batch, N, H, dtype=torch.float64)
    b = torch.randn(*batch, M, H, dtype=torch.float64)
    return q, k, a, b


def maximum_distance(query: Tensor, key: Tensor) -> Tensor:
    return -(query - key).abs().amax(dim=-1)


RULES = {
    "product": ScoreRule(),
    "scaled product": ScoreRule(weight=-2.0),
    "weighted product": ScoreRule(weight=torch.randn(H, R, dtype=torch.float64)),
    "difference": ScoreRule(ABS_DIFFERENCE, weight=-1.0),
    "leaky": ScoreRule(link=LEAKY_RELU, link_args=(0.2,)),
    "leaky, bias inside": ScoreRule(link=LEAKY_RELU, link_args=(0.2,), edge_bias_inside=True),
    "log square": ScoreRule(link=LOG_SQUARE, link_args=(1e-3,)),
    "function": maximum_distance,
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_at_dense_and_paired_by_loops(rule):
    q, k, a, b = operands()
    gram = LazyGram.of(q, k, rule, a, b)
    dense = gram.dense()
    assert dense.shape == (N, M, H)
    for i in range(N):
        for j in range(M):
            expected = rule(q[i], k[j]) + a[i] + b[j]
            torch.testing.assert_close(dense[i, j], expected)
    torch.testing.assert_close(gram.at(ROW, COL), dense[ROW, COL])
    side_by_side = LazyGram.of(q[ROW], k[COL], rule, a[ROW], b[COL])
    torch.testing.assert_close(side_by_side.paired(), dense[ROW, COL])
    assert gram.at(ROW[:0], COL[:0]).shape == (0, H)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_batch(rule):
    q, k, a, b = operands(2)
    dense = LazyGram.of(q, k, rule, a, b).dense()
    for i in range(2):
        torch.testing.assert_close(dense[i], LazyGram.of(q[i], k[i], rule, a[i], b[i]).dense())


def test_edge_bias():
    q, k, a, b = operands()
    c = torch.randn(len(ROW), H, dtype=torch.float64)
    outside = LazyGram.of(q, k, RULES["leaky"], a, b)
    torch.testing.assert_close(outside.at(ROW, COL, c), outside.at(ROW, COL) + c)
    inside = LazyGram.of(q, k, RULES["leaky, bias inside"], a, b)
    total = (q[ROW] * k[COL]).sum(dim=-1) + c
    expected = torch.nn.functional.leaky_relu(total, 0.2) + a[ROW] + b[COL]
    torch.testing.assert_close(inside.at(ROW, COL, c), expected)


def test_edge_bias_of_a_product_joins_one_term_once():
    q, k, *_ = operands()
    c = torch.randn(len(ROW), H, dtype=torch.float64)
    plain, leaky = LazyGram.of(q, k, maximum_distance), LazyGram.of(q, k, RULES["leaky, bias inside"])
    for product in (plain * leaky, leaky * plain):
        torch.testing.assert_close(product.at(ROW, COL, c), plain.at(ROW, COL) + leaky.at(ROW, COL, c))
    total = SumGram((plain, leaky))
    torch.testing.assert_close(total.at(ROW, COL, c), total.at(ROW, COL) + c)


@pytest.mark.parametrize("rule", ["product", "difference", "leaky", "log square", "function"])
def test_gradients_of_at_equal_those_of_dense(rule):
    leaves = [x.requires_grad_() for x in operands()]
    gram = LazyGram.of(*leaves[:2], RULES[rule], *leaves[2:])
    weight = torch.randn(len(ROW), H, dtype=torch.float64)
    at = torch.autograd.grad((gram.at(ROW, COL) * weight).sum(), leaves)
    dense = torch.autograd.grad((gram.dense()[ROW, COL] * weight).sum(), leaves)
    for x, y in zip(at, dense, strict=True):
        torch.testing.assert_close(x, y)


FEATURED = {
    "log": ScoreRule(link=LOG, link_args=(0.1,)),
    "weighted log": ScoreRule(link=LOG, link_args=(0.1,), weight=0.5),
    "log square": ScoreRule(link=LOG_SQUARE, link_args=(1e-3,)),
    "weights per channel": ScoreRule(
        link=LOG_SQUARE, link_args=(1e-3,), weight=torch.randn(H, R, dtype=torch.float64)
    ),
}


@pytest.mark.parametrize("rule", FEATURED.values(), ids=FEATURED.keys())
def test_features(rule):
    q, k, a, b = operands()
    q, k = q.abs(), k.abs()
    gram = LazyGram.of(q, k, rule, a, b)
    for g in (gram, gram * LazyGram.of(k.new_ones(N, H, 2), k.new_ones(M, H, 2), FEATURED["log"])):
        f, h = g.features()
        product = torch.einsum("nhr,mhr->nmh", f, h)
        torch.testing.assert_close(product.log(), g.dense(), rtol=1e-12, atol=1e-12)


def test_features_of_biases_alone():
    _, _, a, b = operands()
    f, g = LazyGram(query_bias=a, key_bias=b).features()
    torch.testing.assert_close(torch.einsum("nhr,mhr->nmh", f, g).log(), a[:, None] + b)
    with pytest.raises(NotImplementedError, match="one bias and no terms"):
        LazyGram(key_bias=b).features()


def test_refusals_say_what_to_do():
    q, k, *_ = operands()
    signed = LazyGram.of(q, k, ScoreRule(link=SIGNED))
    for call in (signed.dense, signed.paired, lambda: signed.at(ROW, COL)):
        with pytest.raises(NotImplementedError, match=r"log k does not exist.*use its 'features"):
            call()
    assert signed.signed
    assert SumGram((LazyGram.of(q, k), signed)).signed
    assert (LazyGram.of(q, k) * signed).signed
    for rule in (None, RULES["difference"], RULES["leaky"], maximum_distance):
        with pytest.raises(NotImplementedError, match="exact finite feature map"):
            LazyGram.of(q, k, rule).features()


def test_product_of_sums_over_features_is_one_term():
    q, k, a, b = operands()
    merged = LazyGram.of(q, k, None, a) * LazyGram.of(k[:1], k, None, None, b)
    assert len(merged.terms) == 1
    assert merged.terms[0].query.size(-1) == 2 * R
    expected = LazyGram.of(q, k).dense() + LazyGram.of(k[:1], k).dense() + a[:, None] + b
    torch.testing.assert_close(merged.dense(), expected)


@pytest.mark.parametrize("other", ["difference", "leaky", "function"])
def test_other_products_keep_their_terms(other):
    q, k, *_ = operands()
    left, right = LazyGram.of(q, k), LazyGram.of(q, k, RULES[other])
    product = left * right
    assert len(product.terms) == 2
    torch.testing.assert_close(product.dense(), left.dense() + right.dense())


class Largest(TorchDispatchMode):
    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.numel = max(self.numel, out.numel())
        return out


def test_an_inner_product_stays_a_matrix_product_beside_other_terms():
    q, k, a, b = operands()
    inner = LazyGram.of(q.repeat(1, 1, 9), k.repeat(1, 1, 9), ScoreRule(link=LOG_SQUARE, link_args=(1e-3,)))
    gram = inner * LazyGram.of(q, k, ScoreRule(ABS_DIFFERENCE), a, b) * LazyGram.of(q, k, maximum_distance)
    row, col = torch.cartesian_prod(torch.arange(N), torch.arange(M)).T
    with Largest() as mode:
        dense = gram.dense()
    assert mode.numel < N * M * H * 9 * R  # the pairs of the others hold R
    torch.testing.assert_close(dense.flatten(0, 1), gram.at(row, col))


@pytest.mark.parametrize("other", ["scaled product", "weighted product"])
def test_scaled_products_merge(other):
    q, k, *_ = operands()
    left, right = LazyGram.of(q, k), LazyGram.of(2 * q, k, RULES[other])
    product = left * right
    assert len(product.terms) == 1
    torch.testing.assert_close(product.dense(), left.dense() + right.dense())


def test_products_and_sums_distribute():
    q, k, a, b = operands()
    x, y = LazyGram.of(q, k, None, a), LazyGram.of(q, k, RULES["difference"])
    z, w = LazyGram.of(q, k, RULES["log square"], None, b), LazyGram.of(q, k, maximum_distance)
    add = torch.logaddexp
    cases = [
        (SumGram((x, y)) * z, add(x.dense(), y.dense()) + z.dense()),
        (z * SumGram((x, y)), add(x.dense(), y.dense()) + z.dense()),
        (
            SumGram((x, y)) * SumGram((z, w)),
            add(x.dense(), y.dense()) + add(z.dense(), w.dense()),
        ),
        (
            SumGram((x, SumGram((y, z)))) * SumGram((w, SumGram((x, y)))),
            add(x.dense(), add(y.dense(), z.dense())) + add(w.dense(), add(x.dense(), y.dense())),
        ),
    ]
    for gram, expected in cases:
        torch.testing.assert_close(gram.dense(), expected)
        torch.testing.assert_close(gram.at(ROW, COL), expected[ROW, COL])


def test_sum_features_are_concatenated():
    q, k, *_ = operands()
    gram = Polynomial(R, H).double()(q, k)
    total = SumGram((gram, gram))
    f, g = total.features()
    assert f.size(-1) == 2 * gram.features()[0].size(-1)
    torch.testing.assert_close(torch.einsum("nhr,mhr->nmh", f, g).log(), total.dense())


def test_scores_keep_their_digits_under_autocast():
    q, k, a, b = (x.float() for x in operands())

    def matrix_rule(query: Tensor, key: Tensor) -> Tensor:  # matmul is what autocast would lower
        return torch.einsum("...d,...d->...", query, key)

    for rule in (None, RULES["leaky"], matrix_rule):
        gram = LazyGram.of(q, k, rule, a, b)
        expected = gram.dense(), gram.at(ROW, COL)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = gram.dense(), gram.at(ROW, COL)
        for x, y in zip(got, expected, strict=True):
            assert x.dtype == torch.float32
            assert torch.equal(x, y)


def test_non_contiguous_operands_and_int32_indices():
    q, k, *_ = operands()
    wide_q, wide_k = q.repeat(1, 1, 2)[..., ::2], k.transpose(0, 2).contiguous().transpose(0, 2)
    gram = LazyGram.of(wide_q, wide_k)
    assert not wide_q.is_contiguous()
    torch.testing.assert_close(gram.dense(), LazyGram.of(wide_q.clone(), k).dense())
    torch.testing.assert_close(gram.at(ROW.int(), COL.int()), gram.at(ROW, COL))


def test_broadcast_of_one_query_against_a_batch_of_keys():
    q, k, *_ = operands(2)
    one = LazyGram.of(q[0], k).dense()
    assert one.shape == (2, N, M, H)
    torch.testing.assert_close(one[1], LazyGram.of(q[0], k[1]).dense())


# The contract of Kernel, Product and Sum.
def test_product_and_sum_of_kernels():
    q, k, *_ = operands()
    parts = [m(R, H).double() for m in (DotProduct, Laplace, Additive)]
    scores = [part(q, k).dense() for part in parts]
    torch.testing.assert_close((parts[0] * parts[1] * parts[2])(q, k).dense(), sum(scores))
    expected = torch.stack(scores).logsumexp(dim=0)
    torch.testing.assert_close((parts[0] + parts[1] + parts[2])(q, k).dense(), expected)
    assert len((parts[0] * parts[1] * parts[2]).kernels) == 3
    assert len((parts[0] + parts[1] + parts[2]).kernels) == 3


def test_product_of_rbf_and_magnitude_is_one_inner_product():
    q, k, *_ = operands()
    gram = (RBF(R, H) * Magnitude(R, H))(q, k)
    assert len(gram.terms) == 1
    product = (RBF(R, H) * DotProduct(R, H))(q, k)
    assert len(product.terms) == 2  # on edges; of all pairs it is one
    assert len(product.expanded().terms) == 1
    assert len((RBF(R, H) * Laplace(R, H))(q, k).terms) == 2
    same = (RBF(R, H, lengthscale=2.0) * RBF(R, H, lengthscale=3.0))(q, k)
    assert len(same.terms) == 1  # weights of both, one behind the other
    torch.testing.assert_close(
        same.at(ROW, COL),
        RBF(R, H, lengthscale=2.0)(q, k).at(ROW, COL) + RBF(R, H, lengthscale=3.0)(q, k).at(ROW, COL),
    )


def test_claims_of_products_and_sums_follow_their_parts():
    polynomial = Polynomial(R, H)
    product = polynomial * DotProduct(R, H)
    assert product.symmetric
    assert product.positive_definite
    assert not product.translation_invariant
    with torch.no_grad():
        polynomial.offset.fill_(-1.0)
    assert not product.positive_definite
    assert (RBF(R, H) + Laplace(R, H)).translation_invariant
    assert not (DotProduct(R, H) + Additive(R, H)).symmetric


def test_a_composite_resets_and_resamples_its_parts():
    from kgat.kernels import FAVORPlus

    composite = Additive(R, H) * FAVORPlus(R, H)
    before = {name: x.clone() for name, x in composite.state_dict().items()}
    composite.resample(torch.Generator().manual_seed(5))
    after = composite.state_dict()
    assert torch.equal(before["kernels.0.att_key"], after["kernels.0.att_key"])
    assert not torch.equal(before["kernels.1.omega"], after["kernels.1.omega"])
    composite.reset_parameters()
    assert not torch.equal(before["kernels.0.att_key"], composite.state_dict()["kernels.0.att_key"])


def test_kernels_only_combine_with_fitting_kernels():
    with pytest.raises(ValueError, match="Expected kernels of equal channels and heads"):
        RBF(4, 2) * RBF(4, 3)
    with pytest.raises(ValueError, match="Expected kernels of equal channels and heads"):
        RBF(4, 2) + RBF(5, 2)
    with pytest.raises(TypeError):
        RBF(4) * 2.0
    with pytest.raises(TypeError):
        RBF(4) + "rbf"


def test_kernel_checks_its_input():
    kernel = RBF(4, heads=2)
    x = torch.randn(3, 2, 4)
    for query, key in ((x[..., :3], x), (x, x[:, :1]), (x[0], x)):
        with pytest.raises(ValueError, match=r"of shape \[\.\.\., nodes, heads=2, channels=4\] \(got"):
            kernel(query, key)
    with pytest.raises(ValueError, match="positive 'channels' and 'heads'"):
        RBF(0)
    with pytest.raises(NotImplementedError, match="override 'score' or 'lift'"):
        Kernel(4, 2)(x, x)


def test_linear_kernel_refuses_scores():  # TD T9
    x = torch.randn(3, 2, 4)
    gram = Linear(4, 2)(x, x)
    for call in (gram.dense, lambda: gram.at(ROW[:1], ROW[:1])):
        with pytest.raises(NotImplementedError, match=r"its square .*Polynomial.* or positive features"):
            call()


def test_squared_differences_are_expanded_where_they_keep_their_digits():
    q, k, a, b = operands(2)
    rule = ScoreRule(SQUARED_DIFFERENCE, weight=torch.randn(H, R, dtype=torch.float64))
    gram = LazyGram.of(q + 3.0, k + 3.0, rule, a, b)
    expanded = gram.expanded()
    assert expanded.terms[0].rule.pair is MUL
    exact = LazyGram(gram.terms, a, b, settled=True).dense()
    torch.testing.assert_close(expanded.dense(), exact)
    torch.testing.assert_close(gram.dense(), exact)
    # Hidden keys are no part of the mean, and may be anywhere.
    hidden = torch.arange(M) == 1
    broken = k.masked_fill(hidden.view(M, 1, 1), torch.nan)
    found = LazyGram.of(q + 3.0, broken + 3.0, rule, a, b).expanded(hidden.expand(2, M))
    assert found.terms[0].rule.pair is MUL
    torch.testing.assert_close(found.dense()[:, :, ~hidden], exact[:, :, ~hidden])
    far = LazyGram.of(1e5 * q, k, rule)
    assert far.expanded().terms[0].rule.pair is SQUARED_DIFFERENCE
    torch.testing.assert_close(
        far.dense().flatten(1, 2)[0],
        far.at(*torch.cartesian_prod(torch.arange(N), torch.arange(M)).T)[0],
        rtol=1e-12,
        atol=0.0,
    )


def test_up_to_a_number_per_query():
    q, k, a, b = operands()
    one, other = LazyGram.of(q, k, None, 1e3 * a, b), LazyGram.of(q, k, RULES["difference"], None, b)
    for gram in (one, other, one * other, SumGram((one, other)), SumGram((one, SumGram((other, one))))):
        torch.testing.assert_close(gram.up_to_query().dense().softmax(1), gram.dense().softmax(1))
    biases = LazyGram(query_bias=a, key_bias=b)
    assert biases.up_to_query().size == biases.size


def test_parts_of_features_are_features_with_scales():
    q, k, a, b = operands()
    square = LazyGram.of(q, k, FEATURED["log square"], a, b)
    truncated = LazyGram.of(q, k, ScoreRule(link=TRUNCATED_EXP, link_args=(4,)), None, b)
    biases = LazyGram(query_bias=a, key_bias=b)
    for gram in (square, truncated, square * truncated, SumGram((square, truncated)), biases):
        total = 0.0
        for f, g, u, v in gram.feature_parts():
            assert f.abs().max() <= 2.0  # a product of two that are at most the root of 2
            part = torch.einsum("nhr,mhr->nmh", f, g)
            scale = sum(x for x in (None if u is None else u[:, None], v) if x is not None)
            total = total + part * torch.as_tensor(scale).exp()
        torch.testing.assert_close(total, gram.dense().exp())
