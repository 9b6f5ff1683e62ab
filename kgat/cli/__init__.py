r"""The command line: ``kgat compare | train | info | plot | regress | paper | table | bench``.

A command is a file of its own here, with a function (or a group of commands) of the file's name and
:obj:`ORDER`, its place in the help; one that keeps its results one by one also says :obj:`RESUMES = True`,
or, a group, the names of those that do, which is what an interrupt answers. The folder is searched for them;
commands import what they run only when they run.
"""

from typing import Any

from kgat.cli.start import main

__all__ = ["app", "main"]


def __getattr__(name: str) -> Any:
    # Looked up at first use: importing it takes a while, in which an interrupt has its answer already.
    if name == "app":
        from kgat.cli.program import app

        return app
    raise AttributeError(f"module 'kgat.cli' has no attribute '{name}'")
