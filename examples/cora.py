r"""Replace GATConv by KernelGATConv in your own model, and change nothing else.

Run it with ``python examples/cora.py``; ``--kernel rbf`` and ``--root FOLDER`` are worth a try.
"""

import argparse

import torch
import torch.nn.functional as F

from kgat import KernelGATConv
from kgat.datasets import load


class Net(torch.nn.Module):
    def __init__(self, in_channels, num_classes, kernel):
        super().__init__()
        self.conv1 = KernelGATConv(in_channels, 8, heads=8, dropout=0.6, kernel=kernel)
        self.conv2 = KernelGATConv(64, num_classes, dropout=0.6, kernel=kernel)

    def forward(self, x, edge_index):
        x = F.elu(self.conv1(x, edge_index))
        x = F.dropout(x, 0.6, self.training)
        return self.conv2(x, edge_index)


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--dataset", default="Cora")
parser.add_argument("--root", help="folder of the data sets (default: KGAT_DATA, else the user's cache)")
parser.add_argument("--kernel", default="rbf*magnitude", help="any name of kgat.kernels")
parser.add_argument("--epochs", type=int, default=200)
args = parser.parse_args()

torch.manual_seed(0)
task = load(args.dataset, args.root)
data, split = task.data, task.split(0)
model = Net(data.x.size(1), task.num_classes, args.kernel)
optimizer = torch.optim.Adam(model.parameters(), lr=0.005, weight_decay=5e-4)

best, state = 0.0, model.state_dict()
for epoch in range(1, args.epochs + 1):
    model.train()
    optimizer.zero_grad()
    out = model(data.x, data.edge_index)
    F.cross_entropy(out[split.train], data.y[split.train]).backward()
    optimizer.step()

    model.eval()
    with torch.no_grad():
        val = task.score(model(data.x, data.edge_index), split, "val")
    if val > best:  # validation chooses the epoch, the test nodes are scored once, at the end
        best, state = val, {name: value.clone() for name, value in model.state_dict().items()}
    if epoch % 20 == 0 or epoch == args.epochs:
        print(f"epoch {epoch:3d}  val {task.metric} {val:.3f}  best {best:.3f}")

model.load_state_dict(state)
model.eval()
with torch.no_grad():
    test = task.score(model(data.x, data.edge_index), split, "test")
print(f"{args.dataset}, kernel {args.kernel}: test {task.metric} {test:.3f} at the best validation epoch")
