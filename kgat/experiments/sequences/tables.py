r"""The tables of the papers, from the records alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kgat.experiments.sequences.papers import BASELINE, completed
from kgat.experiments.summary import Summary, least_seeds, summarise_runs
from kgat.experiments.table import Cell, pivot, render, spread

UNITS = {"accuracy": "accuracy in %", "perplexity": "perplexity", "bleu": "BLEU"}
OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW", "radam": "RAdam"}


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
    if not records:
        raise ValueError("Expected records of 'kgat paper' (got none); run it first")
    settings: dict[str, Mapping[str, Any]] = {}
    for record in records:
        dataset, setting = record["dataset"], completed(record["setting"])
        if settings.setdefault(dataset, setting) != setting:
            raise ValueError(f"Expected one setting of '{dataset}' (got several); give their records apart")
    metrics = {record["dataset"]: record["metric"] for record in records}
    columns = {
        f"{dataset}, {UNITS[metrics[dataset]]}, {least_seeds(of_variants)}": {
            name: _cell(summary, 100.0 if metrics[dataset] == "accuracy" else 1.0)
            for name, summary in of_variants.items()
        }
        for dataset, of_variants in summarise_runs(records, "variant", BASELINE).items()
    }
    described = "\n".join(f"- {line}" for line in _described(settings))
    return render([pivot("attention", columns), described])


def _cell(summary: Summary, scale: float) -> Cell:
    note = f"{summary.lost} of {summary.n} diverged" if summary.lost else ""
    if summary.mean is None:
        return Cell(note)
    cell = spread(summary.mean, summary.std, "{:.2f}", scale, p_value=summary.p_value)
    if not note:
        return cell
    text = f"{cell.text.removesuffix(')')}, {note})" if cell.text.endswith(")") else f"{cell.text} ({note})"
    return replace(cell, text=text)


def _described(settings: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    groups: dict[str, list[str]] = {}
    for dataset, s in settings.items():
        most = "" if s["steps"] is None else f", {s['steps']:,} steps at most"
        most += "" if s["max_train"] is None else f", the first {s['max_train']:,} of training"
        epochs = f"{s['epochs']} epoch{'s' * (s['epochs'] != 1)}"
        text = (
            f"{s['num_layers']} layers of {s['embed_dim']} channels, {s['num_heads']} heads, "
            f"{s['feedforward_channels']} hidden; {OPTIMIZERS[s['optimizer']]}, learning rate {s['lr']:g} "
            f"({s['schedule'].replace('_', ' ')}), dropout {s['dropout']:g}; {epochs}{most}"
        )
        groups.setdefault(text, []).append(dataset)
    for text, datasets in groups.items():
        yield f"{', '.join(datasets)}: {text}"
