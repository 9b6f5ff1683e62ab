r"""What is derived from a tensor, remembered while it lives and stays what it was."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from kgat.capture import has_modes, is_captured, is_wrapped
from kgat.ops.graph.device import assert_later, reads_at_once, recording
from kgat.ops.graph.fingerprint import contents, fingerprint, on_device

T = TypeVar("T")


class Mark(NamedTuple):
    r"""By what a tensor is known again, whoever may have written to its memory in between.

    The version that torch counts is not enough: numpy arrays, views that were kept, ``tensor.data`` and other
    processes write to memory without it. So the content itself is compared, by a fingerprint of 128 bits,
    which costs one reading of the tensor. Where the host would have to wait for a device to read the
    fingerprint, the device compares and fails loudly, and the host compares address and version.

    Of sparse tensors the places of entries count, and not their values.

    Args:
        form (tuple): What the host can compare without waiting: layout, type, shape, strides.
        content (tuple or torch.Tensor): The fingerprints, on the host or on the device.
    """

    form: tuple[Any, ...]
    content: tuple[int, ...] | Tensor

    @classmethod
    def of(cls, tensor: Tensor, form: tuple[Any, ...] | None = None, values: bool = False) -> Mark:
        r"""Reads a tensor.

        Args:
            tensor (torch.Tensor): The tensor, dense or sparse.
            form (tuple, optional): The form to take for it, of the tensor that this one is a copy of.
                (default: :obj:`None`)
            values (bool, optional): Whether the values of a sparse tensor count, too.
                (default: :obj:`False`)
        """
        if tensor.layout is torch.strided and reads_at_once(tensor.device):  # as most are, at every call
            return cls(_plain_form(tensor) if form is None else form, fingerprint(tensor))
        parts = contents(tensor, values)
        content: tuple[int, ...] | Tensor
        if reads_at_once(tensor.device):
            content = tuple(number for part in parts for number in fingerprint(part))
        else:
            content = torch.cat([on_device(part) for part in parts])
        return cls(_form(tensor) if form is None else form, content)

    def equals(self, other: Mark) -> bool:
        r"""Whether two tensors are the same; where a device compares, a difference is an error there."""
        if self.form != other.form:
            return False
        if isinstance(self.content, Tensor):
            assert isinstance(other.content, Tensor)
            assert_later((self.content == other.content).all(), CHANGED)
            return True
        return self.content == other.content


CHANGED = (
    "Expected edges (or sparse features) as they were when first used (got others at the same address: "
    "something wrote to them that torch does not count, such as 'tensor.data', or a replayed CUDA graph); "
    "change the tensor itself, or make a new one"
)


def _plain_form(tensor: Tensor) -> tuple[Any, ...]:
    return (torch.strided, tensor.dtype, tensor.device, tensor.shape, tensor.stride())


def _form(tensor: Tensor) -> tuple[Any, ...]:
    if tensor.layout is torch.strided and reads_at_once(tensor.device):
        return _plain_form(tensor)
    form: tuple[Any, ...] = (tensor.layout, tensor.dtype, tensor.device, tensor.shape)
    parts = contents(tensor)
    form += tuple((part.dtype, part.shape, part.stride()) for part in parts)
    if not reads_at_once(tensor.device):
        versions = None if tensor.is_inference() else tensor._version
        form += (versions, *(part.data_ptr() for part in parts))
    return form


@dataclass(frozen=True, eq=False)
class _Entry:
    tensor: weakref.ref[Tensor]
    mark: Mark
    # key -> what was derived, and its own mark if it is a tensor
    results: dict[Any, tuple[Any, Mark | None]]


# Edges with loops weigh as much as the edges, and there is a list of them for every number of nodes. No layer
# needs as many results of one tensor at once; beyond that the oldest goes, and is built again if asked for.
RESULTS = 16

# id of a tensor -> what is known of it. The reference's callback drops the entry with the tensor, so that a
# reused id can never meet a stale one.
_MEMORY: dict[int, _Entry] = {}


def _forget(memory: dict[int, _Entry], identity: int, _: Any) -> None:
    # The dictionary is an argument: at exit, names of modules are gone before the last tensors.
    memory.pop(identity, None)


def remember(tensor: Tensor, key: Any, build: Callable[[Tensor], T]) -> T:
    r"""Returns ``build(tensor)``, computed once per :obj:`key` for as long as :obj:`tensor` lives unchanged;
    of one tensor the 16 latest results are kept.

    Both what it was built from and, if that is a tensor, the result are compared by content at every call:
    whatever wrote to them, the result is that of the tensor as it is now.

    Args:
        tensor (torch.Tensor): What the result is derived from; of a sparse tensor, from the places of its
            entries alone.
        key (Hashable): Names the result among others of the same tensor.
        build (Callable): Computes it from a copy of the tensor, which nobody can change meanwhile; must not
            depend on anything but the tensor and the key.
    """
    if not lasting(tensor):
        return build(tensor)
    mark = Mark.of(tensor)
    entry = _MEMORY.get(id(tensor))
    if entry is not None and entry.tensor() is tensor and entry.mark.equals(mark):
        known = entry.results.get(key)
        if known is not None and (known[1] is None or known[1].equals(Mark.of(known[0]))):
            return known[0]  # type: ignore[no-any-return]
    # It serves training, too, where autograd refuses tensors of inference mode.
    with torch.inference_mode(False), torch.no_grad():
        copy = _copy(tensor)
        mark = Mark.of(copy, mark.form)
        result = build(copy)
    if not recording(tensor.device):  # what is recorded holds numbers in replays alone
        _keep(tensor, mark, key, result)
    return result


def keep(tensor: Tensor, key: Any, result: Any) -> None:
    r"""Lets :func:`remember` know a result that was found in another way.

    Args:
        tensor (torch.Tensor): What the result could be derived from.
        key (Hashable): Names the result.
        result (Any): What :func:`remember` is to return.
    """
    if lasting(tensor):
        _keep(tensor, Mark.of(tensor), key, result)


def _keep(tensor: Tensor, mark: Mark, key: Any, result: Any) -> None:
    identity = id(tensor)
    entry = _MEMORY.get(identity)
    if entry is None or entry.tensor() is not tensor or not entry.mark.equals(mark):
        forget = partial(_forget, _MEMORY, identity)
        entry = _MEMORY[identity] = _Entry(weakref.ref(tensor, forget), mark, {})
    entry.results.pop(key, None)  # so that it is the latest
    entry.results[key] = result, Mark.of(result) if isinstance(result, Tensor) else None
    for oldest in list(entry.results)[:-RESULTS]:
        entry.results.pop(oldest, None)  # another thread may have been faster


def _copy(tensor: Tensor) -> Tensor:
    if tensor.layout == torch.sparse_csr:  # the values are not asked for
        places = tensor.crow_indices().clone(), tensor.col_indices().clone()
        size, device = tensor.shape, tensor.device
        return torch.sparse_csr_tensor(
            *places, tensor.values(), size=size, device=device, check_invariants=False
        )
    return tensor.clone()


def lasting(tensor: Tensor) -> bool:
    r"""Whether a tensor has memory of its own that can be read: not while torch traces or transforms a
    function, where it stands for others, nor under a mode, which may make copies without numbers of it."""
    return not (
        is_captured()
        or has_modes()
        or tensor.is_meta
        or type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__
        or is_wrapped(tensor)
    )
