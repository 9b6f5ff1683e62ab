r"""Cost of attention as sequences grow, forward and backward: ``kgat bench sequences``.

Each measurement runs in a fresh process; on the CPU, memory in another than time, whose allocator gives
blocks back as soon as they are freed. Time is taken in turns with torch's softmax attention of the same
shape, as long as that is not too slow: of the two, ratios count.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.figure import Figure

import kgat
from kgat.experiments.bench.measure import limit_memory, peak_bytes, ratios, seconds_of, spread
from kgat.experiments.circumstances import circumstances
from kgat.experiments.ledger import Ledger
from kgat.experiments.pages import markdown_table
from kgat.experiments.plots.look import PALETTE, RC, WIDTH
from kgat.nn import KernelAttention, PrimalAttention

ROUNDS = 5
BASELINE = "torch softmax"
WEIGHTS = "softmax with all weights"  # what dense attention is without a fused kernel

Record = dict[str, Any]

SUBJECTS: dict[str, Callable[[int, int], torch.nn.Module]] = {
    "torch softmax": lambda width, heads: torch.nn.MultiheadAttention(width, heads, batch_first=True),
    "softmax": lambda width, heads: KernelAttention(width, heads),
    "rbf": lambda width, heads: KernelAttention(width, heads, kernel="rbf"),
    "rbf * l1.5": lambda width, heads: KernelAttention(width, heads, kernel="rbf", magnitude=1.5),
    "sinc product": lambda width, heads: KernelAttention(width, heads, kernel="sinc_product"),
    "linear elu+1": lambda width, heads: KernelAttention(
        width, heads, kernel="elu_plus_one", method="linear"
    ),
    "linear favor+": lambda width, heads: KernelAttention(width, heads, kernel="favor_plus", method="linear"),
    "primal": lambda width, heads: PrimalAttention(width, heads),
    WEIGHTS: lambda width, heads: KernelAttention(width, heads),
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
    on_record: Callable[[Record], None] | None = None,
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
        on_record (callable, optional): Called with each new record. (default: :obj:`None`)

    Returns:
        list of dict: All records of these sizes.

    Raises:
        ValueError: If a subject is unknown or a length is not positive.
    """
    for subject in subjects:
        if subject not in SUBJECTS:
            raise ValueError(f"Expected a subject (got '{subject}'); choose from: {', '.join(SUBJECTS)}")
    if not lengths or min(lengths) < 1:
        raise ValueError(f"Expected positive lengths (got {list(lengths)}); e.g. 1024,2048")
    path.parent.mkdir(parents=True, exist_ok=True)
    common = {"width": width, "heads": heads, "device": device, "threads": threads, "seconds_limit": seconds}
    with Ledger(path, ["sequence cost"]) as results:

        def kept() -> dict[tuple[str, int], Record]:
            return {
                (r["subject"], r["length"]): r
                for r in results.records
                if r.get("kind") == "sequence cost"
                and all(r["sizes"].get(name) == common[name] for name in common)
            }

        def there(job: tuple[str, int]) -> bool:
            return job in kept()

        for subject in subjects or SUBJECTS:
            for length in sorted(lengths):
                # One at a time: how long it takes decides whether there is a next one.
                for _ in results.claim([(subject, length)], lambda job: (*job, str(common)), there):
                    record: Record = {
                        "kind": "sequence cost",
                        "subject": subject,
                        "length": length,
                        "sizes": common,
                    }
                    slow = any(
                        one.get("seconds", [0.0])[0] > seconds
                        for (name, tokens), one in kept().items()
                        if name == BASELINE and tokens <= length
                    )
                    for what in ("time", "memory"):
                        question = Question(
                            subject, length, what, width, heads, device, threads, seconds, paired=not slow
                        )
                        record.update(ask(question))
                    record.update(circumstances(device))
                    results.append(record)
                    if on_record is not None:
                        on_record(record)
                found = kept()[subject, length]
                if "failed" in found or found["seconds"][0] > seconds:
                    break
        return list(kept().values())


def ask(question: Question) -> Record:
    r"""Answers a question in a fresh process; returns ``seconds`` and ``speed``, a ratio to torch's softmax
    attention, or ``bytes``, or why it ``failed``."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    here = str(Path(kgat.__file__).parents[1])
    environment = {
        **inherited,
        # Blocks above this size go back to the system as soon as they are freed.
        **({"MALLOC_MMAP_THRESHOLD_": "65536"} if question.what == "memory" else {}),
        "OMP_NUM_THREADS": str(question.threads),
        "PYTHONPATH": os.pathsep.join(filter(None, (here, inherited.get("PYTHONPATH")))),
    }
    done = subprocess.run(
        [sys.executable, "-m", "kgat.experiments.bench.sequences", json.dumps(asdict(question))],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return {"failed": last[:300]}
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


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
    peer = _step(BASELINE, question) if question.paired and question.subject != BASELINE else None
    if peer is None or seconds_of(peer, question.device) > question.seconds:
        return {"seconds": spread([seconds_of(step, question.device) for _ in range(ROUNDS)])}
    own, other = [], []
    for _ in range(ROUNDS):
        other.append(seconds_of(peer, question.device))
        own.append(seconds_of(step, question.device))
    return {"seconds": spread(own), "speed": ratios(other, own)}


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


def table(records: Sequence[Mapping[str, Any]]) -> str:
    r"""Returns medians of time, of speed as a multiple of torch's softmax attention, and peaks of memory, as
    Markdown.

    Args:
        records (list of dict): Records of :func:`run`.
    """
    lengths = sorted({record["length"] for record in records})
    rows = []
    for subject in dict.fromkeys(record["subject"] for record in records):
        own = {record["length"]: record for record in records if record["subject"] == subject}
        rows.append([subject, *(_cell(own.get(length)) for length in lengths)])
    return markdown_table(["ms, speed, MB", *(f"{length:,}" for length in lengths)], rows)


def _cell(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return "–"
    if "failed" in record:
        return "failed"
    peak = "–" if record["bytes"] is None else f"{record['bytes'] / 1e6:,.0f}"
    speed = f"{record['speed'][0]:.2g}×" if "speed" in record else "–"
    time = 1e3 * record["seconds"][0]
    return f"{time:,.0f}, {speed}, {peak}" if time >= 100 else f"{time:.3g}, {speed}, {peak}"


def figure(records: Sequence[Mapping[str, Any]]) -> Figure:
    r"""Draws time and peak memory against the number of tokens, on log scales.

    Args:
        records (list of dict): Records of :func:`run`.
    """
    with mpl.rc_context(RC):
        drawn = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        panels = drawn.subplots(1, 2, sharex=True)
        for number, subject in enumerate(dict.fromkeys(record["subject"] for record in records)):
            own = [r for r in records if r["subject"] == subject and "failed" not in r]
            own.sort(key=lambda record: record["length"])
            for axes, points in zip(
                panels,
                (
                    [(r["length"], 1e3 * r["seconds"][0]) for r in own],
                    [(r["length"], r["bytes"] / 1e6) for r in own if r["bytes"]],
                ),
                strict=True,
            ):
                axes.plot(
                    *zip(*points, strict=True) if points else ([], []),
                    marker="o",
                    markersize=3.5,
                    color=PALETTE[number % len(PALETTE)],
                    linestyle="-" if number < len(PALETTE) else "--",
                    label=subject,
                )
        for axes, title in zip(panels, ("time, ms", "peak memory, MB"), strict=True):
            axes.set(xscale="log", yscale="log", xlabel="tokens")
            axes.set_title(title, loc="left")
            axes.grid(True)
        drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return drawn


def main() -> None:
    r"""Answers the question that the process was started with, as JSON."""
    question = Question(**json.loads(sys.argv[1]))
    torch.set_num_threads(question.threads)
    if not question.device.startswith("cuda"):
        limit_memory()
    print(json.dumps(answer(question)))  # noqa: T201


if __name__ == "__main__":
    main()
