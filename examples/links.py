r"""Predict links: edges are held out of the graph, and a model of nodes scores pairs of them.

Run it with ``python examples/links.py``. It takes Cora, or a graph that it draws where that cannot be had;
``--decoder mlp`` is worth a try.
"""

import argparse

import torch
import torch.nn.functional as F
from torch_geometric.datasets import StochasticBlockModelDataset
from torch_geometric.utils import negative_sampling, stochastic_blockmodel_graph
