import copy

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.nn import to_hetero
from torch_geometric.nn.models import GAT
from torch_geometric.utils import k_hop_subgraph

from kgat import KernelGAT, KernelGATConv
from kgat.experiments.stock import StockGAT, StockGATv2
from kgat.loader import NeighborLoader
from kgat.models import SequenceClassifier
from kgat.nn import GlobalAttention, KernelDecoderLayer, KernelEncoderLayer

pytestmark = pytest.mark.quick

torch.manual_seed(0)
X = torch.randn(30, 16)
EDGES = torch.randint(0, 30, (2, 90))


@pytest.mark.parametrize("jk", [None, "last", "cat", "max", "lstm"])
@pytest.mark.parametrize("norm", [None, "batch_norm", "layer_norm"])
def test_shapes(norm, jk):
    model = KernelGAT(16, 24, 3, 5, heads=4, kernel="rbf", norm=norm, jk=jk, act="elu", dropout=0.1)
    assert model(X, EDGES).shape == (30, 5)
    model(X, EDGES).sum().backward()
    without_out = KernelGAT(16, 24, 2, heads=4, kernel="rbf", jk=jk)
    assert without_out(X, EDGES).shape == (30, 24)


def test_equals_pyg_gat():
    stock = GAT(16, 24, 2, 5, heads=4)
    for ours in (StockGAT(16, 24, 2, 5, heads=4), KernelGAT(16, 24, 2, 5, heads=4)):
        ours.load_state_dict(stock.state_dict())
        torch.testing.assert_close(ours(X, EDGES), stock(X, EDGES))


def test_last_layer_has_its_own_heads():
    model = KernelGAT(16, 24, 2, 5, heads=4, out_heads=1)
    assert [conv.heads for conv in model.convs] == [4, 1]
    assert [conv.concat for conv in model.convs] == [True, False]


def test_edge_features_and_weights_reach_the_layers():
    model = KernelGAT(16, 24, 2, 5, heads=4, kernel="rbf", edge_dim=3)
    attr, weight = torch.randn(90, 3), torch.rand(90)
    plain = model(X, EDGES)
    assert not torch.allclose(plain, model(X, EDGES, edge_attr=attr))
    assert not torch.allclose(plain, model(X, EDGES, edge_weight=weight))


@pytest.mark.parametrize("layout", ["dense", "csr"])
def test_input_dropout(layout):
    x = (X > 1).float()
    given = x.to_sparse_csr() if layout == "csr" else x
    model = KernelGAT(16, 24, 1, heads=4, add_self_loops=False, input_dropout=0.5)
    assert not torch.equal(model(given, EDGES), model(given, EDGES))
    model.eval()
    torch.testing.assert_close(model(given, EDGES), model(x, EDGES))
    model.train()
    # Dropped entries are 0, kept ones doubled: seen through a layer that passes its input on.
    conv = KernelGATConv(16, 16, kernel="rbf", bias=False)
    conv.lin.weight.data = torch.eye(16)
    model.convs[0] = conv
    out = model(given, torch.empty(2, 0, dtype=torch.long)).detach()
    assert set(out[x > 0].round(decimals=5).tolist()) == {0.0, 2.0}  # weights sum to 1 but for rounding
    assert set(out[x == 0].tolist()) == {0.0}


@pytest.mark.parametrize("model_class", [KernelGAT, StockGAT, StockGATv2])
def test_value_dropout(model_class):
    torch.manual_seed(0)
    model = model_class(16, 24, 1, heads=4, value_dropout=0.5)
    none = torch.empty(2, 0, dtype=torch.long)  # each node sees itself alone: its value comes out
    value = model.eval()(X, none)
    ratio = model.train()(X, none) / value
    assert set(ratio.round().flatten().tolist()) == {0.0, 2.0}
    assert torch.equal(model.eval()(X, none), value)
    copied = copy.deepcopy(model)
    assert torch.equal(copied(X, none), value)


@pytest.mark.parametrize("model_class", [KernelGAT, StockGAT, StockGATv2])
def test_layer_wise_inference_equals_the_full_graph(model_class):
    model = model_class(16, 24, 2, 5, heads=4, input_dropout=0.5).eval()
    loader = NeighborLoader(Data(x=X, edge_index=EDGES), num_neighbors=[-1], batch_size=7)
    torch.testing.assert_close(model.inference(loader), model(X, EDGES))


def test_sampled_blocks_with_trimming():
    model = KernelGAT(16, 24, 2, 5, heads=4, kernel="rbf").eval()
    loader = NeighborLoader(Data(x=X, edge_index=EDGES), num_neighbors=[-1, -1], batch_size=6)
    full = model(X, EDGES)
    for batch in loader:
        sizes = {
            "num_sampled_nodes_per_hop": batch.num_sampled_nodes,
            "num_sampled_edges_per_hop": batch.num_sampled_edges,
        }
        for extra in ({}, sizes):
            out = model(batch.x, batch.edge_index, **extra)[: batch.batch_size]
            torch.testing.assert_close(out, full[batch.input_id], rtol=1e-4, atol=1e-5)


def test_a_block_of_whole_neighbourhoods_equals_the_full_graph():
    model = KernelGAT(16, 24, 2, 5, heads=4, kernel="rbf").eval()
    full = model(X, EDGES)
    for seeds in (torch.tensor([3]), torch.tensor([7, 0, 12])):
        nodes, edges, where, _ = k_hop_subgraph(seeds, 2, EDGES, relabel_nodes=True, num_nodes=30)
        torch.testing.assert_close(model(X[nodes], edges)[where], full[seeds])


def test_bipartite_block_whose_targets_come_first():
    conv = KernelGATConv(16, 5, heads=3, kernel="rbf")
    targets = torch.arange(10)
    keep = EDGES[1] < 10
    sources = torch.unique(EDGES[0, keep])
    nodes = torch.cat([targets, sources[sources >= 10]])
    position = torch.full((30,), -1)
    position[nodes] = torch.arange(nodes.numel())
    block = position[EDGES[:, keep]]
    out = conv((X[nodes], X[targets]), block)
    torch.testing.assert_close(out, conv(X, EDGES)[targets])


def test_hidden_channels_must_divide():
    with pytest.raises(ValueError, match=r"'hidden_channels' divisible by 'heads=3' \(got 16\)"):
        KernelGAT(8, 16, 2, 4, heads=3)


def test_positions_reach_every_layer():
    torch.manual_seed(0)
    model = KernelGAT(4, 6, 2, 3, heads=3, kernel="rbf", position_dim=5)
    x, edges = torch.randn(6, 4), torch.randint(0, 6, (2, 20))
    position = torch.randn(6, 5)
    out = model(x, edges, position=position)
    first, second = model.convs
    hidden = model.act(first(x, edges, position=position))
    torch.testing.assert_close(out, second(hidden, edges, position=position))
    out.square().sum().backward()
    assert all(conv.lin_position.weight.grad.abs().sum() > 0 for conv in model.convs)
    with pytest.raises(ValueError, match="'position' of shape"):
        model(x, edges)
    assert KernelGAT(4, 6, 1, 3, heads=3, position_dim=5, position_kernel="implicit_spectral").penalised


@pytest.mark.parametrize("jk", [None, "last", "cat", "lstm"])
@pytest.mark.parametrize("norm", [None, "batch_norm", "graph_norm"])
@pytest.mark.parametrize("options", [{}, {"act": "elu", "act_first": True}, {"act": None}], ids=str)
def test_the_stack_is_that_of_pyg(options, norm, jk):
    torch.manual_seed(0)
    stock = GAT(16, 24, 3, 5, heads=4, norm=norm, jk=jk, edge_dim=2, **options)
    batch, attr = torch.arange(30) // 10, torch.randn(90, 2)
    expected = stock(X, EDGES, edge_attr=attr, batch=batch, batch_size=3)
    for cls in (KernelGAT, StockGAT):
        ours = cls(16, 24, 3, 5, heads=4, norm=norm, jk=jk, edge_dim=2, **options)
        ours.load_state_dict(stock.state_dict(), strict=cls is KernelGAT)
        for module in ours.modules():  # as stock's were before the forward pass
            if isinstance(module, torch.nn.BatchNorm1d):
                module.reset_running_stats()
        out = ours(X, EDGES, edge_attr=attr, batch=batch, batch_size=3)
        torch.testing.assert_close(out, expected)


def test_trimmed_layers_keep_what_belongs_to_nodes_and_edges():
    torch.manual_seed(0)
    # Nodes in order of their distance from node 0, edges in order of their targets' distance.
    edges = torch.tensor([[1, 2, 3, 4, 5, 3], [0, 0, 1, 1, 2, 2]])
    hops = {"num_sampled_nodes_per_hop": [1, 2, 3], "num_sampled_edges_per_hop": [2, 4]}
    model = KernelGAT(16, 24, 2, 5, heads=4, kernel="implicit_spectral", edge_dim=3, position_dim=4).eval()
    given = {
        "edge_attr": torch.randn(6, 3),
        "edge_weight": torch.rand(6),
        "position": torch.randn(6, 4),
        "batch": torch.zeros(6, dtype=torch.long),
    }
    full = model(X[:6], edges, **given)
    torch.testing.assert_close(model(X[:6], edges, **given, **hops)[0], full[0])


METADATA = (["a", "b"], [("a", "to", "b"), ("b", "to", "a"), ("a", "to", "a")])


def hetero(model):
    nodes = {"a": 6, "b": 4}
    x = {name: torch.randn(size, 16) for name, size in nodes.items()}
    edges = {kind: torch.randint(0, 4, (2, 9)) for kind in METADATA[1]}
    return to_hetero(model, METADATA), x, edges


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", [{"jk": "cat", "norm": "layer_norm"}, {"input_dropout": 0.5}], ids=str)
def test_heterogeneous_models_of_both_modes(options, training):
    torch.manual_seed(0)
    model = KernelGAT((-1, -1), 24, 2, 5, heads=4, add_self_loops=False, **options)
    model, x, edges = hetero(model.train(training))
    out = model(x, edges)
    assert {name: h.shape for name, h in out.items()} == {"a": (6, 5), "b": (4, 5)}
    sum(h.sum() for h in out.values()).backward()


@pytest.mark.parametrize("traced", ["eval", "train"])
def test_a_heterogeneous_model_drops_features_in_training_alone(traced):
    torch.manual_seed(0)
    model = KernelGAT((-1, -1), 24, 1, 5, heads=4, add_self_loops=False, input_dropout=0.5)
    model, x, edges = hetero(getattr(model, traced)())
    model.train()
    assert not torch.equal(model(x, edges)["b"], model(x, edges)["b"])
    model.eval()
    assert torch.equal(model(x, edges)["b"], model(x, edges)["b"])


def test_heterogeneous_models_take_places_and_penalties():
    torch.manual_seed(0)
    options = {"kernel": "implicit_spectral", "position_dim": 4, "add_self_loops": False}
    model, x, edges = hetero(KernelGAT((-1, -1), 24, 1, 5, heads=4, **options))
    position = {"a": torch.randn(6, 4), "b": torch.randn(4, 4)}
    losses = {"a": [], "b": []}
    model(x, edges, position=position, losses=losses)
    assert [len(found) for found in losses.values()] == [2, 1]  # a penalty for each kind of edges into a type


def test_the_rate_of_input_dropout_can_be_set():
    model = KernelGAT(16, 24, 1, heads=4, input_dropout=0.25)
    assert model.input_dropout == 0.25
    model.input_dropout = 1.0
    torch.testing.assert_close(model(X, EDGES), model(torch.zeros_like(X), EDGES))
    assert set(model.state_dict()) == set(KernelGAT(16, 24, 1, heads=4).state_dict())


@pytest.mark.parametrize("model_class", [KernelGAT, StockGAT])
@pytest.mark.parametrize("layout", [torch.strided, torch.sparse_csr])
def test_a_linear_layer_in_front(model_class, layout):
    model = model_class(
        6, 8, 2, 3, heads=2, dropout=0.9, pre_linear=True, jk="last", norm="layer_norm[mode=node]"
    )
    x, edge_index = torch.rand(7, 6), torch.tensor([[0, 1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6, 0]])
    given = x if layout == torch.strided else x.to_sparse_csr()
    h = torch.nn.functional.linear(x, model.lin_in.weight, model.lin_in.bias)
    model.eval()
    for conv, norm in zip(model.convs, model.norms, strict=True):
        h = norm(conv(h, edge_index)).relu()
    torch.testing.assert_close(model(given, edge_index), model.lin(h))
    torch.testing.assert_close(model.inference(given, edge_index, rows=3), model.lin(h))
    before = model.lin_in.weight.clone()
    model.reset_parameters()
    assert not torch.equal(model.lin_in.weight, before)
    model.train()
    assert (model._entered(given) == 0).any()  # dropped behind the map, too
    assert model.in_channels == 6


def test_dropout_on_weights_apart_from_that_between_layers():
    model = KernelGAT(6, 8, 2, 3, dropout=0.5, attention_dropout=0.1)
    assert ([conv.dropout for conv in model.convs], model.dropout.p) == ([0.1, 0.1], 0.5)
    assert [conv.dropout for conv in KernelGAT(6, 8, 2, 3, dropout=0.5).convs] == [0.5, 0.5]


def test_arguments_of_the_stack_that_do_not_fit():
    with pytest.raises(ValueError, match=r"one size of all nodes because 'pre_linear'.*\(6, 7\)"):
        KernelGAT((6, 7), 8, 2, 3, pre_linear=True)
    with pytest.raises(ValueError, match=r"'layer_norm\[mood=node\]'.*did you mean 'mode'"):
        KernelGAT(6, 8, 2, 3, norm="layer_norm[mood=node]")


def test_norms_that_take_more_than_channels():
    assert KernelGAT(6, 8, 2, 3, heads=2, norm="diff_group_norm[groups=4]").norms[0].groups == 4
    for norm in ("diff_group_norm", "graph_size_norm", "mean_subtraction_norm"):
        with pytest.raises(
            ValueError, match=r"Expected 'norm' as a norm of PyG that takes channels.*groups=4"
        ):
            KernelGAT(6, 8, 2, 3, heads=2, norm=norm)


@pytest.mark.parametrize(
    ("argument", "value", "meant"), [("norm", "batch_nrm", "BatchNorm"), ("act", "relo", "ReLU")]
)
@pytest.mark.parametrize("model", [KernelGAT, StockGAT])
def test_names_that_nobody_resolves_are_told_from_those_that_are(model, argument, value, meant):
    expected = rf"Expected '{argument}' as a name .*\(got '{value}'\); .*did you mean '{meant}'"
    with pytest.raises(ValueError, match=expected):
        model(6, 8, 2, 3, **{argument: value})
    model(6, 8, 2, 3, heads=2, **{argument: meant})


def test_activations_of_sequences_are_told_likewise():
    for make in (KernelEncoderLayer, KernelDecoderLayer):
        with pytest.raises(ValueError, match=r"Expected 'act' as a name .*did you mean 'GELU'"):
            make(8, 2, act="gelo")
    with pytest.raises(ValueError, match=r"Expected 'act' as a name .*did you mean 'GELU'"):
        SequenceClassifier(3, in_channels=4, act="gelo")


# --- Attention over all nodes -----------------------------------------------------------------------------


@pytest.mark.parametrize("stack", [KernelGAT, StockGAT])
def test_attention_over_all_nodes_is_added_between_hidden_layers(stack):
    model = stack(16, 16, 3, 5, heads=4, out_heads=1, norm="layer_norm", global_attention="rbf").eval()
    first, middle, last = model.convs  # the first is not one, although its channels do not change
    assert [isinstance(conv, GlobalAttention) for conv in model.convs] == [False, True, False]
    h = model.act(model.norms[0](first(X, EDGES)))
    tokens = h.unsqueeze(0)
    far = middle.attention(tokens, tokens, tokens)[0].squeeze(0)
    h = model.act(model.norms[1](middle.local(h, EDGES) + far))
    torch.testing.assert_close(model(X, EDGES), last(h, EDGES))


@pytest.mark.parametrize(("options", "places"), [({"pre_linear": True}, [0]), ({"jk": "last"}, [1])])
def test_other_layers_between_hidden_ones(options, places):
    model = KernelGAT(16, 24, 2, 5, heads=4, kernel="rbf", global_attention="dot", **options)
    assert [place for place, conv in enumerate(model.convs) if isinstance(conv, GlobalAttention)] == places
    assert model(X.to_sparse_csr(), EDGES).shape == (30, 5)


@pytest.mark.parametrize("name", ["primal", "laplace"])
def test_inference_with_attention_over_all_nodes(name):
    options = {"global_attention": name, "position_dim": 3, "pre_linear": True}
    model = KernelGAT(16, 24, 3, 5, heads=4, kernel="rbf", **options).eval()
    of_nodes = {"position": torch.rand(30, 3), "batch": torch.arange(30) // 10}
    kept = EDGES[:, EDGES[0] // 10 == EDGES[1] // 10]
    out = model(X, kept, **of_nodes)
    torch.testing.assert_close(model.inference(X, kept, rows=7, **of_nodes), out, atol=1e-5, rtol=1e-5)
    one = kept[:, kept[0] < 10]  # no graph sees another
    torch.testing.assert_close(model(X[:10], one, position=of_nodes["position"][:10]), out[:10])


@pytest.mark.parametrize("stack", [KernelGAT, StockGAT])
def test_penalties_of_primal_attention_reach_the_loss(stack):
    model = stack(16, 24, 3, 5, heads=4, global_attention="primal")
    assert model.penalised
    assert not stack(16, 24, 3, 5, heads=4, global_attention="dot").penalised
    losses = []
    model(X, EDGES, losses=losses)
    assert len(losses) == 1
    with pytest.raises(TypeError, match="no 'losses'"):
        StockGAT(16, 24, 3, 5, heads=4)(X, EDGES, losses=[])


def test_no_layer_for_attention_over_all_nodes(tmp_path):
    with pytest.raises(ValueError, match=r"between hidden ones for global_attention='dot' \(got 2 without\)"):
        KernelGAT(16, 24, 2, 5, heads=4, global_attention="dot")
    model = KernelGAT(16, 24, 3, 5, heads=4, kernel="rbf", global_attention="primal").eval()
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(KernelGAT.from_pretrained(tmp_path)(X, EDGES), model(X, EDGES))
