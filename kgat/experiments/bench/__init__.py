r"""Benchmarks: ``kgat bench``.

Each says what is measured, of which candidates on what:

- :mod:`~kgat.experiments.bench.layers`: our layers against PyG's in the process at hand, in a minute;
- :mod:`~kgat.experiments.bench.epoch`: a training epoch against one of stock GAT, in the process at hand;
- :mod:`~kgat.experiments.bench.loader`: drawing a mini-batch against the training step it feeds;
- :mod:`~kgat.experiments.bench.firstcall`: what is compiled at the first use of a kernel, in fresh processes;
- :mod:`~kgat.experiments.bench.threads`: our layers and cores on several threads against one;
- :mod:`~kgat.experiments.bench.ops`: layers and attention cores against all rivals, at several sizes, in
  fresh processes, each of which does what :mod:`~kgat.experiments.bench.contest` says;
- :mod:`~kgat.experiments.bench.sequences`: attention on sequences of growing length, in fresh processes.

They share the engine of all experiments, :mod:`~kgat.experiments.bench.scenarios` (graphs),
:mod:`~kgat.experiments.bench.rivals` (what is compared), :mod:`~kgat.experiments.bench.measure` (clocks and
peaks), :mod:`~kgat.experiments.bench.worker` (a fresh process) and :mod:`~kgat.experiments.bench.report`
(tables, from the records alone).
"""
