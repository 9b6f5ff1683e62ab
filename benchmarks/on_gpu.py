r"""What ``make gpu`` does on a machine with a CUDA device, in under eight minutes.

Every part has a limit of its own and leaves one JSON line with its last words. What has passed on this commit
and device is not done again, so that a run that was stopped goes on; comparisons add to ``ops.jsonl``, each
result as it comes. ``--fresh`` does all parts again, as after changes that are not committed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BUDGET = 470.0  # seconds of all parts


@dataclass(frozen=True)
class Part:
    r"""One command.

    Args:
        name (str): Its name.
        arguments (tuple of str): What Python runs.
        seconds (float): When it is stopped.
    """

    name: str
    arguments: tuple[str, ...]
    seconds: float


def plan() -> list[Part]:
    r"""Returns the parts, in order: first whether results are right, then what they cost."""

    def tests(*files: str) -> tuple[str, ...]:
        return "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *files

    def ops(scenario: str, subjects: str, seconds: str) -> tuple[str, ...]:
        what = "--device", "cuda", "--scenarios", scenario, "--subjects", subjects, "--seconds", seconds
        return "-m", "kgat", "bench", "ops", *what, "--out", str(HERE / "ops.jsonl")

    return [
        Part("kernels", tests("tests/ops/test_gpu.py"), 120.0),
        Part("trial", tests("tests/ops/test_trial.py"), 60.0),
        Part("cora", ops("cora", "gat layer,dot layer", "1"), 90.0),
        Part("arxiv", ops("arxiv", "gat layer,dot core,rbf core", "2"), 200.0),
    ]


def refusal() -> str | None:
    r"""Returns why nothing can be measured here; :obj:`None` if it can."""
    import torch

    if not torch.cuda.is_available():
        return (
            f"Expected a CUDA device (got none that torch {torch.__version__} sees); run 'make gpu' where "
            f"there is one, with torch for CUDA"
        )
    if find_spec("triton") is None:
        return "Expected triton, in which the kernels are written (got none); 'pip install triton'"
    return None


def circumstances() -> dict[str, Any]:
    r"""Returns on what, with what and of which commit."""
    from kgat.experiments.circumstances import circumstances

    here = circumstances("cuda")
    here["commit"] = str(here["commit"]).removesuffix("-dirty")  # comparisons write to the tree
    return {**here, "turbo-gnn": find_spec("turbo_gnn") is not None}


def run(parts: Sequence[Part], path: Path, here: dict[str, Any], fresh: bool = False) -> int:
    r"""Runs what has not passed yet; returns how many parts failed or had no time.

    Args:
        parts (list of Part): The parts.
        path (Path): The file of JSON lines.
        here (dict): What a record says of the machine, by which it is known again.
        fresh (bool, optional): Whether to run also what has passed. (default: :obj:`False`)
    """
    old = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    same = here.keys() - {"date"}
    passed = {r["part"] for r in old if r["code"] == 0 and all(r.get(key) == here[key] for key in same)}
    end, failed = time.monotonic() + BUDGET, 0
    for part in parts:
        if part.name in passed and not fresh:
            print(f"{part.name:<8} has passed here")
            continue
        begin = time.monotonic()
        limit = min(part.seconds, end - begin)
        code, said = _call(part, limit) if limit > 1.0 else (None, "no time was left")
        record = {
            "part": part.name,
            "code": code,  # of the process; null where it was stopped
            "seconds": round(time.monotonic() - begin, 1),
            "limit": round(limit, 1),
            "said": said[-4000:],
        }
        with path.open("a") as file:
            file.write(json.dumps({**record, **here}) + "\n")
        failed += code != 0
        state = "passed" if code == 0 else "FAILED" if code else "was stopped"
        print(
            f"{part.name:<8} {state} after {record['seconds']} s" + ("" if code == 0 else f"\n{said[-4000:]}")
        )
    return failed


def _call(part: Part, limit: float) -> tuple[int | None, str]:
    # In a session of its own, so that a limit ends what it has started, too.
    process = subprocess.Popen(
        [sys.executable, *part.arguments],
        cwd=HERE.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    code = None
    try:
        said, _ = process.communicate(timeout=limit)
        code = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # of comparisons each result is kept as it comes
        said, _ = process.communicate()
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return code, said


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", action="store_true", help="print what would run, which needs no device")
    parser.add_argument("--fresh", action="store_true", help="run also what has passed")
    parser.add_argument("--out", type=Path, default=HERE / "gpu.jsonl", help="file of JSON lines")
    options = parser.parse_args(arguments)
    if options.plan:
        for part in plan():
            print(f"{part.name:<8} at most {part.seconds:.0f} s: python {' '.join(part.arguments)}")
        return 0
    why = refusal()
    if why is not None:
        print(why, file=sys.stderr)
        return 2
    return 1 if run(plan(), options.out, circumstances(), options.fresh) else 0


if __name__ == "__main__":
    sys.exit(main())
