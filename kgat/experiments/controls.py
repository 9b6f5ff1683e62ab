r"""Whether attention is what helps: a family of kernels, and stock layers, against a plain mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kgat.experiments.properties import by_edges
from kgat.experiments.statistics import holm
from kgat.experiments.table import NONE, Table, number, probability
from kgat.experiments.verdict import STOCK, Verdict, difference_cells, score_cell, verdicts

__all__ = ["blocks"]

Record = Mapping[str, Any]

MEAN = "constant"  # the kernel that is the same for all neighbours
CONTROLS = {
    MEAN: "the layer of the kernels with a plain mean over neighbours",
    "gcn": "a mean that degrees weigh",
    "mlp": "no edges",
}


def blocks(records: Iterable[Record], judged: Sequence[Verdict]) -> list[str | Table]:
    r"""Lays out what a family gains on layers without attention, if runs of the plain mean are there.

    Args:
        records (list of dict): Records of comparisons, and of :func:`kgat.experiments.properties.properties`.
        judged (list of Verdict): What :func:`kgat.experiments.verdict.verdicts` returned of the family.
    """
    records = list(records)
    family = judged[0].family
    if family in CONTROLS:
        return []
    of_stock = {verdict.dataset: verdict.stock for verdict in judged}
    against = verdicts(records, family, [MEAN])
    if not against:
        return []
    stock = {
        (verdict.dataset, verdict.family): verdict
        for name in STOCK
        for verdict in verdicts(records, name, [MEAN])
    }
    beside = {
        (verdict.dataset, name): verdict.contest
        for name in CONTROLS
        if name != MEAN
        for verdict in verdicts(records, name, [MEAN])
    }
    rivals = {name: rival for name, of in of_stock.items() if (rival := stock.get((name, of)))}
    adjusted = holm({name: rival.unadjusted for name, rival in rivals.items()})
    names = [MEAN, *(name for name in CONTROLS if any(name == found for _, found in beside))]
    said = "; ".join(f"`{name}`: {CONTROLS[name]}" for name in names)
    rows = []
    for verdict in against:
        rival = rivals.get(verdict.dataset)
        rows.append(
            [
                verdict.dataset,
                number(verdict.seeds, "{}"),
                *(score_cell(verdict.summaries[name], verdict.measure) for name in (family, MEAN)),
                *(score_cell(beside.get((verdict.dataset, name)), verdict.measure) for name in names[1:]),
                *difference_cells(verdict),
                probability(verdict.p_value),
                *(difference_cells(rival) if rival else [NONE, NONE]),
                probability(adjusted.get(verdict.dataset)),
            ]
        )
    better = ["better : worse"]
    of_others = []
    for name in names[1:]:
        judged_of = verdicts(records, family, [name])
        of_others.append(
            f"Against `{name}` ({CONTROLS[name]}), of {len(judged_of)} graph{'s' * (len(judged_of) != 1)}, "
            f"the family is significantly better on {_named(judged_of, 'win')} and worse on "
            f"{_named(judged_of, 'loss')}."
        )
    return [
        f"Against the plain mean in the same layer (`{MEAN}`, as many trials), of {len(against)} graphs, the "
        f"family is significantly better on {_named(against, 'win')} and worse on {_named(against, 'loss')}.",
        *by_edges(records, against),
        Table(
            [
                *("graph", "seeds", *(f"`{name}`" for name in (family, *names))),
                *(f"`{family}` − `{MEAN}` [95 %]", *better, "p", f"stock − `{MEAN}` [95 %]", *better, "p"),
            ],
            rows,
        ),
        f"{said}. Stock: the layer that validation prefers. Paired and adjusted as above.",
        *([" ".join(of_others)] if of_others else []),
    ]


def _named(judged: Sequence[Verdict], outcome: str) -> str:
    names = [verdict.dataset for verdict in judged if verdict.outcome == outcome]
    return f"{len(names)} ({', '.join(names)})" if names else "0"
