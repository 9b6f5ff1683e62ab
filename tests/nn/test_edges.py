r"""Every format of an adjacency is the list of its edges, with self-loops and features, backwards too."""

import pytest
import torch
from torch_geometric.nn import GATConv
from torch_geometric.typing import SparseTensor

from kgat import KernelGATConv
from kgat.diagnostics import attention_weights
from kgat.nn import edges as formats

pytestmark = pytest.mark.quick

X = torch.randn(6, 16, generator=torch.Generator().manual_seed(0))
# Sorted by target, then by source, as matrices hold them; loops at 1 and 3; node 5 isolated.
EDGES = torch.tensor([[1, 4, 1, 3, 0, 3], [0, 0, 1, 1, 2, 3]])
ATTR = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))


class Matrix(SparseTensor):
    r"""What a layer asks of torch_sparse's class: entries that are sorted by row, then by column."""

    def __init__(self, row, col, value=None, sparse_sizes=None, is_sorted=False):
        order = (row * sparse_sizes[1] + col).argsort(stable=True)
        self.entries = row[order], col[order], None if value is None else value[order]
        self.sizes = sparse_sizes
        assert not is_sorted or order.tolist() == list(range(row.numel()))

    def coo(self):
        return self.entries

    def sparse_sizes(self):
        return self.sizes

    def size(self, dim):
        return self.sizes[dim]


def matrix(layout, edges, value=None, size=(6, 6)):
    if layout == "SparseTensor":
        return Matrix(edges[1], edges[0], value, size)
    value = torch.ones(edges.size(1)) if value is None else value
    coo = torch.sparse_coo_tensor(edges.flip(0), value, (*size, *value.shape[1:])).coalesce()
    return {"coo": lambda: coo, "csr": coo.to_sparse_csr, "csc": coo.to_sparse_csc}[layout]()


def in_order(edges, alpha):
    order = (edges[1] * 100 + edges[0]).argsort(stable=True)
    return edges[:, order], alpha[order]


@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("layout", ["SparseTensor", "coo", "csr", "csc"])
@pytest.mark.parametrize("fill_value", ["mean", "max", 2.0, torch.tensor([1.0, -1.0, 0.5])], ids=str)
@pytest.mark.parametrize("given", ["as values", "beside"])
@pytest.mark.parametrize("kernel", ["additive", "rbf"])
def test_formats_with_edge_features(kernel, given, fill_value, layout, loops):
    if layout == "csc" and given == "as values":
        pytest.skip("torch has no CSC tensors of vectors")
    torch.manual_seed(0)
    net = KernelGATConv(
        *(16, 5, 3), kernel=kernel, edge_dim=3, fill_value=fill_value, add_self_loops=loops
    ).double()
    x, attr = X.double(), ATTR.double().requires_grad_()
    weight = torch.linspace(0.5, 2, 6, dtype=torch.float64)
    if layout == "csc":  # its entries are sorted by source
        order = (EDGES[0] * 6 + EDGES[1]).argsort()
        adjacency, features, weights = matrix(layout, EDGES), attr[order], weight[order]
    elif given == "beside":
        adjacency, features, weights = matrix(layout, EDGES), attr, weight
    else:
        adjacency, features, weights = matrix(layout, EDGES, attr), None, weight
    expected, (edges, alpha) = net(x, EDGES, attr, edge_weight=weight, return_attention_weights=True)
    out = net(x, adjacency, features, edge_weight=weights)
    torch.testing.assert_close(out, expected)
    grads = [torch.autograd.grad(o.square().sum(), attr, retain_graph=True)[0] for o in (out, expected)]
    torch.testing.assert_close(*grads)
    # Weights come in the format of the adjacency, at the places of their edges.
    again, attached = net(x, adjacency, features, edge_weight=weights, return_attention_weights=True)
    assert torch.equal(again, out)
    edges, alpha = in_order(edges, alpha)
    if layout == "SparseTensor":
        row, col, found = attached.coo()
        torch.testing.assert_close((torch.stack([col, row]), found), (edges, alpha))
        return
    adj, found = attached
    assert adj.layout == adjacency.layout
    assert adj.shape[:2] == (6, 6)
    dense = torch.zeros(6, 6, 3, dtype=torch.float64).index_put((edges[1], edges[0]), alpha)
    if layout != "csc":
        torch.testing.assert_close(found, alpha)
        torch.testing.assert_close(adj.to_sparse_coo().to_dense(), dense)


@pytest.mark.parametrize("loops", [True, False])
def test_scalar_values_of_a_sparse_tensor_are_edge_features(loops):
    net = KernelGATConv(16, 5, heads=3, edge_dim=1, add_self_loops=loops)
    value = torch.linspace(-1, 1, 6)
    expected = net(X, EDGES, value)
    assert not torch.allclose(expected, net(X, EDGES))
    torch.testing.assert_close(net(X, matrix("SparseTensor", EDGES, value)), expected)
    # A layer without edge features does not read them, as GATConv does not.
    plain = KernelGATConv(16, 5, heads=3, add_self_loops=loops)
    torch.testing.assert_close(plain(X, matrix("SparseTensor", EDGES, value.long())), plain(X, EDGES))
    with pytest.raises(ValueError, match=r"'edge_attr' of shape \[E=6, 3\]"):
        KernelGATConv(16, 5, edge_dim=3)(X, matrix("SparseTensor", EDGES, value))


def test_matrices_that_are_not_square():
    torch.manual_seed(0)
    net = KernelGATConv((16, 7), 5, heads=3, edge_dim=3)
    x = X, torch.randn(4, 7)
    expected = net(x, EDGES, ATTR)
    for layout in ("SparseTensor", "coo", "csr"):
        torch.testing.assert_close(net(x, matrix(layout, EDGES, ATTR, (4, 6))), expected)


@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_weights_of_sparse_adjacencies_are_those_of_gat_conv(layout):
    torch.manual_seed(0)
    stock = GATConv(16, 5, heads=3)
    ours = KernelGATConv.from_gat(stock)
    for adjacency in (matrix(layout, EDGES), matrix(layout, EDGES[:, :0])):
        results = [net(X, adjacency, return_attention_weights=True) for net in (ours, stock)]
        torch.testing.assert_close(results[0][0], results[1][0])
        torch.testing.assert_close(results[0][1][1], results[1][1][1])
        torch.testing.assert_close(*(result[1][0].to_dense() for result in results))


def test_loops_of_a_remembered_graph_are_sorted_once(monkeypatch):
    built = []
    order = formats._order
    monkeypatch.setattr(formats, "_order", lambda *args: built.append(1) or order(*args))
    net, adjacency = KernelGATConv(16, 5, heads=3), matrix("csr", EDGES)
    for _ in range(3):
        net(X, adjacency)
    assert len(built) == 1


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("fill_value", ["mean", "max", 2.0], ids=str)
@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
def test_features_of_loops_where_one_side_has_more_nodes(flow, fill_value, beside):
    # The nodes that both sides have come first: loops of these, and edges of all.
    torch.manual_seed(0)
    small, large = X[:2].double(), X.double()
    edges = torch.tensor([[0, 1, 1, 0, 1], [5, 0, 2, 4, 0]])  # nodes without a loop are on the lower side
    x = (small, large) if flow == "source_to_target" else (large, small)
    attr = ATTR[:5].double().requires_grad_()
    net = KernelGATConv((16, 16), 5, 3, edge_dim=3, fill_value=fill_value, flow=flow).double()
    given = formats.read_edges(edges, attr, None, edge_dim=3)
    if beside:  # as in compiled code
        adjacency = formats.with_self_loops_beside(given, 2, fill_value)
        assert torch.equal(adjacency.hidden, torch.zeros(7))
        looped = adjacency.attr
    else:
        looped = formats.with_self_loops(given, 2, fill_value).attr
    reduced = attr[[1, 4]].mean(0) if fill_value == "mean" else attr[[1, 4]].amax(0)
    loops = [reduced, torch.zeros(3)] if isinstance(fill_value, str) else [torch.full((3,), fill_value)] * 2
    expected = torch.cat([attr, torch.stack(loops).to(attr)])
    torch.testing.assert_close(looped, expected)
    alone = KernelGATConv((16, 16), 5, 3, edge_dim=3, add_self_loops=False, flow=flow).double()
    alone.load_state_dict(net.state_dict())
    with_loops = torch.cat([edges, torch.arange(2).expand(2, 2)], dim=1)
    outputs = net(x, edges, attr), alone(x, with_loops, expected)
    torch.testing.assert_close(*outputs)
    grads = [torch.autograd.grad(out.square().sum(), attr, retain_graph=True)[0] for out in outputs]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("edge_mode", ["score", "key"])
@pytest.mark.parametrize("wrong", [6, 100, -1])
def test_edges_to_no_node_are_named_beside_features_of_loops(wrong, edge_mode):
    net = KernelGATConv(16, 5, edge_dim=3, edge_mode=edge_mode)
    with pytest.raises(IndexError, match=rf"target indices .* \(got {wrong}\)"):
        net(X, torch.tensor([[0, 1], [1, wrong]]), ATTR[:2])


@pytest.mark.parametrize("size", [(3, 3), (8, 8), (6, 5), (5, 6)])
@pytest.mark.parametrize("with_weights", [False, True])
@pytest.mark.parametrize("add_self_loops", [False, True])
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc])
def test_a_matrix_of_other_nodes_is_refused(layout, add_self_loops, with_weights, size):
    # Loops of all nodes would be written to a matrix of fewer, beyond its end.
    adjacency = torch.eye(*size).to_sparse(layout=layout)
    conv = KernelGATConv(16, 4, add_self_loops=add_self_loops)
    with pytest.raises(ValueError, match=rf"shape \[6, 6\].*got \[{size[0]}, {size[1]}\]"):
        conv(X, adjacency, return_attention_weights=with_weights or None)
    with pytest.raises(ValueError, match=r"[Ss]ize|layout"):  # PyG takes no csc
        GATConv(16, 4, add_self_loops=add_self_loops)(X, adjacency)


@pytest.mark.parametrize("wrong", [None, [[0, 1], [1, 0]], EDGES.numpy()])
def test_what_is_no_adjacency_is_refused_by_its_type(wrong):
    with pytest.raises(TypeError, match=rf"'edge_index' as a tensor.*got {type(wrong).__name__}"):
        KernelGATConv(16, 4)(X, wrong)
    with pytest.raises(TypeError, match="node features as a tensor"):
        KernelGATConv(16, 4)(X.tolist(), EDGES)


@pytest.mark.parametrize("loops", [True, False])
def test_a_matrix_that_is_not_coalesced_stays_as_it_is(loops):
    # PyG's 'to_edge_index' calls it coalesced from then on, and torch computes wrong numbers of it.
    index = torch.tensor([[2, 0, 2, 1, 2], [1, 3, 1, 0, 2]])
    adjacency = torch.sparse_coo_tensor(index, torch.arange(1.0, 6.0), (4, 4), is_coalesced=False)
    dense = adjacency.to_dense()
    conv = KernelGATConv(16, 4, heads=2, add_self_loops=loops)
    expected = conv(X[:4], index.flip(0))
    out, (same, alpha) = conv(X[:4], adjacency, return_attention_weights=True)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(conv(X[:4], adjacency), expected)
    assert not adjacency.is_coalesced()
    assert torch.equal(adjacency.to_sparse_csr().to_dense(), dense)
    assert torch.equal((adjacency * adjacency).to_dense(), dense * dense)
    # Nor is what comes back called what it is not.
    assert not same.is_coalesced()
    of_nodes = same.to_sparse_csr().to_dense().sum(dim=(1, 2))
    torch.testing.assert_close(of_nodes, same.to_dense().sum(dim=(1, 2)))
    assert attention_weights(conv, X[:4], adjacency)[0][1].size(0) == alpha.size(0)
    assert not adjacency.is_coalesced()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "options", [{"edge_dim": 3}, {"edge_dim": 3, "edge_mode": "key"}, {"weight_mode": "alpha"}, {}]
)
def test_what_is_on_removed_loops_is_not_looked_at(options, bad):
    # As of directions of edges, which have length zero on loops. Both ways of adding loops, forward and back.
    conv = KernelGATConv(16, 4, heads=2, kernel="rbf", **options).double()
    loop = EDGES[0] == EDGES[1]
    x = X.double()
    attr, weight = ATTR.double().clone(), torch.rand(6, dtype=torch.double)
    attr[loop], weight[loop] = bad, bad
    given = {"edge_attr": attr} if "edge_dim" in options else {"edge_weight": weight}
    rest = {name: value[~loop] for name, value in given.items()}
    expected = conv(x, EDGES[:, ~loop], **rest)
    gradients = torch.autograd.grad(expected.square().sum(), list(conv.parameters()))
    compiled = torch.compile(conv, backend="eager")
    for call in (conv, compiled):
        out = call(x, EDGES, **given)
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(
            torch.autograd.grad(out.square().sum(), list(conv.parameters())), gradients
        )
