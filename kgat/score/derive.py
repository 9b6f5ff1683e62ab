r"""Derivatives of rules, by writing down what a rule computes.

A rule is called with symbols. What it does with them, arithmetic and the functions of
:mod:`kgat.score.scalar`, becomes an :class:`Expression`, equal parts of which are one. Its derivative is
carried forward along it, and both are written as plain Python functions, which tensors run and backends
compile.

Forward, because the derivative of a choice is then the choice of a derivative: nothing of the branch that is
not taken gets through, not even a NaN. Torch goes backward through what tensors run, and multiplies the
infinite slope of such a branch by 0; so there a branch has inputs of its own, which take a gradient where it
is taken. The rule itself is rounded as it was written: what is simplified there (numbers folded, zeros left
out) is exact.
"""

from __future__ import annotations

import ast
import inspect
import numbers
import operator
from collections.abc import Callable, Iterable, Sequence
from functools import partialmethod
from typing import Any

from kgat.score.scalar import VOCABULARY, Symbol, taken, typed

Value = Any  # a Symbol or a float
Guards = tuple[tuple[int, bool], ...]  # places of conditions, and whether they are to hold

_SIGNS = {
    **{"add": "+", "sub": "-", "mul": "*", "truediv": "/", "lt": "<", "le": "<=", "gt": ">", "ge": ">="},
    **{"eq": "==", "ne": "!=", "and": "&", "or": "|"},
}
_CONDITIONS = frozenset(("lt", "le", "gt", "ge", "eq", "ne", "and", "or"))
_UNBOUNDED = frozenset(("truediv", "exp", "log", "sqrt"))  # whose results or derivatives may be infinite
_FUNCTIONS: dict[str, Any] = {function.__name__: function for function in VOCABULARY}


def _is(x: Any, number: float) -> bool:
    return isinstance(x, float) and x == number


def _negated(x: Any) -> bool:
    return isinstance(x, Symbol) and x.operation == "neg"


def _is_condition(x: Any) -> bool:
    return isinstance(x, Symbol) and x.operation in _CONDITIONS


class Tape:
    r"""What was computed of symbols, each result once."""

    def __init__(self) -> None:
        self._results: dict[tuple[Any, ...], Symbol] = {}
        self.symbols: list[Symbol] = []  # by their places

    def input(self, varies: bool) -> Symbol:
        r"""Returns a new symbol."""
        self.symbols.append(Symbol(self, "input", (), len(self.symbols), varies))
        return self.symbols[-1]

    def result(self, operation: str, *operands: Value) -> Symbol:
        r"""Returns the symbol of a result, as it stands."""
        # -0.0 equals 0.0, and is another number.
        key = (operation, *(x.place if isinstance(x, Symbol) else repr(x) for x in operands))
        if key not in self._results:
            varies = any(isinstance(x, Symbol) and x.varies for x in operands)
            self._results[key] = Symbol(self, operation, operands, len(self.symbols), varies)
            self.symbols.append(self._results[key])
        return self._results[key]

    def apply(self, operation: str, *operands: Any) -> Value:
        r"""Returns a result in its simplest form.

        Raises:
            TypeError: If an operand is neither a symbol of this tape nor a number.
        """
        x = [self._operand(operand, operation) for operand in operands]
        if operation == "where" and not _is_condition(x[0]):
            raise TypeError(
                "Expected a comparison as the condition of 'where' (got a number); write it as 'x > 0'"
            )
        if not any(isinstance(operand, Symbol) for operand in x):
            fold = _FUNCTIONS.get(operation) or getattr(operator, operation)
            return float(fold(*x))
        simpler = getattr(self, f"_{operation}", None)
        return self.result(operation, *x) if simpler is None else simpler(*x)

    def _operand(self, x: Any, operation: str) -> Value:
        if isinstance(x, Symbol) and x.tape is self:
            if _is_condition(x) and operation not in ("and", "or", "where"):
                return self.apply("where", x, 1.0, 0.0)
            return x
        if isinstance(x, float | int | numbers.Real):
            return float(x)
        raise TypeError(
            f"Expected a rule to compute with its arguments and numbers alone (got '{type(x).__name__}' in "
            f"'{operation}'); a constant that is a tensor is an argument of the rule"
        )

    def power(self, x: Symbol, exponent: Any) -> Value:
        r"""Returns a power by multiplications.

        Raises:
            TypeError: If the exponent is not a whole number up to 16.
        """
        if exponent not in range(-16, 17):
            raise TypeError(
                f"Expected a power of a whole number up to 16 (got {exponent!r}); use 'sqrt', or 'exp' of a "
                f"multiple of 'log', of kgat.score.scalar"
            )
        power: Value = 1.0
        for _ in range(abs(int(exponent))):
            power = self.apply("mul", power, x)
        return power if exponent >= 0 else self.apply("truediv", 1.0, power)

    def orders(self, x: Value, y: Value) -> tuple[Value, Value]:
        r"""Returns the conditions that one is not above the other, and not below it."""
        return self.apply("le", x, y), self.apply("ge", x, y)

    # Simpler forms. All are exact, but that 0 times infinity is 0.

    def _neg(self, x: Value) -> Value:
        return x.operands[0] if _negated(x) else self.result("neg", x)

    def _add(self, x: Value, y: Value) -> Value:
        if _is(x, 0.0) or _is(y, 0.0):
            return y if _is(x, 0.0) else x
        if _negated(y):
            return self.apply("sub", x, y.operands[0])
        return self.apply("sub", y, x.operands[0]) if _negated(x) else self.result("add", x, y)

    def _sub(self, x: Value, y: Value) -> Value:
        if _is(y, 0.0):
            return x
        if _is(x, 0.0):
            return self.apply("neg", y)
        if _negated(y):
            return self.apply("add", x, y.operands[0])
        if _negated(x):
            return self.apply("neg", self.apply("add", x.operands[0], y))
        return self.result("sub", x, y)

    def _mul(self, x: Value, y: Value) -> Value:
        if isinstance(y, float):
            x, y = y, x
        if _is(x, 0.0) or _is(x, 1.0):
            return y if x else 0.0
        return self.apply("neg", y) if _is(x, -1.0) else self.result("mul", x, y)

    def _truediv(self, x: Value, y: Value) -> Value:
        return x if _is(x, 0.0) or _is(y, 1.0) else self.result("truediv", x, y)

    def _where(self, condition: Symbol, x: Value, y: Value) -> Value:
        same = x is y or (isinstance(x, float) and isinstance(y, float) and repr(x) == repr(y))
        return x if same else self.result("where", condition, x, y)

    def _extreme(self, operation: str, beyond: str, x: Value, y: Value) -> Value:
        # Beside a constant it is a choice: at a tie the constant is taken, which has no derivative.
        constant = [not (isinstance(z, Symbol) and z.varies) for z in (x, y)]
        if constant[0] == constant[1]:
            self.orders(x, y)
            return self.result(operation, x, y)
        if constant[0]:
            x, y = y, x
        return self.apply("where", self.apply(beyond, x, y), y, x)

    _minimum = partialmethod(_extreme, "minimum", "ge")
    _maximum = partialmethod(_extreme, "maximum", "le")


def _sign(x: Any) -> Value:
    choose = x.tape.apply
    return choose("where", x > 0.0, 1.0, 0.0) - choose("where", x < 0.0, 1.0, 0.0)


def _tangent_of_product(z: Symbol, x: Any, y: Any, dx: Any, dy: Any) -> Any:
    return 2.0 * x * dx if x is y else dx * y + x * dy


def _tangent_of_log(z: Symbol, x: Any, dx: Any, tangent: Callable[[Any], Any]) -> Any:
    # Of a quotient the two parts apart: they do not cancel.
    if x.operation == "truediv":
        above, below = x.operands
        return tangent(above) / above - tangent(below) / below
    return dx / x


def _tangent_of_extreme(z: Symbol, x: Any, y: Any, dx: Any, dy: Any) -> Any:
    taken, other = (x < y, x > y) if z.operation == "minimum" else (x > y, x < y)
    choose = z.tape.apply
    return choose("where", taken, dx, choose("where", other, dy, 0.5 * (dx + dy)))


# Of each operation: its result, its operands and their derivatives become its derivative.
_TANGENTS: dict[str, Callable[..., Any]] = {
    "neg": lambda z, x, dx: -dx,
    "add": lambda z, x, y, dx, dy: dx + dy,
    "sub": lambda z, x, y, dx, dy: dx - dy,
    "mul": _tangent_of_product,
    "truediv": lambda z, x, y, dx, dy: (dx - z * dy) / y,
    "exp": lambda z, x, dx: z * dx,
    "log": _tangent_of_log,
    "sin": lambda z, x, dx: z.tape.apply("cos", x) * dx,
    "cos": lambda z, x, dx: -(z.tape.apply("sin", x) * dx),
    "sqrt": lambda z, x, dx: 0.5 * dx / z,
    "absolute": lambda z, x, dx: _sign(x) * dx,
    "minimum": _tangent_of_extreme,
    "maximum": _tangent_of_extreme,
    "where": lambda z, condition, x, y, _, dx, dy: z.tape.apply("where", condition, dx, dy),
}


def _history(outputs: Iterable[Value]) -> list[Symbol]:
    # All that the outputs are made of, in the order it was computed in.
    seen: dict[int, Symbol] = {}
    waiting = [x for x in outputs if isinstance(x, Symbol)]
    while waiting:
        x = waiting.pop()
        if x.place not in seen:
            seen[x.place] = x
            waiting.extend(y for y in x.operands if isinstance(y, Symbol))
    return [seen[place] for place in sorted(seen)]


def _operands(x: Symbol, guards: Guards, *, guarded: bool) -> list[tuple[Value, Guards]]:
    r"""Returns what a result is computed of, each with the conditions under which it may have a gradient."""
    if x.operation == "input":  # below the conditions of a branch
        return [(x.tape.symbols[guards[-1][0]], ()), (x, guards[:-1])] if guards else []
    if x.operation in _CONDITIONS:  # they have no gradient in any case
        return [(y, ()) for y in x.operands]
    of: list[Guards] = [guards] * len(x.operands)
    if guarded and x.operation == "where":
        place = x.operands[0].place
        of = [(), (*guards, (place, True)), (*guards, (place, False))]
    elif guarded and x.operation in ("minimum", "maximum"):
        below, above = x.tape.orders(*x.operands)
        first, second = (below, above) if x.operation == "minimum" else (above, below)
        if isinstance(below, Symbol) and isinstance(above, Symbol):
            of = [(*guards, (first.place, True)), (*guards, (second.place, True))]
    return [
        (y, more if len(more) <= len(guards) or _unbounded(y) else guards)
        for y, more in zip(x.operands, of, strict=True)
    ]


def _unbounded(x: Value) -> bool:
    return any(y.operation in _UNBOUNDED for y in _history([x]))


def _in_order(outputs: Iterable[Value], *, guarded: bool) -> list[tuple[Symbol, Guards]]:
    r"""Returns all that the outputs are made of, with the conditions of the branches that each is in, in an
    order it can be computed in."""
    if not guarded:
        return [(x, ()) for x in _history(outputs)]
    ordered: dict[tuple[int, Guards], tuple[Symbol, Guards]] = {}
    waiting: list[tuple[Value, Guards]] = [(x, ()) for x in reversed(list(outputs))]
    while waiting:
        x, guards = waiting[-1]
        left = [y for y in _operands(x, guards, guarded=True) if isinstance(y[0], Symbol)]
        left = [(y, more) for y, more in left if (y.place, more) not in ordered]
        if left:
            waiting.extend(reversed(left))
        else:
            ordered.setdefault((x.place, guards), waiting.pop())
    return list(ordered.values())


def _slope(output: Value, by: Symbol) -> Value:
    # The derivative, carried from what it is taken by to the output.
    slopes: dict[int, Value] = {by.place: 1.0}

    def slope(x: Any) -> Value:
        return slopes.get(x.place, 0.0) if isinstance(x, Symbol) else 0.0

    for x in _history([output]):
        known = [slope(operand) for operand in x.operands]
        if x is by or x.operation in _CONDITIONS or all(_is(d, 0.0) for d in known):
            continue  # it is constant
        more = (slope,) if x.operation == "log" else ()
        slopes[x.place] = _TANGENTS[x.operation](x, *x.operands, *known, *more)
    return slope(output)


class Expression:
    r"""What a function of scalars computes.

    Args:
        function (Callable): The function, of symbols.
        operands (int): How many of its arguments it is differentiated by: 2 for a pair, 1 for a link. Those
            that follow are constants.
        results (int, optional): How many numbers it returns. (default: :obj:`1`)
        name (str, optional): The name it is written with, not its own: what is equal has one text.
            (default: :obj:`"rule"`)

    Raises:
        TypeError: If the function is not written in scalars.

    Example:
        >>> from kgat.score.derive import Expression
        >>> from kgat.score.scalar import log
        >>> score = Expression(lambda t, eps: log(t * t + eps), 1)
        >>> print(score.derivative().text.strip())
        def d_rule(t, c0):
            v0 = t * t
            v1 = v0 + c0
            v2 = 2.0 * t
            v3 = v2 / v1
            return v3
    """

    def __init__(
        self, function: Callable[..., Any], operands: int, results: int = 1, name: str = "rule"
    ) -> None:
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except ValueError as error:  # a function of another language
            raise TypeError(
                f"Expected a function of Python (got {function!r}); rules are written with arithmetic and "
                f"the functions of kgat.score.scalar"
            ) from error
        if len(parameters) < operands or any(p.kind > p.POSITIONAL_OR_KEYWORD for p in parameters):
            raise TypeError(
                f"Expected {operands} arguments and then constants, by place (got "
                f"{inspect.signature(function)}); constants with defaults are the rule's own"
            )
        self._name = name
        self._operands = operands
        self._defaults = [p.default for p in parameters if p.default is not p.empty]
        self._tape = Tape()
        self._inputs = [self._tape.input(place < operands) for place in range(len(parameters))]
        outputs = function(*self._inputs)
        self._outputs: Sequence[Value] = outputs if isinstance(outputs, tuple) else (outputs,)
        if len(self._outputs) != results:
            raise TypeError(
                f"Expected {results} results of a function (got {len(self._outputs)}); a rule has one, its "
                f"derivative one for each argument"
            )
        self._outputs = [self._tape._operand(x, "return") for x in self._outputs]

    def derivative(self) -> Expression:
        r"""Returns the derivative by each operand."""
        inputs, output = self._inputs[: self._operands], self._outputs[0]
        joint = self._joint(output)
        parts = [] if joint is None else [_slope(joint, x) for x in inputs]
        # Of x - y the two derivatives are those of one number. Those of x / y may be infinite, where a choice
        # around it takes another branch.
        if joint is not None and all(isinstance(part, float) for part in parts):
            slopes = [_slope(output, joint) * part for part in parts]
        else:
            slopes = [_slope(output, x) for x in inputs]
        derived = object.__new__(Expression)
        derived.__dict__.update(self.__dict__, _name="d_rule", _outputs=slopes)
        return derived

    def _joint(self, output: Value) -> Symbol | None:
        # The first result that both operands have part in, if they have part in the output through it alone.
        parts = {x.place: {x.place} for x in self._inputs[: self._operands]}
        joint: Symbol | None = None
        for x in _history([output]):
            if x.operation != "input":
                of = () if x.operation in _CONDITIONS else x.operands  # a condition has no derivative
                parts[x.place] = set().union(*(parts.get(y.place, ()) for y in of if isinstance(y, Symbol)))
            if joint is None and len(parts.get(x.place, ())) > 1:
                joint, parts[x.place] = x, set()
        return joint if isinstance(output, Symbol) and not parts.get(output.place) else None

    @property
    def text(self) -> str:
        r"""The function that computes it, in Python, as backends compile it."""
        return self._written(on_tensors=False)

    def function(self) -> Any:
        r"""Returns the function that computes it, on tensors; its ``text`` is :attr:`text`."""
        # A compiler of torch looks names up in the module of this name.
        names: dict[str, Any] = {"__name__": typed.__module__, "typed": typed, "taken": taken, **_FUNCTIONS}
        exec(self._written(on_tensors=True), names)
        function = names.pop(self._name)
        function.text = self.text
        return function

    def _written(self, on_tensors: bool) -> str:
        letters = "xy" if self._operands == 2 else "t"
        names: dict[tuple[int, Guards], str] = {
            (x.place, ()): letters[i] if i < self._operands else f"c{i - self._operands}"
            for i, x in enumerate(self._inputs)
        }
        parameters = list(names.values())
        for i, default in enumerate(reversed(self._defaults), 1):
            parameters[-i] += f"={_literal(float(default))}"
        lines = [f"def {self._name}({', '.join(parameters)}):"]

        def name(x: Value, guards: Guards = ()) -> str:
            return names[x.place, guards] if isinstance(x, Symbol) else _literal(x)

        outputs = [self._full(x, place) for place, x in enumerate(self._outputs)]
        for x, guards in _in_order(outputs, guarded=on_tensors):
            if (x.place, guards) in names:
                continue
            operands = [name(*y) for y in _operands(x, guards, guarded=on_tensors)]
            if on_tensors and x.operation == "where" and not any(_varies(y) for y in x.operands[1:]):
                operands[1] = f"typed({operands[1]}, {letters[0]})"
            if x.operation == "input":  # in a branch: of its own
                value = f"taken({', '.join(operands)}, {guards[-1][1]})"
            elif x.operation == "neg":
                value = f"-{operands[0]}"
            elif x.operation in _SIGNS:
                value = f" {_SIGNS[x.operation]} ".join(operands)
            else:
                value = f"{x.operation}({', '.join(operands)})"
            names[x.place, guards] = f"v{len(lines) - 1}"
            lines.append(f"    {names[x.place, guards]} = {value}")
        return "\n".join([*lines, f"    return {', '.join(map(name, outputs))}", ""])

    def _full(self, x: Value, place: int) -> Symbol:
        # Blocks of a GPU do not broadcast a result that depends on constants alone.
        if isinstance(x, Symbol) and x.varies:
            return x
        zero = self._tape.result("mul", 0.0, self._inputs[min(place, self._operands - 1)])
        return self._tape.result("add", x, zero)


def _literal(x: float) -> str:
    return repr(x).replace("inf", "1e999").replace("nan", "(1e999 - 1e999)")


def _varies(x: Value) -> bool:
    return isinstance(x, Symbol) and x.varies


_GRAMMAR = (
    *(ast.Module, ast.FunctionDef, ast.arguments, ast.arg, ast.Assign, ast.Return, ast.Name, ast.Tuple),
    *(ast.Load, ast.Store, ast.Constant, ast.Call, ast.Compare, ast.cmpop, ast.UnaryOp, ast.USub, ast.BinOp),
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.BitAnd, ast.BitOr),
)


def read(text: str) -> list[Any]:
    r"""Returns the functions that texts of :class:`Expression` define, one after the other.

    Raises:
        ValueError: If there is anything else in it: code is nothing to take from just anyone.
    """
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise ValueError(f"Expected functions that were written from a rule (got {text!r})") from error
    for node in ast.walk(tree):
        called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None
        if not isinstance(node, _GRAMMAR) or (isinstance(node, ast.Call) and called not in _FUNCTIONS):
            raise ValueError(f"Expected functions that were written from a rule (got {text!r})")
    names = dict(_FUNCTIONS)
    exec(text, names)
    return [names[node.name] for node in tree.body if isinstance(node, ast.FunctionDef)]
