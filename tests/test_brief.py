import dataclasses
import re
from importlib import import_module
from pkgutil import walk_packages

import pytest
import torch

import kgat
from kgat.brief import Brief, brief
from kgat.datasets import from_data, load, load_sequences
from kgat.kernels import resolve
from kgat.ops.graph.adjacency import Adjacency

pytestmark = pytest.mark.quick


def made():
    task, links = load("karate"), load("karate-links")
    words = load_sequences("ListOps", lengths=(5, 20), sizes=(30, 10, 10))
    x = torch.randn(500, 2, 4)
    yield from (task, task.visible(task.split(0)), *task.splits, links, links.split(0), words)
    yield from (resolve(name, 4, 2)(x, x) for name in ("rbf", "rbf*l2", "constant*rbf+laplace"))
    yield Adjacency.of(torch.randint(500, (2, 5000)), 1, 500, 500)
    yield from_data(task.data)


def test_what_is_printed_has_shapes_and_no_numbers():
    for one in made():
        said = repr(one)
        assert len(said) < 1500, type(one)
        assert "tensor(" not in said
        assert said.startswith(f"{type(one).__name__}(")


def test_values_that_are_counted():
    assert brief([torch.zeros(2), None]) == "[[2], None]"
    assert brief((torch.zeros(2),) * 4) == "4 x Tensor"
    assert brief(torch.ones(3, dtype=torch.bool)) == "3 of [3]"
    assert brief(torch.ones(3, dtype=torch.bool, device="meta")) == "[3]"
    ragged = torch.nested.nested_tensor([torch.ones(1), torch.ones(2)], layout=torch.jagged)
    assert brief(ragged) == "[ragged]"
    assert brief(object()) != "object(...)"
    assert brief(dict.fromkeys("ab", 1.5)) == "{'a': 1.5, 'b': 1.5}"


HOLDS = r"(?:<class 'torch\.)?Tensor(?:'>)?(?: \| None)?"


SKIPPED = ("kgat.experiments", "kgat.cli", "kgat.ops.gpu")  # they hold records, or want a GPU


def dataclasses_of_tensors():
    for module in walk_packages(kgat.__path__, "kgat."):
        if module.name.startswith(SKIPPED) or "__main__" in module.name:
            continue
        items = [item for item in vars(import_module(module.name)).values() if isinstance(item, type)]
        yield from (
            item
            for item in items
            if dataclasses.is_dataclass(item) and item.__module__ == module.name
            if any(re.fullmatch(HOLDS, str(field.type)) for field in dataclasses.fields(item))
        )


def test_dataclasses_that_hold_tensors_are_brief():
    items = list(dataclasses_of_tensors())
    assert len(items) > 15
    assert not [item.__name__ for item in items if item.__repr__ is not Brief.__repr__]
