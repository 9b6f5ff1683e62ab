r"""Benchmarks: ``kgat bench``.

- :mod:`~kgat.experiments.bench.layers`: our layers against PyG's in the process at hand, in a minute.
- :mod:`~kgat.experiments.bench.sequences`: attention on sequences of growing length, in fresh processes.
- :mod:`~kgat.experiments.bench.ops`: layers and attention cores against all rivals, at several sizes, in
  fresh processes.

The last is made of :mod:`~kgat.experiments.bench.scenarios` (graphs),
:mod:`~kgat.experiments.bench.rivals` (what is compared), :mod:`~kgat.experiments.bench.measure` (clocks and
peaks), :mod:`~kgat.experiments.bench.worker` (what one process does) and
:mod:`~kgat.experiments.bench.report` (tables and figure, from the records alone).
"""
