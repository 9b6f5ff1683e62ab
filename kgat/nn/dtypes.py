r"""What a layer says of numbers that are of another type than its weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import LayerNorm, Linear, Parameter

from kgat.capture import autocasts
from kgat.names import bare
from kgat.ops.plain import is_plain
from kgat.ops.precision import HALF

# What autocast brings to one type, and a layer normalisation takes beside each other.
MIXED = (torch.float32, *HALF)
# Other classes of tensors (quantised, sharded, masked) have products of their own.
PLAIN = (Tensor, Parameter)


def check_dtype(name: str, x: Tensor, weight: Tensor, mixed: bool = False) -> None:
    r"""Checks that numbers are of the type of the weights that multiply them.

    Args:
        name (str): What they are, in an error.
        x (torch.Tensor): The numbers.
        weight (torch.Tensor): The weights.
        mixed (bool, optional): Whether types of at most 32 bits fit each other, as they do under autocast in
            any case. (default: :obj:`False`)

    Raises:
        ValueError: If they are not.
    """
    if x.dtype == weight.dtype or type(x) not in PLAIN or type(weight) not in PLAIN:
        return
    light = x.dtype in MIXED and weight.dtype in MIXED
    if light and (mixed or autocasts(x.device)):
        return
    got, wanted = bare(x.dtype), bare(weight.dtype)
    other = f", or the layer with '.to(torch.{got})'" if x.is_floating_point() else ""
    raise ValueError(
        f"Expected {name} of {wanted} numbers, as the weights of the layer are (got {got} of shape "
        f"{list(x.shape)}); convert them with '.to(torch.{wanted})'{other}"
    )


def check_input(name: str, x: Tensor, module: torch.nn.Module) -> None:
    r"""The same for what a linear map or a layer normalisation is about to be called with. Other modules, and
    those that are more than their weights (hooks, LoRA, quantisation), take what they take.

    Args:
        name (str): What they are, in an error.
        x (torch.Tensor): The numbers.
        module (torch.nn.Module): The module.

    Raises:
        ValueError: If they are not of the type of its weights.
    """
    if is_plain(module, Linear, LayerNorm) and isinstance(module.weight, Tensor):
        check_dtype(name, x, module.weight, mixed=isinstance(module, LayerNorm))
