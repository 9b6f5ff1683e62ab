import pytest
import torch

from kgat.ops import sparse
from kgat.ops.graph.structure import Structure


@pytest.fixture
def graph():
    torch.manual_seed(0)
    edge_index = torch.stack([torch.randint(0, 4, (9,)), torch.randint(0, 3, (9,))])
    return Structure.of(edge_index, 1, 5, 4, 2)  # targets 3 and 4 are isolated


def randn(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def cases(s):
    entries = s.col.numel()
    return {
        "spmm": (lambda a, v: sparse.spmm(a, v, s), (randn(entries), randn(8, 3))),
        "sddmm": (lambda q, k: sparse.sddmm(q, k, s), (randn(10, 3), randn(8, 3))),
        "spread": (lambda x: sparse.spread(x, s), (randn(10),)),
        "softmax": (lambda x: sparse.softmax(x, s), (randn(entries),)),
    }


@pytest.mark.parametrize("name", ["spmm", "sddmm", "spread", "softmax"])
def test_derivatives(name, graph):
    function, inputs = cases(graph)[name]
    torch.autograd.gradcheck(function, inputs)
    torch.autograd.gradgradcheck(function, inputs)


def test_values(graph):
    c = cases(graph)
    (alpha, value), (query, key) = c["spmm"][1], c["sddmm"][1]
    dense = torch.zeros(10, 3, dtype=torch.float64)
    for e in range(graph.col.numel()):
        dense[graph.row[e]] += alpha[e] * value[graph.col[e]]
    torch.testing.assert_close(sparse.spmm(alpha, value, graph), dense)
    pairs = (query[graph.row] * key[graph.col]).sum(-1)
    torch.testing.assert_close(sparse.sddmm(query, key, graph), pairs)


def test_more_edges_than_cells():
    s = Structure.of(torch.zeros(2, 7, dtype=torch.long), 1, 1, 1, 2)
    inputs = (randn(2, 3), randn(2, 3))
    torch.autograd.gradcheck(lambda q, k: sparse.sddmm(q, k, s), inputs)
