r"""Train on sampled neighbourhoods, with nothing but pip: ``kgat.loader.NeighborLoader`` has PyG's arguments.

Run it with ``python examples/neighbour_sampling.py``. Digits would fit in one batch; the code is that of a
graph that does not.
"""

import argparse

import torch
import torch.nn.functional as F

from kgat import KernelGAT
from kgat.datasets import load
from kgat.loader import NeighborLoader

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--dataset", default="digits")
parser.add_argument("--root", help="folder of the data sets (default: KGAT_DATA, else the user's cache)")
parser.add_argument("--epochs", type=int, default=10)
args = parser.parse_args()

torch.manual_seed(0)
task = load(args.dataset, args.root)
data, split = task.data, task.split(0)
model = KernelGAT(data.x.size(1), 64, 2, task.num_classes, heads=8, out_heads=1, act="elu", kernel="rbf")
optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
# A number per layer: ten neighbours of each node to be classified, five of each of those.
loader = NeighborLoader(data, [10, 5], input_nodes=split.train, batch_size=128, shuffle=True, seed=0)

for epoch in range(1, args.epochs + 1):
    model.train()
    total = 0.0
    for batch in loader:
        optimizer.zero_grad()
        out = model(
            batch.x,
            batch.edge_index,
            num_sampled_nodes_per_hop=batch.num_sampled_nodes,
            num_sampled_edges_per_hop=batch.num_sampled_edges,
        )[: batch.batch_size]  # the nodes that were asked for come first
        loss = F.cross_entropy(out, batch.y[: batch.batch_size])
        loss.backward()
        optimizer.step()
        total += loss.item()
    print(f"epoch {epoch:3d}  loss {total / len(loader):.3f}")

model.eval()
with torch.no_grad():
    out = model(data.x, data.edge_index)  # scored on all neighbours, not on sampled ones
print(f"{args.dataset}: val {task.score(out, split, 'val'):.3f}, test {task.score(out, split, 'test'):.3f}")
