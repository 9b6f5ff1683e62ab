r"""Processes beside this one: how they start, what they know, and that they end with it.

On Linux they are forks of a server that has imported torch and what they run, which takes seconds, once. A
fork may have one thread only (torch's pool does not survive it): with several threads, as elsewhere, each is
started anew.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

from kgat.experiments import allocator

__all__ = ["Processes", "alone", "expect_main", "start_server", "started", "without_interrupts"]

T = TypeVar("T")
FORKS = sys.platform == "linux"
GUARD = "put what the script runs below if __name__ == '__main__':"
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


def expect_main() -> None:
    r"""Raises an error in a process that is only just importing the script that started it: a script that is
    not guarded runs there once more, and would wait for what the first of them does."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError(f"Expected a script that processes can import (got one that starts some); {GUARD}")


class Processes(ProcessPoolExecutor):
    r"""An executor that can say why its processes ended, and as a context ends them where an error leaves it:
    they, and the thread that looks after them, are gone behind the block.

    Args:
        workers (int): How many there are.
        context (BaseContext): How they start.
        *arguments: Those of what each of them begins with.
    """

    def __init__(self, workers: int, context: BaseContext, *arguments: Any) -> None:
        self._before = multiprocessing.active_children()
        self._began = context.Event()
        super().__init__(workers, context, initializer=_start, initargs=(self._began, *arguments))
        self._expected = f"{workers} processes that live" if workers > 1 else "a process that lives"

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            # What they are at is of no use any more. Asked of Python, not of the executor, which an interrupt
            # may have kept from noting one down; those that were there before are the caller's.
            for process in multiprocessing.active_children():
                if process not in self._before:
                    process.kill()
        # Waits for that thread, too: one that is left would take down queues while the interpreter does.
        self.shutdown(wait=True, cancel_futures=kind is not None)

    def submit(self, function: Callable[..., T], /, *arguments: Any, **named: Any) -> Future[T]:
        r"""Lets a process call a function, whose errors arrive in words where they cannot be sent."""
        return super().submit(_with_errors_in_words, function, *arguments, **named)

    def why_broken(self, better: str) -> str:
        r"""Says why one ended before its time, and what to do; :obj:`better` is how to run it again."""
        if self._began.is_set():
            return (
                f"Expected {self._expected} (got one that was ended, by hand or for lack of memory); run the "
                f"same command again: it goes on where it stopped, {better}"
            )
        return (
            f"Expected {self._expected} (got one that ended before it began, as all do of a script that runs "
            f"where it is imported); {GUARD}"
        )


def started(workers: int, threads: int, prepare: Callable[..., object], *given: Any) -> Processes:
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
    # An executor notices a worker that was killed, which a pool waits for without end.
    return Processes(workers, context, dict(os.environ), threads, prepare, given)


def alone(function: Callable[..., T], *arguments: Any, threads: int) -> T:
    r"""Returns what a function returns in a process of its own.

    Raises:
        BrokenProcessPool: If that process ends before; the message says what to do.
    """
    with started(1, threads, _nothing) as executor:
        try:
            with without_interrupts():
                answer = executor.submit(function, *arguments)
            return answer.result()
        except BrokenProcessPool as error:
            raise BrokenProcessPool(executor.why_broken("with more memory free")) from error


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


def _with_errors_in_words(function: Callable[..., T], *arguments: Any, **named: Any) -> T:
    try:
        return function(*arguments, **named)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # noqa: BLE001  # whatever it is
            # The parent cannot make it anew, such as one with more arguments than its text, and would take
            # this process to be broken.
            raise RuntimeError(f"{type(error).__qualname__}: {error}") from error
        raise


def _start(
    began: Any,
    environment: Mapping[str, str],
    threads: int,
    prepare: Callable[..., object],
    given: tuple[Any, ...],
) -> None:
    began.set()
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
