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
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

import torch

import kgat
from kgat.experiments.bench import measure
from kgat.experiments.ledger import read

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


# In a process of another copy of the package, what measures is still the code of this folder.
OF_ANOTHER = (
    "import kgat.experiments.bench as bench; bench.__path__ = [{folder!r}]; "
    "from kgat.experiments.bench.worker import main; main()"
)
TOLD: SimpleQueue[Any] = SimpleQueue()  # what the parent says to this process while it works


def there(path: Path | None, kind: str, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    r"""Returns the records of a file that answer a question.

    Args:
        path (Path, optional): The file; there may be none.
        kind (str): The kind of record.
        asked (dict): What the record must hold.
    """
    if path is None or not path.exists():
        return []
    wanted = {"kind": kind, **asked}.items()
    return [record for record in read(path) if all(record.get(name) == value for name, value in wanted)]


def ask(
    benchmark: str, question: Any, regime: str, environment: Mapping[str, str] | None = None
) -> Iterator[dict[str, Any]]:
    r"""Starts a :class:`Process` and yields its answers as they come."""
    with Process(benchmark, question, regime, environment) as process:
        yield from process.answers()


class Process:
    r"""A fresh process that answers a question; it ends with the block.

    Args:
        benchmark (str): The module that answers: ``answers(Question)`` yields dictionaries.
        question (dataclass): What it is asked, with the :obj:`device` and the CPU :obj:`threads`.
        regime (str): One of :data:`REGIMES`.
        environment (dict, optional): More variables. (default: :obj:`None`)
        other (str, optional): The folder of another copy of the package to be loaded in place of this one.
            (default: :obj:`None`)
    """

    def __init__(
        self,
        benchmark: str,
        question: Any,
        regime: str,
        environment: Mapping[str, str] | None = None,
        other: str | None = None,
    ) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
        here = str(Path(kgat.__file__).parents[1]) if other is None else str(Path(other).resolve())
        process_environment = {
            **inherited,
            **REGIMES[regime],
            **(environment or {}),
            "OMP_NUM_THREADS": str(question.threads),
            # In the process itself: a pool of compilers would fill the cores while others are timed.
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
            "DGLBACKEND": "pytorch",  # or it writes a file to the user's home
            "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
            "PYTHONPATH": os.pathsep.join(filter(None, (here, inherited.get("PYTHONPATH")))),
        }
        code = OF_ANOTHER.format(folder=str(Path(__file__).parent))
        # Not what stands in the folder where it starts.
        start = ["-m", __name__] if other is None else ["-P", "-c", code]
        self._errors = tempfile.TemporaryFile("w+", encoding="utf8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, *start, benchmark, json.dumps(asdict(question))],
            env=process_environment,
            stdin=subprocess.PIPE,  # its end tells the process that this one is gone
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf8",
            errors="replace",
            # A group of its own, so that a stop reaches the compilers it may have started.
            start_new_session=True,
        )

    def tell(self, word: Any) -> None:
        r"""Says something to the process, which finds it in :data:`TOLD`."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(word)}\n")
        self._process.stdin.flush()

    def answers(self) -> Iterator[dict[str, Any]]:
        r"""Yields answers as they come.

        Raises:
            ChildProcessError: If the process ends before its work does.
        """
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line.startswith(SEPARATOR):
                yield json.loads(line[1:])
        code = self._process.wait()
        if code != 0:
            self._errors.seek(0)
            said = self._errors.read().strip().splitlines() or [""]
            why = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}: {said[-1]}"
            raise ChildProcessError(f"the process ended with {why}"[:300])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        if process.poll() is None:
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout, self._errors):
            if pipe is not None:
                with suppress(BrokenPipeError):  # of what a dead process was told
                    pipe.close()


def main() -> None:
    r"""Answers the question on the command line."""
    benchmark = import_module(sys.argv[1])
    question = benchmark.Question(**json.loads(sys.argv[2]))
    threading.Thread(target=_listen, daemon=True).start()
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


def _listen() -> None:
    # Where the parent was killed, the pipe ends, and nobody waits for an answer any more.
    for line in sys.stdin:
        TOLD.put(json.loads(line))
    os._exit(ORPHANED)


if __name__ == "__main__":
    # By its name, under which benchmarks find what it is told.
    import_module("kgat.experiments.bench.worker").main()
