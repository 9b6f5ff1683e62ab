r"""Backends of edge attention and the choice between them; :mod:`kgat.ops.backend` says what a backend is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kgat.ops.backend import BACKENDS, Backend, named
from kgat.ops.call import Call
from kgat.ops.cpu import CPU
from kgat.ops.eager import EAGER
from kgat.ops.gpu import GPU
from kgat.ops.passes import fall_back
from kgat.ops.recipe import BackendError
from kgat.ops.reference import Reference

BACKENDS += [GPU(), CPU(), EAGER, Reference()]


def here() -> list[str]:
    r"""Returns the names of the backends that this machine has all for, but for those on request alone."""
    return [known.name for known in BACKENDS if not known.on_request and known.is_here()]


def choose(call: Call, backend: str | None = None) -> Backend:
    r"""Returns the backend that runs :obj:`call`: the named one, else the first that can.

    Args:
        call (Call): The request.
        backend (str, optional): A backend's name. (default: :obj:`None`)

    Raises:
        ValueError: If no backend has that name.
        NotImplementedError: If the named backend cannot run the call, with every backend's reasons.
    """
    if backend is None:
        device = call.value.device.type
        for known in BACKENDS:
            if known.on_request or known.device not in (None, device):
                continue
            if not known.reasons(call):
                return known
        raise NotImplementedError(f"Expected a backend for {call} (got none). {explain(call)}")
    known = named(backend)
    if known.reasons(call):
        raise NotImplementedError(f"backend={backend!r} cannot run {call}. {explain(call)}")
    return known


def explain(call: Call, fused: bool = False) -> str:
    r"""Says of each backend, in order of preference, whether it can run :obj:`call` and why not.

    Args:
        call (Call): The request.
        fused (bool, optional): Only of those that are the code of a device. (default: :obj:`False`)
    """
    calls = call.by_heads()
    if len(calls) > 1:
        return " | ".join(explain(part, fused) for part in calls)
    lines = []
    for backend in BACKENDS:
        if fused and backend.device is None:
            continue
        note = " (only if named)" if backend.on_request else ""
        said = backend.reasons(call) or ["ok", *backend.remarks(call)]
        lines.append(f"{backend.name}{note}: {', '.join(said)}")
    return "; ".join(lines)


def edge_attention(call: Call, backend: str | None = None) -> Tensor:
    r"""Runs :obj:`call` on the backend that :func:`choose` returns.

    A rule that a fused backend cannot compile runs on the eager one, which says so once; a backend that was
    named raises instead.
    """
    return _run("edge_attention", call, backend)  # type: ignore[no-any-return]


def edge_attention_with_weights(call: Call, backend: str | None = None) -> tuple[Tensor, Tensor]:
    r"""Runs :obj:`call` as :func:`edge_attention` does, bit for bit, and returns its weights too."""
    return _run("edge_attention_with_weights", call, backend)  # type: ignore[no-any-return]


def _run(name: str, call: Call, backend: str | None) -> Any:
    calls = call.by_heads()
    if len(calls) > 1:
        results = [_run(name, part, backend) for part in calls]
        if isinstance(results[0], tuple):
            return tuple(torch.cat(pieces, dim=1) for pieces in zip(*results, strict=True))
        return torch.cat(results, dim=1)
    chosen = choose(call, backend)
    try:
        return getattr(chosen, name)(call)
    except BackendError as error:
        if backend is not None:
            raise
        fall_back("fused attention", error)
        return getattr(EAGER, name)(call)
