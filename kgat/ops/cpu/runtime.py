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
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from torch import Tensor

from kgat.ops.cpu import machine
from kgat.ops.cpu.cache import CodeFiles, code_folder
from kgat.ops.cpu.compiler import INT64, Intrinsic, Value, cast, known, modules_of
from kgat.ops.cpu.math import FAST

logger = logging.getLogger("kgat")


@Intrinsic
def pointer(builder, address, element):  # type: ignore[no-untyped-def]
    r"""Turns an address into a pointer to numbers of the type that :obj:`element` is a value of."""
    kind = known(element).type.pointer
    return Value(kind, builder.inttoptr(address.ir, kind.ir))


@Intrinsic
def shift(builder, base, count):  # type: ignore[no-untyped-def]
    r"""Returns the pointer :obj:`count` elements on."""
    return Value(base.type, builder.gep(base.ir, [cast(builder, count, INT64).ir]))


@Intrinsic
def chunk(builder, base, index, size):  # type: ignore[no-untyped-def]
    r"""Returns the pointer to run :obj:`index` of a table of runs of :obj:`size` elements.

    No more than so many elements are read or written there, which a build with checks holds a loop to.
    """
    index, size = (cast(builder, x, INT64).ir for x in (index, size))
    return Value(base.type, builder.gep(base.ir, [builder.mul(index, size)]))


@Intrinsic
def next_slot(builder, counter):  # type: ignore[no-untyped-def]
    r"""Counts up, atomically, and returns the count before."""
    return Value(INT64, builder.atomic_rmw("add", counter.ir, INT64.ir(1), "monotonic"))


@Intrinsic
def prefetch(builder, base, count):  # type: ignore[no-untyped-def]
    r"""Asks for the cache line of element :obj:`count`; never faults."""
    i32, byte = ir.IntType(32), ir.IntType(8).as_pointer()
    signature = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
    function = builder.module.declare_intrinsic("llvm.prefetch", [byte], signature)
    line = builder.bitcast(builder.gep(base.ir, [count.ir]), byte)
    builder.call(function, [line, i32(0), i32(3), i32(1)])


@functools.cache
def _own_source() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class Loop:
    r"""One compiled loop.

    Args:
        function (Callable): ``function(begin, end, context)``, as :mod:`kgat.ops.cpu.compiler` can read it.
        label (str): What it is, in messages.
        key (str): Identifies what the function closes over.

    Raises:
        CompileError: If there is something in it that the compiler does not know.
    """

    compiled = 0  # how many this process has compiled rather than loaded, for tests
    _loaded: dict[str, int] = {}  # noqa: RUF012  # addresses by name: none is loaded twice
    _lock = threading.RLock()

    def __init__(self, function: Callable[..., Any], label: str, key: str) -> None:
        stamp = (machine.stamp(), _own_source(), key)
        self._name = f"kgat_{hashlib.sha256(repr(stamp).encode()).hexdigest()[:32]}"
        with Loop._lock:
            if self._name not in Loop._loaded:
                Loop._loaded[self._name] = machine.load(self._code(function, label, stamp), self._name)
        self.address = Loop._loaded[self._name]
        self._call = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)(self.address)

    def _code(self, function: Callable[..., Any], label: str, stamp: Any) -> bytes:
        folder = code_folder()
        if folder is None:
            return self._compile(function, label)
        files = CodeFiles(folder, f"kgat.{function.__name__}", stamp)
        code = files.read("")
        if code is None:
            with files.claim(""):
                code = files.read("")  # that another process has written meanwhile
                if code is None:
                    code = self._compile(function, label)
                    files.write("", code)
        return code

    def _compile(self, function: Callable[..., Any], label: str) -> bytes:
        start = time.perf_counter()
        kinds = (INT64, INT64, INT64.pointer)
        code = machine.compile_modules(*modules_of(function, kinds, self._name, FAST))
        Loop.compiled += 1
        logger.info("compiled %s in %.2f s", label, time.perf_counter() - start)
        return code

    def run(self, fields: Sequence[Any] | array[int], tasks: int) -> None:
        r"""Runs ``function(begin, end, context)`` on pieces of ``[0, tasks)``, on torch's threads.

        Args:
            fields (list or array): What stands in the context: numbers, and tensors, arrays and objects of
                ctypes by their addresses; 0 where there is none. An array holds the addresses.
            tasks (int): Number of tasks.
        """
        if type(fields) is not array:
            fields = array("q", [x if type(x) is int else _address(x) for x in fields])
        context = fields.buffer_info()[0]
        if tasks <= 1 or _forked or (parallel_for := _parallel_for()) is None:
            self._call(0, tasks, context)
            return
        error = parallel_for(0, tasks, 1, self.address, context)
        if error:
            raise RuntimeError(f"torch_parallel_for failed with code {error}")


def _address(x: Any) -> int:
    if isinstance(x, Tensor):
        return x.data_ptr()
    return x.__array_interface__["data"][0] if isinstance(x, np.ndarray) else ctypes.addressof(x)  # type: ignore[no-any-return]


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
