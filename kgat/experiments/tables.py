r"""Tables of runs: means, paired differences to stock GAT, costs."""

import math
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kgat.experiments import tuning
from kgat.experiments.config import differing, protocol, stored
from kgat.experiments.ledger import read_results
from kgat.experiments.pairs import AVERAGED, Pair, latest
from kgat.experiments.records import BASELINE, CONTENDED, RESULTS
from kgat.experiments.summary import Summary, summarise
from kgat.experiments.table import Table, code, interval, number, pivot, probability, render, spread, unit_of
from kgat.measures import measure_of
from kgat.names import shown

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Row(Summary):
    r"""One model in the table of a data set. Scores are shares, not per cent; the baseline is a model.

    Args:
        *args: As :class:`~kgat.experiments.summary.Summary`, of test metrics paired by seed and split.
        model (str): The model.
        val_mean (float): Mean validation metric of the same runs.
        epoch_ratio (float, optional): Time of a training epoch over that of the baseline.
        memory_ratio (float, optional): Peak memory over that of the baseline.
        parameters (int): Number of parameters.
        chosen (str, optional): Of a family, the model that its trials chose. (default: :obj:`None`)
    """

    model: str
    val_mean: float
    epoch_ratio: float | None
    memory_ratio: float | None
    parameters: int
    chosen: str | None = None

    @property
    def label(self) -> str:
        r"""What stands in a table, as in :obj:`"kernel: rbf"`."""
        return self.model if self.chosen is None else f"{self.model}: {self.chosen}"


def table(records: Sequence[Record], baseline: str = BASELINE) -> list[Row]:
    r"""Summarises the runs of one data set: the baseline first, then models as they came.

    Args:
        records (list of dict): Records of one data set.
        baseline (str, optional): What the others are compared with. (default: :obj:`"gat"`)

    Raises:
        ValueError: If the records are of several data sets, or not of one kind (:func:`expect_one_kind`).
    """
    runs = runs_in(records)
    datasets = _distinct(runs, "dataset")
    if len(datasets) > 1:
        raise ValueError(f"Expected records of one data set (got {', '.join(datasets)}); pass those of one")
    expect_one_kind(runs)
    by_model: dict[str, dict[Hashable, Record]] = {}
    for run in runs:  # a later run of the same seed replaces an earlier one
        by_model.setdefault(run["model"], {})[Pair.of(run)] = run
    order = sorted(by_model, key=lambda model: model != baseline)
    tests = {model: {pair: run["test"] for pair, run in by_model[model].items()} for model in order}
    costs: dict[str, Record] = {}
    for record in records:
        if record.get("kind") == "cost" and record["dataset"] in datasets and record["baseline"] == baseline:
            costs.update(record["models"])
    rows = []
    for model, summary in summarise(tests, baseline).items():
        of_model = list(by_model[model].values())
        cost = costs.get(model, {})
        rows.append(
            Row(
                **vars(summary),
                model=model,
                val_mean=float(np.mean([run["val"] for run in of_model])),
                epoch_ratio=cost.get("seconds_ratio", [None])[0],
                memory_ratio=cost.get("memory_ratio"),
                parameters=of_model[-1]["parameters"],
                chosen=_chosen_model(of_model[-1]),
            )
        )
    return rows


def _chosen_model(run: Record) -> str | None:
    r"""What trials chose instead of the name that stands in the table."""
    model = (run.get("config") or {}).get("model", run["model"])
    return None if model == run["model"] else str(model)


def expect_one_kind(runs: Sequence[Record]) -> None:
    r"""Checks that runs on a data set, or on several that are set side by side, may stand in one table.

    Args:
        runs (list of dict): The runs.

    Raises:
        ValueError: If they are scored by several metrics, if some were tuned and others not, or with another
            budget, if they kept weights by several rules, or if a model has runs of several settings on a
            data set.
    """
    first: dict[tuple[str, str], Record] = {}
    for run in runs:
        if run["metric"] != runs[0]["metric"]:
            raise ValueError(
                f"Expected runs on {_places(runs[0], run)} with one metric (got '{runs[0]['model']}' with "
                f"{runs[0]['metric']} and '{run['model']}' with {run['metric']}); show them in tables apart"
            )
        kept, other_kept = (stored(record.get("config") or {}, "keep") for record in (runs[0], run))
        if kept != other_kept:
            raise ValueError(
                f"Expected runs on {_places(runs[0], run)} that keep weights by one rule (got "
                f"'{runs[0]['model']}' with keep={kept} and '{run['model']}' with keep={other_kept}); show "
                "them in tables apart"
            )
        if run.get("tuned") != runs[0].get("tuned"):
            one, two = (f"'{r['model']}' {tuning.said(r.get('tuned'))}" for r in (runs[0], run))
            raise ValueError(
                f"Expected runs on {_places(runs[0], run)} that are equally tuned (got {one} and "
                f"{two}); show them in tables apart"
            )
        other = first.setdefault((run["dataset"], run["model"]), run)
        for name, one, two in differing(other.get("config") or {}, run.get("config") or {}):
            raise ValueError(
                f"Expected runs of '{run['model']}' on '{run['dataset']}' with equal settings (got "
                f"{name}={one} and {name}={two}); show them in tables apart"
            )


def _places(*runs: Record) -> str:
    return " and ".join(dict.fromkeys(f"'{run['dataset']}'" for run in runs))


def tables(records: Sequence[Record]) -> dict[str, list[Record]]:
    r"""Sorts runs, and what they cost, by the table that they belong to: one per data set, and one more per
    budget of tuning.

    Args:
        records (list of dict): Any records.

    Returns:
        dict: Titles, each with the records that :func:`table` takes; only those with runs.
    """
    by_title: dict[str, list[Record]] = {}
    for record in records:
        if record.get("kind") in ("run", "cost"):
            tuned = record.get("tuned")
            budget = ""
            if tuned:
                count = f"{tuned['settings']} trials" if "sampler" in tuned else f"tuned {tuned['settings']}"
                budget = f", {count} × {tuned['seeds']}"
            by_title.setdefault(record["dataset"] + budget, []).append(record)
    return {title: of_table for title, of_table in by_title.items() if runs_in(of_table)}


def laid_out(
    rows: Sequence[Row],
    metric: str = "accuracy",
    title: str = "",
    baseline: str = BASELINE,
    colors: Mapping[str, str] | None = None,
) -> Table:
    r"""Lays the table of a data set out, for any renderer.

    Args:
        rows (list of Row): What :func:`table` returned.
        metric (str, optional): The metric. (default: :obj:`"accuracy"`)
        title (str, optional): The title. (default: :obj:`""`)
        baseline (str, optional): The baseline. (default: :obj:`"gat"`)
        colors (dict, optional): The colours of models in figures. (default: :obj:`None`)
    """
    measure = measure_of(metric)
    form, signed, scale = measure.form(), measure.form(signed=True), measure.scale
    better = f" ({measure.direction})" if measure.direction else ""
    head = ["model", "seeds", f"test {measure.label}{measure.unit}{better}"]
    head += [f"difference to {baseline} [95 %]", "p", f"val{measure.unit}"]
    head += ["epoch time", "memory", "parameters"]
    lines = [
        [
            code(row.label, (colors or {}).get(row.model)),
            number(row.n, "{}"),
            spread(row.mean, row.std, form, scale),
            interval(row.difference, row.ci_low, row.ci_high, signed, scale),
            probability(row.p_value),
            number(row.val_mean, form, scale),
            number(row.epoch_ratio, "{:.2f}×"),
            number(row.memory_ratio, "{:.2f}×"),
            number(row.parameters, "{:,}"),
        ]
        for row in rows
    ]
    return Table(head, lines, title=title)


# Below tables and on the page of a comparison alike.
MODELS_TESTED = (
    "p: Wilcoxon signed-rank test of the paired differences, "
    "adjusted over the models of a data set after Holm"
)


def readme_tables(
    *sources: str | os.PathLike[str], baseline: str = BASELINE, form: str = "markdown", overview: bool = False
) -> str:
    r"""Returns all results as text: models by data sets, then one full table per data set.

    Args:
        *sources (str or Path): Files of records, or folders below which every ``results.jsonl``
            is read.
        baseline (str, optional): The baseline. (default: :obj:`"gat"`)
        form (str, optional): One of :data:`kgat.experiments.table.FORMATS`; CSV has the full tables alone, as
            one. (default: :obj:`"markdown"`)
        overview (bool, optional): Whether models by data sets are all. (default: :obj:`False`)

    Raises:
        FileNotFoundError: If a source holds no results.
        ValueError: If there is no such format.
    """
    records = [record for path in result_files(sources) for record in read_results(path)]
    by_title = tables(records)
    expect_runs(records, sources)
    summaries = {title: table(of_table, baseline) for title, of_table in by_title.items()}
    runs_of = {title: runs_in(of_table) for title, of_table in by_title.items()}
    marks = {title: outdated_line(runs) for title, runs in runs_of.items()}
    measures = {title: measure_of(runs[0]["metric"]) for title, runs in runs_of.items()}
    columns = {
        title + unit_of(measures[title]) + " \\*" * bool(marks[title]): {
            row.model: spread(row.mean, row.std, measures[title].form(), measures[title].scale)
            for row in rows
        }
        for title, rows in summaries.items()
    }
    unit = "in %" if all(measure.percent for measure in measures.values()) else "in % where none is named"
    parts = level_of([run for runs in runs_of.values() for run in runs])
    blocks: list[str | Table] = [
        f"Test metric {unit}, mean ± unbiased standard deviation over seeds. A seed picks split and "
        f"initial weights, for all models alike. The epoch is chosen on validation {parts}s and test "
        f"{parts}s are scored once, at that epoch.",
        pivot("model", columns, is_code=True, first=baseline),
        OUTDATED if any(marks.values()) else "",
    ]
    if overview:
        return render(filter(None, blocks), form)
    for title, rows in summaries.items():
        runs = runs_of[title]
        blocks += [
            f"**{title}.** {_protocol_line(runs)}",
            marks[title].replace(ANEW, f"**{ANEW}**"),
            laid_out(rows, runs[0]["metric"], title, baseline),
            tuning_line(runs),
            allocator_line(by_title[title]),
            contended_line(by_title[title]),
        ]
    points = ", in percentage points" if unit == "in %" else ", in the unit of the metric"
    blocks.append(
        f"Difference: paired by seed ({AVERAGED}){points}, with a 95 % t-interval. {MODELS_TESTED}; with "
        "n pairs it cannot fall below 2^(1 − n). Epoch time and peak memory: one training epoch, "
        f"measured in turns with `{baseline}`, as ratios to it."
    )
    return render(filter(None, blocks), form)


def level_of(runs: Sequence[Record]) -> str:
    r"""Returns what runs have predicted: of a node, a graph or a link; of several kinds, an example.

    Example:
        >>> level_of([{"test": 0.5}]), level_of([{"level": "graph"}])
        ('node', 'graph')
    """
    levels = {run.get("level", "node") for run in runs}
    return str(levels.pop()) if len(levels) == 1 else "example"


def result_files(sources: Sequence[str | os.PathLike[str]]) -> list[Path]:
    r"""Returns the files of records that sources name.

    Args:
        sources (list of str or Path): Files, or folders below which every ``results.jsonl`` counts.

    Raises:
        FileNotFoundError: If a source holds none.
    """
    files: dict[Path, Path] = {}
    for source in map(Path, sources):
        paths = [source] if source.is_file() else sorted(source.rglob(RESULTS))
        if not paths:
            raise FileNotFoundError(
                f"Expected results in '{source}' (got no {RESULTS} there); run: kgat compare --out {source}"
            )
        files |= {path.resolve(): path for path in paths}
    return list(files.values())


def expect_runs(records: Sequence[Record], sources: Sequence[str | os.PathLike[str]]) -> None:
    r"""Checks that there is a run among records.

    Args:
        records (list of dict): The records.
        sources (list of str or Path): Where they come from.

    Raises:
        FileNotFoundError: If there is none.
    """
    if not tables(records):
        raise FileNotFoundError(
            f"Expected runs in {', '.join(map(str, sources))} (got none); run: kgat compare --out FOLDER"
        )


def contended_line(records: Sequence[Record]) -> str:
    r"""Returns which costs of a table are unreliable; empty if none is."""
    costs = [record for record in records if record.get("kind") == "cost"]
    models = costs[-1]["models"] if costs else {}
    unreliable = [model for model, entry in models.items() if entry["contended"]]
    if not unreliable:
        return ""
    return (
        f"Unreliable, varied by more than {CONTENDED}× between rounds: epoch time of {', '.join(unreliable)}."
    )


def allocator_line(records: Sequence[Record]) -> str:
    r"""Says how the costs of a table were measured, where freed memory stayed with the process; else nothing.

    Args:
        records (list of dict): The records of one table.
    """
    costs = [record for record in records if record.get("kind") == "cost"]
    if not costs or costs[-1].get("allocator") != "recycling":
        return ""
    return (
        "Epoch times were taken after all runs, in a process whose freed memory stayed with it (mallopt), "
        "for all models alike: stock layers are faster that way."
    )


def runs_in(records: Iterable[Record]) -> list[Record]:
    r"""Returns the records of runs (:func:`~kgat.experiments.pairs.latest`)."""
    return [record for record in latest(records) if record.get("kind") == "run"]


OUTDATED = "\\* To be made anew, for the reason that stands above the table of each."
ANEW = "To be made anew."  # bold where a page has bold
EARLY = 10  # epochs, after which a model is hardly trained


def outdated_line(runs: Sequence[Record]) -> str:
    r"""Says that runs were made under a rule for the weights to keep that froze some of them early, where the
    protocol of their data set has given it up; nothing of other runs.

    Args:
        runs (list of dict): The runs of one table.
    """
    if not any(stored(run["config"], "keep") == "both" != protocol(run["dataset"])["keep"] for run in runs):
        return ""
    metric = measure_of(runs[0]["metric"]).label
    early = sum(run.get("best_epoch", math.inf) <= EARLY for run in runs)
    frozen = f": {early} of {len(runs)} runs kept one of their first {EARLY}" if early else ""
    return (
        f"{ANEW} These runs kept the last epoch that had the lowest loss and the best {metric} "
        f"so far at once on validation nodes, so that an early epoch with a lucky {metric} could end up as "
        f"the result{frozen}. The protocol now keeps the epoch of the best {metric}."
    )


def tuning_line(runs: Sequence[Record]) -> str:
    r"""Says how the runs of a table were tuned and what was chosen for each model; nothing if they were not.

    Args:
        runs (list of dict): The runs of one table.
    """
    tuned = runs[0].get("tuned")
    if tuned is None:
        return ""
    space = "; ".join(
        f"{name} {values if isinstance(values, str) else _choices(map(shown, values))}"
        for name, values in tuned["space"].items()
    )
    seeds = f"{tuned['seeds']} seed{'s' * (tuned['seeds'] != 1)}"
    if "sampler" in tuned:
        ended = " One that fell below the median of the earlier ones was ended." if tuned.get("prune") else ""
        of_models = {run["model"]: run for run in runs}
        return (
            f"Tuned on validation nodes alone: every model had {tuned['settings']} trials, the protocol "
            f"first, then what Optuna's {tuned['sampler']} sampler suggested of {space}; each trial had "
            f"{seeds} that no run has.{ended} The best mean validation score chose: "
            f"{'; '.join(map(_chosen, of_models.values()))}."
        )
    configs = {run["model"]: run["config"] for run in runs}
    chosen = (
        f"`{model}` " + ", ".join(f"{name} {shown(config[name])}" for name in tuned["space"])
        for model, config in configs.items()
    )
    return (
        f"Tuned on validation nodes alone: every model had the same {tuned['settings']} settings, the "
        f"protocol and random points of the grid {space}, each trained with {seeds} that no run has. The "
        f"best mean validation score chose: {'; '.join(chosen)}."
    )


def _chosen(run: Record) -> str:
    r"""What trials chose for a model, as it differs from the protocol."""
    config, usual = run["config"], protocol(run["dataset"])
    values = {name: shown(stored(config, name)) for name in run["tuned"]["space"] if name in usual}
    changes = [f"{name} {value}" for name, value in values.items() if value != shown(usual[name])]
    if (model := _chosen_model(run)) is not None:
        among = f" (of {', '.join(run['family'])})" if "family" in run else ""
        changes.insert(0, f"`{model}`{among}")
    return f"`{run['model']}` {', '.join(changes) or 'the protocol'}"


def _choices(values: Iterable[str]) -> str:
    *others, last = values
    return f"{', '.join(others)} or {last}" if others else last


def _protocol_line(runs: Sequence[Record]) -> str:
    def of(name: str) -> str:
        return _joined(shown(run["config"][name]) for run in runs)

    spared = _distinct([run for run in runs if not stored(run["config"], "decay_kernels")], "model")
    undecayed = f" (not on frequencies, lengthscales and exponents in {', '.join(spared)})" if spared else ""

    splits = _distinct(runs, "split")
    split = f"Split {splits[0]}" if len(splits) == 1 else f"{len(splits)} splits ({splits[0]}, ...)"
    models = _distinct(runs, "model")
    seeds = _joined(str(len({run["seed"] for run in runs if run["model"] == model})) for model in models)
    width = f"{of('heads')} heads, {of('hidden_channels')} channels in all"
    normalised = "" if of("norm") == "none" else f", {of('norm')}"
    skip = ", residual" if of("residual") == "true" else ""
    shared = "" if of("projections") == "none" else f", projections {of('projections')}"
    metric = measure_of(runs[0]["metric"]).label
    names = {
        "both": f"last epoch that had the lowest loss and the best {metric} at once",
        "loss": "epoch with the lowest loss",
        "metric": f"epoch with the best {metric}",
    }
    kept = _joined((names[stored(run["config"], "keep")] for run in runs), " or the ")
    starts = _joined(shown(stored(run["config"], "start")) for run in runs)
    started = "" if starts == "none" else f", scores of kernels start at {starts}"
    values = "" if of("value_dropout") == "0" else f", on values {of('value_dropout')}"
    versions = _joined(
        f"torch {run['versions']['torch']}, torch_geometric {run['versions']['torch_geometric']}"
        for run in runs
    )
    return (
        f"{split}, {seeds} seeds; {of('num_layers')} layers of {width}, last layer "
        f"{of('out_heads')} head{'s' * (of('out_heads') != '1')}, {of('act')}{normalised}{skip}"
        f"{shared}; dropout {of('dropout')}, on the input {of('input_dropout')}{values}; Adam, learning "
        f"rate {of('lr')}, weight decay {of('weight_decay')}{undecayed}; at most {of('max_epochs')} epochs, "
        f"early stopping on validation loss and {metric}, patience {of('patience')}, weights of the "
        f"{kept}{started}{_of_level(runs)}; {versions}."
    )


def _of_level(runs: Sequence[Record]) -> str:
    r"""What is said of whole graphs, links and mini-batches alone."""
    level = level_of(runs)
    if level not in ("graph", "link"):
        batches = [run["config"] for run in runs if stored(run["config"], "batch_size") is not None]
        if not batches:
            return ""
        drawn = {shown(stored(config, "neighbors") or "all").replace(",", ", ") for config in batches}
        counts = _joined(shown(config["batch_size"]) for config in batches)
        return f"; {counts} nodes with {' or '.join(sorted(drawn))} neighbours in a step"
    setting = {"graph": "pooling", "link": "decoder"}[level]
    values = _joined(shown(stored(run["config"], setting)) for run in runs)
    sizes = _joined(shown(stored(run["config"], "batch_size")) for run in runs)
    step = f", all {level}s" if sizes == "none" else f", {sizes} {level}s"
    drawn = {shown(stored(run["config"], "neighbors") or "all").replace(",", ", ") for run in runs} - {"all"}
    around = f" with {' or '.join(sorted(drawn))} neighbours" if drawn else ""
    return f"; {setting} {values}{step}{around} in a step"


def _joined(texts: Iterable[str], by: str = " or ") -> str:
    return by.join(dict.fromkeys(texts))


def _distinct(runs: Sequence[Record], name: str) -> list[str]:
    return list(dict.fromkeys(run[name] for run in runs))
