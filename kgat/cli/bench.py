r"""``kgat bench``: time and memory next to others."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kgat.cli.options import Root, check_device, listed, set_threads
from kgat.cli.terminal import progress_bar

__all__ = ["bench"]

ORDER = 80

bench = typer.Typer(help="Time and memory of our layers and attention cores next to others.")


@bench.callback(invoke_without_command=True)
def _bench(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@bench.command("layers")
def bench_layers(
    sizes: Annotated[
        str, typer.Option(help="Sizes, separated by commas; an unknown one lists them all.")
    ] = "cora,pubmed,arxiv/10",
    rounds: Annotated[int, typer.Option(help="Rounds per measurement.", min=1)] = 20,
    out: Annotated[
        Path | None, typer.Option(help="File of JSON lines to append to. Default: nothing is written.")
    ] = None,
    threads: Annotated[int, typer.Option(help="CPU threads of torch.", min=1)] = 1,
) -> None:
    r"""Time our layers against the PyG layers that compute the same.

    Ratios are the peer's time over ours, paired round by round in this process.
    """
    from kgat.experiments.bench.layers import run

    def done(record: dict[str, Any]) -> None:
        _print_ratio(f"{record['size']}  {record['what']}", record)

    set_threads(threads)
    run(listed(sizes), rounds, out, done)


@bench.command("epoch")
def bench_epoch(
    dataset: Annotated[str, typer.Option(help="The data set.")] = "Cora",
    rounds: Annotated[int, typer.Option(help="Rounds per measurement.", min=1)] = 20,
    out: Annotated[
        Path | None, typer.Option(help="File of JSON lines to append to. Default: nothing is written.")
    ] = None,
    root: Root = None,
    threads: Annotated[int, typer.Option(help="CPU threads of torch.", min=1)] = 1,
) -> None:
    r"""Time a training epoch of our model against the same one of stock GAT layers on dense features.

    Ratios are the time of stock GAT over ours, paired round by round in this process.
    """
    from kgat.experiments.bench.epoch import bench_epoch

    set_threads(threads)
    for record in bench_epoch(dataset, root, rounds, out):
        _print_ratio(f"{record['dataset']}  {record['features']} features", record)


def _print_ratio(ours: str, record: dict[str, Any]) -> None:
    middle, low, high = record["ratio"]
    note = "  (contended: do not trust it)" if record["contended"] else ""
    what = f"{ours}, against {record['peer']}"
    typer.echo(f"{what:<70} {middle:6.2f}x  [{low:.2f}, {high:.2f}]{note}")


@bench.command("ops")
def bench_ops(
    scenarios: Annotated[
        str, typer.Option(help="Scenarios, separated by commas; an unknown one lists them all.")
    ] = "cora,arxiv/10,arxiv",
    subjects: Annotated[
        str,
        typer.Option(help="Layers and cores, separated by commas, e.g. 'gat layer,rbf core'. Default: all."),
    ] = "",
    rivals: Annotated[
        str, typer.Option(help="Rivals, separated by commas, e.g. 'PyG,PyG style'. Default: all.")
    ] = "",
    out: Annotated[
        Path, typer.Option(help="File of JSON lines to append to; what it holds is not measured again.")
    ] = Path("runs/ops.jsonl"),
    root: Root = None,
    seconds: Annotated[
        float, typer.Option(help="Time for the rounds of one subject in one regime.", min=0)
    ] = 20.0,
    threads: Annotated[int, typer.Option(help="CPU threads of torch.", min=1)] = 1,
    device: Annotated[str, typer.Option(help="Where to run: cpu, cuda, cuda:1, ...")] = "cpu",
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again what the file holds.")] = False,
) -> None:
    r"""Time and weigh layers and attention cores against all rivals, at several sizes.

    Each measurement runs in a fresh process; Ctrl-C loses nothing. 'kgat bench table' prints what is there.
    """
    from kgat.experiments.bench.ops import Plan, run

    check_device(device)
    plan = Plan(
        listed(scenarios),
        listed(subjects),
        listed(rivals),
        device,
        threads,
        seconds,
        None if root is None else str(root),
    )
    found = run(plan, out, fresh=fresh, progress=True)
    typer.echo(f"{out}: {len(found)} new; for the tables: kgat bench table {out}")


@bench.command("sequences")
def bench_sequences(
    lengths: Annotated[
        str, typer.Option(help="Numbers of tokens, separated by commas.")
    ] = "1024,2048,4096,8192,16384,32768,65536",
    subjects: Annotated[
        str,
        typer.Option(help="Attentions, separated by commas; an unknown one lists them all. Default: all."),
    ] = "",
    out: Annotated[
        Path, typer.Option(help="File of JSON lines to append to; what it holds is not measured again.")
    ] = Path("runs/sequence-costs.jsonl"),
    figure: Annotated[Path | None, typer.Option(help="A PNG file to draw time and memory into.")] = None,
    seconds: Annotated[
        float,
        typer.Option(help="An attention whose step takes longer is not measured at larger lengths.", min=0),
    ] = 20.0,
    threads: Annotated[int, typer.Option(help="CPU threads of torch.", min=1)] = 1,
    device: Annotated[str, typer.Option(help="Where to run: cpu, cuda, cuda:1, ...")] = "cpu",
) -> None:
    r"""Time and weigh attention on one sequence, forward and backward, as it grows.

    Softmax attention of torch, and ours with kernels, linear and primal. Each measurement runs in a fresh
    process; Ctrl-C loses nothing. Prints the table.
    """
    from kgat.atomic import write_atomically
    from kgat.experiments.bench import sequences
    from kgat.experiments.plots import png

    check_device(device)
    try:
        tokens = [int(length) for length in listed(lengths)]
    except ValueError:
        raise ValueError(f"Expected numbers of tokens (got '{lengths}'); e.g. 1024,2048") from None
    if figure is not None:
        figure.parent.mkdir(parents=True, exist_ok=True)
    bar = progress_bar()
    task = bar.add_task("", total=None)

    def done(record: dict[str, Any]) -> None:
        bar.update(task, advance=1, description=f"{record['subject']}, {record['length']:,} tokens")

    with bar:
        found = sequences.run(
            *(tokens, listed(subjects), out), device=device, threads=threads, seconds=seconds, on_record=done
        )
    if figure is not None:
        write_atomically(figure, png(sequences.figure(found)))
    typer.echo(sequences.table(found))


@bench.command("table")
def bench_table(
    results: Annotated[Path, typer.Argument(help="The JSON lines of kgat bench ops.")],
    readme: Annotated[
        Path | None,
        typer.Option(
            help="A Markdown file: replace what stands between <!-- ops:begin --> and <!-- ops:end -->."
        ),
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="A PNG file to draw time and memory into.")] = None,
) -> None:
    r"""Print the tables of kgat bench ops in Markdown, or write them into a README, and draw the figure."""
    from kgat.atomic import write_atomically
    from kgat.experiments.bench import report
    from kgat.experiments.ledger import read_results
    from kgat.experiments.pages import update_readme
    from kgat.experiments.plots import png

    records = read_results(results, ["ops"])
    text = report.tables(records)
    if readme is None:
        typer.echo(text)
    else:
        changed = update_readme(readme, text, report.BEGIN, report.END)
        typer.echo(f"{readme}: {'results replaced' if changed else 'results are up to date'}")
    if figure is not None:
        drawn = report.figure(records)
        assert drawn is not None  # there are measurements, or there were no tables
        write_atomically(figure, png(drawn))
        typer.echo(figure)
