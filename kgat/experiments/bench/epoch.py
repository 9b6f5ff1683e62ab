r"""A training epoch of a kernel GAT against one of stock GAT, as users have them: ``kgat bench epoch``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric import seed_everything

from kgat.datasets import Task, load
from kgat.experiments.bench import measure
from kgat.experiments.circumstances import circumstances
from kgat.experiments.config import Config
from kgat.experiments.ledger import append
from kgat.experiments.training import Trainer, build

PEER = "stock GAT, dense features"


def bench_epoch(
    dataset: str = "Cora", root: str | Path | None = None, rounds: int = 20, path: Path | None = None
) -> list[dict[str, Any]]:
    r"""Times a training epoch of a :class:`~kgat.models.KernelGAT` with GAT's kernel against one of the same
    model made of :class:`~torch_geometric.nn.GATConv` layers, with the same weights, on dense features.

    An epoch is what ``kgat train`` does in one, with the settings of the data set's protocol: forward with
    all dropout, backward, and a step of Adam on all training nodes. Ours takes the features as
    :func:`kgat.datasets.load` gives them, sparse where they count words, and then dense ones.

    Args:
        dataset (str, optional): The data set. (default: :obj:`"Cora"`)
        root (str or Path, optional): The folder of data sets, as of :func:`kgat.datasets.load`.
            (default: :obj:`None`)
        rounds (int, optional): Number of rounds. (default: :obj:`20`)
        path (Path, optional): The file of records; none is written if :obj:`None`. (default: :obj:`None`)

    Returns:
        list of dict: Records of kind :obj:`"epoch"`: how many times longer stock GAT takes, as the median of
        per-round ratios with their smallest and largest.

    Raises:
        ValueError: If the two models do not compute the same.
    """
    task = load(dataset, root)
    # Stock GAT has one projection for everything; so has ours here.
    config = Config.of(dataset, "additive", overrides={"projections": "shared"})
    x = task.data.x
    dense = x if x.layout == torch.strided else x.to_dense()
    layouts = {"dense": dense} if dense is x else {str(x.layout).removeprefix("torch."): x, "dense": dense}
    records = []
    for layout, features in layouts.items():
        peer = _trainer(task, replace(config, model="gat", projections=None), dense)
        ours = _trainer(task, config, features)
        ours.model.load_state_dict(peer.model.state_dict())
        with torch.no_grad():
            expected, out = (each.model.eval()(*each.train_inputs[:2]) for each in (peer, ours))
        measure.expect_equal(out, expected, "both models")
        records.append(
            {
                **{"kind": "epoch", "dataset": dataset, "features": layout, "peer": PEER},
                **measure.verdict(measure.paired(peer.step, ours.step, rounds)),
                **{"rounds": rounds, "config": config.as_dict()},
                **circumstances("cpu"),
            }
        )
        if path is not None:
            append(path, records[-1])
    return records


def _trainer(task: Task, config: Config, x: Tensor) -> Trainer:
    seed_everything(config.seed)
    visible = task.visible(task.split(config.seed))
    return Trainer(build(task, config), replace(visible, x=x), config)
