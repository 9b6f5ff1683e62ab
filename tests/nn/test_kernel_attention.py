r"""KernelAttention against torch's MultiheadAttention, plain formulas and itself."""

import itertools

import pytest
import torch

from kgat import kernels, positions
from kgat.functional import dense_softmax, edge_attention
from kgat.nn import (
    FourierAttention,
    KernelAttention,
    KernelEncoderLayer,
    KernelGATConv,
    KeyValueCache,
    PrimalAttention,
    SegmentMemory,
)
from kgat.positions import SymmetricProduct

EMBED, HEADS = 15, 3  # 5 channels per head


def tokens(batch=2, queries=6, keys=7, dtype=torch.float64, sizes=(EMBED, EMBED, EMBED)):
    torch.manual_seed(0)
    query = torch.randn(batch, queries, sizes[0], dtype=dtype, requires_grad=True)
    key = torch.randn(batch, keys, sizes[1], dtype=dtype, requires_grad=True)
    value = torch.randn(batch, keys, sizes[2], dtype=dtype, requires_grad=True)
    return query, key, value


def layer(**kwargs):
    torch.manual_seed(1)
    attention = KernelAttention(EMBED, HEADS, **kwargs).double()
    with torch.no_grad():
        for parameter in attention.parameters():  # biases start at 0
            parameter.add_(0.1 * torch.randn_like(parameter))
    return attention


def both(dtype=torch.float64, **kwargs):
    torch.manual_seed(1)
    stock = torch.nn.MultiheadAttention(EMBED, HEADS, batch_first=True, dtype=dtype, **kwargs)
    with torch.no_grad():
        for parameter in stock.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return stock, KernelAttention.from_torch(stock)


def padding(kind):
    if kind == "none":
        return None
    hidden = torch.tensor([[False] * 5 + [True] * 2, [False] * 7])
    if kind == "bool":
        return hidden
    generator = torch.Generator().manual_seed(2)
    return torch.randn(2, 7, generator=generator, dtype=torch.float64).masked_fill(hidden, -torch.inf)


def pairs(kind):
    generator = torch.Generator().manual_seed(3)
    shape = (2 * HEADS, 6, 7) if "heads" in kind else (6, 7)
    if kind == "none":
        return None
    hidden = torch.rand(shape, generator=generator) < 0.3
    hidden[..., 0] = False  # torch gives NaN to a query that sees nothing
    if kind.startswith("bool"):
        return hidden
    numbers = torch.randn(shape, generator=generator, dtype=torch.float64)
    return numbers.masked_fill(hidden, -torch.inf)


MASKS = list(
    itertools.product(("none", "bool", "float"), ("none", "bool", "float", "bool heads", "float heads"))
)


@pytest.mark.filterwarnings("ignore:Support for mismatched:UserWarning")
@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize(("of_keys", "of_pairs"), MASKS)
def test_dot_product_is_the_layer_of_torch(of_keys, of_pairs, need_weights):
    stock, ours = both()
    inputs = tokens()
    kwargs = {
        "key_padding_mask": padding(of_keys),
        "attn_mask": pairs(of_pairs),
        "need_weights": need_weights,
    }
    found = []
    for module in (stock, ours):
        out, weights = module(*inputs, **kwargs)
        grad = torch.ones_like(out).cumsum(1)
        leaves = [
            *inputs,
            *(dict(module.named_parameters())[name] for name in dict(stock.named_parameters())),
        ]
        found.append((out, weights, *torch.autograd.grad(out, leaves, grad)))
    for mine, theirs in zip(found[1], found[0], strict=True):
        if theirs is None:
            assert mine is None
        else:
            torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"bias": False},
        {"kdim": 4, "vdim": 9},
        {"add_bias_kv": True},
        {"add_zero_attn": True},
        {"add_bias_kv": True, "add_zero_attn": True},
    ],
    ids=str,
)
def test_every_shape_of_the_layer_of_torch(kwargs):
    stock, ours = both(**kwargs)
    inputs = tokens(sizes=(EMBED, kwargs.get("kdim", EMBED), kwargs.get("vdim", EMBED)))
    masks = {"key_padding_mask": padding("bool"), "attn_mask": pairs("bool")}
    out, weights = ours(*inputs, **masks, average_attn_weights=False)
    wanted, wanted_weights = stock(*inputs, **masks, average_attn_weights=False)
    torch.testing.assert_close(out, wanted)
    torch.testing.assert_close(weights, wanted_weights)
    torch.testing.assert_close(ours(*inputs, **masks, need_weights=False)[0], wanted)


def test_layouts_of_torch():
    stock = torch.nn.MultiheadAttention(EMBED, HEADS, dtype=torch.float64)
    ours = KernelAttention.from_torch(stock)
    assert not ours.batch_first
    query, key, value = tokens()
    turned = [x.transpose(0, 1) for x in (query, key, value)]
    torch.testing.assert_close(ours(*turned)[0], stock(*turned)[0])
    torch.testing.assert_close(ours(*turned)[1], stock(*turned)[1])
    alone = [x[0] for x in (query, key, value)]  # without a batch
    hidden, mask = padding("bool")[0], pairs("float")
    out, weights = ours(*alone, hidden, attn_mask=mask)
    wanted, wanted_weights = stock(*alone, hidden, attn_mask=mask)
    torch.testing.assert_close(out, wanted)
    torch.testing.assert_close(weights, wanted_weights)
    itself = (query[0], query[0], query[0], torch.arange(6) > 3)  # self-attention, without a batch
    torch.testing.assert_close(ours(*itself), stock(*itself))
    of_heads = ours(*alone, attn_mask=pairs("float heads")[:HEADS], average_attn_weights=False)
    wanted = stock(*alone, attn_mask=pairs("float heads")[:HEADS], average_attn_weights=False)
    torch.testing.assert_close(of_heads, wanted)


def test_causal_order_needs_no_mask():
    stock, ours = both()
    x, _, _ = tokens()
    later = torch.ones(6, 6, dtype=torch.bool).triu(1)
    wanted, weights = stock(x, x, x, attn_mask=later, is_causal=True)
    for kwargs in ({}, {"attn_mask": later}):
        torch.testing.assert_close(ours(x, is_causal=True, **kwargs), (wanted, weights))
        torch.testing.assert_close(ours(x, is_causal=True, need_weights=False, **kwargs)[0], wanted)
    torch.testing.assert_close(ours(x), ours(x, x, x))
    _, extra = both(add_bias_kv=True)
    changed = x.detach().clone()
    changed[:, 3:] += 1.0
    torch.testing.assert_close(
        extra(x, is_causal=True)[0][:, :3], extra(changed, is_causal=True)[0][:, :3], rtol=0, atol=0
    )


@pytest.mark.parametrize("name", ["rbf", "laplace", "spectral", "additive", "rbf * magnitude"])
@pytest.mark.parametrize("projections", ["separate", "shared_qk"])
def test_any_kernel_is_its_formula(name, projections):
    attention = layer(kernel=name, projections=projections).eval()
    query, key, value = tokens()
    hidden, mask = padding("bool"), pairs("bool")
    q, k, v = attention.project(query, key, value)
    seen = ~(hidden.unsqueeze(1) | mask)
    weight = attention.kernel(q, k).dense().exp() * seen.unsqueeze(-1)
    alpha = weight / weight.sum(dim=2, keepdim=True)
    wanted = attention.out_proj(torch.einsum("bnmh,bmhc->bnhc", alpha, v).flatten(-2))
    leaves = [query, key, value, *attention.parameters()]
    wanted_gradients = torch.autograd.grad(wanted.square().sum(), leaves, allow_unused=True)
    for need_weights in (True, False):
        out, weights = attention(query, key, value, hidden, need_weights, mask, average_attn_weights=False)
        torch.testing.assert_close(out, wanted)
        if weights is not None:
            torch.testing.assert_close(weights, alpha.movedim(-1, 1))
        found = torch.autograd.grad(out.square().sum(), leaves, allow_unused=True)
        torch.testing.assert_close(found, wanted_gradients)


# The same kernel on a complete graph and on a sequence.
@pytest.mark.parametrize("name", ["dot_product", "rbf", "laplace", "sinc_product", "polynomial"])
def test_a_sequence_is_a_complete_graph(name):
    attention = layer(kernel=name)
    x, _, _ = tokens(batch=1)
    q, k, v = (t[0] for t in attention.project(x, x, x))
    edges = torch.cartesian_prod(torch.arange(6), torch.arange(6)).T
    wanted = attention.out_proj(edge_attention(attention.kernel(q, k), v, edges).flatten(1))
    torch.testing.assert_close(attention(x, need_weights=False)[0][0], wanted)


@pytest.mark.parametrize("method", ["sdpa", "edges", "dense"])
def test_named_routes_agree(method):
    attention, named = layer(kernel="rbf"), layer(kernel="rbf", method=method)
    inputs = tokens()
    wanted = attention(*inputs, padding("float"), need_weights=False, attn_mask=pairs("float"))[0]
    found = named(*inputs, padding("float"), need_weights=False, attn_mask=pairs("float"))[0]
    torch.testing.assert_close(found, wanted)
    assert "sdpa: about" in attention.explain(*inputs)
    with pytest.raises(NotImplementedError, match=r"method='linear' cannot run this: .*finite feature map"):
        layer(kernel="rbf", method="linear")(*inputs, need_weights=False)


def test_who_sees_nothing_gets_nothing():
    attention = layer(kernel="rbf")
    query, key, value = tokens()
    hidden = torch.tensor([[True] * 7, [False] * 7])
    for need_weights in (False, True):
        out, weights = attention(query, key, value, hidden, need_weights)
        torch.testing.assert_close(out[0], attention.out_proj.bias.expand(6, EMBED))
        assert weights is None or weights[0].abs().max() == 0.0
        gradients = torch.autograd.grad(out.sum(), [query, key, value])
        assert all(g.isfinite().all() and g[0].abs().max() == 0.0 for g in gradients)


@pytest.mark.parametrize("shape", [(2, 0, 7), (2, 6, 0), (0, 6, 7), (1, 1, 1)], ids=str)
def test_sequences_of_none_or_one(shape):
    attention = layer(kernel="rbf")
    out, weights = attention(*tokens(*shape))
    assert out.shape == (*shape[:2], EMBED)
    assert weights.shape == shape
    assert attention(*tokens(*shape), need_weights=False)[0].shape == (*shape[:2], EMBED)
    if shape[2] == 0:
        torch.testing.assert_close(out, attention.out_proj.bias.expand_as(out))


def test_grouped_heads_are_heads_side_by_side():
    torch.manual_seed(0)
    few = KernelAttention(24, 6, kernel="rbf", num_kv_heads=2).double()
    many = KernelAttention(24, 6, kernel="rbf").double()
    groups = few.k_proj_weight.unflatten(0, (2, 4)).repeat_interleave(3, dim=0).flatten(0, 1)
    groups_v = few.v_proj_weight.unflatten(0, (2, 4)).repeat_interleave(3, dim=0).flatten(0, 1)
    with torch.no_grad():
        many.in_proj_weight.copy_(torch.cat([few.q_proj_weight, groups, groups_v]))
        many.out_proj.load_state_dict(few.out_proj.state_dict())
    x = torch.randn(2, 5, 24, dtype=torch.float64)
    torch.testing.assert_close(few(x), many(x))


def test_shared_projections_of_a_symmetric_kernel_are_symmetric():
    attention = layer(kernel="rbf", projections="shared_qk")
    x, _, _ = tokens()
    q, k, _ = attention.project(x, x, x)
    score = attention.kernel(q, k).dense()
    torch.testing.assert_close(score, score.transpose(1, 2))
    assert k is q  # so that it is lifted once
    other = attention.project(x, x + 1.0, x)
    torch.testing.assert_close(other[0], q)
    assert (other[1] - k).abs().max() > 0.1
    names = {name for name, _ in attention.named_parameters()}
    assert "k_proj_weight" not in names
    assert attention.in_proj_bias.numel() == 2 * EMBED


def test_networks_of_queries_and_keys():
    maps = [torch.nn.Sequential(torch.nn.Linear(EMBED, EMBED), torch.nn.Tanh()) for _ in range(2)]
    attention = layer(query_map=maps[0], key_map=maps[1])
    x, _, _ = tokens()
    attention(x, need_weights=False)[0].sum().backward()
    assert all(p.grad is not None for p in attention.parameters())
    q, _, v = attention.project(x, x, x)
    assert q.abs().max() < 1.0 < v.abs().max()


@pytest.mark.parametrize("position", [None, "sum", "relative_table", "shaw", "transformer_xl", "symmetric"])
@pytest.mark.parametrize("kernel", ["dot_product", "laplace"])
def test_decoding_token_by_token_is_the_whole_pass(kernel, position):
    attention = layer(kernel=kernel, position=position)
    x = torch.randn(2, 9, EMBED, dtype=torch.float64)
    hidden = torch.zeros(2, 9, dtype=torch.bool)
    hidden[1, 3:5] = True
    wanted = attention(x, None, None, hidden, is_causal=True)[0]
    cache, found = KeyValueCache(), []
    for start, stop in ((0, 4), (4, 5), (5, 6), (6, 9)):
        part = hidden[:, start:stop] if stop < 9 else None  # the last are all there
        found.append(attention(x[:, start:stop], None, None, part, is_causal=True, cache=cache)[0])
    assert len(cache) == 9
    torch.testing.assert_close(torch.cat(found, dim=1), wanted)
    cache.select(torch.tensor([1, 1, 0]))
    assert cache.key.shape[0] == cache.padding.shape[0] == 3


def test_a_fixed_cache_holds_the_keys_of_the_first_call():
    attention = layer(kernel="rbf")
    query, memory, _ = tokens()
    hidden = padding("bool")
    wanted = attention(query, memory, memory, hidden)[0]
    cache = KeyValueCache(fixed=True)
    found = [attention(query[:, i : i + 1], memory, memory, hidden, cache=cache)[0] for i in range(6)]
    torch.testing.assert_close(torch.cat(found, dim=1), wanted)
    assert len(cache) == 7


@pytest.mark.parametrize("name", ["sum", "relative_table", "shaw", "transformer_xl", "symmetric", "kerple"])
def test_places_make_a_difference(name):
    attention = layer(kernel="rbf", position=name)
    x, _, _ = tokens()
    turned = torch.randperm(6)
    moved = (attention(x)[0][:, turned] - attention(x[:, turned])[0]).abs().max()
    assert moved > 1e-3
    without = layer(kernel="rbf")
    torch.testing.assert_close(without(x)[0][:, turned], without(x[:, turned])[0])
    out, weights = attention(x)
    torch.testing.assert_close(attention(x, need_weights=False)[0], out)
    assert weights is not None


@pytest.mark.parametrize("name", ["sum", "relative_table", "shaw", "transformer_xl", "symmetric", "kerple"])
def test_every_part_of_a_position_has_its_place(name):
    attention = layer(kernel="laplace", position=name)
    x, _, _ = tokens()
    position, index = attention.position, range(6)
    placed = position.add(x, index)
    q, k, v = attention.project(placed, placed, x)
    score = attention.kernel(position.shift(q), k).dense()
    if (of_places := position.gram(index, index)) is not None:
        score = score + of_places.dense()
    if (of_pairs := position.bias(q, index, index)) is not None:
        score = score + of_pairs
    alpha = score.softmax(dim=2)
    wanted = torch.einsum("bnmh,bmhc->bnhc", alpha, v)
    if (of_values := position.value_bias(index, index)) is not None:
        wanted = wanted + torch.einsum("bnmh,nmhc->bnhc", alpha, of_values)
    wanted = attention.out_proj(wanted.flatten(-2))
    for need_weights in (True, False):
        torch.testing.assert_close(attention(x, need_weights=need_weights)[0], wanted)


def test_symmetric_product_is_a_product_of_kernels_and_stays_fused():
    attention = layer(position=SymmetricProduct(EMBED, HEADS).double())
    x, _, _ = tokens()
    q, k, v = attention.project(x, x, x)
    places = attention.position.gram(range(6), range(6)).dense()
    alpha = (attention.kernel(q, k).dense() + places).softmax(dim=2)
    wanted = attention.out_proj(torch.einsum("bnmh,bmhc->bnhc", alpha, v).flatten(-2))
    torch.testing.assert_close(attention(x, need_weights=False)[0], wanted)
    assert "sdpa: about" in attention.explain(x)


def test_nested_tensors_are_their_sequences():
    attention = layer(kernel="rbf")
    parts = [torch.randn(n, EMBED, dtype=torch.float64) for n in (3, 1, 5)]
    for layout in (torch.strided, torch.jagged):
        nested = torch.nested.nested_tensor(parts, layout=layout)
        for average in (True, False):
            out, weights = attention(nested, average_attn_weights=average)
            for i, (part, found) in enumerate(zip(parts, out.unbind(), strict=True)):
                size = part.size(0)
                wanted, of_pairs = attention(part, average_attn_weights=average)
                torch.testing.assert_close(found, wanted)
                torch.testing.assert_close(weights[i, ..., :size, :size], of_pairs)
                assert weights[i, ..., size:, :].abs().sum() == weights[i, ..., size:].abs().sum() == 0.0
        assert attention(nested, need_weights=False)[1] is None
        (nested + out).unbind()  # a skip connection
    with pytest.raises(ValueError, match="no 'key_padding_mask' beside nested"):
        attention(nested, key_padding_mask=torch.zeros(3, 5, dtype=torch.bool), need_weights=False)


def test_penalties_reach_the_caller_and_padding_does_not_reach_the_law():
    attention = layer(kernel="implicit_spectral", kernel_kwargs={"data_dependent": True}).eval()
    x, _, _ = tokens()
    losses = []
    out = attention(x, losses=losses)[0]
    assert len(losses) == 1
    assert losses[0].requires_grad
    longer = torch.cat([x, 9.0 * torch.ones(2, 2, EMBED, dtype=torch.float64)], dim=1)
    hidden = torch.zeros(2, 8, dtype=torch.bool)
    hidden[:, 6:] = True
    torch.testing.assert_close(attention(longer, key_padding_mask=hidden)[0][:, :6], out)
    position = SymmetricProduct(EMBED, HEADS, "implicit_spectral", {"data_dependent": True})
    for whole in (attention, layer(position=position).eval()):
        with pytest.raises(ValueError, match=r"is_causal=True.*data_dependent=False"):
            whole(x, is_causal=True)
        with pytest.raises(ValueError, match=r"a cache \(got.*data_dependent=False"):
            whole(x, cache=KeyValueCache())
        for mask in (torch.ones(6, 6).triu(1).bool(), torch.zeros(6, 6, dtype=torch.float64)):
            with pytest.raises(ValueError, match=r"with attn_mask \(got.*data_dependent=False"):
                whole(x, attn_mask=mask)


def test_dropout_acts_in_training_alone():
    attention = layer(kernel="rbf", dropout=0.5)
    x, _, _ = tokens()
    torch.manual_seed(0)
    out, weights = attention(x)
    assert (weights == 0).any() or (weights.sum(-1) - 1).abs().max() > 1e-3
    assert not torch.equal(attention(x, need_weights=False)[0], attention(x, need_weights=False)[0])
    attention.eval()
    torch.testing.assert_close(attention(x)[1].sum(-1), torch.ones(2, 6, dtype=torch.float64))
    torch.testing.assert_close(attention(x, need_weights=False)[0], attention(x)[0])
    assert not torch.equal(out, attention(x)[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_and_autocast(dtype):
    single = KernelAttention(16, 2, kernel="rbf")
    half = KernelAttention(16, 2, kernel="rbf", dtype=dtype)
    half.load_state_dict(single.state_dict())
    x = torch.randn(2, 6, 16)
    wanted = single(x)[0]
    found = half(x.to(dtype))[0]
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), wanted, rtol=5e-2, atol=2e-2)
    if dtype == torch.bfloat16:
        with torch.autocast("cpu", dtype):
            out, weights = single(x)
        assert out.dtype == dtype
        assert weights.dtype == torch.float32
        torch.testing.assert_close(out.float(), wanted, rtol=5e-2, atol=2e-2)


def test_attention_compiles_whole():
    attention = KernelAttention(16, 2, kernel="rbf", position="relative_table")
    x = torch.randn(2, 6, 16)
    compiled = torch.compile(lambda x: attention(x, is_causal=True, need_weights=False)[0], fullgraph=True)
    torch.testing.assert_close(compiled(x), attention(x, is_causal=True)[0], rtol=1e-4, atol=1e-5)


def test_fourier_attention_is_a_product_of_sinc():
    torch.manual_seed(0)
    attention = FourierAttention(EMBED, HEADS, per="layer", inverse_bandwidth=1.0).double()
    x, _, _ = tokens()
    q, k, v = attention.project(x, x, x)
    difference = q.unsqueeze(2) - k.unsqueeze(1)
    weight = torch.sinc(difference / torch.pi).pow(4).prod(dim=-1)
    alpha = weight / weight.sum(dim=2, keepdim=True)
    wanted = attention.out_proj(torch.einsum("bnmh,bmhc->bnhc", alpha, v).flatten(-2))
    torch.testing.assert_close(attention(x)[0], wanted)
    torch.testing.assert_close(attention(x, need_weights=False)[0], wanted)
    assert attention.kernel.inverse_bandwidth.numel() == 1


def test_state_of_torch_loads_where_the_kernel_has_none():
    stock, _ = both()
    fresh = KernelAttention(EMBED, HEADS).double()
    fresh.load_state_dict(stock.state_dict())
    x, _, _ = tokens()
    torch.testing.assert_close(fresh(x)[0], stock(x, x, x)[0])
    with pytest.raises(ValueError, match=r"projections of torch's.*in_proj_weight"):
        KernelAttention.from_torch(stock, projections="shared_qk")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_heads": 4}, "'embed_dim' divisible by 'num_heads'"),
        ({"num_kv_heads": 2}, "'num_heads=3' divisible by 'num_kv_heads'"),
        ({"projections": "shared"}, "'projections' as one of 'shared_qk', 'separate'"),
        ({"projections": "shared_qk", "kdim": 4}, "keys of the same size"),
        ({"dropout": 2.0}, r"'dropout' in \[0, 1\]"),
        ({"kernel": "nope"}, "nope"),
        ({"add_zero_attn": True, "position": "sum"}, "no 'position' beside"),
    ],
)
def test_bad_layers_are_a_sentence(kwargs, message):
    with pytest.raises(ValueError, match=message):
        KernelAttention(**{"embed_dim": EMBED, "num_heads": HEADS, **kwargs})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"query": torch.zeros(2, 6, 4)}, r"'query' of shape \[B, tokens, F\] or \[tokens, F\] with F=15"),
        ({"key": torch.zeros(7, EMBED)}, "batched as 'query' is"),
        ({"value": torch.zeros(2, 6, EMBED)}, "as many values as keys"),
        ({"key": torch.zeros(3, 7, EMBED), "value": torch.zeros(3, 7, EMBED)}, "of the same batch"),
        (
            {"key_padding_mask": torch.zeros(2, 6, dtype=torch.bool)},
            r"'key_padding_mask' of shape \[B=2, M=7\]",
        ),
        ({"key_padding_mask": torch.zeros(2, 7, dtype=torch.long)}, "bool or floating 'key_padding_mask'"),
        (
            {"attn_mask": torch.zeros(7, 6)},
            r"'attn_mask' of shape \[N=6, M=7\], \[B \* H=6, N=6, M=7\] or \[",
        ),
        (
            {"attn_mask": torch.zeros(2, 2, 6, 7)},
            r"\[B=2 or 1, H=3 or 1, N=6 or 1, M=7\] \(got \[2, 2, 6, 7\]\)",
        ),
        ({"attn_mask": torch.zeros(2, 3, 6, 1)}, r"\(got \[2, 3, 6, 1\]\)"),
        ({"attn_mask": torch.zeros(6, 7, dtype=torch.long)}, "bool or floating 'attn_mask'"),
        ({"key_padding_mask": torch.zeros(2, 7), "cache": KeyValueCache()}, "bool 'key_padding_mask' beside"),
    ],
)
def test_bad_calls_are_a_sentence(kwargs, message):
    attention = KernelAttention(EMBED, HEADS)
    inputs = {"query": torch.zeros(2, 6, EMBED), "key": torch.zeros(2, 7, EMBED), **kwargs}
    inputs.setdefault("value", torch.zeros(*inputs["key"].shape[:-1], EMBED))
    with pytest.raises(ValueError, match=message):
        attention(**inputs)


def test_weights_of_kernels_that_can_be_negative_are_refused():
    attention = KernelAttention(EMBED, HEADS, kernel=kernels.RandomFourier)
    with pytest.raises(NotImplementedError, match="negative"):
        attention(torch.zeros(1, 3, EMBED))
    with pytest.raises(NotImplementedError, match="can be negative"):
        attention(torch.zeros(1, 3, EMBED), need_weights=False)


def test_a_magnitude_multiplies_the_kernel():
    plain, times = layer(kernel="rbf"), layer(kernel="rbf", magnitude=2.0)
    times.load_state_dict(
        {name.replace("kernel.", "kernel.kernels.0."): x for name, x in plain.state_dict().items()},
        strict=False,
    )
    x, _, _ = tokens()
    q, k, _ = plain.project(x, x, x)
    gram = plain.kernel(q, k) * kernels.Magnitude(5, HEADS)(q, k)
    torch.testing.assert_close(times(x, average_attn_weights=False)[1], dense_softmax(gram).movedim(-1, 1))


class Graphs:
    r"""A backend of torch.compile that counts graphs and runs them as they are."""

    def __init__(self):
        self.count = 0

    def __call__(self, graph, _):
        self.count += 1
        return graph.forward


@pytest.mark.parametrize("masks", [(), ("padding",), ("causal",), ("padding", "causal")], ids="+".join)
@pytest.mark.parametrize("kernel", ["dot_product", "laplace"])
def test_compiled_attention_is_bound_to_no_tensor_and_no_length(kernel, masks):
    torch._dynamo.reset()
    attention, graphs = KernelAttention(16, 2, kernel=kernel), Graphs()
    compiled = torch.compile(attention, backend=graphs, fullgraph=True)
    for tokens_ in (5, 5, 6, 7, 8):
        x = torch.randn(2, tokens_, 16)
        given = {"need_weights": False, "is_causal": "causal" in masks}
        if "padding" in masks:
            given["key_padding_mask"] = torch.rand(2, tokens_) < 0.3
        torch.testing.assert_close(compiled(x, **given)[0], attention(x, **given)[0], rtol=1e-4, atol=1e-5)
    assert graphs.count == 2  # one of the first length, one of any


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("position", [name for name in positions.names() if name != "none"])
def test_positions_bind_no_length(position, causal):
    torch._dynamo.reset()
    attention, graphs = KernelAttention(16, 2, kernel="rbf", position=position).eval(), Graphs()
    compiled = torch.compile(attention, backend=graphs, fullgraph=True, dynamic=True)
    given = {"need_weights": False, "is_causal": causal}
    for length in (5, 6, 7, 8):
        x = torch.randn(2, length, 16)
        torch.testing.assert_close(compiled(x, **given)[0], attention(x, **given)[0], rtol=1e-4, atol=1e-5)
    assert graphs.count == 1
    shapes = {"query": {1: torch.export.Dim("length", min=2, max=8192)}, "need_weights": None}
    shapes["is_causal"] = None
    program = torch.export.export(attention, (torch.randn(2, 7, 16),), given, dynamic_shapes=shapes).module()
    torch.testing.assert_close(program(x, **given)[0], attention(x, **given)[0], rtol=1e-4, atol=1e-5)


def test_a_position_of_ones_own_may_ask_for_the_number_of_places():
    class Shrinking(positions.Position):
        def bias(self, query, query_index, key_index):
            shares = torch.ones(len(query_index), len(key_index), self.num_heads) / len(key_index)
            return shares * query_index.start

    torch._dynamo.reset()
    attention = KernelAttention(16, 2, kernel="rbf", position=Shrinking(16, 2)).eval()
    compiled = torch.compile(attention, backend="eager", fullgraph=True)
    for size in (5, 6, 7):
        x = torch.randn(2, size, 16)
        torch.testing.assert_close(compiled(x, need_weights=False)[0], attention(x, need_weights=False)[0])


@pytest.mark.parametrize("causal", [False, True])
def test_exported_attention_takes_any_batch_and_length(causal):
    attention = KernelAttention(16, 2, kernel="rbf").eval()
    batch, length = torch.export.Dim("batch", min=1, max=8), torch.export.Dim("length", min=2, max=64)
    shapes = {"query": {0: batch, 1: length}, "need_weights": None, "is_causal": None}
    given = {"need_weights": False, "is_causal": causal}
    program = torch.export.export(attention, (torch.randn(2, 7, 16),), given, dynamic_shapes=shapes).module()
    for shape in ((3, 11, 16), (1, 2, 16)):
        x = torch.randn(shape)
        torch.testing.assert_close(program(x, **given)[0], attention(x, **given)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", ["rbf", "laplace"])
def test_attention_is_mapped_over_a_dimension(kernel):
    attention = KernelAttention(16, 2, kernel=kernel)
    x = torch.randn(3, 2, 4, 16)
    found = torch.func.vmap(lambda x: attention(x, need_weights=False)[0])(x)
    wanted = torch.stack([attention(part, need_weights=False)[0] for part in x])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kwargs", [{"add_zero_attn": True}, {"add_bias_kv": True, "add_zero_attn": True}])
@pytest.mark.parametrize("masked", [False, True])
def test_keys_that_a_layer_adds_may_be_all_there_are(kwargs, masked):
    stock, attention = both(**kwargs)
    query, key, value = tokens(keys=0)
    mask = torch.zeros(2, 0, dtype=torch.bool) if masked else None
    for found, wanted in zip(attention(query, key, value, mask), stock(query, key, value, mask), strict=True):
        torch.testing.assert_close(found, wanted)


def test_numbers_that_hide_a_token_hide_it_from_the_law_too():
    attention = layer(kernel="implicit_spectral", kernel_kwargs={"data_dependent": True}).eval()
    x, _, _ = tokens(queries=7)
    hidden = padding("bool")
    numbers = torch.zeros(2, 7, dtype=x.dtype).masked_fill(hidden, -torch.inf)
    torch.testing.assert_close(
        attention(x, key_padding_mask=numbers)[0], attention(x, key_padding_mask=hidden)[0]
    )


@pytest.mark.parametrize("name", ["kerple", "table-S", "transformer_xl", "sum", "symmetric_product"])
def test_causal_order_and_places_agree_where_queries_are_the_last_tokens(name):
    attention = layer(kernel="rbf", position=name)
    x, _, _ = tokens(queries=7)
    whole, weights = attention(x, is_causal=True)
    found = attention(x[:, 4:], x, is_causal=True)
    torch.testing.assert_close(found, (whole[:, 4:], weights[:, 4:]))


def test_nested_tensors_have_to_fit():
    attention = layer()

    def nested(*lengths):
        parts = [torch.randn(length, EMBED, dtype=torch.float64) for length in lengths]
        return torch.nested.as_nested_tensor(parts, layout=torch.jagged)

    with pytest.raises(ValueError, match=r"as many values as keys .*\(got \[4, 4\] and \[3, 4\]\)"):
        attention(nested(2, 3), nested(3, 4), nested(4, 4), need_weights=False)
    with pytest.raises(ValueError, match=r"as many keys as queries .*\(got \[3, 4\] and \[2, 3\]\)"):
        attention(nested(2, 3), nested(3, 4), need_weights=False, is_causal=True)


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("number", [1e4, float("nan")])
def test_hidden_padding_moves_no_token(number, need_weights):
    torch.manual_seed(0)
    attention = KernelAttention(16, 2, kernel="rbf")
    x = torch.randn(2, 7, 16)
    hidden = (torch.arange(7) >= 5).expand(2, 7)
    wanted = attention(x[:, :5], need_weights=need_weights)[0]
    x[:, 5:] = number
    for mask in (hidden, torch.zeros(2, 7).masked_fill(hidden, -torch.inf)):
        out = attention(x, key_padding_mask=mask, need_weights=need_weights)[0]
        torch.testing.assert_close(out[:, :5], wanted, rtol=1e-5, atol=1e-6)


# Of four tokens the last one, hidden from each query for one reason or another.
LAST = torch.arange(4) == 3
BY_LAST = LAST & LAST.unsqueeze(-1)
TOGETHER = {
    "mask and order": {"attn_mask": BY_LAST, "is_causal": True},
    "numbers and order": {"attn_mask": torch.zeros(4, 4).masked_fill(BY_LAST, -torch.inf), "is_causal": True},
    "mask of heads and order": {"attn_mask": BY_LAST.expand(HEADS, 4, 4), "is_causal": True},
    "padding and order": {"key_padding_mask": LAST.unsqueeze(0), "is_causal": True},
    "numbers of padding, mask and order": {
        "key_padding_mask": torch.zeros(1, 4),
        "attn_mask": BY_LAST,
        "is_causal": True,
    },
    "padding alone": {"key_padding_mask": LAST.unsqueeze(0)},
}


@pytest.mark.parametrize(
    "extra", [{}, {"add_zero_attn": True}, {"add_bias_kv": True}, {"position": "alibi"}], ids=str
)
@pytest.mark.parametrize("method", ["auto", "dense", "edges"])
@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("reasons", TOGETHER)
def test_what_nobody_sees_may_hold_anything(reasons, need_weights, method, extra):
    for kernel in ("dot_product", "rbf"):
        attention = layer(kernel=kernel, method=method, **extra)
        query = torch.randn(1, 4, EMBED, dtype=torch.float64, requires_grad=True)
        x = torch.randn(1, 4, EMBED, dtype=torch.float64)
        results = []
        for number in (0.5, torch.nan):
            key = x.index_fill(1, torch.tensor(3), number).requires_grad_()
            out = attention(query, key, need_weights=need_weights, **TOGETHER[reasons])[0]
            by_query, by_key = torch.autograd.grad(out.square().sum(), [query, key])
            results.append((out, by_query, by_key[:, :3]))
        torch.testing.assert_close(*results)


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged], ids=str)
@pytest.mark.parametrize("method", ["auto", "dense"])
def test_nested_tensors_of_empty_sequences(layout, method):
    attention = layer(kernel="rbf", method=method)
    for lengths in ((0, 0), (0, 2)):
        parts = [torch.randn(n, EMBED, dtype=torch.float64, requires_grad=True) for n in lengths]
        nested = torch.nested.as_nested_tensor(parts, layout=layout)
        out, weights = attention(nested)
        assert [row.size(0) for row in out.unbind()] == list(lengths)
        assert weights.shape == (2, max(lengths), max(lengths))
        gradients = torch.autograd.grad(sum(row.sum() for row in out.unbind()), parts)
        assert all(g.isfinite().all() for g in gradients)
        wanted = attention(parts[1])[0]
        torch.testing.assert_close(out.unbind()[1], wanted)


def test_a_nested_tensor_of_no_sequence():
    for attention in (layer(kernel="rbf"), layer(kdim=4, vdim=9), layer(projections="shared_qk")):
        out, weights = attention(*(torch.nested.nested_tensor([], dtype=torch.float64) for _ in range(3)))
        assert out.is_nested
        assert out.size(0) == 0
        assert weights.shape == (0, 0, 0)


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged], ids=str)
def test_one_side_alone_may_be_nested(layout):
    attention = layer(kernel="laplace")
    query, key, _ = tokens()
    lengths = (3, 0)
    memory = torch.nested.as_nested_tensor([x[:n] for x, n in zip(key, lengths, strict=True)], layout=layout)
    hidden = torch.arange(7) >= torch.tensor(lengths).unsqueeze(1)
    wanted, weights = attention(query, key, None, hidden)
    out, found = attention(query, memory)
    torch.testing.assert_close(out, wanted)
    torch.testing.assert_close(found, weights[..., :3])
    turned, _ = attention(memory, query)
    torch.testing.assert_close(turned.unbind()[0], attention(key[:1, :3], query[:1])[0][0])


def hugging_face_masks():
    generator = torch.Generator().manual_seed(5)
    for shape in itertools.product((1, 2), (1, HEADS), (1, 6), (7,)):
        hidden = torch.rand(shape, generator=generator) < 0.3
        hidden[..., 0] = False
        yield hidden
        numbers = torch.randn(shape, generator=generator, dtype=torch.float64)
        yield numbers.masked_fill(hidden, torch.finfo(torch.float64).min)  # as Hugging Face hides


@pytest.mark.parametrize("method", ["sdpa", "edges", "dense"])
@pytest.mark.parametrize("of_keys", ["none", "bool", "float"])
def test_masks_of_four_dimensions_are_those_of_three(method, of_keys):
    inputs = tokens()
    attention = layer(kernel="rbf", method=method)
    leaves = [*inputs, *attention.parameters()]
    for mask in hugging_face_masks():
        every = mask.expand(2, HEADS, 6, 7).reshape(2 * HEADS, 6, 7)
        found, wanted = (
            attention(*inputs, padding(of_keys), need_weights=False, attn_mask=m)[0] for m in (mask, every)
        )
        torch.testing.assert_close(found, wanted)
        weighted, _ = attention(*inputs, padding(of_keys), attn_mask=mask)
        torch.testing.assert_close(weighted, wanted)
        gradients = (torch.autograd.grad(out.square().sum(), leaves) for out in (found, wanted))
        torch.testing.assert_close(*gradients)


def test_a_mask_of_heads_hides_from_one_head_alone():
    attention = layer(kernel="rbf")
    query, key, value = tokens()
    hidden = torch.zeros(1, HEADS, 1, 7, dtype=torch.bool)
    hidden[:, 1, :, 2:] = True
    weights = attention(query, key, value, attn_mask=hidden, average_attn_weights=False)[1]
    q, k, _ = attention.project(query, key, value)
    score = attention.kernel(q, k).dense().movedim(-1, 1)
    torch.testing.assert_close(weights[:, 0], score[:, 0].softmax(-1))
    torch.testing.assert_close(weights[:, 1, :, :2], score[:, 1, :, :2].softmax(-1))
    assert weights[:, 1, :, 2:].abs().sum() == 0.0


@pytest.mark.parametrize("kernel", ["elu_plus_one", "elu_plus_one * magnitude", "elu_plus_one + favor_plus"])
@pytest.mark.parametrize("causal", [False, True])
def test_numbers_of_keys_stay_linear(kernel, causal):
    torch.manual_seed(1)
    attention = KernelAttention(EMBED, HEADS, kernel=kernel, method="linear").double().eval()
    x, _, _ = tokens(queries=7)
    for shape in ((2, 7), (2, 1, 1, 7), (1, HEADS, 1, 7), (2, HEADS, 1, 7)):
        numbers = torch.randn(shape, dtype=torch.float64)
        numbers[..., 2] = -torch.inf
        given = {"key_padding_mask" if len(shape) == 2 else "attn_mask": numbers, "is_causal": causal}
        found, wanted = (attention(x, need_weights=n, **given)[0] for n in (False, True))
        torch.testing.assert_close(found, wanted)
    with pytest.raises(NotImplementedError, match="linear' cannot run this: the scores have a bias per pair"):
        attention(x, need_weights=False, attn_mask=torch.zeros(7, 7, dtype=torch.float64))


NOTHING = {
    "padding": lambda: {"key_padding_mask": torch.tensor([[True] * 7, [False] * 7])},
    "padding as numbers": lambda: {
        "key_padding_mask": torch.tensor([[-torch.inf] * 7, [0.0] * 7], dtype=torch.float64)
    },
    "pairs": lambda: {"attn_mask": torch.tensor([True, False]).view(2, 1, 1, 1).expand(2, 1, 6, 7)},
    "pairs of heads": lambda: {"attn_mask": torch.tensor([True, False]).view(2, 1, 1, 1).expand(2, 3, 6, 7)},
    "pairs as numbers": lambda: {
        "attn_mask": torch.tensor([-torch.inf, 0.0], dtype=torch.float64).view(2, 1, 1, 1).expand(2, 1, 6, 7)
    },
}
SEEN = [
    "dot_product",
    "rbf",
    "rbf * magnitude",
    "laplace",
    "polynomial",
    "additive",
    "elu_plus_one",
    "spectral",
]


@pytest.mark.parametrize("mask", NOTHING)
@pytest.mark.parametrize("method", ["sdpa", "linear", "edges", "dense", "weights"])
@pytest.mark.parametrize("kernel", [*SEEN, "rbf + laplace"])
def test_no_key_gives_zero_and_no_gradient_on_every_route(kernel, method, mask):
    named = "auto" if method == "weights" else method
    attention, given = layer(kernel=kernel, method=named).eval(), NOTHING[mask]()
    inputs = tokens()
    try:
        attention(*inputs, need_weights=method == "weights", **given)
    except NotImplementedError as error:
        assert f"method={method!r} cannot run this" in str(error)  # noqa: PT017
        return
    out, _ = attention(*inputs, need_weights=method == "weights", **given)
    torch.testing.assert_close(out[0], attention.out_proj.bias.expand(6, EMBED), rtol=0, atol=0)
    leaves = [*inputs, *(p for p in attention.parameters() if p is not attention.out_proj.bias)]
    gradients = torch.autograd.grad(out[0].sum(), leaves, retain_graph=True, allow_unused=True)
    assert all(g is None or not g.any() for g in gradients)  # not-a-number counts as any
    gradients = torch.autograd.grad(out.square().sum(), leaves, allow_unused=True)
    assert all(g is None or g.isfinite().all() for g in gradients)
    alone = attention(*(x[1:] for x in inputs), need_weights=method == "weights")[0]
    torch.testing.assert_close(out[1:], alone)


@pytest.mark.parametrize("shape", [(2, 0, 7), (2, 6, 0), (0, 6, 7), (0, 0, 0), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("method", ["sdpa", "linear", "edges", "dense", "weights"])
@pytest.mark.parametrize("kernel", ["dot_product", "laplace", "elu_plus_one", "rbf + laplace"])
def test_routes_of_none_or_one(kernel, method, shape):
    attention = layer(kernel=kernel, method="auto" if method == "weights" else method).eval()
    inputs = tokens(*shape)
    try:
        out, _ = attention(*inputs, need_weights=method == "weights")
    except NotImplementedError as error:
        assert f"method={method!r} cannot run this" in str(error)  # noqa: PT017
        return
    assert out.shape == (*shape[:2], EMBED)
    gradients = torch.autograd.grad(out.sum(), [*inputs, *attention.parameters()], allow_unused=True)
    assert out.isfinite().all()
    assert all(g is None or g.isfinite().all() for g in gradients)
    if shape[2] == 0:
        torch.testing.assert_close(out, attention.out_proj.bias.expand_as(out))


def test_hooks_of_all_modules_fire_and_count():
    maps = [torch.nn.Linear(EMBED, EMBED) for _ in range(2)]
    attention = layer(kernel="rbf * laplace", query_map=maps[0], key_map=maps[1], position="symmetric")
    x, _, _ = tokens()
    for need_weights in (True, False):
        wanted = attention(x, need_weights=need_weights)[0]
        for name in ("out_proj", "kernel", "kernel.kernels.0", "query_map", "key_map", "position.kernel"):
            module = attention.get_submodule(name)
            calls = []
            hook = module.register_forward_hook(lambda *_, calls=calls: calls.append(1))
            torch.testing.assert_close(attention(x, need_weights=need_weights)[0], wanted)
            hook.remove()
            assert calls, name
        doubled = attention.out_proj.register_forward_hook(lambda module, _, out: 2.0 * out)
        torch.testing.assert_close(attention(x, need_weights=need_weights)[0], 2.0 * wanted)
        doubled.remove()


@pytest.mark.parametrize("name", ["in_proj_weight", "q_proj_weight", "v_proj_weight"])
def test_weights_may_be_parametrised(name):
    attention = layer(kernel="rbf", projections="separate" if name == "in_proj_weight" else "shared_qk")
    plain = layer(kernel="rbf", projections=attention.projections)

    class Doubled(torch.nn.Module):
        def forward(self, weight):
            return 2.0 * weight

    torch.nn.utils.parametrize.register_parametrization(attention, name, Doubled())
    with torch.no_grad():
        getattr(plain, name).mul_(2.0)
    x, _, _ = tokens()
    for need_weights in (True, False):
        torch.testing.assert_close(attention(x, need_weights=need_weights)[0], plain(x)[0])


NONE = {
    "rbf": lambda: KernelAttention(EMBED, HEADS, kernel="rbf", position="rope"),
    "alibi": lambda: KernelAttention(EMBED, HEADS, position="alibi"),
    "shaw": lambda: KernelAttention(EMBED, HEADS, kernel="laplace", position="shaw"),
    "txl": lambda: KernelAttention(EMBED, HEADS, position="txl"),
    "fourier": lambda: FourierAttention(EMBED, HEADS),
    "primal": lambda: PrimalAttention(EMBED, HEADS, rank=2),
    "causal primal": lambda: PrimalAttention(EMBED, HEADS, rank=2, causal=True),
    "implicit": lambda: KernelAttention(
        EMBED, HEADS, kernel="implicit_spectral", kernel_kwargs={"data_dependent": True}
    ),
    "copula": lambda: KernelAttention(
        EMBED, HEADS, kernel="copula_spectral", kernel_kwargs={"data_dependent": True}
    ),
}


@pytest.mark.parametrize("shape", [(0,), (1,), (6,), (0, 6), (2, 0), (0, 0), (2, 6)], ids=str)
@pytest.mark.parametrize("name", NONE)
def test_nothing_and_nobody_are_finite_with_penalties_and_gradients(name, shape):
    torch.manual_seed(0)
    attention = NONE[name]().double()
    for hide, training, need_weights in itertools.product((None, "all", "one"), (True, False), (True, False)):
        if need_weights and "primal" in name:
            continue
        x = torch.randn(*shape, EMBED, dtype=torch.float64, requires_grad=True)
        hidden = None if hide is None else torch.ones(shape, dtype=torch.bool)
        if hide == "one" and hidden is not None and len(shape) == 2:
            hidden[1:] = False
        losses = []
        attention.train(training)
        out, _ = attention(x, None, None, hidden, need_weights, losses=losses)
        assert out.shape == x.shape
        assert out.isfinite().all()
        if hide == "all" and "primal" not in name:
            torch.testing.assert_close(out, attention.out_proj.bias.expand_as(out))
        assert all(loss.isfinite() for loss in losses)
        leaves = [x, *attention.parameters()]
        found = torch.autograd.grad(out.sum() + sum(losses), leaves, allow_unused=True)
        assert all(g is None or g.isfinite().all() for g in found)


# What asks whether query, key and value are one sequence.
SAME = {
    "values with places": {"position": "sum[in_values=true]"},
    "data-dependent": {"kernel": "implicit", "kernel_kwargs": {"data_dependent": True}},
    "shared": {"projections": "shared_qk", "kernel": "rbf"},
}


@pytest.mark.parametrize("kind", SAME)
@pytest.mark.parametrize("hooked", [False, True])
def test_one_sequence_is_known_whatever_passes_it_on(kind, hooked):
    attention = layer(**SAME[kind]).eval()
    x, hidden = tokens()[1], padding("bool")
    expected = attention(x, key_padding_mask=hidden)[0]
    (expected_grad,) = torch.autograd.grad(expected.square().sum(), x)
    for ways in ((x, x, x), (x, x.view_as(x), x.view_as(x))):
        if hooked:  # which makes other objects of what it hands on
            attention.register_full_backward_hook(lambda *_: None)
        out = attention(*ways, hidden)[0]
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(torch.autograd.grad(out.square().sum(), x)[0], expected_grad)
    z = x.detach().requires_grad_()
    out = torch.utils.checkpoint.checkpoint(
        lambda q, k, v: attention(q, k, v, hidden)[0], z, z, z, use_reentrant=True
    )
    out.square().sum().backward()
    torch.testing.assert_close(z.grad, expected_grad)


@pytest.mark.parametrize("kind", SAME)
def test_equal_tensors_have_equal_outputs_or_are_refused(kind):
    attention = layer(**SAME[kind]).eval()
    x = tokens()[1]
    for mask in (None, padding("bool")):
        call = (x, x.clone(), x.clone(), mask)
        if kind == "data-dependent" and mask is not None:
            with pytest.raises(ValueError, match="'query' as 'key' itself"):
                attention(*call)
        else:
            torch.testing.assert_close(attention(*call)[0], attention(x, key_padding_mask=mask)[0])
    if kind != "data-dependent":
        together = torch.vmap(lambda q, k, v: attention(q, k, v)[0])(x, x, x)
        torch.testing.assert_close(together, attention(x)[0])


def test_padding_counts_for_no_kernel_that_is_computed_from_all_tokens_beside_added_keys():
    attention = layer(**SAME["data-dependent"], add_bias_kv=True, add_zero_attn=True).eval()
    x, hidden = tokens()[1], padding("bool")
    out = attention(x, key_padding_mask=hidden)[0]
    torch.testing.assert_close(out[0, :5], attention(x[:1, :5])[0][0])


def test_a_kernel_that_is_exchanged_is_looked_at_anew():
    attention = layer()
    attention.kernel = kernels.resolve("implicit[data_dependent=true]", 5, HEADS).double()
    with pytest.raises(ValueError, match="one pair at a time with is_causal=True"):
        attention(tokens()[1], is_causal=True)


def test_modules_that_are_passed_in_stay_what_they_are():
    net, maps = torch.nn.Linear(5, 5), [torch.nn.Linear(5, 5) for _ in range(2)]
    kernel = kernels.resolve("rbf", 5, HEADS)
    primal = kernels.resolve("favor_plus[num_features=8]", 5, HEADS)
    place = SymmetricProduct(EMBED, HEADS)
    given = [net, *maps, kernel, primal, place]
    before = [{name: x.clone() for name, x in module.state_dict().items()} for module in given]
    torch.manual_seed(7)
    KernelAttention(EMBED, HEADS, kernel=kernel, query_map=maps[0], key_map=maps[1], position=place)
    KernelGATConv(4, 5, heads=HEADS, kernel=kernel, position_dim=4, position_kernel=kernel)
    PrimalAttention(EMBED, HEADS, kernel=primal)
    for module, state in zip(given, before, strict=True):
        for name, x in module.state_dict().items():
            assert torch.equal(x, state[name]), (type(module).__name__, name)
    # Who asks for it draws them anew.
    attention = KernelAttention(EMBED, HEADS, position=place)
    attention.reset_parameters()
    assert not torch.equal(place.lin_place.weight, before[-1]["lin_place.weight"])


def test_a_call_that_fails_adds_nothing_to_what_is_held():
    attention, cache = layer().eval(), KeyValueCache()
    x = tokens()[1].detach()
    attention(x[:, :4], is_causal=True, cache=cache)
    for wrong in ({"attn_mask": torch.zeros(5, 5)}, {"key_padding_mask": torch.zeros(2, 9).bool()}):
        with pytest.raises(ValueError, match="Expected"):
            attention(x[:, 4:], is_causal=True, cache=cache, **wrong)
        assert (len(cache), cache.queries) == (4, 4)
    out = attention(x[:, 4:], is_causal=True, cache=cache)[0]
    torch.testing.assert_close(out, attention(x, is_causal=True)[0][:, 4:])

    encoder, memory = KernelEncoderLayer(EMBED, HEADS).double().eval(), SegmentMemory(4)
    encoder(x, is_causal=True, memory=memory)
    held = memory.states.clone()
    with pytest.raises(ValueError, match="Expected"):
        encoder(x, torch.zeros(5, 5), is_causal=True, memory=memory)
    assert torch.equal(memory.states, held)


def test_what_is_held_is_nobody_elses_memory():
    x = tokens()[1].detach()
    encoder, first, buffer = KernelEncoderLayer(EMBED, HEADS).double().eval(), SegmentMemory(4), x.clone()
    second = SegmentMemory(4)
    encoder(x, is_causal=True, memory=first)
    encoder(buffer, is_causal=True, memory=second)
    buffer.zero_()
    assert torch.equal(first.states, second.states)

    attention, cache, hidden = layer().eval(), KeyValueCache(), padding("bool")
    attention(x, key_padding_mask=hidden, is_causal=True, cache=cache)
    hidden.logical_not_()
    assert torch.equal(cache.padding, padding("bool"))


def test_a_fixed_cache_is_of_its_sequences():
    attention, cache = layer().eval(), KeyValueCache(fixed=True)
    x = tokens()[1]
    attention(x, x, cache=cache)
    with pytest.raises(ValueError, match=r"Expected 2 sequences.*got 1"):
        attention(x[:1], x[:1], cache=cache)


@pytest.mark.parametrize("position", [None, "kerple"])
def test_derivatives_of_torch_func_without_weights(position):
    attention = KernelAttention(12, 3, position=position).eval()
    x = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))

    def total(z):
        return attention(z, need_weights=False)[0].square().sum()

    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(attention(leaf)[0].square().sum(), leaf)
    torch.testing.assert_close(torch.func.grad(total)(x), expected)
    slope = torch.func.jvp(total, (x,), (x,))[1]
    torch.testing.assert_close(slope, (expected * x).sum(), rtol=1e-4, atol=1e-4)


def test_a_method_that_is_none_is_refused_where_it_is_given():
    with pytest.raises(ValueError, match="Expected 'method' as one of 'auto', 'sdpa'"):
        KernelAttention(EMBED, HEADS, method="flash")
