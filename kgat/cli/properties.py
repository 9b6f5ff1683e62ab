r"""``kgat properties``: what graphs are like."""

from pathlib import Path
from typing import Annotated

import typer

from kgat.cli import options

__all__ = ["properties"]

ORDER = 72


def properties(
    datasets: Annotated[str, typer.Argument(help="Data sets, with commas between them.")],
    root: options.Root = None,
    out: Annotated[
        Path | None,
        typer.Option(help="A file of JSON lines to add those to that it lacks. Default: print them."),
    ] = None,
) -> None:
    r"""Measure degrees, homophily and how far similar features mean equal labels.

    kgat table --verdict sets them beside the gain of kernels, if the file is named beside its folders.
    """
    import json

    from kgat.datasets import load
    from kgat.experiments.ledger import append, read_results
    from kgat.experiments.properties import properties as measured

    there = {record["dataset"] for record in read_results(out)} if out is not None and out.exists() else set()
    for name in filter(None, (part.strip() for part in datasets.split(","))):
        task = load(name, root)
        if task.name in there:
            continue
        record = measured(task)
        if out is None:
            typer.echo(json.dumps(record))
        else:
            append(out, record)
            typer.echo(f"{out}: {task.name}")
