"""Checks of the Triton backend: on a GPU if there is one, else in Triton's interpreter.

The interpreter has to be switched on before anything imports triton, and importing PyG does. So
:mod:`test_gpu` runs this file in a process of its own; by hand, set ``TRITON_INTERPRET=1``.
"""

import dataclasses
import os

import oracle
import pytest
import torch
import triton_interpreter
from torch.utils._python_dispatch import TorchDispatchMode

from kgat.kernels import kan
from kgat.nn.edges import _WEIGHTS
from kgat.ops import fused
from kgat.ops.arguments import _LOG_WEIGHT
from kgat.ops.gpu import launch as gpu
from kgat.ops.graph import adjacency as graph_adjacency
from kgat.ops.graph import device as graph_device
from kgat.ops.graph import fingerprint as graph_fingerprint
from kgat.ops.graph import memory as graph_memory
from kgat.ops.operands import Operands
from kgat.ops.recipe import BackendError, Recipe
from kgat.score import rules
from kgat.score.scalar import maximum, where

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
if INTERPRETED:
    triton_interpreter.patch_once()
# The interpreter computes what a GPU computes for parts of blocks that nobody reads.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

OPERANDS = ("value", "query", "key", "weight", "query_bias", "key_bias", "edge_bias", "edge_weight")
TOLERANCE = {torch.float64: (1e-9, 1e-9), torch.float32: (2e-4, 2e-5)}

# Seven sources to six targets: a hub of each kind, an isolated node of each, duplicates, and any order.
HUBS = (
    [(s, 2) for s in (5, 1, 0, 2, 3, 4, 5, 5, 1, 0, 3, 2, 5, 4, 1)]
    + [(5, t) for t in (0, 1, 3, 3, 0, 1, 0)]
    + [(3, 0), (0, 1), (2, 1), (4, 1), (4, 4)]
)
PAIRS = (
    rules.MUL,
    rules.ABS_DIFFERENCE,
    rules.SQUARED_DIFFERENCE,
    rules.LOG_ABS_SINC,
    rules.MINIMUM,
    rules.LEAKY_RELU_SUM,
)
LINKS = (
    rules.IDENTITY,
    rules.LEAKY_RELU,
    rules.RELU,
    rules.LOG,
    rules.LOG_SQUARE,
    rules.HALF_LOG,
    rules.RATIONAL_QUADRATIC,
    rules.TRUNCATED_EXP,
)
# The leaky_relu of torch takes one slope for all heads, the truncated exponential one degree.
PER_HEAD = {
    rule: dataclasses.replace(rule, function=rule.scalar)
    for rule in (rules.LEAKY_RELU, rules.LEAKY_RELU_SUM, rules.TRUNCATED_EXP)
}
ALL = ("key_bias", "edge_bias", "edge_weight")
CASES = {
    **{f"{pair.name}": (Recipe(pair, rules.IDENTITY), ()) for pair in PAIRS},
    **{f"{pair.name}-weighted": (Recipe(pair, rules.IDENTITY, weighted=True), ALL) for pair in PAIRS},
    **{f"mul-{link.name}": (Recipe(rules.MUL, link), ("edge_bias",)) for link in LINKS},
    **{f"mul-{link.name}-inside": (Recipe(rules.MUL, link, bias_inside=True), ALL) for link in LINKS},
    "biases": (Recipe(None, rules.IDENTITY), ("query_bias", *ALL)),
    "biases-leaky_relu": (Recipe(None, rules.LEAKY_RELU), ("query_bias", *ALL)),
    "gat": (Recipe(None, rules.LEAKY_RELU), ("query_bias", "key_bias")),
    "edge_bias-alone": (Recipe(None, rules.IDENTITY), ("edge_bias",)),
}


@pytest.fixture
def tiny_blocks(monkeypatch):
    r"""Makes heavy nodes of a small graph, and loops of several steps and rounds."""
    monkeypatch.setattr(gpu, "HEAVY", 6)
    monkeypatch.setattr(gpu, "TILE", 256)
    monkeypatch.setattr(gpu, "WEIGHT_LANES", 1)


@pytest.fixture
def tiny_trees(tiny_blocks, monkeypatch):
    r"""Makes levels of parts as well, which are joined in one way whatever the rule."""
    monkeypatch.setattr(gpu, "MERGED", 2)


def draw(recipe, names, sources, targets, edges, dtype, heads=3, features=5, channels=5, **more):
    torch.manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, dtype=dtype)

    shapes = {
        "query_bias": (targets, heads),
        "key_bias": (sources, heads),
        "edge_bias": (edges, heads),
        "edge_weight": (edges, heads),
    }
    x = {name: normal(*shapes[name]) for name in names}
    if recipe.pair is not None:
        x["query"], x["key"] = normal(targets, heads, features), normal(sources, heads, features)
        if recipe.weighted:
            x["weight"] = normal(heads, features)
    if recipe.link in (rules.LOG, rules.HALF_LOG, rules.RATIONAL_QUADRATIC):  # of what is not negative
        x = {name: tensor.abs() for name, tensor in x.items()}

    def constants(rule):
        values = torch.zeros(2, heads, dtype=dtype)  # more rows than a rule takes do no harm
        values[: arity(rule)] = 0.1 + torch.rand(arity(rule), heads, dtype=dtype)
        if rule is rules.TRUNCATED_EXP:
            values[0] = 2.0 + 2.0 * torch.arange(heads) % 8.0
        return values

    return Operands(
        value=normal(sources, heads, channels),
        pair_args=constants(recipe.pair),
        link_args=constants(recipe.link),
        **{"scale": 0.3, **x, **more},
    )


def moved(x):
    return x.map(lambda tensor: tensor.to(DEVICE))


def run(recipe, edge_index, targets, sources, x, grad):
    r"""``out``, ``lse`` and the gradients by name, of the backend."""
    adjacency = gpu.Adjacency.of(edge_index.to(DEVICE), 1, targets, sources)
    x = moved(x)
    out, lse = gpu.attention(recipe, adjacency, x)
    gradients = gpu.attention_backward(recipe, adjacency, x, out, lse, grad.to(DEVICE, out.dtype))
    for name in OPERANDS:
        operand, gradient = getattr(x, name), gradients.get(name)
        assert (operand is None) == (gradient is None), name
        assert operand is None or (gradient.shape, gradient.dtype) == (operand.shape, operand.dtype)
    found = {name: gradients[name].cpu() for name in OPERANDS if getattr(x, name) is not None}
    return out.cpu(), lse.sum(-1).cpu(), found


def arity(rule):
    return (
        0
        if rule is None
        else rule.in_scalars.__code__.co_argcount - (2 if isinstance(rule, rules.Pair) else 1)
    )


def wanted_attention(recipe, edge_index, targets, x, mask=1.0):
    return oracle.attention(*in_torch(recipe, edge_index, targets, x), mask)


def in_torch(recipe, *rest):
    r"""What the oracle takes: as many constants as the functions, and those per head."""
    *rest, x = rest
    pair, link = PER_HEAD.get(recipe.pair, recipe.pair), PER_HEAD.get(recipe.link, recipe.link)
    x = x._replace(pair_args=x.pair_args[: arity(pair)], link_args=x.link_args[: arity(link)])
    return dataclasses.replace(recipe, pair=pair, link=link), *rest, x


def expect(recipe, edge_index, targets, x, grad, mask=1.0):
    leaves = {name: getattr(x, name) for name in OPERANDS if getattr(x, name) is not None}
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in leaves.items()}
    out, lse = wanted_attention(recipe, edge_index, targets, x._replace(**leaves), mask)
    gradients = torch.autograd.grad(out, list(leaves.values()), grad, allow_unused=True)
    zeros = (torch.zeros_like(leaf) for leaf in leaves.values())
    gradients = [z if g is None else g for g, z in zip(gradients, zeros, strict=True)]
    return out.detach(), lse.detach(), dict(zip(leaves, gradients, strict=True))


def close(found, wanted, rtol, atol):
    for name, one, other in (("out", found[0], wanted[0]), ("lse", found[1], wanted[1])):
        torch.testing.assert_close(one, other, rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}")
    assert found[2].keys() == wanted[2].keys()
    for name, one in found[2].items():
        # Sums of many terms: their size is that of the largest.
        size = max(1.0, wanted[2][name].abs().max().item()) if one.numel() else 1.0
        torch.testing.assert_close(
            one, wanted[2][name], rtol=rtol, atol=atol * size, msg=lambda m, n=name: f"gradient of {n}: {m}"
        )


def compare(recipe, names, sources, targets, edges, dtype, **more):
    edge_index, _ = oracle.adjacency(targets, sources, edges)
    x = draw(recipe, names, sources, targets, len(edges), dtype, **more)
    grad = torch.randn(targets, *x.value.shape[1:], dtype=dtype)
    found = run(recipe, edge_index, targets, sources, x, grad)
    close(found, expect(recipe, edge_index, targets, x, grad), *TOLERANCE[dtype])
    return found


@pytest.mark.parametrize("case", CASES)
def test_every_rule(tiny_blocks, case):
    recipe, names = CASES[case]
    found = compare(recipe, names, 7, 6, HUBS, torch.float64)
    assert not found[0][5].any()  # a target without edges
    assert not found[1][5].any()


@pytest.mark.parametrize("case", [case for case in CASES if set(ALL) <= set(CASES[case][1])])
def test_single_precision(tiny_blocks, case):
    compare(*CASES[case], 7, 6, HUBS, torch.float32)


GRAPHS = {
    "no-edges": (4, 3, []),
    "no-targets": (4, 0, []),
    "no-nodes": (0, 0, []),
    "one-node": (1, 1, [(0, 0)]),
    "isolated": (5, 6, [(1, 4), (3, 4), (1, 0)]),
    "duplicates": (2, 2, [(1, 0), (1, 0), (0, 1), (1, 0)]),
    "bipartite": (3, 8, [(s, t) for s in range(3) for t in range(1, 8) if (s + t) % 2]),
    "hub-of-twenty": (4, 2, [(s % 4, 1) for s in range(20)]),
}


@pytest.mark.parametrize("graph", GRAPHS)
def test_every_graph(tiny_trees, graph):
    compare(Recipe(rules.MUL, rules.LOG_SQUARE, weighted=True), ALL, *GRAPHS[graph], torch.float64)
    compare(Recipe(None, rules.LEAKY_RELU), ("query_bias", "key_bias"), *GRAPHS[graph], torch.float64)


@pytest.mark.parametrize(
    ("heads", "features", "channels"),
    [(0, 5, 5), (3, 0, 5), (3, 5, 0), (1, 1, 1), (2, 3, 8), (4, 8, 2), (2, 70, 3), (1, 3, 600)],
)
def test_every_size(heads, features, channels):
    recipe = Recipe(rules.ABS_DIFFERENCE, rules.RELU, weighted=True)
    more = {"heads": heads, "features": features, "channels": channels}
    compare(recipe, ALL, 7, 6, HUBS, torch.float64, **more)


def test_bounds_do_not_change_what_is_computed(monkeypatch):
    recipe = Recipe(rules.SQUARED_DIFFERENCE, rules.IDENTITY, weighted=True)
    for heavy, merged in ((512, 256), (1, 2), (1, 40), (4, 3)):
        monkeypatch.setattr(gpu, "HEAVY", heavy)
        monkeypatch.setattr(gpu, "MERGED", merged)
        compare(recipe, ALL, 7, 6, HUBS, torch.float64)


def test_two_runs_are_equal_bit_for_bit(tiny_trees):
    recipe = Recipe(rules.LEAKY_RELU_SUM, rules.IDENTITY, weighted=True)
    edge_index, _ = oracle.adjacency(6, 7, HUBS)
    x = draw(recipe, ALL, 7, 6, len(HUBS), torch.float32, dropout=0.3, seed=torch.tensor([5]))
    grad = torch.randn(6, 3, 5)
    one, two = (run(recipe, edge_index, 6, 7, x, grad) for _ in range(2))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    for name in one[2]:
        assert torch.equal(one[2][name], two[2][name]), name


def test_rows_without_a_finite_score(tiny_trees):
    edge_index, _ = oracle.adjacency(6, 7, HUBS)
    grad = torch.randn(6, 3, 5, dtype=torch.float64)
    for recipe in (Recipe(rules.MUL, rules.IDENTITY), Recipe(rules.MUL, rules.LEAKY_RELU, bias_inside=True)):
        x = draw(recipe, ALL, 7, 6, len(HUBS), torch.float64)
        hidden = edge_index[1] == 2  # the hub: all its parts are then without weight
        hidden[:3] = torch.tensor([False, True, False])
        x.edge_bias[hidden] = -torch.inf
        x.edge_bias[edge_index[1] == 0] = -torch.inf
        x.edge_bias[edge_index[1] == 2, 0] = -torch.inf
        out, lse, gradients = run(recipe, edge_index, 6, 7, x, grad)
        wanted = wanted_attention(recipe, edge_index, 6, x)
        torch.testing.assert_close(out, wanted[0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(lse, wanted[1], rtol=1e-9, atol=1e-9)
        assert not out[0].any()
        assert not lse[0].any()
        assert not out[2, 0].any()
        assert all(gradient.isfinite().all() for gradient in gradients.values())
        assert not gradients["edge_bias"][x.edge_bias == -torch.inf].any()


def test_infinite_slope_without_weight_is_no_gradient(tiny_trees):
    recipe = Recipe(rules.MUL, rules.LOG)
    edge_index, _ = oracle.adjacency(6, 7, HUBS)
    x = draw(recipe, (), 7, 6, len(HUBS), torch.float64)
    x.link_args.zero_()
    x.key[1] = 0.0
    out, _, gradients = run(recipe, edge_index, 6, 7, x, torch.randn(6, 3, 5))
    assert out.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["half", "bfloat16"])
def test_half_values_are_summed_in_single_precision(tiny_trees, dtype):
    recipe = Recipe(rules.MUL, rules.IDENTITY)
    edge_index, _ = oracle.adjacency(6, 7, HUBS)
    x = draw(recipe, ALL, 7, 6, len(HUBS), torch.float32)
    value, grad = x.value.to(dtype), torch.randn(6, 3, 5).to(dtype)
    out, lse, gradients = run(recipe, edge_index, 6, 7, x._replace(value=value), grad)
    wanted = expect(recipe, edge_index, 6, x._replace(value=value.float()), grad.float())
    eps = torch.finfo(dtype).eps
    once = 1.01 if INTERPRETED else 0.51  # the interpreter cuts what a GPU rounds
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, wanted[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(lse, wanted[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients["value"].float(), wanted[2]["value"], rtol=once * eps, atol=1e-6)
    for name in ("query", "key", *ALL):  # their D_i is not made of rounded averages
        torch.testing.assert_close(gradients[name], wanted[2][name], rtol=1e-4, atol=1e-4)


def the_mask(seed, drop, sources=16, targets=6):
    r"""All pairs, each its own edge: with the unit vectors as values, every weight can be read off."""
    edges = [(s, t) for t in range(targets) for s in range(sources)]
    recipe = Recipe(None, rules.IDENTITY)
    edge_index, _ = oracle.adjacency(targets, sources, edges)
    x = draw(recipe, ("edge_bias",), sources, targets, len(edges), torch.float64, channels=sources)
    value = torch.eye(sources, dtype=torch.float64).unsqueeze(1).repeat(1, 3, 1)
    x = x._replace(value=value, dropout=drop, seed=torch.tensor([seed]))
    adjacency = gpu.Adjacency.of(edge_index.to(DEVICE), 1, targets, sources)
    out = gpu.attention(recipe, adjacency, moved(x))[0].cpu()
    plain = wanted_attention(recipe, edge_index, targets, x)[0]
    return edges, (out / plain).transpose(1, 2).reshape(len(edges), 3)  # [E, H]


def test_dropout(monkeypatch):
    edges, mask = the_mask(3, 0.4)
    kept = mask != 0.0
    torch.testing.assert_close(mask[kept], torch.full_like(mask[kept], 1 / 0.6), rtol=1e-9, atol=0)
    assert abs(kept.double().mean().item() - 0.6) < 4 * (0.24 / kept.numel()) ** 0.5
    assert not torch.equal(kept[:, 0], kept[:, 1])
    assert torch.equal(the_mask(3, 0.4)[1], mask)
    assert not torch.equal(the_mask(4, 0.4)[1] != 0.0, kept)
    assert not torch.equal(the_mask(3 + 2**32, 0.4)[1] != 0.0, kept)
    assert torch.equal(the_mask(3, 0.2)[1] != 0.0, kept | (the_mask(3, 0.2)[1] != 0.0))

    written = gpu.dropout_mask(len(edges), 3, 0.4, torch.tensor([3], device=DEVICE)).cpu()
    torch.testing.assert_close(mask, written, rtol=1e-9, atol=0)

    # The same mask for other operands, backward, and however nodes are split.
    monkeypatch.setattr(gpu, "HEAVY", 9)
    recipe = Recipe(rules.MUL, rules.IDENTITY, weighted=True)
    edge_index, _ = oracle.adjacency(6, 16, edges)
    x = draw(recipe, ALL, 16, 6, len(edges), torch.float64, dropout=0.4, seed=torch.tensor([3]))
    grad = torch.randn(6, 3, 5, dtype=torch.float64)
    found = run(recipe, edge_index, 6, 16, x, grad)
    close(found, expect(recipe, edge_index, 6, x, grad, mask), 1e-9, 1e-9)


def test_mask_belongs_to_the_edge_of_the_caller():
    edges, mask = the_mask(3, 0.5)
    order = torch.randperm(len(edges), generator=torch.Generator().manual_seed(0))
    recipe = Recipe(rules.MUL, rules.IDENTITY)
    edge_index = oracle.adjacency(6, 16, edges)[0][:, order]
    x = draw(recipe, ALL, 16, 6, len(edges), torch.float64, dropout=0.5, seed=torch.tensor([3]))
    grad = torch.randn(6, 3, 5, dtype=torch.float64)
    close(run(recipe, edge_index, 6, 16, x, grad), expect(recipe, edge_index, 6, x, grad, mask), 1e-9, 1e-9)


def test_dropping_all_gives_zeros(tiny_trees):
    recipe = Recipe(rules.MUL, rules.IDENTITY)
    edge_index, _ = oracle.adjacency(6, 7, HUBS)
    x = draw(recipe, ALL, 7, 6, len(HUBS), torch.float64, dropout=1.0, seed=torch.tensor([3]))
    out, lse, gradients = run(recipe, edge_index, 6, 7, x, torch.randn(6, 3, 5))
    assert not out.any()
    torch.testing.assert_close(lse, wanted_attention(recipe, edge_index, 6, x)[1], rtol=1e-9, atol=1e-9)
    assert not any(gradient.any() for gradient in gradients.values())  # NaN would be true


@pytest.mark.parametrize("weighted", [True, False], ids=["weighted", "plain"])
@pytest.mark.parametrize(
    "pair", [*PAIRS, kan._SILU_SUM, *kan._SPLINE_SUMS.values()], ids=lambda pair: pair.name
)
def test_scores_alone(tiny_blocks, monkeypatch, pair, weighted):
    if pair is rules.MUL:
        monkeypatch.setattr(gpu, "MERGED", 2)
    recipe = Recipe(pair, rules.SIGNED, weighted)  # a link that cannot be compiled, and need not
    edge_index, _ = oracle.adjacency(6, 7, HUBS)
    adjacency = gpu.Adjacency.of(edge_index.to(DEVICE), 1, 6, 7)
    x = draw(recipe, (), 7, 6, len(HUBS), torch.float64, channels=0)
    leaves = {
        name: getattr(x, name).clone().requires_grad_() for name in ("query", "key", "weight")[: 2 + weighted]
    }
    wanted = oracle.scores(*in_torch(recipe, edge_index, x._replace(**leaves)))[0]
    torch.testing.assert_close(gpu.score(recipe, adjacency, moved(x)).cpu(), wanted, rtol=1e-9, atol=1e-9)
    grad = torch.randn_like(wanted)
    found = gpu.score_backward(recipe, adjacency, moved(x), grad.to(DEVICE))
    assert list(found) == list(leaves)
    for one, other in zip(
        found.values(), torch.autograd.grad(wanted, list(leaves.values()), grad), strict=True
    ):
        torch.testing.assert_close(one.cpu(), other, rtol=1e-9, atol=1e-9)


def test_scores_of_no_edges():
    recipe = Recipe(rules.MUL, rules.IDENTITY, weighted=True)
    _, adjacency = oracle.adjacency(6, 7, [])
    x = draw(recipe, (), 7, 6, 0, torch.float64, channels=0)
    total = gpu.score(recipe, adjacency, x)
    assert total.shape == (0, 3)
    found = gpu.score_backward(recipe, adjacency, x, total)
    assert [gradient.shape for gradient in found.values()] == [(6, 3, 5), (7, 3, 5), (3, 5)]
    assert not any(gradient.any() for gradient in found.values())


def test_gradient_that_is_an_expanded_number(tiny_trees):
    recipe = Recipe(rules.MUL, rules.IDENTITY)
    edge_index, _ = oracle.adjacency(6, 7, HUBS)
    x = draw(recipe, ALL, 7, 6, len(HUBS), torch.float64)
    grad = torch.ones((), dtype=torch.float64).expand(6, 3, 5)
    close(run(recipe, edge_index, 6, 7, x, grad), expect(recipe, edge_index, 6, x, grad), 1e-9, 1e-9)


def _foreign(t):
    return torch.tanh(t)


def test_rule_that_cannot_be_compiled():
    recipe = Recipe(rules.MUL, rules.Link("foreign", torch.tanh, derivative=_foreign, scalar=_foreign))
    edge_index, _ = oracle.adjacency(6, 7, HUBS)
    adjacency = gpu.Adjacency.of(edge_index.to(DEVICE), 1, 6, 7)
    x = draw(recipe, (), 7, 6, len(HUBS), torch.float32)
    with pytest.raises(BackendError, match="foreign"):
        gpu.attention(recipe, adjacency, moved(x))


FLOOR = 0.1


def _floor(t, slope):
    return maximum(maximum(slope * t, 0.7 * t), FLOOR)


FLOORED = rules.Link("floor", _floor)


def _bent(x, y):
    return maximum(x - y, where(x > 0.0, 0.7, 0.1) * (x - y)) + 0.3


def test_pair_of_constants_that_is_not_zero_at_zero():
    r"""Features that fill up a block must not count: there are five of eight."""
    recipe = Recipe(rules.Pair("bent", _bent), rules.LOG_SQUARE)
    edge_index, _ = oracle.adjacency(6, 7, HUBS)
    x = draw(recipe, (), 7, 6, len(HUBS), torch.float64, scale=2.0)
    grad = torch.randn(6, 3, 5, dtype=torch.float64)
    wanted = expect(recipe, edge_index, 6, x, grad)
    close(run(recipe, edge_index, 6, 7, x, grad), wanted, 1e-13, 1e-13)


def test_constants_keep_their_digits():
    recipe = Recipe(rules.MUL, FLOORED)
    edge_index, _ = oracle.adjacency(6, 7, HUBS)
    x = draw(recipe, (), 7, 6, len(HUBS), torch.float64, scale=2.0)
    x.link_args.fill_(-0.1)
    grad = torch.randn(6, 3, 5, dtype=torch.float64)
    wanted = expect(recipe, edge_index, 6, x, grad)
    close(run(recipe, edge_index, 6, 7, x, grad), wanted, 1e-13, 1e-13)


# What makes the host wait for a device, or copies to it from memory that is not pinned: no graph is recorded
# with them.
WAITING = (
    "_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "_unique", "unique", "item", "equal",
    "bincount", "lift_fresh", "_to_cpu", "repeat_interleave",
)  # fmt: skip


class Watched(TorchDispatchMode):
    r"""The ops of torch that are called, but for those that only look at a tensor or make room for one."""

    ROOM = ("empty", "slice", "select", "view", "expand", "squeeze", "detach", "t.", "unbind", "alias")

    def __init__(self):
        super().__init__()
        self.ops = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not any(name in func.name() for name in self.ROOM):
            self.ops.append(func.name().removeprefix("aten::"))
        return func(*args, **(kwargs or {}))

    def waits(self):
        return [op for op in self.ops if any(op.startswith(name) for name in WAITING)]


@pytest.fixture
def as_on_a_device(monkeypatch):
    r"""Lets the CPU pass for a device that the host would have to wait for; returns the kernels launched."""
    for module in (graph_device, graph_adjacency, graph_memory):
        for name in ("reads_at_once", "blocks"):
            monkeypatch.setattr(module, name, lambda device: False, raising=False)
    for module in (graph_adjacency, graph_fingerprint):
        monkeypatch.setattr(module, "compiled", lambda device: None)
    for module in (graph_adjacency, graph_memory):  # as a plain function, into which a mode looks
        monkeypatch.setattr(module, "on_device", graph_fingerprint.on_device._init_fn)
    launched, launch = [], gpu._launch

    def counted(kernel, programs, **arguments):
        if programs:
            launched.append(kernel.__name__)
        # The interpreter reads numbers of tensors, which no GPU's host does.
        with torch.utils._python_dispatch._disable_current_modes():
            launch(kernel, programs, **arguments)

    monkeypatch.setattr(gpu, "_launch", counted)
    return launched


@pytest.mark.parametrize("case", [f"{rules.LEAKY_RELU_SUM.name}-weighted", "gat"])
@pytest.mark.parametrize("hubs", [False, True], ids=["plain", "hubs"])
def test_new_graph_waits_for_nothing(monkeypatch, as_on_a_device, case, hubs):
    if hubs:
        monkeypatch.setattr(gpu, "HEAVY", 6)
    recipe, names = CASES[case]
    edge_index, _ = oracle.adjacency(6, 7, HUBS)
    x = draw(recipe, names, 7, 6, len(HUBS), torch.float64)
    grad = torch.randn(6, 3, 5, dtype=torch.float64)
    with Watched() as watched:
        adjacency = gpu.Adjacency.of(edge_index, 1, 6, 7)
        out, lse = gpu.attention(recipe, adjacency, x)
        adjacency = gpu.Adjacency.again(edge_index, 1, 6, 7, adjacency.graph)
        gradients = gpu.attention_backward(recipe, adjacency, x, out, lse, grad)
    assert watched.waits() == []
    weight = ["sum.dim_IntList"] if recipe.weighted else []
    merges = (["merge"], ["merge_sums"]) if hubs else ([], [])
    assert as_on_a_device == ["attend", *merges[0], "dot_rows", "by_source", "by_target", *merges[1]]
    wanted = expect(recipe, edge_index, 6, x, grad)
    close((out, lse.sum(-1), {name: gradients[name] for name in wanted[2]}), wanted, 1e-9, 1e-9)
    # The second step launches kernels alone, and what compares the edges with those of the first.
    with Watched() as watched:
        gpu.attention_backward(recipe, adjacency, x, out, lse, grad)
    assert watched.ops == weight


@pytest.mark.parametrize("wrong", [-1, 6])
def test_wrong_index_is_asserted_later(monkeypatch, as_on_a_device, wrong):
    asserted = []
    monkeypatch.setattr(
        torch, "_assert_async", lambda condition, message: asserted.append((condition, message))
    )
    edge_index = torch.tensor([[0, 1], [wrong, 2]])
    with Watched() as watched:
        graph_adjacency.check_indices(edge_index[1], edge_index[0], 6, 7)
    assert watched.waits() == []
    assert [bool(condition) for condition, _ in asserted] == [False, True]
    assert asserted[0][1] == (
        "Expected target indices of 'edge_index' in [0, 5] for 6 target nodes; check that 'edge_index' and "
        "the node features belong together"
    )
    monkeypatch.undo()
    with pytest.raises(IndexError, match=rf"for 6 target nodes \(got {wrong}\); check"):
        graph_adjacency.check_indices(edge_index[1], edge_index[0], 6, 7)


def test_recorded_graphs_are_not_remembered(monkeypatch):
    edge_index, _ = oracle.adjacency(6, 7, HUBS)
    known = gpu.Adjacency.of(edge_index, 1, 6, 7)
    monkeypatch.setattr(graph_memory, "recording", lambda device: True)
    monkeypatch.setattr(graph_adjacency, "recording", lambda device: True)
    assert gpu.Adjacency.of(edge_index, 1, 6, 7) is known  # there are numbers in it
    partition = gpu._partition(known, known.rowptr)
    assert gpu._partition(known, known.rowptr) is not partition
    other = edge_index.clone()
    assert gpu.Adjacency.of(other, 1, 6, 7) is not gpu.Adjacency.of(other, 1, 6, 7)


def test_sentences_fit_into_an_assertion_of_a_device():
    for sentence in (graph_memory.CHANGED, graph_adjacency.CHANGED_BEFORE_BACKWARD, _WEIGHTS, _LOG_WEIGHT):
        assert len(sentence) <= graph_device.LONGEST, sentence


@pytest.mark.parametrize("args", [(0.2,), (0.2, torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)), ()])
def test_constants_of_a_rule_are_not_copied_to_a_device(monkeypatch, args):
    monkeypatch.setattr(fused, "recording", lambda device: True)  # what is recorded is not kept either
    with Watched() as watched:
        (rows,) = fused._constants([args], 3, torch.float32, torch.device("cpu"), False)
    assert watched.waits() == []
    wanted = [torch.as_tensor(arg).expand(3) for arg in (*args, 0.0, 0.0)]
    torch.testing.assert_close(rows, torch.stack(wanted[:2]).float())
    assert fused._constants([args], 3, torch.float32, torch.device("cpu"), False)[0] is not rows


@pytest.mark.parametrize("size", [0, 1, 1023, 1025, 9001])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32], ids=str)
def test_scan_is_the_fingerprint(monkeypatch, size, dtype):
    monkeypatch.setattr(gpu, "SCANNED", 4000)
    words = torch.randint(
        -(2**31), 2**31 - 1, (size,), dtype=dtype, generator=torch.Generator().manual_seed(0)
    )
    assert tuple(gpu.scan(words.to(DEVICE)).tolist()) == graph_fingerprint.fingerprint(words)


def test_scan_that_computes_something_else_is_not_taken(monkeypatch):
    device = torch.device("cuda")
    arange = torch.arange
    monkeypatch.setattr(torch, "arange", lambda *args, device: arange(*args, device=DEVICE))
    choose = graph_fingerprint._scan_of.__wrapped__
    assert choose(torch.device("cpu")) is graph_fingerprint._scan
    assert choose(device) is gpu.scan
    scan = gpu.scan
    monkeypatch.setattr(gpu, "scan", lambda words: scan(words) + 1)
    assert choose(device) is graph_fingerprint._scan
    monkeypatch.setattr(gpu, "scan", None)
    assert choose(device) is graph_fingerprint._scan


on_a_device = pytest.mark.skipif(INTERPRETED, reason="needs a CUDA device")


def _made_for_device(seed):
    torch.manual_seed(seed)
    edge_index = torch.randint(0, 60, (2, 2000))
    edge_index[1, :700] = 7  # a hub
    recipe = Recipe(rules.LEAKY_RELU_SUM, rules.IDENTITY, weighted=True)
    x = draw(recipe, ALL, 60, 60, 2000, torch.float32, channels=8)
    return recipe, edge_index, x, torch.randn(60, 3, 8)


def _step(recipe, edge_index, x, grad):
    adjacency = gpu.Adjacency.of(edge_index, 1, 60, 60)
    out, lse = gpu.attention(recipe, adjacency, x)
    adjacency = gpu.Adjacency.again(edge_index, 1, 60, 60, adjacency.graph)
    gradients = gpu.attention_backward(recipe, adjacency, x, out, lse, grad)
    return out, lse, {name: gradients[name] for name in OPERANDS if getattr(x, name) is not None}


@on_a_device
def test_device_is_not_waited_for():
    recipe, edge_index, x, grad = _made_for_device(0)
    first, second, x, grad = edge_index.cuda(), edge_index.flip(0).cuda(), moved(x), grad.cuda()
    _step(recipe, first, x, grad)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = _step(recipe, second, x, grad)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    x, grad = x.map(torch.Tensor.cpu), grad.cpu()
    found = (found[0].cpu(), found[1].cpu(), {name: tensor.cpu() for name, tensor in found[2].items()})
    close(found, expect(recipe, edge_index.flip(0), 60, x, grad), *TOLERANCE[torch.float32])


@on_a_device
def test_step_is_recorded_as_a_cuda_graph():
    recipe, edge_index, x, grad = _made_for_device(1)
    edges, x, grad = edge_index.cuda(), moved(x), grad.cuda()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        _step(recipe, edges.clone(), x, grad)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out, lse, gradients = _step(recipe, edges.clone(), x, grad)
    for replayed in (edge_index, edge_index.flip(0)):  # edges may change: those of the clone are sorted again
        edges.copy_(replayed)
        graph.replay()
        found = (out.cpu(), lse.cpu(), {name: tensor.cpu() for name, tensor in gradients.items()})
        wanted = expect(recipe, replayed, 60, x.map(torch.Tensor.cpu), grad.cpu())
        close(found, wanted, *TOLERANCE[torch.float32])
