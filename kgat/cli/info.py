r"""``kgat info``: versions, devices, backends; compiles ahead of time."""

import sys
from typing import Annotated

import typer

from kgat.cli import options
from kgat.cli.terminal import console

__all__ = ["info"]

ORDER = 30


def info(
    root: options.Root = None,
    warm: Annotated[
        bool, typer.Option("--warm", help="Compile fused attention for all kernels now, not at first use.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Compare all kernels on all backends here with float64; exit code 1 if one differs.",
        ),
    ] = False,
) -> None:
    r"""Show versions, devices, backends and where data are looked for; check what they compute."""
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from kgat import __version__, functional, kernels
    from kgat.datasets.files import resolve_root

    def line(name: str, value: object) -> None:
        typer.echo(f"{name:<16} {value}")

    line("kgat", __version__)
    line("python", sys.version.split()[0])
    for package in ("torch", "torch_geometric", "numba", "llvmlite", "numpy", "scipy"):
        line(package, version(package))
    for package in ("ogb", "triton"):
        try:
            line(package, version(package))
        except PackageNotFoundError:
            line(package, "not installed (optional)")
    line("cpu", f"{torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            line(f"cuda:{index}", torch.cuda.get_device_name(index))
    else:
        line("cuda", "none")
    x = torch.zeros(2, 1, 4)
    gram = kernels.resolve("rbf", channels=4)(x, x)
    answers = functional.explain(gram, x, torch.tensor([[0], [1]]))
    line("backends", answers)
    folder = resolve_root(root)
    line("data root", f"{folder}{'' if folder.is_dir() else ' (made at the first download)'}")
    if warm:
        _warm()
    if check and not _check():
        raise typer.Exit(1)


def _warm() -> None:
    import torch

    from kgat import kernels
    from kgat.experiments.progress import progress
    from kgat.functional import edge_attention

    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.zeros(2, 1, 4, device=device, requires_grad=True)
    edge_index = torch.tensor([[0], [1]], device=device)
    # A product of two rules takes the loops that a single one does not need.
    names = [*kernels.names(), "rbf*laplace"]
    with progress("compiling", len(names)) as bar:
        for name in names:
            kernel = kernels.resolve(name, channels=4)
            gram = kernel.to(device)(x, x)
            if not gram.signed:
                edge_attention(gram, x, edge_index).sum().backward()
            bar.count(1)


def _check() -> bool:
    import torch
    from rich.markup import escape
    from rich.table import Table

    from kgat.experiments.progress import progress
    from kgat.testing import installation

    table = Table("kernel", "backend", "float64", "float32", "", box=None, padding=(0, 2, 0, 0))
    outcomes = []
    with progress("", len(installation.checks())) as bar:
        for outcome in installation.check_installation():
            bar.count(1)
            bar.note(f"{outcome.kernel}, {outcome.backend}")
            outcomes.append(outcome)
            errors = [outcome.errors.get(dtype) for dtype in (torch.float64, torch.float32)]
            cells = ["–" if error is None else f"{error:.0e}" for error in errors]
            verdict = "ok" if outcome.errors else "not taken"
            said = f"DIFFERS: {outcome.wrong}" if outcome.wrong else verdict
            table.add_row(outcome.kernel, outcome.backend, *cells, escape(said))
    console().print(table)
    wrong = sum(bool(outcome.wrong) for outcome in outcomes)
    ran = sum(bool(outcome.errors) for outcome in outcomes)
    agreement = f"{wrong} differ from the formulas" if wrong else "all agree with the formulas"
    typer.echo(f"{ran} checks: {agreement}")
    return wrong == 0
