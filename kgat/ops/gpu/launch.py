r"""Gives the kernels of a GPU their tensors; :class:`~kgat.ops.backend.Passes` says what functions do.

Light nodes share programs, heavy nodes are cut into parts that are joined in order. Nothing is of the size of
edges times channels, and there are no atomics: results are the same bit for bit in every run. Triton is
imported by the first call, not with this module.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kgat.ops.graph.adjacency import Adjacency
from kgat.ops.operands import LEARNED_OF_SCORES, Operands
from kgat.ops.recipe import BackendError, Recipe
from kgat.score.scalar import translate

OF_TARGETS = ("query", "query_bias", "weight")  # sums over the edges of targets; of the others, of sources

LIGHT = 8  # Nodes of at most so many edges are packed: a block of edges of their own would be half empty.
HEAVY = 512  # Nodes of more edges are cut into parts of so many: a hub would outlast all other programs.
TILE = 2048  # Bytes of edges times features in a block: what one warp holds and still leaves room for others.
MERGED = 32  # Parts of a heavy node that are joined at a time.
WEIGHT_LANES = 4096  # Rows of partial sums of the weight's gradient.


def _kernels() -> Any:
    from kgat.ops.gpu import loops

    return loops


def attention(recipe: Recipe, adjacency: Adjacency, x: Operands) -> tuple[Tensor, Tensor]:
    size = _Sizes.of(adjacency, x)
    out = size.new(x.value, size.targets, x.heads, x.channels)
    lse = size.new(x.link_args, size.targets, x.heads)
    if size.empty:
        return out, lse
    inputs = _inputs(recipe, adjacency, x)
    partition = _partition(adjacency, adjacency.rowptr)
    out_parts, lse_parts = partition.parts(lse, x.heads, x.channels), partition.parts(lse, x.heads)
    split = {"out_parts": out_parts, "lse_parts": lse_parts}
    inputs |= {"out": out, "lse": lse}
    for table, light in partition.tables():
        _launch_lanes(_kernels().attend, size, table, light, inputs if light else inputs | split)
    _merge(partition, out_parts, out, lse_parts, lse)
    return out, lse


def attention_backward(
    recipe: Recipe, adjacency: Adjacency, x: Operands, out: Tensor, lse: Tensor, grad: Tensor
) -> dict[str, Tensor]:
    size = _Sizes.of(adjacency, x)
    made = {name: size.new(tensor) for name, tensor in x.learned.items()}
    if size.empty:
        return made
    grad = grad.contiguous()
    mean = torch.empty_like(lse)
    block = _power(size.channels)
    lanes = max(1, 2 * TILE // block)
    sizes = {"rows": lse.numel(), "SIZE": size.channels, "BLOCK": block, "LANES": lanes}
    _launch(_kernels().dot_rows, _ceil(lse.numel(), lanes), 4, x=grad, y=out, out=mean, **sizes)
    total = lse.new_empty(adjacency.num_edges, size.heads)
    results = {f"d_{name}": tensor for name, tensor in made.items() if name not in OF_TARGETS}
    inputs = _inputs(recipe, adjacency, x, derivative=True)
    _by_source(adjacency, size, results, {**inputs, "lse": lse, "grad": grad, "mean": mean}, total)
    return made | _by_target(adjacency, size, made, inputs, total)


def score(recipe: Recipe, adjacency: Adjacency, x: Operands) -> Tensor:
    size = _Sizes.of(adjacency, x)
    total = x.link_args.new_empty(adjacency.num_edges, size.heads)
    if not size.empty:
        inputs = _inputs(recipe, adjacency, x, link=False) | {"total": total}
        for table, light in _partition(adjacency, adjacency.rowptr).tables():
            _launch_lanes(_kernels().sum_pairs, size, table, light, inputs)
    return total


def score_backward(recipe: Recipe, adjacency: Adjacency, x: Operands, grad: Tensor) -> dict[str, Tensor]:
    size = _Sizes.of(adjacency, x)
    made = {name: size.new(tensor) for name, tensor in x.learned.items() if name in LEARNED_OF_SCORES}
    if size.empty:
        return made
    total = grad.index_select(0, adjacency.edge)
    inputs = _inputs(recipe, adjacency, x, derivative=True, link=False) | {"value": None, "seed": None}
    _by_source(adjacency, size, {"d_key": made["key"]}, inputs, total)
    return made | _by_target(adjacency, size, made, inputs, total)


def dropout_mask(edges: int, heads: int, p: float, seed: Tensor) -> Tensor:
    mask = torch.empty(edges, heads, dtype=torch.float64, device=seed.device)
    more = {"size": mask.numel(), "drop": float(p), "keep": _keep(p), "BLOCK": 1024}
    _launch(_kernels().write_mask, _ceil(mask.numel(), 1024), 4, seed=seed, mask=mask, **more)
    return mask


def _by_source(
    adjacency: Adjacency, size: _Sizes, results: dict[str, Tensor], inputs: dict[str, Any], total: Tensor
) -> None:
    partition = _partition(adjacency, adjacency.colptr)
    split = {
        f"{name}_parts": partition.parts(total, *results[name].shape[1:])
        for name in ("d_value", "d_key", "d_key_bias")
        if name in results
    }
    inputs = {**inputs, **results, "row": adjacency.row, "place": adjacency.place, "d_total": total}
    for table, light in partition.tables():
        launched = inputs if light else inputs | split
        _launch_lanes(_kernels().by_source, size, table, light, launched, accumulators=2)
    for name, parts in split.items():
        _merge(partition, parts, results[name.removesuffix("_parts")])


def _by_target(
    adjacency: Adjacency, size: _Sizes, made: dict[str, Tensor], inputs: dict[str, Any], total: Tensor
) -> dict[str, Tensor]:
    # Returns the gradient of the weight, if there is one.
    results = {f"d_{name}": made[name] for name in ("query", "query_bias") if name in made}
    if not results:
        return {}
    partition = _partition(adjacency, adjacency.rowptr)
    split = {f"{name}_parts": partition.parts(total, *x.shape[1:]) for name, x in results.items()}
    inputs = {**inputs, **results, "d_total": total}
    weights = []
    for table, light in partition.tables():
        block, _ = size.block(light)
        lanes = len(table) * size.heads
        programs, d_weight = _ceil(lanes, block["LANES"]), None
        if inputs["weight"] is not None:
            whole = size.heads // math.gcd(size.heads, block["LANES"])  # lanes are then a multiple of heads
            programs = _ceil(min(programs, _ceil(WEIGHT_LANES, block["LANES"])), whole) * whole
            d_weight = total.new_empty(programs * block["LANES"] // size.heads, size.heads, size.features)
            weights.append(d_weight)
        rounds = _ceil(lanes, programs * block["LANES"]) if programs else 0
        launched = inputs | {"rounds": rounds, "d_weight": d_weight} | ({} if light else split)
        _launch_lanes(_kernels().by_target, size, table, light, launched, programs)
    for name, parts in split.items():
        _merge(partition, parts, results[name.removesuffix("_parts")])
    return {"weight": torch.cat(weights).sum(0)} if weights else {}


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
        nodes = adjacency.num_targets, adjacency.num_edges
        return cls(*nodes, x.heads, x.features, x.channels, x.dtype.itemsize)

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
    if parts is None or out is None:
        return
    size = out.size(2) if out.dim() == 3 else 1
    block = _power(size)
    sizes = {"heads": out.size(1), "SIZE": size, "BLOCK": block, "SLOTS": max(1, min(MERGED, TILE // block))}
    tensors = {"parts": parts, "lse_parts": lse_parts, "out": out, "lse": lse}
    table = {"nodes": partition.nodes, "first": partition.first}
    _launch(_kernels().merge, len(partition.nodes) * out.size(1), 4, **table, **tensors, **sizes)


def _inputs(
    recipe: Recipe, adjacency: Adjacency, x: Operands, derivative: bool = False, link: bool = True
) -> dict[str, Any]:
    pair = recipe.pair
    inputs: dict[str, Any] = {
        **x._asdict(),
        "edge": adjacency.edge,
        "col": adjacency.col,
        "seed": x.seed if x.dropout > 0.0 else None,
        "scale": float(x.scale),
        "drop": float(x.dropout),
        "keep": _keep(x.dropout),
        "INSIDE": recipe.bias_inside,
        "PAIR": None if pair is None else _function(pair.in_scalars, x.dtype),
        "D_PAIR": _function(pair.derivative, x.dtype) if derivative and pair is not None else None,
        "PAIR_ARGS": 0 if pair is None else _arity(pair.in_scalars) - 2,
    }
    if link:
        inputs["LINK"] = _function(recipe.link.in_scalars, x.dtype)
        inputs["D_LINK"] = _function(recipe.link.derivative, x.dtype) if derivative else None
        inputs["LINK_ARGS"] = _arity(recipe.link.in_scalars) - 1
    return inputs


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
    return translate(text, _kernels().vocabulary(dtype == torch.float64), _kernels().compiler)


def _launch_lanes(
    kernel: Any,
    size: _Sizes,
    table: Tensor,
    light: bool,
    arguments: dict[str, Any],
    programs: int | None = None,
    accumulators: int = 1,
) -> None:
    block, warps = size.block(light, accumulators)
    lanes = len(table) * size.heads
    programs = _ceil(lanes, block["LANES"]) if programs is None else programs
    _launch(kernel, programs, warps, table=table, lanes=lanes, **arguments, **block)


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
