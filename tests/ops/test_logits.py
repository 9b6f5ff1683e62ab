"""Both logits of a node in one pass, against the ops of torch that say the same."""

import pytest
import torch
from torch.autograd import forward_ad

from kgat.ops import logits as module
from kgat.ops.cpu import launch
from kgat.ops.logits import logit, logits


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
