r"""Gives the kernels of a GPU their tensors; :class:`~kgat.ops.backend.Passes` says what functions do.

Programs take nodes of about as many edges, heavy nodes are cut into parts that are joined in order. Nothing
is of the size of edges times channels, and there are no atomics: results are the same bit for bit in every
run. The host waits for nothing: how many nodes are heavy it does not know, but how many the edges allow.
Triton is imported by the first call, not with this module.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kgat.ops.graph.adjacency import Adjacency
from kgat.ops.operands import LEARNED_OF_SCORES, Operands
from kgat.ops.recipe import BackendError, Recipe
from kgat.score.scalar import translate

OF_SOURCES = ("value", "key", "key_bias")  # whose gradients are sums over the edges of a source
OF_TARGETS = ("query", "query_bias")  # and of a target

HEAVY = 512  # Nodes of more edges are cut into parts of so many: a hub would outlast all other programs.
TILE = 2048  # Bytes of edges times features in a block: what two warps hold and still leave room for others.
MERGED = 256  # Parts of a heavy node that one program joins.
SCANNED, SCANS = (
    4096,
    256,
)  # Words of a fingerprint that make a program of their own, and its programs at most.
WEIGHT_LANES = 4096  # Rows of partial sums of the weight's gradient.


def _kernels() -> Any:
    from kgat.ops.gpu import loops

    return loops


def attention(recipe: Recipe, adjacency: Adjacency, x: Operands) -> tuple[Tensor, Tensor]:
    size = _Sizes.of(adjacency, x)
    out = size.new(x.link_args, size.targets, x.heads, x.channels)
    lse = size.new(x.link_args, size.targets, x.heads, 2)
    if size.empty:
        return out, lse
    partition = _partition(adjacency, adjacency.rowptr)
    results = {"out": out, "lse": lse}
    results |= partition.parts(results, lse.dtype)
    _launch_lanes(_kernels().attend, size, partition, {**_inputs(recipe, adjacency, x), **results})
    for table in partition.levels:
        lanes = len(table) * size.heads
        _launch_merge(_kernels().merge, len(table), size, table=table, lanes=lanes, **results)
    return out, lse


def attention_backward(
    recipe: Recipe, adjacency: Adjacency, x: Operands, out: Tensor, lse: Tensor, grad: Tensor
) -> dict[str, Tensor]:
    size = _Sizes.of(adjacency, x)
    made = {name: size.new(tensor) for name, tensor in x.learned.items()}
    if size.empty:
        return made
    grad = grad.to(x.value.dtype).contiguous()  # of the sum in that type: edges gather half as much
    mean = lse.new_empty(size.targets, size.heads)
    block = _power(size.channels)
    lanes = max(1, 2 * TILE // block)
    sizes = {"rows": mean.numel(), "SIZE": size.channels, "BLOCK": block, "LANES": lanes}
    _launch(_kernels().dot_rows, _ceil(mean.numel(), lanes), warps=4, x=grad, y=out, out=mean, **sizes)
    total = lse.new_empty(adjacency.num_edges, size.heads)
    inputs = _inputs(recipe, adjacency, x, derivative=True)
    return _backward(adjacency, size, made, {**inputs, "lse": lse, "grad": grad, "mean": mean}, total)


def score(recipe: Recipe, adjacency: Adjacency, x: Operands) -> Tensor:
    size = _Sizes.of(adjacency, x)
    total = x.link_args.new_empty(adjacency.num_edges, size.heads)
    if not size.empty:
        inputs = _inputs(recipe, adjacency, x, link=False) | {"total": total}
        _launch_lanes(_kernels().sum_pairs, size, _partition(adjacency, adjacency.rowptr), inputs)
    return total


def score_backward(recipe: Recipe, adjacency: Adjacency, x: Operands, grad: Tensor) -> dict[str, Tensor]:
    size = _Sizes.of(adjacency, x)
    made = {name: size.new(tensor) for name, tensor in x.learned.items() if name in LEARNED_OF_SCORES}
    if size.empty:
        return made
    total = grad.index_select(0, adjacency.edge)
    inputs = _inputs(recipe, adjacency, x, derivative=True, link=False) | {"value": None, "seed": None}
    return _backward(adjacency, size, made, inputs, total)


def dropout_mask(edges: int, heads: int, p: float, seed: Tensor) -> Tensor:
    mask = torch.empty(edges, heads, dtype=torch.float64, device=seed.device)
    more = {"size": mask.numel(), "drop": float(p), "keep": _keep(p), "BLOCK": 1024}
    _launch(_kernels().write_mask, _ceil(mask.numel(), 1024), warps=4, seed=seed, mask=mask, **more)
    return mask


def scan(words: Tensor) -> Tensor:
    r"""Returns the fingerprint of integers in the order of memory; torch would launch two dozen kernels.

    Shapes:
        - **words:** :math:`(n)`, **output:** :math:`(2)`, int64
    """
    programs = max(1, min(SCANS, words.numel() // SCANNED))
    sums = words.new_empty(programs, 2, dtype=torch.int64)
    _launch(_kernels().scan, programs, warps=4, words=words, sums=sums, size=words.numel(), BLOCK=1024)
    return sums.sum(0) if programs > 1 else sums[0]


def _backward(
    adjacency: Adjacency, size: _Sizes, made: dict[str, Tensor], inputs: dict[str, Any], total: Tensor
) -> dict[str, Tensor]:
    inputs = {**inputs, **{f"d_{name}": x for name, x in made.items()}, "d_total": total}
    sides = _partition(adjacency, adjacency.colptr), _partition(adjacency, adjacency.rowptr)
    split: dict[str, Any] = {}
    for partition, names in zip(sides, (OF_SOURCES, OF_TARGETS), strict=True):
        split |= partition.parts({f"d_{name}": made[name] for name in names if name in made}, total.dtype)
    by_source = {**inputs, **split, "row": adjacency.row, "place": adjacency.place}
    _launch_lanes(_kernels().by_source, size, sides[0], by_source, accumulators=2)
    of_targets = [name for name in (*OF_TARGETS, "weight") if name in made]
    if of_targets:
        weight = _by_target(size, sides[1], inputs | split)
        if weight is not None:
            made["weight"] = weight
    for source, target in zip(*(partition.levels for partition in sides), strict=True):
        tables = {"by_source": source, "by_target": target if of_targets else None}
        lanes = {"by_source_lanes": len(source) * size.heads, "by_target_lanes": len(target) * size.heads}
        rows = max(len(source), len(target) if of_targets else 0)
        _launch_merge(_kernels().merge_sums, rows, size, **tables, **lanes, **inputs, **split)
    return made


def _by_target(size: _Sizes, partition: _Partition, inputs: dict[str, Any]) -> Tensor | None:
    # Returns the gradient of the weight, if there is one.
    lanes, block = len(partition.table) * size.heads, size.block()["LANES"]
    programs, d_weight = _ceil(lanes, block), None
    if inputs["weight"] is not None:
        whole = size.heads // math.gcd(size.heads, block)  # lanes are then a multiple of heads
        programs = _ceil(min(programs, _ceil(WEIGHT_LANES, block)), whole) * whole
        rows = programs * block // size.heads
        d_weight = inputs["d_total"].new_empty(rows, size.heads, size.features)
    rounds = {"rounds": _ceil(lanes, programs * block), "d_weight": d_weight}
    _launch_lanes(_kernels().by_target, size, partition, inputs | rounds, programs)
    return None if d_weight is None else d_weight.sum(0)


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

    def block(self, accumulators: int = 1) -> dict[str, int]:
        r"""Returns the shape of a program's block, and its warps.

        A block holds all features and channels, and fewer edges the more there are. Programs of one warp
        would never fill more than half of a multiprocessor.
        """
        wide = max(_power(self.features), _power(self.channels))
        tile = TILE // self.itemsize // accumulators
        room = max(1, tile // wide)
        slots = min(8 // accumulators, room)
        sizes = {"R": self.features, "C": self.channels, "heads": self.heads}
        blocks = {"BLOCK_R": _power(self.features), "BLOCK_C": _power(self.channels)}
        # More warps than two only for blocks that cannot be smaller: they would wait for each other.
        warps = max(2, min(8, 2 * wide // tile))
        return {**sizes, **blocks, "LANES": min(32, room // slots), "SLOTS": slots, "warps": warps}


class _Rows(NamedTuple):
    r"""Rows of what is to be summed, edges of a node or parts of it: of which node, from where, to where.

    Shapes:
        - **all:** :math:`(S)`
    """

    node: Tensor
    begin: Tensor
    end: Tensor

    def table(self, live: Tensor, part: Tensor | None = None) -> Tensor:
        r"""Returns them as a kernel reads them; those that are not :obj:`live`, as nobody's."""
        node = torch.where(live, self.node, -1)
        part = torch.full_like(node, -1) if part is None else part
        return torch.stack([node, self.begin, self.end, part], 1).int()

    def cut(self, size: int, most: int, first: int) -> tuple[Tensor, _Rows]:
        r"""Cuts rows of more than :obj:`size` into parts of so many.

        Args:
            size (int): How many belong to a part.
            most (int): How many parts there can be; the host does not know how many there are.
            first (int): The number of the first part.

        Returns:
            The table of parts, and the parts of each row as what is to be summed next.
        """
        length = self.end - self.begin
        count = torch.where(length > size, (length + size - 1).div(size, rounding_mode="floor"), 0)
        end = count.cumsum(0)
        part = torch.arange(most, device=end.device)
        owner = torch.searchsorted(end, part, right=True)
        live = owner < end.numel()
        owner = owner.clamp(max=end.numel() - 1)
        node, row_begin, row_end, before = (
            x.index_select(0, owner) for x in (self.node, self.begin, self.end, end - count)
        )
        begin = row_begin + (part - before) * size
        parts = _Rows(node, begin, torch.minimum(begin + size, row_end)).table(live, part + first)
        return parts, _Rows(self.node, end - count + first, end + first)


@dataclass(frozen=True)
class _Partition:
    r"""Segments of edges, as (node, first edge, end, part or -1): parts of heavy nodes, all other nodes, and
    segments of parts, level by level, until all are joined.

    Rows whose node is -1 are nobody's. Nodes stand by the power of two that their edges fill, the longest
    first (what is started last should not take long), and else in their order.

    Shapes:
        - **table, levels:** :math:`(S, 4)`, int32
    """

    table: Tensor
    levels: tuple[Tensor, ...]
    num_parts: int

    @classmethod
    def of(cls, pointer: Tensor, edges: int) -> _Partition:
        degree = pointer.diff()
        powers = (1 << torch.arange(HEAVY.bit_length() + 1, device=degree.device)).clamp(max=HEAVY)
        order = torch.bucketize(degree, powers).to(torch.int8).sort(stable=True, descending=True)[1]
        rows = _Rows(order, pointer[:-1].index_select(0, order), pointer[1:].index_select(0, order))
        light = rows.table(rows.end - rows.begin <= HEAVY)
        most = edges // (HEAVY + 1)  # of heavy nodes, which come first
        parts, rows = _Rows(*(x[:most] for x in rows)).cut(HEAVY, most and most + edges // HEAVY, 0)
        levels, num_parts, count = [], 0, len(parts)
        table = torch.cat([parts, light])
        while count:
            num_parts += count
            length = rows.end - rows.begin
            last = rows.table((length > 0) & (length <= MERGED))
            more = count // (MERGED + 1)
            parts, rows = rows.cut(MERGED, more and more + count // MERGED, num_parts)
            count = len(parts)
            levels.append(torch.cat([parts, last]))
        return cls(table, tuple(levels), num_parts)

    def parts(self, results: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
        r"""Returns room for parts of results, by name."""
        if not self.num_parts:
            return {}
        return {
            f"{name}_parts": x.new_empty(self.num_parts, *x.shape[1:], dtype=dtype)
            for name, x in results.items()
        }


def _partition(adjacency: Adjacency, pointer: Tensor) -> _Partition:
    key = (_Partition, pointer is adjacency.rowptr, HEAVY, MERGED)
    return adjacency.derive(key, lambda: _Partition.of(pointer, adjacency.num_edges))


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
    partition: _Partition,
    arguments: dict[str, Any],
    programs: int | None = None,
    accumulators: int = 1,
) -> None:
    block = size.block(accumulators)
    lanes = len(partition.table) * size.heads
    programs = _ceil(lanes, block["LANES"]) if programs is None else programs
    _launch(kernel, programs, table=partition.table, lanes=lanes, **arguments, **block)


def _launch_merge(kernel: Any, rows: int, size: _Sizes, **arguments: Any) -> None:
    block = size.block()
    slots = min(_power(MERGED), max(1, TILE // max(block["BLOCK_R"], block["BLOCK_C"])))
    more = {**block, "SIZE": size.channels, "BLOCK": block["BLOCK_C"], "SLOTS": slots, "warps": 4}
    _launch(kernel, rows * size.heads, **arguments | more)


def _launch(kernel: Any, programs: int, *, warps: int, **arguments: Any) -> None:
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
