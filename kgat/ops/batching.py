r"""How an operation that knows nothing of batches takes part in ``vmap``, and so in batched gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from kgat.capture import differentiates_forward, has_modes, is_captured, is_legacy_batched, is_transformed


def is_mapped(*tensors: Tensor) -> bool:
    r"""Returns whether a call happens inside of ``vmap`` (or another transform of ``torch.func``), or of the
    older one by which :func:`torch.autograd.grad` batches gradients.

    Args:
        *tensors (torch.Tensor): The arguments of the call.
    """
    return is_transformed() or any(map(is_legacy_batched, tensors))


def is_watched(*tensors: Tensor | None) -> bool:
    r"""Returns whether somebody looks at the ops of a call: a compiler, a mode, a transform, or a tensor
    that is more than numbers in memory. Otherwise the call is free to read these, and to do without ops.

    Args:
        *tensors (torch.Tensor, optional): Its arguments.
    """
    if (
        is_captured() or has_modes() or differentiates_forward()
    ):  # a compiler cannot ask a tensor what follows
        return True
    there = [t for t in tensors if t is not None]
    return (  # without a line of Python per tensor: it is asked at every step of every layer
        not _PLAIN.issuperset(map(type, there))
        or any(map(is_legacy_batched, there))
        or any(map(Tensor.is_neg, there))
        or any(map(Tensor._is_zerotensor, there))
    )


_PLAIN = {Tensor, torch.nn.Parameter}


def one_by_one(
    function: Callable[..., Any], info: Any, in_dims: Sequence[int | None], *inputs: Any
) -> tuple[Any, Any]:
    r"""Calls a function for each item of a batch and stacks what it returns: a rule for
    :func:`torch.library.register_vmap`.

    A loop, so that the rule costs what as many calls cost, and no more memory than its results take.

    Args:
        function (Callable): Returns a tensor, or a tuple or list of them.
        info (Any): Holds the size of the batch.
        in_dims (sequence): Which dimension of each argument is that of the batch; :obj:`None` where it has
            none.
        *inputs (Any): The arguments.
    """
    args: Sequence[Any] = inputs
    if info.batch_size == 0:  # one call on zeros says what the results would look like
        args = [
            x if dim is None else x.new_zeros(x.shape[:dim] + x.shape[dim + 1 :])
            for x, dim in zip(args, in_dims, strict=True)
        ]
        results = [function(*args)]
    else:
        results = [
            function(*(x if dim is None else x.select(dim, i) for x, dim in zip(args, in_dims, strict=True)))
            for i in range(info.batch_size)
        ]
    if isinstance(results[0], Tensor):
        return torch.stack(results)[: info.batch_size], 0
    columns = [torch.stack(column)[: info.batch_size] for column in zip(*results, strict=True)]
    return type(results[0])(columns), type(results[0])(0 for _ in columns)
