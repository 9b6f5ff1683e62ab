r"""Does this machine compute what the formulas say? Every kernel on every backend, against float64."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from kgat import functional, kernels, ops
from kgat.names import bare
from kgat.testing.backend import FORMULA, Graph, attention_on
from kgat.testing.backend import GRAPHS as SMALL
from kgat.testing.law import relative_error

__all__ = ["Outcome", "check_installation", "checks"]

HEADS, CHANNELS = 3, 5
# Relative to the largest number of a result, or to 1 if that is larger.
TOLERANCE = {torch.float64: 1e-8, torch.float32: 2e-3}
DROPOUT = "dropout"

GRAPHS: dict[str, Graph] = {
    **SMALL,
    "hubs": (
        40,
        600,
        [(j, 7) for j in range(600)] + [(j, 3) for j in range(20)] + [(5, i) for i in range(40)],
    ),
    "10,000 rows without edges": (10_002, 3, [(0, 0), (1, 0), (2, 10_001), (0, 10_001)]),
}


@dataclass(frozen=True)
class Outcome:
    r"""What one check found.

    Args:
        kernel (str): The kernel, or :obj:`"dropout"`.
        backend (str): The backend.
        errors (dict): The largest error by type of number; empty if the backend does not take the kernel.
        wrong (str): What differs and where; empty if nothing does.
    """

    kernel: str
    backend: str
    errors: dict[torch.dtype, float]
    wrong: str = ""


def checks(backends: Sequence[str] | None = None) -> list[tuple[str, str]]:
    r"""Returns what there is to check: pairs of a kernel, or :obj:`"dropout"`, and a backend of this machine.

    Args:
        backends (list of str, optional): Only these. (default: all that this machine has)
    """
    chosen = [name for name in ops.here() if backends is None or name in backends]
    return [(what, backend) for backend in chosen for what in (*kernels.names(), DROPOUT)]


def check_installation(backends: Sequence[str] | None = None) -> Iterator[Outcome]:
    r"""Compares values and all gradients of every built-in kernel on every backend of this machine with the
    formula in float64, on graphs of odd shapes, and the statistics of dropout with its rate.

    Args:
        backends (list of str, optional): Only these. (default: all that this machine has)

    Example:
        >>> outcomes = check_installation(["eager"])
        >>> next(outcomes).wrong
        ''
    """
    for what, backend in checks(backends):
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(0)
            yield _check_dropout(backend) if what == DROPOUT else _check_kernel(what, backend)


def _check_kernel(name: str, backend: str) -> Outcome:
    errors: dict[torch.dtype, float] = {}
    wrong = ""
    zero = torch.zeros(1, HEADS, CHANNELS)
    if kernels.resolve(name, CHANNELS, HEADS)(zero, zero).signed:
        return Outcome(name, backend, {})
    for graph, case in GRAPHS.items():
        which = (case, functools.partial(kernels.resolve, name), CHANNELS, HEADS)
        expected = attention_on(*which, FORMULA, torch.float64, seed=1)
        for dtype, tolerance in TOLERANCE.items():
            try:
                results = attention_on(*which, backend, dtype, seed=1)
            except NotImplementedError:
                return Outcome(name, backend, {})
            for law, value in results.items():
                error = relative_error(value, expected[law])
                errors[dtype] = max(errors.get(dtype, 0.0), error)
                if not error <= tolerance and not wrong:
                    what = "output" if law == "value" else law
                    wrong = f"{what}, {graph}, {bare(dtype)}: {error:.1e} off"
    return Outcome(name, backend, errors, wrong)


def _check_dropout(backend: str, p: float = 0.3) -> Outcome:
    r"""All scores equal and every value a unit vector: the output shows the mask."""
    device = ops.named(backend).device or "cpu"
    targets, sources = 120, 150
    edge_index = torch.cartesian_prod(torch.arange(sources), torch.arange(targets)).t().to(device)
    zero = torch.zeros(max(targets, sources), 1, CHANNELS, device=device)
    kernel = kernels.resolve("dot", channels=CHANNELS).to(device)
    value = torch.eye(sources, device=device).unsqueeze(1)
    out = functional.edge_attention(
        kernel(zero[:targets], zero[:sources]), value, edge_index, dropout=p, backend=backend
    )
    mask = sources * (1 - p) * out.squeeze(1).cpu().double()  # 0 or 1
    keep = float((mask > 0.5).double().mean())
    deviation = math.sqrt(p * (1 - p) / mask.numel())
    errors = {torch.float32: max(abs(keep - (1 - p)), float((mask - mask.round()).abs().max()))}
    wrong = ""
    if not abs(keep - (1 - p)) <= 5 * deviation:
        wrong = f"keeps {keep:.1%} of the weights, where {1 - p:.0%} are to be kept"
    elif not float((mask - (mask > 0.5).double()).abs().max()) <= TOLERANCE[torch.float32]:
        wrong = "weights that are kept are not divided by the share that is kept"
    else:
        # Means over targets and over sources, each with the spread of its own number of draws.
        for dim in (0, 1):
            spread = math.sqrt(p * (1 - p) / mask.size(dim))
            if float((mask.mean(dim) - (1 - p)).abs().max()) > 6 * spread:
                wrong = "the share that is kept differs between nodes"
    return Outcome(DROPOUT, backend, errors, wrong)
