r"""How places enter scores, against the formulas of the papers in plain loops."""

import math

import pytest
import torch

from kgat import kernels, positions
from kgat.functional import dense_attention, edge_attention
from kgat.nn import KernelAttention
from kgat.positions import (
    Kerple,
    Position,
    RelativeTable,
    Sum,
    SymmetricProduct,
    TransformerXL,
    causal,
    full,
    sinusoids,
    visible_edges,
)
from kgat.positions.transformer_xl import shifted
from kgat.score.gram import LazyGram

pytestmark = pytest.mark.versions

H, D = 3, 5
F = H * D
DTYPES = [torch.float64, torch.float32]
BIASES = {
    "table": lambda: RelativeTable(F, H, max_offset=2),
    "table-S": lambda: RelativeTable(F, H, max_offset=2, form="table-S"),
    "txl": lambda: TransformerXL(F, H),
    "kerple_log": lambda: Kerple(F, H),
    "kerple_power": lambda: Kerple(F, H, form="power"),
}
# Queries and keys: an encoder, a decoder with a cache, memory, other sizes, one query, none, no keys.
PLACES = [
    (range(4), range(4)),
    (range(5, 6), range(6)),
    (range(3), range(-4, 3)),
    (range(2), range(7)),
    (range(7), range(2)),
    (range(2, 4), range(1)),
    (range(1), range(1)),
    (range(0), range(3)),
    (range(3), range(0)),
    (range(0), range(0)),
    (range(6, 0, -2), range(0, 9, 3)),  # neither one behind the other nor in order
]


def numbers(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype)


def built(factory, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    position = factory().to(dtype)
    with torch.no_grad():  # large enough to matter
        for name, parameter in position.named_parameters():
            if "rho" not in name:
                parameter.copy_(torch.randn(parameter.shape))
    return position


def tensors(*indices):
    return tuple(torch.tensor(list(index), dtype=torch.long) for index in indices)


def wave(p, channels):  # TD 4: [sin; cos]
    frequencies = [10000 ** (-2 * m / channels) for m in range((channels + 1) // 2)]
    angles = [p * w for w in frequencies]
    return torch.tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles], dtype=torch.float64)


def pair(name, position, q, p):  # the bias of one query [D], head h, at offset p
    if name.startswith("table"):
        scale = D**-0.5 if name == "table-S" else 1.0
        row = max(-2, min(2, p)) + 2
        return lambda h: scale * (q[h] @ position.a_key[row, h].to(q.dtype))
    if name == "txl":
        r = position.lin_wave.weight.double() @ wave(p, F + F % 2)
        return lambda h: ((q[h] + position.v[h]) @ r.view(H, D)[h].to(q.dtype)) / math.sqrt(D)
    if name == "kerple_log":
        return lambda h: -position.rho_1[h].exp() * torch.log(1 + position.rho_2[h].exp() * abs(p))
    exponent = 2 / (1 + (-position.rho_2).exp())
    return lambda h: -position.rho_1[h].exp() * (abs(p) ** exponent[h] if p else 0.0)


def loops(name, position, query, query_index, key_index):
    rows = []
    for i, of_query in zip(query_index, query, strict=True):
        of_pairs = [pair(name, position, of_query, i - j) for j in key_index]
        rows += [of_head(h) for of_head in of_pairs for h in range(H)]
    flat = torch.stack(rows) if rows else query.new_zeros(0)
    return flat.view(len(query_index), len(key_index), H)


# TD T7 (txl), and the same for the others.
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", ["range", "tensor"])
@pytest.mark.parametrize("places", PLACES, ids=str)
@pytest.mark.parametrize("name", BIASES)
def test_bias_is_the_formula(name, places, form, dtype):
    position = built(BIASES[name], dtype)
    query = numbers(len(places[0]), H, D, dtype=dtype).requires_grad_()
    given = places if form == "range" else tensors(*places)
    bias = position.bias(query, *given)
    expected = loops(name, position, query, *places)
    torch.testing.assert_close(
        bias, expected.to(dtype), rtol=1e-4, atol=1e-5 if dtype.itemsize == 4 else 1e-12
    )
    if bias.numel() == 0:
        return
    slope = numbers(*bias.shape, dtype=dtype, seed=1)
    leaves = [query, *position.parameters()]
    found, wanted = (
        torch.autograd.grad(b, leaves, slope, allow_unused=True) for b in (bias, expected.to(dtype))
    )
    for leaf, *grads in zip(leaves, found, wanted, strict=True):
        f, w = (
            torch.zeros_like(leaf) if grad is None else grad for grad in grads
        )  # u is no part of the bias
        torch.testing.assert_close(f, w, rtol=1e-4, atol=1e-4 if dtype.itemsize == 4 else 1e-10)


@pytest.mark.parametrize("name", BIASES)
def test_gradients(name):
    position = built(BIASES[name])
    query = numbers(3, H, D).requires_grad_()
    names = [f"position.{name}" for name, _ in position.named_parameters()]

    def bias(query, *parameters):
        named = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(_Bias(position), named, (query, range(1, 4), range(-1, 3)))

    assert torch.autograd.gradcheck(bias, (query, *position.parameters()))


class _Bias(torch.nn.Module):
    def __init__(self, position):
        super().__init__()
        self.position = position

    def forward(self, query, query_index, key_index):
        return self.position.bias(query, query_index, key_index)


@pytest.mark.parametrize("name", BIASES)
def test_a_decoder_with_a_cache_sees_a_row_of_the_whole(name):
    position = built(BIASES[name])
    query = numbers(2, 6, H, D)
    whole = position.bias(query, range(6), range(6)).expand(2, 6, 6, H)
    for t in range(6):
        for places in ((range(t, t + 1), range(t + 1)), tensors(range(t, t + 1), range(t + 1))):
            row = position.bias(query[:, t : t + 1], *places).expand(2, 1, t + 1, H)
            torch.testing.assert_close(row, whole[:, t : t + 1, : t + 1])


@pytest.mark.parametrize("name", BIASES)
def test_batch_dimensions_and_an_order_of_ones_own(name):
    position = built(BIASES[name])
    query = numbers(2, 2, 4, H, D)
    whole = position.bias(query, range(4), range(-1, 4)).expand(2, 2, 4, 5, H)
    torch.testing.assert_close(whole[1, 0], position.bias(query[1, 0], range(4), range(-1, 4)))
    some, other = torch.tensor([2, 0, 3]), torch.tensor([4, 1, 0, 0], dtype=torch.int32)
    part = position.bias(query[:, :, some], some, other - 1).expand(2, 2, 3, 4, H)
    torch.testing.assert_close(part, whole[:, :, some][..., other.long(), :])
    both = position.bias(query[:, :, some], some.int(), other - 1).expand(2, 2, 3, 4, H)
    assert torch.equal(both, part)


def test_shifting_and_turning_agree_far_from_the_start():
    position = built(lambda: TransformerXL(F, H), torch.float32)
    query = numbers(4, H, D, dtype=torch.float32)
    far = range(100_000, 100_004), range(99_990, 100_004)
    near = position.bias(query, range(10, 14), range(14))
    torch.testing.assert_close(position.bias(query, *far), near, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(position.bias(query, *tensors(*far)), near, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("n", "m"), [(2, 3), (5, 2), (3, 0), (2, 1)])
def test_shift_is_a_gather(n, m):
    x = numbers(2, n, n + m - 1)
    rows = [[x[:, i, n - 1 - i + j] for j in range(m)] for i in range(n)]
    expected = torch.stack([y for row in rows for y in row], -1) if m else x.new_zeros(2, 0)
    torch.testing.assert_close(shifted(x, m), expected.view(2, n, m))


def test_whole_score_of_transformer_xl():
    position = built(lambda: TransformerXL(F, H))
    query, key = numbers(4, H, D), numbers(6, H, D, seed=1)
    kernel = kernels.DotProduct(D, H)
    places = range(2, 6), range(6)
    score = kernel(position.shift(query), key).dense() + position.bias(query, *places)
    r = torch.stack([position.lin_wave.weight @ wave(i - j, F + 1) for i in places[0] for j in places[1]])
    r = r.view(4, 6, H, D)
    expected = torch.einsum("nhd,mhd->nmh", query + position.u, key)
    expected = expected + torch.einsum("nhd,nmhd->nmh", query + position.v, r)
    torch.testing.assert_close(score, expected / math.sqrt(D))


def test_waves_of_an_even_width_are_those_of_the_paper():
    position = built(lambda: TransformerXL(12, H))
    assert position.lin_wave.weight.shape == (12, 12)
    query = numbers(3, H, 4)
    expected = torch.stack([position.lin_wave.weight @ wave(i - j, 12) for i in range(3) for j in range(4)])
    expected = torch.einsum("nhd,nmhd->nmh", query + position.v, expected.view(3, 4, H, 4)) / 2
    torch.testing.assert_close(position.bias(query, range(3), range(4)), expected)
    torch.testing.assert_close(position.bias(query, *tensors(range(3), range(4))), expected)


def test_values_of_the_original_table():
    position = built(BIASES["table-S"])
    given = position.value_bias(torch.tensor([3, 0]), range(5))
    assert given.shape == (2, 5, H, D)
    for n, i in enumerate((3, 0)):
        for j in range(5):
            assert torch.equal(given[n, j], position.a_value[max(-2, min(2, i - j)) + 2])
    assert built(BIASES["table"]).value_bias(range(2), range(2)) is None
    assert torch.autograd.grad(given.sum(), position.a_value)[0].sum() == 2 * 5 * H * D


# --- Sum --------------------------------------------------------------------------------------------------


def test_sum_is_four_terms():
    torch.manual_seed(0)
    position = Sum(F, H)
    w_q, w_k = numbers(F, F, seed=1), numbers(F, F, seed=2)
    f_q, f_k = numbers(4, F, seed=3), numbers(6, F, seed=4)
    t_q, t_k = (torch.stack([wave(p, F)[:F] for p in index]) for index in (range(2, 6), range(-1, 5)))

    def heads(x, w):
        return (x @ w.t()).view(-1, H, D)

    query, key = heads(position.add(f_q, range(2, 6)), w_q), heads(position.add(f_k, range(-1, 5)), w_k)
    terms = [
        torch.einsum("nhd,mhd->nmh", heads(a, w_q), heads(b, w_k)) for a in (f_q, t_q) for b in (f_k, t_k)
    ]
    torch.testing.assert_close(kernels.DotProduct(D, H)(query, key).dense(), sum(terms) / math.sqrt(D))
    assert not position.in_values
    assert Sum(F, H, in_values=True).in_values


@pytest.mark.parametrize("dtype", [*DTYPES, torch.bfloat16])
def test_learned_sum(dtype):
    position = Sum(F, H, max_length=4).to(dtype)
    x = numbers(2, 3, F, dtype=dtype).requires_grad_()
    out = position.add(x, torch.tensor([3, 0, 3]))
    assert out.dtype == dtype
    torch.testing.assert_close(out, x + position.t[[3, 0, 3]])
    out.sum().backward()
    torch.testing.assert_close(position.t.grad.sum(1), torch.tensor([2.0, 0, 0, 4]).to(dtype) * F)
    assert not list(Sum(F, H).parameters())
    assert Sum(F, H).add(x, range(3)).dtype == dtype
    for places in (range(2, 5), range(-1, 2), torch.tensor([0, 4, 0])):
        with pytest.raises(IndexError, match=r"places in \[0, 3\] because 'max_length=4' \(got \["):
            position.add(x, places)


# --- Symmetric product ------------------------------------------------------------------------------------


# TD T6
@pytest.mark.parametrize("dtype", DTYPES)
def test_symmetric_product_is_dot_attention_on_both_together(dtype):
    position = built(lambda: SymmetricProduct(F, H), dtype)
    q, k = (
        numbers(4, H, D, dtype=dtype).requires_grad_(),
        numbers(6, H, D, dtype=dtype, seed=1).requires_grad_(),
    )
    places = torch.tensor([2, 5, 0, 3]), range(-2, 4)
    gram = kernels.DotProduct(D, H)(q, k) * position.gram(*places)
    assert isinstance(gram, LazyGram)
    assert len(gram.terms) == 1  # merged: one pass
    t_q, t_k = (
        torch.stack([position.lin_place.weight @ wave(int(p), F)[:F].to(dtype) for p in index]).view(-1, H, D)
        for index in places
    )
    both = torch.einsum("nhd,mhd->nmh", torch.cat([q, t_q], -1), torch.cat([k, t_k], -1))
    expected = both / math.sqrt(D)  # not of 2 D
    torch.testing.assert_close(gram.dense(), expected)
    slope = numbers(4, 6, H, dtype=dtype, seed=2)
    leaves = [q, k, position.lin_place.weight]
    found, wanted = (torch.autograd.grad((s * slope).sum(), leaves) for s in (gram.dense(), expected))
    torch.testing.assert_close(found, wanted)


def test_symmetric_product_is_symmetric_and_positive_definite():
    position = SymmetricProduct(F, H, kernel="rbf", kernel_kwargs={"lengthscale": 2.0}).double()
    torch.testing.assert_close(position.kernel.log_lengthscale.exp(), torch.full((H, 1), 2.0).double())
    dense = position.gram(range(7), range(7)).dense()
    torch.testing.assert_close(dense, dense.transpose(0, 1))
    torch.testing.assert_close(position.gram(torch.arange(7), range(7)).dense(), dense)
    assert torch.linalg.eigvalsh(dense.exp().movedim(-1, 0)).min() > 0
    torch.testing.assert_close(position.gram(range(5, 6), range(6)).dense(), dense[5:6, :6])
    batched = kernels.RBF(D, H).double()(numbers(2, 7, H, D), numbers(2, 7, H, D)) * position.gram(
        range(7), range(7)
    )
    assert batched.dense().shape == (2, 7, 7, H)


def test_penalties_of_a_position_kernel_leave_by_losses():
    position = SymmetricProduct(F, H, kernel="implicit_spectral")
    losses = []
    position.gram(range(3), range(3), losses)
    assert len(losses) == 1


@pytest.mark.parametrize("mask", [full, causal], ids=["full", "causal"])
def test_edges_equal_the_dense_form(mask):
    position = built(lambda: SymmetricProduct(F, H))
    q, k, v = (numbers(n, H, D, seed=n).requires_grad_() for n in (5, 7, 8))
    v = v[:7]
    places = range(2, 7), range(7)
    gram = kernels.RBF(D, H).double()(q, k) * position.gram(*places)
    dense = dense_attention(gram, v, mask(*places))
    edges = edge_attention(gram, v, visible_edges(mask, *places))
    torch.testing.assert_close(edges, dense)
    leaves = [q, k, position.lin_place.weight]
    found, wanted = (
        torch.autograd.grad(out.square().sum(), leaves, retain_graph=True) for out in (edges, dense)
    )
    torch.testing.assert_close(found, wanted)


# --- Kerple -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["log", "power"])
def test_kerple_is_a_kernel_and_falls_with_the_distance(form):
    torch.manual_seed(0)
    position = Kerple(F, num_heads=H, form=form).double()
    assert (position.r_1 > 0).all()
    assert (position.r_2 > 0).all()
    assert (position.r_2 < 2).all()
    bias = position.bias(numbers(9, H, D), range(9), range(9))
    assert bias.shape == (9, 9, H)
    assert (bias.diagonal() == 0).all()
    assert (bias[0, :-1] > bias[0, 1:]).all()
    assert torch.linalg.eigvalsh(bias.exp().movedim(-1, 0)).min() > -1e-12


def test_kerple_starts_as_released():
    torch.manual_seed(0)
    for form, high in (("log", (2.0, 1.0)), ("power", (1.0, 2.0))):
        position = Kerple(3000, 3000, form=form)
        for r, top in zip((position.r_1, position.r_2), high, strict=True):
            assert r.min() >= 0.0099
            assert r.max() <= top
            assert abs(r.mean().item() - top / 2) < 0.03 * top


# --- Order ------------------------------------------------------------------------------------------------


# TD T2
def test_only_full_attention_without_places_is_blind_to_order():
    x, v = numbers(6, H, D), numbers(6, H, D, seed=1)
    kernel = kernels.DotProduct(D, H)
    order = torch.tensor([3, 0, 5, 1, 4, 2])

    def difference(mask, position=None):
        def attention(x, v):
            gram = kernel(x, x)
            if position is not None:
                gram = gram * position.gram(range(6), range(6))
            return dense_attention(gram, v, mask(range(6), range(6)))

        return (attention(x[order], v[order]) - attention(x, v)[order]).abs().max()

    assert difference(full) < 1e-12
    assert difference(causal) > 1e-2
    assert difference(full, built(lambda: SymmetricProduct(F, H))) > 1e-2


# --- The contract -----------------------------------------------------------------------------------------

ALL = {**BIASES, "sum": lambda: Sum(F, H, max_length=9), "symmetric": lambda: SymmetricProduct(F, H)}


def parts(position, query, x, places):
    gram, found = position.gram(*places), [position.add(x, places[0]), position.shift(query)]
    found += [None if gram is None else gram.dense(), position.bias(query, *places)]
    found.append(position.value_bias(*places))
    return [part for part in found if part is not None]


def test_a_position_does_nothing_by_itself():
    position = Position(F, H)
    x, query = numbers(4, F), numbers(4, H, D)
    assert position.add(x, range(4)) is x
    assert position.shift(query) is query
    places = range(4), range(4)
    assert position.gram(*places) is position.bias(query, *places) is position.value_bias(*places) is None
    assert position.in_values is False


@pytest.mark.parametrize("name", ALL)
def test_states_and_seeds(name):
    x, query = numbers(4, F, dtype=torch.float32), numbers(4, H, D, dtype=torch.float32)
    places = range(4), range(5)
    first, other = built(ALL[name], torch.float32), built(ALL[name], torch.float32, seed=1)
    value = parts(first, query, x, places)
    assert not all(torch.equal(a, b) for a, b in zip(value, parts(other, query, x, places), strict=True))
    other.load_state_dict(first.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(value, parts(other, query, x, places), strict=True))
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        first.reset_parameters()
        states.append({k: v.clone() for k, v in first.state_dict().items()})
    for key, state in states[0].items():
        assert torch.equal(state, states[1][key])
        assert not torch.equal(state, other.state_dict()[key])
        assert state.unique().numel() > 1  # drawn, and neither zeros nor ones
        assert state.abs().max() < 10
    assert f"{F}, num_heads={H}" in repr(first)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", BIASES)
def test_half_precision_scores_are_single(name, dtype):
    position = built(BIASES[name], torch.float32)
    query = numbers(4, H, D).to(dtype)
    expected = position.bias(query.float(), range(4), range(3))
    for places in ((range(4), range(3)), tensors(range(4), range(3))):
        found = position.bias(query, *places)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(position.bias(query, *places), expected)
        half = built(BIASES[name], torch.float32).to(dtype).bias(query, *places)
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, expected, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_waves_keep_their_digits_in_half_precision(dtype):
    position = built(lambda: SymmetricProduct(F, H), torch.float32).to(dtype)
    expected = position.gram(range(300, 303), range(303)).dense()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = position.gram(range(300, 303), range(303)).dense()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    t = sinusoids(range(300, 303), F, torch.empty(0, dtype=dtype))
    torch.testing.assert_close(t[1].double(), wave(301, F)[:F], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("form", ["range", "tensor"])
@pytest.mark.parametrize("name", ALL)
def test_compile_fullgraph(name, form):
    torch._dynamo.reset()
    position = built(ALL[name], torch.float32)

    def run(query, x, key):
        n, m = query.size(0), key.size(0)
        places = (range(m - n, m), range(m))
        if form == "tensor":
            places = torch.arange(m - n, m), torch.arange(m)
        return parts(position, query, x, places)

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager", dynamic=True)
    for n, m in ((4, 6), (3, 5)):
        inputs = numbers(n, H, D, dtype=torch.float32), numbers(n, F, dtype=torch.float32), torch.empty(m)
        torch.testing.assert_close(compiled(*inputs), run(*inputs))


def test_bad_input_is_a_sentence():
    query = numbers(4, H, D)
    for name in ("table", "txl"):
        position = BIASES[name]().double()
        with pytest.raises(ValueError, match=r"shape \[..., N=3, H=3, D=5\] \(got \[4, 3, 5\]\)"):
            position.bias(query, range(3), range(4))
        with pytest.raises(ValueError, match=r"integers of shape \[N\] \(got float32 \[4\]\)"):
            position.bias(query, torch.arange(4.0), range(4))
    with pytest.raises(ValueError, match=r"integers of shape \[N\] \(got int64 \[1, 4\]\)"):
        Kerple(F, H).bias(query, range(4), torch.arange(4)[None])
    for bad, message in (
        (lambda: Sum(F, 4), r"divisible by 'num_heads=4' \(got 15\)"),
        (lambda: Sum(F, 0), r"'num_heads=0'"),
        (lambda: Sum(F, H, max_length=0), r"'max_length' as None or positive \(got 0\)"),
        (lambda: RelativeTable(F, H, max_offset=-1), r"'max_offset' of at least 0 \(got -1\)"),
        (lambda: RelativeTable(F, H, form="shaw"), r"'form' as one of 'table', 'table-S' \(got 'shaw'\)"),
        (lambda: Kerple(F, H, form="exp"), r"'form' as one of 'log', 'power' \(got 'exp'\)"),
        (lambda: SymmetricProduct(F, H, kernel="rfb"), "name of a kernel"),
        (lambda: SymmetricProduct(F, H, kernel=kernels.RBF(D, 1)), "kernel of channels=5, heads=3"),
    ):
        with pytest.raises(ValueError, match=message):
            bad()


def test_names_are_those_of_the_package():
    classes = [value for value in vars(positions).values() if isinstance(value, type)]
    found = {cls.__name__ for cls in classes if issubclass(cls, Position) and cls is not Position}
    assert {*positions.names()} == found | {"none"}


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize(
    ("name", "lin"), [("transformer_xl", "lin_wave"), ("symmetric_product", "lin_place")]
)
@pytest.mark.parametrize("tokens", [1, 6])
def test_modified_projections_of_places(tokens, name, lin):
    torch.manual_seed(0)
    layer = KernelAttention(8, 2, position=name).double()
    x, memory = torch.randn(2, tokens, 8).double(), torch.randn(2, 6, 8).double()

    def out():
        return layer(x, memory, need_weights=False)[0]

    module = layer.position.get_submodule(lin)
    expected = out()
    seen = []
    handle = module.register_forward_hook(lambda module, args, result: seen.append(result.shape))
    torch.testing.assert_close(out(), expected)
    assert seen
    handle.remove()
    doubled = module.register_forward_hook(lambda module, args, result: 2 * result)
    twice = out()
    doubled.remove()
    with torch.no_grad():
        module.weight.mul_(2)
    torch.testing.assert_close(twice, out())
    torch.nn.utils.weight_norm(module)
    for _ in range(2):  # the second step failed where the weight was read past the module
        out().sum().backward()
