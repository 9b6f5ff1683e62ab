r"""Whether torch does more with a call than to run it: all that kgat asks of torch's inner state.

Torch has public names for little of this. What a version of it calls otherwise is mended here alone.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "autocasts",
    "differentiates_forward",
    "has_modes",
    "is_captured",
    "is_exporting",
    "is_legacy_batched",
    "is_transformed",
    "is_wrapped",
    "unwrapped",
    "without_autocast",
]

# A tensor of the older vmap, by which torch.autograd.grad batches gradients; one that a transform of
# torch.func holds another in. As they are, so that asking for many tensors takes no line of Python for each.
is_legacy_batched = torch._C._functorch.is_legacy_batchedtensor
is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
_top_transform = torch._C._functorch.peek_interpreter_stack
_is_tracing = torch._C._is_tracing


def is_captured() -> bool:
    r"""Returns whether torch compiles, traces or transforms the code that runs. Tensors then stand for
    others, so that nothing may depend on their numbers or be remembered of them.

    Example:
        >>> is_captured(), bool(torch.func.vmap(lambda x: x + is_captured())(torch.zeros(1)))
        (False, True)
    """
    # A compiler comes first: it cannot follow the other questions.
    return torch.compiler.is_compiling() or _is_tracing() or _top_transform() is not None


def is_transformed() -> bool:
    r"""Returns whether the code runs inside of a transform of :mod:`torch.func` that no compiler follows:
    of ``vmap``, ``grad``, ``jvp`` and their like."""
    return not torch.compiler.is_compiling() and _top_transform() is not None


def differentiates_forward() -> bool:
    r"""Returns whether a level of forward-mode differentiation is open. Not for compilers to ask."""
    return torch.autograd.forward_ad._current_level >= 0


def has_modes() -> bool:
    r"""Returns whether a mode, such as a counter of operations, looks at the ops that run. Not for compilers
    to ask."""
    return torch._C._len_torch_dispatch_stack() > 0


def autocasts(device: torch.device) -> bool:
    r"""Returns whether autocast is on for a device. Some have none, such as ``meta``, and torch refuses to be
    asked about them.

    Args:
        device (torch.device): The device.
    """
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    r"""Returns a context in which autocast is off.

    Args:
        device (torch.device): Where it is off.
    """
    # Where it is off anyway, to switch it off would take longer than many a lift.
    on = device.type != "meta" if torch.compiler.is_compiling() else autocasts(device)
    return torch.autocast(device.type, enabled=False) if on else _NOTHING_TO_DO


_NOTHING_TO_DO = nullcontext()


def is_exporting() -> bool:
    r"""Returns whether :func:`torch.export.export` goes through the code."""
    # Before 2.12, the public function says yes to all code that torch compiles.
    return torch.compiler._is_exporting_flag


def unwrapped(tensor: Tensor) -> Tensor:
    r"""Returns what transforms of :mod:`torch.func` hold in a tensor, other tensors as they are.

    Args:
        tensor (torch.Tensor): The tensor.
    """
    while is_wrapped(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor
