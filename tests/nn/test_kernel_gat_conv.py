r"""KernelGATConv against PyG's own layers, under every transform and format that those support."""

import copy
import functools
import io
import warnings
from types import MethodType

import pytest
import torch
import torch.nn.utils.prune
from torch_geometric import EdgeIndex
from torch_geometric.explain import (
    AttentionExplainer,
    Explainer,
    GNNExplainer,
    ModelConfig,
)
from torch_geometric.explain.algorithm.utils import set_masks
from torch_geometric.nn import (
    AGNNConv,
    GATConv,
    GATv2Conv,
    HeteroConv,
    TransformerConv,
    to_hetero,
)
from torch_geometric.utils import to_torch_coo_tensor, to_torch_csr_tensor

from kgat import KernelGATConv, functional, kernels
from kgat.kernels import RBF, Additive, DotProduct, Magnitude
from kgat.ops import fused
from kgat.positions import SymmetricProduct, full, sinusoids, visible_edges

X = torch.randn(6, 16, generator=torch.Generator().manual_seed(0))
# A given loop (3, 3), duplicates of (0, 1), node 5 isolated, unsorted.
EDGES = torch.tensor([[0, 1, 2, 3, 3, 0, 0, 4], [1, 2, 0, 3, 1, 1, 1, 0]])
ATTR = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
SCORED = [name for name in kernels.names() if name not in {"Cosine", "Linear", "RandomFourier", "RFA"}]


def assert_same_layer(ours, stock, x, edge_index, *args, **kwargs):
    r"""Values, attention weights and the gradients of inputs and of all parameters."""
    inputs = x if isinstance(x, tuple) else (x,)
    inputs = [None if t is None else t.clone().requires_grad_() for t in inputs]
    given = tuple(inputs) if isinstance(x, tuple) else inputs[0]
    results = []
    for layer in (ours, stock):
        out = layer(given, edge_index, *args, **kwargs)
        slope = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
        wanted = [t for t in inputs if t is not None]
        grads = torch.autograd.grad((out * slope).sum(), wanted, retain_graph=True)
        layer.zero_grad()
        (out * slope).sum().backward()
        results.append((out, *grads))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)
    copied = copy.deepcopy(ours)  # a stock layer's gradients, under our names, through our own loading
    state = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in stock.named_parameters()}
    copied.load_state_dict(state)
    for (name, p), expected in zip(ours.named_parameters(), copied.parameters(), strict=True):
        found = torch.zeros_like(p) if p.grad is None else p.grad
        torch.testing.assert_close(found, expected, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"concat": False},
        {"residual": True},
        {"residual": True, "concat": False},
        {"add_self_loops": False},
        {"edge_dim": 3},
        {"edge_dim": 3, "fill_value": 1.0},
        {"edge_dim": 3, "fill_value": "max"},
        {"edge_dim": 3, "add_self_loops": False},
        {"bias": False},
        {"negative_slope": 0.3},
        {"flow": "target_to_source"},
    ],
    ids=str,
)
def test_additive_is_gat_conv(options, dtype):
    torch.manual_seed(0)
    stock = GATConv(16, 5, heads=3, **options).to(dtype)
    ours = KernelGATConv.from_gat(stock)
    args = (ATTR.to(dtype),) if "edge_dim" in options else ()
    assert_same_layer(ours, stock, X.to(dtype), EDGES, *args)
    for found, expected in zip(
        ours(X.to(dtype), EDGES, *args, return_attention_weights=True)[1],
        stock(X.to(dtype), EDGES, *args, return_attention_weights=True)[1],
        strict=True,
    ):
        torch.testing.assert_close(found, expected)


def test_bipartite_is_gat_conv():
    torch.manual_seed(0)
    stock = GATConv((16, 7), 5, heads=3)
    ours = KernelGATConv.from_gat(stock)
    x = (X, torch.randn(4, 7))
    edges = torch.tensor([[0, 1, 5, 3], [0, 3, 3, 1]])
    assert_same_layer(ours, stock, x, edges)
    assert_same_layer(ours, stock, (X, None), edges, size=(6, 4))
    shared = GATConv(16, 5, heads=3)
    assert_same_layer(KernelGATConv.from_gat(shared), shared, (X, X[:4]), edges)


def test_weights_of_gat_conv_beside_places():
    torch.manual_seed(0)
    stock = GATConv(16, 5, heads=3)
    ours = KernelGATConv.from_gat(stock, position_dim=4, position_kernel="rbf")
    nowhere = torch.zeros(6, 4)  # one place for all multiplies the kernel by 1
    torch.testing.assert_close(ours(X, EDGES, position=nowhere), stock(X, EDGES))
    assert not torch.allclose(ours(X, EDGES, position=torch.randn(6, 4)), stock(X, EDGES))
    with pytest.raises(RuntimeError, match=r"lin_query\.weight"):  # all else still has to fit
        KernelGATConv.from_gat(stock, position_dim=4, projections="separate")


def test_plain_input_with_a_pair_of_channels():
    torch.manual_seed(0)
    stock = GATConv((16, 16), 5, heads=3)
    assert_same_layer(KernelGATConv.from_gat(stock), stock, X, EDGES)


@pytest.mark.parametrize("edge_dim", [None, 3])
def test_additive_v2_is_gatv2_conv(edge_dim):
    torch.manual_seed(0)
    stock = GATv2Conv(16, 5, heads=3, edge_dim=edge_dim)
    ours = KernelGATConv(
        *(16, 5, 3),
        kernel="additive_v2",
        projections="shared_kv",
        projection_bias=True,
        edge_dim=edge_dim,
        edge_mode="key",
    )
    ours.load_state_dict(stock.state_dict())
    assert_same_layer(ours, stock, X, EDGES, *(() if edge_dim is None else (ATTR,)))


@pytest.mark.parametrize("edge_dim", [None, 3])
def test_dot_product_is_transformer_conv(edge_dim):
    torch.manual_seed(0)
    stock = TransformerConv(16, 5, heads=3, edge_dim=edge_dim)
    ours = KernelGATConv(
        *(16, 5, 3),
        add_self_loops=False,
        kernel="dot_product",
        projections="separate",
        projection_bias=True,
        residual=True,
        edge_dim=edge_dim,
        edge_mode="key_value",
    )
    ours.load_state_dict(stock.state_dict())
    assert_same_layer(ours, stock, X, EDGES, *(() if edge_dim is None else (ATTR,)))


def test_scaled_cosine_is_agnn_conv():
    stock = AGNNConv()
    ours = KernelGATConv(16, 16, bias=False, kernel="scaled_cosine")
    ours.lin.weight.data = torch.eye(16)
    with torch.no_grad():
        stock.beta.fill_(1.7)
        ours.kernel.beta.fill_(1.7)
    x, y = X.clone().requires_grad_(), X.clone().requires_grad_()
    out, expected = ours(x, EDGES), stock(y, EDGES)
    torch.testing.assert_close(out, expected)
    out.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(ours.kernel.beta.grad.flatten(), stock.beta.grad)


def test_checkpoints_of_older_pyg_load():
    stock = GATConv(16, 5, heads=3)
    state = stock.state_dict()
    state["lin_src.weight"] = state.pop("lin.weight")  # as PyG 2.4 saved it
    ours = KernelGATConv(16, 5, heads=3)
    ours.load_state_dict(state)
    torch.testing.assert_close(ours(X, EDGES), stock(X, EDGES))


def test_own_state_dict_round_trip():
    layer = KernelGATConv(16, 5, 3, kernel="additive", magnitude="learned", residual=True)
    other = KernelGATConv(16, 5, 3, kernel="additive", magnitude="learned", residual=True)
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(layer(X, EDGES), other(X, EDGES))


@pytest.mark.parametrize("name", SCORED)
def test_every_kernel_makes_a_layer(name):
    torch.manual_seed(0)
    layer = KernelGATConv(16, 5, heads=3, kernel=name, magnitude=1.5, projections="separate")
    layer.eval()  # in training some kernels are drawn
    out, (edge_index, alpha) = layer(X, EDGES, return_attention_weights=True)
    assert out.isfinite().all()
    sums = torch.zeros(6, 3).index_add(0, edge_index[1], alpha)
    torch.testing.assert_close(sums, torch.ones(6, 3))
    torch.testing.assert_close(layer(X, EDGES), out, rtol=1e-4, atol=1e-5)  # both routes
    layer(X, EDGES).sum().backward()
    for parameter in layer.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


@pytest.mark.parametrize("name", sorted(set(kernels.names()) - set(SCORED)))
def test_kernels_that_can_be_negative_refuse_edges(name):
    layer = KernelGATConv(16, 5, heads=3, kernel=name)
    with pytest.raises(NotImplementedError, match="non-negative kernel"):
        layer(X, EDGES)


@pytest.mark.parametrize("projections", ["shared", "shared_qk", "shared_kv", "separate"])
def test_layer_is_the_formula(projections):
    torch.manual_seed(0)
    layer = KernelGATConv(16, 5, heads=3, kernel="rbf", projections=projections).double()
    x = X.double()
    query, key, value = layer.project(x)
    score = layer.kernel(query, key).dense()  # [N, N, H]
    count = torch.zeros(6, 6, 1, dtype=torch.float64)
    for j, i in EDGES.t().tolist():
        count[i, j] += i != j
    count += torch.eye(6)[..., None]
    weight = count * score.exp()
    expected = torch.einsum("nmh,mhc->nhc", weight / weight.sum(1, keepdim=True), value)
    torch.testing.assert_close(layer(x, EDGES), expected.reshape(6, 15) + layer.bias)
    owned = {name.split(".")[0] for name, _ in layer.named_parameters() if name.startswith("lin")}
    assert (
        owned
        == {
            "shared": {"lin"},
            "shared_qk": {"lin_query", "lin_value"},
            "shared_kv": {"lin_query", "lin_key"},
            "separate": {"lin_query", "lin_key", "lin_value"},
        }[projections]
    )


def test_shared_queries_and_keys_make_symmetric_scores():
    layer = KernelGATConv(16, 5, heads=3, kernel="rbf", projections="shared_qk")
    query, key, _ = layer.project(X)
    dense = layer.kernel(query, key).dense()
    torch.testing.assert_close(dense, dense.transpose(0, 1))


def test_magnitude_multiplies():
    layer = KernelGATConv(16, 5, heads=3, kernel="rbf", magnitude=2)
    dot = KernelGATConv(16, 5, heads=3, kernel="dot_product")
    dot.lin.weight = layer.lin.weight
    torch.testing.assert_close(layer(X, EDGES), dot(X, EDGES))  # exp-dot = RBF x L2 magnitude
    learned = KernelGATConv(16, 5, heads=3, kernel="rbf", magnitude="learned")
    learned(X, EDGES).square().sum().backward()
    assert learned.kernel.kernels[1].rho.grad.abs().sum() > 0


@pytest.mark.parametrize("mode", ["kernel", "alpha"])
@pytest.mark.parametrize("kernel", ["additive", "additive_v2", "rbf"])
def test_edge_weights(mode, kernel):
    layer = KernelGATConv(16, 5, heads=3, kernel=kernel, add_self_loops=False, weight_mode=mode)
    # A weight of 2 in the kernel is the edge twice; a weight of 0 is no edge.
    single = torch.tensor([[0, 2, 3], [1, 1, 1]])
    double = torch.tensor([[0, 0, 2], [1, 1, 1]])
    weight = torch.tensor([2.0, 1.0, 0.0], requires_grad=True)
    out, (_, alpha) = layer(X, single, edge_weight=weight, return_attention_weights=True)
    torch.testing.assert_close(layer(X, single, edge_weight=weight), out)
    if mode == "kernel":
        torch.testing.assert_close(out, layer(X, double))
        torch.testing.assert_close(alpha[2], torch.zeros(3))
    else:
        query, key, value = layer.project(X)
        plain = layer.kernel(query, key).dense()[1, [0, 2, 3]].softmax(0)
        expected = (weight[:, None, None] * plain[..., None] * value[[0, 2, 3]]).sum(0)
        torch.testing.assert_close(out[1], expected.flatten())
        torch.testing.assert_close(alpha, plain)
    out.sum().backward()
    assert weight.grad.isfinite().all()


@pytest.mark.parametrize("weighted", [False, True])
def test_recorded_step_adds_self_loops_without_counting_edges(monkeypatch, weighted):
    x, edge_index = torch.randn(4, 3), torch.tensor([[0, 1, 1, 2], [1, 1, 0, 3]])
    weight = torch.rand(4) if weighted else None
    conv = KernelGATConv(3, 2, heads=2)
    expected = conv(x, edge_index, edge_weight=weight)
    monkeypatch.setattr("kgat.nn.kernel_gat_conv.recording", lambda device: True)
    monkeypatch.setattr("kgat.nn.edges._kept", None)  # which counts
    torch.testing.assert_close(conv(x, edge_index.clone(), edge_weight=weight), expected)


def test_self_loops_get_weight_one():
    layer = KernelGATConv(16, 5, kernel="rbf")
    weight = torch.ones(EDGES.size(1))
    torch.testing.assert_close(layer(X, EDGES, edge_weight=weight), layer(X, EDGES))
    weight[0] = 2.0  # the edge twice
    weight[3] = 5.0  # a given loop, which is replaced
    double = torch.cat([EDGES, EDGES[:, :1]], dim=1)
    torch.testing.assert_close(layer(X, EDGES, edge_weight=weight), layer(X, double))


@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("layout", ["csr", "coo"])
def test_sparse_adjacencies(layout, loops):
    torch.manual_seed(0)
    stock = GATConv(16, 5, heads=3, add_self_loops=loops)
    ours = KernelGATConv.from_gat(stock)
    edges = torch.tensor([[0, 1, 3, 2, 4], [0, 0, 1, 2, 2]])
    convert = to_torch_csr_tensor if layout == "csr" else to_torch_coo_tensor
    adjacency = convert(edges.flip(0), size=(6, 6))
    torch.testing.assert_close(ours(X, adjacency), ours(X, edges))
    (out, (adj, alpha)), (expected, (stock_adj, stock_alpha)) = (
        layer(X, adjacency, return_attention_weights=True) for layer in (ours, stock)
    )
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(alpha, stock_alpha)
    assert adj.layout == stock_adj.layout
    assert adj.shape == stock_adj.shape


def test_edge_index_class():
    layer = KernelGATConv(16, 5, heads=3, kernel="rbf")
    edges = EdgeIndex(EDGES, sparse_size=(6, 6))
    for order in ("row", "col"):
        torch.testing.assert_close(layer(X, edges.sort_by(order)[0]), layer(X, EDGES))


def test_sparse_features():
    x = X * (X > 0.8)
    layer = KernelGATConv(16, 5, heads=3, kernel="rbf", residual=True, projections="separate")
    torch.testing.assert_close(layer(x.to_sparse_csr(), EDGES), layer(x, EDGES))


def test_lazy_channels():
    layer = KernelGATConv(-1, 5, heads=3, kernel="rbf", residual=True, projections="separate")
    assert layer(X, EDGES).shape == (6, 15)
    layer = KernelGATConv((-1, -1), 5, kernel="rbf")
    assert layer((X, X[:3]), torch.tensor([[0, 5], [1, 2]])).shape == (3, 5)


def test_repr():
    assert repr(KernelGATConv(16, 5, heads=3)) == "KernelGATConv(16, 5, heads=3)"
    assert "RBF(5, heads=3)" in repr(KernelGATConv(16, 5, heads=3, kernel="rbf"))


@pytest.mark.parametrize("kernel", ["additive", "additive_v2", "rbf", "spectral", "sinc_product"])
def test_isolated_and_empty(kernel):
    torch.manual_seed(0)
    layer = KernelGATConv(16, 5, heads=3, kernel=kernel, add_self_loops=False, residual=True)
    torch.nn.init.normal_(layer.bias)
    out = layer(X, EDGES)
    torch.testing.assert_close(out[5], layer.bias + layer.res(X[5]))
    none = torch.empty(2, 0, dtype=torch.long)
    torch.testing.assert_close(layer(X, none), layer.bias + layer.res(X))
    assert layer(X[:0], none).shape == (0, 15)
    looped = KernelGATConv(16, 5, heads=3, kernel=kernel)
    assert looped(X[:0], none).shape == (0, 15)
    torch.testing.assert_close(looped(X, none), looped.project(X)[2].reshape(6, 15) + looped.bias)
    _, (_, alpha) = layer(X, none, return_attention_weights=True)
    assert alpha.shape == (0, 3)


def test_dropout_only_in_training():
    layer = KernelGATConv(16, 5, heads=3, kernel="rbf", dropout=0.6)
    assert not torch.equal(layer(X, EDGES), layer(X, EDGES))
    _, (_, alpha) = layer(X, EDGES, return_attention_weights=True)
    assert (alpha == 0).any()
    layer.eval()
    assert torch.equal(layer(X, EDGES), layer(X, EDGES))
    assert (layer(X, EDGES, return_attention_weights=True)[1][1] > 0).all()


def test_value_dropout_drops_values_but_not_scores():
    torch.manual_seed(0)
    net = KernelGATConv(16, 5, heads=3, kernel="rbf", value_dropout=0.5, bias=False)
    _, (_, alpha) = net(X, EDGES, return_attention_weights=True)
    torch.testing.assert_close(alpha, net.eval()(X, EDGES, return_attention_weights=True)[1][1])
    none = torch.empty(2, 0, dtype=torch.long)  # each node sees itself alone: its value comes out
    value = net.project(X)[2].reshape(6, 15)
    torch.testing.assert_close(net(X, none), value)
    ratio = net.train()(X, none) / value
    torch.testing.assert_close(ratio, ratio.round())
    assert set(ratio.round().flatten().tolist()) == {0.0, 2.0}


def test_other_aggregations():
    torch.manual_seed(0)
    stock = GATConv(16, 5, heads=3, aggr="max")
    assert_same_layer(KernelGATConv.from_gat(stock), stock, X, EDGES)


def test_overridden_message_and_hooks_are_called():
    class Doubled(KernelGATConv):
        def message(self, x_j, alpha, edge):
            return 2 * super().message(x_j, alpha, edge)

    plain = KernelGATConv(16, 5, bias=False, kernel="rbf")
    doubled = Doubled(16, 5, bias=False, kernel="rbf")
    doubled.load_state_dict(plain.state_dict())
    torch.testing.assert_close(doubled(X, EDGES), 2 * plain(X, EDGES))
    seen = []
    plain.register_message_forward_hook(lambda module, inputs, out: seen.append(inputs[0]["alpha"]))
    plain(X, EDGES)
    assert seen[0].shape == (13, 1)  # seven edges without the loop, six loops


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = KernelGATConv(16, 3, heads=2, concat=False, kernel="rbf", add_self_loops=False)

    def forward(self, x, edge_index):
        return self.conv(x, edge_index)


@pytest.mark.parametrize(
    "algorithm", [AttentionExplainer(), GNNExplainer(epochs=3)], ids=["attention", "gnn"]
)
def test_explainers(algorithm):
    explainer = Explainer(
        Net(),
        algorithm=algorithm,
        explanation_type="model",
        edge_mask_type="object",
        model_config=ModelConfig("multiclass_classification", "node", return_type="raw"),
    )
    explanation = explainer(X, EDGES)
    assert explanation.edge_mask.shape == (8,)
    assert explanation.edge_mask.isfinite().all()
    assert explanation.edge_mask.max() > 0


def test_hetero():
    edges = {
        ("a", "to", "b"): torch.tensor([[0, 5], [1, 2]]),
        ("b", "to", "b"): torch.tensor([[0], [2]]),
    }
    features = {"a": X, "b": torch.randn(3, 16)}
    conv = HeteroConv(
        {kind: KernelGATConv((-1, -1), 5, kernel="rbf", add_self_loops=kind[0] == kind[2]) for kind in edges}
    )
    assert conv(features, edges)["b"].shape == (3, 5)
    model = to_hetero(Net(), (["a", "b"], [*edges, ("b", "to", "a")]))
    edges["b", "to", "a"] = torch.tensor([[0], [2]])
    assert model(features, edges)["a"].shape == (6, 3)
    with pytest.raises(ValueError, match="add_self_loops"):
        HeteroConv({("a", "to", "b"): KernelGATConv((-1, -1), 5, kernel="rbf")})


@pytest.mark.parametrize("kernel", ["additive", "rbf", "spectral"])
def test_autocast(kernel):
    torch.manual_seed(0)
    layer = KernelGATConv(16, 8, heads=3, kernel=kernel)
    expected = layer(X, EDGES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(X, EDGES)
    torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.05)
    half = copy.deepcopy(layer).bfloat16()
    torch.testing.assert_close(half(X.bfloat16(), EDGES).float(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("kernel", ["additive", "additive_v2", "dot_product", "rbf", "spectral"])
def test_compile_fullgraph(kernel, loops):
    torch._dynamo.reset()
    layer = KernelGATConv(16, 5, heads=3, kernel=kernel, magnitude=1.5, add_self_loops=loops)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    for nodes in (6, 5, 4):
        x = X[:nodes].clone().requires_grad_()
        edges = EDGES[:, (nodes > EDGES).all(0)]
        expected = layer(x, edges)
        torch.testing.assert_close(compiled(x, edges), expected)
        found, wanted = (torch.autograd.grad(f(x, edges).square().sum(), x)[0] for f in (compiled, layer))
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("slope", [0.2, 0.0])
@pytest.mark.parametrize("edge_dim", [None, 3])
def test_gat_takes_its_one_pass_in_compiled_code_too(edge_dim, slope, monkeypatch):
    r"""Self-loops that are there are hidden inside of the LeakyReLU, as long as that keeps infinity."""
    layer = KernelGATConv(16, 5, heads=3, edge_dim=edge_dim, negative_slope=slope).double()
    edges = torch.cat([EDGES, torch.tensor([[1, 2], [1, 2]])], dim=1)
    attr = None if edge_dim is None else torch.randn(edges.size(1), edge_dim).double()
    expected = layer(X.double(), edges, attr)
    wanted = torch.autograd.grad(expected.square().sum(), tuple(layer.parameters()))
    recipes: list[str] = []
    attend = fused.passes.edge_attention
    monkeypatch.setattr(
        fused.passes, "edge_attention", lambda *args: recipes.append(args[-3]) or attend(*args)
    )
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    out = layer(X.double(), edges, attr)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(torch.autograd.grad(out.square().sum(), tuple(layer.parameters())), wanted)
    assert (recipes == ["|leaky_relu|0|0"]) == (slope > 0)


@pytest.mark.parametrize("kernel", ["additive", "rbf"])
def test_export_with_dynamic_sizes(kernel):
    layer = KernelGATConv(16, 5, heads=3, kernel=kernel, add_self_loops=False)
    nodes, edges = torch.export.Dim("nodes", min=2), torch.export.Dim("edges", min=2)
    program = torch.export.export(layer, (X, EDGES), dynamic_shapes=({0: nodes}, {1: edges}))
    x, edge_index = torch.randn(9, 16), torch.randint(0, 9, (2, 21))
    torch.testing.assert_close(program.module()(x, edge_index), layer(x, edge_index))


def test_trace():
    layer = KernelGATConv(16, 5, heads=3, kernel="rbf", add_self_loops=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(layer, (X, EDGES))
    torch.testing.assert_close(traced(X[:5] + 1, EDGES[:, :7]), layer(X[:5] + 1, EDGES[:, :7]))


def test_vmap_and_forward_mode():
    layer = KernelGATConv(16, 5, heads=3, kernel="rbf", magnitude=1.5).double()
    batch = torch.randn(4, 6, 16, dtype=torch.float64)
    found = torch.vmap(lambda x: layer(x, EDGES))(batch)
    torch.testing.assert_close(found, torch.stack([layer(x, EDGES) for x in batch]))
    x = X.double()
    _, tangent = torch.func.jvp(lambda x: layer(x, EDGES), (x,), (batch[0],))
    step = 1e-6
    numeric = (layer(x + step * batch[0], EDGES) - layer(x - step * batch[0], EDGES)) / (2 * step)
    torch.testing.assert_close(tangent, numeric, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kernel", ["additive_v2", "rbf", "spectral"])
def test_double_backward(kernel):
    torch.manual_seed(0)
    layer = KernelGATConv(4, 3, heads=2, kernel=kernel, magnitude=1.5).double()
    x = X[:, :4].double().requires_grad_()
    torch.autograd.gradcheck(lambda x: layer(x, EDGES), x)
    torch.autograd.gradgradcheck(lambda x: layer(x, EDGES), x)


def test_deterministic_mode():
    layer = KernelGATConv(16, 5, heads=3, kernel="rbf")
    torch.use_deterministic_algorithms(True)
    try:
        first, again = layer(X, EDGES), layer(X, EDGES)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(first, again)


def test_resetting_under_a_seed_repeats():
    layer = KernelGATConv(16, 5, heads=3, kernel="spectral", residual=True)
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        layer.reset_parameters()
        states.append({k: v.clone() for k, v in layer.state_dict().items()})
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_kernel_argument_takes_all_forms():
    for kernel in ("rbf", "RBF", RBF, lambda c, h: RBF(c, h), RBF(5, 3)):
        assert isinstance(KernelGATConv(16, 5, 3, kernel=kernel).kernel, RBF)
    layer = KernelGATConv(16, 5, 3, kernel="rbf", kernel_kwargs={"lengthscale": 3.0})
    assert layer.kernel.log_lengthscale.exp()[0].item() == pytest.approx(3.0)
    assert isinstance(KernelGATConv(16, 5, 3, kernel=Magnitude).kernel, Magnitude)


# --- Positions --------------------------------------------------------------------------------------------

PLACES = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))


def positioned(kernel, dtype=torch.float64, **kwargs):
    torch.manual_seed(0)
    return KernelGATConv(16, 5, 3, kernel=kernel, position_dim=4, **kwargs).to(dtype)


def explicit(net, x, edges, position):  # scores as the formula says, [E, H], and what they make of the values
    query, key, value = net.project(x)
    of_key, of_query = position if isinstance(position, tuple) else (position, position)
    t_key, t_query = (net.lin_position(t).view(-1, 3, 5) for t in (of_key, of_query))
    col, row = edges
    score = net.kernel(query, key).dense() + net.position_kernel(t_query, t_key).dense()
    alpha = functional.edge_softmax(score[row, col], row, query.size(0))
    out = torch.zeros_like(query).index_add(0, row, alpha.unsqueeze(-1) * value[col])
    return out.flatten(1) + net.bias


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("backend", [None, "eager", "cpu"])
@pytest.mark.parametrize("position_kernel", ["dot_product", "rbf", "laplace"])
@pytest.mark.parametrize("kernel", ["additive", "dot_product", "rbf", "laplace"])
def test_positions_are_the_explicit_scores(kernel, position_kernel, backend, dtype):
    kwargs = {"position_kernel": position_kernel, "backend": backend, "add_self_loops": False}
    net = positioned(kernel, dtype, projections="shared_qk", **kwargs)
    x, t = (y.to(dtype).requires_grad_() for y in (X.clone(), PLACES.clone()))
    out, expected = net(x, EDGES, position=t), explicit(net, x, EDGES, t)
    torch.testing.assert_close(out, expected)
    leaves = [x, t, *net.parameters()]
    slope = torch.linspace(-1, 1, out.numel(), dtype=dtype).view_as(out)
    found, wanted = (
        torch.autograd.grad((o * slope).sum(), leaves, allow_unused=True) for o in (out, expected)
    )
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    if backend is None:  # the route of messages
        torch.testing.assert_close(net(x, EDGES, position=t, return_attention_weights=True)[0], expected)


@pytest.mark.parametrize(
    ("kernel", "position_kernel"), [("dot_product", "dot_product"), ("rbf", "rbf"), ("laplace", "laplace")]
)
def test_two_kernels_alike_are_one_pass(kernel, position_kernel, monkeypatch):
    seen = []
    attention = functional.edge_attention
    monkeypatch.setattr(
        functional,
        "edge_attention",
        lambda gram, *args, **kwargs: seen.append(gram) or attention(gram, *args, **kwargs),
    )
    net = positioned(kernel, torch.float32, position_kernel=position_kernel, backend="cpu")
    net(X, EDGES, position=PLACES)
    assert len(seen[0].terms) == 1
    assert seen[0].terms[0].query.size(-1) == 10


def test_positions_of_sources_and_targets():
    torch.manual_seed(0)
    net = KernelGATConv((16, 7), 5, 3, kernel="rbf", position_dim=4, add_self_loops=False).double()
    x = X.double(), torch.randn(4, 7).double()
    t = PLACES.double(), torch.randn(4, 4).double()
    edges = torch.tensor([[0, 1, 5, 3], [0, 3, 3, 1]])
    expected = explicit(net, x, edges, t)
    torch.testing.assert_close(net(x, edges, position=t), expected)
    torch.testing.assert_close(net(x, edges, position=t, return_attention_weights=True)[0], expected)


@pytest.mark.parametrize("edge_mode", ["score", "key", "key_value"])
def test_positions_beside_edge_features(edge_mode):
    net = positioned("rbf", edge_dim=3, edge_mode=edge_mode, add_self_loops=False)
    x, t, attr = X.double(), PLACES.double(), ATTR.double()
    # Other places of the targets, so that the two sides are not the same.
    _, (_, alpha) = net(x, EDGES, attr, position=(t, t.flip(0)), return_attention_weights=True)
    with torch.no_grad():
        query, key, _ = net.project(x)
        t_key = net.lin_position(t).view(-1, 3, 5)
        edge = net.lin_edge(attr).view(-1, 3, 5)
        col, row = EDGES
        if edge_mode == "score":
            score = net.kernel(query, key).at(row, col) + (edge * net.att_edge).sum(-1)
        else:
            score = net.kernel(query[row], key[col] + edge).paired()
        score = score + torch.einsum("ehd,ehd->eh", t_key.flip(0)[row], t_key[col]) / 5**0.5
    torch.testing.assert_close(alpha, functional.edge_softmax(score, row, 6))


def test_complete_graph_is_the_symmetric_product_of_sequences():
    torch.manual_seed(0)
    net = KernelGATConv(
        *(16, 5, 3), kernel="dot_product", projections="shared_qk", position_dim=15, add_self_loops=False
    ).double()
    position = SymmetricProduct(15, 3).double()
    with torch.no_grad():
        position.lin_place.weight.copy_(net.lin_position.weight)
    x = X.double()
    out = net(x, visible_edges(full, 6, 6), position=sinusoids(range(6), 15, x))
    query, key, value = net.project(x)
    gram = DotProduct(5, 3)(query, key) * position.gram(range(6), range(6))
    torch.testing.assert_close(out, functional.dense_attention(gram, value).flatten(1) + net.bias)


def test_positions_of_nothing_and_under_transforms():
    net = positioned("dot_product", torch.float32)
    none = torch.empty(2, 0, dtype=torch.long)
    assert net(X[:0], none, position=PLACES[:0]).shape == (0, 15)
    expected = net(X, EDGES, position=PLACES)
    torch._dynamo.reset()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(X, EDGES, position=PLACES), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = net(X, EDGES, position=PLACES)
    torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.05)
    states = [net.lin_position.weight.detach().clone()]
    for _ in range(2):
        torch.manual_seed(3)
        net.reset_parameters()
        states.append(net.lin_position.weight.detach().clone())
    assert torch.equal(*states[1:])
    assert not torch.equal(*states[:2])


def test_a_position_kernel_is_reset_and_has_penalties():
    net = KernelGATConv(16, 5, 3, kernel="rbf", position_dim=4, position_kernel="implicit_spectral")
    assert net.penalised
    assert not KernelGATConv(16, 5, 3, kernel="rbf", position_dim=4).penalised
    losses = []
    net(X, EDGES, losses=losses, position=PLACES)
    assert len(losses) == 1
    rbf = KernelGATConv(16, 5, 3, position_dim=4, position_kernel="rbf")
    with torch.no_grad():
        rbf.position_kernel.log_lengthscale.zero_()
    rbf.reset_parameters()
    assert rbf.position_kernel.log_lengthscale.abs().min() > 0.1


def test_stock_weights_are_not_those_of_an_additive_position_kernel():
    stock = GATConv(16, 5, heads=3)
    ours = KernelGATConv(16, 5, heads=3, position_dim=4, position_kernel=Additive)
    missing = ours.load_state_dict(stock.state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert {name.split(".")[0] for name in missing.missing_keys} == {"lin_position", "position_kernel"}


def layer(**kwargs):
    return KernelGATConv(16, 5, heads=3, **kwargs)


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (
            lambda: layer()(X, EDGES, ATTR),
            ValueError,
            r"no 'edge_attr' because 'edge_dim=None' \(got \[8, 3\]\); build the layer with 'edge_dim=3'",
        ),
        (lambda: layer(edge_dim=2)(X, EDGES, ATTR), ValueError, r"'edge_attr' of shape \[E=8, 2\]"),
        (
            lambda: layer()(X[:, :5], EDGES),
            ValueError,
            r"\[nodes, in_channels=16\] \(got \[6, 5\]\)",
        ),
        (lambda: layer()(X[None], EDGES), ValueError, r"got \[1, 6, 16\]"),
        (lambda: layer()((None, X), EDGES), ValueError, "features of the sources"),
        (lambda: layer()(X, EDGES + 2), IndexError, r"\[0, 5\] for 6 .* nodes \(got 6\)"),
        (lambda: layer()(X, EDGES - 1), IndexError, r"got -1"),
        (lambda: layer()(X, EDGES + 2, return_attention_weights=True), IndexError, r"got 6"),
        (lambda: layer()(X, EDGES.float()), ValueError, r"integer 'edge_index'"),
        (
            lambda: layer()(X, EDGES, size=(6, 5)),
            ValueError,
            r"'size' equal to .* \(6, 6\) \(got \(6, 5\)\)",
        ),
        (lambda: layer()(X, EDGES, edge_weight=torch.ones(3)), ValueError, r"edge_weight"),
        (lambda: layer(kernel="rfb"), ValueError, "RBF"),
        (lambda: layer(kernel=RBF(4, 3)), ValueError, r"channels"),
        (lambda: layer(kernel=RBF, negative_slope=0.1), ValueError, "negative_slope"),
        (lambda: layer(magnitude=0.5), ValueError, r"'p' of at least 1 \(got 0.5\)"),
        (lambda: layer(magnitude="big"), ValueError, r"'learned' \(got 'big'\)"),
        (
            lambda: layer(projections="tied"),
            ValueError,
            r"'projections' as one of .* \(got 'tied'\)",
        ),
        (lambda: layer(projections="seperate"), ValueError, r"did you mean 'separate'\?"),
        (
            lambda: KernelGATConv(3, 5, head=4),
            TypeError,
            r"KernelGATConv .*\(got 'head'\); did you mean 'heads'\?",
        ),
        (lambda: KernelGATConv(3, 5, kernel_kwarg={}), TypeError, r"did you mean 'kernel_kwargs'\?"),
        (lambda: layer(edge_mode="value"), ValueError, r"'edge_mode' as one of"),
        (lambda: layer(weight_mode="after"), ValueError, r"'weight_mode' as one of"),
        (
            lambda: KernelGATConv((3, 4), 5, projections="shared_qk"),
            ValueError,
            "equal 'in_channels'",
        ),
        (
            lambda: layer()(X, EDGES, position=PLACES),
            ValueError,
            r"no 'position' because 'position_dim=None' \(got \[6, 4\]\); build .* 'position_dim=4'",
        ),
        (
            lambda: layer(position_dim=4)(X, EDGES),
            ValueError,
            r"'position' of shape \[N=6, 4\] because 'position_dim=4' \(got 'None'\)",
        ),
        (
            lambda: layer(position_dim=3)(X, EDGES, position=PLACES),
            ValueError,
            r"\[6, position_dim=3\] for the sources \(got \[6, 4\]\)",
        ),
        (
            lambda: layer(position_dim=4)((X, X[:3]), EDGES[:, 1:3], position=PLACES),
            ValueError,
            r"\[3, position_dim=4\] for the targets \(got \[6, 4\]\); .* give a pair",
        ),
        (lambda: layer(position_dim=4, position_kernel="rfb"), ValueError, "RBF"),
        (lambda: layer(backend="tpu")(X, EDGES), ValueError, "'eager', 'reference'"),
        (
            lambda: layer(backend="reference", edge_dim=3, edge_mode="key")(X, EDGES, ATTR),
            NotImplementedError,
            "eager: ok",
        ),
    ],
)
def test_bad_input_is_a_sentence(act, error, message):
    with pytest.raises(error, match=message):
        act()


def test_edge_dim_without_edge_attr_passes_as_in_gat_conv():
    assert layer(edge_dim=3)(X, EDGES).shape == (6, 15)


def test_one_dimensional_edge_attr():
    net = layer(edge_dim=1)
    torch.testing.assert_close(net(X, EDGES, ATTR[:, 0]), net(X, EDGES, ATTR[:, :1]))


@pytest.mark.parametrize("kernel", ["additive", "rbf"])
def test_edge_features_and_weights_together(kernel):
    net = layer(edge_dim=3, kernel=kernel, add_self_loops=False)
    double = torch.cat([EDGES, EDGES[:, :1]], dim=1)
    weight = torch.ones(8)
    weight[0] = 2.0
    expected = net(X, double, torch.cat([ATTR, ATTR[:1]]))
    torch.testing.assert_close(net(X, EDGES, ATTR, edge_weight=weight), expected)


@pytest.mark.parametrize("in_channels", [3, 100])
@pytest.mark.parametrize("bipartite", [False, True])
def test_logits_of_features_and_of_projections(in_channels, bipartite):
    # Few features give GAT's logits themselves, many by way of their projections.
    torch.manual_seed(0)
    channels = (in_channels, in_channels) if bipartite else in_channels
    stock = GATConv(channels, 4, heads=3, add_self_loops=False).double()
    conv = KernelGATConv.from_gat(stock)
    x = torch.randn(6, in_channels, dtype=torch.float64, requires_grad=True)
    edge_index = torch.randint(0, 6, (2, 20))
    results = []
    for layer in (stock, conv):
        out = layer((x, x.square()) if bipartite else x, edge_index)
        grads = torch.autograd.grad(out.square().sum(), [x, *layer.parameters()])
        results.append((out, grads))
    torch.testing.assert_close(results[1][0], results[0][0])
    torch.testing.assert_close(results[1][1][0], results[0][1][0])
    found = sorted(g.square().sum().item() for g in results[1][1])
    expected = sorted(g.square().sum().item() for g in results[0][1])
    assert found == pytest.approx(expected)


# --- One way to an output, and whose weights it uses ------------------------------------------------------


@pytest.mark.parametrize("backend", ["cpu", "eager", "reference"])
@pytest.mark.parametrize("kernel", ["additive", "additive_v2", "spectral+rbf"])
@pytest.mark.parametrize("training", [False, True])
def test_weights_do_not_change_the_output(kernel, backend, training):
    torch.manual_seed(0)
    options = {"kernel": kernel, "magnitude": 1.5, "dropout": 0.5, "residual": True, "backend": backend}
    net = KernelGATConv(16, 5, heads=3, edge_dim=3, weight_mode="alpha", **options).train(training)
    weight = torch.linspace(-1, 1, EDGES.size(1))
    # A given loop is replaced: its weight goes with it.
    outs = []
    for asked in (None, True):
        torch.manual_seed(1)
        outs.append(net(X, EDGES, ATTR, return_attention_weights=asked, edge_weight=weight))
    out, (edges, alpha) = outs[1]
    assert torch.equal(outs[0], out)
    # The weights are those in the output, after dropout.
    factor = torch.cat([weight[EDGES[0] != EDGES[1]], torch.ones(6)])
    message = (alpha * factor.unsqueeze(-1)).unsqueeze(-1) * net.project(X)[2][edges[0]]
    expected = torch.zeros(6, 3, 5).index_add(0, edges[1], message).flatten(1) + net.res(X) + net.bias
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    assert bool((alpha == 0).any()) == training


def test_weights_have_gradients():
    torch.manual_seed(0)
    stock = GATConv(16, 5, heads=3, edge_dim=3).double()
    ours = KernelGATConv.from_gat(stock)
    grads = []
    for net in (ours, stock):
        x = X.double().requires_grad_()
        _, (_, alpha) = net(x, EDGES, ATTR.double(), return_attention_weights=True)
        slope = torch.linspace(-1, 1, alpha.numel(), dtype=torch.float64).view_as(alpha)
        grads.append(torch.autograd.grad((alpha * slope).sum(), x)[0])
    torch.testing.assert_close(*grads)


def test_weights_under_transforms():
    net = KernelGATConv(16, 5, heads=3, kernel="rbf", dropout=0.5)
    torch._dynamo.reset()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    out, (_, alpha) = compiled(X, EDGES, return_attention_weights=True)
    assert out.shape == (6, 15)
    assert set(net.eval()(X, EDGES, return_attention_weights=True)[1][1].shape) == set(alpha.shape)
    found = torch.vmap(lambda x: net(x, EDGES, return_attention_weights=True)[1][1])(torch.stack([X, 2 * X]))
    expected = torch.stack([net(x, EDGES, return_attention_weights=True)[1][1] for x in (X, 2 * X)])
    torch.testing.assert_close(found, expected)


UTILITIES = {
    "pruning": lambda m: torch.nn.utils.prune.l1_unstructured(m, "weight", amount=0.4),
    "weight norm": torch.nn.utils.weight_norm,
    "spectral norm": torch.nn.utils.spectral_norm,
    "parametrised weight norm": torch.nn.utils.parametrizations.weight_norm,
    "parametrised spectral norm": torch.nn.utils.parametrizations.spectral_norm,
    "a hook": lambda m: m.register_forward_hook(lambda m, args, out: 1.5 * out),
    "a hook before": lambda m: m.register_forward_pre_hook(lambda m, args: (1.5 * args[0],)),
    "a forward of its own": lambda m: setattr(m, "forward", lambda x: 2 * type(m).forward(m, x)),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning", "ignore:.*spectral_norm:FutureWarning")
@pytest.mark.parametrize("name", ["lin", "res", "lin_edge"])
@pytest.mark.parametrize("utility", UTILITIES)
def test_modified_modules_train_as_in_gat_conv(utility, name):
    torch.manual_seed(0)
    stock = GATConv(4, 5, heads=3, residual=True, edge_dim=3).double()
    ours = KernelGATConv.from_gat(stock)
    losses = []
    for net in (ours, stock):
        torch.manual_seed(1)
        UTILITIES[utility](getattr(net, name))
        steps = torch.optim.SGD(net.parameters(), lr=0.05)
        losses.append([])
        for asked in (None, True, None):
            out = net(X[:, :4].double(), EDGES, ATTR.double(), return_attention_weights=asked)
            loss = (out[0] if asked else out).square().sum()
            steps.zero_grad()
            loss.backward()
            steps.step()
            losses[-1].append(loss.item())
    assert losses[0] == pytest.approx(losses[1])


@pytest.mark.parametrize("asked", [None, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kernel": "rbf", "magnitude": 1.5, "projections": "separate"},
        {"edge_dim": 3, "residual": True, "position_dim": 4, "position_kernel": "rbf"},
        {"edge_dim": 3, "edge_mode": "key_value", "kernel": "additive_v2", "concat": False},
    ],
    ids=str,
)
def test_hooks_of_all_submodules_fire_once(options, asked):
    net = KernelGATConv(4, 5, heads=3, **options)
    calls = dict.fromkeys((name for name, _ in net.named_modules() if name), 0)

    def count(name):
        def hook(module, args, out):
            calls[name] += 1

        return hook

    for name, module in net.named_modules():
        if name and not isinstance(module, torch.nn.ModuleList):
            module.register_forward_hook(count(name))
    attr = ATTR if "edge_dim" in options else None
    position = PLACES if "position_dim" in options else None
    net(X[:, :4], EDGES, attr, return_attention_weights=asked, position=position)
    calls.pop("kernel.kernels", None)
    assert calls == dict.fromkeys(calls, 1)


def test_the_kernel_may_be_modified():
    torch.manual_seed(0)
    net = KernelGATConv(4, 5, heads=3)
    expected = net(X[:, :4], EDGES)
    torch.nn.utils.prune.random_unstructured(net.kernel, "att_key", amount=0.5)
    pruned = net(X[:, :4], EDGES)
    assert not torch.allclose(pruned, expected)
    assert torch.equal(net(X[:, :4], EDGES, return_attention_weights=True)[0], pruned)


@pytest.mark.parametrize("wrong", [-1e-9, float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("edge_mode", ["score", "key"])
def test_weights_that_no_kernel_can_have(edge_mode, wrong):
    weight = torch.ones(EDGES.size(1))
    weight[2] = wrong
    net = layer(kernel="additive_v2", edge_dim=3, edge_mode=edge_mode)
    for asked in (None, True):
        with pytest.raises(ValueError, match=r"of at least 0 with weight_mode='kernel'.*weight_mode='alpha'"):
            net(X, EDGES, ATTR, edge_weight=weight, return_attention_weights=asked)
    net.weight_mode = "alpha"
    assert net(X, EDGES, ATTR, edge_weight=weight).shape == (6, 15)


def test_weights_are_looked_at_in_compiled_code():
    net = layer(kernel="rbf")
    weight = torch.ones(EDGES.size(1))
    torch._dynamo.reset()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(X, EDGES, edge_weight=weight), net(X, EDGES))
    weight[2] = -1.0
    with pytest.raises(RuntimeError, match="weight_mode='alpha'"):
        compiled(X, EDGES, edge_weight=weight)
    heads = torch.rand(2, EDGES.size(1))
    found = torch.vmap(lambda w: net(X, EDGES, edge_weight=w))(heads)
    torch.testing.assert_close(found, torch.stack([net(X, EDGES, edge_weight=w) for w in heads]))
    with pytest.raises(ValueError, match="weight_mode='alpha'"):
        torch.vmap(lambda w: net(X, EDGES, edge_weight=w))(heads - 0.5)


def test_lazy_channels_of_targets_without_features():
    edges = torch.tensor([[0, 1, 4, 2], [0, 3, 3, 1]])
    for options in ({"in_channels": (-1, -1)}, {"in_channels": (3, -1), "residual": True}):
        results = []
        for cls in (GATConv, KernelGATConv):
            torch.manual_seed(0)
            net = cls(out_channels=8, heads=2, add_self_loops=False, **options)
            x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
            with torch.no_grad():  # lazy parameters are drawn in the order in which they are met
                net((x, None), edges, size=(5, 4))
                for p in (p for p in net.parameters() if not torch.nn.parameter.is_lazy(p)):
                    p.copy_(torch.linspace(-1, 1, p.numel()).view_as(p))
            results.append(net((x, None), edges, size=(5, 4)))
            if options["in_channels"] == (-1, -1):
                assert net((x, torch.ones(4, 7)), edges).shape == (4, 16)
        torch.testing.assert_close(*results)


def test_places_of_targets_that_are_missing_are_a_sentence():
    net = KernelGATConv((16, 7), 5, 3, position_dim=4, add_self_loops=False)
    with pytest.raises(ValueError, match=r"position_dim=4\] for the targets \(got None\)"):
        net((X, None), EDGES[:, :3], size=(6, 3), position=(PLACES, None))


def test_the_template_of_propagate_is_compiled():
    # Where PyG cannot compile it, it says nothing and reads the source anew for every layer that is built.
    class Halved(KernelGATConv):
        def message(self, x_j, alpha, edge):
            return 0.5 * super().message(x_j, alpha, edge)

    for cls in (KernelGATConv, Halved):
        assert cls(4, 2).propagate.__module__ == f"{cls.__module__}_{cls.__name__}_propagate"


def test_a_message_of_gat_conv_and_hooks_on_what_is_propagated():
    class Twice(KernelGATConv):
        def message(self, x_j, alpha):  # as one overrides GATConv's
            return 2 * alpha.unsqueeze(-1) * x_j

    net = Twice(16, 5, heads=3, bias=False)
    plain = KernelGATConv(16, 5, heads=3, bias=False)
    plain.load_state_dict(net.state_dict())
    torch.testing.assert_close(net(X, EDGES), 2 * plain(X, EDGES))
    twice = lambda conv, args: (*args[:2], args[2] | {"x": (2 * args[2]["x"][0], args[2]["x"][1])})  # noqa: E731
    expected = net(X, EDGES)
    plain.register_propagate_forward_pre_hook(twice)
    torch.testing.assert_close(plain(X, EDGES), expected)
    with pytest.raises(NotImplementedError, match="hook 'message'"):
        plain.register_edge_update_forward_hook(twice)


class Doubled:
    def propagate(self, edge_index, size=None, **kwargs):
        return 2 * super().propagate(edge_index, size=size, **kwargs)


@pytest.mark.parametrize("how", ["class", "mixed in", "inherited", "layer"])
@pytest.mark.parametrize("method", ["message", "aggregate", "update", "propagate"])
def test_what_is_overridden_is_called(method, how):
    def message(self, x_j, alpha, edge=None):
        return 2 * alpha.unsqueeze(-1) * x_j

    def aggregate(self, inputs, index, ptr=None, dim_size=None):
        return 2 * self.aggr_module(inputs, index, ptr=ptr, dim_size=dim_size, dim=self.node_dim)

    def update(self, inputs):
        return 2 * inputs

    plain = KernelGATConv(16, 5, heads=3, bias=False)
    expected = 2 * plain(X, EDGES)
    own = Doubled.propagate if method == "propagate" else locals()[method]
    if how == "layer":
        if method == "propagate":
            pytest.skip("PyG itself sets it on a layer")
        setattr(plain, method, MethodType(own, plain))
        torch.testing.assert_close(plain(X, EDGES), expected)
        torch.testing.assert_close(copy.deepcopy(plain)(X, EDGES), expected)
        return
    mixin = Doubled if method == "propagate" else type("Mixin", (), {method: own})
    if how == "class" and method != "propagate":
        cls = type("Own", (KernelGATConv,), {method: own})
    else:
        cls = type("Own", (mixin, KernelGATConv), {})
    if how == "inherited":
        cls = type("Of", (cls,), {})
    for _ in range(2):  # PyG compiles 'propagate' of a class when the first of its layers is built
        net = cls(16, 5, heads=3, bias=False)
        net.load_state_dict(plain.state_dict())
        torch.testing.assert_close(net(X, EDGES), expected)
    torch.testing.assert_close(plain(X, EDGES), expected / 2)


def test_another_edge_update_is_refused():
    # It is where GATConv computes its scores.
    with pytest.raises(TypeError, match=r"Expected no 'edge_update' in 'Own' .*write a kernel"):
        type("Own", (KernelGATConv,), {"edge_update": lambda self, alpha_j: alpha_j})
    with pytest.raises(TypeError, match=r"Expected no 'edge_update' in 'Own'"):
        type("Own", (type("Mixin", (), {"edge_update": None}), KernelGATConv), {})


def test_hooks_of_the_aggregation_fire():
    net = layer(kernel="rbf")
    seen = []
    expected = net(X, EDGES)
    net.aggr_module.register_forward_hook(lambda module, args, out: seen.append(out.shape))
    torch.testing.assert_close(net(X, EDGES), expected)
    assert seen == [(6, 3, 5)]


# --- Back to the stock layers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"edge_dim": 3, "residual": True, "concat": False, "negative_slope": 0.3}, {"bias": False}],
    ids=str,
)
@pytest.mark.parametrize("channels", [16, (16, 7)])
def test_to_gat_and_back(channels, options):
    torch.manual_seed(0)
    net = KernelGATConv(channels, 5, heads=3, dropout=0.5, **options).double().eval()
    stock = net.to_gat()
    assert type(stock) is GATConv
    assert not stock.training
    x = X.double() if channels == 16 else (X.double(), torch.randn(4, 7).double())
    edges = EDGES[:, :3]
    args = (ATTR[:3].double(),) if "edge_dim" in options else ()
    torch.testing.assert_close(net(x, edges, *args), stock(x, edges, *args))
    again = KernelGATConv.from_gat(stock)
    assert torch.equal(again(x, edges, *args), net(x, edges, *args))
    for name, value in stock.state_dict().items():  # reachable under its names, which are those of GATConv
        module, _, leaf = name.rpartition(".")
        assert torch.equal(getattr(net.get_submodule(module), leaf), value), name


def test_vectors_of_gat_conv_by_name():
    net, stock = KernelGATConv(16, 5, heads=3), GATConv(16, 5, heads=3)
    with torch.no_grad():
        net.lin.weight.copy_(stock.lin.weight)
        net.att_src.copy_(stock.att_src)
    net.att_dst = torch.nn.Parameter(stock.att_dst.detach().clone())
    torch.testing.assert_close(net(X, EDGES), stock(X, EDGES))
    assert set(dict(net.named_parameters())) == {"kernel.att_query", "kernel.att_key", "lin.weight", "bias"}
    other = KernelGATConv(16, 5, heads=3, kernel="rbf")
    assert not hasattr(other, "att_src")


@pytest.mark.parametrize("edge_dim", [None, 3])
@pytest.mark.parametrize("projections", ["shared", "shared_kv"])
@pytest.mark.parametrize("bias", [True, False])
def test_to_gatv2(projections, edge_dim, bias):
    torch.manual_seed(0)
    net = KernelGATConv(
        *(16, 5, 3),
        kernel="additive_v2",
        projections=projections,
        projection_bias=bias,
        bias=bias,
        residual=True,
        edge_dim=edge_dim,
        edge_mode="key",
    )
    args = () if edge_dim is None else (ATTR,)
    stock = net.to_gatv2()
    assert type(stock) is GATv2Conv
    torch.testing.assert_close(stock(X, EDGES, *args), net(X, EDGES, *args))


@pytest.mark.parametrize(
    ("options", "needs"),
    [
        ({"kernel": "rbf"}, "kernel='additive'"),
        ({"magnitude": 1}, "kernel='additive'"),
        ({"projections": "separate"}, "projections='shared'"),
        ({"projection_bias": True}, "projection_bias=False"),
        ({"edge_dim": 3, "edge_mode": "key"}, "edge_mode='score'"),
        ({"value_dropout": 0.5}, "value_dropout=0.0"),
        ({"position_dim": 4}, "position_dim=None"),
    ],
)
def test_what_no_stock_layer_computes(options, needs):
    with pytest.raises(ValueError, match=f"that GATConv can compute .* it needs .*{needs}"):
        layer(**options).to_gat()
    with pytest.raises(ValueError, match="that GATv2Conv can compute"):
        layer(**options).to_gatv2()


# --- One law for all routes -------------------------------------------------------------------------------

LAWFUL = {  # every kernel, the laws that depend on data, products and sums of them
    **{name: {"kernel": name} for name in SCORED},
    **{
        f"{name}, {', '.join(options)}": {
            "kernel": name,
            "kernel_kwargs": {"data_dependent": True, **options},
        }
        for name in ("ImplicitSpectral", "CopulaSpectral")
        for options in ({}, {"concat": True}, {"stationary": True})
    },
    "a product": {"kernel": "implicit_spectral * rbf * magnitude", "kernel_kwargs": {"data_dependent": True}},
    "a sum": {"kernel": "copula_spectral + laplace", "kernel_kwargs": {"data_dependent": True}},
    "of positions": {
        "position_dim": 2,
        "position_kernel": functools.partial(kernels.ImplicitSpectral, data_dependent=True),
    },
}
OF_GRAPH = torch.tensor([1, 1, 1, 1, 1, 0])


def lawful(name, **kwargs):
    torch.manual_seed(0)
    return KernelGATConv(16, 5, heads=3, **LAWFUL[name], **kwargs).double()


def called(conv, x=X, **kwargs):
    # Output, penalties and gradients under one seed, so that training draws the same frequencies.
    x = (tuple(t.double() for t in x) if isinstance(x, tuple) else x.double(),)
    leaves = [t.requires_grad_() for t in (x[0] if isinstance(x[0], tuple) else x)]
    if conv.position_dim is not None:
        kwargs["position"] = X[:, :2].double()
    losses = []
    torch.manual_seed(1)
    out = conv(*x, kwargs.pop("edges", EDGES), losses=losses, **kwargs)
    out = out[0] if isinstance(out, tuple) else out
    slope = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    total = (out * slope).sum() + sum(losses)
    named = {n: p for n, p in conv.named_parameters() if "lin_edge" not in n}
    grads = torch.autograd.grad(total, [*leaves, *named.values()], allow_unused=True)
    return [out, *losses, *(g for g in grads if g is not None)]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", LAWFUL)
def test_edge_vectors_of_zero_change_nothing(name, training):
    for batch in (None, OF_GRAPH):
        expected = called(lawful(name).train(training), batch=batch)
        for edge_mode in ("key", "key_value"):
            conv = lawful(name, edge_dim=3, edge_mode=edge_mode).train(training)
            conv.load_state_dict(lawful(name).state_dict(), strict=False)
            found = called(conv, edge_attr=torch.zeros(8, 3).double(), batch=batch)
            torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", LAWFUL)
def test_messages_are_those_of_the_fused_route(name, training):
    for batch in (None, OF_GRAPH):
        conv = lawful(name).train(training)
        expected = called(conv, batch=batch)
        found = called(conv, batch=batch, return_attention_weights=True)
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
        handle = conv.register_message_forward_hook(lambda module, inputs, out: None)
        torch.testing.assert_close(called(conv, batch=batch), expected, rtol=1e-8, atol=1e-8)
        handle.remove()


def test_the_law_of_edge_vectors_is_that_of_two_sides():
    # Both flows, and a graph that has nodes on both sides but no edges.
    torch.manual_seed(0)
    kwargs = {"kernel": "copula_spectral", "kernel_kwargs": {"data_dependent": True}, "add_self_loops": False}
    plain = KernelGATConv((16, 16), 5, heads=3, **kwargs).double()
    x, edges = (X[:4], X), torch.tensor([[0, 3, 3], [5, 1, 0]])
    batch = (torch.tensor([0, 2, 0, 1]), torch.tensor([1, 1, 1, 2, 2, 0]))
    for flow in ("source_to_target", "target_to_source"):
        plain.flow = flow
        index = edges if flow == "source_to_target" else edges.flip(0)
        expected = called(plain, x, edges=index, batch=batch)
        conv = KernelGATConv((16, 16), 5, heads=3, edge_dim=3, edge_mode="key", **kwargs).double()
        conv.load_state_dict(plain.state_dict(), strict=False)
        conv.flow = flow
        found = called(conv, x, edges=index, batch=batch, edge_attr=torch.zeros(3, 3).double())
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("built", [True, False], ids=["built so", "set afterwards"])
@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
def test_messages_of_both_flows_between_two_sides(flow, built):
    # PyG reads pairs in one order where it compiles propagate, in two where it does not.
    torch.manual_seed(0)
    net = KernelGATConv((16, 7), 5, heads=3, add_self_loops=False, **({"flow": flow} if built else {}))
    net.flow = flow
    edges = torch.tensor([[0, 3, 3], [5, 1, 0]])
    args = (X[:4], torch.randn(6, 7)), edges if flow == "source_to_target" else edges.flip(0)
    expected = net(*args)
    handle = net.register_message_forward_hook(lambda module, inputs, out: None)
    torch.testing.assert_close(net(*args), expected)
    handle.remove()
    set_masks(net, torch.ones(3), args[1], apply_sigmoid=False)
    torch.testing.assert_close(net(*args), expected)


def test_from_gat_takes_gat_conv_alone():
    with pytest.raises(TypeError, match=r"Expected a GATConv \(got GATv2Conv\)"):
        KernelGATConv.from_gat(GATv2Conv(4, 2))
    with pytest.raises(ValueError, match=r"kernel='additive' for the weights of a GATConv \(got 'rbf'\)"):
        KernelGATConv.from_gat(GATConv(4, 2), kernel="rbf")
