r"""The laws of a kernel."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.gradcheck import gradcheck, gradgradcheck

from kgat import ops
from kgat.functional import dense_attention, edge_attention
from kgat.kernels.kernel import Context, Kernel
from kgat.names import bare
from kgat.ops.precision import HALF
from kgat.ops.recipe import BackendError
from kgat.testing.backend import GRAPHS, attention_on
from kgat.testing.law import Points, all_pairs, at_edges, equal, fail, made_by, perturb, relative_error
from kgat.testing.rule import check_derivatives


def check_kernel(
    factory: Callable[[int, int], Kernel],
    channels: int = 5,
    heads: int = 3,
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> None:
    r"""Checks the laws of a kernel, at its initial parameters and at perturbed ones.

    * **shape**: queries and keys of other channels or heads raise :class:`ValueError`; scores have
      the shapes and the dtype that :class:`~kgat.kernels.Kernel` promises, also without queries or
      keys;
    * **finite**: scores are finite on random points, at zero, at :math:`\mathbf{q} = \mathbf{k}`
      and :math:`10^3` away from the origin, and so are their first gradients, also in float32;
    * **at == dense**: all routes to a score agree;
    * **pairs**: the score of a pair depends on no other token, batch item or head;
    * **independence**: not even in its last bit, whatever another node (of another graph, where the kernel
      computes its parameters from a graph) holds: huge numbers, infinity or NaN;
    * **spread**: float32 scores of points in distant clumps err by no more than the rounding of such points
      does, at edges and for all pairs;
    * **scales**: routes of attention (all pairs with each method that runs the kernel, and edges) give the
      same averages for inputs of scale :math:`10^{-3}` to :math:`10^4`, in float64 and float32, with finite
      gradients;
    * **forward**: it writes nothing on the module;
    * **features**: where they exist, :math:`\langle f, g \rangle = \exp(\mathrm{score})`;
    * **signed**: a kernel that can be negative refuses scores and offers features;
    * **symmetric**, **positive definite**, **translation invariant**: what the class declares,
      holds;
    * **masked by bias**: where it declares that, an edge bias of minus infinity is as good as no edge, in
      values and all gradients, on every backend of this machine;
    * **undecayed**: what it names there are its parameters;
    * **gradient**, **second gradient**: analytic ones equal numerical ones, for queries, keys and
      all parameters;
    * **precision**: float32 agrees with float64, and half-precision input, parameters and autocast
      give float32 scores;
    * **state**, **reset**, **eval**: the state dict restores every score bit by bit, drawing
      parameters anew repeats under a seed, drawing random buffers anew depends on the generator that is given
      and on nothing else, and evaluation is deterministic;
    * **repr**: it names the class, and all arguments whose value is not the default;
    * **backends**: attention on edges from more sources than targets is the same, with all gradients, on
      every backend of this machine;
    * **derivatives**: see :func:`check_backend`.

    Args:
        factory (Callable): The class, a :func:`functools.partial` or function: called with
            ``(channels, heads)``.
        channels (int, optional): Channels per head :math:`D`. (default: :obj:`5`)
        heads (int, optional): Number of heads :math:`H`, at least 2 to see them mix.
            (default: :obj:`3`)
        dtype (torch.dtype, optional): The precision in which values are compared; gradients are
            checked in float64 always. (default: :obj:`torch.float64`)
        seed (int, optional): Seed of all points and parameters; the global generator is left as it
            was. (default: :obj:`0`)

    Raises:
        AssertionError: If a law fails; it names the law, the kernel and the numbers.

    Example:
        >>> from functools import partial
        >>> from kgat.kernels import RBF, Kernel
        >>> from kgat.testing import check_kernel
        >>> check_kernel(partial(RBF, lengthscale=2.0))
        >>> class Lopsided(Kernel):
        ...     symmetric = True
        ...     def score(self, query, key):
        ...         return (query - 2 * key).sum(dim=-1)
        >>> check_kernel(Lopsided)
        Traceback (most recent call last):
            ...
        AssertionError: Law 'symmetric' fails for Lopsided(5, heads=3): ...
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        kernel = made_by(factory, channels, heads)
        _check_repr(kernel)
        _check_undecayed(kernel)
        _check_signed(kernel)
        _check_reset(kernel, factory, seed)
        kernel.eval()  # in training, a kernel may sample
        _check_eval(kernel)
        for perturbed in (False, True):
            if perturbed:
                perturb(kernel)
            points = Points(kernel, dtype)
            exact = copy.deepcopy(kernel).to(dtype)
            _check_shapes(exact, points)
            _check_finite(exact, points)
            _check_routes(exact, points)
            _check_pairs(exact, points)
            _check_features(exact, points)
            _check_claims(exact, points)
            with torch.random.fork_rng(devices=[]):
                _check_independence(kernel)
                _check_masked(kernel)
        _check_precision(kernel)
        with torch.random.fork_rng(devices=[]):
            _check_spread(kernel)
            _check_scales(kernel)
            _check_forward(kernel)
        _check_finite(copy.deepcopy(kernel).float(), Points(kernel, torch.float32))
        _check_gradients(copy.deepcopy(kernel).double())
        _check_state(kernel, factory, seed)
        _check_backends(kernel, factory, seed)
        check_derivatives(kernel, seed)


def _own_kernels(kernel: Kernel) -> list[Kernel]:
    return [part for part in kernel.modules() if isinstance(part, Kernel)]


def _check_repr(kernel: Kernel) -> None:
    for part in _own_kernels(kernel):
        if type(part).__name__ not in repr(part):
            fail(kernel, "repr", f"expected the name '{type(part).__name__}' (got {part!r})")
        for name, value in part._changed_arguments("channels", "heads").items():
            if not re.search(rf"\b{name}=", repr(part)):
                fail(kernel, "repr", f"expected the argument '{name}={value!r}' (got {part!r})")


def _check_undecayed(kernel: Kernel) -> None:
    for part in _own_kernels(kernel):
        own = list(part._parameters)  # those that are None, too: they are not learned for these arguments
        for name in part.undecayed:
            if name not in own:
                what = f"expected names of parameters (got '{name}'); {type(part).__name__} has "
                fail(kernel, "undecayed", what + (", ".join(map(repr, own)) or "none"))


def _check_shapes(kernel: Kernel, points: Points) -> None:
    q, k = points.query, points.key
    wrong = {
        "channels": q.new_zeros(4, kernel.heads, kernel.channels + 1),
        "heads": q.new_zeros(4, kernel.heads + 1, kernel.channels),
    }
    for name, x in wrong.items():
        for side, pair in (("query", (x, k)), ("key", (q, x))):
            try:
                kernel(*pair)
            except ValueError:
                continue
            fail(kernel, "shape", f"a {side} with one of the {name} too many raised no ValueError")
    for n, m in ((q.size(0), k.size(0)), (0, k.size(0)), (q.size(0), 0)):
        query = q[:n].clone().requires_grad_()
        key = k[:m].clone().requires_grad_()
        score = all_pairs(kernel(query, key))
        if score.shape != (n, m, kernel.heads) or score.dtype != q.dtype:
            wanted, got = f"[{n}, {m}, {kernel.heads}] {q.dtype}", f"{list(score.shape)} {score.dtype}"
            fail(kernel, "shape", f"expected dense scores {wanted} (got {got})")
        _gradients_finite(kernel, score, [query, key], f"{n} queries and {m} keys")


def _check_signed(kernel: Kernel) -> None:
    points = Points(kernel, torch.float32)
    gram = kernel(points.query, points.key)
    if not gram.signed:
        return
    index = torch.tensor([0])
    for name, call in (("at", lambda: gram.at(index, index)), ("dense", gram.dense)):
        try:
            call()
        except NotImplementedError:
            continue
        fail(kernel, "signed", f"'{name}' gave scores of a kernel that can be negative")
    try:
        gram.features()
    except NotImplementedError:
        fail(kernel, "signed", "it offers neither scores nor features")


def _all_finite(x: Tensor) -> bool:
    return bool(torch.isfinite(x).all())


def _gradients_finite(kernel: Kernel, score: Tensor, inputs: list[Tensor], where: str) -> None:
    if not score.requires_grad:
        return
    named = dict(kernel.named_parameters())
    names = ["query", "key", *named]
    grads = torch.autograd.grad(score.sum(), [*inputs, *named.values()], allow_unused=True)
    for name, grad in zip(names, grads, strict=True):
        if grad is not None and not _all_finite(grad):
            fail(kernel, "finite", f"the gradient of '{name}' is not finite at {where}")


def _check_finite(kernel: Kernel, points: Points) -> None:
    q, k = points.query, points.key
    holes = q.clone()
    holes[..., ::2] = 0.0
    cases = {
        "random points": (q, k),
        "q = k": (q, q.clone()),
        "zero queries": (torch.zeros_like(q), k),
        "zero keys": (q, torch.zeros_like(k)),
        "zero queries and keys": (torch.zeros_like(q), torch.zeros_like(k)),
        "points with zero entries": (holes, holes.clone()),
        "points far from the origin": (q + 1e3, k + 1e3),
        "points far from each other": (q + 1e2, k - 1e2),
    }
    for case, (query, key) in cases.items():
        where = f"{case} in {q.dtype}"
        query, key = query.clone().requires_grad_(), key.clone().requires_grad_()
        score = all_pairs(kernel(query, key))
        if not _all_finite(score):
            bad = score[~torch.isfinite(score)][0].item()
            fail(kernel, "finite", f"expected finite scores at {where} (got {bad})")
        _gradients_finite(kernel, score, [query, key], where)


def _check_routes(kernel: Kernel, points: Points) -> None:
    q, k = points.query, points.key
    gram = kernel(q, k)
    if gram.signed:
        return
    dense = gram.dense()
    row = torch.tensor([0, 3, 3, 5, 1, 0])
    col = torch.tensor([4, 0, 2, 1, 1, 4])
    at = gram.at(row, col)
    equal(kernel, "at == dense", "scores at edges", at, dense[row, col], points.tolerance)
    # A pair that stands alone is the kernel of one query and one key.
    pairs = zip(row.tolist(), col.tolist(), strict=True)
    single = torch.stack([kernel(q[i : i + 1], k[j : j + 1]).dense()[0, 0] for i, j in pairs])
    equal(kernel, "pairs", "scores of single pairs", single, at, points.tolerance)
    score = kernel.score(q[row], k[col])
    equal(kernel, "at == dense", "'score' of gathered pairs", score, at, points.tolerance)
    empty = gram.at(row[:0], col[:0])
    if empty.shape != (0, kernel.heads):
        fail(kernel, "shape", f"expected [0, {kernel.heads}] for no edges (got {list(empty.shape)})")


def _check_pairs(kernel: Kernel, points: Points) -> None:
    q, k, tolerance = points.query, points.key, points.tolerance
    value = all_pairs(kernel(q, k))
    order_q = torch.randperm(q.size(0))
    order_k = torch.randperm(k.size(0))
    permuted = all_pairs(kernel(q[order_q], k[order_k]))
    equal(kernel, "pairs", "permuted tokens", permuted, value[order_q][:, order_k], tolerance)
    part = all_pairs(kernel(q[:2], k[1:4]))
    equal(kernel, "pairs", "a part of the tokens", part, value[:2, 1:4], tolerance)

    other_q, other_k = torch.randn_like(q), torch.randn_like(k)
    other = all_pairs(kernel(other_q, other_k))
    batch = all_pairs(kernel(torch.stack([q, other_q]), torch.stack([k, other_k])))
    equal(kernel, "pairs", "a batch of two", batch, torch.stack([value, other]), tolerance)

    q2, k2 = q.clone(), k.clone()
    q2[:, 0], k2[:, 0] = other_q[:, 0], other_k[:, 0]
    changed = all_pairs(kernel(q2, k2))
    what = "heads whose input did not change"
    equal(kernel, "pairs", what, changed[..., 1:], value[..., 1:], tolerance)
    equal(kernel, "pairs", "the head that changed", changed[..., 0], other[..., 0], tolerance)


def _check_independence(kernel: Kernel) -> None:
    kernel, points = copy.deepcopy(kernel).float(), Points(kernel, torch.float32)
    q, k = points.query, points.key
    row, col = torch.cartesian_prod(torch.arange(q.size(0) - 1), torch.arange(k.size(0) - 1)).T
    context: tuple[Context, ...] = ()
    if any(getattr(part, "data_dependent", False) for part in kernel.modules()):  # the last is another graph
        of_query, of_key = (torch.arange(x.size(0)) // (x.size(0) - 1) for x in (q, k))
        context = (Context(batch=(of_query, of_key)),)
    expected = at_edges(kernel(q, k, *context), row, col)
    for number in (1e3, -99999.0, 1e20, torch.inf, torch.nan):
        far_q, far_k = q.clone(), k.clone()
        far_q[-1], far_k[-1] = number, -number
        for query, key in ((far_q, k), (q, far_k), (far_q, far_k)):
            score = at_edges(kernel(query, key, *context), row, col)
            what = f"scores beside a node at {number:g}"
            equal(kernel, "independence", what, score, expected, 0.0)


def _check_features(kernel: Kernel, points: Points) -> None:
    gram = kernel(points.query, points.key)
    if gram.signed:
        return
    try:
        f, g = gram.features()
    except NotImplementedError:
        return
    product = torch.einsum("nhr,mhr->nmh", f, g)
    equal(kernel, "features", "<f, g>", product, gram.dense().exp(), points.tolerance)


def _check_claims(kernel: Kernel, points: Points) -> None:
    q, k, tolerance = points.query, points.key, points.tolerance
    x = torch.cat([q, k, torch.zeros_like(q[:1])])
    gram = kernel(x, x)
    value = all_pairs(gram)  # [n, n, H]
    if kernel.symmetric:
        equal(kernel, "symmetric", "k(q, k) = k(k, q)", value, value.transpose(0, 1), tolerance)
    if kernel.positive_definite:
        matrix = value if gram.signed else (value - value.amax(dim=(0, 1))).exp()
        matrix = matrix.permute(2, 0, 1).double()
        eigenvalues = torch.linalg.eigvalsh(0.5 * (matrix + matrix.transpose(-2, -1)))
        lowest, highest = eigenvalues.min().item(), eigenvalues.abs().max().item()
        if lowest < -tolerance * highest:
            what = "expected no negative eigenvalue of a Gram matrix"
            fail(kernel, "positive definite", f"{what} (got {lowest:.3g}, the largest is {highest:.3g})")
    if kernel.translation_invariant:
        shift = torch.randn(kernel.heads, kernel.channels, dtype=q.dtype)
        moved = all_pairs(kernel(q + shift, k + shift))
        what = "k(q + c, k + c) = k(q, k)"
        equal(kernel, "translation invariant", what, moved, all_pairs(kernel(q, k)), tolerance)


def _check_masked(kernel: Kernel) -> None:
    if not kernel.masked_by_bias:
        return
    for backend in ops.here():
        for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-3)):
            device = ops.named(backend).device or "cpu"
            model, points = copy.deepcopy(kernel).to(device, dtype), Points(kernel, dtype)
            q, k, v = (x.to(device) for x in (points.query, points.key, torch.randn_like(points.key)))
            row, col = torch.cartesian_prod(torch.arange(q.size(0)), torch.arange(k.size(0))).T.to(device)
            bias = torch.randn(row.numel(), kernel.heads).to(q)
            kept = (row > 1) | ((row == 1) & (col > 1))  # none of the first query, some of the second
            hidden = bias.masked_fill(~kept.unsqueeze(-1), -torch.inf)
            try:
                expected = _attention(model, q, k, v, bias[kept], torch.stack([col, row])[:, kept], backend)
                found = _attention(model, q, k, v, hidden, torch.stack([col, row]), backend)
            except (NotImplementedError, BackendError):
                continue  # which the automatic choice passes over, too
            wanted = torch.zeros_like(bias)
            wanted[kept] = expected["gradient of edge_bias"]
            expected["gradient of edge_bias"] = wanted
            for what, value in found.items():
                where = f"{what} beside biases of minus infinity, by {backend} in {bare(dtype)}"
                equal(kernel, "masked by bias", where, value, expected[what], tolerance)


def _attention(
    kernel: Kernel, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, edge_index: Tensor, backend: str
) -> dict[str, Tensor]:
    x = {"query": q, "key": k, "value": v, "edge_bias": bias}
    x = {name: value.clone().requires_grad_() for name, value in x.items()}
    gram = kernel(x["query"], x["key"])
    out = edge_attention(gram, x["value"], edge_index, edge_bias=x["edge_bias"], backend=backend)
    slope = torch.linspace(-1, 1, out.numel()).to(out).view_as(out)
    x |= dict(kernel.named_parameters())
    grads = torch.autograd.grad((out * slope).sum(), list(x.values()), materialize_grads=True)
    return {"output": out.detach()} | {f"gradient of {n}": g for n, g in zip(x, grads, strict=True)}


class _Dense(torch.nn.Module):
    r"""The scores as a function of tensors: rules may look at parameters when a pair is evaluated."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        return all_pairs(self.kernel(query, key))


def _check_gradients(kernel: Kernel) -> None:
    points = Points(kernel, torch.float64, queries=3, keys=2)
    dense = _Dense(kernel)
    names = [name for name, _ in dense.named_parameters()]
    parameters = [p.detach().clone().requires_grad_() for p in dense.parameters()]
    inputs = (points.query.requires_grad_(), points.key.requires_grad_(), *parameters)

    def scores(query: Tensor, key: Tensor, *values: Tensor) -> Tensor:
        state = dict(zip(names, values, strict=True))
        return torch.func.functional_call(dense, state, (query, key))

    # Fast mode compares random projections of the Jacobians: wrong ones differ with probability 1.
    for law, check in (("gradient", gradcheck), ("second gradient", gradgradcheck)):
        try:
            check(scores, inputs, fast_mode=True)
        except RuntimeError as error:  # a GradcheckError, or a function without a derivative
            reason = " ".join(str(error).split("The above quantities")[0].split())
            order = ", ".join(["query", "key", *(n.removeprefix("kernel.") for n in names)])
            raise AssertionError(
                f"Law '{law}' fails for {kernel!r}: {reason} (the inputs are {order})"
            ) from error


def _check_precision(kernel: Kernel) -> None:
    single = copy.deepcopy(kernel).float()
    double = copy.deepcopy(single).double()
    points = Points(kernel, torch.float32)
    cases = [("float32", points.query, points.key, 1e-4)]
    if kernel.translation_invariant:  # where the expansion of a difference loses its digits
        cases.append(("float32 at offset 1e3", points.query + 1e3, points.key + 1e3, 1e-2))
    for what, q, k, tolerance in cases:
        exact = all_pairs(double(q.double(), k.double()))
        value = all_pairs(single(q, k))
        if value.dtype != torch.float32:
            fail(kernel, "precision", f"expected float32 scores of float32 (got {value.dtype})")
        equal(kernel, "precision", what, value.double(), exact, tolerance)
    expected = all_pairs(single(points.query, points.key))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gram = single(points.query, points.key)
        # The products of features are the check's own, so they stay outside.
        value = gram.dense() if not gram.signed else expected
    equal(kernel, "precision", "scores under autocast", value, expected, 0.0)
    for half in HALF:
        q, k = points.query.to(half), points.key.to(half)
        for what, model in (("input", single), ("input and parameters", copy.deepcopy(kernel).to(half))):
            value = all_pairs(model(q, k))
            if value.dtype != torch.float32 or not _all_finite(value):
                what = f"expected finite float32 scores of {half} {what} (got {value.dtype})"
                fail(kernel, "precision", what)
        value = all_pairs(single(q, k))
        exact = all_pairs(double(q.double(), k.double()))
        equal(kernel, "precision", f"scores of {half} input", value.double(), exact, 1e-4)


# What a computation in single precision may err by: so many times what rounding of its inputs does.
_ROUNDINGS = 64.0


def _exact_and_moved(
    function: Callable[[Tensor, Tensor], Tensor], q: Tensor, k: Tensor
) -> tuple[Tensor, Tensor]:
    # In double precision, and with the largest change where one side is rounded to single precision, up or
    # down: were both, a pair might move together.
    q, k = q.double(), k.double()
    exact = function(q, k)
    moved = torch.zeros_like(exact)
    for side in (0, 0, 1, 1):
        pair = [q, k]
        pair[side] = pair[side] * (1.0 + 2.0**-24 * torch.randint_like(pair[side], 2).mul(2.0).sub(1.0))
        moved = torch.maximum(moved, (function(*pair) - exact).abs())
    return exact, exact + moved


def _within_rounding(
    kernel: Kernel, law: str, what: str, value: Tensor, exact: Tensor, moved: Tensor, tolerance: float
) -> None:
    allowed = tolerance * exact.abs().clamp_min(1.0) + _ROUNDINGS * (moved - exact).abs()
    wrong = ~((value.double() - exact).abs() <= allowed) & exact.isfinite()
    if bool(wrong.any()):
        worst = int(torch.where(wrong, (value.double() - exact).abs() - allowed, -torch.inf).argmax())
        got, wanted = value.flatten()[worst].item(), exact.flatten()[worst].item()
        fail(kernel, law, f"{what}: expected {wanted:.8g} (got {got:.8g})")


def _check_spread(kernel: Kernel) -> None:
    single = copy.deepcopy(kernel).float()
    double = copy.deepcopy(single).double()
    shape = (kernel.heads, kernel.channels)
    clumps = torch.empty(4, 1, *shape).uniform_(-1e3, 1e3)
    q, k = ((clumps + torch.randn(4, 3, *shape)).flatten(0, 1) for _ in range(2))
    row, col = torch.cartesian_prod(torch.arange(12), torch.arange(12)).T
    exact, moved = _exact_and_moved(lambda q, k: at_edges(double(q, k), row, col), q, k)
    gram = single(q, k)
    pairs = {"at edges": at_edges(gram, row, col), "of all pairs": all_pairs(gram)[row, col]}
    for where, score in pairs.items():
        what = f"float32 scores of points in distant clumps {where}"
        _within_rounding(kernel, "spread", what, score, exact, moved, 1e-4)


def _check_scales(kernel: Kernel) -> None:
    if kernel(*(torch.zeros(1, kernel.heads, kernel.channels),) * 2).signed:
        return
    n, m = 6, 9
    shape = (kernel.heads, kernel.channels)
    drawn = torch.randn(n, *shape, dtype=torch.float64), torch.randn(m, *shape, dtype=torch.float64)
    v = torch.randn(m, kernel.heads, 2, dtype=torch.float64)
    row, col = torch.cartesian_prod(torch.arange(n), torch.arange(m)).T
    single, double = copy.deepcopy(kernel).float(), copy.deepcopy(kernel).float().double()

    def exact_average(q: Tensor, k: Tensor) -> Tensor:
        alpha = double(q, k).up_to_query().at(row, col).view(n, m, -1).softmax(dim=1)
        return torch.einsum("nmh,mhc->nhc", alpha, v.float().double())

    for scale in (1e-3, 1.0, 1e2, 1e4):
        q, k = ((scale * x).float() for x in drawn)
        exact, moved = _exact_and_moved(exact_average, q, k)
        for model in (double, single):
            dtype = torch.float64 if model is double else torch.float32
            for route in ("sdpa", "linear", "dense", "edges"):
                query, key = (x.to(dtype).requires_grad_() for x in (q, k))
                gram = model(query, key)
                try:
                    if route == "edges":
                        out = edge_attention(
                            gram, v.float().to(dtype), torch.stack([col, row]), backend="eager"
                        )
                    else:
                        out = dense_attention(gram, v.float().to(dtype), method=route)
                except NotImplementedError:
                    continue
                what = f"'{route}' in {dtype} at scale {scale:g}"
                if dtype == torch.float32:
                    _within_rounding(kernel, "scales", what, out, exact, moved, 2e-3)
                else:
                    equal(kernel, "scales", what, out, exact, 1e-5)
                _gradients_finite(model, out, [query, key], what)


def _check_forward(kernel: Kernel) -> None:
    points = Points(kernel, torch.float32)
    kernel = copy.deepcopy(kernel).float()
    for training in (False, True):
        kernel.train(training)
        before = _snapshot(kernel)
        all_pairs(kernel(points.query, points.key)).sum()
        after = _snapshot(kernel)
        for name in sorted(before.keys() | after.keys()):
            old, new = before.get(name, _NOTHING), after.get(name, _NOTHING)
            if old is not new and old != new:
                fail(kernel, "forward", f"a call wrote {name}")


_NOTHING = object()


def _snapshot(kernel: Kernel) -> dict[str, object]:
    # All that hangs on the module and its parts; of tensors, which one it is and how often it was written.
    found: dict[str, object] = {}
    for path, module in kernel.named_modules():
        for name, value in vars(module).items():
            items = value.items() if isinstance(value, dict) else ((None, value),)
            for key, item in items:
                place = ".".join(filter(None, (path, name, str(key or ""))))
                versioned = isinstance(item, Tensor) and not item.is_inference()
                kept = copy.copy(item) if isinstance(item, (list, set)) else item
                found[place] = (id(item), item._version) if versioned else kept
    return found


def _check_state(kernel: Kernel, factory: Callable[[int, int], Kernel], seed: int) -> None:
    points = Points(kernel, torch.float32)
    torch.manual_seed(seed + 1)
    other = factory(kernel.channels, kernel.heads).eval()
    other.load_state_dict(copy.deepcopy(kernel.state_dict()))
    value, expected = (all_pairs(k(points.query, points.key)) for k in (other, kernel))
    if not torch.equal(value, expected):
        equal(kernel, "state", "scores after a state dict round trip", value, expected, 0.0)


def _check_reset(kernel: Kernel, factory: Callable[[int, int], Kernel], seed: int) -> None:
    other = copy.deepcopy(kernel)
    built = []
    for own in (seed, seed + 1):
        torch.manual_seed(own)
        built.append(dict(factory(kernel.channels, kernel.heads).named_buffers()))
    drawn = [name for name, x in built[0].items() if not torch.equal(x, built[1][name])]

    def snapshot(what: str, own: int, generator: int | None = None) -> dict[str, Tensor]:
        with torch.no_grad():
            for p in other.parameters():
                p.add_(1.0)
        buffers = dict(other.named_buffers())
        for name in drawn:  # so that one that is not drawn anew is seen
            buffers[name].fill_(torch.nan if buffers[name].is_floating_point() else 0)
        torch.manual_seed(own)
        getattr(other, what)(*(() if generator is None else (torch.Generator().manual_seed(generator),)))
        tensors = dict(other.named_parameters()) | dict(other.named_buffers())
        for name in drawn:
            if bool(tensors[name].isnan().any()):
                fail(kernel, "reset", f"expected '{what}' to draw buffer '{name}' anew (got it as it was)")
        return {name: x.detach().clone() for name, x in tensors.items()}

    first, second = (snapshot("reset_parameters", seed + 2) for _ in range(2))
    for name in first:
        what = f"'{name}' drawn twice under one seed"
        equal(kernel, "reset", what, second[name], first[name], 0.0)
    # By the generator that is given and not by torch's own, whose seed is another each time.
    third = snapshot("resample", seed + 4, seed + 1)
    first, second = (snapshot("resample", own, seed) for own in (seed + 3, seed + 2))
    for name, _ in other.named_buffers():
        what = f"buffer '{name}' resampled twice with one generator"
        equal(kernel, "reset", what, second[name], first[name], 0.0)
        if name in drawn and torch.equal(third[name], first[name]):
            fail(kernel, "reset", f"expected another generator to change buffer '{name}' (got the same)")


def _check_eval(kernel: Kernel) -> None:
    points = Points(kernel, torch.float32)
    first, second = (all_pairs(kernel(points.query, points.key)) for _ in range(2))
    equal(kernel, "eval", "scores evaluated twice", second, first, 0.0)


def _check_backends(kernel: Kernel, factory: Callable[[int, int], Kernel], seed: int) -> None:
    points = Points(kernel, torch.float32)
    if kernel(points.query, points.key).signed:
        return
    name, dtype = "a bipartite graph", torch.float64
    case = (GRAPHS[name], factory, kernel.channels, kernel.heads)
    expected = attention_on(*case, "reference", dtype, seed, second=True)
    for backend in ops.here():
        try:
            results = attention_on(*case, backend, dtype, seed, second=True)
        except (NotImplementedError, BackendError):
            continue  # which the automatic choice passes over, too
        for law, value in results.items():
            if not (error := relative_error(value, expected[law])) <= 1e-9:
                fail(kernel, "backends", f"{law} on {name} by {backend} is {error:.2g} off the reference")
