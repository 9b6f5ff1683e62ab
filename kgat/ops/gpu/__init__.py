r"""Fused attention on GPUs, in Triton, whose code is tried before it is trusted."""

from __future__ import annotations

from torch import Tensor

from kgat.ops.fused import FusedBackend
from kgat.ops.gpu import launch
from kgat.ops.gpu.trial import require_trial
from kgat.ops.graph.adjacency import Adjacency
from kgat.ops.operands import Operands
from kgat.ops.recipe import Recipe


class GPU(FusedBackend):
    r"""The kernels of :mod:`kgat.ops.gpu.loops`."""

    name, device = "gpu", "cuda"

    available = staticmethod(launch.available)
    attention_backward = staticmethod(launch.attention_backward)
    score_backward = staticmethod(launch.score_backward)
    dropout_mask = staticmethod(launch.dropout_mask)

    def attention(self, recipe: Recipe, adjacency: Adjacency, x: Operands) -> tuple[Tensor, Tensor]:
        require_trial(recipe, x)
        return launch.attention(recipe, adjacency, x)

    def score(self, recipe: Recipe, adjacency: Adjacency, x: Operands) -> Tensor:
        require_trial(recipe, x, scores=True)
        return launch.score(recipe, adjacency, x)
