r"""Whether a setting helps a model: each change of one setting against the default, on several graphs."""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kgat.experiments.config import Config
from kgat.experiments.pairs import Pair, latest
from kgat.experiments.statistics import LEVEL, direction, holm
from kgat.experiments.summary import TESTED, Summary, summarise
from kgat.experiments.table import Cell, Table, code, interval, number, probability, spread, unit_of
from kgat.experiments.tables import expect_one_kind
from kgat.measures import Measure, measure_of
from kgat.names import shown
from kgat.nn import KernelGATConv

__all__ = ["QUESTIONS", "Answer", "answers", "blocks"]

Record = Mapping[str, Any]

QUESTIONS = {
    "start": "Does it help to set the scale of scores from the data: the lengthscale to the median distance "
    "(`start=median`), or the deviation of scores to 1 (`start=unit`)?",
    "decay_kernels": "Does it help not to decay the parameters of kernels?",
    "kernel_lr": "Does it help to give the parameters of kernels a learning rate of their own, in multiples "
    "of that of the others?",
    "projections": "Does it help to project what is scored and what is averaged apart (`shared_qk`)?",
}
PARTS = ("val", "test")
OUTCOMES = {1: "helped", 0: "neither", -1: "hurt", None: "open"}


@dataclass(frozen=True)
class Answer:
    r"""One change of one model on one graph.

    Args:
        dataset (str): The graph.
        measure (Measure): The metric.
        setting (str): What is changed.
        model (str): The model with the change, as in :obj:`"rbf@start=median"`.
        default (str): The model without, as in :obj:`"rbf"`.
        summaries (dict): On validation nodes (:obj:`"val"`) and on test nodes (:obj:`"test"`) what is said of
            both, differences to the default.
        p_values (dict): Of both differences, adjusted after Holm over what answers the same question.
    """

    dataset: str
    measure: Measure
    setting: str
    model: str
    default: str
    summaries: Mapping[str, Mapping[str, Summary]]
    p_values: Mapping[str, float | None]

    def outcome(self, part: str) -> str:
        r"""Returns :obj:`"helped"`, :obj:`"hurt"` or :obj:`"neither"`; :obj:`"open"` with too few seeds for a
        test."""
        p_value, difference = self.p_values[part], self.summaries[part][self.model].difference
        return OUTCOMES[direction(p_value, None if difference is None else self.measure.sign * difference)]


def answers(records: Iterable[Record]) -> list[Answer]:
    r"""Compares models whose names say one setting more than that of another model, paired by seed and split.

    Args:
        records (list of dict): Records of comparisons, as of ``--models rbf,rbf@start=median,rbf@shared_qk``.

    Returns:
        list of Answer: Question by question, in the order of :data:`QUESTIONS`.

    Raises:
        ValueError: If runs of the two models on a graph are not of one kind
            (:func:`~kgat.experiments.tables.expect_one_kind`).

    Example:
        >>> run = {"kind": "run", "dataset": "wine", "metric": "accuracy", "split": "0"}
        >>> models = {"rbf": 0.5, "rbf@shared_qk": 0.625}.items()
        >>> runs = [{**run, "model": m, "seed": s, "val": t, "test": t} for m, t in models for s in range(6)]
        >>> [(a.dataset, a.setting, a.outcome("val"), a.p_values["val"]) for a in answers(runs)]
        [('wine', 'projections', 'helped', 0.03125)]
    """
    scores: dict[str, dict[str, dict[str, dict[Hashable, float | None]]]] = {}
    measures: dict[str, Measure] = {}
    of_graphs: dict[str, list[Record]] = {}
    for run in (record for record in latest(records) if record.get("kind") == "run"):
        of_graphs.setdefault(run["dataset"], []).append(run)
        measures[run["dataset"]] = measure_of(run["metric"])
        for part in PARTS:
            of_part = scores.setdefault(run["dataset"], {}).setdefault(part, {})
            of_part.setdefault(run["model"], {})[Pair.of(run)] = run[part]
    changes: dict[str, list[tuple[str, str, str]]] = {setting: [] for setting in QUESTIONS}
    for dataset, of_parts in scores.items():
        for model in of_parts["test"]:
            name, *said = model.split("@")  # in the order of all settings, whichever of them is the change
            for change in said:
                default = "@".join([name, *(other for other in said if other != change)])
                if default in of_parts["test"]:
                    expect_one_kind([run for run in of_graphs[dataset] if run["model"] in (default, model)])
                    setting, is_said, _ = change.partition("=")
                    of_setting = changes.setdefault(setting if is_said else "projections", [])
                    of_setting.append((dataset, model, default))
    answered = []
    for setting, of_setting in changes.items():
        summaries = {
            (dataset, model): {
                part: summarise({name: scores[dataset][part][name] for name in (default, model)}, default)
                for part in PARTS
            }
            for dataset, model, default in of_setting
        }
        adjusted = {
            part: holm({which: of_parts[part][which[1]].p_value for which, of_parts in summaries.items()})
            for part in PARTS
        }
        for dataset, model, default in of_setting:
            which = dataset, model
            answered.append(
                Answer(
                    dataset=dataset,
                    measure=measures[dataset],
                    setting=setting,
                    model=model,
                    default=default,
                    summaries=summaries[which],
                    p_values={part: adjusted[part][which] for part in PARTS},
                )
            )
    return answered


def blocks(answered: Sequence[Answer]) -> list[str | Table]:
    r"""Lays answers out: for each question what comes out, in sentences, and a table.

    Args:
        answered (list of Answer): What :func:`answers` returned.
    """
    laid_out: list[str | Table] = []
    for setting in dict.fromkeys(answer.setting for answer in answered):
        of_setting = [answer for answer in answered if answer.setting == setting]
        question = QUESTIONS.get(setting, f"Does another `{setting}` help?")
        models = dict.fromkeys(answer.model for answer in of_setting)
        said = [_sentence([a for a in of_setting if a.model == model]) for model in models]
        rows = [_row(answer) for answer in of_setting]
        laid_out += [f"**{question}** {' '.join(said)} {_decision(of_setting)}", Table(HEAD, rows, names=2)]
    return [*laid_out, NOTE]


HEAD = ["graph", "model", "seeds", "default, test", "test", "difference on validation [95 %]", "p"]
HEAD += ["difference on test [95 %]", "p"]
NOTE = (
    "Metric in % where it is one, mean ± unbiased standard deviation over seeds; difference to the default, "
    f"{TESTED} over the rows of a question, of validation and test nodes apart. "
    f"A change helped or hurt at p ≤ {LEVEL}. A default changes where validation nodes say so on every graph."
)


def _sentence(of_model: Sequence[Answer]) -> str:
    told = []
    for part, nodes in (("val", "validation"), ("test", "test")):
        of = {
            outcome: [a.dataset for a in of_model if a.outcome(part) == outcome]
            for outcome in ("helped", "hurt", "neither", "open")
        }
        which = {outcome: f" ({', '.join(names)})" if names else "" for outcome, names in of.items()}
        still = f", untested {len(of['open'])}" if of["open"] else ""
        told.append(
            f"on {nodes} nodes helped {len(of['helped'])}{which['helped']}, hurt {len(of['hurt'])}"
            f"{which['hurt']}, neither {len(of['neither'])}{still}"
        )
    graphs = f"{len(of_model)} graph{'s' * (len(of_model) != 1)}"
    return f"`{of_model[0].model}`, of {graphs}: {'; '.join(told)}."


def _decision(of_setting: Sequence[Answer]) -> str:
    graphs = {answer.dataset for answer in of_setting}
    by_model: dict[str, set[str]] = {}
    for answer in of_setting:
        helped = {answer.dataset} if answer.outcome("val") == "helped" else set()
        by_model.setdefault(answer.model, set()).update(helped)
    better = [f"`{model}`" for model, helped in by_model.items() if helped == graphs]
    setting = of_setting[0].setting
    usual = getattr(Config, setting, None)
    if usual is None and setting in (of_layer := inspect.signature(KernelGATConv).parameters):
        usual = of_layer[setting].default
    said = f"The default is `{setting}={shown(usual)}`"
    if better:
        return f"{said}; validation says on every graph that {', '.join(better)} is better."
    return f"{said}, and stays: no change helped on every graph."


def _row(answer: Answer) -> list[Cell | str]:
    measure = answer.measure
    form, signed, scale = measure.form(), measure.form(signed=True), measure.scale
    tests = answer.summaries["test"]
    row: list[Cell | str] = [
        answer.dataset + unit_of(measure),
        code(answer.model),
        number(tests[answer.model].n, "{}"),
    ]
    row += [spread(tests[name].mean, tests[name].std, form, scale) for name in (answer.default, answer.model)]
    for part in PARTS:
        summary = answer.summaries[part][answer.model]
        row.append(interval(summary.difference, summary.ci_low, summary.ci_high, signed, scale))
        row.append(probability(answer.p_values[part]))
    return row
