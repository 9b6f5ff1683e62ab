r"""The program ``kgat``: its commands, and what it answers to a wrong call, a failure and an interrupt."""

import _thread
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Annotated, Any

import typer

from kgat.cli.bench import bench
from kgat.cli.compare import compare
from kgat.cli.info import info
from kgat.cli.paper import paper
from kgat.cli.plot import plot
from kgat.cli.regress import regress
from kgat.cli.table import table
from kgat.cli.terminal import one_line, say
from kgat.cli.train import train

__all__ = ["app", "main"]

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
    app.command()(command)
app.add_typer(bench, name="bench")


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    # Read by main() from the arguments: it has to know also where parsing them fails.
    pass


def main(arguments: list[str] | None = None) -> int:
    r"""Runs the command line; returns the exit code.

    What can go wrong for a user is one line on stderr and exit code 2; :obj:`--debug`, anywhere,
    shows the traceback.

    Args:
        arguments (list of str, optional): The arguments; those of the process if :obj:`None`.
            (default: :obj:`None`)
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"] or ["--help"]
    for stream in (sys.stdout, sys.stderr):
        # A terminal or a pipe without Unicode gets '?' for a sign rather than a traceback.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    stop, ignored = signal.signal(signal.SIGTERM, _interrupt), sys.unraisablehook
    sys.unraisablehook = _again(ignored)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return app(args=given, prog_name="kgat", standalone_mode=False) or 0
    except UsageError as error:
        if debug:
            raise
        say(f"kgat: error: {one_line(error.format_message())}")  # type: ignore[attr-defined]
        return 2
    except EXPECTED as error:
        if debug:
            raise
        say(f"kgat: error: {one_line(str(error) or type(error).__name__)}")
        return 2
    except (KeyboardInterrupt, typer.Abort):
        say("kgat: interrupted")
        return 130
    finally:
        signal.signal(signal.SIGTERM, stop)
        sys.unraisablehook = ignored


def _again(ignored: Callable[[Any], Any]) -> Callable[[Any], Any]:
    # An interrupt that meets a finaliser or the callback of a weak reference is dropped there, and the work
    # would go on: it is sent once more, when that is over.
    def hook(dropped: Any) -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            threading.Timer(0.05, _thread.interrupt_main, (signal.SIGTERM,)).start()
        else:
            ignored(dropped)

    return hook


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    say(f"kgat: warning: {one_line(str(message))}")
