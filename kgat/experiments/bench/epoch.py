r"""A training epoch of a kernel GAT against one of stock GAT, as users have them: ``kgat bench epoch``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric import seed_everything
from torch_geometric.data import Data

from kgat.datasets import Split, Task, load
from kgat.experiments.bench import measure
from kgat.experiments.bench.scenarios import Scenario
from kgat.experiments.circumstances import circumstances
from kgat.experiments.config import Config
from kgat.experiments.ledger import append
from kgat.experiments.training import Trainer, build
from kgat.names import bare

PEER = "stock GAT, dense features"
MODELS = ("additive", "rbf", "spectral")
# Drawn graphs of the size of a data set that few have, by its name with a suffix.
SIZED = "-sized"
SIZES = {"tolokers": Scenario("tolokers", 11_758, 1_049_758, 10, 1, 1)}
WARM_UP = 2  # rounds


def bench_epoch(
    dataset: str = "Cora",
    root: str | Path | None = None,
    rounds: int = 20,
    path: Path | None = None,
    models: Sequence[str] = MODELS,
) -> list[dict[str, Any]]:
    r"""Times a training step and a validation of :class:`~kgat.models.KernelGAT` with some kernels against
    those of the same model made of :class:`~torch_geometric.nn.GATConv` layers, on dense features.

    They are what ``kgat train`` does in an epoch, with the settings of the data set's protocol: forward with
    all dropout, backward and a step of Adam on all training nodes; then loss and metric of the validation
    nodes. Ours take the features as :func:`kgat.datasets.load` gives them, sparse where they count words; the
    first of them also dense ones. All take turns, with one projection for queries, keys and values.

    Args:
        dataset (str, optional): The data set; ``"tolokers-sized"`` is a drawn graph of that size.
            (default: :obj:`"Cora"`)
        root (str or Path, optional): The folder of data sets, as of :func:`kgat.datasets.load`.
            (default: :obj:`None`)
        rounds (int, optional): Number of rounds. (default: :obj:`20`)
        path (Path, optional): The file of records; none is written if :obj:`None`. (default: :obj:`None`)
        models (list of str, optional): The models. (default: :obj:`("additive", "rbf", "spectral")`)

    Returns:
        list of dict: Records of kind :obj:`"epoch"`: seconds, and how many times longer stock GAT takes, as
        the median of per-round ratios with their smallest and largest.

    Raises:
        ValueError: If a model is unknown, or that with GAT's kernel does not compute what stock GAT does.
    """
    task = _task(dataset, root)
    x = task.data.x
    dense = x if x.layout == torch.strided else x.to_dense()
    stock = _config(dataset, "gat")
    peer = _trainer(task, stock, dense)
    ours: dict[tuple[str, str], Trainer] = {}
    for number, model in enumerate(models):
        for features in (x, dense) if number == 0 and x is not dense else (x,):
            layout = "dense" if features is dense else bare(features.layout)
            ours[model, layout] = trainer = _trainer(task, _config(dataset, model), features)
            if model == "additive":
                _check_equal(trainer, peer)
    clock = measure.clock_of("cpu", torch.get_num_threads())
    records = []
    for what in ("step", "validation"):
        method = "step" if what == "step" else "validate"
        steps = {key: getattr(one, method) for key, one in {("", ""): peer, **ours}.items()}
        names = {" ".join(key): key for key in steps}
        seconds = measure.take_turns(
            {name: steps[key] for name, key in names.items()},
            *(lambda: None, math.inf, "cpu", rounds + WARM_UP),
            clock=clock,
        )
        counted = {names[name]: values[WARM_UP:] for name, values in seconds.items()}
        theirs = counted.pop(("", ""))
        for (model, layout), values in counted.items():
            records.append(
                {
                    **{"kind": "epoch", "dataset": dataset, "model": model, "features": layout, "what": what},
                    **{"peer": PEER, **measure.verdict(measure.ratios(theirs, values))},
                    **{"seconds": measure.spread(values), "peer_seconds": measure.spread(theirs)},
                    **{"clock": clock, "rounds": rounds, "config": ours[model, layout].config.as_dict()},
                    **circumstances("cpu"),
                }
            )
            if path is not None:
                append(path, records[-1])
    return records


def _config(dataset: str, model: str) -> Config:
    # Stock GAT has one projection for everything; so have ours here.
    overrides = None if model == "gat" else {"projections": "shared"}
    return Config.of(dataset.removesuffix(SIZED), model, overrides=overrides)


def _task(dataset: str, root: str | Path | None) -> Task:
    name = dataset.removesuffix(SIZED)
    if name == dataset:
        task = load(dataset, root)
        if not isinstance(task, Task):
            raise ValueError(f"Expected a task on nodes (got '{dataset}', on {task.level}s); e.g. Cora")
        return task
    if name not in SIZES:
        raise ValueError(f"Expected a size of {', '.join(SIZES)} (got '{name}'); e.g. tolokers{SIZED}")
    graph = SIZES[name].load(None, "cpu")
    edges, nodes = graph.edge_index, graph.x.size(0)
    part = torch.arange(nodes) % 4
    y = torch.randint(2, (nodes,), generator=torch.Generator().manual_seed(0))
    data = Data(x=graph.x, edge_index=edges[:, edges[0] != edges[1]], y=y)
    split = Split("fourths", part < 2, part == 2, part == 3)
    return Task(dataset, data, (split,), "roc_auc", 2, "drawn", "none")


def _check_equal(ours: Trainer, peer: Trainer) -> None:
    ours.model.load_state_dict(peer.model.state_dict())
    with torch.no_grad():
        expected, out = (each.model.eval()(*each.train_inputs[:2]) for each in (peer, ours))
    measure.expect_equal(out, expected, "both models")


def _trainer(task: Task, config: Config, x: Tensor) -> Trainer:
    seed_everything(config.seed)
    visible = task.visible(task.split(config.seed))
    return Trainer(build(task, config), replace(visible, x=x), config)
