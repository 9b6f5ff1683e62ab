r"""A kernel of your own is one small class; one call holds it to the laws, and any layer takes it.

Run it with ``python examples/own_kernel.py``.
"""

import argparse

import torch
import torch.nn.functional as F

from kgat import KernelGAT
from kgat.datasets import load
from kgat.kernels import Kernel, Magnitude
from kgat.testing import check_kernel


class Cauchy(Kernel):
    r"""The Cauchy kernel, whose tails are heavier than those of the RBF.

    .. math::
        \log k(\mathbf{q}, \mathbf{k}) = - \log(1 + \lVert \mathbf{q} - \mathbf{k} \rVert_2^2 / \gamma_h^2)
    """

    symmetric = True
    positive_definite = True

    def __init__(self, channels, heads=1):
        super().__init__(channels, heads)
        self.learn_positive(gamma=1.0)  # one per head, kept as its logarithm: [H, 1]

    def score(self, query, key):  # broadcasts over leading dimensions, reduces the last
        difference = (query - key) * (-self.log_gamma).exp()
        return -difference.square().sum(dim=-1).log1p()


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=100)
args = parser.parse_args()

check_kernel(Cauchy)
print(
    "Cauchy obeys the laws: dense == edges, symmetric, positive definite, gradients of first and second order"
)

torch.manual_seed(0)
task = load("digits")
data, split = task.data, task.split(0)
model = KernelGAT(
    *(data.x.size(1), 64, 2, task.num_classes),
    heads=8,
    out_heads=1,
    act="elu",
    dropout=0.3,
    # Any callable of (channels, heads) makes a kernel: here similarity times importance.
    kernel=lambda channels, heads: Cauchy(channels, heads) * Magnitude(channels, heads, p=1.5),
)
optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
for epoch in range(1, args.epochs + 1):
    model.train()
    optimizer.zero_grad()
    out = model(data.x, data.edge_index)
    loss = F.cross_entropy(out[split.train], data.y[split.train])
    loss.backward()
    optimizer.step()
    if epoch % 20 == 0 or epoch == args.epochs:
        print(f"epoch {epoch:3d}  loss {loss.item():.3f}")

model.eval()
with torch.no_grad():
    out = model(data.x, data.edge_index)
print(f"digits: val {task.score(out, split, 'val'):.3f}, test {task.score(out, split, 'test'):.3f}")
