r"""Train, export and serve: what answers for new nodes is a program of plain torch in a process of its own.

Run it with ``python examples/export.py``. The test nodes are new: training does not know them at all. They
are then asked about with their features and edges, by ``serve.py``, which imports torch alone.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.export import Dim
from torch_geometric.utils import subgraph

from kgat import KernelGAT
from kgat.datasets import load

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--dataset", default="digits")
parser.add_argument("--root", help="folder of the data sets (default: KGAT_DATA, else the user's cache)")
parser.add_argument("--epochs", type=int, default=30)
parser.add_argument("--out", help="folder of the exported model (default: a temporary one)")
args = parser.parse_args()


class Answers(torch.nn.Module):
    r"""All that a program has to do itself: the scale of features, self-loops, the model, probabilities."""

    def __init__(self, x, classes):
        super().__init__()
        self.register_buffer("mean", x.mean(dim=0))
        self.register_buffer("scale", x.std(dim=0).clamp(min=1e-6))
        self.model = KernelGAT(
            *(x.size(1), 64, 2, classes),
            **{"heads": 8, "out_heads": 1, "act": "elu", "kernel": "rbf", "add_self_loops": False},
        )

    def logits(self, x, edge_index):
        loops = torch.arange(x.size(0), device=x.device).expand(2, -1)
        return self.model((x - self.mean) / self.scale, torch.cat([edge_index, loops], dim=1))

    def forward(self, x, edge_index):
        return self.logits(x, edge_index).softmax(dim=-1)


torch.manual_seed(0)
task = load(args.dataset, args.root, sparse=False)
data, split = task.data, task.split(0)
order = torch.cat([(~split.test).nonzero().view(-1), split.test.nonzero().view(-1)])  # new nodes come last
place = order.argsort()
x, y, edge_index = data.x[order], data.y[order], place[data.edge_index]
known = int((~split.test).sum())
edges = subgraph(torch.arange(known), edge_index)[0]
train = split.train[order][:known]

answers = Answers(x[:known], task.num_classes)
optimizer = torch.optim.Adam(answers.parameters(), lr=0.005)
for epoch in range(1, args.epochs + 1):
    answers.train()
    optimizer.zero_grad()
    loss = F.cross_entropy(answers.logits(x[:known], edges)[train], y[:known][train])
    loss.backward()
    optimizer.step()
    print(f"epoch {epoch:3d}  loss {loss.item():.3f}")

answers.eval()
folder = Path(args.out or tempfile.mkdtemp())
folder.mkdir(parents=True, exist_ok=True)
sizes = {"x": {0: Dim("nodes", min=2)}, "edge_index": {1: Dim("edges", min=2)}}
with torch.no_grad():
    program = torch.export.export(answers, (x[:known], edges), dynamic_shapes=sizes)
torch.export.save(program, folder / "model.pt2")
classes = data.get("classes") or list(map(str, range(task.num_classes)))
torch.save({"x": x[:known], "edge_index": edges, "classes": classes}, folder / "known.pt")

touched = (edge_index >= known).any(dim=0)
question = json.dumps({"x": x[known:].tolist(), "edges": edge_index[:, touched].t().tolist()})
server = [sys.executable, str(Path(__file__).with_name("serve.py")), str(folder)]
served = subprocess.run(server, input=f"{question}\n", capture_output=True, text=True, check=True)
found = json.loads(served.stdout)

with torch.no_grad():
    here = answers(x, edge_index)[known:]
chances = torch.tensor([chance for _, chance in found])
torch.testing.assert_close(chances, here.amax(dim=1), atol=1e-5, rtol=1e-4)
right = [name == classes[number] for (name, _), number in zip(found, y[known:].tolist(), strict=True)]
print(f"{args.dataset}: {len(found)} new nodes, {sum(right) / len(right):.3f} right, served from {folder}")
