r"""One self-contained HTML page of a comparison: protocol, table, figures, versions and seeds."""

import base64
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from kgat.atomic import write_atomically
from kgat.experiments import plots
from kgat.experiments.records import BASELINE, METRICS
from kgat.experiments.tables import Row, contended_line, outdated_line, table, tuning_line

__all__ = ["page", "write"]

Record = Mapping[str, Any]

STYLE = """
:root { color-scheme: light dark; --ink: #1d1f23; --soft: #5c626b; --line: #d9dce1;
  --ground: #fbfbfa; --card: #ffffff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e6e9; --soft: #a0a7b1; --line: #3a3f47; --ground: #17191c; --card: #1f2226; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem 1rem 4rem; background: var(--ground);
  color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans",
  sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.3rem; margin: 2.6rem 0 .6rem; padding-top: 1rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .5rem; }
p, figcaption, summary { max-width: 46rem; }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: separate; border-spacing: 0; font-size: .88rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--ground); }
td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 11rem;
  max-width: 18rem; }
td.left { text-align: left; white-space: normal; }
.swatch { display: inline-block; width: .7em; height: .7em; border-radius: 50%;
  border: 1px solid var(--soft); position: absolute; left: .5rem; top: .8em; }
th:first-child, td:first-child { padding-left: .5rem; }
td.model:first-child { padding-left: 1.6rem; }
figure { margin: 1.2rem 0 2.2rem; }
figure .wide { max-width: 56rem; background: #ffffff; border: 1px solid var(--line);
  border-radius: 6px; padding: .6rem; }
img { display: block; width: 100%; min-width: 31rem; height: auto; }
figcaption { margin-top: .5rem; }
figcaption strong { color: var(--ink); }
details { margin: .8rem 0; }
summary { cursor: pointer; }
@media (max-width: 36rem) { body { font-size: 15px; }
  th, td { padding-left: .45rem; padding-right: .45rem; }
  td:first-child { min-width: 7.5rem; max-width: 8.5rem; } }
@media print { .wide { overflow: visible; } img { min-width: 0; } }
"""


def write(records: Sequence[Record], folder: str | os.PathLike[str]) -> Path:
    r"""Writes :obj:`report.html`: a page that needs no other file, no network and no script.

    Args:
        records (list of dict): The records of a comparison.
        folder (str or Path): Where to write; made if missing.

    Returns:
        Path: The file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "report.html"
    write_atomically(path, page(records).encode())
    return path


def page(records: Sequence[Record]) -> str:
    r"""Returns the report as HTML.

    Args:
        records (list of dict): The records of a comparison.

    Example:
        >>> "No runs yet" in page([])
        True
    """
    names = plots.datasets(records)
    title = f"kgat: attention as kernels on {', '.join(names)}" if names else "kgat: no runs"
    body = [f"<h1>{escape(title)}</h1>"]
    if names:
        body += [section for name in names for section in _dataset(records, name)]
        body.append(_provenance(records))
    else:
        body.append("<p>No runs yet. Run <code>kgat compare</code> and come back.</p>")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Whatever a record may contain, the page loads and runs nothing.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _dataset(records: Sequence[Record], dataset: str) -> list[str]:
    of_dataset = [record for record in records if record.get("dataset") == dataset]
    runs = [record for record in of_dataset if record.get("kind") == "run"]
    parts = [f"<h2>{escape(dataset)}</h2>"]
    if runs:
        parts += [_protocol(runs), "<h3>Results</h3>", _results(of_dataset, plots.styles(records))]
        parts += [f"<p>{escape(line)}</p>" for line in (contended_line(of_dataset),) if line]
    parts.append("<h3>Figures</h3>")
    for draw in plots.FIGURES.values():
        figure = draw(records, dataset)  # all records, so that colours agree between data sets
        if figure is None:
            continue
        head, text = draw.title, draw.caption
        data = base64.b64encode(plots.png(figure)).decode()
        parts.append(
            f'<figure><div class="wide"><img alt="{escape(head)} on {escape(dataset)}" '
            f'src="data:image/png;base64,{data}"></div>'
            f"<figcaption><strong>{escape(head)}.</strong> {escape(text)}</figcaption></figure>"
        )
    if runs:
        parts.append(_single_runs(runs))
    return parts


def _protocol(runs: Sequence[Record]) -> str:
    models = list(dict.fromkeys(run["model"] for run in runs))
    seeds = {run["seed"] for run in runs}
    splits = list(dict.fromkeys(str(run.get("split")) for run in runs))
    metric = _metric(runs)
    shown = ", ".join(splits[:4]) + (f" and {len(splits) - 4} more" if len(splits) > 4 else "")
    lines = [
        "<h3>Protocol</h3>",
        f"<p>{len(models)} model{'s' * (len(models) != 1)}, {len(seeds)} "
        f"seed{'s' * (len(seeds) != 1)}, {len(runs)} run{'s' * (len(runs) != 1)}. "
        f"Split{'s' * (len(splits) != 1)}: {escape(shown)}. Metric: {escape(metric)}. "
        "Training sees no label of a test node; the epoch is chosen on the validation nodes, and "
        "the test nodes are scored once, at that epoch.</p>",
    ]
    said = (outdated_line(runs).replace("*", ""), tuning_line(runs))
    lines += [f"<p>{escape(line)}</p>" for line in said if line]
    settings = [run.get("config") or {} for run in runs]
    keys = list(dict.fromkeys(key for config in settings for key in config))
    common = {
        key: settings[0].get(key)
        for key in keys
        if all(config.get(key) == settings[0].get(key) for config in settings)
    }
    if common:
        lines.append("<details><summary>Settings of all runs</summary>")
        lines.append(_table(["setting", "value"], common.items(), left=True))
        lines.append("</details>")
    special = [key for key in keys if key not in common and key not in ("seed", "model")]
    if special:
        values: dict[str, dict[str, list[str]]] = {}
        for run, config in zip(runs, settings, strict=True):
            of_model = values.setdefault(run["model"], {key: [] for key in special})
            for key in special:
                text = str(config.get(key))
                if text not in of_model[key]:
                    of_model[key].append(text)
        rows = [[model, *(", ".join(found[key]) for key in special)] for model, found in values.items()]
        lines.append("<details><summary>Settings that differ</summary>")
        lines.append(_table(["model", *special], rows, left=True))
        lines.append("</details>")
    return "\n".join(lines)


def _results(records: Sequence[Record], looks: Mapping[str, plots.Style]) -> str:
    metric = _metric(record for record in records if record.get("kind") == "run")
    head = [
        "model",
        "seeds",
        f"test {metric}",
        f"difference to {BASELINE} [95 %]",
        "p",
        "validation",
        "epoch time",
        "memory",
        "parameters",
    ]
    lines = ['<div class="wide"><table><thead><tr>']
    lines += [f"<th>{escape(name)}</th>" for name in head]
    lines.append("</tr></thead><tbody>")
    for row in table(list(records)):
        color = looks[row.model].color if row.model in looks else "#777777"
        swatch = f'<span class="swatch" style="background:{color}"></span>'
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in _cells(row))
        lines.append(f'<tr><td class="model">{swatch}{escape(row.model)}</td>{cells}</tr>')
    lines.append("</tbody></table></div>")
    lines.append(
        '<p class="soft">Mean ± unbiased standard deviation over seeds, in per cent. Difference: '
        "paired by seed, in percentage points. p: Wilcoxon signed-rank test of the paired "
        "differences, Holm-corrected over the models, from five pairs on. Epoch time and memory: ratios to "
        f"{escape(BASELINE)}.</p>"
    )
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    mean = _number(row.mean, "{:.1f}", 100)
    if _number(row.std, "{}"):
        mean += f" ± {_number(row.std, '{:.1f}', 100)}"
    difference = _number(row.difference, "{:+.1f}", 100)
    if _number(row.ci_low, "{}") and _number(row.ci_high, "{}"):
        low, high = (_number(end, "{:+.1f}", 100) for end in (row.ci_low, row.ci_high))
        difference += f" [{low}, {high}]"
    small = row.p_value is not None and row.p_value < 0.001
    return [
        str(row.n),
        mean,
        difference or "–",
        "< 0.001" if small else _number(row.p_value, "{:.3f}") or "–",
        _number(row.val_mean, "{:.1f}", 100) or "–",
        _number(row.epoch_ratio, "{:.2f}×") or "–",
        _number(row.memory_ratio, "{:.2f}×") or "–",
        _number(row.parameters, "{:,.0f}") or "–",
    ]


def _number(value: float | None, form: str, scale: float = 1) -> str:
    r"""A number as text; nothing for none and for not a number."""
    if value is None or value != value:
        return ""
    return form.format(scale * value).replace("-", "−")


def _metric(runs: Iterable[Record]) -> str:
    name = next(iter(runs)).get("metric", "accuracy")
    return METRICS.get(name, str(name))


def _single_runs(runs: Sequence[Record]) -> str:
    rows = [
        [
            run["model"],
            run["seed"],
            run.get("split"),
            *(_number(run.get(part), "{:.2f}", 100) for part in ("train", "val", "test")),
            run.get("best_epoch"),
            run.get("epochs"),
            _number(run.get("seconds"), "{:.1f}"),
        ]
        for run in runs
    ]
    head = ["model", "seed", "split", "train", "val", "test", "epoch kept", "epochs", "seconds"]
    seeds: dict[str, list[str]] = {}
    for run in runs:
        seeds.setdefault(run["model"], []).append(str(run["seed"]))
    listed = [[model, ", ".join(numbers)] for model, numbers in seeds.items()]
    return (
        "<h3>Seeds</h3>\n"
        + _table(["model", "seeds"], listed, left=True)
        + f"\n<details><summary>All {len(runs)} runs</summary>\n"
        + _table(head, rows)
        + "\n</details>"
    )


def _provenance(records: Sequence[Record]) -> str:
    stamped = [record for record in records if record.get("versions") or record.get("commit")]
    found: dict[str, list[str]] = {}
    for record in stamped:
        entries = dict(record.get("versions") or {})
        entries["commit"] = record.get("commit")
        entries["device"] = record.get("device")
        entries["threads"] = record.get("threads")
        for name, value in entries.items():
            if value is not None and str(value) not in found.setdefault(name, []):
                found[name].append(str(value))
    dates = sorted(str(record["date"]) for record in stamped if record.get("date"))
    if dates:
        found["date"] = [dates[0]] if dates[0] == dates[-1] else [f"{dates[0]} to {dates[-1]}"]
    rows = [[name, ", ".join(values)] for name, values in found.items() if values]
    return "<h2>Versions</h2>\n" + _table(["", "used"], rows, left=True)


def _table(head: Iterable[Any], rows: Iterable[Iterable[Any]], left: bool = False) -> str:
    cell = '<td class="left">' if left else "<td>"
    align = ' style="text-align:left"' if left else ""
    lines = ['<div class="wide"><table><thead><tr>']
    lines += [f"<th{align}>{escape(str(name))}</th>" for name in head]
    lines.append("</tr></thead><tbody>")
    for row in rows:
        cells = ("–" if value is None else str(value) for value in row)
        lines.append("<tr>" + "".join(f"{cell}{escape(text)}</td>" for text in cells) + "</tr>")
    lines.append("</tbody></table></div>")
    return "\n".join(lines)
