r"""How a model's gain over the baseline goes with labels, edges at random or noise in features."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from kgat.experiments.pairs import Pair, latest
from kgat.experiments.records import BASELINE
from kgat.experiments.summary import TESTED, Summary, summarise
from kgat.experiments.table import Cell, Table, code, interval, number, probability, spread
from kgat.measures import Measure, measure_of
from kgat.names import change_of

__all__ = ["AXES", "blocks", "sweeps"]

Record = Mapping[str, Any]

AXES = {
    "labels": "training nodes of each class",
    "edges": "edges added at random, %",
    "noise": "noise, % of features' deviation",
}
# By graph and change: the metric, and by amount what is said of each model.
Sweeps = dict[tuple[str, str], tuple[Measure, dict[int, dict[str, Summary]]]]


def sweeps(records: Iterable[Record], baseline: str = BASELINE) -> Sweeps:
    r"""Compares models with the baseline at each amount of a change, paired by seed.

    The graph without a change is the amount 0 of edges and noise. p-values are adjusted over models after
    Holm, amount by amount.

    Args:
        records (list of dict): Records of comparisons on data sets such as :obj:`"Cora-5-labels"`.
        baseline (str, optional): The baseline. (default: :obj:`"gat"`)

    Returns:
        dict: By graph and change.

    Raises:
        ValueError: If what is compared is not of one kind (:func:`~kgat.experiments.tables.expect_one_kind`).
    """
    # Not at the top: figures are imported with this file and do without torch, which tables need.
    from kgat.experiments.tables import expect_one_kind

    of_graphs: dict[tuple[str, str], dict[int, list[Record]]] = {}
    for run in (record for record in latest(records) if record.get("kind") == "run"):
        name, amount, change = change_of(run["dataset"]) or (run["dataset"], 0, "")
        of_graphs.setdefault((name, change), {}).setdefault(amount, []).append(run)
    found: Sweeps = {}
    for (name, change), of_amounts in of_graphs.items():
        if not change:
            continue
        if change != "labels":
            of_amounts = of_amounts | of_graphs.get((name, ""), {})
        of_amounts = {
            amount: runs
            for amount, runs in sorted(of_amounts.items())
            if any(run["model"] == baseline for run in runs)
        }
        if of_amounts:
            compared = [run for runs in of_amounts.values() for run in runs]
            expect_one_kind(compared)
            said = {amount: summarise(_tests(runs), baseline) for amount, runs in of_amounts.items()}
            found[name, change] = measure_of(compared[0]["metric"]), said
    return found


def _tests(runs: Iterable[Record]) -> dict[str, dict[Hashable, float | None]]:
    of_models: dict[str, dict[Hashable, float | None]] = {}
    for run in runs:
        of_models.setdefault(run["model"], {})[Pair.of(run)] = run["test"]
    return of_models


def blocks(found: Sweeps, baseline: str = BASELINE) -> list[str | Table]:
    r"""Lays sweeps out.

    Args:
        found (dict): What :func:`sweeps` returned.
        baseline (str, optional): The baseline. (default: :obj:`"gat"`)
    """
    rows: list[list[Cell | str]] = []
    for (name, change), (measure, of_amounts) in found.items():
        for amount, summaries in of_amounts.items():
            for model, summary in summaries.items():
                if model == baseline:
                    continue
                base, form, scale = summaries[baseline], measure.form(), measure.scale
                rows.append(
                    [
                        name,
                        f"{amount} {change}" if change == "labels" else f"{amount} % {change}",
                        code(model),
                        number(summary.n, "{}"),
                        spread(base.mean, base.std, form, scale),
                        spread(summary.mean, summary.std, form, scale),
                        interval(
                            summary.difference,
                            summary.ci_low,
                            summary.ci_high,
                            measure.form(signed=True),
                            scale,
                        ),
                        probability(summary.p_value),
                    ]
                )
    head = ["graph", "change", "model", "seeds", f"`{baseline}`", "test", "difference [95 %]", "p"]
    return [Table(head, rows, names=3), NOTE]


NOTE = (
    "Test metric, in % where it is one, mean ± unbiased standard deviation over seeds; difference "
    f"{TESTED} where an amount has several models. Settings are those of the "
    "protocol, the same for all amounts. Rows of 0 % are the same runs. Labels are drawn from splits of "
    "their own, which test the same nodes for all amounts."
)
