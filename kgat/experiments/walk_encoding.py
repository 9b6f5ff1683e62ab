r"""Positional encodings that a model is given with its graph, made of the edges alone."""

from typing import Any

import torch
from torch import Tensor

from kgat.datasets.own.structure import structural_features
from kgat.ops.graph.memory import remember

__all__ = ["WalkEncoding"]


class WalkEncoding:
    r"""A hook that hands a model the chances that a random walk from a node is back after 1, 2, ... steps, as
    in `"Graph Neural Networks with Learnable Structural and Positional Representations"
    <https://arxiv.org/abs/2110.07875>`_.

    They are remembered while the edges live as they are.

    Args:
        steps (int): Number of steps.
        is_argument (bool): Whether the model takes them as :obj:`position`; else they are further features.

    Example:
        >>> hook = WalkEncoding(2, is_argument=False)
        >>> x, edge_index = torch.zeros(3, 1), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> (x, _), _ = hook(None, (x, edge_index), {})
        >>> x.tolist()
        [[0.0, 0.0, 0.5], [0.0, 0.0, 1.0], [0.0, 0.0, 0.5]]
    """

    def __init__(self, steps: int, is_argument: bool) -> None:
        self.steps, self.is_argument = steps, is_argument

    def __call__(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        x, edge_index, *others = args
        position = self._of(edge_index, x.size(0)).to(x.device, x.dtype)
        if self.is_argument:
            return args, {**kwargs, "position": position}
        dense = x if x.layout == torch.strided else x.to_dense()
        return (torch.cat([dense, position], dim=1), edge_index, *others), kwargs

    def _of(self, edge_index: Tensor, nodes: int) -> Tensor:
        def walk(edges: Tensor) -> Tensor:
            return structural_features(edges.cpu(), nodes, [f"walk:{self.steps}"])

        return remember(edge_index, (WalkEncoding, self.steps, nodes), walk)
