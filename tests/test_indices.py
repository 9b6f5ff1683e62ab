r"""Indices of int32 give what those of int64 do, outputs and all gradients."""

import pytest
import torch
from torch_geometric import EdgeIndex
from torch_geometric.nn import to_hetero

from kgat import KernelGAT, KernelGATConv, kernels
from kgat.diagnostics import attention_entropy, attention_weights
from kgat.functional import edge_attention, edge_softmax
from kgat.kernels import Context, Kernel
from kgat.models import GraphReadout, KernelHeteroGAT, LinkPredictor
from kgat.nn import GlobalAttention, KernelAttention, PrimalAttention

# What goes wrong is memory that is read as another type: it shows at some sizes alone.
SIZES = [(2, 10), (3, 12), (4, 33), (7, 24), (12, 40)]


class Given:
    r"""A graph with features whose indices are of one type, and what of it may have a gradient."""

    def __init__(self, nodes, edges, dtype):
        draw = torch.Generator().manual_seed(nodes)

        def drawn(*shape):
            return torch.randn(*shape, generator=draw, dtype=torch.float64).requires_grad_()

        def indices(bound, *shape):
            return torch.randint(bound, shape, generator=draw).to(dtype)

        self.nodes, self.dtype = nodes, dtype
        self.x, self.attr, self.weight = drawn(nodes, 6), drawn(edges, 3), drawn(edges)
        self.other = drawn(5, 6)
        self.edges, self.pairs = indices(nodes, 2, edges), indices(nodes, 2, 7)
        self.across = torch.stack([indices(nodes, edges), indices(5, edges)])
        self.batch = indices(2, nodes).sort().values
        self.of_other = indices(2, 5)

    @property
    def leaves(self):
        return [self.x, self.attr, self.weight, self.other]


def alike(build, call, sizes=SIZES):
    r"""Compares the outputs of ``call(model, given)`` and all gradients."""
    torch.manual_seed(0)
    model = build().double()
    if isinstance(model, torch.nn.Module):
        model.eval()
    for nodes, edges in sizes:
        results = []
        for dtype in (torch.int64, torch.int32):
            given, losses = Given(nodes, edges, dtype), []
            out = call(model, given, losses)
            total = (
                sum(y.sum() for y in losses) + (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum()
            )
            leaves = [*given.leaves, *model.parameters()]
            results.append((out.detach(), torch.autograd.grad(total, leaves, allow_unused=True)))
        assert any(grad is not None and grad.any() for grad in results[0][1])
        torch.testing.assert_close(results[1], results[0], equal_nan=True)


def layer(**options):
    # With loops, PyG makes int64 of all edges.
    return lambda: KernelGATConv(6, 4, 2, **{"edge_dim": 3, "add_self_loops": False, **options})


def on_edges(conv, given, _):
    attr = None if conv.edge_dim is None else given.attr
    return conv(given.x, given.edges, attr, edge_weight=given.weight.square())


AGGREGATIONS = ["add", "mean", "max", "min", "mul", "median", "std", "var", "softmax", "powermean"]


@pytest.mark.parametrize("edge_mode", ["score", "key", "key_value"])
@pytest.mark.parametrize("aggr", AGGREGATIONS)
def test_aggregations(aggr, edge_mode):
    alike(layer(aggr=aggr, edge_mode=edge_mode), on_edges)


def test_several_aggregations():
    options = {"aggrs_kwargs": [{}, {"learn": True}], "mode": "sum"}
    alike(layer(aggr=["mean", "softmax"], aggr_kwargs=options, concat=False), on_edges)


@pytest.mark.quick
@pytest.mark.parametrize("edge_mode", ["score", "key_value"])
@pytest.mark.parametrize("fill_value", ["add", "mean", "min", "max", "mul", 2.0, torch.ones(3)], ids=str)
def test_features_of_self_loops(fill_value, edge_mode):
    alike(layer(fill_value=fill_value, edge_mode=edge_mode, add_self_loops=True), on_edges)


@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
@pytest.mark.parametrize("weight_mode", ["kernel", "alpha"])
@pytest.mark.parametrize("backend", [None, "eager", "cpu"])
def test_routes(backend, weight_mode, flow):
    alike(layer(backend=backend, weight_mode=weight_mode, flow=flow, residual=True), on_edges)


SIGNED = ["Cosine", "Linear", "RandomFourier", "RFA"]  # which have no scores


@pytest.mark.parametrize("edge_mode", ["score", "key"])
@pytest.mark.parametrize("kernel", [name for name in kernels.names() if name not in SIGNED])
def test_kernels(kernel, edge_mode):
    def call(conv, given, losses):
        return conv(given.x, given.edges, given.attr, batch=given.batch, losses=losses)

    alike(layer(kernel=kernel, edge_mode=edge_mode, backend="eager"), call, SIZES[::2])


OF_GRAPHS = [
    "implicit",
    "implicit[stationary=true]",
    "implicit[concat=true]",
    "copula",
    "implicit*rbf|implicit",
]


@pytest.mark.parametrize("edge_mode", ["score", "key"])
@pytest.mark.parametrize("kernel", OF_GRAPHS)
def test_kernels_of_a_graph(kernel, edge_mode):
    def call(conv, given, losses):
        batch = given.batch.flip(0)  # in any order
        return conv(given.x, given.edges, given.attr, batch=batch, losses=losses)

    def across(conv, given, losses):
        batch = (given.batch, given.of_other)
        return conv((given.x, given.other), given.across, given.attr, batch=batch, losses=losses)

    options = {"kernel": kernel, "kernel_kwargs": {"data_dependent": True}, "edge_mode": edge_mode}
    alike(layer(**options, backend="eager"), call)
    alike(layer(**options, backend="eager"), across)


def test_one_tensor_of_graphs_stays_one():
    batch = torch.tensor([0, 1], dtype=torch.int32)
    for given in (batch, batch.long(), (batch, batch)):
        of_query, of_key = Context(given).graphs
        assert of_query is of_key
        assert of_query.dtype == torch.int64
    assert Context(batch.long()[:1]).graphs[0].dtype == torch.int64
    assert Context().graphs == Context((None, None)).graphs == (None, None)
    assert Context(batch).batch is batch
    long = batch.long()
    assert Context(long).graphs[0] is long


@pytest.mark.parametrize("edge_mode", ["score", "key_value"])
@pytest.mark.parametrize("kind", ["EdgeIndex", "csr", "csc", "position", "start", "sides", "own message"])
def test_inputs_of_a_layer(kind, edge_mode):
    class Own(KernelGATConv):
        def message(self, x_j, alpha, edge):
            return alpha.unsqueeze(-1) * x_j.tanh()

    def call(conv, given, losses):
        edges, x, more = given.edges, given.x, {}
        if kind == "EdgeIndex":
            edges = EdgeIndex(edges, sparse_size=(given.nodes, given.nodes))
        if kind in ("csr", "csc"):
            edges = given.edges[:, (given.edges[1] * 100 + given.edges[0]).argsort(stable=True)]
            if kind == "csc":
                edges = edges[:, edges[0].argsort(stable=True)]
            major = edges[1] if kind == "csr" else edges[0]
            ends = torch.searchsorted(major, torch.arange(given.nodes + 1).to(given.dtype)).to(given.dtype)
            build = torch.sparse_csr_tensor if kind == "csr" else torch.sparse_csc_tensor
            minor, value = edges[0] if kind == "csr" else edges[1], torch.ones(edges.size(1))
            edges = build(ends, minor, value, (given.nodes, given.nodes), check_invariants=False)
        if kind == "position":
            more = {"position": given.x[:, :2]}
        if kind == "sides":
            x, edges = (given.x, given.other), given.across
        return conv(x, edges, given.attr, **more)

    options = {"edge_mode": edge_mode, "add_self_loops": kind in ("csr", "csc")}
    options |= {"position": {"position_dim": 2}, "start": {"start": "unit", "kernel": "rbf"}}.get(kind, {})
    alike(lambda: (Own if kind == "own message" else KernelGATConv)(6, 4, 2, edge_dim=3, **options), call)


def test_weights_that_are_returned():
    def call(conv, given, _):
        return conv(given.x, given.edges, given.attr, return_attention_weights=True)[1][1]

    alike(layer(), call)
    alike(layer(edge_mode="key"), call)


NORMS = ["batch", "graph", "layer", "layer[mode=node]", "instance", "pair"]


@pytest.mark.parametrize("norm", NORMS)
def test_norms_of_a_model(norm):
    def call(model, given, losses):
        return model(given.x, given.edges, edge_attr=given.attr, batch=given.batch, losses=losses)

    def build():
        return KernelGAT(6, 8, 3, 4, heads=2, norm=norm, edge_dim=3, jk="cat")

    alike(build, call)
    alike(lambda: build().train(), call)


def test_norms_of_a_heterogeneous_model():
    # What is traced knows no types.
    types = ["a", "b"], [("a", "to", "b"), ("b", "to", "a")]

    def call(model, given, losses):
        x = {"a": given.x, "b": given.other}
        edges = {types[1][0]: given.across, types[1][1]: given.across.flip(0)}
        out = model(x, edges, batch={"a": given.batch, "b": given.of_other.sort().values})
        return torch.cat([out["a"], out["b"]])

    def build():
        model = KernelGAT((6, 6), 8, 2, 4, heads=2, norm="graph", add_self_loops=False)
        return to_hetero(model, types)

    alike(build, call)


@pytest.mark.parametrize("global_attention", ["rbf", "primal"])
def test_attention_over_all_nodes(global_attention):
    def call(model, given, losses):
        return model(given.x, given.edges, edge_attr=given.attr, batch=given.batch, losses=losses)

    options = {"edge_dim": 3, "pre_linear": True, "global_attention": global_attention, "norm": "graph"}
    alike(lambda: KernelGAT(6, 8, 3, 4, heads=2, **options), call)
    attention = KernelAttention if global_attention == "rbf" else PrimalAttention
    kernel = {"kernel": "implicit[data_dependent=true]"}

    def built():
        local = KernelGATConv(6, 3, 2, edge_dim=3, **kernel)
        return GlobalAttention(local, attention(6, 2, **(kernel if global_attention == "rbf" else {})))

    alike(built, lambda model, given, losses: model(given.x, given.edges, given.attr, given.batch, losses))


POOLINGS = ["mean", "sum", "max", "min", "mul", "median", "std", "var", "softmax", "powermean"]


@pytest.mark.parametrize("pooling", [*POOLINGS, "mean+max+softmax"])
def test_poolings(pooling):
    def call(model, given, losses):
        return model(given.x, given.edges, given.attr, batch=given.batch, losses=losses, batch_size=2)

    def build():
        encoder = KernelGAT(
            6, 8, 2, heads=2, edge_dim=3, kernel="implicit[data_dependent=true]", norm="graph"
        )
        return GraphReadout(encoder, 8, 3, pooling)

    alike(build, call)


def test_an_encoder_of_another_package_is_given_int64():
    class Encoder(torch.nn.Module):
        def forward(self, x, edge_index, batch=None):
            assert batch.dtype == torch.int64
            return x

    alike(
        lambda: GraphReadout(Encoder(), 6, 3),
        lambda model, given, _: model(given.x, given.edges, batch=given.batch),
    )


@pytest.mark.parametrize("decoder", ["dot", "mlp"])
def test_links(decoder):
    alike(
        lambda: LinkPredictor(KernelGAT(6, 8, 2, heads=2, edge_dim=3), 8, decoder),
        lambda model, given, _: model(given.x, given.edges, given.attr, given.pairs),
    )


@pytest.mark.parametrize("aggr", ["sum", "mean", "max"])
def test_types_of_nodes(aggr):
    types = ["a", "b"], [("a", "to", "a"), ("a", "to", "b"), ("b", "from", "a")]

    def call(model, given, losses):
        x = {"a": given.x, "b": given.other}
        edges = [given.edges, given.across, given.across.flip(0)]
        attr = {types[1][0]: given.attr}
        out = model(x, dict(zip(types[1], edges, strict=True)), attr, losses=losses)
        return torch.cat([out["a"], out["b"]])

    options = {"edge_dim": {types[1][0]: 3}, "add_self_loops": True}
    alike(lambda: KernelHeteroGAT(6, 8, 2, 4, metadata=types, heads=2, aggr=aggr, **options), call)


def test_functions_of_edges():
    class Nothing(Kernel):
        def score(self, query, key):
            return query.sum(dim=-1) * key.sum(dim=-1)

    def softmax(_, given, __):
        return edge_softmax(given.attr, given.edges[1], given.nodes, power=2.0)

    def entropy(_, given, __):
        alpha = edge_softmax(given.attr, given.edges[1], given.nodes)
        return attention_entropy(alpha, given.edges[1], given.nodes, reduce=False)

    def attention(kernel, given, _):
        x = given.x.view(-1, 2, 3)
        return edge_attention(kernel(x, x), x, given.edges, edge_bias=given.attr[:, :2])

    for call in (softmax, entropy, attention):
        alike(lambda: Nothing(3, 2), call)


def test_weights_of_a_model():
    torch.manual_seed(0)
    model = KernelGAT(6, 8, 2, heads=2, edge_dim=3, norm="graph").double()
    for nodes, edges in SIZES:
        found = []
        for dtype in (torch.int64, torch.int32):
            given = Given(nodes, edges, dtype)
            weights = attention_weights(model, given.x, given.edges, given.attr, batch=given.batch)
            found.append([alpha for _, alpha in weights])
        torch.testing.assert_close(*found)


def test_compiled():
    def call(conv, given, losses):
        compiled = torch.compile(conv, backend="aot_eager", fullgraph=True)
        return compiled(given.x, given.edges, given.attr)

    alike(layer(add_self_loops=True, fill_value="max"), call, SIZES[-1:])
    torch._dynamo.reset()
