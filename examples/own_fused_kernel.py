r"""A kernel of your own that runs fused: its formula, nothing else.

Run it with ``python examples/own_fused_kernel.py``. The formula is compiled for the CPU by Numba and for the
GPU by Triton, its derivative is derived from it, and both run on tensors where neither compiler can be used.
"""

import argparse
import time

import torch

from kgat.functional import edge_attention, explain
from kgat.kernels import Kernel
from kgat.score.gram import LazyGram
from kgat.score.rules import Pair, ScoreRule
from kgat.score.scalar import absolute, exp, log
from kgat.testing import check_backend, check_kernel


def log_cosh(x, y):
    d = absolute(x - y)
    return d + log(0.5 + 0.5 * exp(-2.0 * d))  # no overflow, however far x is from y


LOG_COSH = Pair("log_cosh", log_cosh)


class Sech(Kernel):
    r"""The product of hyperbolic secants: an RBF near by, a Laplace kernel far away.

    .. math::
        \log k(\mathbf{q}, \mathbf{k}) = - \sum_c \log \cosh \big( (q_c - k_c) / \ell_h \big)
    """

    symmetric = True
    positive_definite = True  # the hyperbolic secant is its own Fourier transform
    translation_invariant = True

    def __init__(self, channels, heads=1):
        super().__init__(channels, heads)
        self.log_lengthscale = torch.nn.Parameter(torch.zeros(heads, 1))

    def reset_parameters(self):
        torch.nn.init.zeros_(self.log_lengthscale)

    def lift(self, query, key):  # once per node
        scale = (-self.log_lengthscale).exp()
        return LazyGram.of(query * scale, key * scale, ScoreRule(LOG_COSH, weight=-1.0))  # once per edge


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--nodes", type=int, default=10_000)
args = parser.parse_args()

check_kernel(Sech)
print("Sech obeys the laws of kernels")
backends = ["eager", "cpu"] + (["gpu"] if torch.cuda.is_available() else [])
for backend in backends:
    check_backend(Sech, backend)
    print(f"Sech on the {backend} backend equals the reference, with all derivatives")

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
x = torch.randn(args.nodes, 4, 32, device=device, requires_grad=True)
edge_index = torch.randint(0, args.nodes, (2, 12 * args.nodes), device=device)
kernel = Sech(32, heads=4).to(device)
print(explain(kernel(x, x), x, edge_index))
for backend in (None, "eager"):
    for attempt in range(2):  # the first sorts the edges, and compiles unless that is on disk already
        start = time.perf_counter()
        edge_attention(kernel(x, x), x, edge_index, backend=backend).sum().backward()
        if device == "cuda":
            torch.cuda.synchronize()
        name = backend or "chosen"
        print(f"{name:>7}, run {attempt + 1}: {1e3 * (time.perf_counter() - start):7.1f} ms")
