r"""How compiled loops are made, kept on disk and run: raw pointers, keys of source text, torch's threads.

A compiled loop is a C function ``void(begin, end, context)``, where the context is an array of addresses and
sizes. It runs on torch's own thread pool, so that :func:`torch.set_num_threads` is respected and there is no
second pool.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.core import types
from numba.core.ccallback import CFunc
from numba.extending import intrinsic
from torch import Tensor

from kgat.ops.cpu.cache import cache_of
from kgat.ops.cpu.math import FAST, named

logger = logging.getLogger("kgat")


@intrinsic
def pointer(typingctx, address, element):  # type: ignore[no-untyped-def]
    r"""Turns an address into a pointer to numbers of the type that :obj:`element` is a value of."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(element)(types.int64, element), codegen


@intrinsic
def shift(typingctx, base, count):  # type: ignore[no-untyped-def]
    r"""Returns the pointer :obj:`count` elements on."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.gep(args[0], [args[1]])

    return base(base, types.int64), codegen


@intrinsic
def chunk(typingctx, base, index, size):  # type: ignore[no-untyped-def]
    r"""Returns the pointer to run :obj:`index` of a table of runs of :obj:`size` elements.

    No more than so many elements are read or written there, which a build with checks holds a loop to.
    """

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.gep(args[0], [builder.mul(args[1], args[2])])

    return base(base, types.int64, types.int64), codegen


@intrinsic
def next_slot(typingctx, counter):  # type: ignore[no-untyped-def]
    r"""Counts up, atomically, and returns the count before."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.atomic_rmw("add", args[0], ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(types.CPointer(types.int64)), codegen


@intrinsic
def prefetch(typingctx, base, count):  # type: ignore[no-untyped-def]
    r"""Asks for the cache line of element :obj:`count`; never faults."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        i32, byte = ir.IntType(32), ir.IntType(8).as_pointer()
        name = "llvm.prefetch.p0" if builder.module.globals.get("llvm.prefetch.p0") else "llvm.prefetch.p0i8"
        function = builder.module.globals.get(name) or ir.Function(
            builder.module, ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32]), name
        )
        line = builder.bitcast(builder.gep(args[0], [args[1]]), byte)
        builder.call(function, [line, i32(0), i32(3), i32(1)])
        return context.get_dummy_value()

    return types.void(base, types.int64), codegen


@functools.cache
def _own_source() -> str:
    digest = hashlib.sha256(numba.__version__.encode())
    for name in ("math.py", "runtime.py", "loops.py", "waves.py"):
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()


class Loop:
    r"""One compiled loop.

    Args:
        function (Callable): ``function(begin, end, context)`` in Numba's subset.
        label (str): What it is, in messages.
        key (str): Identifies what the function closes over.
    """

    compiled = 0  # how many this process has compiled rather than loaded, for tests and `kgat info`

    def __init__(self, function: Callable[..., Any], label: str, key: str) -> None:
        signature = types.void(types.int64, types.int64, types.CPointer(types.int64))
        loop = CFunc(
            named(function),
            (signature.args, signature.return_type),
            {},
            {"fastmath": FAST, "error_model": "numpy"},
        )
        cache = cache_of(function, f"{_own_source()}|{key}")
        if cache is not None:
            loop._cache = cache  # type: ignore[attr-defined]
        start = time.perf_counter()
        if cache is None or not cache.holds(loop._sig):  # type: ignore[attr-defined]
            _announce(label)
        loop.compile()
        if loop.cache_hits == 0:
            Loop.compiled += 1
            logger.info("compiled %s in %.1f s", label, time.perf_counter() - start)
        self._loop = loop  # keeps the code alive
        self.address: int = loop.address  # type: ignore[assignment]
        self._call = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)(self.address)

    def run(self, fields: Sequence[Tensor | int], tasks: int) -> None:
        r"""Runs ``function(begin, end, context)`` on pieces of ``[0, tasks)``, on torch's threads.

        Args:
            fields (list): What stands in the context: a tensor by its address, 0 where there is none.
            tasks (int): Number of tasks.
        """
        numbers = [x.data_ptr() if isinstance(x, Tensor) else x for x in fields]
        context = np.array(numbers, dtype=np.int64)
        parallel_for = _parallel_for()
        if tasks <= 1 or parallel_for is None or _forked:
            self._call(0, tasks, context.ctypes.data)
            return
        error = parallel_for(0, tasks, 1, self.address, context.ctypes.data)
        if error:
            raise RuntimeError(f"torch_parallel_for failed with code {error}")


@functools.cache
def _parallel_for() -> Any:
    suffix = {"win32": "torch_cpu.dll", "darwin": "libtorch_cpu.dylib"}.get(sys.platform, "libtorch_cpu.so")
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / suffix))
        function = library.torch_parallel_for
    except (OSError, AttributeError) as error:
        logger.warning("Fused attention runs on one thread: torch's thread pool is not to be had (%s)", error)
        return None
    function.restype = ctypes.c_int32
    function.argtypes = [*[ctypes.c_int64] * 3, ctypes.c_void_p, ctypes.c_void_p]
    return function


# A forked child has torch's pool in name only: its threads stayed with the parent.
_forked = False


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

_announced = False


def _announce(label: str) -> None:
    # Once per process and before the wait, where everyone sees it.
    global _announced
    if not _announced:
        _announced = True
        logger.warning(
            "kgat compiles fused attention for its first use (%s) and keeps it on disk: some seconds per "
            "kernel, ahead of time with 'kgat info --warm'",
            label,
        )
