r"""The experiments of five papers on sequences: one transformer, in which nothing but the attention changes.

Validation chooses the epoch, the test is read once, at that epoch. The sizes are those that two CPU cores can
train, or those of the papers: nothing in the tables is a number of a paper.

- :mod:`~kgat.experiments.sequences.papers`: data sets, attentions and sizes;
- :mod:`~kgat.experiments.sequences.fitting`: a model is built, trained and evaluated;
- :mod:`~kgat.experiments.sequences.layers`: what the attention modules of a trained model do;
- :mod:`~kgat.experiments.sequences.runs`: runs with their records, many of them resumable;
- :mod:`~kgat.experiments.sequences.tables`: their tables.
"""

from kgat.experiments.sequences.fitting import build, evaluate, fit
from kgat.experiments.sequences.layers import layers_record
from kgat.experiments.sequences.papers import (
    PAPERS,
    Paper,
    Setting,
    arguments,
    choose,
    resolve_paper,
    settings_of,
)
from kgat.experiments.sequences.runs import check, compare, finished, load, run
from kgat.experiments.sequences.tables import table

__all__ = ["PAPERS", "Paper", "Setting", "arguments", "build", "check", "choose", "compare", "evaluate"]
__all__ += [
    "finished",
    "fit",
    "layers_record",
    "load",
    "resolve_paper",
    "run",
    "settings_of",
    "table",
]
