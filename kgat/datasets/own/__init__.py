r"""Graphs of one's own: from PyG, pandas, networkx, scipy, points, and files of all of them, to a
:class:`~kgat.datasets.Task`.

What the owner's material says is gathered in one form (:mod:`~kgat.datasets.own.raw`); labels, splits,
edges and features are then decided in one place each.
"""

from kgat.datasets.own.arrays import from_points, from_scipy
from kgat.datasets.own.averaged_features import averaged_features
from kgat.datasets.own.convert import convert_arrays
from kgat.datasets.own.data import from_data
from kgat.datasets.own.describe import describe
from kgat.datasets.own.encoding import Encoding
from kgat.datasets.own.graphs import read_graphs, read_pairs
from kgat.datasets.own.mapped import load_mapped, save_mapped
from kgat.datasets.own.networks import from_networkx
from kgat.datasets.own.read import read_graph, read_unlabelled, read_unlabelled_types
from kgat.datasets.own.structure import structural_features
from kgat.datasets.own.tables import from_pandas

__all__ = [
    "Encoding",
    "averaged_features",
    "convert_arrays",
    "describe",
    "from_data",
    "from_networkx",
    "from_pandas",
    "from_points",
    "from_scipy",
    "load_mapped",
    "read_graph",
    "read_graphs",
    "read_pairs",
    "read_unlabelled",
    "read_unlabelled_types",
    "save_mapped",
    "structural_features",
]
