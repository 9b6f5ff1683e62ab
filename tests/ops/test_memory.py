"""Whatever wrote to a tensor, and however: what is remembered of it is of the tensor as it is now."""

import gc
import multiprocessing
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode
from torch_geometric import EdgeIndex

from kgat import KernelGATConv
from kgat.functional import edge_attention
from kgat.kernels import RBF, Additive
from kgat.nn.linear import Linear, drop_features
from kgat.ops.graph import fingerprint as fingerprints
from kgat.ops.graph import memory
from kgat.ops.graph.adjacency import Adjacency
from kgat.ops.graph.fingerprint import fingerprint, on_device
from kgat.ops.graph.memory import Mark, remember

BEFORE, AFTER = [[0, 1, 2, 3], [1, 2, 3, 0]], [[0, 1, 2, 3], [2, 3, 0, 1]]


def _through_numpy():
    buffer = np.array(BEFORE)
    return torch.from_numpy(buffer), lambda new: buffer.__setitem__(slice(None), new)


def _through_data():
    e = torch.tensor(BEFORE)
    return e, lambda new: e.data.copy_(torch.tensor(new))


def _with_other_data():
    e = torch.tensor(BEFORE)
    return e, lambda new: setattr(e, "data", torch.tensor(new))


def _through_a_kept_view():
    e = torch.tensor(BEFORE)
    view = e.data.view(-1)
    return e, lambda new: view.copy_(torch.tensor(new).view(-1))


def _through_numpy_of_it():
    e = torch.tensor(BEFORE)
    array = e.numpy()
    return e, lambda new: array.__setitem__(slice(None), new)


def _through_the_transposed():
    buffer = np.ascontiguousarray(np.array(BEFORE).T)
    return torch.from_numpy(buffer).t(), lambda new: buffer.__setitem__(slice(None), np.array(new).T)


def _through_a_slice():
    buffer = np.zeros((2, 9), dtype=np.int64)
    buffer[:, ::2][:, :4] = BEFORE
    return torch.from_numpy(buffer)[:, ::2][:, :4], lambda new: buffer.__setitem__(np.s_[:, :8:2], new)


def _in_place():
    e = torch.tensor(BEFORE)
    return e, lambda new: e.copy_(torch.tensor(new))


def _in_inference_mode():
    with torch.inference_mode():
        e = torch.tensor(BEFORE)

    def change(new):
        with torch.inference_mode():
            e.copy_(torch.tensor(new))

    return e, change


def _write(tensor, new):
    tensor.copy_(torch.tensor(new))


def _by_another_process():
    e = torch.tensor(BEFORE).share_memory_()

    def change(new):
        process = multiprocessing.get_context("fork").Process(target=_write, args=(e, new))
        process.start()
        process.join()

    return e, change


WAYS = [
    _through_numpy,
    _through_data,
    _with_other_data,
    _through_a_kept_view,
    _through_numpy_of_it,
    _through_the_transposed,
    _through_a_slice,
    _in_place,
    _in_inference_mode,
    _by_another_process,
]


@pytest.mark.parametrize("self_loops", [True, False])
@pytest.mark.parametrize("backend", ["cpu", "eager"])
@pytest.mark.parametrize("way", WAYS)
def test_a_layer_sees_edges_that_changed(way, backend, self_loops):
    torch.manual_seed(0)
    conv = KernelGATConv(3, 2, heads=2, add_self_loops=self_loops, backend=backend).eval()
    x = torch.randn(4, 3)
    e, change = way()
    with torch.no_grad():
        first = conv(x, e)
        change(AFTER)
        assert e.tolist() == AFTER
        torch.testing.assert_close(conv(x, e), conv(x, torch.tensor(AFTER)))
        change([[0, 1, 2, 3], [1, 2, 3, 4]])
        with pytest.raises(IndexError):
            conv(x, e)
        change(BEFORE)
        torch.testing.assert_close(conv(x, e), first)


def test_other_edges_of_another_number():
    torch.manual_seed(0)
    conv = KernelGATConv(3, 2, heads=2, edge_dim=2)
    x = torch.randn(1000, 3)
    e, few = torch.randint(1000, (2, 5000)), torch.randint(1000, (2, 10))
    for _ in range(2):
        conv(x, e, torch.randn(5000, 2)).sum().backward()
    e.data = few
    attr = torch.randn(10, 2)
    torch.testing.assert_close(conv(x, e, attr), conv(x, few.clone(), attr))


def test_loops_that_a_user_wrote_to_are_made_anew():
    conv = KernelGATConv(3, 2)
    x, e = torch.randn(4, 3), torch.tensor(BEFORE)
    expected = conv(x, e)
    _, (index, _) = conv(x, e, return_attention_weights=True)
    index.data[1, 0] = 3
    torch.testing.assert_close(conv(x, e), expected)
    _, (index, _) = conv(x, e, return_attention_weights=True)
    index[1, 0] = 3
    torch.testing.assert_close(conv(x, e), expected)


@pytest.mark.parametrize("layout", ["csr", "csc", "coo"])
def test_a_sparse_adjacency_that_changed(layout):
    conv = KernelGATConv(3, 2, add_self_loops=False)
    x = torch.randn(3, 3)
    dense = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    other = dense[:, [1, 0, 2]]  # as many entries in each row
    name = "to_sparse" if layout == "coo" else f"to_sparse_{layout}"
    adjacency, expected = getattr(dense, name)(), getattr(other, name)()
    before = conv(x, adjacency)
    for part, new in zip(fingerprints.contents(adjacency), fingerprints.contents(expected), strict=True):
        part.numpy()[...] = new.numpy()
    after = conv(x, adjacency)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, conv(x, expected))


def test_an_edge_index_that_changed():
    conv = KernelGATConv(3, 2)
    x, buffer = torch.randn(4, 3), np.array(BEFORE)
    e = EdgeIndex(torch.from_numpy(buffer), sparse_size=(4, 4))
    conv(x, e)
    buffer[:] = AFTER
    torch.testing.assert_close(conv(x, e), conv(x, torch.tensor(AFTER)))


@pytest.mark.parametrize("part", ["col", "values", "between"])
def test_sparse_features_that_changed(part):
    torch.manual_seed(0)
    lin = Linear(4, 2)
    x = torch.tensor([[0.0, 1.0, 0.0, 2.0], [3.0, 0.0, 0.0, 0.0]]).to_sparse_csr()
    for features in (x, drop_features(x, 0.0)):
        lin(features).sum().backward()
    if part == "col":
        x.col_indices().numpy()[:] = [0, 2, 1]
    else:
        x.values().numpy()[:] = [5.0, 6.0, 7.0]
    grads = []
    for features in (x, drop_features(x, 0.0), x.to_dense()):
        lin.zero_grad()
        out = lin(features)
        out.sum().backward()
        grads.append((out, lin.weight.grad.clone()))
    torch.testing.assert_close(grads[0], grads[2])
    torch.testing.assert_close(grads[1], grads[2])
    if part == "between":
        out = lin(x)
        x.values().numpy()[0] = -1.0
        with pytest.raises(RuntimeError, match="as they were"):
            out.sum().backward()


@pytest.mark.parametrize("second_order", [False, True])
@pytest.mark.parametrize("new", [AFTER, [[0, 1, 2, 3], [1, 2, 3, 4]], [[0], [1]]])
@pytest.mark.parametrize("kernel", [Additive, RBF, lambda *sizes: RBF(*sizes) * RBF(*sizes)])
def test_backward_refuses_other_edges_than_those_of_forward(kernel, new, second_order):
    x = torch.randn(4, 2, 3, requires_grad=True)
    e = torch.tensor(BEFORE)
    module = kernel(3, 2)
    out = edge_attention(module(x, x), x, e, backend="cpu")
    e.data = torch.tensor(new)
    with pytest.raises(RuntimeError, match="'edge_index' in backward as it was in forward"):
        torch.autograd.grad(out.sum(), x, create_graph=second_order)
    e.data = torch.tensor(BEFORE)
    assert torch.autograd.grad(out.sum(), x)[0].isfinite().all()


def test_backward_of_scores_refuses_other_edges():
    # On their own: in a layer, the pass that takes the scores would refuse first.
    from kgat.ops import fused
    from kgat.score.gram import Term
    from kgat.score.rules import ADD, ScoreRule

    x, e = torch.randn(4, 2, 3, requires_grad=True), torch.tensor(BEFORE)
    call = fused.Call(RBF(3, 2)(x, x), x, e, 4)
    score = fused.edge_score(Term(x, x, ScoreRule(ADD)), call)
    e.numpy()[:] = AFTER
    with pytest.raises(RuntimeError, match="in backward as it was in forward"):
        score.sum().backward()


def test_threads_on_one_graph_and_on_many():
    torch.manual_seed(0)
    conv = KernelGATConv(3, 2, heads=2).eval()
    x = torch.randn(300, 3)
    graphs = [torch.randint(300, (2, 900)) for _ in range(4)]
    wrong = []

    def work(graphs, expected):
        with torch.no_grad():
            for _ in range(20):
                for e, out in zip(graphs, expected, strict=True):
                    if not torch.equal(conv(x, e), out):
                        wrong.append(e)

    with torch.no_grad():
        expected = [conv(x, e.clone()) for e in graphs]
    turned = [(graphs[n:] + graphs[:n], expected[n:] + expected[:n]) for n in range(4)]
    threads = [threading.Thread(target=work, args=args) for args in turned]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_is_built_while_others_write_is_of_one_state():
    # The builder sees a copy: its result can be of no state that the fingerprint is not of.
    buffer = np.array(BEFORE)
    e = torch.from_numpy(buffer)

    def build(edges):
        buffer[:] = AFTER
        return edges.tolist()

    assert remember(e, "key", build) == BEFORE
    assert remember(e, "key", lambda edges: edges.tolist()) == AFTER
    buffer[:] = BEFORE
    assert remember(e, "key", lambda edges: edges.tolist()) == BEFORE


def test_tensors_of_inference_mode_are_remembered_too():
    with torch.inference_mode():
        tensor = torch.arange(3)
    calls = []
    for _ in range(2):
        remember(tensor, "key", lambda tensor: calls.append(1))
    assert len(calls) == 1


def test_nothing_is_remembered_of_tensors_that_stand_for_others():
    calls = []

    def f(tensor):
        remember(tensor, "key", lambda tensor: calls.append(1))
        return tensor * 2

    for _ in range(2):
        torch.vmap(f)(torch.arange(6).view(2, 3))
        f(torch.empty(3, device="meta"))
    assert len(calls) == 4
    conv = KernelGATConv(3, 2, backend="eager").eval()
    x, e = torch.randn(4, 3), torch.tensor(BEFORE)
    traced = torch.jit.trace(conv, (x, e), check_trace=False)
    torch.testing.assert_close(traced(x, torch.tensor(AFTER)), conv(x, torch.tensor(AFTER)))


# --- What a device with slow reads does, on the CPU -------------------------------------------------------


@pytest.fixture
def slow_reads(monkeypatch):
    monkeypatch.setattr(memory, "reads_at_once", lambda device: False)


def test_where_reads_wait_the_device_compares(slow_reads):
    buffer = np.array(BEFORE)
    e = torch.from_numpy(buffer)
    calls = []
    for _ in range(2):
        remember(e, "key", lambda edges: calls.append(edges.tolist()))
    assert calls == [BEFORE]
    assert isinstance(Mark.of(e).content, torch.Tensor)
    buffer[:] = AFTER
    with pytest.raises(RuntimeError, match="Expected edges"):
        remember(e, "key", lambda edges: calls.append(edges.tolist()))
    buffer[:] = BEFORE
    e.copy_(torch.tensor(AFTER))  # that torch counts
    remember(e, "key", lambda edges: calls.append(edges.tolist()))
    e.data = torch.tensor(BEFORE)  # that stands at another address
    remember(e, "key", lambda edges: calls.append(edges.tolist()))
    e.data = torch.tensor([[0], [0]])
    remember(e, "key", lambda edges: calls.append(edges.tolist()))
    remember(e, "other key", lambda edges: calls.append(edges.tolist()))
    remember(e, "key", lambda edges: calls.append(edges.tolist()))
    assert calls == [BEFORE, AFTER, BEFORE, [[0], [0]], [[0], [0]]]


def test_where_reads_wait_the_host_does_not(slow_reads, monkeypatch):
    e = torch.tensor(BEFORE)
    result = remember(e, "key", lambda edges: edges + 1)

    def wait(*_):
        raise AssertionError("a read waits for the device")

    for name in ("item", "tolist", "__bool__", "__int__", "numpy", "cpu"):
        monkeypatch.setattr(torch.Tensor, name, wait)
    assert remember(e, "key", lambda edges: edges + 2) is result


# --- The fingerprint --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.int32, torch.float32, torch.float64, torch.int16, torch.bool]
)
def test_numba_and_torch_agree(dtype, monkeypatch):
    torch.manual_seed(0)
    for size in (0, 1, 7, 1000):
        x = torch.randint(-5, 5, (size,)).to(dtype)
        for y in (x, x[::2], x[: size // 2 * 2].view(2, -1).t()):
            expected = fingerprint(y)
            assert on_device(y).tolist() == list(expected)
            with monkeypatch.context() as patch:
                patch.setattr(fingerprints, "compiled", lambda device: None)
                patch.setattr(fingerprints, "PIECE", 3 if size < 100 else 300)
                assert fingerprint(y) == expected
    if size:
        assert expected != (0, 0)


def test_small_changes_and_orders_have_other_fingerprints():
    torch.manual_seed(0)
    x = torch.randint(0, 50, (2, 400))
    seen = {fingerprint(x)}
    for place in range(800):
        y = x.clone()
        y.view(-1)[place] += 1
        seen.add(fingerprint(y))
        z = y.view(-1).clone()
        z[(place + 1) % 800] -= 1  # the sum is as before
        seen.add(fingerprint(z))
    assert len(seen) == 1601
    orders = {tuple(x.view(-1)[torch.randperm(800)].tolist()) for _ in range(200)}
    seen |= {fingerprint(torch.tensor(order)) for order in orders}
    seen |= {fingerprint(torch.zeros(n, dtype=torch.int64)) for n in range(50)}
    assert len(seen) == 1601 + len(orders) + 50
    for half in (0, 1):
        assert len({numbers[half] for numbers in seen}) == len(seen)


def test_bits_of_fingerprints_are_even():
    numbers = torch.tensor([fingerprint(torch.tensor([n, 2 * n])) for n in range(4000)])
    bits = (numbers.unsqueeze(-1) >> torch.arange(64)) & 1
    assert (bits.double().mean(dim=0) - 0.5).abs().max() < 5 * 0.5 / 4000**0.5


def test_forgotten_with_its_tensor():
    e = torch.tensor(BEFORE)
    Adjacency.of(e, 1, 4, 4)
    key = id(e)
    assert key in memory._MEMORY
    del e
    gc.collect()
    assert key not in memory._MEMORY


@pytest.mark.parametrize("self_loops", [False, True])
def test_nothing_is_remembered_of_a_mode_that_makes_fakes(self_loops):
    e, x = torch.tensor(BEFORE), torch.ones(4, 3)
    conv = KernelGATConv(3, 2, add_self_loops=self_loops)
    expected = conv(x, e.clone())
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = mode.from_tensor(x)
        if self_loops:  # how many edges are none is not to be known there
            with pytest.raises(DynamicOutputShapeException):
                conv(fake, e)
        else:
            assert conv(fake, e).shape == (4, 2)
    assert id(e) not in memory._MEMORY
    torch.testing.assert_close(conv(x, e), expected, rtol=0, atol=0)


def test_of_one_tensor_no_more_is_kept_than_is_in_use():
    e = torch.tensor(BEFORE)
    conv = KernelGATConv(3, 2)
    for num_nodes in range(4, 44):
        x = torch.ones(num_nodes, 3)
        expected = conv(x, torch.tensor(BEFORE))
        torch.testing.assert_close(conv(x, e), expected, rtol=0, atol=0)
        assert len(memory._MEMORY[id(e)].results) <= 16
    again = conv(torch.ones(4, 3), e)  # what went is built anew
    torch.testing.assert_close(again, conv(torch.ones(4, 3), torch.tensor(BEFORE)), rtol=0, atol=0)


def test_without_a_compiler():
    code = """
import sys
sys.modules["llvmlite"] = None
import numpy as np, torch
from kgat import KernelGATConv
buffer = np.array([[0, 1, 2, 3], [1, 2, 3, 0]])
e, x = torch.from_numpy(buffer), torch.randn(4, 3)
conv = KernelGATConv(3, 2)
conv(x, e).sum().backward()
buffer[1] = [2, 3, 0, 1]
assert torch.equal(conv(x, e), conv(x, e.clone()))
buffer[1] = 7
try:
    conv(x, e)
except IndexError as error:
    assert "got 7" in str(error), error
else:
    raise SystemExit(1)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize(
    "graph", [torch.zeros(3, dtype=torch.int64), torch.zeros(2), torch.zeros(2, 1, dtype=torch.int64)]
)
def test_a_fingerprint_of_another_form_is_refused(graph):
    edges = torch.tensor([[0, 1], [1, 0]])
    adjacency = Adjacency.of(edges, 1, 2, 2)
    assert Adjacency.again(edges, 1, 2, 2, adjacency.graph) is adjacency
    with pytest.raises(ValueError, match="Expected 'graph' as forward returned it"):
        Adjacency.again(edges, 1, 2, 2, graph)
