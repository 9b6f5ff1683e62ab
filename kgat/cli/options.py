r"""Options that several commands have, and how they are read."""

import dataclasses
import functools
import inspect
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from kgat.experiments.pages import markers

if TYPE_CHECKING:
    from kgat.datasets import Task


def changes(of: str, example: str) -> Any:
    r"""Returns the option that changes settings, as :func:`settings_of` reads them."""
    return typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help=f"Change a setting of {of}, e.g. --set {example}. May be repeated; an unknown key lists them "
        "all.",
    )


def some(what: str, more: str = "") -> Any:
    r"""Returns the option that chooses by name, as :func:`listed` reads it."""
    return typer.Option(help=f"{what}, separated by commas; an unknown one lists them all.{more}")


DATASET = "digits"
Dataset = Annotated[
    str | None,
    typer.Option(
        help="Name of the data set, of nodes or of whole graphs; NAME-links asks for the links of a graph; "
        "NAME-5-labels has 5 training nodes of each class, NAME-25-edges 25 % more edges, drawn at random, "
        "NAME-50-noise features with noise of 50 % of their deviation. "
        f"An unknown one lists them all. Default: {DATASET}."
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        help="What is scored: accuracy, f1_macro, roc_auc, rmse, mrr, hits@20, ...; an unknown one lists "
        "them all. Default: that of the data set."
    ),
]
Root = Annotated[
    Path | None,
    typer.Option(help="Folder of the data sets. Default: the variable KGAT_DATA, else the user's cache."),
]
Overrides = Annotated[list[str] | None, changes("the protocol", "lr=0.01")]
Protocol = Annotated[
    str | None,
    typer.Option(
        help="published: settings for stock GAT where papers report it: theirs, smaller ones, "
        "or ours where there are none (evidence/README.md). Default: ours. --set goes before both."
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(help="Nodes, graphs or links in a step, as --set batch_size=... Default: the protocol's."),
]
Neighbors = Annotated[
    str | None,
    typer.Option(
        help="Neighbours to draw for each layer of a step of nodes or links, e.g. 15,10; -1: all. "
        "Default: all. Needs --batch-size."
    ),
]
Seeds = Annotated[int, typer.Option(help="Number of seeds, counted from 0.", min=1)]
Rounds = Annotated[int, typer.Option(help="Rounds of the measurement of time and memory; 0: none.", min=0)]
Threads = Annotated[
    int | None, typer.Option(help="CPU threads of torch. Default: torch's own choice.", min=1)
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format", help="How to print tables: markdown, csv, latex or html. Default: for a terminal."
    ),
]
Figures = Annotated[
    str,
    typer.Option(
        "--format",
        help="How to write figures: png, svg or pdf, several with commas; those in report.html are PNG. "
        "Formats of tables are those of kgat table.",
    ),
]
Checkpoint = Annotated[
    str,
    typer.Option(
        "--checkpoint",
        help="How often a run writes its state into OUT, to go on from after a kill: seconds (30s), minutes "
        "(5m) or epochs (10); 0: never.",
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume/--no-resume",
        help="Whether a run that was stopped goes on from its checkpoint or begins anew; finished ones stay.",
    ),
]
Log = Annotated[
    str | None,
    typer.Option(
        help="Where losses and scores of all epochs go as well: tensorboard (into OUT/tensorboard) or wandb."
    ),
]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, ...")]


# --- A graph of one's own ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class OwnData:
    r"""The options that say what a graph of one's own is; those that are not given are left to
    :func:`kgat.datasets.read_graph`."""

    data: Annotated[
        Path | None,
        typer.Option(
            help="A graph of your own instead of --dataset: a folder with nodes.csv (id, label, every other "
            "column a feature) and edges.csv (source, target, every other column an edge feature), .tsv or "
            ".parquet alike; a .pt file of a PyG Data or HeteroData; GraphML, GEXF, GML; a list of edges "
            "(.edgelist) beside --nodes; .npz, or a folder of .npy; a table or points with --knn; a folder "
            "of kgat convert; several graphs: a folder of them, or with train, val, test (folders or .pt)."
        ),
    ] = None
    name: Annotated[str | None, typer.Option(help="What tables call --data. Default: that of the file.")] = (
        None
    )
    label: Annotated[
        str | None,
        typer.Option(
            help="Column that is to be predicted, several with commas; of a HeteroData a type of nodes, or "
            "type.attribute. Default: label, of arrays y. Empty values are unknown."
        ),
    ] = None
    kind: Annotated[
        str | None,
        typer.Option(
            help="What the labels are: multiclass, binary, multilabel or regression. Default: recognised, "
            "and said."
        ),
    ] = None
    split: Annotated[
        str | None,
        typer.Option(
            help="stratified or random draws 20 splits; column:NAME reads train, val, test from a column; "
            "files:FOLDER reads ids from train.txt, val.txt, test.txt. Default: the split that --data brings "
            "(masks, a column 'split'), else --time or --group, else stratified."
        ),
    ] = None
    time: Annotated[
        str | None,
        typer.Option(help="Column of times: train on the past. A given split that does not is refused."),
    ] = None
    group: Annotated[
        str | None,
        typer.Option(help="Column of groups that stay in one part. A given split that parts one is refused."),
    ] = None
    shares: Annotated[
        str | None,
        typer.Option(help="Shares for training and validation; the rest is for testing. Default: 0.6,0.2."),
    ] = None
    directed: Annotated[
        bool | None,
        typer.Option(
            "--directed/--undirected",
            help="Whether an edge counts in its direction alone. Default: as the file says, of tables "
            "undirected.",
        ),
    ] = None
    structure: Annotated[
        str | None,
        typer.Option(
            help="Features made of the edges, with commas: degree, walk:16, laplacian:8. They join the "
            "others."
        ),
    ] = None
    knn: Annotated[
        int | None,
        typer.Option(help="Of points without edges: join each to so many nearest neighbours.", min=1),
    ] = None
    nodes: Annotated[str | None, typer.Option(help="Table of nodes. Default: nodes.csv, .tsv, .parquet.")] = (
        None
    )
    edges: Annotated[str | None, typer.Option(help="Table of edges. Default: edges.csv, .tsv, .parquet.")] = (
        None
    )
    id: Annotated[str | None, typer.Option(help="Column of the ids of nodes. Default: id.")] = None
    edge_source: Annotated[
        str | None, typer.Option("--source", help="Column where an edge begins. Default: source.")
    ] = None
    edge_target: Annotated[
        str | None, typer.Option("--target", help="Column where an edge ends. Default: target.")
    ] = None
    drop: Annotated[str | None, typer.Option(help="Columns that are no features, separated by commas.")] = (
        None
    )
    categories: Annotated[
        str | None, typer.Option(help="Columns whose numbers are names, separated by commas.")
    ] = None
    fill: Annotated[
        bool | None,
        typer.Option(
            "--fill",
            help="Missing numbers are the mean of their column, missing texts no category. Default: refused.",
        ),
    ] = None
    standardize: Annotated[
        bool | None,
        typer.Option(
            "--standardize/--raw",
            help="Whether numbers of tables and points get mean 0 and deviation 1. Default: they do.",
        ),
    ] = None

    def named(self) -> dict[str, Any]:
        r"""Returns the options that are given, by name."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def task(self, dataset: str | None, metric: str | None = None) -> "str | Task":
        r"""Returns the name of a data set, or the graph of one's own, and says what was understood."""
        from kgat.cli.terminal import say
        from kgat.datasets import describe, read_graph

        given = self.named()
        path = given.pop("data", None)
        if path is None:
            if given:
                option = {"edge_source": "source", "edge_target": "target"}.get(
                    first := next(iter(given)), first
                )
                raise ValueError(f"Expected --data beside --{option} (got none); say which graph it is of")
            return dataset or DATASET
        if dataset is not None:
            raise ValueError(
                f"Expected either --dataset or --data (got '{dataset}' and '{path}'); leave one out"
            )
        for name in ("drop", "categories", "structure", "shares"):
            if name in given:
                given[name] = listed(given[name])
        task = read_graph(path, metric=metric, **given)
        if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun started the first
            say(describe(task))
        return task


def takes_data(command: Callable[..., None]) -> Callable[..., None]:
    r"""Gives a command the options of :class:`OwnData`, which it gets as its argument :obj:`own`."""
    hints = get_type_hints(OwnData, include_extras=True)
    fields = dataclasses.fields(OwnData)

    @functools.wraps(command)
    def called(**values: Any) -> None:
        own = OwnData(**{name: values.pop(name) for name in hints})
        command(**values, own=own)

    def parameter(field: dataclasses.Field[Any]) -> inspect.Parameter:
        kind = inspect.Parameter.KEYWORD_ONLY
        return inspect.Parameter(field.name, kind, default=field.default, annotation=hints[field.name])

    others = [p for p in inspect.signature(command).parameters.values() if p.name != "own"]
    before = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in others]
    parameters = [*before[:1], *map(parameter, fields), *before[1:]]
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {p.name: p.annotation for p in parameters}
    return called


def between(name: str) -> str:
    r"""Returns, for a help text, where on a page the tables of a name stand."""
    return f"between {' and '.join(markers(name))}"


def readme_option(name: str, overview: str | None = None) -> Any:
    r"""Returns the option that names a page with a table, or with the first of several tables alone."""
    text = f"A Markdown file: replace what stands {between(name)}"
    if overview is not None:
        text += f", or put the table of all data sets alone {between(overview)}"
    return typer.Option(help=f"{text}.")


def settings_of(
    overrides: list[str] | None, option: str = "--set", example: str = "lr=0.01", **named: Any
) -> dict[str, Any]:
    settings = {name: value for name, value in named.items() if value is not None}
    for override in overrides or []:
        key, separator, value = override.partition("=")
        if not separator or not key.strip() or not value.strip():
            raise ValueError(f"Expected KEY=VALUE after {option} (got '{override}'); e.g. {example}")
        settings[key.strip()] = value.strip()
    return settings


def protocol_of(protocol: str | None, dataset: str | None) -> dict[str, Any]:
    r"""Returns the settings of another protocol than ours."""
    from kgat.experiments.published import published
    from kgat.names import one_of

    if one_of("protocol", protocol, (None, "published")) is None:
        return {}
    return dict(published(dataset or DATASET).settings)


def set_threads(threads: int | None) -> None:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)


def check_device(device: str) -> None:
    import torch

    try:
        kind = torch.device(device).type
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
        has = "cpu, cuda" if torch.cuda.is_available() else "cpu"
        raise ValueError(f"Expected a device that is here (got '{device}'); choose from: {has}")


def listed(names: str) -> list[str]:
    # Commas in brackets are between the arguments of a kernel, in braces between the models of a family.
    parts = re.split(r",(?![^\[\]]*\])(?![^{}]*\})", names)
    given = [name.strip() for name in parts if name.strip()]
    if names.strip() and not given:  # nothing would mean all
        raise ValueError(f"Expected names separated by commas (got '{names}'); name some")
    return given
