r"""Layers of PyG and of torch, their checkpoints and their optimizers: what is moved to layers of ours and
back loses neither weights nor settings."""

import copy
import types

import pytest
import torch
from torch.nn import MultiheadAttention, Parameter
from torch_geometric.nn import GATConv, GATv2Conv, PowerMeanAggregation, SoftmaxAggregation

from kgat import KernelAttention, KernelGATConv

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(6, 16, generator=GENERATOR)
EDGES = torch.tensor([[0, 1, 2, 3, 3, 0, 0, 4], [1, 2, 0, 3, 1, 1, 1, 0]])
ATTR = torch.randn(8, 3, generator=GENERATOR)
V2 = {"kernel": "additive_v2", "projection_bias": True, "edge_mode": "key"}


def drawn(layer):
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(generator=GENERATOR)
    return layer


def frozen(layer):
    return {name for name, parameter in layer.named_parameters() if not parameter.requires_grad}


# --- Parameters that are frozen ---------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [16, (16, 16)])
def test_each_parameter_of_gat_conv_is_frozen_alone_and_back(channels):
    options = {"edge_dim": 3, "residual": True}
    for name, _ in GATConv(channels, 5, heads=3, **options).named_parameters():
        stock = GATConv(channels, 5, heads=3, **options)
        stock.get_parameter(name).requires_grad_(False)
        ours = KernelGATConv.from_gat(stock)
        assert len(frozen(ours)) == 1
        found = {"kernel.att_key": "att_src", "kernel.att_query": "att_dst"}
        assert {found.get(own, own) for own in frozen(ours)} == {name}
        assert frozen(ours.to_gat()) == {name}
    ours = KernelGATConv.from_gat(stock, position_dim=4)
    assert frozen(ours) == {name}  # what the stock layer has not is learned


@pytest.mark.parametrize("projections", ["shared", "shared_kv"])
@pytest.mark.parametrize("channels", [16, (16, 16)])
def test_each_parameter_of_gatv2_conv_is_frozen_alone(channels, projections):
    def build():
        return KernelGATConv(channels, 5, heads=3, edge_dim=3, residual=True, projections=projections, **V2)

    for name, _ in build().named_parameters():
        ours = build()
        ours.get_parameter(name).requires_grad_(False)
        stock = ours.to_gatv2()
        assert len(frozen(stock)) == 1
        again, state = build(), stock.state_dict(keep_vars=True)  # which names a shared map twice
        again.load_state_dict({n: torch.full_like(p, not p.requires_grad) for n, p in state.items()})
        assert all(bool(p.any()) == (n == name) for n, p in again.named_parameters())


@pytest.mark.parametrize("options", [{}, {"kdim": 6, "vdim": 5}, {"add_bias_kv": True}], ids=str)
def test_each_parameter_of_torch_is_frozen_alone(options):
    for name, _ in MultiheadAttention(8, 2, **options).named_parameters():
        stock = MultiheadAttention(8, 2, **options)
        stock.get_parameter(name).requires_grad_(False)
        assert frozen(KernelAttention.from_torch(stock)) == {name}
        assert frozen(KernelAttention.from_torch(stock, kernel="rbf")) == {name}


def test_weights_keep_the_digits_of_double_precision():
    stock = drawn(GATConv(16, 5, heads=3).double())
    ours = KernelGATConv.from_gat(stock)
    assert torch.equal(ours.lin.weight, stock.lin.weight)
    assert torch.equal(ours.to_gat().lin.weight, stock.lin.weight)
    torch.testing.assert_close(ours(X.double(), EDGES), stock(X.double(), EDGES), rtol=1e-12, atol=1e-12)


# --- Aggregations -----------------------------------------------------------------------------------------

AGGREGATIONS = {
    "its arguments": ("softmax", {"t": 5.0}),
    "one more": ("powermean", {"p": 2.0}),
    "one that needs them": ("quantile", {"q": 0.25}),
    "learned": ("softmax", {"learn": True, "t": 3.0}),
    "a module": (SoftmaxAggregation(learn=True, t=3.0), None),
    "another": (PowerMeanAggregation(p=3.0), None),
    "several": (["sum", "mean", "softmax"], {"aggrs_kwargs": [{}, {}, {"t": 7.0}], "mode": "mean"}),
    "a name": ("mean", None),
    "the usual one": ("add", None),
}


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_an_aggregation_goes_along(name):
    aggr, aggr_kwargs = AGGREGATIONS[name]
    stock = GATConv(16, 5, heads=3, aggr=copy.deepcopy(aggr), aggr_kwargs=aggr_kwargs)
    drawn(stock.aggr_module)
    ours = KernelGATConv.from_gat(stock)
    back = ours.to_gat()
    assert ours.aggr == back.aggr == stock.aggr
    x = X.abs()  # for powers that are not whole
    torch.testing.assert_close(ours(x, EDGES), stock(x, EDGES), equal_nan=True)
    torch.testing.assert_close(back(x, EDGES), stock(x, EDGES), equal_nan=True)
    assert not {id(p) for p in stock.parameters()} & {id(p) for p in (*ours.parameters(), *back.parameters())}
    v2 = KernelGATConv(16, 5, 3, projections="shared_kv", **V2, aggr=stock.aggr_module)
    torch.testing.assert_close(v2.to_gatv2()(x, EDGES), v2(x, EDGES), equal_nan=True)


# --- Layers that compute something else -------------------------------------------------------------------


def below(cls, name):
    r"""A subclass with a method of its own, which PyG reads the arguments of."""
    above = getattr(cls, name, lambda self: None)
    above = getattr(above, "__wrapped__", above)
    own = types.FunctionType(above.__code__, above.__globals__, name, above.__defaults__, above.__closure__)
    own.__annotations__, own.__kwdefaults__, own.__module__ = above.__annotations__, None, __name__
    return type("Below", (cls,), {name: own, "__module__": __name__})


@pytest.mark.parametrize(
    "name",
    [
        "forward",
        "message",
        "edge_update",
        "aggregate",
        "update",
        "propagate",
        "message_and_aggregate",
        "__call__",
    ],
)
def test_a_subclass_of_a_layer_of_pyg_is_refused(name):
    for stock in (GATConv(16, 5), below(GATConv, "note")(16, 5)):
        stock(X, EDGES)  # PyG writes what it compiles on the class
        KernelGATConv.from_gat(stock)
    with pytest.raises(TypeError, match=rf"got Below with its own '{name}', .*; build KernelGATConv"):
        KernelGATConv.from_gat(below(GATConv, name)(16, 5))
    mixin = type("Mixin", (), {name: vars(below(GATConv, name))[name]})
    with pytest.raises(TypeError, match=rf"got Mixed with its own '{name}'"):
        KernelGATConv.from_gat(type("Mixed", (mixin, GATConv), {})(16, 5))
    if name == "edge_update":  # which ours refuses itself
        return
    with pytest.raises(TypeError, match=rf"'{name}', .*; override in a subclass of GATConv what it"):
        below(KernelGATConv, name)(16, 5).to_gat()
    with pytest.raises(TypeError, match=rf"'{name}', .*; override in a subclass of GATv2Conv what it"):
        below(KernelGATConv, name)(16, 5, projections="shared_kv", **V2).to_gatv2()


def test_a_method_of_a_layer_alone_is_refused():
    stock = GATConv(16, 5)
    stock.message = types.MethodType(lambda self, x_j, alpha: x_j, stock)
    with pytest.raises(TypeError, match="got GATConv with its own 'message'"):
        KernelGATConv.from_gat(stock)


def test_a_subclass_that_computes_the_same_is_taken():
    class Named(GATConv):
        note = "mine"

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.seen = 0

        def reset_parameters(self):
            super().reset_parameters()

        def count(self):
            self.seen += 1

    class Ours(KernelGATConv):
        def to_gat(self):
            return super().to_gat()

    stock = Named(16, 5)
    stock.decomposed_layers = 2  # PyG then has a method on the layer
    stock.decomposed_layers = 1
    ours = Ours.from_gat(stock)
    assert type(ours) is Ours
    torch.testing.assert_close(ours(X, EDGES), stock(X, EDGES))
    torch.testing.assert_close(ours.to_gat()(X, EDGES), stock(X, EDGES))


@pytest.mark.parametrize("name", ["forward", "merge_masks"])
def test_a_subclass_of_attention_is_refused(name):
    KernelAttention.from_torch(below(MultiheadAttention, "note")(8, 2))
    with pytest.raises(TypeError, match=rf"got Below with its own '{name}', .*; build KernelAttention"):
        KernelAttention.from_torch(below(MultiheadAttention, name)(8, 2))
    with pytest.raises(
        TypeError, match=r"Expected a MultiheadAttention \(got Linear\); build KernelAttention"
    ):
        KernelAttention.from_torch(torch.nn.Linear(8, 8))


# --- Checkpoints ------------------------------------------------------------------------------------------


def test_checkpoints_of_pyg_that_name_one_map_twice():
    stock = GATConv(16, 5, heads=3)
    state = stock.state_dict()
    weight = state.pop("lin.weight")
    for other in (weight, weight.clone()):
        net = torch.nn.ModuleList([KernelGATConv(16, 5, heads=3)])
        given = {
            f"0.{n}": v for n, v in (state | {"lin_src.weight": weight, "lin_dst.weight": other}).items()
        }
        before = dict(given)
        net.load_state_dict(given)
        assert given == before
        torch.testing.assert_close(net[0](X, EDGES), stock(X, EDGES))
    given["0.lin_dst.weight"] = weight + 1.0
    with pytest.raises(RuntimeError, match=r"equal '0.lin_src.weight' and '0.lin_dst.weight'.* \(got two\)"):
        net.load_state_dict(given)
    pair = KernelGATConv((16, 16), 5, heads=3)  # which has a map for each side
    pair.load_state_dict({name.removeprefix("0."): value for name, value in given.items()})
    assert torch.equal(pair.lin_dst.weight, weight + 1.0)
    with torch.device("meta"):
        there, meta = GATConv(16, 5, heads=3).state_dict(), KernelGATConv(16, 5, heads=3)
    there["lin_src.weight"] = there["lin_dst.weight"] = there.pop("lin.weight")
    meta.load_state_dict(there, assign=True)


@pytest.mark.parametrize("edge_dim", [None, 3])
@pytest.mark.parametrize("channels", [16, (16, 16)])
@pytest.mark.parametrize("share", [True, False])
def test_checkpoints_of_gatv2_conv_with_one_map_or_two(channels, edge_dim, share):
    stock = drawn(GATv2Conv(channels, 5, heads=3, share_weights=share, edge_dim=edge_dim, residual=True))
    args = (X if channels == 16 else (X, X), EDGES, *(() if edge_dim is None else (ATTR,)))
    for projections in ("shared", "shared_kv"):
        ours = KernelGATConv(
            channels, 5, heads=3, projections=projections, edge_dim=edge_dim, residual=True, **V2
        )
        if projections == "shared" and channels == 16 and not share:
            with pytest.raises(RuntimeError, match=r"equal 'lin_l.weight' and 'lin_r.weight'.*'shared_kv'"):
                ours.load_state_dict(stock.state_dict())
            continue
        ours.load_state_dict(stock.state_dict())
        torch.testing.assert_close(ours(*args), stock(*args), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours.to_gatv2()(*args), stock(*args), rtol=1e-4, atol=1e-4)


# --- Attention vectors by GATConv's names, and optimizers -------------------------------------------------


def test_a_vector_that_is_set_says_whether_it_is_learned():
    conv = KernelGATConv(16, 5, heads=3)
    conv.att_src = Parameter(torch.ones(1, 3, 5), requires_grad=False)
    assert frozen(conv) == {"kernel.att_key"}
    conv.att_src = torch.zeros(3, 5)
    assert frozen(conv) == {"kernel.att_key"}
    conv.att_src = Parameter(torch.ones(3, 5))
    assert not frozen(conv)
    for value, got in ((torch.ones(1, 5, 3), r"\[1, 5, 3\]"), (None, "NoneType")):
        with pytest.raises(ValueError, match=rf"'att_dst' as a tensor.*\(got {got}\).*'kernel.att_query'"):
            conv.att_dst = value
    assert "kernel.att_key" in KernelGATConv.att_src.__doc__


def test_the_state_of_an_optimizer_moves_by_name():
    # As the page "From GATConv" has it.
    stock = torch.nn.ModuleList([GATConv(16, 8, heads=2), GATConv(16, 3)])
    ours = torch.nn.ModuleList([KernelGATConv(16, 8, heads=2), KernelGATConv(16, 3)])
    ours.load_state_dict(stock.state_dict())
    of_stock, of_ours = (torch.optim.Adam(net.parameters(), lr=0.1) for net in (stock, ours))

    def step(net, optimizer):
        optimizer.zero_grad()
        net[1](net[0](X, EDGES).relu(), EDGES).square().sum().backward()
        optimizer.step()

    step(stock, of_stock)
    ours.load_state_dict(stock.state_dict())

    place = {name: i for i, (name, _) in enumerate(stock.named_parameters())}
    state = copy.deepcopy(of_stock.state_dict())  # it holds the tensors of the optimizer itself
    moved = {}
    for i, (name, parameter) in enumerate(ours.named_parameters()):
        name = name.replace("kernel.att_key", "att_src").replace("kernel.att_query", "att_dst")
        moved[i] = {
            key: value.view_as(parameter) if torch.is_tensor(value) and value.dim() else value
            for key, value in state["state"][place[name]].items()
        }
    of_ours.load_state_dict({"state": moved, "param_groups": state["param_groups"]})

    for _ in range(3):
        step(stock, of_stock)
        step(ours, of_ours)
    out, wanted = (net[1](net[0](X, EDGES).relu(), EDGES) for net in (ours, stock))
    torch.testing.assert_close(out, wanted, rtol=1e-3, atol=1e-4)
