r"""PyG's explainers on layers and models: they take ours as they take GATConv, and find the same in it."""

import pytest
import torch
from torch_geometric.explain import (
    AttentionExplainer,
    DummyExplainer,
    Explainer,
    GNNExplainer,
    GraphMaskExplainer,
    ModelConfig,
    PGExplainer,
)
from torch_geometric.nn import GATConv

from kgat import KernelGAT, KernelGATConv
from kgat.experiments.stock import StockGAT

X = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7, 0, 2], [1, 2, 3, 4, 5, 6, 7, 0, 4, 6]])

ALGORITHMS = {
    "attention": AttentionExplainer,
    "dummy": DummyExplainer,
    "gnn": lambda: GNNExplainer(epochs=5),
    "graph mask": lambda: GraphMaskExplainer(2, epochs=3, log=False),
    "pg": lambda: PGExplainer(epochs=2, lr=0.01),
}


class Layers(torch.nn.Module):
    def __init__(self, cls, heads, **options):
        super().__init__()
        self.first = cls(6, 4, heads=heads, **options)
        self.second = cls(4 * heads, 3, heads=heads, concat=False, **options)

    def forward(self, x, edge_index):
        return self.second(self.first(x, edge_index).relu(), edge_index)


def explained(model, name):
    torch.manual_seed(1)
    trained = name == "pg"
    explainer = Explainer(
        model.eval(),
        algorithm=ALGORITHMS[name](),
        explanation_type="phenomenon" if trained else "model",
        node_mask_type="attributes" if name in ("dummy", "gnn", "graph mask") else None,
        edge_mask_type="object",
        model_config=ModelConfig("multiclass_classification", "node", return_type="raw"),
    )
    target = torch.arange(8) % 3
    if trained:
        for epoch in range(2):
            for index in (1, 4):
                explainer.algorithm.train(epoch, model, X, EDGES, target=target, index=index)
    given = {"target": target} if trained else {}
    explanation = explainer(X, EDGES, index=4, **given)
    return explanation.edge_mask, explanation.get("node_mask")


@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_explanations_are_those_of_gat_conv(name, heads, loops):
    torch.manual_seed(0)
    stock = Layers(GATConv, heads, add_self_loops=loops)
    ours = Layers(KernelGATConv, heads, add_self_loops=loops)
    ours.load_state_dict(stock.state_dict())
    for found, expected in zip(explained(ours, name), explained(stock, name), strict=True):
        if expected is not None:
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_models_can_be_explained(name, heads):
    torch.manual_seed(0)
    stock, ours = (
        cls(6, 4 * heads, 2, 3, heads=heads, add_self_loops=False) for cls in (StockGAT, KernelGAT)
    )
    ours.load_state_dict(stock.state_dict())
    for found, expected in zip(explained(ours, name), explained(stock, name), strict=True):
        if expected is not None:
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("options", [{"kernel": "rbf", "projections": "separate"}, {"kernel": "additive_v2"}])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_any_kernel_can_be_explained(name, options):
    class Mine(KernelGATConv):  # of which PyG compiles a template of its own
        pass

    KernelGATConv(2, 2)  # whose template stands above it
    for cls in (KernelGATConv, Mine):
        torch.manual_seed(0)
        mask, _ = explained(Layers(cls, 4, add_self_loops=False, **options), name)
        assert mask.shape == (10,)
        assert mask.isfinite().all()
        assert mask.abs().sum() > 0
