r"""The trial of compiled code: what a GPU computes of a small case is compared once with the eager backend.

Code that Triton compiles for a device nobody has tried may be wrong without a word. Before its first use it
therefore runs, forward and backward, on a graph of every kind of node: light ones, long ones, hubs that are
cut into parts, by target and by source, nodes without edges, and duplicate edges. What passes is remembered
beside the compiled code, so that other processes do not try it again; what fails, in this process alone.

The trial has the heads, features, channels and operands of the call, which is what code is specialised on.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kgat.atomic import write_atomically
from kgat.names import bare
from kgat.ops.eager import EAGER, call_of
from kgat.ops.gpu import launch
from kgat.ops.graph.adjacency import Adjacency
from kgat.ops.operands import LEARNED, TABLE, Operands
from kgat.ops.recipe import BackendError, Recipe

TARGETS, SOURCES = 19, 17
DROPOUT, SEED = 0.3, 11  # of trials of dropout; the probability is no part of the code
_HEAD = "kgat trial 1\n"

# Differences from float64, relative to an entry and to the largest of its tensor.
_TOLERANCE = {
    torch.float64: (1e-9, 1e-11),
    torch.float32: (2e-4, 1e-5),
    torch.float16: (2e-3, 1e-3),
    torch.bfloat16: (1.5e-2, 1e-2),
}


@dataclass(frozen=True)
class Trial:
    r"""What is tried: all that compiled code is specialised on.

    Args:
        recipe (str): What is computed: a :attr:`~kgat.ops.recipe.Recipe.text`, which keeps no rule alive.
        scores (bool): Whether it is the sums of pairs alone.
        device (torch.device): Where it runs.
        dtype (torch.dtype): The type of scores.
        value_dtype (torch.dtype): The type of values.
        heads (int): :math:`H`.
        features (int): :math:`R`.
        channels (int): :math:`C`.
        names (tuple): The learned operands that there are, but for the value.
        dropout (bool): Whether weights are dropped.
    """

    recipe: str
    scores: bool
    device: torch.device
    dtype: torch.dtype
    value_dtype: torch.dtype
    heads: int
    features: int
    channels: int
    names: tuple[str, ...]
    dropout: bool

    @classmethod
    def of(cls, recipe: Recipe, x: Operands, scores: bool = False) -> Trial:
        r"""Returns the trial that these operands need."""
        names = tuple(name for name in LEARNED if name != "value" and getattr(x, name) is not None)
        return cls(
            recipe=recipe.text,
            scores=scores,
            device=x.value.device,
            dtype=x.dtype,
            value_dtype=x.value.dtype,
            heads=x.heads,
            features=x.features,
            channels=x.channels,
            names=names,
            dropout=x.dropout > 0.0,
        )

    @property
    def text(self) -> str:
        r"""All that the result depends on."""
        recipe = Recipe.read(self.recipe)
        rest = [str(x) for name, x in vars(self).items() if name not in ("recipe", "device")]
        flags = [recipe.pair is None, recipe.weighted, recipe.bias_inside]
        return json.dumps([_circumstances(self.device), recipe.source, flags, rest])


# How many are remembered: a process that meets new shapes and rules all the time meets few of them again. Of
# what passed, the record on disk says so once more; what failed is tried again.
PASSED, FAILED = 4096, 256
_passed: dict[Trial, None] = {}
_failed: dict[tuple[str, torch.device], str] = {}
_lock = threading.Lock()


def require_trial(recipe: Recipe, x: Operands, scores: bool = False) -> None:
    r"""Tries the code that a pass on these operands runs, unless that has been done.

    Args:
        recipe (Recipe): What to compute.
        x (Operands): What on, of a GPU or of Triton's interpreter.
        scores (bool, optional): Whether it is the sums of pairs alone. (default: :obj:`False`)

    Raises:
        BackendError: If the code cannot be compiled or run, or computes other numbers than the eager backend.
    """
    trial = Trial.of(recipe, x, scores)
    rule = (trial.recipe, trial.device)
    if trial in _passed and rule not in _failed:
        return
    if trial.heads == 0 or (trial.device.type == "cuda" and torch.cuda.is_current_stream_capturing()):
        return  # no kernel would run; or waiting for one would break the recording of a graph
    with _lock:
        if trial not in _passed and rule not in _failed:
            _run(trial, _constants(x.pair_args), _constants(x.link_args))
        if rule in _failed:
            raise BackendError(_failed[rule])


def _run(trial: Trial, pair_args: list[list[float]], link_args: list[list[float]]) -> None:
    text = trial.text
    if not _is_recorded(text):
        # The caller may be in inference mode, autocast, a checkpoint that counts what is saved, or a trace: a
        # thread of its own has nothing of that.
        with ThreadPoolExecutor(1, "kgat-trial") as thread:
            failure = thread.submit(_failure, trial, pair_args, link_args).result()
        if failure is not None:
            dtype, device = bare(trial.dtype), _name(trial.device)
            message = (
                f"Expected Triton's code for {Recipe.read(trial.recipe)} in {dtype} on {device} to compute "
                f"what the eager backend does (got {failure}); pass backend='eager', and please report it"
            )
            _remember(_failed, (trial.recipe, trial.device), message, FAILED)
            return
        _record(text)
    _remember(_passed, trial, None, PASSED)


def _remember(memory: dict[Any, Any], key: Any, value: Any, most: int) -> None:
    memory[key] = value
    while len(memory) > most:
        del memory[next(iter(memory))]


def _constants(args: Tensor) -> list[list[float]]:
    return args.detach().double().tolist()  # type: ignore[no-any-return]


# --- The case ---------------------------------------------------------------------------------------------


def edges() -> Tensor:
    r"""Returns the edges: a hub of targets and one of sources, 4 targets and 3 sources without any.

    Shapes:
        - **output:** :math:`(2, E)`, sources before targets
    """
    draw = torch.Generator().manual_seed(1)

    def some(count: int, first: int, end: int) -> Tensor:
        return torch.randint(first, end, (count,), generator=draw)

    many, few = launch.HEAVY + 9, 24
    to_hub = torch.stack([some(many, 1, 6), torch.zeros(many, dtype=torch.long)])
    from_hub = torch.stack([torch.zeros(many, dtype=torch.long), some(many, 1, 6)])
    light = torch.stack([some(few, 6, SOURCES - 3), some(few, 6, TARGETS - 4)])
    edge_index = torch.cat([to_hub, from_hub, light, light[:, :3]], dim=1)
    return edge_index[:, torch.randperm(edge_index.size(1), generator=draw)]


def draw_operands(
    trial: Trial, num_edges: int, pair_args: list[list[float]], link_args: list[list[float]], positive: bool
) -> Operands:
    r"""Returns operands on the CPU, between -1 and 1, where no rule of ours is near a pole."""
    draw = torch.Generator().manual_seed(2)
    sizes = {"N": TARGETS, "M": SOURCES, "E": num_edges}
    sizes |= {"H": trial.heads, "R": trial.features, "C": trial.channels}

    def uniform(name: str, dtype: torch.dtype) -> Tensor:
        (symbols,) = TABLE[name].shapes.values()
        shape = [sizes[symbol] for symbol in symbols]
        x = 2.0 * torch.rand(shape, generator=draw, dtype=torch.float64) - 1.0
        return (x.abs() if positive else x).to(dtype)

    # Sums of about one: most rules have pieces below and above.
    spread = (5.0 if Recipe.read(trial.recipe).weighted else 3.0) / max(1, trial.features) ** 0.5
    operands: dict[str, Any] = {"value": uniform("value", trial.value_dtype)}
    operands |= {name: uniform(name, trial.dtype) for name in trial.names}
    for name, args in (("pair_args", pair_args), ("link_args", link_args)):
        operands[name] = torch.tensor(args, dtype=trial.dtype).view(-1, trial.heads)
    if trial.dropout:
        operands |= {"dropout": DROPOUT, "seed": torch.tensor([SEED])}
    return Operands(**operands, scale=spread)


def _failure(trial: Trial, pair_args: list[list[float]], link_args: list[list[float]]) -> str | None:
    # What differs; None if nothing does.
    edge_index = edges()
    sums = (edge_index.size(1), trial.heads)
    shape = sums if trial.scores else (TARGETS, trial.heads, trial.channels)
    draw = torch.Generator().manual_seed(3)
    grad = 2.0 * torch.rand(shape, generator=draw, dtype=torch.float64) - 1.0
    grad = grad.to(trial.dtype if trial.scores else trial.value_dtype)
    mask = None
    try:
        if trial.dropout:
            mask = launch.dropout_mask(*sums, DROPOUT, torch.tensor([SEED], device=trial.device)).cpu()
            if not _is_mask(mask):
                return f"a dropout mask of {mask.unique().tolist()[:4]}"
        for positive in (False, True):  # a logarithm, say, there is of what is positive alone
            x = draw_operands(trial, edge_index.size(1), pair_args, link_args, positive)
            exact = _expected(trial, edge_index, x, grad, mask, torch.float64)
            if all(tensor.isfinite().all() for tensor in exact.values()):
                break
        computed = _computed(trial, edge_index, x, grad)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001  # compilers fail in many ways; eager goes on without them
        return f"{type(error).__name__}: {error}"
    plain = _expected(trial, edge_index, x, grad, mask, trial.dtype)
    differences = (
        _difference(name, computed[name], wanted, plain[name].double(), *_TOLERANCE[computed[name].dtype])
        for name, wanted in exact.items()
    )
    return next((difference for difference in differences if difference is not None), None)


def _computed(trial: Trial, edge_index: Tensor, x: Operands, grad: Tensor) -> dict[str, Tensor]:
    # What the device computes, by name.
    recipe, device = Recipe.read(trial.recipe), trial.device
    adjacency = Adjacency.of(edge_index.to(device), 1, TARGETS, SOURCES)
    x, grad = x.map(lambda tensor: tensor.to(device)), grad.to(device)
    if trial.scores:
        results = {"sums": launch.score(recipe, adjacency, x)}
        results |= launch.score_backward(recipe, adjacency, x, grad)
    else:
        out, lse = launch.attention(recipe, adjacency, x)
        results = {"output": out, **launch.attention_backward(recipe, adjacency, x, out, lse, grad)}
    return {name: tensor.cpu() for name, tensor in results.items()}


def _expected(
    trial: Trial, edge_index: Tensor, x: Operands, grad: Tensor, mask: Tensor | None, dtype: torch.dtype
) -> dict[str, Tensor]:
    # The same of the eager backend on the CPU, in this type.
    def cast(tensor: Tensor) -> Tensor:
        return tensor.detach().to(dtype)

    x = Operands(*(cast(t) if isinstance(t, Tensor) and t.is_floating_point() else t for t in x))  # type: ignore[arg-type]
    leaves = {name: leaf.requires_grad_() for name, leaf in x.learned.items()}
    if trial.scores:
        del leaves["value"]
    call = call_of(Recipe.read(trial.recipe), x, edge_index, 1, TARGETS, mask)
    result = call.gram.at(call.row, call.col) if trial.scores else EAGER.edge_attention(call)
    gradients = torch.autograd.grad(result, list(leaves.values()), cast(grad), allow_unused=True)
    results = {"sums" if trial.scores else "output": result.detach()}
    for (name, tensor), gradient in zip(leaves.items(), gradients, strict=True):
        results[name] = torch.zeros_like(tensor) if gradient is None else gradient
    return {name: tensor.detach() for name, tensor in results.items()}


def _is_mask(mask: Tensor) -> bool:
    kept = mask != 0.0
    scaled = torch.allclose(mask[kept], mask.new_tensor(1.0 / (1.0 - DROPOUT)), rtol=1e-6)
    spread = (DROPOUT * (1.0 - DROPOUT) / mask.numel()) ** 0.5
    return scaled and abs(kept.double().mean().item() - (1.0 - DROPOUT)) < 6.0 * spread


def _difference(
    name: str, x: Tensor, exact: Tensor, plain: Tensor, relative: float, absolute: float
) -> str | None:
    what = "output" if name == "output" else "sums of pairs" if name == "sums" else f"gradient of {name}"
    known = exact.isfinite() & plain.isfinite()
    x, exact, plain = x.double()[known], exact[known], plain[known]
    if not x.isfinite().all():
        return f"numbers in the {what} that are not finite"
    if x.numel() == 0:
        return None
    largest = exact.abs().max().item()
    # Where a rule is steep, single precision is far from double: that is no fault of the code.
    rounding = 8.0 * (plain - exact).abs().max()
    error = (x - exact).abs()
    if (error <= relative * exact.abs() + absolute * max(1.0, largest) + rounding).all():
        return None
    return f"an error of {error.max().item():.1g} in the {what}, whose largest entry is {largest:.1g}"


# --- What is kept on disk ---------------------------------------------------------------------------------


@functools.cache
def _circumstances(device: torch.device) -> list[str]:
    import triton

    here = Path(__file__).parent
    files = [here / name for name in ("trial.py", "launch.py", "loops.py")]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    versions = [triton.__version__, torch.__version__, str(torch.version.cuda)]
    return [*versions, _name(device), str(capability), *digests]


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "Triton's interpreter"


def _path(text: str) -> Path | None:
    # Beside the code that Triton keeps.
    from triton import knobs

    folder = knobs.cache.dir
    digest = hashlib.sha256(text.encode()).hexdigest()[:32]
    return Path(folder) / "kgat" / f"{digest}.trial" if folder else None


def _content(text: str) -> bytes:
    return f"{_HEAD}{text}\n{hashlib.sha256(text.encode()).hexdigest()}\n".encode()


def _is_recorded(text: str) -> bool:
    path = _path(text)
    with contextlib.suppress(OSError):
        return path is not None and path.read_bytes() == _content(text)  # what was damaged is tried again
    return False


def _record(text: str) -> None:
    path = _path(text)
    if path is not None:
        with contextlib.suppress(OSError):  # the next process tries again
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, _content(text))
