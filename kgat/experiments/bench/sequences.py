r"""Cost of attention as sequences grow, forward and backward: ``kgat bench sequences``.

Each measurement runs in a fresh process; on the CPU, memory in another than time, whose allocator gives
blocks back as soon as they are freed. Time is taken in turns with torch's softmax attention of the same
shape, as long as that is not too slow: of the two, ratios count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from kgat.experiments.bench import worker
from kgat.experiments.bench.measure import peak_bytes, ratios, seconds_of, spread, take_turns
from kgat.experiments.bench.scenarios import named
from kgat.experiments.circumstances import circumstances
from kgat.experiments.engine import Engine, Job
from kgat.experiments.records import SEQUENCE_BASELINE
from kgat.nn import KernelAttention, PrimalAttention

ROUNDS = 5
BASELINE = SEQUENCE_BASELINE
WEIGHTS = "softmax with all weights"  # what dense attention is without a fused kernel

Record = dict[str, Any]

# Of width and heads.
SUBJECTS: dict[str, Callable[[int, int], torch.nn.Module]] = {
    "torch softmax": partial(torch.nn.MultiheadAttention, batch_first=True),
    "softmax": KernelAttention,
    "rbf": partial(KernelAttention, kernel="rbf"),
    "rbf * l1.5": partial(KernelAttention, kernel="rbf", magnitude=1.5),
    "sinc product": partial(KernelAttention, kernel="sinc_product"),
    "linear elu+1": partial(KernelAttention, kernel="elu_plus_one", method="linear"),
    "linear favor+": partial(KernelAttention, kernel="favor_plus", method="linear"),
    "primal": PrimalAttention,
    WEIGHTS: KernelAttention,
}


@dataclass(frozen=True)
class Question:
    r"""One measurement.

    Args:
        subject (str): One of :obj:`SUBJECTS`.
        length (int): Number of tokens.
        what (str): :obj:`"time"` or :obj:`"memory"`.
        width (int): Channels of a token.
        heads (int): Number of heads.
        device (str): Where to run.
        threads (int): CPU threads.
        seconds (float): A step that takes longer is not repeated.
        paired (bool): Whether to take turns with torch's softmax attention.
    """

    subject: str
    length: int
    what: str
    width: int
    heads: int
    device: str
    threads: int
    seconds: float
    paired: bool = True


def run(
    lengths: Sequence[int],
    subjects: Sequence[str],
    path: Path,
    *,
    width: int = 256,
    heads: int = 4,
    device: str = "cpu",
    threads: int = 1,
    seconds: float = 20.0,
    shown: bool = False,
) -> list[Record]:
    r"""Measures attention modules on one sequence of each length, with the gradient of tokens and weights.

    A subject whose step at one length takes longer than :obj:`seconds` is not measured at larger ones. What
    the file holds with the same sizes is not measured again.

    Args:
        lengths (list of int): Numbers of tokens.
        subjects (list of str): Some of :obj:`SUBJECTS`; all if empty.
        path (Path): The file of JSON lines to append to.
        width (int, optional): Channels of a token. (default: :obj:`256`)
        heads (int, optional): Number of heads. (default: :obj:`4`)
        device (str, optional): Where to run. (default: :obj:`"cpu"`)
        threads (int, optional): CPU threads. (default: :obj:`1`)
        seconds (float, optional): The limit of a step. (default: :obj:`20`)
        shown (bool, optional): Whether to show a progress bar. (default: :obj:`False`)

    Returns:
        list of dict: All records of these sizes.

    Raises:
        ValueError: If a subject is unknown or a length is not positive.
        Interrupted: On Ctrl-C.
    """
    chosen = named(subjects, {name: name for name in SUBJECTS}, "subjects")
    if not lengths or min(lengths) < 1:
        raise ValueError(f"Expected positive lengths (got {list(lengths)}); e.g. 1024,2048")
    sizes = {"width": width, "heads": heads, "device": device, "threads": threads, "seconds_limit": seconds}

    def key_of(record: Record) -> tuple[str, int] | None:
        of_sizes = record.get("kind") == "sequence cost" and record["sizes"].items() >= sizes.items()
        return (record["subject"], record["length"]) if of_sizes else None

    def kept() -> dict[tuple[str, int], Record]:
        return {key: record for record in engine.records if (key := key_of(record)) is not None}

    def work(subject: str, length: int, note: Callable[[str], None]) -> Iterator[Record]:
        slow = any(
            one.get("seconds", [0.0])[0] > seconds
            for (name, tokens), one in kept().items()
            if name == BASELINE and tokens <= length
        )
        record: Record = {"kind": "sequence cost", "subject": subject, "length": length, "sizes": sizes}
        for what in ("time", "memory"):
            note(what)
            record |= ask(Question(subject, length, what, width, heads, device, threads, seconds, not slow))
        yield record | circumstances(device)

    total = len(chosen) * len(lengths)
    with Engine(path, total, kinds=["sequence cost"], key_of=key_of, shown=shown) as engine:
        for subject in chosen:
            for length in sorted(lengths):
                # One at a time: how long it takes decides whether there is a next one.
                one = (subject, length)
                label = f"{subject}, {length:,} tokens"
                engine.run([Job((*one, str(sizes)), label, work, one, (one,))])
                last = kept()[one]
                if "failed" in last or last["seconds"][0] > seconds:
                    break
        return list(kept().values())


def ask(question: Question) -> Record:
    r"""Answers a question in a fresh process; returns ``seconds`` and ``speed``, a ratio to torch's softmax
    attention, or ``bytes``, or why it ``failed``."""
    try:
        return list(worker.ask(__name__, question, "memory" if question.what == "memory" else "R1"))[-1]
    except ChildProcessError as error:
        return {"failed": str(error)}


def answers(question: Question) -> Iterator[Record]:
    r"""As :func:`answer`, as a process of its own gives it."""
    yield answer(question)


def answer(question: Question) -> Record:
    r"""Measures one thing in this process.

    Example:
        >>> found = answer(Question("primal", 16, "time", 8, 2, "cpu", 1, 1.0))
        >>> len(found["seconds"])
        3
    """
    step = _step(question.subject, question)
    first = seconds_of(step, question.device)  # compiles and fills pools, so it counts only where it is long
    if question.what == "memory":
        return {"bytes": peak_bytes(step, question.device)}
    if first > question.seconds:
        return {"seconds": spread([first])}
    steps = {"own": step}
    if question.paired and question.subject != BASELINE:
        peer = _step(BASELINE, question)
        if seconds_of(peer, question.device) <= question.seconds:
            steps = {"peer": peer, "own": step}
    seconds = take_turns(steps, lambda: None, math.inf, question.device, ROUNDS)
    speed = {"speed": ratios(seconds["peer"], seconds["own"])} if "peer" in seconds else {}
    return {"seconds": spread(seconds["own"]), **speed}


def _step(subject: str, question: Question) -> Callable[[], None]:
    torch.manual_seed(0)
    attention = SUBJECTS[subject](question.width, question.heads).to(question.device)
    x = torch.randn(1, question.length, question.width, device=question.device, requires_grad=True)

    def step() -> None:
        attention.zero_grad(set_to_none=True)
        x.grad = None
        out, _ = attention(x, x, x, need_weights=subject == WEIGHTS)
        out.sum().backward()

    return step
