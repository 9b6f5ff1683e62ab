r"""What ``kgat bench ops`` compares: our layers and attention cores, and what else computes the same.

A *subject* is one computation. Its *candidates* are ways to run it on the same tensors with the same weights:
``"ours"`` and the rivals. A layer goes from node features to node features; a core is what lies between the
projections and the bias, with queries, keys and values as its inputs.
"""

from __future__ import annotations

import copy
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch_geometric import seed_everything
from torch_geometric.nn import GATConv, GATv2Conv, TransformerConv
from torch_geometric.utils import scatter, softmax, to_torch_csr_tensor

from kgat import KernelGATConv, kernels
from kgat.experiments.bench import dense, xla
from kgat.experiments.bench.measure import Candidate, take_turns
from kgat.experiments.bench.scenarios import SEED, Graph, Scenario
from kgat.functional import edge_attention
from kgat.kernels import Kernel
from kgat.score.gram import Gram, LazyGram

OURS = "ours"
PYG = "PyG"
COMPILED = "compiled PyG"
DGL = "DGL"
STYLE = "PyG style"
COMPILED_STYLE = "compiled PyG style"
SEGMENTS = "compiled segments"
SDPA = "masked SDPA"
FLEX = "flex_attention"
XLA = "JAX segments"
TURBO = "turbo-gnn"
# PyG's layer on edges that come in rows, of which torch-scatter or pyg-lib make faster sums and softmaxes.
SPARSE_TENSOR = "PyG on SparseTensor"
PYG_LIB = "PyG with pyg-lib"
EXACT = "double precision"  # no rival: what is right where rivals differ by their rounding

Attend = Callable[[Gram, Tensor], Tensor]
Makers = dict[str, Callable[[], Candidate]]


@dataclass(frozen=True)
class Subject:
    r"""One computation that is measured.

    Args:
        name (str): Its name.
        kernel (str): The kernel of its score.
        candidates (tuple of str): The ways to run it, ours first.
        core (bool): Whether it is an attention core rather than a layer.
        options (dict, optional): Further arguments of the kernel. (default: :obj:`{}`)
    """

    name: str
    kernel: str
    candidates: tuple[str, ...]
    core: bool
    options: Mapping[str, Any] = field(default_factory=dict)


def _subjects() -> Iterable[Subject]:
    yield Subject("gat layer", "additive", (OURS, PYG, COMPILED, SPARSE_TENSOR, PYG_LIB, DGL), core=False)
    yield Subject("gatv2 layer", "additive_v2", (OURS, PYG, COMPILED), core=False)
    yield Subject("dot layer", "dot_product", (OURS, PYG, COMPILED, SDPA, FLEX), core=False)
    styles = (STYLE, COMPILED_STYLE)
    for kernel in ("spectral", "implicit_spectral"):
        yield Subject(f"{kernel.replace('_', ' ')} layer", kernel, (OURS, *styles), core=False)
    yield Subject("gat core", "additive", (OURS, *styles, SEGMENTS, XLA), core=True)
    yield Subject("dot core", "dot_product", (OURS, *styles, SEGMENTS, XLA, SDPA, FLEX, TURBO), core=True)
    yield Subject("rbf core", "rbf", (OURS, *styles, SDPA, FLEX), core=True)
    names = {"sinc_product": "sinc", "copula_spectral": "copula"}
    for kernel in ("laplace", "sinc_product", "spectral", "implicit_spectral", "copula_spectral"):
        name = names.get(kernel, kernel.replace("_", " "))
        yield Subject(f"{name} core", kernel, (OURS, *styles), core=True)
    squared = {"squared": True}  # which has a logarithm
    yield Subject("random fourier core", "random_fourier", (OURS, *styles), core=True, options=squared)


PACKAGES = {XLA: "jax", SPARSE_TENSOR: "torch_sparse", PYG_LIB: "pyg_lib"}
SUBJECTS = {subject.name: subject for subject in _subjects()}


def fits(name: str, scenario: Scenario) -> bool:
    r"""Returns whether a candidate is a way to run a scenario: all pairs of nodes are one of small graphs,
    and turbo-gnn has code for some widths."""
    if name == TURBO:
        return scenario.out_channels in (32, 64, 128, 256)
    return name not in (SDPA, FLEX) or scenario.graphs > 0


def not_here(name: str, device: str) -> str | None:
    r"""Returns why a candidate cannot run on this machine, as far as can be known ahead.

    Args:
        name (str): The name of the candidate.
        device (str): Where it would run.
    """
    cuda = device.startswith("cuda")
    if name == DGL:
        if find_spec("dgl") is None:
            return "dgl is not installed: see benchmarks/README.md"
        return "DGL as PyPI has it runs on CPUs" if cuda else None
    if name == TURBO:
        if not cuda:
            return "turbo-gnn runs on CUDA devices alone"
        return None if find_spec("turbo_gnn") else "turbo-gnn is not installed: see benchmarks/README.md"
    if name in PACKAGES and find_spec(PACKAGES[name]) is None:
        return f"{PACKAGES[name].replace('_', '-')} is not installed"
    if name == XLA and cuda:
        return "JAX is measured on CPUs"
    if name.startswith("compiled") or name == FLEX:
        if cuda:
            return None if find_spec("triton") else "torch.compile needs triton"
        compilers = filter(None, (os.environ.get("CXX"), "g++", "c++", "clang++", "cl"))
        return None if any(map(shutil.which, compilers)) else "torch.compile needs a C++ compiler"
    return None


def build(subject: Subject, scenario: Scenario, graph: Graph, names: Iterable[str]) -> dict[str, Candidate]:
    r"""Builds candidates on the same tensors and weights.

    Nothing is run, except that :data:`SEGMENTS` tries its formulations and keeps the faster one.

    Args:
        subject (Subject): What they compute.
        scenario (Scenario): Decides heads and channels.
        graph (Graph): The graph.
        names (list of str): Their names.
    """
    seed_everything(SEED)
    makers = (_core if subject.core else _layer)(subject, scenario, graph)
    return {name: makers[name]() for name in names}


def linear(scenario: Scenario, graph: Graph, subject: Subject) -> Candidate:
    r"""The projections of a layer alone: no layer can be faster, and they show whether the machine drifts.

    Args:
        scenario (Scenario): Decides the width.
        graph (Graph): Holds the features.
        subject (Subject): Decides how many projections there are: one for GAT, two for GATv2 and four for
            dot-product attention (query, key, value and skip), one for the others and for cores.
    """
    count = 1 if subject.core else {"additive_v2": 2, "dot_product": 4}.get(subject.kernel, 1)
    # As one product, of which there is no copy to be made.
    lin = torch.nn.Linear(graph.x.size(1), count * scenario.heads * scenario.out_channels).to(graph.x.device)
    return Candidate(lin, (graph.x.detach().requires_grad_(),), tuple(lin.parameters()))


def features(subject: Subject, scenario: Scenario) -> int:
    r"""Returns how many lifted numbers :math:`R` of a key the kernel of a subject reads per edge and head."""
    x = torch.zeros(1, scenario.heads, scenario.out_channels)
    gram = _kernel(subject, scenario)(x, x)
    assert isinstance(gram, LazyGram)
    return sum(term.key.size(-1) for term in gram.terms) + (gram.key_bias is not None)


# --- Layers -----------------------------------------------------------------------------------------------


def layers(
    kernel: str, shape: tuple[int, int, int], add_self_loops: bool
) -> tuple[torch.nn.Module, KernelGATConv]:
    r"""Returns PyG's layer of a kernel and the one of ours that computes the same, with the same weights.

    Args:
        kernel (str): ``"additive"``, ``"additive_v2"`` or ``"dot_product"``.
        shape (tuple): Channels in and out, and heads.
        add_self_loops (bool): Whether they add loops, where PyG's can.
    """
    stock: torch.nn.Module
    if kernel == "additive":
        stock = GATConv(*shape, add_self_loops=add_self_loops)
        return stock, KernelGATConv.from_gat(stock)
    if kernel == "additive_v2":
        stock = GATv2Conv(*shape, add_self_loops=add_self_loops)
        more: dict[str, Any] = {"projections": "shared_kv", "add_self_loops": add_self_loops}
    else:
        stock = TransformerConv(*shape)
        more = {"projections": "separate", "residual": True, "add_self_loops": False}
    ours = KernelGATConv(*shape, kernel=kernel, projection_bias=True, **more)
    ours.load_state_dict(stock.state_dict())
    return stock, ours


def _layer(subject: Subject, scenario: Scenario, graph: Graph) -> Makers:
    shape = (graph.x.size(1), scenario.out_channels, scenario.heads)
    stock: Any = None
    # The graphs have their loops: nobody is timed at adding them.
    if PYG in subject.candidates:
        stock, ours = layers(subject.kernel, shape, add_self_loops=False)
    else:
        kernel = _kernel(subject, scenario)
        ours = KernelGATConv(*shape, kernel=kernel, add_self_loops=False).eval()
    x = graph.x.detach().requires_grad_()
    device, edge_index = x.device, graph.edge_index

    def of(layer: torch.nn.Module, edges: Any = edge_index, call: torch.nn.Module | None = None) -> Candidate:
        layer = layer.to(device)
        run = layer if call is None else call
        weights = tuple(layer.parameters())
        return Candidate(lambda x: run(x, edges), (x,), weights, buffers=tuple(layer.buffers()))

    def styled(attend: Attend, compiled: bool = False) -> Candidate:
        layer = ours.to(device)

        def function(x: Tensor) -> Tensor:
            query, key, value = layer.project(x, None)
            return layer._add_base(attend(layer.kernel(query, key), value).flatten(1), x)

        run = torch.compile(function, dynamic=False) if compiled else function
        return Candidate(run, (x,), tuple(layer.parameters()))

    def exact() -> Candidate:
        layer = copy.deepcopy(ours).to(device).double()
        layer.backend = "eager"
        x = graph.x.detach().double().requires_grad_()
        return Candidate(lambda x: layer(x, edge_index), (x,), tuple(layer.parameters()))

    return {
        **_in_style(styled, scenario, graph),
        OURS: lambda: of(ours),
        EXACT: exact,
        PYG: lambda: of(stock),
        COMPILED: lambda: of(stock, call=torch.compile(stock, dynamic=False)),  # type: ignore[arg-type]
        SPARSE_TENSOR: lambda: of(stock, _sparse_tensor(edge_index, x.size(0))),
        PYG_LIB: lambda: of(stock, _rows(edge_index, x.size(0))),
        DGL: lambda: _dgl(stock, x, edge_index),
    }


def _rows(edge_index: Tensor, nodes: int) -> Tensor:
    # They are sorted, and those that are there twice stay: what is called coalesced is not looked at.
    return to_torch_csr_tensor(edge_index.flip(0), size=(nodes, nodes), is_coalesced=True)


def _sparse_tensor(edge_index: Tensor, nodes: int) -> Any:
    from torch_sparse import SparseTensor

    return SparseTensor(row=edge_index[1], col=edge_index[0], sparse_sizes=(nodes, nodes), is_sorted=True)


def _dgl(stock: Any, x: Tensor, edge_index: Tensor) -> Candidate:
    import dgl

    graph = dgl.graph((edge_index[0], edge_index[1]), num_nodes=x.size(0))
    graph.create_formats_()  # sorted once, outside of what is timed, as ours is
    heads, channels = stock.heads, stock.out_channels
    layer = dgl.nn.GATConv(x.size(1), channels, heads, allow_zero_in_degree=True)
    with torch.no_grad():
        layer.fc.weight.copy_(stock.lin.weight)
        layer.attn_l.copy_(stock.att_src)
        layer.attn_r.copy_(stock.att_dst)
        layer.bias.copy_(stock.bias)
    return Candidate(lambda x: layer(graph, x).flatten(1), (x,), tuple(layer.parameters()))


# --- Cores ------------------------------------------------------------------------------------------------


def _kernel(subject: Subject, scenario: Scenario) -> Kernel:
    # In evaluation, where nothing is drawn that would have to be the same for all; it costs the same.
    return kernels.resolve(subject.kernel, scenario.out_channels, scenario.heads, **subject.options).eval()


def _core(subject: Subject, scenario: Scenario, graph: Graph) -> Makers:
    device, edge_index = graph.x.device, graph.edge_index
    col, row = edge_index
    nodes = graph.x.size(0)
    kernel = _kernel(subject, scenario).to(device)
    # GAT has one projection for queries, keys and values; the other kernels get three.
    count = 1 if subject.kernel == "additive" else 3
    generator = torch.Generator().manual_seed(SEED)
    shape = (nodes, scenario.heads, scenario.out_channels)
    inputs = tuple(torch.randn(shape, generator=generator).to(device).requires_grad_() for _ in range(count))

    def core(
        attend: Attend, compiled: bool = False, note: str | None = None, kernel: Kernel = kernel
    ) -> Candidate:
        def function(*inputs: Tensor) -> Tensor:
            query, key, value = inputs * 3 if count == 1 else inputs
            return attend(kernel(query, key), value).flatten(1)

        run = torch.compile(function, dynamic=False) if compiled else function
        return Candidate(run, inputs, tuple(kernel.parameters()), note, tuple(kernel.buffers()))

    def exact() -> Candidate:
        one = core(
            lambda gram, value: edge_attention(gram, value, edge_index, backend="eager"),
            kernel=copy.deepcopy(kernel).double(),
        )
        return replace(one, inputs=tuple(x.detach().double().requires_grad_() for x in inputs))

    def segments() -> Candidate:
        attends = {name: _segments(row, col, make(row, nodes)) for name, make in FORMULATIONS.items()}
        return fastest({name: core(attend, True, name) for name, attend in attends.items()})

    return {
        **_in_style(core, scenario, graph),
        OURS: lambda: core(lambda gram, value: edge_attention(gram, value, edge_index)),
        EXACT: exact,
        SEGMENTS: segments,
        XLA: lambda: xla.segments(kernel, edge_index, inputs),
        TURBO: lambda: _turbo(edge_index, kernel, inputs),
    }


def _turbo(edge_index: Tensor, kernel: Kernel, inputs: tuple[Tensor, ...]) -> Candidate:
    from turbo_gnn import graph_transformer_aggr
    from turbo_gnn.graph import AdjacencyForwardBackwardWithNodeBuckets

    buckets = AdjacencyForwardBackwardWithNodeBuckets.from_edge_list(
        edge_index, inputs[0].size(0), quantile=0.95, index_dtype=torch.int32
    ).to(edge_index.device)

    def function(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        # What it gathers it calls Q, and K what a node has once.
        return graph_transformer_aggr(buckets, value, key, query, value, kernel.channels**-0.5).flatten(1)

    return Candidate(function, inputs, tuple(kernel.parameters()))


def _in_style(make: Callable[..., Candidate], scenario: Scenario, graph: Graph) -> Makers:
    # Ways to attend that a layer and a core have in common.
    col, row = edge_index = graph.edge_index
    nodes = graph.x.size(0)

    def style(gram: Gram, value: Tensor) -> Tensor:
        alpha = softmax(gram.at(row, col), row, num_nodes=nodes)
        message = alpha.unsqueeze(-1) * value.index_select(0, col)
        return scatter(message, row, dim=0, dim_size=nodes, reduce="sum")

    return {
        STYLE: lambda: make(style),
        COMPILED_STYLE: lambda: make(style, True),
        SDPA: lambda: make(dense.sdpa(edge_index, nodes, scenario.graphs)),
        FLEX: lambda: make(dense.flex(edge_index, nodes, scenario.graphs)),
    }


# --- The toughest rival: a segment formulation, compiled ---------------------------------------------------


Reduce = Callable[[Tensor, str], Tensor]


def _index_add(row: Tensor, nodes: int) -> Reduce:
    def reduce(x: Tensor, how: str) -> Tensor:
        if how == "sum":
            return x.new_zeros(nodes, *x.shape[1:]).index_add(0, row, x)
        spread = row.unsqueeze(-1).expand_as(x)
        return x.new_full((nodes, x.size(1)), -torch.inf).scatter_reduce(0, spread, x, "amax")

    return reduce


def _segment_reduce(row: Tensor, nodes: int) -> Reduce:
    # Edges are sorted by target: segments are sums over rows that stand together.
    pointer = torch.searchsorted(row, torch.arange(nodes + 1, device=row.device))
    return lambda x, how: torch.segment_reduce(x, how, offsets=pointer, unsafe=True)


FORMULATIONS = {"index_add": _index_add, "segment_reduce": _segment_reduce}


def _segments(row: Tensor, col: Tensor, reduce: Reduce) -> Attend:
    # Normalises nodes rather than edges, so that the compiler can fuse gather, weight and sum into one loop.
    def attend(gram: Gram, value: Tensor) -> Tensor:
        score = gram.at(row, col)  # [E, H]
        weight = (score - reduce(score.detach(), "max").index_select(0, row)).exp()
        out = reduce(weight.unsqueeze(-1) * value.index_select(0, col), "sum")
        return out / reduce(weight, "sum").unsqueeze(-1)

    return attend


def fastest(candidates: dict[str, Candidate], rounds: int = 2) -> Candidate:
    r"""Compiles candidates by running them and returns the one with the fastest forward and backward.

    Args:
        candidates (dict): By name.
        rounds (int, optional): How often each is timed after its first call. (default: :obj:`2`)

    Raises:
        RuntimeError: If none of them runs.
    """
    seconds: dict[str, float] = {}
    failures: list[Exception] = []
    for name, candidate in candidates.items():
        try:
            grad = torch.ones_like(candidate.forward())
            steps = {name: partial(candidate.forward_and_backward, grad)}
            times = take_turns(steps, candidate.clear, math.inf, str(grad.device), 1 + rounds)
            seconds[name] = min(times[name][1:])
        except (RuntimeError, MemoryError) as error:
            failures.append(error)
        candidate.clear()
    if not seconds:
        raise failures[-1]
    return candidates[min(seconds, key=lambda name: seconds[name])]
