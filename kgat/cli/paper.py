r"""``kgat paper``: what a paper compares on sequences."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from kgat.cli.options import (
    Device,
    Root,
    Threads,
    check_device,
    listed,
    make_folder,
    set_threads,
    settings_of,
)
from kgat.cli.terminal import progress_bar

__all__ = ["paper"]

ORDER = 60


def paper(
    name: Annotated[str, typer.Argument(help="dissection, banach, primal, fourier or implicit.")],
    root: Root = None,
    datasets: Annotated[
        str,
        typer.Option(
            "--datasets",
            help="Data sets of the paper, separated by commas; an unknown one lists them all. Default: all.",
        ),
    ] = "",
    variants: Annotated[
        str,
        typer.Option(
            help="Attentions of the paper, separated by commas; an unknown one lists them all. Default: all."
        ),
    ] = "",
    seeds: Annotated[int, typer.Option(help="Number of seeds, counted from 0.", min=1)] = 3,
    scale: Annotated[
        str, typer.Option(help="small: sizes for a CPU; full: sizes of the papers' code.")
    ] = "small",
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a setting of all data sets, e.g. --set epochs=5. May be repeated; an unknown key "
            "lists them all.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of results: NAME.jsonl.")] = Path("runs/sequences"),
    readme: Annotated[
        Path | None,
        typer.Option(
            help="A Markdown file: replace what stands between <!-- NAME:begin --> and <!-- NAME:end -->."
        ),
    ] = None,
    threads: Threads = None,
    device: Device = "cpu",
) -> None:
    r"""Compare the attentions of a paper on sequences: one transformer, nothing but the attention changes.

    Validation chooses the epoch, the test is read once. Results go to OUT/NAME.jsonl, one line per run; runs
    that are there already with the same setting are not repeated. Prints the table.
    """
    from kgat.experiments import sequences
    from kgat.experiments.ledger import Interrupted
    from kgat.experiments.pages import split_readme, update_readme

    changes = settings_of(overrides)
    chosen = sequences.choose(sequences.resolve_paper(name), listed(datasets), listed(variants))
    if readme is not None:
        split_readme(readme, *sequences.markers(name))  # a wrong page is better known now than after hours
    settings = {
        dataset: sequences.settings_of(dataset, scale).with_changes(changes) for dataset in chosen.datasets
    }
    set_threads(threads)
    check_device(device)
    path = out / f"{name}.jsonl"
    given = (chosen.datasets, chosen.variants, settings, seeds, path)
    done = sequences.finished(path, chosen.datasets, chosen.variants, settings, seeds)
    there = Counter(dataset for dataset, *_ in done)
    of_one = len(chosen.variants) * seeds
    # Data that is not trained on any more need not be there to print a table.
    sequences.check([dataset for dataset in chosen.datasets if there[dataset] < of_one], root, settings)
    make_folder(out)
    total = len(chosen.datasets) * of_one
    bar = progress_bar()
    task = bar.add_task("", total=total, completed=len(done))

    def on_epoch(dataset: str, variant: str, seed: int, epoch: int, score: float) -> None:
        said = f"{dataset}, {variant}, seed {seed}, epoch {epoch} of {settings[dataset].epochs}: {score:.4g}"
        bar.update(task, description=said)

    try:
        with bar:
            records = sequences.compare(
                *given,
                root,
                device=device,
                on_run=lambda _: bar.advance(task),
                on_epoch=on_epoch,
            )
    except KeyboardInterrupt:
        raise Interrupted(int(bar.tasks[task].completed), total, path) from None
    text = sequences.table(records)
    if readme is not None:
        update_readme(readme, text, *sequences.markers(name))
    typer.echo(text)
