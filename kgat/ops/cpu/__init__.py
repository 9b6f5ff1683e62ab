r"""Fused attention on the CPU, compiled by LLVM."""

from __future__ import annotations

from kgat.ops.cpu import launch
from kgat.ops.fused import FusedBackend


class CPU(FusedBackend):
    r"""The loops of :mod:`kgat.ops.cpu.loops`."""

    name = device = "cpu"

    available = staticmethod(launch.available)
    attention = staticmethod(launch.attention)
    attention_and_base = staticmethod(launch.attention_and_base)
    attention_backward = staticmethod(launch.attention_backward)
    score = staticmethod(launch.score)
    score_backward = staticmethod(launch.score_backward)
    dropout_mask = staticmethod(launch.dropout_mask)
