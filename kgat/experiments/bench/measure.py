r"""How benchmarks measure: rounds of turns, peaks of memory, the speed of a copy."""

from __future__ import annotations

import contextlib
import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kgat.experiments.records import CONTENDED

# Rounds go on until the time is spent and there are ENOUGH of them; where a round is so slow that this would
# take GRACE times the time, LEAST of them must do.
LEAST, ENOUGH, MOST, GRACE = 3, 7, 50, 3.0
TURN = 0.01  # seconds: shorter steps are repeated
COPY_BYTES = 1 << 28  # larger than any cache
TOLERANCE = 1e-3  # of the largest value: sums of thousands of single-precision numbers in another order

ALIKE = 4.0  # times: the largest rounding errors of two right answers, where one number of millions decides
STEEPEST = 1e-2  # of the largest value: more than that no rounding explains, however alike two answers are

# What seconds are of. Where one thread works, those of the CPU are what the work costs, and what others do on
# the machine is not counted; where several do, what counts is when the last of them is done.
CLOCKS = {"CPU": time.process_time, "wall": time.perf_counter}

Step = Callable[[], object]


@dataclass(frozen=True, eq=False)
class Candidate:
    r"""One way to run a subject.

    Args:
        function (callable): Takes :obj:`inputs`, returns :math:`(N, H C)`.
        inputs (tuple of torch.Tensor): What it is differentiated by; all candidates share them.
        parameters (tuple of torch.nn.Parameter): Its weights.
        note (str, optional): What to say about it beside its figures. (default: :obj:`None`)
        buffers (tuple of torch.Tensor, optional): What else it was drawn with. (default: :obj:`()`)
    """

    function: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    parameters: tuple[torch.nn.Parameter, ...]
    note: str | None = None
    buffers: tuple[Tensor, ...] = ()

    @property
    def weights(self) -> list[Tensor]:
        r"""All that it was drawn with: its parameters, then its buffers."""
        return [x.detach() for x in (*self.parameters, *self.buffers)]

    def forward(self) -> Tensor:
        r"""Runs it without a graph for backward."""
        with torch.no_grad():
            return self.function(*self.inputs)

    def forward_and_backward(self, grad: Tensor) -> Tensor:
        r"""Runs it and its backward from a given gradient of the output, which is returned."""
        out = self.function(*self.inputs)
        out.backward(grad)
        return out.detach()

    def take(self, weights: Sequence[Tensor]) -> None:
        r"""Takes the weights of another one; its own stay where those have other shapes."""
        if [x.shape for x in weights] == [x.shape for x in self.weights]:
            for own, weight in zip(self.weights, weights, strict=True):
                own.copy_(weight)

    def clear(self) -> None:
        r"""Forgets all gradients."""
        for tensor in (*self.inputs, *self.parameters):
            tensor.grad = None


def clock_of(device: str, threads: int) -> str:
    r"""Returns which of :data:`CLOCKS` is right; a GPU has its own.

    Example:
        >>> clock_of("cpu", 1), clock_of("cpu", 2)
        ('CPU', 'wall')
    """
    return "CPU" if threads == 1 and not device.startswith("cuda") else "wall"


def take_turns(
    steps: Mapping[str, Step],
    prepare: Step,
    budget: float,
    device: str,
    most: int = MOST,
    *,
    clock: str = "wall",
    repeats: int = 1,
) -> dict[str, list[float]]:
    r"""Times steps in turns, in reversed order every other round.

    Args:
        steps (dict): What is timed, by name.
        prepare (callable): Called before each step, untimed.
        budget (float): Seconds after which no further round begins, if there are enough.
        device (str): Where the steps run.
        most (int, optional): Largest number of rounds. (default: :obj:`50`)
        clock (str, optional): One of :data:`CLOCKS`. (default: :obj:`"wall"`)
        repeats (int, optional): How often a step runs in its turn, of which the mean counts.
            (default: :obj:`1`)

    Returns:
        dict: Seconds of each step in each round.
    """

    def timed(step: Step) -> float:
        total = 0.0
        for _ in range(repeats):
            prepare()
            total += seconds_of(step, device, clock)
        return total / repeats

    return in_rounds({name: partial(timed, step) for name, step in steps.items()}, budget, most)


def in_rounds(
    turns: Mapping[str, Callable[[], float]], budget: float, most: int = MOST
) -> dict[str, list[float]]:
    r"""Has each take its turn, which returns seconds, in rounds as of :func:`take_turns`."""
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    start = time.perf_counter()
    for number in range(most):
        spent = time.perf_counter() - start
        if spent >= budget and (number >= ENOUGH or (number >= LEAST and spent >= GRACE * budget)):
            break
        for name in list(turns)[:: 1 if number % 2 == 0 else -1]:
            seconds[name].append(turns[name]())
    return seconds


def repeats_of(seconds: Sequence[float], budget: float) -> int:
    r"""Returns how often steps are to run in a turn: so that a clock can tell, and the budget is kept.

    Args:
        seconds (list of float): What each step takes.
        budget (float): Seconds of all rounds.

    Example:
        >>> repeats_of([0.001, 0.002], 20.0), repeats_of([0.5, 2.0], 20.0), repeats_of([0.001, 0.002], 0.0)
        (5, 1, 1)
    """
    afforded = budget / (ENOUGH * sum(seconds))
    return max(1, int(min(TURN / max(seconds), afforded)))


def seconds_of(step: Step, device: str, clock: str = "wall") -> float:
    r"""Returns how long a step takes; on a GPU between two events, with nothing before them in the queue."""
    if not device.startswith("cuda"):
        read = CLOCKS[clock]
        start = read()
        step()
        return read() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    begin.record()
    step()
    end.record()
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end) / 1000.0


def spread(values: list[float]) -> list[float]:
    r"""Returns median, smallest and largest, to four digits.

    Example:
        >>> spread([3.0, 1.0, 2.0])
        [2.0, 1.0, 3.0]
    """
    return [float(f"{value:.4g}") for value in (statistics.median(values), min(values), max(values))]


def ratios(peer: list[float], ours: list[float]) -> list[float]:
    r"""Returns :func:`spread` of the per-round ratios of two lists of seconds.

    Example:
        >>> ratios([2.0, 3.0, 8.0], [1.0, 2.0, 2.0])
        [2.0, 1.5, 4.0]
    """
    return spread([p / o for p, o in zip(peer, ours, strict=True)])


def paired(peer: Step, ours: Step, rounds: int, clock: str = "wall") -> list[float]:
    r"""Returns :func:`ratios` of two steps that take turns, in reversed order every other round.

    Args:
        peer (callable): What ours is compared with.
        ours (callable): What is timed.
        rounds (int): Number of rounds, after two that are not counted.
        clock (str, optional): One of :data:`CLOCKS`. (default: :obj:`"wall"`)
    """
    steps = {"peer": peer, "ours": ours}
    seconds = take_turns(steps, lambda: None, math.inf, "cpu", rounds + 2, clock=clock)
    return ratios(seconds["peer"][2:], seconds["ours"][2:])


def verdict(ratio: list[float]) -> dict[str, Any]:
    r"""Returns what records say of a ratio: itself, and whether rounds differ too much to trust it.

    Example:
        >>> verdict([2.0, 1.0, 4.0])["contended"]
        True
    """
    return {"ratio": ratio, "contended": ratio[2] / ratio[1] > CONTENDED}


def copy_speed(device: str, size: int = COPY_BYTES) -> float:
    r"""Returns the bytes per second, read and written, of copying a block to memory already in use.

    Args:
        device (str): Where.
        size (int, optional): Bytes of the block. (default: :obj:`2**28`)
    """
    source = torch.ones(size // 4, device=device)
    target = torch.zeros_like(source)
    times = [seconds_of(lambda: target.copy_(source), device) for _ in range(6)]
    return 2 * size / statistics.median(times[1:])


def compulsory_bytes(
    nodes: int, edges: int, heads: int, channels: int, features: int, backward: bool, bytes_each: int = 4
) -> int:
    r"""Returns what an attention core must move if no cache ever helps and nothing is moved twice in a pass.

    With :math:`R` lifted features and :math:`C` channels, each of three passes gathers for an edge
    :math:`H (R + C)` numbers of the node at its other end, and reads that node's index. Beside that

    - forward reads :math:`q`, writes :math:`\mathbf{o}` and :math:`\lambda` of each node;
    - backward by target reads :math:`q, \mathbf{o}, \mathbf{g}, \lambda`, writes :math:`\dot q`, and two
      numbers per edge and head;
    - backward by source, which gathers :math:`\mathbf{g}` and :math:`q`, reads those two numbers and writes
      :math:`\dot k` and :math:`\dot{\mathbf{v}}`.

    Args:
        nodes (int): :math:`N`.
        edges (int): :math:`E`.
        heads (int): :math:`H`.
        channels (int): :math:`C`.
        features (int): :math:`R`.
        backward (bool): Whether backward counts too.
        bytes_each (int, optional): Bytes of a number and of an index. (default: :obj:`4`)

    Example:
        >>> compulsory_bytes(nodes=1, edges=0, heads=1, channels=2, features=1, backward=False)
        16
    """
    gathered = edges * (heads * (features + channels) + 1)
    numbers = gathered + nodes * heads * (features + channels + 1)
    if backward:
        numbers += gathered + nodes * heads * (2 * features + 2 * channels + 1) + 2 * edges * heads
        numbers += gathered + nodes * heads * (features + channels) + 2 * edges * heads
    return bytes_each * numbers


def peak_bytes(step: Step, device: str) -> int | None:
    r"""Returns the largest memory in use during a step, above that before it.

    On the CPU it means something only in a process whose allocator gives blocks back as soon as they are
    freed, and is :obj:`None` where the system does not say. What earlier steps left for the next one to use
    again counts: it is forgotten first.
    """
    gc.collect()
    with contextlib.suppress(ImportError):  # another copy of the package may have none
        from kgat.ops.cpu import recycled

        recycled.clear()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if not Path("/proc/self/clear_refs").exists():
        return None
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is in use
    before = kilobytes("/proc/self/status", "VmRSS")
    step()
    return 1024 * max(kilobytes("/proc/self/status", "VmHWM") - before, 0)


def limit_memory(share: float = 0.9) -> None:
    r"""Makes this process fail to allocate, rather than be killed, where there is not enough memory.

    Args:
        share (float, optional): How much of the available memory it may take. (default: :obj:`0.9`)
    """
    try:
        import resource
    except ImportError:  # not on Windows
        return
    if not Path("/proc/meminfo").exists():
        return
    free = kilobytes("/proc/meminfo", "MemAvailable")
    used = kilobytes("/proc/self/status", "VmData")
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (1024 * (used + int(share * free)), hard))


def kilobytes(path: str, name: str) -> int:
    r"""Returns a number of a file that says what processes or the system have, such as :obj:`"VmRSS"`."""
    for line in Path(path).read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise OSError(f"Expected '{name}' in {path} (got none); measure on Linux")


def error_of(found: Tensor, expected: Tensor) -> float:
    r"""Returns the largest difference of two tensors, relative to the largest value of the second."""
    scale = expected.abs().max().item()
    difference = (found - expected).abs().max().item()
    return difference / scale if scale > 0 else difference


def difference(found: list[Tensor], expected: list[Tensor]) -> tuple[float, str]:
    r"""Returns the largest :func:`error_of` of outputs and gradients, and of what it is.

    Args:
        found (list of torch.Tensor): What :func:`run_once` of a candidate returned.
        expected (list of torch.Tensor): What that of another one did.
    """
    errors = [
        (error_of(one, other) if one.shape == other.shape else math.inf, number)
        for number, (one, other) in enumerate(zip(found, expected, strict=True))
    ]
    error, number = max(errors, key=lambda pair: math.inf if math.isnan(pair[0]) else pair[0])
    return error, "outputs" if number == 0 else f"gradients of input {number - 1}"


def check_equal(found: list[Tensor], expected: list[Tensor], exact: Callable[[], list[Tensor]]) -> str | None:
    r"""Says how what a candidate computes differs from what is expected by more than rounding explains.

    Where a kernel is steep, as near the zeros of a sine, rounding alone makes two right answers differ: who
    is about as far from double precision as what is expected is equal too.

    Args:
        found (list of torch.Tensor): What :func:`run_once` of the candidate returned.
        expected (list of torch.Tensor): What that of ours did.
        exact (callable): Computes the same in double precision; called only where it is needed.

    Returns:
        str, optional: :obj:`None` if they are equal up to rounding.
    """
    error, what = difference(found, expected)
    if error <= TOLERANCE:
        return None
    truth = [x.to(found[0].dtype) for x in exact()[: len(found)]]
    theirs, ours = (difference(values, truth)[0] for values in (found, expected))
    alike = theirs <= ALIKE * ours and ours <= ALIKE * theirs
    if alike and max(theirs, ours) <= STEEPEST:
        return None
    return (
        f"Expected equal {what} before timing (got {error:.2g} of the largest apart; from double precision "
        f"{theirs:.2g}, ours {ours:.2g})"
    )


def expect_equal(out: Tensor, expected: Tensor, what: str) -> None:
    r"""Says that two do not compute the same, where they do not.

    Raises:
        ValueError: If their outputs differ by more than rounding.
    """
    if not torch.allclose(out, expected, rtol=1e-3, atol=1e-4):
        error = (out - expected).abs().max().item()
        raise ValueError(
            f"Expected equal outputs of {what} before timing (got {error:.2g} apart); leave out what "
            "computes something else, or correct it"
        )


def run_once(candidate: Candidate, grad: Tensor) -> list[Tensor]:
    r"""Runs forward and backward; returns the output and the gradients of the inputs."""
    candidate.clear()
    out = candidate.forward_and_backward(grad)
    found = [out, *(torch.zeros_like(x) if x.grad is None else x.grad for x in candidate.inputs)]
    candidate.clear()
    return found
