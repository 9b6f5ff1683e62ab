r"""``kgat predict``: what a trained model says of data that it was not trained on."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kgat.cli import options

__all__ = ["predict"]

ORDER = 22


def predict(
    model: Annotated[Path, typer.Option(help="Folder that kgat train --out wrote.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="The graph to predict on, as --data of kgat train takes it; of a model of whole graphs a "
            ".pt file of several, or a folder of such files. It becomes numbers as that of training did, and "
            "needs no labels."
        ),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="A data set by name instead. Default: that of training, if it has one.")
    ] = None,
    root: options.Root = None,
    output: Annotated[Path, typer.Option(help="File to write.")] = Path("predictions.csv"),
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also those of each class, label or link.")
    ] = False,
    pairs: Annotated[
        Path | None,
        typer.Option(
            help="Of a model of links: a table whose columns source and target name the pairs to score. "
            "Default: the test pairs of a data set by name."
        ),
    ] = None,
    nodes: Annotated[str | None, typer.Option(help="As of kgat train.")] = None,
    edges: Annotated[str | None, typer.Option(help="As of kgat train.")] = None,
    id: Annotated[str | None, typer.Option(help="Column of ids. Default: as in training.")] = None,
    edge_source: Annotated[
        str | None, typer.Option("--source", help="Column where an edge begins. Default: as in training.")
    ] = None,
    edge_target: Annotated[
        str | None, typer.Option("--target", help="Column where an edge ends. Default: as in training.")
    ] = None,
    drop: Annotated[
        str | None, typer.Option(help="Columns that training did not have, separated by commas.")
    ] = None,
    fill: Annotated[
        bool,
        typer.Option(
            "--fill",
            help="Missing numbers are the mean of training, missing texts no category. Else refused.",
        ),
    ] = False,
    threads: options.Threads = None,
    device: options.Device = "cpu",
) -> None:
    r"""Write the answers of a model of kgat train for new data, with the ids of its rows.

    Classes come by their names, values in the unit of the label. What training did to features is done
    again: the same columns, categories, means and deviations. Large graphs are answered for layer by layer.
    """
    from kgat.experiments.prediction import Trained

    options.set_threads(threads)
    options.check_device(device)
    where: dict[str, Any] = {
        **{"nodes": nodes, "edges": edges, "id": id, "edge_source": edge_source, "edge_target": edge_target},
        **{"drop": None if drop is None else options.listed(drop), "fill": fill or None},
    }
    given = {name: value for name, value in where.items() if value is not None}
    if data is not None and dataset is not None:
        raise ValueError(f"Expected either --data or --dataset (got '{data}' and '{dataset}'); leave one out")
    for name in given if data is None else ():
        raise ValueError(f"Expected --data beside --{name.removeprefix('edge_')} (got none); name the graph")
    trained = Trained.load(model, device)
    if pairs is not None and trained.level != "link":
        raise ValueError(
            f"Expected a model of links because of --pairs (got one of {trained.level}s); leave it out"
        )
    if data is None:
        answers = trained.on_dataset(dataset, root, pairs)
    else:
        answers = trained.on_data(data, pairs, **given)
    table = answers.table(probabilities)
    table.save(output)
    typer.echo(f"{output}: {len(table):,} rows of {', '.join(table.columns)}")
