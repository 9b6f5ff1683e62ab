"""The language of loops: what it computes, and what it refuses."""

import numpy as np
import pytest

from kgat.ops.cpu.compiler import CompileError
from kgat.ops.cpu.math import VOCABULARY, apart, inlined, plain
from kgat.ops.cpu.runtime import Loop, pointer, shift

_f64, _i64, _u64, _i32 = np.float64(0), np.int64(0), np.uint64(0), np.int32(0)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))


def run(function, *arrays, key=""):
    Loop(function, function.__name__, function.__qualname__ + key).run(list(arrays), 1)


@apart
def _both(out, x, size):
    total = 0.0
    for r in range(size):
        out[r] += x[r]
        total += x[r]
    return total, size


@plain
def _nothing(x):
    pass


def test_statements_and_expressions():
    def loop(begin, end, ctx):
        x, out, n = pointer(ctx[0], _f64), pointer(ctx[1], _f64), ctx[2]
        out[0], size = _both(shift(out, 1), x, n)
        _nothing(out)
        a = b = 0
        for i in range(0, size, 2):
            a += i
        while True:
            b += 1
            if b * b >= 10 or (b > 100 and not b < 5):
                break
        out[n + 1] = a
        out[n + 2] = b
        c = 7
        c = x[0] if x[0] > 5 else c  # a variable keeps the type it had first
        out[n + 3] = c
        out[n + 4] = min(x[0], x[1]) + max(a, b) // 4 + a % 4 - -x[1] / 2
        for i in range(n):  # the same name, once of a number and once of a pointer
            a += i
        a = pointer(ctx[1], _f64)
        a[n + 5] = a[0] * 2

    x, out = np.array([1.5, 2.5, 3.5, 4.5, 5.5]), np.zeros(11)
    run(loop, x, out, x.size)
    assert out.tolist() == [17.5, *x, 6, 4, 7, 1.5 + 1 + 2 + 1.25, 35]


def test_what_is_known_is_not_compiled():
    table, missing = (np.float64(3), np.float64(4)), 0

    def loop(begin, end, ctx):
        out = pointer(ctx[0], _f64)
        first, second = table
        if missing == 0 and first > 2:
            out[0] = first * second
        else:
            out[0] = missing.size

    out = np.zeros(1)
    run(loop, out)
    assert out.item() == 12


def test_integers_of_all_widths():
    def loop(begin, end, ctx):
        small, out = pointer(ctx[0], np.int8(0)), pointer(ctx[1], _u64)
        out[0] = (np.uint64(small[0]) >> np.uint64(60)) ^ np.uint64(1)
        out[1] = np.uint64(np.int64(small[0]) >> 1)
        out[2] = np.uint64(small[0]) * np.uint64(0x9E3779B97F4A7C15)
        out[3] = np.uint64(np.float64(small[0]) < 0)

    out = np.zeros(4, np.uint64)
    run(loop, np.array([-3], np.int8), out)
    expected = [15 ^ 1, -2 % 2**64, -3 * 0x9E3779B97F4A7C15 % 2**64, 1]
    assert [int(x) for x in out] == expected


@pytest.mark.parametrize("name", ["exp", "log", "sin", "cos"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_elementary_functions(name, dtype):
    function, zero = VOCABULARY[np.dtype(dtype).name][name], dtype(0)

    def loop(begin, end, ctx):
        x, y = pointer(ctx[0], zero), pointer(ctx[1], zero)
        for i in range(ctx[2]):
            y[i] = function(x[i])

    x = np.linspace(-100, 100, 2001).astype(dtype)
    x = np.concatenate([x, np.array([0, np.inf, -np.inf, np.nan, 1e-40, 1e-30, 1e30], dtype)])
    if name in ("sin", "cos"):
        x = x[np.abs(x) < 1e5]
    y = np.empty_like(x)
    run(loop, x, y, x.size, key=f"{name} {dtype}")
    with np.errstate(all="ignore"):
        expected = getattr(np, name)(x.astype(np.float64))
        if name == "exp" and dtype is np.float32:
            expected[x < -87.33] = 0  # no number below the normal ones
        np.testing.assert_allclose(y, expected.astype(dtype), rtol=2e-7, atol=1e-7 if name != "exp" else 0)


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_sines_of_huge_angles_are_sines(name):
    function, zero = VOCABULARY["float32"][name], np.float32(0)

    def loop(begin, end, ctx):
        x, y = pointer(ctx[0], zero), pointer(ctx[1], zero)
        for i in range(ctx[2]):
            y[i] = function(x[i])

    x = np.array([1e15, 7e15, -1e16, 1e18, 1e20, -1e30, 3e38, np.inf, -np.inf], np.float32)
    y = np.empty_like(x)
    run(loop, x, y, x.size, key=name)
    assert np.isnan(y[-2:]).all()
    assert (np.abs(y[:-2]) <= 1).all()


@inlined
def _too_many(x, y):
    return x


def _list(begin, end, ctx):
    ctx[0] = [end]


def _unlike(begin, end, ctx):
    ctx[0] = np.uint64(ctx[0]) + ctx[1]


def _arity(begin, end, ctx):
    ctx[0] = _too_many(ctx[0])


def _unbound(begin, end, ctx):
    ctx[0] = who  # noqa: F821


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (_list, r"got '\[end\]' in '_list'"),
        (_unlike, "one kind .got uint64 and int64"),
        (_arity, "Expected 2 arguments of '_too_many' .got 1"),
        (_unbound, "'who' in '_unbound'"),
    ],
)
def test_what_it_does_not_know(function, message):
    with pytest.raises(CompileError, match=message):
        Loop(function, "", function.__name__)


@pytest.mark.parametrize("change", [("loop", "other"), ("ctx):", "context):"), ("first", "other")])
def test_a_file_that_has_changed_since_it_was_imported(change, tmp_path):
    path, names = tmp_path / "loops.py", {}
    source = "def loop(begin, end, ctx):\n    ctx[0] = first\n"
    path.write_text(source)
    exec(compile(source, path, "exec"), names)
    path.write_text(source.replace(*change))
    with pytest.raises(CompileError, match="as it was when it was imported"):
        Loop(names["loop"], "", str(path))
