import math

import pytest
import torch

from kgat.nn import KernelAttention
from kgat.positions import ALiBi

pytestmark = pytest.mark.quick


def released(heads):
    r"""The slopes as the paper's code computes them."""

    def powers(n):
        start = 2.0 ** (-(2.0 ** -(math.log2(n) - 3)))
        return [start * start**i for i in range(n)]

    if math.log2(heads).is_integer():
        return powers(heads)
    closest = 2 ** math.floor(math.log2(heads))
    return powers(closest) + released(2 * closest)[0::2][: heads - closest]


@pytest.mark.parametrize("heads", [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 31, 32, 71])
def test_slopes_are_those_of_the_paper(heads):
    torch.testing.assert_close(ALiBi(heads, heads).slopes, torch.tensor(released(heads)))


def test_slopes_of_eight_heads():
    assert ALiBi(8, 8).slopes.tolist() == [0.5**n for n in range(1, 9)]


@pytest.mark.parametrize("form", ["symmetric", "causal"])
@pytest.mark.parametrize("heads", [3, 4])
def test_attention_is_the_formula(form, heads):
    torch.manual_seed(0)
    attention = KernelAttention(
        5 * heads, heads, kernel="rbf", position=lambda *s: ALiBi(*s, form=form)
    ).double()
    x = torch.randn(2, 6, 5 * heads, dtype=torch.float64, requires_grad=True)
    q, k, v = attention.project(x, x, x)
    score = attention.kernel(q, k).dense().clone()
    slopes = released(heads)
    order = torch.zeros(6, 6, dtype=torch.bool)
    for i in range(6):
        for j in range(6):
            order[i, j] = j > i
            for h in range(heads):
                score[:, i, j, h] = score[:, i, j, h] - slopes[h] * abs(i - j)
    for is_causal in (False, True):
        seen = score
        if is_causal or form == "causal":
            seen = score.masked_fill(order.unsqueeze(-1), -torch.inf)
        wanted = torch.einsum("bnmh,bmhc->bnhc", seen.softmax(dim=2), v)
        wanted = attention.out_proj(wanted.flatten(-2))
        leaves = [x, *attention.parameters()]
        wanted_gradients = torch.autograd.grad(wanted.sum(), leaves, retain_graph=True)
        for method in ("auto", "sdpa", "edges", "dense"):
            attention.method = method
            for need_weights in (True, False):
                out = attention(x, is_causal=is_causal, need_weights=need_weights)[0]
                torch.testing.assert_close(out, wanted)
            torch.testing.assert_close(torch.autograd.grad(out.sum(), leaves), wanted_gradients)


def test_slopes_keep_their_digits_in_half_precision():
    position = ALiBi(6, 6).half()
    bias = position.bias(torch.zeros(3, 6, 1, dtype=torch.float16), range(3), range(3))
    assert bias.dtype == torch.float32
    torch.testing.assert_close(bias[2, 0], -2.0 * torch.tensor(released(6)))
    assert not position.state_dict()
    double = ALiBi(6, 6).bias(torch.zeros(1, 6, 1, dtype=torch.float64), range(1, 2), range(1))
    torch.testing.assert_close(
        double[0, 0], -torch.tensor(released(6), dtype=torch.float64), rtol=1e-14, atol=0
    )


def test_is_a_kernel_of_places():
    bias = ALiBi(3, 3).bias(torch.zeros(9, 3, 1, dtype=torch.float64), range(9), range(9))
    assert torch.linalg.eigvalsh(bias.exp().movedim(-1, 0)).min() > 0
    assert (bias.diagonal() == 0).all()


def test_bad_form_is_a_sentence():
    with pytest.raises(ValueError, match=r"one of 'symmetric', 'causal' \(got 'left'\)"):
        ALiBi(8, 2, form="left")
