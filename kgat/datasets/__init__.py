r"""Data sets: :func:`load` gives a :class:`Task` on the nodes of a graph or a :class:`GraphTask` on whole
graphs, :func:`names` lists them;
:func:`load_sequences` gives a :class:`SequenceTask`, :func:`sequence_names` lists those.

A family of data sets is a file in :mod:`kgat.datasets.graphs`, :mod:`kgat.datasets.collections` or
:mod:`kgat.datasets.sequences`; a new one is found there.
"""

from kgat.datasets.graph_task import Graphs, GraphTask, VisibleGraphs
from kgat.datasets.loading import load, names
from kgat.datasets.metrics import METRICS, Metric
from kgat.datasets.sequence_task import SequenceTask
from kgat.datasets.sequences import load_sequences, sequence_names
from kgat.datasets.task import Split, Task, Visible

# What training may see of a task, by its level.
VISIBLE = {visible.level: visible for visible in (Visible, VisibleGraphs)}

__all__ = [
    "METRICS",
    "VISIBLE",
    "GraphTask",
    "Graphs",
    "Metric",
    "SequenceTask",
    "Split",
    "Task",
    "Visible",
    "VisibleGraphs",
    "load",
    "load_sequences",
    "names",
    "sequence_names",
]
