r"""Answers for all nodes layer by layer, over slices of rows: exact, in memory that you set.

Run it with ``python examples/layer_wise.py``. It trains on sampled neighbourhoods, compares what
``model.inference`` returns with one full pass, and says how large the largest slice was.
"""

import argparse

import torch
import torch.nn.functional as F
from torch_geometric.data import Data
from torch_geometric.utils import barabasi_albert_graph

from kgat import KernelGAT
from kgat.loader import NeighborLoader

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--nodes", type=int, default=5_000)
parser.add_argument("--rows", type=int, default=200, help="nodes that a slice answers for, at most")
parser.add_argument("--edges", type=int, default=1_000, help="edges into them, at most")
parser.add_argument("--epochs", type=int, default=3)
args = parser.parse_args()

torch.manual_seed(0)
x, y = torch.randn(args.nodes, 16), torch.randint(4, (args.nodes,))
x[:, :4] += F.one_hot(y, 4)
data = Data(x=x, edge_index=barabasi_albert_graph(args.nodes, 5), y=y)
model = KernelGAT(16, 64, 2, 4, heads=4, act="elu", norm="batch_norm", jk="cat", kernel="rbf")
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for epoch in range(1, args.epochs + 1):
    for batch in NeighborLoader(data, [10, 5], batch_size=500, shuffle=True):
        optimizer.zero_grad()
        out = model(batch.x, batch.edge_index)[: batch.batch_size]
        loss = F.cross_entropy(out, batch.y[: batch.batch_size])
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch}  loss of the last batch {loss.item():.3f}")

model.eval()
with torch.no_grad():
    full = model(data.x, data.edge_index)

calls = []  # of the layers: sources, targets and edges
for conv in model.convs:
    conv.register_forward_pre_hook(lambda _, inputs: calls.append((*map(len, inputs[0]), inputs[1].size(1))))
out = model.inference(data.x, data.edge_index, rows=args.rows, edges=args.edges)
sources, targets, edges = map(max, zip(*calls, strict=True))
print(
    f"{len(calls)} slices of at most {targets:,} nodes, {edges:,} edges and {sources:,} nodes they come from"
)
print(f"the bound is rows + edges = {args.rows + args.edges:,} nodes; the full pass takes {args.nodes:,}")
print(f"largest difference to the full pass: {(out - full).abs().max().item():.1e}")
