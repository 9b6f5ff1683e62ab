r"""What did the model look at: PyG's explainer, and attention in the order of your edges.

Run it with ``python examples/explain.py``. The graph is Zachary's karate club, ``--node`` one of its members.
"""

import argparse

import torch
import torch.nn.functional as F
from torch_geometric.explain import Explainer, GNNExplainer

from kgat import KernelGAT
from kgat.datasets import load
from kgat.diagnostics import trace

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--node", type=int, default=8)
parser.add_argument("--epochs", type=int, default=80, help="of the model, and of the explainer")
args = parser.parse_args()

torch.manual_seed(0)
task = load("karate")
data, split = task.data, task.split(0)
model = KernelGAT(data.num_features, 16, 2, task.num_classes, heads=4, out_heads=1, act="elu", kernel="rbf")
optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
for _ in range(args.epochs):
    optimizer.zero_grad()
    out = model(data.x, data.edge_index)
    F.cross_entropy(out[split.train], data.y[split.train]).backward()
    optimizer.step()
model.eval()

# Which edges does the answer depend on? A mask is learned that leaves the answer as it is.
explainer = Explainer(
    model,
    algorithm=GNNExplainer(epochs=args.epochs),
    explanation_type="model",
    node_mask_type="attributes",
    edge_mask_type="object",
    model_config={"mode": "multiclass_classification", "task_level": "node", "return_type": "raw"},
)
mask = explainer(data.x, data.edge_index, index=args.node).edge_mask

# What was averaged? A layer adds self-loops and may sort its edges: weights_of has the weights of yours.
layers = trace(model, data.x, data.edge_index)
first, second = (layer.weights_of(data.edge_index).mean(dim=1) for layer in layers)

print(f"member {args.node} listens to    explainer  attention of layer 1  of layer 2")
into = (data.edge_index[1] == args.node).nonzero().view(-1)
for edge in into[mask[into].argsort(descending=True)]:
    source = int(data.edge_index[0, edge])
    print(f"{source:21d}    {mask[edge]:9.2f}  {first[edge]:20.2f}  {second[edge]:10.2f}")
