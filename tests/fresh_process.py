r"""Programs in a process that has imported torch and kgat and has run nothing of them, which a fork is sooner
than a new interpreter."""

from contextlib import redirect_stdout
from io import StringIO

from kgat.experiments import processes


def run(code):
    r"""Returns what a program prints; raises what it raises."""
    return processes.alone(_run, code, threads=1)


def _run(code):
    with redirect_stdout(StringIO()) as out:
        exec(code, {"__name__": "program"})
    return out.getvalue()
