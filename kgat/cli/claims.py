r"""``kgat claims``: what five papers claim, trained and drawn."""

from pathlib import Path
from typing import Annotated

import typer

from kgat.cli import options

__all__ = ["claims"]

ORDER = 65
RESUMES = True


def claims(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="approximation, density, heads, images, spectra, copula, definite, orders, listops, "
            "degrees, values, memory, positions, language, translation; in this order of their cost, all if "
            "none is given."
        ),
    ] = None,
    root: options.Root = None,
    datasets: Annotated[str, options.some("Data sets of the claim", " Default: all.")] = "",
    seeds: Annotated[
        int | None, typer.Option(help="Number of seeds, counted from 0. Default: the claim's.", min=1)
    ] = None,
    overrides: Annotated[list[str] | None, options.changes("all sequences", "epochs=5")] = None,
    out: Annotated[Path, typer.Option(help="Folder of NAME.jsonl and figures.")] = Path("runs/claims"),
    readme: Annotated[Path | None, options.readme_option("NAME")] = None,
    draw: Annotated[
        bool, typer.Option("--draw", help="Train nothing: draw and say what the lines show that are there.")
    ] = False,
    threads: options.Threads = None,
) -> None:
    r"""Train what is missing of a paper's claim, draw its figures and say in a sentence what they show.

    Results go to OUT/NAME.jsonl, one line per run; runs that are there are not repeated.
    """
    from kgat.experiments import claims as experiments
    from kgat.experiments.pages import split_readme, update_readme
    from kgat.experiments.plots import save

    chosen = [experiments.resolve_claim(name) for name in names or experiments.CLAIMS]
    changes = options.settings_of(overrides)
    if draw and (changes or datasets or seeds is not None):
        raise ValueError(
            "Expected no --set, --datasets and --seeds with --draw (got one); all lines are drawn"
        )
    options.set_threads(threads)
    if readme is not None:
        for claim in chosen:
            split_readme(readme, claim.name)  # better known now than after hours
    for claim in chosen:
        if not draw:
            experiments.train(claim, out, root, options.listed(datasets), seeds, changes, shown=True)
        records = experiments.lines(claim, out, changes)
        for name, figure in experiments.figures(claim, records).items():
            save(out / name, figure)
        said = experiments.text(claim, records)
        if readme is not None:
            update_readme(readme, said, claim.name)
        typer.echo(f"{claim.title}\n\n{said}\n")
