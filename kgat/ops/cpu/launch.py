r"""Gives the loops of the CPU their tensors; :class:`~kgat.ops.backend.Passes` says what functions do."""

from __future__ import annotations

import functools
from array import array
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kgat.names import bare
from kgat.ops.cpu import pieces
from kgat.ops.cpu.recycled import Recycled
from kgat.ops.graph.adjacency import Adjacency
from kgat.ops.graph.device import available as available
from kgat.ops.operands import LEARNED_OF_SCORES, TABLE, Operands
from kgat.ops.recipe import BackendError, Recipe

if TYPE_CHECKING:
    from kgat.ops.cpu.runtime import Loop

# Work is cut into this many pieces at most, each of at least so many multiplications. The cut depends on
# sizes alone, so that sums over pieces do not depend on the number of threads.
MAX_SLOTS = 64
# Numbers of features and channels that code is compiled for; it takes all others too, a third slower.
FIXED_SIZES = (8, 16, 32, 64, 128)
WORK = 1 << 16


_Fields = Mapping[str, Tensor | int | None]  # in a context
# Operands with a row for each row of the graph, and for each column.
OF_ROWS, OF_COLUMNS = ("query", "query_bias"), ("value", "key", "key_bias")


def attention(recipe: Recipe, adjacency: Adjacency, x: Operands) -> tuple[Tensor, Tensor]:
    return attention_and_base(recipe, adjacency, x, None, False)[:2]


def attention_and_base(
    recipe: Recipe, adjacency: Adjacency, x: Operands, base: Tensor | None, keeps: bool
) -> tuple[Tensor, Tensor, Tensor]:
    given, x = x.value.dtype, _widened(x)
    _, heads, channels = x.value.shape
    recycled, size = _recycled(adjacency), (adjacency.num_targets, heads, channels)
    out = recycled.empty(x.value, *size)
    lse = x.value.new_empty(adjacency.num_targets, heads, 2)
    # Without a base, and rounded to another type, it is one's own already.
    is_apart = keeps and (base is not None or given is x.value.dtype)
    summed = recycled.empty(x.value, *size) if is_apart else out
    if lse.numel() != 0:
        frame, loop, results = (
            _frame(adjacency, False, x),
            _loop(recipe, x, "forward"),
            {"out": out, "lse": lse},
        )
        added: dict[str, Tensor | int | None] = {}
        if base is not None:
            base = base.contiguous()
            added = {"base": base, "base_step": heads * channels if base.dim() == 3 else 0}
        if base is not None or is_apart:
            added["sum"] = summed
        frame.run(loop, frame.context_of(x, _addresses(x), added, results))
        if frame.pieces is not None:
            _run_pieces(loop, frame, x, {}, results)
            assert frame.pieces.of_pieces is not None
            node = frame.pieces.of_pieces.node
            if base is not None:
                summed[node] = out[node] + (base if base.dim() == 2 else base[node])
            elif is_apart:
                summed[node] = out[node]
    return out, lse, summed


def _recycled(adjacency: Adjacency) -> Recycled:
    return adjacency.derive(Recycled, Recycled)


def _widened(x: Operands) -> Operands:
    dtype = x.dtype
    return x if x.value.dtype is dtype else x._replace(value=x.value.to(dtype))


def attention_backward(
    recipe: Recipe, adjacency: Adjacency, x: Operands, out: Tensor, lse: Tensor, grad: Tensor
) -> dict[str, Tensor]:
    own, x = x.value.dtype, _widened(x)
    dtype, heads = x.value.dtype, x.heads
    if grad.dtype is not dtype:
        grad = grad.to(dtype)
    if adjacency.num_edges == 0 or heads == 0:
        return {
            name: torch.zeros_like(t, dtype=own if name == "value" else None) for name, t in x.learned.items()
        }
    found = {name: torch.empty_like(t) for name, t in x.learned.items() if name != "weight"}
    # A projection that is shared has one gradient, which all passes add to.
    shared: dict[int, str] = {}
    for name in ("value", "query", "key"):
        if name in found:
            found[name] = found[shared.setdefault(id(getattr(x, name)), name)]
    recycled = _recycled(adjacency)
    packed = recycled.empty(x.value, adjacency.num_targets, heads, 4)
    of_rows = {"grad": grad, "out": out, "lse": lse, "packed": packed}
    rows, addresses = _frame(adjacency, False, x), _addresses(x)
    dt = None
    if recipe.pair is not None or x.query_bias is not None:
        dt = recycled.empty(x.value, adjacency.num_edges, heads)
    of_bias = {"d_query_bias": found["query_bias"]} if x.query_bias is not None else {}
    context = rows.context_of(x, addresses, of_rows, {"dt": dt}, of_bias)
    rows.run(_shared_loop("pack", dtype), context)
    tensors: dict[str, Tensor | int | None] = {
        "grad": grad,
        "packed": packed,
        "dt": dt,
        "place": adjacency.place,
    }
    tensors |= {f"d_{name}": found[name] for name in ("edge_bias", "edge_weight") if name in found}
    tensors["add"] = int(x.key is x.value)
    of_columns = {f"d_{name}": found[name] for name in OF_COLUMNS if name in found}
    columns = _frame(adjacency, True, x)
    _run(_loop(recipe, x, "backward"), columns, x, addresses, tensors, of_columns)
    if x.query_bias is not None:
        sum_rows = _shared_loop("sum_rows", dtype)
        rows.run(sum_rows, context)
        if rows.pieces is not None:
            _run_pieces(sum_rows, rows, x, {"dt": dt}, of_bias)
    if recipe.pair is not None:
        add = int(x.query is x.value or x.query is x.key)
        found |= _query_gradient(recipe, rows, x, found["query"], {"dt": dt, "add": add})
    if own is not dtype:
        found["value"] = found["value"].to(own)
    return {name: t for name, t in found.items() if name in shared.values() or name not in ("query", "key")}


def score(recipe: Recipe, adjacency: Adjacency, x: Operands) -> Tensor:
    out = x.value.new_empty(adjacency.num_edges, x.heads)
    if out.numel():
        _run(_loop(recipe, x, "score"), _frame(adjacency, False, x), x, _addresses(x), {"out": out}, {})
    return out


def score_backward(recipe: Recipe, adjacency: Adjacency, x: Operands, grad: Tensor) -> dict[str, Tensor]:
    assert x.query is not None
    assert x.key is not None
    if grad.numel() == 0:
        return {name: torch.zeros_like(t) for name, t in x.learned.items() if name in LEARNED_OF_SCORES}
    d_query, d_key = torch.empty_like(x.query), torch.empty_like(x.key)
    rows, columns = _frame(adjacency, False, x), _frame(adjacency, True, x)
    found = _query_gradient(recipe, rows, x, d_query, {"dt": grad, "place": adjacency.edge})
    place = adjacency.derive("by column", lambda: adjacency.edge.index_select(0, adjacency.place))
    tensors = {"dt": grad, "place": place}
    _run(_loop(recipe, x, "key_gradient"), columns, x, _addresses(x), tensors, {"d_key": d_key})
    return {**found, "key": d_key}


def _query_gradient(
    recipe: Recipe, frame: _Frame, x: Operands, d_query: Tensor, tensors: _Fields
) -> dict[str, Tensor]:
    # Of queries, and of the weight where there is one: in one part per slot, added up in order.
    parts = None
    if x.weight is not None:
        slots = max(frame.slots, 0 if frame.pieces is None else frame.pieces.slots)
        parts = x.weight.new_zeros(slots, *x.weight.shape)
    loop = _loop(recipe, x, "query_gradient")
    _run(loop, frame, x, _addresses(x), {**tensors, "d_weight": parts}, {"d_query": d_query})
    return {"query": d_query} if parts is None else {"query": d_query, "weight": parts.sum(dim=0)}


def _slots(edges: int, x: Operands) -> int:
    return max(1, min(MAX_SLOTS, edges * x.heads * (x.features + x.channels) // WORK))


def _bounds(pointer: Tensor, slots: int) -> tuple[Tensor, int]:
    # Rows cut so that each slot has as many edges (and rows) as any other, of those that are not long; and
    # the largest degree of these.
    degree = pointer.diff()
    degree.masked_fill_(degree > pieces.LONG, 0)
    cost = torch.cat([degree.new_zeros(1), (degree + 1).cumsum(0)])
    share = torch.linspace(0, 1, slots + 1, dtype=torch.float64, device="cpu")
    cuts = torch.searchsorted(cost, share.mul(int(cost[-1])).round().long())
    cuts[0], cuts[-1] = 0, degree.numel()
    return torch.stack([cuts[:-1], cuts[1:]], dim=1), int(degree.max()) if degree.numel() else 0


class _Frame:
    r"""What stands in the context of all loops over a graph, whatever the numbers on its nodes and edges;
    and the scratch of those that have run, for the next one."""

    def __init__(
        self, adjacency: Adjacency, by_column: bool, x: Operands, of_pieces: pieces.Pieces | None = None
    ) -> None:
        from kgat.ops.cpu.loops import BUFFERS, FIELDS, scratch_size

        self.by_column, self.dtype, self.pieces, self.of_pieces = by_column, x.dtype, None, of_pieces
        if of_pieces is None:
            pointer = adjacency.colptr if by_column else adjacency.rowptr
            self.tasks = _slots(adjacency.num_edges, x)
            bounds, degree = _bounds(pointer, self.tasks)
            cut = pieces.Pieces.of(pointer)
            self.pieces = None if cut is None else _Frame(adjacency, by_column, x, cut)
        else:
            pointer, bounds, degree = of_pieces.ptr, of_pieces.bounds, pieces.LONG
            self.tasks = _slots(int(degree * len(bounds)), x)
        self.slots = len(bounds)
        size = scratch_size(degree)
        self.size = BUFFERS * size  # of the scratch of each task
        self.place = {name: place for place, name in enumerate(FIELDS)}
        first = self.place[next(iter(TABLE))]
        self.operands = slice(first, first + len(TABLE))
        self.known: dict[str, Tensor | int] = {
            "scratch_size": size,
            "slots": self.slots,
            "bounds": bounds,
            "longest": pieces.LONG,
            "ptr": pointer,
            "index": adjacency.row if by_column else adjacency.col,
            "edge": adjacency.edge,
            "heads": x.heads,
            "channels": x.channels,
            "features": x.features,
            "keep": -1,
        }
        fields = [self.known.get(name, 0) for name in FIELDS]
        self.context = array("q", [x if isinstance(x, int) else x.data_ptr() for x in fields])
        self._free: list[_Scratch] = []

    def context_of(self, x: Operands, addresses: Any, *tensors: _Fields) -> Any:
        r"""Returns a context for some loops over these operands and tensors."""
        context, place = self.context[:], self.place
        context[self.operands] = addresses
        for some in tensors:
            for name, tensor in some.items():
                if tensor is not None:
                    context[place[name]] = tensor if isinstance(tensor, int) else tensor.data_ptr()
        context[place["scale"]] = _scale(x.scale, self.dtype).data_ptr()
        if x.dropout > 0:
            context[place["keep"]] = _keep(x.dropout)
        return context

    def run(self, loop: Loop, context: Any) -> None:
        r"""Runs a loop over the slots."""
        tasks = min(torch.get_num_threads(), self.tasks)
        scratch, place = self._scratch(tasks), self.place
        context[place["counter"]], context[place["scratch"]] = scratch.addresses
        scratch.counter[0] = 0
        loop.run(context, tasks)
        self._free.append(scratch)

    def _scratch(self, tasks: int) -> _Scratch:
        # Each loop that runs has its own: several threads may be in here at once.
        try:
            scratch = self._free.pop()
        except IndexError:
            return _Scratch(torch.empty(tasks * self.size, dtype=self.dtype, device="cpu"))
        return scratch if scratch.room.numel() >= tasks * self.size else self._scratch(tasks)


class _Scratch:
    def __init__(self, room: Tensor) -> None:
        counter = torch.zeros(1, dtype=torch.int64, device="cpu")
        self.room, self.counter = room, counter.numpy()
        self.addresses = counter.data_ptr(), room.data_ptr()


def _frame(adjacency: Adjacency, by_column: bool, x: Operands) -> _Frame:
    key = (_Frame, by_column, x.dtype, *x.value.shape[1:], x.features)
    return adjacency.derive(key, lambda: _Frame(adjacency, by_column, x))


def _addresses(x: Operands) -> Any:
    operands: Any = x[: len(TABLE)]
    return array("q", [0 if t is None else t.data_ptr() for t in operands])


def _run(
    loop: Loop,
    frame: _Frame,
    x: Operands,
    addresses: Any,
    tensors: _Fields,
    results: Mapping[str, Tensor],
) -> None:
    # 'results' are those with a row for each row that the loop goes over.
    frame.run(loop, frame.context_of(x, addresses, tensors, results))
    if frame.pieces is not None:
        _run_pieces(loop, frame, x, tensors, results)


def _run_pieces(
    loop: Loop,
    frame: _Frame,
    x: Operands,
    tensors: _Fields,
    results: Mapping[str, Tensor],
) -> None:
    # As a graph of which the pieces are the rows, whose results are then added up in order.
    assert frame.pieces is not None
    cut = frame.pieces.of_pieces
    assert cut is not None
    names = OF_COLUMNS if frame.by_column else OF_ROWS
    node = cut.node[cut.owner]
    rows = {name: t.index_select(0, node) for name in names if (t := getattr(x, name)) is not None}
    all_parts = {id(t): t.new_zeros(len(node), *t.shape[1:]) for t in results.values()}
    parts = {name: all_parts[id(t)] for name, t in results.items()}
    total = parts["lse"].new_zeros(len(node), x.heads) if "lse" in parts else None
    x = x._replace(**rows)
    of_pieces = {**tensors, **parts, "total": total}
    frame.pieces.run(loop, frame.pieces.context_of(x, _addresses(x), of_pieces))
    if total is not None:
        results["lse"][cut.node] = _join(frame, cut, x, parts.pop("lse"), total)
        parts["out"] *= total.unsqueeze(-1)
    for name, part in {id(part): (name, part) for name, part in parts.items()}.values():
        whole = part.new_zeros(len(cut.node), *part.shape[1:]).index_add_(0, cut.owner, part)
        if name == "d_query" and tensors.get("add"):
            whole += results[name][cut.node]
        results[name][cut.node] = whole


def _join(frame: _Frame, cut: pieces.Pieces, x: Operands, lse: Tensor, total: Tensor) -> Tensor:
    # The parts of the log-sum-exp of long rows; leaves in 'total' the part of each piece.
    whole = lse.new_empty(len(cut.node), x.heads, 2)
    counter, bounds = cut.node.new_zeros(1), cut.node.new_tensor([0, len(cut.node)])
    tensors = {
        "counter": counter,
        "bounds": bounds,
        "ptr": cut.first,
        "lse": lse,
        "total": total,
        "out": whole,
    }
    context = array("q", [0]) * len(frame.place)
    context[frame.place["slots"]], context[frame.place["heads"]] = 1, x.heads
    for name, tensor in tensors.items():
        context[frame.place[name]] = tensor.data_ptr()
    _shared_loop("join", x.dtype).run(context, 1)
    return whole


@functools.lru_cache(maxsize=256)
def _scale(scale: float, dtype: torch.dtype) -> Tensor:
    return torch.tensor([scale], dtype=dtype, device="cpu")


def circle(x: Tensor, omega: Tensor | None, families: int) -> Tensor:
    r"""Returns the features of :func:`kgat.ops.waves.waves`, of angles if :obj:`omega` is :obj:`None`."""
    x, omega, size = _contiguous(x, omega, families)
    out = x.new_empty(*x.shape[:-1], 2 * size)
    if out.numel():
        _run_waves("circle", families, size, x=x, omega=omega, out=out)
    return out


def circle_backward(
    x: Tensor, omega: Tensor | None, families: int, grad: Tensor
) -> tuple[Tensor, Tensor | None]:
    r"""Returns the gradients of :func:`circle`."""
    x, omega, size = _contiguous(x, omega, families)
    d_x = torch.empty_like(x)
    d_omega = turned = None
    if omega is not None:
        d_omega = omega.new_zeros(_slots_of_waves(x, families * size), *omega.shape)
        turned = omega.transpose(-1, -2).contiguous()
    if x.numel():
        tensors = {"x": x, "omega": omega, "turned": turned, "grad": _read_at(grad)}
        _run_waves("circle_backward", families, size, **tensors, d_x=d_x, d_omega=d_omega)
    return d_x, None if d_omega is None else d_omega.sum(dim=0)


def _read_at(x: Tensor) -> Tensor:
    # What stands at its address is the tensor: a view may be negated lazily.
    return x.resolve_neg().contiguous()


def _contiguous(x: Tensor, omega: Tensor | None, families: int) -> tuple[Tensor, Tensor | None, int]:
    x, omega = _read_at(x), None if omega is None else _read_at(omega)
    return x, omega, (x if omega is None else omega).size(-1) // families


def _slots_of_waves(x: Tensor, width: int) -> int:
    return max(1, min(MAX_SLOTS, x.numel() * width // WORK))


def _run_waves(name: str, families: int, size: int, **tensors: Tensor | None) -> None:
    from kgat.ops.cpu.waves import BUFFERS, FIELDS

    x, omega = tensors["x"], tensors["omega"]
    assert x is not None
    heads = 1 if omega is None else omega.size(0)
    channels = x.size(-1)
    slots = _slots_of_waves(x, families * size)
    arguments: Mapping[str, Any] = {
        **tensors,
        "scale": _scale(size**-0.5 / families, x.dtype),
        # Made anew for each call: two Python threads may be in here at once.
        "scratch": x.new_empty(slots * BUFFERS * families * size),
        "nodes": x.numel() // (heads * channels),
        "slots": slots,
        "heads": heads,
        "channels": channels,
        "families": families,
        "size": size,
    }
    fields = [0 if field is None else field for field in map(arguments.get, FIELDS)]
    _shared_loop(name, torch.float32).run(fields, slots)


def logits(x: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns what :func:`kgat.ops.logits.logits` does."""
    x, first, second = map(Tensor.contiguous, (x, first, second))
    new = x.new_empty if x.numel() else x.new_zeros  # without channels, a sum of nothing
    s, t = new(*x.shape[:-1], 1), new(*x.shape[:-1], 1)
    _run_logits("logits", _slots_of_logits(x), x, first, second, s, t, 0, 0)
    return s, t


def logits_backward(
    x: Tensor, first: Tensor, second: Tensor, d_s: Tensor, d_t: Tensor, to: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Returns the gradients of :func:`logits`, that of the nodes added to another one that is contiguous."""
    x, first, second, d_s, d_t = map(Tensor.contiguous, (x, first, second, d_s, d_t))
    d_x = torch.empty_like(x) if to is None else to
    slots = _slots_of_logits(x)
    d_vectors = x.new_zeros(slots, 2, *first.shape)
    name = "logits_backward" if to is None else "logits_backward_added"
    _run_logits(name, slots, x, first, second, d_s, d_t, d_x, d_vectors)
    d_first, d_second = (d_vectors[0] if slots == 1 else d_vectors.sum(dim=0)).unbind()
    return d_x, d_first, d_second


def _slots_of_logits(x: Tensor) -> int:
    return max(1, min(MAX_SLOTS, 2 * x.numel() // WORK))


def _run_logits(name: str, slots: int, x: Tensor, *rest: Tensor | int) -> None:
    heads, channels = x.shape[-2:]
    if numbers := x.numel():
        nodes = numbers // (heads * channels)
        addresses = [y if isinstance(y, int) else y.data_ptr() for y in (x, *rest)]
        _shared_loop(name, x.dtype).run(array("q", (*addresses, nodes, slots, heads, channels)), slots)


def dropout_mask(edges: int, heads: int, p: float, seed: Tensor) -> Tensor:
    keep = _keep(p)
    mask = torch.empty(edges, heads, dtype=torch.float64, device="cpu")
    _shared_loop("draws", mask.dtype).run([int(seed), keep, mask], mask.numel())
    return mask.mul_(2**32 / keep if keep else 0.0)


def _keep(p: float) -> int:
    return round((1.0 - p) * 2**32) if p > 0 else -1


def _loop(recipe: Recipe, x: Operands, name: str) -> Loop:
    features, channels = x.features, x.channels if name in ("forward", "backward") else 0
    sizes = features if features in FIXED_SIZES else 0, channels if channels in FIXED_SIZES else 0
    return _guarded(name, x.dtype, recipe.text, *sizes)


def _shared_loop(name: str, dtype: torch.dtype) -> Loop:
    return _guarded(name, dtype)


def _guarded(name: str, dtype: torch.dtype, rule: str | None = None, *sizes: int) -> Loop:
    try:
        return _compiled(name, dtype, rule, *sizes)
    except (RuntimeError, TypeError, OSError) as error:
        what = name if rule is None else Recipe.read(rule)
        raise BackendError(f"LLVM could not compile {what}: {error}") from error


@functools.lru_cache(maxsize=1024)
def _compiled(name: str, kind: torch.dtype, rule: str | None, features: int = 0, channels: int = 0) -> Loop:
    from kgat.ops.cpu import logits, loops, waves
    from kgat.ops.cpu.runtime import Loop

    dtype = bare(kind)
    if rule is None:  # the same for all rules
        room = next(room for room in (waves, logits, loops) if hasattr(room, name))
        return Loop(getattr(room, name)(dtype), f"{name} in {dtype}", f"{name}|{dtype}")
    recipe = Recipe.read(rule)
    sizes = (features, channels, recipe.weighted, recipe.bias_inside)
    key = "|".join([name, dtype, str(sizes), *recipe.source])
    function = getattr(loops.Kernels(recipe, dtype, features, channels), name)()
    return Loop(function, f"{name} of {recipe} in {dtype}", key)
