r"""``kgat compare``: models × seeds, then table, figures and report."""

import os
from pathlib import Path
from typing import Annotated

import typer

from kgat.cli import options
from kgat.cli.table import print_tables

__all__ = ["compare"]

ORDER = 10
RESUMES = True


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
            "rbf*l2@shared_qk). An unknown one lists them all."
        ),
    ] = "gat,gatv2,dot,rbf,rbf*lp,spectral",
    seeds: options.Seeds = 5,
    out: Annotated[
        Path | None, typer.Option(help="Folder of results, figures and report. Default: runs/DATASET.")
    ] = None,
    overrides: options.Overrides = None,
    batch_size: options.BatchSize = None,
    neighbors: options.Neighbors = None,
    threads: options.Threads = None,
    device: options.Device = "cpu",
    rounds: Annotated[
        int, typer.Option(help="Rounds of the measurement of time and memory; 0: none.", min=0)
    ] = 20,
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Runs at once, each with its share of the CPU threads. Default: as many as cores, or "
            "--threads, and free memory allow; 1 on a GPU.",
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
    from kgat.experiments.compare import compare as run_all
    from kgat.experiments.records import RESULTS

    settings = options.settings_of(overrides, batch_size=batch_size, neighbors=neighbors)
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
        metric=metric,
        checkpoint=checkpoint,
        resume=resume,
        log=log,
        formats=options.listed(formats),
    )
    folder = Path("runs") / records[-1]["dataset"] if out is None else out
    print_tables(records)
    typer.echo(f"{folder / RESULTS}  {folder / 'report.html'}")
