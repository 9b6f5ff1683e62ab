r"""Fused attention on GPUs, in Triton, whose code is tried before it is trusted."""

from __future__ import annotations

import importlib.util
import os

import torch
from torch import Tensor

from kgat.ops.fused import FusedBackend
from kgat.ops.graph.adjacency import Adjacency
from kgat.ops.operands import Operands
from kgat.ops.recipe import Recipe


class GPU(FusedBackend):
    r"""The kernels of :mod:`kgat.ops.gpu.loops`.

    What launches and tries them is imported by the first pass: most machines have no use for it.
    """

    name, device = "gpu", "cuda"

    def available(self) -> str | None:
        if importlib.util.find_spec("triton") is None:
            return "needs triton"
        if os.environ.get("TRITON_INTERPRET") == "1" or torch.cuda.is_available():
            return None
        return "needs a CUDA device"

    def attention(self, recipe: Recipe, adjacency: Adjacency, x: Operands) -> tuple[Tensor, Tensor]:
        from kgat.ops.gpu import launch, trial

        trial.require_trial(recipe, x)
        return launch.attention(recipe, adjacency, x)

    def attention_backward(
        self, recipe: Recipe, adjacency: Adjacency, x: Operands, out: Tensor, lse: Tensor, grad: Tensor
    ) -> dict[str, Tensor]:
        from kgat.ops.gpu import launch

        return launch.attention_backward(recipe, adjacency, x, out, lse, grad)

    def score(self, recipe: Recipe, adjacency: Adjacency, x: Operands) -> Tensor:
        from kgat.ops.gpu import launch, trial

        trial.require_trial(recipe, x, scores=True)
        return launch.score(recipe, adjacency, x)

    def score_backward(
        self, recipe: Recipe, adjacency: Adjacency, x: Operands, grad: Tensor
    ) -> dict[str, Tensor]:
        from kgat.ops.gpu import launch

        return launch.score_backward(recipe, adjacency, x, grad)

    def dropout_mask(self, edges: int, heads: int, p: float, seed: Tensor) -> Tensor:
        from kgat.ops.gpu import launch

        return launch.dropout_mask(edges, heads, p, seed)
