r"""How scores start: scales of what kernels are given, set once from data, as lazy layers set their sizes."""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeGuard

import torch
from torch import Tensor

from kgat.capture import is_captured
from kgat.kernels import Context, Kernel, PerHead, Product, ScaledCosine, Sum
from kgat.ops.graph.adjacency import check_indices
from kgat.ops.precision import at_least_single

__all__ = ["STARTS", "calibrate"]

STARTS = (None, "unit", "median")

# Scales are 2^(n / STEPS) with whole n. The deviation of a score that is quadratic in its inputs is then met
# within some per cent, and rounding, which differs between devices and numbers of threads, stays out of it.
STEPS = 32
REACH = 32 * STEPS
ELEMENTS = 2**22  # of the queries at sampled edges, which bounds the cost of a fit

_LOCK = threading.RLock()  # one for all layers: a layer with a lock of its own could not be copied or pickled


def parts(kernel: Kernel) -> list[Kernel]:
    r"""Returns the factors and summands of a kernel, however deep."""
    return [inner for part in kernel.parts for inner in parts(part)] if _is_joined(kernel) else [kernel]


def _is_joined(kernel: Kernel) -> TypeGuard[Product | Sum]:
    return type(kernel) in (Product, Sum)


def named_scaled(layer: torch.nn.Module) -> dict[str, Kernel]:
    r"""Returns the kernels of a layer whose inputs are scaled, by their names in a state dict."""
    scaled = set(_scaled(layer))
    return {path: part for path, part in layer.named_modules() if part in scaled}  # type: ignore[misc]


def is_open(layer: torch.nn.Module) -> bool:
    r"""Whether a layer has scales that are still to be set."""
    return any(part.input_scale is None for part in _scaled(layer))


def _kernels(layer: torch.nn.Module) -> list[Kernel]:
    return [kernel for kernel in (layer.kernel, layer.position_kernel) if kernel is not None]  # type: ignore[misc]


def _scaled(layer: torch.nn.Module) -> list[Kernel]:
    alone = [k for kernel in _kernels(layer) for k in (kernel.parts if type(kernel) is PerHead else [kernel])]
    return [p for kernel in alone for p in parts(kernel) if p.scalable]


def reopen(layer: torch.nn.Module) -> None:
    r"""Makes the next forward pass of a layer set its scales."""
    for kernel in named_scaled(layer).values():
        kernel.input_scale = None


def fit(
    layer: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    edge_index: tuple[Tensor, Tensor],
    vector: Tensor | None = None,
    places: tuple[Tensor, Tensor] | None = None,
    context: Context = Context(),  # noqa: B008 (a constant)
) -> None:
    r"""Sets the scales of a layer that has none yet; nothing to do for another.

    .. math::
        \text{unit:} \quad \mathrm{std}_{(i, j) \in \mathcal{E}} \,
        \log k(s_h \mathbf{q}_{ih}, s_h \mathbf{k}_{jh}) &= 1 \\
        \text{median:} \quad \mathrm{median}_{(i, j) \in \mathcal{E}} \,
        \log k(s_h \mathbf{q}_{ih}, s_h \mathbf{k}_{jh}) &= -\tfrac{1}{2}

    Each factor and summand is brought to this on the edges, head by head, and then, to a deviation of 1, by a
    common factor, all of them together. A median of :math:`-1/2` is what :class:`~kgat.kernels.RBF` has if
    its lengthscale is the median distance; kernels that are not translation-invariant are left alone. Where
    the value cannot be reached, it is the nearest that can. Scales stay open, so that the next pass tries
    again, if there are fewer than two edges with finite features or all scores are alike.

    The kernels are asked in evaluation mode, so that nothing is drawn. With :mod:`torch.distributed` all
    processes take the scales of the first one: all must come here together.

    Args:
        layer (torch.nn.Module): The layer, with its :obj:`kernel` and perhaps a :obj:`position_kernel`.
        query (torch.Tensor): The queries.
        key (torch.Tensor): The keys.
        edge_index ((torch.Tensor, torch.Tensor)): Targets and sources.
        vector (torch.Tensor, optional): What is added to the key of each edge. (default: :obj:`None`)
        places ((torch.Tensor, torch.Tensor), optional): Queries and keys of the position kernel.
            (default: :obj:`None`)
        context (Context, optional): The graphs of a batch. (default: :obj:`Context()`)

    Shapes:
        - **query:** :math:`(N, H, D)`, **key:** :math:`(M, H, D)`, **edge_index:** each :math:`(E)`
        - **vector:** :math:`(E, H, D)`

    Raises:
        RuntimeError: If the layer is being compiled, exported, traced, transformed by :mod:`torch.func` or
            run as a replica, none of which could keep the scales.
    """
    if not is_open(layer):
        return
    if is_captured() or getattr(layer, "_is_replica", False):
        raise RuntimeError(
            f"Expected a layer whose scores have their start (got {layer!r} before its first forward pass); "
            "call kgat.nn.calibrate(model, x, edge_index) once before it is compiled, exported, traced, "
            "replicated or transformed by torch.func"
        )
    # A buffer made in inference mode could not be trained with.
    with _LOCK, torch.inference_mode(False), torch.no_grad():
        if not is_open(layer):  # another thread was here meanwhile
            return
        row, col = edge_index
        check_indices(row, col, query.size(0), key.size(0))
        query, key = _single(query), _single(key)
        chosen = _sampled(row.numel(), query[0].numel() if query.numel() else 1).to(row.device)
        row, col = row[chosen], col[chosen]
        at_query, at_key = query.index_select(0, row), key.index_select(0, col)
        if vector is not None:
            at_key = at_key + vector.detach()[chosen]
        sides, nodes = [(at_query, at_key)], [(query, key)]
        if places is not None:
            t_query, t_key = map(_single, places)
            sides.append((t_query.index_select(0, row), t_key.index_select(0, col)))
            nodes.append((t_query, t_key))
        entries = list(zip(_kernels(layer), sides, nodes, strict=True))
        is_median = layer.start == "median"
        if any(type(kernel) is PerHead for kernel, *_ in entries):  # heads know nothing of each other
            for single in [one for entry in entries for one in _by_heads(*entry)]:
                _fit([single], context, row, col, is_median)
        else:
            _fit(entries, context, row, col, is_median)


Pair = tuple[Tensor, Tensor]
Entry = tuple[Kernel, Pair, Pair]  # a kernel, its queries and keys at sampled edges, and those of all nodes


def _by_heads(kernel: Kernel, side: Pair, nodes: Pair) -> list[Entry]:
    if not isinstance(kernel, PerHead):
        return [(kernel, side, nodes)]
    of_side, of_nodes = (zip(*map(kernel.of_parts, pair), strict=True) for pair in (side, nodes))
    return list(zip(kernel.parts, of_side, of_nodes, strict=True))


def _fit(entries: list[Entry], context: Context, row: Tensor, col: Tensor, is_median: bool) -> None:
    scaled = [part for kernel, *_ in entries for part in parts(kernel) if part.scalable]
    if not scaled:
        return
    operands = [(kernel, *side) for kernel, side, _ in entries]
    # What a kernel computes from a whole side is that of the nodes, not of the edges that are looked at.
    whole = {
        part: (q.nan_to_num(0.0, 0.0, 0.0), k.nan_to_num(0.0, 0.0, 0.0), Context(context.batch))
        for kernel, _, (q, k) in entries
        for part in parts(kernel)
    }
    operands, within = _finite(operands, Context(context.batch_at(row, col)))
    query = operands[0][1]
    exponents = _shared(_fitted(operands, scaled, within, whole, is_median), len(scaled), query)
    if exponents is None:
        return
    for kernel, own in zip(scaled, exponents, strict=True):
        scale = query.new_tensor([[2.0 ** (n / STEPS)] for n in own])
        if _has_beta(kernel):  # the length of its inputs cancels
            kernel.beta.copy_(kernel.beta * scale)
            scale = torch.ones_like(scale)
        kernel.input_scale = scale


def _has_beta(kernel: Kernel) -> TypeGuard[ScaledCosine]:
    # Not of a subclass with another score, which beta is no factor of.
    return isinstance(kernel, ScaledCosine) and type(kernel).lift is ScaledCosine.lift


Operand = tuple[Kernel, Tensor, Tensor]


def _single(x: Tensor) -> Tensor:
    return at_least_single(x.detach())


def _sampled(edges: int, width: int) -> Tensor:
    count = min(max(ELEMENTS // width, 1024), 65536)
    # On the CPU, whatever the default is, where the generator draws the same for all devices.
    if edges <= count:
        return torch.arange(edges, device="cpu")
    generator = torch.Generator("cpu").manual_seed(0)
    return torch.randint(edges, (count,), generator=generator, device="cpu")


def _finite(operands: list[Operand], context: Context) -> tuple[list[Operand], Context]:
    right = torch.stack([x.isfinite().flatten(1).all(dim=1) for _, *pair in operands for x in pair]).all(
        dim=0
    )
    batch = context.batch
    if batch is not None:
        context = Context((batch[0][right], batch[1][right]))
    return [(kernel, q[right], k[right]) for kernel, q, k in operands], context


def _varies(x: Tensor) -> bool:
    # By more than rounding, which a scale could blow up to a deviation of 1.
    spread = (x.amax(dim=0) - x.amin(dim=0)).amax()
    return bool(spread > 32 * torch.finfo(x.dtype).eps * x.abs().amax())


def _fitted(
    operands: list[Operand],
    scaled: list[Kernel],
    context: Context,
    whole: dict[Kernel, tuple[Tensor, Tensor, Context]],
    is_median: bool,
) -> list[list[int]] | None:
    if operands[0][1].size(0) < 2 or not any(_varies(x) for _, *pair in operands for x in pair):
        return None
    inputs = {part: (q, k) for kernel, q, k in operands for part in parts(kernel)}
    heads = operands[0][1].size(1)

    def score(part: Kernel, exponents: list[int]) -> Tensor:
        query, key = inputs[part]
        scale = query.new_tensor([2.0 ** (n / STEPS) for n in exponents])
        # Not called as a module: its hooks would count passes that no user asked for.
        if _has_beta(part):
            return part.forward(query, key, context).paired() * scale
        scale = scale.unsqueeze(-1)
        by_query = query * scale
        by_key = by_query if key is query else key * scale
        queries, keys, own = whole[part]
        sides = context._replace(whole=(queries * scale, keys * scale, own))
        return part.forward(by_query, by_key, sides).paired()

    def measured(part: Kernel, exponents: list[int]) -> list[float]:
        scores = score(part, exponents)
        return _medians(scores) if is_median else _deviations(scores)

    # Not of a distance, a score has no lengthscale.
    asked = [part for part in scaled if part.translation_invariant] if is_median else scaled
    with _evaluated([kernel for kernel, *_ in operands]):
        for part in scaled:
            part.input_scale = None
        alone = {part: _solved(partial(measured, part), heads) for part in asked}
        found = {part: [0 if n is None else n for n in alone.get(part, [0] * heads)] for part in scaled}
        if asked and all(n is None for own in alone.values() for n in own):
            return None
        # What is left alone would not give way.
        if not is_median and 1 < len(scaled) == len(inputs):

            def together(common: list[int]) -> list[float]:
                def scored(part: Kernel) -> Tensor:
                    return score(part, [m + n for m, n in zip(found[part], common, strict=True)])

                totals = [_combined(kernel, scored) for kernel, *_ in operands]
                return _deviations(torch.stack(totals).sum(dim=0))

            common = [0 if n is None else n for n in _solved(together, heads)]
            found = {p: [m + n for m, n in zip(own, common, strict=True)] for p, own in found.items()}
    return [found[part] for part in scaled]


def _combined(kernel: Kernel, score: Callable[[Kernel], Tensor]) -> Tensor:
    if not _is_joined(kernel):
        return score(kernel)
    scores = torch.stack([_combined(part, score) for part in kernel.parts])
    return scores.sum(dim=0) if type(kernel) is Product else scores.logsumexp(dim=0)


def _deviations(score: Tensor) -> list[float]:
    # 0 where all scores are alike but for rounding, infinity where one is not finite.
    largest = score.abs().amax(dim=0)
    deviation = score.std(dim=0, unbiased=False)
    deviation = torch.where(deviation > 32 * torch.finfo(score.dtype).eps * largest, deviation, 0.0)
    return torch.where(largest.isfinite(), deviation, math.inf).tolist()


def _medians(score: Tensor) -> list[float]:
    # 1 for a median of -1/2. A node beside itself says nothing of distances.
    return (
        (-2.0 * torch.where(score == 0.0, math.nan, score).nanmedian(dim=0).values).nan_to_num(0.0).tolist()
    )


def _solved(deviations: Callable[[list[int]], list[float]], heads: int) -> list[int | None]:
    r"""Returns for each head the :math:`n` whose deviation is nearest to 1: doubles or halves the scale until
    1 is passed, then bisects; :obj:`None` where the deviation is 0 all the way."""
    tried: list[dict[int, float]] = [{} for _ in range(heads)]
    next_up: list[int | None] = [0] * heads
    while any(n is not None for n in next_up):
        asked = [n if n is not None else _nearest(tried[h]) or 0 for h, n in enumerate(next_up)]
        for h, value in enumerate(deviations(asked)):
            tried[h][asked[h]] = value
            next_up[h] = None if next_up[h] is None else _next(tried[h], asked[h])
    return [_nearest(own) for own in tried]


def _next(tried: dict[int, float], last: int) -> int | None:
    above = tried[0] >= 1.0
    passed = [n for n, value in tried.items() if (value >= 1.0) != above]
    if not passed:
        last += -STEPS if above else STEPS
        return last if abs(last) <= REACH else None
    # The bracket: the point nearest to 0 beyond the crossing, and the farthest before it.
    far = min(passed, key=abs)
    near = max((n for n, value in tried.items() if (value >= 1.0) == above and abs(n) < abs(far)), key=abs)
    return (near + far) // 2 if abs(far - near) > 1 else None


def _nearest(tried: dict[int, float]) -> int | None:
    rated = {n: abs(math.log(value)) for n, value in tried.items() if 0.0 < value < math.inf}
    # Of equally good ones, as of bounded scores, the one that changes least.
    return min(rated, key=lambda n: (round(rated[n], 2), abs(n))) if rated else None


def _shared(found: list[list[int]] | None, kernels: int, like: Tensor) -> list[list[int]] | None:
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return found
    heads = like.size(1)
    flat = [0] * (kernels * heads + 1) if found is None else [1, *(n for own in found for n in own)]
    table = torch.tensor(flat, device=like.device)
    torch.distributed.broadcast(table, src=0)
    first, *rest = table.tolist()
    return [rest[i * heads : (i + 1) * heads] for i in range(kernels)] if first else None


@contextmanager
def _evaluated(kernels: Sequence[Kernel]) -> Iterator[None]:
    modes = [(module, module.training) for kernel in kernels for module in kernel.modules()]
    for kernel in kernels:
        kernel.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def save(layer: torch.nn.Module, state: dict[str, Any], prefix: str) -> None:
    r"""Notes in a state dict which scales are still to be set, as zeros: they would else look like those of a
    layer that never had any."""
    for path, kernel in named_scaled(layer).items():
        if kernel.input_scale is None:
            state[f"{prefix}{path}.input_scale"] = torch.zeros(kernel.heads, 1)


def load(layer: torch.nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    r"""Makes room for the scales of a state dict, before it is loaded. One without any is of a layer that was
    trained as it is: its scales are 1, and no pass changes them."""
    if not any(name.startswith(prefix) for name in state):
        return
    wanted = getattr(layer, "start", None) is not None
    reference = next(layer.parameters(), torch.empty(0))
    for path, kernel in named_scaled(layer).items():
        name = f"{prefix}{path}.input_scale"
        if name in state and not bool(state[name].any()):
            del state[name]
            kernel.input_scale = None
        elif name in state or wanted:
            dtype = reference.dtype if reference.dtype.is_floating_point else None
            kernel.input_scale = torch.ones(kernel.heads, 1, device=reference.device, dtype=dtype)
            state.setdefault(name, kernel.input_scale.clone())


def calibrate(model: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
    r"""Sets the scales of all layers with a :obj:`start` anew: runs the model once, without gradients and
    in the mode that it is in.

    The first forward pass does the same by itself. Call this before a model is compiled, exported, copied for
    an average of weights, or shown data of another scale.

    Args:
        model (torch.nn.Module): The model, or a layer.
        *args: What its forward pass takes.
        **kwargs: What its forward pass takes.

    Raises:
        ValueError: If no layer has such a start, or if the scores of one are all alike on this input.

    Example:
        >>> import torch
        >>> from kgat import KernelGATConv
        >>> from kgat.nn import calibrate
        >>> conv = KernelGATConv(16, 8, heads=2, kernel="rbf", start="unit")
        >>> calibrate(conv, 1e-3 * torch.randn(5, 16), torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 0]]))
        >>> conv.kernel.input_scale.shape
        torch.Size([2, 1])
    """
    layers = {
        name: module for name, module in model.named_modules() if getattr(module, "start", None) in STARTS[1:]
    }
    if not layers:
        raise ValueError(
            f"Expected a layer with start='unit' or 'median' (got none in '{type(model).__name__}'); build "
            "it with that argument"
        )
    for layer in layers.values():
        reopen(layer)
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        model(*args, **kwargs)
    for name, layer in layers.items():
        if is_open(layer):
            raise ValueError(
                f"Expected edges whose scores differ (got none in layer '{name or type(layer).__name__}'); "
                "pass data with at least two edges and features that vary"
            )
