r"""What is asked of torch's inner state, in one module, and what it answers."""

import re
from pathlib import Path

import pytest
import torch
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

import kgat
from kgat import capture
from kgat.ops.dropout import dropout

pytestmark = pytest.mark.quick

QUESTIONS = ("is_captured", "is_transformed", "is_exporting", "differentiates_forward", "has_modes")


def answers(*names):
    return [name for name in names if getattr(capture, name)()]


class Mode(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


def test_nobody_looks():
    assert answers(*QUESTIONS) == []


@pytest.mark.parametrize("transform", ["vmap", "grad", "jvp"])
def test_inside_of_a_transform(transform):
    said = []

    def asks(x):
        said.append(answers("is_captured", "is_transformed"))
        return x.sum()

    x = torch.ones(2)
    function = getattr(torch.func, transform)
    function(asks, (x,), (x,)) if transform == "jvp" else function(asks)(x)
    assert said == [["is_captured", "is_transformed"]]
    assert answers(*QUESTIONS) == []


def test_inside_of_a_tracer():
    said = []

    def asks(x):
        said.append(answers(*QUESTIONS))
        return x + 1

    torch.jit.trace(asks, torch.ones(2), check_trace=False)
    assert said == [["is_captured"]]


@pytest.mark.parametrize("name", ["is_captured", "is_transformed", "is_exporting"])
def test_inside_of_a_compiler(name):
    question = getattr(capture, name)

    def asks(x):
        return x + 1 if question() else x

    x, yes = torch.zeros(2), name == "is_captured"
    assert bool(torch.compile(asks, backend="eager", fullgraph=True)(x).any()) is yes
    module = type("Asks", (torch.nn.Module,), {"forward": lambda _, x: asks(x)})()
    exported = torch.export.export(module, (x,)).module()
    assert bool(exported(x).any()) is (yes or name == "is_exporting")


def test_forward_mode_and_modes():
    with forward_ad.dual_level():
        assert answers(*QUESTIONS) == ["differentiates_forward"]
    with Mode():
        assert answers(*QUESTIONS) == ["has_modes"]


def test_tensors_of_transforms():
    x, seen = torch.ones(2, 3), []

    def asks(row):
        seen.append((capture.is_wrapped(row), capture.unwrapped(row).shape))
        return row

    torch.func.vmap(torch.func.vmap(asks))(x)
    assert seen == [(True, x.shape)]
    assert not capture.is_wrapped(x)
    assert capture.unwrapped(x) is x
    old = torch._vmap_internals._vmap(
        lambda row: row * capture.is_legacy_batched(row)
    )  # of batched gradients
    assert torch.equal(old(x), x)
    assert not capture.is_legacy_batched(x)


def test_inner_names_of_torch_stand_in_one_module():
    inner = re.compile(
        r"_functorch|_current_level|_is_tracing|jit\.is_tracing|_exporting_flag|_dispatch_stack"
    )
    package = Path(kgat.__file__).parent
    files = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if inner.search(path.read_text(encoding="utf8"))
    }
    assert files == {"capture.py"}


def test_dropout_that_was_traced_takes_other_sizes():
    traced = torch.jit.trace(lambda x: dropout(x, 0.5), torch.ones(10), check_trace=False)
    assert traced(torch.ones(50)).shape == (50,)
