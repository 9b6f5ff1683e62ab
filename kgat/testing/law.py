r"""What laws are made of: points, moved parameters, and a sentence where numbers differ."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import NoReturn

import torch
from torch import Tensor

from kgat.kernels.kernel import Kernel
from kgat.score.gram import Gram


class Points:
    r"""Random queries and keys, and the tolerance that goes with their dtype."""

    def __init__(self, kernel: Kernel, dtype: torch.dtype, queries: int = 6, keys: int = 5) -> None:
        shape = (kernel.heads, kernel.channels)
        self.query = torch.randn(queries, *shape, dtype=torch.float64).to(dtype)
        self.key = torch.randn(keys, *shape, dtype=torch.float64).to(dtype)
        self.tolerance = 1e-9 if dtype == torch.float64 else 1e-3


def fail(kernel: Kernel, law: str, numbers: str) -> NoReturn:
    r"""Raises the error of a law that does not hold."""
    raise AssertionError(f"Law '{law}' fails for {kernel!r}: {numbers}")


def equal(kernel: Kernel, law: str, what: str, value: Tensor, expected: Tensor, tolerance: float) -> None:
    r"""Raises the error of a law where two tensors differ."""
    if value.shape != expected.shape:
        fail(kernel, law, f"{what}, shapes {list(value.shape)} and {list(expected.shape)}")
    # Relative above 1, absolute below; equal infinities are equal.
    error = ((value - expected).abs() / expected.abs().clamp_min(1.0)).masked_fill(value == expected, 0.0)
    if error.numel() and not bool((error <= tolerance).all()):
        worst = int(error.nan_to_num(torch.inf).argmax())
        got, wanted = value.flatten()[worst].item(), expected.flatten()[worst].item()
        fail(kernel, law, f"{what}: expected {wanted:.10g} (got {got:.10g}, tolerance {tolerance:g})")


def relative_error(value: Tensor, expected: Tensor) -> float:
    r"""Returns the largest difference, relative to the largest number that is expected, or to 1."""
    if value.shape != expected.shape:
        return torch.inf
    if value.numel() == 0:
        return 0.0
    error = (value.double() - expected.double()).abs().max() / expected.abs().max().double().clamp_min(1.0)
    return float(error.nan_to_num(nan=torch.inf))


def all_pairs(gram: Gram) -> Tensor:
    r"""Returns the scores of all pairs, or the values themselves where they can be negative."""
    if not gram.signed:
        return gram.dense()
    f, g = gram.features()
    return torch.einsum("...nhr,...mhr->...nmh", f, g)


def at_edges(gram: Gram, row: Tensor, col: Tensor) -> Tensor:
    r"""Returns the scores at edges, or the values themselves where they can be negative."""
    if not gram.signed:
        return gram.at(row, col)
    f, g = gram.features()
    return (f[row] * g[col]).sum(dim=-1)


def made_by(factory: Callable[[int, int], Kernel], channels: int, heads: int) -> Kernel:
    r"""Returns the kernel of a factory, or says why it is none."""
    if isinstance(factory, Kernel):
        raise TypeError(f"Expected a class or a factory (got {factory!r}, built already); pass its class")
    try:
        inspect.signature(factory).bind(channels, heads)
    except TypeError as error:
        raise TypeError(
            f"Expected a class or a factory called with (channels, heads) (got {factory!r}: {error}); write "
            f"it as lambda channels, heads: ..."
        ) from None
    kernel = factory(channels, heads)
    if not isinstance(kernel, Kernel):
        raise TypeError(f"Expected 'factory' to return a 'Kernel' (got {kernel!r}); subclass 'Kernel'")
    if (kernel.channels, kernel.heads) != (channels, heads):
        fail(kernel, "shape", f"built for channels={channels} and heads={heads}")
    return kernel


@torch.no_grad()
def perturb(kernel: Kernel) -> None:
    r"""Moves all parameters: a law that holds at the initial ones only, at offset 0 say, is no law."""
    for p in kernel.parameters():
        p.mul_(1.0 + 0.1 * torch.randn_like(p)).add_(0.05 * torch.randn_like(p))
