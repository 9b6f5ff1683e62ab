r"""Several processes that train one model: which one this is, and what they agree on."""

from __future__ import annotations

import gc
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

__all__ = ["agreed", "is_first", "joined", "one_after_another", "rank", "started", "world_size"]

T = TypeVar("T")

# What the libraries below torch say when a peer has gone.
GONE = "connection|closed by peer|broken pipe|reset by peer|socket|timed out|nccl|gloo"
# Threads of gloo give their last tensors back to Python, and torch waits for these threads where it drops
# the group, without letting Python go: they have to be done before. After a failure the group stays.
SETTLING = 0.2  # seconds
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
    cuda = torch.device(device).type == "cuda"
    if cuda:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
    try:
        yield device
        distributed.barrier()
        gc.collect()  # DistributedDataParallel, which holds the group, is part of cycles
        time.sleep(SETTLING)
        distributed.destroy_process_group()
    except RuntimeError as error:
        if isinstance(error, NotImplementedError) or not re.search(GONE, str(error), re.IGNORECASE):
            raise
        raise ConnectionError(
            f"Expected all {started()} processes until the end (one has ended, as another saw); its message "
            "says why; start all again: they go on from the last checkpoint, if there is one"
        ) from error
    finally:
        time.sleep(SETTLING)


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
        total = total.float().to(device) if device == "cuda" else total
        distributed.all_reduce(total)
    return total.tolist()
