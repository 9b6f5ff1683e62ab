r"""Train on a graph of several types of nodes and edges: papers, who wrote them, and what they are about.

Run it with ``python examples/heterogeneous.py``: it draws a small graph. ``--dataset ogbn-mag --epochs 3``
takes the graph of that name, 1.9 million nodes and 21 million edges in 349 classes, from folder ``--root``
(PyG downloads it if it is not there), with the settings of OGB's R-GCN on sampled neighbourhoods.
"""

import argparse

import torch
import torch.nn.functional as F
from torch_geometric.data import HeteroData
from torch_geometric.datasets import OGB_MAG
from torch_geometric.transforms import ToUndirected

from kgat.datasets import averaged_features
from kgat.loader import NeighborLoader
from kgat.models import KernelHeteroGAT

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--dataset", choices=["drawn", "ogbn-mag"], default="drawn")
parser.add_argument("--root", default="data", help="folder of ogbn-mag")
parser.add_argument("--kernel", default="rbf")
parser.add_argument("--epochs", type=int, default=10)
args = parser.parse_args()


def drawn(papers: int = 900, authors: int = 400, topics: int = 30, classes: int = 4) -> HeteroData:
    r"""Papers of four fields: their own features say little, those who wrote them and the topics say more."""
    data = HeteroData()
    field = {
        name: torch.randint(classes, (n,))
        for name, n in (("paper", papers), ("author", authors), ("topic", topics))
    }
    data["paper"].y = field["paper"]
    data["paper"].x = 0.5 * F.one_hot(field["paper"], 16).float() + torch.randn(papers, 16)
    data["author"].num_nodes, data["topic"].num_nodes = authors, topics
    for source, relation, target, edges in (
        ("author", "writes", "paper", 3000),
        ("paper", "has_topic", "topic", 3000),
        ("paper", "cites", "paper", 3000),
    ):
        ends = torch.stack([torch.randint(len(field[of]), (edges,)) for of in (source, target)])
        alike = field[source][ends[0]] == field[target][ends[1]]
        kept = alike | (torch.rand(edges) < 0.1)  # between different fields one in ten
        data[source, relation, target].edge_index = ends[:, kept]
    part = torch.rand(papers)
    for name, start in (("train", 0.0), ("val", 0.3), ("test", 0.6)):
        data["paper"][f"{name}_mask"] = (part >= start) & (part < start + 0.3)
    return data


torch.manual_seed(0)
data = drawn() if args.dataset == "drawn" else OGB_MAG(args.root)[0]
# Messages go both ways. Papers alone have features: authors and topics get the means of those of their
# papers, institutions those of their authors.
data = averaged_features(ToUndirected()(data))
papers = data["paper"]
model = KernelHeteroGAT(
    {name: x.size(1) for name, x in data.x_dict.items()},
    *(64, 2, int(papers.y.max()) + 1),
    metadata=data.metadata(),
    target="paper",
    heads=4,
    out_heads=1,
    dropout=0.5,
    kernel=args.kernel,
)
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
batch_size = 64 if args.dataset == "drawn" else 1024
loader = NeighborLoader(
    data, [25, 20], input_nodes=("paper", papers.train_mask), batch_size=batch_size, shuffle=True, seed=0
)

for epoch in range(1, args.epochs + 1):
    model.train()
    total = 0.0
    for batch in loader:
        optimizer.zero_grad()
        size = batch["paper"].batch_size
        out = model(
            batch.x_dict,
            batch.edge_index_dict,
            num_sampled_nodes_dict=batch.num_sampled_nodes_dict,
            num_sampled_edges_dict=batch.num_sampled_edges_dict,
        )["paper"][:size]  # the nodes that were asked for come first
        loss = F.cross_entropy(out, batch["paper"].y[:size])
        loss.backward()
        optimizer.step()
        total += loss.item()
    print(f"epoch {epoch:3d}  loss {total / len(loader):.3f}")

model.eval()
with torch.no_grad():
    right = model(data.x_dict, data.edge_index_dict)["paper"].argmax(dim=1) == papers.y  # on all neighbours
for part in ("train", "val", "test"):
    print(f"{part} accuracy {right[papers[f'{part}_mask']].double().mean():.3f}")
