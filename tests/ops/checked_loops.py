"""The loops of the CPU as plain Python on arrays that check every index: a build for tests.

The source is that of :mod:`kgat.ops.cpu.loops`, loaded once more with stand-ins for what compiles it. A
compiled loop has bare pointers, where a wrong index reads or corrupts what lies beside; here it raises an
:class:`IndexError`. Buffers of scratch and rows of tables have bounds of their own, although they lie in one
tensor, and what scratch holds at the start is not a number, so that reading it before writing shows.
"""

import contextlib
import math
import sys
import types
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from kgat.ops.cpu import launch as cpu
from kgat.ops.cpu import loops as cpu_kernels
from kgat.score.scalar import translate


class Pointer:
    """Elements ``[low, high)`` of a flat array, counted from ``low``."""

    __slots__ = ("array", "high", "low", "name")

    def __init__(self, name, array, low, high):
        self.name, self.array, self.low, self.high = name, array, low, high

    def _place(self, index):
        if not 0 <= index < self.high - self.low:
            raise IndexError(f"'{self.name}': element {index} of {self.high - self.low}")
        return self.low + index

    def __getitem__(self, index):
        return self.array[self._place(index)]

    def __setitem__(self, index, value):
        self.array[self._place(index)] = value


class Address:
    """What stands in the context for a tensor; one that is absent is the number 0."""

    def __init__(self, name, x):
        self.name = name
        self.array = x.detach().view(-1).numpy()


def pointer(address, element):
    if isinstance(address, int):
        assert address == 0
        return Pointer("nothing", (), 0, 0)
    assert address.array.dtype == type(element), (address.name, address.array.dtype, type(element))
    return Pointer(address.name, address.array, 0, address.array.size)


def shift(base, count):
    # Where nothing is, nothing is read: an operand that is absent may be shifted.
    return Pointer(base.name, base.array, base.low + count, base.high)


def chunk(base, index, size):
    low = base.low + index * size
    if base.name != "nothing" and not base.low <= low <= low + size <= base.high:
        raise IndexError(f"'{base.name}': run {index} of {size} among {base.high - base.low} elements")
    return Pointer(base.name, base.array, low, low + size)


def next_slot(counter):
    counter[0] += 1
    return int(counter[0]) - 1


def prefetch(table, index):
    table[index]  # need not exist, but asking for others would be of no use


def _same(function):
    return function


def _select(condition, x, y):
    return x if condition else y


_VOCABULARY = {
    "where": _select,
    "exp": np.exp,
    "log": np.log,
    "sin": np.sin,
    "cos": np.cos,
    "sqrt": np.sqrt,
    "absolute": abs,
    "minimum": min,
    "maximum": max,
}


def _compile_rule(function, dtype, operands):
    inner = translate(function, _VOCABULARY, _same)
    constants = function.__code__.co_argcount - operands
    return lambda *args: inner(*args[: operands + constants])


def _stand_ins():
    mathematics = types.ModuleType("kgat.ops.cpu.math")
    mathematics.VOCABULARY = dict.fromkeys(("float32", "float64"), _VOCABULARY)
    for name in ("plain", "apart", "alike", "inlined"):
        setattr(mathematics, name, _same)
    mathematics.compile_rule = _compile_rule
    runtime = types.ModuleType("kgat.ops.cpu.runtime")
    for function in (pointer, shift, chunk, next_slot, prefetch):
        setattr(runtime, function.__name__, function)
    return {module.__name__: module for module in (mathematics, runtime)}


@contextlib.contextmanager
def _standing_in(modules):
    # Not mock.patch.dict, which would forget what else is imported meanwhile.
    before = {name: sys.modules[name] for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        sys.modules.update(before)


def load(*plants):
    """Loads the loops; each plant is an error to put in: a piece of the source, and what to write instead."""
    path = Path(cpu_kernels.__file__)
    source = path.read_text(encoding="utf-8")
    for piece, planted in plants:
        assert source.count(piece) == 1, piece
        source = source.replace(piece, planted)
    module = types.ModuleType("checked_kernels")
    with _standing_in(_stand_ins()):
        exec(compile(source, str(path), "exec"), module.__dict__)
    return module


class _Known(int):
    """An address that knows of what."""


def _address(x):
    known = _Known(_data_ptr(x))
    known.of = x
    return known


_data_ptr = torch.Tensor.data_ptr


class _Frame(cpu._Frame):
    """With addresses that know: it is not that of compiled loops."""


def _read(name, x):
    return 0 if x.numel() == 0 else Address(name, x)


class _Loop:
    def __init__(self, function, fields):
        self._function, self._fields = function, fields

    def run(self, values, tasks):
        named = zip(self._fields, values, strict=True)
        # A tensor without elements has the address 0, too.
        context = [x if type(x) is int else _read(name, x.of) for name, x in named]
        scratch = context[self._fields.index("scratch")]
        if scratch != 0:
            scratch.array.fill(math.nan)
        with np.errstate(all="ignore"):
            # The last task does all the work: the first could not tell where its scratch begins.
            self._function(tasks - 1, tasks, context)


@contextlib.contextmanager
def checked(*plants):
    """Lets :mod:`kgat.ops.cpu.launch` run on checked loops."""
    module = load(*plants)

    def loop(recipe, x, name):
        dtype = str(x.dtype).removeprefix("torch.")
        return _Loop(getattr(module.Kernels(recipe, dtype), name)(), module.FIELDS)

    def shared_loop(name, dtype):
        return _Loop(getattr(module, name)(str(dtype).removeprefix("torch.")), module.FIELDS)

    with (
        mock.patch.object(cpu, "_loop", loop),
        mock.patch.object(cpu, "_shared_loop", shared_loop),
        mock.patch.object(cpu, "_Frame", _Frame),
        mock.patch.object(cpu, "array", lambda _, numbers: numbers),
        mock.patch.object(torch.Tensor, "data_ptr", _address),
        _standing_in({"kgat.ops.cpu.loops": module}),  # where cpu takes the sizes of buffers from
    ):
        yield
