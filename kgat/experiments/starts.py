r"""How the scores of kernels start, and whether a controlled start helps: measured, and written as a page.

.. code-block:: bash

    python -m kgat.experiments.starts scores ablation/start    # spread of scores, entropies of attention
    python -m kgat.experiments.starts validate ablation/start  # paired validation scores, no test nodes
    python -m kgat.experiments.starts page ablation/start      # the tables of README.md

What is in the records already is not measured again.
"""

import argparse
import copy
import itertools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from kgat.datasets import Task, load
from kgat.diagnostics import attention_entropy, trace
from kgat.experiments import tuning
from kgat.experiments.circumstances import circumstances
from kgat.experiments.config import Config, stored
from kgat.experiments.engine import Engine, Job, Note
from kgat.experiments.ledger import read
from kgat.experiments.pages import update_readme
from kgat.experiments.pairs import AVERAGED, Pair
from kgat.experiments.summary import Summary, summarise
from kgat.experiments.table import Cell, Table, code, interval, number, render
from kgat.experiments.trainer import inputs_of
from kgat.experiments.training import begun, build, fit
from kgat.functional import edge_softmax

SCORES, VALIDATION, PAGE = "scores.jsonl", "validation.jsonl", "README.md"
MODELS = ("rbf", "rbf*l1", "dot", "spectral")
# Ten graphs for the scores, of which five for validation: those where ten seeds take minutes.
DATASETS = (
    *("Cora", "CiteSeer", "PubMed", "digits", "Wisconsin", "Texas", "Cornell"),
    *("chameleon_filtered", "squirrel_filtered", "reed98"),
)
VALIDATED = ("digits", "Wisconsin", "chameleon_filtered", "CiteSeer", "Cora")
Record = Mapping[str, Any]
Work = Callable[[Task, Config], dict[str, Any]]


def layers(model: torch.nn.Module, task: Task, training: bool) -> list[dict[str, float]]:
    r"""Returns what the scores of each layer are like on the edges of a task, in a pass that leaves no trace.

    Args:
        model (torch.nn.Module): The model.
        task (Task): The task.
        training (bool): Whether in a training pass, with dropout, or in evaluation.

    Returns:
        list of dict: Per layer the :obj:`deviation` of its scores over edges and the :obj:`entropy` of its
        attention relative to uniform attention, means over heads.
    """
    x, edge_index, kwargs = inputs_of(task.data)
    edges = [layer.edge_index for layer in trace(copy.deepcopy(model), x, edge_index, **kwargs)]
    model = copy.deepcopy(model).train(training)
    inputs: list[Any] = []
    for conv in model.convs:  # type: ignore[union-attr]
        conv.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        model(x, edge_index, **kwargs)
        of_layers = []
        for conv, h, (col, row) in zip(model.convs, inputs, edges, strict=True):  # type: ignore[arg-type]
            query, key, _ = conv.project(h)
            score = conv.kernel(query, key).at(row, col)
            entropy = attention_entropy(edge_softmax(score, row, x.size(0)), row, x.size(0))
            of_layers.append({"deviation": _short(score.std(dim=0)), "entropy": _short(entropy)})
    return of_layers


def _short(values: torch.Tensor) -> float:
    return float(f"{float(values.mean()):.4g}")


def measure(task: Task, config: Config) -> dict[str, Any]:
    r"""Trains a model and returns how its scores were before and after.

    Args:
        task (Task): The task.
        config (Config): The settings.

    Returns:
        dict: A record of kind :obj:`"start"` with :func:`layers` in the first training pass and, at start and
        end, in evaluation.
    """
    record = begun("start", config.key, task, config)
    model = build(task, config)
    x, edge_index, kwargs = inputs_of(task.data)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        model.train()
        state = copy.deepcopy(model.state_dict())
        model(x, edge_index, **kwargs)  # sets the scales, and statistics of norms that are put back
        scales = {name: value for name, value in model.state_dict().items() if name.endswith("input_scale")}
        model.load_state_dict({**state, **scales})
    record |= {"training": layers(model, task, True), "start": layers(model, task, False)}
    fitted = fit(model, task.visible(task.split(config.seed)), config)
    return record | {
        "end": layers(model, task, False),
        "best_epoch": fitted.best_epoch,
        "epochs": fitted.epochs,
        **circumstances("cpu"),
    }


def missing(path: Path, tasks: Sequence[Task], configs: Sequence[Config], work: Work) -> None:
    r"""Does what is not in a file of records yet, in the order of its settings."""
    by_name = {task.name: task for task in tasks}
    key_of = tuning.key if work is tuning.trial else lambda config: config.key

    def records_of(config: Config, *, note: Note) -> Iterator[dict[str, Any]]:
        yield work(by_name[config.dataset], config)

    jobs = []
    for config in configs:
        label = f"{config.dataset}, {config.model}, start {config.start or 'none'}, seed {config.seed}"
        jobs.append(Job(key_of(config), label, records_of, (config,)))
    with Engine(path, len(jobs), shown=True) as engine:
        engine.run(jobs)


def page(folder: Path) -> str:
    r"""Returns the tables of both files of records as Markdown."""
    blocks: list[str | Table] = []
    if (folder / SCORES).exists():
        blocks += _score_table(read(folder / SCORES))
    if (folder / VALIDATION).exists():
        blocks += _validation_table(read(folder / VALIDATION))
    return render(blocks)


def _score_table(records: Sequence[Record]) -> list[str | Table]:
    rows = []
    for record in records:
        start = stored(record["config"], "start") or "none"
        of_moments = [
            "; ".join(f"{_digits(layer['deviation'])} / {layer['entropy']:.2f}" for layer in record[moment])
            for moment in ("training", "start", "end")
        ]
        rows.append([record["dataset"], code(record["model"]), start, *of_moments])
    return [
        "Standard deviation of scores over edges / entropy of attention relative to uniform attention, layer "
        "by layer, means over heads: in the first training pass, with its dropout, and in evaluation at the "
        "start and at the epoch that was kept.",
        Table(["graph", "model", "start", "training pass", "at the start", "at the end"], rows, names=3),
    ]


def _digits(value: float) -> str:
    return f"{value:.2f}" if value >= 0.01 or value == 0.0 else f"{value:.0e}"


def compared(records: Sequence[Record]) -> dict[tuple[str, str], dict[str, Summary]]:
    r"""Compares per data set and model the validation scores with a start of 1 to those without, in per cent,
    of the seeds that have both. A run that diverged scores 0.

    Args:
        records (list of dict): Records of :func:`kgat.experiments.tuning.trial`.

    Returns:
        dict: Per data set and model the summaries of :obj:`"none"` and :obj:`"unit"`.
    """
    scores: dict[tuple[str, str], dict[str, dict[Hashable, float | None]]] = {}
    for record in records:
        start = stored(record["config"], "start") or "none"
        by_start = scores.setdefault((record["dataset"], record["model"]), {"none": {}, "unit": {}})
        by_start[start][Pair.of(record)] = record["val"] or 0.0
    summaries = {}
    for which, by_start in scores.items():
        common = [seed for seed in by_start["none"] if seed in by_start["unit"]]
        if common:
            paired = {start: {seed: runs[seed] for seed in common} for start, runs in by_start.items()}
            summaries[which] = summarise(paired, "none")
    return summaries


def worse(records: Sequence[Record]) -> list[tuple[str, str]]:
    r"""Returns the data sets and models that a start of 1 makes worse beyond noise: the 95 % t-interval of
    the paired differences is below zero."""
    ends = {which: of_starts["unit"].ci_high for which, of_starts in compared(records).items()}
    return [which for which, high in ends.items() if high is not None and high < 0.0]


def _validation_table(records: Sequence[Record]) -> list[str | Table]:
    rows: list[list[Cell | str]] = []
    for (dataset, model), of_starts in compared(records).items():
        none, unit = of_starts["none"], of_starts["unit"]
        means = (number(summary.mean, "{:.1f}", 100) for summary in (none, unit))
        difference = interval(unit.difference, unit.ci_low, unit.ci_high, "{:+.1f}", 100)
        ups = f"{unit.ups} : {unit.downs}"
        rows.append([dataset, code(model), number(unit.n, "{}"), *means, difference, ups])
    head = ["graph", "model", "seeds", "none: val %", "unit: val %", "difference [95 %]", "ups : downs"]
    below = ", ".join(f"{dataset} `{model}`" for dataset, model in worse(records))
    return [
        f"Metric on validation nodes at the epoch that was kept, paired by seed ({AVERAGED}). No test node "
        "was scored.",
        Table(head, rows, names=2),
        f"Worse beyond noise with a start of 1: {below or 'none'}.",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    r"""Runs one of the three commands.

    Args:
        arguments (list of str, optional): The arguments; those of the process if :obj:`None`.
            (default: :obj:`None`)
    """
    parser = argparse.ArgumentParser(prog="python -m kgat.experiments.starts")
    parser.add_argument("what", choices=("scores", "validate", "page"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--root", help="folder of the data sets")
    parser.add_argument("--datasets", type=lambda text: text.split(","))
    parser.add_argument("--models", type=lambda text: text.split(","), default=MODELS)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    if options.what == "page":
        update_readme(options.folder / PAGE, page(options.folder))
        return
    scores, validate = (SCORES, DATASETS, 1, measure), (VALIDATION, VALIDATED, 10, tuning.trial)
    name, datasets, seeds, work = scores if options.what == "scores" else validate
    tasks = [load(dataset, options.root) for dataset in options.datasets or datasets]
    overrides = dict(override.split("=", 1) for override in options.set)
    # Seed by seed, so that one that is stopped is balanced.
    every = itertools.product(range(options.seeds or seeds), tasks, options.models, (None, "unit"))
    configs = [
        Config.of(task.name, model, seed, {**overrides, "start": start}) for seed, task, model, start in every
    ]
    missing(options.folder / name, tasks, configs, work)


if __name__ == "__main__":
    main()
