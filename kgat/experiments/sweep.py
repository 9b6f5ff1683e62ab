r"""How a model's gain over the baseline goes with labels, edges at random or noise in features."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from kgat.experiments.pairs import AVERAGED, Pair, latest
from kgat.experiments.records import BASELINE
from kgat.experiments.summary import Summary, summarise
from kgat.experiments.table import Cell, Table, code, interval, number, spread
from kgat.measures import Measure, measure_of
from kgat.names import change_of

__all__ = ["AXES", "blocks", "sweeps"]

Record = Mapping[str, Any]

AXES = {
    "labels": "training nodes of each class",
    "edges": "edges added at random, %",
    "noise": "noise of features, % of their deviation",
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
    """
    runs: dict[tuple[str, str], dict[int, dict[str, dict[Hashable, float | None]]]] = {}
    measures: dict[str, Measure] = {}
    plain: dict[str, dict[str, dict[Hashable, float | None]]] = {}
    for record in latest(records):
        if record.get("kind") != "run":
            continue
        name, amount, change = change_of(record["dataset"]) or (record["dataset"], 0, "")
        measures[name] = measure_of(record["metric"])
        of_models = (
            runs.setdefault((name, change), {}).setdefault(amount, {})
            if change
            else plain.setdefault(name, {})
        )
        of_models.setdefault(record["model"], {})[Pair.of(record)] = record["test"]
    found: Sweeps = {}
    for (name, change), of_amounts in runs.items():
        if change != "labels" and name in plain:
            of_amounts[0] = plain[name]
        of_amounts = {
            amount: of_models for amount, of_models in sorted(of_amounts.items()) if baseline in of_models
        }
        if of_amounts:
            said = {amount: summarise(of_models, baseline) for amount, of_models in of_amounts.items()}
            found[name, change] = measures[name], said
    return found


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
                        number(summary.p_value, "{:.3f}"),
                    ]
                )
    head = ["graph", "change", "model", "seeds", f"`{baseline}`", "test", "difference [95 %]", "p"]
    return [Table(head, rows, names=3), NOTE]


NOTE = (
    "Test metric, in % where it is one, mean ± unbiased standard deviation over seeds; difference paired by "
    f"seed ({AVERAGED}), with a 95 % t-interval; p: Wilcoxon "
    "signed-rank test, adjusted after Holm where an amount has several models. Settings are those of the "
    "protocol, the same for all amounts. Rows of 0 % are the same runs. Labels are drawn from splits of "
    "their own, which test the same nodes for all amounts."
)
