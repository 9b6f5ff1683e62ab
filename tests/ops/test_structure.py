import gc

import pytest
import torch

from kgat import KernelGATConv
from kgat.functional import edge_attention, edge_softmax
from kgat.kernels import RBF
from kgat.ops.graph import memory
from kgat.ops.graph.adjacency import Adjacency
from kgat.ops.graph.structure import Structure, Transpose

pytestmark = pytest.mark.quick


def test_structure_sorts_both_ways():
    edge_index = torch.tensor([[3, 0, 1, 0], [1, 0, 1, 2]])
    s = Structure.of(edge_index, 1, 3, 4, 1)
    assert s.row.tolist() == [0, 1, 1, 2]
    assert s.col.tolist() == [0, 3, 1, 0]
    assert s.rowptr.tolist() == [0, 1, 3, 4]
    assert s.edge.tolist() == [1, 0, 2, 3]
    assert s.col[s.csc_perm].tolist() == [0, 0, 1, 3]
    assert s.csc_row.tolist() == [0, 2, 1, 1]
    assert s.colptr.tolist() == [0, 2, 3, 3, 4]


def test_heads_are_rows_of_their_own():
    torch.manual_seed(0)
    edge_index = torch.stack([torch.randint(0, 4, (9,)), torch.randint(0, 3, (9,))])
    heads = 3
    s = Structure.of(edge_index, 1, 5, 4, heads)
    assert (s.num_rows, s.num_cols) == (15, 12)
    edge, head = s.edge // heads, s.edge % heads
    assert torch.equal(s.row, (edge_index[1][edge] * heads + head).int())
    assert torch.equal(s.col, (edge_index[0][edge] * heads + head).int())
    assert torch.equal(s.row, s.row.sort().values)
    assert torch.equal(s.rowptr, torch.searchsorted(s.row, torch.arange(16), out_int32=True))
    assert sorted(s.edge.tolist()) == list(range(27))
    perm = s.csc_perm.long()
    assert torch.equal(s.col[perm], s.col.sort().values)
    assert torch.equal(s.colptr, torch.searchsorted(s.col[perm], torch.arange(13), out_int32=True))
    assert torch.equal(s.csc_row, s.row[perm])


def test_structure_is_built_once_and_forgotten_with_its_tensor():
    edge_index = torch.tensor([[0, 1], [1, 0]])
    first = Structure.of(edge_index, 1, 2, 2, 1)
    assert Structure.of(edge_index, 1, 2, 2, 1) is first
    assert Structure.of(edge_index, 1, 3, 2, 1) is not first
    assert Structure.of(edge_index, 0, 2, 2, 1) is not first
    assert Structure.of(edge_index, 1, 2, 2, 2) is not first
    key = id(edge_index)
    assert key in memory._MEMORY
    del edge_index
    gc.collect()
    assert key not in memory._MEMORY


def test_in_place_change_is_noticed():
    edge_index = torch.tensor([[0, 1], [1, 0]])
    Structure.of(edge_index, 1, 2, 2, 1)
    edge_index[1] = torch.tensor([0, 1])
    assert Structure.of(edge_index, 1, 2, 2, 1).row.tolist() == [0, 1]
    assert Structure.of(edge_index, 1, 2, 2, 1).col.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        (
            [[0, 5], [0, 1]],
            r"source indices of 'edge_index' in \[0, 3\] for 4 source nodes \(got 5\)",
        ),
        ([[0, -2], [0, 1]], r"source indices .* \(got -2\)"),
        (
            [[0, 1], [0, 3]],
            r"target indices of 'edge_index' in \[0, 2\] for 3 target nodes \(got 3\)",
        ),
    ],
)
def test_indices_out_of_range_are_named(edges, message):
    with pytest.raises(IndexError, match=message):
        Structure.of(torch.tensor(edges), 1, 3, 4, 1)


@pytest.mark.parametrize("backend", [None, "cpu", "eager", "reference"])
@pytest.mark.parametrize(
    "dtype",
    [
        *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.uint16, torch.uint32, torch.uint64),
        *(torch.float32, torch.float64, torch.complex64),
    ],
)
def test_one_rule_for_all_types_of_indices(dtype, backend):
    x = torch.randn(3, 1, 4)
    edges = torch.tensor([[0, 1], [1, 1]]).to(dtype)
    sentence = "Expected integer 'edge_index' of type int64 or int32"
    for _ in range(2):
        with pytest.raises(ValueError, match=sentence):
            edge_attention(RBF(4)(x, x), x, edges, backend=backend)
        for self_loops in (True, False):
            with pytest.raises(ValueError, match=sentence):
                KernelGATConv(4, 2, add_self_loops=self_loops, backend=backend)(x[:, 0], edges)
        with pytest.raises(ValueError, match=sentence):
            Adjacency.of(edges, 1, 3, 3)
        with pytest.raises(ValueError, match="Expected integer 'index' of type int64 or int32"):
            edge_softmax(torch.zeros(2), edges[0])
    assert id(edges) not in memory._MEMORY


@pytest.mark.parametrize("backend", ["cpu", "eager", "reference"])
@pytest.mark.parametrize("compiled", [False, True])
def test_indices_of_32_bits_give_the_same(backend, compiled):
    conv = KernelGATConv(4, 2, backend=backend)
    x, edges = torch.randn(3, 4), torch.tensor([[0, 1, 0], [1, 1, 2]])
    expected = conv(x, edges)
    if compiled and backend == "reference":
        return
    f = torch.compile(conv, backend="aot_eager") if compiled else conv
    torch.testing.assert_close(f(x, edges.int()), expected)
    torch.testing.assert_close(edge_softmax(x, edges[1].int(), 3), edge_softmax(x, edges[1], 3))


def test_transpose():
    torch.manual_seed(0)
    dense = torch.randn(5, 4) * (torch.rand(5, 4) > 0.5)
    matrix = dense.to_sparse_csr()
    transpose = Transpose.of(matrix)
    assert torch.equal(transpose.apply(matrix.values()).to_dense(), dense.t())


@pytest.mark.parametrize("backend", ["eager", "cpu"])
@pytest.mark.parametrize("add_self_loops", [False, True])
def test_what_inference_mode_remembers_serves_training(backend, add_self_loops):
    conv = KernelGATConv(4, 2, backend=backend, add_self_loops=add_self_loops)
    x, edge_index = torch.randn(3, 4), torch.tensor([[0, 1], [1, 2]])
    with torch.inference_mode():
        conv(x, edge_index)
    conv(x, edge_index).sum().backward()
    assert conv.lin.weight.grad is not None


def test_edges_that_come_sorted_are_as_others():
    torch.manual_seed(0)
    edges = torch.randint(0, 9, (2, 40))
    order = edges[1].argsort(stable=True)
    there, here = (Adjacency.of(e, 1, 9, 9) for e in (edges, edges[:, order].contiguous()))
    for name in ("rowptr", "col", "colptr", "row", "place"):
        assert torch.equal(getattr(here, name), getattr(there, name))
    assert here.edge.tolist() == list(range(40))
    assert torch.equal(order, there.edge.long())


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize(("num_targets", "num_sources"), [(300_001, 7), (5, 262_145), (700_000, 300_000)])
@pytest.mark.parametrize("num_edges", [0, 1, 5_000])
def test_many_nodes_are_sorted_as_few(num_targets, num_sources, num_edges, dtype):
    torch.manual_seed(0)
    row = torch.randint(0, num_targets, (num_edges,), dtype=dtype)
    col = torch.randint(0, num_sources, (num_edges,), dtype=dtype)
    row[num_edges // 2 :] = num_targets - 1  # a hub, the last of all
    adjacency = Adjacency.of(torch.stack([col, row]), 1, num_targets, num_sources)
    sorted_row, edge = row.sort(stable=True)
    sorted_col, place = col[edge].sort(stable=True)
    assert torch.equal(adjacency.edge.long(), edge)
    assert torch.equal(adjacency.col.long(), col[edge].long())
    assert torch.equal(adjacency.place.long(), place)
    assert torch.equal(adjacency.row.long(), row[edge][place].long())
    targets, sources = torch.arange(num_targets + 1), torch.arange(num_sources + 1)
    assert torch.equal(adjacency.rowptr, torch.searchsorted(sorted_row.long(), targets))
    assert torch.equal(adjacency.colptr, torch.searchsorted(sorted_col.long(), sources))
