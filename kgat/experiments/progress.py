r"""One bar for all experiments: jobs done of all, what goes on inside of one, and the time that is left."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from kgat.extras import require

__all__ = ["Progress", "progress"]

SECONDS = 0.1  # between two notes: an epoch may take a few milliseconds


class Progress:
    r"""Shows nothing; its subclass shows a bar.

    A note replaces the one before; lines stay.
    """

    def count(self, done: int) -> None:
        r"""Counts jobs as done without a line, as those that were there already."""

    def note(self, text: str, *, always: bool = True) -> None:
        r"""Says what goes on; one that need not always be shown is left out if another was just shown."""

    def done(self, label: str, lines: Iterable[str], *, everywhere: bool = False) -> None:
        r"""Counts a job as done.

        Args:
            label (str): The job.
            lines (iterable of str): What came out; on a terminal the bar says enough.
            everywhere (bool, optional): Whether lines are for a terminal, too. (default: :obj:`False`)
        """


class _Bar(Progress):
    def __init__(self, bar: Any, row: Any) -> None:
        self.bar = bar
        self.row = row
        self.shown = 0.0

    def count(self, done: int) -> None:
        self.bar.advance(self.row, done)

    def note(self, text: str, *, always: bool = True) -> None:
        if always or time.monotonic() - self.shown > SECONDS:
            self.shown = time.monotonic()
            self.bar.update(self.row, now=text)

    def done(self, label: str, lines: Iterable[str], *, everywhere: bool = False) -> None:
        self.bar.advance(self.row)
        lines = list(lines)
        if not self.bar.console.is_terminal:  # no bar moves there
            task = self.bar.tasks[0]
            head = f"{task.completed:.0f}/{task.total:.0f} {label}"
            lines = [head, *lines] if everywhere else [": ".join([head, *lines])]
        elif not everywhere:
            return
        for line in lines:
            # A name may have brackets.
            self.bar.console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def progress(title: str, total: int, *, shown: bool = True) -> Iterator[Progress]:
    r"""Shows a bar on stderr, or a line per job where that is no terminal.

    Args:
        title (str): What stands before the bar.
        total (int): Number of jobs.
        shown (bool, optional): Whether anything is shown. (default: :obj:`True`)
    """
    if not shown:
        yield Progress()
        return
    require("for a progress bar", "rich")
    from rich import progress as rich
    from rich.console import Console

    columns = (
        *([rich.TextColumn("{task.description}", markup=False)] if title else []),
        rich.BarColumn(bar_width=20),
        rich.MofNCompleteColumn(),
        rich.TimeElapsedColumn(),
        rich.TimeRemainingColumn(),
        rich.TextColumn("{task.fields[now]}", markup=False),
    )
    with rich.Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as bar:
        row = bar.add_task(title, total=total, now="")
        yield _Bar(bar, row)
        bar.update(row, now="")
