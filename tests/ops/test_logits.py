"""Both logits of a node in one pass, against the ops of torch that say the same."""

from dataclasses import replace

import pytest
import torch
from torch.autograd import forward_ad

from kgat.functional import edge_attention
from kgat.kernels import RBF, Additive
from kgat.ops import logits as module
from kgat.ops.cpu import launch
from kgat.ops.logits import logit, logits
from kgat.score.gram import LazyGram, SumGram


def draw(*shape, dtype=torch.float64):
    torch.manual_seed(0)
    return [torch.randn(s, dtype=dtype, requires_grad=True) for s in (shape, shape[-2:], shape[-2:])]


@pytest.mark.parametrize("shape", [(5, 3, 4), (2, 5, 3, 20), (0, 3, 4), (5, 1, 1), (5, 3, 0)])
@pytest.mark.parametrize("slots", [1, 7])
def test_values_and_gradients(shape, slots, monkeypatch):
    monkeypatch.setattr(launch, "_slots_of_logits", lambda x: slots)
    x, a, b = draw(*shape)
    found, expected = logits(x, a, b), (logit(x, a), logit(x, b))
    torch.testing.assert_close(found, expected)
    slope = [torch.randn_like(y) for y in expected]
    for one, other in zip(
        torch.autograd.grad(found, (x, a, b), slope),
        torch.autograd.grad(expected, (x, a, b), slope),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_second_derivatives_and_batches_of_gradients():
    x, a, b = draw(3, 2, 4)
    assert torch.autograd.gradcheck(logits, (x, a, b), check_batched_grad=True)
    assert torch.autograd.gradgradcheck(logits, (x, a, b))


def test_transforms_and_forward_mode():
    x, a, b = (y.detach() for y in draw(6, 2, 4))
    expected = torch.stack(logits(x, a, b))
    rows = torch.func.vmap(lambda row: torch.stack(logits(row, a, b)))(x.unsqueeze(1))
    torch.testing.assert_close(rows.squeeze(2).transpose(0, 1), expected)
    with forward_ad.dual_level():
        s, _ = logits(forward_ad.make_dual(x, x), a, b)
        torch.testing.assert_close(forward_ad.unpack_dual(s).tangent, expected[0])


def test_what_does_not_lie_in_order_and_what_is_no_plain_number():
    x, a, b = (y.detach() for y in draw(4, 2, 6))
    expected = logits(x, a, b)
    strided = x.transpose(0, 1).contiguous().transpose(0, 1)
    torch.testing.assert_close(logits(strided, a.T.contiguous().T, b), expected)
    torch.testing.assert_close(logits(torch._neg_view(-x), a, b), expected)
    half = logits(x.half(), a.half(), b.half())
    torch.testing.assert_close(half[0].double(), expected[0], rtol=1e-2, atol=1e-2)


def test_the_pass_is_compiled(monkeypatch):
    # Where it could not be, all of this would be torch against torch.
    x, a, b = draw(4, 2, 6, dtype=torch.float32)
    monkeypatch.setattr(module, "logit", lambda *_: pytest.fail("by ops of torch"))
    monkeypatch.setattr(module, "_gradients", lambda *_: pytest.fail("by ops of torch"))
    sum(y.sum() for y in logits(x, a, b)).backward()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("extras", [True, False])
def test_attention_makes_logits_and_their_gradients_by_itself(shared, extras, monkeypatch):
    torch.manual_seed(0)
    kernel, edges = Additive(4, 2).double(), torch.randint(6, (2, 20))
    x, v = (torch.randn(6, 2, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    wanted = [x, *kernel.parameters(), *([] if shared else [v])]
    v, options = x if shared else v, {}
    if extras:
        shapes = {"edge_bias": (20, 2), "edge_weight": (20, 2), "base": (2, 4)}
        options = {name: torch.randn(s, dtype=torch.float64).requires_grad_() for name, s in shapes.items()}
        wanted += options.values()

    def gradients(gram):
        out = edge_attention(gram, v, edges, **options)
        first = torch.autograd.grad(out, wanted, out.detach(), retain_graph=True)
        again = torch.autograd.grad(out, wanted, out, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in again), wanted, allow_unused=True)
        return out, *first, *again, *(torch.zeros(()) if g is None else g for g in second)

    gram = kernel(x, x)
    with monkeypatch.context() as patch:
        patch.setattr(module._Logits, "apply", lambda *_: pytest.fail("logits with a node of their own"))
        edge_attention(gram, v, edges, **options).sum().backward()
    assert "terms" not in vars(gram)
    for found, expected in zip(gradients(gram), gradients(LazyGram(gram.terms)), strict=True):
        torch.testing.assert_close(found, expected)


def test_operands_of_whoever_asks_first_have_gradients():
    torch.manual_seed(0)
    kernel, x = Additive(4, 2), torch.randn(5, 2, 4, requires_grad=True)
    row = torch.arange(5)
    gram, expected = kernel(x, x), kernel(x, x.clone()).at(row, row)
    with torch.no_grad():
        torch.testing.assert_close(gram.at(row, row), expected)
    for made in (
        gram,
        gram * RBF(4, 2)(x, x),
        SumGram((gram, gram)),
        replace(gram, query_bias=torch.ones(5, 2)),
    ):
        assert made.size == (5, 5, 2)
        total = made.at(row, row).sum()
        found, *_ = torch.autograd.grad(total, (x, kernel.att_key), retain_graph=True)
        assert found.abs().sum() > 0
