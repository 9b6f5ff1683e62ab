r"""Does this machine compute what the formulas say? Every kernel on every backend, against float64."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kgat import functional, kernels, ops
from kgat.kernels.kernel import Kernel

__all__ = ["Outcome", "check_installation", "checks"]

HEADS, CHANNELS, VALUES = 3, 5, 4
# Relative to the largest number of a result, or to 1 if that is larger.
TOLERANCE = {torch.float64: 1e-8, torch.float32: 2e-3}
DROPOUT = "dropout"

# Targets, sources and edges (source, target).
GRAPHS: dict[str, tuple[int, int, list[tuple[int, int]]]] = {
    "no edges": (3, 2, []),
    "one node": (1, 1, [(0, 0)]),
    "duplicate edges": (2, 2, [(0, 1)] * 7 + [(1, 1), (1, 0)]),
    "bipartite, isolated": (5, 7, [(6, 0), (5, 2), (0, 2), (6, 2), (3, 0), (2, 4), (1, 4)]),
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
    for graph, (targets, sources, edges) in GRAPHS.items():
        torch.manual_seed(1)
        kernel = kernels.resolve(name, channels=CHANNELS, heads=HEADS).eval()
        edge_index = torch.tensor(edges, dtype=torch.long).view(-1, 2).t()
        shapes = {
            "query": (targets, HEADS, CHANNELS),
            "key": (sources, HEADS, CHANNELS),
            "value": (sources, HEADS, VALUES),
            "edge_bias": (len(edges), HEADS),
            "edge_weight": (len(edges), HEADS),
        }
        x = {key: torch.randn(shape, dtype=torch.float64).float() for key, shape in shapes.items()}
        if kernel.double()(x["query"].double(), x["key"].double()).signed:
            return Outcome(name, backend, {})
        expected = _answer(kernel, x, edge_index, None, torch.float64)
        for dtype, tolerance in TOLERANCE.items():
            try:
                found = _answer(kernel, x, edge_index, backend, dtype)
            except NotImplementedError:
                return Outcome(name, backend, {})
            for what, value in found.items():
                error = _error(value, expected[what])
                errors[dtype] = max(errors.get(dtype, 0.0), error)
                if not error <= tolerance and not wrong:
                    kind = str(dtype).removeprefix("torch.")
                    wrong = f"{what}, {graph}, {kind}: {error:.1e} off"
    return Outcome(name, backend, errors, wrong)


def _answer(
    kernel: Kernel, x: dict[str, Tensor], edge_index: Tensor, backend: str | None, dtype: torch.dtype
) -> dict[str, Tensor]:
    r"""The output and all gradients: of a backend, or of the formula."""
    device = "cpu" if backend is None else ops.named(backend).device or "cpu"
    kernel = kernel.to(device, dtype)
    kernel.zero_grad()
    x = {key: value.to(device, dtype).requires_grad_() for key, value in x.items()}
    edge_index = edge_index.to(device)
    gram = kernel(x["query"], x["key"])
    if backend is None:
        out = _formula(gram.at(edge_index[1], edge_index[0], x["edge_bias"]), x, edge_index)
    else:
        out = functional.edge_attention(
            gram,
            x["value"],
            edge_index,
            edge_bias=x["edge_bias"],
            edge_weight=x["edge_weight"],
            backend=backend,
        )
    slope = torch.linspace(-1, 1, max(1, out.numel()), dtype=dtype, device=device)[: out.numel()]
    wanted = {**x, **dict(kernel.named_parameters())}
    total = (out * slope.view_as(out)).sum()
    grads: Sequence[Tensor | None] = [None] * len(wanted)
    if total.requires_grad:
        grads = torch.autograd.grad(total, list(wanted.values()), allow_unused=True)
    found = {"output": out.detach().cpu()}
    for (key, value), grad in zip(wanted.items(), grads, strict=True):
        found[f"gradient of {key}"] = (torch.zeros_like(value) if grad is None else grad).detach().cpu()
    return found


def _formula(score: Tensor, x: dict[str, Tensor], edge_index: Tensor) -> Tensor:
    # A softmax per target and head, in ops of torch alone.
    col, row = edge_index
    value, targets = x["value"], x["query"].size(0)
    top = torch.full((targets, HEADS), -math.inf, dtype=score.dtype)
    top = top.scatter_reduce(0, row.unsqueeze(-1).expand_as(score), score.detach(), "amax")
    k = (score - top[row]).exp()
    total = torch.zeros_like(top).index_add(0, row, k)
    alpha = k / total[row] * x["edge_weight"]
    out = torch.zeros(targets, HEADS, VALUES, dtype=score.dtype)
    return out.index_add(0, row, alpha.unsqueeze(-1) * value[col])


def _error(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return math.inf
    if found.numel() == 0:
        return 0.0
    error = (found.double() - expected).abs().max() / expected.abs().max().clamp_min(1.0)
    return float(error.nan_to_num(nan=math.inf))


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
