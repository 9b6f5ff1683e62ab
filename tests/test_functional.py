import pytest
import torch

from kgat.functional import edge_attention, edge_softmax
from kgat.kernels import RBF


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_edge_softmax_equals_dense_softmax(dtype):
    torch.manual_seed(0)
    n, m = 4, 6
    score = torch.randn(n, m, 3, dtype=dtype, requires_grad=True)
    perm = torch.randperm(n * m)
    flat = score.reshape(n * m, 3)[perm]
    alpha = edge_softmax(flat, torch.arange(n).repeat_interleave(m)[perm], n)
    expected = score.softmax(dim=1).reshape(n * m, 3)[perm]
    torch.testing.assert_close(alpha, expected)
    slope = torch.randn_like(alpha)
    found, wanted = (
        torch.autograd.grad((a * slope).sum(), score, retain_graph=True)[0] for a in (alpha, expected)
    )
    torch.testing.assert_close(found, wanted)


def test_edge_softmax_by_hand():
    alpha = edge_softmax(torch.tensor([[0.0], [2.0], [1.0]]).log(), torch.tensor([0, 0, 2]))
    torch.testing.assert_close(alpha, torch.tensor([[0.0], [1.0], [1.0]]))
    third = edge_softmax(torch.tensor([1.0, 2.0]).log(), torch.tensor([1, 1]))
    torch.testing.assert_close(third, torch.tensor([1 / 3, 2 / 3]))


def test_edge_softmax_power_makes_the_p_norm_one():
    torch.manual_seed(0)
    index = torch.tensor([0, 1, 0, 1, 1])
    alpha = edge_softmax(torch.randn(5, 2), index, 2, power=3.0)
    norms = torch.zeros(2, 2).index_add(0, index, alpha**3)
    torch.testing.assert_close(norms, torch.ones(2, 2))


def test_a_group_of_minus_infinity_gets_zeros():
    score = torch.tensor([-torch.inf, -torch.inf, 0.0], requires_grad=True)
    alpha = edge_softmax(score, torch.tensor([0, 0, 1]))
    assert alpha.tolist() == [0.0, 0.0, 1.0]


def test_a_hub_in_half_precision_keeps_its_weights():
    degree = 70_000  # the sum of as many ones is infinite in float16
    alpha = edge_softmax(torch.zeros(degree, dtype=torch.float16), torch.zeros(degree).long())
    assert alpha.dtype == torch.float16
    assert alpha.float().sum().item() == pytest.approx(1.0, rel=0.01)


def test_large_scores_do_not_overflow():
    alpha = edge_softmax(torch.tensor([1e30, 1e30, -1e30]), torch.tensor([0, 0, 0]))
    assert alpha.tolist() == [0.5, 0.5, 0.0]


def test_empty():
    assert edge_softmax(torch.empty(0, 3), torch.empty(0, dtype=torch.long)).shape == (0, 3)


X = torch.randn(3, 2, 4)
GRAM = RBF(4, heads=2)(X, X)
EDGES = torch.tensor([[0, 1], [2, 2]])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"value": X[:2]}, ValueError, r"'value' of shape \[M=3, H=2, C\].*got \[2, 2, 4\]"),
        ({"edge_index": EDGES.float()}, ValueError, r"integer 'edge_index'.*got float32 \[2, 2\]"),
        ({"edge_index": EDGES.flatten()}, ValueError, r"shape \[2, E\].*got int64 \[4\]"),
        ({"edge_index": EDGES + 1}, IndexError, r"target indices.*got 3"),
        ({"edge_index": EDGES - 1}, IndexError, r"source indices.*got -1"),
        ({"edge_bias": torch.zeros(2)}, ValueError, r"'edge_bias' of shape \[E=2, H=2\]"),
        ({"edge_weight": torch.zeros(3)}, ValueError, r"'edge_weight' of shape \[E=2\]"),
        ({"dropout": 1.5}, ValueError, r"'dropout' in \[0, 1\] \(got 1.5\)"),
        ({"flow": "upstream"}, ValueError, r"'flow' as .*got 'upstream'"),
    ],
)
@pytest.mark.parametrize("route", ["sorted", "scattered"])
def test_bad_input_is_a_sentence(change, error, message, route, monkeypatch):
    if route == "scattered":
        monkeypatch.setattr("kgat.ops.eager.sorts_edges", lambda value: False)
    kwargs = {"value": X, "edge_index": EDGES, **change}
    with pytest.raises(error, match=message):
        edge_attention(GRAM, kwargs.pop("value"), kwargs.pop("edge_index"), **kwargs)


def test_bad_softmax_input():
    with pytest.raises(ValueError, match=r"'index' of shape \[E=3\].*got \[2\]"):
        edge_softmax(torch.zeros(3), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="positive 'power'"):
        edge_softmax(torch.zeros(1), torch.tensor([0]), power=0.0)
    with pytest.raises(IndexError, match="got 4"):
        edge_softmax(torch.zeros(1), torch.tensor([4]), 3)
