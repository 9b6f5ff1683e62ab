r"""``kgat table``: the tables of comparisons."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kgat.cli import options
from kgat.cli.terminal import console

__all__ = ["expect_runs", "print_tables", "replace_tables", "table"]

ORDER = 70

Questions = Annotated[
    bool,
    typer.Option(
        "--questions",
        help="Whether a setting helps, of models such as rbf@start=median beside rbf, as Markdown; with "
        "--readme between <!-- questions:begin --> and <!-- questions:end -->.",
    ),
]
Sweep = Annotated[
    bool,
    typer.Option(
        "--sweep",
        help="The gain over stock GAT against the labels, edges at random or noise of data sets such as "
        "Cora-5-labels, as Markdown; with --readme between <!-- sweep:begin --> and <!-- sweep:end -->.",
    ),
]
Published = Annotated[
    bool,
    typer.Option(
        "--published",
        help="Stock GAT beside what papers report of it, as Markdown; with --readme between "
        "<!-- published:begin --> and <!-- published:end -->.",
    ),
]
Verdict = Annotated[
    bool,
    typer.Option(
        "--verdict",
        help="The family of kernels against stock layers, over all graphs, as Markdown; with --readme "
        "between <!-- verdict:begin --> and <!-- verdict:end -->. Lines of kgat properties, if a file "
        "of them is named beside the folders, say what goes with the gain.",
    ),
]
Family = Annotated[
    str,
    typer.Option(
        help="With --verdict: the models or families that are judged, separated by commas, each alone."
    ),
]
Against = Annotated[
    str,
    typer.Option(help="With --verdict: against which, the one of them that validation prefers."),
]


def table(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders with results.jsonl, or above such, or files.")
    ],
    readme: Annotated[Path | None, options.readme_option("results", "overview")] = None,
    questions: Questions = False,
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
    family: Family = "kernel",
    against: Against = "gat,gatv2",
) -> None:
    r"""Print the tables of comparisons, or write them into a README."""
    from kgat.experiments.ledger import read_results
    from kgat.experiments.pages import BEGIN, END, OVERVIEW
    from kgat.experiments.tables import readme_tables, result_files

    chosen = {"published": published, "verdict": verdict, "sweep": sweep, "questions": questions}
    if names := [name for name, is_chosen in chosen.items() if is_chosen]:
        if form not in (None, "markdown"):
            raise ValueError(
                f"Expected --format markdown with --{names[0]} (got {form}); there is no other of it"
            )
        print_judgements(folders, readme, names, figure, options.listed(family), options.listed(against))
        return
    if figure is not None:
        raise ValueError(
            "Expected --verdict or --sweep with --figure (got neither); of one data set: kgat plot"
        )
    form = "markdown" if markdown and form is None else form
    if form is not None:
        typer.echo(readme_tables(*folders, form=form))
    if readme is not None:
        overview = OVERVIEW[0] in readme.read_text(encoding="utf8")
        text = readme_tables(*folders, overview=overview)
        replace_tables(readme, text, *(OVERVIEW if overview else (BEGIN, END)))
    if form is None and readme is None:
        records = [record for path in result_files(folders) for record in read_results(path)]
        expect_runs(records, folders)
        print_tables(records)


def print_judgements(
    folders: list[Path],
    readme: Path | None,
    names: list[str],
    figure: Path | None,
    family: list[str],
    against: list[str],
) -> None:
    from kgat.experiments.ledger import read_results
    from kgat.experiments.tables import result_files

    if figure is not None:
        expect_drawn(names, figure)
        if "verdict" in names and (family, against) != (["kernel"], ["gat", "gatv2"]):
            raise ValueError(
                f"Expected the usual --family and --against with --figure (got {','.join(family)} against "
                f"{','.join(against)}); the figure is drawn of kernel against gat and gatv2 alone"
            )
    records = [record for path in result_files(folders) for record in read_results(path)]
    expect_runs(records, folders)
    # All of them before a page is changed.
    for name, text in [(name, judgement(name, records, family, against)) for name in names]:
        if readme is None:
            typer.echo(text)
        else:
            replace_tables(readme, text, f"<!-- {name}:begin -->", f"<!-- {name}:end -->")
    if figure is not None:
        draw_judgement(records, names, figure)


def judgement(name: str, records: list[dict[str, Any]], family: list[str], against: list[str]) -> str:
    from kgat.experiments import controls, properties, questions, sweep, verdict
    from kgat.experiments.published import agreement
    from kgat.experiments.table import render

    if name == "published":
        return agreement(records)
    if name == "questions":
        answered = questions.answers(records)
        if not answered:
            raise ValueError(
                "Expected runs of models with a setting in their name, and without (got "
                f"{_named(records, 'model')}); run: kgat compare --models rbf,rbf@start=median"
            )
        return render(questions.blocks(answered))
    if name == "sweep":
        found = sweep.sweeps(records)
        if not any(len(of_models) > 1 for _, amounts in found.values() for of_models in amounts.values()):
            raise ValueError(
                "Expected runs of gat and others on data sets such as Cora-5-labels (got "
                f"{_named(records, 'dataset')}); run: kgat compare --dataset Cora-5-labels --models gat,rbf"
            )
        return render(sweep.blocks(found))
    laid_out = []
    for each in family:
        judged = verdict.verdicts(records, each, against)
        if not judged:
            usual = each == verdict.FAMILY
            raise ValueError(
                f"Expected runs of '{each}' and of {' or '.join(against)} (got {_named(records, 'model')}); "
                f"run: kgat compare --models {','.join([*against, each])}{' --trials 12' * usual}"
            )
        laid_out += [
            *verdict.blocks(judged),
            *properties.blocks(records, judged),
            *controls.blocks(records, judged),
        ]
    return render(laid_out)


def _named(records: list[dict[str, Any]], entry: str) -> str:
    return ", ".join(dict.fromkeys(r[entry] for r in records if r.get("kind") == "run"))


def expect_drawn(names: list[str], path: Path) -> None:
    from kgat.experiments.plots.look import expect_formats

    chosen = [name for name in names if name in ("verdict", "sweep")]
    if len(chosen) != 1:
        raise ValueError(
            f"Expected one of --verdict and --sweep with --figure (got {len(chosen)}); choose one"
        )
    expect_formats([path.suffix.removeprefix(".").lower() or "png"])


def draw_judgement(records: list[dict[str, Any]], names: list[str], path: Path) -> None:
    from kgat.experiments.plots import save
    from kgat.experiments.plots.sweep import sweep
    from kgat.experiments.plots.verdict import verdict

    name, figure = ("verdict", verdict) if "verdict" in names else ("sweep", sweep)
    drawn = save(path, figure(records))
    typer.echo(str(drawn) if drawn else f"no runs for the figure of --{name}: none is drawn")


def replace_tables(readme: Path, text: str, begin: str, end: str) -> None:
    from kgat.experiments.pages import update_readme

    changed = update_readme(readme, text, begin, end)
    typer.echo(f"{readme}: {'results replaced' if changed else 'results are up to date'}")


def expect_runs(records: list[dict[str, Any]], folders: list[Path]) -> None:
    from kgat.experiments.tables import tables

    if not tables(records):
        shown = ", ".join(map(str, folders))
        raise FileNotFoundError(f"Expected runs in {shown} (got none); run: kgat compare --out {folders[0]}")


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
            outdated_line(runs).replace("*", ""),
            tuning_line(runs),
            allocator_line(own),
            contended_line(own),
        )
        for line in filter(None, said):
            out.print(line, markup=False, highlight=False)
