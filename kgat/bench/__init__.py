r"""Benchmarks: ``kgat bench``.

- :mod:`~kgat.bench.layers`: our layers against PyG's in the process at hand, in a minute.
- :mod:`~kgat.bench.sequences`: attention on sequences of growing length, in fresh processes.
- :mod:`~kgat.bench.ops`: layers and attention cores against all rivals, at several sizes, in fresh processes.

The second is made of :mod:`~kgat.bench.scenarios` (graphs), :mod:`~kgat.bench.rivals` (what is compared),
:mod:`~kgat.bench.measure` (clocks and peaks), :mod:`~kgat.bench.worker` (what one process does) and
:mod:`~kgat.bench.report` (tables and figure, from the records alone).
"""
