r"""``kgat paper``: what a paper compares on sequences."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from kgat.cli import options

__all__ = ["paper"]

ORDER = 60
RESUMES = True


def paper(
    name: Annotated[str, typer.Argument(help="dissection, banach, primal, fourier or implicit.")],
    root: options.Root = None,
    datasets: Annotated[str, options.some("Data sets of the paper", " Default: all.")] = "",
    variants: Annotated[str, options.some("Attentions of the paper", " Default: all.")] = "",
    seeds: options.Seeds = 3,
    scale: Annotated[
        str, typer.Option(help="small: sizes for a CPU; full: sizes of the papers' code.")
    ] = "small",
    overrides: Annotated[list[str] | None, options.changes("all data sets", "epochs=5")] = None,
    out: Annotated[Path, typer.Option(help="Folder of results: NAME.jsonl.")] = Path("runs/sequences"),
    readme: Annotated[Path | None, options.readme_option("NAME")] = None,
    threads: options.Threads = None,
    device: options.Device = "cpu",
) -> None:
    r"""Compare the attentions of a paper on sequences: one transformer, nothing but the attention changes.

    Validation chooses the epoch, the test is read once. Results go to OUT/NAME.jsonl, one line per run; runs
    that are there already with the same setting are not repeated. Prints the table.
    """
    from kgat.experiments import sequences
    from kgat.experiments.pages import split_readme, update_readme

    changes = options.settings_of(overrides)
    chosen = sequences.choose(
        sequences.resolve_paper(name), options.listed(datasets), options.listed(variants)
    )
    if readme is not None:
        split_readme(readme, name)  # a wrong page is better known now than after hours
    settings = {
        dataset: sequences.settings_of(dataset, scale).with_changes(changes) for dataset in chosen.datasets
    }
    options.set_threads(threads)
    options.check_device(device)
    path = out / f"{name}.jsonl"
    # Data that is not trained on any more need not be there to print a table.
    done = sequences.finished(path, chosen.datasets, chosen.variants, settings, seeds)
    there = Counter(dataset for dataset, *_ in done)
    of_one = len(chosen.variants) * seeds
    sequences.check([dataset for dataset in chosen.datasets if there[dataset] < of_one], root, settings)
    records = sequences.compare(
        *(chosen.datasets, chosen.variants, settings, seeds, path, root), device=device, shown=True
    )
    text = sequences.table(records)
    if readme is not None:
        update_readme(readme, text, name)
    typer.echo(text)
