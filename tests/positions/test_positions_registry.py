import functools
import inspect
import pickle

import pytest
import torch

from kgat.kernels import RBF
from kgat.positions import (
    ALiBi,
    Kerple,
    Position,
    RelativeTable,
    Rotary,
    Sum,
    SymmetricProduct,
    TransformerXL,
    names,
    resolve,
)

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("sum", Sum),
        ("Symmetric_Product", SymmetricProduct),
        ("symmetric", SymmetricProduct),
        ("transformer-xl", TransformerXL),
        ("txl", TransformerXL),
        ("alibi", ALiBi),
        ("RoPE", Rotary),
        ("rotary", Rotary),
        ("kerple", Kerple),
        ("relative_table", RelativeTable),
        (Sum, Sum),
        (functools.partial(Kerple, form="power"), Kerple),
        (lambda embed_dim, num_heads: Kerple(embed_dim, num_heads), Kerple),
        (TransformerXL(15, 3), TransformerXL),
    ],
    ids=lambda x: "function" if inspect.isfunction(x) else str(x),
)
def test_all_forms(given, expected):
    position = resolve(given, 15, 3)
    assert type(position) is expected
    assert (position.embed_dim, position.num_heads, position.channels) == (15, 3, 5)
    if isinstance(given, Position):
        assert position is given


def test_every_name_resolves():
    for name in names():
        built = resolve(name, 15, 3)
        assert built is None if name == "none" else type(built).__name__ == name
    assert resolve(None, 15, 3) is None


def test_names_of_forms_and_arguments():
    assert resolve("table", 15, 3).form == "table"
    assert resolve("table-S", 15, 3).form == resolve("shaw", 15, 3).form == "table-S"
    assert resolve("kerple_log", 15, 3).form == "log"
    assert resolve("kerple_power", 15, 3).form == "power"
    assert resolve("table", 15, 3, max_offset=7).max_offset == 7
    assert resolve("Table-S[max_offset=7]", 15, 3).a_value.shape == (15, 3, 5)
    assert resolve("table-S[form=table]", 15, 3).form == "table"
    assert resolve("symmetric[kernel=rbf*l2]", 15, 3).kernel.kernels[1].initial_p == 2.0
    assert resolve("sum", 15, 3, max_length=7, in_values=True).t.shape == (7, 15)
    assert resolve(lambda *sizes, **more: Sum(*sizes, **more), 15, 3, in_values=True).in_values


@pytest.mark.parametrize(
    ("given", "kwargs", "error", "message"),
    [
        (
            "sums",
            {},
            ValueError,
            r"got 'sums'\); choose from: ALiBi, .*TransformerXL, none; did you mean 'sum'\?",
        ),
        ("sum", {"radius": 2}, ValueError, r"arguments of Sum \(got 'radius'\); .*'max_length', 'in_values'"),
        ("txl", {"radius": 2}, ValueError, r"arguments of TransformerXL \(got 'radius'\); it takes none"),
        ("none", {"form": "log"}, ValueError, r"where there is no position \(got 'form'\)"),
        ("table[max_ofset=2]", {}, ValueError, r"takes max_offset, form; did you mean 'max_offset'\?"),
        ("table*rotary", {}, ValueError, r"a position as NAME\[ARGUMENT=VALUE,...\] .*'\*' does not fit"),
        (Sum(15, 3), {"in_values": True}, ValueError, r"built already .*got 'in_values'"),
        (Sum(15, 5), {}, ValueError, r"embed_dim=15, num_heads=3 \(got Sum\(15, num_heads=5\)\)"),
        (Sum(30, 3), {}, ValueError, r"embed_dim=15"),
        (3, {}, TypeError, r"a name, a class, a factory or a 'Position' \(got 3\)"),
        (torch.nn.ReLU(), {}, TypeError, r"got ReLU\(\)"),
        (lambda embed_dim, num_heads: 3, {}, TypeError, r"return a 'Position' \(got 3\)"),
    ],
    ids=lambda x: "function" if inspect.isfunction(x) else str(x),
)
def test_bad_input_is_a_sentence(given, kwargs, error, message):
    with pytest.raises(error, match=message):
        resolve(given, 15, 3, **kwargs)


@pytest.mark.parametrize(
    ("position", "shown"),
    [
        (Sum(8, 2, max_length=4, in_values=True), "Sum(8, num_heads=2, max_length=4, in_values=True)"),
        (Kerple(8, 2, form="power"), "Kerple(8, num_heads=2, form='power')"),
        (ALiBi(8, 2, form="causal"), "ALiBi(8, num_heads=2, form='causal')"),
        (RelativeTable(8, 2, 4), "RelativeTable(8, num_heads=2, max_offset=4)"),
        (Rotary(8, 2, channels=2), "Rotary(8, num_heads=2, channels=2)"),
        *(
            (cls(8, 2), f"{cls.__name__}(8, num_heads=2)")
            for cls in (ALiBi, Kerple, RelativeTable, Rotary, Sum)
        ),
    ],
    ids=repr,
)
def test_a_repr_shows_what_is_not_as_usual(position, shown):
    assert repr(position) == shown


def test_a_position_by_a_function_is_pickled_and_shows_the_kernel_that_it_made():
    position = SymmetricProduct(8, 2, kernel=lambda channels, heads: RBF(channels, heads, lengthscale=3.0))
    twin = pickle.loads(pickle.dumps(position))
    assert repr(twin) == repr(position)
    assert "(kernel): RBF(4, heads=2, lengthscale=3.0)" in repr(twin)
