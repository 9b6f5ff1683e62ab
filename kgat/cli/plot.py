r"""``kgat plot``: figures and report again, from the JSON lines alone."""

from pathlib import Path
from typing import Annotated

import typer

from kgat.cli import options

__all__ = ["plot"]

ORDER = 40


def plot(
    folder: Annotated[Path, typer.Argument(help="A folder with results.jsonl, or that file itself.")],
    formats: options.Figures = "png",
) -> None:
    r"""Draw the figures and report.html again, from the results alone."""
    from kgat.experiments.compare import draw
    from kgat.experiments.ledger import read_results
    from kgat.experiments.records import RESULTS
    from kgat.experiments.tables import expect_runs

    folder = folder.parent if folder.name == RESULTS else folder
    if not (folder / RESULTS).is_file():
        what = f"the file '{folder}'" if folder.is_file() else f"no {RESULTS} in '{folder}'"
        raise FileNotFoundError(
            f"Expected a folder with the {RESULTS} of a comparison (got {what}); run: kgat compare --out "
            f"{folder.parent if folder.is_file() else folder}"
        )
    records = read_results(folder / RESULTS)
    expect_runs(records, [folder])
    for path in draw(records, folder, options.listed(formats)):
        typer.echo(path)
