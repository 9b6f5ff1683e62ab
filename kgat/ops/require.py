r"""Conditions on the numbers inside of tensors, without waiting for a device."""

from __future__ import annotations

import torch
from torch import Tensor

from kgat.capture import unwrapped
from kgat.ops.graph.device import assert_later


def check_that(condition: Tensor, message: str) -> None:
    r"""Raises unless :obj:`condition` holds.

    On the CPU it raises at once. On other devices, and in compiled and exported code, where looking at a
    number would wait or break the graph, the device raises a :class:`RuntimeError` when it gets there.

    Args:
        condition (torch.Tensor): One bool.
        message (str): What was expected.

    Raises:
        ValueError: If the condition is False on the CPU.

    Example:
        >>> import torch
        >>> from kgat.ops.require import check_that
        >>> check_that((torch.ones(3) > 0).all(), "Expected positive numbers")
    """
    if torch.compiler.is_compiling():
        assert_later(condition, message)
        return
    condition = unwrapped(condition).all()  # vmap hides what it maps over
    if condition.device.type != "cpu" or type(condition) is not Tensor:
        assert_later(condition, message)
    elif not condition:
        raise ValueError(message)
