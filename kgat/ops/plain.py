r"""When a caller may use the parameters of a module and not call it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules import module as calls


def is_plain(module: torch.nn.Module, *classes: type[torch.nn.Module]) -> bool:
    r"""Returns whether a call of :obj:`module` computes what its class says and nothing else. A caller may
    then use its parameters and not call it.

    A module is not plain if it has

    - hooks: :mod:`torch.nn.utils.prune`, the older :func:`~torch.nn.utils.weight_norm` and
      :func:`~torch.nn.utils.spectral_norm`, and lazy parameters use them;
    - a parametrisation, or another class: LoRA, quantisation and sharding bring one;
    - a :obj:`forward` of its own, as offloading does it.

    Args:
        module (torch.nn.Module): The module.
        *classes (type): The classes whose forward the caller knows; a subclass is another class.

    Example:
        >>> import torch
        >>> from kgat.ops.plain import is_plain
        >>> lin = torch.nn.Linear(3, 2)
        >>> is_plain(lin, torch.nn.Linear)
        True
        >>> _ = torch.nn.utils.parametrizations.weight_norm(lin)
        >>> is_plain(lin, torch.nn.Linear)
        False
    """
    if type(module) not in classes or "forward" in module.__dict__:
        return False
    # The hooks are written out, because every layer asks at every call.
    return not (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or calls._global_forward_hooks
        or calls._global_forward_pre_hooks
        or calls._global_backward_hooks
        or calls._global_backward_pre_hooks
    )


def call_linear(lin: torch.nn.Linear, x: Tensor) -> Tensor:
    r"""Returns ``lin(x)`` in the type of :obj:`x`. A plain module also computes in that type, a module of
    another kind in the type of its parameters.

    Args:
        lin (torch.nn.Linear): The linear map.
        x (torch.Tensor): What it maps.

    Shapes:
        - **x:** :math:`(*, F_{in})`, **output:** :math:`(*, F_{out})`
    """
    if is_plain(lin, torch.nn.Linear):
        return F.linear(x, lin.weight.to(x.dtype), None if lin.bias is None else lin.bias.to(x.dtype))
    first = next(lin.parameters(), x)  # a quantised module has no parameters, and takes what comes
    return lin(x.to(first.dtype)).to(x.dtype)  # type: ignore[no-any-return]
