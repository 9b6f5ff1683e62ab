r"""What a user is told once, however often it happens."""

from __future__ import annotations

import functools
import logging

__all__ = ["LINES", "warn_once"]

logger = logging.getLogger("kgat")

# Lines that are known to have been said. They hold texts of exceptions, which compilers write long: a process
# that meets more of them, over weeks, may say an old one again.
LINES = 256


@functools.lru_cache(maxsize=LINES)
def warn_once(line: str) -> None:
    r"""Logs a warning, unless it is among the latest that were logged.

    Args:
        line (str): The warning.
    """
    logger.warning(line)
