r"""What commands print on: a terminal or a file, and stderr for what is said beside results."""

from typing import TYPE_CHECKING

import typer

from kgat.moved import old_names

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["console", "one_line", "say"]


def console() -> "Console":
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = 120  # a file has no width: no line is broken for one
    return console


def say(text: str) -> None:
    typer.echo(text, err=True)


def one_line(text: str) -> str:
    return " ".join(text.split())


__getattr__ = old_names(__name__)
