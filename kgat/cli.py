r"""The command line: ``kgat compare | train | regress | paper | info | bench | plot | table``."""

import _thread
import os
import re
import signal
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

__all__ = ["app", "main"]

app = typer.Typer(
    help="Attention whose score is a kernel, compared with stock graph attention.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

bench = typer.Typer(help="Time and memory of our layers and attention cores next to others.")
app.add_typer(bench, name="bench")

# What our own checks raise, and what a file system or an optional package may answer.
EXPECTED = (ValueError, IndexError, ImportError, NotImplementedError, OSError)
UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # its module differs between versions

Dataset = Annotated[str, typer.Option(help="Name of the data set; an unknown one lists them all.")]
Root = Annotated[
    Path | None,
    typer.Option(help="Folder of the data sets. Default: the variable KGAT_DATA, else the user's cache."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting of the protocol, e.g. --set lr=0.01. May be repeated; an unknown "
        "key lists them all.",
    ),
]
Threads = Annotated[
    int | None, typer.Option(help="CPU threads of torch. Default: torch's own choice.", min=1)
]
Device = Annotated[str, typer.Option(help="Where to train: cpu, cuda, cuda:1, ...")]


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    # Read by main() from the arguments: it has to know also where parsing them fails.
    pass


@app.command()
def compare(
    dataset: Dataset = "digits",
    root: Root = None,
    models: Annotated[
        str,
        typer.Option(
            help="Models, separated by commas: gat and gatv2 (stock layers), any kernel (rbf, dot, "
            "spectral, ...), products (rbf*laplace), L^p magnitudes (rbf*l2, rbf*lp), arguments of a kernel "
            "(spectral[num_features=4]*l2), projections (rbf@separate, rbf*l2@shared_qk). An unknown "
            "one lists them all."
        ),
    ] = "gat,gatv2,dot,rbf,rbf*lp,spectral",
    seeds: Annotated[int, typer.Option(help="Number of seeds, counted from 0.", min=1)] = 5,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of results, figures and report. Default: runs/DATASET."),
    ] = None,
    overrides: Overrides = None,
    threads: Threads = None,
    device: Device = "cpu",
    rounds: Annotated[
        int, typer.Option(help="Rounds of the measurement of time and memory; 0: none.", min=0)
    ] = 20,
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Runs at once, each with its share of the CPU threads. Default: one per core, at most "
            "4, or 1 on a GPU.",
            min=1,
        ),
    ] = None,
    tune: Annotated[
        int,
        typer.Option(
            help="Settings that each model chooses from by validation nodes, the same for all; the first "
            "is the protocol. 0: nothing is tuned.",
            min=0,
        ),
    ] = 0,
    tune_seeds: Annotated[
        int, typer.Option(help="Seeds that each of these settings is trained with.", min=1)
    ] = 3,
) -> None:
    r"""Train models over several seeds and compare them with stock GAT.

    Results go to OUT/results.jsonl, one line per run; runs that are there already are not repeated.
    Prints a table and draws figures and a report beside the results.
    """
    from kgat.compare import compare as run_all
    from kgat.records import RESULTS, Interrupted

    settings = _settings(overrides)
    _use(threads, device)
    if jobs is None:
        jobs = 1 if device.startswith("cuda") else min(4, os.cpu_count() or 1)
    if jobs > 1 and threads is None:
        _use(max(1, (os.cpu_count() or 1) // jobs), device)
    try:
        records = run_all(
            dataset,
            _listed(models),
            seeds,
            out,
            root,
            settings,
            progress=True,
            device=device,
            rounds=rounds,
            jobs=jobs,
            tune=tune,
            tune_seeds=tune_seeds,
        )
    except Interrupted as interrupted:
        _say(f"kgat: {interrupted}")
        raise typer.Exit(130) from None
    folder = Path("runs") / records[-1]["dataset"] if out is None else out
    _print_tables(records)
    typer.echo(f"{folder / RESULTS}  {folder / 'report.html'}")


@app.command()
def train(
    dataset: Dataset = "digits",
    model: Annotated[str, typer.Option(help="The model, as in compare.")] = "rbf",
    seed: Annotated[int, typer.Option(help="Seed of split, weights and dropout.", min=0)] = 0,
    root: Root = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for model.pt and config.json. Default: nothing is written."),
    ] = None,
    overrides: Overrides = None,
    threads: Threads = None,
    device: Device = "cpu",
) -> None:
    r"""Train one model with one seed, and save it if asked to.

    kgat.training.restore(folder) builds it again.
    """
    from kgat import training
    from kgat.config import Config
    from kgat.datasets import load
    from kgat.records import METRICS
    from kgat.registry import resolve_model

    settings = _settings(overrides)
    found = resolve_model(model)
    for name in found.fixed:
        if name in settings:
            raise ValueError(
                f"Expected a kernel model that leaves '{name}' open because it is set (got '{found.name}'); "
                "leave it out for stock layers and for projections in a name"
            )
    _use(threads, device)
    task = load(dataset, root)
    config = Config.of(task.name, model, seed, settings)
    if out is not None:
        _make_folder(out)
    record, trained = training.train(task, config, device=device)
    if out is not None:
        training.save(out, trained, task, record)
    scores = ", ".join(f"{part} {record[part]:.1%}" for part in ("train", "val", "test"))
    typer.echo(
        f"{task.name}, {config.model}, seed {seed}, split {record['split']}: "
        f"{METRICS[task.metric]} {scores}; epoch {record['best_epoch']} of {record['epochs']}, "
        f"{record['seconds']:.1f} s, {record['parameters']} parameters"
    )
    if out is not None:
        typer.echo(f"{out / 'model.pt'}  {out / 'config.json'}")


@app.command()
def info(
    root: Root = None,
    warm: Annotated[
        bool, typer.Option("--warm", help="Compile fused attention for all kernels now, not at first use.")
    ] = False,
) -> None:
    r"""Show versions, devices, backends and where data are looked for."""
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from kgat import __version__, functional, kernels
    from kgat.datasets.files import resolve_root

    def line(name: str, value: object) -> None:
        typer.echo(f"{name:<16} {value}")

    line("kgat", __version__)
    line("python", sys.version.split()[0])
    for package in ("torch", "torch_geometric", "numba", "numpy", "scipy"):
        line(package, version(package))
    for package in ("ogb", "torch_scatter", "triton"):
        try:
            line(package, version(package))
        except PackageNotFoundError:
            line(package, "not installed (optional)")
    line("cpu", f"{torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            line(f"cuda:{index}", torch.cuda.get_device_name(index))
    else:
        line("cuda", "none")
    x = torch.zeros(2, 1, 4)
    gram = kernels.resolve("rbf", channels=4)(x, x)
    answers = functional.explain(gram, x, torch.tensor([[0], [1]]))
    line("backends", answers)
    line("segment sums", f"torch.segment_reduce ({_why_not_torch_scatter()})")
    folder = resolve_root(root)
    line("data root", f"{folder}{'' if folder.is_dir() else ' (made at the first download)'}")
    if warm:
        _warm()


def _warm() -> None:
    import torch
    from rich.progress import track

    from kgat import kernels
    from kgat.functional import edge_attention

    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.zeros(2, 1, 4, device=device, requires_grad=True)
    edge_index = torch.tensor([[0], [1]], device=device)
    makers = [kernels.resolve(name, channels=4) for name in kernels.names()]
    # A product of two rules takes the loops that a single one does not need.
    makers += [kernels.RBF(4) * kernels.Laplace(4)]
    for kernel in track(makers, "compiling"):
        gram = kernel.to(device)(x, x)
        if not gram.signed:
            edge_attention(gram, x, edge_index).sum().backward()


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
    from kgat.bench.layers import run

    def say(record: dict[str, Any]) -> None:
        middle, low, high = record["ratio"]
        note = "  (contended: do not trust it)" if record["contended"] else ""
        name = f"{record['size']}  {record['what']}, against {record['peer']}"
        typer.echo(f"{name:<70} {middle:6.2f}x  [{low:.2f}, {high:.2f}]{note}")

    _use(threads, "cpu")
    run(_listed(sizes), rounds, out, say)


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
    from kgat.bench.epoch import bench_epoch

    _use(threads, "cpu")
    for record in bench_epoch(dataset, root, rounds, out):
        middle, low, high = record["ratio"]
        note = "  (contended: do not trust it)" if record["contended"] else ""
        name = f"{record['dataset']}  {record['features']} features, against {record['peer']}"
        typer.echo(f"{name:<70} {middle:6.2f}x  [{low:.2f}, {high:.2f}]{note}")


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
    from kgat.bench.ops import Plan, run
    from kgat.records import Interrupted

    _use(None, device)
    plan = Plan(
        _listed(scenarios),
        _listed(subjects),
        _listed(rivals),
        device,
        threads,
        seconds,
        None if root is None else str(root),
    )
    try:
        found = run(plan, out, fresh=fresh, progress=True)
    except Interrupted as interrupted:
        _say(f"kgat: {interrupted}")
        raise typer.Exit(130) from None
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
    from kgat.bench import sequences
    from kgat.plots import png
    from kgat.records import write_atomically

    _use(None, device)
    try:
        tokens = [int(length) for length in _listed(lengths)]
    except ValueError:
        raise ValueError(f"Expected numbers of tokens (got '{lengths}'); e.g. 1024,2048") from None
    if figure is not None:
        figure.parent.mkdir(parents=True, exist_ok=True)
    bar = _bar()
    task = bar.add_task("", total=None)

    def done(record: dict[str, Any]) -> None:
        bar.update(task, advance=1, description=f"{record['subject']}, {record['length']:,} tokens")

    with bar:
        found = sequences.run(
            *(tokens, _listed(subjects), out), device=device, threads=threads, seconds=seconds, on_record=done
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
    from kgat.bench import report
    from kgat.pages import update_readme
    from kgat.plots import png
    from kgat.records import read, write_atomically

    records = read(results)
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


@app.command()
def plot(
    folder: Annotated[Path, typer.Argument(help="A folder with results.jsonl.")],
) -> None:
    r"""Draw the figures and report.html again, from the results alone."""
    from kgat.compare import draw
    from kgat.records import RESULTS, read

    results = folder / RESULTS
    if not results.is_file():
        raise FileNotFoundError(
            f"Expected results in '{folder}' (got no {RESULTS}); run: kgat compare --out {folder}"
        )
    records = read(results)
    _expect_runs(records, [folder])
    for path in draw(records, folder):
        typer.echo(path)


@app.command()
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
    from kgat import regression
    from kgat.pages import split_readme, update_readme
    from kgat.plots import fits, png
    from kgat.records import Interrupted, read, write_atomically

    _use(threads, "cpu")
    names, listed = list(dict.fromkeys(_listed(datasets))), regression.check_models(_listed(models))
    if not names:
        raise ValueError(
            f"Expected at least one data set (got none); choose from: {', '.join(regression.LOADERS)}"
        )
    setting = regression.Setting(epochs=epochs)
    path = out / "results.jsonl"
    problems = [regression.load(name) for name in names]
    if readme is not None:
        split_readme(readme, regression.BEGIN, regression.END)  # a wrong page is better known before training
    _make_folder(out)
    total = len(names) * len(listed) * seeds
    there = regression.finished(path, names, listed, seeds, setting)
    bar = _bar()
    task = bar.add_task("", total=total, completed=there)

    def done(record: dict[str, Any]) -> None:
        said = f"{record['dataset']}, {record['model']}, seed {record['seed']}"
        bar.update(task, advance=1, description=said)

    try:
        with bar:
            for problem in problems:
                regression.compare(problem, listed, seeds, path, setting, done)
    except KeyboardInterrupt:
        _say(f"kgat: {Interrupted(int(bar.tasks[task].completed), total, path)}")
        raise typer.Exit(130) from None
    records = regression.of_setting(read(path), setting)
    for name in names:
        figure = fits(records, name)
        if figure is not None:
            write_atomically(out / f"{name}-fits.png", png(figure))
    text = regression.table(records)
    if readme is not None:
        update_readme(readme, text, regression.BEGIN, regression.END)
    typer.echo(text)


@app.command()
def paper(
    name: Annotated[str, typer.Argument(help="dissection, banach, primal, fourier or implicit.")],
    root: Root = None,
    datasets: Annotated[
        str,
        typer.Option(
            "--datasets",
            help="Data sets of the paper, separated by commas; an unknown one lists them all. Default: all.",
        ),
    ] = "",
    variants: Annotated[
        str,
        typer.Option(
            help="Attentions of the paper, separated by commas; an unknown one lists them all. Default: all."
        ),
    ] = "",
    seeds: Annotated[int, typer.Option(help="Number of seeds, counted from 0.", min=1)] = 3,
    scale: Annotated[
        str, typer.Option(help="small: sizes for a CPU; full: sizes of the papers' code.")
    ] = "small",
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a setting of all data sets, e.g. --set epochs=5. May be repeated; an unknown key "
            "lists them all.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of results: NAME.jsonl.")] = Path("runs/sequences"),
    readme: Annotated[
        Path | None,
        typer.Option(
            help="A Markdown file: replace what stands between <!-- NAME:begin --> and <!-- NAME:end -->."
        ),
    ] = None,
    threads: Threads = None,
    device: Device = "cpu",
) -> None:
    r"""Compare the attentions of a paper on sequences: one transformer, nothing but the attention changes.

    Validation chooses the epoch, the test is read once. Results go to OUT/NAME.jsonl, one line per run; runs
    that are there already with the same setting are not repeated. Prints the table.
    """
    from kgat import sequences
    from kgat.pages import split_readme, update_readme
    from kgat.records import Interrupted

    changes = _settings(overrides)
    chosen = sequences.choose(sequences.resolve_paper(name), _listed(datasets), _listed(variants))
    if readme is not None:
        split_readme(readme, *sequences.markers(name))  # a wrong page is better known now than after hours
    settings = {
        dataset: sequences.settings_of(dataset, scale).with_changes(changes) for dataset in chosen.datasets
    }
    _use(threads, device)
    path = out / f"{name}.jsonl"
    given = (chosen.datasets, chosen.variants, settings, seeds, path)
    done = sequences.finished(path, chosen.datasets, chosen.variants, settings, seeds)
    there = Counter(dataset for dataset, *_ in done)
    of_one = len(chosen.variants) * seeds
    # Data that is not trained on any more need not be there to print a table.
    sequences.check([dataset for dataset in chosen.datasets if there[dataset] < of_one], root, settings)
    _make_folder(out)
    total = len(chosen.datasets) * of_one
    bar = _bar()
    task = bar.add_task("", total=total, completed=len(done))

    def on_epoch(dataset: str, variant: str, seed: int, epoch: int, score: float) -> None:
        said = f"{dataset}, {variant}, seed {seed}, epoch {epoch} of {settings[dataset].epochs}: {score:.4g}"
        bar.update(task, description=said)

    try:
        with bar:
            records = sequences.compare(
                *given,
                root,
                device=device,
                on_run=lambda _: bar.advance(task),
                on_epoch=on_epoch,
            )
    except KeyboardInterrupt:
        _say(f"kgat: {Interrupted(int(bar.tasks[task].completed), total, path)}")
        raise typer.Exit(130) from None
    text = sequences.table(records)
    if readme is not None:
        update_readme(readme, text, *sequences.markers(name))
    typer.echo(text)


@app.command()
def table(
    folders: Annotated[list[Path], typer.Argument(help="Folders with results.jsonl, or above such folders.")],
    readme: Annotated[
        Path | None,
        typer.Option(
            help="A Markdown file: replace what stands between <!-- results:begin --> and "
            "<!-- results:end -->."
        ),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown instead of tables for a terminal.")
    ] = False,
) -> None:
    r"""Print the tables of comparisons, or write them into a README."""
    from kgat.pages import update_readme
    from kgat.records import read
    from kgat.tables import readme_tables, result_files

    if readme is not None or markdown:
        text = readme_tables(*folders)
        if markdown:
            typer.echo(text)
        if readme is not None:
            changed = update_readme(readme, text)
            typer.echo(f"{readme}: {'results replaced' if changed else 'results are up to date'}")
        return
    records = [record for path in result_files(folders) for record in read(path)]
    _expect_runs(records, folders)
    _print_tables(records)


def main(arguments: list[str] | None = None) -> int:
    r"""Runs the command line; returns the exit code.

    What can go wrong for a user is one line on stderr and exit code 2; :obj:`--debug`, anywhere,
    shows the traceback.

    Args:
        arguments (list of str, optional): The arguments; those of the process if :obj:`None`.
            (default: :obj:`None`)
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"] or ["--help"]
    for stream in (sys.stdout, sys.stderr):
        # A terminal or a pipe without Unicode gets '?' for a sign rather than a traceback.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    stop, ignored = signal.signal(signal.SIGTERM, _interrupt), sys.unraisablehook
    sys.unraisablehook = _again(ignored)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return app(args=given, prog_name="kgat", standalone_mode=False) or 0
    except UsageError as error:
        if debug:
            raise
        _say(f"kgat: error: {_one_line(error.format_message())}")  # type: ignore[attr-defined]
        return 2
    except EXPECTED as error:
        if debug:
            raise
        _say(f"kgat: error: {_one_line(str(error) or type(error).__name__)}")
        return 2
    except (KeyboardInterrupt, typer.Abort):
        _say("kgat: interrupted")
        return 130
    finally:
        signal.signal(signal.SIGTERM, stop)
        sys.unraisablehook = ignored


def _again(ignored: Callable[[Any], Any]) -> Callable[[Any], Any]:
    # An interrupt that meets a finaliser or the callback of a weak reference is dropped there, and the work
    # would go on: it is sent once more, when that is over.
    def hook(dropped: Any) -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            threading.Timer(0.05, _thread.interrupt_main, (signal.SIGTERM,)).start()
        else:
            ignored(dropped)

    return hook


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    _say(f"kgat: warning: {_one_line(str(message))}")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _settings(overrides: list[str] | None) -> dict[str, str]:
    settings = {}
    for override in overrides or []:
        key, separator, value = override.partition("=")
        if not separator or not key.strip() or not value.strip():
            raise ValueError(f"Expected KEY=VALUE after --set (got '{override}'); e.g. lr=0.01")
        settings[key.strip()] = value.strip()
    return settings


def _use(threads: int | None, device: str) -> None:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    try:
        kind = torch.device(device).type
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
        has = "cpu, cuda" if torch.cuda.is_available() else "cpu"
        raise ValueError(f"Expected a device that is here (got '{device}'); choose from: {has}")


def _listed(names: str) -> list[str]:
    parts = re.split(r",(?![^\[\]]*\])", names)  # commas in brackets are between the arguments of a kernel
    return [name.strip() for name in parts if name.strip()]


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        *(BarColumn(bar_width=20), MofNCompleteColumn(), TimeRemainingColumn()),
        TextColumn("{task.description}"),
        console=Console(stderr=True),
    )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PermissionError(
            f"Expected a folder that can be written (got '{folder}': {error.strerror}); choose "
            "another with --out"
        ) from None


def _expect_runs(records: list[dict[str, Any]], folders: list[Path]) -> None:
    from kgat.tables import tables

    if not tables(records):
        shown = ", ".join(map(str, folders))
        raise FileNotFoundError(f"Expected runs in {shown} (got none); run: kgat compare --out {folders[0]}")


def _print_tables(records: list[dict[str, Any]]) -> None:
    from rich.console import Console

    from kgat.tables import rich_table, tables, tuning_line
    from kgat.tables import table as summarise

    console = Console()
    if not console.is_terminal:
        console.width = 120  # a file has no width: no line is broken for one
    for title, own in tables(records).items():
        runs = [record for record in own if record.get("kind") == "run"]
        console.print(rich_table(summarise(own), title, runs[0]["metric"]))
        if tuning_line(runs):
            console.print(tuning_line(runs), markup=False, highlight=False)


def _why_not_torch_scatter() -> str:
    from importlib.util import find_spec

    if find_spec("torch_scatter") is None:
        return "torch_scatter is not installed, and was measured slower"
    return "torch_scatter is installed but not used: it was measured slower, see kgat bench layers"


if __name__ == "__main__":
    sys.exit(main())
