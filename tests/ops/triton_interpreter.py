"""Triton's interpreter without its waste, for checks that run in it."""

import functools
import inspect

import triton.runtime.interpreter as interpreter
from triton.language.core import is_builtin


def patch_once():
    r"""Exchanges the builtins of Triton's language where they are not exchanged yet. The interpreter looks
    for them among all names of a module, in each call of a function from a kernel: 40 % of its time."""
    patch = interpreter._patch_attr

    @functools.cache
    def builtins(package):
        return [name for name, member in inspect.getmembers(package) if is_builtin(member)]

    def patch_builtin(package, *rest):
        for name in builtins(package):
            member = getattr(package, name)
            if not is_builtin(member):
                return
            patch(package, name, member, *rest)

    interpreter._patch_builtin = patch_builtin
