r"""``kgat compare``: models × seeds, then table, figures and report."""

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from kgat.cli import options
from kgat.cli.table import print_tables

__all__ = ["compare"]

ORDER = 10
RESUMES = True

# How each model is tuned before its runs.
Tune = Annotated[
    int,
    typer.Option(
        help="Settings that each model chooses from by validation nodes, the same for all; the first "
        "is the protocol. 0: nothing is tuned.",
        min=0,
    ),
]
TuneSeeds = Annotated[
    int, typer.Option(help="Seeds that each of these settings, or each trial, is trained with.", min=1)
]
Trials = Annotated[
    int,
    typer.Option(
        help="Settings that Optuna suggests for each model or family, by the validation nodes of earlier "
        "ones; the first is the protocol. 0: none.",
        min=0,
    ),
]
Search = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUES",
        help="What --trials search of a setting, a range or choices: --search lr=0.001..0.1 --search "
        "heads=1,4,8. May be repeated. Default: kgat/experiments/space.toml.",
    ),
]
Space = Annotated[Path | None, typer.Option(help="A file that replaces kgat/experiments/space.toml.")]
Prune = Annotated[
    bool,
    typer.Option(
        "--prune",
        help="End trials early that are worse on validation nodes than the median of the earlier ones.",
    ),
]


@options.takes_data
def compare(
    dataset: options.Dataset = None,
    root: options.Root = None,
    metric: options.Metric = None,
    models: Annotated[
        str,
        typer.Option(
            help="Models, separated by commas: gat and gatv2 (stock layers), mlp, gcn, sage, gin, pna, "
            "appnp, gcn2, supergat, transformer, sgformer and polynormer (of PyG), rgcn and hgt (of "
            "heterogeneous graphs), a module or kernel of one's own by path (mypkg.nets:MyNet[depth=3]), any "
            "kernel (rbf, dot, spectral, ...), products (rbf*laplace), L^p magnitudes (rbf*l2, rbf*lp), "
            "arguments of a kernel (spectral[num_features=4]*l2), projections (rbf@separate, "
            "rbf*l2@shared_qk), settings of one model alone (rbf@start=unit). An unknown one lists them all. "
            "With --trials also families, of which they choose one: kernel{rbf,dot}, or kernel alone for the "
            "usual ones."
        ),
    ] = "gat,gatv2,dot,rbf,rbf*lp,spectral",
    seeds: options.Seeds = 10,
    out: Annotated[
        Path | None, typer.Option(help="Folder of results, figures and report. Default: runs/DATASET.")
    ] = None,
    overrides: options.Overrides = None,
    protocol: options.Protocol = None,
    batch_size: options.BatchSize = None,
    neighbors: options.Neighbors = None,
    threads: options.Threads = None,
    device: options.Device = "cpu",
    rounds: options.Rounds = 20,
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Runs at once, each with its share of the CPU threads. Default: as many as cores, or "
            "--threads, and free memory allow; 1 on a GPU.",
            min=1,
        ),
    ] = None,
    tune: Tune = 0,
    tune_seeds: TuneSeeds = 3,
    trials: Trials = 0,
    search: Search = None,
    space: Space = None,
    prune: Prune = False,
    checkpoint: options.Checkpoint = "30s",
    resume: options.Resume = True,
    log: options.Log = None,
    formats: options.Figures = "png",
    *,
    own: options.OwnData,
) -> None:
    r"""Train models over several seeds and compare them with stock GAT.

    Results go to OUT/results.jsonl, one line per run; runs that are there already are not repeated.
    Prints a table and draws figures and a report beside the results.
    """
    _start_server(jobs, threads, device)
    from kgat.experiments.compare import compare as run_all
    from kgat.experiments.records import RESULTS

    settings = options.settings_of(overrides, batch_size=batch_size, neighbors=neighbors)
    settings = options.protocol_of(protocol, dataset) | settings
    options.set_threads(threads)
    options.check_device(device)
    if jobs is not None and jobs > 1 and threads is None:
        options.set_threads(max(1, (os.cpu_count() or 1) // jobs))
    records = run_all(
        *(own.task(dataset, metric), options.listed(models), seeds, out, root, settings),
        progress=True,
        device=device,
        rounds=rounds,
        jobs=jobs,
        tune=tune,
        tune_seeds=tune_seeds,
        trials=trials,
        search=options.settings_of(search, "--search", "lr=0.001..0.1"),
        space=space,
        prune=prune,
        metric=metric,
        checkpoint=checkpoint,
        resume=resume,
        log=log,
        formats=options.listed(formats),
    )
    folder = Path("runs") / records[-1]["dataset"] if out is None else out
    print_tables(records)
    typer.echo(f"{folder / RESULTS}  {folder / 'report.html'}")


def _start_server(jobs: int | None, threads: int | None, device: str) -> None:
    r"""Has the server of processes import what they need beside this one, where there will be several runs at
    once with a thread each, as far as can be told without torch."""
    if jobs == 1 or device.startswith("cuda"):
        return
    cores = os.cpu_count() or 1
    if jobs is None:
        told = re.match(r"\d+", os.environ.get("OMP_NUM_THREADS", ""))
        forks = (threads or (int(told[0]) if told else cores)) > 1
    else:
        forks = (threads or cores // jobs) <= 1
    if forks:
        from kgat.experiments.processes import start_server

        start_server()
