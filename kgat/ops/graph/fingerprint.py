r"""A number for the content of a tensor: equal contents have equal ones, and others practically never."""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Callable

import torch
from torch import Tensor

from kgat.ops.graph.device import compiled, recording, runs_triton
from kgat.ops.graph.mixing import FIRST, SECOND, STEP, THIRD

logger = logging.getLogger("kgat")

# As signed numbers: torch multiplies no unsigned ones.
_STEP, _FIRST, _SECOND, _THIRD = (constant - (1 << 64) for constant in (STEP, FIRST, SECOND, THIRD))
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
PIECE = 1 << 22  # elements that torch looks at together, where there is no compiler


def contents(tensor: Tensor, values: bool = False) -> list[Tensor]:
    r"""Returns the dense tensors that hold a tensor's content.

    Args:
        tensor (torch.Tensor): The tensor.
        values (bool, optional): Whether the values of a sparse tensor are among them, beside the places of
            its entries. (default: :obj:`False`)
    """
    layout = tensor.layout
    if layout == torch.strided:
        return [tensor]
    if layout == torch.sparse_coo:
        return [tensor._indices(), tensor._values()] if values else [tensor._indices()]
    if layout in (torch.sparse_csc, torch.sparse_bsc):
        places = [tensor.ccol_indices(), tensor.row_indices()]
    else:
        places = [tensor.crow_indices(), tensor.col_indices()]
    return [*places, tensor.values()] if values else places


def fingerprint(tensor: Tensor) -> tuple[int, int]:
    r"""Returns two numbers of 64 bits.

    .. math::
        \sum_n y_n \quad \text{and} \quad \sum_n \mathrm{mix}(y_n), \qquad
        y_n = \mathrm{mix}(x_n + n \cdot \mathrm{step}) \pmod{2^{64}}, \quad n = 1, 2, \dots

    over the elements :math:`x_n` in the order of memory, so that the tensor is known by this and its strides.
    On the CPU compiled code computes it as fast as memory is read.

    Args:
        tensor (torch.Tensor): A dense tensor of any type.
    """
    loops = compiled(tensor.device)
    if loops is not None:
        plain = tensor.dtype is torch.int64 and tensor.is_contiguous()  # what edges are
        return loops.scan(tensor if plain else _words(tensor))  # type: ignore[no-any-return]
    first, second = _scan(_words(tensor)).tolist()
    return first, second


@torch.library.custom_op("kgat::fingerprint", mutates_args=())
def on_device(tensor: Tensor) -> Tensor:
    r"""Returns what :func:`fingerprint` does as a tensor, for which the host does not wait.

    Shapes:
        - **output:** :math:`(2)`, int64
    """
    words = _words(tensor)
    scan = _scan if recording(tensor.device) else _scan_of(tensor.device)
    return scan(words)


@functools.cache
def _scan_of(device: torch.device) -> Callable[[Tensor], Tensor]:
    # In Triton it is one launch, which is tried once: compilers fail in many ways, and torch goes on without.
    if runs_triton(device):
        try:
            scan: Callable[[Tensor], Tensor] = importlib.import_module("kgat.ops.gpu.launch").scan
            words = torch.arange(-9999, 9999, device=device)
            if torch.equal(scan(words), _scan(words)):
                return scan
            why = "it gives other numbers"
        except Exception as error:  # noqa: BLE001  # compilers fail in many ways; torch goes on without
            why = f"{type(error).__name__}: {error}"
        logger.warning("kgat looks at edges through torch, in more launches, without Triton (%s)", why)
    return _scan


@on_device.register_fake
def _(tensor: Tensor) -> Tensor:
    return tensor.new_empty(2, dtype=torch.int64)


def _words(tensor: Tensor) -> Tensor:
    # The elements in the order of memory, as integers.
    x = tensor.detach()
    if not x.is_contiguous():
        dense = torch.ops.aten.is_non_overlapping_and_dense(x)
        x = x.as_strided((x.numel(),), (1,)) if dense else x.contiguous()
    if x.dim() != 1:
        x = x.view(-1)
    if x.is_complex():
        x = torch.view_as_real(x).view(-1)
    return x if x.dtype in INTEGERS.values() else x.view(INTEGERS[x.element_size()])


def _scan(words: Tensor) -> Tensor:
    total = torch.zeros(2, dtype=torch.int64, device=words.device)
    for start in range(0, words.numel(), PIECE):
        x = words[start : start + PIECE].long()
        n = torch.arange(start + 1, start + 1 + x.numel(), device=x.device)
        y = x + n * _STEP
        y = _folded(y, 32) * _FIRST
        y = _folded(y, 29) * _SECOND
        y = _folded(y, 32)
        total += torch.stack([y.sum(), _folded(y * _THIRD, 32).sum()])
    return total


def _folded(y: Tensor, bits: int) -> Tensor:
    # Torch shifts the sign in.
    return y ^ ((y >> bits) & ((1 << (64 - bits)) - 1))
