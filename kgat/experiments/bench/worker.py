r"""A fresh process that answers one question of a benchmark: how it is asked, and what it does.

The process gets its question as JSON on the command line and answers on stdout, in JSON text sequences (RFC
7464), so that whatever a library prints is told apart.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

import kgat
from kgat.experiments.bench import measure

# What each regime sets. R1 is malloc as it comes: glibc gives blocks above 32 MB back when they are freed,
# and every such temporary is paid for by page faults. R2 keeps them, as a caching allocator would. For peaks,
# blocks above 64 KB go back at once, so that what is counted is what is in use.
REGIMES: dict[str, dict[str, str]] = {
    "R1": {},
    "R2": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 36)},
    "memory": {"MALLOC_MMAP_THRESHOLD_": "65536"},
    "cuda": {},
    "cuda memory": {},
}
SEPARATOR = "\x1e"
ORPHANED = 3  # exit code


def ask(
    benchmark: str, question: Any, regime: str, environment: Mapping[str, str] | None = None
) -> Iterator[dict[str, Any]]:
    r"""Starts a process and yields its answers as they come.

    Args:
        benchmark (str): The module that answers: ``answers(Question)`` yields dictionaries.
        question (dataclass): What it is asked, with the :obj:`device` and the CPU :obj:`threads`.
        regime (str): One of :data:`REGIMES`.
        environment (dict, optional): More variables. (default: :obj:`None`)

    Raises:
        ChildProcessError: If the process ends before its work does.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    here = str(Path(kgat.__file__).parents[1])
    process_environment = {
        **inherited,
        **REGIMES[regime],
        **(environment or {}),
        "OMP_NUM_THREADS": str(question.threads),
        # In the process itself: a pool of compilers would fill the cores while others are timed.
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "DGLBACKEND": "pytorch",  # or it writes a file to the user's home
        "PYTHONPATH": os.pathsep.join(filter(None, (here, inherited.get("PYTHONPATH")))),
    }
    with tempfile.TemporaryFile("w+", encoding="utf8", errors="replace") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, benchmark, json.dumps(asdict(question))],
            env=process_environment,
            stdin=subprocess.PIPE,  # its end tells the process that this one is gone
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf8",
            errors="replace",
            # A group of its own, so that a stop reaches the compilers it may have started.
            start_new_session=True,
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(SEPARATOR):
                    yield json.loads(line[1:])
            code = process.wait()
        finally:
            _stop(process)
        if code != 0:
            errors.seek(0)
            said = errors.read().strip().splitlines() or [""]
            why = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}: {said[-1]}"
            raise ChildProcessError(f"the process ended with {why}"[:300])


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def main() -> None:
    r"""Answers the question on the command line."""
    benchmark = import_module(sys.argv[1])
    question = benchmark.Question(**json.loads(sys.argv[2]))
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    logging.getLogger("kgat").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    torch.set_num_threads(question.threads)
    if question.device.startswith("cuda"):
        torch.cuda.set_device(question.device)  # events are of the current device
    else:
        measure.limit_memory()
    for answer in benchmark.answers(question):
        sys.stdout.write(f"{SEPARATOR}{json.dumps(answer, allow_nan=False)}\n")
        sys.stdout.flush()


def _leave_with_parent() -> None:
    # The parent never writes; where it was killed, the pipe ends, and nobody waits for an answer any more.
    sys.stdin.read()
    os._exit(ORPHANED)


if __name__ == "__main__":
    main()
