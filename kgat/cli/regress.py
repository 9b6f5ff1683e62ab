r"""``kgat regress``: regression with attention over all points."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kgat.cli.options import Threads, listed, make_folder, set_threads
from kgat.cli.terminal import progress_bar

__all__ = ["regress"]

ORDER = 50


def regress(
    datasets: Annotated[
        str, typer.Option("--datasets", help="Data sets, separated by commas; an unknown one lists them all.")
    ] = "co2,airline,sunspots,diabetes",
    models: Annotated[
        str,
        typer.Option(
            help="Kernel models as for 'kgat compare', and gp-rbf and gp-sm, Gaussian processes of gpytorch."
        ),
    ] = "dot,rbf*l2,spectral*l2,implicit*l2,copula*l2,gp-rbf,gp-sm",
    seeds: Annotated[int, typer.Option(help="Number of seeds, counted from 0.", min=1)] = 10,
    epochs: Annotated[int, typer.Option(help="Epochs of each run.", min=1)] = 1000,
    out: Annotated[Path, typer.Option(help="Folder of results and figures.")] = Path("runs/regression"),
    readme: Annotated[
        Path | None,
        typer.Option(
            help="A Markdown file: replace what stands between <!-- regression:begin --> and "
            "<!-- regression:end -->."
        ),
    ] = None,
    threads: Threads = None,
) -> None:
    r"""Fit small regression sets as "Implicit Kernel Attention" does, with validation and a test read once.

    Results go to OUT/results.jsonl, one line per run; runs that are there already are not repeated. Prints
    the table and draws the fitted curves of series.
    """
    from kgat.atomic import write_atomically
    from kgat.experiments import regression
    from kgat.experiments.ledger import Interrupted, read_results
    from kgat.experiments.pages import split_readme, update_readme
    from kgat.experiments.plots import png
    from kgat.experiments.plots.fits import fits
    from kgat.experiments.records import RESULTS

    set_threads(threads)
    names = list(dict.fromkeys(listed(datasets)))
    chosen = regression.check_models(listed(models))
    if not names:
        raise ValueError(
            f"Expected at least one data set (got none); choose from: {', '.join(regression.LOADERS)}"
        )
    setting = regression.Setting(epochs=epochs)
    path = out / RESULTS
    problems = [regression.load(name) for name in names]
    if readme is not None:
        split_readme(readme, regression.BEGIN, regression.END)  # a wrong page is better known before training
    make_folder(out)
    total = len(names) * len(chosen) * seeds
    there = regression.finished(path, names, chosen, seeds, setting)
    bar = progress_bar()
    task = bar.add_task("", total=total, completed=there)

    def done(record: dict[str, Any]) -> None:
        said = f"{record['dataset']}, {record['model']}, seed {record['seed']}"
        bar.update(task, advance=1, description=said)

    try:
        with bar:
            for problem in problems:
                regression.compare(problem, chosen, seeds, path, setting, done)
    except KeyboardInterrupt:
        raise Interrupted(int(bar.tasks[task].completed), total, path) from None
    records = regression.of_setting(read_results(path, ["regression"]), setting)
    for name in names:
        figure = fits(records, name)
        if figure is not None:
            write_atomically(out / f"{name}-fits.png", png(figure))
    text = regression.table(records)
    if readme is not None:
        update_readme(readme, text, regression.BEGIN, regression.END)
    typer.echo(text)
