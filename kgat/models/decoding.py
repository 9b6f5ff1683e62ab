r"""Decoding, whatever the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    r"""Puts a model into evaluation mode, and each part of it back into its own afterwards.

    Args:
        model (torch.nn.Module): The model.

    Example:
        >>> import torch
        >>> from kgat.models.decoding import evaluating
        >>> model = torch.nn.Dropout()
        >>> with evaluating(model):
        ...     model.training
        False
        >>> model.training
        True
    """
    modes = {part: part.training for part in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training
