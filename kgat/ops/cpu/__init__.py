r"""Fused attention on the CPU, compiled by Numba: gives the loops their tensors."""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kgat.ops.graph.adjacency import Adjacency
from kgat.ops.recipe import BackendError, Gradients, Operands, Recipe

if TYPE_CHECKING:
    from kgat.ops.cpu.runtime import Loop

NAME = "cpu"

# Work is cut into this many pieces at most, each of at least so many multiplications. The cut depends on
# sizes alone, so that sums over pieces do not depend on the number of threads.
MAX_SLOTS = 64
# Numbers of features and channels that code is compiled for; it takes all others too, a third slower.
FIXED_SIZES = (8, 16, 32, 64, 128)
WORK = 1 << 16


def attention(recipe: Recipe, adjacency: Adjacency, x: Operands) -> tuple[Tensor, Tensor]:
    r"""Computes :math:`\mathbf{o}` and :math:`\lambda`.

    Shapes:
        - **output:** :math:`(N, H, C)` and :math:`(N, H)`
    """
    dtype, heads, channels = _score_dtype(x), x.value.size(1), x.value.size(2)
    value = x.value.to(dtype)
    out = value.new_empty(adjacency.num_targets, heads, channels)
    lse = value.new_empty(adjacency.num_targets, heads)
    if lse.numel() == 0:
        return out.to(x.value.dtype), lse
    tensors = {**_operands(x), "value": value, "out": out, "lse": lse}
    _run(_loop(recipe, x, "forward"), adjacency, False, tensors, x)
    return out.to(x.value.dtype), lse


def attention_backward(
    recipe: Recipe, adjacency: Adjacency, x: Operands, out: Tensor, lse: Tensor, grad: Tensor
) -> Gradients:
    r"""Computes the gradients of all operands that are there.

    Shapes:
        - **out, grad:** :math:`(N, H, C)`, **lse:** :math:`(N, H)`
    """
    dtype, heads = _score_dtype(x), x.value.size(1)
    value = x.value.to(dtype)
    out, lse, grad = out.to(dtype).contiguous(), lse.contiguous(), grad.to(dtype).contiguous()
    paired = recipe.pair is not None
    found = {
        f"d_{name}": torch.empty_like(tensor)
        for name, tensor in (
            *(("value", value), ("key", x.key), ("query", x.query)),
            *(("query_bias", x.query_bias), ("key_bias", x.key_bias)),
            *(("edge_bias", x.edge_bias), ("edge_weight", x.edge_weight)),
        )
        if tensor is not None
    }
    if x.weight is not None:
        found["d_weight"] = torch.zeros_like(x.weight)
    if adjacency.num_edges == 0 or heads == 0:
        return _gradients({name: tensor.zero_() for name, tensor in found.items()}, x)
    packed = value.new_empty(adjacency.num_targets, heads, 4)
    row_tensors = {"query_bias": x.query_bias, "grad": grad, "out": out, "lse": lse, "packed": packed}
    row_tensors |= {"value": value}
    _run(_shared_loop("pack", dtype), adjacency, False, row_tensors, x)
    wanted = paired or x.query_bias is not None
    dt = value.new_empty(adjacency.num_edges, heads) if wanted else None
    tensors = {**_operands(x), "value": value, "grad": grad, "packed": packed, "dt": dt}
    by_column = ("d_value", "d_key", "d_key_bias", "d_edge_bias", "d_edge_weight")
    of_columns = {name: tensor for name, tensor in found.items() if name in by_column}
    of_columns |= {"place": adjacency.place}
    _run(_loop(recipe, x, "backward"), adjacency, True, {**tensors, **of_columns}, x)
    if x.query_bias is not None:
        _run(
            _shared_loop("sum_rows", dtype),
            adjacency,
            False,
            {"dt": dt, "d_query_bias": found["d_query_bias"], "value": value},
            x,
        )
    if paired:
        found |= _query_gradient(recipe, adjacency, x, tensors, found["d_query"])
    return _gradients(found, x)


def score(recipe: Recipe, adjacency: Adjacency, x: Operands) -> Tensor:
    r"""Computes the sums :math:`t`, in the caller's order of edges.

    Shapes:
        - **output:** :math:`(E, H)`
    """
    assert x.query is not None
    heads = x.query.size(1)
    out = x.query.new_empty(adjacency.num_edges, heads)
    if out.numel():
        tensors = {**_operands(x), "value": x.value, "out": out}
        _run(_loop(recipe, x, "score"), adjacency, False, tensors, x)
    return out


def score_backward(
    recipe: Recipe, adjacency: Adjacency, x: Operands, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    r"""Computes the gradients of query, key and weight from that of :math:`t`.

    Shapes:
        - **grad:** :math:`(E, H)`
    """
    assert x.query is not None
    assert x.key is not None
    d_query, d_key = torch.empty_like(x.query), torch.empty_like(x.key)
    if grad.numel() == 0:
        d_weight = None if x.weight is None else torch.zeros_like(x.weight)
        return d_query.zero_(), d_key.zero_(), d_weight
    tensors = {**_operands(x), "value": x.value, "dt": grad.contiguous()}
    found = _query_gradient(recipe, adjacency, x, {**tensors, "place": adjacency.edge}, d_query)
    by_column = adjacency.derive("by column", lambda: adjacency.edge.index_select(0, adjacency.place))
    tensors |= {"place": by_column, "d_key": d_key}
    _run(_loop(recipe, x, "key_gradient"), adjacency, True, tensors, x)
    return d_query, d_key, found.get("d_weight")


def _query_gradient(
    recipe: Recipe,
    adjacency: Adjacency,
    x: Operands,
    tensors: Mapping[str, Tensor | None],
    d_query: Tensor,
) -> dict[str, Tensor]:
    found = {"d_query": d_query}
    parts = None
    if x.weight is not None:  # one part per slot, added up in order
        parts = x.weight.new_zeros(_slots(adjacency, x), *x.weight.shape)
    loop = _loop(recipe, x, "query_gradient")
    _run(loop, adjacency, False, {**tensors, "d_query": d_query, "d_weight": parts}, x)
    if parts is not None:
        found["d_weight"] = parts.sum(dim=0)
    return found


def _operands(x: Operands) -> dict[str, Tensor | None]:
    names = ("query", "key", "weight", "query_bias", "key_bias", "edge_bias", "edge_weight")
    return {name: getattr(x, name) for name in names}


def _gradients(found: dict[str, Tensor], x: Operands) -> Gradients:
    names = {name.removeprefix("d_"): tensor for name, tensor in found.items()}
    return Gradients(**{**names, "value": names["value"].to(x.value.dtype)})


def _score_dtype(x: Operands) -> torch.dtype:
    return x.link_args.dtype


def _slots(adjacency: Adjacency, x: Operands) -> int:
    features = 0 if x.query is None else x.query.size(-1)
    work = adjacency.num_edges * x.value.size(1) * (features + x.value.size(2))
    return max(1, min(MAX_SLOTS, work // WORK))


def _bounds(pointer: Tensor, slots: int) -> tuple[Tensor, int]:
    # Rows cut so that each slot has as many edges (and rows) as any other; and the largest degree.
    cost = pointer + torch.arange(pointer.numel())
    share = torch.linspace(0, 1, slots + 1, dtype=torch.float64).mul(int(cost[-1])).round().long()
    bounds = torch.searchsorted(cost, share)
    bounds[0], bounds[-1] = 0, pointer.numel() - 1
    degree = int(pointer.diff().max()) if pointer.numel() > 1 else 0
    return bounds, degree


def _run(
    loop: Loop, adjacency: Adjacency, by_column: bool, tensors: Mapping[str, Tensor | None], x: Operands
) -> None:
    from kgat.ops.cpu.loops import BUFFERS, FIELDS, scratch_size

    pointer = adjacency.colptr if by_column else adjacency.rowptr
    slots = _slots(adjacency, x)
    bounds, degree = adjacency.derive(("bounds", by_column, slots), lambda: _bounds(pointer, slots))
    tasks = min(torch.get_num_threads(), slots)
    size = scratch_size(degree)
    dtype = _score_dtype(x)
    arguments: dict[str, Tensor | int | None] = {
        **tensors,
        # Made anew for each call: two Python threads may be in here at once.
        "scratch": torch.empty(tasks * BUFFERS * size, dtype=dtype),
        "scratch_size": size,
        "counter": torch.zeros(1, dtype=torch.int64),
        "slots": slots,
        "bounds": bounds,
        "ptr": pointer,
        "index": adjacency.row if by_column else adjacency.col,
        "edge": adjacency.edge,
        "pair_args": x.pair_args,
        "link_args": x.link_args,
        "scale": torch.tensor([x.scale], dtype=dtype),
        "seed": x.seed,
        "base": x.base,
        "base_step": 0 if x.base is None or x.base.dim() == 2 else x.base[0].numel(),
        "heads": x.value.size(1),
        "channels": x.value.size(2),
        "features": 0 if x.query is None else x.query.size(-1),
        "keep": _keep(x.dropout),
    }
    given = [arguments.get(name) for name in FIELDS]
    loop.run([0 if argument is None else argument for argument in given], tasks)


def dropout_mask(edges: int, heads: int, p: float, seed: Tensor) -> Tensor:
    r"""Returns the mask that a seed stands for, over :math:`1 - p`, in the caller's order of edges.

    Shapes:
        - **output:** :math:`(E, H)`
    """
    from kgat.ops.cpu.loops import kept

    keep = _keep(p)
    mask = kept(int(seed), edges * heads, keep).reshape(edges, heads)
    return torch.from_numpy(mask).double().mul_(2**32 / keep if keep else 0.0)


def _keep(p: float) -> int:
    return round((1.0 - p) * 2**32) if p > 0 else -1


@functools.cache
def available() -> str | None:
    r"""Returns why Numba cannot be used here, or :obj:`None` if it can."""
    try:
        importlib.import_module("numba")
    except (ImportError, SystemError) as error:
        return f"numba cannot be imported ({error})"
    return None


_compiling = threading.RLock()  # Numba's compiler is not to be entered twice


def _loop(recipe: Recipe, x: Operands, name: str) -> Loop:
    features = 0 if x.query is None else x.query.size(-1)
    channels = x.value.size(-1) if name in ("forward", "backward") else 0
    sizes = (size if size in FIXED_SIZES else 0 for size in (features, channels))
    return _guarded(
        _compiled, str(recipe), recipe.text, str(_score_dtype(x)).removeprefix("torch."), *sizes, name
    )


def _shared_loop(name: str, dtype: torch.dtype) -> Loop:
    return _guarded(_compiled_shared, name, name, str(dtype).removeprefix("torch."))


def _guarded(compiled: Callable[..., Loop], label: str, *key: Any) -> Loop:
    from numba.core.errors import NumbaError

    with _compiling:
        try:
            return compiled(*key)
        except (NumbaError, TypeError, NotImplementedError, OSError) as error:
            raise BackendError(f"Numba could not compile {label}: {error}") from error


@functools.lru_cache(maxsize=1024)
def _compiled(rule: str, dtype: str, features: int, channels: int, name: str) -> Loop:
    from kgat.ops.cpu.loops import Kernels
    from kgat.ops.cpu.math import marked
    from kgat.ops.cpu.runtime import Loop

    recipe = Recipe.read(rule)
    rules = (recipe.link,) if recipe.pair is None else (recipe.link, recipe.pair)
    text = [f.text for x in rules for f in (x.in_scalars, x.derivative)]  # type: ignore[union-attr]
    key = "|".join([name, dtype, str((features, channels, recipe.weighted, recipe.bias_inside)), *text])
    with marked(key):
        function = getattr(Kernels(recipe, dtype, features, channels), name)()
        return Loop(function, f"{name} of {recipe} in {dtype}", key)


@functools.cache
def _compiled_shared(name: str, dtype: str) -> Loop:
    from kgat.ops.cpu import loops as cpu_kernels
    from kgat.ops.cpu.math import marked
    from kgat.ops.cpu.runtime import Loop

    key = f"{name}|{dtype}"
    with marked(key):
        return Loop(getattr(cpu_kernels, name)(dtype), f"{name} in {dtype}", key)
