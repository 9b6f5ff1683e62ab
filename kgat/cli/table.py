r"""``kgat table``: the tables of comparisons."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kgat.cli import options
from kgat.cli.terminal import console

__all__ = ["print_tables", "replace_tables", "table"]

ORDER = 70

Questions = Annotated[
    bool,
    typer.Option(
        "--questions",
        help="Whether a setting helps, of models such as rbf@start=median beside rbf, as Markdown; with "
        f"--readme {options.between('questions')}.",
    ),
]
Settings = Annotated[
    bool,
    typer.Option(
        "--settings",
        help=f"What trials chose, graph by graph, as Markdown; with --readme {options.between('settings')}.",
    ),
]
Sweep = Annotated[
    bool,
    typer.Option(
        "--sweep",
        help="The gain over stock GAT against the labels, edges at random or noise of data sets such as "
        f"Cora-5-labels, as Markdown; with --readme {options.between('sweep')}.",
    ),
]
Published = Annotated[
    bool,
    typer.Option(
        "--published",
        help="Stock GAT beside what papers report of it, as Markdown; with --readme "
        f"{options.between('published')}.",
    ),
]
Verdict = Annotated[
    bool,
    typer.Option(
        "--verdict",
        help="The family of kernels against stock layers, over all graphs, as Markdown; with --readme "
        f"{options.between('verdict')}. Lines of kgat properties, if a file "
        "of them is named beside the folders, say what goes with the gain.",
    ),
]
Family = Annotated[
    str | None,
    typer.Option(
        help="With --verdict: the models or families that are judged, separated by commas, each alone. "
        "Default: kernel."
    ),
]
Against = Annotated[
    str | None,
    typer.Option(
        help="With --verdict: against which, the one of them that validation prefers. Default: gat,gatv2."
    ),
]


def table(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders with results.jsonl, or above such, or files.")
    ],
    readme: Annotated[Path | None, options.readme_option("results", "overview")] = None,
    questions: Questions = False,
    settings: Settings = False,
    sweep: Sweep = False,
    figure: Annotated[
        Path | None,
        typer.Option(help="With --verdict or --sweep: draw its figure into this PNG, SVG or PDF file."),
    ] = None,
    form: options.Format = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown: the same as --format markdown.")
    ] = False,
    published: Published = False,
    verdict: Verdict = False,
    family: Family = None,
    against: Against = None,
) -> None:
    r"""Print the tables of comparisons, or write them into a README."""
    from kgat.experiments.ledger import read_results
    from kgat.experiments.pages import markers
    from kgat.experiments.tables import expect_runs, readme_tables, result_files

    if not verdict:
        for option, value in (("family", family), ("against", against)):
            if value is not None:
                raise ValueError(
                    f"Expected --verdict beside --{option} (got none); add it, or leave --{option} out"
                )
    chosen = {
        "published": published,
        "verdict": verdict,
        "sweep": sweep,
        "questions": questions,
        "settings": settings,
    }
    if names := [name for name, is_chosen in chosen.items() if is_chosen]:
        if form not in (None, "markdown"):
            raise ValueError(
                f"Expected --format markdown with --{names[0]} (got {form}); there is no other of it"
            )
        print_judgements(folders, readme, names, figure, family, against)
        return
    if figure is not None:
        raise ValueError(
            "Expected --verdict or --sweep with --figure (got neither); of one data set: kgat plot"
        )
    form = "markdown" if markdown and form is None else form
    if form is not None:
        typer.echo(readme_tables(*folders, form=form))
    if readme is not None:
        overview = markers("overview")[0] in readme.read_text(encoding="utf8")
        text = readme_tables(*folders, overview=overview)
        replace_tables(readme, text, "overview" if overview else "results")
    if form is None and readme is None:
        records = [record for path in result_files(folders) for record in read_results(path)]
        expect_runs(records, folders)
        print_tables(records)


def print_judgements(
    folders: list[Path],
    readme: Path | None,
    names: list[str],
    figure: Path | None,
    family: str | None,
    against: str | None,
) -> None:
    from kgat.experiments.judgements import expect_drawn, figure_of, judgement
    from kgat.experiments.ledger import read_results
    from kgat.experiments.tables import expect_runs, result_files

    who = {
        name: options.listed(value)
        for name, value in (("families", family), ("against", against))
        if value is not None
    }
    if figure is not None:
        expect_drawn(names, figure, **who)
    records = [record for path in result_files(folders) for record in read_results(path)]
    expect_runs(records, folders)
    # All of them before a page is changed.
    for name, text in [(name, judgement(name, records, **who)) for name in names]:
        if readme is None:
            typer.echo(text)
        else:
            replace_tables(readme, text, name)
    if figure is not None:
        from kgat.experiments.plots import save

        drawn = save(figure, figure_of(names, records))
        typer.echo(str(drawn) if drawn else "no runs for the figure: none is drawn")


def replace_tables(readme: Path, text: str, name: str) -> None:
    from kgat.experiments.pages import update_readme

    changed = update_readme(readme, text, name)
    typer.echo(f"{readme}: {'results replaced' if changed else 'results are up to date'}")


def print_tables(records: list[dict[str, Any]]) -> None:
    from kgat.experiments.table import terminal
    from kgat.experiments.tables import (
        allocator_line,
        contended_line,
        laid_out,
        outdated_line,
        table,
        tables,
        tuning_line,
    )

    out = console()
    for title, own in tables(records).items():
        runs = [record for record in own if record.get("kind") == "run"]
        out.print(terminal(laid_out(table(own), runs[0]["metric"], title)))
        said = (
            outdated_line(runs),
            tuning_line(runs),
            allocator_line(own),
            contended_line(own),
        )
        for line in filter(None, said):
            out.print(line, markup=False, highlight=False)
