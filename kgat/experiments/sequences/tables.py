r"""The tables of the papers, from the records alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kgat.experiments.pages import markdown_table
from kgat.experiments.sequences.papers import BASELINE, completed
from kgat.experiments.statistics import holm, wilcoxon

UNITS = {"accuracy": "accuracy in %", "perplexity": "perplexity", "bleu": "BLEU"}


def markers(paper: str) -> tuple[str, str]:
    r"""Returns the lines of a page between which the table of a paper stands."""
    return f"<!-- {paper}:begin -->", f"<!-- {paper}:end -->"


def table(records: Sequence[Mapping[str, Any]]) -> str:
    r"""Returns the test scores as Markdown: mean ± unbiased standard deviation over seeds, and Holm-corrected
    p-values of Wilcoxon's paired test against softmax attention, where there are five seeds or more.

    Models that diverged are counted in their cell and not in its mean. Below the table stands how models were
    built and trained.

    Args:
        records (list of dict): Records of :func:`run`, all of a data set with one setting.

    Raises:
        ValueError: If there is no record, or a data set has several settings.
    """
    found: dict[str, dict[str, dict[int, float | None]]] = {}
    metrics: dict[str, str] = {}
    settings: dict[str, Mapping[str, Any]] = {}
    for record in records:
        dataset = record["dataset"]
        of_dataset = found.setdefault(dataset, {})
        of_dataset.setdefault(record["variant"], {})[record["seed"]] = record["test"]
        metrics[dataset] = record["metric"]
        setting = completed(record["setting"])
        if settings.setdefault(dataset, setting) != setting:
            raise ValueError(f"Expected one setting of '{dataset}' (got several); give their records apart")
    if not found:
        raise ValueError("Expected records of 'kgat paper' (got none); run it first")
    variants = list(dict.fromkeys(name for of_dataset in found.values() for name in of_dataset))
    cells: dict[str, list[str]] = {name: [] for name in variants}
    for dataset, of_dataset in found.items():
        p_values = holm(_p_values(of_dataset))
        for name in variants:
            cells[name].append(_cell(of_dataset.get(name, {}), metrics[dataset], p_values.get(name)))
    seeds = {dataset: min(map(len, of_dataset.values())) for dataset, of_dataset in found.items()}
    heads = [f"{d}, {UNITS[metrics[d]]}, {seeds[d]} seed{'s' if seeds[d] > 1 else ''}" for d in found]
    lines = [
        markdown_table(["attention", *heads], ([name, *row] for name, row in cells.items())),
        "",
        *(f"- {line}" for line in _described(settings)),
    ]
    return "\n".join(lines)


def _p_values(found: Mapping[str, Mapping[int, float | None]]) -> dict[str, float | None]:
    base = {seed: score for seed, score in found.get(BASELINE, {}).items() if score is not None}
    p_values: dict[str, float | None] = {}
    for name, own in found.items():
        pairs = [(own[seed], base[seed]) for seed in sorted(base) if own.get(seed) is not None]
        if name != BASELINE and pairs:
            p_values[name] = wilcoxon(np.array([one - other for one, other in pairs]))  # type: ignore[operator]
    return p_values


def _cell(found: Mapping[int, float | None], metric: str, p: float | None) -> str:
    if not found:
        return "–"
    scale = 100.0 if metric == "accuracy" else 1.0
    values = scale * np.array([score for score in found.values() if score is not None])
    lost = len(found) - values.size
    note = f"{lost} of {len(found)} diverged"
    if values.size == 0:
        return note
    spread = f" ± {values.std(ddof=1):.2f}" if values.size > 1 else ""
    notes = ([] if p is None else [f"p = {p:.2g}"]) + ([note] if lost else [])
    return f"{values.mean():.2f}{spread}" + (f" ({', '.join(notes)})" if notes else "")


def _described(settings: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    groups: dict[str, list[str]] = {}
    for dataset, s in settings.items():
        most = "" if s["steps"] is None else f", {s['steps']:,} steps at most"
        most += "" if s["max_train"] is None else f", the first {s['max_train']:,} of training"
        optimizer = {"adam": "Adam", "adamw": "AdamW", "radam": "RAdam"}[s["optimizer"]]
        text = (
            f"{s['num_layers']} layers of {s['embed_dim']} channels, {s['num_heads']} heads, "
            f"{s['feedforward_channels']} hidden; {optimizer}, learning rate {s['lr']:g} "
            f"({s['schedule'].replace('_', ' ')}), dropout {s['dropout']:g}; {s['epochs']} epochs{most}"
        )
        groups.setdefault(text, []).append(dataset)
    for text, datasets in groups.items():
        yield f"{', '.join(datasets)}: {text}"
