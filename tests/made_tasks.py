import torch
from torch_geometric import seed_everything
from torch_geometric.data import Data
from torch_geometric.utils import barabasi_albert_graph, to_undirected

from kgat.datasets import GraphTask, Split, Task
from kgat.experiments.config import Config


def make_task(y=None, *, nodes=60, classes=3, metric="accuracy", edge_dim=None, sparse=False):
    generator = torch.Generator().manual_seed(0)
    seed_everything(0)  # the graph is drawn by Python's and NumPy's generators
    edge_index = to_undirected(barabasi_albert_graph(nodes, 3))
    x = torch.randn(nodes, 5, generator=generator)
    if y is None:
        y = torch.randint(0, classes, (nodes,), generator=generator)
    part = torch.arange(nodes) % 3
    split = Split("mod-3", part == 0, part == 1, part == 2)
    edge_attr = None if edge_dim is None else torch.ones(edge_index.size(1), edge_dim)
    data = Data(x=x.to_sparse_csr() if sparse else x, edge_index=edge_index, y=y)
    if edge_attr is not None:
        data.edge_attr = edge_attr
    return Task("made", data, (split,), metric, classes, "made here", "none")


def make_config(model="gat", seed=0, **settings):
    settings = {"max_epochs": 20, "hidden_channels": 8, "heads": 2, **settings}
    return Config.of("made", model, seed, settings)


def make_graph_task(metric="accuracy", graphs=30, edge_dim=None, nodes=6):
    r"""Rings and stars with drawn features, whose number of nodes is what a regression is about."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for number in range(graphs):
        n = nodes + number % 4
        index = torch.arange(n)
        ring, star = (
            torch.stack([index, (index + 1) % n]),
            torch.stack([index[1:], torch.zeros(n - 1).long()]),
        )
        edge_index = to_undirected(ring if number % 2 else star)
        y = torch.tensor(float(n)) if metric == "rmse" else number % 2
        x = 0.1 * torch.randn(n, 5, generator=generator)
        x[:, 0] = 1.0
        data = Data(x=x, edge_index=edge_index, y=y)
        if edge_dim is not None:
            data.edge_attr = torch.ones(edge_index.size(1), edge_dim)
        made.append(data)
    part = torch.arange(graphs) % 5
    split = Split("fifths", part < 3, part == 3, part == 4)
    return GraphTask("made", made, (split,), metric, 1 if metric == "rmse" else 2, "made here", "none")
