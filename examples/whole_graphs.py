r"""Classify whole graphs: any model of nodes, pooled by ``GraphReadout``.

Run it with ``python examples/whole_graphs.py``. It takes MUTAG, 188 molecules, or graphs that it draws where
those cannot be had; ``--pooling mean+max`` is worth a try.
"""

import argparse

import torch
import torch.nn.functional as F
from torch_geometric.datasets import FakeDataset

from kgat import KernelGAT
from kgat.datasets import GraphTask, Split, load
from kgat.models import GraphReadout


def drawn():
    r"""A task from any list of graphs: ``Data`` with ``x``, ``edge_index``, and ``y`` of the graph."""
    graphs = list(FakeDataset(num_graphs=150, avg_num_nodes=15, num_channels=8, num_classes=3, task="graph"))
    part = torch.arange(len(graphs)) % 5
    split = Split("fifths", part < 3, part == 3, part == 4)
    return GraphTask("drawn", graphs, (split,), "accuracy", 3, "drawn by PyG's FakeDataset", "none")


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--root", help="folder of the data sets (default: KGAT_DATA, else the user's cache)")
parser.add_argument("--pooling", default="mean", help="mean, sum, max, softmax, ..., or several: mean+max")
parser.add_argument("--epochs", type=int, default=50)
args = parser.parse_args()

torch.manual_seed(0)
try:
    task = load("MUTAG", args.root)
except FileNotFoundError as error:
    print(f"{error}\n\nInstead, on drawn graphs:")
    task = drawn()
graphs, split = task.graphs, task.split(0)
edge_dim = None if graphs.edge_attr is None else graphs.edge_attr.size(1)
encoder = KernelGAT(graphs.x.size(1), 32, 2, heads=4, act="elu", kernel="rbf", edge_dim=edge_dim)
model = GraphReadout(encoder, 32, task.num_classes, pooling=args.pooling)
optimizer = torch.optim.Adam(model.parameters(), lr=0.005, weight_decay=5e-4)


def answer(index):
    batch = graphs.batch_of(index)  # some graphs as one, as PyG's DataLoader has it
    return model(batch.x, batch.edge_index, batch.edge_attr, batch.batch, batch.num_graphs)


train = split.train.nonzero().view(-1)
for epoch in range(1, args.epochs + 1):
    model.train()
    for index in train[torch.randperm(train.numel())].split(32):
        optimizer.zero_grad()
        loss = F.cross_entropy(answer(index), task.y[index])
        loss.backward()
        optimizer.step()
    if epoch % 10 == 0 or epoch == args.epochs:
        print(f"epoch {epoch:3d}  loss of the last batch {loss.item():.3f}")

model.eval()
with torch.no_grad():
    out = answer(torch.arange(len(graphs)))
scores = ", ".join(f"{part} {task.score(out, split, part):.3f}" for part in ("train", "val", "test"))
print(f"{task.name}: {task.metric} {scores}")
