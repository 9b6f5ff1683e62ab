r"""Tables of runs: means, paired differences to stock GAT, costs."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kgat.experiments import ledger as record_file
from kgat.experiments import tuning
from kgat.experiments.config import differing, protocol, stored
from kgat.experiments.costs import CONTENDED
from kgat.experiments.pages import markdown_table
from kgat.experiments.records import BASELINE, METRICS, RESULTS
from kgat.experiments.statistics import holm, interval, wilcoxon

if TYPE_CHECKING:
    from rich.table import Table

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    r"""One model in the table of a data set. Scores are shares, not per cent.

    Args:
        model (str): The model.
        n (int): Number of seeds.
        mean (float): Mean test metric.
        std (float, optional): Unbiased standard deviation; :obj:`None` with one seed.
        difference (float, optional): Mean difference to the baseline over common seeds.
        ci_low (float, optional): Lower end of its 95 % t-interval.
        ci_high (float, optional): Upper end.
        p_value (float, optional): Wilcoxon signed-rank test, adjusted for the number of models
            after Holm; :obj:`None` with fewer than five pairs.
        val_mean (float): Mean validation metric of the same runs.
        epoch_ratio (float, optional): Time of a training epoch over that of the baseline.
        memory_ratio (float, optional): Peak memory over that of the baseline.
        parameters (int): Number of parameters.
        pairs (int): Number of seeds that baseline and model share.
    """

    model: str
    n: int
    mean: float
    std: float | None
    difference: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    val_mean: float
    epoch_ratio: float | None
    memory_ratio: float | None
    parameters: int
    pairs: int = 0


def table(records: Sequence[Record], baseline: str = BASELINE) -> list[Row]:
    r"""Summarises the runs of one data set: the baseline first, then models as they came.

    Args:
        records (list of dict): Records of one data set.
        baseline (str, optional): What the others are compared with. (default: :obj:`"gat"`)

    Raises:
        ValueError: If the records are of several data sets, if some runs were tuned and others not, or with
            another budget, if they kept weights by several rules, or if a model has runs of several settings.
    """
    runs = [record for record in records if record.get("kind") == "run"]
    datasets = list(dict.fromkeys(record["dataset"] for record in runs))
    if len(datasets) > 1:
        raise ValueError(f"Expected records of one data set (got {', '.join(datasets)}); pass those of one")
    _expect_one_kind(runs)
    found: dict[str, dict[tuple[int, str], Record]] = {}
    for record in runs:  # a later run of the same seed replaces an earlier one
        found.setdefault(record["model"], {})[record["seed"], record["split"]] = record
    order = sorted(found, key=lambda model: model != baseline)
    reference = found.get(baseline, {})
    costs = _costs(records, datasets, baseline)

    differences = {
        model: np.array(
            [run["test"] - reference[pair]["test"] for pair, run in found[model].items() if pair in reference]
        )
        for model in order
        if model != baseline
    }
    adjusted = holm({model: wilcoxon(values) for model, values in differences.items()})
    rows = []
    for model in order:
        own = list(found[model].values())
        test = np.array([run["test"] for run in own])
        values = differences.get(model, np.empty(0))
        low, high = interval(values)
        epoch_ratio, memory_ratio = costs.get(model, (None, None))
        rows.append(
            Row(
                model=model,
                n=len(own),
                mean=float(test.mean()),
                std=float(test.std(ddof=1)) if len(own) > 1 else None,
                difference=float(values.mean()) if values.size else None,
                ci_low=low,
                ci_high=high,
                p_value=adjusted.get(model),
                val_mean=float(np.mean([run["val"] for run in own])),
                epoch_ratio=epoch_ratio,
                memory_ratio=memory_ratio,
                parameters=own[-1]["parameters"],
                pairs=values.size,
            )
        )
    return rows


def _expect_one_kind(runs: Sequence[Record]) -> None:
    first: dict[str, Record] = {}
    for run in runs:
        kept, other_kept = (stored(record.get("config") or {}, "keep") for record in (runs[0], run))
        if kept != other_kept:
            raise ValueError(
                f"Expected runs on '{run['dataset']}' that keep weights by one rule (got "
                f"'{runs[0]['model']}' with keep={kept} and '{run['model']}' with keep={other_kept}); show "
                "them in tables apart"
            )
        if run.get("tuned") != runs[0].get("tuned"):
            raise ValueError(
                f"Expected runs on '{run['dataset']}' that are equally tuned (got '{runs[0]['model']}' "
                f"{tuning.said(runs[0].get('tuned'))} and '{run['model']}' "
                f"{tuning.said(run.get('tuned'))}); show them in tables apart"
            )
        other = first.setdefault(run["model"], run)
        for name, one, two in differing(other.get("config") or {}, run.get("config") or {}):
            raise ValueError(
                f"Expected runs of '{run['model']}' on '{run['dataset']}' with equal settings (got "
                f"{name}={one} and {name}={two}); show them in tables apart"
            )


def tables(records: Sequence[Record]) -> dict[str, list[Record]]:
    r"""Sorts runs, and what they cost, by the table that they belong to: one per data set, and one more per
    budget of tuning.

    Args:
        records (list of dict): Any records.

    Returns:
        dict: Titles, each with the records that :func:`table` takes; only those with runs.
    """
    found: dict[str, list[Record]] = {}
    for record in records:
        if record.get("kind") in ("run", "cost"):
            tuned = record.get("tuned")
            budget = f", tuned {tuned['settings']} × {tuned['seeds']}" if tuned else ""
            found.setdefault(record["dataset"] + budget, []).append(record)
    return {title: own for title, own in found.items() if any(record.get("kind") == "run" for record in own)}


def _costs(
    records: Sequence[Record], datasets: Sequence[str], baseline: str
) -> dict[str, tuple[float | None, float | None]]:
    found: dict[str, tuple[float | None, float | None]] = {}
    for record in records:
        if record.get("kind") == "cost" and record["dataset"] in datasets and record["baseline"] == baseline:
            for model, entry in record["models"].items():
                found[model] = (entry["seconds_ratio"][0], entry["memory_ratio"])
    return found


def markdown(rows: Sequence[Row], metric: str = "accuracy", baseline: str = BASELINE) -> str:
    r"""Returns the table of one data set in Markdown.

    Args:
        rows (list of Row): What :func:`table` returned.
        metric (str, optional): The metric. (default: :obj:`"accuracy"`)
        baseline (str, optional): The baseline. (default: :obj:`"gat"`)
    """
    return markdown_table(_headings(metric, baseline), map(_cells, rows))


def rich_table(
    rows: Sequence[Row], title: str, metric: str = "accuracy", baseline: str = BASELINE
) -> "Table":
    r"""Returns the table of one data set for a terminal.

    Args:
        rows (list of Row): What :func:`table` returned.
        title (str): The title.
        metric (str, optional): The metric. (default: :obj:`"accuracy"`)
        baseline (str, optional): The baseline. (default: :obj:`"gat"`)
    """
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    drawn = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, name in enumerate(_headings(metric, baseline)):
        # The words of a heading may stand above each other, numbers stay in one piece.
        drawn.add_column(
            name.replace(" [", "\n["),
            justify="right" if number else "left",
            no_wrap=number == 3,
            min_width=max((len(_plain(_cells(row)[number])) for row in rows), default=0),
        )
    for row in rows:
        drawn.add_row(*(escape(_plain(cell)) for cell in _cells(row)))
    return drawn


def _plain(cell: str) -> str:
    return cell.strip("`")


def _headings(metric: str, baseline: str) -> list[str]:
    return [
        "model",
        "seeds",
        f"test {METRICS[metric]} %",
        f"difference to {baseline} [95 %]",
        "p",
        "val %",
        "epoch time",
        "memory",
        "parameters",
    ]


def _cells(row: Row) -> list[str]:
    difference = _text(row.difference, "{:+.1f}", 100)
    if row.ci_low is not None and row.ci_high is not None:
        low, high = (_text(end, "{:+.1f}", 100) for end in (row.ci_low, row.ci_high))
        difference += f" [{low}, {high}]"
    p_value = _text(row.p_value, "{:.3f}")
    if row.p_value is not None and row.p_value < 0.001:
        p_value = "< 0.001"
    return [
        f"`{row.model}`",
        str(row.n),
        _score(row),
        difference,
        p_value,
        _text(row.val_mean, "{:.1f}", 100),
        _text(row.epoch_ratio, "{:.2f}×"),
        _text(row.memory_ratio, "{:.2f}×"),
        f"{row.parameters:,}",
    ]


def _score(row: Row) -> str:
    mean = _text(row.mean, "{:.1f}", 100)
    return mean if row.std is None else f"{mean} ± {_text(row.std, '{:.1f}', 100)}"


def _text(value: float | None, form: str, scale: float = 1.0) -> str:
    if value is None:
        return "–"
    return form.format(scale * value).replace("-", "−")


def readme_tables(*sources: str | os.PathLike[str], baseline: str = BASELINE, overview: bool = False) -> str:
    r"""Returns all results as Markdown: models by data sets, then one full table per data set.

    Args:
        *sources (str or Path): Files of records, or folders below which every ``results.jsonl``
            is read.
        baseline (str, optional): The baseline. (default: :obj:`"gat"`)
        overview (bool, optional): Whether models by data sets are all. (default: :obj:`False`)

    Raises:
        FileNotFoundError: If a source holds no results.
    """
    records = [record for path in result_files(sources) for record in record_file.read_results(path)]
    of_tables = tables(records)
    made = {title: table(own, baseline) for title, own in of_tables.items()}
    if not made:
        shown = ", ".join(str(source) for source in sources)
        raise FileNotFoundError(f"Expected runs in {shown} (got none); run: kgat compare")
    models = list(dict.fromkeys(row.model for rows in made.values() for row in rows))
    models.sort(key=lambda model: model != baseline)
    marks = {title: outdated_line(_runs(own)) for title, own in of_tables.items()}
    titles = [title + " \\*" * bool(marks[title]) for title in made]
    lines = []
    for model in models:
        cells = [next((_score(row) for row in rows if row.model == model), "–") for rows in made.values()]
        lines.append([f"`{model}`", *cells])
    parts = [
        "Test metric in %, mean ± unbiased standard deviation over seeds. A seed picks split and "
        "initial weights, for all models alike. The epoch is chosen on validation nodes and test "
        "nodes are scored once, at that epoch.",
        markdown_table(["model", *titles], lines),
    ]
    if any(marks.values()):
        parts.append("\\* To be made anew, for the reason that stands above the table of each.")
    if overview:
        return "\n\n".join(parts)
    for title, rows in made.items():
        runs = _runs(of_tables[title])
        parts.append(f"**{title}.** {_protocol_line(runs)}")
        parts += filter(None, (marks[title],))
        parts.append(markdown(rows, runs[0]["metric"], baseline))
        parts += filter(None, (tuning_line(runs), contended_line(of_tables[title])))
    parts.append(
        f"Difference: paired by seed, in percentage points, with a 95 % t-interval. p: Wilcoxon "
        f"signed-rank test of the paired differences, adjusted over the models of a data set after "
        f"Holm; with n seeds it cannot fall below 2^(1 − n). Epoch time and peak memory: one "
        f"training epoch, measured in turns with `{baseline}`, as ratios to it."
    )
    return "\n\n".join(parts)


def result_files(sources: Sequence[str | os.PathLike[str]]) -> list[Path]:
    r"""Returns the files of records that sources name.

    Args:
        sources (list of str or Path): Files, or folders below which every ``results.jsonl`` counts.

    Raises:
        FileNotFoundError: If a source holds none.
    """
    found = []
    for source in map(Path, sources):
        if source.is_file():
            found.append(source)
            continue
        below = sorted(source.rglob(RESULTS)) if source.is_dir() else []
        if not below:
            raise FileNotFoundError(
                f"Expected results in '{source}' (got no {RESULTS} there); run: kgat compare --out {source}"
            )
        found += below
    return list({path.resolve(): path for path in found}.values())


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


def _runs(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record.get("kind") == "run"]


EARLY = 10  # epochs, after which a model is hardly trained


def outdated_line(runs: Sequence[Record]) -> str:
    r"""Says that runs were made under a rule for the weights to keep that froze some of them early, where the
    protocol of their data set has given it up; nothing of other runs.

    Args:
        runs (list of dict): The runs of one table.
    """
    if not any(stored(run["config"], "keep") == "both" != protocol(run["dataset"])["keep"] for run in runs):
        return ""
    metric = METRICS.get(runs[0]["metric"], runs[0]["metric"])
    early = sum(run.get("best_epoch", math.inf) <= EARLY for run in runs)
    frozen = f": {early} of {len(runs)} runs kept one of their first {EARLY}" if early else ""
    return (
        f"**To be made anew.** These runs kept the last epoch that had the lowest loss and the best {metric} "
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
    space = "; ".join(f"{name} {_choices(map(_setting, values))}" for name, values in tuned["space"].items())
    seeds = f"{tuned['seeds']} seed{'s' * (tuned['seeds'] != 1)}"
    configs = {run["model"]: run["config"] for run in runs}
    chosen = (
        f"`{model}` " + ", ".join(f"{name} {_setting(config[name])}" for name in tuned["space"])
        for model, config in configs.items()
    )
    return (
        f"Tuned on validation nodes alone: every model had the same {tuned['settings']} settings, the "
        f"protocol and random points of the grid {space}, each trained with {seeds} that no run has. The "
        f"best mean validation score chose: {'; '.join(chosen)}."
    )


def _choices(values: Iterable[str]) -> str:
    *others, last = values
    return f"{', '.join(others)} or {last}" if others else last


def _protocol_line(runs: Sequence[Record]) -> str:
    def of(name: str) -> str:
        values = list(dict.fromkeys(_setting(run["config"][name]) for run in runs))
        return " or ".join(values)

    spared = _models([run for run in runs if not stored(run["config"], "decay_kernels")])
    undecayed = f" (not on frequencies, lengthscales and exponents in {', '.join(spared)})" if spared else ""

    splits = list(dict.fromkeys(run["split"] for run in runs))
    split = f"Split {splits[0]}" if len(splits) == 1 else f"{len(splits)} splits ({splits[0]}, ...)"
    seeds = list(dict.fromkeys(str(len({r["seed"] for r in runs if r["model"] == m})) for m in _models(runs)))
    width = "{} heads, {} channels in all".format(of("heads"), of("hidden_channels"))
    normalised = "" if of("norm") == "none" else f", {of('norm')}"
    skip = ", residual" if of("residual") == "true" else ""
    shared = "" if of("projections") == "none" else f", projections {of('projections')}"
    metric = METRICS[runs[0]["metric"]]
    names = {
        "both": f"last epoch that had the lowest loss and the best {metric} at once",
        "loss": "epoch with the lowest loss",
        "metric": f"epoch with the best {metric}",
    }
    kept = " or the ".join(dict.fromkeys(names[stored(run["config"], "keep")] for run in runs))
    starts = list(dict.fromkeys(stored(run["config"], "start") for run in runs))
    started = "" if starts == [None] else f", scores of kernels start at {' or '.join(map(_setting, starts))}"
    values = "" if of("value_dropout") == "0" else f", on values {of('value_dropout')}"
    versions = dict.fromkeys(
        f"torch {run['versions']['torch']}, torch_geometric {run['versions']['torch_geometric']}"
        for run in runs
    )
    return (
        f"{split}, {' or '.join(seeds)} seeds; {of('num_layers')} layers of {width}, last layer "
        f"{of('out_heads')} head{'s' * (of('out_heads') != '1')}, {of('act')}{normalised}{skip}"
        f"{shared}; dropout {of('dropout')}, on the input {of('input_dropout')}{values}; Adam, learning "
        f"rate {of('lr')}, weight decay {of('weight_decay')}{undecayed}; at most {of('max_epochs')} epochs, "
        f"early stopping on validation loss and {metric}, patience {of('patience')}, weights of the "
        f"{kept}{started}; {' or '.join(versions)}."
    )


def _models(runs: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(run["model"] for run in runs))


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)
