"""The compiled loops of the CPU against the formulas of kgat/ops/recipe.py."""

import dataclasses
import gc
import inspect
import logging
import os
import threading
import weakref

import numpy as np
import pytest
import torch
import warm_process
from oracle import adjacency, attention, scores

from kgat import KernelGATConv, kernels
from kgat.functional import edge_attention
from kgat.kernels import RBF, Additive
from kgat.nn.edges import _sparse
from kgat.ops import fused, passes
from kgat.ops.cpu import CPU, pieces
from kgat.ops.cpu import launch as cpu
from kgat.ops.cpu.loops import BLOCK
from kgat.ops.cpu.runtime import Loop
from kgat.ops.graph.adjacency import Adjacency
from kgat.ops.operands import Operands
from kgat.ops.recipe import BackendError, Recipe
from kgat.score import rules
from kgat.score.gram import LazyGram
from kgat.score.rules import Pair, ScoreRule
from kgat.score.scalar import maximum, minimum

H, R, C = 3, 5, 6

GRAPHS = {  # name: targets N, sources M, edges (source, target)
    "empty": (4, 3, []),
    "one_node": (1, 1, [(0, 0)]),
    "hub": (6, 9, [(j, 2) for j in range(9)] * 80 + [(0, 0)]),  # more than a block
    "bipartite": (4, 7, [(6, 0), (5, 2), (0, 2), (6, 2), (3, 0), (6, 0), (6, 0)] * 3),
    # Thousands of nodes without any edge, at a time and here and there, as targets and as sources.
    "gap": (10_007, 10_009, [(0, 0), (2, 0), (10_008, 10_006), (1, 10_006), (10_008, 1)] * 3),
    "rated": (8_000, 50, [(j, j % 10 * 799) for j in range(50)]),
    "rating": (50, 8_000, [(i % 10 * 799, i) for i in range(50)]),
    "sparse": (6_000, 5_000, [(j * 7 % 500 * 10, j * 13 % 600 * 10) for j in range(900)] + [(3, 7)] * 600),
}
RECIPES = [
    Recipe(None, rules.IDENTITY),
    Recipe(None, rules.LEAKY_RELU),
    *(Recipe(rules.MUL, link) for link in (rules.IDENTITY, rules.LOG, rules.LOG_SQUARE, rules.TRUNCATED_EXP)),
    Recipe(rules.MUL, rules.LEAKY_RELU, bias_inside=True),
    Recipe(rules.MUL, rules.IDENTITY, weighted=True),
    Recipe(rules.ADD, rules.IDENTITY),
    Recipe(rules.ABS_DIFFERENCE, rules.IDENTITY),
    Recipe(rules.ABS_DIFFERENCE, rules.RELU, weighted=True),
    *(Recipe(rules.SQUARED_DIFFERENCE, link) for link in (rules.HALF_LOG, rules.RATIONAL_QUADRATIC)),
    *(Recipe(pair, rules.IDENTITY) for pair in (rules.LOG_ABS_SINC, rules.MINIMUM)),
    Recipe(rules.LEAKY_RELU_SUM, rules.IDENTITY, weighted=True),
]
NAMES = ("value", "query", "key", "weight", "query_bias", "key_bias", "edge_bias", "edge_weight")


def operands(recipe, targets, sources, edges, dtype, extras=True, features=R, channels=C):
    torch.manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64).to(dtype)

    constants = {
        "pair_args": torch.full((2, H), 0.2, dtype=dtype),
        "link_args": torch.tensor([[0.2, 0.3, 0.4], [0.0] * 3], dtype=dtype),
    }
    if recipe.link is rules.LEAKY_RELU:  # torch's own takes a number
        constants["link_args"] = constants["pair_args"]
    if recipe.link is rules.TRUNCATED_EXP:
        constants["link_args"] = torch.full((2, H), 6.0, dtype=dtype)
    given = {"value": draw(sources, H, channels)}
    if recipe.pair is None:
        given |= {"query_bias": draw(targets, H), "key_bias": draw(sources, H)}
    else:
        given |= {"query": draw(targets, H, features), "key": draw(sources, H, features)}
        if recipe.link is rules.LOG:
            given |= {name: given[name].abs() for name in ("query", "key")}
        if recipe.weighted:
            given["weight"] = draw(H, features)
        if extras:
            given["key_bias"] = draw(sources, H)
    if extras:
        given |= {"edge_bias": draw(edges, H), "edge_weight": draw(edges, H)}
    return Operands(**given, **constants, scale=1.0 if recipe.weighted else 0.7)


def for_torch(recipe, x):
    """The same operands as leaves, with as many constants as the functions of torch take."""
    names = [name for name in NAMES if getattr(x, name) is not None]
    leaves = {name: getattr(x, name).double().requires_grad_() for name in names}
    pair = 0 if recipe.pair is None else len(inspect.signature(recipe.pair.in_scalars).parameters) - 2
    link = len(inspect.signature(recipe.link.in_scalars).parameters) - 1
    constants = {"pair_args": x.pair_args[:pair].double(), "link_args": x.link_args[:link].double()}
    return leaves, x._replace(**leaves, **constants)


def check_dropout(recipe, targets, sources, edges, channels, around):
    """Compares with the formula in double precision, the loops within 'around'."""
    edge_index, sorted_edges = adjacency(targets, sources, edges)
    x = operands(recipe, targets, sources, len(edges), torch.float64, channels=channels)
    x = x._replace(dropout=0.3, seed=torch.tensor([4]))
    mask = cpu.dropout_mask(len(edges), H, 0.3, x.seed)
    leaves, y = for_torch(recipe, x)
    expected, _ = attention(recipe, edge_index, targets, y, mask)
    slope = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).view_as(expected)
    grads = torch.autograd.grad(expected, list(leaves.values()), slope, allow_unused=True)
    with around:
        out, lse = cpu.attention(recipe, sorted_edges, x)
        found = cpu.attention_backward(recipe, sorted_edges, x, out, lse, slope)
    torch.testing.assert_close(out, expected)
    for name, grad in zip(leaves, grads, strict=True):
        torch.testing.assert_close(found[name], grad)


def check(recipe, graph, dtype, rtol, atol, extras=True, features=R, channels=C):
    targets, sources, edges = GRAPHS[graph]
    edge_index, sorted_edges = adjacency(targets, sources, edges)
    x = operands(recipe, targets, sources, len(edges), dtype, extras, features, channels)
    leaves, y = for_torch(recipe, x)
    expected, expected_lse = attention(recipe, edge_index, targets, y)
    slope = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).view_as(expected)
    grads = torch.autograd.grad(expected, list(leaves.values()), slope, allow_unused=True)

    out, lse = cpu.attention(recipe, sorted_edges, x)
    found = cpu.attention_backward(recipe, sorted_edges, x, out, lse, slope.to(dtype))
    pairs = [(out, expected), (lse.sum(-1), expected_lse)]
    pairs += [(found[name], grad) for name, grad in zip(leaves, grads, strict=True)]
    if recipe.pair is not None:
        t, _ = scores(recipe, edge_index, y._replace(edge_bias=None))
        wanted = [leaves[name] for name in ("query", "key", "weight") if name in leaves]
        slope = torch.linspace(-1, 1, t.numel(), dtype=torch.float64).view_as(t)
        pairs.append((cpu.score(recipe, sorted_edges, x), t))
        by_hand = cpu.score_backward(recipe, sorted_edges, x, slope.to(dtype))
        expected_grads = torch.autograd.grad(t, wanted, slope)
        names = [name for name in leaves if name in by_hand]
        assert len(names) == len(by_hand)
        pairs += [(by_hand[name], grad) for name, grad in zip(names, expected_grads, strict=True)]
    for f, e in pairs:
        e = torch.zeros_like(f) if e is None else e.to(f.dtype)
        torch.testing.assert_close(f, e, rtol=rtol, atol=atol)


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_equals_the_formula(recipe, graph):
    check(recipe, graph, torch.float64, 1e-9, 1e-9)
    check(recipe, graph, torch.float32, 1e-3, 2e-4)


@pytest.mark.parametrize("recipe", [RECIPES[0], RECIPES[1], RECIPES[2], RECIPES[-1]], ids=str)
def test_without_biases_and_with_many_features(recipe):
    check(recipe, "hub", torch.float64, 1e-9, 1e-9, extras=False, features=37)
    check(recipe, "hub", torch.float32, 1e-3, 2e-4, extras=False, features=37)


@pytest.mark.parametrize("recipe", [RECIPES[1], RECIPES[2], RECIPES[-1]], ids=str)
@pytest.mark.parametrize(("features", "channels"), [(8, 16), (16, 5), (3, 8)])
def test_sizes_that_code_is_compiled_for(recipe, features, channels):
    check(recipe, "bipartite", torch.float32, 1e-3, 2e-4, features=features, channels=channels)


@pytest.mark.parametrize("offset", [0.0, 90.0, -90.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_far_apart_keep_their_digits(offset, dtype):
    # A block of rows shares one maximum: rows far below it, or far above all others, must not suffer.
    torch.manual_seed(0)
    edge_index = torch.tensor([[0, 1, 2] * 4, [i for i in range(4) for _ in range(3)]])
    bias = torch.randn(12, 1, dtype=dtype)
    bias[3:6] += offset
    bias[6:9] -= 2 * offset
    value = torch.randn(3, 1, 2, dtype=dtype)
    gram = LazyGram(query_bias=torch.zeros(4, 1, dtype=dtype), key_bias=torch.zeros(3, 1, dtype=dtype))
    out = edge_attention(gram, value, edge_index, edge_bias=bias, backend="cpu")
    weight = bias.double().view(4, 3).softmax(dim=1)
    torch.testing.assert_close(out[:, 0], (weight @ value[:, 0].double()).to(dtype), rtol=1e-5, atol=1e-5)


def big(heads=2, channels=8, nodes=500, edges=4000):
    torch.manual_seed(0)
    edge_index = torch.stack([torch.randint(0, nodes, (edges,)), torch.randint(0, nodes // 3, (edges,))])
    x = torch.randn(nodes, heads, channels)
    return edge_index, x


def gradients(kernel, edge_index, x, **kwargs):
    leaf = x.clone().requires_grad_()
    out = edge_attention(kernel(leaf, leaf), leaf, edge_index, backend="cpu", **kwargs)
    out.square().sum().backward()
    return out.detach(), leaf.grad, *(p.grad.clone() for p in kernel.parameters())


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_result_does_not_depend_on_the_number_of_threads(threads, monkeypatch):
    monkeypatch.setattr(cpu, "WORK", 1 << 10)  # many slots, although the graph is small
    edge_index, x = big()
    from kgat.kernels import AdditiveV2

    found = []
    for count in (1, 2, 3):
        threads(count)
        torch.manual_seed(1)
        kernel = AdditiveV2(8, 2)
        found.append(gradients(kernel, edge_index, x, dropout=0.3))
    for other in found[1:]:
        for f, e in zip(other, found[0], strict=True):
            assert torch.equal(f, e)


def test_two_threads_at_once(threads):
    threads(2)
    edge_index, x = big()
    kernel = RBF(8, 2)
    with torch.no_grad():
        expected = edge_attention(kernel(x, x), x, edge_index, backend="cpu")
        wrong = []

        def work():
            for _ in range(50):
                out = edge_attention(kernel(x, x), x, edge_index, backend="cpu")
                if not torch.equal(out, expected):
                    wrong.append(out)

        workers = [threading.Thread(target=work) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_can_use_it(tmp_path):
    code = (
        "import os, torch\n"
        "from kgat.functional import edge_attention\n"
        "from kgat.kernels import RBF\n"
        "from kgat.ops.cpu import launch as cpu\n"
        "cpu.WORK = 64\n"
        "torch.manual_seed(0); torch.set_num_threads(2)\n"
        "x, edges = torch.randn(200, 2, 8), torch.randint(0, 200, (2, 2000))\n"
        "kernel = RBF(8, 2)\n"
        "run = lambda: edge_attention(kernel(x, x), x, edges, backend='cpu').sum().item()\n"
        "expected = run()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if run() == expected else 3)\n"
        "status = os.waitpid(child, 0)[1]\n"
        "assert os.waitstatus_to_exitcode(status) == 0, status\n"
    )
    warm_process.run(code)


def test_a_second_process_compiles_nothing(tmp_path):
    # Where the variable of Numba says, so that nothing is on disk yet.
    code = (
        "import torch\n"
        "from kgat.functional import edge_attention\n"
        "from kgat.kernels import Magnitude\n"
        "x = torch.zeros(2, 1, 3, requires_grad=True)\n"
        "edge_attention(Magnitude(3)(x, x), x, torch.tensor([[0], [1]])).sum().backward()\n"
        "from kgat.ops.cpu.runtime import Loop\n"
        "print(Loop.compiled)\n"
    )
    counts = [int(warm_process.run(code, NUMBA_CACHE_DIR=str(tmp_path)).stdout) for _ in range(2)]
    assert counts[0] > 0
    assert counts[1] == 0


def test_it_works_where_nothing_can_be_kept_on_disk():
    code = (
        "from kgat.ops.cpu import runtime\n"
        "runtime.code_folder = lambda: None\n"
        "import torch\n"
        "from kgat.functional import edge_attention\n"
        "from kgat.kernels import Magnitude\n"
        "x = torch.ones(2, 1, 3)\n"
        "out = edge_attention(Magnitude(3)(x, x), x, torch.tensor([[0], [1]]), backend='cpu')\n"
        "assert out.tolist() == [[[0.0] * 3], [[1.0] * 3]], out\n"
    )
    warm_process.run(code)


def test_dropout_is_a_mask_of_its_seed():
    recipe, (targets, sources) = Recipe(None, rules.IDENTITY), (3, 400)
    edges = [(j, i) for i in range(targets) for j in range(sources)]
    edge_index, sorted_edges = adjacency(targets, sources, edges)
    x = operands(recipe, targets, sources, len(edges), torch.float64)
    masks = []
    for seed in (5, 6):
        p = 0.25
        y = x._replace(dropout=p, seed=torch.tensor([seed]))
        mask = cpu.dropout_mask(len(edges), H, p, y.seed)
        kept = mask > 0
        torch.testing.assert_close(mask[kept], torch.full_like(mask[kept], 1 / (1 - p)))
        rate = kept.double().mean().item()
        assert abs(rate - 0.75) < 4 * (0.25 * 0.75 / kept.numel()) ** 0.5
        correlation = torch.corrcoef(kept.double().t())  # between heads
        assert (correlation - torch.eye(H)).abs().max() < 4 / len(edges) ** 0.5
        leaves, z = for_torch(recipe, x)
        expected, _ = attention(recipe, edge_index, targets, z, mask)
        slope = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).view_as(expected)
        grads = torch.autograd.grad(expected, list(leaves.values()), slope)
        out, lse = cpu.attention(recipe, sorted_edges, y)
        torch.testing.assert_close(out, expected)
        found = cpu.attention_backward(recipe, sorted_edges, y, out, lse, slope)
        for name, grad in zip(leaves, grads, strict=True):
            torch.testing.assert_close(found[name], grad)
        masks.append(kept)
    assert 0.5 < (masks[0] == masks[1]).double().mean() < 0.75  # 0.625 if they are independent


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_dropout_of_nothing_and_of_everything(p):
    edge_index, x = big()
    out = edge_attention(RBF(8, 2)(x, x), x, edge_index, dropout=p, backend="cpu")
    assert out.isfinite().all()
    assert (p == 1.0) == (out.abs().sum() == 0)


def test_dropout_follows_torchs_seed():
    edge_index, x = big()
    kernel, outs = RBF(8, 2), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outs.append(edge_attention(kernel(x, x), x, edge_index, dropout=0.5, backend="cpu"))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


@pytest.mark.parametrize("shared", [("query", "key"), ("key",), ("query",)])
@pytest.mark.parametrize("long", [BLOCK, 1 << 20])
def test_a_shared_projection_has_one_gradient(shared, long, monkeypatch):
    monkeypatch.setattr(pieces, "LONG", long)
    recipe = Recipe(rules.LEAKY_RELU_SUM, rules.IDENTITY, weighted=True)
    edges = [(j * 7 % 90, j * j % 70) for j in range(900)] + [(j % 90, 3) for j in range(800)]
    edges += [(5, i % 80) for i in range(700)]
    _, sorted_edges = adjacency(90, 90, edges)
    x = operands(recipe, 90, 90, len(edges), torch.float64, features=C)
    x = x._replace(**dict.fromkeys(shared, x.value))
    out, lse = cpu.attention(recipe, sorted_edges, x)
    apart = x.map(torch.clone)
    expected = cpu.attention_backward(recipe, sorted_edges, apart, out, lse, torch.ones_like(out))
    found = cpu.attention_backward(recipe, sorted_edges, x, out, lse, torch.ones_like(out))
    assert not set(shared) & set(found)
    expected["value"] += sum(expected.pop(name) for name in shared)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kernel", ["dot_product", "laplace"])
@pytest.mark.parametrize("watched", [False, True])
def test_all_gradients_of_a_shared_projection_arrive(kernel, watched, monkeypatch):
    monkeypatch.setattr(passes, "is_watched", lambda *_: watched)  # then as ops of torch
    names = []

    def spied(*args):
        found = cpu.attention_backward(*args)
        names.append([name for name in ("value", "query", "key") if name in found])
        return found

    monkeypatch.setattr(CPU, "attention_backward", staticmethod(spied))
    edge_index, x = big(channels=4)
    kernel, grads = kernels.resolve(kernel, 4, 2).double(), []
    for backend in ("cpu", "eager"):
        leaf = x.double().requires_grad_()
        node = leaf * 1.0  # no leaf, as the output of a projection
        for y in (leaf, node):
            out = edge_attention(kernel(y, y), y, edge_index, backend=backend)
            grads.append(torch.autograd.grad(out.square().sum(), leaf)[0])
    for found in grads[:3]:
        torch.testing.assert_close(found, grads[3])
    assert names == 2 * [["value", "query", "key"] if watched else ["value"]]


def test_second_derivative_knows_the_dropped():
    edge_index, x = big(nodes=12, edges=40, channels=3)
    kernel = RBF(3, 2).double()
    leaf = x.double().requires_grad_()

    def function(leaf):
        torch.manual_seed(3)
        return edge_attention(kernel(leaf, leaf), leaf, edge_index, dropout=0.4, backend="cpu")

    assert torch.autograd.gradgradcheck(function, (leaf,))


def test_scores_of_minus_infinity_and_huge_ones():
    edge_index = torch.tensor([[0, 1, 2, 0, 1], [0, 0, 0, 1, 1]])
    bias = torch.tensor([[-torch.inf], [-torch.inf], [-torch.inf], [1e30], [-torch.inf]])
    value = torch.randn(3, 1, 2, requires_grad=True)
    out = edge_attention(LazyGram(key_bias=torch.zeros(3, 1), query_bias=torch.zeros(2, 1)), value,
                         edge_index, edge_bias=bias, backend="cpu")  # fmt: skip
    out.sum().backward()
    assert torch.equal(out[0], torch.zeros(1, 2))
    torch.testing.assert_close(out[1], value[0])
    assert torch.equal(value.grad[:, 0, 0], torch.tensor([1.0, 0.0, 0.0]))


@pytest.mark.parametrize("wrong", [(0, 7), (7, 0), (-1, 0), (0, -1)])
def test_indices_out_of_range_are_named(wrong):
    x = torch.randn(5, 1, 4)
    with pytest.raises(IndexError, match=rf"got {wrong[0] or wrong[1]}"):
        edge_attention(RBF(4)(x, x), x, torch.tensor([[0, wrong[0]], [1, wrong[1]]]), backend="cpu")


def test_a_changed_edge_index_is_sorted_again():
    edge_index, x = big()
    kernel = RBF(8, 2)
    first = edge_attention(kernel(x, x), x, edge_index, backend="cpu")
    edge_index[0] = edge_index[0].flip(0)
    again = edge_attention(kernel(x, x), x, edge_index, backend="cpu")
    assert not torch.equal(first, again)
    torch.testing.assert_close(again, edge_attention(kernel(x, x), x, edge_index, backend="eager"))


@pytest.mark.parametrize("backend", ["cpu", "eager", "reference"])
@pytest.mark.parametrize("shape", [(0, 4), (2, 0)])
@pytest.mark.parametrize("edges", [[[0, 1], [1, 1]], [[], []]])
def test_zero_heads_channels_or_features(edges, shape, backend):
    edge_index = torch.tensor(edges, dtype=torch.long)
    biases = LazyGram(query_bias=torch.zeros(2, shape[0]), key_bias=torch.zeros(2, shape[0]))
    pair = torch.randn(2, *shape, requires_grad=True)
    for gram in (biases, LazyGram.of(pair, pair)):
        value = torch.randn(2, *shape, requires_grad=True)
        out = edge_attention(gram, value, edge_index, backend=backend)
        assert out.shape == (2, *shape)
        out.sum().backward()
        assert value.grad.shape == value.shape


def test_most_nodes_without_edges():
    # A tenth of the nodes in scattered clumps, as in a sampled batch.
    torch.manual_seed(0)
    nodes = 200_000
    edge_index = torch.randint(0, nodes // 50, (2, 20_000)) * 50
    edge_index += torch.randint(0, 5, edge_index.shape)
    x = torch.randn(nodes, 1, 2)
    found = []
    for backend in ("cpu", "eager"):
        leaf = x.clone().requires_grad_()
        out = edge_attention(RBF(2, 1)(leaf, leaf), leaf, edge_index, backend=backend)
        out.square().sum().backward()
        found.append((out.detach(), leaf.grad))
    torch.testing.assert_close(*found)


def test_expanded_strided_and_mixed_inputs():
    edge_index, x = big()
    kernel = RBF(8, 2)
    value = torch.randn(1, 2, 8, requires_grad=True)  # the same for all, and alone to be trained
    strided = x.transpose(0, 1).contiguous().transpose(0, 1)
    grads = []
    for backend in ("cpu", "eager"):
        out = edge_attention(kernel(strided, strided), value.expand(500, 2, 8), edge_index, backend=backend)
        grads.append(torch.autograd.grad(out.square().sum(), value)[0])
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("kernel", [Additive, RBF])
def test_opcheck(kernel, monkeypatch):
    edge_index, x = big(nodes=10, edges=30)
    seen = []
    for name in ("edge_attention", "edge_score"):
        op = getattr(passes, name)
        monkeypatch.setattr(passes, name, lambda *args, op=op: seen.append((op, args)) or op(*args))
    module = kernel(8, 2)
    edge_attention(
        module(x, x),
        x.clone().requires_grad_(),
        edge_index,
        edge_bias=torch.randn(30, 2),
        base=torch.randn(2, 8, requires_grad=True),
        dropout=0.5,
    )
    a, b = torch.randn(10, 2, requires_grad=True), torch.randn(10, 2)
    gram = LazyGram(query_bias=a, key_bias=b) * module(x, x)
    fused._scores(gram, fused.Call(gram, x, edge_index, 10))
    assert len(seen) >= 2
    for op, args in seen:  # as leaves: each check differentiates anew
        leaves = (
            a.detach().requires_grad_(a.requires_grad) if isinstance(a, torch.Tensor) else a for a in args
        )
        args = tuple(leaves)
        torch.library.opcheck(op, args, rtol=1e-4, atol=1e-4)


def test_a_rule_that_does_not_compile_falls_back_and_says_so(caplog, monkeypatch):
    x = torch.randn(6, 2, 4, requires_grad=True)
    edge_index = torch.randint(0, 6, (2, 12))
    gram = LazyGram.of(x, x, ScoreRule(rules.ABS_DIFFERENCE, weight=-1.0))
    expected = edge_attention(gram, x, edge_index)

    def broken(*_):
        raise TypeError("unknown function")

    monkeypatch.setattr(cpu, "_compiled", broken)
    with caplog.at_level(logging.WARNING, "kgat"):
        out = edge_attention(gram, x, edge_index)
        out.sum().backward()
        slow = torch.autograd.grad(expected.sum(), x)[0]  # whose forward was compiled
    assert "fused attention runs on the eager backend: LLVM could not compile identity(abs_" in caplog.text
    assert "the backward of fused attention runs on the eager backend" in caplog.text
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(slow, x.grad)
    with pytest.raises(BackendError, match="unknown function"):
        edge_attention(gram, x, edge_index, backend="cpu")


def test_sorting_by_counting_equals_sorting(monkeypatch):
    torch.manual_seed(0)
    for targets, sources, edges in ((5, 9, 60), (1, 1, 3), (4, 4, 0)):
        edges = torch.stack([torch.randint(0, targets, (edges,)), torch.randint(0, sources, (edges,))])
        counted = Adjacency._build(edges, 0, targets, sources)
        with monkeypatch.context() as patch:
            patch.setattr("kgat.ops.graph.adjacency.compiled", lambda device: None)
            general = Adjacency._build(edges, 0, targets, sources)
        for field in dataclasses.fields(Adjacency):
            f, e = getattr(counted, field.name), getattr(general, field.name)
            assert torch.equal(f, e), field.name
            assert f.dtype == e.dtype


def test_an_infinite_slope_where_the_weight_is_zero():
    # log(0) = -inf: the edge weighs nothing, and pulls at nothing.
    query = torch.tensor([[[0.0]], [[1.0]]], requires_grad=True)
    value = torch.tensor([[[1.0]], [[2.0]]])
    gram = LazyGram.of(query, query, ScoreRule(link=rules.LOG, link_args=(0.0,)))
    edge_index = torch.tensor([[0, 1], [1, 1]])
    out = edge_attention(gram, value, edge_index, backend="cpu")
    torch.testing.assert_close(out[1, 0], torch.tensor([2.0]))
    out.sum().backward()
    assert query.grad.isfinite().all()


def test_loops_that_one_process_compiled_live_together_in_another(tmp_path):
    # What is in two object files may have one name, unless it is of no one else's business.
    code = """
import torch
from kgat import KernelGATConv, kernels
from kgat.functional import edge_attention

torch.manual_seed(0)
x, edges = torch.rand(20, 2, 5, requires_grad=True), torch.randint(0, 20, (2, 60))
for name in ("dot_product", "elu_plus_one", "laplace"):
    kernel = kernels.resolve(name, 5, 2)
    found = [edge_attention(kernel(x, x), x, edges, backend=b) for b in ("cpu", "eager")]
    found = [(out, *torch.autograd.grad(out.square().sum(), x)) for out in found]
    torch.testing.assert_close(*found, msg=lambda m: f"{name}: {m}")
"""
    for _ in ("compiled", "loaded"):
        warm_process.run(code, NUMBA_CACHE_DIR=str(tmp_path))


def _random_edges(random, dtype):
    # Thousands of rows, with runs of empty ones, hubs, duplicates, sorted or not.
    targets, sources = (int(random.choice([1, 700, 3_000, 9_000])) for _ in range(2))
    count = int(random.choice([0, 1, 40, 2_000, 6_000]))
    row, col = random.integers(targets, size=count), random.integers(sources, size=count)
    if random.random() < 0.5:  # most rows and columns are empty
        row, col = row // 97 * 97, col // 89 * 89
    hub = random.random(count) < random.choice([0.0, 0.3])
    row[hub] = random.integers(targets)
    hub = random.random(count) < random.choice([0.0, 0.3])
    col[hub] = random.integers(sources)
    if random.random() < 0.3:
        row = np.sort(row)
    return targets, sources, torch.from_numpy(np.stack([col, row])).to(dtype)


@pytest.mark.parametrize("seed", range(12))
def test_equals_eager_on_random_graphs(seed):
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    recipes = {
        "additive": lambda q, k: LazyGram.of(
            q[..., :1],
            k[..., :1],
            ScoreRule(rules.ADD, rules.LEAKY_RELU, link_args=(0.2,), edge_bias_inside=True),
        ),
        "laplace": lambda q, k: LazyGram.of(q, k, ScoreRule(rules.ABS_DIFFERENCE, weight=-0.5)),
    }
    for name, gram in recipes.items():
        targets, sources, edges = _random_edges(random, torch.int32 if seed % 2 else torch.int64)
        heads = int(random.choice([1, 3]))
        sizes = {"query": (targets, heads, 3), "key": (sources, heads, 3), "value": (sources, heads, 5)}
        sizes["edge_bias"] = (edges.size(1), heads)
        leaves = {key: torch.randn(*size).double().requires_grad_() for key, size in sizes.items()}
        found = []
        for backend in ("cpu", "eager"):
            out = edge_attention(
                gram(leaves["query"], leaves["key"]),
                *(leaves["value"], edges),
                edge_bias=leaves["edge_bias"],
                backend=backend,
            )
            grads = torch.autograd.grad(out.square().sum(), list(leaves.values()), allow_unused=True)
            grads = [
                torch.zeros_like(x) if g is None else g for x, g in zip(leaves.values(), grads, strict=True)
            ]
            found.append([out, *grads])
        for f, e in zip(*found, strict=True):
            torch.testing.assert_close(f, e, rtol=1e-9, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("side", ["query", "key"])
@pytest.mark.parametrize("function", [minimum, maximum])
def test_a_nan_stays_one_beside_any_number(function, side):
    x = {"query": torch.randn(4, 2, 3), "key": torch.randn(4, 2, 3)}
    x[side][1, 0, 2] = torch.nan
    edge_index = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 3]])
    gram = LazyGram.of(x["query"], x["key"], ScoreRule(Pair("extreme", function)))
    value = torch.ones(4, 2, 1)
    found, expected = (edge_attention(gram, value, edge_index, backend=name) for name in ("cpu", "eager"))
    assert expected.isnan().sum() == 1
    torch.testing.assert_close(found, expected, equal_nan=True)


@pytest.fixture
def made(monkeypatch):
    """The scratch that is made, as weak references."""
    known = []

    class Scratch(cpu._Scratch):
        def __init__(self, room):
            super().__init__(room)
            known.append(weakref.ref(self))

    monkeypatch.setattr(cpu, "_Scratch", Scratch)
    monkeypatch.setattr(cpu, "WORK", 1)
    return known


def attend(edges):
    torch.manual_seed(0)
    x = torch.randn(60, 2, 8)
    return edge_attention(RBF(8, 2)(x, x), x, edges, backend="cpu")


def test_scratch_is_kept_with_the_graph_and_freed_with_it(made, monkeypatch):
    recipe, edges = Recipe(rules.MUL, rules.IDENTITY), [(j, j * 7 % 60) for j in range(60)]
    edge_index, sorted_edges = adjacency(60, 60, edges)
    x = operands(recipe, 60, 60, len(edges), torch.float64)
    outs = [cpu.attention(recipe, sorted_edges, x)[0] for _ in range(2)]
    assert len(made) == 1
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    outs.append(cpu.attention(recipe, sorted_edges, x)[0])  # which takes more of it
    assert len(made) == 2
    assert torch.equal(outs[1], outs[0])
    assert torch.equal(outs[2], outs[0])
    del edge_index, sorted_edges
    gc.collect()
    assert [one() for one in made] == [None, None]


def test_two_that_run_at_once_share_no_scratch(made, monkeypatch):
    edges, within, original = torch.randint(0, 60, (2, 500)), [], Loop.run
    expected = attend(edges)

    def nested(self, fields, tasks):  # another call on the same graph, in the middle of one
        if len(within) == 0 and len(fields) > 20:  # none that reads the edges
            within.append(None)
            within[0] = attend(edges)
        original(self, fields, tasks)

    monkeypatch.setattr(Loop, "run", nested)
    assert torch.equal(attend(edges), expected)
    assert torch.equal(within[0], expected)
    assert len(made) == 2


@pytest.mark.parametrize("kernel", ["additive", "spectral", "implicit", "rbf*l1.5", "kan"])
@pytest.mark.parametrize("default", [torch.device("meta"), torch.float64])
def test_what_loops_read_is_no_matter_of_defaults(kernel, default, monkeypatch):
    # Of those of torch: by another type numbers were others, by another device there was none.
    monkeypatch.setattr(pieces, "LONG", BLOCK)
    torch.manual_seed(0)
    edge_index = torch.stack(
        [torch.randint(0, 20, (2000,)), torch.arange(2000) % 20 * (torch.arange(2000) % 3 // 2)]
    )
    conv, x = KernelGATConv(16, 5, heads=2, kernel=kernel, dropout=0.3), torch.randn(20, 16)

    def found():
        torch.manual_seed(1)
        conv.zero_grad()
        out, (_, alpha) = conv(x, edge_index.clone(), return_attention_weights=True)
        out.backward(out.detach())
        return [out, alpha, *(p.grad for p in conv.parameters() if p.grad is not None)]

    expected = found()
    if isinstance(default, torch.device):
        with default:
            others = found()
    else:
        torch.set_default_dtype(default)
        try:
            others = found()
        finally:
            torch.set_default_dtype(torch.float32)
    assert all(map(torch.equal, others, expected))


@pytest.mark.parametrize("layout", [torch.sparse_csr, torch.sparse_csc, torch.sparse_coo])
def test_sparse_matrices_are_where_their_values_are(layout):
    torch.manual_seed(0)
    index, value = torch.tensor([[0, 1, 2], [0, 1, 2]]), torch.randn(3)
    like = torch.eye(3).to_sparse(layout=layout)
    with torch.device("meta"):
        found = _sparse(index, value, like)
    assert found.device == value.device
    assert torch.equal(found.to_dense(), value.diag())
