r"""The API reference: pages for what is public, and for nothing else."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

import kgat
from kgat import nn

DOCS = Path(kgat.__file__).parents[1] / "docs"


@pytest.fixture
def api(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    return importlib.import_module("_generate.api")


@pytest.mark.quick
def test_rooms_of_the_reference_are_the_public_ones(api):
    public = {name for name in kgat.__all__ if isinstance(getattr(kgat, name), ModuleType)}
    assert set(api.rooms()) == public - {"ops"}
    assert api.rooms()[0] == "nn"


@pytest.mark.quick
def test_the_remedy_named_in_an_error_has_a_page(api):
    assert "calibrate" in nn.__all__
    assert "calibrate" in api.documented(nn)
    assert api._elsewhere(nn, "calibrate") is False
