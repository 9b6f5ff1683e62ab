import pytest
import torch
from torch.nn.modules import module as calls

from kgat.ops.plain import call_linear, is_plain

Linear = torch.nn.Linear


def modified(change):
    lin = Linear(3, 2)
    change(lin)
    return lin


@pytest.mark.parametrize(
    "change",
    [
        lambda lin: lin.register_forward_hook(lambda *_: None),
        lambda lin: lin.register_forward_pre_hook(lambda *_: None),
        lambda lin: lin.register_full_backward_hook(lambda *_: None),
        lambda lin: lin.register_full_backward_pre_hook(lambda *_: None),
        lambda lin: setattr(lin, "forward", lambda x: x),
        torch.nn.utils.parametrizations.weight_norm,
        torch.nn.utils.parametrizations.orthogonal,
    ],
)
def test_what_is_not_plain(change):
    assert is_plain(Linear(3, 2), Linear)
    assert not is_plain(modified(change), Linear)


def test_other_classes_are_not_plain():
    class Adapted(Linear):
        pass

    assert not is_plain(Adapted(3, 2), Linear)
    assert is_plain(Adapted(3, 2), Linear, Adapted)


@pytest.mark.parametrize(
    "register",
    [
        calls.register_module_forward_hook,
        calls.register_module_forward_pre_hook,
        calls.register_module_full_backward_hook,
        calls.register_module_full_backward_pre_hook,
    ],
)
def test_hooks_of_all_modules(register):
    lin = Linear(3, 2)
    handle = register(lambda *_: None)
    try:
        assert not is_plain(lin, Linear)
    finally:
        handle.remove()
    assert is_plain(lin, Linear)


def test_projection_keeps_the_precision_of_its_input():
    lin, x = Linear(3, 2).bfloat16(), torch.randn(4, 3)
    expected = x @ lin.weight.float().t() + lin.bias.float()
    torch.testing.assert_close(call_linear(lin, x), expected)
    lin.register_forward_hook(lambda module, args, out: 2 * out)
    out = call_linear(lin, x)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, 2 * expected, rtol=0.05, atol=0.05)
