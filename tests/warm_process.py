r"""Processes of their own that need not import torch, which takes seconds: forks of one that has.

For code that wants a process of its own, not a first import. :func:`run` and :class:`Process` take code as
``python -c`` does, and are what :func:`subprocess.run` and :class:`subprocess.Popen` are to it.
"""

import multiprocessing
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from subprocess import CompletedProcess

from kgat.experiments import processes


class Process:
    r"""A process that runs code.

    Args:
        code (str): The code.
        *arguments: What follows ``-c`` in :obj:`sys.argv`.
        **environment: What differs in its environment.
    """

    def __init__(self, code, *arguments, **environment):
        processes.start_server()
        context = multiprocessing.get_context("forkserver" if processes.FORKS else "spawn")
        pipes = [context.Pipe(duplex=False) for _ in range(3)]
        theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
        arguments = ["-c", *map(str, arguments)]
        self._process = context.Process(
            target=_run, args=(code, arguments, {**os.environ, **environment}, os.getcwd(), theirs)
        )
        self._process.start()
        for pipe in theirs:
            pipe.close()
        ours = [pipes[0][1], pipes[1][0], pipes[2][0]]
        self.stdin, self.stdout, self.stderr = (
            os.fdopen(os.dup(pipe.fileno()), mode) for pipe, mode in zip(ours, "wrr", strict=True)
        )
        for pipe in ours:
            pipe.close()

    @property
    def returncode(self):
        r"""How it ended; :obj:`None` before that."""
        return self._process.exitcode

    @property
    def pid(self):
        r"""Its number."""
        return self._process.pid

    def send_signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        self._process.kill()

    def communicate(self, timeout=300):
        r"""Returns what it said, when it has ended."""
        self.stdin.close()
        with ThreadPoolExecutor(2) as pool:
            out, err = pool.map(lambda pipe: pipe.read(), (self.stdout, self.stderr))
        self._process.join(timeout)
        return out, err


def run(code, *arguments, check=True, **environment):
    r"""Returns how a process ended and what it said; asserts that it ended well, unless told otherwise."""
    process = Process(code, *arguments, **environment)
    out, err = process.communicate()
    assert process.returncode == 0 or not check, f"{out}{err}"
    return CompletedProcess(arguments, process.returncode, out, err)


def _run(code, arguments, environment, folder, pipes):
    for number, pipe in enumerate(pipes):
        os.dup2(pipe.fileno(), number)
        pipe.close()
    # Those of the server are what it was started with.
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode, closefd=False) for n, mode in enumerate("rww"))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = arguments
    signal.signal(signal.SIGINT, signal.default_int_handler)
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
