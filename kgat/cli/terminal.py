r"""What commands say beside their results: notes on stderr and a progress bar."""

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["one_line", "progress_bar", "say"]


def say(text: str) -> None:
    typer.echo(text, err=True)


def one_line(text: str) -> str:
    return " ".join(text.split())


def progress_bar() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        *(BarColumn(bar_width=20), MofNCompleteColumn(), TimeRemainingColumn()),
        TextColumn("{task.description}", markup=False),
        console=Console(stderr=True),
    )
