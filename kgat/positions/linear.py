r"""Linear maps of waves, in the precision of the waves."""

from __future__ import annotations

from torch import Tensor
from torch.nn import Linear, Module

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_plain(linear: Module) -> bool:
    r"""Whether a map does nothing but multiply by its weight, so that one may do that in its place.

    It may not if there is a hook on it (that of weight norm, of pruning, of offloading, or a user's own), or
    another module took its place.

    Example:
        >>> import torch
        >>> from kgat.positions.linear import is_plain
        >>> linear = torch.nn.Linear(3, 2)
        >>> is_plain(linear), is_plain(torch.nn.utils.parametrizations.weight_norm(linear))
        (True, False)
    """
    return (
        type(linear) is Linear and "forward" not in vars(linear) and not any(vars(linear)[h] for h in _HOOKS)
    )


def mapped(linear: Module, waves: Tensor) -> Tensor:
    r"""Returns ``linear(waves)``, of a plain map in the precision of the waves, whose digits half precision
    would not hold.

    Args:
        linear (torch.nn.Module): The map, without bias.
        waves (torch.Tensor): The waves, in single precision at least.

    Shapes:
        - **waves:** :math:`(N, F)`, **output:** :math:`(N, F')`
    """
    if is_plain(linear):
        return waves @ linear.weight.to(waves.dtype).t()  # type: ignore[operator, union-attr]
    weight = next(linear.parameters(), waves)
    return linear(waves.to(weight.dtype)).to(waves.dtype)
