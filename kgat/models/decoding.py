r"""Decoding, whatever the model."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch

# Models that are decoding: by how many calls, and the modes of their parts before the first of them.
_decoding: WeakKeyDictionary[torch.nn.Module, tuple[int, dict[torch.nn.Module, bool]]] = WeakKeyDictionary()
_lock = threading.Lock()


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    r"""Puts a model into evaluation mode, and each part of it back into its own afterwards.

    Of several threads that decode with one model, the last to end puts it back.

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
    with _lock:
        calls, modes = _decoding.get(model, (0, {}))
        if calls == 0:
            modes = {part: part.training for part in model.modules()}
            model.eval()
        _decoding[model] = calls + 1, modes
    try:
        yield
    finally:
        with _lock:
            calls, modes = _decoding[model]
            if calls > 1:
                _decoding[model] = calls - 1, modes
            else:
                del _decoding[model]
                for part, training in modes.items():
                    part.training = training
