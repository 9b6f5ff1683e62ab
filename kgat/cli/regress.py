r"""``kgat regress``: regression with attention over all points."""

from pathlib import Path
from typing import Annotated

import typer

from kgat.cli import options

__all__ = ["regress"]

ORDER = 50
RESUMES = True


def regress(
    datasets: Annotated[str, options.some("Data sets")] = "co2,airline,sunspots,diabetes",
    models: Annotated[
        str,
        typer.Option(
            help="Kernel models as for 'kgat compare', and gp-rbf and gp-sm, Gaussian processes of gpytorch."
        ),
    ] = "dot,rbf*l2,spectral*l2,implicit*l2,copula*l2,gp-rbf,gp-sm",
    seeds: options.Seeds = 10,
    epochs: Annotated[int, typer.Option(help="Epochs of each run.", min=1)] = 1000,
    out: Annotated[Path, typer.Option(help="Folder of results and figures.")] = Path("runs/regression"),
    readme: Annotated[Path | None, options.readme_option("regression")] = None,
    threads: options.Threads = None,
) -> None:
    r"""Fit small regression sets as "Implicit Kernel Attention" does, with validation and a test read once.

    Results go to OUT/results.jsonl, one line per run; runs that are there already are not repeated. Prints
    the table and draws the fitted curves of series.
    """
    from kgat.experiments import regression
    from kgat.experiments.pages import split_readme, update_readme
    from kgat.experiments.plots import save
    from kgat.experiments.plots.fits import fits
    from kgat.experiments.records import RESULTS

    options.set_threads(threads)
    names = list(dict.fromkeys(options.listed(datasets)))
    chosen = regression.check_models(options.listed(models))
    if not names:
        raise ValueError(
            f"Expected at least one data set (got none); choose from: {', '.join(regression.LOADERS)}"
        )
    setting = regression.Setting(epochs=epochs)
    if readme is not None:
        split_readme(readme, "regression")  # a wrong page is better known before training
    records = regression.of_setting(
        regression.compare(names, chosen, seeds, out / RESULTS, setting, shown=True), setting
    )
    for name in names:
        save(out / f"{name}-fits.png", fits(records, name))
    text = regression.table(records)
    if readme is not None:
        update_readme(readme, text, "regression")
    typer.echo(text)
