r"""``kgat plot``: figures and report again, from the JSON lines alone."""

from pathlib import Path
from typing import Annotated

import typer

from kgat.cli.table import expect_runs

__all__ = ["plot"]


def plot(
    folder: Annotated[Path, typer.Argument(help="A folder with results.jsonl.")],
) -> None:
    r"""Draw the figures and report.html again, from the results alone."""
    from kgat.experiments.compare import draw
    from kgat.experiments.ledger import read_results
    from kgat.experiments.records import RESULTS

    results = folder / RESULTS
    if not results.is_file():
        raise FileNotFoundError(
            f"Expected results in '{folder}' (got no {RESULTS}); run: kgat compare --out {folder}"
        )
    records = read_results(results)
    expect_runs(records, [folder])
    for path in draw(records, folder):
        typer.echo(path)
