r"""Train on some graphs, choose on others, and predict the nodes of graphs that training never saw.

Run it with ``python examples/inductive.py``. It draws graphs whose nodes have classes, as the proteins of
several tissues do.
"""

import argparse

import torch
import torch.nn.functional as F
from torch_geometric.datasets import FakeDataset

from kgat import KernelGAT
from kgat.datasets import inductive

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=30)
args = parser.parse_args()

torch.manual_seed(0)
graphs = list(FakeDataset(21, avg_num_nodes=60, num_channels=8, num_classes=4, task="node"))
for graph in graphs:
    graph.x += torch.randn_like(graph.x)  # so that neighbours are worth asking
new = graphs.pop()
task = inductive("drawn", train=graphs[:14], val=graphs[14:17], test=graphs[17:])
split = task.split(0)
seen = task.visible(split)  # graphs for training and validation as one; those for testing are not in it
print(f"{len(graphs)} graphs, {task.data.num_nodes} nodes; training sees {seen.x.size(0)} of them")

model = KernelGAT(seen.x.size(1), 32, 2, task.num_classes, heads=4, act="elu", kernel="rbf")
optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
best, state = 0.0, model.state_dict()
for epoch in range(1, args.epochs + 1):
    model.train()
    optimizer.zero_grad()
    out = model(seen.x, seen.edge_index, batch=seen.batch)
    F.cross_entropy(out[seen.train], seen.y[seen.train]).backward()
    optimizer.step()

    model.eval()
    with torch.no_grad():
        answer = model(seen.x, seen.edge_index, batch=seen.batch)[seen.val].argmax(dim=1)
    val = (answer == seen.y[seen.val]).float().mean().item()
    if val > best:
        best, state = val, {name: value.clone() for name, value in model.state_dict().items()}
    if epoch % 10 == 0 or epoch == args.epochs:
        print(f"epoch {epoch:3d}  val accuracy {val:.3f}  best {best:.3f}")

model.load_state_dict(state)
model.eval()
with torch.no_grad():
    out = model(task.data.x, task.data.edge_index, batch=task.data.batch)
    print(f"test accuracy on {len(graphs[17:])} graphs {task.score(out, split, 'test'):.3f}")
    answer = model(new.x, new.edge_index).argmax(dim=1)  # of any other graph with the same features
print(f"of a new graph, {(answer == new.y).float().mean():.3f} of {new.num_nodes} nodes are right")
