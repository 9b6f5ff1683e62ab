r"""Processes beside this one: how they start, what they know, and that they end with it.

On Linux they are forks of a server that has imported torch and what they run, which takes seconds, once. A
fork may have one thread only (torch's pool does not survive it): with several threads, as elsewhere, each is
started anew.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

from kgat.experiments import allocator

__all__ = ["alone", "kill_all", "start_server", "started", "without_interrupts"]

T = TypeVar("T")
FORKS = sys.platform == "linux"
IMPORTED = "kgat.experiments.compare"  # by the server: all that experiments have in common


def start_server() -> None:
    r"""Starts the server that processes are forks of, beside what this process does meanwhile; does nothing
    where there is one, or can be none."""
    if not FORKS:
        return
    from multiprocessing import forkserver

    multiprocessing.set_forkserver_preload([IMPORTED])
    with without_interrupts():
        forkserver.ensure_running()


def started(workers: int, threads: int, prepare: Callable[..., object], *given: Any) -> Any:
    r"""Returns an executor of processes, whose freed memory stays with them.

    Args:
        workers (int): How many there are.
        threads (int): CPU threads of each.
        prepare (callable): Called in each of them.
        *given: Its arguments.
    """
    context: BaseContext = multiprocessing.get_context("spawn")  # a fork of threads that hold locks may hang
    if threads == 1 and FORKS:
        start_server()
        context = multiprocessing.get_context("forkserver")
    arguments = (dict(os.environ), threads, prepare, given)
    # An executor notices a worker that was killed, which a pool waits for without end.
    return ProcessPoolExecutor(workers, context, initializer=_start, initargs=arguments)


def alone(function: Callable[..., T], *arguments: Any, threads: int) -> T:
    r"""Returns what a function returns in a process of its own.

    Raises:
        BrokenProcessPool: If that process ends before.
    """
    with started(1, threads, _nothing) as executor:
        try:
            with without_interrupts():
                answer = executor.submit(function, *arguments)
            return answer.result()  # type: ignore[no-any-return]
        except KeyboardInterrupt:
            kill_all()
            raise


def kill_all() -> None:
    r"""Ends all processes that were started here."""
    for process in multiprocessing.active_children():
        process.kill()


@contextmanager
def without_interrupts() -> Iterator[None]:
    r"""Has processes that start within the block be deaf to Ctrl-C, which reaches all processes of a terminal
    and is the parent's to handle; it comes to this one behind the block."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _nothing() -> None:
    pass


def _start(
    environment: Mapping[str, str], threads: int, prepare: Callable[..., object], given: tuple[Any, ...]
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # The server has that of the moment when it started.
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
    import torch

    torch.set_num_threads(threads)
    allocator.recycles()
    prepare(*given)


def _end_with_parent() -> None:
    # A parent that is killed tells nobody. Its claims end with it, so that others do this work anew.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
