r"""Predict links: edges are held out of a graph, and a model of nodes scores pairs of them.

Run it with ``python examples/links.py``. ``--dataset digits`` needs no download; ``--decoder mlp`` is worth
a try.
"""

import argparse

import torch
import torch.nn.functional as F
from torch_geometric.utils import negative_sampling

from kgat import KernelGAT
from kgat.datasets import link_task, load
from kgat.models import LinkPredictor

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--dataset", default="Cora")
parser.add_argument("--root", help="folder of the data sets (default: KGAT_DATA, else the user's cache)")
parser.add_argument("--decoder", default="dot", help="dot or mlp")
parser.add_argument("--metric", default="roc_auc", help="roc_auc, average_precision, mrr, hits@10, ...")
parser.add_argument("--epochs", type=int, default=40)
args = parser.parse_args()

torch.manual_seed(0)
# A graph of yours becomes such a task by link_task(from_data(data)).
task = link_task(load(args.dataset, args.root), args.metric, val=0.05, test=0.1)
x, num_nodes = task.data.x, task.data.num_nodes
split = task.split(0)  # its edge_index holds neither validation nor test edges
edges = split.train.index[:, split.train.y == 1]
model = LinkPredictor(KernelGAT(x.size(1), 64, 2, 32, heads=4, act="elu", kernel="rbf"), 32, args.decoder)
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

for epoch in range(1, args.epochs + 1):
    model.train()
    optimizer.zero_grad()
    others = negative_sampling(split.edge_index, num_nodes, edges.size(1))
    out = model(x, split.edge_index, pairs=torch.cat([edges, others], dim=1))
    is_edge = torch.cat([torch.ones(edges.size(1)), torch.zeros(others.size(1))])
    loss = F.binary_cross_entropy_with_logits(out, is_edge)
    loss.backward()
    optimizer.step()
    if epoch % 10 == 0 or epoch == args.epochs:
        print(f"epoch {epoch:3d}  loss {loss.item():.3f}")

model.eval()
with torch.no_grad():
    nodes = model(x, split.edge_index)
    scores = {
        part: task.score(model.decode(nodes, getattr(split, part).index), split, part)
        for part in ("train", "val", "test")
    }
print(f"{task.name}: {task.metric} " + ", ".join(f"{part} {score:.3f}" for part, score in scores.items()))
