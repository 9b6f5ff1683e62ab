r"""The laws of a backend: attention on the edges of small graphs, with all gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kgat import ops
from kgat.functional import edge_attention
from kgat.kernels.kernel import Kernel
from kgat.testing.law import fail, made_by, perturb, relative_error
from kgat.testing.rule import check_derivatives

# Targets, sources and edges (source, target).
Graph = tuple[int, int, list[tuple[int, int]]]
GRAPHS: dict[str, Graph] = {
    "an empty graph": (3, 2, []),
    "no targets": (0, 2, []),
    "a single node": (1, 1, [(0, 0)]),
    "a hub": (5, 30, [(j, 2) for j in range(30)] + [(0, 0)]),
    "duplicate edges": (2, 2, [(0, 1)] * 7 + [(1, 1), (1, 0)]),
    "a bipartite graph": (5, 7, [(6, 0), (5, 2), (0, 2), (6, 2), (3, 0), (2, 4), (1, 4)]),
}
FORMULA = "formula"


def check_backend(
    factory: Callable[[int, int], Kernel],
    backend: str = "cpu",
    channels: int = 5,
    heads: int = 3,
    *,
    seed: int = 0,
) -> None:
    r"""Checks that a backend computes, for one kernel, what the loops of the reference backend compute.

    On an empty graph, one without targets, a single node, a hub, duplicate edges and a bipartite graph with
    isolated targets, with edge biases, edge weights before and after normalisation and a base:

    * **value**, **gradient**: outputs and the gradients of queries, keys, values, all edge operands, the
      base and the kernel's parameters agree, in float64 to :math:`10^{-9}` and in float32 to its rounding;
    * **second gradient**: so do derivatives of the gradients, in float64;
    * **repeat**: a second run gives the same bits;
    * **derivatives**: those of its rules lie between the slopes to the left and to the right, at kinks, at
      equal arguments and far away, too.

    Args:
        factory (Callable): The class, a :func:`functools.partial` or function: called with
            ``(channels, heads)``.
        backend (str, optional): Its name. (default: :obj:`"cpu"`)
        channels (int, optional): Channels per head :math:`D`. (default: :obj:`5`)
        heads (int, optional): Number of heads :math:`H`. (default: :obj:`3`)
        seed (int, optional): Seed of all operands and parameters; the global generator is left as it was.
            (default: :obj:`0`)

    Raises:
        AssertionError: If a law fails; it names the law, the kernel, the graph and the numbers.
        NotImplementedError: If the backend cannot run the kernel, with the reasons.

    Example:
        >>> from kgat.kernels import RBF
        >>> from kgat.testing import check_backend
        >>> check_backend(RBF, "eager")
    """
    runs = [("reference", torch.float64), (backend, torch.float64), (backend, torch.float32)]
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        kernel = made_by(factory, channels, heads)
        for name, graph in GRAPHS.items():
            case = (graph, factory, channels, heads)
            results = [attention_on(*case, *run, seed, run[1] == torch.float64) for run in runs]
            again = [attention_on(*case, *run, seed, run[1] == torch.float64) for run in runs[1:]]
            for (_, dtype), result, repeated in zip(runs[1:], results[1:], again, strict=True):
                for law, value in result.items():
                    error = relative_error(value, results[0][law])
                    if not error <= (1e-9 if dtype == torch.float64 else 1e-3):
                        fail(kernel, law, f"on {name} {backend} in {dtype} is {error:.2g} off the reference")
                    if not torch.equal(value, repeated[law]):
                        fail(kernel, "repeat", f"on {name} two runs of {backend} differ in their {law}")
        check_derivatives(kernel, seed)


def attention_on(
    graph: Graph,
    factory: Callable[[int, int], Kernel],
    channels: int,
    heads: int,
    backend: str,
    dtype: torch.dtype,
    seed: int,
    second: bool = False,
) -> dict[str, Tensor]:
    r"""Returns what attention on the edges of a graph gives, and all of its gradients.

    Args:
        graph (tuple): Numbers of targets and sources, and the edges.
        factory (Callable): Makes the kernel; its parameters are moved.
        channels (int): Channels per head :math:`D`.
        heads (int): Number of heads :math:`H`.
        backend (str): The backend, or ``"formula"``, a softmax per target in ops of torch alone.
        dtype (torch.dtype): The precision of the computation; operands are drawn in single precision.
        seed (int): Seed of operands and parameters.
        second (bool, optional): Whether derivatives of the gradients are added. (default: :obj:`False`)
    """
    device = "cpu" if backend == FORMULA else ops.named(backend).device or "cpu"
    targets, sources, edges = graph
    torch.manual_seed(seed)
    kernel = factory(channels, heads)
    perturb(kernel)
    kernel = kernel.eval().to(device, dtype)
    edge_index = torch.tensor(edges, dtype=torch.long, device=device).view(-1, 2).t()
    shapes = {
        "query": (targets, heads, channels),
        "key": (sources, heads, channels),
        "value": (sources, heads, 4),
        "edge_bias": (len(edges), heads),
        "edge_log_weight": (len(edges), heads),
        "edge_weight": (len(edges), heads),
        "base": (targets, heads, 4),
    }
    x = {name: torch.randn(shape).to(device, dtype).requires_grad_() for name, shape in shapes.items()}
    gram = kernel(x["query"], x["key"])
    if backend == FORMULA:
        col, row = edge_index
        score = gram.at(row, col, x["edge_bias"]) + x["edge_log_weight"]
        out = _formula(score, x["value"][col], x["edge_weight"], row, x["base"])
    else:
        out = edge_attention(
            gram,
            x["value"],
            edge_index,
            edge_bias=x["edge_bias"],
            edge_log_weight=x["edge_log_weight"],
            edge_weight=x["edge_weight"],
            base=x["base"],
            backend=backend,
        )
    results = {"value": out}
    inputs = {**x, **dict(kernel.named_parameters())}
    slope = torch.linspace(-1, 1, max(out.numel(), 1), dtype=dtype, device=device)[: out.numel()]
    grads = _gradients((out * slope.view_as(out)).sum(), inputs, second)
    results |= {f"gradient of {name}": grad for name, grad in grads.items()}
    if second:
        total = torch.stack([grad.square().sum() for grad in grads.values()]).sum()
        grads = _gradients(total, inputs, False)
        results |= {f"second gradient of {name}": grad for name, grad in grads.items()}
    return {law: value.detach().cpu() for law, value in results.items()}


def _formula(score: Tensor, value: Tensor, weight: Tensor, row: Tensor, base: Tensor) -> Tensor:
    top = score.new_full(base.shape[:2], -torch.inf)
    top = top.scatter_reduce(0, row.unsqueeze(-1).expand_as(score), score.detach(), "amax")
    k = (score - top[row]).exp()
    alpha = k / torch.zeros_like(top).index_add(0, row, k)[row] * weight
    return base.index_add(0, row, alpha.unsqueeze(-1) * value)


def _gradients(total: Tensor, inputs: dict[str, Tensor], again: bool) -> dict[str, Tensor]:
    # Zeros where there is no way from one to the other: loops over nothing leave none.
    grads: tuple[Tensor | None, ...] = (None,) * len(inputs)
    if total.requires_grad:
        grads = torch.autograd.grad(total, list(inputs.values()), create_graph=again, allow_unused=True)
    return {
        name: torch.zeros_like(x) if grad is None else grad
        for (name, x), grad in zip(inputs.items(), grads, strict=True)
    }
