r"""How the scores of kernels start, and whether a controlled start helps: measured, and written as a page.

.. code-block:: bash

    python -m kgat.experiments.starts scores ablation/start    # spread of scores, entropies of attention
    python -m kgat.experiments.starts validate ablation/start  # paired validation scores, no test nodes
    python -m kgat.experiments.starts page ablation/start      # the tables of README.md

What is in the records already is not measured again.
"""

import argparse
import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric import seed_everything

from kgat.datasets import Task, load
from kgat.diagnostics import attention_entropy, trace
from kgat.experiments import ledger as record_file
from kgat.experiments import tuning
from kgat.experiments.circumstances import circumstances
from kgat.experiments.config import Config, stored
from kgat.experiments.pages import update_readme
from kgat.experiments.statistics import interval
from kgat.experiments.training import build, fit
from kgat.functional import edge_softmax
from kgat.nn.start import STARTS

SCORES, VALIDATION, PAGE = "scores.jsonl", "validation.jsonl", "README.md"
MODELS = ("rbf", "rbf*l1", "dot", "spectral")
# Ten graphs for the scores, of which five for validation: those where ten seeds take minutes.
DATASETS = (
    *("Cora", "CiteSeer", "PubMed", "digits", "Wisconsin", "Texas", "Cornell"),
    *("chameleon_filtered", "squirrel_filtered", "reed98"),
)
VALIDATED = ("digits", "Wisconsin", "chameleon_filtered", "CiteSeer", "Cora")
Record = Mapping[str, Any]


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
    data = task.data
    given = {} if data.edge_attr is None else {"edge_attr": data.edge_attr}
    edges = [layer.edge_index for layer in trace(copy.deepcopy(model), data.x, data.edge_index, **given)]
    model = copy.deepcopy(model).train(training)
    inputs: list[Any] = []
    for conv in model.convs:  # type: ignore[union-attr]
        conv.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        model(data.x, data.edge_index, **given)
        found = []
        for conv, x, (col, row) in zip(model.convs, inputs, edges, strict=True):  # type: ignore[arg-type]
            query, key, _ = conv.project(x)
            score = conv.kernel(query, key).at(row, col)
            entropy = attention_entropy(edge_softmax(score, row, data.num_nodes), row, data.num_nodes)
            found.append({"deviation": _short(score.std(dim=0)), "entropy": _short(entropy)})
    return found


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
    seed_everything(config.seed)
    model = build(task, config)
    data = task.data
    given = {} if data.edge_attr is None else {"edge_attr": data.edge_attr}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        model.train()
        state = copy.deepcopy(model.state_dict())
        model(data.x, data.edge_index, **given)  # sets the scales, and statistics of norms that are put back
        scales = {name: value for name, value in model.state_dict().items() if name.endswith("input_scale")}
        model.load_state_dict({**state, **scales})
    found = {"training": layers(model, task, True), "start": layers(model, task, False)}
    fitted = fit(model, task.visible(task.split(config.seed)), config)
    return {
        "kind": "start",
        "key": config.key,
        "dataset": task.name,
        "model": config.model,
        "seed": config.seed,
        "config": config.as_dict(),
        **found,
        "end": layers(model, task, False),
        "best_epoch": fitted.best_epoch,
        "epochs": fitted.epochs,
        **circumstances("cpu"),
    }


def missing(
    path: Path,
    datasets: Sequence[str],
    models: Sequence[str],
    seeds: int,
    work: Callable[[Task, Config], dict[str, Any]],
    root: str | None,
    overrides: Mapping[str, Any],
) -> None:
    r"""Does what is not in a file of records yet, seed by seed, so that one that is stopped is balanced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {record["key"] for record in record_file.read(path)} if path.exists() else set()
    tasks = {name: load(name, root) for name in datasets}
    for seed in range(seeds):
        for name, task in tasks.items():
            for model in models:
                for start in STARTS:
                    config = Config.of(name, model, seed, {**overrides, "start": start})
                    if known.isdisjoint((config.key, tuning.key(config))):
                        record_file.append(path, work(task, config))


def page(folder: Path) -> str:
    r"""Returns the tables of both files of records as Markdown."""
    parts = []
    if (folder / SCORES).exists():
        parts += _score_tables(record_file.read(folder / SCORES))
    if (folder / VALIDATION).exists():
        parts += _validation_table(record_file.read(folder / VALIDATION))
    return "\n\n".join(parts)


def _score_tables(records: Sequence[Record]) -> list[str]:
    head = ["graph", "model", "start", "training pass", "at the start", "at the end"]
    lines = [head, ["---"] * 3 + ["---:"] * 3]
    for record in records:
        start = stored(record["config"], "start") or "none"
        cells = [_layers(record[moment]) for moment in ("training", "start", "end")]
        lines.append([record["dataset"], f"`{record['model']}`", start, *cells])
    return [
        "Standard deviation of scores over edges / entropy of attention relative to uniform attention, layer "
        "by layer, means over heads: in the first training pass, with its dropout, and in evaluation at the "
        "start and at the epoch that was kept.",
        _markdown(lines),
    ]


def _layers(found: Sequence[Record]) -> str:
    return "; ".join(f"{_digits(layer['deviation'])} / {layer['entropy']:.2f}" for layer in found)


def _digits(value: float) -> str:
    return f"{value:.2f}" if value >= 0.01 or value == 0.0 else f"{value:.0e}"


def pairs(records: Sequence[Record]) -> dict[tuple[str, str], np.ndarray]:
    r"""Returns per data set and model the validation scores without and with a start of 1, of the seeds that
    have both. A run that diverged scores 0.

    Shapes:
        - **output:** each :math:`(n, 2)`
    """
    found: dict[tuple[str, str], dict[int, dict[Any, float]]] = {}
    for record in records:
        seeds = found.setdefault((record["dataset"], record["model"]), {})
        seeds.setdefault(record["seed"], {})[stored(record["config"], "start")] = record["val"] or 0.0
    return {
        which: np.array([[own[start] for start in STARTS] for own in seeds.values() if len(own) == 2])
        for which, seeds in found.items()
        if any(len(own) == 2 for own in seeds.values())
    }


def worse(records: Sequence[Record]) -> list[tuple[str, str]]:
    r"""Returns the data sets and models that a start of 1 makes worse beyond noise: the 95 % t-interval of
    the paired differences is below zero."""
    ends = {which: interval(scores[:, 1] - scores[:, 0])[1] for which, scores in pairs(records).items()}
    return [which for which, high in ends.items() if high is not None and high < 0.0]


def _validation_table(records: Sequence[Record]) -> list[str]:
    head = ["graph", "model", "seeds", "none: val %", "unit: val %", "difference [95 %]", "ups : downs"]
    lines = [head, ["---"] * 2 + ["---:"] * 5]
    for (dataset, model), scores in pairs(records).items():
        none, unit = 100 * scores.mean(axis=0)
        values = np.round(100 * (scores[:, 1] - scores[:, 0]), 8)
        low, high = interval(values)
        said = f"{values.mean():+.1f}" + ("" if low is None else f" [{low:+.1f}, {high:+.1f}]")
        signs = f"{int((values > 0).sum())} : {int((values < 0).sum())}"
        means = (str(len(scores)), f"{none:.1f}", f"{unit:.1f}")
        lines.append([dataset, f"`{model}`", *means, said.replace("-", "−"), signs])
    below = ", ".join(f"{dataset} `{model}`" for dataset, model in worse(records))
    return [
        "Metric on validation nodes at the epoch that was kept, paired by seed. No test node was scored.",
        _markdown(lines),
        f"Worse beyond noise with a start of 1: {below or 'none'}.",
    ]


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


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
    given = parser.parse_args(arguments)
    overrides = dict(override.split("=", 1) for override in given.set)
    shared = (given.root, overrides)
    if given.what == "scores":
        datasets, seeds = given.datasets or DATASETS, given.seeds or 1
        missing(given.folder / SCORES, datasets, given.models, seeds, measure, *shared)
    elif given.what == "validate":
        datasets, seeds = given.datasets or VALIDATED, given.seeds or 10
        missing(given.folder / VALIDATION, datasets, given.models, seeds, tuning.trial, *shared)
    else:
        update_readme(given.folder / PAGE, page(given.folder))


if __name__ == "__main__":
    main()
