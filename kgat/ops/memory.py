r"""What is derived from a tensor, remembered while it lives."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

# id of a tensor -> (weak reference, version, what was derived from it). The reference's callback drops the
# entry with the tensor, so that a reused id can never meet a stale one.
_MEMORY: dict[int, tuple[weakref.ref[Tensor], int, dict[Any, Any]]] = {}


def _forget(memory: dict[int, Any], identity: int, _: Any) -> None:
    # The dictionary is an argument: at exit, names of modules are gone before the last tensors.
    memory.pop(identity, None)


def remember(tensor: Tensor, key: Any, build: Callable[[], T]) -> T:
    r"""Returns ``build()``, computed once per :obj:`key` for as long as :obj:`tensor` lives unchanged.

    Args:
        tensor (torch.Tensor): What the result is derived from. An in-place change forgets the result.
        key (Hashable): Names the result among others of the same tensor.
        build (Callable): Computes it; must not depend on anything but the tensor and the key.
    """
    if tensor.is_inference():  # such tensors count no versions: a change could not be noticed
        return build()
    entry = _MEMORY.get(id(tensor))
    if entry is None or entry[0]() is not tensor or entry[1] != tensor._version:
        identity = id(tensor)
        forget = partial(_forget, _MEMORY, identity)
        reference = weakref.ref(tensor, forget)
        entry = _MEMORY[identity] = (reference, tensor._version, {})
    results = entry[2]
    if key not in results:
        # It serves training, too, where autograd refuses tensors of inference mode.
        with torch.inference_mode(False), torch.no_grad():
            results[key] = build()
    return results[key]
