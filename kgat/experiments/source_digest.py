r"""Tells whether code has changed: a digest of a class or function and of what it uses."""

import ast
import functools
import hashlib
import inspect
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

__all__ = ["digest"]

PLAIN = (int, float, complex, str, bytes, bool, type(None))
INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})


def digest(thing: Callable[..., Any]) -> str:
    r"""Returns a digest of the source of a class or function: without comments and layout, with the classes,
    functions and plain constants that it names, unless they are installed with Python or a package.

    Example:
        >>> def double(x):
        ...     return 2 * x
        >>> digest(double) == digest(double), digest(double) == digest(len)
        (True, False)
    """
    parts = sorted(_parts(thing, set()))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _parts(thing: Any, seen: set[int]) -> Iterator[str]:
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, functools.partial):
        yield f"{thing.args!r} {sorted(thing.keywords.items())!r}"
        yield from _parts(thing.func, seen)
    elif isinstance(thing, type | FunctionType):
        yield f"{thing.__qualname__}: {_source(thing)}"
        for base in thing.__mro__ if isinstance(thing, type) else ():
            if _is_own(base):
                yield from _parts(base, seen)
        for function in _functions(thing):
            for name, value in _named(function):
                if isinstance(value, PLAIN):
                    yield f"{name} = {value!r}"
                elif isinstance(value, type | FunctionType | functools.partial) and _is_own(value):
                    yield from _parts(value, seen)
    else:
        yield f"{type(thing).__module__}.{type(thing).__qualname__} {getattr(thing, '__qualname__', '')}"


def _source(thing: Any) -> str:
    try:
        source = textwrap.dedent(inspect.getsource(thing))
    except (OSError, TypeError):  # typed in, not in a file
        return " ".join(f"{f.__code__.co_code.hex()} {_constants(f.__code__)}" for f in _functions(thing))
    try:
        return ast.unparse(ast.parse(source))
    except SyntaxError:  # a lambda in the middle of a line
        return source


def _constants(code: CodeType) -> str:
    return " ".join(_constants(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts)


def _functions(thing: Any) -> list[FunctionType]:
    members = [thing] if isinstance(thing, FunctionType) else list(vars(thing).values())
    parts = [part for m in members for part in (m, *(getattr(m, n, None) for n in ("__func__", "fget")))]
    return [part for part in parts if isinstance(part, FunctionType)]


def _named(function: FunctionType) -> Iterator[tuple[str, Any]]:
    r"""What a function names: globals, what it closes over, and attributes of modules."""
    names = list(_names(function.__code__))
    for name in names:
        value = function.__globals__.get(name)
        if isinstance(value, ModuleType):
            yield from ((f"{name}.{n}", vars(value)[n]) for n in names if n in vars(value) and _is_own(value))
        elif name in function.__globals__:
            yield name, value
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # a cell that is still empty
            continue


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _is_own(thing: Any) -> bool:
    name = thing.__name__ if isinstance(thing, ModuleType) else getattr(thing, "__module__", None)
    if isinstance(thing, functools.partial):
        return True
    if name is None or name.partition(".")[0] in ("kgat", "builtins"):
        return False
    file = getattr(sys.modules.get(name), "__file__", None)
    return file is None or not file.startswith(INSTALLED)
