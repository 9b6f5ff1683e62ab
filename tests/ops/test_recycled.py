import threading

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from kgat.kernels import RBF, Additive, DotProduct
from kgat.nn import KernelGATConv
from kgat.ops.cpu import recycled
from kgat.ops.cpu.recycled import Recycled

EDGES = torch.randint(40, (2, 300), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def everything(monkeypatch):
    monkeypatch.setattr(recycled, "LEAST", 1)


def test_memory_is_taken_again_once_nobody_has_it(everything):
    memory, like = Recycled(), torch.empty(0)
    first = memory.empty(like, 3, 4)
    place = first.data_ptr()
    view = first.view(-1)[2:]
    del first
    assert memory.empty(like, 3, 4).data_ptr() != place  # a view is an owner
    del view
    again = [memory.empty(like, 3, 4) for _ in range(2)]
    assert place in [x.data_ptr() for x in again]
    assert again[0].data_ptr() != again[1].data_ptr()
    assert memory.empty(like, 4, 3).shape == (4, 3)
    assert memory.empty(like.double(), 3, 4).dtype == torch.float64


def test_no_more_is_kept_than_there_is_room_for(everything, monkeypatch):
    monkeypatch.setattr(recycled, "ROOM", 20)
    memory, like = Recycled(), torch.empty(0)
    held = [memory.empty(like, size) for size in (5, 5, 6, 7, 8, 9)]
    assert len({x.data_ptr() for x in held}) == len(held)
    assert [len(x) for x in memory._tensors] == [8, 9]  # the last ones


def test_a_storage_is_an_owner(everything):
    memory, like = Recycled(), torch.empty(0)
    tensor = memory.empty(like, 5)
    storage, place = tensor.untyped_storage(), tensor.data_ptr()
    del tensor
    assert memory.empty(like, 5).data_ptr() != place
    storage = torch.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
    assert place not in [memory.empty(like, 5).data_ptr() for _ in range(3)]
    del storage
    found = [memory.empty(like, 5) for _ in range(3)]
    assert place in [x.data_ptr() for x in found]


def test_changes_are_counted_of_each_tensor_alone(everything):
    memory, like = Recycled(), torch.empty(0)
    before = memory.empty(like, 5)
    before.zero_()
    moved = torch.nn.Parameter(before)
    moved.data = moved.data.double()
    del before
    after = memory.empty(like, 5)
    with torch.no_grad():
        moved.add_(1)
    assert after._version == 0


def test_nothing_is_taken_again_where_torch_does_not_tell_who_has_it(everything, monkeypatch):
    monkeypatch.setattr(recycled, "_use_count", None)
    memory, like = Recycled(), torch.empty(0)
    memory.empty(like, 5)
    assert not memory._tensors


def test_what_is_idle_can_be_forgotten(everything):
    memory, like = Recycled(), torch.empty(0)
    held, _ = memory.empty(like, 5), memory.empty(like, 6)
    recycled.clear()
    assert not memory._tensors
    assert held.numel() == 5
    assert memory.empty(like, 5).data_ptr() != held.data_ptr()


def test_small_and_huge_tensors_are_left_to_the_allocator():
    memory, like = Recycled(), torch.empty(0)
    memory.empty(like, recycled.LEAST - 1)
    memory.empty(like, recycled.MOST + 1)
    assert not memory._tensors


def test_memory_that_was_shared_or_shrunk_is_not_taken_again(everything):
    memory, like = Recycled(), torch.empty(0)
    for change in (torch.Tensor.share_memory_, lambda x: x.untyped_storage().resize_(4)):
        tensor = memory.empty(like, 7)
        change(tensor)
        place = tensor.data_ptr()
        del tensor
        again = memory.empty(like, 7)
        assert again.data_ptr() != place
        assert again.untyped_storage().nbytes() == 28
        assert not again.is_shared()
        del again


def test_outputs_are_the_callers_own(everything):
    layer = KernelGATConv(6, 5, heads=3, kernel="rbf")
    x = torch.randn(40, 6)
    with torch.no_grad():
        first = layer(x, EDGES)
        kept = first.clone()
        array = layer(x + 1, EDGES).numpy()
        kept_array = array.copy()
        for _ in range(3):
            layer(x - 1, EDGES)
        assert torch.equal(first, kept)
        assert (array == kept_array).all()


def test_no_tensor_of_inference_mode_comes_back(everything):
    layer = KernelGATConv(6, 7, heads=2, kernel="rbf")
    x = torch.randn(40, 6)
    for _ in range(2):
        with torch.inference_mode():
            layer(x, EDGES)
        layer(x, EDGES).sum().backward()


def gradients(layer, x, edge_index=EDGES, slope=1.0):
    x = x.clone().requires_grad_()
    (layer(x, edge_index).pow(2).sum() * slope).backward()
    return x.grad


@pytest.mark.parametrize("kernel", [Additive, DotProduct, RBF])
def test_graphs_of_autograd_do_not_share_it(kernel, everything, monkeypatch):
    torch.manual_seed(0)
    layer = KernelGATConv(6, 5, heads=3, kernel=kernel)
    torch.nn.init.normal_(layer.bias)
    inputs = [torch.randn(40, 6) for _ in range(4)]
    with monkeypatch.context() as patch:
        patch.setattr(recycled, "LEAST", recycled.MOST)
        expected = [gradients(layer, x) for x in inputs]
    leaves = [x.clone().requires_grad_() for x in inputs]
    outs = [layer(x, EDGES).pow(2).sum() for x in leaves]  # all forwards before any backward
    for out in reversed(outs):
        out.backward(retain_graph=True)
    for x, grad in zip(leaves, expected, strict=True):
        assert torch.equal(x.grad, grad)
        gradients(layer, torch.randn(40, 6))  # writes to what is free
    for out in outs:
        out.backward()
    for x, grad in zip(leaves, expected, strict=True):
        assert torch.equal(x.grad, 2 * grad)


@pytest.mark.parametrize("kernel", [Additive, RBF])
def test_checkpoints_and_hooks_keep_it(kernel, everything):
    torch.manual_seed(0)
    layer = KernelGATConv(6, 6, heads=1, kernel=kernel)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(40, 6)

    def twice(x):
        return layer(layer(x, EDGES).tanh(), EDGES)

    expected, found = x.clone().requires_grad_(), x.clone().requires_grad_()
    twice(expected).pow(2).sum().backward()
    checkpoint(twice, found, use_reentrant=False).pow(2).sum().backward()
    assert torch.equal(found.grad, expected.grad)
    stored = []  # by hooks that keep the tensors themselves

    def pack(tensor):
        stored.append(tensor)
        return len(stored) - 1

    found = x.clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, stored.__getitem__):
        out = twice(found).pow(2).sum()
    for _ in range(3):
        gradients(layer, torch.randn(40, 6))
    out.backward()
    assert torch.equal(found.grad, expected.grad)


def test_threads_do_not_share_it(everything):
    torch.manual_seed(0)
    layer = KernelGATConv(6, 5, heads=3, kernel="rbf")
    torch.nn.init.normal_(layer.bias)
    inputs = [torch.randn(40, 6) for _ in range(4)]

    def grads_of(x):
        leaf = x.clone().requires_grad_()
        (grad,) = torch.autograd.grad(layer(leaf, EDGES).pow(2).sum(), leaf)
        return grad

    expected, wrong = [grads_of(x) for x in inputs], []

    def work(n):
        wrong.extend(n for _ in range(50) if not torch.equal(grads_of(inputs[n]), expected[n]))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
