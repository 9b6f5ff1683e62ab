r"""Training in mini-batches whose nodes several processes share."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Sampler

from kgat.datasets.metrics import known_labels
from kgat.experiments.batch_trainer import BatchTrainer
from kgat.experiments.config import Config
from kgat.experiments.distributed import agreed, is_first, rank, summed, world_size
from kgat.nn.start import is_open

__all__ = ["DistributedTrainer"]


class DistributedTrainer(BatchTrainer):
    r"""As :class:`~kgat.experiments.batch_trainer.BatchTrainer`, in several processes
    (:func:`kgat.experiments.distributed.joined`): of each batch of :obj:`batch_size` nodes every process
    takes its share, and :class:`torch.nn.parallel.DistributedDataParallel` joins gradients to those of the
    mean over the batch, as one process has them. Batches are those of one process, too.

    Draws (dropout, neighbours) are of each process alone, batch normalisation sees its share, and the first
    one validates for all.

    Args:
        model (torch.nn.Module): ``model(x, edge_index, edge_attr=...)`` returns logits, or values.
        visible (Visible): The task without the labels of test nodes.
        config (Config): The settings, with a :obj:`batch_size` for all processes together.
    """

    def __init__(self, model: torch.nn.Module, visible: Any, config: Config) -> None:
        if config.accumulate > 1:
            raise ValueError(
                f"Expected accumulate=1 with {world_size()} processes (got {config.accumulate}); set a "
                "larger batch_size, which is of all processes together"
            )
        super().__init__(model, visible, config)
        if any(getattr(layer, "start", None) is not None and is_open(layer) for layer in model.modules()):
            # Scores that start from a first batch start from that of the first process, in all.
            with torch.no_grad(), torch.random.fork_rng():
                model.eval()
                next(self.train_batches())
            self.loader.set_epoch(0)
        # Kernels may have parameters that a setting leaves out, always the same ones.
        self.model = DistributedDataParallel(self.model, static_graph=True)
        if not is_first():  # dropout of each its own
            torch.manual_seed((config.seed << 20) + rank())

    def order(self) -> dict[str, Any]:
        self.shares = _Shares(self.train_size, int(self.config.batch_size or 0))
        return {"batch_sampler": self.shares}

    def prepare(self, visible: Any) -> None:
        super().prepare(visible)
        self.shares.generator = self.loader.generator
        self.loader.stream = rank()

    def weight(self, y: Tensor) -> float:
        # The mean over processes of weighted means is the mean over the labels of all.
        own, all_ = (known_labels(labels).sum() for labels in (y, self.train_y[self.shares.batch]))
        return float(own / all_) * world_size()

    def step(self) -> float:
        total, rows = summed(super().step() * self.shares.own, self.shares.own)
        return total / rows

    def validate(self) -> tuple[float, float]:
        return agreed(super().validate() if is_first() else (0.0, 0.0))


class _Shares(Sampler[list[int]]):
    # The share of this process in each batch, of all inputs in the order that a data loader alone would draw.
    generator: torch.Generator

    def __init__(self, size: int, batch_size: int) -> None:
        processes = world_size()
        for count, what in ((size, "training nodes"), (batch_size, "nodes in a batch")):
            if count < processes:
                raise ValueError(
                    f"Expected {what} for each of {processes} processes (got {count}); start no more "
                    "processes than that"
                )
        self.size, self.batch_size = size, batch_size
        starts = list(range(0, size, batch_size))
        if len(starts) > 1 and size - starts[-1] < processes:  # too few for all: they join those before
            starts.pop()
        self.bounds = list(zip(starts, [*starts[1:], size], strict=True))
        self.batch: list[int] = []  # what is under way, in all processes
        self.own = sum(len(range(begin + rank(), end, processes)) for begin, end in self.bounds)

    def __len__(self) -> int:
        return len(self.bounds)

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(self.size, generator=self.generator).tolist()
        for begin, end in self.bounds:
            self.batch = order[begin:end]
            yield self.batch[rank() :: world_size()]
