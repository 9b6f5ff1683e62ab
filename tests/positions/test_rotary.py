import math

import pytest
import torch

from kgat.nn import KernelAttention, KeyValueCache
from kgat.positions import Rotary

pytestmark = pytest.mark.quick

F, H, D = 24, 3, 8


def numbers(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def turned(x, place, channels, layout, base):
    r"""One vector, as a product with complex numbers."""
    out = x.clone()
    for m in range(channels // 2):
        a, b = (m, m + channels // 2) if layout == "half" else (2 * m, 2 * m + 1)
        z = torch.complex(x[a], x[b]) * torch.polar(
            torch.ones((), dtype=torch.float64),
            torch.tensor(place * base ** (-2 * m / channels), dtype=torch.float64),
        )
        out[a], out[b] = z.real, z.imag
    return out


def hugging_face(x, index, channels, base):
    r"""As GPT-NeoX and Llama have it: angles of one half twice, and the halves exchanged."""
    frequency = 1.0 / base ** (torch.arange(0, channels, 2, dtype=torch.float64) / channels)
    angle = torch.outer(index.double(), frequency)
    angle = torch.cat([angle, angle], dim=-1).unsqueeze(1)  # [N, 1, R]
    rotary, rest = x[..., :channels], x[..., channels:]
    half = torch.cat([-rotary[..., channels // 2 :], rotary[..., : channels // 2]], dim=-1)
    return torch.cat([rotary * angle.cos() + half * angle.sin(), rest], dim=-1)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize("channels", [2, 6, 8])
def test_channels_are_turned_in_pairs(layout, channels):
    position = Rotary(F, H, base=100.0, channels=channels, layout=layout)
    index = torch.tensor([0, 3, -2, 70])
    x = numbers(2, 4, H, D)
    out = position.rotate(x, index)
    for b in range(2):
        for n, place in enumerate(index.tolist()):
            for h in range(H):
                torch.testing.assert_close(out[b, n, h], turned(x[b, n, h], place, channels, layout, 100.0))
    if layout == "half":
        torch.testing.assert_close(out, hugging_face(x, index, channels, 100.0))
    torch.testing.assert_close(out.norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(
        position.rotate(x[:, :3], range(5, 8)), position.rotate(x[:, :3], torch.arange(5, 8))
    )
    assert torch.equal(position.rotate(x[:, :1], range(1)), x[:, :1])


def test_defaults_and_odd_heads():
    assert Rotary(F, H).rotary_channels == D
    odd = Rotary(15, 3)
    assert odd.rotary_channels == 4
    x = numbers(2, 3, 5)
    assert torch.equal(odd.rotate(x, range(7, 9))[..., 4], x[..., 4])
    assert not list(odd.parameters())
    assert not odd.state_dict()
    assert repr(Rotary(F, H, base=5e5, channels=4, layout="interleaved")) == (
        "Rotary(24, num_heads=3, base=500000.0, channels=4, layout='interleaved')"
    )


@pytest.mark.parametrize("kernel", ["dot_product", "rbf", "spectral"])
@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_scores_depend_on_offsets_alone(kernel, layout):
    torch.manual_seed(0)
    attention = KernelAttention(F, H, kernel=kernel).double().eval()
    position = Rotary(F, H, layout=layout)
    q, k = numbers(4, H, D), numbers(5, H, D, seed=1)

    def score(shift):
        turned = position.rotate(q, range(shift, shift + 4)), position.rotate(k, range(shift, shift + 5))
        return attention.kernel(*turned).dense()

    if kernel == "spectral":  # of other functions, of both places
        assert (score(0) - score(50)).abs().max() > 1e-3
        return
    torch.testing.assert_close(score(0), score(50))
    assert (score(0) - attention.kernel(q, k).dense()).abs().max() > 1e-2


@pytest.mark.parametrize("kernel", ["dot_product", "rbf", "laplace", "additive", "elu_plus_one"])
@pytest.mark.parametrize("kv_heads", [1, 3])
def test_attention_turns_queries_and_keys_and_no_values(kernel, kv_heads):
    torch.manual_seed(0)
    attention = KernelAttention(F, H, kernel=kernel, position="rope", num_kv_heads=kv_heads).double()
    x, memory = numbers(2, 6, F).requires_grad_(), numbers(2, 9, F, seed=1)
    for key, first in ((x, 0), (memory, 3)):
        q, k, v = attention.project(x, key, key)
        groups = H // kv_heads
        k, v = (t.repeat_interleave(groups, dim=-2) for t in (k, v))
        q = hugging_face(q, torch.arange(first, first + 6), D, 1e4)
        k = hugging_face(k, torch.arange(key.size(1)), D, 1e4)
        later = torch.arange(key.size(1)) > torch.arange(first, first + 6).unsqueeze(1)
        score = attention.kernel(q, k).dense().masked_fill(later.unsqueeze(-1), -torch.inf)
        wanted = torch.einsum("bnmh,bmhc->bnhc", score.softmax(dim=2), v)
        wanted = attention.out_proj(wanted.flatten(-2))
        leaves = [x, *attention.parameters()]
        wanted_gradients = torch.autograd.grad(wanted.square().sum(), leaves, allow_unused=True)
        for need_weights in (True, False):
            out = attention(x, key, is_causal=True, need_weights=need_weights)[0]
            torch.testing.assert_close(out, wanted)
            found = torch.autograd.grad(out.square().sum(), leaves, allow_unused=True)
            torch.testing.assert_close(found, wanted_gradients)


@pytest.mark.parametrize("position", ["rope", "alibi"])
@pytest.mark.parametrize("kv_heads", [1, 3])
def test_cached_steps_equal_the_whole(position, kv_heads):
    torch.manual_seed(0)
    attention = KernelAttention(F, H, kernel="rbf", position=position, num_kv_heads=kv_heads).double()
    x = numbers(2, 9, F)
    hidden = torch.zeros(2, 9, dtype=torch.bool)
    hidden[1, :2] = True  # padded to the left, as for generation
    wanted = attention(x, None, None, hidden, is_causal=True)[0]
    cache, parts = KeyValueCache(), []
    for start, stop in ((0, 4), (4, 5), (5, 6), (6, 9)):
        part = hidden[:, start:stop]
        parts.append(attention(x[:, start:stop], None, None, part, is_causal=True, cache=cache)[0])
    torch.testing.assert_close(torch.cat(parts, dim=1), wanted)
    memory = KeyValueCache(fixed=True)
    steps = [attention(x[:, i : i + 1], x, cache=memory)[0] for i in range(9)]
    torch.testing.assert_close(torch.cat(steps, dim=1), attention(x)[0])


def test_one_projection_is_turned_once():
    torch.manual_seed(0)
    attention = KernelAttention(F, H, kernel="rbf", position="rope", projections="shared_qk").double()
    lifted = []
    attention.kernel.register_forward_pre_hook(lambda _, args: lifted.append(args[0] is args[1]))
    attention(numbers(2, 6, F))
    attention(numbers(2, 4, F), numbers(2, 6, F), is_causal=True)
    assert lifted == [True, False]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_far_places_keep_their_phase(dtype):
    position = Rotary(F, H)
    x = numbers(2, H, D, dtype=dtype)
    found = position.rotate(x, range(1_000_000, 1_000_002))
    assert found.dtype == dtype
    wanted = hugging_face(x.double(), torch.arange(1_000_000, 1_000_002), D, 1e4)
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float32: 1e-6}[dtype]
    torch.testing.assert_close(found.double(), wanted, rtol=tolerance, atol=tolerance)


def test_compiles_whole():
    position = Rotary(F, H, channels=6, layout="interleaved")
    compiled = torch.compile(position.rotate, fullgraph=True, backend="aot_eager")
    x = numbers(2, 4, H, D, dtype=torch.float32)
    torch.testing.assert_close(compiled(x, torch.arange(4)), position.rotate(x, range(4)))


def test_gradients():
    position = Rotary(4, layout="interleaved")
    x = numbers(3, 1, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: position.rotate(x, range(5, 8)), x)
    assert math.isclose(position.rotate(x, range(3)).detach().norm().item(), x.detach().norm().item())


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"channels": 3}, r"even number of 'channels' between 2 and D=8 \(got 3\)"),
        ({"channels": 10}, r"\(got 10\)"),
        ({"channels": 0}, r"\(got 0\)"),
        ({"base": 0.0}, "positive and finite 'base'"),
        ({"base": math.nan}, "positive and finite 'base'"),
        ({"layout": "pairs"}, r"'half', 'interleaved' \(got 'pairs'\)"),
    ],
)
def test_bad_arguments_are_a_sentence(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Rotary(F, H, **kwargs)
