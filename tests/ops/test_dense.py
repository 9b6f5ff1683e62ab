r"""Attention over all pairs: every route against plain formulas in double precision."""

import copy

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from kgat import functional, kernels
from kgat.functional import dense_attention, dense_softmax, edge_attention, linear_attention
from kgat.ops import dense
from kgat.ops.linear import feature_size
from kgat.score.gram import SumGram

# One kernel of each kind of score, and which routes can run it.
KERNELS = {
    "dot_product": {"sdpa", "edges", "dense"},
    "rbf": {"sdpa", "edges", "dense"},
    "magnitude": {"sdpa", "edges", "dense", "linear"},
    "rbf * magnitude": {"sdpa", "edges", "dense"},
    "laplace": {"edges", "dense"},
    "additive": {"edges", "dense"},
    "polynomial": {"edges", "dense", "linear"},
    "spectral * magnitude": {"edges", "dense", "linear"},
    "favor_plus": {"edges", "dense", "linear"},
    "elu_plus_one": {"edges", "dense", "linear"},
    "rbf + elu_plus_one": {"edges", "dense"},
    "spectral + elu_plus_one": {"edges", "dense", "linear"},
}
CASES = [(name, route) for name, routes in KERNELS.items() for route in sorted(routes)]


def expected(kernel, query, key, value, mask, bias):
    # exp(score) over its sum, pair by pair, where there is a key to see.
    score = kernel(query, key).dense() + bias
    weight = score.exp() * mask.unsqueeze(-1)
    total = weight.sum(dim=-2, keepdim=True)
    alpha = torch.where(total > 0, weight / total.clamp_min(1e-300), 0.0)
    return torch.einsum("...nmh,...mhc->...nhc", alpha, value), alpha


def problem(name, dtype=torch.float64, lead=(2,), queries=5, keys=7, scale=1.0):
    torch.manual_seed(0)
    kernel = kernels.resolve(name, 5, 3).to(dtype).eval()
    query = (torch.randn(*lead, queries, 3, 5, dtype=dtype) * scale).requires_grad_()
    key = (torch.randn(*lead, keys, 3, 5, dtype=dtype) * scale).requires_grad_()
    value = torch.randn(*lead, keys, 3, 4, dtype=dtype, requires_grad=True)
    return kernel, query, key, value


def gradients(out, leaves, grad):
    found = torch.autograd.grad(out, leaves, grad, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("name", "route"), CASES)
@pytest.mark.parametrize("case", ["all", "causal", "padding", "pairs", "bias"])
def test_routes_agree_with_the_formula(name, route, case, dtype):
    if route == "linear" and case in ("pairs", "bias"):
        pytest.skip("linear attention has no pairs")
    kernel, query, key, value = problem(name)
    mask, bias, seen = None, None, torch.ones(2, 5, 7, dtype=torch.bool)
    given = torch.zeros(2, 5, 7, 3, dtype=torch.float64)
    if case == "causal":
        seen = seen.tril(2)
    elif case == "padding":
        mask = torch.tensor([[True] * 4 + [False] * 3, [False] * 7]).unsqueeze(1)
        seen = mask.expand(2, 5, 7)
    elif case == "pairs":
        mask = torch.rand(2, 5, 7) < 0.5
        mask[1, 2] = False
        seen = mask
    elif case == "bias":
        bias = torch.randn(2, 5, 7, 3, dtype=torch.float64)
        bias[0, 1, 2:] = -torch.inf
        bias[1, 3] = -torch.inf
        bias.requires_grad_()
        given = bias
    wanted, _ = expected(kernel, query, key, value, seen, given)
    grad = torch.randn_like(wanted)
    leaves = [query, key, value, *kernel.parameters(), *([] if bias is None else [bias])]
    wanted_gradients = gradients(wanted, leaves, grad)

    kernel = kernel.to(dtype)
    query, key, value = (x.detach().to(dtype).requires_grad_() for x in (query, key, value))
    bias = None if bias is None else bias.detach().to(dtype).requires_grad_()
    out = dense_attention(kernel(query, key), value, mask, bias=bias, causal=case == "causal", method=route)
    leaves = [query, key, value, *kernel.parameters(), *([] if bias is None else [bias])]
    found = gradients(out, leaves, grad.to(dtype))
    tolerance = {"rtol": 1e-9, "atol": 1e-9} if dtype == torch.float64 else {"rtol": 2e-4, "atol": 2e-4}
    torch.testing.assert_close(out.double(), wanted, **tolerance)
    for mine, theirs in zip(found, wanted_gradients, strict=True):
        torch.testing.assert_close(mine.double(), theirs.nan_to_num(), **tolerance)
    assert out[~seen.any(dim=-1)].abs().sum() == 0.0


@pytest.mark.parametrize("name", list(KERNELS))
def test_what_cannot_run_says_why(name):
    kernel, query, key, value = problem(name)
    gram = kernel(query, key)
    able = {route.name for route in dense.ROUTES if not route.reasons(dense.DenseCall(gram, value))}
    assert able == KERNELS[name]
    for route in {"sdpa", "edges", "dense", "linear"} - able:
        with pytest.raises(NotImplementedError, match=f"method='{route}' cannot run this"):
            dense_attention(gram, value, method=route)
    said = functional.explain(gram, value)
    assert [part.split(":")[0] for part in said.split("; ") if "about" in part]
    auto = dense.choose(dense.DenseCall(gram, value)).name
    assert auto in able


def test_linear_attention_refuses_what_it_would_ignore():
    kernel, query, key, value = problem("spectral")
    gram = kernel(query, key)
    for kwargs, why in (
        ({"dropout": 0.5}, "no weights to drop"),
        ({"bias": torch.zeros(2, 5, 7, 3)}, "bias per pair"),
        ({"mask": torch.ones(2, 5, 7, dtype=torch.bool)}, "differs between queries"),
    ):
        with pytest.raises(NotImplementedError, match=why):
            dense_attention(gram, value, method="linear", **kwargs)
    signed = kernels.RandomFourier(5, 3)
    with pytest.raises(NotImplementedError, match="can be negative"):
        linear_attention(signed(query.float(), key.float()), value.float())
    with pytest.raises(NotImplementedError, match="Expected a kernel that attention can normalise"):
        dense_attention(signed(query.float(), key.float()), value.float())
    with pytest.raises(ValueError, match=r"'method' as one of 'auto', 'sdpa'.*got 'flash'"):
        dense_attention(gram, value, method="flash")


@pytest.mark.parametrize("queries", [0, 1, 300])
@pytest.mark.parametrize("keys", [0, 1, 131, 300])
def test_causal_linear_attention_across_chunks(queries, keys):
    kernel, query, key, value = problem("elu_plus_one", lead=(), queries=queries, keys=keys)
    seen = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
    wanted, _ = expected(kernel, query, key, value, seen, 0.0)
    out = linear_attention(kernel(query, key), value, causal=True)
    torch.testing.assert_close(out, wanted)
    if queries and keys:
        grad = torch.randn_like(wanted)
        torch.testing.assert_close(
            gradients(out, [query, key, value], grad), gradients(wanted, [query, key, value], grad)
        )


def test_features_may_be_huge():
    # Alone, exp(bias) would overflow single precision: the largest bias is taken out, causally too.
    torch.manual_seed(0)
    kernel = kernels.resolve("elu_plus_one * magnitude", 5, 3)
    x = torch.randn(1, 200, 3, 5) * torch.linspace(1, 12, 200).view(-1, 1, 1)
    assert kernel(x, x).key_bias.max() > 90
    v = torch.randn(1, 200, 3, 4)
    for causal in (False, True):
        out = linear_attention(kernel(x, x), v, causal=causal)
        wanted = dense_attention(kernel(x.double(), x.double()), v.double(), causal=causal, method="dense")
        torch.testing.assert_close(out, wanted.float(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", ["laplace", "polynomial", "rbf + elu_plus_one"])
def test_blocks_are_the_whole(name, causal, monkeypatch):
    kernel, query, key, value = problem(name, queries=11, keys=13)
    mask = torch.rand(2, 11, 13) < 0.7
    bias = torch.randn(11, 13, 3, dtype=torch.float64)
    grad = torch.randn(2, 11, 3, 4, dtype=torch.float64)
    leaves = [query, key, value, *kernel.parameters()]
    for kwargs in ({}, {"mask": mask}, {"mask": mask[:, :1]}, {"bias": bias}):
        found = []
        for block in (2**24, 500):
            monkeypatch.setattr(dense, "BLOCK", block)
            out = dense_attention(kernel(query, key), value, causal=causal, method="dense", **kwargs)
            found.append((out, gradients(out, leaves, grad)))
        torch.testing.assert_close(found[0], found[1])


def test_blocks_are_computed_again_rather_than_kept(monkeypatch):
    kernel, query, key, value = problem("laplace", lead=(), queries=64, keys=64)
    monkeypatch.setattr(dense, "BLOCK", 64 * 3 * 5 * 4)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        dense_attention(kernel(query, key), value, method="dense")
    assert sum(kept) < 64 * 64 * 3  # not even the weights


def test_dropout_drops_weights_on_every_route_that_takes_it():
    torch.manual_seed(0)
    kernel = kernels.RBF(4, 2)
    x, value = torch.zeros(1, 2000, 2, 4), torch.ones(1, 2000, 2, 1)
    for route in ("sdpa", "edges", "dense"):
        out = dense_attention(kernel(x[:, :50], x), value, dropout=0.5, method=route)
        assert abs(out.mean().item() - 1.0) < 0.01, route
        assert 0.005 < out.std().item() < 0.05, route
    nothing = dense_attention(kernel(x[:, :50], x), value, dropout=1.0, method="dense")
    assert nothing.abs().max() == 0.0


def test_weights_are_those_of_the_averages():
    kernel, query, key, value = problem("rbf * magnitude")
    mask = torch.rand(2, 5, 7) < 0.5
    mask[0, 1] = False
    bias = torch.randn(5, 7, 3, dtype=torch.float64)
    gram = kernel(query, key)
    alpha = dense_softmax(gram, mask, bias=bias)
    out, wanted = expected(kernel, query, key, value, mask, bias)
    torch.testing.assert_close(alpha, wanted)
    torch.testing.assert_close(dense_attention(gram, value, mask, bias=bias), out)
    assert dense_softmax(gram, causal=True)[0, 0, :, 0].count_nonzero() == 3


def test_nothing_attends_to_nothing():
    for name, routes in KERNELS.items():
        kernel, query, key, value = problem(name)
        for route in routes:
            none = dense_attention(kernel(query, key[:, :0]), value[:, :0], method=route)
            assert none.shape == (2, 5, 3, 4), (name, route)
            assert none.abs().sum() == 0.0, (name, route)
            assert dense_attention(kernel(query[:, :0], key), value, method=route).shape == (2, 0, 3, 4)
            empty = dense_attention(kernel(query[:0], key[:0]), value[:0], method=route)
            assert empty.shape == (0, 5, 3, 4), (name, route)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("name", "route"), [("rbf", "sdpa"), ("dot_product", "sdpa"), ("spectral", "linear")]
)
def test_half_precision_is_that_of_the_values(name, route, dtype):
    kernel, query, key, value = problem(name, torch.float32, queries=40, keys=40)
    half = [x.detach().to(dtype) for x in (query, key, value)]
    out = dense_attention(kernel(half[0], half[1]), half[2], method=route)
    assert out.dtype == dtype
    wanted = dense_attention(kernel(half[0].float(), half[1].float()), half[2].float(), method="dense")
    torch.testing.assert_close(out.float(), wanted, rtol=3e-2, atol=2e-2)


def test_a_bias_without_gradient_is_not_a_channel():
    # It takes the place of a mask, which costs nothing; with a gradient it is one more channel.
    kernel, query, key, value = problem("rbf")
    out = dense_attention(kernel(query, key), value, method="sdpa")
    with torch.no_grad():
        torch.testing.assert_close(dense_attention(kernel(query, key), value, method="sdpa"), out)


def test_masks_of_keys_hold_one_number_per_key(monkeypatch):
    # Fused attention makes numbers of a bool mask, and copies one whose last stride is not 1: of all pairs,
    # if it was spread over queries before.
    masks = []

    def attend(*args, attn_mask, **kwargs):
        masks.append(attn_mask)
        return attention(*args, attn_mask=attn_mask, **kwargs)

    attention = dense.F.scaled_dot_product_attention
    monkeypatch.setattr(dense.F, "scaled_dot_product_attention", attend)
    for lead in ((), (2,), (2, 3)):
        kernel, query, key, value = problem("rbf", lead=lead)
        with torch.no_grad():
            dense_attention(kernel(query, key), value, method="sdpa")
        assert masks[-1].shape[-3:] == (3, 1, 7)
        assert masks[-1].stride(-1) == 1
        seen = torch.arange(7).expand(*lead, 1, 7) < 4
        dense_attention(kernel(query, key), value, seen, method="sdpa")
        assert masks[-1].shape[-3:] == (1, 1, 7)
        dense_attention(kernel(query, key), value, causal=True, method="sdpa")
        assert masks[-1].shape == (1, 1, 5, 7)


def test_features_are_counted_without_tokens():
    kernel, query, key, _ = problem("spectral * magnitude")
    assert feature_size(kernel(query, key)) == kernel(query, key).features()[0].size(-1)


def test_values_may_be_shared_by_a_batch():
    kernel, query, key, value = problem("rbf")
    for route in ("sdpa", "dense", "edges"):
        out = dense_attention(kernel(query, key), value[0], method=route)
        torch.testing.assert_close(out[1], dense_attention(kernel(query[1], key[1]), value[0]))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("name", "route"), CASES)
def test_a_bias_may_be_the_same_for_all_queries_or_heads(name, route, causal, monkeypatch):
    kernel, query, key, value = problem(name)
    monkeypatch.setattr(dense, "BLOCK", 2 * 3 * 7 * 2 * 5)
    hidden = torch.tensor([[False] * 7, [False] * 2 + [True] * 5]).unsqueeze(-2)
    for shape in ((7, 3), (1, 7, 3), (2, 1, 7, 1), (1, 1, 7, 3), (5, 7, 1), (2, 5, 7, 1)):
        shape = (1, *shape) if len(shape) == 2 else shape
        if route == "linear" and shape[-3] != 1:
            continue
        bias = torch.randn(shape, dtype=torch.float64)
        bias[..., 4, :] = -torch.inf
        bias.requires_grad_()
        whole = bias.expand(2, 5, 7, 3)
        leaves = [query, key, value, bias]
        given = {"causal": causal, "method": route}
        out = dense_attention(kernel(query, key), value, hidden, bias=bias, **given)
        wanted = dense_attention(kernel(query, key), value, hidden, bias=whole, causal=causal, method="dense")
        torch.testing.assert_close(out, wanted)
        grad = torch.ones_like(out).cumsum(-1)
        found = gradients(out, leaves, grad)
        for mine, theirs in zip(found, gradients(wanted, leaves, grad), strict=True):
            torch.testing.assert_close(mine, theirs)
        alpha = dense_softmax(kernel(query, key), hidden, bias=bias, causal=causal)
        torch.testing.assert_close(torch.einsum("bnmh,bmhc->bnhc", alpha, value), wanted)


def test_bad_biases_and_masks_are_a_sentence():
    kernel, query, key, value = problem("rbf")
    gram = kernel(query, key)
    with pytest.raises(
        ValueError, match=r"'bias' of shape \[..., N=5 or 1, M=7, H=3 or 1\] \(got \[5, 7\]\)"
    ):
        dense_attention(gram, value, bias=torch.zeros(5, 7))
    for shape in ((2, 7, 3), (5, 7, 2), (5, 1, 3), (3, 5, 7, 3)):
        with pytest.raises(ValueError, match="'bias' of shape"):
            dense_attention(gram, value, bias=torch.zeros(shape))
    with pytest.raises(ValueError, match=r"bool 'mask' of shape .*got bool \[3, 5, 7\]"):
        dense_attention(gram, value, torch.ones(3, 5, 7, dtype=torch.bool))
    with pytest.raises(ValueError, match="bool 'mask'"):
        linear_attention(gram, value, torch.ones((), dtype=torch.bool))


@pytest.mark.parametrize("name", ["dot_product", "rbf", "spectral"])
def test_attention_over_all_pairs_compiles(name):
    kernel, query, key, value = problem(name, torch.float32)

    def attend(query, key, value):
        return dense_attention(kernel(query, key), value, causal=True)

    compiled = torch.compile(attend, fullgraph=True)
    torch.testing.assert_close(compiled(query, key, value), attend(query, key, value), rtol=1e-4, atol=1e-4)


def test_sums_are_as_wide_as_their_parts(monkeypatch):
    # Or their blocks would hold more than was asked for, and routes would be compared at another price.
    kernel, query, key, value = problem("laplace + intersection", lead=(), queries=64, keys=64)
    gram = kernel(query, key)
    whole = []
    narrowed = dense._narrowed
    monkeypatch.setattr(dense, "_narrowed", lambda *args: whole.append(args[2]) or narrowed(*args))
    monkeypatch.setattr(dense, "BLOCK", 64 * 3 * 10 * 4)  # of all pairs of 4 queries, 5 channels of both
    dense_attention(gram, value, method="dense")
    assert whole == [4] * 16


def test_causal_order_of_fused_attention_is_no_mask(monkeypatch):
    kernel, query, key, value = problem("rbf", queries=7)
    given = []
    attend = dense.F.scaled_dot_product_attention
    monkeypatch.setattr(
        dense.F,
        "scaled_dot_product_attention",
        lambda *args, **kwargs: given.append(kwargs) or attend(*args, **kwargs),
    )
    monkeypatch.setattr(dense, "_visible", lambda *args: pytest.fail("a mask as large as all scores"))
    dense_attention(kernel(query, key), value, causal=True, method="sdpa")
    assert given[0]["is_causal"]
    assert given[0]["attn_mask"] is None


@pytest.mark.parametrize("causal", [False, True])
def test_pairs_outlive_inference_mode(causal):
    kernel, query, key, value = problem("laplace")
    dense._all_pairs.cache_clear()
    with torch.inference_mode():
        wanted = dense_attention(kernel(query, key), value, causal=causal, method="edges")
    out = dense_attention(kernel(query, key), value, causal=causal, method="edges")
    torch.testing.assert_close(out, wanted.clone())
    out.sum().backward()
    assert value.grad is not None


@pytest.mark.parametrize("scale", [1e-3, 1e2, 1e4])
@pytest.mark.parametrize("name", ["rbf", "rbf * magnitude", "rbf * dot_product", "laplace", "rbf + laplace"])
def test_fused_routes_agree_with_true_differences_at_every_scale(name, scale):
    kernel, query, key, value = problem(name, torch.float32, scale=scale)
    exact = kernels.resolve(name, 5, 3).double()
    gram = exact(query.double(), key.double())
    row, col = torch.cartesian_prod(torch.arange(5), torch.arange(7)).T
    score = gram.up_to_query().map(
        lambda x, dim: x.index_select(dim, row), lambda x, dim: x.index_select(dim, col)
    )
    alpha = score.paired().unflatten(-2, (5, 7)).softmax(dim=-2)
    wanted = torch.einsum("bnmh,bmhc->bnhc", alpha, value.double())
    for route in ("auto", "dense", "edges"):
        out = dense_attention(kernel(query, key), value, method=route)
        torch.testing.assert_close(out.double(), wanted, rtol=2e-4, atol=2e-4)
        for grad in gradients(out, [query, key, *kernel.parameters()], torch.randn_like(out)):
            assert grad.isfinite().all()


def test_an_expansion_that_loses_digits_is_not_chosen():
    kernel, query, key, value = problem("rbf", torch.float32)
    call = dense.DenseCall(kernel(query, key), value)
    assert dense.choose(call).name == "sdpa"
    far = dense.DenseCall(kernel(query * 1e3, key * 1e3), value)
    assert dense.choose(far).name != "sdpa"
    assert "would be expanded, and lose digits" in dense.explain(far)
    with pytest.raises(NotImplementedError, match=r"lose digits: of .* that cancel, at most"):
        dense_attention(far.gram, value, method="sdpa")
    # An offset that all share cancels, and double precision has digits to spare.
    assert dense.choose(dense.DenseCall(kernel(query + 1e3, key + 1e3), value)).name == "sdpa"
    far = kernel.double()(query.double() * 1e2, key.double() * 1e2)
    assert dense.choose(dense.DenseCall(far, value.double())).name == "sdpa"


@pytest.mark.parametrize("hidden_by", ["mask", "pairs", "bias"])
@pytest.mark.parametrize("number", [1e4, float("inf"), float("nan")])
@pytest.mark.parametrize("name", ["rbf", "laplace", "dot_product", "polynomial", "rbf + elu_plus_one"])
def test_hidden_keys_may_hold_anything(name, number, hidden_by):
    kernel, query, key, value = problem(name, torch.float32)
    seen = torch.arange(7) < 5
    kwargs = {"mask": seen.expand(2, 1, 7)}
    if hidden_by == "pairs":
        kwargs = {"mask": seen.expand(2, 5, 7)}
    elif hidden_by == "bias":
        kwargs = {"bias": torch.zeros(2, 5, 7, 3).masked_fill(~seen.unsqueeze(-1), -torch.inf)}
    broken_key, broken_value = (
        x.detach().masked_fill(~seen.view(7, 1, 1), number).requires_grad_() for x in (key, value)
    )
    wanted = dense_attention(kernel(query, key[:, :5]), value[:, :5], method="dense")
    wanted_gradient = gradients(wanted, [query], torch.ones_like(wanted))[0]
    for route in dense.ROUTES:
        call = dense.DenseCall(kernel(query, broken_key), broken_value, **kwargs)
        if route.reasons(call):
            continue
        out = route.attend(call)
        torch.testing.assert_close(out, wanted, rtol=1e-4, atol=1e-5, msg=route.name)
        found = gradients(out, [query, broken_key, broken_value], torch.ones_like(out))
        torch.testing.assert_close(found[0], wanted_gradient, rtol=1e-3, atol=1e-4)
        if name == "rbf + elu_plus_one" and number != number:
            found = found[::2]  # the lift itself, before anything is hidden, knows no slope there
        assert all(grad.isfinite().all() for grad in found), route.name
    if name == "rbf":  # what is hidden takes no part in the choice
        assert dense.choose(call).name == "sdpa"


def test_what_a_query_adds_to_its_scores_takes_no_digits():
    torch.manual_seed(0)
    kernel = kernels.FAVORPlus(4, 2)
    query, key, value = torch.randn(50, 2, 4), torch.randn(50, 2, 4), torch.randn(50, 2, 3)
    query[7] *= 1e4
    exact = copy.deepcopy(kernel).double()(query.double(), key.double())
    wanted = dense_attention(exact, value.double(), method="linear").float()
    pairs = torch.cartesian_prod(torch.arange(50), torch.arange(50)).T
    for gram in (kernel(query, key), SumGram((kernel(query, key), kernel(query, key)))):
        found = [dense_attention(gram, value, method=route) for route in ("dense", "edges", "linear")]
        found += [edge_attention(gram, value, pairs.flip(0), backend=name) for name in ("cpu", "eager")]
        for out in found:
            torch.testing.assert_close(out, wanted, rtol=1e-3, atol=1e-4)


LARGE = {
    "spectral * magnitude + elu_plus_one": {},
    "truncated_exponential": {"degree": 8},
    "polynomial * magnitude": {},
    "elu_plus_one + polynomial": {},
    "favor_plus * magnitude + truncated_exponential": {},
}


@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0, 1e4])
@pytest.mark.parametrize("name", LARGE)
def test_linear_attention_at_every_scale(name, scale):
    torch.manual_seed(0)
    kernel = kernels.resolve(name, 3, 2, **LARGE[name])
    exact = copy.deepcopy(kernel).double()
    query, key = (scale * torch.randn(1, 150, 2, 3) for _ in range(2))
    value = torch.randn(1, 150, 2, 3)
    for causal in (False, True):
        leaves = [x.clone().requires_grad_() for x in (query, key, value)]
        out = dense_attention(kernel(*leaves[:2]), leaves[2], causal=causal, method="linear")
        gram = exact(query.double(), key.double())
        wanted = dense_attention(gram, value.double(), causal=causal, method="dense")
        torch.testing.assert_close(out.double(), wanted, rtol=5e-3, atol=5e-3)
        for grad in gradients(out, [*leaves, *kernel.parameters()], torch.randn_like(out)):
            assert grad.isfinite().all()


def test_compiled_attention_of_points_far_apart_is_right():
    kernel, query, key, value = problem("rbf", torch.float32, scale=1e3)

    def attend(query, key, value):
        return dense_attention(kernel(query, key), value)

    exact = copy.deepcopy(kernel).double()(query.double(), key.double())
    wanted = dense_attention(exact, value.double(), method="dense")
    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(query, key, value).double(), wanted, rtol=1e-4, atol=1e-4)


def test_pairs_made_under_a_mode_are_not_kept():
    dense._all_pairs.cache_clear()
    with FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.empty(2, 5, 3, 4)
        dense_attention(kernels.RBF(4, 3)(x, x), x, method="edges")
    x = torch.randn(2, 5, 3, 4)
    gram = kernels.RBF(4, 3)(x, x)
    out = dense_attention(gram, x, method="edges")
    assert type(out) is torch.Tensor
    torch.testing.assert_close(out, dense_attention(gram, x, method="dense"))
