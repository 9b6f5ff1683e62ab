r"""The fused pass on GPUs, in Triton: see :mod:`kgat.ops.recipe` for what it computes.

Light nodes share programs, heavy nodes are cut into parts that are joined in order. Nothing is of the size of
edges times channels, and there are no atomics: results are the same bit for bit in every run. Triton is
imported by the first call, not with this module.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from kgat.ops.graph.adjacency import Adjacency
from kgat.ops.recipe import BackendError, Gradients, Operands, Recipe
from kgat.score.scalar import translate

NAME = "gpu"

GRADIENTS = tuple(field.name for field in fields(Gradients))
OF_TARGETS = ("query", "query_bias", "weight")  # sums over the edges of targets; of the others, of sources

LIGHT = 8  # Nodes of at most so many edges are packed: a block of edges of their own would be half empty.
HEAVY = 512  # Nodes of more edges are cut into parts of so many: a hub would outlast all other programs.
TILE = 2048  # Bytes of edges times features in a block: what one warp holds and still leaves room for others.
MERGED = 32  # Parts of a heavy node that are joined at a time.
WEIGHT_LANES = 4096  # Rows of partial sums of the weight's gradient.


def available() -> str | None:
    r"""Says why kernels cannot run here; :obj:`None` if they can."""
    if importlib.util.find_spec("triton") is None:
        return "needs triton"
    if os.environ.get("TRITON_INTERPRET") == "1" or torch.cuda.is_available():
        return None
    return "needs a CUDA device"


def attention(recipe: Recipe, adjacency: Adjacency, operands: Operands) -> tuple[Tensor, Tensor]:
    r"""Runs the forward pass.

    Args:
        recipe (Recipe): What to compute.
        adjacency (Adjacency): The edges.
        operands (Operands): The tensors.

    Shapes:
        - **output:** :math:`(N, H, C)` in the type of the value, and the log-sum-exp of the scores,
          :math:`(N, H)`; both are 0 for rows without edges and for rows whose scores are all :math:`-\infty`
    """
    from kgat.ops.gpu import loops as gpu_kernels

    x, value = operands, operands.value
    size = _Sizes.of(adjacency, operands)
    out = size.new(value, size.targets, size.heads, size.channels)
    lse = size.new(x.link_args, size.targets, size.heads)
    if size.empty:
        return out, lse
    inputs = {**_inputs(recipe, adjacency, x), **_pair(recipe, lse.dtype), **_link(recipe, lse.dtype)}
    partition = _partition(adjacency, adjacency.rowptr)
    out_parts, lse_parts = partition.parts(lse, size.heads, size.channels), partition.parts(lse, size.heads)
    for table, light in partition.tables():
        block, warps = size.block(light)
        lanes = len(table) * size.heads
        _launch(
            gpu_kernels.attend,
            _ceil(lanes, block["LANES"]),
            warps,
            table=table,
            lanes=lanes,
            col=adjacency.col,
            out=out,
            lse=lse,
            out_parts=None if light else out_parts,
            lse_parts=None if light else lse_parts,
            **inputs,
            **block,
        )
    _merge(partition, out_parts, out, lse_parts, lse)
    return out, lse


def attention_backward(
    recipe: Recipe, adjacency: Adjacency, operands: Operands, out: Tensor, lse: Tensor, grad: Tensor
) -> Gradients:
    r"""Runs the backward pass of :func:`attention`, from its results and the gradient of ``out``.

    Args:
        recipe (Recipe): What was computed.
        adjacency (Adjacency): The edges.
        operands (Operands): The tensors.
        out (torch.Tensor): The first result.
        lse (torch.Tensor): The second result.
        grad (torch.Tensor): The gradient of the first.
    """
    from kgat.ops.gpu import loops as gpu_kernels

    x = operands
    size = _Sizes.of(adjacency, operands)
    operand = {name: getattr(x, name) for name in GRADIENTS}
    made = {name: size.new(tensor) for name, tensor in operand.items() if tensor is not None}
    if size.empty:
        return Gradients(**made)
    out, lse, grad = out.contiguous(), lse.contiguous(), grad.contiguous()
    mean = torch.empty_like(lse)
    block_c = _power(size.channels)
    row_lanes = max(1, 2 * TILE // block_c)
    _launch(
        gpu_kernels.dot_rows,
        _ceil(lse.numel(), row_lanes),
        4,
        x=grad,
        y=out,
        out=mean,
        rows=lse.numel(),
        SIZE=size.channels,
        BLOCK=block_c,
        LANES=row_lanes,
    )
    total = lse.new_empty(adjacency.num_edges, size.heads)
    results = {f"d_{name}": made.get(name) for name in GRADIENTS if name not in OF_TARGETS}
    inputs = {
        **_inputs(recipe, adjacency, x),
        **_pair(recipe, lse.dtype, True),
        **_link(recipe, lse.dtype, True),
    }
    _by_source(adjacency, size, results, {**inputs, "lse": lse, "grad": grad, "mean": mean}, total)
    weight = _by_target(adjacency, size, made.get("query"), made.get("query_bias"), inputs, total)
    return Gradients(**made | ({} if weight is None else {"weight": weight}))


def score(recipe: Recipe, adjacency: Adjacency, operands: Operands) -> Tensor:
    r"""Computes the sums :math:`t_e` of the pairs alone, without link and biases.

    Args:
        recipe (Recipe): What to compute; it has a pair.
        adjacency (Adjacency): The edges.
        operands (Operands): The tensors; there need be no channels of a value.

    Shapes:
        - **output:** :math:`(E, H)`, in the caller's order of edges
    """
    from kgat.ops.gpu import loops as gpu_kernels

    size = _Sizes.of(adjacency, operands)
    total = operands.link_args.new_empty(adjacency.num_edges, size.heads)
    if size.empty:
        return total
    inputs = {**_inputs(recipe, adjacency, operands), **_pair(recipe, total.dtype)}
    for table, light in _partition(adjacency, adjacency.rowptr).tables():
        block, warps = size.block(light)
        lanes = len(table) * size.heads
        _launch(
            gpu_kernels.sum_pairs,
            _ceil(lanes, block["LANES"]),
            warps,
            table=table,
            lanes=lanes,
            col=adjacency.col,
            total=total,
            **inputs,
            **block,
        )
    return total


def score_backward(
    recipe: Recipe, adjacency: Adjacency, operands: Operands, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    r"""Runs the backward pass of :func:`score`.

    Args:
        recipe (Recipe): What was computed.
        adjacency (Adjacency): The edges.
        operands (Operands): The tensors.
        grad (torch.Tensor): The gradient of the sums.

    Shapes:
        - **grad:** :math:`(E, H)`, in the caller's order of edges
        - **output:** those of query, key and weight
    """
    x = operands
    assert x.query is not None
    assert x.key is not None
    size = _Sizes.of(adjacency, operands)
    d_query, d_key = size.new(x.query), size.new(x.key)
    if size.empty:
        return d_query, d_key, None if x.weight is None else size.new(x.weight)
    total = grad.index_select(0, adjacency.edge)
    inputs = {
        **_inputs(recipe, adjacency, x),
        **_pair(recipe, total.dtype, True),
        "value": None,
        "seed": None,
    }
    _by_source(adjacency, size, {"d_key": d_key}, inputs, total)
    return d_query, d_key, _by_target(adjacency, size, d_query, None, inputs, total)


def dropout_mask(edges: int, heads: int, p: float, seed: Tensor) -> Tensor:
    r"""Returns the mask that a seed stands for, over :math:`1 - p`, in the caller's order of edges.

    Args:
        edges (int): :math:`E`.
        heads (int): :math:`H`.
        p (float): Probability of dropping.
        seed (torch.Tensor): The seed.

    Shapes:
        - **output:** :math:`(E, H)`
    """
    from kgat.ops.gpu import loops as gpu_kernels

    mask = torch.empty(edges, heads, dtype=torch.float64, device=seed.device)
    _launch(
        gpu_kernels.write_mask,
        _ceil(mask.numel(), 1024),
        4,
        seed=seed,
        mask=mask,
        size=mask.numel(),
        drop=float(p),
        keep=_keep(p),
        BLOCK=1024,
    )
    return mask


def _by_source(
    adjacency: Adjacency,
    size: _Sizes,
    results: dict[str, Tensor | None],
    inputs: dict[str, Any],
    total: Tensor,
) -> None:
    from kgat.ops.gpu import loops as gpu_kernels

    partition = _partition(adjacency, adjacency.colptr)
    split = {
        name: partition.parts(total, *x.shape[1:])
        for name in ("d_value", "d_key", "d_key_bias")
        if (x := results.get(name)) is not None
    }
    for table, light in partition.tables():
        block, warps = size.block(light, accumulators=2)
        lanes = len(table) * size.heads
        _launch(
            gpu_kernels.by_source,
            _ceil(lanes, block["LANES"]),
            warps,
            table=table,
            lanes=lanes,
            row=adjacency.row,
            place=adjacency.place,
            d_total=total,
            **{f"{name}_parts": None if light else x for name, x in split.items()},
            **results,
            **inputs,
            **block,
        )
    for name, parts in split.items():
        _merge(partition, parts, results[name])


def _by_target(
    adjacency: Adjacency,
    size: _Sizes,
    d_query: Tensor | None,
    d_query_bias: Tensor | None,
    inputs: dict[str, Any],
    total: Tensor,
) -> Tensor | None:
    # Returns the gradient of the weight.
    from kgat.ops.gpu import loops as gpu_kernels

    if d_query is None and d_query_bias is None:
        return None
    partition = _partition(adjacency, adjacency.rowptr)
    query_parts = None if d_query is None else partition.parts(total, size.heads, size.features)
    bias_parts = None if d_query_bias is None else partition.parts(total, size.heads)
    weights = []
    for table, light in partition.tables():
        block, warps = size.block(light)
        lanes = len(table) * size.heads
        programs, d_weight = _ceil(lanes, block["LANES"]), None
        if inputs["weight"] is not None:
            whole = size.heads // math.gcd(size.heads, block["LANES"])  # lanes are then a multiple of heads
            programs = _ceil(min(programs, _ceil(WEIGHT_LANES, block["LANES"])), whole) * whole
            d_weight = total.new_empty(programs * block["LANES"] // size.heads, size.heads, size.features)
            weights.append(d_weight)
        _launch(
            gpu_kernels.by_target,
            programs,
            warps,
            table=table,
            lanes=lanes,
            rounds=_ceil(lanes, programs * block["LANES"]) if programs else 0,
            col=adjacency.col,
            d_total=total,
            d_query=d_query,
            d_query_bias=d_query_bias,
            d_weight=d_weight,
            d_query_parts=None if light else query_parts,
            d_query_bias_parts=None if light else bias_parts,
            **inputs,
            **block,
        )
    _merge(partition, query_parts, d_query)
    _merge(partition, bias_parts, d_query_bias)
    return torch.cat(weights).sum(0) if weights else None


@dataclass(frozen=True)
class _Sizes:
    targets: int
    edges: int
    heads: int
    features: int
    channels: int
    itemsize: int

    @classmethod
    def of(cls, adjacency: Adjacency, x: Operands) -> _Sizes:
        return cls(
            adjacency.num_targets,
            adjacency.num_edges,
            x.value.size(1),
            0 if x.query is None else x.query.size(2),
            x.value.size(2),
            x.link_args.element_size(),
        )

    @property
    def empty(self) -> bool:
        r"""Whether there is no edge of any head."""
        return self.edges == 0 or self.heads == 0

    def new(self, like: Tensor, *shape: int) -> Tensor:
        r"""Returns room for a result, which is 0 where no kernel is going to write it."""
        make = like.new_zeros if self.empty else like.new_empty
        return make(shape or like.shape)

    def block(self, light: bool, accumulators: int = 1) -> tuple[dict[str, int], int]:
        r"""Returns the shape of a program's block, and its warps.

        A block holds all features and channels, and fewer edges the more there are. Lanes of light nodes are
        of any nodes; else they are heads of one node, whose edges are equally many.
        """
        wide = max(_power(self.features), _power(self.channels))
        tile = TILE // self.itemsize // accumulators
        room = max(1, tile // wide)
        if light:
            slots = min(4, room)
            lanes = min(32, room // slots)
        else:
            lanes = min(self.heads & -self.heads, max(1, room // 8))
            slots = min(32, room // lanes)
        sizes = {"R": self.features, "C": self.channels, "heads": self.heads}
        blocks = {"BLOCK_R": _power(self.features), "BLOCK_C": _power(self.channels)}
        # More warps than one only for blocks that cannot be smaller: they would wait for each other.
        return {**sizes, **blocks, "LANES": lanes, "SLOTS": slots}, max(1, min(8, wide // tile))


@dataclass(frozen=True)
class _Partition:
    r"""Segments of edges, as (node, first edge, end, part or -1), and which parts are of which heavy node.

    Shapes:
        - **light, long:** :math:`(S, 4)`, **nodes:** :math:`(K)`, **first:** :math:`(K + 1)`, int32
    """

    light: Tensor
    long: Tensor
    nodes: Tensor
    first: Tensor
    num_parts: int

    @classmethod
    def of(cls, pointer: Tensor) -> _Partition:
        degree = pointer.diff()
        light = (degree <= LIGHT).nonzero().squeeze(1)
        medium = ((degree > LIGHT) & (degree <= HEAVY)).nonzero().squeeze(1)
        nodes = (degree > HEAVY).nonzero().squeeze(1)
        count = (degree[nodes] + HEAVY - 1).div(HEAVY, rounding_mode="floor")
        first = torch.cat([count.new_zeros(1), count.cumsum(0)])
        node = nodes.repeat_interleave(count)
        part = torch.arange(node.numel(), device=node.device)
        begin = pointer[node] + (part - first[:-1].repeat_interleave(count)) * HEAVY
        heavy = torch.stack([node, begin, torch.minimum(begin + HEAVY, pointer[node + 1]), part], 1)

        def whole(rows: Tensor) -> Tensor:
            return torch.stack([rows, pointer[rows], pointer[rows + 1], torch.full_like(rows, -1)], 1)

        # The longest first: what is started last should not take long.
        long = torch.cat([heavy, whole(medium)])
        return cls(whole(light).int(), long.int(), nodes.int(), first.int(), node.numel())

    def tables(self) -> tuple[tuple[Tensor, bool], tuple[Tensor, bool]]:
        return (self.long, False), (self.light, True)

    def parts(self, like: Tensor, *shape: int) -> Tensor | None:
        return like.new_empty(self.num_parts, *shape) if self.num_parts else None


def _partition(adjacency: Adjacency, pointer: Tensor) -> _Partition:
    key = (_Partition, pointer is adjacency.rowptr, LIGHT, HEAVY)
    return adjacency.derive(key, lambda: _Partition.of(pointer))


def _merge(
    partition: _Partition,
    parts: Tensor | None,
    out: Tensor | None,
    lse_parts: Tensor | None = None,
    lse: Tensor | None = None,
) -> None:
    from kgat.ops.gpu import loops as gpu_kernels

    if parts is None or out is None:
        return
    size = out.size(2) if out.dim() == 3 else 1
    block = _power(size)
    _launch(
        gpu_kernels.merge,
        len(partition.nodes) * out.size(1),
        4,
        nodes=partition.nodes,
        first=partition.first,
        parts=parts,
        lse_parts=lse_parts,
        out=out,
        lse=lse,
        heads=out.size(1),
        SIZE=size,
        BLOCK=block,
        SLOTS=max(1, min(MERGED, TILE // block)),
    )


def _inputs(recipe: Recipe, adjacency: Adjacency, x: Operands) -> dict[str, Any]:
    return {
        "edge": adjacency.edge,
        "query": x.query,
        "key": x.key,
        "weight": x.weight,
        "pair_args": x.pair_args,
        "link_args": x.link_args,
        "query_bias": x.query_bias,
        "key_bias": x.key_bias,
        "edge_bias": x.edge_bias,
        "edge_weight": x.edge_weight,
        "value": x.value,
        "seed": x.seed if x.dropout > 0.0 else None,
        "scale": float(x.scale),
        "drop": float(x.dropout),
        "keep": _keep(x.dropout),
        "INSIDE": recipe.bias_inside,
    }


def _pair(recipe: Recipe, dtype: torch.dtype, derivative: bool = False) -> dict[str, Any]:
    pair = recipe.pair
    if pair is None:
        return {"PAIR": None, "D_PAIR": None, "PAIR_ARGS": 0}
    return {
        "PAIR": _function(pair.in_scalars, dtype),
        "D_PAIR": _function(pair.derivative, dtype) if derivative else None,
        "PAIR_ARGS": _arity(pair.in_scalars) - 2,
    }


def _link(recipe: Recipe, dtype: torch.dtype, derivative: bool = False) -> dict[str, Any]:
    link = recipe.link
    return {
        "LINK": _function(link.in_scalars, dtype),
        "D_LINK": _function(link.derivative, dtype) if derivative else None,
        "LINK_ARGS": _arity(link.in_scalars) - 1,
    }


def _arity(function: Any) -> int:
    # Of the constants there may be more rows than the function takes.
    return int(function.__code__.co_argcount)


def _keep(p: float) -> float:
    return 0.0 if p >= 1.0 else 1.0 / (1.0 - p)


def _function(function: Any, dtype: torch.dtype) -> Any:
    try:
        return _compiled(function.text, dtype)
    except (AttributeError, TypeError, ValueError, OSError) as error:
        raise BackendError(f"Triton could not compile {function}: {error}") from error


@functools.lru_cache(maxsize=1024)
def _compiled(text: str, dtype: torch.dtype) -> Any:
    from kgat.ops.gpu import loops as gpu_kernels

    return translate(text, gpu_kernels.vocabulary(dtype == torch.float64), gpu_kernels.compiler)


def _launch(kernel: Any, programs: int, warps: int, **arguments: Any) -> None:
    if programs == 0:
        return
    named = {name: arguments.get(name) for name in kernel.arg_names}
    tensor = next(x for x in arguments.values() if isinstance(x, Tensor))
    try:
        with torch.cuda.device_of(tensor):  # Triton launches on the current device
            kernel[(programs,)](**named, num_warps=warps)
    except _triton_error() as error:
        raise BackendError(f"Triton could not compile or run {kernel.__name__}: {error}") from error


def _triton_error() -> type[Exception]:
    from triton.errors import TritonError

    return TritonError  # type: ignore[no-any-return]


def _ceil(count: int, size: int) -> int:
    return -(-count // size)


def _power(size: int) -> int:
    # The power of two that a block of this many needs.
    return 1 << max(0, size - 1).bit_length()
