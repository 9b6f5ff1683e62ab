r"""Several processes that train one model: which one this is, and what they agree on."""

from __future__ import annotations

import gc
import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

__all__ = ["agreed", "is_first", "joined", "one_after_another", "rank", "started", "world_size"]

T = TypeVar("T")

GONE = "gloo|nccl|closed by peer|reset by peer"  # in what is said when another process has gone
PATIENCE = timedelta(days=1)  # the first process may look at validation for long


def started() -> int:
    r"""Returns how many processes ``torchrun`` started beside this one, itself included."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def world_size() -> int:
    r"""Returns how many processes train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    r"""Returns the number of this process among them."""
    return distributed.get_rank() if world_size() > 1 else 0


def is_first() -> bool:
    r"""Whether this is the process that validates, and writes results."""
    return rank() == 0


@contextmanager
def joined(device: str = "cpu") -> Iterator[str]:
    r"""Joins the processes that ``torchrun`` started, if it did; yields the device of this one.

    When the block has ended, no :class:`~torch.nn.parallel.DistributedDataParallel` can be called any more;
    its :obj:`module` can.

    Args:
        device (str, optional): Where to train; of GPUs each process takes one of its machine.
            (default: :obj:`"cpu"`)

    Raises:
        ConnectionError: If another process ends before this one.

    Example:
        >>> with joined("cpu") as device:
        ...     device, world_size(), is_first()
        ('cpu', 1, True)
    """
    if started() == 1:
        yield device
        return
    cuda, complete = torch.device(device).type == "cuda", False
    if cuda:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    try:
        distributed.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
        yield device
        distributed.barrier()
        complete = True
    except RuntimeError as error:
        of_peer = isinstance(error, distributed.DistError) or re.search(GONE, str(error), re.IGNORECASE)
        if not of_peer:
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the group
        raise ConnectionError(
            f"Expected all {started()} processes until the end (one has ended, as another saw); its message "
            "says why; start all again: they go on from the last checkpoint, if there is one"
        ) from error
    finally:
        if distributed.is_initialized() and (complete or not cuda):  # NCCL would wait for those that are gone
            _leave()


def _leave() -> None:
    # Where the last reference to a group goes, torch waits for threads of gloo, and they for Python, whose
    # lock they need to release what they did. If that reference is Python's, torch lets go of the lock; if it
    # is that of DistributedDataParallel's reducer, it does not, and both wait for ever.
    group = distributed.group.WORLD
    for candidate in gc.get_objects():
        if issubclass(type(candidate), DistributedDataParallel):
            for name in ("reducer", "logger", "process_group"):
                vars(candidate).pop(name, None)
    distributed.destroy_process_group()
    del group


@contextmanager
def one_after_another() -> Iterator[None]:
    r"""Lets the first process go through a block before all others, which find on disk what it wrote."""
    if not is_first():
        distributed.barrier()
    yield
    if is_first() and world_size() > 1:
        distributed.barrier()


def agreed(value: T) -> T:
    r"""Returns what the first process has."""
    if world_size() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]


def summed(*values: float) -> list[float]:
    r"""Returns the sums over all processes."""
    total = torch.tensor(values, dtype=torch.float64)
    if world_size() > 1:
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        total = total.to(device)
        distributed.all_reduce(total)
    return total.tolist()
