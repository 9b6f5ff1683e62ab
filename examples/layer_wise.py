r"""Answers for all nodes layer by layer, over slices of rows: exact, in memory that you set.

Run it with ``python examples/layer_wise.py``. It compares ``model.inference`` with one full pass, and says how large
the largest slice is.
"""

import argparse
import time

import torch
import torch.nn.functional as F
from torch_geometric.utils import barabasi_albert_graph, degree

from kgat import KernelGAT

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--nodes", type=int, default=20_000)
parser.add_argument("--rows", type=int, default=2_000, help="nodes that a slice answers for, at most")
parser.add_argument("--edges", type=int, default=10_000, help="edges into them, at most")
parser.add_argument("--epochs", type=int, default=2)
args = parser.parse_args()
