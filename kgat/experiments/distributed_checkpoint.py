r"""The checkpoint of a run in several processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import distributed

from kgat.experiments.checkpoint import (
    Checkpoint,
    generator_states,
    part_state,
    restore_generators,
    restore_part,
)
from kgat.experiments.distributed import agreed, is_first, rank, world_size

__all__ = ["DistributedCheckpoint"]


class DistributedCheckpoint(Checkpoint):
    r"""As :class:`~kgat.experiments.checkpoint.Checkpoint`: the first process reads and writes it, with what
    the generators of all processes are at. All call it together."""

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> DistributedCheckpoint:
        r"""Returns that of a checkpoint of one process; another number of processes is another run."""
        fields = {field.name: getattr(checkpoint, field.name) for field in dataclasses.fields(checkpoint)}
        return cls(**{**fields, "identity": {**checkpoint.identity, "processes": world_size()}})

    def due(self, epoch: int) -> bool:
        return agreed(is_first() and super().due(epoch))

    def save(self, parts: Mapping[str, Any]) -> None:
        generators = _Generators()
        generators.gather()
        if is_first():
            super().save({**parts, "processes": generators})

    def load(self, parts: Mapping[str, Any]) -> bool:
        generators = _Generators()
        all_parts = {**parts, "processes": generators}
        there = is_first() and super().load(all_parts)
        there, states = agreed(
            (there, {name: part_state(part) for name, part in all_parts.items()} if there else {})
        )
        if there:
            if not is_first():
                for name, part in all_parts.items():
                    restore_part(part, states[name])
            restore_generators(generators.states[rank()])
        return there

    def remove(self) -> None:
        if is_first():
            super().remove()


class _Generators:
    def __init__(self) -> None:
        self.states: list[Any] = []

    def gather(self) -> None:
        self.states = [None] * world_size()
        distributed.all_gather_object(self.states, generator_states())

    def state_dict(self) -> dict[str, Any]:
        return {"states": self.states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.states = state["states"]
