r"""Backends of edge attention, and the choice between them.

A backend is a module with a ``NAME``, ``reasons(call) -> list[str]`` (why it cannot run a call; empty if it
can) and ``edge_attention(call)``. :data:`BACKENDS` is the order of preference; :data:`ON_REQUEST` can only be
named.
"""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

from torch import Tensor

from kgat.ops import eager, reference
from kgat.ops.call import Call
from kgat.ops.fused import FusedBackend, fall_back
from kgat.ops.recipe import BackendError

Backend = ModuleType | FusedBackend

BACKENDS: tuple[Backend, ...] = (FusedBackend("gpu", "cuda"), FusedBackend("cpu", "cpu"), eager)
ON_REQUEST: tuple[Backend, ...] = (reference,)


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
        for module in BACKENDS:
            if not module.reasons(call):
                return module
        raise NotImplementedError(f"Expected a backend for {call} (got none). {explain(call)}")
    for module in BACKENDS + ON_REQUEST:
        if backend == module.NAME:
            if module.reasons(call):
                raise NotImplementedError(f"backend={backend!r} cannot run {call}. {explain(call)}")
            return module
    known = ", ".join(repr(module.NAME) for module in BACKENDS + ON_REQUEST)
    raise ValueError(f"Expected 'backend' as None or one of {known} (got {backend!r})")


def explain(call: Call) -> str:
    r"""Says of each backend, in order of preference, whether it can run :obj:`call` and why not."""
    lines = []
    for module in BACKENDS + ON_REQUEST:
        why = module.reasons(call)
        note = " (only if named)" if module in ON_REQUEST else ""
        lines.append(f"{module.NAME}{note}: {', '.join(why) if why else 'ok'}")
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
    call = replace(call, gram=call.gram.up_to_query())
    chosen = choose(call, backend)
    try:
        return getattr(chosen, name)(call)
    except BackendError as error:
        if backend is not None:
            raise
        fall_back("fused attention", error)
        return getattr(eager, name)(call)
