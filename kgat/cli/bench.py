r"""``kgat bench``: time and memory next to others."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kgat.cli import options
from kgat.cli.table import replace_tables

__all__ = ["bench"]

ORDER = 80
RESUMES = ("ops", "sequences", "threads", "memory")

Rounds = Annotated[int, typer.Option(help="Rounds per measurement.", min=1)]
Log = Annotated[
    Path | None, typer.Option(help="File of JSON lines to append to. Default: nothing is written.")
]
Results = Annotated[
    Path, typer.Option(help="File of JSON lines to append to; what it holds is not measured again.")
]
OneThread = Annotated[int, typer.Option(help="CPU threads of torch.", min=1)]
Where = Annotated[str, typer.Option(help="Where to run: cpu, cuda, cuda:1, ...")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Measure again what the file holds.")]
Picture = Annotated[Path | None, typer.Option(help="A PNG file to draw time and memory into.")]

bench = typer.Typer(help="Time and memory of our layers and attention cores next to others.")


@bench.callback(invoke_without_command=True)
def _bench(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@bench.command("layers")
def bench_layers(
    sizes: Annotated[str, options.some("Sizes")] = "cora,pubmed,arxiv/10",
    rounds: Rounds = 20,
    out: Log = None,
    threads: OneThread = 1,
) -> None:
    r"""Time our layers against the PyG layers that compute the same.

    Ratios are the peer's time over ours, paired round by round in this process.
    """
    from kgat.experiments.bench.layers import run

    def done(record: dict[str, Any]) -> None:
        _print_ratio(f"{record['size']}  {record['what']}", record)

    options.set_threads(threads)
    run(options.listed(sizes), rounds, out, done)


@bench.command("epoch")
def bench_epoch(
    dataset: Annotated[
        str, typer.Option(help="The data set, or tolokers-sized for a drawn graph of that size.")
    ] = "Cora",
    models: Annotated[str, options.some("Models")] = "additive,rbf,spectral",
    rounds: Rounds = 20,
    out: Log = None,
    readme: Annotated[Path | None, options.readme_option("epochs")] = None,
    root: options.Root = None,
    threads: OneThread = 1,
) -> None:
    r"""Time a training step and a validation of our models against those of stock GAT on dense features.

    Ratios are the time of stock GAT over ours, paired round by round in this process. The table in a README
    is of all records in --out.
    """
    from kgat.experiments.bench import report
    from kgat.experiments.bench.epoch import bench_epoch
    from kgat.experiments.ledger import read

    options.set_threads(threads)
    records = bench_epoch(dataset, root, rounds, out, options.listed(models))
    for record in records:
        what = f"{record['dataset']}  {record['model']}  {record['what']}  {record['features']} features"
        _print_ratio(what, record)
    if readme is not None:
        replace_tables(readme, report.epochs(records if out is None else read(out)), "epochs")


@bench.command("loader")
def bench_loader(
    graph: Annotated[str, typer.Option(help="The graph: tiny, cora, arxiv/10, arxiv.")] = "arxiv",
    neighbors: Annotated[str, typer.Option(help="Neighbours per hop, separated by commas.")] = "15,10",
    batch_size: Annotated[int, typer.Option(help="Seeds of a batch.", min=1)] = 1024,
    rounds: Rounds = 20,
    out: Log = None,
    root: options.Root = None,
    threads: OneThread = 1,
) -> None:
    r"""Time the drawing of a mini-batch against the training step it feeds, and against PyG's sampler.

    Ratios are the peer's time over ours, paired round by round in this process. PyG's sampler is timed where
    pyg-lib or torch-sparse is installed.
    """
    from kgat.experiments.bench.loader import bench_loader

    options.set_threads(threads)
    try:
        counts = [int(count) for count in options.listed(neighbors)]
    except ValueError:
        raise ValueError(f"Expected numbers of neighbours (got '{neighbors}'); e.g. 15,10") from None
    bench_loader(
        *(graph, root, counts, batch_size, rounds, out),
        say=lambda record: _print_ratio(f"{record['graph']}  {record['what']}", record),
    )


@bench.command("scale")
def bench_scale(
    sizes: Annotated[
        str, typer.Option(help="Millions of nodes x millions of edges, separated by commas.")
    ] = "2.4x60",
    folder: Annotated[Path, typer.Option(help="Where graphs are drawn; one that is there is taken.")] = Path(
        "runs/scale"
    ),
    channels: Annotated[int, typer.Option(help="Number of features.", min=1)] = 128,
    model: Annotated[str, typer.Option(help="The model, as in compare.")] = "rbf",
    batch_size: Annotated[int, typer.Option(help="Nodes of a batch.", min=1)] = 1024,
    neighbors: Annotated[str, typer.Option(help="Neighbours per hop, separated by commas.")] = "15,10",
    towards: Annotated[
        str, typer.Option(help="The size to extrapolate to, from three or more.")
    ] = "111x1615",
    processes: Annotated[int, typer.Option(help="How many train together, in turns with one.", min=1)] = 1,
    rounds: Rounds = 1,
    out: Log = None,
    readme: Annotated[Path | None, options.readme_option("scale")] = None,
    threads: OneThread = 1,
) -> None:
    r"""Train an epoch of mini-batches and infer all nodes on drawn graphs that lie on disk; weigh both.

    Degrees follow a power law. Each phase runs in a fresh process: the memory is the largest that was
    resident, with the pages of files that were looked at and without. The table at the end is of all records
    in --out.
    """
    from kgat.experiments.bench.scale import bench_scale, laid_out
    from kgat.experiments.ledger import read

    def done(record: dict[str, Any]) -> None:
        what = f"{record['phase']}, {record['nodes']:,} nodes, {record['edges']:,} edges"
        if record["phase"] != "speedup":
            what += f", {record['processes']} processes" * (record["processes"] > 1)
            typer.echo(f"{what}: {record['seconds']:,.0f} s, load before {record['load']}")

    target = _read_size(towards)
    settings: dict[str, Any] = {"channels": channels, "model": model, "threads": threads}
    settings |= {"batch_size": batch_size, "neighbors": neighbors}
    wanted = [_read_size(size) for size in options.listed(sizes)]
    records = bench_scale(wanted, folder, out, done, processes, rounds, **settings)
    if out is not None:
        records = [record for record in read(out) if settings.items() <= record.items()]
    typer.echo(laid_out(records, *target))
    if readme is not None:
        replace_tables(readme, laid_out(records, *target), "scale")


def _read_size(text: str) -> tuple[int, int]:
    nodes, _, edges = text.partition("x")
    try:
        return round(float(nodes) * 1e6), round(float(edges) * 1e6)
    except (ValueError, OverflowError):
        raise ValueError(f"Expected millions of nodes x edges (got '{text}'); e.g. 2.4x60") from None


@bench.command("firstcall")
def bench_firstcall(
    names: Annotated[str, options.some("Kernels", " Default: all, and a new rule.")] = "",
    out: Log = None,
) -> None:
    r"""Time the first forward and backward pass of each kernel in a fresh process, in seconds of CPU time.

    Cold: nothing is compiled yet. Warm: another process has compiled it.
    """
    from kgat.experiments.bench.firstcall import bench_firstcall

    def done(record: dict[str, Any]) -> None:
        cold, warm = record["cold"], record["warm"]
        typer.echo(
            f"{record['kernel']:<24} cold {cold['forward']:.2f} + {cold['backward']:.2f} s "
            f"({cold['compiled']} loops), warm {warm['forward']:.3f} + {warm['backward']:.3f} s"
        )

    bench_firstcall(options.listed(names), out, done)


def _print_ratio(ours: str, record: dict[str, Any]) -> None:
    middle, low, high = record["ratio"]
    note = "  (contended: do not trust it)" if record["contended"] else ""
    what = f"{ours}, against {record['peer']}"
    typer.echo(f"{what:<70} {middle:6.2f}x  [{low:.2f}, {high:.2f}]{note}")


@bench.command("ops")
def bench_ops(
    scenarios: Annotated[str, options.some("Scenarios")] = "cora,arxiv/10,arxiv",
    subjects: Annotated[
        str,
        typer.Option(help="Layers and cores, separated by commas, e.g. 'gat layer,rbf core'. Default: all."),
    ] = "",
    rivals: Annotated[
        str, typer.Option(help="Rivals, separated by commas, e.g. 'PyG,PyG style'. Default: all.")
    ] = "",
    against: Annotated[
        Path | None, typer.Option(help="The folder of another copy of the package, as the only rival.")
    ] = None,
    regimes: Annotated[
        str, typer.Option(help="Some of R1, R2 and memory, separated by commas. Default: all.")
    ] = "",
    out: Results = Path("runs/ops.jsonl"),
    root: options.Root = None,
    seconds: Annotated[
        float, typer.Option(help="Time for the rounds of one subject in one regime.", min=0)
    ] = 20.0,
    threads: OneThread = 1,
    device: Where = "cpu",
    fresh: Fresh = False,
) -> None:
    r"""Time and weigh layers and attention cores against all rivals, at several sizes.

    Each measurement runs in a fresh process; Ctrl-C loses nothing. 'kgat bench table' prints what is there.
    """
    from kgat.experiments.bench.ops import Plan, run

    options.check_device(device)
    names = (options.listed(scenarios), options.listed(subjects), options.listed(rivals))
    folder, other = (None if one is None else str(one) for one in (root, against))
    plan = Plan(*names, device, threads, seconds, folder, other, options.listed(regimes))
    records = run(plan, out, fresh=fresh, progress=True)
    typer.echo(f"{out}: {len(records)} new; for the tables: kgat bench table {out}")


@bench.command("sequences")
def bench_sequences(
    lengths: Annotated[
        str, typer.Option(help="Numbers of tokens, separated by commas.")
    ] = "1024,2048,4096,8192,16384,32768,65536",
    subjects: Annotated[str, options.some("Attentions", " Default: all.")] = "",
    out: Results = Path("runs/sequence-costs.jsonl"),
    figure: Picture = None,
    seconds: Annotated[
        float,
        typer.Option(help="An attention whose step takes longer is not measured at larger lengths.", min=0),
    ] = 20.0,
    threads: OneThread = 1,
    device: Where = "cpu",
) -> None:
    r"""Time and weigh attention on one sequence, forward and backward, as it grows.

    Softmax attention of torch, and ours with kernels, linear and primal. Each measurement runs in a fresh
    process; Ctrl-C loses nothing. Prints the table.
    """
    from kgat.experiments.bench import report, sequences
    from kgat.experiments.plots import save
    from kgat.experiments.plots.sequence_costs import sequence_costs

    options.check_device(device)
    try:
        tokens = [int(length) for length in options.listed(lengths)]
    except ValueError:
        raise ValueError(f"Expected numbers of tokens (got '{lengths}'); e.g. 1024,2048") from None
    records = sequences.run(
        *(tokens, options.listed(subjects), out), device=device, threads=threads, seconds=seconds, shown=True
    )
    if figure is not None:
        save(figure, sequence_costs(records))
    typer.echo(report.costs(records))


@bench.command("threads")
def bench_threads(
    scenarios: Annotated[str, options.some("Scenarios")] = "arxiv/10,arxiv,hub",
    subjects: Annotated[str, options.some("Layers and cores")] = "gat layer,dot layer,gat core,dot core",
    threads: Annotated[int, typer.Option(help="Threads to time against one.", min=2)] = 2,
    rounds: Rounds = 11,
    out: Log = None,
    root: options.Root = None,
    fresh: Fresh = False,
) -> None:
    r"""Time our layers and attention's own part of them on several threads against one.

    Ratios are the time of one thread over that of several, paired round by round in one process. What --out
    holds is not measured again.
    """
    from kgat.experiments.bench.threads import bench_threads

    bench_threads(
        *(options.listed(scenarios), options.listed(subjects), threads, rounds),
        *(None if root is None else str(root), out),
        shown=True,
        fresh=fresh,
    )


@bench.command("memory")
def bench_memory(
    sizes: Annotated[
        str, typer.Option(help="Millions of nodes x millions of edges, separated by commas.")
    ] = "0.03x1,0.3x10,1x30",
    kernels: Annotated[str, options.some("Kernels")] = "additive,dot_product",
    heads: Annotated[int, typer.Option(help="Number of heads.", min=1)] = 4,
    channels: Annotated[int, typer.Option(help="Channels of a head.", min=1)] = 64,
    out: Log = None,
    threads: OneThread = 1,
    fresh: Fresh = False,
) -> None:
    r"""Weigh forward and backward of a layer as graphs grow, and time the sorting of their edges.

    Each size runs in a fresh process. Memory is the largest in use above features, edges and weights. What
    --out holds is not measured again.
    """
    from kgat.experiments.bench import report
    from kgat.experiments.bench.memory import bench_memory

    wanted = [_read_size(size) for size in options.listed(sizes)]
    settings: dict[str, Any] = {"heads": heads, "channels": channels, "threads": threads}
    records = bench_memory(wanted, options.listed(kernels), out, shown=True, fresh=fresh, **settings)
    typer.echo(report.memory(records))


@bench.command("comparison")
def bench_comparison(
    against: Annotated[Path, typer.Option(help="The folder of another copy of the package.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- [OPTIONS OF COMPARE]...", help="What follows 'kgat compare'."),
    ] = None,
    rounds: Rounds = 3,
    out: Log = None,
) -> None:
    r"""Time a whole 'kgat compare', from its start to its end, beside that of another copy of the package.

    Both take turns, after each has run once with one seed. Results are thrown away. For example:
    kgat bench comparison --against ../before -- --dataset Cora --models gat,rbf --seeds 3
    """
    from kgat.experiments.bench import report
    from kgat.experiments.bench.comparison import bench_comparison

    typer.echo(report.comparisons([bench_comparison(arguments or [], against, rounds, out, shown=True)]))


@bench.command("table")
def bench_table(
    results: Annotated[
        Path, typer.Argument(help="The JSON lines of kgat bench ops, threads, memory or comparison.")
    ],
    readme: Annotated[Path | None, options.readme_option("NAME")] = None,
    name: Annotated[
        str | None, typer.Option(help="The NAME in the Markdown file. Default: what kind of records it is.")
    ] = None,
    figure: Picture = None,
) -> None:
    r"""Print the tables of kgat bench ops in Markdown, or write them into a README, and draw the figure."""
    from kgat.experiments.bench import report
    from kgat.experiments.ledger import read_results
    from kgat.experiments.plots import save
    from kgat.experiments.plots.ops import ops

    records = read_results(results, ["ops"])
    kinds = {record.get("kind") for record in records}
    kind = next((kind for kind in report.TABLES if kind in kinds), "ops")
    text = report.TABLES[kind](records)
    if readme is None:
        typer.echo(text)
    else:
        replace_tables(readme, text, name or kind)
    if figure is not None:
        save(figure, ops(records))
        typer.echo(figure)
