r"""Fused passes with and without an op of torch in between."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kgat.functional import edge_attention
from kgat.kernels import RBF, Additive
from kgat.ops import passes


class Ops(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(str(function))
        return function(*args, **(kwargs or {}))


def results(kernel, x, edge_index, base):
    out = edge_attention(kernel(x, x), x, edge_index, base=base, backend="cpu")
    return out, *torch.autograd.grad(out.square().sum(), (x, base, *kernel.parameters()))


@pytest.mark.parametrize("kernel", [Additive, RBF])
def test_who_looks_at_ops_sees_one_that_gives_the_same_bits(kernel, monkeypatch):
    torch.manual_seed(0)
    x, base = torch.randn(7, 2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    edge_index, module = torch.randint(7, (2, 20)), kernel(3, 2)
    with Ops() as seen:
        expected = results(module, x, edge_index, base)
    assert {"kgat.edge_attention_2.default", "kgat.edge_attention_2_backward.default"} <= seen.names

    def refuse(*_):
        raise AssertionError

    for name in ("edge_attention", "edge_attention_backward"):
        monkeypatch.setattr(passes, name, refuse)
    for found, wanted in zip(results(module, x, edge_index, base), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    # Of the same scores: those of nodes may be summed in another order where nobody looks.
    gram = module(x, x)
    monkeypatch.undo()
    with Ops(), torch.no_grad():
        expected = edge_attention(gram, x, edge_index, base=base)
    with torch.no_grad():
        assert torch.equal(edge_attention(gram, x, edge_index, base=base), expected)


def test_numbers_that_are_negated_lazily():
    x = torch.randn(7, 2, 3, dtype=torch.complex64).conj().imag
    assert x.is_neg()
    edge_index, module = torch.randint(7, (2, 20)), RBF(3, 2)
    plain = x.resolve_neg()
    expected = edge_attention(module(plain, plain), plain, edge_index, backend="cpu")
    assert torch.equal(edge_attention(module(x, x), x, edge_index, backend="cpu"), expected)
