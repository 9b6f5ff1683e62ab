r"""Every backend computes what the loops of ``ops/reference.py`` compute: values and all gradients."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from kgat import kernels, ops
from kgat.functional import edge_attention, explain
from kgat.kernels import RBF, Additive, DotProduct, Magnitude
from kgat.ops import eager, fused, passes
from kgat.testing import check_backend

H, D, C = 3, 5, 4

GRAPHS = {  # name: targets N, sources M, edges (source, target)
    "hub": (6, 9, [(j, 2) for j in range(9)] + [(0, 0)]),
    "bipartite": (3, 7, [(6, 0), (5, 2), (0, 2), (6, 2), (3, 0)]),
    "unsorted": (5, 5, [(0, 4), (1, 0), (2, 3), (4, 0), (3, 4), (0, 0)]),
}
KERNELS = {
    "additive": Additive,
    "additive_v2": kernels.AdditiveV2,
    "dot": DotProduct,
    "rbf": RBF,
    "magnitude": Magnitude,
    "truncated": lambda c, h: kernels.TruncatedExponential(c, h, degree=4),
    "product_merged": lambda c, h: RBF(c, h) * DotProduct(c, h) * Magnitude(c, h, p=1.5),
    "product_of_terms": lambda c, h: Additive(c, h) * RBF(c, h),
    "sum": lambda c, h: RBF(c, h) + DotProduct(c, h),
    "per_head": lambda c, h: kernels.PerHead(RBF(c, 1), Additive(c, h - 1)),
}


def inputs(graph, kernel, dtype, seed=0):
    targets, sources, edges = GRAPHS[graph] if isinstance(graph, str) else graph
    torch.manual_seed(seed)
    module = KERNELS[kernel](D, H).to(dtype)
    edge_index = torch.tensor(edges, dtype=torch.long).view(-1, 2).t()
    tensors = [  # drawn in one precision, so that both see the same numbers
        torch.randn(targets, H, D),
        torch.randn(sources, H, D),
        torch.randn(sources, H, C),
        torch.randn(len(edges), H),
        torch.rand(len(edges)) + 0.5,
        torch.randn(len(edges), H),
    ]
    return module, edge_index, [t.to(dtype).requires_grad_() for t in tensors]


def outcome(backend, module, edge_index, tensors):
    query, key, value, edge_bias, edge_weight, edge_log_weight = tensors
    out = edge_attention(
        module(query, key),
        value,
        edge_index,
        edge_bias=edge_bias,
        edge_weight=edge_weight,
        edge_log_weight=edge_log_weight,
        backend=backend,
    )
    wanted = [*tensors, *module.parameters()]
    if not out.requires_grad:  # the loops over nothing
        return [out] + [None] * len(wanted)
    slope = torch.linspace(-1, 1, max(out.numel(), 1), dtype=out.dtype)[: out.numel()]
    return [out, *torch.autograd.grad((out * slope.view_as(out)).sum(), wanted, allow_unused=True)]


def assert_same(found, expected, rtol, atol):
    for f, e in zip(found, expected, strict=True):
        zero = torch.zeros(())
        f, e = torch.broadcast_tensors(*(zero if x is None else x for x in (f, e)))
        torch.testing.assert_close(f, e.to(f.dtype), rtol=rtol, atol=atol)


@pytest.fixture(params=["sorted", "scattered"])
def route(request, monkeypatch):
    if request.param == "scattered":
        monkeypatch.setattr(eager, "sorts_edges", lambda value: False)
    return request.param


COMPOSITES = ("product_merged", "product_of_terms", "sum", "per_head")
FACTORIES = {name: getattr(kernels, name) for name in kernels.names()} | {
    name: KERNELS[name] for name in COMPOSITES
}


@pytest.mark.parametrize("backend", ops.here())
@pytest.mark.parametrize("name", FACTORIES)
def test_every_kernel_equals_the_reference(name, backend):
    if is_signed(FACTORIES[name](D, H)):
        pytest.skip("it has no scores: it can be negative")
    check_backend(FACTORIES[name], backend, D, H)


@pytest.mark.parametrize("name", ["Additive", "AdditiveV2", "DotProduct", "Magnitude", "RBF", *COMPOSITES])
def test_scattered_edges_equal_the_reference(name, monkeypatch):
    monkeypatch.setattr(eager, "sorts_edges", lambda value: False)
    check_backend(FACTORIES[name], "eager", D, H)


@st.composite
def graphs(draw):
    targets, sources = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    edge = st.tuples(st.integers(0, sources - 1), st.integers(0, targets - 1))
    return targets, sources, draw(st.lists(edge, max_size=30))


@settings(max_examples=40, deadline=None)
@given(
    graph=graphs(),
    kernel=st.sampled_from(list(KERNELS)),
    backend=st.sampled_from(["cpu", "eager"]),
)
def test_equals_reference_on_any_graph(graph, kernel, backend):
    expected = outcome("reference", *inputs(graph, kernel, torch.float64))
    found = outcome(backend, *inputs(graph, kernel, torch.float64))
    assert_same(found, expected, 1e-9, 1e-9)
    found = outcome(backend, *inputs(graph, kernel, torch.float32))
    assert_same(found, expected, 2e-4, 2e-5)


@pytest.mark.parametrize("kernel", ["additive", "rbf", "additive_v2"])
def test_order_of_edges_does_not_matter(kernel, route):
    module, edge_index, tensors = inputs("unsorted", kernel, torch.float64)
    perm = torch.randperm(edge_index.size(1))
    shuffled = [*tensors[:3], *(t[perm] for t in tensors[3:])]
    found = outcome("eager", module, edge_index[:, perm], shuffled)
    expected = outcome("eager", module, edge_index, tensors)
    expected[4:7] = [grad[perm] for grad in expected[4:7]]
    assert_same(found, expected, 1e-12, 1e-12)


def test_sorted_route_is_bitwise_repeatable():
    runs = [outcome("eager", *inputs("hub", "rbf", torch.float32)) for _ in range(2)]
    for first, again in zip(*runs, strict=True):
        assert torch.equal(first, again)


def test_int32_and_strided_inputs(route):
    module, edge_index, tensors = inputs("unsorted", "rbf", torch.float64)
    expected = edge_attention(module(*tensors[:2]), tensors[2], edge_index)
    strided = [t.detach().transpose(0, 1).contiguous().transpose(0, 1) for t in tensors[:3]]
    edges = edge_index.t().contiguous().t().int()
    found = edge_attention(module(*strided[:2]), strided[2], edges)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_is_as_good_as_its_storage(dtype, route):
    # Sums are kept in single precision: the error is that of rounding the inputs and the output.
    module, edge_index, tensors = inputs("hub", "rbf", torch.float32)
    q, k, v = (t.detach().to(dtype) for t in tensors[:3])
    out = edge_attention(module(q, k), v, edge_index)
    assert out.dtype == dtype
    expected = edge_attention(module(q.float(), k.float()), v.float(), edge_index)
    torch.testing.assert_close(out.float(), expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


def test_dropout_scales_and_depends_on_the_seed(route):
    module, _, _ = inputs("hub", "dot", torch.float32)
    n = 400
    edge_index = torch.stack([torch.arange(n), torch.zeros(n, dtype=torch.long)])
    q, v = torch.zeros(1, H, D), torch.ones(n, H, 1)
    gram = module(q, torch.zeros(n, H, D))
    torch.manual_seed(1)
    first = edge_attention(gram, v, edge_index, dropout=0.5)
    torch.manual_seed(1)
    assert torch.equal(first, edge_attention(gram, v, edge_index, dropout=0.5))
    assert not torch.equal(first, edge_attention(gram, v, edge_index, dropout=0.5))
    assert (first - 1).abs().max() < 0.25  # 400 draws: five standard deviations


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation returns."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(t, torch.Tensor):
                self.numel = max(self.numel, t.numel())
        return out


def is_signed(kernel):
    x = torch.zeros(2, kernel.heads, kernel.channels)
    return kernel(x, x).signed


def built(name, channels, heads):
    kernel = getattr(kernels, name)
    if kernel in (kernels.Product, kernels.Sum):
        return kernel(RBF(channels, heads), Additive(channels, heads))
    if kernel is kernels.PerHead:
        return kernel(RBF(channels, 1), Additive(channels, heads - 1))
    return kernel(channels, heads)


def largest(module, backend, channels):
    n, edges = 60, 1500
    torch.manual_seed(0)
    edge_index = torch.stack([torch.randperm(n * n)[:edges] // n, torch.randint(0, n, (edges,))])
    x = torch.randn(n, H, channels, requires_grad=True)
    with Largest() as mode:
        edge_attention(module(x, x), x, edge_index, backend=backend).sum().backward()
    assert x.grad.abs().sum() > 0
    return mode.numel / (edges * H * channels)


@pytest.mark.parametrize("name", [n for n in kernels.__all__ if n != "Kernel"])
def test_no_kernel_holds_channels_per_edge(name):
    module = built(name, 16, H)
    if is_signed(module):
        pytest.skip("it has no scores: it can be negative")
    assert largest(module, "cpu", 16) < 1


COMPOSED = {
    "gated*rbf": lambda: kernels.GatedAdditive(16, H) * RBF(16, H),
    "magnitude*gated*gated": lambda: (
        kernels.Magnitude(16, H) * kernels.GatedAdditive(16, H) * kernels.GatedAdditive(16, H)
    ),
    "kan*laplace": lambda: kernels.KANScore(16, H) * kernels.Laplace(16, H),
    "gated+kan": lambda: kernels.GatedAdditive(16, H) + kernels.KANScore(16, H),
    "(dot+gated)*gated": lambda: (
        (DotProduct(16, H) + kernels.GatedAdditive(16, H)) * kernels.GatedAdditive(16, H)
    ),
}


@pytest.mark.parametrize("build", COMPOSED.values(), ids=COMPOSED.keys())
def test_no_product_or_sum_holds_channels_per_edge(build):
    assert largest(build(), "cpu", 16) < 1


class Chebyshev(kernels.Kernel):
    def score(self, query, key):
        return -(query - key).abs().amax(dim=-1)


# Of rules that no backend compiles there is a part of the edges at a time: what a part holds does not grow.
IN_PARTS = {
    "layers after the second mix the splines of an edge": lambda: kernels.KANScore(16, H, num_layers=3),
    "splines of the fourth degree have no scalar rule": lambda: kernels.KANScore(16, H, spline_order=4),
    "a score of torch alone": lambda: Chebyshev(16, H),
}


@pytest.mark.parametrize("build", IN_PARTS.values(), ids=IN_PARTS.keys())
def test_other_rules_hold_channels_of_a_part_of_the_edges(build, monkeypatch):
    torch.manual_seed(0)
    assert largest(build(), "cpu", 16) >= 1
    monkeypatch.setattr(fused, "CHUNK_BYTES", 1 << 13)
    assert largest(build(), "cpu", 16) < 1


def test_the_measure_of_the_largest_tensor_sees_one(monkeypatch):
    monkeypatch.setattr(eager, "sorts_edges", lambda value: False)
    assert largest(RBF(16, H), "eager", 16) >= 1


@pytest.mark.parametrize("kernel", [Additive, DotProduct, kernels.GatedAdditive])
def test_eager_inner_products_hold_no_channels_per_edge(kernel):
    assert largest(kernel(16, H), "eager", 16) < 1


def test_named_backends_and_reasons():
    module, edge_index, tensors = inputs("hub", "rbf", torch.float32)
    gram, value = module(*tensors[:2]), tensors[2]
    with pytest.raises(ValueError, match=r"one of 'gpu', 'cpu', 'eager', 'reference' \(got 'tpu'\)"):
        edge_attention(gram, value, edge_index, backend="tpu")
    assert explain(gram, value, edge_index) == (
        "gpu: tensors are on cpu; cpu: ok; eager: ok; reference (only if named): ok"
    )


def test_a_backend_that_cannot_run_says_why(monkeypatch):
    module, edge_index, tensors = inputs("hub", "rbf", torch.float32)
    monkeypatch.setattr(eager.Eager, "reasons", lambda self, call: ["no power", "no time"])
    gram, value = module(*tensors[:2]), tensors[2]
    with pytest.raises(NotImplementedError, match="no power, no time"):
        edge_attention(gram, value, edge_index, backend="eager")
    monkeypatch.setattr(fused, "reasons", lambda call: ["no wish"])
    with pytest.raises(NotImplementedError, match="Expected a backend"):
        edge_attention(gram, value, edge_index)


@pytest.mark.parametrize("number", [1e3, -99999.0, 1e20, torch.inf, torch.nan], ids=str)
@pytest.mark.parametrize("backend", ["cpu", "eager"])
@pytest.mark.parametrize(
    "name", ["additive", "rbf", "laplace", "spectral", "rbf * magnitude", "rbf + dot_product"]
)
def test_nodes_without_a_path_do_not_move_each_other_by_a_bit(name, backend, number):
    torch.manual_seed(0)
    kernel = kernels.resolve(name, 5, 3).eval()
    near, far = 40, 8  # all of them in one block of the loops
    x = torch.randn(near + far, 3, 5)
    edges = torch.cat([torch.randint(near, (2, 120)), near + torch.randint(far, (2, 30))], dim=1)
    results = []
    for changed in (False, True):
        nodes = x.clone()
        if changed:
            nodes[near + 3] = number
        nodes.requires_grad_()
        out = edge_attention(kernel(nodes, nodes), nodes, edges, backend=backend)[:near]
        results.append((out, torch.autograd.grad(out.square().sum(), nodes)[0][:near]))
    for plain, beside in zip(*results, strict=True):
        assert torch.equal(plain, beside)


@pytest.mark.parametrize("kernel", ["additive", "rbf", "product_of_terms"])
@pytest.mark.parametrize("backend", ["reference", "eager", "cpu"])
def test_a_target_all_of_whose_edges_are_removed_gets_0(backend, kernel):
    # Target 0 keeps none of its edges, target 2 some.
    module, edge_index, tensors = inputs("bipartite", kernel, torch.float64)
    removed = (edge_index[1] == 0) | (edge_index == torch.tensor([[5], [2]])).all(dim=0)
    with torch.no_grad():
        tensors[-1][removed] = -torch.inf
    out, *grads = outcome(backend, module, edge_index, tensors)
    assert not out[0].any()
    kept = [t.detach()[~removed].requires_grad_() if t.size(0) == 5 else t for t in tensors]
    expected, *grads_of_kept = outcome(backend, module, edge_index[:, ~removed], kept)
    torch.testing.assert_close(out, expected)
    for grad, of_kept in zip(grads, grads_of_kept, strict=True):
        if grad.shape == of_kept.shape:
            torch.testing.assert_close(grad, of_kept)
        else:
            torch.testing.assert_close(grad[~removed], of_kept)
            assert not grad[removed].any()


ROUTES = {
    "cpu": ("cpu", lambda patch: None),
    "cpu, as an op": ("cpu", lambda patch: patch.setattr(passes, "is_watched", lambda *_: True)),
    "cpu, scores in parts": ("cpu", lambda patch: patch.setattr(fused, "CHUNK_BYTES", 1)),
    "eager": ("eager", lambda patch: None),
    "eager, scattered": ("eager", lambda patch: patch.setattr(eager, "sorts_edges", lambda value: False)),
    "reference": ("reference", lambda patch: None),
}
BASES = [((2, 3), 1.0), ((9, 2, 3), 100.0), ((2, 3), 1e4)]


def small_gradients(module, backend, dtype, base=None, dropout=0.0, stored=None, values=(0.0, 1e-3)):
    """With values of a mean and a spread; rounded as they are stored, if in another type."""
    torch.manual_seed(0)
    x, v, slope = torch.randn(9, 2, 4), values[0] + values[1] * torch.randn(9, 2, 3), torch.randn(9, 2, 3)
    x, v, slope = (t.to(stored or dtype).to(dtype) for t in (x, v, slope))
    v = v if dtype == torch.float64 else v.to(stored or dtype)
    edge_index, x, v = torch.randint(9, (2, 40)), x.requires_grad_(), v.requires_grad_()
    module = copy.deepcopy(module).to(dtype)
    base = None if base is None else torch.full(*base, dtype=v.dtype).requires_grad_()
    out = edge_attention(module(x, x), v, edge_index, backend=backend, dropout=dropout, base=base)
    found = torch.autograd.grad(out, (x, v, *module.parameters()), slope.to(out.dtype), allow_unused=True)
    return [g for g in found if g is not None]


def worst(found, expected):
    return max(
        ((f.double() - e.double()).norm() / e.double().norm().clamp_min(1e-5)).item()
        for f, e in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", [n for n in kernels.__all__ if n != "Kernel"])
def test_gradients_lose_nothing_beside_a_large_base(name, route, monkeypatch):
    torch.manual_seed(1)
    module = built(name, 4, 2).eval()
    backend, change = ROUTES[route]
    if is_signed(module):
        pytest.skip("it has no scores: it can be negative")
    expected = small_gradients(module, "eager", torch.float64)
    change(monkeypatch)
    plain = small_gradients(module, backend, torch.float32)
    assert worst(plain, expected) < 1e-4
    for base in BASES:
        for found, wanted in zip(small_gradients(module, backend, torch.float32, base), plain, strict=True):
            assert torch.equal(found, wanted)


CHANGES = {
    "an activation": lambda out: out.relu_(),
    "data": lambda out: out.data.mul_(3.0),
    "an array": lambda out: out.detach().numpy().fill(7.0),
    "no memory": lambda out: out.untyped_storage().resize_(0),
}


@pytest.mark.parametrize("based", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("route", [route for route in ROUTES if route != "reference"])
def test_what_the_caller_gets_is_not_what_backward_reads(route, change, dtype, based, monkeypatch):
    if dtype == torch.bfloat16 and change == "an array":
        pytest.skip("NumPy has no bfloat16")
    torch.manual_seed(0)
    backend, patch = ROUTES[route]
    patch(monkeypatch)
    slope, edge_index = torch.randn(9, 2, 3), torch.randint(9, (2, 40))
    for kernel in (Additive(4, 2), RBF(4, 2)):
        x, v = torch.randn(9, 2, 4, requires_grad=True), torch.randn(9, 2, 3).to(dtype).requires_grad_()
        base, found = torch.randn(2, 3).to(dtype) if based else None, []
        for changed in (False, True):
            out = edge_attention(kernel(x, x), v, edge_index, backend=backend, dropout=0.0, base=base)
            loss = (out * slope).sum() if change != "an activation" else None
            if changed:
                CHANGES[change](out)
            elif change == "an activation":
                out = out.relu()
            loss = (out * slope).sum() if loss is None else loss
            found.append(torch.autograd.grad(loss, (x, v)))
        for grad, expected in zip(*found, strict=True):
            torch.testing.assert_close(grad, expected)


@pytest.mark.parametrize("route", ["cpu", "cpu, as an op"])
def test_dropout_beside_a_large_base(route, monkeypatch):
    ROUTES[route][1](monkeypatch)
    for kernel in (Additive(4, 2), RBF(4, 2)):
        expected = small_gradients(kernel, "cpu", torch.float64, dropout=0.4)
        for base in BASES:
            assert worst(small_gradients(kernel, "cpu", torch.float32, base, dropout=0.4), expected) < 1e-4


@pytest.mark.parametrize("route", ["cpu", "cpu, as an op", "eager, scattered"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_are_not_made_of_rounded_outputs(dtype, route, monkeypatch):
    # Values of about 1 that differ by some steps of their type: their averages, rounded, are almost the same.
    backend, change = ROUTES[route]
    change(monkeypatch)
    for kernel in (Additive(4, 2), RBF(4, 2), DotProduct(4, 2)):
        for base in (None, ((9, 2, 3), 100.0)):
            expected = small_gradients(kernel, "eager", torch.float64, None, 0.0, dtype, (1.0, 0.03))
            found = small_gradients(kernel, backend, torch.float32, base, 0.0, dtype, (1.0, 0.03))
            assert worst(found[:1], expected[:1]) < 1e-3  # what is not of the values' type
