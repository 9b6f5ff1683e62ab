import pytest
import torch
from torch_geometric.data import HeteroData
from torch_geometric.transforms import ToUndirected

from kgat.datasets import averaged_features

pytestmark = pytest.mark.quick

X = torch.tensor([[1.0, 0.0], [3.0, 2.0], [8.0, 4.0]])


def graph():
    data = HeteroData()
    data["paper"].x = X
    data["author"].num_nodes, data["school"].num_nodes = 3, 2
    data["author", "writes", "paper"].edge_index = torch.tensor([[0, 0, 1], [0, 1, 1]])
    data["paper", "praises", "author"].edge_index = torch.tensor([[2], [0]])
    data["author", "is_at", "school"].edge_index = torch.tensor([[0, 1], [1, 1]])
    return data


@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
def test_means_of_neighbours_and_then_of_theirs(both_ways, sparse):
    data = ToUndirected()(graph()) if both_ways else graph()
    data["paper"].x = X.to_sparse_csr() if sparse else X
    out = averaged_features(data)
    assert out["author"].x.tolist() == [[4.0, 2.0], [3.0, 2.0], [0.0, 0.0]]
    assert out["school"].x.tolist() == [[0.0, 0.0], [3.5, 2.0]]
    assert "x" not in data["author"]  # which stays as it was


def test_one_mean_for_each_type_of_neighbours():
    data = graph()
    data["school"].x = torch.tensor([[5.0], [7.0]])
    assert averaged_features(data)["author"].x.tolist() == [[4.0, 2.0, 7.0], [3.0, 2.0, 7.0], [0.0, 0.0, 0.0]]


def test_types_that_nothing_joins_to_features():
    data = graph()
    data["city"].num_nodes = 2
    with pytest.raises(
        ValueError, match=r"nodes of type 'city', or of its neighbours .got none.; make some: data"
    ):
        averaged_features(data)


def test_graphs_that_cannot_be_averaged():
    data = graph()
    data["author", "writes", "paper"].edge_index = torch.tensor([[0, 7], [0, 1]])
    with pytest.raises(IndexError, match="7"):
        averaged_features(data)
    del data["school"].num_nodes
    data["author"].x = X
    with pytest.raises(
        ValueError, match=r"number of nodes of type 'school', .* .got none.; set data\['school'\]"
    ):
        averaged_features(data)
