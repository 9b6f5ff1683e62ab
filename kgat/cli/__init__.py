r"""The command line: ``kgat compare | train | regress | paper | info | bench | plot | table``.

A command is a file of its own; commands import what they run only when they run.
"""

from typing import Any

from kgat.cli.stop import main

__all__ = ["app", "main"]


def __getattr__(name: str) -> Any:
    # Looked up at first use: importing it takes a while, in which an interrupt has its answer already.
    if name == "app":
        from kgat.cli.program import app

        return app
    raise AttributeError(f"module 'kgat.cli' has no attribute '{name}'")
