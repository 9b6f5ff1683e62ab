r"""When a result may be computed from a module's parameters, past its call."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules import module as calls


def is_plain(module: torch.nn.Module, *classes: type[torch.nn.Module]) -> bool:
    r"""Returns whether calling :obj:`module` is what its class computes from its parameters and nothing else,
    so that a caller may use these parameters in its place.

    It is not where the module has hooks (among them those of :mod:`torch.nn.utils.prune`, of the older
    :func:`~torch.nn.utils.weight_norm` and :func:`~torch.nn.utils.spectral_norm`, and of lazy parameters), a
    parametrisation or another class (LoRA, quantisation, sharding), or a :obj:`forward` of its own
    (offloading).

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
    # Written out, because every layer asks at every call.
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


def project(lin: torch.nn.Linear, x: Tensor) -> Tensor:
    r"""Returns ``lin(x)``, in the precision of :obj:`x` where the module is plain and its weights are of half
    precision.

    Args:
        lin (torch.nn.Linear): The linear map.
        x (torch.Tensor): What it maps.

    Shapes:
        - **x:** :math:`(*, F_{in})`, **output:** :math:`(*, F_{out})`
    """
    if is_plain(lin, torch.nn.Linear):
        return F.linear(x, lin.weight.to(x.dtype), None if lin.bias is None else lin.bias.to(x.dtype))
    return lin(x.to(next(lin.parameters()).dtype)).to(x.dtype)  # type: ignore[no-any-return]
