r"""Whether attention is what helps: a family of kernels, and stock layers, against a plain mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kgat.experiments.properties import by_edges
from kgat.experiments.table import Cell, Table, interval, number, probability, spread
from kgat.experiments.verdict import STOCK, Verdict, verdicts

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
        (verdict.dataset, name): verdict
        for name in CONTROLS
        if name != MEAN
        for verdict in verdicts(records, name, [MEAN])
    }
    names = [MEAN, *(name for name in CONTROLS if any(name == found for _, found in beside))]
    said = "; ".join(f"`{name}`: {CONTROLS[name]}" for name in names)
    rows = []
    for verdict in against:
        rival = stock.get((verdict.dataset, of_stock.get(verdict.dataset, "")))
        rows.append(
            [
                verdict.dataset,
                number(min(summary.n for summary in verdict.summaries.values()), "{}"),
                _score(verdict, family),
                _score(verdict, MEAN),
                *(_score(beside.get((verdict.dataset, name)), name) for name in names[1:]),
                *_difference(verdict),
                probability(verdict.p_value),
                *(_difference(rival) if rival else ["–", "–"]),
            ]
        )
    better = ["better : worse"]
    return [
        f"Against the plain mean in the same layer (`{MEAN}`, as many trials), of {len(against)} graphs, the "
        f"family is significantly better on {_named(against, 'win')} and worse on {_named(against, 'loss')}.",
        *by_edges(records, against),
        Table(
            [
                *("graph", "seeds", *(f"`{name}`" for name in (family, *names))),
                *(f"`{family}` − `{MEAN}` [95 %]", *better, "p", f"stock − `{MEAN}` [95 %]", *better),
            ],
            rows,
        ),
        f"{said}. Stock: the layer that validation prefers. Paired and adjusted as above.",
    ]


def _named(judged: Sequence[Verdict], outcome: str) -> str:
    names = [verdict.dataset for verdict in judged if verdict.outcome == outcome]
    return f"{len(names)} ({', '.join(names)})" if names else "0"


def _score(verdict: Verdict | None, name: str) -> Cell:
    summary = verdict.summaries.get(name) if verdict else None
    if verdict is None or summary is None:
        return spread(None, None, "{}")
    return spread(summary.mean, summary.std, verdict.measure.form(), verdict.measure.scale)


def _difference(verdict: Verdict) -> list[Cell | str]:
    contest, measure = verdict.contest, verdict.measure
    better, worse = (contest.ups, contest.downs)[:: measure.sign]
    ends = (contest.difference, contest.ci_low, contest.ci_high)
    return [interval(*ends, measure.form(signed=True), measure.scale), f"{better} : {worse}"]
