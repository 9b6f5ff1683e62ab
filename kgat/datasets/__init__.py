r"""Data sets: :func:`load` gives a :class:`Task` on the nodes of a graph or a :class:`GraphTask` on whole
graphs, :func:`names` lists them; :func:`link_task` asks for the links of a graph, a :class:`LinkTask`;
:func:`changed` takes labels from a graph, or adds edges or noise;
:func:`load_sequences` gives a :class:`SequenceTask`, :func:`sequence_names` lists those.
:func:`from_data`, :func:`read_graph` and their like make a :class:`Task` of a graph of one's own.

A family of data sets is a file in :mod:`kgat.datasets.graphs`, :mod:`kgat.datasets.collections`,
:mod:`kgat.datasets.links` or :mod:`kgat.datasets.sequences`; a new one is found there.
"""

from kgat.datasets.changed import changed
from kgat.datasets.graph_task import Graphs, GraphTask, VisibleGraphs
from kgat.datasets.hetero_task import HeteroTask
from kgat.datasets.inductive import inductive
from kgat.datasets.link_task import LinkSplit, LinkTask, Pairs, RandomLinkSplits, VisibleLinks, link_task
from kgat.datasets.loading import load, names
from kgat.datasets.metrics import METRICS, Metric
from kgat.datasets.own import (
    Encoding,
    averaged_features,
    convert_arrays,
    describe,
    from_data,
    from_networkx,
    from_pandas,
    from_points,
    from_scipy,
    load_mapped,
    read_graph,
    read_graphs,
    read_pairs,
    read_unlabelled,
    read_unlabelled_types,
    save_mapped,
    structural_features,
)
from kgat.datasets.sequence_task import SequenceTask
from kgat.datasets.sequences import load_sequences, sequence_names
from kgat.datasets.submission import save_submission, submission
from kgat.datasets.task import Split, Task, Visible

# What training may see of a task, by its level.
VISIBLE = {visible.level: visible for visible in (Visible, VisibleGraphs, VisibleLinks)}

__all__ = [
    "METRICS",
    "VISIBLE",
    "Encoding",
    "GraphTask",
    "Graphs",
    "HeteroTask",
    "LinkSplit",
    "LinkTask",
    "Metric",
    "Pairs",
    "RandomLinkSplits",
    "SequenceTask",
    "Split",
    "Task",
    "Visible",
    "VisibleGraphs",
    "VisibleLinks",
    "averaged_features",
    "changed",
    "convert_arrays",
    "describe",
    "from_data",
    "from_networkx",
    "from_pandas",
    "from_points",
    "from_scipy",
    "inductive",
    "link_task",
    "load",
    "load_mapped",
    "load_sequences",
    "names",
    "read_graph",
    "read_graphs",
    "read_pairs",
    "read_unlabelled",
    "read_unlabelled_types",
    "save_mapped",
    "save_submission",
    "sequence_names",
    "structural_features",
    "submission",
]
