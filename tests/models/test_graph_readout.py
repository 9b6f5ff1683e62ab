import pytest
import torch
from torch_geometric.nn import GCN, global_add_pool, global_max_pool, global_mean_pool

from kgat import KernelGAT, PrimalAttention, models
from kgat.models import GraphReadout, StandardizedOutput, penalty

pytestmark = pytest.mark.quick

X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
EDGES = torch.tensor([[0, 1, 2, 3, 4], [1, 0, 3, 4, 2]])
BATCH = torch.tensor([0, 0, 1, 1, 1])
TYPES = {"metadata": (["a"], [("a", "to", "a")])}


@pytest.mark.parametrize(
    ("pooling", "pool"),
    [
        ("mean", global_mean_pool),
        ("sum", global_add_pool),
        ("add", global_add_pool),
        ("max", global_max_pool),
    ],
)
@pytest.mark.parametrize("encoder", [KernelGAT(4, 6, 2, heads=2, kernel="rbf"), GCN(4, 6, 2)])
def test_readout_is_stack_pool_linear(encoder, pooling, pool):
    model = GraphReadout(encoder, 6, 3, pooling)
    expected = model.lin(pool(encoder(X, EDGES), BATCH))
    torch.testing.assert_close(model(X, EDGES, batch=BATCH), expected)


@pytest.mark.parametrize("pooling", ["mean+max", "softmax", "median", "std", "mul"])
def test_other_poolings(pooling):
    model = GraphReadout(GCN(4, 6, 2), 6, 3, pooling)
    assert model(X, EDGES, batch=BATCH).shape == (2, 3)
    assert model(X, EDGES).shape == (1, 3)


def test_a_graph_without_nodes_at_the_end_has_an_answer():
    model = GraphReadout(GCN(4, 6, 2), 6, 3, "sum")
    output = model(X, EDGES, batch=BATCH, batch_size=3)
    torch.testing.assert_close(output[2], model.lin.bias)


@pytest.mark.parametrize("pooling", ["menn", "", "mean+", "mlp"])
def test_unknown_pooling_is_refused(pooling):
    with pytest.raises(ValueError, match="Expected a pooling"):
        GraphReadout(GCN(4, 6, 2), 6, 3, pooling)


class Plain(torch.nn.Module):
    def forward(self, x, edge_index):
        return x


def test_any_model_of_nodes_is_wrapped():
    model = GraphReadout(Plain(), 4, 2)
    assert model(X, EDGES, edge_attr=torch.ones(5, 1), batch=BATCH).shape == (2, 2)


def test_values_are_in_their_unit():
    model = StandardizedOutput(Plain(), 4)
    y = torch.tensor([[1e5, 0.0, 2.0, float("nan")], [3e5, 0.0, float("nan"), float("nan")]])
    model.standardize(y)
    torch.testing.assert_close(model.mean, torch.tensor([2e5, 0.0, 2.0, 0.0]))
    torch.testing.assert_close(model.std, torch.tensor([1e5, 1.0, 1.0, 1.0]))
    torch.testing.assert_close(model.standardized(model(X, EDGES)), X, rtol=1e-2, atol=1e-2)


def test_all_models_ask_the_same_question_of_their_parts():
    for name in models.__all__:
        assert getattr(models, name).penalised is penalty.penalised, name
    primal = KernelGAT(4, 8, 3, 8, heads=2, global_attention="primal")
    for inner, kernel, there in (
        (primal, "implicit_spectral", True),
        (KernelGAT(4, 8, 2, 8), "rbf", False),
    ):
        wrapped = [
            GraphReadout(inner, 8, 2),
            models.LinkPredictor(inner, 8),
            StandardizedOutput(GraphReadout(inner, 8, 2), 2),
            models.TargetOutput(models.KernelHeteroGAT(4, 8, 2, kernel=kernel, **TYPES), "a", 8),
        ]
        assert [model.penalised for model in wrapped] == [there] * 4


def test_a_model_that_takes_no_losses_has_no_penalties_to_collect():
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = PrimalAttention(4, 2, rank=3)

        def forward(self, x, edge_index):
            return self.attention(x)[0]

    own = Own()
    assert own.attention.penalised
    for model in (GraphReadout(own, 4, 2), StandardizedOutput(own, 4), models.LinkPredictor(own, 4)):
        assert not model.penalised
    assert StandardizedOutput(own, 4)(torch.randn(5, 4), None).shape == (5, 4)


def test_no_graphs_have_no_answers():
    model = GraphReadout(GCN(4, 6, 2), 6, 3, "mean")
    nobody = torch.empty(0, dtype=torch.long)
    out = model(torch.empty(0, 4), nobody.expand(2, 0), batch=nobody)
    assert out.shape == (0, 3)
