r"""Compiles loops: a small part of Python, by way of LLVM.

Numba infers the types of any Python, which takes it five times as long as LLVM takes for the rest. Here types
follow from those of arguments in one reading, while which a routine is written down as LLVM's instructions.

What may be in a routine: numbers, pointers and tuples of them; arithmetic, comparisons, ``and``, ``or``,
``not`` and choices; assignment, to elements, too; ``if``, ``while``, ``break``, ``for`` over a ``range`` that
counts up by a known step; calls of routines, of :class:`Intrinsic` and of NumPy's types of numbers; one
``return``, at the end. Integers have 64 bits where nothing else is said, and do not overflow unless unsigned;
``//`` and ``%`` are those of numbers that are not negative. What does not depend on arguments (a variable
around a routine, a number that it is called with) is known when it is compiled: of a choice by it, one branch
is.
"""

from __future__ import annotations

import ast
import builtins
import functools
import linecache
import operator
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir


class CompileError(RuntimeError):
    r"""There is something in a routine that the compiler does not know."""


@dataclass(frozen=True)
class Type:
    r"""A type of values.

    Args:
        name (str): The name that NumPy has for it, with a star for a pointer to it.
        ir (Type): The type that LLVM has for it.
        element (Type, optional): What a pointer points to. (default: :obj:`None`)
    """

    name: str
    ir: Any
    element: Type | None = None

    @property
    def is_float(self) -> bool:
        r"""Whether it is a type of floating point numbers."""
        return self in (FLOAT32, FLOAT64)

    @property
    def pointer(self) -> Type:
        r"""The type of pointers to it."""
        return Type(f"{self.name}*", self.ir.as_pointer(), self)


BOOL, INT8, INT16, INT32, INT64, UINT64, FLOAT32, FLOAT64 = NUMBERS = (
    Type("bool", ir.IntType(1)),
    Type("int8", ir.IntType(8)),
    Type("int16", ir.IntType(16)),
    Type("int32", ir.IntType(32)),
    Type("int64", ir.IntType(64)),
    Type("uint64", ir.IntType(64)),
    Type("float32", ir.FloatType()),
    Type("float64", ir.DoubleType()),
)
_BY_NAME = {number.name: number for number in NUMBERS}


@dataclass(frozen=True, eq=False)
class Value:
    r"""A number or pointer that is computed: its type, and what LLVM has for it."""

    type: Type
    ir: Any


@dataclass(eq=False)
class Routine:
    r"""A function that becomes a part of the loops that call it.

    Args:
        function (Callable): The function.
        flags (tuple, optional): What LLVM may do to its arithmetic. (default: :obj:`()`)
        apart (bool, optional): Whether each of its pointers points to what no other of them does.
            (default: :obj:`False`)
        one_order (bool, optional): Whether its loops add up in the order of all others that have it set,
            however many sums there are beside. (default: :obj:`False`)
        number (type, optional): The type of a literal that stands beside no other number.
            (default: :class:`numpy.float64`)
        takes (int, optional): How many of the arguments that it is called with it takes, if not all.
            (default: :obj:`None`)
    """

    function: Callable[..., Any]
    flags: tuple[str, ...] = ()
    apart: bool = False
    one_order: bool = False
    number: type = np.float64
    takes: int | None = None


@dataclass(eq=False)
class Intrinsic:
    r"""A function that writes instructions down.

    Args:
        function (Callable): ``function(builder, *values)`` returns a :class:`Value`, or :obj:`None`. A number
            that is known comes as it is.
    """

    function: Callable[..., Any]


def known(number: Any) -> Value:
    r"""Returns a number that is known as a value; a number of Python as one of 64 bits."""
    if isinstance(number, np.generic):
        kind = _BY_NAME.get(number.dtype.name)
    else:
        kind = {bool: BOOL, int: INT64, float: FLOAT64}.get(type(number))
    if kind is None:
        raise CompileError(f"Expected a number (got {number!r})")
    return Value(kind, ir.Constant(kind.ir, number.item() if isinstance(number, np.generic) else number))


def cast(builder: Any, x: Any, kind: Type) -> Value:
    r"""Returns a number in another type.

    Raises:
        CompileError: If it is none.
    """
    if not isinstance(x, Value):
        return known(np.dtype(kind.name).type(x))
    old = x.type
    if old not in NUMBERS or kind not in NUMBERS:
        raise CompileError(f"Expected a number to turn into {kind.name} (got {old.name})")
    if old == kind:
        return x
    if old.is_float and kind.is_float:
        change = builder.fpext if kind is FLOAT64 else builder.fptrunc
    elif old.is_float:
        change = builder.fptoui if kind is UINT64 else builder.fptosi
    elif kind.is_float:
        change = builder.uitofp if old in (BOOL, UINT64) else builder.sitofp
    elif old.ir.width == kind.ir.width:
        return Value(kind, x.ir)
    elif old.ir.width > kind.ir.width:
        change = builder.trunc
    else:
        change = builder.zext if old is BOOL else builder.sext
    return Value(kind, change(x.ir, kind.ir))


def modules_of(
    function: Callable[..., Any], kinds: Sequence[Type], name: str, flags: tuple[str, ...]
) -> tuple[str, str]:
    r"""Returns LLVM's instructions of a function and of all it calls.

    Args:
        function (Callable): The function, which returns nothing.
        kinds (list): The types of its arguments.
        name (str): Its name.
        flags (tuple): As of :class:`Routine`.

    Returns:
        Two modules, that of the function and that of the routines apart. Those are to be made vectors of
        before they become a part of the function: LLVM makes none of a loop of, as it sees then, eight steps.

    Raises:
        CompileError: If there is something in it that the compiler does not know.
    """
    functions = _Functions(ir.Module(name), ir.Module(f"{name}.apart"))
    functions.compile(functions.module, Routine(function, flags), kinds, name)
    return str(functions.module), str(functions.apart)


class _Functions:
    # What stands in modules of its own: the loop, and routines whose pointers are apart.

    def __init__(self, module: ir.Module, apart: ir.Module) -> None:
        self.module, self.apart = module, apart
        self._compiled: dict[Any, tuple[ir.Function, Any]] = {}

    def call(self, builder: ir.IRBuilder, routine: Routine, arguments: Sequence[Any]) -> Any:
        values = [x if isinstance(x, Value) else known(x) for x in arguments]
        kinds = [x.type for x in values]
        key = (routine, *(kind.name for kind in kinds))
        if key not in self._compiled:
            name = f"{routine.function.__name__}.{len(self._compiled)}"
            there, result = self.compile(self.apart, routine, kinds, name)
            self._compiled[key] = ir.Function(self.module, there.ftype, name), result
        function, result = self._compiled[key]
        returned = builder.call(function, [x.ir for x in values])
        if isinstance(result, tuple):
            return tuple(Value(x.type, builder.extract_value(returned, i)) for i, x in enumerate(result))
        return None if result is None else Value(result.type, returned)

    def compile(
        self, module: ir.Module, routine: Routine, kinds: Sequence[Type], name: str
    ) -> tuple[ir.Function, Any]:
        signature = ir.FunctionType(ir.VoidType(), [kind.ir for kind in kinds])
        function = ir.Function(module, signature, name)
        function.attributes.add("nounwind")
        for kind, argument in zip(kinds, function.args, strict=True):
            if routine.apart and kind.element is not None:
                argument.add_attribute("noalias")
        variables = ir.IRBuilder(function.append_basic_block("variables"))  # before all code
        start = function.append_basic_block("start")
        builder = ir.IRBuilder(start)
        arguments = [Value(kind, argument) for kind, argument in zip(kinds, function.args, strict=True)]
        result = _Body(self, builder, variables, routine, arguments).run()
        variables.branch(start)
        if isinstance(result, tuple):
            result = tuple(x if isinstance(x, Value) else known(x) for x in result)
            packed = ir.Constant(ir.LiteralStructType([x.type.ir for x in result]), ir.Undefined)
            for i, x in enumerate(result):
                packed = builder.insert_value(packed, x.ir, i)
            builder.ret(packed)
            signature.return_type = packed.type
        elif result is None:
            builder.ret_void()
        else:
            result = result if isinstance(result, Value) else known(result)
            builder.ret(result.ir)
            signature.return_type = result.type.ir
        function.return_value = ir.ReturnValue(function, signature.return_type)  # which is known only now
        return function, result


@functools.lru_cache(maxsize=64)
def _definitions(source: str) -> dict[int, Any]:
    nodes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef))
    return {min([node.lineno, *(d.lineno for d in node.decorator_list)]): node for node in nodes}


@functools.lru_cache(maxsize=256)
def _definition(code: Any) -> tuple[ast.FunctionDef, frozenset[str]]:
    # A function as it was written, and its variables that change.
    source = "".join(linecache.getlines(code.co_filename))
    try:
        node = _definitions(source)[code.co_firstlineno]
    except (KeyError, SyntaxError):
        raise CompileError(f"Expected the source of '{code.co_name}' in {code.co_filename}") from None
    # A file may have changed since: what stands there now would be compiled in place of this.
    known = {*code.co_varnames, *code.co_names, *code.co_freevars, *code.co_cellvars}
    names = {x.id for part in node.body for x in ast.walk(part) if isinstance(x, ast.Name)}
    arguments = tuple(argument.arg for argument in node.args.args)
    if node.name != code.co_name or arguments != code.co_varnames[: code.co_argcount] or names - known:
        raise CompileError(
            f"Expected {code.co_filename} as it was when it was imported (got '{node.name}' in place of "
            f"'{code.co_name}'); start Python anew"
        )
    stores = Counter(argument.arg for argument in node.args.args)
    for x in ast.walk(node):
        if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Store):
            stores[x.id] += 1
        if isinstance(x, ast.AugAssign) and isinstance(x.target, ast.Name):
            stores[x.target.id] += 1
    return node, frozenset(name for name, count in stores.items() if count > 1)


# By the class of a node of Python's: the operator on numbers that are known, and LLVM's instruction for
# integers and for floats.
_ARITHMETIC: dict[type, tuple[Any, str, str]] = {
    ast.Add: (operator.add, "add", "fadd"),
    ast.Sub: (operator.sub, "sub", "fsub"),
    ast.Mult: (operator.mul, "mul", "fmul"),
    ast.Div: (operator.truediv, "", "fdiv"),
    ast.FloorDiv: (operator.floordiv, "div", ""),
    ast.Mod: (operator.mod, "rem", ""),
    ast.BitAnd: (operator.and_, "and_", ""),
    ast.BitOr: (operator.or_, "or_", ""),
    ast.BitXor: (operator.xor, "xor", ""),
    ast.LShift: (operator.lshift, "shl", ""),
    ast.RShift: (operator.rshift, "shr", ""),
}
_COMPARISONS: dict[type, tuple[Any, str]] = {
    ast.Lt: (operator.lt, "<"),
    ast.LtE: (operator.le, "<="),
    ast.Gt: (operator.gt, ">"),
    ast.GtE: (operator.ge, ">="),
    ast.Eq: (operator.eq, "=="),
    ast.NotEq: (operator.ne, "!="),
}


SHORT = 64  # steps of a loop that LLVM unrolls in full, if it does


class _Options(ir.MDValue):
    # Says of a loop what LLVM is to do with it.

    def __init__(self, module: ir.Module, **options: int | None) -> None:
        words = [
            module.add_metadata(
                [
                    ir.MetaDataString(module, f"llvm.loop.{name.replace('_', '.')}"),
                    *([] if value is None else [INT32.ir(value)]),
                ]
            )
            for name, value in options.items()
        ]
        super().__init__(module, words, str(len(module.metadata)))

    def descr(self, buf: list[str]) -> None:
        told = ", ".join(x.get_reference() for x in (self, *self.operands))
        buf += (f"distinct !{{ {told} }}\n",)  # type: ignore[arg-type]


def _tell(back: Any, module: ir.Module, routine: Routine, is_short: bool) -> None:
    options: dict[str, int | None] = {}
    if routine.one_order:
        options["interleave_count"] = 1
    # To repeat a body takes longer than it gains: features and channels are looped over apart. And a long sum
    # that is unrolled in part becomes one for each part, or not, by what stands beside.
    if not (is_short if routine.one_order else routine.apart):
        options["unroll_disable"] = None
    if options:
        back.set_metadata("llvm.loop", _Options(module, **options))


class _Body:
    # One call of a routine, written down where it stands.

    def __init__(
        self,
        functions: _Functions,
        builder: ir.IRBuilder,
        variables: ir.IRBuilder,
        routine: Routine,
        arguments: Sequence[Any],
    ) -> None:
        self._functions, self._builder, self._variables = functions, builder, variables
        self._routine = routine
        self._node, self._changing = _definition(routine.function.__code__)
        names = [argument.arg for argument in self._node.args.args]
        if len(names) != len(arguments):
            raise CompileError(
                f"Expected {len(names)} arguments of '{self._node.name}' (got {len(arguments)})"
            )
        self._names: dict[str, Any] = {}
        self._slots: dict[str, tuple[Type, Any]] = {}
        self._exits: list[Any] = []  # where 'break' leads to
        for name, argument in zip(names, arguments, strict=True):
            self._store(name, argument)

    def run(self) -> Any:
        *body, last = self._node.body
        self._do(body)
        if not isinstance(last, ast.Return):
            self._do([last])
            return None
        return None if last.value is None else self._value(last.value)

    # --- Statements

    def _do(self, statements: Sequence[ast.stmt]) -> None:
        for statement in statements:
            if self._builder.block.is_terminated:
                return
            method = getattr(self, f"_{type(statement).__name__}", None)
            if method is None:
                raise self._unknown(statement)
            method(statement)

    def _unknown(self, node: Any) -> CompileError:
        return CompileError(
            f"Expected a part of Python that loops may use (got '{ast.unparse(node)}' in '{self._node.name}')"
        )

    def _Expr(self, node: Any) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring
            self._value(node.value)

    def _Pass(self, node: Any) -> None:
        pass

    def _Assign(self, node: Any) -> None:
        value = self._value(node.value)
        for target in node.targets:
            self._assign(target, value)

    def _AugAssign(self, node: Any) -> None:
        if isinstance(node.target, ast.Name):
            old = self._load(node.target.id)
            self._store(node.target.id, self._binary(node.op, old, self._value(node.value), node))
        else:
            place, kind = self._place(node.target)
            old = Value(kind, self._builder.load(place))
            value = self._binary(node.op, old, self._value(node.value), node)
            self._builder.store(cast(self._builder, value, kind).ir, place)

    def _assign(self, target: Any, value: Any) -> None:
        if isinstance(target, ast.Tuple):
            for part, x in zip(target.elts, value, strict=True):
                self._assign(part, x)
        elif isinstance(target, ast.Name):
            self._store(target.id, value)
        elif isinstance(target, ast.Subscript):
            place, kind = self._place(target)
            self._builder.store(cast(self._builder, value, kind).ir, place)
        else:
            raise self._unknown(target)

    def _store(self, name: str, value: Any) -> None:
        if name not in self._changing:
            self._names[name] = value
            return
        kind = self._typed(value).type
        if name not in self._slots or (kind in NUMBERS) != (self._slots[name][0] in NUMBERS):
            self._slots[name] = kind, self._variables.alloca(kind.ir, name=name)
        kind, slot = self._slots[name]
        self._builder.store((cast(self._builder, value, kind) if kind in NUMBERS else value).ir, slot)

    def _If(self, node: Any) -> None:
        condition = self._condition(node.test)
        if isinstance(condition, bool):
            self._do(node.body if condition else node.orelse)
            return
        then, otherwise, after = (self._builder.append_basic_block(x) for x in ("then", "else", "after"))
        self._builder.cbranch(condition, then, otherwise)
        for block, statements in ((then, node.body), (otherwise, node.orelse)):
            self._builder.position_at_end(block)
            self._do(statements)
            if not self._builder.block.is_terminated:
                self._builder.branch(after)
        self._builder.position_at_end(after)

    def _While(self, node: Any) -> None:
        self._loop(lambda: self._condition(node.test), node.body, lambda: None)

    def _For(self, node: Any) -> None:
        call = node.iter
        if not (isinstance(call, ast.Call) and self._value(call.func) is range):
            raise self._unknown(node)
        bounds = [self._value(argument) for argument in call.args]
        start, stop, step = {1: (0, *bounds, 1), 2: (*bounds, 1)}.get(len(bounds), bounds)
        if isinstance(step, Value) or step <= 0:
            raise self._unknown(node)
        slot = self._variables.alloca(INT64.ir)
        self._builder.store(cast(self._builder, start, INT64).ir, slot)
        last = cast(self._builder, stop, INT64)

        def goes_on() -> Any:
            place = self._builder.load(slot)
            self._store(node.target.id, Value(INT64, place))
            return self._builder.icmp_signed("<", place, last.ir)

        def count() -> None:
            place = self._builder.load(slot)
            self._builder.store(self._builder.add(place, INT64.ir(step), flags=("nsw",)), slot)

        self._loop(goes_on, node.body, count, is_short=not isinstance(stop, Value) and stop <= SHORT)

    def _loop(
        self, goes_on: Callable[[], Any], body: Sequence[ast.stmt], count: Any, is_short: bool = False
    ) -> None:
        test, inside, after = (self._builder.append_basic_block(x) for x in ("test", "loop", "after"))
        self._builder.branch(test)
        self._builder.position_at_end(test)
        condition = goes_on()
        condition = BOOL.ir(condition) if isinstance(condition, bool) else condition
        self._builder.cbranch(condition, inside, after)
        self._builder.position_at_end(inside)
        self._exits.append(after)
        self._do(body)
        self._exits.pop()
        if not self._builder.block.is_terminated:
            count()
            _tell(self._builder.branch(test), self._builder.module, self._routine, is_short)
        self._builder.position_at_end(after)

    def _Break(self, node: Any) -> None:
        self._builder.branch(self._exits[-1])

    # --- Expressions: a Value, a tuple, or what is known

    def _value(self, node: Any) -> Any:
        method = getattr(self, f"_of_{type(node).__name__}", None)
        if method is None:
            raise self._unknown(node)
        return method(node)

    def _typed(self, x: Any) -> Value:
        if isinstance(x, float):
            return known(self._routine.number(x))
        return x if isinstance(x, Value) else known(x)

    def _condition(self, node: Any) -> Any:
        # True or False, where it is known.
        x = self._value(node)
        if not isinstance(x, Value):
            return bool(x)
        return x.ir if x.type is BOOL else self._builder.icmp_signed("!=", x.ir, x.type.ir(0))

    def _load(self, name: str) -> Any:
        if name in self._slots:
            kind, slot = self._slots[name]
            return Value(kind, self._builder.load(slot))
        if name in self._names:
            return self._names[name]
        function = self._routine.function
        if name in function.__code__.co_freevars:
            return function.__closure__[function.__code__.co_freevars.index(name)].cell_contents  # type: ignore[index]
        if name in function.__globals__:
            return function.__globals__[name]
        if hasattr(builtins, name):
            return getattr(builtins, name)
        raise CompileError(f"Expected a value for '{name}' in '{self._node.name}' before its use")

    def _of_Name(self, node: Any) -> Any:
        return self._load(node.id)

    def _of_Constant(self, node: Any) -> Any:
        return node.value

    def _of_Attribute(self, node: Any) -> Any:
        return getattr(self._value(node.value), node.attr)

    def _of_Tuple(self, node: Any) -> Any:
        return self._several(node.elts)

    def _several(self, nodes: Sequence[Any]) -> tuple[Any, ...]:
        values: list[Any] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                values += self._value(node.value)
            else:
                values.append(self._value(node))
        return tuple(values)

    def _place(self, node: Any, table: Any = None) -> tuple[Any, Type]:
        table = table or self._value(node.value)
        index = cast(self._builder, self._value(node.slice), INT64)
        if not (isinstance(table, Value) and table.type.element):
            raise self._unknown(node)
        return self._builder.gep(table.ir, [index.ir], inbounds=True), table.type.element

    def _of_Subscript(self, node: Any) -> Any:
        table = self._value(node.value)
        if isinstance(table, tuple):
            return table[self._value(node.slice)]
        place, kind = self._place(node, table)
        return Value(kind, self._builder.load(place))

    def _of_Call(self, node: Any) -> Any:
        function, arguments = self._value(node.func), self._several(node.args)
        if isinstance(function, Intrinsic):
            return function.function(self._builder, *arguments)
        if isinstance(function, Routine):
            arguments = arguments[: function.takes]
            if function.apart:
                return self._functions.call(self._builder, function, arguments)
            return _Body(self._functions, self._builder, self._variables, function, arguments).run()
        if not any(isinstance(x, Value) for x in arguments):
            return function(*arguments)
        if isinstance(function, type) and function.__name__ in _BY_NAME:
            return cast(self._builder, arguments[0], _BY_NAME[function.__name__])
        if function in (min, max) and len(arguments) == 2:
            x, y = self._alike(*arguments)
            first = self._compare("<" if function is min else ">", x, y)
            return Value(x.type, self._builder.select(first.ir, x.ir, y.ir))
        raise self._unknown(node)

    def _of_IfExp(self, node: Any) -> Any:
        condition = self._condition(node.test)
        if isinstance(condition, bool):
            return self._value(node.body if condition else node.orelse)
        return self._choice(condition, lambda: self._value(node.body), lambda: self._value(node.orelse))

    def _choice(self, condition: Any, x: Callable[[], Any], y: Callable[[], Any]) -> Value:
        # One of both, of which the other is not computed.
        then, otherwise, after = (self._builder.append_basic_block(x) for x in ("then", "else", "after"))
        self._builder.cbranch(condition, then, otherwise)
        found, ends = [], []
        for block, branch in ((then, x), (otherwise, y)):
            self._builder.position_at_end(block)
            found.append(branch())
            ends.append(self._builder.block)
        kind = self._common(*found)
        phi = ir.IRBuilder(after).phi(kind.ir)
        for end, value in zip(ends, found, strict=True):
            self._builder.position_at_end(end)
            phi.add_incoming((cast(self._builder, value, kind) if kind in NUMBERS else value).ir, end)
            self._builder.branch(after)
        self._builder.position_at_end(after)
        return Value(kind, phi)

    def _of_BoolOp(self, node: Any) -> Any:
        first, *rest = node.values
        condition = self._condition(first)
        if not rest:
            return condition if isinstance(condition, bool) else Value(BOOL, condition)
        others = ast.BoolOp(node.op, rest)
        ends = isinstance(node.op, ast.Or)  # what the first value has to be to be the result
        if isinstance(condition, bool):
            return ends if condition is ends else self._of_BoolOp(others)
        branches = (lambda: ends), (lambda: self._of_BoolOp(others))
        return self._choice(condition, *(branches if ends else branches[::-1]))

    def _of_UnaryOp(self, node: Any) -> Any:
        if isinstance(node.op, ast.Not):
            x = self._condition(node.operand)
            return not x if isinstance(x, bool) else Value(BOOL, self._builder.not_(x))
        x = self._value(node.operand)
        if not isinstance(node.op, ast.USub):
            raise self._unknown(node)
        if not isinstance(x, Value):
            return -x
        if x.type.is_float:
            return Value(x.type, self._builder.fneg(x.ir, flags=self._routine.flags))
        return Value(x.type, self._builder.neg(x.ir))

    def _of_BinOp(self, node: Any) -> Any:
        return self._binary(node.op, self._value(node.left), self._value(node.right), node)

    def _binary(self, sign: ast.operator, x: Any, y: Any, node: Any) -> Any:
        compute, of_integers, of_floats = _ARITHMETIC.get(type(sign), (None, "", ""))
        if not (isinstance(x, Value) or isinstance(y, Value)) and compute is not None:
            return compute(x, y)
        x, y = self._alike(x, y)
        if isinstance(sign, ast.Div) and not x.type.is_float:
            x, y = (cast(self._builder, operand, FLOAT64) for operand in (x, y))
        name = of_floats if x.type.is_float else of_integers
        if not name:
            raise self._unknown(node)
        if x.type.is_float:
            return Value(x.type, getattr(self._builder, name)(x.ir, y.ir, flags=self._routine.flags))
        if name in ("div", "rem"):
            name = f"{'u' if x.type is UINT64 else 's'}{name}"
        elif name == "shr":
            name = f"{'l' if x.type is UINT64 else 'a'}{name}"
        wraps = x.type is UINT64 or name not in ("add", "sub", "mul")
        flags = {} if wraps else {"flags": ("nsw",)}
        return Value(x.type, getattr(self._builder, name)(x.ir, y.ir, **flags))

    def _of_Compare(self, node: Any) -> Any:
        if len(node.ops) > 1 or type(node.ops[0]) not in _COMPARISONS:
            raise self._unknown(node)
        compute, sign = _COMPARISONS[type(node.ops[0])]
        x, y = self._value(node.left), self._value(node.comparators[0])
        if not (isinstance(x, Value) or isinstance(y, Value)):
            return bool(compute(x, y))
        return self._compare(sign, *self._alike(x, y))

    def _compare(self, sign: str, x: Value, y: Value) -> Value:
        if x.type.is_float:
            compare = self._builder.fcmp_unordered if sign == "!=" else self._builder.fcmp_ordered
            return Value(BOOL, compare(sign, x.ir, y.ir, flags=self._routine.flags))
        compare = self._builder.icmp_unsigned if x.type in (BOOL, UINT64) else self._builder.icmp_signed
        return Value(BOOL, compare(sign, x.ir, y.ir))

    def _common(self, x: Any, y: Any) -> Type:
        # The type of both together. A number of Python takes that of the other, if it is of its kind.
        if isinstance(x, bool | int | float) and not isinstance(y, bool | int | float):
            x, y = y, x
        kind = self._typed(x).type
        if isinstance(y, bool | int | float) and not (isinstance(y, float) and not kind.is_float):
            return INT64 if kind is BOOL and not isinstance(y, bool) else kind
        other = self._typed(y).type
        if kind == other:
            return kind
        unlike = UINT64 in (kind, other) and not (kind.is_float or other.is_float)
        if unlike or kind not in NUMBERS or other not in NUMBERS:
            raise CompileError(f"Expected numbers of one kind (got {kind.name} and {other.name})")
        return max(kind, other, key=NUMBERS.index)

    def _alike(self, x: Any, y: Any) -> tuple[Value, Value]:
        kind = self._common(x, y)
        return cast(self._builder, x, kind), cast(self._builder, y, kind)
