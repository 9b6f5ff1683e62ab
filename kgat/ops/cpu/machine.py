r"""From LLVM's instructions to code of this processor, and from there to the address of a function."""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any

import llvmlite
import llvmlite.binding as llvm

# What compiled code may call: functions of double precision, and what LLVM makes of loops that copy.
_CALLED = ("exp", "log", "sin", "cos", "memcpy", "memmove", "memset")


@functools.cache
def stamp() -> tuple[Any, ...]:
    r"""Returns what decides, beside the instructions, on the code that is made of them."""
    return llvmlite.__version__, llvm.llvm_version_info, llvm.get_process_triple(), *_processor()


@functools.cache
def _processor() -> tuple[str, str]:
    try:
        features = llvm.get_host_cpu_features().flatten()
    except RuntimeError:  # where LLVM cannot tell, those of the model
        features = ""
    return llvm.get_host_cpu_name(), features


def _machine() -> llvm.TargetMachine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    cpu, features = _processor()
    reloc = "static" if target.name.startswith("x86") else "default"
    return target.create_target_machine(
        cpu=cpu, features=features, opt=3, reloc=reloc, codemodel="jitdefault", jit=True
    )


@functools.cache
def _compiling() -> llvm.TargetMachine:
    return _machine()


@functools.cache
def _engine() -> llvm.ExecutionEngine:
    machine = _machine()
    library = ctypes.CDLL("msvcrt" if sys.platform == "win32" else None)
    for name in _CALLED:
        llvm.add_symbol(name, ctypes.cast(getattr(library, name), ctypes.c_void_p).value)
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)


def compile_modules(text: str, apart: str) -> bytes:
    r"""Returns the object file of both modules of :func:`~kgat.ops.cpu.compiler.modules_of`."""
    module, routines = _parsed(text), _parsed(apart)
    _optimize(routines)
    names = [function.name for function in routines.functions if not function.is_declaration]
    module.link_in(routines)
    for name in names:
        module.get_function(name).linkage = "internal"
    _optimize(module)
    return _compiling().emit_object(module)  # type: ignore[no-any-return]


def _parsed(text: str) -> llvm.ModuleRef:
    module = llvm.parse_assembly(text)
    module.triple, module.data_layout = llvm.get_process_triple(), str(_compiling().target_data)
    module.verify()
    return module


def _optimize(module: llvm.ModuleRef) -> None:
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = True
    builder = llvm.create_pass_builder(_compiling(), options)
    builder.getModulePassManager().run(module, builder)


def load(code: bytes, name: str) -> int:
    r"""Loads an object file and returns the address of a function in it."""
    engine = _engine()
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine.get_function_address(name)  # type: ignore[no-any-return]
