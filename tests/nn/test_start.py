import copy
import io
import pickle
import threading

import pytest
import torch
from torch_geometric.nn import GATConv
from torch_geometric.utils import add_self_loops, remove_self_loops

from kgat import KernelGAT, KernelGATConv, kernels
from kgat.experiments import processes
from kgat.nn import calibrate, start
from kgat.nn.start import named_scaled, parts

KERNELS = [
    name for name in kernels.names() if not kernels.resolve(name, 5)(*[torch.zeros(1, 1, 5)] * 2).signed
]
PRODUCTS = ["rbf*magnitude", "rbf+dot", "spectral*magnitude", "sinc*dot+laplace", "rbf*scaled_cosine"]


def test_which_kernels_have_no_scale_to_set():
    networks = {"Additive", "AdditiveV2", "GatedAdditive", "KANScore"}
    unscaled = {name for name in kernels.names() if not getattr(kernels, name).scalable}
    assert unscaled == networks | {"L2Distance", "LeakyCosine", "Constant"}


def graph(nodes=60, edges=300, features=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(nodes, features, generator=generator)
    return x, torch.randint(nodes, (2, edges), generator=generator)


def made(kernel="rbf", out_channels=5, heads=3, in_channels=7, **kwargs):
    torch.manual_seed(0)
    return KernelGATConv(in_channels, out_channels, heads, kernel=kernel, **{"start": "unit", **kwargs})


def scores(conv, x, edge_index):
    # As the layer sees them, in evaluation: with a loop per node.
    conv.eval()
    nodes = x.size(0)
    col, row = add_self_loops(remove_self_loops(edge_index)[0], num_nodes=nodes)[0]
    with torch.no_grad():
        query, key, _ = conv.project(x)
        return conv.kernel(query, key).at(row, col)


def scales(module):
    return {name: value for name, value in module.state_dict().items() if name.endswith("input_scale")}


# What is reached


@pytest.mark.parametrize("kernel", [*KERNELS, *PRODUCTS])
def test_scores_start_with_a_deviation_of_one(kernel):
    x, edge_index = graph()
    for size, dtype in ((1e-3, torch.float64), (1.0, torch.float32), (1e2, torch.float32)):
        y = size * x.to(dtype)
        conv = made(kernel, backend="eager").to(dtype)
        if not conv.kernel.scalable:
            before = conv(y, edge_index)
            assert not scales(conv)
            plain = made(kernel, start=None, backend="eager").to(dtype)
            assert torch.equal(before, plain(y, edge_index))
            continue
        conv.eval()(y, edge_index)
        deviation = scores(conv, y, edge_index).std(dim=0, unbiased=False)
        assert ((deviation - 1.0).abs() < 0.08).all(), (size, deviation)


@pytest.mark.parametrize("kernel", ["rbf", "laplace", "spectral", "additive*rbf", "rbf|laplace", "rbf*dot"])
def test_a_start_by_the_median(kernel):
    x, edge_index = graph(edges=50)  # more loops than edges, of which the median would be zero
    conv = made(kernel, start="median", backend="eager")
    conv.eval()(50.0 * x, edge_index)
    query, key, _ = conv.project(50.0 * x)
    for part in conv.kernel.parts if "*" in kernel else [conv.kernel]:
        if part.scalable and not part.translation_invariant:
            assert (part.input_scale == 1.0).all()
        elif part.scalable or "|" in kernel:
            median = part(query, key).at(*edge_index.flip(0)).median(dim=0).values
            assert median.tolist() == pytest.approx([-0.5] * 3, abs=0.03)


def test_the_median_distance_is_the_lengthscale_by_hand():
    conv = KernelGATConv(1, 1, kernel="rbf", kernel_kwargs={"lengthscale": 3.0}, start="median", bias=False)
    torch.nn.init.ones_(conv.lin.weight)
    x = torch.tensor([[0.0], [1.0], [6.0], [13.0]])  # distances 1, 5 and 7 beside the loops
    conv(x, torch.tensor([[0, 1, 2], [1, 2, 3]]))
    assert 3.0 / float(conv.kernel.input_scale) == pytest.approx(5.0, rel=0.02)


def test_a_start_by_the_median_leaves_what_has_no_distance():
    conv = made("dot", start="median")
    conv(*graph())
    assert (conv.kernel.input_scale == 1.0).all()  # set, so that no pass tries again


@pytest.mark.parametrize(
    "changes",
    [
        {"out_channels": 32, "heads": 1},
        {"out_channels": 1, "heads": 8},
        {"projections": "separate"},
        {"projections": "shared_qk", "projection_bias": True},
        {"magnitude": 1.0},
        {"magnitude": "learned"},
    ],
    ids=str,
)
def test_whatever_width_heads_projections_and_magnitude(changes):
    x, edge_index = graph()
    conv = made(**changes)
    calibrate(conv, 50.0 * x, edge_index)
    deviation = scores(conv, 50.0 * x, edge_index).std(dim=0, unbiased=False)
    assert ((deviation - 1.0).abs() < 0.05).all()


def test_every_factor_has_its_share():
    # The L1 magnitude of wide heads alone would be a hundred times the RBF.
    x, edge_index = graph()
    conv = made(out_channels=64, heads=1, magnitude=1.0)
    calibrate(conv, x, edge_index)
    query, key, _ = conv.project(x)
    row, col = edge_index
    each = [float(part(query, key).at(row, col).detach().std()) for part in conv.kernel.parts]
    assert max(each) < 3 * min(each)


def test_scales_by_hand():
    # With l = 1 scores are -s^2 |q - k|^2 / 2: -2 s^2 on the one edge and 0 on both loops.
    conv = KernelGATConv(1, 1, kernel="rbf", kernel_kwargs={"lengthscale": 1.0}, start="unit", bias=False)
    torch.nn.init.ones_(conv.lin.weight)
    x = torch.tensor([[0.0], [2.0]])
    conv(x, torch.tensor([[0], [1]]))
    s = float(conv.kernel.input_scale)
    deviation = torch.tensor([-2.0 * s**2, 0.0, 0.0]).std(unbiased=False)
    assert float(deviation) == pytest.approx(1.0, abs=0.03)
    assert s == pytest.approx(2.0 ** (1 / 32), rel=1e-6)


def test_a_bounded_kernel_reaches_what_it_can():
    x, edge_index = graph()
    conv = made("periodic", kernel_kwargs={"lengthscale": 30.0})
    calibrate(conv, x, edge_index)
    reached = scores(conv, x, edge_index).std(dim=0, unbiased=False)
    for factor in (0.25, 0.5, 2.0, 4.0):
        other = copy.deepcopy(conv)
        other.kernel.input_scale = conv.kernel.input_scale * factor
        assert (scores(other, x, edge_index).std(dim=0, unbiased=False) < 1.1 * reached).all()
    cosine = made("scaled_cosine")
    calibrate(cosine, x, edge_index)
    assert (cosine.kernel.input_scale == 1.0).all()
    assert (cosine.kernel.beta > 1.0).all()


def test_edge_vectors_and_positions_are_part_of_it():
    x, edge_index = graph()
    attr, position = torch.randn(300, 2), torch.randn(60, 4)
    for mode in ("key", "key_value", "score"):
        conv = made(edge_dim=2, edge_mode=mode, position_dim=4, add_self_loops=False)
        conv(1e-2 * x, edge_index, attr, position=position)
        assert set(scales(conv)) == {"kernel.input_scale", "position_kernel.input_scale"}
        with torch.no_grad():
            query, key, _ = conv.project(1e-2 * x)
            col, row = edge_index
            key = key[col]
            if mode != "score":
                key = key + conv.lin_edge(attr).view(-1, 3, 5)
            t = conv.lin_position(position).view(-1, 3, 5)
            total = conv.kernel(query[row], key).paired() + conv.position_kernel(t[row], t[col]).paired()
        assert ((total.std(dim=0, unbiased=False) - 1.0).abs() < 0.05).all()


def test_every_layer_of_a_model_in_its_first_pass():
    x, edge_index = graph()
    model = KernelGAT(7, 12, 3, 4, heads=3, kernel="rbf", start="unit", norm="batch_norm", dropout=0.0)
    inputs = []
    for conv in model.convs:
        conv.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    model(1e-3 * x, edge_index)
    for conv, given in zip(model.convs, inputs, strict=True):
        deviation = scores(conv, given, edge_index).std(dim=0, unbiased=False)
        assert ((deviation - 1.0).abs() < 0.05).all()


# That it is set once, and only where it should be


def test_off_is_what_was_before():
    x, edge_index = graph()
    for kernel in ("rbf", "spectral", "dot_product"):
        plain, unit = made(kernel, start=None), made(kernel)
        assert list(plain.state_dict()) == [name for name in unit.state_dict() if "input_scale" not in name]
        out = plain(x, edge_index)
        assert not scales(plain)
        unit.kernel.input_scale = torch.ones(3, 1)
        assert torch.equal(unit(x, edge_index), out)


def test_set_once_and_left_alone():
    x, edge_index = graph()
    conv = made(dropout=0.5)
    conv(x, edge_index)
    state = copy.deepcopy(conv.state_dict())
    conv(100.0 * x, edge_index)
    conv.eval()(x[:10], edge_index % 10)
    assert all(torch.equal(state[name], value) for name, value in conv.state_dict().items())
    calibrate(conv, 100.0 * x, edge_index)
    assert torch.allclose(conv.kernel.input_scale * 100.0, state["kernel.input_scale"], rtol=0.05)
    conv.reset_parameters()
    assert conv.kernel.input_scale is None


def test_no_numbers_are_drawn_and_no_mode_is_changed():
    x, edge_index = graph()
    for kernel in ("implicit_spectral", "rbf"):
        conv = made(kernel)
        conv.kernel.train()
        torch.manual_seed(3)
        conv.eval()
        conv.kernel.train()
        query, key, _ = conv.project(x)
        state = torch.get_rng_state()
        start.fit(conv, query, key, tuple(edge_index))
        assert torch.equal(torch.get_rng_state(), state)
        assert conv.kernel.training
        assert not conv.training
        assert conv.kernel.input_scale is not None


def test_hooks_of_kernels_count_one_pass():
    x, edge_index = graph()
    conv = made("rbf*magnitude")
    calls = []
    for module in conv.kernel.modules():
        module.register_forward_hook(lambda *_: calls.append(1))
    conv(x, edge_index)
    first = len(calls)
    conv(x, edge_index)
    assert len(calls) == 2 * first


@pytest.mark.parametrize("kernel", ["rbf", "dot_product", "spectral", "scaled_cosine", "magnitude"])
def test_open_until_there_is_something_to_see(kernel):
    x, edge_index = graph()
    for given, edges in (
        (x, edge_index[:, :0]),
        (x[:0], edge_index[:, :0]),
        (torch.ones_like(x), edge_index),
        (torch.ones_like(x) / 3 + 3e-8 * x, edge_index),  # alike but for rounding
        (torch.zeros_like(x), edge_index),
        (torch.full_like(x, torch.nan), edge_index),
    ):
        conv = made(kernel, add_self_loops=False)
        conv(given, edges)
        assert conv.kernel.input_scale is None
        with pytest.raises(ValueError, match=r"Expected edges whose scores differ .got none in layer"):
            calibrate(conv, given, edges)
        conv(x, edge_index)
        assert conv.kernel.input_scale is not None


def test_bad_features_of_a_node_do_not_spread():
    x, edge_index = graph()
    whole = made()
    kept = (edge_index != 3).all(dim=0)
    calibrate(whole, x, edge_index[:, kept])
    for bad in (torch.nan, torch.inf):
        y = x.clone()
        y[3] = bad
        conv = made()
        conv(y, edge_index)
        # The loop of the bad node is left out as well, which the good graph has.
        assert torch.allclose(conv.kernel.input_scale, whole.kernel.input_scale, rtol=0.05)


def test_same_on_every_backend_and_for_any_order_of_edges():
    x, edge_index = graph()
    found = []
    for backend in (None, "eager"):
        for order in (slice(None), torch.randperm(300)):
            conv = made(backend=backend)
            conv(x, edge_index[:, order])
            found.append(conv.kernel.input_scale)
    conv = made()
    conv(x, edge_index, return_attention_weights=True)
    assert all(torch.equal(scale, found[0]) for scale in [*found, conv.kernel.input_scale])


def test_many_edges_are_sampled(monkeypatch):
    x, edge_index = graph(edges=30_000)
    full = made()
    calibrate(full, x, edge_index)
    monkeypatch.setattr(start, "ELEMENTS", 1)
    sampled = [made() for _ in range(2)]
    for conv in sampled:
        calibrate(conv, x, edge_index)
    assert torch.equal(sampled[0].kernel.input_scale, sampled[1].kernel.input_scale)
    assert torch.allclose(sampled[0].kernel.input_scale, full.kernel.input_scale, rtol=0.1)


def test_additive_layers_stay_drop_ins():
    x, edge_index = graph()
    torch.manual_seed(0)
    stock = GATConv(7, 5, 3)
    conv = KernelGATConv.from_gat(stock, start="unit")
    assert torch.equal(conv(x, edge_index), KernelGATConv.from_gat(stock)(x, edge_index))
    assert set(conv.state_dict()) == set(KernelGATConv(7, 5, 3).state_dict())
    with pytest.raises(ValueError, match=r"'start' as one of None, 'unit', 'median' .got 'one'."):
        KernelGATConv(7, 5, start="one")
    with pytest.raises(
        ValueError, match=r"Expected a layer with start='unit' or 'median' .got none in 'GATConv'."
    ):
        calibrate(stock, x, edge_index)


def test_gradients_are_those_of_scaled_inputs():
    x, edge_index = graph()
    conv = made("rbf*magnitude").double()
    x = x.double().requires_grad_()
    conv(x, edge_index)
    own = {part: part.input_scale for part in parts(conv.kernel)}
    (d_fused,) = torch.autograd.grad(conv(x, edge_index).square().sum(), x)
    conv.backend = "eager"
    (d_eager,) = torch.autograd.grad(conv(x, edge_index).square().sum(), x)
    assert torch.allclose(d_fused, d_eager)
    assert torch.autograd.gradcheck(lambda x: conv(x, edge_index[:, :9] % 4), x[:4].detach().requires_grad_())
    assert all(part.input_scale is scale for part, scale in own.items())


# State


def test_state_dict_carries_the_scales():
    x, edge_index = graph()
    conv = made("rbf*magnitude", in_channels=7)
    conv(1e-2 * x, edge_index)
    buffer = io.BytesIO()
    torch.save(conv.state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    for other in (made("rbf*magnitude"), made("rbf*magnitude", start=None)):
        other.load_state_dict(state)
        assert torch.equal(other(x, edge_index), conv(x, edge_index))  # no new fit on data of another scale
        assert all(torch.equal(value, scales(conv)[name]) for name, value in scales(other).items())
        assert len(scales(other)) == 2


def test_an_open_layer_is_saved_as_open():
    x, edge_index = graph()
    for other in (made(), made()):
        if other is not None:
            other(x, edge_index)
        other.load_state_dict(made().state_dict())
        assert other.kernel.input_scale is None
    plain = made(start=None)
    plain.load_state_dict(made().state_dict())
    assert not scales(plain)


def test_weights_that_were_trained_without_a_start_stay_what_they_are():
    x, edge_index = graph()
    plain = made(start=None)
    conv = made()
    conv.load_state_dict(plain.state_dict())
    assert torch.equal(conv(x, edge_index), plain(x, edge_index))
    assert torch.equal(conv.kernel.input_scale, torch.ones(3, 1))


def test_a_model_restores_the_weights_that_it_kept():
    x, edge_index = graph()
    model = KernelGAT(7, 12, 2, 4, heads=3, kernel="rbf", start="unit")
    before = model.state_dict()
    model(x, edge_index)
    after = {name: value.clone() for name, value in model.state_dict().items()}
    again = KernelGAT(7, 12, 2, 4, heads=3, kernel="rbf", start="unit")
    again.load_state_dict(after)
    assert torch.equal(again(100.0 * x, edge_index), model(100.0 * x, edge_index))
    model.load_state_dict(before)
    assert all(conv.kernel.input_scale is None for conv in model.convs)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda conv: pickle.loads(pickle.dumps(conv))])
def test_copies_have_scales_of_their_own(copied):
    x, edge_index = graph()
    conv = made()
    unfitted = copied(conv)
    conv(x, edge_index)
    twin = copied(conv)
    assert unfitted.kernel.input_scale is None
    assert torch.equal(twin.kernel.input_scale, conv.kernel.input_scale)
    calibrate(twin, 10.0 * x, edge_index)
    assert not torch.equal(twin.kernel.input_scale, conv.kernel.input_scale)


def test_moves_with_the_module():
    x, edge_index = graph()
    conv = made()
    conv(x, edge_index)
    assert conv.double().kernel.input_scale.dtype == torch.float64
    assert conv(x.double(), edge_index).dtype == torch.float64
    half = made().bfloat16()
    assert half(x.bfloat16(), edge_index).dtype == torch.bfloat16
    assert half.kernel.input_scale.dtype == torch.float32


# Threads, processes, compilers


def test_threads_set_it_once():
    x, edge_index = graph()
    conv = made("spectral*magnitude").eval()
    alone = made("spectral*magnitude").eval()
    expected = alone(x, edge_index)
    outs, ready = [], threading.Barrier(4)

    def work():
        ready.wait()
        outs.append(conv(x, edge_index))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outs) == 4
    assert all(torch.equal(out, expected) for out in outs)


def test_inference_mode_then_training():
    x, edge_index = graph()
    conv = made()
    with torch.inference_mode():
        conv(x, edge_index)
    conv(x, edge_index).sum().backward()
    assert conv.lin.weight.grad is not None


def test_a_first_pass_without_edges_can_still_be_differentiated():
    x, edge_index = graph()
    conv = made(add_self_loops=False, residual=True)
    (conv(x, edge_index[:, :0]).sum() + conv(x, edge_index).sum()).backward()
    assert conv.lin.weight.grad.isfinite().all()


def test_functional_calls_keep_the_scales():
    x, edge_index = graph()
    conv = made()
    weights = {name: 10.0 * value.detach() for name, value in conv.named_parameters()}
    first = torch.func.functional_call(conv, weights, (x, edge_index))
    assert conv.kernel.input_scale is not None
    assert torch.equal(first, torch.func.functional_call(conv, weights, (x, edge_index)))


def _export(conv, x, edge_index):
    torch.export.export(conv, (x, edge_index))


def _compile(conv, x, edge_index):
    torch.compile(conv, fullgraph=True, backend="eager")(x, edge_index)


def _trace(conv, x, edge_index):
    torch.jit.trace(conv, (x, edge_index), check_trace=False)


def _grad(conv, x, edge_index):
    def loss(weights):
        return torch.func.functional_call(conv, weights, (x, edge_index)).square().sum()

    torch.func.grad(loss)(dict(conv.named_parameters()))


def _vmap(conv, x, edge_index):
    torch.func.vmap(lambda x: conv(x, edge_index))(torch.stack([x, x]))


@pytest.mark.parametrize("captured", [_export, _compile, _trace, _grad, _vmap])
def test_a_graph_is_not_made_of_an_open_layer(captured):
    x, edge_index = graph()
    conv = made()
    with pytest.raises(Exception, match=r"call kgat.nn.calibrate\(model, x, edge_index\) once before"):
        captured(conv, x, edge_index)
    assert conv.kernel.input_scale is None
    calibrate(conv, x, edge_index)
    if captured is not _trace:
        captured(conv, x, edge_index)


def test_compiled_layers_have_the_scales():
    x, edge_index = graph()
    conv = made()
    calibrate(conv, x, edge_index)
    compiled = torch.compile(conv, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(x, edge_index), conv(x, edge_index), atol=1e-6)


def test_a_replica_does_not_set_scales_of_its_own():
    x, edge_index = graph()
    conv = made()
    conv._is_replica = True
    with pytest.raises(RuntimeError, match=r"Expected a layer whose scores have their start"):
        conv(x, edge_index)


def _join(rank, path, queue):
    torch.distributed.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    x, edge_index = graph(seed=rank)
    # The first process may have what the second has not, and the other way round.
    for sizes in ((1.0, 100.0), (1.0, 0.0), (0.0, 1.0)):
        conv = made()
        conv(sizes[rank] * x, edge_index)
        scale = conv.kernel.input_scale
        queue.put((sizes, rank, None if scale is None else scale.tolist()))
    queue.close()
    queue.join_thread()
    torch.distributed.destroy_process_group()


def test_processes_take_the_scales_of_the_first(tmp_path):
    processes.start_server()
    context = torch.multiprocessing.get_context("forkserver" if processes.FORKS else "spawn")
    queue = context.Queue()
    joined = [context.Process(target=_join, args=(rank, tmp_path / "store", queue)) for rank in range(2)]
    for process in joined:
        process.start()
    found = {}
    for _ in range(6):
        sizes, rank, scale = queue.get(timeout=120)
        found.setdefault(sizes, {})[rank] = scale
    for process in joined:
        process.join()
        assert process.exitcode == 0
    assert all(pair[0] == pair[1] for pair in found.values())
    assert [found[sizes][1] is None for sizes in ((1.0, 100.0), (1.0, 0.0), (0.0, 1.0))] == [
        False,
        False,
        True,
    ]


def test_names_are_those_of_the_state_dict():
    conv = made("rbf*magnitude", position_dim=4)
    assert list(named_scaled(conv)) == ["kernel.kernels.0", "kernel.kernels.1", "position_kernel"]
    assert set(scales(conv)) == {f"{name}.input_scale" for name in named_scaled(conv)}


@pytest.mark.parametrize("edges", [100, 20_000], ids=["all", "sampled"])
def test_edges_are_looked_at_whatever_the_default_device_is(edges):
    generator = torch.Generator().manual_seed(0)
    x, edge_index = (
        torch.randn(300, 5, generator=generator),
        torch.randint(300, (2, edges), generator=generator),
    )
    conv = KernelGATConv(5, 64, heads=8, kernel="rbf", start="unit")
    other = copy.deepcopy(conv)
    expected = conv(x, edge_index)
    with torch.device("meta"):
        torch.testing.assert_close(other(x, edge_index), expected)


class OfDistances(kernels.ScaledCosine):
    def score(self, query, key):
        return -(query - key).abs().sum(dim=-1)


def test_another_score_of_a_class_with_a_scale_of_its_own_is_scaled():
    x, edge_index = torch.randn(50, 5), torch.randint(50, (2, 400))
    conv = KernelGATConv(5, 8, heads=2, kernel=OfDistances, start="unit", add_self_loops=False)
    conv(x, edge_index)
    query, key, _ = conv.project(x)
    score = conv.kernel(query, key).at(edge_index[1], edge_index[0])
    torch.testing.assert_close(score.std(dim=0), torch.ones(2), atol=0.1, rtol=0.0)
