import copy
import inspect
import json
import math
import re
from types import SimpleNamespace

import pytest
import torch
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import GAT, GCN, DeepGCNLayer, GATConv, Sequential, TopKPooling, to_hetero
from torch_geometric.utils import barabasi_albert_graph, degree, to_torch_csr_tensor, to_undirected

from kgat import diagnostics, functional, kernels, models, nn
from kgat.diagnostics.record import SINGULAR_VALUES
from kgat.diagnostics.spectra import sample
from kgat.experiments.stock import StockGAT
from kgat.models import KernelGAT, KernelTransformer
from kgat.nn import GlobalAttention, KernelAttention, KernelGATConv, PrimalAttention

pytestmark = pytest.mark.quick


class Gaussian(kernels.Kernel):
    def score(self, query, key):
        return -(query - key).square().sum(dim=-1)


class Given:
    r"""A 'kernel' whose Gram matrix is written down."""

    def __init__(self, *matrices):
        self.score = torch.tensor(matrices, dtype=torch.float64).permute(1, 2, 0).log()

    def __call__(self, query, key):
        return self

    def dense(self):
        return self.score


def graph(num_nodes=60, classes=4):
    torch.manual_seed(0)
    edge_index = to_undirected(barabasi_albert_graph(num_nodes, 3))
    y = torch.randint(0, classes, (num_nodes,))
    return Data(x=torch.randn(num_nodes, 5), edge_index=edge_index, y=y)


def test_entropy_by_hand():
    # Target 0 has three in-edges, target 1 two, target 2 one, target 3 none.
    index = torch.tensor([0, 1, 0, 2, 1, 0])
    alpha = torch.tensor(
        [[0.5, 1 / 3], [0.25, 0.5], [0.25, 1 / 3], [1.0, 1.0], [0.75, 0.5], [0.25, 1 / 3]],
        dtype=torch.float64,
    )
    first = (0.5 * math.log(2) + 0.5 * math.log(4)) / math.log(3)
    second = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / math.log(2)
    entropy = diagnostics.attention_entropy(alpha, index, num_nodes=4)
    expected = torch.tensor([(first + second) / 2, 1.0], dtype=torch.float64)
    torch.testing.assert_close(entropy, expected)


def test_entropy_of_attention_to_one_neighbour_is_zero():
    alpha = torch.tensor([[1.0], [0.0]])
    entropy = diagnostics.attention_entropy(alpha, torch.tensor([0, 0]), 1)
    assert entropy.tolist() == [0.0]


def test_entropy_without_a_choice_is_not_a_number():
    entropy = diagnostics.attention_entropy(torch.ones(2, 3), torch.tensor([0, 1]), 2)
    assert entropy.shape == (3,)
    assert bool(entropy.isnan().all())


def test_entropy_refuses_other_edges():
    with pytest.raises(ValueError, match=r"Expected 'alpha' of shape \[E, H\].*\[2, 3\]"):
        diagnostics.attention_entropy(torch.ones(2, 3), torch.tensor([0]), 2)


def test_attention_weights_are_those_of_the_forward_pass():
    data = graph()
    model = GAT(5, 6, 2, 4, heads=3, dropout=0.5, norm="batch_norm", act="elu")
    model.norms[0].module.running_mean += 1.5
    found = diagnostics.attention_weights(model, data.x, data.edge_index)

    model.eval()
    first, second = model.convs
    hidden, expected = first(data.x, data.edge_index, return_attention_weights=True)
    hidden = torch.nn.functional.elu(model.norms[0](hidden))
    _, also_expected = second(hidden, data.edge_index, return_attention_weights=True)
    for (edges, alpha), (edges_expected, alpha_expected) in zip(
        found, (expected, also_expected), strict=True
    ):
        assert torch.equal(edges, edges_expected)
        torch.testing.assert_close(alpha, alpha_expected)


def test_attention_weights_leave_the_model_as_it_was():
    data = graph()
    model = GAT(5, 6, 2, 4, heads=3, dropout=0.5, norm="batch_norm")
    model.train()
    model.norms[0].eval()
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    diagnostics.attention_weights(model, data.x, data.edge_index)
    with pytest.raises(RuntimeError):
        diagnostics.attention_weights(model, torch.randn(60, 7), data.edge_index)
    assert [module.training for module in model.modules()] == modes
    assert torch.is_tensor(model(data.x, data.edge_index))  # no hook was left behind
    torch.set_rng_state(state)
    repeated = diagnostics.attention_weights(model, data.x, data.edge_index)
    assert torch.equal(torch.get_rng_state(), state)
    assert not repeated[0][1].requires_grad


def test_attention_weights_with_edge_features():
    data = graph()
    edge_attr = torch.randn(data.edge_index.size(1), 2)
    model = GAT(5, 6, 1, heads=2, edge_dim=2)
    with_features = diagnostics.attention_weights(model, data.x, data.edge_index, edge_attr)
    model.eval()
    conv = model.convs[0]
    _, (_, expected) = conv(data.x, data.edge_index, edge_attr, return_attention_weights=True)
    torch.testing.assert_close(with_features[0][1], expected)


@pytest.mark.parametrize("model", [GCN(5, 6, 2), torch.nn.Linear(5, 6)])
def test_attention_weights_need_attention_layers(model):
    data = graph()
    with pytest.raises(ValueError, match="Expected"):
        diagnostics.attention_weights(model, data.x, data.edge_index)


class Own(torch.nn.Module):
    r"""Layers under names of one's own, one of them called twice, one by a model that reads its weights."""

    def __init__(self, cls):
        super().__init__()
        self.out = cls(6, 2, heads=3, concat=False)
        self.blocks = torch.nn.ModuleDict(
            {"first": GlobalAttention(cls(5, 5), PrimalAttention(5, 1, rank=2))}
        )
        self.twice = cls(5, 5)
        self.reader = cls(5, 2, heads=3)
        self.read = None

    def forward(self, x, edge_index, scale=1.0):
        x = self.blocks["first"](x, edge_index)
        x = self.twice(self.twice(x, edge_index), edge_index)
        out, self.read = self.reader(x, edge_index, None, None, True)
        return scale * self.out(out, edge_index)


@pytest.mark.parametrize("cls", [KernelGATConv, GATConv])
def test_attention_of_any_model_in_the_order_of_its_calls(cls):
    torch.manual_seed(0)
    data, model = graph(), Own(cls)
    layers = diagnostics.trace(model, data.x, data.edge_index, scale=2.0)
    order = [model.blocks["first"].local, model.twice, model.twice, model.reader, model.out]
    assert [layer.conv for layer in layers] == order
    assert torch.equal(layers[0].x, data.x)
    assert torch.equal(layers[3].alpha, model.read[1])
    for conv, x, _, alpha in layers:
        conv.eval()
        assert torch.equal(conv(x, data.edge_index, return_attention_weights=True)[1][1], alpha)
    assert torch.is_tensor(model(data.x, data.edge_index))


def test_attention_of_a_layer_and_of_a_model_with_places():
    data = graph()
    conv = KernelGATConv(5, 4, heads=2, kernel="rbf")
    assert diagnostics.attention_weights(conv, data.x, data.edge_index)[0][1].size(1) == 2
    model = KernelGAT(5, 6, 2, 4, heads=3, position_dim=2)
    layers = diagnostics.trace(model, data.x, data.edge_index, position=torch.randn(60, 2))
    assert [layer.conv for layer in layers] == list(model.convs)


def test_attention_on_a_sparse_adjacency():
    data = graph()
    conv = KernelGATConv(5, 4, heads=2, kernel="rbf")
    adjacency = to_torch_csr_tensor(data.edge_index.flip(0), size=(60, 60))
    edges, alpha = diagnostics.attention_weights(conv, data.x, adjacency)[0]
    expected = torch.zeros(60, 2).index_add(0, edges[1], alpha)
    torch.testing.assert_close(expected, torch.ones(60, 2))
    assert set(map(tuple, edges.t().tolist())) > set(map(tuple, data.edge_index.t().tolist()))


# Unsorted, with parallel edges, one self-loop and one that is there twice.
MIXED = torch.tensor([[3, 0, 1, 0, 2, 4, 0, 4, 3], [2, 1, 1, 1, 0, 4, 2, 4, 0]])


def weights_by_hand(layer, edges):
    r"""The weights of edges, one after the other, each of those that the layer saw taken once."""
    left = [(edge, weight) for edge, weight in zip(layer.edge_index.T.tolist(), layer.alpha, strict=True)]
    weights = []
    for edge in edges.T.tolist():
        place = next((k for k, (other, _) in enumerate(left) if other == edge), None)
        weights.append(torch.zeros_like(layer.alpha[0]) if place is None else left.pop(place)[1])
    return torch.stack(weights)


@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("cls", [KernelGATConv, GATConv])
def test_weights_in_the_order_of_the_callers_edges(cls, loops):
    torch.manual_seed(0)
    conv, x = cls(5, 4, heads=2, edge_dim=1, add_self_loops=loops), torch.randn(5, 5)
    edge_attr = torch.randn(MIXED.size(1), 1)  # parallel edges differ
    layer = diagnostics.trace(conv, x, MIXED, edge_attr)[0]
    weights = layer.weights_of(MIXED)
    assert torch.equal(weights, weights_by_hand(layer, MIXED))
    assert not torch.equal(weights[1], weights[3])
    assert (weights[7] == 0).all() == loops  # the second loop of a node that gets one
    order = torch.tensor([8, 2, 0, 5, 1, 3, 6, 4, 7])  # parallel edges as before
    assert torch.equal(layer.weights_of(MIXED[:, order]), weights[order])
    if not loops:
        assert torch.equal(weights, layer.alpha)
    assert layer.weights_of(MIXED[:, :0]).shape == (0, 2)


def test_weights_in_the_order_of_a_sparse_adjacency():
    data, conv = graph(), KernelGATConv(5, 4, heads=2, kernel="rbf")
    adjacency = to_torch_csr_tensor(data.edge_index.flip(0), size=(60, 60))
    of_matrix, of_list = (diagnostics.trace(conv, data.x, edges)[0] for edges in (adjacency, data.edge_index))
    expected = of_list.weights_of(data.edge_index)
    torch.testing.assert_close(of_matrix.weights_of(data.edge_index), expected)
    torch.testing.assert_close(of_matrix.weights_of(adjacency).sum(0), expected.sum(0))


class OfData(torch.nn.Module):
    r"""Called with the graph alone, as models of PyG's examples are; one layer is called twice."""

    def __init__(self):
        super().__init__()
        self.conv = KernelGATConv(5, 5)

    def forward(self, data):
        return self.conv(self.conv(data.x, data.edge_index), data.edge_index)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (
            lambda: Sequential(
                "x, edge_index",
                [
                    (KernelGATConv(5, 4), "x, edge_index -> x"),
                    torch.nn.ReLU(),
                    (GATConv(4, 3), "x, edge_index -> x"),
                ],
            ),
            ["module_0", "module_2"],
        ),
        (lambda: KernelGAT(5, 8, 2, 3, heads=2, jk="cat"), ["convs.0", "convs.1"]),
        (lambda: DeepGCNLayer(KernelGATConv(5, 5), torch.nn.LayerNorm(5)), ["conv"]),
        (lambda: torch.compile(KernelGATConv(5, 5), backend="eager"), ["_orig_mod"]),
        (OfData, ["conv", "conv"]),
    ],
    ids=["sequential", "jumping knowledge", "deep", "compiled", "of data"],
)
def test_attention_inside_of_wrappers(make, names):
    data, model = graph(), make()
    inputs = (data,) if isinstance(model, OfData) else (data.x, data.edge_index)
    model(*inputs)  # what compiles has compiled
    layers = diagnostics.trace(model, *inputs)
    assert [layer.name for layer in layers] == names
    for layer in layers:
        total = torch.zeros(60).index_add(0, data.edge_index[1], layer.weights_of(data.edge_index).mean(1))
        loops = layer.weights_of(torch.arange(60).expand(2, -1)).mean(1)  # which the layer added
        torch.testing.assert_close(total + loops, torch.ones(60))


def test_a_trace_compiles_nothing():
    data, compiled = graph(), []
    model = torch.compile(KernelGATConv(5, 4), backend=lambda made, _: compiled.append(1) or made.forward)
    model(data.x, data.edge_index)
    before = len(compiled)
    assert before > 0
    assert len(diagnostics.trace(model, data.x, data.edge_index)) == 1
    assert len(compiled) == before


def test_attention_of_a_heterogeneous_model():
    torch.manual_seed(0)
    data = HeteroData(author={"x": torch.randn(6, 5)}, paper={"x": torch.randn(4, 3)})
    edges = torch.stack([torch.randint(6, (9,)), torch.randint(4, (9,))])
    data["author", "writes", "paper"].edge_index = edges
    data["paper", "of", "author"].edge_index = edges.flip(0)
    model = KernelGAT((-1, -1), 8, 2, 3, heads=2, add_self_loops=False, kernel="rbf")
    layers = diagnostics.trace(to_hetero(model, data.metadata()), data.x_dict, data.edge_index_dict)
    assert {layer.name.split(".")[-1] for layer in layers} == {"author__writes__paper", "paper__of__author"}
    for layer in layers:
        of_type = edges if "writes" in layer.name else edges.flip(0)
        assert torch.equal(layer.weights_of(of_type), layer.alpha)
        assert layer.x[0].size(0) == (6 if "writes" in layer.name else 4)


def test_weights_of_edges_that_a_model_takes_out_are_a_sentence():
    class Pooled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.pool, self.conv = TopKPooling(5), KernelGATConv(5, 4)

        def forward(self, x, edge_index):
            x, edge_index, *_ = self.pool(x, edge_index)
            return self.conv(x, edge_index)

    data = graph()
    layer = diagnostics.trace(Pooled(), data.x, data.edge_index)[0]
    with pytest.raises(ValueError, match=r"Expected edges that layer 'conv' saw .*'edge_index' of the layer"):
        layer.weights_of(data.edge_index)
    assert torch.equal(layer.weights_of(layer.edge_index), layer.alpha)


def test_a_layer_around_layers_hands_the_question_on():
    class Around(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = KernelGATConv(5, 4)

        def forward(self, x, edge_index, return_attention_weights=None):
            return self.inner(x, edge_index, return_attention_weights=return_attention_weights)

    data = graph()
    model = torch.nn.Module()
    model.layer = Around()
    model.forward = model.layer.forward
    assert len(diagnostics.trace(model, data.x, data.edge_index)) == 1


def test_a_model_that_calls_no_layer_is_a_sentence():
    data = graph()
    model = KernelGATConv(5, 4)
    model.forward = lambda x, edge_index, return_attention_weights=None: (x, (edge_index, x))
    holder = torch.nn.Module()
    holder.layer, holder.forward = model, lambda x, edge_index: x
    with pytest.raises(ValueError, match="a model that calls its attention layers"):
        diagnostics.trace(holder, data.x, data.edge_index)


def test_spectrum_of_a_known_matrix():
    kernel = Given([[1.0, 0.5], [0.5, 1.0]], [[3.0, 3.0], [3.0, 3.0]])
    nodes = torch.zeros(2, 2, 1)
    values = diagnostics.gram_spectrum(kernel, nodes, nodes)
    expected = torch.tensor([[1.0, 1 / 3], [1.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(values, expected)
    ranks = diagnostics.effective_rank(values)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    expected = torch.tensor([math.exp(entropy), 1.0], dtype=torch.float64)
    torch.testing.assert_close(ranks, expected)


def test_spectrum_does_not_overflow():
    query = 100 * torch.eye(3).view(3, 1, 3)  # scores up to 5774, whose exponential is infinite
    values = diagnostics.gram_spectrum(kernels.DotProduct(3), query, query)
    torch.testing.assert_close(values, torch.ones(1, 3, dtype=torch.float64))


def test_symmetry_gap_and_smallest_eigenvalue():
    matrices = [[[2.0, 1.0], [1.0, 2.0]], [[0.0, 1.0], [-1.0, 0.0]], [[1.0, 3.0], [3.0, 1.0]]]
    gram = torch.tensor(matrices, dtype=torch.float64).permute(1, 2, 0)
    gap = diagnostics.symmetry_gap(gram)
    torch.testing.assert_close(gap, torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    smallest = diagnostics.smallest_eigenvalue(gram[..., [0, 2]])
    torch.testing.assert_close(smallest, torch.tensor([1 / 3, -0.5], dtype=torch.float64))
    # The eigenvalues -3 and -1: the one of largest absolute value is the smallest itself.
    negative = torch.tensor([[-2.0, 1.0], [1.0, -2.0]]).unsqueeze(-1)
    torch.testing.assert_close(diagnostics.smallest_eigenvalue(negative), torch.tensor([-1.0]))
    with pytest.raises(ValueError, match=r"Expected 'gram' of shape \[N, N, H\]"):
        diagnostics.symmetry_gap(gram[:1])


def test_large_gram_matrices_are_sampled_with_a_seed():
    query = torch.randn(400, 2, 5)
    first = diagnostics.gram_matrix(kernels.RBF(5, 2), query, query)
    assert first.shape == (256, 256, 2)
    assert torch.equal(first, diagnostics.gram_matrix(kernels.RBF(5, 2), query, query))
    assert not torch.equal(first, diagnostics.gram_matrix(kernels.RBF(5, 2), query, query, seed=1))
    # The same nodes stand on both sides.
    assert float(diagnostics.symmetry_gap(first).max()) < 1e-6


def test_profile_of_a_users_gaussian():
    query = torch.randn(30, 3, 5, dtype=torch.float64)
    state = torch.get_rng_state()
    profile, reason = diagnostics.kernel_profile(Gaussian(5, 3), query, max_distance=2.0)
    assert torch.equal(torch.get_rng_state(), state)
    assert reason is None
    assert profile["normalised"] == "zero"
    distance = torch.tensor(profile["distance"], dtype=torch.float64)
    assert distance[0] == 0
    assert distance[-1] == 2.0
    expected = (-distance.square()).exp().expand(3, -1)
    for name in ("kernel", "low", "high"):
        torch.testing.assert_close(torch.tensor(profile[name], dtype=torch.float64), expected)


def test_profile_reaches_as_far_as_the_data():
    query = torch.zeros(20, 1, 2)
    query[10:, :, 0] = 3.0
    profile, _ = diagnostics.kernel_profile(Gaussian(2), query)
    assert profile["distance"][-1] == pytest.approx(3.0)
    single, _ = diagnostics.kernel_profile(Gaussian(2), query[:1])
    assert single["distance"][-1] == 1.0


def test_profile_of_a_kernel_that_vanishes_at_zero():
    profile, reason = diagnostics.kernel_profile(kernels.L2Distance(4, 2), torch.randn(30, 2, 4))
    assert reason is None
    assert profile["normalised"] == "maximum"
    for head in profile["kernel"]:
        assert max(head) == pytest.approx(1.0)
        assert head[0] < 1e-2


def test_profile_says_why_there_is_none():
    query = torch.randn(6, 2, 4)
    profile, reason = diagnostics.kernel_profile(kernels.Cosine(4, 2), query)
    assert profile is None
    assert "non-negative kernel" in reason

    class Broken(kernels.Kernel):
        def score(self, query, key):
            return (query * key).sum(dim=-1) * math.nan

    profile, reason = diagnostics.kernel_profile(Broken(4, 2), query)
    assert profile is None
    assert reason == "Broken gives scores that are not finite"
    assert diagnostics.kernel_profile(Gaussian(4, 2), query[:0])[0] is None


def test_neighbourhood_is_the_same_for_every_model():
    data = graph(200)
    alphas = torch.rand(2, data.edge_index.size(1), 3)
    first, second = (diagnostics.neighbourhood(data.edge_index, alpha, labels=data.y) for alpha in alphas)
    assert first["nodes"] == second["nodes"]
    assert first["edges"] == second["edges"]
    assert first["alpha"] != second["alpha"]
    order = torch.randperm(data.edge_index.size(1))
    shuffled = diagnostics.neighbourhood(data.edge_index[:, order], alphas[0][order], labels=data.y)
    assert shuffled["nodes"] == first["nodes"]


def test_neighbourhood_by_hand():
    # 4 and 5 both have three neighbours; those of 5 are of mixed classes.
    edges = [(0, 4), (1, 4), (2, 4), (0, 5), (1, 5), (3, 5), (5, 5), (2, 0)]
    edge_index = torch.tensor(edges).t()
    labels = torch.tensor([0, 1, 0, 2, 0, 0])
    labels[1] = 0
    labels[3] = 1
    alpha = torch.arange(8.0).view(8, 1)
    cut = diagnostics.neighbourhood(edge_index, alpha, labels=labels)
    assert cut["center"] == 5
    assert cut["nodes"] == [5, 0, 1, 3]
    assert cut["labels"] == [0, 0, 0, 1]
    assert cut["edges"] == [[0, 5], [1, 5], [3, 5], [5, 5]]
    assert cut["alpha"] == [[3.0], [4.0], [5.0], [6.0]]
    assert cut["targets"] == [5]
    assert cut["degree"] == 3
    two = diagnostics.neighbourhood(edge_index, alpha, center=5, hops=2)
    assert two["nodes"] == [5, 0, 1, 3, 2]
    assert two["targets"] == [5, 0, 1, 3]
    assert two["edges"][-1] == [2, 0]
    assert two["labels"] == [-1] * 5


def test_neighbourhood_of_a_hub_is_cut():
    edge_index = torch.stack([torch.arange(1, 101), torch.zeros(100, dtype=torch.long)])
    cut = diagnostics.neighbourhood(edge_index, torch.rand(100, 2), center=0, max_nodes=40)
    assert cut["nodes"] == list(range(40))
    assert len(cut["edges"]) == 39
    assert cut["degree"] == 100


def test_neighbourhood_refuses_a_node_outside():
    edge_index = torch.tensor([[0, 1], [1, 0]])
    with pytest.raises(IndexError, match=r"Expected 'center' in 0..1 \(got 2\)"):
        diagnostics.neighbourhood(edge_index, torch.rand(2, 1), center=2)


@pytest.mark.parametrize("heads", [1, 8, 16])
def test_record_is_small_and_strict_json(heads):
    data = graph(300, classes=7)
    data.x = torch.eye(300).to_sparse_csr()
    model = KernelGAT(300, 4 * heads, 2, 7, heads=heads, out_heads=1, kernel="rbf")
    model.train()
    task = SimpleNamespace(name="made", data=data)
    record = diagnostics.attention_record(model, task, {"model": "rbf", "seed": 3})
    text = json.dumps(record, allow_nan=False)
    assert len(text) < 30_000
    assert record == json.loads(text)
    assert model.training
    assert record["kind"] == "attention"
    assert (record["dataset"], record["model"], record["seed"]) == ("made", "rbf", 3)
    assert [layer["heads"] for layer in record["layers"]] == [heads, 1]
    assert len(record["layers"][0]["entropy"]) == heads
    assert sum(record["layers"][0]["histogram"]) == 300 * heads
    assert record["reason"] is None
    assert len(record["profile"]["kernel"]) == len(record["spectrum"]) == min(heads, 8)
    assert record["nodes_sampled"] == 256
    # Queries and keys have one projection, and RBF is positive definite.
    assert max(record["symmetry_gap"]) < 1e-5
    assert min(record["smallest_eigenvalue"]) > -1e-5
    cut = record["neighbourhood"]
    into = [a for (_, target), a in zip(cut["edges"], cut["alpha"], strict=True)
            if target == cut["center"]]  # fmt: skip
    assert torch.tensor(into).sum(dim=0).tolist() == pytest.approx([1.0] * len(into[0]), abs=1e-2)


def test_record_of_a_stock_layer_has_no_kernel():
    task = SimpleNamespace(name="made", data=graph())
    record = diagnostics.attention_record(StockGAT(5, 8, 2, 4, heads=2), task, {})
    assert record["profile"] is None
    assert record["spectrum"] is None
    assert record["reason"] == "GATConv has no kernel"
    assert record["neighbourhood"]["edges"]


def test_record_of_a_graph_without_edges():
    data = Data(x=torch.randn(2, 5), edge_index=torch.empty(2, 0, dtype=torch.long))
    model = GAT(5, 6, 1, heads=2, add_self_loops=False)
    task = SimpleNamespace(name="made", data=data)
    record = diagnostics.attention_record(model, task, {})
    assert record["neighbourhood"] is None
    assert record["layers"][0]["entropy"] == [None, None]
    json.dumps(record, allow_nan=False)


def test_record_of_the_other_flow_ends_at_the_targets():
    data = Data(x=torch.randn(4, 5), edge_index=torch.tensor([[0, 0, 0], [1, 2, 3]]))
    task = SimpleNamespace(name="made", data=data)
    model = GAT(5, 6, 1, heads=2, add_self_loops=False, flow="target_to_source")
    cut = diagnostics.attention_record(model, task, {})["neighbourhood"]
    assert cut["center"] == 0
    assert cut["edges"] == [[1, 0], [2, 0], [3, 0]]


def test_record_has_the_names_of_nodes_and_classes():
    data = graph(20, classes=3)
    data.y[0], data.node_id, data.classes = -1, [f"p{i}" for i in range(20)], ["red", "green", "blue"]
    task = SimpleNamespace(name="made", data=data)
    cut = diagnostics.attention_record(GAT(data.x.size(1), 6, 1, heads=2), task, {})["neighbourhood"]
    assert cut["name"] == f"p{cut['center']}"
    assert cut["classes"] == {str(i): data.classes[i] for i in sorted({i for i in cut["labels"] if i >= 0})}


def test_record_refuses_a_layer_that_is_not_there():
    task = SimpleNamespace(name="made", data=graph())
    with pytest.raises(IndexError, match=r"Expected 'layer' below 2 \(got 2\)"):
        diagnostics.attention_record(StockGAT(5, 8, 2, 4, heads=2), task, {}, layer=2)


def points(nodes=20, heads=2, channels=4, seed=0):
    return torch.randn(nodes, heads, channels, generator=torch.Generator().manual_seed(seed))


def test_law_of_frequencies_on_a_line():
    kernel = kernels.Spectral(4, 2, num_features=3)
    direction = torch.tensor([3.0, 0.0, 4.0, 0.0]) / 5
    with torch.no_grad():
        length = torch.arange(1.0, 7.0).view(2, 1, 3)
        for omega in (kernel.omega1, kernel.omega2):
            omega.copy_(direction.view(1, 4, 1) * length)
    law = diagnostics.spectral_law(kernel, points(), points())
    found = torch.tensor(law["frequencies"])  # both families and their mirror images
    assert found.shape == (2, 12, 2)
    assert law["share"] == pytest.approx(1.0)
    torch.testing.assert_close(
        found[..., 0].abs().sort().values[:, ::4], length.squeeze(1), atol=1e-5, rtol=0
    )
    assert found[..., 1].abs().max() < 1e-5
    torch.testing.assert_close(found.mean(dim=1), torch.zeros(2, 2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["implicit_spectral", "copula_spectral"])
@pytest.mark.parametrize("data_dependent", [False, True])
def test_law_of_a_sampler_is_drawn_anew(name, data_dependent):
    torch.manual_seed(0)
    kernel = kernels.resolve(f"rbf * {name}", 4, 2, num_features=4, data_dependent=data_dependent).eval()
    generator = torch.get_rng_state()
    law = diagnostics.spectral_law(kernel, points(), points())
    found = torch.tensor(law["frequencies"])
    assert found.shape == (2, 64, 2)
    assert found.flatten(0, 1).unique(dim=0).size(0) > 100
    assert 0.3 < law["share"] < 1.0
    assert not any(module.training for module in kernel.modules())
    assert torch.equal(torch.get_rng_state(), generator)
    assert diagnostics.spectral_law(kernels.RBF(4, 2), points(), points()) is None


def test_a_sample_of_nodes_is_seen_under_the_law_of_all():
    torch.manual_seed(0)
    kernel = kernels.ImplicitSpectral(4, 2, data_dependent=True).double().eval()
    query, key = points().double(), 3 * points().double() + 1
    whole = kernel(query, key).dense()
    gram = diagnostics.gram_matrix(kernel, query, key, max_nodes=7)
    rows = diagnostics.spectra.sample(20, 7, 0)
    expected = whole[rows][:, rows]
    torch.testing.assert_close(gram, (expected - expected.amax((0, 1))).exp())
    image = diagnostics.gram_image(kernel, query, key, max_nodes=7)
    torch.testing.assert_close(
        torch.tensor(image["values"]), gram.permute(2, 0, 1).float(), atol=1e-3, rtol=0
    )

    seen = []
    kernel.register_forward_hook(lambda module, args, gram: seen.append(args))
    diagnostics.kernel_profile(kernel, query, nodes=(query, key))
    torch.testing.assert_close(kernel.law(*seen[0]), kernel.law(query, key))


def test_correlation_of_heads_is_the_mean_over_channels():
    kernel = kernels.CopulaSpectral(4, 3) * kernels.Magnitude(4, 3)
    copula = kernel.parts[0]
    found = diagnostics.head_correlation(kernel, points(), points())
    torch.testing.assert_close(found, copula.correlation(copula.law()).mean(dim=0))
    assert diagnostics.head_correlation(kernels.RBF(4, 3), points(), points()) is None


def test_importance_is_what_the_magnitudes_add():
    key = points()
    kernel = (kernels.RBF(4, 2) * kernels.Magnitude(4, 2, p=1.0)) * kernels.Magnitude(4, 2)
    expected = (key.abs().sum(-1).square() + key.square().sum(-1)) / 4
    torch.testing.assert_close(diagnostics.importance(kernel, key), expected)
    assert diagnostics.importance(kernels.RBF(4, 2), key) is None


def test_image_is_sorted_by_class():
    x, labels = points(), torch.arange(20) % 3
    image = diagnostics.gram_image(Gaussian(4, 2), x, x, labels, max_nodes=12)
    assert image["labels"] == sorted(image["labels"])
    values = torch.tensor(image["values"])
    assert values.shape == (2, 12, 12)
    torch.testing.assert_close(values.diagonal(dim1=1, dim2=2), torch.ones(2, 12))
    nodes = sample(20, 12, 0)
    nodes = nodes[labels[nodes].argsort(stable=True)]
    expected = (-(x[nodes, 0][:, None] - x[nodes, 0]).square().sum(-1)).exp()
    torch.testing.assert_close(values[0], expected, atol=0.00051, rtol=0)


def test_record_of_a_spectral_layer():
    data = graph()
    torch.manual_seed(0)
    model = KernelGAT(5, 8, 2, 4, heads=2, kernel="copula_spectral", magnitude=1.5)
    task = SimpleNamespace(name="drawn", data=data)
    record = diagnostics.attention_record(model, task, {"model": "copula*l1.5", "seed": 0})
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert len(record["head_correlation"]) == 2
    assert len(record["importance"]["value"]) == len(record["importance"]["degree"]) == 60
    loops = degree(data.edge_index[1], 60).long() + 1
    assert record["importance"]["degree"] == loops.tolist()
    assert len(record["law"]["frequencies"]) == 2
    assert record["image"]["labels"] == sorted(record["image"]["labels"])


def two_domains(n=30, heads=2, channels=4):
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(n, heads, channels, dtype=torch.float64, generator=generator) for _ in range(2))


def test_negative_mass_by_hand():
    first = [[1.0, 4.0], [0.0, 1.0]]  # symmetric part: eigenvalues 3 and -1
    matrices = [first, [[0.0, 1.0], [1.0, 0.0]], [[-2.0, 0.0], [0.0, 6.0]]]
    gram = torch.tensor(matrices, dtype=torch.float64).permute(1, 2, 0)
    expected = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64)
    torch.testing.assert_close(diagnostics.negative_mass(gram), expected)
    with pytest.raises(ValueError, match=r"'gram' of shape \[N, N, H\]"):
        diagnostics.negative_mass(gram[:1])


def test_negative_mass_tells_definite_kernels_from_others():
    query, key = two_domains()
    for name, definite in (("rbf", True), ("intersection", True), ("sinc", True), ("l2_distance", False)):
        gram = diagnostics.gram_matrix(kernels.resolve(name, 4, 2).double(), query, query)
        assert bool((diagnostics.negative_mass(gram) < 1e-12).all()) == definite, name
    crossed = diagnostics.gram_matrix(kernels.DotProduct(4, 2), query, key)  # no Mercer kernel of nodes
    assert bool((diagnostics.negative_mass(crossed) > 0.05).all())
    assert bool((diagnostics.symmetry_gap(crossed) > 0.1).all())


# BKM T3: the L2 distance is conditionally negative definite.
def test_inertia_of_the_l2_distance():
    query, _ = two_domains()
    gram = diagnostics.gram_matrix(kernels.L2Distance(4, 2, eps=1e-30), query, query)
    assert diagnostics.inertia(gram).tolist() == [[1, 0, 29]] * 2
    assert diagnostics.inertia(gram, centred=True).tolist() == [[0, 1, 29]] * 2


# BKM T4: rank D (D + 1) / 2 + D + 1 = 15, of which a negative offset makes the D linear features negative.
def test_inertia_of_the_quadratic_kernel():
    query, key = two_domains(n=40)
    for offset, positive, negative in ((0.3, 15, 0), (-0.3, 11, 4)):
        kernel = kernels.Polynomial(4, 2, offset=offset, eps=1e-36).double()
        gram = diagnostics.gram_matrix(kernel, query, query)
        assert diagnostics.inertia(gram, tolerance=1e-12).tolist() == [[positive, 25, negative]] * 2
        assert diagnostics.numerical_rank(gram).tolist() == [15, 15]
        wide = diagnostics.gram_matrix(kernel, query[:20], key)
        assert diagnostics.numerical_rank(wide).tolist() == [15, 15]
        assert diagnostics.numerical_rank(wide, tolerance=2.0).tolist() == [0, 0]
    linear = torch.einsum("nhd,mhd->nmh", query, key)
    assert diagnostics.numerical_rank(linear.float()).tolist() == [4, 4]


def test_inertia_of_a_constant_is_one_feature():
    gram = torch.full((5, 5, 1), 3.0)
    assert diagnostics.inertia(gram).tolist() == [[1, 4, 0]]
    assert diagnostics.inertia(gram, centred=True).tolist() == [[0, 5, 0]]
    # Centring leaves the rounding of a sum of node biases, which is no eigenvalue.
    bias = torch.randn(20, 1, generator=torch.Generator().manual_seed(0))
    assert diagnostics.inertia(bias[:, None] + bias, centred=True).tolist() == [[0, 20, 0]]


def test_singular_values_of_a_wide_matrix():
    gram = torch.tensor([[3.0, 0.0, 4.0], [0.0, 1.0, 0.0]]).unsqueeze(-1)
    torch.testing.assert_close(diagnostics.singular_values(gram), torch.tensor([[1.0, 0.2]]))


# TD T3
def test_smoother_spectrum():
    query, key = two_domains()
    for name in ("rbf", "dot", "laplace"):
        gram = diagnostics.gram_matrix(kernels.resolve(name, 4, 2).double(), query, query)
        values = diagnostics.smoother_spectrum(gram)
        assert values.shape == (2, 30)
        assert values.imag.abs().max() < 1e-8
        assert values.real.min() > -1e-8
        torch.testing.assert_close(values[:, 0].real, torch.ones(2, dtype=torch.float64))
        assert (values.real.diff(dim=-1) <= 0).all()
        root = gram.sum(1).rsqrt()
        similar = (root[:, None] * gram * root).permute(2, 0, 1)
        expected = torch.linalg.eigvalsh(similar).flip(-1)
        torch.testing.assert_close(values.real, expected, rtol=1e-7, atol=1e-8)
    crossed = diagnostics.smoother_spectrum(diagnostics.gram_matrix(kernels.DotProduct(4, 2), query, key))
    assert crossed.real.min() < -1e-2
    assert crossed.imag.abs().max() > 1e-2
    torch.testing.assert_close(crossed[:, 0].real, torch.ones(2, dtype=torch.float64))


def test_smoother_spectrum_by_hand():
    gram = torch.tensor([[1.0, 3.0], [0.0, 2.0]]).unsqueeze(-1)  # rows [1/4, 3/4] and [0, 1]
    torch.testing.assert_close(diagnostics.smoother_spectrum(gram).real, torch.tensor([[1.0, 0.25]]))


def test_smoother_spectrum_of_nothing_to_see():
    gram = torch.tensor([[2.0, 0.0], [0.0, 0.0]]).unsqueeze(-1)
    assert diagnostics.smoother_spectrum(gram).real.tolist() == [[1.0, 0.0]]


def test_attention_spectrum_is_per_head():
    torch.manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(2, 3, n, n, dtype=torch.float64))[0] for n in (4, 5))
    sigma = torch.rand(2, 3, 4, dtype=torch.float64).sort(descending=True).values
    matrices = left @ torch.nn.functional.pad(sigma.diag_embed(), (0, 1)) @ right  # [2, H, 4, 5]
    alpha = matrices.permute(0, 2, 3, 1).requires_grad_()
    values = diagnostics.attention_spectrum(alpha)
    torch.testing.assert_close(values, sigma)
    assert not values.requires_grad
    torch.testing.assert_close(diagnostics.attention_spectrum(alpha[1]), sigma[1])
    with pytest.raises(ValueError, match=r"shape \[..., N, M, H\] \(got \[4, 4\]\)"):
        diagnostics.attention_spectrum(torch.eye(4))


def test_spectrum_of_softmax_attention():
    torch.manual_seed(0)
    attention, x = torch.nn.MultiheadAttention(6, 3, batch_first=True), torch.randn(2, 5, 6)
    alpha = attention(x, x, x, average_attn_weights=False)[1]  # [B, H, N, M]
    values = diagnostics.attention_spectrum(alpha.movedim(-3, -1))
    torch.testing.assert_close(values, torch.linalg.svdvals(alpha.detach()))


def test_spectra_record():
    layers = [torch.tensor([[[3.0, 1.0], [1.0, 1.0]], [[1.0, 0.0], [1.0, 1.0]]]), torch.ones(100)]
    record = diagnostics.spectra_record("drawn", {"model": "primal", "seed": 3}, layers)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert [record[name] for name in ("kind", "dataset", "model", "seed")] == [
        "spectra",
        "drawn",
        "primal",
        3,
    ]
    assert record["layers"][0] == [0.6875, 1.0]
    assert record["layers"][1] == pytest.approx([(i + 1) / 100 for i in range(SINGULAR_VALUES)])


def test_cumulative_spectrum():
    values = torch.tensor([[3.0, 1.0, 0.0], [1.0, 1.0, 2.0], [0.0, 0.0, 0.0]])
    expected = torch.tensor([[0.75, 1.0, 1.0], [0.25, 0.5, 1.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(diagnostics.cumulative_spectrum(values), expected)
    layer = PrimalAttention(6, 3, rank=2)
    cumulative = diagnostics.cumulative_spectrum(layer.singular_values(torch.randn(2, 9, 6)))
    assert cumulative.shape == (2, 3, 2)
    torch.testing.assert_close(cumulative[..., -1], torch.ones(2, 3))


def test_what_is_shown_of_a_kernel_is_in_the_units_of_its_inputs():
    query, key = torch.randn(9, 2, 4), torch.randn(9, 2, 4)
    scale = torch.tensor([[3.0], [0.5]])
    plain = kernels.resolve("spectral*magnitude", 4, 2)
    scaled = copy.deepcopy(plain)
    for part in scaled.parts:
        part.input_scale = scale
    assert torch.allclose(diagnostics.importance(scaled, key), diagnostics.importance(plain, scale * key))
    laws = [torch.tensor(diagnostics.spectral_law(k, query, key)["frequencies"]) for k in (plain, scaled)]
    # Frequencies of scaled inputs are scaled frequencies.
    spread = [law.flatten(1).norm(dim=1) for law in laws]
    assert spread[1][0] > 1.5 * spread[0][0]
    assert spread[1][1] < spread[0][1]


def test_head_distance_is_a_mean_over_pairs():
    alpha = torch.rand(2, 4, 5, 3, dtype=torch.float64)
    pairs = [(0, 1), (0, 2), (1, 2)]
    expected = sum((alpha[..., a] - alpha[..., b]).square().sum(dim=(1, 2)).sqrt() for a, b in pairs) / 3
    torch.testing.assert_close(diagnostics.head_distance(alpha), expected)
    same = alpha[..., :1].expand(-1, -1, -1, 3)
    assert not diagnostics.head_distance(same).any()
    with pytest.raises(ValueError, match="at least two heads"):
        diagnostics.head_distance(alpha[..., :1])


def test_trace_attention_leaves_the_model_as_it_is():
    model = KernelTransformer(8, 2, num_layers=2, decoder_layers=1, attention=["kernel", "primal", "kernel"])
    model.train()
    model.decoder[0].eval()
    modes = [module.training for module in model.modules()]
    x, y = torch.randn(3, 5, 8), torch.randn(3, 4, 8)
    outputs = []
    calls = diagnostics.trace_attention(model, lambda: outputs.append(model(x, y)))
    assert modes == [module.training for module in model.modules()]
    assert [None if call.alpha is None else tuple(call.alpha.shape) for call in calls] == [
        (3, 5, 5, 2),
        None,  # primal attention has none
        (3, 4, 4, 2),
        (3, 4, 5, 2),
    ]
    for call in calls:
        if call.alpha is not None:
            torch.testing.assert_close(call.alpha.sum(dim=2), torch.ones(3, call.alpha.size(1), 2))
    assert calls[-1].key is not calls[-1].query
    torch.testing.assert_close(outputs[0], model.eval()(x, y))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_trace_attention_gives_modules_what_they_were_asked_for():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = KernelAttention(8, 2)

        def forward(self, x):
            return self.attention(x), self.attention(x, average_attn_weights=False)

    model, x = Model(), torch.randn(3, 5, 8)
    seen = []
    calls = diagnostics.trace_attention(model, lambda: seen.extend(model(x)))
    assert [tuple(weights.shape) for _, weights in seen] == [(3, 5, 5), (3, 2, 5, 5)]
    torch.testing.assert_close(calls[1].alpha, seen[1][1].movedim(1, -1))


OF_GRAMS = {
    "cumulative_spectrum": lambda gram: diagnostics.cumulative_spectrum(diagnostics.singular_values(gram)),
    "effective_rank": lambda gram: diagnostics.effective_rank(diagnostics.singular_values(gram)),
    "effective_rank of attention": lambda gram: diagnostics.effective_rank(
        diagnostics.attention_spectrum(gram)
    ),
    **{
        name: getattr(diagnostics, name)
        for name in (
            *("attention_spectrum", "singular_values", "numerical_rank", "smoother_spectrum"),
            *("symmetry_gap", "smallest_eigenvalue", "negative_mass", "inertia"),
        )
    },
}


def test_all_spectra_are_under_the_law():
    takes_one = {
        name
        for name in diagnostics.__all__
        if next(iter(inspect.signature(getattr(diagnostics, name)).parameters)) in ("gram", "singular_values")
    }
    assert takes_one - {"spectra_record"} <= OF_GRAMS.keys()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("nodes", [1, 3])
@pytest.mark.parametrize("name", OF_GRAMS)
def test_what_is_said_of_a_matrix_of_zeros_is_zero_and_other_heads_know_nothing_of_it(name, nodes, dtype):
    torch.manual_seed(0)
    gram = torch.rand(nodes, nodes, 3, dtype=dtype) + 0.1
    of_all = OF_GRAMS[name](gram)
    gram[..., 1] = 0.0
    found = OF_GRAMS[name](gram)
    assert torch.equal(found[::2], of_all[::2])
    if name == "inertia":
        assert found[1].tolist() == [0, nodes, 0]
    else:
        assert not found[1].any()  # NaN is some


def test_a_kernel_that_is_zero_has_a_gram_matrix_of_zeros():
    gram = diagnostics.gram_matrix(
        Given([[0.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 2.0]]), *[torch.zeros(2, 2, 1)] * 2
    )
    assert gram[..., 0].tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert gram[..., 1].tolist() == [[0.5, 0.0], [0.0, 1.0]]


def test_a_gram_matrix_without_heads_is_a_sentence():
    for function in (diagnostics.singular_values, diagnostics.numerical_rank):
        with pytest.raises(
            ValueError, match=r"'gram' of shape \[N, M, H\] \(got \[3, 4\]\); heads come last"
        ):
            function(torch.ones(3, 4))


def undocumented(item):
    r"""What the docstring of a function or a class does not say."""
    doc = inspect.getdoc(item) or ""
    for parameter in inspect.signature(item).parameters.values():
        starred = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        entry = re.search(rf"^    \*{{0,2}}{parameter.name}(?: \(|:).*?(?=^    \S|^\S|\Z)", doc, re.S | re.M)
        if entry is None:
            yield f"'{parameter.name}'"
        elif not starred and parameter.default is not parameter.empty and "(default:" not in entry[0]:
            yield f"the default of '{parameter.name}'"
    if "Example:\n    >>> " not in doc:
        yield "an example"
    if "(torch.Tensor" in doc and "Shapes:" not in doc:
        yield "shapes"


PUBLIC = {
    f"{room.__name__}.{name}": getattr(room, name)
    for room in (diagnostics, models, nn)
    for name in room.__all__
} | {
    f"functional.{name}": item
    for name, item in vars(functional).items()
    if inspect.isfunction(item) and item.__module__ == functional.__name__ and not name.startswith("_")
}


@pytest.mark.parametrize("item", PUBLIC.values(), ids=PUBLIC.keys())
def test_docstrings_are_whole(item):
    assert not list(undocumented(item))


def test_what_a_docstring_lacks_is_told():
    def lacking(gram, tolerance=1.0):
        r"""Nothing.

        Args:
            tolerance (torch.Tensor, optional): Without a default.
        """

    assert list(undocumented(lacking)) == ["'gram'", "the default of 'tolerance'", "an example", "shapes"]
