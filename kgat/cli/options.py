r"""Options that several commands have, and how they are read."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer


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


Dataset = Annotated[
    str,
    typer.Option(
        help="Name of the data set, of nodes or of whole graphs; NAME-links asks for the links of a graph. "
        "An unknown one lists them all."
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
BatchSize = Annotated[
    int | None,
    typer.Option(help="Nodes, graphs or links in a step, as --set batch_size=... Default: the protocol's."),
]
Neighbors = Annotated[
    str | None,
    typer.Option(
        help="Neighbours to draw for each layer of a step of nodes, e.g. 15,10; -1: all. Default: all. Needs "
        "--batch-size."
    ),
]
Seeds = Annotated[int, typer.Option(help="Number of seeds, counted from 0.", min=1)]
Threads = Annotated[
    int | None, typer.Option(help="CPU threads of torch. Default: torch's own choice.", min=1)
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format", help="How to print tables: markdown, csv, latex or html. Default: for a terminal."
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
Device = Annotated[str, typer.Option(help="Where to train: cpu, cuda, cuda:1, ...")]


def readme_option(name: str, overview: str | None = None) -> Any:
    r"""Returns the option that names a page with a table, or with the first of several tables alone."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    text = f"A Markdown file: replace what stands between {begin} and {end}"
    if overview is not None:
        text += (
            f", or put the table of all data sets alone between <!-- {overview}:begin --> and "
            f"<!-- {overview}:end -->"
        )
    return typer.Option(help=f"{text}.")


def settings_of(overrides: list[str] | None, **named: Any) -> dict[str, Any]:
    settings = {name: value for name, value in named.items() if value is not None}
    for override in overrides or []:
        key, separator, value = override.partition("=")
        if not separator or not key.strip() or not value.strip():
            raise ValueError(f"Expected KEY=VALUE after --set (got '{override}'); e.g. lr=0.01")
        settings[key.strip()] = value.strip()
    return settings


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
    parts = re.split(r",(?![^\[\]]*\])", names)  # commas in brackets are between the arguments of a kernel
    return [name.strip() for name in parts if name.strip()]


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PermissionError(
            f"Expected a folder that can be written (got '{folder}': {error.strerror}); choose "
            "another with --out"
        ) from None
