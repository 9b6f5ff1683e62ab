r"""The program ``kgat``: its commands, and what it answers to a wrong call and a failure."""

import errno
import os
import sys
import warnings
from typing import Annotated, Any

import typer

import kgat
from kgat.cli.bench import bench
from kgat.cli.compare import compare
from kgat.cli.info import info
from kgat.cli.paper import paper
from kgat.cli.plot import plot
from kgat.cli.regress import regress
from kgat.cli.stop import stoppable
from kgat.cli.table import table
from kgat.cli.terminal import one_line, say
from kgat.cli.train import train

__all__ = ["app", "run"]

# What our own checks raise, and what a file system or an optional package may answer.
EXPECTED = (ValueError, IndexError, ImportError, NotImplementedError, OSError)
UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # its module differs between versions

app = typer.Typer(
    help="Attention whose score is a kernel, compared with stock graph attention.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (compare, train, info, plot, regress, paper, table):
    app.command()(stoppable(command))
app.add_typer(bench, name="bench")


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version and end.")] = False,
) -> None:
    # Both are read from the arguments by run(): it has to know also where parsing them fails.
    pass


def run(arguments: list[str]) -> int:
    r"""Runs a command; returns the exit code."""
    debug = "--debug" in arguments
    given = [argument for argument in arguments if argument != "--debug"] or ["--help"]
    if given == ["--version"]:
        typer.echo(f"kgat {kgat.__version__}")
        return 0
    for stream in (sys.stdout, sys.stderr):
        # A terminal or a pipe without Unicode gets '?' for a sign rather than a traceback.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            # They are for the developers of libraries, not for who runs a command.
            warnings.simplefilter("ignore", DeprecationWarning)
            code = app(args=given, prog_name="kgat", standalone_mode=False) or 0
            sys.stdout.flush()
            return code
    except BrokenPipeError:
        # Who reads our output has seen enough, as 'head' does. Python would flush once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except UsageError as error:
        if debug:
            raise
        say(f"kgat: error: {one_line(error.format_message())}")  # type: ignore[attr-defined]
        return 2
    except EXPECTED as error:
        if debug:
            raise
        say(f"kgat: error: {one_line(_sentence(error))}")
        return 2


def _sentence(error: Exception) -> str:
    # Every place that writes results names its file; this is for others, as a temporary folder or stdout.
    if isinstance(error, OSError) and error.errno == errno.ENOSPC and not str(error).startswith("Expected "):
        where = f" for '{error.filename}'" if error.filename else ""
        return (
            f"Expected room on the disk{where} (got: {error.strerror}); make room and run the same command "
            "again: it goes on where it stopped"
        )
    return str(error) or type(error).__name__


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    say(f"kgat: warning: {one_line(str(message))}")
