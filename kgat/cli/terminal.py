r"""What commands say beside their results: notes on stderr."""

import typer

__all__ = ["one_line", "say"]


def say(text: str) -> None:
    typer.echo(text, err=True)


def one_line(text: str) -> str:
    return " ".join(text.split())
