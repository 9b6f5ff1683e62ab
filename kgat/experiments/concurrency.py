r"""How many runs fit beside each other into the cores and the memory of a machine."""

import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kgat.experiments.config import Config

__all__ = ["free_memory", "memory_of_run", "runs_at_once"]

PROCESS = 700 * 2**20  # bytes of a process that has imported torch and compiled its kernels
SHARE = 0.8  # of the free memory that runs may fill
UNKNOWN = 4  # runs at once where the free memory cannot be asked for


def runs_at_once(task: Any, config: Config, device: str = "cpu") -> int:
    r"""Returns how many runs may go on at once: as many as this process has threads, among which they are
    divided, and as fit into free memory; one on a GPU.

    Args:
        task (Task, GraphTask or LinkTask): The task.
        config (Config): The settings, of which sizes count.
        device (str, optional): Where to train. (default: :obj:`"cpu"`)
    """
    if device.startswith("cuda"):
        return 1
    free = free_memory()
    fits = UNKNOWN if free is None else int(SHARE * free / memory_of_run(task, config))
    return max(1, min(torch.get_num_threads(), fits))


def memory_of_run(task: Any, config: Config) -> int:
    r"""Returns about how many bytes a run needs at most: the process, the data three times (sent, read and
    prepared), and what a layer that gathers keeps for the backward pass, four times its width per edge
    and eight times per node."""
    if task.level == "graph":
        graphs = [task.graphs.batch_of(torch.arange(len(task.graphs)))]
        share = min(1.0, (config.batch_size or math.inf) / len(task.graphs))
    else:
        graphs, share = [task.data], 1.0
    stores = [store for graph in graphs for store in graph.stores]
    data = sum(_bytes(value) for store in stores for value in store.values() if isinstance(value, Tensor))
    width = config.hidden_channels * 4
    kept = sum(width * config.num_layers * (4 * g.num_edges + 8 * g.num_nodes) for g in graphs)
    return PROCESS + 3 * data + math.ceil(share * kept)


def _bytes(value: Tensor) -> int:
    if value.layout is torch.sparse_csr:
        return sum(map(_bytes, (value.crow_indices(), value.col_indices(), value.values())))
    if value.layout is torch.sparse_coo:
        return _bytes(value._indices()) + _bytes(value._values())
    return value.numel() * value.element_size()


def free_memory(root: str | os.PathLike[str] = "/") -> int | None:
    r"""Returns the bytes of memory that are free, in a container those of its share; :obj:`None` where the
    system does not say.

    Args:
        root (str or Path, optional): Where ``proc`` and ``sys`` are. (default: :obj:`"/"`)
    """
    root = Path(root)
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
    group = root / "sys/fs/cgroup"
    for most, used in (
        (group / "memory.max", group / "memory.current"),
        (group / "memory/memory.limit_in_bytes", group / "memory/memory.usage_in_bytes"),
    ):
        try:
            free = min(free, int(most.read_text()) - int(used.read_text()))
        except (OSError, ValueError):  # there is no such file, or no limit ("max")
            continue
    return max(0, free)
