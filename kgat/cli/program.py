r"""The program ``kgat``: its commands, and what it answers to a wrong call and a failure."""

import errno
import os
import re
import sys
import warnings
from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules
from typing import Annotated, Any

import typer

import kgat
from kgat.cli.terminal import one_line, say

__all__ = ["app", "run"]

# What our own checks raise, and what a file system or an optional package may answer.
EXPECTED = (ValueError, IndexError, ImportError, NotImplementedError, OSError)
UsageError: Any = typer.BadParameter.__mro__[1]  # its module differs between versions

app = typer.Typer(
    help="Attention whose score is a kernel, compared with stock graph attention.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version and end.")] = False,
) -> None:
    # Both are read from the arguments by run(): it has to know also where parsing them fails.
    processes, command = int(os.environ.get("WORLD_SIZE", "1")), context.invoked_subcommand
    if processes > 1 and command != "train":
        raise ValueError(
            f"Expected 'train' where torchrun started {processes} processes (got '{command}', which each of "
            "them would do anew); start it once, without torchrun"
        )


def add_commands(paths: list[str]) -> None:
    r"""Adds the commands of a folder: of every file that has a place in the help."""
    modules = [import_module(f"kgat.cli.{module.name}") for module in iter_modules(paths)]
    for module in sorted((m for m in modules if hasattr(m, "ORDER")), key=lambda module: module.ORDER):
        name = module.__name__.rpartition(".")[2]
        command = getattr(module, name)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)


add_commands([os.path.dirname(__file__)])


def run(arguments: list[str]) -> int:
    r"""Runs a command; returns the exit code."""
    debug = "--debug" in arguments
    asked = [argument for argument in arguments if argument != "--debug"] or ["--help"]
    if asked == ["--version"]:
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
            warnings.filterwarnings("ignore", ".torch.jit.script. is deprecated", FutureWarning)
            group = typer.main.get_command(app)
            # Not by calling it, which would take an interrupt for its own and drop what it has to say.
            with group.make_context("kgat", asked) as context:
                group.invoke(context)
            sys.stdout.flush()
            return 0
    except typer.Exit as end:
        sys.stdout.flush()
        return end.exit_code
    except BrokenPipeError:
        # Who reads our output has seen enough, as 'head' does. Python would flush once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except (UsageError, TypeError, *EXPECTED) as error:
        # A TypeError is a fault of the program, unless we say what was expected, as of a model by its path.
        if debug or (isinstance(error, TypeError) and not str(error).startswith("Expected ")):
            raise
        say(f"kgat: error: {one_line(_sentence(error))}")
        return 2


def _sentence(error: Exception) -> str:
    if isinstance(error, UsageError):
        return _nearest(error)
    # Every place that writes results names its file; this is for others, as a temporary folder or stdout.
    if isinstance(error, OSError) and error.errno == errno.ENOSPC and not str(error).startswith("Expected "):
        where = f" for '{error.filename}'" if error.filename else ""
        return (
            f"Expected room on the disk{where} (got: {error.strerror}); make room and run the same command "
            "again: it goes on where it stopped"
        )
    return str(error) or type(error).__name__


def _nearest(error: Any) -> str:
    # Of a command or an option that is not there, the one that is meant.
    text, context = error.format_message(), error.ctx
    wrong = re.match(r"No such (command|option):? '?([^' ]+)'?", text)
    if wrong is None or context is None:
        return str(text)
    kind, name = wrong.groups()
    if kind == "command":
        there = context.command.list_commands(context)
    else:
        there = [option for parameter in context.command.params for option in parameter.opts]
    near = "".join(f"did you mean '{one}'? " for one in get_close_matches(name, there, 1))
    return (
        f"Expected {'a command' if kind == 'command' else 'an option'} of '{context.command_path}' (got "
        f"'{name}'); {near}All are in: {context.command_path} --help"
    )


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    say(f"kgat: warning: {one_line(str(message))}")
