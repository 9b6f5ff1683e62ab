import copy

import pytest
import torch
import torch.nn.functional as F
from torch_geometric.data import HeteroData
from torch_geometric.nn import HeteroConv

from kgat import KernelGATConv
from kgat.experiments.stock import StockGAT, StockGATv2, StockSAGE
from kgat.loader import NeighborLoader
from kgat.models import HeteroGNN, KernelHeteroGAT

CITES, WRITES, HAS, OF = (
    ("paper", "cites", "paper"),
    ("author", "writes", "paper"),
    ("paper", "has", "topic"),
    ("topic", "of", "paper"),
)
# Nothing points to an author.
SIZES = {"paper": 9, "author": 5, "topic": 4}
CHANNELS = {"paper": 6, "author": 3, "topic": 2}


def graph(dtype=torch.float64, sizes=SIZES, edges=12, attr=False):
    generator = torch.Generator().manual_seed(0)
    data = HeteroData()
    for name, size in sizes.items():
        data[name].x = torch.randn(size, CHANNELS[name], generator=generator, dtype=dtype)
    for edge in (CITES, WRITES, HAS, OF):
        ends = [torch.randint(max(sizes[of], 1), (edges,), generator=generator) for of in (edge[0], edge[2])]
        empty = 0 in (sizes[edge[0]], sizes[edge[2]])
        data[edge].edge_index = torch.stack(ends)[:, : 0 if empty else edges]
    if attr:
        for edge, width in ((CITES, 2), (HAS, 1)):
            count = data[edge].edge_index.size(1)
            data[edge].edge_attr = torch.randn(count, width, generator=generator, dtype=dtype)
    return data


DATA = graph()
INPUTS = DATA.x_dict, DATA.edge_index_dict


def build(cls=KernelHeteroGAT, *args, dtype=torch.float64, **options):
    torch.manual_seed(0)
    given = {"metadata": DATA.metadata(), "heads": 2, "act": "elu", **options}
    return cls(*args, CHANNELS, 8, 2, 5, **given).to(dtype)


def by_hand(model, x, edge_index, aggr, residual, edge_dim, attr, **options):
    r"""The same layers in plain HeteroConvs, and where their parameters stand in the model."""
    x = {name: F.elu(F.linear(x[name], lin.weight, lin.bias)) for name, lin in model.lins.items()}
    for layer in range(2):
        out_channels, concat = (5, False) if layer else (4, True)
        convs = {}
        for edge in DATA.edge_types:
            width = 8 if edge[0] == edge[2] else (8, 8)
            convs[edge] = KernelGATConv(
                width, out_channels, 2, concat, edge_dim=edge_dim.get(edge), add_self_loops=False, **options
            ).double()
        plain = HeteroConv(convs, aggr)
        for edge in DATA.edge_types:  # the very parameters, so that gradients meet in them
            ours, theirs = model.convs[layer].convs[edge], plain.convs[edge]
            names = [name for name, _ in theirs.named_parameters()]
            assert names == [name for name, _ in ours.named_parameters()]
            for name in names:
                holder, _, last = name.rpartition(".")
                setattr(theirs.get_submodule(holder), last, ours.get_parameter(name))
        out = plain(x, edge_index, **({"edge_attr_dict": attr} if attr else {}))
        for name in x:
            if residual or name == "author":
                lin = model.lins_res[layer][name]
                out[name] = F.linear(x[name], lin.weight, lin.bias) + out.get(name, 0.0)
        x = out if layer else {name: F.elu(h) for name, h in out.items()}
    return x


@pytest.mark.filterwarnings("ignore:There exist node types")
@pytest.mark.parametrize("aggr", ["sum", "mean", "min", "max"])
@pytest.mark.parametrize(
    ("residual", "attr", "options"),
    [
        (False, False, {"kernel": "additive"}),
        (True, True, {"kernel": "rbf", "magnitude": 1.5}),
        (True, False, {"kernel": "dot_product", "projections": "separate", "projection_bias": True}),
    ],
)
def test_it_is_a_heteroconv_of_our_layers(aggr, residual, attr, options):
    data = graph(attr=attr)
    edge_dim = {CITES: 2, HAS: 1} if attr else {}
    model = build(aggr=aggr, residual=residual, edge_dim=edge_dim or None, **options)
    attrs = data.edge_attr_dict if attr else None
    given = data.x_dict, data.edge_index_dict
    weight = {name: torch.randn(size, 5).double() for name, size in SIZES.items()}
    answers, gradients = [], []
    for out in (
        model(*given, attrs),
        by_hand(model, *given, aggr, residual, edge_dim, attrs, **options),
    ):
        answers.append({name: out[name] for name in SIZES})
        model.zero_grad()
        sum((out[name] * weight[name]).sum() for name in SIZES).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(*answers, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)
    assert all(gradient.abs().sum() > 0 for name, gradient in gradients[0].items() if "lins" in name)


@pytest.mark.parametrize(("stock", "kernel"), [(StockGAT, "additive"), (StockGATv2, "additive_v2")])
def test_the_frame_takes_layers_of_pyg(stock, kernel):
    options = {"projections": "shared_kv", "projection_bias": True} if stock is StockGATv2 else {}
    ours = build(kernel=kernel, value_dropout=0.5, **options).eval()
    theirs = build(HeteroGNN, stock, value_dropout=0.5).eval()
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(*INPUTS), theirs(*INPUTS), rtol=1e-12, atol=1e-12)
    theirs.train()
    assert not torch.equal(theirs(*INPUTS)["paper"], theirs(*INPUTS)["paper"])


def test_sage_of_all_types_is_r_gcn():
    model = HeteroGNN(StockSAGE, CHANNELS, 8, 1, 5, metadata=DATA.metadata(), residual=False).double()
    x = {name: F.relu(lin(DATA[name].x)) for name, lin in model.lins.items()}
    expected = torch.zeros(9, 5, dtype=torch.float64)
    for edge in (CITES, WRITES, OF):
        layer = model.convs[0].convs[edge].conv
        row, col = DATA[edge].edge_index
        for node in range(9):
            if (col == node).any():
                expected[node] += layer.lin_l.weight @ x[edge[0]][row[col == node]].mean(dim=0)
        expected += layer.lin_l.bias + x["paper"] @ layer.lin_r.weight.t()
    torch.testing.assert_close(model(*INPUTS)["paper"], expected)


def test_types_without_nodes_and_without_edges():
    model = build(kernel="rbf", norm="batch_norm")
    for sizes in (
        {**SIZES, "topic": 0},
        {**SIZES, "author": 0},
        {**SIZES, "paper": 1},
        dict.fromkeys(SIZES, 0),
    ):
        data = graph(sizes=sizes)
        out = model(data.x_dict, data.edge_index_dict)
        assert {name: h.shape for name, h in out.items()} == {name: (n, 5) for name, n in sizes.items()}
        assert all(h.isfinite().all() for h in out.values())
        model.zero_grad()
        sum(h.sum() for h in out.values()).backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_a_missing_type_of_edges_is_one_without_edges():
    model = build(kernel="rbf", aggr="mean")
    empty = {edge: index[:, :0] if edge in (WRITES, HAS) else index for edge, index in INPUTS[1].items()}
    fewer = {edge: index for edge, index in INPUTS[1].items() if edge not in (WRITES, HAS)}
    torch.testing.assert_close(model(INPUTS[0], fewer), model(INPUTS[0], empty), rtol=0, atol=0)


def test_a_bipartite_graph_of_one_type_of_edges():
    metadata = (["author", "paper"], [WRITES])
    sizes = {name: CHANNELS[name] for name in metadata[0]}
    model = KernelHeteroGAT(sizes, 8, 3, metadata=metadata, heads=2, kernel="laplace").double()
    out = model({name: INPUTS[0][name] for name in metadata[0]}, {WRITES: INPUTS[1][WRITES]})
    assert {name: h.shape for name, h in out.items()} == {"author": (5, 8), "paper": (9, 8)}


def test_what_the_target_does_not_depend_on_has_no_parameters():
    whole, part = build(kernel="rbf"), build(kernel="rbf", target="topic")
    assert not whole.load_state_dict(whole.state_dict()).missing_keys
    part.load_state_dict({name: whole.state_dict()[name] for name in part.state_dict()})
    out = part(*INPUTS)
    assert list(out) == ["topic"]
    assert len(part.convs[1].convs) == 1
    torch.testing.assert_close(out["topic"], whole(*INPUTS)["topic"], rtol=0, atol=0)
    out["topic"].sum().backward()
    assert all(p.grad is not None for p in part.parameters())
    single = build(kernel="rbf", target="author")  # on which nothing has an influence but itself
    assert single({"author": INPUTS[0]["author"]}, {})["author"].shape == (5, 5)


def test_sizes_are_derived_from_the_first_input():
    torch.manual_seed(0)
    model = KernelHeteroGAT(-1, 8, 2, 5, metadata=DATA.metadata(), heads=2, kernel="rbf").double()
    model(*INPUTS)
    assert {name: lin.in_channels for name, lin in model.lins.items()} == CHANNELS
    first = model(*INPUTS)["paper"]
    model.reset_parameters()
    assert not torch.equal(model(*INPUTS)["paper"], first)


def test_self_loops_join_nodes_of_a_type_alone():
    model = build(kernel="rbf", add_self_loops=True)
    for layer in model.convs:
        assert {edge: conv.add_self_loops for edge, conv in layer.convs.items()} == {
            edge: edge == CITES for edge in DATA.edge_types
        }
    assert not torch.equal(model(*INPUTS)["paper"], build(kernel="rbf")(*INPUTS)["paper"])


def test_starts_and_penalties_of_all_layers():
    model = build(kernel="rbf", start="unit")
    model(*INPUTS)
    assert (
        len([name for name in model.state_dict() if "input_scale" in name]) == 8
    )  # 2 layers, 4 types of edges
    model = build(kernel="implicit_spectral")
    losses = []
    model(*INPUTS, losses=losses)
    assert model.penalised
    assert len(losses) == 8
    assert not build(kernel="rbf").penalised


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("where", ["dropout", "input_dropout"])
def test_dropout_of_both_kinds(where, training):
    model = build(kernel="rbf", norm="layer_norm", **{where: 0.5}).train(training)
    for layer in model.convs:  # between layers, too, not on weights alone
        for conv in layer.convs.values():
            conv.dropout = 0.0
    one, other = (model(*INPUTS)["topic"] for _ in range(2))
    assert torch.equal(one, other) is not training


def test_sampled_batches_give_the_full_answer():
    data = graph(torch.float64, attr=True)
    model = build(kernel="rbf", edge_dim={CITES: 2, HAS: 1}, target="paper").eval()
    full = model(data.x_dict, data.edge_index_dict, data.edge_attr_dict)["paper"]
    nodes = torch.tensor([7, 2, 4])
    loader = NeighborLoader(data, [-1, -1], input_nodes=("paper", nodes), batch_size=3)
    batch = next(iter(loader))
    hops = batch.num_sampled_nodes_dict, batch.num_sampled_edges_dict
    for given in ((), hops):
        out = model(batch.x_dict, batch.edge_index_dict, batch.edge_attr_dict, *given)
        torch.testing.assert_close(out["paper"][:3], full[nodes], rtol=1e-12, atol=1e-12)
    batch = next(iter(NeighborLoader(data, [-1], input_nodes=("paper", nodes), batch_size=3)))
    hops = batch.num_sampled_nodes_dict, batch.num_sampled_edges_dict
    deep = KernelHeteroGAT(CHANNELS, 8, 3, metadata=data.metadata(), edge_dim={CITES: 2, HAS: 1}).double()
    with pytest.raises(ValueError, match=r"as many hops .* .got 1 for 3 layers.; sample more hops"):
        deep(batch.x_dict, batch.edge_index_dict, batch.edge_attr_dict, *hops)


def test_it_is_copied_compiled_and_described():
    model = build(kernel="rbf")
    torch.testing.assert_close(copy.deepcopy(model)(*INPUTS), model(*INPUTS), rtol=0, atol=0)
    single = KernelHeteroGAT(CHANNELS, 8, 1, metadata=DATA.metadata(), target="topic").double()
    compiled = torch.compile(single, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*INPUTS), single(*INPUTS), rtol=1e-12, atol=1e-12)
    assert repr(model) == "KernelHeteroGAT(8, 5, num_layers=2, edge_types=4)"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"metadata": (["paper"], [WRITES])},
            r"at the ends of .*'writes'.* .got 'author'.; choose from: paper",
        ),
        ({"metadata": (["paper"], [])}, r"Expected types of edges in 'metadata' .got none."),
        ({"target": "papr"}, r"'target' as a type of nodes .got 'papr'.; .* did you mean 'paper'"),
        (
            {"in_channels": {"paper": 6}},
            r"'in_channels' of type 'author' .got .*'paper': 6.*; name it, or pass -1",
        ),
        ({"in_channels": {**CHANNELS, "autor": 1}}, r"as keys of 'in_channels' .got 'autor'.* mean 'author'"),
        ({"edge_dim": {("paper", "cited", "paper"): 1}}, r"as keys of 'edge_dim' .got .*did you mean"),
        ({"aggr": "cat"}, r"'aggr' as one of 'sum', 'mean', 'min', 'max' .got 'cat'"),
        ({"jk": "cat"}, r"Expected no 'jk' of a heterogeneous model .got 'cat'"),
        ({"pre_linear": True}, r"Expected no .pre_linear. of a heterogeneous model .got .True."),
        ({"kernel": "rbg"}, r"got 'rbg'"),
    ],
)
def test_models_that_cannot_be_built(options, message):
    given = {"in_channels": CHANNELS, "metadata": DATA.metadata(), **options}
    with pytest.raises(ValueError, match=message):
        KernelHeteroGAT(hidden_channels=8, num_layers=2, **given)


def test_inputs_that_do_not_fit():
    model = build(kernel="rbf")
    x, edges = INPUTS
    with pytest.raises(ValueError, match=r"features of the nodes of type 'topic' .* .got those of 'paper'"):
        model({"paper": x["paper"], "author": x["author"]}, edges)
    with pytest.raises(ValueError, match=r"shape \[nodes, 2\] of type 'topic' .got \[9, 6\]"):
        model({**x, "topic": x["paper"]}, edges)
    with pytest.raises(
        ValueError, match=r"keys of 'edge_index_dict' .got .*'wrote'.* did you mean .*'writes'"
    ):
        model(x, {**edges, ("author", "wrote", "paper"): edges[WRITES]})
    with pytest.raises(ValueError, match=r"keys of 'edge_attr_dict'"):
        model(x, edges, {("author", "wrote", "paper"): x["paper"]})
