r"""One self-contained HTML page of a comparison: protocol, table, figures, versions and seeds."""

import base64
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from kgat.atomic import make_folder, write_atomically
from kgat.experiments import plots
from kgat.experiments.pairs import AVERAGED
from kgat.experiments.records import BASELINE
from kgat.experiments.table import Cell, Table, html_table, shown
from kgat.experiments.tables import (
    MODELS_TESTED,
    allocator_line,
    contended_line,
    laid_out,
    level_of,
    outdated_line,
    runs_in,
    table,
    tuning_line,
)
from kgat.measures import measure_of

__all__ = ["page", "write"]

Record = Mapping[str, Any]

STYLE = Path(__file__).with_name("report.css").read_text(encoding="utf8")


def write(records: Sequence[Record], folder: str | os.PathLike[str], drawn: Iterable[Path] = ()) -> Path:
    r"""Writes :obj:`report.html`: a page that needs no other file, no network and no script.

    Args:
        records (list of dict): The records of a comparison.
        folder (str or Path): Where to write; made if missing.
        drawn (list of Path, optional): Files of figures of these records, as
            :func:`kgat.experiments.plots.save_all` returns them; what is not among them is drawn.
            (default: :obj:`()`)

    Returns:
        Path: The file.
    """
    folder = Path(folder)
    make_folder(folder)
    path = folder / "report.html"
    write_atomically(path, page(records, drawn).encode())
    return path


def page(records: Sequence[Record], drawn: Iterable[Path] = ()) -> str:
    r"""Returns the report as HTML.

    Args:
        records (list of dict): The records of a comparison.
        drawn (list of Path, optional): As in :func:`write`. (default: :obj:`()`)

    Example:
        >>> "No runs yet" in page([])
        True
    """
    names = plots.datasets(records)
    title = f"kgat: attention as kernels on {', '.join(names)}" if names else "kgat: no runs"
    nothing = ["<p>No runs yet. Run <code>kgat compare</code> and come back.</p>"]
    files = {path.name: path for path in drawn}
    sections = [section for name in names for section in _dataset(records, name, files)]
    body = [f"<h1>{escape(title)}</h1>", *([*sections, _provenance(records)] if names else nothing)]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Whatever a record may contain, the page loads and runs nothing.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _dataset(records: Sequence[Record], dataset: str, drawn: Mapping[str, Path]) -> list[str]:
    of_dataset = [record for record in records if record.get("dataset") == dataset]
    runs = runs_in(of_dataset)
    parts = [f"<h2>{escape(dataset)}</h2>"]
    if runs:
        parts += [_protocol(runs), "<h3>Results</h3>", _results(of_dataset, plots.styles(records))]
        parts += _paragraphs(allocator_line(of_dataset), contended_line(of_dataset))
    parts.append("<h3>Figures</h3>")
    for name, draw in plots.FIGURES.items():
        path = drawn.get(plots.file_name(dataset, name))
        # Of all records, so that colours agree between data sets.
        figure = draw(records, dataset) if path is None else None
        content = path.read_bytes() if path else plots.png(figure) if figure else None
        if content is not None:
            head, text = escape(draw.title), escape(draw.caption)
            data = base64.b64encode(content).decode()
            parts.append(
                f'<figure><div class="wide"><img alt="{head} on {escape(dataset)}" '
                f'src="data:image/png;base64,{data}"></div>'
                f"<figcaption><strong>{head}.</strong> {text}</figcaption></figure>"
            )
    if runs:
        parts.append(_single_runs(runs))
    return parts


def _protocol(runs: Sequence[Record]) -> str:
    splits = list(dict.fromkeys(str(run.get("split")) for run in runs))
    shown_splits = ", ".join(splits[:4]) + (f" and {len(splits) - 4} more" if len(splits) > 4 else "")
    counts = {"model": len({run["model"] for run in runs}), "seed": len({run["seed"] for run in runs})}
    counted = (f"{count} {name}{'s' * (count != 1)}" for name, count in {**counts, "run": len(runs)}.items())
    metric = measure_of(str(runs[0].get("metric", "accuracy")))
    direction = f" ({metric.direction})" if metric.direction else ""
    level = level_of(runs)
    parts = [
        "<h3>Protocol</h3>",
        f"<p>{', '.join(counted)}. Split{'s' * (len(splits) != 1)}: {escape(shown_splits)}. "
        f"Metric: {escape(metric.label)}{direction}. "
        f"Training sees no label of a test {level}; the epoch is chosen on the validation {level}s, and "
        f"the test {level}s are scored once, at that epoch.</p>",
    ]
    parts += _paragraphs(outdated_line(runs), tuning_line(runs))
    configs: dict[str, list[Record]] = {}
    for run in runs:
        configs.setdefault(run["model"], []).append(run.get("config") or {})
    settings = [config for of_model in configs.values() for config in of_model]
    keys = dict.fromkeys(key for config in settings for key in config)
    first = settings[0]
    common = [key for key in keys if all(config.get(key) == first.get(key) for config in settings)]
    special = [key for key in keys if key not in (*common, "seed", "model")]
    if common:
        values = _table(["setting", "value"], [(key, first.get(key)) for key in common], left=True)
        parts.append(_folded("Settings of all runs", values))
    if special:
        rows = [
            [model, *(_distinct(config.get(key) for config in of_model) for key in special)]
            for model, of_model in configs.items()
        ]
        parts.append(_folded("Settings that differ", _table(["model", *special], rows, left=True)))
    return "\n".join(parts)


def _paragraphs(*texts: str) -> list[str]:
    return [f"<p>{escape(text)}</p>" for text in texts if text]


def _results(records: Sequence[Record], looks: Mapping[str, plots.Style]) -> str:
    rows = table(records)
    colors = {row.model: looks[row.model].color if row.model in looks else "#777777" for row in rows}
    name = runs_in(records)[0].get("metric", "accuracy")
    metric = measure_of(str(name))
    units = (", in per cent", ", in percentage points") if metric.percent else ("", "")
    better = f" ({metric.direction})" if metric.direction else ""
    return (
        html_table(laid_out(rows, name, colors=colors))
        + f'\n<p class="soft">Mean ± unbiased standard deviation over seeds{units[0]}{better}. Difference: '
        f"paired by seed ({AVERAGED}){units[1]}. {MODELS_TESTED}, from five pairs on. Epoch time "
        f"and memory: ratios to {escape(BASELINE)}.</p>"
    )


def _single_runs(runs: Sequence[Record]) -> str:
    metric = measure_of(str(runs[0].get("metric", "accuracy")))
    rows = [
        [
            run["model"],
            run["seed"],
            run.get("split"),
            *(shown(run.get(part), metric.form(2), metric.scale) for part in ("train", "val", "test")),
            run.get("best_epoch"),
            run.get("epochs"),
            shown(run.get("seconds"), "{:.1f}"),
        ]
        for run in runs
    ]
    head = ["model", "seed", "split", "train", "val", "test", "epoch kept", "epochs", "seconds"]
    models = dict.fromkeys(run["model"] for run in runs)
    seeds = [[m, ", ".join(str(run["seed"]) for run in runs if run["model"] == m)] for m in models]
    of_models = _table(["model", "seeds"], seeds, left=True)
    return f"<h3>Seeds</h3>\n{of_models}\n{_folded(f'All {len(runs)} runs', _table(head, rows))}"


def _provenance(records: Sequence[Record]) -> str:
    stamped = [record for record in records if record.get("versions") or record.get("commit")]
    entries = [{**(record.get("versions") or {}), **record} for record in stamped]
    names = dict.fromkeys(name for record in stamped for name in record.get("versions") or ())
    rows = [
        [name, _distinct(values)]
        for name in (*names, "commit", "device", "threads")
        if (values := [entry[name] for entry in entries if entry.get(name) is not None])
    ]
    if dates := sorted(str(record["date"]) for record in stamped if record.get("date")):
        rows.append(["date", " to ".join(dict.fromkeys((dates[0], dates[-1])))])
    return "<h2>Versions</h2>\n" + _table(["", "used"], rows, left=True)


def _distinct(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))


def _folded(summary: str, table: str) -> str:
    return f"<details><summary>{summary}</summary>\n{table}\n</details>"


def _table(head: Sequence[str], rows: Iterable[Iterable[Any]], left: bool = False) -> str:
    lines = [[Cell("–" if value is None else str(value), is_code=True) for value in row] for row in rows]
    return html_table(Table(head, lines, names=len(head) if left else 1))
