r"""On which graphs a family of kernels wins against stock layers: one test per graph, and ranks over all."""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kgat.experiments.pairs import AVERAGED, Pair, differences, latest
from kgat.experiments.statistics import LEVEL, direction, holm, wilcoxon
from kgat.experiments.summary import Summary, summarise
from kgat.experiments.table import Cell, Table, code, interval, number, probability, shown, spread, unit_of
from kgat.measures import Measure, measure_of

__all__ = ["Ranks", "Verdict", "blocks", "difference_cells", "ranks", "score_cell", "verdicts"]

Record = Mapping[str, Any]

STOCK = ("gat", "gatv2")
FAMILY = "kernel"
RANKED = 5  # graphs, below which ranks over them say nothing
OUTCOMES = {1: "win", 0: "tie", -1: "loss", None: "open"}


@dataclass(frozen=True)
class Verdict:
    r"""One graph.

    Args:
        dataset (str): The graph.
        measure (Measure): The metric.
        summaries (dict): What is said of each competitor, differences to :obj:`stock`.
        stock (str): The stock layer with the better mean validation score, whatever its test score.
        chosen (str, optional): The kernel that trials chose, of a family.
        p_value (float, optional): Of the family against :obj:`stock`, adjusted over graphs after Holm.
        unadjusted (float, optional): The same of this graph alone.
        differences (tuple of float): Test scores of the family minus those of :obj:`stock`
            (:func:`~kgat.experiments.pairs.differences`).
        family (str): The family.
        untried (tuple of float): The differences on splits that no trial had; none without trials, or where
            all runs share a split.
        trials (int, optional): Number of settings that trials compared, the same for all competitors.
        at_protocol (tuple of str): Competitors that trials left with the settings of the protocol.
        entropies (dict): Of models whose attention was looked at: the mean over layers and heads of its
            entropy, where 1 is a plain mean over neighbours.
        preferred (bool): Whether the mean validation score of the family is better than that of
            :obj:`stock`.
    """

    dataset: str
    measure: Measure
    summaries: Mapping[str, Summary]
    stock: str
    chosen: str | None
    p_value: float | None
    unadjusted: float | None
    differences: tuple[float, ...]
    family: str
    untried: tuple[float, ...]
    trials: int | None
    at_protocol: tuple[str, ...]
    entropies: Mapping[str, float]
    preferred: bool

    @property
    def contest(self) -> Summary:
        r"""The family against the stock layer."""
        return self.summaries[self.family]

    @property
    def seeds(self) -> int:
        r"""The number of runs of the competitor with the fewest."""
        return min(summary.n for summary in self.summaries.values())

    @property
    def outcome(self) -> str:
        r"""Whether the family wins, ties or loses; :obj:`"open"` with too few pairs for a test."""
        gain = self.contest.difference
        return OUTCOMES[direction(self.p_value, None if gain is None else self.measure.sign * gain)]


@dataclass(frozen=True)
class Ranks:
    r"""Competitors over graphs, after Demšar (JMLR 2006).

    Args:
        means (dict): The mean rank of each, of which 1 is the best.
        graphs (int): Number of graphs.
        p_value (float, optional): Of the Friedman test that all ranks are alike.
        distance (float): What two mean ranks must differ by, of the Nemenyi test at the level of all tests.
    """

    means: Mapping[str, float]
    graphs: int
    p_value: float | None
    distance: float


def verdicts(records: Iterable[Record], family: str = FAMILY, stock: Sequence[str] = STOCK) -> list[Verdict]:
    r"""Compares a family, graph by graph, with the stock layer that validation prefers, paired by seed
    and split.

    Args:
        records (list of dict): Records of comparisons.
        family (str, optional): The family. (default: :obj:`"kernel"`)
        stock (list of str, optional): What it is compared with. (default: :obj:`("gat", "gatv2")`)

    Returns:
        list of Verdict: The graphs that have runs of the family and of a stock layer, as they came.

    Raises:
        ValueError: If what is compared on a graph is not of one kind
            (:func:`~kgat.experiments.tables.expect_one_kind`).

    Example:
        >>> run = {"kind": "run", "dataset": "wine", "metric": "accuracy", "split": "public", "val": 0.5}
        >>> scores = {"gat": 0.5, "kernel": 0.625}.items()
        >>> runs = [{**run, "model": m, "seed": s, "test": t + s / 100} for m, t in scores for s in range(10)]
        >>> [(v.dataset, v.stock, v.outcome, v.p_value) for v in verdicts(runs)]
        [('wine', 'gat', 'win', 0.001953125)]
    """
    # Not at the top: figures are imported with this file and do without torch, which tables need.
    from kgat.experiments.tables import expect_one_kind

    of_graphs: dict[str, dict[str, dict[Pair, Record]]] = {}
    entropies: dict[str, dict[str, float]] = {}
    tried: dict[str, set[str | None]] = {}
    protocol: dict[tuple[str, str], Any] = {}
    for record in latest(records):
        if record.get("kind") == "attention" and (entropy := _entropy(record)) is not None:
            entropies.setdefault(record["dataset"], {})[record["model"]] = entropy
        if record.get("kind") == "tune" and record["model"] in (family, *stock):
            tried.setdefault(record["dataset"], set()).add(record.get("split"))
            if not record["trial"]:  # the first is the protocol
                protocol[record["dataset"], record["model"]] = _settings(record)
        if record.get("kind") == "run" and record["model"] in (family, *stock):
            runs = of_graphs.setdefault(record["dataset"], {}).setdefault(record["model"], {})
            runs[Pair.of(record)] = record  # of repeated ones the last
    judged = {}
    for dataset, runs_of in of_graphs.items():
        stocks = [model for model in stock if model in runs_of]
        if not stocks or family not in runs_of:
            continue
        expect_one_kind([run for model in (*stocks, family) for run in runs_of[model].values()])
        some = next(iter(runs_of[family].values()))
        measure = measure_of(some["metric"])
        valid = {m: measure.sign * _validation(runs_of[m].values(), measure) for m in (*stocks, family)}
        best = max(stocks, key=lambda model: valid[model])
        tests: dict[str, dict[Hashable, float | None]] = {
            model: {pair: run["test"] for pair, run in runs.items()} for model, runs in runs_of.items()
        }
        summaries = summarise({model: tests[model] for model in (*stocks, family)}, best)
        chosen = some["config"]["model"] if "family" in some else None
        paired = tuple(differences(tests[family], tests[best]).tolist())
        splits = {pair.split for pair in runs_of[family]}
        fresh: dict[Hashable, float | None] = {
            pair: run["test"]
            for pair, run in runs_of[family].items()
            if pair.split not in tried.get(dataset, ())
        }
        judged[dataset] = Verdict(
            dataset=dataset,
            measure=measure,
            summaries=summaries,
            stock=best,
            chosen=chosen,
            p_value=None,
            unadjusted=wilcoxon(np.array(paired)),
            differences=paired,
            family=family,
            untried=tuple(differences(fresh, tests[best]).tolist())
            if len(splits) > 1 and dataset in tried
            else (),
            trials=some["tuned"]["settings"] if "tuned" in some else None,
            at_protocol=tuple(
                model
                for model in (*stocks, family)
                if (first := protocol.get((dataset, model))) is not None
                and first == _settings(next(iter(runs_of[model].values())))
            ),
            entropies=entropies.get(dataset, {}),
            preferred=valid[family] > valid[best],
        )
    adjusted = holm({dataset: of.unadjusted for dataset, of in judged.items()})
    return [replace(of, p_value=adjusted[dataset]) for dataset, of in judged.items()]


def _settings(record: Record) -> dict[str, Any]:
    return {name: value for name, value in record["config"].items() if name != "seed"}


def _entropy(attention: Record) -> float | None:
    layers = [
        statistics.fmean(known)
        for layer in attention["layers"]
        if (known := [entropy for entropy in layer["entropy"] if entropy is not None])
    ]
    return statistics.fmean(layers) if layers else None


def _validation(runs: Iterable[Record], measure: Measure) -> float:
    # One that diverged has no score, and is as bad as can be.
    return statistics.fmean(-measure.sign * math.inf if run["val"] is None else run["val"] for run in runs)


def ranks(judged: Sequence[Verdict]) -> Ranks | None:
    r"""Ranks competitors by their mean test scores over the graphs that have all of them.

    Args:
        judged (list of Verdict): What :func:`verdicts` returned.

    Returns:
        Ranks or None: Nothing with fewer than three competitors or :data:`RANKED` graphs.
    """
    names = list(dict.fromkeys(name for verdict in judged for name in verdict.summaries))
    scores = [
        [
            verdict.measure.sign * summary.mean
            for summary in map(verdict.summaries.get, names)
            if summary and summary.mean is not None
        ]
        for verdict in judged
    ]
    scores = [of_graph for of_graph in scores if len(of_graph) == len(names)]
    if len(names) < 3 or len(scores) < RANKED:
        return None
    from scipy import stats  # slow to import

    of_graphs = stats.rankdata(-np.round(np.array(scores), 10), axis=1)
    p_value = float(stats.friedmanchisquare(*of_graphs.T).pvalue)
    k, n = len(names), len(scores)
    distance = float(
        stats.studentized_range.ppf(1 - LEVEL, k, np.inf) / math.sqrt(2) * math.sqrt(k * (k + 1) / (6 * n))
    )
    means = dict(zip(names, of_graphs.mean(axis=0).tolist(), strict=True))
    return Ranks(means, n, None if math.isnan(p_value) else p_value, distance)


def blocks(judged: Sequence[Verdict]) -> list[str | Table]:
    r"""Lays verdicts out: what comes out in a sentence, and a table of graphs.

    Args:
        judged (list of Verdict): What :func:`verdicts` returned.
    """
    family = judged[0].family
    names = [*dict.fromkeys(n for verdict in judged for n in verdict.summaries if n != family), family]
    tuned = any(verdict.chosen for verdict in judged)
    other = f"the {_others(names)} with the better" if len(names) > 2 else f"{_others(names)}, with its"
    return [
        _sentence(judged, names),
        *_rank_sentence(ranks(judged)),
        Table(_head(names, tuned), [_row(v, names, tuned) for v in judged]),
        TRIALS * tuned + NOTE.format(other) + LESS * any(v.measure.sign < 0 for v in judged),
        *_protocol_sentence(judged, names),
        *_power_sentence(judged),
        *_validation_sentence(judged),
    ]


TRIALS = (
    "Trials: how many each family had on validation nodes, to choose its settings and, of `kernel`, the "
    "kernel. "
)
NOTE = (
    "Test metric, mean ± unbiased standard deviation over seeds. Difference: to {} mean *validation* score "
    f"(†), paired by seed ({AVERAGED}), with a 95 % t-interval. p: Wilcoxon "
    f"signed-rank test, adjusted over graphs after Holm; an outcome is a win or a loss at p ≤ {LEVEL}."
)


LESS = " Where less is better, so is a negative difference."


def _others(names: Sequence[str]) -> str:
    if {*names[:-1]} <= {*STOCK}:  # the family stands last
        return "stock layer"
    return " or ".join(f"`{name}`" for name in names[:-1])


def _sentence(judged: Sequence[Verdict], names: Sequence[str]) -> str:
    of = {
        outcome: [v.dataset for v in judged if v.outcome == outcome]
        for outcome in ("win", "tie", "loss", "open")
    }
    if len(judged) == len(of["open"]):
        return f"On none of {len(judged)} graph{'s' * (len(judged) != 1)} are there enough pairs for a test."
    tested = len(judged) - len(of["open"])
    which = {
        outcome: f" ({', '.join(names)})" if names and outcome != "tie" else ""
        for outcome, names in of.items()
    }
    family = "the kernel family" if judged[0].family == FAMILY else f"`{judged[0].family}`"
    chosen = f"the {_others(names)} that validation prefers" if len(names) > 2 else f"`{names[0]}`"
    still = f" {len(of['open'])} more have too few pairs for a test." if of["open"] else ""
    return (
        f"On {tested} graph{'s' * (tested != 1)} {family} is significantly better than {chosen} on "
        f"{len(of['win'])}{which['win']}, worse on {len(of['loss'])}{which['loss']}, and neither on "
        f"{len(of['tie'])}.{still}"
    )


def _rank_sentence(ranked: Ranks | None) -> list[str]:
    if ranked is None or ranked.p_value is None:
        return []
    means = ", ".join(
        f"`{name}` {mean:.2f}" for name, mean in sorted(ranked.means.items(), key=lambda item: item[1])
    )
    return [
        f"Mean ranks over {ranked.graphs} graphs: {means}. Friedman test: p = {ranked.p_value:.2g}; by the "
        f"Nemenyi test, mean ranks differ at p ≤ {LEVEL} if they are {ranked.distance:.2f} apart."
    ]


def _protocol_sentence(judged: Sequence[Verdict], names: Sequence[str]) -> list[str]:
    counts = {name: sum(name in verdict.at_protocol for verdict in judged) for name in names}
    if not any(counts.values()):
        return []
    each = ", ".join(f"`{name}` on {count}" for name, count in counts.items())
    return [
        "The first trial has the settings of the protocol; where no other was better, so do the runs: "
        f"{each} of {len(judged)} graphs."
    ]


def _validation_sentence(judged: Sequence[Verdict]) -> list[str]:
    r"""Whether who lets validation choose between the family and the stock layer chooses well."""
    sides = [[v for v in judged if v.preferred is side] for side in (True, False)]
    gains = [
        [100 * v.contest.difference for v in of if v.measure.percent and v.contest.difference is not None]
        for of in sides
    ]
    if len(judged) <= RANKED or not all(gains):
        return []
    better, worse = (shown(statistics.fmean(of), "{:+.1f}") for of in gains)
    (wins, of_wins), (losses, of_losses) = (
        (sum(v.outcome == outcome for v in side), sum(v.outcome == outcome for v in judged))
        for side, outcome in zip(sides, ("win", "loss"), strict=True)
    )
    among = "is among" if wins == 1 else "are among"
    return [
        f"Mean validation scores prefer the family on {len(sides[0])} of {len(judged)} graphs: there its "
        f"gain is {better} points on average, where they do not {worse}. Of its {of_wins} wins {wins} "
        f"{among} the former, of its {of_losses} losses {losses} among the latter."
    ]


def _power_sentence(judged: Sequence[Verdict]) -> list[str]:
    r"""Where no outcome but a tie was possible, and which intervals leave out zero all the same."""
    tested = [verdict for verdict in judged if verdict.p_value is not None]
    left = len(tested) - sum(verdict.outcome in ("win", "loss") for verdict in tested)
    # Holm's factor of the next graph to be significant, times the p-value of pairs that all agree.
    hopeless = [
        verdict.dataset
        for verdict in tested
        if verdict.outcome == "tie"
        and left * 2.0 ** (1 - np.count_nonzero(np.round(verdict.differences, 10))) > LEVEL
    ]
    apart: dict[int, list[str]] = {1: [], -1: []}
    for verdict in tested:
        low, high = verdict.contest.ci_low, verdict.contest.ci_high
        if verdict.outcome == "tie" and low is not None and high is not None and low * high > 0:
            apart[verdict.measure.sign * (1 if low > 0 else -1)].append(verdict.dataset)
    said = []
    if hopeless:
        said.append(
            f"A tie is not equality: on {len(hopeless)} of {len(tested)} graphs ({', '.join(hopeless)}) "
            "fewer pairs differ than a significant outcome takes after Holm's adjustment."
        )
    if any(apart.values()):
        sides = (("in favour of the family", apart[1]), ("against it", apart[-1]))
        who = [f"{side} on {', '.join(names)}" for side, names in sides if names]
        said.append(f"Among the ties, unadjusted intervals exclude zero {' and '.join(who)}.")
    return [" ".join(said)] if said else []


def _head(names: Sequence[str], tuned: bool) -> list[str]:
    return [
        "graph",
        *["trials"] * tuned,
        "seeds",
        *(f"`{name}`" for name in names),
        *["chosen kernel"] * tuned,
        "difference [95 %]",
        "better : worse",
        "p, unadjusted",
        "p",
        "outcome",
    ]


def score_cell(summary: Summary | None, measure: Measure) -> Cell:
    r"""Returns the mean test score and its deviation, if there is one."""
    if summary is None:
        return spread(None, None, measure.form())
    return spread(summary.mean, summary.std, measure.form(), measure.scale)


def difference_cells(verdict: Verdict) -> list[Cell | str]:
    r"""Returns the mean difference with its interval, and in how many pairs the family is better : worse."""
    contest, measure = verdict.contest, verdict.measure
    better, worse = (contest.ups, contest.downs)[:: measure.sign]
    ends = (contest.difference, contest.ci_low, contest.ci_high)
    return [interval(*ends, measure.form(signed=True), measure.scale), f"{better} : {worse}"]


def _row(verdict: Verdict, names: Sequence[str], tuned: bool) -> list[Cell | str]:
    measure = verdict.measure
    scores: list[Cell | str] = []
    for name in names:
        summary = verdict.summaries.get(name)
        cell = score_cell(summary, measure)
        scores.append(Cell(f"{cell.text} †", cell.values) if name == verdict.stock else cell)
    return [
        verdict.dataset + unit_of(measure),
        *[number(verdict.trials, "{}")] * tuned,
        number(verdict.seeds, "{}"),
        *scores,
        *[code(verdict.chosen) if verdict.chosen else "–"] * tuned,
        *difference_cells(verdict),
        probability(verdict.unadjusted),
        probability(verdict.p_value),
        verdict.outcome,
    ]
