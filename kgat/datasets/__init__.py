r"""Data sets: :func:`load` gives a :class:`Task` on a graph, :func:`names` lists them;
:func:`load_sequences` gives a :class:`SequenceTask`, :func:`sequence_names` lists those.

A family of data sets is a file in :mod:`kgat.datasets.graphs` or :mod:`kgat.datasets.sequences`; a new
one is found there.
"""

from kgat.datasets.graphs import load, names
from kgat.datasets.metrics import METRICS, Metric
from kgat.datasets.sequence_task import SequenceTask
from kgat.datasets.sequences import load_sequences, sequence_names
from kgat.datasets.task import Split, Task, Visible

__all__ = [
    "METRICS",
    "Metric",
    "SequenceTask",
    "Split",
    "Task",
    "Visible",
    "load",
    "load_sequences",
    "names",
    "sequence_names",
]
