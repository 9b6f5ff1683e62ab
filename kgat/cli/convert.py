r"""``kgat convert``: a graph as memory-mapped files."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from kgat.cli import options

__all__ = ["convert"]

ORDER = 25


@options.takes_data
def convert(
    dataset: options.Dataset = None,
    root: options.Root = None,
    metric: options.Metric = None,
    arrays: Annotated[
        Path | None,
        typer.Option(
            help="A folder of arrays that need not fit into memory, read in pieces: edges.npy (or .parquet, "
            ".csv, .tsv, .txt) with nodes as numbers from 0, x.npy, y.npy, and train.npy, val.npy, test.npy "
            "if there is a split. Takes --name, --kind and --undirected."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write. Default: that of --arrays, or the name, with -mapped."),
    ] = None,
    *,
    own: options.OwnData,
) -> None:
    r"""Write a graph as a folder of memory-mapped arrays, for training on more than memory holds.

    kgat train --data FOLDER --batch-size 1024 --neighbors 15,10 trains on it; processes of a machine share
    it. The folder is there when it is whole: after Ctrl-C or a failure there is none.
    """
    from kgat.datasets import convert_arrays, load, load_mapped, save_mapped

    if arrays is not None:
        given = own.named()
        for name in [*(given.keys() - {"name", "kind", "directed"}), *(["dataset"] if dataset else [])]:
            raise ValueError(f"Expected no --{name} beside --arrays (got one); leave one of the two out")
        out = out or arrays.with_name(f"{arrays.resolve().name}-mapped")
        convert_arrays(
            *(arrays, out),
            name=own.name,
            kind=own.kind,
            metric=metric,
            undirected=own.directed is False,
            progress_bar=sys.stderr.isatty(),
        )
        task = load_mapped(out)
    else:
        named = own.task(dataset, metric)
        task = load(named, root, metric=metric) if isinstance(named, str) else named
        if task.level != "node":
            raise ValueError(
                f"Expected a task on the nodes of one graph (got '{task.name}', on {task.level}s); train on "
                "it in memory, by its name"
            )
        out = out or Path(f"{task.name}-mapped")
        save_mapped(out, task)
    nodes, channels = task.data.x.shape
    edges = task.data.edge_index.size(1)
    typer.echo(
        f"{out}: {nodes:,} nodes with {channels} features, {edges:,} edges by target; for training: kgat "
        f"train --data {out} --batch-size 1024 --neighbors 15,10"
    )
