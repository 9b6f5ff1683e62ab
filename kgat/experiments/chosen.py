r"""Which settings trials chose, graph by graph: what it takes to train a tuned model again."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from kgat.experiments.controls import CONTROLS
from kgat.experiments.equal_settings import UNUSED
from kgat.experiments.pairs import latest
from kgat.experiments.table import NONE, Cell, Table, code, number
from kgat.experiments.verdict import STOCK
from kgat.names import shown

__all__ = ["blocks"]

Record = Mapping[str, Any]

WHO = {"dataset", "model", "seed"}  # of a configuration: the rest are settings


def blocks(records: Iterable[Record]) -> list[str | Table]:
    r"""Lays out what trials chose: what differs from the protocol, the first of all trials; nothing without
    runs of chosen settings.

    Args:
        records (list of dict): Records of comparisons, and of :func:`kgat.experiments.properties.properties`,
            which say how many nodes a split has.
    """
    runs_of: dict[tuple[str, str], list[Record]] = {}
    protocol: dict[tuple[str, str], Mapping[str, Any]] = {}
    nodes: dict[str, str] = {}
    for record in latest(records):
        if record.get("kind") == "graph" and "nodes_of_split" in record:
            nodes[record["dataset"]] = " / ".join(f"{count:,}" for count in record["nodes_of_split"])
        elif record.get("kind") == "tune" and not record["trial"]:
            protocol[record["dataset"], record["model"]] = record["config"]
        elif record.get("kind") == "run" and "tuned" in record:
            runs_of.setdefault((record["dataset"], record["model"]), []).append(record)
    if not runs_of:
        return []
    rows = [
        [
            dataset,
            nodes.get(dataset, NONE),
            code(model),
            code(runs[0]["config"]["model"]) if "family" in runs[0] else NONE,
            _changed(model, runs[-1]["config"], protocol.get((dataset, model))),
            number(runs[0]["tuned"]["settings"], "{}"),
            number(statistics.median(run["parameters"] for run in runs), "{:,.0f}"),
            number(statistics.median(run["best_epoch"] for run in runs), "{:g}"),
            f"{sum(run['epochs'] >= run['config']['max_epochs'] for run in runs)} of {len(runs)}",
        ]
        for (dataset, model), runs in sorted(runs_of.items(), key=lambda item: item[0][0])
    ]
    head = ["graph", "nodes of a split", "model", "kernel", "settings", "trials", "parameters"]
    head += ["kept epoch", "at the last epoch"]
    return [Table(head, rows, names=5), NOTE]


NOTE = (
    "Nodes for training / validation / testing, of the first split. Kept epoch: the median over seeds. At "
    "the last epoch: how many runs ended there, and not by patience. "
    "Settings: those that differ from the first trial, the protocol, as `kgat train --dataset … --model … "
    "--set …` takes them; `max_epochs` and `patience` are those of all trials."
)


def _changed(model: str, config: Mapping[str, Any], protocol: Mapping[str, Any] | None) -> Cell:
    if protocol is None:  # its trials are not among the records
        return Cell(NONE)
    idle = UNUSED if model in (*STOCK, *CONTROLS) else ()
    names = [name for name in {**protocol, **config} if name not in WHO and name not in idle]
    changed = [
        # A setting that is no longer there has its default again.
        f"`{name}={shown(config[name])}`" if name in config else f"no `{name}`"
        for name in names
        if config.get(name) != protocol.get(name)
    ]
    return Cell(" ".join(changed) or "of the protocol")
