import copy
import math
import warnings

import pytest
import torch
from torch.nn.functional import elu

from kgat import kernels
from kgat.functional import ksvd_loss
from kgat.kernels import Cosine, ImplicitSpectral, RandomFourier
from kgat.nn import PrimalAttention

H, D, RANK = 3, 5, 2
WIDTH = H * D


def tokens(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, WIDTH, dtype=torch.float64, generator=generator).to(dtype)


def built(heads=H, width=WIDTH, rank=RANK, seed=0, **kwargs):
    torch.manual_seed(seed)
    return PrimalAttention(width, heads, rank, **kwargs).double().eval()


def padding(lengths, size):  # True where there is no token
    return torch.arange(size) >= torch.tensor(lengths)[:, None]


def linear(lin, x):
    return x @ lin.weight.T + (0.0 if lin.bias is None else lin.bias)


def oracle(layer, x):
    r"""One sequence [N, F] without padding, head by head, of a layer with the cosine: its output and J."""
    size, s = x.size(0), layer.rank
    q, k = linear(layer.lin_query, x), linear(layer.lin_key, x)
    if layer.causal:
        q, k = (torch.stack([z[: t + 1].mean(dim=0) for t in range(size)]) for z in (q, k))
    found, total = [], 0.0
    for h in range(layer.num_heads):
        part = slice(h * layer.head_dim, (h + 1) * layer.head_dim)
        e_x, r_x = layer.weight_e[h], layer.weight_r[h]
        if layer.data_dependent:
            n = layer.num_rows
            places = [math.floor(m * (size - 1) / (n - 1)) if n > 1 else 0 for m in range(n)]
            rows = torch.stack([x[place, part] for place in places])
            e_x, r_x = rows.T @ e_x, rows.T @ r_x
        e = torch.stack([a / a.norm() for a in q[:, part]]) @ e_x
        r = torch.stack([a / a.norm() for a in k[:, part]]) @ r_x
        own = 0 if layer.concat == "shared" else h
        out = torch.cat([e, r], dim=1) @ layer.weight_concat[own]
        found.append(out if layer.bias_concat is None else out + layer.bias_concat[own])
        for score in (e, r):
            for row in score:
                total = total + 0.5 * sum((row[c] * layer.lam[h, c]) ** 2 for c in range(s)) / size
        total = total - torch.trace(layer.weight_e[h].T @ layer.weight_r[h])
    return linear(layer.lin_out, torch.cat(found, dim=1)), total / layer.num_heads


VARIANTS = [
    {},
    {"concat": "per_head"},
    {"bias": False, "max_len": 1},
    {"rank_multi": 2},  # fewer rows than tokens
    {"data_dependent": False},
    {"causal": True},
]


# --- What it computes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kwargs", VARIANTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("lengths", [None, [7, 1, 4]], ids=["whole", "padded"])
def test_equals_the_formula_with_all_gradients(kwargs, dtype, lengths):
    layer = built(ksvd_weight=0.3, **kwargs)
    with torch.no_grad():
        layer.lam.add_(1.0)  # J far from 0
    plain = copy.deepcopy(layer)
    layer = layer.to(dtype)
    x = tokens(3, 7).requires_grad_()
    y = x.detach().to(dtype).requires_grad_()
    mask = None if lengths is None else padding(lengths, 7)
    losses = []
    out, weights = layer(y, key_padding_mask=mask, losses=losses)
    assert weights is None
    assert out.dtype == losses[0].dtype == dtype

    expected = [oracle(plain, item[:size]) for item, size in zip(x, lengths or [7] * 3, strict=True)]
    penalty = 0.3 * sum(j**2 for _, j in expected) / 3
    slope = tokens(3, 7, seed=1)
    total, wanted = losses[0].double(), penalty
    close = {"rtol": 1e-10, "atol": 1e-10} if dtype == torch.float64 else {"rtol": 2e-4, "atol": 2e-5}
    for b, (one, _) in enumerate(expected):
        found = out[b, : one.size(0)].double()
        torch.testing.assert_close(found, one, **close)
        total = total + (found * slope[b, : one.size(0)]).sum()
        wanted = wanted + (one * slope[b, : one.size(0)]).sum()
    torch.testing.assert_close(losses[0].double(), penalty, **close)
    grads = torch.autograd.grad(total, [y, *layer.parameters()])
    reference = torch.autograd.grad(wanted, [x, *plain.parameters()])
    for (name, _), grad, other in zip(
        [("x", None), *plain.named_parameters()], grads, reference, strict=True
    ):
        torch.testing.assert_close(grad.double(), other, **close, msg=lambda m, name=name: f"{name}: {m}")


# PA T1: the singular value decomposition is a stationary point, and J = 0 there.
@pytest.mark.parametrize("data_dependent", [True, False])
def test_singular_vectors_solve_the_primal_problem(data_dependent):
    size = 11
    layer = built(data_dependent=data_dependent, ksvd_weight=1.0, max_len=4)
    x = tokens(1, size)
    gram = layer.gram(x)[0].movedim(-1, 0)  # [H, N, N]
    left, sigma, right = torch.linalg.svd(gram)
    sigma, right = sigma[:, :RANK], right.transpose(1, 2)[..., :RANK]
    left = left[..., :RANK]
    phi = {}
    for name, lin in (("q", layer.lin_query), ("k", layer.lin_key)):
        z = lin(x[0]).view(size, H, D)
        phi[name] = (z / z.norm(dim=-1, keepdim=True)).transpose(0, 1)  # [H, N, D]
    if data_dependent:
        rows = x[0, [0, 3, 6, 10]].view(4, H, D).transpose(0, 1)
    else:
        rows = torch.eye(D, dtype=torch.float64).expand(H, D, D)
    lifted = {name: value @ rows.transpose(1, 2) for name, value in phi.items()}  # [H, N, n]
    torch.testing.assert_close(lifted["q"] @ lifted["k"].transpose(1, 2), gram)
    with torch.no_grad():
        layer.weight_e.copy_(lifted["k"].transpose(1, 2) @ right)
        layer.weight_r.copy_(lifted["q"].transpose(1, 2) @ left)
        layer.lam.copy_((size / sigma).sqrt())
        layer.weight_concat.copy_(torch.eye(2 * RANK, D))
        layer.bias_concat.zero_()
        layer.lin_out.weight.copy_(torch.eye(WIDTH))
        layer.lin_out.bias.zero_()
    losses = []
    out = layer(x, losses=losses)[0].view(size, H, D).transpose(0, 1)
    e, r = out[..., :RANK], out[..., RANK : 2 * RANK]
    torch.testing.assert_close(e, left * sigma.unsqueeze(1), rtol=0, atol=1e-11)
    torch.testing.assert_close(r, right * sigma.unsqueeze(1), rtol=0, atol=1e-11)
    torch.testing.assert_close(e, gram @ right, rtol=0, atol=1e-11)  # primal = dual
    torch.testing.assert_close(r, gram.transpose(1, 2) @ left, rtol=0, atol=1e-11)
    torch.testing.assert_close(e * layer.lam.square().unsqueeze(1) / size, left, rtol=0, atol=1e-11)
    assert losses[0].item() < 1e-20

    scores = [z.transpose(0, 1).unsqueeze(0) for z in (e, r)]
    weights = [w.detach().clone().requires_grad_() for w in (layer.weight_e, layer.weight_r)]
    e, r = ((lifted[name] @ w).transpose(0, 1)[None] for name, w in zip(("q", "k"), weights, strict=True))
    torch.testing.assert_close([e, r], scores)
    j = ksvd_loss(e, r, layer.lam.detach(), *weights)
    assert j.abs().max() < 1e-10
    for grad in torch.autograd.grad(j.sum(), weights):
        assert grad.abs().max() < 1e-10
    # Where weights met the data before the trace, it is not 0.
    met = [rows.transpose(1, 2) @ w for w in weights]
    if data_dependent:
        assert ksvd_loss(e, r, layer.lam.detach(), *met).abs().min() > 1.0


# PA T2
@pytest.mark.parametrize("kwargs", [*VARIANTS, {"kernel": "random_fourier"}], ids=str)
def test_gram_is_of_low_rank_and_has_the_singular_values(kwargs):
    if "kernel" in kwargs:
        kwargs = {**kwargs, "kernel_kwargs": {"num_features": 3}}
    layer, x = built(**kwargs), tokens(2, 9)
    gram = layer.gram(x)
    assert gram.shape == (2, 9, 9, H)
    full = torch.linalg.svdvals(gram.movedim(-1, -3))
    rank = min(9, layer.num_features)
    assert full[..., rank:].abs().max() < 1e-12
    torch.testing.assert_close(layer.singular_values(x), full[..., :rank])
    torch.testing.assert_close(layer.singular_values(x[0]), full[0, ..., :rank])
    torch.testing.assert_close(layer.gram(x[1]), gram[1])
    mask = padding([9, 4], 9)
    padded = layer.singular_values(x, mask)
    torch.testing.assert_close(padded[0], full[0, ..., :rank])
    short = layer.singular_values(x[1, :4])
    torch.testing.assert_close(padded[1, :, : short.size(-1)], short)
    assert not layer.gram(x, mask)[1, 4:].any()


# PA T3
def test_rows_of_the_identity_are_no_rows():
    x = torch.eye(D, dtype=torch.float64).repeat(1, H)[None]  # the channels of every head are I
    dependent, free = built(max_len=D, rank_multi=9), built(data_dependent=False)
    free.load_state_dict(dependent.state_dict())
    losses = []
    torch.testing.assert_close(dependent(x, losses=losses), free(x, losses=losses))
    torch.testing.assert_close(*losses)


# PA T4
@pytest.mark.parametrize("kwargs", [{}, {"data_dependent": False}], ids=str)
def test_initial_weights_are_orthonormal_over_heads(kwargs):
    layer = built(**kwargs)
    for weight in (layer.weight_e, layer.weight_r):
        flat = weight.flatten(1)
        torch.testing.assert_close(flat @ flat.T, torch.eye(H).double(), rtol=0, atol=1e-6)
    assert not torch.allclose(layer.weight_e, layer.weight_r)
    assert layer.lam.min() >= 0.0
    assert layer.lam.max() < 1.0
    assert layer.lam.std() > 0.1


def test_number_of_rows():
    assert built().weight_e.shape == (H, 10 * RANK, RANK)
    assert built(max_len=7).weight_e.shape == (H, 7, RANK)
    assert built(max_len=70, rank_multi=4).weight_e.shape == (H, 8, RANK)
    assert built(data_dependent=False).weight_e.shape == (H, D, RANK)
    assert built(rank=7, data_dependent=False).weight_e.shape == (H, D, 7)  # more than features


def kernels_with_features():
    for name in kernels.names():
        kernel = kernels.resolve(name, D, H)
        try:
            one, other = (kernel(x, x).features()[0] for x in (torch.zeros(1, H, D), torch.ones(1, H, D)))
        except NotImplementedError:
            continue
        if not torch.equal(one, other):  # a constant sees nothing
            yield name
    yield from ("linear * random_fourier", "rfa + elu")


# PA T5, and that no kernel lets a token see another through its features.
@pytest.mark.parametrize("name", list(kernels_with_features()))
@pytest.mark.parametrize("padded", [False, True])
def test_causal_layers_do_not_see_what_comes(name, padded):
    layer = built(causal=True, kernel=name)
    x = tokens(2, 6)
    y = torch.cat([x[:, :4], tokens(2, 2, seed=1)], dim=1)
    mask = None if not padded else torch.tensor([[1, 0, 0, 1, 0, 0], [0, 0, 1, 0, 0, 1]]).bool()
    one, other = layer(x, key_padding_mask=mask)[0], layer(y, key_padding_mask=mask)[0]
    assert torch.equal(one[:, :4], other[:, :4])
    assert not torch.allclose(one[:, 4:], other[:, 4:])
    assert torch.equal(layer(x, key_padding_mask=mask, is_causal=True)[0], one)
    if not padded:  # it does see what came before
        changed = torch.cat([tokens(2, 1, seed=2), x[:, 1:]], dim=1)
        assert not torch.allclose(layer(changed)[0][:, 4:], one[:, 4:])


# PA T6
@pytest.mark.parametrize("name", ["cosine", "random_fourier", "elu"])
def test_permuted_tokens_give_permuted_outputs_while_rows_stay(name):
    layer, x = built(max_len=2, kernel=name), tokens(2, 7)  # rows: the first token and the last
    order = torch.tensor([0, 4, 1, 5, 3, 2, 6])
    losses = []
    out = layer(x, losses=losses)[0]
    torch.testing.assert_close(layer(x[:, order], losses=losses)[0], out[:, order])
    torch.testing.assert_close(*losses)
    assert not torch.allclose(layer(x.flip(1)[:, [1, *range(1, 7)]])[0][:, 1:], out.flip(1)[:, 1:])


# PA T7
@pytest.mark.parametrize("name", list(kernels_with_features()))
@pytest.mark.parametrize("kwargs", [{}, {"data_dependent": False}, {"causal": True}], ids=str)
def test_padding_changes_nothing(name, kwargs):
    layer = built(kernel=name, **kwargs)
    x = tokens(2, 5)
    alone, together = [], []
    out = layer(x, losses=alone)[0]
    places = torch.tensor([[1, 2, 4, 5, 8], [0, 1, 2, 3, 4]])
    long = torch.full((2, 9, WIDTH), torch.nan).double()
    long = long.scatter(1, places.unsqueeze(-1).expand(-1, -1, WIDTH), x).requires_grad_()
    mask = torch.ones(2, 9).scatter(1, places, 0.0).bool()
    found = layer(long, key_padding_mask=mask, losses=together)[0]
    torch.testing.assert_close(found[~mask].view(2, 5, WIDTH), out)
    torch.testing.assert_close(together, alone)
    (found[~mask].sum() + together[-1]).backward()
    for parameter in (long, *layer.parameters()):
        assert parameter.grad is None or parameter.grad.isfinite().all()
    assert not long.grad[mask].any()


@pytest.mark.parametrize("kwargs", VARIANTS, ids=str)
def test_items_without_tokens_count_nowhere(kwargs):
    layer, x = built(**kwargs), tokens(3, 4)
    mask = padding([4, 0, 3], 4)
    losses = []
    out = layer(x, key_padding_mask=mask, losses=losses)[0]
    layer(x[::2], key_padding_mask=mask[::2], losses=losses)
    torch.testing.assert_close(losses[0], losses[1])
    bias = torch.zeros(1, D).double() if layer.bias_concat is None else layer.bias_concat
    biases = layer.lin_out(bias.expand(H, D).flatten())  # no features are left
    torch.testing.assert_close(out[1], biases.expand(4, WIDTH))
    layer(x, key_padding_mask=torch.ones(3, 4).bool(), losses=losses)
    assert losses[2] == 0.0
    losses[2].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("kwargs", VARIANTS, ids=str)
def test_no_token_and_one_token(kwargs):
    layer = built(**kwargs)
    losses = []
    assert layer(tokens(2, 0), losses=losses)[0].shape == (2, 0, WIDTH)
    assert layer(tokens(0, 3), losses=losses)[0].shape == (0, 3, WIDTH)
    assert layer(tokens(0), losses=losses)[0].shape == (0, WIDTH)
    mask = torch.zeros(2, 0).bool()
    assert layer(tokens(2, 0), key_padding_mask=mask, losses=losses)[0].shape == (2, 0, WIDTH)
    assert losses == [0.0] * 4
    assert layer.singular_values(tokens(0)).shape == (H, 0)
    x = tokens(1)
    torch.testing.assert_close(layer(x)[0], oracle(layer, x)[0])


def test_layouts_agree():
    layer, other = built(), built(batch_first=False)
    x, mask = tokens(2, 6), padding([6, 2], 6)
    out = layer(x, key_padding_mask=mask)[0]
    torch.testing.assert_close(layer(x, x, x, mask, False)[0], out)
    torch.testing.assert_close(other(x.transpose(0, 1), key_padding_mask=mask)[0], out.transpose(0, 1))
    torch.testing.assert_close(layer(x[1], key_padding_mask=mask[1])[0], out[1])
    torch.testing.assert_close(other(x[0])[0], out[0])
    torch.testing.assert_close(other.gram(x.transpose(0, 1), mask), layer.gram(x, mask))


# --- Kernels -----------------------------------------------------------------------------------------------


def test_rows_are_lifted_where_features_are_not_channels():
    kernel = RandomFourier(D, H, num_features=4).double()
    layer, x = built(kernel=kernel, max_len=3), tokens(1, 7)
    rows = x[0, [0, 3, 6]].view(3, H, D)

    def value(a, b):  # the kernel itself, of every pair
        u = a[:, None] - b[None]
        return (2 * math.pi * torch.einsum("nmhd,hds->nmhs", u, kernel.omega)).cos().mean(-1)

    q, k = (lin(x[0]).view(7, H, D) for lin in (layer.lin_query, layer.lin_key))
    gram = torch.einsum("imh,jmh->ijh", value(q, rows), value(k, rows))
    torch.testing.assert_close(layer.gram(x)[0], gram)


def test_causal_features_are_those_of_running_means():
    # Of a kernel that sees lengths: to the cosine a sum is as good as a mean.
    layer, x = built(causal=True, kernel="elu"), tokens(2, 6)
    mask = torch.tensor([[1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0]]).bool()
    for b in range(2):
        present = (~mask[b]).nonzero().flatten().tolist()
        q, k = (lin(x[b]).view(6, H, D) for lin in (layer.lin_query, layer.lin_key))
        for t in present:
            for u in present:
                q_t, k_u = (z[[i for i in present if i <= n]].mean(dim=0) for z, n in ((q, t), (k, u)))
                value = ((elu(q_t) + 1) * (elu(k_u) + 1)).sum(dim=-1)
                torch.testing.assert_close(layer.gram(x, mask)[b, t, u] - 1e-6, value)


def test_random_features_are_one_draw_for_tokens_and_rows():
    layer = built(kernel="implicit_spectral", kernel_kwargs={"num_features": 4}, max_len=3).train()
    x, losses = tokens(1, 7), []
    one, other = (layer(x, losses=losses)[0] for _ in range(2))
    assert len(losses) == 4  # of the kernel and of the layer, twice
    assert not torch.allclose(one, other)
    # Values of a positive kernel on rows: were they of two draws, some would be negative.
    [(phi_q, _)], _, [(rows, _)] = layer._lift(x, None, None)
    assert torch.einsum("bnhp,bmhp->bnmh", phi_q, rows).min() > 0.0


def test_a_kernel_is_named_built_or_made():
    layer = built(kernel="rfa", kernel_kwargs={"num_features": 3, "learn_sigma": True})
    assert layer.num_features == 6
    assert layer.kernel.log_sigma in set(layer.parameters())
    assert built(kernel=Cosine).num_features == D
    kernel = ImplicitSpectral(D, H, num_features=2)
    assert built(kernel=kernel).kernel is kernel


# --- Losses, gradients, state ------------------------------------------------------------------------------


# PA T8
def test_losses():
    layer, x, losses = built(ksvd_weight=0.0), tokens(2, 5), []
    layer(x, losses=losses)
    assert [loss.shape for loss in losses] == [()]
    (grad,) = torch.autograd.grad(losses[0], layer.lam)
    assert not grad.any()
    other, more = built(ksvd_weight=0.5), []
    out = other(x, losses=more)[0]
    torch.testing.assert_close(other(x)[0], out)  # without a list nothing is left behind
    (grad,) = torch.autograd.grad(more[0], other.lam)
    assert grad.any()
    assert torch.autograd.grad(out.sum(), other.lam, allow_unused=True) == (None,)  # not in the output


# PA T9
@pytest.mark.parametrize(
    "kwargs", [{"max_len": 3}, {"causal": True}, {"kernel": "rfa", "max_len": 2}], ids=str
)
def test_gradcheck(kwargs):
    if "kernel" in kwargs:
        kwargs = {**kwargs, "kernel_kwargs": {"num_features": 2}}
    torch.manual_seed(0)
    layer = PrimalAttention(4, 2, 2, **kwargs).double()
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    mask = padding([3, 2], 3)

    def function(x, *parameters):
        named = dict(zip(dict(layer.named_parameters()), parameters, strict=True))
        losses = []
        out = torch.func.functional_call(layer, named, (x,), {"key_padding_mask": mask, "losses": losses})[0]
        return out, losses[0]

    assert torch.autograd.gradcheck(function, (x, *layer.parameters()))
    assert torch.autograd.gradgradcheck(function, (x, *layer.parameters()), fast_mode=True)


@pytest.mark.parametrize("kwargs", [*VARIANTS, {"kernel": "spectral"}], ids=str)
def test_state_and_reset(kwargs):
    layer, other, x = built(**kwargs), built(seed=1, **kwargs), tokens(2, 5)
    assert not torch.allclose(layer(x)[0], other(x)[0])
    other.load_state_dict(copy.deepcopy(layer.state_dict()))
    assert torch.equal(layer(x)[0], other(x)[0])
    torch.manual_seed(3)
    layer.reset_parameters()
    assert all(not torch.equal(a, b) for a, b in zip(layer.parameters(), other.parameters(), strict=True))
    torch.manual_seed(3)
    other.reset_parameters()
    assert torch.equal(layer(x)[0], other(x)[0])
    assert "rank=2" in repr(layer)


@pytest.mark.parametrize(
    ("kwargs", "padded"),
    [({}, True), ({"concat": "per_head"}, False), ({"causal": True}, True), ({"kernel": "rfa"}, False)],
    ids=str,
)
def test_compiles_whole(kwargs, padded):
    torch._dynamo.reset()
    layer, x = built(**kwargs), tokens(2, 5).requires_grad_()
    mask = padding([5, 3], 5) if padded else None

    def function(x):
        losses = []
        out = layer(x, key_padding_mask=mask, losses=losses)[0]
        return out, losses[0]

    found = torch.compile(function, fullgraph=True, backend="aot_eager")(x)
    expected = function(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found[0].sum() + found[1], x),
        torch.autograd.grad(expected[0].sum() + expected[1], x),
    )


@pytest.mark.parametrize("kwargs", [{}, {"causal": True}, {"kernel": "random_fourier"}], ids=str)
def test_autocast_keeps_features_and_scores_in_single_precision(kwargs):
    layer, x, losses = built(**kwargs).float(), tokens(2, 40, dtype=torch.float32), []
    # Projections as autocast rounds them, and nothing else.
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x, losses=losses)[0]
        lifted = layer._lift(x, None, None)
        gram, values = layer.gram(x), layer.singular_values(x)
    torch.testing.assert_close(gram.movedim(-1, -3).norm(dim=(-2, -1)), values.norm(dim=-1))
    assert out.dtype == torch.bfloat16
    assert losses[0].dtype == lifted[0][0][0].dtype == lifted[1][0][0].dtype == gram.dtype == torch.float32
    assert lifted[2] is None or lifted[2][0][0].dtype == torch.float32
    plain = copy.deepcopy(layer)
    for lin in (plain.lin_query, plain.lin_key):
        lin.register_forward_hook(lambda lin, args, out: rounded(lin, args[0]))
    exact = []
    expected = plain(x, losses=exact)[0]
    torch.testing.assert_close(lifted, plain._lift(x, None, None), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(losses, exact, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.02)


def rounded(lin, x):
    with torch.autocast("cpu", torch.bfloat16):
        return torch.nn.functional.linear(x, lin.weight, lin.bias).float()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    x = tokens(2, 40)
    exact = built()(x)[0]
    half, losses = built().to(dtype), []
    out = half(x.to(dtype), losses=losses)[0]
    assert out.dtype == dtype
    assert losses[0].dtype == torch.float32
    assert (out.double() - exact).abs().max() < 20 * torch.finfo(dtype).eps


# --- Bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"embed_dim": 16}, r"'embed_dim' divisible by 'num_heads' \(got embed_dim=16, num_heads=3\)"),
        ({"num_heads": 0}, r"'num_heads' of at least 1 \(got 0\)"),
        ({"rank": 0}, r"whole 'rank' of at least 1 \(got 0\); give an int"),
        ({"rank_multi": 0}, r"whole 'rank_multi' of at least 1 \(got 0\); give an int"),
        ({"max_len": 0}, r"whole 'max_len' of at least 1 \(got 0\); give an int"),
        ({"concat": "none"}, r"'concat' as one of 'shared', 'per_head' \(got 'none'\)"),
        ({"ksvd_weight": -1.0}, r"'ksvd_weight' of at least 0 \(got -1.0\)"),
        ({"causal": True, "data_dependent": True}, r"data_dependent=False because causal=True"),
        (
            {"kernel": "implicit_spectral", "kernel_kwargs": {"data_dependent": True}},
            r"features are those of one token alone \(got ImplicitSpectral with .*data_dependent=False",
        ),
    ],
)
def test_bad_options(kwargs, message):
    with pytest.raises(ValueError, match=message):
        PrimalAttention(**{"embed_dim": WIDTH, "num_heads": H, **kwargs})


def test_kernels_without_features():
    with pytest.raises(NotImplementedError, match="exact finite feature map"):
        PrimalAttention(WIDTH, H, kernel="rbf")


def test_features_of_another_number():
    kwargs = {"num_features": 2, "draws": 2}  # twice as many in evaluation
    layer = built(kernel="implicit_spectral", kernel_kwargs=kwargs)
    with pytest.raises(ValueError, match=r"features of the kernel as at construction \(got"):
        layer(tokens(1, 3))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"key": tokens(2, 4)}, r"'key' as 'query' itself or 'None' \(got another tensor\)"),
        ({"value": tokens(2, 4)}, r"'value' as 'query' itself or 'None' \(got another tensor\)"),
        ({"need_weights": True}, r"need_weights=False \(got True\).*'gram\(query\)'"),
        ({"attn_mask": torch.zeros(4, 4).bool()}, r"attn_mask=None \(got a mask\).*causal=True"),
        ({"is_causal": True}, r"is_causal=False \(got True\).*causal=True"),
        ({"cache": {}}, r"cache=None \(got dict\)"),
        ({"key_padding_mask": torch.zeros(2, 4).int()}, r"'key_padding_mask' of shape \[2, 4\].*int32"),
        ({"key_padding_mask": torch.zeros(4, 2).bool()}, r"shape \[2, 4\] \(got bool \[4, 2\]\); True"),
        ({"query": torch.zeros(2, 4, 7)}, r"'query' of shape \[B, N, embed_dim=15\].*\(got \[2, 4, 7\]\)"),
        ({"query": torch.zeros(15)}, r"'query' of shape .*\(got \[15\]\)"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
def test_bad_calls(given, message):
    with pytest.raises(ValueError, match=message):
        built()(**{"query": tokens(2, 4), **given})


def test_scores_of_large_features_are_those_of_double_precision_or_a_sentence():
    torch.manual_seed(0)
    layer = PrimalAttention(16, 2, rank=3, kernel="polynomial*magnitude")
    exact = copy.deepcopy(layer).double()
    for scale in (1e-3, 1.0, 2.0):
        x = scale * torch.randn(1, 20, 16)
        out, wanted = layer(x)[0].double(), exact(x.double())[0]
        assert (out - wanted).abs().max() < 1e-3 * wanted.abs().max()
    with pytest.raises(
        ValueError, match=r"features that float32 holds.*got one of exp\(.*normalise the tokens"
    ):
        layer(100.0 * torch.randn(1, 20, 16))


def test_features_out_of_range_are_reported_without_a_warning() -> None:
    attention = PrimalAttention(16, 2, rank=3, kernel="polynomial*magnitude")
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # some of torch's warnings come once per process otherwise
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ValueError, match="Expected features that float32 holds"):
                attention(torch.full((2, 5, 16), 30.0, requires_grad=True))
    finally:
        torch.set_warn_always(always)
