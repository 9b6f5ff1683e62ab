r"""The command line: ``kgat compare | train | regress | paper | info | bench | plot | table``.

A command is a file of its own; commands import what they run only when they run.
"""

from kgat.cli.program import app, main

__all__ = ["app", "main"]
