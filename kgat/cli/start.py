r"""How the command line starts: one answer to Ctrl-C and SIGTERM from the first moment on."""

# Nothing but what the interpreter has loaded already: from the first line of ours on, a stop has its answer.
import _thread
import os
import signal
import sys

__all__ = ["main"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# The packages of the extra 'experiments', by the names they are imported by.
NEEDED = ("matplotlib", "networkx", "pandas", "rich", "scipy", "sklearn", "typer")

_received: list[int] = []


def main(arguments: list[str] | None = None) -> int:
    r"""Runs the command line; returns the exit code.

    What can go wrong for a user is one line on stderr and exit code 2; :obj:`--debug`, anywhere,
    shows the traceback. Ctrl-C and SIGTERM end any command with one line and exit code 130 or 143.

    Args:
        arguments (list of str, optional): The arguments; those of the process if :obj:`None`.
            (default: :obj:`None`)
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    _received.clear()
    try:
        before = [(number, signal.signal(number, _receive)) for number in SIGNALS]
    except ValueError:  # not the main thread, which signals never reach
        before = []
    ignored = sys.unraisablehook
    sys.unraisablehook = _again(ignored)
    try:
        if missing := _missing():
            return missing
        from kgat.cli.program import run

        code = run(given)
        return code if not _received else _answer(given, "")
    except KeyboardInterrupt as interrupt:
        return _answer(given, str(interrupt))
    except BaseException:
        # What an interrupt becomes where it hits an import or a finaliser.
        if _received and "--debug" not in given:
            return _answer(given, "")
        raise
    finally:
        # A process that is about to end has nothing to interrupt any more.
        for number, handler in before:
            signal.signal(number, signal.SIG_IGN if arguments is None and _received else handler)
        sys.unraisablehook = ignored


def _missing() -> int:
    from importlib.util import find_spec

    absent = [name for name in NEEDED if find_spec(name) is None]
    if not absent:
        return 0
    sys.stderr.write(
        f"kgat: error: Expected the packages of the command line (got no {', '.join(absent)}); install them: "
        "pip install 'kgat[experiments]'\n"
    )
    return 2


def _answer(given: list[str], said: str) -> int:
    number = _received[0] if _received else signal.SIGINT
    after = ": it goes on where it stopped" if _resumes(given) else ""
    said = said or f"interrupted; run the same command again{after}"
    line = f"kgat: {' '.join(said.split())}\n"
    # Past the buffers of Python, which the interrupted code may hold.
    os.write(2, line.encode()) if _plain_stderr() else sys.stderr.write(line)
    return 128 + number


def _resumes(given: list[str]) -> bool:
    # The file of a command says it; it is read, not imported, as the interrupt may have cut the import short.
    command, part = [*given, "", ""][:2]
    path = os.path.join(os.path.dirname(__file__), f"{command}.py")
    if not (command.isidentifier() and os.path.isfile(path)):
        return False
    with open(path, encoding="utf8") as file:
        said = next((line for line in file if line.startswith("RESUMES = ")), "")
    return said == "RESUMES = True\n" or f'"{part}"' in said


def _plain_stderr() -> bool:
    try:
        sys.stderr.flush()
        return sys.stderr.fileno() == 2
    except (OSError, ValueError, AttributeError):
        return False


def _receive(number: int, frame: "FrameType | None") -> None:
    _received.append(number)
    if len(_received) == 1:
        raise KeyboardInterrupt
    if len(_received) >= 3:
        os._exit(128 + number)  # who asks three times does not want to wait


def _again(ignored: "Callable[[Any], Any]") -> "Callable[[Any], Any]":
    # An interrupt that meets a finaliser or the callback of a weak reference is dropped there, and the work
    # would go on: it is sent once more, when that is over.
    def hook(dropped: "Any") -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            import threading

            def send() -> None:
                first = _received[0] if _received else signal.SIGINT
                _received.clear()
                _thread.interrupt_main(signal.Signals(first))

            threading.Timer(0.05, send).start()
        else:
            ignored(dropped)

    return hook
