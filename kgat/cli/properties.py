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

    from kgat.atomic import make_folder
    from kgat.datasets import load
    from kgat.experiments.ledger import append, read_results
    from kgat.experiments.properties import properties as measured

    if not (names := options.listed(datasets)):
        raise ValueError(f"Expected the name of a data set (got '{datasets}'); name some: digits,wine")
    there = set()
    if out is not None:
        if out.is_dir():
            raise ValueError(
                f"Expected a file (got the folder '{out}'); name one in it: {out / 'graphs.jsonl'}"
            )
        make_folder(out.parent)
        of_file = read_results(out) if out.exists() else []
        there = {record["dataset"] for record in of_file if record.get("kind") == "graph"}
    for name in names:
        task = load(name, root)
        if task.name in there:
            continue
        there.add(task.name)
        record = measured(task)
        if out is None:
            typer.echo(json.dumps(record))
        else:
            append(out, record)
            typer.echo(f"{out}: {task.name}")
